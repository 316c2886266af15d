"""Layers: `Layer_Input` and `Layer_Dense`, and the names of all others, which are in separate files.

A layer owns its arrays as ordinary attributes. It calls kernels for all arithmetic and knows nothing of models.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nnx import _kernels, initializers
from nnx._base import check, config, precision
from nnx._base.describe import Described
from nnx._base.parameters import AVERAGED as AVERAGED
from nnx._base.parameters import WithBiases
from nnx._base.typing import Array, ArrayLike, DTypeLike
from nnx._base.vocabulary import built_in
from nnx._base.weights import penalty_scale
from nnx._base.widths import Widths
from nnx.embedding import Layer_Embedding
from nnx.encodings import Layer_Combinations, Layer_PiecewiseLinear, Layer_Thermometer
from nnx.initializers import Initializer
from nnx.member_layers import Layer_MemberDense, Layer_Members, Layer_MemberScale
from nnx.noise import Layer_Dropout, Layer_GaussianNoise
from nnx.norms import Layer_BatchNorm, Layer_LayerNorm, Layer_Scale
from nnx.periodic import Layer_Periodic
from nnx.residual import Layer_Residual
from nnx.residual import walk as walk
from nnx.splines import Layer_Spline

__all__ = [
    "Layer_BatchNorm",
    "Layer_Combinations",
    "Layer_Dense",
    "Layer_Dropout",
    "Layer_Embedding",
    "Layer_GaussianNoise",
    "Layer_Input",
    "Layer_LayerNorm",
    "Layer_MemberDense",
    "Layer_MemberScale",
    "Layer_Members",
    "Layer_Periodic",
    "Layer_PiecewiseLinear",
    "Layer_Residual",
    "Layer_Scale",
    "Layer_Spline",
    "Layer_Thermometer",
]

STRENGTHS = ("weight_regularizer_l1", "weight_regularizer_l2", "bias_regularizer_l1", "bias_regularizer_l2")
INITIALIZERS = ("weight_initializer", "bias_initializer")


class Layer_Input(Described):
    """The start of a model: its output is the input itself.

    Attributes
    ----------
    output : array
        The array given to ``forward``, not copied.
    """

    output: Array

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to ``inputs``."""
        self.output = inputs  # type: ignore[assignment]


