"""The order of samples: the draws of a seed, and functions that return an order."""

from __future__ import annotations

import re

import numpy as np
import pytest
from plans import Book, Net, assert_alike, bits, build, data_for, left_behind, train

import nnx
from nnx._base.random import Order
from nnx.callbacks import Callback
from nnx.engine import checkpoints, plan

pytestmark = pytest.mark.one_backend

NET = Net("2-9,relu,dropout,9-3,softmax")
WAYS = ("plan", "segments", "layers")
ways = pytest.mark.parametrize("way", WAYS)


class Own_Accuracy(nnx.Accuracy_Categorical):
    """With one of these, a model trains in segments."""

    def get_config(self):
        return {}


def make(way="plan"):
    model = build(NET, kind=Book if way == "layers" else nnx.Model)
    if way == "segments":
        model.set(accuracy=Own_Accuracy())
    return model


class Stop(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, run):
        if run.epoch == self.epoch:
            run.stop()


class Sampler:
    """Draws with replacement from a generator. Notes its arguments, and the number of steps before each call."""

    def __init__(self, model=None, seed=0):
        self.model, self.generator, self.calls, self.steps = model, np.random.default_rng(seed), [], []

    def __call__(self, epoch, n_samples):
        self.calls.append((epoch, n_samples))
        if self.model is not None:
            self.steps.append(self.model.optimizer.iterations)
        return self.generator.integers(0, n_samples, n_samples)


@pytest.mark.parametrize("seed", [0, 5, 2**40 + 3, 2**64 - 1])
def test_a_seeds_orders_are_those_of_a_new_generator_each(seed):
    order = Order("here", True, seed)
    for epoch in (1, 2, 2, 700, 1, 2**31):
        expected = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, epoch]).permutation(50)
        np.testing.assert_array_equal(order.draw(epoch, 50), expected)


@pytest.mark.parametrize("n_samples", [1, 2, 3, 63, 64, 65, 5000])
def test_the_orders_of_several_epochs_are_those_of_each(n_samples):
    order = Order("here", True, 2**40 + 3)
    found = order.draw_some(7, 3, n_samples)
    for epoch in (7, 8, 9):
        expected = np.random.RandomState([3, 2**8, epoch]).permutation(n_samples)
        np.testing.assert_array_equal(found[epoch - 7], expected)
        np.testing.assert_array_equal(order.draw(epoch, n_samples), expected)


@ways
@pytest.mark.parametrize("batch_size", [None, 16])
def test_a_function_that_gives_a_seeds_orders_gives_its_bits(way, batch_size):
    X, y = data_for(NET, 50)
    arguments = {"epochs": 4, "batch_size": batch_size}
    expected = bits(train(make(way), X, y, shuffle=True, seed=3, **arguments))
    assert bits(train(make(way), X, y, shuffle=Order("here", True, 3).draw, **arguments)) == expected


@ways
def test_samples_may_be_left_out_and_repeated(way):
    X, y = data_for(NET, 50)
    rows = np.arange(50) // 5
    expected = train(make(way), X[rows], y[rows], epochs=3, batch_size=16)
    found = train(make(way), X, y, epochs=3, batch_size=16, shuffle=lambda epoch, n: rows.tolist())
    assert_alike(found, expected, 0)


@ways
@pytest.mark.parametrize("callbacks", [None, [Stop(3)], [Stop(99)]], ids=["none", "stopping", "idle"])
def test_the_function_is_called_right_before_each_epoch_and_for_no_other(way, callbacks, monkeypatch):
    monkeypatch.setattr(plan, "MOST_STEPS", 3)  # so that an epoch continues in another call
    X, y = data_for(NET, 50)
    model = make(way)
    sampler = Sampler(model)
    train(model, X, y, epochs=5, batch_size=10, shuffle=sampler, callbacks=callbacks)
    n_epochs = 3 if callbacks and callbacks[0].epoch == 3 else 5
    assert sampler.calls == [(epoch + 1, 50) for epoch in range(n_epochs)]
    assert sampler.steps == [5 * epoch for epoch in range(n_epochs)]


