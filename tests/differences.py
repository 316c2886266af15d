"""Central differences in float64: the reference for all gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def gradient(function: Callable[[], float], values: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Return the gradient of ``function`` by ``values``, which are changed in place meanwhile."""
    found = np.empty(values.shape)
    for place in np.ndindex(values.shape):
        kept = values[place]
        values[place] = kept + step
        above = function()
        values[place] = kept - step
        below = function()
        values[place] = kept
        found[place] = (above - below) / (2 * step)
    return found


def assert_gradient(given: np.ndarray, function: Callable[[], float], values: np.ndarray) -> None:
    """Compare, with an error relative to the gradient's size."""
    expected = gradient(function, values)
    scale = max(1e-8, float(np.abs(expected).max()))
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-6 * scale)
