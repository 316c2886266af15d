"""The choice of the kernels: by what is built, what the processor can run, and what NNX_BACKEND asks for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nnx import _kernels

ALL = ("native-avx512", "native-avx2", "native-baseline", "numpy")


@pytest.fixture
def machine(monkeypatch):
    def of(built, usable):
        monkeypatch.setattr(_kernels, "built", built)
        monkeypatch.setattr(_kernels, "usable", usable)

    return of


def test_the_best_variant_that_the_processor_can_run_is_chosen(machine):
    machine(ALL, ALL[1:])
    assert _kernels.choose(None) == ("native-avx2", "the best that is built and that this processor runs")
    assert _kernels.choose("native")[0] == "native-avx2"
    machine(ALL[2:], ALL[2:])
    assert _kernels.choose(None)[0] == "native-baseline"


@pytest.mark.parametrize("name", ALL[1:])
def test_any_usable_backend_can_be_asked_for(machine, name):
    machine(ALL, ALL[1:])
    assert _kernels.choose(name) == (name, f"NNX_BACKEND={name} asks for it")


def test_a_variant_that_the_processor_lacks_is_not_one_that_is_not_built(machine):
    machine(ALL, ALL[1:])
    with pytest.raises(ImportError, match="NNX_BACKEND=native-avx512, but this processor lacks its instructions"):
        _kernels.choose("native-avx512")
    machine(ALL[2:], ALL[2:])
    with pytest.raises(ImportError, match="NNX_BACKEND=native-avx2, but native-avx2 is not built"):
        _kernels.choose("native-avx2")


@pytest.mark.parametrize("name", ["native", "native-baseline"])
def test_without_compiled_kernels_numpy_serves_and_native_is_refused(machine, name):
    machine(("numpy",), ("numpy",))
    assert _kernels.choose(None) == ("numpy", "the compiled kernels are not built")
    assert _kernels.choose("numpy") == ("numpy", "NNX_BACKEND=numpy asks for it")
    with pytest.raises(ImportError, match=f"NNX_BACKEND={name}, but the compiled kernels are not built"):
        _kernels.choose(name)


def test_another_name_is_refused_with_those_that_there_are():
    with pytest.raises(
        ImportError, match="must be one of: numpy, native, native-amx, native-avx512, native-avx2, native-baseline; g"
    ):
        _kernels.choose("cuda")


def test_the_backend_in_force_is_the_one_that_was_chosen(backend):
    script = "from nnx import _kernels; print(_kernels.name, _kernels.backend.__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [backend, f"nnx._kernels._{backend.partition('-')[0]}"]


def test_a_broken_extension_raises_and_does_not_fall_back(tmp_path):
    script = (
        "import sys, importlib.abc, importlib.machinery\n"
        "class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'nnx._kernels._native':\n"
        "            return importlib.machinery.ModuleSpec(name, self)\n"
        "    def create_module(self, spec): return None\n"
        "    def exec_module(self, module): raise ImportError('undefined symbol: wanted_by_the_test')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "import nnx\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "undefined symbol: wanted_by_the_test" in done.stderr


def test_unknown_variants_and_those_of_other_processors_are_refused(backend):
    if backend == "numpy":
        pytest.skip("has no variants")
    with pytest.raises(ImportError, match="lacks the instructions of the variant 'sse9'"):
        _kernels.backend.use("sse9")
    assert _kernels.backend.offers("baseline")
    with pytest.raises(TypeError):
        _kernels.backend.use(None)


def test_kernels_of_another_build_are_refused_and_those_in_use_stay(compiled, backend):
    script = (
        "import ctypes, importlib, numpy as np\n"
        "from nnx import _kernels\n"
        "new = ctypes.pythonapi.PyCapsule_New\n"
        "new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]\n"
        "name, memory = ctypes.c_char_p(b'nnx._kernels'), ctypes.create_string_buffer(4096)\n"
        "module = importlib.import_module('nnx._kernels.native.baseline_float64')\n"
        "module.table = new(ctypes.cast(memory, ctypes.c_void_p), name, None)\n"
        "try:\n"
        "    _kernels.backend.use('baseline')\n"
        "except ImportError as error:\n"
        "    print(error)\n"
        "values = np.ones((1, 3))\n"
        "_kernels.backend.activation_forward('relu', values, values)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "nnx._kernels.native.baseline_float64 is of another build than nnx._kernels._native. Install nnx again.\n"
    )


def test_compiled_kernels_are_refused_while_no_variant_is_in_use(compiled):
    """The module is imported beside the NumPy backend, too; its tables are empty then."""
    script = (
        "import numpy as np\n"
        "from nnx import _kernels\n"
        "from nnx._kernels import _native\n"
        "stages, guards = (('dense', object(), 2, 3),), (type, (), (), (), (), (), (), ())\n"
        "values = np.ones(3, np.float32)\n"
        "for call in (\n"
        "    lambda: _native.Plan(np.float32, stages, 'mean_squared_error', False, guards),\n"
        "    lambda: _native.Inference(np.float32, stages, guards, _kernels),\n"
        "    lambda: _native.Predictor(np.float64, stages, _kernels),\n"
        "    lambda: _native.round_bfloat16(values, values),\n"
        "    lambda: _native.lanes(np.float32),\n"
        "    lambda: _native.activation_forward('relu', values, values),\n"
        "):\n"
        "    try:\n"
        "        call()\n"
        "    except RuntimeError as error:\n"
        "        print(error)\n"
    )
    environment = {**os.environ, "NNX_BACKEND": "numpy"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == ["no variant of the compiled kernels is in use."] * 6
