"""What the columns of a file are: learnt from all of its cells, with all that is wrong told at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from nnx._base.typing import Array
from nnx.data import dates, scaling
from nnx.data.cells import Cells
from nnx.data.columns import Column, Date, Ignored, Number, Text
from nnx.data.notation import (
    PLAIN,
    Notation,
    exact,
    is_gap,
    looks_like_number,
    most_common,
)
from nnx.data.preparation import Preparation
from nnx.data.problems import TARGET, Problems
from nnx.data.roles import Roles
from nnx.data.sheet import Sheet, shown
from nnx.data.surveys import Survey, day_comes_first, decimal_mark, plain_candidates, survey

#: More different texts than this in a column are names or numbers of the rows, not categories.
MAX_CATEGORIES = 256
#: So many there may be in a column of which the network gets the category's number.
MAX_EMBEDDED = 50_000
#: So are texts that differ in this part of the rows, in a table with so many of them or more.
UNIQUE, ENOUGH_ROWS = 0.9, 20
#: Whole numbers are class numbers if there are so few different ones, and so many rows of each on average.
MAX_CLASS_NUMBERS, ROWS_OF_A_CLASS = 10, 10
#: How columns that tell rows apart are called: id, customer_id, customerId, order no.
NAME_OF_IDS = re.compile(r"(?:(?:^|[\W_])(?i:id|nr|no|number|index|key)|[a-z]I[dD])\W*$")
#: Doubles tell all whole numbers apart below this size.
LARGEST_EXACT = 2.0**53


class Learner:
    """Makes columns of what a sheet looks like, and notes what is in the way."""

    def __init__(
        self, sheet: Sheet, training_rows: Array, surveys: list[Survey], decimal: str | None, how: Preparation
    ) -> None:
        self.sheet, self.training_rows, self.how = sheet, training_rows, how
        self.decimal = decimal_mark(sheet, surveys, decimal)
        self.day_first = day_comes_first(surveys, how.dates)
        self.problems = Problems(sheet)
        numbers = sum(each.kind in ("number", "written") for each in surveys)
        self.n_quantiles = min(scaling.MAX_QUANTILES, scaling.MAX_QUANTILES_TOGETHER // max(1, numbers))

    def column(self, found: Survey, is_target: bool = False, as_text: bool = False) -> Number | Text | Date | None:
        """Return a column; None if there is a problem with it."""
        name = self.sheet.names[found.place]
        if found.kind == "empty":
            role, cure = (", which is to be predicted", TARGET) if is_target else ("", "drop")
            self.problems.add(f"holds no value in column {shown(name)}{role}", None, name, cure)
            return None
        if found.kind == "date":
            return self._date(found, name, is_target)
        if found.kind == "mixed" and self.how.lenient and not is_target:
            return self._mixed(found, name)
        if found.kind == "mixed":
            self._stranger(found, name, is_target)
            return None
        if found.kind == "text":
            return self._text(found, name, is_target, as_text)
        return self._number(name, self._notation(found), found, is_target)

    def useful(self, found: Survey, as_text: bool) -> Column:
        """Return an input column; one that is no use is ignored, and the reason noted."""
        name = self.sheet.names[found.place]
        column = self.column(found, as_text=as_text)
        if column is None:
            return Ignored(name)
        if column.width == 0 or not self._varies(column, found.place):
            self.problems.add(f"holds only one value in column {shown(name)} in the training rows", None, name)
            return Ignored(name)
        return column

    def _varies(self, column: Number | Text | Date, place: int) -> bool:
        """Return whether the network gets different things in the training rows."""
        if isinstance(column, Date) or (isinstance(column, Number) and column.indicator):
            return True
        if isinstance(column, Text):
            return bool(np.ptp(column.codes(self.sheet, place, Problems(self.sheet), "error")[self.training_rows]))
        known = self._known(place, column.notation)
        return len(known) > 0 and bool(np.ptp(known))

    def target(self, found: Survey, task: str | None) -> Number | Text | None:
        """Return the column to predict; ``task`` says what it shall be, None that its cells decide."""
        cells, name = self.sheet.columns[found.place], self.sheet.names[found.place]
        if task == "regression" and found.kind in ("text", "mixed"):
            is_odd = [not (is_gap(cell) or looks_like_number(cell)) for cell in cells.distinct]
            if any(is_odd):
                row = int(cells.first_rows[is_odd.index(True)])
                self.problems.add(f"holds {shown(cells[row])} in column {shown(name)}, which must hold numbers", row)
                return None
        column = self.column(found, is_target=True, as_text=task == "classification")
        if column is None or isinstance(column, Date):
            return None
        if not _differ(cells):
            only = shown(cells[int(np.argmin(cells.gaps))])
            self.problems.add(f"holds only {only} in column {shown(name)}, so there is nothing to learn", cure=TARGET)
        elif isinstance(column, Number) and task is None and self._are_class_numbers(found.place, column.notation):
            return Text(name, self._categories(found.place), column.gaps)
        return column

    def _notation(self, found: Survey) -> Notation:
        if found.kind == "number" and self.decimal == ",":
            both = plain_candidates(self.sheet, found)
            return both.choose(",") if both.ambiguous else PLAIN
        return found.candidates.choose(self.decimal)

    def _known(self, place: int, notation: Notation) -> Array:
        """Return the numbers of the training rows."""
        values = self.sheet.numbers(place, notation)[self.training_rows]
        return np.asarray(values[~np.isnan(values)])

    def _number(self, name: str, notation: Notation, found: Survey, is_target: bool) -> Number:
        known = self._known(found.place, notation)
        how = scaling.STANDARD if is_target else self.how.scaling
        return Number(
            name,
            *scaling.center_and_scale(known, how),
            found.n_gaps,
            *(notation.decimal, notation.thousands, notation.unit),
            how if len(known) else scaling.STANDARD,
            scaling.quantiles_of(known, self.n_quantiles) if how == scaling.NORMAL else (),
            indicator=self.how.indicators and not is_target and len(known) < len(self.training_rows),
        )

    def _mixed(self, found: Survey, name: str) -> Number | Text | None:
        """Return a column of numbers with a few texts: categories if there are few different ones, else numbers."""
        filled = self._filled(found.place)
        if len(filled) <= MAX_CLASS_NUMBERS:
            return self._text(found, name, False, False)
        return replace(self._number(name, most_common(filled, self.decimal), found, False), texts_missing=True)

    def _date(self, found: Survey, name: str, is_target: bool) -> Date | None:
        """Return a column of dates; what all training rows have in common is no part of it."""
        form = self._form(found)
        if is_target:
            reason = f"holds dates such as {dates.example(form)} in column {shown(name)}, which cannot be predicted"
            self.problems.add(f"{reason}. Write them as numbers, such as days since the first", None, name, TARGET)
            return None
        times = dates.moments(self.sheet.columns[found.place], form)[self.training_rows]
        gaps = np.isnat(times)
        known = dates.parts_of(times[~gaps])
        parts = [part for part, values in known.items() if len(values) and np.ptp(values) > 0]
        scales = [scaling.center_and_scale(known[part], scaling.STANDARD) for part in parts]
        scales = [(0.0, 1.0) if part in dates.WAVES else each for part, each in zip(parts, scales, strict=True)]
        means, spreads = tuple(mean for mean, _ in scales), tuple(spread for _, spread in scales)
        indicator = self.how.indicators and bool(gaps.any())
        return Date(name, tuple(parts), means, spreads, found.n_gaps, form, indicator, not found.all_read)

    def _filled(self, place: int) -> dict[str, int]:
        """Return how often each text that is not a missing value stands in a column."""
        cells = self.sheet.columns[place]
        times_of = zip(cells.distinct, cells.counts.tolist(), strict=True)
        return {str(cell): times for cell, times in times_of if not is_gap(cell)}

    def _stranger(self, found: Survey, name: str, is_target: bool) -> None:
        """Note the first cell that is not written as most are."""
        cells, filled = self.sheet.columns[found.place], self._filled(found.place)
        notation = most_common(filled, self.decimal)
        odd = [not is_gap(cell) and notation.number(str(cell)) is None for cell in cells.distinct]
        rows = np.flatnonzero(np.array(odd, np.bool_)[cells.codes]).tolist()
        like = "" if notation == PLAIN else f" such as {notation.example()}"
        more = f" ({len(rows) - 1:,} more are not)" if len(rows) > 1 else ""
        n_different, n_filled = len(filled), sum(filled.values())
        cure, advice = "text", ", or take the column as text"
        if is_target and n_different > min(MAX_CATEGORIES, n_filled / 2):
            cure, advice = "", ""
        elif not is_target and _too_many(n_different, n_filled):
            cure, advice = "drop", ", or leave the column out"
        reason = f"holds {shown(cells[rows[0]])} in column {shown(name)}, whose other cells are numbers{like}{more}"
        self.problems.add(f"{reason}. Correct it{advice}", rows[0], name, cure)

    def _stranger_among_dates(self, place: int, name: str, form: str) -> None:
        """Note the first cell that is not written as most dates are."""
        cells = self.sheet.columns[place]
        row = int(np.argmax(np.isnat(dates.moments(cells, form)) & ~cells.gaps))
        reason = f"holds {shown(cells[row])} in column {shown(name)}, most of whose cells are dates such as "
        self.problems.add(f"{reason}{dates.example(form)}. Correct it, or leave the column out", row, name, "drop")

    def _form(self, found: Survey) -> str:
        """Return how a column writes dates; if nothing tells, the month comes first, unless all days are the first."""
        if len(found.forms) == 1:
            return found.forms[0]
        by_order = {dates.day_first(form): form for form in found.forms}
        first = self.day_first
        if first is None:
            times = dates.moments(self.sheet.columns[found.place], by_order[True])
            times = times[~np.isnat(times)]
            first = bool((times.astype("datetime64[D]") == times.astype("datetime64[M]")).all())
        return by_order[first]

    def _text(self, found: Survey, name: str, is_target: bool, as_text: bool) -> Text | None:
        n_filled = self.sheet.n_rows - found.n_gaps
        categories = self._categories(found.place)
        column = Text(name, categories, found.n_gaps)
        if not is_target:
            column = self._pooled(column, found.place)
        most = MAX_CATEGORIES if self.how.one_hot is None or is_target else MAX_EMBEDDED
        if len(column.categories) <= most and (as_text or not _tell_rows_apart(len(categories), n_filled)):
            is_code = not is_target and self.how.one_hot is not None and column.width > self.how.one_hot
            return replace(column, as_code=is_code)
        form = dates.form_of_most(self.sheet.columns[found.place]) if not as_text and self.how.dates else None
        if form is not None and not is_target:
            self._stranger_among_dates(found.place, name, form)
            return None
        advice = ". Name it for drop instead of text" if as_text and not is_target else ""
        self.problems.add(
            f"holds {len(categories):,} different texts in {n_filled:,} rows of column {shown(name)}, too many to "
            f"be {'classes' if is_target else 'categories'}{advice}",
            None,
            name,
            TARGET if is_target else "" if as_text else "drop",
        )
        return None

    def _pooled(self, column: Text, place: int) -> Text:
        """Return a column with its rare categories in a pool; if none would be left, without a pool."""
        if not self.how.rare:
            return column
        codes = column.codes(self.sheet, place, Problems(self.sheet))[self.training_rows]
        times = np.bincount(codes[codes >= 0], minlength=len(column.categories)).tolist()
        kept = [name for name, count in zip(column.categories, times, strict=True) if count >= self.how.rare]
        if not kept or len(kept) == len(column.categories):
            return column
        return replace(column, categories=tuple(kept), pooled=True)

    def _are_class_numbers(self, place: int, notation: Notation) -> bool:
        values = self.sheet.numbers(place, notation)
        different = np.unique(values[~np.isnan(values)])
        few = len(different) <= min(MAX_CLASS_NUMBERS, len(values) / ROWS_OF_A_CLASS)
        return few and bool((different == np.floor(different)).all())

    def _categories(self, place: int) -> tuple[str, ...]:
        return in_order({str(cell) for cell in self.sheet.columns[place].distinct if not is_gap(cell)})


def in_order(texts: Collection[str]) -> tuple[str, ...]:
    """Return different texts in the order of the alphabet; if all are numbers, the numbers in theirs."""
    found = sorted(texts)
    values = {text: exact(text) for text in found}
    if None not in values.values():
        shortest_last = sorted(found, key=len, reverse=True)
        by_value = {values[text]: text for text in shortest_last}  # of 1 and 1.0, the shorter
        found = [by_value[value] for value in sorted(by_value, key=lambda value: value or 0)]
    return tuple(found)


def _differ(cells: Cells) -> bool:
    """Return whether a column holds two values or more; 1 and 1.0 are one, two ids of 17 digits are not."""
    values = cells.numbers()
    if cells.only_numbers and np.nanmin(values) < np.nanmax(values):
        return True
    return len({cell if exact(cell) is None else exact(cell) for cell in cells.distinct if not is_gap(cell)}) > 1


def _too_many(n_different: int, n_filled: int) -> bool:
    """Return whether so many texts are no categories."""
    return n_different > MAX_CATEGORIES or _tell_rows_apart(n_different, n_filled)


def _tell_rows_apart(n_different: int, n_filled: int) -> bool:
    """Return whether so many texts are names or numbers of the rows."""
    return n_filled >= ENOUGH_ROWS and n_different >= UNIQUE * n_filled


def numbers_rows(sheet: Sheet, place: int) -> bool:
    """Return whether a column's whole numbers tell the rows apart and no more.

    They rise or fall from each row to the next, have no gap between them, or all differ under a name such as "id".
    """
    values = sheet.numbers(place)
    if len(values) < ENOUGH_ROWS or not np.isfinite(values).all() or (values != np.floor(values)).any():
        return False
    steps = np.diff(values)
    if (steps > 0).all() or (steps < 0).all():
        return True
    if len(np.unique(values)) < len(values) and (
        np.abs(values).max() < LARGEST_EXACT or len({exact(cell) for cell in sheet.columns[place]}) < len(values)
    ):
        return False
    return bool(np.ptp(values) == len(values) - 1) or NAME_OF_IDS.search(sheet.names[place]) is not None


# All columns of a file


def learnt(
    sheet: Sheet, training_rows: Array, roles: Roles, how: Preparation, problems: Problems
) -> tuple[list[Column], dict[str, str]]:
    """Return the columns of a file without those that there are problems with, and why which others were left out."""
    found = {
        name: survey(sheet, place, roles.is_text(name), how)
        for place, name in enumerate(sheet.names)
        if name not in roles.dropped
    }
    if roles.refuse_gaps:
        _note_gaps(sheet, found, problems)
    learner = Learner(sheet, training_rows, list(found.values()), roles.decimal, how)
    columns: list[Column | None] = []
    left_out: dict[str, str] = {}
    for name in sheet.names:
        if name in roles.dropped:
            columns.append(Ignored(name))
        elif name == roles.target:
            columns.append(learner.target(found[name], roles.task))
            problems.take(learner.problems)
        elif how.lenient:
            columns.append(learner.useful(found[name], name in roles.as_text))
            left_out |= {each.column: each.reason for each in learner.problems.found}
            learner.problems.found.clear()
        else:
            columns.append(learner.column(found[name], as_text=name in roles.as_text))
    problems.take(learner.problems)
    return [each for each in columns if each is not None], left_out


def _note_gaps(sheet: Sheet, found: dict[str, Survey], problems: Problems) -> None:
    """Note the columns with missing values."""
    for name, each in found.items():
        if each.n_gaps and each.kind != "empty":
            cells = sheet.columns[each.place]
            row = int(np.argmax(cells.gaps))
            more = f", one of {each.n_gaps:,}" if each.n_gaps > 1 else ""
            problems.add(f"has a missing value ({cells[row]!r}) in column {shown(name)}{more}", row, name, "gaps")


def row_numbers(sheet: Sheet, columns: Sequence[Column]) -> tuple[str, ...]:
    """Return which of the input columns number the rows, () if nothing would be left without them."""
    inputs = [each for each in columns if not isinstance(each, Ignored)]
    numbers = [each.name for each in inputs if isinstance(each, Number)]
    found = tuple(name for name in numbers if numbers_rows(sheet, sheet.places[name]))
    return found if len(found) < len(inputs) else ()


def propose_dropping(problems: Problems, row_numbers: Collection[str]) -> None:
    """Note columns that number the rows beside real problems, so that one command leaves out all."""
    if problems.found:
        for name in row_numbers:
            problems.add(f"seems to number the rows in column {shown(name)}", None, name, "drop")
        places = problems.sheet.places
        problems.found.sort(key=lambda each: places.get(each.column, -1))
