"""The rows of a request: from JSON or CSV to what a network takes.

Two kinds of readers know how: one for a table's raw rows, one for rows of numbers, such as pixels. JSON rows of a table
are kept as cells and read together with those of other requests, since each call has its price.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import orjson

from nnx._base import check
from nnx._base.text import abridged
from nnx._base.typing import Array, FloatDType
from nnx.data.csv_files import read_csv
from nnx.data.images import Images
from nnx.data.objects import objects
from nnx.data.sheet import Sheet, listed, shown
from nnx.data.sources import Source
from nnx.data.tables import Table
from nnx.errors import DataFileError
from nnx.serve.errors import RequestError

#: Encodings of CSV that are read, by what a Content-Type may call them. Others are rare, and some of Python's take a
#: time that grows with the square of a text's length.
ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "ascii": "utf-8",
    "utf-16": "utf-16",
    "iso-8859-1": "latin-1",
    "latin-1": "latin-1",
    "latin1": "latin-1",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
}
SOURCE = "the request"
WHERE = "predict"
FORM = '{"rows": [...]}'


class Rows(NamedTuple):
    """Rows of one request: cells by column, which are still to be read, or what the network takes."""

    n_rows: int
    cells: dict[str, list[Any]] | None = None
    X: Array | None = None


class TableRows:
    """Reads raw rows of a table: objects or lists in JSON, or CSV with the file's own header."""

    def __init__(self, table: Table, unknown: str) -> None:
        self.table, self.unknown = table, unknown
        self.names = [column.name for column in table.inputs]

    def of_json(self, body: bytes) -> Rows:
        """Return the rows of a JSON body."""
        rows, columns = document(body)
        if isinstance(rows[0], dict):
            if columns is not None:
                _refuse("columns must be left out if rows are objects, which have their own names")
            return Rows(len(rows), self._of_objects(rows))
        return Rows(len(rows), self._of_lists(rows, columns))

    def _of_objects(self, rows: list[Any]) -> dict[str, list[Any]]:
        try:
            cells = {name: [row[name] for row in rows] for name in self.names}
        except (KeyError, TypeError):
            self._refuse_objects(rows)
        for name, values in cells.items():
            _check_cells(name, values)
        return cells

    def _refuse_objects(self, rows: list[Any]) -> NoReturn:
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                _refuse(f"rows must be all objects or all lists, got {_kind(row)} in row {number}")
            missing = [shown(name) for name in self.names if name not in row]
            if missing:
                columns = f"columns {listed(missing)}" if len(missing) > 1 else f"column {missing[0]}"
                _refuse(
                    f"row {number} has no {columns}. It must have {listed(self.names)}, with null for a missing value"
                )
        raise AssertionError("rows were refused without a reason")

    def _of_lists(self, rows: list[Any], columns: Any) -> dict[str, list[Any]]:
        names = self.names
        if columns is not None:
            if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
                _refuse(f"columns must be a list of names, got {_kind(columns)}")
            if len(set(columns)) < len(columns):
                _refuse("columns must be different names")
            missing = [shown(name) for name in names if name not in columns]
            if missing:
                _refuse(f"columns must hold {listed(names)}; missing: {listed(missing)}")
            names = columns
        for number, row in enumerate(rows):
            if not isinstance(row, list):
                _refuse(f"rows must be all objects or all lists, got {_kind(row)} in row {number}")
            if len(row) != len(names):
                _refuse(f"row {number} must have {len(names)} values, got {len(row)}. They are {listed(names)}")
        cells = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        for name in self.names:
            _check_cells(name, cells[name])
        return {name: cells[name] for name in self.names}

    def of_csv(self, body: bytes, encoding: str | None) -> Rows:
        """Return the rows of a CSV body."""
        sheet = _sheet(body, encoding, self.table.header)
        return Rows(sheet.n_rows, X=self.table.read_inputs(sheet, unknown=self.unknown))

    def inputs(self, several: Sequence[Rows]) -> Array:
        """Return what the network takes of the rows of some requests, one after the other."""
        found = []
        waiting = [rows.cells for rows in several if rows.cells is not None]
        read = self._read(waiting) if waiting else None
        start = 0
        for rows in several:
            if rows.X is not None:
                found.append(rows.X)
            elif read is not None:
                found.append(read[start : start + rows.n_rows])
                start += rows.n_rows
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _read(self, several: Sequence[dict[str, list[Any]]]) -> Array:
        if len(several) == 1:
            cells = several[0]
        else:
            cells = {name: [cell for each in several for cell in each[name]] for name in self.names}
        sheet = Sheet(WHERE, SOURCE, self.names, [objects(cells[name]) for name in self.names])
        return self.table.read_inputs(sheet, unknown=self.unknown)


