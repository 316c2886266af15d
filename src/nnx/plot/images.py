"""Pictures of a network whose inputs are pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx._base import check
from nnx._base.network import Network
from nnx._base.parameters import Parameterized
from nnx._base.typing import Array, ArrayLike
from nnx.layers import Layer_Dense, walk
from nnx.plot.parts import (
    COLOURS,
    axes,
    class_names,
    class_numbers,
    colour_bar,
    literal,
    new_figure,
    outputs_and_classes,
    shortened,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: Images in a row of the grid of mistakes, and inches from one to the next.
ACROSS, TILE_WIDTH, TILE_HEIGHT = 6, 1.9, 2.1


def weights(model: Network, ax: Axes | None = None, *, shape: tuple[int, int] | None = None) -> Axes:
    """Draw the weights of the first layer as images, one for each neuron.

    Parameters
    ----------
    model : Model
        Its inputs are the pixels of images.
    ax : matplotlib axes, optional
        Where to draw; a new figure if None.
    shape : (height, width), optional
        Of an image; without it, images are squares.

    Returns
    -------
    The matplotlib axes. All images have one scale of colours, with white for 0.
    """
    where = "plot.weights"
    layer = next(filter(_has_neurons, walk(model.layers)), None)
    if layer is None:
        raise ValueError(f"{where}: model must have a layer with weights, got none.")
    pixels, n_neurons = np.shape(layer.weights)
    height, width = _size(where, pixels, shape)
    across = int(np.ceil((n_neurons * height / width) ** 0.5))
    down = -(-n_neurons // across)
    mosaic = np.full((down * (height + 1) - 1, across * (width + 1) - 1), np.nan)
    for neuron in range(n_neurons):
        top, left = neuron // across * (height + 1), neuron % across * (width + 1)
        mosaic[top : top + height, left : left + width] = layer.weights[:, neuron].reshape(height, width)
    limit = float(np.percentile(np.abs(layer.weights), 99)) or 1.0  # a few large ones would pale all others
    ax = axes(where, ax)
    picture = ax.imshow(mosaic, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    colour_bar(ax, picture, "weight", extend="both")
    ax.set(xticks=[], yticks=[])  # between the images, and after the last one, the figure shows
    ax.spines[:].set_visible(False)
    ax.set_facecolor("none")
    ax.set_title(f"the {n_neurons} neurons of the first layer, an image each", fontsize="medium")
    return ax


def _has_neurons(layer: Any) -> bool:
    """Return whether a layer's weights have a column for each neuron; those of other built-in layers have not."""
    if isinstance(layer, Parameterized) and not isinstance(layer, Layer_Dense):
        return False
    return np.ndim(getattr(layer, "weights", 0)) == 2


def mistakes(
    model: Network,
    X: ArrayLike,
    y: ArrayLike,
    figure: Figure | None = None,
    *,
    most: int = 24,
    shape: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
) -> Figure:
    """Draw the wrong predictions of a classifier that it is most certain of.

    Parameters
    ----------
    model : Model
        Its inputs are the pixels of images.
    X : array (n, n_inputs)
    y : array (n,)
        Class numbers.
    figure : matplotlib figure, optional
        Where to draw, which gets a size that suits the images; a new one without it.
    most : int
        How many images to draw.
    shape : (height, width), optional
        Of an image; without it, that of the model's ``images``, else images are grey squares.
    classes : list of str, optional
        Names of the classes, by class number; without it, those of the model's ``images`` or ``table``.

    Returns
    -------
    The matplotlib figure. Each image has its true class, and below it the predicted one with its probability. If
    nothing is wrong, the figure says so.
    """
    where = "plot.mistakes"
    most = check.whole(where, "most", most)
    outputs, predicted = outputs_and_classes(where, model, X)
    true = class_numbers(where, y, len(predicted))
    names = class_names(model, int(max(predicted.max(), true.max())) + 1, classes)
    sureness = np.maximum(outputs.max(axis=1), 1 - outputs[:, 0] if outputs.shape[1] == 1 else 0)
    wrong = np.flatnonzero(predicted != true)
    chosen = wrong[np.argsort(-sureness[wrong], kind="stable")][:most]
    pixels = _pixels(where, model, np.asarray(X)[chosen], shape)
    across, down = min(ACROSS, max(1, len(chosen))), max(1, -(-len(chosen) // ACROSS))
    size = max(5.0, across * TILE_WIDTH), down * TILE_HEIGHT + 0.5
    if figure is None:
        figure = new_figure(where, *size)
    figure.set_size_inches(size)
    figure.set_layout_engine("constrained", h_pad=0.07, w_pad=0.05)
    figure.suptitle(_summary(len(wrong), len(true), len(chosen)), fontsize="medium")
    for place, row in enumerate(chosen):
        ax = figure.add_subplot(down, across, place + 1)
        ax.imshow(pixels[place], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_color("0.8")
        ax.set_title(literal(shortened(names[true[row]], 22)), fontsize=9, pad=3)
        answer = f"{literal(shortened(names[predicted[row]], 16))} {sureness[row]:.3f}"
        ax.set_xlabel(answer, fontsize=9, color=COLOURS[5], labelpad=3)
    return figure


def _summary(n_wrong: int, n_images: int, n_shown: int) -> str:
    if n_wrong == 0:
        return f"no mistakes among {n_images:,} images"
    which = "all" if n_shown == n_wrong else f"the surest {n_shown:,}"
    return f"{which} of {n_wrong:,} mistakes among {n_images:,} images: true class above, predicted class below"


def _pixels(where: str, model: Network, X: Array, shape: tuple[int, int] | None) -> Array:
    """Return inputs as images of values from 0 to 255."""
    if model.images is not None and shape is None:
        pixels: Array = model.images.pixels(X)
        return pixels
    height, width = _size(where, X.shape[1] if X.ndim == 2 else 0, shape)
    low, high = (float(X.min()), float(X.max())) if len(X) else (0.0, 0.0)
    return ((X - low) * (255 / ((high - low) or 1))).reshape(-1, height, width)


def _size(where: str, n_pixels: int, shape: tuple[int, int] | None) -> tuple[int, int]:
    """Return height and width of images with so many pixels: those given, or those of a square."""
    side = round(n_pixels**0.5)
    try:
        height, width = (side, side) if shape is None else (check.whole(where, "shape", size) for size in shape)
    except (TypeError, ValueError):
        height = width = 0
    if height * width != n_pixels:
        raise ValueError(f"{where}: shape must be (height, width) of images of {n_pixels} pixels, got {shape}.")
    return height, width
