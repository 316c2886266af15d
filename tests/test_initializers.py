"""Initial weights and biases: their distributions, seeds, custom functions, and their settings in files."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import safetensors
from networks import mixed_spiral
from safetensors.numpy import load_file, save_file

import nnx
from nnx import initializers
from nnx._base.describe import Described
from nnx.files import safetensors as _safetensors

pytestmark = pytest.mark.one_backend

KINDS = ("he", "glorot", "lecun")


def drawn(name, seed=0, shape=(30, 10), dtype="float64"):
    np.random.seed(seed)
    return nnx.Layer_Dense(*shape, dtype=dtype, weight_initializer=name).weights


# Distributions


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(300, 100), (100, 300)])
def test_normal_weights_have_the_variance_of_the_paper(kind, shape):
    n_inputs, n_neurons = shape
    variance = {"he": 2 / n_inputs, "glorot": 2 / (n_inputs + n_neurons), "lecun": 1 / n_inputs}[kind]
    weights = drawn(f"{kind}_normal", shape=shape)
    n = weights.size
    assert abs(weights.mean()) < 4 * math.sqrt(variance / n)
    assert abs(weights.var() / variance - 1) < 4 * math.sqrt(2 / n)
    # Not truncated: 4.55 percent of normal numbers are beyond two standard deviations.
    beyond = np.mean(np.abs(weights) > 2 * math.sqrt(variance))
    assert abs(beyond - 0.0455) < 4 * math.sqrt(0.0455 / n)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(300, 100), (100, 300)])
def test_uniform_weights_have_the_bounds_of_the_paper_and_fill_them(kind, shape):
    n_inputs, n_neurons = shape
    bound = {
        "he": math.sqrt(6 / n_inputs),
        "glorot": math.sqrt(6 / (n_inputs + n_neurons)),
        "lecun": math.sqrt(3 / n_inputs),
    }[kind]
    weights = drawn(f"{kind}_uniform", shape=shape)
    n = weights.size
    assert np.abs(weights).max() <= bound
    assert np.abs(weights).max() > bound * (1 - 20 / n)
    counts = np.histogram(weights, 10, (-bound, bound))[0]
    assert np.abs(counts - n / 10).max() < 5 * math.sqrt(n / 10)


@pytest.mark.parametrize("shape", [(30, 10), (10, 30), (20, 20), (1, 5), (5, 1), (1, 1)])
@pytest.mark.parametrize(("dtype", "error"), [("float64", 1e-14), ("float32", 1e-6)])
def test_orthogonal_weights_have_orthonormal_columns_or_rows(shape, dtype, error):
    weights = drawn("orthogonal", shape=shape, dtype=dtype)
    assert weights.flags.c_contiguous
    assert weights.dtype == dtype
    tall = weights if shape[0] >= shape[1] else weights.T
    product = np.einsum("ij,ik->jk", tall, tall, dtype=np.float64)
    assert np.abs(product - np.identity(min(shape))).max() < error


def test_all_orthogonal_matrices_are_equally_likely():
    np.random.seed(0)
    matrices = [nnx.Layer_Dense(2, 2, weight_initializer="orthogonal").weights for _ in range(2000)]
    # LAPACK's own signs would make the first number negative every time, and all of them reflections.
    for share in (
        np.mean([matrix[0, 0] > 0 for matrix in matrices]),
        np.mean([matrix[1, 1] > 0 for matrix in matrices]),
        np.mean([matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0] > 0 for matrix in matrices]),
    ):
        assert abs(share - 0.5) < 4 * math.sqrt(0.25 / 2000)


@pytest.mark.parametrize("kind", KINDS)
def test_biases_are_drawn_by_the_fans_of_the_layer(kind):
    dense = nnx.Layer_Dense(10, 4000, dtype="float64", bias_initializer=f"{kind}_normal")
    variance = {"he": 2 / 10, "glorot": 2 / 4010, "lecun": 1 / 10}[kind]
    assert dense.biases.shape == (1, 4000)
    assert abs(dense.biases.var() / variance - 1) < 5 * math.sqrt(2 / 4000)


@pytest.mark.parametrize(("initializer", "value"), [("zeros", 0), ("ones", 1), (0.5, 0.5), (-2, -2), (np.int8(3), 3)])
def test_constants_are_the_same_everywhere_and_draw_nothing(initializer, value):
    before = np.random.get_state()[1].tolist()
    dense = nnx.Layer_Dense(2, 3, weight_initializer=initializer, bias_initializer=initializer)
    assert dense.weights.tolist() == [[value] * 3] * 2
    assert dense.biases.tolist() == [[value] * 3]
    assert np.random.get_state()[1].tolist() == before


# The default, and seeds


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("arguments", [{}, {"weight_initializer": "book"}, {"weight_initializer": None}])
def test_the_default_draws_what_the_book_draws(dtype, arguments):
    np.random.seed(3)
    expected = (0.01 * np.random.randn(5, 7)).astype(dtype)
    following = np.random.rand()
    np.random.seed(3)
    dense = nnx.Layer_Dense(5, 7, dtype=dtype, **arguments)
    assert dense.weights.tobytes() == expected.tobytes()
    assert not dense.biases.any()
    assert np.random.rand() == following


@pytest.mark.parametrize("initializer", ["book", "zeros", None])
def test_the_books_biases_are_zero(initializer):
    assert not nnx.Layer_Dense(2, 3, bias_initializer=initializer).biases.any()


@pytest.mark.parametrize("name", initializers.NAMES)
def test_seeds_repeat_and_both_dtypes_get_the_same_draw(name):
    weights = drawn(name, 5)
    assert weights.tobytes() == drawn(name, 5).tobytes()
    assert weights.astype(np.float32).tobytes() == drawn(name, 5, dtype="float32").tobytes()
    assert weights.flags.c_contiguous
    assert weights.flags.writeable
    if name not in ("zeros", "ones"):
        assert weights.tobytes() != drawn(name, 6).tobytes()


@pytest.mark.parametrize("name", initializers.NAMES)
def test_weights_are_drawn_before_biases(name):
    dense = nnx.Layer_Dense
    np.random.seed(1)
    both = dense(3, 4, weight_initializer=name, bias_initializer="he_normal")
    np.random.seed(1)
    alone = dense(3, 4, weight_initializer=name)
    assert both.weights.tobytes() == alone.weights.tobytes()
    expected = np.array(np.random.randn(1, 4) * math.sqrt(2 / 3), np.float32)
    assert both.biases.tobytes() == expected.tobytes()


def test_initializers_work_with_numpy_as_nnfs_leaves_it():
    script = (
        "import nnfs; nnfs.init()\n"
        "import nnx, numpy as np\n"
        "from nnx.initializers import NAMES\n"
        "for dtype in ('float32', 'float64'):\n"
        "    for name in NAMES:\n"
        "        dense = nnx.Layer_Dense(6, 4, dtype=dtype, weight_initializer=name, bias_initializer=name)\n"
        "        assert dense.weights.dtype == dense.biases.dtype == dtype, name\n"
        "w = nnx.Layer_Dense(6, 4, dtype='float64', weight_initializer='orthogonal').weights\n"
        "assert abs(np.einsum('ij,ik->jk', w, w) - np.identity(4)).max() < 1e-14\n"
        "print('done')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")


# Functions


def test_a_function_is_called_with_the_shape_and_its_array_is_copied():
    shapes, arrays = [], []

    def function(shape):
        shapes.append(shape)
        arrays.append(np.full(shape, 0.5, np.float32))
        return arrays[-1]

    dense = nnx.Layer_Dense(np.int64(2), 3, weight_initializer=function, bias_initializer=function)
    assert shapes == [(2, 3), (1, 3)]
    assert all(type(n) is int for shape in shapes for n in shape)
    for array in arrays:
        array[:] = 9
    assert dense.weights.tolist() == [[0.5] * 3] * 2
    assert dense.biases.tolist() == [[0.5] * 3]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        (np.array([[1, 2], [3, 4]], np.int8, order="F"), [[1, 2], [3, 4]]),
        (np.broadcast_to(np.float16(0.5), (2, 2)), [[0.5, 0.5], [0.5, 0.5]]),
    ],
)
def test_a_function_may_return_whatever_numpy_reads(values, expected):
    dense = nnx.Layer_Dense(2, 2, weight_initializer=lambda shape: values)
    assert dense.weights.tolist() == expected
    assert dense.weights.dtype == np.float32
    assert dense.weights.flags.c_contiguous
    assert dense.weights.flags.writeable


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (np.ones((3, 2)), ValueError, "weight_initializer must return an array of shape (2, 3), got (3, 2)."),
        (np.ones(3), ValueError, "weight_initializer must return an array of shape (2, 3), got (3,)."),
        (1.0, ValueError, "weight_initializer must return an array of shape (2, 3), got ()."),
        (None, TypeError, "what weight_initializer returns must be an array of real numbers, got a NoneType."),
        (
            [["a"] * 3] * 2,
            TypeError,
            "what weight_initializer returns must be an array of real numbers, got dtype <U1.",
        ),
        (np.full((2, 3), np.nan), ValueError, "weight_initializer must return finite numbers of float32, got nan."),
        (np.full((2, 3), 1e300), ValueError, "weight_initializer must return finite numbers of float32, got 1e+300."),
    ],
)
def test_what_a_function_must_not_return(result, error, message):
    with pytest.raises(error) as caught:
        nnx.Layer_Dense(2, 3, weight_initializer=lambda shape: result, dtype="float32")
    assert str(caught.value) == f"Layer_Dense: {message}"


@pytest.mark.parametrize("argument", ["weight_initializer", "bias_initializer"])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (
            "henormal",
            ValueError,
            "must be one of 'book', 'lecun_normal', 'lecun_uniform', 'glorot_normal', 'glorot_uniform', 'he_normal', "
            "'he_uniform', 'orthogonal', 'zeros', 'ones', got 'henormal'. Did you mean 'he_normal'?",
        ),
        (True, TypeError, "must be a name, a number or a function, got True."),
        ([0.0], TypeError, "must be a name, a number or a function, got [0.0]."),
        (math.inf, ValueError, "must be a finite number, got inf."),
        (1e300, ValueError, "must be a finite number of float32, got 1e+300."),
    ],
)
def test_bad_initializers_are_refused(argument, value, error, message):
    np.random.seed(0)
    with pytest.raises(error) as caught:
        nnx.Layer_Dense(2, 3, dtype="float32", **{argument: value})
    assert str(caught.value) == f"Layer_Dense: {argument} {message}"


@pytest.mark.parametrize("argument", ["weight_initializer", "bias_initializer"])
def test_a_name_that_is_unknown_draws_nothing(argument):
    before = np.random.get_state()[1].tolist()
    with pytest.raises(ValueError, match=argument):
        nnx.Layer_Dense(2, 3, **{argument: "none"})
    assert np.random.get_state()[1].tolist() == before


# Representations, copies and files


def test_initializers_are_shown_where_they_are_not_the_default():
    assert repr(nnx.Layer_Dense(2, 3)) == "Layer_Dense(2, 3)"
    dense = nnx.Layer_Dense(2, 3, weight_initializer="he_normal", bias_initializer=0.5)
    assert repr(dense) == "Layer_Dense(2, 3, weight_initializer='he_normal', bias_initializer=0.5)"
    config = dense.get_config()
    assert (config["weight_initializer"], config["bias_initializer"]) == ("he_normal", 0.5)


def test_a_function_is_not_kept():
    dense = nnx.Layer_Dense(2, 3, weight_initializer=lambda shape: np.ones(shape))
    assert dense.weight_initializer is None
    assert json.loads(json.dumps(dense.get_config()))["weight_initializer"] is None
    assert repr(dense) == "Layer_Dense(2, 3, weight_initializer=None)"
    for twin in (copy.deepcopy(dense), pickle.loads(pickle.dumps(dense))):
        assert twin.weights.tolist() == dense.weights.tolist()
    assert nnx.Layer_Dense(**dense.get_config()).weights.shape == (2, 3)


def test_a_derived_class_need_not_know_of_initializers():
    class Layer_Own(nnx.Layer_Dense):
        def __init__(self):
            self.weights, self.biases = np.ones((2, 3), np.float32), np.ones((1, 3), np.float32)

    config = Layer_Own().get_config()
    assert (config["weight_initializer"], config["bias_initializer"]) == ("book", "zeros")
    assert isinstance(Layer_Own(), Described)


def network(weight_initializer="he_normal", bias_initializer=0.125):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 8, weight_initializer=weight_initializer, bias_initializer=bias_initializer))
    model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dense(8, 3))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    return model


def change(path, change_description):
    """Write a file's description anew, with the right checksum."""
    with safetensors.safe_open(path, "np") as file:
        description = json.loads(file.metadata()["nnx"])
    tensors = load_file(path)
    change_description(description)
    description.pop("crc32")
    description["crc32"] = _safetensors._checksum(json.loads(json.dumps(description)), tensors)
    save_file(tensors, path, {"nnx": json.dumps(description)})


