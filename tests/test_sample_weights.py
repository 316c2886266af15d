"""Weights of samples and of classes: for every loss of the vocabulary, in both ways of running; and what is refused."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from differences import assert_gradient
from networks import binary, classifier, parameters_of, regression
from plans import NETS, Book, Net, assert_alike, bits, build, left_behind
from plans import data_for as data_of_net
from plans import train as train_net
from test_checkpoints import killed_after, without_generator
from test_each_loss import data_for, drawn, each_kind, each_setting, network, outputs, trained

import nnx
from nnx.engine import plan


def weights_for(n, seed=7):
    """Return weights, some of which are 0."""
    weights = np.random.default_rng(seed).uniform(0.1, 3, n)
    weights[::5] = 0
    return weights


def without_counts(left):
    """With weights, counts are sums of weights, which are floats."""
    return bits({name: value for name, value in left.items() if "accumulated_count" not in name})


# Values


@each_setting
def test_the_mean_of_a_batch_and_of_a_pass_is_weighted(dtype, kind, settings):
    loss = kind(**settings)
    m = outputs(kind)[-1]
    losses, counted = [], []
    for seed, n in enumerate((5, 67)):
        p, y = drawn(kind, n, m, seed, dtype)
        weights = weights_for(n, seed)
        each = loss.forward(p, y).astype(np.float64)
        found = loss.calculate(p, y, sample_weight=weights)
        assert found.dtype == dtype
        assert float(found) == pytest.approx(np.average(each, weights=weights), rel=1e-5)
        losses.append(each)
        counted.append(weights)
    losses, counted = np.concatenate(losses), np.concatenate(counted)
    assert float(loss.calculate_accumulated()) == pytest.approx(np.average(losses, weights=counted), rel=1e-5)


@each_setting
@pytest.mark.usefixtures("float64")
def test_gradient_of_the_weighted_mean_matches_central_differences(kind, settings):
    for m in outputs(kind):
        model = network(kind, settings, "2-4,4-m", m, model=Book())
        X, y = data_for(kind, 7, m)
        weights = weights_for(7)
        model.backward(model.forward(X, training=True), y, sample_weight=weights)
        loss = functools.partial(weighted_loss, model, X, y, weights)
        for layer in model.trainable_layers:
            assert_gradient(layer.dweights.copy(), loss, layer.weights)
            assert_gradient(layer.dbiases.copy(), loss, layer.biases)


def weighted_loss(model, X, y, weights):
    return float(model.loss.calculate(model.forward(X, training=False), y, sample_weight=weights))


@pytest.mark.parametrize("layers", ["2-64,64-m", "2-9,9-5,5-m", "2-40,40-40,40-m"])
@each_setting
def test_plan_and_layer_by_layer_agree(dtype, planned, backend, kind, settings, layers):
    for m in outputs(kind):
        X, y = data_for(kind, 53, m, dtype=dtype)
        weights, others = weights_for(53), weights_for(53, 8)
        arguments = {"epochs": 3, "batch_size": 20, "shuffle": True, "seed": 1, "sample_weight": weights}
        found, expected = (
            (
                trained(model, X, y, **arguments),
                model.evaluate(X, y, batch_size=15, silent=True, sample_weight=others),
            )
            for model in (network(kind, settings, layers, m, dtype, each) for each in (nnx.Model(), Book()))
        )
        tolerance = 1e-9 if dtype == np.float64 else 2e-3
        assert_alike(found[0], expected[0], tolerance)
        assert found[1]["loss"] == pytest.approx(expected[1]["loss"], rel=tolerance)
        assert found[1]["accuracy"] == pytest.approx(expected[1]["accuracy"], abs=0.05 if tolerance > 1e-6 else 1e-12)
    assert planned == [backend != "numpy", False] * 2


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_a_regression_takes_weights_and_counts_hits_by_them(kind):
    X = np.random.default_rng(0).normal(size=(40, 2))
    y, weights = X[:, :1] * 2, weights_for(40)
    model = regression()
    model.__class__ = kind
    model.train(X, y, sample_weight=weights, epochs=2, batch_size=16, print_every=None)
    model.accuracy.precision = 1.0
    expected = np.average(np.abs(model.predict(X) - y)[:, 0] < 1, weights=weights)
    assert 0 < expected < 1
    found = model.evaluate(X, y, sample_weight=weights, batch_size=16, silent=True)
    assert found["accuracy"] == pytest.approx(expected)
    assert model.accuracy.calculate(model.predict(X), y.astype(np.float32), sample_weight=weights) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_validation_is_an_evaluation_with_its_own_weights(kind):
    net = Net("3-6,relu,6-3,softmax")
    X, y = data_of_net(net, 40)
    weights, others = weights_for(40), weights_for(40, 8)
    model = build(net, kind=kind)
    model.train(X, y, sample_weight=weights, validation_data=(X, y, others), batch_size=16, print_every=None)
    for given, same in ((others, True), (weights, False), (None, False)):
        found = model.evaluate(X, y, sample_weight=given, batch_size=16, silent=True)
        assert bool(found["loss"] == model.history.validation_loss[0]) is same
    expected = np.average(np.argmax(model.predict(X), axis=1) == y, weights=others)
    assert model.history.validation_accuracy[0] == pytest.approx(expected)


@pytest.mark.parametrize("net", NETS, ids=str)
def test_every_network_agrees(net):
    X, y = data_of_net(net, 41)
    arguments = {"epochs": 2, "batch_size": 16, "sample_weight": weights_for(41)}
    found, expected = (train_net(build(net, kind=kind), X, y, **arguments) for kind in (nnx.Model, Book))
    assert_alike(found, expected, 1e-9)


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("net", NETS, ids=str)
def test_equal_weights_leave_the_bits_of_none(dtype, net, kind):
    X, y = data_of_net(net, 41)
    for arguments in ({"epochs": 2, "batch_size": 16, "shuffle": True, "seed": 3}, {"epochs": 2}):
        expected = without_counts(train_net(build(net, kind=kind, dtype=dtype), X, y, **arguments))
        for weight in (1, 2):
            weights = np.full(41, weight, np.float64)
            left = train_net(build(net, kind=kind, dtype=dtype), X, y, sample_weight=weights, **arguments)
            left["loss.accumulated_sum"] /= weight
            left["accuracy.accumulated_sum"] /= weight
            assert without_counts(left) == expected


@pytest.mark.few
@pytest.mark.parametrize("layers", ["2-64,64-m", "2-9,9-m"])
@each_setting
def test_bits_do_not_depend_on_the_number_of_threads(compiled, monkeypatch, kind, settings, layers):
    for name in ("LEAST_STEP", "LEAST_CALL"):
        monkeypatch.setattr(plan, name, 0)
    monkeypatch.setattr(plan, "LEAST_ROWS", 1)
    for m in outputs(kind):
        X, y = data_for(kind, 150, m, dtype="float32")
        arguments = {"epochs": 2, "batch_size": 67, "shuffle": True, "seed": 2, "sample_weight": weights_for(150)}
        found = [
            bits(trained(network(kind, settings, layers, m, "float32"), X, y, threads=threads, **arguments))
            for threads in (1, 2, 3, 4)
        ]
        assert found[1:] == found[:1] * 3


@pytest.mark.parametrize("kind_of_model", [nnx.Model, Book])
@pytest.mark.parametrize("layers", ["2-64,64-m", "2-9,9-5,5-m"])
@each_kind
def test_a_weight_of_zero_is_absence_and_of_two_is_presence_twice(kind, layers, kind_of_model):
    for m in outputs(kind):
        X, y = data_for(kind, 30, m)
        weights = np.resize([0.0, 1.0, 2.0], 30)
        rows = np.repeat(np.arange(30), weights.astype(int))
        found, expected = (network(kind, {}, layers, m, model=kind_of_model()) for _ in range(2))
        for model in (found, expected):
            model.accuracy.precision = 0.5
        left = trained(found, X, y, epochs=3, sample_weight=weights)
        right = trained(expected, X[rows], y[rows], epochs=3)
        for name in ("loss", "accuracy", "step_loss", "step_accuracy", "regularization_loss"):
            np.testing.assert_allclose(left[f"history.{name}"], right[f"history.{name}"], rtol=1e-9, err_msg=name)
        for a, b in zip(found.trainable_layers, expected.trainable_layers, strict=True):
            np.testing.assert_allclose(a.weights, b.weights, rtol=1e-7, atol=1e-9)
        figures = found.evaluate(X, y, sample_weight=weights, silent=True)
        assert figures == pytest.approx(found.evaluate(X[rows], y[rows], silent=True))
        some = weights > 0
        assert figures == pytest.approx(found.evaluate(X[some], y[some], sample_weight=weights[some], silent=True))


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_cells_count_as_much_as_their_sample(kind):
    model = build(Net("3-6,relu,6-3,sigmoid", "binary", "cells"), kind=kind)
    X, y = data_of_net(Net("3-6,relu,6-3,sigmoid", "binary", "cells"), 20)
    weights = weights_for(20)
    hits = (model.predict(X) > 0.5) == y
    expected = np.average(hits, axis=0, weights=weights).mean()
    assert model.evaluate(X, y, sample_weight=weights, silent=True)["accuracy"] == pytest.approx(expected)
    assert model.evaluate(X, y, sample_weight=weights, batch_size=6, silent=True)["accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_a_batch_without_weight_has_no_loss_and_no_gradient(kind):
    net = Net("3-6,relu,6-2,softmax")
    X, y = data_of_net(net, 20)
    model = build(net, "SGD", kind=kind, weight_regularizer_l2=1e-3)
    model.train(X, y, batch_size=10, sample_weight=np.repeat([0.0, 1.0], 10), print_every=None)
    twin = build(net, "SGD", kind=kind)
    twin.train(X, y, batch_size=10, sample_weight=np.repeat([1.0, 0.0], 10), print_every=None)
    assert model.history.step_data_loss[0] == model.history.step_accuracy[0] == 0
    assert model.history.step_data_loss[1] > 0
    assert model.history.data_loss[0] == pytest.approx(model.history.step_data_loss[1], rel=1e-6)
    assert model.history.step_regularization_loss[0] > 0
    assert not twin.layers[0].dweights.any()
    assert not twin.layers[-1].dinputs.any()


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_the_loss_of_a_sample_without_weight_may_be_infinite(kind):
    net = Net("3-6,relu,6-1,linear", "squared", "near")
    X, y = data_of_net(net, 20)
    weights = np.ones(20)
    weights[4] = 0
    expected = train_net(build(net, kind=kind, dtype="float32"), X, y, epochs=2, sample_weight=weights)
    y[4] = 1e30  # whose square float32 cannot hold
    model = build(net, kind=kind, dtype="float32")
    model.accuracy.precision = expected["accuracy.precision"]
    assert bits(train_net(model, X, y, epochs=2, sample_weight=weights)) == bits(expected)


def test_a_call_with_weights_is_not_taken_for_the_last_one(planned):
    X, y = data_of_net(Net("4-8,relu,8-2,softmax"), 20)
    weights = weights_for(20)
    found, expected = (build(Net("4-8,relu,8-2,softmax"), kind=kind) for kind in (nnx.Model, Book))
    for given in (None, None, weights, weights, None, weights + 1, None, None):
        for model in (found, expected):
            model.train(X, y, print_every=None, sample_weight=given)
        assert_alike(left_behind(found), left_behind(expected), 1e-9)


def test_weights_are_copied_and_may_be_anything_that_holds_numbers():
    X, y = data_of_net(Net("4-3,softmax"), 6)
    found = []
    for weights in ([1, 0, 2, 1, 0, 3], np.array([1, 0, 2, 1, 0, 3], np.float32)[::1], (1.0, 0, 2, 1, 0, 3)):
        model = build(Net("4-3,softmax"))
        found.append(bits(train_net(model, X, y, sample_weight=weights, epochs=2)))
    assert found[0] == found[1] == found[2]
    model = build(Net("4-3,softmax"))
    flags = train_net(model, X, y, sample_weight=np.array([1, 0, 1, 1, 0, 1], bool))
    assert flags["loss.accumulated_count"] == 4.0


# Classes


@pytest.mark.parametrize("one_hot", [False, True])
def test_class_weights_are_weights_of_samples(one_hot):
    net = Net("3-6,relu,6-3,softmax")
    X, y = data_of_net(net, 40)
    y[:20] = 2
    targets = np.eye(3)[y] if one_hot else y
    counts = np.bincount(y)
    mine = weights_for(40)
    for given, each in (
        ({0: 2.0, 2: 0.5}, [2.0, 1.0, 0.5]),
        ({np.int64(1): 0}, [1.0, 0.0, 1.0]),
        ([1, 2, 3], [1.0, 2.0, 3.0]),
        (np.array([0.5, 0, 1]), [0.5, 0.0, 1.0]),
        ("balanced", 40 / (3 * counts)),
    ):
        for weights in (None, mine):
            expected = np.asarray(each)[y] * (1 if weights is None else weights)
            found = train_net(build(net), X, targets, epochs=2, class_weight=given, sample_weight=weights)
            assert bits(found) == bits(train_net(build(net), X, targets, epochs=2, sample_weight=expected))


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
@pytest.mark.parametrize("loss", ["binary", "hinge", "signs"])
def test_class_weights_of_a_single_output(loss, shape):
    X = np.random.default_rng(1).normal(size=(40, 2))
    y = (np.arange(40) % 5 == 0).astype(int)
    targets = (2 * y - 1 if loss == "signs" else y).reshape(shape)

    def train(**weights):
        np.random.seed(0)
        model = binary()
        if loss != "binary":
            model = regression()
            model.set(loss=nnx.Loss_Hinge(), accuracy=nnx.Accuracy_Categorical(binary=True))
        return bits(train_net(model, X, targets, epochs=2, **weights))

    expected = train(sample_weight=np.where(y == 1, 40 / (2 * 8), 40 / (2 * 32)))
    assert train(class_weight="balanced") == expected
    assert train(class_weight={1: 2.5, 0: 0.625}) == expected


def test_balanced_counts_training_rows_only_and_leaves_validation_as_it_is():
    net = Net("3-6,relu,6-3,softmax")
    X, y = data_of_net(net, 60)
    y[:30] = 1
    model, twin = build(net), build(net)
    model.train(X, y, validation_split=0.25, seed=4, class_weight="balanced", print_every=None)
    from nnx.engine import classes
    from nnx.engine.job import Split

    held_out = classes.held_out_rows(Split(0.25, 4), y, 60)
    rest = y[~held_out]
    weights = (len(rest) / (3 * np.bincount(rest)))[rest]
    twin.train(
        *(X[~held_out], rest),
        sample_weight=weights,
        validation_data=(X[held_out], y[held_out]),
        print_every=None,
    )
    assert bits(left_behind(model)) == bits(left_behind(twin))


# Custom classes


class Loss_Squared(nnx.Loss):
    def forward(self, y_pred, y_true):
        return np.mean((y_pred - y_true) ** 2, axis=-1)

    def backward(self, dvalues, y_true):
        self.dinputs = 2 * (dvalues - y_true) / dvalues.size


class Accuracy_Signs(nnx.Accuracy):
    def compare(self, predictions, y):
        return np.sign(predictions) == np.sign(y)


def test_a_loss_and_an_accuracy_of_ones_own_are_weighted():
    net = Net("3-6,relu,6-2,linear", "squared", "near")
    X, y = data_of_net(net, 30)
    weights = weights_for(30)
    own, built_in = build(net), build(net)
    own.set(loss=Loss_Squared(), accuracy=Accuracy_Signs())
    for model in (own, built_in):
        model.train(X, y, epochs=3, batch_size=11, sample_weight=weights, print_every=None)
    np.testing.assert_allclose(own.history.loss, built_in.history.loss, rtol=1e-9)
    np.testing.assert_allclose(own.layers[0].weights, built_in.layers[0].weights, rtol=1e-9)
    hits = np.sign(own.predict(X)) == np.sign(y)
    found = own.evaluate(X, y, sample_weight=weights, silent=True)["accuracy"]
    assert found == pytest.approx(np.average(hits, axis=0, weights=weights).mean())


class Loss_Old(Loss_Squared):
    def calculate(self, output, y, *, include_regularization=False):
        return super().calculate(output, y, include_regularization=include_regularization)


class Accuracy_Old(Accuracy_Signs):
    def calculate(self, predictions, y):
        return super().calculate(predictions, y)


class OldModel(nnx.Model):
    def backward(self, output, y):
        super().backward(output, y)


class Loss_Total(Loss_Squared):
    def backward(self, dvalues, y_true):
        self.dinputs = 1.0


def test_what_does_not_take_weights_is_refused_with_weights_only():
    net = Net("3-6,relu,6-2,linear", "squared", "near")
    X, y = data_of_net(net, 30)
    weights = weights_for(30)
    cases = [
        (nnx.Model, {"loss": Loss_Old()}, "the loss must have a method calculate that takes sample_weight where "),
        (nnx.Model, {"accuracy": Accuracy_Old()}, "the accuracy must have a method calculate that takes sample_weight"),
        (OldModel, {}, "the model must have a method backward that takes sample_weight where samples have weights, "),
    ]
    for kind, parts, sentence in cases:
        model = build(net, kind=kind)
        model.set(**parts)
        before = parameters_of(model)
        with pytest.raises(TypeError, match=f"^Model.train: {re.escape(sentence)}"):
            model.train(X, y, sample_weight=weights, print_every=None)
        if parts:
            with pytest.raises(TypeError, match=f"^Model.train: {re.escape(sentence)}"):
                model.train(X, y, validation_data=(X, y, weights), print_every=None)
            with pytest.raises(TypeError, match=f"^Model.evaluate: {re.escape(sentence)}"):
                model.evaluate(X, y, sample_weight=weights)
        assert parameters_of(model) == before
        model.train(X, y, print_every=None)
        model.evaluate(X, y, silent=True)
    model = build(net)
    model.set(loss=Loss_Total())
    with pytest.raises(ValueError, match=r"^Loss_Total.backward: dinputs must be floats with a row for each of 30"):
        model.train(X, y, sample_weight=weights, print_every=None)


# What is refused


N = "Model.train: sample_weight must "
BAD = [
    ({"sample_weight": [1.0] * 39}, ValueError, f"{N}have one number for each of 40 rows, got shape (39,)."),
    ({"sample_weight": np.ones((40, 1))}, ValueError, f"{N}have one number for each of 40 rows, got shape (40, 1)."),
    ({"sample_weight": 1.0}, ValueError, f"{N}have one number for each of 40 rows, got shape ()."),
    ({"sample_weight": ["a"] * 40}, TypeError, f"{N}be an array of real numbers, got dtype <U1."),
    (
        {"sample_weight": [1.0] * 39 + [-1]},
        ValueError,
        f"{N}hold 0 or numbers from 1e-30 to 1e+30, got -1.0 in row 39.",
    ),
    ({"sample_weight": [np.nan] + [1.0] * 39}, ValueError, f"{N}hold 0 or numbers from 1e-30 to 1e+30, got nan in row"),
    ({"sample_weight": [np.inf] + [1.0] * 39}, ValueError, f"{N}hold 0 or numbers from 1e-30 to 1e+30, got inf in row"),
    ({"sample_weight": np.zeros(40)}, ValueError, f"{N}leave at least one sample, got 0 for all 40."),
    ({"class_weight": "equal"}, ValueError, "Model.train: class_weight must be 'balanced', or numbers by class, got"),
    ({"class_weight": [1, 2]}, ValueError, "Model.train: class_weight must hold one number for each of 3 classes, got"),
    ({"class_weight": {3: 1.0}}, ValueError, "Model.train: class_weight's keys must be a whole number from 0 to 2, "),
    ({"class_weight": {"a": 1.0}}, TypeError, "Model.train: class_weight's keys must be a whole number, got 'a'."),
    ({"class_weight": {0: "a"}}, TypeError, "Model.train: class_weight[0] must be a number, got 'a'."),
    ({"class_weight": {0: -1}}, ValueError, "Model.train: class_weight[0] must be a finite number of at least 0, got"),
    ({"class_weight": [1, -2, 1]}, ValueError, "Model.train: class_weight must hold 0 or numbers from 1e-30 to 1e+30"),
    ({"class_weight": [0, 0, 0]}, ValueError, "Model.train: class_weight must leave at least one sample, got 0 for"),
    (
        {"class_weight": [1e20] * 3, "sample_weight": [1e20] * 40},
        ValueError,
        "Model.train: sample_weight times class_weight must hold 0 or numbers from 1e-30 to 1e+30, got 1e+40 in row 0.",
    ),
    ({"validation_data": ()}, ValueError, "Model.train: validation_data must be a pair (X_val, y_val), or (X_val, "),
    (
        {"validation_data": (np.ones((2, 2)), [0, 1], [1.0])},
        ValueError,
        "Model.train: validation_data[2] must have one number for each of 2 rows, got shape (1,).",
    ),
    (
        {"validation_data": (np.ones((2, 2)), [0, 1], [0, 0])},
        ValueError,
        "Model.train: validation_data[2] must leave at least one sample, got 0 for all 2.",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "sentence"), BAD)
def test_bad_weights_are_refused_before_anything_changes(arguments, error, sentence):
    model = classifier()
    X, y = np.random.default_rng(1).normal(size=(40, 2)), np.arange(40) % 3
    before = parameters_of(model)
    with pytest.raises(error, match=f"^{re.escape(sentence)}"):
        model.train(X, y, **arguments)
    assert parameters_of(model) == before
    assert model.history is None


def test_bad_weights_of_evaluate_are_refused():
    model = classifier()
    X, y = np.ones((3, 2)), [0, 1, 2]
    with pytest.raises(ValueError, match=r"^Model.evaluate: sample_weight must have one number for each of 3 rows"):
        model.evaluate(X, y, sample_weight=[1, 2])
    with pytest.raises(ValueError, match=r"^Model.evaluate: sample_weight must leave at least one sample, got 0 for"):
        model.evaluate(X, y, sample_weight=[0, 0, 0])


def test_class_weights_need_classes():
    X = np.ones((4, 2))
    sentence = (
        r"^Model.train: class_weight must be None for a model that does not predict classes, because neither Loss_Mean"
    )
    with pytest.raises(ValueError, match=sentence):
        regression().train(X, [1.0, 2.0, 3.0, 4.0], class_weight="balanced")
    for model, y in ((binary(), [0.5, 0, 1, 1]), (binary(2), [[1, 1], [0, 1], [0, 0], [1, 0]])):
        with pytest.raises(
            ValueError, match=r"^Model\.train: y must hold class numbers or one-hot rows if class_weight"
        ):
            model.train(X, y, class_weight="balanced")


# Checkpoints


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path, kind, step):
    net = Net("2-64,relu,64-3,softmax")
    X, y = data_of_net(net, 50)
    arguments = {"epochs": 3, "batch_size": 14, "shuffle": True, "seed": 2, "sample_weight": weights_for(50)}
    arguments |= {"class_weight": [1.0, 0.7, 1.3], "validation_data": (X, y, weights_for(50, 9))}
    whole = without_generator(train_net(build(net, kind=kind), X, y, **arguments))
    with killed_after(step):
        train_net(build(net, kind=kind), X, y, checkpoint=tmp_path / "c", **arguments)
    found = without_generator(train_net(build(net, kind=kind), X, y, resume=tmp_path / "c", **arguments))
    assert found == whole


def test_a_run_with_other_weights_is_not_gone_on_with(tmp_path):
    X, y = data_of_net(Net("4-3,softmax"), 20)
    weights = weights_for(20)
    model = build(Net("4-3,softmax"))
    model.train(X, y, sample_weight=weights, validation_data=(X, y), checkpoint=tmp_path / "c", print_every=None)
    for given, name in (
        ({}, "sample_weight times class_weight"),
        ({"sample_weight": weights + 1}, "sample_weight times class_weight"),
        ({"sample_weight": weights, "validation_data": (X, y, weights)}, "validation_data[2]"),
    ):
        arguments = {"validation_data": (X, y), "epochs": 2, "resume": tmp_path / "c", "print_every": None, **given}
        with pytest.raises(ValueError, match=f"^Model.train: {re.escape(name)} must be that of "):
            build(Net("4-3,softmax")).train(X, y, **arguments)
