"""Layer_Residual, and models with layers that hold layers."""

from __future__ import annotations

import numpy as np
import pytest
from differences import assert_gradient

import nnx
from nnx.layers import walk


def block(width=4, hidden=8, dtype=None):
    """Return a residual of two dense layers."""
    return nnx.Layer_Residual(
        [
            nnx.Layer_Dense(width, hidden, dtype=dtype, weight_initializer="he_normal"),
            nnx.Activation_Tanh(),
            nnx.Layer_Dense(hidden, width, dtype=dtype, weight_initializer="he_normal"),
        ]
    )


def nested(width=4):
    """Return a residual within another, with layers of all kinds."""
    inner = nnx.Layer_Residual(
        [nnx.Layer_BatchNorm(width), nnx.Layer_Dense(width, width, weight_initializer="he_normal")]
    )
    return nnx.Layer_Residual(
        [
            *(nnx.Layer_LayerNorm(width), inner, nnx.Activation_Tanh(), nnx.Layer_Scale(width, 0.3)),
            *(nnx.Layer_Dropout(0.2, seed=3), nnx.Layer_GaussianNoise(0.1, seed=3)),
        ]
    )


def model_of(*layers, kind=nnx.Model):
    model = kind()
    for layer in layers:
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(0.01), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    return model


def classifier(kind=nnx.Model):
    return model_of(
        nnx.Layer_Dense(2, 4, weight_initializer="he_normal"),
        nested(),
        nnx.Layer_Dense(4, 3),
        nnx.Activation_Softmax(),
        kind=kind,
    )


# The layer


def test_known_answers():
    layer = nnx.Layer_Residual([nnx.Layer_Scale(2, 3.0), nnx.Activation_ReLU()])
    layer.forward([[1, -2], [0, 4]])
    np.testing.assert_array_equal(layer.output, [[4, -2], [0, 16]])
    np.testing.assert_array_equal(layer.inputs, [[1, -2], [0, 4]])
    layer.backward([[10, 20], [30, 40]])
    np.testing.assert_array_equal(layer.dinputs, [[40, 20], [30, 160]])
    np.testing.assert_array_equal(layer.layers[0].dweights, [[10, 160]])


def test_layers_within_see_what_they_would_see_alone(dtype, rng):
    layer, X = block(), rng.standard_normal((7, 4)).astype(dtype)
    values = X
    layer.forward(X)
    for each in layer.layers:
        np.testing.assert_array_equal(each.inputs, values)
        values = each.output
    np.testing.assert_array_equal(layer.output, X + values)
    assert layer.output.dtype == dtype
    assert layer.inputs is X


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [block, nested])
def test_gradients_match_central_differences(rng, make):
    layer = make()
    X, direction = rng.standard_normal((2, 7, 4))

    def objective():
        for each in walk([layer]):
            if hasattr(each, "training_forwards"):
                each.training_forwards = 0
        layer.forward(X)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    dinputs = layer.dinputs
    found = [
        (getattr(each, f"d{name}"), getattr(each, name))
        for each in walk([layer])
        if hasattr(each, "weights")
        for name in each._parameters
    ]
    assert len(found) == (4 if make is block else 7)
    assert_gradient(dinputs, objective, X)
    for given, values in found:
        assert_gradient(given, objective, values)


@pytest.mark.usefixtures("float64")
def test_a_model_with_residuals_has_the_gradient_of_its_loss(rng):
    model = classifier()
    X, y = rng.standard_normal((9, 2)), rng.integers(0, 3, 9)

    def objective():
        for each in walk(model.layers):
            if hasattr(each, "training_forwards"):
                each.training_forwards = 0
        return float(model.loss.calculate(model.forward(X, training=True), y))

    objective()
    model.backward(model.output_layer_activation.output, y)
    found = [(getattr(e, f"d{name}"), getattr(e, name)) for e in model.trainable_layers for name in e._parameters]
    for given, values in found:
        assert_gradient(given, objective, values)


