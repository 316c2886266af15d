"""nnx's estimators beside scikit-learn's: python benchmarks/bench_sklearn.py [--cells WORD ...] [--json FILE]

- fit to the same number of epochs, with Adam and with momentum, both in float64, and each in its default (scikit-learn
  in float64, nnx in float32); with L-BFGS to the same number of iterations;
- predict of one row;
- nnx beside itself: an ensemble of eight on two cores beside eight trainings one after another on one, and a search
  with two threads of joblib beside one.

Each cell runs in a process of its own, which is pinned to its cores and whose BLAS has one thread. Results are checked
to be equal before anything is timed: the losses of all epochs in float64. Then both sides run in alternating order. A
ratio says how many times as long as the second side the first one takes, of minima and of medians. Cells whose data are
not below NNX_DATA_HOME are left out.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn_data import NEEDS_FILES, is_there, load
from timing import processor, seconds

import nnx
from nnx import _kernels
from nnx import sklearn as ours

#: Two calls that are timed beside each other.
Sides = tuple[Callable[[], Any], Callable[[], Any]]

#: What a block of short calls takes, about.
BLOCK_SECONDS = 0.02


@dataclass(frozen=True)
class Cell:
    """A row of the table.

    Attributes
    ----------
    make : callable
        Checks that both sides come to the same, and returns them.
    sides : pair of str
        What they are.
    goal : float
        What the ratio should be at least.
    data : str
        Which data set it needs.
    """

    title: str
    data: str
    goal: float
    make: Callable[[], Sides]
    sides: tuple[str, str] = ("scikit-learn", "nnx")
    cores: int = 1


@dataclass(frozen=True)
class Network:
    """A network and its training, for both libraries."""

    data: str
    sizes: tuple[int, ...]
    epochs: int
    kind: str = "MLPClassifier"
    settings: dict[str, Any] = field(default_factory=dict)

    def estimators(self, dtype: str) -> tuple[Any, Any]:
        """Return scikit-learn's estimator, and nnx's in a dtype: neither stops before the last epoch."""
        never = {"tol": 0.0, "n_iter_no_change": math.inf, "max_iter": self.epochs, "random_state": 0}
        both = {"hidden_layer_sizes": self.sizes, **never, **self.settings}
        return getattr(theirs, self.kind)(**both), getattr(ours, self.kind)(**both, n_jobs=1, dtype=dtype)

    def training(self, dtype: str) -> Sides:
        """Return both trainings, once they are found to be the same in float64."""
        X, y = load(self.data)
        their, our = (estimator.fit(X, y) for estimator in self.estimators("float64"))
        if self.settings.get("solver") == "lbfgs":
            assert our.n_iter_ == their.n_iter_ == self.epochs, (our.n_iter_, their.n_iter_)
            np.testing.assert_allclose(our.loss_, their.loss_, rtol=1e-3)
        else:
            assert our.n_iter_ == their.n_iter_ == self.epochs
            np.testing.assert_allclose(our.loss_curve_, their.loss_curve_, rtol=1e-6)
        their, our = self.estimators(dtype)
        if dtype != "float64":
            np.testing.assert_allclose(our.fit(X, y).loss_, their.fit(X, y).loss_, rtol=0.05)
        return lambda: their.fit(X, y), lambda: our.fit(X, y)

    def one_row(self, dtype: str, method: str) -> Sides:
        """Return both predictions of one row, once those of all rows are found to be the same."""
        X, y = load(self.data)
        their, our = (estimator.fit(X, y) for estimator in self.estimators(dtype))
        our.coefs_, our.intercepts_ = their.coefs_, their.intercepts_
        np.testing.assert_allclose(our.predict_proba(X), their.predict_proba(X), atol=1e-4)
        row = X[:1]
        assert getattr(our, method)(row).shape == getattr(their, method)(row).shape
        return lambda: getattr(their, method)(row), lambda: getattr(our, method)(row)


def ensemble() -> Sides:
    """Return eight trainings one after another, and the ensemble of the same networks."""
    X, y = load("digits")
    settings = {"hidden_layer_sizes": (100,), "max_iter": 60, "tol": 0.0, "n_iter_no_change": math.inf}
    together = ours.MLPClassifier(**settings, n_members=8, random_state=0, n_jobs=2).fit(X, y)
    alone = [clone(member).set_params(n_jobs=1) for member in together.estimators_]
    for member, estimator in zip(together.estimators_, alone, strict=True):
        for found, expected in zip(estimator.fit(X, y).coefs_, member.coefs_, strict=True):
            np.testing.assert_array_equal(found, expected)
    return lambda: [estimator.fit(X, y) for estimator in alone], lambda: together.fit(X, y)


def search() -> Sides:
    """Return a search with one thread of joblib, and with two."""
    X, y = load("digits")
    estimator = ours.MLPClassifier((64, 64), max_iter=40, tol=0.0, n_iter_no_change=math.inf, random_state=0)
    grid = {"alpha": [1e-5, 1e-3, 1e-1, 1.0], "learning_rate_init": [1e-3, 1e-2]}

    def with_threads(n_jobs: int) -> Any:
        with joblib.parallel_config("threading"):
            return GridSearchCV(estimator, grid, cv=3, n_jobs=n_jobs, refit=False).fit(X, y)

    one, two = (with_threads(n_jobs).cv_results_["mean_test_score"] for n_jobs in (1, 2))
    np.testing.assert_array_equal(one, two)
    return lambda: with_threads(1), lambda: with_threads(2)


NETWORKS = {
    "digits 64-100-10": Network("digits", (100,), 40),
    "digits 64-64-64-10": Network("digits", (64, 64), 40),
    "breast cancer 30-100-1": Network("breast_cancer", (100,), 100),
    "Adult 105-100-1": Network("adult", (100,), 2),
    "California 13-64-64-1": Network("california", (64, 64), 5, "MLPRegressor"),
    "synthetic 20-32-1": Network("synthetic", (32,), 10),
}
SOLVERS = {"adam": {}, "sgd": {"solver": "sgd", "learning_rate_init": 0.01}}
DTYPES = {"float64": "float64 both", "auto": "defaults"}
QUASI_NEWTON = {
    "digits 64-100-10": Network("digits", (100,), 40, settings={"solver": "lbfgs"}),
    "breast cancer 30-100-1": Network("breast_cancer", (100,), 20, settings={"solver": "lbfgs"}),
}


def goal(dtype: str, data: str) -> float:
    """Return how many times as long scikit-learn should take."""
    return 4.0 if dtype == "auto" or data == "synthetic" else 1.8


def all_cells() -> list[Cell]:
    """Return all rows of the table."""
    cells = []
    for dtype, what in DTYPES.items():
        for solver, settings in SOLVERS.items():
            for title, each in NETWORKS.items():
                network = Network(each.data, each.sizes, each.epochs, each.kind, settings)
                make = lambda network=network, dtype=dtype: network.training(dtype)  # noqa: E731
                cells.append(Cell(f"{title}, {solver}, {what}", each.data, goal(dtype, each.data), make))
    for title, network in QUASI_NEWTON.items():
        make = lambda network=network: network.training("float64")  # noqa: E731
        cells.append(Cell(f"{title}, lbfgs, float64 both", network.data, 3.0, make))
    for method in ("predict", "predict_proba"):
        for dtype, what in DTYPES.items():
            make = lambda dtype=dtype, method=method: NETWORKS["digits 64-100-10"].one_row(dtype, method)  # noqa: E731
            cells.append(Cell(f"digits 64-100-10, {method} of one row, {what}", "digits", 3.0, make))
    one_by_one = ("8 on one core", "n_members=8")
    cells.append(Cell("digits 64-100-10, 8 members, two cores", "digits", 1.8, ensemble, one_by_one, 2))
    threads = ("n_jobs=1", "n_jobs=2")
    cells.append(Cell("digits 64-64-64-10, search of 8, two cores", "digits", 1.7, search, threads, 2))
    return cells


def measure(cell: Cell, rounds: int) -> dict[str, Any]:
    """Check and time a cell in this process; return its row."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cell.cores :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        sides = cell.make()
        blocks = [max(1, int(BLOCK_SECONDS / once(side))) for side in sides]
        times: list[list[float]] = [[], []]
        for turn in range(rounds):
            for side in (0, 1) if turn % 2 else (1, 0):
                times[side].append(seconds(sides[side], blocks[side]))
    return {"cell": cell.title, "sides": cell.sides, "cores": cell.cores, "goal": cell.goal, "seconds": times}


