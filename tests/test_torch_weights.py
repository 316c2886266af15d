"""`from_torch`, `Model.to_torch` and `Model.export_torch`: names, shapes and files of PyTorch's state dicts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from layer_examples import LAYERS, in_front

import nnx
from nnx import cli
from nnx._base.vocabulary import BUILT_IN

pytestmark = pytest.mark.one_backend

#: An nn.Sequential of Linear, ReLU, BatchNorm1d, Dropout, Linear, GELU, LayerNorm, Linear and Softmax, and its outputs
#: for some rows. `make.py` in that folder wrote both with PyTorch.
SAMPLE = Path(__file__).parent / "data" / "onnx" / "torch_classifier.safetensors"
ACTIVATIONS = ["relu", None, "gelu", "softmax"]


def linear(name, n_in, n_out, rng, dtype=np.float32):
    weight, bias = rng.normal(size=(n_out, n_in)), rng.normal(size=n_out)
    return {f"{name}.weight": weight.astype(dtype), f"{name}.bias": bias.astype(dtype)}


def norm(name, n, rng):
    names = ("weight", "bias", "running_mean", "running_var")
    arrays = {f"{name}.{each}": rng.uniform(0.5, 1.5, n).astype(np.float32) for each in names}
    return {**arrays, f"{name}.num_batches_tracked": np.array(7)}


def kinds(model):
    return " ".join(type(layer).__name__.partition("_")[2] for layer in model.layers)


def parameters(model):
    """Return the bytes of all arrays of a model's layers."""
    names = ("weights", "biases", "running_mean", "running_variance")
    return [
        getattr(layer, name).tobytes()
        for layer in nnx.layers.walk(model.layers)
        for name in names
        if hasattr(layer, name)
    ]


def test_a_file_of_pytorch_predicts_what_pytorch_does():
    model = nnx.from_torch(SAMPLE, ACTIVATIONS)
    assert kinds(model) == "Dense ReLU BatchNorm Dense GELU LayerNorm Dense Softmax"
    with np.load(SAMPLE.with_name("torch_classifier_script.npz")) as rows:
        np.testing.assert_allclose(model.predict(rows["inputs"]), rows["outputs"], rtol=1e-5, atol=1e-7)


def test_a_dict_of_arrays_does_as_a_file_does():
    state = safetensors.numpy.load_file(SAMPLE)
    shuffled = dict(sorted(state.items(), reverse=True))  # numbers have an order of their own
    assert parameters(nnx.from_torch(shuffled, ACTIVATIONS)) == parameters(nnx.from_torch(SAMPLE, ACTIVATIONS))


def build(dtype):
    model = nnx.Model()
    inside = [nnx.Layer_Dense(6, 6), nnx.Activation_PReLU(6), nnx.Layer_LayerNorm(6)]
    layers = [nnx.Layer_Dense(4, 6), nnx.Layer_BatchNorm(6), nnx.Activation_ELU(0.5), nnx.Layer_Residual(inside)]
    for layer in (*layers, nnx.Layer_Dropout(0.5), nnx.Layer_Dense(6, 2), nnx.Activation_Softmax()):
        model.add(layer)
    model.finalize()
    for layer in nnx.layers.walk(model.layers):
        for name in ("weights", "biases", "running_mean", "running_variance"):
            if hasattr(layer, name):
                setattr(layer, name, np.random.uniform(0.5, 1.5, getattr(layer, name).shape).astype(dtype))
    return model


def test_there_and_back_gives_equal_bytes(dtype, tmp_path, rng):
    model = build(dtype)
    state = model.to_torch()
    assert state["3.0.weight"].shape == (6, 6)
    np.testing.assert_array_equal(state["0.weight"], model.layers[0].weights.T)
    assert all(array.flags.c_contiguous and array.base is None for array in state.values())
    given = [nnx.Activation_ELU(0.5), None, nnx.Activation_Softmax()]
    back = nnx.from_torch(state, given, residuals=["3"])
    assert parameters(back) == parameters(model)
    X = rng.normal(size=(10, 4))
    assert back.predict(X).tobytes() == model.predict(X).tobytes()
    model.export_torch(tmp_path / "weights.safetensors")
    read = safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    assert {name: array.tobytes() for name, array in read.items()} == {
        name: array.tobytes() for name, array in state.items()
    }
    assert parameters(nnx.from_torch(tmp_path / "weights.safetensors", given, residuals=["3"])) == parameters(model)


