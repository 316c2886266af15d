"""Columns of tables: numbers, texts, dates and what is ignored; how they read the cells of a file."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from nnx._base import check
from nnx._base.text import abridged
from nnx._base.typing import Array
from nnx.data import dates
from nnx.data.notation import DECIMALS, LARGEST, PLAIN, SEPARATORS, Cell, Notation, exact, is_unit
from nnx.data.problems import Problems
from nnx.data.scaling import (
    MAX_QUANTILES,
    NORMAL,
    ROBUST,
    SCALINGS,
    STANDARD,
    NormalScores,
    normal_scores,
    smooth_clipping_undone,
    smoothly_clipped,
)
from nnx.data.sheet import Sheet, listed, shown

#: So many standard deviations from the mean nothing can be said, and a network's sums may overflow.
FARTHEST = 1e12


@dataclass(frozen=True)
class Number:
    """A column of numbers, which the network gets as (number − mean) / scale; a missing value is 0.

    ``decimal``, ``thousands`` and ``unit`` say how its file writes them: with "$", "," and "." that is $1,234.50. The
    unit is a currency or "%", and 12% is the number 12.

    ``scaling`` is "standard"; "robust", where ``mean`` is the median and ``scale`` the interquartile range, and the
    network gets x / √(1 + (x/3)²) of x = (number − mean) / scale; or "normal", where ``quantiles`` of the training rows
    lead from a number to its place in a standard normal distribution. With ``indicator``, the network also gets 1
    where the value is missing, else 0. With ``texts_missing``, texts that are no numbers are missing values; else they
    are errors.
    """

    name: str
    mean: float = 0.0
    scale: float = 1.0
    gaps: int = 0
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    scaling: str = STANDARD
    quantiles: tuple[float, ...] = ()
    indicator: bool = False
    texts_missing: bool = False
    kind: ClassVar[str] = "number"
    embedded: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check.text("Number", "name", self.name)
        for name, low in (("mean", -math.inf), ("scale", math.ulp(0.0))):
            object.__setattr__(self, name, float(check.number("Number", name, getattr(self, name), low)))
        check.whole("Number", "gaps", self.gaps, 0)
        check.one_of("Number", "decimal", self.decimal, DECIMALS)
        check.one_of("Number", "thousands", self.thousands, tuple(mark for mark in SEPARATORS if mark != self.decimal))
        if not is_unit(check.text("Number", "unit", self.unit)):
            raise ValueError(f"Number: unit must be '%' or a currency, got {abridged(self.unit)}.")
        check.one_of("Number", "scaling", self.scaling, SCALINGS)
        check.flag("Number", "indicator", self.indicator)
        check.flag("Number", "texts_missing", self.texts_missing)
        object.__setattr__(self, "quantiles", _numbers("Number", "quantiles", self.quantiles))
        if any(one > other for one, other in itertools.pairwise(self.quantiles)):
            raise ValueError("Number: quantiles must be in ascending order.")
        least, most = (1, MAX_QUANTILES) if self.scaling == NORMAL else (0, 0)
        if not least <= len(self.quantiles) <= most:
            raise ValueError(
                f"Number: quantiles must be {least} to {most:,} numbers for {self.scaling!r} scaling, "
                f"got {len(self.quantiles):,}."
            )

    @property
    def width(self) -> int:
        """Return how many columns the network gets."""
        return 1 + self.indicator

    @property
    def numeric(self) -> range:
        """Return which of these hold numbers."""
        return range(1)

    @property
    def input_names(self) -> list[str]:
        """Return their names."""
        return [self.name] + [f"{self.name} is missing"] * self.indicator

    @property
    def notation(self) -> Notation:
        """How its file writes numbers."""
        return Notation(self.decimal, self.thousands, self.unit)

    def summary(self) -> str:
        """Return what a person would want to know of it."""
        like = "" if self.notation == PLAIN else f" such as {self.notation.example()}"
        center, spread = ("median", "spread") if self.scaling == ROBUST else ("mean", "scale")
        made = f", made normal by {len(self.quantiles):,} quantiles" if self.scaling == NORMAL else ""
        made += ", texts taken for missing" if self.texts_missing else ""
        about = f"number{like}, {center} {self.mean:.6g}, {spread} {self.scale:.6g}{made}"
        return about + _gaps(self.gaps, self.indicator)

    def read(self, sheet: Sheet, place: int, problems: Problems, unknown: str) -> Array:
        """Return what `fill` needs of a file's column, by row; ``unknown`` matters to other kinds."""
        return self.standardized(sheet, place, problems)

    def fill(self, inputs: Array, values: Array) -> None:
        """Set what the network gets: array (rows, width) of zeros."""
        missing = np.isnan(values)
        inputs[:, 0] = np.where(missing, 0, values)
        if self.indicator:
            inputs[:, 1] = missing

    def standardized(self, sheet: Sheet, place: int, problems: Problems) -> Array:
        """Return the numbers of a file's column as they are scaled; missing values are NaN."""
        cells, values = sheet.columns[place], sheet.numbers(place, self.notation)
        strangers = np.flatnonzero(np.isnan(values) & ~cells.gaps).tolist()
        if strangers and self.texts_missing:
            sheet.n_unknown += len(strangers)
        elif strangers:
            like = "" if self.notation == PLAIN else f" such as {self.notation.example()}"
            problems.add(
                f"holds {shown(cells[strangers[0]])} in column {shown(self.name)}, which must hold numbers{like}"
                f"{_more(strangers)}",
                strangers[0],
            )
        if self.scaling == NORMAL:
            return self._scores.of(values)
        with np.errstate(over="ignore"):
            values = (values - self.mean) / self.scale
        if self.scaling == ROBUST:
            return smoothly_clipped(values)
        return _near(values, f"{self.mean:.6g}", self.name, cells, problems)

    def unscaled(self, values: Array) -> Array:
        """Return the numbers that `standardized` gives these values for; what was clipped stays at the end."""
        if self.scaling == NORMAL:
            return self._scores.undone(values)
        if self.scaling == ROBUST:
            values = smooth_clipping_undone(values)
        return np.asarray(values * self.scale + self.mean)

    @cached_property
    def _scores(self) -> NormalScores:
        return normal_scores(self.quantiles)


