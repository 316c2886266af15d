"""Models as C files: they compile without a warning, and answer as nnx does."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from networks import classifier

import nnx
from nnx._base.vocabulary import BUILT_IN
from nnx.cli import main
from nnx.data import dates
from nnx.files import c_layers, c_network, c_tables, c_text
from nnx.layers import walk

#: The available compilers. The environment may name Clang.
COMMANDS = {"gcc": ["gcc"], "clang": shlex.split(os.environ.get("CLANG", "clang"))}
#: With options for each: with and without multiply-adds of one rounding.
COMPILERS = {
    name: options
    for name, options in (("gcc", "-O1"), ("clang", "-O1 -march=native"))
    if shutil.which(COMMANDS[name][0])
}
PAGE = (Path(__file__).parents[1] / "docs" / "guide" / "c-source.md").read_text(encoding="utf-8")
WARNINGS = "-std=c99 -Wall -Wextra -Wmissing-prototypes -pedantic -Werror"

pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.skipif(not COMPILERS, reason="there is no gcc and no clang"),
]
each_compiler = pytest.mark.parametrize("compiler", COMPILERS)

EDGES = [[-1.0, -0.5, 0.25, 2.0], [-0.1, 0.3]]


def same():
    """Return a dense layer that passes 6 numbers on: a model needs at least one dense layer."""
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
    "Combinations": lambda: [same(), nnx.Layer_Combinations(6, [[1, 4], [0, 2, 5]], [[1, -0.5], [2, 1, 0.1]])],
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
    "Members": lambda: [
        *(nnx.Layer_Dense(6, 5), nnx.Layer_Members(5, 3), residual(nnx.Layer_Dense(5, 5), nnx.Activation_ReLU())),
        *(nnx.Layer_MemberScale(5, 3), nnx.Activation_Tanh(), nnx.Layer_MemberDense(5, 4, 3), nnx.Activation_Softmax()),
    ],
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


def compiled(folder, compiler, *paths, options=None):
    library = folder / f"{compiler}.so"
    command = [
        compiler,
        *WARNINGS.split(),
        *(options or COMPILERS[compiler]).split(),
        "-shared",
        "-fPIC",
        *map(str, paths),
    ]
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
    for name, sizes in CHAINS.items():
        chain(*sizes).export_c(folder / f"{name}.c")
    for name in CASES:
        model_of(name).export_c(folder / f"{name}.c")
        model_of(name).export_c(folder / f"{name}8.c", int8=True)
    together = "".join(f'#include "{file.name}"\n' for file in sorted(folder.glob("*.c")))
    (folder / "together.c").write_text(together)  # compiled in half the time
    return compiled(folder, request.param, folder / "together.c")


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


#: A residual is a fork and a join. Layers that act only in training leave no trace.
ASIDE = ("residual", "dropout", "gaussian_noise", "members", "member_scale", "member_dense")


@pytest.mark.few
@pytest.mark.parametrize("name", ALONE)
def test_layers_without_sums_are_within_4_ulp(library, name):
    model, rows = model_of(name), rows_of(name)
    expected = model.predict(rows)
    found = predicted(library, name, rows, expected.shape[1])
    size = np.maximum(np.abs(expected), 0.25) if name in ("GELU", "by_tanh") else None  # nearly 0, nnx is not so exact
    assert ulps(found, expected, size) <= 4


@pytest.mark.parametrize("name", [*SUMS, *CATEGORIES])
def test_sums_are_within_4_ulp_of_the_largest_output(library, name):
    model, rows = model_of(name), rows_of(name)
    expected = model.predict(rows)
    found = predicted(library, name, rows, expected.shape[1])
    limit = 16 if name == "Periodic" else 4  # fast waves, for which nnx rounds products of frequencies
    assert ulps(found, expected, np.abs(expected).max(axis=0)) <= limit


def numbers_of_float64(model, rows):
    """Return a model's outputs, computed in float64 of the same parameters."""
    values = rows.astype(np.float64)
    for layer in model.layers:
        if isinstance(layer, nnx.Layer_Dense):
            values = values @ layer.weights.astype(np.float64) + layer.biases
        else:
            layer = type(layer)()
            layer.forward(values)
            values = layer.output
    return values


