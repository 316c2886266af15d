"""Fashion-MNIST, from its four official files."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from math import prod
from typing import NoReturn

import numpy as np

from nnx._base import check, config
from nnx._base.typing import Array, Path
from nnx.errors import DataFileError

#: Names of the classes 0 to 9 of Fashion-MNIST.
FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FASHION_MNIST_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
#: Its files and their md5 sums: training images and labels, test images and labels.
FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}

#: How to get them.
DOWNLOAD = "nnx train fashion-mnist --download, or load_fashion_mnist(download=True) in Python"
#: A byte of a gzip file unpacks to no more bytes than this.
DEFLATE_LIMIT = 1032


def load_fashion_mnist(path: Path | None = None, download: bool = False) -> tuple[Array, Array, Array, Array]:
    """Return Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 × 28 grey pixels, in 10 classes.

    Parameters
    ----------
    path : str or path, optional
        The folder with the four official files (``train-images-idx3-ubyte.gz`` ...). Without it, the folder
        ``fashion-mnist`` in the folder that the environment variable ``NNX_DATA_HOME`` names or, if that is not set,
        in the user's cache folder for nnx.
    download : bool
        Fetch the files that are missing or damaged from the data set's public address first, 30 MB in all. Each
        file's md5 sum is checked before it is put in its place.

    Returns
    -------
    X : uint8 array (60000, 28, 28)
        0 is the background. For training, flatten and scale them: ``(X.reshape(len(X), -1) - 127.5) / 127.5``, which
        is what ``Images(28, 28, FASHION_MNIST_CLASSES).inputs(X)`` gives.
    y : uint8 array (60000,)
        Class numbers; `FASHION_MNIST_CLASSES` has their names.
    X_test, y_test : uint8 arrays (10000, 28, 28), (10000,)

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    DataFileError
        If a file is cut off, or not what its name says.
    OSError
        If a file cannot be fetched.

    Notes
    -----
    Chapter 19 of the book. The data set is Zalando Research's, under the MIT licence (Xiao, Rasul, Vollgraf 2017,
    arXiv:1708.07747). The files are in the IDX format: two zero bytes, a byte for the type, the number of dimensions,
    each dimension as a big-endian 32-bit integer, then the values.
    """
    where = "load_fashion_mnist"
    folder = os.path.join(config.data_home(), "fashion-mnist") if path is None else check.path(where, "path", path)
    if check.flag(where, "download", download):
        from nnx.data.download import fetch

        for name, md5 in FASHION_MNIST_FILES.items():
            fetch(where, FASHION_MNIST_ADDRESS + name, os.path.join(folder, name), md5)
    files = [os.path.join(folder, name) for name in FASHION_MNIST_FILES]
    X, y = _labelled(where, *files[:2])
    X_test, y_test = _labelled(where, *files[2:])
    if X.shape[1:] != X_test.shape[1:]:
        _refuse(where, files[2], f"holds images of {_by(X_test.shape[1:])} pixels, {files[0]!r} of {_by(X.shape[1:])}")
    return X, y, X_test, y_test


def _labelled(where: str, images: str, labels: str) -> tuple[Array, Array]:
    """Return the images of a file and the labels of another."""
    X, y = _read_idx(where, images, 3), _read_idx(where, labels, 1)
    if len(X) == 0:
        _refuse(where, images, "holds no images")
    if len(X) != len(y):
        _refuse(where, labels, f"holds {len(y)} labels for the {len(X)} images of {images!r}")
    if y.max() >= len(FASHION_MNIST_CLASSES):
        _refuse(where, labels, f"holds the label {y.max()}, and there are {len(FASHION_MNIST_CLASSES)} classes")
    return X, y


def _read_idx(where: str, path: str, n_dimensions: int) -> Array:
    """Return the bytes that a compressed IDX file holds, in their shape."""
    try:
        with gzip.open(path) as file:
            start = file.read(4 + 4 * n_dimensions)
            if len(start) < 4 + 4 * n_dimensions or start[:4] != bytes([0, 0, 8, n_dimensions]):
                _refuse(where, path, f"is not an IDX file of bytes in {n_dimensions} dimensions")
            shape = tuple(np.frombuffer(start, ">u4", offset=4).tolist())
            if prod(shape) > DEFLATE_LIMIT * os.path.getsize(path):  # read would allocate all of it
                _refuse(where, path, f"is damaged: it cannot hold the {prod(shape):,} bytes that it says it holds")
            content = file.read(prod(shape) + 1)
    except IsADirectoryError:
        _refuse(where, path, "is a folder")
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{where}: {os.path.basename(path)!r} is not in {os.path.dirname(os.path.abspath(path))!r}. "
            "Put the four files of Fashion-MNIST there, name the folder that they are in, or download them: "
            f"{DOWNLOAD}."
        ) from None
    except EOFError:
        _refuse(where, path, "is cut off")
    except (gzip.BadGzipFile, zlib.error):
        _refuse(where, path, "is not a gzip file, or is damaged")
    if len(content) != prod(shape):
        held = "more" if len(content) > prod(shape) else f"{len(content):,}"
        _refuse(where, path, f"is damaged: it says that it holds {prod(shape):,} bytes, but holds {held}")
    return np.array(np.frombuffer(content, np.uint8).reshape(shape))


def _refuse(where: str, path: str, reason: str) -> NoReturn:
    raise DataFileError(f"{where}: {path!r} {reason}. Delete it and download it again: {DOWNLOAD}.")


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
