"""Predictions without Python: the code of docs/guide/predictors.md, compiled and run."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from networks import classifier

import nnx

COMPILER = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])
PAGE = (Path(__file__).parents[1] / "docs" / "guide" / "predictors.md").read_text(encoding="utf-8")
SETUP = """
import nnx
from setuptools import Extension, setup
from Cython.Build import cythonize
import pathlib
folders = [str(pathlib.Path(nnx.__file__).parents[1])]
extension = Extension("predicting", ["predicting.pyx"], include_dirs=[nnx.get_include()])
setup(name="predicting", ext_modules=cythonize([extension], language_level=3, include_path=folders, quiet=True))
"""

pytestmark = [
    pytest.mark.usefixtures("compiled"),
    pytest.mark.skipif(COMPILER is None or os.name != "posix", reason="there is no compiler"),
]


def code(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def run(folder, *command):
    paths = [str(Path(nnx.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def predictor_and_rows():
    predictor = classifier().predictor()
    rows = np.random.default_rng(0).normal(size=(500, predictor.n_inputs)).astype(np.float32)
    return predictor, rows, np.full((500, predictor.n_outputs), np.nan, np.float32)


@pytest.fixture(scope="module")
def predicting(tmp_path_factory):
    pytest.importorskip("Cython")
    folder = tmp_path_factory.mktemp("predicting")
    (folder / "predicting.pyx").write_text(code("cython"))
    (folder / "setup.py").write_text(SETUP)
    run(folder, sys.executable, "setup.py", "-q", "build_ext", "--inplace")
    (built,) = folder.glob("predicting.*.so")
    spec = importlib.util.spec_from_file_location("predicting", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long("compiles a module with Cython; the same address is called from C in every run")
def test_cython_code_predicts_with_the_same_bits(predicting):
    predictor, rows, outputs = predictor_and_rows()
    predicting.predicted(predictor, rows, outputs)
    assert outputs.tobytes() == predictor(rows).tobytes()
    with pytest.raises(ValueError, match="rows and outputs must fit"):
        predicting.predicted(predictor, rows, rows)


def test_c_code_predicts_with_the_same_bits_and_without_the_predictor(tmp_path):
    predictor, rows, outputs = predictor_and_rows()
    expected = predictor(rows).tobytes()
    (tmp_path / "predicting.c").write_text(code("c"))
    run(
        tmp_path, COMPILER, "-shared", "-fPIC", "-Wall", "-Werror", f"-I{nnx.get_include()}", "predicting.c",
        "-o", "predicting.so",
    )  # fmt: skip
    pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_in.restype, pointer_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = predictor.capsule()
    del predictor
    predicted = ctypes.CDLL(str(tmp_path / "predicting.so")).predicted
    predicted.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ssize_t]
    found = predicted(pointer_in(capsule, b"nnx.predictor.1"), rows.ctypes.data, outputs.ctypes.data, len(rows))
    assert found == 0
    assert outputs.tobytes() == expected