def test_networks_are_as_near_to_exact_answers_as_nnx_is(library):
    """Sums of float32 numbers depend on their order. nnx's own variants differ in this way, too."""
    for name, sizes in CHAINS.items():
        model, rows = chain(*sizes), np.random.default_rng(3).normal(size=(300, sizes[0])).astype(np.float32)
        exact = numbers_of_float64(model, rows)
        size = np.abs(exact).max(axis=1, keepdims=True)
        own, found = model.predict(rows), predicted(library, name, rows, sizes[-1])
        assert ulps(found, exact, size) <= 4 + 2 * ulps(own, exact, size)
        assert np.median(np.abs(found - own) / np.spacing(size.astype(np.float32))) <= 1


def chain(*sizes):
    """Return a classifier of dense layers with ReLU between them."""
    np.random.seed(4)
    model = nnx.Model()
    for n_inputs, n_neurons in itertools.pairwise(sizes):
        model.add(nnx.Layer_Dense(n_inputs, n_neurons, weight_initializer="he_normal"))
        model.add(nnx.Activation_ReLU())
    model.layers[-1] = nnx.Activation_Softmax()
    model.finalize()
    return model


CHAINS = {"iris": (8, 16, 4), "spiral": (2, 64, 64, 3), "digits": (64, 100, 50, 10)}


@each_compiler
def test_wide_layers_have_the_bits_of_nnx_where_both_have_multiply_adds(tmp_path, compiler, backend):
    if backend not in ("native-avx2", "native-avx512", "native-amx"):
        pytest.skip("this backend rounds products")
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(20, 64), nnx.Activation_ReLU(), nnx.Layer_Dense(64, 128), nnx.Activation_LeakyReLU()):
        random_layer(layer)
        model.add(layer)
    model.finalize()
    model.export_c(tmp_path / "m.c")
    library = compiled(tmp_path, compiler, tmp_path / "m.c", options="-O2 -mfma")
    rows = np.random.default_rng(8).normal(size=(300, 20)).astype(np.float32)
    assert predicted(library, "m", rows, 128).tobytes() == model.predict(rows).tobytes()


# Weights of 8 bits


@pytest.mark.parametrize("name", CASES)
def test_weights_of_8_bits_change_answers_little(library, name):
    model, rows = model_of(name), rows_of(name)
    expected = model.predict(rows)
    found = predicted(library, f"{name}8", rows, expected.shape[1])
    difference = np.abs(found - expected) / np.abs(expected).max(axis=0)
    assert difference.max() < 0.06
    if name == "Dense":
        assert difference.max() > 1e-4


def test_each_column_has_a_scale_of_its_own():
    weights = np.array([[1e-3, 100, 0, 1e-45], [-2e-3, 50, 0, 0]], np.float32)
    whole, scales = c_layers.quantized(weights)
    assert whole.tolist() == [[64, 127, 0, 0], [-127, 64, 0, 0]]
    np.testing.assert_allclose(scales, [2e-3 / 127, 100 / 127, 0, 0], rtol=1e-6)


@each_compiler
def test_sums_of_8_bits_do_not_overflow(tmp_path, compiler):
    """All weights and inputs are the largest, with as many inputs as make the sum of 16-bit numbers too large."""
    n = 2000
    model = nnx.Model()
    model.add(nnx.Layer_Dense(n, 2, weight_initializer=1.0))
    model.finalize()
    model.export_c(tmp_path / "m.c", int8=True)
    library = compiled(tmp_path, compiler, tmp_path / "m.c")
    rows = np.array([np.ones(n), np.zeros(n), np.full(n, 1e-40), np.full(n, 1e30), np.full(n, np.nan), [np.inf] * n])
    found = predicted(library, "m", rows, 2)
    np.testing.assert_allclose(found[:, 0], [n, 0, 0, n * 1e30, np.nan, np.nan], rtol=1e-5)


