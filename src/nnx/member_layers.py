"""Layers of an ensemble within one network. They hold the parameters of each member. All other layers are shared.

After a `Layer_Members`, each sample has k rows, one for each member: row i·k + m is the row of member m for sample i.
This file defines the layers. Plans run them compiled (`elementwise/members.pxi`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from nnx import _kernels, initializers
from nnx._base import check, config
from nnx._base.parameters import Parameterized, WithBiases, WithWeights
from nnx._base.typing import Array, ArrayLike, DTypeLike
from nnx._base.vocabulary import built_in
from nnx._base.widths import Widths
from nnx.initializers import Initializer

__all__ = ["Layer_MemberDense", "Layer_MemberScale", "Layer_Members"]

#: The most members (`MAX_MEMBERS` in kernels.pxd) and the most columns of such a layer.
MAX_MEMBERS, MAX_COLUMNS = 1024, 1 << 20


class _ByMember(Parameterized):
    """The common part of these layers: their sizes, which cannot be assigned, and how rows belong to members."""

    inputs: Array
    output: Array
    dinputs: Array
    _n_inputs: int
    _n_members: int

    def _take_sizes(self, n_inputs: Any, n_members: Any) -> None:
        where = type(self).__name__
        self._n_inputs = check.whole(where, "n_inputs", n_inputs, 1, MAX_COLUMNS)
        self._n_members = check.whole(where, "n_members", n_members, 1, MAX_MEMBERS)

    @property
    def n_inputs(self) -> int:
        """Columns of the inputs."""
        return self._n_inputs

    @property
    def n_members(self) -> int:
        """The number of members."""
        return self._n_members

    def _widths(self) -> Widths:
        return self._n_inputs, self._n_inputs

    def _compute(self, where: str, inputs: ArrayLike, training: bool, formula: Callable[..., Array]) -> None:
        """Set ``output`` to what a formula makes of checked inputs and parameters."""
        parameters = self._parameters_for(where, training)
        inputs = self._given_rows(where, inputs, parameters[0])
        self.output = formula(inputs, *parameters)
        self.inputs = inputs

    def _given_rows(self, where: str, inputs: Any, weights: Array) -> Array:
        """Return inputs, checked: each sample must have a row for each member."""
        found = check.rows(where, "inputs", inputs, self._n_inputs, weights.dtype)
        if len(found) % self._n_members:
            raise ValueError(
                f"{where}: inputs must have {self._n_members} rows for each sample, as a Layer_Members gives them, got "
                f"{len(found)} rows."
            )
        return found


@built_in("layer")
class Layer_Members(_ByMember, WithWeights):
    """The start of an ensemble within one network: each sample becomes k rows, one for each member.

    A member's row is the sample times that member's factors. The members share the weights of the layers after it. Each
    member has only its own factors, and its part of `Layer_MemberScale` and `Layer_MemberDense`. In training, each row
    has its own loss. Predictions are the mean over the members.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs and of the output.
    n_members : int
        The number of members k, up to 1,024.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    n_inputs, n_members : int
        As given; they cannot be assigned.
    weights : array (n_members, n_inputs)
        Each member's factors: initially 1 or −1, drawn from NumPy's global generator. Trained in place. If you assign
        an array of another dtype or layout, the layer casts it at its next use.
    weight_averages : array of the shape of weights
        As that of `Layer_Dense`.
    inputs, output : arrays (n, n_inputs) and (n · n_members, n_inputs)
        After ``forward``. Row i·k + m of the output belongs to member m and sample i.
    dweights, dinputs : arrays of the shapes of weights and inputs
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For sizes out of range, and other dtypes.

    Notes
    -----
    Wen, Tran and Ba, BatchEnsemble (2020), arXiv:2002.06715; Gorishniy, Kotelnikov and Babenko, TabM (2025),
    arXiv:2410.24210. The smallest form of TabM is this layer, then dense layers, and a `Layer_MemberDense` at the end.

    Examples
    --------
    >>> from nnx import Layer_Members
    >>> layer = Layer_Members(2, n_members=3)
    >>> layer.set_parameters([[1, 1], [1, -1], [-1, 1]])
    >>> layer.forward([[5, 7]])
    >>> layer.output
    array([[ 5.,  7.],
           [ 5., -7.],
           [-5.,  7.]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "n_members", "dtype")

    _kernel: ClassVar[str] = "members"

    def __init__(self, n_inputs: int, n_members: int, dtype: DTypeLike = None) -> None:
        self._configure(n_inputs, n_members, dtype)
        signs = 2 * np.random.randint(0, 2, (self._n_members, self._n_inputs)) - 1
        self.weights = signs.astype(self._float_dtype())

    def _configure(self, n_inputs: int, n_members: int, dtype: DTypeLike) -> None:
        """Set everything except the parameter. A model file brings its own, so loading one draws no random number."""
        self._take_sizes(n_inputs, n_members)
        self.dtype = config.float_dtype("Layer_Members", dtype)

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output``, which has a row for each member of each sample.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            If False, the layer uses ``weight_averages`` if there are any.
        """
        self._compute("Layer_Members.forward", inputs, training, repeated)

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights`` and ``dinputs`` from the gradient of the loss by ``output``.

        Parameters
        ----------
        dvalues : array (n · n_members, n_inputs)
        """
        where = "Layer_Members.backward"
        (weights,) = self._checked_parameters(where)
        inputs = self._given_rows(where, check.stored(where, self, "inputs"), weights)
        n_rows = len(inputs) * self._n_members
        dvalues = check.rows(where, "dvalues", dvalues, self._n_inputs, weights.dtype, n_rows)
        given = by_member(dvalues, self._n_members)
        with np.errstate(all="ignore"):
            products = given * inputs[:, None, :]
            self.dweights = _sum(products, 0)
            self.dinputs = _sum(given * weights, 1)

    def _given_rows(self, where: str, inputs: Any, weights: Array) -> Array:
        """Return inputs, checked: a row for each sample, as there are no members before this layer."""
        return check.rows(where, "inputs", inputs, self._n_inputs, weights.dtype)

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        return ((self._n_members, self._n_inputs),)


@built_in("layer")
class Layer_MemberScale(_ByMember, WithBiases):
    """A factor and an offset for each column of each member: ``output = inputs · weights + biases``.

    Before a dense layer that all members share, it scales the inputs of that layer. After one, it scales the outputs.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs and of the output.
    n_members : int
        As those of the `Layer_Members` before it.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    n_inputs, n_members : int
        As given; they cannot be assigned.
    weights, biases : arrays (n_members, n_inputs)
        Each member's factors, initially 1, and offsets, initially 0. They are trained in place. If you assign an array
        of another dtype or layout, the layer casts it at its next use.
    weight_averages, bias_averages : arrays (n_members, n_inputs)
        As those of `Layer_Dense`.
    inputs, output : arrays (n · n_members, n_inputs)
        After ``forward``. Row i·k + m belongs to member m and sample i.
    dweights, dbiases, dinputs : arrays of the shapes of weights, biases and inputs
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For sizes out of range, and other dtypes.

    Examples
    --------
    >>> from nnx import Layer_MemberScale
    >>> layer = Layer_MemberScale(2, n_members=2)
    >>> layer.set_parameters([[1, 2], [3, 4]], [[0, 0], [10, 20]])
    >>> layer.forward([[1, 1], [1, 1]])
    >>> layer.output
    array([[ 1.,  2.],
           [13., 24.]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "n_members", "dtype")

    _kernel: ClassVar[str] = "member_scale"

    def __init__(self, n_inputs: int, n_members: int, dtype: DTypeLike = None) -> None:
        self._configure(n_inputs, n_members, dtype)
        shape = self._n_members, self._n_inputs
        self.weights, self.biases = np.ones(shape, self._float_dtype()), np.zeros(shape, self._float_dtype())

    def _configure(self, n_inputs: int, n_members: int, dtype: DTypeLike) -> None:
        """Set everything except the parameters: a model file brings its own."""
        self._take_sizes(n_inputs, n_members)
        self.dtype = config.float_dtype("Layer_MemberScale", dtype)

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output``, a row for each row of the inputs.

        Parameters
        ----------
        inputs : array (n · n_members, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            If False, the layer uses ``weight_averages`` and ``bias_averages`` if there are any.
        """
        self._compute("Layer_MemberScale.forward", inputs, training, scaled)

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights``, ``dbiases`` and ``dinputs`` from the gradient of the loss by ``output``.

        Parameters
        ----------
        dvalues : array of the shape of ``output``
        """
        where = "Layer_MemberScale.backward"
        weights, _ = self._checked_parameters(where)
        inputs = self._given_rows(where, check.stored(where, self, "inputs"), weights)
        dvalues = check.rows(where, "dvalues", dvalues, self._n_inputs, weights.dtype, len(inputs))
        given = by_member(dvalues, self._n_members)
        with np.errstate(all="ignore"):
            products = given * by_member(inputs, self._n_members)
            self.dweights, self.dbiases = _sum(products, 0), _sum(given, 0)
            self.dinputs = (given * weights).reshape(inputs.shape)

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        return (self._n_members, self._n_inputs), (self._n_members, self._n_inputs)


@built_in("layer")
class Layer_MemberDense(_ByMember, WithBiases):
    """A separate dense layer for each member: ``output = inputs · (the member's weights) + (its biases)``.

    As the last dense layer, it lets members differ in their predictions.

    Parameters
    ----------
    n_inputs, n_neurons : int
        Columns of the inputs and of the output.
    n_members : int
        As those of the `Layer_Members` before it.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.
    weight_initializer, bias_initializer : str, number or function, optional
        As those of `Layer_Dense`, for each member in turn.

    Attributes
    ----------
    n_inputs, n_neurons, n_members : int
        As given; they cannot be assigned.
    weights : array (n_members · n_inputs, n_neurons)
        The first member's weights, (n_inputs, n_neurons), then the second's, and so on. Trained in place. If you assign
        an array of another dtype or layout, the layer casts it at its next use.
    biases : array (n_members, n_neurons)
    weight_averages, bias_averages : arrays of the shapes of weights and biases
        As those of `Layer_Dense`.
    inputs, output : arrays (n · n_members, n_inputs) and (n · n_members, n_neurons)
        After ``forward``. Row i·k + m belongs to member m and sample i.
    dweights, dbiases, dinputs : arrays of the shapes of weights, biases and inputs
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For sizes out of range, other dtypes, and unknown initializers.

    Examples
    --------
    >>> from nnx import Layer_MemberDense
    >>> layer = Layer_MemberDense(2, 1, n_members=2)
    >>> layer.set_parameters([[1], [1], [10], [10]], [[0], [0.5]])
    >>> layer.forward([[1, 2], [1, 2]])
    >>> layer.output
    array([[ 3. ],
           [30.5]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = (
        *("n_inputs", "n_neurons", "n_members", "dtype", "weight_initializer", "bias_initializer"),
    )

    _kernel: ClassVar[str] = "member_dense"

    weight_initializer: str | float | None = "book"
    bias_initializer: str | float | None = "zeros"
    _n_neurons: int

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        n_members: int,
        dtype: DTypeLike = None,
        weight_initializer: Initializer = "book",
        bias_initializer: Initializer = "zeros",
    ) -> None:
        self._configure(n_inputs, n_neurons, n_members, dtype, weight_initializer, bias_initializer)
        drawn = [
            initializers.parameters(
                *("Layer_MemberDense", self._n_inputs, self._n_neurons, self.dtype),
                *(weight_initializer, bias_initializer),
            )
            for _ in range(self._n_members)
        ]
        self.weights = np.concatenate([weights for weights, _ in drawn])
        self.biases = np.concatenate([biases for _, biases in drawn])

    def _configure(
        self,
        n_inputs: int,
        n_neurons: int,
        n_members: int,
        dtype: DTypeLike,
        weight_initializer: Initializer,
        bias_initializer: Initializer,
    ) -> None:
        """Set everything except the parameters. A model file brings its own, so loading one draws no random number."""
        where = "Layer_MemberDense"
        self._take_sizes(n_inputs, n_members)
        self._n_neurons = check.whole(where, "n_neurons", n_neurons, 1, MAX_COLUMNS)
        self.dtype = config.float_dtype(where, dtype)
        self.weight_initializer = initializers.kept(where, "weight_initializer", weight_initializer)
        self.bias_initializer = initializers.kept(where, "bias_initializer", bias_initializer)

    @property
    def n_neurons(self) -> int:
        """Columns of the output."""
        return self._n_neurons

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output``, a row for each row of the inputs.

        Parameters
        ----------
        inputs : array (n · n_members, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            If False, the layer uses ``weight_averages`` and ``bias_averages`` if there are any.
        """
        self._compute("Layer_MemberDense.forward", inputs, training, own_products)

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights``, ``dbiases`` and ``dinputs`` from the gradient of the loss by ``output``.

        Parameters
        ----------
        dvalues : array of the shape of ``output``
        """
        where = "Layer_MemberDense.backward"
        weights, biases = self._checked_parameters(where)
        inputs = self._given_rows(where, check.stored(where, self, "inputs"), weights)
        dvalues = check.rows(where, "dvalues", dvalues, self._n_neurons, weights.dtype, len(inputs))
        dweights, dbiases, dinputs = map(_kernels.empty_like, (weights, biases, inputs))
        n, k = self._n_inputs, self._n_members
        backend = _kernels.backend
        for m in range(k):
            own, given = np.array(inputs[m::k], order="C"), np.array(dvalues[m::k], order="C")
            of_weights, of_inputs = dweights[m * n : (m + 1) * n], _kernels.empty_like(own)
            backend.dense_backward_weights(own, given, weights[m * n : (m + 1) * n], of_weights, 0.0, 0.0)
            backend.dense_backward_biases(given, biases[m : m + 1], dbiases[m : m + 1], 0.0, 0.0)
            backend.dense_backward_inputs(given, weights[m * n : (m + 1) * n], of_inputs)
            dinputs[m::k] = of_inputs
        self.dweights, self.dbiases, self.dinputs = dweights, dbiases, dinputs

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        return (self._n_members * self._n_inputs, self._n_neurons), (self._n_members, self._n_neurons)

    def _widths(self) -> Widths:
        return self._n_inputs, self._n_neurons


# Formulas


def by_member(rows: Array, n_members: int) -> Array:
    """Return rows as (samples, members, columns), a view."""
    return rows.reshape(len(rows) // n_members, n_members, rows.shape[1])


def repeated(inputs: Array, weights: Array) -> Array:
    """``output[i·k + m] := inputs[i] · weights[m]``; (n, c), (k, c) in, (n·k, c) out."""
    with np.errstate(all="ignore"):
        return (inputs[:, None, :] * weights).reshape(-1, inputs.shape[1])


def scaled(inputs: Array, weights: Array, biases: Array) -> Array:
    """``output[i·k + m] := inputs[i·k + m] · weights[m] + biases[m]``; (n·k, c), two (k, c) in, (n·k, c) out."""
    with np.errstate(all="ignore"):
        return (by_member(inputs, len(weights)) * weights + biases).reshape(inputs.shape)


def own_products(inputs: Array, weights: Array, biases: Array) -> Array:
    """``output[i·k + m] := inputs[i·k + m] · weights_m + biases[m]``; (n·k, c), (k·c, d), (k, d) in, (n·k, d) out."""
    k, n = len(biases), inputs.shape[1]
    output = _kernels.empty(len(inputs), biases.shape[1], weights.dtype)
    for m in range(k):
        own = np.array(inputs[m::k], order="C")
        made = _kernels.empty(len(own), biases.shape[1], weights.dtype)
        _kernels.backend.dense_forward(own, weights[m * n : (m + 1) * n], biases[m : m + 1], made)
        output[m::k] = made
    return output


def mean_of_members(outputs: Array, n_members: int) -> Array:
    """Return the mean over the members, summed in double in their order; (n·k, ...) in, (n, ...) out."""
    given = outputs.reshape(len(outputs) // n_members, n_members, *outputs.shape[1:])
    with np.errstate(all="ignore"):
        total = given[:, 0].astype(np.float64)
        for m in range(1, n_members):
            total += given[:, m]
        return np.array(total / n_members, outputs.dtype, order="C")


def _sum(values: Array, axis: int) -> Array:
    """Return a sum along an axis, summed in double."""
    total: Array = np.add.reduce(values, axis=axis, dtype=np.float64).astype(values.dtype)
    return total
