"""What every test gets: each backend in turn, the default dtype, a seeded global generator."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import nnx
from nnx import _kernels


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nnfs-init", action="store_true", help="run the whole suite after nnfs.init()")
    parser.addoption("--require-data", action="store_true", help="fail where files below NNX_DATA_HOME are missing")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--nnfs-init"):
        import nnfs

        nnfs.init()


@pytest.fixture(params=_kernels.built, autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(_kernels, "backend", importlib.import_module(f"nnx._kernels._{request.param}"))
    return request.param


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
