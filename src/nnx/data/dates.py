"""Dates and times as people write them, the one form of a whole column, and the parts that a network gets."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date
from weakref import WeakKeyDictionary

import numpy as np

from nnx._base.typing import Array
from nnx.data.cells import Cells
from nnx.data.notation import Cell, is_gap

#: The orders of day (d), month (m) and year (Y; y has two digits), with the marks between them. The first is ISO 8601.
ISO = "Y-m-d"
FORMS = (ISO, "Y/m/d", "Y.m.d", "d.m.Y", "m/d/Y", "d/m/Y", "m-d-Y", "d-m-Y", "m/d/y", "d/m/y")
#: Years of two digits from this one on are in the 20th century, as in POSIX.
CENTURY = 69
DIGITS = {"Y": r"(?P<year>\d{4})", "y": r"(?P<year>\d{2})", "m": r"(?P<month>\d{1,2})", "d": r"(?P<day>\d{1,2})"}
DAY_AND_TIME = re.compile(r"([\d/.-]+)(.*)", re.ASCII)
TIME = re.compile(
    r"(?:[Tt]|,? )(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?"
    r"(?: ?(?:[Zz]|UTC|GMT|(?P<sign>[+-])(?P<ahead>\d{2})(?::?(?P<more>\d{2}))?))?",
    re.ASCII,
)
EXAMPLES = {"Y": "2020", "y": "20", "m": "12", "d": "31"}

#: So many of a column's values are tried first to find the form of most.
TRIED = 200

#: What a network can get of a date, each as one number.
PARTS = ("days", "year", "month", "weekday", "sine", "cosine", "hour")
#: Parts that are taken as they are: from −1 to 1.
WAVES = ("sine", "cosine")
MICROSECONDS = 1_000_000
MICROSECONDS_OF_A_DAY = 86_400 * MICROSECONDS
#: `date.toordinal` of 1970-01-01.
EPOCH = 719_163
NO_TIME = np.iinfo(np.int64).min  # which is NaT


def example(form: str) -> str:
    """Return a date in a form: 31.12.2020."""
    return re.sub("[Yymd]", lambda found: EXAMPLES[found[0]], form)


class _Days(dict[str, int | None]):
    """Microseconds from 1970 to a day, by its text; None for a text that is none in the form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._pattern = re.compile("".join(DIGITS.get(each, re.escape(each)) for each in form), re.ASCII)

    def __missing__(self, text: str) -> int | None:
        found = self._pattern.fullmatch(text)
        self[text] = None
        if found is not None:
            year = int(found["year"])
            if len(found["year"]) == 2:
                year += 1900 if year >= CENTURY else 2000
            with suppress(ValueError):  # no month has 31 days and so on
                number = date(year, int(found["month"]), int(found["day"])).toordinal() - EPOCH
                self[text] = number * MICROSECONDS_OF_A_DAY
        return self[text]


class _Times(dict[str, int | None]):
    """Microseconds from midnight to a time of day, by its text; None for a text that is none. In UTC with a zone."""

    def __missing__(self, text: str) -> int | None:
        found = TIME.fullmatch(text)
        self[text] = None if text else 0
        if found is not None:
            hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
            usable = minute < 60 and second < 60 and (1 <= hour <= 12 if found["half"] else hour < 24)
            if found["half"]:
                hour = hour % 12 + (12 if found["half"] in "Pp" else 0)
            fraction = int((found["fraction"] or "0").ljust(6, "0")[:6])
            ahead = (int(found["ahead"] or 0) * 60 + int(found["more"] or 0)) * (-1 if found["sign"] == "-" else 1)
            self[text] = ((hour * 60 + minute - ahead) * 60 + second) * MICROSECONDS + fraction if usable else None
        return self[text]


class Reader:
    """Reads texts in a form. Days and times are looked up one by one: many texts have them in common."""

    def __init__(self, form: str) -> None:
        self._days, self._times = _Days(form), _Times()

    def moment(self, cell: Cell) -> int | None:
        """Return the microseconds from 1970 to what a text names, in UTC if it says its zone; None for others."""
        found = DAY_AND_TIME.fullmatch(cell) if isinstance(cell, str) else None
        if found is None:
            return None
        day, time = self._days[found[1]], self._times[found[2]]
        return None if day is None or time is None else day + time