# Special numbers


def test_nan_and_categories_that_there_are_not_make_answers_nan(library):
    rows = rows_of("Embedding", 6)
    rows[:, 0] = [3, -1, 0.5, np.nan, 1e30, 2]
    found = predicted(library, "Embedding", rows, 3)
    assert np.isnan(found[:5]).all()
    np.testing.assert_allclose(found[5], model_of("Embedding").predict(rows[5:])[0], rtol=1e-5)


@pytest.mark.parametrize("name", [*ALONE, *SUMS])
def test_nan_passes_through(library, name):
    rows = np.full((1, 6), np.nan, np.float32)
    expected = model_of(name).predict(rows)
    np.testing.assert_array_equal(np.isnan(predicted(library, name, rows, expected.shape[1])), np.isnan(expected))


@pytest.mark.parametrize("name", [name for name in ALONE if name not in ("Thermometer", "PiecewiseLinear")])
def test_infinity_is_answered_as_by_nnx(library, name):
    """A column of its own, because 0 times infinity would be NaN in others."""
    rows = np.full((2, 6), 0, np.float32)
    rows[:, 0] = np.inf, -np.inf
    function = CASES[name]()[-1]
    random_layer(function)
    function.forward(rows)
    library[f"{name}_predict"].restype = None
    model = model_of(name)
    np.testing.assert_allclose(predicted(library, name, rows, 6)[:, 0], model.predict(rows)[:, 0], rtol=1e-5, atol=1e-6)


