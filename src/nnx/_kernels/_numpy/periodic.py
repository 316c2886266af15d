"""The kernels of `Layer_Periodic`, which adds trained waves of some columns to the inputs.

``columns`` (m,), int32, says which columns of the inputs have waves. ``weights`` has a row for each: f frequencies, f
phases, then for each frequency the factors of ``width`` sums, then ``width`` numbers that are added to the sums. The
output has all inputs first, then the sums of one column after the other. Its width determines ``width``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.quiet import quiet


@quiet
def periodic_forward(inputs: Array, columns: Array, weights: Array, output: Array) -> None:
    """``output := inputs, then cos(2π·w·x_j + p) · W + b`` for each column j with waves.

    (n, n_in), (m,), (m, f·(2 + width) + width) in, (n, n_in + m·width) out.
    """
    output[:, : inputs.shape[1]] = inputs
    for column, own, begin, width in _columns(inputs, output, columns):
        frequencies, phases, factors, added = parts_of(weights[own], width)
        output[:, begin : begin + width] = np.matmul(_waves(inputs[:, column], frequencies, phases)[0], factors) + added


@quiet
def periodic_backward_weights(inputs: Array, dvalues: Array, columns: Array, weights: Array, dweights: Array) -> None:
    """``dweights := `` the gradient of the loss by the weights, summed over the samples.

    (n, n_in), (n, n_in + m·width), (m,), (m, f·(2 + width) + width) in, of the last one's shape out.
    """
    for column, own, begin, width in _columns(inputs, dvalues, columns):
        frequencies, phases, factors, _ = parts_of(weights[own], width)
        given = dvalues[:, begin : begin + width]
        cosines, sines = _waves(inputs[:, column], frequencies, phases)
        slopes = -sines * np.matmul(given, factors.T)
        by_frequencies = 2 * math.pi * np.matmul(inputs[:, column], slopes)
        by_factors = np.matmul(cosines.T, given)
        found = by_frequencies, slopes.sum(axis=0), by_factors.ravel(), given.sum(axis=0)
        dweights[own] = np.concatenate(found)


@quiet
def periodic_backward_inputs(inputs: Array, dvalues: Array, columns: Array, weights: Array, dinputs: Array) -> None:
    """``dinputs := dvalues`` of the inputs, and in columns with waves these waves' slopes times their dvalues.

    (n, n_in), (n, n_in + m·width), (m,), (m, f·(2 + width) + width) in, (n, n_in) out.
    """
    dinputs[...] = dvalues[:, : inputs.shape[1]]
    for column, own, begin, width in _columns(inputs, dvalues, columns):
        frequencies, phases, factors, _ = parts_of(weights[own], width)
        _, sines = _waves(inputs[:, column], frequencies, phases)
        slopes = -sines * np.matmul(dvalues[:, begin : begin + width], factors.T)
        dinputs[:, column] += np.matmul(slopes, 2 * math.pi * frequencies)


def parts_of(row: Array, width: int) -> tuple[Array, Array, Array, Array]:
    """Return a column's frequencies (f,), phases (f,), factors (f, width) and added numbers (width,), as views."""
    n = (len(row) - width) // (2 + width)
    return row[:n], row[n : 2 * n], row[2 * n : -width].reshape(n, width), row[-width:]


def _waves(x: Array, frequencies: Array, phases: Array) -> tuple[Array, Array]:
    """Return cosines and sines, (n, f). Whole turns are subtracted first, because they cost digits."""
    turns = x[:, None] * frequencies + phases * (0.5 / math.pi)
    angles = 2 * math.pi * (turns - np.rint(turns))
    return np.cos(angles), np.sin(angles)


def _columns(inputs: Array, wide: Array, columns: Array) -> Iterator[tuple[int, int, int, int]]:
    """Yield each column with waves, its row of the weights, where its sums begin, and their number."""
    n_inputs = inputs.shape[1]
    width = (wide.shape[1] - n_inputs) // len(columns)
    for number, column in enumerate(columns.tolist()):
        yield column, number, n_inputs + number * width, width
