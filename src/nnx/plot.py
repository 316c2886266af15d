"""Pictures, with matplotlib (the extra ``nnx-core[plot]``), which is imported at the first one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nnx import _check
from nnx._typing import Array, ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnx.history import History
    from nnx.model import Model

#: Okabe and Ito's colours, which readers with any kind of colour vision can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = "osD^vP*X"

#: Points of the grid along each side of a decision picture.
GRID = 300


def _axes(where: str, ax: Axes | None) -> Axes:
    """Return ``ax``, or the axes of a new figure."""
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError(
            f"{where}: matplotlib is not installed. Install it with: python -m pip install 'nnx-core[plot]'"
        ) from None
    return plt.subplots(figsize=(7, 5), layout="constrained")[1]


def history(history: History, ax: Axes | None = None) -> Axes:
    """Draw loss (left axis) and accuracy (right axis) over the epochs; `History.plot` calls it."""
    ax = _axes("History.plot", ax)
    right = ax.twinx()
    epochs = np.arange(1, len(history.loss) + 1)
    lines = ax.plot(epochs, history.loss, color=COLOURS[0], label="training loss")
    lines += right.plot(epochs, history.accuracy, color=COLOURS[1], label="training accuracy")
    if len(history.validation_loss):
        seen = epochs[: len(history.validation_loss)]
        lines += ax.plot(seen, history.validation_loss, "--", color=COLOURS[0], label="validation loss")
        lines += right.plot(seen, history.validation_accuracy, "--", color=COLOURS[1], label="validation accuracy")
    ax.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
    right.set(ylabel="accuracy", ylim=(0, 1))
    ax.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return ax


def decision_regions(model: Model, X: ArrayLike, y: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw which class a model predicts where in the plane, and the points (X, y) on it.

    Parameters
    ----------
    model : Model
        Takes two inputs; its last layer's ``predictions`` gives class numbers.
    X : array (n, 2)
    y : array (n,)
        Class numbers.
    ax : matplotlib axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    The matplotlib axes.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If X is not in the plane.
    """
    where = "plot.decision_regions"
    points = _check.rows(where, "X", X, 2, np.dtype(np.float64))
    classes = np.asarray(y).reshape(-1)
    if len(classes) != len(points):
        raise ValueError(f"{where}: y must have one class number a point, shape ({len(points)},), got {len(classes)}.")
    ax = _axes(where, ax)
    margin = np.maximum(0.05 * np.ptp(points, axis=0), 1e-3)
    (left, low), (right, high) = points.min(axis=0) - margin, points.max(axis=0) + margin
    horizontal, vertical = np.meshgrid(np.linspace(left, right, GRID), np.linspace(low, high, GRID))
    regions = _predicted_classes(model, np.column_stack([horizontal.ravel(), vertical.ravel()]))
    n_classes = int(max(regions.max(), classes.max())) + 1
    colours = [COLOURS[number % len(COLOURS)] for number in range(n_classes)]
    levels = np.arange(n_classes + 1) - 0.5
    ax.contourf(horizontal, vertical, regions.reshape(GRID, GRID), levels=levels, colors=colours, alpha=0.3)
    for number in range(n_classes):
        x, y_ = points[classes == number].T
        marker = MARKERS[number % len(MARKERS)]
        ax.scatter(x, y_, s=14, c=colours[number], marker=marker, linewidths=0, label=f"class {number}")
    ax.set(xlabel="first input", ylabel="second input", xlim=(left, right), ylim=(low, high))
    ax.set_title("points: true class\nshade: predicted class", fontsize="small", loc="left")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def _predicted_classes(model: Model, X: Array) -> Array:
    output: Any = model.predict(X, batch_size=8192)
    predictions = getattr(model.output_layer_activation, "predictions", lambda outputs: outputs)(output)
    if np.shape(predictions) not in ((len(X),), (len(X), 1)):
        raise ValueError(
            "plot.decision_regions: model must predict one class number a point, "
            f"got predictions of shape {np.shape(predictions)[1:]} for each."
        )
    return np.asarray(predictions).reshape(-1)
