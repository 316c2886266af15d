"""Every kernel with arguments for a call, for tests of the promises of all kernels.

Kernels that are called by name have a line for each name in the tables: a new activation, loss or rule is tested with
the others. A call has a label, such as "relu_forward" or "adam_update"; `kernel` returns the function for a label.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

import nnx
from nnx._base.vocabulary import BUILT_IN
from nnx._kernels import _numpy
from nnx._kernels._numpy import layers
from nnx._kernels._numpy.activations import ACTIVATIONS
from nnx._kernels._numpy.losses import LOSSES
from nnx._kernels._numpy.optimizers import RULES


def _labels() -> dict[str, tuple[str, str]]:
    """Return the kernel and the name argument of its call, for each label."""
    found = {}
    for name in ACTIVATIONS:
        found |= {f"{name}_{way}": (f"activation_{way}", name) for way in ("forward", "backward")}
    for name, row in LOSSES.items():
        found |= {f"{name}_{way}": (f"loss_{way}", name) for way in ("forward", "backward")}
        if row.pair:
            found[_pair_label(row.pair, name)] = ("pair_backward", name)
    found |= {f"{name}_update": ("optimizer_update", name) for name in RULES}
    return found


def _pair_label(pair: str, name: str) -> str:
    return f"{pair}_{name.removesuffix('_crossentropy')}_backward"


LABELS = _labels()


def _takes_epsilon(label: str) -> bool:
    """Return whether a kernel takes an epsilon, which comes before its outputs."""
    return label.startswith(("batch_norm_", "layer_norm_")) and label != "batch_norm_statistics"


def kernel(backend: Any, label: str) -> Callable[..., Any]:
    """Return the function for a label. It takes arrays, then numbers."""
    if _takes_epsilon(label):
        n_outputs = 2 if label.endswith("_weights") else 1

        def normalize(*arguments: Any) -> Any:
            *arrays, epsilon = arguments
            return getattr(backend, label)(*arrays[:-n_outputs], epsilon, *arrays[-n_outputs:])

        return normalize
    if label not in LABELS:
        return getattr(backend, label)
    function, name = LABELS[label]
    if function != "optimizer_update":
        return functools.partial(getattr(backend, function), name)

    def update(values: Any, gradients: Any, *rest: Any) -> None:
        return backend.optimizer_update(name, values, gradients, rest[:-3], *rest[-3:])

    return update


def function_of(label: str) -> str:
    """Return the name of the kernel's function. Its errors begin with it."""
    return LABELS.get(label, (label,))[0]


def parameters(label: str) -> list[str]:
    """Return the names of a call's arguments, in order."""
    if label not in LABELS:
        names = list(inspect.signature(getattr(_numpy, label)).parameters)
        return [*[name for name in names if name != "epsilon"], "epsilon"] if _takes_epsilon(label) else names
    function, name = LABELS[label]
    names = list(inspect.signature(getattr(_numpy, function)).parameters)[1:]
    if function == "optimizer_update":
        names[2:3] = ["states"] * RULES[name].n_states
    return names


def _objects(role: str, attribute: str) -> dict[str, Any]:
    """Return an object for each kernel's name, as its class makes it without arguments."""
    kinds = [kind for kind in BUILT_IN[role] if attribute in dir(kind)]
    return {thing._kernel: thing for thing in (kind() for kind in kinds)}


def _activations() -> list[Any]:
    objects = _objects("layer", "_backward_from")
    assert objects.keys() == ACTIVATIONS.keys(), "each activation has a class"
    found = []
    for name, thing in objects.items():
        found.append((f"{name}_forward", ["nm"], ["nm"], (thing._settings(),)))
        found.append((f"{name}_backward", ["nm", "nm"], ["nm"], (thing._settings(),)))
    return found


def _losses() -> list[Any]:
    objects = _objects("loss", "_pair")
    assert objects.keys() == LOSSES.keys(), "each loss has a class"
    found = []
    for name, row in LOSSES.items():
        arrays = ["nm", "labels" if row.by_labels else "nm"]
        settings, own = objects[name]._settings("", 3)
        # If columns have their own numbers, there is one for each, for any number of columns.
        numbers = (settings,) if own is None else (settings, _OwnNumbers(own))
        found.append((f"{name}_forward", arrays, ["n"], numbers))
        found.append((f"{name}_backward", arrays, ["nm"], numbers))
        if row.pair:
            found.append((_pair_label(row.pair, name), arrays, ["nm"], numbers))
    return found


class _OwnNumbers:
    """The columns' own numbers. How many there are depends on the first array of a call."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    def of(self, columns: int) -> Any:
        return np.resize(self.numbers, columns).astype(np.float64)


def numbers_for(numbers: tuple[Any, ...], first: Any) -> tuple[Any, ...]:
    """Return a call's numbers, with one for each column where columns have their own."""
    return tuple(each.of(first.shape[-1]) if isinstance(each, _OwnNumbers) else each for each in numbers)


