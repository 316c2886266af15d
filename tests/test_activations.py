"""Every elementwise activation: values, slopes, settings, and the same in a plan.

The tests walk through the built-in classes, so a new one is tested as well. It needs a line in `DEFINITIONS`.
"""

from __future__ import annotations

import inspect
import math

import numpy as np
import plans
import pytest
from differences import assert_gradient
from plans import Book, Net, assert_alike, bits, build, data_for, train

import nnx
from nnx import _kernels
from nnx._base.vocabulary import BUILT_IN
from nnx._kernels import _numpy
from nnx.activations import Activation
from nnx.engine import plan
from nnx.files import safetensors

pytestmark = pytest.mark.every_backend

KINDS = [kind for kind in BUILT_IN["layer"] if issubclass(kind, Activation) and kind is not nnx.Activation_Softmax]

# Definitions, for single numbers in double precision


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def gelu(x, approximate):
    if approximate:
        return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return x * math.erfc(-x / math.sqrt(2)) / 2


def elu(x, alpha):
    return x if x > 0 else alpha * math.expm1(x)


DEFINITIONS = {
    nnx.Activation_Linear: lambda x: x,
    nnx.Activation_ReLU: lambda x: max(x, 0),
    nnx.Activation_Sigmoid: sigmoid,
    nnx.Activation_Tanh: math.tanh,
    nnx.Activation_LeakyReLU: lambda x, slope: x if x > 0 else slope * x,
    nnx.Activation_ELU: elu,
    nnx.Activation_SELU: lambda x: 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717),
    nnx.Activation_GELU: gelu,
    nnx.Activation_SiLU: lambda x: x * sigmoid(x),
    nnx.Activation_Mish: lambda x: x * math.tanh(math.log1p(math.exp(min(x, 100)))),
    nnx.Activation_Softplus: lambda x: math.log1p(math.exp(-abs(x))) + max(x, 0),
    nnx.Activation_HardSigmoid: lambda x: min(6, max(0, x + 3)) / 6,
    nnx.Activation_HardSwish: lambda x: x * min(6, max(0, x + 3)) / 6,
}

#: Values of settings beside the defaults, and invalid values.
OTHER_VALUES = {"slope": 0.3, "alpha": 0.7, "approximate": True}
WRONG_VALUES = {
    "slope": [-0.1, math.nan, math.inf, "0.1", True, None],
    "alpha": [-0.1, math.nan, math.inf, "1", False, None],
    "approximate": [1, 0.0, "tanh", None],
}

CASES = [(kind, {}) for kind in KINDS]
CASES += [(kind, {name: OTHER_VALUES[name]}) for kind in KINDS for name in kind._arguments if name in OTHER_VALUES]
NAMES = [f"{kind.__name__[11:]}{''.join(f'-{name}' for name in settings)}" for kind, settings in CASES]
each_activation = pytest.mark.parametrize(("kind", "settings"), CASES, ids=NAMES)
SETTINGS = [(kind, name) for kind in KINDS for name in kind._arguments]
each_setting = pytest.mark.parametrize(("kind", "name"), SETTINGS, ids=[f"{k.__name__[11:]}-{n}" for k, n in SETTINGS])


def definition_of(kind, settings):
    """Return an activation's definition, with its settings, as a function of arrays."""
    assert kind in DEFINITIONS, f"{kind.__name__} needs a line in DEFINITIONS of {__file__}."
    given = {name: p.default for name, p in inspect.signature(kind).parameters.items()} | settings
    return np.vectorize(lambda x: float(DEFINITIONS[kind](x, **given)), otypes=[np.float64])


def spread(dtype, rng):
    """Return numbers near 0, where activations bend, and far from it."""
    parts = [s * rng.standard_normal(400) for s in (1e-6, 0.1, 1, 5, 30)] + [np.linspace(-9, 9, 901), [0, -0.0, 3, -3]]
    return np.concatenate(parts).astype(dtype)


