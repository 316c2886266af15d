"""How a column's numbers are scaled: what is learnt of the training rows, and the formulas that the network gets."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from nnx._base.typing import Array

SCALINGS = STANDARD, ROBUST, NORMAL = ("standard", "robust", "normal")
#: A column keeps so many quantiles at most; all columns of a table together keep no more than the second number.
MAX_QUANTILES, MAX_QUANTILES_TOGETHER = 1_000, 500_000
#: Robustly scaled numbers stay between minus and plus this one.
BOUND = 3.0
#: Numbers nearer to 0 than this are taken for 0 among quantiles, so that no slope between two of them overflows.
TINY = 1e-200


def center_and_scale(known: Array, scaling: str) -> tuple[float, float]:
    """Return what is subtracted from a column's numbers, and what they are divided by then.

    Of robust scaling, these are the median and the interquartile range; where that is 0, half the range (Holzmüller et
    al., Better by Default, 2024, arXiv:2407.04491, section 3). Else they are the mean and the standard deviation. The
    scale of equal numbers is 1.
    """
    spread = float(np.ptp(known)) if len(known) else 0.0
    if spread == 0:
        return (float(known[0]) if len(known) else 0.0), 1.0
    if scaling == ROBUST:
        low, first, median, third, high = np.quantile(known, (0, 0.25, 0.5, 0.75, 1)).tolist()
        return median, (third - first) or (high - low) / 2 or spread
    return float(known.mean()), float(known.std()) or float((known / spread).std()) * spread or spread


def smoothly_clipped(values: Array) -> Array:
    """Return x / √(1 + (x/3)²): nearly x where that is small, and never beyond ±3 (Holzmüller et al., 2024)."""
    values = np.clip(values, -1e150, 1e150)  # whose squares are finite
    return np.asarray(values / np.hypot(1, values / BOUND))


def smooth_clipping_undone(values: Array) -> Array:
    """Return the x that x / √(1 + (x/3)²) is ``values`` for."""
    part = np.clip(values.astype(np.float64) / BOUND, -1 + 1e-12, 1 - 1e-12)
    return np.asarray(BOUND * part / np.sqrt(1 - part**2))


def quantiles_of(known: Array, most: int) -> tuple[float, ...]:
    """Return quantiles of a column's numbers at equal distances, from the least to the largest number.

    All are numbers of the column, so that those of many rows stay equal.
    """
    places = np.linspace(0, len(known) - 1, min(most, len(known)), dtype=np.float64)
    return tuple(np.sort(known)[np.rint(places).astype(np.intp)].tolist())


class NormalScores(NamedTuple):
    """A monotone line through points: numbers of a column, and their places in a standard normal distribution.

    A number's place is the inverse of the normal distribution at the part of the training rows that is below it; of a
    number that many rows share, at the middle of these. The outermost of K quantiles stand for 1/(2K) of the rows. What
    is beyond them is clipped, between quantiles the line is straight.
    """

    numbers: Array
    scores: Array

    def of(self, values: Array) -> Array:
        """Return the scores of numbers; those of NaN are NaN."""
        return np.asarray(np.interp(values, self.numbers, self.scores))

    def undone(self, scores: Array) -> Array:
        """Return numbers that have such scores."""
        return np.asarray(np.interp(scores, self.scores, self.numbers))


def normal_scores(quantiles: tuple[float, ...]) -> NormalScores:
    """Return the line that makes a column with such quantiles normal."""
    count = len(quantiles)
    grid = np.array(quantiles, np.float64)
    grid[np.abs(grid) < TINY] = 0
    numbers, first, times = np.unique(grid, return_index=True, return_counts=True)
    middle = (first + (times - 1) / 2) / max(1, count - 1) if count > 1 else np.full(1, 0.5, np.float64)
    inverse = NormalDist().inv_cdf
    scores = [inverse(part) for part in np.clip(middle, 0.5 / count, 1 - 0.5 / count).tolist()]
    return NormalScores(numbers, np.array(scores, np.float64))
