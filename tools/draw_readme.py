"""Draw the README's picture, docs/pictures/spiral.png: a spiral while nnx learns it, and the README's speeds.

python -m pip install '.[plot,images]' && python tools/draw_readme.py

The bars show the first row of that table, so the picture and the table cannot disagree once both are up to date.
"""

import io

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from pictures import keep_small
from PIL import Image
from readme_figures import ROOT, draw_regions, draw_speed, spiral_model

import nnx

matplotlib.use("Agg")
EPOCHS = 2, 10, 100
SIZE = (10.4, 2.6)  # inches


def draw_learning(axes: list[Axes]) -> None:
    """Draw the network's predictions after each number of epochs, over unseen points."""
    np.random.seed(0)
    X, y = nnx.spiral_data(samples=1000, classes=3)
    X_new, y_new = nnx.spiral_data(samples=150, classes=3)
    model, done = spiral_model(), 0
    for epochs, ax in zip(EPOCHS, axes, strict=True):
        model.train(X, y, epochs=epochs - done, batch_size=100, shuffle=True, seed=done, print_every=None)
        done = epochs
        title = f"{epochs} epochs: {model.score(X_new, y_new):.0%} right"
        draw_regions(model, X_new, y_new, ax, 4, title)


if __name__ == "__main__":
    figure, axes = plt.subplots(1, 4, figsize=SIZE, width_ratios=[1, 1, 1, 1.15], layout="constrained")
    draw_learning(list(axes[:3]))
    draw_speed(axes[3], "time of a step", "0.75")
    path = ROOT / "docs" / "pictures" / "spiral.png"
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    keep_small(Image.open(drawn), path)
