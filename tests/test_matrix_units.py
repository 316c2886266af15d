"""Products on matrix units, or in the plain C that replaces them: their bits, the plans that use them, and what a
process has to fear from them: a refusal by the system, signals, forks.

As a script, this file does in a process of its own what could end that process: with "beside" and a backend's name, it
multiplies matrices that lie beside unreadable memory; with "refused" and a way, it trains where Linux refuses units.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from plans import NETS, OPTIMIZERS, PENALTIES, Net, bits, build, data_for, train
from test_memory import FILLED, Region
from test_plan_precision import AFTER_FEW, AFTER_ONE, BFLOAT16, FEW, KINDS, assert_as_whole, each_settings, few_nets

import nnx
from nnx import _kernels
from nnx.engine import plan

pytestmark = pytest.mark.usefixtures("compiled")

WAYS = ("output", "dinputs", "dweights")
each_way = pytest.mark.parametrize("way", WAYS)
EDGES = (1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65)


@pytest.fixture
def units(backend):
    """Let the units do products in bfloat16 or, on backends without units, the C that replaces them."""
    if backend == "native-amx":
        skip_without_units()
    with stand_in():
        yield


@pytest.fixture
def real_units(backend):
    if backend != "native-amx":
        pytest.skip("only the variant amx has matrix units for sure")
    skip_without_units()


def skip_without_units():
    available, clause, _ = _kernels.backend.matrix_units()
    if not available:
        pytest.skip(clause)


@contextmanager
def stand_in():
    """Let plain C replace the units, within the block, in new plans of variants without units."""
    _kernels.backend._use_plain_units(True)
    try:
        yield
    finally:
        _kernels.backend._use_plain_units(False)


@pytest.fixture
def by_conversion(monkeypatch):
    """Return a function that calls another one as if there were no units."""

    def call(function, *arguments, refused=False, **named):
        with monkeypatch.context() as patch:
            patch.setattr(_kernels.backend, "matrix_units", lambda: (False, "the test does without", refused))
            _kernels.backend._use_plain_units(False)
            try:
                return function(*arguments, **named)
            finally:
                _kernels.backend._use_plain_units(True)

    return call


# Products

TINY = np.finfo(np.float32).tiny


def flushed(values):
    """Return numbers with 0 in place of subnormal ones."""
    return np.where(np.abs(values) < TINY, np.float32(0) * values, values)


def rounded(values):
    """Return numbers as the units get them: the nearest bfloat16, ties to even, subnormal ones as 0."""
    result = np.empty_like(values)
    _kernels.backend.round_bfloat16(flushed(values), result)
    return result


def sums_of_units(left, right):
    """Return left · right, each rounded to bfloat16, with the bits that the units' sums have.

    They take 32 numbers of the common dimension at a time, sum up the products of the even and of the odd ones apart
    (a product and its sum are rounded once), add both sums, and that to the result. Subnormal numbers become 0.
    """
    padding = -left.shape[1] % 32
    left, right = rounded(left).astype(np.float64), rounded(right).astype(np.float64)
    left, right = np.pad(left, ((0, 0), (0, padding))), np.pad(right, ((0, padding), (0, 0)))
    total = np.zeros((len(left), right.shape[1]), np.float32)
    for start in range(0, left.shape[1], 32):
        halves = [np.zeros_like(total), np.zeros_like(total)]
        for k in range(start, start + 32):
            halves[k % 2] = flushed((halves[k % 2] + left[:, k : k + 1] * right[k]).astype(np.float32))
        total = flushed(total + flushed(halves[0] + halves[1]))
    return total


def product(way, left, right):
    """Return left · right as the kernels compute it; they get one of both transposed if the way is so."""
    result = np.full((len(left), right.shape[1]), -7, np.float32)
    left = np.ascontiguousarray(left.T) if way == "dweights" else left
    right = np.ascontiguousarray(right.T) if way == "dinputs" else right
    _kernels.backend._block_product(way, left, right, result)
    return result


def same(found, expected):
    """Return where two arrays have the same bits, or both NaN."""
    return (found.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(found) & np.isnan(expected))


def sizes(rng):
    """Return sizes of products: each from 1 to 70 in each dimension, and edges of blocks."""
    found = [tuple(rng.integers(1, 71, 3)) for _ in range(210)]
    found = [(*size[: i // 70], i % 70 + 1, *size[i // 70 + 1 :]) for i, size in enumerate(found)]
    return found + [tuple(rng.choice(EDGES, 3)) for _ in range(60)]


@each_way
def test_products_of_any_size_have_the_bits_of_the_units_sums(units, rng, way):
    for rows, depth, columns in sizes(rng):
        left, right = (rng.normal(size=size).astype(np.float32) for size in ((rows, depth), (depth, columns)))
        found = product(way, left, right)
        assert same(found, sums_of_units(left, right)).all(), (rows, depth, columns)
        x, y = rounded(left).astype(np.float64), rounded(right).astype(np.float64)
        exact, size = x @ y, np.abs(x) @ np.abs(y)
        assert (np.abs(found - exact) <= (depth + 2) * 2.0**-24 * size).all(), (rows, depth, columns)


@each_way
def test_products_of_whole_numbers_are_exact(units, rng, way):
    many = [(3, 1500, 5), (130, 257, 100), (1, 4096, 1), (290, 290, 40)]  # more than GROUP or DEPTH blocks, or both
    for rows, depth, columns in [*sizes(rng)[::7], *many]:
        left, right = rng.integers(-9, 10, (rows, depth)), rng.integers(-9, 10, (depth, columns))
        np.testing.assert_array_equal(product(way, left.astype(np.float32), right.astype(np.float32)), left @ right)


@each_way
@pytest.mark.parametrize("scale", [1e-19, 3e-20, 1.5e19], ids="{:g}".format)
def test_sums_near_the_smallest_and_the_largest_numbers_have_the_units_bits(units, rng, way, scale):
    for _ in range(10):
        rows, depth, columns = rng.integers(1, 71, 3)
        left, right = (
            (scale * rng.normal(size=size) * 2.0 ** rng.integers(-3, 4, size)).astype(np.float32)
            for size in ((rows, depth), (depth, columns))
        )
        with np.errstate(all="ignore"):
            expected = sums_of_units(left, right)
        assert same(product(way, left, right), expected).all()
        assert (expected == 0).any() or not np.isfinite(expected).all() or expected.size < 500


@each_way
def test_products_of_any_bits_have_the_units_bits(units, rng, way):
    for depth in (1, 2, 3, 5, 33, 70):  # in more numbers than some, one is NaN, and so all that comes of it
        left, right = (
            rng.integers(0, 2**32, size, dtype=np.uint32).view(np.float32) for size in ((70, depth), (depth, 70))
        )
        with np.errstate(all="ignore"):
            assert same(product(way, left, right), sums_of_units(left, right)).all(), depth


LARGEST = np.finfo(np.float32).max
SUBNORMAL = np.array(0x007FFFFF, np.uint32).view(np.float32)  # which would round to a normal number


@each_way
@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([np.nan], [1], np.nan),
        ([np.nan], [0], np.nan),
        ([np.inf], [0], np.nan),
        ([np.inf], [-2], -np.inf),
        ([np.inf, np.inf], [1, -1], np.nan),
        ([LARGEST], [1], np.inf),
        ([-LARGEST], [1], -np.inf),
        ([255 * 2.0**120], [1], 255 * 2.0**120),
        ([2.0**100], [2.0**100], np.inf),
        ([2.0**64, 0, 2.0**127], [2.0**64, 0, -1], 2.0**127),  # the product itself need not be a float32
        ([2.0**-75, 0, 2.0**-126], [2.0**-75, 0, 1], 2.0**-126),
        ([2.0**-100], [2.0**-100], 0),
        ([SUBNORMAL], [2.0**100], 0),
        ([-SUBNORMAL], [2.0**100], 0),
        ([-0.0], [1], 0),
        ([1 + 2.0**-8], [1], 1),
        ([1 + 3 * 2.0**-8], [1], 1 + 2.0**-6),
    ],
    ids=str,
)
def test_special_numbers(units, way, left, right, expected):
    left, right = np.array([left], np.float32), np.array(right, np.float32)[:, None]
    if left[0, 0] == 2.0**64:  # the sum so far, then the product that overflows
        left, right = left[:, ::-1].copy(), right[::-1].copy()
    found = product(way, left, right)
    np.testing.assert_array_equal(found, [[expected]])
    assert not np.signbit(found[expected == 0]).any()
    if np.isnan(expected):
        return
    wide = product(way, np.tile(left, (40, 1)), np.tile(right, (1, 50)))
    np.testing.assert_array_equal(wide, np.full((40, 50), expected))


@each_way
def test_what_is_beside_a_row_or_column_does_not_come_into_it(units, way):
    left, right = np.ones((35, 37), np.float32), np.ones((37, 41), np.float32)
    left[3], right[:, 5] = np.nan, np.inf
    expected = np.full((35, 41), 37.0)
    expected[:, 5], expected[3] = np.inf, np.nan
    np.testing.assert_array_equal(product(way, left, right), expected)


def test_factors_of_any_layout_are_read_rightly(units, rng):
    left, right = (rng.normal(size=size).astype(np.float32) for size in ((20, 30), (30, 40)))
    expected = product("output", left, right)
    for layout in (np.asfortranarray, lambda a: np.flip(np.flip(a).copy()), lambda a: a.astype(">f4")):
        result = layout(np.zeros((20, 40), np.float32))
        _kernels.backend._block_product("output", layout(left), layout(right), result)
        np.testing.assert_array_equal(result, expected)
    square = rng.normal(size=(20, 20)).astype(np.float32)
    expected = product("output", square, square)
    _kernels.backend._block_product("output", square, square, square)
    np.testing.assert_array_equal(square, expected)


def test_no_rows_and_no_columns(units):
    for rows, columns in ((0, 3), (3, 0), (0, 0)):
        result = np.zeros((rows, columns), np.float32)
        _kernels.backend._block_product("output", np.ones((rows, 2), "f4"), np.ones((2, columns), "f4"), result)


def test_what_does_not_fit_is_refused(units):
    good = [np.ones(shape, np.float32) for shape in ((2, 3), (3, 4), (2, 4))]
    for place in range(3):
        for wrong, error in (
            (None, TypeError),
            (good[place].tolist(), TypeError),
            (good[place].astype(np.float64), TypeError),
            (good[place].astype(np.int32), TypeError),
            (good[place][None], ValueError),
            (good[place][:-1] if place else good[place][:, :-1], ValueError),
        ):
            given = [array.copy() for array in good]
            given[place] = wrong
            with pytest.raises(error, match=r"_block_product: .* must (be|have)"):
                _kernels.backend._block_product("output", *given)
            if place < 2:
                np.testing.assert_array_equal(given[2], 1)
    with pytest.raises(ValueError, match="at least 1"):
        _kernels.backend._block_product("output", np.ones((2, 0), "f4"), np.ones((0, 4), "f4"), good[2])
    good[2].setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        _kernels.backend._block_product("output", *good)
    with pytest.raises(KeyError):
        _kernels.backend._block_product("other", *good)


def multiply_beside_unreadable_memory(backend):
    """Multiply matrices right before, or after, an unreadable page."""
    _kernels.backend = _kernels.load(backend)
    regions = [Region(70 * 70 * 4) for _ in range(3)]
    rng = np.random.default_rng(0)
    for rows, depth, columns in sizes(rng):
        for way in WAYS:
            left, right = (rng.normal(size=size).astype(np.float32) for size in ((rows, depth), (depth, columns)))
            expected = product(way, left, right)
            plain = [left.T.copy() if way == "dweights" else left, right.T.copy() if way == "dinputs" else right]
            plain.append(np.zeros_like(expected))
            for at_end in (True, False):
                print(f"{way} {rows} {depth} {columns} {'before' if at_end else 'behind'} the page", flush=True)
                given = [region.place(array, at_end) for region, array in zip(regions, plain, strict=True)]
                _kernels.backend._block_product(way, *given)
                assert given[2].tobytes() == expected.tobytes(), "another result than elsewhere"
                for region, array in zip(regions, given, strict=True):
                    assert (region.rest(array, at_end) == FILLED).all(), "written beside an array"


def run_script(file, *arguments):
    """Run this file, or another one, as a script, and return its output."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", file, *arguments], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"at {lines[-1] if lines else 'the start'}: {done.returncode}\n{done.stderr[-2000:]}"
    return lines


