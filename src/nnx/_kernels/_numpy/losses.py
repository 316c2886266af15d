"""Losses: functions for each, entered into a table under the loss's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.activations import softmax_forward
from nnx._kernels._numpy.quiet import quiet

#: Probabilities are kept this far from 0 and 1 before a logarithm.
CLIP = 1e-7

#: What is added to an expected count before its logarithm.
POISSON_EPSILON = 1e-8


class Loss(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    forward : callable
        Called with predictions, targets, an array for the losses of the samples, the columns' own numbers or None, and
        the settings one by one.
    backward, pair_backward : callable
        Called in the same way, with an array for the gradient of the mean loss by the predictions, or by the inputs of
        the paired activation.
    pair : str
        The paired activation; "" if there is none.
    by_labels : bool
        Whether targets are class numbers (n,), of dtype ``intp``, else numbers of the predictions' shape.
    """

    forward: Callable[..., None]
    backward: Callable[..., None]
    pair_backward: Callable[..., None] | None
    pair: str
    by_labels: bool


LOSSES: dict[str, Loss] = {}


def loss_forward(
    name: str,
    y_pred: Array,
    targets: Array,
    sample_losses: Array,
    settings: tuple[float, ...] = (),
    own: Array | None = None,
) -> None:
    """``sample_losses_i := the loss of row i``; (n, m), (n, m) or (n,) in, (n,) out; own (m,) float64."""
    LOSSES[name].forward(y_pred, targets, sample_losses, own, *settings)


def loss_backward(
    name: str,
    y_pred: Array,
    targets: Array,
    dinputs: Array,
    settings: tuple[float, ...] = (),
    own: Array | None = None,
) -> None:
    """``dinputs := gradient of the mean loss by y_pred``; (n, m), (n, m) or (n,) in, (n, m) out; own (m,) float64."""
    LOSSES[name].backward(y_pred, targets, dinputs, own, *settings)


def pair_backward(
    name: str,
    y_pred: Array,
    targets: Array,
    dinputs: Array,
    settings: tuple[float, ...] = (),
    own: Array | None = None,
) -> None:
    """Do the same as `loss_backward`, but by the inputs of the activation whose output is y_pred."""
    backward = LOSSES[name].pair_backward
    if backward is None:
        raise ValueError(f"pair_backward: name must be a loss that pairs with an activation, got {name!r}.")
    backward(y_pred, targets, dinputs, own, *settings)


def add_formula(
    name: str,
    loss: Callable[..., Array],
    slope: Callable[..., Array],
    pair: str = "",
    pair_slope: Callable[..., Array] | None = None,
    has_factor: bool = False,
) -> None:
    """Enter a loss that is a mean over the elements of a row, by its formulas.

    All are called with predictions, targets, the columns' own numbers (1 without any), and the settings. They return an
    array: the loss of each element, its slope by the prediction, or its slope by the inputs of the paired activation.
    With ``has_factor``, the formulas do not get the last setting: their results are multiplied by it.
    """

    def numbers(y_pred: Array, own: Array | None) -> Array:
        return np.asarray(1 if own is None else own, y_pred.dtype)

    def split(settings: tuple[float, ...]) -> tuple[tuple[float, ...], float]:
        return (settings[:-1], settings[-1]) if has_factor else (settings, 1.0)

    def forward(y_pred: Array, y_true: Array, sample_losses: Array, own: Array | None, *settings: float) -> None:
        settings, factor = split(settings)
        elements = loss(y_pred, y_true, numbers(y_pred, own), *settings)
        np.add.reduce(elements, axis=1, dtype=np.float64, out=sample_losses)
        np.divide(sample_losses, y_pred.shape[1] / factor, out=sample_losses)

    def gradient(slope: Callable[..., Array]) -> Callable[..., None]:
        def backward(y_pred: Array, y_true: Array, dinputs: Array, own: Array | None, *settings: float) -> None:
            settings, factor = split(settings)
            np.divide(slope(y_pred, y_true, numbers(y_pred, own), *settings), dinputs.size / factor, out=dinputs)

        return backward

    add(name, forward, gradient(slope), pair, None if pair_slope is None else gradient(pair_slope), False)


def add(
    name: str,
    forward: Callable[..., None],
    backward: Callable[..., None],
    pair: str,
    pair_backward: Callable[..., None] | None,
    by_labels: bool,
) -> None:
    """Enter a loss with its own loops."""
    combined = None if pair_backward is None else quiet(pair_backward)
    LOSSES[name] = Loss(quiet(forward), quiet(backward), combined, pair, by_labels)


