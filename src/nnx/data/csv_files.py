"""CSV files as tables: what separates cells, whether there are names, and the rows, block by block."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, compress, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx._base.typing import Array
from nnx.data.cells import Cells
from nnx.data.csv_blocks import RowEnds, after_lines, row_ends, whole_lines
from nnx.data.gathering import Gathered
from nnx.data.notation import looks_like_number
from nnx.data.sheet import Sheet, count
from nnx.data.sources import Source

if TYPE_CHECKING:
    from nnx.data.arrow_csv import Parser

DELIMITERS = "\t;|,"
#: Where spreadsheets say which one it is.
SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
#: Characters that are looked at to find the delimiter.
SAMPLE = 100_000
#: Bytes that are read at a time, and cells that are then taken at a time.
BLOCK, BATCH = 1 << 22, 100_000
#: Rows that are taken at a time at least: each column of each batch has its cost.
LEAST_BATCH = 100
#: Smaller files are read before pyarrow is imported, and wider ones as fast without it.
LEAST_FAST, WIDEST_FAST = 2_000_000, 2_000


@dataclass(frozen=True)
class Layout:
    """How a CSV file is laid out.

    ``names`` are of its columns, ``begins`` is how many lines stand before the first row of cells, ``bytes_of_row`` how
    long the first rows are.
    """

    delimiter: str
    names: tuple[str, ...]
    header: bool
    begins: int
    bytes_of_row: int = 1

    @property
    def width(self) -> int:
        """How many cells a row has."""
        return len(self.names)


def read_csv(source: Source, header: bool | None = None) -> Sheet:
    """Return the cells of a CSV file."""
    layout = layout_of(source, header)
    rows = _Rows(source, layout)
    rows.read(shown=True)
    if not rows.n_rows:
        source.refuse("has no rows below its header")
    rows.check_widths()
    columns = [each.cells(partial(_again, source, layout, place)) for place, each in enumerate(rows.columns)]
    return Sheet(source.where, source.name, layout.names, columns, rows.lines, layout.header, header is None)


def row_blocks(source: Source, layout: Layout, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the rows below the header in blocks of about a size, each after the number of lines that stand before it.

    Blocks can be read one by one only where it is certain what quotes mean.
    """
    blocks = whole_lines(source.text_blocks(size, shown=True))
    rest, line = next(blocks, b""), layout.begins
    begin = after_lines(rest, layout.begins)
    if begin is None:
        source.refuse("cannot be read block by block: its lines have different endings")
    rest = rest[begin:]
    more: Iterable[bytes | None] = chain(blocks, [None])
    for block in more:
        ends = row_ends(rest, layout.delimiter)
        if ends is None or (len(ends.of_rows) == 0 and len(rest) > 4 * size):
            source.refuse(f"cannot be read block by block: after line {line}, quotes stand within cells")
        end = len(rest) if block is None else int(ends.of_rows[-1]) + 1 if len(ends.of_rows) else 0
        if end:
            yield line, rest[:end]
        rest, line = rest[end:] + (block or b""), line + ends.n_lines


def sheet_of_rows(source: Source, layout: Layout, rows: bytes, line: int) -> Sheet | None:
    """Return the cells of rows of a file, before which so many lines stand; None if all lines are blank."""
    part = Source(source.where, io.BytesIO(rows))
    part.name = source.name
    own = replace(layout, begins=0)
    found = _Rows(part, own, before=line)
    found.read()
    if not found.n_rows:
        return None
    found.check_widths()
    columns = [each.cells(partial(_again, part, own, place)) for place, each in enumerate(found.columns)]
    return Sheet(source.where, source.name, layout.names, columns, found.lines, layout.header)


def _again(source: Source, layout: Layout, place: int) -> Cells:
    """Return the cells of one column, each different text kept, from another pass over the file."""
    rows = _Rows(source, layout, place)
    rows.read()
    return rows.columns[0].cells(_never)


def _never() -> Cells:
    raise AssertionError("a column that keeps its texts was to be read again")


# What the first rows say


