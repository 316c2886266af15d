"""Model and parameter files: what comes back, how they are written, and what is refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors
from networks import binary, classifier, mixed_spiral, parameters_of, regression
from safetensors.numpy import load_file, save, save_file

import nnx
from nnx._base import files
from nnx.data.columns import Ignored, Number, Text
from nnx.files import safetensors as tensor_files

pytestmark = pytest.mark.one_backend

OPTIMIZERS = [
    lambda: nnx.Optimizer_SGD(0.5, decay=1e-2),
    lambda: nnx.Optimizer_SGD(0.5, momentum=0.9),
    lambda: nnx.Optimizer_Adagrad(0.1, decay=1e-3),
    lambda: nnx.Optimizer_RMSprop(0.01, rho=0.95),
    lambda: nnx.Optimizer_Adam(0.01, decay=1e-2, beta_1=0.8),
]


@pytest.fixture
def data():
    return mixed_spiral(samples=40, classes=3)


def description_of(path) -> dict:
    with safetensors.safe_open(path, "np") as file:
        return json.loads(file.metadata()["nnx"])


def rewrite(path, change_description=None, change_tensors=None) -> None:
    """Change a file as an attacker might, with a correct checksum."""
    description, tensors = description_of(path), load_file(path)
    if change_description is not None:
        change_description(description)
    if change_tensors is not None:
        change_tensors(tensors)
    description.pop("crc32", None)
    description["crc32"] = tensor_files._checksum(json.loads(json.dumps(description)), tensors)
    save_file(tensors, path, {"nnx": json.dumps(description)})


# What comes back


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_loaded_model_goes_on_as_if_never_stopped(tmp_path, data, dtype, make):
    straight, stopped = [], []
    for epochs in ((7,), (4, 3)):
        np.random.seed(1)
        model = classifier(dropout=0.2, weight_regularizer_l2=1e-3, bias_regularizer_l1=1e-4)
        model.set(optimizer=make())
        for part in epochs:
            history = model.train(*data, epochs=part, batch_size=32, print_every=None)
            model.save(tmp_path / "model")
            model = nnx.Model.load(tmp_path / "model")
        (straight if len(epochs) == 1 else stopped).extend(
            [(tmp_path / "model").read_bytes(), parameters_of(model), history.loss[-1], model.optimizer.iterations]
        )
    assert straight == stopped


def test_a_loaded_model_predicts_the_same_bits_in_another_process(tmp_path, data):
    model = classifier(dropout=0.1)
    model.train(*data, epochs=3, print_every=None)
    model.save(tmp_path / "model")
    np.save(tmp_path / "X.npy", data[0])
    script = (
        "import sys, numpy as np, nnx\n"
        "X = np.load(sys.argv[2])\n"
        "sys.stdout.buffer.write(nnx.Model.load(sys.argv[1]).predict(X).tobytes())\n"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "model"), str(tmp_path / "X.npy")]
    found = subprocess.run(arguments, capture_output=True, check=True).stdout
    # In this process after the X.npy round trip too: nnfs.init() may have made X float32.
    assert found == model.predict(np.load(tmp_path / "X.npy")).tobytes()


@pytest.mark.parametrize("make", [classifier, binary, regression])
def test_everything_that_was_chosen_comes_back(tmp_path, make):
    model = make()
    model.train(np.ones((6, 2)), [0, 1, 1, 0, 1, 0], print_every=None)
    model.save(tmp_path / "model")
    twin = nnx.Model.load(tmp_path / "model")
    assert repr(twin) == repr(model)
    assert twin.optimizer.iterations == 1
    assert twin.optimizer.current_learning_rate == model.optimizer.current_learning_rate
    assert getattr(twin.accuracy, "precision", 0) == getattr(model.accuracy, "precision", 0)
    assert (twin.softmax_classifier_output is None) == (model.softmax_classifier_output is None)
    assert twin.loss.trainable_layers is twin.trainable_layers
    twin.finalize()


def test_a_model_without_loss_optimizer_and_accuracy_can_be_saved(tmp_path):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    model.finalize()
    model.save(tmp_path / "model")
    twin = nnx.Model.load(tmp_path / "model")
    assert twin.loss is twin.optimizer is twin.accuracy is None
    np.testing.assert_array_equal(twin.predict(np.ones((1, 2))), model.predict(np.ones((1, 2))))


def test_loading_draws_no_random_number(tmp_path):
    classifier().save(tmp_path / "model")
    np.random.seed(5)
    nnx.Model.load(tmp_path / "model")
    first = np.random.rand()
    np.random.seed(5)
    assert np.random.rand() == first


def test_frozen_and_shared_parameters_come_back_frozen_and_shared(tmp_path, data):
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 2), nnx.Layer_Dense(2, 2), nnx.Layer_Dense(2, 3), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(0.1), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    model.layers[1].set_parameters(*model.layers[0].get_parameters())
    model.trainable_layers.pop(0)
    model.save(tmp_path / "model")
    assert sorted(load_file(tmp_path / "model")) == [
        "layers.0.biases",
        "layers.0.weights",
        "layers.2.biases",
        "layers.2.weights",
    ]
    twin = nnx.Model.load(tmp_path / "model")
    assert twin.layers[0].weights is twin.layers[1].weights
    assert twin.trainable_layers == twin.layers[1:3]
    for each in (model, twin):
        each.train(*data, epochs=3, print_every=None)
    assert parameters_of(model) == parameters_of(twin)


def test_dropout_rate_that_was_assigned_comes_back_to_the_bit(tmp_path):
    model = classifier(dropout=0.1)
    model.layers[2].rate = 0.3
    model.save(tmp_path / "model")
    assert nnx.Model.load(tmp_path / "model").layers[2].rate == 0.3


@pytest.mark.parametrize("kind", [Fraction, np.longdouble, np.float16, np.int8])
def test_numbers_of_any_kind_in_settings_can_be_saved(tmp_path, kind):
    model = classifier(dropout=Fraction(1, 4))
    model.set(optimizer=nnx.Optimizer_Adam(kind(1), decay=kind(0), epsilon=kind(1)))
    assert type(model.optimizer.learning_rate) in (int, float)
    model.train(np.ones((3, 2)), [0, 1, 2], epochs=3, print_every=None, checkpoint=tmp_path / "run")
    for thing in (model.optimizer, model.layers[0]):  # assigned, they are as they were given
        vars(thing).update(dict.fromkeys(("learning_rate", "weight_regularizer_l2"), kind(1)))
    model.train(np.ones((3, 2)), [0, 1, 2], epochs=3, print_every=None, checkpoint=tmp_path / "run")
    model.save(tmp_path / "model")
    twin = nnx.Model.load(tmp_path / "model")
    assert twin.optimizer.learning_rate == twin.layers[0].weight_regularizer_l2 == 1
    again = classifier(dropout=0.25, weight_regularizer_l2=1.0)
    again.set(optimizer=nnx.Optimizer_Adam(1.0, decay=0.0, epsilon=1.0))
    again.train(np.ones((3, 2)), [0, 1, 2], epochs=3, print_every=None, resume=tmp_path / "run")
    assert parameters_of(again) == parameters_of(model)


def test_numpy_scalars_in_settings_can_be_saved(tmp_path):
    model = classifier()
    model.set(optimizer=nnx.Optimizer_Adam(np.float32(0.01)))
    model.optimizer.current_learning_rate = np.float64(0.5)
    model.layers[0].weight_regularizer_l2 = np.float32(0.25)
    model.save(tmp_path / "model")
    twin = nnx.Model.load(tmp_path / "model")
    assert twin.optimizer.current_learning_rate == 0.5
    assert twin.layers[0].weight_regularizer_l2 == 0.25


def test_any_safetensors_reader_finds_the_weights(tmp_path):
    model = classifier()
    model.save(tmp_path / "any.name.at-all")
    tensors = load_file(tmp_path / "any.name.at-all")
    np.testing.assert_array_equal(tensors["layers.0.weights"], model.layers[0].weights)
    np.testing.assert_array_equal(tensors["layers.2.biases"], model.layers[2].biases)
    assert description_of(tmp_path / "any.name.at-all")["layers"][0]["class"] == "Layer_Dense"


@pytest.mark.parametrize("make", [classifier, binary, regression])
def test_a_file_has_the_bytes_that_the_safetensors_library_would_write(tmp_path, make, dtype):
    model = make()
    model.train(np.ones((6, 2)), [0, 1, 1, 0, 1, 0], print_every=None)
    for path, write in ((tmp_path / "model", model.save), (tmp_path / "parameters", model.save_parameters)):
        write(path)
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata()
        assert path.read_bytes() == save(load_file(path), metadata)


def test_two_saves_of_one_model_are_the_same_bytes(tmp_path):
    model = classifier()
    model.save(tmp_path / "a")
    model.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_parameters_alone_come_back(tmp_path, data):
    model, other = classifier(), classifier(dropout=0.5)
    model.train(*data, print_every=None)
    model.save_parameters(str(tmp_path / "spiral.parms"))
    other.load_parameters(tmp_path / "spiral.parms")
    assert parameters_of(other) == parameters_of(model)
    model.save(tmp_path / "whole.model")
    third = classifier()
    third.load_parameters(tmp_path / "whole.model")
    assert parameters_of(third) == parameters_of(model)


def test_load_parameters_casts_to_the_models_dtype(tmp_path):
    classifier(dtype="float64").save_parameters(tmp_path / "p")
    model = classifier()
    model.load_parameters(tmp_path / "p")
    assert model.predict(np.ones((1, 2))).dtype == np.float32


def test_parameters_of_another_network_change_nothing(tmp_path):
    classifier(n_inputs=5).save_parameters(tmp_path / "p")
    model = classifier()
    before = parameters_of(model)
    with pytest.raises(nnx.ModelFileError, match=r"does not fit this model\. .*shape \(2, 16\), got \(5, 16\)"):
        model.load_parameters(tmp_path / "p")
    regression().save_parameters(tmp_path / "p")
    with pytest.raises(nnx.ModelFileError, match="does not fit this model"):
        model.load_parameters(tmp_path / "p")
    assert parameters_of(model) == before
    with pytest.raises(nnx.ModelFileError, match=r"holds parameters alone\. Build the model and call"):
        nnx.Model.load(tmp_path / "p")


# Older files

BEFORE = Path(__file__).parent / "data"


def test_files_of_version_2_are_read(monkeypatch):
    """nnx 0.1.0 wrote them, with the safetensors library, and the table's columns as JSON."""
    X, y = np.random.RandomState(0).randn(12, 3), np.arange(12) % 2
    model = nnx.Model.load(BEFORE / "version2.model")
    assert model.table.columns == (
        Number("area", 70.5, 20.25, 2),
        Text("town", ("Göß", "Linz"), 1),
        Ignored("id"),
        Text("kind", ("flat", "house")),
    )
    assert model.optimizer.iterations == model.layers[2].training_forwards == 9
    np.testing.assert_allclose(model.predict(X)[0], [0.5400258, 0.45997423], rtol=1e-4)
    before = parameters_of(model)
    model.layers[0].weights += 1
    model.load_parameters(BEFORE / "version2.parameters")
    assert parameters_of(model) == before
    model.layers[0].weights += 1
    monkeypatch.setattr(nnx._kernels, "name", "numpy")  # which wrote the checkpoint
    arguments = {"batch_size": 5, "shuffle": True, "seed": 1, "print_every": None}
    model.train(X, y, epochs=3, resume=BEFORE / "version2.checkpoint", **arguments)
    assert parameters_of(model) == before
    assert model.optimizer.iterations == 9


