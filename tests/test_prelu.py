"""PReLU, the activation with parameters: values, gradients, training on both paths, files."""

from __future__ import annotations

import numpy as np
import plans
import pytest
from differences import assert_gradient
from plans import OPTIMIZERS, Book, Net, assert_alike, bits, build, data_for, train

import nnx
from nnx import _kernels
from nnx._kernels import _numpy
from nnx.engine import plan, program
from nnx.errors import DivergenceError, ModelFileError
from nnx.files import safetensors


def made(n_inputs, rng, dtype=None):
    """Return a PReLU whose slopes differ, one of them below 0."""
    layer = nnx.Activation_PReLU(n_inputs, dtype=dtype)
    layer.weights[:] = np.linspace(-0.2, 0.7, n_inputs) if n_inputs > 1 else 0.3
    return layer


# The layer


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("n_inputs", [1, 5])
def test_gradients_match_central_differences(rng, n_inputs):
    layer = made(n_inputs, rng)
    X, direction = rng.standard_normal((2, 7, 5))
    X += np.copysign(0.1, X)

    def objective():
        layer.forward(X)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    dweights, dinputs = layer.dweights, layer.dinputs
    assert dweights.shape == (1, n_inputs)
    assert_gradient(dweights, objective, layer.weights)
    assert_gradient(dinputs, objective, X)


@pytest.mark.parametrize("n_inputs", [1, 3, 37])
def test_values_are_the_definition(rng, dtype, n_inputs):
    layer = made(n_inputs, rng)
    X = rng.standard_normal((9, n_inputs)).astype(dtype)
    X[0, 0], X[1, 0] = 0, -0.0
    layer.forward(X)
    np.testing.assert_array_equal(layer.output, np.where(X > 0, X, layer.weights * X))
    assert layer.output.dtype == dtype


def test_one_slope_serves_inputs_of_any_shape():
    layer = nnx.Activation_PReLU()
    for shape in ((5,), (2, 3, 4), (0, 3)):
        X = -np.ones(shape, np.float32)
        layer.forward(X)
        layer.backward(X)
        assert layer.output.shape == layer.dinputs.shape == shape
        np.testing.assert_array_equal(layer.output, X * 0.25)
        assert layer.dweights == X.size


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (64, 16), (33, 130), (300, 1)])
@pytest.mark.parametrize("single", [True, False])
def test_kernels_compute_what_numpys_do(compiled, rng, dtype, shape, single):
    X, d = rng.standard_normal((2, *shape)).astype(dtype)
    weights = rng.standard_normal((1, 1 if single else shape[1])).astype(dtype)
    eps = np.finfo(dtype).eps
    for name, given, like in (
        ("prelu_forward", (X, weights), X),
        ("prelu_backward_inputs", (X, d, weights), X),
        ("prelu_backward_weights", (X, d), weights),
    ):
        found, expected = np.empty_like(like), np.empty_like(like)
        getattr(_kernels.backend, name)(*given, found)
        getattr(_numpy, name)(*given, expected)
        np.testing.assert_allclose(found, expected, rtol=4 * eps, atol=4 * eps * len(X), err_msg=name)


