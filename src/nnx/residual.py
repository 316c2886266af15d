"""`Layer_Residual`, and functions for layers that hold layers: `walk`, and checks of widths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from nnx._base import check
from nnx._base.describe import Described
from nnx._base.parameters import Parameterized
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike, FloatDType
from nnx._base.vocabulary import built_in
from nnx._base.widths import Widths, check_width, width_after, widths_of
from nnx.embedding import Layer_Embedding
from nnx.member_layers import Layer_MemberDense, Layer_Members, Layer_MemberScale

__all__ = ["Layer_Residual"]

#: The most residual layers within each other: the description of a model in a file must not be deeper.
MAX_DEPTH = 8


def walk(layers: Iterable[Any]) -> Iterator[Any]:
    """Yield each layer and, after a `Layer_Residual`, the layers in it, depth first.

    Examples
    --------
    >>> from nnx import Activation_ReLU, Layer_Dense, Layer_Residual
    >>> from nnx.layers import walk
    >>> layers = [Layer_Residual([Layer_Dense(4, 4), Activation_ReLU()]), Layer_Dense(4, 1)]
    >>> [type(layer).__name__ for layer in walk(layers)]
    ['Layer_Residual', 'Layer_Dense', 'Activation_ReLU', 'Layer_Dense']
    """
    for layer in layers:
        yield layer
        if isinstance(layer, Layer_Residual):
            yield from walk(layer.layers)


def places(layers: Iterable[Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what `walk` yields, each after its name for messages: "layer 3", or "layer 0 in layer 3"."""
    for number, layer in enumerate(layers):
        place = f"layer {number}{inside}"
        yield place, layer
        if isinstance(layer, Layer_Residual):
            yield from places(layer.layers, f" in {place}")


def refuse_twice(where: str, layers: Iterable[Any]) -> None:
    """Refuse a layer that occurs twice, because a layer keeps only one input for its backward pass."""
    first: dict[int, str] = {}
    for place, layer in places(layers):
        place = place.removeprefix("layer ")
        before = first.setdefault(id(layer), place)
        if before != place:
            raise ValueError(
                f"{where}: layers must be different objects, got {layer!r} as layers {before} and {place}. "
                "Make one for each place; two of them may share weights: b.set_parameters(*a.get_parameters())."
            )


def check_widths(where: str, layers: Iterable[Any], width: int | None = None, inside: str = "") -> int | None:
    """Return how many columns layers return for ``width`` columns, if known. Refuse neighbours that do not fit."""
    for number, layer in enumerate(layers):
        place = f"layer {number}{inside}"
        if isinstance(layer, Layer_Residual):
            check_widths(where, layer.layers, width, f" in {place}")
            _refuse_change(f"{where}: {place} must hold layers that", layer.layers)
        check_width(where, place, layer, width)
        width = width_after(layer, width)
    return width


def members_of(layers: Iterable[Any]) -> int:
    """Return how many rows of the output belong to a sample: the members of a `Layer_Members`, 1 without one."""
    return next((layer.n_members for layer in layers if isinstance(layer, Layer_Members)), 1)


def check_members(where: str, layers: Sequence[Any]) -> None:
    """Refuse a second `Layer_Members`, and layers of members that come before it or have another number of members."""
    begun: Layer_Members | None = None
    for place, layer in places(layers):
        if isinstance(layer, Layer_Members):
            if begun is not None:
                raise ValueError(f"{where}: {place} must be the only Layer_Members, got {layer!r} after {begun!r}.")
            begun = layer
        elif isinstance(layer, Layer_MemberScale | Layer_MemberDense) and (
            begun is None or begun.n_members != layer.n_members
        ):
            before = "none" if begun is None else f"one of {begun.n_members}"
            raise ValueError(
                f"{where}: {place} must be behind a Layer_Members of as many members, got {layer!r} behind {before}."
            )


def _refuse_change(what: str, layers: Sequence[Any]) -> None:
    """Refuse layers within a residual that change the number of columns. ``what`` begins the message."""
    taken, given = _taken_and_given(layers)
    if None not in (taken, given) and taken != given:
        raise ValueError(f"{what} give as many columns as they take, got {given} out of {taken}.")


def _taken_and_given(layers: Sequence[Any]) -> tuple[int | None, int | None]:
    """Return how many columns a row of layers takes and returns; None for any number, and for an unknown one."""
    taken: int | None = None
    width: int | None = None
    keeps = True  # whether the number of columns is still that of the inputs
    for layer in layers:
        found = widths_of(layer)
        if found is not None and keeps and taken is None:
            taken = width = found[0]
        keeps = keeps and found is not None and found[1] is None
        if found is None or found[1] is not None:
            width = None if found is None else found[1]
    return taken, width


