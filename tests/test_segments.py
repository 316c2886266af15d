"""Segments: models with custom parts train as on the book path, with the built-in layers around them compiled."""

from __future__ import annotations

import copy
import re

import numpy as np
import plans
import pytest
from networks import parameters_of
from plans import ENSEMBLES, NETS, PENALTIES, WIDE, Book, Net, assert_alike, bits, data_for, left_behind, train

import nnx
from nnx import _kernels
from nnx._base.widths import width_after
from nnx.layers import walk

#: Networks whose built-in layers run as segments. Members have none.
CUT = [net for net in NETS if net not in ENSEMBLES]

#: The tolerance after one step and after fifty, as a fraction of an array's largest number.
AFTER_ONE = {"float32": 2e-4, "float64": 1e-10}
AFTER_FIFTY = {"float32": 5e-3, "float64": 1e-8}

REGRESSION = Net("17-33,relu,33-20,sigmoid,dropout,20-3,linear", "squared", "near")
CLASSIFIER = Net("6-33,relu,dropout,33-5,softmax")

OPTIMIZERS = {
    **plans.OPTIMIZERS,
    "Nesterov": lambda: nnx.Optimizer_SGD(0.05, momentum=0.8, nesterov=True),
    "AdamW": lambda: nnx.Optimizer_AdamW(0.01, weight_decay=0.1),
    "NAdam": lambda: nnx.Optimizer_NAdam(0.01),
    "AMSGrad": lambda: nnx.Optimizer_AMSGrad(0.01),
    "Lion": lambda: nnx.Optimizer_Lion(0.001, weight_decay=0.1),
    "clip_norm": lambda: nnx.Optimizer_Adam(0.01, clip_norm=0.1),
    "clip_value": lambda: nnx.Optimizer_SGD(0.1, clip_value=0.01),
    "average": lambda: nnx.Optimizer_Adam(0.01, average=0.9),
    "schedule": lambda: nnx.Optimizer_Adam(0.01, schedule=nnx.Schedule_Cosine(40)),
}

compiled_only = pytest.mark.usefixtures("compiled")


class Own_Layer:
    """A layer with parameters, from scratch."""

    def __init__(self, width, dtype):
        self.weights = np.linspace(0.5, 1.5, width, dtype=dtype).reshape(1, width)
        self.biases = np.full((1, width), 0.1, dtype)

    def get_parameters(self):
        return self.weights, self.biases

    def set_parameters(self, weights, biases):
        self.weights, self.biases = weights, biases

    def get_config(self):
        return {"width": self.weights.size, "dtype": self.weights.dtype.name}

    def forward(self, inputs, training):
        self.inputs = inputs
        self.output = inputs * self.weights + self.biases

    def backward(self, dvalues):
        self.dweights = (dvalues * self.inputs).sum(axis=0, keepdims=True)
        self.dbiases = dvalues.sum(axis=0, keepdims=True)
        self.dinputs = dvalues * self.weights


class Own_Loss(nnx.Loss):
    """A Huber loss."""

    def forward(self, y_pred, y_true):
        distance = np.abs(y_pred - y_true)
        return np.mean(np.where(distance <= 1, 0.5 * distance**2, distance - 0.5), axis=-1)

    def backward(self, dvalues, y_true):
        self.dinputs = np.clip(dvalues - y_true, -1, 1) / dvalues.size


class Own_Accuracy(nnx.Accuracy):
    def compare(self, predictions, y):
        return np.abs(predictions - y) < 0.5


class Own_Optimizer:
    """Plain gradient descent, from scratch."""

    iterations = 0

    def pre_update_params(self):
        pass

    def update_params(self, layer):
        layer.weights -= 0.05 * layer.dweights
        if hasattr(layer, "biases"):
            layer.biases -= 0.05 * layer.dbiases

    def post_update_params(self):
        self.iterations += 1


def build(net, optimizer="Adam", kind=nnx.Model, dtype="float64", at=(), loss=None, accuracy=None, **dense):
    """Return a model of `plans.build`, with custom layers before some of its layers."""
    plain = plans.build(net, dtype=dtype, **dense)
    model, width = kind(), net.widths[0]
    for number, layer in enumerate([*plain.layers, None]):
        if number in at:
            model.add(Own_Layer(width, dtype))
        if layer is not None:
            model.add(layer)
            width = width_after(layer, width)
    made = OPTIMIZERS[optimizer]() if isinstance(optimizer, str) else optimizer()
    model.set(loss=loss() if loss else plain.loss, optimizer=made, accuracy=accuracy() if accuracy else plain.accuracy)
    model.finalize()
    return model


