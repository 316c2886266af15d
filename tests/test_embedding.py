"""Layer_Embedding: the vectors of its columns, gradients, and invalid categories."""

from __future__ import annotations

import numpy as np
import pytest
from differences import assert_gradient

import nnx
from nnx import _kernels


def layer_of(**settings):
    """Return an embedding of columns 1 (three categories) and 3 (two) of four, two numbers for each category."""
    layer = nnx.Layer_Embedding(4, [1, 3], [3, 2], 2, **settings)
    layer.weights[:] = np.arange(10.0).reshape(5, 2) + 1
    return layer


X = [[0.5, 2, -1, 0], [0.25, 0, 7, 1]]


# Values


def test_known_answers(dtype):
    layer = layer_of()
    layer.forward(X)
    np.testing.assert_array_equal(layer.output, [[0.5, -1, 5, 6, 7, 8], [0.25, 7, 1, 2, 9, 10]])
    assert layer.output.dtype == dtype
    layer.backward([[1, 2, 3, 4, 5, 6], [10, 20, 30, 40, 50, 60]])
    np.testing.assert_array_equal(layer.dweights, [[30, 40], [0, 0], [3, 4], [5, 6], [50, 60]])
    np.testing.assert_array_equal(layer.dinputs, [[1, 0, 2, 0], [10, 0, 20, 0]])


def test_all_columns_may_be_categories():
    layer = nnx.Layer_Embedding(2, (0, 1), 2, 1)
    layer.set_parameters([[1], [2], [3], [4]])
    layer.forward([[0, 0], [1, 1], [1, 0]])
    np.testing.assert_array_equal(layer.output, [[1, 3], [2, 4], [2, 3]])
    layer.backward(layer.output)
    np.testing.assert_array_equal(layer.dweights, [[1], [4], [6], [4]])
    np.testing.assert_array_equal(layer.dinputs, np.full((3, 2), 0.0))


@pytest.mark.parametrize("rows", [0, 1, 3, 64, 1000])
@pytest.mark.parametrize(
    ("n_inputs", "columns", "categories", "width"),
    [
        (1, [0], 1, 1),
        (5, [0, 2, 4], [2, 7, 3], 4),
        (9, [8], 300, 17),
        (33, [3, 30], [5, 1], 1),
        (4, [0, 1, 2, 3], 9, 3),
    ],
)
def test_values_and_gradients_are_the_definition(dtype, rng, rows, n_inputs, columns, categories, width):
    layer = nnx.Layer_Embedding(n_inputs, columns, categories, width, weight_initializer="he_normal")
    counts = [categories] * len(columns) if isinstance(categories, int) else categories
    values = rng.standard_normal((rows, n_inputs)).astype(dtype)
    for column, count in zip(columns, counts, strict=True):
        values[:, column] = rng.integers(0, count, rows)
    layer.forward(values)
    numbers = [column for column in range(n_inputs) if column not in columns]
    begins = np.concatenate([[0], np.cumsum(counts)])[:-1]
    vectors = [
        layer.weights[begin + values[:, column].astype(int)] for begin, column in zip(begins, columns, strict=True)
    ]
    np.testing.assert_array_equal(layer.output, np.concatenate([values[:, numbers], *vectors], axis=1))

    dvalues = rng.standard_normal(layer.output.shape).astype(dtype)
    layer.backward(dvalues)
    expected = np.full(layer.weights.shape, 0, dtype)
    for i in range(rows):  # one sample after the other, in the dtype
        for place, (begin, column) in enumerate(zip(begins, columns, strict=True)):
            first = len(numbers) + place * width
            expected[begin + int(values[i, column])] += dvalues[i, first : first + width]
    np.testing.assert_array_equal(layer.dweights, expected)
    dinputs = np.full(values.shape, 0, dtype)
    dinputs[:, numbers] = dvalues[:, : len(numbers)]
    np.testing.assert_array_equal(layer.dinputs, dinputs)


@pytest.mark.usefixtures("float64")
def test_gradients_match_central_differences(rng):
    layer = layer_of()
    values = np.array(X * 3, np.float64)
    direction = rng.standard_normal((6, 6))

    def objective():
        layer.forward(values)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    dweights, dinputs = layer.dweights, layer.dinputs
    assert_gradient(dweights, objective, layer.weights)
    numbers = values[:, [0, 2]].copy()

    def by_numbers():
        values[:, [0, 2]] = numbers
        return objective()

    assert_gradient(dinputs[:, [0, 2]], by_numbers, numbers)


