"""A plan's bits do not depend on how it runs: on one thread or several, in one call or many, printing or not. Also
Ctrl-C, other threads, memory, and the number of threads.
"""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from networks import parameters_of
from plans import OPTIMIZERS, PENALTIES, Net, bits, build, data_for, left_behind, train

import nnx
from nnx.engine import plan, program

CLASSIFIER = Net("2-64,relu,dropout,64-3,softmax")
TINY = Net("2-3,relu,dropout,3-2,softmax")

#: Narrow and wide, with dropout and without, and one with more columns than a row panel takes at a time.
EVERY_KIND = [
    CLASSIFIER,
    Net("1-64,relu,64-1,linear", "squared", "near"),
    Net("3-200,sigmoid,200-4,dropout,softmax"),
    Net("dropout,17-33,relu,dropout,33-5,softmax"),
    Net("40-70,relu,70-24,sigmoid,24-9,sigmoid", "binary", "cells"),
    Net("20-1030,relu,1030-12,softmax"),
]
#: Networks whose gradients are computed by groups of rows, if a batch has a thousand rows.
GROUPED = [
    Net("1-64,relu,64-64,relu,64-1,linear", "squared", "near"),
    Net("5-20,relu,dropout,20-33,sigmoid,33-3,softmax"),
]
each_kind = pytest.mark.parametrize("net", EVERY_KIND, ids=str)
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
penalties = pytest.mark.parametrize("dense", [{}, PENALTIES], ids=["plain", "penalties"])

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals and forks as POSIX has them")


@pytest.fixture
def calls(monkeypatch):
    """Return a list of the numbers of threads in each compiled call."""
    found = []
    run = plan.run_threads

    def recording(native, n_threads):
        found.append(n_threads)
        return run(native, n_threads)

    monkeypatch.setattr(plan, "run_threads", recording)
    return found


@pytest.fixture
def threaded(monkeypatch, compiled, calls):
    """Use threads for steps of any size. Return a list of the numbers of threads in each compiled call."""
    monkeypatch.setattr(plan, "LEAST_STEP", 0)
    monkeypatch.setattr(plan, "LEAST_CALL", 0)
    monkeypatch.setattr(plan, "LEAST_ROWS", 1)
    return calls


@pytest.fixture
def no_thread_left():
    before = threading.enumerate()
    yield
    assert threading.enumerate() == before


def ragged(net, optimizer="Adam", dtype="float32", dense=None, **arguments):
    """Train for seven epochs of four steps, the last step smaller. Return the bits of the state after it."""
    model = build(net, optimizer, dtype=dtype, **(dense or {}))
    return bits(train(model, *data_for(net, 50), **{"epochs": 7, "batch_size": 15, **arguments}))


# The same bits


@pytest.mark.few
@each_kind
@each_optimizer
@penalties
def test_bits_do_not_depend_on_the_number_of_threads(threaded, no_thread_left, net, optimizer, dense):
    expected = ragged(net, optimizer, dense=dense, threads=1)
    for threads in (2, 3, 4):
        threaded.clear()
        assert ragged(net, optimizer, dense=dense, threads=threads) == expected
        assert set(threaded) == {threads}


@pytest.mark.parametrize("n", [1, 2, 17, 257, 700])
@each_kind
def test_bits_do_not_depend_on_threads_for_batches_of_any_size(threaded, net, n):
    expected, *found = (
        bits(train(build(net, dtype="float64"), *data_for(net, n), epochs=2, threads=threads)) for threads in (1, 2, 4)
    )
    assert found == [expected, expected]
    assert set(threaded) == {1, min(2, n), min(4, n)}


