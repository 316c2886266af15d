"""Fixtures for every test: a backend, the default dtype, a seeded global generator. Also the choice of cases.

`pytest` runs each test on the best backend. Of a test with many cases, it runs only as many as it takes for each value
of each parameter to occur: of 16 activations times 8 shapes times 2 dtypes about 16, not 256. The choice depends only
on the cases' names. A test marked `few` runs a single case, a test marked `long` none. `pytest --cases rest` runs the
cases that are left out, `--cases all` runs both. `--backends two` adds a few cases on other backends, drawn by the
cases' names, and all cases of tests marked `every_backend`. `--backends all` runs every case on each backend.
`make check` runs `pytest --cases rest --backends two`. At its end, `pytest` prints how many cases that are. A test that
is named (`file::test`) runs all its cases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cases import fewest, on_two
from kernel_calls import ONLY_FLOAT32

import nnx
from nnx import _kernels
from nnx.engine import plan, segments


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cases", choices=("few", "rest", "all"), default="few", help="which cases of a test run (default: few)"
    )
    parser.addoption(
        "--backends",
        choices=("best", "two", "all"),
        default="best",
        help="on which backends a test runs (default: best)",
    )
    parser.addoption("--nnfs-init", action="store_true", help="run the whole suite after nnfs.init()")
    parser.addoption("--no-compiled", action="store_true", help="accept that the compiled kernels are not built")
    parser.addoption("--require-mpi", action="store_true", help="fail where mpi4py or mpiexec is missing")
    parser.addoption("--require-data", action="store_true", help="fail where files below NNX_DATA_HOME are missing")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = 0
    if _kernels.built == ("numpy",) and not config.getoption("--no-compiled"):
        raise pytest.UsageError(
            "the compiled kernels are not built: install nnx where a C compiler works, or pass --no-compiled"
        )
    if config.getoption("--nnfs-init"):
        import nnfs

        nnfs.init()


#: The number of left-out cases that `make check` runs.
LEFT_OUT = pytest.StashKey[int]()

#: Every backend of this machine, or the one that NNX_BACKEND asks for.
BACKENDS = (_kernels.name,) if os.environ.get("NNX_BACKEND") else _kernels.usable


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Run a test on the chosen backends, unless it names its own, and in the chosen cases."""
    definition, options = metafunc.definition, metafunc.config.option
    own = any("backend" in mark.args[0] for mark in definition.iter_markers("parametrize"))
    alone = own or definition.get_closest_marker("one_backend") is not None
    every = definition.get_closest_marker("every_backend") is not None
    backends = BACKENDS[:1] if alone or options.backends == "best" else BACKENDS
    if "backend" in metafunc.fixturenames and not own:
        metafunc.parametrize("backend", backends, indirect=True)
    yield
    cases = metafunc._calls  # pytest's own list: a case that it drops here costs nothing, a deselected test 0.2 ms
    cases[:] = [case for case in cases if possible(case.params)]
    test, few = definition.nodeid, definition.get_closest_marker("few")
    more = 0  # cases that make check runs on other backends
    if len(backends) == 1 and not alone:
        more = (len(BACKENDS) - 1) * len(cases) if every else len(fewest(cases, test, few))
    elif options.backends == "two" and len(backends) > 1 and not every:
        cases[:] = on_two(cases, backends, test, few)
    kept = cases
    if options.cases == "few" and not by_name(metafunc.config):
        kept = fewest(cases, test, few)
    elif options.cases == "rest" and definition.get_closest_marker("long") is None:
        best = [case for case in cases if own or case.params["backend"] == backends[0]]
        ran = {case.id for case in fewest(best, test, few)}
        kept = [case for case in cases if case.id not in ran]
    metafunc.config.stash[LEFT_OUT] += len(cases) - len(kept) + (more if len(BACKENDS) > 1 else 0)
    cases[:] = kept


def possible(parameters: dict[str, Any]) -> bool:
    """Return whether there is this kernel for this dtype."""
    return parameters.get("dtype") != "float64" or str(parameters.get("name")) not in ONLY_FLOAT32


def by_name(config: pytest.Config) -> bool:
    """Return whether the command line names tests, and not only files."""
    return any("::" in argument for argument in config.args)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests marked `long`, and tests without a remaining case."""
    items[:] = [item for item in items if hasattr(item, "callspec")]  # each case has its backend
    if config.option.cases != "few" or by_name(config):
        return
    left = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if not item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left)
    config.stash[LEFT_OUT] += len(left)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the parent process, if there is one, how many cases were left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    left = getattr(node, "workeroutput", {}).get("left_out", 0)  # all leave out the same; a crashed one reports nothing
    node.config.stash[LEFT_OUT] = max(node.config.stash[LEFT_OUT], left)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if left := config.stash[LEFT_OUT]:
        terminalreporter.write_line(
            f"Left out: some {left:,} more cases, which run in make check (--cases rest --backends two)."
        )


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Use a backend, also in processes that the test starts."""
    monkeypatch.setattr(_kernels, "backend", _kernels.load(request.param))
    monkeypatch.setenv("NNX_BACKEND", request.param)
    yield request.param
    _kernels.load(_kernels.name)


@pytest.fixture
def compiled(backend: str) -> None:
    """Skip a test of plans, which only compiled backends have."""
    if backend == "numpy":
        pytest.skip("only the compiled backends have plans")


def answers_of_train(monkeypatch, module):
    """Return a list that collects the results of a module's ``train``: whether it did the training."""
    found = []
    run = module.train

    def recording(*arguments):
        found.append(run(*arguments))
        return found[-1]

    monkeypatch.setattr(module, "train", recording)
    return found


@pytest.fixture
def planned(monkeypatch):
    """Return a list that says for each training whether it ran as a plan."""
    return answers_of_train(monkeypatch, plan)


@pytest.fixture
def segmented(monkeypatch):
    """Return a list that says for each training without a plan whether it ran in segments."""
    return answers_of_train(monkeypatch, segments)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
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
