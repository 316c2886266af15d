"""Metrics: numbers that say how good predictions are. Pure functions on arrays, computed in float64.

`nnx.scoring.evaluation` applies them to a model; they may be called by themselves as well.

Shapes: ``n`` samples, ``k`` classes, ``m`` outputs. Class numbers run from 0 to k − 1. A metric that the data leave
undefined is NaN: the recall of a class without samples, R² of targets that are all the same.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnx._base.typing import Array

#: Probabilities are clipped to [CLIP, 1 − CLIP] before the logarithm, as the book's cross-entropies do.
CLIP = 1e-7


# Classes


class Counts(NamedTuple):
    """What is counted of each class: intp arrays (k,).

    Attributes
    ----------
    correct : array
        Samples of the class that were predicted as such.
    samples : array
        Samples of the class.
    predicted : array
        Samples that were predicted as the class.
    """

    correct: Array
    samples: Array
    predicted: Array


def count(true: Array, predicted: Array, n_classes: int) -> Counts:
    """Return what the metrics below need of class numbers.

    Parameters
    ----------
    true, predicted : intp arrays (n,)
    n_classes : int

    Examples
    --------
    >>> import numpy as np
    >>> from nnx.scoring import metrics
    >>> counts = metrics.count(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), 2)
    >>> metrics.accuracy(counts)
    0.5
    >>> metrics.precision(counts).round(3).tolist()
    [1.0, 0.333]
    """
    found = (np.bincount(each, minlength=n_classes) for each in (true[true == predicted], true, predicted))
    return Counts(*found)


def accuracy(counts: Counts) -> float:
    """Return the share of correct predictions."""
    return int(counts.correct.sum()) / int(counts.samples.sum())


def recall(counts: Counts) -> Array:
    """Return the share of each class's samples that were found: float64, shape (k,), NaN for a class without any."""
    return _shares(counts.correct, counts.samples)


def precision(counts: Counts) -> Array:
    """Return the share of each class's predictions that are correct: float64, shape (k,), NaN where there are none."""
    return _shares(counts.correct, counts.predicted)


def _shares(parts: Array, wholes: Array) -> Array:
    return np.asarray(np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0))


def balanced_accuracy(counts: Counts) -> float:
    """Return the mean recall of the classes that have samples.

    Always predicting one class gives 1 / (number of classes that have samples).
    """
    return float(np.nanmean(recall(counts)))


def log_loss(probabilities: Array) -> float:
    """Return the mean negative logarithm of the probabilities that a model gave to what was true.

    Parameters
    ----------
    probabilities : array of any shape
        Of the true class of each sample, or of the true value of each cell.
    """
    clipped = np.clip(np.asarray(probabilities, np.float64), CLIP, 1 - CLIP)
    return float(-np.mean(np.log(clipped)))


def roc_auc(true: Array, scores: Array) -> float:
    """Return the area under the ROC curve: how likely a positive sample has a higher score than a negative one.

    Parameters
    ----------
    true : array (n,)
        0 or 1; 1 is positive.
    scores : array (n,)
        A pair with equal scores counts one half.

    Returns
    -------
    float
        From 0 to 1, 0.5 for scores that say nothing; NaN if there are only positive or only negative samples.

    Notes
    -----
    With average ranks for equal scores, AUC = (R − p(p + 1)/2) / (p·q): R is the sum of the p positive samples' ranks,
    and q the number of negative samples (Mann and Whitney's U).

    Examples
    --------
    >>> import numpy as np
    >>> from nnx.scoring.metrics import roc_auc
    >>> roc_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    positive = np.asarray(true) == 1
    p = int(np.count_nonzero(positive))
    q = len(positive) - p
    if p == 0 or q == 0:
        return float("nan")
    _, which, repeats = np.unique(np.asarray(scores, np.float64), return_inverse=True, return_counts=True)
    ranks = np.cumsum(repeats) - (repeats - 1) / 2
    return float((ranks[which.reshape(-1)][positive].sum() - p * (p + 1) / 2) / p / q)


# Numbers


def r_squared(true: Array, predicted: Array) -> Array:
    """Return the part of the targets' variance that predictions explain, 1 − Σ(y − ŷ)² / Σ(y − ȳ)², for each output.

    Parameters
    ----------
    true, predicted : arrays (n, m)

    Returns
    -------
    float64 array (m,)
        1 for perfect predictions, 0 for always predicting the mean of ``true``, below 0 for worse; NaN where all
        targets are the same.
    """
    true, predicted = _doubles(true, predicted)
    total = np.square(true - true.mean(axis=0)).sum(axis=0)
    total[(np.ptp(true, axis=0) == 0) | (total == 0)] = np.nan  # a mean is rounded, so a constant's total may not be 0
    return np.asarray(1 - np.square(true - predicted).sum(axis=0) / total)


def mean_absolute_error(true: Array, predicted: Array) -> Array:
    """Return the mean of the absolute values of y − ŷ for each output: float64, shape (m,), for arrays (n, m)."""
    true, predicted = _doubles(true, predicted)
    return np.asarray(np.abs(true - predicted).mean(axis=0))


def root_mean_squared_error(true: Array, predicted: Array) -> Array:
    """Return √(mean of (y − ŷ)²) for each output: float64, shape (m,), for arrays (n, m)."""
    true, predicted = _doubles(true, predicted)
    return np.asarray(np.sqrt(np.square(true - predicted).mean(axis=0)))


def _doubles(*arrays: Array) -> list[Array]:
    return [np.asarray(array, np.float64) for array in arrays]
