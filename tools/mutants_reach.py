"""A pytest plugin for tools/mutants_run.py. It notes which tests reach which lines, or runs only the tests of a list.

NNX_MUTANTS_REACH names a file. The plugin writes every passing test to it: its seconds, and the lines of nnx that it
ran. A test with many parameters runs six cases, spread evenly over all, and more until they have taken a second. A test
that starts another process is noted without lines: it takes long, and its lines cannot be seen. NNX_MUTANTS_TESTS names
a file with one test id per line: only these tests run, in this order.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

REACH = os.environ.get("NNX_MUTANTS_REACH")
TESTS = os.environ.get("NNX_MUTANTS_TESTS")
TREE = os.environ["NNX_MUTANTS_TREE"]
MIN_CASES = 6  # of one test function
ENOUGH = 1.0  # seconds of processor time for more cases

seconds: dict[str, float] = {}
spent: dict[str, list[float]] = defaultdict(list)
others: set[str] = set()  # failed, skipped
apart: list[str] = []  # those that started a process

if REACH:
    import coverage

    measured = coverage.Coverage(data_file=None, source=[TREE], config_file=False)
    measured.start()  # before the tests' modules import nnx


def function_of(item: pytest.Item) -> str:
    """Return a test's id without its parameters."""
    return item.nodeid.split("[")[0]


def refuse(*arguments: object, **options: object) -> None:
    """Replace the start of a process."""
    apart.append(os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0])
    pytest.skip("starts a process")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Choose the tests to run, and their order."""
    if TESTS:
        rank = {name: place for place, name in enumerate(Path(TESTS).read_text().splitlines())}
        items[:] = sorted((item for item in items if item.nodeid in rank), key=lambda item: rank[item.nodeid])
    elif REACH:
        cases = defaultdict(list)
        for item in items:
            cases[function_of(item)].append(item)
        steps = {name: -(-len(some) // MIN_CASES) for name, some in cases.items()}
        items[:] = [
            item for name, some in cases.items() for first in range(steps[name]) for item in some[first :: steps[name]]
        ]
        subprocess.Popen.__init__ = refuse  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure a test."""
    if not REACH:
        return (yield)
    measured.switch_context(item.nodeid)
    start = time.process_time()
    done = yield
    seconds[item.nodeid] = round(time.process_time() - start, 4)
    spent[function_of(item)].append(seconds[item.nodeid])
    measured.switch_context("")
    return done


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave cases out after there are enough."""
    before = spent[function_of(item)]
    if REACH and len(before) >= MIN_CASES and sum(before) > ENOUGH:
        pytest.skip("enough cases")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note tests that judge nothing."""
    if not report.passed:
        others.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write what was measured."""
    if not REACH:
        return
    measured.stop()
    found = measured.get_data()
    tests = [name for name in seconds if name not in others]
    place = {name: index for index, name in enumerate(tests)}
    lines = {}
    for file in found.measured_files():
        by_line = found.contexts_by_lineno(file)
        reached = {line: [place[name] for name in names if name in place] for line, names in by_line.items()}
        lines[os.path.relpath(file, TREE)] = {line: indices for line, indices in reached.items() if indices}
    noted = {"tests": [[name, seconds[name]] for name in tests], "lines": lines, "apart": list(dict.fromkeys(apart))}
    Path(REACH).write_text(json.dumps(noted))
