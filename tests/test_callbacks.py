"""Callbacks: when and with what they are called, what they may change, and the state after they stop a run or raise."""

from __future__ import annotations

import csv
import os
import pickle
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from plans import NETS, PENALTIES, Book, Net, bits, build, data_for, left_behind, train

import nnx
from nnx.engine.history import EPOCH, TRAINING

SPIRAL = Net("2-64,relu,dropout,64-3,softmax")
KINDS = pytest.mark.parametrize("kind", [nnx.Model, Book])


class Recorder(nnx.Callback):
    """Notes what it is called with."""

    def __init__(self):
        self.calls = []

    def on_train_begin(self, run):
        self.calls.append(("begin", run.epoch, dict(run.figures)))

    def on_epoch_end(self, run):
        self.calls.append(("epoch", run.epoch, dict(run.figures)))

    def on_train_end(self, run):
        self.calls.append(("end", run.epoch, dict(run.figures)))

    def close(self):
        self.calls.append(("close",))


def stop_after(epoch):
    def stop(run):
        if run.epoch == epoch:
            run.stop()

    return stop


def at_epoch(number, change):
    def call(run):
        if run.epoch == number:
            change(run.model)

    return call


# When, and with what


def shrink_all(model):
    for layer in model.trainable_layers:
        layer.weights = layer.weights * 0.5


AT_EPOCH_2 = {
    "nothing": lambda model: None,
    "a setting of the loss": lambda model: setattr(model.loss, "label_smoothing", 0.3),
    "another loss": lambda model: model.set(loss=nnx.Loss_CategoricalCrossentropy(label_smoothing=0.2)),
    "other weights": shrink_all,
    "a layer of one's own": lambda model: setattr(model.layers[1], "forward", model.layers[1].forward),
}


@pytest.mark.parametrize("change", AT_EPOCH_2.values(), ids=AT_EPOCH_2)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [7, 300])
def test_each_validation_finds_what_evaluate_would(change, weighted, batch_size):
    X, y = data_for(SPIRAL, 50)
    weights = (np.random.default_rng(3).uniform(size=600),) if weighted else ()
    held_out = (*data_for(SPIRAL, 600, seed=2), *weights)
    found = []

    def evaluate(run):
        own = {"sample_weight": weights[0]} if weighted else {}
        figures = run.model.evaluate(*held_out[:2], batch_size=batch_size, silent=True, **own)
        found.append((*figures.values(), run.figures["validation_loss"], run.figures["validation_accuracy"]))

    arguments = {"batch_size": batch_size, "validation_data": held_out, "epochs": 4}
    train(build(SPIRAL), X, y, callbacks=[evaluate, at_epoch(2, change)], **arguments)
    assert len(found) == 4
    assert [each[:2] for each in found] == [each[2:] for each in found]
    book = build(SPIRAL, kind=Book)
    train(book, X, y, callbacks=[at_epoch(2, change)], **arguments)
    np.testing.assert_allclose([each[0] for each in found], book.history.validation_loss, rtol=1e-9)


@KINDS
@pytest.mark.parametrize("validated", [False, True])
def test_a_callback_gets_the_figures_that_the_history_has(kind, validated):
    X, y = data_for(SPIRAL, 50)
    recorder, model = Recorder(), build(SPIRAL, kind=kind)
    held_out = data_for(SPIRAL, 30, seed=2) if validated else None
    train(model, X, y, epochs=5, batch_size=20, validation_data=held_out, callbacks=[recorder])
    assert recorder.calls[0] == ("begin", 0, {})
    assert [call[:2] for call in recorder.calls[1:-2]] == [("epoch", number) for number in range(1, 6)]
    names = EPOCH if validated else TRAINING
    for i, (_, _, figures) in enumerate(recorder.calls[1:-2]):
        assert figures == {name: getattr(model.history, name)[i] for name in names}
    assert recorder.calls[-2][:2] == ("end", 5)
    assert recorder.calls[-1] == ("close",)