# How they are written


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    model = classifier()
    path = tmp_path / "model"
    model.save(path)
    old = path.read_bytes()
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["model"]


def test_writing_is_to_a_temporary_file_in_the_folder_then_synced_then_renamed(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: calls.append("fsync") or fsync(descriptor))

    def spied(source, target):
        assert os.path.dirname(source) == os.path.dirname(target) == os.path.realpath(tmp_path)
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", spied)
    classifier().save(tmp_path / "model")
    assert calls == ["fsync", "replace"] + ["fsync"] * (os.name == "posix")  # the folder too


def test_a_saved_file_has_the_permissions_of_any_new_file(tmp_path):
    classifier().save(tmp_path / "model")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_places_that_cannot_be_written_to_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"Model\.save: path must be in an existing folder, got '.*nowhere/model'"
    ):
        classifier().save(tmp_path / "nowhere" / "model")
    with pytest.raises(IsADirectoryError, match=r"Model\.save: path must name a file, got '"):
        classifier().save(tmp_path)
    with pytest.raises(FileNotFoundError):
        nnx.Model.load(tmp_path / "missing")


# Custom classes


class Layer_Half:
    def __init__(self, factor=0.5):
        self.factor = factor

    def get_config(self):
        return {"factor": self.factor}

    def forward(self, inputs, training):
        self.output = inputs * inputs.dtype.type(self.factor)

    def backward(self, dvalues):
        self.dinputs = dvalues * dvalues.dtype.type(self.factor)


