"""Training that has come to numbers which are not finite: where the first of them appeared."""

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
    """Refuse trained parameters that are not finite, after so many steps."""
    if _first_parameter(model) is not None:
        refuse_parameters(model, done, n_batches)


def refuse_parameters(model: Network, done: int, n_batches: int) -> NoReturn:
    """Raise the error that says which parameter is not finite, after so many steps of epochs of ``n_batches``."""
    when = f"by {_place(done - 1, n_batches)}" if done else "before the first step"
    what = _first_parameter(model) or "a parameter that somebody has replaced meanwhile is not finite"
    _refuse(f"{when}: {what}", done)


def undo_forward(model: Network) -> None:
    """Let layers forget that the latest forward has been: their next one draws the same random numbers."""
    for layer in walk(model.layers):
        if hasattr(layer, "_undo_forward"):
            layer._undo_forward()


def refuse_step(model: Network, batch: Data, done: int, n_batches: int) -> NoReturn:
    """Raise the error that says where the forward of a step came to a value that is not finite.

    Its update is not made, and its forward is as if it had not been.
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
    """Return the clause about the first trained parameter, or running figure, that is not finite; None if all are."""
    trained = {id(layer) for layer in model.trainable_layers}
    for place, layer in places(model.layers):
        found = _name(layer, place, ("weights", "biases")) if id(layer) in trained else None
        if found is None and isinstance(layer, Layer_BatchNorm):
            found = _name(layer, place, STATISTICS)
        if found is not None:
            return found
    return None


def _in_order(layers: Iterable[Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """Yield layers in the order in which a forward ends in them, each after its name: a residual after those in it."""
    for number, layer in enumerate(layers):
        place = f"layer {number}{inside}"
        if isinstance(layer, Layer_Residual):
            yield from _in_order(layer.layers, f" in {place}")
        yield place, layer


def _name(layer: Any, place: str, names: tuple[str, ...]) -> str | None:
    """Return the clause about the first of a layer's arrays that is not finite; None if all are."""
    for name in names:
        if not _is_finite(getattr(layer, name, None)):
            return f"the {name} of {place}, {layer!r}, got the first value that is not finite"
    return None


def _is_finite(values: Any) -> bool:
    """Return whether an array of floats holds finite numbers only; all else is none of ours to judge."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        return True
    return _kernels.known_finite(values) or bool(np.isfinite(values).all())