def trained_with_embedding(threads, clip_norm, seed=4):
    """Train with two columns of 3 and 4 categories. Return the bits of the state after it."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(90, 2)), rng.integers(0, 3, 90), rng.integers(0, 4, 90)])
    model = nnx.Model()
    embedding, dense = nnx.Layer_Embedding(4, [2, 3], [3, 4], 3), nnx.Layer_Dense(8, 2)
    embedding.weights[:], dense.weights[:] = rng.normal(size=(7, 3)), rng.normal(size=(8, 2))
    for layer in (embedding, dense, nnx.Activation_Softmax()):
        model.add(layer)
    optimizer = nnx.Optimizer_Adam(learning_rate=0.05, clip_norm=clip_norm)
    model.set(loss=nnx.Loss_CategoricalCrossentropy(), optimizer=optimizer, accuracy=nnx.Accuracy_Categorical())
    model.finalize()
    return bits(train(model, X, rng.integers(0, 2, 90), epochs=4, batch_size=40, threads=threads))


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_bits_do_not_depend_on_threads_that_share_out_an_embedding(threaded, clip_norm):
    """Of seven rows of weights, several threads have some of one column's categories, and some of the other's."""
    found = [trained_with_embedding(threads, clip_norm) for threads in (1, 2, 3, 4, 10)]
    assert found[1:] == found[:1] * 4
    assert set(threaded) == {1, 2, 3, 4, 10}


@pytest.mark.parametrize("net", GROUPED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_bits_do_not_depend_on_threads_where_gradients_are_added_up_group_by_group(threaded, net, dtype, clip_norm):
    """Batches of eight groups of rows, then of three: some threads have pairs of groups whole, others parts of them."""
    data = data_for(net, 1301)
    found = []
    for threads in (1, 2, 3, 4, 6, 16):
        model = build(net, dtype=dtype, **PENALTIES)
        model.optimizer.clip_norm = clip_norm
        found.append(bits(train(model, *data, epochs=2, batch_size=1000, shuffle=True, seed=1, threads=threads)))
    assert found[1:] == found[:1] * 5
    assert set(threaded) == {1, 2, 3, 4, 6, 16}


def test_bits_do_not_depend_on_threads_with_shuffling_frozen_layers_and_validation(threaded):
    net = Net("17-33,relu,dropout,33-20,relu,20-5,softmax")
    X, y = data_for(net, 100)
    found = []
    for threads in (1, 2, 3):
        model = build(net)
        model.trainable_layers.pop(1)
        arguments = {"epochs": 5, "batch_size": 32, "shuffle": True, "validation_data": (X[:9], y[:9])}
        found.append(bits(train(model, X, y, threads=threads, **arguments)))
    assert found[1:] == found[:1] * 2
    assert set(threaded) == {1, 2, 3}


@each_kind
@each_optimizer
@penalties
def test_bits_do_not_depend_on_how_many_steps_run_in_a_call(compiled, monkeypatch, net, optimizer, dense):
    expected = ragged(net, optimizer, dense=dense)
    for most in (1, 3):
        monkeypatch.setattr(plan, "MOST_STEPS", most)
        assert ragged(net, optimizer, dense=dense) == expected


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("most", [1, 50])
def test_bits_do_not_depend_on_how_many_orders_are_drawn_for_a_call(compiled, monkeypatch, shuffle, most):
    expected = ragged(CLASSIFIER, shuffle=shuffle, seed=2)
    monkeypatch.setattr(plan, "MOST_IN_ORDER", most)
    assert ragged(CLASSIFIER, shuffle=shuffle, seed=2) == expected


@each_kind
def test_bits_do_not_depend_on_what_is_shown(capsys, net):
    expected = ragged(net)
    for arguments in ({"print_every": 1}, {"print_every": 7}, {"progress": True}, {"print_every": 1, "progress": True}):
        assert ragged(net, **arguments) == expected, arguments


@each_kind
@each_optimizer
@penalties
def test_seven_epochs_leave_the_bits_of_seven_times_one_epoch(net, optimizer, dense):
    """The last step of each training publishes. It computes the same as the others."""
    at_once = ragged(net, optimizer, dense=dense)
    model = build(net, optimizer, dtype="float32", **dense)
    histories = [model.train(*data_for(net, 50), batch_size=15, print_every=None) for _ in range(7)]
    np.random.seed(3)
    one_by_one = bits(left_behind(model))
    own = [name for name in at_once if not name.startswith("history.")]
    assert {name: one_by_one[name] for name in own} == {name: at_once[name] for name in own}
    for name in ("step_loss", "loss", "step_accuracy", "regularization_loss", "step_learning_rate"):
        column = np.concatenate([getattr(history, name) for history in histories])
        assert column.tobytes() == at_once[f"history.{name}"], name


@pytest.mark.parametrize("net", GROUPED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_epochs_leave_the_bits_of_two_times_one_where_groups_are_taken_in_several_parts(net, dtype):
    """The step that publishes has more stages, so that fewer rows would go together."""
    data = data_for(net, 4000)
    at_once, twice = (build(net, dtype=dtype) for _ in range(2))
    at_once.train(*data, epochs=2, print_every=None)
    for _ in range(2):
        twice.train(*data, print_every=None)
    assert parameters_of(twice) == parameters_of(at_once)


@each_kind
def test_a_copy_and_a_pickle_of_a_trained_model_train_on_to_the_same_bits(net):
    X, y = data_for(net, 50)
    model = build(net)
    train(model, X, y, batch_size=15)
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    used = [model.predict(X).tobytes()] * 2
    assert [twin.predict(X).tobytes() for twin in twins] == used
    expected = bits(train(model, X, y, epochs=2, batch_size=15))
    assert [bits(train(twin, X, y, epochs=2, batch_size=15)) for twin in twins] == [expected, expected]


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_system_that_gives_no_more_threads_changes_no_bit(threaded, monkeypatch, allowed):
    expected = ragged(EVERY_KIND[3], threads=1)
    start = threading.Thread.start
    started = []

    def refusing(self):
        if len(started) == allowed:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(plan, "CALL_SECONDS", 1000)
    monkeypatch.setattr(threading.Thread, "start", refusing)
    assert ragged(EVERY_KIND[3], threads=4) == expected
    assert len(started) == allowed


def test_an_interrupted_start_of_threads_leaves_none_behind_and_changes_nothing(threaded, monkeypatch):
    start = threading.Thread.start
    started = []

    def interrupted(self):
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(self)
        start(self)

    data = data_for(CLASSIFIER, 50)
    expected = bits(train(build(CLASSIFIER), *data))
    model = build(CLASSIFIER)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.train(*data, print_every=None, threads=4)
    alive = [thread for thread in started if thread.is_alive()]
    monkeypatch.setattr(threading.Thread, "start", start)
    assert (model.optimizer.iterations, len(model.history)) == (0, 0)
    assert bits(train(model, *data, threads=4)) == expected
    assert alive == []


FAILING_THREADS = """
import sys, threading
import numpy as np
import nnx
from nnx.engine import plan

