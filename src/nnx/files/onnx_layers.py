"""How each kind of layer is written in ONNX: a function for each kind of part, in one table.

A part is what kernels need of a layer (`nnx.predictor`): a kind, and values. A translation is called with the graph,
the name of the layer's inputs (n, n_in), the part's values, and n_in and n_out; it returns the name of the outputs
(n, n_out).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nnx._base.typing import Array
from nnx.files.onnx_graph import Graph

Sizes = tuple[int, int]
Translation = Callable[[Graph, str, tuple[Any, ...], Sizes], str]

#: By the kind of part. Whoever adds a layer enters its translation here.
TRANSLATIONS: dict[str, Translation] = {}

#: Of SELU, as Klambauer and others give them.
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848
#: From here down, exp(x) is 0 in either dtype, and so is a gate.
LOWEST = -746.0


def translation(kind: str) -> Callable[[Translation], Translation]:
    """Return a decorator that enters a translation."""

    def enter(function: Translation) -> Translation:
        TRANSLATIONS[kind] = function
        return function

    return enter


def network(graph: Graph, where: str, inputs: str, parts: Iterable[Any], scope: str) -> str:
    """Add a network's parts and return the name of its outputs."""
    value, forks, n_members = inputs, list[str](), 0
    for number, (kind, values, *sizes) in enumerate(parts):
        graph.scope = f"{scope}layers.{number}.{kind}"
        if kind == "members":
            n_members = len(values[0])
        if kind == "fork":
            forks.append(value)
        elif kind == "join":
            value = graph.add("Add", value, forks.pop())
        elif kind in TRANSLATIONS:
            value = TRANSLATIONS[kind](graph, value, values, (sizes[0], sizes[1]))
        else:
            raise ValueError(f"{where}: layers must have a translation to ONNX, got {kind!r}.")
    if n_members:
        graph.scope = f"{scope}mean"
        value = graph.add("ReduceMean", _by_member(graph, value, n_members, sizes[1]), axes=[1], keepdims=0)
    return value


# Layers with parameters


