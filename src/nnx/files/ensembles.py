"""What an ensemble is in a file: its members as model files, how often each counts, and one table for all of them.

`nnx.ensemble` calls this; docs/internals/model-files.md lays the format down. Reading runs no code from the file,
and checks everything in it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nnx._base import check
from nnx._base.network import AnyNetwork
from nnx._base.typing import Array, Path
from nnx.files import safetensors
from nnx.files.model_files import (
    ENSEMBLE,
    MODEL,
    PREPROCESSORS,
    VERSION,
    Part,
    check_apart,
    contents,
    model_in,
    preprocessor_in,
    preprocessor_of,
)

#: What the names of a member's arrays begin with, before its number.
MEMBERS = "members."


def save(where: str, path: Path, members: Sequence[AnyNetwork], counts: Sequence[int]) -> None:
    """Write members with all that their training needs, and once the table or images that they have in common."""
    path = check.path(where, "path", path)
    safetensors.write(where, path, *contents_of(where, members, counts))


def contents_of(
    where: str, members: Sequence[AnyNetwork], counts: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the description of a file, and its arrays by name: those of members, and of the table or images."""
    described: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for number, member in enumerate(members):
        bare: Any = copy.copy(member)
        vars(bare).update(dict.fromkeys(PREPROCESSORS))
        network, own = contents(where, bare)
        described.append({"format": MODEL, **network})
        arrays |= {f"{MEMBERS}{number}.{name}": array for name, array in own.items()}
    check_apart(where, arrays)
    preprocessor, beside = preprocessor_of(where, members[0])
    description = {
        "format": ENSEMBLE,
        "version": VERSION,
        "counts": list(counts),
        "members": described,
        **preprocessor,
    }
    return description, {**arrays, **beside}


def members_of(
    file: Part,
    kind: type[AnyNetwork],
    custom_objects: Mapping[str, type],
    restore: Callable[[AnyNetwork, list[Any], dict[str, Any], list[int]], str],
) -> list[AnyNetwork]:
    """Return the members that a file of an ensemble holds, objects of the class ``kind``.

    ``restore`` is that of `nnx.files.model_files.load_model`.

    Raises
    ------
    ModelFileError
        If the file is damaged.
    """
    described = file.take(list, "members")
    if not described:
        file.refuse("is damaged: it holds no members")
    beside = tuple(f"{key}." for key in PREPROCESSORS if key in file.description)
    file.check_purposes(beside)
    arrays = _arrays_by_member(file)
    members = []
    for number, each in enumerate(described):
        if not isinstance(each, dict) or each.keys() & PREPROCESSORS.keys():
            file.refuse("is damaged: a member is not described")
        part = Part(file.where, file.path, each, arrays.pop(str(number), {}))
        part.check_keys()
        if part.kind != MODEL:
            file.refuse("is damaged: a member is not a model")
        members.append(model_in(part, kind, custom_objects, restore))
    strangers = [name for name in file.arrays if not name.startswith((MEMBERS, *beside))]
    strangers += [f"{MEMBERS}{number}" for number in arrays]
    if strangers:
        file.refuse(f"is damaged: it holds arrays that belong to nothing, {strangers[0]!r} among them")
    preprocessor = preprocessor_in(file, members[0])
    for member in members:
        vars(member).update(preprocessor)
    return members


def _arrays_by_member(file: Part) -> dict[str, dict[str, Array]]:
    """Return the arrays of each member, by its number as text, under their names in a model file."""
    found: dict[str, dict[str, Array]] = {}
    for name, array in file.arrays.items():
        if name.startswith(MEMBERS):
            number, _, rest = name.removeprefix(MEMBERS).partition(".")
            found.setdefault(number, {})[rest] = array
    return found