def room(dtype, expected, x=0.0):
    """Return the tolerance of a result: some units in its last place, or a very small number.

    Far below 0, compiled kernels give a tiny constant in place of ever tinier numbers. GELU's probability is exact to
    so many places behind the point, not to so many digits.
    """
    info = np.finfo(dtype)
    return 8 * info.eps * np.abs(expected) + 4096 * info.tiny + 2 * info.eps * np.minimum(np.abs(x), 10)


def test_every_setting_of_an_activation_is_tried():
    assert {name for _, name in SETTINGS} <= OTHER_VALUES.keys() & WRONG_VALUES.keys()


# Values and slopes


@each_activation
def test_values_are_the_definitions(kind, settings, dtype, rng):
    X = spread(dtype, rng)
    layer = kind(**settings)
    layer.forward(X)
    expected = definition_of(kind, settings)(X.astype(np.float64))
    absolute = X.astype(np.float64) if kind is nnx.Activation_GELU else 0.0
    assert layer.output.dtype == dtype
    assert (np.abs(layer.output - expected) <= room(dtype, expected, absolute)).all()


@pytest.mark.usefixtures("float64")
@each_activation
def test_gradients_match_central_differences(kind, settings, rng):
    X = 2 * rng.standard_normal((7, 5))
    X = np.floor(X) + 0.1 + 0.8 * (X - np.floor(X))  # away from whole numbers, where some have their kinks
    direction = rng.standard_normal(X.shape)
    layer = kind(**settings)

    def objective():
        layer.forward(X)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    assert_gradient(layer.dinputs, objective, X)


@each_activation
def test_values_and_gradients_are_those_of_the_numpy_backend(kind, settings, dtype, rng, compiled):
    layer = kind(**settings)
    given = layer._settings()
    X = spread(dtype, rng)
    d = rng.standard_normal(len(X)).astype(dtype)
    output, expected = np.empty_like(X), np.empty_like(X)
    _kernels.backend.activation_forward(kind._kernel, X, output, given)
    _numpy.activation_forward(kind._kernel, X, expected, given)
    assert (np.abs(output - expected) <= room(dtype, expected, X)).all()
    source = X if kind._backward_from == "inputs" else expected
    _kernels.backend.activation_backward(kind._kernel, source, d, output, given)
    _numpy.activation_backward(kind._kernel, source, d, expected, given)
    assert (np.abs(output - expected) <= 16 * np.finfo(dtype).eps * np.maximum(1, np.abs(expected))).all()


# Special values


@each_activation
def test_values_and_slopes_are_finite_at_all_finite_numbers(kind, settings, dtype):
    info = np.finfo(dtype)
    subnormal = np.nextafter(dtype.type(0), dtype.type(1))
    X = np.array([0, -0.0, 1e30, -1e30, info.tiny, -info.tiny, subnormal, -subnormal, 88, -88, 104, -104], dtype)
    layer = kind(**settings)
    layer.forward(X)
    layer.backward(np.ones_like(X))
    expected = definition_of(kind, settings)(X.astype(np.float64))
    assert (np.abs(layer.output - expected) <= room(dtype, expected, np.minimum(np.abs(X), 1))).all()
    assert np.isfinite(layer.dinputs).all()


@each_activation
def test_values_and_slopes_at_infinity_are_those_far_out(kind, settings, dtype):
    layer = kind(**settings)
    found = []
    for far in (1e6, np.inf):
        X = np.array([far, -far], dtype)
        layer.forward(X)
        layer.backward(np.ones_like(X))
        found.append((layer.output, layer.dinputs))
    (near_output, near_slope), (output, slope) = found
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(slope, near_slope, rtol=0, atol=2e-6)  # some approach their limit as 1/x
    grows = np.abs(near_output) > 1e3
    assert (np.isinf(output) == grows).all()
    np.testing.assert_allclose(output[~grows], near_output[~grows], rtol=0, atol=2e-6)