@pytest.mark.parametrize("net", NETS, ids=str)
@pytest.mark.parametrize("batch_size", [None, 16])
def test_a_callback_that_does_nothing_changes_no_bit(net, batch_size):
    X, y = data_for(net, 41)
    arguments = {"epochs": 3, "batch_size": batch_size, "shuffle": batch_size is not None}
    expected = bits(train(build(net), X, y, **arguments))
    assert bits(train(build(net), X, y, callbacks=[nnx.Callback()], **arguments)) == expected


@KINDS
def test_callbacks_are_called_in_their_order_and_functions_too(kind):
    X, y = data_for(SPIRAL, 20)
    calls = []

    class Named(nnx.Callback):
        def on_epoch_end(self, run):
            calls.append(("object", run.epoch))

    callbacks = [lambda run: calls.append(("function", run.epoch)), Named()]
    train(build(SPIRAL, kind=kind), X, y, epochs=2, callbacks=callbacks)
    assert calls == [("function", 1), ("object", 1), ("function", 2), ("object", 2)]


def test_a_call_with_callbacks_is_never_taken_for_the_last_call_again():
    X, y = data_for(SPIRAL, 20)
    X = X.astype(np.float32)
    model, calls = build(SPIRAL, dtype="float32"), []
    for _ in range(4):
        model.train(X, y, print_every=None)
    callbacks = [lambda run: calls.append(run.history)]
    for _ in range(3):
        assert model.train(X, y, print_every=None, callbacks=callbacks) is calls[-1]
    assert len(calls) == 3
    later = []
    for _ in range(4):
        model.train(X, y, print_every=None, callbacks=later)
    later += callbacks
    assert model.train(X, y, print_every=None, callbacks=later) is calls[-1]
    assert len(calls) == 4


def test_callbacks_that_come_into_the_same_list_later_are_called():
    X, y = data_for(SPIRAL, 20)
    model, calls, callbacks = build(SPIRAL), [], []
    for _ in range(3):
        model.train(X, y, print_every=None, callbacks=callbacks)
    callbacks.append(lambda run: calls.append(run.epoch))
    for _ in range(2):
        model.train(X, y, print_every=None, callbacks=callbacks)
    assert calls == [1, 1]


# Stopping


@KINDS
@pytest.mark.parametrize("net", NETS, ids=str)
def test_a_run_that_is_stopped_ends_as_one_of_so_many_epochs(net, kind):
    X, y = data_for(net, 41)
    arguments = {"batch_size": 16, "shuffle": True}
    expected = bits(train(build(net, kind=kind, **PENALTIES), X, y, epochs=3, **arguments))
    found = train(build(net, kind=kind, **PENALTIES), X, y, epochs=9, callbacks=[stop_after(3)], **arguments)
    assert bits(found) == expected


@pytest.mark.parametrize("optimizer", ["SGD", "Adagrad", "RMSprop", "Adam"])
@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("batch_size", [None, 20])
def test_it_does_so_with_any_state_of_the_optimizer(optimizer, validated, batch_size):
    X, y = data_for(SPIRAL, 50)
    held_out = data_for(SPIRAL, 30, seed=2) if validated else None
    arguments = {"batch_size": batch_size, "validation_data": held_out}
    expected = bits(train(build(SPIRAL, optimizer), X, y, epochs=4, **arguments))
    assert bits(train(build(SPIRAL, optimizer), X, y, epochs=7, callbacks=[stop_after(4)], **arguments)) == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_it_does_so_on_any_number_of_threads(threads):
    net = Net("64-256,relu,dropout,256-256,relu,256-10,softmax")
    X, y = data_for(net, 500)
    arguments = {"batch_size": 200, "shuffle": True, "threads": threads}
    model = build(net, dtype="float32")
    model.optimizer.clip_norm, model.optimizer.average = 0.5, 0.9
    twin = build(net, dtype="float32")
    twin.optimizer.clip_norm, twin.optimizer.average = 0.5, 0.9
    expected = bits(train(model, X, y, epochs=3, **arguments))
    assert bits(train(twin, X, y, epochs=5, callbacks=[stop_after(3)], **arguments)) == expected