class Own_ReLU(nnx.Activation_ReLU):
    pass


def test_a_file_of_a_model_whose_loss_does_not_suit_its_last_layer_is_refused_with_the_way_out(tmp_path, monkeypatch):
    """Earlier versions of nnx have trained and saved such models."""
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    model.set(loss=nnx.Loss_CategoricalCrossentropy())
    with monkeypatch.context() as patched:
        patched.setattr(nnx.Model, "_check_output", lambda *arguments: None)
        model.finalize()
        model.save(tmp_path / "old")
    with pytest.raises(
        nnx.ModelFileError,
        match=r"^Model\.load: '.*old' holds a model that nnx no longer trains: the last layer must be "
        r"Activation_Softmax for Loss_CategoricalCrossentropy, got Layer_Dense\(2, 3\)\. Build a model with the right "
        r"last layer, and call its load_parameters\(path\)\.$",
    ):
        nnx.Model.load(tmp_path / "old")
    model.add(nnx.Activation_Softmax())
    model.finalize()
    model.load_parameters(tmp_path / "old")


def with_layer(layer):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    model.add(layer)
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    return model


def test_a_class_of_ones_own_is_refused_at_save_unless_it_describes_itself(tmp_path):
    class Layer_Plain(nnx.Activation_Linear):
        pass

    for layer in (Layer_Plain(), Own_ReLU()):
        with pytest.raises(TypeError, match=r"Model\.save: layer must be built in or define get_config\(\)"):
            with_layer(layer).save(tmp_path / "model")
    assert os.listdir(tmp_path) == []
    with_layer(Layer_Plain()).save_parameters(tmp_path / "p")


