"""Clipped gradients: PyTorch's formula, all trained layers together, the same on both ways of running."""

from __future__ import annotations

import numpy as np
import pytest
from plans import PENALTIES, Book, Net, assert_alike, bits, build, data_for, train

import nnx
from nnx import _kernels
from nnx.engine import plan

#: With batched lanes and without; with few columns; with row panels in one piece, in several, with packed weights.
NETS = [
    Net("2-64,relu,dropout,64-3,softmax"),
    Net("1-40,relu,40-1,linear", "squared", "near"),
    Net("3-6,sigmoid,6-3,softmax"),
    Net("17-33,relu,dropout,33-5,softmax"),
    Net("64-64,relu,64-64,relu,64-16,softmax"),
    Net("64-320,relu,320-96,relu,96-12,softmax"),
    Net("24-300,relu,300-31,linear", "squared", "near"),
    Net("40-70,relu,70-24,relu,24-9,sigmoid", "binary", "cells"),
]
each_net = pytest.mark.parametrize("net", NETS, ids=str)
#: Limits that hold in most steps, and one that holds in some.
CLIPS = [{"clip_norm": 0.05}, {"clip_norm": 0.6}, {"clip_value": 0.002}]
each_clip = pytest.mark.parametrize("clip", CLIPS, ids=str)
ARGUMENTS = {"epochs": 4, "batch_size": 20}


def made(net, clip, model=nnx.Model, dtype="float64", **dense):
    found = build(net, "SGD", model, dtype, **dense)
    found.set(optimizer=nnx.Optimizer_SGD(0.3, momentum=0.5, **clip))
    return found


def freeze(model, which):
    del model.trainable_layers[which]
    return model


def one_layer(value):
    dense = nnx.Layer_Dense(2, 3)
    dense.weights[:] = dense.biases[:] = 1
    dense.dweights, dense.dbiases = np.full((2, 3), value), np.full((1, 3), -value)
    return dense


# The formulas


def test_a_norm_above_the_limit_is_scaled_down_to_it_as_pytorch_does(dtype):
    dense = one_layer(2.0)
    given = dense.dweights.copy()
    nnx.Optimizer_SGD(0.5, clip_norm=1.5).update_params(dense)
    factor = 1.5 / (6.0 + 1e-6)  # the norm of nine gradients of 2
    np.testing.assert_allclose(dense.weights, 1 - 0.5 * 2 * factor, rtol=1e-6)
    np.testing.assert_allclose(dense.biases, 1 + 0.5 * 2 * factor, rtol=1e-6)
    np.testing.assert_array_equal(dense.dweights, given)


@pytest.mark.parametrize("limit", [6.0 + 1e-5, 100.0])
def test_a_norm_below_the_limit_is_left_alone(limit, dtype):
    clipped, free = one_layer(2.0), one_layer(2.0)
    nnx.Optimizer_SGD(0.5, clip_norm=limit).update_params(clipped)
    nnx.Optimizer_SGD(0.5).update_params(free)
    np.testing.assert_array_equal(clipped.weights, free.weights)


def test_values_are_kept_within_the_limit(dtype):
    dense = one_layer(2.0)
    dense.dweights[0, 0] = 0.25
    given = dense.dweights.copy()
    nnx.Optimizer_SGD(0.5, clip_value=1.0).update_params(dense)
    np.testing.assert_allclose(dense.weights, [[1 - 0.125, 0.5, 0.5], [0.5, 0.5, 0.5]])
    np.testing.assert_allclose(dense.biases, 1.5)
    np.testing.assert_array_equal(dense.dweights, given)


def test_squares_that_float32_cannot_hold_have_a_norm(dtype):
    dense = one_layer(1e30)
    nnx.Optimizer_SGD(0.5, clip_norm=1.0).update_params(dense)
    np.testing.assert_allclose(dense.weights, 1 - 0.5 / 3, rtol=1e-6)


@each_clip
def test_nan_comes_through(clip):
    dense = one_layer(np.nan)
    nnx.Optimizer_SGD(0.5, **clip).update_params(dense)
    assert np.isnan(dense.weights).all()


def norm_of(layers):
    return float(np.sqrt(sum((d**2).sum() for layer in layers for d in (layer.dweights, layer.dbiases))))


@each_net
@pytest.mark.parametrize("frozen", [None, 0, -1])
@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_a_step_is_that_of_the_formula_over_all_trained_layers(net, frozen, kind, float64):
    X, y = data_for(net, 30)
    limit = 0.05
    model = made(net, {"clip_norm": limit}, kind, **PENALTIES)
    model.optimizer.momentum = 0.0
    if frozen is not None:
        freeze(model, frozen)
    before = [[p.copy() for p in layer.get_parameters()] for layer in model.trainable_layers]
    train(model, X, y)
    norm = norm_of(model.trainable_layers)  # published unclipped
    assert norm > limit
    for layer, (weights, biases) in zip(model.trainable_layers, before, strict=True):
        factor = 0.3 * limit / (norm + 1e-6)
        np.testing.assert_allclose(layer.weights, weights - factor * layer.dweights, rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.biases, biases - factor * layer.dbiases, rtol=0, atol=1e-12)


