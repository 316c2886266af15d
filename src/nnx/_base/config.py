"""Settings of the whole process: the default dtype, the data folder. Only this module reads environment variables."""

from __future__ import annotations

import functools
import operator
import os
from typing import Any

import numpy as np

from nnx._base.typing import DTypeLike, FloatDType

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

#: The variables from which OpenBLAS, MKL, BLIS and Accelerate take their number of threads, once: at NumPy's import.
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

#: The most threads.
MOST_THREADS = 256

_default_dtype: FloatDType = FLOAT32


def float_dtype(where: str, dtype: DTypeLike) -> FloatDType:
    """Return ``dtype`` as ``dtype('float32')`` or ``dtype('float64')``; ``None`` is the default dtype."""
    if dtype is None:
        return _default_dtype
    try:
        named = np.dtype(dtype)
    except TypeError:
        named = None
    if named == FLOAT32:
        return FLOAT32
    if named is not None and named == FLOAT64:
        return FLOAT64
    raise ValueError(f"{where}: dtype must be float32 or float64, got {dtype!r}.")


def set_default_dtype(dtype: DTypeLike) -> None:
    """Choose the dtype of new layers for which no dtype is given.

    Activations, losses and dropout layers also convert integers, booleans and half-precision numbers to it. They keep
    float32 and float64 arrays unchanged.

    Parameters
    ----------
    dtype : "float32" or "float64"
        Also ``np.float32``, ``np.dtype("float64")`` and the like.

    Raises
    ------
    ValueError
        For any other dtype.

    Examples
    --------
    >>> import nnx
    >>> nnx.set_default_dtype("float64")
    >>> nnx.Layer_Dense(2, 3).weights.dtype
    dtype('float64')
    >>> nnx.set_default_dtype("float32")
    """
    global _default_dtype
    if dtype is None:
        raise ValueError("set_default_dtype: dtype must be float32 or float64, got None.")
    _default_dtype = float_dtype("set_default_dtype", dtype)


def get_default_dtype() -> FloatDType:
    """Return the dtype of layers for which no dtype is given: float32, unless you change it."""
    return _default_dtype


def requested_backend() -> str | None:
    """Return the value of the environment variable ``NNX_BACKEND``; None if it is unset or empty."""
    return os.environ.get("NNX_BACKEND") or None


def data_home() -> str:
    """Return the folder that holds a folder for each data set: ``NNX_DATA_HOME``, else the user's cache folder."""
    chosen = os.environ.get("NNX_DATA_HOME")
    if chosen:
        return chosen
    from platformdirs import user_cache_dir

    return user_cache_dir("nnx", appauthor=False)


_threads: int | None = None


def set_num_threads(n: int | None) -> None:
    """Choose the most threads of training, `predict` and `evaluate`. Results are the same for any number, bit for bit.

    Steps and calls that are too small to gain from a second thread stay on one. ``Model.train(..., threads=n)`` does
    the same for one call.

    Parameters
    ----------
    n : int or None
        From 1 to 256. None, the initial value, stands for ``NNX_NUM_THREADS`` if it is set, else for the number of
        processors that this process may use.

    Raises
    ------
    TypeError, ValueError
        For anything else.

    Examples
    --------
    >>> import nnx
    >>> nnx.set_num_threads(1)
    >>> nnx.get_num_threads()
    1
    >>> nnx.set_num_threads(None)
    """
    global _threads
    _threads = None if n is None else checked_threads("set_num_threads", "n", n)


def get_num_threads() -> int:
    """Return the most threads that training, `predict` and `evaluate` use."""
    return _threads if _threads is not None else _default_threads()


def checked_threads(where: str, name: str, n: Any) -> int:
    """Return ``n``, a number of threads."""
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"{where}: {name} must be a whole number, got {n!r}.")
    count = operator.index(n)
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"{where}: {name} must be a whole number from 1 to {MOST_THREADS}, got {count}.")
    return count


@functools.cache
def _default_threads() -> int:
    requested = os.environ.get("NNX_NUM_THREADS")
    if requested:
        if not requested.isdecimal() or not 1 <= int(requested) <= MOST_THREADS:
            raise ValueError(f"NNX_NUM_THREADS must be a whole number from 1 to {MOST_THREADS}, got {requested!r}.")
        return int(requested)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, MOST_THREADS)


def single_threaded_environment() -> dict[str, str]:
    """Return the environment for a process whose BLAS has one thread. There, `single_threaded` is true."""
    return {**os.environ, **dict.fromkeys(BLAS_THREADS, "1")}


def single_threaded() -> bool:
    """Return whether this process's environment gives BLAS one thread."""
    return all(os.environ.get(variable) == "1" for variable in BLAS_THREADS)
