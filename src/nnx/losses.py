"""Losses, each in one place: its class here, its definition in `_kernels/_numpy/losses.py`, its vectors in
`_kernels/native/elementwise/losses.pxi`. Also `Loss`, the base of custom ones, and softmax with cross-entropy in one.

The built-in losses share one forward and one backward; each adds its kernel's name, its settings, what it accepts as
targets, and the activation by whose inputs it can give the gradient as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, overload

import numpy as np

from nnx import _kernels
from nnx._base import check as _check
from nnx._base import config as _config
from nnx._base.describe import Described
from nnx._base.typing import Array, ArrayLike, FloatDType
from nnx._base.vocabulary import built_in
from nnx.activations import Activation_Sigmoid, Activation_Softmax

__all__ = [
    "Activation_Softmax_Loss_CategoricalCrossentropy",
    "Loss",
    "Loss_BinaryCrossentropy",
    "Loss_CategoricalCrossentropy",
    "Loss_MeanAbsoluteError",
    "Loss_MeanSquaredError",
]


class Loss(Described):
    """Base of all losses, and of one's own.

    A subclass defines ``forward(y_pred, y_true)``, which returns one loss a sample, shape (n,), and
    ``backward(dvalues, y_true)``, which sets ``dinputs``, the gradient of the mean loss (so divided by n). It need not
    call this class's constructor.

    Attributes
    ----------
    trainable_layers : sequence of layers
        Whose penalties ``regularization_loss()`` adds up; set by ``remember_trainable_layers``.
    accumulated_sum, accumulated_count : float, int
        Sum and number of the sample losses since ``new_pass``.
    dinputs : array
        After ``backward``.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Loss
    >>> class Loss_Quartic(Loss):
    ...     def forward(self, y_pred, y_true):
    ...         return np.mean((y_pred - y_true) ** 4, axis=-1)
    ...
    ...     def backward(self, dvalues, y_true):
    ...         self.dinputs = 4 * (dvalues - y_true) ** 3 / dvalues.size
    >>> float(Loss_Quartic().calculate(np.array([[1.0], [2.0]]), np.array([[1.0], [0.0]])))
    8.0
    """

    trainable_layers: Sequence[Any] = ()
    accumulated_sum: float = 0.0
    accumulated_count: int = 0
    dinputs: Array

    def forward(self, y_pred: Array, y_true: Array) -> Array:
        """Return one loss a sample, shape (n,)."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(y_pred, y_true).")

    def backward(self, dvalues: Array, y_true: Array) -> None:
        """Set ``dinputs`` to the gradient of the mean loss by the predictions, which come in as ``dvalues``."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward(dvalues, y_true).")

    def remember_trainable_layers(self, trainable_layers: Sequence[Any]) -> None:
        """Keep the layers whose penalties ``regularization_loss()`` adds up."""
        self.trainable_layers = trainable_layers

    def regularization_loss(self, layer: Any = None) -> float:
        """Return the penalty λ1·Σ|v| + λ2·Σv² over weights and biases.

        Parameters
        ----------
        layer : layer, optional
            Of this layer alone, as in chapter 14; without it, of all trainable layers together.
        """
        layers = self.trainable_layers if layer is None else (layer,)
        return sum((_penalty(each) for each in layers), 0.0)

    @overload
    def calculate(self, output: Any, y: Any, *, include_regularization: Literal[False] = ...) -> np.floating[Any]: ...
    @overload
    def calculate(
        self, output: Any, y: Any, *, include_regularization: bool
    ) -> np.floating[Any] | tuple[np.floating[Any], float]: ...
    def calculate(
        self, output: Any, y: Any, *, include_regularization: bool = False
    ) -> np.floating[Any] | tuple[np.floating[Any], float]:
        """Return the mean loss of a batch and add it to the pass.

        Parameters
        ----------
        output : array (n, outputs)
            Predictions.
        y : array
            What was to be predicted.
        include_regularization : bool
            Return a pair: the mean loss, and the penalty of the trainable layers.

        Returns
        -------
        NumPy scalar of the dtype of ``output``, summed in double.
        """
        sample_losses = np.asarray(self.forward(output, y))
        if sample_losses.ndim == 0 or sample_losses.size == 0:
            raise ValueError(
                f"{type(self).__name__}.calculate: forward must give one loss a sample for at least one sample, "
                f"got shape {sample_losses.shape}."
            )
        loss_sum = _kernels.backend.total(sample_losses)
        self._add(loss_sum, sample_losses.size)
        dtype = getattr(output, "dtype", sample_losses.dtype)
        if isinstance(dtype, np.dtype):
            dtype = dtype.newbyteorder("=")
        if dtype not in (_config.FLOAT32, _config.FLOAT64):
            dtype = _config.get_default_dtype()
        data_loss: np.floating[Any] = dtype.type(loss_sum / sample_losses.size)
        return (data_loss, self.regularization_loss()) if include_regularization else data_loss

    def _add(self, loss_sum: float, n: int) -> None:
        self.accumulated_sum += loss_sum
        self.accumulated_count += n

    def calculate_accumulated(self, *, include_regularization: bool = False) -> Any:
        """Return the mean loss over all samples since ``new_pass`` and, if asked for, the penalty as it is now."""
        if self.accumulated_count == 0:
            raise RuntimeError(
                f"{type(self).__name__}.calculate_accumulated: there is nothing to average yet. Call calculate first."
            )
        data_loss = np.float64(self.accumulated_sum / self.accumulated_count)
        return (data_loss, self.regularization_loss()) if include_regularization else data_loss

    def new_pass(self) -> None:
        """Forget the losses added up so far."""
        self.accumulated_sum = 0.0
        self.accumulated_count = 0


def _penalty(layer: Any) -> float:
    """Return a layer's penalty; a layer of one's own may lack any of the attributes."""
    where = "Loss.regularization_loss"
    penalty = 0.0
    for name, kind in (("weights", "weight"), ("biases", "bias")):
        l1 = getattr(layer, f"{kind}_regularizer_l1", 0)
        l2 = getattr(layer, f"{kind}_regularizer_l2", 0)
        values = getattr(layer, name, None)
        if values is not None and not all(type(strength) in (int, float) and strength == 0 for strength in (l1, l2)):
            l1 = float(_check.number(where, f"{kind}_regularizer_l1", l1, 0))
            l2 = float(_check.number(where, f"{kind}_regularizer_l2", l2, 0))
            penalty += _kernels.backend.regularization_loss(_check.array(where, name, values), l1, l2)
    return penalty


class KernelLoss(Loss):
    """The built-in losses' common part: check, allocate, call the kernel."""

    #: The kernel's name.
    _kernel: ClassVar[str]
    #: The activation by whose inputs it can give the gradient, if there is one.
    _pair: ClassVar[type | None] = None
    #: Whether it takes nothing but the output of that activation.
    _needs_pair: ClassVar[bool] = False
    #: "classes" or "numbers".
    _predicts: ClassVar[str] = "numbers"
    #: Whether the kernel gets targets as they are given, but for dtype and shape.
    _compares_as_given: ClassVar[bool] = True

    def forward(self, y_pred: ArrayLike, y_true: ArrayLike) -> Array:
        """Return the loss of each sample, shape (n,); y_pred (n, outputs)."""
        where = type(self).__name__ + ".forward"
        y_pred = _check.matrix(where, "y_pred", y_pred)
        targets = self._targets(where, "y_true", y_true, y_pred.shape, y_pred.dtype)
        settings = self._settings(where, y_pred.shape[1])
        sample_losses = np.empty(len(y_pred), y_pred.dtype)
        _kernels.backend.loss_forward(self._kernel, y_pred, targets, sample_losses, *settings)
        return sample_losses

    def backward(self, dvalues: ArrayLike, y_true: ArrayLike) -> None:
        """Set ``dinputs`` to the gradient of the mean loss by the predictions, which come in as ``dvalues``."""
        where = type(self).__name__ + ".backward"
        self.dinputs = self._gradient(_kernels.backend.loss_backward, where, dvalues, y_true)

    def _pair_gradient(self, where: str, output: ArrayLike, y_true: ArrayLike) -> Array:
        """Return the gradient of the mean loss by the inputs of the activation that it pairs with, from its output."""
        return self._gradient(_kernels.backend.pair_backward, where, output, y_true)

    def _gradient(self, kernel: Callable[..., None], where: str, y_pred: ArrayLike, y_true: ArrayLike) -> Array:
        y_pred = _check.matrix(where, "dvalues", y_pred, least=1)
        targets = self._targets(where, "y_true", y_true, y_pred.shape, y_pred.dtype)
        settings = self._settings(where, y_pred.shape[1])
        dinputs = _kernels.empty_like(y_pred)
        kernel(self._kernel, y_pred, targets, dinputs, *settings)
        return dinputs

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        """Return ``y`` as the kernel takes it for predictions of ``shape`` and ``dtype``."""
        return _check.targets(where, name, y, shape, dtype)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        """Return the kernel's settings, and numbers that belong to the outputs, float64 (n_outputs,), or None."""
        return (), None


