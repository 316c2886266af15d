"""`nnx train --effort`: tables are learnt by the recipe, unless options describe one network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx.cli import main

pytestmark = pytest.mark.one_backend

FAST = ("--effort", "fast")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, rng):
    """Work in a folder with tables of prices and of pets."""
    monkeypatch.chdir(tmp_path)
    x = rng.normal(size=(150, 2))
    towns = rng.choice(["Graz", "Linz"], 150)
    price = 1000 + 100 * x[:, 0] + 300 * (towns == "Linz") + rng.normal(size=150)
    write(
        "prices.csv",
        "size,age,town,price",
        ([f"{a:.4f}", f"{b:.4f}", t, f"{p:.2f}"] for (a, b), t, p in zip(x, towns, price, strict=True)),
    )
    pets = np.where(x[:, 0] + x[:, 1] > 0, "dog", "cat")
    write("pets.csv", "a,b,pet", ([f"{a:.4f}", f"{b:.4f}", pet] for (a, b), pet in zip(x, pets, strict=True)))


def write(name, head, rows):
    Path(name).write_text("\n".join([head, *map(",".join, rows)]) + "\n")


def train(capsys, *arguments, code=0):
    assert main(["train", *arguments]) == code
    return capsys.readouterr()


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main(["train", *arguments])
    assert left.value.code == 2
    return capsys.readouterr().err


def test_a_table_is_learnt_by_the_recipe_and_the_file_predicts_and_is_judged(capsys):
    pytest.importorskip("matplotlib")
    out = train(capsys, "prices.csv", "--target", "price", *FAST).out
    assert "Training networks on 4 inputs, with effort 'fast'.\n" in out
    assert float(re.search(r"^test      R² ([\d.]+) ", out, re.MULTILINE)[1]) > 0.9
    assert re.search(
        r"^columns   by importance, and how far R² falls when each is shuffled: town [\d.]+, " "size", out, re.MULTILINE
    )
    assert Path("prices.png").stat().st_size > 10_000
    ensemble = nnx.Ensemble.load("prices.safetensors")
    _, _, X_test, y_test, _ = nnx.load_csv("prices.csv", "price", **nnx.tabular.PREPARATION)
    assert f"test      {ensemble.report(X_test, y_test).line}\n" in out
    assert main(["evaluate", "prices.safetensors", "prices.csv"]) == 0
    assert capsys.readouterr().out.startswith("150 samples: R² ")
    assert main(["predict", "prices.safetensors", "prices.csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 151
    assert main(["info", "prices.safetensors"]) == 0


def test_what_was_tried_and_what_it_brought_is_printed(capsys):
    X, y, _, _, table = nnx.load_csv("pets.csv", "pet", **nnx.tabular.PREPARATION)
    expected = nnx.tabular.fit(table, X, y, effort="fast", seed=3)
    out = train(capsys, "pets.csv", "--target", "pet", *FAST, "--seed", "3").out
    assert "\n".join(expected.lines) in out
    np.testing.assert_array_equal(nnx.Ensemble.load("pets.safetensors").predict(X), expected.ensemble.predict(X))


def test_the_default_is_the_default_effort(capsys, monkeypatch):
    seen = []
    fit = nnx.tabular.fit

    def looking(*arguments, effort, **keywords):
        seen.append(effort)
        return fit(*arguments, effort="fast", **keywords)

    monkeypatch.setattr(nnx.tabular, "fit", looking)
    train(capsys, "pets.csv", "--target", "pet")
    assert seen == ["default"]


@pytest.mark.few
@pytest.mark.parametrize("given", [["--layers", "8"], ["--epochs", "2"], ["--rate", "0.01"], ["--patience", "2"]])
def test_options_of_one_network_mean_one_network(capsys, given):
    out = train(capsys, "pets.csv", "--target", "pet", *given).out
    assert re.search(r"^Training 2-\d+", out, re.MULTILINE)
    assert isinstance(nnx.Model.load("pets.safetensors"), nnx.Model)
    assert f"argument --effort: not allowed with argument {given[0]}, which is for one network" in refusal(
        capsys, "pets.csv", "--target", "pet", *given, *FAST
    )


@pytest.mark.long("trains two networks to their end")
def test_a_checkpoint_is_of_one_network(capsys):
    train(capsys, "pets.csv", "--target", "pet", "--checkpoint", "c", "--checkpoint-every", "400")
    train(capsys, "pets.csv", "--target", "pet", "--resume", "c")
    assert isinstance(nnx.Model.load("pets.safetensors"), nnx.Model)


@pytest.mark.long("trains many networks; each option is tried alone in every run")
def test_folds_repeats_and_the_page_go_with_effort(capsys):
    out = train(capsys, "pets.csv", "--target", "pet", *FAST, "--folds", "2", "--report", "page.html").out
    assert out.count("\nfold ") == 2
    assert "2 folds, rows not trained on: mean" in out
    page = Path("page.html").read_text()
    assert "Effort fast" in page
    assert page.count("data:image/png") == 3  # no importance without test rows
    out = train(capsys, "pets.csv", "--target", "pet", *FAST, "--repeat", "2", "--report", "page.html").out
    assert "run 2 of 2: accuracy" in out
    assert "The saved model is that of the first run." in out
    assert Path("page.html").read_text().count("data:image/png") == 4


def test_ctrl_c_saves_nothing(capsys, monkeypatch):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(nnx.tabular, "fit", interrupted)
    err = train(capsys, "pets.csv", "--target", "pet", code=130).err
    assert err.endswith("Stopped before the end. No model is saved.\n")
    assert not Path("pets.safetensors").exists()


def test_effort_is_for_tables(capsys):
    assert "argument --effort: is for FILE.csv only, got it with 'spiral'" in refusal(capsys, "spiral", *FAST)


# Odd tables: a model or a sentence


def odd(rng, what):
    """Write a table of 100 rows, or more, that is odd in one way."""
    x = rng.normal(size=(100, 3)).round(3)
    columns = {"a": x[:, 0], "b": x[:, 1], "y": (x[:, 0] * 2 + x[:, 2]).round(3)}
    if what == "gaps":
        columns["gone"] = [""] * 100
    elif what == "constant":
        columns["y"] = [7] * 100
    elif what == "rare":
        columns["y"] = ["rare"] * 2 + ["x" if value > 0 else "z" for value in x[2:, 0]]
    elif what == "rarer":
        columns["y"] = ["rare"] + ["x" if value > 0 else "z" for value in x[1:, 0]]
    elif what == "wide":
        columns |= {f"c{i}": rng.integers(0, 9, 100) for i in range(5000)}
    elif what == "categories":
        columns = {"town": [f"t{i}" for i in rng.integers(0, 1000, 3000)], "y": rng.normal(size=3000).round(3)}
    elif what == "few":
        columns = {name: values[:12] for name, values in columns.items()}
    write("odd.csv", ",".join(columns), (map(str, row) for row in zip(*columns.values(), strict=True)))


@pytest.mark.few("what")
@pytest.mark.parametrize("given", [FAST, ("--epochs", "2"), (*FAST, "--folds", "2")])
@pytest.mark.parametrize("what", ["plain", "gaps", "constant", "rare", "rarer", "categories", "few"])
def test_an_odd_table_gives_a_model_or_a_sentence(capsys, rng, what, given):
    odd(rng, what)
    try:
        code = main(["train", "odd.csv", "--target", "y", *given])
    except SystemExit as left:
        code = left.code
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert code in (0, 2)
    assert Path("odd.safetensors").exists() == (code == 0)
    if what in ("plain", "rare", "rarer", "few"):
        assert code == 0
    if what == "constant":
        assert "holds only '7' in column 'y', so there is nothing to learn" in err
    if what == "gaps":
        assert "holds no value in column 'gone'" in err


@pytest.mark.long("learns thousands of columns")
def test_thousands_of_columns_are_learnt(capsys, rng):
    odd(rng, "wide")
    out = train(capsys, "odd.csv", "--target", "y", "--epochs", "1", "--report", "page.html").out
    assert "columns   " not in out
    assert "and 4,902 more columns." in Path("page.html").read_text()
