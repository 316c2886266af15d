"""Checkpoints: a resumed run ends in the same bytes as an uninterrupted one. Also what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from networks import binary, classifier, regression
from plans import NETS, OPTIMIZERS, PENALTIES, Book, Net, bits, build, data_for, left_behind, train

import nnx
from nnx import _kernels
from nnx._base import files
from nnx.engine import checkpoints, training

SPIRAL = Net("2-64,relu,dropout,64-3,softmax")


class KilledError(Exception):
    """Stands for the end of the process."""


@contextmanager
def killed_after(step):
    """Expect a training to end right after the checkpoint of a step, the only one that is due."""
    write = checkpoints.Keeper.write

    def write_and_die(self, *arguments):
        write(self, *arguments)
        raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "steps_left", lambda self, done, n_batches: step - done)
        patch.setattr(checkpoints.Keeper, "is_due", lambda self, done, n_batches: done == step)
        patch.setattr(checkpoints.Keeper, "write", write_and_die)
        with pytest.raises(KilledError):
            yield


def left_behind_by(model, X, y, **arguments):
    return without_generator(train(model, X, y, **arguments))


def without_generator(left):
    """A resumed run draws no seeds."""
    return bits({name: value for name, value in left.items() if not name.startswith("generator")})


def make(net=SPIRAL, optimizer="Adam", kind=nnx.Model, dtype="float32", **dense):
    model = build(net, optimizer, kind, dtype, **dense)
    for layer in model.layers:
        if isinstance(layer, nnx.Layer_Dropout):  # its seed is drawn, and has to come back
            layer.seed = layer._given_seed = None
    return model


# Exact resume


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("step", [0, 1, 3, 4, 5, 11])
@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path, optimizer, step, kind):
    if step == 0:
        step = 12  # as many as there are: the checkpoint of the end
    X, y = data_for(SPIRAL, 50)
    arguments = {"epochs": 3, "batch_size": 14, "shuffle": True}
    whole = left_behind_by(make(optimizer=optimizer, kind=kind, **PENALTIES), X, y, **arguments)
    interrupted = make(optimizer=optimizer, kind=kind, **PENALTIES)
    with killed_after(step):
        train(interrupted, X, y, checkpoint=tmp_path / "c", **arguments)
    resumed = make(optimizer=optimizer, kind=kind, **PENALTIES)
    for layer in resumed.trainable_layers:
        layer.weights += 1
    found = left_behind_by(resumed, X, y, resume=tmp_path / "c", **arguments)
    if step < 12:
        assert found == whole
    else:  # there was no step left, so the attributes of a last step are missing
        assert found.items() <= whole.items()


@pytest.mark.parametrize("net", NETS, ids=str)
def test_every_network_goes_on(tmp_path, net):
    X, y = data_for(net, 41)
    arguments = {"epochs": 2, "batch_size": 16}
    whole = left_behind_by(make(net), X, y, **arguments)
    with killed_after(4):
        train(make(net), X, y, checkpoint=tmp_path / "c", **arguments)
    assert left_behind_by(make(net), X, y, resume=tmp_path / "c", **arguments) == whole


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_may_be_others(tmp_path, threads):
    net = Net("64-256,relu,dropout,256-256,relu,256-10,softmax")
    X, y = data_for(net, 500)
    arguments = {"epochs": 3, "batch_size": 200, "shuffle": True}
    whole = left_behind_by(make(net), X, y, threads=2, **arguments)
    with killed_after(5):
        train(make(net), X, y, checkpoint=tmp_path / "c", threads=2, **arguments)
    assert left_behind_by(make(net), X, y, resume=tmp_path / "c", threads=threads, **arguments) == whole


def test_a_run_can_be_made_longer_and_interrupted_again(tmp_path):
    X, y = data_for(SPIRAL, 50)
    path = tmp_path / "c"
    whole = left_behind_by(make(), X, y, epochs=6, batch_size=14, shuffle=True)
    train(make(), X, y, epochs=1, batch_size=14, shuffle=True, checkpoint=path)
    for epochs in (2, 5, 6):
        model = make()
        found = left_behind_by(
            model, X, y, epochs=epochs, batch_size=14, shuffle=True, resume=path, checkpoint=path, checkpoint_every=1
        )
    assert found == whole
    assert len(model.history.loss) == 6


def test_a_second_training_of_a_model_is_resumed_with_its_counts(tmp_path):
    X, y = data_for(SPIRAL, 50)
    model, other = make(), make()
    for each in (model, other):
        train(each, X, y, epochs=3)
    whole = left_behind_by(model, X, y, epochs=4, batch_size=25)
    with killed_after(3):
        train(other, X, y, epochs=4, batch_size=25, checkpoint=tmp_path / "c")
    assert left_behind_by(make(), X, y, resume=tmp_path / "c", epochs=4, batch_size=25) == whole


def test_validation_is_made_up_for(tmp_path, monkeypatch):
    X, y = data_for(SPIRAL, 50)
    arguments = {"epochs": 3, "batch_size": 14, "validation_data": data_for(SPIRAL, 30, seed=2)}
    for kind in (nnx.Model, Book):
        whole = left_behind_by(make(kind=kind), X, y, **arguments)
        evaluate, calls = training.evaluate, []

        def stop_the_second(model, data, batch_size, threads, interrupt, *rest, evaluate=evaluate, calls=calls):
            calls.append(1)
            if len(calls) == 2:
                interrupt._pending = True
                interrupt.check()
            return evaluate(model, data, batch_size, threads, interrupt, *rest)

        monkeypatch.setattr(training, "evaluate", stop_the_second)
        interrupted = make(kind=kind)
        with pytest.raises(KeyboardInterrupt):
            train(interrupted, X, y, checkpoint=tmp_path / "c", **arguments)
        assert (len(interrupted.history.loss), len(interrupted.history.validation_loss)) == (2, 1)
        monkeypatch.setattr(training, "evaluate", evaluate)
        assert left_behind_by(make(kind=kind), X, y, resume=tmp_path / "c", **arguments) == whole


def test_ctrl_c_writes_a_last_checkpoint(tmp_path, monkeypatch):
    X, y = data_for(SPIRAL, 50)
    whole = left_behind_by(make(), X, y, epochs=200)
    checks = []

    def stop_at_the_second(self):
        checks.append(1)
        if len(checks) == 2:
            self.stopped = True
            raise KeyboardInterrupt

    monkeypatch.setattr(training.plan, "MOST_STEPS", 7)
    monkeypatch.setattr(training.Interrupt, "check", stop_at_the_second)
    interrupted = make()
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, X, y, epochs=200, checkpoint=tmp_path / "c")
    assert 0 < len(interrupted.history) < 200
    assert left_behind_by(make(), X, y, resume=tmp_path / "c", epochs=200) == whole


def test_what_is_printed_goes_on_too(tmp_path, capsys):
    X, y = data_for(SPIRAL, 50)
    train(make(), X, y, epochs=3, batch_size=14, print_every=1)
    whole = capsys.readouterr().out
    with killed_after(6):
        train(make(), X, y, epochs=3, batch_size=14, print_every=1, checkpoint=tmp_path / "c")
    first = capsys.readouterr().out
    left_behind_by(make(), X, y, resume=tmp_path / "c", epochs=3, batch_size=14, print_every=1)
    assert first + capsys.readouterr().out == whole


def test_seeds_that_nobody_gave_come_back(tmp_path):
    X, y = data_for(SPIRAL, 50)
    arguments = {"epochs": 2, "batch_size": 14, "shuffle": True, "print_every": None}
    model, interrupted = make(), make()
    np.random.seed(3)
    model.train(X, y, **arguments)
    np.random.seed(3)
    with killed_after(2):
        interrupted.train(X, y, checkpoint=tmp_path / "c", **arguments)
    resumed = make()
    state = bits({"state": np.random.get_state()[1]})
    resumed.train(X, y, resume=tmp_path / "c", **arguments)
    assert without_generator(left_behind(resumed)) == without_generator(left_behind(model))
    assert bits({"state": np.random.get_state()[1]}) == state


# When, and what


def test_every_so_many_epochs(tmp_path, monkeypatch):
    X, y = data_for(SPIRAL, 50)
    written = []
    save = checkpoints.model_files.save_checkpoint
    monkeypatch.setattr(checkpoints.model_files, "save_checkpoint", lambda *a: (written.append(a[3]["done"]), save(*a)))
    for kind in (nnx.Model, Book):
        train(make(kind=kind), X, y, epochs=7, batch_size=20, checkpoint=tmp_path / "c", checkpoint_every=2)
        assert written == [6, 12, 18, 21]
        written.clear()


def test_every_so_many_seconds(tmp_path, monkeypatch):
    X, y = data_for(SPIRAL, 50)
    written, now = [], [0.0]

    def tick():
        now[0] += 0.5
        return now[0]

    save = checkpoints.model_files.save_checkpoint
    monkeypatch.setattr(checkpoints.model_files, "save_checkpoint", lambda *a: (written.append(a[3]["done"]), save(*a)))
    monkeypatch.setattr(checkpoints.time, "monotonic", tick)
    train(make(kind=Book), X, y, epochs=2, batch_size=5, checkpoint=tmp_path / "c", checkpoint_every="1.6s")
    assert written == [4, 8, 12, 16, 20]


def test_a_checkpoint_is_a_model_file(tmp_path):
    X, y = data_for(SPIRAL, 50)
    model = make()
    train(model, X, y, epochs=2, checkpoint=tmp_path / "c")
    twin = nnx.Model.load(tmp_path / "c")
    assert twin.predict(X).tobytes() == model.predict(X).tobytes()
    assert twin.optimizer.iterations == 2
    other = make()
    other.load_parameters(tmp_path / "c")
    assert other.predict(X).tobytes() == model.predict(X).tobytes()


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_figures_of_steps_can_be_left_out(tmp_path, kind):
    X, y = data_for(SPIRAL, 50)
    arguments = {"epochs": 6, "batch_size": 5}
    train(make(kind=kind), X, y, checkpoint=tmp_path / "with", **arguments)
    with killed_after(25):
        train(make(kind=kind), X, y, checkpoint=tmp_path / "c", checkpoint_steps=False, **arguments)
    resumed, whole = make(kind=kind), make(kind=kind)
    train(whole, X, y, **arguments)
    train(resumed, X, y, resume=tmp_path / "c", checkpoint=tmp_path / "without", checkpoint_steps=False, **arguments)
    for name, column in whole.history.to_dict().items():
        found = getattr(resumed.history, name)
        if name.startswith("step"):
            assert np.isnan(found[:25]).all()
            found, column = found[25:], column[25:]
        assert found.tolist() == column
    assert len(resumed.history) == 60
    saved = os.path.getsize(tmp_path / "with") - os.path.getsize(tmp_path / "without")
    assert saved > 60 * 40
    train(make(kind=kind), X, y, resume=tmp_path / "without", **arguments)  # nothing is left to do


def test_whether_steps_are_kept_must_be_said_with_yes_or_no(tmp_path):
    model = make()
    with pytest.raises(TypeError, match=r"^Model\.train: checkpoint_steps must be True or False, got 1"):
        model.train(*data_for(SPIRAL, 9), checkpoint=tmp_path / "c", checkpoint_steps=1)
    assert model.history is None


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("every", [1, "60s"])
def test_parameters_are_looked_at_once_before_the_last_checkpoint(tmp_path, kind, every, monkeypatch):
    looked = []
    check, plan_check = training.divergence.check_parameters, training.plan.Run.check_parameters

    def counted(model, done, n_batches):
        looked.append(done)
        check(model, done, n_batches)

    def counted_in_plan(run):
        looked.append(run.done)
        plan_check(run)

    monkeypatch.setattr(training.divergence, "check_parameters", counted)
    monkeypatch.setattr(training.plan.Run, "check_parameters", counted_in_plan)
    X, y = data_for(SPIRAL, 50)
    train(make(kind=kind), X, y, epochs=3, checkpoint=tmp_path / "c", checkpoint_every=every)
    assert looked == ([0, 1, 2, 3] if every == 1 else [0, 3])


def test_the_leftovers_of_killed_writers_are_removed(tmp_path):
    X, y = data_for(SPIRAL, 50)
    prefix = os.path.basename(files._temporary_prefix(str(tmp_path / "c")))
    left, other, of_another = f"{prefix}{16 * 'a'}.tmp", f"{prefix}{16 * 'a'}.tmpx", f".nnx-00000000-{16 * 'a'}.tmp"
    for name in (left, other, of_another):
        (tmp_path / name).write_text("")
    train(make(), X, y, checkpoint=tmp_path / "c")
    assert sorted(os.listdir(tmp_path)) == sorted([other, of_another, "c"])


@pytest.mark.skipif(files.fcntl is None, reason="elsewhere the system keeps open files")
def test_what_somebody_is_writing_is_not_removed(tmp_path):
    with files.replacing("test", tmp_path / "c") as file:
        file.write(b"a part")
        file.flush()
        train(make(), *data_for(SPIRAL, 50), checkpoint=tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"a part"


def test_a_repeated_step_writes_its_checkpoint(tmp_path):
    X, y = data_for(SPIRAL, 20)
    X = X.astype(np.float32)
    model = make()
    path = tmp_path / "c"
    for _ in range(3):
        model.train(X, y, print_every=None, checkpoint=path)
    assert nnx.Model.load(path).optimizer.iterations == 3
    train(model, X, y, checkpoint=path)
    for _ in range(3):
        model.train(X, y, print_every=None, resume=path)
        assert model.optimizer.iterations == 4


def test_a_custom_layer_of_another_width_is_refused_with_the_width_in_the_checkpoint(tmp_path):
    class Own_Width(nnx.Layer_Dense):
        """Says nothing of its width to a file."""

        width = 3

        def __init__(self):
            super().__init__(2, self.width)

        def get_config(self):
            return {}

    def own():
        model = nnx.Model()
        model.add(Own_Width())
        model.add(nnx.Activation_Softmax())
        model.set(loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD())
        model.set(accuracy=nnx.Accuracy_Categorical())
        model.finalize()
        return model

    X, y, path = np.zeros((6, 2), np.float32), np.arange(6) % 3, tmp_path / "run"
    own().train(X, y, epochs=2, print_every=None, checkpoint=path)
    own().train(X, y, epochs=3, print_every=None, resume=path)
    Own_Width.width = 4
    model = own()
    before = without_generator(bits(left_behind(model)))  # which making such a layer moves
    with pytest.raises(nnx.ModelFileError, match=r"of another model: its layer 0 has weights of \(2, 3\)\.$"):
        model.train(X, y, epochs=3, print_every=None, resume=path)
    assert without_generator(bits(left_behind(model))) == before


def test_state_of_another_optimizer_does_not_stay(tmp_path):
    X, y = data_for(SPIRAL, 50)
    whole = left_behind_by(make(optimizer="SGD"), X, y, epochs=3)
    train(make(optimizer="SGD"), X, y, epochs=2, checkpoint=tmp_path / "c")
    model = make()
    train(model, X, y)
    model.set(optimizer=OPTIMIZERS["SGD"]())
    assert left_behind_by(model, X, y, epochs=3, resume=tmp_path / "c") == whole


def test_a_relative_path_stays_where_it_was_when_the_run_changes_the_folder(tmp_path, monkeypatch):
    X, y = data_for(SPIRAL, 50)
    (tmp_path / "begin").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "begin")
    write = checkpoints.Keeper.write

    def write_and_leave(self, *arguments):
        write(self, *arguments)
        os.chdir(tmp_path / "elsewhere")

    monkeypatch.setattr(checkpoints.Keeper, "write", write_and_leave)
    train(make(), X, y, epochs=3, checkpoint="run", checkpoint_every=1)
    assert os.listdir(tmp_path / "elsewhere") == []
    assert nnx.Model.load(tmp_path / "begin" / "run").optimizer.iterations == 3


def test_long_doubles_are_compared_by_value(tmp_path):
    """Padding bytes between their numbers have no meaning, and differ from array to array."""
    X = np.linspace(0, 1, 12).reshape(6, 2)

    def targets(garbage):
        content = bytearray(bytes([garbage]) * 6 * np.dtype(np.longdouble).itemsize)
        y = np.frombuffer(content, np.longdouble)
        y[:] = np.arange(6) / np.longdouble(3)
        return y

    assert (targets(0) == targets(255)).all()
    train(regression(), X, targets(0), checkpoint=tmp_path / "c")
    model = regression()
    train(model, X, targets(255), epochs=2, resume=tmp_path / "c")
    assert model.optimizer.iterations == 2
    if np.finfo(np.longdouble).eps < np.finfo(np.float64).eps:
        with pytest.raises(ValueError, match="y must be that of"):
            train(regression(), X, np.nextafter(targets(0), np.longdouble(9)), epochs=2, resume=tmp_path / "c")


# Refusals


def refused(tmp_path, error, sentence, change_model=None, X=None, y=None, **changed):
    """Expect a run to be refused, with nothing changed."""
    given = data_for(SPIRAL, 50)
    arguments = {"epochs": 2, "batch_size": 14, "shuffle": True, "seed": 4}
    train(make(), *given, checkpoint=tmp_path / "c", **arguments)
    model = make() if change_model is None else change_model()
    train(model, *(data_for(SPIRAL, 50) if change_model is None else (np.ones((4, 2)), [0, 1, 2, 0])))
    before = bits(left_behind(model))
    with pytest.raises(error, match=sentence):
        model.train(
            given[0] if X is None else X(given[0]),
            given[1] if y is None else y(given[1]),
            **{**arguments, "print_every": None, "resume": tmp_path / "c", **changed},
        )
    assert bits(left_behind(model)) == before


def test_other_data_are_refused(tmp_path):
    refused(
        tmp_path, ValueError, r"^Model\.train: X must be that of .*c', float32 of shape \[50, 2\]", X=lambda X: X + 1e-3
    )
    refused(tmp_path, ValueError, "X must be that of", X=lambda X: X[:49], y=lambda y: y[:49])
    refused(tmp_path, ValueError, "y must be that of", y=lambda y: np.roll(y, 1))
    refused(tmp_path, ValueError, "y must be that of", y=lambda y: y.astype(np.int16))
    refused(tmp_path, ValueError, r"validation_data\[0\] must be that of .*, none", validation_data=data_for(SPIRAL, 9))


def test_another_kind_of_run_is_refused(tmp_path):
    refused(tmp_path, ValueError, "batch_size must be that of .*, 14, got 13", batch_size=13)
    refused(tmp_path, ValueError, "shuffle must be that of .*, True, got False", shuffle=False, seed=None)
    refused(tmp_path, ValueError, "seed must be that of .*, 4, got 5", seed=5)
    refused(tmp_path, ValueError, "epochs must be at least the 2 that .* has done, got 1", epochs=1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda: make(Net("2-63,relu,dropout,63-3,softmax")), "its layer 0 is Layer_Dense.*n_neurons=64.*63"),
        (lambda: make(Net("2-64,sigmoid,dropout,64-3,softmax")), "its layer 1 is Activation_ReLU.*Sigmoid"),
        (lambda: make(Net("2-64,relu,64-3,softmax")), "a model with 5 layers; this one has 4"),
        (lambda: make(optimizer="RMSprop"), "its optimizer is Optimizer_Adam.*RMSprop"),
        (lambda: make(weight_regularizer_l2=0.1), "its layer 0 is .*weight_regularizer_l2=0.*0.1"),
        (lambda: make(kind=Book), "a checkpoint of a Model, not of a Book"),
        (lambda: make(dtype="float64"), "its layer 0 is .*float32.*float64"),
    ],
)
def test_another_model_is_refused(tmp_path, change, sentence):
    refused(tmp_path, nnx.ModelFileError, rf"^Model\.train: .*{sentence}", change_model=change)


def test_a_frozen_layer_makes_another_model(tmp_path):
    def frozen():
        model = make()
        model.trainable_layers = model.trainable_layers[1:]
        return model

    refused(tmp_path, nnx.ModelFileError, "other trainable layers", change_model=frozen)


def test_other_files_are_refused(tmp_path):
    X, y = data_for(SPIRAL, 50)
    model = make()
    model.save(tmp_path / "model")
    model.save_parameters(tmp_path / "parameters")
    (tmp_path / "text").write_text("none")
    for name in ("model", "parameters", "text"):
        with pytest.raises(nnx.ModelFileError, match=r"^Model\.train: "):
            model.train(X, y, resume=tmp_path / name)
    with pytest.raises(FileNotFoundError):
        model.train(X, y, resume=tmp_path / "nothing")
    assert model.history is None


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "", "s", "30", "-1s", "1m", "nan s", None])
def test_wrong_intervals_are_refused(tmp_path, every):
    X, y = data_for(SPIRAL, 50)
    with pytest.raises((TypeError, ValueError), match=r"^Model\.train: checkpoint_every must be"):
        make().train(X, y, checkpoint=tmp_path / "c", checkpoint_every=every)
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_of_another_backend_is_told_of(tmp_path, monkeypatch):
    X, y = data_for(SPIRAL, 50)
    train(make(), X, y, checkpoint=tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "name", "native-other")
        with pytest.warns(UserWarning, match="continues on native-other") as found:
            train(make(), X, y, epochs=2, resume=tmp_path / "c")
    assert found[0].filename.endswith("plans.py")  # the caller of train


def test_a_model_that_cannot_be_written_is_refused_before_the_first_step(tmp_path):
    class Own(nnx.Activation_ReLU):
        pass

    model = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 4), Own(), nnx.Layer_Dense(4, 3), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    with pytest.raises(TypeError, match="must be built in or define get_config"):
        model.train(*data_for(SPIRAL, 9), checkpoint=tmp_path / "c")
    assert model.history is None


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        (object(), TypeError, r"get_config\(\) must return finite numbers and text only"),
        (float("nan"), TypeError, r"get_config\(\) must return finite numbers and text only"),
        (list(range(300_000)), ValueError, "the model must have a shorter description"),
    ],
)
def test_what_no_checkpoint_could_hold_is_refused_before_the_first_step(tmp_path, given, error, sentence):
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 4), Leaky(given), nnx.Layer_Dense(4, 3), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    with pytest.raises(error, match=rf"^Model\.train: {sentence}"):
        model.train(*data_for(SPIRAL, 9), checkpoint=tmp_path / "c")
    assert model.history is None
    assert os.listdir(tmp_path) == []


class Leaky(nnx.Activation_ReLU):
    """A custom class that a file can hold."""

    def __init__(self, slope):
        self.slope = slope

    def get_config(self):
        return {"slope": self.slope}


def test_a_model_with_classes_of_ones_own_goes_on(tmp_path):
    X, y = data_for(SPIRAL, 50)

    def with_own(slope=0.1):
        model = nnx.Model()
        for layer in (nnx.Layer_Dense(2, 4), Leaky(slope), nnx.Layer_Dense(4, 3), nnx.Activation_Softmax()):
            model.add(layer)
        model.set(
            loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
        )
        model.finalize()
        return model

    np.random.seed(0)
    whole = left_behind_by(with_own(), X, y, epochs=3)
    np.random.seed(0)
    train(with_own(), X, y, epochs=1, checkpoint=tmp_path / "c")
    assert left_behind_by(with_own(), X, y, epochs=3, resume=tmp_path / "c") == whole
    with pytest.raises(nnx.ModelFileError, match=r"its layer 1 is Leaky\(slope=0.1\), here Leaky\(slope=0.2\)"):
        with_own(0.2).train(X, y, epochs=3, resume=tmp_path / "c")


class Own_Optimizer:
    """From scratch, as in the book. Its count is not in a checkpoint."""

    def __init__(self, rate=0.1):
        self.rate, self.iterations = rate, 0

    def get_config(self):
        return {"rate": self.rate}

    def pre_update_params(self):
        pass

    def update_params(self, layer):
        layer.weights -= self.rate * layer.dweights
        layer.biases -= self.rate * layer.dbiases

    def post_update_params(self):
        self.iterations += 1


class Own_Accuracy:
    """From scratch, without visible sums."""

    def get_config(self):
        return {}

    def init(self, y):
        pass

    def new_pass(self):
        pass

    def calculate(self, predictions, y):
        return 0.5

    def calculate_accumulated(self):
        return 0.5


def test_an_optimizer_and_an_accuracy_from_scratch_train_and_go_on(tmp_path):
    X, y = data_for(SPIRAL, 50)

    def from_scratch():
        model = make()
        model.set(optimizer=Own_Optimizer(), accuracy=Own_Accuracy())
        return model

    whole = from_scratch()
    train(whole, X, y, epochs=3, batch_size=20)
    train(from_scratch(), X, y, epochs=2, batch_size=20, checkpoint=tmp_path / "c")
    resumed = from_scratch()
    train(resumed, X, y, epochs=3, batch_size=20, resume=tmp_path / "c")
    assert [a.tobytes() for p in resumed.get_parameters() for a in p] == [
        a.tobytes() for p in whole.get_parameters() for a in p
    ]


class Own_Dense(nnx.Layer_Dense):
    def get_config(self):
        return {"n_inputs": 2, "n_neurons": 64}


def test_parameters_of_a_layer_of_ones_own_must_have_the_models_shapes(tmp_path):
    def with_own(width):
        np.random.seed(0)
        model = nnx.Model()
        for layer in (Own_Dense(2, width), nnx.Activation_ReLU(), nnx.Layer_Dense(64, 3), nnx.Activation_Softmax()):
            model.add(layer)
        model.set(
            loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Categorical()
        )
        model.finalize()
        return model

    X, y = data_for(SPIRAL, 50)
    train(with_own(64), X, y, checkpoint=tmp_path / "c")
    model = with_own(64)
    model.layers[0].weights = np.ones((2, 65), np.float32)
    with pytest.raises((ValueError, nnx.ModelFileError)):
        model.train(X, y, epochs=2, resume=tmp_path / "c")
    assert model.layers[0].weights.shape == (2, 65)


def test_a_finished_run_writes_its_checkpoint_too(tmp_path):
    X, y = data_for(SPIRAL, 50)
    for kind in (nnx.Model, Book):
        train(make(kind=kind), X, y, checkpoint=tmp_path / "c")
        train(make(kind=kind), X, y, resume=tmp_path / "c", checkpoint=tmp_path / kind.__name__)
        assert kind.load(tmp_path / kind.__name__).optimizer.iterations == 1


def test_ctrl_c_does_not_restore_half_a_model(tmp_path, monkeypatch):
    X, y = data_for(SPIRAL, 50)
    train(make(), X, y, checkpoint=tmp_path / "c")
    restore = checkpoints.Resumed.restore

    def interrupted(self, job):
        job.model.layers[0].biases += 1
        signal.raise_signal(signal.SIGINT)
        restore(self, job)

    monkeypatch.setattr(checkpoints.Resumed, "restore", interrupted)
    model = make()
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.train(X, y, epochs=2, resume=tmp_path / "c")
    finally:
        signal.signal(signal.SIGINT, kept)
    assert model.predict(X).tobytes() == nnx.Model.load(tmp_path / "c").predict(X).tobytes()


# Where writing fails


def test_a_place_that_cannot_be_written_to_is_refused_before_the_first_step(tmp_path):
    X, y = data_for(SPIRAL, 50)
    model = make()
    for path in (tmp_path / "nowhere" / "c", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(OSError, match=r"^Model\.train: checkpoint must (be in an existing folder|name a)"):
            model.train(X, y, checkpoint=path)
    assert model.history is None


def test_a_full_disk_leaves_checkpoint_and_model_as_they_were(tmp_path, monkeypatch):
    X, y = data_for(SPIRAL, 50)
    path = tmp_path / "c"
    whole = left_behind_by(make(), X, y, epochs=4, shuffle=True)
    sync, calls = os.fsync, []

    def fill_up(descriptor):
        calls.append(1)
        if len(calls) == 3:  # the second checkpoint, after the file and the folder of the first
            raise OSError(28, "No space left on device")
        sync(descriptor)

    model = make()
    monkeypatch.setattr(files.os, "fsync", fill_up)
    with pytest.raises(
        OSError, match=r"^Model\.train: checkpoint could not be written to .*No space left.*after 2 steps"
    ):
        train(model, X, y, epochs=4, shuffle=True, checkpoint=path, checkpoint_every=1)
    assert os.listdir(tmp_path) == ["c"]
    assert len(model.history) == 2
    assert np.isfinite(model.predict(X)).all()
    assert nnx.Model.load(path).optimizer.iterations == 1
    model.save(tmp_path / "model")
    assert left_behind_by(make(), X, y, resume=path, epochs=4, shuffle=True) == whole


def test_a_folder_that_vanishes_ends_the_run_with_a_sentence(tmp_path, monkeypatch):
    X, y = data_for(SPIRAL, 50)
    folder = tmp_path / "folder"
    folder.mkdir()
    write = checkpoints.Keeper.write

    def write_and_remove(self, *arguments):
        write(self, *arguments)
        (folder / "c").unlink()
        folder.rmdir()

    monkeypatch.setattr(checkpoints.Keeper, "write", write_and_remove)
    model = make()
    with pytest.raises(OSError, match=r"^Model\.train: checkpoint could not be written to .*after 2 steps"):
        train(model, X, y, epochs=4, checkpoint=folder / "c", checkpoint_every=1)
    assert model.optimizer.iterations == 2
    model.train(X, y, print_every=None)


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_a_file_that_outgrows_its_limit(tmp_path):
    """The system itself refuses: a checkpoint that grows with its history passes a limit on the size of files."""
    script = (
        "import resource, sys, numpy as np, nnx\n"
        "from plans import Net, build, data_for\n"
        "net = Net('2-8,relu,8-3,softmax')\n"
        "model, (X, y) = build(net), data_for(net, 8)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "    model.train(X, y, epochs=2000, print_every=None, checkpoint=sys.argv[1], checkpoint_every=10)\n"
        "except OSError as error:\n"
        "    print(error)\n"
        "n = nnx.Model.load(sys.argv[1]).optimizer.iterations\n"
        "assert 0 < n < model.optimizer.iterations == len(model.history), n\n"
        "assert np.isfinite(model.predict(X)).all()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "c"], capture_output=True, text=True, env=environment, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("Model.train: checkpoint could not be written to ")
    assert os.listdir(tmp_path) == ["c"]


# The command line


def test_the_command_goes_on_from_a_checkpoint(tmp_path, monkeypatch, capsys):
    from nnx.cli import main

    monkeypatch.chdir(tmp_path)
    settings = ["train", "spiral", "--samples", "30", "--epochs", "4", "--batch", "16", "--dropout", "0.1"]
    assert main([*settings, "-o", "whole.safetensors"]) == 0
    with killed_after(9):
        main([*settings, "--checkpoint", "run.ckpt"])
    assert main([*settings, "--resume", "run.ckpt", "-o", "resumed.safetensors"]) == 0
    assert (tmp_path / "resumed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    capsys.readouterr()


def test_mistakes_about_checkpoints_on_the_command_line(tmp_path, monkeypatch, capsys):
    from nnx.cli import main

    monkeypatch.chdir(tmp_path)
    settings = ["train", "binary", "--samples", "20", "--epochs", "1"]
    for arguments, sentence in [
        (["--resume", "none.ckpt"], "argument --resume: must be a checkpoint, and there is no file 'none.ckpt'"),
        (["--checkpoint", "no/c"], "argument --checkpoint: path must be in an existing folder"),
        (["--checkpoint", "binary.png"], "argument --checkpoint: must not be where model or picture go"),
        (["--checkpoint", "c", "--resume", "c"], "argument --resume: not allowed with argument --checkpoint"),
        (["--checkpoint", "c", "--checkpoint-every", "2m"], "argument --checkpoint-every: must be a number of epochs"),
        (["--checkpoint-every", "5"], "argument --checkpoint-every: is for --checkpoint and --resume only"),
        (["--checkpoint", "c", "--checkpoint-every", "0"], "argument --checkpoint-every: must be a number of epochs"),
    ]:
        with pytest.raises(SystemExit) as left:
            main([*settings, *arguments])
        assert left.value.code == 2
        error = capsys.readouterr().err
        assert sentence in error, error
        assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []
    assert main([*settings, "--checkpoint", "c"]) == 0
    for arguments in (["--layers", "3"], ["--rate", "0.5"], ["--seed", "3"], ["--samples", "19"]):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([*settings, "--resume", "c", *arguments])
        assert left.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_other_makers(tmp_path):
    """Other losses and accuracies, whose precision has to come back."""
    X = np.linspace(0, 1, 12).reshape(6, 2)
    for maker, y in ((classifier, [0, 1, 2, 0, 1, 2]), (binary, [0, 1, 1, 0, 1, 0]), (regression, np.arange(6.0))):
        np.random.seed(0)
        whole = left_behind_by(maker(), X, y, epochs=3)
        np.random.seed(0)
        train(maker(), X, y, epochs=2, checkpoint=tmp_path / "c")
        assert left_behind_by(maker(), X, y, epochs=3, resume=tmp_path / "c") == whole


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_the_command_stops_when_it_is_asked_to_also_where_ctrl_c_is_ignored(tmp_path):
    """As in the background of a shell's script."""
    command = [sys.executable, "-m", "nnx", "train", "spiral", "--epochs", "100000", "--checkpoint", "run.ckpt"]
    process = subprocess.Popen(
        [*command, "--checkpoint-every", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    while not (tmp_path / "run.ckpt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Stopped after" in out
    assert "repeat the command with --resume run.ckpt" in out
    model = nnx.Model.load(tmp_path / "spiral.safetensors")
    assert model.optimizer.iterations == nnx.Model.load(tmp_path / "run.ckpt").optimizer.iterations > 0
