"""Tables as they are given: cells in named columns, and where each row stands. Here, those of CSV files."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np

from nnx._base import check
from nnx._base.text import LONGEST_SHOWN, abridged
from nnx._base.typing import Array
from nnx.data.cells import cells_of
from nnx.data.notation import PLAIN, Cell, Notation, looks_like_number
from nnx.errors import DataFileError

DELIMITERS = "\t;|,"
#: Where spreadsheets say which one it is.
SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
#: Characters that are looked at to find the delimiter.
SAMPLE = 100_000
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

    def refuse(self, reason: str, row: int | None = None) -> NoReturn:
        """Raise the error that says what is wrong, and in which line of the file."""
        place = "" if row is None else f", {self.place_of(row)},"
        raise DataFileError(f"{self.where}: {self.source}{place} {reason}{self.hint(row)}.")

    def hint(self, row: int | None = None) -> str:
        """Return what may be behind an error, above all in the first row: that it was not taken for names."""
        return NO_HEADER if self._guessed and not row and not self.header else ""


# CSV files


def read_csv(where: str, file: Any, header: bool | None) -> Sheet:
    """Return the cells of a CSV file, which is given by its name or open for reading."""
    if header is not None:
        check.flag(where, "header", header)
    if hasattr(file, "read"):
        name = getattr(file, "name", None)
        source = {"<stdin>": "standard input"}.get(name, repr(name)) if isinstance(name, str) else "the open file"
    elif isinstance(file, str | os.PathLike | bytes):
        source = repr(check.path(where, "path", file))
    else:
        raise TypeError(f"{where}: path must be the name of a file or folder, got {abridged(file)}.")
    return _Reader(where, source).sheet(_text(where, source, file), header)


def _text(where: str, source: str, file: Any) -> str:
    try:
        if hasattr(file, "read"):
            content = file.read()
            return str(content, "utf-8-sig") if isinstance(content, bytes) else str(content).removeprefix("\ufeff")
        with open(file, encoding="utf-8-sig", newline="") as opened:
            return opened.read()
    except UnicodeDecodeError:
        raise DataFileError(f"{where}: {source} is not text in UTF-8. Save it as CSV with that encoding.") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{where}: {source} is a folder, not a CSV file.") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG or (error.errno == errno.ENOENT and "\n" in os.fspath(file)):
            raise ValueError(
                f"{where}: path must be a file's name, got {abridged(file)}. Wrap a table's text in io.StringIO(...)."
            ) from None
        if error.errno == errno.ENOENT:
            raise FileNotFoundError(f"{where}: there is no file {source}.") from None
        raise


class _Reader:
    """Splits text into rows and columns."""

    def __init__(self, where: str, source: str) -> None:
        self.where, self.source = where, source
        self.rows: list[list[str]] = []
        self.lines: list[int] = []

    def sheet(self, text: str, header: bool | None) -> Sheet:
        """Return the columns of a text."""
        self._read(text)
        if not self.rows:
            self._refuse("is empty")
        has_header = _looks_like_header(self.rows) if header is None else bool(header)
        first = self.rows[0] if has_header else [""] * len(self.rows[0])
        names = [name or f"column {number}" for number, name in enumerate(first, 1)]
        if has_header:
            del self.rows[0], self.lines[0]
        if not self.rows:
            self._refuse("has no rows below its header")
        self._check_widths(len(names), NO_HEADER if header is None and not has_header else "")
        columns = list(zip(*self.rows, strict=True))
        return Sheet(self.where, self.source, names, columns, self.lines, has_header, header is None)

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
            self._refuse(f"cannot be read as CSV after line {line} ({error})")

    def _check_widths(self, width: int, hint: str) -> None:
        odd = [number for number, row in enumerate(self.rows) if len(row) != width]
        if odd:
            cells = count(len(self.rows[odd[0]]), "cell")
            differ = "differs" if len(odd) == 2 else "differ"
            more = f". {count(len(odd) - 1, 'other line')} {differ} from it too" if len(odd) > 1 else ""
            more += hint if odd[0] == 0 else ""
            self._refuse(f"has {cells}, and the first row has {width}{more}", f", line {self.lines[odd[0]]},")

    def _refuse(self, reason: str, place: str = "") -> NoReturn:
        raise DataFileError(f"{self.where}: {self.source}{place} {reason}.")


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


def _looks_like_header(rows: list[list[str]]) -> bool:
    """Return whether the first row holds names: no number and no mark of a gap.

    If two are the same, they may be texts; they are names if there is a number below any of the row's cells.
    """
    named = [cell for cell in rows[0] if cell]
    if not named or any(map(_is_no_name, named)):
        return False
    below = zip(rows[0], rows[1] if len(rows) > 1 else [], strict=False)
    return len(set(named)) == len(named) or any(name and looks_like_number(cell) for name, cell in below)


def _is_no_name(cell: str) -> bool:
    return looks_like_number(cell) or cell in ("?", "-", "--", ".")


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
