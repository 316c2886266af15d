"""Columns of tables: numbers, texts and what is ignored; how they read the cells of a file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from nnx._base import check
from nnx._base.text import abridged
from nnx._base.typing import Array
from nnx.data.notation import DECIMALS, PLAIN, SEPARATORS, Cell, Notation, exact, is_unit
from nnx.data.problems import Problems
from nnx.data.sheet import Sheet, listed, shown

#: So many standard deviations from the mean nothing can be said, and a network's sums may overflow.
FARTHEST = 1e12


@dataclass(frozen=True)
class Number:
    """A column of numbers, which the network gets as (number − mean) / scale; a missing value is 0.

    ``decimal``, ``thousands`` and ``unit`` say how its file writes them: with "$", "," and "." that is $1,234.50. The
    unit is a currency or "%", and 12% is the number 12.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    gaps: int = 0
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    kind: ClassVar[str] = "number"
    width: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check.text("Number", "name", self.name)
        for name, low in (("mean", -math.inf), ("scale", math.ulp(0.0))):
            object.__setattr__(self, name, float(check.number("Number", name, getattr(self, name), low)))
        check.whole("Number", "gaps", self.gaps, 0)
        check.one_of("Number", "decimal", self.decimal, DECIMALS)
        check.one_of("Number", "thousands", self.thousands, tuple(mark for mark in SEPARATORS if mark != self.decimal))
        if not is_unit(check.text("Number", "unit", self.unit)):
            raise ValueError(f"Number: unit must be '%' or a currency, got {abridged(self.unit)}.")

    @property
    def notation(self) -> Notation:
        """How its file writes numbers."""
        return Notation(self.decimal, self.thousands, self.unit)

    def summary(self) -> str:
        """Return what a person would want to know of it."""
        like = "" if self.notation == PLAIN else f" such as {self.notation.example()}"
        return f"number{like}, mean {self.mean:.6g}, scale {self.scale:.6g}" + _gaps(self.gaps)

    def standardized(self, sheet: Sheet, place: int, problems: Problems) -> Array:
        """Return the numbers of a file's column less the mean, in units of the scale; missing values are NaN."""
        cells, values = sheet.columns[place], sheet.numbers(place, self.notation)
        strangers = np.flatnonzero(np.isnan(values) & ~cells.gaps).tolist()
        if strangers:
            like = "" if self.notation == PLAIN else f" such as {self.notation.example()}"
            problems.add(
                f"holds {shown(cells[strangers[0]])} in column {shown(self.name)}, which must hold numbers{like}"
                f"{_more(strangers)}",
                strangers[0],
            )
        with np.errstate(over="ignore"):
            values = (values - self.mean) / self.scale
        far = np.flatnonzero(np.abs(values) > FARTHEST).tolist()
        if far:
            cell = shown(cells[far[0]])
            problems.add(f"holds {cell} in column {shown(self.name)}, too far from the mean of {self.mean:.6g}", far[0])
            values[far] = np.nan
        return values


@dataclass(frozen=True)
class Text:
    """A column of texts, which the network gets one-hot, a column for each category; a missing value is 0 in all."""

    name: str
    categories: tuple[str, ...]
    gaps: int = 0
    kind: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        check.text("Text", "name", self.name)
        for category in self.categories:
            check.text("Text", "each of categories", category)
        if not self.categories or len(set(self.categories)) < len(self.categories):
            raise ValueError(
                f"Text: categories must be different texts, at least one, got {abridged(self.categories)}."
            )
        object.__setattr__(self, "categories", tuple(self.categories))
        check.whole("Text", "gaps", self.gaps, 0)

    @property
    def width(self) -> int:
        """Return how many columns the network gets."""
        return len(self.categories)

    def summary(self) -> str:
        """Return what a person would want to know of it."""
        return f"{len(self.categories)} categories ({listed(self.categories)})" + _gaps(self.gaps)

    def codes(self, sheet: Sheet, place: int, problems: Problems, unknown: str = "", full_stops: bool = False) -> Array:
        """Return the position among the categories of each cell of a file's column, −1 for missing values.

        ``unknown`` is what to do about a text that is no category: "missing" takes it for a missing value, "error"
        is a problem that names this way out, and "" one that has none. With ``full_stops``, a cell may end in one
        that the category lacks.
        """
        cells = sheet.columns[place]
        codes: Array = np.array(self._codes_of(cells.distinct, full_stops), np.intp)[cells.codes]
        strangers = np.flatnonzero((codes < 0) & ~cells.gaps).tolist()
        if strangers and unknown == "missing":
            sheet.n_unknown += len(strangers)
        elif strangers:
            first, others = cells[strangers[0]], _others([cells[row] for row in strangers])
            problems.add(
                f"holds {shown(first)} in column {shown(self.name)}, which is none of the known {self.width}: "
                f"{listed(self.categories)}{others}",
                strangers[0],
                self.name,
                "unknown" if unknown else "",
            )
        return codes

    def _codes_of(self, cells: Sequence[Cell], full_stops: bool) -> list[int]:
        position = {category: code for code, category in enumerate(self.categories)}
        values = [exact(category) for category in self.categories]
        by_value = {} if None in values else {value: code for code, value in enumerate(values)}
        codes = []
        for cell in cells:
            text = as_text(cell)
            code = position.get(text)
            if code is None and by_value:
                code = by_value.get(exact(cell))  # 1 is 1.0
            if code is None and full_stops:
                code = position.get(text.removesuffix("."))
            codes.append(-1 if code is None else code)
        return codes


