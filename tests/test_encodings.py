"""Layer_PiecewiseLinear and Layer_Thermometer: values, gradients, plans, files, and arguments that do not fit."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
from differences import assert_gradient
from plans import Book, bits, left_behind

import nnx
from nnx import _kernels
from nnx.engine import plan
from nnx.files import safetensors

KINDS = {"pieces": nnx.Layer_PiecewiseLinear, "thermometer": nnx.Layer_Thermometer}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def edges_of(rng, *counts):
    """Return increasing edges, so many for each column."""
    return [np.sort(rng.normal(size=count)).tolist() for count in counts]


# Values


def test_known_answers_of_pieces(dtype):
    layer = nnx.Layer_PiecewiseLinear(3, [0, 2], [[0, 1, 3], [-2, 2]])
    layer.forward([[-1, 7, -3], [0, 7, -2], [0.5, 7, -1], [1, 7, 2], [2, 7, 3], [3, 7, 0], [9, 7, 1]])
    np.testing.assert_array_equal(
        layer.output,
        [
            [-1, 7, -3, 0, 0, 0],
            [0, 7, -2, 0, 0, 0],
            [0.5, 7, -1, 0.5, 0, 0.25],
            [1, 7, 2, 1, 0, 1],
            [2, 7, 3, 1, 0.5, 1],
            [3, 7, 0, 1, 1, 0.5],
            [9, 7, 1, 1, 1, 0.75],
        ],
    )
    assert layer.output.dtype == dtype
    layer.backward(np.tile(np.array([[1, 10, 100, 2, 3, 8]], dtype), (7, 1)))
    # An edge has the slope of the piece above it, the last one none.
    np.testing.assert_array_equal(
        layer.dinputs,
        [[1, 10, 100], [3, 10, 102], [3, 10, 102], [2.5, 10, 100], [2.5, 10, 100], [1, 10, 102], [1, 10, 102]],
    )


def test_known_answers_of_a_thermometer(dtype):
    layer = nnx.Layer_Thermometer(2, [1], [[-1, 0, 2]])
    layer.forward([[5, -2], [5, -1], [5, 0], [5, 0.5], [5, 2], [5, 3]])
    np.testing.assert_array_equal(
        layer.output,
        [[5, -2, 0, 0, 0], [5, -1, 0, 0, 0], [5, 0, 1, 0, 0], [5, 0.5, 1, 1, 0], [5, 2, 1, 1, 0], [5, 3, 1, 1, 1]],
    )
    assert layer.output.dtype == dtype
    layer.backward(np.full((6, 5), 4, dtype))
    np.testing.assert_array_equal(layer.dinputs, np.full((6, 2), 4, dtype))


@pytest.mark.parametrize("rows", [0, 1, 3, 100])
@pytest.mark.parametrize(
    ("n_inputs", "columns", "counts"),
    [
        (1, [0], [2]),
        (4, [1], [40]),
        (9, [0, 3, 8], [3, 2, 17]),
        (5, [0, 1, 2, 3, 4], [97, 2, 33, 5, 16]),
        (40, range(0, 40, 3), range(2, 16)),
    ],
)
@each_kind
def test_values_and_gradients_are_the_definition(kind, dtype, rng, rows, n_inputs, columns, counts):
    layer = kind(n_inputs, columns, edges_of(rng, *counts))
    values = rng.normal(size=(rows, n_inputs)).astype(dtype)
    for column, edges in zip(layer.columns, layer.edges, strict=True):
        values[::4, column] = edges[-1]  # some are edges
    layer.forward(values)
    found = [values]
    for column, own in zip(layer.columns, layer.edges, strict=True):
        edges, x = np.array(own, dtype), values[:, column, None]
        if kind is nnx.Layer_Thermometer:
            found.append((x > edges).astype(dtype))
        else:
            found.append(np.clip((x - edges[:-1]) / (edges[1:] - edges[:-1]), 0, 1))
    np.testing.assert_array_equal(layer.output, np.concatenate(found, axis=1))

    dvalues = rng.normal(size=layer.output.shape).astype(dtype)
    layer.backward(dvalues)
    expected = dvalues[:, :n_inputs].copy()
    at = n_inputs
    for column, own in zip(layer.columns, layer.edges, strict=True):
        edges, x = np.array(own, dtype), values[:, column]
        for low, high in itertools.pairwise(edges) if kind is nnx.Layer_PiecewiseLinear else ():
            inside = (low <= x) & (x < high)
            expected[inside, column] += dvalues[inside, at] / (high - low)
            at += 1
    np.testing.assert_array_equal(layer.dinputs, expected)


@pytest.mark.usefixtures("float64")
@each_kind
def test_gradients_match_central_differences(kind, rng):
    layer = kind(3, [0, 2], [[-1, 0, 0.75], [-0.5, 1.5]])
    values = rng.normal(size=(8, 3))
    direction = rng.normal(size=(8, layer._widths()[1]))

    def objective():
        layer.forward(values)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    assert_gradient(layer.dinputs, objective, values)


def test_numbers_that_are_none_pass_through(dtype):
    values = np.array([[np.nan, 1], [np.inf, 1], [-np.inf, 1]], dtype)
    pieces = nnx.Layer_PiecewiseLinear(2, [0], [range(20)])
    pieces.forward(values)
    np.testing.assert_array_equal(pieces.output[0, 2:], np.full(19, np.nan))
    np.testing.assert_array_equal(pieces.output[1:, 2:], np.repeat([[1.0], [0.0]], 19, axis=1))
    pieces.backward(np.full((3, 21), 1, dtype))
    np.testing.assert_array_equal(pieces.dinputs, np.full((3, 2), 1, dtype))
    thermometer = nnx.Layer_Thermometer(2, [0], [range(20)])
    thermometer.forward(values)
    np.testing.assert_array_equal(thermometer.output[:, 2:], np.repeat([[0.0], [1.0], [0.0]], 20, axis=1))


def test_edges_as_near_as_they_may_be_give_numbers(dtype):
    tiny = float(np.finfo(dtype).tiny)
    layer = nnx.Layer_PiecewiseLinear(1, [0], [[-tiny / 2, 4 * tiny, 8.5 * tiny]])
    layer.forward(np.array([[-tiny / 2], [0], [4 * tiny], [1]], dtype))
    assert np.isfinite(layer.output).all()
    assert ((layer.output[:, 1:] >= 0) & (layer.output[:, 1:] <= 1)).all()
    layer.backward(np.full((4, 3), 1, dtype))


# In a model


def finalized(kind, layers, optimizer=None):
    model = kind()
    for layer in layers:
        model.add(layer)
    model.set(
        loss=nnx.Loss_MeanSquaredError(),
        optimizer=optimizer or nnx.Optimizer_Adam(0.01),
        accuracy=nnx.Accuracy_Regression(),
    )
    model.finalize()
    return model


def model_of(kind=nnx.Model, dtype="float32", before=(), seed=0):
    """Return a model with an embedding, both encodings and dense layers."""
    np.random.seed(seed)
    rng = np.random.default_rng(seed)
    scale = [nnx.Layer_Scale(5, dtype=dtype)] if "scale" in before else []
    return finalized(
        kind,
        [
            nnx.Layer_Embedding(4, [1], 3, 2, dtype=dtype, weight_initializer="he_normal"),
            *scale,
            nnx.Layer_PiecewiseLinear(5, [0, 2, 4], edges_of(rng, 20, 3, 2), dtype=dtype),
            nnx.Layer_Thermometer(27, [1, 20], edges_of(rng, 9, 1), dtype=dtype),
            nnx.Layer_Dense(37, 33, dtype=dtype, weight_initializer="he_normal"),
            nnx.Activation_ReLU(),
            nnx.Layer_Dense(33, 1, dtype=dtype, weight_initializer="he_normal"),
        ],
    )


def samples(n=70, dtype="float32"):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(n, 4)).astype(dtype)
    X[:, 1] = rng.integers(0, 3, n)
    return X, np.sin(3 * X[:, :1]) + X[:, 1:2]


def train(model, X, y, **arguments):
    np.random.seed(3)
    model.train(X, y, **{"epochs": 3, "batch_size": 16, "shuffle": True, "print_every": None, **arguments})
    return left_behind(model)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("before", ["", "scale"])
def test_a_plan_gives_what_layers_give_one_by_one(compiled, dtype, before):
    X, y = samples(dtype=dtype)
    found, book = model_of(nnx.Model, dtype, before), model_of(Book, dtype, before)
    assert "as a plan" in found.explain()
    ours, theirs = train(found, X, y), train(book, X, y)
    assert ours.keys() == theirs.keys()
    tolerance = 1e-3 if dtype == "float32" else 1e-10
    for name, value in theirs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(ours[name], value, rtol=tolerance, atol=tolerance, err_msg=name)
    np.testing.assert_array_equal(ours["layers[1].output"], theirs["layers[1].output"])


def test_bits_do_not_depend_on_threads(compiled, monkeypatch):
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)
    X, y = samples(300)
    left = [bits(train(model_of(), X, y, batch_size=100, threads=threads)) for threads in (1, 2, 3, 5)]
    assert all(each == left[0] for each in left)


def test_segments_run_them(compiled):
    class Own:
        def forward(self, inputs, training=True):
            self.output = np.array(inputs)

        def backward(self, dvalues):
            self.dinputs = dvalues

    X, y = samples()
    left = []
    for kind in (nnx.Model, Book):
        np.random.seed(0)
        layers = [*model_of().layers, Own(), nnx.Layer_Dense(1, 1)]
        model = finalized(kind, layers)
        train(model, X, y)
        left.append([array for layer in model.trainable_layers for array in layer.get_parameters()])
    for found, expected in zip(*left, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_two_dtypes_are_no_plan_and_still_train():
    X, y = samples()
    layers = [nnx.Layer_PiecewiseLinear(4, [0], [[-1, 0, 1]], dtype="float64"), nnx.Layer_Dense(6, 1)]
    model = finalized(nnx.Model, layers)
    if hasattr(_kernels.backend, "Plan"):
        assert "two dtypes" in model.explain()
    train(model, X, y)
    assert model.layers[0].output.dtype == np.float64


def test_another_dtype_is_seen_by_plan_and_prediction():
    X, y = samples()
    model = finalized(nnx.Model, [nnx.Layer_PiecewiseLinear(4, [0], [[-1, 0, 1]]), nnx.Layer_Dense(6, 1)])
    train(model, X, y)
    model.predict(X)
    model.layers[0].dtype = "float64"
    train(model, X, y)
    np.testing.assert_allclose(model.predict(X), model.forward(X, training=False), rtol=1e-5)
    assert model.layers[0].output.dtype == np.float64


@each_kind
def test_they_give_a_line_what_lines_lack(kind, rng):
    """One dense layer behind edges can be steep in one piece and flat in another."""
    x = rng.uniform(-2, 2, size=(400, 1))
    y = np.abs(x) if kind is nnx.Layer_PiecewiseLinear else np.floor(x)
    edges = [[-2, -1, 0, 1, 2]]
    width = 1 + len(edges[0]) - (kind is nnx.Layer_PiecewiseLinear)
    model = finalized(nnx.Model, [kind(1, [0], edges), nnx.Layer_Dense(width, 1)], nnx.Optimizer_Adam(0.05))
    model.train(x, y, epochs=300, print_every=None)
    assert model.score(x, y) > 0.99


def test_widths_are_looked_at():
    with pytest.raises(ValueError, match=r"^Model.finalize: layer 1 must take the 6 outputs of what is before it"):
        finalized(nnx.Model, [nnx.Layer_PiecewiseLinear(4, [0], [[-1, 0, 1]]), nnx.Layer_Dense(5, 1)])
    model = finalized(nnx.Model, [nnx.Layer_Thermometer(4, [0], [[0]]), nnx.Layer_Dense(5, 1)])
    with pytest.raises(ValueError, match=r"^Model.predict: X must have shape \(n, 4\), got \(1, 3\)"):
        model.predict([[1, 2, 3]])


@each_kind
def test_wrong_shapes_are_refused(kind):
    layer = kind(3, [0], [[0, 1]])
    with pytest.raises(ValueError, match=rf"^{kind.__name__}.forward: inputs must have shape \(n, 3\), got \(1, 2\)"):
        layer.forward([[1, 2]])
    with pytest.raises(RuntimeError, match=rf"^{kind.__name__}.backward: {kind.__name__} has no inputs yet"):
        layer.backward([[1, 2, 3, 4]])
    layer.forward([[1, 2, 3]])
    with pytest.raises(ValueError, match=rf"^{kind.__name__}.backward: dvalues must have shape \(1, "):
        layer.backward([[1, 2]])


# Files, copies, predictors


def test_copies_and_files_compute_the_same_bytes(tmp_path):
    X, y = samples()
    model = model_of()
    train(model, X, y)
    expected = model.predict(X).tobytes()
    model.save(tmp_path / "model.safetensors")
    loaded = nnx.Model.load(tmp_path / "model.safetensors")
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.predict(X).tobytes() == expected
        assert other.layers[1].edges == model.layers[1].edges
    assert bits(train(loaded, X, y)) == bits(train(model, X, y))


def test_a_file_holds_thousands_of_edges_exactly(tmp_path, rng):
    edges = edges_of(rng, *[1000] * 30)
    model = finalized(
        nnx.Model,
        [nnx.Layer_PiecewiseLinear(30, range(30), edges, dtype="float64"), nnx.Layer_Dense(30000, 1, dtype="float64")],
    )
    model.save(tmp_path / "model.safetensors")
    found = nnx.Model.load(tmp_path / "model.safetensors").layers[0]
    assert found.edges == tuple(map(tuple, edges))
    assert len(repr(found)) < 300


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
        assert repr(other) == repr(predictor)
    assert "piecewise_linear, thermometer, " in repr(predictor)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_inputs", 0),
        ("n_inputs", 1 << 40),
        ("columns", [3]),
        ("columns", "0"),
        ("columns", [0, 0]),
        ("edges", []),
        ("edges", [[]]),
        ("edges", [[1, 0]]),
        ("edges", [["a", "b"]]),
        ("edges", [[0, 10**350]]),
        ("edges", [[0, None]]),
        ("edges", [[[0], [1]]]),
        ("edges", {"0": [0, 1]}),
        ("edges", [list(range(50_000))] * 3),
        ("dtype", "float16"),
    ],
)
@each_kind
def test_a_tampered_model_is_refused(kind, name, value, tmp_path):
    layer = kind(3, [0], [[0, 1]])
    model = finalized(nnx.Model, [layer, nnx.Layer_Dense(layer._widths()[1], 1)])
    path = str(tmp_path / "model.safetensors")
    model.save(path)
    description, arrays = safetensors.read("test", path)
    description.pop("crc32", None)
    description["layers"][0]["config"][name] = value
    try:
        safetensors.write("test", path, description, arrays)
    except ValueError:
        return  # more than a file may hold
    with pytest.raises(nnx.ModelFileError, match=r"^Model.load: .*(is damaged|names|cannot be read).*[^\n]*$"):
        nnx.Model.load(path)


TAMPERED = {
    "a column that is not there": {"columns": [0, 9]},
    "columns in another order": {"columns": [2, 0]},
    "fewer columns": {"columns": [0]},
    "offsets that begin later": {"offsets": [1, 3, 5]},
    "offsets beyond the edges": {"offsets": [0, 3, 6]},
    "offsets that go back": {"offsets": [0, -3, 5]},
    "a column without edges": {"offsets": [0, 0, 5]},
    "no offsets": {"offsets": []},
    "edges that do not increase": {"edges": [0, 1, 1, 0, 1]},
    "edges that are no numbers": {"edges": [0, 1, np.nan, 0, 1]},
    "fewer edges": {"edges": [0, 1, 2, 0]},
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
@each_kind
def test_a_tampered_predictor_is_refused(kind, change, tmp_path):
    layer = kind(3, [0, 2], [[0, 1, 2], [0, 1]])
    model = finalized(nnx.Model, [layer, nnx.Layer_Dense(layer._widths()[1], 1)])
    path = str(tmp_path / "predictor.safetensors")
    model.predictor().save(path)
    description, arrays = safetensors.read("test", path)
    description.pop("crc32", None)
    for name, value in change.items():
        arrays[f"parts.0.{name}"] = np.array(value, arrays[f"parts.0.{name}"].dtype)
    safetensors.write("test", path, description, arrays)
    with pytest.raises(nnx.ModelFileError, match=r"^Predictor.load: .* is damaged: [^\n]*$"):
        nnx.Predictor.load(path)


# Kernels


@pytest.mark.parametrize(
    ("columns", "offsets", "n_edges"),
    [([3], [0, 3], 3), ([-1], [0, 3], 3), ([0], [0, 4], 3), ([0], [1, 3], 3), ([0, 1], [0, 3, 3], 3), ([0], [0], 0)],
)
@each_kind
def test_compiled_kernels_refuse_what_would_lead_out_of_arrays(compiled, kind, columns, offsets, n_edges):
    columns, offsets = (np.array(values, np.int32) for values in (columns, offsets))
    inputs, output = np.zeros((2, 3), np.float32), np.zeros((2, 6), np.float32)
    forward = getattr(_kernels.backend, f"{kind._kernel}_forward")
    with pytest.raises(ValueError, match=rf"^{kind._kernel}_forward: (columns|offsets) must "):
        forward(inputs, columns, offsets, np.arange(n_edges, dtype=np.float32), output)


@each_kind
def test_kernels_may_write_over_what_they_read(compiled, kind, dtype, rng):
    """Arrays that share memory give the results of arrays that do not."""
    layer = kind(3, [0, 2], edges_of(rng, 12, 3))
    layout, n_out = layer._layout("test"), layer._widths()[1]
    values = rng.normal(size=(5, 3)).astype(dtype)
    layer.forward(values)
    memory = np.zeros(5 * n_out + 40, dtype)
    inputs, output = memory[7:22].reshape(5, 3), memory[: 5 * n_out].reshape(5, n_out)
    inputs[...] = values
    getattr(_kernels.backend, f"{kind._kernel}_forward")(inputs, *layout, output)
    np.testing.assert_array_equal(output, layer.output)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, [0], [[0, 1]]), "n_inputs must be a whole number from 1 to"),
        ((3, [], []), "columns must name at least one column, got none"),
        ((3, [2, 1], [[0, 1]] * 2), r"columns must be in increasing order, each once, got \[2, 1\]"),
        ((3, [3], [[0, 1]]), r"columns\[0\] must be a whole number from 0 to 2, got 3"),
        ((3, [0, 1], [[0, 1]]), "edges must be a list for each of 2 columns, got 1"),
        ((3, [0], [[]]), r"edges\[0\] must hold at least [12] numbers, got 0"),
        (
            (3, [0, 1], [[0, 1], [0, 2, 1]]),
            r"edges\[1\] must be increasing numbers, apart in float32, got 1.0 after 2.0",
        ),
        ((3, [0], [[1, 1]]), r"edges\[0\] must be increasing numbers, apart in float32, got 1.0 after 1.0"),
        (
            (3, [0], [[1, 1 + 1e-9]]),
            r"edges\[0\] must be increasing numbers, apart in float32, got 1.000000001 after 1.0",
        ),
        ((3, [0], [[0, 1e-45]]), r"edges\[0\] must be increasing numbers, apart in float32, got 1e-45 after 0.0"),
        ((3, [0], [[0, np.nan]]), r"edges\[0\]\[1\] must be a finite number, got nan"),
        (
            (3, [0], [[0, 1e39]]),
            r"edges\[0\] must hold numbers whose differences float32 can hold, got \[0.0, 1e\+39\]",
        ),
        ((3, [0], [[-3e38, 3e38]]), r"edges\[0\] must hold numbers whose differences float32 can hold"),
        ((3, [0, 1], [range(300_000)] * 2), "edges must be at most 500,000 together, got 600,000"),
        ((3, [0], [[0, 1]], "float16"), "dtype must be"),
    ],
)
@each_kind
def test_arguments_that_do_not_fit_are_refused(kind, arguments, sentence):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: {sentence}"):
        kind(*arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((3.5, [0], [[0, 1]]), "n_inputs must be a whole number, got 3.5"),
        ((3, 0, [[0, 1]]), "columns must be a list of whole numbers, got 0"),
        ((3, [0], 1), "edges must be a list, got 1"),
        ((3, [0], "01"), "edges must be a list, got '01'"),
        ((3, [0], [1]), r"edges\[0\] must be a list, got 1"),
        ((3, [0], [["a", "b"]]), r"edges\[0\]\[0\] must be a number, got 'a'"),
        ((3, [0], [[True, 2]]), r"edges\[0\]\[0\] must be a number, got True"),
    ],
)
@each_kind
def test_arguments_of_another_kind_are_refused(kind, arguments, sentence):
    with pytest.raises(TypeError, match=rf"^{kind.__name__}: {sentence}"):
        kind(*arguments)


@each_kind
def test_arrays_become_tuples_of_plain_numbers(kind):
    layer = kind(3, np.array([0, 2]), [np.array([0, 0.5], np.float32), np.arange(3)])
    assert (layer.n_inputs, layer.columns, layer.edges) == (3, (0, 2), ((0.0, 0.5), (0.0, 1.0, 2.0)))
    assert {type(edge) for each in layer.edges for edge in each} == {float}
    expected = {"n_inputs": 3, "columns": [0, 2], "edges": [[0.0, 0.5], [0.0, 1.0, 2.0]], "dtype": "float32"}
    assert layer.get_config() == expected
    assert repr(layer) == f"{kind.__name__}(3, [0, 2], [[0.0, 0.5], [0.0, 1.0, 2.0]])"
    assert repr(kind(3, [0], [range(1001)])) == f"{kind.__name__}(3, [0], <1,001 edges of 1 column>)"
    with pytest.raises(AttributeError):
        layer.edges = [[0, 1]]
