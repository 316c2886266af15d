"""Programs: what they print, when a model has none, and which object prevents it. Also that nnx calls every user's
replacement of a built-in part, even if it comes after the plan was made.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from plans import NETS, PENALTIES, Book, Net, assert_alike, bits, build, data_for, train

import nnx
from nnx import _kernels
from nnx.engine import program

CLASSIFIER = Net("2-64,relu,dropout,64-3,softmax")
#: Every kind of layer, softmax also in the middle.
MIXED = Net("3-8,relu,8-8,sigmoid,8-8,linear,dropout,softmax,8-3,softmax")
SQUARED = Net("3-6,relu,6-1,linear", "squared", "near")
ABSOLUTE = Net("3-6,relu,6-1,linear", "absolute", "near")
BINARY = Net("3-6,relu,6-1,sigmoid", "binary", "cells")


# What a program prints, and what it is


def words(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_program_prints_its_slots_with_shapes_and_its_kernels_phase_by_phase():
    lines = words(str(program.lower(build(CLASSIFIER, "momentum", dtype="float32"))))
    assert lines[0] == "Program of 5 stages, float32"
    for line in (
        "X (n, 2) input",
        "layers[0].weights (2, 64) parameter",
        "layers[0].weight_momentums (2, 64) state",
        "layers[0].biases (1, 64) parameter",
        "layers[0].output (n, 64) activation",
        "layers[2].binary_mask (n, 64) mask",
        "layers[3].weights (64, 3) parameter",
        "layers[4].output (n, 3) activation",
    ):
        assert line in lines
    order = [
        "forward",
        "dense_forward: X, layers[0].weights, layers[0].biases -> layers[0].output",
        "relu_forward: layers[0].output -> layers[1].output",
        "dropout_forward: layers[1].output -> layers[2].output, layers[2].binary_mask",
        "dense_forward: layers[2].output, layers[3].weights, layers[3].biases -> layers[3].output",
        "softmax_forward: layers[3].output -> layers[4].output",
        "loss",
        "categorical_crossentropy: layers[4].output, y -> loss, hits, layers[4].dinputs",
        "backward",
        "dense_backward_inputs: layers[4].dinputs, layers[3].weights -> layers[3].dinputs",
        "update",
    ]
    places = [lines.index(line) for line in order]
    assert places == sorted(places)
    assert sum("sgd_momentum_update" in line for line in lines) == 4


@pytest.mark.parametrize("limit", ["clip_norm", "clip_value"])
def test_a_program_prints_the_limit_of_its_gradients(limit):
    model = build(CLASSIFIER, "momentum", dtype="float32")
    assert "update" in str(program.lower(model)).splitlines()
    setattr(model.optimizer, limit, 0.5)
    assert f"update, {limit}=0.5" in str(program.lower(model)).splitlines()


def test_a_program_prints_no_state_where_a_rule_has_none_and_no_update_of_what_is_frozen():
    model = build(CLASSIFIER, "SGD")
    assert " state" not in str(program.lower(model))
    model.trainable_layers.remove(model.layers[0])
    lines = words(str(program.lower(model)))
    assert "layers[0].weights (2, 64) frozen parameter" in lines
    assert "layers[3].weights (64, 3) parameter" in lines
    updates = [line for line in lines if "sgd_update" in line]
    assert len(updates) == 2
    assert all("layers[3]" in line and "layers[0]" not in line for line in updates)
    assert not any("dense_backward_inputs" in line for line in lines)


@pytest.mark.parametrize("frozen", ["nothing", "the first", "the last", "everything"])
@pytest.mark.parametrize("net", NETS, ids=str)
def test_a_program_reads_nothing_that_is_not_there_yet(net, frozen):
    model = build(net)
    if frozen != "nothing":
        model.trainable_layers = {
            "the first": model.trainable_layers[1:],
            "the last": model.trainable_layers[:-1],
            "everything": [],
        }[frozen]
    made = program.lower(model)
    slots = {slot.name: slot for slot in made.slots()}
    there = {name for name, slot in slots.items() if slot.role not in ("activation", "mask")}
    for phase, op in made.ops():
        assert set(op.reads) <= there, (phase, op)
        there |= set(op.writes)
    for name in slots:
        if name not in ("X", "y"):
            place, _, attribute = name.rpartition(".")
            array = getattr(eval(f"model.{place}"), attribute, None)
            assert array is None or array.shape == slots[name].shape


def test_a_program_holds_no_arrays():
    model = build(CLASSIFIER)
    train(model, *data_for(CLASSIFIER, 20))
    made = program.lower(model)
    seen: list[Any] = [*vars(made).values(), *made.slots(), *made.ops()]
    while seen:
        thing = seen.pop()
        assert not isinstance(thing, np.ndarray | memoryview)
        if isinstance(thing, tuple | list | set):
            seen += thing
        elif isinstance(thing, dict):
            seen += [*thing.keys(), *thing.values()]


# Objects that prevent a plan


def own(kind: type, **methods: Any) -> Any:
    """Return an instance of an empty subclass of a built-in class, made like the others here."""
    subclass = type(f"Own_{kind.__name__}", (kind,), methods)
    arguments = {
        nnx.Layer_Dense: {"n_inputs": 64, "n_neurons": 64, "dtype": "float64"},
        nnx.Layer_Dropout: {"rate": 0.5},
    }
    return subclass(**arguments.get(kind, {}))


def with_layer(layer: Any) -> nnx.Model:
    model = build(CLASSIFIER)
    model.layers.insert(2, layer)
    model.finalize()
    return model


def with_part(**parts: Any) -> nnx.Model:
    model = build(CLASSIFIER)
    for name, part in parts.items():
        setattr(model, name, part)
    return model


def changed(change: Any) -> nnx.Model:
    model = build(CLASSIFIER)
    change(model)
    return model


class Layer_Bare:
    def forward(self, inputs, training):
        self.inputs = self.output = inputs

    def backward(self, dvalues):
        self.dinputs = dvalues

    def __repr__(self) -> str:
        return "Layer_Bare()"


def replace(where: Any, name: str) -> Any:
    """Give an object an attribute that hides its class's method, and does the same."""
    setattr(where, name, getattr(where, name))


