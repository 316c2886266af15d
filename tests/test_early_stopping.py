"""Early stopping: when it stops, and what it restores. Killed and resumed runs stop at the same epoch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from plans import Book, Net, bits, build, data_for, left_behind, train
from test_checkpoints import killed_after, without_generator

import nnx
from nnx import callbacks
from nnx.engine import plan
from nnx.files import safetensors

SPIRAL = Net("2-64,relu,dropout,64-3,softmax")
KINDS = pytest.mark.parametrize("kind", [nnx.Model, Book])


class Script(nnx.Callback):
    """Replaces the run's figures by its own."""

    def __init__(self, name, values):
        self.name, self.values = name, values

    def on_epoch_end(self, run):
        run.figures[self.name] = self.values[run.epoch - 1]


def watched(values, callback, kind=nnx.Model, **arguments):
    """Train until a callback stops it. The monitored figure takes these values. Return the model."""
    model = build(SPIRAL, kind=kind)
    script = Script(callback.monitor, values)
    train(model, *data_for(SPIRAL, 20), epochs=len(values), callbacks=[script, callback], **arguments)
    return model


NAN = float("nan")


@KINDS
@pytest.mark.parametrize(
    ("settings", "values", "epochs", "best"),
    [
        ({"patience": 1}, [3, 2, 2, 1], 3, 2),
        ({"patience": 2}, [3, 2, 2, 1, 1, 1, 0], 6, 4),
        ({"patience": 2}, [3, 4, 5, 1], 3, 1),
        ({"patience": 2, "min_delta": 1}, [5, 4.5, 4, 3.5, 3, 2.9, 2.8], 3, 1),
        ({"patience": 3, "min_delta": 1}, [5, 4.5, 4, 3.5, 3, 2.9, 2.8], 7, 4),
        ({"patience": 2, "monitor": "accuracy"}, [0.1, 0.3, 0.2, 0.3, 0.9], 4, 2),
        ({"patience": 2, "mode": "max"}, [1, 3, 2, 3, 9], 4, 2),
        ({"patience": 2, "monitor": "accuracy", "mode": "min"}, [0.3, 0.1, 0.2, 0.1, 0], 4, 2),
        ({"patience": 2}, [NAN, NAN, 1], 2, 0),
        ({"patience": 2}, [NAN, 7, NAN, NAN, 1], 4, 2),
        ({"patience": 3}, [float("inf"), float("inf"), 7, 8, 9, 10], 6, 3),
        ({"patience": 9}, [3, 2, 1, 2], 4, 3),
    ],
)
def test_it_stops_after_so_many_epochs_that_are_no_better(settings, values, epochs, best, kind):
    stopping = nnx.EarlyStopping(**{"monitor": "loss", **settings})
    model = watched(values, stopping, kind)
    assert len(model.history.loss) == epochs
    assert stopping.best_epoch == best
    assert stopping.best == values[best - 1] if best else np.isnan(stopping.best)


@KINDS
@pytest.mark.parametrize("average", [None, 0.5])
def test_it_puts_the_best_parameters_back_in_place_and_leaves_the_optimizers_state(kind, average):
    values = [3, 2, 1, 2, 2, 2]
    arguments = {"kind": kind}
    snapshots = []
    model = build(SPIRAL, **arguments)
    model.optimizer.average = average
    stopping = nnx.EarlyStopping("loss", patience=2)
    before = model.get_parameters()

    def snapshot(run):
        snapshots.append({name: array.copy() for name, array in callbacks.learnt(run.model).items()})

    train(model, *data_for(SPIRAL, 20), epochs=6, callbacks=[Script("loss", values), snapshot, stopping])
    assert len(snapshots) == 5
    assert len(snapshots[0]) == (4 if average is None else 8)
    assert bits(callbacks.learnt(model)) == bits(snapshots[2])
    assert bits(snapshots[4]) != bits(snapshots[2])
    for group, kept in zip(before, model.get_parameters(), strict=True):
        assert all(array is other for array, other in zip(group, kept, strict=True))
    plain = build(SPIRAL, **arguments)
    plain.optimizer.average = average
    train(plain, *data_for(SPIRAL, 20), epochs=5)
    assert model.optimizer.iterations == 5
    for layer, other in zip(model.trainable_layers, plain.trainable_layers, strict=True):
        assert layer.weight_momentums.tobytes() == other.weight_momentums.tobytes()


