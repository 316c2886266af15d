"""Columns of tables: numbers, texts and what is ignored; how they are learnt from a file, and read from others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from nnx import _check
from nnx._sheet import DECIMAL_COMMA, Sheet, is_gap, listed, number, shown
from nnx._typing import Array

#: More different texts than this in a column are names or numbers of the rows, not categories.
MAX_CATEGORIES = 256
#: Whole numbers are class numbers if there are so few different ones, and so many rows of each on average.
MAX_CLASS_NUMBERS, ROWS_OF_A_CLASS = 10, 10
#: So many standard deviations from the mean nothing can be said, and a network's sums may overflow.
FARTHEST = 1e12


@dataclass(frozen=True)
class Number:
    """A column of numbers, which the network gets as (number − mean) / scale; a gap is 0."""

    name: str
    mean: float = 0.0
    scale: float = 1.0
    gaps: int = 0
    kind: ClassVar[str] = "number"
    width: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check.text("Number", "name", self.name)
        for name, low in (("mean", -math.inf), ("scale", math.ulp(0.0))):
            object.__setattr__(self, name, float(_check.number("Number", name, getattr(self, name), low)))
        _check.whole("Number", "gaps", self.gaps, 0)

    def summary(self) -> str:
        """Return what a person would want to know of it."""
        return f"number, mean {self.mean:.6g}, scale {self.scale:.6g}" + _gaps(self.gaps)

    def standardized(self, sheet: Sheet, place: int) -> Array:
        """Return the numbers of a file's column less the mean, in units of the scale; gaps are NaN."""
        values = np.empty(len(sheet.rows))
        for row, cell in enumerate(sheet.column(place)):
            value = number(cell)
            if value is None and not is_gap(cell):
                sheet.refuse(f"holds {shown(cell)} in column {shown(self.name)}, which must hold numbers", row)
            values[row] = np.nan if value is None else value
        with np.errstate(over="ignore"):
            values = (values - self.mean) / self.scale
        far = np.flatnonzero(np.abs(values) > FARTHEST)
        if far.size:
            cell = sheet.rows[far[0]][place]
            sheet.refuse(
                f"holds {shown(cell)} in column {shown(self.name)}, too far from the mean of {self.mean:.6g}",
                int(far[0]),
            )
        return values


@dataclass(frozen=True)
class Text:
    """A column of texts, which the network gets one-hot, a column for each category; a gap is 0 in all of them."""

    name: str
    categories: tuple[str, ...]
    gaps: int = 0
    kind: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        _check.text("Text", "name", self.name)
        for category in self.categories:
            _check.text("Text", "each of categories", category)
        if not 1 <= len(set(self.categories)) == len(self.categories):
            raise ValueError(f"Text: categories must be different texts, at least one, got {self.categories!r}.")
        object.__setattr__(self, "categories", tuple(self.categories))
        _check.whole("Text", "gaps", self.gaps, 0)

    @property
    def width(self) -> int:
        """Return how many columns the network gets."""
        return len(self.categories)

    def summary(self) -> str:
        """Return what a person would want to know of it."""
        return f"{len(self.categories)} categories ({listed(self.categories)})" + _gaps(self.gaps)

    def codes(self, sheet: Sheet, place: int, full_stops: bool = False) -> Array:
        """Return the position among the categories of each cell of a file's column, −1 for gaps.

        With ``full_stops``, a cell may end in one that the category lacks.
        """
        position = {category: code for code, category in enumerate(self.categories)}
        values = [number(category) for category in self.categories]
        by_value = {} if None in values else {value: code for code, value in enumerate(values)}
        codes = np.empty(len(sheet.rows), np.intp)
        for row, cell in enumerate(sheet.column(place)):
            code = position.get(cell)
            if code is None and by_value:
                code = by_value.get(number(cell))  # 1 is 1.0
            if code is None and full_stops:
                code = position.get(cell.removesuffix("."))
            if code is None and not is_gap(cell):
                sheet.refuse(
                    f"holds {shown(cell)} in column {shown(self.name)}, which is none of the known {self.width}: "
                    f"{listed(self.categories)}",
                    row,
                )
            codes[row] = -1 if code is None else code
        return codes


@dataclass(frozen=True)
class Ignored:
    """A column that the network does not get."""

    name: str
    kind: ClassVar[str] = "ignored"
    width: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check.text("Ignored", "name", self.name)


Column = Number | Text | Ignored
KINDS: dict[str, type[Column]] = {kind.kind: kind for kind in (Number, Text, Ignored)}


def _gaps(count: int) -> str:
    return f", {count:,} gaps" if count else ""


# Learning from a file


