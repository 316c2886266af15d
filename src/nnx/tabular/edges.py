"""Where the encodings of a column of numbers have their edges: at its quantiles, or where a small tree splits it."""

from __future__ import annotations

import heapq

import numpy as np

from nnx._base.typing import Array

#: A tree looks for its splits between so many groups of neighbouring rows, at most: more hardly change them.
MAX_GROUPS = 2048
#: A tree tells so many classes apart, the most frequent ones.
MAX_CLASSES = 16


def quantile_edges(column: Array, n_bins: int) -> Array:
    """Return the different quantiles of a column, increasing, the smallest and the largest number among them.

    Parameters
    ----------
    column : array (rows,)
        Finite numbers.
    n_bins : int
        How many parts of equally many rows there are to be, at most.

    Returns
    -------
    array of float32, at most (n_bins + 1,)
        Two numbers or more; none for a column of one number only.
    """
    found = np.quantile(column.astype(np.float64), np.linspace(0, 1, n_bins + 1))
    edges = np.unique(found.astype(np.float32))
    return edges if len(edges) > 1 else edges[:0]


def tree_edges(column: Array, targets: Array, n_leaves: int, min_rows: int) -> Array:
    """Return the thresholds of a regression tree that predicts the targets from this column alone.

    The tree grows leaf by leaf, always by the split that takes most from the sum of squared errors.

    Parameters
    ----------
    column : array (rows,)
        Finite numbers.
    targets : array (rows, targets)
        Numbers; for classes, `class_targets`.
    n_leaves : int
        How many leaves the tree may have.
    min_rows : int
        How many rows each leaf must have.

    Returns
    -------
    array of float32, at most (n_leaves - 1,)
        Increasing, each between two numbers of the column: some of them are above it, and some are not.

    Notes
    -----
    Breiman et al., "Classification and regression trees", 1984. Edges that a tree finds for each column are those of
    Gorishniy et al., "On embeddings for numerical features in tabular deep learning", 2022.
    """
    low, high, counts, sums = _groups(column, targets)
    splits: list[int] = []
    heap = [found for found in [_best_split(counts, sums, 0, len(low), min_rows)] if found]
    while heap and len(splits) < n_leaves - 1:
        _, split, start, end = heapq.heappop(heap)
        splits.append(split)
        for part in ((start, split), (split, end)):
            if (found := _best_split(counts, sums, *part, min_rows)) is not None:
                heapq.heappush(heap, found)
    splits.sort()
    return _between(high[np.array(splits, np.intp) - 1], low[splits])


def class_targets(y: Array) -> Array:
    """Return what a tree is to predict of class numbers (rows,): a column for each class but one, 0 or 1; float64."""
    counts = np.bincount(y)
    classes = np.argsort(-counts, kind="stable")[: min(np.count_nonzero(counts), MAX_CLASSES)]
    chosen = classes[1:] if len(classes) == 2 else classes  # two columns would say the same
    return np.asarray(y[:, None] == chosen, np.float64)


def _groups(column: Array, targets: Array) -> tuple[Array, Array, Array, Array]:
    """Return groups of neighbouring rows: smallest and largest number, and sums up to each group of rows and targets.

    Equal numbers are in one group. The sums begin with 0 and have a row more than there are groups.
    """
    order = np.argsort(column, kind="stable")
    values = column[order].astype(np.float32)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    if len(starts) > MAX_GROUPS:
        wanted = np.linspace(0, len(values), MAX_GROUPS, endpoint=False).astype(np.intp)
        starts = np.unique(starts[np.searchsorted(starts, wanted, side="right") - 1])
    ends = np.r_[starts[1:], len(values)]
    total = np.zeros((len(starts) + 1, targets.shape[1]), np.float64)
    centred = targets - targets.mean(axis=0)
    np.cumsum(np.add.reduceat(centred[order], starts, axis=0), axis=0, out=total[1:])
    return values[starts], values[ends - 1], np.concatenate([[0.0], ends]), total


def _best_split(counts: Array, sums: Array, start: int, end: int, min_rows: int) -> tuple[float, int, int, int] | None:
    """Return a leaf's best split: minus what it takes from the error, its place, and the leaf; None if it has none."""
    first = int(np.searchsorted(counts, counts[start] + min_rows, side="left"))
    last = int(np.searchsorted(counts, counts[end] - min_rows, side="right"))  # the place behind
    first, last = max(first, start + 1), min(last, end)
    if first >= last:
        return None
    places = slice(first, last)
    left, right = counts[places] - counts[start], counts[end] - counts[places]
    gain = np.square(sums[places] - sums[start]).sum(axis=1) / left
    gain += np.square(sums[end] - sums[places]).sum(axis=1) / right
    best = int(np.argmax(gain))
    total = float(np.square(sums[end] - sums[start]).sum() / (counts[end] - counts[start]))
    taken = float(gain[best]) - total
    return (-taken, first + best, start, end) if taken > 1e-12 * abs(total) + 1e-300 else None


def _between(low: Array, high: Array) -> Array:
    """Return numbers between others, float32, so that the lower ones are not above them and the higher ones are."""
    middle = (low.astype(np.float64) + high.astype(np.float64)) / 2
    return np.where(middle.astype(np.float32) < high, middle, low).astype(np.float32)
