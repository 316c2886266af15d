"""`export_onnx`: ONNX Runtime's outputs for the files are those of `predict`."""

from __future__ import annotations

import datetime
import json
import sys

import numpy as np
import pytest
from layer_examples import LAYERS, in_front

import nnx
from nnx import cli
from nnx._base.vocabulary import BUILT_IN
from nnx.engine import program
from nnx.files.onnx_layers import TRANSLATIONS

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.one_backend

#: In float32, some activations of runtimes are off by about 1e-8 of their largest values. In double, all are as exact
#: as in nnx, also erf.
TOLERANCE = {"float32": {"rtol": 1e-5, "atol": 2e-6}, "float64": {"rtol": 1e-12, "atol": 1e-14}}


def spread():
    """Return a dense layer that passes five columns on unchanged."""
    layer = nnx.Layer_Dense(5, 5)
    layer.weights = np.eye(5, dtype=layer.dtype)
    return layer


def assert_close(found, expected, dtype):
    """Compare outputs, relative to the largest: a small sum of large numbers is only as exact as those."""
    kind = TOLERANCE[np.dtype(dtype).name]
    largest = max(1, np.absolute(expected).max())
    np.testing.assert_allclose(found, expected, rtol=kind["rtol"], atol=kind["atol"] * largest)


def model_of(*layers, **settings):
    model = nnx.Model()
    for layer in layers:
        model.add(layer)
    model.set(**settings)
    model.finalize()
    return model