plan.LEAST_STEP = plan.LEAST_CALL = 0
plan.LEAST_ROWS = 1
begun = 0

def trained(threads):
    np.random.seed(0)
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(3, 20), nnx.Activation_ReLU(), nnx.Layer_Dense(20, 5), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    X = np.random.rand(60, 3).astype("f4")
    model.train(X, np.arange(60) % 5, epochs=20, batch_size=16, print_every=None, threads=threads, shuffle=True, seed=1)
    return [array.tobytes() for pair in model.get_parameters() for array in pair]

def fails(frame, event, argument):
    global begun
    begun += 1
    if sys.argv[1] == "all" or begun == int(sys.argv[1]):
        raise OSError("a hook that fails")

expected = trained(1)
threading.settrace(fails)
threading.excepthook = lambda arguments: None
assert trained(3) == expected
assert begun > 0
"""


@pytest.mark.few
@pytest.mark.parametrize("which", ["all", "1", "2"])
def test_threads_that_fail_before_they_begin_are_done_without(compiled, which):
    subprocess.run([sys.executable, "-c", FAILING_THREADS, which], check=True, timeout=60)


def test_threads_that_are_held_up_before_they_begin_are_not_waited_for_long(threaded, monkeypatch, no_thread_left):
    expected = ragged(EVERY_KIND[3], threads=1)
    leads = []
    run = plan.run_threads

    class Late:
        """A plan whose threads come after its run."""

        def __init__(self, native):
            self.native, self.over, self.run = native, threading.Event(), native.run
            self.waiting, self.dismiss = native.waiting, native.dismiss

        def work(self, run):
            self.over.wait(60)
            self.native.work(run)

        def lead(self):
            leads.append(self.native.waiting())
            try:
                return self.native.lead()
            finally:
                self.over.set()

    monkeypatch.setattr(plan, "run_threads", lambda native, n_threads: run(Late(native), n_threads))
    assert ragged(EVERY_KIND[3], threads=3) == expected
    assert set(leads) == {0}


@posix
def test_a_fork_can_train_after_training_on_threads(threaded, no_thread_left):
    net = EVERY_KIND[3]
    data = data_for(net, 50)
    model = build(net)
    train(model, *data, epochs=2, threads=2)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(model, *data, epochs=2, threads=2)
            code = 0 if set(threaded) == {2} else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# The number of threads


def test_threads_are_used_where_a_step_is_large_and_not_where_it_is_small(compiled, calls):
    build(TINY).train(*data_for(TINY, 50), epochs=3, threads=4, print_every=None)
    assert set(calls) == {1}
    calls.clear()
    large = Net("200-200,relu,200-10,softmax")
    build(large, dtype="float32").train(*data_for(large, 64), epochs=9, threads=2, print_every=None)
    assert set(calls) >= {2}


@pytest.mark.parametrize(
    ("net", "rows", "found"),
    [
        ("784-128,relu,128-128,relu,128-10,softmax", 128, (2, 4, 8)),
        ("784-128,relu,128-128,relu,128-10,softmax", 16, (1, 1, 1)),  # weights move, and there are few rows
        ("32-64,relu,64-32,relu,32-2,softmax", 32, (1, 1, 1)),
        ("32-64,relu,64-32,relu,32-2,softmax", 512, (2, 4, 16)),
        ("1-64,relu,64-64,relu,64-1,linear", 1000, (2, 4, 16)),
    ],
)
def test_as_many_threads_are_used_as_pay_for_what_moves_between_them(compiled, net, rows, found):
    loss, accuracy = ("squared", "near") if net.endswith("linear") else ("categorical", "classes")
    made = program.lower(build(Net(net, loss, accuracy)))
    assert tuple(plan.threads_that_pay(made, rows, 10_000, most) for most in (2, 4, 16)) == found
    assert plan.threads_that_pay(made, rows, 1, 1) == 1


def test_training_uses_as_many_threads_as_it_was_told(threaded):
    X, y = data_for(CLASSIFIER, 50)
    try:
        nnx.set_num_threads(3)
        assert nnx.get_num_threads() == 3
        train(build(CLASSIFIER), X, y)
        train(build(CLASSIFIER), X, y, threads=2)
        train(build(CLASSIFIER), X, y, threads=np.int64(4))
        train(build(CLASSIFIER), X[:2], y[:2])
        assert threaded == [3, 2, 4, 2]
    finally:
        nnx.set_num_threads(None)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert nnx.get_num_threads() == int(os.environ.get("NNX_NUM_THREADS") or usable)


@pytest.mark.parametrize("n", [True, 2.0, "2", [2]], ids=repr)
def test_a_number_of_threads_that_is_no_whole_number_is_refused(n):
    with pytest.raises(TypeError, match=r"^set_num_threads: n must be a whole number, got .*\.$"):
        nnx.set_num_threads(n)
    with pytest.raises(TypeError, match=r"^Model\.train: threads must be a whole number, got .*\.$"):
        build(TINY).train(*data_for(TINY, 9), threads=n)


@pytest.mark.parametrize("n", [0, -1, 257, 10**30])
def test_a_number_of_threads_out_of_range_is_refused_before_anything_changes(n):
    before = nnx.get_num_threads()
    with pytest.raises(ValueError, match=rf"^set_num_threads: n must be a whole number from 1 to 256, got {n}\.$"):
        nnx.set_num_threads(n)
    assert nnx.get_num_threads() == before
    model = build(TINY)
    with pytest.raises(ValueError, match=rf"^Model\.train: threads must be a whole number from 1 to 256, got {n}\.$"):
        model.train(*data_for(TINY, 9), threads=n)
    assert model.optimizer.iterations == 0


READ_THREADS = """
import nnx
try:
    print(nnx.get_num_threads())