@built_in("loss")
class Loss_CategoricalCrossentropy(KernelLoss):
    """Categorical cross-entropy: −log of the probability of the right class, kept within [1e-7, 1 − 1e-7].

    Labels are class numbers, shape (n,) or (n, 1), of any integer dtype, or one-hot rows, shape (n, classes).

    Parameters
    ----------
    label_smoothing : float
        s, from 0 up to, but not including, 1: of m classes each has the target s/m, and the label 1 − s more.

    Notes
    -----
    Chapter 5 of the book (forward) and 9 (backward). A label that is no class, and a row that is not one-hot, is an
    error that names it.

    Examples
    --------
    >>> from nnx import Loss_CategoricalCrossentropy
    >>> loss = Loss_CategoricalCrossentropy()
    >>> round(float(loss.calculate([[0.7, 0.1, 0.2], [0.1, 0.5, 0.4], [0.02, 0.9, 0.08]], [0, 1, 1])), 5)
    0.38506
    """

    _arguments: ClassVar[tuple[str, ...]] = ("label_smoothing",)
    _kernel = "categorical_crossentropy"
    _pair = Activation_Softmax
    _needs_pair = True
    _predicts = "classes"

    label_smoothing: float = 0.0

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = _check.fraction("Loss_CategoricalCrossentropy", "label_smoothing", label_smoothing)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        return (float(_check.fraction(where, "label_smoothing", self.label_smoothing)),), None

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        return _check.labels(where, name, y, shape[0], shape[1])


