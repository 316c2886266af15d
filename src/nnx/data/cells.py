"""The cells of one column: texts that repeat, numbers without an object for each, dates."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice, pairwise
from typing import overload

import numpy as np

from nnx._base.typing import Array
from nnx.data.notation import LARGEST, PLAIN, Cell, Notation, is_gap, number, numbers_of

#: Of more different texts it is found out one by one whether they are numbers, which most often ends at the first.
MANY = 200_000


class Cells(Sequence[Cell]):
    """The cells of one column, row after row: texts without blanks around them, or numbers of a Python object.

    Attributes
    ----------
    only_numbers : bool
        Whether all cells that are no gaps are numbers as programs write them. It costs no look at every cell.
    gaps : bool array (rows,)
        Which cells are missing values.
    distinct : sequence
        The different cells in the order of their first rows, gaps among them.
    codes : integer array (rows,)
        The place of each row's cell in ``distinct``.
    dates : datetime64 array (rows,), or None
        What a source that knows dates gave, NaT where none is; in UTC if it knows a zone.

    Notes
    -----
    Of a large file's numbers no texts are kept. Cells that are asked for one by one, or for what is different among
    them, are then read from the file again, which takes another pass over it. ``numbers`` and ``gaps`` do not.
    """

    only_numbers: bool
    dates: Array | None = None

    @property
    @abstractmethod
    def gaps(self) -> Array:
        """Which cells are missing values."""

    @property
    @abstractmethod
    def distinct(self) -> Sequence[Cell]:
        """The different cells in the order of their first rows."""

    @property
    @abstractmethod
    def codes(self) -> Array:
        """The place of each row's cell among the different ones."""

    @abstractmethod
    def numbers(self, notation: Notation = PLAIN) -> Array:
        """Return float64 numbers (rows,) in a notation, NaN where a cell is none; they must not be changed."""

    @abstractmethod
    def take(self, rows: Array) -> Cells:
        """Return the cells of some rows."""

    @abstractmethod
    def cell(self, row: int) -> Cell:
        """Return a row's cell."""

    @property
    def n_gaps(self) -> int:
        """How many values are missing."""
        return int(np.count_nonzero(self.gaps))

    @property
    def counts(self) -> Array:
        """How many rows hold each of the different cells."""
        return np.bincount(self.codes, minlength=len(self.distinct))

    @property
    def first_rows(self) -> Array:
        """The first row of each of the different cells."""
        return _first_rows(self.codes, len(self.distinct))

    @overload
    def __getitem__(self, row: int) -> Cell: ...
    @overload
    def __getitem__(self, row: slice) -> list[Cell]: ...
    def __getitem__(self, row: int | slice) -> Cell | list[Cell]:
        if isinstance(row, slice):
            return [self.cell(each) for each in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError("there is no such row")
        return self.cell(row)


class TextList(Sequence[str]):
    """Many texts in little memory: one after another in UTF-8.

    Parameters
    ----------
    content : bytes or a buffer of them
    ends : integer array (texts + 1,)
        Where each text ends, after where the first begins.
    """

    def __init__(self, content: bytes | memoryview, ends: Array) -> None:
        self._content, self._ends = memoryview(content), ends

    @classmethod
    def of(cls, texts: Collection[str]) -> TextList:
        """Return a list of texts."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(b"".join(encoded), ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        content, ends = self._content, self._ends.tolist()
        return (str(content[start:end], "utf-8", "surrogatepass") for start, end in pairwise(ends))

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        return str(self._content[self._ends[place] : self._ends[place + 1]], "utf-8", "surrogatepass")


class Texts(Cells):
    """Cells that are kept once each, with the code of every row."""

    def __init__(self, distinct: Sequence[Cell], codes: Array) -> None:
        self._distinct, self._codes = distinct, codes
        self._values: dict[Notation, Array] = {}

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[Cell]:
        return map([*self._distinct].__getitem__, self._codes.tolist())

    @property
    def distinct(self) -> Sequence[Cell]:
        """The different cells in the order of their first rows."""
        return self._distinct

    @property
    def codes(self) -> Array:
        """The place of each row's cell among the different ones."""
        return self._codes

    @cached_property
    def only_numbers(self) -> bool:  # type: ignore[override]
        """Whether all cells that are not missing are numbers as programs write them."""
        if self._plain is not None:
            return True
        return all(number(cell) is not None or is_gap(cell) for cell in self._distinct)

    @cached_property
    def _plain(self) -> Array | None:
        """The numbers of texts that are numbers as programs write them, or missing values, fast."""
        texts = [cell for cell in islice(self._distinct, 1 + MANY) if isinstance(cell, str)]
        return numbers_of(texts) if len(texts) == len(self._distinct) else None

    @property
    def gaps(self) -> Array:
        """Which cells are missing values."""
        return self._each_gap[self._codes]

    @cached_property
    def _each_gap(self) -> Array:
        return np.fromiter(map(is_gap, self._distinct), np.bool_, len(self._distinct))

    def numbers(self, notation: Notation = PLAIN) -> Array:
        """Return float64 numbers (rows,) in a notation, NaN where a cell is none."""
        if notation == PLAIN and self._plain is not None:
            return np.asarray(self._plain[self._codes])
        if notation not in self._values:
            found = map(notation.number, self._distinct)
            values = (math.nan if value is None else value for value in found)
            self._values[notation] = np.fromiter(values, np.float64, len(self._distinct))
        return self._values[notation][self._codes]

    def take(self, rows: Array) -> Texts:
        """Return the cells of some rows."""
        codes = self._codes[rows]
        first = _first_rows(codes, len(self._distinct))
        order = np.argsort(first, kind="stable")
        order = order[first[order] < len(codes)]  # the rest stand in other rows
        place = np.zeros(len(self._distinct), codes.dtype)
        place[order] = np.arange(len(order))
        return Texts([self._distinct[code] for code in order.tolist()], place[codes])

    def cell(self, row: int) -> Cell:
        """Return a row's cell."""
        return self._distinct[int(self._codes[row])]


class Numbers(Cells):
    """Numbers in an array.

    Parameters
    ----------
    values : array (rows,) of numbers
        NaN is a gap; all others must be at most ``LARGEST``.
    missing : bool array (rows,), optional
        Where no value is at all; those of ``values`` there are not looked at.
    written : function, optional
        Gives the cells as a file has them, all numbers or gaps. Without it they are numbers of a Python object.
    """

    only_numbers = True

    def __init__(self, values: Array, missing: Array | None = None, written: Callable[[], Cells] | None = None) -> None:
        self._values, self._missing, self._written = values, missing, written

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Cell]:
        if self._written is not None:
            return iter(self.written)
        values = self._values.tolist()
        if self._missing is None:
            return iter(values)
        return ("" if out else value for value, out in zip(values, self._missing.tolist(), strict=True))

    @cached_property
    def written(self) -> Cells:
        """The cells one by one: as the file has them, or numbers."""
        return self._written() if self._written is not None else once_each([*self])

    @property
    def distinct(self) -> Sequence[Cell]:
        """The different cells in the order of their first rows."""
        return self.written.distinct

    @property
    def codes(self) -> Array:
        """The place of each row's cell among the different ones."""
        return self.written.codes

    @property
    def gaps(self) -> Array:
        """Which cells are missing values."""
        gaps = np.isnan(self._values) if self._values.dtype.kind == "f" else np.zeros(len(self), np.bool_)
        return gaps if self._missing is None else gaps | self._missing

    def numbers(self, notation: Notation = PLAIN) -> Array:
        """Return float64 numbers (rows,) in a notation, NaN where a cell is none."""
        if notation != PLAIN and self._written is not None:
            return self.written.numbers(notation)
        if self._missing is None:
            return self._values.astype(np.float64, copy=False)
        return np.where(self._missing, np.nan, self._values.astype(np.float64, copy=False))

    def take(self, rows: Array) -> Numbers:
        """Return the cells of some rows."""
        missing = None if self._missing is None else self._missing[rows]
        written = None if self._written is None else partial(_taken, self._written, rows)
        return Numbers(self._values[rows], missing, written)

    def cell(self, row: int) -> Cell:
        """Return a row's cell."""
        if self._written is not None:
            return self.written[row]
        found: Cell = "" if self._missing is not None and self._missing[row] else self._values[row].item()
        return found


