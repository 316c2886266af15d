"""The losses. Their definitions are in `_kernels/_numpy/losses.py`, their vector code in
`_kernels/native/elementwise/losses.pxi`. Here are also `Loss`, the base of custom losses, and softmax with
cross-entropy in one class.

The built-in losses share one forward and one backward. Each adds its kernel's name, its settings, and the targets that
it accepts. Some also name an activation: they can return the gradient by the inputs of that activation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, overload

import numpy as np

from nnx import _kernels
from nnx._base import check, config
from nnx._base.describe import Described
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike, FloatDType
from nnx._base.vocabulary import built_in
from nnx._base.weights import checked_weights, weighted
from nnx.activations import Activation_Sigmoid, Activation_Softmax, ActivationBase
from nnx.layers import STRENGTHS

__all__ = [
    "Activation_Softmax_Loss_CategoricalCrossentropy",
    "Loss",
    "Loss_BinaryCrossentropy",
    "Loss_CategoricalCrossentropy",
    "Loss_Hinge",
    "Loss_Huber",
    "Loss_LogCosh",
    "Loss_MeanAbsoluteError",
    "Loss_MeanSquaredError",
    "Loss_Pinball",
    "Loss_Poisson",
]


#: The default of ``clip``, how near probabilities may come to 0 and 1 in logarithms: the book's value.
CLIP = 1e-7


class Loss(Described):
    """Base class of all losses. Derive custom ones from it.

    A subclass defines ``forward(y_pred, y_true)``, which returns one loss per sample, shape (n,), and
    ``backward(dvalues, y_true)``, which sets ``dinputs``, the gradient of the mean loss, and so divides by n. It need
    not call this class's constructor.

    Attributes
    ----------
    trainable_layers : sequence of layers
        The layers whose penalties ``regularization_loss()`` adds up. ``remember_trainable_layers`` sets them.
    accumulated_sum, accumulated_count : float, int
        Sum and number of the sample losses since ``new_pass``. If samples have weights: the sum of weighted losses, and
        the sum of the weights, a float.
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
    accumulated_count: float = 0
    dinputs: Array

    def forward(self, y_pred: Array, y_true: Array) -> Array:
        """Return one loss per sample, shape (n,).

        Parameters
        ----------
        y_pred : array (n, outputs)
            Predictions.
        y_true : array
            The targets, as given to `calculate`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define forward(y_pred, y_true).")

    def backward(self, dvalues: Array, y_true: Array) -> None:
        """Set ``dinputs`` to the gradient of the mean loss by the predictions.

        Parameters
        ----------
        dvalues : array (n, outputs)
            The predictions.
        y_true : array
            The targets.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define backward(dvalues, y_true).")

    def remember_trainable_layers(self, trainable_layers: Sequence[Any]) -> None:
        """Keep the layers whose penalties ``regularization_loss()`` adds up.

        Parameters
        ----------
        trainable_layers : sequence of layers
            Those with ``weights``.
        """
        self.trainable_layers = trainable_layers

    def regularization_loss(self, layer: Any = None) -> float:
        """Return the penalty ``λ1·Σ|v| + λ2·Σv²`` over weights and biases.

        Parameters
        ----------
        layer : layer, optional
            The layer whose penalty to return, as in chapter 14. If None, the penalty of all trainable layers together.
        """
        layers = self.trainable_layers if layer is None else (layer,)
        if _kernels.are_zero(layers, STRENGTHS):
            return 0.0
        return sum((_penalty(each) for each in layers), 0.0)

    @overload
    def calculate(
        self,
        output: Any,
        y: Any,
        *,
        include_regularization: Literal[False] = ...,
        sample_weight: ArrayLike | None = ...,
    ) -> np.floating[Any]: ...
    @overload
    def calculate(
        self, output: Any, y: Any, *, include_regularization: bool, sample_weight: ArrayLike | None = ...
    ) -> np.floating[Any] | tuple[np.floating[Any], float]: ...
    def calculate(
        self, output: Any, y: Any, *, include_regularization: bool = False, sample_weight: ArrayLike | None = None
    ) -> np.floating[Any] | tuple[np.floating[Any], float]:
        """Return the mean loss of a batch and add it to the pass.

        Parameters
        ----------
        output : array (n, outputs)
            Predictions.
        y : array
            The targets.
        include_regularization : bool
            Whether to return a pair: the mean loss, and the penalty of the trainable layers.
        sample_weight : array (n,), optional
            The weight w of each sample, at least 0. The mean is Σ w·loss / Σ w. If all weights are 0, it is 0.

        Returns
        -------
        NumPy scalar of the dtype of ``output``, summed in double.
        """
        sample_losses = np.asarray(self.forward(output, y))
        if sample_losses.ndim == 0 or sample_losses.size == 0:
            raise ValueError(
                f"{type(self).__name__}.calculate: forward must return one loss per sample, for at least one sample, "
                f"got shape {sample_losses.shape}."
            )
        count: float = sample_losses.size
        if sample_weight is not None:
            weights = checked_weights(
                f"{type(self).__name__}.calculate", "sample_weight", sample_weight, sample_losses.size
            )
            sample_losses = weighted(sample_losses.reshape(-1), weights)
            count = float(np.add.reduce(weights))
        loss_sum = _kernels.backend.total(sample_losses)
        self._add(loss_sum, count)
        dtype = getattr(output, "dtype", sample_losses.dtype)
        if dtype is not config.FLOAT32 and dtype is not config.FLOAT64:
            if isinstance(dtype, np.dtype):
                dtype = dtype.newbyteorder("=")
            if dtype not in (config.FLOAT32, config.FLOAT64):
                dtype = config.get_default_dtype()
        data_loss: np.floating[Any] = dtype.type(loss_sum / count if count else 0)
        return (data_loss, self.regularization_loss()) if include_regularization else data_loss

    def _add(self, loss_sum: float, count: float) -> None:
        self.accumulated_sum += loss_sum
        self.accumulated_count += count

    def calculate_accumulated(self, *, include_regularization: bool = False) -> Any:
        """Return the mean loss over all samples since ``new_pass``.

        Parameters
        ----------
        include_regularization : bool
            Whether to return a pair: that mean, and the present penalty of the trainable layers.

        Raises
        ------
        RuntimeError
            If there was no sample since then.
        """
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
    """Return a layer's penalty. A custom layer may lack any of the attributes."""
    where = "Loss.regularization_loss"
    penalty = 0.0
    for name, kind in (("weights", "weight"), ("biases", "bias")):
        l1 = getattr(layer, f"{kind}_regularizer_l1", 0)
        l2 = getattr(layer, f"{kind}_regularizer_l2", 0)
        values = getattr(layer, name, None)
        if values is not None and not all(type(strength) in (int, float) and strength == 0 for strength in (l1, l2)):
            l1 = float(check.number(where, f"{kind}_regularizer_l1", l1, 0))
            l2 = float(check.number(where, f"{kind}_regularizer_l2", l2, 0))
            penalty += _kernels.backend.regularization_loss(check.array(where, name, values), l1, l2)
    return penalty