def test_a_class_that_describes_itself_comes_back_through_custom_objects(tmp_path, data):
    model = with_layer(Layer_Half(0.25))
    model.train(*data, epochs=2, print_every=None)
    model.save(tmp_path / "model")
    with pytest.raises(
        nnx.ModelFileError, match=r"a layer of the custom class 'Layer_Half'\. Pass custom_objects=\{'Layer"
    ):
        nnx.Model.load(tmp_path / "model")
    twin = nnx.Model.load(tmp_path / "model", custom_objects={"Layer_Half": Layer_Half})
    assert twin.layers[1].factor == 0.25
    for each in (model, twin):
        each.train(*data, print_every=None)
    assert parameters_of(model) == parameters_of(twin)


def test_a_class_of_ones_own_with_a_built_in_name_is_not_taken_for_the_built_in_one(tmp_path):
    class Activation_ReLU(Layer_Half):
        pass

    with_layer(Activation_ReLU()).save(tmp_path / "model")
    with pytest.raises(nnx.ModelFileError, match="the custom class 'Activation_ReLU'"):
        nnx.Model.load(tmp_path / "model")


def test_an_optimizer_of_ones_own_keeps_its_count(tmp_path, data):
    class Optimizer_Own(nnx.Optimizer_Adam):
        def get_config(self):
            return {"learning_rate": self.learning_rate}

    model = classifier()
    model.set(optimizer=Optimizer_Own(0.5))
    model.train(*data, epochs=3, print_every=None)
    model.save(tmp_path / "model")
    twin = nnx.Model.load(tmp_path / "model", {"Optimizer_Own": Optimizer_Own})
    assert type(twin.optimizer) is Optimizer_Own
    assert twin.optimizer.iterations == 3


def test_a_configuration_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(TypeError, match=r"Model\.save: get_config\(\) must return finite numbers and text only"):
        with_layer(Layer_Half(object())).save(tmp_path / "model")
    with pytest.raises(TypeError, match="finite numbers"):
        with_layer(Layer_Half(float("nan"))).save(tmp_path / "model")


