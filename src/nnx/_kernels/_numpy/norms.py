"""The kernels of normalizing and scaling layers.

Means are summed in double. Values that all rows or all columns share are computed in double and rounded once.
"""

from __future__ import annotations

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.quiet import quiet

# Layer_BatchNorm: each column is normalized over the rows.


@quiet
def batch_norm_statistics(inputs: Array, mean: Array, variance: Array) -> None:
    """``mean := Σ x / n``, ``variance := Σ (x − mean)² / n`` of each column, 0 without rows; (n, c) in, (1, c) out.

    Deviations are from the mean in double, before it is rounded.
    """
    n = max(1, len(inputs))
    exact = np.add.reduce(inputs, axis=0, dtype=np.float64) / n
    np.copyto(mean[0], exact, casting="same_kind")
    np.copyto(variance[0], np.add.reduce(np.square(inputs - exact), axis=0) / n, casting="same_kind")


@quiet
def batch_norm_forward(
    inputs: Array, mean: Array, variance: Array, weights: Array, biases: Array, epsilon: float, output: Array
) -> None:
    """``output := (x − mean) · weights/sqrt(variance + epsilon) + biases``; (n, c), four (1, c) in, (n, c) out."""
    np.subtract(inputs, mean, out=output)
    output *= _factors(weights, variance, epsilon)
    output += biases


@quiet
def batch_norm_backward_weights(
    inputs: Array, dvalues: Array, mean: Array, variance: Array, epsilon: float, dweights: Array, dbiases: Array
) -> None:
    """``dweights := Σ d·(x − mean)/sqrt(variance + epsilon)``, ``dbiases := Σ d``; (n, c) and (1, c) in, (1, c) out."""
    total = np.add.reduce(dvalues * (inputs - mean), axis=0, dtype=np.float64)
    np.copyto(dweights[0], total / np.sqrt(variance[0] + np.float64(epsilon)), casting="same_kind")
    np.copyto(dbiases[0], np.add.reduce(dvalues, axis=0, dtype=np.float64), casting="same_kind")


@quiet
def batch_norm_backward_inputs(
    inputs: Array,
    dvalues: Array,
    mean: Array,
    variance: Array,
    weights: Array,
    dweights: Array,
    dbiases: Array,
    epsilon: float,
    dinputs: Array,
) -> None:
    """``dinputs := weights/s · (d − dbiases/n − (x − mean)/s · dweights/n)`` with s = sqrt(variance + epsilon).

    Two (n, c), five (1, c) in, (n, c) out. With zeros for ``dweights`` and ``dbiases`` this is the gradient for a mean
    and variance that do not depend on the inputs.
    """
    n = max(1, len(inputs))
    share = (dweights / (n * np.sqrt(variance + np.float64(epsilon)))).astype(inputs.dtype)
    deviations = (inputs - mean) * share
    np.subtract(dvalues, (dbiases / np.float64(n)).astype(inputs.dtype), out=dinputs)
    dinputs -= deviations
    dinputs *= _factors(weights, variance, epsilon)


def _factors(weights: Array, variance: Array, epsilon: float) -> Array:
    """Return weights/sqrt(variance + epsilon)."""
    return (weights / np.sqrt(variance + np.float64(epsilon))).astype(weights.dtype)


# Layer_LayerNorm: each row is normalized over its columns.


@quiet
def layer_norm_forward(inputs: Array, weights: Array, biases: Array, epsilon: float, output: Array) -> None:
    """``output := (x − mean)/sqrt(variance + epsilon) · weights + biases``; (n, c), two (1, c) in, (n, c) out.

    Mean and variance are those of the row.
    """
    normalized, _ = _normalized_rows(inputs, epsilon)
    np.add(normalized.astype(inputs.dtype) * weights, biases, out=output)


@quiet
def layer_norm_backward_weights(inputs: Array, dvalues: Array, epsilon: float, dweights: Array, dbiases: Array) -> None:
    """``dweights := Σ d·(x − mean)/sqrt(variance + epsilon)``, ``dbiases := Σ d``; two (n, c) in, two (1, c) out."""
    normalized, _ = _normalized_rows(inputs, epsilon)
    np.copyto(dweights[0], np.add.reduce(dvalues * normalized, axis=0), casting="same_kind")
    np.copyto(dbiases[0], np.add.reduce(dvalues, axis=0, dtype=np.float64), casting="same_kind")


@quiet
def layer_norm_backward_inputs(inputs: Array, dvalues: Array, weights: Array, epsilon: float, dinputs: Array) -> None:
    """``dinputs := (g − mean(g) − y·mean(g·y))/s`` with g = d·weights, y = (x − mean(x))/s, means over the row.

    s = sqrt(variance + epsilon). Two (n, c), (1, c) in, (n, c) out.
    """
    normalized, deviation = _normalized_rows(inputs, epsilon)
    gradients = dvalues * weights.astype(np.float64)
    along = _row_means(gradients * normalized)
    gradients -= _row_means(gradients)
    gradients -= normalized * along
    np.copyto(dinputs, gradients / deviation, casting="same_kind")


def _normalized_rows(inputs: Array, epsilon: float) -> tuple[Array, Array]:
    """Return (x − mean)/s of each row, and its s = sqrt(variance + epsilon), in double."""
    deviations = inputs - _row_means(inputs)
    s = np.sqrt(_row_means(np.square(deviations)) + epsilon)
    deviations /= s
    return deviations, s


def _row_means(values: Array) -> Array:
    """Return the mean of each row, summed in double; (n, 1)."""
    means: Array = np.add.reduce(values, axis=1, dtype=np.float64, keepdims=True) / values.shape[1]
    return means


# Layer_Scale


@quiet
def scale_forward(inputs: Array, weights: Array, output: Array) -> None:
    """``output := inputs · weights``, column by column; (n, c), (1, c) in, (n, c) out."""
    np.multiply(inputs, weights, out=output)


@quiet
def scale_backward_weights(inputs: Array, dvalues: Array, dweights: Array) -> None:
    """``dweights := Σ over rows of d·x``, summed in double; two (n, c) in, (1, c) out."""
    np.copyto(dweights[0], np.add.reduce(dvalues * inputs, axis=0, dtype=np.float64), casting="same_kind")


@quiet
def scale_backward_inputs(dvalues: Array, weights: Array, dinputs: Array) -> None:
    """``dinputs := dvalues · weights``; (n, c), (1, c) in, (n, c) out."""
    np.multiply(dvalues, weights, out=dinputs)
