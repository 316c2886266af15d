"""CSV files that are larger than memory: columns learnt from some rows, and all rows encoded into a temporary file."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any, NamedTuple

import numpy as np

from nnx._base import config
from nnx._base.typing import Array
from nnx.data.csv_files import layout_of, row_blocks, sheet_of_rows
from nnx.data.sheet import Sheet, shown
from nnx.data.sources import Source
from nnx.data.streams import Blocks
from nnx.data.tables import Table

#: Bytes of text that are read at a time: at most, at least, and as a part of the memory that may be used.
MOST_TEXT, LEAST_TEXT, PART_OF_LIMIT = 1 << 22, 1 << 14, 32
#: What cells take in memory at most, in bytes of their text.
TAKEN = 6
#: The part of that memory which the rows that are kept in it may take: those to test on, and some to train on.
KEPT = 0.25
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
    n_unknown, n_bytes : int
        Texts that were taken for missing values, and the size of the temporary file.
    """

    blocks: Blocks
    X: Array
    y: Array
    X_test: Array
    y_test: Array
    n_unknown: int
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

    def learn(self, how: dict[str, Any]) -> Table:
        """Return the table that is learnt from blocks all over the file, as many as memory allows."""
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
        return Table.learn(sheet, **how)

    def encode(self, table: Table, test_size: float, seed: int) -> Encoded:
        """Return all rows, of which some are drawn to test on: this part, or as many as memory allows."""
        row_bytes = table.n_inputs * config.get_default_dtype().itemsize + 8
        n_expected = max(1, self._source.size // self._layout.bytes_of_row)
        self._check_space(n_expected * row_bytes)
        n_kept = int(self._limit * KEPT) // row_bytes
        test_size = min(test_size, n_kept / n_expected)
        shown_size = min(n_kept, MAX_SHOWN) / n_expected
        with tempfile.TemporaryFile() as X_file, tempfile.TemporaryFile() as y_file:  # which maps of them outlive
            return self._encoded(table, (X_file, y_file), np.random.RandomState(seed), test_size, shown_size)

    def _encoded(
        self,
        table: Table,
        files: tuple[Any, Any],
        generator: np.random.RandomState,
        test_size: float,
        shown_size: float,
    ) -> Encoded:
        kept: dict[str, list[tuple[Array, Array]]] = {"test": [], "shown": []}
        n_unknown, n_rows = 0, 0
        for line, rows in row_blocks(self._source, self._layout, self._size):
            sheet = sheet_of_rows(self._source, self._layout, rows, line)
            if sheet is None or not self._has_targets(sheet, table):
                continue
            samples = table.read_samples(sheet, unknown="missing")
            n_unknown += sheet.n_unknown
            drawn = generator.random_sample(len(samples[0]))
            is_test = drawn < test_size
            n_rows += int((~is_test).sum())
            for name, which in (("test", is_test), ("shown", ~is_test & (drawn > 1 - shown_size))):
                kept[name].append((samples[0][which], samples[1][which]))
            for file, values in zip(files, samples, strict=True):
                file.write(np.ascontiguousarray(values[~is_test]).data)
        if not n_rows:
            self._source.refuse(f"leaves no rows to train on with a value in column {shown(table.target.name)}")
        X, y = (_mapped(file, n_rows, values) for file, values in zip(files, samples, strict=True))
        shown_rows, test_rows = _joined(kept["shown"]), _joined(kept["test"])
        if not len(shown_rows[0]):
            shown_rows = X[:MAX_SHOWN], y[:MAX_SHOWN]
        return Encoded(Blocks(X, y), *shown_rows, *test_rows, n_unknown, X.nbytes + y.nbytes)

    def _has_targets(self, sheet: Sheet, table: Table) -> bool:
        """Return whether any of a block's rows has a target: the others are left out."""
        return not sheet.columns[sheet.places[table.target.name]].gaps.all()

    def _check_space(self, needed: int) -> None:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if needed > free:
            self._source.refuse(
                f"needs about {needed / 1e6:,.0f} MB of space for its rows in {folder!r}, where {free / 1e6:,.0f} MB "
                "are free. Let TMPDIR name another folder"
            )


def _joined(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    X, y = zip(*parts, strict=True)
    return np.concatenate(X), np.concatenate(y)


def _mapped(file: Any, n_rows: int, like: Array) -> Array:
    """Return what was written into a file, rows of such arrays, as an array; the file goes with the last use of it."""
    file.flush()
    return np.memmap(file, like.dtype, "r", shape=(n_rows, *like.shape[1:]))
