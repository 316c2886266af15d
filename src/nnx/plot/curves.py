"""Learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from nnx._base.printing import figure_text
from nnx._base.typing import Array
from nnx.plot.parts import COLOURS, log_scale, new_figure, number_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: A loss is drawn on a scale of logarithms if its largest value is so many times its smallest.
LOG_RATIO = 30
#: The training's line is thin and lies on top of the thick one of the held-out data: both can be seen where they meet.
TRAINING: dict[str, Any] = {"color": COLOURS[0], "linewidth": 1, "zorder": 3}
HELD_OUT: dict[str, Any] = {"color": COLOURS[1], "linewidth": 3, "zorder": 2}
BEST: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 1}


class Recorded(Protocol):
    """What is drawn of a `History`, whose module is above this one: float64 arrays, one value per epoch."""

    data_loss: Array
    accuracy: Array
    validation_loss: Array
    validation_accuracy: Array
    is_regression: bool


def history(
    history: Recorded, ax: Axes | None = None, *, accuracy: bool | None = None, held_out: str = "validation"
) -> Axes:
    """Draw the loss over the epochs, and below it the accuracy; `History.plot` calls it.

    The loss is the data loss: penalties are left out, as validation data have none. Its scale is logarithmic where it
    spans more than a decade and a half. A vertical line marks the epoch with the lowest validation loss.

    Parameters
    ----------
    history : History
    ax : matplotlib axes, optional
        Where to draw the two panels; a new figure if None.
    accuracy : bool, optional
        Whether to draw the accuracy. Without it, that of a classifier is drawn, and that of a regression, which counts
        the predictions within a small distance of the target, is not.
    held_out : str
        What the validation data are called in the legend.

    Returns
    -------
    The matplotlib axes of the loss; those of the accuracy are the figure's next ones.
    """
    show_accuracy = not history.is_regression if accuracy is None else accuracy
    if ax is None:
        ax = new_figure("History.plot", 7, 6.5 if show_accuracy else 4.5).add_subplot()
    below = _split(ax) if show_accuracy else None
    best = _best_epoch(history.validation_loss)
    _panel(ax, history.data_loss, history.validation_loss, held_out, best)
    ax.set_ylabel("loss")
    _scale_of_loss(ax, np.concatenate([history.data_loss, history.validation_loss]))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2, columnspacing=1.2)
    lowest = ax
    if below is not None:
        _panel(below, history.accuracy, history.validation_accuracy, held_out, best)
        below.set_ylabel("accuracy")
        _scale_of_accuracy(below, np.concatenate([history.accuracy, history.validation_accuracy]))
        ax.tick_params(labelbottom=False)
        ax.figure.align_ylabels([ax, below])
        lowest = below
    lowest.set_xlabel("epoch" if best is None else _epoch_and_best(history, best, held_out, below is not None))
    return ax


def histories(each: Sequence[Recorded], ax: Axes | None = None, *, held_out: str = "validation") -> Axes:
    """Draw the losses of several trainings over their epochs, such as those of an ensemble's members.

    Parameters
    ----------
    each : sequence of History
        At least one.
    ax : matplotlib axes, optional
        Where to draw; a new figure if None.
    held_out : str
        What the validation data are called in the legend.

    Returns
    -------
    The matplotlib axes.

    Raises
    ------
    ValueError
        If there is no history.
    """
    if len(each) == 0:
        raise ValueError("plot.histories: each must hold at least one history, got none.")
    if ax is None:
        ax = new_figure("plot.histories", 7, 4.5).add_subplot()
    alpha = max(0.25, min(1.0, 6 / len(each)))
    for number, history in enumerate(each):
        for losses, label, style in (
            (history.data_loss, "training", TRAINING),
            (history.validation_loss, held_out, HELD_OUT | {"linewidth": 1.8}),
        ):
            marker = "" if len(losses) > 1 else "o"
            label = label if number == 0 and len(losses) else "_"  # which no legend shows
            ax.plot(np.arange(1, len(losses) + 1), losses, marker=marker, label=label, alpha=alpha, **style)
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.locator_params(axis="x", integer=True)
    number_axes(ax.xaxis, ax.yaxis)
    ax.set(xlabel="epoch", ylabel="loss")
    drawn = [losses for history in each for losses in (history.data_loss, history.validation_loss)]
    _scale_of_loss(ax, np.concatenate(drawn))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2, columnspacing=1.2)
    return ax


def _epoch_and_best(history: Recorded, best: int, held_out: str, accuracy: bool) -> str:
    figures = f"{held_out} loss {figure_text(history.validation_loss[best])}"
    figures += f", accuracy {figure_text(history.validation_accuracy[best])}" if accuracy else ""
    return f"epoch\nbest epoch {best + 1:,}: {figures}"


def _split(ax: Axes) -> Axes:
    """Make room below axes for others of the same width, and return those."""
    place = ax.get_subplotspec()
    if place is None:  # placed by hand
        box = ax.get_position()
        height = 0.46 * box.height
        ax.set_position((box.x0, box.y1 - height, box.width, height))
        return ax.figure.add_axes((box.x0, box.y0, box.width, height), sharex=ax)
    rows = place.subgridspec(2, 1)
    ax.set_subplotspec(rows[0])
    return ax.figure.add_subplot(rows[1], sharex=ax)


def _best_epoch(losses: Array) -> int | None:
    """Return the position of the lowest loss; None if there is none, or only one epoch."""
    if len(losses) < 2 or not np.isfinite(losses).any():
        return None
    return int(np.nanargmin(np.where(np.isfinite(losses), losses, np.nan)))


def _panel(ax: Axes, training: Array, tested: Array, held_out: str, best: int | None) -> None:
    marker = "" if len(training) > 1 else "o"  # a single epoch has no line
    ax.plot(np.arange(1, len(training) + 1), training, marker=marker, label="training", **TRAINING)
    if len(tested):
        ax.plot(np.arange(1, len(tested) + 1), tested, marker=marker, label=held_out, **HELD_OUT)
    if best is not None:
        ax.axvline(best + 1, **BEST)
        ax.plot([best + 1], [tested[best]], "o", color="black", markersize=6, zorder=4, label="best epoch")
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.locator_params(axis="x", integer=True)
    number_axes(ax.xaxis, ax.yaxis)


def _scale_of_loss(ax: Axes, losses: Array) -> None:
    finite = losses[np.isfinite(losses)]
    if len(finite) and finite.min() > 0 and finite.max() / finite.min() >= LOG_RATIO:
        log_scale(ax, float(finite.min()), float(finite.max()))
    elif len(finite):
        low, high = min(0.0, float(finite.min())), float(finite.max())
        ax.set_ylim(low, high + (0.05 * (high - low) or 1.0))


def _scale_of_accuracy(ax: Axes, accuracies: Array) -> None:
    """Show the range that the accuracy runs through, within 0 and 1, but a tenth at least: jitter is no mountains."""
    finite = accuracies[np.isfinite(accuracies)]
    if len(finite):
        low, high = float(finite.min()), float(finite.max())
        margin = max(0.05 * (high - low), (0.1 - (high - low)) / 2)
        top = high + margin if high > 1 else min(1.0, high + margin) + 0.003  # a custom one may be above 1
        ax.set_ylim(low - margin if low < 0 else max(0.0, low - margin), top)
