"""Layers that pass on all their inputs and append columns. `Layer_PiecewiseLinear` and `Layer_Thermometer` append where
between given edges a number lies. `Layer_Combinations` appends weighted sums of some inputs. They have nothing to
train. Their kernels are in `_kernels/_numpy/encodings.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nnx import _kernels
from nnx._base import check, config
from nnx._base.describe import Described, with_few_edges
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike, DTypeLike, FloatDType
from nnx._base.vocabulary import built_in
from nnx._base.widths import Widths
from nnx.embedding import MAX_PLACE, checked_columns

__all__ = ["Layer_Combinations", "Layer_PiecewiseLinear", "Layer_Thermometer"]

#: The most edges of a layer. It keeps a model file that describes the layer readable.
MAX_EDGES = 500_000
#: The most terms of all combinations of a layer together, for the same reason.
MAX_TERMS = 20_000
#: The least distance of two edges, as a multiple of the smallest normal number. Kernels treat smaller numbers as 0.
APART = 4


class Layout(NamedTuple):
    """The appended columns, as the kernels take them."""

    #: The encoded columns, or the columns of one combination after the other; int32.
    columns: Array
    #: Where the edges of each encoded column begin, or the columns of each combination. The last entry says where the
    #: last ones end; int32.
    offsets: Array
    #: The edges of all columns, or a factor for each of ``columns``, in the layer's dtype.
    edges: Array


class _Appending(Described):
    """The common part of layers that pass on all inputs and append other numbers."""

    _kernel: ClassVar[str]

    dtype: DTypeLike = None
    inputs: Array
    output: Array
    dinputs: Array
    _n_inputs: int
    #: The latest layout, after the dtype that it was made for.
    _known: tuple[FloatDType, Layout]

    @property
    def n_inputs(self) -> int:
        """Columns of the inputs."""
        return self._n_inputs

    def _run(self, where: str, inputs: ArrayLike) -> None:
        """Set ``output`` to the inputs and the appended columns."""
        layout = self._layout(where)
        inputs = check.rows(where, "inputs", inputs, self._n_inputs, layout.edges.dtype)
        output = _kernels.empty(len(inputs), self._n_outputs(), inputs.dtype)
        getattr(_kernels.backend, f"{self._kernel}_forward")(inputs, *layout, output)
        self.inputs = inputs
        self.output = output

    def _given_both(self, where: str, dvalues: ArrayLike) -> tuple[Array, Array]:
        """Return the inputs of the latest forward, and dvalues of the output's shape."""
        dtype = self._float_dtype()
        inputs = check.rows(where, "inputs", check.stored(where, self, "inputs"), self._n_inputs, dtype)
        return inputs, check.rows(where, "dvalues", dvalues, self._n_outputs(), dtype, len(inputs))

    def _n_outputs(self) -> int:
        raise NotImplementedError

    def _widths(self) -> Widths:
        return self._n_inputs, self._n_outputs()

    def _float_dtype(self) -> FloatDType:
        dtype = self.dtype
        if dtype is config.FLOAT32 or dtype is config.FLOAT64:
            return dtype
        return config.float_dtype(type(self).__name__, dtype)

    def _layout(self, where: str) -> Layout:
        """Return what the kernels take, in the present dtype."""
        dtype = self._float_dtype()
        if self._known[0] != dtype:
            self._known = dtype, self._laid_out(where, dtype)
        return self._known[1]

    def _laid_out(self, where: str, dtype: FloatDType) -> Layout:
        raise NotImplementedError


