"""Draw the pictures of the site's first page into a folder, each for light and dark pages.

python -m pip install '.[plot,sklearn]' && python tools/draw_landing.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import readme_figures
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from readme_figures import ROOT, draw_regions, draw_speed, spiral_model

import nnx
from nnx.plot.parts import COLOURS

matplotlib.use("Agg")
SIZE = (4.2, 3.6)  # inches
INK = {"light": "#222832", "dark": "#ced6dd"}  # the theme's colours of text


def draw_spiral(ax: Axes) -> None:
    """Draw the regions of the classes that the first page's network predicts, over unseen points."""
    np.random.seed(0)
    X, y = nnx.spiral_data(samples=1000, classes=3)
    X_new, y_new = nnx.spiral_data(samples=150, classes=3)
    model = spiral_model()
    model.train(X, y, epochs=100, batch_size=100, shuffle=True, seed=0, print_every=None)
    draw_regions(model, X_new, y_new, ax, 8, f"{model.score(X_new, y_new):.0%} of new points right")


def draw_speeds(ax: Axes) -> None:
    """Draw a bar for each library."""
    draw_speed(ax, "a training step", "#8a949e")
    ax.tick_params(left=False)


def draw_table(ax: Axes) -> None:
    """Draw a network's predicted rents against the true rents of unseen flats."""
    X, y, X_test, y_test, table = nnx.load_csv(ROOT / "examples" / "rents.csv", target="rent", test_size=0.2, seed=0)
    np.random.seed(0)
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(table.n_inputs, 32), nnx.Activation_ReLU(), nnx.Layer_Dense(32, 1)):
        model.add(layer)
    model.add(nnx.Activation_Linear())
    model.set(
        loss=nnx.Loss_MeanSquaredError(),
        optimizer=nnx.Optimizer_Adam(learning_rate=0.005),
        accuracy=nnx.Accuracy_Regression(),
        table=table,
    )
    model.finalize()
    model.train(X, y, epochs=100, batch_size=32, shuffle=True, seed=0, print_every=None)
    rents, guesses = table.decode(y_test), table.decode(model.predict(X_test))
    ends = [min(rents.min(), guesses.min()), max(rents.max(), guesses.max())]
    ax.plot(ends, ends, color="#8a949e", linewidth=1)
    ax.plot(rents, guesses, "o", color=COLOURS[0], markersize=3.5, alpha=0.6, markeredgewidth=0)
    off = float(np.mean(np.abs(rents - guesses)))
    ax.set(title=f"rents, off by {off:.0f} on average", xlabel="rent", ylabel="predicted", aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)


def draw_mark(path: Path) -> None:
    """Draw the site's mark, for examples without a picture."""
    left, right = [(12, 12), (12, 52)], [(52, 12), (52, 32), (52, 52)]
    figure, ax = plt.subplots(figsize=(4, 2.8))
    ax.set_aspect("equal")
    ax.set(xlim=(-14, 78), ylim=(64, 0))
    ax.axis("off")
    for x, y in left:
        for end, height in right:
            if height != y:
                ax.plot((x, end), (y, height), color="#7fb3df" if height == 32 else "#3b82c4", linewidth=4)
    for colour, nodes in (("#e69f00", left), ("#009e73", right)):
        ax.scatter(*zip(*nodes, strict=True), s=420, color=colour, zorder=3)
    figure.savefig(path, dpi=100, transparent=True)
    plt.close(figure)


PICTURES: dict[str, Callable[[Axes], None]] = {"regions": draw_spiral, "speed": draw_speeds, "table": draw_table}


def main(folder: Path) -> None:
    """Draw all of them, unless they are there and newer than this script and the README."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_mark(folder / "mark.png")
    drawers = Path(__file__), Path(readme_figures.__file__)
    newest = max(path.stat().st_mtime for path in (*drawers, ROOT / "README.md"))
    for name, draw in PICTURES.items():
        for ground, ink in INK.items():
            path = folder / f"{name}-{ground}.png"
            if path.is_file() and path.stat().st_mtime > newest:
                continue
            names = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
            with plt.rc_context({**dict.fromkeys(names, ink), "font.size": 11}):
                figure, ax = plt.subplots(figsize=SIZE, layout="constrained")
                draw(ax)
                figure.savefig(path, dpi=160, transparent=True)
                plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
