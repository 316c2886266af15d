"""Models as C files: compiled without a warning, and run, they answer as nnx does."""

from __future__ import annotations

import csv
import ctypes
import io
import itertools
import re
import shutil
import subprocess

import numpy as np
import pytest
from networks import binary, classifier, regression

import nnx
from nnx._base.vocabulary import BUILT_IN
from nnx.files import c_layers, c_network
from nnx.layers import walk

#: Compilers that are there, with an option each: with and without multiply-adds of one rounding.
COMPILERS = {name: options for name, options in (("gcc", "-O1"), ("clang", "-O2 -march=native")) if shutil.which(name)}
WARNINGS = "-std=c99 -Wall -Wextra -Wmissing-prototypes -pedantic -Werror"

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.skipif(not COMPILERS, reason="there is no gcc and no clang"),
]
each_compiler = pytest.mark.parametrize("compiler", COMPILERS)

EDGES = [[-1.0, -0.5, 0.25, 2.0], [-0.1, 0.3]]


def same():
    """Return a dense layer that hands 6 numbers on: a model has one at least."""
    return nnx.Layer_Dense(6, 6, weight_initializer=lambda shape: np.eye(*shape))


def one(name, **settings):
    return [same(), getattr(nnx, f"Activation_{name}")(**settings)]


def residual(*layers):
    return nnx.Layer_Residual(layers)


def random_layer(layer):
    rng = np.random.default_rng(1)
    if isinstance(layer, nnx.Layer_Dense) and layer.weight_initializer is None:
        return
    for name in getattr(layer, "_parameters", ()):
        getattr(layer, name)[...] = rng.normal(size=np.shape(getattr(layer, name)))
    if isinstance(layer, nnx.Layer_BatchNorm):
        layer.running_mean[...] = rng.normal(size=layer.running_mean.shape)
        layer.running_variance[...] = rng.uniform(0.5, 2, layer.running_variance.shape)


#: Layers by a name for C: 6 columns go in. Those in the first group are compared number by number.
ALONE = {
    **{
        kind.__name__.removeprefix("Activation_"): (lambda kind=kind: one(kind.__name__.removeprefix("Activation_")))
        for kind in BUILT_IN["layer"]
        if kind.__name__.startswith("Activation_") and kind is not nnx.Activation_Softmax
    },
    "by_tanh": lambda: one("GELU", approximate=True),
    "slope": lambda: one("LeakyReLU", slope=0.3),
    "slopes": lambda: one("PReLU", n_inputs=6),
    "Scale": lambda: [same(), nnx.Layer_Scale(6)],
    "Thermometer": lambda: [same(), nnx.Layer_Thermometer(6, [1, 4], EDGES)],
    "PiecewiseLinear": lambda: [same(), nnx.Layer_PiecewiseLinear(6, [1, 4], EDGES)],
}
SUMS = {
    "Softmax": lambda: one("Softmax"),
    "Dense": lambda: [nnx.Layer_Dense(6, 40), nnx.Layer_Dropout(0.5), nnx.Layer_GaussianNoise(0.5)],
    "narrow": lambda: [nnx.Layer_Dense(6, 1)],
    "BatchNorm": lambda: [same(), nnx.Layer_BatchNorm(6)],
    "LayerNorm": lambda: [same(), nnx.Layer_LayerNorm(6)],
    "steps": lambda: [same(), nnx.Layer_Spline(6, 5, [1, 4], EDGES, degree=0)],
    "Spline": lambda: [same(), nnx.Layer_Spline(6, 5, [1, 4], EDGES)],
    "Periodic": lambda: [same(), nnx.Layer_Periodic(6, [0, 5], frequencies=3, width=2)],
    "Residual": lambda: [residual(nnx.Layer_Dense(6, 6)), nnx.Activation_ReLU()],
    "first": lambda: [residual(nnx.Activation_ReLU(), nnx.Activation_Tanh()), same()],
    "empty": lambda: [residual(nnx.Layer_Dropout(0.5)), same()],
    "nested": lambda: [
        nnx.Layer_Dense(6, 8),
        residual(nnx.Layer_LayerNorm(8), residual(nnx.Layer_Dense(8, 3), nnx.Layer_Dense(3, 8)), nnx.Layer_Dense(8, 8)),
        residual(nnx.Layer_Scale(8)),
    ],
}
CATEGORIES = {
    "Embedding": lambda: [nnx.Layer_Embedding(4, [0, 2], [3, 5], 2), nnx.Layer_Dense(6, 3), nnx.Activation_Softmax()]
}
CASES = ALONE | SUMS | CATEGORIES


