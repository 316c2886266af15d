"""Weights of samples: their check, how they enter sums and gradients, and what penalties are divided by."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.typing import Array

#: What a weight other than 0 must lie between: float32 holds it, and products with it do not all overflow.
SMALLEST, LARGEST = 1e-30, 1e30

#: What layers multiply the gradients of their penalties by, in the step that is under way.
_penalty_scale: ContextVar[float] = ContextVar("nnx.penalty_scale", default=1.0)


def checked_weights(where: str, name: str, value: Any, n_rows: int) -> Array:
    """Return what samples weigh, a new float64 array (n_rows,) that nobody else has."""
    given = check.plain(where, name, value)
    if given.shape != (n_rows,):
        raise ValueError(f"{where}: {name} must have one number for each of {n_rows} rows, got shape {given.shape}.")
    return in_range(where, name, np.array(given, np.float64))


def in_range(where: str, name: str, weights: Array) -> Array:
    """Return weights, all of which must be 0 or numbers that can be multiplied in."""
    good = (weights == 0) | ((weights >= SMALLEST) & (weights <= LARGEST))
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"{where}: {name} must hold 0 or numbers from {SMALLEST:g} to {LARGEST:g}, got {weights[row]} in row {row}."
        )
    return weights


def weighted(values: Array, weights: Array) -> Array:
    """Return rows times their weights, in the dtype of ``values``; a weight of 0 makes 0 of anything, infinity too."""
    factors = weights.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(np.multiply(values, factors, out=np.zeros_like(values), where=factors != 0))


def weighted_gradient(where: str, gradient: Any, weights: Array) -> Array:
    """Return the gradient of Σ w·loss / Σ w, given that of the mean of the samples' losses."""
    gradient = np.asarray(gradient)
    if gradient.shape[:1] != weights.shape or gradient.dtype.kind != "f":
        raise ValueError(
            f"{where}: dinputs must be floats with a row for each of {len(weights)} samples, because each row is "
            f"multiplied by its weight, got dtype {gradient.dtype} and shape {gradient.shape}."
        )
    total = float(np.add.reduce(weights))
    return weighted(gradient, weights * (len(weights) / total) if total else weights)


def scale_per_sample(n_rows: int, weights: Array | None) -> float:
    """Return what divides a batch's penalties by the number of its samples, or by their weights' sum; 0 for none."""
    total = float(n_rows if weights is None else np.add.reduce(weights))
    return 1 / total if total else 0.0


class penalties_times:
    """Let layers multiply the gradients of their penalties by a number within the block, in this thread."""

    __slots__ = ("_before", "_scale")

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def __enter__(self) -> None:
        self._before = _penalty_scale.set(self._scale)

    def __exit__(self, *error: object) -> None:
        _penalty_scale.reset(self._before)


def penalty_scale() -> float:
    """Return what layers multiply the gradients of their penalties by: 1, but in a step with penalties per sample."""
    return _penalty_scale.get()