def test_a_layer_whose_get_config_returns_too_much_is_refused(tmp_path):
    model = with_layer(Layer_Half(list(range(300_000))))
    with pytest.raises(ValueError, match=r"^Model\.save: the model must have a shorter description: .* get_config\(\)"):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


# What is refused


@pytest.fixture
def saved(tmp_path, data):
    model = classifier(dropout=0.2)
    model.train(*data, print_every=None)
    model.save(tmp_path / "model")
    return tmp_path / "model"


def refusal(path) -> str:
    with pytest.raises(nnx.ModelFileError) as caught:
        nnx.Model.load(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"Model.load: {str(path)!r} ")
    return sentence


@pytest.mark.parametrize("length", [0x10280, 0x10380, 0x10480, 0x10580])
def test_a_model_file_may_begin_like_a_pickle(tmp_path, length):
    path = tmp_path / "m"
    classifier().save(path)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].rstrip().ljust(length)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[end:])
    assert path.read_bytes()[:2] in (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
    nnx.Model.load(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_with_the_way_to_move_its_parameters_over(tmp_path, protocol):
    parameters = [(np.ones((2, 16)), np.zeros((1, 16))), (np.ones((16, 3)), np.zeros((1, 3)))]
    path = tmp_path / "old.parms"
    path.write_bytes(pickle.dumps(parameters, protocol))
    sentence = refusal(path)
    assert "is a pickle. nnx does not open pickles" in sentence
    # And the way works:
    np.savez(tmp_path / "parameters.npz", *[array for pair in parameters for array in pair])
    assert "numpy.savez('parameters.npz', *[array for pair in parameters for array in pair])" in sentence
    arrays = list(np.load(tmp_path / "parameters.npz").values())
    model = classifier()
    model.set_parameters(list(zip(arrays[::2], arrays[1::2], strict=True)))
    assert "model.set_parameters(list(zip(arrays[::2], arrays[1::2])))" in sentence
    np.testing.assert_array_equal(model.layers[0].weights, np.ones((2, 16)))


def test_a_file_cut_off_anywhere_is_refused(saved):
    whole = saved.read_bytes()
    for length in [*range(0, len(whole), 97), 7, 8, 9, len(whole) - 1]:
        saved.write_bytes(whole[:length])
        refusal(saved)
    saved.write_bytes(whole + b"more")
    refusal(saved)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 a zip file", b"\x89HDF\r\n\x1a\n" + bytes(100), b"{}", bytes(64), b"\xff" * 64]
)
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    refusal(tmp_path / "file")


def test_a_safetensors_file_of_others_is_refused(tmp_path):
    save_file({"x": np.ones(3)}, tmp_path / "file")
    assert "holds no model of nnx" in refusal(tmp_path / "file")
    save_file({"x": np.ones(3)}, tmp_path / "file", {"nnx": "hello"})
    assert "damaged" in refusal(tmp_path / "file")
    save_file({"x": np.ones(3)}, tmp_path / "file", {"nnx": "[" * 100_000})
    assert "damaged" in refusal(tmp_path / "file")


TAMPERED = {
    "another version": lambda d: d.update(version=1),
    "no rate": lambda d: d["optimizer"]["state"].update(current_learning_rate=None),
    "another format": lambda d: d.update(format="onnx"),
    "unknown key": lambda d: d.update(extra=1),
    "no layers": lambda d: d.update(layers=[]),
    "layers no list": lambda d: d.update(layers={}),
    "layer no object": lambda d: d["layers"].append(3),
    "unknown class": lambda d: d["layers"][0].update({"class": "os.system"}),
    "class of another role": lambda d: d["layers"][1].update({"class": "Optimizer_SGD"}),
    "class no text": lambda d: d["layers"][0].update({"class": ["Layer_Dense"]}),
    "config no object": lambda d: d["layers"][0].update(config=[1]),
    "unknown argument": lambda d: d["layers"][0]["config"].update(extra=1),
    "missing argument": lambda d: d["layers"][0]["config"].pop("n_inputs"),
    "missing setting": lambda d: d["optimizer"]["config"].pop("epsilon"),
    "missing state": lambda d: d["optimizer"]["state"].pop("iterations"),
    "huge layer": lambda d: d["layers"][0]["config"].update(n_inputs=10**12, n_neurons=10**12),
    "size of text": lambda d: d["layers"][0]["config"].update(n_inputs="2"),
    "unknown state": lambda d: d["layers"][0]["state"].update(__class__=1),
    "rate 0": lambda d: d["layers"][2]["state"].update(rate=0),
    "rate 2": lambda d: d["layers"][2]["state"].update(rate=2),
    "seed -1": lambda d: d["layers"][2]["state"].update(seed=-1),
    "fractional count": lambda d: d["optimizer"]["state"].update(iterations=1.5),
    "huge count": lambda d: d["optimizer"]["state"].update(iterations=10**30),
    "text rate": lambda d: d["optimizer"]["state"].update(current_learning_rate="fast"),
    "missing optimizer": lambda d: d.pop("optimizer"),
    "optimizer setting": lambda d: d["optimizer"]["config"].update(beta_1=2),
    "loss is an optimizer": lambda d: d.update(loss=d["optimizer"]),
    "trainable stranger": lambda d: d.update(trainable=[0, 17]),
    "trainable negative": lambda d: d.update(trainable=[-1]),
    "trainable twice": lambda d: d.update(trainable=[0, 0]),
    "trainable activation": lambda d: d.update(trainable=[1]),
    "trainable text": lambda d: d.update(trainable="all"),
    "shares a stranger": lambda d: d.update(shared={"layers.0.weight_cache2": "nowhere"}),
    "dtype": lambda d: d["layers"][0]["config"].update(dtype="float16"),
    "two dtypes": lambda d: d["layers"][0]["config"].update(dtype="float64"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_description_is_refused(saved, case):
    rewrite(saved, TAMPERED[case])
    refusal(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("layers.0.weights"),
        lambda t: t.pop("layers.3.biases"),
        lambda t: t.update({"layers.0.weights": t["layers.0.weights"].T.copy()}),
        lambda t: t.update({"layers.0.weight_cache": np.ones(3)}),
        lambda t: t.update({"layers.1.weights": np.ones((2, 2))}),
        lambda t: t.update({"layers.9.weights": np.ones((2, 2))}),
        lambda t: t.update({"stranger": np.ones(2)}),
        lambda t: t.update({"layers.0.forward": np.ones(2)}),
    ],
)
def test_tampered_arrays_are_refused(saved, change):
    rewrite(saved, None, change)
    refusal(saved)


@pytest.fixture
def with_table(tmp_path):
    model = classifier(n_inputs=3, n_classes=2)
    columns = [Number("area", 70, 20), Ignored("id"), Text("town", ("Göß", "Linz")), Text("kind", ("flat", "house"))]
    model.set(table=nnx.Table(columns, "kind"))
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_columns_are_arrays_in_a_file(with_table):
    tensors = load_file(with_table)
    assert tensors["table.number.mean"].tolist() == [70]
    assert bytes(tensors["table.text.categories"]).decode() == "GößLinzflathouse"
    rewrite(with_table)
    assert [column.name for column in nnx.Model.load(with_table).table.columns] == ["area", "id", "town", "kind"]


TAMPERED_TABLES = {
    "no table": (lambda d: d.update(table=3), None),
    "no columns": (lambda d: d["table"].update(columns=[]), None),
    "columns of text": (lambda d: d["table"].update(columns="all"), None),
    "an unknown type": (lambda d: d["table"]["columns"]["number"]["fields"].update(mean="complex"), None),
    "a type that is none": (lambda d: d["table"]["columns"]["number"]["fields"].update(mean={}), None),
    "too few values": (lambda d: d["table"]["columns"]["number"]["fields"].update(mean=[]), None),
    "a field more": (lambda d: d["table"]["columns"]["number"]["fields"].update(extra=[1]), None),
    "a kind more": (lambda d: d["table"]["columns"].update(date={"kind": "date", "fields": {"name": "text"}}), None),
    "a kind that is a list": (lambda d: d["table"]["columns"].update(number=[1]), None),
    "a kind that is unknown": (lambda d: d["table"]["columns"]["number"].update(kind="date"), None),
    "a kind without fields": (lambda d: d["table"]["columns"]["number"].pop("fields"), None),
    "a kind less": (lambda d: d["table"]["columns"].pop("text"), None),
    "arrays without a table": (lambda d: d.pop("table"), None),
    "no order": (None, lambda t: t.pop("table.order")),
    "an order of other kinds": (None, lambda t: t["table.order"].__setitem__(0, 9)),
    "an order of floats": (None, lambda t: t.update({"table.order": t["table.order"].astype("f4")})),
    "an array more": (None, lambda t: t.update({"table.number.extra": np.ones(1)})),
    "an array less": (None, lambda t: t.pop("table.number.mean")),
    "two means": (None, lambda t: t.update({"table.number.mean": np.ones(2)})),
    "a matrix of means": (None, lambda t: t.update({"table.number.mean": np.ones((1, 1))})),
    "a mean that is none": (None, lambda t: t["table.number.mean"].fill(np.nan)),
    "negative lengths": (None, lambda t: t["table.text.name.lengths"].__isub__(99)),
    "huge lengths": (None, lambda t: t["table.text.name.lengths"].fill(1 << 62)),
    "half a letter": (None, lambda t: t["table.text.categories.lengths"].__setitem__(slice(2), [2, 7])),
    "no text": (None, lambda t: t["table.text.name"].fill(255)),
    "negative counts": (None, lambda t: t["table.text.categories.counts"].__setitem__(slice(2), [-1, 5])),
    "other counts": (None, lambda t: t["table.text.categories.counts"].fill(3)),
    "huge counts": (None, lambda t: t["table.text.categories.counts"].fill(1 << 62)),
}


@pytest.mark.parametrize("case", TAMPERED_TABLES)
def test_a_tampered_table_is_refused(with_table, case):
    rewrite(with_table, *TAMPERED_TABLES[case])
    sentence = refusal(with_table)
    expected = "belongs to no layer" if case == "arrays without a table" else "is damaged: its table cannot be used ("
    assert expected in sentence


def test_a_table_of_more_than_can_be_read_is_refused_at_once(with_table):
    """Each of these files holds all the data that it claims."""
    for changes in (
        {"table.order": np.zeros(200_000, np.uint8)},
        {"table.text.name.lengths": np.zeros(200_000, np.int64)},
        {"table.text.name": np.full(9_000_000, ord("x"), np.uint8)},
    ):
        content = with_table.read_bytes()
        rewrite(with_table, None, lambda tensors, changes=changes: tensors.update(changes))
        assert "its table cannot be used (it must have " in refusal(with_table)
        with_table.write_bytes(content)


def test_numbers_that_are_not_finite_are_refused(saved):
    description, tensors = description_of(saved), load_file(saved)
    description["optimizer"]["config"]["epsilon"] = float("nan")
    save_file(tensors, saved, {"nnx": json.dumps(description)})
    refusal(saved)


def test_an_untampered_rewrite_is_accepted(saved):
    rewrite(saved)
    nnx.Model.load(saved)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda m: vars(m.optimizer).update(learning_rate=-0.1), "learning_rate must be a finite number of at least 0"),
        (lambda m: vars(m.optimizer).update(iterations=1e3), r"iterations must be a whole number, got 1000\.0"),
        (lambda m: vars(m.layers[0]).update(weight_regularizer_l2=-1e-3), "weight_regularizer_l2 must be a finite"),
        (lambda m: vars(m.accuracy).update(binary=0), "binary must be True or False, got 0"),
        (
            lambda m: vars(m.layers[0]).update(weight_cache=np.ones((3, 3))),
            r"weight_cache must have shape \(2, 16\), got",
        ),
    ],
)
def test_save_refuses_what_load_would_refuse(tmp_path, spoil, sentence):
    model = classifier()
    spoil(model)
    with pytest.raises((TypeError, ValueError), match=sentence):
        model.save(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_attributes_of_own_classes_are_theirs(tmp_path):
    class Layer_Rated(Layer_Half):
        rate = "slow"
        seed = object()

    with_layer(Layer_Rated()).save(tmp_path / "model")
    nnx.Model.load(tmp_path / "model", {"Layer_Rated": Layer_Rated})


def test_a_subclass_of_model_is_loaded_by_that_class(tmp_path):
    class Model_Scaled(nnx.Model):
        def __init__(self):
            self.scale = 0.1

        def forward(self, X, training):
            return super().forward(np.asarray(X) * self.scale, training)

    model = Model_Scaled()
    model.add(nnx.Layer_Dense(2, 3))
    model.finalize()
    model.save(tmp_path / "model")
    with pytest.raises(nnx.ModelFileError, match=r"holds a Model_Scaled\. Call Model_Scaled\.load\(path\)\."):
        nnx.Model.load(tmp_path / "model")
    twin = Model_Scaled.load(tmp_path / "model")
    np.testing.assert_array_equal(twin.predict(np.ones((1, 2))), model.predict(np.ones((1, 2))))


def test_layers_without_biases_can_be_saved(tmp_path):
    class Layer_Weights(Layer_Half):
        def __init__(self, factor=0.5):
            self.factor = factor
            self.weights = np.full((1, 3), factor)

        def get_parameters(self):
            return (self.weights,)

        def set_parameters(self, weights):
            self.weights = weights

    model = with_layer(Layer_Weights(0.75))
    model.save(tmp_path / "model")
    model.save_parameters(tmp_path / "p")
    twin = nnx.Model.load(tmp_path / "model", {"Layer_Weights": Layer_Weights})
    np.testing.assert_array_equal(twin.layers[1].weights, np.full((1, 3), 0.75))
    model.layers[1].weights = np.zeros((1, 3))
    model.load_parameters(tmp_path / "p")
    np.testing.assert_array_equal(model.layers[1].weights, np.full((1, 3), 0.75))
    model.layers[1].weights = [[0.0, 0.0, 0.0]]
    with pytest.raises(TypeError, match="weights must be an array, got those of"):
        model.save(tmp_path / "model")
    model.layers[1].weights = np.zeros((1, 3), object)
    with pytest.raises(TypeError, match=r"weights of layer 1 must be an array of real numbers, got object\."):
        model.save(tmp_path / "model")


def test_an_own_class_that_does_not_fit_the_file_is_refused(tmp_path):
    with_layer(Layer_Half()).save(tmp_path / "model")
    for wrong in (nnx.Accuracy_Regression, type("Layer_Half", (), {"__init__": lambda self, factor: None})):
        with pytest.raises(nnx.ModelFileError, match="gives no Layer_Half"):
            nnx.Model.load(tmp_path / "model", {"Layer_Half": wrong})
    rewrite(tmp_path / "model", lambda d: d["layers"][1].update(config={"strange": 1}))
    with pytest.raises(nnx.ModelFileError, match="gives no Layer_Half"):
        nnx.Model.load(tmp_path / "model", {"Layer_Half": Layer_Half})


def test_dtypes_that_are_no_real_numbers_are_refused(saved):
    content = saved.read_bytes()
    assert content.count(b'"dtype":"F32"') > 0
    for dtype in ("int32", "float32"):
        rewrite(
            saved,
            change_tensors=lambda tensors, dtype=dtype: tensors.update(
                {"layers.0.weights": tensors["layers.0.weights"].astype(dtype)}
            ),
        )
        nnx.Model.load(saved)
    length = int.from_bytes(content[:8], "little")
    real = b'"dtype":"F32","shape":[1,16]'
    for other, dtype in ((b'"dtype":"C64","shape":[1,8]', "C64"), (b'"dtype":"F8_E5M2","shape":[1,64]', "F8_E5M2")):
        header = content[8 : 8 + length].rstrip().replace(real, other)
        assert other in header
        saved.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
        assert f"holds arrays of {dtype}" in refusal(saved)


def test_numbers_beyond_any_float_in_a_file_are_refused(saved):
    rewrite(saved, lambda d: d["optimizer"]["config"].update(epsilon=10**400))
    refusal(saved)


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_a_path_that_names_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("nosuch/", "pipe"):
        with pytest.raises(OSError, match=r"Model\.save: path must name a file, got '"):
            classifier().save(f"{tmp_path}/{path}")
    assert os.listdir(tmp_path) == ["pipe"]


def test_flipped_bits_give_a_model_or_a_model_file_error(saved, rng):
    whole = np.frombuffer(saved.read_bytes(), np.uint8)
    header = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    refused = 0
    for _ in range(400):
        flipped = whole.copy()
        flipped[rng.integers(0, header, 2)] ^= 1 << rng.integers(0, 8, 2).astype(np.uint8)
        saved.write_bytes(flipped.tobytes())
        try:
            nnx.Model.load(saved)
        except nnx.ModelFileError:
            refused += 1
    assert refused > 200
