"""Tables: learning a CSV file's columns, raw files to inputs, outputs to answers."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.data.columns import Ignored, Number, Text

pytestmark = pytest.mark.one_backend

FLATS = """area,rooms,town,rent
50,2,Graz,500
70,,Linz,900
?,3,Graz,700.5
90,4,NA,1100
30,1,Linz,300
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "table.csv") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


# What is learnt


def test_numbers_are_standardized_and_texts_one_hot(write):
    X, y, X_test, y_test, table = nnx.load_csv(write(FLATS), "rent", test_size=0, seed=0)
    assert table.header
    assert table.input_names == ["area", "rooms", "town=Graz", "town=Linz"]
    assert (table.n_inputs, table.n_outputs, table.classes) == (4, 1, None)
    assert X.shape == (5, 4)
    assert y.shape == (5, 1)
    assert X.dtype == y.dtype == np.float32
    assert X_test.shape == (0, 4)
    assert y_test.shape == (0, 1)
    order = np.random.RandomState(0).permutation(5)
    rents = np.array([500, 900, 700.5, 1100, 300])[order]
    np.testing.assert_allclose(y[:, 0], (rents - rents.mean()) / rents.std(), rtol=1e-6)
    np.testing.assert_allclose(table.decode(y), rents, rtol=1e-6)
    areas = np.array([50, 70, np.nan, 90, 30])[order]
    expected = (areas - 60) / np.std([50, 70, 90, 30])
    np.testing.assert_allclose(X[:, 0], np.where(np.isnan(areas), 0, expected), rtol=1e-6)
    towns = np.array([[1, 0], [0, 1], [1, 0], [0, 0], [0, 1]])[order]  # a gap is none of them
    np.testing.assert_array_equal(X[:, 2:], towns)
    assert [column.gaps for column in table.columns] == [1, 1, 1, 0]