def run(path, feeds):
    """Return the outputs of a file by name."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def exported(model, path, X):
    model.export_onnx(path)
    return run(path, {"inputs": X})["outputs"]


@pytest.mark.parametrize("kind", BUILT_IN["layer"], ids=lambda kind: kind.__name__)
def test_each_layer_computes_what_predict_does(kind, dtype, tmp_path, rng):
    layer = LAYERS.get(kind.__name__, kind)()
    X = np.concatenate([4 * rng.normal(size=(40, 5)), np.linspace(-30, 30, 300).reshape(5, 60).T])
    if kind is nnx.Layer_Embedding:
        X[:, [1, 3]] = rng.integers(0, 3, (100, 2))
    X = X.astype(dtype)
    after = nnx._base.widths.width_after(layer, 5)
    is_first = kind in (nnx.Layer_Embedding, nnx.Layer_Dense)
    layers = [layer] if is_first else [spread(), *in_front(kind), layer]
    model = model_of(*layers, nnx.Layer_Dense(after, 3, weight_initializer="he_normal"))
    found = exported(model, tmp_path / "model.onnx", X)
    assert found.dtype == dtype
    assert_close(found, model.predict(X), dtype)


ACTIVATIONS = [kind for kind in BUILT_IN["layer"] if kind.__name__.startswith("Activation_")]


@pytest.mark.parametrize("kind", [*ACTIVATIONS, nnx.Activation_GELU], ids=lambda kind: kind.__name__)
def test_activations_far_out_and_near_0(kind, dtype, tmp_path, request):
    far = [0, 1e-6, 1e-3, 0.5, 3, 9, 20, 88, 110, 700, 1e4, 1e30]
    X = np.array([[sign * value] * 5 for value in far for sign in (1, -1)], dtype)
    approximate = {"approximate": True} if request.node.name.endswith("GELU1]") else {}
    model = model_of(spread(), kind(**approximate))
    np.testing.assert_allclose(exported(model, tmp_path / "model.onnx", X), model.predict(X), **TOLERANCE[dtype.name])


def test_each_kind_of_layer_has_a_translation():
    kinds = {kind._kernel for kind in BUILT_IN["layer"] if hasattr(kind, "_kernel")}
    assert kinds - set(program.RANDOM) - {"residual"} <= set(TRANSLATIONS)  # a residual is a fork and a join


def test_steps_and_several_embeddings(dtype, tmp_path, rng):
    X = np.column_stack([rng.integers(0, 4, 50), rng.normal(size=50), rng.integers(0, 2, 50)]).astype(dtype)
    first = nnx.Layer_Embedding(3, [2], 2, 3, weight_initializer="he_normal")
    second = nnx.Layer_Embedding(5, [0], 4, 2, weight_initializer="he_normal")
    steps = nnx.Layer_Spline(6, 4, [0], [[-1.0, 0.0, 1.0]], degree=0, weight_initializer="he_normal")
    model = model_of(first, second, steps, nnx.Layer_Dense(4, 2, weight_initializer="he_normal"))
    found = exported(model, tmp_path / "model.onnx", X)
    assert_close(found, model.predict(X), dtype)


@pytest.mark.parametrize("code", [-1, 4, 1.5, np.nan])
def test_a_number_that_is_no_category_is_an_error_of_the_runtime(code, tmp_path):
    embedding = nnx.Layer_Embedding(2, [0], 4, 2)
    model = model_of(embedding, nnx.Layer_Dense(3, 1))
    model.export_onnx(tmp_path / "model.onnx")
    with pytest.raises(Exception, match="Gather"):
        run(tmp_path / "model.onnx", {"inputs": np.array([[code, 0]], np.float32)})


def test_averages_are_what_predict_uses(tmp_path, rng):
    model = model_of(
        nnx.Layer_Dense(5, 1),
        loss=nnx.Loss_MeanSquaredError(),
        optimizer=nnx.Optimizer_SGD(0.1, average=0.9),
        accuracy=nnx.Accuracy_Regression(),
    )
    X = rng.normal(size=(20, 5)).astype(np.float32)
    model.train(X, X[:, :1], epochs=5, print_every=None)
    assert not np.allclose(model.layers[0].weights, model.layers[0].weight_averages)
    np.testing.assert_allclose(exported(model, tmp_path / "model.onnx", X), model.predict(X), rtol=1e-5)


def test_a_batch_may_have_any_size_and_names_say_what_is_what(tmp_path):
    path = tmp_path / "model.onnx"
    model = model_of(nnx.Layer_Dense(3, 2), nnx.Activation_Softmax())
    model.export_onnx(path)
    for rows in (0, 1, 70):
        assert run(path, {"inputs": np.zeros((rows, 3), np.float32)})["outputs"].shape == (rows, 2)
    graph = onnx.load(path).graph
    assert [node.name for node in graph.node] == ["layers.0.dense.Gemm", "layers.1.softmax.Softmax", "Identity"]
    assert {each.name for each in graph.initializer} == {"layers.0.dense.weights", "layers.0.dense.biases"}
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    onnx.checker.check_model(str(path), full_check=True)


def test_predictors_and_ensembles(dtype, tmp_path, rng):
    X = rng.normal(size=(30, 5)).astype(dtype)
    build = lambda rng: model_of(  # noqa: E731
        nnx.Layer_Dense(5, int(rng.integers(3, 9)), weight_initializer="he_normal"), nnx.Activation_ReLU()
    )
    models = [build(rng) for _ in range(2)]
    for model in models:
        model.add(nnx.Layer_Dense(model.output_width(), 2, weight_initializer="he_normal"))
        model.finalize()
    ensemble = nnx.Ensemble(models)
    ensemble.counts = (3, 1)
    for thing, expected in ((ensemble, ensemble.predict(X)), (models[0].predictor(), models[0].predict(X))):
        found = exported(thing, tmp_path / "model.onnx", X)
        assert found.dtype == dtype
        assert_close(found, expected, dtype)


# Tables


def flats(rng, n=120):
    """Return a table with columns of all kinds, and gaps in each."""
    start = datetime.datetime(1950, 1, 1)
    moments = [(start + datetime.timedelta(seconds=int(each))) for each in rng.integers(0, 4 * 10**9, n)]
    found = {
        "area": rng.lognormal(4, 1, n).round(2).tolist(),
        "year": rng.integers(1900, 2020, n).astype(float).tolist(),
        "label": rng.choice(["a", "b", "c"], n).tolist(),  # also the name of an output
        "town": [f"t{each}" for each in rng.geometric(0.2, n)],
        "rooms": [str(each) for each in rng.integers(1, 5, n)],
        "sold": [str(moment) for moment in moments],
    }
    for values in found.values():
        for row in rng.integers(0, n, 8):
            values[row] = None
    price = [(area or 0) / 10 + rng.normal() for area in found["area"]]
    return {**found, "price": price, "kind": [["low", "middle", "high"][int(x > 4) + int(x > 9)] for x in price]}


def feeds(table, data):
    """Return the inputs of a file for rows of a table."""
    found = {}
    for column in table.inputs:
        values = data[column.name]
        if column.kind == "text":
            found[column.name] = np.array([["" if value is None else value] for value in values], object)
        elif column.kind == "date":
            moments = np.array(["NaT" if value is None else value.replace(" ", "T") for value in values], "M8[us]")
            days = (moments - np.datetime64(0, "us")) / np.timedelta64(1, "D")
            found[column.name] = days[:, None]
        else:
            found[column.name] = np.array([[np.nan if value is None else float(value)] for value in values])
    return found


WAYS = {
    "standard": {},
    "robust": {"scaling": "robust", "indicators": True, "rare": 6, "one_hot": 3},
    "normal": {"scaling": "normal", "text": ["rooms"], "one_hot": 6, "indicators": True},
    "days": {"drop": ["area", "year", "label", "town", "rooms"]},
    "without dates": {"drop": ["sold"], "rare": 6},
}


def network_for(preprocessor, last=(), n_outputs=None, loss=None):
    """Return an untrained network for a table, or for images."""
    width, layers = preprocessor.n_inputs, []
    embedded = getattr(preprocessor, "embedded", ())
    if embedded:
        columns, categories = map(list, zip(*embedded, strict=True))
        layers.append(nnx.Layer_Embedding(width, columns, categories, 3))
        width += 2 * len(embedded)
    layers += [nnx.Layer_Dense(width, 8, weight_initializer="he_normal"), nnx.Activation_Tanh()]
    layers.append(nnx.Layer_Dense(8, n_outputs or preprocessor.n_outputs, weight_initializer="he_normal"))
    key = "images" if isinstance(preprocessor, nnx.Images) else "table"
    return model_of(*layers, *last, loss=loss or nnx.Loss_MeanSquaredError(), **{key: preprocessor})


def classifier_for(preprocessor):
    return network_for(preprocessor, [nnx.Activation_Softmax()], loss=nnx.Loss_CategoricalCrossentropy())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", ["price", "kind"])
def test_raw_rows_become_answers(way, target, dtype, tmp_path, rng):
    data = flats(rng)
    choices = {**WAYS[way], "drop": [*WAYS[way].get("drop", []), "kind" if target == "price" else "price"]}
    table = nnx.Table.learn(data, target, **choices)
    model = classifier_for(table) if target == "kind" else network_for(table)
    model.export_onnx(tmp_path / "model.onnx")
    found = run(tmp_path / "model.onnx", feeds(table, data))
    outputs = model.predict(table.read_inputs(data))
    expected = table.decode(outputs)
    if target == "kind":
        label = "label_2" if any(column.name == "label" for column in table.inputs) else "label"
        assert found[label].tolist() == expected.tolist()
        assert_close(found["probabilities"], outputs, dtype)
    else:
        assert_close(found["prediction"], expected, dtype)
        assert_close(found["outputs"], outputs, dtype)


def test_an_ensemble_of_the_recipe(tmp_path, rng, compiled):
    data = flats(rng)
    data.pop("kind")
    table = nnx.Table.learn(data, "price", scaling="robust", indicators=True, one_hot=3)
    X, y = table.read_samples(data)
    from nnx import tabular

    ensemble = tabular.fit(table, X, y, effort="fast", seed=1).ensemble
    ensemble.export_onnx(tmp_path / "model.onnx")
    found = run(tmp_path / "model.onnx", feeds(table, data))["prediction"]
    np.testing.assert_allclose(found, table.decode(ensemble.predict(X)), rtol=1e-5, atol=1e-5)


def test_unknown_texts_are_missing_or_in_the_pool(tmp_path):
    data = {"town": ["Graz", "Linz", "Graz", "Linz", "Wels"], "y": [1.0, 2, 3, 4, 5]}
    for rare, same_as in ((0, ""), (2, "Wels")):
        table = nnx.Table.learn(data, "y", task="regression", rare=rare)
        model = network_for(table)
        model.export_onnx(tmp_path / "model.onnx")
        texts = np.array([["Salzburg"], [same_as], ["NA"], [""], ["Graz"]], object)
        strange, alike, spelled, gap, known = run(tmp_path / "model.onnx", {"town": texts})["prediction"]
        assert strange == alike
        assert spelled == gap != known


def test_categories_that_are_numbers(tmp_path):
    data = {"month": ["1", "2", "10", "1"], "y": [1.0, 2, 3, 4]}
    table = nnx.Table.learn(data, "y", task="regression", text=["month"])
    model = network_for(table)
    model.export_onnx(tmp_path / "model.onnx")
    plain, written = (run(tmp_path / "model.onnx", {"month": np.array([[x]], object)}) for x in ("10", "10.0"))
    assert plain["prediction"] == written["prediction"]


@pytest.mark.parametrize(
    ("loss", "n_outputs"),
    [(nnx.Loss_Poisson(), 1), (nnx.Loss_Pinball((0.1, 0.5, 0.9)), 3)],
    ids=lambda value: type(value).__name__,
)
def test_answers_that_are_not_the_outputs(loss, n_outputs, tmp_path, rng):
    data = {"x": rng.normal(size=30).tolist(), "y": rng.poisson(3, 30).astype(float).tolist()}
    table = nnx.Table.learn(data, "y", task="regression")
    model = network_for(table, loss=loss, n_outputs=n_outputs)
    model.export_onnx(tmp_path / "model.onnx")
    found = run(tmp_path / "model.onnx", feeds(table, data))
    outputs = model.predict(table.read_inputs(data))
    said = np.exp(outputs.astype(float)) if n_outputs == 1 else outputs[:, 1:2]
    np.testing.assert_allclose(found["prediction"], table.decode(said), rtol=1e-5)
    np.testing.assert_allclose(found["outputs"], outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "loss", [nnx.Loss_BinaryCrossentropy(), nnx.Loss_Hinge()], ids=lambda loss: type(loss).__name__
)
def test_two_classes_by_one_output(loss, tmp_path, rng):
    data = {"x": rng.normal(size=30).tolist(), "y": ["no", "yes"] * 15}
    table = nnx.Table.learn(data, "y")
    hinge = isinstance(loss, nnx.Loss_Hinge)
    last = [nnx.Activation_Linear() if hinge else nnx.Activation_Sigmoid()]
    model = network_for(table, last, 1, loss)
    model.export_onnx(tmp_path / "model.onnx")
    found = run(tmp_path / "model.onnx", feeds(table, data))
    outputs = model.predict(table.read_inputs(data))[:, 0]
    assert found["label"].tolist() == ["yes" if x > (0 if hinge else 0.5) else "no" for x in outputs]
    assert len(set(found["label"])) == 2
    if not hinge:
        np.testing.assert_allclose(found["probabilities"], np.column_stack([1 - outputs, outputs]), rtol=1e-5)


def test_days_of_four_centuries(tmp_path):
    days = np.concatenate([np.arange(-150_000, 150_000, 977), [-719162, 0, 11016, 11017, 47540, 47541]])
    texts = [str(np.datetime64(int(day), "D")) for day in days]
    table = nnx.Table.learn({"day": texts, "y": list(range(len(days)))}, "y", task="regression")
    assert {"year", "month", "weekday", "sine", "cosine"} <= set(table.columns[0].parts)
    model = model_of(nnx.Layer_Dense(table.n_inputs, 3), loss=nnx.Loss_Pinball(), table=table)
    model.export_onnx(tmp_path / "model.onnx")
    found = run(tmp_path / "model.onnx", {"day": days[:, None].astype(float)})["outputs"]
    np.testing.assert_allclose(found, model.predict(table.read_inputs({"day": texts})), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("colour", [False, True])
def test_pixels_become_names(colour, tmp_path, rng):
    images = nnx.Images(2, 3, ["cat", "dog", "owl"], colour=colour, mean=100.0, scale=50.0)
    model = classifier_for(images)
    pixels = rng.integers(0, 256, (20, *images.shape)).astype(np.uint8)
    model.export_onnx(tmp_path / "model.onnx")
    found = run(tmp_path / "model.onnx", {"pixels": pixels})
    outputs = model.predict(images.inputs(pixels))
    np.testing.assert_allclose(found["probabilities"], outputs, rtol=1e-5)
    assert found["label"].tolist() == images.decode(outputs).tolist()


def test_the_file_says_what_its_inputs_hold(tmp_path, rng):
    data = flats(rng)
    table = nnx.Table.learn(data, "kind", drop=["price"])
    model = classifier_for(table)
    model.export_onnx(tmp_path / "model.onnx")
    file = onnx.load(tmp_path / "model.onnx")
    said = {each.key: each.value for each in file.metadata_props}
    assert [each["kind"] for each in json.loads(said["columns"])] == ["number"] * 2 + ["text"] * 2 + ["number", "date"]
    assert json.loads(said["classes"]) == ["high", "low", "middle"]
    assert said["target"] == "kind"
    assert "days since 1970-01-01" in file.graph.input[-1].doc_string
    assert {each.domain: each.version for each in file.opset_import} == {"": 17, "ai.onnx.ml": 3}


# Refusals


class Own(nnx.Activation_ReLU):
    def forward(self, inputs, training=True):
        self.output = np.asarray(inputs) * 2


def test_a_layer_of_ones_own_is_refused(tmp_path):
    model = model_of(nnx.Layer_Dense(2, 2), Own())
    with pytest.raises(ValueError, match=r"^Model\.export_onnx: the model must have only built-in parts, but .*Own"):
        model.export_onnx(tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path):
    model = model_of(nnx.Layer_Dense(2, 2))
    with pytest.raises(FileNotFoundError, match="existing folder"):
        model.export_onnx(tmp_path / "none" / "model.onnx")
    with pytest.raises(TypeError, match=r"Model\.export_onnx: path"):
        model.export_onnx(None)
    with pytest.raises(RuntimeError, match="finalize"):
        nnx.Model().export_onnx(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"Predictor\.export_onnx: precision must be float32, got bfloat16"):
        model.predictor("bfloat16").export_onnx(tmp_path / "model.onnx")
    table = nnx.Table.learn({"a": [1.0, 2, 3], "y": [1.0, 2, 3]}, "y", task="regression")
    model.table = table
    with pytest.raises(ValueError, match=r"Model\.export_onnx: table must give the 2 inputs"):
        model.export_onnx(tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


# The command


def test_nnx_export(tmp_path, capsys):
    model = model_of(nnx.Layer_Dense(2, 2), nnx.Activation_Softmax())
    saved, written = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    model.save(saved)
    assert cli.main(["export", str(saved), str(written)]) == 0
    assert "ONNX" in capsys.readouterr().out
    assert run(written, {"inputs": np.zeros((3, 2), np.float32)})["outputs"].shape == (3, 2)
    model.predictor().save(saved)
    assert cli.main(["export", str(saved), str(written)]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.safetensors", "model.txt"], "argument OUT: must end in one of .onnx, "),
        (["model.safetensors", "model"], "argument OUT: must end in one of .onnx, "),
        (["none.safetensors", "model.onnx"], "No such file"),
        (["model.safetensors", "none/model.onnx"], "existing folder"),
        (["model.safetensors", "model.safetensors"], "must not replace"),
        (["ensemble.safetensors", "weights.safetensors"], "Ensemble cannot be written as a PyTorch state dict"),
    ],
)
def test_nnx_export_refuses_in_one_sentence(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = model_of(nnx.Layer_Dense(2, 2))
    model.save("model.safetensors")
    nnx.Ensemble([model]).save("ensemble.safetensors")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as left:
        cli.main(["export", *arguments])
    assert left.value.code == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_without_the_package_the_message_says_what_to_install(tmp_path, monkeypatch, capsys):
    model = model_of(nnx.Layer_Dense(2, 2))
    model.save(tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "onnx", None)
    install = r"onnx is not installed\. Install it with: python -m pip install 'nnx-core\[onnx\]'"
    with pytest.raises(ImportError, match=rf"^Model\.export_onnx: the package {install}"):
        model.export_onnx(tmp_path / "model.onnx")
    with pytest.raises(ImportError, match=rf"^Model\.from_onnx: the package {install}"):
        nnx.Model.from_onnx(tmp_path / "model.safetensors")
    with pytest.raises(SystemExit):
        cli.main(["export", str(tmp_path / "model.safetensors"), str(tmp_path / "model.onnx")])
    assert "nnx-core[onnx]" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()
