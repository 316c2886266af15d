"""`nnx bench`: both sides give the same result, then every case gets its row. No test looks at times."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from kernel_calls import LABELS

from nnx import _kernels
from nnx._base import config
from nnx._kernels import _numpy
from nnx.cli import main
from nnx.cli.cases import CASES, _arrays

pytestmark = pytest.mark.one_backend

QUICK = ("--seconds", "0.05")
NAMES = [(case.kernel, case.shape) for case in CASES]

compiled = pytest.mark.skipif(_kernels.usable == ("numpy",), reason="there are no compiled kernels to time")


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "nnx", "bench", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def here(monkeypatch):
    """Let the command measure in this process, without starting another."""
    for variable in config.BLAS_THREADS:
        monkeypatch.setenv(variable, "1")


# The table and the document


@pytest.mark.long("times every kernel")
@compiled
def test_the_table_has_a_row_for_every_case_and_says_what_it_depends_on(backend):
    done = run(*QUICK, NNX_BACKEND=backend)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) < 80
    head, rows = lines[: -len(CASES) - 1], lines[-len(CASES) - 1 :]
    assert [tuple(row.split()[:2]) for row in rows[:-1]] == NAMES
    assert all(float(figure) > 0 for row in rows[:-1] for figure in row.split()[2:])
    assert rows[-1].startswith("geometric mean ")
    chosen = _kernels.usable[0] if backend == "numpy" else backend
    assert f"backend    {chosen}, float32" in head
    assert head[-2].split() == ["numpy", chosen, "ratio"]
    assert head[-1].split() == ["kernel", "shape", *["min", "median"] * 2, "min", "med."]
    assert f"NumPy {np.__version__}" in head[0]
    assert any(line.endswith(", 1 thread") for line in head)


@pytest.mark.long("times every kernel")
@pytest.mark.few
@compiled
def test_the_document_has_its_keys_and_agrees_with_itself(here, capsys, dtype):
    processors = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    assert main(["bench", "--json", "--dtype", str(dtype), *QUICK]) == 0
    assert processors is None or os.sched_getaffinity(0) == processors
    printed = capsys.readouterr()
    assert printed.err == ""
    document = json.loads(printed.out)
    assert list(document) == [
        *["machine", "processor", "python", "numpy", "nnx", "blas", "blas_threads", "pinned", "backend", "dtype"],
        *["rows", "geometric_mean_ratio_min", "geometric_mean_ratio_median"],
    ]
    assert document["numpy"] == np.__version__
    assert (document["dtype"], document["blas_threads"]) == (dtype, 1)
    assert document["backend"] in _kernels.usable[:-1]
    rows = document["rows"]
    assert [(row["kernel"], row["shape"]) for row in rows] == NAMES
    for kind in ("min", "median"):
        for row in rows:
            assert row[f"ratio_{kind}"] == row[f"numpy_{kind}_us"] / row[f"compiled_{kind}_us"] > 0
        mean = math.prod(row[f"ratio_{kind}"] for row in rows) ** (1 / len(rows))
        assert document[f"geometric_mean_ratio_{kind}"] == pytest.approx(mean)
    assert all(row[f"{side}_min_us"] <= row[f"{side}_median_us"] for row in rows for side in ("compiled", "numpy"))


def test_a_process_knows_the_environment_that_gives_blas_one_thread(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    monkeypatch.setenv("NNX_TEST", "kept")
    assert not config.single_threaded()
    environment = config.single_threaded_environment()
    assert environment["OPENBLAS_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "1"
    assert environment["NNX_TEST"] == "kept"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "4"
    script = "from nnx._base import config; print(config.single_threaded())"
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert told.stdout == "True\n"


# The cases


def test_cases_are_kernels_of_the_specification_each_once(dtype):
    assert len(set(NAMES)) == len(NAMES)
    assert {case.function or case.kernel for case in CASES} <= set(_numpy.__all__)
    kernels = {case.kernel for case in CASES}
    assert kernels >= {"dense_forward", "dropout_mask", "argmax"}
    named = {label.replace("_crossentropy_", "_") for label in LABELS}
    assert kernels >= named - {"linear_forward", "linear_backward", "sgd_nesterov_update"}


def test_arguments_are_the_same_at_every_call(dtype):
    for case in CASES[:5] + CASES[-1:]:
        for once, again in zip(case.arguments(dtype), case.arguments(dtype), strict=True):
            assert once is not again or np.isscalar(once)
            np.testing.assert_array_equal(once, again)


class Forgetful:
    """Runs the specification's kernels, but changes the last element of each array that they write."""

    def __init__(self, cases):
        self.cases = {case.function or case.kernel: case for case in cases}

    def __getattr__(self, kernel):
        def run(*arguments):
            outputs = [array for i in self.cases[kernel].outputs for array in _arrays(arguments[i])]
            kept = [output.flat[-1] for output in outputs]
            getattr(_numpy, kernel)(*arguments)
            for output, value in zip(outputs, kept, strict=True):
                output.flat[-1] = value

        return run


