"""Class weights, and the choice of held-out rows. Both depend on the rows' classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.network import Network
from nnx._base.random import draw_seed, split_stream
from nnx._base.text import abridged
from nnx._base.typing import Array
from nnx._base.weights import in_range
from nnx.accuracy import Accuracy_Categorical
from nnx.engine.job import Data, Split
from nnx.losses import Loss_CategoricalCrossentropy, Loss_Hinge


def classes_of_rows(model: Network, data: Data) -> Array | None:
    """Return the class number of each row; None if the model does not learn one class per row."""
    if type(model.loss) is Loss_CategoricalCrossentropy:
        return data.y
    if not _learns_classes(model):
        return None
    y = data.y_accuracy
    if y.ndim == 1 or y.shape[1:] == (1,):
        return y.reshape(-1)
    one_hot = y.ndim == 2 and (np.count_nonzero(y, axis=1) == 1).all()
    return np.asarray(np.argmax(y, axis=1)) if one_hot else None


def _learns_classes(model: Network) -> bool:
    return getattr(model.loss, "_predicts", "") == "classes" or isinstance(model.accuracy, Accuracy_Categorical)


# Class weights

#: Class weights, as `Model.train` takes them.
ClassWeight = str | Mapping[int, float] | Sequence[float] | Array


def weighed_by_class(where: str, model: Network, data: Data, class_weight: Any) -> Data:
    """Return data in which each row's weight is multiplied by the weight of its class."""
    classes, n_classes = _class_numbers(where, model, data)
    weights = _of_classes(where, class_weight, classes, n_classes)[classes]
    if data.weights is not None:
        weights = in_range(where, "sample_weight times class_weight", weights * data.weights)
    return data._replace(weights=weights)


def _class_numbers(where: str, model: Network, data: Data) -> tuple[Array, int]:
    """Return the class number of each row, and the number of classes of the model."""
    if not _learns_classes(model):
        raise ValueError(
            f"{where}: class_weight must be None for a model that does not predict classes, because neither "
            f"{model.loss!r} nor {model.accuracy!r} says that it does. Give each sample its own: sample_weight=..."
        )
    classes = classes_of_rows(model, data)
    if classes is not None and isinstance(model.loss, Loss_Hinge):
        classes = classes > 0  # targets may be −1 and 1 if the accuracy is custom
    if classes is None or not ((classes >= 0) & (classes % 1 == 0)).all():
        raise ValueError(
            f"{where}: y must hold class numbers or one-hot rows if class_weight is given. Give "
            "each sample its own weight: sample_weight=..."
        )
    classes = classes.astype(np.intp)
    width = data.y.shape[1] if data.y.ndim == 2 else model.output_width() or 1
    return classes, max(2, width, int(classes.max()) + 1)


def _of_classes(where: str, class_weight: Any, classes: Array, n_classes: int) -> Array:
    """Return the weight of each class, float64 (n_classes,)."""
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"{where}: class_weight must be 'balanced', or numbers by class, got {abridged(class_weight)}."
            )
        counts = np.bincount(classes, minlength=n_classes)
        return np.asarray(len(classes) / (np.count_nonzero(counts) * np.maximum(counts, 1)))
    if isinstance(class_weight, Mapping):
        weights = np.ones(n_classes, np.float64)
        for key, value in class_weight.items():
            number = check.whole(where, "class_weight's keys", key, 0, n_classes - 1)
            weights[number] = check.number(where, f"class_weight[{number}]", value, 0)
    else:
        weights = np.array(check.plain(where, "class_weight", class_weight), np.float64)
        if weights.shape != (n_classes,):
            raise ValueError(
                f"{where}: class_weight must hold one number for each of {n_classes} classes, got shape "
                f"{weights.shape}."
            )
    return in_range(where, "class_weight", weights)


# Held-out rows


def checked_split(where: str, validation_split: Any, seed: int | None, n_rows: int) -> Split:
    """Return how to draw held-out rows, checked: both parts must have rows. Draw a seed if none is given."""
    share = float(check.number(where, "validation_split", validation_split))
    if not 0 < share < 1:
        raise ValueError(
            f"{where}: validation_split must be a number above 0 and below 1, got {abridged(validation_split)}."
        )
    if not 0 < _how_many(share, n_rows) < n_rows:
        raise ValueError(
            f"{where}: validation_split must leave rows for training and for validation, got {share:g} of {n_rows}. "
            "Give more rows or another share."
        )
    return Split(share, draw_seed() if seed is None else seed)


def _how_many(share: float, n_rows: int) -> int:
    return int(share * n_rows + 0.5)


def held_out_rows(split: Split, classes: Array | None, n_rows: int) -> Array:
    """Return which rows are held out, booleans (n_rows,): the same share of each class, within one row.

    The result depends only on the arguments. Without classes, all rows form one class.
    """
    generator = split_stream(split.seed)
    groups = np.zeros(n_rows, np.intp)
    if classes is not None:
        groups = np.unique(classes, return_inverse=True)[1].reshape(-1)
    shares = np.bincount(groups) * split.share
    counts = np.floor(shares).astype(np.intp)
    # The remaining rows go to the classes that lost most by rounding. Ties are broken at random.
    chance = generator.permutation(len(counts))
    largest = chance[np.argsort((counts - shares)[chance], kind="stable")]
    counts[largest[: _how_many(split.share, n_rows) - int(counts.sum())]] += 1
    order = generator.permutation(n_rows)
    order = order[np.argsort(groups[order], kind="stable")]  # class after class, each in random order
    sizes = np.bincount(groups)
    place = np.arange(n_rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    held_out = np.zeros(n_rows, bool)
    held_out[order[place < np.repeat(counts, sizes)]] = True
    return held_out