def test_infinity_passes_and_nan_stays_nan(dtype):
    layer = nnx.Activation_PReLU(dtype=dtype)
    layer.forward(np.array([np.inf, -np.inf, np.nan, 1e30, -1e30], dtype))
    np.testing.assert_array_equal(layer.output[:2], [np.inf, -np.inf])
    assert np.isnan(layer.output[2])
    layer.backward(np.ones(5, dtype))
    np.testing.assert_array_equal(layer.dinputs[[0, 1, 3, 4]], np.array([1, 0.25, 1, 0.25], dtype))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_inputs": 0}, "n_inputs must be a whole number of at least 1, got 0"),
        ({"n_inputs": 1.5}, "n_inputs must be a whole number, got 1.5"),
        ({"slope": np.nan}, "slope must be a finite number, got nan"),
        ({"slope": "a"}, "slope must be a number, got 'a'"),
        ({"dtype": "int32"}, "dtype must be float32 or float64, got 'int32'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, sentence):
    with pytest.raises((TypeError, ValueError)) as caught:
        nnx.Activation_PReLU(**arguments)
    assert str(caught.value) == f"Activation_PReLU: {sentence}."


def test_wrong_inputs_and_weights_are_refused():
    layer = nnx.Activation_PReLU(3)
    with pytest.raises(
        ValueError, match=r"^Activation_PReLU.forward: inputs must have shape \(n, 3\), got \(2, 4\)\.$"
    ):
        layer.forward(np.ones((2, 4)))
    with pytest.raises(RuntimeError, match=r"^Activation_PReLU.backward: Activation_PReLU has no inputs yet"):
        layer.backward(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"set_parameters: weights must have shape \(1, 3\), got \(3,\)\.$"):
        layer.set_parameters(np.ones(3))
    layer.weights = np.ones((3, 1))
    with pytest.raises(ValueError, match=r"forward: weights must have shape \(1, 3\), got \(3, 1\)\.$"):
        layer.forward(np.ones((2, 3)))
    layer.weights = np.ones((1, 3), np.int64)
    layer.forward(np.ones((2, 3)))
    assert layer.weights.dtype == np.float32


# Training


@pytest.fixture
def named(monkeypatch):
    """Let "P" and "Pn" be PReLUs in the networks of `plans`, with one slope and with one for each of n columns."""
    rng = np.random.default_rng(0)

    def choose(dtype="float64"):
        monkeypatch.setitem(plans.ACTIVATIONS, "P", lambda: made(1, rng, dtype))
        for n in (3, 5, 6, 9, 33):
            monkeypatch.setitem(plans.ACTIVATIONS, f"P{n}", lambda n=n: made(n, rng, dtype))

    choose()
    return choose


NETS = [
    Net("17-33,P,33-5,softmax"),
    Net("17-33,P33,33-5,softmax"),
    Net("2-9,P9,9-1,linear", "squared", "near"),
    Net("P6,6-9,P,dropout,9-3,P3,P", "squared", "near"),
    Net("6-5,relu,P5,5-5,sigmoid,P,linear,5-3,dropout,P3,3-2", "absolute", "near"),
    Net("P,P6,6-5,P5,sigmoid", "squared", "near"),
]
each_net = pytest.mark.parametrize("net", NETS, ids=str)


@pytest.fixture
def train_twins(planned, compiled):
    """Return a function that trains a network as a plan and layer by layer, and compares the state after both."""

    def run(net, n=50, *, change=lambda model: None, optimizer="Adam", dtype="float64", **arguments):
        left = []
        planned.clear()
        for kind in (nnx.Model, Book):
            model = build(net, optimizer, kind, dtype)
            change(model)
            left.append(train(model, *data_for(net, n), **arguments))
        assert planned == [True, False]
        return left

    return run


@each_net
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_plan_trains_as_layer_by_layer(named, train_twins, net, optimizer, dtype):
    named(dtype)
    found, expected = train_twins(net, optimizer=optimizer, dtype=dtype)
    assert any("dweights" in name for name in found)
    assert_alike(found, expected, 2e-4 if dtype == np.float32 else 1e-10)


@each_net
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.3}, {"clip_value": 0.01}, {"average": 0.9}], ids=str)
def test_batches_clipping_and_averages_are_those_of_layer_by_layer(named, train_twins, net, settings):
    def change(model):
        model.set(optimizer=nnx.Optimizer_Adam(0.01, **settings))

    found, expected = train_twins(net, change=change, epochs=4, batch_size=16, shuffle=True)
    assert_alike(found, expected, 1e-8)


@each_net
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.3}], ids=str)
@pytest.mark.parametrize("which", ["no PReLU", "PReLUs alone", "the last one alone"])
def test_frozen_layers_are_those_of_layer_by_layer(named, train_twins, net, settings, which):
    def change(model):
        model.set(optimizer=nnx.Optimizer_Adam(0.01, **settings))
        prelus = [layer for layer in model.layers if isinstance(layer, nnx.Activation_PReLU)]
        model.trainable_layers = {
            "no PReLU": [layer for layer in model.trainable_layers if layer not in prelus],
            "PReLUs alone": prelus,
            "the last one alone": prelus[-1:],
        }[which]

    found, expected = train_twins(net, change=change, epochs=3, batch_size=16)
    assert_alike(found, expected, 1e-8)


