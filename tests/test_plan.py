"""Plans against the book path: all models of built-in parts train, evaluate and predict in the same way on both."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import plans
import pytest
from kernel_calls import dropout_number
from plans import (
    NETS,
    OPTIMIZERS,
    PENALTIES,
    Book,
    Net,
    assert_alike,
    bits,
    build,
    data_for,
    drawn,
    left_behind,
    train,
)

import nnx
from nnx.engine import plan
from nnx.member_layers import mean_of_members
from nnx.residual import members_of

CLASSIFIER = Net("2-64,relu,dropout,64-3,softmax")
FEW = [
    CLASSIFIER,
    Net("17-33,relu,33-2,linear", "squared", "near"),
    Net("3-20,sigmoid,dropout,20-18,relu,18-3,sigmoid", "binary", "cells"),
]

each_net = pytest.mark.parametrize("net", NETS, ids=str)
few_nets = pytest.mark.parametrize("net", FEW, ids=str)
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])

#: The tolerance after one step and after fifty, as a fraction of an array's largest number.
AFTER_ONE = {"float32": 2e-4, "float64": 1e-10}
AFTER_FIFTY = {"float32": 5e-3, "float64": 1e-8}


pytestmark = pytest.mark.usefixtures("compiled")


@pytest.fixture
def train_twins(planned):
    """Return a function that trains a network as a plan and on the book path, and compares the state after both."""

    def run(net, data, *, optimizer="Adam", dtype="float64", dense=None, **arguments):
        twins = [build(net, optimizer, kind, dtype, **(dense or {})) for kind in (nnx.Model, Book)]
        planned.clear()
        left = [train(model, *data, **arguments) for model in twins]
        assert planned == [True, False]
        return *twins, *left

    return run


# Training


@each_net
@each_optimizer
@each_dtype
def test_a_step_is_the_book_paths(train_twins, net, optimizer, dtype):
    *_, found, expected = train_twins(net, data_for(net, 50), optimizer=optimizer, dtype=dtype)
    assert_alike(found, expected, AFTER_ONE[dtype])


@each_net
@each_optimizer
@each_dtype
def test_fifty_steps_with_ragged_last_batches_are_the_book_paths(train_twins, net, optimizer, dtype):
    arguments = {"epochs": 13, "batch_size": 16, "on_nonfinite": "ignore"}
    *_, found, expected = train_twins(net, data_for(net, 50), optimizer=optimizer, dtype=dtype, **arguments)
    assert len(found["history.step_loss"]) == 52
    assert_alike(found, expected, AFTER_FIFTY[dtype])


@pytest.mark.parametrize("seed", range(60))
def test_networks_that_nobody_thought_of_train_as_on_the_book_path(train_twins, seed):
    net, n, batch_size = drawn(seed)
    optimizer = list(OPTIMIZERS)[seed % 5]
    dense = PENALTIES if seed % 3 == 0 else None
    arguments = {"epochs": 3, "batch_size": batch_size, "shuffle": seed % 4 == 0, "on_nonfinite": "ignore"}
    *_, found, expected = train_twins(net, data_for(net, n), optimizer=optimizer, dense=dense, **arguments)
    assert_alike(found, expected, 1e-8)


@pytest.mark.parametrize("n_inputs", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "outputs",
    ["1,sigmoid", "1", "1,linear", "2,softmax", "3,softmax", "4,softmax", "2,sigmoid", "4,linear"],
)
@pytest.mark.parametrize("hidden", ["1,relu", "5,relu", "33,relu,dropout", "64,relu", "64,relu,dropout", "200,relu"])
def test_networks_with_few_inputs_and_outputs_train_as_on_the_book_path(train_twins, n_inputs, outputs, hidden):
    units = hidden.split(",")[0]
    loss = "categorical" if "softmax" in outputs else "binary" if "sigmoid" in outputs else "absolute"
    accuracy = {"categorical": "classes", "binary": "cells", "absolute": "near"}[loss]
    net = Net(f"{n_inputs}-{hidden},{units}-{outputs}", loss, accuracy)
    number = n_inputs + len(outputs) + int(units)
    optimizer = list(OPTIMIZERS)[number % 5]
    arguments = {"dense": PENALTIES if number % 2 else None, "epochs": 3, "batch_size": (None, 16, 37)[number % 3]}
    *_, found, expected = train_twins(net, data_for(net, 50), optimizer=optimizer, **arguments)
    assert_alike(found, expected, 1e-8)


@pytest.mark.parametrize("outputs", ["1,linear", "2,softmax", "3,softmax", "4,softmax", "5,softmax"])
def test_few_outputs_of_a_layer_of_whole_vectors_train_as_on_the_book_path(train_twins, outputs):
    """The factors of such a layer's gradient are exchanged."""
    loss, accuracy = ("squared", "near") if outputs == "1,linear" else ("categorical", "classes")
    net = Net(f"9-64,relu,64-{outputs}", loss, accuracy)
    *_, found, expected = train_twins(net, data_for(net, 90), dense=PENALTIES, epochs=3, batch_size=40)
    assert_alike(found, expected, 1e-8)


