"""The figures that `nnx train` and `nnx evaluate` print: the baseline beside the score, repeated runs, seeds."""

from __future__ import annotations

import os
import re
import statistics

import numpy as np
import pytest

import nnx
from nnx.cli import main, pictures

pytestmark = pytest.mark.one_backend

QUICK = ("--epochs", "30", "--layers", "8")
#: A network that has learnt almost nothing, and one that has diverged.
POOR = ("--epochs", "1", "--layers", "none", "--rate", "1e-9")
FAR = ("--epochs", "1", "--rate", "10")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, rng):
    """Work in a folder with two tables: prices, and pets of which three in four are cats."""
    x = rng.normal(size=(400, 2))
    price = 1000 + 100 * x[:, 0] + 10 * x[:, 1] ** 2
    rows = [f"{a:.4f},{b:.4f},{p:.2f}" for (a, b), p in zip(x, price, strict=True)]
    (tmp_path / "prices.csv").write_text("\n".join(["a,b,price", *rows]) + "\n")
    pets = np.where(x[:, 0] + 0.3 * rng.normal(size=400) > 0.7, "dog", "cat")
    rows = [f"{a:.4f},{b:.4f},{pet}" for (a, b), pet in zip(x, pets, strict=True)]
    (tmp_path / "pets.csv").write_text("\n".join(["a,b,pet", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)


def train(capsys, *arguments, code=0):
    assert main(["train", *arguments]) == code
    return capsys.readouterr()


def lines_of(out, start):
    return [line.removeprefix(start).strip() for line in out.splitlines() if line.startswith(start)]


# Beside the score


def test_classes_have_baseline_balanced_accuracy_log_loss_auc_recall_and_precision(capsys):
    out = train(capsys, "pets.csv", "--target", "pet", *QUICK).out
    X, y, X_test, y_test, _ = nnx.load_csv("pets.csv", "pet")
    model = nnx.Model.load("pets.safetensors")
    for part, data in (("training", (X, y)), ("test", (X_test, y_test))):
        report = model.report(*data)
        assert lines_of(out, part) == [
            f"accuracy {report.accuracy:.3f} (baseline {report.baseline:.3f}), balanced accuracy "
            f"{report.balanced_accuracy:.3f} (0.500), log loss {report.log_loss:.3f} "
            f"({report.baseline_log_loss:.3f}), AUC {report.auc:.3f} (0.500)"
        ]
    assert report.baseline == np.mean(y_test == 0)
    assert lines_of(out, "baseline") == ["always predicting 'cat'; its scores are in parentheses"]
    further = f"mean F1 {report.mean_f1:.3f}, calibration error {report.calibration_error:.3f}"
    assert lines_of(out, "further") == [further]
    assert [line.split() for line in report.table] == [line.split() for line in lines_of(out, "  ")]
    assert lines_of(out, "  class") == ["recall  precision     F1  samples"]
    assert main(["evaluate", "pets.safetensors", "pets.csv"]) == 0
    printed = capsys.readouterr()
    whole = model.report(np.concatenate([X, X_test]), np.concatenate([y, y_test]))
    assert printed.out.splitlines()[0] == f"400 samples: {whole.line}"
    assert printed.err == ""


def test_numbers_have_r_squared_error_and_rmse_in_the_targets_units(capsys):
    train(capsys, "prices.csv", "--target", "price", *QUICK)
    main(["evaluate", "prices.safetensors", "prices.csv"])
    line = capsys.readouterr().out.splitlines()[0]
    true = np.loadtxt("prices.csv", delimiter=",", skiprows=1)[:, 2]
    table = nnx.Model.load("prices.safetensors").table
    predicted = table.decode(nnx.Model.load("prices.safetensors").predict(table.read_inputs("prices.csv")))
    errors = np.abs(predicted - true)
    form = r"400 samples: R² ([\d.]+) \(baseline 0\), mean absolute error (\S+) \((\S+)\), RMSE (\S+) \((\S+)\)"
    found = [float(text.replace(",", "")) for text in re.fullmatch(form, line).groups()]
    assert found == pytest.approx(
        [
            1 - np.mean(errors**2) / true.var(),
            *(errors.mean(), np.abs(true - true.mean()).mean(), np.mean(errors**2) ** 0.5, true.std()),
        ],
        rel=1e-3,
    )


@pytest.mark.parametrize(
    ("table", "target", "options", "says"),
    [
        ("prices", "price", FAR, "worse than always predicting the mean: R² -"),
        ("pets", "pet", POOR, "than always predicting 'cat': accuracy 0."),
    ],
)
def test_a_model_that_is_not_better_than_guessing_is_called_that(capsys, table, target, options, says):
    printed = train(capsys, f"{table}.csv", "--target", target, *options)
    beside = r"(worse|no better) than the baseline 0"
    assert re.search(rf"^test      \S+ \S+ \({beside}", printed.out, re.MULTILINE)
    last = printed.err.splitlines()[-1]
    assert last.startswith("nnx train: WARNING: this model is ")
    assert says in last
    assert last.endswith(" Try a smaller --rate, or more --epochs.")
    assert "on the test data, the baseline has 0" in last
    assert main(["evaluate", f"{table}.safetensors", f"{table}.csv"]) == 0
    printed = capsys.readouterr()
    assert re.match(rf"400 samples: \S+ \S+ \({beside}", printed.out)
    assert printed.err.startswith("nnx evaluate: WARNING: this model is ")
    assert says in printed.err
    assert printed.err.count("\n") == 1


def test_a_model_that_knows_its_training_rows_by_heart_gets_other_advice(capsys, rng):
    rows = "\n".join(f"{x:.6f},{y:.6f}" for x, y in rng.normal(size=(40, 2)))
    with open("noise.csv", "w") as file:
        file.write(f"x,y\n{rows}\n")
    err = train(capsys, "noise.csv", "--target", "y", "--test-size", "0.5", "--rate", "0.02").err
    assert err.splitlines()[-1].endswith(
        "It is better on the training data. Try more rows, fewer --epochs, a larger --l2, or --dropout."
    )


def test_a_good_model_gets_no_warning(capsys):
    assert "WARNING" not in train(capsys, "prices.csv", "--target", "price", *QUICK).err


def test_the_bar_of_a_regression_shows_no_accuracy(capsys):
    err = train(capsys, "prices.csv", "--target", "price", *QUICK).err
    assert "loss 0." in err
    assert "acc" not in err


# Seeds and repeated runs


def split_of(path):
    """Return the training rows' means, which differ between splits."""
    return [column.mean for column in nnx.Model.load(path).table.columns]


@pytest.mark.long("trains four networks")
def test_the_seed_is_for_the_weights_and_the_split_seed_for_the_split(capsys):
    found = {}
    zeros = ("--seed", "0", "--split-seed", "0")
    for name, seeds in {"": (), "00": zeros, "10": ("--seed", "1"), "01": ("--split-seed", "1")}.items():
        train(capsys, "prices.csv", "--target", "price", *POOR, *seeds, "-o", f"{name}.model")
        weights = nnx.Model.load(f"{name}.model").get_parameters()[0][0]
        found[name] = (split_of(f"{name}.model"), weights.round(6).tolist())
    assert found[""] == found["00"]
    assert found["10"][0] == found["00"][0]
    assert found["10"][1] != found["00"][1]
    assert found["01"][0] != found["00"][0]
    assert found["01"][1] == found["00"][1]


@pytest.mark.parametrize("arguments", [("pets.csv", "--target", "pet"), ("prices.csv", "--target", "price")])
def test_the_picture_shows_the_data_and_the_training(capsys, monkeypatch, arguments):
    pytest.importorskip("matplotlib")
    figures = []
    monkeypatch.setattr(pictures, "_save", lambda figure, where, path: figures.append(figure))
    train(capsys, *arguments, *QUICK, "-o", "m.safetensors")
    (figure,) = figures
    data, training = figure.axes[:2]
    assert data.has_data()
    assert training.has_data()
    assert figure.get_suptitle() == f"{arguments[0]}: test data, and the training"


@pytest.mark.long("trains many networks")
@pytest.mark.parametrize(("table", "target"), [("prices", "price"), ("pets", "pet")])
def test_repeated_runs_take_other_seeds_and_splits_and_print_mean_and_spread(capsys, table, target):
    alone, scores = [], []
    for seed in ("0", "1", "2"):
        seeds = ("--seed", seed, "--split-seed", seed)
        out = train(capsys, f"{table}.csv", "--target", target, *QUICK, *seeds, "-o", f"alone{seed}").out
        alone += lines_of(out, "test")
        _, _, X_test, y_test, _ = nnx.load_csv(f"{table}.csv", target, seed=int(seed))
        scores.append(nnx.Model.load(f"alone{seed}").score(X_test, y_test))
    out = train(capsys, f"{table}.csv", "--target", target, *QUICK, "--repeat", "3").out
    assert lines_of(out, "test") == alone[:1]
    assert lines_of(out, "run 2 of 3:") == alone[1:2]
    assert lines_of(out, "run 3 of 3:") == alone[2:]
    assert "3 runs, test data: mean ± standard deviation (lowest to highest)\n" in out
    name = "R²" if table == "prices" else "accuracy"
    assert re.search(rf"^{name:<20}(.*)", out, re.MULTILINE)[1] == (
        f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}  ({min(scores):.3f} to {max(scores):.3f})"
    )
    assert out.endswith("The saved model is that of the first run.\n")
    with open(f"{table}.safetensors", "rb") as saved, open("alone0", "rb") as expected:
        assert saved.read() == expected.read()


def test_the_books_data_can_be_repeated_too(capsys):
    out = train(capsys, "spiral", "--samples", "30", "--epochs", "2", "--repeat", "2").out
    assert lines_of(out, "test") != lines_of(out, "run 2 of 2:") != []


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "run 3 of 4: stopped"),
        (
            nnx.DivergenceError("Model.train: training diverged in epoch 1. No."),
            1,
            "run 3 of 4: training diverged",
        ),
    ],
)
def test_a_run_that_ends_early_leaves_the_others_figures(capsys, monkeypatch, error, code, says):
    calls, train_model = [], nnx.Model.train

    def failing(self, *arguments, **options):
        calls.append(self)
        if len(calls) == 3:
            raise error
        return train_model(self, *arguments, **options)

    monkeypatch.setattr(nnx.Model, "train", failing)
    out = train(capsys, "prices.csv", "--target", "price", *QUICK, "--repeat", "4", code=code).out
    assert says in out
    assert f"{2 if code == 130 else 3} runs, test data: mean" in out
    assert os.path.exists("prices.safetensors")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--repeat", "0"], "argument --repeat: must be a whole number from 1 to 1000, got '0'"),
        (["--repeat", "2", "--checkpoint", "c"], "argument --repeat: not allowed with argument --checkpoint"),
        (["--repeat", "2", "--resume", "prices.csv"], "argument --repeat: not allowed with argument --resume"),
        (["--split-seed", "-1"], "argument --split-seed: must be a whole number from 0 to 4294967295, got '-1'"),
        (["--split-seed", "1"], "argument --split-seed: is for FILE.csv and FOLDER/ only, got it with 'spiral'"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, arguments, says):
    with pytest.raises(SystemExit) as left:
        main(["train", "spiral", *arguments])
    printed = capsys.readouterr()
    assert left.value.code == 2
    assert says in printed.err
    assert printed.err.count("\n") == 1
