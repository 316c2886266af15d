"""Models that several tests need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import nnx


def classifier(
    *, n_inputs: int = 2, n_classes: int = 3, dropout: float = 0, dtype: str | None = None, **dense
) -> nnx.Model:
    """Return a small finalized softmax classifier with Adam."""
    model = nnx.Model()
    model.add(nnx.Layer_Dense(n_inputs, 16, dtype=dtype, **dense))
    model.add(nnx.Activation_ReLU())
    if dropout:
        model.add(nnx.Layer_Dropout(dropout, seed=5))
    model.add(nnx.Layer_Dense(16, n_classes, dtype=dtype))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(learning_rate=0.05, decay=1e-3),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


def binary(n_outputs: int = 1) -> nnx.Model:
    """Return a small finalized sigmoid classifier."""
    return _two_layers(
        n_outputs,
        nnx.Activation_Sigmoid,
        nnx.Loss_BinaryCrossentropy,
        lambda: nnx.Accuracy_Categorical(binary=True),
    )


def regression(n_outputs: int = 1) -> nnx.Model:
    """Return a small finalized regression with a mean squared error."""
    return _two_layers(n_outputs, nnx.Activation_Linear, nnx.Loss_MeanSquaredError, nnx.Accuracy_Regression)


def _two_layers(n_outputs: int, activation: Callable, loss: Callable, accuracy: Callable) -> nnx.Model:
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 8))
    model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dense(8, n_outputs))
    model.add(activation())
    model.set(loss=loss(), optimizer=nnx.Optimizer_Adam(learning_rate=0.01), accuracy=accuracy())
    model.finalize()
    return model


def mixed_spiral(samples: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the book's spiral with its rows, which it gives class by class, in mixed order: ready for batches."""
    X, y = nnx.spiral_data(samples, classes)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], y[order]


def parameters_of(model: nnx.Model) -> bytes:
    """Return the bytes of all parameters."""
    return b"".join(array.tobytes() for pair in model.get_parameters() for array in pair)
