"""Whole calls of methods of layers, losses and optimizers. This backend leaves them to Python code.

The compiled twins do a whole call in the usual case: checks, new arrays, kernels, attributes. Otherwise they change
nothing and return False, or None instead of a result, and the method continues in Python. Its Python code defines what
the twins do.
"""

from __future__ import annotations

from typing import Any

from nnx._base.typing import Array

CALLS = (
    "call_activation_backward",
    "call_activation_forward",
    "call_dense_backward",
    "call_dense_forward",
    "call_optimizer_update",
    "call_softmax_crossentropy",
    "call_softmax_crossentropy_backward",
)


def call_dense_forward(layer: Any, inputs: Any) -> bool:
    """Do `Layer_Dense.forward` in training, with products in the layer's own dtype."""
    return False


def call_dense_backward(layer: Any, dvalues: Any, scale: float) -> bool:
    """Do `Layer_Dense.backward`, with products in the layer's own dtype and penalties times ``scale``."""
    return False


def call_activation_forward(layer: Any, name: str, inputs: Any, settings: tuple[float, ...]) -> bool:
    """Do `Activation.forward` of the activation with this name."""
    return False


def call_activation_backward(layer: Any, name: str, source: Any, dvalues: Any, settings: tuple[float, ...]) -> bool:
    """Do `Activation.backward`, which starts from ``source``."""
    return False


def call_softmax_crossentropy(inputs: Any, labels: Any, smoothing: float, clip: float) -> tuple[Array, float] | None:
    """Return probabilities, and the sum of the losses."""
    return None


def call_softmax_crossentropy_backward(probabilities: Any, labels: Any, smoothing: Any, clip: Any) -> Array | None:
    """Return the gradient of the mean loss by the inputs of softmax."""
    return None


def call_optimizer_update(
    layer: Any, parameters: tuple[Any, ...], rule: tuple[Any, ...], rate: float, step: float
) -> bool:
    """Update a layer's parameters by a rule that neither clips nor averages."""
    return False