def test_sanitizers_find_nothing_for_any_input(tmp_path):
    """Inputs and outputs are as large as they must be, and no larger."""
    compiler, calls = next(iter(COMPILERS)), []
    for name in ("Embedding", "Spline", "Periodic", "Thermometer", "nested", "LayerNorm", "Dense"):
        model = model_of(name)
        n_inputs, n_outputs = rows_of(name, 1).shape[1], model.predict(rows_of(name, 1)).shape[1]
        for int8 in (False, True):
            model.export_c(tmp_path / f"{name}{int8}.c", int8=int8)
            calls.append(f"TRY({name}{int8}_predict, {n_inputs}, {n_outputs})")
    files = "".join(f'#include "{file.name}"\n' for file in sorted(tmp_path.glob("*.c")))
    (tmp_path / "all.c").write_text(files + TRYING.replace("CALLS", "\n".join(calls)))
    sanitizers = "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"
    command = [*COMMANDS[compiler], "-std=c99", "-O1", *sanitizers.split(), "all.c", "-o", "all", "-lm"]
    if subprocess.run(command, cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("there are no sanitizers")
    done = subprocess.run([tmp_path / "all"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


TRYING = """
#include <stdlib.h>
#define TRY(predict, n, m) { \\
    float *x = malloc(n * sizeof *x), *y = malloc(m * sizeof *y); \\
    for (int i = 0; i < n; i++) x[i] = rand() % 3 ? (float)(rand() % 81 - 40) / 4 : odd[rand() % 8]; \\
    predict(x, y); free(x); free(y); }
int main(void)
{
    static const float odd[8] = {0, NAN, INFINITY, -INFINITY, 3.4e38f, -3.4e38f, 1e-40f, -1};
    for (int round = 0; round < 2000; round++) {
CALLS
    }
    return 0;
}
"""


# Tables and images


def table_data(n=300):
    rng = np.random.default_rng(5)
    text = np.array(["a", "b*/@", 'c"\\?', "d ü", "e", "f"])
    return {
        "plain": rng.normal(1e6, 3, n).round(3).tolist(),
        "with gaps": [None if i % 7 == 0 else x for i, x in enumerate(rng.exponential(size=n).tolist())],
        "few */ /* ??/ @": text[rng.integers(0, 3, n)].tolist(),
        "many": text[np.minimum(rng.geometric(0.4, n) - 1, 5)].tolist(),
        "day": [None, *(np.datetime64("1899-12-01T00:00:00") + rng.integers(0, 6e9, n - 1)).astype(str).tolist()],
    }


def cells_of(table, data):
    """Return rows as C takes them: float64, with NaN for missing values."""
    columns = []
    for column in table.inputs:
        given = data[column.name]
        if column.kind == "number":
            columns.append([np.nan if x is None else x for x in given])
        elif column.kind == "text":
            known = {text: code for code, text in enumerate(column.categories)}
            columns.append([known.get(text, len(known) if column.pooled else np.nan) for text in given])
        else:
            moments = np.array([x or "NaT" for x in given], "datetime64[us]")
            columns.append(np.where(np.isnat(moments), np.nan, moments.astype(np.float64) / 86_400_000_000).tolist())
    return np.array(columns, np.float64).T.copy()


@pytest.fixture(scope="module")
def tables():
    """For each way of scaling a model of a regression, the first for a pinball loss and the last an ensemble of two."""
    data = table_data()
    data["target"] = np.random.default_rng(6).normal(50, 9, 300).tolist()
    found = {}
    for scaling, one_hot, members in (("standard", None, 1), ("robust", 3, 1), ("normal", 3, 2)):
        table = nnx.Table.learn(data, "target", scaling=scaling, indicators=True, rare=20, one_hot=one_hot)
        models = []
        for seed in range(members):
            np.random.seed(seed)
            model = nnx.Model()
            embedded = [column for column, _ in table.embedded]
            if embedded:
                model.add(nnx.Layer_Embedding(table.n_inputs, embedded, [n for _, n in table.embedded], 2))
            width = table.n_inputs + len(embedded)
            outputs = 3 if scaling == "standard" else 1
            model.add(nnx.Layer_Dense(width, outputs, weight_initializer="he_normal"))
            model.add(nnx.Activation_Linear())
            loss = nnx.Loss_Pinball() if outputs == 3 else nnx.Loss_MeanSquaredError()
            model.set(loss=loss, optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Regression(), table=table)
            model.finalize()
            models.append(model)
        found[scaling] = models[0] if members == 1 else nnx.Ensemble(models)
    found["normal"].counts = (3, 1)
    return found, data


@each_compiler
def test_c_prepares_rows_of_tables_and_answers_in_the_targets_units(tmp_path, compiler, tables):
    models, data = tables
    for name, model in models.items():
        model.export_c(tmp_path / f"{name}.c")
    library = compiled(tmp_path, compiler, *tmp_path.glob("*.c"))
    for name, model in models.items():
        expected = model.table.read_inputs(data)
        inputs, cells = np.empty_like(expected), cells_of(model.table, data)
        for row, output in zip(cells, inputs, strict=True):
            library[f"{name}_prepare"](ctypes.c_void_p(row.ctypes.data), ctypes.c_void_p(output.ctypes.data))
        np.testing.assert_allclose(inputs, expected, rtol=3e-7, atol=0)
        outputs = predicted(library, name, expected, model.output_width())
        own = model.predict(expected)
        assert ulps(outputs, own, np.abs(own).max()) <= 4
        answer = library[f"{name}_answer"]
        answer.restype, answer.argtypes = ctypes.c_double, [ctypes.c_void_p]
        middle = outputs[:, 1:2] if name == "standard" else outputs
        np.testing.assert_allclose([answer(row.ctypes.data) for row in outputs], model.table.decode(middle), rtol=1e-12)


@each_compiler
def test_parts_of_dates_are_those_of_nnx(tmp_path, compiler):
    """At each day of the years around centuries and the ends, and at random moments."""
    days = [np.arange(f"{year:04}-01-01", f"{year + 1:04}-01-01", dtype="datetime64[D]") for year in YEARS]
    moments = np.random.default_rng(7).integers(-62_135_596_800, 253_402_300_799, 2000).astype("datetime64[s]")
    moments = np.concatenate([*days, moments]).astype("datetime64[us]")
    unit = c_text.Unit("m", False)
    unit.function("date", c_tables.DATE_C)
    (tmp_path / "m.c").write_text(
        "#include <math.h>\n#include <stdint.h>\ndouble part_of(double days, int part);\n"
        + unit.functions["date"]
        + "\ndouble part_of(double days, int part) { return m_date(days, part); }\n"
    )
    part_of = compiled(tmp_path, compiler, tmp_path / "m.c").part_of
    part_of.restype, part_of.argtypes = ctypes.c_double, [ctypes.c_double, ctypes.c_int]
    for number, (part, expected) in enumerate(dates.parts_of(moments).items()):
        found = [part_of(x, number) for x in (moments.astype(np.float64) / 86_400_000_000).tolist()]
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-8 if part == "hour" else 1e-12, err_msg=part)
    assert tuple(dates.parts_of(moments)) == dates.PARTS
    assert all(np.isnan(part_of(x, 1)) for x in (np.nan, np.inf, -719163, 2932897, 1e300))


YEARS = (1, 4, 100, 1899, 1900, 1904, 1969, 1970, 1972, 2000, 2100, 9998)


@each_compiler
def test_c_names_classes(tmp_path, compiler):
    """Of several outputs, of one, of a hinge loss's one; of images. No name, column or category ends a comment."""
    data = table_data(60)
    names = ["no", '@ö "\\ ??/ */']
    data["target"] = [names[i % 2] for i in range(60)]
    table = nnx.Table.learn(data, "target", drop=["many", "day"])
    kinds = {
        "several": (2, nnx.Activation_Softmax, nnx.Loss_CategoricalCrossentropy),
        "single": (1, nnx.Activation_Sigmoid, nnx.Loss_BinaryCrossentropy),
        "hinge": (1, nnx.Activation_Linear, nnx.Loss_Hinge),
    }
    for name, (n_outputs, activation, loss) in kinds.items():
        model = nnx.Model()
        model.add(nnx.Layer_Dense(table.n_inputs, n_outputs))
        model.add(activation())
        accuracy = nnx.Accuracy_Categorical(binary=n_outputs == 1)
        model.set(loss=loss(), optimizer=nnx.Optimizer_SGD(), accuracy=accuracy, table=table)
        model.finalize()
        model.export_c(tmp_path / f"{name}.c")
    model = classifier(n_inputs=4, n_classes=3)
    model.set(images=nnx.Images(2, 2, ["circle", "square", "hexagon"]))
    model.export_c(tmp_path / "images.c")
    library = compiled(tmp_path, compiler, *tmp_path.glob("*.c"))

    def said(name, *outputs):
        function = library[f"{name}_answer"]
        function.restype = ctypes.c_char_p
        found = function((ctypes.c_float * len(outputs))(*outputs))
        return None if found is None else found.decode()

    no, yes = table.classes
    assert [said("several", 0.5, 0.5), said("several", 0.4, 0.6), said("several", 0.5, np.nan)] == [no, yes, None]
    assert [said("single", 0.5), said("single", 0.51), said("single", np.nan)] == [no, yes, None]
    assert [said("hinge", 0), said("hinge", 0.1)] == [no, yes]
    assert [said("images", 0.1, 0.2, 0.7), said("images", 0.1, 0.2, np.inf)] == ["hexagon", None]


# The program


@each_compiler
def test_a_program_reads_rows_and_writes_answers(tmp_path, compiler, tables):
    models, data = tables
    model, plain = models["standard"], classifier(n_inputs=2)
    program(tmp_path, compiler, model, "table")
    program(tmp_path, compiler, plain, "plain")
    cells = cells_of(model.table, data)[:20]
    text = "\n".join(",".join("" if np.isnan(x) else repr(x) for x in row) for row in cells.tolist())
    found = np.array([list(map(float, line.split(","))) for line in run(tmp_path / "table", text).splitlines()])
    outputs = model.predict(model.table.read_inputs(data)[:20])
    np.testing.assert_allclose(found[:, :3], outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[:, 3], model.table.decode(found[:, 1:2]), rtol=1e-6)

    found = run(tmp_path / "plain", "1, 2\r\n\n-3e-1,nan\n0.5,-7")
    np.testing.assert_allclose(
        [list(map(float, line.split(","))) for line in found.splitlines()],
        plain.predict([[1, 2], [-0.3, np.nan], [0.5, -7]]),
        rtol=1e-5,
    )
    assert run(tmp_path / "plain", "") == run(tmp_path / "plain", "\n") == ""
    for text, line in (("1,2\n1,2,3\n", 2), ("1\n", 1), ("1,x\n", 1), ("1;2\n", 1), ("1,2\n3", 2), ("1" * 99, 1)):
        done = subprocess.run([tmp_path / "plain"], input=text, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, f"line {line} must hold 2 numbers with commas between them\n")


def program(folder, compiler, model, name):
    model.export_c(folder / f"{name}.c")
    command = [
        *COMMANDS[compiler],
        *WARNINGS.split(),
        "-O1",
        "-DMAIN",
        str(folder / f"{name}.c"),
        "-o",
        str(folder / name),
        "-lm",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run(path, text):
    done = subprocess.run([path], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# Size


@each_compiler
def test_a_small_net_takes_less_than_2_kb_of_code_and_constants(tmp_path, compiler):
    chain(8, 16, 4).export_c(tmp_path / "m.c")
    assert bytes_of(tmp_path, compiler) < 2048


@each_compiler
def test_784_128_128_10_with_8_bits_takes_less_than_130_kb(tmp_path, compiler):
    chain(784, 128, 128, 10).export_c(tmp_path / "m.c", int8=True)
    assert bytes_of(tmp_path, compiler) < 130_000


def bytes_of(folder, compiler):
    """Return how many bytes of code and constants a file makes, and check what its comment says of constants."""
    if shutil.which("size") is None:
        pytest.skip("there is no program size")
    subprocess.run([*COMMANDS[compiler], "-std=c99", "-Os", "-c", "m.c", "-o", "m.o"], cwd=folder, check=True)
    told = subprocess.run(["size", "-A", "m.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
    sections = {line.split()[0]: int(line.split()[1]) for line in told.splitlines() if line.startswith(".")}
    assert sections.get(".data", 0) == sections.get(".bss", 0) == 0
    constants = sum(size for name, size in sections.items() if name.startswith(".rodata"))
    said = int(re.search(r"Memory: ([\d,]+) bytes", (folder / "m.c").read_text())[1].replace(",", ""))
    assert abs(constants - said) < 256  # compilers move some of them into the code, and align others
    return sum(size for name, size in sections.items() if name.startswith((".text", ".rodata", ".eh_frame")))


def test_values_that_are_needed_at_the_same_time_do_not_share_memory():
    """Each step's numbers are followed through memory, for nested residuals."""
    parts = [("fork", (), 4, 4), ("dense", (), 4, 9), ("fork", (), 9, 9), ("relu", (), 9, 9), ("dense", (), 9, 2)]
    parts += [("dense", (), 2, 9), ("join", (), 9, 9), ("dense", (), 9, 4), ("join", (), 4, 4), ("tanh", (), 4, 4)]
    flow = c_network.flow_of(parts)
    held = {}
    for step in flow.steps:
        for value in {step.source, step.other} - {0, -1}:
            for place in range(flow.places[value], flow.places[value] + flow.sizes[value]):
                assert value == flow.steps[-1].target or held[place] == value
        if step.target != flow.steps[-1].target:
            first = flow.places[step.target]
            assert first + flow.sizes[step.target] <= flow.n_memory
            held.update(dict.fromkeys(range(first, first + flow.sizes[step.target]), step.target))
    assert flow.n_memory == 9 + 9 + 2


# Names, and what is refused


def test_names_in_c_come_from_the_file_or_are_given(tmp_path):
    for file, name in (("a.c", "a"), ("my-net 2.c", "my_net_2"), ("3.c", "model_3"), ("ü.c", "model")):
        classifier().export_c(tmp_path / file)
        assert f"void {name}_predict(" in (tmp_path / file).read_text("ascii")
    classifier().export_c(tmp_path / "a.c", name="b")
    assert "b_predict" in (tmp_path / "a.c").read_text()
    assert "a_predict" not in (tmp_path / "a.c").read_text()
    for name in ("", "3a", "a-b", "x" * 32, 5):
        with pytest.raises(ValueError, match=r"Model\.export_c: name must be a valid C name of up to 31 letters"):
            classifier().export_c(tmp_path / "b.c", name=name)
    assert not (tmp_path / "b.c").exists()


def test_what_c_cannot_do_is_refused_before_a_file_is_written(tmp_path):
    class Own(nnx.Activation_ReLU):
        def forward(self, inputs, training=True):
            self.output = np.abs(inputs)

    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 2))
    model.add(Own())
    model.finalize()
    with pytest.raises(ValueError, match=r"Model\.export_c: the model must have only built-in parts, but "):
        model.export_c(tmp_path / "m.c")
    model = classifier()
    model.layers[0].weights[0, 0] = np.nan
    with pytest.raises(
        ValueError, match=r"Model\.export_c: parameters must be finite numbers in float32, got others in"
    ):
        model.export_c(tmp_path / "m.c")
    model = classifier(dtype="float64")
    model.layers[0].biases[0, 0] = 1e39
    with pytest.raises(ValueError, match="must be finite numbers in float32"):
        nnx.Ensemble([model]).export_c(tmp_path / "m.c")
    with pytest.raises(ValueError, match=r"Predictor\.export_c: precision must be float32, got bfloat16"):
        classifier().predictor("bfloat16").export_c(tmp_path / "m.c")
    with pytest.raises(TypeError, match="int8 must be"):
        classifier().export_c(tmp_path / "m.c", int8="yes")
    assert not list(tmp_path.iterdir())


def test_a_predictor_and_float64_give_the_same_file_as_the_model(tmp_path):
    model = classifier()
    model.export_c(tmp_path / "m.c")
    expected = (tmp_path / "m.c").read_bytes()
    model.predictor().export_c(tmp_path / "m.c")
    assert (tmp_path / "m.c").read_bytes() == expected
    twin = classifier(dtype="float64")
    twin.set_parameters(model.get_parameters())
    twin.export_c(tmp_path / "m.c")
    assert (tmp_path / "m.c").read_bytes() == expected


def test_the_comment_says_what_the_function_is_the_mean_of(tmp_path):
    model = classifier()
    for name, each in {"one": model, "two": nnx.Ensemble([model, classifier()])}.items():
        each.export_c(tmp_path / f"{name}.c")
    n_inputs = model.layers[0].weights.shape[0]
    assert f"one: {n_inputs} inputs, " in (tmp_path / "one.c").read_text()
    assert f"two: the mean of 2 networks, {n_inputs} inputs, " in (tmp_path / "two.c").read_text()


def test_numbers_in_c_have_their_bits(tmp_path):
    values = np.array([0.1, 1e-45, 3.4028235e38, -0.0, 1 / 3, 16777216], np.float32)
    found = [np.float32(text.removesuffix("f")) for text in c_text.floats(values)]
    values[1] = 0  # as compiled kernels have it
    assert np.array(found).tobytes() == values.tobytes()
    assert all(re.fullmatch(r"-?\d+(\.\d+)?(e[-+]\d+)?f", text) for text in c_text.floats(values))
    assert all("." in text or "e" in text for text in c_text.floats(values))


@each_compiler
def test_the_page_s_example_runs(tmp_path, compiler, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,), (caller,), commands = (
        re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("python", "c", "sh")
    )
    exec(compile(code, "docs/guide/c-source.md", "exec"), {})
    expected = np.array(re.findall(r"[\d.e-]+", capsys.readouterr().out), np.float64)
    (tmp_path / "main.c").write_text(caller)
    found = []
    for lines in commands:
        script = re.sub(
            "^cc ", f"{compiler} {WARNINGS.replace('-Wmissing-prototypes ', '')} ", lines, flags=re.MULTILINE
        )
        done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        found.append(np.array(re.split("[ ,]", done.stdout.strip()), np.float64))
    np.testing.assert_allclose(found, [expected, expected], atol=1e-5)


@pytest.mark.long("predicts 10,000 images")
@pytest.mark.usefixtures("compiled")
def test_weights_of_8_bits_cost_fashion_mnist_little(tmp_path, request):
    (train, y, test, labels), n = fashion_mnist_data(request), 128
    np.random.seed(0)
    model = nnx.Model()
    for layer in (
        nnx.Layer_Dense(784, n, weight_initializer="he_normal"),
        nnx.Activation_ReLU(),
        nnx.Layer_Dense(n, n, weight_initializer="he_normal"),
        nnx.Activation_ReLU(),
        nnx.Layer_Dense(n, 10),
        nnx.Activation_Softmax(),
    ):
        model.add(layer)
    optimizer, accuracy = nnx.Optimizer_Adam(0.001), nnx.Accuracy_Categorical()
    model.set(loss=nnx.Loss_CategoricalCrossentropy(), optimizer=optimizer, accuracy=accuracy)
    model.finalize()
    model.train(train, y, epochs=1, batch_size=128, shuffle=True, seed=0, print_every=None)
    model.export_c(tmp_path / "m.c", int8=True)
    found = predicted(compiled(tmp_path, next(iter(COMPILERS)), tmp_path / "m.c"), "m", test, 10)
    expected = np.mean(model.predict(test).argmax(axis=1) == labels)
    assert expected > 0.75
    assert np.mean(found.argmax(axis=1) == labels) >= expected - 0.003


def fashion_mnist_data(request):
    """Return a third of Fashion-MNIST to train on, and all to test, as rows from -1 to 1; or skip the test."""
    home = os.environ.get("NNX_DATA_HOME")
    if not home or not Path(home, "fashion-mnist").exists():
        reason = "there is no fashion-mnist in NNX_DATA_HOME"
        (pytest.fail if request.config.getoption("--require-data") else pytest.skip)(reason)
    X, y, X_test, y_test = nnx.load_fashion_mnist()
    X, y = X[:20_000], y[:20_000]
    rows = [(images.reshape(len(images), -1).astype(np.float32) - 127.5) / 127.5 for images in (X, X_test)]
    return rows[0], y, rows[1], y_test


def test_the_command_writes_c(tmp_path, capsys):
    model = classifier()
    model.save(tmp_path / "m.safetensors")
    given, wanted = str(tmp_path / "m.safetensors"), str(tmp_path / "m.c")
    assert main(["export", given, wanted, "--int8", "--name", "net"]) == 0
    assert "m.c: C source, " in capsys.readouterr().out
    assert "static const int8_t net_weights" in (tmp_path / "m.c").read_text()
    with pytest.raises(SystemExit) as stopped:
        main(["export", given, wanted, "--name", "a b"])
    assert stopped.value.code == 2
    assert "name must be a valid C name" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["export", given, str(tmp_path / "m.onnx"), "--int8"])
    assert stopped.value.code == 2
    assert "argument --int8: is not for " in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()