@KINDS
def test_a_run_stopped_before_it_begins_does_no_step(kind, capsys):
    class Never(nnx.Callback):
        def on_train_begin(self, run):
            run.stop("not today")

    model = build(SPIRAL, kind=kind)
    weights = model.layers[0].weights.copy()
    history = model.train(*data_for(SPIRAL, 20), epochs=3, print_every=1, callbacks=[Never()])
    assert capsys.readouterr().out == "stopped after epoch 0: not today\n"
    assert len(history) == 0
    assert model.optimizer.iterations == 0
    assert weights.tobytes() == model.layers[0].weights.tobytes()


@KINDS
def test_one_line_says_why_a_run_was_stopped(kind, capsys):
    X, y = data_for(SPIRAL, 20)
    train(build(SPIRAL, kind=kind), X, y, epochs=9, print_every=1, callbacks=[lambda run: run.stop("enough")])
    assert capsys.readouterr().out.splitlines()[-1] == "stopped after epoch 1: enough"
    train(build(SPIRAL, kind=kind), X, y, epochs=9, print_every=None, callbacks=[lambda run: run.stop("enough")])
    assert capsys.readouterr() == ("", "")
    arguments = {"epochs": 9, "print_every": None, "progress": True, "callbacks": [lambda run: run.stop("enough")]}
    train(build(SPIRAL, kind=kind), X, y, **arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert "stopped after epoch 1: enough" in err


# What a callback may change


def halve(model):
    for layer in model.trainable_layers:
        layer.weights *= 0.5


def rebind(model):
    model.layers[0].weights = model.layers[0].weights * 0.5


def set_parameters(model):
    model.set_parameters([tuple(array * 0.5 for array in group) for group in model.get_parameters()])


def rebind_state(model):
    model.layers[0].weight_momentums = np.ones_like(model.layers[0].weights)


def rebind_small_array(model):
    model.layers[0].biases = model.layers[0].biases.copy()
    model.layers[0].biases += 1


def change_rate(model):
    model.optimizer.learning_rate *= 0.5


def change_count(model):
    model.optimizer.iterations = 100


def clip(model):
    model.optimizer.clip_norm = 0.01


def freeze(model):
    model.trainable_layers = model.trainable_layers[1:]


def penalize(model):
    model.layers[0].weight_regularizer_l2 = 0.1


def another_loss(model):
    model.set(loss=nnx.Loss_CategoricalCrossentropy(label_smoothing=0.2))


def smooth(model):
    model.loss.label_smoothing = 0.2


def another_optimizer(model):
    model.set(optimizer=nnx.Optimizer_SGD(0.1))


def another_dropout(model):
    model.layers[2].rate = 0.5


def finalize(model):
    model.finalize()


CHANGES = [halve, rebind, set_parameters, rebind_state, rebind_small_array, change_rate, change_count, clip, freeze]
CHANGES += [penalize, another_loss, smooth, another_optimizer, another_dropout, finalize]


@KINDS
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("batch_size", [None, 20])
def test_what_a_callback_changes_counts_from_the_next_step_on(change, kind, batch_size):
    """As if the run had been two calls of `train`."""
    net = Net("2-1,relu,dropout,1-3,softmax") if change is rebind_small_array else SPIRAL
    X, y = data_for(net, 50)
    apart = build(net, kind=kind)
    train(apart, X, y, epochs=2, batch_size=batch_size)
    first = apart.history.loss
    change(apart)
    expected = train(apart, X, y, epochs=3, batch_size=batch_size)
    model = build(net, kind=kind)
    found = train(model, X, y, epochs=5, batch_size=batch_size, callbacks=[at_epoch(2, change)])
    assert [name for name in bits(expected) if name not in bits(found)] == []
    assert model.history.loss.tolist() == [*first, *apart.history.loss]
    expected, found = ({n: v for n, v in left.items() if "history" not in n} for left in (expected, found))
    assert bits(found) == bits(expected)


def test_a_run_goes_on_layer_by_layer_when_a_callback_makes_a_plan_impossible(planned):
    X, y = data_for(SPIRAL, 50)

    def wrap(model):
        forward = model.layers[1].forward
        model.layers[1].forward = lambda inputs, training=True: forward(inputs, training)

    apart, model = build(SPIRAL), build(SPIRAL)
    train(apart, X, y, epochs=2, batch_size=20)
    steps = apart.history.step_loss
    wrap(apart)
    train(apart, X, y, epochs=2, batch_size=20)
    planned.clear()
    train(model, X, y, epochs=4, batch_size=20, callbacks=[at_epoch(2, wrap)])
    assert planned == [False]
    assert model.history.step_loss.tolist() == [*steps, *apart.history.step_loss]
    assert len(model.history.loss) == 4
    assert len(model.history) == 12
    assert model.layers[0].weights.tobytes() == apart.layers[0].weights.tobytes()


def test_a_method_of_a_class_that_a_callback_replaces_is_called_from_then_on(monkeypatch):
    forward, calls = nnx.Activation_ReLU.forward, []

    def counted(layer, inputs, training=True):
        calls.append(training)
        forward(layer, inputs, training)

    model = build(SPIRAL)
    change = at_epoch(2, lambda model: monkeypatch.setattr(nnx.Activation_ReLU, "forward", counted))
    train(model, *data_for(SPIRAL, 50), epochs=4, batch_size=20, callbacks=[change])
    assert calls == 6 * [True]
    assert len(model.history.loss) == 4


def test_changes_at_the_epoch_that_stops_the_run_stay(monkeypatch):
    X, y = data_for(SPIRAL, 50)
    model = build(SPIRAL)

    def zero_and_stop(run):
        if run.epoch == 2:
            run.model.layers[0].weights[:] = 0
            run.model.layers[3].weights = run.model.layers[3].weights * 0
            run.stop()

    train(model, X, y, epochs=5, batch_size=20, callbacks=[zero_and_stop])
    assert not model.layers[0].weights.any()
    assert not model.layers[3].weights.any()
    assert model.layers[0].dweights.any()


RESIZED = {
    "weights": (lambda model, X: model.layers[0].weights, "weights must have shape"),
    "state": (lambda model, X: model.layers[0].weight_cache, "weight_cache must have shape"),
    "running statistics": (lambda model, X: model.layers[1].running_mean, "running_mean must have shape"),
    "samples": (lambda model, X: X, "must"),
}


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("which", RESIZED)
def test_memory_that_a_callback_frees_is_not_touched(which, epoch, stops, compiled):
    np.random.seed(0)
    X, y = data_for(Net("3-1", "squared", "near"), 40)
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(3, 64, dtype="float64"), nnx.Layer_BatchNorm(64, dtype="float64")):
        model.add(layer)
    model.add(nnx.Layer_Dense(64, 1, dtype="float64"))
    model.set(loss=nnx.Loss_Huber(), optimizer=nnx.Optimizer_Adam(0.01), accuracy=nnx.Accuracy_Regression())
    model.finalize()

    def free(run):
        if run.epoch == epoch:
            array = RESIZED[which][0](model, X)
            array.resize((3000, 640), refcheck=False)
            array[:] = 0
            if stops:
                run.stop()

    expected = "got one that a callback has resized" if stops or epoch == 3 else RESIZED[which][1]
    with pytest.raises((RuntimeError, ValueError), match=expected):
        model.train(X, y, epochs=3, batch_size=16, print_every=None, callbacks=[free])


