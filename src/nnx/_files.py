"""Files written whole or not at all, and files of arrays with a description, read without trust.

The latter are safetensors, the description as JSON in their metadata; what it means is `nnx.storage`'s.
"""

from __future__ import annotations

import contextlib
import json
import math
import operator
import os
import re
import secrets
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

import numpy as np

from nnx._typing import Array, Path
from nnx.errors import ModelFileError

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

#: The dtypes of arrays, by the format's names and by NumPy's.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool"} | {
    f"{letter}{bits}": f"{word}{bits}" for letter, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
}

#: Limits of the JSON header: bytes, values and depth, which bound memory and time before it is parsed; a network with
#: thousands of layers, and a table with tens of thousands of categories, stay below.
MAX_HEADER = 1 << 23
MAX_VALUES = 100_000
MAX_DEPTH = 32
MAX_DIMENSIONS = 32
BRACKET = re.compile(rb"[\[{\]}]")
LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{400}")

#: How the name of a temporary file ends.
LEFTOVER = re.compile(r"[0-9a-f]{16}\.tmp")

PICKLE = (
    "is a pickle, and opening a pickle runs code, so nnx does not. To move the parameters over, load the file once "
    "where it was written and call numpy.savez('parameters.npz', *[array for pair in parameters for array in pair]), "
    "with parameters = model.get_parameters() for a model; then, with nnx, arrays = "
    "list(numpy.load('parameters.npz').values()) and model.set_parameters(list(zip(arrays[::2], arrays[1::2])))"
)


def refuse(where: str, path: Path, reason: str) -> NoReturn:
    """Raise the error that says what is wrong with a file."""
    raise ModelFileError(f"{where}: {os.fspath(path)!r} {printable(reason)}.")


def printable(text: str, most: int = 1000) -> str:
    """Return text that may come from a file as one line that a terminal can show."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[:most])
    return shown if len(text) <= most else f"{shown} ..."


# Writing


def writable(where: str, path: Path, name: str = "path") -> str:
    """Return where a file would be written for ``path``, the argument ``name``; refuse what is no place for one."""
    given = os.fspath(path)
    target = os.path.realpath(given)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{where}: {name} must be in an existing folder, got {given!r}.")
    if not os.path.basename(given) or (os.path.exists(target) and not os.path.isfile(target)):
        raise IsADirectoryError(f"{where}: {name} must name a file, got {given!r}.")
    try:
        os.lstat(target)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OSError(f"{where}: {name} must name a possible file, got {given!r} ({error.strerror}).") from None
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{where}: {name} must be in a folder that you may write to, got {given!r}.")
    return target


def write(where: str, path: Path, description: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write a file; an array that stands under two names is written once."""
    from safetensors.numpy import save

    first: dict[int, str] = {}
    shared = {name: first[id(array)] for name, array in arrays.items() if first.setdefault(id(array), name) != name}
    try:
        plain = json.loads(json.dumps({**description, "shared": shared}, allow_nan=False, default=plain_number))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where}: get_config() must return finite numbers and text only, got this: {error}.") from None
    tensors = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        for name, array in arrays.items()
        if name not in shared
    }
    text = json.dumps({**plain, "crc32": _checksum(plain, tensors)})
    content = save(tensors, metadata={"nnx": text})
    if int.from_bytes(content[:8], "little") > MAX_HEADER or not _is_modest(text.encode()):
        raise ValueError(f"{where}: the model must have a shorter description: fewer layers, or fewer categories.")
    with replacing(where, path) as file:
        file.write(content)


