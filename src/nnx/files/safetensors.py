"""Arrays and a description in one file, in the safetensors format: written piece by piece, read without trust.

The description is JSON in the header's metadata; `nnx.files.model_files` knows what it means. nnx reads and writes
the format itself: writing takes a megabyte of memory beside the arrays, reading little more than the file's size, and
both end in an ordinary error where memory or disk end.
"""

from __future__ import annotations

import json
import math
import operator
import os
import re
import zlib
from collections.abc import Iterator
from numbers import Real
from typing import Any, BinaryIO, NoReturn

import numpy as np

from nnx._base import files
from nnx._base.files import refuse
from nnx._base.typing import Array, Path

#: The dtypes of arrays, by the format's names and by NumPy's.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool"} | {
    f"{letter}{bits}": f"{word}{bits}" for letter, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
}
NAMES = {name: code for code, name in DTYPES.items()}
LITTLE_ENDIAN: dict[str, np.dtype[Any]] = {code: np.dtype(name).newbyteorder("<") for code, name in DTYPES.items()}

#: Limits of the header, in bytes, arrays and sizes in their shapes; and of the description, in bytes, values and depth,
#: which are found out before it is parsed. They bound the memory and the time that a hostile file can take.
MAX_HEADER = 16 << 20
MAX_ARRAYS = 65_000
MAX_SIZES = 4 * MAX_ARRAYS
MAX_DESCRIPTION = 8 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 32
BRACKET = re.compile(rb"[\[{\]}]")
LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{400}")

#: The header as nnx and the safetensors library write it: the description, an entry for each array, blanks.
START = '{"__metadata__":{"nnx":"'
ENTRY = re.compile(
    r',"([\w.]{1,200})":\{"dtype":"(\w{1,9})","shape":\[((?:[0-9]{1,19}(?:,[0-9]{1,19}){0,31})?)\],'
    r'"data_offsets":\[([0-9]{1,19}),([0-9]{1,19})\]\}',
    re.ASCII,
)
END = re.compile(r"\} *")

#: Bytes that are written in one go.
PIECE = 1 << 20

PICKLE = (
    "is a pickle. nnx does not open pickles, because opening one can run code. To move the parameters "
    "over, load the file once "
    "where it was written and call numpy.savez('parameters.npz', *[array for pair in parameters for array in pair]), "
    "with parameters = model.get_parameters() for a model; then, with nnx, arrays = "
    "list(numpy.load('parameters.npz').values()) and model.set_parameters(list(zip(arrays[::2], arrays[1::2])))"
)


# Writing


