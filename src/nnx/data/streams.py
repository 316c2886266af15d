"""`Blocks`: samples and targets that are read block by block, while a model trains, and never all at once.

What reads them ahead and trains on them is `nnx.engine.streaming`.
"""

from __future__ import annotations

import glob
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from nnx._base import check
from nnx._base.text import abridged
from nnx._base.typing import Array, Path
from nnx.errors import DataFileError

#: Bytes of an array's block, about, where nobody says how many rows it has: a pass over it stays in the cache.
BLOCK_BYTES = 1 << 18
#: Rows of a Parquet file that are decoded at a time, at most.
PARQUET_ROWS = 1 << 14
#: Targets that are read as a whole before the training, at most, in bytes.
SMALL_TARGETS = 1 << 24


class Piece(NamedTuple):
    """Some rows as a source gives them, not checked yet."""

    X: Any
    y: Any
    weights: Any
    #: For messages, such as "X[0:256] of block 3": the number of the first row, and what stands behind the brackets.
    start: int
    label: str

    def rows(self, start: int, stop: int) -> Piece:
        """Return some of these rows."""
        which = slice(start, stop)
        weights = None if self.weights is None else self.weights[which]
        return Piece(self.X[which], self.y[which], weights, self.start + start, self.label)

    def name(self, what: str) -> str:
        """Return what messages call an array of these rows."""
        return f"{what}[{self.start}:{self.start + len(self.X)}]{self.label}"


class Source(Protocol):
    """Where blocks come from.

    Attributes
    ----------
    sizes : intp array or None
        Rows of each block, for a source that reads its blocks in any order.
    n_rows : int or None
    can_be_read_again : bool
    """

    sizes: Array | None
    n_rows: int | None
    can_be_read_again: bool

    def read(self, block: int) -> Iterator[Piece]:
        """Yield the rows of a block, where there are ``sizes``."""

    def all(self) -> Iterator[Piece]:
        """Yield all rows in their order."""

    def targets(self) -> Iterator[Any] | None:
        """Yield all targets, without the samples; None if that cannot be."""