class Later(Cells):
    """Cells of a file that are read when they are first asked for."""

    def __init__(self, n_rows: int, written: Callable[[], Cells]) -> None:
        self._n_rows, self._written = n_rows, written

    def __len__(self) -> int:
        return self._n_rows

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._cells)

    @cached_property
    def _cells(self) -> Cells:
        return self._written()

    @property
    def only_numbers(self) -> bool:  # type: ignore[override]
        """Whether all cells that are not missing are numbers as programs write them."""
        return self._cells.only_numbers

    @property
    def distinct(self) -> Sequence[Cell]:
        """The different cells in the order of their first rows."""
        return self._cells.distinct

    @property
    def codes(self) -> Array:
        """The place of each row's cell among the different ones."""
        return self._cells.codes

    @property
    def gaps(self) -> Array:
        """Which cells are missing values."""
        return self._cells.gaps

    def numbers(self, notation: Notation = PLAIN) -> Array:
        """Return float64 numbers (rows,) in a notation, NaN where a cell is none."""
        return self._cells.numbers(notation)

    def take(self, rows: Array) -> Cells:
        """Return the cells of some rows."""
        if "_cells" in self.__dict__:
            return self._cells.take(rows)
        return Later(len(rows), partial(_taken, self._written, rows))

    def cell(self, row: int) -> Cell:
        """Return a row's cell."""
        return self._cells[row]


