"""Every built-in optimizer: its formula written out in float64, both ways of running, threads, files, bad arguments.

The tests go through the vocabulary: they also test a new optimizer, which fails until its formula is here.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from plans import PENALTIES, Book, Net, assert_alike, bits, build, data_for, train

import nnx
from nnx import _kernels
from nnx._base.vocabulary import BUILT_IN
from nnx._kernels import _numpy
from nnx.engine import plan

pytestmark = pytest.mark.every_backend

KINDS: list[Any] = list(BUILT_IN["optimizer"])
STEPS = 50


# The formulas: `values` and `gradients` of one step after the other, counted from 1. `kept` holds the states by name,
# initially zeros.


def sgd(o, values, g, kept, step, rate, is_bias):
    if not o.momentum:
        return values - rate * g
    kept["momentums"] = o.momentum * kept["momentums"] - rate * g
    return values + (o.momentum * kept["momentums"] - rate * g if o.nesterov else kept["momentums"])


def adagrad(o, values, g, kept, step, rate, is_bias):
    kept["cache"] = kept["cache"] + g**2
    return values - rate * g / (np.sqrt(kept["cache"]) + o.epsilon)


def rmsprop(o, values, g, kept, step, rate, is_bias):
    kept["cache"] = o.rho * kept["cache"] + (1 - o.rho) * g**2
    return values - rate * g / (np.sqrt(kept["cache"]) + o.epsilon)


def moments(o, g, kept):
    kept["momentums"] = o.beta_1 * kept["momentums"] + (1 - o.beta_1) * g
    kept["cache"] = o.beta_2 * kept["cache"] + (1 - o.beta_2) * g**2


def adam(o, values, g, kept, step, rate, is_bias):
    moments(o, g, kept)
    corrected = kept["momentums"] / (1 - o.beta_1**step)
    if getattr(o, "epsilon_hat", False):
        corrected *= np.sqrt(1 - o.beta_2**step)
        return values - rate * corrected / (np.sqrt(kept["cache"]) + o.epsilon)
    return values - rate * corrected / (np.sqrt(kept["cache"] / (1 - o.beta_2**step)) + o.epsilon)


def adamw(o, values, g, kept, step, rate, is_bias):
    decayed = values if is_bias else values * (1 - rate * o.weight_decay)
    return adam(o, decayed, g, kept, step, rate, is_bias)


def nadam(o, values, g, kept, step, rate, is_bias):
    moments(o, g, kept)
    ahead = o.beta_1 * kept["momentums"] / (1 - o.beta_1 ** (step + 1)) + (1 - o.beta_1) * g / (1 - o.beta_1**step)
    return values - rate * ahead / (np.sqrt(kept["cache"] / (1 - o.beta_2**step)) + o.epsilon)


def amsgrad(o, values, g, kept, step, rate, is_bias):
    moments(o, g, kept)
    kept["largest_cache"] = np.maximum(kept["largest_cache"], kept["cache"])
    corrected = kept["momentums"] / (1 - o.beta_1**step)
    return values - rate * corrected / (np.sqrt(kept["largest_cache"] / (1 - o.beta_2**step)) + o.epsilon)


def lion(o, values, g, kept, step, rate, is_bias):
    direction = np.sign(o.beta_1 * kept["momentums"] + (1 - o.beta_1) * g)
    kept["momentums"] = o.beta_2 * kept["momentums"] + (1 - o.beta_2) * g
    return values * (1 - rate * (0 if is_bias else o.weight_decay)) - rate * direction


#: For each class, its formula and the arguments for its tests.
DEFINITIONS: dict[type, tuple[Any, list[dict[str, Any]]]] = {
    nnx.Optimizer_SGD: (sgd, [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}]),
    nnx.Optimizer_Adagrad: (adagrad, [{}, {"epsilon": 0.1}]),
    nnx.Optimizer_RMSprop: (rmsprop, [{}, {"rho": 0.5, "epsilon": 0.1}]),
    nnx.Optimizer_Adam: (
        adam,
        [
            {},
            {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.1},
            {"beta_1": 0.0},
            {"epsilon": 0.1, "epsilon_hat": True},
        ],
    ),
    nnx.Optimizer_AdamW: (adamw, [{}, {"weight_decay": 1.5, "beta_1": 0.8}, {"weight_decay": 0.0}]),
    nnx.Optimizer_NAdam: (nadam, [{}, {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.1}, {"beta_1": 0.0}]),
    nnx.Optimizer_AMSGrad: (amsgrad, [{}, {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.1}]),
    nnx.Optimizer_Lion: (lion, [{}, {"weight_decay": 1.5}, {"beta_1": 0.5, "beta_2": 0.7}]),
}

#: Each class with each of its sets of arguments.
CASES = [(kind, own) for kind in KINDS for own in DEFINITIONS.get(kind, (None, [{}]))[1]]
each_case = pytest.mark.parametrize(("kind", "own"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
each_kind = pytest.mark.parametrize("kind", KINDS)


def states_of(optimizer):
    """Return the names of an optimizer's states of each parameter."""
    return [name.removeprefix("weight_") for name in optimizer._rule("test").states[0]]