@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
def test_products_stay_within_their_arrays(units, backend):
    assert len(run_script(__file__, "beside", backend)) == 2 * 3 * 270


@pytest.mark.long("a process with guarded memory; test_plan.py starts the like in every run")
@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
def test_plans_stay_within_their_arrays(units, backend):
    lines = run_script(os.path.join(os.path.dirname(__file__), "plans.py"), backend, "bfloat16")
    assert len(lines) == len(NETS) * 2


# Plans


def trained(net, optimizer="SGD", n=50, dense=None, settings=None, **arguments):
    """Train a network in bfloat16. Return all state after it."""
    model = build(net, optimizer, dtype="float32", **(dense or {}))
    if settings:
        model.set(optimizer=nnx.Optimizer_SGD(0.1, **settings))
    return train(model, *data_for(net, n), **BFLOAT16, **arguments)


def of_backend(name, function, *arguments, **named):
    """Return a function's result on another backend, with the C that replaces the units."""
    before = _kernels.backend
    name_before = os.environ["NNX_BACKEND"]
    _kernels.backend = _kernels.load(name)
    try:
        with stand_in():
            return function(*arguments, **named)
    finally:
        _kernels.load(name_before)
        _kernels.backend = before


@pytest.mark.parametrize("number", range(len(NETS)), ids=lambda number: str(NETS[number]))
def test_the_units_and_what_stands_in_for_them_have_the_same_bits(real_units, planned, number):
    net, optimizer = NETS[number], list(OPTIMIZERS)[number % 5]
    arguments = {
        "dense": PENALTIES if number % 3 == 0 else {},
        "epochs": 3,
        "batch_size": (7, 32, 33, None)[number % 4],
        "on_nonfinite": "ignore",  # one of them diverges
    }
    found = bits(trained(net, optimizer, **arguments))
    assert found == bits(of_backend("native-avx512", trained, net, optimizer, **arguments))
    assert planned == [True, True]


