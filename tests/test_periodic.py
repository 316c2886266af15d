"""Layer_Periodic: values, gradients, plans, files, and arguments that do not fit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from differences import assert_gradient
from plans import Book, bits, left_behind

import nnx
from nnx import _kernels
from nnx._kernels._numpy.periodic import parts_of
from nnx.engine import plan
from nnx.files import safetensors

# Values


def test_known_answers(dtype):
    layer = nnx.Layer_Periodic(3, [0, 2], frequencies=2, width=1)
    layer.set_parameters([[1, 0.5, 0, 0, 1, 10, 100], [0.25, 0, 0, np.pi, 2, 1, 0]])
    layer.forward([[0, 7, 1], [0.5, 7, 2], [1, 7, 4]])
    np.testing.assert_allclose(
        layer.output, [[0, 7, 1, 111, -1], [0.5, 7, 2, 99, -3], [1, 7, 4, 91, 1]], rtol=1e-6, atol=1e-5
    )
    assert layer.output.dtype == dtype


@pytest.mark.parametrize("rows", [0, 1, 3, 127, 300])
@pytest.mark.parametrize(
    ("n_inputs", "columns", "frequencies", "width"),
    [(1, [0], 1, 1), (5, [0, 2, 4], 16, 3), (9, [8], 37, 32), (4, [0, 1, 2, 3], 3, 5)],
)
def test_values_and_gradients_are_the_definition(dtype, rng, rows, n_inputs, columns, frequencies, width):
    layer = nnx.Layer_Periodic(n_inputs, columns, frequencies, width, scale=1)
    values = rng.normal(size=(rows, n_inputs)).astype(dtype)
    dvalues = rng.normal(size=(rows, n_inputs + len(columns) * width)).astype(dtype)
    layer.forward(values)
    layer.backward(dvalues)
    output, dinputs = [values.astype(float)], dvalues[:, :n_inputs].astype(float)
    dweights = []
    for number, column in enumerate(columns):
        w, p, factors, added = (part.astype(float) for part in parts_of(layer.weights[number], width))
        x, given = values[:, column].astype(float), dvalues[:, n_inputs + number * width :][:, :width].astype(float)
        angles = 2 * np.pi * x[:, None] * w + p
        output.append(np.cos(angles) @ factors + added)
        by_angles = -np.sin(angles) * (given @ factors.T)
        dinputs[:, column] += 2 * np.pi * by_angles @ w
        by_w, by_factors = 2 * np.pi * x @ by_angles, np.cos(angles).T @ given
        dweights.append(np.concatenate([by_w, by_angles.sum(0), by_factors.ravel(), given.sum(0)]))
    tolerance = {"rtol": 1e-4, "atol": 2e-4} if dtype == np.float32 else {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_array_equal(layer.output[:, :n_inputs], values)
    np.testing.assert_allclose(layer.output, np.concatenate(output, axis=1), **tolerance)
    np.testing.assert_allclose(layer.dinputs, dinputs, **tolerance)
    scale = max(1, rows) ** 0.5 * 4
    np.testing.assert_allclose(layer.dweights / scale, np.array(dweights) / scale, **tolerance)


@pytest.mark.usefixtures("float64")
def test_gradients_match_central_differences(rng):
    layer = nnx.Layer_Periodic(3, [0, 2], 4, 2, scale=0.5)
    values, direction = rng.normal(size=(7, 3)), rng.normal(size=(7, 7))

    def objective():
        layer.forward(values)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    dweights, dinputs = layer.dweights, layer.dinputs
    assert_gradient(dinputs, objective, values)
    assert_gradient(dweights, objective, layer.weights)


def test_many_turns_cost_no_more_digits_than_the_number_has(dtype):
    layer = nnx.Layer_Periodic(1, [0], 1, 1)
    layer.set_parameters([[1, 0, 1, 0]])
    layer.forward([[1000], [1000.25], [-4096.5]])
    np.testing.assert_allclose(layer.output[:, 1], [1, 0, -1], atol=1e-6)


def test_numbers_that_are_none_pass_through(dtype):
    layer = nnx.Layer_Periodic(2, [0], 3, 2)
    layer.forward(np.array([[np.nan, 1], [np.inf, 1], [0.5, 1]], dtype))
    assert np.isnan(layer.output[:2, 2:]).all()
    assert np.isfinite(layer.output[2]).all()


def test_initial_weights_are_drawn_from_numpys_generator():
    np.random.seed(1)
    first = nnx.Layer_Periodic(300, range(300), 16, 3, scale=0.5).weights
    np.random.seed(1)
    np.testing.assert_array_equal(nnx.Layer_Periodic(300, range(300), 16, 3, scale=0.5).weights, first)
    frequencies, phases, rest = first[:, :16], first[:, 16:32], first[:, 32:]
    assert abs(frequencies.std() - 0.5) < 0.02
    assert 3.1 < np.abs(phases).max() <= np.pi + 1e-6
    assert 0.24 < np.abs(rest).max() <= 0.25


# In a model


def model_of(kind=nnx.Model, dtype="float32", optimizer=None, before=()):
    np.random.seed(0)
    model = kind()
    for layer in (
        *before,
        nnx.Layer_Periodic(4, [0, 2, 3], 6, 3, scale=0.3, dtype=dtype),
        nnx.Layer_Dense(13, 33, dtype=dtype, weight_initializer="he_normal"),
        nnx.Activation_ReLU(),
        nnx.Layer_Dense(33, 1, dtype=dtype, weight_initializer="he_normal"),
    ):
        model.add(layer)
    model.set(
        loss=nnx.Loss_MeanSquaredError(),
        optimizer=optimizer or nnx.Optimizer_Adam(0.01),
        accuracy=nnx.Accuracy_Regression(),
    )
    model.finalize()
    return model


def samples(n=70, dtype="float32"):
    X = np.random.default_rng(1).normal(size=(n, 4)).astype(dtype)
    return X, np.sin(6 * X[:, :1])


def train(model, X, y, **arguments):
    np.random.seed(3)
    model.train(X, y, **{"epochs": 3, "batch_size": 16, "shuffle": True, "print_every": None, **arguments})
    return left_behind(model)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [nnx.Optimizer_SGD, nnx.Optimizer_AdamW, nnx.Optimizer_Adagrad])
def test_a_plan_trains_as_layers_one_by_one(compiled, dtype, optimizer):
    X, y = samples(dtype=dtype)
    ours, theirs = (model_of(kind, dtype, optimizer(0.01, clip_norm=0.5, average=0.9)) for kind in (nnx.Model, Book))
    assert "as a plan" in ours.explain()
    found, expected = train(ours, X, y), train(theirs, X, y)
    assert found.keys() == expected.keys()
    tolerance = 1e-3 if dtype == "float32" else 1e-9
    for name, value in expected.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_bits_do_not_depend_on_threads(compiled, monkeypatch, clip_norm):
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)
    X, y = samples(300)
    left = [
        bits(train(model_of(optimizer=nnx.Optimizer_Adam(clip_norm=clip_norm)), X, y, batch_size=150, threads=threads))
        for threads in (1, 2, 3, 7)
    ]
    assert all(each == left[0] for each in left)


def test_it_learns_a_wave():
    x = np.random.default_rng(0).uniform(-1, 1, size=(500, 1))
    scores = []
    for waves in (True, False):
        np.random.seed(0)
        model = nnx.Model()
        for layer in ([nnx.Layer_Periodic(1, [0], scale=2)] if waves else []) + [nnx.Layer_Dense(4 if waves else 1, 1)]:
            model.add(layer)
        model.set(
            loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_Adam(0.02), accuracy=nnx.Accuracy_Regression()
        )
        model.finalize()
        model.train(x, np.sin(12 * x), epochs=400, print_every=None)
        scores.append(model.score(x, np.sin(12 * x)))
    assert scores[0] > 0.95 > 0.5 > scores[1]


def test_averages_are_what_predictions_use():
    layer = nnx.Layer_Periodic(1, [0], 1, 1)
    layer.set_parameters([[0, 0, 1, 0]])
    layer.weight_averages = np.array([[0, 0, 5, 0]], np.float32)
    layer.forward([[0]], training=False)
    assert layer.output[0, 1] == 5
    layer.forward([[0]])
    assert layer.output[0, 1] == 1


def test_weights_of_another_shape_are_refused():
    model = model_of()
    X, y = samples()
    model.predict(X)
    model.layers[0].weights = np.zeros((3, 7), np.float32)
    sentence = r"weights must have shape \(3, 33\), got \(3, 7\)"
    with pytest.raises(ValueError, match=rf"^Layer_Periodic.forward: {sentence}"):
        model.layers[0].forward(X)
    with pytest.raises(ValueError, match=sentence):
        model.predict(X)
    with pytest.raises(ValueError, match=sentence):
        train(model, X, y)


# Files


def test_copies_and_files_go_on_in_the_same_bytes(tmp_path):
    X, y = samples()
    model = model_of()
    train(model, X, y)
    model.save(tmp_path / "model.safetensors")
    others = [nnx.Model.load(tmp_path / "model.safetensors"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    assert {other.predict(X).tobytes() for other in others} == {model.predict(X).tobytes()}
    expected = bits(train(model, X, y))
    assert all(bits(train(other, X, y)) == expected for other in others)


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_predictors_have_the_bytes_of_predict(precision, tmp_path):
    X, y = samples(400)
    model = model_of()
    train(model, X, y)
    predictor = model.predictor(precision)
    expected = predictor(X)
    if precision is None:
        assert expected.tobytes() == model.predict(X).tobytes()
    predictor.save(tmp_path / "predictor.safetensors")
    for other in (nnx.Predictor.load(tmp_path / "predictor.safetensors"), pickle.loads(pickle.dumps(predictor))):
        assert other(X).tobytes() == expected.tobytes()


TAMPERED = {
    "a column that is not there": {"columns": [0, 2, 9]},
    "columns in another order": {"columns": [2, 0, 3]},
    "fewer columns": {"columns": [0, 2]},
    "no columns": {"columns": []},
    "other weights": {"weights": np.zeros((3, 32))},
    "weights of fewer columns": {"weights": np.zeros((2, 33))},
    "no weights": {"weights": np.zeros((3, 0))},
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_predictor_is_refused(change, tmp_path):
    path = str(tmp_path / "predictor.safetensors")
    model_of().predictor().save(path)
    description, arrays = safetensors.read("test", path)
    description.pop("crc32", None)
    for name, value in change.items():
        arrays[f"parts.0.{name}"] = np.array(value, arrays[f"parts.0.{name}"].dtype)
    safetensors.write("test", path, description, arrays)
    with pytest.raises(nnx.ModelFileError, match=r"^Predictor.load: .* is damaged: [^\n]*$"):
        nnx.Predictor.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_inputs", 1 << 31),
        ("columns", [7]),
        ("columns", 3),
        ("frequencies", 0),
        ("frequencies", 1 << 40),
        ("width", 33),
        ("width", 2),
        ("scale", -1),
        ("scale", "a"),
    ],
)
def test_a_tampered_model_is_refused(name, value, tmp_path):
    path = str(tmp_path / "model.safetensors")
    model_of().save(path)
    description, arrays = safetensors.read("test", path)
    description.pop("crc32", None)
    description["layers"][0]["config"][name] = value
    safetensors.write("test", path, description, arrays)
    with pytest.raises(nnx.ModelFileError, match=r"^Model.load: .* is damaged[^\n]*$"):
        nnx.Model.load(path)


# Kernels and arguments


@pytest.mark.parametrize(
    ("columns", "shape", "n_out"),
    [([3], (1, 5), 4), ([-1], (1, 5), 4), ([0], (1, 6), 4), ([0], (2, 4), 4), ([0, 1], (2, 4), 6), ([], (0, 4), 4)],
)
def test_compiled_kernels_refuse_what_would_lead_out_of_arrays(compiled, columns, shape, n_out):
    inputs, output = np.zeros((2, 3), np.float32), np.zeros((2, n_out), np.float32)
    places, weights = np.array(columns, np.int32), np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"^periodic_forward: (columns|weights) must "):
        _kernels.backend.periodic_forward(inputs, places, weights, output)
    for what, result in (("weights", weights.copy()), ("inputs", inputs.copy())):
        backward = getattr(_kernels.backend, f"periodic_backward_{what}")
        with pytest.raises(ValueError, match=rf"^periodic_backward_{what}: (columns|weights) must "):
            backward(inputs, output, places, weights, result)


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ((0, [0]), ValueError, "n_inputs must be a whole number from 1 to"),
        ((3, []), ValueError, "columns must name at least one column, got none"),
        ((3, [2, 1]), ValueError, r"columns must be in increasing order, each once, got \[2, 1\]"),
        ((3, [3]), ValueError, r"columns\[0\] must be a whole number from 0 to 2, got 3"),
        ((3, [0], 0), ValueError, "frequencies must be a whole number from 1 to 1024, got 0"),
        ((3, [0], 1025), ValueError, "frequencies must be a whole number from 1 to 1024, got 1025"),
        ((3, [0], 2.5), TypeError, "frequencies must be a whole number, got 2.5"),
        ((3, [0], 2, 33), ValueError, "width must be a whole number from 1 to 32, got 33"),
        ((3, [0], 2, 1, -1), ValueError, "scale must be a finite number of at least 0, got -1"),
        ((3, [0], 2, 1, "a"), TypeError, "scale must be a number, got 'a'"),
        ((3, [0], 2, 1, 1, "float16"), ValueError, "dtype must be"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, kind, sentence):
    with pytest.raises(kind, match=rf"^Layer_Periodic: {sentence}"):
        nnx.Layer_Periodic(*arguments)


def test_settings_are_plain():
    layer = nnx.Layer_Periodic(3, np.array([0, 2]), np.int64(4), scale=np.float32(0.5))
    assert repr(layer) == "Layer_Periodic(3, [0, 2], frequencies=4, scale=0.5)"
    config = {"n_inputs": 3, "columns": [0, 2], "frequencies": 4, "width": 3, "scale": 0.5, "dtype": "float32"}
    assert layer.get_config() == config
    with pytest.raises(AttributeError):
        layer.width = 4
