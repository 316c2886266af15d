"""Arrays by name in safetensors files as PyTorch's users write them: no description, any names, any order."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from nnx._base import files
from nnx._base.typing import Array, Path
from nnx.files.safetensors import LITTLE_ENDIAN, MAX_ARRAYS, NAMES

#: Bytes of a header, at most: a hundred for each array are usual.
MAX_HEADER = 8 << 20
MAX_DIMENSIONS = 8
#: What pickles, and the archives that torch.save writes, begin with.
PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


def read(where: str, path: str) -> dict[str, Array]:
    """Return the arrays of a file; those in bfloat16 become float32.

    Raises
    ------
    ModelFileError
        If the file is damaged, or none of this format. Nothing that it claims is believed before it has been compared
        with its length.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if start.startswith(PICKLES):
            files.refuse(
                where,
                path,
                "is a pickle. nnx does not open pickles, because opening one can run code. Where it was made, call "
                "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')",
            )
        length = int.from_bytes(start, "little")
        if not 2 <= length <= min(size - 8, MAX_HEADER):
            files.refuse(where, path, "is not a safetensors file, or is cut off")
        places = _places(where, path, file.read(length), size - 8 - length)
        found = {}
        for name, (code, shape, begin, end) in places.items():
            file.seek(8 + length + begin)
            content = file.read(end - begin)
            if len(content) != end - begin:
                files.refuse(where, path, "is cut off")
            found[name] = _array(code, content).reshape(shape)
    return found


def _places(where: str, path: str, header: bytes, n_bytes: int) -> dict[str, tuple[str, list[int], int, int]]:
    """Return type, shape and place of each array; they must not overlap, and must be of the size of their places."""

    def damaged(what: str) -> NoReturn:
        files.refuse(where, path, f"is damaged: {what}")

    try:
        described = json.loads(header)
    except (ValueError, RecursionError):
        damaged("its header cannot be read")
    if not isinstance(described, dict) or len(described) > MAX_ARRAYS:
        damaged("its header does not name arrays")
    described.pop("__metadata__", None)
    found: dict[str, tuple[str, list[int], int, int]] = {}
    for name, each in described.items():
        entry = each if isinstance(each, dict) else {}
        code, shape, ends = (entry.get(key, "") for key in ("dtype", "shape", "data_offsets"))
        if not _are_sizes(shape, MAX_DIMENSIONS) or not _are_sizes(ends, 2) or len(ends) != 2:
            damaged(f"{name!r} has no possible shape or place")
        if not isinstance(code, str) or (code != "BF16" and code not in LITTLE_ENDIAN):
            damaged(f"{name!r} is of no known type")
        itemsize = 2 if code == "BF16" else LITTLE_ENDIAN[code].itemsize
        if not ends[0] <= ends[1] <= n_bytes or ends[1] - ends[0] != math.prod(shape) * itemsize:
            damaged(f"{name!r} does not have the size of its place")
        found[name] = code, shape, ends[0], ends[1]
    end = 0
    for name, place in sorted(found.items(), key=lambda item: item[1][2:]):
        if place[2] < end:
            damaged(f"{name!r} lies within another array")
        end = place[3]
    return found


def _are_sizes(value: Any, most: int) -> bool:
    is_list = isinstance(value, list) and len(value) <= most
    return is_list and all(type(each) is int and 0 <= each < 1 << 62 for each in value)


def _array(code: str, content: bytes) -> Array:
    if code != "BF16":
        return np.frombuffer(content, LITTLE_ENDIAN[code])
    halves = np.frombuffer(content, "<u2").astype(np.uint32)  # the upper halves of float32 numbers
    return np.asarray((halves << np.uint32(16)).view(np.float32))


def write(where: str, path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name; the file is replaced as a whole or not at all."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    plain = {name: np.asarray(array).astype(array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    for name, array in plain.items():
        header[name] = {
            "dtype": NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that numbers are aligned where a file is mapped into memory
    with files.replacing(where, path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in plain.values():
            file.write(array.tobytes())