OBSTACLES = {
    "model": (lambda: build(CLASSIFIER, kind=Book), "the model has a custom class, Book"),
    "own layer": (lambda: with_layer(Layer_Bare()), r"layers\[2\], Layer_Bare\(\), is not built in"),
    **{
        f"subclass {kind.__name__}": (
            lambda kind=kind: with_layer(own(kind)),
            rf"layers\[2\], Own_{kind.__name__}\(.*\), is not built in",
        )
        for kind in (
            *(nnx.Layer_Dense, nnx.Layer_Dropout, nnx.Activation_ReLU, nnx.Activation_Sigmoid),
            *(nnx.Activation_Softmax, nnx.Activation_Linear),
        )
    },
    "loss": (
        lambda: with_part(loss=own(nnx.Loss_CategoricalCrossentropy)),
        r"the loss, Own_Loss_CategoricalCrossentropy\(\), is not built in",
    ),
    "optimizer": (
        lambda: with_part(optimizer=own(nnx.Optimizer_Adam)),
        r"the optimizer, Own_Optimizer_Adam\(.*\), is not built in",
    ),
    "accuracy": (
        lambda: with_part(accuracy=own(nnx.Accuracy_Categorical)),
        r"the accuracy, Own_Accuracy_Categorical\(\), is not built in",
    ),
    "classifier": (
        lambda: with_part(softmax_classifier_output=own(nnx.Activation_Softmax_Loss_CategoricalCrossentropy)),
        "softmax_classifier_output, .*, is not built in",
    ),
    "input layer": (
        lambda: changed(lambda model: setattr(model, "input_layer", own(nnx.Layer_Input))),
        r"input_layer, Own_Layer_Input\(\), is not built in",
    ),
    "output layer": (
        lambda: changed(lambda model: setattr(model, "output_layer_activation", nnx.Activation_Softmax())),
        "output_layer_activation is not the last layer",
    ),
    "method of a layer": (
        lambda: changed(lambda model: replace(model.layers[1], "forward")),
        r"layers\[1\], Activation_ReLU\(\), has a custom method forward",
    ),
    "method of the loss": (
        lambda: changed(lambda model: replace(model.loss, "calculate")),
        "Loss_CategoricalCrossentropy has a custom method calculate",
    ),
    "method of the optimizer": (
        lambda: changed(lambda model: replace(model.optimizer, "update_params")),
        "Optimizer_Adam has a custom method update_params",
    ),
    "method of the accuracy": (
        lambda: changed(lambda model: replace(model.accuracy, "compare")),
        "Accuracy_Categorical has a custom method compare",
    ),
    "method of the model": (
        lambda: changed(lambda model: replace(model, "backward")),
        "Model has a custom method backward",
    ),
    "shared weights": (
        lambda: changed(lambda model: setattr(model.layers[3], "biases", model.layers[0].weights[:1, :3])),
        r"layers\[0\]\.weights and layers\[3\]\.biases share memory",
    ),
    "a layer twice": (
        lambda: changed(lambda model: model.trainable_layers.append(model.layers[0])),
        "trainable_layers holds a layer twice",
    ),
    "another model's layer": (
        lambda: changed(lambda model: model.trainable_layers.append(nnx.Layer_Dense(2, 3))),
        "trainable_layers holds a layer that is not one of the model's layers with parameters",
    ),
}


