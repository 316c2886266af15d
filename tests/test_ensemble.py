"""Ensembles: members with their own seeds, trained on the same rows, selected on held-out rows, used as one model."""

from __future__ import annotations

import copy
import doctest
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx import ensemble as module
from nnx.cli import main
from nnx.ensemble import load_any
from nnx.files import safetensors
from nnx.members import selection

pytestmark = pytest.mark.one_backend

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(240, 4)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.intp) + (X[:, 2] > 1)
X_NEW = GENERATOR.normal(size=(90, 4)).astype(np.float32)
Y_NEW = (X_NEW[:, 0] * X_NEW[:, 1] > 0).astype(np.intp) + (X_NEW[:, 2] > 1)


def build(rng, n_hidden=None, rate=0.1):
    """Return a classifier of 4 inputs and 3 classes, whose width is drawn."""
    n_hidden = int(rng.integers(6, 20)) if n_hidden is None else n_hidden
    model = nnx.Model()
    layers = [nnx.Layer_Dense(4, n_hidden), nnx.Activation_ReLU(), nnx.Layer_Dropout(rate)]
    for layer in (*layers, nnx.Layer_Dense(n_hidden, 3), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(10 ** rng.uniform(-2.5, -1.5)),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


def regression(rng):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(4, 8))
    model.add(nnx.Activation_Tanh())
    model.add(nnx.Layer_Dense(8, 1))
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_Adam(0.01), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    return model


def trained(n_members=4, **keywords):
    ensemble = nnx.Ensemble.of(build, n_members, seed=1)
    given = {"epochs": 12, "batch_size": 32, "shuffle": True, "seed": 2, "validation_data": (X_NEW, Y_NEW), **keywords}
    histories = ensemble.train(X, Y, **given)
    return ensemble, histories


def parameters(model):
    return b"".join(array.tobytes() for group in model.get_parameters() for array in group)


# Members


def test_the_summary_shows_what_members_have_in_common_and_no_drawn_seeds(capsys):
    class Own(nnx.Layer_Dropout):
        def __repr__(self):
            return f"my own layer, seed {self.seed}"

    def net(rng):
        model = nnx.Model()
        first, second = rng.integers(2**62, size=2).tolist()
        model.add(nnx.Layer_Dropout(0.25, seed=first))
        model.add(nnx.Layer_Residual([nnx.Layer_GaussianNoise(0.5, seed=second), nnx.Layer_Dense(2, 2)]))
        model.add(Own(0.5, seed=3))
        model.add(nnx.Layer_Dense(2, 1))
        model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Regression())
        model.finalize()
        return model

    ensemble = nnx.Ensemble.of(net, 2)
    seeds = {layer.seed for model in ensemble.models for layer in (model.layers[0], model.layers[1].layers[0])}
    assert len(seeds) == 4
    ensemble.summary()
    shown = capsys.readouterr().out
    assert "members 0, 1\n" in shown
    assert "\nLayer_Dropout(0.25)  " in shown
    assert "\n  Layer_GaussianNoise(0.5)  " in shown
    assert "\nmy own layer, seed 3  " in shown
    assert not any(str(seed) in shown for seed in seeds)
    ensemble.models[0].summary()  # that of one model shows its own
    assert f"Layer_Dropout(0.25, seed={ensemble.models[0].layers[0].seed})" in capsys.readouterr().out


def test_a_member_depends_on_the_seed_and_its_number_alone():
    before = np.random.get_state()[1].tolist()
    four, two, other = (nnx.Ensemble.of(build, n, seed=seed) for n, seed in ((4, 1), (2, 1), (2, 3)))
    assert np.random.get_state()[1].tolist() == before
    assert [parameters(model) for model in four.models[:2]] == [parameters(model) for model in two.models]
    everything = [parameters(model) for model in (*four.models, *other.models)]
    assert len(set(everything)) == 6
    assert len({model.layers[0].weights.shape for model in four.models}) > 1
    assert len({model.optimizer.learning_rate for model in four.models}) == 4