def forget_initializers(description):
    for layer in description["layers"]:
        layer["config"].pop("weight_initializer", None)
        layer["config"].pop("bias_initializer", None)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("he_normal", "he_normal"), (0.5, 0.5), (lambda shape: np.ones(shape), None), (None, None)],
    ids=["name", "number", "function", "none"],
)
def test_model_files_hold_names_and_numbers_and_loading_draws_nothing(tmp_path, given, kept):
    model = network(given, given)
    model.save(tmp_path / "model")
    before = np.random.get_state()[1].tolist()
    twin = nnx.Model.load(tmp_path / "model")
    assert np.random.get_state()[1].tolist() == before
    assert (twin.layers[0].weight_initializer, twin.layers[0].bias_initializer) == (kept, kept)
    assert (twin.layers[2].weight_initializer, twin.layers[2].bias_initializer) == ("book", "zeros")
    assert twin.layers[0].weights.tobytes() == model.layers[0].weights.tobytes()


def test_files_from_before_initializers_load_as_the_books(tmp_path):
    network().save(tmp_path / "model")
    change(tmp_path / "model", forget_initializers)
    twin = nnx.Model.load(tmp_path / "model")
    assert repr(twin.layers[0]) == "Layer_Dense(2, 8)"


def test_a_checkpoint_from_before_initializers_goes_on(tmp_path):
    data = mixed_spiral(samples=20, classes=3)
    path = tmp_path / "checkpoint"
    np.random.seed(0)
    straight = network("book", "zeros")
    np.random.seed(0)
    stopped = network("book", "zeros")
    straight.train(*data, epochs=4, print_every=None)
    stopped.train(*data, epochs=2, print_every=None, checkpoint=path)
    change(path, forget_initializers)
    resumed = network("book", "zeros")
    resumed.train(*data, epochs=4, print_every=None, resume=path)
    for one, other in zip(straight.get_parameters(), resumed.get_parameters(), strict=True):
        assert one[0].tobytes() == other[0].tobytes()


@pytest.mark.parametrize("value", ["nothing", [1], {"class": "x"}, True, 1e400])
def test_files_with_other_initializers_are_refused(tmp_path, value):
    network().save(tmp_path / "model")

    def damage(description):
        description["layers"][0]["config"]["weight_initializer"] = value

    change(tmp_path / "model", damage)
    with pytest.raises(nnx.ModelFileError, match="is damaged"):
        nnx.Model.load(tmp_path / "model")


def test_an_initializer_that_no_file_may_hold_is_refused_at_saving(tmp_path):
    model = network()
    model.layers[0].weight_initializer = "nothing"
    with pytest.raises(ValueError, match=r"^Layer_Dense: weight_initializer must be one of "):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
