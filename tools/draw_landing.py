"""Draw the pictures of the site's first page into a folder, each for light and dark pages.

python -m pip install '.[plot,sklearn]' && python tools/draw_landing.py FOLDER
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

import nnx
from nnx.plot.parts import COLOURS

matplotlib.use("Agg")
ROOT = Path(__file__).parents[1]
SIZE = (4.2, 3.6)  # inches
INK = {"light": "#222832", "dark": "#ced6dd"}  # the theme's colours of text


def draw_regions(ax: Axes) -> None:
    """Draw which class the network of the first page's lines predicts where, over points that it has not seen."""
    np.random.seed(0)
    X, y = nnx.spiral_data(samples=1000, classes=3)
    X_new, y_new = nnx.spiral_data(samples=150, classes=3)
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
    model.train(X, y, epochs=100, batch_size=100, shuffle=True, seed=0, print_every=None)
    nnx.plot.decision_regions(model, X_new, y_new, ax)
    for points in ax.collections:
        if hasattr(points, "set_sizes"):
            points.set_sizes([8])
    if ax.get_legend():
        ax.get_legend().remove()
    ax.set_title("", loc="left")
    ax.set(title=f"{model.score(X_new, y_new):.0%} of new points right", xlabel="", ylabel="", xticks=[], yticks=[])


def speeds(page: str) -> tuple[str, dict[str, float]]:
    """Return what the README's first row of speeds is of, and how many times as long as nnx each library takes."""
    found = re.search(r"^\| (a training step.*) \|\n.*\n\| (.*) \|$", page, re.MULTILINE)
    if found is None:
        raise SystemExit("README.md: the table that begins with `| a training step` is not there.")
    names, (title, _, *cells) = found[1].split(" | ")[2:], found[2].split(" | ")
    factors = {name: float(cell.strip("*× ")) for name, cell in zip(names, cells, strict=True) if cell.strip()}
    return title, {"nnx": 1.0, **factors}


def draw_speed(ax: Axes) -> None:
    """Draw a bar for each library."""
    title, factors = speeds((ROOT / "README.md").read_text(encoding="utf-8"))
    bars = ax.barh(list(factors), list(factors.values()), color=[COLOURS[0], *["#8a949e"] * (len(factors) - 1)])
    ax.bar_label(bars, [f"{factor:.3g}×" for factor in factors.values()], padding=3, color=plt.rcParams["text.color"])
    ax.invert_yaxis()
    ax.set_title(f"a training step, {title.partition(', ')[0]}")
    ax.set(xticks=[], xlim=(0, 1.2 * max(factors.values())))
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.tick_params(left=False)


def draw_table(ax: Axes) -> None:
    """Draw rents as a network predicts them, over those of flats that it has not seen."""
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


PICTURES: dict[str, Callable[[Axes], None]] = {"regions": draw_regions, "speed": draw_speed, "table": draw_table}


def main(folder: Path) -> None:
    """Draw all of them, unless they are there and newer than this script and the README."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_mark(folder / "mark.png")
    newest = max(path.stat().st_mtime for path in (Path(__file__), ROOT / "README.md"))
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