@dataclass(frozen=True)
class Ignored:
    """A column that the network does not get."""

    name: str
    kind: ClassVar[str] = "ignored"
    width: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check.text("Ignored", "name", self.name)


def chosen_categories(where: str, categories: Sequence[str], outputs: Any) -> Array:
    """Return the category of the largest output of each row; of two, one output may be the second's probability.

    Parameters
    ----------
    outputs : array (n, categories), of two also (n, 1)

    Returns
    -------
    array (n,) of str objects
    """
    values = check.matrix(where, "outputs", outputs)
    check_answers(where, values)
    if values.shape[1] != len(categories) and not (values.shape[1] == 1 and len(categories) == 2):
        raise ValueError(f"{where}: outputs must have shape (n, {len(categories)}), got {values.shape}.")
    numbers = np.argmax(values, axis=1) if values.shape[1] > 1 else (values[:, 0] > 0.5).astype(np.intp)
    names: Array = np.array(categories, dtype=object)  # one text may be long, and the others need not be
    return np.asarray(names[numbers])


def check_answers(where: str, outputs: Array) -> None:
    """Refuse outputs that are not finite."""
    good = np.isfinite(outputs).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"{where}: outputs must be finite numbers, got {outputs[row].tolist()} in row {row}.")


Column = Number | Text | Ignored
KINDS: dict[str, type[Column]] = {kind.kind: kind for kind in (Number, Text, Ignored)}
#: What a file says of a column only if it is not the default.
NOTATION = ("decimal", "thousands", "unit")


def as_text(cell: Cell) -> str:
    """Return a cell as text: of numbers, whole ones without a decimal part, as programs add it to columns with gaps."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _gaps(count: int) -> str:
    return f", {count:,} gaps" if count else ""


def _more(rows: list[int]) -> str:
    return f" (and {len(rows) - 1:,} more such cells)" if len(rows) > 1 else ""


def _others(strangers: list[Cell]) -> str:
    """Return what is to be said of unknown texts beside the first."""
    others = [as_text(cell) for cell in Counter(strangers) if cell != strangers[0]]
    return f". Also unknown: {listed(others, 5)}" if others else ""


# To and from model files


def description(column: Column) -> dict[str, Any]:
    """Return a column as what JSON can hold."""
    described = {"kind": column.kind} | {field.name: getattr(column, field.name) for field in fields(column)}
    if isinstance(column, Text):
        described["categories"] = list(column.categories)
    for field in fields(column):
        if field.name in NOTATION and described[field.name] == field.default:
            del described[field.name]
    return described


def described_column(described: Any) -> Column:
    """Return the column that `description` describes; a ValueError or TypeError says what is wrong with another."""
    kind = described.get("kind") if isinstance(described, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError("a column is of no known kind")
    known = {field.name: field.default for field in fields(KINDS[kind])}
    needed = {"kind", *known} - set(NOTATION)
    if not needed <= set(described) <= {"kind", *known} or type(described.get("categories", [])) is not list:
        raise ValueError(f"a column of kind {kind} is not described")
    return KINDS[kind](**{name: value for name, value in described.items() if name != "kind"})