def test_training_is_handed_on():
    layer = nnx.Layer_Residual([nnx.Layer_Dropout(0.5, seed=1)])
    layer.forward(np.ones((4, 4)), training=False)
    np.testing.assert_array_equal(layer.output, np.full((4, 4), 2.0))
    layer.forward(np.ones((4, 4)), training=True)
    assert sorted(set(layer.output.ravel().tolist())) == [1, 3]


def test_no_rows_give_no_rows():
    layer = nested()
    layer.forward(np.empty((0, 4), np.float32))
    layer.backward(np.empty((0, 4), np.float32))
    assert layer.output.shape == layer.dinputs.shape == (0, 4)


def test_layers_without_parameters_take_any_shape():
    layer = nnx.Layer_Residual([nnx.Activation_ReLU()])
    for shape in ((5,), (2, 3, 4), (3, 7)):
        layer.forward(np.ones(shape))
        assert layer.output.shape == shape


def test_inputs_get_the_dtype_of_the_layers():
    layer = block(dtype="float64")
    layer.forward(np.ones((2, 4), np.float32))
    assert layer.output.dtype == np.float64


def test_infinities_do_not_warn():
    layer = nnx.Layer_Residual([nnx.Layer_Scale(2, -1.0)])
    layer.forward([[np.inf, 3e38]])
    assert np.isnan(layer.output[0, 0])


# What it refuses


@pytest.mark.parametrize(
    ("layers", "error", "sentence"),
    [
        (3, TypeError, "layers must be a list of layers, got 3"),
        ("ab", TypeError, "layers must be a list of layers, got 'ab'"),
        ([], ValueError, "layers must hold at least one layer, got none"),
        ([3], TypeError, "layer must have the methods forward, backward, got 3"),
        ([nnx.Activation_ReLU], TypeError, r"layer must be an object, got a class. Write Activation_ReLU\(...\)"),
        ([nnx.Layer_Dense(4, 8)], ValueError, "layers must give as many columns as they take, got 8 out of 4"),
        (
            [nnx.Activation_ReLU(), nnx.Layer_Dense(4, 8), nnx.Layer_BatchNorm(8)],
            ValueError,
            "layers must give as many columns as they take, got 8 out of 4",
        ),
        (
            [nnx.Layer_Dense(4, 8), nnx.Layer_BatchNorm(4)],
            ValueError,
            r"layer 1 must normalize the 8 outputs of what is before it, got Layer_BatchNorm\(4\)",
        ),
        (
            [nnx.Layer_Dense(4, 8), nnx.Layer_Residual([nnx.Layer_Scale(4)]), nnx.Layer_Dense(8, 4)],
            ValueError,
            r"layer 0 in layer 1 must have a factor for each of the 8 outputs of what is before it",
        ),
        ([nnx.Layer_Embedding(2, [0], 3, 1)], ValueError, "layers must not hold an embedding, whose inputs are"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, error, sentence):
    with pytest.raises(error, match=rf"^Layer_Residual: {sentence}"):
        nnx.Layer_Residual(layers)


def test_a_layer_that_is_there_twice_is_refused():
    relu = nnx.Activation_ReLU()
    expected = r"layers must be different objects, got Activation_ReLU\(\) as layers"
    with pytest.raises(ValueError, match=rf"^Layer_Residual: {expected} 0 and 1\. Make one"):
        nnx.Layer_Residual([relu, relu])
    with pytest.raises(ValueError, match=rf"^Layer_Residual: {expected} 0 in layer 0 and 1\. Make one"):
        nnx.Layer_Residual([nnx.Layer_Residual([relu]), relu])
    model = nnx.Model()
    model.add(nnx.Layer_Residual([relu]))
    for again in (relu, nnx.Layer_Residual([relu])):
        with pytest.raises(ValueError, match=r"^Model.add: layer must be new to this model, got its Activation_ReLU"):
            model.add(again)
    model.layers.append(relu)
    with pytest.raises(ValueError, match=rf"^Model.finalize: {expected} 0 in layer 0 and 1\. Make one"):
        model.finalize()


def test_residuals_are_at_most_eight_deep():
    layer = nnx.Activation_ReLU()
    for _ in range(8):
        layer = nnx.Layer_Residual([layer])
    layer.forward(np.ones((2, 3)))
    np.testing.assert_array_equal(layer.output, np.full((2, 3), 9.0))
    with pytest.raises(ValueError, match=r"^Layer_Residual: layers must hold at most 7 residuals within each other"):
        nnx.Layer_Residual([layer])


def test_its_layers_cannot_be_assigned():
    layer = block()
    assert isinstance(layer.layers, tuple)
    with pytest.raises(AttributeError):
        layer.layers = ()


class Wide:
    """A custom layer that returns more columns and does not tell it."""

    def forward(self, inputs, training=True):
        self.output = np.concatenate([inputs, inputs], axis=1)

    def backward(self, dvalues):
        self.dinputs = dvalues


def test_widths_that_no_layer_told_of_are_found_in_use():
    layer = nnx.Layer_Residual([Wide()])
    expected = r"^Layer_Residual.forward: what the layers give must have shape \(2, 3\), got \(2, 6\)"
    with pytest.raises(ValueError, match=expected):
        layer.forward(np.ones((2, 3)))
    assert not hasattr(layer, "output")


def test_a_model_looks_at_widths_again():
    layer = block()
    layer.layers[2].weights = np.ones((8, 5), np.float32)
    model = nnx.Model()
    model.add(layer)
    expected = r"^Model.finalize: layer 0 must hold layers that give as many columns as they take, got 5 out of 4"
    with pytest.raises(ValueError, match=expected):
        model.finalize()
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 3), block()):
        model.add(layer)
    expected = r"^Model.finalize: layer 0 in layer 1 must take the 3 outputs of what is before it, got Layer_Dense\(4"
    with pytest.raises(ValueError, match=expected):
        model.finalize()


