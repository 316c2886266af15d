"""CSV files that are larger than memory: they are read block by block, with the same results as smaller ones."""

from __future__ import annotations

import os

import numpy as np
import pytest

import nnx
from nnx._base import memory
from nnx.cli import main
from nnx.data import large_files, sources
from nnx.data.large_files import LargeFile

pytestmark = pytest.mark.one_backend

QUICK = ["--epochs", "3", "--layers", "8"]


@pytest.fixture
def folder(tmp_path, monkeypatch, rng):
    """Write a table with amounts, quotes, dates, gaps, and rare texts at its end, and enter its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "allowed", lambda: 40_000)
    monkeypatch.setattr(large_files, "LEAST_TEXT", 1000)
    lines = ["joined,plan,price,visits,note,churn"]
    for i in range(600):
        price, visits = float(rng.uniform(900, 2000)), int(rng.integers(40))
        plan = ("basic", "plus")[i % 2] if i % 17 else ""
        cells = [f"20{10 + i % 10}-0{1 + i % 9}-{10 + i % 18}", plan if i < 595 else "rare", f'"${price:,.2f}"']
        cells += [str(visits) if i % 19 else "NA", '"a\nb"' if i % 3 else '"say ""c"""']
        lines.append(",".join([*cells, ("yes" if price > 40 * visits else "no") if i % 50 else ""]))
    (tmp_path / "customers.csv").write_text("\n".join(lines))  # the last line has no end
    return tmp_path


def learnt(path, target, test_size=0.0, **how):
    file = LargeFile("load_csv", path, None, None, 20_000)
    table = file.learn({"target": target, **how}, test_size, 0)
    return file, table


def test_columns_are_learnt_from_all_rows(folder):
    file, table = learnt("customers.csv", "churn")
    expected = nnx.Table.learn("customers.csv", "churn")
    assert 20 < file.n_learnt < 300
    for found, column in zip(table.columns, expected.columns, strict=True):
        assert (found.name, found.kind, found.gaps) == (column.name, column.kind, column.gaps)
        if found.kind == "number":
            np.testing.assert_allclose([found.mean, found.scale], [column.mean, column.scale], rtol=1e-12)
            assert found.notation == column.notation
        if found.kind == "text":
            assert found == column
    assert "rare" in table.columns[1].categories
    assert table.n_left_out == expected.n_left_out == 12


def test_rows_are_encoded_as_the_table_reads_them(folder):
    file, table = learnt("customers.csv", "churn")
    rows = file.encode(table)
    X, y = table.read_samples("customers.csv")
    pieces = list(rows.blocks.pieces(None, 0))
    np.testing.assert_array_equal(np.concatenate([piece.X for piece in pieces]), X)
    np.testing.assert_array_equal(np.concatenate([piece.y for piece in pieces]), y)
    assert len(rows.X_test) == 0
    assert rows.n_bytes == X.nbytes + y.nbytes


def test_rows_to_test_on_are_not_trained_on(folder):
    file, table = learnt("customers.csv", "churn", 0.1)
    rows = file.encode(table)
    X, _ = table.read_samples("customers.csv")
    trained_on = np.concatenate([piece.X for piece in rows.blocks.pieces(None, 0)])
    assert 15 < len(rows.X_test) < 90
    assert len(rows.X_test) + len(trained_on) == len(X)
    together = np.concatenate([rows.X_test, trained_on])
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(X, axis=0))
    price = table.columns[2]
    assert abs(trained_on[:, table.slices[price.name]].mean()) < 1e-6  # the test rows have no part in it
    small = LargeFile("load_csv", "customers.csv", None, None, 4_000)  # whose memory holds fewer
    assert len(small.encode(small.learn({"target": "churn"}, 0.5, 0)).X_test) < 60