@pytest.mark.parametrize(
    "net", ["2-7,relu,7-3,softmax", "2-64,relu,dropout,64-3,softmax", "1-1100,relu,1100-2,softmax"]
)
@pytest.mark.parametrize("n", [1, 63, 512, 513, 1100])
def test_networks_with_few_inputs_and_outputs_take_batches_of_any_size(train_twins, net, n):
    *_, found, expected = train_twins(Net(net), data_for(Net(net), n), epochs=3, batch_size=512)
    assert_alike(found, expected, 1e-8)


@few_nets
@pytest.mark.parametrize("name", [*PENALTIES, "all"])
@each_optimizer
@each_dtype
def test_penalties_are_the_book_paths(train_twins, net, name, optimizer, dtype):
    dense = PENALTIES if name == "all" else {name: 0.01}
    arguments = {"optimizer": optimizer, "dtype": dtype, "dense": dense, "epochs": 3, "batch_size": 32}
    *_, found, expected = train_twins(net, data_for(net, 50), **arguments)
    assert found["history.regularization_loss"].all()
    assert_alike(found, expected, AFTER_FIFTY[dtype])


@pytest.mark.parametrize("net", [*FEW, Net("24-300,relu,300-31,softmax")], ids=str)
@pytest.mark.parametrize(
    ("n", "batch_size"),
    [
        *((1, None), (1, 1), (5, 1), (50, 7), (50, 50), (50, 1000), (257, None), (300, 129), (700, None), (1300, 640)),
        *((2301, 1000), (4100, None)),  # gradients are added up by groups of rows
    ],
)
@each_dtype
def test_batches_of_any_size_are_the_book_paths(train_twins, net, n, batch_size, dtype):
    *_, found, expected = train_twins(net, data_for(net, n), dtype=dtype, epochs=2, batch_size=batch_size)
    assert_alike(found, expected, AFTER_FIFTY[dtype])
    for name in ("history.step_data_loss", "history.data_loss"):  # equal digits: a step's loss has the dtype
        digits = [np.array_equal(left[name], left[name].astype(dtype)) for left in (found, expected)]
        assert digits[0] == digits[1], name


@few_nets
@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("seed", [7, None])
def test_shuffled_samples_come_in_the_book_paths_order(train_twins, net, batch_size, seed):
    arguments = {"epochs": 5, "batch_size": batch_size, "shuffle": True, "seed": seed}
    *_, found, expected = train_twins(net, data_for(net, 50), **arguments)
    assert_alike(found, expected, 1e-8)
    in_order = train(build(net), *data_for(net, 50), epochs=5, batch_size=batch_size)
    assert bits(in_order)["layers[0].weights"] != bits(found)["layers[0].weights"]


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_seeds_that_nobody_gave_are_drawn_in_the_book_paths_order(shuffle):
    found = []
    for kind in (nnx.Model, Book):
        model = build(Net("dropout,4-9,relu,dropout,9-3,softmax"), kind=kind)
        for layer in (model.layers[0], model.layers[3]):
            layer.seed = None
        found.append(train(model, *data_for(Net("4-3"), 30), epochs=3, batch_size=8, shuffle=shuffle))
    assert found[0]["layers[0].seed"] not in (None, found[0]["layers[3].seed"])
    assert_alike(*found, 1e-8)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda y, kind=kind: y.astype(kind) for kind in ("i1", "u1", "i2", "i4", "i8", "u8", ">i4", ">i8")),
        lambda y: y.tolist(),
        lambda y: y[:, None],
        lambda y: y.astype("u1")[:, None],
        lambda y: np.repeat(y, 2)[::2],
        lambda y: y[:, None] == np.arange(3),
        lambda y: (y[:, None] == np.arange(3)).astype("i8"),
        lambda y: (y[:, None] == np.arange(3)).astype("f4"),
        lambda y: np.asfortranarray((y[:, None] == np.arange(3)).astype("f8")),
    ],
    ids=[
        *("int8", "uint8", "int16", "int32", "int64", "uint64", "big-endian int32", "big-endian int64", "list"),
        *("column", "uint8 column", "strided", "one-hot bool", "one-hot int", "one-hot float32", "one-hot by column"),
    ],
)
@pytest.mark.parametrize("net", [CLASSIFIER, Net("3-6,relu,6-3,softmax"), Net("3-3,softmax")], ids=str)
def test_labels_of_every_form_train_alike(train_twins, net, change):
    X, y = data_for(net, 50)
    *_, plain, _ = train_twins(net, (X, y), epochs=2, batch_size=16)
    *_, found, expected = train_twins(net, (X, change(y)), epochs=2, batch_size=16)
    assert_alike(found, expected, 1e-9)
    assert bits(found) == bits(plain)