@each_activation
def test_nan_stays_nan(kind, settings, dtype):
    layer = kind(**settings)
    X = np.full(37, np.nan, dtype)
    layer.forward(X)
    assert np.isnan(layer.output).all()


# Memory


@each_activation
def test_results_may_take_the_place_of_arguments(kind, settings, dtype, rng):
    given = kind(**settings)._settings()
    X, d = rng.standard_normal((2, 9, 5)).astype(dtype)
    output, dinputs = np.empty_like(X), np.empty_like(X)
    _kernels.backend.activation_forward(kind._kernel, X, output, given)
    source = X if kind._backward_from == "inputs" else output
    _kernels.backend.activation_backward(kind._kernel, source, d, dinputs, given)
    for place in (source.copy(), d.copy()):
        same_source, same_d = (place, d) if np.array_equal(place, source) else (source, place)
        _kernels.backend.activation_backward(kind._kernel, same_source, same_d, place, given)
        assert place.tobytes() == dinputs.tobytes()
    place = X.copy()
    _kernels.backend.activation_forward(kind._kernel, place, place, given)
    assert place.tobytes() == output.tobytes()


@each_activation
def test_bits_do_not_depend_on_where_a_number_lies(kind, settings, dtype, rng, compiled):
    given = kind(**settings)._settings()
    X, d = 3 * rng.standard_normal((2, 71)).astype(dtype)

    def computed(part):
        output, dinputs = np.empty_like(X[part]), np.empty_like(X[part])
        _kernels.backend.activation_forward(kind._kernel, X[part], output, given)
        source = X[part] if kind._backward_from == "inputs" else output
        _kernels.backend.activation_backward(kind._kernel, source, d[part], dinputs, given)
        return output, dinputs

    expected = computed(slice(None))
    for part in [slice(i, j) for i in (0, 1, 5, 16, 33) for j in (34, 47, 64, 70)]:
        for found, whole in zip(computed(part), expected, strict=True):
            assert found.tobytes() == whole[part].tobytes()


# Plans


@pytest.fixture
def named(monkeypatch):
    """Let "A" be an activation in the networks of `plans`; return a function that chooses it."""

    def choose(kind, settings):
        monkeypatch.setitem(plans.ACTIVATIONS, "A", lambda: kind(**settings))

    return choose


PLACES = [
    Net("17-33,A,33-5,softmax"),
    Net("2-16,A,16-1,linear", "squared", "near"),
    Net("A,6-9,A,dropout,9-4,A,A", "squared", "near"),
    Net("6-5,relu,A,5-5,linear,A,5-3,dropout,A,3-2", "absolute", "near"),
]
each_place = pytest.mark.parametrize("net", PLACES, ids=str)


@each_activation
@each_place
def test_a_plan_trains_as_layer_by_layer(named, planned, compiled, kind, settings, net, dtype):
    named(kind, settings)
    found, expected = (
        train(build(net, "Adam", model, dtype), *data_for(net, 50), epochs=1) for model in (nnx.Model, Book)
    )
    assert planned == [True, False]
    assert_alike(found, expected, 2e-4 if dtype == np.float32 else 1e-10)


@each_activation
@each_place
def test_steps_in_batches_are_those_of_layer_by_layer(named, planned, compiled, kind, settings, net):
    named(kind, settings)
    arguments = {"epochs": 3, "batch_size": 16, "shuffle": True}
    found, expected = (train(build(net, "Adam", m), *data_for(net, 50), **arguments) for m in (nnx.Model, Book))
    assert planned == [True, False]
    assert_alike(found, expected, 1e-8)