@pytest.mark.parametrize("after", [False, True], ids=["", "after a plan was explained"])
@pytest.mark.parametrize(("make", "sentence"), OBSTACLES.values(), ids=OBSTACLES)
def test_explain_names_the_object_that_prevents_a_plan(compiled, planned, make, sentence, after):
    if after:
        assert build(CLASSIFIER).explain().startswith("It trains as a plan, ")
    model = make()
    with pytest.raises(program.Obstacle, match=f"^{sentence}$"):
        program.lower(model)
    form = rf"No plan: {sentence}\. It trains (layer by layer|in \d segments?: .*)\."
    assert re.fullmatch(form, model.explain())
    if "another" not in sentence and "twice" not in sentence and "not one of" not in sentence:
        train(model, *data_for(CLASSIFIER, 20))
        assert planned == [False]


def test_explain_names_the_class_whose_method_was_replaced(compiled, monkeypatch):
    model = build(CLASSIFIER)
    forward = nnx.Activation_ReLU.forward
    monkeypatch.setattr(nnx.Activation_ReLU, "forward", lambda self, *arguments: forward(self, *arguments))
    sentence = "the class Activation_ReLU has another method forward than at its definition"
    assert model.explain().startswith(f"No plan: {sentence}. It trains in ")
    assert "(Activation_ReLU) by its own methods" in model.explain()
    monkeypatch.undo()


def test_explain_names_the_backend_that_has_no_plans(backend):
    found = build(CLASSIFIER).explain()
    if backend == "numpy":
        assert found == f"No plan: the backend {_kernels.name} has none. It trains layer by layer."
    else:
        assert found == f"It trains as a plan, many steps in one compiled call, on {_kernels.name}."


def test_explain_says_that_there_is_no_dense_layer(compiled):
    model = nnx.Model()
    model.add(nnx.Activation_Sigmoid())
    model.set(
        loss=nnx.Loss_BinaryCrossentropy(),
        optimizer=nnx.Optimizer_SGD(),
        accuracy=nnx.Accuracy_Categorical(binary=True),
    )
    model.finalize()
    assert model.explain().startswith("No plan: there is no dense layer. ")
    model.train(np.ones((4, 1)), [0, 1, 0, 1], print_every=None)


def test_explain_needs_what_training_needs():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    with pytest.raises(RuntimeError, match=r"^Model\.explain: no loss is set"):
        model.explain()
    model = build(CLASSIFIER)
    model.add(nnx.Activation_Linear())
    with pytest.raises(RuntimeError, match=r"^Model\.explain: the layers have changed"):
        model.explain()


def test_explaining_changes_nothing(compiled):
    X, y = data_for(CLASSIFIER, 30)
    models = [build(CLASSIFIER), build(CLASSIFIER)]
    for model in models:
        model.layers[2].seed = None
    np.random.seed(3)
    before = np.random.get_state()[2]
    models[0].explain()
    str(program.lower(models[0]))
    assert np.random.get_state()[2] == before
    assert models[0].layers[2].seed is None
    assert not hasattr(models[0].layers[0], "weight_momentums")
    assert bits(train(models[0], X, y)) == bits(train(models[1], X, y))


# Replacements of built-in parts are called