@each_kind
def test_each_optimizer_has_its_formula_here(kind):
    assert kind in DEFINITIONS, f"Write the formula of {kind.__name__} into DEFINITIONS."
    assert f"Optimizer_{kind.__name__.removeprefix('Optimizer_')}" in nnx.__all__


@each_case
def test_steps_are_those_of_the_formula(kind, own, dtype, rng):
    formula, _ = DEFINITIONS[kind]
    optimizer = kind(0.01, 0.05, **own)
    dense = nnx.Layer_Dense(7, 9)  # 63 weights: no whole vectors
    dense.weights[:], dense.biases[:] = rng.normal(size=(7, 9)), rng.normal(size=(1, 9))
    expected = [dense.weights.astype(np.float64), dense.biases.astype(np.float64)]
    kept = [{name: np.zeros(each.shape) for name in kind._states} for each in expected]
    for step in range(1, STEPS + 1):
        dense.dweights, dense.dbiases = (
            rng.normal(size=each.shape).astype(dtype) * 3.0 ** (-step % 5) for each in expected
        )
        rate = 0.01 / (1 + 0.05 * (step - 1))
        for i, gradients in enumerate((dense.dweights, dense.dbiases)):
            expected[i] = formula(optimizer, expected[i], gradients.astype(np.float64), kept[i], step, rate, i == 1)
        optimizer.pre_update_params()
        optimizer.update_params(dense)
        optimizer.post_update_params()
    tolerance = {"rtol": 0, "atol": 1e-13 if dtype == np.float64 else 2e-5}
    np.testing.assert_allclose(dense.weights, expected[0], **tolerance)
    np.testing.assert_allclose(dense.biases, expected[1], **tolerance)
    for name in states_of(optimizer):
        for i, side in enumerate(("weight", "bias")):
            scale = np.abs(kept[i][name]).max()
            found = getattr(dense, f"{side}_{name}")
            np.testing.assert_allclose(found, kept[i][name], rtol=0, atol=tolerance["atol"] * scale, err_msg=name)


def test_nesterovs_momentum_is_scikit_learns(dtype, rng):
    rate, momentum = 0.05, 0.9
    optimizer = nnx.Optimizer_SGD(rate, momentum=momentum, nesterov=True)
    dense = nnx.Layer_Dense(5, 3)
    w, v = dense.weights.astype(np.float64), np.zeros((5, 3))
    for _ in range(STEPS):
        g = rng.standard_normal((5, 3)).astype(dtype)
        dense.dweights, dense.dbiases = g, np.zeros((1, 3), dtype)
        optimizer.update_params(dense)
        v = momentum * v - rate * g.astype(np.float64)
        w += momentum * v - rate * g.astype(np.float64)
    np.testing.assert_allclose(dense.weights, w, rtol=0, atol=2e-14 if dtype == np.float64 else 1e-5)


def test_the_papers_second_epsilon_is_not_corrected():
    dense = nnx.Layer_Dense(1, 1)
    dense.weights[:], dense.dweights, dense.dbiases = 1, np.ones((1, 1)), np.zeros((1, 1))
    nnx.Optimizer_Adam(0.5, epsilon=1.0, beta_2=0.75, epsilon_hat=True).update_params(dense)
    # √(1 − 0.75) / (1 − 0.9)·0.1 = 0.5, over √0.25 + 1; by the first form it is 1 over 1 + 1
    np.testing.assert_allclose(dense.weights, 1 - 0.5 * 0.5 / 1.5, rtol=1e-6)
    with pytest.raises(TypeError, match=r"^Optimizer_Adam: epsilon_hat must be True or False, got 1"):
        nnx.Optimizer_Adam(epsilon_hat=1)


