"""Pictures of what a regression does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nnx._base import check
from nnx._base.network import Network
from nnx._base.typing import ArrayLike
from nnx.data.columns import Number
from nnx.plot.parts import COLOURS, GRID, axes, input_names, number_axes, points, single_output, target_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def fitted_curve(model: Network, X: ArrayLike, y: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw the curve that a model of one input and one output has learnt, and the points (X, y).

    Parameters
    ----------
    model : Model
    X : array (n, 1)
    y : array (n,) or (n, 1)
    ax : matplotlib axes, optional
        Where to draw; a new figure if None.

    Returns
    -------
    The matplotlib axes.
    """
    where = "plot.fitted_curve"
    inputs = points(where, X, 1)
    targets = check.targets(where, "y", y, inputs.shape, np.dtype(np.float64))
    grid = np.linspace(inputs.min(), inputs.max(), GRID).reshape(-1, 1)
    curve = single_output(where, model, grid)
    if model.table is not None and isinstance(column := model.table.inputs[0], Number):
        inputs, grid = column.unscaled(inputs), column.unscaled(grid)
        targets, curve = model.table.decode(targets), model.table.decode(curve)
    ax = axes(where, ax)
    ax.scatter(inputs, targets, s=20, color=COLOURS[4], linewidths=0, label="data")
    ax.plot(grid, curve, color=COLOURS[5], linewidth=2, label="model")
    (name,) = input_names(model, ("input",))
    ax.set(xlabel=name, ylabel=target_name(model))
    number_axes(ax.xaxis, ax.yaxis)
    ax.legend()
    return ax


def predictions(model: Network, X: ArrayLike, y: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw a regression's predictions against the true values. A perfect model's points are on the diagonal.

    Parameters
    ----------
    model : Model
        Of one output; with a ``table``, both are drawn in the target's own units.
    X : array (n, n_inputs)
    y : array (n,) or (n, 1)
    ax : matplotlib axes, optional
        Where to draw; a new figure if None.

    Returns
    -------
    The matplotlib axes.
    """
    where = "plot.predictions"
    outputs = single_output(where, model, X)
    true = check.targets(where, "y", y, outputs.shape, np.dtype(np.float64))
    if model.table is not None:
        outputs, true = model.table.decode(outputs), model.table.decode(true)
    ax = axes(where, ax)
    low, high = float(min(true.min(), outputs.min())), float(max(true.max(), outputs.max()))
    ax.scatter(true, outputs, s=10, color=COLOURS[0], alpha=min(1.0, max(0.25, 300 / len(true))), linewidths=0)
    ax.plot([low, high], [low, high], color=COLOURS[5], label="predicted = true")
    ax.set(xlabel=f"true {target_name(model)}", ylabel=f"predicted {target_name(model)}", aspect="equal")
    ax.tick_params(axis="x", rotation=30)
    number_axes(ax.xaxis, ax.yaxis)
    ax.legend(loc="upper left")
    return ax
