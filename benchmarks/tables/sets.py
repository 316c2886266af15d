"""The data sets, as pandas frames whose columns are numbers or categories, and how they are split."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.datasets
from sklearn.model_selection import train_test_split

#: The part of the rows that is kept for testing, where a data set has no test rows of its own.
TEST_PART = 0.2


@dataclass(frozen=True)
class Split:
    """Rows to learn from and rows to test with; ``kind`` is "regression" or "classes", ``y`` numbers or 0, 1, ..."""

    kind: str
    X_train: pd.DataFrame
    X_test: pd.DataFrame
    y_train: np.ndarray
    y_test: np.ndarray


def from_csv(name: str, target: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the columns of a file below ``NNX_DATA_HOME`` and its target, numbers."""
    frame = pd.read_csv(file(name))
    for column in frame.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]]:
        frame[column] = frame[column].astype("category")
    return frame.drop(columns=target).astype(floats(frame.drop(columns=target))), frame[target].to_numpy(np.float64)


def floats(frame: pd.DataFrame) -> dict[str, type]:
    """Return float64 for all columns of numbers: what one library takes for categories, others must too."""
    return {name: np.float64 for name, kind in frame.dtypes.items() if pd.api.types.is_numeric_dtype(kind)}


ADULT = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income"),
)


def adult() -> tuple[pd.DataFrame, np.ndarray, int]:
    """Return the census' persons, whether they earn more than 50,000 dollars, and how many are for training."""
    parts = [
        pd.read_csv(file(f"adult/adult.{part}"), names=ADULT, skipinitialspace=True, na_values="?", comment="|")
        for part in ("data", "test")
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame = frame[frame["income"].notna()]  # the test file has a line of its own at the top in some editions
    y = frame.pop("income").str.startswith(">50K").to_numpy(np.int64)
    texts = [name for name, kind in frame.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return frame.astype({**floats(frame), **dict.fromkeys(texts, "category")}), y, len(parts[0])


def shipped(load: Callable[..., Any]) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a data set that scikit-learn ships."""
    found = load(as_frame=True)
    return found.data.astype(np.float64), found.target.to_numpy()


def file(name: str) -> Path:
    """Return the path of a file below ``NNX_DATA_HOME``."""
    return Path(os.environ.get("NNX_DATA_HOME", "."), name)


#: By name: the kind, the file that must be there if any, and what reads it. From few rows to many.
SETS: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "iris": ("classes", "", functools.partial(shipped, sklearn.datasets.load_iris)),
    "wine": ("classes", "", functools.partial(shipped, sklearn.datasets.load_wine)),
    "yacht": ("regression", "uci/yacht.csv", functools.partial(from_csv, "uci/yacht.csv", "target")),
    "diabetes": ("regression", "", functools.partial(shipped, sklearn.datasets.load_diabetes)),
    "breast cancer": ("classes", "", functools.partial(shipped, sklearn.datasets.load_breast_cancer)),
    "energy": ("regression", "uci/energy.csv", functools.partial(from_csv, "uci/energy.csv", "target")),
    "concrete": ("regression", "uci/concrete.csv", functools.partial(from_csv, "uci/concrete.csv", "target")),
    "wine quality": (
        "regression",
        "uci/wine-quality-red.csv",
        functools.partial(from_csv, "uci/wine-quality-red.csv", "target"),
    ),
    "digits": ("classes", "", functools.partial(shipped, sklearn.datasets.load_digits)),
    "naval": (
        "regression",
        "uci/naval-propulsion-plant.csv",
        functools.partial(from_csv, "uci/naval-propulsion-plant.csv", "target"),
    ),
    "California": (
        "regression",
        "california/housing.csv",
        functools.partial(from_csv, "california/housing.csv", "median_house_value"),
    ),
    "Adult": ("classes", "adult/adult.test", adult),
}


def is_there(name: str) -> bool:
    """Return whether a data set needs no files, or has them."""
    return not SETS[name][1] or file(SETS[name][1]).exists()


def split(name: str, seed: int) -> Split:
    """Return a data set's rows: a fifth for testing, of each class alike; Adult's test file is its own."""
    kind, _, read = SETS[name]
    X, y, *own = read()
    if own:
        return Split(kind, X[: own[0]], X[own[0] :], y[: own[0]], y[own[0] :])
    strata = y if kind == "classes" else None
    return Split(kind, *train_test_split(X, y, test_size=TEST_PART, random_state=seed, stratify=strata))