def test_pytorch_itself(rng):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    layers = [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3, bias=False), nn.PReLU(3), nn.LayerNorm(3)]
    network = nn.Sequential(*layers).eval()
    X = rng.normal(size=(20, 4)).astype(np.float32)
    model = nnx.from_torch(network.state_dict(), "relu")
    np.testing.assert_allclose(model.predict(X), network(torch.from_numpy(X)).detach().numpy(), rtol=1e-5, atol=1e-6)
    layers[3] = nn.Linear(6, 3)
    other = nn.Sequential(*layers).eval()
    other.load_state_dict(model.to_torch(tensors=True))
    np.testing.assert_allclose(model.predict(X), other(torch.from_numpy(X)).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_averages_are_what_is_taken(rng):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 1))
    model.set(
        loss=nnx.Loss_MeanSquaredError(),
        optimizer=nnx.Optimizer_SGD(0.1, average=0.9),
        accuracy=nnx.Accuracy_Regression(),
    )
    model.finalize()
    X = rng.normal(size=(20, 2))
    model.train(X, X[:, :1], epochs=3, print_every=None)
    np.testing.assert_array_equal(model.to_torch()["0.weight"], model.layers[0].weight_averages.T)


# Which layers a state dict has


def test_modules_with_names_stand_in_their_order(rng):
    state = {**linear("head", 4, 5, rng), **norm("bn", 5, rng), **linear("body", 5, 3, rng), **linear("a", 3, 1, rng)}
    assert kinds(nnx.from_torch(state, "tanh")) == "Dense BatchNorm Tanh Dense Tanh Dense"
    assert kinds(nnx.from_torch(state, ["tanh", "relu", "sigmoid"])) == "Dense BatchNorm Tanh Dense ReLU Dense Sigmoid"


def test_modules_within_modules(rng):
    state = {**linear("net.1", 4, 5, rng), **linear("net.3", 5, 2, rng), **linear("out", 2, 1, rng)}
    assert kinds(nnx.from_torch(state, ["relu"])) == "Dense ReLU Dense Dense"


def test_more_than_ten_modules(rng):
    state = {key: value for at in range(0, 24, 2) for key, value in linear(str(at), 3, 3, rng).items()}
    state = dict(sorted(state.items()))  # as safetensors returns them: "10" before "2"
    model = nnx.from_torch(state, "relu")
    np.testing.assert_array_equal(model.layers[2].weights, state["2.weight"].T)
    assert len(model.layers) == 23


def test_a_linear_without_biases_and_norms_without_parameters(rng):
    state = {"0.weight": rng.normal(size=(3, 2)), "1.running_mean": np.ones(3), "1.running_var": np.full(3, 4.0)}
    model = nnx.from_torch(state, epsilon=1e-3)
    assert model.layers[1].epsilon == 1e-3
    X = rng.normal(size=(5, 2))
    expected = (X @ state["0.weight"].T - 1) / np.sqrt(4.001)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12)


def test_half_precision_becomes_float32(rng):
    state = linear("0", 3, 2, rng, np.float16)
    model = nnx.from_torch(state)
    assert model.layers[0].weights.dtype == np.float32
    np.testing.assert_array_equal(model.layers[0].weights, state["0.weight"].T)


def test_embeddings_beside_numbers(rng):
    state = {"towns.weight": rng.normal(size=(3, 2)), "days.weight": rng.normal(size=(7, 4)), **linear("0", 8, 1, rng)}
    model = nnx.from_torch(state, embeddings={"towns": 3, "days": 1})
    X = np.array([[0.5, 6, 0.25, 2], [1, 0, -1, 0]])
    wide = np.column_stack([X[:, [0, 2]], state["towns.weight"][[2, 0]], state["days.weight"][[6, 0]]])
    expected = wide @ state["0.weight"].T + state["0.bias"]
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12)