@KINDS
def test_a_callback_may_use_the_model_but_not_train_it(kind, tmp_path):
    X, y = data_for(SPIRAL, 50)
    seen = []

    def use(run):
        seen.append(run.model.predict(X).sum())
        run.model.evaluate(X, y, silent=True)
        run.model.report(X, y)
        run.model.save(tmp_path / "model")
        run.model.save_parameters(tmp_path / "parameters")
        assert nnx.Model.load(tmp_path / "model").predict(X).tobytes() == run.model.predict(X).tobytes()
        with pytest.raises(RuntimeError, match=r"^Model\.train: this model is being trained already"):
            run.model.train(X, y)
        other = build(SPIRAL)
        other.train(X, y, print_every=None)

    expected = train(build(SPIRAL), X, y, epochs=3, batch_size=20)
    found = train(build(SPIRAL), X, y, epochs=3, batch_size=20, callbacks=[use])
    kept = ("weights", "biases", "momentums", "cache", "history", "iterations", "forwards")
    for name, value in bits(expected).items():
        if name.endswith(kept) or name.startswith("history"):
            assert bits(found)[name] == value, name
    assert len(seen) == 3


# Errors


@KINDS
def test_an_error_leaves_the_model_as_after_the_epoch_and_reaches_the_caller(kind):
    X, y = data_for(SPIRAL, 50)
    expected = build(SPIRAL, kind=kind)
    train(expected, X, y, epochs=2, batch_size=20)
    recorder = Recorder()
    model = build(SPIRAL, kind=kind)

    def fail(run):
        if run.epoch == 2:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        train(model, X, y, epochs=5, batch_size=20, callbacks=[fail, recorder])
    assert [call[0] for call in recorder.calls] == ["begin", "epoch", "close"]
    assert model.history.loss.tolist() == expected.history.loss.tolist()
    assert len(model.history) == model.optimizer.iterations == 6
    assert model.layers[2].training_forwards == 6
    for layer, twin in zip(model.trainable_layers, expected.trainable_layers, strict=True):
        assert layer.weights.tobytes() == twin.weights.tobytes()
    train(model, X, y)  # the model does not count as in training