@ways
def test_a_run_that_a_callback_stops_ends_as_one_of_so_many_epochs(way):
    X, y = data_for(NET, 50)
    expected = bits(train(make(way), X, y, epochs=3, batch_size=16, shuffle=Sampler()))
    found = train(make(way), X, y, epochs=9, batch_size=16, shuffle=Sampler(), callbacks=[Stop(3)])
    assert bits(found) == expected


@ways
def test_held_out_rows_are_not_among_the_samples(way):
    X, y = data_for(NET, 50)
    sampler = Sampler()
    model = make(way)
    train(model, X, y, epochs=2, shuffle=sampler, validation_split=0.2, seed=1)
    assert [number for number, _ in sampler.calls] == [1, 2]
    assert {n for _, n in sampler.calls} <= {39, 40, 41}
    assert len(model.history.validation_loss) == 2


@ways
def test_a_run_that_diverges_asks_for_no_later_epoch(way):
    X, y = data_for(NET, 50)
    X[7] = 1e300  # too large after the weights have grown: in the first step that sees this row
    sampler = Sampler()

    def avoiding(epoch, n_samples):
        order = sampler(epoch, n_samples)
        return np.where(order == 7, 7 if epoch == 3 else 8, order)

    model = make(way)
    model.layers[0].weights[:] = 1e10
    with pytest.raises(nnx.DivergenceError, match="epoch 3"):
        train(model, X, y, epochs=9, batch_size=10, shuffle=avoiding)
    assert [epoch for epoch, _ in sampler.calls] == [1, 2, 3]


@ways
@pytest.mark.parametrize(
    ("returned", "error", "sentence"),
    [
        (None, TypeError, "must be an array of real numbers, got a NoneType."),
        (5, ValueError, "must have shape (50,), got ()."),
        (range(49), ValueError, "must have shape (50,), got (49,)."),
        (np.zeros((50, 1), int), ValueError, "must have shape (50,), got (50, 1)."),
        (np.arange(50.0), TypeError, "must be an array of integers, got dtype float64."),
        (np.ones(50, bool), TypeError, "must be an array of integers, got dtype bool."),
        ([2**70] * 50, TypeError, "must be an array of real numbers, got dtype object."),
        (["a"] * 50, TypeError, "must be an array of real numbers, got dtype <U1."),
        (np.arange(1, 51), ValueError, "must be numbers of samples, from 0 to 49, got 50 at position 49."),
        (np.arange(-1, 49, dtype="i1"), ValueError, "must be numbers of samples, from 0 to 49, got -1 at position 0."),
        (np.full(50, 2**64 - 1, np.uint64), ValueError, "from 0 to 49, got 18446744073709551615 at position 0."),
    ],
)
def test_anything_else_than_an_order_is_refused(way, returned, error, sentence):
    X, y = data_for(NET, 50)
    model = make(way)
    expected = bits(train(make(way), X, y, batch_size=16))
    with pytest.raises(error, match=r"^Model\.train: shuffle\(2, 50\) .*" + re.escape(sentence)):
        train(model, X, y, epochs=3, batch_size=16, shuffle=lambda epoch, n: range(n) if epoch == 1 else returned)
    found = bits(left_behind(model))
    for name in ("layers[0].weights", "layers[3].biases", "optimizer.iterations", "history.loss"):
        assert found[name] == expected[name]


def test_an_order_of_any_integers_will_do():
    X, y = data_for(NET, 50)
    order = np.arange(50)[::-1]
    expected = bits(train(make(), X[::-1], y[::-1], batch_size=16))["layers[0].weights"]
    for given in (order, order.tolist(), order.astype(">i2"), order.astype("u1"), np.repeat(order, 2)[::2]):
        found = train(make(), X, y, batch_size=16, shuffle=lambda *_, given=given: given)
        assert bits(found)["layers[0].weights"] == expected


