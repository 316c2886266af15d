"""Image files: which there are in a folder, and what is in one. Pillow reads them; it is imported at the first one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from nnx._base.text import natural_key
from nnx._base.typing import Array
from nnx.errors import DataFileError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pillow's modes whose pixels have 8 bits, and whether they become shades of grey or colours.
EIGHT_BITS = dict.fromkeys(("1", "L", "LA"), "L") | dict.fromkeys(("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"), "RGB")
#: What systems put into folders by themselves, beside files whose names begin with a dot.
SYSTEM_FILES = ("thumbs.db", "desktop.ini")


#: What a folder must be.
LAYOUT = "path must be a folder with one folder for each class in it."


def require_pillow(where: str) -> None:
    """Refuse to go on without Pillow."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError(
            f"{where}: Pillow is not installed. Install it with: python -m pip install 'nnx-core[images]'"
        ) from None


# Folders


def subfolders(folder: str) -> list[str]:
    """Return the names of the folders in a folder, hidden ones left out, in natural order."""
    names = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(names, key=natural_key)


def files_below(folder: str) -> list[str]:
    """Return the paths of the files in a folder and the folders in it, hidden ones left out, in natural order."""
    found = []
    for inside, folders, names in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        shown = (name for name in names if not name.startswith(".") and name.lower() not in SYSTEM_FILES)
        found += [os.path.join(inside, name) for name in sorted(shown, key=natural_key)]
    return found


def has_parts(folder: str) -> bool:
    """Return whether a folder has the folders ``train`` and ``test``, with folders in both, and no other."""
    if not os.path.isdir(folder) or sorted(subfolders(folder)) != ["test", "train"]:
        return False
    return all(subfolders(os.path.join(folder, part)) for part in ("train", "test"))


def class_folders(where: str, folder: str, layout: str = LAYOUT) -> list[str]:
    """Return the names of the classes that have a folder each; ``layout`` says what the folder must be."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{where}: there is no folder {os.path.abspath(folder)!r}. {layout}")
    names = subfolders(folder)
    if not names:
        raise DataFileError(f"{where}: {folder!r} must hold a folder for each class, got none.")
    return names


def class_files(where: str, folder: str, names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Return the paths of the images of the classes, each with the position of its class; a folder may be missing."""
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        inside = os.path.join(folder, name)
        if os.path.isdir(inside) and subfolders(inside):  # as when the folder above was meant
            raise DataFileError(
                f"{where}: {inside!r} must hold only images, got the folder {subfolders(inside)[0]!r} in it."
            )
        found = files_below(inside)
        files += found
        labels += [label] * len(found)
    if not files:
        raise DataFileError(f"{where}: {folder!r} holds no images.")
    return files, labels


# Images


@contextmanager
def _opened(where: str, path: str) -> Iterator[Image]:
    """Open an image, and refuse a bad one with a message that names the file."""
    import PIL.Image

    if not os.path.exists(path):
        raise FileNotFoundError(f"{where}: there is no file {path!r}.")
    try:
        if not os.path.isfile(path):
            raise PIL.UnidentifiedImageError
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                yield image
    except (DataFileError, MemoryError):
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise DataFileError(
            f"{where}: {path!r} is too large: images may have {PIL.Image.MAX_IMAGE_PIXELS:,} pixels."
        ) from None
    except PIL.UnidentifiedImageError:
        raise DataFileError(f"{where}: {path!r} is not an image.") from None
    except OSError as error:  # Pillow's word for a file that is cut off
        raise DataFileError(f"{where}: {path!r} cannot be read ({error}).") from None
    except Exception as error:  # its readers of many formats meet damage in as many ways
        raise DataFileError(f"{where}: {path!r} is damaged ({type(error).__name__}: {error}).") from None


def _check_kind(where: str, path: str, image: Image) -> None:
    if getattr(image, "is_animated", False) and image.format != "MPO":  # phones add a preview to their photographs
        frames = getattr(image, "n_frames", 0)
        raise DataFileError(f"{where}: {path!r} must be a single image, got one with {frames:,} frames.")
    if image.mode not in EIGHT_BITS:
        raise DataFileError(f"{where}: {path!r} must have pixels of 8 bits, got mode {image.mode}.")


def looks(where: str, path: str) -> tuple[int, int, bool]:
    """Return an image's height and width once it is upright, and whether it has colours; pixels are not read."""
    with _opened(where, path) as image:
        _check_kind(where, path, image)
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) >= 5  # the camera was held on its side
        size = (width, height) if turned else (height, width)
        return (*size, EIGHT_BITS[image.mode] == "RGB")


def read(where: str, path: str, size: tuple[int, int] | None = None, colour: bool | None = None) -> Array:
    """Return an image's bytes: (height, width) for shades of grey, (height, width, 3) for colours.

    Photographs are turned upright, transparency is passed over.

    Parameters
    ----------
    size : (height, width), optional
        Resize the image to this.
    colour : bool, optional
        Turn it into shades of grey, or colours; without it, it stays what it is.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling

    with _opened(where, path) as image:
        _check_kind(where, path, image)
        mode = EIGHT_BITS[image.mode]
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("P", "PA"):  # a palette may have transparency, which only RGBA takes without a warning
            upright = upright.convert("RGBA")
        upright = upright.convert(mode)
        if colour is not None:
            upright = upright.convert("RGB" if colour else "L")
        if size is not None and (upright.height, upright.width) != size:
            upright = upright.resize(size[::-1], Resampling.BILINEAR)
        return np.array(upright)
