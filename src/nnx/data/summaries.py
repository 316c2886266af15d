"""What a person would want to know of a table's columns, in a few lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nnx.data.columns import Date, Number, Text
from nnx.data.sheet import shown

#: A table prints no more columns than this.
SHOWN_COLUMNS = 30
#: So many columns with the same name but for its number share a line.
SHARED_LINE = 8
NUMBERED = re.compile(r"(.*?)(\d{1,9})", re.DOTALL)


def summaries(columns: Sequence[Number | Text | Date]) -> list[str]:
    """Return lines about columns, not too many."""
    rows = _shared(columns)
    rest = sum(n_columns for _, n_columns in rows[SHOWN_COLUMNS:])
    return [line for line, _ in rows[:SHOWN_COLUMNS]] + [f"and {rest:,} more columns"] * (rest > 0)


def _shared(columns: Sequence[Number | Text | Date]) -> list[tuple[str, int]]:
    """Return lines about columns, each with how many it is about: many numbered ones, such as pixels, share a line."""
    rows = []
    start = 0
    while start < len(columns):
        end = start + 1
        while end < len(columns) and _follows(columns[end - 1], columns[end]):
            end += 1
        if end - start >= SHARED_LINE:
            names = f"{shown(columns[start].name)} to {shown(columns[end - 1].name)}"
            rows.append((f"{names}: {end - start:,} columns of numbers", end - start))
        else:
            rows += [(f"{shown(column.name)}: {column.summary()}", 1) for column in columns[start:end]]
        start = end
    return rows


def _follows(one: Number | Text | Date, other: Number | Text | Date) -> bool:
    """Return whether two columns of numbers are called "pixel8" and "pixel9", or the like."""
    names = [NUMBERED.fullmatch(column.name) for column in (one, other) if isinstance(column, Number)]
    if len(names) < 2 or not all(names):
        return False
    (stem, number), (other_stem, other_number) = (name.groups() for name in names if name)
    return stem == other_stem and int(other_number) == int(number) + 1
