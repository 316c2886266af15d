"""The activations. Their definitions are in `_kernels/_numpy/activations.py`, their vector code in
`_kernels/native/elementwise/activations.pxi`.

They share one forward and one backward. Each adds its kernel's name, what its backward starts from, its settings, and
what it predicts. float32 and float64 inputs keep their dtype; other numbers become the default dtype.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from nnx import _kernels
from nnx._base import check, config
from nnx._base.describe import Described
from nnx._base.parameters import WithWeights, filled
from nnx._base.typing import Array, ArrayLike, DTypeLike
from nnx._base.vocabulary import built_in
from nnx._base.widths import Widths

__all__ = [
    "Activation_ELU",
    "Activation_GELU",
    "Activation_HardSigmoid",
    "Activation_HardSwish",
    "Activation_LeakyReLU",
    "Activation_Linear",
    "Activation_Mish",
    "Activation_PReLU",
    "Activation_ReLU",
    "Activation_SELU",
    "Activation_SiLU",
    "Activation_Sigmoid",
    "Activation_Softmax",
    "Activation_Softplus",
    "Activation_Tanh",
]


class ActivationBase(Described):
    """What all activations have, also those with parameters."""

    inputs: Array
    output: Array
    dinputs: Array

    def predictions(self, outputs: ArrayLike) -> Any:
        """Return ``outputs``."""
        return outputs


class Activation(ActivationBase):
    """The common part of activations without parameters: check, allocate, call the kernel."""

    #: The kernel's name.
    _kernel: ClassVar[str]
    #: The attribute that backward starts from: "inputs" or "output".
    _backward_from: ClassVar[str]
    #: What it predicts as the last layer: "classes", "binary" (zeros and ones), "numbers", or nothing in particular.
    _predicts: ClassVar[str] = ""

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output``, of the shape of the inputs.

        Parameters
        ----------
        inputs : array (n, ...)
            Kept as ``inputs`` for ``backward``. float32 and float64 inputs keep their dtype; other numbers become the
            default dtype.
        training : bool
            Makes no difference.
        """
        settings = self._settings()
        if _kernels.backend.call_activation_forward(self, self._kernel, inputs, settings):
            return
        values = self._checked(type(self).__name__ + ".forward", "inputs", inputs)
        output = _kernels.empty_like(values)
        _kernels.backend.activation_forward(self._kernel, values, output, settings)
        self.inputs = values
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs``, the gradient of the loss by the inputs.

        Parameters
        ----------
        dvalues : array of the shape of ``output``
            The gradient of the loss by ``output``.
        """
        name, settings = self._backward_from, self._settings()
        source = getattr(self, name, None)
        if _kernels.backend.call_activation_backward(self, self._kernel, source, dvalues, settings):
            return
        where = type(self).__name__ + ".backward"
        values = self._checked(where, name, check.stored(where, self, name))
        dvalues = check.like(where, "dvalues", dvalues, values)
        dinputs = _kernels.empty_like(values)
        _kernels.backend.activation_backward(self._kernel, values, dvalues, dinputs, settings)
        self.dinputs = dinputs

    def _checked(self, where: str, name: str, value: ArrayLike) -> Array:
        return check.samples(where, name, value)

    def _settings(self) -> tuple[float, ...]:
        """Return the kernel's settings, checked: users may have assigned anything."""
        return ()


@built_in("layer")
class Activation_ReLU(Activation):
    """Rectified linear unit: ``output = max(0, inputs)``.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Chapter 4 of the book; its derivative at 0 is 0 (chapter 9).
    """

    _kernel = "relu"
    _backward_from = "output"


