"""The book's data sets, drawn from NumPy's global generator in the book's order: one seed, the same points.

The arrays are float64, or float32 where ``nnfs.init()`` has made that NumPy's default.
"""

from __future__ import annotations

import numpy as np

from nnx._base import check
from nnx._base.typing import Array


def spiral_data(samples: int, classes: int) -> tuple[Array, Array]:
    """Return points on intertwined spirals, one arm per class, with a radius of at most 1.

    Parameters
    ----------
    samples : int
        Points of each class.
    classes : int

    Returns
    -------
    X : array (samples·classes, 2)
    y : uint8 array (samples·classes,)

    Notes
    -----
    Chapter 3 of the book. Class c has radii r evenly from 0 to 1 and angles t evenly from 4c to 4(c + 1), plus
    normal noise of 0.2; the points are (r sin 2.5t, r cos 2.5t).

    Examples
    --------
    >>> from nnx import spiral_data
    >>> X, y = spiral_data(samples=100, classes=3)
    >>> X.shape, y.shape
    ((300, 2), (300,))
    """
    X, y, arms = _classes("spiral_data", samples, classes)
    for number, arm in enumerate(arms):
        radius = np.linspace(0.0, 1.0, samples)
        angle = np.linspace(number * 4, (number + 1) * 4, samples) + np.random.randn(samples) * 0.2
        X[arm, 0] = radius * np.sin(angle * 2.5)
        X[arm, 1] = radius * np.cos(angle * 2.5)
    return X, y


def vertical_data(samples: int, classes: int) -> tuple[Array, Array]:
    """Return points in upright clouds side by side, one a class.

    Parameters
    ----------
    samples : int
        Points of each class.
    classes : int

    Returns
    -------
    X : array (samples·classes, 2)
    y : uint8 array (samples·classes,)

    Notes
    -----
    Chapter 6 of the book. Class c lies around (c/3, 1/2) with a standard deviation of 0.1.
    """
    X, y, clouds = _classes("vertical_data", samples, classes)
    for number, cloud in enumerate(clouds):
        X[cloud, 0] = np.random.randn(samples) * 0.1 + number / 3
        X[cloud, 1] = np.random.randn(samples) * 0.1 + 0.5
    return X, y


def _classes(where: str, samples: int, classes: int) -> tuple[Array, Array, list[slice]]:
    """Return X to be filled, y, and each class's rows."""
    samples = check.whole(where, "samples", samples)
    classes = check.whole(where, "classes", classes, 1, 256)
    X = np.zeros((samples * classes, 2))
    y = np.repeat(np.arange(classes, dtype=np.uint8), samples)
    return X, y, [slice(samples * number, samples * (number + 1)) for number in range(classes)]


def sine_data(samples: int = 1000) -> tuple[Array, Array]:
    """Return one period of the sine: x = i/samples and y = sin 2πx.

    Parameters
    ----------
    samples : int

    Returns
    -------
    X, y : arrays (samples, 1)

    Notes
    -----
    Chapter 17 of the book.
    """
    X = np.arange(check.whole("sine_data", "samples", samples)).reshape(-1, 1) / samples
    return X, np.sin(2 * np.pi * X)