def _weights(where: str, value: Any) -> float | list[float]:
    """Return ``pos_weight``, checked: a number above 0, or a list of such."""
    given = value if isinstance(value, list | tuple | np.ndarray) else [value]
    weights = [float(_check.number(where, "pos_weight", each, 0)) for each in given]
    if not weights or 0 in weights:
        raise ValueError(f"{where}: pos_weight must be above 0, got {value!r}.")
    return weights if given is value else weights[0]


@built_in("loss")
class Loss_BinaryCrossentropy(KernelLoss):
    """Binary cross-entropy, the mean over outputs of −(y·log p + (1 − y)·log(1 − p)), p kept within [1e-7, 1 − 1e-7].

    Targets are numbers from 0 to 1 of the predictions' shape; shape (n,) serves for (n, 1).

    Parameters
    ----------
    label_smoothing : float
        s, from 0 up to, but not including, 1: targets become (1 − s)·y + s/2.
    pos_weight : float or sequence of float
        w, above 0: what positive targets weigh, in all outputs or in each: −(w·y·log p + (1 − y)·log(1 − p)).

    Notes
    -----
    Chapter 16 of the book. ``backward`` clips predictions as ``forward`` does. Behind `Activation_Sigmoid` in a
    `Model` the gradient of both together, (p − y) / (n·outputs), is used: it does not vanish where p rounds to 0 or 1.
    """

    _arguments: ClassVar[tuple[str, ...]] = ("label_smoothing", "pos_weight")
    _kernel = "binary_crossentropy"
    _pair = Activation_Sigmoid
    _needs_pair = True
    _predicts = "classes"

    label_smoothing: float = 0.0
    pos_weight: float | list[float] = 1.0

    def __init__(self, label_smoothing: float = 0.0, pos_weight: float | Sequence[float] = 1.0) -> None:
        where = "Loss_BinaryCrossentropy"
        self.label_smoothing = _check.fraction(where, "label_smoothing", label_smoothing)
        self.pos_weight = _weights(where, pos_weight)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        smoothing = (float(_check.fraction(where, "label_smoothing", self.label_smoothing)),)
        weights = _weights(where, self.pos_weight)
        if weights == 1:
            return smoothing, None
        if isinstance(weights, list) and len(weights) != n_outputs:
            raise ValueError(
                f"{where}: pos_weight must hold one number for each of {n_outputs} outputs, got {len(weights)}."
            )
        return smoothing, np.full(n_outputs, weights, np.float64)

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        return _check.probabilities(where, name, _check.targets(where, name, y, shape, dtype))