@KINDS
def test_all_are_closed_whatever_one_of_them_raises(kind):
    class Bad(nnx.Callback):
        def close(self):
            raise ValueError("bad")

    recorder = Recorder()
    with pytest.raises(ValueError, match="bad"):
        train(build(SPIRAL, kind=kind), *data_for(SPIRAL, 20), callbacks=[Bad(), recorder])
    assert recorder.calls[-1] == ("close",)


@KINDS
@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="Ctrl-C is the main thread's")
def test_ctrl_c_in_a_callback_waits_for_the_end_of_all_of_them(kind, tmp_path):
    X, y = data_for(SPIRAL, 50)
    recorder = Recorder()

    def interrupt(run):
        if run.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    arguments = {"epochs": 5, "batch_size": 20}
    whole = bits(train(build(SPIRAL, kind=kind), X, y, **arguments))
    model = build(SPIRAL, kind=kind)
    with pytest.raises(KeyboardInterrupt):
        train(model, X, y, callbacks=[interrupt, recorder], checkpoint=tmp_path / "c", **arguments)
    assert [call[:2] for call in recorder.calls] == [("begin", 0), ("epoch", 1), ("epoch", 2), ("close",)]
    assert len(model.history.loss) == 2
    again = Recorder()
    found = train(build(SPIRAL, kind=kind), X, y, callbacks=[again], resume=tmp_path / "c", **arguments)
    assert [call[:2] for call in again.calls] == [
        ("begin", 2), ("epoch", 3), ("epoch", 4), ("epoch", 5), ("end", 5), ("close",)
    ]  # fmt: skip
    assert {n: v for n, v in bits(found).items() if "generator" not in n}.items() <= whole.items()


@pytest.mark.parametrize(
    ("callbacks", "error", "sentence"),
    [
        (nnx.EarlyStopping("loss"), TypeError, r"callbacks must be a list, got EarlyStopping"),
        ([nnx.EarlyStopping], TypeError, r"callbacks\[0\] must be an object, got a class\. Write EarlyStopping"),
        ([None], TypeError, r"callbacks\[0\] must be a Callback or a function of the run, got None"),
        ([nnx.Callback(), 3], TypeError, r"callbacks\[1\] must be a Callback or a function of the run, got 3"),
        (2 * [nnx.EarlyStopping("loss")], ValueError, r"callbacks must hold each object once"),
        ([nnx.EarlyStopping()], ValueError, r"validation_data or validation_split must be given for EarlyStopping"),
        (
            [nnx.SaveBest("x", "validation_accuracy")],
            ValueError,
            r"validation_data or validation_split must be given for SaveBest",
        ),
    ],
)
def test_what_is_no_list_of_callbacks_is_refused_before_anything_has_changed(callbacks, error, sentence):
    model = build(SPIRAL)
    before = bits(left_behind(model))
    with pytest.raises(error, match=rf"^Model\.train: {sentence}"):
        model.train(*data_for(SPIRAL, 20), callbacks=callbacks)
    assert bits(left_behind(model)) == before
    assert model.history is None
    model.train(*data_for(SPIRAL, 20), print_every=None)


