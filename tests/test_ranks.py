"""Several processes that train one model by MPI get the result of one process, and end together if one fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from plans import PENALTIES, Net, build

import nnx
from nnx import _kernels
from nnx.engine import plan, training
from nnx.engine.ranks import QUIET, Ranks
from nnx.many import KEYWORDS

HERE = Path(__file__).parent
#: For any user and any number of cores; a waiting rank does not block a core.
SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "NNX_NUM_THREADS": "1",
}


@pytest.fixture
def mpiexec(request):
    """Return a function that runs a case of `ranks.py` on some ranks."""
    refuse = pytest.fail if request.config.getoption("--require-mpi") else pytest.skip
    found = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        refuse("there is no mpiexec")
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        refuse("there is no mpi4py")

    def run(n, case, *arguments):
        command = [found, "-n", str(n), sys.executable, str(HERE / "ranks.py"), case, *map(str, arguments)]
        return subprocess.run(command, env=os.environ | SETTINGS, capture_output=True, text=True, timeout=300)

    return run


def found_by(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_parity(found):
    for name, what in found.items():
        limit = 1e-5 if name.startswith("float32") else 1e-12
        assert what["parameters"] < limit, name
        assert what["figures"] < limit, name
        assert what["repeats"], name
        assert what["same on all ranks"], name


def test_two_ranks_come_to_what_one_does_and_to_the_same_bits_each_time(mpiexec, backend):
    if backend not in (_kernels.name, "numpy"):
        pytest.skip("the best compiled kernels and NumPy's are enough")
    check_parity(found_by(mpiexec(2, "parity", 2)))


@pytest.mark.long("starts three processes")
@pytest.mark.one_backend
def test_three_ranks_share_batches_that_they_cannot_divide(mpiexec):
    names = ("a plan", "clipped by norm", "penalty per sample", "lanes", "layer by layer", "layer by layer, weights")
    check_parity(found_by(mpiexec(3, "parity", 1, *names)))


@pytest.mark.one_backend
def test_no_rank_waits_for_one_that_fails_and_all_say_why(mpiexec):
    found = found_by(mpiexec(2, "errors"))
    ended = "RankError: Model.train: rank {} ended the training of all ranks: {}"
    for name, what in (("other data", "X"), ("other epochs", "epochs"), ("other layers", "layer 1")):
        one, other = found[name]
        assert one == other
        assert one.startswith(f"ValueError: Model.train: {what} must be the same on all ranks, got ")
        assert one.endswith(" on rank 1.")
    wrong = "ValueError: Model.train: epochs must be a whole number of at least 1, got 0."
    assert found["a bad argument"] == [ended.format(1, wrong), wrong]
    assert found["bad for all"] == [wrong, wrong]
    for name in ("diverged", "diverged layer by layer"):
        one, other = found[name]
        assert one == other
        assert one.startswith("DivergenceError: Model.train: training diverged in epoch 1, step 1: ")
    own = "LookupError: no such thing"
    assert found["a callback"] == found["a callback layer by layer"] == [ended.format(1, own), own]
    assert found["a callback of rank 0"] == [own, ended.format(0, own)]
    rates = "got a learning_rate of 0.01 on rank 0 and of 0.005 on rank 1."
    assert found["callbacks disagree"] == [
        f"ValueError: Model.train: callbacks must do the same on all ranks, {rates}" for _ in range(2)
    ]
    assert "Use a Layer_LayerNorm." in found["a batch norm"][0]
    assert all("X must be an array where models or processes train together, got Blocks" in x for x in found["blocks"])
    assert all("must have one row for each sample for comm, got Layer_Members(" in said for said in found["members"])
    assert found["L-BFGS"] == ["ValueError: Model.train: comm must not be given for Optimizer_LBFGS."] * 2
    assert (
        found["no communicator"]
        == ["TypeError: Model.train: comm must be a communicator, such as mpi4py.MPI.COMM_WORLD, got 'world'."] * 2
    )
    assert found["stopped by one"] == found["afterwards"] == ["", ""]
    assert found["epochs then"] == [2, 2]


@pytest.mark.long("starts MPI processes three times")
@pytest.mark.one_backend
def test_an_interrupted_run_leaves_one_checkpoint_from_which_all_ranks_go_on(mpiexec, tmp_path):
    found = found_by(mpiexec(2, "interrupted", tmp_path))
    reason = "RankError: Model.train: rank 1 ended the training of all ranks: KeyboardInterrupt"
    assert found == {"said": [reason, "KeyboardInterrupt: "], "same": True, "files": ["log.csv", "run"]}
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2"]


@pytest.mark.long("starts several processes, and waits for their end")
@pytest.mark.one_backend
@pytest.mark.parametrize("case", ["exits", "break_off"])
def test_a_rank_that_dies_ends_all(mpiexec, case):
    done = mpiexec(2, case)
    assert done.returncode != 0
    if case == "break_off":
        assert "Model.train: rank 1 ends all ranks: LookupError: no such sum" in done.stderr


class Twin:
    """Two ranks for plans in this process. The other rank has the same rows as this one."""

    rank, size = 0, 2
    agree_on_callbacks = None

    def __init__(self, fails_at=None):
        self.n_sums, self.fails_at = 0, fails_at

    collecting, part, rows_of_step = Ranks.collecting, Ranks.part, Ranks.rows_of_step

    def agree(self, value):
        return [value, value]

    def first_says(self, value):
        return value

    def add_up(self, sums):
        self.n_sums += 1
        if self.n_sums == self.fails_at:
            raise LookupError("no such sum")
        sums *= 2


def twin_model(clip_norm=None):
    model = build(Net("12-33,relu,33-20,sigmoid,20-5,softmax"), dtype="float64", **PENALTIES)
    model.set(optimizer=nnx.Optimizer_Adam(0.01, clip_norm=clip_norm))
    return model


def train_by_twins(model, twin, **settings):
    """Train on batches whose second half equals the first. Without a twin, all rows are in one process."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 1, 16, 12)).repeat(2, 1).reshape(96, 12)
    y = rng.permutation(48).reshape(3, 1, 16).repeat(2, 1).ravel() % 5

    def do_steps(job, report):
        job.ranks = twin
        training.train(job, report)

    options = {**KEYWORDS, "epochs": 4, "batch_size": 32, "print_every": None, **settings}
    model._train(X, y, tuple(options.values()), do_steps=do_steps)
    return model


