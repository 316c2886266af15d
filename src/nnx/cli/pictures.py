"""The picture beside a trained model: what it does, and how it got there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from nnx import _files, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnx import Model
    from nnx._typing import Array

Draw = Callable[["Model", "Array", "Array", "Axes"], "Axes"]
HINT = "For a picture of it: python -m pip install 'nnx-core[plot]'"


def draw(model: Model, X: Array, y: Array, what: Draw, title: str, path: str) -> bool:
    """Write a picture with ``what`` on the left and the training's curves on the right; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    what(model, X, y, left)
    assert model.history is not None
    classified = model.table is not None and model.table.classes is not None
    plot.history(model.history, right, accuracy=classified, held_out="test")
    figure.suptitle(title, parse_math=False)
    with _files.replacing("argument -o/--output", path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks is drawn as a box
        figure.savefig(file, dpi=110, format="png")
    return True
