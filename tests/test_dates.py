"""Dates and times as people write them: which form a column has, and which parts of a date a network gets."""

from __future__ import annotations

import dataclasses
import datetime

import numpy as np
import pytest
from hypothesis import given, settings, strategies

import nnx
from nnx.data import dates
from nnx.data.cells import cells_of
from nnx.data.columns import Date, Number, Text

pytestmark = pytest.mark.one_backend

MOMENTS = strategies.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999))


def forms(*cells):
    return dates.forms_of(cells_of(cells))


def read(*cells, form=dates.ISO):
    return [None if np.isnat(each) else each.item() for each in dates.moments(cells_of(cells), form)]


def learnt(cells, **keywords):
    """Return the first column of a table that holds these cells and a target."""
    data = {"when": list(cells), "y": [0.5 * row for row in range(len(cells))]}
    return nnx.Table.learn(data, "y", task="regression", **keywords).columns[0]


# Reading


@settings(max_examples=200, deadline=None)
@given(MOMENTS)
def test_iso_dates_come_back(moment):
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    for text, expected in [
        (f"{moment.year:04}-{moment:%m-%d}", day),
        (moment.isoformat(), moment),
        (moment.isoformat(" ", "minutes"), moment.replace(second=0, microsecond=0)),
        (moment.isoformat(timespec="seconds") + "Z", moment.replace(microsecond=0)),
    ]:
        assert forms(text) == (dates.ISO,)
        assert read(text) == [expected]


def test_times_with_a_zone_become_utc():
    moment = datetime.datetime(2020, 1, 5, 12, 30)
    for text in ("13:30+01:00", "13:30+01", "13:30 +0100", "12:30Z", "12:30 UTC", "07:00-05:30", "07:00 AM -0530"):
        assert read(f"2020-01-05 {text}") == [moment], text
    assert read("2020-01-05T00:30+01:00") == [datetime.datetime(2020, 1, 4, 23, 30)]


@settings(max_examples=200, deadline=None)
@given(MOMENTS, strategies.sampled_from(dates.FORMS))
def test_every_form_reads_what_is_written_in_it(moment, form):
    year = moment.year if "Y" in form else 1969 + moment.year % 100
    moment = moment.replace(year=year, day=min(28, moment.day), microsecond=0)
    parts = {"Y": f"{year:04}", "y": f"{year % 100:02}", "m": f"{moment.month}", "d": f"{moment.day:02}"}
    text = "".join(parts.get(each, each) for each in form)
    assert form in forms(text)
    assert read(f"{text} {moment:%H:%M:%S}", form=form) == [moment]
    assert read(f"{text}, {moment:%I:%M:%S %p}", form=form) == [moment]


@pytest.mark.parametrize(
    "text",
    [
        *("2020-02-30", "2020-13-01", "2020-01-01 24:00", "2020-01-01 10:60", "2020-01-01 10", "0000-01-01"),
        *("2020", "2020-01", "20200101", "1.2.20", "1-2-20", "31/31/2020", "2020-01-01 13:00 PM", "2020-01-01 0:30 AM"),
        *("1/2", "12:30", "now", "today", "NaT", "2020-01-01x", "٢٠٢٠-٠١-٠١", "2020-01-01\n", ""),
    ],
)
def test_what_is_no_date_is_none(text):
    assert forms(text) == ()
    assert all(dates.Reader(form).moment(text) is None for form in dates.FORMS)
    assert read(text) == [None]


def test_a_column_has_the_forms_that_read_all_of_it():
    assert forms("31/12/2020", "01/02/2020") == ("d/m/Y",)
    assert forms("12/31/2020", "01/02/2020") == ("m/d/Y",)
    assert forms("01/02/2020", "", "NA") == ("m/d/Y", "d/m/Y")
    assert forms("01/02/2020", "31/12/2020", "12/31/2020") == ()
    assert forms("01/02/2020", "soon") == ()
    assert forms("2020-01-02", "2020-1-3") == (dates.ISO,)
    assert forms("2020-01-02", "02.01.2020") == ()
    assert forms("", "NA") == ()


def test_years_of_two_digits_are_between_1969_and_2068():
    assert [each.year for each in read("1/2/69", "1/2/99", "1/2/00", "1/2/68", form="m/d/y")] == [
        1969,
        1999,
        2000,
        2068,
    ]


def test_columns_that_can_be_read_in_two_ways_follow_the_others_and_what_the_caller_says():
    both = ["01/02/2020", "03/04/2020", "05/06/2021"]
    assert learnt(both).form == "m/d/Y"
    assert learnt(both, dates="day first").form == "d/m/Y"
    assert learnt(both, dates="month first").form == "m/d/Y"
    assert learnt(["01/02/2020", "01/03/2020", "01/06/2021"]).form == "d/m/Y"  # the first of a month, each
    for other, form in (("31.12.2020", "d/m/Y"), ("12-31-2020", "m-d-Y"), ("2020-12-31", "m/d/Y")):
        data = {"a": both, "b": [other] * 3, "y": [0.5, 1.5, 3]}
        found = nnx.Table.learn(data, "y").columns[0].form
        assert found.startswith(form[0]), other


