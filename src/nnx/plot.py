"""Pictures, with matplotlib (the extra ``nnx-core[plot]``), which is imported at the first one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx import _check
from nnx._typing import Array, ArrayLike
from nnx.columns import Number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnx.history import History
    from nnx.model import Model

#: Okabe and Ito's colours, which readers with any kind of colour vision can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = "osD^vP*X"

#: Points of the grid along each side of a decision picture, and along a curve.
GRID = 300
#: More classes than this leave no room for numbers in a confusion matrix's cells.
MAX_NUMBERED_CLASSES = 20
#: More than this leave no room for names at its axes.
MAX_NAMED_CLASSES = 60
#: Larger class numbers are none, and would ask for an immense picture.
MAX_CLASS = 999


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


def history(history: History, ax: Axes | None = None, *, accuracy: bool = True, held_out: str = "validation") -> Axes:
    """Draw loss (left axis) and accuracy (right axis) over the epochs; `History.plot` calls it.

    Parameters
    ----------
    history : History
    ax : matplotlib axes, optional
        Where to draw; a new figure without it.
    accuracy : bool
        Whether to draw the accuracy.
    held_out : str
        What the validation data are called in the legend.

    Returns
    -------
    The matplotlib axes that hold the losses.
    """
    ax = _axes("History.plot", ax)
    epochs = np.arange(1, len(history.loss) + 1)
    seen = epochs[: len(history.validation_loss)]
    marker = "" if len(epochs) > 1 else "o"  # a single epoch has no line
    lines = ax.plot(epochs, history.loss, marker=marker, color=COLOURS[0], label="training loss")
    if len(seen):
        lines += ax.plot(seen, history.validation_loss, "--", marker=marker, color=COLOURS[0], label=f"{held_out} loss")
    ax.set(xlabel="epoch", ylabel="loss", ylim=(min(0.0, ax.dataLim.y0), None))
    ax.locator_params(axis="x", integer=True)
    if accuracy:
        right = ax.twinx()
        lines += right.plot(epochs, history.accuracy, marker=marker, color=COLOURS[5], label="training accuracy")
        if len(seen):
            figures = history.validation_accuracy
            lines += right.plot(seen, figures, "--", marker=marker, color=COLOURS[5], label=f"{held_out} accuracy")
        right.set(ylabel="accuracy", ylim=(0, 1))
    ax.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return ax


# What a classifier does


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
    points = _points(where, X, 2)
    classes = _class_numbers(where, y, len(points))
    ax = _axes(where, ax)
    margin = np.maximum(0.05 * np.ptp(points, axis=0), 1e-3)
    (left, low), (right, high) = points.min(axis=0) - margin, points.max(axis=0) + margin
    horizontal, vertical = np.meshgrid(np.linspace(left, right, GRID), np.linspace(low, high, GRID))
    regions = _predicted_classes(where, model, np.column_stack([horizontal.ravel(), vertical.ravel()]))
    names = _class_names(model, int(max(regions.max(), classes.max())) + 1)
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(names))]
    levels = np.arange(len(names) + 1) - 0.5
    ax.contourf(horizontal, vertical, regions.reshape(GRID, GRID), levels=levels, colors=colours, alpha=0.3)
    for number, name in enumerate(names):
        x, y_ = points[classes == number].T
        marker = MARKERS[number % len(MARKERS)]
        ax.scatter(x, y_, s=14, c=colours[number], marker=marker, linewidths=0, label=name)
    first, second = _input_names(model, ("first input", "second input"))
    ax.set(xlabel=first, ylabel=second, xlim=(left, right), ylim=(low, high))
    ax.set_title("points: true class\nshade: predicted class", fontsize="small", loc="left")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def confusion_matrix(
    model: Model, X: ArrayLike, y: ArrayLike, ax: Axes | None = None, *, classes: Sequence[str] | None = None
) -> Axes:
    """Draw how many samples of each class a model takes for which class.

    Parameters
    ----------
    model : Model
        Its last layer's ``predictions`` gives class numbers.
    X : array (n, n_inputs)
    y : array (n,)
        Class numbers.
    ax : matplotlib axes, optional
        Where to draw; a new figure without it.
    classes : list of str, optional
        Their names, by class number; without it, those of the model's ``table``, if it has one.

    Returns
    -------
    The matplotlib axes. Each row of the picture is shaded by the shares of that row.
    """
    where = "plot.confusion_matrix"
    predicted = _predicted_classes(where, model, X)
    true = _class_numbers(where, y, len(predicted))
    names = _class_names(model, int(max(predicted.max(), true.max())) + 1, classes)
    counts = np.bincount(true * len(names) + predicted, minlength=len(names) ** 2).reshape(len(names), -1)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    ax = _axes(where, ax)
    picture = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ax.figure.colorbar(picture, ax=ax, label="share of the true class", shrink=0.8)
    if len(names) <= MAX_NUMBERED_CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            size = "small" if len(names) < 8 else "x-small"
            ax.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=size)
    places = range(len(names))
    if len(names) <= MAX_NAMED_CLASSES:  # else the axes count
        size = "medium" if len(names) <= MAX_NUMBERED_CLASSES else "xx-small"
        turning: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        ax.set_xticks(places, names, fontsize=size, **(turning if len("".join(names)) >= 30 else {}))
        ax.set_yticks(places, names, fontsize=size)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.set_title(f"accuracy {np.mean(predicted == true):.3f} on {len(true):,} samples", fontsize="medium")
    return ax


# What a regression does


def fitted_curve(model: Model, X: ArrayLike, y: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw the curve that a model of one input and one output has learnt, and the points (X, y).

    Parameters
    ----------
    model : Model
    X : array (n, 1)
    y : array (n,) or (n, 1)
    ax : matplotlib axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    The matplotlib axes.
    """
    where = "plot.fitted_curve"
    points = _points(where, X, 1)
    targets = _check.targets(where, "y", y, points.shape, np.dtype(np.float64))
    grid = np.linspace(points.min(), points.max(), GRID).reshape(-1, 1)
    curve = _single_output(where, model, grid)
    if model.table is not None and isinstance(column := model.table.inputs[0], Number):
        points, grid = (values * column.scale + column.mean for values in (points, grid))
        targets, curve = model.table.decode(targets), model.table.decode(curve)
    ax = _axes(where, ax)
    ax.scatter(points, targets, s=20, color=COLOURS[4], linewidths=0, label="data")
    ax.plot(grid, curve, color=COLOURS[5], linewidth=2, label="model")
    (name,) = _input_names(model, ("input",))
    ax.set(xlabel=name, ylabel=_target_name(model))
    ax.legend()
    return ax