@dataclass(frozen=True)
class Text:
    """A column of texts, which the network gets one-hot, a column for each category; a missing value is 0 in all.

    With ``pooled``, there is one more category, for all other texts. With ``embedded``, the network gets one number
    instead, for a `nnx.Layer_Embedding`: 0 for a missing value, 1 for the first category, and so on.
    """

    name: str
    categories: tuple[str, ...]
    gaps: int = 0
    pooled: bool = False
    as_code: bool = False
    kind: ClassVar[str] = "text"
    numeric: ClassVar[range] = range(0)

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
        check.flag("Text", "pooled", self.pooled)
        check.flag("Text", "as_code", self.as_code)

    @property
    def width(self) -> int:
        """Return how many columns the network gets."""
        return 1 if self.as_code else len(self.categories) + self.pooled

    @property
    def embedded(self) -> int:
        """Return how many numbers there are for categories, that of missing values included; 0 if one-hot."""
        return 1 + len(self.categories) + self.pooled if self.as_code else 0

    @property
    def input_names(self) -> list[str]:
        """Return the names of what the network gets."""
        if self.as_code:
            return [self.name]
        return [f"{self.name}={category}" for category in self.categories] + [f"{self.name}=(other)"] * self.pooled

    def summary(self) -> str:
        """Return what a person would want to know of it."""
        pool = " and one for all others" if self.pooled else ""
        code = ", as one number" if self.as_code else ""
        return f"{len(self.categories):,} categories ({listed(self.categories)}){pool}{code}" + _gaps(self.gaps)

    def read(self, sheet: Sheet, place: int, problems: Problems, unknown: str) -> Array:
        """Return what `fill` needs of a file's column, by row."""
        return self.codes(sheet, place, problems, unknown)

    def fill(self, inputs: Array, values: Array) -> None:
        """Set what the network gets: array (rows, width) of zeros."""
        if self.as_code:
            inputs[:, 0] = values + 1
        else:
            known = np.flatnonzero(values >= 0)
            inputs[known, values[known]] = 1

    def codes(self, sheet: Sheet, place: int, problems: Problems, unknown: str = "", full_stops: bool = False) -> Array:
        """Return the position among the categories of each cell of a file's column, −1 for missing values.

        ``unknown`` is what to do about a text that is no category: "missing" takes it for a missing value, "error"
        is a problem that names this way out, and "" one that has none. If there is a pool, it belongs to that. With
        ``full_stops``, a cell may end in one that the category lacks.
        """
        cells = sheet.columns[place]
        codes: Array = np.array(self._codes_of(cells.distinct, full_stops), np.intp)[cells.codes]
        strangers = np.flatnonzero((codes < 0) & ~cells.gaps).tolist()
        if strangers and self.pooled:
            codes[strangers] = len(self.categories)
        elif strangers and unknown == "missing":
            sheet.n_unknown += len(strangers)
        elif strangers:
            first, others = cells[strangers[0]], _others([cells[row] for row in strangers])
            problems.add(
                f"holds {shown(first)} in column {shown(self.name)}, which is not one of the "
                f"{len(self.categories)} known values: {listed(self.categories)}{others}",
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
            code = position.get(text, position.get(str(cell)))
            if code is None and by_value:
                code = by_value.get(exact(cell))  # 1 is 1.0
            if code is None and full_stops:
                code = position.get(text.removesuffix("."))
            codes.append(-1 if code is None else code)
        return codes


@dataclass(frozen=True)
class Date:
    """A column of dates and times, which the network gets in ``parts``, each as (number − mean) / scale of ``means``
    and ``scales``; a missing value is 0 in all, and 1 in one more if there is an ``indicator``.

    ``form`` says how its file writes days (d), months (m) and years (Y, of two digits y); "Y-m-d" is ISO 8601. The
    parts are "days" since 1970 with their fraction, "year", "month", "weekday" from 0 on Monday, "sine" and "cosine" of
    the day's place in its year, and "hour" with its fraction. With ``texts_missing``, texts that are no dates are
    missing values; else they are errors.
    """

    name: str
    parts: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    gaps: int = 0
    form: str = dates.ISO
    indicator: bool = False
    texts_missing: bool = False
    kind: ClassVar[str] = "date"
    embedded: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check.text("Date", "name", self.name)
        if not isinstance(self.parts, list | tuple):
            raise TypeError(f"Date: parts must be a list of texts, got {abridged(self.parts)}.")
        for part in self.parts:
            check.one_of("Date", "each of parts", part, dates.PARTS)
        object.__setattr__(self, "parts", tuple(self.parts))
        for name in ("means", "scales"):
            object.__setattr__(self, name, _numbers("Date", name, getattr(self, name)))
        if not len(set(self.parts)) == len(self.parts) == len(self.means) == len(self.scales):
            raise ValueError("Date: parts must be different, each with one of means and one of scales.")
        if min(self.scales, default=1) <= 0:
            raise ValueError(f"Date: scales must be above 0, got {min(self.scales)}.")
        check.whole("Date", "gaps", self.gaps, 0)
        check.one_of("Date", "form", self.form, dates.FORMS)
        check.flag("Date", "indicator", self.indicator)
        check.flag("Date", "texts_missing", self.texts_missing)

    @property
    def width(self) -> int:
        """Return how many columns the network gets."""
        return len(self.parts) + self.indicator

    @property
    def numeric(self) -> range:
        """Return which of these hold numbers."""
        return range(len(self.parts))

    @property
    def input_names(self) -> list[str]:
        """Return their names."""
        return [f"{self.name}.{part}" for part in self.parts] + [f"{self.name} is missing"] * self.indicator

    def summary(self) -> str:
        """Return what a person would want to know of it."""
        texts = ", texts taken for missing" if self.texts_missing else ""
        return f"date such as {self.example}, as {listed(self.parts)}{texts}" + _gaps(self.gaps, self.indicator)

    @property
    def example(self) -> str:
        """How its file writes the last day of 2020."""
        return dates.example(self.form)

    def read(self, sheet: Sheet, place: int, problems: Problems, unknown: str) -> Array:
        """Return what `fill` needs of a file's column, by row: the scaled parts, and 1 for a missing value, else 0."""
        cells = sheet.columns[place]
        times = dates.moments(cells, self.form)
        strangers = np.flatnonzero(np.isnat(times) & ~cells.gaps).tolist()
        if strangers and self.texts_missing:
            sheet.n_unknown += len(strangers)
        elif strangers:
            problems.add(
                f"holds {shown(cells[strangers[0]])} in column {shown(self.name)}, which must hold dates such as "
                f"{self.example}{_more(strangers)}",
                strangers[0],
            )
        found = dates.parts_of(times)
        values = np.empty((len(times), len(self.parts) + 1), np.float64)
        for i, (part, mean, scale) in enumerate(zip(self.parts, self.means, self.scales, strict=True)):
            with np.errstate(over="ignore"):
                scaled = (found[part] - mean) / scale
            values[:, i] = _near(scaled, f"{mean:.6g} {part}", self.name, cells, problems)
        values[:, -1] = np.isnat(times)
        return values

    def fill(self, inputs: Array, values: Array) -> None:
        """Set what the network gets: array (rows, width) of zeros."""
        inputs[:, : len(self.parts)] = np.where(np.isnan(values[:, :-1]), 0, values[:, :-1])
        if self.indicator:
            inputs[:, -1] = values[:, -1]


@dataclass(frozen=True)
class Ignored:
    """A column that the network does not get."""

    name: str
    kind: ClassVar[str] = "ignored"

    def __post_init__(self) -> None:
        check.text("Ignored", "name", self.name)


Column = Number | Text | Date | Ignored
KINDS: dict[str, type[Column]] = {kind.kind: kind for kind in (Number, Text, Date, Ignored)}
#: What a file says of a column only if it is not the default, so that older versions read what they know.
RARE_FIELDS = (
    "decimal",
    "thousands",
    "unit",
    "scaling",
    "quantiles",
    "indicator",
    "texts_missing",
    "pooled",
    "as_code",
)
#: Fields that are lists in a file.
LISTS = ("categories", "quantiles", "parts", "means", "scales")


def as_text(cell: Cell) -> str:
    """Return a cell as text: of numbers, whole ones without a decimal part, as in columns with missing values."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _gaps(count: int, indicator: bool = False) -> str:
    return (f", {count:,} missing" if count else "") + (", with an input that says where" if indicator else "")


def _numbers(where: str, name: str, values: Any) -> tuple[float, ...]:
    """Return a list of numbers of a usable size as floats; refuse others."""
    if not isinstance(values, list | tuple):
        raise TypeError(f"{where}: {name} must be a list of numbers, got {abridged(values)}.")
    return tuple(float(check.number(where, f"each of {name}", value, -LARGEST, LARGEST)) for value in values)


def _near(values: Array, mean: str, name: str, cells: Sequence[Cell], problems: Problems) -> Array:
    """Return standardized numbers; note those that are too far from 0, and take them for missing."""
    far = np.flatnonzero(np.abs(values) > FARTHEST).tolist()
    if far:
        problems.add(f"holds {shown(cells[far[0]])} in column {shown(name)}, too far from the mean of {mean}", far[0])
        values[far] = np.nan
    return values


def _more(rows: list[int]) -> str:
    return f" (and {len(rows) - 1:,} more such cells)" if len(rows) > 1 else ""


def _others(strangers: list[Cell]) -> str:
    """Return what is to be said of unknown texts beside the first."""
    others = [as_text(cell) for cell in Counter(strangers) if cell != strangers[0]]
    return f". Also unknown: {listed(others, 5)}" if others else ""


# To and from model files


def description(column: Column) -> dict[str, Any]:
    """Return a column as what JSON can hold."""
    described: dict[str, Any] = {"kind": column.kind}
    for field in fields(column):
        value = getattr(column, field.name)
        if field.name not in RARE_FIELDS or value != field.default:
            described[field.name] = list(value) if field.name in LISTS else value
    return described


def described_column(described: Any) -> Column:
    """Return the column that `description` describes; a ValueError or TypeError says what is wrong with another."""
    kind = described.get("kind") if isinstance(described, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError("a column has an unknown kind")
    known = {field.name for field in fields(KINDS[kind])}
    lists = all(type(described[name]) is list for name in described if name in LISTS)
    if not {"kind", *known} - set(RARE_FIELDS) <= set(described) <= {"kind", *known} or not lists:
        raise ValueError(f"a column of kind {kind} is not described")
    return KINDS[kind](**{name: value for name, value in described.items() if name != "kind"})
