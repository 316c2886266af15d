"""Optimizers: rates, counts and state; the arithmetic itself is in test_kernels.py."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from networks import classifier, parameters_of
from plans import Book, Net, build, data_for

import nnx

OPTIMIZERS = [
    lambda: nnx.Optimizer_SGD(),
    lambda: nnx.Optimizer_SGD(momentum=0.9),
    lambda: nnx.Optimizer_Adagrad(),
    lambda: nnx.Optimizer_RMSprop(),
    lambda: nnx.Optimizer_Adam(),
]


def layer_with_gradients(value=1.0):
    dense = nnx.Layer_Dense(2, 3)
    dense.weights[:] = 1
    dense.dweights, dense.dbiases = np.full((2, 3), value), np.full((1, 3), -value)
    return dense


def test_defaults_are_the_books():
    for optimizer, rate in (
        (nnx.Optimizer_SGD(), 1.0),
        (nnx.Optimizer_Adagrad(), 1.0),
        (nnx.Optimizer_RMSprop(), 0.001),
        (nnx.Optimizer_Adam(), 0.001),
    ):
        assert optimizer.learning_rate == optimizer.current_learning_rate == rate
        assert optimizer.decay == 0
        assert optimizer.iterations == 0
    assert nnx.Optimizer_SGD().momentum == 0
    assert nnx.Optimizer_Adagrad().epsilon == 1e-7
    assert (nnx.Optimizer_RMSprop().epsilon, nnx.Optimizer_RMSprop().rho) == (1e-7, 0.9)
    adam = nnx.Optimizer_Adam()
    assert (adam.epsilon, adam.beta_1, adam.beta_2) == (1e-7, 0.9, 0.999)


def test_first_step_of_each_optimizer_by_hand():
    expected = [1 - 1, 1 - 1, 1 - 1 / (1 + 1e-7), 1 - 0.001 / (0.1**0.5 + 1e-7), 1 - 0.001]
    for make, weight in zip(OPTIMIZERS, expected, strict=True):
        dense, optimizer = layer_with_gradients(), make()
        optimizer.pre_update_params()
        optimizer.update_params(dense)
        optimizer.post_update_params()
        np.testing.assert_allclose(dense.weights, weight, atol=1e-7)
        np.testing.assert_allclose(dense.biases, 1 - weight, atol=1e-7)
        assert optimizer.iterations == 1


def test_rate_is_computed_in_python_floats_in_the_books_order():
    optimizer = nnx.Optimizer_Adam(learning_rate=0.05, decay=5e-7)
    for step in (0, 1, 7, 9999):
        optimizer.iterations = step
        optimizer.pre_update_params()
        assert optimizer.current_learning_rate == 0.05 * (1.0 / (1.0 + 5e-7 * step))
        assert type(optimizer.current_learning_rate) is float


def test_without_decay_the_current_rate_is_left_alone():
    optimizer = nnx.Optimizer_SGD(1.0)
    optimizer.current_learning_rate = 0.25
    optimizer.pre_update_params()
    dense = layer_with_gradients()
    optimizer.update_params(dense)
    assert optimizer.current_learning_rate == 0.25
    np.testing.assert_allclose(dense.weights, 0.75)


RATES = [
    lambda decay: nnx.Optimizer_SGD(0.5, decay),
    lambda decay: nnx.Optimizer_SGD(0.5, decay, momentum=0.9),
    lambda decay: nnx.Optimizer_Adagrad(0.5, decay),
    lambda decay: nnx.Optimizer_RMSprop(0.5, decay),
    lambda decay: nnx.Optimizer_Adam(0.5, decay),
]
each_rate = pytest.mark.parametrize("make", RATES)
each_decay = pytest.mark.parametrize("decay", [0.0, 0.25])


@each_rate
@each_decay
def test_a_learning_rate_that_is_assigned_takes_effect_at_the_next_step(make, decay):
    optimizer, expected = make(decay), make(decay)
    dense, twin = layer_with_gradients(), layer_with_gradients()
    for step in range(4):
        if step == 2:
            optimizer.learning_rate = 0.125
        expected.current_learning_rate = (0.5 if step < 2 else 0.125) * (1 / (1 + decay * step))
        expected.update_params(twin)
        expected.post_update_params()
        optimizer.pre_update_params()
        optimizer.update_params(dense)
        optimizer.post_update_params()
        assert optimizer.current_learning_rate == expected.current_learning_rate
        np.testing.assert_array_equal(dense.weights, twin.weights)


@each_rate
def test_a_rate_in_use_that_is_assigned_holds_until_the_learning_rate_is(make):
    optimizer = make(0.0)
    optimizer.current_learning_rate = 0.125
    for _ in range(3):
        optimizer.pre_update_params()
        optimizer.update_params(layer_with_gradients())
        optimizer.post_update_params()
    assert (optimizer.learning_rate, optimizer.current_learning_rate) == (0.5, 0.125)
    optimizer.learning_rate = optimizer.learning_rate
    assert optimizer.current_learning_rate == 0.5


@each_rate
@each_decay
def test_copies_and_pickles_keep_both_rates(make, decay):
    optimizer = make(decay)
    optimizer.learning_rate, optimizer.current_learning_rate = 0.25, 0.125
    for twin in (copy.copy(optimizer), copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert vars(twin) == vars(optimizer)
        assert twin.get_config() == optimizer.get_config()
        twin.learning_rate = 1.0
        assert (twin.current_learning_rate, optimizer.current_learning_rate) == (1.0, 0.125)


def test_a_file_keeps_a_learning_rate_that_was_assigned_and_one_in_use(tmp_path):
    model = classifier()
    model.optimizer = nnx.Optimizer_Adam(0.5)
    for names in (("learning_rate",), ("current_learning_rate",)):
        for name in names:
            setattr(model.optimizer, name, 0.125)
        model.save(tmp_path / "model")
        assert vars(nnx.Model.load(tmp_path / "model").optimizer) == vars(model.optimizer)
        model.optimizer.learning_rate = 0.25


def test_subclasses_may_set_their_rates_as_they_like():
    class Bare(nnx.Optimizer_SGD):
        def __init__(self):
            self.note = "the constructor is not called"

    class Halving(nnx.Optimizer_SGD):
        def post_update_params(self):
            super().post_update_params()
            self.learning_rate /= 2

    class Fixed(nnx.Optimizer_SGD):
        learning_rate = 0.25

        def __init__(self): ...

    class Warming(nnx.Optimizer_SGD):
        def pre_update_params(self):
            super().pre_update_params()
            self.current_learning_rate = self.learning_rate * (self.iterations + 1) / 4

    def rates(optimizer):
        found = []
        for _ in range(3):
            optimizer.pre_update_params()
            optimizer.update_params(layer_with_gradients())
            optimizer.post_update_params()
            found.append(optimizer.current_learning_rate)
        return found

    bare = Bare()
    assert rates(bare) == [1.0, 1.0, 1.0]
    bare.learning_rate = 0.5
    assert rates(bare) == [0.5, 0.5, 0.5]
    assert rates(Halving(1.0)) == [0.5, 0.25, 0.125]
    assert rates(Fixed()) == [0.25, 0.25, 0.25]
    assert rates(Warming(1.0)) == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(("rate", "error"), [("fast", TypeError), (None, TypeError), (np.inf, ValueError)])
def test_a_rate_that_is_none_is_named_as_it_was_assigned(rate, error):
    for name in ("learning_rate", "current_learning_rate"):
        optimizer = nnx.Optimizer_SGD()
        setattr(optimizer, name, rate)
        with pytest.raises(
            error, match=rf"^Optimizer_SGD\.update_params: {name} must be a .*number.*, got {rate!r}\.$"
        ):
            optimizer.update_params(layer_with_gradients())


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("optimizer", ["SGD", "momentum", "Adagrad", "RMSprop", "Adam"])
@each_decay
def test_training_goes_on_at_a_learning_rate_that_was_assigned(kind, optimizer, decay):
    net = Net("2-5,relu,5-3,softmax")
    model = build(net, optimizer, kind)
    X, y = data_for(net, 12)
    model.optimizer.decay, found, expected = decay, [], []

    def train(rate, epochs, batch_size):
        done = model.optimizer.iterations
        history = model.train(X, y, epochs=epochs, batch_size=batch_size, print_every=None)
        found.extend(history.step_learning_rate)
        expected.extend(rate * (1 / (1 + decay * (done + step))) for step in range(len(history)))
        assert model.optimizer.current_learning_rate == expected[-1]

    for rate in (0.5, 0.25):
        model.optimizer.learning_rate = rate
        train(rate, 2, 5)
    for number in range(6):  # the same small call again and again
        if number % 2:
            rate = model.optimizer.learning_rate = 0.125 / number
        train(rate, 1, None)
    if not decay:
        model.optimizer.current_learning_rate = 0.0625
        for _ in range(3):
            train(0.0625, 1, None)
        model.optimizer.learning_rate = model.optimizer.learning_rate  # the very same object
        for _ in range(3):
            train(rate, 1, None)
    assert found == expected


def test_update_works_without_pre_and_post():
    dense = layer_with_gradients()
    nnx.Optimizer_SGD().update_params(dense)
    np.testing.assert_allclose(dense.weights, 0)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (OPTIMIZERS[0], set()),
        (OPTIMIZERS[1], {"weight_momentums", "bias_momentums"}),
        (OPTIMIZERS[2], {"weight_cache", "bias_cache"}),
        (OPTIMIZERS[3], {"weight_cache", "bias_cache"}),
        (OPTIMIZERS[4], {"weight_momentums", "bias_momentums", "weight_cache", "bias_cache"}),
    ],
)
def test_state_is_kept_on_the_layer_under_the_books_names(dtype, make, names):
    dense = layer_with_gradients()
    make().update_params(dense)
    found = {name for name in vars(dense) if "_momentums" in name or "_cache" in name}
    assert found == names
    for name in names:
        array = getattr(dense, name)
        assert array.dtype == dtype
        assert array.shape == ((2, 3) if name.startswith("weight") else (1, 3))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_parameters_are_updated_in_place_and_gradients_left_alone(make):
    dense = layer_with_gradients()
    weights, biases, dweights = dense.weights, dense.biases, dense.dweights.copy()
    make().update_params(dense)
    assert dense.weights is weights
    assert dense.biases is biases
    np.testing.assert_array_equal(dense.dweights, dweights)


def test_adam_does_not_begin_with_the_momentums_that_sgd_left():
    used, fresh = layer_with_gradients(), layer_with_gradients()
    sgd = nnx.Optimizer_SGD(0.1, momentum=0.9)
    sgd.update_params(used)
    used.weights[:], used.biases[:] = fresh.weights, fresh.biases
    for dense in (used, fresh):
        nnx.Optimizer_Adam().update_params(dense)
    np.testing.assert_array_equal(used.weights, fresh.weights)


def test_numpy_scalars_as_arguments_do_not_change_the_arithmetic():
    first, second = layer_with_gradients(), layer_with_gradients()
    nnx.Optimizer_Adam(0.05).update_params(first)
    nnx.Optimizer_Adam(np.float64(0.05)).update_params(second)
    np.testing.assert_array_equal(first.weights, second.weights)
    assert second.weights.dtype == np.float32


def test_a_layer_without_biases_can_be_trained():
    class Layer_Scale:
        weights = np.ones((1, 3))
        dweights = np.ones((1, 3))

    layer = Layer_Scale()
    layer.weights = np.ones((1, 3))
    nnx.Optimizer_Adam(0.5).update_params(layer)
    np.testing.assert_allclose(layer.weights, 0.5, rtol=1e-6)


def test_update_before_backward_says_what_to_do():
    with pytest.raises(
        RuntimeError, match=r"Optimizer_Adam\.update_params: Layer_Dense has no dweights yet\. Call back"
    ):
        nnx.Optimizer_Adam().update_params(nnx.Layer_Dense(2, 3))


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: setattr(d, "dweights", np.ones((3, 2))),
        lambda d: setattr(d, "dbiases", np.ones((1, 4))),
        lambda d: setattr(d, "dbiases", None),
        lambda d: setattr(d, "biases", np.ones((3,))),
        lambda d: setattr(d, "dweights", np.ones((2, 3), complex)),
    ],
)
def test_a_refused_update_changes_nothing(make, spoil):
    dense, optimizer = layer_with_gradients(), make()
    weights = dense.weights.copy()
    spoil(dense)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        optimizer.update_params(dense)
    np.testing.assert_array_equal(dense.weights, weights)


def test_spoilt_state_and_settings_are_refused():
    dense, adam = layer_with_gradients(), nnx.Optimizer_Adam()
    adam.update_params(dense)
    kept = dense.weights.copy()
    dense.weight_cache = np.ones((3, 3))
    with pytest.raises(ValueError, match=r"weight_cache must have shape \(2, 3\), got \(3, 3\)"):
        adam.update_params(dense)
    dense.weight_cache = np.ones((2, 3))
    adam.beta_1 = 1.0
    with pytest.raises(ValueError, match=r"beta_1 must be a number from 0 up to, but not including, 1, got 1\.0"):
        adam.update_params(dense)
    adam.beta_1 = 0.9
    adam.current_learning_rate = float("nan")
    with pytest.raises(ValueError, match="current_learning_rate must be a finite number of at least 0, got nan"):
        adam.update_params(dense)
    np.testing.assert_array_equal(dense.weights, kept)


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize(
    ("spoilt", "error"),
    [
        (np.ones((3, 5)), ValueError),
        (np.ones((5, 3), complex), TypeError),
        (np.broadcast_to(np.ones(3), (5, 3)), ValueError),
        ([["a"]], TypeError),
    ],
    ids=["shape", "complex", "read-only", "text"],
)
def test_spoilt_state_of_the_last_layer_is_refused_before_the_first_is_updated(kind, spoilt, error):
    net = Net("2-5,relu,5-3,softmax")
    X, y = data_for(net, 12)
    model, twin = (build(net, "Adam", kind) for _ in range(2))
    for each in (model, twin):
        each.train(X, y, print_every=None)
    kept = model.layers[2].weight_cache
    model.layers[2].weight_cache = spoilt
    with pytest.raises(error, match="weight_cache must"):
        model.train(X, y, print_every=None)
    assert (model.optimizer.iterations, len(model.history)) == (1, 0)
    model.layers[2].weight_cache = kept
    names = ("weights", "biases", "weight_momentums", "bias_momentums", "weight_cache", "bias_cache")
    for found, expected in zip(model.trainable_layers, twin.trainable_layers, strict=True):
        for name in names:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("decay", [0.0, 1e-3])
@pytest.mark.parametrize("calls", [1, 4])
def test_a_negative_rate_that_is_assigned_is_refused_and_nothing_has_changed(decay, calls):
    X, y = nnx.spiral_data(10, 3)
    model = classifier()
    model.set(optimizer=nnx.Optimizer_SGD(0.1, decay=decay))
    for _ in range(calls):  # the last of several is a repeated call
        model.train(X, y, print_every=None)
    before = parameters_of(model)
    model.optimizer.learning_rate = -0.1
    with pytest.raises(ValueError, match=r"learning_rate must be a finite number of at least 0, got -0\.1"):
        model.train(X, y, print_every=None)
    assert parameters_of(model) == before
    assert model.optimizer.iterations == calls