LAYER_METHODS = [
    *((kind, name, MIXED) for kind in (nnx.Layer_Dense, nnx.Layer_Dropout) for name in ("forward", "backward")),
    *((kind, name, MIXED) for kind in (nnx.Activation_ReLU, nnx.Activation_Linear) for name in ("forward", "backward")),
    *((nnx.Activation_Sigmoid, name, MIXED) for name in ("forward", "backward")),
    *((nnx.Activation_Softmax, name, MIXED) for name in ("forward", "backward", "predictions")),
    (nnx.Activation_Sigmoid, "predictions", BINARY),
    (nnx.Activation_Linear, "predictions", SQUARED),
    (nnx.Activation_ReLU, "predictions", Net("3-6,relu", "squared", "near")),
    (nnx.Layer_Dense, "get_parameters", MIXED),
    (nnx.Layer_Input, "forward", MIXED),
    (nnx.Activation_Softmax_Loss_CategoricalCrossentropy, "backward", CLASSIFIER),
    *((nnx.Model, name, MIXED) for name in ("forward", "backward")),
]
LOSS_METHODS = [
    (kind, name, net)
    for kind, net in (
        (nnx.Loss_CategoricalCrossentropy, CLASSIFIER),
        (nnx.Loss_BinaryCrossentropy, BINARY),
        (nnx.Loss_MeanSquaredError, SQUARED),
        (nnx.Loss_MeanAbsoluteError, ABSOLUTE),
    )
    for name in ("forward", "backward", "calculate", "calculate_accumulated", "new_pass", "regularization_loss")
    if name != "backward" or net in (SQUARED, ABSOLUTE)  # the others use the combined gradient
]
ACCURACY_METHODS = [
    (kind, name, net)
    for kind, net in ((nnx.Accuracy_Categorical, CLASSIFIER), (nnx.Accuracy_Regression, SQUARED))
    for name in ("init", "compare", "calculate", "calculate_accumulated", "new_pass")
]
OPTIMIZER_METHODS = [
    (kind, name, optimizer)
    for kind, optimizer in (
        (nnx.Optimizer_SGD, "momentum"),
        (nnx.Optimizer_Adagrad, "Adagrad"),
        (nnx.Optimizer_RMSprop, "RMSprop"),
        (nnx.Optimizer_Adam, "Adam"),
    )
    for name in ("pre_update_params", "update_params", "post_update_params")
]
EVERY_METHOD = [
    *((kind, name, net, "Adam") for kind, name, net in (*LAYER_METHODS, *LOSS_METHODS, *ACCURACY_METHODS)),
    *((kind, name, CLASSIFIER, optimizer) for kind, name, optimizer in OPTIMIZER_METHODS),
]


def parts_of(model: nnx.Model) -> list[Any]:
    own_parts = [model, model.input_layer, model.loss, model.optimizer, model.accuracy, *model.layers]
    return [*own_parts, model.softmax_classifier_output]


def spy_on_class(monkeypatch, models, kind, name, called):
    method = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda *a, **k: called.update([name]) or method(*a, **k))


def spy_on_objects(monkeypatch, models, kind, name, called):
    for model in models:
        for part in parts_of(model):
            if isinstance(part, kind):
                method = getattr(part, name)
                setattr(part, name, lambda *a, method=method, **k: called.update([name]) or method(*a, **k))


def spy_by_subclass(monkeypatch, models, kind, name, called):
    for model in models:
        for part in parts_of(model):
            if isinstance(part, kind):
                method = getattr(type(part), name)
                spy = {name: lambda *a, method=method, **k: called.update([name]) or method(*a, **k)}
                part.__class__ = type("Own", (type(part),), spy)


def use(model: nnx.Model, X: np.ndarray, y: np.ndarray) -> None:
    model.train(X, y, epochs=2, batch_size=8, print_every=None, validation_data=(X, y))
    model.evaluate(X, y, silent=True)
    model.predict(X)


@pytest.mark.parametrize("used", [False, True], ids=["", "after a plan was used"])
@pytest.mark.parametrize("spy", [spy_on_class, spy_on_objects, spy_by_subclass])
@pytest.mark.parametrize(
    ("kind", "name", "net", "optimizer"),
    EVERY_METHOD,
    ids=[f"{kind.__name__}.{name}" for kind, name, _, _ in EVERY_METHOD],
)
def test_a_method_of_ones_own_is_called_as_often_as_on_the_book_path(
    compiled, monkeypatch, kind, name, net, optimizer, spy, used
):
    models = [build(net, optimizer, of, **PENALTIES) for of in (nnx.Model, Book)]
    X, y = data_for(net, 20)
    if used:
        for model in models:
            use(model, X, y)
    called: Counter[str] = Counter()
    spy(monkeypatch, models, kind, name, called)
    counts = []
    for model in models:
        called.clear()
        use(model, X, y)
        counts.append(dict(called))
    assert counts[0] == counts[1] != {}


