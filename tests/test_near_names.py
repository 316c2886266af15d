"""A name that is not allowed is refused with the allowed name that it is nearest to."""

import subprocess
import sys

import numpy as np
import pytest

import nnx
from nnx import _kernels, cli
from nnx._base import text

pytestmark = pytest.mark.one_backend

X, Y = np.zeros((12, 2)), np.arange(12) % 2


@pytest.mark.parametrize(
    ("allowed", "given", "sentence"),
    [
        (["adam", "sgd", "lion"], ["adm"], " Did you mean 'adam'?"),
        (["train", "predict"], ["TRIAN"], " Did you mean 'train'?"),
        (["Rent", "rooms"], ["rnet"], " Did you mean 'Rent'?"),
        (["rent", "rooms"], ["ren", 3, "room", "ren"], " Did you mean 'rent' and 'rooms'?"),
        (["rent", "rooms"], ["rnet", "garden"], " Did you mean 'rent'?"),
        (["rent", "rooms"], ["garden"], ""),
        (["data_loss", "validation_loss"], ["val_loss"], ""),
        ([None, "fill", "refuse"], ["fil"], " Did you mean 'fill'?"),
        (["it's"], ["its"], ' Did you mean "it\'s"?'),
        (["float32", "bfloat16"], ["float64"], ""),
        (["area 1", "area 2"], ["aera 2", "area 3"], " Did you mean 'area 2'?"),
        (["fill"], [None], ""),
        (["fill"], [], ""),
        ([], ["fill"], ""),
    ],
)
def test_the_nearest_name_is_named(allowed, given, sentence):
    assert text.near(allowed, *given) == sentence


def test_long_names_and_names_behind_very_many_are_not_compared():
    long = "a" * text.LONGEST_SHOWN
    assert text.near([long], f"{long[1:]}b") == f" Did you mean {long!r}?"
    assert text.near([long], f"{long}b") == text.near([f"{long}b"], long) == ""
    many = [f"column {number}" for number in range(text.MOST_NAMES)]
    assert text.near([*many[1:], "rent"], "ren") == " Did you mean 'rent'?"
    assert text.near([*many, "rent"], "ren") == ""


WRONG = {
    "a command": (
        ["trian"],
        "nnx: argument COMMAND: must be one of 'train', ",
        "got 'trian'. Did you mean 'train'? Try",
    ),
    "data": (
        ["train", "sprial"],
        "nnx train: argument DATA: must be spiral, ",
        "and there is no 'sprial'. Did you mean 'spiral'? Try: nnx train --help",
    ),
    "no data": (["train", "cats"], "nnx train: argument DATA: must be spiral, ", "no 'cats'. Try: nnx train --help"),
    "an option's value": (
        ["train", "--optimizer", "adm"],
        "nnx train: argument --optimizer: must be one of 'adagrad', 'adam', ",
        "'sgd', got 'adm'. Did you mean 'adam'? Try: nnx train --help",
    ),
    "options": (
        ["train", "spiral", "--epoch", "3", "--ltwo=1", "--bacth=2"],
        "nnx train: unrecognized arguments: --epoch 3 --ltwo=1 --bacth=2. ",
        " Did you mean '--epochs' and '--batch'? Try: nnx train --help",
    ),
    "columns": (
        ["train", "flats.csv", "--target", "ren", "--drop", "romos", "garden"],
        "nnx train: 'flats.csv' has no column 'ren' for target, no column 'romos' for drop, no column 'garden' for ",
        "Its columns are rooms, rent. Did you mean 'rent' and 'rooms'?\n",
    ),
    "a column of numbered ones": (
        ["train", "flats.csv", "--target", "ren", "--no-header"],
        "nnx train: 'flats.csv' has no column 'ren' for target. Its columns are column 1, column 2.\n",
        "",
    ),
    "a column to keep": (
        ["predict", "flats.model", "flats.csv", "--keep", "ren"],
        "nnx predict: 'flats.csv' has no column 'ren' for keep. Its columns are rooms, rent. Did you mean 'rent'?\n",
        "",
    ),
    "data to evaluate": (
        ["evaluate", "flats.model", "sprial"],
        "nnx evaluate: argument DATA: must be spiral, ",
        "and there is no 'sprial'. Did you mean 'spiral'? Try: nnx evaluate --help",
    ),
}


