"""Who is measured, and how each is used: the library's defaults, one thread, categories and gaps as it takes them."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Peer:
    """A method's title, the distribution that it needs, and what makes an estimator of it.

    ``make(kind, seed, X)`` imports the library and returns an estimator and the keywords of its ``fit``; ``X`` are the
    training rows, of which it looks at the columns' types only. ``filled`` says that the method refuses gaps in
    numbers: there is then the mean of the training rows.
    """

    title: str
    distribution: str
    make: Callable[[str, int, pd.DataFrame], tuple[Any, dict[str, Any]]]
    filled: bool = False

    @property
    def version(self) -> str:
        """Version of the library that is installed; ImportError if none is."""
        if self.distribution == "nnx-core":  # which may be on the path without being installed
            return str(importlib.import_module("nnx").__version__)
        return importlib.metadata.version(self.distribution)


def categories(X: pd.DataFrame) -> list[str]:
    """Return the names of the columns of categories."""
    return [str(name) for name, kind in X.dtypes.items() if isinstance(kind, pd.CategoricalDtype)]


def nnx(effort: str) -> Callable[[str, int, pd.DataFrame], tuple[Any, dict[str, Any]]]:
    """Return what makes nnx's estimator for tables at an effort."""

    def make(kind: str, seed: int, X: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
        from nnx.sklearn import TabularClassifier, TabularRegressor

        chosen = TabularRegressor if kind == "regression" else TabularClassifier
        return chosen(effort=effort, random_state=seed, n_jobs=1), {}

    return make


def sklearn_mlp(kind: str, seed: int, X: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    """Return scikit-learn's MLP behind the usual preparation: standardized, one-hot, the target standardized too."""
    from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    prepared = ColumnTransformer([("categories", one_hot, categories(X))], remainder=StandardScaler())
    if kind == "classes":
        return make_pipeline(prepared, MLPClassifier(random_state=seed)), {}
    network = make_pipeline(prepared, MLPRegressor(random_state=seed))
    return TransformedTargetRegressor(network, transformer=StandardScaler()), {}


def histogram_boosting(kind: str, seed: int, X: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    """Return scikit-learn's histogram boosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    chosen = HistGradientBoostingRegressor if kind == "regression" else HistGradientBoostingClassifier
    return chosen(categorical_features="from_dtype", random_state=seed), {}


def lightgbm(kind: str, seed: int, X: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    """Return LightGBM, which knows categories by their dtype."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    chosen = LGBMRegressor if kind == "regression" else LGBMClassifier
    return chosen(random_state=seed, n_jobs=1, verbose=-1), {}


def catboost(kind: str, seed: int, X: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
    """Return CatBoost."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    chosen = CatBoostRegressor if kind == "regression" else CatBoostClassifier
    made = chosen(random_seed=seed, thread_count=1, verbose=False, allow_writing_files=False)
    return made, {"cat_features": categories(X)}


def pytabkit(method: str) -> Callable[[str, int, pd.DataFrame], tuple[Any, dict[str, Any]]]:
    """Return what makes one of pytabkit's methods."""

    def make(kind: str, seed: int, X: pd.DataFrame) -> tuple[Any, dict[str, Any]]:
        import pytabkit
        import torch

        torch.set_num_threads(1)
        chosen = getattr(pytabkit, f"{method}_{'Regressor' if kind == 'regression' else 'Classifier'}")
        return chosen(device="cpu", n_threads=1, random_state=seed), {"cat_col_names": categories(X)}

    return make


PEERS = {
    "nnx-fast": Peer("nnx, fast", "nnx-core", nnx("fast")),
    "nnx-default": Peer("nnx", "nnx-core", nnx("default")),
    "nnx-best": Peer("nnx, best", "nnx-core", nnx("best")),
    "sklearn-mlp": Peer("scikit-learn's MLP", "scikit-learn", sklearn_mlp, filled=True),
    "histogram-boosting": Peer("histogram boosting", "scikit-learn", histogram_boosting),
    "lightgbm": Peer("LightGBM", "lightgbm", lightgbm),
    "catboost": Peer("CatBoost", "catboost", catboost),
    "realmlp": Peer("RealMLP-TD-S", "pytabkit", pytabkit("RealMLP_TD_S"), filled=True),
    "tabm": Peer("TabM-D", "pytabkit", pytabkit("TabM_D"), filled=True),
}


def frames(name: str, X_train: pd.DataFrame, X_test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames as a method takes them: gaps filled if it refuses them, CatBoost's categories as text."""
    if PEERS[name].filled:
        means = X_train.mean(numeric_only=True)
        X_train, X_test = X_train.fillna(means), X_test.fillna(means)
    if name == "catboost":
        X_train, X_test = with_texts(X_train), with_texts(X_test)
    return X_train, X_test


def with_texts(X: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose categories are texts; a gap is a text, too."""
    return X.assign(**{name: X[name].astype(object).fillna("missing").astype(str) for name in categories(X)})
