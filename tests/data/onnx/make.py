"""Makes the files beside it, as PyTorch, Keras and scikit-learn's converter write them, with inputs and outputs.

Run by hand, with one of "torch", "keras" or "sklearn": ``python tests/data/onnx/make.py torch``. Each needs its own
packages: torch, onnx, onnxscript and safetensors; tensorflow-cpu, tf2onnx and onnx; scikit-learn, skl2onnx and onnx.
What a file's network gives for some rows was computed by the library that it comes from; it stands beside the file,
with the suffix .npz.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def strip(path: Path) -> None:
    """Take out of a file what says where and when it was made."""
    import onnx

    model = onnx.load(path)
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.initializer,
        *model.graph.input,
        *model.graph.output,
    ):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    path.write_bytes(model.SerializeToString())


def keep(name: str, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Store the rows beside a file."""
    np.savez(HERE / f"{name}.npz", inputs=inputs, outputs=outputs)


def rows(n_inputs: int, dtype: str = "float32") -> np.ndarray:
    """Return some rows, with numbers that reach all parts of an activation."""
    return (3 * np.random.default_rng(5).normal(size=(20, n_inputs))).astype(dtype)


def from_torch() -> None:
    """Write files by both of PyTorch's exporters."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    torch.manual_seed(1)

    def written(name: str, module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        module = module.to(dtype).eval()
        inputs = torch.from_numpy(rows(math.prod(shape))).to(dtype).reshape(-1, *shape)
        outputs = module(inputs).detach().numpy()
        for how, by_dynamo in (("dynamo", True), ("script", False)):
            path = HERE / f"torch_{name}_{how}.onnx"
            if by_dynamo:
                shapes = ({0: torch.export.Dim("batch")},)
                torch.onnx.export(module, (inputs,), path, dynamo=True, dynamic_shapes=shapes, external_data=False)
                strip(path)
            else:
                axes = {"x": {0: "batch"}, "y": {0: "batch"}}
                options = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
                torch.onnx.export(module, (inputs,), path, dynamo=False, **options)
            keep(path.stem, inputs.numpy(), outputs)

    class Block(nn.Module):
        """Adds what its layers make of x to x."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.layers(x)

    norm = nn.BatchNorm1d(8)
    network = [nn.Linear(4, 8), nn.ReLU(), norm, nn.Dropout(0.5), nn.Linear(8, 6), nn.GELU(), nn.LayerNorm(6)]
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        values.data.uniform_(0.5, 1.5)
    classifier = nn.Sequential(*network, nn.Linear(6, 3), nn.Softmax(dim=1))
    written("classifier", classifier, (4,))
    save_file(classifier.state_dict(), HERE / "torch_classifier.safetensors")
    activations = [nn.LeakyReLU(0.2), nn.PReLU(), nn.PReLU(5), nn.ELU(0.7), nn.SELU(), nn.GELU(), nn.SiLU(), nn.Mish()]
    activations += [
        nn.GELU(approximate="tanh"),
        nn.Softplus(),
        nn.Hardswish(),
        nn.Hardsigmoid(),
        nn.Tanh(),
        nn.Sigmoid(),
    ]
    layers = [each for activation in activations for each in (nn.Linear(5, 5), activation)]
    written("activations", nn.Sequential(*layers), (5,))
    residual = nn.Sequential(nn.Linear(4, 6), Block(6), nn.Tanh(), Block(6), nn.Linear(6, 1))
    written("residual", residual, (4,), torch.float64)
    written("images", nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), (1, 2, 3))
    written("convolution", nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)), (1, 6))


def from_keras() -> None:
    """Write files by tf2onnx, and by Keras's own export, which calls it."""
    import keras
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(1)
    every = ["relu", "elu", "selu", "silu", "mish", "softplus", "hard_sigmoid", "hard_silu", "tanh", "sigmoid"]
    first = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.BatchNormalization()]
    last = [keras.layers.Dropout(0.5), keras.layers.Dense(6, "tanh"), keras.layers.Dense(3, "softmax")]
    classifier = keras.Sequential([*first, *last])
    norm = classifier.layers[1]
    norm.set_weights([np.random.default_rng(number).uniform(0.5, 1.5, 8) for number in range(4)])
    leaky = [keras.layers.Dense(5), keras.layers.LeakyReLU(0.2)]
    activations = keras.Sequential(
        [keras.Input((5,)), *(keras.layers.Dense(5, each, bias_initializer="normal") for each in every), *leaky]
    )
    for name, model in (("classifier", classifier), ("activations", activations)):
        inputs = rows(model.input_shape[1])
        outputs = model.predict(inputs, verbose=0)
        signature = [tf.TensorSpec(model.input_shape, tf.float32, name="x")]
        path = HERE / f"keras_{name}_tf2onnx.onnx"
        tf2onnx.convert.from_function(tf.function(model), signature, output_path=str(path))
        keep(path.stem, inputs, outputs)
        path = HERE / f"keras_{name}_export.onnx"
        model.export(str(path), format="onnx", verbose=False)
        keep(path.stem, inputs, outputs)


def from_sklearn() -> None:
    """Write files by skl2onnx."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X = rows(4)
    classes, numbers = (X[:, 0] > 0).astype(int) + (X[:, 1] > 1), X @ np.arange(8).reshape(4, 2)
    settings = {"hidden_layer_sizes": (6, 5), "max_iter": 20, "random_state": 1}

    def written(name: str, estimator: object, y: np.ndarray, inputs: np.ndarray = X) -> None:
        estimator.fit(inputs, y)
        options = {"zipmap": False} if hasattr(estimator, "predict_proba") else None
        (HERE / f"sklearn_{name}.onnx").write_bytes(to_onnx(estimator, inputs[:1], options=options).SerializeToString())
        outputs = estimator.predict_proba(inputs) if options else estimator.predict(inputs).reshape(len(inputs), -1)
        keep(f"sklearn_{name}", inputs, outputs)

    written("classifier", MLPClassifier(activation="tanh", **settings), classes)
    written("two_classes", MLPClassifier(**settings), classes > 0)
    written(
        "regressor", make_pipeline(StandardScaler(), MLPRegressor(activation="logistic", **settings)), numbers[:, 0]
    )
    written("double", make_pipeline(StandardScaler(), MLPRegressor(**settings)), numbers[:, 0], X.astype("float64"))


if __name__ == "__main__":
    {"torch": from_torch, "keras": from_keras, "sklearn": from_sklearn}[sys.argv[1]]()
