"""Averages of weights and biases: their values, who uses them, what drops them, and that files keep them."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from plans import PENALTIES, Book, Net, assert_alike, bits, build, data_for, train
from test_checkpoints import killed_after, without_generator

import nnx
from nnx import _kernels
from nnx.engine import plan

#: With the batched lanes and without; of row panels in one piece, and in several.
NETS = [
    Net("2-64,relu,dropout,64-3,softmax"),
    Net("17-33,relu,33-5,softmax"),
    Net("24-300,relu,300-31,linear", "squared", "near"),
]
NET = NETS[0]
each_net = pytest.mark.parametrize("net", NETS, ids=str)
each_kind = pytest.mark.parametrize("kind", [nnx.Model, Book])
ARGUMENTS = {"epochs": 4, "batch_size": 20}
AVERAGES = ("weight_averages", "bias_averages")


def made(net=NET, kind=nnx.Model, average=0.9, dtype="float64", **dense):
    model = build(net, "SGD", kind, dtype, **dense)
    model.set(optimizer=nnx.Optimizer_Adam(0.02, average=average))
    return model


def trained(net=NET, kind=nnx.Model, **arguments):
    model = made(net, kind, **arguments)
    X, y = data_for(net, 50)
    train(model, X, y, **ARGUMENTS)
    return model, X, y


def with_averages_as_values(model):
    """Return a copy of a model whose weights and biases are the averages, and that has no averages."""
    twin = copy.deepcopy(model)
    for layer in twin.trainable_layers:
        layer.set_parameters(layer.weight_averages, layer.bias_averages)
    return twin


def has_averages(model):
    return [name in vars(layer) for layer in model.layers for name in AVERAGES if isinstance(layer, nnx.Layer_Dense)]


# What they are


@pytest.mark.parametrize("average", [0.5, 0.95])
def test_averages_begin_with_the_values_and_keep_more_at_each_step(average, dtype):
    dense, optimizer = nnx.Layer_Dense(7, 9), nnx.Optimizer_SGD(0.1, average=average)
    expected = [p.astype(np.float64) for p in dense.get_parameters()]
    for step in range(1, 31):
        dense.dweights, dense.dbiases = np.random.normal(size=(7, 9)), np.random.normal(size=(1, 9))
        optimizer.update_params(dense)
        optimizer.post_update_params()
        keep = min(average, step / (step + 9))
        expected = [keep * a + (1 - keep) * p for a, p in zip(expected, dense.get_parameters(), strict=True)]
    tolerance = 1e-14 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(dense.weight_averages, expected[0], rtol=0, atol=tolerance)
    np.testing.assert_allclose(dense.bias_averages, expected[1], rtol=0, atol=tolerance)
    assert dense.weight_averages.dtype == dtype


@each_net
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: nnx.Optimizer_SGD(0.1, average=0.7),
        lambda: nnx.Optimizer_AMSGrad(0.01, average=0.99, clip_norm=0.1),
        lambda: nnx.Optimizer_AdamW(0.01, average=0.9, clip_value=0.01),
    ],
)
@pytest.mark.parametrize("frozen", [None, 0, -1])
def test_a_plan_averages_as_the_layers_do(net, optimizer, frozen, planned):
    X, y = data_for(net, 50)
    left = []
    for kind in (nnx.Model, Book):
        model = build(net, "SGD", kind, **PENALTIES)
        model.set(optimizer=optimizer())
        if frozen is not None:
            del model.trainable_layers[frozen]
        left.append(train(model, X, y, **ARGUMENTS))
        assert has_averages(model).count(True) == (4 if frozen is None else 2)
    assert_alike(*left, 1e-9)
    assert planned == [hasattr(_kernels.backend, "Plan"), False]


@each_net
@pytest.mark.usefixtures("compiled")
def test_bits_do_not_depend_on_threads_nor_on_calls(net, monkeypatch, dtype):
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)
    X, y = data_for(net, 70)
    expected = bits(train(made(net, dtype=dtype), X, y, threads=1, **ARGUMENTS))
    for threads in (2, 3):
        assert bits(train(made(net, dtype=dtype), X, y, threads=threads, **ARGUMENTS)) == expected
    monkeypatch.setattr(plan.Run, "_how_many", lambda self, in_epoch: 1)
    assert bits(train(made(net, dtype=dtype), X, y, **ARGUMENTS)) == expected


@pytest.mark.parametrize("net", NETS[:2], ids=str)
@pytest.mark.usefixtures("compiled")
def test_a_call_that_is_the_last_one_again_leaves_the_same_bits(net, dtype):
    twins = [made(net, dtype=dtype) for _ in range(2)]
    again = []
    for seed in range(4):
        X, y = data_for(net, 20, seed)
        y = y.astype(dtype) if net.loss != "categorical" else y
        twins[1]._again = None
        again.append(twins[0]._again is not None)
        left = [bits(train(model, X.astype(dtype), y)) for model in twins]
        assert left[0] == left[1]
    assert again == [False] + 3 * [_kernels.backend.counts_references]


def test_an_average_that_is_asked_for_later_begins_with_the_values_and_leaves_the_rest_alone():
    X, y = data_for(NET, 50)
    model, twin = made(average=None), made(average=None)
    for each in (model, twin):
        train(each, X, y, **ARGUMENTS)
    model.optimizer.average = 0.5
    train(model, X, y)
    train(twin, X, y)
    for layer, other in zip(model.trainable_layers, twin.trainable_layers, strict=True):
        np.testing.assert_array_equal(layer.weights, other.weights)
        np.testing.assert_array_equal(layer.weight_momentums, other.weight_momentums)
        assert not np.array_equal(layer.weight_averages, layer.weights)


# Who uses them


@each_net
@each_kind
def test_what_is_not_training_uses_them(net, kind):
    model, X, y = trained(net, kind)
    twin = with_averages_as_values(model)
    assert model.predict(X).tobytes() == twin.predict(X).tobytes()
    assert model.predict(X).tobytes() != without_averages(model).predict(X).tobytes()
    assert model.predict(X, batch_size=7).tobytes() == twin.predict(X, batch_size=7).tobytes()
    assert model.evaluate(X, y, silent=True) == twin.evaluate(X, y, silent=True)
    assert model.forward(X, training=False).tobytes() == twin.forward(X, training=False).tobytes()
    if net.loss == "categorical":
        assert model.score(X, y) == twin.score(X, y)


def without_averages(model):
    twin = copy.deepcopy(model)
    for layer in twin.trainable_layers:
        for name in AVERAGES:
            delattr(layer, name)
    return twin


@each_kind
def test_training_uses_weights(kind):
    net = NETS[1]
    model, X, y = trained(net, kind)
    twin = without_averages(model)
    assert model.forward(X, training=True).tobytes() == twin.forward(X, training=True).tobytes()
    model.optimizer.iterations = twin.optimizer.iterations
    train(model, X, y)
    train(twin, X, y)
    assert model.history.loss[0] == twin.history.loss[0]
    np.testing.assert_array_equal(model.layers[0].weights, twin.layers[0].weights)


@each_kind
def test_validation_while_training_uses_them(kind):
    net = NETS[1]
    X, y = data_for(net, 50)
    held_out = data_for(net, 30, seed=2)
    model = made(net, kind)
    train(model, X, y, epochs=3, batch_size=20, validation_data=held_out)
    after = model.evaluate(*held_out, batch_size=20, silent=True)
    assert model.history.validation_loss[-1] == after["loss"]
    assert after == with_averages_as_values(model).evaluate(*held_out, batch_size=20, silent=True)
    assert after != without_averages(model).evaluate(*held_out, batch_size=20, silent=True)


def test_each_of_the_two_counts_alone(dtype):
    dense = nnx.Layer_Dense(2, 3)
    dense.weight_averages = np.ones((2, 3))  # of any dtype: it is cast once
    dense.forward([[1.0, 2.0]], training=False)
    np.testing.assert_array_equal(dense.output, 3)
    assert dense.weight_averages.dtype == dtype
    dense.bias_averages = np.ones((1, 3), dtype)
    dense.forward([[1.0, 2.0]], training=False)
    np.testing.assert_array_equal(dense.output, 4)
    dense.weight_averages = None
    dense.forward([[0.0, 0.0]], training=False)
    np.testing.assert_array_equal(dense.output, 1)


@each_kind
def test_averages_of_another_shape_are_refused(kind):
    model, X, _ = trained(NET, kind)
    model.layers[0].weight_averages = np.ones((3, 2))
    with pytest.raises(ValueError, match=r"^Layer_Dense\.forward: weight_averages must have shape \(2, 64\), got"):
        model.predict(X)


# What drops them


def test_parameters_that_are_set_have_no_averages(tmp_path):
    model, X, _ = trained()
    model.save_parameters(tmp_path / "p")
    model.set_parameters([[p.copy() for p in pair] for pair in model.get_parameters()])
    assert not any(has_averages(model))
    model, X, _ = trained()
    expected = model.predict(X)
    model.load_parameters(tmp_path / "p")
    assert not any(has_averages(model))
    assert model.predict(X).tobytes() == expected.tobytes()


def test_parameters_that_are_refused_leave_the_averages(tmp_path):
    class Layer_Stubborn(nnx.Layer_Dense):
        def set_parameters(self, weights, biases):
            super().set_parameters(weights, biases)
            if weights[0, 0] == 7:
                raise OSError("no")

    model = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 3), Layer_Stubborn(3, 2), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_SGD(0.1, average=0.5),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    X = np.random.normal(size=(10, 2))
    train(model, X, np.arange(10) % 2)
    expected = model.predict(X)
    with pytest.raises(OSError, match="no"):
        model.set_parameters([(np.full((2, 3), 7.0), np.ones((1, 3))), (np.full((3, 2), 7.0), np.ones((1, 2)))])
    assert all(has_averages(model))
    assert model.predict(X).tobytes() == expected.tobytes()


@each_kind
@pytest.mark.parametrize("frozen", [None, 0])
def test_the_first_step_without_an_average_drops_those_of_trained_layers(kind, frozen):
    model, X, y = trained(NET, kind)
    model.set(optimizer=nnx.Optimizer_SGD(0.1))
    if frozen is not None:
        del model.trainable_layers[frozen]
    assert all(has_averages(model))
    train(model, X, y)
    assert has_averages(model) == ([False] * 4 if frozen is None else [True, True, False, False])


@each_kind
def test_a_step_that_is_refused_drops_nothing(kind):
    model, X, y = trained(NET, kind)
    model.set(optimizer=nnx.Optimizer_SGD(0.1))
    model.layers[0].weights[0, 0] = np.nan
    with pytest.raises(nnx.DivergenceError):
        train(model, X, y)
    assert all(has_averages(model))
    model.layers[0].weight_momentums = "none"
    model.optimizer.momentum = 0.5
    with pytest.raises((TypeError, ValueError)):
        train(model, X, y, on_nonfinite="ignore")
    assert all(has_averages(model))


@pytest.mark.usefixtures("compiled")
def test_a_call_that_is_the_last_one_again_drops_them_too():
    net = NETS[1]
    model = made(net, average=None)
    X, y = data_for(net, 20)
    for _ in range(3):
        model.train(X, y, print_every=None)
    again = model._again
    model.layers[0].weight_averages = np.zeros((17, 33))
    model.train(X, y, print_every=None)
    assert (again is not None) == bool(_kernels.backend.counts_references)
    assert model._again is again
    assert not any(has_averages(model))


def test_an_optimizer_of_ones_own_drops_them():
    class Own:
        def pre_update_params(self):
            pass

        def update_params(self, layer):
            layer.weights -= 0.1 * layer.dweights

        def post_update_params(self):
            pass

    model, X, y = trained()
    model.set(optimizer=Own())
    train(model, X, y)
    assert not any(has_averages(model))


# Files and copies


@each_net
@each_kind
def test_a_loaded_model_predicts_the_same_and_goes_on_to_the_bit(net, kind, tmp_path):
    model, X, y = trained(net, kind)
    model.save(tmp_path / "model")
    loaded = kind.load(tmp_path / "model")
    assert all(has_averages(loaded))
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()
    for a, b in zip(loaded.trainable_layers, model.trainable_layers, strict=True):
        assert a.weights.tobytes() == b.weights.tobytes()
    assert loaded.optimizer.average == 0.9
    assert bits(train(loaded, X, y, **ARGUMENTS)) == bits(train(model, X, y, **ARGUMENTS))


@each_net
@each_kind
def test_saved_parameters_are_those_that_predict(net, kind, tmp_path):
    model, X, _ = trained(net, kind)
    model.save_parameters(tmp_path / "p")
    model.save(tmp_path / "model")
    for name in ("p", "model"):
        other = build(net, "SGD", kind)
        other.load_parameters(tmp_path / name)
        assert not any(has_averages(other))
        assert other.predict(X).tobytes() == model.predict(X).tobytes()
    assert all(has_averages(model))


@each_kind
@pytest.mark.parametrize("step", [1, 3, 4, 7, 11])
def test_a_resumed_run_ends_in_the_same_bytes(kind, step, tmp_path):
    X, y = data_for(NET, 50)
    arguments = {"epochs": 4, "batch_size": 20, "shuffle": True, "seed": 5, "validation_data": data_for(NET, 20, 7)}
    expected = without_generator(train(made(kind=kind, **PENALTIES), X, y, **arguments))
    interrupted = made(kind=kind, **PENALTIES)
    with killed_after(step):
        train(interrupted, X, y, checkpoint=tmp_path / "c", **arguments)
    resumed = made(kind=kind, **PENALTIES)
    assert without_generator(train(resumed, X, y, resume=tmp_path / "c", **arguments)) == expected
    assert all(has_averages(resumed))


@each_kind
def test_resuming_drops_averages_that_the_checkpoint_does_not_have(kind, tmp_path):
    X, y = data_for(NET, 50)
    model = made(kind=kind, average=None)
    train(model, X, y, checkpoint=tmp_path / "c", **ARGUMENTS)
    other, _, _ = trained(NET, kind)
    other.set(optimizer=nnx.Optimizer_Adam(0.02))
    other.train(X, y, print_every=None, resume=tmp_path / "c", **ARGUMENTS)
    assert not any(has_averages(other))
    assert other.predict(X).tobytes() == model.predict(X).tobytes()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_averages_of_their_own(duplicate):
    model, X, y = trained()
    twin = duplicate(model)
    expected = model.predict(X)
    assert twin.predict(X).tobytes() == expected.tobytes()
    train(twin, X, y, **ARGUMENTS)
    assert model.predict(X).tobytes() == expected.tobytes()


def test_a_model_with_averages_is_summed_up_as_one_without(capsys):
    model, _, _ = trained()
    model.summary()
    shown = capsys.readouterr().out
    without_averages(model).summary()
    assert capsys.readouterr().out == shown


def test_training_that_diverges_leaves_averages_as_after_the_last_whole_step():
    left = []
    for kind in (nnx.Model, Book):
        model, X, y = trained(NETS[1], kind)
        X[3] = 1e308
        with pytest.raises(nnx.DivergenceError):
            train(model, X, y, batch_size=20, check_finite=False, epochs=2)
        assert np.isfinite(model.layers[0].weight_averages).all()
        left.append(model.optimizer.iterations)
    assert left[0] == left[1]


# Layers with weights alone


@each_kind
def test_learnt_slopes_have_averages_too(kind, tmp_path):
    model = kind()
    layers = (nnx.Layer_Dense(5, 7), nnx.Activation_PReLU(7), nnx.Layer_Dense(7, 3), nnx.Activation_Softmax())
    for layer in layers:
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(0.05, average=0.9),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    X, y = np.random.normal(size=(50, 5)).astype(np.float32), np.random.randint(0, 3, 50)
    train(model, X, y, **ARGUMENTS)
    twin = copy.deepcopy(model)
    for layer in twin.trainable_layers:
        averages = [getattr(layer, name) for name in AVERAGES if hasattr(layer, name)]
        layer.set_parameters(*averages)
        assert "weight_averages" not in vars(layer)
    assert model.predict(X).tobytes() == twin.predict(X).tobytes()
    assert model.forward(X, training=False).tobytes() == twin.forward(X, training=False).tobytes()
    assert not np.array_equal(layers[1].weights, layers[1].weight_averages)
    model.save(tmp_path / "model")
    model.save_parameters(tmp_path / "p")
    assert kind.load(tmp_path / "model").predict(X).tobytes() == twin.predict(X).tobytes()
    twin.load_parameters(tmp_path / "p")
    assert model.predict(X).tobytes() == twin.predict(X).tobytes()
    model.set(optimizer=nnx.Optimizer_SGD(0.1))
    train(model, X, y)
    assert not any("weight_averages" in vars(layer) for layer in layers)
