"""Metrics: numbers that say how good predictions are. Pure functions on arrays, computed in float64.

`nnx.scoring.evaluation` applies them to a model; they may be called by themselves as well.

Shapes: ``n`` samples, ``k`` classes, ``m`` outputs. Class numbers run from 0 to k − 1. A metric that the data leave
undefined is NaN: the recall of a class without samples, R² of targets that are all the same.

``weights``, float64 (n,) and above 0, say how much each sample counts: counts and sums of samples are then those of
their weights. Without them all count alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nnx._base.typing import Array

#: Probabilities are clipped to [CLIP, 1 − CLIP] before the logarithm, as the book's cross-entropies do.
CLIP = 1e-7


# Classes


class Counts(NamedTuple):
    """What is counted of each class: intp arrays (k,), or float64 if samples have weights.

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


def count(true: Array, predicted: Array, n_classes: int, weights: Array | None = None) -> Counts:
    """Return what the metrics below need of class numbers.

    Parameters
    ----------
    true, predicted : intp arrays (n,)
    n_classes : int
    weights : array (n,), optional

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
    right = true == predicted
    parts = [(true[right], None if weights is None else weights[right]), (true, weights), (predicted, weights)]
    return Counts(*(np.bincount(each, these, minlength=n_classes) for each, these in parts))


def accuracy(counts: Counts) -> float:
    """Return the share of correct predictions."""
    return float(counts.correct.sum() / counts.samples.sum())


def recall(counts: Counts) -> Array:
    """Return the share of each class's samples that were found: float64, shape (k,), NaN for a class without any."""
    return _shares(counts.correct, counts.samples)


def precision(counts: Counts) -> Array:
    """Return the share of each class's predictions that are correct: float64, shape (k,), NaN where there are none."""
    return _shares(counts.correct, counts.predicted)


def f1(counts: Counts) -> Array:
    """Return the harmonic mean of each class's recall and precision: 2 · correct / (samples + predicted).

    float64, shape (k,); NaN for a class that has neither samples nor predictions, 0 for one that is never found.
    """
    return _shares(2 * counts.correct, counts.samples + counts.predicted)


def _shares(parts: Array, wholes: Array) -> Array:
    return np.asarray(np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0))


def balanced_accuracy(counts: Counts) -> float:
    """Return the mean recall of the classes that have samples.

    Always predicting one class gives 1 / (number of classes that have samples).
    """
    return float(np.nanmean(recall(counts)))


def log_loss(probabilities: Array, weights: Array | None = None) -> float:
    """Return the mean negative logarithm of the probabilities that a model gave to what was true.

    Parameters
    ----------
    probabilities : array (n,) or (n, m)
        Of the true class of each sample, or of the true value of each cell.
    weights : array (n,), optional
    """
    clipped = np.clip(np.asarray(probabilities, np.float64), CLIP, 1 - CLIP)
    logs = np.log(clipped)
    return float(-np.mean(logs) if weights is None else -np.mean(np.average(logs, axis=0, weights=weights)))


class Reliability(NamedTuple):
    """How often what was predicted with some probability came true: float64 arrays (n_bins,).

    Attributes
    ----------
    weight : array
        How many samples have a probability in the bin; with weights, the sum of these.
    predicted : array
        The mean of their probabilities; NaN in a bin without samples.
    observed : array
        The share of them that came true; NaN in a bin without samples.
    """

    weight: Array
    predicted: Array
    observed: Array


def reliability(true: Array, probabilities: Array, n_bins: int = 15, weights: Array | None = None) -> Reliability:
    """Return the reliability curve of probabilities, in bins of equal width.

    Parameters
    ----------
    true : array (n,)
        1 for what came true, else 0.
    probabilities : array (n,)
        From 0 to 1. One that lies between two bins belongs to the lower one.
    n_bins : int
    weights : array (n,), optional

    Examples
    --------
    >>> import numpy as np
    >>> from nnx.scoring.metrics import reliability
    >>> curve = reliability(np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.7, 0.9]), n_bins=2)
    >>> curve.predicted.tolist(), curve.observed.tolist()
    ([0.2, 0.8], [0.0, 1.0])
    """
    values = np.asarray(probabilities, np.float64)
    bins = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], values)
    each = np.ones(len(values), np.float64) if weights is None else np.asarray(weights, np.float64)
    weight, predicted, observed = (np.bincount(bins, of, n_bins) for of in (each, each * values, each * true))
    return Reliability(weight, _shares(predicted, weight), _shares(observed, weight))