def write(where: str, path: Path, description: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write a file; an array that stands under two names, or is another's view of the same numbers, is written once.

    Raises
    ------
    RuntimeError
        If another thread changes an array meanwhile. The old file stays, as after any other error.
    """
    plain, tensors = _prepared(where, description, arrays)
    sums = {name: _crc32(tensor) for name, tensor in tensors.items()}
    header = _encoded(where, plain, tensors, _checksum(plain, tensors, sums))
    with files.replacing(where, path) as file:
        file.write(header)
        for name in _order(tensors):
            if _write_pieces(file, tensors[name]) != sums[name]:
                raise RuntimeError(
                    f"{where}: {name} must not change while it is written, but another thread changed it. The file "
                    f"itself has not changed."
                )


def check(where: str, description: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Refuse what `write` would refuse."""
    plain, tensors = _prepared(where, description, arrays)
    _encoded(where, plain, tensors, 0)


def _prepared(
    where: str, description: dict[str, Any], arrays: dict[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a description as JSON gives it back, and the arrays that differ, little-endian."""
    first: dict[Any, str] = {}
    shared = {}
    for name, array in arrays.items():
        original = first.setdefault(memory_of(array), name)
        if original != name:
            shared[name] = original
    try:
        plain = json.loads(json.dumps({**description, "shared": shared}, allow_nan=False, default=plain_number))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{where}: get_config() must return finite numbers and text only, got this: {error}.") from None
    tensors = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        for name, array in arrays.items()
        if name not in shared
    }
    return plain, tensors


def memory_of(array: Array) -> Any:
    """Return what two arrays have in common if they are the same numbers in the same memory."""
    if array.size == 0:
        return id(array)
    strides = [stride for stride, size in zip(array.strides, array.shape, strict=True) if size > 1]
    return array.__array_interface__["data"][0], array.dtype.str, array.shape, tuple(strides)


def plain_number(value: Any) -> Any:
    """Return a NumPy scalar, a fraction or another number as JSON takes it."""
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{value!r}")


def _encoded(where: str, plain: dict[str, Any], tensors: dict[str, Array], checksum: int) -> bytes:
    """Return the file up to its arrays."""
    text = json.dumps({**plain, "crc32": checksum})
    entries: dict[str, Any] = {"__metadata__": {"nnx": text}}
    end = 0
    for name in _order(tensors):
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        entries[name] = {"dtype": NAMES[tensor.dtype.name], "shape": tensor.shape, "data_offsets": (begin, end)}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    n_sizes = sum(max(tensor.ndim, 1) for tensor in tensors.values())
    fits = len(header) <= MAX_HEADER and len(tensors) <= MAX_ARRAYS and n_sizes <= MAX_SIZES
    if not fits or not _is_modest(text):
        raise ValueError(
            f"{where}: the model must have a shorter description: fewer layers or networks, or a get_config() that "
            "returns less, and no number of 400 digits."
        )
    return len(header).to_bytes(8, "little") + header


def _order(tensors: dict[str, Array]) -> list[str]:
    """Return the arrays' names in the order in which they lie: the widest numbers first, so that all are aligned."""
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def _write_pieces(file: BinaryIO, tensor: Array) -> int:
    """Write an array's bytes; return the CRC-32 of what was written."""
    content, crc = _bytes(tensor), 0
    for begin in range(0, len(content), PIECE):
        piece = bytes(content[begin : begin + PIECE])  # another thread may change the array itself
        crc = zlib.crc32(piece, crc)
        file.write(piece)
    return crc


def _bytes(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _crc32(array: Array) -> int:
    return zlib.crc32(_bytes(array))


def _checksum(description: dict[str, Any], arrays: dict[str, Array], sums: dict[str, int] | None = None) -> int:
    """Return the CRC-32 of a description, and of a line on each array in the names' order, with its own CRC-32.

    Files of version 2 have the arrays' bytes themselves in it.
    """
    crc = zlib.crc32(json.dumps(description, sort_keys=True).encode())
    by_bytes = description.get("version") == 2
    for name in sorted(arrays):
        array = arrays[name]
        if by_bytes:
            crc = zlib.crc32(json.dumps([name, array.dtype.name, array.shape]).encode(), crc)
            crc = zlib.crc32(_bytes(array), crc)
        else:
            own = _crc32(array) if sums is None else sums[name]
            crc = zlib.crc32(f"{name} {array.dtype.kind}{array.itemsize} {list(array.shape)} {own}\n".encode(), crc)
    return crc


# Reading


def read(where: str, path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return a file's description and its arrays: writable, and one array under all the names that share it.

    Nothing that a file claims is believed before it has been compared with the file's length, and arrays are read
    straight into their own memory.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header = _header(where, path, file, size)
        text, end = _metadata(where, path, header)
        description = _parsed(where, path, text)
        places = _places(where, path, header, end, size - file.tell())
        del header, text
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


def _header(where: str, path: Path, file: BinaryIO, size: int) -> str:
    """Read the header, whose length comes first."""
    start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if not (2 <= length <= min(size - 8, MAX_HEADER) and start[8:] == b"{"):  # it may begin as a pickle does
        if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            refuse(where, path, PICKLE)
        refuse(where, path, "is not a safetensors file, or is cut off")
    file.seek(8)
    header = file.read(length)
    if not header.startswith(START.encode()):
        refuse(where, path, "is a safetensors file, but holds no model of nnx")
    if not header.isascii() or b"\\u" in header.replace(b"\\\\", b""):  # such texts could be four times as long
        refuse(where, path, "is damaged: its header holds characters that nnx does not write")
    return header.decode("ascii")


def _metadata(where: str, path: Path, header: str) -> tuple[str, int]:
    """Return the description, as the text that the header holds, and where in the header the arrays' entries begin."""
    try:
        text, end = json.JSONDecoder().raw_decode(header, len(START) - 1)
    except ValueError as error:
        refuse(where, path, f"is damaged: its description cannot be read ({error})")
    if not header.startswith("}", end):
        refuse(where, path, "is a safetensors file, but holds no model of nnx")
    return text, end + 1


def _parsed(where: str, path: Path, text: str) -> dict[str, Any]:
    """Return the JSON object that a text is; refuse what is too large, too deep, ambiguous or not finite."""
    if not _is_modest(text):
        refuse(where, path, "is damaged: its description is too long, or too deep")
    try:
        found = json.loads(
            text,
            object_pairs_hook=_unambiguous,
            parse_constant=_no_constant,
            parse_float=_finite_number,
        )
    except ValueError as error:  # of json, and of the hooks below
        refuse(where, path, f"is damaged: its description cannot be read ({error})")
    if not isinstance(found, dict):
        refuse(where, path, "is damaged: its description is not valid")
    return found


def _is_modest(description: str) -> bool:
    """Return whether a JSON text can be parsed in little time and memory: found out in as little."""
    if len(description) > MAX_DESCRIPTION:
        return False
    text = description.encode()
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
        raise ValueError("a name occurs twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a finite number")
    return number


def _entries(where: str, path: Path, header: str, begin: int) -> Iterator[tuple[str, ...]]:
    """Yield what the header says of each array; refuse a header of any other form."""
    names: set[str] = set()
    n_sizes = 0
    while (entry := ENTRY.match(header, begin)) is not None:
        if entry[1] in names:
            refuse(where, path, f"is damaged: it has two arrays {entry[1]!r}")
        names.add(entry[1])
        n_sizes += entry[3].count(",") + 1
        if len(names) > MAX_ARRAYS or n_sizes > MAX_SIZES:
            refuse(where, path, f"is damaged: it has more than {MAX_ARRAYS:,} arrays, or {MAX_SIZES:,} sizes of them")
        yield entry.groups()
        begin = entry.end()
    if END.fullmatch(header, begin) is None:
        refuse(where, path, f"is damaged: its header cannot be read from character {begin} on")


def _places(
    where: str, path: Path, header: str, begin: int, n_bytes: int
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return dtype and shape of each array, in the order in which they lie; they fill the file, side by side."""
    found = []
    for name, kind, sizes, *ends in _entries(where, path, header, begin):
        if kind not in DTYPES:
            refuse(where, path, f"is damaged: it holds arrays of {kind}")
        shape = tuple(map(int, sizes.split(","))) if sizes else ()
        first, last = map(int, ends)
        if any(size >= 1 << 62 for size in (*shape, first, last)):
            refuse(where, path, f"is damaged: {name!r} has no possible shape or place")
        dtype = LITTLE_ENDIAN[kind]
        if last - first != math.prod(shape) * dtype.itemsize or not first <= last <= n_bytes:
            refuse(where, path, f"is damaged: {name!r} does not have the size of its place")
        found.append((first, last, name, (dtype, shape)))
    found.sort(key=operator.itemgetter(0, 1))
    end = 0
    for first, last, name, _ in found:
        if first != end:
            refuse(where, path, f"is damaged: {name!r} does not lie where the array before it ends")
        end = last
    if end != n_bytes:
        refuse(where, path, "is damaged: its arrays do not fill it")
    return {name: place for _, _, name, place in found}


def _array(where: str, path: Path, file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Read an array."""
    if any(shape) and 0 in shape and math.prod(filter(None, shape)) * dtype.itemsize >= 1 << 62:
        refuse(where, path, f"is damaged: it holds an array of shape {shape}")
    array = np.empty(shape, dtype)
    buffer = array.reshape(-1).view(np.uint8)
    if file.readinto(buffer.data) != array.nbytes:  # type: ignore[attr-defined]
        refuse(where, path, "is cut off")
    if dtype.kind == "b" and (buffer > 1).any():
        refuse(where, path, "is damaged: it holds booleans that are neither true nor false")
    return array.astype(dtype.newbyteorder("="), copy=False)
