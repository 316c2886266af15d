"""`Layer_Embedding`: learnt vectors for categories, numbers without an order. The kernels are in
`_kernels/_numpy/embedding.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nnx import _kernels, initializers
from nnx._base import check, config
from nnx._base.parameters import WithWeights
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike, DTypeLike
from nnx._base.vocabulary import built_in
from nnx._base.widths import Widths, widths_of
from nnx.initializers import Initializer

__all__ = ["Layer_Embedding"]

#: The most categories of a column: float32 holds all whole numbers up to this one.
MAX_CATEGORIES = 1 << 24

#: The most rows and columns of an array: kernels number them by int32.
MAX_PLACE = (1 << 31) - 1


class Layout(NamedTuple):
    """What each column of the inputs holds, as the kernels take it."""

    #: For each column, −1 if it is numeric, else the row of the weights at which its categories begin; int32.
    places: Array
    #: For each column, the number of its categories, 0 if it is numeric; int32.
    counts: Array
    #: Columns of the output.
    n_out: int
    #: Rows of the weights.
    n_rows: int
    #: Columns of their vectors.
    width: int


@built_in("layer")
class Layer_Embedding(WithWeights):
    """A learnt vector for each category of some columns. The other columns pass through as numbers.

    The output has the columns of numbers first, in their order. Then each column of categories follows, in its order,
    as the vector of its category: a row of ``weights``.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs.
    columns : sequence of int
        The columns that hold categories, counted from 0, in increasing order. Categories are whole numbers from 0 to
        their count − 1.
    categories : int or sequence of int
        The number of categories of each of ``columns``: one number for all, or one for each. At most 16,777,216.
    width : int
        The length of a category's vector.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.
    weight_initializer : str, number or function, optional
        As that of `Layer_Dense`, for the shape of ``weights``: all vectors are drawn together.

    Attributes
    ----------
    columns, categories : tuples of int
        As given; ``categories`` is an int if it was one.
    weight_initializer : str, number or None
        As given; None for a function.
    weights : array (sum of all columns' categories, width)
        The vectors of the first column's categories, then those of the second's, and so on. Trained in place. If you
        assign an array of another dtype or layout, the layer casts it at its next use.
    weight_averages : array of the shape of weights
        As that of `Layer_Dense`.
    inputs, output : arrays (n, n_inputs) and (n, n_inputs − columns + columns · width)
        After ``forward``.
    dweights, dinputs : arrays of the shapes of weights and inputs
        After ``backward``. ``dinputs`` is 0 in columns of categories, ``dweights`` is 0 for categories that are not in
        the batch.

    Raises
    ------
    TypeError, ValueError
        For sizes below 1, columns that do not exist or are not in order, another number of categories than columns,
        other dtypes, and unknown initializers.

    Notes
    -----
    Guo and Berkhahn, Entity embeddings of categorical variables (2016), arXiv:1604.06737. With one column this is
    ``torch.nn.Embedding(categories, width)``. With more columns, it is one such embedding for each, beside the columns
    of numbers. It must come first in a model, because its inputs are not results of other layers.

    Examples
    --------
    Two columns of numbers, and between them a column with three categories. Each category has a vector of two numbers.

    >>> from nnx import Layer_Embedding
    >>> layer = Layer_Embedding(3, columns=[1], categories=3, width=2)
    >>> layer.set_parameters([[1, 2], [3, 4], [5, 6]])
    >>> layer.forward([[0.5, 0, 7], [0.25, 2, 8]])
    >>> layer.output
    array([[0.5 , 7.  , 1.  , 2.  ],
           [0.25, 8.  , 5.  , 6.  ]], dtype=float32)
    >>> layer.forward([[0.5, 3, 7]])
    Traceback (most recent call last):
    ValueError: Layer_Embedding.forward: column 1 must hold categories from 0 to 2, got 3 in row 0.
    """

    _arguments: ClassVar[tuple[str, ...]] = (
        *("n_inputs", "columns", "categories", "width", "dtype", "weight_initializer"),
    )

    _kernel: ClassVar[str] = "embedding"

    n_inputs: int | None = None
    columns: Sequence[int] = ()
    categories: int | Sequence[int] = ()
    width: int | None = None
    weight_initializer: str | float | None = "book"
    inputs: Array
    output: Array
    dinputs: Array
    #: What the latest layout was made from, and the layout.
    _known: tuple[tuple[Any, ...], Layout] | None = None

    def __init__(
        self,
        n_inputs: int,
        columns: Sequence[int],
        categories: int | Sequence[int],
        width: int,
        dtype: DTypeLike = None,
        weight_initializer: Initializer = "book",
    ) -> None:
        self._configure(n_inputs, columns, categories, width, dtype, weight_initializer)
        shape = self._shapes("Layer_Embedding")[0]
        self.weights = initializers.initial_weights("Layer_Embedding", shape, self.dtype, weight_initializer)

    def _configure(
        self,
        n_inputs: int,
        columns: Sequence[int],
        categories: int | Sequence[int],
        width: int,
        dtype: DTypeLike,
        weight_initializer: Initializer = "book",
    ) -> None:
        """Set everything except the parameter. A model file brings its own, so loading one draws no random number."""
        where = "Layer_Embedding"
        self.dtype = config.float_dtype(where, dtype)
        self.n_inputs = check.whole(where, "n_inputs", n_inputs, 1, MAX_PLACE)
        self.width = check.whole(where, "width", width, 1, MAX_PLACE)
        self.columns = checked_columns(where, columns, self.n_inputs)
        self.categories = _checked_categories(where, categories, len(self.columns))
        self._shapes(where)
        self.weight_initializer = initializers.kept(where, "weight_initializer", weight_initializer)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments that make a layer like this one (with other weights)."""
        found = super().get_config()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to the columns of numbers and the vectors of the categories.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            If False, the layer uses ``weight_averages`` if there are any.

        Raises
        ------
        ValueError
            For a number in a column of categories that is not a category. Nothing has changed then.
        """
        where = "Layer_Embedding.forward"
        (weights,) = self._parameters_for(where, training)
        inputs = check.rows(where, "inputs", inputs, self._n_inputs(where), weights.dtype)
        layout = self._layout(where)
        check_categories(where, "", inputs, layout.places, layout.counts)
        output = _kernels.empty(len(inputs), layout.n_out, weights.dtype)
        _kernels.backend.embedding_forward(inputs, layout.places, weights, output)
        self.inputs = inputs
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights`` and ``dinputs`` from the gradient of the loss by ``output``.

        Parameters
        ----------
        dvalues : array of the output's shape
        """
        where = "Layer_Embedding.backward"
        (weights,) = self._checked_parameters(where)
        inputs = check.stored(where, self, "inputs")
        inputs = check.rows(where, "inputs", inputs, self._n_inputs(where), weights.dtype)
        layout = self._layout(where)
        check_categories(where, "", inputs, layout.places, layout.counts)  # the caller's array may have changed
        dvalues = check.rows(where, "dvalues", dvalues, layout.n_out, weights.dtype, len(inputs))
        dweights, dinputs = _kernels.empty_like(weights), _kernels.empty_like(inputs)
        _kernels.backend.embedding_backward_weights(inputs, dvalues, layout.places, dweights)
        _kernels.backend.embedding_backward_inputs(dvalues, layout.places, layout.width, dinputs)
        self.dweights, self.dinputs = dweights, dinputs

    def _n_inputs(self, where: str) -> int:
        return check.whole(where, "n_inputs", self.n_inputs, 1, MAX_PLACE)

    def _sizes(self, where: str) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
        """Return the arguments, checked: users may have assigned anything. Each column has a number of categories."""
        n_inputs, width = self._n_inputs(where), check.whole(where, "width", self.width, 1, MAX_PLACE)
        columns = checked_columns(where, self.columns, n_inputs)
        categories = _checked_categories(where, self.categories, len(columns))
        counts = categories if isinstance(categories, tuple) else (categories,) * len(columns)
        return n_inputs, columns, counts, width

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        _, _, counts, width = self._sizes(where)
        if sum(counts) > MAX_PLACE:
            raise ValueError(f"{where}: categories must be at most {MAX_PLACE:,} together, got {sum(counts):,}.")
        return ((sum(counts), width),)

    def _widths(self) -> Widths:
        n_inputs, columns, _, width = self._sizes("Layer_Embedding")
        return n_inputs, n_inputs + len(columns) * (width - 1)

    def _layout(self, where: str) -> Layout:
        """Return what each column holds, as kernels take it. It is as large as a row of the inputs."""
        sizes = n_inputs, columns, counts, width = self._sizes(where)
        if self._known is None or self._known[0] != sizes:
            where_each = list(columns)
            places, n_categories = np.full(n_inputs, -1, np.int32), np.full(n_inputs, 0, np.int32)
            n_categories[where_each] = counts
            places[where_each] = np.cumsum((0, *counts[:-1]))
            n_out = n_inputs + len(columns) * (width - 1)
            self._known = sizes, Layout(places, n_categories, n_out, sum(counts), width)
        return self._known[1]


def check_order(where: str, layers: Sequence[Any]) -> None:
    """Refuse an embedding whose categories would be results of built-in layers or of other embeddings."""
    before: Any = None
    n_plain: int | None = None  # columns that are still the inputs'; vectors come after them
    for number, layer in enumerate(layers):
        if widths_of(layer) is None:
            n_plain = None  # a custom layer may pass on anything
        elif not isinstance(layer, Layer_Embedding):
            before = before or layer
        elif before is not None:
            raise ValueError(
                f"{where}: layer {number} must come before all layers that compute, because its inputs are categories, "
                f"got {layer!r} after {before!r}."
            )
        else:
            n_inputs, columns, _, _ = layer._sizes(where)
            n_plain = n_inputs if n_plain is None else n_plain
            if columns[-1] >= n_plain:
                raise ValueError(
                    f"{where}: layer {number} must take its categories from columns 0 to {n_plain - 1}, because the "
                    f"columns after them are vectors of the layer before it, got {layer!r}."
                    if n_plain
                    else f"{where}: layer {number} must have columns of numbers before it, got {layer!r}."
                )
            n_plain -= len(columns)


def columns_of_categories(layers: Sequence[Any]) -> tuple[Array, Array] | None:
    """Return, for the columns of a model's inputs, places and counts of all categories in them, as kernels take them.

    The model's first layers may be several embeddings. Each passes its columns of numbers on to the next one, before
    its vectors. Return None if the first layer is not an embedding with the built-in ``forward``.
    """
    found: tuple[Array, Array] | None = None
    origins: list[int] = []  # of the first columns of what comes next: where in the inputs they are
    for layer in layers:
        if not isinstance(layer, Layer_Embedding) or widths_of(layer) is None:
            break
        layout = layer._layout("Layer_Embedding")
        if found is None:
            found = layout.places.copy(), layout.counts.copy()
            origins = list(range(len(layout.places)))
        for column in layer.columns:
            if column < len(origins):
                found[0][origins[column]], found[1][origins[column]] = 0, layout.counts[column]
        origins = [origin for column, origin in enumerate(origins) if layout.places[column] < 0]
    return found


def check_categories(where: str, name: str, values: Array, places: Array, counts: Array) -> None:
    """Refuse numbers that are not categories of their column. The message names the first one, row by row.

    The message begins with ``name``, the name of an argument, if it is given.
    """
    place = _kernels.backend.embedding_misfit(values, places, counts)
    if place < 0:
        return
    row, column = divmod(place, len(places))
    found = str(values[row, column]).removesuffix(".0")
    expected = f"must hold categories from 0 to {counts[column] - 1}"
    what = f"{name} {expected} in column {column}" if name else f"column {column} {expected}"
    raise ValueError(f"{where}: {what}, got {found} in row {row}.")


def _whole_numbers(where: str, name: str, values: Any, low: int, high: int) -> tuple[int, ...]:
    """Return a sequence of whole numbers as a tuple."""
    if type(values) is tuple and all(type(value) is int and low <= value <= high for value in values):
        return values
    if isinstance(values, str | bytes | dict) or not hasattr(values, "__iter__"):
        raise TypeError(f"{where}: {name} must be a list of whole numbers, got {abridged(values)}.")
    return tuple([check.whole(where, f"{name}[{i}]", value, low, high) for i, value in enumerate(values)])


def checked_columns(where: str, columns: Any, n_inputs: int, name: str = "columns") -> tuple[int, ...]:
    """Return the numbers of columns, checked and in increasing order, as a tuple."""
    found = _whole_numbers(where, name, columns, 0, n_inputs - 1)
    if not found:
        raise ValueError(f"{where}: {name} must name at least one column, got none.")
    if any(after <= before for before, after in itertools.pairwise(found)):
        raise ValueError(f"{where}: {name} must be in increasing order, each once, got {abridged(list(found))}.")
    return found


def _checked_categories(where: str, categories: Any, n_columns: int) -> int | tuple[int, ...]:
    if not hasattr(categories, "__iter__") or getattr(categories, "ndim", 1) == 0:
        return check.whole(where, "categories", categories, 1, MAX_CATEGORIES)
    found = _whole_numbers(where, "categories", categories, 1, MAX_CATEGORIES)
    if len(found) != n_columns:
        raise ValueError(f"{where}: categories must be one number for each of {n_columns} columns, got {len(found)}.")
    return found