def calibration_error(curve: Reliability) -> float:
    """Return the expected calibration error: how far probabilities are from what came true, on average over samples.

    Notes
    -----
    Σ wₖ · |predictedₖ − observedₖ| / Σ wₖ over the bins k of a reliability curve (Guo et al. 2017, "On calibration of
    modern neural networks", whose curves are those of the predicted class's probability, in 15 bins).
    """
    filled = curve.weight > 0
    gaps = np.abs(curve.predicted - curve.observed)[filled]
    return float(np.average(gaps, weights=curve.weight[filled]))


def roc_auc(true: Array, scores: Array, weights: Array | None = None) -> float:
    """Return the area under the ROC curve: how likely a positive sample has a higher score than a negative one.

    Parameters
    ----------
    true : array (n,)
        0 or 1; 1 is positive.
    scores : array (n,)
        A pair with equal scores counts one half.
    weights : array (n,), optional
        A pair counts as much as the product of its weights.

    Returns
    -------
    float
        From 0 to 1, 0.5 for scores that say nothing; NaN if there are only positive or only negative samples.

    Notes
    -----
    With average ranks for equal scores, AUC = (R − p(p + 1)/2) / (p·q): R is the sum of the p positive samples' ranks,
    and q the number of negative samples (Mann and Whitney's U). With weights, the weight of the negative samples below
    each positive one is added up, and half of that of those level with it.

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
    if weights is not None:
        return _weighted_auc(positive, which.reshape(-1), weights)
    ranks = np.cumsum(repeats) - (repeats - 1) / 2
    return float((ranks[which.reshape(-1)][positive].sum() - p * (p + 1) / 2) / p / q)


def _weighted_auc(positive: Array, which: Array, weights: Array) -> float:
    """Return the weighted AUC; which (n,): the place of each sample's score among the different ones."""
    of_positive, of_negative = (np.bincount(which, weights * each) for each in (positive, ~positive))
    below = np.cumsum(of_negative) - of_negative / 2
    return float((of_positive @ below) / of_positive.sum() / of_negative.sum())


# Numbers


def r_squared(true: Array, predicted: Array, weights: Array | None = None) -> Array:
    """Return the part of the targets' variance that predictions explain, 1 − Σ(y − ŷ)² / Σ(y − ȳ)², for each output.

    Parameters
    ----------
    true, predicted : arrays (n, m)
    weights : array (n,), optional

    Returns
    -------
    float64 array (m,)
        1 for perfect predictions, 0 for always predicting the mean of ``true``, below 0 for worse; NaN where all
        targets are the same.
    """
    true, predicted = _doubles(true, predicted)
    mean = np.average(true, axis=0, weights=weights)
    factors = 1 if weights is None else weights[:, None]
    total = (factors * np.square(true - mean)).sum(axis=0)
    total[(np.ptp(true, axis=0) == 0) | (total == 0)] = np.nan  # a mean is rounded, so a constant's total may not be 0
    return np.asarray(1 - (factors * np.square(true - predicted)).sum(axis=0) / total)


def mean_absolute_error(true: Array, predicted: Array, weights: Array | None = None) -> Array:
    """Return the mean of the absolute values of y − ŷ for each output: float64, shape (m,), for arrays (n, m)."""
    true, predicted = _doubles(true, predicted)
    return np.asarray(np.average(np.abs(true - predicted), axis=0, weights=weights))


def root_mean_squared_error(true: Array, predicted: Array, weights: Array | None = None) -> Array:
    """Return √(mean of (y − ŷ)²) for each output: float64, shape (m,), for arrays (n, m)."""
    true, predicted = _doubles(true, predicted)
    return np.asarray(np.sqrt(np.average(np.square(true - predicted), axis=0, weights=weights)))


def _doubles(*arrays: Array) -> list[Array]:
    return [np.asarray(array, np.float64) for array in arrays]
