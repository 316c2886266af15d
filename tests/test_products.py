"""The kernels' numbers: matrix products and the promises about their bits, and each compiled kernel beside NumPy's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernel_calls import EVERY_CALL, UPDATES, kernel, numbers_for

from nnx import _kernels
from nnx._kernels import _numpy

pytestmark = pytest.mark.every_backend

PRODUCTS = ["dense_forward", "dense_backward_weights", "dense_backward_inputs"]
PRIMES_AND_EDGES = [71, 96, 97, 127, 128, 130, 191, 192, 193, 257]
sizes = st.one_of(st.integers(0, 70), st.sampled_from(PRIMES_AND_EDGES))
seeds = st.integers(0, 2**32 - 1)
drawn = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def compiled(backend):
    if backend == "numpy":
        pytest.skip("a promise of the compiled kernels alone")
    return _kernels.backend


def call(name, *arguments):
    return getattr(_kernels.backend, name)(*arguments)


def multiply(name, left, right):
    """Return left · right, (rows, depth) times (depth, columns), by a kernel that takes one, or none, transposed."""
    result = np.full((len(left), right.shape[1]), np.nan, left.dtype)
    if name == "dense_forward":
        call(name, left, right, np.zeros((1, right.shape[1]), left.dtype), result)
    elif name == "dense_backward_weights":
        call(name, np.ascontiguousarray(left.T), right, np.ones_like(result), result, 0.0, 0.0)
    else:
        call(name, left, np.ascontiguousarray(right.T), result)
    return result


# Matrix products


@pytest.mark.parametrize("name", PRODUCTS)
@drawn
@given(rows=sizes, depth=sizes, columns=sizes, seed=seeds)
def test_products_are_as_exact_as_their_dtype_allows(dtype, name, rows, depth, columns, seed):
    rng = np.random.default_rng(seed)
    left, right = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, depth), (depth, columns)))
    wider = np.float64 if dtype == np.float32 else np.longdouble
    exact, magnitudes = (a.astype(wider) @ b.astype(wider) for a, b in ((left, right), (np.abs(left), np.abs(right))))
    error = np.abs(multiply(name, left, right) - exact)
    bound = 8 * max(1, depth) ** 0.5 * np.finfo(dtype).eps / 2 * magnitudes  # NumPy's own products may warn in float32
    assert (error <= bound).all()


def integers(rng, dtype, rows, depth, columns):
    """Return two matrices of small whole numbers, whose product is exact in any order of summation; and the product."""
    left, right = (rng.integers(-8, 9, shape, np.int32) for shape in ((rows, depth), (depth, columns)))
    return left.astype(dtype), right.astype(dtype), np.einsum("ik,kj->ij", left, right)


@pytest.mark.parametrize("name", PRODUCTS)
@drawn
@given(rows=sizes, depth=sizes, columns=sizes, seed=seeds)
def test_products_of_whole_numbers_are_exact(dtype, name, rows, depth, columns, seed):
    left, right, expected = integers(np.random.default_rng(seed), dtype, rows, depth, columns)
    np.testing.assert_array_equal(multiply(name, left, right), expected)


@pytest.mark.parametrize("depth", [255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 4096, 4097])
@pytest.mark.parametrize("name", PRODUCTS)
def test_deep_products_of_whole_numbers_are_exact(dtype, rng, name, depth):
    for rows, columns in [(1, 1), (1, 130), (2, 33), (3, 64), (4, 15), (7, 5), (19, 3), (32, 16), (41, 67)]:
        left, right, expected = integers(rng, dtype, rows, depth, columns)
        np.testing.assert_array_equal(multiply(name, left, right), expected, str((rows, columns)))


@pytest.mark.parametrize("name", PRODUCTS)
def test_wide_and_tall_products_and_those_of_small_depth_of_whole_numbers_are_exact(dtype, rng, name):
    wide, tall = [(5, 13, 520), (13, 1027, 515)], [(520, 13, 5), (1025, 300, 7)]
    large, small_depth = [(200, 270, 530), (400, 31, 600)], [(21, 1, 16), (21, 2, 64), (5, 3, 208), (130, 4, 80)]
    in_overlapping_vectors = [(21, 1, 40), (6, 2, 17), (5, 3, 90), (130, 4, 33)]
    for rows, depth, columns in wide + tall + large + small_depth + in_overlapping_vectors:
        left, right, expected = integers(rng, dtype, rows, depth, columns)
        np.testing.assert_array_equal(multiply(name, left, right), expected, str((rows, depth, columns)))


@drawn
@given(rows=sizes, n_in=sizes, n_out=sizes, seed=seeds)
@example(rows=1025, n_in=1300, n_out=33, seed=1)
@example(rows=9, n_in=1025, n_out=10, seed=2)
@example(rows=21, n_in=3, n_out=80, seed=3)
def test_biases_and_penalties_are_added_once(dtype, rows, n_in, n_out, seed):
    rng = np.random.default_rng(seed)
    inputs, weights, expected = integers(rng, dtype, rows, n_in, n_out)
    biases = rng.integers(-8, 9, (1, n_out)).astype(dtype)
    output = np.full((rows, n_out), np.nan, dtype)
    call("dense_forward", inputs, weights, biases, output)
    np.testing.assert_array_equal(output, expected + biases)
    dvalues, dweights = rng.integers(-8, 9, (rows, n_out)).astype(dtype), np.full_like(weights, np.nan)
    call("dense_backward_weights", inputs, dvalues, weights, dweights, 3.0, 2.0)
    penalty = 3 * np.where(weights < 0, -1, 1) + 4 * weights
    np.testing.assert_array_equal(dweights, inputs.T.astype(int) @ dvalues.astype(int) + penalty)


HARD_SHAPES = [(1, 3, 2), (9, 5, 7), (20, 37, 5), (20, 3, 80), (40, 21, 70), (3, 600, 17), (70, 9, 520)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("rows", "depth", "columns"), HARD_SHAPES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_nan_and_infinity_reach_their_row_and_their_column_and_no_other(dtype, rng, name, rows, depth, columns, value):
    left, right, _ = integers(rng, dtype, rows, depth, columns)
    i, j = rows // 2, columns // 3
    right[:, 0], left[0, :] = 0, 3
    without = multiply(name, left, right)
    for k in {0, *range(max(0, depth - 17), depth)}:
        in_row, in_column = without.copy(), without.copy()
        with np.errstate(invalid="ignore"):
            in_row[i], in_column[:, j] = value * right[k], value * left[:, k]
        hard_left, hard_right = left.copy(), right.copy()
        hard_left[i, k] = hard_right[k, j] = value
        np.testing.assert_array_equal(multiply(name, hard_left, right), in_row)
        np.testing.assert_array_equal(multiply(name, left, hard_right), in_column)


ALONE = [*range(1, 26), 31, 32, 33, 47, 48, 49, 63, 64, 65, 96, 97, 127, 128, 129, 191, 192, 193, 194, 255, 256, 257]
FEW, WIDE = (1, 2, 3, 4, 10, 15, 16, 17), (31, 32, 33, 64, 130)


@pytest.mark.parametrize("n_in", [1, 2, 3, 4, 15, 16, 17, 64, 300, 784, 1025])
def test_rows_have_the_same_bits_alone_and_together(compiled, dtype, rng, n_in):
    for n_out in FEW + (WIDE if n_in < 784 else (33, 130)):
        X, D = (rng.standard_normal((257, n)).astype(dtype) for n in (n_in, n_out))
        W, b = (rng.standard_normal((rows, n_out)).astype(dtype) for rows in (n_in, 1))
        for product, given_, rest, columns in [
            (compiled.dense_forward, X, (W, b), n_out),
            (compiled.dense_relu_forward, X, (W, b), n_out),
            (compiled.dense_backward_inputs, D, (W,), n_in),
        ]:
            together = np.empty((257, columns), dtype)
            product(given_, *rest, together)
            for rows in ALONE:
                first = np.empty((rows, columns), dtype)
                product(given_[:rows], *rest, first)
                assert first.tobytes() == together[:rows].tobytes(), (product.__name__, n_out, rows)
            for i in range(257):
                alone = np.empty((1, columns), dtype)
                product(given_[i : i + 1], *rest, alone)
                assert alone.tobytes() == together[i].tobytes(), (product.__name__, n_out, i)


@drawn
@given(rows=sizes, n_in=sizes, n_out=sizes, seed=seeds)
@example(rows=1025, n_in=1300, n_out=33, seed=1)
@example(rows=9, n_in=1025, n_out=10, seed=2)
@example(rows=21, n_in=3, n_out=80, seed=3)
def test_dense_relu_forward_is_relu_of_dense_forward(dtype, rows, n_in, n_out, seed):
    rng = np.random.default_rng(seed)
    X, W, b = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, n_in), (n_in, n_out), (1, n_out)))
    X[::7, :1], W[-1:, 1::5] = np.nan, -np.inf
    W[:, ::3], b[:, ::3] = 0, -0.0
    expected, output = np.empty((rows, n_out), dtype), np.empty((rows, n_out), dtype)
    call("dense_forward", X, W, b, expected)
    call("dense_relu_forward", X, W, b, output)
    np.testing.assert_array_equal(output, np.where(expected <= 0, 0, expected))


# Each compiled kernel beside NumPy's

SHAPES = [(1, 1, 1), (9, 4, 1), (300, 5, 3), (128, 20, 10), (7, 3, 100), (33, 784, 64), (1, 300, 17)]


def make(rng, dtype, name, kind, n, k, m):
    """Return an argument of a kernel, n samples, k inputs, m outputs; probabilities where it takes some."""
    shape = {"nk": (n, k), "nm": (n, m), "km": (k, m), "1m": (1, m), "n": (n,)}.get(kind)
    if shape is None:
        return rng.integers(0, min(m, 6), n)
    if "entropy" in name and name != "softmax_crossentropy":
        return rng.uniform(-0.02, 1.02, shape).astype(dtype)
    values = rng.standard_normal(shape).astype(dtype)
    return np.abs(values) if name.startswith("batch_norm") else values  # variances are among its arguments


def assert_close(ours, theirs, dtype, least=0.0):
    """Compare, with an error relative to the larger of a number and half the largest of them all."""
    relative = 4e-6 if dtype == np.float32 else 1e-14
    scale = float(np.max(np.abs(theirs), initial=least))
    np.testing.assert_allclose(ours, theirs, rtol=relative, atol=relative * scale / 2)


@pytest.mark.parametrize(("name", "inputs", "outputs", "numbers"), EVERY_CALL)
def test_compiled_kernels_compute_what_numpy_does(compiled, dtype, rng, name, inputs, outputs, numbers):
    for shape in SHAPES:
        given_ = [make(rng, dtype, name, kind, *shape) for kind in inputs]
        ours, theirs = ([np.full_like(make(rng, dtype, name, kind, *shape), -77) for kind in outputs] for _ in range(2))
        fitting = numbers_for(numbers, given_[0])
        returned = kernel(compiled, name)(*given_, *ours, *fitting)
        expected = kernel(_numpy, name)(*given_, *theirs, *fitting)
        assert type(returned) is type(expected)
        if name == "softmax_crossentropy":
            assert returned[1] == expected[1]
        if isinstance(expected, float | tuple):
            assert_close(returned, expected, dtype)
        else:
            assert returned == expected
        least = 1.0 if name.startswith("dense") else 0.0
        if name.startswith("layer_norm"):  # a row of nearly equal numbers: one difference of them is divided by another
            least = 100.0
        for our, their in zip(ours, theirs, strict=True):
            assert_close(our, their, dtype, least=least)


@pytest.mark.parametrize(("name", "n_state", "numbers"), UPDATES)
def test_compiled_updates_compute_what_numpy_does(compiled, dtype, rng, name, n_state, numbers):
    for n, k, m in SHAPES:
        ours = [make(rng, dtype, name, "nm", n, k, m) for _ in range(2 + n_state)]
        ours[2:] = [np.abs(state) for state in ours[2:]]
        theirs = [array.copy() for array in ours]
        for step in range(1, 4):
            rate, _, settings = numbers
            kernel(compiled, name)(*ours, rate, step, settings)
            kernel(_numpy, name)(*theirs, rate, step, settings)
        for our, their in zip(ours, theirs, strict=True):
            assert_close(our, their, dtype)


@pytest.mark.parametrize("columns", [*range(1, 18), 31, 33, 64, 70, 100, 130])
def test_dense_backward_biases_adds_row_after_row(backend, dtype, rng, columns):
    if backend == "numpy" and columns == 1:
        pytest.skip("NumPy adds up a single column in an order of its own")
    for rows in (0, 1, 2, 3, 8, 100, 300, 2000):
        dvalues = rng.standard_normal((rows, columns)).astype(dtype)
        expected, dbiases = np.zeros((1, columns), dtype), np.full((1, columns), np.nan, dtype)
        for row in dvalues:
            expected += row
        call("dense_backward_biases", dvalues, np.ones_like(dbiases), dbiases, 0.0, 0.0)
        assert dbiases.tobytes() == expected.tobytes(), rows


@pytest.mark.parametrize(("seed", "forwards"), [(0, 0), (1, 1), (2**63 + 5, 2**32 - 1), (2**64 - 1, 2**40)])
def test_dropout_masks_have_the_bits_of_numpy(compiled, dtype, seed, forwards):
    for rows, columns in itertools.product((0, 1, 3, 17, 150), (*range(1, 10), 64, 70)):
        for keep in (1e-12, 0.1, 0.5, 1 - 2**-33, 1.0):
            ours, theirs = np.empty((rows, columns), dtype), np.empty((rows, columns), dtype)
            compiled.dropout_mask(ours, keep, seed, forwards)
            _numpy.dropout_mask(theirs, keep, seed, forwards)
            assert ours.tobytes() == theirs.tobytes(), (rows, columns, keep)


def test_argmax_is_the_first_of_the_largest_and_nan_is_larger_than_all(dtype, rng):
    for columns in (1, 2, 3, 8, 17, 70):
        values = rng.integers(-2, 3, (400, columns)).astype(dtype)
        values[rng.random(values.shape) < 0.1] = np.nan
        values[rng.random(values.shape) < 0.1] = -np.inf
        classes = np.full(400, -1)
        call("argmax", values, classes)
        for row, found in zip(values.tolist(), classes, strict=True):
            nans = [j for j, value in enumerate(row) if value != value]
            assert found == (nans[0] if nans else row.index(max(row)))


@pytest.mark.parametrize("columns", [1, 2, 3, 8, 17, 70])
def test_softmax_crossentropy_counts_a_tie_for_the_first(dtype, rng, columns):
    inputs, labels = 1000 * rng.integers(0, 2, (400, columns)).astype(dtype), rng.integers(0, columns, 400)
    inputs[::7, columns // 2] = np.nan
    output, dinputs = np.empty_like(inputs), np.empty_like(inputs)
    _, hits = call("softmax_crossentropy", inputs, labels, output, dinputs)
    largest = [0 if any(value != value for value in row) else row.index(max(row)) for row in inputs.tolist()]
    assert hits == sum(int(a == b) for a, b in zip(largest, labels, strict=True))


def test_counts_are_counts(dtype, rng):
    for n in (0, 1, 7, 64, 1001):
        a, b = rng.integers(0, 3, n), rng.integers(0, 3, n)
        assert call("equal_count", a, b) == sum(x == y for x, y in zip(a.tolist(), b.tolist(), strict=True))
        x, y = (v.astype(dtype).reshape(-1, 1) for v in (a, b))
        x[::5] = np.nan
        near = call("near_count", x, y, 1.5)
        assert near == sum(abs(p - q) < 1.5 for p, q in zip(x[:, 0].tolist(), y[:, 0].tolist(), strict=True))
        assert call("near_count", y, y, 0.0) == 0
    labels = np.array([0, 3, 1, 4, -1, 4])
    assert [call("bad_label", labels[:n], 4) for n in range(7)] == [-1, -1, -1, -1, 3, 3, 3]
    assert (call("bad_label", labels[::-1][1:], 5), call("bad_label", labels, 0)) == (0, 0)