def test_a_bar_shows_how_much_has_been_read(folder, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, total, first, unit):
            assert (total, first, unit) == (os.path.getsize("customers.csv"), 0, "B")
            bars.append([total])

        def update(self, n):
            bars[-1].append(-n)

        def close(self):
            assert sum(bars[-1]) == 0

    monkeypatch.setattr(sources, "progress_bar", Bar)
    for least in (os.path.getsize("customers.csv") + 1, os.path.getsize("customers.csv")):
        monkeypatch.setattr(sources, "LEAST_SHOWN", least)
        assert not bars
        file, table = learnt("customers.csv", "churn")
        file.encode(table)
    assert len(bars) == 3  # to learn what the columns are, what is in them, and for the samples


@pytest.mark.long("trains twice on a large file")
def test_nnx_train_says_so_and_comes_to_the_same(folder, capsys, monkeypatch):
    command = ["train", "customers.csv", "--target", "churn", "--epochs", "40", "--seed", "1"]
    assert main([*command, "-o", "large.safetensors"]) == 0
    out, _ = capsys.readouterr()
    assert "Reading it at once needs more than --memory allows, so it is read block by block." in out
    assert "Left out: 12 rows without a value in 'churn'.\n" in out
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert main([*command, "-o", "small.safetensors"]) == 0
    out, _ = capsys.readouterr()
    assert "block by block" not in out
    large, small = (nnx.Model.load(f"{name}.safetensors") for name in ("large", "small"))
    X, y = large.table.read_samples("customers.csv")
    assert large.score(X, y) > 0.9
    assert abs(large.score(X, y) - small.score(*small.table.read_samples("customers.csv"))) < 0.05


@pytest.mark.long("trains three times on a large file")
def test_a_checkpoint_is_gone_on_with(folder, capsys):
    command = ["train", "customers.csv", "--target", "churn", *QUICK]
    assert main([*command, "-o", "whole.safetensors"]) == 0
    assert main([*command[:-4], "--epochs", "1", *QUICK[2:], "--checkpoint", "run", "-o", "first.safetensors"]) == 0
    assert main([*command, "--resume", "run", "-o", "rest.safetensors"]) == 0
    whole, rest = (nnx.Model.load(f"{name}.safetensors") for name in ("whole", "rest"))
    np.testing.assert_array_equal(whole.layers[0].weights, rest.layers[0].weights)


def test_what_is_wrong_is_said_with_its_line(folder, capsys):
    text = (folder / "customers.csv").read_text()
    lines = text.split("\n")
    number = len(lines) - 2
    for cells, message in (
        ("2010-01-10,basic,cheap,3,a,yes", "holds 'cheap' in column 'price', which must hold numbers"),
        ("2010-01-10,basic,$1", "has 3 cells, and the first row has 6"),
        ('2010-01-10,ba"sic,$1,3,a,yes', "cannot be read block by block"),
    ):
        (folder / "odd.csv").write_text("\n".join([*lines[:number], cells, *lines[number:]]))
        with pytest.raises(SystemExit) as left:
            main(["train", "odd.csv", "--target", "churn", *QUICK])
        assert left.value.code == 2
        err = capsys.readouterr().err
        assert message in err
        if "cheap" in cells or "has 3 cells" in message:
            assert f"line {number + 1}" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "churn", "--effort", "fast"], "argument --effort: is not for a file that"),
        (["--target", "churn", "--folds", "3"], "argument --folds: is not for a file that"),
        (["--target", "churn", "--patience", "3"], "argument --patience: is not for a file that"),
        (["--target", "none"], "none"),
        ([], "argument --target: must name the column to predict. 'customers.csv' has joined, plan, price,"),
        (["--memory", "0"], "argument --memory: must be a number above 0 and below 1, got '0'"),
    ],
)
def test_options_that_need_all_rows_are_refused(folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as left:
        main(["train", "customers.csv", *arguments])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_full_disk_is_seen_before(folder, monkeypatch):
    file, table = learnt("customers.csv", "churn")
    monkeypatch.setattr(large_files.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(nnx.DataFileError, match=r"needs about \d MB of space .* Let TMPDIR name another folder"):
        file.encode(table)