@pytest.mark.parametrize("number", range(len(NETS)), ids=lambda number: str(NETS[number]))
def test_float32_has_the_bits_of_avx512(real_units, number):
    net, optimizer = NETS[number], list(OPTIMIZERS)[number % 5]

    def in_float32():
        model = build(net, optimizer, dtype="float32")
        return bits(train(model, *data_for(net, 50), epochs=3, batch_size=16, on_nonfinite="ignore"))  # one diverges

    assert in_float32() == of_backend("native-avx512", in_float32)


@pytest.mark.parametrize("number", range(0, len(NETS), 3), ids=lambda number: str(NETS[number]))
def test_predictors_have_these_bits_too_for_any_number_of_rows(real_units, number):
    net = NETS[number]
    X = data_for(net, 400)[0].astype(np.float32)

    def predictions():
        return build(net, dtype="float32").predictor("bfloat16")(X)

    expected = of_backend("native-avx512", predictions)
    predict = build(net, dtype="float32").predictor("bfloat16")
    for start, stop in ((0, 400), (0, 1), (5, 6), (10, 43), (31, 64), (100, 356)):
        assert predict(X[start:stop]).tobytes() == expected[start:stop].tobytes(), (start, stop)


def shapes():
    """Return networks of every width from 1 to 70, with numbers of samples and batch sizes."""
    for width in range(1, 71):
        hidden, last = width * 37 % 70 + 1, width * 53 % 70 + 1
        net = Net(f"{width}-{hidden},relu,{hidden}-{last},{last}-3,linear", "squared", "near")
        yield net, width * 29 % 70 + 1, width * 11 % 70 + 1


