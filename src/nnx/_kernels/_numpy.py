"""The kernels in NumPy: the definition of each numeric operation, and the backend of machines without compiled ones.

Its compiled twins are in `kernels.pyx`, behind the checks of `_native.pyx`.

A kernel reads its inputs and writes its outputs, which its caller has allocated; both are C-ordered
and of one dtype, float32 or float64, but for labels and classes (``intp``) and what is said at the kernel. The order of
arguments is: inputs, outputs, hyperparameters. Unless an argument says so, outputs overlap nothing.

Kernels check nothing: the classes that call them do. They never warn, whatever ``np.errstate`` is in force: NaN and
infinity pass through. And they never call ``np.dot``, ``np.zeros`` or ``np.eye``, which ``nnfs.init()`` replaces.

Shapes: n samples, k inputs, m neurons (or outputs, or classes).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np

from nnx._base.typing import Array

__all__ = [
    "adagrad_update",
    "adam_update",
    "argmax",
    "bad_label",
    "binary_crossentropy_backward",
    "binary_crossentropy_forward",
    "categorical_crossentropy_backward",
    "categorical_crossentropy_forward",
    "dense_backward_biases",
    "dense_backward_inputs",
    "dense_backward_weights",
    "dense_forward",
    "dense_relu_forward",
    "dropout_apply",
    "dropout_mask",
    "equal_count",
    "linear_backward",
    "mean_absolute_error_backward",
    "mean_absolute_error_forward",
    "mean_squared_error_backward",
    "mean_squared_error_forward",
    "near_count",
    "regularization_loss",
    "relu_backward",
    "relu_forward",
    "rmsprop_update",
    "sgd_momentum_update",
    "sgd_update",
    "sigmoid_backward",
    "sigmoid_binary_crossentropy_backward",
    "sigmoid_forward",
    "softmax_backward",
    "softmax_crossentropy",
    "softmax_crossentropy_backward",
    "softmax_forward",
    "total",
]

#: Probabilities are kept this far from 0 and 1 before a logarithm.
CLIP = 1e-7

#: Words of a dropout mask drawn at a time: eight arrays of 64-bit numbers that stay in a core's level-2 cache.
MASK_BLOCK = 32768

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def quiet(kernel: Kernel) -> Kernel:
    """Run a kernel whose arithmetic could warn without floating-point warnings (0.7 µs a call)."""
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        return np.errstate(all="ignore")(kernel)

    # NumPy 1 keeps the caller's state on the errstate object, which threads would share.
    @functools.wraps(kernel)
    def run(*args: object) -> object:
        with np.errstate(all="ignore"):
            return kernel(*args)

    return cast(Kernel, run)


# Layer_Dense


@quiet
def dense_forward(inputs: Array, weights: Array, biases: Array, output: Array) -> None:
    """``output := inputs · weights + biases``; (n, k), (k, m), (1, m) in, (n, m) out."""
    np.matmul(inputs, weights, out=output)
    output += biases


def dense_relu_forward(inputs: Array, weights: Array, biases: Array, output: Array) -> None:
    """``output := max(0, inputs · weights + biases)``; (n, k), (k, m), (1, m) in, (n, m) out."""
    dense_forward(inputs, weights, biases, output)
    relu_forward(output, output)


@quiet
def dense_backward_weights(
    inputs: Array, dvalues: Array, weights: Array, dweights: Array, l1: float, l2: float
) -> None:
    """``dweights := inputsᵀ · dvalues + l1·sign(weights) + 2·l2·weights``; (n, k), (n, m), (k, m) in, (k, m) out."""
    np.matmul(inputs.T, dvalues, out=dweights)
    _add_regularization(weights, dweights, l1, l2)


@quiet
def dense_backward_biases(dvalues: Array, biases: Array, dbiases: Array, l1: float, l2: float) -> None:
    """``dbiases := Σ over samples of dvalues + l1·sign(biases) + 2·l2·biases``; (n, m), (1, m) in, (1, m) out."""
    # Row after row (but for a single column), as add.reduce does, but faster for few columns. The order matters: the
    # spiral's published figures come from it (a product with ones, in BLAS's order, differs from them at epoch 20).
    np.einsum("ij->j", dvalues, out=dbiases[0])
    _add_regularization(biases, dbiases, l1, l2)


@quiet
def dense_backward_inputs(dvalues: Array, weights: Array, dinputs: Array) -> None:
    """``dinputs := dvalues · weightsᵀ``; (n, m), (k, m) in, (n, k) out."""
    np.matmul(dvalues, weights.T, out=dinputs)


def _add_regularization(values: Array, gradients: Array, l1: float, l2: float) -> None:
    """Add the gradient of ``l1·Σ|v| + l2·Σv²``; the sign is −1 where v < 0, else +1."""
    if l1:
        gradients += l1
        np.subtract(gradients, 2 * l1, out=gradients, where=values < 0)
    if l2:
        gradients += (2 * l2) * values


@quiet
def regularization_loss(values: Array, l1: float, l2: float) -> float:
    """Return ``l1·Σ|v| + l2·Σv²``, summed in double."""
    loss = 0.0
    if l1:
        loss += l1 * float(np.add.reduce(np.absolute(values), axis=None, dtype=np.float64))
    if l2:
        loss += l2 * float(np.add.reduce(np.square(values, dtype=np.float64), axis=None))
    return loss


# Layer_Dropout


def dropout_mask(mask: Array, keep: float, seed: int, forwards: int) -> None:
    """Fill ``mask`` (n, m) with ``1/keep`` with probability ``keep``, else 0.

    The four cells of columns 4b to 4b+3 in row i take the four words of Philox4x32-7 for the counter
    (b, i, forwards mod 2³², forwards div 2³²) under the key ``seed`` (64 bits): a cell is kept if its word is below
    ``keep``·2³², rounded. So a cell depends on its place and these numbers alone.
    """
    rows, columns = mask.shape
    threshold = np.uint64(round(keep * 2**32))
    scale = mask.dtype.type(1 / keep)
    blocks = np.arange((columns + 3) // 4, dtype=np.uint64)[None, :]
    step = max(1, MASK_BLOCK // max(1, columns))
    for start in range(0, rows, step):
        row = np.arange(start, min(start + step, rows), dtype=np.uint64)[:, None]
        words = _philox4x32_7(blocks, row, forwards & 0xFFFFFFFF, forwards >> 32, seed)
        kept = np.empty((len(row), blocks.size, 4), np.bool_)
        for lane, word in enumerate(words):
            np.less(word, threshold, out=kept[:, :, lane])
        np.multiply(kept.reshape(len(row), -1)[:, :columns], scale, out=mask[start : start + step])


def _philox4x32_7(c0: Array, c1: Array, c2: int, c3: int, key: int) -> tuple[Array, Array, Array, Array]:
    """Return the four words of Philox4x32-7 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Words are 32 bits wide in 64-bit arrays. Counters broadcast against each other: what depends on the row
    or the column alone stays as small as that through the first rounds.
    """
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1, x2, x3 = c0, c1, np.full((1, 1), c2, np.uint64), np.full((1, 1), c3, np.uint64)
    for r in range(7):
        key0 = np.uint64((key + r * 0x9E3779B9) & 0xFFFFFFFF)
        key1 = np.uint64(((key >> 32) + r * 0xBB67AE85) & 0xFFFFFFFF)
        product0, product1 = x0 * np.uint64(0xD2511F53), x2 * np.uint64(0xCD9E8D57)
        x0, x1 = (product1 >> half) ^ (x1 ^ key0), product1 & low
        x2, x3 = (product0 >> half) ^ (x3 ^ key1), product0 & low
    return x0, x1, x2, x3


@quiet
def dropout_apply(values: Array, mask: Array, output: Array) -> None:
    """``output := values × mask``, cell by cell; forward and backward alike."""
    np.multiply(values, mask, out=output)


# Activations


def relu_forward(inputs: Array, output: Array) -> None:
    """``output := max(0, inputs)``; NaN stays NaN."""
    np.maximum(inputs, 0, out=output)


def relu_backward(inputs: Array, dvalues: Array, dinputs: Array) -> None:
    """``dinputs := dvalues`` where not inputs <= 0, else 0.

    By AND of the bits, four times as fast as a masked assignment; a product with 0 would make NaN of infinity.
    """
    bits = np.dtype(f"u{inputs.itemsize}")
    passing = (inputs <= 0).astype(bits)
    passing -= 1
    np.bitwise_and(dvalues.view(bits), passing, out=dinputs.view(bits))


@quiet
def sigmoid_forward(inputs: Array, output: Array) -> None:
    """``output := 1 / (1 + exp(−inputs))``, written with exp(−|x|), which cannot overflow."""
    decay = np.exp(-np.absolute(inputs))
    np.divide(np.where(inputs < 0, decay, 1), 1 + decay, out=output)


@quiet
def sigmoid_backward(output: Array, dvalues: Array, dinputs: Array) -> None:
    """``dinputs := dvalues·(1 − output)·output``."""
    np.subtract(1, output, out=dinputs)
    dinputs *= output
    dinputs *= dvalues


@quiet
def softmax_forward(inputs: Array, output: Array) -> None:
    """``output_ij := exp(x_ij − max_i) / Σ_j exp(x_ij − max_i)``; (n, m)."""
    # Samples along the fast axis: with 3 classes 3 times as fast, with 100 a fifth slower.
    columns = inputs.T.copy()
    columns -= np.maximum.reduce(columns, axis=0)
    np.exp(columns, out=columns)
    np.divide(columns, np.add.reduce(columns, axis=0), out=output.T)


@quiet
def softmax_backward(output: Array, dvalues: Array, dinputs: Array) -> None:
    """``dinputs_ij := p_ij·(d_ij − Σ_j p_ij·d_ij)``: the product with each row's Jacobian, in closed form."""
    np.multiply(output, dvalues, out=dinputs)
    dinputs -= output * np.add.reduce(dinputs, axis=1, keepdims=True)