def _checksum(description: dict[str, Any], arrays: dict[str, Array]) -> int:
    """Return the CRC-32 of a description and all arrays, little-endian, in the order of their names."""
    crc = zlib.crc32(json.dumps(description, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        crc = zlib.crc32(json.dumps([name, array.dtype.name, array.shape]).encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


def plain_number(value: Any) -> Any:
    """Return a NumPy scalar as JSON takes it."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r}")


@contextlib.contextmanager
def replacing(where: str, path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends well; an error leaves no trace of it.

    A reader finds the old file or the whole new one, even after a crash.
    """
    target = writable(where, path)
    folder = os.path.dirname(target)
    temporary = f"{_temporary_prefix(target)}{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            _lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Remove what writers of ``path`` left behind that were killed; what somebody is writing is locked."""
    folder, prefix = os.path.split(_temporary_prefix(os.path.realpath(os.fspath(path))))
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(prefix) and LEFTOVER.fullmatch(name[len(prefix) :]):
                leftover = os.path.join(folder, name)
                with open(leftover, "rb") as file:
                    _lock(file)
                    os.remove(leftover)


def _lock(file: BinaryIO) -> None:
    """Keep others from removing a file until it is closed; OSError if somebody else does. Windows does so by itself."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _temporary_prefix(target: str) -> str:
    """Return what the names of temporary files for ``target`` begin with: they are short, whatever its name."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".nnx-{zlib.crc32(os.fsencode(name)):08x}-")


# Reading


def read(where: str, path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a file's description and its arrays: writable, and one array under all the names that share it.

    Nothing that a file claims is believed before it has been compared with the file's length, and arrays are read
    straight into their own memory, so that reading needs little more than the file's size. (The library that writes
    the format would see only what has been checked, and copy it twice.)
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = _parsed(where, path, _header(where, path, file, size))
        metadata = header.pop("__metadata__", None)
        if not isinstance(metadata, dict) or set(metadata) != {"nnx"} or not isinstance(metadata["nnx"], str):
            refuse(where, path, "is a safetensors file, but none that nnx wrote")
        description = _parsed(where, path, metadata["nnx"].encode("utf-8", "surrogatepass"))
        places = _places(where, path, header, size - file.tell())
        arrays = {name: _array(where, path, file, *place) for name, place in places.items()}
    checksum = description.pop("crc32", None)
    if type(checksum) is not int or checksum != _checksum(description, arrays):
        refuse(where, path, "is damaged: its checksum is not that of its content")
    shared = description.pop("shared", None)
    if not isinstance(shared, dict):
        refuse(where, path, "is damaged: its description has no shared")
    for name, original in shared.items():
        if name in arrays or not isinstance(original, str) or original not in places:
            refuse(where, path, f"is damaged: {name!r} cannot share {original!r}")
        arrays[name] = arrays[original]
    return description, arrays


def _header(where: str, path: Path, file: BinaryIO, size: int) -> bytes:
    """Read the JSON header, whose length comes first."""
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if not (2 <= length <= min(size - 8, MAX_HEADER) and start[8:] == b"{"):  # a length may begin as a pickle does
        if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            refuse(where, path, PICKLE)
        refuse(where, path, "is no safetensors file, or is cut off")
    return start[8:] + file.read(length - 1)


def _parsed(where: str, path: Path, text: bytes) -> dict[str, Any]:
    """Return the JSON object that a text is; refuse what is too large, too deep, ambiguous or not finite."""
    if not _is_modest(text):
        refuse(where, path, "is damaged: its description is too long, or too deep")
    try:
        found = json.loads(
            text.decode("utf-8", "surrogatepass"),
            object_pairs_hook=_unambiguous,
            parse_constant=_no_constant,
            parse_float=_finite_number,
        )
    except ValueError as error:  # of json, of the hooks below, and of bytes that are no text
        refuse(where, path, f"is damaged: its description cannot be read ({error})")
    if not isinstance(found, dict):
        refuse(where, path, "is damaged: its description is none")
    return found


def _is_modest(text: bytes) -> bool:
    """Return whether a JSON text can be parsed in little time and memory: found out in as little."""
    text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # every quotation mark left is a string's beginning or end
    if text.count(b'"') > 4 * MAX_VALUES:
        return False
    marks = b"".join(text.split(b'"')[::2])
    n_marks = sum(map(marks.count, (b",", b"[", b"{", b"]", b"}")))
    if n_marks > 2 * MAX_VALUES or LONG_NUMBER.search(marks):
        return False
    depth = 0
    for bracket in BRACKET.finditer(marks):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            return False
    return True


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _places(
    where: str, path: Path, header: dict[str, Any], n_bytes: int
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return dtype and shape of each array, in the order in which they lie; they fill the file, side by side."""
    found = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            refuse(where, path, f"is damaged: it does not say where {name!r} is")
        kind, shape, ends = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in DTYPES:
            refuse(where, path, f"is damaged: it holds arrays of {kind}")
        if not (_are_counts(shape) and _are_counts(ends)) or len(shape) > MAX_DIMENSIONS or len(ends) != 2:
            refuse(where, path, f"is damaged: {name!r} has no possible shape or place")
        dtype = np.dtype(DTYPES[kind]).newbyteorder("<")
        if ends[1] - ends[0] != math.prod(shape) * dtype.itemsize or not 0 <= ends[0] <= ends[1] <= n_bytes:
            refuse(where, path, f"is damaged: {name!r} does not have the size of its place")
        found.append((*ends, name, (dtype, tuple(shape))))
    end = 0
    for first, last, name, _ in sorted(found, key=operator.itemgetter(0, 1)):
        if first != end:
            refuse(where, path, f"is damaged: {name!r} does not lie where the array before it ends")
        end = last
    if end != n_bytes:
        refuse(where, path, "is damaged: its arrays do not fill it")
    return {name: place for _, _, name, place in sorted(found, key=operator.itemgetter(0, 1))}


def _are_counts(values: Any) -> bool:
    """Return whether this is a list of whole numbers from 0 on that fit a machine's."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _array(where: str, path: Path, file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Read an array."""
    if any(shape) and 0 in shape and math.prod(filter(None, shape)) * dtype.itemsize >= 1 << 62:
        refuse(where, path, f"is damaged: it holds an array of shape {shape}")
    array = np.empty(shape, dtype)
    room = array.reshape(-1).view(np.uint8)
    if file.readinto(room.data) != array.nbytes:  # type: ignore[attr-defined]
        refuse(where, path, "is cut off")
    if dtype.kind == "b" and (room > 1).any():
        refuse(where, path, "is damaged: it holds truths that are neither true nor false")
    return array.astype(dtype.newbyteorder("="), copy=False)