# What a network gets


def test_parts_are_those_of_the_calendar():
    times = np.array(["1969-12-31T18:00", "2020-02-29", "2024-12-31T23:30", "NaT"], "datetime64[us]")
    parts = dates.parts_of(times)
    assert list(parts) == list(dates.PARTS)
    moments = [each.item() for each in times[:3]]
    expected = {
        "days": [-0.25, 18_321, 20_088 + 23.5 / 24],
        "year": [each.year for each in moments],
        "month": [each.month for each in moments],
        "weekday": [each.weekday() for each in moments],
        "sine": [np.sin(2 * np.pi * place) for place in (364 / 365, 59 / 366, 365 / 366)],
        "cosine": [np.cos(2 * np.pi * place) for place in (364 / 365, 59 / 366, 365 / 366)],
        "hour": [18, 0, 23.5],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(parts[name], [*values, np.nan], atol=1e-12, err_msg=name)


@settings(max_examples=50, deadline=None)
@given(strategies.lists(MOMENTS, min_size=1, max_size=5))
def test_parts_of_any_moments_are_those_that_python_finds(moments):
    parts = dates.parts_of(np.array(moments, "datetime64[us]"))
    assert parts["year"].tolist() == [each.year for each in moments]
    assert parts["month"].tolist() == [each.month for each in moments]
    assert parts["weekday"].tolist() == [each.weekday() for each in moments]
    assert np.floor(parts["days"]).tolist() == [each.toordinal() - 719_163 for each in moments]
    assert np.floor(parts["hour"] + 1e-9).tolist() == [float(each.hour) for each in moments] or any(
        each.minute == 59 and each.second == 59 for each in moments
    )
    np.testing.assert_allclose(np.hypot(parts["sine"], parts["cosine"]), 1)


def test_a_column_of_dates_becomes_standardized_parts_of_the_training_rows():
    start = datetime.date(2020, 1, 1)
    cells = [(start + datetime.timedelta(11 * i)).isoformat() for i in range(100)]
    data = {"when": cells, "y": [i * 0.5 for i in range(100)]}
    rows = np.arange(60)
    table = nnx.Table.learn(data, "y", training_rows=rows)
    assert table.input_names == [f"when.{part}" for part in ("days", "year", "month", "weekday", "sine", "cosine")]
    assert table.numeric == tuple(range(6))
    X, _ = table.read_samples(data)
    np.testing.assert_allclose(X[rows, :4].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(X[rows, :4].std(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose(np.hypot(X[:, 4], X[:, 5]), 1, rtol=1e-6)  # as they are


def test_parts_that_all_training_rows_share_are_left_out():
    cells = ["2020-03-01 10:00", "2020-03-02 10:00", "2020-03-03 10:00", "2021-04-04 11:00"]
    data = {"when": cells, "y": [0.5, 1.5, 2, 3]}
    column = nnx.Table.learn(data, "y", training_rows=[0, 1, 2]).columns[0]
    assert column.parts == ("days", "weekday", "sine", "cosine")
    assert learnt(cells).parts == dates.PARTS
    assert learnt(["2020-03-01"] * 3 + [""], indicators=True).parts == ()


def test_missing_dates_are_zeros_and_have_an_indicator_if_wanted():
    data = {"when": ["2020-01-01", None, "2020-05-07", "NA"], "y": [0.5, 1.5, 2, 3]}
    table = nnx.Table.learn(data, "y", indicators=True)
    assert table.input_names[-1] == "when is missing"
    X = table.read_inputs(data)
    assert not X[[1, 3], :-1].any()
    assert X[:, -1].tolist() == [0, 1, 0, 1]
    assert table.numeric == tuple(range(table.n_inputs - 1))
    assert "2 missing, with an input that says where" in repr(table)
    alone = nnx.Table.learn({"when": ["2020-01-01", ""] * 2, "y": data["y"]}, "y", indicators=True)
    assert alone.read_inputs(data)[:, 0].tolist() == [0, 1, 0, 1]


def test_dates_of_python_objects_are_those_of_files(tmp_path):
    moments = [datetime.datetime(2020, 1 + i, 3 * i + 1, i, 5 * i) for i in range(9)]
    y = [0.5 * i for i in range(9)]
    path = tmp_path / "table.csv"
    path.write_text(
        "when,y\n" + "".join(f"{when:%d.%m.%Y %H:%M},{each}\n" for when, each in zip(moments, y, strict=True))
    )
    table = nnx.Table.learn(path, "y")
    assert table.columns[0].form == "d.m.Y"
    expected = table.read_inputs(path)
    for values in (moments, np.array(moments, "datetime64[ns]"), [each.isoformat() for each in moments]):
        np.testing.assert_array_equal(table.read_inputs({"when": values}), expected)
        again = nnx.Table.learn({"when": values, "y": y}, "y")
        assert again.columns[0] == dataclasses.replace(table.columns[0], form=dates.ISO)


def test_columns_of_dates_in_data_frames_are_dates():
    pandas = pytest.importorskip("pandas")
    when = pandas.date_range("2020-01-01", periods=30, freq="D")
    y = np.arange(30) * 0.5
    table = nnx.Table.learn(pandas.DataFrame({"when": when, "y": y}), "y")
    assert table.columns[0].kind == "date"
    expected = table.read_inputs({"when": [f"{each:%Y-%m-%d}" for each in when]})
    np.testing.assert_array_equal(
        table.read_inputs(pandas.DataFrame({"when": when.tz_localize("UTC").tz_convert("Europe/Vienna")})), expected
    )
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(table.read_inputs(polars.DataFrame({"when": list(when)})), expected)


# What is no date, or cannot be used


def test_dates_may_be_taken_as_texts():
    cells = ["2020-01-01", "2020-01-02"] * 15
    assert isinstance(learnt(cells), Date)
    assert isinstance(learnt(cells, dates=False), Text)
    assert isinstance(learnt(cells, text=["when"]), Text)
    assert isinstance(learnt([20200101, 20200102] * 5), Number)


def test_a_column_with_a_text_among_dates_is_one_of_texts():
    assert isinstance(learnt(["2020-01-01", "2020-01-02", "soon"] * 10), Text)
    cells = [f"{1 + i % 28}.{1 + i // 28}.2020" for i in range(100)]
    message = (
        "the dict, row 7, holds 'soon' in column 'when', most of whose cells are dates such as 31.12.2020. Correct it, "
        r"or leave the column out. Pass drop=\['when'\]."
    )
    with pytest.raises(nnx.DataFileError, match=message):
        learnt([*cells[:7], "soon", *cells[8:]])


def test_texts_among_dates_are_missing_values_if_that_is_wanted():
    cells = [f"{1 + i % 28}.{1 + i // 28}.2020" for i in range(20)]
    data = {"when": [*cells, "soon", "?"], "y": [0.5 * i for i in range(22)]}
    table = nnx.Table.learn(data, "y", lenient=True, indicators=True)
    assert table.columns[0].form == "d.m.Y"
    X, _ = table.read_samples(data)
    assert X[:, -1].tolist() == [0] * 20 + [1, 1]
    assert not X[20:, :-1].any()
    again = nnx.Table.from_dict(table.to_dict())
    assert again.read_inputs({"when": ["never"]})[0, -1] == 1
    assert "texts taken for missing, 1 missing" in repr(again)
    mostly = nnx.Table.learn(
        {"when": [*cells[:5], *["soon", "late", "now"] * 2], "y": data["y"][:11]}, "y", lenient=True
    )
    assert isinstance(mostly.columns[0], Text)


def test_later_cells_that_are_no_dates_are_errors():
    table = nnx.Table.learn({"when": ["31.12.2020", "1.2.2021"], "y": [0.5, 1.5]}, "y")
    message = (
        "Table.read_inputs: the dict, row 1, holds 'soon' in column 'when', which must hold dates such as 31.12.2020 "
        r"\(and 1 more such cells\)."
    )
    with pytest.raises(nnx.DataFileError, match=message):
        table.read_inputs({"when": ["1.1.2020", "soon", "12/31/2020"]})


def test_dates_cannot_be_predicted():
    data = {"x": [1, 2, 3], "when": ["2020-01-01", "2020-01-02", "2020-01-03"]}
    for task in (None, "regression"):
        with pytest.raises(nnx.DataFileError, match="holds dates such as 2020-12-31 in column 'when', which cannot be"):
            nnx.Table.learn(data, "when", task=task)
    assert nnx.Table.learn(data, "when", task="classification").n_outputs == 3
    assert nnx.Table.learn(data, "when", dates=False).n_outputs == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"parts": ("days", "days")},
        {"parts": ("days", "minute")},
        {"means": (0.0,)},
        {"means": (0.0, np.nan)},
        {"scales": (1.0, 0.0)},
        {"scales": "12"},
        {"form": "d m Y"},
        {"gaps": -1},
        {"indicator": 1},
        {"name": 3},
        {"parts": 3},
    ],
)
def test_a_column_of_dates_refuses_what_it_cannot_be(wrong):
    right = {"name": "when", "parts": ("days", "year"), "means": (0.0, 0.0), "scales": (1.0, 1.0)}
    Date(**right)
    with pytest.raises((TypeError, ValueError), match=r"^Date: "):
        Date(**right | wrong)


@pytest.mark.parametrize("wrong", ["day", 1, None, "first"])
def test_other_words_for_dates_are_refused(wrong):
    with pytest.raises(ValueError, match=r"Table.learn: dates must be True, False, 'day first' or 'month first', got"):
        learnt(["2020-01-01"], dates=wrong)
