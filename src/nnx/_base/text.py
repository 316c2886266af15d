"""How names are sorted, as people do, "2" before "10"; and how a value is printed in a message."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import Any

#: Longer texts are cut in messages.
LONGEST_SHOWN = 60
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


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = LONGEST_SHOWN
