"""The kernels of every backend against formulas written out here, in float64, and element by element if that is
clearer. Also the promises of all kernels: they write only outputs, and give no warnings."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_calls import ELSEWHERE, EVERY_CALL, LABELS, UPDATES, dropout_number, function_of, kernel, numbers_for

from nnx import _kernels
from nnx._kernels import _arrays, _numpy

pytestmark = pytest.mark.every_backend

sizes = st.sampled_from([1, 2, 3, 5, 7, 13, 16, 17, 31, 32, 48, 64, 97])
drawn = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def arrays(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def tolerance(dtype, terms=1):
    unit = terms**0.5 * np.finfo(dtype).eps
    return {"rtol": 64 * unit, "atol": 16 * unit}


def call(name, *arguments):
    return kernel(_kernels.backend, name)(*arguments)


def test_every_backend_has_the_kernels_of_the_specification_with_its_signatures():
    public = {name for name, thing in vars(_kernels.backend).items() if inspect.isroutine(thing) and name[0] != "_"}
    assert public >= set(_numpy.__all__)
    helpers = {
        "use",
        "offers",
        "matrix_units",
        "draw_orders",
        *("fits_together", "lanes"),
        *("share", "get_num_threads"),  # which it imports
        *_numpy.CALLS,
        *(name for name, thing in vars(_arrays).items() if inspect.isfunction(thing)),
    }
    assert _kernels.backend is _numpy or public - set(_numpy.__all__) == {name for name in helpers if name[0] != "_"}
    for name in _numpy.__all__:
        ours, theirs = (inspect.signature(getattr(module, name)) for module in (_kernels.backend, _numpy))
        assert list(ours.parameters) == list(theirs.parameters), name
        assert [p.default for p in ours.parameters.values()] == [p.default for p in theirs.parameters.values()], name


@pytest.mark.one_backend
@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has its lock")
def test_importing_the_kernels_does_not_switch_the_interpreters_lock_on():
    program = "import sys; from nnx import _kernels; [_kernels.load(name) for name in _kernels.usable]; "
    program += "print(sys._is_gil_enabled())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


@drawn
@given(n=sizes, k=sizes, m=sizes, seed=st.integers(0, 99))
def test_dense_kernels_are_the_products(dtype, n, k, m, seed):
    X, W, b, d = arrays(seed, dtype, (n, k), (k, m), (1, m), (n, m))
    X64, W64, b64, d64 = (a.astype(np.float64) for a in (X, W, b, d))
    output, dweights, dbiases, dinputs = np.empty_like(d), np.empty_like(W), np.empty_like(b), np.empty_like(X)
    call("dense_forward", X, W, b, output)
    call("dense_backward_weights", X, d, W, dweights, 0.1, 0.2)
    call("dense_backward_biases", d, b, dbiases, 0.3, 0.4)
    call("dense_backward_inputs", d, W, dinputs)
    np.testing.assert_allclose(output, X64 @ W64 + b64, **tolerance(dtype, k))
    sign = np.where(W64 < 0, -1, 1)
    np.testing.assert_allclose(dweights, X64.T @ d64 + 0.1 * sign + 0.4 * W64, **tolerance(dtype, n))
    np.testing.assert_allclose(
        dbiases, d64.sum(axis=0, keepdims=True) + 0.3 * np.where(b64 < 0, -1, 1) + 0.8 * b64, **tolerance(dtype, n)
    )
    np.testing.assert_allclose(dinputs, d64 @ W64.T, **tolerance(dtype, m))


def test_l1_gradient_of_plus_and_minus_zero_is_plus_one(dtype):
    weights = np.array([[0.0, -0.0, -1.0, 2.0]], dtype)
    dweights = np.empty_like(weights)
    call("dense_backward_weights", np.zeros((1, 1), dtype), np.zeros((1, 4), dtype), weights, dweights, 0.5, 0.0)
    np.testing.assert_array_equal(dweights, [[0.5, 0.5, -0.5, 0.5]])


@drawn
@given(n=sizes, m=sizes, seed=st.integers(0, 99))
def test_activation_kernels_are_their_formulas(dtype, n, m, seed):
    x, d = arrays(seed, dtype, (n, m), (n, m))
    x64, d64 = x.astype(np.float64), d.astype(np.float64)
    out, dx = np.empty_like(x), np.empty_like(x)
    call("relu_forward", x, out)
    call("relu_backward", out, d, dx)
    np.testing.assert_array_equal(out, np.where(x > 0, x, 0))
    np.testing.assert_array_equal(dx, np.where(x > 0, d, 0))
    call("sigmoid_forward", x, out)
    call("sigmoid_backward", out, d, dx)
    s = 1 / (1 + np.exp(-x64))
    np.testing.assert_allclose(out, s, **tolerance(dtype))
    np.testing.assert_allclose(dx, d64 * (1 - s) * s, **tolerance(dtype))
    call("softmax_forward", x, out)
    call("softmax_backward", out, d, dx)
    p = np.exp(x64) / np.exp(x64).sum(axis=1, keepdims=True)
    jacobian = np.einsum("ij,jk->ijk", p, np.eye(m)) - np.einsum("ij,ik->ijk", p, p)
    np.testing.assert_allclose(out, p, **tolerance(dtype, m))
    np.testing.assert_allclose(dx, np.einsum("ijk,ik->ij", jacobian, d64), **tolerance(dtype, m))
    call("linear_backward", d, d, dx)
    np.testing.assert_array_equal(dx, d)


@drawn
@given(n=sizes, m=sizes, seed=st.integers(0, 99))
def test_loss_kernels_are_their_formulas(dtype, n, m, seed):
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.05, 0.95, (n, m)).astype(dtype)
    y = rng.integers(0, 2, (n, m)).astype(dtype)
    labels = rng.integers(0, m, n)
    losses, dp = np.empty(n, dtype), np.empty_like(p)
    close = tolerance(dtype, m)

    call("categorical_crossentropy_forward", p, labels, losses, (0.0, 1e-7))
    call("categorical_crossentropy_backward", p, labels, dp, (0.0, 1e-7))
    np.testing.assert_allclose(losses, [-math.log(p[i, labels[i]]) for i in range(n)], **close)
    expected = np.zeros((n, m), np.float64)
    for i in range(n):
        expected[i, labels[i]] = -1 / float(p[i, labels[i]]) / n
    np.testing.assert_allclose(dp, expected, **close)

    call("softmax_categorical_backward", p, labels, dp, (0.0, 1e-7))
    np.testing.assert_allclose(dp, (p - np.identity(m)[labels]) / n, **close)

    call("binary_crossentropy_forward", p, y, losses, (0.0, 1e-7, 1.0))
    call("binary_crossentropy_backward", p, y, dp, (0.0, 1e-7, 1.0))
    right = np.where(y == 1, p, 1 - p).astype(np.float64)
    np.testing.assert_allclose(losses, -np.log(right).mean(axis=1), **close)
    np.testing.assert_allclose(dp, np.where(y == 1, -1, 1) / right / (n * m), **close)
    call("sigmoid_binary_backward", p, y, dp, (0.0, 1e-7, 1.0))
    np.testing.assert_allclose(dp, (p.astype(np.float64) - y) / (n * m), **close)

    difference = p.astype(np.float64) - y
    call("mean_squared_error_forward", p, y, losses, (1.0,))
    call("mean_squared_error_backward", p, y, dp, (1.0,))
    np.testing.assert_allclose(losses, (difference**2).mean(axis=1), **close)
    np.testing.assert_allclose(dp, 2 * difference / (n * m), **close)
    call("mean_absolute_error_forward", p, y, losses)
    call("mean_absolute_error_backward", p, y, dp)
    np.testing.assert_allclose(losses, np.abs(difference).mean(axis=1), **close)
    np.testing.assert_allclose(dp, np.sign(difference) / (n * m), **close)


def test_total_and_regularization_loss_sum_in_double():
    values = np.full(1_000_000, 0.1, np.float32)
    exact = float(np.float32(0.1)) * 1_000_000
    assert call("total", values) == pytest.approx(exact, rel=1e-12)
    assert call("regularization_loss", values, 2.0, 0.0) == pytest.approx(2 * exact, rel=1e-12)
    square = float(np.float32(0.1)) ** 2 * 1_000_000
    assert call("regularization_loss", -values, 0.0, 3.0) == pytest.approx(3 * square, rel=1e-12)


def oracle_step(kind, w, g, m, c, t):
    """One step of each optimizer in float64, written as in the papers; rate 0.01."""
    if kind == "sgd":
        return w - 0.01 * g, m, c
    if kind == "sgd_momentum":
        m = 0.9 * m - 0.01 * g
        return w + m, m, c
    if kind == "adagrad":
        c = c + g * g
    elif kind == "rmsprop":
        c = 0.8 * c + 0.2 * g * g
    else:
        m, c = 0.9 * m + 0.1 * g, 0.99 * c + 0.01 * g * g
        return w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(c / (1 - 0.99**t)) + 1e-7), m, c
    return w - 0.01 * g / (np.sqrt(c) + 1e-7), m, c


@pytest.mark.parametrize("kind", ["sgd", "sgd_momentum", "adagrad", "rmsprop", "adam"])
def test_optimizer_kernels_follow_a_double_oracle_over_many_steps(dtype, rng, kind):
    w = rng.standard_normal((13, 7)).astype(dtype)
    m, c = np.zeros_like(w), np.zeros_like(w)
    oracle = [a.astype(np.float64) for a in (w, m, c)]
    for step in range(1, 101):
        g = rng.standard_normal(w.shape).astype(dtype)
        states, settings = {
            "sgd": ((), ()),
            "sgd_momentum": ((m,), (0.9,)),
            "adagrad": ((c,), (1e-7,)),
            "rmsprop": ((c,), (1e-7, 0.8)),
            "adam": ((m, c), (1e-7, 0.9, 0.99, 0.0)),
        }[kind]
        call(f"{kind}_update", w, g, *states, 0.01, step, settings)
        oracle = oracle_step(kind, oracle[0], g.astype(np.float64), *oracle[1:], step)
    for given_, expected in zip((w, m, c), oracle, strict=True):
        np.testing.assert_allclose(given_, expected, rtol=200 * np.finfo(dtype).eps, atol=200 * np.finfo(dtype).eps)


# Dropout


@drawn
@given(n=sizes, m=sizes, keep=st.floats(0.05, 1), forwards=st.integers(0, 2**40))
def test_dropout_mask_holds_only_zero_and_the_inverse_of_keep(dtype, n, m, keep, forwards):
    mask = np.empty((n, m), dtype)
    call("dropout_mask", mask, keep, 42, forwards)
    assert set(np.unique(mask)) <= {dtype.type(0), dtype.type(1 / keep)}


def test_dropout_mask_keeps_the_asked_part(dtype):
    for keep in (0.1, 0.5, 0.9):
        mask = np.empty((1000, 1000), dtype)
        call("dropout_mask", mask, keep, 7, 0)
        assert np.count_nonzero(mask) / mask.size == pytest.approx(keep, abs=5 * math.sqrt(keep * (1 - keep) / 1e6))


@pytest.mark.parametrize("keep", [0.5, 0.3])
def test_dropout_mask_is_philox_at_each_place(dtype, keep):
    mask = np.empty((3, 18), dtype)
    seed, forwards = 0x123456789ABCDEF0, 2**33 + 5
    call("dropout_mask", mask, keep, seed, forwards)
    for row in range(3):
        for column in range(18):
            number = dropout_number(row, column, seed, forwards)
            assert (mask[row, column] > 0) == (number < round(keep * 2**32))


def test_dropout_mask_goes_by_the_lower_half_where_the_upper_one_is_the_limits(dtype):
    for (row, column), seed, forwards in (((5, 9), 11, 6), ((40, 63), 2**64 - 1, 2**40), ((63, 2), 7, 2**32 - 1)):
        number = dropout_number(row, column, seed, forwards)
        for threshold, kept in ((number, False), (number + 1, True)):
            mask = np.empty((64, 67), dtype)
            call("dropout_mask", mask, threshold / 2**32, seed, forwards)
            assert (mask[row, column] > 0) == kept


def test_dropout_mask_of_a_cell_does_not_depend_on_the_size_of_the_batch(dtype):
    large, small = np.empty((2000, 70), dtype), np.empty((3, 70), dtype)
    call("dropout_mask", large, 0.6, 9, 4)
    call("dropout_mask", small, 0.6, 9, 4)
    np.testing.assert_array_equal(large[:3], small)


def test_dropout_mask_differs_between_forwards_and_seeds(dtype):
    masks = []
    for seed, forwards in ((1, 0), (1, 1), (2, 0), (1, 2**32), (1 + 2**32, 0)):
        masks.append(np.empty((16, 16), dtype))
        call("dropout_mask", masks[-1], 0.5, seed, forwards)
    for i, first in enumerate(masks):
        assert not any(np.array_equal(first, other) for other in masks[:i])


# What all kernels promise

SHAPES = {"nk": (6, 5), "nm": (6, 4), "km": (5, 4), "1m": (1, 4), "n": (6,)}


def test_the_calls_below_cover_every_kernel():
    labels = [name for name, *_ in (*EVERY_CALL, *UPDATES)]
    assert {function_of(name) for name in labels} | ELSEWHERE == set(_numpy.__all__)
    assert set(LABELS) <= set(labels)


def test_every_backend_has_the_same_tables():
    """Otherwise, a formula that is missing in one of them, or reads or keeps something else, would show only in use."""
    ours, theirs = _kernels.backend._formulas(), _numpy._formulas()
    assert ours.keys() == theirs.keys()
    for kind in ours:
        assert ours[kind].keys() == theirs[kind].keys()
        for name, row in theirs[kind].items():
            assert row.items() <= ours[kind][name].items(), name


def make(shape, dtype, fill):
    if shape in ("labels", "classes"):
        return np.array([0, 1, 2, 3, 0, 1], np.intp)
    values = np.empty(SHAPES[shape], dtype)
    values.ravel()[:] = np.resize(np.array(fill, dtype), values.size)
    return values


@pytest.mark.parametrize(("name", "inputs", "outputs", "numbers"), EVERY_CALL)
def test_kernels_leave_their_inputs_alone(dtype, name, inputs, outputs, numbers):
    given_ = [make(shape, dtype, [0.1, 0.5, -0.3, 0.9]) for shape in inputs]
    kept = [array.copy() for array in given_]
    call(name, *given_, *[make(shape, dtype, [0]) for shape in outputs], *numbers_for(numbers, given_[0]))
    for array, copy in zip(given_, kept, strict=True):
        np.testing.assert_array_equal(array, copy)


HARD = [np.nan, np.inf, -np.inf, 1e38, -1e38, 1e-45, 0.0, -1000.0, 1000.0, 1.0]


@pytest.mark.parametrize(("name", "inputs", "outputs", "numbers"), EVERY_CALL)
def test_kernels_never_warn_and_never_raise_on_hard_numbers(dtype, name, inputs, outputs, numbers):
    with np.errstate(all="raise"):
        given_ = [make(s, dtype, HARD) for s in inputs]
        call(name, *given_, *[make(s, dtype, [0]) for s in outputs], *numbers_for(numbers, given_[0]))


@pytest.mark.parametrize(("name", "n_state", "numbers"), UPDATES)
def test_update_kernels_never_warn_and_write_only_parameter_and_state(dtype, name, n_state, numbers):
    gradients = make("nm", dtype, HARD)
    kept = gradients.copy()
    with np.errstate(all="raise"):
        call(name, make("nm", dtype, [1]), gradients, *[make("nm", dtype, [0]) for _ in range(n_state)], *numbers)
    np.testing.assert_array_equal(gradients, kept)


def test_nan_and_infinity_pass_through(dtype):
    x = np.array([[np.nan, np.inf, -np.inf, -0.0]], dtype)
    out = np.empty_like(x)
    call("relu_forward", x, out)
    np.testing.assert_array_equal(out, np.array([[np.nan, np.inf, 0, 0]]))
    call("relu_backward", x, np.full_like(x, np.inf), out)
    np.testing.assert_array_equal(out, [[np.inf, np.inf, 0, 0]])
    call("sigmoid_forward", x, out)
    np.testing.assert_array_equal(out, np.array([[np.nan, 1, 0, 0.5]]))
    call("softmax_forward", np.array([[np.nan, 1, 2, 3]], dtype), out)
    assert np.isnan(out).all()