@pytest.mark.parametrize("accuracy", ["near", "cells", "classes"])
@pytest.mark.parametrize(("last", "loss"), [("sigmoid", "binary"), ("linear", "squared"), ("sigmoid", "absolute")])
def test_targets_of_one_output_need_no_column_of_their_own(train_twins, last, loss, accuracy):
    net = Net(f"3-6,relu,6-1,{last}", loss, accuracy)
    X, y = data_for(net, 50)
    *_, plain, _ = train_twins(net, (X, y), epochs=2, batch_size=16)
    *_, found, expected = train_twins(net, (X, y[:, 0]), epochs=2, batch_size=16)
    assert_alike(found, expected, 1e-9)
    assert bits(found) == bits(plain)


@pytest.mark.parametrize("form", [list, np.asfortranarray, lambda X: X[::-1][::-1], lambda X: X.astype(">f4")])
def test_samples_of_every_form_train_as_on_the_book_path(train_twins, form):
    X, y = data_for(FEW[1], 50)
    *_, found, expected = train_twins(FEW[1], (form(X), form(y)), epochs=2, batch_size=16)
    assert_alike(found, expected, 1e-9)


@pytest.mark.parametrize("net", [net for net in NETS if net.loss != "squared"], ids=str)
def test_saturated_outputs_train_as_on_the_book_path(train_twins, net):
    X, y = data_for(net, 40)
    arguments = {"optimizer": "momentum", "epochs": 2, "batch_size": 16, "on_nonfinite": "ignore"}
    *_, found, expected = train_twins(net, (1000 * X, y), **arguments)
    assert_alike(found, expected, 1e-8)


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("net", [net for net in NETS if "dropout" not in net.layers], ids=str)
def test_samples_that_are_no_numbers_leave_them_where_the_book_path_does(train_twins, net, number):
    X, y = data_for(net, 20)
    X[3] = number
    *_, found, expected = train_twins(net, (X, y), optimizer="SGD", check_finite=False, on_nonfinite="ignore")
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(found[f"history.{name}"], expected[f"history.{name}"], err_msg=name)
    for name, array in expected.items():
        if name.endswith((".weights", ".output")):
            np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(array), err_msg=name)


@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
@pytest.mark.parametrize(
    "net", ["2-64,relu,64-3,softmax", "5-67,relu,67-40,relu,40-3,softmax", "9-20,relu,20-1,linear"]
)
def test_gradients_pass_a_relu_where_it_is_nan_of_either_sign_as_on_the_book_path(net, sign, dtype):
    net = Net(net) if "softmax" in net else Net(net, "squared", "near")
    X, y = data_for(net, 37)
    found = []
    for kind in (nnx.Model, Book):
        model = build(net, "SGD", kind, dtype)
        for layer in model.trainable_layers[:-1]:
            layer.weights[:] = np.copysign(np.nan, sign)
            layer.weights[:, ::3], layer.biases[:, ::3] = 0, -1  # dead neurons
        with np.errstate(invalid="ignore"):
            model.train(X, y, epochs=2, print_every=None, on_nonfinite="ignore")  # the first step stores nothing
        found.append([np.isnan(layer.biases) for layer in model.trainable_layers])
    for planned, eager in zip(*found, strict=True):
        np.testing.assert_array_equal(planned, eager)
    assert found[0][0].any()
    assert not found[0][0].all()


def test_training_goes_on_from_where_it_was_as_on_the_book_path():
    """Optimizer, rate, penalties and data change between two trainings. The plan is still valid."""
    found = []
    X, y = data_for(CLASSIFIER, 50)
    for kind in (nnx.Model, Book):
        model = build(CLASSIFIER, "momentum", kind)
        train(model, X, y, batch_size=16)
        model.optimizer.learning_rate = 0.2
        model.optimizer.current_learning_rate = 0.15
        model.layers[0].weight_regularizer_l2 = 0.01
        model.layers[2].rate = 0.5
        train(model, X[:33], y[:33], batch_size=10)
        model.optimizer.momentum = 0.0
        model.optimizer.decay = 0.1
        train(model, X, y, epochs=2)
        model.set(optimizer=nnx.Optimizer_Adam(0.01))
        train(model, X, y, epochs=2)
        model.optimizer.iterations = 100
        model.layers[0].weight_cache = None
        model.layers[2].training_forwards = 7
        found.append(train(model, X, y, epochs=2))
    assert_alike(*found, 1e-8)


