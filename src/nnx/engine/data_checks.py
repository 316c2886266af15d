"""Samples and targets of a model, checked before anything changes, and cast once."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.network import Network
from nnx._base.typing import Array, ArrayLike, FloatDType
from nnx.accuracy import Accuracy_Categorical
from nnx.activations import Activation_PReLU
from nnx.engine import plan, program
from nnx.engine.job import Data
from nnx.engine.program import Program
from nnx.layers import Layer_Dense
from nnx.losses import KernelLoss, Loss_CategoricalCrossentropy

#: Rows that stand class by class are taken for sorted if chance gives such an order less often than this.
UNLIKELY = 1e-3


def checked_samples(model: Network, where: str, name: str, X: ArrayLike) -> Array:
    """Return ``X`` as the first layer takes it; a first layer, or a model, of one's own gets it uncast."""
    return _samples(model, where, name, X, plan.known(model))


def _samples(model: Network, where: str, name: str, X: ArrayLike, known: Program | None) -> Array:
    """Do what `checked_samples` does; what is known of the model need not be asked again."""
    if known is not None and known.stages[0].kind == "dense":
        return check.rows(where, name, X, known.stages[0].n_in, known.dtype)
    first = model.layers[0]
    if keeps(model, "forward", "nnx.model"):
        if keeps(first, "forward", "nnx.layers") and isinstance(first, Layer_Dense):
            weights, _ = first._checked_parameters(f"{type(first).__name__}.get_parameters", writing=False)
            return check.rows(where, name, X, len(weights), weights.dtype)
        if type(first).__module__.startswith("nnx."):
            return check.samples(where, name, X, dtype_of(model))
    X = check.plain(where, name, X)
    if X.ndim == 0:
        raise ValueError(f"{where}: {name} must have one row a sample, got a single number.")
    return X


def checked_data(
    model: Network, where: str, names: tuple[str, str], X: ArrayLike, y: ArrayLike, check_finite: bool
) -> Data:
    """Return samples and targets after every check there is."""
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
        check.finite(where, names[1], targets)  # what float32 cannot hold has become infinite
    builtin = type(model.loss).__module__ == "nnx.losses"
    answers = program.answers_to(model.accuracy, model.loss, model.layers[-1])
    return Data(samples, targets if builtin else given, answers.targets(given, int(targets.shape[-1])))


def checked_validation(model: Network, where: str, validation_data: Any) -> Data:
    """Return the validation pair as `checked_data` does."""
    try:
        X_val, y_val = validation_data
    except (TypeError, ValueError):
        raise ValueError(f"{where}: validation_data must be a pair (X_val, y_val).") from None
    return checked_data(model, where, ("validation_data[0]", "validation_data[1]"), X_val, y_val, check_finite=False)


def warn_of_sorted_rows(where: str, model: Network, data: Data, batch_size: int | None) -> None:
    """Warn if the rows are sorted by class and a step sees some of them only, in the order given."""
    classes = None if data.n_batches(batch_size) == 1 else _classes_of_rows(model, data)
    sizes = [] if classes is None else _sizes_in_turn(classes)
    if len(sizes) > 1 and _chance(sizes) < UNLIKELY:
        warnings.warn(
            f"{where}: the rows are sorted by class, so batches of {batch_size} differ in their classes, and each step "
            "unlearns what those before it have learnt. Pass shuffle=True.",
            stacklevel=3,
        )


def _classes_of_rows(model: Network, data: Data) -> Array | None:
    """Return the class of each row, as a number; None if the model does not learn one class a row."""
    if type(model.loss) is Loss_CategoricalCrossentropy:
        return data.y
    if getattr(model.loss, "_predicts", "") != "classes" and not isinstance(model.accuracy, Accuracy_Categorical):
        return None
    y = data.y_accuracy
    if y.ndim == 1 or y.shape[1:] == (1,):
        return y.reshape(-1)
    one_hot = y.ndim == 2 and (np.count_nonzero(y, axis=1) == 1).all()
    return np.asarray(np.argmax(y, axis=1)) if one_hot else None


def _sizes_in_turn(classes: Array) -> list[int]:
    """Return how many rows each class has if all of a class stand together; else nothing."""
    starts = np.flatnonzero(classes[1:] != classes[:-1]) + 1
    starts = np.concatenate([[0], starts])
    for some in (starts[:1000], starts):  # in mixed rows a class comes again soon
        if len(np.unique(classes[some])) < len(some):
            return []
    return [int(size) for size in np.diff(starts, append=len(classes))]


def _chance(sizes: list[int]) -> float:
    """Return how likely rows in random order are to stand class by class, given the classes' sizes."""
    orders = math.lgamma(len(sizes) + 1) + sum(math.lgamma(size + 1) for size in sizes)
    return math.exp(orders - math.lgamma(sum(sizes) + 1))


def keeps(thing: object, method: str, module: str) -> bool:
    """Return whether a method of ``thing`` is the one that ``module`` defines, overridden by nobody."""
    return getattr(getattr(type(thing), method, None), "__module__", "") == module and method not in vars(thing)


def _output_width(model: Network, samples: Array) -> int:
    """Return how many columns the output has; where no layer tells, one sample is run through."""
    width = model.output_width()
    if width is None:
        shape = np.shape(model.forward(samples[:1], training=False))
        width = shape[1] if len(shape) == 2 else 1
    return width


def dtype_of(model: Network) -> FloatDType | None:
    """Return the dtype of the model's layers with parameters; None if it has none."""
    kinds = Layer_Dense | Activation_PReLU
    return next((layer._float_dtype() for layer in model.layers if isinstance(layer, kinds)), None)
