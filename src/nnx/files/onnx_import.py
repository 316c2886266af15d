"""Networks of dense layers from ONNX files of other programs. Nothing in a file is run, and no other file is opened.

Each node is read once, in its order. A value is a constant, a point in a chain of layers, or a function of the numbers
at such a point, until it turns out which activation that is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from nnx._base import files
from nnx._base.text import near
from nnx._base.typing import Array, FloatDType
from nnx.activations import Activation_Linear, Activation_PReLU, Activation_Sigmoid, Activation_Softmax
from nnx.files import foreign_layers, onnx_formulas
from nnx.files.onnx_formulas import GRID
from nnx.files.onnx_graph import MAX_BYTES, ML, onnx_package
from nnx.layers import Layer_Residual

#: What constants may hold, by ONNX's numbers for types: NumPy's dtype, and the field for numbers that are not raw.
TYPES = {
    1: ("<f4", "float_data"),
    11: ("<f8", "double_data"),
    10: ("<f2", "int32_data"),
    7: ("<i8", "int64_data"),
    6: ("<i4", "int32_data"),
    9: ("?", "int32_data"),
}
FLOATS = (1, 10, 11)
#: The attributes that are read, with ONNX's numbers for the types that they may have, and the fields of these.
WHOLE, NUMBER = {2: "i"}, {1: "f", 2: "i"}
WHOLES, NUMBERS = {7: "ints"}, {6: "floats", 7: "ints"}
ATTRIBUTES: dict[str, dict[int, str]] = {
    **dict.fromkeys(("alpha", "beta", "gamma", "epsilon", "momentum", "max", "min", "value_float"), NUMBER),
    **dict.fromkeys(("axis", "to", "transA", "transB", "training_mode", "value_int"), WHOLE),
    **dict.fromkeys(("offset", "scale", "value_floats"), NUMBERS),
    **dict.fromkeys(("perm", "value_ints"), WHOLES),
    "approximate": {3: "s"},
    "value": {4: "t"},
}
MAX_NODES = 10_000
MAX_DIMENSIONS = 8
#: So many times the file's size may all parameters take: float16 becomes float32, and one number stands for a column.
MOST_GROWTH, ALWAYS_ALLOWED = 16, 1 << 20


class Chain:
    """A point in a chain of layers: all that lead to it, and how many columns there are.

    Attributes
    ----------
    before : Chain or None
        The point before the last layer; None at the network's inputs.
    layer : Layer or None
    width : int or None
        None where the file does not say.
    """

    def __init__(self, before: Chain | None, layer: Layer | None, width: int | None) -> None:
        self.before, self.layer, self.width = before, layer, width
        self.depth: int = 0 if before is None else before.depth + 1

    def then(self, layer: Layer, width: int | None = None) -> Chain:
        """Return the point behind one more layer."""
        return Chain(self, layer, self.width if width is None else width)

    def must_have(self, width: int) -> None:
        """Learn how many columns there are, or refuse another number of them."""
        if self.width not in (None, width):
            raise _NotDense
        self.width = width

    def since(self, other: Chain) -> list[Layer] | None:
        """Return the layers between another point and this one; None if that does not lead here."""
        found: list[Layer] = []
        point: Chain | None = self
        while point is not None and point.depth > other.depth:
            if point.layer is not None:
                found.append(point.layer)
            point = point.before
        return found[::-1] if point is other else None


class Layer:
    """What is known of a layer: how it is made, of how many numbers, and the arrays that it is made of."""

    def __init__(self, kind: str, numbers: int, make: Callable[[FloatDType], Any], **arrays: Any) -> None:
        self.kind, self.numbers, self.make, self.arrays = kind, numbers, make, arrays


class Formula:
    """A function of the numbers at a point, tabulated.

    Attributes
    ----------
    base : Chain
    values : array of the grid's shape
    operator : str
        That made it.
    parts : list of Chain and Formula
        What it was made of, beside numbers.
    own : array or None
        The last operator as a function of its only part.
    """

    def __init__(
        self, base: Chain, values: Array, operator: str, parts: Sequence[Chain | Formula], own: Array | None
    ) -> None:
        self.base, self.values, self.operator, self.parts, self.own = base, values, operator, list(parts), own
        #: The point that it has turned out to be: always the same one, so that blocks know where they begin.
        self.point: Chain | None = None


Value = Any  # Chain, Formula, or an array


class _NotDense(Exception):  # noqa: N818 - the reader makes an error of it
    """An operator that does not belong to a dense network; ``name`` if it is another one than was read."""

    def __init__(self, name: str = "") -> None:
        self.name = name


def load(where: str, path: str, output: str | None) -> list[Any]:
    """Return the layers of the network in a file.

    Raises
    ------
    ImportError
        Without the package onnx.
    ModelFileError
        If the file is damaged, or holds something else than a dense network.
    """
    onnx = onnx_package(where)
    size = os.path.getsize(path)
    if size > MAX_BYTES:
        files.refuse(where, path, "is larger than 2 GB, which an ONNX file cannot be")
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES)
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        files.refuse(where, path, "is not an ONNX file, or is damaged")
    del content
    try:
        with np.errstate(all="ignore"):  # a file may hold any numbers
            return _Reader(onnx, where, path, model.graph, size).layers(output)
    except RecursionError:
        files.refuse(where, path, "nests its operators too deeply")


class _Reader:
    """Reads one graph."""

    def __init__(self, onnx: Any, where: str, path: str, graph: Any, size: int) -> None:
        self.onnx, self.where, self.path, self.graph = onnx, where, path, graph
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.values: dict[str, Value] = {}
        #: Bytes that constants which are computed may still take.
        self.left = MOST_GROWTH * size + ALWAYS_ALLOWED
        self.limit = self.left
        self.is_double = False
        self.node: Any = None

    def refuse(self, reason: str, advice: str = "") -> NoReturn:
        files.refuse(self.where, self.path, reason, advice)

    def refuse_node(self, node: Any, operator: str = "") -> NoReturn:
        domain = f" of {node.domain}" if node.domain not in ("", "ai.onnx") else ""
        name = f" ({node.name!r})" if node.name else ""
        self.refuse(f"holds the operator {operator or node.op_type}{domain}{name}, which dense networks do not use")

    # The whole graph

    def layers(self, output: str | None) -> list[Any]:
        """Return the layers that lead to an output."""
        if not self.graph.output:
            self.refuse("is not an ONNX file, or holds no graph")
        if len(self.graph.node) > MAX_NODES:
            self.refuse(f"holds {len(self.graph.node):,} operators, more than {MAX_NODES:,}")
        name = self._chosen_output(output)
        nodes = self._needed(name)
        self._begin(nodes)
        for node in nodes:
            self.node = node
            try:
                self.values[self._result(node)] = self._read(node)
            except _NotDense as found:
                self.refuse_node(node, found.name)
        try:
            point = self.point(self._value(name))
        except _NotDense as found:
            self.refuse_node(nodes[-1] if nodes else self.node, found.name)
        return self._made(point)

    def _chosen_output(self, name: str | None) -> str:
        """Return the output that is asked for, or the only one of numbers."""
        known = [str(each.name) for each in self.graph.output]
        if name is not None:
            if name not in known:
                self.refuse(
                    f"has no output {name!r}; its outputs are {', '.join(map(repr, known[:10]))}", near(known, name)
                )
            return name
        numbers = [each for each in self.graph.output if not self._holds_others(each)]
        if len(numbers) != 1:
            self.refuse(
                f"must have one output of numbers, got {len(numbers)}; its outputs are "
                f"{', '.join(map(repr, known[:10]))}. Choose one: output=..."
            )
        return str(numbers[0].name)

    def _holds_others(self, declared: Any) -> bool:
        """Return whether a declared value is known to be no tensor of floats, nor a map from classes to such."""
        kind = declared.type.WhichOneof("value")
        return kind == "tensor_type" and declared.type.tensor_type.elem_type not in (0, *FLOATS)

    def _needed(self, output: str) -> list[Any]:
        """Return the nodes that an output depends on, in their order."""
        makers: dict[str, int] = {}
        for number, node in enumerate(self.graph.node):
            for name in node.output:
                if name and makers.setdefault(name, number) != number:
                    self.refuse(f"is damaged: two operators make {name!r}")
        found, left = set[int](), [output]
        while left:
            number = makers.get(left.pop(), -1)
            if number >= 0 and number not in found:
                found.add(number)
                left += self.graph.node[number].input
        return [self.graph.node[number] for number in sorted(found)]

    def _begin(self, nodes: Sequence[Any]) -> None:
        """Find the network's input among those that the nodes read."""
        read = {name for node in nodes for name in node.input}
        inputs = [each for each in self.graph.input if each.name in read and each.name not in self.tensors]
        if len(inputs) != 1:
            names = ", ".join(repr(each.name) for each in inputs[:10])
            self.refuse(f"must have one input, a matrix, got {len(inputs)}{': ' if names else ''}{names}")
        sizes = [int(each.dim_value) for each in inputs[0].type.tensor_type.shape.dim]
        self.is_double = inputs[0].type.tensor_type.elem_type == 11
        width = sizes[1] if len(sizes) == 2 and 0 < sizes[1] < 1 << 31 else None
        self.values[inputs[0].name] = Chain(None, None, width)
        #: What a flattened sample has, of an input with more dimensions; None for a matrix.
        self.flat = math.prod(sizes[1:]) if len(sizes) > 2 else None

    def _result(self, node: Any) -> str:
        if not node.output:
            self.refuse_node(node)
        return str(node.output[0])

    def _made(self, point: Chain) -> list[Any]:
        """Return the layers that lead to a point, once all sizes are known to be those of a file like this one."""
        start = point
        while start.before is not None:
            start = start.before
        chosen = [layer for layer in point.since(start) or [] if layer.kind != "nothing"]
        if self.flat is not None and not (chosen and chosen[0].kind == "flatten"):
            self.refuse("must take a matrix, with a row for each sample, or flatten its samples first")
        if not any(layer.kind == "dense" for layer in chosen):
            self.refuse("holds no dense layer")
        dtype: FloatDType = np.dtype(np.float64 if self.is_double else np.float32)
        if sum(layer.numbers for layer in chosen) * dtype.itemsize > self.limit:
            self.refuse("is damaged: its network would be far larger than the file")
        return [made for made in (layer.make(dtype) for layer in chosen) if made is not None]

    # Values

    def _value(self, name: str) -> Value:
        """Return a value by its name: one that has been made, or a constant."""
        if name not in self.values:
            if name not in self.tensors:
                self.refuse(f"is damaged: nothing makes {name!r} before it is read")
            self.values[name] = self.array(self.tensors[name])
        return self.values[name]

    def array(self, tensor: Any) -> Array:
        """Return a constant's numbers; a shape that does not fit their count is refused first."""
        if tensor.data_location == 1 or tensor.external_data:
            self.refuse("keeps numbers in another file, which nnx does not open. Save it with all its data in one file")
        if tensor.data_type not in TYPES:
            self.refuse(f"holds a constant of a type that nnx does not read, {tensor.name!r}")
        code, field = TYPES[tensor.data_type]
        dtype, shape = np.dtype(code), tuple(tensor.dims)
        count = len(tensor.raw_data) // dtype.itemsize if tensor.raw_data else len(getattr(tensor, field))
        is_whole = not tensor.raw_data or len(tensor.raw_data) % dtype.itemsize == 0
        if min(shape, default=0) < 0 or len(shape) > MAX_DIMENSIONS or math.prod(shape) != count or not is_whole:
            self.refuse(f"is damaged: the constant {tensor.name!r} does not hold as many numbers as its shape says")
        if tensor.raw_data:
            return np.frombuffer(tensor.raw_data, dtype).reshape(shape)
        numbers: Any = getattr(tensor, field)
        if tensor.data_type == 10:
            return np.array(numbers, np.int64).astype("<u2").view("<f2").reshape(shape)
        try:
            return np.array(numbers, np.int64 if dtype.kind == "b" else dtype).astype(dtype).reshape(shape)
        except OverflowError:
            self.refuse(f"is damaged: the constant {tensor.name!r} holds numbers that its type does not")

    def attributes(self, node: Any) -> dict[str, Any]:
        """Return those of a node's attributes that are read here, each of the type that it must have."""
        found: dict[str, Any] = {}
        for each in node.attribute:
            fields = ATTRIBUTES.get(each.name)
            if fields is None:
                continue
            if each.type not in fields:
                raise _NotDense
            value = getattr(each, fields[each.type])
            found[each.name] = value if each.type < 5 else [*value]
        return found

    def point(self, value: Value) -> Chain:
        """Return the point that a value is; a function is made into layers, or is not that of a dense network."""
        if isinstance(value, Chain):
            return value
        if not isinstance(value, Formula):
            raise _NotDense
        if value.point is None:
            value.point = self._resolved(value)
        return value.point

    def _resolved(self, value: Formula) -> Chain:
        """Return the point behind the layers that a function is."""
        open_ones: list[Formula] = []
        found: Chain | None = None
        while found is None:
            found = self._recognized(value.base, value.values, value.operator)
            if found is not None:
                break
            if value.operator == "Add" and len(value.parts) == 2:
                found = self._added(*value.parts)
                break
            if value.own is None:
                raise _NotDense(value.operator)
            open_ones.append(value)
            (part,) = value.parts
            if isinstance(part, Chain):
                raise _NotDense(value.operator)
            found, value = part.point, part
        for formula in reversed(open_ones):
            own = self._recognized(found, formula.own, formula.operator)
            if own is None:
                raise _NotDense(formula.operator)
            found = own
        return found

    def _recognized(self, base: Chain, values: Any, operator: str) -> Chain | None:
        """Return the point behind the layer that a tabulated function is."""
        straight = onnx_formulas.line(values)
        if straight is not None:
            slope, height = straight
            if straight == (1, 0):
                return base
            return self.affine(base, np.zeros(()), np.array(slope), np.array(height))
        layer = onnx_formulas.activation(values)
        return None if layer is None else base.then(_activation(layer))

    def _added(self, one: Chain | Formula, other: Chain | Formula) -> Chain:
        """Return the point behind a residual: one of two points leads to the other."""
        points = [self.point(one), self.point(other)]
        for first, last in (points, points[::-1]):
            inside = last.since(first)
            if inside and first.width == last.width and not any(each.kind == "flatten" for each in inside):
                return first.then(_residual(inside))
        raise _NotDense("Add")

    # Nodes

    def _read(self, node: Any) -> Value:
        """Return what a node makes."""
        values = [self._value(name) if name else None for name in node.input]
        attributes = self.attributes(node)
        known = READERS.get((node.domain if node.domain != "ai.onnx" else "", node.op_type))
        if known is not None and (values or node.op_type == "Constant"):
            return known(self, values, attributes)
        if node.domain not in ("", "ai.onnx") or node.op_type not in onnx_formulas.OPERATORS:
            raise _NotDense
        if len(node.output) != 1:
            raise _NotDense
        return self._formula(node.op_type, values, attributes)

    def _formula(self, operator: str, values: list[Value], attributes: Mapping[str, Any]) -> Value:
        """Return what an operator makes that computes number by number."""
        flows = [value for value in values if isinstance(value, Chain | Formula)]
        if not flows:
            return self._constant(operator, values, attributes)
        if any(isinstance(value, np.ndarray) and value.size != 1 for value in values):
            return self._by_column(operator, values)
        bases = {id(_base(value)): _base(value) for value in flows}
        if len(bases) > 1:
            if operator == "Add":
                return self._added(flows[0], flows[1])
            raise _NotDense
        (base,) = bases.values()
        table = [_table(value, None) for value in values]
        found = onnx_formulas.computed(operator, table, attributes)
        if found is None or found.shape != GRID.shape:
            raise _NotDense
        own = onnx_formulas.computed(operator, [_table(value, GRID) for value in values], attributes)
        return Formula(base, found, operator, flows, own if len(flows) == 1 else None)

    def _constant(self, operator: str, values: list[Value], attributes: Mapping[str, Any]) -> Array:
        """Return what an operator makes of constants: arrays of one shape, and numbers."""
        shapes = {value.shape for value in values if isinstance(value, np.ndarray) and value.size != 1}
        if len(shapes) > 1:
            raise _NotDense
        self._spend(max((value.size for value in values if isinstance(value, np.ndarray)), default=0))
        found = onnx_formulas.computed(operator, values, attributes)
        if found is None:
            raise _NotDense
        return found

    def _spend(self, n_numbers: int) -> None:
        self.left -= 8 * n_numbers
        if self.left < 0:
            self.refuse("is damaged: its constants would be far larger than the file")

    def _by_column(self, operator: str, values: list[Value]) -> Chain:
        """Return the point behind an addition or a product with a number for each column."""
        if len(values) != 2 or operator not in ("Add", "Sub", "Mul", "Div"):
            raise _NotDense
        flow_first = isinstance(values[0], Chain | Formula)
        flow, numbers = values if flow_first else values[::-1]
        point = self.point(flow)
        vector = _vector(numbers)
        point.must_have(vector.size)
        zero, one = np.zeros(()), np.ones(())
        if operator == "Add":
            return self.affine(point, zero, one, vector)
        if operator == "Sub":
            return self.affine(point, vector, one, zero) if flow_first else self.affine(point, vector, -one, zero)
        if operator == "Mul":
            return self.affine(point, zero, vector, zero)
        if not flow_first:
            raise _NotDense
        with np.errstate(all="ignore"):
            return self.affine(point, zero, 1 / vector.astype(np.float64), zero)

    def affine(self, point: Chain, center: Array, scale: Array, shift: Array) -> Chain:
        """Return the point behind (x − center) · scale + shift, joined with what is before it."""
        if point.width is None:
            self.refuse("must say how many columns its input has")
        before = point.layer
        center, scale, shift = (np.asarray(each, np.float64).reshape(-1) for each in (center, scale, shift))
        moves_only = not center.any() and (scale == 1).all()
        if before is not None and before.kind == "dense" and moves_only and point.before is not None:
            weights, biases = before.arrays["weights"], before.arrays["biases"] + shift
            return point.before.then(_dense(weights, biases), point.width)
        if before is not None and before.kind == "affine" and not center.any() and point.before is not None:
            old = before.arrays
            return point.before.then(
                _affine(old["center"], old["scale"] * scale, old["shift"] * scale + shift, point.width), point.width
            )
        return point.then(_affine(center, scale, shift, point.width))

    def matrix(self, value: Value) -> Array:
        """Return a constant that is a matrix of numbers."""
        if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind != "f" or 0 in value.shape:
            raise _NotDense
        self.is_double = self.is_double or value.dtype.itemsize == 8
        return value

    def vectors(self, point: Chain, values: Sequence[Value]) -> list[Array]:
        """Return constants that hold a number for each column."""
        found = [_vector(value) for value in values]
        for each in found:
            point.must_have(each.size)
        return found

    def dense(self, value: Value, weights: Array, biases: Array) -> Chain:
        """Return the point behind a dense layer."""
        point = self.point(value)
        point.must_have(len(weights))
        if biases.size not in (1, weights.shape[1]):
            raise _NotDense
        return point.then(_dense(weights, biases), weights.shape[1])