class Dates(Cells):
    """Dates, with or without a time of day; as cells they are texts of ISO 8601."""

    only_numbers = False

    def __init__(self, values: Array) -> None:
        self.dates: Array = values
        self.only_numbers = bool(np.isnat(values).all())  # as of a column without any value

    def __len__(self) -> int:
        return len(self.dates)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._texts)

    @cached_property
    def _unit(self) -> str:
        """The coarsest unit that says all of the dates."""
        for unit in ("D", "s"):
            if bool((self._known.astype(f"M8[{unit}]") == self._known).all()):
                return unit
        return str(np.datetime_data(self.dates.dtype)[0])

    @property
    def _known(self) -> Array:
        return self.dates[~np.isnat(self.dates)]

    @cached_property
    def _texts(self) -> Texts:
        different, first, codes = np.unique(self.dates, return_index=True, return_inverse=True)
        order = np.argsort(first)
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order))
        return Texts([_iso(value, self._unit) for value in different[order]], place[codes.reshape(-1)])

    @property
    def distinct(self) -> Sequence[Cell]:
        """The different cells in the order of their first rows."""
        return self._texts.distinct

    @property
    def codes(self) -> Array:
        """The place of each row's cell among the different ones."""
        return self._texts.codes

    @property
    def gaps(self) -> Array:
        """Which cells are missing values."""
        return np.isnat(self.dates)

    def numbers(self, notation: Notation = PLAIN) -> Array:
        """Return NaN for each of the rows: no date is a number."""
        return np.full(len(self), np.nan)

    def take(self, rows: Array) -> Dates:
        """Return the cells of some rows."""
        return Dates(self.dates[rows])

    def cell(self, row: int) -> Cell:
        """Return a row's cell."""
        return _iso(self.dates[row], self._unit)


def _taken(written: Callable[[], Cells], rows: Array) -> Cells:
    return written().take(rows)


def _iso(value: np.datetime64, unit: str) -> str:
    return "" if np.isnat(value) else str(value.astype(f"M8[{unit}]"))


def _first_rows(codes: Array, n_codes: int) -> Array:
    """Return the first row of each code, and the number of rows for codes that no row has."""
    first = np.full(n_codes, len(codes), np.intp)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)  # of several rows, the last assignment stays
    return first


def cells_of(cells: Iterable[Cell]) -> Cells:
    """Return cells that are Python objects; those of one kind of number become an array."""
    if isinstance(cells, Cells):
        return cells
    cells = [*cells]
    kinds = {*map(type, cells)}
    if kinds in ({int}, {float}):
        values = np.array(cells)
        if values.dtype.kind in ("f" if kinds == {float} else "iu"):  # whole numbers beyond 64 bits are none of these
            return of_numbers(values)
    return once_each(cells)


def of_numbers(values: Array, missing: Array | None = None) -> Cells:
    """Return numbers of an array as cells, without values where some are ``missing``."""
    if values.dtype.kind == "f":
        unusable = np.abs(values.astype(np.float64, copy=False)) > LARGEST
        if missing is not None:
            unusable &= ~missing
        if unusable.any():
            return once_each([*Numbers(values, missing)])
    return Numbers(values, missing if missing is not None and missing.any() else None)


def of_codes(different: Sequence[Cell], codes: Array) -> Texts:
    """Return cells as Python objects give them: some may not be used or be the same; −1 is a missing value."""
    places: dict[tuple[type, Cell], int] = {}
    cells = [*different, ""]
    codes = np.where(codes < 0, len(different), codes).astype(np.intp, copy=False)
    first = _first_rows(codes, len(cells))
    new_codes = np.zeros(len(cells), np.int32)
    for code in np.argsort(first, kind="stable").tolist():
        if first[code] < len(codes):
            new_codes[code] = places.setdefault((type(cells[code]), cells[code]), len(places))
    return Texts([cell for _, cell in places], new_codes[codes])


def once_each(cells: Sequence[Cell]) -> Texts:
    """Return cells with each different one kept once; 1, 1.0 and "1" are different."""
    if {*map(type, cells)} == {str}:
        texts = {cell: code for code, cell in enumerate(dict.fromkeys(cells))}
        return Texts([*texts], np.fromiter(map(texts.__getitem__, cells), np.int32, len(cells)))
    places: dict[tuple[type, Cell], int] = {}
    codes = np.empty(len(cells), np.int32)
    for row, cell in enumerate(cells):
        key = (float, "nan") if cell != cell else (type(cell), cell)  # a NaN is not equal to itself
        codes[row] = places.setdefault(key, len(places))
    return Texts([math.nan if key == (float, "nan") else key[1] for key in places], codes)