def test_it_puts_nothing_back_if_it_is_not_to():
    model = watched([3, 1, 2, 2], nnx.EarlyStopping("loss", patience=2, restore_best=False))
    plain = build(SPIRAL)
    train(plain, *data_for(SPIRAL, 20), epochs=4)
    assert bits(callbacks.learnt(model)) == bits(callbacks.learnt(plain))


def test_running_figures_of_layers_are_put_back_too():
    class Counter(nnx.Activation_Linear):
        _running = ("seen",)

        def __init__(self):
            self.seen = np.zeros((1, 3), np.float64)

        def forward(self, inputs, training=True):
            super().forward(inputs, training)
            if training:
                self.seen += 1

    model = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 3), Counter(), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(0.1))
    model.set(accuracy=nnx.Accuracy_Categorical())
    model.finalize()
    stopping = nnx.EarlyStopping("loss", patience=2)
    train(model, *data_for(SPIRAL, 20), epochs=9, callbacks=[Script("loss", [3, 2, 1, 2, 2, 2]), stopping])
    assert model.layers[1].seen.tolist() == [[3, 3, 3]]


@KINDS
def test_the_line_says_which_epoch_was_the_best(kind, capsys):
    watched([3, 1, 2, 2], nnx.EarlyStopping("loss", patience=2), kind, print_every=1)
    line = "stopped after epoch 4: loss has not improved since epoch 2 (1.000), and its parameters are restored"
    assert capsys.readouterr().out.splitlines()[-1] == line


RUNS = {
    "held-out rows alone": (None, {}),
    "their loss": ({"patience": 3}, {}),
    "their accuracy": ({"patience": 4, "monitor": "validation_accuracy", "min_delta": 0.01}, {}),
    "in batches": ({"patience": 3, "restore_best": False}, {"batch_size": 16}),
    "shuffled": ({"patience": 3}, {"batch_size": 16, "shuffle": True, "seed": 4}),
    "the training's loss": ({"patience": 2, "monitor": "loss"}, {"validation_data": None, "batch_size": 7}),
    "no end": ({"patience": 100}, {"batch_size": 16}),
    "weights": ({"patience": 3}, {"sample_weight": np.linspace(0, 1, 50)}),
    "an average": ({"patience": 3}, {"average": 0.9}),
}


@pytest.mark.parametrize("net", ["2-64,relu,dropout,64-3,softmax", "5-33,sigmoid,33-17,relu,17-3,softmax"])
@pytest.mark.parametrize(("settings", "arguments"), RUNS.values(), ids=RUNS)
def test_epochs_in_one_compiled_call_leave_the_same_bits(net, settings, arguments, monkeypatch):
    net = Net(net)
    X, y = data_for(net, 50)
    arguments = {"epochs": 40, "validation_data": data_for(net, 30, seed=2), **arguments}
    average = arguments.pop("average", 0)
    calls, go_on = [], plan.Run.go_on
    monkeypatch.setattr(plan.Run, "go_on", lambda run, report: calls.append(run.done) or go_on(run, report))

    def trained(*others):
        model = build(net)
        model.set(optimizer=nnx.Optimizer_Adam(0.05, average=average))
        stopping = [] if settings is None else [nnx.EarlyStopping(**settings)]
        calls.clear()
        train(model, X, y, callbacks=[*stopping, *others] or None, **arguments)
        states = [{**vars(each), **each._kept} for each in stopping]
        for state in states:
            del state["_kept"]
        return bits(left_behind(model)), [bits(state) for state in states], len(calls)

    *found, n_calls = trained()
    *expected, _ = trained(lambda run: None)
    assert found == expected
    assert n_calls <= 2 or nnx._kernels.name == "numpy"