def _base(value: Chain | Formula) -> Chain:
    return value if isinstance(value, Chain) else value.base


def _table(value: Value, instead: Array | None) -> Any:
    """Return the table of a value, or another one in place of it; numbers as they are."""
    if isinstance(value, Chain | Formula) and instead is not None:
        return instead
    if isinstance(value, Chain):
        return GRID
    if isinstance(value, Formula):
        return value.values
    return None if value is None else value.reshape(())


def _vector(value: Value) -> Array:
    """Return a constant along the columns alone."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fi" or value.size not in (1, *value.shape[-1:]):
        raise _NotDense
    return value.reshape(-1)


# Layers


def _dense(weights: Array, biases: Array) -> Layer:
    def make(dtype: FloatDType) -> Any:
        return foreign_layers.dense(weights, np.broadcast_to(biases.reshape(-1), weights.shape[1:]), dtype)

    return Layer("dense", weights.size + weights.shape[1], make, weights=weights, biases=biases)


def _affine(center: Array, scale: Array, shift: Array, width: int) -> Layer:
    def make(dtype: FloatDType) -> Any:
        arrays = [np.broadcast_to(each, (width,)) for each in (center, scale, shift)]
        return foreign_layers.affine(arrays[0], arrays[1], arrays[2], dtype)

    return Layer("affine", 4 * width, make, center=center, scale=scale, shift=shift)


def _activation(layer: Any) -> Layer:
    if isinstance(layer, Activation_Linear):
        return Layer("nothing", 0, lambda dtype: None)
    kind = "sigmoid" if isinstance(layer, Activation_Sigmoid) else "activation"
    return Layer(kind, 0, lambda dtype: type(layer)(**layer.get_config()))


def _residual(inside: list[Layer]) -> Layer:
    def make(dtype: FloatDType) -> Any:
        return Layer_Residual([made for made in (layer.make(dtype) for layer in inside) if made is not None])

    return Layer("residual", sum(layer.numbers for layer in inside), make)


# Operators that are layers, or leave the numbers as they are

Reader = Callable[[_Reader, list[Value], Mapping[str, Any]], Value]
READERS: dict[tuple[str, str], Reader] = {}


def _reads(*names: str, domain: str = "") -> Callable[[Reader], Reader]:
    def enter(function: Reader) -> Reader:
        READERS.update({(domain, name): function for name in names})
        return function

    return enter


@_reads("Gemm")
def _gemm(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    if len(values) not in (2, 3) or attributes.get("transA", 0):
        raise _NotDense
    weights = reader.matrix(values[1])
    weights = weights.T if attributes.get("transB", 0) else weights
    biases = _vector(values[2]) if len(values) == 3 and values[2] is not None else np.zeros(1)
    alpha, beta = attributes.get("alpha", 1.0), attributes.get("beta", 1.0)
    if alpha != 1:
        reader._spend(weights.size)
        weights = weights * np.float64(alpha)
    return reader.dense(values[0], weights, biases.astype(np.float64) * beta)


@_reads("MatMul")
def _matmul(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    if len(values) != 2:
        raise _NotDense
    return reader.dense(values[0], reader.matrix(values[1]), np.zeros(1))


@_reads("BatchNormalization")
def _batch_normalization(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    if len(values) != 5 or attributes.get("training_mode", 0):
        raise _NotDense
    point = reader.point(values[0])
    arrays = reader.vectors(point, values[1:])
    epsilon, momentum = _short(attributes.get("epsilon", 1e-5)), _short(attributes.get("momentum", 0.9))
    if not 0 < epsilon < math.inf or not 0 <= momentum <= 1:
        raise _NotDense

    def make(dtype: FloatDType) -> Any:
        weights, biases, mean, variance = arrays
        return foreign_layers.batch_norm(weights, biases, mean, variance, epsilon, momentum, dtype)

    return point.then(Layer("batch_norm", 4 * arrays[0].size, make))


@_reads("LayerNormalization")
def _layer_normalization(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    if len(values) not in (2, 3) or attributes.get("axis", -1) not in (-1, 1):
        raise _NotDense
    point = reader.point(values[0])
    given = [value for value in values[1:] if value is not None]
    weights, *rest = reader.vectors(point, given)
    epsilon = _short(attributes.get("epsilon", 1e-5))
    if not 0 < epsilon < math.inf:
        raise _NotDense

    def make(dtype: FloatDType) -> Any:
        biases = rest[0] if rest else np.zeros(weights.size)
        return foreign_layers.layer_norm(weights, biases, epsilon, dtype)

    return point.then(Layer("layer_norm", 2 * weights.size, make))


@_reads("PRelu")
def _prelu(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    if len(values) != 2:
        raise _NotDense
    point = reader.point(values[0])
    slopes = _vector(values[1])
    if slopes.size != 1:
        point.must_have(slopes.size)

    def make(dtype: FloatDType) -> Any:
        layer = Activation_PReLU(slopes.size, dtype=dtype.name)
        layer.weights = np.array(slopes.reshape(1, -1), dtype)
        return layer

    return point.then(Layer("prelu", slopes.size, make))


@_reads("Softmax")
def _softmax(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    if len(values) != 1 or attributes.get("axis", -1) not in (-1, 1):
        raise _NotDense
    return reader.point(values[0]).then(_activation(Activation_Softmax()))


@_reads("Scaler", domain=ML)
def _scaler(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    point = reader.point(values[0]) if values else None
    arrays = [np.array(attributes.get(name, [given]), np.float64) for name, given in (("offset", 0.0), ("scale", 1.0))]
    if point is None:
        raise _NotDense
    for each in arrays:
        if each.size != 1:
            point.must_have(each.size)
    return reader.affine(point, arrays[0], arrays[1], np.zeros(1))


@_reads("Concat")
def _concat(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    """1 − p and p side by side, p a sigmoid of one output: the softmax of 0 and that output."""
    if len(values) != 2 or attributes.get("axis") not in (-1, 1) or not all(isinstance(v, Formula) for v in values):
        raise _NotDense
    rest, p = values
    point = reader.point(p)
    before = point.before
    is_sigmoid = point.layer is not None and point.layer.kind == "sigmoid" and rest.base is p.base
    if not is_sigmoid or not np.allclose(rest.values, 1 - p.values, 0, 1e-6):
        raise _NotDense
    last = before.layer if before is not None else None
    if before is None or last is None or last.kind != "dense" or before.width != 1 or before.before is None:
        raise _NotDense
    weights = np.concatenate([np.zeros_like(last.arrays["weights"]), last.arrays["weights"]], axis=1)
    reader._spend(weights.size)
    biases = np.append(0.0, last.arrays["biases"].reshape(-1))
    return before.before.then(_dense(weights, biases), 2).then(_activation(Activation_Softmax()))


@_reads("Identity", "Dropout")
@_reads("ZipMap", domain=ML)
def _same(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    """Return what does not change: dropout does nothing outside of training, and ZipMap only names columns."""
    if not values or values[0] is None:
        raise _NotDense
    return values[0]


@_reads("Cast")
def _cast(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    to = attributes.get("to")
    if isinstance(values[0], np.ndarray) and to in TYPES:
        reader._spend(values[0].size)
        with np.errstate(all="ignore"):
            return values[0].astype(TYPES[to][0])
    if to not in FLOATS:
        raise _NotDense
    return values[0]


@_reads("Constant")
def _constant(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    if "value" in attributes:
        return reader.array(attributes["value"])
    for name, dtype in (("value_float", "f4"), ("value_int", "i8"), ("value_floats", "f4"), ("value_ints", "i8")):
        if name in attributes:
            return np.array(attributes[name], dtype)
    raise _NotDense


@_reads("Flatten")
def _flatten(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    if attributes.get("axis", 1) != 1 or not values:
        raise _NotDense
    return _flat(reader, reader.point(values[0]))


@_reads("Reshape")
def _reshape(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    """A shape that leaves rows as they are, or makes rows of samples."""
    if len(values) != 2 or not isinstance(values[1], np.ndarray) or values[1].size > MAX_DIMENSIONS:
        raise _NotDense
    shape = values[1].reshape(-1).tolist()
    if isinstance(values[0], np.ndarray):
        sizes = [values[0].shape[i] if size == 0 and i < values[0].ndim else size for i, size in enumerate(shape)]
        try:
            return values[0].reshape(sizes)
        except (TypeError, ValueError):
            raise _NotDense from None
    point = _flat(reader, reader.point(values[0]))
    if len(shape) != 2 or shape[0] not in (-1, 0) or shape[1] not in (-1, point.width) or shape == [-1, -1]:
        raise _NotDense
    return point


def _flat(reader: _Reader, point: Chain) -> Chain:
    """Return samples as rows."""
    if reader.flat is None or point.before is not None:
        return point
    if not 0 < reader.flat < 1 << 31:
        reader.refuse("must say how large its samples are")
    return point.then(Layer("flatten", 0, lambda dtype: None), reader.flat)


@_reads("Transpose")
def _transpose(reader: _Reader, values: list[Value], attributes: Mapping[str, Any]) -> Value:
    if not values or not isinstance(values[0], np.ndarray) or values[0].ndim != 2:
        raise _NotDense
    if list(attributes.get("perm", [1, 0])) != [1, 0]:
        raise _NotDense
    return values[0].T


def _short(value: float) -> float:
    """Return a number that stands in a file as a float32 as a person would have written it."""
    return onnx_formulas.shortest(float(value))