@pytest.mark.few
def test_a_cell_that_is_not_written_is_noticed(dtype):
    for case in CASES:
        if case.outputs and case.shape not in ("256x1024->1024", "1000x1000", "3000x512"):
            with pytest.raises(AssertionError, match=f"^{case}\n"):
                case.check(Forgetful(CASES), _numpy, dtype)


# Mistakes are answered in one sentence

WRONG = {
    "no time": (["--seconds", "0"], "argument --seconds: must be a number above 0, got '0'"),
    "less than no time": (["--seconds=-1"], "argument --seconds: must be a number above 0, got '-1'"),
    "endless": (["--seconds", "inf"], "argument --seconds: must be a number above 0, got 'inf'"),
    "no number": (["--seconds", "long"], "argument --seconds: must be a number above 0, got 'long'"),
    "half precision": (["--dtype", "float16"], "argument --dtype: must be one of 'float32', 'float64', got 'float16'"),
    "unknown option": (["--speed", "9"], "unrecognized arguments: --speed"),
    "abbreviated": (["--js"], "unrecognized arguments: --js"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name, capsys):
    arguments, says = WRONG[name]
    with pytest.raises(SystemExit) as left:
        main(["bench", *arguments])
    printed = capsys.readouterr()
    assert left.value.code == 2
    assert printed.out == ""
    assert says in printed.err
    assert printed.err.startswith("nnx")
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("built", "says"),
    [
        (("numpy",), "the compiled kernels are not built, so there is nothing to compare with NumPy."),
        (
            ("native-avx512", "numpy"),
            "this processor can run none of the compiled kernels, so there is nothing to compare with NumPy.",
        ),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_without_compiled_kernels_it_says_so(monkeypatch, capfd, built, says, options):
    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "usable", ("numpy",))
        patch.setattr(_kernels, "built", built)
        patch.setattr(_kernels, "name", "numpy")
        assert main(["bench", *options]) == 1
    assert capfd.readouterr() == ("", f"nnx bench: {says}\n")


def test_kernels_with_other_results_are_not_timed(here, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "usable", ("native-avx2", "numpy"))
        patch.setattr(_kernels, "name", "native-avx2")
        patch.setattr(_kernels, "load", lambda name: _numpy if name == "numpy" else Forgetful(CASES))
        assert main(["bench", "--json", *QUICK]) == 1
    sentence = f"nnx bench: {CASES[0]}: native-avx2 and numpy give different results.\n"
    assert capsys.readouterr() == ("", sentence)


@compiled
@pytest.mark.skipif(os.name != "posix", reason="uses a shell script and a signal")
def test_a_process_that_is_killed_while_it_measures_is_reported(monkeypatch, capfd, tmp_path):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    assert main(["bench", *QUICK]) == 1
    assert capfd.readouterr() == ("", "nnx bench: the measuring process ended with code -9.\n")


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "--help"])
    assert left.value.code == 0
    assert "example: nnx bench " in capsys.readouterr().out


# Leaving early


@pytest.fixture
def measuring():
    """Start the command in a separate process group, and wait until it measures."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nnx", "bench", "--seconds", "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it is ignored in background jobs
    )
    assert process.stdout.readline().startswith("nnx ")
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)


@compiled
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a group of processes")
def test_ctrl_c_stops_both_processes(measuring):
    os.killpg(measuring.pid, signal.SIGINT)
    _, err = measuring.communicate(timeout=60)
    assert (measuring.returncode, err) == (130, "Stopped.\n")
    assert is_gone(measuring.pid)


def is_gone(group):
    """Return whether no process of a group is left. One that has ended may still be a zombie for a moment."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@compiled
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_who_measures_does_not_outlive_who_asked(measuring):
    measuring.kill()
    out, err = measuring.communicate(timeout=60)  # until both have closed their ends
    assert err == ""
    assert out.count("\n") < len(CASES)


@pytest.mark.long("starts processes that time kernels")
@compiled
@pytest.mark.skipif(os.name != "posix", reason="uses a shell pipe")
def test_a_reader_that_leaves_early_gets_no_traceback():
    command = f"{sys.executable} -m nnx bench --seconds 20 | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
