"""The order of names as people sort them, "2" before "10"; values and the nearest allowed names in messages."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

#: Longer texts are cut in messages.
LONGEST_SHOWN = 60
#: Names are near from this similarity on, which is from 0 to 1. Two letters of four may have changed places.
NEAR = 0.75
#: No more names are looked through, as each takes some microseconds.
MOST_NAMES = 2000
DIGITS = re.compile(r"(\d+)")


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return the key of the natural order: "2" before "10", "img9" before "img10", small letters beside capitals."""
    parts = [(0, int(part)) if _counts(part) else (1, part.casefold()) for part in DIGITS.split(name) if part]
    return (*parts, (2, name))


def _counts(part: str) -> bool:
    """Return whether a part of a name is a number. Python refuses to read one with thousands of digits."""
    return part.isdecimal() and len(part) <= 100


def natural_order(names: Sequence[str]) -> list[int]:
    """Return the positions of names in the order in which they are shown.

    If names are in the order of their letters, a program sorted them, so they get their natural order. Any other order,
    such as "low", "medium", "high", was a person's choice, and stays.
    """
    positions = list(range(len(names)))
    if list(names) != sorted(names):
        return positions
    return sorted(positions, key=lambda position: natural_key(names[position]))


def abridged(value: Any) -> str:
    """Return what an argument is, on one line and never the whole of a large one."""
    if type(value).__module__.partition(".")[0] in ("pandas", "polars", "numpy") and getattr(value, "shape", None):
        return f"a {type(value).__name__} of shape {value.shape}"
    return " ".join(_BRIEF.repr(value).split())


def near(allowed: Iterable[Any], *given: Any) -> str:
    """Return a message's last sentence, " Did you mean 'adam'?", for given names that are not allowed.

    It names the nearest of the allowed names for each that has one. If none has, it is "". Names with different digits
    are never near: "float32" is not a misspelt "float64".
    """
    import difflib  # here, because importing it takes time, and most programs have no error to tell

    names = {name.casefold(): name for name in islice(allowed, MOST_NAMES) if isinstance(name, str) and _is_short(name)}
    found = []
    for word in (each.casefold() for each in given if isinstance(each, str) and _is_short(each)):
        alike = [name for name in names if DIGITS.findall(name) == DIGITS.findall(word)]
        found += [names[name] for name in difflib.get_close_matches(word, alike, 1, NEAR)]
    return f" Did you mean {' and '.join(map(repr, dict.fromkeys(found)))}?" if found else ""


def _is_short(name: str) -> bool:
    """Return whether comparing a name takes little time, which grows with the square of its length."""
    return len(name) <= LONGEST_SHOWN


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = LONGEST_SHOWN