def test_epochs_in_one_compiled_call_end_where_a_loss_is_not_finite():
    X, y = data_for(SPIRAL, 50)
    histories = []
    for others in ([], [lambda run: None]):
        model = build(SPIRAL)
        model.set(optimizer=nnx.Optimizer_SGD(1e20))
        stopping = nnx.EarlyStopping("loss", patience=50)
        with pytest.raises(nnx.DivergenceError) as raised:
            train(model, X, y, batch_size=20, epochs=30, callbacks=[stopping, *others])
        histories.append((bits(left_behind(model)), str(raised.value), stopping.best_epoch, stopping.wait))
    assert histories[0] == histories[1]


@pytest.mark.usefixtures("compiled")
def test_epochs_in_one_compiled_call_are_recorded_whole_though_an_exception_comes_behind_it(monkeypatch):
    """As from a second Ctrl-C, which does not wait."""
    record = plan.Run.record

    def interrupted(run):
        record(run)
        monkeypatch.setattr(plan.Run, "record", record)
        raise KeyboardInterrupt

    model, stopping = build(SPIRAL), nnx.EarlyStopping(patience=50)
    X, y = data_for(SPIRAL, 50)
    monkeypatch.setattr(plan.Run, "record", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(model, X, y, epochs=40, validation_data=data_for(SPIRAL, 30, seed=2), callbacks=[stopping])
    n_epochs = len(model.history.loss)
    assert n_epochs > 1
    assert len(model.history.validation_loss) == n_epochs
    assert stopping.best == min(model.history.validation_loss)


def test_a_second_training_begins_anew():
    stopping = nnx.EarlyStopping("loss", patience=2)
    watched([3, 1, 2, 2], stopping)
    model = watched([9, 8, 7, 6, 7, 7], stopping)
    assert len(model.history.loss) == 6
    assert stopping.best_epoch == 4


# Checkpoints


def its_callbacks(tmp_path, name="log.csv"):
    return [
        nnx.ReduceRateOnPlateau(patience=2, factor=0.5),
        nnx.EarlyStopping(patience=7),
        nnx.SaveBest(tmp_path / "best", "validation_accuracy"),
        nnx.CSVLog(tmp_path / name),
    ]


def left_behind_with(model, made):
    """Return the state after a run, also that of its callbacks."""
    found = without_generator(left_behind(model))
    for each in made:
        if hasattr(each, "get_state"):
            found |= bits({f"{type(each).__name__}.{name}": value for name, value in each.get_state().items()})
    return found


ARGUMENTS = {"epochs": 200, "batch_size": 20, "shuffle": True}


def run_of(kind):
    X, y = data_for(SPIRAL, 50)
    model = build(SPIRAL, kind=kind)
    model.set(optimizer=nnx.Optimizer_Adam(0.1, schedule=nnx.Schedule_Exponential(0.99)))
    return model, X, y, {**ARGUMENTS, "validation_data": data_for(SPIRAL, 30, seed=2)}


@KINDS
@pytest.mark.parametrize("step", [1, 6, 8, 18, 20])
@pytest.mark.parametrize("steps", [True, False])
def test_a_resumed_run_stops_at_the_same_epoch_with_the_same_bytes(kind, step, steps, tmp_path):
    model, X, y, arguments = run_of(kind)
    made = its_callbacks(tmp_path)
    train(model, X, y, callbacks=made, **arguments)
    whole, log, best = (
        left_behind_with(model, made),
        (tmp_path / "log.csv").read_bytes(),
        (tmp_path / "best").read_bytes(),
    )
    assert 7 < len(model.history.loss) < 60
    assert model.optimizer.learning_rate < 0.1
    os.remove(tmp_path / "log.csv")
    os.remove(tmp_path / "best")
    with killed_after(step):
        first = its_callbacks(tmp_path)
        train(run_of(kind)[0], X, y, checkpoint=tmp_path / "c", checkpoint_steps=steps, callbacks=first, **arguments)
    resumed, made = run_of(kind)[0], its_callbacks(tmp_path)
    train(resumed, X, y, resume=tmp_path / "c", callbacks=made, **arguments)
    found = left_behind_with(resumed, made)
    assert (tmp_path / "log.csv").read_bytes() == log
    assert (tmp_path / "best").read_bytes() == best
    if steps:
        assert found == whole
    else:
        of_steps = {name for name in whole if name.startswith("history.step")}
        assert {n: v for n, v in found.items() if n not in of_steps} == {
            n: v for n, v in whole.items() if n not in of_steps
        }
        assert np.isnan(resumed.history.step_loss[:step]).all()
        assert resumed.history.step_loss[step:].tolist() == model.history.step_loss[step:].tolist()
        assert len(resumed.history) == len(model.history)


@KINDS
def test_a_run_that_has_stopped_stays_stopped(kind, tmp_path, capsys):
    model, X, y, arguments = run_of(kind)
    made = its_callbacks(tmp_path)
    train(model, X, y, callbacks=made, checkpoint=tmp_path / "c", **arguments)
    whole = left_behind_with(model, made)
    log = (tmp_path / "log.csv").read_bytes()
    capsys.readouterr()
    resumed, made = run_of(kind)[0], its_callbacks(tmp_path)
    longer = {**arguments, "epochs": 500, "print_every": 1}
    train(resumed, X, y, resume=tmp_path / "c", checkpoint=tmp_path / "c", callbacks=made, **longer)
    found = {name: value for name, value in left_behind_with(resumed, made).items() if "accumulated" not in name}
    assert found.items() <= whole.items()  # there was no step left, so the attributes of a last step are missing
    assert len(resumed.history.loss) == len(model.history.loss)
    assert (tmp_path / "log.csv").read_bytes() == log
    said = f"stopped after epoch {len(model.history.loss)}: validation_loss has not improved since epoch "
    assert re.fullmatch(re.escape(said) + r".*\n", capsys.readouterr().out)


def test_a_stopped_run_says_so_without_its_callbacks_too(tmp_path, capsys):
    model, X, y, arguments = run_of(nnx.Model)
    train(model, X, y, checkpoint=tmp_path / "c", callbacks=[lambda run: run.stop("enough")], **arguments)
    resumed = run_of(nnx.Model)[0]
    train(resumed, X, y, resume=tmp_path / "c", **{**arguments, "epochs": 500, "print_every": 1})
    assert capsys.readouterr().out == "stopped after epoch 1: enough\n"


@pytest.mark.parametrize(
    "change", [lambda array: array[:, :2].copy(), lambda array: np.broadcast_to(array, array.shape)]
)
def test_best_parameters_that_find_no_place_are_refused_whole(change):
    model = build(SPIRAL)

    def assign_and_stop(run):
        if run.epoch == 4:
            run.model.layers[3].weights = change(run.model.layers[3].weights)
            run.model.layers[0].weights[:] = 7
            run.stop()

    callbacks = [nnx.EarlyStopping("loss"), assign_and_stop]
    with pytest.raises(
        ValueError, match=r"^EarlyStopping: layers\.3\.weights must be a writable array of shape \(64, 3\)"
    ):
        model.train(*data_for(SPIRAL, 20), epochs=9, print_every=None, callbacks=callbacks)
    assert (model.layers[0].weights == 7).all()


def test_a_run_that_has_used_up_its_epochs_goes_on_from_the_last_ones_parameters(tmp_path):
    """Not from the best ones, which the model got at the end."""
    model, X, y, arguments = run_of(nnx.Model)
    del arguments["epochs"]
    whole = without_generator(train(model, X, y, epochs=14, callbacks=[nnx.EarlyStopping(patience=90)], **arguments))
    part = run_of(nnx.Model)[0]
    first = nnx.EarlyStopping(patience=90)
    train(part, X, y, epochs=12, checkpoint=tmp_path / "c", callbacks=[first], **arguments)
    assert first.best_epoch < 12
    resumed = run_of(nnx.Model)[0]
    again = [nnx.EarlyStopping(patience=90)]
    assert (
        without_generator(train(resumed, X, y, epochs=14, resume=tmp_path / "c", callbacks=again, **arguments)) == whole
    )


def test_the_same_model_goes_on_though_its_rate_has_been_reduced(tmp_path):
    """As in a notebook, where the interrupted model still exists."""
    model, X, y, arguments = run_of(nnx.Model)
    train(model, X, y, callbacks=its_callbacks(tmp_path), **arguments)
    whole = left_behind_with(model, [])

    def interrupt(run):
        if run.epoch == 9:
            signal.raise_signal(signal.SIGINT)

    same = run_of(nnx.Model)[0]
    made = [*its_callbacks(tmp_path), interrupt]
    with pytest.raises(KeyboardInterrupt):
        train(same, X, y, callbacks=made, checkpoint=tmp_path / "c", **arguments)
    assert same.optimizer.learning_rate < 0.1
    train(same, X, y, callbacks=its_callbacks(tmp_path), resume=tmp_path / "c", **arguments)
    assert left_behind_with(same, []) == whole


class Counting(nnx.Callback):
    """One of your own with a state."""

    def __init__(self):
        self.count, self.sums, self.note = 0, np.zeros(2), "none"

    def on_epoch_end(self, run):
        self.count += 1
        self.sums += run.figures["loss"]
        self.note = f"epoch {run.epoch}"
        if self.count == 7:
            run.stop("seven")

    def get_state(self):
        return {"count": self.count, "sums": self.sums, "note": self.note, "nothing": None}

    def set_state(self, state):
        assert state.pop("nothing") is None
        self.count, self.sums, self.note = state["count"], state["sums"], state["note"]


@KINDS
def test_the_state_of_ones_own_is_kept(kind, tmp_path):
    model, X, y, arguments = run_of(kind)
    made = Counting()
    whole = without_generator(train(model, X, y, callbacks=[made], **arguments))
    with killed_after(8):
        train(run_of(kind)[0], X, y, checkpoint=tmp_path / "c", callbacks=[Counting()], **arguments)
    again = Counting()
    calls = [lambda run: None, again]  # functions keep nothing, and may come and go
    found = without_generator(train(run_of(kind)[0], X, y, resume=tmp_path / "c", callbacks=calls, **arguments))
    assert found == whole
    assert (again.count, again.note, again.sums.tolist()) == (made.count, made.note, made.sums.tolist())
    assert made.count == 7


@pytest.mark.parametrize("state", [3, {"a": object()}, {1: 2}, {"a": NAN}, {"a": [1]}, {"a": np.array(["b"])}])
def test_a_state_that_no_file_could_hold_is_refused_before_the_first_step(state, tmp_path):
    class Bad(nnx.Callback):
        def get_state(self):
            return state

        def set_state(self, state):
            pass

    model, X, y, arguments = run_of(nnx.Model)
    with pytest.raises(TypeError, match=r"^Model\.train: Bad\.get_state must return a dict of finite numbers"):
        model.train(X, y, checkpoint=tmp_path / "c", callbacks=[Bad()], **arguments)
    assert model.history is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (None, r"those of '.*', EarlyStopping\(.*patience=5.*\), got none\."),
        ([], r"EarlyStopping\(.*\), got none\."),
        ([nnx.EarlyStopping(patience=6)], r"patience=5.*got EarlyStopping\(.*patience=6"),
        ([nnx.EarlyStopping("loss", 5)], r"got EarlyStopping\(monitor='loss'"),
        ([nnx.ReduceRateOnPlateau(patience=5)], "got ReduceRateOnPlateau"),
        ([nnx.EarlyStopping(patience=5), Counting()], r"got EarlyStopping\(.*\), Counting\(\)"),
    ],
)
def test_other_callbacks_than_the_checkpoints_are_refused(made, sentence, tmp_path):
    model, X, y, arguments = run_of(nnx.Model)
    short = {**arguments, "epochs": 3}
    train(model, X, y, checkpoint=tmp_path / "c", callbacks=[nnx.EarlyStopping(patience=5)], **short)
    other = run_of(nnx.Model)[0]
    before = bits(left_behind(other))
    with pytest.raises(ValueError, match=rf"^Model\.train: callbacks with a state must be .*{sentence}"):
        other.train(X, y, resume=tmp_path / "c", callbacks=made, **arguments)
    assert {n: v for n, v in bits(left_behind(other)).items() if "generator" not in n} == {
        n: v for n, v in before.items() if "generator" not in n
    }