@built_in("loss")
class Loss_MeanSquaredError(KernelLoss):
    """Mean squared error: the mean over outputs of (y − p)².

    Targets have the predictions' shape; shape (n,) serves for (n, 1).

    Notes
    -----
    Chapter 17 of the book.

    Examples
    --------
    >>> from nnx import Loss_MeanSquaredError
    >>> float(Loss_MeanSquaredError().calculate([[0.0], [1.0], [2.0]], [0, 1, 5]))
    3.0
    """

    _kernel = "mean_squared_error"


@built_in("loss")
class Loss_MeanAbsoluteError(KernelLoss):
    """Mean absolute error: the mean over outputs of |y − p|.

    Targets have the predictions' shape; shape (n,) serves for (n, 1).

    Notes
    -----
    Chapter 17 of the book, whose backward has the opposite sign and so climbs; this one is the gradient of the loss.
    At y = p it is 0.
    """

    _kernel = "mean_absolute_error"


class Activation_Softmax_Loss_CategoricalCrossentropy(Described):
    """Softmax and categorical cross-entropy in one, whose common gradient is simply (p − onehot) / n.

    Attributes
    ----------
    activation : Activation_Softmax
    loss : Loss_CategoricalCrossentropy
    output : array (n, classes)
        Probabilities, after ``forward``.
    dinputs : array (n, classes)
        After ``backward``.

    Notes
    -----
    Chapter 9 of the book.

    Examples
    --------
    >>> from nnx import Activation_Softmax_Loss_CategoricalCrossentropy
    >>> combined = Activation_Softmax_Loss_CategoricalCrossentropy()
    >>> round(float(combined.forward([[0.0, 0.0]], [1])), 4)
    0.6931
    >>> combined.backward(combined.output, [1])
    >>> combined.dinputs
    array([[ 0.5, -0.5]], dtype=float32)
    """

    activation: Activation_Softmax
    loss: Loss_CategoricalCrossentropy
    output: Array
    dinputs: Array

    def __new__(cls, *args: Any, **kwargs: Any) -> Activation_Softmax_Loss_CategoricalCrossentropy:
        """Make the two parts here, not in ``__init__``, which a subclass need not call."""
        self = super().__new__(cls)
        self.activation = Activation_Softmax()
        self.loss = Loss_CategoricalCrossentropy()
        return self

    def __init__(self) -> None:
        pass

    def forward(self, inputs: ArrayLike, y_true: ArrayLike) -> np.floating[Any]:
        """Set ``output`` to the probabilities and return their mean loss; inputs (n, classes)."""
        if self._has_built_in_parts():
            logits = _check.matrix("Activation_Softmax.forward", "inputs", inputs)
            if len(logits) > 0:
                return self._forward(logits, y_true)
        self.activation.forward(inputs)
        output = self.activation.output
        loss = self.loss.calculate(output, y_true)
        self.output = output
        return loss

    def _forward(self, inputs: Array, y_true: ArrayLike) -> np.floating[Any]:
        """Do what the parts do one after the other, in one kernel."""
        labels = _check.labels("Loss_CategoricalCrossentropy.forward", "y_true", y_true, *inputs.shape)
        output = _kernels.empty_like(inputs)
        loss_sum, _ = _kernels.backend.softmax_crossentropy(inputs, labels, output, None, self._smoothing())
        self.loss._add(loss_sum, len(inputs))
        self.activation.inputs = inputs
        self.activation.output = self.output = output
        loss: np.floating[Any] = inputs.dtype.type(loss_sum / len(inputs))
        return loss

    def _has_built_in_parts(self) -> bool:
        activation, loss = self.activation, self.loss
        return (
            type(activation) is Activation_Softmax
            and type(loss) is Loss_CategoricalCrossentropy
            and "forward" not in activation.__dict__
            and not ("forward" in loss.__dict__ or "calculate" in loss.__dict__)
        )

    def backward(self, dvalues: ArrayLike, y_true: ArrayLike) -> None:
        """Set ``dinputs`` to (p − targets) / n; dvalues are the probabilities p."""
        where = "Activation_Softmax_Loss_CategoricalCrossentropy.backward"
        loss = Loss_CategoricalCrossentropy(self._smoothing())
        self.dinputs = loss._pair_gradient(where, dvalues, y_true)

    def _smoothing(self) -> float:
        """Return the loss's label smoothing; 0 for a loss of one's own, which need not have any."""
        smoothing: float = getattr(self.loss, "label_smoothing", 0.0)
        return smoothing
