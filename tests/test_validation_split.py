"""Rows that `train` holds out itself: the choice of rows, that training does not use them, and resumed runs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from networks import binary, classifier, parameters_of, regression
from plans import Book, Net, bits, build, data_for, left_behind
from test_checkpoints import killed_after, without_generator

import nnx
from nnx.engine import training
from nnx.engine.classes import held_out_rows
from nnx.engine.job import Split

NET = Net("3-6,relu,6-3,softmax")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("sizes", [[100], [50, 50], [70, 20, 10], [5, 3, 1, 91], [1] * 40, [7] * 11])
def test_each_class_has_its_share_within_one_row(share, sizes):
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    found = [held_out_rows(Split(share, seed), classes, len(classes)) for seed in range(20)]
    for rows in found:
        assert abs(np.count_nonzero(rows) - share * len(rows)) <= 0.5
        counts = np.bincount(classes[rows], minlength=len(sizes))
        assert (np.abs(counts - share * np.array(sizes)) < 1).all()
    if 0 < np.count_nonzero(found[0]) < len(classes):
        assert len({rows.tobytes() for rows in found}) > 10


def test_every_row_has_its_chance():
    classes = np.repeat([0, 1, 2], [15, 10, 5])
    times = sum(held_out_rows(Split(0.2, seed), classes, 30).astype(int) for seed in range(2000))
    assert (np.abs(times / 2000 - 0.2) < 0.05).all()


@pytest.fixture
def jobs(monkeypatch):
    """Return a list of the jobs of all calls of `train`."""
    found = []
    run = training.train

    def recording(job, report):
        found.append(job)
        return run(job, report)

    monkeypatch.setattr(training, "train", recording)
    return found


def held_out_of(share, seed, y):
    return held_out_rows(Split(share, seed), y, len(y))


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("one_hot", [False, True])
def test_training_is_that_of_the_other_rows(kind, one_hot):
    X, y = data_for(NET, 50)
    targets = np.eye(3)[y] if one_hot else y
    weights = np.random.default_rng(5).uniform(size=50)
    rows = held_out_of(0.2, 11, y)
    assert np.count_nonzero(rows) == 10
    model, twin = build(NET, kind=kind), build(NET, kind=kind)
    common = {"epochs": 3, "batch_size": 16, "shuffle": True, "seed": 11, "print_every": None}
    model.train(X, targets, validation_split=0.2, sample_weight=weights, **common)
    twin.train(
        *(X[~rows], targets[~rows]),
        sample_weight=weights[~rows],
        validation_data=(X[rows], targets[rows], weights[rows]),
        **common,
    )
    assert bits(left_behind(model)) == bits(left_behind(twin))
    assert len(model.history.validation_loss) == 3


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (regression, np.arange(30.0)),
        (lambda: regression(2), np.arange(60.0).reshape(30, 2)),
        (lambda: binary(3), np.arange(90).reshape(30, 3) % 2),
    ],
)
def test_without_classes_any_rows_are_drawn(jobs, model, y):
    model = model()
    X = np.random.default_rng(0).normal(size=(30, 2))
    model.train(X, y, validation_split=0.1, seed=1, print_every=None)
    rows = held_out_rows(Split(0.1, 1), None, 30)
    assert np.count_nonzero(rows) == 3
    np.testing.assert_array_equal(jobs[0].data.X, X[~rows].astype(np.float32))
    np.testing.assert_array_equal(jobs[0].held_out.X, X[rows].astype(np.float32))
    if isinstance(model.accuracy, nnx.Accuracy_Regression):  # it learns only from the training targets
        assert model.accuracy.precision == pytest.approx(np.std(y[~rows]) / 250)


def test_a_single_output_is_split_by_class(jobs):
    y = np.zeros(100, int)
    y[:10] = 1
    for targets in (y, y.reshape(-1, 1)):
        model = binary()
        model.train(np.arange(200.0).reshape(100, 2), targets, validation_split=0.2, seed=3, print_every=None)
        kept = jobs[-1].data.X[:, 0] / 2
        assert np.count_nonzero(kept < 10) == 8
        assert len(kept) == 80


def test_the_split_is_apart_from_the_shuffling_and_repeats_itself(jobs):
    X, y = data_for(NET, 50)
    for shuffle in (False, True):
        build(NET).train(X, y, validation_split=0.2, seed=5, shuffle=shuffle, print_every=None)
    first, second = jobs
    assert np.array_equal(first.data.X, second.data.X)
    assert not np.array_equal(second.order.draw(1, 50)[:10], np.flatnonzero(held_out_of(0.2, 5, y)))
    found = []
    for seed in (7, 7, 8):
        np.random.seed(seed)
        build(NET).train(X, y, validation_split=0.2, print_every=None)
        found.append(jobs[-1].data.X.tobytes())
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("seed", [None, 6])
@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_resumed_run_draws_the_same_rows(tmp_path, kind, seed, step):
    X, y = data_for(NET, 50)
    arguments = {"epochs": 3, "batch_size": 14, "shuffle": True, "seed": seed, "print_every": None}
    arguments |= {"validation_split": 0.2, "sample_weight": np.linspace(0, 1, 50), "class_weight": "balanced"}
    whole, interrupted, resumed = (build(NET, kind=kind) for _ in range(3))
    np.random.seed(3)
    whole.train(X, y, **arguments)
    np.random.seed(3)
    with killed_after(step):
        interrupted.train(X, y, checkpoint=tmp_path / "c", **arguments)
    state = np.random.get_state()[2]
    resumed.train(X, y, resume=tmp_path / "c", **arguments)
    assert without_generator(left_behind(resumed)) == without_generator(left_behind(whole))
    assert np.random.get_state()[2] == state


def test_another_split_is_not_gone_on_with(tmp_path):
    X, y = data_for(NET, 50)

    def train(**arguments):
        build(NET).train(X, y, print_every=None, **arguments)

    train(validation_split=0.2, seed=5, checkpoint=tmp_path / "c")
    where = re.escape(repr(str(tmp_path / "c")))
    for given, sentence in (
        ({"validation_split": 0.3, "seed": 5}, rf"validation_split must be that of {where}, 0.2, got 0.3."),
        ({"validation_split": 0.2, "seed": 4}, rf"seed must be that of {where}, 5, got 4."),
        ({"seed": 5}, rf"validation_split must be that of {where}, 0.2, got None."),
    ):
        with pytest.raises(ValueError, match=f"^Model.train: {sentence}$"):
            train(epochs=2, resume=tmp_path / "c", **given)
    train(checkpoint=tmp_path / "d")
    with pytest.raises(ValueError, match=r"^Model.train: validation_split must be that of .*, None, got 0.2.$"):
        train(epochs=2, validation_split=0.2, resume=tmp_path / "d")
    nnx.Model.load(tmp_path / "c").save(tmp_path / "m")
    with pytest.raises(nnx.ModelFileError, match="is not a checkpoint"):
        train(validation_split=0.2, resume=tmp_path / "m")


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"validation_split": 0}, ValueError, "validation_split must be a number above 0 and below 1, got 0."),
        ({"validation_split": 1.0}, ValueError, "validation_split must be a number above 0 and below 1, got 1.0."),
        ({"validation_split": -0.5}, ValueError, "validation_split must be a number above 0 and below 1, got -0.5."),
        ({"validation_split": "a"}, TypeError, "validation_split must be a number, got 'a'."),
        ({"validation_split": True}, TypeError, "validation_split must be a number, got True."),
        (
            {"validation_split": 0.01},
            ValueError,
            "validation_split must leave rows for training and for validation, got 0.01 of 20. Give more rows or ",
        ),
        (
            {"validation_split": 0.99},
            ValueError,
            "validation_split must leave rows for training and for validation, got 0.99 of 20. Give more rows or ",
        ),
        (
            {"validation_split": 0.5, "validation_data": (np.ones((2, 2)), [0, 1])},
            ValueError,
            "validation_split must not be given together with validation_data.",
        ),
        (
            {"validation_split": 0.1, "seed": 0, "sample_weight": [0.0] * 19 + [1.0]},
            ValueError,
            "sample_weight of the held-out rows must leave at least one sample, got 0 for all 2.",
        ),
    ],
)
def test_bad_splits_are_refused_before_anything_changes(arguments, error, sentence):
    model = classifier()
    before = parameters_of(model)
    with pytest.raises(error, match=f"^{re.escape(f'Model.train: {sentence}')}"):
        model.train(np.ones((20, 2)), np.arange(20) % 3, **arguments)
    assert parameters_of(model) == before
    assert model.history is None