@quiet
def total(values: Array) -> float:
    """Return ``Σ values``, summed in double."""
    return float(np.add.reduce(values, axis=None, dtype=np.float64))


def clipped(probabilities: Array, clip: float) -> Array:
    """Return probabilities kept within [clip, 1 − clip], and below 1."""
    highest = min(1 - clip, 1 - float(np.finfo(probabilities.dtype).epsneg))
    return np.minimum(np.maximum(probabilities, clip), highest)


# Mean squared error


def squared_error(y_pred: Array, y_true: Array, own: Array) -> Array:
    """(p − y)²."""
    return np.square(y_pred - y_true)


def squared_error_slope(y_pred: Array, y_true: Array, own: Array) -> Array:
    """2·(p − y)."""
    return 2 * (y_pred - y_true)


add_formula("mean_squared_error", squared_error, squared_error_slope, has_factor=True)


# Mean absolute error


def absolute_error(y_pred: Array, y_true: Array, own: Array) -> Array:
    """|p − y|."""
    return np.absolute(y_pred - y_true)


def absolute_error_slope(y_pred: Array, y_true: Array, own: Array) -> Array:
    """sign(p − y)."""
    return np.sign(y_pred - y_true)


add_formula("mean_absolute_error", absolute_error, absolute_error_slope)


# Huber's loss


def huber(y_pred: Array, y_true: Array, own: Array, delta: float) -> Array:
    """c·(d − c/2). d = p − y, and c is d kept within [−δ, δ]."""
    d = y_pred - y_true
    c = np.clip(d, -delta, delta)
    return c * (d - c / 2)


def huber_slope(y_pred: Array, y_true: Array, own: Array, delta: float) -> Array:
    """The difference p − y, kept within [−δ, δ]."""
    return np.clip(y_pred - y_true, -delta, delta)


add_formula("huber", huber, huber_slope)


# Log-cosh


def log_cosh(y_pred: Array, y_true: Array, own: Array) -> Array:
    """|d| + log1p(expm1(−2·|d|) / 2) with d = p − y. Near 0 that cancels, so there −log1p(−tanh² d) / 2."""
    d = np.absolute(y_pred - y_true)
    near = -np.log1p(-np.square(np.tanh(d))) / 2
    return np.where(d < 0.5, near, d + np.log1p(np.expm1(-2 * d) / 2))


def log_cosh_slope(y_pred: Array, y_true: Array, own: Array) -> Array:
    """The hyperbolic tangent of p − y."""
    return np.tanh(y_pred - y_true)


add_formula("log_cosh", log_cosh, log_cosh_slope)


# Pinball loss. A column's own number is its quantile


def pinball(y_pred: Array, y_true: Array, own: Array) -> Array:
    """q·d where d = y − p is above 0, else (q − 1)·d."""
    d = y_true - y_pred
    return np.where(d > 0, own, own - 1) * d


def pinball_slope(y_pred: Array, y_true: Array, own: Array) -> Array:
    """−q where y is above p, 1 − q where it is below, 0 where they are equal."""
    d = y_true - y_pred
    return np.where(d > 0, -own, np.where(d < 0, 1 - own, d))


add_formula("pinball", pinball, pinball_slope)


# Poisson's negative log-likelihood, without the term that depends only on targets


def poisson(y_pred: Array, y_true: Array, own: Array, log_input: float) -> Array:
    """exp(p) − y·p, or for outputs that are not logarithms, p − y·log(p + ε)."""
    if log_input:
        return np.exp(y_pred) - y_true * y_pred
    return y_pred - y_true * np.log(y_pred + POISSON_EPSILON)


def poisson_slope(y_pred: Array, y_true: Array, own: Array, log_input: float) -> Array:
    """exp(p) − y, or 1 − y/(p + ε)."""
    return np.exp(y_pred) - y_true if log_input else 1 - y_true / (y_pred + POISSON_EPSILON)


add_formula("poisson", poisson, poisson_slope, has_factor=True)


# Hinge loss; targets are −1 and 1


def hinge(y_pred: Array, y_true: Array, own: Array, margin: float) -> Array:
    """max(0, m − y·p)."""
    return np.maximum(margin - y_true * y_pred, 0)


def hinge_slope(y_pred: Array, y_true: Array, own: Array, margin: float) -> Array:
    """−y where y·p is below the margin, else 0."""
    room = margin - y_true * y_pred
    return np.where(room > 0, -y_true, np.where(np.isnan(room), room, 0))


add_formula("hinge", hinge, hinge_slope)


# Binary cross-entropy. A column's own number is the weight w of positive targets


