"""Layer_Combinations: values, gradients, plans, files, and arguments that do not fit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from differences import assert_gradient
from plans import Book, bits, left_behind

import nnx
from nnx import _kernels
from nnx.engine import plan
from nnx.files import safetensors

PAIR = ([[0, 2], [0, 2]], [[1, 0.5], [1, -0.5]])


def test_known_answers(dtype):
    layer = nnx.Layer_Combinations(3, [[0, 2], [1]], [[1, 0.5], [-2]])
    layer.forward([[1, 7, 4], [0, -1, 2]])
    np.testing.assert_array_equal(layer.output, [[1, 7, 4, 3, -14], [0, -1, 2, 1, 2]])
    assert layer.output.dtype == dtype
    layer.backward(np.array([[1, 2, 3, 10, 100], [0, 0, 0, 1, 0]], dtype))
    np.testing.assert_array_equal(layer.dinputs, [[11, -198, 8], [1, 0, 0.5]])


@pytest.mark.parametrize("rows", [0, 1, 5, 100])
@pytest.mark.parametrize(("n_inputs", "n_sums"), [(1, 1), (4, 3), (40, 70)])
def test_values_and_gradients_are_the_definition(dtype, rng, rows, n_inputs, n_sums):
    columns = [np.flatnonzero(rng.random(n_inputs) < 0.5) for _ in range(n_sums)]
    columns = [own if len(own) else np.array([0]) for own in columns]
    layer = nnx.Layer_Combinations(n_inputs, columns, [rng.normal(size=len(own)) for own in columns])
    matrix = np.zeros((n_inputs, n_sums), np.float64)
    for number, (own, factors) in enumerate(zip(layer.columns, layer.factors, strict=True)):
        matrix[list(own), number] = factors
    values = rng.normal(size=(rows, n_inputs)).astype(dtype)
    layer.forward(values)
    np.testing.assert_array_equal(layer.output[:, :n_inputs], values)
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(layer.output[:, n_inputs:], values @ matrix, rtol=tolerance, atol=tolerance)
    dvalues = rng.normal(size=layer.output.shape).astype(dtype)
    layer.backward(dvalues)
    expected = dvalues[:, :n_inputs] + dvalues[:, n_inputs:] @ matrix.T
    np.testing.assert_allclose(layer.dinputs, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("float64")
def test_gradients_match_central_differences(rng):
    layer = nnx.Layer_Combinations(3, *PAIR)
    values, direction = rng.normal(size=(8, 3)), rng.normal(size=(8, 5))

    def objective():
        layer.forward(values)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    assert_gradient(layer.dinputs, objective, values)


def model_of(kind=nnx.Model, dtype="float32"):
    """Return a model with combinations for a spline after an embedding, and with other combinations later."""
    np.random.seed(0)
    model = kind()
    for layer in (
        nnx.Layer_Embedding(4, [1], 3, 2, dtype=dtype, weight_initializer="he_normal"),
        nnx.Layer_Combinations(5, *PAIR, dtype=dtype),
        nnx.Layer_Spline(7, 24, [0, 5, 6], [[-1, 0, 1]] * 3, dtype=dtype),
        nnx.Activation_Tanh(),
        nnx.Layer_Combinations(24, [range(24), [3, 7]], [[0.1] * 24, [1, -1]], dtype=dtype),
        nnx.Layer_Dense(26, 1, dtype=dtype, weight_initializer="he_normal"),
    ):
        model.add(layer)
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_Adam(0.01), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    return model


def samples(n=70, dtype="float32"):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, 4)).astype(dtype)
    X[:, 1] = rng.integers(0, 3, n)
    return X, np.sin(3 * X[:, :1]) + X[:, 1:2]


def train(model, X, y, **arguments):
    model.train(X, y, **{"epochs": 3, "batch_size": 16, "shuffle": True, "seed": 3, "print_every": None, **arguments})
    return left_behind(model)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_plan_gives_what_layers_give_one_by_one(compiled, dtype):
    X, y = samples(dtype=dtype)
    found, book = model_of(nnx.Model, dtype), model_of(Book, dtype)
    assert "as a plan" in found.explain()
    ours, theirs = train(found, X, y), train(book, X, y)
    assert ours.keys() == theirs.keys()
    tolerance = 1e-3 if dtype == "float32" else 1e-10
    for name, value in theirs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(ours[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def test_bits_do_not_depend_on_threads(compiled, monkeypatch):
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)
    X, y = samples(300)
    left = [bits(train(model_of(), X, y, batch_size=100, threads=threads)) for threads in (1, 2, 5)]
    assert all(each == left[0] for each in left)


def test_copies_files_and_predictors_compute_the_same_bytes(tmp_path):
    X, y = samples()
    model = model_of()
    train(model, X, y)
    expected = model.predict(X).tobytes()
    model.save(tmp_path / "model.safetensors")
    loaded = nnx.Model.load(tmp_path / "model.safetensors")
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.predict(X).tobytes() == expected
        assert (other.layers[1].columns, other.layers[1].factors) == (((0, 2), (0, 2)), ((1.0, 0.5), (1.0, -0.5)))
    assert bits(train(loaded, X, y)) == bits(train(model, X, y))
    predictor = model.predictor()
    predictor.save(tmp_path / "predictor.safetensors")
    for other in (predictor, nnx.Predictor.load(tmp_path / "predictor.safetensors")):
        assert other(X).tobytes() == model.predict(X).tobytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("n_inputs", 0), ("n_inputs", 1 << 40), ("columns", [[3], [0]]), ("columns", [[0, 2]]), ("columns", 3)),
        *(("factors", [[1, 2]]), ("factors", [[1, 2], [1]]), ("factors", [[1, None], [1, 2]])),
        ("factors", [[1, 10**350], [1, 2]]),
    ],
)
def test_a_tampered_model_is_refused(name, value, tmp_path):
    model = model_of()
    path = str(tmp_path / "model.safetensors")
    model.save(path)
    description, arrays = safetensors.read("test", path)
    description.pop("crc32", None)
    description["layers"][1]["config"][name] = value
    safetensors.write("test", path, description, arrays)
    with pytest.raises(nnx.ModelFileError, match=r"^Model.load: .*(is damaged|cannot be read).*[^\n]*$"):
        nnx.Model.load(path)


TAMPERED = {
    "a column that is not there": {"columns": [0, 9, 0, 2]},
    "columns in another order": {"columns": [2, 0, 0, 2]},
    "offsets that begin later": {"offsets": [1, 2, 4]},
    "offsets beyond the factors": {"offsets": [0, 2, 5]},
    "offsets that go back": {"offsets": [0, -2, 4]},
    "a combination of nothing": {"offsets": [0, 0, 4]},
    "no offsets": {"offsets": []},
    "factors that are no numbers": {"factors": [1, np.nan, 1, 1]},
    "fewer factors": {"factors": [1, 1, 1]},
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_predictor_is_refused(change, tmp_path):
    path = str(tmp_path / "predictor.safetensors")
    model_of().predictor().save(path)
    description, arrays = safetensors.read("test", path)
    description.pop("crc32", None)
    for name, value in change.items():
        arrays[f"parts.1.{name}"] = np.array(value, arrays[f"parts.1.{name}"].dtype)
    safetensors.write("test", path, description, arrays)
    with pytest.raises(nnx.ModelFileError, match=r"^Predictor.load: .* is damaged: [^\n]*$"):
        nnx.Predictor.load(path)


@pytest.mark.parametrize(
    ("columns", "offsets", "n_factors"),
    [([3], [0, 1], 1), ([-1], [0, 1], 1), ([0], [0, 2], 1), ([0], [1, 1], 1), ([0, 1], [0, 0, 2], 2), ([0], [], 1)],
)
def test_compiled_kernels_refuse_what_would_lead_out_of_arrays(compiled, columns, offsets, n_factors):
    columns, offsets = (np.array(values, np.int32) for values in (columns, offsets))
    factors, small, large = np.ones(n_factors, np.float32), np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)
    with pytest.raises(ValueError, match=r"^combinations_forward: (columns|offsets) must "):
        _kernels.backend.combinations_forward(small, columns, offsets, factors, large)
    with pytest.raises(ValueError, match=r"^combinations_backward: (columns|offsets) must "):
        _kernels.backend.combinations_backward(large, columns, offsets, factors, small)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, [[0]], [[1]]), "n_inputs must be a whole number from 1 to"),
        ((3, 1, [[1]]), "columns must be a list, got 1"),
        ((3, [[]], [[]]), r"columns\[0\] must name at least one column, got none"),
        ((3, [[2, 1]], [[1, 1]]), r"columns\[0\] must be in increasing order, each once, got \[2, 1\]"),
        ((3, [[0], [3]], [[1], [1]]), r"columns\[1\]\[0\] must be a whole number from 0 to 2, got 3"),
        ((3, [[0]], [[1, 2]]), "factors must be a list for each combination, with one number for each column"),
        ((3, [[0]], []), "factors must be a list for each combination, with one number for each column"),
        ((3, [[0]], [[np.nan]]), r"factors\[0\]\[0\] must be a finite number, got nan"),
        ((3, [[0]], [[1e39]]), "factors must be numbers that float32 can hold"),
        ((3, [[0, 1]] * 10_001, [[1, 1]] * 10_001), "factors must be at most 20,000 together, got 20,002"),
        ((3, [[0]], [[1]], "float16"), "dtype must be"),
    ],
)
def test_what_it_is_given_is_checked(arguments, sentence):
    with pytest.raises((TypeError, ValueError), match=rf"^Layer_Combinations: {sentence}[^\n]*\.$"):
        nnx.Layer_Combinations(*arguments)


def test_nothing_is_combined_if_nothing_is_named():
    with pytest.raises(ValueError, match=r"^Layer_Combinations: columns must "):
        nnx.Layer_Combinations(3, [], [])