@few_nets
@pytest.mark.parametrize("batch_size", [None, 16])
def test_samples_and_targets_that_are_changed_in_place_are_seen_by_the_next_training(train_twins, net, batch_size):
    X, y = data_for(net, 50)
    X, y = X.copy(), y.astype(np.intp if net.loss == "categorical" else float)
    other_X, other_y = data_for(net, 50, seed=5)
    model, book, *_ = train_twins(net, (X, y), epochs=2, batch_size=batch_size)
    before = [each.evaluate(X, y, silent=True) for each in (model, book)]
    X[...], y[...] = other_X, other_y
    after = [each.evaluate(X, y, silent=True) for each in (model, book)]
    assert after[0] == pytest.approx(after[1])
    assert after[0] != before[0]
    found, expected = (train(each, X, y, epochs=2, batch_size=batch_size) for each in (model, book))
    assert_alike(found, expected, 1e-9)


@pytest.mark.parametrize("net", [CLASSIFIER, Net("17-33,relu,dropout,33-5,softmax")], ids=str)
@pytest.mark.parametrize("keep", [1.0, 1 - 1e-9, 0.5, 1e-3, 1e-12], ids=str)
@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_dropout_of_any_rate_seed_and_count_is_the_book_paths(net, keep, seed):
    found = []
    for kind in (nnx.Model, Book):
        model = build(net, kind=kind)
        model.layers[2].rate, model.layers[2].seed, model.layers[2].training_forwards = keep, seed, 2**32 - 2
        found.append(train(model, *data_for(net, 50), epochs=2, batch_size=16))
    assert found[0]["layers[2].training_forwards"] == 2**32 + 6
    np.testing.assert_array_equal(found[0]["layers[2].binary_mask"], found[1]["layers[2].binary_mask"])
    assert_alike(*found, 1e-8)


@pytest.mark.parametrize("net", [CLASSIFIER, Net("17-33,relu,dropout,33-5,softmax")], ids=str)
@pytest.mark.parametrize("cell", [(0, 0), (7, 13), (31, 30), (32, 5), (49, 16)], ids=str)
def test_dropout_decides_by_the_lower_half_where_the_upper_one_is_the_limits(net, cell):
    number = dropout_number(*cell, seed=5, forwards=2**33)
    for threshold in (number, number + 1):
        found = []
        for kind in (nnx.Model, Book):
            model = build(net, kind=kind)
            layer = model.layers[2]
            layer.rate, layer.seed, layer.training_forwards = threshold / 2**32, 5, 2**33
            found.append(train(model, *data_for(net, 50), epochs=2))
        assert_alike(*found, 1e-8)


@pytest.mark.parametrize("given", [1e-30, 0.0, 0], ids=str)
@each_optimizer
def test_rates_of_any_size_are_the_book_paths(optimizer, given):
    found = []
    for kind in (nnx.Model, Book):
        model = build(CLASSIFIER, optimizer, kind)
        model.optimizer.learning_rate = model.optimizer.current_learning_rate = given
        found.append(train(model, *data_for(CLASSIFIER, 20), epochs=2))
    assert_alike(*found, 1e-9)


# What is printed


@few_nets
@pytest.mark.parametrize("print_every", [1, 3, None])
@pytest.mark.parametrize("validated", [False, True], ids=["", "validated"])
@pytest.mark.parametrize("batch_size", [None, 8, 50])
def test_the_same_lines_are_printed(capsys, train_twins, net, print_every, validated, batch_size):
    data = data_for(net, 50)
    arguments = {"epochs": 3, "batch_size": batch_size, "print_every": print_every, "dense": PENALTIES}
    if validated:
        arguments["validation_data"] = data_for(net, 20, seed=2)
    train_twins(net, data, **arguments)
    lines = capsys.readouterr().out.splitlines()
    half = len(lines) // 2
    assert (half > 0) == (print_every is not None)
    assert lines[:half] == lines[half:]


def test_a_rate_that_is_a_whole_number_is_printed_as_one(capsys):
    for kind in (nnx.Model, Book):
        model = build(CLASSIFIER, kind=kind)
        model.set(optimizer=nnx.Optimizer_SGD(1))
        train(model, *data_for(CLASSIFIER, 20), print_every=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == lines[3:]
    assert lines[1].endswith("lr: 1")


@pytest.mark.parametrize("batch_size", [None, 16])
def test_validation_is_the_book_paths(train_twins, batch_size):
    held_out = data_for(CLASSIFIER, 30, seed=2)
    arguments = {"epochs": 5, "batch_size": batch_size, "validation_data": held_out}
    _, _, found, expected = train_twins(CLASSIFIER, data_for(CLASSIFIER, 50), **arguments)
    for name in (name for name in expected if name.startswith("history.")):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, err_msg=name)
    assert len(found["history.validation_loss"]) == 5


# What is published