def test_another_dtype_within_is_refused():
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 4), block(dtype="float64")):
        model.add(layer)
    with pytest.raises(ValueError, match=r"^Model.finalize: all dense layers must have one dtype, got float32 and"):
        model.finalize()


def test_layers_are_counted_within_residuals_too():
    model = nnx.Model()
    model.layers = [nnx.Layer_Residual([nnx.Activation_ReLU() for _ in range(2500)]) for _ in range(4)]
    with pytest.raises(ValueError, match=r"^Model.finalize: layers must be at most 10,000, got 10,004"):
        model.finalize()


# The model


def test_the_walk_goes_through_all_layers():
    outer = nested()
    first, last = nnx.Layer_Dense(2, 4), nnx.Activation_ReLU()
    inner = outer.layers[1]
    found = list(walk([first, outer, last]))
    expected = [first, outer, outer.layers[0], inner, *inner.layers, *outer.layers[2:], last]
    assert len(found) == len(expected) == 11
    assert all(a is b for a, b in zip(found, expected, strict=True))


def test_neighbours_are_connected_within_residuals():
    first, layer, last = nnx.Layer_Dense(2, 4), block(), nnx.Layer_Dense(4, 3)
    model = model_of(first, layer, last, nnx.Activation_Softmax())
    one, two, three = layer.layers
    assert (layer.prev, layer.next, first.next, last.prev) == (first, last, layer, layer)
    assert (one.prev, one.next, two.prev, two.next) == (first, two, one, three)
    assert (three.prev, three.next) == (two, layer)
    assert model.input_layer.next is first
    alone = model_of(block(), nnx.Layer_Dense(4, 3), nnx.Activation_Softmax())
    assert alone.layers[0].layers[0].prev is alone.input_layer is alone.layers[0].prev
    assert alone.input_layer.next is alone.layers[0]


def test_parameters_are_got_and_set_in_the_order_of_the_walk():
    model, other = classifier(), classifier()
    assert [type(layer).__name__.removeprefix("Layer_") for layer in model.trainable_layers] == [
        *("Dense", "LayerNorm", "BatchNorm", "Dense", "Scale", "Dense")
    ]
    parameters = model.get_parameters()
    assert [len(group) for group in parameters] == [2, 2, 2, 2, 1, 2]
    other.set_parameters(parameters)
    X = np.ones((3, 2), np.float32)
    assert other.predict(X).tobytes() == model.predict(X).tobytes()
    before = other.get_parameters()
    with pytest.raises(ValueError, match=r"^Model.set_parameters: parameters must be weights alone for Layer_Scale"):
        other.set_parameters([*parameters[:4], parameters[3], parameters[5]])
    with pytest.raises(ValueError, match=r"^Model.set_parameters: weights must have shape \(1, 4\), got \(1, 5\)"):
        other.set_parameters([parameters[0], (np.ones((1, 5)), np.ones((1, 4))), *parameters[2:]])
    assert all(a is b for x, y in zip(other.get_parameters(), before, strict=True) for a, b in zip(x, y, strict=True))


