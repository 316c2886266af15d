"""Plans of models with norms, embeddings and residuals: against the book path, on threads, and in predictions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from plans import Book, assert_alike, bits, left_behind

import nnx
from nnx import _kernels
from nnx.engine import plan, program
from nnx.layers import walk

pytestmark = pytest.mark.usefixtures("compiled")

each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
TOLERANCE = {"float32": 2e-4, "float64": 1e-10}
COLUMNS, CATEGORIES = (1, 4, 6), (5, 3, 40)


def embedded(kind=nnx.Model, dtype="float64", optimizer=None, width=3):
    """Return a model whose samples have four columns of numbers and three of categories."""
    np.random.seed(0)
    return finalized(
        kind,
        [
            nnx.Layer_Embedding(7, COLUMNS, CATEGORIES, width, dtype=dtype, weight_initializer="he_normal"),
            nnx.Layer_Dense(4 + 3 * width, 17, dtype=dtype, weight_initializer="he_normal"),
            nnx.Activation_ReLU(),
            nnx.Layer_Dense(17, 1, dtype=dtype),
        ],
        optimizer,
    )


def normed(kind=nnx.Model, dtype="float64", optimizer=None, widths=(6, 33, 20)):
    """Return a model with batch norms after dense layers, as is usual."""
    np.random.seed(0)
    layers = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [
            nnx.Layer_Dense(n_in, n_out, dtype=dtype, weight_initializer="he_normal"),
            nnx.Layer_BatchNorm(n_out, dtype=dtype),
            nnx.Activation_ReLU(),
        ]
    return finalized(kind, [*layers, nnx.Layer_Dense(widths[-1], 1, dtype=dtype)], optimizer)


def finalized(kind, layers, optimizer=None):
    model = kind()
    for layer in layers:
        model.add(layer)
    model.set(loss=nnx.Loss_Huber(), optimizer=optimizer or nnx.Optimizer_SGD(0.05), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    return model


def samples(n=70, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 7))
    for column, count in zip(COLUMNS, CATEGORIES, strict=True):
        X[:, column] = rng.integers(0, count, n)
    return X, np.sin(X[:, 0]) + 0.1 * X[:, 4]


def train(model, X, y, **arguments):
    model.train(X, y, **{"epochs": 3, "batch_size": 16, "shuffle": True, "seed": 2, "print_every": None, **arguments})
    return left_behind(model)


# Embeddings


@each_dtype
@pytest.mark.parametrize("rule", [nnx.Optimizer_SGD, nnx.Optimizer_AdamW, nnx.Optimizer_Lion])
@pytest.mark.parametrize("width", [1, 3, 16, 21])
def test_embeddings_train_as_on_the_book_path(planned, dtype, rule, width):
    X, y = samples()
    found, expected = (
        train(embedded(kind, dtype, rule(1e-2, clip_norm=0.5, average=0.9), width), X, y) for kind in (nnx.Model, Book)
    )
    assert planned == [True, False]
    assert_alike(found, expected, TOLERANCE[dtype])


def test_embeddings_in_turn_are_one_plan():
    np.random.seed(0)
    X, y = samples()

    def build(kind):
        np.random.seed(0)
        layers = [
            nnx.Layer_Embedding(7, (4, 6), (3, 40), 2, dtype="float64"),
            nnx.Layer_Embedding(9, (1,), 5, 4, dtype="float64"),
            nnx.Layer_Dense(12, 1, dtype="float64"),
        ]
        return finalized(kind, layers)

    model = build(nnx.Model)
    assert "as a plan" in model.explain()
    assert_alike(train(model, X, y), train(build(Book), X, y), 1e-10)
    np.testing.assert_allclose(model.predict(X), model.forward(X, training=False), rtol=1e-12)
    X[2, 1] = 5
    with pytest.raises(ValueError, match=r"column 1, got 5 in row 2"):
        model.predict(X)


@pytest.mark.parametrize("wrong", [-1, 0.5, 40, np.nan, 1e30])
@pytest.mark.parametrize("use", ["train", "evaluate", "predict", "predictor"])
def test_what_is_no_category_is_refused_before_anything_changes(wrong, use):
    X, y = samples()
    model = embedded(dtype="float32")
    model.predict(X)  # this makes the data that the next call uses
    predictor = model.predictor()
    before = [array.copy() for layer in model.trainable_layers for array in layer.get_parameters()]
    X[60, 6] = wrong
    X32 = X.astype(np.float32)
    call = {
        "train": lambda: model.train(X32, y, epochs=2, batch_size=16, check_finite=False),
        "evaluate": lambda: model.evaluate(X, y, silent=True),
        "predict": lambda: model.predict(X32),
        "predictor": lambda: predictor(X32),
    }[use]
    with pytest.raises(ValueError, match=r"column 6.* in row 60"):
        call()
    for array, kept in zip(
        (a for layer in model.trainable_layers for a in layer.get_parameters()), before, strict=True
    ):
        np.testing.assert_array_equal(array, kept)


def test_categories_that_a_layer_has_lost_are_refused_at_once():
    X, _ = samples()
    X = X.astype("float32")
    model = embedded(dtype="float32")
    model.predict(X)
    layer = model.layers[0]
    layer.categories, layer.weights = (5, 3, 20), layer.weights[:28].copy()
    with pytest.raises(ValueError, match=r"from 0 to 19 in column 6"):
        model.predict(X)
    X[:, 6] %= 20
    np.testing.assert_allclose(model.predict(X), model.forward(X, training=False), rtol=1e-5)


def test_samples_that_another_thread_changes_meanwhile_stay_within_the_weights():
    """The numbers are checked once. After that, kernels may find anything there."""
    X, y = samples()
    X = X.astype("float32")
    model = embedded(dtype="float32")

    job_plan = plan.Run
    original = job_plan.go_on

    def go_on(self, report):
        self.data.X[:, 6] = np.array([np.nan, -np.inf, 1e38, -7, 39.5] * 14, "float32")
        original(self, report)

    job_plan.go_on = go_on
    try:
        model.train(X, y, epochs=1, print_every=None, on_nonfinite="ignore", check_finite=False)
    finally:
        job_plan.go_on = original
    assert np.isfinite(model.layers[0].weights).all()


def test_a_number_between_the_last_row_and_what_rounding_makes_of_it_stays_within_the_weights():
    """2²⁵ − 1 is not a float32. Rounded, it is 2²⁵."""
    weights = np.zeros((1 << 25, 1), "float32")  # only the last of its pages is touched
    weights[-1] = 7
    inputs, output = np.array([[2.0**25], [np.inf], [2.0**25 - 2]], "float32"), np.empty((3, 1), "float32")
    _kernels.backend.embedding_forward(inputs, np.zeros(1, np.int32), weights, output)
    assert output.ravel().tolist() == [7, 7, 0]


@pytest.mark.parametrize("kind", ["big-endian", "apart", "backwards"])
def test_a_predictor_takes_places_of_any_layout(kind):
    X, _ = samples()
    predictor = embedded(dtype="float32").predictor()
    make, (parts, precision, categories, *rest) = predictor.__reduce__()
    places = parts[0][1][1]
    made = {
        "big-endian": places.astype(">i4"),
        "apart": places.repeat(2)[::2],
        "backwards": places[::-1].copy()[::-1],
    }[kind]
    parts = ((parts[0][0], (parts[0][1][0], made), *parts[0][2:]), *parts[1:])
    np.testing.assert_array_equal(make(parts, precision, categories, *rest)(X), predictor(X))
    native = _kernels.backend.Predictor(predictor.dtype, parts, _kernels, False, np.array(categories, np.int32))
    np.testing.assert_array_equal(native.predict(X.astype("float32")), predictor(X))


# Batch normalization


@each_dtype
@pytest.mark.parametrize("n", [1, 2, 17, 70])
def test_batch_norms_train_as_on_the_book_path(planned, dtype, n):
    X, y = samples(n)
    found, expected = (train(normed(kind, dtype), X[:, :6], y) for kind in (nnx.Model, Book))
    assert planned == [True, False]
    # The gradient of a bias before a batch norm is 0, up to rounding.
    for left in (found, expected):
        for name in [name for name in left if name in ("layers[0].dbiases", "layers[3].dbiases")]:
            assert np.abs(left.pop(name)).max() < TOLERANCE[dtype]
    assert_alike(found, expected, 20 * TOLERANCE[dtype])


@pytest.mark.few
@each_dtype
@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch, dtype, clip_norm):
    monkeypatch.setattr(plan, "LEAST_STEP", 0)
    monkeypatch.setattr(plan, "LEAST_CALL", 0)
    X, y = samples(150)
    kinds = [
        lambda: normed(dtype=dtype, optimizer=nnx.Optimizer_Adam(0.01, clip_norm=clip_norm), widths=(7, 33, 20, 65)),
        lambda: embedded(dtype=dtype, optimizer=nnx.Optimizer_Adam(0.01, clip_norm=clip_norm)),
    ]
    for build in kinds:
        alone = bits(train(build(), X, y, batch_size=64, threads=1))
        for threads in (2, 3, 4):
            assert bits(train(build(), X, y, batch_size=64, threads=threads)) == alone


def test_a_frozen_batch_norm_keeps_its_parameters_and_follows_the_data():
    X, y = samples()
    left = []
    for kind in (nnx.Model, Book):
        model = normed(kind)
        model.trainable_layers = [layer for layer in model.trainable_layers if type(layer) is nnx.Layer_Dense]
        left.append(train(model, X[:, :6], y))
        assert (model.layers[1].weights == 1).all()
        assert (model.layers[1].running_mean != 0).all()
    for found in left:
        found.pop("layers[0].dbiases"), found.pop("layers[3].dbiases")
    assert_alike(*left, 1e-9)


@pytest.mark.parametrize("trained", [(0,), (1,), (3,), (4,), (6,), (4, 6), (0, 6), ()])
def test_gradients_go_back_as_far_as_anything_is_trained(trained):
    X, y = samples()
    left = []
    for kind in (nnx.Model, Book):
        model = normed(kind)
        model.trainable_layers = [model.layers[number] for number in trained]
        left.append(train(model, X[:, :6], y))
        left[-1].pop("layers[0].dbiases"), left[-1].pop("layers[3].dbiases")
    assert_alike(*left, 1e-9)


def test_a_diverging_step_leaves_the_running_figures_as_they_were():
    X, y = samples()
    for kind in (nnx.Model, Book):
        model = normed(kind, "float32", nnx.Optimizer_SGD(1e30))
        model.train(X[:16, :6], y[:16], print_every=None, on_nonfinite="ignore")
        before = model.layers[4].running_mean.copy()
        with pytest.raises(nnx.DivergenceError):
            model.train(X[:16, :6], y[:16], epochs=9, print_every=None)
        np.testing.assert_array_equal(model.layers[4].running_mean, before)


@each_dtype
@pytest.mark.parametrize("widths", [(6, 64, 33), (3, 64, 2, 40), (6, 1), (6, 130, 300)])
@pytest.mark.parametrize("n", [1, 3, 9, 200])
def test_a_folded_batch_norm_predicts_as_two_layers_do(dtype, widths, n):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, widths[0])), rng.normal(size=200)
    model = normed(dtype=dtype, widths=widths, optimizer=nnx.Optimizer_Adam(0.01, average=0.9))
    model.train(X, y, epochs=5, batch_size=50, print_every=None)
    expected = model.forward(X[:n], training=False)
    found = model.predict(X[:n])
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * np.abs(expected).max())
    np.testing.assert_array_equal(found, model.predictor()(X[:n]))
    np.testing.assert_array_equal(found[:1], model.predict(X[:1]))  # a row does not depend on the others
    figures = model.evaluate(X, y, silent=True)
    assert figures["loss"] == pytest.approx(Book.evaluate(model, X, y, silent=True)["loss"])


def test_a_predictor_keeps_the_running_figures_it_was_made_with():
    X, y = samples()
    X = X[:, :6]
    model = normed(dtype="float32")
    model.train(X, y, print_every=None)
    predictor = model.predictor()
    before = predictor(X)
    model.train(X, y, epochs=3, print_every=None)
    np.testing.assert_array_equal(predictor(X), before)
    assert (model.predict(X) != before).any()


@pytest.mark.parametrize("name", ["running_mean", "running_variance", "weights", "biases"])
@pytest.mark.parametrize("kind", ["transposed", "float64", "big-endian"])
def test_arrays_of_another_layout_are_cast_at_their_next_use(name, kind):
    X, y = samples()
    X = X[:, :6]
    left = []
    for model in (normed(dtype="float32"), normed(dtype="float32")):
        values = getattr(model.layers[1], name)
        if left or model is None:
            new = {
                "transposed": np.asarray(np.repeat(values, 2, axis=1)[:, ::2]),
                "float64": values.astype(np.float64),
                "big-endian": values.astype(">f4"),
            }[kind]
            setattr(model.layers[1], name, new)
        left.append((model.predict(X), bits(train(model, X, y))))
    np.testing.assert_array_equal(left[0][0], left[1][0])
    assert left[0][1] == left[1][1]


@pytest.mark.parametrize("name", ["running_mean", "running_variance", "weights"])
def test_arrays_of_another_shape_are_refused(name):
    X, y = samples()
    model = normed()
    setattr(model.layers[1], name, np.ones((1, 5), np.float64))
    for call in (lambda: model.train(X[:, :6], y), lambda: model.predict(X[:, :6])):
        with pytest.raises(ValueError, match=rf"{name} must have shape \(1, 33\)"):
            call()


def test_arrays_that_share_memory_take_the_book_path():
    model = normed()
    model.layers[1].running_mean = model.layers[1].biases
    assert "share memory" in model.explain()


# Checkpoints


@pytest.mark.parametrize("build", [normed, embedded])
def test_a_resumed_run_has_the_bytes_of_one_that_was_not_interrupted(tmp_path, build):
    X, y = samples()
    X = X[:, : 6 if build is normed else 7]
    path = tmp_path / "checkpoint"
    arguments = {"batch_size": 16, "shuffle": True, "seed": 2, "print_every": None}
    whole = build(optimizer=nnx.Optimizer_Adam(0.01))
    whole.train(X, y, epochs=6, **arguments)
    first = build(optimizer=nnx.Optimizer_Adam(0.01))
    first.train(X, y, epochs=2, checkpoint=path, **arguments)
    again = build(optimizer=nnx.Optimizer_Adam(0.01))
    again.train(X, y, epochs=6, resume=path, **arguments)
    found, expected = bits(left_behind(again)), bits(left_behind(whole))
    found = {name: value for name, value in found.items() if "generator" not in name}
    assert found == {name: expected[name] for name in found}


# Programs


def test_a_program_shows_residuals_as_two_stages():
    model = finalized(
        nnx.Model,
        [
            nnx.Layer_Dense(2, 4),
            nnx.Layer_Residual([nnx.Layer_Dense(4, 4), nnx.Activation_Tanh()]),
            nnx.Layer_Dense(4, 1),
        ],
    )
    shown = str(program.lower(model))
    assert "layers[1].layers[0].weights" in shown
    assert "join_forward: layers[1].layers[1].output, layers[1].inputs -> layers[1].output" in shown
    assert "fork_backward: layers[1].layers[0].dinputs, layers[1].dvalues -> layers[1].dinputs" in shown
    assert len(list(walk(model.layers))) == 5