def test_embeddings_of_one_width_are_one_layer_and_come_back(rng):
    model = nnx.Model()
    model.add(nnx.Layer_Embedding(4, [1, 3], [5, 3], 2))
    model.add(nnx.Layer_Dense(6, 1))
    model.finalize()
    state = model.to_torch()
    assert [*state] == ["0.0.weight", "0.1.weight", "1.weight", "1.bias"]
    back = nnx.from_torch(state, embeddings={"0.0": 1, "0.1": 3})
    assert parameters(back) == parameters(model)
    assert kinds(back) == "Embedding Dense"


# What does not fit


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"0.weight": np.zeros((2, 1, 3, 3))}, r"state\['0.weight'\] must have 2 or 1 dimensions"),
        ({"0.weight_ih_l0": np.zeros((2, 2))}, r"state\['0.weight_ih_l0'\] must belong to a Linear"),
        ({"1.in_proj_weight": np.zeros((2, 2))}, r"state\['1.in_proj_weight'\] must belong to a Linear"),
        ({"2.weight": np.zeros((2, 7))}, r"state\['2.weight'\] must fit the 5 columns before it, got .* \(2, 7\)"),
        ({"2.bias": np.zeros(3)}, r"state\['2.bias'\] must have shape \(2,\), got .* \(3,\)"),
        ({"weight": np.zeros((2, 7))}, r"state\['weight'\] must belong to a module"),
        ({"3.weight": np.zeros(4), "3.bias": np.zeros(4)}, r"state\['3.weight'\] must fit the 2 columns before it"),
        ({"3.weight": np.zeros(2), "3.bias": np.zeros(3)}, r"state\['3.bias'\] must have shape \(2,\)"),
        ({"0.weight": np.zeros((0, 4)), "0.bias": np.zeros(0)}, r"state\['"),
        ({".".join("a" * 30): np.zeros((2, 2))}, "at most 20 deep"),
    ],
)
def test_the_first_key_that_does_not_fit_is_named(change, said, rng):
    state = {**linear("0", 4, 5, rng), **linear("2", 5, 2, rng), **change}
    with pytest.raises(ValueError, match=f"^from_torch: .*{said}"):
        nnx.from_torch(state, "relu")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"activations": None}, ValueError, "activations must be given, one for all or a list of 1"),
        ({"activations": []}, ValueError, "activations must be 1, one for each place .*: '1', or one more.*got 0"),
        ({"activations": ["relu"] * 3}, ValueError, "activations must be 1, .* got 3"),
        ({"activations": "swish"}, ValueError, "activations must be .*'silu'.* got 'swish'"),
        ({"activations": nnx.Activation_ReLU}, TypeError, r"Write Activation_ReLU\(\)"),
        ({"activations": ["relu", 3]}, TypeError, r"activations\[1\] must be a name, a layer or None, got 3"),
        ({"residuals": "0"}, TypeError, "residuals must be a list"),
        ({"residuals": ["5"]}, ValueError, "state must have keys that begin with '5'"),
        ({"embeddings": {"0": 1}}, ValueError, r"state\['0.bias'\] must be the matrix of an Embedding"),
        ({"embeddings": {"e": 9}}, ValueError, "state must have keys that begin with 'e'"),
        ({"epsilon": 0}, ValueError, "epsilon must be"),
        ({"state": {}}, ValueError, "state must hold parameters, got none"),
        ({"state": {"0.weight": [[1.0]]}}, TypeError, r"state\['0.weight'\] must be an array or a tensor"),
        ({"state": {"0.weight": np.zeros((2, 2), int)}}, TypeError, "must hold floating-point numbers, got int64"),
        ({"state": {0: np.zeros((2, 2))}}, TypeError, "state must have texts as keys"),
        ({"state": 5}, TypeError, "from_torch: state"),
    ],
)
def test_wrong_arguments(arguments, error, said, rng):
    state = {**linear("0", 4, 5, rng), **linear("2", 5, 2, rng)}
    with pytest.raises(error, match=said):
        nnx.from_torch(**{"state": state, "activations": "relu", **arguments})


