"""Checks whether kernels can use an array, and new arrays. Every layer uses these functions at every call.

If the compiled kernels are built, `nnx._kernels._native` has twins of these functions, five times as fast.
`nnx._kernels` then uses those, with any backend. They only return the answer; `nnx._base.check` has the messages.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np

from nnx._base.typing import Array, FloatDType

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def readable(value: Any, shape: tuple[int | None, ...] | None, dtype: Any) -> bool:
    """Return whether kernels can read ``value`` itself: a plain array, aligned, C-ordered, in native byte order.

    ``shape`` may have None for any number of rows, and for one column or more. A shape of None is any shape of at least
    one dimension. A dtype of None is float32 or float64. A dtype that equals the array's, but is another object, may
    count as different.
    """
    if type(value) is not np.ndarray:
        return False
    flags = value.flags
    if not (flags.c_contiguous and flags.aligned and value.dtype.isnative):
        return False
    if value.dtype.char not in "fd" if dtype is None else value.dtype != dtype:
        return False
    return value.ndim > 0 if shape is None else _has_shape(value, shape)


def writable(value: Any, shape: tuple[int | None, ...], dtype: FloatDType) -> bool:
    """Return whether kernels can also write into ``value`` without a copy."""
    return type(value) is np.ndarray and value.dtype == dtype and value.flags.carray and _has_shape(value, shape)


def alike(value: Any, other: Array, writing: bool = False) -> bool:
    """Return whether ``value`` is readable, or writable, and of the shape and dtype of ``other``."""
    return (
        type(value) is np.ndarray
        and value.dtype == other.dtype
        and value.shape == other.shape
        and (value.flags.carray if writing else value.flags.c_contiguous and value.flags.aligned)
    )


def attributes(owner: object, names: tuple[str, ...], other: Array, writing: bool) -> list[Array] | None:
    """Return an object's attributes if all of them are `alike`, else None."""
    found = [getattr(owner, name, None) for name in names]
    return found if all(alike(array, other, writing) for array in found) else None  # type: ignore[return-value]


def are_zero(owners: Iterable[object], names: tuple[str, ...]) -> bool:
    """Return whether all these attributes are missing, or plain numbers that are 0."""
    found = [getattr(owner, name, 0) for owner in owners for name in names]
    return {*map(type, found)} <= {int, float} and not any(found)


def known_finite(value: Any) -> bool:
    """Return whether every number is known to be finite: False if that needs a look at them, as always here."""
    return False


def dense_parameters(layer: Any) -> tuple[Array, Array] | None:
    """Return a dense layer's weights and biases if kernels can read and write them without a copy, else None."""
    n_inputs, n_neurons, dtype = layer.n_inputs, layer.n_neurons, layer.dtype
    if type(n_inputs) is not int or type(n_neurons) is not int or dtype not in DTYPES:
        return None
    weights, biases = vars(layer).get("weights"), vars(layer).get("biases")
    fits = writable(weights, (n_inputs, n_neurons), dtype) and writable(biases, (1, n_neurons), dtype)
    return (weights, biases) if fits else None


def recalled(kept: tuple[tuple[str, ...], tuple[Any, ...], Any] | None, owner: object) -> Any:
    """Return the value made from an object's attributes, if these are still the same; else None.

    ``kept`` holds their names, their values, and the value made from them.
    """
    if kept is None:
        return None
    names, values, result = kept
    found = [getattr(owner, name, None) for name in names]
    return result if all(map(operator.is_, found, values)) else None


def empty_like(other: Array) -> Array:
    """Return a new C-ordered array of the shape and dtype of ``other``."""
    return np.empty(other.shape, other.dtype)


def empty(rows: int, columns: int, dtype: FloatDType) -> Array:
    """Return a new C-ordered matrix."""
    return np.empty((rows, columns), dtype)


class DirectCall:
    """The call of a `Predictor`. The compiled twin asks ``_native`` first, and calls ``_predict`` if that declines."""

    __slots__ = ("_native", "threads")

    _native: Any
    threads: int

    def __call__(self, X: Any, out: Array | None = None) -> Array:
        """Return the result of a subclass's ``_predict`` for samples."""
        result: Array = self._predict(X, out)  # type: ignore[attr-defined]
        return result


def _has_shape(value: Array, shape: tuple[int | None, ...]) -> bool:
    return value.ndim == len(shape) and all(
        (size > 0 or axis == 0) if wanted is None else size == wanted
        for axis, (size, wanted) in enumerate(zip(value.shape, shape, strict=True))
    )
