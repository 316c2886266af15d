"""Checks of labels, and counts of correct predictions."""

from __future__ import annotations

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.quiet import quiet


def bad_label(labels: Array, n_classes: int) -> int:
    """Return the position of the first label that is not from 0 to n_classes − 1, −1 if there is none; (n,) in."""
    if labels.size == 0 or (labels.min() >= 0 and labels.max() < n_classes):
        return -1
    return int(np.argmax((labels < 0) | (labels >= n_classes)))


def argmax(values: Array, classes: Array) -> None:
    """``classes_i :=`` the first column with row i's largest value, NaN being larger than any; (n, m) in, (n,) out."""
    np.argmax(values, axis=1, out=classes)


def equal_count(predictions: Array, targets: Array) -> int:
    """Return how many elements are equal; both of dtype ``intp`` and of the same shape."""
    return int(np.count_nonzero(predictions == targets))


@quiet
def near_count(y_pred: Array, y_true: Array, precision: float) -> int:
    """Return in how many elements ``|y_pred − y_true|``, in double, is below ``precision``; both of the same shape."""
    return int(np.count_nonzero(np.absolute(np.subtract(y_pred, y_true, dtype=np.float64)) < precision))