def test_a_checkpoint_without_callbacks_goes_on_without_them_only(tmp_path):
    model, X, y, arguments = run_of(nnx.Model)
    train(model, X, y, checkpoint=tmp_path / "c", **{**arguments, "epochs": 2})
    with pytest.raises(ValueError, match="none, got EarlyStopping"):
        model.train(X, y, resume=tmp_path / "c", callbacks=[nnx.EarlyStopping()], **arguments)
    calls = []
    functions = [lambda run: calls.append(run.epoch)]
    train(run_of(nnx.Model)[0], X, y, resume=tmp_path / "c", callbacks=functions, **{**arguments, "epochs": 4})
    assert calls == [3, 4]


def change(path, edit):
    """Change a file's description and arrays, and correct the checksum."""
    description, arrays = safetensors.read("test", str(path))
    description = json.loads(json.dumps(description))
    edit(description["run"], arrays)
    safetensors.write("test", str(path), description, arrays)


def delete(name):
    return lambda run, arrays: arrays.pop(name)


def put(name, value):
    return lambda run, arrays: arrays.update({name: value})


def of_run(**values):
    return lambda run, arrays: run.update(values)


def of_state(**values):
    return lambda run, arrays: run["callbacks"][0]["state"].update(values)


@pytest.mark.parametrize(
    "edit",
    [
        of_run(callbacks=3),
        of_run(callbacks=[3]),
        of_run(callbacks=[{"class": 3, "settings": {}, "state": {}}]),
        of_run(callbacks=[{"class": "EarlyStopping", "settings": {}}]),
        of_run(called="2"),
        of_run(called=-1),
        of_run(called=1),
        of_run(called=True),
        of_run(called=9),
        of_run(stopped=3),
        of_run(data=["X", "y"]),
        of_run(backend=7),
        of_run(learning_rate="x"),
        of_run(learning_rate=[1]),
        of_state(wait=-1),
        of_state(wait="1"),
        of_state(best_epoch=1.5),
        of_state(best_epoch=0),
        of_state(best=1.0),
        of_state(more=1),
        lambda run, arrays: run["callbacks"][0]["state"].pop("wait"),
        delete("run.callbacks.0.best"),
        delete("run.callbacks.0.layers.0.weights"),
        put("run.callbacks.0.layers.0.weights", np.zeros((3, 64))),
        put("run.callbacks.0.layers.0.weights", np.zeros((2, 64), np.float32)),
        put("run.callbacks.0.layers.1.weights", np.zeros((2, 64))),
        put("run.callbacks.0.layers.x", np.zeros((2, 64))),
        put("run.callbacks.0.best", np.zeros(2)),
        put("run.callbacks.0.other", np.zeros(2)),
        delete("run.step_loss"),
        put("run.step_loss", np.zeros(3)),
        delete("run.loss"),
    ],
    ids=range(32),
)
def test_a_hostile_checkpoint_is_refused_with_a_sentence(edit, tmp_path):
    model, X, y, arguments = run_of(nnx.Model)
    train(model, X, y, checkpoint=tmp_path / "c", callbacks=[nnx.EarlyStopping()], **{**arguments, "epochs": 3})
    change(tmp_path / "c", edit)
    other, stopping = run_of(nnx.Model)[0], nnx.EarlyStopping()
    before = bits(left_behind(other))
    with pytest.raises((nnx.ModelFileError, ValueError), match=r"^Model\.train: "):
        other.train(X, y, resume=tmp_path / "c", callbacks=[stopping], **{**arguments, "epochs": 4})
    assert {n: v for n, v in bits(left_behind(other)).items() if "generator" not in n} == {
        n: v for n, v in before.items() if "generator" not in n
    }
    assert stopping.best_epoch == 0