def _updates() -> list[Any]:
    """Return a line for each rule: label, states, and rate, step and settings."""
    things = [kind() for kind in BUILT_IN["optimizer"]]
    things += [nnx.Optimizer_SGD(momentum=0.9, **more) for more in ({}, *_more_of_momentum())]
    formulas = {formula[0]: formula for formula in (thing._formula("") for thing in things)}
    assert formulas.keys() == RULES.keys(), "each rule has an optimizer"
    return [(f"{name}_update", len(states), (0.1, 1.0, settings)) for name, states, settings, _ in formulas.values()]


def _more_of_momentum() -> list[dict[str, bool]]:
    return [{"nesterov": True}] if "nesterov" in inspect.signature(nnx.Optimizer_SGD).parameters else []


#: Label, arrays that are read, arrays that are written, numbers.
EVERY_CALL: list[Any] = [
    ("dense_forward", ["nk", "km", "1m"], ["nm"], ()),
    ("dense_relu_forward", ["nk", "km", "1m"], ["nm"], ()),
    ("dense_backward_weights", ["nk", "nm", "km"], ["km"], (0.1, 0.1)),
    ("dense_backward_biases", ["nm", "1m"], ["1m"], (0.1, 0.1)),
    ("dense_backward_inputs", ["nm", "km"], ["nk"], ()),
    ("round_bfloat16", ["nm"], ["nm"], ()),
    ("dropout_apply", ["nm", "nm"], ["nm"], ()),
    ("batch_norm_statistics", ["nm"], ["1m", "1m"], ()),
    ("batch_norm_forward", ["nm", "1m", "1m", "1m", "1m"], ["nm"], (1e-5,)),
    ("batch_norm_backward_weights", ["nm", "nm", "1m", "1m"], ["1m", "1m"], (1e-5,)),
    ("batch_norm_backward_inputs", ["nm", "nm", "1m", "1m", "1m", "1m", "1m"], ["nm"], (1e-5,)),
    ("layer_norm_forward", ["nm", "1m", "1m"], ["nm"], (1e-5,)),
    ("layer_norm_backward_weights", ["nm", "nm"], ["1m", "1m"], (1e-5,)),
    ("layer_norm_backward_inputs", ["nm", "nm", "1m"], ["nm"], (1e-5,)),
    ("scale_forward", ["nm", "1m"], ["nm"], ()),
    ("scale_backward_weights", ["nm", "nm"], ["1m"], ()),
    ("scale_backward_inputs", ["nm", "1m"], ["nm"], ()),
    ("prelu_forward", ["nm", "1m"], ["nm"], ()),
    ("prelu_backward_inputs", ["nm", "nm", "1m"], ["nm"], ()),
    ("prelu_backward_weights", ["nm", "nm"], ["1m"], ()),
    *_activations(),
    *_losses(),
    ("softmax_crossentropy", ["nm", "labels"], ["nm", "nm"], ()),
    ("argmax", ["nm"], ["classes"], ()),
    ("bad_label", ["labels"], [], (4,)),
    ("equal_count", ["labels", "labels"], [], ()),
    ("near_count", ["nm", "nm"], [], (0.1,)),
    ("total", ["nm"], [], ()),
    ("regularization_loss", ["nm"], [], (0.1, 0.1)),
    ("clip_gradients", ["nm"], ["nm"], (0.3,)),
    ("scale_gradients", ["nm"], ["nm"], (0.3,)),
]
#: Kernels with arguments of another kind. They have their own tests.
ELSEWHERE = {
    *("dropout_mask", "gaussian_noise", "average_update", "embedding_forward", "embedding_misfit"),
    *("embedding_backward_weights", "embedding_backward_inputs"),
    *("piecewise_linear_forward", "piecewise_linear_backward", "thermometer_forward", "thermometer_backward"),
    *("combinations_forward", "combinations_backward"),
    *("spline_places", "spline_forward", "spline_backward_weights", "spline_backward_inputs"),
    *("periodic_forward", "periodic_backward_weights", "periodic_backward_inputs"),
}
#: Kernels that exist only for float32.
ONLY_FLOAT32 = ("round_bfloat16",)
#: Label, how many states, and numbers.
UPDATES = _updates()


def dropout_number(row: int, column: int, seed: int, forwards: int) -> int:
    """Return the number of 32 bits by which dropout decides about an element, from single blocks of Philox."""
    number = 0
    for block in (column // 8, column // 8 + 2**31):  # its upper half, and its lower one
        counter = (np.array([[c]], np.uint64) for c in (block, row))
        words = layers._philox4x32_7(*counter, forwards & 0xFFFFFFFF, forwards >> 32, seed)
        number = number << 16 | int(words[column % 8 // 2][0, 0]) >> 16 * (column % 2) & 0xFFFF
    return number
