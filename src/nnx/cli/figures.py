"""The figures that tell how good a model is, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from nnx import Model, Table
    from nnx._typing import Array

#: Rows at a time: enough to keep NumPy busy, few enough to fit into a cache.
BATCH = 1024


def judge(model: Model, table: Table, X: Array, y: Array) -> str:
    """Return a line of figures about a model's predictions of ``y`` from ``X``."""
    figures = model.evaluate(X, y, batch_size=BATCH, silent=True)
    loss = f"loss {figures['loss']:.3f}"
    if table.classes is not None:
        return f"accuracy {figures['accuracy']:.3f}, {loss}"
    predicted, true = table.decode(model.predict(X, batch_size=BATCH)), table.decode(y)
    error = _amount(float(np.mean(np.abs(predicted - true))))
    return f"R² {_r_squared(true, predicted)}, mean absolute error {error}, {loss}"


def _r_squared(true: Array, predicted: Array) -> str:
    """Return the part of the targets' variance that predictions explain: 1 − Σ(y − ŷ)² / Σ(y − ȳ)²."""
    if np.ptp(true) == 0:
        return "undefined (all targets are the same)"
    value = 1 - float(np.sum((true - predicted) ** 2)) / float(np.sum((true - true.mean()) ** 2))
    return f"{value:.3f}" if value > -1000 else f"{value:.2g}"


def _amount(value: float) -> str:
    """Return a number as a person would write it: 35,912 or 0.01234."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