def parameters(model):
    return [array for group in model.get_parameters() for array in group]


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_a_plan_updates_by_the_sum_of_all_ranks_with_any_number_of_threads(compiled, monkeypatch, clip_norm):
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)
    one = train_by_twins(twin_model(clip_norm), None)
    several = [train_by_twins(twin_model(clip_norm), Twin(), threads=threads) for threads in (1, 2, 4)]
    for array, first, *others in zip(*map(parameters, (one, *several)), strict=True):
        np.testing.assert_allclose(first, array, rtol=0, atol=1e-12)
        assert all(np.array_equal(first, each) for each in others)
    np.testing.assert_allclose(several[0].history.loss, one.history.loss, rtol=1e-12)
    assert several[0].layers[0].inputs.shape == (16, 12)
    assert one.layers[0].inputs.shape == (32, 12)


def test_a_sum_that_fails_leaves_a_model_as_after_the_last_whole_step(compiled):
    model = twin_model()
    with pytest.raises(LookupError, match=r"^no such sum$"):
        train_by_twins(model, Twin(fails_at=4))
    assert model.optimizer.iterations == len(model.history) == 3
    one_epoch = train_by_twins(twin_model(), Twin(), epochs=1)
    assert all(map(np.array_equal, parameters(model), parameters(one_epoch)))


def test_a_plan_refuses_ranks_that_there_are_not(compiled):
    class Third(Twin):
        rank = 2

    class Updating(Twin):
        def collecting(self, rule):
            return rule

    for kind in (Third, Updating):
        with pytest.raises(ValueError, match=r"^Plan\.exchange_with: rank must be one of n_ranks, "):
            train_by_twins(twin_model(), kind())


@pytest.mark.one_backend
def test_runs_that_train_at_once_take_no_communicator():
    with pytest.raises(ValueError, match=r"^Run: comm must be None: "):
        nnx.Run(nnx.Model(), [[0.0]], [0], comm="world")
    assert nnx.Run(nnx.Model(), [[0.0]], [0], comm=None).keywords == {"threads": 1, "print_every": None}


@pytest.mark.one_backend
def test_what_only_the_first_rank_does_is_named_by_its_place_among_the_arguments():
    names = list(KEYWORDS)
    assert {names[place]: value for place, value in QUIET.items()} == {
        "print_every": None,
        "progress": KEYWORDS["progress"],
        "checkpoint": KEYWORDS["checkpoint"],
        "checkpoint_every": KEYWORDS["checkpoint_every"],
    }


@pytest.mark.one_backend
def test_mpi4py_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"^Model\.train: comm needs the package mpi4py .*'nnx-core\[mpi\]'$"):
        nnx.Model().train([[0.0]], [0], comm="world")
