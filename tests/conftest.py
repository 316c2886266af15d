"""What every test gets: each backend in turn, the default dtype, a seeded global generator."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from kernel_calls import ONLY_FLOAT32

import nnx
from nnx import _kernels
from nnx.engine import plan, segments


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nnfs-init", action="store_true", help="run the whole suite after nnfs.init()")
    parser.addoption("--no-compiled", action="store_true", help="accept that the compiled kernels are not built")
    parser.addoption("--require-mpi", action="store_true", help="fail where mpi4py or mpiexec is missing")
    parser.addoption("--require-data", action="store_true", help="fail where files below NNX_DATA_HOME are missing")


def pytest_configure(config: pytest.Config) -> None:
    if _kernels.built == ("numpy",) and not config.getoption("--no-compiled"):
        raise pytest.UsageError(
            "the compiled kernels are not built: install nnx where a C compiler works, or pass --no-compiled"
        )
    if config.getoption("--nnfs-init"):
        import nnfs

        nnfs.init()


#: Every backend of this machine; where NNX_BACKEND asks for one, that one.
BACKENDS = (_kernels.name,) if os.environ.get("NNX_BACKEND") else _kernels.usable


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test on each backend, unless it says on which; one marked `one_backend` on the best alone."""
    own = any("backend" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "backend" in metafunc.fixturenames and not own:
        alone = metafunc.definition.get_closest_marker("one_backend") is not None
        metafunc.parametrize("backend", BACKENDS[:1] if alone else BACKENDS, indirect=True)


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Use a backend, also in what the test starts as another process."""
    monkeypatch.setattr(_kernels, "backend", _kernels.load(request.param))
    monkeypatch.setenv("NNX_BACKEND", request.param)
    yield request.param
    _kernels.load(_kernels.name)


@pytest.fixture
def compiled(backend: str) -> None:
    """Skip a test of what only the compiled backends have: plans."""
    if backend == "numpy":
        pytest.skip("only the compiled backends have plans")


def answers_of_train(monkeypatch, module):
    """Return a list that gets what a module's ``train`` returns: whether it has done the training."""
    found = []
    run = module.train

    def recording(*arguments):
        found.append(run(*arguments))
        return found[-1]

    monkeypatch.setattr(module, "train", recording)
    return found


@pytest.fixture
def planned(monkeypatch):
    """Return a list that tells of each training whether it ran as a plan."""
    return answers_of_train(monkeypatch, plan)


@pytest.fixture
def segmented(monkeypatch):
    """Return a list that tells of each training whether it ran in segments, if it was no plan."""
    return answers_of_train(monkeypatch, segments)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    if request.param == "float64" and request.node.callspec.params.get("name") in ONLY_FLOAT32:
        pytest.skip("there is no such kernel for float64")
    nnx.set_default_dtype(request.param)
    yield np.dtype(request.param)
    nnx.set_default_dtype("float32")


@pytest.fixture
def float64() -> None:
    """Make float64 the default, for central differences."""
    nnx.set_default_dtype("float64")
    yield
    nnx.set_default_dtype("float32")


@pytest.fixture(autouse=True)
def seed() -> None:
    np.random.seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