def test_training_gives_the_same_bits_for_any_number_of_threads_and_of_members():
    alone, _ = trained(2, threads=1)
    outputs = alone.predict(X_NEW, members=True)
    for n_members, threads in ((4, 1), (4, 2), (4, 3), (4, 9)):
        ensemble, _ = trained(n_members, threads=threads)
        found = ensemble.predict(X_NEW, members=True, threads=threads)
        assert found.shape == (n_members, len(X_NEW), 3)
        assert (found[:2] == outputs).all()


def test_members_train_as_they_would_alone():
    ensemble = nnx.Ensemble.of(lambda rng: build(rng, rate=0.0), 3)
    twins = [copy.deepcopy(model) for model in ensemble.models]
    weights = np.linspace(0, 2, len(X))
    common = {"epochs": 5, "batch_size": 50, "class_weight": "balanced", "sample_weight": weights}
    histories = ensemble.train(X.astype(np.float64), Y, together=False, **common)
    for twin, model, history in zip(twins, ensemble.models, histories, strict=True):
        alone = twin.train(X, Y, print_every=None, **common)
        assert parameters(twin) == parameters(model)
        assert alone.loss.tolist() == history.loss.tolist()
        assert model.history is history


def test_held_out_rows_are_those_that_a_model_would_hold_out():
    ensemble = nnx.Ensemble.of(lambda rng: build(rng, rate=0.0), 2)
    twins = copy.deepcopy(ensemble.models)
    histories = ensemble.train(X, Y, epochs=2, validation_split=0.25, seed=7, restore_best=False)
    for twin, history in zip(twins, histories, strict=True):
        alone = twin.train(X, Y, epochs=2, validation_split=0.25, seed=7, print_every=None)
        assert alone.loss.tolist() == history.loss.tolist()
        assert alone.validation_loss.tolist() == history.validation_loss.tolist()


def test_each_member_ends_with_its_best_epoch():
    ensemble, histories = trained(3, epochs=60, batch_size=8)
    assert any(np.argmin(history.validation_loss) < 59 for history in histories)
    for model, history in zip(ensemble.models, histories, strict=True):
        assert len(history.validation_loss) == 60
        found = model.evaluate(X_NEW, Y_NEW, silent=True)["loss"]
        assert found == pytest.approx(history.validation_loss.min(), rel=1e-5)
    ensemble, histories = trained(3, epochs=60, batch_size=8, restore_best=False)
    found = [model.evaluate(X_NEW, Y_NEW, silent=True)["loss"] for model in ensemble.models]
    assert found == pytest.approx([history.validation_loss[-1] for history in histories], rel=1e-5)


def test_members_stop_by_themselves():
    _, histories = trained(3, epochs=200, batch_size=8, patience=2)
    for history in histories:
        assert len(history.validation_loss) == np.argmin(history.validation_loss) + 3
    _, histories = trained(2, epochs=300, patience=1, monitor="loss", validation_data=None)
    assert max(len(history.loss) for history in histories) < 300


def test_callbacks_are_made_for_each_member():
    called = []
    trained(2, epochs=3, callbacks=lambda number: [lambda run: called.append((number, run.epoch))], threads=1)
    assert called == [(number, epoch) for number in (0, 1) for epoch in (1, 2, 3)]


def test_members_read_the_same_samples():
    """None of three members copies the samples. With held-out rows, there is one copy for all."""
    many = GENERATOR.normal(size=(10_000, 300)).astype(np.float32)
    y = (many[:, 0] > 0).astype(np.intp)

    def wide(rng):
        model = nnx.Model()
        for layer in (nnx.Layer_Dense(300, 4), nnx.Activation_ReLU(), nnx.Layer_Dense(4, 2), nnx.Activation_Softmax()):
            model.add(layer)
        model.set(
            loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
        )
        model.finalize()
        return model

    for keywords, copies in (({}, 0), ({"validation_split": 0.2}, 1)):
        ensemble = nnx.Ensemble.of(wide, 3)
        tracemalloc.start()
        try:
            ensemble.train(many, y, epochs=2, batch_size=50, shuffle=True, threads=3, **keywords)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < (copies + 0.5) * many.nbytes