@each_case
def test_what_is_kept_is_named_by_the_class_and_nothing_else_is_added(kind, own):
    dense, optimizer = nnx.Layer_Dense(2, 3), kind(**own)
    dense.dweights, dense.dbiases = np.ones((2, 3)), np.ones((1, 3))
    before = set(vars(dense))
    optimizer.update_params(dense)
    states = states_of(optimizer)
    assert set(states) <= set(kind._states)
    assert set(vars(dense)) - before == {f"{side}_{name}" for side in ("weight", "bias") for name in states}


def test_a_formula_that_needs_all_its_states_begins_them_anew_where_one_is_missing():
    dense = nnx.Layer_Dense(2, 3)
    dense.dweights, dense.dbiases = np.ones((2, 3)), np.ones((1, 3))
    nnx.Optimizer_Adam().update_params(dense)
    nnx.Optimizer_AMSGrad().update_params(dense)
    np.testing.assert_allclose(dense.weight_momentums, 0.1, rtol=1e-6)  # of one step, not of two
    np.testing.assert_array_equal(dense.weight_largest_cache, dense.weight_cache)


def test_the_largest_cache_never_shrinks():
    dense, optimizer = nnx.Layer_Dense(2, 3), nnx.Optimizer_AMSGrad(beta_2=0.5)
    for size in (1.0, 4.0, 0.0, 0.0):
        dense.dweights, dense.dbiases = np.full((2, 3), size), np.full((1, 3), size)
        optimizer.update_params(dense)
    np.testing.assert_allclose(dense.weight_cache, (0.25 + 8) / 4)
    np.testing.assert_allclose(dense.weight_largest_cache, 0.25 + 8)


@pytest.mark.parametrize("kind", [nnx.Optimizer_AdamW, nnx.Optimizer_Lion])
def test_weights_decay_and_biases_do_not(kind):
    dense = nnx.Layer_Dense(2, 3)
    dense.weights[:] = dense.biases[:] = 1
    dense.dweights, dense.dbiases = np.zeros((2, 3)), np.zeros((1, 3))
    kind(0.5, weight_decay=0.5).update_params(dense)
    np.testing.assert_array_equal(dense.weights, 0.75)
    np.testing.assert_array_equal(dense.biases, 1)


def test_a_small_weight_decay_is_not_rounded_away_in_float32():
    dense = nnx.Layer_Dense(64, 64)
    dense.weights[:] = np.random.default_rng(0).uniform(1, 2, (64, 64))
    before = dense.weights.astype(np.float64)
    dense.dweights, dense.dbiases = np.zeros((64, 64)), np.zeros((1, 64))
    optimizer = nnx.Optimizer_AdamW(1e-3, weight_decay=4e-3)  # 1 − 4e-6 would be 1 − 3.993e-6 in float32
    for _ in range(100):
        optimizer.update_params(dense)
    assert float(np.mean(dense.weights / before - 1)) == pytest.approx(-4e-4, rel=2e-3)


def test_lion_stays_where_the_sign_is_that_of_zero():
    dense = nnx.Layer_Dense(2, 3)
    dense.weights[:] = dense.biases[:] = 1
    dense.dweights, dense.dbiases = np.zeros((2, 3)), np.full((1, 3), -0.0)
    nnx.Optimizer_Lion(0.5).update_params(dense)
    np.testing.assert_array_equal(dense.weights, 1)
    np.testing.assert_array_equal(dense.biases, 1)


# Kernels


@each_case
def test_kernels_are_those_of_numpy_and_write_nothing_beside(kind, own, dtype, rng):
    for n, step in itertools.product([1, 3, 4, 7, 8, 15, 16, 17, 33, 67], [1, 2, 1000]):
        compare_kernels(kind(0.01, **own)._rule("test"), n, step, dtype, rng)


