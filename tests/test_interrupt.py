"""Ctrl-C during training: the current step is finished, its results are kept, the caller gets KeyboardInterrupt."""

from __future__ import annotations

import ctypes
import dis
import os
import signal
import sys
import threading

import numpy as np
import pytest
from networks import classifier, mixed_spiral, parameters_of
from plans import Book, Net, build, data_for

import nnx
from nnx._base.interrupt import Interrupt
from nnx.engine import plan

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to this process")


@pytest.fixture(autouse=True)
def pythons_own_reaction():
    """A program's handler at its start. A background program ignores Ctrl-C instead."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


class Impatient_Adam(nnx.Optimizer_Adam):
    """Presses Ctrl-C in the given step, after the update of the first of two layers."""

    step = 0

    def update_params(self, layer):
        super().update_params(layer)
        if self.iterations == self.step and not self.pressed:
            self.pressed = True
            press_ctrl_c()

    pressed = False


def interrupted(step, **arguments):
    np.random.seed(0)
    X, y = mixed_spiral(20, 3)
    model = classifier(dropout=0.1)
    model.set(optimizer=Impatient_Adam(0.05))
    model.optimizer.step = step
    with pytest.raises(KeyboardInterrupt):
        model.train(X, y, epochs=10, batch_size=20, print_every=None, **arguments)
    return model, X, y


def test_the_step_under_way_is_finished():
    model, X, y = interrupted(4)
    assert model.optimizer.iterations == 5
    np.random.seed(0)
    mixed_spiral(20, 3)
    twin = classifier(dropout=0.1)
    twin.set(optimizer=Impatient_Adam(0.05))  # so that both take the book path
    twin.optimizer.pressed = True
    twin.train(X[:20], y[:20], print_every=None)
    for part in (slice(20, 40), slice(40, 60), slice(0, 20), slice(20, 40)):
        twin.train(X[part], y[part], print_every=None)
    assert parameters_of(model) == parameters_of(twin)


def test_the_history_holds_what_was_done_and_training_can_go_on():
    model, X, y = interrupted(4)
    assert repr(model.history) == "History(epochs=1, steps=5)"
    model.train(X, y, print_every=None)
    assert model.optimizer.iterations == 6


def test_validation_after_an_interrupted_epoch_does_not_swallow_it():
    model, _, _ = interrupted(2, validation_data=(np.ones((3, 2)), [0, 1, 2]))
    assert model.optimizer.iterations == 3


def test_the_handler_of_the_program_is_back_afterwards():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    interrupted(1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    classifier().train(np.ones((3, 2)), [0, 1, 2], print_every=None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_programs_own_is_left_in_place(monkeypatch):
    seen = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        model = classifier()
        model.set(optimizer=Impatient_Adam(0.05))
        model.train(np.ones((3, 2)), [0, 1, 2], epochs=3, print_every=None)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen == [signal.SIGINT]
    assert model.optimizer.iterations == 3


def test_a_second_ctrl_c_does_not_wait():
    class Hanging(nnx.Activation_ReLU):
        def forward(self, inputs, training):
            press_ctrl_c()
            press_ctrl_c()
            pytest.fail("the second Ctrl-C waited")

    model = nnx.Model()
    model.add(Hanging())
    model.add(nnx.Layer_Dense(2, 3))
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    with pytest.raises(KeyboardInterrupt):
        model.train(np.ones((2, 2)), np.ones((2, 3)), print_every=None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_works_in_a_thread():
    model = classifier()
    worker = threading.Thread(target=lambda: model.train(np.ones((3, 2)), [0, 1, 2], print_every=None))
    worker.start()
    worker.join()
    assert model.optimizer.iterations == 1


# Exceptions from elsewhere: handlers of other signals, and exceptions that one thread raises in another

NNX = os.path.dirname(nnx.__file__)
NET = Net("2-9,relu,dropout,9-8,relu,8-3,softmax")
BATCH = {"batch_size": 10, "print_every": None}


class Elsewhere(BaseException):
    pass


#: An instruction that does nothing, from Python 3.14 on: nothing is raised there, and no handler covers it.
NOT_TAKEN = dis.opmap.get("NOT_TAKEN")


def raising_before(number, call):
    """Make a call, and raise before one of the instructions of nnx's Python code. Return their number."""
    passed = 0

    def trace(frame, event, argument):
        nonlocal passed
        if not frame.f_code.co_filename.startswith(NNX):
            return None
        frame.f_trace = trace  # else Python 3.13 and newer see no instructions yet
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode" and (NOT_TAKEN is None or frame.f_code.co_code[frame.f_lasti] != NOT_TAKEN):
            passed += 1
            if passed == number:
                raise Elsewhere
        return trace

    sys._getframe().f_trace_opcodes = True  # 3.12 sees none unless it was asked for them before
    sys.settrace(trace)
    try:
        call()
    except Elsewhere:
        assert passed == number
    finally:
        sys.settrace(None)
        Interrupt.entered.clear()
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return passed


def state_of(model):
    names = ("weights", "biases", "weight_momentums", "weight_cache", "bias_momentums", "bias_cache")
    return [np.copy(getattr(layer, name, 0)).tobytes() for layer in model.trainable_layers for name in names]


def states_after_each_step(kind, optimizer, X, y, epochs):
    """Return parameters and state after 0, 1, 2 ... steps of an uninterrupted training in batches of 10."""
    model = build(NET, optimizer, kind)
    found = [state_of(model)]
    for _ in range(epochs):
        for start in range(0, len(X), 10):
            model.train(X[start : start + 10], y[start : start + 10], print_every=None)
            found.append(state_of(model))
    return found


