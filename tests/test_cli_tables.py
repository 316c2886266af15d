"""A table from the command line: after a refusal, the proposed command works. Also predictions for later files."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

import nnx
from nnx.cli import main

pytestmark = pytest.mark.one_backend

QUICK = ["--epochs", "3", "--layers", "8"]


@pytest.fixture
def folder(tmp_path, monkeypatch, rng):
    """Write a table with ids, names, dates, amounts, percent, gaps and rows without a target, and enter its folder."""
    monkeypatch.chdir(tmp_path)
    rows = ["customer_id,name,joined,plan,price,discount,visits,churn"]
    for i in range(200):
        price, visits = float(rng.uniform(900, 2000)), int(rng.integers(40))
        cells = [str(5000 + i), f"name {i}", f"20{10 + i % 10}-{1 + i // 20:02}-{1 + i % 20:02}"]
        cells += [("basic", "plus")[i % 2] if i % 17 else "", f'"${price:,.2f}"', f"{i % 4 * 5}%"]
        cells += [str(visits) if i % 19 else "NA", ("yes" if price > 40 * visits else "no") if i % 50 else ""]
        rows.append(",".join(cells))
    (tmp_path / "customers.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def trained(folder, capsys):
    assert main(["train", "customers.csv", "--target", "churn", "--drop", "customer_id,name,joined", *QUICK]) == 0
    capsys.readouterr()
    return folder


def refusal(capsys, *arguments):
    """Return the message of a refused command."""
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    return err


def proposed(err):
    """Return the arguments of the command that a refusal proposes."""
    words = shlex.split(err.split("ry: ")[-1])
    assert words[0] == "nnx"
    return words[1:]


# nnx train


@pytest.mark.parametrize("given", [[], ["--target", "churn"]])
def test_a_table_is_trained_at_the_second_command_at_most(folder, capsys, given):
    err = refusal(capsys, "train", "customers.csv", *QUICK, *given)
    assert "has 2 problems:\n  seems to number the rows in column 'customer_id'\n  holds " in err
    assert err.count("name the column to predict. 'customers.csv' has customer_id, name,") == (not given)
    command = proposed(err)
    drop = ["--drop", "customer_id,name"]
    assert command == ["train", "customers.csv", *QUICK, *(given or ["--target", "churn"]), *drop]
    assert main(command) == 0
    out, _ = capsys.readouterr()
    assert "Left out: 4 rows without a value in 'churn'.\n" in out
    assert "Read as numbers: 'price' (such as $1,234.50), 'discount' (such as 12.5%).\n" in out
    table = nnx.Model.load("customers.safetensors").table
    assert [each for each in table.input_names if not each.startswith("joined.")] == [
        *("plan=basic", "plan=plus", "price", "discount", "visits")
    ]


def test_a_column_that_numbers_the_rows_is_named_and_trained_on(folder, capsys):
    assert main(["train", "customers.csv", "--target", "churn", "--drop", "name,joined", *QUICK]) == 0
    out, _ = capsys.readouterr()
    assert "'customer_id' seems to number the rows. If so, drop it: --drop customer_id\n" in out
    assert "customer_id" in nnx.Model.load("customers.safetensors").table.input_names


@pytest.mark.few
@pytest.mark.parametrize(
    "options",
    [
        ["--drop", "customer_id,name,joined"],
        ["--drop", "customer_id, name, joined"],
        ["--drop", "customer_id name joined"],
        ["--drop", "customer_id", "name", "joined"],
        ["--drop", "customer_id,", "name,", "3"],
        ["--drop", "1,2", "--drop", "joined"],
        ["--drop", "1 2 -6"],
        ["--drop=customer_id", "--drop=name,joined"],
    ],
)
def test_columns_are_listed_with_commas_blanks_or_repeated_options(folder, options):
    assert main(["train", "customers.csv", "--target", "churn", *options, *QUICK]) == 0
    table = nnx.Model.load("customers.safetensors").table
    assert [column.name for column in table.columns if column.kind == "ignored"] == ["customer_id", "name", "joined"]


def test_the_file_may_stand_behind_a_list_of_columns(folder):
    assert main(["train", *QUICK, "--target", "churn", "--drop", "customer_id", "name", "joined", "customers.csv"]) == 0
    assert main(["train", *QUICK, "--target", "churn", "--drop", "customer_id,name,joined", "customers.csv"]) == 0


def test_model_and_file_may_stand_behind_a_list_of_columns_to_keep(trained, capsys):
    model, data = "customers.safetensors", "customers.csv"
    answers = []
    for command in ([model, data, "--keep", "1", "name"], [model, "--keep", "1,2", data], ["--keep=1,2", model, data]):
        assert main(["predict", *command]) == 0
        answers.append(capsys.readouterr().out)
    assert main(["predict", "--keep", "1", "name", model, data]) == 0
    assert {*answers} == {capsys.readouterr().out}
    assert "nnx predict: arguments are missing: DATA. Try: nnx predict --help" in refusal(capsys, "predict", model)
    assert "arguments are missing: MODEL and DATA" in refusal(capsys, "predict", "--keep", "name")


@pytest.mark.parametrize(
    ("command", "others", "advice"),
    [
        ("predict", ["flats.safetensors"], "MODEL comes before DATA"),
        ("evaluate", ["flats.safetensors"], "MODEL comes before DATA"),
        ("info", [], "MODEL is what nnx train saves"),
        ("serve", [], "MODEL is what nnx train saves"),
        ("export", ["flats.c"], "MODEL is what nnx train saves"),
    ],
)
def test_a_table_in_place_of_the_model_is_said(command, others, advice, tmp_path, capsys, monkeypatch):
    if command == "serve":
        pytest.importorskip("nnx.serve.app")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flats.csv").write_text("area,rent\n60,700\n")
    said = refusal(capsys, command, "flats.csv", *others)
    assert said == f"nnx {command}: 'flats.csv' is not a safetensors file, and seems to be a table. {advice}.\n"
    (tmp_path / "flats.model").write_text("area,rent\n60,700\n")
    assert "'flats.model' is not a safetensors file, or is cut off." in refusal(capsys, command, "flats.model", *others)


def test_names_with_commas_blanks_and_dashes_are_proposed_and_taken(folder, capsys):
    names = ["a,b", "first name", "-x", "it's", "2"]
    rows = [",".join([*(f"{name[0]}{i}" for name in names), str(i * i % 7), str(i % 2)]) for i in range(40)]
    header = ",".join(f'"{name}"' for name in [*names, "z", "y"])
    (folder / "odd.csv").write_text("\n".join([header, *rows]) + "\n")
    err = refusal(capsys, "train", "odd.csv", "--target", "y", "--header", *QUICK)
    assert "has 5 problems:" in err
    assert main(proposed(err)) == 0
    table = nnx.Model.load("odd.safetensors").table
    assert [column.name for column in table.columns if column.kind == "ignored"] == names
    given = ["--drop", "a,b", "--drop=-x,first name,2,it's", *QUICK]
    assert main(["train", "odd.csv", "--target", "y", "--header", *given]) == 0


def test_one_problem_is_one_line_with_the_command_that_solves_it(folder, capsys):
    err = refusal(
        capsys, "train", "customers.csv", "--target", "churn", "--drop", "customer_id", "--task", "regression"
    )
    assert "'yes' in column 'churn', which must hold numbers\n" in err or "'no' in column 'churn', which must" in err
    (folder / "old.csv").write_text("age,y\n" + "".join(f"{i % 9 if i != 3 else 'old'},{i % 2}\n" for i in range(60)))
    err = refusal(capsys, "train", "old.csv", "--target", "y", *QUICK)
    assert err == (
        "nnx train: 'old.csv', line 5, holds 'old' in column 'age', whose other cells are numbers. Correct it, or take "
        "the column as text. Try: nnx train old.csv --target y --epochs 3 --layers 8 --text age\n"
    )
    assert main(proposed(err)) == 0
    capsys.readouterr()
    err = refusal(capsys, "train", "customers.csv", "--target", "name", *QUICK)
    assert err.endswith("\nChoose another --target, and add: --drop customer_id\n")


def test_a_refusal_of_gaps_proposes_to_fill_them(folder, capsys):
    given = ["train", "customers.csv", "--target", "churn", "--drop", "1,2,3", *QUICK]
    err = refusal(capsys, *given, "--gaps", "refuse")
    assert err.count("has a missing value") == 3
    assert main(proposed(err)) == 0


def test_help_is_proposed_for_errors_of_usage_only(folder, capsys):
    assert "--help" in refusal(capsys, "train", "customers.csv", "--target", "99")
    assert "--help" not in refusal(capsys, "train", "customers.csv", "--target", "price.")
    assert "--help" not in refusal(capsys, "train", "customers.csv", "--target", "churn")


def test_an_empty_output_is_refused(trained, capsys):
    before = {path.name: path.read_bytes() for path in trained.iterdir()}
    for command in (
        ["train", "customers.csv", "--target", "churn"],
        ["predict", "customers.safetensors", "customers.csv"],
    ):
        assert "argument -o/--output: path must name a file, got ''" in refusal(capsys, *command, "-o", "")
    assert {path.name: path.read_bytes() for path in trained.iterdir()} == before


def test_unknown_texts_of_the_test_file_may_be_missing_values(folder, capsys):
    text = (folder / "customers.csv").read_text()
    (folder / "test.csv").write_text("".join(text.replace("plus", "gold").splitlines(keepends=True)[:30]))
    given = ["train", "customers.csv", "--target", "churn", "--drop", "1,2,3", "--test", "test.csv", *QUICK]
    err = refusal(capsys, *given)
    assert (
        "'gold' in column 'plan', which is not one of the 2 known values: basic, plus. Try: nnx train customers.csv"
        in err
    )
    assert main(proposed(err)) == 0
    out, _ = capsys.readouterr()
    assert "Left out of test.csv: 1 row without a value in 'churn'." in out
    assert "Taken for missing values of test.csv: 13 unknown texts." in out
    err = refusal(capsys, "evaluate", "customers.safetensors", "test.csv")
    assert main(proposed(err)) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[:2] == [
        "Left out: 1 row without a value in 'churn'.",
        "Taken for missing values: 13 unknown texts.",
    ]


# nnx predict


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "nnx", *arguments], capture_output=True, text=True, timeout=60, **options
    )


def test_probabilities_and_kept_columns_go_through_a_pipe(trained):
    with open("customers.csv") as rows:
        done = process(
            "predict", "customers.safetensors", "-", "--keep", "customer_id,name", "--probabilities", stdin=rows
        )
    assert done.stderr == "200 rows predicted from standard input to standard output.\n"
    header, *lines = done.stdout.splitlines()
    assert header == "customer_id,name,churn,probability of no,probability of yes"
    cells = [line.split(",") for line in lines]
    assert [row[:2] for row in cells] == [[str(5000 + i), f"name {i}"] for i in range(200)]
    p = np.array([row[3:] for row in cells], float)
    model = nnx.Model.load("customers.safetensors")
    np.testing.assert_allclose(p, model.predict(model.table.read_inputs("customers.csv")), rtol=1e-5)
    assert [row[2] for row in cells] == [("no", "yes")[k] for k in p.argmax(axis=1)]


def test_one_output_for_two_classes_has_two_probabilities(folder, capsys):
    main(["train", "binary", "--epochs", "3", "--samples", "50", "-o", "b.model"])
    (folder / "new.csv").write_text("x,y\n0.5,0.5\n-0.5,-0.5\n")
    capsys.readouterr()
    assert main(["predict", "b.model", "new.csv", "--probabilities"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "arm,probability of arm 1,probability of arm 2"
    p = np.array([line.split(",")[1:] for line in lines], float)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert [line.split(",")[0] for line in lines] == [f"arm {1 + k}" for k in p.argmax(axis=1)]


def test_a_kept_column_keeps_its_name_and_the_prediction_gets_another(trained, capsys):
    assert main(["predict", "customers.safetensors", "customers.csv", "--keep", "churn", "3", "--keep", "price"]) == 0
    header, first, *_ = capsys.readouterr().out.splitlines()
    assert header == "churn,joined,price,predicted churn,probability"
    assert first.startswith(',2010-01-01,"$')


def test_what_a_table_without_a_header_keeps_has_none(folder, capsys):
    (folder / "bare.csv").write_text("".join(f"{i},{i * i % 11},{'ab'[i % 2]}\n" for i in range(60)))
    assert main(["train", "bare.csv", "--target", "3", "--drop", "1", *QUICK]) == 0
    capsys.readouterr()
    assert main(["predict", "bare.safetensors", "bare.csv", "--keep", "1", "--probabilities"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 60
    assert lines[7].startswith("7,")
    assert len(lines[7].split(",")) == 4


def test_unknown_texts_are_an_error_or_missing_values(trained, capsys):
    text = (trained / "customers.csv").read_text().replace("plus", "gold")
    (trained / "new.csv").write_text(text)
    err = refusal(capsys, "predict", "customers.safetensors", "new.csv")
    assert err == (
        "nnx predict: 'new.csv', line 3, holds 'gold' in column 'plan', "
        "which is not one of the 2 known values: basic, plus. "
        "Try: nnx predict customers.safetensors new.csv --unknown missing\n"
    )
    assert main([*proposed(err), "-o", "out.csv"]) == 0
    assert capsys.readouterr().err.endswith("to 'out.csv'. Taken for missing values: 94 unknown texts.\n")


def test_wrong_uses_of_predict_are_refused(trained, capsys):
    predict = ["predict", "customers.safetensors", "customers.csv"]
    assert "has no column 'nix' for keep" in refusal(capsys, *predict, "--keep", "nix")
    assert main(["train", "sine", "--epochs", "2", "--samples", "50"]) == 0
    (trained / "x.csv").write_text("x\n0.5\n")
    capsys.readouterr()
    err = refusal(capsys, "predict", "sine.safetensors", "x.csv", "--probabilities")
    assert (
        "argument --probabilities: needs a model that predicts classes with probabilities, got "
        "'sine.safetensors'" in err
    )


def test_the_output_may_be_written_as_a_dash(trained, capsys):
    assert main(["predict", "customers.safetensors", "customers.csv", "-o", "-"]) == 0
    assert capsys.readouterr().out.startswith("churn,probability\n")
    assert not (trained / "-").exists()


def test_standard_input_is_read_as_utf_8(trained, capsys, monkeypatch):
    content = (trained / "customers.csv").read_text().replace("name 0", "Zoë")
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + content.encode()), encoding="ascii")
    )
    assert main(["predict", "customers.safetensors", "-", "--keep", "name"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("Zoë,")


@pytest.mark.long("starts nine processes: only in them can standard output be closed")
@pytest.mark.skipif(os.name != "posix", reason="uses a shell")
def test_output_that_goes_nowhere_is_an_error(trained):
    def shell(command):
        python = f"{shlex.quote(sys.executable)} -m nnx predict customers.safetensors"
        return subprocess.run(["bash", "-c", command.replace("PREDICT", python)], capture_output=True, text=True)

    done = shell("PREDICT customers.csv >&-")
    assert (done.returncode, done.stderr) == (1, "nnx predict: standard output is closed.\n")
    assert shell("PREDICT customers.csv -o out.csv >&-").returncode == 0
    assert (trained / "out.csv").read_text().startswith("churn,")
    assert shell("PREDICT customers.csv 2>&-").stdout == (trained / "out.csv").read_text()
    for command in ("evaluate customers.safetensors customers.csv", "info", "info customers.safetensors"):
        done = shell(f"{shlex.quote(sys.executable)} -m nnx {command} >&-")
        assert (done.returncode, done.stderr) == (1, f"nnx {command.split()[0]}: standard output is closed.\n")
    done = shell("PREDICT - <&-")
    assert (done.returncode, done.stderr) == (1, "nnx predict: standard input is closed.\n")
    done = shell("PREDICT customers.csv | true; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("1\n", "")  # as quiet as other tools
    if os.path.exists("/dev/full"):
        done = shell("PREDICT customers.csv > /dev/full")
        assert (done.returncode, done.stderr) == (1, "nnx predict: [Errno 28] No space left on device\n")


def test_the_file_may_stand_behind_options(trained, capsys):
    assert main(["predict", "customers.safetensors", "-o", "out.csv", "customers.csv"]) == 0
    capsys.readouterr()
    assert "unrecognized arguments: --fast" in refusal(
        capsys, "predict", "customers.safetensors", "customers.csv", "--fast"
    )
    assert "unrecognized arguments: more" in refusal(capsys, "info", "customers.safetensors", "more")


def test_tables_in_other_encodings_are_read(folder, capsys):
    rows = [f"{i},{'Köln' if i % 3 else 'Münster'},{i % 2}" for i in range(60)]
    (folder / "towns.csv").write_bytes("\n".join(["größe,stadt,y", *rows]).encode("latin-1"))
    given = ["towns.csv", "--target", "y", "--drop", "1", *QUICK]
    assert "--encoding latin-1" in refusal(capsys, "train", *given)
    assert main(["train", *given, "--encoding", "latin-1"]) == 0
    assert nnx.Model.load("towns.safetensors").table.input_names == ["stadt=Köln", "stadt=Münster"]
    capsys.readouterr()
    assert main(["predict", "towns.safetensors", "towns.csv", "--encoding", "latin-1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 61
    assert main(["evaluate", "towns.safetensors", "towns.csv", "--encoding", "latin-1"]) == 0
    capsys.readouterr()
    assert "encoding must be one that Python knows" in refusal(capsys, "train", *given, "--encoding", "klingon")
    assert "argument --target: must name" in refusal(capsys, "train", "towns.csv", "--encoding", "latin-1")
    assert "argument --encoding: is for FILE.csv only" in refusal(capsys, "train", "spiral", "--encoding", "latin-1")
    evaluated = ("evaluate", "towns.safetensors", "spiral")
    for given in (("--encoding", "latin-1"), ("--unknown", "missing")):
        assert f"argument {given[0]}: is for FILE.csv only" in refusal(capsys, *evaluated, *given)
