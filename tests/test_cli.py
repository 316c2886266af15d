"""The command line, as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import nnx


def run(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "nnx", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_train_spiral_trains_saves_and_draws(tmp_path):
    done = run("train", "spiral", "--epochs", "30", "--samples", "300", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Training 2-64-64-3 on 900 points of a spiral with 3 arms, for 30 epochs."
    assert lines[1].startswith("training    accuracy 0.")
    assert lines[2].startswith("validation  accuracy 0.")
    assert float(lines[2].split()[2].rstrip(",")) > 0.6
    assert lines[3] == f"Model saved to {tmp_path / 'spiral.safetensors'}"
    assert lines[4] == f"Picture saved to {tmp_path / 'spiral.png'}"
    assert "loss" in done.stderr
    assert "270/270" in done.stderr
    assert (tmp_path / "spiral.png").read_bytes().startswith(b"\x89PNG")
    model = nnx.Model.load(tmp_path / "spiral.safetensors")
    assert model.predict(np.ones((1, 2))).shape == (1, 3)
    assert sorted(os.listdir(tmp_path)) == ["spiral.png", "spiral.safetensors"]


def test_train_without_a_data_set_is_train_spiral_and_repeats_itself(tmp_path):
    first = run("train", "--epochs", "2", "--samples", "20", "-o", "a.model", cwd=tmp_path)
    second = run("train", "spiral", "--epochs", "2", "--samples", "20", "--output", "b.model", cwd=tmp_path)
    assert first.returncode == second.returncode == 0
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()
    assert (tmp_path / "a.png").exists()
    third = run("train", "--epochs", "2", "--samples", "20", "--seed", "1", "-o", "c.model", cwd=tmp_path)
    assert third.returncode == 0
    assert (tmp_path / "c.model").read_bytes() != (tmp_path / "a.model").read_bytes()


def test_train_without_matplotlib_says_what_to_install(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    done = run("train", "--epochs", "1", "--samples", "20", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "For a picture of it: python -m pip install 'nnx-core[plot]'"


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_the_model_so_far(tmp_path):
    arguments = [sys.executable, "-m", "nnx", "train", "--epochs", "1000000"]
    process = subprocess.Popen(
        arguments,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it is ignored in background jobs
    )
    assert process.stdout.readline().startswith("Training")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "steps; the model so far is kept." in out
    assert "validation  accuracy" in out
    assert "Traceback" not in err
    assert nnx.Model.load(tmp_path / "spiral.safetensors").optimizer.iterations > 0


WRONG = {
    "unknown command": (["fly"], "nnx: argument COMMAND: invalid choice: 'fly'"),
    "unknown data": (["train", "cats"], "nnx train: argument DATA: must be spiral, got 'cats'"),
    "unknown option": (["train", "--speed", "9"], "nnx: unrecognized arguments: --speed"),
    "epochs 0": (
        ["train", "--epochs", "0"],
        "nnx train: argument --epochs: must be a whole number of at least 1, got '0'",
    ),
    "epochs text": (["train", "--epochs", "ten"], "must be a whole number of at least 1, got 'ten'"),
    "samples": (["train", "--samples", "-5"], "argument --samples: must be a whole number of at least 1, got '-5'"),
    "seed": (
        ["train", "--seed", "4294967296"],
        "--seed: must be a whole number from 0 to 4294967295, got '4294967296'",
    ),
    "no value": (["train", "--epochs"], "argument --epochs: expected one argument"),
    "no folder": (["train", "-o", "nowhere/m"], "-o/--output: path must be in an existing folder, got 'nowhere/m'"),
    "a folder": (["train", "-o", "."], "argument -o/--output: path must name a file, got '.'"),
    "a picture": (
        ["train", "-o", "spiral.png"],
        "argument -o/--output: must not end in .png, as the picture does, got",
    ),
    "no file": (["train", "-o", "nosuch/"], "argument -o/--output: path must "),
    "info extra": (["info", "now"], "unrecognized arguments: now"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_get_one_sentence_and_exit_code_2(tmp_path, case):
    arguments, sentence = WRONG[case]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_info_names_versions_backend_and_reason():
    done = run("info")
    assert done.returncode == 0
    assert f"nnx          {nnx.__version__}\n" in done.stdout
    assert f"numpy        {np.__version__}\n" in done.stdout
    assert "backend      numpy: the compiled kernels are not built\n" in done.stdout
    assert "backend      numpy: NNX_BACKEND=numpy asks for it\n" in run("info", NNX_BACKEND="numpy").stdout


@pytest.mark.parametrize("backend", ["native", "native-avx2", "cuda"])
def test_a_backend_that_is_not_there_is_refused(backend):
    done = run("info", NNX_BACKEND=backend)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "NNX_BACKEND" in last
    assert backend in last
    assert ("the compiled kernels are not built" in last) == backend.startswith("native")


@pytest.mark.parametrize("command", [[], ["train"], ["info"]])
def test_help_shows_an_example(command):
    done = run(*command, "--help")
    assert done.returncode == 0
    assert "example: nnx " in done.stdout


def test_no_command_shows_the_help_and_version_the_version():
    assert run().stdout.startswith("usage: nnx")
    assert run("--version").stdout == f"nnx {nnx.__version__}\n"


@pytest.mark.skipif(os.name != "posix", reason="uses a shell pipe")
def test_a_reader_that_leaves_early_gets_no_traceback():
    command = f"for i in 1 2 3 4 5; do {sys.executable} -m nnx info | head -0; done"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
