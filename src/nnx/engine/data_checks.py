"""Samples and targets of a model, checked before anything changes, and cast once."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.network import Network
from nnx._base.parameters import Parameterized
from nnx._base.typing import Array, ArrayLike, FloatDType
from nnx._base.weights import checked_weights
from nnx._base.widths import widths_of
from nnx.embedding import check_categories, columns_of_categories
from nnx.engine import plan, program
from nnx.engine.classes import classes_of_rows
from nnx.engine.job import Data
from nnx.engine.program import Program
from nnx.layers import walk
from nnx.losses import KernelLoss

#: Rows grouped by class count as sorted if a random order looks like this less often than this number.
UNLIKELY = 1e-3


def checked_samples(model: Network, where: str, name: str, X: ArrayLike) -> Array:
    """Return ``X`` as the first layer takes it. A custom first layer or model gets it uncast."""
    return _samples(model, where, name, X, plan.known(model))


def _samples(model: Network, where: str, name: str, X: ArrayLike, known: Program | None) -> Array:
    """Do the work of `checked_samples`, without repeating checks of the model."""
    if known is not None and known.stages[0].kind == "dense":
        return check.rows(where, name, X, known.stages[0].n_in, known.dtype)
    first = model.layers[0]
    if keeps(model, "forward", "nnx.model"):
        widths, dtype = widths_of(first), dtype_of(model)
        if widths is not None and widths[0] is not None and dtype is not None:
            if isinstance(first, Parameterized):
                # Refuses invalid arrays that users may have assigned.
                first._checked_parameters(f"{type(first).__name__}.get_parameters", writing=False)
            samples = check.rows(where, name, X, widths[0], dtype)
            layout = columns_of_categories(model.layers)
            if layout is not None:
                check_categories(where, name, samples, *layout)
            return samples
        if type(first).__module__.startswith("nnx."):
            return check.samples(where, name, X, dtype_of(model))
    X = check.plain(where, name, X)
    if X.ndim == 0:
        raise ValueError(f"{where}: {name} must have one row per sample, got a single number.")
    return X


def checked_data(
    model: Network,
    where: str,
    names: tuple[str, str, str],
    X: ArrayLike,
    y: ArrayLike,
    check_finite: bool,
    sample_weight: ArrayLike | None = None,
) -> Data:
    """Return samples, targets and weights after all checks except one: weights may all be 0."""
    known = plan.known(model)
    samples = _samples(model, where, names[0], X, known)
    if len(samples) == 0:
        raise ValueError(f"{where}: {names[0]} must have at least one row, got none.")
    given = check.plain(where, names[1], y)
    if given.ndim == 0 or len(given) != len(samples):
        raise ValueError(
            f"{where}: {names[1]} must have one row for each of the {len(samples)} rows of {names[0]}, "
            f"got shape {given.shape}."
        )
    if check_finite:
        check.finite(where, names[0], samples)
        check.finite(where, names[1], given)
    targets = given
    if known is not None:
        shape = (len(given), known.stages[-1].n_out)
        targets = known.loss._targets(where, names[1], given, shape, known.dtype)
    elif isinstance(model.loss, KernelLoss) and keeps(model.loss, "forward", "nnx.losses"):
        shape = (len(given), _output_width(model, samples))
        targets = model.loss._targets(where, names[1], given, shape, dtype_of(model) or given.dtype)
    if check_finite and targets is not given:
        check.finite(where, names[1], targets)  # numbers that float32 cannot hold have become infinite
    builtin = type(model.loss).__module__ == "nnx.losses"
    answers = program.answers_to(model.accuracy, model.loss, model.layers[-1])
    weights = None if sample_weight is None else checked_weights(where, names[2], sample_weight, len(samples))
    return Data(samples, targets if builtin else given, answers.targets(given, int(targets.shape[-1])), weights)


class BlockChecks:
    """The checks of `checked_data`, set up from the first rows. Other threads can check more rows with them.

    Parameters
    ----------
    model : Model
    where : str
        The method that was called, for messages.
    first : Data
        The first rows, as `checked_data` returned them.
    check_finite : bool
    """

    def __init__(self, model: Network, where: str, first: Data, check_finite: bool) -> None:
        self._where, self._first, self._check_finite = where, first, check_finite
        inner = model.layers[0]
        casts = keeps(model, "forward", "nnx.model") and type(inner).__module__.startswith("nnx.")
        self._casts = casts and first.X.ndim == 2
        self._layout = columns_of_categories(model.layers) if casts else None
        loss = model.loss
        self._loss = loss if isinstance(loss, KernelLoss) and keeps(loss, "forward", "nnx.losses") else None
        self._is_built_in = type(loss).__module__ == "nnx.losses"
        self._width = _output_width(model, first.X) if self._loss is not None else int(first.y.shape[-1])
        self._dtype = dtype_of(model) or first.y.dtype
        self._answers = program.answers_to(model.accuracy, loss, model.layers[-1])

    def data(self, piece: Any) -> Data:
        """Return rows after all checks. They have ``X``, ``y``, ``weights`` and a method ``name`` for messages."""
        where, name, first = self._where, piece.name("X"), self._first
        X = check.plain(where, name, piece.X)
        if self._casts:
            X = check.rows(where, name, X, first.X.shape[1], first.X.dtype)
        else:
            X = self._like(name, X, first.X)
        if self._layout is not None:
            check_categories(where, name, X, *self._layout)
        if self._check_finite:
            check.finite(where, name, X)
        y, y_accuracy = self._targets(piece.name("y"), piece.y, len(X))
        weights = None
        if first.weights is not None:
            weights = checked_weights(where, piece.name("sample_weight"), piece.weights, len(X))
        return Data(X, y, y_accuracy, weights)

    def _targets(self, name: str, y: Any, n: int) -> tuple[Array, Array]:
        """Return targets as the loss gets them, and as the accuracy gets them."""
        where, first = self._where, self._first
        given = check.plain(where, name, y)
        if given.ndim == 0 or len(given) != n:
            raise ValueError(f"{where}: {name} must have one row for each of {n} rows of X, got shape {given.shape}.")
        if self._check_finite:
            check.finite(where, name, given)
        targets = given
        if self._loss is not None:
            targets = self._loss._targets(where, name, given, (n, self._width), self._dtype)
            if self._check_finite and targets is not given:
                check.finite(where, name, targets)
        compared = self._like(name, self._answers.targets(given, self._width), first.y_accuracy)
        return self._like(name, targets if self._is_built_in else given, first.y), compared

    def _like(self, name: str, values: Array, first: Array) -> Array:
        """Refuse rows that do not fit the first ones in shape."""
        if values.shape[1:] != first.shape[1:] or not np.can_cast(values.dtype, first.dtype, "same_kind"):
            raise ValueError(
                f"{self._where}: {name} must have rows of shape {first.shape[1:]} and dtype {first.dtype}, as the "
                f"first ones, got {values.shape[1:]} and {values.dtype}."
            )
        return values


def checked_validation(model: Network, where: str, validation_data: Any) -> Data:
    """Return the validation data as `checked_data` does."""
    try:
        parts = tuple(validation_data)
    except TypeError:
        parts = ()
    if len(parts) not in (2, 3):
        raise ValueError(
            f"{where}: validation_data must be a pair (X_val, y_val), or (X_val, y_val, weights) with a weight for "
            "each sample."
        )
    X_val, y_val, *weights = parts
    names = ("validation_data[0]", "validation_data[1]", "validation_data[2]")
    return weighing(model, where, names[2], checked_data(model, where, names, X_val, y_val, False, *weights))


def weighing(model: Network, where: str, name: str, data: Data) -> Data:
    """Return data, checked: weights must not all be 0, and the model must be able to use them."""
    if data.weights is None:
        return data
    if not data.weights.any():
        raise ValueError(f"{where}: {name} must leave at least one sample, got 0 for all {len(data.weights)}.")
    for role in ("loss", "accuracy"):
        thing = getattr(model, role)
        if not _takes(thing.calculate, "sample_weight"):
            raise TypeError(
                f"{where}: the {role} must have a method calculate that takes sample_weight where samples have "
                f"weights, got {thing!r}. Add the keyword, or leave the weights out."
            )
    return data


def check_backward(model: Network, where: str) -> None:
    """Refuse a model with a custom ``backward`` that does not take weights."""
    if not _takes(model.backward, "sample_weight"):
        raise TypeError(
            f"{where}: the model must have a method backward that takes sample_weight where samples have weights, "
            f"got that of {type(model).__name__}. Add the keyword, or leave the weights out."
        )


def _takes(method: Any, keyword: str) -> bool:
    """Return whether a method takes a keyword. If its signature is hidden, assume that it does."""
    import inspect

    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(each.name == keyword or each.kind is each.VAR_KEYWORD for each in parameters)


def warn_of_sorted_rows(where: str, model: Network, data: Data, batch_size: int | None) -> None:
    """Warn if rows are sorted by class, and steps see only some of them, in the given order."""
    classes = None if data.n_batches(batch_size) == 1 else classes_of_rows(model, data)
    sizes = [] if classes is None else _sizes_in_turn(classes)
    if len(sizes) > 1 and _chance(sizes) < UNLIKELY:
        warnings.warn(
            f"{where}: the rows are sorted by class, so batches of {batch_size} differ in their classes, and each step "
            "unlearns what those before it have learnt. Pass shuffle=True.",
            stacklevel=4,
        )


def _sizes_in_turn(classes: Array) -> list[int]:
    """Return how many rows each class has, if the rows of each class stand together; else nothing."""
    starts = np.flatnonzero(classes[1:] != classes[:-1]) + 1
    starts = np.concatenate([[0], starts])
    for some in (starts[:1000], starts):  # in mixed rows, a class soon occurs again
        if len(np.unique(classes[some])) < len(some):
            return []
    return [int(size) for size in np.diff(starts, append=len(classes))]


def _chance(sizes: list[int]) -> float:
    """Return the probability that random order puts rows class by class, given the classes' sizes."""
    orders = math.lgamma(len(sizes) + 1) + sum(math.lgamma(size + 1) for size in sizes)
    return math.exp(orders - math.lgamma(sum(sizes) + 1))


def keeps(thing: object, method: str, module: str) -> bool:
    """Return whether a method of ``thing`` is the one that ``module`` defines, not overridden."""
    return getattr(getattr(type(thing), method, None), "__module__", "") == module and method not in vars(thing)


def _output_width(model: Network, samples: Array) -> int:
    """Return the number of columns of the output. If no layer tells it, run one sample through the model."""
    width = model.output_width()
    if width is None:
        shape = np.shape(model.forward(samples[:1], training=False))
        width = shape[1] if len(shape) == 2 else 1
    return width


def dtype_of(model: Network) -> FloatDType | None:
    """Return the dtype of the model's layers with parameters; None if it has none."""
    return next((layer._float_dtype() for layer in walk(model.layers) if isinstance(layer, Parameterized)), None)