def weights_of_shapes():
    """Train all these without operations that processors round differently. Return their parameters' bits."""
    found = []
    for net, n, batch_size in shapes():
        model = build(net, dtype="float32")
        model.set(optimizer=nnx.Optimizer_SGD(2.0**-5))
        X, y = data_for(net, n)
        model.train(X, y, epochs=2, batch_size=batch_size, print_every=None, **BFLOAT16)
        found.append([array.tobytes() for pair in model.get_parameters() for array in pair])
    return found


def test_plans_of_any_shape_have_the_same_weights_on_every_processor(units, backend):
    other = "native-avx2" if backend == "native-baseline" and "native-avx2" in _kernels.usable else "native-baseline"
    found, expected = weights_of_shapes(), of_backend(other, weights_of_shapes)
    assert [i for i, one in enumerate(found) if one != expected[i]] == []


def test_plans_of_any_shape_compute_what_conversion_computes(units, by_conversion):
    for net, n, batch_size in shapes():
        found = trained(net, n=n, batch_size=batch_size)
        assert_as_whole(found, by_conversion(trained, net, n=n, batch_size=batch_size), AFTER_FEW)


@pytest.mark.few
@pytest.mark.parametrize("number", range(len(NETS)), ids=lambda number: str(NETS[number]))
def test_a_step_is_that_of_conversion(units, by_conversion, planned, number):
    net, dense = NETS[number], PENALTIES if number % 3 == 0 else {}
    optimizer = list(OPTIMIZERS)[number % 2]  # the others divide by the gradients' own size
    found = trained(net, optimizer, dense=dense)
    assert_as_whole(found, by_conversion(trained, net, optimizer, dense=dense), AFTER_ONE)
    assert planned == [True, True]


