"""The numbers of whole models on both paths: gradients by central differences, a thousand steps of each optimizer by
separate formulas, losses of logits whose exponentials overflow."""

from __future__ import annotations

import numpy as np
import pytest
from differences import assert_gradient
from plans import ACTIVATIONS, LOSSES, Book

import nnx

REGULARIZERS = {
    "plain": {},
    "l1": {"weight_regularizer_l1": 0.01, "bias_regularizer_l1": 0.02},
    "l2": {"weight_regularizer_l2": 0.03, "bias_regularizer_l2": 0.04},
    "l1-l2": {"weight_regularizer_l1": 0.01, "weight_regularizer_l2": 0.03, "bias_regularizer_l1": 0.02},
}
HIDDEN = {
    "relu": [nnx.Activation_ReLU],
    "sigmoid": [nnx.Activation_Sigmoid],
    "softmax": [nnx.Activation_Softmax],
    "linear": [nnx.Activation_Linear],
    "nothing": [],
    "relu and dropout": [nnx.Activation_ReLU, lambda: nnx.Layer_Dropout(0.3, seed=11)],
}
#: The last activations and the losses that a model may end in: cross-entropies take one activation each.
ENDS = [(last, loss) for last in ACTIVATIONS for loss in ("squared", "absolute")]
ENDS += [("softmax", "categorical"), ("sigmoid", "binary")]


def away_from_zero(rng, shape):
    return rng.uniform(0.2, 0.8, shape) * rng.choice([-1, 1], shape)


def network(rng, kind, layers, loss, optimizer):
    model = kind()
    for layer in layers:
        model.add(layer)
    model.set(loss=loss(), optimizer=optimizer, accuracy=nnx.Accuracy_Categorical(binary=True))
    model.finalize()
    model.set_parameters(
        [(away_from_zero(rng, w.shape), away_from_zero(rng, b.shape)) for w, b in model.get_parameters()]
    )
    return model


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("regularizers", REGULARIZERS)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(("last", "loss"), ENDS)
def test_gradients_of_every_combination_match_central_differences(float64, rng, kind, hidden, last, loss, regularizers):
    layers = [nnx.Layer_Dense(3, 5, **REGULARIZERS[regularizers]), *[make() for make in HIDDEN[hidden]]]
    layers += [nnx.Layer_Dense(5, 3), ACTIVATIONS[last]()]
    model = network(rng, kind, layers, LOSSES[loss], nnx.Optimizer_SGD(0.0))
    X = away_from_zero(rng, (5, 3))
    # Sums that are far enough from ReLU's kink. Not all combinations of weights and samples have them.
    if last == "relu":
        model.layers[-2].biases += 3.0
    if loss == "categorical" or last == "softmax":
        y = np.eye(3)[rng.integers(0, 3, 5)]
        model.set(accuracy=nnx.Accuracy_Categorical())
    else:
        y = rng.integers(0, 2, (5, 3)) if loss == "binary" else 7 * rng.standard_normal((5, 3))
        model.set(accuracy=nnx.Accuracy_Regression())

    def objective():
        for layer in model.layers:
            if isinstance(layer, nnx.Layer_Dropout):
                layer.training_forwards = 0
        data_loss, penalty = model.loss.calculate(model.forward(X, training=True), y, include_regularization=True)
        return float(data_loss) + penalty

    expected = objective()
    for layer in model.layers:
        if isinstance(layer, nnx.Layer_Dropout):
            layer.training_forwards = 0
    history = model.train(X, y, print_every=None)
    assert history.step_loss[0] == pytest.approx(expected, rel=1e-12)
    assert (model.explain().startswith("It trains as a plan")) == (kind is nnx.Model and has_plans())
    gradients = [(layer.dweights, layer.dbiases) for layer in model.trainable_layers]
    for (dweights, dbiases), layer in zip(gradients, model.trainable_layers, strict=True):
        assert_gradient(dweights, objective, layer.weights)
        assert_gradient(dbiases, objective, layer.biases)


def has_plans():
    from nnx.engine import plan

    return plan._has_plans()


# A thousand steps by separate formulas


def oracle(optimizer, rates, gradient, value):
    """Return a parameter after the steps, one formula per line: the book's chapter 10, in float64."""
    momentum, cache = np.zeros_like(value), np.zeros_like(value)
    kind, o = type(optimizer).__name__, optimizer
    for step, rate in enumerate(rates):
        g = gradient(step, value)
        if kind == "Optimizer_SGD":
            momentum = o.momentum * momentum - rate * g
            value = value + momentum
        elif kind == "Optimizer_Adagrad":
            cache = cache + g * g
            value = value - rate * g / (np.sqrt(cache) + o.epsilon)
        elif kind == "Optimizer_RMSprop":
            cache = o.rho * cache + (1 - o.rho) * g * g
            value = value - rate * g / (np.sqrt(cache) + o.epsilon)
        else:
            momentum = o.beta_1 * momentum + (1 - o.beta_1) * g
            cache = o.beta_2 * cache + (1 - o.beta_2) * g * g
            corrected = momentum / (1 - o.beta_1 ** (step + 1)), cache / (1 - o.beta_2 ** (step + 1))
            value = value - rate * corrected[0] / (np.sqrt(corrected[1]) + o.epsilon)
    return value