def layout_of(source: Source, header: bool | None = None) -> Layout:
    """Return how a file is laid out, from its first rows."""
    start = ""
    for block in whole_lines(source.text_blocks(BLOCK)):
        start += source.text(block)
        if len(start) > SAMPLE:
            break
    delimiter = delimiter_of(start)
    stated = int(SEPARATOR_LINE.match(start) is not None)
    rows, before, after = _first_rows(source, delimiter, stated)
    if not rows:
        source.refuse("is empty")
    has_header = _looks_like_header(rows) if header is None else header
    first = rows[0] if has_header else [""] * len(rows[0])
    names = tuple(name or f"column {number}" for number, name in enumerate(first, 1))
    return Layout(
        delimiter, names, has_header, after if has_header else before, max(1, len(start) // max(1, start.count("\n")))
    )


def _first_rows(source: Source, delimiter: str, skip: int) -> tuple[list[list[str]], int, int]:
    """Return the first two rows, and how many lines end before the first and with it."""
    rows: list[list[str]] = []
    before = after = skip
    line = max(skip, 1)
    reader = _reader(source, islice(_lines(source, whole_lines(source.text_blocks(BLOCK))), skip, None), delimiter)
    try:
        for cells in reader:
            row = [cell.strip() for cell in cells]
            line = reader.line_num + skip
            if row and (row != [""] or (rows and len(rows[0]) == 1)):
                rows.append(row)
            if len(rows) == 2:
                break
            if not rows:
                before = after = line
            elif after == before:
                after = line
    except csv.Error as error:
        source.refuse(f"cannot be read as CSV after line {line} ({error})")
    return rows, before, after


def delimiter_of(text: str) -> str:
    """Return the character that splits the first rows evenly; the comma comes last, as it may be within numbers."""
    stated = SEPARATOR_LINE.match(text)
    if stated:
        return stated[1]
    start = text[:SAMPLE].splitlines()
    lines = [line for line in start[: len(start) - (len(text) > SAMPLE)] if line.strip()][:20] or start[:1]
    for delimiter in DELIMITERS:
        try:
            widths = {len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row}
        except csv.Error:  # which reading the rows then tells of
            break
        if len(widths) == 1 and widths != {1}:
            return delimiter
    return max(reversed(DELIMITERS), key=lambda delimiter: sum(line.count(delimiter) for line in lines))


def _looks_like_header(rows: list[list[str]]) -> bool:
    """Return whether the first row holds names: no number and no mark of a missing value.

    If two are the same, they may be texts; they are names if there is a number below any of the row's cells.
    """
    named = [cell for cell in rows[0] if cell]
    if not named or any(map(_is_no_name, named)):
        return False
    below = zip(rows[0], rows[1] if len(rows) > 1 else [], strict=False)
    return len(set(named)) == len(named) or any(name and looks_like_number(cell) for name, cell in below)


def _is_no_name(cell: str) -> bool:
    return looks_like_number(cell) or cell in ("?", "-", "--", ".")


# The rows


def _reader(source: Source, lines: Iterable[str], delimiter: str) -> Any:
    try:
        if delimiter == '"':
            raise ValueError("quotes stand around cells")
        return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    except (TypeError, ValueError):
        source.refuse(f"names {delimiter!r} as what separates cells, which cannot")


def _lines(source: Source, blocks: Iterable[bytes]) -> Iterator[str]:
    for block in blocks:
        yield from io.StringIO(source.text(block), newline="")


class _Rows:
    """Gathers the cells of all columns, or of one with all its texts.

    Where pyarrow is installed, it splits blocks whose every character means the same to it and to Python's reader.
    All other blocks are read by Python's, and so is the rest of the file once quotes stand where they should not.
    """

    def __init__(self, source: Source, layout: Layout, only: int | None = None, before: int = 0) -> None:
        self.source, self.layout, self.only = source, layout, only
        self._before = before  # lines of the file before those of the source
        expected = source.size // max(layout.bytes_of_row, 2 * layout.width)
        columns = range(layout.width) if only is None else [only]
        self.columns = [Gathered(only is not None, expected) for _ in columns]
        self.n_rows = self.n_odd = 0
        self._first_odd = (0, 0)
        self._line = 0
        self._ends: list[Array] = []
        self._blank: list[int] = []

    def read(self, *, shown: bool = False) -> None:
        """Read all rows."""
        parser = self._parser()
        blocks = whole_lines(self.source.text_blocks(BLOCK, shown=shown))
        if parser is None:
            return self._read_plainly(blocks, self.layout.begins)
        first = next(blocks)
        begin = after_lines(first, self.layout.begins)
        if begin is None:
            return self._read_plainly(chain([first], blocks), self.layout.begins)
        self._line, rest = self.layout.begins, first[begin:]
        for block in chain([b""], blocks):
            rest += block
            ends = row_ends(rest, self.layout.delimiter)
            if ends is None or (len(ends.of_rows) == 0 and len(rest) > 4 * BLOCK):
                return self._read_plainly(chain([rest], blocks))
            end = ends.of_rows[-1] + 1 if len(ends.of_rows) else 0
            self._read_fast(parser, rest[:end], ends)
            rest = rest[end:]
        return self._read_plainly([rest])

    def _parser(self) -> Parser | None:
        layout = self.layout
        fast = self.source.size >= LEAST_FAST and 1 < layout.width <= WIDEST_FAST and layout.delimiter in DELIMITERS
        if not fast or importlib.util.find_spec("pyarrow") is None:
            return None
        from nnx.data.arrow_csv import Parser

        return Parser(layout.delimiter, layout.width, self.only)

    # With pyarrow

    def _read_fast(self, parser: Parser, block: bytes, ends: RowEnds) -> None:
        columns = parser.columns(block, ends) if block else []
        if columns is None:
            return self._read_plainly([block])
        if not self.n_odd:
            for gathered, column in zip(self.columns, columns, strict=False):
                parser.add(column, gathered)
        self._ends.append(self._line + ends.lines)
        self._line += ends.n_lines
        self.n_rows += len(ends.of_rows)
        return None

    # With Python's own reader

    def _read_plainly(self, blocks: Iterable[bytes], skip: int = 0) -> None:
        before = self._line + skip
        reader = _reader(self.source, islice(_lines(self.source, blocks), skip, None), self.layout.delimiter)
        most = max(LEAST_BATCH, BATCH // self.layout.width)
        rows: list[list[str]] = []
        ends: list[int] = []
        self._line = before
        try:
            for cells in reader:
                rows.append(cells)
                ends.append(before + reader.line_num)
                if len(rows) == most:
                    self._add(rows, ends)
                    rows, ends = [], []
        except csv.Error as error:
            line = max(ends[-1] if ends else self._line, 1)
            self.source.refuse(f"cannot be read as CSV after line {line + self._before} ({error})")
        if rows:
            self._add(rows, ends)
        self._line = before + reader.line_num

    def _add(self, rows: list[list[str]], ends: list[int]) -> None:
        """Take rows, each with its last line. Blank ones are skipped; in a single column they are missing values."""
        self._line = ends[-1]
        width = self.layout.width
        if width == 1:
            rows, ends = self._with_gaps(rows, ends)
        if {*map(len, rows)} != {width}:
            filled = [len(row) > 1 or (row != [] and (width == 1 or row[0].strip() != "")) for row in rows]
            rows, ends = [*compress(rows, filled)], [*compress(ends, filled)]
            self._note_odd(rows, ends)
        if rows and not self.n_odd:
            cells = zip(*rows, strict=True) if self.only is None else [[row[self.only] for row in rows]]
            for gathered, column in zip(self.columns, cells, strict=True):
                gathered.add(column)
            self._ends.append(np.array(ends))
        self.n_rows += len(rows)

    def _note_odd(self, rows: list[list[str]], ends: list[int]) -> None:
        odd = [number for number, row in enumerate(rows) if len(row) != self.layout.width]
        if odd and not self.n_odd:
            self._first_odd = ends[odd[0]], len(rows[odd[0]])
        self.n_odd += len(odd)

    def _with_gaps(self, rows: list[list[str]], ends: list[int]) -> tuple[list[list[str]], list[int]]:
        """Return the rows of a single column with the blank lines between them, which may be of an earlier batch."""
        all_rows: list[list[str]] = []
        all_ends: list[int] = []
        for row, end in zip(rows, ends, strict=True):
            if not row:
                self._blank.append(end)
                continue
            all_rows += [[""] for _ in self._blank] + [row]
            all_ends += [*self._blank, end]
            self._blank = []
        return all_rows, all_ends

    # What comes of it

    def check_widths(self) -> None:
        """Refuse rows that have more or fewer cells than the first."""
        if self.n_odd:
            line, width = self._first_odd
            differ = "differs" if self.n_odd == 2 else "differ"
            more = f". {count(self.n_odd - 1, 'other line')} {differ} from it too" if self.n_odd > 1 else ""
            reason = f"has {count(width, 'cell')}, and the first row has {self.layout.width}{more}"
            self.source.refuse(reason, f", line {line + self._before},")

    @property
    def lines(self) -> Sequence[int] | Array:
        """The lines in which the rows end."""
        ends = np.concatenate(self._ends) + self._before
        if ends[-1] - ends[0] == len(ends) - 1:
            return range(int(ends[0]), int(ends[-1]) + 1)
        return ends
