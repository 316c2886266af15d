"""Dates and times as people write them, the one form of a whole column, and the parts that a network gets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache

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
TIME = (
    r"(?:(?:[Tt]|,? )(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?"
    r"(?: ?(?:[Zz]|UTC|GMT|[+-]\d{2}(?::?\d{2})?))?)?"
)
EXAMPLES = {"Y": "2020", "y": "20", "m": "12", "d": "31"}

#: What a network can get of a date, each as one number.
PARTS = ("days", "year", "month", "weekday", "sine", "cosine", "hour")
#: Parts that are taken as they are: from −1 to 1.
WAVES = ("sine", "cosine")
MICROSECONDS_OF_A_DAY = 86_400_000_000


def example(form: str) -> str:
    """Return a date in a form: 31.12.2020."""
    return re.sub("[Yymd]", lambda found: EXAMPLES[found[0]], form)


@cache
def _pattern(form: str) -> re.Pattern[str]:
    parts = "".join(DIGITS.get(each, re.escape(each)) for each in form)
    return re.compile(parts + TIME, re.ASCII)


def moment(cell: Cell, form: str) -> datetime | None:
    """Return the moment that a text names in a form, by its own clock if it has a zone; None if it names none."""
    found = _pattern(form).fullmatch(cell) if isinstance(cell, str) else None
    if found is None:
        return None
    year, hour = int(found["year"]), int(found["hour"] or 0)
    if len(found["year"]) == 2:
        year += 1900 if year >= CENTURY else 2000
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"] in "Pp" else 0)
    fraction = int((found["fraction"] or "0").ljust(6, "0")[:6])
    try:
        return datetime(
            year,
            int(found["month"]),
            int(found["day"]),
            hour,
            int(found["minute"] or 0),
            int(found["second"] or 0),
            fraction,
        )
    except ValueError:
        return None


def moments(cells: Cells, form: str) -> Array:
    """Return the moments of a column's cells as datetime64 in microseconds, NaT where a cell names none.

    Dates as ISO 8601 writes them are read in any form, since Python objects give them so.
    """
    if cells.dates is not None:
        return cells.dates.astype("datetime64[us]")
    different = cells.distinct
    filled = [place for place, cell in enumerate(different) if not is_gap(cell)]
    known = np.full(len(different), np.datetime64("NaT", "us"))
    known[filled] = _moments([different[place] for place in filled], form)
    return np.asarray(known[cells.codes])


def _moments(cells: Sequence[Cell], form: str) -> Array:
    found = _iso_moments(cells)
    if found is None:
        each = (moment(cell, form) or (moment(cell, ISO) if form != ISO else None) for cell in cells)
        found = np.array([*each], "datetime64[us]")
    return found


_PLAIN_ISO = re.compile(r"(?!0000)\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)?", re.ASCII)


def _iso_moments(cells: Sequence[Cell]) -> Array | None:
    """Return the moments of texts that are all such as 2020-12-31T10:00:00, fast; None if there may be others."""
    if not all(isinstance(cell, str) and len(cell) >= 10 and _PLAIN_ISO.fullmatch(cell) for cell in cells):
        return None
    try:
        return np.array(cells, "datetime64[us]")
    except ValueError:
        return None


def forms_of(cells: Cells) -> tuple[str, ...]:
    """Return the forms that read all of a column's values, () if there is no value or none reads them all.

    They are in the order of `FORMS`: of two, such as of 01/02/2020, the first has the month first.
    """
    if cells.dates is not None:
        return (ISO,)
    filled = [cell for cell in cells.distinct if not is_gap(cell)]
    if not filled:
        return ()
    if _iso_moments(filled) is not None:
        return (ISO,)
    likely = [form for form in FORMS if moment(filled[0], form)]  # none, of most columns of texts
    return tuple(form for form in likely if all(moment(cell, form) for cell in filled))


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
    length = ((years + 1).astype("datetime64[D]") - first).astype(np.int64)
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
