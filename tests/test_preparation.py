"""The preparation of columns: scaling, indicators of gaps, pooled and coded categories; and learning from any data."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies

import nnx
from nnx.cli import main
from nnx.data import scaling
from nnx.data.columns import Date, Ignored, Number, Text
from nnx.data.notation import is_gap
from nnx.files import packing

pytestmark = pytest.mark.one_backend

USABLE = strategies.floats(-1e100, 1e100, allow_nan=False)
COLUMN = strategies.lists(USABLE, min_size=1, max_size=30)


def learnt(x, y=None, **keywords):
    """Return a table that was learnt from a column and a target, and its inputs for that column."""
    y = [0.5 * row for row in range(len(x))] if y is None else y
    table = nnx.Table.learn({"x": x, "y": y}, "y", task="regression", **keywords)
    return table, table.read_inputs({"x": x})


# Scaling


def test_robust_scaling_is_median_and_interquartile_range_with_a_smooth_end(rng):
    x = rng.lognormal(3, 2, 400)
    rows = np.arange(250)
    table, X = learnt(x, training_rows=rows, scaling="robust")
    low, middle, high = np.quantile(x[rows], [0.25, 0.5, 0.75])
    z = (x - middle) / (high - low)
    np.testing.assert_allclose(X[:, 0], z / np.sqrt(1 + (z / 3) ** 2), rtol=1e-5, atol=1e-6)
    assert np.abs(X).max() <= 3
    assert f"median {middle:.6g}, spread {high - low:.6g}" in repr(table)


def test_robust_scaling_takes_half_the_range_where_the_middle_half_is_one_number():
    table, X = learnt([5.0] * 20 + [1.0, 9.0], scaling="robust")
    assert (table.columns[0].mean, table.columns[0].scale) == (5, 4)
    np.testing.assert_allclose(X[20:, 0], [-1 / np.sqrt(1 + 1 / 9), 1 / np.sqrt(1 + 1 / 9)], rtol=1e-6)
    assert learnt([5.0] * 20, scaling="robust")[0].columns[0].scale == 1


def test_normal_scaling_makes_any_column_normal(rng):
    x = rng.lognormal(3, 2, 5000)
    table, X = learnt(x, scaling="normal")
    assert len(table.columns[0].quantiles) == scaling.MAX_QUANTILES
    expected = [NormalDist().inv_cdf((place + 0.5) / 5000) for place in range(5000)]
    inner = slice(50, -50)
    np.testing.assert_allclose(np.sort(X[:, 0])[inner], expected[inner], atol=0.03)
    assert abs(X.mean()) < 0.01
    assert abs(X.std() - 1) < 0.01


def test_normal_scaling_clips_beyond_the_training_rows_and_fills_gaps_with_the_middle(rng):
    x = rng.normal(size=100)
    table, X = learnt(x, scaling="normal")
    end = NormalDist().inv_cdf(1 - 0.5 / 100)
    later = table.read_inputs({"x": [-1e90, x.min(), None, x.max(), 1e90]})[:, 0]
    np.testing.assert_allclose(later, [-end, -end, 0, end, end], rtol=1e-6)
    np.testing.assert_allclose(np.sort(X[:, 0])[1:-1], [NormalDist().inv_cdf(i / 99) for i in range(1, 99)], rtol=1e-4)


def test_normal_scaling_puts_a_number_of_many_rows_into_their_middle():
    x = [0.0] * 60 + [float(i) for i in range(1, 41)]
    _, X = learnt(x, scaling="normal")
    np.testing.assert_allclose(X[:60, 0], NormalDist().inv_cdf(29.5 / 99), rtol=1e-6)


@settings(max_examples=200, deadline=None)
@given(COLUMN, COLUMN, strategies.sampled_from(scaling.SCALINGS))
@example([0.0, 5e-324], [1e-323], "normal")
@example([0.0, 5e-324], [1e100], "robust")
@example([-1e100, 1e100], [0.0], "normal")
@example([7.0], [7.0, 8.0], "normal")
def test_scaling_is_finite_and_monotone_for_all_numbers(known, later, how):
    table = (
        nnx.Table.learn({"x": known, "y": np.arange(len(known)) + 0.5}, "y", scaling=how) if len(known) > 1 else None
    )
    column = table.columns[0] if table else Number("x", *scaling.center_and_scale(np.array(known), how))
    values = np.sort(np.array(later))
    if column.scaling == "standard":
        with np.errstate(over="ignore", invalid="ignore"):
            values = values[np.abs(values / column.scale - column.mean / column.scale) < 1e12]
        if not len(values):
            return
    table = nnx.Table([column, Number("y")], "y")
    found = table.read_inputs({"x": values})[:, 0]
    assert np.isfinite(found).all()
    assert (np.diff(found) >= -1e-6).all()  # the line is straight, up to rounding


@settings(max_examples=100, deadline=None)
@given(strategies.lists(USABLE, min_size=2, max_size=30, unique=True))
def test_decode_undoes_the_standardization_of_the_target_whatever_the_scaling_of_inputs(values):
    scale = float(np.std(values)) or 1.0
    if np.ptp(values) == 0 or np.abs((np.array(values) - np.mean(values)) / scale).max() > 1e6:
        return
    table = nnx.Table.learn({"x": range(len(values)), "y": values}, "y", task="regression", scaling="robust")
    assert (table.target.scaling, table.target.mean) == ("standard", pytest.approx(np.mean(values)))
    _, y = table.read_samples({"x": range(len(values)), "y": values})
    np.testing.assert_allclose(table.decode(y.astype(np.float64)), values, rtol=1e-4, atol=1e-5 * np.abs(values).max())


# Indicators


def test_columns_with_gaps_in_the_training_rows_have_an_indicator():
    data = {
        "a": [1, None, 3, 4],
        "b": [1, 2, 3, None],
        "c": [1, 2, 3, 4],
        "t": ["u", None, "v", "u"],
        "y": [0.5, 2, 3, 4],
    }
    table = nnx.Table.learn(data, "y", training_rows=[0, 1, 2], task="regression", indicators=True)
    assert table.input_names == ["a", "a is missing", "b", "c", "t=u", "t=v"]
    assert table.numeric == (0, 2, 3)
    X, _ = table.read_samples(data)
    assert X[:, 1].tolist() == [0, 1, 0, 0]
    assert X[1, 0] == X[3, 2] == 0
    assert nnx.Table.learn(data, "y", task="regression").input_names == ["a", "b", "c", "t=u", "t=v"]


# Categories


def test_rare_categories_of_the_training_rows_are_pooled():
    town = ["a"] * 5 + ["b"] * 3 + ["c"] * 2 + ["d"] + ["e"] * 4
    rows = np.arange(11)  # without e
    table, X = learnt(town, training_rows=rows, rare=3)
    assert table.input_names == ["x=a", "x=b", "x=(other)"]
    assert X.argmax(axis=1).tolist() == [0] * 5 + [1] * 3 + [2] * 7
    assert X.sum(axis=1).tolist() == [1] * 15
    assert table.read_inputs({"x": ["never seen", "b", None]}).tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert "2 categories (a, b) and one for all others" in repr(table)


def test_without_rare_categories_there_is_no_pool():
    table, _ = learnt(["a", "b"] * 5, rare=5)
    assert table.input_names == ["x=a", "x=b"]
    with pytest.raises(nnx.DataFileError, match="is not one of the 2 known values"):
        table.read_inputs({"x": ["c"]})
    assert learnt(["a", "b"] * 5, rare=6)[0].input_names == ["x=a", "x=b"]  # nothing would be left


def test_columns_of_many_categories_become_numbers_for_an_embedding():
    town = [None, *"cab"] * 5
    table, X = learnt(town, one_hot=2)
    assert table.embedded == ((0, 4),)
    assert table.numeric == ()
    assert table.input_names == ["x"]
    assert X[:4, 0].tolist() == [0, 3, 1, 2]
    assert table.read_inputs({"x": ["z", "b"]}, unknown="missing")[:, 0].tolist() == [0, 2]
    assert learnt(town, one_hot=3)[0].embedded == ()
    assert learnt(["a", "b"] * 5, one_hot=0)[0].embedded == ((0, 3),)
    assert "3 categories (a, b, c), as one number" in repr(table)


def test_the_pool_counts_among_the_categories_of_an_embedding():
    town = ["a"] * 4 + ["b"] * 4 + ["c", None]
    assert learnt(town, one_hot=2, rare=2)[0].embedded == ((0, 4),)
    _, X = learnt(town, one_hot=2, rare=2)
    assert X[:, 0].tolist() == [1] * 4 + [2] * 4 + [3, 0]
    assert learnt(town, one_hot=3, rare=2)[0].embedded == ()


def test_an_embedding_takes_what_a_table_gives(rng):
    data = {"n": rng.normal(size=300), "t": rng.choice(100, 300).astype(str), "m": rng.normal(size=300)}
    data["y"] = np.where(data["t"].astype(int) % 2, "odd", "even")
    table = nnx.Table.learn(data, "y", one_hot=10, text=["t"], rare=2)
    X, _ = table.read_samples(data)
    ((column, count),) = table.embedded
    assert (column, count) == (1, int(X[:, 1].max()) + 1)
    layer = nnx.Layer_Embedding(table.n_inputs, [column], [count], 3)
    layer.forward(X)
    assert layer.output.shape == (300, 5)


def test_more_than_256_categories_are_refused_unless_they_are_pooled_or_coded():
    town = [f"town {i % 300}" for i in range(900)] + ["Graz"] * 9
    with pytest.raises(nnx.DataFileError, match="301 different texts in 909 rows of column 'x', too many"):
        learnt(town)
    assert learnt(town, one_hot=20)[0].embedded == ((0, 302),)
    assert learnt(town, rare=9)[0].input_names == ["x=Graz", "x=(other)"]
    with pytest.raises(nnx.DataFileError, match="too many to be classes"):
        nnx.Table.learn({"x": range(909), "y": town}, "y", one_hot=20, rare=9)


def test_texts_that_tell_rows_apart_are_refused_whatever_is_wanted():
    with pytest.raises(nnx.DataFileError, match="40 different texts in 40 rows"):
        learnt([f"name {i}" for i in range(40)], one_hot=5, rare=2)


# What is left out


def test_columns_of_no_use_are_left_out_if_that_is_wanted():
    n = 40
    data = {
        "id": [f"name {i}" for i in range(n)],
        "empty": [None] * n,
        "same": [7] * n,
        "day": ["2020-01-01"] * n,
        "one": ["a", *["b"] * (n - 1)],  # the first row is not for training
        "gap": ["a", "b", *[None] * (n - 2)],
        "odd": [*["new", "old"], *range(n - 2)],
        "few": [3 if i % 4 else "three" for i in range(n)],
        "x": [float(i) for i in range(n)],
        "y": [0.5 * i for i in range(n)],
    }
    with pytest.raises(nnx.DataFileError, match="has 5 problems"):
        nnx.Table.learn(data, "y")
    table = nnx.Table.learn(data, "y", training_rows=range(1, n), lenient=True)
    assert table.input_names == ["gap=a", "gap=b", "odd", "few=3", "few=three", "x"]
    assert table.left_out == {
        "id": "holds 40 different texts in 40 rows of column 'id', too many to be categories",
        "empty": "holds no value in column 'empty'",
        "same": "holds only one value in column 'same' in the training rows",
        "day": "holds only one value in column 'day' in the training rows",
        "one": "holds only one value in column 'one' in the training rows",
    }
    assert [column.name for column in table.columns if isinstance(column, Ignored)] == list(table.left_out)
    again = nnx.Table.from_dict(table.to_dict())
    assert again.left_out == {}
    np.testing.assert_array_equal(again.read_inputs(data), table.read_inputs(data))


def test_texts_among_many_numbers_are_missing_values_if_that_is_wanted():
    x = [*[f"${i},500.00" for i in range(1, 30)], "ask us", None]
    with pytest.raises(nnx.DataFileError, match="holds 'ask us' in column 'x'"):
        learnt(x)
    table, X = learnt(x, lenient=True, indicators=True)
    assert table.columns[0].mean == 15_500
    assert X[:, 1].tolist() == [0] * 29 + [1, 1]
    assert X[29, 0] == X[30, 0] == 0
    assert "texts taken for missing, 1 missing, with an input" in repr(table)
    assert nnx.Table.from_dict(table.to_dict()).read_inputs({"x": ["soon", "$15,500"]}).tolist() == [[0, 1], [0, 0]]


def test_if_all_columns_are_of_no_use_the_error_says_why():
    message = r"has no column beside 'y' to predict it from \(holds only one value in column 'x' in the training rows\)"
    with pytest.raises(nnx.DataFileError, match=message):
        learnt([3.0] * 30, lenient=True)


def test_problems_of_the_target_are_errors_even_if_columns_may_be_left_out():
    for y in (["a"] * 40, [None] * 40, [f"{i} a" for i in range(400)], [1, 2, 3, "x"] * 10):
        with pytest.raises(nnx.DataFileError, match="column 'y'"):
            nnx.Table.learn({"x": range(len(y)), "y": y}, "y", lenient=True)


# Learning from any data


@pytest.fixture
def flats(rng):
    """Return a table with columns of all kinds."""
    n = 80
    return {
        "area": [float(each) if i % 9 else None for i, each in enumerate(rng.lognormal(4, 1, n))],
        "rooms": [int(each) for each in rng.integers(1, 9, n)],
        "town": [str(each) for each in rng.choice(["Graz", "Linz", "Wels", "Enns"], n, p=[0.5, 0.3, 0.15, 0.05])],
        "built": [f"{1950 + i // 2}-0{1 + i % 9}-1{i % 7}" for i in range(n)],
        "rent": [round(float(each), 3) if i % 20 else None for i, each in enumerate(rng.normal(700, 100, n))],
    }


PREPARED = {"scaling": "normal", "indicators": True, "rare": 10, "one_hot": 2}


def test_files_frames_dicts_and_lists_are_learnt_alike(flats, tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [dict(zip(flats, row, strict=True)) for row in zip(*flats.values(), strict=True)]
    lines = [",".join("" if cell is None else str(cell) for cell in row.values()) for row in rows]
    (tmp_path / "flats.csv").write_text("\n".join([",".join(flats), *lines]))
    expected = nnx.Table.learn(flats, "rent", training_rows=range(50), **PREPARED)
    assert expected.n_left_out == 4
    for data in (rows, pandas.DataFrame(flats), str(tmp_path / "flats.csv")):
        table = nnx.Table.learn(data, "rent", training_rows=range(50), **PREPARED)
        assert table.to_dict() == expected.to_dict()
        for found, wanted in zip(table.read_samples(data), expected.read_samples(flats), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_load_csv_learns_the_same(flats, tmp_path):
    names = [*flats]
    rows = [row for row in zip(*flats.values(), strict=True) if row[-1] is not None]
    path = tmp_path / "flats.csv"
    path.write_text("\n".join([",".join(names), *(",".join("" if c is None else str(c) for c in row) for row in rows)]))
    X, y, X_test, y_test, table = nnx.load_csv(path, "rent", test_size=0.25, seed=3, **PREPARED)
    order = np.random.RandomState(3).permutation(len(rows))
    n_test = len(X_test)
    alone = nnx.Table.learn(path, "rent", training_rows=order[n_test:], **PREPARED)
    assert alone.to_dict() == table.to_dict()
    all_X, all_y = alone.read_samples(path)
    np.testing.assert_array_equal(np.vstack([X_test, X]), all_X[order])
    np.testing.assert_array_equal(np.vstack([y_test, y]), all_y[order])


def test_training_rows_are_positions_in_the_data_as_given_or_flags():
    data = {"x": [1.0, 100.0, 3.0, 5.0, 900.0], "y": [0.5, None, 1.5, 2.5, 3.5]}
    for rows in ([0, 1, 2, 3], np.array([3, 2, 0]), np.array([True, True, True, True, False])):
        assert nnx.Table.learn(data, "y", training_rows=rows).columns[0].mean == 3
    assert nnx.Table.learn(data, "y").columns[0].mean == pytest.approx(909 / 4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "training_rows must be positions of rows, one at least, got"),
        ([0.5], "training_rows must be positions of rows"),
        ([[0]], "training_rows must be positions of rows"),
        (3, "training_rows must be positions of rows"),
        ([True], "training_rows must be positions of rows"),
        ("all", "training_rows must be"),
        ([0, [1]], "training_rows must be a full array"),
        ([5], "training_rows must be positions from 0 to 4, got 5"),
        ([-1], "training_rows must be positions from 0 to 4, got -1"),
        ([4], "holds no value in column 'y' in any of the training rows"),
    ],
)
def test_other_training_rows_are_refused(rows, message):
    data = {"x": [1, 2, 3, 4, 5], "y": [0.5, 1, 2, 3, None]}
    with pytest.raises((TypeError, ValueError, nnx.DataFileError), match=message):
        nnx.Table.learn(data, "y", training_rows=rows)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scaling": "minmax"},
        {"scaling": None},
        {"indicators": 1},
        {"rare": -1},
        {"rare": 2.5},
        {"one_hot": -1},
        {"one_hot": "3"},
        {"dates": "yes"},
        {"lenient": None},
        {"task": "ranking"},
        {"gaps": "keep"},
        {"decimal": ";"},
        {"text": "x"},
        {"drop": ["y"]},
        {"drop": ["z"]},
    ],
)
def test_other_choices_are_refused(wrong, tmp_path):
    (name,) = wrong
    with pytest.raises((TypeError, ValueError, nnx.DataFileError), match=rf"^Table.learn: .*{name}"):
        nnx.Table.learn({"x": [1, 2], "y": [0.5, 1.5]}, "y", **wrong)
    path = tmp_path / "table.csv"
    path.write_text("x,y\n1,0.5\n2,1.5\n")
    with pytest.raises((TypeError, ValueError, nnx.DataFileError), match=rf"^load_csv: .*{name}"):
        nnx.load_csv(path, "y", test_size=0, **wrong)


@pytest.mark.parametrize("data", [None, 3, [], [1, 2], {"x": 3}, {}, np.zeros((3, 2))])
def test_what_is_no_table_is_refused(data):
    with pytest.raises((TypeError, nnx.DataFileError), match=r"^Table.learn: "):
        nnx.Table.learn(data, "y")


def test_learning_changes_nothing_that_it_was_given(flats):
    before = {name: list(cells) for name, cells in flats.items()}
    nnx.Table.learn(flats, "rent", **PREPARED)
    assert flats == before


# Files


def test_tables_come_back_from_model_files(flats, tmp_path):
    for how in scaling.SCALINGS:
        table = nnx.Table.learn(flats, "rent", **PREPARED | {"scaling": how})
        model = nnx.Model()
        model.add(nnx.Layer_Dense(table.n_inputs, 1))
        model.set(loss=nnx.Loss_MeanSquaredError(), table=table)
        model.finalize()
        model.save(tmp_path / "model")
        again = nnx.Model.load(tmp_path / "model").table
        assert again.columns == table.columns
        np.testing.assert_array_equal(again.read_inputs(flats), table.read_inputs(flats))
        assert repr(again) == repr(table)


def test_a_plain_table_is_written_as_older_versions_read_it():
    described = nnx.Table.learn({"a": [1, 2, None], "t": ["u", "v", "u"], "y": [1.5, 2, 3]}, "y").to_dict()
    assert [sorted(column) for column in described["columns"]] == [
        ["gaps", "kind", "mean", "name", "scale"],
        ["categories", "gaps", "kind", "name"],
        ["gaps", "kind", "mean", "name", "scale"],
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "number", "scaling": "best"},
        {"kind": "number", "scaling": "normal"},
        {"kind": "number", "scaling": "normal", "quantiles": []},
        {"kind": "number", "scaling": "normal", "quantiles": [2.0, 1.0]},
        {"kind": "number", "scaling": "normal", "quantiles": [np.nan]},
        {"kind": "number", "scaling": "normal", "quantiles": [1e200]},
        {"kind": "number", "scaling": "normal", "quantiles": ["1"]},
        {"kind": "number", "scaling": "normal", "quantiles": 3},
        {"kind": "number", "scaling": "normal", "quantiles": [0.0] * 1001},
        {"kind": "number", "quantiles": [1.0]},
        {"kind": "number", "indicator": 1},
        {"kind": "number", "pooled": True},
        {"kind": "text", "pooled": "yes"},
        {"kind": "text", "as_code": None},
        {"kind": "text", "categories": "ab"},
        {"kind": "date"},
        {"kind": "date", "parts": ["days"], "means": [0.0], "scales": [0.0], "form": "Y-m-d"},
        {"kind": "date", "parts": ["days"], "means": [0.0], "scales": [1.0], "form": "?"},
        {"kind": "date", "parts": "days", "means": [0.0], "scales": [1.0], "form": "Y-m-d"},
        {"kind": "date", "parts": ["days"], "means": [], "scales": [1.0], "form": "Y-m-d"},
    ],
)
def test_descriptions_of_columns_that_cannot_be_are_refused(wrong):
    right = {
        "number": {"mean": 0.0, "scale": 1.0, "gaps": 0},
        "text": {"categories": ["a"], "gaps": 0},
        "date": {"gaps": 0},
    }
    target = {"kind": "number", "name": "y", "mean": 0.0, "scale": 1.0, "gaps": 0}
    column = {"name": "x", **right[wrong["kind"]], **wrong}
    with pytest.raises((TypeError, ValueError)):
        nnx.Table.from_dict({"header": True, "target": "y", "columns": [column, target]})


@pytest.mark.parametrize(
    "column",
    [
        Number("y", scaling="robust"),
        Number("y", indicator=True),
        Text("y", ("a", "b"), pooled=True),
        Text("y", ("a", "b"), as_code=True),
        Date("y", (), (), ()),
        Ignored("y"),
    ],
)
def test_a_target_is_plain(column):
    with pytest.raises(ValueError, match=r"^Table: target must "):
        nnx.Table([Number("x"), column], "y")


# Odd tables


def test_a_table_of_five_thousand_columns_is_learnt_in_little_memory(rng):
    n = 60
    data = {f"gene{i}": column for i, column in enumerate(rng.normal(size=(5000, n)))}
    data["kind"] = np.array(["well", "ill"])[np.arange(n) % 2]
    table = nnx.Table.learn(data, "kind", scaling="normal", indicators=True)
    assert table.n_inputs == 5000
    assert {len(column.quantiles) for column in table.inputs} == {n}
    packing.packed(table.to_dict()["columns"])


def test_the_quantiles_of_all_columns_together_have_a_limit(rng, monkeypatch):
    monkeypatch.setattr(scaling, "MAX_QUANTILES_TOGETHER", 100)
    data = {f"x{i}": column for i, column in enumerate(rng.normal(size=(9, 50)))} | {"y": np.arange(50) + 0.5}
    table = nnx.Table.learn(data, "y", scaling="normal")
    assert {len(column.quantiles) for column in table.inputs} == {10}


def test_a_class_of_two_rows_and_a_target_of_one_value():
    data = {"x": range(100), "y": ["a"] * 98 + ["b"] * 2}
    assert nnx.Table.learn(data, "y").classes == ("a", "b")
    for same in ("a", 3.5, 0):
        with pytest.raises(nnx.DataFileError, match=f"holds only '{same}' in column 'y', so there is nothing to learn"):
            nnx.Table.learn({"x": range(100), "y": [same] * 100}, "y")


def test_scaling_is_undone_for_pictures(rng):
    x = rng.lognormal(3, 2, 100)
    for how in scaling.SCALINGS:
        table, X = learnt(x, scaling=how)
        np.testing.assert_allclose(table.columns[0].unscaled(X[:, 0].astype(np.float64)), x, rtol=0.01)
    assert np.isfinite(learnt(x, scaling="robust")[0].columns[0].unscaled(np.array([-3.0, 3.0, -9.0]))).all()


CELLS = {
    "numbers": strategies.floats(-1e6, 1e6),
    "whole": strategies.integers(-3, 3),
    "large": strategies.floats(-1e120, 1e120),
    "gaps": strategies.none() | strategies.sampled_from(["", "NA", "?", float("nan")]),
    "texts": strategies.sampled_from(["a", "b", "c", "1", "1.0", "a."]),
    "any": strategies.text(max_size=3),
    "dates": strategies.dates().map(str),
    "slashes": strategies.sampled_from(["1/2/2020", "03/04/2020", "31/12/2020", "12/31/2020"]),
    "money": strategies.sampled_from(["$1,234", "$5", "7%", "1.234", "1,5"]),
    "flags": strategies.booleans(),
}


@strategies.composite
def odd_tables(draw):
    """Draw a table of a few columns, each with mostly one kind of cell."""
    n_rows = draw(strategies.integers(1, 25))
    table = {}
    for name in ("x", "z", "y"):
        kinds = draw(strategies.lists(strategies.sampled_from(sorted(CELLS)), min_size=1, max_size=3))
        cells = strategies.one_of([CELLS[kind] for kind in kinds])
        table[name] = draw(strategies.lists(cells, min_size=n_rows, max_size=n_rows))
    return table


CHOICES = strategies.fixed_dictionaries(
    {},
    optional={
        "scaling": strategies.sampled_from(scaling.SCALINGS),
        "indicators": strategies.booleans(),
        "rare": strategies.integers(0, 4),
        "one_hot": strategies.none() | strategies.integers(0, 4),
        "dates": strategies.sampled_from([True, False, "day first", "month first"]),
        "lenient": strategies.booleans(),
        "task": strategies.sampled_from([None, "classification", "regression"]),
        "text": strategies.sampled_from([["x"], ["z"], ["y"]]),
    },
)


def refusal(function, *arguments, **keywords):
    """Return a function's result, and the message of its refusal."""
    try:
        return function(*arguments, **keywords), ""
    except (nnx.DataFileError, ValueError) as error:
        return None, str(error)


