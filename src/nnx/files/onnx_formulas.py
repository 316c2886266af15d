"""Functions of one number that an ONNX graph computes in several operators, and which activation each is.

Programs write one activation in many ways: GELU by its own operator, or as x·(1 + erf(x/√2))/2 in any order. So a
function is known by its values: it is tabulated at some numbers, operator by operator, and compared with the
activations of nnx.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nnx._base.typing import Array
from nnx._base.vocabulary import BUILT_IN
from nnx.activations import Activation, Activation_ELU, Activation_GELU, Activation_LeakyReLU, Activation_Softmax

#: Where functions are tabulated: densely where activations bend, and far out.
GRID = np.concatenate([np.linspace(-30, 30, 601), *(sign * np.geomspace(1e-4, 1e6, 31) for sign in (-1, 1))])
#: Constants are most often float32.
TOLERANCE = 2e-6

Operator = Callable[[Sequence[Array], Mapping[str, Any]], Array]


def _gelu(x: Array, approximate: Any) -> Array:
    if approximate in (b"tanh", "tanh"):
        return np.asarray(x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(x * 0.5 * (1 + _erf(x * math.sqrt(0.5))))


def _erf(x: Array) -> Array:
    return np.array([math.erf(each) for each in x.ravel().tolist()], np.float64).reshape(x.shape)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.absolute(x)))


def _clip(values: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    low, high = attributes.get("min", -np.inf), attributes.get("max", np.inf)
    bounds = [*values[1:], *[np.float64(np.nan)] * (3 - len(values))]
    low, high = (given if np.isnan(bound).all() else bound for given, bound in zip((low, high), bounds, strict=True))
    return np.asarray(np.minimum(np.maximum(values[0], low), high))


def _hard_sigmoid(x: Array, attributes: Mapping[str, Any]) -> Array:
    return np.asarray(np.clip(x * attributes.get("alpha", 0.2) + attributes.get("beta", 0.5), 0, 1))


def _selu(x: Array, attributes: Mapping[str, Any]) -> Array:
    alpha, gamma = (
        attributes.get("alpha", 1.67326319217681884765625),
        attributes.get("gamma", 1.05070102214813232421875),
    )
    return np.asarray(gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))))


#: The operators that compute number by number. A bound that is left out is NaN.
OPERATORS: dict[str, Operator] = {
    "Abs": lambda v, a: np.absolute(v[0]),
    "Add": lambda v, a: v[0] + v[1],
    "And": lambda v, a: np.logical_and(v[0], v[1]),
    "Celu": lambda v, a: (
        np.maximum(v[0], 0) + np.minimum(0, a.get("alpha", 1.0) * np.expm1(np.minimum(v[0], 0) / a.get("alpha", 1.0)))
    ),
    "Clip": _clip,
    "Div": lambda v, a: v[0] / v[1],
    "Elu": lambda v, a: np.where(v[0] > 0, v[0], a.get("alpha", 1.0) * np.expm1(np.minimum(v[0], 0))),
    "Equal": lambda v, a: v[0] == v[1],
    "Erf": lambda v, a: _erf(v[0]),
    "Exp": lambda v, a: np.exp(v[0]),
    "Gelu": lambda v, a: _gelu(v[0], a.get("approximate", b"none")),
    "Greater": lambda v, a: v[0] > v[1],
    "GreaterOrEqual": lambda v, a: v[0] >= v[1],
    "HardSigmoid": lambda v, a: _hard_sigmoid(v[0], a),
    "HardSwish": lambda v, a: v[0] * np.clip(v[0] / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda v, a: np.where(v[0] < 0, a.get("alpha", 0.01) * v[0], v[0]),
    "Less": lambda v, a: v[0] < v[1],
    "LessOrEqual": lambda v, a: v[0] <= v[1],
    "Log": lambda v, a: np.log(v[0]),
    "Max": lambda v, a: functools.reduce(np.maximum, v),
    "Min": lambda v, a: functools.reduce(np.minimum, v),
    "Mish": lambda v, a: v[0] * np.tanh(_softplus(v[0])),
    "Mul": lambda v, a: v[0] * v[1],
    "Neg": lambda v, a: -v[0],
    "Not": lambda v, a: np.logical_not(v[0]),
    "Pow": lambda v, a: np.power(v[0], v[1]),
    "Reciprocal": lambda v, a: 1 / v[0],
    "Relu": lambda v, a: np.maximum(v[0], 0),
    "Selu": lambda v, a: _selu(v[0], a),
    "Sigmoid": lambda v, a: _sigmoid(v[0]),
    "Softplus": lambda v, a: _softplus(v[0]),
    "Sqrt": lambda v, a: np.sqrt(v[0]),
    "Sub": lambda v, a: v[0] - v[1],
    "Tanh": lambda v, a: np.tanh(v[0]),
    "Where": lambda v, a: np.where(v[0], v[1], v[2]),
}


def computed(operator: str, values: Sequence[Any], attributes: Mapping[str, Any]) -> Array | None:
    """Return what an operator makes of tabulated functions and numbers; None where it cannot."""
    arrays = [np.asarray(np.nan if value is None else value) for value in values]
    arrays = [array if array.dtype == bool else array.astype(np.float64) for array in arrays]
    try:
        with np.errstate(all="ignore"):
            return np.asarray(OPERATORS[operator](arrays, attributes))
    except (ArithmeticError, IndexError, TypeError, ValueError):  # a file may give an operator anything
        return None


def activation(values: Array) -> Any:
    """Return the activation that a tabulated function is, as a new layer; None if it is none."""
    if values.dtype == bool or values.shape != GRID.shape or not np.isfinite(values).all():
        return None
    kinds, tables, bounds = _known()
    found = np.flatnonzero((np.absolute(values - tables) <= bounds).all(axis=1))
    if len(found):
        return kinds[found[0]]()
    at = dict(zip(GRID[:601].round(1).tolist(), values[:601].tolist(), strict=True))
    slope, alpha = shortest(-at[-1.0]), shortest(-at[-30.0])
    if slope >= 0 and _same(values, np.where(GRID < 0, slope * GRID, GRID)):
        return Activation_LeakyReLU(slope)
    if alpha > 0 and _same(values, np.where(GRID < 0, alpha * np.expm1(np.minimum(GRID, 0)), GRID)):
        return Activation_ELU(alpha)
    return None


def line(values: Array) -> tuple[float, float] | None:
    """Return slope and height at 0 of a tabulated function that is a straight line."""
    if values.dtype == bool or values.shape != GRID.shape or not np.isfinite(values).all():
        return None
    height = float(values[300])  # at 0
    slope = float(values[310] - values[290]) / 2
    return (slope, height) if _same(values, slope * GRID + height) else None


def _same(values: Array, known: Array) -> bool:
    return bool((np.absolute(values - known) <= TOLERANCE * np.maximum(1, np.absolute(known))).all())


@functools.cache
def _known() -> tuple[list[Callable[[], Any]], Array, Array]:
    """Return the activations without settings, their tables, one in each row, and how far off another may be."""
    kinds = [kind for kind in BUILT_IN["layer"] if issubclass(kind, Activation) and kind is not Activation_Softmax]
    makers: list[Callable[[], Any]] = [*kinds, functools.partial(Activation_GELU, approximate=True)]
    tables = np.empty((len(makers), len(GRID)), np.float64)
    for maker, table in zip(makers, tables, strict=True):
        layer = maker()
        layer.forward(GRID[:, None])
        table[:] = layer.output[:, 0]
    return makers, tables, TOLERANCE * np.maximum(1, np.absolute(tables))


def shortest(value: float) -> float:
    """Return a number as a person would have written it, if it is the same one in float32."""
    short = float(f"{value:.6g}")
    with np.errstate(all="ignore"):
        return short if np.float32(short) == np.float32(value) else value