def n_layers(net):
    return len(plans.build(net).layers)


@pytest.fixture
def train_twins(segmented, backend):
    """Return a function that trains a model in segments and on the book path, and compares the state after both."""

    def run(net, data, setup=None, **arguments):
        options = {
            name: arguments.pop(name) for name in list(arguments) if name in ("optimizer", "dtype", "at", "loss")
        }
        options |= {name: arguments.pop(name) for name in list(arguments) if name in ("accuracy", *PENALTIES)}
        X, y = data
        if net.loss != "categorical":
            data = X, y.astype(options.get("dtype", "float64"))  # custom losses pass that on
        twins = [build(net, kind=kind, **options) for kind in (nnx.Model, Book)]
        if setup:
            for model in twins:
                setup(model)
        segmented.clear()
        left = [train(model, *data, **arguments) for model in twins]
        assert segmented == [backend != "numpy", False]
        return *twins, *left

    return run


# The same results


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("net", [net for net in CUT if net.loss != "categorical"], ids=str)
def test_a_step_with_an_own_loss_is_the_book_paths(train_twins, net, dtype):
    X, y = data_for(net, 50)
    *_, found, expected = train_twins(net, (X, y), loss=Own_Loss, dtype=dtype)
    assert_alike(found, expected, AFTER_ONE[dtype])