class Answers(NamedTuple):
    """Which part of a model's outputs an accuracy or a report compares with targets.

    Attributes
    ----------
    every, begin : int
        Each ``every``-th column, from ``begin`` on.
    exponential : bool
        Whether to compare the exponentials of these columns, because outputs are logarithms.
    signs : bool
        Whether to compare 1 for outputs above 0, and 0 for others. Targets of −1 count as 0 then.
    """

    every: int = 1
    begin: int = 0
    exponential: bool = False
    signs: bool = False

    def of(self, outputs: Array, by_value: bool) -> Array:
        """Return the answers in outputs (n, m). It takes signs only if ``by_value``, or if there is one column."""
        if self.every > 1:
            outputs = outputs[:, self.begin :: self.every]
        if self.exponential:
            with np.errstate(over="ignore"):
                outputs = np.exp(np.asarray(outputs, np.float64))
        if self.signs and (by_value or outputs.shape[1:] == (1,)):
            outputs = np.asarray(outputs > 0).astype(np.intp)
        return outputs

    def targets(self, y: Array, n_outputs: int) -> Array:
        """Return targets (n,) or (n, ...) in the form that is compared with the answers of ``n_outputs`` outputs."""
        if self.every > 1 and y.shape[1:] == (n_outputs,):
            y = y[:, self.begin :: self.every]
        return np.asarray(y > 0).astype(np.intp) if self.signs else y


