"""Activations: `Activation_ReLU`, `Activation_Softmax`, `Activation_Sigmoid`, `Activation_Linear`.

They share one forward and one backward; each adds its kernels' name, what its backward starts from and ``predictions``.
float32 and float64 inputs keep their dtype; other numbers become the default dtype.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nnx import _kernels
from nnx._base import check as _check
from nnx._base.describe import Described
from nnx._base.typing import Array, ArrayLike


class _Activation(Described):
    """The activations' common part: check, allocate, call the kernel."""

    #: The kernels are this and ``_forward`` or ``_backward``.
    _kernel: ClassVar[str]
    #: The attribute that the backward kernel takes beside ``dvalues``.
    _backward_from: ClassVar[str]

    inputs: Array
    output: Array
    dinputs: Array

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output``; inputs (n, ...), and ``training`` makes no difference."""
        values = self._checked(type(self).__name__ + ".forward", "inputs", inputs)
        output = _kernels.empty_like(values)
        getattr(_kernels.backend, self._kernel + "_forward")(values, output)
        self.inputs = values
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs``, the gradient by the inputs, from ``dvalues``, the one by the output."""
        where, name = type(self).__name__ + ".backward", self._backward_from
        values = self._checked(where, name, _check.stored(where, self, name))
        dvalues = _check.like(where, "dvalues", dvalues, values)
        dinputs = _kernels.empty_like(values)
        getattr(_kernels.backend, self._kernel + "_backward")(values, dvalues, dinputs)
        self.dinputs = dinputs

    def _checked(self, where: str, name: str, value: ArrayLike) -> Array:
        return _check.samples(where, name, value)


class Activation_ReLU(_Activation):
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
    _backward_from = "inputs"

    def predictions(self, outputs: ArrayLike) -> ArrayLike:
        """Return ``outputs``."""
        return outputs


class Activation_Softmax(_Activation):
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
    closed form pⱼ·(dⱼ − Σ p·d) in place of one Jacobian matrix a row.

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

    def _checked(self, where: str, name: str, value: ArrayLike) -> Array:
        return _check.matrix(where, name, value)

    def predictions(self, outputs: ArrayLike) -> Array:
        """Return the class number with the largest probability, shape (n,)."""
        outputs = _check.plain("Activation_Softmax.predictions", "outputs", outputs)
        if outputs.ndim != 2:
            raise ValueError(
                f"Activation_Softmax.predictions: outputs must have shape (n, classes), got {outputs.shape}."
            )
        if not _kernels.readable(outputs, (None, None), None):
            return np.asarray(np.argmax(outputs, axis=1))
        classes = np.empty(len(outputs), np.intp)
        _kernels.backend.argmax(outputs, classes)
        return classes


class Activation_Sigmoid(_Activation):
    """Sigmoid: ``output = 1 / (1 + exp(−inputs))``.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Chapter 16 of the book. Large negative inputs give their right, tiny value, with no overflow.
    """

    _kernel = "sigmoid"
    _backward_from = "output"

    def predictions(self, outputs: ArrayLike) -> Array:
        """Return 1 where the output is above 0.5, else 0."""
        return (_check.plain("Activation_Sigmoid.predictions", "outputs", outputs) > 0.5) * 1


class Activation_Linear(_Activation):
    """The identity, for the last layer of a regression.

    Attributes
    ----------
    inputs, output : arrays (n, ...)
        After ``forward``: one and the same array.
    dinputs : array
        After ``backward``, a copy of what it was given.

    Notes
    -----
    Chapter 17 of the book.
    """

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to ``inputs``."""
        inputs = _check.samples("Activation_Linear.forward", "inputs", inputs)
        self.inputs = inputs
        self.output = inputs

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs`` to a copy of ``dvalues``."""
        dvalues = _check.samples("Activation_Linear.backward", "dvalues", dvalues)
        dinputs = _kernels.empty_like(dvalues)
        _kernels.backend.linear_backward(dvalues, dinputs)
        self.dinputs = dinputs

    def predictions(self, outputs: ArrayLike) -> ArrayLike:
        """Return ``outputs``."""
        return outputs