def predictions(model: Model, X: ArrayLike, y: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw a regression's predictions against the true values, which a perfect model would put on the diagonal.

    Parameters
    ----------
    model : Model
        Of one output; with a ``table``, both are drawn in the target's own units.
    X : array (n, n_inputs)
    y : array (n,) or (n, 1)
    ax : matplotlib axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    The matplotlib axes.
    """
    where = "plot.predictions"
    outputs = _single_output(where, model, X)
    true = _check.targets(where, "y", y, outputs.shape, np.dtype(np.float64))
    if model.table is not None:
        outputs, true = model.table.decode(outputs), model.table.decode(true)
    ax = _axes(where, ax)
    low, high = float(min(true.min(), outputs.min())), float(max(true.max(), outputs.max()))
    ax.scatter(true, outputs, s=10, color=COLOURS[0], alpha=min(1.0, max(0.25, 300 / len(true))), linewidths=0)
    ax.plot([low, high], [low, high], color=COLOURS[5], label="predicted = true")
    ax.set(xlabel=f"true {_target_name(model)}", ylabel=f"predicted {_target_name(model)}", aspect="equal")
    ax.tick_params(axis="x", rotation=30)
    ax.legend(loc="upper left")
    return ax


# What a network has learnt


def weights(model: Model, ax: Axes | None = None, *, shape: tuple[int, int] | None = None) -> Axes:
    """Draw the weights of the first layer as images, one for each neuron.

    Parameters
    ----------
    model : Model
        Its inputs are the pixels of images.
    ax : matplotlib axes, optional
        Where to draw; a new figure without it.
    shape : (height, width), optional
        Of an image; without it, images are squares.

    Returns
    -------
    The matplotlib axes. All images have one scale of colours, with white for 0.
    """
    where = "plot.weights"
    layer = next((layer for layer in model.layers if np.ndim(getattr(layer, "weights", 0)) == 2), None)
    if layer is None:
        raise ValueError(f"{where}: model must have a layer with weights, got none.")
    pixels, n_neurons = np.shape(layer.weights)
    side = round(pixels**0.5)
    try:
        height, width = (side, side) if shape is None else (_check.whole(where, "shape", size) for size in shape)
    except (TypeError, ValueError):
        height = width = 0
    if height * width != pixels:
        raise ValueError(f"{where}: shape must be (height, width) of images of {pixels} pixels, got {shape}.")
    across = int(np.ceil((n_neurons * height / width) ** 0.5))
    down = -(-n_neurons // across)
    mosaic = np.full((down * (height + 1) - 1, across * (width + 1) - 1), np.nan)
    for neuron in range(n_neurons):
        top, left = neuron // across * (height + 1), neuron % across * (width + 1)
        mosaic[top : top + height, left : left + width] = layer.weights[:, neuron].reshape(height, width)
    limit = float(np.percentile(np.abs(layer.weights), 99)) or 1.0  # a few large ones would pale all others
    ax = _axes(where, ax)
    picture = ax.imshow(mosaic, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.figure.colorbar(picture, ax=ax, label="weight", shrink=0.8, extend="both")
    ax.set(xticks=[], yticks=[], facecolor="black")
    ax.set_title(f"the {n_neurons} neurons of the first layer, an image each", fontsize="medium")
    return ax


# What pictures need to know of a model


def _points(where: str, X: ArrayLike, n_inputs: int) -> Array:
    points = _check.rows(where, "X", X, n_inputs, np.dtype(np.float64))
    if len(points) == 0 or not (np.abs(points) <= np.finfo(np.float32).max).all():
        raise ValueError(f"{where}: X must have at least one row, of finite float32 numbers only.")
    return points


def _class_numbers(where: str, y: ArrayLike, n_rows: int) -> Array:
    classes = np.asarray(y).reshape(-1)
    if len(classes) != n_rows or n_rows == 0:
        raise ValueError(
            f"{where}: y must have one class number a point, shape ({n_rows},), at least one, got shape {np.shape(y)}."
        )
    if not _are_class_numbers(classes):
        raise ValueError(f"{where}: y must have class numbers from 0 to {MAX_CLASS}, got others.")
    return classes.astype(np.intp)


def _are_class_numbers(values: Array) -> bool:
    real = values.dtype.kind in "iubf"
    return real and bool(np.all((values >= 0) & (values <= MAX_CLASS) & (values == np.floor(values))))


def _predicted_classes(where: str, model: Model, X: ArrayLike) -> Array:
    output: Any = model.predict(X, batch_size=8192)
    predicted = getattr(model.output_layer_activation, "predictions", lambda outputs: outputs)(output)
    one_each = np.shape(predicted) in ((len(output),), (len(output), 1))
    if not one_each or not _are_class_numbers(np.asarray(predicted)):
        raise ValueError(
            f"{where}: model must predict one class number a point, "
            + ("got other numbers." if one_each else f"got predictions of shape {np.shape(predicted)[1:]} for each.")
        )
    return np.asarray(predicted).reshape(-1).astype(np.intp)


def _single_output(where: str, model: Model, X: ArrayLike) -> Array:
    if model.table is not None and model.table.classes is not None:
        raise ValueError(f"{where}: model must predict numbers, and its table's target has classes.")
    output = model.predict(X, batch_size=8192)
    if output.ndim != 2 or output.shape[1] != 1 or len(output) == 0:
        raise ValueError(f"{where}: model must give one output for each row of X, got shape {output.shape}.")
    return output


def _class_names(model: Model, n_classes: int, given: Sequence[str] | None = None) -> list[str]:
    if given is None:
        given = None if model.table is None else model.table.classes
    named = [] if given is None else [_literal(str(name)) for name in given]
    return named + [f"class {number}" for number in range(len(named), n_classes)]


def _literal(name: str) -> str:
    """Return a name that matplotlib does not take for a formula."""
    return name.replace("$", r"\$")


def _input_names(model: Model, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    names = otherwise if model.table is None else tuple(map(_literal, model.table.input_names))
    return names if len(names) == len(otherwise) else otherwise


def _target_name(model: Model) -> str:
    return "output" if model.table is None else _literal(model.table.target.name)
