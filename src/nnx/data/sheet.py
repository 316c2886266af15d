"""Tables as they are given: cells in named columns, and where each row stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from nnx._base.text import LONGEST_SHOWN, near
from nnx._base.typing import Array
from nnx.data.cells import cells_of
from nnx.data.notation import PLAIN, Cell, Notation
from nnx.errors import DataFileError

NO_HEADER = (
    ". The first row was not taken for names; if it holds them: header=True in Python, --header on the command line"
)


class Sheet:
    """The cells of a table, with the columns' names.

    Attributes
    ----------
    where, source : str
        The function that errors name, and the file or the kind of object that the cells come from.
    names : list of str
        Of the columns.
    columns : list of Cells
        Their cells, which may be given as any sequences: texts without blanks around them, or numbers of an object.
    lines : sequence of int, or None
        Where in the file each row ends; None for a Python object, whose rows are counted from 0.
    header : bool
        Whether the file begins with the columns' names.
    n_left_out, n_unknown : int
        Rows that were left out since, and unknown texts that were taken as missing values.
    """

    def __init__(
        self,
        where: str,
        source: str,
        names: Sequence[str],
        columns: Sequence[Sequence[Cell]],
        lines: Sequence[int] | Array | None = None,
        header: bool = True,
        guessed: bool = False,
    ) -> None:
        self.where, self.source, self.header, self._guessed = where, source, header, guessed
        self.names = list(names)
        self.columns = [cells_of(column) for column in columns]
        self.lines = lines
        self.n_rows = len(columns[0]) if columns else 0
        self.n_left_out = self.n_unknown = 0
        self.places = {name: place for place, name in enumerate(self.names)}
        if len(self.places) < len(self.names):
            twice = [name for name, times in Counter(self.names).items() if times > 1]
            self.refuse(f"has two columns {' and two columns '.join(map(shown, twice[:5]))}")

    def add(self, column: Sequence[Cell]) -> None:
        """Add the cells of the next of the named columns."""
        self.columns.append(cells_of(column))
        self.n_rows = len(column)

    def name_of(self, given: Any) -> str | None:
        """Return the name of a column that is given by its name or its position; None if there is no such column."""
        if isinstance(given, str) and given in self.places:
            return given
        by_place = isinstance(given, int | np.integer) and not isinstance(given, bool)
        if not by_place or not -len(self.names) <= given < len(self.names):
            return None
        return self.names[int(given)]

    def numbers(self, place: int, notation: Notation = PLAIN) -> Array:
        """Return a column's numbers in a notation, NaN where a cell is none."""
        return self.columns[place].numbers(notation)

    def leave_out(self, rows: Iterable[int]) -> None:
        """Leave rows out."""
        kept = np.ones(self.n_rows, np.bool_)
        kept[[*rows]] = False
        if kept.all():
            return
        chosen = np.flatnonzero(kept)
        self.columns = [column.take(chosen) for column in self.columns]
        if self.lines is not None:
            self.lines = np.asarray(self.lines)[chosen]
        self.n_left_out += self.n_rows - len(chosen)
        self.n_rows = len(chosen)

    def place_of(self, row: int) -> str:
        """Return where a row stands."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"

    def refuse(self, reason: str, row: int | None = None, advice: str = "") -> NoReturn:
        """Raise the error that says what is wrong, and in which line of the file; ``advice`` is its last sentence."""
        place = "" if row is None else f", {self.place_of(row)},"
        raise DataFileError(f"{self.where}: {self.source}{place} {reason}{self.hint(row)}.{advice}")

    def refuse_columns(self, told: str, *given: Any) -> NoReturn:
        """Refuse columns that the file does not have: ``told`` names them.

        The message lists the columns that it has, and for each of the ``given`` names the nearest.
        """
        self.refuse(f"has {told}. Its columns are {listed(self.names)}", advice=near(self.names, *given))

    def hint(self, row: int | None = None) -> str:
        """Return what may be behind an error, above all in the first row: that it was not taken for names."""
        return NO_HEADER if self._guessed and not row and not self.header else ""


# Words of messages


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names with commas between them, not too many."""
    rest = len(names) - most
    plain = (name if name.isprintable() and len(name) <= LONGEST_SHOWN else shown(name) for name in names[:most])
    return ", ".join(plain) + (f" and {rest:,} more" if rest > 0 else "")


def count(number: int, thing: str) -> str:
    """Return "1 row" or "1,000 rows"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def shown(cell: Cell) -> str:
    """Return a cell in quotes, on one line and not too long."""
    text = str(cell)
    return repr(text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "...")
