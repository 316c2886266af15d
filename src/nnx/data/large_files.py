"""CSV files that are larger than memory: their columns learnt, and all rows encoded into a temporary file.

A file is read three times, block by block: to find out what its columns are, to learn what all rows tell of them, and
to encode the rows.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from nnx._base import config
from nnx._base.typing import Array
from nnx.data.columns import Ignored, Number, Text
from nnx.data.csv_files import layout_of, row_blocks, sheet_of_rows
from nnx.data.learning import MAX_CATEGORIES, in_order
from nnx.data.notation import is_gap
from nnx.data.roles import rows_without
from nnx.data.sheet import Sheet, shown
from nnx.data.sources import Source
from nnx.data.streams import Blocks
from nnx.data.tables import Table

#: Bytes of text that are read at a time: at most, at least, and as a part of the memory that may be used.
MOST_TEXT, LEAST_TEXT, PART_OF_LIMIT = 1 << 22, 1 << 14, 64
#: What a sheet takes in memory at most, while a table is learnt from it, in bytes of its text.
TAKEN = 16
#: The part of that memory which the rows that are kept in it may take: those to test on, and some to train on.
KEPT = 0.125
#: Rows to train on that are kept in memory for figures and pictures, at most.
MAX_SHOWN = 20_000


class Encoded(NamedTuple):
    """A file's rows as networks take them.

    Attributes
    ----------
    blocks : Blocks
        All rows to train on.
    X, y : arrays
        Some of them, drawn at random.
    X_test, y_test : arrays
        Rows that are not among them.
    n_bytes : int
        The size of the temporary file.
    """

    blocks: Blocks
    X: Array
    y: Array
    X_test: Array
    y_test: Array
    n_bytes: int


class LargeFile:
    """A CSV file that is read block by block.

    Parameters
    ----------
    where : str
        The function that errors name.
    path : str
    header, encoding
        As of `load_csv`.
    limit : int
        Bytes of memory that may be used, about.

    Attributes
    ----------
    names : list of str
        Of its columns.
    n_learnt : int
        How many rows `learn` has looked at.
    """

    def __init__(self, where: str, path: str, header: bool | None, encoding: str | None, limit: int) -> None:
        self._source = Source(where, path, encoding, progress=True)
        self._layout = layout_of(self._source, header)
        self._limit = limit
        self._size = int(min(MOST_TEXT, max(LEAST_TEXT, limit // PART_OF_LIMIT)))
        self.names = Sheet(where, self._source.name, self._layout.names, []).names
        self.n_learnt = 0
        self._n_expected = max(1, self._source.size // self._layout.bytes_of_row)

    def learn(self, how: dict[str, Any], test_size: float, seed: int) -> Table:
        """Return what is learnt of the columns: their kinds from blocks all over the file, all else from all rows.

        Rows are drawn to test on, this part or as many as memory allows; means and scales are not of these.
        """
        n_blocks = max(1, self._source.size // self._size)
        n_read = max(1, min(n_blocks, self._limit // TAKEN // self._size))
        chosen = set((np.arange(n_read) * n_blocks // n_read).tolist())
        text: list[bytes] = []
        lines: list[Array] = []
        for number, (line, rows) in enumerate(row_blocks(self._source, self._layout, self._size)):
            if number in chosen:
                text.append(rows if rows.endswith(b"\n") else rows + b"\n")
                lines.append(line + np.arange(1, text[-1].count(b"\n") + 1))
        sheet = sheet_of_rows(self._source, self._layout, b"".join(text), 0)
        if sheet is None:
            self._source.refuse("has no rows below its header")
        sheet.lines = np.concatenate(lines)[np.asarray(sheet.lines) - 1]  # of the file, not of these rows
        self.n_learnt = sheet.n_rows
        table = Table.learn(sheet, **how)
        n_kept = int(self._limit * KEPT) // _row_bytes(table)
        self._test_size = min(test_size, n_kept / self._n_expected)
        self._shown_size = min(n_kept, MAX_SHOWN) / self._n_expected
        self._seed = seed
        return self._completed(table)

    def _completed(self, table: Table) -> Table:
        """Return the table with the means, scales, categories and missing values of all rows."""
        learners = [_Learner(column) for column in table.columns if not isinstance(column, Ignored)]
        n_left_out = 0
        for sheet, is_test in self._sheets(table):
            n_left_out += sheet.n_left_out
            for learner in learners:
                learner.add(sheet, ~is_test)
        found = {each.column.name: each.completed() for each in learners}
        for name, column in found.items():
            if isinstance(column, Text) and len(column.categories) > MAX_CATEGORIES:
                self._source.refuse(
                    f"holds {len(column.categories):,} different texts in column {shown(name)}, too many to be "
                    "categories. Leave the column out"
                )
        completed = Table([found.get(each.name, each) for each in table.columns], table.target.name, table.header)
        completed.n_left_out, completed.row_numbers = n_left_out, table.row_numbers
        return completed

    def _sheets(self, table: Table) -> Iterator[tuple[Sheet, Array]]:
        """Yield all rows with a target, some at a time, and which of them are drawn to test on."""
        generator = np.random.RandomState(self._seed)
        for line, rows in row_blocks(self._source, self._layout, self._size):
            sheet = sheet_of_rows(self._source, self._layout, rows, line)
            if sheet is None:
                continue
            out = rows_without(sheet, sheet.places[table.target.name], table.classes or ())
            if len(out) < sheet.n_rows:
                sheet.leave_out(out.tolist())
                yield sheet, generator.random_sample(sheet.n_rows) < self._test_size

    def encode(self, table: Table) -> Encoded:
        """Return all rows, as a table takes them that `learn` has made of this file."""
        self._check_space(self._n_expected * _row_bytes(table))
        with tempfile.TemporaryFile() as X_file, tempfile.TemporaryFile() as y_file:  # which maps of them outlive
            return self._encoded(table, (X_file, y_file))

    def _encoded(self, table: Table, files: tuple[Any, Any]) -> Encoded:
        kept: dict[str, list[tuple[Array, Array]]] = {"test": [], "shown": []}
        generator = np.random.RandomState(self._seed + 1)
        n_rows = 0
        for sheet, is_test in self._sheets(table):
            samples = table.read_samples(sheet)
            n_rows += int((~is_test).sum())
            is_shown = ~is_test & (generator.random_sample(len(is_test)) < self._shown_size)
            for name, which in (("test", is_test), ("shown", is_shown)):
                kept[name].append((samples[0][which], samples[1][which]))
            for file, values in zip(files, samples, strict=True):
                file.write(np.ascontiguousarray(values[~is_test]).data)
        if not n_rows:
            self._source.refuse(f"leaves no rows to train on with a value in column {shown(table.target.name)}")
        X, y = (_mapped(file, n_rows, values) for file, values in zip(files, samples, strict=True))
        shown_rows, test_rows = _joined(kept["shown"]), _joined(kept["test"])
        if not len(shown_rows[0]):
            shown_rows = X[:MAX_SHOWN], y[:MAX_SHOWN]
        return Encoded(Blocks(X, y), *shown_rows, *test_rows, X.nbytes + y.nbytes)

    def _check_space(self, needed: int) -> None:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if needed > free:
            self._source.refuse(
                f"needs about {needed / 1e6:,.0f} MB of space for its rows in {folder!r}, where {free / 1e6:,.0f} MB "
                "are free. Let TMPDIR name another folder"
            )


def _row_bytes(table: Table) -> int:
    return table.n_inputs * config.get_default_dtype().itemsize + 8


class _Learner:
    """Learns a column's mean and scale, or its categories, and counts its missing values, from some rows at a time."""

    def __init__(self, column: Any) -> None:
        self.column = column
        self._gaps = self._n = 0
        self._mean = self._squares = 0.0
        self._texts = set(column.categories) if isinstance(column, Text) else set()

    def add(self, sheet: Sheet, is_training: Array) -> None:
        """Take rows."""
        column, place = self.column, sheet.places[self.column.name]
        cells = sheet.columns[place]
        self._gaps += int(cells.gaps.sum())
        if isinstance(column, Number):
            values = sheet.numbers(place, column.notation)[is_training]
            self._add_up(values[~np.isnan(values)])
        elif isinstance(column, Text) and not column.pooled:
            self._texts |= {str(cell) for cell in cells.distinct if not is_gap(cell)}

    def _add_up(self, values: Array) -> None:
        """Add up means and squares, as Chan, Golub and LeVeque do."""
        if not len(values):
            return
        n, mean = self._n + len(values), float(values.mean())
        shift = mean - self._mean
        self._squares += float(((values - mean) ** 2).sum()) + shift * shift * self._n * len(values) / n
        self._mean += shift * len(values) / n
        self._n = n

    def completed(self) -> Any:
        """Return the column with what has been learnt."""
        if isinstance(self.column, Number) and self._n:
            deviation = math.sqrt(self._squares / self._n)
            scale = deviation if 0 < deviation < math.inf else self.column.scale
            return replace(self.column, mean=self._mean, scale=scale, gaps=self._gaps)
        if isinstance(self.column, Text):
            return replace(self.column, categories=in_order(self._texts), gaps=self._gaps)
        return replace(self.column, gaps=self._gaps)


def _joined(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    X, y = zip(*parts, strict=True)
    return np.concatenate(X), np.concatenate(y)


def _mapped(file: Any, n_rows: int, like: Array) -> Array:
    """Return what was written into a file, rows of such arrays, as an array; the file goes with the last use of it."""
    file.flush()
    return np.memmap(file, like.dtype, "r", shape=(n_rows, *like.shape[1:]))
