"""Which two columns tell more together than each alone: their sum and their difference are then worth to be encoded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nnx._base.typing import Array

#: Rows and targets that are looked at, at most; and columns of numbers, those that tell most alone.
MAX_ROWS, MAX_TARGETS, MAX_COLUMNS = 20_000, 4, 20
#: Rows that tell which columns tell most, where there are more columns.
FEW_ROWS = 2000
#: Other columns that the additive model has, at most.
MAX_OTHERS = 256
#: A column of a smaller standard deviation is a constant: factors must be numbers of float32.
LEAST_SPREAD = 1e-30
#: Groups of rows by one column.
N_BINS = 32
#: How often the additive fit goes through all columns.
N_ROUNDS = 20
#: A sum must explain so much more of what is left than chance would, in standard deviations of that.
LEAST_GAIN = 10.0


class Pair(NamedTuple):
    """Two columns, and by what each is to be multiplied before they are added, or subtracted."""

    columns: tuple[int, int]
    factors: tuple[float, float]


def telling_pairs(X: Array, targets: Array, numeric: Sequence[int]) -> list[Pair]:
    """Return pairs of columns whose sum and difference explain what functions of single columns do not; best first.

    Parameters
    ----------
    X : array (rows, n_inputs)
        Finite numbers.
    targets : array (rows, targets)
        Numbers; for classes, `nnx.tabular.edges.class_targets`.
    numeric : sequence of int
        The columns to look at; the other columns only help to explain the targets.

    Returns
    -------
    list of Pair
        Each column's factor is the inverse of its standard deviation.

    Notes
    -----
    An additive model, means of 32 groups of rows by each column, is fitted by backfitting (Hastie and Tibshirani,
    Generalized additive models, 1990). Of the rest, the sum and the difference of each pair are asked how much the
    means of 32 groups by them explain beyond what chance would. Lou, Caruana, Gehrke and Hooker, Accurate intelligible
    models with pairwise interactions (2013), rank pairs of columns in such a way.
    """
    rows = slice(None, None, -(-len(X) // MAX_ROWS))
    X, rest = X[rows].astype(np.float64), targets[rows, :MAX_TARGETS] - targets[rows, :MAX_TARGETS].mean(axis=0)
    spread = X.std(axis=0)
    columns = _most_telling(X, rest, [column for column in numeric if spread[column] > LEAST_SPREAD])[:MAX_COLUMNS]
    others = [column for column in sorted({*range(X.shape[1])} - {*numeric}) if spread[column] > LEAST_SPREAD]
    _subtract_additive(X, rest, [*columns, *others[:MAX_OTHERS]])
    found: list[tuple[float, Pair]] = []
    for i, j in itertools.combinations(sorted(columns), 2):
        one, other = X[:, i] / spread[i], X[:, j] / spread[j]
        gain = max(_gain(_quantile_bins(both), rest) for both in (one + other, one - other))
        if gain >= LEAST_GAIN:
            found.append((gain, Pair((i, j), (float(1 / spread[i]), float(1 / spread[j])))))
    return [pair for _, pair in sorted(found, key=lambda each: -each[0])]


def _most_telling(X: Array, targets: Array, columns: list[int]) -> list[int]:
    """Return the columns, those first that explain most of the targets alone."""
    rows = slice(None, None, 1 if len(columns) <= MAX_COLUMNS else -(-len(X) // FEW_ROWS))
    gains = {column: _gain(_quantile_bins(X[rows, column]), targets[rows]) for column in columns}
    return sorted(columns, key=lambda column: -gains[column])


def _subtract_additive(X: Array, targets: Array, columns: list[int]) -> None:
    """Subtract from the targets, in place, what a sum of functions of the single columns explains of them."""
    groups = [_quantile_bins(X[:, column]) for column in columns]
    counts = [np.bincount(own, minlength=N_BINS)[:, None] + 1.0 for own in groups]  # one row more, for few rows
    fitted = [np.zeros((N_BINS, targets.shape[1]), np.float64) for _ in groups]
    for _ in range(N_ROUNDS):
        for own, count, known in zip(groups, counts, fitted, strict=True):
            targets += known[own]
            known[...] = _sums(own, targets) / count
            targets -= known[own]


def _gain(groups: Array, rest: Array) -> float:
    """Return how much the means of groups of rows explain beyond what chance would, in standard deviations of that."""
    counts = np.maximum(np.bincount(groups, minlength=N_BINS), 1)[:, None]
    variance = np.maximum(rest.var(axis=0), np.finfo(np.float64).tiny)
    explained = float((np.square(_sums(groups, rest)) / counts / variance).sum())
    expected = len(np.unique(groups)) * int(rest.shape[1])
    return (explained - expected) / math.sqrt(2 * expected)


def _sums(groups: Array, targets: Array) -> Array:
    """Return the sum of the targets of each group of rows, (groups, targets)."""
    return np.stack([np.bincount(groups, own, minlength=N_BINS) for own in targets.T], axis=1)


def _quantile_bins(column: Array) -> Array:
    """Return each row's group: of about equally many rows, those of equal numbers in one."""
    return np.searchsorted(np.unique(np.quantile(column, np.linspace(0, 1, N_BINS + 1)[1:-1])), column)
