"""Penalties divided by the samples of each step, in every way of running; and scikit-learn's whole training."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import test_segments
from plans import NETS, PENALTIES, Book, Net, assert_alike, bits, build, data_for, left_behind, train
from test_checkpoints import killed_after, left_behind_by, make
from test_sample_weights import weights_for

import nnx
from nnx.engine import plan

#: In batched lanes, in one piece, in row panels, with layers that have no penalties.
SKINNY = Net("2-64,relu,64-1,linear", "squared", "near")
CHOSEN = [SKINNY, *[net for net in NETS if net.layers.startswith(("3-6,relu,6-3,sigmoid", "17-33", "13-64"))]]
#: Large enough to show beside the loss.
STRONG = {name: 50 * strength for name, strength in PENALTIES.items()}


def of_penalties(layer):
    """Return the gradients of a layer's penalties by weights and biases, and the penalties."""
    gradients, total = [], 0.0
    for kind, values in (("weight", layer.weights), ("bias", layer.biases)):
        l1, l2 = (getattr(layer, f"{kind}_regularizer_{which}") for which in ("l1", "l2"))
        gradients.append(l1 * np.where(values < 0, -1, 1) + 2 * l2 * values)
        total += l1 * np.abs(values).sum() + l2 * (values**2).sum()
    return gradients, total


def planned_model(**dense):
    return build(SKINNY, "SGD", **dense)


def book_model(**dense):
    return build(SKINNY, "SGD", Book, **dense)


def segmented_model(**dense):
    model = test_segments.build(SKINNY, "SGD", loss=lambda: nnx.Loss_MeanSquaredError(), **dense)
    model.loss.__class__ = Own_Loss
    return model


class Own_Loss(nnx.Loss_MeanSquaredError):
    """Not of a built-in class."""