@pytest.mark.usefixtures("float64")
def test_a_model_with_an_embedding_has_the_gradient_of_its_loss(rng):
    model = nnx.Model()
    embedding = nnx.Layer_Embedding(3, [1], 4, 3, weight_initializer="he_normal")
    for layer in (
        *(embedding, nnx.Layer_BatchNorm(5), nnx.Layer_Dense(5, 4, weight_initializer="he_normal")),
        *(nnx.Activation_Tanh(), nnx.Layer_Dense(4, 1, weight_initializer="he_normal"), nnx.Activation_Linear()),
    ):
        model.add(layer)
    model.set(loss=nnx.Loss_MeanSquaredError())
    model.finalize()
    values, y = rng.standard_normal((12, 3)), rng.standard_normal((12, 1))
    values[:, 1] = rng.integers(0, 3, 12)  # nothing of the last category

    def objective():
        return float(model.loss.calculate(model.forward(values, training=True), y))

    model.backward(model.forward(values, training=True), y)
    dweights = embedding.dweights
    assert_gradient(dweights, objective, embedding.weights)
    np.testing.assert_array_equal(dweights[3], [0, 0, 0])


def test_numbers_may_be_anything(dtype):
    layer = layer_of()
    layer.forward([[np.nan, 2, np.inf, -0.0]])
    np.testing.assert_array_equal(layer.output, [[np.nan, np.inf, 5, 6, 7, 8]])


def test_initial_vectors_are_drawn_as_weights_are():
    np.random.seed(1)
    first = nnx.Layer_Embedding(4, [1, 3], [3, 2], 2).weights
    np.random.seed(1)
    np.testing.assert_array_equal(first, (0.01 * np.random.randn(5, 2)).astype(np.float32))
    layer = nnx.Layer_Embedding(4, [1, 3], [3, 2], 2, weight_initializer=lambda shape: np.full(shape, 3.0))
    np.testing.assert_array_equal(layer.weights, np.full((5, 2), 3.0))
    assert layer.weight_initializer is None
    assert nnx.Layer_Embedding(2, [1], 3, 2, weight_initializer=0.5).weights[0, 0] == 0.5


def test_averages_are_what_predictions_use():
    layer = layer_of()
    layer.weight_averages = np.full((5, 2), 9.0, np.float32)
    layer.forward(X, training=False)
    np.testing.assert_array_equal(layer.output[:, 2:], np.full((2, 4), 9.0))
    layer.forward(X, training=True)
    assert layer.output[0, 2] == 5


def test_what_is_assigned_counts_from_then_on():
    layer = layer_of()
    layer.forward(X)
    layer.columns, layer.categories = [0, 2], (2, 3)
    layer.forward([[1, 0.5, 2, 0.25]])
    np.testing.assert_array_equal(layer.output, [[0.5, 0.25, 3, 4, 9, 10]])
    layer.width = 3
    with pytest.raises(ValueError, match=r"^Layer_Embedding.forward: weights must have shape \(5, 3\), got \(5, 2\)"):
        layer.forward(X)


# Invalid categories


@pytest.mark.parametrize(
    ("value", "column", "shown"),
    [
        (3, 1, "3"),
        (-1, 1, "-1"),
        (2, 3, "2"),
        (0.5, 3, "0.5"),
        (np.nan, 1, "nan"),
        (np.inf, 3, "inf"),
        (-np.inf, 1, "-inf"),
        (1e20, 1, "1e+20"),
    ],
)
def test_categories_that_are_none_are_named(dtype, value, column, shown):
    layer = layer_of()
    layer.forward(X)
    output = layer.output
    wrong = np.array(X * 2, dtype)
    wrong[2, column] = value
    last = 2 if column == 1 else 1
    expected = (
        rf"^Layer_Embedding.forward: column {column} must hold categories from 0 to {last}, got {shown} in row 2\.$"
    )
    with pytest.raises(ValueError, match=expected.replace("+", r"\+")):
        layer.forward(wrong)
    assert layer.output is output


def test_the_first_of_several_is_named():
    wrong = np.array([[0, 0, 0, 0], [0, 0, 0, 5], [0, 9, 0, 0]], np.float32)
    with pytest.raises(ValueError, match="column 3 must hold categories from 0 to 1, got 5 in row 1"):
        layer_of().forward(wrong)


def test_inputs_that_change_before_backward_are_found():
    layer, values = layer_of(), np.array(X, np.float32)
    layer.forward(values)
    values[1, 1] = 1e9
    with pytest.raises(ValueError, match=r"^Layer_Embedding.backward: column 1 must hold categories from 0 to 2, got"):
        layer.backward(np.ones((2, 6)))
    assert not hasattr(layer, "dweights")