def test_a_method_that_a_class_is_given_later_is_called(compiled, monkeypatch):
    """A dense layer has no ``predictions``. If a user adds it to the last layer, it is called."""
    net = Net("3-6,relu,6-1", "squared", "near")
    X, y = data_for(net, 20)
    models = [build(net, kind=kind) for kind in (nnx.Model, Book)]
    for model in models:
        use(model, X, y)
    called = []
    monkeypatch.setattr(
        nnx.Layer_Dense, "predictions", lambda self, output: called.append(len(output)) or output, raising=False
    )
    counts = []
    for model in models:
        called.clear()
        use(model, X, y)
        counts.append(list(called))
    assert counts[0] == counts[1] != []


def test_what_was_put_back_is_a_plan_again(compiled, planned, monkeypatch):
    model = build(CLASSIFIER)
    data = data_for(CLASSIFIER, 20)
    train(model, *data, epochs=2)
    with monkeypatch.context() as patched:
        patched.setattr(nnx.Layer_Dense, "forward", lambda *arguments: None)
        patched.undo()
    train(model, *data, epochs=2)
    model.layers[1].forward = model.layers[1].forward
    train(model, *data, epochs=2)
    del model.layers[1].forward
    train(model, *data, epochs=2)
    assert planned == [True, True, False, True]


def test_methods_of_other_objects_prevent_no_plan(compiled, planned):
    class Own_ReLU(nnx.Activation_ReLU):
        def forward(self, inputs, training=True):
            raise AssertionError

    Own_ReLU()
    other = nnx.Layer_Dense(2, 3)
    other.forward = None
    model = build(CLASSIFIER)
    model.layers[0].name = "first"
    model.note = "mine"
    train(model, *data_for(CLASSIFIER, 20))
    assert planned == [True]


# Objects exchanged between two trainings: the next one uses the new ones


def sigmoid_for_relu(model):
    model.layers[1] = nnx.Activation_Sigmoid()
    model.finalize()


def another_dense_layer(model):
    layer = nnx.Layer_Dense(64, 3, weight_regularizer_l2=0.01, dtype="float64")
    layer.set_parameters(np.cos(np.arange(192.0)).reshape(64, 3), np.ones((1, 3)))
    model.layers[3] = layer
    model.finalize()


def one_layer_more(model):
    layer = nnx.Layer_Dense(64, 64, dtype="float64")
    layer.set_parameters(np.cos(np.arange(4096.0)).reshape(64, 64) / 8, np.ones((1, 64)))
    model.layers[3:3] = [layer, nnx.Activation_ReLU()]
    model.finalize()


def without_dropout(model):
    del model.layers[2]
    model.finalize()


def all_in_float32(model):
    for layer in model.trainable_layers:
        layer.dtype = np.dtype("float32")


def other_arrays(model):
    for layer in model.trainable_layers:
        layer.weights = np.asfortranarray(np.cos(layer.weights))
        layer.biases = layer.biases.tolist()
        layer.weight_momentums = np.ones(layer.weights.shape, "f4")
        layer.bias_cache = None


def less_is_trained(model):
    model.trainable_layers = model.trainable_layers[1:]


def penalties_are_wanted(model):
    for layer in model.trainable_layers:
        for name, strength in PENALTIES.items():
            setattr(layer, name, strength)