@built_in("layer")
class Activation_Softmax(Activation):
    """Softmax over each row: exponentials divided by their sum, so that a row holds class probabilities.

    Attributes
    ----------
    inputs, output : arrays (n, classes)
        After ``forward``.
    dinputs : array (n, classes)
        After ``backward``.

    Notes
    -----
    Chapter 4 of the book. The largest input of a row is subtracted first, so nothing overflows. ``backward`` uses the
    closed form pⱼ·(dⱼ − Σ p·d) instead of a Jacobian matrix for each row.

    Examples
    --------
    >>> from nnx import Activation_Softmax
    >>> softmax = Activation_Softmax()
    >>> softmax.forward([[1000, 1000], [0, 1000]])
    >>> softmax.output
    array([[0.5, 0.5],
           [0. , 1. ]], dtype=float32)
    """

    _kernel = "softmax"
    _backward_from = "output"
    _predicts = "classes"

    def _checked(self, where: str, name: str, value: ArrayLike) -> Array:
        return check.matrix(where, name, value)

    def predictions(self, outputs: ArrayLike) -> Array:
        """Return the class number with the largest probability, shape (n,)."""
        outputs = check.plain("Activation_Softmax.predictions", "outputs", outputs)
        if outputs.ndim != 2:
            raise ValueError(
                f"Activation_Softmax.predictions: outputs must have shape (n, classes), got {outputs.shape}."
            )
        if not _kernels.readable(outputs, (None, None), None):
            return np.asarray(np.argmax(outputs, axis=1))
        classes = np.empty(len(outputs), np.intp)
        _kernels.backend.argmax(outputs, classes)
        return classes


@built_in("layer")
class Activation_Sigmoid(Activation):
    """Sigmoid: ``output = 1 / (1 + exp(−inputs))``.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Chapter 16 of the book. Large negative inputs give the correct, tiny values, without overflow.
    """

    _kernel = "sigmoid"
    _backward_from = "output"
    _predicts = "binary"

    def predictions(self, outputs: ArrayLike) -> Array:
        """Return 1 where the output is above 0.5, else 0."""
        return (check.plain("Activation_Sigmoid.predictions", "outputs", outputs) > 0.5) * 1


@built_in("layer")
class Activation_Linear(Activation):
    """The identity, for the last layer of a regression.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``. They are the same array.
    dinputs : array
        After ``backward``: a copy of ``dvalues``.

    Notes
    -----
    Chapter 17 of the book.
    """

    _kernel = "linear"
    _backward_from = "output"
    _predicts = "numbers"

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to ``inputs``."""
        inputs = check.samples("Activation_Linear.forward", "inputs", inputs)
        self.inputs = inputs
        self.output = inputs

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs`` to a copy of ``dvalues``."""
        dvalues = check.samples("Activation_Linear.backward", "dvalues", dvalues)
        dinputs = _kernels.empty_like(dvalues)
        _kernels.backend.activation_backward("linear", dvalues, dvalues, dinputs)
        self.dinputs = dinputs


@built_in("layer")
class Activation_Tanh(Activation):
    """Hyperbolic tangent: ``output = tanh(inputs)``, from −1 to 1.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    The derivative is (1 − y)·(1 + y) with y = ``output``. It is ``torch.nn.Tanh``.

    Examples
    --------
    >>> from nnx import Activation_Tanh
    >>> tanh = Activation_Tanh()
    >>> tanh.forward([[-1, 0, 1]])
    >>> tanh.output.round(4)
    array([[-0.7616,  0.    ,  0.7616]], dtype=float32)
    """

    _kernel = "tanh"
    _backward_from = "output"


