"""`Images`: how images become a network's inputs, and its outputs names of classes."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nnx._base import check, config
from nnx._base.typing import Array, ArrayLike, Path
from nnx.data import image_files
from nnx.data.answers import chosen_categories
from nnx.data.sheet import listed, shown
from nnx.errors import DataFileError

#: An image has no more pixels than this, and a model no more classes.
MAX_PIXELS, MAX_CLASSES = 1 << 24, 1000
#: A mean and a scale beyond this would make numbers that networks cannot use.
LARGEST = 1e6


class Images:
    """How images become a network's inputs, and its outputs names of classes.

    `load_images` makes one. A model that is given it (``model.set(images=...)``) keeps it in its file.

    Parameters
    ----------
    height, width : int
        Of an image, in pixels.
    classes : list of str
        Names of the classes, by class number.
    colour : bool
        Whether a pixel is three numbers (red, green, blue) instead of a shade of grey.
    mean, scale : float
        The network gets (value − mean) / scale for each value of a pixel, from 0 to 255: by default −1 to 1.

    Attributes
    ----------
    shape : tuple
        Of an image: (height, width), in colour (height, width, 3).
    n_inputs, n_outputs : int
        Columns that the network takes, and gives if each class has an output.

    Examples
    --------
    >>> from nnx import Images
    >>> images = Images(2, 2, ["circle", "square"])
    >>> images.inputs([[[0, 0], [255, 255]]]).tolist()
    [[-1.0, -1.0, 1.0, 1.0]]
    >>> images.decode([[0.2, 0.8]]).tolist()
    ['square']
    """

    def __init__(
        self,
        height: int,
        width: int,
        classes: Sequence[str],
        *,
        colour: bool = False,
        mean: float = 127.5,
        scale: float = 127.5,
    ) -> None:
        self.height, self.width = (
            check.whole("Images", name, value, 1, MAX_PIXELS) for name, value in (("height", height), ("width", width))
        )
        self.colour = check.flag("Images", "colour", colour)
        if self.height * self.width > MAX_PIXELS:
            raise ValueError(f"Images: height * width must be at most {MAX_PIXELS:,}, got {height} * {width}.")
        if isinstance(classes, str):
            raise TypeError("Images: classes must be a list of names, got one text.")
        self.classes = tuple(check.text("Images", "each of classes", name) for name in classes)
        if len(set(self.classes)) != len(self.classes) or not 2 <= len(self.classes) <= MAX_CLASSES:
            raise ValueError(
                f"Images: classes must be 2 to {MAX_CLASSES:,} different names, got {len(self.classes):,}: "
                f"{listed(self.classes)}."
            )
        self.mean = float(check.number("Images", "mean", mean, -LARGEST, LARGEST))
        self.scale = float(check.number("Images", "scale", scale, 1 / LARGEST, LARGEST))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image."""
        return (self.height, self.width, 3) if self.colour else (self.height, self.width)

    @property
    def n_inputs(self) -> int:
        """How many columns the network takes."""
        return math.prod(self.shape)

    @property
    def n_outputs(self) -> int:
        """How many columns the network gives: one a class."""
        return len(self.classes)

    # From images to arrays

    def inputs(self, pixels: ArrayLike) -> Array:
        """Return what a network takes of images that are arrays.

        Parameters
        ----------
        pixels : array (n, height, width), in colour (n, height, width, 3)
            Values from 0 to 255, such as bytes.

        Returns
        -------
        array (n, n_inputs) of the default dtype
        """
        values = np.asarray(pixels)
        if values.shape[1:] != self.shape or values.ndim == 0:
            sizes = ", ".join(map(str, self.shape))
            raise ValueError(f"Images.inputs: pixels must have shape (n, {sizes}), got {values.shape}.")
        dtype = config.get_default_dtype()
        # In place from here on: a large set of images is there twice at most.
        rows: Array = check.array("Images.inputs", "pixels", values).reshape(len(values), -1).astype(dtype)
        rows -= dtype.type(self.mean)
        rows /= dtype.type(self.scale)
        return rows

    def pixels(self, inputs: ArrayLike) -> Array:
        """Return the images that rows of inputs are made from, as `inputs` takes them: a uint8 array."""
        rows = check.rows("Images.pixels", "inputs", inputs, self.n_inputs, np.dtype(np.float64))
        values = np.rint(np.clip(rows * self.scale + self.mean, 0, 255))
        return values.astype(np.uint8).reshape(-1, *self.shape)

    def read_inputs(self, paths: Path | Iterable[Path]) -> Array:
        """Return what a network takes of image files.

        Images become grey or coloured as the model's are. Those of another size are resized, with a warning.

        Parameters
        ----------
        paths : str or path, or a list of them
            Of images, or of folders, all of whose files are taken (`files` tells in which order).

        Returns
        -------
        array (n, n_inputs) of the default dtype

        Raises
        ------
        ImportError
            If Pillow is not installed (the extra ``nnx-core[images]``).
        FileNotFoundError, DataFileError
            If a file is missing, or is no image of 8 bits. The message names it.
        """
        where = "Images.read_inputs"
        image_files.require_pillow(where)
        return self.read_files(where, files(paths))

    def read_samples(self, path: Path) -> tuple[Array, Array]:
        """Return inputs and class numbers from a folder with one folder for each class.

        If these are the folders ``train`` and ``test``, with folders in them, the samples are those of ``test``.

        Returns
        -------
        X : array (n, n_inputs)
        y : intp array (n,)

        Raises
        ------
        ImportError, FileNotFoundError, DataFileError
            As `read_inputs` does, and if a folder is no known class.
        """
        where = "Images.read_samples"
        image_files.require_pillow(where)
        folder = check.path(where, "path", path)
        if image_files.has_parts(folder):
            folder = os.path.join(folder, "test")
        for name in image_files.class_folders(where, folder):
            if name not in self.classes:
                raise DataFileError(
                    f"{where}: {folder!r} holds the class {shown(name)}, which is not one of the "
                    f"{self.n_outputs} known classes: {listed(self.classes)}."
                )
        found, labels = image_files.class_files(where, folder, self.classes)
        return self.read_files(where, found), np.array(labels, np.intp)

    def read_files(self, where: str, paths: Sequence[str], resized: bool = False) -> Array:
        """Return the inputs of image files; ``resized`` says that another size is no surprise."""
        pixels = np.empty((len(paths), *self.shape), np.uint8)
        others = []
        for row, path in enumerate(paths):
            height, width, _ = image_files.looks(where, path)
            if (height, width) != (self.height, self.width):
                others.append((path, height, width))
            pixels[row] = image_files.read(where, path, (self.height, self.width), self.colour)
        if others and not resized:
            path, height, width = others[0]
            warnings.warn(
                f"{where}: {len(others):,} of {len(paths):,} images resized to {self.height} × {self.width} pixels, "
                f"the first one from {height} × {width}: {path!r}.",
                stacklevel=3,
            )
        return self.inputs(pixels)

    # From outputs to answers

    def decode(self, outputs: Any) -> Array:
        """Return the names of the classes that a network's outputs are largest for.

        Parameters
        ----------
        outputs : array (n, n_outputs), for two classes also (n, 1)
            One output for two classes is the probability of the second.

        Returns
        -------
        array (n,) of str objects
        """
        return chosen_categories("Images.decode", self.classes, outputs)

    def fits(self, n_outputs: int) -> bool:
        """Return whether a network with so many outputs can tell the classes apart; for two, one output may do."""
        return n_outputs == self.n_outputs or (n_outputs == 1 and self.n_outputs == 2)

    # To and from model files

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        numbers = {name: getattr(self, name) for name in ("height", "width", "colour", "mean", "scale")}
        return {**numbers, "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, described: Any) -> Images:
        """Return what `to_dict` described; a ValueError or TypeError says what is wrong with another description."""
        keys = {"height", "width", "colour", "mean", "scale", "classes"}
        if not isinstance(described, dict) or set(described) != keys or not isinstance(described["classes"], list):
            raise ValueError("images are not described")
        return cls(**described)

    def size(self) -> str:
        """Return the size of an image as a person would write it: "28 × 28 pixels, grey"."""
        return f"{self.height} × {self.width} pixels, {'colour' if self.colour else 'grey'}"

    def __repr__(self) -> str:
        scaling = f"input = (value - {self.mean:g}) / {self.scale:g}"
        return f"Images(\n  {self.size()}, {scaling},\n  {self.n_outputs:,} classes: {listed(self.classes, 30)},\n)"


def files(paths: Path | Iterable[Path]) -> list[str]:
    """Return the paths of images: those given and, of folders, all in them and in their folders, in natural order.

    Hidden files, and those that systems put there (``Thumbs.db``), are passed over.
    """
    where = "images.files"
    given = [paths] if isinstance(paths, str | bytes | os.PathLike) else list(paths)
    found: list[str] = []
    for path in (check.path(where, "paths", path) for path in given):
        inside = image_files.files_below(path) if os.path.isdir(path) else [path]
        if not inside:
            raise DataFileError(f"{where}: {path!r} holds no images.")
        found += inside
    if not found:
        raise ValueError(f"{where}: paths must be at least one path, got none.")
    return found