def test_ctrl_c_stops_all_members():
    def interrupt(run):
        if run.epoch == 2:
            raise KeyboardInterrupt

    ensemble = nnx.Ensemble.of(build, 3)
    with pytest.raises(KeyboardInterrupt):
        ensemble.train(X, Y, epochs=100_000, threads=3, callbacks=lambda number: [interrupt] if number == 1 else [])
    assert all(model.history is None or len(model.history.loss) < 100_000 for model in ensemble.models)
    assert ensemble.predict(X).shape == (240, 3)


def test_the_page_about_ensembles_is_true():
    page = Path(__file__).parents[1] / "docs" / "guide" / "ensembles.md"
    done = doctest.testfile(str(page), module_relative=False)
    assert done.attempted > 5
    assert done.failed == 0


def test_a_member_that_diverges_does_not_spoil_the_others():
    def wild(rng):
        model = regression(rng)
        model.set(optimizer=nnx.Optimizer_SGD(rng.choice([0.1, 1e20])))
        return model

    ensemble, targets = nnx.Ensemble.of(wild, 6), X.sum(1)
    rates = [model.optimizer.learning_rate for model in ensemble.models]
    assert 0 < rates.count(1e20) < 6
    keywords = {"epochs": 30, "batch_size": 40, "validation_data": (X_NEW, X_NEW.sum(1))}
    with pytest.raises(nnx.DivergenceError):
        copy.deepcopy(ensemble).train(X, targets, **keywords)
    ensemble.train(X, targets, on_nonfinite="ignore", **keywords)
    counts = ensemble.select(X_NEW, X_NEW.sum(1))
    assert all(rate < 1 for rate, n in zip(rates, counts, strict=True) if n)
    assert ensemble.score(X, targets) > 0.5


def test_pictures_take_ensembles():
    pytest.importorskip("matplotlib")
    ensemble, _ = trained(2)
    axes = nnx.plot.confusion_matrix(ensemble, X_NEW, Y_NEW)
    counts = np.array([int(text.get_text().split()[0]) for text in axes.texts]).reshape(3, 3)
    assert counts.sum() == len(X_NEW)
    assert np.trace(counts) == np.sum(ensemble.predict_classes(X_NEW) == Y_NEW)


# What is refused


def test_models_must_go_together():
    rng = np.random.default_rng(0)
    first, wider = build(rng), nnx.Model()
    for layer in (nnx.Layer_Dense(5, 3), nnx.Activation_Softmax()):
        wider.add(layer)
    wider.finalize()
    shared = nnx.Model()
    for layer in (first.layers[0], nnx.Layer_Dense(first.layers[0].weights.shape[1], 3), nnx.Activation_Softmax()):
        shared.add(layer)
    shared.set(loss=nnx.Loss_CategoricalCrossentropy())
    shared.finalize()
    double = nnx.Model()
    for layer in (nnx.Layer_Dense(4, 3, dtype="float64"), nnx.Activation_Softmax()):
        double.add(layer)
    double.finalize()
    for models, error, text in (
        ([], TypeError, r"Ensemble: models must be a sequence of at least one Model, got \[\]"),
        (first, TypeError, "Ensemble: models must be a sequence"),
        ([first, 3], TypeError, "must be of the class Model, got 3 at 1"),
        ([nnx.Model()], RuntimeError, "Ensemble: the model is not finalized"),
        ([first, wider], ValueError, r"same number of inputs, got 4 of models\[0\] and 5 of models\[1\]"),
        ([first, regression(rng)], ValueError, "same number of outputs, got 3"),
        ([first, double], ValueError, "same dtype, got float32"),
        ([regression(rng), _with_loss(nnx.Loss_Huber())], ValueError, "same class of loss"),
        ([first, first], ValueError, r"models\[1\] must not have its Model in common with models\[0\]"),
        ([first, shared], ValueError, r"models\[1\] must not have its Layer_Dense in common with models\[0\]"),
    ):
        with pytest.raises(error, match=text):
            nnx.Ensemble(models)
    for make, text in ((3, "build must be a function"), (lambda rng: None, "build must return a Model, got None")):
        with pytest.raises(TypeError, match=f"Ensemble.of: {text}"):
            nnx.Ensemble.of(make, 2)