class NumberRows:
    """Reads rows of numbers: what the network takes, or the pixels of images."""

    def __init__(self, n_inputs: int, dtype: FloatDType, images: Images | None = None) -> None:
        self.n_inputs, self.dtype, self.images = n_inputs, dtype, images

    def of_json(self, body: bytes) -> Rows:
        """Return the rows of a JSON body."""
        rows, columns = document(body)
        if columns is not None:
            _refuse("columns must be left out, because this model knows no column names")
        if b"true" in body or b"false" in body:  # NumPy takes them for 1 and 0
            _refuse("rows must hold numbers, got true or false")
        if self.images is not None:
            values = check.plain(WHERE, "rows", rows)
            flat = len(rows) > 0 and values.shape == (len(rows), self.n_inputs)
            if flat or values.shape[1:] == self.images.shape:
                return self._pixels(values)
            sizes = " × ".join(map(str, self.images.shape))
            _refuse(f"rows must be images of {sizes} numbers, flat or as lists in lists, got shape {values.shape}")
        return Rows(len(rows), X=self._finite(self._array(rows)))

    def _array(self, rows: list[Any]) -> Array:
        with contextlib.suppress(ValueError):  # which `check.rows` says in a sentence; here it takes half the time
            values = np.asarray(rows)
            if values.shape == (len(rows), self.n_inputs) and values.dtype.kind in "if":
                with np.errstate(over="ignore"):
                    return values.astype(self.dtype)
        for number, row in enumerate(rows):
            if not isinstance(row, list):
                _refuse(f"row {number} must be a list of {self.n_inputs:,} numbers, got {_kind(row)}")
            if len(row) != self.n_inputs:
                _refuse(f"row {number} must have {self.n_inputs:,} numbers, got {len(row):,}")
            for place, value in enumerate(row):
                if not isinstance(value, int | float):
                    _refuse(f"row {number} must hold numbers, got {_kind(value)} in column {place}")
        return check.rows(WHERE, "rows", rows, self.n_inputs, self.dtype)

    def of_csv(self, body: bytes, encoding: str | None) -> Rows:
        """Return the rows of a CSV body, which may have a header."""
        sheet = _sheet(body, encoding, None)
        if len(sheet.names) != self.n_inputs:
            _refuse(f"{SOURCE} must have {self.n_inputs:,} columns, got {len(sheet.names):,}")
        values = np.empty((sheet.n_rows, self.n_inputs), np.float64)
        for place in range(self.n_inputs):
            values[:, place] = sheet.numbers(place)
            wrong = np.flatnonzero(np.isnan(values[:, place]))
            if len(wrong):
                row = int(wrong[0])
                found = f"{shown(sheet.columns[place][row])} in column {place + 1}"
                _refuse(f"{SOURCE} must hold numbers, got {found}, {sheet.place_of(row)}")
        if self.images is not None:
            return self._pixels(values)
        with np.errstate(over="ignore"):
            return Rows(len(values), X=self._finite(values.astype(self.dtype)))

    def _pixels(self, values: Array) -> Rows:
        assert self.images is not None
        with np.errstate(over="ignore"):
            X = self.images.inputs(values.reshape(-1, *self.images.shape)).astype(self.dtype, copy=False)
        return Rows(len(X), X=self._finite(X))

    def _finite(self, X: Array) -> Array:
        if not np.isfinite(X).all():
            row, column = (int(i) for i in np.argwhere(~np.isfinite(X))[0])
            _refuse(f"rows must hold numbers that {X.dtype.name} can hold, got another in row {row}, column {column}")
        return X

    def inputs(self, several: Sequence[Rows]) -> Array:
        """Return what the network takes of the rows of some requests, one after the other."""
        found = [rows.X for rows in several if rows.X is not None]
        return found[0] if len(found) == 1 else np.concatenate(found)


class Body(Source):
    """A body of CSV."""

    def refuse_encoding(self) -> NoReturn:
        """Say that it is in another encoding, and which header names it."""
        encoding = "UTF-8" if self._encoding is None else self._encoding
        self.refuse(f"is not text in {encoding}. Name its encoding: Content-Type: text/csv; charset=latin-1")


def document(body: bytes) -> tuple[list[Any], Any]:
    """Return the rows, one at least, and the names of columns or None, of a JSON body."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body must be JSON in UTF-8: {error}.") from None
    if not isinstance(found, dict) or "rows" not in found:
        _refuse(f"the body must be an object such as {FORM}, got {_kind(found)}{_without_rows(found)}")
    strangers = [shown(key) for key in found if key not in ("rows", "columns")]
    if strangers:
        _refuse(f"the body must have rows and may have columns, got {listed(strangers)} too")
    rows = found["rows"]
    if not isinstance(rows, list):
        _refuse(f"rows must be a list of rows, got {_kind(rows)}")
    if not rows:
        _refuse("rows must be one or more, got none")
    return rows, found.get("columns")


def _without_rows(found: Any) -> str:
    return " without rows" if isinstance(found, dict) else ""


def _sheet(body: bytes, encoding: str | None, header: bool | None) -> Sheet:
    """Return the cells of a CSV body. Other formats of tables are not looked for: their readers trust what they get."""
    source = Body(WHERE, io.BytesIO(body), encoding)
    source.name = SOURCE
    try:
        sheet = read_csv(source, header)
    except DataFileError as error:
        raise RequestError(400, str(error).removeprefix(f"{WHERE}: ")) from None
    sheet.source = SOURCE
    return sheet


def _check_cells(name: str, values: list[Any]) -> None:
    """Refuse lists and objects among the cells of a column."""
    for number, value in enumerate(values):
        if isinstance(value, list | dict):
            allowed = "numbers, texts, true, false or null"
            _refuse(f"column {shown(name)} must hold {allowed}, got {_kind(value)} in row {number}")


def _kind(value: Any) -> str:
    """Return what a value of JSON is, in JSON's words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return abridged(value)


def _refuse(sentence: str) -> NoReturn:
    raise RequestError(422, f"{sentence}.")