def test_a_number_among_percent_is_shown_as_it_is():
    with pytest.raises(
        nnx.DataFileError, match=r"row 2, holds '0.5' in column 'x', whose other cells are numbers such as"
    ):
        learnt(["1%", "2%", 0.5])


@settings(max_examples=100, deadline=None)
@given(odd_tables(), CHOICES, strategies.data())
def test_any_table_is_learnt_or_refused_with_a_sentence(data, choices, drawn):
    n_rows = len(data["y"])
    rows = drawn.draw(strategies.lists(strategies.integers(0, n_rows - 1), min_size=1, max_size=n_rows))
    table, said = refusal(nnx.Table.learn, data, "y", training_rows=rows, **choices)
    if table is None:
        assert said.startswith("Table.learn: ")
        return
    samples, said = refusal(table.read_samples, data)
    if samples is None:
        assert said.startswith("Table.read_samples: ")
        assert "too far from the mean" in said
        return
    X, y = samples
    assert X.shape == (len(y), table.n_inputs) == (len(y), len(table.input_names))
    assert np.isfinite(X).all()
    assert {column for column, _ in table.embedded}.isdisjoint(table.numeric)
    for column, count in table.embedded:
        assert set(X[:, column]) <= set(range(count))
    layout, arrays = packing.packed(table.to_dict()["columns"])
    again = nnx.Table.from_dict({**table.to_dict(), "columns": packing.unpacked(layout, arrays)})
    assert again.columns == table.columns
    assert repr(again) == repr(table)
    for found, expected in zip(again.read_samples(data), samples, strict=True):
        np.testing.assert_array_equal(found, expected)
    row = drawn.draw(strategies.integers(0, len(y) - 1))
    kept = [i for i, cell in enumerate(data["y"]) if cell is not None and not is_gap(str(cell).strip())][row]
    alone = table.read_inputs({name: [cells[kept]] for name, cells in data.items()}, unknown="missing")
    np.testing.assert_array_equal(alone[0], X[row])  # whatever else is in a table