@built_in("layer")
class Layer_Residual(Described):
    """A residual connection around layers: ``output = inputs + layers(inputs)``.

    Parameters
    ----------
    layers : sequence of layers
        At least one, in the order in which they run. They must return as many columns as they take. A `Layer_Residual`
        may be among them, with at most 8 residuals within each other. A `Layer_Embedding` may not.

    Attributes
    ----------
    layers : tuple
        As given; it cannot be assigned.
    inputs, output : arrays (n, ...)
        After ``forward``.
    dinputs : array of the inputs' shape
        After ``backward``: ``dvalues`` plus the layers' gradient.

    Raises
    ------
    TypeError, ValueError
        For objects that are not layers, for an empty sequence, for a layer that occurs twice, and for widths that do
        not fit, if the layers tell their widths. `Model.finalize` checks again.

    Notes
    -----
    He, Zhang, Ren and Sun, Deep residual learning for image recognition (2015), arXiv:1512.03385. In a model,
    ``model.trainable_layers`` holds the inner layers with weights too. Model files number all layers in the order of
    `nnx.layers.walk`: the inner layers come right after their residual.

    Examples
    --------
    >>> from nnx import Activation_ReLU, Layer_Dense, Layer_Residual
    >>> block = Layer_Residual([Layer_Dense(2, 8), Activation_ReLU(), Layer_Dense(8, 2, weight_initializer=0.0)])
    >>> block.forward([[1, 2], [3, 4]])
    >>> block.output  # the last layer's weights are 0 at first
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("layers",)

    _kernel: ClassVar[str] = "residual"

    inputs: Array
    output: Array
    dinputs: Array
    _layers: tuple[Any, ...] = ()

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = _checked_layers("Layer_Residual", layers)

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layers within the residual."""
        return self._layers

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's argument as descriptions: each layer's class and configuration.

        Model files hold more of them.
        """
        return {"layers": [{"class": type(layer).__name__, "config": _config_of(layer)} for layer in self.layers]}

    def _shown(self) -> dict[str, Any]:
        return {"layers": list(self.layers)}

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to the sum of the inputs and the layers' output.

        Parameters
        ----------
        inputs : array (n, ...)
        training : bool
            Passed to the layers.
        """
        where = f"{type(self).__name__}.forward"
        inputs = check.samples(where, "inputs", inputs, self._float_dtype())
        made: Any = inputs
        for layer in self.layers:
            layer.forward(made, training)
            made = layer.output
        output = _sum(inputs, check.like(where, "what the layers give", made, inputs))
        self.inputs = inputs
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs``, and the gradients of the layers within, from the gradient of the loss by ``output``.

        Parameters
        ----------
        dvalues : array of the inputs' shape
        """
        where = f"{type(self).__name__}.backward"
        inputs = check.samples(where, "inputs", check.stored(where, self, "inputs"), self._float_dtype())
        dvalues = check.like(where, "dvalues", dvalues, inputs)
        gradient: Any = dvalues
        for layer in reversed(self.layers):
            layer.backward(gradient)
            gradient = layer.dinputs
        self.dinputs = _sum(dvalues, check.like(where, "the layers' dinputs", gradient, inputs))

    def _float_dtype(self) -> FloatDType | None:
        """Return the dtype of the layers with parameters; None if there are none."""
        return next((layer._float_dtype() for layer in walk(self.layers) if isinstance(layer, Parameterized)), None)

    def _widths(self) -> Widths:
        taken, given = _taken_and_given(self.layers)
        width = given if taken is None else taken
        return width, width


def _sum(first: Array, second: Array) -> Array:
    """Return the sum of two arrays. Like kernels, it gives no warning for infinity and NaN."""
    with np.errstate(all="ignore"):
        return np.asarray(np.add(first, second))


def _config_of(layer: Any) -> Any:
    """Return a layer's configuration. A custom class may have none."""
    return layer.get_config() if hasattr(layer, "get_config") else {}


def _checked_layers(where: str, layers: Any) -> tuple[Any, ...]:
    """Return layers as a tuple. Refuse those that a residual cannot hold."""
    if isinstance(layers, str | bytes | dict) or not hasattr(layers, "__iter__"):
        raise TypeError(f"{where}: layers must be a list of layers, got {abridged(layers)}.")
    found = tuple(layers)
    if not found:
        raise ValueError(f"{where}: layers must hold at least one layer, got none.")
    for layer in found:
        check.role(where, "layer", layer)
    for place, layer in places(found):
        if isinstance(layer, Layer_Embedding):
            raise ValueError(
                f"{where}: layers must not hold an embedding, whose inputs are categories, got {layer!r} as {place}. "
                "Put it before the residual."
            )
        if isinstance(layer, Layer_Members):
            raise ValueError(
                f"{where}: layers must give as many rows as they take, got {layer!r} as {place}. Put it before the "
                "residual."
            )
    depth = 1 + _depth(found)
    if depth > MAX_DEPTH:
        raise ValueError(
            f"{where}: layers must hold at most {MAX_DEPTH - 1} residuals within each other, got {depth - 1}."
        )
    refuse_twice(where, found)
    check_widths(where, found)
    _refuse_change(f"{where}: layers must", found)
    return found


def _depth(layers: Sequence[Any]) -> int:
    """Return how many residuals are within each other."""
    return max((1 + _depth(layer.layers) for layer in layers if isinstance(layer, Layer_Residual)), default=0)