MAKERS = pytest.mark.parametrize("maker", [planned_model, book_model, segmented_model])
WEIGHTS = {"equal": None, "weighted": np.array([0.5, 2.0, 0.0, 1.0, 0.25])}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@MAKERS
def test_a_step_divides_penalties_by_the_weight_of_its_samples(maker, weights, planned, segmented, backend):
    X, y = data_for(SKINNY, 5)
    found, plain = maker(**STRONG), maker()
    before = [of_penalties(layer) for layer in found.trainable_layers]
    for model, per_sample in ((found, True), (plain, False)):
        model.train(X, y, sample_weight=weights, print_every=None, penalty_per_sample=per_sample)
    if backend != "numpy":
        assert planned == [maker is planned_model] * 2
        assert segmented == {segmented_model: [True] * 2, book_model: [False] * 2}.get(maker, [])
    scale = 1 / (5 if weights is None else weights.sum())
    for layer, twin, (gradients, _) in zip(found.trainable_layers, plain.trainable_layers, before, strict=True):
        np.testing.assert_allclose(layer.dweights, twin.dweights + scale * gradients[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.dbiases, twin.dbiases + scale * gradients[1], rtol=0, atol=1e-12)
    expected = scale * sum(total for _, total in before)
    np.testing.assert_allclose(found.history.step_regularization_loss, [expected], rtol=1e-12)
    np.testing.assert_allclose(found.history.regularization_loss, [expected], rtol=1e-12)
    np.testing.assert_allclose(found.history.loss, found.history.data_loss + expected, rtol=1e-12)
    assert found.loss.regularization_loss() > 1  # nothing divides it outside a step


@MAKERS
def test_a_batch_without_weight_has_no_penalty(maker):
    X, y = data_for(SKINNY, 10)
    found, expected = maker(**STRONG), maker(**STRONG)
    weights = np.repeat([1.0, 0.0], 5)
    found.train(X, y, batch_size=5, sample_weight=weights, print_every=None, penalty_per_sample=True)
    expected.train(X[:5], y[:5], print_every=None, penalty_per_sample=True)
    assert found.history.step_regularization_loss[1] == 0
    for pair, twins in zip(found.get_parameters(), expected.get_parameters(), strict=True):
        for array, twin in zip(pair, twins, strict=True):
            np.testing.assert_allclose(array, twin, rtol=0, atol=1e-12)


@MAKERS
def test_an_epochs_penalty_is_the_mean_over_its_samples(maker):
    X, y = data_for(SKINNY, 41)
    model = maker(**STRONG)
    model.train(X, y, epochs=3, batch_size=16, print_every=None, penalty_per_sample=True)
    steps = model.history.step_regularization_loss.reshape(3, 3)
    assert np.ptp(steps) > 0.01
    np.testing.assert_allclose(model.history.regularization_loss, steps @ [16, 16, 9] / 41, rtol=1e-12)
    np.testing.assert_allclose(model.history.loss, model.history.step_loss.reshape(3, 3) @ [16, 16, 9] / 41, rtol=1e-12)


@pytest.mark.parametrize("optimizer", ["Adam", "clip_norm"])
@pytest.mark.parametrize("net", CHOSEN, ids=str)
def test_plan_and_layer_by_layer_agree(dtype, net, optimizer):
    X, y = data_for(net, 41)
    arguments = {"epochs": 2, "batch_size": 16, "shuffle": True, "seed": 1, "sample_weight": weights_for(41)}
    models = [test_segments.build(net, optimizer, kind, dtype.name, **STRONG) for kind in (nnx.Model, Book)]
    found, expected = (train(model, X, y, penalty_per_sample=True, **arguments) for model in models)
    assert_alike(found, expected, 1e-9 if dtype == np.float64 else 5e-3)


@pytest.mark.parametrize("optimizer", ["Adam", "clip_norm"])
@pytest.mark.parametrize("at", [(), (1,), (3,)])
def test_segments_and_layer_by_layer_agree(optimizer, at, segmented, backend):
    net = Net("17-33,relu,33-20,sigmoid,20-3,linear", "squared", "near")
    X, y = data_for(net, 41)
    arguments = {"epochs": 2, "batch_size": 16, "sample_weight": weights_for(41), "penalty_per_sample": True}
    models = [
        test_segments.build(net, optimizer, kind, at=at, loss=test_segments.Own_Loss, **STRONG)
        for kind in (nnx.Model, Book)
    ]
    found, expected = (train(model, X, y, **arguments) for model in models)
    assert segmented == [backend != "numpy", False]
    assert_alike(found, expected, 1e-9)
    # A kept segment must not use that in a training without it.
    found, expected = (train(model, X, y, epochs=2) for model in models)
    assert_alike(found, expected, 1e-9)


@pytest.mark.parametrize("net", CHOSEN, ids=str)
def test_bits_do_not_depend_on_threads_and_calls(compiled, monkeypatch, net):
    for name in ("LEAST_STEP", "LEAST_CALL"):
        monkeypatch.setattr(plan, name, 0)
    monkeypatch.setattr(plan, "LEAST_ROWS", 1)
    X, y = data_for(net, 150)
    found = []
    for threads, most in ((1, 1), (1, 100), (3, 4)):
        monkeypatch.setattr(plan, "MOST_STEPS", most)
        model = build(net, dtype="float32", **STRONG)
        found.append(bits(train(model, X, y, epochs=2, batch_size=67, threads=threads, penalty_per_sample=True)))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("maker", [planned_model, book_model])
def test_a_call_again_is_like_the_first_and_like_none_with_another_value(maker):
    X, y = data_for(SKINNY, 20)
    models = [maker(**STRONG) for _ in range(2)]
    for per_sample in (True, True, True, False, False, True):
        models[1]._again = None
        found, expected = (bits(train(model, X, y, penalty_per_sample=per_sample)) for model in models)
        assert found == expected
        if not per_sample:
            assert models[0].history.step_regularization_loss[0] > 1
        else:
            assert models[0].history.step_regularization_loss[0] < 1


# Runs that continue, and runs that stop


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("steps", [True, False])
@pytest.mark.parametrize("step", [4, 5])
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path, kind, step, steps):
    X, y = data_for(SKINNY, 50)
    arguments = {"epochs": 3, "batch_size": 16, "checkpoint_steps": steps, "penalty_per_sample": True}
    whole = left_behind_by(make(SKINNY, kind=kind, **STRONG), X, y, **arguments)
    with killed_after(step):
        train(make(SKINNY, kind=kind, **STRONG), X, y, checkpoint=tmp_path / "c", **arguments)
    found = left_behind_by(make(SKINNY, kind=kind, **STRONG), X, y, resume=tmp_path / "c", **arguments)
    differing = {name for name in whole if found[name] != whole[name]}
    assert found.keys() == whole.keys()
    assert all(name.startswith("history.step_") for name in differing)
    assert bool(differing) is not steps


