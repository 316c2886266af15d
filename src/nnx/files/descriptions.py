"""What a model file may name, and how an object of such a class, or of a custom one, is described and checked."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from nnx import schedules
from nnx._base import check, random
from nnx._base.vocabulary import BUILT_IN, kinds_of
from nnx.accuracy import Accuracy_Regression
from nnx.layers import Layer_Dropout, Layer_GaussianNoise, Layer_Residual
from nnx.losses import CLIP
from nnx.optimizers import COMMON

#: The largest count that a file may hold: whoever goes on from it does not leave the range of 64 bits.
MAX_STEPS = 1 << 62

#: The smallest part that a dropout may keep: the part that it drops is below 1.
MIN_KEPT = 2.0**-53


def _check_count(where: str, name: str, value: Any) -> None:
    check.whole(where, name, value, 0, MAX_STEPS)


def _check_seed(where: str, name: str, value: Any) -> None:
    if value is not None:
        check.whole(where, name, value, 0, random.MAX_SEED)


def _check_keep(where: str, name: str, value: Any) -> None:
    check.number(where, name, value, MIN_KEPT, 1)


def _check_amount(where: str, name: str, value: Any) -> None:
    check.number(where, name, value, 0)


def _check_precision(where: str, name: str, value: Any) -> None:
    if value is not None:
        check.number(where, name, value, 0)


#: Numbers beside the configuration that training goes on from, by class, and the check of each.
STATE: dict[type, dict[str, Callable[[str, str, Any], None]]] = {
    Layer_Dropout: {"rate": _check_keep, "seed": _check_seed, "training_forwards": _check_count},
    Layer_GaussianNoise: {"seed": _check_seed, "training_forwards": _check_count},
    Accuracy_Regression: {"precision": _check_precision},
    **{kind: {"iterations": _check_count, "current_learning_rate": _check_amount} for kind in BUILT_IN["optimizer"]},
    **{kind: {"iterations": _check_count, "evaluations": _check_count} for kind in BUILT_IN["minimizer"]},
}

#: Arguments that files written before them lack, by class, with the values that make the objects of those files.
ADDED: dict[str, dict[str, Any]] = {
    "Layer_Dense": {"weight_initializer": "book", "bias_initializer": "zeros"},
    "Loss_CategoricalCrossentropy": {"label_smoothing": 0.0, "clip": CLIP},
    "Loss_BinaryCrossentropy": {"label_smoothing": 0.0, "pos_weight": 1.0, "factor": 1.0, "clip": CLIP},
    "Loss_MeanSquaredError": {"factor": 1.0},
    "Loss_Poisson": {"factor": 1.0},
    **{f"Optimizer_{name}": dict.fromkeys(COMMON) for name in ("Adagrad", "RMSprop")},
    "Optimizer_Adam": {"epsilon_hat": False, **dict.fromkeys(COMMON)},
    "Optimizer_SGD": {"nesterov": False, **dict.fromkeys(COMMON)},
}


def completed(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a built-in class's configuration, with the arguments that its file does not hold."""
    return {**config, **{key: value for key, value in ADDED.get(name, {}).items() if key not in config}}


def shortened(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without what `completed` adds: older versions of nnx can read it, and it is short."""
    added = ADDED.get(name, {})
    return {key: value for key, value in config.items() if key not in added or value != added[key]}


def describe(where: str, role: str, thing: Any) -> dict[str, Any]:
    """Return class, configuration and state of a layer, loss, optimizer or accuracy, such as `load_model` accepts."""
    kind = type(thing)
    custom = kind not in kinds_of(role)
    if custom:
        definer = next((each for each in kind.__mro__ if "get_config" in vars(each)), None)
        if definer is None or definer.__module__.startswith("nnx."):
            raise TypeError(
                f"{where}: {role} must be built in or define get_config() to return its constructor's arguments, got "
                f"{kind.__name__}. save_parameters() works without it."
            )
    config = thing.get_config()
    if kind is Layer_Residual:
        config = {"layers": [describe(where, "layer", layer) for layer in thing.layers]}
    elif not custom:
        make(kind, config)
        config = _with_texts(shortened(kind.__name__, config))
    state = {name: getattr(thing, name) for name in state_of(thing)}
    for name, value in state.items():
        state_of(thing)[name](where, name, value)
    return {"class": kind.__name__, "custom": custom, "config": config, "state": state}


def make(kind: type, config: dict[str, Any]) -> Any:
    """Return an object of a built-in class, checked by its own constructor; a layer with parameters without those.

    A dense layer's constructor would draw random weights, and allocate whatever size a file claims.
    """
    thing: Any = object.__new__(kind)
    if isinstance(config.get("edges"), str):
        config = _with_numbers(config)
    if config.get("schedule") is not None:
        config = {**config, "schedule": schedules.from_description(kind.__name__, "schedule", config["schedule"])}
    (thing._configure if hasattr(thing, "_parameters") else thing.__init__)(**config)
    return thing


def _with_texts(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the edges of columns as a text, and the columns.

    An ensemble has hundreds of thousands of edges, and a description may hold far fewer numbers.
    """
    if "edges" not in config:
        return config
    edges = [*itertools.chain.from_iterable((*own, np.inf) for own in config["edges"])]
    return {**config, "columns": _text(config["columns"], "<i4"), "edges": _text(edges, "<f8")}


def _with_numbers(config: dict[str, Any]) -> dict[str, Any]:
    """Return what `_with_texts` was given; ValueError for texts that it never returns."""
    edges = _numbers(config["edges"], "<f8")
    ends = np.flatnonzero(np.isposinf(edges))
    if not len(ends) or ends[-1] != len(edges) - 1:
        raise ValueError("edges must end where those of the last column do")
    each = [own[: len(own) - 1].tolist() for own in np.split(edges, ends[:-1] + 1)]
    return {**config, "columns": _numbers(config.get("columns"), "<i4").tolist(), "edges": each}


def _text(numbers: Any, dtype: str) -> str:
    return base64.b64encode(np.array(numbers, dtype).tobytes()).decode()


def _numbers(text: Any, dtype: str) -> Any:
    if not isinstance(text, str):
        raise TypeError("columns and edges must both be texts")
    content = base64.b64decode(text, validate=True)
    if len(content) % np.dtype(dtype).itemsize:
        raise ValueError("columns and edges must be whole numbers of bytes")
    return np.frombuffer(content, dtype)


def state_of(thing: Any) -> dict[str, Callable[[str, str, Any], None]]:
    """Return the names and checks of what an object of a built-in class, or of a class derived from one, has learnt."""
    return next((state for kind, state in STATE.items() if isinstance(thing, kind)), {})
