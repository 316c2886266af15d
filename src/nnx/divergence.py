"""Training that has come to numbers which are not finite: where the first of them appeared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from nnx import _kernels
from nnx.errors import DivergenceError
from nnx.layers import Layer_Dropout

if TYPE_CHECKING:
    from nnx.model import Model
    from nnx.training import Data


def refuse(model: Model, batch: Data | None, done: int, n_batches: int) -> NoReturn:
    """Raise the error that says where the first value appeared that is not finite.

    Parameters
    ----------
    batch : Data or None
        Of the step whose forward has come to such a value, and whose update is not made; None: the last update has.
    done, n_batches : int
        How many steps are done, and how many an epoch has.
    """
    if batch is not None:
        for layer in model.layers:  # as if the forward had not been
            if isinstance(layer, Layer_Dropout):
                layer.training_forwards = layer.training_forwards - 1
    what, by_update = _first_nonfinite(model, batch)
    epoch, step = divmod(done - by_update, n_batches)
    when = f"in epoch {epoch + 1}, step {step}" if done >= by_update else "before the first step"
    raise DivergenceError(
        f"Model.train: the training has diverged {when}: {what}. The model is as after {done} whole "
        f"step{'s' * (done != 1)}. Try a smaller learning rate, or pass on_nonfinite='ignore' to go on all the same."
    )


def _first_nonfinite(model: Model, batch: Data | None) -> tuple[str, bool]:
    """Return the clause that names the first value that is not finite, and whether an update made it."""
    if batch is not None and not _is_finite(batch.X):
        return "the samples hold a value that is not finite", False
    for number, layer in enumerate(model.layers):
        names = ("weights", "biases") if batch is None else ("weights", "biases", "output")
        for name in names:
            if not _is_finite(getattr(layer, name, None)):
                what = f"the {name} of layer {number}, {layer!r}, got the first value that is not finite"
                return what, name != "output"
    return "the loss is the first value that is not finite", False


def has_finite_parameters(model: Model) -> bool:
    """Return whether all weights and biases that are trained are finite numbers."""
    return all(
        _is_finite(getattr(layer, name, None)) for layer in model.trainable_layers for name in ("weights", "biases")
    )


def _is_finite(values: Any) -> bool:
    """Return whether an array of floats holds finite numbers only; all else is none of ours to judge."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        return True
    return _kernels.known_finite(values) or bool(np.isfinite(values).all())