def test_places_that_cannot_be_written_to_are_refused_before_training(tmp_path):
    for callback in (nnx.CSVLog(tmp_path / "no" / "log.csv"), nnx.SaveBest(tmp_path / "no" / "model", "loss")):
        model = build(SPIRAL)
        with pytest.raises(FileNotFoundError, match="path must be in an existing folder"):
            model.train(*data_for(SPIRAL, 20), callbacks=[callback])
        assert model.history is None


def test_a_model_that_could_not_be_saved_is_refused_before_training(tmp_path):
    class Activation_Same:
        def forward(self, inputs, training):
            self.output = inputs

        def backward(self, dvalues):
            self.dinputs = dvalues

    model = build(SPIRAL)
    model.layers.insert(1, Activation_Same())
    model.finalize()
    before = bits(left_behind(model))
    with pytest.raises(TypeError, match=r"^SaveBest: layer must be built in or define get_config\(\)"):
        model.train(*data_for(SPIRAL, 20), print_every=None, callbacks=[nnx.SaveBest(tmp_path / "m", "loss")])
    assert bits(left_behind(model)) == before


@pytest.mark.parametrize("make", [nnx.CSVLog, lambda path: nnx.SaveBest(path, "loss")])
def test_a_checkpoint_and_a_callback_may_not_write_to_one_file(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = build(SPIRAL)
    with pytest.raises(ValueError, match=r"^Model\.train: checkpoint must be another file than that of (CSV|SaveBest)"):
        model.train(*data_for(SPIRAL, 20), checkpoint=tmp_path / "run", callbacks=[make("./run")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: nnx.EarlyStopping("lost"), r"EarlyStopping: monitor must be 'loss' or"),
        (lambda: nnx.EarlyStopping(patience=0), r"EarlyStopping: patience must be a whole number of at least 1|from 1"),
        (lambda: nnx.EarlyStopping(min_delta=-1), r"EarlyStopping: min_delta must be a finite number of at least 0"),
        (lambda: nnx.EarlyStopping(mode="up"), r"EarlyStopping: mode must be 'auto' or 'min' or 'max', got 'up'"),
        (lambda: nnx.ReduceRateOnPlateau(factor=1), r"ReduceRateOnPlateau: factor must be above 0 and below 1"),
        (lambda: nnx.ReduceRateOnPlateau(factor=0), r"ReduceRateOnPlateau: factor must be above 0 and below 1"),
        (lambda: nnx.ReduceRateOnPlateau(min_rate=-1), r"ReduceRateOnPlateau: min_rate must be"),
    ],
)
def test_wrong_settings_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_callbacks_print_and_pickle():
    made = [
        nnx.EarlyStopping(patience=3),
        nnx.ReduceRateOnPlateau("loss"),
        nnx.SaveBest("m", "loss"),
        nnx.CSVLog("a"),
        nnx.TensorBoardLog("b"),
    ]
    assert [repr(each) for each in made] == [
        "EarlyStopping(patience=3)", "ReduceRateOnPlateau(monitor='loss')", "SaveBest('m', monitor='loss')",
        "CSVLog('a')", "TensorBoardLog('b')",
    ]  # fmt: skip
    assert [repr(pickle.loads(pickle.dumps(each))) for each in made] == [repr(each) for each in made]


# The rate


@KINDS
@pytest.mark.parametrize("of_rate", [{}, {"decay": 0.1}, {"schedule": nnx.Schedule_Exponential(0.9)}])
def test_the_rate_is_reduced_below_decay_and_schedule(kind, of_rate):
    X, y = data_for(SPIRAL, 20)
    plain, model = build(SPIRAL, kind=kind), build(SPIRAL, kind=kind)
    for each in (plain, model):
        each.set(optimizer=nnx.Optimizer_SGD(0.5, **of_rate))
    train(plain, X, y, epochs=7)
    reduce = nnx.ReduceRateOnPlateau("accuracy", factor=0.5, patience=2, min_delta=2, min_rate=0.15)
    train(model, X, y, epochs=7, callbacks=[reduce])  # no accuracy is better by 2 than the first
    factors = np.array([1, 1, 1, 0.5, 0.5, 0.3, 0.3])
    assert np.allclose(model.history.learning_rate, plain.history.learning_rate * factors, rtol=1e-12)
    assert model.optimizer.learning_rate == 0.15


