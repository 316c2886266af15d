"""Diverged training: finds where the first NaN or infinity appeared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

import numpy as np

from nnx import _kernels
from nnx._base.network import Network
from nnx.engine.job import Data
from nnx.errors import DivergenceError
from nnx.layers import Layer_BatchNorm, Layer_Residual, walk
from nnx.norms import STATISTICS
from nnx.residual import places


def check_parameters(model: Network, done: int, n_batches: int) -> None:
    """Raise an error if trained parameters are not finite after this number of steps."""
    if _first_parameter(model) is not None:
        refuse_parameters(model, done, n_batches)


def refuse_parameters(model: Network, done: int, n_batches: int) -> NoReturn:
    """Raise the error that says which parameter is not finite, and after which step and epoch."""
    when = f"by {_place(done - 1, n_batches)}" if done else "before the first step"
    what = _first_parameter(model) or "a parameter that somebody has replaced meanwhile is not finite"
    _refuse(f"{when}: {what}", done)


def undo_forward(model: Network) -> None:
    """Undo the latest forward of layers, so that their next one draws the same random numbers."""
    for layer in walk(model.layers):
        if hasattr(layer, "_undo_forward"):
            layer._undo_forward()


def refuse_step(model: Network, batch: Data, done: int, n_batches: int) -> NoReturn:
    """Raise the error that says where a step's forward found a value that is not finite.

    The step makes no update, and its forward is undone.
    """
    undo_forward(model)
    found = "the samples hold a value that is not finite" if not _is_finite(batch.X) else None
    for place, layer in _in_order(model.layers):
        parameter = _name(layer, place, ("weights", "biases"))
        if found is None and parameter is not None and done:
            _refuse(f"by {_place(done - 1, n_batches)}: {parameter}", done)
        found = found or parameter or _name(layer, place, ("output",))
    _refuse(f"in {_place(done, n_batches)}: {found or 'the loss is the first value that is not finite'}", done)


def _refuse(what: str, done: int) -> NoReturn:
    raise DivergenceError(
        f"Model.train: training diverged {what}. The model is as it was after {done} whole step{'s' * (done != 1)}. "
        "Try a smaller learning rate, or pass on_nonfinite='ignore' to continue anyway."
    )


def _place(step: int, n_batches: int) -> str:
    return f"epoch {step // n_batches + 1}, step {step % n_batches}"


def _first_parameter(model: Network) -> str | None:
    """Return text about the first trained parameter or running statistic that is not finite; None if all are."""
    trained = {id(layer) for layer in model.trainable_layers}
    for place, layer in places(model.layers):
        found = _name(layer, place, ("weights", "biases")) if id(layer) in trained else None
        if found is None and isinstance(layer, Layer_BatchNorm):
            found = _name(layer, place, STATISTICS)
        if found is not None:
            return found
    return None


def _in_order(layers: Iterable[Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """Yield names and layers in the order in which their forwards end: a residual after its inner layers."""
    for number, layer in enumerate(layers):
        place = f"layer {number}{inside}"
        if isinstance(layer, Layer_Residual):
            yield from _in_order(layer.layers, f" in {place}")
        yield place, layer


def _name(layer: Any, place: str, names: tuple[str, ...]) -> str | None:
    """Return text about the first of a layer's arrays that is not finite; None if all are."""
    for name in names:
        if not _is_finite(getattr(layer, name, None)):
            return f"the {name} of {place}, {layer!r}, got the first value that is not finite"
    return None


def _is_finite(values: Any) -> bool:
    """Return False if an array of floats holds a NaN or an infinity. Anything else is not checked."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        return True
    return _kernels.known_finite(values) or bool(np.isfinite(values).all())
