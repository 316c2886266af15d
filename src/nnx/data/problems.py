"""All that is wrong with a table, collected and told in one message, with the arguments that get round it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnx.data.sheet import Sheet
from nnx.errors import DataFileError

#: A message tells no more problems than this one by one.
MOST_TOLD = 20
#: What can be done about a problem: arguments of `load_csv` that take a list of columns, and others with their value.
OF_COLUMNS = ("drop", "text")
VALUES = {"gaps": "fill", "unknown": "missing", "task": "classification"}
#: The cure of a problem that only another target solves.
TARGET = "target"


@dataclass(frozen=True)
class Problem:
    """Something wrong in a column, and the argument that gets round it."""

    reason: str
    place: str = ""
    column: str = ""
    cure: str = ""


class TableError(DataFileError):
    """Tells of all problems of a table.

    Attributes
    ----------
    told : str
        The message without the function that says it and without advice.
    problems : tuple of Problem
    """

    told: str
    problems: tuple[Problem, ...]


class Problems:
    """Collects the problems of a sheet."""

    def __init__(self, sheet: Sheet) -> None:
        self.sheet = sheet
        self.found: list[Problem] = []
        self._hint = ""

    def add(self, reason: str, row: int | None = None, column: str = "", cure: str = "") -> None:
        """Note a problem."""
        place = "" if row is None else self.sheet.place_of(row)
        self.found.append(Problem(reason, place, column, cure))
        self._hint = self._hint or ("" if row is None else self.sheet.hint(row))

    def take(self, others: Problems) -> None:
        """Note the problems that another collection holds, which has none then."""
        self.found += others.found
        self._hint = self._hint or others._hint
        others.found = []

    def refuse(self) -> None:
        """Raise an error that tells of all of them, if there are any."""
        if self.found:
            error = TableError(f"{self.sheet.where}: {self.told()}{_advice(self.found)}")
            error.told, error.problems = self.told(), tuple(self.found)
            raise error

    def told(self) -> str:
        """Return the problems as text: one in a sentence, more in a list."""
        if len(self.found) == 1:
            place = f", {self.found[0].place}," if self.found[0].place else ""
            return f"{self.sheet.source}{place} {self.found[0].reason}{self._hint}."
        lines = [f"{each.place}: {each.reason}" if each.place else each.reason for each in self.found[:MOST_TOLD]]
        if len(self.found) > MOST_TOLD:
            lines.append(f"and {len(self.found) - MOST_TOLD:,} more")
        hint = f"{self._hint.removeprefix('. ')}.\n" if self._hint else ""
        listed = "".join(f"  {line}\n" for line in lines)
        return f"{self.sheet.source} has {len(self.found):,} problems:\n{listed}{hint}"


def _advice(problems: Sequence[Problem]) -> str:
    """Return what to pass to the function in Python."""
    found = arguments(problems)
    advice = ["Choose another target."] * any(each.cure == TARGET for each in problems)
    if found:
        told = ", ".join(f"{name}={value!r}" for name, value in found.items())
        advice.append(f"Pass {told}{' to take such texts for missing values' if [*found] == ['unknown'] else ''}.")
    return ("" if len(problems) > 1 else " ") * bool(advice) + " ".join(advice)


def arguments(problems: Sequence[Problem]) -> dict[str, Any]:
    """Return the arguments that get round all problems that have such, as Python takes them."""
    found: dict[str, Any] = {}
    for name in OF_COLUMNS:
        columns = list(dict.fromkeys(each.column for each in problems if each.cure == name))
        if columns:
            found[name] = columns
    return found | {name: value for name, value in VALUES.items() if any(each.cure == name for each in problems)}
