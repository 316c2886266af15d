"""Layers and activations: what their attributes hold, and the rules about who owns which array."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import nnx

ACTIVATIONS = [nnx.Activation_ReLU, nnx.Activation_Softmax, nnx.Activation_Sigmoid, nnx.Activation_Linear]


def test_dense_has_the_books_attributes(dtype, rng):
    dense = nnx.Layer_Dense(4, 3)
    assert dense.weights.shape == (4, 3)
    assert dense.biases.shape == (1, 3)
    assert dense.weights.dtype == dense.biases.dtype == dtype
    X = rng.standard_normal((5, 4))
    dense.forward(X)
    assert dense.output.shape == (5, 3)
    assert dense.output.dtype == dtype
    np.testing.assert_array_equal(dense.inputs, X.astype(dtype))
    dense.backward(np.ones((5, 3)))
    assert dense.dweights.shape == (4, 3)
    assert dense.dbiases.shape == (1, 3)
    assert dense.dinputs.shape == (5, 4)


def test_dense_weights_are_a_hundredth_of_randn_and_biases_zero():
    dense = nnx.Layer_Dense(4, 3)
    np.random.seed(0)
    np.testing.assert_array_equal(dense.weights, (0.01 * np.random.randn(4, 3)).astype(np.float32))
    np.testing.assert_array_equal(dense.biases, np.zeros((1, 3)))


def test_dense_looks_randn_up_at_the_call(monkeypatch):
    monkeypatch.setattr(np.random, "randn", lambda *shape: np.full(shape, 7.0))
    np.testing.assert_array_equal(nnx.Layer_Dense(2, 2).weights, np.full((2, 2), 0.07, np.float32))


def test_dtype_can_be_chosen_per_layer():
    assert nnx.Layer_Dense(2, 3, dtype="float64").weights.dtype == np.float64
    assert nnx.Layer_Dense(2, 3, dtype=np.float32).weights.dtype == np.float32


@pytest.mark.parametrize("maker", [lambda: nnx.Layer_Dense(3, 3), *ACTIVATIONS, lambda: nnx.Layer_Dropout(0.5, seed=1)])
def test_both_call_styles_are_accepted(maker):
    X = np.array([[0.5, -1.0, 2.0]])
    for arguments in ((), (True,), (False,)):
        layer = maker()
        layer.forward(X, *arguments)
        assert layer.output.shape == (1, 3)
        layer = maker()
        layer.forward(X, **({"training": arguments[0]} if arguments else {}))
        assert layer.output.shape == (1, 3)


@pytest.mark.parametrize("maker", [lambda: nnx.Layer_Dense(3, 3), *ACTIVATIONS, lambda: nnx.Layer_Dropout(0.5)])
def test_every_forward_and_backward_makes_fresh_arrays(maker, rng):
    layer = maker()
    X, d = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal((4, 3)).astype(np.float32)
    kept = X.copy(), d.copy()
    layer.forward(X)
    layer.backward(d)
    first = {
        name: getattr(layer, name) for name in ("output", "dinputs", "dweights", "dbiases") if hasattr(layer, name)
    }
    values = {name: array.copy() for name, array in first.items()}
    layer.forward(-X)
    layer.backward(-d)
    for name, array in first.items():
        np.testing.assert_array_equal(array, values[name], err_msg=name)
        if not (name == "output" and isinstance(layer, nnx.Activation_Linear)):
            assert not np.shares_memory(array, X), name
            assert not np.shares_memory(array, d), name
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(d, kept[1])


def test_linear_and_input_hand_their_input_on():
    X = np.ones((2, 2), np.float32)
    for layer in (nnx.Activation_Linear(), nnx.Layer_Input()):
        layer.forward(X)
        assert layer.output is X


def test_dropout_without_training_copies_and_passes_gradients_on():
    dropout = nnx.Layer_Dropout(0.5, seed=0)
    X = np.ones((2, 2), np.float32)
    dropout.forward(X, training=False)
    np.testing.assert_array_equal(dropout.output, X)
    assert not np.shares_memory(dropout.output, X)
    dropout.backward(X)
    np.testing.assert_array_equal(dropout.dinputs, X)
    assert dropout.training_forwards == 0


def test_dropout_rate_holds_the_part_to_keep():
    dropout = nnx.Layer_Dropout(0.1)
    assert dropout.rate == 1 - 0.1
    dropout.forward(np.ones((100, 100), np.float32))
    assert set(np.unique(dropout.binary_mask)) == {np.float32(0), np.float32(1 / 0.9)}
    np.testing.assert_array_equal(dropout.output, dropout.binary_mask)


def test_dropout_rate_zero_keeps_everything():
    dropout = nnx.Layer_Dropout(0)
    X = np.arange(1.0, 7.0).reshape(2, 3)
    dropout.forward(X)
    np.testing.assert_array_equal(dropout.output, X)


def test_dropout_with_a_seed_repeats_itself():
    masks = []
    for _ in range(2):
        dropout = nnx.Layer_Dropout(0.5, seed=12)
        for _ in range(3):
            dropout.forward(np.ones((8, 8)))
        masks.append(dropout.binary_mask)
    np.testing.assert_array_equal(*masks)


def test_predictions_are_the_books():
    outputs = np.array([[0.2, 0.7, 0.1], [0.6, 0.1, 0.5]])
    assert nnx.Activation_ReLU().predictions(outputs) is outputs
    assert nnx.Activation_Linear().predictions(outputs) is outputs
    np.testing.assert_array_equal(nnx.Activation_Softmax().predictions(outputs), [1, 0])
    np.testing.assert_array_equal(nnx.Activation_Sigmoid().predictions(outputs), [[0, 1, 0], [1, 0, 0]])


def test_activations_keep_the_dtype_of_floats_and_turn_the_rest_into_the_default(dtype):
    for activation in (nnx.Activation_ReLU, nnx.Activation_Sigmoid, nnx.Activation_Softmax):
        for given, expected in (("f4", "f4"), ("f8", "f8"), ("f2", dtype), ("i8", dtype), ("u1", dtype), ("?", dtype)):
            layer = activation()
            layer.forward(np.ones((2, 2), given))
            assert layer.output.dtype == expected


def test_relu_derivative_at_zero_is_zero():
    relu = nnx.Activation_ReLU()
    relu.forward([[0.0, -0.0, 1e-30]])
    relu.backward([[1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(relu.dinputs, [[0, 0, 1]])


def test_softmax_and_sigmoid_backward_use_an_output_that_was_assigned():
    softmax = nnx.Activation_Softmax()
    softmax.output = np.array([[0.7, 0.1, 0.2]])
    softmax.backward(np.array([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(softmax.dinputs, [[0.21, -0.07, -0.14]], rtol=1e-12)
    sigmoid = nnx.Activation_Sigmoid()
    sigmoid.output = np.array([[0.25]])
    sigmoid.backward(np.array([[1.0]]))
    np.testing.assert_allclose(sigmoid.dinputs, [[0.1875]])


# Parameters


def test_get_parameters_are_live_and_set_parameters_keeps_what_it_is_given():
    dense, other = nnx.Layer_Dense(2, 3), nnx.Layer_Dense(2, 3)
    weights, biases = dense.get_parameters()
    assert weights is dense.weights
    assert biases is dense.biases
    other.set_parameters(weights, biases)
    assert other.weights is dense.weights
    dense.forward([[1.0, 2.0]])
    dense.backward([[1.0, 1.0, 1.0]])
    nnx.Optimizer_SGD(0.1).update_params(dense)
    assert dense.weights is weights
    np.testing.assert_allclose(other.biases, -0.1)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.astype(np.float64) + 0.05 * np.ones((2, 3)),
        lambda w: np.asfortranarray(w),
        lambda w: w.astype(">f4"),
        lambda w: np.ones((4, 6), np.float32)[::2, ::2],
        lambda w: np.arange(6).reshape(2, 3),
        lambda w: w.tolist(),
    ],
    ids=["float64", "fortran", "byte-swapped", "strided", "integers", "list"],
)
def test_an_assigned_parameter_is_cast_once_at_its_next_use(change):
    dense = nnx.Layer_Dense(2, 3)
    assigned = change(dense.weights)
    expected = np.array(assigned, np.float32)
    dense.weights = assigned
    dense.forward([[1.0, 1.0]])
    assert type(dense.weights) is np.ndarray
    assert dense.weights.dtype == np.float32
    assert dense.weights.dtype.isnative
    assert dense.weights.flags.c_contiguous
    np.testing.assert_array_equal(dense.weights, expected)
    used = dense.weights
    dense.forward([[1.0, 1.0]])
    assert dense.weights is used


def test_weights_can_be_changed_in_place_and_restored():
    dense = nnx.Layer_Dense(2, 3)
    best = dense.weights.copy()
    dense.weights += 0.05 * np.random.randn(2, 3)
    assert not np.array_equal(dense.weights, best)
    dense.weights = best.copy()
    dense.forward([[1.0, 0.0]])
    np.testing.assert_array_equal(dense.output, best[:1])


REFUSED = {
    "wrong shape": (np.ones((3, 2)), ValueError, r"weights must have shape \(2, 3\), got \(3, 2\)\."),
    "complex": (
        np.ones((2, 3), complex),
        TypeError,
        r"weights must be an array of real numbers, got dtype complex128\.",
    ),
    "object": (np.full((2, 3), None), TypeError, r"weights must be an array of real numbers, got dtype object\."),
    "text": ([["a"] * 3] * 2, TypeError, r"weights must be an array of real numbers"),
    "read-only": (np.broadcast_to(np.float32(0), (2, 3)), ValueError, r"weights must be a writable array"),
    "ragged": ([[1, 2, 3], [1]], ValueError, r"weights must be a full array of numbers"),
    "None": (None, (RuntimeError, TypeError), r"weights"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("use", ["forward", "backward", "get_parameters", "update"])
def test_an_assigned_parameter_that_cannot_be_cast_is_refused(case, use):
    value, error, sentence = REFUSED[case]
    dense = nnx.Layer_Dense(2, 3)
    dense.forward([[1.0, 1.0]])
    dense.backward([[1.0, 1.0, 1.0]])
    kept = dense.weights
    dense.weights = value
    with pytest.raises(error, match=sentence):
        {
            "forward": lambda: dense.forward([[1.0, 1.0]]),
            "backward": lambda: dense.backward([[1.0, 1.0, 1.0]]),
            "get_parameters": dense.get_parameters,
            "update": lambda: nnx.Optimizer_Adam().update_params(dense),
        }[use]()
    dense.weights = kept
    if value is not None:
        with pytest.raises(error, match=sentence):
            dense.set_parameters(value, dense.biases)
    assert dense.weights is kept


def test_layers_survive_copy_deepcopy_and_pickle(rng):
    X = rng.standard_normal((3, 4))
    for layer in (nnx.Layer_Dense(4, 4), nnx.Layer_Dropout(0.5, seed=2), *(kind() for kind in ACTIVATIONS)):
        layer.forward(X)
        for twin in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            np.testing.assert_array_equal(twin.output, layer.output)
            twin.forward(X, training=False)


def test_repr_says_how_a_thing_was_made():
    assert repr(nnx.Layer_Dense(2, 64)) == "Layer_Dense(2, 64)"
    assert repr(nnx.Layer_Dense(2, 3, 0, 5e-4, dtype="float64")) == (
        "Layer_Dense(2, 3, weight_regularizer_l2=0.0005, dtype='float64')"
    )
    assert repr(nnx.Layer_Dropout(0.1)) == "Layer_Dropout(0.1)"
    assert repr(nnx.Layer_Dropout(0.1, seed=3)) == "Layer_Dropout(0.1, seed=3)"
    assert repr(nnx.Activation_ReLU()) == "Activation_ReLU()"
    assert repr(nnx.Optimizer_SGD(0.5, momentum=0.9)) == "Optimizer_SGD(learning_rate=0.5, momentum=0.9)"
    assert repr(nnx.Optimizer_Adam()) == "Optimizer_Adam()"
    assert repr(nnx.Accuracy_Categorical(binary=True)) == "Accuracy_Categorical(binary=True)"
    assert repr(nnx.Loss_MeanSquaredError()) == "Loss_MeanSquaredError()"


@pytest.mark.parametrize(
    "name",
    sorted(
        set(nnx.__all__)
        - {
            "Blocks",
            "Model",
            "Ensemble",
            "Table",
            "Images",
            "ModelFileError",
            "DataFileError",
            "History",
            "Predictor",
            "Run",
        }
    ),
)
def test_repr_of_every_class_can_be_evaluated(name):
    kind = getattr(nnx, name)
    if not isinstance(kind, type):
        return
    arguments = {
        "Layer_Dense": (2, 3),
        "Layer_Dropout": (0.25,),
        "Layer_BatchNorm": (4, 0.5),
        "Layer_LayerNorm": (4, 1e-3),
        "Layer_Scale": (4, 0.5),
        "Layer_Embedding": (4, [1, 3], (2, 5), 3),
        "Layer_PiecewiseLinear": (4, [1, 3], [[0, 1], [-1, 0, 0.5]]),
        "Layer_Combinations": (4, [[1, 3], [0]], [[1, -0.5], [2]]),
        "Layer_Periodic": (4, [1, 3], 5, 2, 0.5),
        "Layer_Thermometer": (4, [1, 3], [[0], [-1, 0, 0.5]]),
        "Layer_Spline": (4, 2, [1, 3], ((0.5,), (1, 2.5)), 0),
        "Layer_Members": (4, 3),
        "Layer_MemberScale": (4, 3),
        "Layer_MemberDense": (4, 2, 3),
        "Layer_GaussianNoise": (0.25,),
        "Layer_Residual": ([nnx.Layer_Dense(2, 2), nnx.Layer_Residual([nnx.Activation_ReLU()])],),
        "Schedule": (),
        "Schedule_Exponential": (0.5,),
    }
    arguments |= dict.fromkeys(("CSVLog", "SaveBest", "TensorBoardLog"), ("here",))
    thing = kind(*arguments.get(name, (10,) if name.startswith("Schedule_") else ()))
    assert repr(eval(repr(thing), vars(nnx))) == repr(thing)


def test_default_dtype_can_be_set_and_read():
    assert nnx.get_default_dtype() == np.float32
    nnx.set_default_dtype("float64")
    try:
        assert nnx.get_default_dtype() == np.float64
        assert nnx.Layer_Dense(1, 1).weights.dtype == np.float64
    finally:
        nnx.set_default_dtype("float32")


def test_dropout_masks_follow_each_other_and_evaluation_skips_none():
    dropout, twin = nnx.Layer_Dropout(0.5, seed=3), nnx.Layer_Dropout(0.5, seed=3)
    X = np.ones((16, 16), np.float32)
    dropout.forward(X)
    first = dropout.binary_mask
    dropout.forward(X, training=False)
    dropout.forward(X)
    assert not np.array_equal(dropout.binary_mask, first)
    assert dropout.training_forwards == 2
    twin.training_forwards = 1
    twin.forward(X)
    np.testing.assert_array_equal(twin.binary_mask, dropout.binary_mask)


def test_dropout_without_a_seed_draws_one_at_its_first_training_forward():
    np.random.seed(6)
    dropout = nnx.Layer_Dropout(0.5)
    dropout.forward(np.ones((2, 2)), training=False)
    assert dropout.seed is None
    dropout.forward(np.ones((2, 2)))
    after = np.random.rand()
    np.random.seed(6)
    low, high = np.random.randint(0, 2**32, 2, np.uint64).tolist()
    assert dropout.seed == high << 32 | low
    assert repr(dropout) == "Layer_Dropout(0.5)"
    assert np.random.rand() == after


def test_layers_take_no_rows_and_more_than_two_axes():
    for layer in (nnx.Layer_Dropout(0.5, seed=1), nnx.Activation_ReLU(), nnx.Activation_Sigmoid()):
        for shape in ((0, 3), (2, 3, 4), (5,)):
            layer.forward(np.ones(shape))
            layer.backward(np.ones(shape))
            assert layer.output.shape == layer.dinputs.shape == shape


def test_byte_swapped_floats_keep_their_precision():
    relu = nnx.Activation_ReLU()
    relu.forward(np.array([[1 / 3]], ">f8"))
    assert relu.output.dtype == np.float64
    assert relu.output[0, 0] == 1 / 3


def test_parameters_that_another_library_gives_read_only_are_copied():
    class Frame:
        def __array__(self, dtype=None, copy=None):
            return np.broadcast_to(np.float32(2), (2, 3))

    dense = nnx.Layer_Dense(2, 3)
    dense.weights = Frame()
    dense.forward([[1.0, 1.0]])
    np.testing.assert_array_equal(dense.output, [[4, 4, 4]])
    assert dense.weights.flags.writeable


def test_a_model_whose_weights_were_spoilt_can_be_finalized_and_says_so_in_use():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    for spoilt in (None, np.ones(3)):
        model.layers[0].weights = spoilt
        model.finalize()
        with pytest.raises((RuntimeError, ValueError), match="weights"):
            model.predict(np.ones((1, 2)))


def test_arrays_of_objects_are_refused_with_what_to_do():
    with pytest.raises(TypeError, match=r"got dtype object\. Convert it first, as with inputs\.astype\(float\)\."):
        nnx.Layer_Dense(1, 1).forward(np.array([[True], [1.5]], object))
