"""Plans in bfloat16: each dense layer multiplies as `test_precision.py` defines, and training is that of the book path.

A sum in another order may put a number on the other side of a tie. Its rounding then differs by one part in 256. So
whole plans are compared with the book path, with a tolerance for a few such numbers. Each dense layer is compared with
its own definition, from its stored arrays, with a tolerance for float32.
"""

from __future__ import annotations

import numpy as np
import pytest
from plans import NETS, OPTIMIZERS, PENALTIES, Book, Net, bits, build, data_for, train
from test_precision import rounded

import nnx
from nnx._base.vocabulary import BUILT_IN
from nnx.activations import Activation
from nnx.engine import plan

pytestmark = pytest.mark.usefixtures("compiled")

#: With the batched lanes and without; larger than a tile, a row panel and a block of any of the products.
FEW = [
    Net("2-64,relu,dropout,64-3,softmax"),
    Net("17-33,relu,33-2,linear", "squared", "near"),
    Net("3-20,sigmoid,dropout,20-18,relu,18-3,sigmoid", "binary", "cells"),
    Net("130-300,relu,dropout,300-70,relu,70-10,softmax"),
]
few_nets = pytest.mark.parametrize("net", FEW, ids=str)
#: Optimizers with all settings that change the use of a gradient.
each_settings = pytest.mark.parametrize(
    "settings",
    [
        {"clip_norm": 0.05},
        {"clip_norm": 1e6},
        {"clip_value": 0.002},
        {"average": 0.9},
        {"clip_norm": 0.6, "average": 0.5},
        {"momentum": 0.9, "nesterov": True},
        {"schedule": nnx.Schedule_Cosine(8)},
    ],
    ids=str,
)
SIZES = [(1, None), (1, 1), (5, 1), (31, None), (32, None), (33, None), (50, 7), (50, 50), (257, None), (300, 129)]

#: The tolerance after a step and after a few, as a fraction of an array's length.
AFTER_ONE, AFTER_FEW = 1e-3, 2e-2

BFLOAT16 = {"precision": "bfloat16"}


@pytest.fixture
def train_twins(planned):
    """Return a function that trains a network in bfloat16 as a plan and on the book path, and compares the state."""

    def run(make, data, **arguments):
        planned.clear()
        twins = make(nnx.Model), make(Book)
        left = [train(model, *data, **BFLOAT16, **arguments) for model in twins]
        assert planned == [True, False]
        return left

    return run


@pytest.fixture
def threaded(monkeypatch):
    """Use threads for steps of any size."""
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)


def assert_as_whole(found, expected, tolerance):
    """Compare the state after two trainings: for each array, the length of the difference."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not isinstance(value, np.ndarray | float) or name.startswith("generator"):
            continue
        a, b = np.asarray(found[name], np.float64), np.asarray(value, np.float64)
        assert (a.shape, np.asarray(found[name]).dtype) == (b.shape, np.asarray(value).dtype), name
        if "accuracy" in name:  # a few predictions may fall on the other side of the limit for a hit
            np.testing.assert_allclose(a, b, atol=0.1, err_msg=name)
            continue
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b), name


def assert_within_float32(found, expected, size, what):
    """Compare sums with those of float64, within a few roundings of the sums of their terms' sizes."""
    assert found.dtype == np.float32, what
    difference = np.abs(found - expected)
    assert (difference <= 2e-6 * size + 1e-30).all(), (what, (difference / (size + 1e-30)).max())


def assert_layers_multiply_in_bfloat16(model, parameters):
    """Check each dense layer's stored arrays, after a step that began with these parameters."""
    layers = [layer for layer in model.layers if isinstance(layer, nnx.Layer_Dense)]
    after = [*[layer.dinputs for layer in model.layers[1:]], model.loss.__dict__.get("dinputs")]
    for layer, (weights, biases) in zip(layers, parameters, strict=True):
        W, b = weights.astype(np.float64), biases.astype(np.float64)
        x, w, d = rounded(layer.inputs), rounded(W), rounded(after[model.layers.index(layer)])
        lw1, lw2, lb1, lb2 = layer._strengths("")
        penalty_w = lw1 * np.where(W < 0, -1, 1) + 2 * lw2 * W
        penalty_b = lb1 * np.where(b < 0, -1, 1) + 2 * lb2 * b
        x1, w1, d1 = np.abs(x), np.abs(w), np.abs(d)
        ones = np.ones((1, len(x)))
        size_w, size_b = x1.T @ d1 + np.abs(penalty_w), ones @ d1 + np.abs(penalty_b)
        assert_within_float32(layer.output, x @ w + b, x1 @ w1 + np.abs(b), "output")
        assert_within_float32(layer.dweights, x.T @ d + penalty_w, size_w, "dweights")
        assert_within_float32(layer.dbiases, ones @ d + penalty_b, size_b, "dbiases")
        assert_within_float32(layer.dinputs, d @ w.T, d1 @ w1.T, "dinputs")