def test_means_and_scales_are_those_of_the_training_rows_alone(write):
    text = "x,y\n" + "".join(f"{i * i},{3 * i}\n" for i in range(50))
    X, _, X_test, y_test, table = nnx.load_csv(write(text), "y", test_size=0.3, seed=4)
    assert (len(X), len(X_test)) == (35, 15)
    order = np.random.RandomState(4).permutation(50)
    x = order[15:] ** 2
    column = table.columns[0]
    assert column.mean == pytest.approx(x.mean())
    assert column.scale == pytest.approx(x.std())
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(X.std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(X_test[:, 0], (order[:15] ** 2 - x.mean()) / x.std(), rtol=1e-5)
    np.testing.assert_allclose(table.decode(y_test), 3.0 * order[:15], rtol=1e-5)


def test_the_split_is_the_seeds_and_covers_all_rows(write):
    path = write("x,y\n" + "".join(f"{i},{i}\n" for i in range(20)))
    parts = [nnx.load_csv(path, "y", seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(parts[0][0], parts[1][0])
    assert not np.array_equal(parts[0][0], parts[2][0])
    _, y, _, y_test, table = parts[2]
    assert sorted(table.decode(np.vstack([y, y_test])).round().tolist()) == list(range(20))


def test_loading_leaves_the_global_generator_alone(write):
    before = np.random.get_state()[1].tolist()
    nnx.load_csv(write(FLATS), "rent")
    assert np.random.get_state()[1].tolist() == before


def test_a_category_of_the_test_rows_alone_is_known(write):
    path = write("t,y\n" + "a,1.5\n" * 20 + "b,2.5\n")
    for seed in range(5):
        assert nnx.load_csv(path, "y", seed=seed)[4].input_names == ["t=a", "t=b"]


def test_arrays_are_of_the_default_dtype(write, dtype):
    X, y, *_ = nnx.load_csv(write(FLATS), "rent")
    assert X.dtype == y.dtype == dtype


def test_texts_are_classes_in_the_order_of_the_alphabet(write):
    path = write("x,kind\n1,b\n2,a\n3,b\n4,c\n5,a\n")
    _, y, _, _, table = nnx.load_csv(path, "kind", test_size=0)
    assert table.classes == ("a", "b", "c")
    assert y.dtype == np.intp
    assert [table.classes[number] for number in y] == list(
        np.array(list("babca"))[np.random.RandomState(0).permutation(5)]
    )


def test_few_whole_numbers_are_classes_in_the_order_of_the_numbers(write):
    text = "x,y\n" + "".join(f"{i},{(9, 10, 2)[i % 3]}\n" for i in range(60))
    assert nnx.load_csv(write(text), "y")[4].classes == ("2", "9", "10")
    assert nnx.load_csv(write(text), "y", task="regression")[4].classes is None
    assert nnx.load_csv(write(text.replace(",9\n", ",9.5\n")), "y")[4].classes is None
    assert nnx.load_csv(write("\n".join(text.split("\n")[:20])), "y")[4].classes is None  # too few rows to tell
    assert nnx.load_csv(write("\n".join(text.split("\n")[:20])), "y", task="classification")[4].classes is not None


def test_many_whole_numbers_or_few_rows_of_each_are_no_classes(write):
    def classes(different, rows):
        text = "x,y\n" + "".join(f"{i},{i % different}\n" for i in range(rows))
        return nnx.load_csv(write(text), "y")[4].classes

    assert len(classes(10, 100)) == 10
    assert classes(11, 1100) is None
    assert classes(10, 90) is None


def test_columns_may_be_dropped_or_taken_as_text(write):
    table = nnx.load_csv(write(FLATS), "rent", drop=["area"], text=["rooms"])[4]
    assert table.input_names == ["rooms=1", "rooms=2", "rooms=3", "rooms=4", "town=Graz", "town=Linz"]
    assert isinstance(table.columns[0], Ignored)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_and_line_ends_are_found(write, delimiter, end):
    text = FLATS.replace(",", delimiter).replace("\n", end)
    expected = nnx.load_csv(write(FLATS), "rent")
    found = nnx.load_csv(write("\ufeff" + text, "other.csv"), "rent")
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[4].to_dict() == expected[4].to_dict()


def test_a_comma_in_numbers_is_no_delimiter_where_another_splits_evenly(write):
    path = write("a;b;y\n1;2;3.5\n2;3;4.5\n3;4;5,5\n")
    with pytest.raises(nnx.DataFileError, match=r"line 4, holds '5,5' in column 'y', whose other cells are numbers\."):
        nnx.load_csv(path, "y", test_size=0)
    table = nnx.load_csv(write("0,5;0,25\n1,5;0,75\n2,5;1,25\n"), 1, test_size=0)[4]
    assert (table.header, table.columns[0].mean, table.target.mean) == (False, 1.5, 0.75)
    notes = "x,note,y\n1,a;b;c,1.5\n2,b|b,2.5\n3,a,3.5\n"
    assert nnx.load_csv(write(notes), "y", test_size=0)[4].input_names == ["x", "note=a", "note=a;b;c", "note=b|b"]


def test_a_spreadsheets_word_for_the_delimiter_is_obeyed(write):
    table = nnx.load_csv(write("sep=;\r\nx;y\r\n1;2.5\r\n2;3.5\r\n"), "y", test_size=0)[4]
    assert table.input_names == ["x"]


def test_a_first_row_that_was_taken_for_data_is_mentioned(write):
    hint = r"The first row was not taken for names; if it holds them: header=True in Python, --header on the command "
    with pytest.raises(nnx.DataFileError, match=r"has no column 'y' for target\. .* " + hint):
        nnx.load_csv(write("2019,2020,y\n1,2,a\n3,4,b\n"), "y")
    with pytest.raises(nnx.DataFileError, match=r"line 1: holds 'n' in column 'column 1'") as error:
        nnx.load_csv(write("n,?,y\n1,2,3.5\n3,4,4.5\n1,2,3.5\n"), -1, test_size=0)
    assert str(error.value).count("The first row was not taken for names; if it holds them: header=True") == 1
    with pytest.raises(nnx.DataFileError) as error:
        nnx.load_csv(write("x,y\n1,2.5\n3,b\n4,5.5\n5,6.5\n"), "y", test_size=0)
    assert "--header" not in str(error.value)


def test_quoted_cells_blank_lines_and_blanks_around_cells_are_read(write):
    path = write('x , town,y\n\n1.0, "Graz, Stadt",5\n 2,"say ""hi""",6\n\n')
    table = nnx.load_csv(path, "y", test_size=0)[4]
    assert table.input_names == ["x", "town=Graz, Stadt", 'town=say "hi"']


def test_without_a_header_columns_are_numbered_and_the_target_is_a_position(write):
    text = FLATS.split("\n", 1)[1]
    for target in (3, -1, "column 4"):
        X, _, _, _, table = nnx.load_csv(write(text), target)
        assert not table.header
        assert table.target.name == "column 4"
        assert table.input_names[0] == "column 1"
    np.testing.assert_array_equal(X, nnx.load_csv(write(FLATS), "rent")[0])
    names = "1,2\n3,4\n5,6\n7,8\n"
    assert nnx.load_csv(write(names), "2", header=True)[4].input_names == ["1"]
    texts = "a,b\nc,d\na,d\nc,b\na,b\n"
    assert nnx.load_csv(write(texts), 1, header=False)[4].classes == ("b", "d")
    assert nnx.load_csv(write(texts), 1)[4].target.name == "b"


def test_a_header_is_what_holds_no_number_and_no_gap_mark(write):
    below = "b,1.5,x\nc,2.5,y\n" * 5
    for first, header in (("t,u,v", True), (",u,v", True), ("t,3,v", False), ("t,?,v", False), ("t,-,v", False)):
        table = nnx.load_csv(write(f"{first}\n{below}"), 0, header=None, drop=[1])[4]
        assert table.header is header, first
    assert nnx.load_csv(write(f",u,v\n{below}"), 2)[4].columns[0].name == "column 1"


@pytest.mark.parametrize("gap", ["", "?", "NA", "na", "N/A", "#N/A", "NaN", "nan", "NULL", "null", "-", "--", "."])
def test_gaps_are_known_in_any_case(write, gap):
    path = write(f"x,t,y\n1,a,1.5\n{gap},{gap},2.5\n3,b,3.5\n")
    X, *_, table = nnx.load_csv(path, "y", test_size=0)
    assert [column.gaps for column in table.columns] == [1, 1, 0]
    assert table.input_names == ["x", "t=a", "t=b"]
    assert sorted(X[:, 0].tolist())[1] == 0


def test_most_cells_decide_whether_a_column_is_numbers(write):
    rows = "1,1\n2,2\n3,3\nfour,4.5\n"
    with pytest.raises(nnx.DataFileError, match=r"line 5, holds 'four' in column 'x', whose other cells are numbers"):
        nnx.load_csv(write("x,y\n" + rows), "y", test_size=0)
    half = "1,1\ntwo,2\n3,3\nfour,4.5\n"
    with pytest.raises(nnx.DataFileError, match=r"line 3, holds 'two' in column 'x'"):
        nnx.load_csv(write("x,y\n" + half), "y", test_size=0)
    less = "1,1\ntwo,2\nthree,3\nfour,4.5\n"
    assert nnx.load_csv(write("x,y\n" + less), "y", test_size=0)[4].columns[0].kind == "text"


def test_a_column_that_the_training_rows_lack_is_zero(write):
    order = np.random.RandomState(0).permutation(10)
    cells = [str(row) if row in order[:2] else "" for row in range(10)]
    path = write("x,z,y\n" + "".join(f"{cell},{row},{row}.5\n" for row, cell in enumerate(cells)))
    X, _, X_test, _, table = nnx.load_csv(path, "y")
    assert (table.columns[0].mean, table.columns[0].scale) == (0, 1)
    assert (X[:, 0] == 0).all()
    assert X_test[:, 0].tolist() == order[:2].tolist()


def test_a_gap_in_a_table_of_one_column_is_a_row(write):
    table = nnx.Table([Number("x", 1.0), Number("y")], "y")
    for text in ('x\n1\n""\n3\n\n', "x\n1\n\n3\n\n", "x\n\n1\n\n3"):
        X = table.read_inputs(write(text, "one.csv"))
        np.testing.assert_array_equal(X[X[:, 0] != 0], [[2]])
    assert len(table.read_inputs(write("x\n1\n\n3\n\n", "one.csv"))) == 3


def test_numbers_as_text_or_classes_are_told_apart_by_value(write):
    path = write("m,y\n" + "1,0\n2.0,1\n1.0,1.0\n2,0.0\n" * 10)
    X, y, _, _, table = nnx.load_csv(path, "y", text=["m"], test_size=0)
    assert table.classes == ("0", "1")
    assert table.input_names == ["m=1", "m=2"]
    np.testing.assert_array_equal(X.sum(axis=0), [20, 20])
    assert np.bincount(y).tolist() == [20, 20]
    X, y = table.read_samples(write("m,y\n1.00,1\n02,0.0\n", "new.csv"))
    np.testing.assert_array_equal(X, [[1, 0], [0, 1]])
    assert y.tolist() == [1, 0]


def test_positions_may_be_numpys_and_lists_of_positions(write):
    table = nnx.load_csv(write(FLATS), np.int64(-1), drop=[0])[4]
    assert (table.target.name, table.columns[0].kind) == ("rent", "ignored")
    _, *_, table = nnx.load_csv(write(FLATS), "rent", drop=("area", 1), gaps="fill")
    assert table.input_names == ["town=Graz", "town=Linz"]


def test_ignored_columns_may_have_gaps_where_others_may_not(write):
    path = write("a,x,y\n,1,1.5\n,2,2.5\n,3,3.5\n")
    assert nnx.load_csv(path, "y", drop=["a"], gaps="refuse", test_size=0)[4].input_names == ["x"]


def test_a_column_of_one_value_is_harmless(write):
    path = write("x,c,y\n" + "".join(f"{i},0.1,{i}.5\n" for i in range(10)))
    X, *_, table = nnx.load_csv(path, "y")
    assert table.columns[1].scale == 1
    np.testing.assert_allclose(X[:, 1], 0, atol=1e-6)


# Raw files, and answers


@pytest.fixture
def flats(write):
    return nnx.load_csv(write(FLATS), "rent", test_size=0)[4]


def test_other_files_are_read_by_their_columns_names(write, flats):
    path = write("town,unknown,rooms,area\nLinz,x,2,70\nGraz,y,,30\n", "new.csv")
    X = flats.read_inputs(path)
    area, rooms = flats.columns[0], flats.columns[1]
    expected = [
        [(70 - area.mean) / area.scale, (2 - rooms.mean) / rooms.scale, 0, 1],
        [(30 - area.mean) / area.scale, 0, 1, 0],
    ]
    np.testing.assert_allclose(X, expected, rtol=1e-6)


def test_other_files_without_a_header_may_lack_the_target(write):
    rows = FLATS.split("\n", 1)[1].replace("70,,", "70,2.5,")
    table = nnx.load_csv(write(rows), 1, test_size=0)[4]  # in the middle
    whole = table.read_inputs(write("50,2,Graz,500\n", "new.csv"))
    np.testing.assert_array_equal(whole, table.read_inputs(write("50,Graz,500\n", "new.csv")))
    with pytest.raises(nnx.DataFileError, match=r"has 2 columns, and must have 4, or 3 without 'column 2'\."):
        table.read_inputs(write("50,2\n", "new.csv"))
    with pytest.raises(nnx.DataFileError, match=r"Table\.read_samples: '.*' has 3 columns, and must have 4\."):
        table.read_samples(write("50,Graz,500\n", "new.csv"))


def test_samples_hold_the_targets_and_class_names_may_end_in_a_full_stop(write):
    path = write("1,<=50K\n2,>50K\n3,<=50K\n")
    table = nnx.load_csv(path, 1, test_size=0)[4]
    _, y = table.read_samples(write("5,>50K.\n6,<=50K.\n7,>50K\n", "test.csv"))
    assert y.tolist() == [1, 0, 1]


def test_outputs_become_names_or_numbers_in_the_targets_units(flats):
    classes = nnx.Table([Number("x"), Text("y", ("no", "yes"))], "y")
    assert classes.decode([[0.2, 0.8], [0.9, 0.1]]).tolist() == ["yes", "no"]
    assert classes.decode([[0.8], [0.5]]).tolist() == ["yes", "no"]
    mean = flats.target.mean
    assert flats.decode(np.zeros((2, 1))).tolist() == [mean, mean]
    for table, outputs in ((classes, [[0.5, 0.5], [np.nan, np.nan]]), (flats, [[1], [np.inf]])):
        with pytest.raises(ValueError, match=r"Table\.decode: outputs must be finite numbers, got \[.*\] in row 1\."):
            table.decode(outputs)
    with pytest.raises(ValueError, match=r"outputs must have shape \(n, 2\), got \(1, 3\)"):
        classes.decode([[0.2, 0.8, 0]])
    with pytest.raises(ValueError, match=r"Table\.decode: outputs must have shape \(n, 1\), got \(1, 2\)"):
        flats.decode([[1, 2]])


def test_a_table_prints_what_it_knows(flats):
    lines = repr(flats).splitlines()
    assert lines[1] == "  'area': number, mean 60, scale 22.3607, 1 missing,"
    assert lines[3] == "  'town': 2 categories (Graz, Linz), 1 missing,"
    assert lines[4].startswith("  target 'rent': number, mean 700.1, ")
    wide = nnx.Table([Number(f"x{2 * i}") for i in range(100)] + [Number("y")], "y")
    assert repr(wide).splitlines()[-3:-1] == ["  and 70 more columns,", "  target 'y': number, mean 0, scale 1,"]


# In model files


def regression(table):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(table.n_inputs, table.n_outputs))
    model.set(
        loss=nnx.Loss_MeanSquaredError(),
        optimizer=nnx.Optimizer_Adam(),
        accuracy=nnx.Accuracy_Regression(),
        table=table,
    )
    model.finalize()
    return model


def test_a_model_keeps_its_table_in_its_file(flats, write, tmp_path):
    model = regression(flats)
    model.save(tmp_path / "m")
    again = nnx.Model.load(tmp_path / "m")
    assert again.table.to_dict() == flats.to_dict()
    path = write("area,rooms,town\n61,2,Linz\n", "new.csv")
    answers = [each.table.decode(each.predict(each.table.read_inputs(path))) for each in (model, again)]
    np.testing.assert_array_equal(*answers)


def test_a_model_without_a_table_loads_without_one(flats, tmp_path):
    model = regression(flats)
    model.table = None
    model.save(tmp_path / "m")
    assert nnx.Model.load(tmp_path / "m").table is None


def test_set_takes_tables_only_and_keeps_the_one_it_has(flats):
    model = regression(flats)
    model.set(loss=nnx.Loss_MeanAbsoluteError())
    assert model.table is flats
    with pytest.raises(TypeError, match=r"Model\.set: table must be of the class Table, got int\."):
        model.set(table=3, optimizer=nnx.Optimizer_SGD())
    assert isinstance(model.optimizer, nnx.Optimizer_Adam)


def test_a_table_must_fit_the_first_dense_layer_behind_activations(flats, tmp_path):
    model = nnx.Model()
    for layer in (nnx.Activation_ReLU(), nnx.Layer_Dense(3, 1)):
        model.add(layer)
    model.set(table=flats)
    model.finalize()
    with pytest.raises(ValueError, match=r"Model\.save: table must give the 3 inputs of the network, got 4\."):
        model.save(tmp_path / "m")


def test_a_table_of_other_columns_is_not_saved(flats, tmp_path):
    model = regression(flats)
    model.table = nnx.Table([Number("x"), Number("y")], "y")
    with pytest.raises(ValueError, match=r"Model\.save: table must give the 4 inputs of the network, got 1\."):
        model.save(tmp_path / "m")
    model.table = nnx.Table([Text("x", tuple("abcd")), Text("y", tuple("abc"))], "y")
    with pytest.raises(ValueError, match=r"Model\.save: table must have the 1 outputs of the network, got 3\."):
        model.save(tmp_path / "m")
    assert list(tmp_path.glob("m*")) == []


DAMAGE = {
    "a missing key": lambda d: {"columns": d["columns"], "target": d["target"]},
    "one key more": lambda d: {**d, "code": "import os"},
    "an unknown target": lambda d: {**d, "target": "price"},
    "an ignored target": lambda d: {**d, "columns": [*d["columns"][:-1], {"kind": "ignored", "name": "rent"}]},
    "an unknown kind": lambda d: {**d, "columns": [{"kind": "date", "name": "x"}, *d["columns"][1:]]},
    "a kind that is a list": lambda d: {**d, "columns": [{"kind": [], "name": "x"}, *d["columns"][1:]]},
    "scale 0": lambda d: change(d, scale=0.0),
    "a scale of text": lambda d: change(d, scale="1"),
    "a whole scale": lambda d: change(d, scale=True),
    "negative gaps": lambda d: change(d, gaps=-1),
    "two names alike": lambda d: change(d, name="rooms"),
    "a name that is none": lambda d: change(d, name=5),
    "a unit that is none": lambda d: change(d, unit="kg"),
    "one mark for both": lambda d: change(d, decimal=",", thousands=","),
    "a category too many": lambda d: {**d, "columns": [*d["columns"][:2], text("a", "b", "c"), *d["columns"][3:]]},
    "one class": lambda d: {
        **d,
        "columns": [*d["columns"][:-1], {"kind": "text", "name": "rent", "categories": ["a"], "gaps": 0}],
    },
    "a text that no file can hold": lambda d: {
        **d,
        "columns": [*d["columns"][:2], text("a", "\ud800"), *d["columns"][3:]],
    },
    "an infinite mean": lambda d: change(d, mean=10**350),
    "two categories alike": lambda d: {**d, "columns": [*d["columns"][:2], text("a", "a"), *d["columns"][3:]]},
    "a category of numbers": lambda d: {**d, "columns": [*d["columns"][:2], text("a", 1), *d["columns"][3:]]},
}


def change(described, **values):
    return {**described, "columns": [{**described["columns"][0], **values}, *described["columns"][1:]]}


def text(*categories):
    return {"kind": "text", "name": "town", "categories": list(categories), "gaps": 0}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_table_in_a_file_is_refused(flats, tmp_path, monkeypatch, case):
    model = regression(flats)
    damaged = DAMAGE[case](flats.to_dict())
    monkeypatch.setattr(nnx.Table, "to_dict", lambda self: damaged)
    model.save(tmp_path / "m")
    with pytest.raises(nnx.ModelFileError, match=r"^Model\.load: '.*' is damaged: its table cannot be used \(.*\)\.$"):
        nnx.Model.load(tmp_path / "m")


def test_a_file_of_parameters_holds_no_table(flats, tmp_path, monkeypatch):
    from nnx.files import safetensors

    write = safetensors.write
    monkeypatch.setattr(
        safetensors,
        "write",
        lambda where, path, description, arrays: write(where, path, {**description, "table": flats.to_dict()}, arrays),
    )
    model = regression(flats)
    model.save_parameters(tmp_path / "p")
    with pytest.raises(nnx.ModelFileError, match=r"Model\.load_parameters: "):
        model.load_parameters(tmp_path / "p")


def test_what_a_table_says_of_itself_makes_the_same_table(flats):
    assert nnx.Table.from_dict(flats.to_dict()).to_dict() == flats.to_dict()


def test_columns_of_ones_own_are_checked_when_they_are_made(tmp_path):
    model = regression(nnx.Table([Number("x", mean=70, scale=20), Number("y")], "y"))
    model.save(tmp_path / "m")
    assert nnx.Model.load(tmp_path / "m").table.columns[0] == Number("x", 70.0, 20.0)
    for wrong, sentence in (
        (lambda: Number("x", scale=0), r"Number: scale must be .*, got 0\."),
        (lambda: Number("x", mean=np.nan), r"Number: mean must be a finite number, got nan\."),
        (lambda: Number(3), r"Number: name must be text, got 3\."),
        (lambda: Text("x", ("a", "a")), r"Text: categories must be different texts, at least one, got \('a', 'a'\)\."),
        (lambda: Text("x", ()), r"Text: categories must be different texts, at least one"),
        (lambda: Text("x", ("a", 1)), r"Text: each of categories must be text, got 1\."),
        (lambda: Text("x", ("a", "\ud800")), r"Text: each of categories must be text that UTF-8 can hold, got "),
        (lambda: nnx.Table(["x", "y"], "y"), r"Table: columns must be of the classes in nnx\.data\.columns, got 'x'\."),
        (lambda: nnx.Table([Number("x"), Text("y", ("a",))], "y"), r"Table: target must have two classes or more"),
        (lambda: nnx.Table([Number("x"), Number("x")], "x"), r"Table: columns must have different names"),
        (lambda: nnx.Table([Number("x"), Ignored("y")], "y"), r"Table: target must be a column of numbers or text"),
    ):
        with pytest.raises((TypeError, ValueError), match=sentence):
            wrong()


# What is refused

REFUSED = {
    "no such column": (
        FLATS,
        {"target": "price"},
        r" has no column 'price' for target. Its columns are area, rooms, town, rent.",
    ),
    "no such place": (FLATS, {"target": 4}, r" has no column 4 for target."),
    "true is no place": (FLATS, {"target": True}, r" has no column True for target."),
    "no such column to drop": (FLATS, {"target": "rent", "drop": ["id"]}, r" has no column 'id' for drop."),
    "a text among numbers": (
        FLATS.replace("70,", "7o,"),
        {"target": "rent"},
        ", line 3, holds '7o' in column 'area', whose other cells are numbers.",
    ),
    "a text among targets": (
        FLATS.replace("900", "many"),
        {"target": "rent"},
        ", line 3, holds 'many' in column 'rent', whose other cells are numbers.",
    ),
    "an infinite number": (FLATS.replace("70,", "inf,"), {"target": "rent"}, ", line 3, holds 'inf' in column 'area'"),
    "an immense number": (
        FLATS.replace("70,", "1e200,"),
        {"target": "rent"},
        ", line 3, holds '1e200' in column 'area'",
    ),
    "underscores": (FLATS.replace("70,", "7_0,"), {"target": "rent"}, ", line 3, holds '7_0' in column 'area'"),
    "a gap in the target": (
        "x,y\n1,2.5\n2,NA\n3,4.5\n",
        {"target": "y", "gaps": "refuse"},
        ", line 3, has a missing value ('NA') in column 'y'. Pass gaps='fill'.",
    ),
    "a target without values": (
        "x,y\n1,\n2,?\n3,\n",
        {"target": "y"},
        " holds no value in column 'y', which is to be predicted.",
    ),
    "gaps": (
        FLATS,
        {"target": "rent", "gaps": "refuse"},
        " has 3 problems:\n  line 4: has a missing value ('?') in column 'area'\n  line 3: has a missing value ('') "
        "in column 'rooms'\n"
        "  line 5: has a missing value ('NA') in column 'town'\nPass gaps='fill'.",
    ),
    "several short rows": (
        FLATS.replace(",Linz", ""),
        {"target": "rent"},
        ", line 3, has 3 cells, and the first row has 4. 1 other line differs from it too.",
    ),
    "a short row": (
        FLATS.replace("30,1,Linz,300", "30,1"),
        {"target": "rent"},
        ", line 6, has 2 cells, and the first row has 4.",
    ),
    "an empty column": (
        "x,e,y\n1,,2\n2,?,3\n3,,1\n",
        {"target": "y"},
        " holds no value in column 'e'. Pass drop=['e'].",
    ),
    "two columns alike": ("x,x,y\n1,2,3\n", {"target": "y", "header": True}, " has two columns 'x'."),
    "nothing": ("", {"target": "y"}, " is empty."),
    "a long first cell": ("x" * 200_000 + ",y\n1,2\n", {"target": "y"}, " cannot be read as CSV after line 1 ("),
    "a column's name on two lines": (
        'x,"a\nb",y\n1,1,1.5\n2,,2.5\n',
        {"target": "z"},
        r" has no column 'z' for target. Its columns are x, 'a\nb', y.",
    ),
    "blank lines": ("\n\n \n", {"target": "y"}, " is empty."),
    "a header alone": ("x,y\n", {"target": "y"}, " has no rows below its header."),
    "one row": (
        "x,y\n1,2\n",
        {"target": "y"},
        " has 2 problems:\n  has 1 row, too few to keep a fraction of 0.2 for testing\n  holds only '2' in column 'y'",
    ),
    "no inputs": ("y\n1\n2\n3\n4\n5\n6\n", {"target": "y"}, " has no column beside 'y' to predict it from."),
    "one number": ("x,y\n1,5.5\n2,5.50\n3,5.5\n", {"target": "y"}, " holds only '5.5' in column 'y', so there is "),
    "one class": (
        "x,y\n1,a\n2,a\n3,a\n",
        {"target": "y"},
        " holds only 'a' in column 'y', so there is nothing to learn.",
    ),
    "texts for regression": (
        "x,y\n1,a\n2,b\n3,a\n",
        {"target": "y", "task": "regression"},
        ", line 2, holds 'a' in column 'y', which must hold numbers.",
    ),
    "not UTF-8": (b"x,y\n1,\xff\n", {"target": "y"}, " is not text in UTF-8."),
    "an open quote": (
        'x,y\n1,"2\n3,4\n',
        {"target": "y"},
        " cannot be read as CSV after line 1 (unexpected end of data).",
    ),
    "too many categories": (
        "n,y\n" + "".join(f"name {i},{i}.5\n" for i in range(300)),
        {"target": "y"},
        " holds 300 different texts in 300 rows of column 'n', too many to be categories. Pass drop=['n'].",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_table_is_refused_with_its_file_line_and_column(write, case):
    text, arguments, reason = REFUSED[case]
    path = write(text)
    with pytest.raises(nnx.DataFileError) as error:
        nnx.load_csv(path, **arguments)
    assert str(error.value).startswith(f"load_csv: {path!r}{reason.rstrip('.')}")


def test_wrong_arguments_are_refused(write, tmp_path):
    path = write(FLATS)
    for arguments, sentence in (
        ({"test_size": 1}, r"load_csv: test_size must be a number from 0 up to, but not including, 1, got 1\."),
        ({"seed": -1}, r"load_csv: seed must be a whole number from 0 to 4294967295, got -1\."),
        ({"task": "magic"}, r"load_csv: task must be None or 'classification' or 'regression', got 'magic'\."),
        ({"gaps": "drop"}, r"load_csv: gaps must be 'fill' or 'refuse', got 'drop'\."),
        (
            {"task": "regression", "text": ["rent"]},
            r"load_csv: text must not hold the target of a regression, got 'rent'\.",
        ),
        ({"drop": ["rent"]}, r"load_csv: drop must not hold the target, got 'rent'\."),
    ):
        with pytest.raises(ValueError, match=sentence):
            nnx.load_csv(path, "rent", **arguments)
    with pytest.raises(TypeError, match=r"load_csv: drop must be a list of names, got 'area'\. Write \['area'\]\."):
        nnx.load_csv(path, "rent", drop="area")
    with pytest.raises(TypeError, match=r"load_csv: text must be a list of names, got None\."):
        nnx.load_csv(path, "rent", text=None)
    with pytest.raises(TypeError, match=r"load_csv: header must be True or False, got 'yes'\."):
        nnx.load_csv(path, "rent", header="yes")
    with pytest.raises(FileNotFoundError, match=r"load_csv: there is no file '.*nothing\.csv'\."):
        nnx.load_csv(tmp_path / "nothing.csv", "rent")
    with pytest.raises(TypeError, match=r"load_csv: path must be the name of a file or folder, got None\."):
        nnx.load_csv(None, "rent")
    with pytest.raises(IsADirectoryError, match=r"load_csv: '.*' is a folder, not a CSV file\."):
        nnx.load_csv(tmp_path, "rent")


def test_a_header_with_a_name_twice_is_a_header_if_numbers_stand_below(write):
    for text in ("x,x,y\n1,2,3\n4,5,6\n", "x,x,y\na,2,b\n"):
        with pytest.raises(nnx.DataFileError, match=r"^load_csv: '.*' has two columns 'x'\.$"):
            nnx.load_csv(write(text), -1)
    table = nnx.load_csv(write("a,a,b\nb,b,b\na,b,a\n" * 5), -1)[4]
    assert not table.header  # texts may be the same


@pytest.mark.parametrize("length", [3, 30_000])
def test_a_tables_text_in_place_of_its_files_name_is_told_apart_and_not_printed(length):
    text = "x,y\n" + "1,2\n" * length
    for read in (lambda: nnx.load_csv(text, "y"), lambda: nnx.Table([Number("x"), Number("y")], "y").read_inputs(text)):
        with pytest.raises(ValueError, match=r": path must be a file's name, got '.*'\. Wrap .* io\.StringIO") as error:
            read()
        assert len(str(error.value)) < 200


def test_each_different_cell_is_looked_at_once(write, monkeypatch):
    rows = "".join(f"{'?' if i % 7 == 0 else i % 5},{'abc'[i % 3]},{'no' if i % 2 else 'yes'}\n" for i in range(3000))
    looked_at = []
    for module in (nnx.data.learning, nnx.data.sheet, nnx.data.tables, nnx.data.columns, nnx.data.notation):
        for name in ("is_gap", "number"):
            if callable(real := getattr(module, name, None)):
                monkeypatch.setattr(module, name, lambda cell, real=real: looked_at.append(cell) or real(cell))
    nnx.load_csv(write("x,t,y\n" + rows), "y", test_size=0)
    assert len(looked_at) < 600  # gaps that are filled are still looked at one by one


def test_a_dash_that_an_older_table_knows_as_a_class_stays_one(write):
    table = nnx.Table([Number("x"), Text("t", ("-", "a")), Text("y", ("+", "-"))], "y")
    X, y = table.read_samples(write("x,t,y\n1,-,+\n2,a,-\n3,b-,?\n".replace("b-", "-")))
    assert (X[:, 1].tolist(), y.tolist()) == ([1, 0], [0, 1])


def test_names_in_one_text_are_told_apart_in_the_advice(write):
    path = write(FLATS)
    with pytest.raises(TypeError, match=r"got 'area, rooms,town'\. Write \['area', 'rooms', 'town'\]\.$"):
        nnx.load_csv(path, "rent", drop="area, rooms,town")
    with pytest.raises(TypeError, match=r"got 'a,b'\. Write \['a,b'\]\.$"):
        nnx.load_csv(write('"a,b",a,b,y\n1,2,3,4\n'), "y", drop="a,b")


def test_a_column_cannot_be_text_and_dropped(write):
    with pytest.raises(ValueError, match=r"^load_csv: drop must not hold a column that text holds, got 'rooms'\.$"):
        nnx.load_csv(write(FLATS), "rent", text=["rooms", "area"], drop=[1])
    path = write("n,y\n" + "".join(f"name {i},{i}.5\n" for i in range(300)))
    with pytest.raises(nnx.DataFileError, match=r"too many to be categories\. Name it for drop instead of text\.$"):
        nnx.load_csv(path, "y", text=["n"])


def customers(n=40, **columns):
    """Return a table with many mistakes."""
    all_columns = {
        "id": [1000 + 3 * i for i in range(n)],
        "name": [f"name {i}" for i in range(n)],
        "joined, on": [f"day {1 + i}" for i in range(n)],
        "empty": [""] * n,
        "age": [20 + i % 30 if i != 7 else "old" for i in range(n)],
        "plan": ["basic" if i % 3 else "plus" for i in range(n)],
        "price": [f"${i}" if i % 9 else f"{i} EUR" for i in range(n)],
        "churn": ["yes" if i % 2 else "no" for i in range(n)],
        **columns,
    }
    header = ",".join(f'"{name}"' for name in all_columns)
    return "\n".join([header, *(",".join(map(str, row)) for row in zip(*all_columns.values(), strict=True))]) + "\n"


def test_all_problems_of_a_file_are_told_at_once_with_what_solves_them(write):
    path = write(customers())
    with pytest.raises(nnx.DataFileError) as error:
        nnx.load_csv(path, "churn")
    assert str(error.value) == (
        f"load_csv: {path!r} has 6 problems:\n"
        "  seems to number the rows in column 'id'\n"
        "  holds 40 different texts in 40 rows of column 'name', too many to be categories\n"
        "  holds 40 different texts in 40 rows of column 'joined, on', too many to be categories\n"
        "  holds no value in column 'empty'\n"
        "  line 9: holds 'old' in column 'age', whose other cells are numbers. Correct it, or take the column as text\n"
        "  line 2: holds '0 EUR' in column 'price', whose other cells are numbers such as $1234.50 (4 more are not). "
        "Correct it, or leave the column out\n"
        "Pass drop=['id', 'name', 'joined, on', 'empty', 'price'], text=['age']."
    )
    table = nnx.load_csv(path, "churn", drop=["name", "joined, on", "empty", "price", "id"], text=["age"])[4]
    assert [column.kind for column in table.inputs] == ["text", "text"]


def test_columns_that_number_the_rows_are_named_and_learnt_all_the_same(write):
    def row_numbers(numbers, name="n"):
        rows = "".join(f"{number},{i % 7},{i}.5\n" for i, number in enumerate(numbers))
        return nnx.load_csv(write(f"{name},x,y\n{rows}"), "y")[4].row_numbers

    assert row_numbers(range(40)) == ("n",)
    assert row_numbers(range(900, 100, -20)) == ("n",)
    assert row_numbers(np.random.default_rng(0).permutation(40)) == ("n",)
    assert row_numbers(i * i for i in range(40)) == ("n",)
    assert row_numbers(i // 2 for i in range(40)) == ()
    assert row_numbers(i + 0.5 for i in range(40)) == ()
    assert row_numbers(range(10)) == ()  # too few to tell
    shuffled = [10**17 + 7 * i * i for i in np.random.default_rng(0).permutation(40).tolist()]
    assert row_numbers(shuffled) == ()
    for name, is_id in (("id", True), ("Customer ID", True), ("orderId", True), ("Objekt-Nr.", True), ("paid", False)):
        assert row_numbers(shuffled, name) == (name,) * is_id


def test_texts_that_differ_in_nearly_each_row_are_refused_unless_they_are_asked_for(write):
    names = [f"n{i}" if i > 3 else "n5" for i in range(40)]
    text = "n,x,y\n" + "".join(f"{name},{i % 7},{i}.5\n" for i, name in enumerate(names))
    with pytest.raises(nnx.DataFileError, match=r"holds 36 different texts in 40 rows of column 'n', too many"):
        nnx.load_csv(write(text), "y")
    assert nnx.load_csv(write(text), "y", text=["n"])[4].columns[0].width == 36
    assert nnx.load_csv(write(text.replace("n39", "n5")), "y")[4].columns[0].width == 35
    assert nnx.load_csv(write(text[: text.index("n20")]), "y", drop=[0])[4].n_inputs == 1


def test_rows_without_a_target_are_left_out_and_counted(write):
    path = write("x,y\n1,a\n2,\n3,b\n4,NA\n5,a\n")
    X, y, _, _, table = nnx.load_csv(path, "y", test_size=0)
    assert (len(X), len(y), table.n_left_out) == (3, 3, 2)
    assert table.target.gaps == 0
    assert table.columns[0].mean == 3
    assert len(table.read_samples(path)[0]) == 3
    assert len(table.read_inputs(path)) == 5
    assert nnx.Table.from_dict(table.to_dict()).n_left_out == 0
    with pytest.raises(nnx.DataFileError, match=r"line 3, has a missing value \(''\) in column 'y', one of 2\."):
        nnx.load_csv(path, "y", gaps="refuse")


def test_a_target_that_nothing_can_be_learnt_of_asks_for_another(write):
    for cells in (["", "?"], ["a", "a"], [f"name {i}" for i in range(40)]):
        text = "x,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells * 10))
        with pytest.raises(nnx.DataFileError) as error:
            nnx.load_csv(write(text if len(cells) == 2 else text[: text.index("40,")]), "y")
        assert str(error.value).endswith(" Choose another target.")
        assert "drop" not in str(error.value)


def test_texts_that_are_long_numbers_stay_apart(write):
    ids = ["12345678901234567", "12345678901234568", "12345678901234569"]
    text = "id,y\n" + "".join(f"{ids[i % 3]},{ids[i % 2]}\n" for i in range(60))
    X, y, _, _, table = nnx.load_csv(write(text), "y", text=["id"], task="classification", test_size=0)
    assert table.input_names == [f"id={each}" for each in ids]
    assert table.classes == tuple(ids[:2])
    np.testing.assert_array_equal(X.sum(axis=0), [20, 20, 20])
    assert np.bincount(y).tolist() == [30, 30]
    X, _ = table.read_samples(write("id,y\n12345678901234568.0,12345678901234567\n", "new.csv"))
    np.testing.assert_array_equal(X, [[0, 1, 0]])
    np.testing.assert_array_equal(table.read_inputs({"id": [12345678901234569]}), [[0, 0, 1]])


def test_an_unknown_text_is_a_missing_value_if_asked_for(flats, write):
    path = write("area,rooms,town\n60,2,Wien\n60,2,Linz\n60,2,Bern\n60,2,\n", "new.csv")
    with pytest.raises(nnx.DataFileError) as error:
        flats.read_inputs(path)
    assert str(error.value).endswith(
        "line 2, holds 'Wien' in column 'town', "
        "which is not one of the 2 known values: Graz, Linz. Also unknown: Bern. "
        "Pass unknown='missing' to take such texts for missing values."
    )
    np.testing.assert_array_equal(flats.read_inputs(path, unknown="missing")[:, 2:], [[0, 0], [0, 1], [0, 0], [0, 0]])
    with pytest.raises(ValueError, match=r"Table\.read_inputs: unknown must be 'error' or 'missing', got 'ignore'\."):
        flats.read_inputs(path, unknown="ignore")
    classes = nnx.Table([Text("x", ("a", "b")), Text("y", ("no", "yes"))], "y")
    X, y = classes.read_samples(write("x,y\nc,no\n", "new.csv"), unknown="missing")
    assert (X.tolist(), y.tolist()) == ([[0, 0]], [0])
    with pytest.raises(
        nnx.DataFileError, match=r"holds 'maybe' in column 'y', which is not one of the 2 known values: no, yes\.$"
    ):
        classes.read_samples(write("x,y\na,maybe\n", "new.csv"), unknown="missing")


def test_all_names_that_a_file_lacks_are_told_at_once(write):
    with pytest.raises(nnx.DataFileError) as error:
        nnx.load_csv(write(FLATS), "price", drop=["id", "area"], text=[9])
    assert str(error.value).endswith(
        "has no column 'price' for target, no column 9 for text, no column 'id' for drop. "
        "Its columns are area, rooms, town, rent."
    )


@pytest.mark.long("a table has to be wide for this to be seen")
def test_wide_tables_are_read_in_linear_time(write):
    """30,000 columns, as of genes; a step for each pair of columns would take minutes."""
    names = [f"g{i}" for i in range(30_000)]
    rows = [",".join([*(f"{(i * row) % 17}.5" for i in range(30_000)), "ab"[row % 2]]) for row in range(4)]
    path = write("\n".join([",".join([*names, "y"]), *rows]) + "\n")
    X, *_, table = nnx.load_csv(path, "y", drop=names[:10_000], test_size=0)
    assert X.shape == (4, 20_000)
    assert nnx.Table.from_dict(table.to_dict()).n_inputs == 20_000
    assert table.read_inputs({name: [1.5] for name in names}).shape == (1, 20_000)


UNKNOWN = {
    "a missing column": ("area,town\n50,Graz\n", " has no column 'rooms'. Its columns are area, town."),
    "an unknown category": (
        "area,rooms,town\n50,2,Wien\n",
        ", line 2, holds 'Wien' in column 'town', which is not one of the 2 known values: Graz, Linz. "
        "Pass unknown='missing' to take such texts for missing values.",
    ),
    "no number": (
        "area,rooms,town\n50,2,Graz\nbig,2,Graz\n",
        ", line 3, holds 'big' in column 'area', which must hold numbers.",
    ),
    "far away": (
        "area,rooms,town\n1e60,2,Graz\n",
        ", line 2, holds '1e60' in column 'area', too far from the mean of 60.",
    ),
    "rather far away": (
        "area,rooms,town\n1e20,2,Graz\n",
        ", line 2, holds '1e20' in column 'area', too far from the mean of 60.",
    ),
    "no header": ("50,2,Graz\n60,3,Linz\n", " has no columns 'area', 'rooms', 'town'. Its columns are 50, 2, Graz."),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_file_that_does_not_fit_the_table_is_refused(flats, write, case):
    text, reason = UNKNOWN[case]
    path = write(text, "new.csv")
    with pytest.raises(nnx.DataFileError) as error:
        flats.read_inputs(path)
    assert str(error.value) == f"Table.read_inputs: {path!r}{reason}"


def test_targets_must_be_known_to_judge_a_model(flats, write):
    with pytest.raises(nnx.DataFileError, match=r"Table\.read_samples: '.*' has no column 'rent'\."):
        flats.read_samples(write("area,rooms,town\n50,2,Graz\n", "new.csv"))
    classes = nnx.Table([Number("x"), Text("y", ("no", "yes"))], "y")
    with pytest.raises(
        nnx.DataFileError, match=r"line 2, holds 'maybe' in column 'y', which is not one of the 2 known values: no, yes"
    ):
        classes.read_samples(write("x,y\n1,maybe\n", "new.csv"))
    with pytest.raises(nnx.DataFileError, match=r"' holds no value in column 'y', which is to be predicted\."):
        classes.read_samples(write("x,y\n1,\n", "new.csv"))


def test_numbered_columns_share_a_line_where_a_table_is_printed():
    columns = [nnx.data.columns.Number(f"pixel{number}", number, 2) for number in range(1, 785)]
    columns += [
        nnx.data.columns.Number("size"),
        nnx.data.columns.Number("s1"),
        nnx.data.columns.Number("s2"),
        nnx.data.columns.Number("y"),
    ]
    lines = repr(nnx.Table(columns, "y")).splitlines()
    assert lines[1] == "  'pixel1' to 'pixel784': 784 columns of numbers,"
    assert lines[2:5] == [f"  {name!r}: number, mean 0, scale 1," for name in ("size", "s1", "s2")]
    many = [nnx.data.columns.Number(f"{name}{2 * number}") for name in "ab" for number in range(20)]
    lines = repr(nnx.Table([*many, nnx.data.columns.Number("y")], "y")).splitlines()
    assert lines[31] == "  and 10 more columns,"