def test_attributes_are_those_of_the_last_training_batch_also_with_validation_data():
    X, y = data_for(CLASSIFIER, 50)
    arguments = {"epochs": 3, "batch_size": 16}
    plain = bits(train(build(CLASSIFIER), X, y, **arguments))
    validated = bits(train(build(CLASSIFIER), X, y, validation_data=(X[:9], y[:9]), **arguments))
    own = [name for name in plain if not name.startswith(("loss.", "accuracy.", "history."))]
    assert {name: validated[name] for name in own} == {name: plain[name] for name in own}


@each_net
def test_neighbours_hold_one_array_where_they_do_on_the_book_path(train_twins, net):
    def shared(model):
        arrays = {f"{i}.{k}": v for i, layer in enumerate(model.layers) for k, v in vars(layer).items()}
        arrays["input"] = model.input_layer.output
        arrays["loss"] = getattr(model.loss, "dinputs", None)
        arrays["combined"] = getattr(model.softmax_classifier_output, "dinputs", None)
        arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
        return {(a, b) for a in arrays for b in arrays if a < b and np.shares_memory(arrays[a], arrays[b])}

    model, book, *_ = train_twins(net, data_for(net, 20), batch_size=16)
    assert shared(model) == shared(book)


PUBLISHED = ("output", "dinputs", "dweights", "dbiases", "binary_mask")


@pytest.fixture(params=[None, 0], ids=["", "of any size"])
def worth_keeping(request, monkeypatch):
    """Let steps store again into unreferenced arrays of any size. By default, they reuse only large ones."""
    if request.param is not None:
        monkeypatch.setattr(plan, "WORTH_KEEPING", request.param)


def published(model):
    """Return the arrays that a training left on layers and loss, each once."""
    owners = [*model.layers, model.loss, model.softmax_classifier_output]
    found = [vars(owner)[name] for owner in owners if owner is not None for name in PUBLISHED if name in vars(owner)]
    return list({id(array): array for array in found}.values())


@pytest.mark.parametrize("net", [*FEW, Net("40-300,relu,dropout,300-31,softmax")], ids=str)
def test_published_arrays_that_somebody_keeps_stay_as_they_are(worth_keeping, net):
    """Later trainings do not write into them, and do not depend on writes of others."""
    X, y = data_for(net, 100)
    twins = [build(net), build(net)]
    for model in twins:
        train(model, X, y, batch_size=16)
    kept = published(twins[0])
    copies = [array.copy() for array in kept]
    for model in twins:
        train(model, X, y, batch_size=16)
        train(model, X, y)
    for array, expected in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, expected)
    for array in kept:
        array[...] = np.nan
    assert bits(train(twins[0], X, y, epochs=2)) == bits(train(twins[1], X, y, epochs=2))


@pytest.mark.parametrize(
    "keep",
    [
        lambda model: [array[:1] for array in published(model)],
        lambda model: [memoryview(array) for array in published(model)],
        lambda model: [layer.output.T for layer in model.layers],
        lambda model: [copy.copy(layer).dinputs for layer in model.layers],
        lambda model: [setattr(layer, "mine", layer.output) or layer.mine for layer in model.layers],
        lambda model: [vars(layer)["output"].reshape(-1) for layer in model.layers],
    ],
    ids=["rows", "memoryview", "transposed", "copied layer", "attribute", "flat"],
)
def test_what_refers_to_a_published_array_keeps_it_as_it_is(monkeypatch, keep):
    monkeypatch.setattr(plan, "WORTH_KEEPING", 0)
    X, y = data_for(CLASSIFIER, 50)
    model = build(CLASSIFIER)
    train(model, X, y)
    kept = keep(model)
    before = [np.asarray(part).tobytes() for part in kept]
    train(model, X, y)
    assert [np.asarray(part).tobytes() for part in kept] == before


def test_a_training_on_what_the_last_one_published_gets_it_as_it_was(monkeypatch):
    monkeypatch.setattr(plan, "WORTH_KEEPING", 0)
    net = Net("8-8,relu,8-8,linear", "squared", "near")
    found = []
    for kind in (nnx.Model, Book):
        model = build(net, kind=kind)
        train(model, *data_for(net, 30))
        found.append(train(model, model.layers[1].output, model.layers[2].dinputs, epochs=3))
        found[-1] |= {
            f"once more: {k}": v for k, v in train(model, model.layers[0].dinputs, model.layers[0].output).items()
        }
    assert_alike(*found, 1e-8)


@few_nets
def test_parameters_and_state_are_trained_in_place(net):
    model = build(net)
    parameters = [array for pair in model.get_parameters() for array in pair]
    train(model, *data_for(net, 20))
    state = [layer.weight_momentums for layer in model.trainable_layers]
    train(model, *data_for(net, 20))
    assert all(a is b for a, b in zip(parameters, [x for pair in model.get_parameters() for x in pair], strict=True))
    assert all(a is layer.weight_momentums for a, layer in zip(state, model.trainable_layers, strict=True))


