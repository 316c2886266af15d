"""Tables that are Python objects: data frames, dicts of columns, lists of dicts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from nnx._base.text import abridged
from nnx.data.cells import Dates
from nnx.data.notation import Cell
from nnx.data.sheet import Sheet, count, shown
from nnx.data.table_files import read_sheet
from nnx.errors import DataFileError

EXPECTED = "a file, a data frame, a dict of columns or a list of dicts"


def sheet_of(where: str, data: Any, header: bool | None) -> Sheet:
    """Return the cells of a file or of an object; a `Sheet` is itself.

    Data frames are those of any library whose frames have ``columns`` and give a column for its name.
    """
    if isinstance(data, Sheet):
        return data
    if isinstance(data, str | bytes | os.PathLike) or hasattr(data, "read"):
        return read_sheet(where, data, header)
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
    return _of_columns(where, source, {name: np.asarray(frame[name]) for name in names})


def _of_columns(where: str, source: str, columns: Mapping[Any, Any]) -> Sheet:
    cells: dict[str, Sequence[Cell]] = {}
    for name, column in columns.items():
        if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
            hint = " Give one row as [{...}]." if source == "the dict" else ""
            got = f"{abridged(column)} for {shown(str(name))}"
            raise TypeError(f"{where}: {source} must hold lists of values, got {got}.{hint}")
        if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
            cells[str(name)] = column.tolist()
        elif isinstance(column, np.ndarray) and column.dtype.kind == "M" and column.ndim == 1:
            cells[str(name)] = Dates(column)
        else:
            cells[str(name)] = [_cell(value) for value in column]
    first = next(iter(cells), "")
    other = next((name for name in cells if len(cells[name]) != len(cells[first])), None)
    if other is not None:
        lengths = f"{count(len(cells[first]), 'value')} for {shown(first)} and {len(cells[other]):,} for {shown(other)}"
        raise DataFileError(f"{where}: {source} must have columns of one length, got {lengths}.")
    if not cells or not cells[first]:
        raise DataFileError(f"{where}: {source} must have one row at least, got none.")
    return Sheet(where, source, list(cells), list(cells.values()))


def _cell(value: Any) -> Cell:
    """Return a value as a cell: numbers as they are, missing values as "" or NaN, everything else as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return value.strip()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return str(value).strip()
    if isinstance(value, int):
        return value
    return float(value)