def step_and_check(model, X, y, **arguments):
    parameters = [tuple(array.copy() for array in layer.get_parameters()) for layer in dense_layers(model)]
    model.train(X, y, **{"print_every": None, **BFLOAT16, **arguments})
    assert_layers_multiply_in_bfloat16(model, parameters)


def dense_layers(model):
    return [layer for layer in model.layers if isinstance(layer, nnx.Layer_Dense)]


# Each dense layer follows its definition, from the arrays that it stores


@pytest.mark.few
@pytest.mark.parametrize("net", [*NETS, *FEW], ids=str)
@pytest.mark.parametrize("dense", [{}, PENALTIES], ids=["plain", "penalties"])
def test_every_dense_layer_of_every_network_rounds_what_it_multiplies(planned, net, dense):
    model = build(net, "SGD", dtype="float32", **dense)
    X, y = data_for(net, 50)
    for _ in range(3):  # the second and third may be repeats in one compiled call
        step_and_check(model, X, y)
    assert all(planned)
    assert planned


@few_nets
@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_batches_of_any_size_are_rounded(planned, net, n, batch_size):
    X, y = data_for(net, n)
    step_and_check(build(net, "SGD", dtype="float32"), X, y)
    last = X[(n - 1) // (batch_size or n) * (batch_size or n) :]
    model = build(net, "SGD", dtype="float32")
    model.set(optimizer=nnx.Optimizer_SGD(1e-30))  # no step changes anything
    step_and_check(model, X, y, batch_size=batch_size)
    np.testing.assert_array_equal(model.layers[0].inputs, last.astype(np.float32))
    assert planned == [True, True]


@few_nets
@pytest.mark.parametrize("frozen", [[0], [1], [0, 1]])
def test_frozen_layers_round_too(planned, net, frozen):
    model = build(net, "SGD", dtype="float32", **PENALTIES)
    for layer in [dense_layers(model)[number] for number in frozen]:
        model.trainable_layers.remove(layer)
    before = [dense_layers(model)[number].weights.tobytes() for number in frozen]
    step_and_check(model, *data_for(net, 50))
    assert [dense_layers(model)[number].weights.tobytes() for number in frozen] == before
    assert planned == [True]


KINDS = [kind for kind in BUILT_IN["layer"] if issubclass(kind, Activation)] + [nnx.Activation_PReLU]


@pytest.mark.parametrize("kind", dict.fromkeys(KINDS), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("widths", [(3, 20, 2), (33, 70, 17)], ids=str)
def test_dense_layers_around_every_activation_round(planned, train_twins, kind, widths):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, widths[0]))
    y = rng.normal(size=(60, widths[2]))

    def make(of):
        model = of()
        np.random.seed(1)
        model.add(nnx.Layer_Dense(*widths[:2], dtype="float32", weight_initializer="he_normal"))
        model.add(kind(widths[1]) if kind is nnx.Activation_PReLU else kind())
        model.add(nnx.Layer_Dense(*widths[1:], dtype="float32", weight_initializer="he_normal"))
        model.add(nnx.Activation_Linear() if kind is nnx.Activation_Softmax else kind())  # it would predict classes
        accuracy = nnx.Accuracy_Regression()
        model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_Adam(0.01), accuracy=accuracy)
        model.finalize()
        return model

    step_and_check(make(nnx.Model), X, y)
    assert planned == [True]
    assert_as_whole(*train_twins(make, (X, y)), AFTER_ONE)


def test_what_is_stored_is_not_rounded(planned):
    net = FEW[3]
    X, y = data_for(net, 50)
    model = build(net, dtype="float32")
    model.train(X, y, print_every=None, **BFLOAT16)
    assert planned == [True]
    np.testing.assert_array_equal(model.layers[0].inputs, X.astype(np.float32))
    for layer in dense_layers(model):
        for name in ("inputs", "output", "dinputs", "dweights", "dbiases", "weights"):
            assert (getattr(layer, name).view(np.uint32) & 0xFFFF).any(), name


