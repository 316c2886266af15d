"""Held-out rows: which they are, and what they decide: how much each kind of network counts, and the temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nnx._base.typing import Array

#: Draws of kinds of networks, at most.
DRAWS = 12
#: Probabilities are kept above this before a logarithm.
CLIP = 1e-12
#: Temperatures lie between this and its inverse.
COLDEST = 0.1
#: Fewer held-out rows do not tell a temperature.
MIN_ROWS = 50


def folds(classes: Array | None, n_rows: int, n_folds: int, seed: int) -> Array:
    """Return the fold of each row, intp (rows,): of each class the same number in each, within one row."""
    generator = np.random.default_rng(np.random.SeedSequence([seed & 0xFFFFFFFF, seed >> 32, 0xF01D]))
    order = generator.permutation(n_rows)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    found = np.empty(n_rows, np.intp)
    found[order] = np.arange(n_rows) % n_folds
    return found


def losses(predicted: Array, y: Array) -> Array:
    """Return each row's loss, float64 (rows,): log loss for class numbers, squared error for numbers."""
    if y.ndim == 1:
        return np.asarray(-np.log(np.maximum(predicted[np.arange(len(y)), y].astype(np.float64), CLIP)))
    return np.asarray(np.square(predicted.astype(np.float64) - y).mean(axis=1))


def mean_loss(predicted: Array, y: Array, weights: Array | None) -> float:
    """Return the weighted mean of the rows' losses; infinity where it is no number."""
    found = float(np.average(losses(predicted, y), weights=weights))
    return found if math.isfinite(found) else math.inf


def draw(predictions: Sequence[Array], y: Array, weights: Array | None) -> list[int]:
    """Return how often each prediction counts in the mean with the smallest loss that was found.

    Predictions are drawn one after the other, the same one again if that is best, as in Caruana, Niculescu-Mizil, Crew
    and Ksikes, "Ensemble selection from libraries of models", 2004.
    """
    counts, best_counts, best = [0] * len(predictions), [0] * len(predictions), math.inf
    total = np.zeros(predictions[0].shape, np.float64)
    for n_drawn in range(1, DRAWS + 1):
        found = [mean_loss((total + each) / n_drawn, y, weights) for each in predictions]
        number = int(np.argmin(found))
        if math.isinf(found[number]):
            break
        total += predictions[number]
        counts[number] += 1
        if found[number] < best:
            best, best_counts = found[number], list(counts)
    return best_counts


def temperature(probabilities: Array, y: Array, weights: Array | None) -> float:
    """Return the number by which logarithms of probabilities are to be divided, so that the log loss is smallest.

    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017.
    """
    if len(y) < MIN_ROWS:
        return 1.0
    logits = np.log(np.maximum(probabilities.astype(np.float64), CLIP))

    def loss(position: float) -> float:
        return mean_loss(softened(logits, math.exp(position)), y, weights)

    low, high, ratio = math.log(COLDEST), -math.log(COLDEST), (math.sqrt(5) - 1) / 2
    for _ in range(40):  # golden section: the loss has one minimum
        first, second = high - ratio * (high - low), low + ratio * (high - low)
        if loss(first) <= loss(second):
            high = second
        else:
            low = first
    return math.exp((low + high) / 2)


def softened(logits: Array, temperature: float) -> Array:
    """Return the softmax of logits divided by a temperature."""
    scaled = logits / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
