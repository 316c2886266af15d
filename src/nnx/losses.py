"""Losses: `Loss`, the base of one's own, and the four of the book; softmax and cross-entropy combined.

The built-in losses share one forward and one backward; each adds its kernels' name and what it accepts as targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, overload

import numpy as np

from nnx import _kernels
from nnx._base import check as _check
from nnx._base import config as _config
from nnx._base.describe import Described
from nnx._base.typing import Array, ArrayLike, FloatDType
from nnx.activations import Activation_Softmax


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

    #: The kernels are this and ``_forward`` or ``_backward``.
    _kernel: ClassVar[str]

    def forward(self, y_pred: ArrayLike, y_true: ArrayLike) -> Array:
        """Return the loss of each sample, shape (n,); y_pred (n, outputs)."""
        where = type(self).__name__ + ".forward"
        y_pred = _check.matrix(where, "y_pred", y_pred)
        targets = self._targets(where, "y_true", y_true, y_pred.shape, y_pred.dtype)
        sample_losses = np.empty(len(y_pred), y_pred.dtype)
        getattr(_kernels.backend, self._kernel + "_forward")(y_pred, targets, sample_losses)
        return sample_losses

    def backward(self, dvalues: ArrayLike, y_true: ArrayLike) -> None:
        """Set ``dinputs`` to the gradient of the mean loss by the predictions, which come in as ``dvalues``."""
        where = type(self).__name__ + ".backward"
        y_pred = _check.matrix(where, "dvalues", dvalues, least=1)
        targets = self._targets(where, "y_true", y_true, y_pred.shape, y_pred.dtype)
        dinputs = _kernels.empty_like(y_pred)
        getattr(_kernels.backend, self._kernel + "_backward")(y_pred, targets, dinputs)
        self.dinputs = dinputs

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        """Return ``y`` as the kernels take it for predictions of ``shape`` and ``dtype``."""
        return _check.targets(where, name, y, shape, dtype)


class Loss_CategoricalCrossentropy(KernelLoss):
    """Categorical cross-entropy: −log of the probability of the right class, kept within [1e-7, 1 − 1e-7].

    Labels are class numbers, shape (n,) or (n, 1), of any integer dtype, or one-hot rows, shape (n, classes).

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

    _kernel = "categorical_crossentropy"

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        return _check.labels(where, name, y, shape[0], shape[1])


class Loss_BinaryCrossentropy(KernelLoss):
    """Binary cross-entropy, the mean over outputs of −(y·log p + (1 − y)·log(1 − p)), p kept within [1e-7, 1 − 1e-7].

    Targets are numbers from 0 to 1 of the predictions' shape; shape (n,) serves for (n, 1).

    Notes
    -----
    Chapter 16 of the book. ``backward`` clips predictions as ``forward`` does. Behind `Activation_Sigmoid` in a
    `Model` the gradient of both together, (p − y) / (n·outputs), is used: it does not vanish where p rounds to 0 or 1.
    """

    _kernel = "binary_crossentropy"

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        return _check.probabilities(where, name, _check.targets(where, name, y, shape, dtype))


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
        loss_sum, _ = _kernels.backend.softmax_crossentropy(inputs, labels, output, None)
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
        """Set ``dinputs`` to (p − onehot) / n; dvalues are the probabilities p."""
        where = "Activation_Softmax_Loss_CategoricalCrossentropy.backward"
        output = _check.matrix(where, "dvalues", dvalues, least=1)
        labels = _check.labels(where, "y_true", y_true, *output.shape)
        dinputs = _kernels.empty_like(output)
        _kernels.backend.softmax_crossentropy_backward(output, labels, dinputs)
        self.dinputs = dinputs


class Activation_Sigmoid_Loss_BinaryCrossentropy:
    """The common gradient of sigmoid and binary cross-entropy, (p − y) / (n·outputs).

    `Model` uses it; in two steps the gradient of a wrong label would vanish from a logit of 17 on, where p rounds to 1.
    """

    dinputs: Array

    def backward(self, dvalues: Array, y_true: Array) -> None:
        """Set ``dinputs``; dvalues are the probabilities p."""
        where = "Loss_BinaryCrossentropy.backward"
        output = _check.matrix(where, "dvalues", dvalues, least=1)
        targets = Loss_BinaryCrossentropy()._targets(where, "y_true", y_true, output.shape, output.dtype)
        dinputs = _kernels.empty_like(output)
        _kernels.backend.sigmoid_binary_crossentropy_backward(output, targets, dinputs)
        self.dinputs = dinputs
