"""Layer_Spline against a dense layer after the explicit encoding of its columns, in every use of a layer."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from differences import assert_gradient
from plans import Book, assert_alike, bits, left_behind

import nnx
from nnx import _kernels
from nnx.engine import plan
from nnx.files import safetensors

EDGES = [[-1.0, -0.25, 0.5], [0.0, 0.125, 1.0, 1.5], [0.0, 2.0]]
COLUMNS = [0, 2, 3]
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def layer_of(degree=1, n_neurons=3, **settings):
    return nnx.Layer_Spline(4, n_neurons, COLUMNS, EDGES, degree, weight_initializer="he_normal", **settings)


def samples(n=70, dtype="float64", seed=1):
    """Return numbers within the edges, on them, outside, and far away."""
    values = np.random.default_rng(seed).normal(size=(n, 4))
    for row, edge in enumerate([-1.0, 0.5, 0.0, 1.5, 2.0, 0.125][:n]):
        values[row] = edge
    if n >= 8:
        values[6:8] = [[1e30], [-1e30]]
    return values.astype(dtype)


def written(values, degree):
    """Return the numbers with the encoding after them, by the definition."""
    pieces = [values]
    for column, edges in zip(COLUMNS, EDGES, strict=True):
        x = values[:, column, None]
        low, high = np.array(edges[:-1]), np.array(edges[1:])
        pieces.append(np.clip((x - low) / (high - low), 0, 1) if degree else x > np.array(edges))
    return np.concatenate(pieces, axis=1, dtype=values.dtype)


@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("rows", [0, 1, 5, 64, 65, 300])
@pytest.mark.parametrize("n_neurons", [1, 3, 16, 64, 93])
def test_it_is_a_dense_layer_behind_the_encoding(dtype, degree, rows, n_neurons):
    layer = layer_of(degree, n_neurons)
    values = np.clip(samples(rows, dtype), -50, 50)
    dense = nnx.Layer_Dense(written(values, degree).shape[1], n_neurons)
    dense.set_parameters(layer.weights, layer.biases)
    dvalues = np.random.default_rng(2).normal(size=(rows, n_neurons)).astype(dtype)
    for each, given in ((layer, values), (dense, written(values, degree))):
        each.forward(given)
        each.backward(dvalues)
    tolerance = TOLERANCE[np.dtype(dtype).name] * 50
    np.testing.assert_allclose(layer.output, dense.output, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(layer.dweights, dense.dweights, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(layer.dbiases, dense.dbiases)
    assert layer.output.dtype == dtype


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("degree", [0, 1])
def test_gradients_match_central_differences(rng, degree):
    layer = layer_of(degree)
    values = rng.uniform(-2, 3, size=(20, 4))
    direction = rng.standard_normal((20, 3))

    def objective():
        layer.forward(values)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    dweights, dbiases, dinputs = layer.dweights, layer.dbiases, layer.dinputs
    assert_gradient(dweights, objective, layer.weights)
    assert_gradient(dbiases, objective, layer.biases)
    assert_gradient(dinputs, objective, values)


def test_what_is_no_number_lies_below_all_edges(dtype):
    layer = nnx.Layer_Spline(2, 1, [1], [[0, 1]])
    layer.set_parameters([[1], [0], [5]], [[0]])
    layer.forward([[1, np.inf], [1, -np.inf], [1, 2]])
    assert np.isnan(layer.output[:2]).all()  # 0 · inf, of the dense part
    assert layer.output[2, 0] == 6
    bins, parts = np.empty((1, 1), np.int32), np.empty((1, 1), dtype)
    places = (np.array([0], np.int32), np.array([0, 1], np.int32), np.array([0, 1], dtype))
    _kernels.backend.spline_places(np.full((1, 1), np.nan, dtype), *places, 1, bins, parts)
    assert (bins[0, 0], parts[0, 0]) == (0, 0)


def test_edges_that_one_float_cannot_tell_apart_are_no_division_by_zero():
    layer = nnx.Layer_Spline(1, 1, [0], [[1, 1 + 1e-12, 2]], dtype="float32")
    layer.set_parameters([[0], [3], [5]], [[0]])
    layer.forward([[0], [1], [1.5], [2]])
    np.testing.assert_array_equal(layer.output[:, 0], [0, 0, 5.5, 8])
    layer.backward([[1]] * 4)
    np.testing.assert_array_equal(layer.dinputs[:, 0], [0, 0, 5, 0])


@pytest.mark.parametrize("edges", [[-3e38, 3e38], [-1e300, 1e300], [0, 1, 1e39]])
def test_edges_that_the_dtype_cannot_hold_are_refused(edges):
    with pytest.raises(ValueError, match=r"^Layer_Spline: edges must be numbers whose differences float32 can hold"):
        nnx.Layer_Spline(1, 1, [0], [edges], dtype="float32")


def test_a_span_that_is_flushed_to_nothing_gives_no_nan():
    layer = nnx.Layer_Spline(1, 1, [0], [[1.2e-38, 1.2001e-38, 1]], dtype="float32")
    layer.set_parameters([[0], [3], [5]], [[0]])
    layer.forward([[1.20005e-38], [1]])
    assert np.isfinite(layer.output).all()


def test_columns_may_be_an_array_when_the_layer_has_run():
    layer = nnx.Layer_Spline(3, 1, [0, 2], [[0, 1], [0, 1]])
    layer.forward([[1, 2, 3]])
    layer.columns = np.array([0, 1])
    layer.forward([[1, 2, 3]])
    assert layer.columns == (0, 1)


def test_many_edges_are_counted_in_its_repr():
    layer = nnx.Layer_Spline(2, 1, [0, 1], [list(range(50)), [0, 1]])
    assert "<52 edges of 2 columns>" in repr(layer)


# In models


def model_of(kind=nnx.Model, degree=1, dtype="float64", first=False, dropout=True, **optimizer):
    np.random.seed(0)
    model = kind()
    before = [] if first else [nnx.Layer_Dense(4, 4, dtype=dtype, weight_initializer="he_normal")]
    for layer in (
        *before,
        nnx.Layer_Spline(4, 21, COLUMNS, EDGES, degree, dtype=dtype, weight_initializer="he_normal"),
        *(nnx.Activation_SiLU(), *([nnx.Layer_Dropout(0.2, seed=3)] if dropout else [])),
        *(nnx.Layer_Dense(21, 1, dtype=dtype, weight_initializer="he_normal"), nnx.Activation_Linear()),
    ):
        model.add(layer)
    model.set(
        loss=nnx.Loss_MeanSquaredError(),
        optimizer=nnx.Optimizer_AdamW(0.01, **optimizer),
        accuracy=nnx.Accuracy_Regression(),
    )
    model.finalize()
    return model


def train(model, threads=1, **arguments):
    values = np.clip(samples(90), -50, 50)
    options = {"epochs": 3, "batch_size": 40, "shuffle": True, "seed": 2, "print_every": None, **arguments}
    model.train(values, np.sin(3 * values[:, :1]), threads=threads, **options)
    return model


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_a_plan_does_what_the_layers_do(dtype, first, degree, clip_norm):
    found, expected = (
        train(model_of(kind, degree, dtype, first, clip_norm=clip_norm, average=0.9)) for kind in (nnx.Model, Book)
    )
    if clip_norm is None:
        for layer, other in zip(found.trainable_layers, expected.trainable_layers, strict=True):
            for array, its in zip(layer.get_parameters(), other.get_parameters(), strict=True):
                np.testing.assert_array_equal(array, its)
    assert_alike(left_behind(found), left_behind(expected), 2e-4 if dtype == np.float32 else 1e-10)
    values = samples(200, dtype)
    np.testing.assert_allclose(found.predict(values), found.forward(values, training=False), rtol=1e-6, atol=1e-30)
    assert found.predictor()(values).tobytes() == found.predict(values).tobytes()


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("degree", [0, 1])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_bits_do_not_depend_on_threads(monkeypatch, degree, clip_norm):
    for name in ("LEAST_STEP", "LEAST_CALL"):
        monkeypatch.setattr(plan, name, 0)
    monkeypatch.setattr(plan, "LEAST_ROWS", 1)
    found = [
        bits(left_behind(train(model_of(degree=degree, clip_norm=clip_norm), threads))) for threads in (1, 2, 3, 10)
    ]
    assert found[1:] == found[:1] * 3


@pytest.mark.usefixtures("compiled")
def test_it_trains_as_a_plan():
    assert "as a plan" in model_of().explain()


def test_files_and_copies_predict_the_same(tmp_path):
    model = train(model_of(dtype="float32"))
    values = samples(50, "float32")
    model.save(tmp_path / "model.safetensors")
    loaded = nnx.Model.load(tmp_path / "model.safetensors")
    assert loaded.predict(values).tobytes() == model.predict(values).tobytes()
    assert loaded.layers[1].edges == tuple(map(tuple, EDGES))


@pytest.mark.parametrize("kind", [nnx.Layer_Spline, nnx.Layer_PiecewiseLinear, nnx.Layer_Thermometer])
def test_a_file_holds_more_edges_than_a_description_has_values(tmp_path, kind):
    edges = [np.sort(np.random.default_rng(column).normal(size=40_000)).tolist() for column in range(4)]
    layer = kind(5, *([1] if kind is nnx.Layer_Spline else []), [0, 1, 2, 4], edges, dtype="float64")
    model = nnx.Model()
    for each in (layer, nnx.Layer_Dense(layer._widths()[1], 1, dtype="float64")):
        model.add(each)
    model.finalize()
    model.save(tmp_path / "model.safetensors")
    loaded = nnx.Model.load(tmp_path / "model.safetensors")
    assert loaded.layers[0].edges == tuple(map(tuple, edges))
    assert tuple(loaded.layers[0].columns) == (0, 1, 2, 4)
    values = np.random.default_rng(9).normal(size=(20, 5))
    assert loaded.predict(values).tobytes() == model.predict(values).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"edges": "AAAA"},
        {"edges": "no base64!"},
        {"edges": ""},
        {"edges": base64.b64encode(np.array([0.0, 1, 2]).tobytes()).decode()},
        {"edges": base64.b64encode(np.array([0.0, np.inf]).tobytes()).decode()},
        {"edges": base64.b64encode(np.array([np.nan, 1, np.inf] * 3).tobytes()).decode()},
        {"columns": [0, 2, 3]},
        {"columns": "AAAAA"},
        {"columns": base64.b64encode(np.array([0, 2, 9], np.int32).tobytes()).decode()},
    ],
)
def test_texts_that_are_no_edges_are_refused(tmp_path, change):
    path = tmp_path / "model.safetensors"
    model_of(first=True).save(path)
    description, arrays = safetensors.read("test", str(path))
    description["layers"][0]["config"].update(change)
    description.pop("crc32", None)
    safetensors.write("test", str(path), description, arrays)
    with pytest.raises(nnx.ModelFileError, match=r"^Model.load: [^\n]* is damaged[^\n]*$"):
        nnx.Model.load(path)


def test_edges_may_be_assigned(dtype):
    model = model_of(dtype=dtype, first=True)
    values = samples(20, dtype)
    before = model.predict(values)
    train(model)
    layer = model.layers[0]
    layer.edges = [[-5, -4, -3], *EDGES[1:]]
    np.testing.assert_allclose(model.predict(values), model.forward(values, training=False), rtol=1e-6, atol=1e-30)
    assert (model.predict(values) != before).any()
    layer.columns, layer.edges = [0, 1], [[0.0, 1, 2, 3], [0.0, 1, 2, 3]]  # as many weights, of fewer columns
    train(model)
    np.testing.assert_allclose(model.predict(values), model.forward(values, training=False), rtol=1e-6, atol=1e-30)
    layer.edges = [[0.0, 1], *EDGES[1:]]
    with pytest.raises(ValueError, match="edges must be one list for each of 2 columns, got 3"):
        model.predict(values)


def test_averages_are_what_predictions_use():
    model = train(model_of(average=0.99))
    layer = model.layers[1]
    assert layer.weight_averages.shape == layer.weights.shape
    layer.weights[:] = 0
    assert np.ptp(model.predict(samples(20))) > 0


@pytest.mark.usefixtures("compiled")
def test_it_is_part_of_a_segment_and_of_a_search():
    class Own(nnx.Activation_Linear):
        def forward(self, inputs, training=True):
            super().forward(inputs, training)

    plain, own = model_of(), model_of()
    own.layers[-1] = own.output_layer_activation = Own()
    own.finalize()
    assert "as a plan" not in own.explain()
    for layer, other in zip(train(plain).trainable_layers, train(own).trainable_layers, strict=True):
        assert layer.weights.tobytes() == other.weights.tobytes()
    found = []
    for kind in (nnx.Model, Book):
        model = model_of(kind, dropout=False)
        model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_LBFGS(), accuracy=nnx.Accuracy_Regression())
        model.finalize()
        found.append(train(model, epochs=8, batch_size=None, shuffle=False, seed=None).history.loss)
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert found[0][-1] < 0.5 * found[0][0]


# Bad input


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((4, 2, [], []), r"columns must name at least one column, got none\."),
        ((4, 2, [1, 1], [[0, 1], [0, 1]]), r"columns must be in increasing order, each once, got \[1, 1\]\."),
        ((4, 2, [4], [[0, 1]]), r"columns\[0\] must be a whole number from 0 to 3, got 4\."),
        ((4, 2, [0], [[0, 1], [1, 2]]), "edges must be one list for each of 1 columns, got 2."),
        ((4, 2, [0], [[1]]), r"edges\[0\] must hold 2 numbers at least, got 1\."),
        ((4, 2, [0], [[1, 1]]), r"edges\[0\] must be finite numbers in increasing order, got \[1.0, 1.0\]\."),
        ((4, 2, [0], [[0, np.inf]]), r"edges\[0\]"),
        ((4, 2, [0], [[0, 1]], 2), "degree must be a whole number from 0 to 1, got 2."),
        ((0, 2, [0], [[0, 1]]), "n_inputs must be"),
    ],
)
def test_arguments_that_make_no_layer(arguments, sentence):
    with pytest.raises(ValueError, match=rf"^Layer_Spline: {sentence}"):
        nnx.Layer_Spline(*arguments)


@pytest.mark.parametrize("edges", [0.5, "01", [1], {0: [1]}, [["a", "b"]]])
def test_edges_of_another_kind(edges):
    with pytest.raises(TypeError, match=r"^Layer_Spline: edges"):
        nnx.Layer_Spline(2, 1, [0], edges)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("bad", [-1, 3, 1 << 30])
def test_kernels_read_no_weight_that_is_not_there(bad):
    bins, parts = np.full((2, 1), bad, np.int32), np.full((2, 1), 0.5)
    first = np.array([0, 3], np.int32)
    values, weights, biases = np.ones((2, 1)), np.ones((4, 2)), np.ones((1, 2))
    with pytest.raises(ValueError, match="bins must be those of their columns"):
        _kernels.backend.spline_forward(values, bins, parts, first, 1, weights, biases, np.empty((2, 2)))
    with pytest.raises(ValueError, match="bins must be those of their columns"):
        _kernels.backend.spline_backward_weights(values, bins, parts, np.ones((2, 2)), first, 1, np.empty((4, 2)))
    with pytest.raises(ValueError, match="first must begin with 0 and rise"):
        _kernels.backend.spline_forward(
            values, bins, parts, np.array([0, -3], np.int32), 1, weights, biases, np.empty((2, 2))
        )


@pytest.mark.parametrize("degree", [0, 1])
def test_held_out_rows_are_judged_with_each_epochs_own_weights(degree, dtype, monkeypatch):
    """Also where several epochs are one compiled call."""

    def losses(seconds):
        monkeypatch.setattr(plan, "CALL_SECONDS", seconds)
        np.random.seed(3)
        model = nnx.Model()
        model.add(layer_of(degree, dtype=dtype))
        model.add(nnx.Layer_Dropout(0.2, seed=4))
        model.add(nnx.Layer_Dense(3, 1, dtype=dtype))
        model.set(
            loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_Adam(0.05), accuracy=nnx.Accuracy_Regression()
        )
        model.finalize()
        values = np.clip(samples(90, dtype), -3, 3)
        y = values[:, :1] + values[:, 1:2]
        history = model.train(
            values[:70],
            y[:70],
            epochs=12,
            batch_size=32,
            validation_data=(values[70:], y[70:]),
            print_every=None,
            callbacks=[nnx.EarlyStopping(patience=20)],
        )
        return history.validation_loss

    together = losses(10.0)
    one_by_one = losses(0.0)
    np.testing.assert_array_equal(together, one_by_one)