@few_nets
@each_settings
def test_settings_of_optimizers_have_the_effect_that_they_have_with_conversion(units, by_conversion, net, settings):
    arguments = {"settings": settings, "epochs": 2, "batch_size": 15, "dense": PENALTIES}
    found = trained(net, **arguments)
    assert ("layers[0].weight_averages" in found) == ("average" in settings)
    assert_as_whole(found, by_conversion(trained, net, **arguments), AFTER_FEW)


@few_nets
@pytest.mark.parametrize("frozen", [[0], [1], [0, 1]])
def test_frozen_layers_stay_and_pass_gradients_on(units, by_conversion, net, frozen):
    def run():
        model = build(net, "SGD", dtype="float32", **PENALTIES)
        layers = [layer for layer in model.layers if isinstance(layer, nnx.Layer_Dense)]
        for number in frozen:
            model.trainable_layers.remove(layers[number])
        before = [layers[number].weights.tobytes() for number in frozen]
        left = train(model, *data_for(net, 50), epochs=2, batch_size=33, **BFLOAT16)
        assert [layers[number].weights.tobytes() for number in frozen] == before
        return left

    assert_as_whole(run(), by_conversion(run), AFTER_FEW)


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS), ids=lambda kind: kind.__name__)
def test_every_activation_between_dense_layers(units, by_conversion, planned, kind):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 33)), rng.normal(size=(60, 17))

    def run():
        model = nnx.Model()
        np.random.seed(1)
        for n_in, n_out in ((33, 70), (70, 40), (40, 17)):
            model.add(nnx.Layer_Dense(n_in, n_out, dtype="float32", weight_initializer="he_normal"))
            model.add(kind(n_out) if kind is nnx.Activation_PReLU else kind())
        model.add(nnx.Layer_Dense(17, 17, dtype="float32"))
        model.add(nnx.Activation_Linear())
        accuracy = nnx.Accuracy_Regression()
        model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(0.01), accuracy=accuracy)
        model.finalize()
        return train(model, X, y, **BFLOAT16)

    assert_as_whole(run(), by_conversion(run), 3 * AFTER_ONE)
    assert planned == [True, True]