def once(side: Callable[[], Any]) -> float:
    """Return the time of a second call: the first one warms up."""
    side()
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


def line(row: dict[str, Any]) -> str:
    """Return a row as a line of the table."""
    minima, medians = [[function(side) for side in row["seconds"]] for function in (min, statistics.median)]
    ratios = minima[0] / minima[1], medians[0] / medians[1]
    times = " ".join(f"{duration(side):>10}" for side in minima)
    mark = " " if min(ratios) >= row["goal"] else "*"
    return f"{row['cell']:<52} {times} {ratios[0]:>8.2f} {ratios[1]:>8.2f} {row['goal']:>5}{mark}"


def duration(value: float) -> str:
    """Return seconds as people write them."""
    unit, factor = next(pair for pair in (("s", 1), ("ms", 1e3), ("µs", 1e6)) if value * pair[1] >= 1 or pair[1] == 1e6)
    return f"{value * factor:.3g} {unit}"


def in_a_process(cell: Cell, rounds: int) -> dict[str, Any]:
    """Return the row of a cell that another process checks and times."""
    command = [sys.executable, __file__, "--measure", cell.title, "--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{cell.title}: the process that measures it has failed.")
    return json.loads(done.stdout)


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", metavar="WORD", default=[""], help="those whose titles have one of these")
    parser.add_argument("--rounds", type=int, default=9, help="of each side in turn (default: 9)")
    parser.add_argument("--json", metavar="FILE", help="write all times to a file too")
    parser.add_argument("--list", action="store_true", help="print the titles of all cells")
    parser.add_argument("--measure", metavar="TITLE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be a whole number from 1 up")
    return options


def machine() -> dict[str, str]:
    """Return what the times depend on."""
    return {
        "processor": processor(),
        "kernels": _kernels.name,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "nnx": nnx.__version__,
    }


def main() -> None:
    """Measure and print the table."""
    options = arguments()
    cells = {cell.title: cell for cell in all_cells()}
    if options.measure:
        print(json.dumps(measure(cells[options.measure], options.rounds)))
        return
    if options.list:
        print("\n".join(cells))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"least of {options.rounds} alternating rounds a side; * misses its goal\n")
    print(f"{'':<52} {'first':>10} {'second':>10} {'ratio':>8} {'medians':>8} {'goal':>5}")
    rows = []
    for title, cell in cells.items():
        if not any(word in title for word in options.cells):
            continue
        if not is_there(cell.data):
            print(f"{title:<52} left out: there is no {NEEDS_FILES[cell.data]} below NNX_DATA_HOME")
            continue
        rows.append(in_a_process(cell, options.rounds))
        print(line(rows[-1]), flush=True)
        if options.json:
            with open(options.json, "w", encoding="utf-8") as stream:
                json.dump({"machine": machine(), "cells": rows}, stream, indent=1)


if __name__ == "__main__":
    main()