def linear_backward(dvalues: Array, dinputs: Array) -> None:
    """``dinputs := dvalues``."""
    np.copyto(dinputs, dvalues)


# Losses


@quiet
def total(values: Array) -> float:
    """Return ``Σ values``, summed in double."""
    return float(np.add.reduce(values, axis=None, dtype=np.float64))


def _clip(probabilities: Array) -> Array:
    return np.minimum(np.maximum(probabilities, CLIP), 1 - CLIP)


def _cells(values: Array, labels: Array) -> Array:
    """Return the flat positions of each row's label (in one index twice as fast as in two)."""
    rows, columns = values.shape
    return np.arange(0, rows * columns, columns) + labels


@quiet
def categorical_crossentropy_forward(y_pred: Array, labels: Array, sample_losses: Array) -> None:
    """``sample_losses_i := −log(clip(p_i,label_i))``; (n, m), (n,) in, (n,) out."""
    np.log(_clip(y_pred.reshape(-1)[_cells(y_pred, labels)]), out=sample_losses)
    np.negative(sample_losses, out=sample_losses)


@quiet
def categorical_crossentropy_backward(y_pred: Array, labels: Array, dinputs: Array) -> None:
    """``dinputs_ij := −1 / (p_ij·n)`` where j is the label of i, else 0; a p of 0 counts as the smallest normal one."""
    cells = _cells(y_pred, labels)
    confidences = np.maximum(y_pred.reshape(-1)[cells], np.finfo(y_pred.dtype).tiny)
    dinputs.fill(0)
    dinputs.reshape(-1)[cells] = -1 / confidences / len(labels)


