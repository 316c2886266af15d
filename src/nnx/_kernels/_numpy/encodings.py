"""The kernels of layers that pass on their inputs and append columns: encodings and combinations.

``columns`` (m,), int32, says which columns of the inputs are encoded. ``offsets`` (m + 1,), int32, says where the edges
of each begin and end in ``edges``; these increase. The output has all inputs first, then the encodings of one column
after the other. For combinations, ``offsets`` says where the columns and factors of each begin and end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.quiet import quiet


@quiet
def piecewise_linear_forward(inputs: Array, columns: Array, offsets: Array, edges: Array, output: Array) -> None:
    """``output := inputs, then (x_j − e_{k−1}) / (e_k − e_{k−1})``, from 0 to 1, for each two adjacent edges.

    (n, n_in), (m,), (m + 1,), (edges,) in, (n, n_in + edges − m) out. A NaN gives NaN.
    """
    output[:, : inputs.shape[1]] = inputs
    for column, own, begin in _columns(columns, offsets, edges, inputs.shape[1], 1):
        parts = output[:, begin : begin + len(own) - 1]
        np.divide(inputs[:, column, None] - own[:-1], own[1:] - own[:-1], out=parts)
        np.clip(parts, 0, 1, out=parts)


@quiet
def piecewise_linear_backward(
    inputs: Array, dvalues: Array, columns: Array, offsets: Array, edges: Array, dinputs: Array
) -> None:
    """``dinputs := dvalues`` of the inputs, and in encoded columns the slope of the encoding times its dvalues.

    (n, n_in), (n, n_in + edges − m), (m,), (m + 1,), (edges,) in, (n, n_in) out. Only the encoding whose edges
    e_{k−1} ≤ x < e_k are around x has a slope, 1 / (e_k − e_{k−1}).
    """
    dinputs[...] = dvalues[:, : inputs.shape[1]]
    for column, own, begin in _columns(columns, offsets, edges, inputs.shape[1], 1):
        places = np.searchsorted(own, inputs[:, column], side="right") - 1
        rows = np.flatnonzero((places >= 0) & (places < len(own) - 1))
        places = places[rows]
        dinputs[rows, column] += dvalues[rows, begin + places] / (own[places + 1] - own[places])


def thermometer_forward(inputs: Array, columns: Array, offsets: Array, edges: Array, output: Array) -> None:
    """``output := inputs, then 1 where x_j > e_k, else 0``, for each edge.

    (n, n_in), (m,), (m + 1,), (edges,) in, (n, n_in + edges) out. A NaN gives 0.
    """
    output[:, : inputs.shape[1]] = inputs
    for column, own, begin in _columns(columns, offsets, edges, inputs.shape[1], 0):
        with np.errstate(invalid="ignore"):
            output[:, begin : begin + len(own)] = inputs[:, column, None] > own


def thermometer_backward(dvalues: Array, dinputs: Array) -> None:
    """``dinputs := dvalues`` of the inputs: the encodings have no slope; (n, n_out) in, (n, n_in) out."""
    dinputs[...] = dvalues[:, : dinputs.shape[1]]


@quiet
def combinations_forward(inputs: Array, columns: Array, offsets: Array, factors: Array, output: Array) -> None:
    """``output := inputs, then Σ x_j · f``, over the columns j of each combination, in their order.

    (n, n_in), (terms,), (m + 1,), (terms,) in, (n, n_in + m) out.
    """
    n_inputs = inputs.shape[1]
    output[:, :n_inputs] = inputs
    output[:, n_inputs:] = 0
    for place, column, factor in _terms(columns, offsets, factors, n_inputs):
        output[:, place] += inputs[:, column] * factor


@quiet
def combinations_backward(dvalues: Array, columns: Array, offsets: Array, factors: Array, dinputs: Array) -> None:
    """``dinputs := dvalues`` of the inputs, plus those of each combination with the input, times its factor.

    (n, n_in + m), (terms,), (m + 1,), (terms,) in, (n, n_in) out.
    """
    n_inputs = dinputs.shape[1]
    dinputs[...] = dvalues[:, :n_inputs]
    for place, column, factor in _terms(columns, offsets, factors, n_inputs):
        dinputs[:, column] += dvalues[:, place] * factor


def _terms(columns: Array, offsets: Array, factors: Array, n_inputs: int) -> Iterator[tuple[int, int, Any]]:
    """Yield for each term the output column of its combination, its own column and its factor."""
    bounds = offsets.tolist()
    for number in range(len(bounds) - 1):
        for term in range(bounds[number], bounds[number + 1]):
            yield n_inputs + number, columns[term], factors[term]


def _columns(
    columns: Array, offsets: Array, edges: Array, n_inputs: int, fewer: int
) -> Iterator[tuple[int, Array, int]]:
    """Yield each encoded column, its edges, its first output column. It has ``fewer`` fewer encodings than edges."""
    bounds = offsets.tolist()
    for number, column in enumerate(columns.tolist()):
        yield column, edges[bounds[number] : bounds[number + 1]], n_inputs + bounds[number] - fewer * number
