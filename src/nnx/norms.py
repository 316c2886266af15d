"""Layers that normalize or scale columns: `Layer_BatchNorm`, `Layer_LayerNorm`, `Layer_Scale`.

Their output has as many columns as their inputs, a number that the constructor takes. Their kernels are in
`_kernels/_numpy/norms.py`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np

from nnx import _kernels
from nnx._base import check, config
from nnx._base.interrupt import at_once
from nnx._base.parameters import Parameterized, WithBiases, WithWeights, filled
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike, DTypeLike
from nnx._base.vocabulary import built_in
from nnx._base.widths import Widths

__all__ = ["Layer_BatchNorm", "Layer_LayerNorm", "Layer_Scale"]

#: The attributes in which batch normalization keeps the statistics of its inputs.
STATISTICS = ("running_mean", "running_variance")


class _ByColumn(Parameterized):
    """A layer whose parameters have a number for each column."""

    n_inputs: int | None = None
    inputs: Array
    output: Array
    dinputs: Array

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        shape = (1, check.whole(where, "n_inputs", self.n_inputs))
        return (shape,) * len(self._parameters)

    def _widths(self) -> Widths:
        return self.n_inputs, self.n_inputs

    def _given_inputs(self, where: str, inputs: ArrayLike, weights: Array) -> Array:
        return check.rows(where, "inputs", inputs, weights.size, weights.dtype)

    def _given_both(self, where: str, dvalues: ArrayLike, weights: Array) -> tuple[Array, Array]:
        """Return the inputs of the latest forward, and dvalues of their shape."""
        inputs = self._given_inputs(where, check.stored(where, self, "inputs"), weights)
        return inputs, check.like(where, "dvalues", dvalues, inputs)


def _epsilon(where: str, epsilon: Any) -> Any:
    """Return the number that is added to variances, checked. It is above 0, because a column may be constant."""
    value = check.number(where, "epsilon", epsilon)
    if value <= 0:
        raise ValueError(f"{where}: epsilon must be above 0, got {abridged(epsilon)}.")
    return value


@built_in("layer")
class Layer_BatchNorm(_ByColumn, WithBiases):
    """Batch normalization: each column gets mean 0 and variance 1 over the batch, then a factor and an offset.

    ``output = (inputs − mean) · weights / √(variance + epsilon) + biases``. In training, mean and variance are those of
    the batch, and the layer updates its running statistics. Otherwise they are the running statistics.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs and of the output.
    momentum : float
        From 0 to 1: the fraction of the running statistics that a training forward keeps. PyTorch's ``momentum`` is the
        fraction that it replaces, which is 1 − this number.
    epsilon : float
        Above 0. It prevents a division by 0 in constant columns.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    weights, biases : arrays (1, n_inputs)
        Factors, initially 1, and offsets, initially 0. They are trained in place. If you assign an array of another
        dtype or layout, the layer casts it at its next use.
    weight_averages, bias_averages : arrays (1, n_inputs)
        As those of `Layer_Dense`.
    running_mean, running_variance : arrays (1, n_inputs)
        Initially 0 and 1. A training forward sets them, in place, to ``momentum`` · (old value) + (1 − ``momentum``) ·
        (value of the batch). Here the variance of the batch is the unbiased one, Σ (x − mean)² / (n − 1). A batch of
        one row has no such variance, and changes neither of them. Optimizers and ``trainable_layers`` have no effect on
        them.
    batch_mean, batch_variance : arrays (1, n_inputs)
        After a training ``forward``: the batch's mean and variance, which ``output`` was computed with. This variance
        is Σ (x − mean)² / n.
    inputs, output : arrays (n, n_inputs)
        After ``forward``.
    dweights, dbiases, dinputs : arrays of the shapes of weights, biases and inputs
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For a number of inputs below 1, a momentum outside 0 to 1, an epsilon that is not above 0, and other dtypes.

    Notes
    -----
    Ioffe and Szegedy, Batch normalization (2015), arXiv:1502.03167. After a training forward, ``backward`` includes the
    dependence of mean and variance on the inputs. After any other forward, they are constants. The layer is
    ``torch.nn.BatchNorm1d``, with two differences. PyTorch's ``momentum`` is 1 − this one. PyTorch refuses to train on
    one row; here the output for one row is ``biases``. A dense layer right before this one needs no biases, because the
    mean is subtracted.

    Examples
    --------
    >>> from nnx import Layer_BatchNorm
    >>> norm = Layer_BatchNorm(2)
    >>> norm.forward([[1, 10], [3, 30]], training=True)
    >>> norm.output.round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> norm.running_mean  # 0.9 · 0 + 0.1 · the batch's
    array([[0.2, 2. ]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "momentum", "epsilon", "dtype")

    _kernel: ClassVar[str] = "batch_norm"
    _must: ClassVar[str] = "normalize the {} outputs of what is before it"

    momentum: float = 0.9
    epsilon: float = 1e-5
    running_mean: Array
    running_variance: Array
    #: The statistics of the data that the layer keeps beside its parameters.
    _running: ClassVar[tuple[str, ...]] = STATISTICS

    batch_mean: Array
    batch_variance: Array
    _by_batch: bool = False
    #: The running statistics before the latest forward, if that forward changed them.
    _before: tuple[Array, ...] | None = None

    def __init__(self, n_inputs: int, momentum: float = 0.9, epsilon: float = 1e-5, dtype: DTypeLike = None) -> None:
        self._configure(n_inputs, momentum, epsilon, dtype)
        ones, zeros = (filled(int(n_inputs), self._float_dtype(), value) for value in (1, 0))
        self.weights, self.biases = ones, zeros
        self.running_mean, self.running_variance = zeros.copy(), ones.copy()

    def _configure(self, n_inputs: int, momentum: float, epsilon: float, dtype: DTypeLike) -> None:
        """Set everything except the arrays: a model file brings its own."""
        self.n_inputs = check.whole("Layer_BatchNorm", "n_inputs", n_inputs)
        self.momentum = check.number("Layer_BatchNorm", "momentum", momentum, 0, 1)
        self.epsilon = _epsilon("Layer_BatchNorm", epsilon)
        self.dtype = config.float_dtype("Layer_BatchNorm", dtype)

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to the normalized inputs.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            Whether to normalize by the batch and update the running statistics. If False, the layer uses
            ``weight_averages`` and ``bias_averages`` if there are any.
        """
        where = "Layer_BatchNorm.forward"
        weights, biases = self._parameters_for(where, training)
        inputs = self._given_inputs(where, inputs, weights)
        momentum, epsilon = self._settings(where)
        running = mean, variance = self._statistics(where, writing=training)
        by_batch = training and len(inputs) > 0
        if by_batch:
            mean, variance = _kernels.empty_like(mean), _kernels.empty_like(variance)
            _kernels.backend.batch_norm_statistics(inputs, mean, variance)
        output = _kernels.empty_like(inputs)
        _kernels.backend.batch_norm_forward(inputs, mean, variance, weights, biases, epsilon, output)
        self._by_batch, self._before = by_batch, None
        if by_batch:
            self.batch_mean, self.batch_variance = mean, variance
            if len(inputs) > 1:
                self._follow(running, momentum, len(inputs))
        self.inputs = inputs
        self.output = output

    def _follow(self, running: tuple[Array, Array], momentum: float, n: int) -> None:
        """Update the running statistics by those of a batch of ``n`` rows."""
        self._before = tuple([each.copy() for each in running])
        batch = (self.batch_mean, 1.0), (self.batch_variance, n / (n - 1))
        with np.errstate(all="ignore"):
            new = [
                momentum * old.astype(np.float64) + (1 - momentum) * factor * of_batch
                for old, (of_batch, factor) in zip(running, batch, strict=True)
            ]
            at_once([partial(np.copyto, *each, casting="same_kind") for each in zip(running, new, strict=True)])

    def _undo_forward(self) -> None:
        """Restore the running statistics from before the latest forward."""
        if self._before is not None:
            for running, before in zip(self._statistics("Layer_BatchNorm.forward"), self._before, strict=True):
                np.copyto(running, before)
            self._before = None

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights``, ``dbiases`` and ``dinputs`` from the gradient of the loss by ``output``.

        Parameters
        ----------
        dvalues : array (n, n_inputs)
        """
        where = "Layer_BatchNorm.backward"
        weights, biases = self._checked_parameters(where)
        inputs, dvalues = self._given_both(where, dvalues, weights)
        _, epsilon = self._settings(where)
        if self._by_batch:
            mean, variance = (
                check.rows(where, name, check.stored(where, self, name), weights.size, weights.dtype, 1)
                for name in ("batch_mean", "batch_variance")
            )
        else:
            mean, variance = self._statistics(where, writing=False)
        dweights, dbiases, dinputs = map(_kernels.empty_like, (weights, biases, inputs))
        backend = _kernels.backend
        backend.batch_norm_backward_weights(inputs, dvalues, mean, variance, epsilon, dweights, dbiases)
        sums = dweights, dbiases
        if not self._by_batch:  # mean and variance do not depend on the inputs
            nothing = filled(weights.size, weights.dtype, 0)
            sums = nothing, nothing
        backend.batch_norm_backward_inputs(inputs, dvalues, mean, variance, weights, *sums, epsilon, dinputs)
        self.dweights, self.dbiases, self.dinputs = dweights, dbiases, dinputs

    def _settings(self, where: str) -> tuple[float, float]:
        """Return momentum and epsilon, checked: users may have assigned anything."""
        return float(check.number(where, "momentum", self.momentum, 0, 1)), float(_epsilon(where, self.epsilon))

    def _statistics(self, where: str, writing: bool = True) -> tuple[Array, Array]:
        """Return the running mean and variance, checked: users may have assigned anything."""
        shape, dtype = (1, check.whole(where, "n_inputs", self.n_inputs)), self._float_dtype()
        mean, variance = (check.bound(where, self, name, shape, dtype, writing) for name in STATISTICS)
        return mean, variance


@built_in("layer")
class Layer_LayerNorm(_ByColumn, WithBiases):
    """Layer normalization: each row gets mean 0 and variance 1, then each column a factor and an offset.

    ``output = (inputs − mean) / √(variance + epsilon) · weights + biases``, with mean and variance over the columns of
    each row. A row's output depends neither on training nor on the rest of the batch.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs and of the output.
    epsilon : float
        Above 0. It prevents a division by 0 in constant rows.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    weights, biases : arrays (1, n_inputs)
        Factors, initially 1, and offsets, initially 0. They are trained in place. If you assign an array of another
        dtype or layout, the layer casts it at its next use.
    weight_averages, bias_averages : arrays (1, n_inputs)
        As those of `Layer_Dense`.
    inputs, output : arrays (n, n_inputs)
        After ``forward``.
    dweights, dbiases, dinputs : arrays of the shapes of weights, biases and inputs
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For a number of inputs below 1, an epsilon that is not above 0, and other dtypes.

    Notes
    -----
    Ba, Kiros and Hinton, Layer normalization (2016), arXiv:1607.06450. The variance is Σ (x − mean)² / n_inputs. The
    layer is ``torch.nn.LayerNorm(n_inputs)``.

    Examples
    --------
    >>> from nnx import Layer_LayerNorm
    >>> norm = Layer_LayerNorm(3)
    >>> norm.forward([[1, 2, 3], [10, 20, 30]])
    >>> norm.output.round(3)
    array([[-1.225,  0.   ,  1.225],
           [-1.225,  0.   ,  1.225]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "epsilon", "dtype")

    _kernel: ClassVar[str] = "layer_norm"
    _must: ClassVar[str] = "normalize the {} outputs of what is before it"

    epsilon: float = 1e-5

    def __init__(self, n_inputs: int, epsilon: float = 1e-5, dtype: DTypeLike = None) -> None:
        self._configure(n_inputs, epsilon, dtype)
        self.weights, self.biases = (filled(int(n_inputs), self._float_dtype(), value) for value in (1, 0))

    def _configure(self, n_inputs: int, epsilon: float, dtype: DTypeLike) -> None:
        """Set everything except the parameters: a model file brings its own."""
        self.n_inputs = check.whole("Layer_LayerNorm", "n_inputs", n_inputs)
        self.epsilon = _epsilon("Layer_LayerNorm", epsilon)
        self.dtype = config.float_dtype("Layer_LayerNorm", dtype)

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output``.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            If False, the layer uses ``weight_averages`` and ``bias_averages`` if there are any.
        """
        where = "Layer_LayerNorm.forward"
        weights, biases = self._parameters_for(where, training)
        inputs = self._given_inputs(where, inputs, weights)
        (epsilon,) = self._settings(where)
        output = _kernels.empty_like(inputs)
        _kernels.backend.layer_norm_forward(inputs, weights, biases, epsilon, output)
        self.inputs = inputs
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights``, ``dbiases`` and ``dinputs`` from the gradient of the loss by ``output``.

        Parameters
        ----------
        dvalues : array (n, n_inputs)
        """
        where = "Layer_LayerNorm.backward"
        weights, biases = self._checked_parameters(where)
        inputs, dvalues = self._given_both(where, dvalues, weights)
        (epsilon,) = self._settings(where)
        dweights, dbiases, dinputs = map(_kernels.empty_like, (weights, biases, inputs))
        _kernels.backend.layer_norm_backward_weights(inputs, dvalues, epsilon, dweights, dbiases)
        _kernels.backend.layer_norm_backward_inputs(inputs, dvalues, weights, epsilon, dinputs)
        self.dweights, self.dbiases, self.dinputs = dweights, dbiases, dinputs

    def _settings(self, where: str) -> tuple[float]:
        """Return epsilon, checked: users may have assigned anything."""
        return (float(_epsilon(where, self.epsilon)),)


@built_in("layer")
class Layer_Scale(_ByColumn, WithWeights):
    """A learnt factor for each column: ``output = inputs · weights``.

    Parameters
    ----------
    n_inputs : int
        Columns of the inputs and of the output.
    scale : float
        The initial value of all factors.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.

    Attributes
    ----------
    weights : array (1, n_inputs)
        The factors, trained in place. If you assign an array of another dtype or layout, the layer casts it at its next
        use.
    weight_averages : array (1, n_inputs)
        As that of `Layer_Dense`.
    inputs, output : arrays (n, n_inputs)
        After ``forward``.
    dweights, dinputs : arrays of the shapes of weights and inputs
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For a number of inputs below 1, a scale that is not a finite number, and other dtypes.

    Notes
    -----
    As the last layer of a `Layer_Residual`, with a small ``scale``, it lets a deep network begin near the identity:
    Touvron and others, Going deeper with image transformers (2021), arXiv:2103.17239. They call it LayerScale.

    Examples
    --------
    >>> from nnx import Layer_Scale
    >>> layer = Layer_Scale(2, scale=0.5)
    >>> layer.forward([[1, 2], [3, 4]])
    >>> layer.output
    array([[0.5, 1. ],
           [1.5, 2. ]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "scale", "dtype")

    _kernel: ClassVar[str] = "scale"
    _must: ClassVar[str] = "have a factor for each of the {} outputs of what is before it"

    scale: float = 1.0

    def __init__(self, n_inputs: int, scale: float = 1.0, dtype: DTypeLike = None) -> None:
        self._configure(n_inputs, scale, dtype)
        self.weights = filled(int(n_inputs), self._float_dtype(), self.scale)

    def _configure(self, n_inputs: int, scale: float, dtype: DTypeLike) -> None:
        """Set everything except the parameter: a model file brings its own."""
        self.n_inputs = check.whole("Layer_Scale", "n_inputs", n_inputs)
        self.scale = check.number("Layer_Scale", "scale", scale)
        self.dtype = config.float_dtype("Layer_Scale", dtype)

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output``.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            If False, the layer uses ``weight_averages`` if there are any.
        """
        where = "Layer_Scale.forward"
        (weights,) = self._parameters_for(where, training)
        inputs = self._given_inputs(where, inputs, weights)
        output = _kernels.empty_like(inputs)
        _kernels.backend.scale_forward(inputs, weights, output)
        self.inputs = inputs
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights`` and ``dinputs`` from the gradient of the loss by ``output``.

        Parameters
        ----------
        dvalues : array (n, n_inputs)
        """
        where = "Layer_Scale.backward"
        (weights,) = self._checked_parameters(where)
        inputs, dvalues = self._given_both(where, dvalues, weights)
        dweights, dinputs = _kernels.empty_like(weights), _kernels.empty_like(inputs)
        _kernels.backend.scale_backward_weights(inputs, dvalues, dweights)
        _kernels.backend.scale_backward_inputs(dvalues, weights, dinputs)
        self.dweights, self.dinputs = dweights, dinputs