# Whole trainings


@pytest.mark.parametrize("number", range(len(NETS)), ids=lambda number: str(NETS[number]))
def test_a_step_is_the_book_paths(train_twins, number):
    net, optimizer = NETS[number], list(OPTIMIZERS)[number % 2]  # the others divide by the gradients' own size
    dense = PENALTIES if number % 3 == 0 else {}
    found, expected = train_twins(lambda kind: build(net, optimizer, kind, "float32", **dense), data_for(net, 50))
    assert_as_whole(found, expected, AFTER_ONE)


@few_nets
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_steps_with_ragged_last_batches_are_the_book_paths(train_twins, net, optimizer, shuffle):
    arguments = {"epochs": 2, "batch_size": 15, "shuffle": shuffle, "seed": 3 if shuffle else None}
    found, expected = train_twins(
        lambda kind: build(net, optimizer, kind, "float32", **PENALTIES), data_for(net, 50), **arguments
    )
    assert len(found["history.step_loss"]) == 8
    assert_as_whole(found, expected, AFTER_FEW)


@few_nets
@each_settings
def test_settings_of_optimizers_are_the_book_paths(train_twins, net, settings):
    def make(kind):
        model = build(net, "SGD", kind, "float32")
        model.set(optimizer=nnx.Optimizer_SGD(0.1, **settings))
        return model

    found, expected = train_twins(make, data_for(net, 50), epochs=2, batch_size=15)
    assert ("layers[0].weight_averages" in found) == ("average" in settings)
    assert_as_whole(found, expected, AFTER_FEW)


@few_nets
def test_validation_between_epochs_is_float32_and_changes_nothing(train_twins, net):
    arguments = {"epochs": 3, "batch_size": 15}
    make = {"make": lambda kind: build(net, "SGD", kind, "float32"), "data": data_for(net, 50)}
    plain, _ = train_twins(**make, **arguments)
    found, expected = train_twins(**make, **arguments, validation_data=data_for(net, 30, seed=2))
    for name in (name for name in expected if name.startswith("history.") and "accuracy" not in name):
        np.testing.assert_allclose(found[name], expected[name], rtol=AFTER_FEW, err_msg=name)
    assert len(found["history.validation_loss"]) == 3
    assert bits(found)["layers[0].weights"] == bits(plain)["layers[0].weights"]


@few_nets
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.05}, {"average": 0.9}], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads_nor_of_calls(threaded, planned, net, settings):
    X, y = data_for(net, 300)

    def trained(calls=1, **arguments):
        model = build(net, dtype="float32", **PENALTIES)
        model.set(optimizer=nnx.Optimizer_Adam(0.01, **settings))
        for _ in range(calls):
            left = train(model, X, y, epochs=6 // calls, batch_size=77, **BFLOAT16, **arguments)
        return {name: value for name, value in bits(left).items() if not name.startswith(("history", "generator"))}

    expected = trained(threads=1)
    for threads in (2, 3, 4):
        assert trained(threads=threads) == expected
    assert trained(calls=3, threads=2) == expected
    assert all(planned)


def test_small_steps_a_call_are_those_of_one_run(planned):
    net = Net("5-40,relu,40-3,softmax")
    X, y = data_for(net, 30)
    one, many = build(net, dtype="float32"), build(net, dtype="float32")
    one.train(X, y, epochs=9, print_every=None, **BFLOAT16)
    for _ in range(9):
        many.train(X, y, print_every=None, **BFLOAT16)
    for ours, theirs in zip(many.get_parameters(), one.get_parameters(), strict=True):
        assert [array.tobytes() for array in ours] == [array.tobytes() for array in theirs]
    assert all(planned)


def test_a_plan_is_made_anew_for_another_precision(planned):
    net = FEW[0]
    X, y = data_for(net, 50)
    model, plans = build(net, dtype="float32"), []
    for precision in (None, "bfloat16", "bfloat16", "float32", None):
        model.train(X, y, print_every=1000, precision=precision)  # not silent, so no call repeats the last one
        plans.append(model._plan[1])
        assert plans[-1].bfloat16 is (precision == "bfloat16")
    assert plans[0] is not plans[1] is plans[2] is not plans[3] is plans[4]
    assert planned == [True] * 5