@quiet
def softmax_crossentropy_backward(output: Array, labels: Array, dinputs: Array) -> None:
    """``dinputs := (output − onehot(labels)) / n``: softmax and categorical cross-entropy in one; (n, m), (n,) in."""
    np.copyto(dinputs, output)
    dinputs.reshape(-1)[_cells(output, labels)] -= 1
    dinputs /= len(labels)


def softmax_crossentropy(inputs: Array, labels: Array, output: Array, dinputs: Array | None) -> tuple[float, int]:
    """Softmax, loss, hits and gradient in one: return ``Σ −log(clip(output_i,label_i))``, in double, and the hits.

    ``output := softmax(inputs); dinputs := (output − onehot(labels)) / n``; (n, m), (n,) in, (n, m) out; with None for
    ``dinputs`` no gradient. A row is a hit if the first of its largest probabilities is the label's.
    """
    softmax_forward(inputs, output)
    sample_losses = np.empty(len(labels), output.dtype)
    categorical_crossentropy_forward(output, labels, sample_losses)
    if dinputs is not None:
        softmax_crossentropy_backward(output, labels, dinputs)
    return total(sample_losses), int(np.count_nonzero(np.argmax(output, axis=1) == labels))


@quiet
def binary_crossentropy_forward(y_pred: Array, y_true: Array, sample_losses: Array) -> None:
    """``sample_losses_i := mean over outputs of −(y·log p + (1 − y)·log(1 − p))``, p clipped; (n, m) in, (n,) out."""
    clipped = _clip(y_pred)
    losses = -(y_true * np.log(clipped) + (1 - y_true) * np.log(1 - clipped))
    np.add.reduce(losses, axis=1, dtype=np.float64, out=sample_losses)
    sample_losses /= y_pred.shape[1]


@quiet
def binary_crossentropy_backward(y_pred: Array, y_true: Array, dinputs: Array) -> None:
    """``dinputs := −(y/p − (1 − y)/(1 − p)) / (m·n)``, p clipped as in the forward; (n, m)."""
    clipped = _clip(y_pred)
    np.subtract((1 - y_true) / (1 - clipped), y_true / clipped, out=dinputs)
    dinputs /= dinputs.size


@quiet
def sigmoid_binary_crossentropy_backward(output: Array, y_true: Array, dinputs: Array) -> None:
    """``dinputs := (output − y) / (m·n)``: sigmoid and binary cross-entropy in one; (n, m)."""
    np.subtract(output, y_true, out=dinputs)
    dinputs /= dinputs.size


