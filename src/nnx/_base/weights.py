"""Weights of samples: their checks, their use in sums and gradients, and the divisor of penalties."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.typing import Array

#: The limits of weights other than 0: float32 can hold them, and not all products with them overflow.
SMALLEST, LARGEST = 1e-30, 1e30

#: The factor of the gradients of penalties in the current step.
_penalty_scale: ContextVar[float] = ContextVar("nnx.penalty_scale", default=1.0)


def checked_weights(where: str, name: str, value: Any, n_rows: int) -> Array:
    """Return the weights of samples, checked, as a new float64 array (n_rows,)."""
    given = check.plain(where, name, value)
    if given.shape != (n_rows,):
        raise ValueError(f"{where}: {name} must have one number for each of {n_rows} rows, got shape {given.shape}.")
    return in_range(where, name, np.array(given, np.float64))


def in_range(where: str, name: str, weights: Array) -> Array:
    """Return weights. All must be 0 or numbers within the limits."""
    good = (weights == 0) | ((weights >= SMALLEST) & (weights <= LARGEST))
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"{where}: {name} must hold 0 or numbers from {SMALLEST:g} to {LARGEST:g}, got {weights[row]} in row {row}."
        )
    return weights


def weighted(values: Array, weights: Array) -> Array:
    """Return rows times their weights, in the dtype of ``values``. A weight of 0 makes everything 0, also infinity."""
    factors = weights.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(np.multiply(values, factors, out=np.zeros_like(values), where=factors != 0))


def weighted_gradient(where: str, gradient: Any, weights: Array) -> Array:
    """Return the gradient of Σ w·loss / Σ w, given the gradient of the mean of the samples' losses."""
    gradient = np.asarray(gradient)
    if gradient.shape[:1] != weights.shape or gradient.dtype.kind != "f":
        raise ValueError(
            f"{where}: dinputs must be floats with a row for each of {len(weights)} samples, because each row is "
            f"multiplied by its weight, got dtype {gradient.dtype} and shape {gradient.shape}."
        )
    total = float(np.add.reduce(weights))
    return weighted(gradient, weights * (len(weights) / total) if total else weights)


def scale_per_sample(n_rows: int, weights: Array | None) -> float:
    """Return the factor that divides a batch's penalties by the number, or the weight, of its samples; 0 for none."""
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
    """Return the factor of the gradients of penalties: 1, except in a step with penalties per sample."""
    return _penalty_scale.get()