AS_THEY_ARE = Answers()

#: The limits of a loss's settings: float32 can hold them, and not all products with them overflow.
SMALLEST, LARGEST = 1e-30, 1e30


class KernelLoss(Loss):
    """The built-in losses' common part: check, allocate, call the kernel."""

    #: The kernel's name.
    _kernel: ClassVar[str]
    #: The activation by whose inputs it can return the gradient, if there is one.
    _pair: ClassVar[type | None] = None
    #: Whether it takes only the output of that activation.
    _needs_pair: ClassVar[bool] = False
    #: "classes" or "numbers".
    _predicts: ClassVar[str] = "numbers"
    #: Whether the kernel takes any numbers as targets, and gets them unchanged except for dtype and shape.
    _compares_as_given: ClassVar[bool] = True

    def forward(self, y_pred: ArrayLike, y_true: ArrayLike) -> Array:
        """Return the loss of each sample, shape (n,).

        Parameters
        ----------
        y_pred : array (n, outputs)
            Predictions.
        y_true : array
            The targets. Unless the class says otherwise, their shape is that of ``y_pred``; (n,) stands for (n, 1).
        """
        where = type(self).__name__ + ".forward"
        y_pred = check.matrix(where, "y_pred", y_pred)
        targets = self._targets(where, "y_true", y_true, y_pred.shape, y_pred.dtype)
        settings = self._settings(where, y_pred.shape[1])
        sample_losses = np.empty(len(y_pred), y_pred.dtype)
        _kernels.backend.loss_forward(self._kernel, y_pred, targets, sample_losses, *settings)
        return sample_losses

    def backward(self, dvalues: ArrayLike, y_true: ArrayLike) -> None:
        """Set ``dinputs`` to the gradient of the mean loss by the predictions.

        Parameters
        ----------
        dvalues : array (n, outputs)
            The predictions.
        y_true : array
            The targets, as ``forward`` takes them.
        """
        where = type(self).__name__ + ".backward"
        self.dinputs = self._gradient(_kernels.backend.loss_backward, where, dvalues, y_true)

    def _pair_gradient(self, where: str, output: ArrayLike, y_true: ArrayLike) -> Array:
        """Return the gradient of the mean loss by the inputs of the paired activation, given its output."""
        return self._gradient(_kernels.backend.pair_backward, where, output, y_true)

    def _gradient(self, kernel: Callable[..., None], where: str, y_pred: ArrayLike, y_true: ArrayLike) -> Array:
        y_pred = check.matrix(where, "dvalues", y_pred, least=1)
        targets = self._targets(where, "y_true", y_true, y_pred.shape, y_pred.dtype)
        settings = self._settings(where, y_pred.shape[1])
        dinputs = _kernels.empty_like(y_pred)
        kernel(self._kernel, y_pred, targets, dinputs, *settings)
        return dinputs

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        """Return ``y`` as the kernel takes it for predictions of ``shape`` and ``dtype``."""
        return check.targets(where, name, y, shape, dtype)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        """Return the kernel's settings, and a number for each output, float64 (n_outputs,), or None."""
        return (), None

    def _answers(self, predicts: str) -> Answers:
        """Return which part of the outputs is compared with targets, if the model predicts "classes" or "numbers"."""
        return Answers()