def _with_loss(loss):
    model = regression(None)
    model.set(loss=loss)
    return model


def test_what_train_refuses_changes_nothing():
    ensemble = nnx.Ensemble.of(build, 2)
    before = [parameters(model) for model in ensemble.models]
    for keywords, error, text in (
        ({"epoch": 3}, TypeError, "there is no keyword 'epoch'"),
        ({"checkpoint": "x"}, TypeError, "checkpoint must not be given"),
        ({"print_every": 1}, TypeError, "print_every must not be given"),
        ({"callbacks": [nnx.EarlyStopping()]}, TypeError, "callbacks must be a function"),
        ({"callbacks": lambda number: number}, TypeError, r"callbacks\(0\) must be a list, got 0"),
        ({"validation_split": 2}, ValueError, "validation_split must be"),
        ({"validation_split": 0.2, "validation_data": (X, Y)}, ValueError, "must not be given together"),
        ({"validation_data": 3}, ValueError, "validation_data must be a pair"),
        ({"patience": 3}, ValueError, "validation_data or validation_split must be given"),
        ({"patience": 0, "validation_data": (X, Y)}, ValueError, "patience must be"),
        ({"monitor": "lose"}, ValueError, "monitor must be"),
        ({"seed": -1}, ValueError, "seed must be"),
        ({"threads": 0}, ValueError, "threads must be"),
        ({"restore_best": 1}, TypeError, "restore_best must be"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"sample_weight": [1]}, ValueError, "sample_weight must"),
    ):
        with pytest.raises(error, match=text):
            ensemble.train(X, Y, **keywords)
    with pytest.raises(ValueError, match="X must have shape"):
        ensemble.train(X[:, :2], Y)
    with pytest.raises(ValueError, match="X must"):
        ensemble.train(np.full_like(X, np.nan), Y)
    assert [parameters(model) for model in ensemble.models] == before
    ensemble.train(X, Y, print_every=None)


# Selection


def test_selection_draws_what_is_best_for_the_mean():
    """Against brute force: each draw gives the best mean, and the best of the means is kept."""
    loss = nnx.Loss_MeanSquaredError()
    truth = GENERATOR.normal(size=(50, 1)).astype(np.float32)
    outputs = truth + GENERATOR.normal(size=(6, 50, 1)).astype(np.float32) * np.linspace(0.3, 1, 6)[:, None, None]
    outputs = outputs.astype(np.float32)
    counts, best = np.zeros(6), (np.inf, None)
    for _ in range(20):
        scores = [
            float(np.mean((np.average(outputs, 0, counts + np.eye(6)[i]) - truth) ** 2, dtype=np.float64))
            for i in range(6)
        ]
        counts[np.argmin(scores)] += 1
        if min(scores) < best[0]:
            best = min(scores), counts.tolist()
    assert selection(loss, outputs, truth, None, 20) == best[1]
    assert sum(count > 0 for count in best[1]) > 1


def test_members_that_are_not_finite_are_never_drawn():
    loss, truth = nnx.Loss_MeanSquaredError(), np.zeros((5, 1), np.float32)
    outputs = np.stack([np.full((5, 1), value, np.float32) for value in (np.nan, 3, np.inf, 1)])
    assert selection(loss, outputs, truth, None, 4) == [0, 0, 0, 1]
    assert selection(loss, outputs[:1], truth, None, 4) == [0]