except ValueError as error:
    print(error)
nnx.set_num_threads(7)
print(nnx.get_num_threads())
"""


@pytest.mark.few
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *[(n, n) for n in ("1", "3", "256")],
        *[
            (text, f"NNX_NUM_THREADS must be a whole number from 1 to 256, got {text!r}.")
            for text in ("0", "257", "-1", "two", "1.5")
        ],
    ],
    ids=("1", "3", "256", "0", "257", "minus 1", "two", "1.5"),
)
def test_the_environment_gives_the_number_of_threads_or_a_sentence(given, expected):
    environment = {**os.environ, "NNX_NUM_THREADS": given}
    done = subprocess.run([sys.executable, "-c", READ_THREADS], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == [expected, "7"], done.stderr


# Ctrl-C


@pytest.fixture
def pythons_own_reaction():
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def assert_stopped_between_steps(model, data):
    """Compare an interrupted training in batches of 15 with one that ends by itself at the same step."""
    X, y = data
    done = model.optimizer.iterations
    dropout = next(layer for layer in model.layers if isinstance(layer, nnx.Layer_Dropout))
    assert done == dropout.training_forwards == len(model.history)
    assert len(model.history.loss) == done // 4
    twin = build(CLASSIFIER)
    if done // 4:
        train(twin, X, y, epochs=done // 4, batch_size=15)
    for step in range(done % 4):
        train(twin, X[15 * step : 15 * step + 15], y[15 * step : 15 * step + 15])
    if twin.optimizer.iterations:
        found, expected = bits(left_behind(model)), bits(left_behind(twin))
        own = [name for name in expected if name.endswith((".weights", ".biases", "_momentums", "_cache"))]
        assert {name: found[name] for name in own} == {name: expected[name] for name in own}
        assert model.optimizer.current_learning_rate == twin.optimizer.current_learning_rate
    before = model.optimizer.iterations
    train(model, X, y, batch_size=15)
    assert model.optimizer.iterations == before + 4


@posix
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("call", [1, 2, 5])
def test_ctrl_c_stops_between_two_steps(threaded, monkeypatch, pythons_own_reaction, no_thread_left, threads, call):
    data = data_for(CLASSIFIER, 50)
    model = build(CLASSIFIER)
    monkeypatch.setattr(plan, "MOST_STEPS", 3)
    monkeypatch.setattr(plan, "CALL_SECONDS", 1000)  # on a busy machine, too, a call does three steps,
    monkeypatch.setattr(plan, "START_SECONDS", 60)  # and waits for its threads
    run = plan.run_threads

    def impatient(native, n_threads):
        if len(threaded) == call - 1:
            press_ctrl_c()
        return run(native, n_threads)

    monkeypatch.setattr(plan, "run_threads", impatient)
    with pytest.raises(KeyboardInterrupt):
        model.train(*data, epochs=100, batch_size=15, print_every=None, threads=threads)
    assert threaded == [threads] * call
    assert model.optimizer.iterations == 3 * call
    assert_stopped_between_steps(model, data)


@posix
def test_ctrl_c_at_any_moment_stops_between_two_steps(compiled, pythons_own_reaction):
    data = data_for(CLASSIFIER, 50)
    model = build(CLASSIFIER)
    later = threading.Timer(0.15, press_ctrl_c)
    later.start()
    with pytest.raises(KeyboardInterrupt):
        model.train(*data, epochs=200_000, batch_size=15, print_every=None)
    later.join()
    assert 0 < model.optimizer.iterations < 800_000
    assert_stopped_between_steps(model, data)


@posix
def test_ctrl_c_during_the_validation_keeps_the_epoch(compiled, monkeypatch, pythons_own_reaction):
    data = data_for(CLASSIFIER, 50)
    model = build(CLASSIFIER)
    add_up = plan.Evaluation.add_up

    def impatient(*arguments):
        if model.optimizer.iterations == 8:
            press_ctrl_c()
        return add_up(*arguments)

    monkeypatch.setattr(plan.Evaluation, "add_up", impatient)
    callbacks = [nnx.Callback()]  # with it, each epoch is a separate compiled call
    with pytest.raises(KeyboardInterrupt):
        model.train(*data, epochs=9, batch_size=15, print_every=None, validation_data=data, callbacks=callbacks)
    assert (model.optimizer.iterations, len(model.history.loss), len(model.history.validation_loss)) == (8, 2, 1)
    assert_stopped_between_steps(model, data)


@pytest.mark.parametrize("lines", [1, 4, 7])
def test_an_output_that_fails_stops_between_two_steps(compiled, monkeypatch, lines):
    class Broken:
        written = 0

        def write(self, text):
            Broken.written += text.count("\n")
            if Broken.written >= lines:
                raise BrokenPipeError

        def flush(self): ...

    data = data_for(CLASSIFIER, 50)
    model = build(CLASSIFIER)
    monkeypatch.setattr(plan, "MOST_STEPS", 3)
    monkeypatch.setattr(plan, "CALL_SECONDS", 1e6)  # so that a busy machine makes no shorter calls
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Broken())
        with pytest.raises(BrokenPipeError):
            model.train(*data, epochs=9, batch_size=15)
    assert model.optimizer.iterations > 0
    assert_stopped_between_steps(model, data)


# Other threads


def test_a_model_that_trains_in_another_thread_cannot_be_trained(monkeypatch):
    data = data_for(CLASSIFIER, 50)
    model = build(CLASSIFIER)
    errors = []

    def train_too():
        try:
            model.train(*data, print_every=None)
        except RuntimeError as error:
            errors.append(str(error))

    class Meanwhile:
        def write(self, text):
            other = threading.Thread(target=train_too)
            other.start()
            other.join()

        def flush(self): ...

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Meanwhile())
        model.train(*data, epochs=3)
    assert set(errors) == {"Model.train: this model is being trained already."}
    assert model.optimizer.iterations == 3
    train(model, *data)


def during(monkeypatch, meddle, train_it):
    """Let another thread call ``meddle`` repeatedly, from the first compiled call until training ends."""
    begun, meddled, over = threading.Event(), threading.Event(), threading.Event()
    run = plan.run_threads
    errors = []

    def starting(native, n_threads):
        begun.set()
        meddled.wait(60)
        return run(native, n_threads)

    def meddle_on():
        begun.wait(60)
        while not over.is_set():
            try:
                meddle()
            except Exception as error:
                errors.append(error)
                over.set()
            meddled.set()
            time.sleep(0)

    monkeypatch.setattr(plan, "run_threads", starting)
    meddler = threading.Thread(target=meddle_on)
    meddler.start()
    try:
        train_it()
    finally:
        begun.set()
        over.set()
        meddler.join()
    assert errors == []
    assert meddled.is_set()


@pytest.mark.few
@pytest.mark.parametrize("threads", [1, 2])
def test_what_another_thread_rebinds_is_not_felt_before_the_next_training(threaded, monkeypatch, threads):
    """Parameters, state, labels and settings are those from the start of the training."""
    X, y = data_for(CLASSIFIER, 50)
    twin, model = (build(CLASSIFIER, dtype="float32") for _ in range(2))
    for each in (twin, model):
        train(each, X, y)
    arguments = {"epochs": 1500, "batch_size": 15, "threads": threads}
    train(twin, X, y.copy(), **arguments)
    names = ("weights", "biases", "weight_momentums", "weight_cache")
    bound = [getattr(layer, name) for layer in model.trainable_layers for name in names]

    def meddle():
        for layer in model.trainable_layers:
            for name in names:
                setattr(layer, name, np.full(getattr(layer, name).shape, np.nan, "f4"))
            layer.weight_regularizer_l2 = 1.0
        y[:] = 1_000_000_000
        model.optimizer.beta_1 = 0.5
        model.layers[2].rate = 0.01

    during(monkeypatch, meddle, lambda: train(model, X, y, **arguments))
    expected = [getattr(layer, name) for layer in twin.trainable_layers for name in names]
    assert [array.tobytes() for array in bound] == [array.tobytes() for array in expected]
    assert model.optimizer.iterations == twin.optimizer.iterations == 6001


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("net", [CLASSIFIER, Net("17-33,relu,33-2,sigmoid", "binary", "cells"), EVERY_KIND[1]], ids=str)
def test_samples_that_another_thread_overwrites_do_not_stop_a_training(compiled, monkeypatch, net, shuffle):
    X, y = data_for(net, 50)
    X = X.astype("f4")
    y = y if net.loss == "categorical" else y.astype("f4")
    model = build(net, dtype="float32")
    rng = np.random.default_rng(0)

    def meddle():
        X[:] = rng.choice([np.nan, np.inf, -1e38, 0, 1e-40], X.shape)
        y[:] = -(10**8) if net.loss == "categorical" else rng.choice([np.nan, np.inf, -1e38], y.shape)

    arguments = {"epochs": 1000, "batch_size": 15, "print_every": None, "shuffle": shuffle, "on_nonfinite": "ignore"}
    with np.errstate(all="ignore"):
        during(monkeypatch, meddle, lambda: model.train(X, y, **arguments))
    assert model.optimizer.iterations == len(model.history) == 4000


def test_the_interpreter_is_free_while_a_call_runs(compiled, monkeypatch):
    """A thread that wakes up every millisecond does so many times during one compiled call, not only between two."""
    beats = 0
    over = threading.Event()

    def beat():
        nonlocal beats
        while not over.is_set():
            time.sleep(0.001)  # in Python 3.13t, a wait for the event may last 70 ms instead
            beats += 1

    during_calls = []
    run = plan.run_threads

    def counting(native, n_threads):
        before = beats
        done = run(native, n_threads)
        during_calls.append(beats - before)
        return done

    monkeypatch.setattr(plan, "run_threads", counting)
    monkeypatch.setattr(plan, "CALL_SECONDS", 0.15)
    heart = threading.Thread(target=beat)
    heart.start()
    try:
        build(CLASSIFIER).train(*data_for(CLASSIFIER, 50), epochs=30_000, batch_size=15, print_every=None, threads=1)
    finally:
        over.set()
        heart.join()
    assert max(during_calls) >= 5


# Memory

#: What the history keeps: five figures of a step, and of an epoch, which has four steps.
HISTORY = 5 * 8 * (1 + 1 / 4)


@pytest.mark.parametrize(("shuffle", "steps"), [(False, 20_000), (True, 2_000)], ids=["in order", "shuffled"])
def test_a_step_allocates_nothing_but_its_part_of_the_history(compiled, monkeypatch, shuffle, steps):
    model = build(TINY)
    X, y = data_for(TINY, 8)
    monkeypatch.setattr(plan, "MOST_STEPS", 200)
    monkeypatch.setattr(plan, "CALL_SECONDS", 1e6)  # so that a busy machine makes no extra calls, which add objects

    def peak(steps):
        tracemalloc.start()
        try:
            model.train(X, y, epochs=steps // 4, batch_size=2, print_every=None, shuffle=shuffle)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(400)
    few, many = peak(400), peak(steps)
    # 2: for the objects that hold a call's figures; an array has room for a sixteenth more than it holds.
    assert many - few <= (steps - 400) * (HISTORY + 2) * 17 / 16 + 10_000


@pytest.mark.one_backend
@pytest.mark.long("memory grows slowly, so it takes many trainings")
def test_many_trainings_of_one_step_allocate_nothing_that_stays(compiled):
    model = build(TINY)
    X, y = data_for(TINY, 8)

    def remains(trainings):
        for _ in range(trainings):
            model.train(X, y, print_every=None, shuffle=True)
            model.predict(X)
            model.evaluate(X, y, silent=True)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        remains(10)
        assert -remains(1) + remains(100) <= 2_000
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_long_trainings_do_not_make_the_process_grow(compiled):
    model = build(TINY, dtype="float32")
    X, y = data_for(TINY, 8)

    def resident_after(steps):
        model.train(X, y, epochs=steps // 4, batch_size=2, print_every=None)
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    resident_after(40_000)
    before = resident_after(40_000)
    assert [resident_after(40_000) for _ in range(4)][-1] - before <= 2_000_000


@pytest.mark.one_backend
@pytest.mark.long("memory grows slowly, so it takes many models")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_models_that_are_made_trained_and_forgotten_do_not_make_the_process_grow(compiled):
    net = Net("20-300,relu,300-12,softmax")
    data = data_for(net, 64)

    def resident_after_more_models():
        for _ in range(30):
            model = build(net, dtype="float32")
            model.train(*data, print_every=None, threads=2)
            model.predict(data[0])
        del model
        gc.collect()  # layers know their neighbours: only the collector frees a model
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    resident = [resident_after_more_models() for _ in range(6)]  # it varies by some megabytes
    assert min(resident[3:]) - max(resident[:3]) <= 4_000_000


# Python threads, with a GIL or without


def in_eight_threads(work):
    """Start eight threads at once. Return their results."""
    found = [None] * 8
    ready = threading.Barrier(8)

    def run(i):
        ready.wait()
        found[i] = work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_layers_of_their_own_do_not_share_scratch():
    def work(i):
        rng = np.random.default_rng(i)
        dense, softmax = nnx.Layer_Dense(40, 33), nnx.Activation_Softmax()
        dense.weights = rng.normal(size=(40, 33)).astype("f4")
        X = rng.normal(size=(70, 40)).astype("f4")
        found = []
        for _ in range(60):
            dense.forward(X)
            dense.backward(dense.output)
            softmax.forward(dense.output)
            softmax.backward(dense.output)
            arrays = (dense.output, dense.dinputs, dense.dweights, softmax.output, softmax.dinputs)
            found.append(b"".join(array.tobytes() for array in arrays))
        return found

    alone = [set(work(i)) for i in range(8)]
    assert all(len(each) == 1 for each in alone)
    assert [set(each) for each in in_eight_threads(work)] == alone


@pytest.mark.parametrize("epochs", [1, 20], ids=["single steps", "many"])
def test_one_model_is_trained_by_one_thread_at_a_time(epochs):
    X, y = data_for(CLASSIFIER, 50)
    X = X.astype("f4")
    model = build(CLASSIFIER, dtype="float32")
    refused = []

    def work(i):
        done = 0
        for _ in range(40):
            try:
                model.train(X, y, epochs=epochs, print_every=None)
                done += epochs
            except RuntimeError as error:
                refused.append(str(error))
        return done

    steps = sum(in_eight_threads(work))
    assert set(refused) <= {"Model.train: this model is being trained already."}
    assert model.optimizer.iterations == model.layers[2].training_forwards == steps
    twin = build(CLASSIFIER, dtype="float32")
    twin.train(X, y, epochs=steps, print_every=None)
    assert [a.tobytes() for p in twin.get_parameters() for a in p] == [
        a.tobytes() for p in model.get_parameters() for a in p
    ]
