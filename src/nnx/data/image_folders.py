"""Folders of images: `load_images`, ready for training, and `load_image_folder`, as bytes, as in the book."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.typing import Array, Path
from nnx.data import image_files
from nnx.data.images import Images
from nnx.data.sheet import listed
from nnx.errors import DataFileError

#: Images of one size stay as they are if no side is longer than this; others are resized to squares of so many pixels.
LONGEST_SIDE, RESIZED = 64, 32
#: What a folder in the book's layout must be.
PARTS_LAYOUT = "path must be a folder with the folders train and test in it, each with one folder for each class."


def load_images(
    path: Path,
    *,
    test_size: float | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    colour: bool | None = None,
) -> tuple[Array, Array, Array, Array, Images]:
    """Return a folder of images as training and test samples, and their preprocessor.

    Parameters
    ----------
    path : str or path
        A folder with one folder for each class, whose name is the class's; or the folders ``train`` and ``test`` with
        such folders in them.
    test_size : float, optional
        The fraction of each class to test on: at least 0, which is none, and below 1. If None, the folder ``test``, or
        else a fifth, at least one image of each class.
    seed : int
        Seed of the choice of test images.
    size : (height, width), optional
        The size to which images are resized. If None, images that all have one size of at most 64 × 64 pixels keep it;
        others are resized to 32 × 32, with a warning.
    colour : bool, optional
        Whether to keep colours. If None, they are kept if any image has them.

    Returns
    -------
    X : array (n, images.n_inputs) of the default dtype, from −1 to 1
        Sorted by class: shuffle them for training.
    y : intp array (n,)
        Class numbers: the positions of the folders' names in natural order.
    X_test, y_test : the same of the test images
    images : Images

    Raises
    ------
    ImportError
        If Pillow is not installed (the extra ``nnx-core[images]``).
    FileNotFoundError
        If the folder does not exist.
    DataFileError
        If a file is not an image of 8 bits, or a class has no images. The message names it.
    """
    where = "load_images"
    image_files.require_pillow(where)
    folder = check.path(where, "path", path)
    seed = check.whole(where, "seed", seed, 0, 2**32 - 1)
    if test_size is not None:
        test_size = check.fraction(where, "test_size", test_size)
    parts = image_files.has_parts(folder)
    if parts and test_size:
        raise ValueError(
            f"{where}: test_size must be None, as {folder!r} holds the folders train and test, got {test_size}."
        )
    training_folder = os.path.join(folder, "train") if parts else folder
    classes = image_files.class_folders(where, training_folder)
    if len(classes) < 2:
        raise DataFileError(f"{where}: {training_folder!r} must hold two classes or more, got {listed(classes)}.")
    paths, labels = image_files.class_files(where, training_folder, classes)
    missing = [name for label, name in enumerate(classes) if label not in set(labels)]
    if missing:
        raise DataFileError(f"{where}: {os.path.join(training_folder, missing[0])!r} holds no images.")
    images = _learnt(where, paths, classes, size, colour)
    X, y = images.read_files(where, paths, resized=True), np.array(labels, np.intp)
    if parts and test_size is None:
        X_test, y_test = images.read_samples(folder)
        return X, y, X_test, y_test, images
    is_test = _drawn(y, 0.2 if test_size is None else test_size, seed)
    return X[~is_test], y[~is_test], X[is_test], y[is_test], images


def _learnt(
    where: str, paths: Sequence[str], classes: Sequence[str], size: tuple[int, int] | None, colour: bool | None
) -> Images:
    """Return the size and kind of images that suits all of them, and say if that means to resize them."""
    looks = [image_files.looks(where, path) for path in paths]
    if size is None:
        sizes = {(height, width) for height, width, _ in looks}
        size = next(iter(sizes))
        if len(sizes) > 1 or max(size) > LONGEST_SIDE:
            size = (RESIZED, RESIZED)
            which = f"{len(sizes):,} different sizes" if len(sizes) > 1 else f"{looks[0][0]} × {looks[0][1]} pixels"
            warnings.warn(
                f"{where}: the images have {which} and are resized to {RESIZED} × {RESIZED} pixels. To choose another "
                "size: size=(height, width) in Python, --size on the command line.",
                stacklevel=3,
            )
    height, width = _check_size(where, size)
    has_colour = any(coloured for _, _, coloured in looks) if colour is None else check.flag(where, "colour", colour)
    return Images(height, width, classes, colour=has_colour)


def _check_size(where: str, size: Any) -> tuple[int, int]:
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise TypeError(f"{where}: size must be (height, width), got {type(size).__name__}.")
    return (check.whole(where, "height", size[0]), check.whole(where, "width", size[1]))


def _drawn(labels: Array, test_size: float, seed: int) -> Array:
    """Return which images are for testing: of each class the same part, at least one image, and never all."""
    random = np.random.RandomState(seed)
    is_test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        n_test = min(max(1, round(test_size * len(rows))), len(rows) - 1) if test_size else 0
        is_test[rows[:n_test]] = True
    return is_test


def load_image_folder(path: Path) -> tuple[Array, Array, Array, Array]:
    """Return the bytes of images in folders like the book's: ``train/0/0000.png``, ``test/0/0000.png`` and so on.

    `load_images` returns them ready for training, with the names of the classes.

    Parameters
    ----------
    path : str or path
        A folder with the folders ``train`` and ``test``, each with one folder for each class.

    Returns
    -------
    X : uint8 array (n, height, width), in colour (n, height, width, 3)
    y : uint8 array (n,)
        Class numbers: the positions of the folders' names below ``train`` in natural order, "2" before "10".
    X_test, y_test : arrays
        The same of ``test``.

    Raises
    ------
    ImportError
        If Pillow is not installed (the extra ``nnx-core[images]``).
    FileNotFoundError
        If a folder is missing.
    DataFileError
        If a file is not an image of 8 bits, or of another size than the first one; if ``test`` has a class that
        ``train`` lacks.

    Notes
    -----
    Chapter 19 of the book. Images are taken in the order of their names, class by class: shuffle them for training.
    Hidden files are passed over, and so is an image's transparency; photographs are turned upright.
    """
    where = "load_image_folder"
    image_files.require_pillow(where)
    folders = [os.path.join(check.path(where, "path", path), part) for part in ("train", "test")]
    classes, tested = (image_files.class_folders(where, folder, PARTS_LAYOUT) for folder in folders)
    if len(classes) > 256:
        raise DataFileError(f"{where}: {folders[0]!r} must hold at most 256 classes, got {len(classes)}.")
    unknown = sorted(set(tested) - set(classes))
    if unknown:
        raise DataFileError(f"{where}: {folders[1]!r} holds the class {unknown[0]!r}, which {folders[0]!r} lacks.")
    X, y = _read_folder(where, folders[0], classes, None)
    X_test, y_test = _read_folder(where, folders[1], classes, X[0])
    return X, y, X_test, y_test


def _read_folder(where: str, folder: str, classes: list[str], like: Array | None) -> tuple[Array, Array]:
    """Return the images below ``folder`` and their class numbers; all must be of one shape, that of ``like``."""
    paths, labels = image_files.class_files(where, folder, classes)
    images: list[Array] = []
    for path in paths:
        image = image_files.read(where, path)
        like = image if like is None else like
        if image.shape != like.shape:
            raise DataFileError(
                f"{where}: {path!r} must be of shape {like.shape} as the first image is, got {image.shape}."
            )
        images.append(image)
    return np.stack(images), np.array(labels, np.uint8)