@pytest.mark.parametrize(("command", "beginning", "end"), WRONG.values(), ids=WRONG)
def test_the_command_names_what_is_nearest(command, beginning, end, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flats.csv").write_text("rooms,rent\n" + "".join(f"{n % 5},{n % 7}\n" for n in range(12)))
    if "flats.model" in command:
        model = nnx.Model()
        model.add(nnx.Layer_Dense(1, 1))
        columns = [nnx.data.columns.Number("rooms"), nnx.data.columns.Number("rent")]
        model.set(loss=nnx.Loss_MeanSquaredError(), table=nnx.Table(columns, "rent"))
        model.finalize()
        model.save("flats.model")
    with pytest.raises(SystemExit) as left:
        cli.main(command)
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(beginning)
    assert end in told
    assert told.count("\n") == 1


def history(**arguments):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 2))
    model.add(nnx.Activation_Softmax())
    model.set(loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD())
    model.finalize()
    return nnx.Ensemble([model]).train(X, Y, **arguments)


CALLS = {
    "a choice": (lambda: nnx.EarlyStopping(monitor="validation_los"), "Did you mean 'validation_loss'?"),
    "an initializer": (lambda: nnx.Layer_Dense(2, 2, weight_initializer="he_noraml"), "Did you mean 'he_normal'?"),
    "a column": (
        lambda: nnx.Table.learn({"rent": [1, 2], "rooms": [1, 2]}, target="ren"),
        "Its columns are rent, rooms. Did you mean 'rent'?",
    ),
    "a keyword of members": (lambda: history(epohcs=3), "there is no keyword 'epohcs'. Did you mean 'epochs'?"),
    "a keyword of all members": (lambda: history(patince=3), "there is no keyword 'patince'. Did you mean 'patience'?"),
    "a keyword of one model": (lambda: history(checkpont="c"), "there is no keyword 'checkpont'."),
    "a keyword of a run": (
        lambda: nnx.Run(nnx.Model(), X, Y, epohcs=3),
        "Model.train has no keyword 'epohcs'. Did you mean 'epochs'?",
    ),
    "a backend": (lambda: _kernels.choose("natve"), "; got 'natve'. Did you mean 'native'?"),
}


@pytest.mark.parametrize(("call", "end"), CALLS.values(), ids=CALLS)
def test_functions_name_what_is_nearest(call, end):
    with pytest.raises((TypeError, ValueError, ImportError)) as refusal:
        call()
    assert str(refusal.value).endswith(end)


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("solver", "adm", "adam"),
        ("activation", "rleu", "relu"),
        ("activation", "leaky_rleu", "leakyrelu"),
        ("loss", "hubr", "huber"),
        ("learning_rate", "cosin", "cosine"),
        ("norm", "bacth", "batch"),
        ("initializer", "he_norml", "he_normal"),
    ],
)
def test_estimators_name_what_is_nearest(name, given, meant):
    pytest.importorskip("sklearn")
    import nnx.sklearn

    with pytest.raises(ValueError, match=f"{name}.* {given!r}") as refusal:
        nnx.sklearn.MLPClassifier(**{name: given}).fit(X, Y)
    assert str(refusal.value).endswith(f". Did you mean {meant!r}?")
    with pytest.raises(ValueError, match=r"\.$"):  # with nothing near, and with no name at all
        nnx.sklearn.MLPClassifier(**{name: "xyz"}).fit(X, Y)
    with pytest.raises(ValueError, match=r"[^?]$"):
        nnx.sklearn.MLPClassifier(**{name: -3j}).fit(X, Y)


def test_the_estimators_of_tables_name_what_is_nearest():
    pytest.importorskip("sklearn")
    import nnx.sklearn

    with pytest.raises(ValueError, match=r"'effort' .* Got 'bset' instead\. Did you mean 'best'\?$"):
        nnx.sklearn.TabularClassifier(effort="bset").fit(X, Y)


def test_names_are_compared_only_where_an_error_is_told():
    code = "import sys, nnx, nnx.cli; sys.exit('difflib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_python_is_told_where_to_look_for_the_public_name_that_is_nearest():
    with pytest.raises(AttributeError, match="has no attribute 'Esemble'") as caught:
        nnx.Esemble  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("Esemble", nnx)
    assert "Ensemble" in dir(nnx)
