"""`Model.from_onnx`: files that PyTorch, Keras and skl2onnx wrote, and files that hold something else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx._base.vocabulary import BUILT_IN

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

pytestmark = pytest.mark.one_backend

#: Written by `make.py` beside them.
SAMPLES = sorted((Path(__file__).parent / "data" / "onnx").glob("*.onnx"))
DENSE = [path for path in SAMPLES if "convolution" not in path.name]


def kinds(model):
    return " ".join(type(layer).__name__.partition("_")[2] for layer in model.layers)


@pytest.mark.parametrize("path", DENSE, ids=lambda path: path.stem)
def test_samples_agree_with_the_library_that_they_come_from(path):
    model = nnx.Model.from_onnx(path)
    with np.load(path.with_suffix(".npz")) as rows:
        inputs, outputs = rows["inputs"], rows["outputs"]
    found = model.predict(inputs.reshape(len(inputs), -1))
    exact = path.stem.startswith(("torch_residual", "sklearn_double"))
    assert found.dtype == (np.float64 if exact else np.float32)
    assert found.shape == outputs.shape
    np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-12 if exact else 1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torch_classifier_dynamo", "Dense ReLU BatchNorm Dense GELU LayerNorm Dense Softmax"),
        ("torch_residual_script", "Dense Residual Tanh Residual Dense"),
        ("keras_classifier_tf2onnx", "Dense ReLU BatchNorm Dense Tanh Dense Softmax"),
        ("sklearn_classifier", "Dense Tanh Dense Tanh Dense Softmax"),
        ("sklearn_two_classes", "Dense ReLU Dense ReLU Dense Softmax"),
        ("sklearn_regressor", "BatchNorm Dense Sigmoid Dense Sigmoid Dense"),
    ],
)
def test_layers_are_those_of_the_source(name, expected):
    assert kinds(nnx.Model.from_onnx(SAMPLES[0].with_name(f"{name}.onnx"))) == expected


def test_all_activations_are_recognized():
    model = nnx.Model.from_onnx(SAMPLES[0].with_name("torch_activations_script.onnx"))
    found = [layer for layer in model.layers if not isinstance(layer, nnx.Layer_Dense)]
    assert [repr(layer) for layer in found] == [
        "Activation_LeakyReLU(slope=0.2)",
        "Activation_PReLU()",
        "Activation_PReLU(n_inputs=5)",
        "Activation_ELU(alpha=0.7)",
        "Activation_SELU()",
        "Activation_GELU()",
        "Activation_SiLU()",
        "Activation_Mish()",
        "Activation_GELU(approximate=True)",
        "Activation_Softplus()",
        "Activation_HardSwish()",
        "Activation_HardSigmoid()",
        "Activation_Tanh()",
        "Activation_Sigmoid()",
    ]


@pytest.mark.parametrize("path", [path for path in SAMPLES if path not in DENSE], ids=lambda path: path.stem)
def test_the_first_operator_that_is_not_dense_is_named(path):
    with pytest.raises(
        nnx.ModelFileError, match=r"^Model\.from_onnx: .* holds the operator Conv \('.*[Cc]onv.*'\), which"
    ):
        nnx.Model.from_onnx(path)


def test_a_loaded_model_can_be_trained_and_saved(tmp_path):
    model = nnx.Model.from_onnx(SAMPLES[0].with_name("torch_classifier_dynamo.onnx"))
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    X = np.random.default_rng(0).normal(size=(30, 4))
    model.train(X, np.arange(30) % 3, epochs=3, print_every=None)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(nnx.Model.load(tmp_path / "model").predict(X), model.predict(X))


def test_nothing_random_is_drawn():
    state = np.random.get_state()
    nnx.Model.from_onnx(SAMPLES[0])
    assert all(np.array_equal(one, other) for one, other in zip(state, np.random.get_state(), strict=True))


# Files that nnx itself wrote


@pytest.mark.parametrize(
    "kind",
    [kind for kind in BUILT_IN["layer"] if kind.__name__.startswith("Activation_")],
    ids=lambda kind: kind.__name__,
)
def test_exported_models_come_back(kind, dtype, tmp_path, rng):
    model = nnx.Model()
    for layer in (
        nnx.Layer_Dense(3, 4),
        kind(),
        nnx.Layer_BatchNorm(4),
        nnx.Layer_Scale(4, 2.0),
        nnx.Layer_Dense(4, 2),
    ):
        model.add(layer)
    model.finalize()
    model.export_onnx(tmp_path / "model.onnx")
    back = nnx.Model.from_onnx(tmp_path / "model.onnx")
    assert isinstance(back.layers[1], known(kind))
    X = rng.normal(size=(20, 3)).astype(dtype)
    exact = dtype == np.float64
    np.testing.assert_allclose(back.predict(X), model.predict(X), rtol=1e-6 if exact else 1e-5, atol=1e-7)
    assert back.predict(X).dtype == dtype


def known(kind):
    """Return the class that comes back. In double, a fixed slope is a constant, like a trained one."""
    if kind is nnx.Activation_LeakyReLU and nnx.get_default_dtype() == np.float64:
        return nnx.Activation_PReLU
    return nnx.Layer_Scale if kind is nnx.Activation_Linear else kind


# Files made by hand


def file_of(path, nodes, constants=(), inputs=(("x", 1, ["n", 3]),), outputs=("y",), opset=17):
    """Write a file. A node is its operator, the names of its inputs and of its output, and attributes."""
    made = [helper.make_node(kind, read, [given], **attributes) for kind, read, given, attributes in nodes]
    tensors = [numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    graph = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(model.SerializeToString())
    return path


W = np.arange(6, dtype=np.float32).reshape(3, 2)
B = np.array([1, -1], np.float32)
ONE = {"W": W, "B": B, "two": np.float32(2), "half": np.float32(0.5)}
GEMM = ("Gemm", ["x", "W", "B"], "h", {})
X = np.array([[1, -2, 0.5], [0, 1, -1]], np.float32)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("Gemm", ["x", "W", "B"], "y", {"alpha": 2.0, "beta": 3.0})], 2 * X @ W + 3 * B),
        ([("MatMul", ["x", "W"], "h", {}), ("Add", ["B", "h"], "y", {})], X @ W + B),
        ([GEMM, ("Mul", ["h", "B"], "y", {})], (X @ W + B) * B),
        ([GEMM, ("Sub", ["B", "h"], "y", {})], -X @ W),
        ([GEMM, ("Mul", ["h", "two"], "a", {}), ("Tanh", ["a"], "y", {})], np.tanh(2 * (X @ W + B))),
        ([GEMM, ("Neg", ["h"], "a", {}), ("Relu", ["a"], "y", {})], np.maximum(0, -(X @ W + B))),
        ([GEMM, ("Tanh", ["h"], "a", {}), ("Add", ["a", "h"], "y", {})], np.tanh(X @ W + B) + X @ W + B),
        ([GEMM, ("Tanh", ["h"], "a", {}), ("Relu", ["a"], "y", {})], np.maximum(0, np.tanh(X @ W + B))),
        ([("Transpose", ["V"], "W2", {}), ("Gemm", ["x", "W2"], "y", {})], X @ W),
        ([("Mul", ["x", "two"], "a", {}), ("Gemm", ["a", "W"], "y", {})], 2 * X @ W),
    ],
)
def test_other_ways_to_write_a_dense_network(nodes, expected, tmp_path):
    path = file_of(tmp_path / "model.onnx", nodes, {**ONE, "V": np.ascontiguousarray(W.T)})
    np.testing.assert_allclose(nnx.Model.from_onnx(path).predict(X), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([GEMM, ("Sin", ["h"], "y", {})], "holds the operator Sin"),
        ([GEMM, ("Clip", ["h", "half", "two"], "a", {}), ("Gemm", ["a", "W2"], "y", {})], "holds the operator Clip"),
        ([GEMM, ("Softmax", ["h"], "y", {"axis": 0})], "holds the operator Softmax"),
        ([("Gemm", ["x", "W"], "y", {"transA": 1})], "holds the operator Gemm"),
        (
            [
                GEMM,
                ("Mul", ["h", "h2"], "y", {}),
            ],
            "nothing makes 'h2'",
        ),
        ([GEMM, ("MatMul", ["x", "W"], "g", {}), ("Mul", ["h", "g"], "y", {})], "holds the operator Mul"),
        ([GEMM, ("Concat", ["h", "h"], "y", {"axis": 1})], "holds the operator Concat"),
        ([GEMM, ("Gemm", ["h", "W"], "y", {})], "holds the operator Gemm"),
        ([("Relu", ["x"], "y", {})], "holds no dense layer"),
        ([GEMM], "must have one input"),
        ([("Gemm", ["W", "W2"], "y", {})], "must have one input"),
        ([GEMM, ("Cast", [], "y", {"to": 1})], "must have one input|holds the operator Cast"),
        ([("Gemm", ["x", "W"], "y", {"beta": numpy_helper.from_array(np.float32(1))})], "holds the operator Gemm"),
        ([GEMM, ("Cast", ["h"], "y", {"to": 8})], "holds the operator Cast"),
        ([("If", ["x"], "y", {"then_branch": helper.make_graph([], "g", [], [])})], "holds the operator If"),
    ],
)
def test_other_networks_are_refused(nodes, said, tmp_path):
    path = file_of(tmp_path / "model.onnx", nodes, {**ONE, "W2": np.ones((2, 2), np.float32)})
    with pytest.raises(nnx.ModelFileError, match=said) as refused:
        nnx.Model.from_onnx(path)
    assert "\n" not in str(refused.value)


def test_samples_of_more_dimensions_must_be_flattened_first(tmp_path):
    nodes = [("Flatten", ["x"], "f", {}), ("Gemm", ["f", "W", "B"], "y", {})]
    inputs = [("x", 1, ["n", 3, 1])]
    path = file_of(tmp_path / "model.onnx", nodes, ONE, inputs)
    np.testing.assert_allclose(nnx.Model.from_onnx(path).predict(X), X @ W + B, rtol=1e-6)
    file_of(path, [GEMM, ("Relu", ["h"], "y", {})], ONE, inputs)
    with pytest.raises(nnx.ModelFileError, match=r"must take a matrix, .* or flatten its samples first"):
        nnx.Model.from_onnx(path)


def test_one_of_several_outputs(tmp_path):
    nodes = [GEMM, ("Relu", ["h"], "y", {})]
    path = file_of(tmp_path / "model.onnx", nodes, ONE, outputs=("y", "h"))
    with pytest.raises(nnx.ModelFileError, match=r"must have one output of numbers, got 2.*Choose one: output="):
        nnx.Model.from_onnx(path)
    assert len(nnx.Model.from_onnx(path, output="h").layers) == 1
    with pytest.raises(nnx.ModelFileError, match=r"has no output 'z'; its outputs are 'y', 'h'\.$"):
        nnx.Model.from_onnx(path, output="z")
    path = file_of(tmp_path / "named.onnx", [("Relu", ["x"], "scores", {})], {}, outputs=("scores",))
    with pytest.raises(nnx.ModelFileError, match=r"its outputs are 'scores'\. Did you mean 'scores'\?$"):
        nnx.Model.from_onnx(path, output="score")
    with pytest.raises(TypeError, match=r"Model\.from_onnx: output"):
        nnx.Model.from_onnx(path, output=1)


def test_a_table_comes_from_nnxs_own_file_only(tmp_path):
    table = nnx.Table.learn({"a": [1.0, 2, 3], "b": ["x", "y", "x"], "y": [1.0, 2, 3]}, "y", task="regression")
    model = nnx.Model()
    model.add(nnx.Layer_Dense(table.n_inputs, 1))
    model.set(loss=nnx.Loss_MeanSquaredError(), table=table)
    model.finalize()
    model.export_onnx(tmp_path / "model.onnx")
    with pytest.raises(nnx.ModelFileError, match="must have one input, a matrix, got 2: 'a', 'b'"):
        nnx.Model.from_onnx(tmp_path / "model.onnx", output="outputs")


# Damaged and hostile files


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08", bytes(100)])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(nnx.ModelFileError, match="is not an ONNX file"):
        nnx.Model.from_onnx(path)


def changed(path, change):
    """Apply a change to a sample, and return its path."""
    model = onnx.load(SAMPLES[0].with_name("torch_classifier_script.onnx"))
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    return path


def elsewhere(graph):
    tensor = graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="/etc/passwd")


def huge(graph):
    del graph.initializer[0].dims[:]
    graph.initializer[0].dims.extend([1 << 40, 1 << 40])


def negative(graph):
    del graph.initializer[0].dims[:]
    graph.initializer[0].dims.extend([-8, -4])


def wide(graph):
    """Use one number as a column of an input that claims to have thousands of millions."""
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = (1 << 31) - 1
    del graph.node[:]
    graph.node.append(helper.make_node("Mul", [graph.input[0].name, "s"], ["h"]))
    graph.node.append(helper.make_node("Add", ["h", "s"], [graph.output[0].name]))
    graph.initializer.append(numpy_helper.from_array(np.float32(3), "s"))


def endless(graph):
    graph.node[0].input[0] = graph.node[-1].output[0]


def again(graph):
    graph.node[1].output[0] = graph.node[0].output[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (elsewhere, "keeps numbers in another file"),
        (huge, "does not hold as many numbers as its shape says"),
        (negative, "does not hold as many numbers as its shape says"),
        (wide, "holds no dense layer"),
        (endless, "is damaged|must have one input"),
        (again, "two operators make"),
    ],
)
def test_hostile_files_are_refused(change, said, tmp_path):
    with pytest.raises(nnx.ModelFileError, match=said):
        nnx.Model.from_onnx(changed(tmp_path / "model.onnx", change))


def test_one_constant_cannot_become_thousands_of_layers(tmp_path):
    nodes = [("Gemm", [f"h{i}" if i else "x", "W"], f"h{i + 1}", {}) for i in range(300)]
    constants = {"W": np.ones((100, 100), np.float32)}
    path = file_of(tmp_path / "model.onnx", nodes, constants, [("x", 1, ["n", 100])], ["h300"])
    with pytest.raises(nnx.ModelFileError, match="far larger than the file"):
        nnx.Model.from_onnx(path)


def test_mutants_are_refused_or_load(tmp_path):
    draw = random.Random(1)
    content = SAMPLES[0].with_name("torch_classifier_script.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    n_loaded = 0
    for _ in range(300):
        mutant = bytearray(content)
        for _ in range(draw.choice((1, 3))):
            mutant[draw.randrange(len(mutant))] = draw.randrange(256)
        path.write_bytes(mutant)
        try:
            model = nnx.Model.from_onnx(path)
        except nnx.ModelFileError:
            continue
        n_loaded += 1
        with np.errstate(all="ignore"):
            assert len(model.predict(np.ones((2, model.layers[0].n_inputs)))) == 2
    assert 0 < n_loaded < 300
