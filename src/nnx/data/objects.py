"""Columns that are Python objects or NumPy arrays, as cells."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from nnx._base.typing import Array
from nnx.data.cells import Cells, Dates, cells_of, of_codes, of_numbers
from nnx.data.notation import Cell


def objects(values: Iterable[Any]) -> Cells:
    """Return the cells of any values."""
    return cells_of([as_cell(value) for value in values])


def as_cell(value: Any) -> Cell:
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


def of_array(values: Array) -> Cells:
    """Return the cells of an array of one dimension; times between two moments become seconds."""
    kind = values.dtype.kind
    if kind in "iuf" and values.dtype.itemsize <= 8:
        return of_numbers(values)
    if kind == "b":
        return of_codes(["False", "True"], values.astype(np.int8))
    if kind == "M" and np.datetime_data(values.dtype)[0] != "generic":
        return Dates(values)
    if kind == "m" and np.datetime_data(values.dtype)[0] not in ("generic", "Y", "M"):
        return of_numbers(values / np.timedelta64(1, "s"))  # NaN of none
    return objects(values)
