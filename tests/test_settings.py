"""Settings that users assign between calls, or that are NumPy's numbers: they take effect and are saved, or are
refused."""

from __future__ import annotations

import copy
import json
import pickle
import re

import numpy as np
import pytest
from plans import Book

import nnx
from nnx import _kernels

pytestmark = pytest.mark.one_backend


def model_of(optimizer=None, loss=None, last=None, n_outputs=1, kind=nnx.Model):
    np.random.seed(0)
    model = kind()
    layers = nnx.Layer_Dense(4, 9), nnx.Activation_Tanh(), nnx.Layer_Dense(9, n_outputs)
    for layer in (*layers, *([] if last is None else [last])):
        model.add(layer)
    loss = loss or nnx.Loss_MeanSquaredError()
    accuracy = nnx.Accuracy_Categorical() if loss._predicts == "classes" else nnx.Accuracy_Regression()
    model.set(loss=loss, optimizer=optimizer or nnx.Optimizer_SGD(0.1), accuracy=accuracy)
    model.finalize()
    return model


def samples():
    X = np.random.default_rng(1).standard_normal((30, 4))
    return X, X[:, 0]


# NumPy's numbers and arrays


@pytest.mark.parametrize(
    ("thing", "name", "value"),
    [
        (nnx.Loss_BinaryCrossentropy(), "pos_weight", np.array([1.0, 2.0])),
        (nnx.Loss_Pinball(), "quantiles", np.array([0.25, 0.75])),
        (nnx.Loss_Huber(), "delta", np.float32(0.5)),
        (nnx.Activation_LeakyReLU(), "slope", np.float32(0.5)),
        (nnx.Optimizer_Adam(), "clip_norm", np.float32(0.5)),
        (nnx.Optimizer_Adam(), "average", np.float64(0.5)),
        (nnx.Schedule_Step(3), "every", np.int64(2)),
    ],
)
def test_numpys_numbers_and_arrays_that_were_assigned_are_shown_and_described_as_pythons(thing, name, value):
    setattr(thing, name, value)
    assert json.loads(json.dumps(thing.get_config()))[name] == value.tolist()
    assert "array" not in repr(thing)
    assert "np." not in repr(thing)
    assert json.dumps(eval(repr(thing), vars(nnx)).get_config()) == json.dumps(thing.get_config())


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(1)])
def test_a_limit_that_is_a_number_of_numpys_is_described_as_pythons(value):
    assert json.loads(json.dumps(nnx.Optimizer_SGD(clip_value=value).get_config()))["clip_value"] == value.item()


def test_an_array_of_weights_is_saved(tmp_path):
    model = model_of(loss=nnx.Loss_BinaryCrossentropy(), last=nnx.Activation_Sigmoid(), n_outputs=2)
    model.loss.pos_weight = np.array([1.0, 2.0])
    model.save(tmp_path / "model")
    assert nnx.Model.load(tmp_path / "model").loss.pos_weight == [1.0, 2.0]
    assert repr(pickle.loads(pickle.dumps(model))) == repr(copy.deepcopy(model)) == repr(model)


# Rates


def test_without_its_schedule_an_optimizer_has_its_rate_again():
    X, y = samples()
    model = model_of(nnx.Optimizer_SGD(0.1, schedule=nnx.Schedule_Cosine(3)))
    model.train(X, y, epochs=5, print_every=None)
    assert model.optimizer.current_learning_rate == 0
    model.optimizer.schedule = None
    assert model.train(X, y, print_every=None).step_learning_rate.tolist() == [0.1]


def test_a_rate_set_by_hand_stays_where_there_was_no_schedule():
    optimizer = nnx.Optimizer_SGD(0.1)
    optimizer.current_learning_rate = 0.5
    optimizer.schedule = None
    assert optimizer.current_learning_rate == 0.5


# Sentences


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("trained", [False, True])
def test_a_wrong_setting_of_an_optimizer_has_one_sentence(kind, trained):
    X, y = samples()
    model = model_of(kind=kind)
    if trained:
        model.train(X, y, print_every=None)
    model.optimizer.clip_norm = -1
    sentence = "Optimizer_SGD.update_params: clip_norm must be above 0, got -1."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        model.train(X, y, print_every=None)
    if kind is nnx.Model and hasattr(_kernels.backend, "Plan"):
        assert model.explain() == f"It does not train: {sentence}"


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: nnx.Optimizer_SGD(clip_norm=0), ValueError, "Optimizer_SGD: clip_norm must be above 0, got 0."),
        (lambda: nnx.Optimizer_SGD(clip_value=-2), ValueError, "Optimizer_SGD: clip_value must be above 0, got -2."),
        (
            lambda: nnx.Schedule_Step(milestones=[1, 2.5]),
            TypeError,
            "Schedule_Step: milestones[1] must be a whole number, got 2.5.",
        ),
        (lambda: nnx.Schedule()(0), NotImplementedError, "Schedule does not define __call__(step)."),
        (
            lambda: nnx.Loss_Pinball([[0.5], 0.6]),
            TypeError,
            "Loss_Pinball: quantiles[0] must be a number, got [0.5].",
        ),
        (
            lambda: nnx.Loss_Pinball((0.5,)).forward([[1.0, 2.0]], [1.0]),
            ValueError,
            "Loss_Pinball.forward: y_true must have shape (1, 2), a column for each target, got (1,).",
        ),
        (
            lambda: nnx.Optimizer_Adam(schedule=abs).get_config(),
            TypeError,
            "Optimizer_Adam.get_config: schedule must be a built-in schedule, which a file can hold, got "
            "<built-in function abs>.",
        ),
    ],
)
def test_sentences(make, error, sentence):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == sentence


def test_a_checkpoint_of_another_setting_is_refused_with_the_two_values_alone(tmp_path):
    X, y = samples()
    model_of(nnx.Optimizer_Adam(average=0.5)).train(X, y, print_every=None, checkpoint=tmp_path / "c")
    with pytest.raises(nnx.ModelFileError) as caught:
        model_of(nnx.Optimizer_Adam()).train(X, y, epochs=2, print_every=None, resume=tmp_path / "c")
    assert str(caught.value).endswith(
        "its optimizer is Optimizer_Adam(average=0.5), here Optimizer_Adam(average=None)."
    )


# Last layers


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize(
    ("loss", "n_outputs"), [(nnx.Loss_Pinball(), 3), (nnx.Loss_Poisson(), 1), (nnx.Loss_Hinge(), 1)], ids=repr
)
def test_a_learnt_slope_at_the_end_has_the_figures_of_a_fixed_one(kind, loss, n_outputs):
    X, y = samples()
    y = (y > 0).astype(int)
    figures = []
    for last in (nnx.Activation_LeakyReLU(0.25), nnx.Activation_PReLU(slope=0.25)):
        model = model_of(loss=loss, last=last, n_outputs=n_outputs, kind=kind)
        model.accuracy.precision = 0.3
        figures.append((model.evaluate(X, y, silent=True), model.report(X, y).to_dict()))
    assert figures[0] == figures[1]
