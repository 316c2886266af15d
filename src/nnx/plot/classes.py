"""Pictures of what a classifier does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx._base import check
from nnx._base.network import Network
from nnx._base.text import natural_order
from nnx._base.typing import Array, ArrayLike
from nnx.plot.parts import (
    COLOURS,
    GRID,
    MARKERS,
    axes,
    class_names,
    class_numbers,
    colour_bar,
    input_names,
    literal,
    new_figure,
    number_axes,
    outputs_and_classes,
    points,
    shortened,
)
from nnx.scoring import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Up to so many classes a confusion matrix has shares in its cells, counts, and names at its axes.
MAX_SHARED, MAX_COUNTED, MAX_NAMED = 12, 40, 80
#: Inches that a letter of a name takes.
LETTER = 0.08


def decision_regions(model: Network, X: ArrayLike, y: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw which class a model predicts at each point of the plane, and the points (X, y).

    Parameters
    ----------
    model : Model
        Takes two inputs; its last layer's ``predictions`` gives class numbers.
    X : array (n, 2)
    y : array (n,)
        Class numbers.
    ax : matplotlib axes, optional
        Where to draw; a new figure if None.

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
    inputs = points(where, X, 2)
    classes = class_numbers(where, y, len(inputs))
    ax = axes(where, ax)
    margin = np.maximum(0.05 * np.ptp(inputs, axis=0), 1e-3)
    (left, low), (right, high) = inputs.min(axis=0) - margin, inputs.max(axis=0) + margin
    horizontal, vertical = np.meshgrid(np.linspace(left, right, GRID), np.linspace(low, high, GRID))
    _, regions = outputs_and_classes(where, model, np.column_stack([horizontal.ravel(), vertical.ravel()]))
    names = class_names(model, int(max(regions.max(), classes.max())) + 1)
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(names))]
    levels = np.arange(len(names) + 1) - 0.5
    ax.contourf(horizontal, vertical, regions.reshape(GRID, GRID), levels=levels, colors=colours, alpha=0.3)
    for number, name in enumerate(names):
        x, y_ = inputs[classes == number].T
        marker = MARKERS[number % len(MARKERS)]
        ax.scatter(x, y_, s=14, c=colours[number], marker=marker, linewidths=0, label=literal(shortened(name)))
    first, second = input_names(model, ("first input", "second input"))
    ax.set(xlabel=first, ylabel=second, xlim=(left, right), ylim=(low, high))
    number_axes(ax.xaxis, ax.yaxis)
    ax.set_title("points: true class\nshade: predicted class", fontsize="small", loc="left")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def calibration(model: Network, X: ArrayLike, y: ArrayLike, ax: Axes | None = None, *, n_bins: int = 15) -> Axes:
    """Draw how often predictions with a given probability are right. On the diagonal, the probabilities are exact.

    Of two classes, the probability is that of the second; of more, that of the predicted class. Thin lines are 95 %
    intervals for the share in a bin (Wilson's), bars below the share of the samples that the bin has.

    Parameters
    ----------
    model : Model
        Its outputs must be probabilities of classes.
    X : array (n, n_inputs)
    y : array (n,)
        Class numbers.
    ax : matplotlib axes, optional
        Where to draw; a new figure if None.
    n_bins : int
        Bins of equal width from 0 to 1.

    Returns
    -------
    The matplotlib axes.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If the outputs are not probabilities.
    """
    where = "plot.calibration"
    n_bins = check.whole(where, "n_bins", n_bins, 1)
    output, predicted = outputs_and_classes(where, model, X)
    true = class_numbers(where, y, len(predicted))
    p = _probabilities(where, output)
    if p.shape[1] == 2:
        curve = metrics.reliability(true == 1, p[:, 1], n_bins)
        what = f"probability of {literal(shortened(class_names(model, 2)[1]))}"
    else:
        curve = metrics.reliability(true == predicted, p[np.arange(len(p)), predicted], n_bins)
        what = "probability of the predicted class"
    ax = axes(where, ax)
    filled = curve.weight > 0
    n, observed = curve.weight[filled], curve.observed[filled]
    ax.bar((np.arange(n_bins) + 0.5) / n_bins, curve.weight / len(p), 0.9 / n_bins, color="0.85", label="samples")
    ax.plot([0, 1], [0, 1], color=COLOURS[5], linewidth=1, label="as often as it says")
    low, high = _wilson(observed, n)
    errors = np.maximum(0, [observed - low, high - observed])
    style: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "markersize": 4, "linewidth": 1.5, "elinewidth": 0.8}
    ax.errorbar(curve.predicted[filled], observed, yerr=errors, label="model", **style)
    ax.set(xlim=(0, 1), ylim=(0, 1.01), xlabel=what, ylabel="how often it is true", aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)
    number_axes(ax.xaxis, ax.yaxis)
    error = metrics.calibration_error(curve)
    ax.set_title(f"calibration error {error:.3f} on {len(p):,} samples", fontsize="medium")
    ax.legend(loc="upper left", fontsize="small", frameon=False)
    return ax


def _probabilities(where: str, output: Array) -> Array:
    """Return the probability of each class, float64 (n, classes)."""
    p = np.asarray(output, np.float64)
    p = np.hstack([1 - p, p]) if p.ndim == 2 and p.shape[1] == 1 else p
    if not (p.ndim == 2 and (p >= 0).all() and (p <= 1).all() and np.allclose(p.sum(axis=1), 1, atol=1e-3)):
        raise ValueError(f"{where}: model must give probabilities of classes, got other outputs.")
    return p


def _wilson(shares: Array, n: Array) -> tuple[Array, Array]:
    """Return Wilson's 95 % interval of shares of n samples: it is not empty at 0 and 1, as the plain one is."""
    z = 1.96
    middle = (shares + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(shares * (1 - shares) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def confusion_matrix(
    model: Network, X: ArrayLike, y: ArrayLike, ax: Axes | None = None, *, classes: Sequence[str] | None = None
) -> Axes:
    """Draw how many samples of each true class a model predicts as each class.

    Each cell has the number of samples and, for up to 12 classes, its share of the row. The share is also the colour.

    Parameters
    ----------
    model : Model
        Its last layer's ``predictions`` gives class numbers.
    X : array (n, n_inputs)
    y : array (n,)
        Class numbers.
    ax : matplotlib axes, optional
        Where to draw; if None, a new figure that is large enough for the classes and their names.
    classes : list of str, optional
        Their names, by class number; without it, those of the model's ``table`` or ``images``, if it has one. Names in
        the order of their letters are drawn in natural order, "2" before "10"; any other order is kept.

    Returns
    -------
    The matplotlib axes.
    """
    where = "plot.confusion_matrix"
    _, predicted = outputs_and_classes(where, model, X)
    true = class_numbers(where, y, len(predicted))
    names = class_names(model, int(max(predicted.max(), true.max())) + 1, classes)
    order = natural_order(names)
    counts = np.bincount(true * len(names) + predicted, minlength=len(names) ** 2).reshape(len(names), -1)
    counts = counts[np.ix_(order, order)]
    names = [literal(shortened(names[position])) for position in order]
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    if ax is None:
        ax = new_figure(where, *matrix_size(names)).add_subplot()
    picture = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    colour_bar(ax, picture, "share of the true class")
    _fill_cells(ax, counts, shares)
    _name_axes(ax, names)
    ax.set_title(f"accuracy {np.mean(predicted == true):.3f} on {len(true):,} samples", fontsize="medium")
    return ax


def matrix_size(names: Sequence[str]) -> tuple[float, float]:
    """Return the width and height in inches that a confusion matrix of classes with these names needs."""
    n_classes = len(names)
    cell = 0.55 if n_classes <= MAX_SHARED else 0.36 if n_classes <= MAX_COUNTED else 0.16
    side = min(11.0 if n_classes > MAX_COUNTED else 15.0, max(3.2, cell * n_classes))
    letters = max(map(len, map(shortened, names))) if n_classes <= MAX_NAMED else 4
    beside, below = LETTER * letters, LETTER * letters * (0.75 if n_classes <= MAX_SHARED else 1.0)
    return side + beside + 1.7, side + below + 1.0


def _fill_cells(ax: Axes, counts: Array, shares: Array) -> None:
    """Write counts, and where there is room shares, into the cells; of many classes, no zeros."""
    if len(counts) > MAX_COUNTED:
        return
    with_shares = len(counts) <= MAX_SHARED
    size = 11 if len(counts) <= 4 else 8 if with_shares else 7
    for (row, column), count in np.ndenumerate(counts):
        if count or with_shares:
            text = f"{count:,}\n{shares[row, column]:.3f}" if with_shares and count else f"{count:,}"
            colour = "white" if shares[row, column] > 0.5 else "black" if count else "0.6"
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _name_axes(ax: Axes, names: Sequence[str]) -> None:
    places = range(len(names))
    ax.tick_params(length=0)
    if len(names) <= MAX_NAMED:  # else the axes count
        size = 10 if len(names) <= MAX_SHARED else 8 if len(names) <= MAX_COUNTED else 6
        letters = max(map(len, names))
        side = min(ax.bbox.width, ax.bbox.height) / ax.figure.dpi - LETTER * letters  # names take their part of it
        turned: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor", "rotation": 45}
        if len(names) > MAX_SHARED:
            turned |= {"rotation": 90, "va": "center"}
        is_wide = LETTER * (letters + 1) > side / len(names)
        ax.set_xticks(places, names, fontsize=size, **(turned if is_wide else {}))
        ax.set_yticks(places, names, fontsize=size)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.spines[:].set_visible(False)
    if len(names) <= MAX_NAMED:  # thin white lines between the cells
        ax.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1)
        ax.tick_params(which="minor", length=0)