@pytest.mark.parametrize("net", [net for net in NETS if "relu" not in net.layers], ids=str)
def test_slopes_learn(named, net):
    model = build(net)
    before = [layer.weights.copy() for layer in model.layers if isinstance(layer, nnx.Activation_PReLU)]
    train(model, *data_for(net, 50), epochs=3)
    after = [layer.weights for layer in model.layers if isinstance(layer, nnx.Activation_PReLU)]
    assert all((a != b).any() for a, b in zip(after, before, strict=True))


@each_net
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.3, "average": 0.9}], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch, named, planned, compiled, net, settings, dtype):
    for limit in ("LEAST_STEP", "LEAST_CALL", "LEAST_ROWS"):
        monkeypatch.setattr(plan, limit, 1)
    named(dtype)
    found = []
    for threads in (1, 2, 3):
        model = build(net, dtype=dtype)
        model.set(optimizer=nnx.Optimizer_Adam(0.01, **settings))
        found.append(bits(train(model, *data_for(net, 50), epochs=3, batch_size=33, threads=threads)))
    assert found[1:] == [found[0], found[0]]
    assert all(planned)


@each_net
def test_predictions_and_evaluations_are_those_of_layer_by_layer(named, compiled, net):
    X, y = data_for(net, 50)
    one, other = (build(net, "Adam", model) for model in (nnx.Model, Book))
    if net.accuracy == "near":
        for model in (one, other):
            model.accuracy.init(y)
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=0, atol=1e-13)
    found, expected = (model.evaluate(X, y, batch_size=16, silent=True) for model in (one, other))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("epochs", [1, 3])
def test_another_number_of_slopes_counts_from_then_on(named, compiled, epochs):
    net = Net("17-33,P,33-5,softmax")
    left = []
    for kind in (nnx.Model, Book):
        model = build(net, "SGD", kind)
        X, y = data_for(net, 50)
        for n_inputs in (1, 33, 1):
            model.layers[1].n_inputs = n_inputs
            model.layers[1].set_parameters(np.full((1, n_inputs), 0.1))
            for _ in range(3):  # the same call again, which prepares the fast path
                found = train(model, X, y, epochs=epochs)
            left.append((found, model.predict(X)))
    half = len(left) // 2
    for (found, output), (expected, expected_output) in zip(left[:half], left[half:], strict=True):
        assert_alike(found, expected, 1e-8)
        np.testing.assert_allclose(output, expected_output, rtol=0, atol=1e-8)


def test_a_slope_that_is_not_finite_is_found():
    named_net = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 4), nnx.Activation_PReLU(4), nnx.Layer_Dense(4, 2), nnx.Activation_Softmax()):
        named_net.add(layer)
    named_net.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Categorical()
    )
    named_net.finalize()
    named_net.layers[1].weights[0, 2] = np.nan
    with pytest.raises(DivergenceError, match="the weights of layer 1, Activation_PReLU"):
        named_net.train(np.ones((3, 2)), [0, 1, 0], print_every=None)


def test_the_program_has_a_prelus_arrays_and_kernels(named):
    text = str(program.lower(build(Net("17-33,P33,33-5,softmax"))))
    for part in (
        "layers[1].weights",
        "(1, 33)",
        "prelu_forward: layers[0].output, layers[1].weights",
        "prelu_backward",
    ):
        assert part in text
    assert "layers[1].biases" not in text
    assert "layers[1].bias_momentums" not in text


def test_arrays_that_share_memory_have_no_plan(named, planned, compiled):
    net = Net("17-33,P33,33-5,softmax")
    model = build(net)
    model.layers[1].weights = model.layers[0].biases
    train(model, *data_for(net, 50))
    assert planned == [False]


# The model


def test_neighbours_that_do_not_fit_are_refused():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 4))
    model.add(nnx.Activation_PReLU(5))
    with pytest.raises(ValueError, match=r"^Model.finalize: layer 1 must have a slope for each of the 4 outputs"):
        model.finalize()
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 4))
    model.add(nnx.Activation_PReLU(dtype="float64"))
    with pytest.raises(ValueError, match=r"must have one dtype, got float32 and float64\.$"):
        model.finalize()


def test_parameters_are_got_and_set(named):
    net = Net("17-33,P33,33-5,softmax")
    model, other = build(net), build(net)
    train(model, *data_for(net, 50))
    parameters = model.get_parameters()
    assert [len(group) for group in parameters] == [2, 1, 2]
    other.set_parameters(parameters)
    assert other.layers[1].weights is model.layers[1].weights
    before = other.get_parameters()
    for wrong in ((np.ones((1, 33)), np.ones((1, 33))), (np.ones((1, 32)),)):
        with pytest.raises(ValueError, match=r"^Model.set_parameters: "):
            other.set_parameters([parameters[0], wrong, parameters[2]])
    assert all(a is b for x, y in zip(other.get_parameters(), before, strict=True) for a, b in zip(x, y, strict=True))


