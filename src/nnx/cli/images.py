"""What the commands do with images: options, predictions of files, the picture of mistakes."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nnx
from nnx.cli import pictures
from nnx.cli.arguments import Parser, Whole, check_outputs, sentence
from nnx.data.columns import Column, Number, Text
from nnx.data.sheet import count

MAX_SIDE = 4096


def image_size(text: str) -> tuple[int, int]:
    """Convert "28" or "28x36" to (height, width)."""
    sides = text.lower().replace("×", "x").split("x")
    try:
        height, width = (Whole(1, MAX_SIDE)(side) for side in (sides * 2 if len(sides) == 1 else sides))
    except (argparse.ArgumentTypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"must be pixels from 1 to {MAX_SIDE}, as 32 or HEIGHTxWIDTH, got {text!r}"
        ) from None
    return height, width


def add_options(group: Any) -> None:
    """Add what `nnx train` can be told about a folder of images."""
    group("--size", type=image_size, metavar="N", help="resize images to N x N pixels, or to HEIGHTxWIDTH")
    group("--grey", action="store_true", default=None, help="convert colours to grey")


def add_mistakes_option(option: Any) -> None:
    """Add what both `nnx train` and `nnx evaluate` can be told about images."""
    option("--mistakes", metavar="FILE.png", help="draw the wrong predictions that the model is surest of")


def check_mistakes_option(parser: Parser, path: str | None, inputs: list[str], outputs: tuple[str, ...] = ()) -> None:
    """Refuse a place for the picture that cannot be written to, or would be another file too."""
    if path is None:
        return
    if not path.lower().endswith(".png"):
        parser.error(f"argument --mistakes: must end in .png, got {path!r}")
    check_outputs(parser, [path], inputs, "--mistakes")
    if os.path.realpath(path) in map(os.path.realpath, outputs):
        parser.error(f"argument --mistakes: must not be where model or picture go, got {path!r}")


@contextmanager
def notes() -> Iterator[None]:
    """Print warnings about files, such as that they were resized, as lines on standard error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        finally:
            for warning in caught:
                print(f"Note: {sentence(Warning(warning.message))}", file=sys.stderr)


def announcement(images: nnx.Images, source: str, n_training: int, n_test: int) -> str:
    """Return a line about the images that a model is going to be trained on."""
    return (
        f"{source}: {count(n_training, 'image')} of {images.size()}, to train on, {n_test:,} to test; "
        f"{images.n_outputs:,} classes."
    )


def pixel_table(images: nnx.Images) -> nnx.Table:
    """Return the table that a CSV file of such images is: a column for each value of a pixel, and one of classes."""
    pixels: list[Column] = [Number(f"pixel{i}", images.mean, images.scale) for i in range(1, images.n_inputs + 1)]
    return nnx.Table([Text("label", images.classes), *pixels], "label")


def reader(preprocessor: nnx.Table | nnx.Images, path: str) -> nnx.Table | nnx.Images:
    """Return what reads a path: for a CSV file of pixels, or for standard input, the table that it is."""
    if isinstance(preprocessor, nnx.Images) and (path == "-" or path.lower().endswith(".csv")):
        return pixel_table(preprocessor)
    return preprocessor


def are_alike(one: nnx.Table | nnx.Images, other: nnx.Table | nnx.Images) -> bool:
    """Return whether two read the same files in the same way; models of nnx 0.1 know Fashion-MNIST as a table."""
    if isinstance(one, nnx.Images) and isinstance(other, nnx.Table):
        one = pixel_table(one)
    return type(one) is type(other) and one.to_dict() == other.to_dict()


def answers(images: nnx.Images) -> nnx.Table:
    """Return the table that turns a network's outputs into the answers for images."""
    return nnx.Table([Number("pixels"), Text("class", images.classes)], "class")


def draw_mistakes(model: nnx.Model | nnx.Ensemble, X: Any, y: Any, path: str) -> None:
    """Draw the surest mistakes among samples, and say where, or that there are none."""
    outcome = pictures.draw_mistakes(model, X, y, path)
    if outcome is None:
        print(pictures.HINT)
    elif outcome == 0:
        print(f"No mistakes among {count(len(X), 'image')}, so {path} is not written.")
    else:
        print(f"Mistakes saved to {os.path.abspath(path)}")
