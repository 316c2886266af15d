"""The kernels of `Layer_Spline`: a dense layer that also sees functions of single columns, given by their edges.

``columns`` (m,) and ``first`` (m + 1,), int32, say which columns these are, and where the weights of each begin after
the dense ones: column j has the weights from ``n_in + first_j`` to ``n_in + first_{j+1}``, one for each of its
functions. ``edges`` has the edges of all columns, one after the other: as many as functions for ``degree`` 0, and one
more for each column for degree 1. `spline_places` finds where a number lies among them: its bin, and its position
within the bin.
"""

from __future__ import annotations

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.quiet import quiet


@quiet
def spline_places(
    inputs: Array, columns: Array, first: Array, edges: Array, degree: int, bins: Array, parts: Array
) -> None:
    """``bins`` := how many edges are below x, for degree 0; ``parts`` are 0.

    For degree 1, the bin is the interval that x lies in. For an x outside all of them, it is the first or the last.
    ``parts := (x − e_k) / (e_{k+1} − e_k)``, kept within 0 and 1. A NaN lies below all edges.

    (n, n_in), (m,), (m + 1,), (edges,) in; (n, m) int32 and (n, m) out.
    """
    for j, column in enumerate(columns):
        own = edges[first[j] + j * degree : first[j + 1] + (j + 1) * degree]
        x = inputs[:, column]
        below = np.searchsorted(own, x, side="left")
        below[np.isnan(x)] = 0
        if degree == 0:
            bins[:, j], parts[:, j] = below, 0
        else:
            k = np.clip(below - 1, 0, len(own) - 2)
            part = (x - own[k]) / (own[k + 1] - own[k])
            bins[:, j], parts[:, j] = k, np.where(below == 0, 0, np.where(part < 1, part, 1))


@quiet
def spline_forward(
    inputs: Array, bins: Array, parts: Array, first: Array, degree: int, weights: Array, biases: Array, output: Array
) -> None:
    """``output := inputs · dense weights + biases + Σ_j (Σ of column j's weights below the bin + part · the bin's)``.

    (n, n_in), (n, m), (n, m), (m + 1,), (n_in + functions, n_out), (1, n_out) in, (n, n_out) out.
    """
    n_in = inputs.shape[1]
    output[...] = inputs @ weights[:n_in] + biases
    for j in range(len(first) - 1):
        own = weights[n_in + first[j] : n_in + first[j + 1]]
        below = np.concatenate([np.zeros_like(own[:1]), np.cumsum(own, axis=0, dtype=own.dtype)])
        output += below[bins[:, j]]
        if degree:
            output += parts[:, j, None] * own[bins[:, j]]


@quiet
def spline_backward_weights(
    inputs: Array, bins: Array, parts: Array, dvalues: Array, first: Array, degree: int, dweights: Array
) -> None:
    """``dweights := inputsᵀ · dvalues``; for a function, Σ dvalues of rows in later bins, and in its own times parts.

    (n, n_in), (n, m), (n, m), (n, n_out), (m + 1,) in, (n_in + functions, n_out) out.
    """
    n_in = inputs.shape[1]
    dweights[:n_in] = inputs.T @ dvalues
    for j in range(len(first) - 1):
        n = first[j + 1] - first[j]
        of_bins = np.full((n + 1, dvalues.shape[1]), 0, dvalues.dtype)
        np.add.at(of_bins, bins[:, j], dvalues)
        own = dweights[n_in + first[j] : n_in + first[j + 1]]
        own[...] = np.cumsum(of_bins[:0:-1], axis=0, dtype=dvalues.dtype)[::-1]
        if degree:
            np.add.at(own, bins[:, j], parts[:, j, None] * dvalues)


@quiet
def spline_backward_inputs(
    bins: Array,
    parts: Array,
    dvalues: Array,
    columns: Array,
    first: Array,
    edges: Array,
    degree: int,
    weights: Array,
    dinputs: Array,
) -> None:
    """``dinputs := dvalues · dense weightsᵀ``, and in column j, within its edges, the slope of its bin.

    (n, m), (n, m), (n, n_out), (m,), (m + 1,), (edges,), (n_in + functions, n_out) in, (n, n_in) out.
    """
    n_in = dinputs.shape[1]
    dinputs[...] = dvalues @ weights[:n_in].T
    for j, column in enumerate(columns if degree else ()):
        k, own = bins[:, j], edges[first[j] + j : first[j + 1] + j + 1]
        slopes = np.einsum("ij,ij->i", dvalues, weights[n_in + first[j] + k]) / (own[k + 1] - own[k])
        within = (parts[:, j] > 0) & (parts[:, j] < 1)
        dinputs[:, column] += np.where(within, slopes, 0)