@pytest.mark.parametrize("then", [True, False])
def test_a_run_with_another_value_is_refused(tmp_path, then):
    X, y = data_for(SKINNY, 50)
    train(build(SKINNY, **STRONG), X, y, checkpoint=tmp_path / "c", penalty_per_sample=not then)
    model = build(SKINNY, **STRONG)
    before = bits(left_behind(model))
    sentence = rf"^Model\.train: penalty_per_sample must be that of '.*c', {not then}, got {then}\.$"
    with pytest.raises(ValueError, match=sentence):
        model.train(X, y, print_every=None, resume=tmp_path / "c", epochs=2, penalty_per_sample=then)
    with pytest.raises(TypeError, match=r"^Model\.train: penalty_per_sample must be True or False, got 'yes'"):
        model.train(X, y, print_every=None, penalty_per_sample="yes")
    assert bits(left_behind(model)) == before


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_a_run_that_a_callback_stops_is_as_one_of_so_many_epochs(kind):
    X, y = data_for(SKINNY, 50)

    def stop(run):
        if run.epoch == 2:
            run.stop("enough")

    arguments = {"batch_size": 16, "penalty_per_sample": True}
    found = bits(train(build(SKINNY, kind=kind, **STRONG), X, y, epochs=5, callbacks=[stop], **arguments))
    assert found == bits(train(build(SKINNY, kind=kind, **STRONG), X, y, epochs=2, **arguments))


# scikit-learn's training


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_ten_epochs_are_those_of_scikit_learns_regressor(solver, weighted, pytestconfig):
    pytest.importorskip("sklearn", minversion="1.7" if weighted else None)  # it takes weights since then
    from sklearn import neural_network as networks

    rng = np.random.default_rng(0)
    X, alpha = rng.normal(size=(70, 3)).astype(np.float64), 0.3
    y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2]
    weights = rng.uniform(0.1, 2, 70) if weighted else None
    weighing = {} if weights is None else {"sample_weight": weights}
    theirs = networks.MLPRegressor(
        hidden_layer_sizes=(8, 5),
        activation="tanh",
        solver=solver,
        alpha=alpha,
        batch_size=16,
        learning_rate_init=0.01,
        shuffle=False,
        max_iter=1,
        n_iter_no_change=100,
        random_state=0,
        warm_start=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing convergence
        theirs.fit(X, y, **weighing)  # the next fit continues from these weights, with a new optimizer
        ours = as_scikit_learn(theirs, alpha, solver)
        theirs.set_params(max_iter=10).fit(X, y, **weighing)
    history = ours.train(
        X, y, epochs=10, batch_size=16, sample_weight=weights, print_every=None, penalty_per_sample=True
    )
    expected = [array for pair in zip(theirs.coefs_, theirs.intercepts_, strict=True) for array in pair]
    for found, array in zip([array for pair in ours.get_parameters() for array in pair], expected, strict=True):
        np.testing.assert_allclose(found.ravel(), array.ravel(), rtol=0, atol=1e-10 * np.abs(array).max())
    np.testing.assert_allclose(ours.predict(X)[:, 0], theirs.predict(X), rtol=1e-9, atol=1e-12)
    losses = history.step_loss.reshape(10, 5) @ [16, 16, 16, 16, 6] / 70
    rounded = pytestconfig.getoption("--nnfs-init")  # by its np.dot, which they use for penalties
    np.testing.assert_allclose(losses, theirs.loss_curve_[-10:], rtol=1e-6 if rounded else 1e-10)
    if not weighted:  # their epoch's loss is a mean over rows, ours over weights
        np.testing.assert_allclose(history.loss, losses, rtol=1e-10)


def as_scikit_learn(theirs, alpha, solver):
    """Return a model with the weights of a regressor of scikit-learn, for the same training."""
    model = nnx.Model()
    for number, (weights, biases) in enumerate(zip(theirs.coefs_, theirs.intercepts_, strict=True)):
        if number:
            model.add(nnx.Activation_Tanh())
        layer = nnx.Layer_Dense(*weights.shape, weight_regularizer_l2=alpha / 2, dtype="float64")
        layer.set_parameters(weights.copy(), biases.reshape(1, -1).copy())  # theirs change in place
        model.add(layer)
    optimizer = nnx.Optimizer_SGD(0.01, momentum=0.9, nesterov=True)
    if solver == "adam":
        optimizer = nnx.Optimizer_Adam(0.01, epsilon=1e-8, epsilon_hat=True)
    model.set(loss=nnx.Loss_MeanSquaredError(factor=0.5), optimizer=optimizer, accuracy=nnx.Accuracy_Regression())
    model.finalize()
    return model
