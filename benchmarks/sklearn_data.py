"""The data sets on which nnx's estimators stand beside scikit-learn's, ready to learn from."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, make_classification
from sklearn.preprocessing import StandardScaler

import nnx

#: Samples (n, columns) in float64, and classes or numbers (n,).
Data = tuple[np.ndarray, np.ndarray]


def digits() -> Data:
    """Return 1,797 digits of 8 × 8 pixels between 0 and 1, in ten classes."""
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def breast_cancer() -> Data:
    """Return 569 tumours with 30 standardized measures, in two classes."""
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def synthetic() -> Data:
    """Return 20,000 invented samples of 20 columns, in two classes."""
    return make_classification(20_000, 20, n_informative=10, random_state=0)


def adult() -> Data:
    """Return the census' 32,561 persons in one-hot and standardized columns, in two classes of income."""
    X, y, *_ = nnx.load_csv(file("adult/adult.data"), -1, test_size=0)
    return X.astype(np.float64), y


def california() -> Data:
    """Return California's districts, and their median house values, standardized."""
    X, y, *_ = nnx.load_csv(file("california/housing.csv"), "median_house_value", test_size=0)
    return X.astype(np.float64), (y.ravel() - y.mean()) / y.std()


def file(name: str) -> str:
    """Return the path of a file below ``NNX_DATA_HOME``."""
    return str(Path(os.environ.get("NNX_DATA_HOME", "."), name))


LOADERS: dict[str, Callable[[], Data]] = {
    loader.__name__: loader for loader in (digits, breast_cancer, synthetic, adult, california)
}
NEEDS_FILES = {"adult": "adult/adult.data", "california": "california/housing.csv"}


@functools.cache
def load(name: str) -> Data:
    """Return a data set by name."""
    return LOADERS[name]()


def is_there(name: str) -> bool:
    """Return whether a data set needs no files, or has them."""
    return name not in NEEDS_FILES or Path(file(NEEDS_FILES[name])).exists()