def test_a_plan_lets_go_of_the_arrays_that_it_was_bound_to():
    model = build(CLASSIFIER)
    X, y = data_for(CLASSIFIER, 20)
    X_val, y_val = data_for(CLASSIFIER, 20)
    model.train(X, y, print_every=None, shuffle=True, validation_data=(X_val, y_val))
    model.predict(X_val)
    gone = [weakref.ref(array) for array in (X, y, X_val, y_val, model.layers[0].weights, model.layers[0].weight_cache)]
    del X, y, X_val, y_val
    model.layers[0].weights = model.layers[0].weights + 1
    model.layers[0].weight_cache = None
    for layer in model.layers:
        layer.inputs = layer.output = None
    model.input_layer.output = None
    gc.collect()
    assert [reference() for reference in gone] == [None] * len(gone)


@pytest.mark.few
@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: setattr(model.optimizer, "decay", -1.0),
        lambda model: setattr(model.layers[3], "weight_cache", np.ones((2, 2))),
        lambda model: setattr(model.layers[3], "weight_regularizer_l1", -1.0),
    ],
    ids=["decay", "state", "penalty"],
)
def test_a_training_that_was_refused_lets_go_of_its_arrays_too(spoil):
    model = build(CLASSIFIER)
    X, y = data_for(CLASSIFIER, 20)
    model.train(X, y, print_every=None)
    gone = weakref.ref(model.layers[0].weights)
    spoil(model)
    with pytest.raises(ValueError, match="must "):
        model.train(X, y, print_every=None)
    model.layers[0].weights = model.layers[0].weights + 1
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: setattr(model.layers[0], "weights", np.ones((3, 64))), r"weights must have shape \(2, 64\)"),
        (lambda model: setattr(model.layers[3], "weights", np.ones((3, 64))), r"weights must have shape \(64, 3\)"),
        (lambda model: setattr(model.layers[3], "biases", np.ones((3, 1))), r"biases must have shape \(1, 3\)"),
        (lambda model: setattr(model.layers[3], "weights", None), "no weights yet"),
        (lambda model: setattr(model.layers[3], "weights", np.ones((64, 3)) * 1j), "real numbers"),
        (lambda model: model.layers[3].weights.setflags(write=False), "read-only"),
        (lambda model: setattr(model.layers[3], "weight_cache", np.ones((3, 64))), "weight_cache must have shape"),
        (lambda model: setattr(model.layers[3], "weight_regularizer_l1", -1), "weight_regularizer_l1 must be"),
        (lambda model: setattr(model.layers[2], "rate", 0), "must be above 0"),
        (lambda model: setattr(model.layers[2], "training_forwards", -1), "training_forwards must be"),
        (lambda model: setattr(model.optimizer, "learning_rate", "fast"), "learning_rate must be a number"),
        (lambda model: setattr(model.optimizer, "decay", -1), "decay must be"),
        (lambda model: setattr(model.optimizer, "beta_1", 1), "beta_1 must be"),
        (lambda model: setattr(model.optimizer, "epsilon", np.nan), "epsilon must be"),
        (lambda model: setattr(model.optimizer, "iterations", -1), "iterations must be"),
    ],
    ids=[
        *(
            "weights of the first",
            "weights of the last",
            "biases",
            "no weights",
            "complex weights",
            "read-only weights",
        ),
        *("state", "penalty", "dropout's rate", "dropout's count", "rate", "decay", "beta", "epsilon", "iterations"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence_and_changes_nothing(spoil, message):
    model = build(CLASSIFIER)
    data = data_for(CLASSIFIER, 20)
    model.train(*data, print_every=None)
    spoil(model)
    kept = [vars(model.layers[i])[name] for i in (0, 3) for name in ("weights", "biases")]
    bytes_kept = [None if array is None else array.tobytes() for array in kept]
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        model.train(*data, print_every=None)
    assert [None if array is None else array.tobytes() for array in kept] == bytes_kept
    assert model.optimizer.iterations in (1, -1)


@pytest.mark.parametrize("first", ["dropout", "relu", "linear"])
def test_samples_of_another_width_are_refused_in_the_readers_words(first):
    model = build(Net(f"{first},3-4,softmax"))
    X, y = data_for(Net("2-4"), 20)
    for use in (lambda: model.train(X, y), lambda: model.evaluate(X, y), lambda: model.predict(X)):
        with pytest.raises(ValueError, match=r"^(Model|Layer_Dense)\.\w+: \w+ must have shape \(n, 3\), got \(20, 2\)"):
            use()


# Evaluation


@each_net
@each_dtype
def test_evaluation_is_the_book_paths(net, dtype):
    data = data_for(net, 70)
    models = [build(net, kind=kind, dtype=dtype) for kind in (nnx.Model, Book)]
    for batch_size in (None, 1, 16, 70, 1000):
        found, expected = (model.evaluate(*data, batch_size=batch_size, silent=True) for model in models)
        assert found == pytest.approx(expected, rel=AFTER_ONE[dtype], abs=1e-12), batch_size
        for name in ("accumulated_sum", "accumulated_count"):
            for of in ("loss", "accuracy"):
                a, b = (getattr(getattr(model, of), name) for model in models)
                assert type(a) is type(b)
                assert a == pytest.approx(b, rel=AFTER_ONE[dtype])


def test_many_rows_are_evaluated_as_on_the_book_path():
    net = Net("20-40,relu,40-300,softmax")
    data = data_for(net, 3000)
    found, expected = (build(net, kind=kind).evaluate(*data, silent=True) for kind in (nnx.Model, Book))
    assert found == pytest.approx(expected, rel=1e-10)


@few_nets
def test_neither_evaluating_nor_predicting_sets_an_attribute_of_a_layer(net):
    model = build(net)
    X, y = data_for(net, 50)
    for trained in (False, True):
        if trained:
            train(model, X, y)
        before = [dict(vars(layer)) for layer in (*model.layers, model.input_layer)]
        model.evaluate(X, y, batch_size=16, silent=True)
        model.predict(X)
        model.predict(X.tolist())
        model.predict(X, batch_size=7)
        after = [vars(layer) for layer in (*model.layers, model.input_layer)]
        assert [list(own) for own in after] == [list(own) for own in before]
        assert all(own[name] is value for own, kept in zip(after, before, strict=True) for name, value in kept.items())


def test_evaluating_while_nothing_is_known_of_the_precision_is_the_book_paths():
    data = data_for(FEW[1], 40)
    found = []
    for kind in (nnx.Model, Book):
        model = build(FEW[1], kind=kind)
        found.append(model.evaluate(*data, silent=True))
        assert model.accuracy.precision is None
        model.accuracy.precision = 0.5
        found.append(model.evaluate(*data, silent=True))
    assert found[:2] == [pytest.approx(figures) for figures in found[2:]]
    assert found[1]["accuracy"] > 0


# Prediction


@each_net
@each_dtype
def test_predictions_are_the_book_paths(net, dtype):
    X, _ = data_for(net, 70)
    models = [build(net, kind=kind, dtype=dtype) for kind in (nnx.Model, Book)]
    found, expected = (model.predict(X) for model in models)
    assert found.dtype == expected.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=AFTER_ONE[dtype], atol=AFTER_ONE[dtype])
    each = mean_of_members(models[0].forward(X, training=False), members_of(models[0].layers))
    np.testing.assert_allclose(found, each, rtol=AFTER_ONE[dtype], atol=1e-6)


@each_net
@each_dtype
def test_a_row_is_predicted_with_the_same_bits_alone_and_in_any_batch(net, dtype):
    X = data_for(net, 530)[0].astype(dtype)
    model = build(net, dtype=dtype)
    together = model.predict(X)
    for size in (1, 2, 3, 17, 256):
        n = 40 if size < 17 else len(X)
        parts = [model.predict(X[i : i + size]) for i in range(0, n, size)]
        np.testing.assert_array_equal(np.concatenate(parts)[:n], together[:n], err_msg=str(size))
    for batch_size in (1, 7, 1000):
        np.testing.assert_array_equal(model.predict(X, batch_size=batch_size), together, err_msg=str(batch_size))


@few_nets
def test_samples_of_every_form_are_predicted_with_the_same_bits(net):
    X = data_for(net, 40)[0].astype("f4")
    model = build(net, dtype="float32")
    expected = model.predict(X)
    for given in (X.tolist(), X.astype("f8"), X.astype(">f4"), np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]):
        np.testing.assert_array_equal(model.predict(given), expected)
    read_only = X.copy()
    read_only.setflags(write=False)
    np.testing.assert_array_equal(model.predict(read_only), expected)
    wide = np.zeros((40, X.shape[1] + 2), "f4")
    wide[:, 1:-1] = X
    np.testing.assert_array_equal(model.predict(wide[:, 1:-1]), expected)
    assert model.predict(X[:0]).shape == (0, expected.shape[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w,
        lambda w: w.astype("f8"),
        lambda w: np.asfortranarray(w),
        lambda w: np.repeat(w, 2, axis=1)[:, ::2],
        lambda w: w.tolist(),
    ],
    ids=["same", "float64", "by column", "strided", "list"],
)
@pytest.mark.parametrize("place", [0, 3])
def test_weights_that_are_assigned_between_calls_are_honoured(change, place):
    X, y = data_for(CLASSIFIER, 40)
    model, other = build(CLASSIFIER, dtype="float32"), build(CLASSIFIER, dtype="float32")
    figures = []
    for _ in range(2):
        model.predict(X)
        model.evaluate(X, y, silent=True)
        model.layers[place].weights *= 2  # in place
        other.layers[place].weights = 2 * other.layers[place].weights
        np.testing.assert_array_equal(model.predict(X), build_like(other).predict(X))
        model.layers[place].weights = change(np.cos(model.layers[place].weights))
        other.layers[place].weights = np.cos(other.layers[place].weights)
        np.testing.assert_array_equal(model.predict(X), build_like(other).predict(X))
        figures.append(model.evaluate(X, y, silent=True))
        assert figures[-1] == build_like(other).evaluate(X, y, silent=True)
    assert figures[0] != figures[1]


