"""`Network`: what the modules below `Model` use of a model, as a type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from nnx._base.typing import Array, ArrayLike


class Network(Protocol):
    """A finalized `Model`, as the modules see it that `Model` is built on; they do not import its class."""

    layers: list[Any]
    trainable_layers: list[Any]
    input_layer: Any
    output_layer_activation: Any
    loss: Any
    optimizer: Any
    accuracy: Any
    table: Any
    images: Any
    softmax_classifier_output: Any
    #: The plan that `nnx.engine.plan` made for the model and uses again.
    _plan: Any
    _segments: Any
    _again: Any
    _inference: Any

    @property
    def preprocessor(self) -> Any:
        """The model's table or images."""

    def forward(self, X: ArrayLike, training: bool) -> Any:
        """Run the layers, and return the last one's output."""

    def backward(self, output: Any, y: Any, *, sample_weight: ArrayLike | None = None) -> None:
        """Set all layers' gradients."""

    def _require(self, where: str, *names: str) -> None:
        """Refuse to work with layers that have changed since `finalize`, or without these attributes."""

    def _loss_gradient(self, output: Any, y: Any, weights: Array | None = None) -> tuple[Any, bool]:
        """Return the loss's gradient, and whether it is by the inputs of the last layer instead of its output."""

    def predict(self, X: ArrayLike, *, batch_size: int | None = None) -> Array:
        """Return the outputs, one row a sample."""

    def set_parameters(self, parameters: Sequence[tuple[ArrayLike, ...]]) -> None:
        """Give each trainable layer its weights and biases."""

    def output_width(self) -> int | None:
        """Return the number of columns of the output; None if only a forward pass would show it."""


AnyNetwork = TypeVar("AnyNetwork", bound=Network)
