"""`train_many`: models that train at the same time get the same bytes as one after the other."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from plans import Book, Net, bits, build, data_for, left_behind

import nnx
from nnx import many
from nnx._base import random
from nnx._base.interrupt import Interrupt, stopped_by

NET = Net("2-9,relu,dropout,9-3,softmax")
X, Y = data_for(NET, 60)


def make(kind=nnx.Model, seeded=False):
    model = build(NET, kind=kind)
    if not seeded:
        model.layers[2].seed = None
    return model


def make_all():
    """Return models of each way of running, and keywords that draw seeds in each possible combination."""
    models = [make(), make(Book), make(), make(seeded=True), make()]
    models[2].set(accuracy=type("Own_Accuracy", (nnx.Accuracy_Categorical,), {})())
    keywords = [
        {"epochs": 3, "batch_size": 20, "shuffle": True},
        {"epochs": 2, "batch_size": 20, "shuffle": True, "validation_split": 0.2},
        {"epochs": 4, "batch_size": 7},
        {"epochs": 2, "batch_size": 20, "shuffle": True, "validation_split": 0.2, "seed": 3},
        {"epochs": 5, "callbacks": [nnx.EarlyStopping(patience=2, monitor="loss")], "shuffle": True},
    ]
    return models, keywords


def one_after_the_other():
    np.random.seed(4)
    models, keywords = make_all()
    for model, each in zip(models, keywords, strict=True):
        model.train(X, Y, print_every=None, **each)
    return [bits(left_behind(model)) for model in models]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_models_get_the_bytes_of_one_after_the_other(threads):
    expected = one_after_the_other()
    np.random.seed(4)
    models, keywords = make_all()
    runs = [nnx.Run(model, X, Y, **each) for model, each in zip(models, keywords, strict=True)]
    histories = nnx.train_many(runs, threads=threads)
    assert all(history is model.history for history, model in zip(histories, models, strict=True))
    for model, left in zip(models, expected, strict=True):
        found = bits(left_behind(model))
        for name in left:  # the global generator is the same at the end, too
            assert found[name] == left[name] or name.startswith("generator"), name
    assert found["generator"] == left["generator"]
    assert found["generator's place"] == left["generator's place"]


def test_runs_that_go_on_from_checkpoints_draw_what_they_would_draw_alone(tmp_path):
    def trained(at_once):
        np.random.seed(4)
        models = [make() for _ in range(3)]
        keywords = {"epochs": 4, "batch_size": 20, "shuffle": True, "print_every": None}
        models[0].train(X, Y, **{**keywords, "epochs": 2}, checkpoint=tmp_path / "c")
        resumed = [{"resume": tmp_path / "c"}, {}, {"resume": tmp_path / "c"}]
        if at_once:
            nnx.train_many([nnx.Run(m, X, Y, **keywords, **r) for m, r in zip(models, resumed, strict=True)])
        else:
            for model, each in zip(models, resumed, strict=True):
                model.train(X, Y, **keywords, **each)
        return [bits(left_behind(model)) for model in models]

    assert trained(True) == trained(False)


def test_runs_really_go_on_at_once():
    """Two runs wait for each other in their first epoch."""
    met = threading.Barrier(2, timeout=60)
    callbacks = [[lambda run: met.wait() if run.epoch == 1 else None] for _ in range(2)]
    nnx.train_many([nnx.Run(make(), X, Y, epochs=2, callbacks=each) for each in callbacks], threads=2)


def test_no_more_threads_than_asked_for_train_at_once():
    inside, most, lock = [0], [0], threading.Lock()

    class Count(nnx.Callback):
        def on_train_begin(self, run):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.005)

        def on_train_end(self, run):
            with lock:
                inside[0] -= 1

    nnx.train_many([nnx.Run(make(), X, Y, epochs=2, callbacks=[Count()]) for _ in range(7)], threads=2)
    assert most[0] <= 2
    assert inside[0] == 0


def test_the_seeds_of_a_thread_are_its_own():
    np.random.seed(1)
    with random.recorded() as drawn:
        random.draw_seeds(2)
    assert len(set(drawn)) == 2
    np.random.seed(1)
    with random.given(drawn[:1]):
        assert random.draw_seed() == drawn[0]
        assert random.draw_seed() == drawn[0]  # there is no other that was given, so the generator gives one
    assert random.draw_seed() == drawn[1]


# Errors


class Failing(nnx.Callback):
    def on_epoch_end(self, run):
        if run.epoch == 2:
            raise LookupError("no more")


class Endless(nnx.Callback):
    """Lets the run continue only after another one has failed, so that it cannot end before."""

    def __init__(self):
        self.began = threading.Event()

    def on_epoch_end(self, run):
        self.began.set()
        time.sleep(0.001)


def notes_of(error):
    return getattr(error, "__notes__", ["This was runs[1] of train_many."] if sys.version_info < (3, 11) else [])


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_an_error_in_one_run_stops_the_others(kind):
    models = [make(kind) for _ in range(3)]
    endless = Endless()
    runs = [
        nnx.Run(models[0], X, Y, epochs=10**6, callbacks=[endless], batch_size=20),
        nnx.Run(models[1], X, Y, epochs=10**6, callbacks=[lambda run: endless.began.wait(60), Failing()]),
        nnx.Run(models[2], X, Y),
    ]
    with pytest.raises(LookupError, match="no more") as caught:
        nnx.train_many(runs, threads=2)
    assert notes_of(caught.value) == ["This was runs[1] of train_many."]
    assert len(models[1].history.loss) == 2
    assert models[0].optimizer.iterations == len(models[0].history) > 0
    assert models[2].history is None
    for model in models:  # nothing of it remains
        model.train(X, Y, print_every=None)


def test_all_runs_are_checked_before_the_first_one_starts():
    models = [make() for _ in range(2)]
    before = [bits(left_behind(model)) for model in models]  # NumPy's generator too
    with pytest.raises(ValueError, match=r"^Model\.train: X must have shape") as caught:
        nnx.train_many([nnx.Run(models[0], X, Y, shuffle=True), nnx.Run(models[1], X[:, :1], Y)])
    assert notes_of(caught.value) == ["This was runs[1] of train_many."]
    assert [bits(left_behind(model)) for model in models] == before


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        (lambda: nnx.Run(5, X, Y), TypeError, r"^Run: model must be a Model, got 5\."),
        (lambda: nnx.Run(make(), X, Y, epoch=3), TypeError, r"^Run: Model\.train has no keyword 'epoch'\."),
        (lambda: nnx.Run(make(), X, Y, print_every=1), ValueError, r"^Run: print_every must be None, got 1: lines"),
        (lambda: nnx.Run(make(), X, Y, progress=True), ValueError, r"^Run: progress must be False, got True: lines"),
        (lambda: nnx.train_many(5), TypeError, r"^train_many: runs must be a sequence of Run objects, got 5\."),
        (lambda: nnx.train_many([make()]), TypeError, r"^train_many: runs must be a sequence of Run objects, got"),
        (lambda: nnx.train_many([], threads=0), ValueError, r"^train_many: threads must be a whole number from 1"),
        (lambda: nnx.train_many([], progress=1), TypeError, r"^train_many: progress must be True or False, got 1\."),
    ],
)
def test_wrong_arguments_are_refused(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong()


def test_no_runs_at_all_have_no_histories():
    assert nnx.train_many([]) == []


def test_a_system_without_threads_trains_all_the_same(monkeypatch):
    expected = one_after_the_other()

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    np.random.seed(4)
    models, keywords = make_all()
    runs = [nnx.Run(model, X, Y, **each) for model, each in zip(models, keywords, strict=True)]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        nnx.train_many(runs, threads=3)
    assert [bits(left_behind(m))["layers[0].weights"] for m in models] == [e["layers[0].weights"] for e in expected]


# What runs must not share


def two(change, first=None, second=None):
    models = [make(), make()]
    change(*models)
    runs = [nnx.Run(models[0], X, Y, **(first or {})), nnx.Run(models[1], X, Y, **(second or {}))]
    return runs


def share(name):
    def change(a, b):
        setattr(b, name, getattr(a, name))

    return change


def share_layer(a, b):
    b.layers[0] = a.layers[0]
    b.finalize()


def share_memory(a, b):
    b.layers[3].weights = a.layers[3].weights[:]


def test_a_model_that_is_given_twice_is_refused():
    model = make()
    with pytest.raises(ValueError, match=r"^train_many: runs\[1\] must not have its Model in common with runs\[0\]\."):
        nnx.train_many([nnx.Run(model, X, Y), nnx.Run(model, X, Y)])


CALLBACK = nnx.EarlyStopping(monitor="loss")


class Sampler:
    def __init__(self):
        self.generator = np.random.default_rng(0)

    def order(self, epoch, n_samples):
        return self.generator.permutation(n_samples)


SAMPLER = Sampler()


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (lambda: two(share("optimizer")), r"must not have its Optimizer_Adam in common"),
        (lambda: two(share("loss")), r"must not have its Loss_CategoricalCrossentropy in common"),
        (lambda: two(share_layer), r"must not have its Layer_Dense in common"),
        (lambda: two(share_memory), r"must not share memory with runs\[0\] that one of them changes"),
        (lambda: two(lambda *_: None, *[{"callbacks": [CALLBACK]}] * 2), r"must not have its EarlyStopping in common"),
        (
            lambda: two(lambda *_: None, *[{"shuffle": np.random.permutation}] * 2),
            r"must not have the function that gives the order in common",
        ),
        (
            lambda: two(lambda *_: None, {"shuffle": SAMPLER.order}, {"shuffle": SAMPLER.order}),
            r"must not have the function that gives the order in common",
        ),
    ],
)
def test_runs_that_share_what_training_changes_are_refused(runs, sentence):
    with pytest.raises(ValueError, match=r"^train_many: runs\[1\] " + sentence):
        nnx.train_many(runs())


def test_runs_that_write_one_file_are_refused(tmp_path):
    path = tmp_path / "file"
    for first, second, sentence in (
        ({"checkpoint": path}, {"checkpoint": str(path)}, "must not have the file .* in common"),
        ({"checkpoint": path}, {"callbacks": [nnx.CSVLog(path)]}, "must not have the file .* in common"),
        ({"checkpoint": path}, {"resume": path}, r"must not resume .*, which runs\[0\] writes"),
    ):
        with pytest.raises(ValueError, match=sentence):
            nnx.train_many(two(lambda *_: None, first, second))


def test_data_that_are_another_models_parameters_are_refused():
    a, b = make(), make()
    a.layers[0].weights = np.ones((2, 9))
    with pytest.raises(ValueError, match="must not share memory"):
        nnx.train_many([nnx.Run(a, X, Y), nnx.Run(b, a.layers[0].weights.T, np.arange(9) % 3)])


def test_models_that_were_trained_on_the_same_arrays_are_not_refused():
    models = [make(), make()]
    for model in models:
        model.train(X, Y, print_every=None)
    nnx.train_many([nnx.Run(model, X, Y, epochs=2) for model in models])


# Interruptions


@pytest.fixture
def pythons_own_reaction():
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to this process")
@pytest.mark.usefixtures("pythons_own_reaction")
@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_ctrl_c_stops_all_runs_after_whole_steps(kind, tmp_path):
    models = [make(kind) for _ in range(4)]
    n_threads = threading.active_count()  # bars and pools of other tests
    both = threading.Barrier(2, timeout=60)

    def press(run):
        if run.epoch == 2 and both.wait() == 0:
            os.kill(os.getpid(), signal.SIGINT)

    class Press(nnx.Callback):
        on_epoch_end = staticmethod(press)

    runs = [
        nnx.Run(m, X, Y, epochs=10**7, batch_size=20, callbacks=[lambda run: press(run)], checkpoint=tmp_path / str(i))
        for i, m in enumerate(models)
    ]
    with pytest.raises(KeyboardInterrupt):
        nnx.train_many(runs, threads=2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert threading.active_count() == n_threads
    assert models[2].history is models[3].history is None
    for i, model in enumerate(models[:2]):
        assert model.optimizer.iterations == len(model.history) >= 6
        held = nnx.Model.load(tmp_path / str(i)) if kind is nnx.Model else model
        assert held.optimizer.iterations == model.optimizer.iterations
        np.testing.assert_array_equal(held.layers[0].weights, model.layers[0].weights)


def test_an_event_stops_a_thread_as_ctrl_c_does_the_main_thread():
    event = threading.Event()
    with stopped_by(event), Interrupt() as interrupt:
        interrupt.check()
        event.set()
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        assert interrupt.stopped
        with Interrupt() as inner:  # of a training in a callback; the outer training must end between two steps
            inner.check()
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        event.clear()
    with stopped_by(event), Interrupt() as interrupt:  # as good as before
        event.set()
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()
        event.clear()
    with Interrupt() as interrupt:
        event.set()
        interrupt.check()


# What is shown


def test_a_bar_counts_the_epochs_of_all_runs(capsys):
    runs = [nnx.Run(make(), X, Y, epochs=n) for n in (2, 3)]
    stopping = [nnx.EarlyStopping("loss", patience=1, min_delta=1e9)]  # after two of its five epochs
    runs.append(nnx.Run(make(), X, Y, epochs=5, callbacks=stopping))
    nnx.train_many(runs, progress=True)
    assert "10/10" in capsys.readouterr().err


def test_a_bar_moves_while_a_run_goes_on():
    """The run waits after its second epoch until the bar has shown it."""
    shown = []

    class Bar:
        n = 0

        def update(self, n):
            self.n += n
            shown.append(self.n)

        def close(self):
            pass

    def wait(run):
        end = time.monotonic() + 60
        while run.epoch == 2 and 2 not in shown and time.monotonic() < end:
            time.sleep(0.01)

    model = make()
    model.train(X, Y, epochs=3, print_every=None)  # whose history is not that of the run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(many.printing, "progress_bar", lambda total, done, unit: Bar())
        nnx.train_many([nnx.Run(model, X, Y, epochs=3, callbacks=[wait])], progress=True)
    assert 2 in shown
    assert shown[-1] == 3


def test_warnings_come_once_a_run_and_before_the_first_step():
    rows = np.argsort(Y, kind="stable")
    X_sorted, y_sorted = np.tile(X[rows], (3, 1)), np.repeat(np.arange(3), 60)
    with pytest.warns(UserWarning, match="the rows are sorted by class") as caught:
        nnx.train_many([nnx.Run(make(), X_sorted, y_sorted, batch_size=16) for _ in range(2)])
    assert [each.filename for each in caught] == [many.__file__, many.__file__]


def test_a_train_of_your_own_is_called():
    class Own(nnx.Model):
        def train(self, X, y, **keywords):
            self.called = keywords
            return super().train(X, y, **keywords)

    model = make(Own)
    assert nnx.train_many([nnx.Run(model, X, Y, epochs=2)])[0] is model.history
    assert model.called == {"threads": 1, "print_every": None, "epochs": 2}


def test_a_run_hands_over_keywords_in_the_order_in_which_train_does(monkeypatch):
    seen = []
    monkeypatch.setattr(nnx.Model, "_train", lambda self, X, y, options, **_: seen.append(options))
    keywords = {name: object() for name in many.KEYWORDS} | {"print_every": None, "progress": False}
    make().train(X, Y, **keywords)
    nnx.Run(make(), X, Y, **keywords)._check()
    assert seen == [tuple(keywords.values())] * 2
