"""Every kernel of every usable backend, on pytest-benchmark: python -m pytest benchmarks/bench_kernels.py

The cases are those of ``nnx bench``, which times two backends in turn and is the one to quote ratios from; this is for
comparing runs over time, and for a closer look at one kernel:

    python -m pytest benchmarks/bench_kernels.py -k "dense_forward and float32" --benchmark-max-time=0.2

A result is checked against NumPy's before it is timed, on one pinned core.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nnx import _kernels
from nnx.cli.cases import CASES, Case


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Keep to one core, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return the module of a backend; there is one compiled variant in use at a time."""
    yield _kernels.load(request.param)
    _kernels.load(_kernels.name)


@pytest.mark.parametrize("backend", _kernels.usable, indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel(benchmark: Any, case: Case, dtype: str, backend: Any) -> None:
    case.check(backend, _kernels.load("numpy"), np.dtype(dtype))
    benchmark.group = f"{case} {dtype}"
    benchmark(getattr(backend, case.function or case.kernel), *case.arguments(np.dtype(dtype)))
