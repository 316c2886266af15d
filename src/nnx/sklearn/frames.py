"""What estimators for tables take: data frames with whatever columns, or arrays of numbers, as columns by their names.

Nothing of it knows pandas or polars: a frame is what has ``columns`` and gives one for its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx._base.typing import Array
from nnx.sklearn.versions import remembered, validated

#: Equal rows become one in tables of so many rows at most.
MERGED_ROWS = 200


def is_frame(X: Any) -> bool:
    """Return whether samples are a data frame."""
    return hasattr(X, "columns") and hasattr(X, "__getitem__")


def columns_of(estimator: Any, X: Any, *, first: bool) -> dict[str, Any]:
    """Return the columns of a frame or an array by name; learn their number and names, or compare them.

    An array's columns are called "x0", "x1", ...; after a `fit` with a frame they have the frame's names. Numbers of an
    array may be NaN, a missing value, but not infinite; what a frame's columns may hold is the table's affair.

    Raises
    ------
    TypeError, ValueError
        In the words of scikit-learn, if it is neither, is empty, or has other columns than in `fit`.
    """
    where = type(estimator).__name__
    if is_frame(X):
        names = list(getattr(X, "column_names", X.columns))
        if len({str(name) for name in names}) < len(names):
            raise ValueError(f"{where}: the columns of X must have different names, got {names}.")
        remembered(estimator, X, reset=first)
        if not names:
            raise ValueError(f"Found array with 0 feature(s) (shape={X.shape}) while a minimum of 1 is required.")
        columns = [X[name] for name in names]
        if len(columns[0]) == 0:
            raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required.")
    else:
        X = validated(estimator, X, dtype="numeric", allows_nan=True, reset=first)
        names = [f"x{place}" for place in range(X.shape[1])]
        columns = list(X.T)
    if not first:
        names = estimator._columns
    return {str(name): column for name, column in zip(names, columns, strict=True)}


def n_rows(columns: dict[str, Any]) -> int:
    """Return how many rows there are."""
    return len(next(iter(columns.values())))


def taken(columns: dict[str, Any], rows: Array) -> dict[str, Any]:
    """Return some rows of all columns."""
    return {name: _array(column)[rows] for name, column in columns.items()}


def _array(column: Any) -> Array:
    """Return a column as an array; times in microseconds, which are objects of Python's when one is taken out."""
    values = np.asarray(column)
    return values.astype("datetime64[us]") if values.dtype.kind == "M" else values


def merged(columns: dict[str, Any], y: Array, weights: Array | None) -> tuple[dict[str, Any], Array, Array | None]:
    """Return rows without those of weight 0; in small tables equal rows as one, in an order of their own.

    A row that occurs twice is then never learnt from and held out at once; a weight of 2 is the same as two rows, and
    the order of rows does not matter.
    """
    if weights is not None and not weights.all():
        rows = np.flatnonzero(weights)
        columns, y, weights = taken(columns, rows), y[rows], weights[rows]
    if len(y) > MERGED_ROWS:
        return columns, y, weights
    codes = [_codes(column) for column in (*columns.values(), y)]
    _, first, inverse = np.unique(np.stack(codes, axis=1), axis=0, return_index=True, return_inverse=True)
    sums = np.bincount(inverse.ravel(), np.ones(len(y)) if weights is None else weights)
    return taken(columns, first), y[first], None if (sums == sums[0]).all() else sums


def _codes(column: Any) -> Array:
    """Return for each value of a column its place among the different ones; the order is that of numbers or texts."""
    values = np.asarray(column)
    if values.dtype.kind not in "biufM":
        values = np.array([f"{type(value).__name__}:{value}" for value in values.tolist()])
    return np.unique(values, return_inverse=True)[1].ravel()


def in_order(probabilities: Array, order: Sequence[int], n_classes: int) -> Array:
    """Return columns put where ``order`` says: column j goes to place ``order[j]``; others hold 0."""
    result = np.zeros((len(probabilities), n_classes), probabilities.dtype)
    result[:, list(order)] = probabilities
    return result