def test_weights_of_rows_count_in_the_selection():
    loss, truth = nnx.Loss_MeanSquaredError(), np.zeros((2, 1), np.float32)
    outputs = np.array([[[0], [9]], [[5], [0]]], np.float32)
    assert selection(loss, outputs, truth, np.array([1.0, 0.0]), 3) == [1, 0]
    assert selection(loss, outputs, truth, np.array([0.0, 1.0]), 3) == [0, 1]


def test_select_keeps_members_and_counts_them():
    ensemble, _ = trained(5)
    before, outputs = ensemble.models, ensemble.predict(X_NEW, members=True)
    loss = ensemble.evaluate(X_NEW, Y_NEW, silent=True)["loss"]
    counts = ensemble.select(X_NEW, Y_NEW)
    assert len(counts) == 5
    assert ensemble.models == tuple(model for model, n in zip(before, counts, strict=True) if n)
    assert ensemble.counts == tuple(n for n in counts if n)
    assert sum(ensemble.weights) == pytest.approx(1)
    np.testing.assert_allclose(ensemble.predict(X_NEW), np.average(outputs, 0, counts), rtol=1e-5)
    assert ensemble.evaluate(X_NEW, Y_NEW, silent=True)["loss"] <= loss
    assert sum(trained(5)[0].select(X_NEW, Y_NEW, most=1)) == 1
    hopeless = nnx.Ensemble.of(build, 2)
    for model in hopeless.models:
        model.layers[0].weights[:] = np.nan
    with pytest.raises(ValueError, match="at least one member must be finite"):
        hopeless.select(X_NEW, Y_NEW)
    assert len(hopeless) == 2


# Predictions


