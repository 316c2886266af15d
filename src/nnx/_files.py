"""Files written whole or not at all, and files of arrays with a description, read without trust.

The latter are safetensors, the description as JSON in their metadata; what it means is `nnx.storage`'s.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

import numpy as np

from nnx._typing import Array, Path
from nnx.errors import ModelFileError

#: The dtypes of arrays, by the format's names and by NumPy's.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool"} | {
    f"{letter}{bits}": f"{word}{bits}" for letter, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
}

#: The format's own limit for the JSON header.
MAX_HEADER = 100_000_000

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
    raise ModelFileError(f"{where}: {os.fspath(path)!r} {reason}.")


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
        text = json.dumps({**description, "shared": shared}, allow_nan=False, default=plain_number)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where}: get_config() must return finite numbers and text only, got this: {error}.") from None
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items() if name not in shared}
    content = save(tensors, metadata={"nnx": text})
    with replacing(where, path) as file:
        file.write(content)


def plain_number(value: Any) -> Any:
    """Return a NumPy scalar as JSON takes it."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r}")


@contextmanager
def replacing(where: str, path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends well; an error leaves no trace of it.

    A reader finds the old file or the whole new one, even after a crash.
    """
    target = writable(where, path)
    folder = os.path.dirname(target)
    temporary = f"{_temporary_prefix(target)}{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
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
    """Remove what writers of ``path`` left behind that were killed."""
    folder, prefix = os.path.split(_temporary_prefix(os.path.realpath(os.fspath(path))))
    for name in os.listdir(folder):
        if name.startswith(prefix) and LEFTOVER.fullmatch(name[len(prefix) :]):
            os.remove(os.path.join(folder, name))


def _temporary_prefix(target: str) -> str:
    """Return what the names of temporary files for ``target`` begin with."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{name[:60]}.")


# Reading


def read(where: str, path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a file's description and its arrays: writable, and one array under all the names that share it."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        plausible = 2 <= int.from_bytes(start[:8], "little") <= min(size - 8, MAX_HEADER) and start[8:] == b"{"
        if not plausible:  # a header's length may begin as a pickle does
            if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
                refuse(where, path, PICKLE)
            refuse(where, path, "is no safetensors file, or is cut off")
        content = start + file.read()
    description = _description(where, path, content)
    shared = description.pop("shared", None)
    arrays = _arrays(where, path, content)
    if not isinstance(shared, dict):
        refuse(where, path, "is damaged: its description has no shared")
    for name, original in shared.items():
        if name in arrays or not isinstance(original, str) or original not in arrays:
            refuse(where, path, f"is damaged: {name!r} cannot share {original!r}")
        arrays[name] = arrays[original]
    return description, arrays


def _description(where: str, path: Path, content: bytes) -> dict[str, Any]:
    """Return the description from the header's metadata; refuse arrays of other than real numbers."""
    end = 8 + int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8:end], parse_constant=_no_constant)
        text = header["__metadata__"]["nnx"]
        dtypes = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    except (KeyError, TypeError):
        refuse(where, path, "is a safetensors file, but none that nnx wrote")
    except (ValueError, RecursionError):
        refuse(where, path, "is no safetensors file, or is damaged")
    try:
        description = json.loads(text, parse_constant=_no_constant)
    except (TypeError, ValueError, RecursionError):
        refuse(where, path, "is damaged: its description cannot be read")
    if not isinstance(description, dict):
        refuse(where, path, "is damaged: its description is none")
    if not dtypes <= set(DTYPES):
        refuse(where, path, f"is damaged: it holds arrays of {next(iter(dtypes - set(DTYPES)))}")
    return description


def _arrays(where: str, path: Path, content: bytes) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return {name: np.array(value) for name, value in load(content).items()}
    except SafetensorError as error:
        refuse(where, path, f"is damaged ({error})")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")