def test_embeddings_that_leave_no_room(rng):
    state = {"e.weight": rng.normal(size=(3, 2)), **linear("0", 4, 1, rng)}
    with pytest.raises(ValueError, match=r"embeddings must name columns that exist.*leaves 3 columns"):
        nnx.from_torch(state, embeddings={"e": 3})


@pytest.mark.parametrize("kind", ["Layer_Spline", "Layer_Scale"])
def test_layers_without_a_counterpart_are_refused(kind):
    model = nnx.Model()
    first = nnx.Layer_Scale(2) if kind == "Layer_Scale" else nnx.Layer_Spline(2, 2, [0], [[0.0, 1.0]])
    model.add(first)
    model.finalize()
    with pytest.raises(ValueError, match=rf"^Model\.to_torch: layers must have a counterpart in torch\.nn, got {kind}"):
        model.to_torch()


def test_each_layer_is_taken_or_refused():
    without = {"Layer_Scale", "Layer_PiecewiseLinear", "Layer_Thermometer", "Layer_Spline", "Layer_Periodic"}
    without |= {"Layer_Combinations", "Layer_Members", "Layer_MemberScale", "Layer_MemberDense"}
    for kind in BUILT_IN["layer"]:
        model = nnx.Model()
        for layer in (*in_front(kind), LAYERS.get(kind.__name__, kind)()):
            model.add(layer)
        model.finalize()
        if kind.__name__ in without:
            with pytest.raises(ValueError, match=r"must have a counterpart in torch\.nn, got Layer_"):
                model.to_torch()
        else:
            model.to_torch()


# Files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x04\x95 a pickle", "is a pickle. nnx does not open pickles"),
        (b"PK\x03\x04 what torch.save writes", "is a pickle"),
        (b"", "is not a safetensors file, or is cut off"),
        (b"\xff" * 20, "is not a safetensors file, or is cut off"),
    ],
)
def test_other_files_are_refused(content, said, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(nnx.ModelFileError, match=said):
        nnx.from_torch(path)


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 50_000,
        b"[1]",
        b'{"0.weight": 5}',
        {"0.weight": {**ENTRY, "shape": [1 << 40, 1 << 40]}},
        {"0.weight": {**ENTRY, "shape": [-2, -2]}},
        {"0.weight": {**ENTRY, "shape": [2.0, 2]}},
        {"0.weight": {**ENTRY, "dtype": "F7"}},
        {"0.weight": {**ENTRY, "dtype": ["F32"]}},
        {"0.weight": {**ENTRY, "data_offsets": [0, 1 << 60]}},
        {"0.weight": {**ENTRY, "data_offsets": [16, 0]}},
        {"0.weight": {**ENTRY, "data_offsets": [0]}},
        {"0.weight": ENTRY, "1.weight": ENTRY},
    ],
)
def test_damaged_headers_are_refused(header, tmp_path):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(nnx.ModelFileError, match="is damaged"):
        nnx.from_torch(path)


def test_bfloat16_in_a_file_is_read(tmp_path):
    numbers = np.array([[1.0, -2.5], [3e38, 0.0078125]], np.float32)
    content = (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"0.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + content)
    np.testing.assert_allclose(nnx.from_torch(path).layers[0].weights, numbers.T, rtol=2**-8)


def test_nnx_export_writes_a_state_dict(tmp_path, capsys):
    model = build(np.float32)
    model.save(tmp_path / "model.safetensors")
    arguments = [str(tmp_path / name) for name in ("model.safetensors", "weights.safetensors")]
    assert cli.main(["export", *arguments]) == 0
    assert "a PyTorch state dict" in capsys.readouterr().out
    assert safetensors.numpy.load_file(arguments[1]).keys() == model.to_torch().keys()