def test_the_prediction_is_the_mean_of_the_members_outputs(monkeypatch):
    ensemble, _ = trained(3)
    outputs = ensemble.predict(X_NEW, members=True)
    for own, model in zip(outputs, ensemble.models, strict=True):
        assert (own == model.predict(X_NEW)).all()
    mean = ensemble.predict(X_NEW)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, outputs.mean(0), rtol=1e-6)
    assert (ensemble.predict_classes(X_NEW) == outputs.mean(0).argmax(1)).all()
    monkeypatch.setattr(module, "LEAST_NUMBERS", 0)
    assert all((ensemble.predict(X_NEW, threads=threads) == mean).all() for threads in (1, 2, 7))
    monkeypatch.setattr(module, "MOST_NUMBERS", 0)
    rows = np.concatenate([X_NEW] * 30)
    assert (ensemble.predict(rows) == np.concatenate([mean] * 30)).all()
    assert ensemble.predict(X_NEW[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"Ensemble.predict: X must have shape \(n, 4\)"):
        ensemble.predict(X_NEW[:, :3])


def test_evaluation_and_report_are_of_the_mean():
    ensemble, _ = trained(3)
    mean = ensemble.predict(X_NEW)
    figures = ensemble.evaluate(X_NEW, Y_NEW, silent=True, batch_size=20)
    assert figures["accuracy"] == np.mean(mean.argmax(1) == Y_NEW)
    assert figures["loss"] == pytest.approx(-np.log(mean[np.arange(90), Y_NEW]).mean(), rel=1e-5)
    assert ensemble.score(X_NEW, Y_NEW) == figures["accuracy"]
    assert ensemble.report(X_NEW, Y_NEW).log_loss == pytest.approx(figures["loss"], rel=1e-5)
    numbers = nnx.Ensemble.of(regression, 3)
    with pytest.raises(ValueError, match="y_val must have"):
        numbers.evaluate(X, Y[:5])
    targets = X.sum(1)
    numbers.train(X, targets, epochs=20, batch_size=30)
    error = np.mean((numbers.predict(X)[:, 0] - targets) ** 2)
    assert numbers.evaluate(X, targets, silent=True)["loss"] == pytest.approx(error, rel=1e-4)
    assert numbers.score(X, targets) == pytest.approx(1 - error / targets.var(), rel=1e-4)


def test_errors_of_a_member_reach_the_caller():
    ensemble, _ = trained(3)
    ensemble.models[1].layers[0].weights = "none"
    with pytest.raises(TypeError, match="weights must be"):
        ensemble.predict(X_NEW)


# Copies and files


def test_copies_and_pickles_are_ensembles_of_their_own():
    ensemble, _ = trained(3)
    ensemble.select(X_NEW, Y_NEW)
    for twin in (copy.deepcopy(ensemble), pickle.loads(pickle.dumps(ensemble)), copy.copy(ensemble)):
        assert (twin.predict(X_NEW) == ensemble.predict(X_NEW)).all()
        assert twin.counts == ensemble.counts
    assert copy.copy(ensemble).models == ensemble.models
    assert not set(map(id, copy.deepcopy(ensemble).models)) & set(map(id, ensemble.models))


def test_a_file_holds_all_that_predicting_and_training_on_need(tmp_path):
    ensemble, _ = trained(4)
    ensemble.select(X_NEW, Y_NEW)
    ensemble.save(tmp_path / "file")
    twin = nnx.Ensemble.load(tmp_path / "file")
    assert twin.counts == ensemble.counts
    assert (twin.predict(X_NEW) == ensemble.predict(X_NEW)).all()
    for each in (ensemble, twin):
        each.train(X, Y, epochs=2, batch_size=16, shuffle=True, seed=5)
    assert (twin.predict(X_NEW) == ensemble.predict(X_NEW)).all()
    assert isinstance(load_any(tmp_path / "file"), nnx.Ensemble)
    assert repr(twin).startswith(f"Ensemble of {len(twin)}, ")


def test_files_of_other_kinds_are_refused_by_the_name_of_their_reader(tmp_path):
    ensemble, _ = trained(2)
    path, other = tmp_path / "ensemble", tmp_path / "other"
    ensemble.save(path)
    model = ensemble.models[0]
    readers = [nnx.Model.load, nnx.Predictor.load, model.load_parameters]
    readers.append(lambda path: model.train(X, Y, resume=path))
    for read in readers[:3]:
        with pytest.raises(nnx.ModelFileError, match=r"holds an ensemble. Call nnx.Ensemble.load\(path\)"):
            read(path)
    with pytest.raises(nnx.ModelFileError, match="is not a checkpoint"):
        readers[3](path)
    for write, text in (
        (model.save, "holds a model. Call nnx.Model.load"),
        (model.save_parameters, "holds parameters alone"),
        (model.predictor().save, "holds a predictor. Call nnx.Predictor.load"),
    ):
        write(other)
        with pytest.raises(nnx.ModelFileError, match=f"Ensemble.load: .* {text}"):
            nnx.Ensemble.load(other)
    model.save(other)
    assert isinstance(load_any(other), nnx.Model)
    other.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(nnx.ModelFileError, match=r"Ensemble\.load"):
        nnx.Ensemble.load(other)


def test_damaged_ensembles_are_refused(tmp_path):
    ensemble, _ = trained(2)
    path = tmp_path / "file"
    ensemble.save(path)
    description, arrays = safetensors.read("test", path)
    odd = copy.deepcopy(description["members"][1])
    odd["layers"] = odd["layers"][-1:]
    table = {"table": {"header": True, "target": "a", "columns": {}}}
    for change, text in (
        ({"counts": [1]}, "it counts 1 members, and holds 2"),
        ({"counts": [1, 0]}, "counts must be"),
        ({"counts": [1, True]}, "counts must be"),
        ({"counts": [1, 10**30]}, "counts must be"),
        ({"counts": {}}, "no counts"),
        ({"members": [], "counts": []}, "holds no members"),
        ({"members": [description["members"][0]], "counts": [1]}, "belong to nothing"),
        ({"members": [description["members"][0], 3]}, "a member is not described"),
        ({"members": [description["members"][0], {**odd, "format": "nnx parameters"}]}, "is damaged"),
        ({"members": [description["members"][0], odd]}, "is damaged"),
        ({"members": [description["members"][0], {**odd, **table}]}, "a member is not described"),
        (table, "its table cannot be used"),
        ({"other": 3}, "description has the keys"),
    ):
        safetensors.write("test", path, {**description, **change}, arrays)
        with pytest.raises(nnx.ModelFileError, match=text):
            nnx.Ensemble.load(path)
    for extra in ("layers.0.weights", "members.7.layers.0.weights", "table.order", "members.0.x"):
        safetensors.write("test", path, description, {**arrays, extra: np.zeros(3, np.float32)})
        with pytest.raises(nnx.ModelFileError, match="is damaged"):
            nnx.Ensemble.load(path)
    safetensors.write("test", path, description, arrays)
    assert len(nnx.Ensemble.load(path)) == 2


# The command line


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Save an ensemble with its table, and the table beside it, and enter that folder."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{a:.3f},{b:.3f},{c:.3f},{'yes' if a * b > 0 else 'no'}" for a, b, c, _ in X.tolist()]
    (tmp_path / "data.csv").write_text("\n".join(["a,b,c,answer", *rows]) + "\n")
    table = nnx.load_csv("data.csv", target="answer")[-1]
    inputs, y = table.read_samples("data.csv")

    def small(rng):
        model = nnx.Model()
        for layer in (nnx.Layer_Dense(3, 8), nnx.Activation_ReLU(), nnx.Layer_Dense(8, 2), nnx.Activation_Softmax()):
            model.add(layer)
        model.set(
            loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
        )
        model.finalize()
        return model

    ensemble = nnx.Ensemble.of(small, 3)
    ensemble.train(inputs, y, epochs=20, batch_size=20, shuffle=True, seed=1)
    ensemble.table = table
    ensemble.save("answers.safetensors")
    return ensemble, inputs, y


