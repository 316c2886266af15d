"""The kernels of `Layer_Embedding`, whose inputs hold numbers in some columns and categories in the others.

``places`` (n_in,), int32, says what each column of the inputs holds: −1 for numbers, else the row of the weights at
which the vectors of the column's categories begin. The output has the columns of numbers first, in their order. Then
each column of categories follows, in its order, as the vector of its category.
"""

from __future__ import annotations

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.quiet import quiet


def embedding_forward(inputs: Array, places: Array, weights: Array, output: Array) -> None:
    """``output := numbers, then weights[places_j + x_j]`` for each column j of categories.

    (n, n_in), (n_in,), (rows, width) in, (n, n_out) out. Categories must pass `embedding_misfit`.
    """
    numbers, width = places < 0, weights.shape[1]
    first = int(np.count_nonzero(numbers))
    output[:, :first] = inputs[:, numbers]
    for column in np.flatnonzero(~numbers):
        output[:, first : first + width] = weights[inputs[:, column].astype(np.intp) + places[column]]
        first += width


@quiet
def embedding_backward_weights(inputs: Array, dvalues: Array, places: Array, dweights: Array) -> None:
    """``dweights[r] := Σ of the dvalues of row r's vector``, added in the order of samples, in the dtype.

    (n, n_in), (n, n_out), (n_in,) in, (rows, width) out.
    """
    first, width = int(np.count_nonzero(places < 0)), dweights.shape[1]
    dweights.fill(0)
    for column in np.flatnonzero(places >= 0):
        np.add.at(dweights, inputs[:, column].astype(np.intp) + places[column], dvalues[:, first : first + width])
        first += width


def embedding_backward_inputs(dvalues: Array, places: Array, width: int, dinputs: Array) -> None:
    """``dinputs := dvalues`` of the columns of numbers, 0 in those of categories.

    (n, n_out), (n_in,) in, (n, n_in) out. ``width`` is that of the vectors.
    """
    numbers = places < 0
    dinputs[:, numbers] = dvalues[:, : np.count_nonzero(numbers)]
    dinputs[:, ~numbers] = 0


def embedding_misfit(inputs: Array, places: Array, counts: Array) -> int:
    """Return the index, row · n_in + column, of the first number, row by row, that is not a category; −1 if all are.

    (n, n_in), (n_in,), (n_in,) int32 in. In a column j of categories, these are the whole numbers from 0 to
    ``counts_j`` − 1; columns of numbers hold anything.
    """
    with np.errstate(invalid="ignore"):
        fits = (inputs >= 0) & (inputs < counts) & (inputs == np.trunc(inputs))
    fits |= places < 0
    return -1 if fits.all() else int(np.argmin(fits))
