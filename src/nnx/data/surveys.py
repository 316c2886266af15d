"""What the columns of a table look like: numbers, dates or texts, and how all of a column can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nnx.data import dates
from nnx.data.notation import PLAIN, Candidates, candidates, is_gap, looks_like_number, number
from nnx.data.preparation import DAY_FIRST, Preparation
from nnx.data.sheet import Sheet

#: What is known of numbers as programs write them.
AS_PROGRAMS = Candidates((PLAIN,))


@dataclass(frozen=True)
class Survey:
    """What a column's cells look like.

    ``kind`` is "empty"; "number", as programs write them; "written", as people do, in one of the ``candidates``;
    "mixed", which shall be numbers, but not all cells agree; "date", in one of the ``forms``, which reads all values
    or, if not ``all_read``, most of them; or "text".
    """

    place: int
    kind: str
    n_gaps: int
    candidates: Candidates = AS_PROGRAMS
    forms: tuple[str, ...] = ()
    all_read: bool = True


def survey(sheet: Sheet, place: int, as_text: bool, how: Preparation) -> Survey:
    """Return what a column looks like: numbers if all its cells are; a few texts among numbers are mistakes.

    So are a few texts among dates if columns are to be used as far as possible.
    """
    cells = sheet.columns[place]
    n_gaps = cells.n_gaps
    if n_gaps == len(cells):
        return Survey(place, "empty", n_gaps)
    if as_text:
        return Survey(place, "text", n_gaps)
    if cells.only_numbers:
        return Survey(place, "number", n_gaps)
    forms = dates.forms_of(cells) if how.dates is not False else ()
    if forms:
        return Survey(place, "date", n_gaps, forms=forms)
    times_of = zip(cells.distinct, cells.counts.tolist(), strict=True)
    strangers = {str(cell): times for cell, times in times_of if number(cell) is None and not is_gap(cell)}
    n_strangers = sum(strangers.values())
    n_numbers = len(cells) - n_gaps - n_strangers
    most = dates.form_of_most(cells) if how.lenient and how.dates is not False else None
    if most is not None:
        return Survey(place, "date", n_gaps, forms=(most,), all_read=False)
    n_written = sum(times for text, times in strangers.items() if looks_like_number(text))
    if n_numbers + n_written < n_strangers - n_written:
        return Survey(place, "text", n_gaps)
    found = candidates(str(cell) for cell in cells.distinct if not is_gap(cell))
    return Survey(place, "written" if found.notations else "mixed", n_gaps, found)


def decimal_mark(sheet: Sheet, surveys: list[Survey], given: str | None) -> str:
    """Return the decimal mark of columns that can be read in two ways: that of those that cannot, else a full stop."""
    if given is not None:
        return given
    sure = {each.candidates.notations[0].decimal for each in surveys if _is_sure(each)}
    if sure != {","}:
        return "."
    for each in surveys:
        if each.kind == "number" and not plain_candidates(sheet, each).ambiguous and _has_point(sheet, each):
            return "."
    return ","


def _is_sure(each: Survey) -> bool:
    return each.kind == "written" and not each.candidates.ambiguous


def _has_point(sheet: Sheet, each: Survey) -> bool:
    return any(isinstance(cell, str) and "." in cell for cell in sheet.columns[each.place].distinct)


def plain_candidates(sheet: Sheet, each: Survey) -> Candidates:
    """Return how numbers as programs write them can be read: 1.234 may be a thousand."""
    return candidates(str(cell) for cell in sheet.columns[each.place].distinct if not is_gap(cell))


def day_comes_first(surveys: Sequence[Survey], given: bool | str) -> bool | None:
    """Return whether the day comes before the month in dates that can be read in both ways; None if nothing says so."""
    if isinstance(given, str):
        return given == DAY_FIRST
    sure = {dates.day_first(each.forms[0]) for each in surveys if len(each.forms) == 1}
    sure.discard(None)
    return sure.pop() if len(sure) == 1 else None
