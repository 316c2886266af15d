"""What all pictures share: figures, colours, numbers at axes, checks of arguments, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx._base import check
from nnx._base.network import Network
from nnx._base.printing import amount_text
from nnx._base.typing import Array, ArrayLike
from nnx.losses import answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure


#: Okabe and Ito's colours, which readers with any kind of colour vision can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
MARKERS = "osD^vP*X"

#: Points of the grid along each side of a decision picture, and along a curve.
GRID = 300
#: A larger class number is an error, and would ask for an immense picture.
MAX_CLASS = 999
#: Names are cut to so many letters.
MAX_LETTERS = 28


def new_figure(where: str, width: float = 7, height: float = 5) -> Figure:
    """Return a new figure of so many inches."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ImportError(
            f"{where}: matplotlib is not installed. Install it with: python -m pip install 'nnx-core[plot]'"
        ) from None
    return plt.figure(figsize=(width, height), layout="constrained")


def axes(where: str, ax: Axes | None) -> Axes:
    """Return ``ax``, or the axes of a new figure."""
    return new_figure(where).add_subplot() if ax is None else ax


# Numbers at axes


def number_axes(*each: Axis) -> None:
    """Write axes' numbers as the terminal does: plain, with commas between thousands."""
    from matplotlib.ticker import Formatter

    class Plain(Formatter):
        def format_ticks(self, values: Sequence[float]) -> list[str]:
            return plain_numbers(values)

        def __call__(self, value: float, position: int | None = None) -> str:  # where the pointer is
            return amount_text(value)

    for axis in each:
        axis.set_major_formatter(Plain())


def plain_numbers(ticks: Sequence[float]) -> list[str]:
    """Return the texts of an axis's ticks: as many decimals as tell them apart, no digit lost."""
    values = np.asarray(ticks, float)
    if len(values) > 1 and np.abs(values).max() < 1e15:
        step = float(np.diff(np.sort(values)).min())
        enough = (n for n in range(6) if np.all(np.abs(np.round(values, n) - values) <= step * 1e-3))
        decimals = next(enough, None)
        if decimals is not None:
            return [f"{value + 0.0:,.{decimals}f}" for value in np.round(values, decimals)]
    return [amount_text(value) for value in values.tolist()]


def log_scale(ax: Axes, low: float, high: float) -> None:
    """Give the vertical axis a scale of logarithms, with a number at 1, 2 and 5 where there are few powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,), numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount_text(value)))
    ax.yaxis.set_minor_formatter(NullFormatter())


def colour_bar(ax: Axes, picture: Any, label: str, **options: Any) -> Colorbar:
    """Add a bar for the colours of an image, as high as the image is, whatever room the figure has."""
    from matplotlib.transforms import Bbox

    inside = ax.inset_axes((1, 0, 0.1, 1))

    def beside(_: Any, renderer: Any) -> Any:
        """Return the bar's place: widths in inches, so that the layout need not guess."""
        inch, box = ax.figure.dpi, ax.bbox
        place = Bbox.from_bounds(box.x1 + 0.1 * inch, box.y0, 0.18 * inch, box.height)
        return place.transformed(ax.figure.transSubfigure.inverted())

    inside.set_axes_locator(beside)
    bar = ax.figure.colorbar(picture, cax=inside, label=label, **options)
    number_axes(bar.ax.yaxis)
    bar.outline.set_visible(False)
    return bar


# Arguments


def points(where: str, X: ArrayLike, n_inputs: int) -> Array:
    """Return X as finite rows of so many numbers, at least one."""
    found = check.rows(where, "X", X, n_inputs, np.dtype(np.float64))
    if len(found) == 0 or not (np.abs(found) <= np.finfo(np.float32).max).all():
        raise ValueError(f"{where}: X must have at least one row, of finite float32 numbers only.")
    return found


def class_numbers(where: str, y: ArrayLike, n_rows: int) -> Array:
    """Return y as one class number a row."""
    classes = np.asarray(y).reshape(-1)
    if len(classes) != n_rows or n_rows == 0:
        raise ValueError(
            f"{where}: y must have one class number per point, shape ({n_rows},), at least one, got shape "
            f"{np.shape(y)}."
        )
    if not _are_class_numbers(classes):
        raise ValueError(f"{where}: y must have class numbers from 0 to {MAX_CLASS}, got others.")
    return classes.astype(np.intp)


def _are_class_numbers(values: Array) -> bool:
    real = values.dtype.kind in "iubf"
    return real and bool(np.all((values >= 0) & (values <= MAX_CLASS) & (values == np.floor(values))))


def outputs_and_classes(where: str, model: Network, X: ArrayLike) -> tuple[Array, Array]:
    """Return a model's outputs, and the class number that it predicts for each row."""
    output: Any = model.predict(X, batch_size=8192)
    predicted = getattr(model.output_layer_activation, "predictions", lambda outputs: outputs)(output)
    predicted = answers(model.loss, model.output_layer_activation, "classes").of(predicted, False)
    one_each = np.shape(predicted) in ((len(output),), (len(output), 1))
    if not one_each or not _are_class_numbers(np.asarray(predicted)):
        raise ValueError(
            f"{where}: model must predict one class number per point, "
            + ("got other numbers." if one_each else f"got predictions of shape {np.shape(predicted)[1:]} for each.")
        )
    return output, np.asarray(predicted).reshape(-1).astype(np.intp)


def single_output(where: str, model: Network, X: ArrayLike) -> Array:
    """Return a regression's outputs, shape (n, 1)."""
    if model.preprocessor is not None and model.preprocessor.classes is not None:
        raise ValueError(f"{where}: model must predict numbers, got one that predicts classes.")
    output = model.predict(X, batch_size=8192)
    output = answers(model.loss, model.output_layer_activation, "numbers").of(output, False)
    if output.ndim != 2 or output.shape[1] != 1 or len(output) == 0:
        raise ValueError(f"{where}: model must give one output for each row of X, got shape {output.shape}.")
    return output


# Names


def class_names(model: Network, n_classes: int, given: Sequence[str] | None = None) -> list[str]:
    """Return the names of the classes: those given, else the model's, else "class 0", "class 1", ..."""
    if given is None:
        given = None if model.preprocessor is None else model.preprocessor.classes
    named = [] if given is None else [str(name) for name in given]
    return named + [f"class {number}" for number in range(len(named), n_classes)]


def shortened(name: str, most: int = MAX_LETTERS) -> str:
    """Return a name that fits at an axis: without its middle if it is long."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most * 2 // 3]}…{name[most * 2 // 3 + 1 - most :]}"


def literal(name: str) -> str:
    """Return a name that matplotlib does not take for a formula."""
    return name.replace("$", r"\$")


def input_names(model: Network, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the inputs, or others if the model has no table or one of another width."""
    names = otherwise if model.table is None else tuple(map(literal, model.table.input_names))
    return names if len(names) == len(otherwise) else otherwise


def target_name(model: Network) -> str:
    """Return the name of what a model predicts."""
    return "output" if model.table is None else literal(model.table.target.name)