@quiet
def mean_squared_error_forward(y_pred: Array, y_true: Array, sample_losses: Array) -> None:
    """``sample_losses_i := mean over outputs of (y − p)²``; (n, m) in, (n,) out."""
    np.add.reduce(np.square(y_true - y_pred), axis=1, dtype=np.float64, out=sample_losses)
    sample_losses /= y_pred.shape[1]


@quiet
def mean_squared_error_backward(y_pred: Array, y_true: Array, dinputs: Array) -> None:
    """``dinputs := 2·(p − y) / (m·n)``; (n, m)."""
    np.subtract(y_pred, y_true, out=dinputs)
    dinputs *= 2 / dinputs.size


@quiet
def mean_absolute_error_forward(y_pred: Array, y_true: Array, sample_losses: Array) -> None:
    """``sample_losses_i := mean over outputs of |y − p|``; (n, m) in, (n,) out."""
    np.add.reduce(np.absolute(y_true - y_pred), axis=1, dtype=np.float64, out=sample_losses)
    sample_losses /= y_pred.shape[1]


@quiet
def mean_absolute_error_backward(y_pred: Array, y_true: Array, dinputs: Array) -> None:
    """``dinputs := sign(p − y) / (m·n)``; (n, m)."""
    np.sign(y_pred - y_true, out=dinputs)
    dinputs /= dinputs.size


# Accuracy


def bad_label(labels: Array, n_classes: int) -> int:
    """Return the position of the first label that is not from 0 to n_classes − 1, −1 if there is none; (n,) in."""
    if labels.size == 0 or (labels.min() >= 0 and labels.max() < n_classes):
        return -1
    return int(np.argmax((labels < 0) | (labels >= n_classes)))


def argmax(values: Array, classes: Array) -> None:
    """``classes_i :=`` the first column with row i's largest value, NaN being larger than any; (n, m) in, (n,) out."""
    np.argmax(values, axis=1, out=classes)


def equal_count(predictions: Array, targets: Array) -> int:
    """Return how many cells are equal; both of dtype ``intp``, any shape, the same."""
    return int(np.count_nonzero(predictions == targets))


@quiet
def near_count(y_pred: Array, y_true: Array, precision: float) -> int:
    """Return in how many cells ``|y_pred − y_true|``, in double, is below ``precision``; any shape, the same."""
    return int(np.count_nonzero(np.absolute(np.subtract(y_pred, y_true, dtype=np.float64)) < precision))


# Optimizers: values, momentums and cache are updated in place; any shape, all the same


@quiet
def sgd_update(values: Array, gradients: Array, rate: float) -> None:
    """``values −= rate·gradients``."""
    values -= rate * gradients


@quiet
def sgd_momentum_update(values: Array, gradients: Array, momentums: Array, rate: float, momentum: float) -> None:
    """``momentums := momentum·momentums − rate·gradients; values += momentums``."""
    momentums *= momentum
    momentums -= rate * gradients
    values += momentums


@quiet
def adagrad_update(values: Array, gradients: Array, cache: Array, rate: float, epsilon: float) -> None:
    """``cache += gradients²; values −= rate·gradients / (√cache + epsilon)``."""
    cache += np.square(gradients)
    values -= rate * gradients / (np.sqrt(cache) + epsilon)


@quiet
def rmsprop_update(values: Array, gradients: Array, cache: Array, rate: float, epsilon: float, rho: float) -> None:
    """``cache := rho·cache + (1 − rho)·gradients²; values −= rate·gradients / (√cache + epsilon)``."""
    cache *= rho
    cache += (1 - rho) * np.square(gradients)
    values -= rate * gradients / (np.sqrt(cache) + epsilon)


@quiet
def adam_update(
    values: Array,
    gradients: Array,
    momentums: Array,
    cache: Array,
    rate: float,
    epsilon: float,
    beta_1: float,
    beta_2: float,
    step: int,
) -> None:
    """Adam (Kingma and Ba, 2015), for the step that is counted from 1.

    ``momentums := beta_1·momentums + (1 − beta_1)·gradients; cache := beta_2·cache + (1 − beta_2)·gradients²;
    values −= rate·(momentums / (1 − beta_1^step)) / (√(cache / (1 − beta_2^step)) + epsilon)``.
    """
    momentums *= beta_1
    momentums += (1 - beta_1) * gradients
    cache *= beta_2
    cache += (1 - beta_2) * np.square(gradients)
    # Both corrections moved out of the arrays: √(c/b) + ε = (√c + ε·√b) / √b.
    root = (1 - beta_2**step) ** 0.5
    scale = np.sqrt(cache)
    scale += epsilon * root
    np.divide(momentums, scale, out=scale)
    scale *= rate * root / (1 - beta_1**step)
    values -= scale
