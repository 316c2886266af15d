"""Models with normalizing layers, embeddings, noise and residuals: files, checkpoints, copies, and diverging runs."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import safetensors.numpy

import nnx
from nnx.errors import DivergenceError, ModelFileError
from nnx.files import safetensors as tensor_files
from nnx.layers import walk


class Book(nnx.Model):
    """A model of a subclass has no plan: it takes the book path."""


def model_of(kind=nnx.Model, **optimizer):
    """Return a model with a layer of each kind, the same at every call."""
    np.random.seed(1)
    model = kind()
    inner = nnx.Layer_Residual([nnx.Layer_Dense(6, 6, weight_initializer="he_normal"), nnx.Layer_BatchNorm(6)])
    for layer in (
        nnx.Layer_Embedding(4, [1, 3], [3, 2], 2),
        nnx.Layer_BatchNorm(6, momentum=0.5),
        nnx.Layer_Residual([nnx.Layer_LayerNorm(6), inner, nnx.Layer_Scale(6, 0.5), nnx.Layer_Dropout(0.2)]),
        nnx.Layer_GaussianNoise(0.1),
        nnx.Layer_Spline(6, 5, [0, 4], [[-1, 0, 0.5], [0, 1]]),
        nnx.Layer_Dense(5, 3),
        nnx.Activation_Softmax(),
    ):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(**{"learning_rate": 0.01, **optimizer}),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


#: The numbers of the layers of `model_of` in the walk.
EMBEDDING, NORM, RESIDUAL, LAYER_NORM, INNER, DENSE, INNER_NORM, SCALE, DROPOUT, NOISE, SPLINE, LAST = range(12)


def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(70, 4)).astype(np.float32)
    X[:, 1], X[:, 3] = rng.integers(0, 3, 70), rng.integers(0, 2, 70)
    return X, rng.integers(0, 3, 70)


def train(model, epochs=3, **arguments):
    np.random.seed(3)
    X, y = data()
    model.train(X, y, **{"epochs": epochs, "batch_size": 16, "shuffle": True, "print_every": None, **arguments})
    return model


def state_of(model):
    """Return every array and count that a model has learnt."""
    names = ("weight", "bias", "running", "seed", "training_forwards")
    return {
        f"{number}.{name}": value.tobytes() if isinstance(value, np.ndarray) else value
        for number, layer in enumerate(walk(model.layers))
        for name, value in vars(layer).items()
        if name.startswith(names) and not name.endswith(("initializer", "l1", "l2"))
    }


kinds = pytest.mark.parametrize("kind", [nnx.Model, Book])


# What comes back


@kinds
def test_a_loaded_model_goes_on_as_the_original(tmp_path, kind):
    model = train(model_of(kind, average=0.9, clip_norm=1.0))
    model.save(tmp_path / "model")
    loaded = kind.load(tmp_path / "model")
    assert repr(loaded) == repr(model)
    assert state_of(loaded) == state_of(model)
    assert [type(layer) for layer in loaded.trainable_layers] == [type(layer) for layer in model.trainable_layers]
    X, _ = data()
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()
    assert state_of(train(loaded)) == state_of(train(model))


def test_arrays_are_numbered_along_the_walk(tmp_path):
    model_of().save(tmp_path / "model")
    names = set(safetensors.numpy.load_file(tmp_path / "model"))
    expected = {f"layers.{i}.weights" for i in (EMBEDDING, NORM, LAYER_NORM, DENSE, INNER_NORM, SCALE, SPLINE, LAST)}
    expected |= {f"layers.{i}.biases" for i in (NORM, LAYER_NORM, DENSE, INNER_NORM, SPLINE, LAST)}
    expected |= {f"layers.{i}.running_{name}" for i in (NORM, INNER_NORM) for name in ("mean", "variance")}
    assert names == expected
    description, _ = tensor_files.read("test", str(tmp_path / "model"))
    assert description["trainable"] == [EMBEDDING, NORM, LAYER_NORM, DENSE, INNER_NORM, SCALE, SPLINE, LAST]
    inner = description["layers"][2]["config"]["layers"][1]
    assert (inner["class"], inner["config"]["layers"][1]["class"]) == ("Layer_Residual", "Layer_BatchNorm")


@pytest.mark.parametrize("average", [None, 0.9])
def test_parameters_alone_bring_the_running_figures(tmp_path, average):
    model, X = train(model_of(average=average)), data()[0]
    model.save_parameters(tmp_path / "parameters")
    model.save(tmp_path / "model")
    for name in ("parameters", "model"):
        other = model_of()
        other.load_parameters(tmp_path / name)
        assert other.predict(X).tobytes() == model.predict(X).tobytes()
        layers = [list(walk(each.layers))[INNER_NORM] for each in (model, other)]
        assert layers[1].running_mean.tobytes() == layers[0].running_mean.tobytes()
        train(other)  # arrays of a file can be trained on


@kinds
def test_a_resumed_training_is_the_whole_one(tmp_path, kind):
    whole = train(model_of(kind), 6)
    train(model_of(kind), 3, checkpoint=tmp_path / "file")
    resumed = train(model_of(kind), 6, resume=tmp_path / "file")
    assert state_of(resumed) == state_of(whole)
    np.testing.assert_array_equal(resumed.history.loss, whole.history.loss)


def test_a_checkpoint_of_other_layers_is_refused(tmp_path):
    train(model_of(), 2, checkpoint=tmp_path / "file")
    other = model_of()
    layers = list(other.layers)
    layers[2] = nnx.Layer_Residual([*layers[2].layers[:-1], nnx.Layer_Dropout(0.3)])
    changed = nnx.Model()
    for layer in layers:
        changed.add(layer)
    changed.set(loss=other.loss, optimizer=other.optimizer, accuracy=other.accuracy)
    changed.finalize()
    with pytest.raises(ModelFileError, match=r"its layer 2 is Layer_Residual\(\[Layer_LayerNorm\(.*, here Layer_Res"):
        train(changed, 3, resume=tmp_path / "file")


def test_copies_and_pickles_are_apart():
    model, X = train(model_of()), data()[0]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.predict(X).tobytes() == model.predict(X).tobytes()
        assert state_of(train(twin)) != state_of(model)
        ours, theirs = list(walk(model.layers)), list(walk(twin.layers))
        assert not np.shares_memory(ours[INNER_NORM].running_mean, theirs[INNER_NORM].running_mean)
        assert twin.trainable_layers[4] is theirs[INNER_NORM]


class Doubled(nnx.Layer_Residual):
    """A custom residual, which makes its layers itself."""

    def __init__(self, width):
        super().__init__([nnx.Layer_BatchNorm(width)])
        self.size = width

    def get_config(self):
        return {"width": self.size}


def test_a_residual_of_ones_own_comes_back(tmp_path):
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 3), Doubled(3)):
        model.add(layer)
    model.finalize()
    model.forward(np.arange(8.0, dtype=np.float32).reshape(4, 2), training=True)
    model.save(tmp_path / "model")
    loaded = nnx.Model.load(tmp_path / "model", custom_objects={"Doubled": Doubled})
    assert loaded.predict(np.ones((1, 2))).tobytes() == model.predict(np.ones((1, 2))).tobytes()


# What is refused


def changed(path, change):
    """Change the file of a model as an attacker might, with a correct checksum."""
    description, arrays = tensor_files.read("test", str(path))
    change(description, arrays)
    description.pop("crc32", None)
    tensor_files.write("test", str(path), description, arrays)


def setting(number, name, value):
    """Return a change of an argument of one of the layers."""

    def change(description, arrays):
        layers = description["layers"]
        layer = layers[number] if number < 2 else layers[2]["config"]["layers"][number - 3]
        layer["config"][name] = value

    return change


def array(name, value):
    def change(description, arrays):
        if value is None:
            del arrays[name]
        else:
            arrays[name] = np.array(value, np.float32)

    return change


def residual(value):
    def change(description, arrays):
        description["layers"][2]["config"] = value

    return change


def inner(change_layers):
    def change(description, arrays):
        change_layers(description["layers"][2]["config"]["layers"])

    return change


def deep(description, arrays):
    layer = {"class": "Activation_ReLU", "custom": False, "config": {}, "state": {}}
    for _ in range(9):
        layer = {"class": "Layer_Residual", "custom": False, "config": {"layers": [layer]}, "state": {}}
    description["layers"].append(layer)


MEAN, VARIANCE = f"layers.{INNER_NORM}.running_mean", f"layers.{INNER_NORM}.running_variance"
HOSTILE = {
    "variance below 0": (array(VARIANCE, [[1, 1, 1, -1e-3, 1, 1]]), "running_variance must hold finite numbers"),
    "variance NaN": (array(VARIANCE, [[1, 1, 1, np.nan, 1, 1]]), "finite numbers of at least 0, got nan"),
    "variance infinite": (array(VARIANCE, [[1, 1, 1, np.inf, 1, 1]]), "finite numbers of at least 0, got inf"),
    "shape of variance": (array(VARIANCE, [[1, 1]]), r"running_variance must have shape \(1, 6\), got \(1, 2\)"),
    "shape of mean": (array(MEAN, [1] * 6), r"running_mean must have shape \(1, 6\), got \(6,\)"),
    "no mean": (array(MEAN, None), "Layer_BatchNorm has no running_mean yet"),
    "no variance": (array(VARIANCE, None), "Layer_BatchNorm has no running_variance yet"),
    "mean of a dense layer": (array(f"layers.{DENSE}.running_mean", [[1] * 6]), "which belongs to no layer"),
    "biases of a scale": (array(f"layers.{SCALE}.biases", [[1] * 6]), "has no biases"),
    "biases of an embedding": (array(f"layers.{EMBEDDING}.biases", [[1] * 2]), "has no biases"),
    "weights of a residual": (array(f"layers.{RESIDUAL}.weights", [[1] * 6]), "has no weights"),
    "weights of noise": (array(f"layers.{NOISE}.weights", [[1] * 6]), "has no weights"),
    "weights beyond": (array("layers.13.weights", [[1] * 6]), "which belongs to no layer"),
    "averages of statistics": (array(f"layers.{NORM}.running_averages", [[1] * 6]), "which belongs to no layer"),
    "few vectors": (array("layers.0.weights", [[1, 1]]), r"weights must have shape \(5, 2\), got \(1, 2\)"),
    "many categories": (setting(0, "categories", 2**24), "weights must have shape"),
    "too many categories": (setting(0, "categories", 2**60), "categories must be a whole number from 1 to"),
    "categories for other columns": (setting(0, "categories", [3, 2, 1]), "categories must be one number for each"),
    "columns that are not there": (setting(0, "columns", [1, 7]), r"columns\[1\] must be a whole number from 0 to 3"),
    "columns in disorder": (setting(0, "columns", [3, 1]), "columns must be in increasing order"),
    "columns as text": (setting(0, "columns", "13"), "columns must be a list of whole numbers"),
    "many inputs": (setting(0, "n_inputs", 2**31 - 1), "describes no possible model"),
    "too many inputs": (setting(0, "n_inputs", 2**62), "n_inputs must be a whole number from 1 to"),
    "wide vectors": (setting(0, "width", 2**30), "weights must have shape"),
    "momentum": (setting(1, "momentum", 1.5), "momentum must be a number from 0 to 1"),
    "epsilon": (setting(1, "epsilon", 0), "epsilon must be above 0"),
    "epsilon as text": (setting(1, "epsilon", "x"), "epsilon must be a number"),
    "wide norm": (setting(1, "n_inputs", 2**60), "weights must have shape"),
    "epsilon within": (setting(3, "epsilon", -1), "epsilon must be above 0"),
    "scale within": (setting(5, "scale", None), "scale must be a number"),
    "no configuration": (residual({}), r"Layer_Residual cannot be made from \[\]"),
    "layers are a number": (residual({"layers": 3}), "the layers of a Layer_Residual are not a list"),
    "layers are a dict": (residual({"layers": {"0": 1}}), "the layers of a Layer_Residual are not a list"),
    "no layers": (residual({"layers": []}), "layers must hold at least one layer"),
    "layers are none": (residual({"layers": [1, 2]}), "a layer is not described"),
    "other keys": (residual({"layers": [], "more": 1}), "cannot be made from"),
    "a class within that is none": (inner(lambda found: found[0].update({"class": "os.system"})), "is no layer of nnx"),
    "a custom class within": (
        inner(lambda found: found[0].update(custom=True)),
        "of the custom class 'Layer_LayerNorm'",
    ),
    "a loss within": (inner(lambda found: found[0].update({"class": "Loss_Huber"})), "is no layer of nnx"),
    "state within": (inner(lambda found: found[3]["state"].update(seed=-1)), "seed must be a whole number"),
    "a layer less": (inner(lambda found: found.pop(0)), "is damaged"),
    "a layer more": (inner(lambda found: found.append(found[0])), "is damaged"),
    "deep": (deep, "is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    change, sentence = HOSTILE[name]
    model = train(model_of(), 1)
    model.save(tmp_path / "model")
    changed(tmp_path / "model", change)
    np.random.seed(5)
    with pytest.raises(ModelFileError, match=sentence):
        nnx.Model.load(tmp_path / "model")
    drawn = np.random.rand()
    np.random.seed(5)
    assert drawn == np.random.rand(), "loading draws nothing"


def test_an_embedding_within_a_residual_is_refused(tmp_path):
    model_of().save(tmp_path / "model")

    def move(description, arrays):
        layers = description["layers"]
        layers[2]["config"]["layers"][0] = layers[0]

    changed(tmp_path / "model", move)
    with pytest.raises(ModelFileError, match="layers must not hold an embedding"):
        nnx.Model.load(tmp_path / "model")


@pytest.mark.parametrize("frozen", [False, True])
def test_running_figures_that_no_file_may_hold_are_refused(tmp_path, frozen):
    model = train(model_of(), 1)
    norm = model.layers[1]
    if frozen:
        model.trainable_layers.remove(norm)
    norm.running_variance[0, 2] = -1
    with pytest.raises(
        ValueError, match=r"^Model.save: running_variance must hold finite numbers of at least 0, got -1"
    ):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (array(VARIANCE, None), "running statistics must be given for Layer_BatchNorm"),
        (array(VARIANCE, [[-1] * 6]), "running_variance must hold finite numbers of at least 0, got -1"),
        (array(VARIANCE, [[1] * 5]), r"running_variance must have shape \(1, 6\), got \(1, 5\)"),
        (
            array(f"layers.{DENSE}.running_mean", [[1] * 6]),
            "running statistics must belong to a Layer_BatchNorm, got some",
        ),
        (array(f"layers.{DENSE}.weights", [[1] * 6]), r"weights must have shape \(6, 6\), got \(1, 6\)"),
        (array(f"layers.{RESIDUAL}.weights", [[1] * 6]), "which belongs to no layer"),
    ],
)
def test_parameter_files_that_do_not_fit_leave_the_model_alone(tmp_path, change, sentence):
    train(model_of(), 1).save_parameters(tmp_path / "parameters")
    changed(tmp_path / "parameters", change)
    model = model_of()
    before = state_of(model)
    with pytest.raises(ModelFileError, match=sentence):
        model.load_parameters(tmp_path / "parameters")
    assert state_of(model) == before


# Runs that diverge


@kinds
@pytest.mark.parametrize("refused", [0, 2])
def test_a_refused_step_leaves_everything_as_it_was(kind, refused):
    X, y = data()
    settings = {"batch_size": 16, "print_every": None}
    model, twin = model_of(kind), model_of(kind)
    wrong = X.copy()
    wrong[16 * refused + 3, 0] = np.inf
    np.random.seed(3)
    with pytest.raises(
        DivergenceError, match=f"in epoch 1, step {refused}: the samples hold a value that is not finite"
    ):
        model.train(wrong, y, check_finite=False, **settings)
    np.random.seed(3)
    if refused:
        twin.train(X[: 16 * refused], y[: 16 * refused], **settings)
        assert state_of(model) == state_of(twin)
    else:
        ours, theirs = state_of(model), state_of(twin)
        assert {name: ours[name] for name in theirs} == theirs


@kinds
def test_the_layer_within_a_residual_is_named(kind):
    model = train(model_of(kind), 1)
    dense = list(walk(model.layers))[DENSE]
    dense.weights[0, 0] = np.nan
    with pytest.raises(DivergenceError, match=r"the weights of layer 0 in layer 1 in layer 2, Layer_Dense\(6, 6"):
        train(model, 1)
    dense.weights[...] = 0
    dense.weights[0], dense.weights[1] = 3e38, -3e38  # of inputs whose sum is 0
    before = state_of(model)
    with pytest.raises(DivergenceError, match=r"the output of layer 0 in layer 1 in layer 2, Layer_Dense\(6, 6"):
        train(model, 1)
    assert state_of(model) == before


@kinds
def test_running_figures_that_are_not_finite_end_a_training(kind):
    model = train(model_of(kind), 1)
    model.layers[1].running_variance[0, 0] = np.inf
    with pytest.raises(DivergenceError, match="the running_variance of layer 1, Layer_BatchNorm"):
        train(model, 1)
