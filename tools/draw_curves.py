"""Draw the pictures of docs/reference/vocabulary.md: every built-in activation, loss and schedule, in docs/pictures.

python -m pip install '.[plot,images]' && python tools/draw_curves.py

A new class gets its panel by itself. It needs a line below if its default settings do not show what it does, if it has
no defaults, or if its curve is elsewhere.
"""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from pictures import keep_small
from PIL import Image

import nnx
from nnx._base.vocabulary import BUILT_IN
from nnx.plot.parts import COLOURS

matplotlib.use("Agg")
TARGET = Path(__file__).parents[1] / "docs" / "pictures"
COLUMNS, POINTS = 4, 601
PANEL = (2.6, 1.9)  # inches

#: Settings that are drawn side by side, if the defaults alone do not show their effect.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "Activation_LeakyReLU": [{"slope": 0.1}],
    "Loss_Pinball": [{"quantiles": (0.1,)}, {"quantiles": (0.5,)}],
    "Loss_CategoricalCrossentropy": [{}, {"label_smoothing": 0.2}],
    "Loss_BinaryCrossentropy": [{}, {"pos_weight": 2.0}],
    "Schedule_Step": [{"every": 25, "factor": 0.5}, {"milestones": [20, 80], "factor": 0.3}],
    "Schedule_Exponential": [{"factor": 0.1, "every": 100}, {"factor": 0.5, "every": 20}],
    "Schedule_Polynomial": [{"steps": 80}, {"steps": 80, "power": 2.0, "final": 0.1}],
    "Schedule_Cosine": [{"steps": 80}, {"steps": 80, "cycles": 3}],
    "Schedule_OneCycle": [{"steps": 100}, {"steps": 100, "warm_up": 0.1, "initial": 0.2}],
    "Schedule_WarmUp": [{"steps": 20}, {"steps": 20, "schedule": nnx.Schedule_Cosine(80)}],
}


class Scene(NamedTuple):
    """The range of a loss: the target, the first and the last prediction, and the label."""

    target: float = 0.0
    low: float = -3.0
    high: float = 3.0
    label: str = "p − y"


SCENES = {
    "Loss_Poisson": Scene(2.0, -3.0, 2.0, "p, for y = 2"),
    "Loss_Hinge": Scene(1.0, -2.0, 3.0, "p, for y = 1"),
    "Loss_BinaryCrossentropy": Scene(1.0, 0.05, 1.0, "p, for y = 1"),
    "Loss_CategoricalCrossentropy": Scene(0.0, 0.05, 0.99, "p of the label, one of two"),
}


def activation_curves(kind: type, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs, values and derivatives."""
    activation = kind(**settings)
    x = np.linspace(-4, 4, POINTS).reshape(-1, 1)
    if kind is nnx.Activation_Softmax:  # of two classes, with 0 as the other's input
        pairs, first = np.hstack([x, np.zeros_like(x)]), np.tile([1.0, 0.0], (POINTS, 1))
        activation.forward(pairs)
        activation.backward(first)
    else:
        activation.forward(x)
        activation.backward(np.ones_like(x))
    return x[:, 0], activation.output[:, 0], activation.dinputs[:, 0]


def loss_curves(kind: type, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return predictions, losses and gradients of each sample alone."""
    loss, scene = kind(**settings), SCENES.get(kind.__name__, Scene())
    p = np.linspace(scene.low, scene.high, POINTS).reshape(-1, 1)
    targets: Any = np.full_like(p, scene.target)
    given = p
    if kind is nnx.Loss_CategoricalCrossentropy:
        given, targets = np.hstack([p, 1 - p]), np.zeros(POINTS, int)
    losses = loss.forward(given, targets)
    loss.backward(given, targets)
    return p[:, 0], losses, loss.dinputs[:, 0] * POINTS


def schedule_curves(kind: type, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, None]:
    """Return steps and factors."""
    steps = np.arange(100)
    return steps, kind(**settings)(steps), None


def text_of(value: Any) -> str:
    """Return a setting in short form."""
    return type(value).__name__ if isinstance(value, nnx.Schedule) else str(value)


def draw_panel(ax: Axes, kind: type, curves: Callable[..., Any], label: str) -> None:
    """Draw one class: a colour for each choice of settings, derivatives dashed."""
    for settings, colour in zip(SETTINGS.get(kind.__name__, [{}]), COLOURS, strict=False):
        x, values, slopes = curves(kind, settings)
        text = ", ".join(f"{name}={text_of(value)}" for name, value in settings.items())
        text = text or ("defaults" if kind.__name__ in SETTINGS else "")
        ax.plot(x, values, color=colour, label=text, linewidth=1.4)
        if slopes is not None:
            jumps = np.abs(np.diff(slopes, append=slopes[-1])) > 0.1 * np.ptp(slopes)
            slopes = np.where(jumps & (np.ptp(slopes) > 0), np.nan, slopes)
            ax.plot(x, slopes, color=colour, linestyle="--", linewidth=1)
    ax.set_title(kind.__name__, fontsize=8)
    ax.set_xlabel(label, fontsize=7, labelpad=1)
    ax.tick_params(labelsize=6.5, length=2)
    ax.grid(color="0.9", linewidth=0.6)
    if any(text for _, text in zip(*ax.get_legend_handles_labels(), strict=True)):
        ax.legend(fontsize=5.5, frameon=False, handlelength=1.2)


def draw(name: str, kinds: Iterable[type], curves: Callable[..., Any], label: Callable[[type], str]) -> None:
    """Draw all classes of a kind into one picture."""
    kinds = list(kinds)
    rows = -(-len(kinds) // COLUMNS)
    size = (COLUMNS * PANEL[0], rows * PANEL[1])
    figure, panels = plt.subplots(rows, COLUMNS, figsize=size, layout="constrained", squeeze=False)
    for ax in panels.flat[len(kinds) :]:
        ax.remove()
    for ax, kind in zip(panels.flat, kinds, strict=False):
        draw_panel(ax, kind, curves, label(kind))
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    plt.close(figure)
    with Image.open(buffer) as picture:
        keep_small(picture, TARGET / f"{name}.png", Shows=" ".join(kind.__name__ for kind in kinds))


def loss_label(kind: type) -> str:
    """Return the label of a loss's axis."""
    return SCENES.get(kind.__name__, Scene()).label


if __name__ == "__main__":
    nnx.set_default_dtype("float64")
    activations = [kind for kind in BUILT_IN["layer"] if kind.__name__.startswith("Activation_")]
    draw("activations", activations, activation_curves, lambda kind: "x")
    draw("losses", BUILT_IN["loss"], loss_curves, loss_label)
    draw("schedules", BUILT_IN["schedule"], schedule_curves, lambda kind: "step")