def test_layers_within_are_trained_and_can_be_frozen(rng):
    X, y = rng.standard_normal((60, 2)), rng.integers(0, 3, 60)
    model = classifier()
    frozen = model.trainable_layers.pop(3)
    before = [
        array.copy() for layer in walk(model.layers) if hasattr(layer, "weights") for array in layer.get_parameters()
    ]
    kept = frozen.weights.copy()
    model.train(X, y, epochs=3, batch_size=16, print_every=None)
    after = [array for layer in walk(model.layers) if hasattr(layer, "weights") for array in layer.get_parameters()]
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same.count(True) == 2
    np.testing.assert_array_equal(frozen.weights, kept)


def test_a_model_of_residuals_learns():
    X, y = nnx.spiral_data(60, 3)
    np.random.seed(0)
    model = model_of(
        *(nnx.Layer_Dense(2, 32, weight_initializer="he_normal"), nnx.Activation_ReLU()),
        *(block(32, 32), nnx.Layer_BatchNorm(32), block(32, 32), nnx.Layer_Dense(32, 3), nnx.Activation_Softmax()),
    )
    model.train(X, y, epochs=300, print_every=None)
    assert model.evaluate(X, y, silent=True)["accuracy"] > 0.9


def test_penalties_within_count():
    layer = nnx.Layer_Residual([nnx.Layer_Dense(2, 2, weight_regularizer_l2=0.5, weight_initializer=1.0)])
    model = model_of(layer, nnx.Activation_Softmax())
    assert model.loss.regularization_loss() == 2.0


def test_the_summary_shows_layers_within(capsys):
    classifier().summary()
    lines = capsys.readouterr().out.splitlines()
    shown = [line[: lines[0].index("output")].rstrip() for line in lines[1:]]
    assert shown == [
        "Layer_Dense(2, 4, weight_initializer='he_normal')",
        "Layer_Residual",
        "  Layer_LayerNorm(4)",
        "  Layer_Residual",
        "    Layer_BatchNorm(4)",
        "    Layer_Dense(4, 4, weight_initializer='he_normal')",
        "  Activation_Tanh()",
        "  Layer_Scale(4, scale=0.3)",
        "  Layer_Dropout(0.2, seed=3)",
        "  Layer_GaussianNoise(0.1, seed=3)",
        "Layer_Dense(4, 3)",
        "Activation_Softmax()",
        "total",
    ]
    assert lines[-1].split()[1] == str(12 + 8 + 8 + 20 + 4 + 15)
    assert all("(n, 4)" in line for line in lines[1:11])


def test_a_model_knows_its_output_width():
    assert model_of(block(), nnx.Activation_Softmax()).output_width() == 4
    assert model_of(Wide(), nnx.Activation_Softmax()).output_width() is None


def test_averages_within_are_what_predictions_use(rng):
    X, y = rng.standard_normal((60, 2)), rng.integers(0, 3, 60)
    model = classifier()
    model.set(optimizer=nnx.Optimizer_Adam(0.05, average=0.99))
    model.train(X, y, epochs=5, print_every=None)
    output = model.predict(X)
    for layer in model.trainable_layers:
        layer.set_parameters(*layer.get_parameters())
    assert np.abs(model.predict(X) - output).max() > 1e-4


def test_pictures_of_weights_are_those_of_the_first_dense_layer():
    pytest.importorskip("matplotlib").use("Agg")
    model = model_of(nnx.Layer_BatchNorm(4), block(), nnx.Layer_Dense(4, 3), nnx.Activation_Softmax())
    assert nnx.plot.weights(model).get_title().startswith("the 8 neurons of the first layer")
