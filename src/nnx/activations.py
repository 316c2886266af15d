"""Activations, each in one place: its class here, its definition in `_kernels/_numpy/activations.py`, its vectors in
`_kernels/native/elementwise/activations.pxi`.

They share one forward and one backward; each adds its kernel's name, what its backward starts from, its settings, and
what it predicts. float32 and float64 inputs keep their dtype; other numbers become the default dtype.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from nnx import _kernels
from nnx._base import check as _check
from nnx._base.describe import Described
from nnx._base.typing import Array, ArrayLike
from nnx._base.vocabulary import built_in

__all__ = ["Activation_Linear", "Activation_ReLU", "Activation_Sigmoid", "Activation_Softmax"]


class Activation(Described):
    """The activations' common part: check, allocate, call the kernel."""

    #: The kernel's name.
    _kernel: ClassVar[str]
    #: The attribute that backward starts from: "inputs" or "output".
    _backward_from: ClassVar[str]
    #: What it predicts as the last layer: "classes", "binary" (zeros and ones), "numbers", or nothing in particular.
    _predicts: ClassVar[str] = ""

    inputs: Array
    output: Array
    dinputs: Array

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output``; inputs (n, ...), and ``training`` makes no difference."""
        values = self._checked(type(self).__name__ + ".forward", "inputs", inputs)
        settings = self._settings()
        output = _kernels.empty_like(values)
        _kernels.backend.activation_forward(self._kernel, values, output, settings)
        self.inputs = values
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs``, the gradient by the inputs, from ``dvalues``, the one by the output."""
        where, name = type(self).__name__ + ".backward", self._backward_from
        values = self._checked(where, name, _check.stored(where, self, name))
        dvalues = _check.like(where, "dvalues", dvalues, values)
        settings = self._settings()
        dinputs = _kernels.empty_like(values)
        _kernels.backend.activation_backward(self._kernel, values, dvalues, dinputs, settings)
        self.dinputs = dinputs

    def predictions(self, outputs: ArrayLike) -> Any:
        """Return ``outputs``."""
        return outputs

    def _checked(self, where: str, name: str, value: ArrayLike) -> Array:
        return _check.samples(where, name, value)

    def _settings(self) -> tuple[float, ...]:
        """Return what the kernel is given beside arrays, checked: anything may have been assigned."""
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
    _predicts = "classes"

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
    Chapter 16 of the book. Large negative inputs give their right, tiny value, with no overflow.
    """

    _kernel = "sigmoid"
    _backward_from = "output"
    _predicts = "binary"

    def predictions(self, outputs: ArrayLike) -> Array:
        """Return 1 where the output is above 0.5, else 0."""
        return (_check.plain("Activation_Sigmoid.predictions", "outputs", outputs) > 0.5) * 1


@built_in("layer")
class Activation_Linear(Activation):
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

    _kernel = "linear"
    _backward_from = "output"
    _predicts = "numbers"

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to ``inputs``."""
        inputs = _check.samples("Activation_Linear.forward", "inputs", inputs)
        self.inputs = inputs
        self.output = inputs

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs`` to a copy of ``dvalues``."""
        dvalues = _check.samples("Activation_Linear.backward", "dvalues", dvalues)
        dinputs = _kernels.empty_like(dvalues)
        _kernels.backend.activation_backward("linear", dvalues, dvalues, dinputs)
        self.dinputs = dinputs