def test_misfit_counts_row_by_row(dtype):
    places, counts = np.array([-1, 0, -1, 3], np.int32), np.array([0, 3, 0, 2], np.int32)
    values = np.array(X * 20, dtype)
    misfit = _kernels.backend.embedding_misfit
    assert misfit(values, places, counts) == -1
    assert misfit(values[:0], places, counts) == -1
    values[17, 3], values[30, 1] = 2, -1
    assert misfit(values, places, counts) == 17 * 4 + 3
    values[17, 1] = np.nan
    assert misfit(values, places, counts) == 17 * 4 + 1


def model_of(*embeddings):
    model = nnx.Model()
    for layer in (*embeddings, nnx.Layer_Dense(6, 1), nnx.Activation_Linear()):
        model.add(layer)
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    return model


def test_a_model_looks_at_all_categories_before_it_begins():
    model = model_of(layer_of())
    good, y = np.array(X * 3, np.float32), np.ones(6, np.float32)
    wrong = good.copy()
    wrong[5, 3] = 2
    weights = model.layers[0].weights.copy()
    sentence = r"must hold categories from 0 to 1 in column 3, got 2 in row 5\.$"
    with pytest.raises(ValueError, match=rf"^Model.train: X {sentence}"):
        model.train(wrong, y, batch_size=1, print_every=None)
    with pytest.raises(ValueError, match=rf"^Model.train: validation_data\[0\] {sentence}"):
        model.train(good, y, batch_size=1, print_every=None, validation_data=(wrong, y))
    with pytest.raises(ValueError, match=rf"^Model.evaluate: X_val {sentence}"):
        model.evaluate(wrong, y, silent=True)
    with pytest.raises(ValueError, match=rf"^Model.predict: X {sentence}"):
        model.predict(wrong, batch_size=2)
    np.testing.assert_array_equal(model.layers[0].weights, weights)
    assert model.optimizer.iterations == 0
    model.train(good, y, print_every=None)
    assert (model.layers[0].weights != weights).any()


def test_embeddings_may_follow_each_other():
    """The second one takes its categories from the numeric columns that the first one passes on."""
    first = nnx.Layer_Embedding(4, [1], 3, 2)  # columns 0, 2, 3, then two of a vector
    second = nnx.Layer_Embedding(5, [2], 2, 2)  # columns 0, 2, the vector, then two of another one
    first.weights[:], second.weights[:] = np.arange(6.0).reshape(3, 2), [[10, 20], [30, 40]]
    model = model_of(first, second)
    values = np.array(X, np.float32)
    model.forward(values, training=False)
    np.testing.assert_array_equal(second.output, [[0.5, -1, 4, 5, 10, 20], [0.25, 7, 0, 1, 30, 40]])
    values[1, 3] = 2
    with pytest.raises(ValueError, match=r"X must hold categories from 0 to 1 in column 3, got 2 in row 1"):
        model.predict(values)


def test_an_embedding_after_other_layers_is_refused():
    model = nnx.Model()
    for layer in (nnx.Activation_ReLU(), layer_of()):
        model.add(layer)
    expected = (
        r"^Model.finalize: layer 1 must come before all layers that compute, because its inputs are " "categories, got"
    )
    with pytest.raises(ValueError, match=expected):
        model.finalize()


def test_categories_among_vectors_are_refused():
    first = nnx.Layer_Embedding(4, [1], 3, 2)
    for columns, sentence in (([0, 3], "columns 0 to 2, because the columns after them are vectors"), ([2], None)):
        model = nnx.Model()
        for layer in (first, nnx.Layer_Embedding(5, columns, 3, 2)):
            model.add(layer)
        if sentence is None:
            model.finalize()
            continue
        with pytest.raises(ValueError, match=rf"^Model.finalize: layer 1 must take its categories from {sentence}"):
            model.finalize()
    model = nnx.Model()
    for layer in (nnx.Layer_Embedding(1, [0], 3, 2), nnx.Layer_Embedding(2, [0], 3, 2)):
        model.add(layer)
    with pytest.raises(
        ValueError, match=r"^Model.finalize: layer 1 must have columns of numbers before it, got Layer_"
    ):
        model.finalize()


def test_three_embeddings_take_their_categories_from_the_inputs():
    model = nnx.Model()
    for layer in (
        *(
            nnx.Layer_Embedding(5, [1], 2, 3),
            nnx.Layer_Embedding(7, [1, 3], [3, 4], 1),
            nnx.Layer_Embedding(7, [1], 5, 2),
        ),
    ):
        model.add(layer)
    model.finalize()
    good = np.array([[0.5, 1, 2, 4, 3]] * 4, np.float32)  # numbers are columns 0 and, as the last category, 3
    assert model.predict(good).shape == (4, 8)
    for column, count in ((1, 2), (2, 3), (4, 4), (3, 5)):
        wrong = good.copy()
        wrong[2, column] = count
        sentence = (
            rf"^Model.predict: X must hold categories from 0 to {count - 1} in column {column}, got {count} in row 2"
        )
        with pytest.raises(ValueError, match=sentence):
            model.predict(wrong)


