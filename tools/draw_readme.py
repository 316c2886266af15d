"""Draw the README's picture, docs/pictures/spiral.png: a spiral while nnx learns it, and the README's speeds.

python -m pip install '.[plot,images]' && python tools/draw_readme.py

The bars show the first row of that table, so the picture and the table cannot disagree once both are up to date.
"""

import io
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from pictures import keep_small
from PIL import Image

import nnx
from nnx.plot.parts import COLOURS

matplotlib.use("Agg")
ROOT = Path(__file__).parents[1]
EPOCHS = 2, 10, 100
SIZE = (10.4, 2.6)  # inches


def make() -> nnx.Model:
    """Return the network of the README's example."""
    model = nnx.Model()
    widths = (2, 64), (64, 64), (64, 3)
    for n_inputs, n_neurons in widths:
        model.add(nnx.Layer_Dense(n_inputs, n_neurons))
        model.add(nnx.Activation_Softmax() if n_neurons == 3 else nnx.Activation_ReLU())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(learning_rate=0.02, decay=1e-3),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


def draw_learning(axes: list[Axes]) -> None:
    """Draw what the network predicts after each number of epochs, over points that it has not seen."""
    np.random.seed(0)
    X, y = nnx.spiral_data(samples=1000, classes=3)
    X_new, y_new = nnx.spiral_data(samples=150, classes=3)
    model, done = make(), 0
    for epochs, ax in zip(EPOCHS, axes, strict=True):
        model.train(X, y, epochs=epochs - done, batch_size=100, shuffle=True, seed=done, print_every=None)
        done = epochs
        nnx.plot.decision_regions(model, X_new, y_new, ax)
        for points in ax.collections:
            if hasattr(points, "set_sizes"):
                points.set_sizes([4])
        if ax.get_legend():
            ax.get_legend().remove()
        ax.set_title("", loc="left")
        ax.set(
            title=f"{epochs} epochs: {model.score(X_new, y_new):.0%} right", xlabel="", ylabel="", xticks=[], yticks=[]
        )


def speeds(page: str) -> tuple[str, dict[str, float]]:
    """Return what the README's first row of speeds is of, and how many times as long as nnx each library takes."""
    head, row = re.search(r"^\| (a training step.*) \|\n.*\n\| (.*) \|$", page, re.MULTILINE).groups()  # type: ignore[union-attr]
    names, cells = head.split(" | ")[2:], row.split(" | ")
    factors = [float(cell.strip("*×")) if cell.strip() else np.nan for cell in cells[2:]]
    return cells[0], {"nnx": 1.0, **dict(zip(names, factors, strict=True))}


def draw_speed(ax: Axes) -> None:
    """Draw a bar for each library."""
    title, factors = speeds((ROOT / "README.md").read_text(encoding="utf-8"))
    bars = ax.barh(list(factors), list(factors.values()), color=[COLOURS[0], *["0.75"] * (len(factors) - 1)])
    ax.bar_label(bars, [f"{factor:.3g}×" for factor in factors.values()], padding=3)
    ax.invert_yaxis()
    ax.set_title(f"time of a step, {title.partition(', ')[0]}")
    ax.set(xticks=[], xlim=(0, 1.2 * max(factors.values())))
    ax.spines[["top", "right", "bottom"]].set_visible(False)


if __name__ == "__main__":
    figure, axes = plt.subplots(1, 4, figsize=SIZE, width_ratios=[1, 1, 1, 1.15], layout="constrained")
    draw_learning(list(axes[:3]))
    draw_speed(axes[3])
    path = ROOT / "docs" / "pictures" / "spiral.png"
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    keep_small(Image.open(drawn), path)