@built_in("loss")
class Loss_CategoricalCrossentropy(KernelLoss):
    """Categorical cross-entropy: −log of the probability of the right class, kept within [clip, 1 − clip].

    Labels are class numbers, shape (n,) or (n, 1), of any integer dtype, or one-hot rows, shape (n, classes).

    Parameters
    ----------
    label_smoothing : float
        s, at least 0 and below 1. Each of m classes has the target s/m, and the label has 1 − s more. The loss is −(1 −
        s)·log p_label − s/m·Σ log p_j, in training and in evaluation.
    clip : float
        How near probabilities may come to 0 and 1 in the logarithm: from 1e-30 to 0.1. They always stay below 1.

    Notes
    -----
    Chapters 5 (forward) and 9 (backward) of the book. Label smoothing is from Szegedy et al., *Rethinking the Inception
    architecture* (2016). A label that is not a class raises an error that names it, and so does a row that is not
    one-hot.

    Examples
    --------
    >>> from nnx import Loss_CategoricalCrossentropy
    >>> loss = Loss_CategoricalCrossentropy()
    >>> round(float(loss.calculate([[0.7, 0.1, 0.2], [0.1, 0.5, 0.4], [0.02, 0.9, 0.08]], [0, 1, 1])), 5)
    0.38506
    >>> smooth = Loss_CategoricalCrossentropy(label_smoothing=0.1)
    >>> round(float(smooth.calculate([[0.7, 0.1, 0.2], [0.1, 0.5, 0.4], [0.02, 0.9, 0.08]], [0, 1, 1])), 5)
    0.51015
    """

    _arguments: ClassVar[tuple[str, ...]] = ("label_smoothing", "clip")
    _kernel = "categorical_crossentropy"
    _pair = Activation_Softmax
    _needs_pair = True
    _predicts = "classes"

    label_smoothing: float = 0.0
    clip: float = CLIP

    def __init__(self, label_smoothing: float = 0.0, clip: float = CLIP) -> None:
        self.label_smoothing = check.fraction("Loss_CategoricalCrossentropy", "label_smoothing", label_smoothing)
        self.clip = _clip("Loss_CategoricalCrossentropy", clip)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        smoothing = float(check.fraction(where, "label_smoothing", self.label_smoothing))
        return (smoothing, _clip(where, self.clip)), None

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        return check.labels(where, name, y, shape[0], shape[1])


def _positive(where: str, name: str, value: Any) -> float:
    """Return ``value``, checked: a number above 0 that float32 can hold."""
    return float(check.number(where, name, value, SMALLEST, LARGEST))


def _clip(where: str, value: Any) -> float:
    """Return ``clip``, how near probabilities may come to 0 and 1."""
    return float(check.number(where, "clip", value, 1e-30, 0.1))


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _weights(where: str, value: Any) -> float | list[float]:
    """Return ``pos_weight``, checked: a number above 0, or a list of such numbers."""
    if not _is_sequence(value):
        return _positive(where, "pos_weight", value)
    if len(value) == 0:
        raise ValueError(f"{where}: pos_weight must hold at least one number, got none.")
    return [_positive(where, f"pos_weight[{number}]", each) for number, each in enumerate(value)]