class _Encoding(_Appending):
    """The common part of encodings: columns and edges, which stay as they were given."""

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "columns", "edges", "dtype")

    #: The fewest edges of a column. A column with n edges has n + 1 − _least encodings.
    _least: ClassVar[int]

    _columns: tuple[int, ...]
    _edges: tuple[tuple[float, ...], ...]

    def __init__(
        self,
        n_inputs: int,
        columns: Sequence[int],
        edges: Sequence[Sequence[float]],
        dtype: DTypeLike = None,
    ) -> None:
        where = type(self).__name__
        self.dtype = config.float_dtype(where, dtype)
        self._n_inputs = check.whole(where, "n_inputs", n_inputs, 1, MAX_PLACE - MAX_EDGES)
        self._columns = checked_columns(where, columns, self._n_inputs)
        self._edges = _checked_edges(where, edges, len(self._columns), self._least)
        self._known = self.dtype, self._laid_out(where, self.dtype)

    @property
    def columns(self) -> tuple[int, ...]:
        """The encoded columns."""
        return self._columns

    @property
    def edges(self) -> tuple[tuple[float, ...], ...]:
        """The edges of each encoded column."""
        return self._edges

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments that make a layer like this one."""
        return {
            "n_inputs": self._n_inputs,
            "columns": list(self._columns),
            "edges": [list(each) for each in self._edges],
            "dtype": self._float_dtype().name,
        }

    def _shown(self) -> dict[str, Any]:
        return with_few_edges(self.get_config())

    def _n_outputs(self) -> int:
        return self._n_inputs + sum(map(len, self._edges)) - len(self._edges) * (self._least - 1)

    def _laid_out(self, where: str, dtype: FloatDType) -> Layout:
        offsets = np.array([0, *itertools.accumulate(map(len, self._edges))], np.int32)
        with np.errstate(over="ignore", invalid="ignore"):
            edges = np.array(list(itertools.chain(*self._edges)), dtype)
            spans = np.diff(edges)
        far, near = np.finfo(dtype).max, APART * np.finfo(dtype).tiny
        for column, (first, end) in enumerate(itertools.pairwise(offsets.tolist())):
            own = spans[first : end - 1]
            if not np.isfinite(edges[first:end]).all() or not (own <= far).all():
                raise ValueError(
                    f"{where}: edges[{column}] must hold numbers whose differences {dtype.name} can hold, got "
                    f"{abridged(list(self._edges[column]))}."
                )
            if not (own >= near).all():
                place = int(np.argmin(own >= near))
                low, high = self._edges[column][place : place + 2]
                raise ValueError(
                    f"{where}: edges[{column}] must be increasing numbers, apart in {dtype.name}, got {high!r} after "
                    f"{low!r}."
                )
        return Layout(np.array(self._columns, np.int32), offsets, edges)


@built_in("layer")
class Layer_PiecewiseLinear(_Encoding):
    """The inputs, and for some columns how far a number has come from one edge to the next.

    A column with the edges e₀ < e₁ < … < e_K has K encodings: clip((x − e_{k−1}) / (e_k − e_{k−1}), 0, 1). The
    encodings of the pieces below a number are 1, those of the pieces above it are 0, and one is in between. The layers
    that follow can therefore have a different slope in each piece. Quantiles of the training rows are good edges.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs.
    columns : sequence of int
        Which of them are encoded, counted from 0 and given in increasing order.
    edges : sequence of sequences of float
        The edges of each of ``columns``, in increasing order and in the units of the column. Each column has at least
        two edges, and columns may have different numbers of edges. All columns together have at most 500,000.
    dtype : "float32" or "float64", optional
        The dtype of the edges and of the results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    n_inputs : int
    columns : tuple of int
    edges : tuple of tuples of float
        As given; they cannot be assigned.
    inputs, output : arrays (n, n_inputs) and (n, n_inputs + edges − columns)
        After ``forward``. The output has all inputs first, unchanged, then the encodings, one column after the other.
    dinputs : array of the inputs' shape
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        If columns do not exist or are not in order, if a column has fewer than two edges, if edges do not increase or
        are equal in the dtype, and for other dtypes.

    Notes
    -----
    Gorishniy, Rubachev and Babenko, On embeddings for numerical features in tabular deep learning (2022),
    arXiv:2203.05556, section 3.2. In the paper, the first encoding goes on below 0 and the last one above 1. Here both
    are clipped; the number itself, which comes first, says how far outside it is. A number that equals an edge has the
    slope of the piece above it. All encodings of a NaN are NaN. The layer has nothing to train. If nothing before it is
    trained, no gradient is computed for it.

    Examples
    --------
    >>> from nnx import Layer_PiecewiseLinear
    >>> layer = Layer_PiecewiseLinear(2, columns=[1], edges=[[0, 10, 30]])
    >>> layer.forward([[7, -5], [7, 5], [7, 15], [7, 40]])
    >>> layer.output
    array([[ 7.  , -5.  ,  0.  ,  0.  ],
           [ 7.  ,  5.  ,  0.5 ,  0.  ],
           [ 7.  , 15.  ,  1.  ,  0.25],
           [ 7.  , 40.  ,  1.  ,  1.  ]], dtype=float32)
    """

    _kernel: ClassVar[str] = "piecewise_linear"
    _least: ClassVar[int] = 2

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to the inputs and their encodings.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            Makes no difference.
        """
        self._run("Layer_PiecewiseLinear.forward", inputs)

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs``: the gradient of each number, through itself and through its encodings.

        Parameters
        ----------
        dvalues : array of the output's shape
            The gradient of the loss by ``output``.
        """
        where = "Layer_PiecewiseLinear.backward"
        inputs, dvalues = self._given_both(where, dvalues)
        dinputs = _kernels.empty_like(inputs)
        _kernels.backend.piecewise_linear_backward(inputs, dvalues, *self._layout(where), dinputs)
        self.dinputs = dinputs


@built_in("layer")
class Layer_Thermometer(_Encoding):
    """The inputs, and for some columns which edges a number is above.

    A column with the edges e₁ < … < e_K has K encodings: 1 if x > e_k, else 0. The layers that follow can therefore
    have a step at each edge, as a decision tree has.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs.
    columns : sequence of int
        Which of them are encoded, counted from 0 and given in increasing order.
    edges : sequence of sequences of float
        The edges of each of ``columns``, in increasing order and in the units of the column. Each column has at least
        one edge, and columns may have different numbers of edges. All columns together have at most 500,000.
    dtype : "float32" or "float64", optional
        The dtype of the edges and of the results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    n_inputs : int
    columns : tuple of int
    edges : tuple of tuples of float
        As given; they cannot be assigned.
    inputs, output : arrays (n, n_inputs) and (n, n_inputs + edges)
        After ``forward``. The output has all inputs first, unchanged, then the encodings, one column after the other.
    dinputs : array of the inputs' shape
        After ``backward``: the gradient of the inputs that are passed on. The encodings have no slope.

    Raises
    ------
    TypeError, ValueError
        If columns do not exist or are not in order, if a column has no edge, if edges do not increase or are equal in
        the dtype, and for other dtypes.

    Notes
    -----
    Buckman, Roy, Raffel and Goodfellow, Thermometer encoding (2018). A number that equals an edge is not above it. A
    NaN is above no edge. The layer has nothing to train. If nothing before it is trained, no gradient is computed for
    it.

    Examples
    --------
    >>> from nnx import Layer_Thermometer
    >>> layer = Layer_Thermometer(2, columns=[1], edges=[[0, 10]])
    >>> layer.forward([[7, -5], [7, 5], [7, 10], [7, 40]])
    >>> layer.output
    array([[ 7., -5.,  0.,  0.],
           [ 7.,  5.,  1.,  0.],
           [ 7., 10.,  1.,  0.],
           [ 7., 40.,  1.,  1.]], dtype=float32)
    """

    _kernel: ClassVar[str] = "thermometer"
    _least: ClassVar[int] = 1

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to the inputs and their encodings.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            Makes no difference.
        """
        self._run("Layer_Thermometer.forward", inputs)

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs`` to the gradient of the inputs that are passed on.

        Parameters
        ----------
        dvalues : array of the output's shape
            The gradient of the loss by ``output``.
        """
        inputs, dvalues = self._given_both("Layer_Thermometer.backward", dvalues)
        dinputs = _kernels.empty_like(inputs)
        _kernels.backend.thermometer_backward(dvalues, dinputs)
        self.dinputs = dinputs


@built_in("layer")
class Layer_Combinations(_Appending):
    """The inputs, and weighted sums of some of them.

    A combination of the columns j with the factors f is Σ x_j · f. A network finds such sums by itself. A layer that
    looks at one column at a time, such as a `Layer_Spline` after this one, does not. With the sum and the difference of
    two columns, its pieces can also follow slanted lines: with longitude and latitude, those of a coast.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs.
    columns : sequence of sequences of int
        The columns of each combination, counted from 0 and given in increasing order: one or more.
    factors : sequence of sequences of float
        The factor of each of these columns. All combinations together have at most 20,000.
    dtype : "float32" or "float64", optional
        The dtype of the factors and of the results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    n_inputs : int
    columns : tuple of tuples of int
    factors : tuple of tuples of float
        As given; they cannot be assigned.
    inputs, output : arrays (n, n_inputs) and (n, n_inputs + combinations)
        After ``forward``. The output has all inputs first, unchanged, then the combinations.
    dinputs : array of the inputs' shape
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        If columns do not exist or are not in order, if a combination has not one factor for each column, if the dtype
        cannot hold a factor, and for other dtypes.

    Notes
    -----
    Sums are added up in the order of the columns. The layer has nothing to train. If nothing before it is trained, no
    gradient is computed for it.

    Examples
    --------
    >>> from nnx import Layer_Combinations
    >>> layer = Layer_Combinations(3, columns=[[0, 2], [0, 2]], factors=[[1, 0.5], [1, -0.5]])
    >>> layer.forward([[1, 7, 4]])
    >>> layer.output
    array([[ 1.,  7.,  4.,  3., -1.]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "columns", "factors", "dtype")

    _kernel: ClassVar[str] = "combinations"

    _columns: tuple[tuple[int, ...], ...]
    _factors: tuple[tuple[float, ...], ...]

    def __init__(
        self,
        n_inputs: int,
        columns: Sequence[Sequence[int]],
        factors: Sequence[Sequence[float]],
        dtype: DTypeLike = None,
    ) -> None:
        where = type(self).__name__
        self.dtype = config.float_dtype(where, dtype)
        self._n_inputs = check.whole(where, "n_inputs", n_inputs, 1, MAX_PLACE - MAX_TERMS)
        combinations = _items(where, "columns", columns)
        if not combinations:
            raise ValueError(f"{where}: columns must hold at least one combination, got none.")
        self._columns = tuple(
            checked_columns(where, each, self._n_inputs, f"columns[{number}]")
            for number, each in enumerate(combinations)
        )
        self._factors = _checked_factors(where, factors, tuple(map(len, self._columns)))
        self._known = self.dtype, self._laid_out(where, self.dtype)

    @property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """The columns of each combination."""
        return self._columns

    @property
    def factors(self) -> tuple[tuple[float, ...], ...]:
        """The factors of each combination, one for each of its columns."""
        return self._factors

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments that make a layer like this one."""
        return {
            "n_inputs": self._n_inputs,
            "columns": [list(each) for each in self._columns],
            "factors": [list(each) for each in self._factors],
            "dtype": self._float_dtype().name,
        }

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to the inputs and their combinations.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            Makes no difference.
        """
        self._run("Layer_Combinations.forward", inputs)

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs``: the gradient of each number, through itself and through its combinations.

        Parameters
        ----------
        dvalues : array of the output's shape
            The gradient of the loss by ``output``.
        """
        where = "Layer_Combinations.backward"
        inputs, dvalues = self._given_both(where, dvalues)
        dinputs = _kernels.empty_like(inputs)
        _kernels.backend.combinations_backward(dvalues, *self._layout(where), dinputs)
        self.dinputs = dinputs

    def _n_outputs(self) -> int:
        return self._n_inputs + len(self._columns)

    def _laid_out(self, where: str, dtype: FloatDType) -> Layout:
        with np.errstate(over="ignore"):
            factors = np.array(list(itertools.chain(*self._factors)), dtype)
        if not np.isfinite(factors).all():
            raise ValueError(f"{where}: factors must be numbers that {dtype.name} can hold.")
        columns = np.array(list(itertools.chain(*self._columns)), np.int32)
        return Layout(columns, np.array([0, *itertools.accumulate(map(len, self._columns))], np.int32), factors)


def _checked_factors(where: str, factors: Any, counts: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """Return the factors of each combination as floats, one for each of its columns."""
    combinations = _items(where, "factors", factors)
    found: list[tuple[float, ...]] = []
    for number, each in enumerate(combinations):
        name = f"factors[{number}]"
        values = _items(where, name, each)
        found.append(tuple([float(check.number(where, f"{name}[{i}]", value)) for i, value in enumerate(values)]))
    if tuple(map(len, found)) != counts:
        raise ValueError(f"{where}: factors must be a list for each combination, with one number for each column.")
    if sum(counts) > MAX_TERMS:
        raise ValueError(f"{where}: factors must be at most {MAX_TERMS:,} together, got {sum(counts):,}.")
    return tuple(found)


def _checked_edges(where: str, edges: Any, n_columns: int, least: int) -> tuple[tuple[float, ...], ...]:
    """Return the edges of each column as floats, at least ``least``; `_laid_out` checks that they increase."""
    columns = _items(where, "edges", edges)
    if len(columns) != n_columns:
        raise ValueError(f"{where}: edges must be a list for each of {n_columns} columns, got {len(columns)}.")
    found: list[tuple[float, ...]] = []
    for number, each in enumerate(columns):
        name = f"edges[{number}]"
        values = _items(where, name, each)
        if len(values) < least:
            raise ValueError(f"{where}: {name} must hold at least {least} numbers, got {len(values)}.")
        found.append(tuple([float(check.number(where, f"{name}[{i}]", value)) for i, value in enumerate(values)]))
    if sum(map(len, found)) > MAX_EDGES:
        raise ValueError(f"{where}: edges must be at most {MAX_EDGES:,} together, got {sum(map(len, found)):,}.")
    return tuple(found)


def _items(where: str, name: str, values: Any) -> list[Any]:
    if isinstance(values, str | bytes | dict) or not hasattr(values, "__iter__") or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{where}: {name} must be a list, got {abridged(values)}.")
    return list(values)
