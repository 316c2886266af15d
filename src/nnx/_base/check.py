"""Argument checks and their messages: ``{Class}.{method}: {argument} must be {expected}, got {actual}.``

Public methods check their arguments here before they do any work. ValueError is for values and shapes, TypeError for
kinds. A check returns its argument unchanged if that can be used.
"""

from __future__ import annotations

import math
import operator
import os
from numbers import Integral, Real
from typing import Any

import numpy as np

from nnx import _kernels
from nnx._base import config
from nnx._base.text import abridged, near
from nnx._base.typing import Array, FloatDType

#: The values that `finite` checks at a time: its temporary arrays stay around a megabyte.
FINITE_BLOCK = 1 << 20


INTP = np.dtype(np.intp)

#: The largest count of steps or forwards: what 64 bits hold.
MAX_COUNT = 2**63 - 1


# Numbers


def number(where: str, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> Any:
    """Return ``value``, a finite real number from ``low`` to ``high``: whole ones as an int, all others as a float.

    Model files hold only ints and floats, so a fraction or a long double becomes a float here, before its use.
    """
    if type(value) is float and low <= value <= high and math.isfinite(value):
        return value
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{where}: {name} must be a number, got {abridged(value)}.")
    plain_value: int | float = int(value) if isinstance(value, Integral) else _as_float(value)
    if not (math.isfinite(_as_float(plain_value)) and low <= plain_value <= high):
        shown = value.item() if isinstance(value, np.generic) else value
        raise ValueError(f"{where}: {name} must be {_interval(low, high)}, got {abridged(shown)}.")
    return plain_value


def _as_float(value: Any) -> float:
    """Return a real number as a float, infinity for what no float can hold."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def fraction(where: str, name: str, value: Any) -> Any:
    """Return ``value``, a number of at least 0 and below 1."""
    if type(value) is float and 0 <= value < 1:
        return value
    plain_value = number(where, name, value)
    if not 0 <= plain_value < 1:
        raise ValueError(f"{where}: {name} must be a number from 0 up to, but not including, 1, got {abridged(value)}.")
    return plain_value


def _interval(low: float, high: float) -> str:
    if math.isinf(low):
        return "a finite number"
    if math.isinf(high):
        return f"a finite number of at least {low}"
    return f"a number from {low} to {high}"


def whole(where: str, name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """Return ``value`` as an int, a whole number from ``low`` to ``high``."""
    if type(value) is int and low <= value and (high is None or value <= high):
        return value
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{where}: {name} must be a whole number, got {abridged(value)}.") from None
    if count < low or (high is not None and count > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{where}: {name} must be a whole number {limits}, got {abridged(count)}.")
    return count


def flag(where: str, name: str, value: Any) -> bool:
    """Return ``value``, which must be True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{where}: {name} must be True or False, got {abridged(value)}.")
    return bool(value)


def text(where: str, name: str, value: Any) -> str:
    """Return ``value``, a str that can be written to a file."""
    if not isinstance(value, str):
        raise TypeError(f"{where}: {name} must be text, got {abridged(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: {name} must be text that UTF-8 can hold, got {abridged(value)}.") from None
    return value


def path(where: str, name: str, value: Any) -> str:
    """Return a path as a str."""
    try:
        given = os.fspath(value)
    except TypeError:
        given = None
    if not isinstance(given, str):
        hint = " Write it as text: os.fsdecode(...)." if isinstance(given, bytes) else ""
        raise TypeError(f"{where}: {name} must be the name of a file or folder, got {abridged(value)}.{hint}")
    if "\0" in given:
        raise ValueError(f"{where}: {name} must be a name without null characters, got {abridged(value)}.")
    return given


def one_of(where: str, name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """Return ``value``, which must be among a few strings, or None if that is one of them."""
    if not isinstance(value, str | None) or value not in allowed:
        raise ValueError(
            f"{where}: {name} must be {' or '.join(map(repr, allowed))}, got {abridged(value)}.{near(allowed, value)}"
        )
    return value


# Objects

#: The methods that `Model` calls on each.
METHODS = {
    "layer": ("forward", "backward"),
    "loss": ("calculate", "backward", "new_pass", "calculate_accumulated", "remember_trainable_layers"),
    "optimizer": ("pre_update_params", "update_params", "post_update_params"),
    "accuracy": ("init", "calculate", "new_pass", "calculate_accumulated"),
    "trainable layer": ("get_parameters", "set_parameters"),
}


def role(where: str, name: str, thing: Any) -> None:
    """Refuse what cannot be a model's layer, loss, optimizer or accuracy."""
    if isinstance(thing, type):
        raise TypeError(f"{where}: {name} must be an object, got a class. Write {thing.__name__}(...).")
    if not all(callable(getattr(thing, method, None)) for method in METHODS[name]):
        raise TypeError(f"{where}: {name} must have the methods {', '.join(METHODS[name])}, got {abridged(thing)}.")


# Arrays


def array(where: str, name: str, value: Any, dtype: FloatDType | None = None) -> Array:
    """Return ``value`` as an aligned, C-ordered array of ``dtype``: itself if it is one, else a copy.

    Without a dtype, float32 and float64 arrays are kept and everything else, lists too, becomes the default dtype.
    """
    if _kernels.readable(value, None, dtype):
        return value  # type: ignore[no-any-return]
    if type(value) is not np.ndarray:
        if dtype is None and not isinstance(value, np.ndarray):
            dtype = config.get_default_dtype()
        value = plain(where, name, value)
    if dtype is None:
        dtype = value.dtype.newbyteorder("=") if value.dtype.char in "fd" else config.get_default_dtype()
    if value.dtype == dtype and value.flags.c_contiguous and value.flags.aligned:
        return value  # type: ignore[no-any-return]
    _real(where, name, value)
    with np.errstate(over="ignore"):
        return np.array(value, dtype, order="C")


def plain(where: str, name: str, value: Any) -> Array:
    """Return ``value`` (an array, list, data frame ...) as a NumPy array of its own dtype, real numbers only."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{where}: {name} must have a value in every element, got a masked array with masked elements."
        )
    try:
        values = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(value, list | tuple) and isinstance(error, ValueError):
            raise ValueError(
                f"{where}: {name} must be a full array of numbers, got rows of different lengths."
            ) from None
        raise TypeError(
            f"{where}: {name} must be an array that NumPy can read, got {_kind(value)} ({_first_line(error)})."
            f"{_conversion(name, value)}"
        ) from None
    if values.ndim == 0 and values.dtype.kind == "O":
        raise TypeError(
            f"{where}: {name} must be an array of real numbers, got {_kind(value)}.{_conversion(name, value)}"
        )
    _real(where, name, values)
    return values


def _kind(value: Any) -> str:
    """Return the kind of a value, without the value itself, which may be long."""
    kind = type(value)
    return f"a {kind.__name__}" if kind.__module__ == "builtins" else f"a {kind.__module__}.{kind.__name__}"


def _first_line(error: Exception) -> str:
    """Return the message of an error, for use within another message."""
    return str(error).partition("\n")[0].rstrip(".")[:200] or type(error).__name__


def _conversion(name: str, value: Any) -> str:
    """Return the way to convert tensors and sparse matrices of other libraries to arrays."""
    if str(getattr(value, "layout", "")).startswith("torch.sparse"):
        return f" Convert it first, as with {name}.to_dense()."
    if "bfloat16" in str(getattr(value, "dtype", "")):
        return f" Convert it first, as with {name}.float()."
    method = next((each for each in ("toarray", "todense") if callable(getattr(value, each, None))), None)
    return f" Convert it first, as with {name}.{method}()." if method else ""


def _real(where: str, name: str, values: Array) -> None:
    if values.dtype.kind not in "biuf":
        hint = f" Convert it first, as with {name}.astype(float)." if values.dtype.kind == "O" else ""
        raise TypeError(f"{where}: {name} must be an array of real numbers, got dtype {values.dtype}.{hint}")


def rows(where: str, name: str, value: Any, columns: int, dtype: FloatDType, n_rows: int | None = None) -> Array:
    """Return ``value`` as an array of shape (n, columns); n is ``n_rows`` where that is given."""
    if _kernels.readable(value, (n_rows, columns), dtype):
        return value  # type: ignore[no-any-return]
    values = array(where, name, value, dtype)
    if values.ndim != 2 or values.shape[1] != columns or (n_rows is not None and len(values) != n_rows):
        expected = f"({'n' if n_rows is None else n_rows}, {columns})"
        raise ValueError(f"{where}: {name} must have shape {expected}, got {values.shape}.")
    return values


def matrix(where: str, name: str, value: Any, least: int = 0) -> Array:
    """Return ``value`` as a float array of shape (n, m) with n at least ``least`` and m at least 1."""
    if _kernels.readable(value, (None, None), None) and len(value) >= least:
        return value  # type: ignore[no-any-return]
    values = array(where, name, value)
    if values.ndim > 0 and len(values) < least:
        raise ValueError(f"{where}: {name} must have at least {least} row, got {len(values)}.")
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{where}: {name} must have shape (n, outputs), got {values.shape}.")
    return values


def samples(where: str, name: str, value: Any, dtype: FloatDType | None = None) -> Array:
    """Return ``value`` as a float array of shape (n, ...)."""
    if _kernels.readable(value, None, dtype):
        return value  # type: ignore[no-any-return]
    values = array(where, name, value, dtype)
    if values.ndim == 0:
        raise ValueError(f"{where}: {name} must have one row per sample, got a single number.")
    return values


def like(where: str, name: str, value: Any, other: Array) -> Array:
    """Return ``value`` as an array of the shape and dtype of ``other``."""
    if _kernels.alike(value, other):
        return value  # type: ignore[no-any-return]
    values = array(where, name, value, other.dtype)
    if values.shape != other.shape:
        raise ValueError(f"{where}: {name} must have shape {other.shape}, got {values.shape}.")
    return values


def stored(where: str, owner: object, name: str, setter: str = "forward") -> Any:
    """Return the attribute that ``owner``'s method ``setter`` sets."""
    value = getattr(owner, name, None)
    if value is None:
        raise RuntimeError(f"{where}: {type(owner).__name__} has no {name} yet. Call {setter} first.")
    return value


def updatable(
    where: str,
    name: str,
    value: Any,
    shape: tuple[int, ...] | None = None,
    dtype: FloatDType | None = None,
    writing: bool = True,
) -> Array:
    """Return ``value`` as an array that kernels may write into: itself where it is one, else a cast copy.

    If not ``writing``, the array may be read-only.
    """
    if shape is not None and dtype is not None and _kernels.writable(value, shape, dtype):
        return value  # type: ignore[no-any-return]
    if writing and is_read_only(value):
        raise ValueError(f"{where}: {name} must be a writable array, got a read-only one. Assign a copy of it.")
    values = array(where, name, value, dtype)
    if shape is not None and values.shape != shape:
        raise ValueError(f"{where}: {name} must have shape {shape}, got {values.shape}.")
    return values if values.flags.writeable or not writing else values.copy()


def is_read_only(value: Any) -> bool:
    """Return whether a value is an array that must not be written into."""
    return isinstance(value, np.ndarray) and not value.flags.writeable


def bound(
    where: str,
    owner: object,
    name: str,
    shape: tuple[int, ...] | None = None,
    dtype: FloatDType | None = None,
    writing: bool = True,
) -> Array:
    """Return an attribute of ``owner`` as `updatable` does. If the result is a copy, it becomes the attribute.

    A copy of a read-only array does not, because a training has to refuse that array.
    """
    given: Any = getattr(owner, name, None)
    if shape is not None and dtype is not None and _kernels.writable(given, shape, dtype):
        return given  # type: ignore[no-any-return]
    stored(where, owner, name, "set_parameters")
    values = updatable(where, name, given, shape, dtype, writing)
    if values is not given and not is_read_only(given):
        setattr(owner, name, values)
    return values


def finite(where: str, name: str, values: Array) -> None:
    """Refuse NaN and infinity, and name the first row that holds one. It works in blocks of about a million values."""
    if values.dtype.kind != "f" or _kernels.known_finite(values):
        return
    step = max(1, FINITE_BLOCK // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), step):
        good = np.isfinite(values[start : start + step])
        if not good.all():
            place = np.argwhere(~good)[0]
            row = start + int(place[0])
            column = "".join(f", column {int(i)}" for i in place[1:])
            found = values[start:][tuple(place)]
            raise ValueError(
                f"{where}: {name} must hold finite numbers, got {found} in row {row}{column}. "
                "Pass check_finite=False and on_nonfinite='ignore' to train anyway."
            )


# Targets


def labels(where: str, name: str, value: Any, n_rows: int, n_classes: int) -> Array:
    """Return class numbers, shape (n_rows,), dtype intp, from class numbers or one-hot rows."""
    if _kernels.readable(value, (n_rows,), INTP) and _kernels.backend.bad_label(value, n_classes) < 0:
        return value  # type: ignore[no-any-return]
    y = value if type(value) is np.ndarray else plain(where, name, value)
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind in "iub":
        y = y[:, 0]
    if y.shape not in ((n_rows,), (n_rows, n_classes)):
        raise ValueError(
            f"{where}: {name} must have shape ({n_rows},) or ({n_rows}, {n_classes}) "
            f"for predictions of shape ({n_rows}, {n_classes}), got {y.shape}."
        )
    if y.ndim == 2:
        return one_hot(where, name, y)
    if y.dtype.kind not in "iub":
        raise TypeError(
            f"{where}: {name} must hold class numbers of an integer dtype or one-hot rows, got dtype {y.dtype}."
        )
    classes = np.ascontiguousarray(y, np.intp)
    position = _kernels.backend.bad_label(classes, n_classes)
    if position >= 0:
        raise ValueError(
            f"{where}: {name} must hold class numbers from 0 to {n_classes - 1}, "
            f"got {y[position]} at position {position}."
        )
    return classes


def one_hot(where: str, name: str, y: Array) -> Array:
    """Return the class numbers of one-hot rows."""
    _real(where, name, y)
    classes = np.argmax(y, axis=1)
    good = (np.count_nonzero(y, axis=1) == 1) & (y[np.arange(len(y)), classes] == 1)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(
            f"{where}: {name} must hold one-hot rows (a single 1, else 0), got {y[row].tolist()} in row {row}."
        )
    return np.asarray(classes)


def targets(where: str, name: str, value: Any, shape: tuple[int, ...], dtype: FloatDType) -> Array:
    """Return targets of the predictions' shape and dtype; shape (n,) stands for (n, 1)."""
    return shaped(where, name, array(where, name, value, dtype), shape)


def shaped(where: str, name: str, y: Array, shape: tuple[int, ...]) -> Array:
    """Return targets in the predictions' shape; shape (n,) stands for (n, 1). Nothing is broadcast."""
    if y.ndim == 1 and shape == (len(y), 1):
        return y.reshape(shape)
    if y.shape != shape:
        raise ValueError(f"{where}: {name} must have the shape of the predictions, {shape}, got {y.shape}.")
    return y


def probabilities(where: str, name: str, y: Array) -> Array:
    """Return ``y``, numbers from 0 to 1."""
    if y.size and not (y.min() >= 0 and y.max() <= 1):
        row, column = (int(i) for i in np.argwhere(~((y >= 0) & (y <= 1)))[0])
        raise ValueError(
            f"{where}: {name} must hold numbers from 0 to 1, got {y[row, column]} in row {row}, column {column}."
        )
    return y
