"""What a caller says of a table: the columns' roles, and which of its rows are for what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.text import LONGEST_SHOWN, abridged
from nnx._base.typing import Array
from nnx.data.notation import is_gap
from nnx.data.problems import Problems
from nnx.data.records import sheet_of
from nnx.data.sheet import Sheet, count, shown
from nnx.data.table_files import read_sheet

#: A message lists no more columns that are not there than this.
MOST_MISSING = 12


@dataclass(frozen=True)
class Roles:
    """What a caller says of the columns, by their names, and of their cells."""

    target: str
    task: str | None = None
    as_text: Collection[str] = ()
    dropped: Collection[str] = ()
    refuse_gaps: bool = False
    decimal: str | None = None

    def is_text(self, name: str) -> bool:
        """Return whether a column is to be taken as text."""
        return name in self.as_text or (name == self.target and self.task == "classification")


def check_choices(where: str, task: str | None, gaps: str, decimal: str | None, progress: bool) -> None:
    """Refuse arguments that cannot be, before a file is read."""
    check.one_of(where, "task", task, (None, "classification", "regression"))
    check.one_of(where, "gaps", gaps, ("fill", "refuse"))
    check.one_of(where, "decimal", decimal, (None, ".", ","))
    check.flag(where, "progress", progress)


def read_table(where: str, data: Any, header: bool | None, encoding: str | None, progress: bool) -> Sheet:
    """Return the cells of a table; `load_csv` reads files only, or what has been read of one."""
    is_file = where == "load_csv" and not isinstance(data, Sheet)
    sheet = (read_sheet if is_file else sheet_of)(where, data, header, encoding, progress)
    sheet.where = where
    return sheet


def roles_of(
    sheet: Sheet,
    target: str | int,
    task: str | None,
    text: Collection[str | int],
    drop: Collection[str | int],
    gaps: str,
    decimal: str | None,
) -> Roles:
    """Return what is said of a table's columns; refuse columns that are not there or have two roles."""
    where = sheet.where
    (name,), as_text, dropped = names_of(sheet, target=[target], text=text, drop=drop)
    check_roles(where, as_text, dropped)
    if name in dropped:
        raise ValueError(f"{where}: drop must not hold the target, got {name!r}.")
    if name in as_text and task == "regression":
        raise ValueError(f"{where}: text must not hold the target of a regression, got {name!r}.")
    task = "classification" if name in as_text else task
    return Roles(name, task, as_text, dropped, gaps == "refuse", decimal)


def names_of(sheet: Sheet, **given: Any) -> list[set[str]]:
    """Return the names of the columns that are given for each role by their names or positions."""
    unknown: list[Any] = []
    told, found = [], []
    for role, each in given.items():
        if isinstance(each, str) or not isinstance(each, Collection):
            raise TypeError(
                f"{sheet.where}: {role} must be a list of names, got {abridged(each)}.{_in_brackets(sheet, each)}"
            )
        names = [sheet.name_of(one) for one in each]
        strangers = [one for one, name in zip(each, names, strict=True) if name is None]
        unknown += strangers
        told += [f"no column {abridged(one)} for {role}" for one in strangers]
        found.append({name for name in names if name is not None})
    if unknown:
        more = ", ..." if len(unknown) > MOST_MISSING else ""
        sheet.refuse_columns(f"{', '.join(told[:MOST_MISSING])}{more}", *unknown[:MOST_MISSING])
    return found


def check_roles(where: str, as_text: set[str], dropped: set[str]) -> None:
    """Refuse columns that are to be taken as text and to be left out."""
    if as_text & dropped:
        raise ValueError(f"{where}: drop must not hold a column that text holds, got {shown(min(as_text & dropped))}.")


def _in_brackets(sheet: Sheet, given: Any) -> str:
    """Return how a list is written that was given as one text, with commas between names."""
    if not isinstance(given, str) or len(given) >= LONGEST_SHOWN:
        return ""
    names = [given] if sheet.name_of(given) else [name.strip() for name in given.split(",")]
    return f" Write {names!r}."


def split_rows(sheet: Sheet, test_size: float, seed: int, problems: Problems) -> tuple[Array, Array]:
    """Return the training rows and the test rows, both in a drawn order."""
    n_test = round(sheet.n_rows * test_size)
    if test_size and not 0 < n_test < sheet.n_rows:
        problems.add(f"has {count(sheet.n_rows, 'row')}, too few to keep a fraction of {test_size} for testing")
    order = np.random.RandomState(seed).permutation(sheet.n_rows)
    return order[n_test:], order[:n_test]


def checked_rows(where: str, rows: Any, n_rows: int) -> Array:
    """Return the positions of training rows, which are given as such or as flags."""
    if rows is None:
        return np.arange(n_rows)
    given = check.plain(where, "training_rows", rows)
    if given.dtype == np.bool_ and given.shape == (n_rows,):
        given = np.flatnonzero(given)
    if given.ndim != 1 or given.dtype.kind not in "iu" or len(given) == 0:
        raise ValueError(f"{where}: training_rows must be positions of rows, one at least, got {abridged(rows)}.")
    if given.min() < 0 or given.max() >= n_rows:
        wrong = int(given.min() if given.min() < 0 else given.max())
        raise ValueError(f"{where}: training_rows must be positions from 0 to {n_rows - 1}, got {wrong}.")
    return given.astype(np.intp)


def positions_without(rows: Array, out: Array, n_rows: int) -> Array:
    """Return the positions that rows have when others are left out."""
    kept = np.ones(n_rows, np.bool_)
    kept[out] = False
    return np.asarray((np.cumsum(kept) - 1)[rows[kept[rows]]])


def rows_without(sheet: Sheet, place: int, known: Collection[str] = ()) -> Array:
    """Return the rows without a value in a column.

    Marks of a gap that are ``known`` classes, as in tables of older versions, are values.
    """
    cells = sheet.columns[place]
    gaps = cells.gaps
    if any(map(is_gap, known)):
        gaps = gaps & ~np.array([cell in known for cell in cells.distinct], np.bool_)[cells.codes]
    return np.flatnonzero(gaps)