def learnt(sheet: Sheet, place: int, training_rows: Array, as_text: bool) -> Number | Text:
    """Return what a column is: numbers if all its cells are; a few texts among numbers are mistakes."""
    name, cells = sheet.names[place], sheet.column(place)
    values = [number(cell) for cell in cells]
    strangers = [row for row, value in enumerate(values) if value is None and not is_gap(cells[row])]
    n_gaps = sum(map(is_gap, cells))
    n_numbers = len(cells) - n_gaps - len(strangers)
    if n_gaps == len(cells):
        sheet.refuse(f"holds nothing in column {shown(name)}. Leave the column out: {_option('drop', name)}")
    commas = [row for row in strangers if DECIMAL_COMMA.fullmatch(cells[row])]
    if len(commas) > len(strangers) / 2 and not as_text:
        sheet.refuse(
            f"holds {shown(cells[commas[0]])} in column {shown(name)}, which looks like a number with a comma. Write "
            "numbers with a full stop and nothing between thousands, or take the column as text: "
            f"{_option('text', name)}",
            commas[0],
        )
    if as_text or n_numbers < len(strangers):
        return Text(name, _categories(sheet, place), n_gaps)
    if strangers:
        sheet.refuse(
            f"holds {shown(cells[strangers[0]])} in column {shown(name)}, whose other cells are numbers. Correct it, "
            f"or take the column as text: {_option('text', name)}",
            strangers[0],
        )
    known = np.array([np.nan if value is None else value for value in values])[training_rows]
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return Number(name, gaps=n_gaps)
    scale = float(known.std()) if np.ptp(known) > 0 else 1.0
    return Number(name, float(known.mean()), scale or 1.0, n_gaps)


def learnt_target(sheet: Sheet, place: int, training_rows: Array, task: str | None) -> Number | Text:
    """Return what the column to predict is; ``task`` says what it shall be, None that its cells decide."""
    column = learnt(sheet, place, training_rows, task == "classification")
    if isinstance(column, Number) and task is None and _are_class_numbers(sheet.column(place)):
        column = Text(column.name, _categories(sheet, place), column.gaps)
    if isinstance(column, Text) and task == "regression":
        cells = sheet.column(place)
        row = next(row for row, cell in enumerate(cells) if number(cell) is None and not is_gap(cell))
        sheet.refuse(f"holds {shown(cells[row])} in column {shown(column.name)}, which must hold numbers", row)
    different = {cell if number(cell) is None else number(cell) for cell in sheet.column(place) if not is_gap(cell)}
    if len(different) < 2:
        only = shown(next(cell for cell in sheet.column(place) if not is_gap(cell)))
        sheet.refuse(f"holds only {only} in column {shown(column.name)}, so there is nothing to learn")
    return column


def _are_class_numbers(cells: Sequence[str]) -> bool:
    values = {number(cell) for cell in cells} - {None}
    few = len(values) <= min(MAX_CLASS_NUMBERS, len(cells) / ROWS_OF_A_CLASS)
    return few and all(value == int(value) for value in values if value is not None)


def _categories(sheet: Sheet, place: int) -> tuple[str, ...]:
    """Return a column's different texts in the order of the alphabet; if all are numbers, the different numbers."""
    found = sorted({cell for cell in sheet.column(place) if not is_gap(cell)})
    values = [number(cell) for cell in found]
    if None not in values:  # of 1 and 1.0, the shorter
        by_value = dict(sorted(zip(values, found, strict=True), key=lambda pair: -len(pair[1])))
        found = [by_value[value] for value in sorted(by_value, key=lambda value: value or 0)]
    if len(found) > MAX_CATEGORIES:
        name = sheet.names[place]
        sheet.refuse(
            f"holds {len(found):,} different texts in column {shown(name)}, more than the {MAX_CATEGORIES} that "
            f"make sense as categories. Leave the column out: {_option('drop', name)}"
        )
    return tuple(found)


def _option(name: str, column: str) -> str:
    """Return how an option is given to `load_csv` and to the command."""
    return f"{name}={[column]!r} in Python, --{name} {column!r} on the command line"


# From model files


def described_column(described: Any) -> Column:
    """Return the column that a `Table.to_dict` describes; a ValueError or TypeError says what is wrong with another."""
    kind = described.get("kind") if isinstance(described, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError("a column is of no known kind")
    keys = {"kind"} | {field.name for field in fields(KINDS[kind])}
    if set(described) != keys or type(described.get("categories", [])) is not list:
        raise ValueError(f"a column of kind {kind} is not described")
    return KINDS[kind](**{name: value for name, value in described.items() if name != "kind"})