def test_a_model_with_an_embedding_predicts_from_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = ["when,town,n,y"] + [
        f"{1 + i % 28}.{1 + i % 12}.2020,{'abcd'[i % 4]},{i if i % 7 else ''},{i % 4}.5" for i in range(60)
    ]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    table = nnx.Table.learn("table.csv", "y", one_hot=3, scaling="normal", indicators=True)
    ((column, count),) = table.embedded
    model = nnx.Model()
    model.add(nnx.Layer_Embedding(table.n_inputs, [column], [count], 2))
    model.add(nnx.Layer_Dense(table.n_inputs + 1, 1))
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_Adam(0.05), accuracy=nnx.Accuracy_Regression())
    model.set(table=table)
    model.finalize()
    model.train(*table.read_samples("table.csv"), epochs=100, print_every=None)
    model.save("model")
    (tmp_path / "later.csv").write_text("town,n,when\nb,,1.2.2021\nz,3,\n")
    assert main(["predict", "model", "later.csv", "--unknown", "missing"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("y\n")
    expected = table.decode(model.predict(table.read_inputs("later.csv", unknown="missing")))
    np.testing.assert_allclose([float(line) for line in out.splitlines()[1:]], expected, rtol=1e-4)
    assert expected[0] == pytest.approx(1.5, abs=0.5)
    predictor = nnx.Model.load("model").predictor()
    np.testing.assert_allclose(
        predictor(table.read_inputs("table.csv")), model.predict(table.read_inputs("table.csv")), rtol=1e-5
    )
