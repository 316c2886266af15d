"""Numbers as people write them: a whole column is read in one notation, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.data.columns import Number, Text

pytestmark = pytest.mark.one_backend


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "table.csv") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def learnt(write, cells, more=None, **options):
    """Return the column of these cells, from a file with bars as delimiters and a target without information."""
    more = more or ["1"] * len(cells)
    rows = "".join(f"{cell}|{other}|{'ab'[i % 2]}\n" for i, (cell, other) in enumerate(zip(cells, more, strict=True)))
    return nnx.load_csv(write(f"x|z|y\n{rows}"), "y", test_size=0, **options)[4].columns[0]


READ = {
    "thousands": (["1,234.50", "12", "1,000,000"], [1234.5, 12, 1e6]),
    "thousands without decimals": (["1,234,567", "12", "-5,678"], [1234567, 12, -5678]),
    "a decimal comma": (["0,5", "1,25", "-3"], [0.5, 1.25, -3]),
    "full stops between thousands": (["1.234,50", "12", "1.000.000"], [1234.5, 12, 1e6]),
    "blanks between thousands": (["1 234", "12", "1 000 000,5"], [1234, 12, 1000000.5]),
    "narrow blanks": (["1\u202f234,5", "12", "1\u00a0000"], [1234.5, 12, 1000]),
    "apostrophes": (["1'234.50", "12", "1\u2019000"], [1234.5, 12, 1000]),
    "dollars": (["$5", "$1,200.00", "-$3.5", "$-4"], [5, 1200, -3.5, -4]),
    "euros behind": (["5 €", "1.200,00 €", "3,5€"], [5, 1200, 3.5]),
    "pounds": (["£5", "£ 1,200", "7"], [5, 1200, 7]),
    "yen": (["¥500", "¥1,200", "¥7"], [500, 1200, 7]),
    "dollars of a country": (["US$5", "US$1,200", "US$7"], [5, 1200, 7]),
    "codes before": (["EUR 5", "EUR 1,200", "EUR7.5"], [5, 1200, 7.5]),
    "codes behind": (["5 CHF", "1'200.50 CHF", "7.5CHF"], [5, 1200.5, 7.5]),
    "percent": (["5%", "12.5 %", "-3%"], [5, 12.5, -3]),
    "a real minus": (["\u22125", "3", "7"], [-5, 3, 7]),
    "as programs do": (["1e3", ".5", "-2."], [1000, 0.5, -2]),
}


@pytest.mark.parametrize("case", READ)
def test_a_column_that_agrees_is_numbers(write, case):
    cells, numbers = READ[case]
    column = learnt(write, cells)
    assert isinstance(column, Number)
    assert [column.notation.number(cell) for cell in cells] == numbers
    assert column.mean == pytest.approx(np.mean(numbers))
    assert column.scale == pytest.approx(np.std(numbers))


DISAGREE = {
    "two currencies": ["$5", "€6", "$7", "$8"],
    "a decimal comma and a full stop": ["1,5", "2.5", "3,5", "4,5"],
    "percent and none": ["5%", "0.06", "7%", "8%"],
    "groups of two": ["1,234", "12,34,567", "3,456", "4,567"],
    "two marks between thousands": ["1,234,567", "1.234.567", "3,456,789", "1,000,000"],
}


@pytest.mark.parametrize("case", DISAGREE)
def test_a_column_that_does_not_agree_is_an_error_and_never_read_cell_by_cell(write, case):
    odd = DISAGREE[case][1]
    with pytest.raises(
        nnx.DataFileError, match=r"line 3, holds '.*' in column 'x', whose other cells are numbers"
    ) as e:
        learnt(write, DISAGREE[case])
    assert repr(odd) in str(e.value)


def test_what_only_resembles_numbers_is_text(write):
    for cells in (["2024-01", "2024-02"], ["01.02.24", "02.02.24"], ["12:30", "13:30"], ["$0 - $10", "$10+"]):
        assert isinstance(learnt(write, cells * 3), Text), cells
    assert isinstance(learnt(write, ["1,5", "2,5"] * 3, text=["x"]), Text)


def test_a_column_that_can_be_read_in_two_ways_follows_the_others_else_the_comma_is_between_thousands(write):
    both = ["1,234", "5,678", "9"]
    assert learnt(write, both).mean == pytest.approx((1234 + 5678 + 9) / 3)
    assert learnt(write, both, ["0,5", "1,5", "2"]).mean == pytest.approx((1.234 + 5.678 + 9) / 3)
    assert learnt(write, both, ["0.5", "1,000.5", "2"]).mean == pytest.approx((1234 + 5678 + 9) / 3)
    assert learnt(write, both, decimal=",").mean == pytest.approx((1.234 + 5.678 + 9) / 3)
    assert learnt(write, both, ["0,5", "1,5", "2"], decimal=".").mean == pytest.approx((1234 + 5678 + 9) / 3)
    points = ["1.234", "5.678", "9"]
    assert learnt(write, points).mean == pytest.approx((1.234 + 5.678 + 9) / 3)
    assert learnt(write, points, ["0,5", "1,5", "2"]).mean == pytest.approx((1234 + 5678 + 9) / 3)
    assert learnt(write, points, decimal=",").mean == pytest.approx((1234 + 5678 + 9) / 3)
    assert learnt(write, ["1.5", "2.5", "9"], decimal=",").mean == pytest.approx(13 / 3)  # only one way


def test_the_notation_is_kept_in_the_model_file_and_reads_later_files(write, tmp_path):
    path = write("price;share;y\n1.200,50 €;5%;1\n800 €;10%;2\n2.000 €;20%;3,5\n")
    table = nnx.load_csv(path, "y", test_size=0)[4]
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 1))
    model.set(loss=nnx.Loss_MeanSquaredError(), accuracy=nnx.Accuracy_Regression(), table=table)
    model.finalize()
    model.save(tmp_path / "m")
    again = nnx.Model.load(tmp_path / "m").table
    assert again.to_dict() == table.to_dict()
    price, share = again.columns[:2]
    assert (price.decimal, price.thousands, price.unit, share.unit) == (",", ".", "€", "%")
    X = again.read_inputs(write("price;share\n1.234 €;12,5%\n1234;3%\n", "new.csv".replace("new", "later")))
    np.testing.assert_allclose(X[:, 0] * price.scale + price.mean, [1234, 1234], rtol=1e-6)
    for unit in ("$", "US$", "CHF", "zł", "%", ""):
        assert Number("x", unit=unit).unit == unit
    for cell in ("$5;5%", "5 €;5", "5.5 €;5%"):
        with pytest.raises(nnx.DataFileError, match=r"which must hold numbers such as "):
            again.read_inputs(write(f"price;share\n{cell}\n", "new.csv"))


def test_tables_of_the_older_version_are_read_and_plain_numbers_are_written_as_it_does(write):
    old = {
        "header": True,
        "target": "y",
        "columns": [
            {"kind": "number", "name": "x", "mean": 1.0, "scale": 2.0, "gaps": 0},
            {"kind": "text", "name": "y", "categories": ["a", "b"], "gaps": 0},
        ],
    }
    table = nnx.Table.from_dict(old)
    assert table.to_dict() == old
    np.testing.assert_array_equal(table.read_inputs(write("x\n5\n")), [[2]])


def test_a_target_in_a_currency_is_predicted_in_its_numbers(write):
    path = write("x;y\n" + "".join(f"{i};$1,{i:03}.50\n" for i in range(100)))
    _, y, _, _, table = nnx.load_csv(path, "y", test_size=0)
    assert sorted(table.decode(y).round(2).tolist()) == [1000.5 + i for i in range(100)]
    assert "number such as $1,234.50" in repr(table)


def test_a_first_row_of_amounts_is_no_header(write):
    assert not nnx.load_csv(write('"$1,200";a\n"$1,300";b\n"$1,500";a\n'), 1, test_size=0)[4].header


def test_a_columns_notation_must_be_possible():
    for wrong, sentence in (
        ({"decimal": ";"}, r"Number: decimal must be '\.' or ',', got ';'\."),
        ({"thousands": "."}, r"Number: thousands must be .*, got '\.'\."),
        ({"unit": 3}, r"Number: unit must be text, got 3\."),
        ({"unit": "\x1b[2J"}, r"Number: unit must be '%' or a currency, got '\\x1b\[2J'\."),
    ):
        with pytest.raises((TypeError, ValueError), match=sentence):
            Number("x", **wrong)
