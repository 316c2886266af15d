"""Ensembles within one network: values, gradients, plans, predictions, files, and arguments that do not fit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from differences import assert_gradient
from plans import Book, assert_alike, bits, left_behind

import nnx
from nnx.engine import plan
from nnx.files import safetensors
from nnx.member_layers import mean_of_members

# The layers


def layer_of(kind, n_inputs, k):
    layer = kind(n_inputs, 2, k) if kind is nnx.Layer_MemberDense else kind(n_inputs, k)
    for values in layer.get_parameters():
        values[:] = np.random.default_rng(0).normal(size=values.shape)
    return layer


LAYERS = [nnx.Layer_Members, nnx.Layer_MemberScale, nnx.Layer_MemberDense]
each_kind = pytest.mark.parametrize("kind", LAYERS)


@each_kind
@pytest.mark.parametrize("k", [1, 3])
def test_each_row_is_its_members(kind, k, dtype, rng):
    layer = layer_of(kind, 4, k)
    values = rng.normal(size=(5 if kind is nnx.Layer_Members else 5 * k, 4)).astype(dtype)
    layer.forward(values)
    assert layer.output.dtype == dtype
    assert len(layer.output) == 5 * k
    for row, made in enumerate(layer.output):
        m, x = row % k, values[row // k if kind is nnx.Layer_Members else row]
        if kind is nnx.Layer_MemberDense:
            expected = x @ layer.weights[4 * m : 4 * m + 4] + layer.biases[m]
        else:
            expected = x * layer.weights[m] + (layer.biases[m] if kind is nnx.Layer_MemberScale else 0)
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


@each_kind
@pytest.mark.usefixtures("float64")
def test_gradients_match_central_differences(kind, rng):
    layer = layer_of(kind, 3, 4)
    values = rng.normal(size=(2 if kind is nnx.Layer_Members else 8, 3))
    layer.forward(values)
    direction = rng.normal(size=layer.output.shape)

    def objective():
        layer.forward(values)
        return float(np.sum(layer.output * direction))

    layer.backward(direction)
    gradients = [layer.dweights, *([layer.dbiases] if hasattr(layer, "dbiases") else [])]
    assert_gradient(layer.dinputs, objective, values)
    for given, parameter in zip(gradients, layer.get_parameters(), strict=True):
        assert_gradient(given, objective, parameter)


@pytest.mark.one_backend
def test_members_begin_with_signs_and_own_heads_and_are_else_alike():
    np.random.seed(4)
    signs = nnx.Layer_Members(50, 32).weights
    assert sorted(np.unique(signs)) == [-1, 1]
    assert abs(signs.mean()) < 0.1
    scale = nnx.Layer_MemberScale(5, 3)
    assert (scale.weights == 1).all()
    assert (scale.biases == 0).all()
    heads = nnx.Layer_MemberDense(30, 20, 8, weight_initializer="he_normal").weights.reshape(8, 30, 20)
    np.testing.assert_allclose(heads.std(axis=(1, 2)), (2 / 30) ** 0.5, rtol=0.15)
    assert len(np.unique(heads[:, 0, 0])) == 8


# In models


def model_of(kind=nnx.Model, k=8, dtype="float64", classes=0, dropout=0.2, width=20, last=None, **optimizer):
    np.random.seed(0)
    model = kind()
    for layer in (
        *(nnx.Layer_Dense(4, 6, dtype=dtype, weight_initializer="he_normal"), nnx.Activation_Mish()),
        *(nnx.Layer_Members(6, k, dtype=dtype), nnx.Layer_Dense(6, width, dtype=dtype, weight_initializer="he_normal")),
        *(nnx.Layer_MemberScale(width, k, dtype=dtype), nnx.Activation_ReLU()),
        *([nnx.Layer_Dropout(dropout, seed=3)] if dropout else []),
        nnx.Layer_Dense(width, width, dtype=dtype, weight_initializer="he_normal"),
        *(nnx.Activation_GELU(), nnx.Layer_MemberScale(width, k, dtype=dtype)),
        nnx.Layer_MemberDense(width, classes or 1, k, dtype=dtype, weight_initializer="he_normal"),
        *([last] if last else [nnx.Activation_Softmax()] if classes else []),
    ):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy() if classes else nnx.Loss_MeanSquaredError(),
        optimizer=nnx.Optimizer_AdamW(0.01, **optimizer),
        accuracy=nnx.Accuracy_Categorical() if classes else nnx.Accuracy_Regression(),
    )
    model.finalize()
    return model


def samples(n=90, classes=0, dtype="float64"):
    X = np.random.default_rng(1).normal(size=(n, 4)).astype(dtype)
    if not classes:
        return X, np.sin(2 * X[:, :1])
    return X, (X[:, 0] * X[:, 1] > 0).astype(np.intp) + (X[:, 2] > 0) * (classes > 2)


def train(model, n=90, classes=0, **arguments):
    options = {"epochs": 3, "batch_size": 40, "shuffle": True, "seed": 2, "print_every": None, **arguments}
    model.train(*samples(n, classes), **options)
    return model


def alone(model, m, n_members):
    """Return a network that is one member of another, with no layer of members."""
    single = nnx.Model()
    for layer in model.layers:
        if isinstance(layer, nnx.Layer_Members):
            own = nnx.Layer_Scale(layer.n_inputs, dtype="float64")
            own.set_parameters(layer.weights[m : m + 1])
        elif isinstance(layer, nnx.Layer_MemberScale):
            own = nnx.Layer_Dense(layer.n_inputs, layer.n_inputs, dtype="float64")
            own.set_parameters(np.diag(layer.weights[m]), layer.biases[m : m + 1])
        elif isinstance(layer, nnx.Layer_MemberDense):
            own = nnx.Layer_Dense(layer.n_inputs, layer.n_neurons, dtype="float64")
            own.set_parameters(layer.weights.reshape(n_members, layer.n_inputs, -1)[m], layer.biases[m : m + 1])
        else:
            own = layer
        single.add(own)
    single.set(loss=model.loss, accuracy=model.accuracy, optimizer=nnx.Optimizer_SGD(0.0))
    single.finalize()
    return single


@pytest.mark.parametrize("classes", [0, 3])
def test_members_are_networks_whose_losses_and_outputs_are_averaged(classes):
    model = train(model_of(k=3, classes=classes, dropout=0), classes=classes)
    X, y = samples(classes=classes)
    singles = [alone(model, m, 3) for m in range(3)]
    outputs = np.array([single.predict(X) for single in singles])
    np.testing.assert_allclose(model.predict(X, members=True), outputs, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.predict(X), outputs.mean(axis=0), rtol=1e-9, atol=1e-12)
    # In training the loss is the mean of the members' losses, which is more than that of their mean.
    losses = [single.evaluate(X, y, silent=True)["loss"] for single in singles]
    model.set(optimizer=nnx.Optimizer_SGD(0.0))
    history = model.train(X, y, epochs=1, batch_size=32, print_every=None)
    np.testing.assert_allclose(history.loss[-1], np.mean(losses), rtol=1e-9)
    assert model.evaluate(X, y, silent=True)["loss"] < np.mean(losses)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(("k", "classes"), [(5, 0), (32, 0), (32, 3)])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_a_plan_does_what_the_layers_do(dtype, k, classes, clip_norm):
    found, expected = (
        train(model_of(kind, k, dtype, classes, clip_norm=clip_norm, average=0.9, width=37), classes=classes)
        for kind in (nnx.Model, Book)
    )
    assert "as a plan" in found.explain()
    assert_alike(left_behind(found), left_behind(expected), 2e-3 if dtype == np.float32 else 1e-9)
    X, y = samples(200, classes, dtype)
    for arguments in ({}, {"members": True}):
        ours, theirs = found.predict(X, **arguments), Book.predict(expected, X, **arguments)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-3 if dtype == np.float32 else 1e-8)
    assert found.predictor()(X).tobytes() == found.predict(X).tobytes()
    each = found.evaluate(X, y, silent=True), expected.evaluate(X, y, silent=True)
    assert each[0]["loss"] == pytest.approx(each[1]["loss"], rel=1e-2 if dtype == np.float32 else 1e-8)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(("k", "n", "batch"), [(4, 90, 40), (16, 200, 100), (7, 400, 400)])
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_bits_do_not_depend_on_threads(monkeypatch, k, n, batch, clip_norm):
    for name in ("LEAST_STEP", "LEAST_CALL"):
        monkeypatch.setattr(plan, name, 0)
    monkeypatch.setattr(plan, "LEAST_ROWS", 1)
    found = [
        bits(left_behind(train(model_of(k=k, clip_norm=clip_norm), n, batch_size=batch, threads=threads)))
        for threads in (1, 2, 3)
    ]
    assert found[1:] == found[:1] * 2


def test_rows_do_not_depend_on_those_beside_them():
    model = train(model_of(k=6, classes=3), classes=3)
    X, _ = samples(300)
    whole, each = model.predict(X), model.predict(X, members=True)
    assert np.concatenate([model.predict(X[:7]), model.predict(X[7:250]), model.predict(X[250:])]).tobytes() == (
        whole.tobytes()
    )
    assert model.predict(X[5:9], members=True).tobytes() == each[:, 5:9].tobytes()
    assert mean_of_members(each.swapaxes(0, 1).reshape(-1, 3), 6).tobytes() == whole.tobytes()
    assert model.predict(X, batch_size=11).tobytes() == whole.tobytes()
    assert model.predict(X[:0]).shape == (0, 3)
    assert model.predict(X[:0], members=True).shape == (6, 0, 3)


def test_weights_count_for_each_member():
    weights = np.random.default_rng(2).integers(0, 3, 90)
    found = train(model_of(dropout=0), batch_size=None, shuffle=False, seed=None, sample_weight=weights)
    X, y = (np.repeat(values, weights, axis=0) for values in samples())
    expected = model_of(dropout=0)
    expected.train(X, y, epochs=3, print_every=None)
    np.testing.assert_allclose(found.history.loss, expected.history.loss, rtol=1e-9)
    np.testing.assert_allclose(found.predict(X), expected.predict(X), rtol=0, atol=1e-7)


def test_figures_are_those_of_the_mean():
    model = train(model_of(classes=3), classes=3, epochs=20)
    X, y = samples(200, 3)
    mean = model.predict(X)
    assert model.evaluate(X, y, silent=True) == pytest.approx(
        {"loss": -np.log(mean[np.arange(200), y]).mean(), "accuracy": (mean.argmax(axis=1) == y).mean()}
    )
    assert model.score(X, y) == (model.predict_classes(X) == y).mean() > 0.6


@pytest.mark.usefixtures("compiled")
def test_held_out_rows_stop_a_run_as_layer_by_layer():
    found = []
    for kind in (nnx.Model, Book):
        model = train(
            model_of(kind, classes=3),
            *(200, 3),
            epochs=30,
            validation_split=0.3,
            callbacks=[nnx.EarlyStopping(patience=3, restore_best=True)],
        )
        found.append((model.history.validation_loss, model.predict(samples()[0])))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-7)


@pytest.mark.usefixtures("compiled")
def test_a_search_goes_the_same_way():
    found = []
    for kind in (nnx.Model, Book):
        model = model_of(kind, k=3, dropout=0)
        model.set(optimizer=nnx.Optimizer_LBFGS())
        found.append(train(model, epochs=8, batch_size=None, shuffle=False, seed=None).history.loss)
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert found[0][-1] < 0.5 * found[0][0]


@pytest.mark.usefixtures("compiled")
def test_with_parts_of_ones_own_it_trains_layer_by_layer():
    class Own(nnx.Activation_Linear):
        def forward(self, inputs, training=True):
            super().forward(inputs, training)

    own, plain = model_of(last=Own()), model_of(last=nnx.Activation_Linear())
    assert own.explain().endswith("is not built in. It trains layer by layer.")
    found, expected = train(own).predict(samples()[0]), train(plain).predict(samples()[0])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.usefixtures("compiled")
def test_matrix_units_multiply_for_members_too():
    if nnx.get_default_dtype() != "float32":
        pytest.skip("products in bfloat16 are for float32")
    model, book = (model_of(kind, k=5, dtype="float32", classes=3, dropout=0) for kind in (nnx.Model, Book))
    found, expected = (train(each, classes=3, precision="bfloat16").history.loss for each in (model, book))
    np.testing.assert_allclose(found, expected, rtol=0.02)
    X, _ = samples(dtype="float32")
    rounded = model.predictor("bfloat16")(X)
    assert 0 < np.abs(rounded - model.predict(X)).max() < 0.2


def test_an_ensemble_may_be_of_such_networks(tmp_path):
    ensemble = nnx.Ensemble.of(lambda _: model_of(k=3), 2, seed=0)
    ensemble.train(*samples(), epochs=2, batch_size=30, seed=1)
    X, _ = samples()
    each = [model.predict(X) for model in ensemble.models]
    np.testing.assert_allclose(ensemble.predict(X), np.mean(each, axis=0), rtol=1e-12)
    ensemble.save(tmp_path / "ensemble.safetensors")
    assert nnx.Ensemble.load(tmp_path / "ensemble.safetensors").predict(X).tobytes() == ensemble.predict(X).tobytes()


# Files


def test_files_and_copies_predict_the_same(tmp_path):
    model, (X, _) = train(model_of(classes=3), classes=3), samples(50)
    model.save(tmp_path / "model.safetensors")
    predictor = model.predictor()
    predictor.save(tmp_path / "predictor.safetensors")
    for copy in (
        *(nnx.Model.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(model))),
        *(nnx.Predictor.load(tmp_path / "predictor.safetensors"), pickle.loads(pickle.dumps(predictor))),
    ):
        found = copy.predict(X) if isinstance(copy, nnx.Model) else copy(X)
        assert found.tobytes() == model.predict(X).tobytes()


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "change",
    [
        {"parts.2.weights": np.ones((7, 6))},
        {"parts.2.weights": np.ones((0, 6))},
        {"parts.2.weights": np.ones((2000, 6))},
        {"parts.4.biases": np.ones((7, 20))},
        {"parts.9.weights": np.ones((8 * 20 + 1, 1))},
        {"parts.9.weights": np.ones((7 * 20, 1)), "parts.9.biases": np.ones((7, 1))},
    ],
)
def test_files_whose_members_are_not_as_many_everywhere_are_refused(tmp_path, change):
    path = tmp_path / "predictor.safetensors"
    model_of(dropout=0, last=nnx.Activation_Linear()).predictor().save(path)
    description, arrays = safetensors.read("test", str(path))
    assert change.keys() < arrays.keys()
    arrays |= change
    description.pop("crc32", None)
    safetensors.write("test", str(path), description, arrays)
    with pytest.raises(nnx.ModelFileError, match=r"^Predictor.load: [^\n]* is damaged[^\n]*$"):
        nnx.Predictor.load(path)


# Bad input


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (
            lambda: [nnx.Layer_MemberScale(2, 3)],
            r"layer 0 must be behind a Layer_Members of as many members, got .*none",
        ),
        (lambda: [nnx.Layer_Members(2, 3), nnx.Layer_MemberScale(2, 4)], r"layer 1 must be .* behind one of 3\."),
        (lambda: [nnx.Layer_Members(2, 3), nnx.Layer_Members(2, 3)], r"layer 1 must be the only Layer_Members, got"),
        (lambda: [nnx.Layer_Dense(3, 2), nnx.Layer_Members(3, 3)], r"layer 1 must take the 2 outputs"),
    ],
)
def test_layers_that_do_not_fit_each_other_are_refused(layers, sentence):
    model = nnx.Model()
    for layer in layers():
        model.add(layer)
    with pytest.raises(ValueError, match=rf"^Model.finalize: {sentence}"):
        model.finalize()


@pytest.mark.one_backend
def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^Layer_Residual: layers must give as many rows as they take, got .*layer 0"):
        nnx.Layer_Residual([nnx.Layer_Members(2, 2)])
    with pytest.raises(
        ValueError, match=r"^Layer_Members: n_members must be a whole number from 1 to 1024, got 1025\."
    ):
        nnx.Layer_Members(2, 1025)
    with pytest.raises(AttributeError):
        nnx.Layer_Members(2, 2).n_members = 3
    with pytest.raises(
        ValueError, match=r"^Layer_MemberScale.forward: inputs must have 3 rows for each sample, .* 4 rows"
    ):
        nnx.Layer_MemberScale(2, 3).forward(np.ones((4, 2)))
    with pytest.raises(TypeError, match=r"^Model.predict: members must be True or False, got 'yes'\."):
        model_of().predict(samples()[0], members="yes")
    model = nnx.Model()
    model.add(nnx.Layer_Dense(4, 1))
    model.finalize()
    with pytest.raises(ValueError, match=r"^Model.predict: members must be False for a model without a Layer_Members"):
        model.predict(samples()[0], members=True)


def test_parameters_of_another_shape_are_refused():
    model = model_of()
    model.layers[2].weights = np.ones((3, 6))
    with pytest.raises(ValueError, match=r"weights must have shape \(8, 6\), got \(3, 6\)"):
        model.predict(samples()[0])
    with pytest.raises(ValueError, match=r"weights must have shape \(8, 6\), got \(3, 6\)"):
        train(model)