@built_in("loss")
class Loss_BinaryCrossentropy(KernelLoss):
    """Binary cross-entropy, the mean over outputs of −(y·log p + (1 − y)·log(1 − p)), p kept within [clip, 1 − clip].

    Targets are numbers from 0 to 1 of the predictions' shape; shape (n,) stands for (n, 1).

    Parameters
    ----------
    label_smoothing : float
        s, at least 0 and below 1. Targets become (1 − s)·y + s/2.
    pos_weight : float or sequence of float
        w, above 0: the weight of positive targets, one for all outputs or one for each. The loss is −(w·y·log p + (1 −
        y)·log(1 − p)). Targets are smoothed first.
    factor : float
        A factor of loss and gradient, above 0. The number of outputs as ``factor`` turns the mean over outputs into
        their sum.
    clip : float
        How near p may come to 0 and 1 in the logarithms: from 1e-30 to 0.1. It always stays below 1.

    Notes
    -----
    Chapter 16 of the book. ``backward`` clips predictions as ``forward`` does. After `Activation_Sigmoid`, a `Model`
    uses the gradient of both together, ((1 − y)·p − w·y·(1 − p)) / (n·outputs). Without a weight it is (p − y) /
    (n·outputs). It does not vanish where p rounds to 0 or 1.

    Examples
    --------
    >>> from nnx import Loss_BinaryCrossentropy
    >>> round(float(Loss_BinaryCrossentropy().calculate([[0.8], [0.4]], [1, 0])), 5)
    0.36698
    >>> round(float(Loss_BinaryCrossentropy(pos_weight=3.0).calculate([[0.8], [0.4]], [1, 0])), 5)
    0.59013
    """

    _arguments: ClassVar[tuple[str, ...]] = ("label_smoothing", "pos_weight", "factor", "clip")
    _kernel = "binary_crossentropy"
    _pair = Activation_Sigmoid
    _needs_pair = True
    _predicts = "classes"

    label_smoothing: float = 0.0
    pos_weight: float | Sequence[float] | Array = 1.0
    factor: float = 1.0
    clip: float = CLIP

    def __init__(
        self,
        label_smoothing: float = 0.0,
        pos_weight: float | Sequence[float] | Array = 1.0,
        factor: float = 1.0,
        clip: float = CLIP,
    ) -> None:
        where = "Loss_BinaryCrossentropy"
        self.label_smoothing = check.fraction(where, "label_smoothing", label_smoothing)
        self.pos_weight = _weights(where, pos_weight)
        self.factor = _positive(where, "factor", factor)
        self.clip = _clip(where, clip)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        smoothing = float(check.fraction(where, "label_smoothing", self.label_smoothing))
        settings = (smoothing, _clip(where, self.clip), _positive(where, "factor", self.factor))
        weights = _weights(where, self.pos_weight)
        if weights == 1:
            return settings, None
        if isinstance(weights, list) and len(weights) != n_outputs:
            raise ValueError(
                f"{where}: pos_weight must hold one number for each of {n_outputs} outputs, got {len(weights)}."
            )
        return settings, np.full(n_outputs, weights, np.float64)

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        return check.probabilities(where, name, check.targets(where, name, y, shape, dtype))


@built_in("loss")
class Loss_MeanSquaredError(KernelLoss):
    """Mean squared error: the mean over outputs of (y − p)².

    Targets have the predictions' shape; shape (n,) stands for (n, 1).

    Parameters
    ----------
    factor : float
        A factor of loss and gradient, above 0. With 0.5, the gradient is p − y.

    Notes
    -----
    Chapter 17 of the book.

    Examples
    --------
    >>> from nnx import Loss_MeanSquaredError
    >>> float(Loss_MeanSquaredError().calculate([[0.0], [1.0], [2.0]], [0, 1, 5]))
    3.0
    >>> float(Loss_MeanSquaredError(factor=0.5).calculate([[0.0], [1.0], [2.0]], [0, 1, 5]))
    1.5
    """

    _arguments: ClassVar[tuple[str, ...]] = ("factor",)
    _kernel = "mean_squared_error"

    factor: float = 1.0

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = _positive("Loss_MeanSquaredError", "factor", factor)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        return (_positive(where, "factor", self.factor),), None


@built_in("loss")
class Loss_MeanAbsoluteError(KernelLoss):
    """Mean absolute error: the mean over outputs of ``|y − p|``.

    Targets have the predictions' shape; shape (n,) stands for (n, 1).

    Notes
    -----
    Chapter 17 of the book. The book's backward has the opposite sign, so it increases the loss. Here, ``backward`` is
    the gradient of the loss. At y = p it is 0.
    """

    _kernel = "mean_absolute_error"


@built_in("loss")
class Loss_Huber(KernelLoss):
    """Huber's loss, the mean over outputs of d²/2 if d = y − p is within ±δ, else of ``δ·(|d| − δ/2)``.

    Large errors count less than in the squared error, so outliers have less influence. Targets have the predictions'
    shape; shape (n,) stands for (n, 1).

    Parameters
    ----------
    delta : float
        δ, above 0.

    Notes
    -----
    P. J. Huber, *Robust estimation of a location parameter* (1964). The gradient is p − y, kept within ±δ.

    Examples
    --------
    >>> from nnx import Loss_Huber
    >>> round(float(Loss_Huber().calculate([[0.0], [1.0], [2.0]], [0, 1, 5])), 5)
    0.83333
    >>> float(Loss_Huber(delta=10.0).calculate([[0.0], [1.0], [2.0]], [0, 1, 5]))
    1.5
    """

    _arguments: ClassVar[tuple[str, ...]] = ("delta",)
    _kernel = "huber"

    delta: float = 1.0

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = _positive("Loss_Huber", "delta", delta)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        return (_positive(where, "delta", self.delta),), None