class Blocks:
    """Samples and targets that `Model.train` reads block by block, ahead of the steps, and never all at once.

    The constructor takes arrays: any objects with a shape, a dtype and slices of rows, such as a ``numpy.memmap``, or a
    data set of h5py or Zarr. `from_parquet` takes Parquet files, and `from_iterable` anything that yields blocks.

    Parameters
    ----------
    X : array (n, n_inputs)
        The samples. Slices of it are read, cast and checked one after the other.
    y : array (n, ...)
        The targets, as `Model.train` takes them.
    sample_weight : array (n,), optional
        The weight of each sample.
    block_rows : int, optional
        Rows that stay together when the order of the blocks is shuffled. If None, about 256 KB of ``X``, or whole
        chunks if ``X`` is stored in chunks.
    window_rows : int, optional
        Rows that are read and shuffled together, rounded up to whole batches. Two such windows are in memory at a time:
        one is read while the model trains on the other. If None, about 16 MB.

    Attributes
    ----------
    n_rows : int or None
        None if only reading them would tell.
    can_be_read_again : bool
        Whether a second epoch can be read.

    Raises
    ------
    TypeError, ValueError
        If an argument is not valid.

    Examples
    --------
    >>> import numpy as np, nnx, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "X.npy")
    >>> X, y = nnx.spiral_data(samples=100, classes=3)
    >>> np.save(path, X)
    >>> blocks = nnx.Blocks(np.load(path, mmap_mode="r"), y, block_rows=50, window_rows=150)
    >>> blocks
    Blocks(rows=300, blocks=6)
    >>> model = nnx.Model()
    >>> model.add(nnx.Layer_Dense(2, 3))
    >>> model.add(nnx.Activation_Softmax())
    >>> model.set(
    ...     loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    ... )
    >>> model.finalize()
    >>> model.train(blocks, epochs=2, batch_size=25, shuffle=True, print_every=None)
    History(epochs=2, steps=24)
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        block_rows: int | None = None,
        window_rows: int | None = None,
    ) -> None:
        self._of(_Arrays("Blocks", X, y, sample_weight, block_rows), "Blocks", window_rows)

    def _of(self, source: Source, where: str, window_rows: int | None) -> Blocks:
        self._source = source
        self._window_rows = None if window_rows is None else check.whole(where, "window_rows", window_rows)
        return self

    @classmethod
    def from_parquet(
        cls,
        path: Path | Sequence[Path],
        target: str | Sequence[str],
        columns: Sequence[str] | None = None,
        *,
        window_rows: int | None = None,
    ) -> Blocks:
        """Return the blocks of a Parquet data set, whose columns must be numbers: each row group is one.

        Parameters
        ----------
        path : str, path, or list of these
            A file, a folder, whose files ``*.parquet`` are read in the order of their names, or several files.
        target : str, or list of str
            The column to predict, or several.
        columns : list of str, optional
            The columns of the inputs, in this order; if None, all columns but the target.
        window_rows : int, optional
            As above.

        Raises
        ------
        ImportError
            If pyarrow is not installed.
        FileNotFoundError, nnx.DataFileError
            If a file is not there, cannot be read, or lacks a column.
        """
        where = "Blocks.from_parquet"
        return cls.__new__(cls)._of(_Parquet(where, path, target, columns), where, window_rows)

    @classmethod
    def from_iterable(
        cls,
        blocks: Iterable[Any] | Callable[[], Iterable[Any]],
        *,
        n_rows: int | None = None,
        window_rows: int | None = None,
    ) -> Blocks:
        """Return the blocks that an iterable yields: pairs (X, y), or triples (X, y, weights), of any numbers of rows.

        Parameters
        ----------
        blocks : iterable, or function without arguments that returns one
            It is read from its start in each epoch, and must yield the same rows again. An iterator, such as a
            generator, can be read only once.
        n_rows : int, optional
            How many rows it yields. If None, a run with several epochs or a checkpoint counts them first.
        window_rows : int, optional
            As above.
        """
        where = "Blocks.from_iterable"
        return cls.__new__(cls)._of(_Iterable(where, blocks, n_rows), where, window_rows)

    @property
    def n_rows(self) -> int | None:
        """How many rows there are; None if only reading them would tell."""
        return self._source.n_rows

    @property
    def can_be_read_again(self) -> bool:
        """Whether a second epoch can be read."""
        return self._source.can_be_read_again

    @property
    def sizes(self) -> Array | None:
        """How many rows each block has, where blocks can be read in any order; else None."""
        return self._source.sizes

    def window_rows(self, batch: int, row_bytes: int, default: int) -> int:
        """Return how many rows are in memory together: whole batches, and ``default`` bytes where nobody says."""
        rows = self._window_rows or max(1, default // max(1, row_bytes))
        return -(-rows // batch) * batch

    def fingerprint(self, window_rows: int) -> dict[str, Any]:
        """Return what the order of rows depends on beside the seed, as a checkpoint keeps it."""
        sizes = self.sizes
        n_blocks, crc = (0, 0) if sizes is None else (len(sizes), zlib.crc32(np.ascontiguousarray(sizes, "<i8").data))
        return {"dtype": "rows in windows, blocks", "shape": [self.n_rows, window_rows, n_blocks], "crc32": crc}

    def pieces(self, order: Array | None, skip: int) -> Iterator[Piece]:
        """Yield all rows behind the first ``skip``; block after block in this order, where there are ``sizes``."""
        if self.sizes is None:
            for piece in self._source.all():
                skip, rest = _behind(skip, piece)
                yield from rest
            return
        for block in range(len(self.sizes)) if order is None else order.tolist():
            if skip >= self.sizes[block]:
                skip -= int(self.sizes[block])
                continue
            for piece in self._source.read(block):
                skip, rest = _behind(skip, piece)
                yield from rest

    def first(self) -> Piece:
        """Return the first rows, which are read again later."""
        source = self._source
        if isinstance(source, _Iterable):
            return source.peek()
        for piece in source.all():
            return piece
        raise ValueError("Blocks: there must be at least one row, got none.")

    def count(self) -> None:
        """Learn ``n_rows``, if it is not known, by reading all rows once."""
        if self._source.n_rows is None:
            self._source.n_rows = sum(len(piece.X) for piece in self._source.all())

    def targets(self) -> Array | None:
        """Return all targets, or two numbers of the same standard deviation, if they are many; None if unknown."""
        found = self._source.targets()
        if found is None:
            return None
        kept: list[Array] = []
        n, mean, squares = 0, 0.0, 0.0  # of all before, as Chan, Golub and LeVeque add up variances
        small, size = True, 0
        for part in found:
            values = check.plain("Model.train", "y", part)
            size += values.nbytes
            small = small and size <= SMALL_TARGETS
            kept = [*kept, values] if small else []
            with np.errstate(all="ignore"):
                own_mean = float(np.mean(values, dtype=np.float64))
                own = float(np.sum((values - own_mean) ** 2, dtype=np.float64))
            shift, both = own_mean - mean, n + values.size
            squares += own + shift * shift * n * values.size / both
            mean, n = mean + shift * values.size / both, both
        if small:
            return np.concatenate(kept)
        deviation = math.sqrt(squares / n)
        return np.array([-deviation, deviation])

    def __repr__(self) -> str:
        n_blocks = "?" if self.sizes is None else len(self.sizes)
        return f"{type(self).__name__}(rows={'?' if self.n_rows is None else self.n_rows}, blocks={n_blocks})"


def _behind(skip: int, piece: Piece) -> tuple[int, list[Piece]]:
    """Return how many rows are still to be skipped, and what is left of a piece."""
    n = len(piece.X)
    if skip >= n:
        return skip - n, []
    return 0, [piece.rows(skip, n) if skip else piece]


# Arrays


def is_sliced(value: Any) -> bool:
    """Return whether a value is an array that lies elsewhere in chunks, as those of h5py and Zarr do."""
    if isinstance(value, np.ndarray) or not all(hasattr(value, name) for name in ("shape", "dtype", "chunks")):
        return False
    return len(value.shape) > 0 and isinstance(value.shape[0], int)  # dask does not always know it


class _Arrays:
    """Blocks of arrays: slices of their rows."""

    can_be_read_again = True

    def __init__(self, where: str, X: Any, y: Any, weights: Any, block_rows: int | None) -> None:
        self._X, self._y = _sliceable(where, "X", X), _sliceable(where, "y", y)
        self._weights = None if weights is None else _sliceable(where, "sample_weight", weights)
        n = self._X.shape[0]
        for name, array in (("y", self._y), ("sample_weight", self._weights)):
            if array is not None and array.shape[0] != n:
                raise ValueError(
                    f"{where}: {name} must have one row for each of the {n} rows of X, got shape {tuple(array.shape)}."
                )
        if n == 0:
            raise ValueError(f"{where}: X must have at least one row, got none.")
        rows = _rows_of_block(self._X) if block_rows is None else check.whole(where, "block_rows", block_rows)
        self._rows = min(n, rows)
        self.n_rows: int | None = int(n)
        self.sizes: Array | None = np.diff(np.append(np.arange(0, n, self._rows), n))

    def read(self, block: int) -> Iterator[Piece]:
        start = block * self._rows
        rows = slice(start, min(start + self._rows, int(self._X.shape[0])))
        weights = None if self._weights is None else self._weights[rows]
        yield Piece(self._X[rows], self._y[rows], weights, rows.start, f" (block {block})")

    def all(self) -> Iterator[Piece]:
        assert self.sizes is not None
        for block in range(len(self.sizes)):
            yield from self.read(block)

    def targets(self) -> Iterator[Any] | None:
        rows = max(1, SMALL_TARGETS // _row_bytes(self._y))
        return (self._y[start : start + rows] for start in range(0, int(self._y.shape[0]), rows))


def _sliceable(where: str, name: str, value: Any) -> Any:
    """Return an array whose rows can be sliced: lists and frames become one, all else stays where it is."""
    if not all(hasattr(value, each) for each in ("shape", "dtype", "__getitem__")) or type(value) is np.matrix:
        value = check.plain(where, name, value)
    if len(value.shape) == 0:
        raise ValueError(f"{where}: {name} must have one row per sample, got a single number.")
    return value


def _row_bytes(array: Any) -> int:
    return max(1, int(math.prod(array.shape[1:]) * getattr(array.dtype, "itemsize", 8)))


def _rows_of_block(X: Any) -> int:
    rows = max(1, BLOCK_BYTES // _row_bytes(X))
    chunks = getattr(X, "chunks", None)
    first = chunks[0] if isinstance(chunks, tuple) and chunks else None
    return -(-rows // first) * first if isinstance(first, int) and first > 0 else rows


# Whatever yields blocks


class _Iterable:
    """Blocks that an iterable yields."""

    sizes: Array | None = None

    def __init__(self, where: str, blocks: Any, n_rows: int | None) -> None:
        if not callable(blocks) and not isinstance(blocks, Iterable):
            raise TypeError(
                f"{where}: blocks must be an iterable of pairs (X, y), or a function that returns one, got "
                f"{abridged(blocks)}."
            )
        self._blocks = blocks
        self.can_be_read_again = callable(blocks) or iter(blocks) is not blocks
        self.n_rows = None if n_rows is None else check.whole(where, "n_rows", n_rows)
        self._peeked: list[Any] = []  # of an iterator
        self._has_ended = False

    def _started(self) -> Iterator[Any]:
        try:
            return iter(self._blocks() if callable(self._blocks) else self._blocks)
        except TypeError as error:
            raise TypeError(f"Blocks: the function must return an iterable of pairs (X, y) ({error}).") from error

    def peek(self) -> Piece:
        if self._has_ended:
            raise ValueError("Blocks: the iterator has been read to its end. Give a function that returns a new one.")
        if self.can_be_read_again:
            with _closed(self._started()) as blocks:
                found = next(blocks, None)
        else:
            self._peeked = self._peeked or [next(self._blocks, None)]
            found = self._peeked[0]
        if found is None:
            raise ValueError("Blocks: there must be at least one block, got none.")
        return self._piece(0, found)

    def read(self, block: int) -> Iterator[Piece]:
        raise NotImplementedError

    def all(self) -> Iterator[Piece]:
        number = 0
        if not self.can_be_read_again:
            self._has_ended = True
            while self._peeked:
                yield self._piece(number, self._peeked.pop())
                number += 1
            for number, block in enumerate(self._blocks, number):  # noqa: B020
                yield self._piece(number, block)
            return
        with _closed(self._started()) as blocks:
            for number, block in enumerate(blocks):
                yield self._piece(number, block)

    def _piece(self, number: int, block: Any) -> Piece:
        parts = tuple(block) if isinstance(block, tuple | list) else ()
        if len(parts) not in (2, 3):
            raise TypeError(
                f"Model.train: block {number} must be a pair (X, y), or (X, y, weights), got {abridged(block)}."
            )
        arrays = [
            check.plain("Model.train", f"{name} of block {number}", part)
            for name, part in zip(("X", "y", "sample_weight"), parts, strict=False)
        ]
        n = len(arrays[0]) if arrays[0].ndim else -1
        for name, array in zip(("X", "y", "sample_weight"), arrays, strict=False):
            if array.ndim == 0 or len(array) != n:
                raise ValueError(
                    f"Model.train: {name} of block {number} must have one row per sample, as X, y and weights of a "
                    f"block "
                    f"belong together, got shape {array.shape} beside {arrays[0].shape}."
                )
        return Piece(arrays[0], arrays[1], arrays[2] if len(arrays) == 3 else None, 0, f" of block {number}")

    def targets(self) -> Iterator[Any] | None:
        return None


@contextmanager
def _closed(blocks: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Close a generator at the end, in the thread that has run it."""
    try:
        yield blocks
    finally:
        close = getattr(blocks, "close", None)
        if callable(close):
            close()


