"""Tables that are Python objects: data frames, dicts of columns, lists of dicts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nnx._base.text import abridged
from nnx.data.cells import Cells
from nnx.data.frames import of_column
from nnx.data.objects import objects
from nnx.data.sheet import Sheet, count, shown
from nnx.data.table_files import read_sheet
from nnx.errors import DataFileError

EXPECTED = "a file, a data frame, a dict of columns or a list of dicts"


def sheet_of(where: str, data: Any, header: bool | None, encoding: str | None = None, progress: bool = False) -> Sheet:
    """Return the cells of a file or of an object; a `Sheet` is itself.

    Data frames are those of any library whose frames have ``columns`` and give a column for its name.
    """
    if isinstance(data, Sheet):
        return data
    if isinstance(data, str | bytes | os.PathLike) or hasattr(data, "read"):
        return read_sheet(where, data, header, encoding, progress)
    if hasattr(data, "schema") and type(data).__module__.partition(".")[0] == "pyarrow":
        from nnx.data.arrow_tables import sheet_of_table

        return sheet_of_table(where, f"the {type(data).__name__}", data)
    if hasattr(data, "columns") and hasattr(data, "__getitem__"):
        return _of_frame(where, data)
    if isinstance(data, Mapping):
        return _of_columns(where, "the dict", data)
    if isinstance(data, Sequence) and len(data) and all(isinstance(row, Mapping) for row in data):
        names = dict.fromkeys(name for row in data for name in row)
        return _of_columns(where, "the list", {name: [row.get(name) for row in data] for name in names})
    raise TypeError(f"{where}: data must be {EXPECTED}, got {abridged(data)}.")


def _of_frame(where: str, frame: Any) -> Sheet:
    names, source = list(frame.columns), f"the {type(frame).__name__}"
    if len({str(name) for name in names}) < len(names):  # a name that stands twice would give two columns at once
        return Sheet(where, source, [str(name) for name in names], [])
    return _of_columns(where, source, {name: frame[name] for name in names}, of_column)


def _of_columns(
    where: str, source: str, columns: Mapping[Any, Any], cells_of_column: Callable[[Any], Cells] | None = None
) -> Sheet:
    cells: dict[str, Cells] = {}
    for name, column in columns.items():
        if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
            hint = " Give one row as [{...}]." if source == "the dict" else ""
            got = f"{abridged(column)} for {shown(str(name))}"
            raise TypeError(f"{where}: {source} must hold lists of values, got {got}.{hint}")
        cells[str(name)] = cells_of_column(column) if cells_of_column else _of_values(column)
    first = next(iter(cells), "")
    other = next((name for name in cells if len(cells[name]) != len(cells[first])), None)
    if other is not None:
        lengths = f"{count(len(cells[first]), 'value')} for {shown(first)} and {len(cells[other]):,} for {shown(other)}"
        raise DataFileError(f"{where}: {source} must have columns of one length, got {lengths}.")
    if not cells or not cells[first]:
        raise DataFileError(f"{where}: {source} must have one row at least, got none.")
    return Sheet(where, source, list(cells), list(cells.values()))


def _of_values(column: Iterable[Any]) -> Cells:
    """Return a dict's column, which may be one of a data frame."""
    if hasattr(column, "dtype") and not isinstance(column, np.generic):
        return of_column(column)
    return objects(column)