@built_in("loss")
class Loss_LogCosh(KernelLoss):
    """Log-cosh, the mean over outputs of log(cosh(p − y)).

    For small errors d it is near d²/2, like the squared error. For large ones it is near ``|d| − log 2``. Targets have
    the predictions' shape; shape (n,) stands for (n, 1).

    Notes
    -----
    The gradient is tanh(p − y). Large errors do not overflow, because cosh itself is not computed.

    Examples
    --------
    >>> from nnx import Loss_LogCosh
    >>> round(float(Loss_LogCosh().calculate([[0.0], [1000.0]], [0, 0])), 3)
    499.653
    """

    _kernel = "log_cosh"


@built_in("loss")
class Loss_Pinball(KernelLoss):
    """Pinball loss, which trains outputs to be quantiles of the targets, several at once.

    With k quantiles and t targets, the network has t·k outputs: output j is quantile j % k of target j // k. The loss
    of an output is q·d if d = y − p is above 0, else (q − 1)·d. The loss of a sample is the mean over outputs.

    Targets have shape (n, t), or (n,) for one target, or (n, t·k) for a target of each output.

    Parameters
    ----------
    quantiles : sequence of float
        Each above 0 and below 1, in any order.

    Notes
    -----
    R. Koenker and G. Bassett, *Regression quantiles* (1978). At d = 0 the gradient is 0. The quantiles of a sample are
    not always in order. `Accuracy_Regression`, `Model.score` and `Model.report` compare targets with the quantile
    nearest to 0.5. If two are equally near, they take the first.

    Examples
    --------
    >>> from nnx import Loss_Pinball
    >>> loss = Loss_Pinball(quantiles=(0.25, 0.75))
    >>> loss.forward([[1.0, 3.0], [1.0, 3.0]], [2.0, 13.0])
    array([0.25, 5.25], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("quantiles",)
    _kernel = "pinball"
    _compares_as_given = False

    quantiles: Sequence[float] | Array = (0.1, 0.5, 0.9)

    def __init__(self, quantiles: Sequence[float] | Array = (0.1, 0.5, 0.9)) -> None:
        self.quantiles = _quantiles("Loss_Pinball", quantiles)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        quantiles = _quantiles(where, self.quantiles)
        return (), np.tile(np.array(quantiles), self._n_targets(where, n_outputs))

    def _n_targets(self, where: str, n_outputs: int) -> int:
        """Return the number of targets that the outputs are quantiles of."""
        count = len(_quantiles(where, self.quantiles))
        if n_outputs % count:
            raise ValueError(
                f"{where}: the number of outputs must be a multiple of {count}, the number of quantiles, "
                f"got {n_outputs}."
            )
        return n_outputs // count

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        n_targets = self._n_targets(where, shape[1])
        values = check.array(where, name, y, dtype)
        if values.shape == shape:
            return values
        if values.ndim == 1 and n_targets == 1:
            values = values.reshape(-1, 1)
        if values.shape != (shape[0], n_targets):
            shapes = f"{(shape[0], n_targets)}, a column for each target, or {shape}, one for each output"
            if n_targets == shape[1]:  # a single quantile
                shapes = f"{shape}, a column for each target"
            raise ValueError(f"{where}: {name} must have shape {shapes}, got {np.shape(y)}.")
        return np.repeat(values, shape[1] // n_targets, axis=1)

    def _answers(self, predicts: str) -> Answers:
        if predicts != "numbers":
            return Answers()
        quantiles = _quantiles("Loss_Pinball", self.quantiles)
        distances = [abs(quantile - 0.5) for quantile in quantiles]
        return Answers(every=len(quantiles), begin=distances.index(min(distances)))


def _quantiles(where: str, value: Any) -> tuple[float, ...]:
    """Return ``quantiles``, checked."""
    if not _is_sequence(value):
        raise TypeError(f"{where}: quantiles must be a sequence of numbers, got {abridged(value)}.")
    if len(value) == 0:
        raise ValueError(f"{where}: quantiles must hold at least one number, got none.")
    found = tuple(float(check.number(where, f"quantiles[{at}]", each)) for at, each in enumerate(value))
    for at, quantile in enumerate(found):
        if not 0 < quantile < 1:
            raise ValueError(f"{where}: quantiles[{at}] must be above 0 and below 1, got {quantile}.")
    return found


@built_in("loss")
class Loss_Poisson(KernelLoss):
    """Poisson's negative log-likelihood of counts, without the term log y!, which does not depend on outputs.

    It is the mean over outputs of exp(p) − y·p. With ``log_input=False``, it is the mean of p − y·log(p + 1e-8).

    Targets are numbers of at least 0, in the predictions' shape; shape (n,) stands for (n, 1).

    Parameters
    ----------
    log_input : bool
        If True, outputs p are the logarithms of expected counts, so the last layer is linear. If False, they are the
        expected counts, so the last layer must have outputs above 0.
    factor : float
        A factor of loss and gradient, above 0.

    Notes
    -----
    The gradient is exp(p) − y, or 1 − y/(p + 1e-8). With ``log_input``, `Accuracy_Regression`, `Model.score` and
    `Model.report` compare targets with exp(p).

    Examples
    --------
    >>> from nnx import Loss_Poisson
    >>> round(float(Loss_Poisson().calculate([[0.0], [1.0]], [1, 2])), 5)
    0.85914
    """

    _arguments: ClassVar[tuple[str, ...]] = ("log_input", "factor")
    _kernel = "poisson"
    _compares_as_given = False

    log_input: bool = True
    factor: float = 1.0

    def __init__(self, log_input: bool = True, factor: float = 1.0) -> None:
        self.log_input = check.flag("Loss_Poisson", "log_input", log_input)
        self.factor = _positive("Loss_Poisson", "factor", factor)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        log_input = float(check.flag(where, "log_input", self.log_input))
        return (log_input, _positive(where, "factor", self.factor)), None

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        values = check.targets(where, name, y, shape, dtype)
        _refuse(where, name, "numbers of at least 0", values, values < 0)
        return values

    def _answers(self, predicts: str) -> Answers:
        return Answers(exponential=predicts == "numbers" and bool(self.log_input))


@built_in("loss")
class Loss_Hinge(KernelLoss):
    """Hinge loss of support vector machines, the mean over outputs of max(0, m − y·p), for targets y of −1 and 1.

    Targets have the predictions' shape; shape (n,) stands for (n, 1). They are −1 and 1, or 0 and 1: zeros count as −1.

    Parameters
    ----------
    margin : float
        m, above 0. Where y·p is at least m, the loss is 0.

    Notes
    -----
    C. Cortes and V. Vapnik, *Support-vector networks* (1995). At y·p = m the gradient is 0.

    The last layer is linear, and the sign of its output is the answer. `Accuracy_Categorical`, `Model.score`,
    `Model.report` and ``nnx predict`` count an output above 0 as 1 and any other as 0, and targets of −1 as 0. If there
    are several outputs, ``Accuracy_Categorical(binary=True)`` compares them one by one. Without ``binary`` they are
    classes, and the largest output is the answer. `Model.predict` returns outputs as they are.

    Examples
    --------
    >>> from nnx import Loss_Hinge
    >>> Loss_Hinge().forward([[2.0], [0.5], [0.5]], [1, 1, 0])
    array([0. , 0.5, 1.5], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("margin",)
    _kernel = "hinge"
    _predicts = "classes"
    _compares_as_given = False

    margin: float = 1.0

    def __init__(self, margin: float = 1.0) -> None:
        self.margin = _positive("Loss_Hinge", "margin", margin)

    def _settings(self, where: str, n_outputs: int) -> tuple[tuple[float, ...], Array | None]:
        return (_positive(where, "margin", self.margin),), None

    def _targets(self, where: str, name: str, y: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
        values = check.targets(where, name, y, shape, dtype)
        zeros = values == 0
        _refuse(where, name, "-1 and 1, or 0 and 1", values, ~(zeros | (np.absolute(values) == 1)))
        if not zeros.any():
            return values
        _refuse(where, name, "-1 and 1, or 0 and 1, not all three", values, values == -1)
        return np.where(zeros, values.dtype.type(-1), values)

    def _answers(self, predicts: str) -> Answers:
        return Answers(signs=predicts == "classes")


def _refuse(where: str, name: str, expected: str, values: Array, bad: Array) -> None:
    """Refuse targets (n, outputs) that are not what they must be."""
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{where}: {name} must hold {expected}, got {values[row, column]} in row {row}, column {column}."
        )


def answers(loss: Any, last: Any, predicts: str) -> Answers:
    """Return which part of a model's outputs is compared with targets, if it predicts "classes" or "numbers".

    A last layer that turns its outputs into predictions itself decides first.
    """
    makes_its_own = getattr(type(last), "predictions", None) not in (None, ActivationBase.predictions)
    if not isinstance(loss, KernelLoss) or makes_its_own or "predictions" in getattr(last, "__dict__", ()):
        return AS_THEY_ARE
    return loss._answers(predicts)


class Activation_Softmax_Loss_CategoricalCrossentropy(Described):
    """Softmax and categorical cross-entropy in one. Their common gradient is simply (p − onehot) / n.

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
        """Make the two parts here: a subclass need not call ``__init__``."""
        self = super().__new__(cls)
        self.activation = Activation_Softmax()
        self.loss = Loss_CategoricalCrossentropy()
        return self

    def __init__(self) -> None:
        pass

    def forward(self, inputs: ArrayLike, y_true: ArrayLike) -> np.floating[Any]:
        """Set ``output`` to the probabilities and return their mean loss.

        Parameters
        ----------
        inputs : array (n, classes)
            Logits, the output of the last dense layer.
        y_true : array (n,) or (n, classes)
            Class numbers, or one-hot rows.
        """
        if self._has_built_in_parts():
            found = _kernels.backend.call_softmax_crossentropy(inputs, y_true, *self._settings())
            if found is not None:
                return self._keep(inputs, *found)  # type: ignore[arg-type]
            logits = check.matrix("Activation_Softmax.forward", "inputs", inputs)
            if len(logits) > 0:
                return self._forward(logits, y_true)
        self.activation.forward(inputs)
        output = self.activation.output
        loss = self.loss.calculate(output, y_true)
        self.output = output
        return loss

    def _forward(self, inputs: Array, y_true: ArrayLike) -> np.floating[Any]:
        """Do what the parts do one after the other, in one kernel."""
        labels = check.labels("Loss_CategoricalCrossentropy.forward", "y_true", y_true, *inputs.shape)
        output = _kernels.empty_like(inputs)
        loss_sum, _ = _kernels.backend.softmax_crossentropy(inputs, labels, output, None, *self._settings())
        return self._keep(inputs, output, loss_sum)

    def _keep(self, inputs: Array, output: Array, loss_sum: float) -> np.floating[Any]:
        """Set the attributes that the two parts would set, and return the mean loss."""
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
        """Set ``dinputs`` to (p − targets) / n.

        Parameters
        ----------
        dvalues : array (n, classes)
            The probabilities p, as ``output`` holds them.
        y_true : array (n,) or (n, classes)
            Class numbers, or one-hot rows.
        """
        found = _kernels.backend.call_softmax_crossentropy_backward(dvalues, y_true, *self._settings())
        if found is not None:
            self.dinputs = found
            return
        where = "Activation_Softmax_Loss_CategoricalCrossentropy.backward"
        loss = Loss_CategoricalCrossentropy(*self._settings())
        self.dinputs = loss._pair_gradient(where, dvalues, y_true)

    def _settings(self) -> tuple[float, float]:
        """Return the loss's label smoothing and clip, or the defaults: a custom loss may have none."""
        return getattr(self.loss, "label_smoothing", 0.0), getattr(self.loss, "clip", CLIP)
