"""`Layer_Spline`: a dense layer that also sees piecewise functions of single columns. The kernels are in
`_kernels/_numpy/splines.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nnx import _kernels, initializers
from nnx._base import check, config
from nnx._base.describe import with_few_edges
from nnx._base.parameters import WithBiases
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike, DTypeLike, FloatDType
from nnx._base.vocabulary import built_in
from nnx._base.widths import Widths
from nnx.embedding import MAX_PLACE, checked_columns
from nnx.initializers import Initializer

__all__ = ["Layer_Spline"]

Edges = tuple[tuple[float, ...], ...]


class Layout(NamedTuple):
    """The columns and their edges, as kernels take them."""

    #: The columns; int32.
    columns: Array
    #: Where the weights of each column begin, after those of the dense part. The last entry is the number of all
    #: weights; int32.
    first: Array
    #: The edges of all columns, in the dtype of the parameters.
    edges: Array
    degree: int


class Known(NamedTuple):
    """The latest layout, and what it was made from."""

    edges: Edges
    #: Columns, number of inputs, degree.
    of: tuple[tuple[int, ...], int, int]
    layout: Layout


@built_in("layer")
class Layer_Spline(WithBiases):
    """A dense layer whose neurons also see piecewise functions of single columns.

    In a dense layer, each input contributes a straight line to a neuron's sum. Here it contributes a curve that bends,
    or steps, at given edges, with a weight for each piece. A network can therefore learn from tables of numbers what
    decision trees learn from them.

    ``output = inputs · w + biases + Σ over columns of Σ over pieces of piece(x) · its weights``, where a piece between
    the edges a and b is ``clip((x − a) / (b − a), 0, 1)`` for degree 1. For degree 0, it is 1 where x > a, else 0.

    Parameters
    ----------
    n_inputs, n_neurons : int
        Columns of the inputs and of the output.
    columns : sequence of int
        The inputs that have edges, counted from 0, in increasing order.
    edges : sequence of sequences of float
        The edges of each of these columns, in increasing order: at least one for degree 0, at least two for degree 1.
    degree : 1 or 0
        1 for functions of straight lines, 0 for functions of steps.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.
    weight_initializer, bias_initializer : str, number or function, optional
        As those of `Layer_Dense`; fan_in is the number of rows of ``weights``.

    Attributes
    ----------
    columns, edges : tuples
        As given, the edges as tuples of floats.
    weights : array (n_inputs + pieces, n_neurons)
        First the weights of the inputs, then those of the first column's pieces, of the second's, and so on. Trained in
        place. If you assign an array of another dtype or layout, the layer casts it at its next use.
    biases : array (1, n_neurons)
    weight_averages, bias_averages : arrays of the shapes of weights and biases
        As those of `Layer_Dense`.
    inputs, output : arrays (n, n_inputs) and (n, n_neurons)
        After ``forward``.
    dweights, dbiases, dinputs : arrays of the shapes of weights, biases and inputs
        After ``backward``. Steps have no slope. Outside its edges, a function has no slope either.

    Raises
    ------
    TypeError, ValueError
        For sizes below 1, columns that do not exist or are not in order, edges that are not increasing finite numbers,
        another degree, other dtypes, and unknown initializers.

    Notes
    -----
    With degree 1 this is a dense layer after the piecewise linear encoding of Gorishniy, Rubachev and Babenko, On
    embeddings for numerical features in tabular deep learning (2022), arXiv:2203.05556, beside the numbers themselves.
    With degree 0, the encoding is the thermometer encoding of Buckman and others (2018). The layer never stores the
    encoding: a row reads two lines of weights for each column, however many pieces the column has.

    A NaN in a column counts as below all edges. Its dense part is still NaN.

    Examples
    --------
    A curve that rises by 10 between 0 and 1, then stays.

    >>> import numpy as np
    >>> from nnx import Layer_Spline
    >>> layer = Layer_Spline(1, 1, columns=[0], edges=[[0, 1, 2]])
    >>> layer.set_parameters([[0], [10], [0]], [[0]])
    >>> layer.forward([[-1], [0.25], [1], [1.5], [3]])
    >>> layer.output.T
    array([[ 0. ,  2.5, 10. , 10. , 10. ]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = (
        *("n_inputs", "n_neurons", "columns", "edges", "degree", "dtype", "weight_initializer", "bias_initializer"),
    )

    _kernel: ClassVar[str] = "spline"

    n_inputs: int | None = None
    n_neurons: int | None = None
    columns: Sequence[int] = ()
    edges: Sequence[Sequence[float]] = ()
    degree: int = 1
    weight_initializer: str | float | None = "book"
    bias_initializer: str | float | None = "zeros"
    inputs: Array
    output: Array
    dinputs: Array
    #: What the latest layout was made from, and the layout.
    _known: Known | None = None

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        columns: Sequence[int],
        edges: Sequence[Sequence[float]],
        degree: int = 1,
        dtype: DTypeLike = None,
        weight_initializer: Initializer = "book",
        bias_initializer: Initializer = "zeros",
    ) -> None:
        self._configure(n_inputs, n_neurons, columns, edges, degree, dtype, weight_initializer, bias_initializer)
        fan_in = self._shapes("Layer_Spline")[0][0]
        self.weights, self.biases = initializers.parameters(
            "Layer_Spline", fan_in, int(n_neurons), self.dtype, weight_initializer, bias_initializer
        )

    def _configure(
        self,
        n_inputs: int,
        n_neurons: int,
        columns: Sequence[int],
        edges: Sequence[Sequence[float]],
        degree: int = 1,
        dtype: DTypeLike = None,
        weight_initializer: Initializer = "book",
        bias_initializer: Initializer = "zeros",
    ) -> None:
        """Set everything except the parameters. A model file brings its own, so loading one draws no random number."""
        where = "Layer_Spline"
        self.n_inputs = check.whole(where, "n_inputs", n_inputs, 1, MAX_PLACE)
        self.n_neurons = check.whole(where, "n_neurons", n_neurons, 1, MAX_PLACE)
        self.degree = check.whole(where, "degree", degree, 0, 1)
        self.columns = checked_columns(where, columns, self.n_inputs)
        self.edges = _checked_edges(where, edges, len(self.columns), self.degree)
        self._shapes(where)
        self.dtype = config.float_dtype(where, dtype)
        self._layout(where)
        self.weight_initializer = initializers.kept(where, "weight_initializer", weight_initializer)
        self.bias_initializer = initializers.kept(where, "bias_initializer", bias_initializer)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments that make a layer like this one (with other parameters)."""
        found = super().get_config()
        return {**found, "columns": list(self.columns), "edges": [list(own) for own in self.edges]}

    def _shown(self) -> dict[str, Any]:
        return with_few_edges(super()._shown())

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` from inputs (n, n_inputs), and keep these as ``inputs`` for ``backward``.

        If not ``training``, it uses ``weight_averages`` and ``bias_averages`` if there are any.
        """
        where = "Layer_Spline.forward"
        weights, biases = self._parameters_for(where, training)
        inputs = check.rows(where, "inputs", inputs, self._sizes(where)[0], weights.dtype)
        layout = self._layout(where)
        bins, parts = _places_of(inputs, layout)
        output = _kernels.empty(len(inputs), weights.shape[1], weights.dtype)
        _kernels.backend.spline_forward(inputs, bins, parts, layout.first, layout.degree, weights, biases, output)
        self.inputs = inputs
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights``, ``dbiases`` and ``dinputs`` from ``dvalues`` (n, n_neurons), the gradient by ``output``."""
        where = "Layer_Spline.backward"
        weights, biases = self._checked_parameters(where)
        inputs = check.stored(where, self, "inputs")
        inputs = check.rows(where, "inputs", inputs, self._sizes(where)[0], weights.dtype)
        dvalues = check.rows(where, "dvalues", dvalues, weights.shape[1], weights.dtype, len(inputs))
        columns, first, edges, degree = layout = self._layout(where)
        bins, parts = _places_of(inputs, layout)
        dweights, dbiases = _kernels.empty_like(weights), _kernels.empty_like(biases)
        dinputs = _kernels.empty_like(inputs)
        backend = _kernels.backend
        backend.spline_backward_weights(inputs, bins, parts, dvalues, first, degree, dweights)
        backend.dense_backward_biases(dvalues, biases, dbiases, 0, 0)
        backend.spline_backward_inputs(bins, parts, dvalues, columns, first, edges, degree, weights, dinputs)
        self.dweights, self.dbiases, self.dinputs = dweights, dbiases, dinputs

    def _sizes(self, where: str) -> tuple[int, int, tuple[int, ...], Edges, int]:
        """Return the arguments, checked: users may have assigned anything."""
        n_inputs = check.whole(where, "n_inputs", self.n_inputs, 1, MAX_PLACE)
        n_neurons = check.whole(where, "n_neurons", self.n_neurons, 1, MAX_PLACE)
        degree = check.whole(where, "degree", self.degree, 0, 1)
        known = self._known
        is_known = known is not None and known.edges is self.edges and known.of[0] is self.columns
        if known is not None and is_known and known.of[1:] == (n_inputs, degree):
            return n_inputs, n_neurons, known.of[0], known.edges, degree
        columns = checked_columns(where, self.columns, n_inputs)
        return n_inputs, n_neurons, columns, _checked_edges(where, self.edges, len(columns), degree), degree

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        n_inputs, n_neurons, columns, edges, degree = self._sizes(where)
        n_rows = n_inputs + sum(map(len, edges)) - degree * len(columns)
        if n_rows > MAX_PLACE:
            raise ValueError(f"{where}: edges must be at most {MAX_PLACE:,} together, got {n_rows:,}.")
        return (n_rows, n_neurons), (1, n_neurons)

    def _widths(self) -> Widths:
        sizes = self._sizes("Layer_Spline")
        return sizes[0], sizes[1]

    def _layout(self, where: str) -> Layout:
        """Return the columns and their edges, as kernels take them."""
        n_inputs, _, columns, edges, degree = self._sizes(where)
        of, dtype, known = (columns, n_inputs, degree), self._float_dtype(), self._known
        if known is None or known.edges is not edges or known.of != of or known.layout.edges.dtype != dtype:
            first = np.cumsum((0, *[len(own) - degree for own in edges])).astype(np.int32)
            flat = _flat(where, edges, dtype)
            known = Known(edges, of, Layout(np.array(columns, np.int32), first, flat, degree))
            self.columns, self.edges, self._known = columns, edges, known
        return known.layout


def _flat(where: str, edges: Edges, dtype: FloatDType) -> Array:
    """Return the edges of all columns in one array. Refuse edges whose differences it cannot hold as finite numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        each = [np.array(own, dtype) for own in edges]
        fits = [bool(np.isfinite(own[-1] - own[0])) for own in each]
    if not all(fits):
        bad = list(edges[fits.index(False)])
        raise ValueError(
            f"{where}: edges must be numbers whose differences {dtype.name} can hold, got {abridged(bad)}."
        )
    return np.concatenate(each)


def _places_of(inputs: Array, layout: Layout) -> tuple[Array, Array]:
    """Return where numbers lie among the edges, and how far along their bins."""
    bins = np.empty((len(inputs), len(layout.columns)), np.int32)
    parts = _kernels.empty(len(inputs), len(layout.columns), inputs.dtype)
    _kernels.backend.spline_places(inputs, layout.columns, layout.first, layout.edges, layout.degree, bins, parts)
    return bins, parts


def _checked_edges(where: str, edges: Any, n_columns: int, degree: int) -> Edges:
    if isinstance(edges, str | bytes | dict) or not hasattr(edges, "__iter__"):
        raise TypeError(f"{where}: edges must be a list of numbers for each column, got {abridged(edges)}.")
    given = list(edges)
    if len(given) != n_columns:
        raise ValueError(f"{where}: edges must be one list for each of {n_columns} columns, got {len(given)}.")
    return tuple([_increasing(where, f"edges[{number}]", own, 1 + degree) for number, own in enumerate(given)])


def _increasing(where: str, name: str, own: Any, least: int) -> tuple[float, ...]:
    """Return one column's edges as floats."""
    if isinstance(own, str | bytes | dict) or not hasattr(own, "__iter__"):
        raise TypeError(f"{where}: {name} must be a list of numbers, got {abridged(own)}.")
    found = tuple([float(check.number(where, f"{name}[{i}]", each)) for i, each in enumerate(own)])
    if len(found) < least:
        raise ValueError(f"{where}: {name} must hold {least} numbers at least, got {len(found)}.")
    if not all(map(math.isfinite, found)) or any(after <= before for before, after in itertools.pairwise(found)):
        raise ValueError(f"{where}: {name} must be finite numbers in increasing order, got {abridged(list(found))}.")
    return found
