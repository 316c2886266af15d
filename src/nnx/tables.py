"""Tables: CSV files turned into what a network takes, and its outputs into the target's own names and units."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from nnx import _check, _config
from nnx._sheet import Sheet, count, is_gap, listed, shown
from nnx._typing import Array, Path
from nnx.columns import Column, Ignored, Number, Text, described_column, learnt, learnt_target

#: A table prints no more columns than this.
SHOWN_COLUMNS = 30


class Table:
    """What was learnt about the columns of a CSV file: it leads from raw files to inputs, and from outputs to answers.

    `load_csv` makes one. A model that is given it (``model.set(table=...)``) keeps it in its file.

    Attributes
    ----------
    columns : tuple
        Of the file, in its order: each has a ``name`` and a ``kind``, "number" (with ``mean`` and ``scale``), "text"
        (with ``categories``) or "ignored", and the number of ``gaps`` in the file that it was learnt from.
    target : column
        The one that is to be predicted.
    header : bool
        Whether the file begins with the columns' names.
    n_inputs, n_outputs : int
        Columns that the network takes, and gives if each class has an output.
    input_names : list of str
        Of the network's inputs: "age", "town=Graz", ...
    classes : tuple of str, or None
        Names of the classes, by class number; None for a target of numbers.

    Examples
    --------
    >>> from nnx.columns import Number, Text
    >>> from nnx import Table
    >>> table = Table([Number("area", mean=70, scale=20), Text("town", ("Graz", "Linz")), Number("rent")], "rent")
    >>> table.input_names
    ['area', 'town=Graz', 'town=Linz']
    """

    def __init__(self, columns: Sequence[Column], target: str, header: bool = True) -> None:
        self.columns = tuple(columns) if isinstance(columns, Sequence) else (columns,)
        self.header = _check.flag("Table", "header", header)
        strangers = [column for column in self.columns if not isinstance(column, Number | Text | Ignored)]
        if strangers:
            raise TypeError(f"Table: columns must be of the classes in nnx.columns, got {strangers[0]!r}.")
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names) or target not in names:
            raise ValueError(f"Table: columns must have different names, target among them, got {names}, {target!r}.")
        column = self.columns[names.index(target)]
        if isinstance(column, Ignored):
            raise ValueError(f"Table: target must be a column of numbers or text, got {column}.")
        if isinstance(column, Text) and column.width < 2:
            raise ValueError(f"Table: target must have two classes or more, got {column}.")
        self.target: Number | Text = column

    @property
    def inputs(self) -> list[Number | Text]:
        """The columns that the network gets something of."""
        return [each for each in self.columns if not isinstance(each, Ignored) and each is not self.target]

    @property
    def n_inputs(self) -> int:
        """How many columns the network takes."""
        return sum(column.width for column in self.inputs)

    @property
    def n_outputs(self) -> int:
        """How many columns the network gives: one for numbers, else one a class."""
        return self.target.width

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes; None for a target of numbers."""
        return self.target.categories if isinstance(self.target, Text) else None

    @property
    def input_names(self) -> list[str]:
        """Names of the network's inputs."""
        names = []
        for column in self.inputs:
            if isinstance(column, Text):
                names += [f"{column.name}={category}" for category in column.categories]
            else:
                names.append(column.name)
        return names

    # From files to arrays

    def read_inputs(self, path: Path) -> Array:
        """Return what a network takes from a CSV file with the same columns; the target's may be missing.

        Parameters
        ----------
        path : str or path
            With a header, columns are found by their names, and others are passed over; without one, by their places.

        Returns
        -------
        array (rows, n_inputs) of the default dtype

        Raises
        ------
        DataFileError
            If a column is missing, or a cell is no number or no category that is known. The sentence names it.
        """
        sheet = Sheet("Table.read_inputs", path, self.header)
        return self._inputs(sheet, self._places(sheet, with_target=False))

    def read_samples(self, path: Path) -> tuple[Array, Array]:
        """Return inputs and targets from a CSV file with the same columns.

        Returns
        -------
        X : array (rows, n_inputs)
        y : intp array (rows,) of class numbers, or array (rows, 1) of standardized numbers
            A class's name may end in a full stop that the name known for it lacks.

        Raises
        ------
        DataFileError
            As `read_inputs` does, and if a target is missing or no known class.
        """
        sheet = Sheet("Table.read_samples", path, self.header)
        return self._samples(sheet, self._places(sheet, with_target=True))

    def _places(self, sheet: Sheet, with_target: bool) -> dict[str, int]:
        """Return the position of each column in the file."""
        names = [column.name for column in self.columns]
        if not self.header:
            shorter = [name for name in names if name != self.target.name]
            found = next((each for each in (names, shorter) if len(each) == len(sheet.names)), None)
            if found is None or (with_target and found is shorter):
                least = "" if with_target else f", or {len(shorter)} without {shown(self.target.name)}"
                sheet.refuse(f"has {count(len(sheet.names), 'column')}, and must have {len(names)}{least}")
            return {name: place for place, name in enumerate(found)}
        places = {name: place for place, name in enumerate(sheet.names)}
        for column in self.inputs + [self.target] * with_target:
            if column.name not in places:
                sheet.refuse(f"has no column {shown(column.name)}. Its columns are {listed(sheet.names)}")
        return places

    def _samples(self, sheet: Sheet, places: dict[str, int]) -> tuple[Array, Array]:
        return self._inputs(sheet, places), self._targets(sheet, places[self.target.name])

    def _inputs(self, sheet: Sheet, places: dict[str, int]) -> Array:
        X = np.zeros((len(sheet.rows), self.n_inputs), _config.get_default_dtype())
        start = 0
        for column in self.inputs:
            place = places[column.name]
            if isinstance(column, Number):
                numbers = column.standardized(sheet, place)
                X[:, start] = np.where(np.isnan(numbers), 0, numbers)
            else:
                codes = column.codes(sheet, place)
                known = np.flatnonzero(codes >= 0)
                X[known, start + codes[known]] = 1
            start += column.width
        return X

    def _targets(self, sheet: Sheet, place: int) -> Array:
        for row, cell in enumerate(sheet.column(place)):
            if is_gap(cell):
                sheet.refuse(f"holds {cell!r} in column {shown(self.target.name)}, which is to be predicted", row)
        if isinstance(self.target, Number):
            return self.target.standardized(sheet, place).astype(_config.get_default_dtype()).reshape(-1, 1)
        return self.target.codes(sheet, place, full_stops=True)

    # From outputs to answers

    def decode(self, outputs: Any) -> Array:
        """Return what a network's outputs say, in the target's own terms.

        Parameters
        ----------
        outputs : array (n, n_outputs), for two classes also (n, 1)
            One output for two classes is the probability of the second.

        Returns
        -------
        array (n,)
            Names of classes, as str objects, or float64 numbers in the target's own units.
        """
        if isinstance(self.target, Number):
            values = _check.rows("Table.decode", "outputs", outputs, 1, np.dtype(np.float64))
            self._check_answers(values)
            return values[:, 0] * self.target.scale + self.target.mean
        values = _check.matrix("Table.decode", "outputs", outputs)
        self._check_answers(values)
        if not self.fits(values.shape[1]):
            raise ValueError(f"Table.decode: outputs must have shape (n, {self.n_outputs}), got {values.shape}.")
        numbers = np.argmax(values, axis=1) if values.shape[1] > 1 else (values[:, 0] > 0.5).astype(np.intp)
        names: Array = np.array(self.classes, dtype=object)  # one text may be long, and the others need not be
        return np.asarray(names[numbers])

    def _check_answers(self, outputs: Array) -> None:
        good = np.isfinite(outputs).all(axis=1)
        if not good.all():
            row = int(np.argmin(good))
            raise ValueError(f"Table.decode: outputs must be finite numbers, got {outputs[row].tolist()} in row {row}.")

    def fits(self, n_outputs: int) -> bool:
        """Return whether a network with so many outputs can predict the target; for two classes, one may do."""
        return n_outputs == self.n_outputs or (n_outputs == 1 and self.n_outputs == 2)

    # To and from model files

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        columns = [{"kind": column.kind, **asdict(column)} for column in self.columns]
        for column in columns:
            if "categories" in column:
                column["categories"] = list(column["categories"])
        return {"header": self.header, "target": self.target.name, "columns": columns}

    @classmethod
    def from_dict(cls, described: Any) -> Table:
        """Return the table that `to_dict` described; a ValueError or TypeError says what is wrong with another one."""
        if not isinstance(described, dict) or set(described) != {"header", "target", "columns"}:
            raise ValueError("a table is not described")
        if not isinstance(described["columns"], list):
            raise ValueError("the columns of a table are not described")
        columns = [described_column(each) for each in described["columns"]]
        return cls(columns, described["target"], described["header"])

    def __repr__(self) -> str:
        rows = [f"{shown(column.name)}: {column.summary()}" for column in self.inputs[:SHOWN_COLUMNS]]
        if len(self.inputs) > SHOWN_COLUMNS:
            rows.append(f"and {len(self.inputs) - SHOWN_COLUMNS:,} more columns")
        rows.append(f"target {shown(self.target.name)}: {self.target.summary()}")
        return "Table(\n" + "".join(f"  {row},\n" for row in rows) + ")"


