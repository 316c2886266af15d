"""The common figures of the README's picture and the site's first page: a spiral, and the README's speeds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

import nnx
from nnx.plot.parts import COLOURS

ROOT = Path(__file__).resolve().parents[1]


def spiral_model() -> nnx.Model:
    """Return the network of the README's example."""
    model = nnx.Model()
    for n_inputs, n_neurons in ((2, 64), (64, 64), (64, 3)):
        model.add(nnx.Layer_Dense(n_inputs, n_neurons))
        model.add(nnx.Activation_Softmax() if n_neurons == 3 else nnx.Activation_ReLU())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(learning_rate=0.02, decay=1e-3),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


def draw_regions(model: nnx.Model, X: np.ndarray, y: np.ndarray, ax: Axes, size: float, title: str) -> None:
    """Draw the regions of the predicted classes, over points of this size, with only a title around them."""
    nnx.plot.decision_regions(model, X, y, ax)
    for points in ax.collections:
        if hasattr(points, "set_sizes"):
            points.set_sizes([size])
    if ax.get_legend():
        ax.get_legend().remove()
    ax.set_title("", loc="left")
    ax.set(title=title, xlabel="", ylabel="", xticks=[], yticks=[])


def speeds(page: str) -> tuple[str, dict[str, float]]:
    """Return the subject of the README's first row of speeds, and each library's time as a multiple of nnx's."""
    found = re.search(r"^\| (a training step.*) \|\n.*\n\| (.*) \|$", page, re.MULTILINE)
    if found is None:
        raise SystemExit("README.md: the table that begins with `| a training step` is not there.")
    names, (title, _, *cells) = found[1].split(" | ")[2:], found[2].split(" | ")
    factors = {name: float(cell.strip("*× ")) for name, cell in zip(names, cells, strict=True) if cell.strip()}
    return title, {"nnx": 1.0, **factors}


def draw_speed(ax: Axes, what: str, grey: str) -> None:
    """Draw a bar for each library, nnx's in colour."""
    title, factors = speeds((ROOT / "README.md").read_text(encoding="utf-8"))
    bars = ax.barh(list(factors), list(factors.values()), color=[COLOURS[0], *[grey] * (len(factors) - 1)])
    ax.bar_label(bars, [f"{factor:.3g}×" for factor in factors.values()], padding=3)
    ax.invert_yaxis()
    ax.set_title(f"{what}, {title.partition(', ')[0]}")
    ax.set(xticks=[], xlim=(0, 1.2 * max(factors.values())))
    ax.spines[["top", "right", "bottom"]].set_visible(False)
