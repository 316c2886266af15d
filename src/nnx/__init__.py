"""nnx: dense neural networks on a CPU, with the API of *Neural Networks from Scratch in Python*.

Not related to Flax's NNX. All public names are here: ``from nnx import Layer_Dense, Activation_ReLU, ...``.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from nnx import accuracy, activations, layers, lbfgs, losses, optimizers, schedules
from nnx._base.config import get_default_dtype, get_num_threads, set_default_dtype, set_num_threads
from nnx.accuracy import *  # noqa: F403
from nnx.activations import *  # noqa: F403
from nnx.engine.history import History
from nnx.errors import DataFileError, DivergenceError, ModelFileError, RankError
from nnx.layers import *  # noqa: F403
from nnx.lbfgs import *  # noqa: F403
from nnx.losses import *  # noqa: F403
from nnx.model import Model
from nnx.optimizers import *  # noqa: F403
from nnx.predictor import Predictor, get_include
from nnx.schedules import *  # noqa: F403

if TYPE_CHECKING:
    from nnx import plot
    from nnx.callbacks import Callback, CSVLog, EarlyStopping, ReduceRateOnPlateau, SaveBest, TensorBoardLog
    from nnx.data.datasets import sine_data, spiral_data, vertical_data
    from nnx.data.fashion_mnist import FASHION_MNIST_CLASSES, load_fashion_mnist
    from nnx.data.image_folders import load_image_folder, load_images
    from nnx.data.images import Images
    from nnx.data.streams import Blocks
    from nnx.data.tables import Table, load_csv
    from nnx.ensemble import Ensemble
    from nnx.foreign import from_torch
    from nnx.many import Run, train_many
    from nnx.scoring.importance import permutation_importance

__version__ = "0.2.0"

__all__ = [
    "FASHION_MNIST_CLASSES",
    "Blocks",
    "CSVLog",
    "Callback",
    "DataFileError",
    "DivergenceError",
    "EarlyStopping",
    "Ensemble",
    "History",
    "Images",
    "Model",
    "ModelFileError",
    "Predictor",
    "RankError",
    "ReduceRateOnPlateau",
    "Run",
    "SaveBest",
    "Table",
    "TensorBoardLog",
    "__version__",
    "from_torch",
    "get_default_dtype",
    "get_include",
    "get_num_threads",
    "load_csv",
    "load_fashion_mnist",
    "load_image_folder",
    "load_images",
    "permutation_importance",
    "plot",
    "set_default_dtype",
    "set_num_threads",
    "sine_data",
    "spiral_data",
    "train_many",
    "vertical_data",
]
# The vocabulary: each module says which of its names are public.
__all__ += accuracy.__all__
__all__ += activations.__all__
__all__ += layers.__all__
__all__ += lbfgs.__all__
__all__ += losses.__all__
__all__ += optimizers.__all__
__all__ += schedules.__all__

#: Names whose modules are imported when they are first asked for: most scripts need few of them, and all take 10 ms.
_LATE = {
    **dict.fromkeys(
        ("CSVLog", "Callback", "EarlyStopping", "ReduceRateOnPlateau", "SaveBest", "TensorBoardLog"), "nnx.callbacks"
    ),
    **dict.fromkeys(("Run", "train_many"), "nnx.many"),
    "Blocks": "nnx.data.streams",
    "Ensemble": "nnx.ensemble",
    "FASHION_MNIST_CLASSES": "nnx.data.fashion_mnist",
    "Images": "nnx.data.images",
    "Table": "nnx.data.tables",
    "from_torch": "nnx.foreign",
    "load_csv": "nnx.data.tables",
    "load_fashion_mnist": "nnx.data.fashion_mnist",
    "load_image_folder": "nnx.data.image_folders",
    "load_images": "nnx.data.image_folders",
    "permutation_importance": "nnx.scoring.importance",
    "sine_data": "nnx.data.datasets",
    "spiral_data": "nnx.data.datasets",
    "vertical_data": "nnx.data.datasets",
}


def __getattr__(name: str) -> Any:
    """Import a name that is not used by every script."""
    if name == "plot":
        return import_module("nnx.plot")  # which becomes an attribute by itself
    if name not in _LATE:
        # With both, Python names the public name that is nearest.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    found = globals()[name] = getattr(import_module(_LATE[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
