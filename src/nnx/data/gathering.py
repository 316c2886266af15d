"""A column's cells gathered from a file's rows, block by block: few different texts, or numbers in an array."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from nnx._base.typing import Array
from nnx.data.cells import Cells, Later, Numbers, TextList, Texts
from nnx.data.notation import numbers_of

#: A column of more different texts than this is kept as an array if all are numbers, else up to the second number.
FEW, MANY = 4096, 200_000


class Growing:
    """An array that grows at its end. Room that is never used costs no memory on systems that give it when written."""

    def __init__(self, dtype: type, expected: int) -> None:
        self._values: Array = np.empty(max(expected, 1), dtype)
        self._used = 0

    def add(self, part: Array) -> None:
        """Add values."""
        end = self._used + len(part)
        if end > len(self._values):
            larger = np.empty(max(end, 2 * len(self._values)), self._values.dtype)
            larger[: self._used] = self.array
            self._values = larger
        self._values[self._used : end] = part
        self._used = end

    @property
    def array(self) -> Array:
        """The values so far."""
        return self._values[: self._used]


class Gathered:
    """The cells of a column so far.

    A column begins as texts, each kept once with a code for every row. When there are too many different ones and all
    are numbers, only the numbers are kept. If a text turns up among them, or there are too many texts for memory,
    nothing is kept, and the cells are read from the file again once they are asked for.

    Parameters
    ----------
    keeps_texts : bool
        Keep texts however many there are.
    expected : int
        How many rows there may be.

    Attributes
    ----------
    keeps : "texts", "numbers" or "nothing"
    """

    def __init__(self, keeps_texts: bool = False, expected: int = 0) -> None:
        self.keeps, self._expected = "texts", expected
        self._most: float = math.inf if keeps_texts else FEW
        self._places: dict[str, int] = {}
        self._kept = Growing(np.int32, expected)
        self._n_rows = 0

    def add(self, cells: Sequence[str]) -> None:
        """Take the cells of some rows as the file has them, with blanks around them."""
        if self.keeps == "texts":
            self._note(dict.fromkeys(cells))
            self._add(np.fromiter(map(self._places.__getitem__, cells), np.int32, len(cells)))
            self._outgrow()
        elif self.keeps == "numbers":
            self.add_numbers(numbers_of(cells), len(cells))
        else:
            self._n_rows += len(cells)

    def add_coded(self, different: Sequence[str], codes: Array) -> None:
        """Take some rows as their different cells and the place of each row's among them."""
        self._note(different)
        places = np.fromiter(map(self._places.__getitem__, different), np.int32, len(different))
        self._add(places[codes])
        self._outgrow()

    def add_numbers(self, values: Array | None, n_rows: int) -> None:
        """Take the numbers of some rows, NaN for missing values; None if there is something else among them."""
        if values is None:
            self._keep_nothing()
            self._n_rows += n_rows
        else:
            self._add(values)

    def skip(self, n_rows: int) -> None:
        """Take note of rows of which nothing is kept."""
        self._n_rows += n_rows

    def _add(self, part: Array) -> None:
        self._kept.add(part)
        self._n_rows += len(part)

    def _note(self, different: Iterable[str]) -> None:
        places = self._places
        for cell in different:
            if cell not in places:
                places[cell] = len(places)

    def _outgrow(self) -> None:
        """Keep numbers only, or nothing, if there are too many different texts."""
        if len(self._places) <= self._most:
            return None
        values = numbers_of([*self._places]) if self._most < MANY else None
        if values is not None:
            codes, self._kept = self._kept.array, Growing(np.float64, self._expected)
            self._kept.add(values[codes])
            self.keeps, self._places = "numbers", {}
        elif self._most < MANY:
            self._most = MANY
            return self._outgrow()
        else:
            self._keep_nothing()
        return None

    def _keep_nothing(self) -> None:
        self.keeps, self._places, self._kept = "nothing", {}, Growing(np.int32, 0)

    def cells(self, written: Callable[[], Cells]) -> Cells:
        """Return all cells, after which nothing is left here; ``written`` reads them from the file once more."""
        if self.keeps == "nothing":
            return Later(self._n_rows, written)
        kept, self._kept = self._kept.array, Growing(np.int32, 0)
        return Numbers(kept, None, written) if self.keeps == "numbers" else stripped([*self._places], kept)


def stripped(different: Sequence[str], codes: Array) -> Texts:
    """Return cells without the blanks around them; some may be the same then."""
    places: dict[str, int] = {}
    new_codes = [places.setdefault(cell.strip(), len(places)) for cell in different]
    if len(places) < len(different):
        codes = np.array(new_codes, np.int32)[codes]
    return Texts(TextList.of(places) if len(places) > FEW else [*places], codes)