@each_activation
@each_place
def test_predictions_and_evaluations_are_those_of_layer_by_layer(named, compiled, kind, settings, net, dtype):
    named(kind, settings)
    X, y = data_for(net, 50)
    one, other = (build(net, "Adam", model, dtype) for model in (nnx.Model, Book))
    if net.accuracy == "near":
        for model in (one, other):
            model.accuracy.init(y)
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)
    found, expected = (model.evaluate(X, y, batch_size=16, silent=True) for model in (one, other))
    assert found == pytest.approx(expected, rel=1e-5)


@each_activation
def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch, named, planned, compiled, kind, settings, dtype):
    for limit in ("LEAST_STEP", "LEAST_CALL", "LEAST_ROWS"):
        monkeypatch.setattr(plan, limit, 1)
    named(kind, settings)
    for net in PLACES:
        expected, *found = (
            bits(train(build(net, dtype=dtype), *data_for(net, 50), epochs=2, batch_size=33, threads=threads))
            for threads in (1, 2, 3)
        )
        assert found == [expected, expected]
    assert all(planned)


# Settings


@each_setting
@each_place
def test_a_setting_that_is_assigned_counts_from_then_on(named, planned, compiled, kind, name, net):
    named(kind, {})
    X, y = data_for(net, 50)
    found = []
    for model in (build(net, "Adam", each) for each in (nnx.Model, Book)):
        for _ in range(3):  # the same call again, which prepares the fast path
            train(model, X, y, epochs=1)
        before = model.predict(X)
        for layer in model.layers:
            if type(layer) is kind:
                setattr(layer, name, OTHER_VALUES[name])
        after = model.predict(X)
        left = train(model, X, y, epochs=1)
        found.append((before, after, left))
        assert not np.array_equal(before, after)
    assert planned[0]
    assert not planned[-1]
    (_, after, left), (_, expected_after, expected_left) = found
    np.testing.assert_allclose(after, expected_after, rtol=0, atol=1e-9)
    assert_alike(left, expected_left, 1e-8)


@each_setting
def test_wrong_settings_are_refused(kind, name):
    for wrong in WRONG_VALUES[name]:
        with pytest.raises((TypeError, ValueError), match=rf"^{kind.__name__}: {name} must be .*, got .*\.$"):
            kind(**{name: wrong})


@each_setting
def test_wrong_settings_that_are_assigned_are_refused_at_their_next_use(named, kind, name):
    named(kind, {})
    net = PLACES[0]
    X, y = data_for(net, 50)
    model = build(net)
    train(model, X, y)
    layer = model.layers[1]
    for wrong in WRONG_VALUES[name]:
        setattr(layer, name, wrong)
        for use in (lambda: layer.forward(X), lambda: model.predict(X), lambda: train(model, X, y)):
            before = [array.copy() for pair in model.get_parameters() for array in pair]
            with pytest.raises((TypeError, ValueError), match=rf"^{kind.__name__}: {name} must be .*, got .*\.$"):
                use()
            after = [array for pair in model.get_parameters() for array in pair]
            assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@each_activation
def test_a_saved_model_has_the_same_settings_and_predictions(tmp_path, named, kind, settings):
    named(kind, settings)
    net = PLACES[1]
    model = build(net)
    model.save(tmp_path / "model")
    loaded = nnx.Model.load(tmp_path / "model")
    assert [layer.get_config() for layer in loaded.layers] == [layer.get_config() for layer in model.layers]
    assert repr(loaded) == repr(model)
    X, _ = data_for(net, 20)
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()


@each_setting
def test_files_with_wrong_settings_are_refused(tmp_path, named, kind, name):
    named(kind, {name: OTHER_VALUES[name]})
    path = str(tmp_path / "model")
    build(PLACES[0]).save(path)
    description, arrays = safetensors.read("test", path)
    for wrong in [each for each in WRONG_VALUES[name] if each == each and each not in (math.inf,)]:
        config = description["layers"][1]["config"]
        config[name] = wrong
        safetensors.write("test", path, description, arrays)
        with pytest.raises(ValueError, match=rf"{kind.__name__}: {name} must be"):
            nnx.Model.load(path)