def compare_kernels(rule, n, step, dtype, rng):
    """Compare an update with NumPy's, of n values within longer arrays."""
    arrays = [rng.normal(size=n + 2).astype(dtype) for _ in range(2)]
    arrays += [np.square(rng.normal(size=n + 2)).astype(dtype) for _ in rule.states[0]]
    twins = [array.copy() for array in arrays]
    for backend, (values, gradients, *states) in ((_kernels.backend, arrays), (_numpy, twins)):
        inside = tuple(each[1:-1] for each in states)
        backend.optimizer_update(rule.kernel, values[1:-1], gradients[1:-1], inside, 0.01, step, rule.settings)
    tolerance = 1e-14 if dtype == np.float64 else 2e-6
    for found, expected in zip(arrays, twins, strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@each_case
def test_kernels_bring_nan_along(kind, own, dtype):
    rule = kind(0.01, **own)._rule("test")
    for n in (1, 40):
        values, gradients = np.ones(n, dtype), np.ones(n, dtype)
        gradients[-1] = np.nan
        states = tuple(np.zeros(n, dtype) for _ in rule.states[0])
        _kernels.backend.optimizer_update(rule.kernel, values, gradients, states, 0.01, 1, rule.settings)
        assert np.isnan(values[-1])
        assert all(np.isnan(state[-1]) for state in states)
        assert np.isfinite(values[:-1]).all()


@each_case
@pytest.mark.usefixtures("compiled")
def test_compiled_kernels_refuse_arrays_that_share_memory_and_other_counts(kind, own, dtype):
    rule = kind(0.01, **own)._rule("test")
    update = _kernels.backend.optimizer_update

    def call(values, gradients, states, settings=rule.settings):
        update(rule.kernel, values, gradients, states, 0.01, 1, settings)

    values, gradients = np.ones((3, 4), dtype), np.ones((3, 4), dtype)
    states = tuple(np.zeros((3, 4), dtype) for _ in rule.states[0])
    for i in range(len(states)):
        spoilt = [*states]
        spoilt[i] = values
        with pytest.raises(ValueError, match=r"^optimizer_update: values and states must not share memory\.$"):
            call(values, gradients, tuple(spoilt))
        spoilt[i] = np.zeros((4, 3), dtype)
        with pytest.raises(ValueError, match=r"^optimizer_update: states must have shape \(3, 4\)"):
            call(values, gradients, tuple(spoilt))
        for k in range(i):
            spoilt = [*states]
            spoilt[i] = spoilt[k]
            with pytest.raises(ValueError, match=r"^optimizer_update: states and states must not share memory\.$"):
                call(values, gradients, tuple(spoilt))
    with pytest.raises(ValueError, match=rf"^optimizer_update: states must be {len(states)} arrays, got "):
        call(values, gradients, (*states, np.zeros((3, 4), dtype)))
    with pytest.raises(ValueError, match=rf"^settings must be {len(rule.settings)}, got "):
        call(values, gradients, states, (*rule.settings, 0.5))
    assert (values == 1).all()
    expected = np.ones((3, 4), dtype)
    call(expected, gradients, tuple(state.copy() for state in states))
    call(values, values, states)  # gradients that are the values are read first
    np.testing.assert_array_equal(values, expected)


# Both ways of running

NETS = [
    Net("2-64,relu,dropout,64-3,softmax"),
    Net("17-33,relu,33-5,softmax"),
    Net("20-300,sigmoid,300-12,softmax"),
    Net("1-40,relu,40-1,linear", "squared", "near"),
]
each_net = pytest.mark.parametrize("net", NETS, ids=str)


def made(net, kind, own, model=nnx.Model, dtype="float64", **dense):
    found = build(net, "SGD", model, dtype, **dense)
    found.set(optimizer=kind(0.01, 0.01, **own))
    return found


@each_case
@each_net
def test_a_plan_does_the_steps_of_the_layers(kind, own, net, planned):
    X, y = data_for(net, 50)
    arguments = {"epochs": 6, "batch_size": 20}
    found = train(made(net, kind, own, **PENALTIES), X, y, **arguments)
    expected = train(made(net, kind, own, Book, **PENALTIES), X, y, **arguments)
    assert planned == [hasattr(_kernels.backend, "Plan"), False]
    assert_alike(found, expected, 1e-9)


@pytest.mark.few
@each_case
@each_net
@pytest.mark.usefixtures("compiled")
def test_bits_do_not_depend_on_threads_nor_on_calls(kind, own, net, monkeypatch):
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)
    X, y = data_for(net, 50)
    arguments = {"epochs": 4, "batch_size": 20}
    expected = bits(train(made(net, kind, own, dtype="float32", **PENALTIES), X, y, threads=1, **arguments))
    for threads in (2, 3):
        model = made(net, kind, own, dtype="float32", **PENALTIES)
        assert bits(train(model, X, y, threads=threads, **arguments)) == expected
    monkeypatch.setattr(plan.Run, "_how_many", lambda self, in_epoch: 1)
    assert bits(train(made(net, kind, own, dtype="float32", **PENALTIES), X, y, **arguments)) == expected


