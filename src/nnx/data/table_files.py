"""Files that hold tables: CSV, Parquet and Feather."""

from __future__ import annotations

import importlib.util
from typing import Any

from nnx._base import check
from nnx.data.csv_files import layout_of, read_csv
from nnx.data.sheet import Sheet
from nnx.data.sources import Source

#: What files of other formats than text begin with.
PARQUET, FEATHER = b"PAR1", b"ARROW1"
#: What else people have that is no table yet.
PACKED = {
    b"PK\x03\x04": "an Excel workbook or a zip archive. Save its table as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook. Save its table as CSV",
    b"\x1f\x8b": "compressed with gzip. Unpack it first",
}
#: What their names end in, and those of CSV files.
SUFFIXES = {"Parquet": (".parquet", ".pq"), "Feather": (".feather", ".arrow", ".ipc")}


def read_sheet(
    where: str, file: Any, header: bool | None = None, encoding: str | None = None, progress: bool = False
) -> Sheet:
    """Return the cells of a file, which is given by its name or open for reading.

    What it begins with tells which format it is. A bar shows how much has been read if there is to be ``progress``.
    """
    if header is not None:
        check.flag(where, "header", header)
    source = Source(where, file, encoding, progress)
    kind = _kind(source)
    if kind is None:
        return read_csv(source, header)
    from nnx.data import arrow_tables

    read = arrow_tables.read_parquet if kind == "Parquet" else arrow_tables.read_feather
    return read(source, progress)


def names_of_file(where: str, file: Any, header: bool | None = None, encoding: str | None = None) -> list[str]:
    """Return the names of a file's columns, without a look at what stands below the first rows."""
    source = Source(where, file, encoding)
    if _kind(source) is not None:
        return read_sheet(where, file).names
    return Sheet(where, source.name, layout_of(source, header).names, []).names


def is_binary(path: str) -> bool:
    """Return whether a file begins as those do that are no text."""
    with open(path, "rb") as file:
        return file.read(8).startswith((PARQUET, FEATHER, *PACKED))


def _kind(source: Source) -> str | None:
    """Return which format other than text a file is in; refuse one that is not what its name says, or not readable."""
    packed = next((what for mark, what in PACKED.items() if source.begins_with(mark)), None)
    if packed is not None:
        source.refuse(f"is {packed}")
    kind = "Parquet" if source.begins_with(PARQUET) else "Feather" if source.begins_with(FEATHER) else None
    said = next((each for each, ends in SUFFIXES.items() if source.name.strip("'\"").lower().endswith(ends)), None)
    if kind is None and said is not None:
        source.refuse(f"is not a {said} file, or is cut off")
    if kind is not None and importlib.util.find_spec("pyarrow") is None:
        raise ImportError(
            f"{source.where}: pyarrow is not installed, and {source.name} is a {kind} file. Install it with: "
            "python -m pip install 'nnx-core[tables]'"
        )
    return kind
