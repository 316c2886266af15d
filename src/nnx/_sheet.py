"""CSV files as they are: cells of text in named columns, with the lines that they stand in."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from nnx import _check
from nnx._typing import Path
from nnx.errors import DataFileError

#: Cells that hold nothing, in any case of letters.
GAPS = frozenset({"", "?", "na", "n/a", "#n/a", "nan", "null"})
#: Numbers up to this size have squares and sums that doubles can hold.
LARGEST = 1e100
#: What is a number to a person, but not here.
DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)+")
#: Longer cells are cut in messages.
LONGEST_SHOWN = 60
DELIMITERS = "\t;|,"
#: Where spreadsheets say which one it is.
SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
#: Characters that are looked at to find the delimiter.
SAMPLE = 100_000


class Sheet:
    """A CSV file's cells as text, with the columns' names and the rows' lines.

    Attributes
    ----------
    names : list of str
        Of the columns.
    header : bool
        Whether the file begins with them.
    rows : list of lists of str
        Cells, without blanks around them.
    lines : list of int
        Where in the file each row ends.
    """

    def __init__(self, where: str, path: Path, header: bool | None) -> None:
        self.where = where
        self.path = _check.path(where, "path", path)
        self.rows: list[list[str]] = []
        self.lines: list[int] = []
        self._guessed = header is None
        self._read(self._text())
        if not self.rows:
            self.refuse("is empty")
        self.header = _looks_like_header(self.rows[0]) if header is None else _check.flag(where, "header", header)
        names = self.rows[0] if self.header else [""] * len(self.rows[0])
        self.names = [name or f"column {number}" for number, name in enumerate(names, 1)]
        if self.header:
            del self.rows[0], self.lines[0]
        self._check_shape()

    def _read(self, text: str) -> None:
        """Split the text into rows. Blank lines are none, but within a table of one column they are gaps."""
        delimiter, line, blank = _delimiter(text), 1, []
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
            for cells in reader:
                line = reader.line_num
                row = [] if line == 1 and SEPARATOR_LINE.match(text) else [cell.strip() for cell in cells]
                single = self.rows and len(self.rows[0]) == 1
                if single and not row:
                    blank.append(line)
                elif row and (row != [""] or single):
                    self.rows += [[""] for _ in blank] + [row]
                    self.lines += [*blank, line]
                    blank = []
        except csv.Error as error:
            self.refuse(f"cannot be read as CSV after line {line} ({error})")

    def _text(self) -> str:
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as file:
                return file.read()
        except UnicodeDecodeError:
            self.refuse("is not text in UTF-8. Save it as CSV with that encoding")
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.where}: there is no file {self.path!r}.") from None
        except IsADirectoryError:
            raise IsADirectoryError(f"{self.where}: {self.path!r} is a folder, not a CSV file.") from None

    def _check_shape(self) -> None:
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        if twice:
            self.refuse(f"has two columns {shown(twice[0])}")
        if not self.rows:
            self.refuse("has no rows below its header")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.names):
                self.refuse(f"has {count(len(row), 'cell')}, and the first row has {len(self.names)}", number)

    def name_of(self, role: str, given: Any) -> str:
        """Return the name of a column that is given by its name or its position."""
        if isinstance(given, str) and given in self.names:
            return given
        by_place = isinstance(given, int | np.integer) and not isinstance(given, bool)
        if not by_place or not -len(self.names) <= given < len(self.names):
            self.refuse(f"has no column {given!r} for {role}. Its columns are {listed(self.names)}")
        return str(self.names[int(given)])

    def column(self, place: int) -> list[str]:
        """Return a column's cells."""
        return [row[place] for row in self.rows]

    def refuse_gaps(self, place: int) -> None:
        """Refuse the first gap in a column."""
        for row, cell in enumerate(self.column(place)):
            if is_gap(cell):
                self.refuse(f"has a gap ({cell!r}) in column {shown(self.names[place])}", row)

    def refuse(self, reason: str, row: int | None = None) -> NoReturn:
        """Raise the error that says what is wrong, and in which line of the file."""
        line = "" if row is None else f", line {self.lines[row]},"
        if self._guessed and not row and not getattr(self, "header", True):
            reason += ". The first row was not taken for names; if it holds them: header=True in Python, --header on "
            reason += "the command line"
        raise DataFileError(f"{self.where}: {self.path!r}{line} {reason}.")


def _delimiter(text: str) -> str:
    """Return the character that splits the first rows evenly; the comma comes last, as it may be within numbers."""
    stated = SEPARATOR_LINE.match(text)
    if stated:
        return stated[1]
    start = text[:SAMPLE].splitlines()
    lines = [line for line in start[: len(start) - (len(text) > SAMPLE)] if line.strip()][:20] or start[:1]
    for delimiter in DELIMITERS:
        widths = {len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row}
        if len(widths) == 1 and widths != {1}:
            return delimiter
    return max(reversed(DELIMITERS), key=lambda delimiter: sum(line.count(delimiter) for line in lines))


def _looks_like_header(row: list[str]) -> bool:
    """Return whether a first row holds names: no number, no mark of a gap, and nothing twice."""
    named = [cell for cell in row if cell]
    return bool(named) and len(set(named)) == len(named) and all(map(_may_be_a_name, named))


def _may_be_a_name(cell: str) -> bool:
    return number(cell) is None and cell != "?" and not DECIMAL_COMMA.fullmatch(cell)


# Cells


def is_gap(cell: str) -> bool:
    """Return whether a cell holds nothing."""
    return cell.lower() in GAPS


def number(cell: str) -> float | None:
    """Return a cell's number; None if it is none, or a size beyond use."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST and "_" not in cell else None


def listed(names: Sequence[str], most: int = 12) -> str:
    """Return names with commas between them, not too many."""
    rest = len(names) - most
    plain = (name if name.isprintable() and len(name) <= LONGEST_SHOWN else shown(name) for name in names[:most])
    return ", ".join(plain) + (f" and {rest:,} more" if rest > 0 else "")


def count(number: int, thing: str) -> str:
    """Return "1 row" or "1,000 rows"."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def shown(cell: str) -> str:
    """Return a cell in quotes, on one line and not too long."""
    return repr(cell if len(cell) <= LONGEST_SHOWN else cell[:LONGEST_SHOWN] + "...")