@ways
def test_what_the_function_raises_reaches_the_caller_after_whole_epochs(way):
    def short(epoch, n_samples):
        if epoch == 3:
            raise LookupError("no more")
        return range(n_samples)

    X, y = data_for(NET, 50)
    model, twin = make(way), make(way)
    with pytest.raises(LookupError, match="no more"):
        train(model, X, y, epochs=5, batch_size=16, shuffle=short)
    train(twin, X, y, epochs=2, batch_size=16)
    assert bits(left_behind(model))["layers[0].weights"] == bits(left_behind(twin))["layers[0].weights"]
    np.testing.assert_array_equal(model.history.loss, twin.history.loss)
    model.train(X, y, print_every=None)


@pytest.mark.parametrize("change", ["in place", "assigned", "resized", "method", "evaluates"])
def test_a_function_may_use_and_change_the_model(change):
    """As a callback may do: the run continues with the new object, in each way of running."""
    X, y = data_for(NET, 50)

    def changing(model):
        def order(epoch, n_samples):
            layer = model.layers[3]
            if epoch == 2 and change == "in place":
                layer.weights *= 0.5
            elif epoch == 2 and change == "assigned":
                layer.weights = layer.weights * 0.5
            elif epoch == 2 and change == "resized":
                old = layer.weights
                layer.weights = old.copy()
                old.resize((999, 999), refcheck=False)
            elif epoch == 2 and change == "method":
                forward = layer.forward

                def halving(inputs, training):
                    forward(0.5 * inputs, training)

                layer.forward = halving
            elif change == "evaluates":
                model.evaluate(X[:9], y[:9], silent=True)
            return np.arange(n_samples)[::-1]

        return order

    found = []
    for way in WAYS:
        model = make(way)
        train(model, X, y, epochs=3, batch_size=16, shuffle=changing(model))
        found.append((*model.history.loss, *model.history.accuracy, *model.layers[0].weights.ravel()))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-7)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-7)


@ways
@pytest.mark.parametrize("step", [2, 4, 9])
def test_a_resumed_run_asks_from_the_epoch_on_in_which_it_goes_on(way, step, tmp_path):
    class KilledError(Exception):
        pass

    asked = []

    def order(epoch, n_samples):
        asked.append(epoch)
        return Sampler(seed=epoch)(epoch, n_samples)

    X, y = data_for(NET, 50)
    arguments = {"epochs": 4, "batch_size": 16, "shuffle": order}
    whole = bits(train(make(way), X, y, **arguments))
    arguments |= {"checkpoint": tmp_path / "c", "checkpoint_every": "0s"}
    write = checkpoints.Keeper.write

    def then_killed(keeper, job, done, sums):
        write(keeper, job, done, sums)
        if done >= step:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "write", then_killed)
        patch.setattr(plan, "MOST_STEPS", 1)
        with pytest.raises(KilledError):
            train(make(way), X, y, **arguments)
    asked.clear()
    assert bits(train(make(way), X, y, resume=tmp_path / "c", **arguments)) == whole
    assert asked == list(range(step // 4 + 1, 5))


def test_a_run_with_another_kind_of_order_is_not_gone_on_with(tmp_path):
    X, y = data_for(NET, 50)
    train(make(), X, y, shuffle=Sampler(), checkpoint=tmp_path / "function")
    train(make(), X, y, shuffle=True, checkpoint=tmp_path / "drawn")
    with pytest.raises(ValueError, match=r"shuffle must be that of '.*function', a function, got True\."):
        train(make(), X, y, epochs=2, shuffle=True, resume=tmp_path / "function")
    with pytest.raises(ValueError, match=r"shuffle must be that of '.*drawn', True, got a function\."):
        train(make(), X, y, epochs=2, shuffle=Sampler(), resume=tmp_path / "drawn")


def test_a_function_and_a_seed_are_refused_together():
    X, y = data_for(NET, 50)
    with pytest.raises(
        ValueError, match=r"^Model\.train: seed must not be given together with a function as shuffle, got 3\.$"
    ):
        make().train(X, y, shuffle=Sampler(), seed=3)


def test_a_function_draws_nothing_from_numpys_generator():
    X, y = data_for(NET, 50)
    model = make()
    before = np.random.get_state()[1].tobytes(), np.random.get_state()[2]
    model.train(X, y, shuffle=Sampler(), print_every=None)
    assert (np.random.get_state()[1].tobytes(), np.random.get_state()[2]) == before