@pytest.mark.few
@pytest.mark.parametrize(
    "net", [FEW[3], Net("40-70,70-33,33-9,softmax"), Net("33-65,relu,65-65,sigmoid,65-3,softmax")], ids=str
)
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.05}], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(units, monkeypatch, net, settings):
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)
    for n, batch_size in ((300, 77), (70, 70), (33, 32), (5, None)):
        arguments = {"settings": settings, "n": n, "batch_size": batch_size, "epochs": 3, "dense": PENALTIES}
        expected = bits(trained(net, threads=1, **arguments))
        for threads in (2, 3, 4):
            assert bits(trained(net, threads=threads, **arguments)) == expected, (n, threads)


# Without the system's permission

SMALL = Net("20-40,relu,dropout,40-3,softmax")


def digest():
    """Train a network in bfloat16; return a digest of its parameters."""
    model = build(SMALL, dtype="float32")
    model.train(*data_for(SMALL, 100), epochs=5, batch_size=33, print_every=None, **BFLOAT16)
    return hashlib.sha256(b"".join(array.tobytes() for pair in model.get_parameters() for array in pair)).hexdigest()


class Stack(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


class Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint))


class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction)))


ARCH_PRCTL, ASK_FOR_PERMISSION = 158, 0x1023
LOAD, COMPARE, RETURN = 0x20, 0x15, 0x06
SET_NO_NEW_PRIVILEGES, SET_SECCOMP, BY_FILTER = 38, 22, 2
ALLOW, FAIL_WITH_EPERM = 0x7FFF0000, 0x00050001
THE_CALL, ITS_FIRST_ARGUMENT = 0, 16


def use_small_signal_stack(size):
    """Handle signals on a stack that is too small for the units' registers. Linux then refuses the units."""
    libc = ctypes.CDLL(None, use_errno=True)
    memory = ctypes.create_string_buffer(size)
    assert libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(memory), 0, size)), None) == 0
    return memory


def forbid_to_ask():
    """Make the system call that asks for the units fail from now on, as in some containers."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = (Instruction * 6)(
        Instruction(LOAD, 0, 0, THE_CALL),
        Instruction(COMPARE, 0, 3, ARCH_PRCTL),
        Instruction(LOAD, 0, 0, ITS_FIRST_ARGUMENT),
        Instruction(COMPARE, 0, 1, ASK_FOR_PERMISSION),
        Instruction(RETURN, 0, 0, FAIL_WITH_EPERM),
        Instruction(RETURN, 0, 0, ALLOW),
    )
    assert libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    assert libc.prctl(SET_SECCOMP, BY_FILTER, ctypes.byref(Filter(6, program)), 0, 0) == 0


def train_refused(way):
    """Train when the system refuses the units, and print the result."""
    kept = None
    if way == "filter":
        forbid_to_ask()
    elif way != "nothing":
        kept = use_small_signal_stack(int(way))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        digests = [digest(), digest()]
    print(json.dumps([_kernels.name, _kernels.backend.matrix_units(), digests, [str(one.message) for one in caught]]))
    del kept


@pytest.mark.parametrize("way", ["2048", "8192", "filter"])
def test_a_process_that_is_refused_the_units_trains_by_conversion(real_units, way):
    (line,) = run_script_plainly("refused", way)
    name, units, digests, caught = json.loads(line)
    assert name == "native-amx"
    assert units == [False, "the system refuses this process the matrix units", True]
    with_conversion = _kernels.load("native-avx512")
    assert not with_conversion.matrix_units()[0]
    assert digests == [digest(), digest()]
    assert len(caught) == 1
    assert "the system refuses this process the matrix units" in caught[0]


def run_script_plainly(*arguments):
    """Run this file without a fault handler, which has its own stack for signals."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout.splitlines()