#: What has been read of columns that are still in use: a column is looked at three times until it is learnt and taken.
_READ: WeakKeyDictionary[Cells, dict[str, Array]] = WeakKeyDictionary()


def _read(cells: Cells, form: str) -> Array:
    """Return microseconds from 1970 of each of a column's different cells, `NO_TIME` where it names none."""
    known = _READ.setdefault(cells, {})
    if form not in known:
        reader = Reader(form)
        found = map(reader.moment, cells.distinct)
        known[form] = np.array([NO_TIME if each is None else each for each in found], np.int64)
    return known[form]


def moments(cells: Cells, form: str) -> Array:
    """Return the moments of a column's cells as datetime64 in microseconds, NaT where a cell names none.

    Dates as ISO 8601 writes them are read in any form, since Python objects give them so.
    """
    if cells.dates is not None:
        return cells.dates.astype("datetime64[us]")
    found = _read(cells, form)
    if form != ISO and (found == NO_TIME).any():
        found = np.where(found == NO_TIME, _read(cells, ISO), found)
    return np.asarray(found.view("datetime64[us]")[cells.codes])


def forms_of(cells: Cells) -> tuple[str, ...]:
    """Return the forms that read all of a column's values, () if there is no value or none reads them all.

    They are in the order of `FORMS`: of two, such as of 01/02/2020, the first has the month first.
    """
    if cells.dates is not None:
        return (ISO,)
    first = next((cell for cell in cells.distinct if not is_gap(cell)), "")
    likely = [form for form in FORMS if Reader(form).moment(first) is not None]  # none, of most columns of texts
    filled = np.array([not is_gap(cell) for cell in cells.distinct], np.bool_) if likely else None
    return tuple(form for form in likely if (_read(cells, form)[filled] != NO_TIME).all())


def form_of_most(cells: Cells) -> str | None:
    """Return the form that reads most of a column's values, more than half of them; None if there is none."""
    times_of = zip(cells.distinct, cells.counts.tolist(), strict=True)
    filled = {cell: times for cell, times in times_of if not is_gap(cell)}
    some = [*filled][:: -(-len(filled) // TRIED) or 1]
    best, most = None, sum(filled.values()) // 2
    for form in FORMS:
        reader = Reader(form)
        if 2 * sum(reader.moment(cell) is not None for cell in some) > len(some):
            n_read = sum(times for cell, times in filled.items() if reader.moment(cell) is not None)
            best, most = (form, n_read) if n_read > most else (best, most)
    return best


def day_first(form: str) -> bool | None:
    """Return whether the day comes before the month; None where the year comes first."""
    return None if form.startswith("Y") else form.startswith("d")


def parts_of(times: Array) -> dict[str, Array]:
    """Return all parts of moments as float64 arrays, NaN for NaT: days since 1970, year, month, weekday (0 is Monday),
    sine and cosine of the day's place in its year, and the hour with its fraction.
    """
    gap = np.isnat(times)
    times = np.where(gap, np.datetime64(0, "us"), times)
    dates, years = times.astype("datetime64[D]"), times.astype("datetime64[Y]")
    first = years.astype("datetime64[D]")
    length = ((years + np.timedelta64(1, "Y")).astype("datetime64[D]") - first).astype(np.int64)
    angle = 2 * np.pi * (dates - first).astype(np.int64) / length
    days = dates.astype(np.int64)
    within = (times - dates).astype(np.int64) / MICROSECONDS_OF_A_DAY
    found = {
        "days": days + within,
        "year": years.astype(np.int64) + 1970,
        "month": times.astype("datetime64[M]").astype(np.int64) % 12 + 1,
        "weekday": (days + 3) % 7,
        "sine": np.sin(angle),
        "cosine": np.cos(angle),
        "hour": within * 24,
    }
    return {name: np.where(gap, np.nan, values.astype(np.float64)) for name, values in found.items()}
