"""Columns of data frames, of pandas, polars and others, as cells. None of these libraries is imported for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnx.data.cells import Cells, Dates, of_codes, of_numbers
from nnx.data.objects import as_cell, objects, of_array


def of_column(column: Any) -> Cells:
    """Return the cells of a data frame's column: of pandas, of polars, or of whatever else NumPy takes for an array.

    What they know of a column's kind spares an object for each of its cells.
    """
    kind = getattr(column, "dtype", None)
    if hasattr(column, "isna") and hasattr(column, "to_numpy") and not isinstance(kind, np.dtype):
        return _of_pandas(column, kind)
    if hasattr(column, "is_null") and hasattr(column, "fill_null"):
        return _of_polars(column)
    array = np.asarray(column)
    return of_array(array) if array.ndim == 1 else objects(column)


def _of_pandas(column: Any, kind: Any) -> Cells:
    """Return a column of one of pandas' own kinds."""
    if hasattr(column, "cat"):
        return of_codes([as_cell(value) for value in column.cat.categories], column.cat.codes.to_numpy())
    if hasattr(kind, "pyarrow_dtype"):
        from nnx.data.arrow_tables import cells_of_column

        return cells_of_column(column.array.__arrow_array__())
    letter = getattr(kind, "kind", "O")
    if letter in "iuf":
        values = column.to_numpy(dtype=np.dtype(f"{letter}8"), na_value=0)
        return of_numbers(values, column.isna().to_numpy(dtype=np.bool_))
    if letter == "M":
        plain = column if column.dt.tz is None else column.dt.tz_convert("UTC").dt.tz_localize(None)
        return Dates(plain.astype("datetime64[us]").to_numpy())
    if letter == "m":
        return of_array(column.astype("timedelta64[us]").to_numpy())
    codes, different = column.factorize()
    return of_codes([as_cell(value) for value in different], np.asarray(codes))


def _of_polars(column: Any) -> Cells:
    """Return a column of polars."""
    kind = column.dtype
    if kind.is_integer():
        return of_numbers(column.fill_null(0).to_numpy(), column.is_null().to_numpy())
    if kind.is_float() or (kind.is_temporal() and str(kind) != "Time"):
        return of_array(column.to_numpy())
    if str(kind) == "Boolean":
        return of_codes(["False", "True"], column.cast(int).fill_null(-1).to_numpy())
    return objects(column.to_list())
