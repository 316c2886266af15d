"""Tables of pyarrow, and the Parquet and Feather files that it reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather, parquet

from nnx._base.printing import progress_bar
from nnx._base.typing import Array
from nnx.data.cells import Cells, Dates, TextList, Texts, of_codes, of_numbers
from nnx.data.objects import as_cell, objects
from nnx.data.sheet import Sheet
from nnx.data.sources import LEAST_SHOWN, Source
from nnx.errors import DataFileError

#: What `str.strip` removes.
BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
#: What pyarrow raises about files that are not whole, or not its own.
BROKEN = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, ArithmeticError)
#: Columns in which pandas keeps the numbers or names of its rows.
ROW_NAMES = re.compile(r"__index_level_\d+__")


def read_parquet(source: Source, progress: bool) -> Sheet:
    """Return the cells of a Parquet file."""
    with source.stream() as stream:
        try:
            file = parquet.ParquetFile(stream)
            return _read(source, file.schema_arrow.names, lambda name: file.read(columns=[name]), progress)
        except BROKEN as error:
            _refuse(source, "Parquet", error)


def read_feather(source: Source, progress: bool) -> Sheet:
    """Return the cells of a Feather file."""
    with source.stream() as stream:
        try:
            names = pa.ipc.open_file(stream).schema.names
            return _read(source, names, lambda name: _sound(feather.read_table(stream, columns=[name])), progress)
        except BROKEN as error:
            _refuse(source, "Feather", error)


def _sound(table: Any) -> Any:
    """Return a table whose file pyarrow has not looked into: what is broken there may crash the process later."""
    table.validate(full=True)
    return table


def _read(source: Source, names: list[str], read: Callable[[str], Any], progress: bool) -> Sheet:
    """Return the cells of columns that are read one after another, so that none is in memory twice for long."""
    names = [name for name in names if not ROW_NAMES.fullmatch(name)]
    sheet = Sheet(source.where, source.name, names, [])  # refuses names that stand twice
    bar = progress_bar(len(names), 0, "column") if progress and source.size >= LEAST_SHOWN else None
    try:
        for name in names:
            sheet.add(cells_of_column(read(name).column(0)))
            if bar is not None:
                bar.update()
    finally:
        if bar is not None:
            bar.close()
    return _filled(sheet)


def _refuse(source: Source, kind: str, error: Exception) -> NoReturn:
    if isinstance(error, DataFileError):
        raise error
    first, *_ = str(error).splitlines() or [""]
    source.refuse(f"cannot be read as a {kind} file ({first.strip().rstrip('.')})")


def sheet_of_table(where: str, source: str, table: Any) -> Sheet:
    """Return the cells of a table or record batch of pyarrow."""
    kept = [place for place, name in enumerate(table.schema.names) if not ROW_NAMES.fullmatch(name)]
    sheet = Sheet(where, source, [table.schema.names[place] for place in kept], [])
    for place in kept:
        sheet.add(cells_of_column(table.column(place)))
    return _filled(sheet)


def _filled(sheet: Sheet) -> Sheet:
    if not sheet.n_rows:
        sheet.refuse("has no rows" if sheet.names else "has no columns")
    return sheet


def cells_of_column(column: Any) -> Cells:
    """Return a column's cells."""
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries()
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(column, pa.ChunkedArray):  # more text than one chunk can hold
        column = column.cast(pa.large_string()).combine_chunks()
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return cells_of_column(column.storage)
    if pa.types.is_dictionary(kind):
        codes = _plain(column.indices.cast(pa.int64()), -1)
        return of_codes([as_cell(value) for value in column.dictionary.to_pylist()], codes)
    if pa.types.is_boolean(kind):
        return of_codes(["False", "True"], _plain(column.cast(pa.int8()), -1))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return of_numbers(_plain(column, 0), _missing(column))
    if pa.types.is_decimal(kind):
        return cells_of_column(column.cast(pa.float64()))
    if pa.types.is_duration(kind):
        ticks = np.timedelta64(1, kind.unit) / np.timedelta64(1, "s")
        return of_numbers(_plain(column.cast(pa.int64()), 0) * ticks, _missing(column))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return Dates(column.to_numpy(zero_copy_only=False))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _texts(column)
    return objects(column.to_pylist())


def _plain(column: Any, missing: int) -> Array:
    filled = pc.fill_null(column, missing) if column.null_count else column
    values: Array = filled.to_numpy(zero_copy_only=False)
    return values


def _missing(column: Any) -> Array | None:
    missing: Array | None = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    return missing


def _texts(column: Any) -> Cells:
    coded = pc.fill_null(column, "").dictionary_encode()
    codes: Array = coded.indices.to_numpy()
    texts = coded.dictionary.cast(pa.large_string())
    trimmed = pc.utf8_trim(texts, characters=BLANKS)
    if not trimmed.equals(texts):
        return of_codes(trimmed.to_pylist(), codes)
    _, ends, content = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return Texts(TextList(memoryview(content) if content is not None else b"", offsets), codes)
