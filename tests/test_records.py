"""Tables that are Python objects: data frames, dicts of columns, lists of dicts."""

from __future__ import annotations

import datetime
import decimal
import io

import numpy as np
import pytest

import nnx
from nnx.data.columns import Ignored, Number, Text

pytestmark = pytest.mark.one_backend

TABLE = nnx.Table(
    [
        Ignored("id"),
        Number("area", 60, 20),
        Text("town", ("Graz", "Linz")),
        Text("rooms", ("1", "2")),
        Number("price", 1000, 100, decimal=",", thousands=".", unit="€"),
        Text("y", ("no", "yes")),
    ],
    "y",
)
EXPECTED = [[0.5, 1, 0, 0, 1, 2], [0, 0, 1, 1, 0, 2.345]]
COLUMNS = {"price": [1200, 1234.5], "town": ["Graz", "Linz"], "rooms": [2, 1], "area": [70, None], "more": [0, 0]}


class Frame:
    """The common part of data frames."""

    def __init__(self, columns):
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name):
        return self._columns[name]


SOURCES = {
    "dict of lists": COLUMNS,
    "dict of arrays": {**COLUMNS, "area": np.array([70, np.nan], "f4"), "rooms": np.array([2, 1], "i2")},
    "rooms as floats": {**COLUMNS, "rooms": [2.0, 1.0]},
    "numbers as text": {**COLUMNS, "area": [" 70", "NA"], "rooms": ["2", "1.0"], "price": ["1.200", "1.234,5 €"]},
    "decimals": {**COLUMNS, "price": [decimal.Decimal("1200"), decimal.Decimal("1234.5")]},
    "tuples": {name: tuple(values) for name, values in COLUMNS.items()},
    "list of dicts": [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)],
    "list of dicts that lack a key": [
        {"price": 1200, "town": "Graz", "rooms": 2, "area": 70},
        {"town": "Linz", "price": 1234.5, "rooms": 1},
    ],
    "frame": Frame(COLUMNS),
    "open text": lambda: io.StringIO('area,town,rooms,price\n70,Graz,2,1.200\n,Linz,1,"1.234,5"\n'),
    "open bytes": lambda: io.BytesIO("\ufeffarea;town;rooms;price\n70;Graz;2;1.200\n;Linz;1;1.234,5 €\n".encode()),
}


@pytest.mark.parametrize("case", SOURCES)
def test_inputs_are_read_from_what_has_named_columns(case):
    source = SOURCES[case]
    np.testing.assert_allclose(TABLE.read_inputs(source() if callable(source) else source), EXPECTED, rtol=1e-6)


def test_data_frames_of_pandas_are_read():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    np.testing.assert_allclose(TABLE.read_inputs(frame), EXPECTED, rtol=1e-6)
    frame["rooms"] = pandas.array([2, 1], dtype="Int64")
    frame["area"] = pandas.array([70, pandas.NA], dtype="Float64")
    frame["town"] = frame["town"].astype("category")
    np.testing.assert_allclose(TABLE.read_inputs(frame.set_index("more")), EXPECTED, rtol=1e-6)
    frame.columns = ["price", "town", "rooms", "rooms", "more"]
    with pytest.raises(nnx.DataFileError, match=r"Table\.read_inputs: the DataFrame has two columns 'rooms'\."):
        TABLE.read_inputs(frame)


def test_samples_are_read_from_objects_too_and_rows_without_a_target_left_out():
    X, y = TABLE.read_samples({**COLUMNS, "y": ["yes", None]})
    np.testing.assert_allclose(X, EXPECTED[:1])
    assert y.tolist() == [1]
    with pytest.raises(nnx.DataFileError, match=r"the dict holds no value in column 'y', which is to be predicted\."):
        TABLE.read_samples({**COLUMNS, "y": [None, ""]})


def test_objects_have_names_where_files_have_none():
    table = nnx.Table([Number("column 1"), Number("column 2"), Number("column 3")], "column 2", header=False)
    np.testing.assert_array_equal(table.read_inputs({"column 3": [5], "column 1": [3]}), [[3, 5]])
    np.testing.assert_array_equal(table.read_inputs({"a": [3], "b": [5]}), [[3, 5]])


def test_whatever_else_is_a_category_is_known_by_its_text():
    table = nnx.Table([Text("x", ("True", "2024-01-05")), Number("y")], "y")
    X = table.read_inputs({"x": [True, np.bool_(True), datetime.date(2024, 1, 5), None, float("nan")]})
    np.testing.assert_array_equal(X, [[1, 0], [1, 0], [0, 1], [0, 0], [0, 0]])


def test_problems_name_the_row_of_the_object():
    with pytest.raises(nnx.DataFileError) as error:
        TABLE.read_inputs({**COLUMNS, "town": ["Graz", "Wien"], "area": [70, "big"], "price": [1200, np.inf]})
    assert str(error.value) == (
        "Table.read_inputs: the dict has 3 problems:\n"
        "  row 1: holds 'big' in column 'area', which must hold numbers\n"
        "  row 1: holds 'Wien' in column 'town', which is not one of the 2 known values: Graz, Linz\n"
        "  row 1: holds 'inf' in column 'price', which must hold numbers such as €1.234,50\n"
        "Pass unknown='missing' to take such texts for missing values."
    )


WRONG = {
    "a number": (3, TypeError, "data must be a file, a data frame, a dict of columns or a list of dicts, got 3."),
    "nothing": (None, TypeError, "got None."),
    "no rows": ([], TypeError, "got []."),
    "lists": ([[1, 2]], TypeError, "got [[1, 2]]."),
    "an array": (np.zeros((500, 3)), TypeError, "got a ndarray of shape (500, 3)."),
    "long lists": ([list(range(10_000))] * 1000, TypeError, "..."),
    "one row": (
        {"area": 70},
        TypeError,
        "the dict must hold lists of values, got 70 for 'area'. Give one row as [{...}].",
    ),
    "a text": ({"area": "x" * 10_000}, TypeError, "must hold lists of values, got 'xxx"),
    "lengths": (
        {"area": [1, 2], "town": ["Graz"]},
        nnx.DataFileError,
        "the dict must have columns of one length, got 2 values for 'area' and 1 for 'town'.",
    ),
    "empty columns": ({"area": []}, nnx.DataFileError, "the dict must have one row at least, got none."),
    "an empty dict": ({}, nnx.DataFileError, "the dict must have one row at least, got none."),
    "missing columns": ({"area": [1]}, nnx.DataFileError, "the dict has no columns 'town', 'rooms', 'price'. Its"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_table_is_refused_and_never_printed_whole(case):
    data, kind, sentence = WRONG[case]
    with pytest.raises(kind) as error:
        TABLE.read_inputs(data)
    assert str(error.value).startswith("Table.read_inputs: ")
    assert sentence in str(error.value)
    assert len(str(error.value)) < 300


def test_wrong_arguments_of_load_csv_are_not_printed_whole_either(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n1,2\n3,4\n")
    for arguments in (
        {"path": COLUMNS | {"long": ["x"] * 10_000}, "target": "y"},
        {"path": ["x" * 5000] * 5000, "target": "y"},
        {"path": tmp_path / "t.csv", "target": "x" * 10_000},
        {"path": tmp_path / "t.csv", "target": "y", "drop": "x" * 10_000},
        {"path": tmp_path / "t.csv", "target": "y", "drop": ["x" * 10_000] * 1000},
    ):
        with pytest.raises((TypeError, ValueError)) as error:
            nnx.load_csv(**arguments)
        assert len(str(error.value)) < 1500 + len(str(tmp_path)), str(error.value)[:200]