# Learning the columns of a file


def load_csv(
    path: Path,
    target: str | int,
    *,
    test_size: float = 0.2,
    seed: int = 0,
    header: bool | None = None,
    task: str | None = None,
    text: Collection[str | int] = (),
    drop: Collection[str | int] = (),
    gaps: str = "fill",
) -> tuple[Array, Array, Array, Array, Table]:
    """Return the rows of a CSV file as training and test samples, and what was learnt about its columns.

    Numbers are standardized with the mean and the standard deviation of the training rows; texts become one-hot
    columns. A gap (an empty cell, ``?``, ``NA``, ``N/A``, ``NaN``, ``NULL``) is filled with the mean of the
    training rows; among texts, it is none of the categories.

    Parameters
    ----------
    path : str or path
        UTF-8 text; cells are separated by commas, semicolons, tabs or bars, whichever the first row has most of.
    target : str or int
        The column to predict: its name, or its position as Python counts (−1 is the last).
    test_size : float
        The part of the rows, drawn at random, that is kept for testing: from 0 (none) up to, but not including, 1.
    seed : int
        Of that drawing, and of the training rows' order.
    header : bool, optional
        Whether the first row holds names. Without it, it does if none of its cells is a number and no two are the same.
        Columns without a name are called ``"column 1"``, ``"column 2"``, ...
    task : "classification" or "regression", optional
        Without it, a target of texts, or of at most 10 different whole numbers with 10 rows each or more, is for
        classification.
    text : list of names or positions
        Columns of numbers to be taken as texts, such as numbers of months or shops.
    drop : list of names or positions
        Columns that the network shall not get, such as numbers of rows.
    gaps : "fill" or "refuse"
        What to do about gaps in this file; those in files that the table reads later are filled.

    Returns
    -------
    X : array (rows, table.n_inputs) of the default dtype
    y : intp array (rows,) of class numbers, or array (rows, 1) of standardized numbers
    X_test, y_test : the same of the test rows
    table : Table

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataFileError
        If a column or a cell is not what it must be; the sentence names it.

    Notes
    -----
    Categories and classes are those of the whole file, so that no text of a test row is unknown.
    """
    where = "load_csv"
    test_size = _check.fraction(where, "test_size", test_size)
    seed = _check.whole(where, "seed", seed, 0, 2**32 - 1)
    _check.one_of(where, "task", task, (None, "classification", "regression"))
    _check.one_of(where, "gaps", gaps, ("fill", "refuse"))
    sheet = Sheet(where, path, header)
    name = sheet.name_of("target", target)
    as_text, dropped = _names(sheet, "text", text), _names(sheet, "drop", drop)
    if name in dropped:
        raise ValueError(f"{where}: drop must not hold the target, got {name!r}.")
    if name in as_text and task == "regression":
        raise ValueError(f"{where}: text must not hold the target of a regression, got {name!r}.")
    training_rows, test_rows = _split(sheet, test_size, seed)
    columns: list[Column] = []
    for place, each in enumerate(sheet.names):
        if each in dropped:
            columns.append(Ignored(each))
            continue
        if gaps == "refuse":
            sheet.refuse_gaps(place)
        if each == name:
            columns.append(learnt_target(sheet, place, training_rows, "classification" if each in as_text else task))
        else:
            columns.append(learnt(sheet, place, training_rows, each in as_text))
    table = Table(columns, name, sheet.header)
    if table.n_inputs == 0:
        sheet.refuse(f"has no column beside {shown(name)} to predict it from")
    X, y = table._samples(sheet, {each: place for place, each in enumerate(sheet.names)})
    return X[training_rows], y[training_rows], X[test_rows], y[test_rows], table


def _names(sheet: Sheet, role: str, given: Collection[str | int]) -> set[str]:
    """Return the names of columns that are given by their names or positions."""
    if isinstance(given, str) or not isinstance(given, Collection):
        raise TypeError(f"{sheet.where}: {role} must be a list of names, got {given!r}. Write [{given!r}].")
    return {sheet.name_of(role, each) for each in given}


def _split(sheet: Sheet, test_size: float, seed: int) -> tuple[Array, Array]:
    """Return the training rows and the test rows, both in a drawn order."""
    n_test = round(len(sheet.rows) * test_size)
    if test_size and not 0 < n_test < len(sheet.rows):
        sheet.refuse(f"has {count(len(sheet.rows), 'row')}, too few to keep a part of {test_size} for testing")
    order = np.random.RandomState(seed).permutation(len(sheet.rows))
    return order[n_test:], order[:n_test]


def column_names(path: Path, header: bool | None = None) -> list[str]:
    """Return the names that `load_csv` would give a file's columns."""
    return Sheet("column_names", path, header).names