def build_like(model):
    """Return an unused model with another model's parameters."""
    fresh = build(CLASSIFIER, dtype="float32")
    fresh.set_parameters([(weights.copy(), biases.copy()) for weights, biases in model.get_parameters()])
    return fresh


@pytest.mark.parametrize("use", ["predict", "evaluate", "train"])
@pytest.mark.parametrize("name", ["weights", "biases"])
@pytest.mark.parametrize("place", [0, 3])
def test_parameters_of_another_shape_are_refused_also_after_a_plan_was_used(use, name, place):
    X, y = data_for(CLASSIFIER, 20)
    model = build(CLASSIFIER)
    use = {
        "predict": lambda: model.predict(X),
        "evaluate": lambda: model.evaluate(X, y, silent=True),
        "train": lambda: model.train(X, y, print_every=None),
    }[use]
    use()
    setattr(model.layers[place], name, np.ones((5, 4)))
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"{name} must have shape \(\d+, \d+\), got \(5, 4\)"):
            use()


@pytest.mark.parametrize("depth", [40, 100])
def test_a_deep_network_is_trained_evaluated_and_used(train_twins, depth):
    net = Net(",".join(["3-3,sigmoid"] * depth) + ",softmax")
    data = data_for(net, 20)
    model, book, found, expected = train_twins(net, data)
    assert_alike(found, expected, 1e-9)
    np.testing.assert_allclose(model.predict(data[0]), book.predict(data[0]))
    assert model.evaluate(*data, silent=True) == pytest.approx(book.evaluate(*data, silent=True))