def test_a_file_without_its_change_goes_on(tmp_path):
    """The helper of the test above does no harm itself."""
    model, X, y, arguments = run_of(nnx.Model)
    train(model, X, y, checkpoint=tmp_path / "c", callbacks=[nnx.EarlyStopping()], **{**arguments, "epochs": 3})
    change(tmp_path / "c", lambda run, arrays: None)
    other = run_of(nnx.Model)[0]
    train(other, X, y, resume=tmp_path / "c", callbacks=[nnx.EarlyStopping()], **{**arguments, "epochs": 4})
    assert len(other.history.loss) == 4


def test_an_error_of_ones_own_at_an_odd_state_is_a_sentence(tmp_path):
    class Picky(Counting):
        def set_state(self, state):
            raise ValueError("too odd")

    model, X, y, arguments = run_of(nnx.Model)
    short = {**arguments, "epochs": 2}
    train(model, X, y, checkpoint=tmp_path / "c", callbacks=[Picky()], **short)
    other = run_of(nnx.Model)[0]
    weights = other.layers[0].weights.copy()
    with pytest.raises(nnx.ModelFileError, match=r"holds a state that a callback does not accept \(too odd\)"):
        other.train(X, y, resume=tmp_path / "c", callbacks=[Picky()], **short)
    assert other.layers[0].weights.tobytes() == weights.tobytes()