@translation("dense")
def _dense(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    return _product(graph, x, *values)


def _product(graph: Graph, x: str, weights: Array, biases: Array) -> str:
    """Return x·weights + biases."""
    matrix, row = graph.constant(weights, "weights"), graph.constant(biases[0], "biases")
    if graph.dtype == np.float32:
        return graph.add("Gemm", x, matrix, row)
    # Runtimes before 2025 make one operator of Gemm and an activation, and lack that one for double.
    return graph.add("Add", graph.add("MatMul", x, matrix), row)


@translation("prelu")
def _prelu(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    return graph.add("PRelu", x, graph.constant(values[0][0], "weights"))


@translation("scale")
def _scale(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    return graph.add("Mul", x, graph.constant(values[0][0], "weights"))


@translation("batch_norm")
def _batch_norm(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """(x − mean) · weights / √(variance + epsilon) + biases.

    Not BatchNormalization: runtimes make one factor and one summand of its numbers, and lose digits where the mean is
    large beside the deviation.
    """
    weights, biases, mean, variance, epsilon = values
    factors = weights[0] / np.sqrt(variance[0] + np.float64(epsilon))
    x = graph.add("Sub", x, graph.constant(mean[0], "running_mean"))
    x = graph.add("Mul", x, graph.constant(factors, "factors"))
    return graph.add("Add", x, graph.constant(biases[0], "biases"))


@translation("layer_norm")
def _layer_norm(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    weights, biases, epsilon = values
    scale, shift = graph.constant(weights[0], "weights"), graph.constant(biases[0], "biases")
    if graph.dtype == np.float32:
        return graph.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=float(epsilon))
    deviations = graph.add("Sub", x, graph.add("ReduceMean", x, axes=[1]))  # the operator's epsilon is a float32
    variance = graph.add("ReduceMean", graph.add("Mul", deviations, deviations), axes=[1])
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.number(epsilon)))
    return graph.add("Add", graph.add("Mul", graph.add("Div", deviations, deviation), scale), shift)


@translation("embedding")
def _embedding(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """Columns of numbers, then the vectors. A number that is no category is an error of the runtime: no such place."""
    weights, places = values
    numbers, columns = np.flatnonzero(places < 0), np.flatnonzero(places >= 0)
    ends = np.append(places[columns][1:], len(weights))
    codes = graph.columns(x, columns)
    counts = graph.constant((ends - places[columns]).astype(graph.dtype), "counts")
    good = graph.add("And", graph.add("GreaterOrEqual", codes, graph.number(0)), graph.add("Less", codes, counts))
    good = graph.add("And", good, graph.add("Equal", codes, graph.add("Floor", codes)))
    found = graph.add("Add", graph.cast(codes, np.int64), graph.whole(places[columns]))
    found = graph.add("Where", good, found, graph.whole(len(weights), "nowhere"))
    vectors = graph.add("Gather", graph.constant(weights, "weights"), found, axis=0)
    vectors = graph.add("Reshape", vectors, graph.whole([0, len(columns) * weights.shape[1]], "shape"))
    return graph.add("Concat", graph.columns(x, numbers), vectors, axis=1) if len(numbers) else vectors


# Layers of members: a sample has a row for each of them


@translation("members")
def _members(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """Each row once for each member, times its factors."""
    (weights,) = values
    rows = graph.add("Reshape", x, graph.whole([-1, 1, sizes[0]], "shape"))
    return _rows(graph, graph.add("Mul", rows, graph.constant(weights, "weights")), sizes[1])


@translation("member_scale")
def _member_scale(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    weights, biases = values
    scaled = graph.add("Mul", _by_member(graph, x, len(weights), sizes[0]), graph.constant(weights, "weights"))
    return _rows(graph, graph.add("Add", scaled, graph.constant(biases, "biases")), sizes[1])


@translation("member_dense")
def _member_dense(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """A stack of products: (n, members, 1, n_in) by (members, n_in, n_out)."""
    weights, biases = values
    n_members, (n_in, n_out) = len(biases), sizes
    rows = graph.add("Reshape", x, graph.whole([-1, n_members, 1, n_in], "shape"))
    products = graph.add("MatMul", rows, graph.constant(weights.reshape(n_members, n_in, n_out), "weights"))
    products = _by_member(graph, products, n_members, n_out)
    return _rows(graph, graph.add("Add", products, graph.constant(biases, "biases")), n_out)


def _by_member(graph: Graph, rows: str, n_members: int, n_columns: int) -> str:
    """Return rows as (n, members, columns)."""
    return graph.add("Reshape", rows, graph.whole([-1, n_members, n_columns], "shape"))


def _rows(graph: Graph, values: str, n_columns: int) -> str:
    """Return what is by member as rows again."""
    return graph.add("Reshape", values, graph.whole([-1, n_columns], "shape"))


# Layers with edges


@translation("piecewise_linear")
def _piecewise_linear(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    columns, offsets, edges = values
    return graph.add("Concat", x, _slopes(graph, x, columns, offsets, edges), axis=1)


@translation("thermometer")
def _thermometer(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    columns, offsets, edges = values
    return graph.add("Concat", x, _steps(graph, x, columns, offsets, edges), axis=1)


@translation("combinations")
def _combinations(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """The inputs, then a product of those that are in any sum; others may be infinite."""
    columns, offsets, factors = values
    used, rows = np.unique(columns, return_inverse=True)
    matrix = np.zeros((len(used), len(offsets) - 1), factors.dtype)
    matrix[rows, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))] = factors
    sums = graph.add("MatMul", graph.columns(x, used), graph.constant(matrix, "factors"))
    return graph.add("Concat", x, sums, axis=1)


@translation("spline")
def _spline(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """A dense layer behind the encoding of the columns that have edges."""
    weights, biases, columns, first, edges, degree = values
    offsets = first + int(degree) * np.arange(len(first), dtype=first.dtype)
    encoded = (_slopes if degree else _steps)(graph, x, columns, offsets, edges)
    wide = graph.add("Concat", x, encoded, axis=1)
    return _product(graph, wide, weights, biases)


def _slopes(graph: Graph, x: str, columns: Array, offsets: Array, edges: Array) -> str:
    """Return how far each of some columns is on its way from each of its edges to the next, from 0 to 1."""
    own = [edges[begin:end] for begin, end in itertools.pairwise(offsets.tolist())]
    low = np.concatenate([each[:-1] for each in own])
    spans = np.concatenate([each[1:] - each[:-1] for each in own])
    numbers = graph.columns(x, np.repeat(columns, [len(each) - 1 for each in own]))
    parts = graph.add("Sub", numbers, graph.constant(low, "edges"))
    parts = graph.add("Div", parts, graph.constant(spans, "spans"))
    return graph.add("Clip", parts, graph.number(0), graph.number(1))


def _steps(graph: Graph, x: str, columns: Array, offsets: Array, edges: Array) -> str:
    """Return 1 where each of some columns is above each of its edges, else 0."""
    numbers = graph.columns(x, np.repeat(columns, np.diff(offsets)))
    return graph.cast(graph.add("Greater", numbers, graph.constant(edges, "edges")), graph.dtype)


@translation("periodic")
def _periodic(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """The inputs, then for each column cos(2π·w·x + p) · W + b; a stack of matrices multiplies all columns at once."""
    weights, columns = values
    m, width = len(columns), (sizes[1] - sizes[0]) // len(columns)
    f = (weights.shape[1] - width) // (2 + width)
    frequencies, phases = weights[:, :f], weights[:, f : 2 * f] * graph.dtype.type(0.5 / math.pi)
    factors, added = weights[:, 2 * f : -width].reshape(m, f, width), weights[:, -width:]
    turns = graph.add(
        "Mul", graph.columns(x, np.repeat(columns, f)), graph.constant(frequencies.ravel(), "frequencies")
    )
    turns = graph.add("Add", turns, graph.constant(phases.ravel(), "phases"))
    turns = graph.add("Sub", turns, graph.add("Round", turns))  # whole turns cost digits
    angles = graph.add("Mul", turns, graph.number(2 * math.pi))
    waves = cosine(graph, angles, graph.dtype)
    waves = graph.add("Reshape", waves, graph.whole([0, m, 1, f], "shape"))
    sums = graph.add("MatMul", waves, graph.constant(factors, "factors"))
    sums = graph.add("Reshape", sums, graph.whole([0, m * width], "shape"))
    sums = graph.add("Add", sums, graph.constant(added.ravel(), "biases"))
    return graph.add("Concat", x, sums, axis=1)


def cosine(graph: Graph, angles: str, dtype: Any) -> str:
    """Return cosines; in double as sines of a quarter more, since runtimes before 2025 lack the cosine."""
    if np.dtype(dtype) == np.float32:
        return graph.add("Cos", angles)
    return graph.add("Sin", graph.add("Add", angles, graph.number(math.pi / 2, dtype)))


# Activations: the operator of ONNX where it computes what nnx does, in both dtypes; else a formula from operators that
# runtimes have for both.


def _operator(kind: str, name: str, **attributes: Any) -> None:
    @translation(kind)
    def write(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
        return graph.add(name, x, **attributes)


_operator("relu", "Relu")
_operator("sigmoid", "Sigmoid")
_operator("tanh", "Tanh")
_operator("softmax", "Softmax", axis=1)


@translation("linear")
def _linear(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    return x


@translation("leaky_relu")
def _leaky_relu(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    if graph.dtype == np.float32:
        return graph.add("LeakyRelu", x, alpha=float(values[0]))
    return graph.add("PRelu", x, graph.constant(np.array([values[0]], graph.dtype), "slope"))  # alpha is a float32


@translation("elu")
def _elu(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """X above 0, else alpha·(eˣ − 1)."""
    below = graph.add("Mul", _expm1_below(graph, x), graph.number(values[0]))
    return graph.add("Add", graph.add("Relu", x), below)


@translation("selu")
def _selu(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    above = graph.add("Mul", graph.add("Relu", x), graph.number(SELU_SCALE))
    return graph.add("Add", above, graph.add("Mul", _expm1_below(graph, x), graph.number(SELU_SCALE * SELU_ALPHA)))


def _expm1_below(graph: Graph, x: str) -> str:
    """Return eˣ − 1 where x is below 0, else 0: 2t / (1 − t) with t = tanh(x/2), which loses no digits near 0."""
    half = graph.add("Mul", graph.add("Min", x, graph.number(0)), graph.number(0.5))
    t = graph.add("Tanh", half)
    return graph.add("Div", graph.add("Add", t, t), graph.add("Sub", graph.number(1), t))


@translation("gelu")
def _gelu(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """x·Φ(x), or with the sigmoid of a polynomial in place of Φ."""
    if values[0]:
        x = _kept_above(graph, x, -22)  # where the gate is 0
        cube = graph.add("Mul", graph.add("Mul", x, x), x)
        inner = graph.add("Add", x, graph.add("Mul", cube, graph.number(0.044715)))
        return graph.add("Mul", x, _logistic(graph, graph.add("Mul", inner, graph.number(2 * math.sqrt(2 / math.pi)))))
    if graph.dtype == np.float64:
        return _exact_gelu(graph, x)
    error = graph.add("Erf", graph.add("Mul", x, graph.number(math.sqrt(0.5))))
    gate = graph.add("Mul", graph.add("Add", error, graph.number(1)), graph.number(0.5))
    return graph.add("Mul", x, gate)


def _exact_gelu(graph: Graph, x: str) -> str:
    """x·Φ(x) in double, for which runtimes have no Erf: erfc(z) = t·exp(P(t) − z²) with t = 2 / (2 + z), z ≥ 0."""
    x = _kept_above(graph, x, -38)
    z = graph.add("Mul", graph.add("Abs", x), graph.number(math.sqrt(0.5)))
    t = graph.add("Div", graph.number(2), graph.add("Add", z, graph.number(2)))
    place = graph.add("Sub", graph.add("Add", t, t), graph.number(1))
    sum_ = graph.number(_erfc_polynomial()[-1])
    for coefficient in reversed(_erfc_polynomial()[:-1]):
        sum_ = graph.add("Add", graph.add("Mul", sum_, place), graph.number(coefficient))
    power = graph.add("Exp", graph.add("Sub", sum_, graph.add("Mul", z, z)))
    tail = graph.add("Mul", graph.add("Mul", t, power), graph.number(0.5))
    negative = graph.add("Less", x, graph.number(0))
    return graph.add("Mul", x, graph.add("Where", negative, tail, graph.add("Sub", graph.number(1), tail)))


@functools.cache
def _erfc_polynomial() -> tuple[float, ...]:
    """Return the coefficients of P, the lowest first, in 2t − 1, which lies within −1 and 1."""

    def logarithm(place: Array) -> Array:
        found = []
        for t in ((place + 1) / 2).tolist():
            z = 2 / t - 2
            if z < 20:
                found.append(math.log(math.erfc(z)) + z * z - math.log(t))
            else:  # the asymptotic series: erfc underflows
                u = 0.5 / (z * z)
                found.append(
                    math.log1p(-u * (1 - 3 * u * (1 - 5 * u * (1 - 7 * u)))) - math.log(z * t * math.sqrt(math.pi))
                )
        return np.array(found, np.float64)

    # The interpolation at Chebyshev's points, by sums: `nnfs.init` lets `np.dot` multiply in float32.
    n = 31
    angles = (np.arange(n) + 0.5) * (math.pi / n)
    values = logarithm(np.cos(angles))
    found = np.array([2 / n * (values * np.cos(degree * angles)).sum() for degree in range(n)], np.float64)
    found[0] /= 2
    chebyshev: Any = np.polynomial.chebyshev
    return tuple(chebyshev.cheb2poly(found).tolist())


@translation("silu")
def _silu(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    x = _kept_above(graph, x, LOWEST)
    return graph.add("Mul", x, _logistic(graph, x))


@translation("mish")
def _mish(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """x·n / (n + m): with t = exp(−|x|), n = t² + 2t and m = 2 below 0, else n = 1 + 2t and m = 2t²."""
    x = _kept_above(graph, x, LOWEST)
    t, negative = _decay(graph, x), graph.add("Less", x, graph.number(0))
    square = graph.add("Mul", t, t)
    n = graph.add("Add", graph.add("Add", t, t), graph.add("Where", negative, square, graph.number(1)))
    m = graph.add("Where", negative, graph.number(2), graph.add("Add", square, square))
    return graph.add("Mul", x, graph.add("Div", n, graph.add("Add", n, m)))


@translation("softplus")
def _softplus(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    """max(x, 0) + log(1 + t) with t = exp(−|x|); log(1 + t) = log(u)·t / (u − 1), u = 1 + t, keeps the digits of t."""
    t = _decay(graph, x)
    u = graph.add("Add", t, graph.number(1))
    above = graph.add("Sub", u, graph.number(1))
    nothing = graph.add("Equal", above, graph.number(0))
    divisor = graph.add("Where", nothing, graph.number(1), above)
    logarithm = graph.add("Div", graph.add("Mul", graph.add("Log", u), t), divisor)
    return graph.add("Add", graph.add("Relu", x), graph.add("Where", nothing, t, logarithm))


@translation("hard_sigmoid")
def _hard_sigmoid(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    clipped = graph.add("Clip", graph.add("Add", x, graph.number(3)), graph.number(0), graph.number(6))
    return graph.add("Mul", clipped, graph.number(1 / 6))


@translation("hard_swish")
def _hard_swish(graph: Graph, x: str, values: tuple[Any, ...], sizes: Sizes) -> str:
    x = _kept_above(graph, x, -3)
    return graph.add("Mul", x, _hard_sigmoid(graph, x, (), sizes))


def _kept_above(graph: Graph, x: str, low: float) -> str:
    """Return x, but nothing below a number from which on a gate is 0: infinity · 0 would be NaN."""
    return graph.add("Max", x, graph.number(low))


def _decay(graph: Graph, x: str) -> str:
    return graph.add("Exp", graph.add("Neg", graph.add("Abs", x)))


def _logistic(graph: Graph, x: str) -> str:
    """Return 1 / (1 + exp(−x)) exactly: the operator Sigmoid of some runtimes ends at 1e-8."""
    decay, negative = _decay(graph, x), graph.add("Less", x, graph.number(0))
    above = graph.add("Where", negative, decay, graph.number(1))
    return graph.add("Div", above, graph.add("Add", decay, graph.number(1)))