def test_several_threads_that_predict_at_once_get_the_bits_that_one_gets():
    model = build(Net("40-70,relu,70-24,softmax"))
    batches = [data_for(Net("40-24"), n, seed=n)[0] for n in range(1, 200, 7)]
    expected = [model.predict(X).tobytes() for X in batches]
    wrong = []
    start = threading.Barrier(12)

    def predict_all():
        start.wait()
        for _ in range(5):
            wrong.extend(i for i, X in enumerate(batches) if model.predict(X).tobytes() != expected[i])

    threads = [threading.Thread(target=predict_all) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_predicting_and_evaluating_during_a_training_does_not_disturb_it(monkeypatch):
    """The object that prints the lines may use the model meanwhile."""
    X, y = data_for(CLASSIFIER, 50)
    expected = train(build(CLASSIFIER), X, y, epochs=10, batch_size=16)
    model = build(CLASSIFIER)
    monkeypatch.setattr(plan, "MOST_STEPS", 5)

    class Curious:
        used = 0

        def write(self, text):
            model.predict(X)
            model.evaluate(X, y, silent=True)
            Curious.used += 1

        def flush(self): ...

    monkeypatch.setattr("sys.stdout", Curious())
    found = train(model, X, y, epochs=10, batch_size=16, print_every=1)
    monkeypatch.undo()
    assert Curious.used > 1
    assert bits(found) == bits(expected)


def test_two_models_that_share_layers_do_not_disturb_each_other():
    X, y = data_for(CLASSIFIER, 50)
    whole, alone = build(CLASSIFIER), build(CLASSIFIER)
    part = nnx.Model()
    for layer in whole.layers:
        part.add(layer)
    part.set(loss=whole.loss, optimizer=whole.optimizer, accuracy=whole.accuracy)
    part.finalize()
    for _ in range(2):
        whole.train(X, y, print_every=None)
        part.train(X, y, print_every=None)
        alone.train(X, y, print_every=None, epochs=2)
    found, expected = bits(left_behind(part)), bits(left_behind(alone))
    own = [name for name in expected if not name.startswith("history.")]
    assert {name: found[name] for name in own} == {name: expected[name] for name in own}


@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
def test_plans_stay_within_the_arrays_that_they_are_given(backend):
    done = subprocess.run([sys.executable, plans.__file__, backend], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"at {lines[-1] if lines else 'the start'}: {done.returncode}\n{done.stderr}"
    assert len(lines) == 4 * len(NETS)
