"""nnx: dense neural networks on a CPU, with the API of *Neural Networks from Scratch in Python*.

Not related to Flax's NNX. All public names are here: ``from nnx import Layer_Dense, Activation_ReLU, ...``.
"""

from nnx import plot
from nnx._base.config import get_default_dtype, get_num_threads, set_default_dtype, set_num_threads
from nnx.accuracy import Accuracy, Accuracy_Categorical, Accuracy_Regression
from nnx.activations import Activation_Linear, Activation_ReLU, Activation_Sigmoid, Activation_Softmax
from nnx.data.datasets import sine_data, spiral_data, vertical_data
from nnx.data.fashion_mnist import FASHION_MNIST_CLASSES, load_fashion_mnist
from nnx.data.image_folders import load_image_folder, load_images
from nnx.data.images import Images
from nnx.data.tables import Table, load_csv
from nnx.engine.history import History
from nnx.errors import DataFileError, DivergenceError, ModelFileError
from nnx.layers import Layer_Dense, Layer_Dropout, Layer_Input
from nnx.losses import (
    Activation_Softmax_Loss_CategoricalCrossentropy,
    Loss,
    Loss_BinaryCrossentropy,
    Loss_CategoricalCrossentropy,
    Loss_MeanAbsoluteError,
    Loss_MeanSquaredError,
)
from nnx.model import Model
from nnx.optimizers import Optimizer_Adagrad, Optimizer_Adam, Optimizer_RMSprop, Optimizer_SGD
from nnx.schedules import (
    Schedule,
    Schedule_Cosine,
    Schedule_Exponential,
    Schedule_OneCycle,
    Schedule_Polynomial,
    Schedule_Step,
    Schedule_WarmUp,
)

__version__ = "0.1.0"

__all__ = [
    "FASHION_MNIST_CLASSES",
    "Accuracy",
    "Accuracy_Categorical",
    "Accuracy_Regression",
    "Activation_Linear",
    "Activation_ReLU",
    "Activation_Sigmoid",
    "Activation_Softmax",
    "Activation_Softmax_Loss_CategoricalCrossentropy",
    "DataFileError",
    "DivergenceError",
    "History",
    "Images",
    "Layer_Dense",
    "Layer_Dropout",
    "Layer_Input",
    "Loss",
    "Loss_BinaryCrossentropy",
    "Loss_CategoricalCrossentropy",
    "Loss_MeanAbsoluteError",
    "Loss_MeanSquaredError",
    "Model",
    "ModelFileError",
    "Optimizer_Adagrad",
    "Optimizer_Adam",
    "Optimizer_RMSprop",
    "Optimizer_SGD",
    "Schedule",
    "Schedule_Cosine",
    "Schedule_Exponential",
    "Schedule_OneCycle",
    "Schedule_Polynomial",
    "Schedule_Step",
    "Schedule_WarmUp",
    "Table",
    "__version__",
    "get_default_dtype",
    "get_num_threads",
    "load_csv",
    "load_fashion_mnist",
    "load_image_folder",
    "load_images",
    "plot",
    "set_default_dtype",
    "set_num_threads",
    "sine_data",
    "spiral_data",
    "vertical_data",
]