def assert_whole_steps(model, states, n_batches):
    """Compare parameters, state, count and history of a model with each other."""
    done = model.optimizer.iterations
    if done:  # an optimizer's state begins as zeros, which are there a little earlier
        assert state_of(model) == states[done]
    assert [p.tobytes() for pair in model.get_parameters() for p in pair] == parameters_in(states[done])
    history = model.history or nnx.History()
    assert {len(column) for name, column in history.to_dict().items() if name.startswith("step_")} == {done}
    own = ("loss", "data_loss", "regularization_loss", "accuracy", "learning_rate")
    assert {len(getattr(history, name)) for name in own} == {done // n_batches}


def parameters_in(state):
    return [array for number, array in enumerate(state) if number % 6 < 2]


@pytest.mark.few
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_an_exception_at_any_instruction_leaves_whole_steps_that_are_counted(backend, monkeypatch, kind, optimizer):
    if backend == "numpy":
        pytest.skip("kernels in Python can be interrupted themselves")
    X, y = data_for(NET, 25)
    states = states_after_each_step(kind, optimizer, X, y, 3)
    monkeypatch.setattr(plan, "MOST_STEPS", 4)
    monkeypatch.setattr(plan, "CALL_SECONDS", 1e6)  # so that a busy machine makes no shorter calls
    steps, number, done = max(1, raising_before(-1, lambda: build_and_train(kind, optimizer, X, y)) // 120), 1, []
    while True:
        model = build(NET, optimizer, kind)
        passed = raising_before(number, lambda model=model: model.train(X, y, epochs=3, **BATCH))
        assert_whole_steps(model, states, 3)
        done.append(model.optimizer.iterations)
        if passed < number:
            break
        number += steps
    assert set(done) == set(range(0, 10, 4) if kind is nnx.Model else range(10)) | {9}


def build_and_train(kind, optimizer, X, y):
    build(NET, optimizer, kind).train(X, y, epochs=3, **BATCH)


def test_an_exception_while_ctrl_c_is_put_off_leaves_pythons_own_reaction():
    seen = raising_before(-1, Interrupt().__enter__)
    assert seen > 20
    for number in range(1, seen - 2):  # the last instructions return: nothing is raised there but by this trace
        after = []

        def enter(number=number, after=after):
            try:
                Interrupt().__enter__()
            finally:
                after.extend([signal.getsignal(signal.SIGINT), list(Interrupt.entered)])

        raising_before(number, enter)
        assert after == [signal.default_int_handler, []]


@pytest.mark.few
@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("way", ["a signal handler", "another thread"])
def test_a_deadline_leaves_whole_steps_that_are_counted(backend, kind, way):
    if backend == "numpy":
        pytest.skip("kernels in Python can be interrupted themselves")
    X, y = data_for(NET, 25)

    def expire(number, frame):
        raise Elsewhere

    before = signal.signal(signal.SIGALRM, expire)
    try:
        for number in range(12):
            model = build(NET, "momentum", kind)
            seconds = 0.003 + 0.0071 * number
            timer = threading.Timer(seconds, raise_in, [threading.get_ident()])
            with pytest.raises(Elsewhere):
                begin_and_train_for_ever(seconds if way == "a signal handler" else timer, model, X, y)
            if way != "a signal handler":
                timer.join()
            done, history = model.optimizer.iterations, model.history or nnx.History()
            assert len(history) == done
            assert len(history.loss) == done // 3
            twin = build(NET, "momentum", kind)
            if done // 3:
                twin.train(X, y, epochs=done // 3, **BATCH)
            for start in range(0, done % 3 * 10, 10):
                twin.train(X[start : start + 10], y[start : start + 10], print_every=None)
            assert parameters_of(model) == parameters_of(twin)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def begin_and_train_for_ever(deadline, model, X, y):
    if isinstance(deadline, threading.Timer):
        deadline.start()  # it may be held up there until it is time
    else:
        signal.setitimer(signal.ITIMER_REAL, deadline)
    model.train(X, y, epochs=10_000_000, **BATCH)


def raise_in(thread):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Elsewhere))


def test_a_repeated_step_runs_no_python_code_between_its_update_and_its_count(compiled):
    X, y = data_for(NET, 25)
    model = build(NET)
    X = X.astype("f8")
    for _ in range(3):
        model.train(X, y, print_every=None)
    called = []
    sys.setprofile(lambda frame, event, argument: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        model.train(X, y, print_every=None)
    finally:
        sys.setprofile(None)
    assert model.optimizer.iterations == 4
    assert "__setattr__" not in called


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_the_history_can_be_read_at_any_moment_of_a_training(kind):
    X, y = data_for(NET, 25)
    model, stop, seen = build(NET, "momentum", kind), threading.Event(), []

    def read():
        while not stop.is_set():
            history = model.history or nnx.History()
            seen.append((len(history.step_loss), len(history.loss), len(history)))

    def read_in_a_handler(number, frame):
        assert len(model.history.step_loss if model.history else []) >= 0

    readers = [threading.Thread(target=read) for _ in range(2)]
    before = signal.signal(signal.SIGALRM, read_in_a_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        for reader in readers:
            reader.start()
        model.train(X, y, epochs=400, **BATCH)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stop.set()
        for reader in readers:
            reader.join()
    assert len(seen) > 2
    assert (len(model.history.loss), len(model.history.step_loss)) == (400, 1200)
    twin = build(NET, "momentum", kind)
    twin.train(X, y, epochs=400, **BATCH)
    assert model.history.to_dict() == twin.history.to_dict()