def model_of(name):
    model = nnx.Model()
    for layer in CASES[name]():
        for each in walk([layer]):
            random_layer(each)
        model.add(layer)
    model.finalize()
    return model


def rows_of(name, n=400):
    rng = np.random.default_rng(2)
    if name in CATEGORIES:
        numbers = rng.normal(size=(n, 4))
        numbers[:, 0], numbers[:, 2] = rng.integers(0, 3, n), rng.integers(0, 5, n)
        return numbers.astype(np.float32)
    rows = (3 * rng.normal(size=(n, 6))).astype(np.float32)
    rows[0] = [0, -0.0, 1, -1, 30, -30]
    return rows


def compiled(folder, compiler, *paths):
    library = folder / f"{compiler}.so"
    command = [compiler, *WARNINGS.split(), *COMPILERS[compiler].split(), "-shared", "-fPIC", *map(str, paths)]
    done = subprocess.run([*command, "-o", str(library), "-lm"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def predicted(library, name, rows, n_outputs):
    rows = np.ascontiguousarray(rows, np.float32)
    outputs = np.full((len(rows), n_outputs), 7, np.float32)
    predict = getattr(library, f"{name}_predict")
    predict.argtypes, predict.restype = [ctypes.c_void_p] * 2, None
    for row, output in zip(rows, outputs, strict=True):
        predict(row.ctypes.data, output.ctypes.data)
    return outputs


@pytest.fixture(scope="module", params=COMPILERS)
def library(request, tmp_path_factory):
    """All cases, in float32 and with weights of 8 bits, in one library."""
    folder = tmp_path_factory.mktemp("c")
    for name in CASES:
        model_of(name).export_c(folder / f"{name}.c")
        model_of(name).export_c(folder / f"{name}8.c", int8=True)
    return compiled(folder, request.param, *sorted(folder.glob("*.c")))


def ulps(found, expected, size=None):
    """Return the largest difference as a multiple of the distance of two floats of that size."""
    size = np.maximum(np.abs(found), np.abs(expected)) if size is None else np.broadcast_to(size, expected.shape)
    return float((np.abs(found.astype(np.float64) - expected) / np.spacing(size.astype(np.float32))).max())


def test_each_built_in_layer_has_c_and_is_tested():
    """A class whose kind has no C is named here."""
    without = [kind.__name__ for kind in BUILT_IN["layer"] if kind._kernel not in (*c_layers.KINDS, *ASIDE)]
    assert not without, f"there is no C for {without}"
    tested = {type(layer) for name in CASES for layer in walk(CASES[name]())}
    assert {kind.__name__ for kind in BUILT_IN["layer"]} - {kind.__name__ for kind in tested} == set()


#: A residual is a fork and a join; what acts in training alone leaves no trace.
ASIDE = ("residual", "dropout", "gaussian_noise")


@pytest.mark.parametrize("name", ALONE)
def test_layers_without_sums_are_within_4_ulp(library, name):
    model, rows = model_of(name), rows_of(name)
    expected = model.predict(rows)
    found = predicted(library, name, rows, expected.shape[1])
    size = np.maximum(np.abs(expected), 0.25) if name in ("GELU", "by_tanh") else None  # nearly 0, nnx is not so exact
    assert ulps(found, expected, size) <= 4


@pytest.mark.parametrize("name", SUMS)
def test_sums_are_within_4_ulp_of_the_largest_output(library, name):
    model, rows = model_of(name), rows_of(name)
    expected = model.predict(rows)
    found = predicted(library, name, rows, expected.shape[1])
    assert ulps(found, expected, np.abs(expected).max(axis=0)) <= 4
