"""Blocks of CSV text split by pyarrow, and their cells as codes or numbers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from nnx._base.typing import Array
from nnx.data.csv_blocks import RowEnds, is_certain
from nnx.data.gathering import Gathered
from nnx.data.notation import LARGEST, SPELLED, is_gap, numbers_of

#: What `str.strip` removes.
BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
GAPS = pa.array(sorted(SPELLED))
#: What pyarrow's own pool has once had it keeps from NumPy.
POOL = pa.system_memory_pool()


class Parser:
    """Splits blocks into columns of texts: all of a table, or only one."""

    def __init__(self, delimiter: str, width: int, only: int | None = None) -> None:
        names = [str(place) for place in range(width)]
        self._delimiter, self._longest = delimiter, csv.field_size_limit()
        self._read = arrow_csv.ReadOptions(column_names=names)
        self._convert = arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=names if only is None else [str(only)],
            strings_can_be_null=False,
        )

    def columns(self, block: bytes, ends: RowEnds) -> Sequence[Any] | None:
        """Return the columns of a block; None if it takes Python's reader to say what they are, or what is wrong."""
        if not is_certain(block, ends, self._longest):
            return None
        quoted = ends.n_lines > len(ends.of_rows)
        parse = arrow_csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=quoted)
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(block),
                read_options=self._read,
                parse_options=parse,
                convert_options=self._convert,
                memory_pool=POOL,
            )
        except pa.ArrowInvalid:  # rows of other lengths, or bytes that are no UTF-8
            return None
        found: Sequence[Any] = table.columns
        return found if table.num_rows == len(ends.of_rows) else None

    def add(self, column: Any, gathered: Gathered) -> None:
        """Add a column of a block to what has been gathered."""
        for chunk in column.chunks:
            if gathered.keeps == "texts":
                coded = pc.dictionary_encode(chunk, memory_pool=POOL)
                gathered.add_coded(coded.dictionary.to_pylist(), coded.indices.to_numpy())
            elif gathered.keeps == "numbers":
                gathered.add_numbers(_numbers(chunk), len(chunk))
            else:
                gathered.skip(len(chunk))


def _numbers(chunk: Any) -> Array | None:
    """Return what `numbers_of` does."""
    values = _cast(chunk)
    if values is None:
        chunk = pc.utf8_trim(chunk, characters=BLANKS, memory_pool=POOL)
        gaps = pc.is_in(chunk, value_set=GAPS, memory_pool=POOL)
        values = _cast(pc.if_else(gaps, None, chunk, memory_pool=POOL))
    if values is None:
        return numbers_of(chunk.to_pylist())  # Python reads more numbers than pyarrow does
    found: Array = values.to_numpy(zero_copy_only=False)
    unusual = ~(np.abs(found) <= LARGEST)
    if values.null_count:
        unusual &= values.is_valid().to_numpy(zero_copy_only=False)
    if not unusual.any() or all(map(is_gap, chunk.filter(pa.array(unusual)).to_pylist())):
        return found
    return numbers_of(chunk.to_pylist())


def _cast(chunk: Any) -> Any:
    try:
        return pc.cast(chunk, pa.float64(), memory_pool=POOL)
    except pa.ArrowInvalid:
        return None