def test_a_rate_below_the_least_stays():
    model = build(SPIRAL)
    model.set(optimizer=nnx.Optimizer_SGD(0.1))
    reduce = nnx.ReduceRateOnPlateau("accuracy", patience=1, min_delta=2, min_rate=0.2)
    train(model, *data_for(SPIRAL, 20), epochs=4, callbacks=[reduce])
    assert model.history.learning_rate.tolist() == 4 * [0.1]


def test_an_optimizer_without_a_rate_is_refused():
    class Own:
        def pre_update_params(self):
            pass

        def update_params(self, layer):
            pass

        def post_update_params(self):
            pass

    model = build(SPIRAL)
    model.set(optimizer=Own())
    with pytest.raises(TypeError, match=r"^Model\.train: optimizer must have a learning_rate for ReduceRateOnPlateau"):
        model.train(*data_for(SPIRAL, 20), callbacks=[nnx.ReduceRateOnPlateau("loss")])


# Files


def test_the_pages_code_runs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "guide" / "callbacks.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    parts = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(parts) == 3
    names = {}
    for part in parts:
        exec(part, names)
    assert names["stopping"].best_epoch
    assert len(names["history"].loss) <= 60


@KINDS
def test_save_best_keeps_the_best_model(kind, tmp_path):
    X, y = data_for(SPIRAL, 50)
    model = build(SPIRAL, "SGD")
    model.optimizer.learning_rate = 3.0
    weights = []
    best = nnx.SaveBest(tmp_path / "best", "loss")
    train(model, X, y, epochs=9, callbacks=[lambda run: weights.append(run.model.layers[0].weights.copy()), best])
    losses = model.history.loss.tolist()
    assert best.best_epoch == losses.index(min(losses)) + 1
    assert best.best == min(losses)
    saved = nnx.Model.load(tmp_path / "best")
    assert saved.layers[0].weights.tobytes() == weights[best.best_epoch - 1].tobytes()


@KINDS
@pytest.mark.parametrize("validated", [False, True])
def test_the_log_holds_each_epochs_figures(kind, validated, tmp_path):
    X, y = data_for(SPIRAL, 50)
    model = build(SPIRAL, kind=kind)
    (tmp_path / "log.csv").write_text("of another run\n")
    held_out = data_for(SPIRAL, 30, seed=2) if validated else None
    train(model, X, y, epochs=4, validation_data=held_out, callbacks=[nnx.CSVLog(tmp_path / "log.csv")])
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    for name in EPOCH if validated else TRAINING:
        assert [float(row[name]) for row in rows] == getattr(model.history, name).tolist()
    assert ("validation_loss" in rows[0]) is validated


def test_tensorboards_own_reader_finds_the_figures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    X, y = data_for(SPIRAL, 50)
    model = build(SPIRAL)
    train(model, X, y, epochs=3, callbacks=[nnx.TensorBoardLog(tmp_path / "runs")])
    (path,) = (tmp_path / "runs").iterdir()
    found = {}
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            number = value.simple_value or sum(value.tensor.float_val)
            found.setdefault(value.tag, []).append((event.step, number))
    assert set(found) == set(TRAINING)
    for name, points in found.items():
        assert [step for step, _ in points] == [1, 2, 3]
        assert np.allclose([value for _, value in points], getattr(model.history, name), rtol=1e-6)


def test_a_missing_tensorboard_is_told_of(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    model = build(SPIRAL)
    with pytest.raises(ImportError, match=r"TensorBoardLog needs the package tensorboard .*pip install"):
        model.train(*data_for(SPIRAL, 20), callbacks=[nnx.TensorBoardLog(tmp_path)])
    assert model.history is None
    assert os.listdir(tmp_path) == []