def test_a_table_is_in_the_file_once_and_all_members_have_it(saved):
    ensemble, inputs, _ = saved
    _, arrays = safetensors.read("test", "answers.safetensors")
    assert len([name for name in arrays if name.endswith("table.order")]) == 1
    twin = nnx.Ensemble.load("answers.safetensors")
    assert all(model.table is twin.table for model in twin.models)
    assert twin.table.to_dict() == ensemble.table.to_dict() == twin.preprocessor.to_dict()
    assert twin.table.decode(twin.predict(inputs)).tolist() == ensemble.table.decode(ensemble.predict(inputs)).tolist()
    assert (nnx.Ensemble(twin.models).predict(inputs) == ensemble.predict(inputs)).all()
    twin.models[1].table = None
    with pytest.raises(ValueError, match="must have the same table or images"):
        nnx.Ensemble(twin.models)


def test_commands_take_ensembles(saved, capsys):
    ensemble, inputs, y = saved
    assert main(["predict", "answers.safetensors", "data.csv", "--probabilities"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "answer,probability of no,probability of yes"
    found = np.array([[float(cell) for cell in line.split(",")[1:]] for line in lines[1:]])
    np.testing.assert_allclose(found, ensemble.predict(inputs), atol=1e-5)
    assert main(["evaluate", "answers.safetensors", "data.csv"]) == 0
    assert f"accuracy {ensemble.score(inputs, y):.3f}" in capsys.readouterr().out
    assert main(["info", "answers.safetensors"]) == 0
    shown = capsys.readouterr().out
    assert "ensemble of 3" in shown
    assert "members 0, 1, 2" in shown
    assert "Layer_Dense(3, 8)" in shown