def test_the_summary_counts_slopes(named, capsys):
    build(Net("17-33,P33,33-5,softmax")).summary()
    line = capsys.readouterr().out.splitlines()[2]
    assert line.split()[-2:] == ["33", "264"]


@each_net
def test_a_saved_model_trains_on_as_the_original(tmp_path, named, net):
    X, y = data_for(net, 50)
    model = build(net)
    train(model, X, y)
    model.save(tmp_path / "model")
    loaded = nnx.Model.load(tmp_path / "model")
    assert repr(loaded) == repr(model)
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()
    for each in (model, loaded):
        train(each, X, y)
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()
    fresh = build(net)
    model.save_parameters(tmp_path / "parameters")
    fresh.load_parameters(tmp_path / "parameters")
    assert fresh.predict(X).tobytes() == model.predict(X).tobytes()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda arrays: arrays.update({"layers.1.weights": np.ones((1, 5))}), r"weights must have shape \(1, 33\)"),
        (lambda arrays: arrays.update({"layers.1.biases": np.ones((1, 33))}), "has no biases"),
        (lambda arrays: arrays.update({"layers.1.bias_momentums": np.ones((1, 33))}), "has no bias_momentums"),
        (lambda arrays: arrays.update({"layers.1.weight_momentums": np.ones((1, 3))}), "weight_momentums must have"),
        (lambda arrays: arrays.pop("layers.1.weights"), "has no weights yet"),
    ],
    ids=["shape", "biases", "state of biases", "shape of state", "none"],
)
def test_files_with_other_arrays_are_refused(tmp_path, named, change, sentence):
    path = str(tmp_path / "model")
    build(Net("17-33,P33,33-5,softmax")).save(path)
    description, arrays = safetensors.read("test", path)
    change(arrays)
    safetensors.write("test", path, description, arrays)
    with pytest.raises(ModelFileError, match=sentence):
        nnx.Model.load(path)


def test_a_frozen_prelu_without_weights_in_its_file_is_refused(tmp_path, named):
    path = str(tmp_path / "model")
    model = build(Net("17-33,P33,33-5,softmax"))
    model.trainable_layers = model.trainable_layers[:1]
    model.save(path)
    description, arrays = safetensors.read("test", path)
    del arrays["layers.1.weights"]
    safetensors.write("test", path, description, arrays)
    with pytest.raises(ModelFileError, match="has no weights yet"):
        nnx.Model.load(path)


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_a_resumed_training_is_the_whole_one(tmp_path, named, kind):
    net = Net("17-33,P33,dropout,33-5,P,softmax")
    X, y = data_for(net, 50)
    settings = {"batch_size": 16, "shuffle": True, "print_every": None}
    optimizer = {"learning_rate": 0.01, "average": 0.9, "clip_norm": 0.5}
    whole, first, second = (build(net, kind=kind) for _ in range(3))
    for model in (whole, first, second):
        model.set(optimizer=nnx.Optimizer_Adam(**optimizer))
    np.random.seed(3)
    whole.train(X, y, epochs=6, **settings)
    np.random.seed(3)
    first.train(X, y, epochs=3, checkpoint=tmp_path / "file", **settings)
    second.train(X, y, epochs=6, resume=tmp_path / "file", **settings)
    for one, other in zip(whole.layers, second.layers, strict=True):
        for name, value in vars(one).items():
            if name.startswith(("weight", "bias")) and isinstance(value, np.ndarray):
                assert vars(other)[name].tobytes() == value.tobytes(), name


def test_where_there_are_no_slopes_none_is_written(compiled):
    beside = np.ones((1, 2))
    X, none = np.ones((3, 0)), beside[:, :0]
    for name, given in (
        ("prelu_forward", (X, none, X)),
        ("prelu_backward_inputs", (X, X, none, X)),
        ("prelu_backward_weights", (X, X, none)),
    ):
        getattr(_kernels.backend, name)(*given)
        np.testing.assert_array_equal(beside, 1, err_msg=name)
