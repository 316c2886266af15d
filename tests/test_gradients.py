"""Every backward against central differences in float64, with and without regularizers."""

from __future__ import annotations

import numpy as np
import pytest
from differences import assert_gradient

import nnx

pytestmark = pytest.mark.usefixtures("float64")

REGULARIZERS = [
    {},
    {"weight_regularizer_l1": 0.03, "bias_regularizer_l1": 0.02},
    {"weight_regularizer_l2": 0.05, "bias_regularizer_l2": 0.04},
    {
        "weight_regularizer_l1": 0.03,
        "weight_regularizer_l2": 0.05,
        "bias_regularizer_l1": 0.02,
        "bias_regularizer_l2": 0.04,
    },
]


def away_from_zero(rng, shape):
    """Normal numbers at least 0.1 away from 0, where ReLU, |x| and the like have their kink."""
    values = rng.standard_normal(shape)
    return values + np.copysign(0.1, values)


@pytest.mark.parametrize("regularizers", REGULARIZERS, ids=["plain", "l1", "l2", "l1-l2"])
def test_dense_backward_matches_central_differences(rng, regularizers):
    dense = nnx.Layer_Dense(5, 4, **regularizers)
    dense.weights, dense.biases = away_from_zero(rng, (5, 4)), away_from_zero(rng, (1, 4))
    X, direction = rng.standard_normal((7, 5)), rng.standard_normal((7, 4))

    def objective():
        dense.forward(X)
        return float(np.sum(dense.output * direction)) + nnx.Loss().regularization_loss(dense)

    objective()
    dense.backward(direction)
    dweights, dbiases, dinputs = dense.dweights, dense.dbiases, dense.dinputs
    assert_gradient(dweights, objective, dense.weights)
    assert_gradient(dbiases, objective, dense.biases)
    assert_gradient(dinputs, objective, X)


@pytest.mark.parametrize(
    "activation", [nnx.Activation_ReLU, nnx.Activation_Sigmoid, nnx.Activation_Softmax, nnx.Activation_Linear]
)
def test_activation_backward_matches_central_differences(rng, activation):
    layer = activation()
    X, direction = away_from_zero(rng, (6, 5)), rng.standard_normal((6, 5))

    def objective():
        layer.forward(X)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    assert_gradient(layer.dinputs, objective, X)


def test_dropout_backward_matches_central_differences_with_the_mask_fixed(rng):
    dropout = nnx.Layer_Dropout(0.4, seed=3)
    X, direction = rng.standard_normal((6, 5)), rng.standard_normal((6, 5))

    def objective():
        dropout.training_forwards = 0
        dropout.forward(X)
        return float(np.sum(dropout.output * direction))

    objective()
    dropout.backward(direction)
    assert_gradient(dropout.dinputs, objective, X)


def targets_for(loss, rng, shape):
    if loss is nnx.Loss_CategoricalCrossentropy:
        return rng.integers(0, shape[1], shape[0])
    if loss is nnx.Loss_BinaryCrossentropy:
        return rng.integers(0, 2, shape)
    return rng.standard_normal(shape)


@pytest.mark.parametrize(
    "loss",
    [
        nnx.Loss_CategoricalCrossentropy,
        nnx.Loss_BinaryCrossentropy,
        nnx.Loss_MeanSquaredError,
        nnx.Loss_MeanAbsoluteError,
    ],
)
def test_loss_backward_matches_central_differences(rng, loss):
    function = loss()
    predictions = rng.uniform(0.1, 0.9, (6, 4))
    y = targets_for(loss, rng, predictions.shape)
    function.backward(predictions, y)
    assert_gradient(function.dinputs, lambda: float(function.calculate(predictions, y)), predictions)


def test_combined_softmax_loss_backward_matches_central_differences(rng):
    combined = nnx.Activation_Softmax_Loss_CategoricalCrossentropy()
    X, y = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    combined.forward(X, y)
    combined.backward(combined.output, y)
    assert_gradient(combined.dinputs, lambda: float(combined.forward(X, y)), X)


@pytest.mark.parametrize("regularizers", REGULARIZERS, ids=["plain", "l1", "l2", "l1-l2"])
@pytest.mark.parametrize("hidden", [nnx.Activation_ReLU, nnx.Activation_Sigmoid, nnx.Activation_Linear])
@pytest.mark.parametrize(
    ("last", "loss"),
    [
        (nnx.Activation_Softmax, nnx.Loss_CategoricalCrossentropy),
        (nnx.Activation_Sigmoid, nnx.Loss_BinaryCrossentropy),
        (nnx.Activation_Linear, nnx.Loss_MeanSquaredError),
        (nnx.Activation_Linear, nnx.Loss_MeanAbsoluteError),
        (nnx.Activation_Sigmoid, nnx.Loss_MeanSquaredError),
    ],
)
def test_model_backward_matches_central_differences(rng, hidden, last, loss, regularizers):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(3, 6, **regularizers))
    model.add(hidden())
    model.add(nnx.Layer_Dropout(0.3, seed=11))
    model.add(nnx.Layer_Dense(6, 4))
    model.add(last())
    model.set(loss=loss())
    model.finalize()
    model.set_parameters(
        [(away_from_zero(rng, w.shape), away_from_zero(rng, b.shape)) for w, b in model.get_parameters()]
    )
    X = away_from_zero(rng, (5, 3))
    y = targets_for(loss, rng, (5, 4))

    def objective():
        model.layers[2].training_forwards = 0
        data_loss, penalty = model.loss.calculate(model.forward(X, training=True), y, include_regularization=True)
        return float(data_loss) + penalty

    objective()
    model.backward(model.layers[-1].output, y)
    gradients = [(layer.dweights, layer.dbiases) for layer in model.trainable_layers]
    for (dweights, dbiases), layer in zip(gradients, model.trainable_layers, strict=True):
        assert_gradient(dweights, objective, layer.weights)
        assert_gradient(dbiases, objective, layer.biases)