@pytest.mark.one_backend
@pytest.mark.long("starts and kills a process again and again")
@pytest.mark.skipif(os.name != "posix", reason="signals")
@KINDS
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(kind, tmp_path, backend):
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "import test_early_stopping as t\n"
        "from nnx import _kernels\n"
        "folder, kind = Path(sys.argv[1]), getattr(t, sys.argv[2], t.nnx.Model)\n"
        "model, X, y, arguments = t.run_of(kind)\n"
        "callbacks = [*t.its_callbacks(folder), lambda run: time.sleep(0.02)]\n"
        "path = folder / 'c'\n"
        "more = {'resume': path} if path.exists() else {}\n"
        "t.train(model, X, y, callbacks=callbacks, checkpoint=path, checkpoint_every=1, **more, **arguments)\n"
        "model.save(folder / 'end')\n"
    )
    model, X, y, arguments = run_of(kind)
    train(model, X, y, callbacks=its_callbacks(tmp_path, "whole.csv"), **arguments)
    model.save(tmp_path / "whole")
    best = (tmp_path / "best").read_bytes()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    command = [sys.executable, "-c", script, str(tmp_path), kind.__name__]
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command, env=environment)
        seen, end = _epochs(tmp_path), time.monotonic() + 60
        while process.poll() is None and (_epochs(tmp_path) < seen + 3 or kills >= 3) and time.monotonic() < end:
            time.sleep(0.002)
        if process.poll() is None:
            process.kill()
            kills += 1
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills >= 2
    assert (tmp_path / "end").read_bytes() == (tmp_path / "whole").read_bytes()
    assert (tmp_path / "log.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "best").read_bytes() == best


def _epochs(folder):
    """Return how many epochs a log tells of."""
    try:
        return (folder / "log.csv").read_text().count("\n")
    except FileNotFoundError:
        return 0