# Parquet


class _Parquet:
    """Blocks of Parquet files: their row groups, which pyarrow decodes some rows at a time."""

    can_be_read_again = True

    def __init__(self, where: str, path: Any, target: Any, columns: Any) -> None:
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise ImportError(
                f"{where}: Parquet files need pyarrow. Install it with: python -m pip install 'nnx-core[tables]'."
            ) from error
        self._parquet, self._where = parquet, where
        self._targets = [target] if isinstance(target, str) else list(target)
        self._is_vector = isinstance(target, str)
        self._groups: list[tuple[str, int]] = []
        self._columns = None if columns is None else list(columns)
        sizes = []
        for name in _files(where, path):
            with self._opened(name) as file:
                self._check_columns(name, file.schema_arrow)
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if rows:
                        self._groups.append((name, group))
                        sizes.append(rows)
        if not sizes:
            raise DataFileError(f"{where}: {path!r} has no rows.")
        self.sizes: Array | None = np.array(sizes, np.intp)
        self.n_rows: int | None = int(sum(sizes))

    @contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        import pyarrow

        try:
            with self._parquet.ParquetFile(name) as file:
                yield file
        except (pyarrow.ArrowException, OSError) as error:
            first, *_ = str(error).splitlines() or [""]
            raise DataFileError(f"{self._where}: {name!r} cannot be read as a Parquet file ({first}).") from error

    def _check_columns(self, name: str, schema: Any) -> None:
        import pyarrow as pa

        if self._columns is None:
            self._columns = [each for each in schema.names if each not in self._targets]
        for column in (*self._columns, *self._targets):
            if schema.names.count(column) != 1:
                raise DataFileError(f"{self._where}: {name!r} must have one column {column!r}, got {schema.names}.")
            kind = schema.field(column).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                raise DataFileError(
                    f"{self._where}: column {column!r} of {name!r} must hold numbers, got {kind}. Choose others with "
                    "columns=[...], or encode it first."
                )
        if not self._columns:
            raise DataFileError(f"{self._where}: {name!r} must have a column beside the target, got none.")

    def _batches(self, block: int, columns: list[str]) -> Iterator[Any]:
        name, group = self._groups[block]
        with self._opened(name) as file:
            yield from file.iter_batches(PARQUET_ROWS, row_groups=[group], columns=columns, use_threads=False)

    def read(self, block: int) -> Iterator[Piece]:
        assert self._columns is not None
        name, group = self._groups[block]
        start = 0
        for batch in self._batches(block, [*dict.fromkeys((*self._columns, *self._targets))]):
            label = f" of row group {group} of {name!r}"
            X, y = _matrix(batch, self._columns), _matrix(batch, self._targets)
            yield Piece(X, y[:, 0] if self._is_vector else y, None, start, label)
            start += batch.num_rows

    def all(self) -> Iterator[Piece]:
        for block in range(len(self._groups)):
            yield from self.read(block)

    def targets(self) -> Iterator[Any] | None:
        blocks = range(len(self._groups))
        return (_matrix(batch, self._targets) for block in blocks for batch in self._batches(block, self._targets))


def _files(where: str, path: Any) -> list[str]:
    given = list(path) if isinstance(path, list | tuple) else [path]
    found: list[str] = []
    for each in given:
        name = check.path(where, "path", each)
        if not os.path.exists(name):
            raise FileNotFoundError(f"{where}: there is no file {name!r}.")
        inside = sorted(glob.glob(os.path.join(glob.escape(name), "*.parquet"))) if os.path.isdir(name) else [name]
        if not inside:
            raise DataFileError(f"{where}: {name!r} holds no files *.parquet.")
        found += inside
    return found


def _matrix(batch: Any, names: list[str]) -> Array:
    """Return columns side by side, in the dtype that holds them all; what is missing is NaN."""
    columns = [_numbers(batch.column(batch.schema.get_field_index(name))) for name in names]
    matrix = np.empty((batch.num_rows, len(columns)), np.result_type(*columns))
    for number, values in enumerate(columns):
        matrix[:, number] = values
    return matrix


def _numbers(column: Any) -> Array:
    values: Array = column.to_numpy(zero_copy_only=False)
    return values.astype(np.float64) if values.dtype.kind == "O" else values  # truth values with gaps
