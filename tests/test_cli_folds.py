"""`nnx train --folds`: the folds, the rows that each is scored on, and the saved model."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx.cli import main, tasks

pytestmark = pytest.mark.one_backend

QUICK = ("--epochs", "5", "--layers", "8")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, rng):
    """Work in a folder with a table of 90 pets, one in nine a hen, and one of 60 prices; two rows lack the target."""
    monkeypatch.chdir(tmp_path)
    x = rng.normal(size=90)
    kinds = ["hen" if i % 9 == 0 else "cat" if a > 0 else "dog" for i, a in enumerate(x)]
    pets = [f"{a:.4f},{farm},{kind}" for a, farm, kind in zip(x, "xy" * 45, kinds, strict=True)]
    (tmp_path / "pets.csv").write_text("\n".join(["size,farm,pet", *pets, "1.0,x,", "2.0,y,?"]) + "\n")
    prices = [f"{a:.4f},{1000 + 100 * a:.2f}" for a in x[:60]]
    (tmp_path / "prices.csv").write_text("\n".join(["size,price", *prices]) + "\n")


def train(capsys, *arguments, code=0):
    assert main(["train", *arguments]) == code
    return capsys.readouterr()


@pytest.mark.parametrize("seed", [0, 7])
def test_folds_are_of_one_size_and_have_the_same_share_of_each_class(rng, seed):
    classes = rng.choice(4, 203, p=[0.7, 0.2, 0.08, 0.02])
    fold_of = tasks.fold_of_rows(classes, 203, 5, seed)
    assert np.ptp(np.bincount(fold_of, minlength=5)) <= 1
    for number in range(4):
        assert np.ptp(np.bincount(fold_of[classes == number], minlength=5)) <= 1
    without = tasks.fold_of_rows(None, 203, 5, seed)
    assert np.ptp(np.bincount(without, minlength=5)) <= 1
    assert (np.sort(without) != without).any()
    assert (tasks.fold_of_rows(classes, 203, 5, seed + 1) != fold_of).any()


def options(**given):
    names = (
        "target",
        "test",
        "header",
        "task",
        "text",
        "drop",
        "gaps",
        "decimal",
        "unknown",
        "encoding",
        "effort",
        "split_seed",
        "batch",
    )
    return argparse.Namespace(**{**dict.fromkeys(names), **given})


def test_each_row_is_in_one_fold_and_the_columns_are_learnt_from_the_others():
    whole, folds = tasks.cross_validation(options(data="prices.csv", target="price", folds=4))
    sizes = np.loadtxt("prices.csv", delimiter=",", skiprows=1)[:, 0]
    assert whole.table.columns[0].mean == pytest.approx(sizes.mean())
    assert len(whole.X) == 60
    tested = []
    for task in folds:
        column = task.table.columns[0]
        train, test = ((part[:, 0] * column.scale + column.mean) for part in (task.X, task.X_test))
        assert (len(train), len(test)) == (45, 15)
        assert column.mean == pytest.approx(train.mean(), abs=1e-6)
        np.testing.assert_allclose(np.sort([*train, *test]), np.sort(sizes), atol=1e-5)
        assert task.table.target.mean != whole.table.target.mean
        tested += test.tolist()
    np.testing.assert_allclose(np.sort(tested), np.sort(sizes), atol=1e-5)


def test_figures_of_folds_their_spread_and_a_model_of_all_rows(capsys):
    out = train(capsys, "pets.csv", "--target", "pet", "--folds", "3", *QUICK).out
    assert out.startswith("pets.csv: 90 samples in 3 folds; the target 'pet' is 3 classes.\nLeft out: 2 rows without")
    lines = re.findall(r"^fold (\d) of 3: accuracy (\S+) \(", out, re.MULTILINE)
    assert [number for number, _ in lines] == ["1", "2", "3"]
    scores = [float(score) for _, score in lines]
    mean, deviation = re.search(r"^accuracy +(\S+) ± (\S+)  ", out, re.MULTILINE).groups()
    assert "3 folds, rows not trained on: mean ± standard deviation (lowest to highest)\n" in out
    assert float(mean) == pytest.approx(statistics.fmean(scores), abs=1e-3)
    assert float(deviation) == pytest.approx(statistics.stdev(scores), abs=2e-3)
    assert f"Model saved to {os.path.abspath('pets.safetensors')}, trained on the rows of all folds\n" in out
    table = nnx.Model.load("pets.safetensors").table
    sizes = [float(line.split(",")[0]) for line in Path("pets.csv").read_text().splitlines()[1:91]]
    assert table.columns[0].mean == pytest.approx(np.mean(sizes))
    assert not re.search("^test ", out, re.MULTILINE)


def test_a_fold_is_what_training_on_the_other_folds_gives(capsys):
    out = train(capsys, "prices.csv", "--target", "price", "--folds", "3", *QUICK).out
    rows = np.array(Path("prices.csv").read_text().splitlines()[1:])
    fold_of = tasks.fold_of_rows(None, 60, 3, 0)
    for name, part in (("train", rows[fold_of != 1]), ("test", rows[fold_of == 1])):
        with open(f"{name}.csv", "w") as file:
            file.write("\n".join(["size,price", *part]) + "\n")
    table = nnx.Table.learn("train.csv", "price")
    X_test, y_test = table.read_samples("test.csv")
    X, y = table.read_samples("train.csv")
    np.random.seed(0)
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(1, 8, weight_regularizer_l2=1e-4), nnx.Activation_ReLU(), nnx.Layer_Dense(8, 1)):
        model.add(layer)
    model.layers[0].weights *= 2**0.5 / 0.01
    model.add(nnx.Activation_Linear())
    adam = nnx.Optimizer_Adam(0.003, decay=1e-3)
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=adam, accuracy=nnx.Accuracy_Regression(), table=table)
    model.finalize()
    model.train(X, y, epochs=5, batch_size=64, shuffle=True, seed=0, print_every=None)
    assert f"fold 2 of 3: {model.report(X_test, y_test).line}\n" in out


def test_rows_of_a_test_file_judge_the_model_of_all_rows(capsys):
    shutil.copy("prices.csv", "more.csv")
    out = train(capsys, "prices.csv", "--target", "price", "--folds", "2", "--test", "more.csv", *QUICK).out
    (test,) = re.findall("^test  .*", out, re.MULTILINE)
    (training,) = re.findall("^training  .*", out, re.MULTILINE)
    assert test.split()[1:] == training.split()[1:]
    assert out.count("\nfold ") == 2


def test_folds_hold_rows_out_to_tell_when_to_stop(capsys):
    out = train(capsys, "pets.csv", "--target", "pet", "--folds", "2", "--patience", "1", "--epochs", "40").out
    assert out.count("fold ") == 2


def test_a_diverged_fold_is_one_sentence(capsys):
    given = ("--optimizer", "sgd", "--rate", "1e30", "--epochs", "20")
    err = train(capsys, "prices.csv", "--target", "price", "--folds", "2", *given, code=1).err
    assert "nnx train: training diverged" in err
    assert not os.path.exists("prices.safetensors")


@pytest.mark.parametrize("given", [QUICK, ()])
def test_ctrl_c_within_the_folds_saves_nothing(capsys, monkeypatch, given):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(nnx, "train_many", interrupted)
    monkeypatch.setattr(nnx.tabular, "fit", interrupted)
    err = train(capsys, "prices.csv", "--target", "price", "--folds", "2", *given, code=130).err
    assert "Stopped within the cross-validation; nothing is saved." in err
    assert not os.path.exists("prices.safetensors")


FOLDS = ["pets.csv", "--target", "pet", "--folds", "3"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pets.csv", "--target", "pet", "--folds", "1"], "argument --folds: must be a whole number from 2 to 1000"),
        (["pets.csv", "--target", "pet", "--folds", "91"], "argument --folds: must be at most 90, the number of rows"),
        (["spiral", "--folds", "3"], "argument --folds: is for FILE.csv only, got it with 'spiral'"),
        ([*FOLDS, "--repeat", "2"], "not allowed with argument --repeat"),
        (
            [*FOLDS, "--checkpoint", "c"],
            "not allowed with argument --checkpoint",
        ),
        (
            [*FOLDS, "--test-size", "0.1"],
            "not allowed with argument --test-size",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, arguments, says):
    with pytest.raises(SystemExit) as left:
        main(["train", *arguments])
    assert left.value.code == 2
    assert says in capsys.readouterr().err