@pytest.mark.parametrize("number", range(len(CUT)), ids=map(str, CUT))
def test_fifty_steps_with_an_own_layer_are_the_book_paths(train_twins, number):
    net, dtype = CUT[number], ("float32", "float64")[number % 2]
    arguments = {
        "epochs": 13,
        "batch_size": 16,
        "on_nonfinite": "ignore",
        "optimizer": ("Adam", "clip_norm")[number % 3 // 2],
    }
    at = ((n_layers(net) + 1) // 2,)
    *_, found, expected = train_twins(net, data_for(net, 50), at=at, dtype=dtype, **arguments)
    assert len(found["history.step_loss"]) == 52
    assert_alike(found, expected, AFTER_FIFTY[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, Own_Optimizer])
@pytest.mark.parametrize("at", [(), (0,), (1, 4, 7)])
def test_every_rule_updates_as_on_the_book_path(train_twins, optimizer, at, dtype):
    loss = None if at else Own_Loss
    arguments = {"epochs": 13, "batch_size": 16, "shuffle": True, "optimizer": optimizer, **PENALTIES}
    *_, found, expected = train_twins(REGRESSION, data_for(REGRESSION, 50), at=at, loss=loss, dtype=dtype, **arguments)
    assert_alike(found, expected, AFTER_FIFTY[dtype])


@pytest.mark.parametrize("net", [CLASSIFIER, Net("6-33,relu,33-4,sigmoid", "binary", "cells")], ids=str)
@pytest.mark.parametrize("at", [(1,), (3,), (5,)])
def test_last_activation_and_loss_keep_their_combined_gradient(train_twins, net, at):
    *twins, found, expected = train_twins(net, data_for(net, 40), at=[min(at[0], n_layers(net))], epochs=5)
    assert_alike(found, expected, 1e-8)
    ends = [model.layers[-1] is model.layers[-1] and model._has_pair_gradient() for model in twins]
    assert ends[0] is ends[1]


def test_an_own_accuracy_leaves_all_else_compiled(train_twins):
    arguments = {"accuracy": Own_Accuracy, "epochs": 5, "batch_size": 16}
    *_, found, expected = train_twins(REGRESSION, data_for(REGRESSION, 50), **arguments)
    assert_alike(found, expected, 1e-8)


@pytest.mark.parametrize("slopes", [1, 8])
def test_a_prelu_in_a_segment_is_trained(segmented, slopes):
    left = []
    X, y = data_for(Net("4-8", "squared", "near"), 40)
    for kind in (nnx.Model, Book):
        np.random.seed(0)
        model = kind()
        for layer in (nnx.Layer_Dense(4, 8, dtype="float64"), nnx.Activation_PReLU(slopes, dtype="float64")):
            model.add(layer)
        model.add(Own_Layer(8, "float64"))
        model.set(loss=Own_Loss(), optimizer=nnx.Optimizer_Adam(0.01), accuracy=nnx.Accuracy_Regression())
        model.finalize()
        left.append(train(model, X, y, epochs=6, batch_size=16))
    assert_alike(*left, 1e-8)


@pytest.mark.parametrize("frozen", [[0], [2], [0, 2, 6], [6]])
@pytest.mark.parametrize("optimizer", ["Adam", "clip_norm", "average"])
def test_frozen_layers_stay_as_they_are_and_get_their_gradients(train_twins, frozen, optimizer):
    def freeze(model):
        for number in frozen:
            model.trainable_layers.remove(model.layers[number])

    arguments = {"at": (3,), "epochs": 3, "batch_size": 16, "optimizer": optimizer, "setup": freeze}
    *_, found, expected = train_twins(REGRESSION, data_for(REGRESSION, 50), **arguments)
    assert_alike(found, expected, 1e-8)


@pytest.mark.parametrize("layers", [(0,), (0, 2, 5)])
def test_layers_that_are_frozen_or_freed_during_training_are_so_at_once(train_twins, layers):
    class Loss_Freezing(Own_Loss):
        def forward(self, y_pred, y_true):
            model = self.model[0]
            self.model[1] += 1
            model.trainable_layers[:] = [
                layer
                for number, layer in enumerate(model.layers)
                if hasattr(layer, "weights") and (number not in layers or self.model[1] % 2)
            ]
            return super().forward(y_pred, y_true)

    def tell(model):
        model.loss.model = [model, 0]

    arguments = {"loss": Loss_Freezing, "epochs": 4, "batch_size": 16, "setup": tell}
    *_, found, expected = train_twins(REGRESSION, data_for(REGRESSION, 50), **arguments)
    assert_alike(found, expected, 1e-8)


@compiled_only
@pytest.mark.parametrize("net", [*WIDE, CLASSIFIER], ids=str)
def test_bfloat16_products_round_as_on_the_book_path(train_twins, net):
    arguments = {"precision": "bfloat16", "dtype": "float32", "at": (2,), "epochs": 2, "batch_size": 32}
    *_, found, expected = train_twins(net, data_for(net, 64), **arguments)
    assert_alike(found, expected, 2e-2)
    _, plain = train_twins(net, data_for(net, 64), **{**arguments, "precision": None})[2:]
    assert not np.array_equal(plain["layers[0].weights"], found["layers[0].weights"])


@compiled_only
@pytest.mark.parametrize("net", WIDE, ids=str)
def test_matrix_units_train_in_segments_too(train_twins, backend, net):
    if not hasattr(_kernels.backend, "_use_plain_units"):
        pytest.skip("there are no blocks")
    _kernels.backend._use_plain_units(True)
    try:
        arguments = {"precision": "bfloat16", "dtype": "float32", "at": (2,), "epochs": 2, "batch_size": 32}
        *_, found, expected = train_twins(net, data_for(net, 64), **arguments)
    finally:
        _kernels.backend._use_plain_units(False)
    assert_alike(found, expected, 2e-2)


# Bit for bit


@compiled_only
@pytest.mark.parametrize("optimizer", ["Adam", "clip_norm", Own_Optimizer])
def test_bits_depend_neither_on_threads_nor_on_calls(optimizer):
    data = data_for(REGRESSION, 48)
    left = []
    for calls, threads in ((1, 1), (1, 2), (6, 1)):
        model = build(REGRESSION, optimizer, at=(3,), dtype="float32")
        for _ in range(calls):
            train(model, *data, epochs=6 // calls, batch_size=16, threads=threads)
        left.append({name: each for name, each in bits(left_behind(model)).items() if "history" not in name})
    assert left[0] == left[1] == left[2]


@pytest.mark.parametrize("stop", [5, 8])
def test_a_resumed_training_has_the_bits_of_one_without_a_stop(tmp_path, stop):
    X, y = data_for(REGRESSION, 50)
    whole, halted = (build(REGRESSION, at=(3,), dtype="float32") for _ in range(2))
    arguments = {"epochs": 3, "batch_size": 16, "shuffle": True, "seed": 4}
    whole.train(X, y, print_every=None, **arguments)
    counts = []
    forward = halted.layers[3].forward

    def stopping(inputs, training):
        counts.append(training)
        if sum(counts) == stop + 1:
            raise KeyboardInterrupt
        forward(inputs, training)

    halted.layers[3].forward = stopping
    path = tmp_path / "checkpoint.nnx"
    with pytest.raises(KeyboardInterrupt):
        halted.train(X, y, print_every=None, checkpoint=path, checkpoint_every=1, **arguments)
    other = build(REGRESSION, at=(3,), dtype="float32")
    other.train(X, y, print_every=None, resume=path, **arguments)
    assert parameters_of(other) == parameters_of(whole)


# What custom parts see


def test_own_parts_see_the_attributes_at_the_ends_of_segments(segmented, backend):
    seen = []

    class Layer_Seeing(Own_Layer):
        def forward(self, inputs, training):
            seen.append(inputs is self.prev.output)
            super().forward(inputs, training)

        def backward(self, dvalues):
            seen.append(dvalues is self.next.dinputs)
            super().backward(dvalues)

    class Loss_Seeing(Own_Loss):
        def forward(self, y_pred, y_true):
            seen.append(y_pred is model.layers[-1].output)
            return super().forward(y_pred, y_true)

    model = build(REGRESSION, loss=Loss_Seeing)
    model.layers.insert(3, Layer_Seeing(20, "float64"))
    model.finalize()
    model.train(*data_for(REGRESSION, 50), batch_size=16, print_every=None)
    assert segmented == [backend != "numpy"]
    assert seen == [True] * 12


def test_what_is_handed_out_never_changes_later():
    outputs, copies = [], []

    class Loss_Keeping(Own_Loss):
        def forward(self, y_pred, y_true):
            outputs.append(y_pred)
            copies.append(y_pred.copy())
            return super().forward(y_pred, y_true)

    class Layer_Keeping(Own_Layer):
        def backward(self, dvalues):
            super().backward(dvalues)
            outputs.append(dvalues)
            copies.append(dvalues.copy())

    model = build(REGRESSION, loss=Loss_Keeping)
    model.layers.insert(3, Layer_Keeping(20, "float64"))
    model.finalize()
    model.train(*data_for(REGRESSION, 50), epochs=3, batch_size=16, print_every=None)
    assert len(outputs) == 24
    assert all(map(np.array_equal, outputs, copies))


def test_an_own_optimizer_sees_every_layers_gradients_at_every_step(train_twins):
    class Optimizer_Noting(nnx.Optimizer_Adam):
        def pre_update_params(self):
            self.norms = getattr(self, "norms", [])
            self.norms.append([float(np.abs(layer.dweights).sum()) for layer in self.layers])
            super().pre_update_params()

    def tell(model):
        model.optimizer.layers = model.trainable_layers

    arguments = {"at": (3,), "optimizer": Optimizer_Noting, "epochs": 3, "batch_size": 16, "setup": tell}
    model, book, found, expected = train_twins(REGRESSION, data_for(REGRESSION, 50), **arguments)
    np.testing.assert_allclose(model.optimizer.norms, book.optimizer.norms, rtol=1e-8)
    assert_alike(found, expected, 1e-8)


def test_own_layers_may_give_any_dtype_and_layout(segmented):
    class Layer_Odd(Own_Layer):
        def forward(self, inputs, training):
            super().forward(inputs, training)
            self.output = np.asfortranarray(self.output.astype(np.float32))

        def backward(self, dvalues):
            super().backward(dvalues)
            self.dinputs = np.repeat(self.dinputs.astype(">f4"), 2, axis=1)[:, ::2]

    left = []
    for kind in (nnx.Model, Book):
        model = build(REGRESSION, kind=kind)
        model.layers.insert(2, Layer_Odd(33, "float64"))
        model.finalize()
        left.append(train(model, *data_for(REGRESSION, 40), epochs=3, batch_size=16))
    assert_alike(*left, 1e-4)


# Custom code that changes things


@compiled_only
def test_parameters_that_own_code_puts_in_place_are_used_at_once(train_twins):
    class Loss_Swapping(Own_Loss):
        def forward(self, y_pred, y_true):
            for layer in self.trainable_layers:
                layer.weights = layer.weights * 0.9
            return super().forward(y_pred, y_true)

        def backward(self, dvalues, y_true):
            for layer in self.trainable_layers:
                layer.biases = (layer.biases + 0.1).astype(np.float32)
            super().backward(dvalues, y_true)

    arguments = {"loss": Loss_Swapping, "epochs": 3, "batch_size": 16}
    *_, found, expected = train_twins(REGRESSION, data_for(REGRESSION, 50), **arguments)
    assert_alike(found, expected, 1e-6)


@compiled_only
@pytest.mark.parametrize("change", ["a method", "a class", "shared weights", "dtype", "forward"])
def test_a_change_of_the_model_during_training_counts_at_the_next_step(train_twins, change):
    class ReLU_Halving(nnx.Activation_ReLU):
        def forward(self, inputs, training=True):
            super().forward(inputs, training)
            self.output = self.output / 2

    class Loss_Changing(Own_Loss):
        def forward(self, y_pred, y_true):
            self.model[1] += 1
            if self.model[1] == 3:
                self.make(self.model[0])
            return super().forward(y_pred, y_true)

        def make(self, model):
            relu, dense = model.layers[1], model.layers[2]
            if change == "a method":
                forward = relu.forward
                relu.forward = lambda inputs, training: forward(2 * inputs, training)
            elif change == "a class":
                relu.__class__ = ReLU_Halving
            elif change == "shared weights":
                dense.weights = model.layers[0].weights.reshape(-1)[: dense.weights.size].reshape(dense.weights.shape)
            elif change == "dtype":
                dense.dtype = np.dtype("float32")
            else:
                forward = model.forward
                model.forward = lambda X, training: 2 * forward(X, training)

    net = Net("20-33,relu,33-10,sigmoid,10-3,linear", "squared", "near")

    def tell(model):
        model.loss.model = [model, 0]

    arguments = {"loss": Loss_Changing, "epochs": 3, "batch_size": 16, "setup": tell}
    *_, found, expected = train_twins(net, data_for(net, 50), **arguments)
    assert_alike(found, expected, 1e-5 if change == "dtype" else 1e-8)


def test_layers_that_own_code_exchanges_are_refused_as_on_the_book_path():
    class Loss_Exchanging(Own_Loss):
        def forward(self, y_pred, y_true):
            model.layers[1] = nnx.Activation_Tanh()
            return super().forward(y_pred, y_true)

    for kind in (nnx.Model, Book):
        model = build(REGRESSION, kind=kind, loss=Loss_Exchanging)
        with pytest.raises(RuntimeError, match=r"the layers have changed"):
            model.train(*data_for(REGRESSION, 50), batch_size=16, print_every=None)


@compiled_only
@pytest.mark.parametrize("limits", [(None, 0.01), (0.01, None)])
def test_a_limit_that_comes_or_goes_during_a_step_counts_in_it(train_twins, limits):
    class Loss_Limiting(Own_Loss):
        def backward(self, dvalues, y_true):
            self.model.optimizer.clip_norm = limits[1]
            super().backward(dvalues, y_true)

    def tell(model):
        model.loss.model = model
        model.optimizer.clip_norm = limits[0]
        model.trainable_layers.remove(model.layers[0])

    arguments = {"loss": Loss_Limiting, "epochs": 2, "batch_size": 16, "optimizer": "SGD", "setup": tell}
    *_, found, expected = train_twins(REGRESSION, data_for(REGRESSION, 50), **arguments)
    del found["layers[0].dweights"], found["layers[0].dbiases"], found["layers[0].dinputs"]
    for name in ("dweights", "dbiases", "dinputs"):
        del expected[f"layers[0].{name}"]
    assert_alike(found, expected, 1e-8)


@compiled_only
def test_memory_that_own_code_frees_is_not_touched():
    class Layer_Freeing(Own_Layer):
        def forward(self, inputs, training):
            super().forward(inputs, training)
            self.output = self.output + 0
            inputs.resize((0,), refcheck=False)
            self.inputs = self.output

        def backward(self, dvalues):
            self.output.resize((1, 1), refcheck=False)
            self.dinputs = dvalues.copy()
            self.dweights, self.dbiases = 0 * self.weights, 0 * self.biases
            dvalues.resize((0,), refcheck=False)

    model = build(REGRESSION)
    model.layers.insert(3, Layer_Freeing(20, "float64"))
    model.finalize()
    with pytest.raises(ValueError, match=r"inputs must have shape"):
        model.train(*data_for(REGRESSION, 50), batch_size=16, print_every=None)


@compiled_only
@pytest.mark.parametrize(
    "first",
    [
        lambda: [nnx.Layer_Residual([nnx.Layer_Dense(3, 3)])],
        lambda: [nnx.Activation_Linear(), nnx.Layer_Dense(3, 3)],
        lambda: [nnx.Activation_Linear(), nnx.Layer_Residual([nnx.Layer_Dense(3, 3)])],
    ],
    ids=["residual", "linear", "both"],
)
def test_inputs_that_layers_hand_on_are_looked_at_again_too(first):
    class Layer_Own:
        def forward(self, inputs, training):
            self.output = inputs + np.float32(0)

        def backward(self, dvalues):
            self.dinputs = dvalues

    class Loss_Moving(Own_Loss):
        """Gives the inputs of the segment other memory, with other numbers."""

        def forward(self, y_pred, y_true):
            if self.moves:
                inputs, model.layers[0].output = model.layers[0].output, None
                inputs.resize((9000, 3), refcheck=False)
                inputs[:] = 2
                self.kept = np.ones((3000, 3), "float32")
                inputs.resize((3000, 3), refcheck=False)
            return super().forward(y_pred, y_true)

    left = []
    rng = np.random.default_rng(0)
    X, y = (rng.normal(size=(3000, 3)).astype("float32") for _ in range(2))
    for moves in (True, False):
        np.random.seed(0)
        model = nnx.Model()
        for layer in (Layer_Own(), *first()):
            model.add(layer)
        model.set(loss=Loss_Moving(), optimizer=nnx.Optimizer_SGD(0.1), accuracy=nnx.Accuracy_Regression())
        model.finalize()
        model.loss.moves = moves
        model.train(X, y, print_every=None)
        dense = next(layer for layer in walk(model.layers) if type(layer) is nnx.Layer_Dense)
        if moves:
            np.testing.assert_allclose(dense.dweights, 2 * dense.dbiases.repeat(3, axis=0), rtol=1e-5)
        left.append(dense.dbiases)
    np.testing.assert_array_equal(*left)


@compiled_only
@pytest.mark.parametrize("during_a_step", [False, True])
def test_embeddings_that_own_code_makes_larger_do_not_leave_their_memory(during_a_step):
    def grow(model):
        layer = model.layers[0]
        layer.categories, layer.weights = 100_000, np.ones((100_000, 8), "float32")
        del layer.weight_momentums, layer.weight_cache

    class Loss_Growing(Own_Loss):
        def forward(self, y_pred, y_true):
            if during_a_step and model.layers[0].categories == 4 and model.optimizer.iterations:
                grow(model)
            return super().forward(y_pred, y_true)

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 1)).astype("float32")
    X[:, 1] = rng.integers(0, 4, 40)
    left = []
    for kind in (nnx.Model, Book):
        np.random.seed(0)
        model = kind()
        for layer in (nnx.Layer_Embedding(3, [1], 4, 8), nnx.Layer_Dense(10, 1)):
            model.add(layer)
        model.set(loss=Loss_Growing(), optimizer=nnx.Optimizer_Adam(0.01), accuracy=nnx.Accuracy_Regression())
        model.finalize()
        model.train(X, y, print_every=None)
        if not during_a_step:
            grow(model)
        elif kind is nnx.Model:
            with pytest.raises(RuntimeError, match=r"parameters of another shape during a step"):
                model.train(X, y, print_every=None)
        for _ in range(2):
            model.train(X, y, epochs=2, print_every=None)
        left.append(model.layers[0].weights)
    assert [array.shape for array in left] == 2 * [(100_000, 8)]
    assert during_a_step or np.allclose(*left, rtol=1e-3, atol=1e-4)


def test_layers_that_are_too_many_to_predict_as_one_are_evaluated_all_the_same():
    X, y = (array.astype("float32") for array in data_for(Net("3-1", "squared", "near"), 20))
    model = nnx.Model()
    model.add(nnx.Layer_Residual([nnx.Layer_Scale(3, 0.9) for _ in range(70)]))
    model.add(nnx.Layer_Dense(3, 1))
    model.set(loss=Own_Loss(), optimizer=nnx.Optimizer_SGD(0.01), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    model.train(X, y, print_every=None)
    assert model.evaluate(X, y, silent=True)["loss"] == pytest.approx(Book.evaluate(model, X, y, silent=True)["loss"])


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(
    "made",
    [lambda x: None, lambda x: x[:, :2], lambda x: x.ravel(), lambda x: x[:1], lambda x: "text", lambda x: x[:0]],
    ids=["none", "narrow", "flat", "one row", "text", "no rows"],
)
def test_what_own_layers_must_not_give_is_refused_as_on_the_book_path(segmented, where, made):
    class Layer_Wrong(Own_Layer):
        def forward(self, inputs, training):
            super().forward(inputs, training)
            if where == "forward":
                self.output = made(self.output)

        def backward(self, dvalues):
            super().backward(dvalues)
            if where == "backward":
                self.dinputs = made(self.dinputs)

    errors = []
    for kind in (nnx.Model, Book):
        model = build(REGRESSION, kind=kind)
        model.layers.insert(3, Layer_Wrong(20, "float64"))
        model.finalize()
        before = parameters_of(model) if hasattr(Layer_Wrong, "get_parameters") else None
        with pytest.raises((ValueError, TypeError)) as raised:
            model.train(*data_for(REGRESSION, 50), batch_size=16, print_every=None)
        errors.append(raised.type)
        assert before is None or parameters_of(model) == before
    assert errors[0] is errors[1]


# Interruptions


@pytest.mark.parametrize("part", ["loss forward", "loss backward", "layer forward", "layer backward", "accuracy"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_after_an_error_in_an_own_part_the_model_is_as_after_the_last_whole_step(train_twins, part, error):
    def failing(method):
        def run(*arguments):
            run.calls += 1
            if run.calls == 3:
                raise error("enough")
            return method(*arguments)

        run.calls = 0
        return run

    left = []
    for kind in (nnx.Model, Book):
        model = build(REGRESSION, kind=kind, at=(3,), loss=Own_Loss, accuracy=Own_Accuracy)
        owner = {"loss": model.loss, "layer": model.layers[3], "accuracy": model.accuracy}[part.split()[0]]
        name = {"accuracy": "compare"}.get(part, part.split()[-1])
        setattr(owner, name, failing(getattr(owner, name)))
        with pytest.raises(error):
            train(model, *data_for(REGRESSION, 50), batch_size=16)
        found = left_behind(model)
        inner = ("inputs", "output", "dinputs", "dweights", "dbiases", "binary_mask", "_passed_through", "dvalues")
        left.append({key: each for key, each in found.items() if key.split(".")[-1] not in inner})
    assert left[0]["optimizer.iterations"] == 2
    assert left[0]["layers[5].training_forwards"] == left[1]["layers[5].training_forwards"]
    assert_alike(*left, 1e-8)


@compiled_only
@pytest.mark.parametrize("at", [(3,), ()])
def test_training_that_diverges_says_where_as_on_the_book_path(train_twins, at):
    sentences = []
    for kind in (nnx.Model, Book):
        model = build(REGRESSION, "SGD", kind=kind, at=at, loss=Own_Loss)
        X, y = data_for(REGRESSION, 50)
        X[40:] = 1e308
        model.layers[0].weights[:] *= 10
        with np.errstate(all="ignore"), pytest.raises(nnx.DivergenceError) as raised:
            train(model, X, y, batch_size=16, check_finite=False)
        sentences.append(str(raised.value))
        assert model.optimizer.iterations == len(model.history.step_loss) == 2
        assert next(layer for layer in model.layers if hasattr(layer, "seed")).training_forwards == 2
    assert sentences[0] == sentences[1]


# Which models have them


@compiled_only
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": Own_Loss}, r"It trains in 1 segment: layers 0 to 6 compiled; the loss, Own_Loss\(\), is custom\."),
        (
            {"at": (3,)},
            r"It trains in 3 segments: layers 0 to 2 compiled, layer 3 \(Own_Layer\) by its own methods, "
            r"layers 4 to 7 compiled\.",
        ),
        (
            {"at": (3,), "optimizer": "clip_norm"},
            r".* compiled; the optimizer updates layer by layer, as clip_norm needs all gradients\.",
        ),
        (
            {"at": (5,)},
            r"It trains in 3 segments: layers 0 to 4 compiled, layer 5 \(Own_Layer\) by its own methods, "
            r"layers 6 to 7 compiled\.",
        ),
        (
            {"at": (6, 7)},
            r"It trains in 4 segments: layers 0 to 5 compiled, layer 6 \(Own_Layer\) by its own methods, "
            r"layer 7 \(Activation_Linear\) by its own methods, layer 8 \(Own_Layer\) by its own methods\.",
        ),
        (
            {"accuracy": Own_Accuracy, "optimizer": Own_Optimizer},
            r".* compiled; the accuracy, Own_Accuracy\(\), is custom; the optimizer, .*Optimizer.*, is custom\.",
        ),
    ],
)
def test_explain_names_the_segments(options, sentence):
    found = build(REGRESSION, **options).explain()
    assert re.fullmatch(rf"No plan: .*? is not built in\. {sentence}", found), found


@compiled_only
def test_models_without_segments_take_the_book_path(segmented):
    model = nnx.Model()
    model.add(Own_Layer(3, "float64"))
    model.set(loss=Own_Loss(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    model.train(*data_for(Net("3-3", "squared", "near"), 20), print_every=None)
    build(REGRESSION, kind=Book).train(*data_for(REGRESSION, 20), print_every=None)
    twice = build(REGRESSION, loss=Own_Loss)
    twice.layers[2].biases = twice.layers[0].weights.reshape(-1)[:20].reshape(1, 20)
    assert twice.explain().endswith(" It trains layer by layer.")
    twice.train(*data_for(REGRESSION, 20), print_every=None)
    assert segmented == [False] * 3


@compiled_only
def test_built_in_layers_without_a_dense_one_run_by_their_methods(train_twins):
    net = Net("6-8,relu,8-3,softmax")
    *_, found, expected = train_twins(net, data_for(net, 40), at=(1, 2, 3), epochs=3)
    assert_alike(found, expected, 1e-8)


@compiled_only
def test_segments_are_made_once_and_bound_at_each_step(monkeypatch):
    model = build(REGRESSION, loss=Own_Loss)
    data = data_for(REGRESSION, 50)
    model.train(*data, print_every=None)
    kept = model._segments
    model.train(*data, batch_size=16, print_every=None)
    assert model._segments is kept
    assert copy.deepcopy(model)._segments is None
    book = build(REGRESSION, loss=Own_Loss, kind=Book)
    train(book, *data)
    monkeypatch.setattr(nnx.Activation_ReLU, "forward", lambda self, inputs, training: None)
    with pytest.raises(AttributeError):
        build(REGRESSION, loss=Own_Loss).train(*data, print_every=None)


@compiled_only
def test_the_native_class_refuses_what_does_not_fit():
    model = build(REGRESSION, loss=Own_Loss)
    X, y = data_for(REGRESSION, 50)
    model.train(X, y, print_every=None)
    (segment,) = [piece.native for piece in model._segments[0]]
    owners, all_of_them = tuple(model.layers), (True,) * 7
    for call in (
        lambda: segment.backward(owners, all_of_them, np.zeros((50, 3)), False, True, "here"),
        lambda: segment.make_gradients(owners, all_of_them, "here"),
        lambda: segment.make_ready(owners, all_of_them, None, False, model.optimizer._rule(), 0.1, 1, None, "here"),
        lambda: segment.make_ready(owners, all_of_them, y, False, model.optimizer._rule(), 0.1, 1, None, "here"),
    ):
        with pytest.raises(RuntimeError, match=r"^Segment\.\w+: call \w+ first\.$"):
            call()
    segment.update()
    segment.publish(owners)
    with pytest.raises(ValueError, match="inputs must have shape"):
        segment.forward(owners, np.zeros((3, 2)), 50, True, False, False, "here")
    with pytest.raises(ValueError, match="at least one row"):
        segment.forward(owners, np.zeros((0, 17)), 50, True, False, False, "here")
    with pytest.raises(ValueError, match="one for each stage"):
        segment.forward(owners[:2], X, 50, True, False, False, "here")
    assert segment.forward(owners, X, 50, True, False, False, "here").shape == (50, 3)
    with pytest.raises(ValueError, match="dvalues must have shape"):
        segment.backward(owners, all_of_them, np.zeros((49, 3)), False, True, "here")
    with pytest.raises(ValueError, match="the last stage must be an activation"):
        segment.backward(owners, all_of_them, np.zeros((50, 3)), True, True, "here")
    segment.release()
    with pytest.raises(ValueError, match="there must be parameters, samples and a loss"):
        segment.bind_data(X, y, ((), None), None, False, False, -1.0)
    with pytest.raises(RuntimeError, match="no run is prepared"):
        segment.lead()


# Prediction


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("at", [(), (0,), (3,), (7,)])
def test_predictions_and_evaluations_are_the_book_paths(at, dtype, backend):
    X, y = data_for(REGRESSION, 50)
    model, book = (build(REGRESSION, "average", kind, dtype, at=at, loss=Own_Loss) for kind in (nnx.Model, Book))
    for each in (model, book):
        each.train(X, y, epochs=2, batch_size=16, print_every=None)
    tolerance = {"rtol": 0, "atol": 1e-4 if dtype == "float32" else 1e-10}
    for batch_size in (None, 7):
        found, expected = (each.predict(X, batch_size=batch_size) for each in (model, book))
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, **tolerance)
        found, expected = (each.evaluate(X, y, batch_size=batch_size, silent=True) for each in (model, book))
        np.testing.assert_allclose(list(found.values()), list(expected.values()), **tolerance)
    assert model.predict(X[:0]).shape == (0, 3)


def test_a_method_that_is_put_on_a_layer_is_called_in_the_next_prediction():
    X, _ = data_for(REGRESSION, 50)
    model = build(REGRESSION, at=(3,))
    before = model.predict(X)
    relu = model.layers[1]
    forward = relu.forward
    relu.forward = lambda inputs, training: forward(-inputs, training)
    assert not np.allclose(model.predict(X), before)
    del relu.forward
    np.testing.assert_array_equal(model.predict(X), before)
