"""Compiled kernels flush subnormal numbers in every thread that runs them. They restore the caller's floating-point
mode, however a call ends."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import signal
import sys
import threading

import numpy as np
import pytest
from networks import classifier, mixed_spiral
from test_kernels import call
from test_memory import arrays, copies, each_call, perform, run

import nnx
from nnx import _kernels
from nnx.engine import plan

X86 = platform.machine().lower() in ("x86_64", "amd64")
#: The position in the C library's fenv_t of the control register of SSE or NEON, and its control bits.
PLACE, CONTROL = (28, 0xFFFFFFC0) if X86 else (0, 0xFFFFFFFF)
NEAREST = 0x1F80 if X86 else 0
UPWARDS, FLUSHING = (0x5F80, 0x9FC0) if X86 else (0x400000, 0x1000000)

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine().lower() not in ("x86_64", "amd64", "aarch64"),
    reason="reads the processor's mode by the layout of Linux's fenv_t",
)


class Environment:
    """The floating-point environment of the thread that asks."""

    def __init__(self):
        self._library = ctypes.CDLL(ctypes.util.find_library("m"))
        self._bytes = (ctypes.c_uint8 * 64)()
        self._word = ctypes.c_uint32.from_buffer(self._bytes, PLACE)

    def control(self):
        assert self._library.fegetenv(self._bytes) == 0
        return self._word.value & CONTROL

    def set(self, word):
        self.control()
        self._word.value = word
        assert self._library.fesetenv(self._bytes) == 0


@pytest.fixture
def environment():
    found = Environment()
    before = found.control()
    yield found
    found.set(before)


def test_the_test_reads_the_mode_that_numpy_computes_in(environment):
    assert environment.control() == NEAREST
    one, tiny = np.ones(1, np.float32), np.full(1, 1e-40, np.float32)
    assert (tiny * one)[0] > 0
    environment.set(FLUSHING)
    flushed = tiny * one
    environment.set(NEAREST)
    assert flushed[0] == 0


# Single kernels


@each_call
@pytest.mark.parametrize("mode", [NEAREST, UPWARDS, FLUSHING], ids=["nearest", "upwards", "flushing"])
def test_a_kernel_computes_the_same_in_any_mode_and_keeps_it(
    environment, compiled, dtype, mode, name, kinds, written, numbers
):
    given = arrays(kinds, dtype)
    expected = run(_kernels.backend, name, copies(given), numbers)
    made = copies(given)
    environment.set(mode)
    returned = perform(_kernels.backend, name, made, numbers)
    after = environment.control()
    environment.set(NEAREST)
    assert after == mode
    assert (returned, [array.tobytes() for array in made]) == expected


def test_subnormals_are_flushed_by_compiled_kernels_and_survive_in_numpys(backend, dtype):
    kept = backend == "numpy"
    smallest = np.finfo(dtype).smallest_subnormal
    values = (np.arange(1, 41, dtype=dtype) * smallest).reshape(5, 8)
    ones, zeros = np.ones_like(values), np.zeros_like(values)
    output = np.empty_like(values)
    call("dropout_apply", values, ones, output)
    np.testing.assert_array_equal(output, values * kept)
    call("dense_forward", values, np.eye(8, dtype=dtype), np.zeros((1, 8), dtype), output)
    np.testing.assert_array_equal(output, values * kept)
    call("dense_backward_inputs", np.eye(5, dtype=dtype), values.T.copy(), output := np.empty((5, 8), dtype))
    np.testing.assert_array_equal(output, values * kept)
    momentums = values.copy()
    call("sgd_momentum_update", output := zeros.copy(), zeros, momentums, 0.1, 1.0, (1.0,))
    np.testing.assert_array_equal(momentums, values * kept)
    np.testing.assert_array_equal(output, values * kept)
    assert call("total", values) == values.sum(dtype=np.float64) * kept


# Public calls, and every way out of them


def bad_stream(*_):
    raise OSError("no space left")


def diverging(model):
    model.set(optimizer=nnx.Optimizer_SGD(learning_rate=1e30))
    return nnx.DivergenceError


def trained(model, **arguments):
    X, y = mixed_spiral(100, 3)
    return model.train(X, y, **{"epochs": 30, "batch_size": 64, "print_every": None, **arguments})


def used(model):
    """Every public way to compute with a model."""
    X, y = mixed_spiral(20, 3)
    trained(model, threads=2)
    model.train(X, y, print_every=None)
    model.train(X, y, print_every=None)  # the repeated call
    model.evaluate(X, y, silent=True)
    model.predict(X)
    output = model.forward(X.astype(model.trainable_layers[0].weights.dtype), True)
    model.loss.calculate(output, y)
    model.backward(output, y)
    for layer in model.trainable_layers:
        model.optimizer.update_params(layer)


@pytest.mark.parametrize("mode", [NEAREST, UPWARDS, FLUSHING], ids=["nearest", "upwards", "flushing"])
def test_every_public_call_keeps_the_callers_mode(environment, dtype, mode):
    model = classifier(dropout=0.1)
    environment.set(mode)
    used(model)
    assert environment.control() == mode


def test_the_mode_is_the_callers_after_divergence(environment):
    model = classifier()
    expected = diverging(model)
    with np.errstate(all="ignore"), pytest.raises(expected):
        trained(model)
    assert environment.control() == NEAREST


def test_the_mode_is_the_callers_after_ctrl_c(environment, monkeypatch):
    monkeypatch.setattr(plan, "CALL_SECONDS", 1e-4, raising=True)
    model = classifier()
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            trained(model, epochs=10_000_000)
    finally:
        signal.signal(signal.SIGINT, kept)
        timer.join()
    assert environment.control() == NEAREST


def test_the_mode_is_the_callers_after_an_error_while_printing(environment, monkeypatch):
    monkeypatch.setattr(sys, "stdout", type("Full", (), {"write": bad_stream, "flush": bad_stream})())
    with pytest.raises(OSError, match="no space"):
        trained(classifier(), print_every=1)
    assert environment.control() == NEAREST


def test_the_mode_is_the_callers_after_a_refusal(environment, compiled):
    values = np.ones((2, 3), np.float32)
    for bad in (np.ones((2, 4), np.float32), np.ones((2, 3), np.float64), None):
        with pytest.raises((TypeError, ValueError)):
            call("relu_backward", values, bad, values)
    assert environment.control() == NEAREST


def test_other_threads_keep_their_mode_and_numpy_warns_of_nothing(environment):
    words, stop = [], threading.Event()

    def watch():
        own = Environment()
        while not stop.is_set():
            words.append(own.control())
            assert np.finfo(np.float32).smallest_subnormal > 0  # NumPy warns, an error here, where it is flushed
            assert np.float32(1e-45) * np.float32(1) != 0

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        while watcher.is_alive() and len(words) < 20:
            trained(classifier(), epochs=300, threads=2)
    finally:
        stop.set()
        watcher.join()
    assert len(words) >= 20
    assert set(words) == {NEAREST}


# Whole runs


def dying(dtype, threads):
    """Train a network with half of the hidden neurons dead. Their momentums and weights shrink to nothing."""
    np.random.seed(0)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((256, 30)).astype(dtype)
    model = nnx.Model()
    for layer in (
        nnx.Layer_Dense(30, 64, weight_regularizer_l2=5e-2), nnx.Activation_ReLU(),
        nnx.Layer_Dense(64, 64, weight_regularizer_l2=5e-2), nnx.Activation_ReLU(),
        nnx.Layer_Dense(64, 2), nnx.Activation_Softmax(),
    ):  # fmt: skip
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_SGD(0.5, momentum=0.5),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    for layer in model.trainable_layers[:2]:
        layer.biases[:, ::2] = -100
    model.train(
        X, np.arange(256) % 2, epochs=40, batch_size=256, print_every=None, shuffle=True, seed=0, threads=threads
    )
    return model


def state_of(model):
    names = ("weights", "biases", "weight_momentums", "bias_momentums")
    return np.concatenate([getattr(layer, name).ravel() for layer in model.trainable_layers for name in names])


def subnormal(values):
    return (values != 0) & (np.abs(values) < np.finfo(values.dtype).tiny)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_no_subnormal_is_left_by_training_on_any_number_of_threads(monkeypatch, compiled, planned, n_threads):
    monkeypatch.setattr(plan, "LEAST_STEP", 0)
    monkeypatch.setattr(plan, "LEAST_CALL", 0)
    small = dying(np.float32, 1)
    for layer in small.trainable_layers:
        for name in ("weights", "weight_momentums", "biases", "bias_momentums"):
            array = getattr(layer, name)
            array[np.abs(array) < 1e-3] = 1e-39
    assert subnormal(state_of(small)).any()
    rng = np.random.default_rng(1)
    small.train(rng.standard_normal((256, 30)), np.arange(256) % 2, epochs=3, print_every=None, threads=n_threads)
    assert all(planned)
    assert not subnormal(state_of(small)).any()


def test_compiled_and_numpy_agree_on_a_run_full_of_subnormals(monkeypatch, compiled):
    flushed = state_of(dying(np.float32, 1))
    monkeypatch.setattr(_kernels, "backend", _kernels.load("numpy"))
    np.testing.assert_allclose(flushed, state_of(dying(np.float32, 1)), rtol=1e-3, atol=1e-5)