@built_in("layer")
class Layer_Dense(WithBiases):
    """A fully connected layer: ``output = inputs · weights + biases``.

    By default, initial weights are ``0.01 * np.random.randn(n_inputs, n_neurons)`` from NumPy's global
    generator, and biases are 0.

    Parameters
    ----------
    n_inputs, n_neurons : int
        Columns of the inputs and of the output.
    weight_regularizer_l1, weight_regularizer_l2, bias_regularizer_l1, bias_regularizer_l2 : float
        Coefficients λ1, λ2 of the penalty ``λ1·Σ|w| + λ2·Σw²`` on the weights and on the biases.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.
    weight_initializer, bias_initializer : str, number or function, optional
        Initial weights and biases: a name from `nnx.initializers`, one number for all of them, or a function that takes
        their shape, (n_inputs, n_neurons) or (1, n_neurons), and returns an array of it.

    Attributes
    ----------
    weight_initializer, bias_initializer : str, number or None
        As given. A function is called by the constructor and not kept: it is None here and in model files. In the
        constructor, None is the default.
    weights, biases : arrays (n_inputs, n_neurons) and (1, n_neurons)
        Trained in place. If you assign an array of another dtype or layout, the layer casts it at its next use.
    weight_averages, bias_averages : arrays of the shapes of weights and biases
        Averages of weights and biases, kept by an optimizer with ``average``. ``forward`` uses them if not
        ``training``. `set_parameters` drops them, and so does the first step of an optimizer without ``average``.
        Delete them if you assign weights or biases.
    inputs, output : arrays (n, n_inputs) and (n, n_neurons)
        After ``forward``.
    dweights, dbiases, dinputs : arrays of the shapes of weights, biases and inputs
        After ``backward``: gradients of the loss, with those of the penalties.

    Raises
    ------
    TypeError, ValueError
        For sizes below 1, negative coefficients, other dtypes, unknown initializers, and functions that do not return
        an array of finite numbers of the right shape.

    Notes
    -----
    Chapters 3 (forward), 9 (backward) and 14 (regularization) of the book. The derivative of ``|w|`` at 0 is +1.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Layer_Dense
    >>> dense = Layer_Dense(2, 3)
    >>> dense.weights = np.ones((2, 3))
    >>> dense.forward([[1, 2], [3, 4]])
    >>> dense.output
    array([[3., 3., 3.],
           [7., 7., 7.]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "n_neurons", *STRENGTHS, "dtype", *INITIALIZERS)

    _kernel: ClassVar[str] = "dense"

    n_inputs: int | None = None
    n_neurons: int | None = None
    weight_regularizer_l1: float = 0
    weight_regularizer_l2: float = 0
    bias_regularizer_l1: float = 0
    bias_regularizer_l2: float = 0
    weight_initializer: str | float | None = "book"
    bias_initializer: str | float | None = "zeros"
    inputs: Array
    output: Array
    dinputs: Array

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        weight_regularizer_l1: float = 0,
        weight_regularizer_l2: float = 0,
        bias_regularizer_l1: float = 0,
        bias_regularizer_l2: float = 0,
        dtype: DTypeLike = None,
        weight_initializer: Initializer = "book",
        bias_initializer: Initializer = "zeros",
    ) -> None:
        self._configure(
            n_inputs,
            n_neurons,
            weight_regularizer_l1,
            weight_regularizer_l2,
            bias_regularizer_l1,
            bias_regularizer_l2,
            dtype,
            weight_initializer,
            bias_initializer,
        )
        self.weights, self.biases = initializers.parameters(
            "Layer_Dense", n_inputs, n_neurons, self.dtype, weight_initializer, bias_initializer
        )

    def _configure(
        self,
        n_inputs: int,
        n_neurons: int,
        weight_regularizer_l1: float,
        weight_regularizer_l2: float,
        bias_regularizer_l1: float,
        bias_regularizer_l2: float,
        dtype: DTypeLike,
        weight_initializer: Initializer = "book",
        bias_initializer: Initializer = "zeros",
    ) -> None:
        """Set everything except the parameters. A model file brings its own, so loading one draws no random number."""
        self.n_inputs = check.whole("Layer_Dense", "n_inputs", n_inputs)
        self.n_neurons = check.whole("Layer_Dense", "n_neurons", n_neurons)
        self.weight_regularizer_l1 = check.number("Layer_Dense", "weight_regularizer_l1", weight_regularizer_l1, 0)
        self.weight_regularizer_l2 = check.number("Layer_Dense", "weight_regularizer_l2", weight_regularizer_l2, 0)
        self.bias_regularizer_l1 = check.number("Layer_Dense", "bias_regularizer_l1", bias_regularizer_l1, 0)
        self.bias_regularizer_l2 = check.number("Layer_Dense", "bias_regularizer_l2", bias_regularizer_l2, 0)
        self.dtype = config.float_dtype("Layer_Dense", dtype)
        self.weight_initializer = initializers.kept("Layer_Dense", "weight_initializer", weight_initializer)
        self.bias_initializer = initializers.kept("Layer_Dense", "bias_initializer", bias_initializer)

    def _strengths(self, where: str) -> tuple[float, ...]:
        """Return the regularization coefficients, checked: users may have assigned anything."""
        given = (
            self.weight_regularizer_l1,
            self.weight_regularizer_l2,
            self.bias_regularizer_l1,
            self.bias_regularizer_l2,
        )
        if not all(type(strength) in (int, float) and strength == 0 for strength in given):
            return tuple([float(check.number(where, *pair, 0)) for pair in zip(STRENGTHS, given, strict=True)])
        return (0.0, 0.0, 0.0, 0.0)

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to ``inputs · weights + biases``.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            If False, the layer uses ``weight_averages`` and ``bias_averages`` if there are any.
        """
        if training and not precision.rounds() and _kernels.backend.call_dense_forward(self, inputs):
            return
        where = "Layer_Dense.forward"
        weights, biases = self._parameters_for(where, training)
        inputs = check.rows(where, "inputs", inputs, len(weights), weights.dtype)
        output = _kernels.empty(len(inputs), weights.shape[1], weights.dtype)
        x, w = _factors(where, inputs, weights)
        _kernels.backend.dense_forward(x, w, biases, output)
        self.inputs = inputs
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights``, ``dbiases`` and ``dinputs`` from the gradient of the loss by ``output``.

        That is the gradient of a ``forward`` in training: it ignores averages.

        Parameters
        ----------
        dvalues : array (n, n_neurons)
        """
        scale = penalty_scale()
        if not precision.rounds() and _kernels.backend.call_dense_backward(self, dvalues, scale):
            return
        where = "Layer_Dense.backward"
        weights, biases = self._checked_parameters(where)
        n_inputs, n_neurons = weights.shape
        inputs = check.rows(where, "inputs", check.stored(where, self, "inputs"), n_inputs, weights.dtype)
        dvalues = check.rows(where, "dvalues", dvalues, n_neurons, weights.dtype, len(inputs))
        weight_l1, weight_l2, bias_l1, bias_l2 = [strength * scale for strength in self._strengths(where)]
        dweights, dbiases, dinputs = map(_kernels.empty_like, (weights, biases, inputs))
        x, d, w = _factors(where, inputs, dvalues, weights)
        _kernels.backend.dense_backward_weights(x, d, weights, dweights, weight_l1, weight_l2)
        _kernels.backend.dense_backward_biases(d, biases, dbiases, bias_l1, bias_l2)
        _kernels.backend.dense_backward_inputs(d, w, dinputs)
        self.dweights, self.dbiases, self.dinputs = dweights, dbiases, dinputs

    def _checked_parameters(self, where: str, writing: bool = True) -> tuple[Array, Array]:
        """Return weights and biases, checked for kernels: users may have assigned anything.

        It refuses read-only arrays if ``writing``.
        """
        found = _kernels.dense_parameters(self)
        if found is not None:
            return found
        w, b = super()._checked_parameters(where, writing)
        return w, b

    def _cast(self, where: str, *given: ArrayLike, writing: bool = True) -> tuple[Array, ...]:
        if self.n_inputs is not None and self.n_neurons is not None:
            return super()._cast(where, *given, writing=writing)
        weights, biases = given
        dtype = self._float_dtype()
        w = check.updatable(where, "weights", weights, None, dtype, writing)  # if nobody called the constructor
        if w.ndim != 2:
            raise ValueError(f"{where}: weights must have shape (n_inputs, n_neurons), got {w.shape}.")
        return w, check.updatable(where, "biases", biases, (1, w.shape[1]), dtype, writing)

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        n_inputs, n_neurons = (check.whole(where, name, getattr(self, name)) for name in ("n_inputs", "n_neurons"))
        return (n_inputs, n_neurons), (1, n_neurons)

    def _widths(self) -> Widths | None:
        shape = np.shape(self.weights) if hasattr(self, "weights") else (self.n_inputs, self.n_neurons)
        return (shape[0], shape[1]) if len(shape) == 2 and None not in shape else None


def _factors(where: str, *arrays: Array) -> tuple[Array, ...]:
    """Return the factors of a product: the arrays as they are or, in bfloat16, rounded copies."""
    if not precision.rounds():
        return arrays
    if arrays[0].dtype != config.FLOAT32:
        raise ValueError(f"{where}: dtype must be float32 for products in bfloat16, got {arrays[0].dtype}.")
    rounded = tuple([_kernels.empty_like(array) for array in arrays])
    for array, copy in zip(arrays, rounded, strict=True):
        _kernels.backend.round_bfloat16(array, copy)
    return rounded