@each_case
@pytest.mark.usefixtures("compiled")
def test_a_call_that_is_the_last_one_again_leaves_the_same_bits(kind, own):
    net = NETS[1]
    twins = [made(net, kind, own, dtype="float32", **PENALTIES) for _ in range(2)]
    again = []
    for seed in range(4):
        X, y = data_for(net, 20, seed)
        twins[1]._again = None
        again.append(twins[0]._again is not None)
        left = [bits(train(model, X.astype(np.float32), y)) for model in twins]
        assert left[0] == left[1]
    assert again == [False] + 3 * [_kernels.backend.counts_references]


# Files, representations, bad arguments


@each_case
def test_a_saved_model_goes_on_to_the_bit(kind, own, tmp_path):
    net = NETS[0]
    X, y = data_for(net, 50)
    model = made(net, kind, own)
    train(model, X, y, epochs=3)
    model.save(tmp_path / "model")
    loaded = nnx.Model.load(tmp_path / "model")
    assert repr(loaded.optimizer) == repr(model.optimizer)
    for each in (model, loaded):
        each.history = None
    assert bits(train(loaded, X, y, epochs=3)) == bits(train(model, X, y, epochs=3))


def rejected(kind, **arguments):
    optimizer, (name, value) = kind(**ONLY_WITH.get(next(iter(arguments)), {})), *arguments.items()
    with pytest.raises((TypeError, ValueError), match=rf"^{kind.__name__}: {name} must be "):
        kind(**{**ONLY_WITH.get(name, {}), **arguments})
    dense = nnx.Layer_Dense(2, 3)
    dense.dweights, dense.dbiases, before = np.ones((2, 3)), np.ones((1, 3)), dense.weights.copy()
    setattr(optimizer, name, value)
    with pytest.raises((TypeError, ValueError), match=rf"^{kind.__name__}.update_params: {name} must be "):
        optimizer.update_params(dense)
    np.testing.assert_array_equal(dense.weights, before)


ONLY_WITH = {"nesterov": {"momentum": 0.5}}


@each_kind
def test_bad_arguments_are_refused_by_name_when_given_and_when_assigned(kind):
    for name in kind._arguments:
        if name in ("schedule", "decay", "learning_rate", *nnx.optimizers.COMMON):
            continue
        for value in ("x", None, np.nan, np.inf, -0.5, [1]):
            rejected(kind, **{name: value})
        if name.startswith("beta") or name in ("momentum", "rho"):
            rejected(kind, **{name: 1.0})
    for name in ("clip_norm", "clip_value", "average"):
        for value in ("x", np.nan, -0.5, True):
            rejected(kind, **{name: value})
    for name in ("clip_norm", "clip_value"):
        with pytest.raises(ValueError, match=rf"^{kind.__name__}: {name} must be above 0, got 0\.$"):
            kind(**{name: 0})
    with pytest.raises(
        ValueError, match=rf"^{kind.__name__}: average must be a number from 0 up to, but not including, 1, got 1"
    ):
        kind(average=1)
    with pytest.raises(ValueError, match=r"clip_norm and clip_value must not be given together\.$"):
        kind(clip_norm=1, clip_value=1)


def test_nesterov_needs_a_momentum():
    with pytest.raises(ValueError, match=r"^Optimizer_SGD: momentum must be above 0 with nesterov, got 0\.0\.$"):
        nnx.Optimizer_SGD(nesterov=True)


@each_kind
def test_arguments_are_shown_and_described(kind):
    for name in kind._arguments:
        value = {"schedule": nnx.Schedule_Cosine(5), "nesterov": True, "epsilon_hat": True}.get(name, 0.25)
        optimizer = kind(**{**ONLY_WITH.get(name, {}), name: value})
        assert f"{name}={value!r}" in repr(optimizer) or name == kind._arguments[0]
        described = optimizer.get_config()[name]
        assert described == (
            value if name != "schedule" else {"class": "Schedule_Cosine", "config": value.get_config()}
        )


@each_kind
@pytest.mark.usefixtures("compiled")
def test_the_compiled_table_keeps_as_many_arrays_as_the_class_says(kind):
    table = _kernels.backend._formulas()["optimizer"]
    for own in DEFINITIONS[kind][1]:
        rule = kind(**own)._rule("test")
        assert table[rule.kernel] == {"states": len(rule.states[0]), "settings": len(rule.settings)}
        assert _numpy._formulas()["optimizer"][rule.kernel]["states"] == len(rule.states[0])