@built_in("layer")
class Activation_LeakyReLU(Activation):
    """Leaky rectified linear unit: ``output = inputs``, or ``slope · inputs`` below 0.

    Parameters
    ----------
    slope : float
        The factor of inputs below 0. At least 0.

    Attributes
    ----------
    slope : float
        As given. You may assign another number.
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For a slope that is not a finite number of at least 0.

    Notes
    -----
    Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models (2013). The derivative at 0 is
    ``slope``. It is ``torch.nn.LeakyReLU``, where ``slope`` is called ``negative_slope``.

    Examples
    --------
    >>> from nnx import Activation_LeakyReLU
    >>> leaky = Activation_LeakyReLU(slope=0.1)
    >>> leaky.forward([[-2, 0, 2]])
    >>> leaky.output
    array([[-0.2,  0. ,  2. ]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("slope",)

    _kernel = "leaky_relu"
    _backward_from = "output"

    slope: float = 0.01

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = check.number("Activation_LeakyReLU", "slope", slope, 0)

    def _settings(self) -> tuple[float, ...]:
        return (float(check.number(type(self).__name__, "slope", self.slope, 0)),)


@built_in("layer")
class Activation_ELU(Activation):
    """Exponential linear unit: ``output = inputs``, or ``alpha · (exp(inputs) − 1)`` below 0.

    Parameters
    ----------
    alpha : float
        At least 0. The output is above −alpha.

    Attributes
    ----------
    alpha : float
        As given. You may assign another number.
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For an alpha that is not a finite number of at least 0.

    Notes
    -----
    Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by exponential linear units (2016),
    arXiv:1511.07289. Where inputs are not above 0, the derivative is ``output + alpha``. It is ``torch.nn.ELU``.

    Examples
    --------
    >>> from nnx import Activation_ELU
    >>> elu = Activation_ELU()
    >>> elu.forward([[-1, 0, 1]])
    >>> elu.output.round(4)
    array([[-0.6321,  0.    ,  1.    ]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("alpha",)

    _kernel = "elu"
    _backward_from = "output"

    alpha: float = 1.0

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = check.number("Activation_ELU", "alpha", alpha, 0)

    def _settings(self) -> tuple[float, ...]:
        return (float(check.number(type(self).__name__, "alpha", self.alpha, 0)),)


@built_in("layer")
class Activation_SELU(Activation):
    """Scaled exponential linear unit: ``scale · inputs``, or ``scale · alpha · (exp(inputs) − 1)`` below 0.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Klambauer, Unterthiner, Mayr and Hochreiter, Self-normalizing neural networks (2017), arXiv:1706.02515. With scale =
    1.0507009873554805 and alpha = 1.6732632423543772, inputs of mean 0 and variance 1 give outputs of mean 0 and
    variance 1. It is ``torch.nn.SELU``.

    Examples
    --------
    >>> from nnx import Activation_SELU
    >>> selu = Activation_SELU()
    >>> selu.forward([[-1, 0, 1]])
    >>> selu.output.round(4)
    array([[-1.1113,  0.    ,  1.0507]], dtype=float32)
    """

    _kernel = "selu"
    _backward_from = "output"


@built_in("layer")
class Activation_GELU(Activation):
    """Gaussian error linear unit: ``output = inputs · Φ(inputs)``, Φ(x) = (1 + erf(x/√2)) / 2.

    Φ(x) is the probability that a standard normal number is less than x.

    Parameters
    ----------
    approximate : bool
        Whether to use (1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2 instead of Φ(x). They differ by at most 0.0003.

    Attributes
    ----------
    approximate : bool
        As given. You may assign another value.
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Raises
    ------
    TypeError
        If ``approximate`` is not True or False.

    Notes
    -----
    Hendrycks and Gimpel, Gaussian error linear units (2016), arXiv:1606.08415. It is ``torch.nn.GELU``, where
    ``approximate="tanh"`` stands for True. The compiled kernels give Φ with an absolute error of at most 1e-7 in
    float32 and 2e-16 in float64.

    Examples
    --------
    >>> from nnx import Activation_GELU
    >>> gelu = Activation_GELU()
    >>> gelu.forward([[-1, 0, 1]])
    >>> gelu.output.round(4)
    array([[-0.1587,  0.    ,  0.8413]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("approximate",)

    _kernel = "gelu"
    _backward_from = "inputs"

    approximate: bool = False

    def __init__(self, approximate: bool = False) -> None:
        self.approximate = check.flag("Activation_GELU", "approximate", approximate)

    def _settings(self) -> tuple[float, ...]:
        return (float(check.flag(type(self).__name__, "approximate", self.approximate)),)


@built_in("layer")
class Activation_SiLU(Activation):
    """Sigmoid linear unit, or swish: ``output = inputs / (1 + exp(−inputs))``.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Elfwing, Uchibe and Doya, Sigmoid-weighted linear units (2017), arXiv:1702.03118. With s the sigmoid of x, the
    derivative is s + x·s·(1 − s). It is ``torch.nn.SiLU``, except that −inf gives 0.

    Examples
    --------
    >>> from nnx import Activation_SiLU
    >>> silu = Activation_SiLU()
    >>> silu.forward([[-1, 0, 1]])
    >>> silu.output.round(4)
    array([[-0.2689,  0.    ,  0.7311]], dtype=float32)
    """

    _kernel = "silu"
    _backward_from = "inputs"


@built_in("layer")
class Activation_Mish(Activation):
    """Mish: ``output = inputs · tanh(log(1 + exp(inputs)))``.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Misra, Mish: a self regularized non-monotonic activation function (2019), arXiv:1908.08681. It is ``torch.nn.Mish``,
    except that −inf gives 0.

    Examples
    --------
    >>> from nnx import Activation_Mish
    >>> mish = Activation_Mish()
    >>> mish.forward([[-1, 0, 1]])
    >>> mish.output.round(4)
    array([[-0.3034,  0.    ,  0.8651]], dtype=float32)
    """

    _kernel = "mish"
    _backward_from = "inputs"


@built_in("layer")
class Activation_Softplus(Activation):
    """Softplus: ``output = log(1 + exp(inputs))``, a smooth ReLU.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Dugas, Bengio, Bélisle, Nadeau and Garcia, Incorporating second-order functional knowledge for better option pricing
    (2000). The derivative is the sigmoid. It is ``torch.nn.Softplus`` with its default ``beta``. Above its
    ``threshold`` of 20, PyTorch's class returns the inputs.

    Examples
    --------
    >>> from nnx import Activation_Softplus
    >>> softplus = Activation_Softplus()
    >>> softplus.forward([[-1, 0, 1]])
    >>> softplus.output.round(4)
    array([[0.3133, 0.6931, 1.3133]], dtype=float32)
    """

    _kernel = "softplus"
    _backward_from = "inputs"


@built_in("layer")
class Activation_HardSigmoid(Activation):
    """Hard sigmoid: ``output = min(6, max(0, inputs + 3)) / 6``.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Howard and others, Searching for MobileNetV3 (2019), arXiv:1905.02244. The derivative is 1/6 where the output is
    between 0 and 1, else 0. It is ``torch.nn.Hardsigmoid``. As a last layer, it predicts its outputs as they are, not
    zeros and ones.

    Examples
    --------
    >>> from nnx import Activation_HardSigmoid
    >>> hard = Activation_HardSigmoid()
    >>> hard.forward([[-4, 0, 1.5, 4]])
    >>> hard.output
    array([[0.  , 0.5 , 0.75, 1.  ]], dtype=float32)
    """

    _kernel = "hard_sigmoid"
    _backward_from = "output"


@built_in("layer")
class Activation_HardSwish(Activation):
    """Hard swish: ``output = inputs · min(6, max(0, inputs + 3)) / 6``.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Howard and others, Searching for MobileNetV3 (2019), arXiv:1905.02244. The derivative is x/3 + 1/2 between −3 and 3,
    0 at and below −3, 1 at and above 3. It is ``torch.nn.Hardswish``, except that −inf gives 0.

    Examples
    --------
    >>> from nnx import Activation_HardSwish
    >>> hard = Activation_HardSwish()
    >>> hard.forward([[-4, -1.5, 1.5, 4]])
    >>> hard.output
    array([[ 0.   , -0.375,  1.125,  4.   ]], dtype=float32)
    """

    _kernel = "hard_swish"
    _backward_from = "inputs"


@built_in("layer")
class Activation_PReLU(ActivationBase, WithWeights):
    """Parametric rectified linear unit: ``output = inputs``, or ``weights · inputs`` below 0, with learnt slopes.

    Parameters
    ----------
    n_inputs : int
        1 for one slope for all inputs. Otherwise the number of columns of the inputs: each column has its own slope.
    slope : float
        The initial value of all slopes.
    dtype : "float32" or "float64", optional
        The dtype of slopes and results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    weights : array (1, n_inputs)
        The slopes, trained in place. If you assign an array of another dtype or layout, the layer casts it at its next
        use.
    inputs, output : arrays (n, ...), or (n, n_inputs) with a slope for each column
        After ``forward``.
    dweights, dinputs : arrays of the shapes of weights and inputs
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For a number of inputs below 1, a slope that is not a finite number, and other dtypes.

    Notes
    -----
    He, Zhang, Ren and Sun, Delving deep into rectifiers (2015), arXiv:1502.01852. The slope's gradient is the sum of
    ``dvalues · inputs`` over all inputs below 0. It is ``torch.nn.PReLU``, whose arguments are called
    ``num_parameters`` and ``init``. An optimizer's weight decay pulls slopes towards 0, too.

    Examples
    --------
    >>> from nnx import Activation_PReLU
    >>> prelu = Activation_PReLU()
    >>> prelu.forward([[-2, 1], [-1, 3]])
    >>> prelu.output
    array([[-0.5 ,  1.  ],
           [-0.25,  3.  ]], dtype=float32)
    >>> prelu.backward([[1, 1], [1, 1]])
    >>> prelu.dweights
    array([[-3.]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "slope", "dtype")

    _kernel: ClassVar[str] = "prelu"
    _must: ClassVar[str] = "have a slope for each of the {} outputs of what is before it, or one for all"

    n_inputs: int | None = None
    slope: float = 0.25

    def __init__(self, n_inputs: int = 1, slope: float = 0.25, dtype: DTypeLike = None) -> None:
        self._configure(n_inputs, slope, dtype)
        self.weights = filled(int(n_inputs), self._float_dtype(), self.slope)

    def _configure(self, n_inputs: int, slope: float, dtype: DTypeLike) -> None:
        """Set everything except the parameter: a model file brings its own."""
        self.n_inputs = check.whole("Activation_PReLU", "n_inputs", n_inputs)
        self.slope = check.number("Activation_PReLU", "slope", slope)
        self.dtype = config.float_dtype("Activation_PReLU", dtype)

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` from inputs (n, ...). If not ``training``, use ``weight_averages`` if there are any."""
        where = "Activation_PReLU.forward"
        (weights,) = self._parameters_for(where, training)
        inputs = self._fitting(where, inputs, weights)
        output = _kernels.empty_like(inputs)
        _kernels.backend.prelu_forward(inputs, weights, output)
        self.inputs = inputs
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights`` and ``dinputs`` from ``dvalues``, the gradient by the output."""
        where = "Activation_PReLU.backward"
        (weights,) = self._checked_parameters(where)
        inputs = self._fitting(where, check.stored(where, self, "inputs"), weights)
        dvalues = check.like(where, "dvalues", dvalues, inputs)
        dweights, dinputs = _kernels.empty_like(weights), _kernels.empty_like(inputs)
        _kernels.backend.prelu_backward_weights(inputs, dvalues, dweights)
        _kernels.backend.prelu_backward_inputs(inputs, dvalues, weights, dinputs)
        self.dweights, self.dinputs = dweights, dinputs

    def _fitting(self, where: str, inputs: ArrayLike, weights: Array) -> Array:
        """Return the inputs, checked: they have a slope for each column, or one slope for all."""
        if weights.size == 1:
            return check.samples(where, "inputs", inputs, weights.dtype)
        return check.rows(where, "inputs", inputs, weights.size, weights.dtype)

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        return ((1, check.whole(where, "n_inputs", self.n_inputs)),)

    def _widths(self) -> Widths:
        n_inputs = self.n_inputs or 1
        return (None, None) if n_inputs == 1 else (n_inputs, n_inputs)