def smoothed(y: Array, smoothing: float) -> Array:
    """(1 − s)·y + s/2."""
    return (1 - smoothing) * y + smoothing / 2 if smoothing else y


def binary_crossentropy(y_pred: Array, y_true: Array, own: Array, smoothing: float, clip: float) -> Array:
    """−(w·y·log p + (1 − y)·log(1 − p)), p clipped."""
    p, y = clipped(y_pred, clip), smoothed(y_true, smoothing)
    return -(own * y * np.log(p) + (1 - y) * np.log(1 - p))


def binary_crossentropy_slope(y_pred: Array, y_true: Array, own: Array, smoothing: float, clip: float) -> Array:
    """−(w·y/p − (1 − y)/(1 − p)), p clipped."""
    p, y = clipped(y_pred, clip), smoothed(y_true, smoothing)
    return (1 - y) / (1 - p) - own * y / p


def binary_crossentropy_slope_of_sigmoid(
    y_pred: Array, y_true: Array, own: Array, smoothing: float, clip: float
) -> Array:
    """The slope by the logit: (1 − y)·p − w·y·(1 − p), which is p − y without a weight."""
    y = smoothed(y_true, smoothing)
    return (1 - y) * y_pred - own * y * (1 - y_pred)


add_formula(
    "binary_crossentropy",
    binary_crossentropy,
    binary_crossentropy_slope,
    "sigmoid",
    binary_crossentropy_slope_of_sigmoid,
    has_factor=True,
)


# Categorical cross-entropy; with label smoothing s, each of m classes has the target s/m, and the label 1 − s more


def cells(values: Array, labels: Array) -> Array:
    """Return the flat index of each row's label. One index is twice as fast as two."""
    rows, columns = values.shape
    return np.arange(0, rows * columns, columns) + labels


def categorical_forward(
    y_pred: Array, labels: Array, sample_losses: Array, own: Array | None, smoothing: float, clip: float
) -> None:
    """``sample_losses_i := −(1 − s)·log(clip(p_i,label_i)) − s/m·Σ_j log(clip(p_ij))``; (n, m), (n,) in, (n,) out."""
    np.log(clipped(y_pred.reshape(-1)[cells(y_pred, labels)], clip), out=sample_losses)
    np.multiply(sample_losses, smoothing - 1, out=sample_losses)
    if smoothing:
        sample_losses -= smoothing / y_pred.shape[1] * np.add.reduce(np.log(clipped(y_pred, clip)), axis=1)


def categorical_backward(
    y_pred: Array, labels: Array, dinputs: Array, own: Array | None, smoothing: float, clip: float
) -> None:
    """``dinputs_ij := −target_ij / (p_ij·n)``; a p of 0 counts as the smallest normal number."""
    positive = np.maximum(y_pred, np.finfo(y_pred.dtype).tiny)
    off = smoothing / y_pred.shape[1]
    np.divide(-off, positive, out=dinputs)
    at = cells(y_pred, labels)
    dinputs.reshape(-1)[at] = (smoothing - 1 - off) / positive.reshape(-1)[at]
    dinputs /= len(labels)


def categorical_backward_of_softmax(
    output: Array, labels: Array, dinputs: Array, own: Array | None, smoothing: float, clip: float
) -> None:
    """``dinputs := (output − targets) / n``; (n, m), (n,) in."""
    off = smoothing / output.shape[1]
    np.subtract(output, off, out=dinputs)
    at = cells(output, labels)
    dinputs.reshape(-1)[at] = output.reshape(-1)[at] - (1 - smoothing + off)
    dinputs /= len(labels)


add(
    "categorical_crossentropy",
    categorical_forward,
    categorical_backward,
    "softmax",
    categorical_backward_of_softmax,
    True,
)


@quiet
def softmax_crossentropy(
    inputs: Array, labels: Array, output: Array, dinputs: Array | None, smoothing: float = 0.0, clip: float = CLIP
) -> tuple[float, int]:
    """Compute softmax, loss, hits and gradient in one. Return the sum of the losses, in double, and the hits.

    ``output := softmax(inputs); dinputs := (output − targets) / n``; (n, m), (n,) in, (n, m) out; if ``dinputs`` is
    None, no gradient. A row is a hit if the first of its largest probabilities is the label's.
    """
    softmax_forward(inputs, output)
    sample_losses = np.empty(len(labels), output.dtype)
    categorical_forward(output, labels, sample_losses, None, smoothing, clip)
    if dinputs is not None:
        categorical_backward_of_softmax(output, labels, dinputs, None, smoothing, clip)
    return total(sample_losses), int(np.count_nonzero(np.argmax(output, axis=1) == labels))
