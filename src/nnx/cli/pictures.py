"""The picture beside a trained model: what it does, and how it got there."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nnx import plot
from nnx._base import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nnx import Model
    from nnx._base.typing import Array
    from nnx.scoring.importance import Importance

Draw = Callable[["Model", "Array", "Array", "Axes"], "Axes"]
HINT = "To draw pictures, install matplotlib: python -m pip install 'nnx-core[plot]'"


def draw(
    model: Any, X: Array, y: Array, what: Draw, title: str, path: str, importance: Importance | None = None
) -> bool:
    """Write a picture with ``what`` on the left and the training's curves on the right; False without matplotlib.

    Several networks have no curves: there, the importance of columns is on the right, if it is known.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    preprocessor = model.preprocessor
    width, height = 6.5, 5.5
    if what is plot.confusion_matrix and preprocessor is not None and preprocessor.classes is not None:
        width, height = plot.matrix_size(preprocessor.classes)
    recorded = getattr(model, "history", None)
    if recorded is None and importance is None:
        figure = Figure(figsize=(width, max(height, 5.5)), layout="constrained")
        what(model, X, y, figure.add_subplot())
    else:
        figure = Figure(figsize=(width + 6, max(height, 5.5)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(width, 6))
        what(model, X, y, left)
        if recorded is not None:
            plot.history(recorded, right, held_out="test")
            title = f"{title}, and the training"
        elif importance is not None:
            plot.importance(importance, right)
            title = f"{title}, and the importance of columns"
    figure.suptitle(title, parse_math=False)
    _save(figure, "argument -o/--output", path)
    return True


def draw_mistakes(model: Any, X: Array, y: Array, path: str) -> int | None:
    """Write a picture of the surest mistakes; return how many images it has, None without matplotlib.

    Without mistakes, there is no picture.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(layout="constrained")
    n_mistakes = len(plot.mistakes(model, X, y, figure).axes)
    if n_mistakes:
        _save(figure, "argument --mistakes", path)
    return n_mistakes


def encoded(draw: Callable[[Axes], object], size: tuple[float, float]) -> bytes | None:
    """Return a PNG of so many inches with one picture; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot())
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks is drawn as a box
        figure.savefig(file, dpi=160, format="png")
    return file.getvalue()


def _save(figure: Figure, where: str, path: str) -> None:
    with files.replacing(where, path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks is drawn as a box
        figure.savefig(file, dpi=110, format="png")