def test_a_process_that_is_not_refused_them_says_nothing(real_units):
    (line,) = run_script_plainly("refused", "nothing")
    name, units, digests, caught = json.loads(line)
    assert (name, units, caught) == ("native-amx", [True, "AMX", False], [])
    assert digests == [digest(), digest()]


def test_a_refusal_costs_nothing_but_time(units, by_conversion, monkeypatch):
    monkeypatch.setattr("nnx._base.precision._has_warned", False)
    with pytest.warns(UserWarning, match="the test does without") as caught:
        found = by_conversion(lambda: [digest(), digest()], refused=True)
    assert len(caught) == 1
    assert found[0] == found[1]


# What else happens to a process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_trains_with_the_units(units):
    expected = digest()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, digest().encode())
        finally:
            os._exit(0)
    os.close(writing)
    found = os.read(reading, 1000)
    os.close(reading)
    assert os.waitpid(child, 0)[1] == 0
    assert found.decode() == expected


def test_models_in_several_threads_have_the_bits_of_one_after_another(units):
    expected = digest()
    barrier = threading.Barrier(6)

    def run(_):
        barrier.wait()
        return [digest() for _ in range(3)]

    with ThreadPoolExecutor(6) as pool:  # each with a thread of its own, and so with its own first use
        assert list(pool.map(run, range(6))) == [[expected] * 3] * 6


LONG = Net("60-90,relu,90-90,relu,90-4,softmax")


def parameters_after(epochs, interrupted_after=None):
    """Train, perhaps until an alarm. Return the number of steps done, and the parameters' bits."""
    model, data = build(LONG, dtype="float32"), data_for(LONG, 128)
    try:
        if interrupted_after:
            signal.setitimer(signal.ITIMER_REAL, interrupted_after)
        model.train(*data, epochs=epochs, print_every=None, **BFLOAT16)
    except KeyboardInterrupt:
        assert interrupted_after
    return model.optimizer.iterations, [array.tobytes() for pair in model.get_parameters() for array in pair]


@pytest.mark.long("repeats a product until signals have met it")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_signals_that_are_handled_meanwhile_change_nothing(units):
    expected, seen = parameters_after(100), []
    kept = signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    try:
        while len(seen) < 3:
            signal.setitimer(signal.ITIMER_REAL, 3e-4, 3e-4)
            found = parameters_after(100)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert found == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


@pytest.mark.long("emulates matrix units through many steps")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_ctrl_c_leaves_whole_steps_and_the_next_training_is_right(units):
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    kept_alarm = signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        for delay in (0.01, 0.02, 0.05):
            done, found = parameters_after(1_000_000, interrupted_after=delay)
            if done:
                assert found == parameters_after(done)[1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept_alarm)
        signal.signal(signal.SIGINT, kept)


def parts_in_use():
    """Return which parts of the processor's state are in use, a bit for each, from the instruction xgetbv(1)."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        pytest.skip("the system does not let this process run what it has written")
    page.write(bytes.fromhex("b901000000 0f01d0 c3"))  # mov ecx, 1; xgetbv; ret
    return ctypes.CFUNCTYPE(ctypes.c_uint)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def test_no_call_leaves_the_units_in_use(real_units):
    settings_and_tiles = 3 << 17
    digest()
    assert not parts_in_use() & settings_and_tiles
    build(SMALL, dtype="float32").predictor("bfloat16")(data_for(SMALL, 50)[0])
    assert not parts_in_use() & settings_and_tiles
    product("output", np.ones((40, 40), np.float32), np.ones((40, 40), np.float32))
    assert not parts_in_use() & settings_and_tiles
    diverging = build(SMALL, dtype="float32")
    diverging.set(optimizer=nnx.Optimizer_SGD(1e38))
    with pytest.raises(nnx.DivergenceError):
        diverging.train(*data_for(SMALL, 100), epochs=5, print_every=None, **BFLOAT16)
    assert not parts_in_use() & settings_and_tiles


if __name__ == "__main__":
    {"beside": multiply_beside_unreadable_memory, "refused": train_refused}[sys.argv[1]](sys.argv[2])
