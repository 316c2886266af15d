"""Training that has come to numbers which are not finite: where the first of them appeared."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from nnx import _kernels
from nnx._base.network import Network
from nnx.engine.job import Data
from nnx.errors import DivergenceError
from nnx.layers import Layer_Dropout


def check_parameters(model: Network, done: int, n_batches: int) -> None:
    """Refuse trained parameters that are not finite, after so many steps."""
    if _first_parameter(model) is not None:
        refuse_parameters(model, done, n_batches)


def refuse_parameters(model: Network, done: int, n_batches: int) -> NoReturn:
    """Raise the error that says which parameter is not finite, after so many steps of epochs of ``n_batches``."""
    when = f"by {_place(done - 1, n_batches)}" if done else "before the first step"
    what = _first_parameter(model) or "a parameter that somebody has replaced meanwhile is not finite"
    _refuse(f"{when}: {what}", done)


def refuse_step(model: Network, batch: Data, done: int, n_batches: int) -> NoReturn:
    """Raise the error that says where the forward of a step came to a value that is not finite.

    Its update is not made, and its forward is as if it had not been.
    """
    for layer in model.layers:
        if isinstance(layer, Layer_Dropout):
            layer.training_forwards = layer.training_forwards - 1
    found = "the samples hold a value that is not finite" if not _is_finite(batch.X) else None
    for number, layer in enumerate(model.layers):
        parameter = _name(layer, number, ("weights", "biases"))
        if found is None and parameter is not None and done:
            _refuse(f"by {_place(done - 1, n_batches)}: {parameter}", done)
        found = found or parameter or _name(layer, number, ("output",))
    _refuse(f"in {_place(done, n_batches)}: {found or 'the loss is the first value that is not finite'}", done)


def _refuse(what: str, done: int) -> NoReturn:
    raise DivergenceError(
        f"Model.train: the training has diverged {what}. The model is as after {done} whole step{'s' * (done != 1)}. "
        "Try a smaller learning rate, or pass on_nonfinite='ignore' to go on all the same."
    )


def _place(step: int, n_batches: int) -> str:
    return f"epoch {step // n_batches + 1}, step {step % n_batches}"


def _first_parameter(model: Network) -> str | None:
    """Return the clause about the first trained parameter that is not finite; None if all are."""
    for number, layer in enumerate(model.layers):
        found = _name(layer, number, ("weights", "biases"))
        if found is not None and any(layer is trained for trained in model.trainable_layers):
            return found
    return None


def _name(layer: Any, number: int, names: tuple[str, ...]) -> str | None:
    """Return the clause about the first of a layer's arrays that is not finite; None if all are."""
    for name in names:
        if not _is_finite(getattr(layer, name, None)):
            return f"the {name} of layer {number}, {layer!r}, got the first value that is not finite"
    return None


def _is_finite(values: Any) -> bool:
    """Return whether an array of floats holds finite numbers only; all else is none of ours to judge."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        return True
    return _kernels.known_finite(values) or bool(np.isfinite(values).all())