CHANGES = {
    "nothing": lambda model: None,
    "loss set": lambda model: model.set(loss=nnx.Loss_MeanSquaredError()),
    "loss assigned": lambda model: setattr(model, "loss", nnx.Loss_MeanSquaredError()),
    "loss assigned anew": lambda model: setattr(model, "loss", nnx.Loss_CategoricalCrossentropy()),
    "optimizer set": lambda model: model.set(optimizer=nnx.Optimizer_SGD(0.1, momentum=0.5)),
    "optimizer assigned": lambda model: setattr(model, "optimizer", nnx.Optimizer_Adagrad(0.1)),
    "optimizer's momentum": lambda model: setattr(model.optimizer, "beta_1", 0.5),
    "accuracy set": lambda model: model.set(accuracy=nnx.Accuracy_Categorical()),
    "activation": sigmoid_for_relu,
    "dense layer": another_dense_layer,
    "one layer more": one_layer_more,
    "no dropout": without_dropout,
    "dtype": all_in_float32,
    "arrays": other_arrays,
    "frozen layer": less_is_trained,
    "penalties": penalties_are_wanted,
    "dropout's seed": lambda model: vars(model.layers[2]).update(seed=77, rate=0.4),
    "no combined gradient": lambda model: setattr(model, "softmax_classifier_output", None),
    "finalized again": lambda model: model.finalize(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_exchanged_is_used_by_the_next_training_evaluation_and_prediction(compiled, change):
    X, y = data_for(CLASSIFIER, 50)
    y = (y[:, None] == np.arange(3)).astype(float)
    found = []
    for kind in (nnx.Model, Book):
        model = build(CLASSIFIER, kind=kind)
        train(model, X, y, batch_size=16)
        model.evaluate(X, y, silent=True)
        model.predict(X)
        change(model)
        predicted = model.predict(X).copy()
        figures = model.evaluate(X, y, silent=True)
        found.append(train(model, X, y, epochs=2, batch_size=16))
        found[-1] |= {"predicted": predicted, "figures": np.array([*figures.values()])}
        found[-1]["predicted after"] = model.predict(X)
    assert_alike(*found, 1e-8 if change is not all_in_float32 else 1e-3)


def test_a_loss_that_is_assigned_to_a_finalized_model_trains_as_on_the_book_path(compiled):
    """Without `set`, there is no combined gradient."""
    X, y = data_for(CLASSIFIER, 50)
    found = []
    for kind in (nnx.Model, Book):
        whole = build(CLASSIFIER)
        model = kind()
        for layer in whole.layers:
            model.add(layer)
        model.finalize()
        model.loss, model.optimizer, model.accuracy = whole.loss, whole.optimizer, whole.accuracy
        assert model.softmax_classifier_output is None
        found.append(train(model, X, y, epochs=2, batch_size=16))
    assert_alike(*found, 1e-9)


# Frozen layers


THREE_DENSE = (Net("2-9,relu,9-8,sigmoid,8-3,softmax"), Net("17-33,relu,33-20,relu,20-5,softmax"))


@pytest.mark.parametrize("used", [False, True], ids=["", "after a plan was used"])
@pytest.mark.parametrize(
    ("net", "trained"),
    [
        *((net, trained) for net in THREE_DENSE for trained in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (2, 0))),
        *((Net("2-9,relu,9-3,softmax"), trained) for trained in ((), (0,), (1,), (1, 0))),
        *((Net("2-9,relu,dropout,9-1,sigmoid", "binary", "cells"), trained) for trained in ((), (0,), (1,))),
    ],
    ids=str,
)
def test_frozen_layers_stay_and_publish_their_gradients_as_on_the_book_path(compiled, planned, net, trained, used):
    X, y = data_for(net, 50)
    found = []
    for kind in (nnx.Model, Book):
        model = build(net, kind=kind, **PENALTIES)
        if used:
            train(model, X, y)
        dense = model.trainable_layers
        model.trainable_layers = [dense[i] for i in trained]
        frozen = [layer for layer in dense if layer not in model.trainable_layers]
        before = [layer.weights.tobytes() for layer in frozen]
        planned.clear()
        found.append(train(model, X, y, epochs=2, batch_size=16))
        assert planned == [kind is nnx.Model]
        assert [layer.weights.tobytes() for layer in frozen] == before
        assert all(layer.dweights.any() for layer in frozen)
    assert_alike(*found, 1e-9)


def test_a_layer_that_is_thawed_trains_again(compiled):
    X, y = data_for(CLASSIFIER, 50)
    found = []
    for kind in (nnx.Model, Book):
        model = build(CLASSIFIER, kind=kind)
        frozen = model.trainable_layers.pop(0)
        train(model, X, y, epochs=2, batch_size=16)
        assert not hasattr(frozen, "weight_momentums")
        model.trainable_layers.append(frozen)
        found.append(train(model, X, y, epochs=2, batch_size=16))
        assert frozen.weight_momentums.any()
    assert_alike(*found, 1e-9)


# Arrays that share memory


def one_weights_array(model, X, y):
    model.layers[2].weights = model.layers[0].weights


def overlapping_parts_of_one_array(model, X, y):
    whole = np.cos(np.arange(40.0))
    model.layers[0].weights, model.layers[2].weights = whole[:25].reshape(5, 5), whole[10:35].reshape(5, 5)


def biases_within_weights(model, X, y):
    model.layers[0].biases = model.layers[0].weights[1:2]


def momentums_that_are_other_weights(model, X, y):
    model.layers[0].weight_momentums, model.layers[0].weight_cache = model.layers[2].weights, np.ones((5, 5))


def one_cache_for_two_layers(model, X, y):
    for layer in (model.layers[0], model.layers[2]):
        layer.weight_momentums, layer.weight_cache = np.ones((5, 5)), np.ones((5, 5))
    model.layers[2].weight_cache = model.layers[0].weight_cache


def weights_within_the_samples(model, X, y):
    model.layers[2].weights = X[3:8]


def biases_within_the_targets(model, X, y):
    model.layers[2].biases = y[7:8]


SHARING = (
    one_weights_array,
    overlapping_parts_of_one_array,
    biases_within_weights,
    momentums_that_are_other_weights,
    one_cache_for_two_layers,
    weights_within_the_samples,
    biases_within_the_targets,
)


@pytest.mark.parametrize("share", SHARING)
@pytest.mark.parametrize("used", [False, True], ids=["", "after a plan was used"])
def test_arrays_that_share_memory_train_as_on_the_book_path(compiled, planned, share, used):
    net = Net("5-5,relu,5-5,linear", "squared", "near")
    found = []
    for kind in (nnx.Model, Book):
        X, y = data_for(net, 30)
        model = build(net, kind=kind)
        if used:
            train(model, X, y)
        share(model, X, y)
        planned.clear()
        found.append(bits(train(model, X, y, epochs=3, batch_size=16)))
        assert planned == [False]
    assert found[0] == found[1]


def test_momentums_that_are_their_own_weights_are_refused_as_on_the_book_path(compiled):
    net = Net("5-5,relu,5-5,linear", "squared", "near")
    for kind in (nnx.Model, Book):
        model = build(net, kind=kind)
        model.layers[0].weight_momentums, model.layers[0].weight_cache = model.layers[0].weights, np.ones((5, 5))
        with pytest.raises(ValueError, match=r"^optimizer_update: values and states must not share memory\.$"):
            train(model, *data_for(net, 30))


@pytest.mark.parametrize("share", SHARING[:5])
def test_explain_says_which_arrays_share_memory(compiled, share):
    net = Net("5-5,relu,5-5,linear", "squared", "near")
    model = build(net)
    share(model, *data_for(net, 30))
    assert " share memory. " in model.explain()


def test_a_plan_is_back_when_arrays_share_no_memory_any_more(compiled, planned):
    net = Net("5-5,relu,5-5,linear", "squared", "near")
    X, y = data_for(net, 30)
    model = build(net)
    train(model, X, y)
    model.layers[2].weights = model.layers[0].weights
    train(model, X, y)
    model.layers[2].weights = model.layers[0].weights.copy()
    train(model, X, y)
    model.layers[2].weights = X[:5]
    train(model, X, y)
    train(model, X.copy(), y)
    assert planned == [True, False, True, False, True]


def test_parts_of_one_array_that_do_not_overlap_are_trained_in_place(compiled, planned):
    net = Net("5-5,relu,5-5,linear", "squared", "near")
    X, y = data_for(net, 30)
    found = []
    for kind in (nnx.Model, Book):
        whole = np.cos(np.arange(60.0))
        model = build(net, kind=kind)
        model.layers[0].weights, model.layers[0].biases = whole[:25].reshape(5, 5), whole[25:30].reshape(1, 5)
        model.layers[2].weights, model.layers[2].biases = whole[30:55].reshape(5, 5), whole[55:].reshape(1, 5)
        found.append(train(model, X, y, epochs=3, batch_size=16))
        assert model.layers[0].weights.base is whole or model.layers[0].weights.base.base is whole
        assert not np.array_equal(whole, np.cos(np.arange(60.0)))
    assert planned == [True, False]
    assert_alike(*found, 1e-9)
