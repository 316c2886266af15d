"""The `Model` that an estimator's parameters describe, with scikit-learn's own initial weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import is_classifier

from nnx import initializers
from nnx._base.typing import FloatDType
from nnx.accuracy import Accuracy_Categorical, Accuracy_Regression
from nnx.activations import Activation_Linear, Activation_Sigmoid, Activation_Softmax
from nnx.layers import Layer_Dense, Layer_Dropout
from nnx.model import Model
from nnx.sklearn import choices

#: What scikit-learn calls the outputs' activations, and the layers. Of "exp" the loss takes the logarithm.
OUTPUTS: dict[str, Any] = {
    "identity": Activation_Linear,
    "exp": Activation_Linear,
    "logistic": Activation_Sigmoid,
    "softmax": Activation_Softmax,
}

MAX_LAYER_SEED = 2**31 - 1


class End(NamedTuple):
    """What is at the end of a network.

    Attributes
    ----------
    loss : Loss
        Of nnx.
    activation : str
        What scikit-learn calls it: a key of `OUTPUTS`.
    n_outputs : int
    shares : float
        By what the loss of nnx is divided to be the one that scikit-learn reports.
    """

    loss: Any
    activation: str
    n_outputs: int
    shares: float = 1.0


def build(estimator: Any, n_inputs: int, end: End, dtype: FloatDType, random_state: np.random.RandomState) -> Model:
    """Return the finalized model, without an optimizer."""
    where = type(estimator).__name__
    widths = hidden_widths(where, estimator.hidden_layer_sizes)
    chosen = choices.per_layer(where, "activation", estimator.activation, len(widths))
    parts = choices.per_layer(where, "dropout", estimator.dropout, len(widths))
    model = Model()
    dropouts = []
    for width, activation, part in zip(widths, chosen, parts, strict=True):
        model.add(_dense(estimator, n_inputs, width, activation, dtype, random_state))
        if estimator.norm is not None:
            model.add(choices.NORMS[estimator.norm](width, dtype=dtype.name))
        model.add(choices.activation(where, activation, width, dtype.name))
        if part:
            dropouts.append(Layer_Dropout(part))
            model.add(dropouts[-1])
        n_inputs = width
    last = chosen[-1] if chosen else estimator.activation
    model.add(_dense(estimator, n_inputs, end.n_outputs, last, dtype, random_state))
    model.add(OUTPUTS[end.activation]())
    for layer in dropouts:  # after the weights, which are then those of a network without dropout
        layer.seed = random_state.randint(MAX_LAYER_SEED)
    model.set(loss=end.loss, accuracy=_accuracy(estimator, end))
    model.finalize()
    return model


def _accuracy(estimator: Any, end: End) -> Any:
    """Return what a model says of its predictions; those of several sigmoids, or labels, are compared cell by cell."""
    if not is_classifier(estimator):
        return Accuracy_Regression()
    by_cells = end.activation == "logistic" or estimator._kind == "multilabel"
    return Accuracy_Categorical(binary=by_cells and end.n_outputs > 1)


def hidden_widths(where: str, sizes: Any) -> list[int]:
    """Return how many neurons each hidden layer has."""
    widths = np.atleast_1d(np.asarray(sizes)).tolist() if np.size(sizes) else []
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, int) or width <= 0:
            what = "> 0" if isinstance(width, int) and not isinstance(width, bool) else "whole numbers > 0"
            raise ValueError(f"hidden_layer_sizes must be {what}, got {list(widths)}.")
    return widths


def _dense(
    estimator: Any, n_inputs: int, width: int, activation: Any, dtype: FloatDType, random_state: np.random.RandomState
) -> Layer_Dense:
    """Return a dense layer with its first parameters."""
    where = type(estimator).__name__
    if estimator.initializer is None:
        weights, biases = _glorot(n_inputs, width, activation, random_state)
    else:
        chosen = initializers.kept(where, "initializer", estimator.initializer)
        chosen = estimator.initializer if chosen is None else chosen
        weights, biases = initializers.parameters(where, n_inputs, width, dtype, chosen, "zeros", random_state)
    return Layer_Dense(
        n_inputs,
        width,
        dtype=dtype.name,
        weight_initializer=lambda shape: weights,
        bias_initializer=lambda shape: biases,
    )


def _glorot(n_inputs: int, width: int, activation: Any, random_state: np.random.RandomState) -> tuple[Any, Any]:
    """Draw weights and biases as scikit-learn does: uniform, in the same order of numbers.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    bound = math.sqrt((2.0 if activation == "logistic" else 6.0) / (n_inputs + width))
    weights = random_state.uniform(-bound, bound, (n_inputs, width))
    return weights, random_state.uniform(-bound, bound, width)[np.newaxis]
