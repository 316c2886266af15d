"""Tables: from CSV files to a network's inputs, and from its outputs to the target's classes or units."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import IO, Any

import numpy as np

from nnx._base import check, config
from nnx._base.typing import Array, ArrayLike, Path
from nnx.data.answers import check_answers, chosen_categories
from nnx.data.columns import (
    Column,
    Date,
    Ignored,
    Number,
    Text,
    described_column,
    description,
)
from nnx.data.learning import learnt, propose_dropping, row_numbers
from nnx.data.preparation import Preparation
from nnx.data.problems import Problems
from nnx.data.records import sheet_of
from nnx.data.roles import (
    MOST_MISSING,
    Roles,
    check_choices,
    check_roles,
    checked_rows,
    names_of,
    positions_without,
    read_table,
    roles_of,
    rows_without,
    split_rows,
)
from nnx.data.scaling import STANDARD
from nnx.data.sheet import Sheet, count, listed, shown
from nnx.data.summaries import summaries


class Table:
    """A fitted preprocessor of a table's columns: it turns raw files into inputs, and outputs into answers.

    `load_csv` returns one. A model that gets it with ``model.set(table=...)`` keeps it in its file.

    Parameters
    ----------
    columns : sequence of Number, Text, Date or Ignored
        The file's columns, in its order, with different names. These classes are in `nnx.data.columns`.
    target : str
        The name of the column to predict. It must be a `Number` or a `Text`.
    header : bool
        Whether the file begins with the columns' names.

    Attributes
    ----------
    columns : tuple
        Of the file, in its order: each has a ``name`` and a ``kind``, "number" (with ``mean`` and ``scale``), "text"
        (with ``categories``), "date" (with ``parts``) or "ignored", and the number of ``gaps`` in the file that it was
        learnt from.
    target : column
        The column to predict.
    header : bool
        Whether the file begins with the columns' names.
    n_inputs, n_outputs : int
        Columns of the network's inputs, and of its outputs if each class has one.
    input_names : list of str
        Of the network's inputs: "age", "age is missing", "town=Graz", "joined.year", ...
    numeric : tuple of int
        The inputs that hold numbers. The others say which category a text is, or whether a value is missing.
    embedded : tuple of (int, int)
        Which inputs hold the number of a category, for a `nnx.Layer_Embedding`, each with how many such numbers there
        are: 0 is a missing value. () unless the table was learnt with ``one_hot``.
    classes : tuple of str, or None
        Names of the classes, by class number; None for a target of numbers.
    n_left_out : int
        Rows without a target that `load_csv` left out; 0 for a table from elsewhere, such as a model's file.
    row_numbers : tuple of str
        Columns that seem to number the rows; consider dropping them. () for a table from elsewhere.
    left_out : dict of str
        Columns that `learn` or `load_csv` left out with ``lenient=True``, and why; empty for a table from elsewhere.

    Examples
    --------
    >>> from nnx.data.columns import Number, Text
    >>> from nnx import Table
    >>> table = Table([Number("area", mean=70, scale=20), Text("town", ("Graz", "Linz")), Number("rent")], "rent")
    >>> table.input_names
    ['area', 'town=Graz', 'town=Linz']
    """

    def __init__(self, columns: Sequence[Column], target: str, header: bool = True) -> None:
        self.columns = tuple(columns) if isinstance(columns, Sequence) else (columns,)
        self.header = check.flag("Table", "header", header)
        strangers = [column for column in self.columns if not isinstance(column, Number | Text | Date | Ignored)]
        if strangers:
            raise TypeError(f"Table: columns must be of the classes in nnx.data.columns, got {strangers[0]!r}.")
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names) or target not in names:
            raise ValueError(f"Table: columns must have different names, target among them, got {names}, {target!r}.")
        column = self.columns[names.index(target)]
        if isinstance(column, Ignored | Date):
            raise ValueError(f"Table: target must be a column of numbers or text, got {column}.")
        if isinstance(column, Number) and (column.scaling != STANDARD or column.indicator):
            raise ValueError(f"Table: target must be standardized, without an indicator, got {column}.")
        if isinstance(column, Text) and (column.pooled or column.as_code):
            raise ValueError(f"Table: target must have its classes alone, got {column}.")
        if isinstance(column, Text) and column.width < 2:
            raise ValueError(f"Table: target must have two classes or more, got {column}.")
        self.target: Number | Text = column
        self.n_left_out = 0
        self.row_numbers: tuple[str, ...] = ()
        self.left_out: dict[str, str] = {}

    @property
    def inputs(self) -> list[Number | Text | Date]:
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
    def slices(self) -> dict[str, slice]:
        """Which of the network's inputs each column becomes, by its name."""
        return {column.name: slice(start, start + column.width) for start, column in self._starts()}

    @property
    def input_names(self) -> list[str]:
        """Names of the network's inputs."""
        return [name for column in self.inputs for name in column.input_names]

    @property
    def numeric(self) -> tuple[int, ...]:
        """Which inputs hold numbers."""
        return tuple(start + i for start, column in self._starts() for i in column.numeric)

    @property
    def embedded(self) -> tuple[tuple[int, int], ...]:
        """Which inputs hold the number of a category, and how many such numbers there are."""
        return tuple((start, column.embedded) for start, column in self._starts() if column.embedded)

    def _starts(self) -> Iterator[tuple[int, Number | Text | Date]]:
        """Return the input columns, each with the first input that it gives."""
        start = 0
        for column in self.inputs:
            yield start, column
            start += column.width

    # From data to tables

    @classmethod
    def learn(
        cls,
        data: Any,
        target: str | int,
        *,
        training_rows: ArrayLike | None = None,
        header: bool | None = None,
        task: str | None = None,
        text: Collection[str | int] = (),
        drop: Collection[str | int] = (),
        gaps: str = "fill",
        decimal: str | None = None,
        scaling: str = STANDARD,
        indicators: bool = False,
        rare: int = 0,
        one_hot: int | None = None,
        dates: bool | str = True,
        lenient: bool = False,
        encoding: str | None = None,
        progress: bool = False,
    ) -> Table:
        """Return a table fitted to any data; its `read_samples` then returns the samples.

        Parameters
        ----------
        data : path, open file, data frame, dict of columns or list of dicts
            As of `read_inputs`.
        target, header, task, text, drop, gaps, decimal, scaling, indicators, rare, one_hot, dates, lenient, encoding, \
progress
            As of `load_csv`.
        training_rows : array of int, or of bool, optional
            The rows from which means, scales, quantiles and counts of categories are computed: their positions, or one
            flag for each row; all rows if None. Positions count the rows without a target too, but nothing is learnt
            from these, and `read_samples` leaves them out. The kinds of columns, the categories and the classes come
            from all rows.

        Returns
        -------
        Table

        Raises
        ------
        TypeError, ValueError
            For ``data`` that is not a table, and for arguments that are not valid.
        DataFileError
            As of `load_csv`.

        Examples
        --------
        >>> from nnx import Table
        >>> flats = {"area": [50, 70, None, 90], "town": ["Graz", "Linz", "Graz", "Wels"], "rent": [5, 9, 7, 11]}
        >>> table = Table.learn(flats, "rent", task="regression", indicators=True, one_hot=2)
        >>> table.input_names, table.numeric, table.embedded
        (['area', 'area is missing', 'town'], (0,), ((2, 4),))
        >>> X, y = table.read_samples(flats)
        >>> X[2]
        array([0., 1., 1.], dtype=float32)
        """
        check_choices("Table.learn", task, gaps, decimal, progress)
        how = Preparation(scaling, indicators, rare, one_hot, dates, lenient).checked("Table.learn")
        sheet = read_table("Table.learn", data, header, encoding, progress)
        roles = roles_of(sheet, target, task, text, drop, gaps, decimal)
        rows = checked_rows("Table.learn", training_rows, sheet.n_rows)
        if gaps == "fill":
            out = rows_without(sheet, sheet.places[roles.target])
            rows = positions_without(rows, out, sheet.n_rows)
            if len(rows) == 0 and len(out) < sheet.n_rows:
                sheet.refuse(f"holds no value in column {shown(roles.target)} in any of the training rows")
            sheet.leave_out(out.tolist())
        return _learnt_table(sheet, rows, roles, how, Problems(sheet))

    # From tables to arrays

    def read_inputs(self, data: Any, *, unknown: str = "error", encoding: str | None = None) -> Array:
        """Return a network's inputs from a table with the same columns; the target may be missing.

        Parameters
        ----------
        data : path, open file, data frame, dict of columns or list of dicts
            A CSV, Parquet or Feather file, or a Python object with named columns, where None and NaN are missing values
            too. Columns are found by name, and other columns are ignored. In a file without a header, columns are found
            by position.
        unknown : "error" or "missing"
            How to treat a text that is not among its column's categories: as an error, or as a missing value.
        encoding : str, optional
            Of a file's text, as of `load_csv`.

        Returns
        -------
        array (rows, n_inputs) of the default dtype

        Raises
        ------
        TypeError
            If ``data`` is none of these.
        DataFileError
            If columns are missing, or values are not numbers or not known categories. The message names all columns
            with such values, and the first value of each.
        """
        sheet = self._sheet("Table.read_inputs", data, unknown, encoding)
        return self._inputs(sheet, self._places(sheet, with_target=False), unknown)

    def read_samples(self, data: Any, *, unknown: str = "error", encoding: str | None = None) -> tuple[Array, Array]:
        """Return inputs and targets from a table with the same columns.

        Rows without a target are left out.

        Parameters
        ----------
        data, unknown, encoding
            As of `read_inputs`. An unknown class is always an error.

        Returns
        -------
        X : array (rows, n_inputs)
        y : intp array (rows,) of class numbers, or array (rows, 1) of standardized numbers
            A class's name may end in a full stop that the name known for it lacks.

        Raises
        ------
        TypeError, DataFileError
            As `read_inputs`, and if no row has a target, or a target is not a known class.
        """
        sheet = self._sheet("Table.read_samples", data, unknown, encoding)
        places = self._places(sheet, with_target=True)
        out = rows_without(sheet, places[self.target.name], self.classes or ())
        if len(out) == sheet.n_rows:
            sheet.refuse(f"holds no value in column {shown(self.target.name)}, which is to be predicted")
        sheet.leave_out(out.tolist())
        return self._samples(sheet, places, unknown)

    def _sheet(self, where: str, data: Any, unknown: str, encoding: str | None) -> Sheet:
        check.one_of(where, "unknown", unknown, ("error", "missing"))
        sheet = sheet_of(where, data, self.header, encoding)
        sheet.where = where
        return sheet

    def _places(self, sheet: Sheet, with_target: bool) -> dict[str, int]:
        """Return the position of each column in the table."""
        names = [column.name for column in self.columns]
        needed = [column.name for column in self.inputs] + [self.target.name] * with_target
        missing = [shown(name) for name in needed if name not in sheet.places]
        if not self.header and (missing or sheet.lines is not None):
            shorter = [name for name in names if name != self.target.name]
            found = next((each for each in (names, shorter) if len(each) == len(sheet.names)), None)
            if found is None or (with_target and found is shorter):
                least = "" if with_target else f", or {len(shorter)} without {shown(self.target.name)}"
                sheet.refuse(f"has {count(len(sheet.names), 'column')}, and must have {len(names)}{least}")
            return {name: place for place, name in enumerate(found)}
        if missing:
            columns = f"columns {', '.join(missing[:MOST_MISSING])}" if len(missing) > 1 else f"column {missing[0]}"
            more = f" and {len(missing) - MOST_MISSING:,} more" if len(missing) > MOST_MISSING else ""
            sheet.refuse(f"has no {columns}{more}. Its columns are {listed(sheet.names)}")
        return sheet.places

    def _parts(self, sheet: Sheet, *parts: Array) -> list[Array]:
        """Return the samples of some rows, X and y of each part in turn; X of all rows is never made."""
        problems = Problems(sheet)
        y = self._targets(sheet, sheet.places[self.target.name], problems)
        X = [np.zeros((len(rows), self.n_inputs), config.get_default_dtype()) for rows in parts]
        for start, column in self._starts():
            values = column.read(sheet, sheet.places[column.name], problems, "error")
            for rows, inputs in zip(parts, X, strict=True):
                column.fill(inputs[:, start : start + column.width], values[rows])
        problems.refuse()
        return [each for rows, inputs in zip(parts, X, strict=True) for each in (inputs, y[rows])]

    def _samples(self, sheet: Sheet, places: dict[str, int], unknown: str = "error") -> tuple[Array, Array]:
        problems = Problems(sheet)
        X = self._inputs(sheet, places, unknown, problems)
        y = self._targets(sheet, places[self.target.name], problems)
        problems.refuse()
        return X, y

    def _inputs(self, sheet: Sheet, places: dict[str, int], unknown: str, noting: Problems | None = None) -> Array:
        problems = noting or Problems(sheet)
        X = np.zeros((sheet.n_rows, self.n_inputs), config.get_default_dtype())
        for start, column in self._starts():
            values = column.read(sheet, places[column.name], problems, unknown)
            column.fill(X[:, start : start + column.width], values)
        if noting is None:
            problems.refuse()
        return X

    def _targets(self, sheet: Sheet, place: int, problems: Problems) -> Array:
        if isinstance(self.target, Number):
            numbers = self.target.standardized(sheet, place, problems)
            return numbers.astype(config.get_default_dtype()).reshape(-1, 1)
        return self.target.codes(sheet, place, problems, full_stops=True)

    # From outputs to answers

    def decode(self, outputs: Any) -> Array:
        """Return the answers that a network's outputs stand for: classes, or numbers in the target's units.

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
            values = check.rows("Table.decode", "outputs", outputs, 1, np.dtype(np.float64))
            check_answers("Table.decode", values)
            return values[:, 0] * self.target.scale + self.target.mean
        return chosen_categories("Table.decode", self.target.categories, outputs)

    def fits(self, n_outputs: int) -> bool:
        """Return whether a network with so many outputs can predict the target; for two classes, one may do."""
        return n_outputs == self.n_outputs or (n_outputs == 1 and self.n_outputs == 2)

    # To and from model files

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        columns = [description(column) for column in self.columns]
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
        target = f"target {shown(self.target.name)}: {self.target.summary()}"
        return "Table(\n" + "".join(f"  {line},\n" for line in [*summaries(self.inputs), target]) + ")"


# Learning the columns of a file


def load_csv(
    path: Path | IO[Any],
    target: str | int,
    *,
    test_size: float = 0.2,
    seed: int = 0,
    header: bool | None = None,
    task: str | None = None,
    text: Collection[str | int] = (),
    drop: Collection[str | int] = (),
    gaps: str = "fill",
    decimal: str | None = None,
    scaling: str = STANDARD,
    indicators: bool = False,
    rare: int = 0,
    one_hot: int | None = None,
    dates: bool | str = True,
    lenient: bool = False,
    encoding: str | None = None,
    progress: bool = False,
) -> tuple[Array, Array, Array, Array, Table]:
    """Return the rows of a CSV file as training and test samples, and a table fitted to its columns.

    Unless said otherwise, numbers are standardized with the mean and the standard deviation of the training rows, texts
    become one-hot columns, and dates (of ISO 8601, or such as 31.12.2020 and 12/31/2020 if all of a column are) become
    standardized parts: days, year, month, weekday, hour, and the day's place in its year as sine and cosine, without
    those that are the same in all training rows. Missing values are empty ones, ``?``, ``NA``, ``N/A``, ``NaN``,
    ``NULL``, ``-``, ``--`` and ``.``. Among numbers, they are filled with the mean of the training rows; among texts,
    they belong to no category. Rows without a target are left out: ``table.n_left_out`` says how many.

    Numbers may have a currency (``$5``, ``5 EUR``), a percent sign (``12%`` is the number 12), a decimal comma, and
    commas, full stops, blanks or apostrophes between thousands, if the whole column is written in one way.

    Parameters
    ----------
    path : str or path, or a file open for reading
        A text file, whose delimiter is the first of tab, semicolon, bar and comma that splits the first 20 rows into
        equally many values. Or a Parquet or Feather file, for which pyarrow must be installed (the extra
        ``nnx-core[tables]``). With pyarrow, large text files are read several times faster too.
    target : str or int
        The column to predict: its name, or its position as Python counts (−1 is the last).
    test_size : float
        The fraction of the rows, drawn at random, to test on: at least 0, which is none, and below 1.
    seed : int
        Seed of the choice of test rows, and of the order of the training rows.
    header : bool, optional
        Whether the first row holds names. If None, the first row is a header when none of its values is a number. If
        two of its values are the same, there must also be a number below one of them; two columns with one name are
        then an error. Columns without a name are called ``"column 1"``, ``"column 2"``, ...
    task : "classification" or "regression", optional
        If None, the task is classification when the target holds texts, or at most 10 different whole numbers with at
        least 10 rows each.
    text : list of names or positions
        Columns of numbers to take as texts, such as numbers of months or shops.
    drop : list of names or positions
        Columns that the network must not get, such as numbers of rows.
    gaps : "fill" or "refuse"
        Whether to fill missing values in this file, or to refuse the file, also if the target has some. Missing values
        in tables that are read later are always filled.
    decimal : "." or ",", optional
        The decimal mark of columns that can be read in two ways, such as 1,234 and 5,678. Without it, it is a comma if
        other columns of the file can be read with a decimal comma only and none with a full stop only, else a full
        stop.
    scaling : "standard", "robust" or "normal"
        How numbers are scaled by what the training rows hold; the target is standardized in any case. Robust: x less
        the median, divided by the interquartile range (if that is 0, by half the range), then x / √(1 + (x/3)²), which
        nothing leaves ±3 by. Normal: by at most 1,000 quantiles to the number's place in a standard normal
        distribution, clipped at both ends. A missing value is 0, as always.
    indicators : bool
        Whether a column of numbers or dates with missing values in the training rows gets one more input: 1 where a
        value is missing, else 0.
    rare : int
        Categories of fewer training rows than this are pooled into one. If there is such a pool, texts that are unknown
        later belong to it.
    one_hot : int, optional
        Columns of more categories than this one, the pool among them, become one input: the number of the category,
        from 1 on, and 0 for a missing value. ``table.embedded`` says which. Such columns may have up to 50,000
        categories.
    dates : bool, "day first" or "month first"
        Whether columns of dates become parts; if not, they are texts. A text says how to read 01/02/2020 where all of a
        column can be read in both ways. Without it, as other columns of the file; else with the month first, unless the
        day is then the first in all of the column read the other way.
    lenient : bool
        Whether to leave out useless columns: empty ones, those with one value in all training rows, and those with too
        many different texts. Texts among numbers or dates are then missing values, in later tables too, but a column of
        numbers and texts with at most ten different values becomes texts. If False, all these are errors, except
        columns of one value.
    encoding : str, optional
        Encoding of the text, by a name that Python knows, such as "latin-1". If None, it is UTF-8, or UTF-16 if the
        file begins with its byte order mark. A file that is open as text, Parquet and Feather files need none.
    progress : bool
        Whether to show a bar on stderr while a large file is read.

    Returns
    -------
    X : array (rows, table.n_inputs) of the default dtype
    y : intp array (rows,) of class numbers, or array (rows, 1) of standardized numbers
    X_test, y_test : the same of the test rows
    table : Table

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    DataFileError
        If columns or values are not valid. The message names all of them, and the arguments with which the file can
        still be loaded.

    Notes
    -----
    Categories and classes come from the whole file, so no text of a test row is unknown.
    """
    where = "load_csv"
    test_size = check.fraction(where, "test_size", test_size)
    seed = check.whole(where, "seed", seed, 0, 2**32 - 1)
    check_choices(where, task, gaps, decimal, progress)
    how = Preparation(scaling, indicators, rare, one_hot, dates, lenient).checked(where)
    sheet = read_table(where, path, header, encoding, progress)
    roles = roles_of(sheet, target, task, text, drop, gaps, decimal)
    if gaps == "fill":
        out = rows_without(sheet, sheet.places[roles.target])
        sheet.leave_out(out.tolist() if len(out) < sheet.n_rows else ())
    problems = Problems(sheet)
    training_rows, test_rows = split_rows(sheet, test_size, seed, problems)
    table = _learnt_table(sheet, training_rows, roles, how, problems)
    X, y, X_test, y_test = table._parts(sheet, training_rows, test_rows)
    return X, y, X_test, y_test, table


def _learnt_table(sheet: Sheet, training_rows: Array, roles: Roles, how: Preparation, problems: Problems) -> Table:
    """Return the table of a sheet, of which rows without a target have been left out."""
    columns, left_out = learnt(sheet, training_rows, roles, how, problems)
    numbering = row_numbers(sheet, [each for each in columns if each.name != roles.target])
    propose_dropping(problems, numbering)
    problems.refuse()
    table = Table(columns, roles.target, sheet.header)
    if table.n_inputs == 0:
        why = f" ({'; '.join([*left_out.values()][:MOST_MISSING])})" if left_out else ""
        sheet.refuse(f"has no column beside {shown(roles.target)} to predict it from{why}")
    table.n_left_out, table.row_numbers, table.left_out = sheet.n_left_out, numbering, left_out
    return table


def problems_without_target(
    path: Path,
    header: bool | None,
    text: Collection[str | int],
    drop: Collection[str | int],
    decimal: str | None,
) -> Problems:
    """Return what would be in the way of loading a file if none of its columns were the target."""
    sheet = sheet_of("load_csv", path, header)
    as_text, dropped = names_of(sheet, text=text, drop=drop)
    check_roles("load_csv", as_text, dropped)
    problems = Problems(sheet)
    roles = Roles("", as_text=as_text, dropped=dropped, decimal=decimal)
    columns, _ = learnt(sheet, np.arange(sheet.n_rows), roles, Preparation(), problems)
    propose_dropping(problems, row_numbers(sheet, columns))
    return problems