class Own:
    """A layer of a class of one's own."""

    def forward(self, inputs, training=True):
        self.output = inputs

    def backward(self, dvalues):
        self.dinputs = dvalues


def test_layers_of_ones_own_may_come_before():
    model = model_of(Own(), layer_of())
    assert model.predict(np.array(X, np.float32)).shape == (2, 1)


def test_another_number_of_columns_is_refused():
    model = nnx.Model()
    for layer in (layer_of(), nnx.Layer_Dense(5, 1)):
        model.add(layer)
    with pytest.raises(ValueError, match=r"^Model.finalize: layer 1 must take the 6 outputs of what is before it"):
        model.finalize()
    with pytest.raises(ValueError, match=r"^Model.predict: X must have shape \(n, 4\), got \(1, 3\)"):
        model_of(layer_of()).predict([[1, 2, 3]])


# Bad arguments


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, [0], 2, 2), "n_inputs must be a whole number from 1 to 2147483647, got 0"),
        ((4, [], 2, 2), "columns must name at least one column, got none"),
        ((4, [1, 1], 2, 2), r"columns must be in increasing order, each once, got \[1, 1\]"),
        ((4, [3, 1], 2, 2), r"columns must be in increasing order, each once, got \[3, 1\]"),
        ((4, [4], 2, 2), r"columns\[0\] must be a whole number from 0 to 3, got 4"),
        ((4, [-1], 2, 2), r"columns\[0\] must be a whole number from 0 to 3, got -1"),
        ((4, [1], 0, 2), "categories must be a whole number from 1 to 16777216, got 0"),
        ((4, [1], 2**24 + 1, 2), "categories must be a whole number from 1 to 16777216, got 16777217"),
        ((4, [1, 2], [3], 2), "categories must be one number for each of 2 columns, got 1"),
        ((4, [1, 2], [3, 0], 2), r"categories\[1\] must be a whole number from 1 to 16777216, got 0"),
        ((4, [1], 3, 0), "width must be a whole number from 1 to 2147483647, got 0"),
        ((200, range(200), 2**24, 1), "categories must be at most 2,147,483,647 together, got 3,355,443,200"),
        ((4, [1], 3, 2, "float16"), "dtype must be"),
        ((4, [1], 3, 2, None, "some"), "weight_initializer must be one of"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=rf"^Layer_Embedding: {sentence}"):
        nnx.Layer_Embedding(*arguments)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((4, 1, 2, 2), "columns must be a list of whole numbers, got 1"),
        ((4, "12", 2, 2), "columns must be a list of whole numbers, got '12'"),
        ((4, [1.5], 2, 2), r"columns\[0\] must be a whole number, got 1.5"),
        ((4, [True], 2, 2), r"columns\[0\] must be a whole number, got True"),
        ((4, [1], 2.5, 2), "categories must be a whole number, got 2.5"),
        ((4, [1], "2", 2), "categories must be a list of whole numbers, got '2'"),
        ((4, [1], 2, 2.0), "width must be a whole number, got 2.0"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments, sentence):
    with pytest.raises(TypeError, match=rf"^Layer_Embedding: {sentence}"):
        nnx.Layer_Embedding(*arguments)


def test_sequences_of_numpy_become_tuples():
    layer = nnx.Layer_Embedding(4, np.array([1, 3]), np.array([3, 2]), 2)
    assert (layer.columns, layer.categories) == ((1, 3), (3, 2))
    assert repr(layer) == "Layer_Embedding(4, [1, 3], [3, 2], 2)"
    assert nnx.Layer_Embedding(4, np.array([1]), np.array(3), 2).categories == 3


@pytest.mark.parametrize("make", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "AMSGrad", "Lion"])
def test_every_optimizer_updates_it(make):
    model = model_of(layer_of())
    model.set(optimizer=getattr(nnx, f"Optimizer_{make}")(0.01, clip_value=0.5, average=0.5))
    before = model.layers[0].weights.copy()
    model.train(X, [1, 2], epochs=3, print_every=None)
    assert (model.layers[0].weights[[0, 2, 3, 4]] != before[[0, 2, 3, 4]]).all()
    assert model.layers[0].weight_averages.shape == (5, 2)
    assert not hasattr(model.layers[0], "bias_averages")