OPTIMIZERS = {
    "SGD": lambda: nnx.Optimizer_SGD(0.05),
    "SGD, decay": lambda: nnx.Optimizer_SGD(0.1, decay=1e-3),
    "momentum": lambda: nnx.Optimizer_SGD(0.02, decay=1e-3, momentum=0.9),
    "Adagrad": lambda: nnx.Optimizer_Adagrad(0.1, decay=1e-3, epsilon=1e-5),
    "RMSprop": lambda: nnx.Optimizer_RMSprop(0.005, decay=1e-3, rho=0.95),
    "Adam": lambda: nnx.Optimizer_Adam(0.01, decay=1e-3, beta_1=0.85, beta_2=0.99),
    "Adam, plain": lambda: nnx.Optimizer_Adam(),
}
WITHIN = {"float32": 2e-4, "float64": 1e-9}


def rates_of(optimizer, n):
    return [optimizer.learning_rate / (1 + optimizer.decay * step) for step in range(n)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_thousand_updates_of_given_gradients(dtype, rng, name):
    gradients = rng.standard_normal((1000, 3, 7)).astype(dtype)
    dense, optimizer = nnx.Layer_Dense(3, 7, dtype=dtype), OPTIMIZERS[name]()
    dense.dbiases = np.zeros((1, 7), dtype)
    start = dense.weights.astype(np.float64)
    expected = oracle(optimizer, rates_of(optimizer, 1000), lambda step, _: gradients[step].astype(np.float64), start)
    for gradient in gradients:
        dense.dweights = gradient
        optimizer.pre_update_params()
        optimizer.update_params(dense)
        optimizer.post_update_params()
    np.testing.assert_allclose(dense.weights, expected, rtol=0, atol=WITHIN[dtype.name] * np.abs(expected).max())


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_thousand_steps_of_a_linear_regression(float64, rng, kind, name):
    """Weights and biases in one array, and the gradient of the mean squared error written out.

    In batches, so that no gradient vanishes. Near 0, rounding decides the sign of the steps of some rules.
    """
    X, y = rng.standard_normal((20, 5)), rng.standard_normal((20, 2))
    optimizer = OPTIMIZERS[name]()
    model = network(rng, kind, [nnx.Layer_Dense(5, 2)], nnx.Loss_MeanSquaredError, optimizer)
    model.set(accuracy=nnx.Accuracy_Regression())
    start = np.vstack(model.get_parameters()[0])
    ones = np.hstack([X, np.ones((20, 1))])

    def gradient(step, value):
        rows = slice(5 * (step % 4), 5 * (step % 4) + 5)
        return 2 * ones[rows].T @ (ones[rows] @ value - y[rows]) / 10

    expected = oracle(optimizer, rates_of(optimizer, 1000), gradient, start)
    model.train(X, y, epochs=250, batch_size=5, print_every=None)
    found = np.vstack(model.get_parameters()[0])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


# Logits whose exponentials overflow


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_huge_logits_have_finite_losses_without_a_warning(dtype, kind, size):
    """Certain and right: nearly 0. Certain and wrong: −log(1e-7), the clip of the book."""
    X = np.array([[size], [-size]], dtype)
    for outputs, last, loss, accuracy, right in (
        (2, nnx.Activation_Softmax, nnx.Loss_CategoricalCrossentropy, nnx.Accuracy_Categorical(), [0, 1]),
        (1, nnx.Activation_Sigmoid, nnx.Loss_BinaryCrossentropy, nnx.Accuracy_Categorical(binary=True), [1, 0]),
    ):
        for y, expected, hits in ((right, 0.0, 1.0), (right[::-1], -np.log(1e-7), 0.0)):
            model = kind()
            model.add(nnx.Layer_Dense(1, outputs, dtype=dtype))
            model.add(last())
            model.set(loss=loss(), optimizer=nnx.Optimizer_SGD(0.0), accuracy=accuracy)
            model.finalize()
            model.layers[0].weights[:] = [[1, -1]][:outputs] if outputs == 2 else [[1]]
            with np.errstate(all="raise"):
                history = model.train(X, y, print_every=None)
                judged = model.evaluate(X, y, silent=True)
            assert history.loss[0] == pytest.approx(expected, abs=2e-7, rel=1e-2)
            assert judged["loss"] == pytest.approx(expected, abs=2e-7, rel=1e-2)
            assert history.accuracy[0] == judged["accuracy"] == hits
            assert np.isfinite(model.layers[0].dweights).all() or size > 1e10
