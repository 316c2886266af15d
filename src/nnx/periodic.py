"""`Layer_Periodic`: its inputs, and sums of trained waves of them. Its kernels are in `_kernels/_numpy/periodic.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from nnx import _kernels
from nnx._base import check, config
from nnx._base.parameters import WithWeights
from nnx._base.typing import Array, ArrayLike, DTypeLike
from nnx._base.vocabulary import built_in
from nnx.embedding import MAX_PLACE, checked_columns

__all__ = ["Layer_Periodic"]

#: The most frequencies and sums of a column. Kernels keep sums on the stack, `MAX_SUMS` in kernels.pxd.
MAX_FREQUENCIES, MAX_WIDTH = 1024, 32
#: The most columns of the inputs: int32 numbers the columns of the output.
MAX_INPUTS = MAX_PLACE // (MAX_WIDTH + 1)


@built_in("layer")
class Layer_Periodic(WithWeights):
    """The inputs, and for some columns sums of waves. The frequencies of the waves are trained.

    A column with the frequencies wₖ and phases pₖ has ``width`` sums: Σₖ cos(2π·wₖ·x + pₖ)·W_kj + b_j. The layers that
    follow can therefore depend on a number in ways that few dense layers find.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs.
    columns : sequence of int
        Which of them have waves, counted from 0 and given in increasing order.
    frequencies : int
        The number of waves of each of ``columns``: up to 1,024.
    width : int
        The number of sums of waves of each of ``columns``: up to 32.
    scale : float
        The standard deviation of the initial frequencies. It is meant for inputs of about −1 to 1.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    n_inputs, frequencies, width : int
    columns : tuple of int
        As given; they cannot be assigned.
    weights : array (columns, frequencies · (2 + width) + width)
        A row for each column: its frequencies w, its phases p in radians, W (frequencies, width) row by row, and b.
        Trained in place. If you assign an array of another dtype or layout, the layer casts it at its next use.
    weight_averages : array of the shape of weights
        As that of `Layer_Dense`.
    inputs, output : arrays (n, n_inputs) and (n, n_inputs + columns · width)
        After ``forward``. The output has all inputs first, unchanged, then the sums, one column after the other.
    dweights, dinputs : arrays of the shapes of weights and inputs
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        If a size is out of range, if columns do not exist or are not in order, if the scale is not a finite number of
        at least 0, and for other dtypes.

    Notes
    -----
    The embedding "PBLD" of Holzmüller, Grinsztajn and Steinwart, Better by default: strong pre-tuned MLPs and boosted
    trees on tabular data (2024), arXiv:2407.04491. The default sizes and scale are those of the paper. It follows
    Gorishniy, Rubachev and Babenko (2022), arXiv:2203.05556. Initial frequencies are normal numbers. Initial phases are
    uniform from −π to π, W and b uniform from −1/√frequencies to 1/√frequencies. All are drawn from NumPy's global
    generator.

    Examples
    --------
    >>> from nnx import Layer_Periodic
    >>> layer = Layer_Periodic(2, columns=[1], frequencies=1, width=2)
    >>> layer.set_parameters([[0.5, 0, 3, 4, 10, 20]])
    >>> layer.forward([[7, 0], [7, 1], [7, 2]])
    >>> layer.output  # cos(π·x) · [3, 4] + [10, 20]
    array([[ 7.,  0., 13., 24.],
           [ 7.,  1.,  7., 16.],
           [ 7.,  2., 13., 24.]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "columns", "frequencies", "width", "scale", "dtype")

    _kernel: ClassVar[str] = "periodic"

    scale: float
    inputs: Array
    output: Array
    dinputs: Array
    _n_inputs: int
    _columns: tuple[int, ...]
    _frequencies: int
    _width: int
    #: The columns, as kernels take them.
    _places: Array

    def __init__(
        self,
        n_inputs: int,
        columns: Sequence[int],
        frequencies: int = 16,
        width: int = 3,
        scale: float = 0.1,
        dtype: DTypeLike = None,
    ) -> None:
        self._configure(n_inputs, columns, frequencies, width, scale, dtype)
        self.weights = self._drawn()

    def _configure(
        self,
        n_inputs: int,
        columns: Sequence[int],
        frequencies: int,
        width: int,
        scale: float,
        dtype: DTypeLike,
    ) -> None:
        """Set everything except the parameter. A model file brings its own, so loading one draws no random number."""
        where = "Layer_Periodic"
        self.dtype = config.float_dtype(where, dtype)
        self._n_inputs = check.whole(where, "n_inputs", n_inputs, 1, MAX_INPUTS)
        self._columns = checked_columns(where, columns, self._n_inputs)
        self._frequencies = check.whole(where, "frequencies", frequencies, 1, MAX_FREQUENCIES)
        self._width = check.whole(where, "width", width, 1, MAX_WIDTH)
        self.scale = check.number(where, "scale", scale, 0)
        self._places = np.array(self._columns, np.int32)

    def _drawn(self) -> Array:
        """Return initial weights, drawn in double precision."""
        rows, n, bound = len(self._columns), self._frequencies, 1 / math.sqrt(self._frequencies)
        drawn = [
            self.scale * np.random.randn(rows, n),
            np.random.uniform(-math.pi, math.pi, (rows, n)),
            np.random.uniform(-bound, bound, (rows, n * self._width + self._width)),
        ]
        with np.errstate(over="ignore"):
            return np.array(np.concatenate(drawn, axis=1), self._float_dtype(), order="C")

    @property
    def n_inputs(self) -> int:
        """Columns of the inputs."""
        return self._n_inputs

    @property
    def columns(self) -> tuple[int, ...]:
        """The columns that have waves."""
        return self._columns

    @property
    def frequencies(self) -> int:
        """The number of waves of each of those columns."""
        return self._frequencies

    @property
    def width(self) -> int:
        """The number of sums of waves of each of those columns."""
        return self._width

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments that make a layer like this one (with other weights)."""
        return {**super().get_config(), "columns": list(self._columns)}

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to the inputs and the sums of their waves.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            If False, the layer uses ``weight_averages`` if there are any.
        """
        where = "Layer_Periodic.forward"
        (weights,) = self._parameters_for(where, training)
        inputs = check.rows(where, "inputs", inputs, self._n_inputs, weights.dtype)
        output = _kernels.empty(len(inputs), self._widths()[1], weights.dtype)
        _kernels.backend.periodic_forward(inputs, self._places, weights, output)
        self.inputs = inputs
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights`` and ``dinputs`` from the gradient of the loss by ``output``.

        Parameters
        ----------
        dvalues : array of the output's shape
        """
        where = "Layer_Periodic.backward"
        (weights,) = self._checked_parameters(where)
        inputs = check.rows(where, "inputs", check.stored(where, self, "inputs"), self._n_inputs, weights.dtype)
        dvalues = check.rows(where, "dvalues", dvalues, self._widths()[1], weights.dtype, len(inputs))
        dweights, dinputs = _kernels.empty_like(weights), _kernels.empty_like(inputs)
        _kernels.backend.periodic_backward_weights(inputs, dvalues, self._places, weights, dweights)
        _kernels.backend.periodic_backward_inputs(inputs, dvalues, self._places, weights, dinputs)
        self.dweights, self.dinputs = dweights, dinputs

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        return ((len(self._columns), self._frequencies * (2 + self._width) + self._width),)

    def _widths(self) -> tuple[int, int]:
        return self._n_inputs, self._n_inputs + len(self._columns) * self._width