@each_net
@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_a_step_keeps_values_within_the_limit(net, kind, float64):
    X, y = data_for(net, 30)
    model = made(net, {"clip_value": 0.002}, kind, **PENALTIES)
    model.optimizer.momentum = 0.0
    before = [layer.weights.copy() for layer in model.trainable_layers]
    train(model, X, y)
    assert max(np.abs(layer.dweights).max() for layer in model.trainable_layers) > 0.002
    for layer, weights in zip(model.trainable_layers, before, strict=True):
        expected = weights - 0.3 * np.clip(layer.dweights, -0.002, 0.002)
        np.testing.assert_allclose(layer.weights, expected, rtol=0, atol=1e-12)


# Both ways of running


@each_net
@each_clip
@pytest.mark.parametrize("frozen", [None, 0, -1])
@pytest.mark.parametrize("dense", [{}, PENALTIES], ids=["plain", "penalties"])
def test_a_plan_clips_as_the_layers_do(net, clip, frozen, dense, planned):
    X, y = data_for(net, 50)
    found, expected = made(net, clip, **dense), made(net, clip, Book, **dense)
    if frozen is not None:
        freeze(found, frozen), freeze(expected, frozen)
    assert_alike(train(found, X, y, **ARGUMENTS), train(expected, X, y, **ARGUMENTS), 1e-9)
    assert planned == [hasattr(_kernels.backend, "Plan"), False]


@pytest.mark.few
@each_net
@each_clip
@pytest.mark.usefixtures("compiled")
def test_bits_do_not_depend_on_threads_nor_on_calls(net, clip, dtype, monkeypatch):
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)
    X, y = data_for(net, 70)
    expected = bits(train(made(net, clip, dtype=dtype, **PENALTIES), X, y, threads=1, **ARGUMENTS))
    for threads in (2, 3):
        found = train(made(net, clip, dtype=dtype, **PENALTIES), X, y, threads=threads, **ARGUMENTS)
        assert bits(found) == expected
    monkeypatch.setattr(plan.Run, "_how_many", lambda self, in_epoch: 1)
    assert bits(train(made(net, clip, dtype=dtype, **PENALTIES), X, y, **ARGUMENTS)) == expected


@pytest.mark.parametrize("net", NETS[3:], ids=str)
@pytest.mark.usefixtures("compiled")
def test_a_limit_that_never_holds_changes_no_bit(net, dtype):
    X, y = data_for(net, 50)
    found = train(made(net, {"clip_norm": 1e6}, dtype=dtype, **PENALTIES), X, y, **ARGUMENTS)
    expected = train(made(net, {}, dtype=dtype, **PENALTIES), X, y, **ARGUMENTS)
    assert bits({**found, "optimizer.clip_norm": None}) == bits(expected)


@pytest.mark.parametrize("net", NETS[:4], ids=str)  # larger steps are not repeated
@each_clip
@pytest.mark.usefixtures("compiled")
def test_a_call_that_is_the_last_one_again_leaves_the_same_bits(net, clip, dtype):
    twins = [made(net, clip, dtype=dtype, **PENALTIES) for _ in range(2)]
    again = []
    for seed in range(4):
        X, y = data_for(net, 20, seed)
        y = y.astype(dtype) if net.loss != "categorical" else y
        twins[1]._again = None
        again.append(twins[0]._again is not None)
        left = [bits(train(model, X.astype(dtype), y)) for model in twins]
        assert left[0] == left[1]
    assert again[1:] == 3 * [_kernels.backend.counts_references]


@each_net
def test_limits_and_batches_may_change_between_calls(net):
    X, y = data_for(net, 50)
    twins = made(net, {}), made(net, {}, Book)
    for clip_norm, clip_value, rows in (
        (None, None, 20),
        (0.05, None, 20),
        (0.6, None, 7),
        (None, 0.002, 7),
        (0.05, None, None),
        (None, None, 20),
    ):
        for model in twins:
            model.optimizer.clip_norm, model.optimizer.clip_value = clip_norm, clip_value
        found, expected = (train(model, X, y, epochs=2, batch_size=rows) for model in twins)
        assert_alike(found, expected, 1e-9)


@pytest.mark.parametrize("name", ["clip_norm", "clip_value"])
@pytest.mark.parametrize("limit", [0, 0.0, -1, -1e-9])
def test_a_limit_that_is_not_above_0_is_refused_in_the_same_words(name, limit):
    with pytest.raises(ValueError, match=rf"^Optimizer_SGD: {name} must be above 0, got {limit!r}\.$"):
        nnx.Optimizer_SGD(**{name: limit})
