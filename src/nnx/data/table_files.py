"""Files that hold tables: CSV, Parquet and Feather."""

from __future__ import annotations

from typing import Any

from nnx._base import check
from nnx.data.csv_files import layout_of, read_csv
from nnx.data.sheet import Sheet
from nnx.data.sources import Source


def read_sheet(
    where: str, file: Any, header: bool | None = None, encoding: str | None = None, progress: bool = False
) -> Sheet:
    """Return the cells of a file, which is given by its name or open for reading."""
    if header is not None:
        check.flag(where, "header", header)
    return read_csv(Source(where, file, encoding, progress), header)


def names_of_file(where: str, file: Any, header: bool | None = None, encoding: str | None = None) -> list[str]:
    """Return the names of a file's columns, without a look at what stands below the first rows."""
    source = Source(where, file, encoding)
    return Sheet(where, source.name, layout_of(source, header).names, []).names
