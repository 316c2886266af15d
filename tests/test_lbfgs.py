"""`Optimizer_LBFGS`: the same iterations as SciPy's L-BFGS-B, on every backend, however a run is divided."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from test_storage import rewrite

import nnx
from nnx import _kernels, optimizers
from nnx.engine import lbfgs, minimizing, program

F64 = np.dtype("float64")


def data(n_in, n_out, n_samples, kind, dtype=F64, seed=0):
    """Return samples and targets: classes, zeros and ones, or numbers."""
    random = np.random.RandomState(seed)
    X = random.normal(size=(n_samples, n_in)).astype(dtype)
    hidden = np.tanh(X @ random.normal(size=(n_in, 4))) @ random.normal(size=(4, n_out))
    hidden = hidden + 0.1 * random.normal(size=hidden.shape)
    if kind == "classes":
        return X, hidden.argmax(axis=1)
    return X, ((hidden > 0).astype(dtype) if kind == "cells" else hidden.astype(dtype))


OUTPUTS = {
    "classes": (nnx.Activation_Softmax, nnx.Loss_CategoricalCrossentropy, nnx.Accuracy_Categorical),
    "cells": (nnx.Activation_Sigmoid, nnx.Loss_BinaryCrossentropy, lambda: nnx.Accuracy_Categorical(binary=True)),
    "squared": (nnx.Activation_Linear, nnx.Loss_MeanSquaredError, nnx.Accuracy_Regression),
    "huber": (nnx.Activation_Linear, nnx.Loss_Huber, nnx.Accuracy_Regression),
}


def build(widths, kind, activation=nnx.Activation_Tanh, dtype=F64, seed=1, l2=1e-3, norm=None, **settings):
    """Return a network of dense layers, with a penalty, so that it has one minimum."""
    random = np.random.RandomState(seed)
    model = nnx.Model()
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        if i:
            if norm is not None:
                model.add(norm(n_in, dtype=dtype))
            model.add(activation(n_in, dtype=dtype) if activation is nnx.Activation_PReLU else activation())
        layer = nnx.Layer_Dense(n_in, n_out, weight_regularizer_l2=l2, bias_regularizer_l2=l2 / 2, dtype=dtype)
        layer.weights = (random.normal(size=(n_in, n_out)) / np.sqrt(n_in)).astype(dtype)
        layer.biases = random.normal(size=(1, n_out)).astype(dtype) / 10
        model.add(layer)
    last, loss, accuracy = OUTPUTS[kind]
    model.add(last())
    model.set(loss=loss(), optimizer=nnx.Optimizer_LBFGS(**settings), accuracy=accuracy())
    model.finalize()
    return model


def train(model, X, y, epochs=100, **arguments):
    return model.train(X, y, epochs=epochs, print_every=None, **arguments)


def bits(model):
    return [np.concatenate([values.reshape(-1) for values in group]).tobytes() for group in model.get_parameters()]


def vector(model):
    return np.concatenate([values.reshape(-1) for group in model.get_parameters() for values in group])


def objective(model, X, y):
    """Return the loss as a function of one vector, for SciPy: by the layers' own methods."""

    def loss_and_gradient(point):
        at = 0
        for group in model.get_parameters():
            for values in group:
                values[...] = point[at : at + values.size].reshape(values.shape)
                at += values.size
        output = model.forward(X, training=True)
        loss, penalty = model.loss.calculate(output, y, include_regularization=True)
        model.backward(output, y)
        gradients = [g for layer in model.trainable_layers for g in (layer.dweights, getattr(layer, "dbiases", None))]
        return float(loss + penalty), np.concatenate([g.reshape(-1) for g in gradients if g is not None])

    return loss_and_gradient


PROBLEMS = [
    ((4, 6, 3), "classes", nnx.Activation_Tanh, 60),
    ((10, 20, 4), "classes", nnx.Activation_Sigmoid, 150),
    ((3, 8, 8, 2), "classes", nnx.Activation_Tanh, 100),
    ((20, 70, 5), "classes", nnx.Activation_GELU, 90),
    ((5, 7, 1), "cells", nnx.Activation_Tanh, 80),
    ((6, 10, 3), "cells", nnx.Activation_SiLU, 120),
    ((4, 12, 1), "squared", nnx.Activation_Tanh, 90),
    ((8, 16, 2), "squared", nnx.Activation_Softplus, 130),
    ((5, 9, 1), "huber", nnx.Activation_Tanh, 70),
    ((12, 3), "classes", None, 200),
]


@pytest.mark.few
@pytest.mark.parametrize(("widths", "kind", "activation", "n_samples"), PROBLEMS, ids=lambda value: str(value))
def test_it_reaches_what_scipy_reaches_by_the_same_iterations(widths, kind, activation, n_samples):
    optimize = pytest.importorskip("scipy.optimize")
    X, y = data(widths[0], widths[-1], n_samples, kind)
    tolerances = {"gradient_tolerance": 1e-6, "loss_tolerance": 1e-12}  # tight: rounding grows with each iteration
    ours, scratch = (build(widths, kind, activation, l2=0.01, **tolerances) for _ in range(2))
    loss_and_gradient, points = objective(scratch, X, y), []
    theirs = optimize.minimize(
        loss_and_gradient,
        vector(scratch),
        method="L-BFGS-B",
        jac=True,
        callback=lambda point: points.append(point.copy()),
        options={"maxiter": 2000, "gtol": 1e-6, "ftol": 1e-12},
    )
    history = train(ours, X, y, 2000)
    assert ours.optimizer.message.startswith("converged")
    assert history.loss[-1] == pytest.approx(theirs.fun, rel=1e-6)
    np.testing.assert_allclose(history.loss[:8], [loss_and_gradient(point)[0] for point in points[:8]], rtol=1e-9)
    again = build(widths, kind, activation, l2=0.01)
    train(again, X, y, 8)
    np.testing.assert_allclose(vector(again), points[7], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["classes", "squared"])
def test_float32_comes_to_the_same_loss(kind):
    found = []
    for dtype in (np.dtype("float32"), F64):
        X, y = data(6, 3, 120, kind, dtype)
        model = build((6, 12, 3), kind, dtype=dtype, l2=0.01)
        found.append(train(model, X, y, 1000).loss[-1])
        assert model.optimizer.message.startswith("converged")
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("norm", [None, nnx.Layer_BatchNorm, nnx.Layer_LayerNorm])
def test_compiled_and_numpy_agree_for_tens_of_iterations(compiled, monkeypatch, norm):
    X, y = data(7, 3, 90, "classes")
    arguments = {"activation": nnx.Activation_PReLU if norm is None else nnx.Activation_Tanh, "norm": norm, "l2": 0.03}
    ours, theirs = (build((7, 30, 12, 3), "classes", **arguments) for _ in range(2))
    ours_history = train(ours, X, y, 25)
    monkeypatch.setattr(_kernels, "backend", _kernels.load("numpy"))
    theirs_history = train(theirs, X, y, 25)
    np.testing.assert_allclose(ours_history.loss, theirs_history.loss, rtol=1e-6)
    np.testing.assert_allclose(ours_history.accuracy, theirs_history.accuracy)
    np.testing.assert_allclose(vector(ours), vector(theirs), rtol=1e-3, atol=1e-5)
    assert ours.optimizer.evaluations == theirs.optimizer.evaluations
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-3, atol=1e-5)  # by running statistics


@pytest.mark.few
def test_bits_do_not_depend_on_threads_calls_or_interruptions(compiled, monkeypatch, tmp_path, dtype):
    X, y = data(30, 5, 150, "classes", dtype)
    weights = np.random.RandomState(3).uniform(0.5, 2, len(X))

    def trained(epochs=16, **arguments):
        model = build((30, 90, 40, 5), "classes", nnx.Activation_ReLU, dtype, norm=nnx.Layer_BatchNorm)
        history = train(model, X, y, epochs, sample_weight=weights, **arguments)
        return model, history

    monkeypatch.setattr(minimizing.plan, "LEAST_STEP", 0)
    monkeypatch.setattr(minimizing.plan, "LEAST_CALL", 0)
    expected, history = trained(threads=1)
    for threads in (2, 3):
        model, found = trained(threads=threads)
        assert bits(model) == bits(expected)
        assert found.loss.tobytes() == history.loss.tobytes()
    model, found = trained(callbacks=[lambda run: None])  # one iteration a call
    assert bits(model) == bits(expected)
    trained(7, checkpoint=tmp_path / "run")
    model, found = trained(resume=tmp_path / "run")
    assert bits(model) == bits(expected)
    assert found.loss.tobytes() == history.loss.tobytes()
    assert found.learning_rate.tobytes() == history.learning_rate.tobytes()
    assert model.optimizer.iterations == len(history) == 16
    assert model.optimizer.evaluations == expected.optimizer.evaluations
    for layer, other in zip(model.layers, expected.layers, strict=True):
        assert np.array_equal(layer.output, other.output)
        if hasattr(layer, "running_mean"):
            assert np.array_equal(layer.running_mean, other.running_mean)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to this process")
def test_a_run_that_ctrl_c_stopped_goes_on_as_if_it_had_not(tmp_path):
    X, y = data(5, 2, 60, "classes")
    expected = build((5, 8, 2), "classes")
    train(expected, X, y, 12)

    def press(run):
        if run.epoch == 5:
            os.kill(os.getpid(), signal.SIGINT)

    model = build((5, 8, 2), "classes")
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(model, X, y, 12, checkpoint=tmp_path / "run", callbacks=[press])
    finally:
        signal.signal(signal.SIGINT, kept)
    assert len(model.history) == model.optimizer.iterations == 5
    model = build((5, 8, 2), "classes", seed=9)
    history = train(model, X, y, 12, resume=tmp_path / "run")
    assert bits(model) == bits(expected)
    assert len(history) == 12


class Tanh(nnx.Activation_Tanh):
    """A custom activation, so that there is no plan."""

    def forward(self, inputs, training):
        super().forward(inputs, training)


@pytest.mark.parametrize("activation", [nnx.Activation_Tanh, Tanh], ids=["compiled", "layer by layer"])
def test_the_history_tells_data_loss_and_penalty_apart(backend, activation):
    X, y = data(5, 3, 60, "classes")
    model = build((5, 6, 3), "classes", activation, l2=1e-2)
    history, report = train(model, X, y, epochs=3), model.evaluate(X, y, silent=True)
    np.testing.assert_allclose(history.regularization_loss[-1], model.loss.regularization_loss(), rtol=1e-9)
    np.testing.assert_allclose(history.data_loss[-1], report["loss"], rtol=1e-9)
    np.testing.assert_allclose(history.loss, history.data_loss + history.regularization_loss, rtol=1e-9)
    assert history.accuracy[-1] == report["accuracy"]


def test_it_ends_when_it_has_converged_as_a_callback_ends_a_run(capsys):
    X, y = data(5, 2, 60, "classes")
    model = build((5, 2), "classes", l2=0.1)
    stop = nnx.EarlyStopping(monitor="loss", patience=1000)
    history = train(model, X, y, 500, callbacks=[stop], validation_data=(X, y))
    assert 3 < len(history) == len(history.loss) == len(history.validation_loss) < 100
    assert model.optimizer.message == "converged: no element of the gradient is above gradient_tolerance"
    assert len(history) < model.optimizer.evaluations < 2 * len(history)
    assert np.abs(model.layers[0].dweights).max() <= 1e-5  # what layers keep is of the last point
    assert history.loss[-1] == pytest.approx(
        float(sum(model.loss.calculate(model.layers[-1].output, y, include_regularization=True)))
    )
    again = train(model, X, y, 500)
    assert len(again) == 0
    assert model.optimizer.evaluations == 1
    model.train(X, y, epochs=3)
    assert "stopped after epoch 0: converged" in capsys.readouterr().out


def test_it_says_why_it_has_ended():
    X, y = data(5, 2, 60, "classes")
    ends = {"max_evaluations": 7, "loss_tolerance": 0.1, "search_steps": 1}
    messages = []
    for name, value in ends.items():
        model = build((5, 8, 2), "classes", **{name: value})
        train(model, X, y, 500)
        messages.append(model.optimizer.message.split(": ")[1])
        assert name != "max_evaluations" or 7 < model.optimizer.evaluations < 20
    train(model, X, y, 1, on_nonfinite="ignore")
    assert messages[0] == "max_evaluations is reached"
    assert messages[1] == "the loss has fallen by no more than loss_tolerance"
    model = build((5, 8, 2), "classes")
    train(model, X, y, 4)
    assert model.optimizer.message == "not converged: all epochs are done"
    model.layers[0].weights[0, 0] = np.nan
    with pytest.raises(nnx.DivergenceError, match="layer 0"):
        train(model, X, y, 4)
    assert len(train(model, X, y, 4, on_nonfinite="ignore")) == 0
    assert model.optimizer.message == "not converged: the loss is not finite where the search begins"


class Walled(nnx.Loss_MeanSquaredError):
    """Infinite if any output is above 3: a wall that the first steps reach."""

    def forward(self, y_pred, y_true):
        losses = super().forward(y_pred, y_true)
        return np.where(np.asarray(y_pred).max() > 3, np.inf, losses)


def test_a_step_to_where_the_loss_is_not_finite_is_shortened():
    X = np.linspace(-1, 1, 40)[:, None]
    y = 2.9 * X
    model = build((1, 1), "squared", l2=0)
    model.layers[0].weights[...], model.layers[0].biases[...] = -20, 0
    model.set(loss=Walled())
    model.layers[0].weights[...] = 2.0
    model.layers[0].biases[...] = -30.0
    history = train(model, X, y, 100)
    assert history.loss[-1] < 1e-6
    assert np.isfinite(history.loss).all()
    assert model.optimizer.evaluations > len(history) + 1


def test_overflow_on_the_way_is_no_error(compiled):
    X, y = data(3, 1, 50, "squared", np.dtype("float32"))
    model = build((3, 6, 1), "squared", nnx.Activation_ReLU, np.dtype("float32"))
    model.layers[0].weights *= np.float32(1e13)  # the first gradients are huge, the squares of some outputs infinite
    model.layers[2].weights *= np.float32(1e4)
    history = train(model, X, y, 200, on_nonfinite="ignore")
    assert np.isfinite(history.loss).all()
    assert (np.diff(history.loss) <= 0).all()


def test_averages_of_another_optimizer_are_dropped():
    X, y = data(5, 2, 60, "classes")
    model = build((5, 8, 2), "classes")
    model.set(optimizer=nnx.Optimizer_Adam(average=0.9))
    train(model, X, y, 5)
    model.set(optimizer=nnx.Optimizer_LBFGS())
    train(model, X, y, 5)
    assert np.array_equal(model.predict(X), model.forward(X, training=False))
    assert not any(name.endswith("averages") for layer in model.layers for name in vars(layer))


def test_frozen_layers_stay_and_others_move():
    X, y = data(5, 2, 60, "classes")
    model = build((5, 8, 8, 2), "classes")
    del model.trainable_layers[1]
    before = [layer.weights.copy() for layer in model.layers if hasattr(layer, "weights")]
    history = train(model, X, y, 10)
    after = [layer.weights for layer in model.layers if hasattr(layer, "weights")]
    assert [np.array_equal(a, b) for a, b in zip(before, after, strict=True)] == [False, True, False]
    assert history.loss[-1] < history.loss[0]


def move(model):
    model.layers[0].weights[0, 0] += 1.0


def penalize(model):
    model.layers[0].weight_regularizer_l2 = 0.5


def replace(model):
    model.layers[2].weights = model.layers[2].weights * 0.5


def smooth(model):
    model.loss.label_smoothing = 0.2


def freeze(model):
    model.trainable_layers = model.trainable_layers[1:]


def remember_less(model):
    model.optimizer.memory = 2


def hurry(model):
    model.optimizer.loss_tolerance = 0.1


@pytest.mark.parametrize("change", [move, penalize, replace, smooth, freeze, remember_less, hurry])
def test_what_a_callback_changes_begins_a_search_anew(backend, change):
    X, y = data(5, 2, 60, "classes")
    ours, theirs = build((5, 8, 2), "classes"), build((5, 8, 2), "classes")
    history = train(ours, X, y, 9, callbacks=[lambda run: change(run.model) if run.epoch == 4 else None])
    train(theirs, X, y, 4)
    change(theirs)
    expected = train(theirs, X, y, 5)
    assert history.loss[4:].tobytes() == expected.loss.tobytes()
    assert bits(ours) == bits(theirs)


class FreezingFirst(nnx.Callback):
    """Freezes a layer before the first step."""

    def on_train_begin(self, run):
        freeze(run.model)

    def on_epoch_end(self, run):
        pass


def test_a_layer_that_a_callback_freezes_first_stays(backend):
    X, y = data(5, 2, 60, "classes")
    ours, theirs = build((5, 8, 2), "classes"), build((5, 8, 2), "classes")
    train(ours, X, y, 5, callbacks=[FreezingFirst()])
    freeze(theirs)
    train(theirs, X, y, 5)
    assert bits(ours) == bits(theirs)


@pytest.mark.parametrize("kinds", [(nnx.Optimizer_LBFGS, nnx.Optimizer_SGD), (nnx.Optimizer_SGD, nnx.Optimizer_LBFGS)])
def test_a_callback_cannot_change_to_or_from_it(backend, kinds):
    X, y = data(5, 2, 60, "classes")
    model = build((5, 8, 2), "classes")
    model.set(optimizer=kinds[0]())
    with pytest.raises(ValueError, match=f"the optimizer must .* an Optimizer_LBFGS .*, got {kinds[1].__name__}"):
        train(model, X, y, 5, callbacks=[lambda run: run.model.set(optimizer=kinds[1]())])


def test_a_callback_cannot_add_random_numbers(compiled):
    X, y = data(5, 2, 60, "classes")
    with pytest.raises(ValueError, match="must not draw random numbers"):
        train(
            build((5, 8, 2), "classes"), X, y, 5,
            callbacks=[lambda run: run.model.layers.insert(1, nnx.Layer_Dropout(0.5))],
        )  # fmt: skip


class Owned:
    """A custom dense layer with only the attributes of the book's."""

    def __init__(self, n_in, n_out):
        self.weights = np.random.RandomState(n_in).normal(size=(n_in, n_out))
        self.biases = np.zeros((1, n_out), F64)

    def forward(self, inputs, training):
        self.inputs, self.output = inputs, inputs @ self.weights + self.biases

    def backward(self, dvalues):
        self.dweights, self.dbiases = self.inputs.T @ dvalues, dvalues.sum(axis=0, keepdims=True)
        self.dinputs = dvalues @ self.weights.T


def test_layers_of_ones_own_are_trained(backend):
    X, y = data(5, 2, 60, "classes")
    ours, theirs = build((5, 8, 2), "classes", l2=0), build((5, 8, 2), "classes", l2=0)
    for i in (0, 2):
        ours.layers[i] = Owned(*theirs.layers[i].weights.shape)
        theirs.layers[i].weights, theirs.layers[i].biases = ours.layers[i].weights.copy(), ours.layers[i].biases.copy()
    ours.finalize()
    history, expected = train(ours, X, y, 10), train(theirs, X, y, 10)
    assert len(history) == len(expected)
    np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-6)


def test_a_wrong_count_is_refused_before_anything_changes():
    X, y = data(5, 2, 60, "classes")
    model = build((5, 8, 2), "classes")
    model.optimizer.iterations = "many"
    before = bits(model)
    with pytest.raises(TypeError, match="iterations must be a whole number"):
        train(model, X, y, 5)
    assert bits(model) == before


@pytest.mark.parametrize("spoil", ["release", "bind", "limits", "prepare"])
def test_a_search_without_its_arrays_does_nothing(compiled, monkeypatch, spoil):
    """Compiled code holds addresses of arrays. No address outlives its array, whatever the order of calls."""
    X, y = data(5, 2, 60, "classes")
    ways = []

    class Caught(minimizing.Compiled):
        def __init__(self, job, memory):
            super().__init__(job, memory)
            ways.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(minimizing, "Compiled", Caught)
    model = build((5, 8, 2), "classes")
    before = bits(model)
    with pytest.raises(KeyboardInterrupt):
        train(model, X, y, 5)
    (way,) = ways
    native = way.native
    native.iterate(1000, 1)
    if spoil == "prepare":
        native.prepare(60, 1, False, 0, 0.0, None, 0, 0, 1, False)
        assert native.lead() == 0
        assert bits(model) == before
        return
    if spoil == "release":
        native.release()
    elif spoil == "bind":
        native.bind(way.program.owners, way.program.trained, model.optimizer._rule(), "here", optimizers._state)
    else:
        other = minimizing.new_memory(model)
        with pytest.raises(TypeError):
            native.search_for(other.vectors, other.numbers, (None, 1, 1, 1))
    with pytest.raises(RuntimeError, match="there is no search"):
        native.iterate(3, 1)


REFUSED = {
    "batch_size": {"batch_size": 32},
    "shuffle": {"shuffle": True},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_before_anything_changes(name):
    X, y = data(5, 2, 60, "classes")
    model = build((5, 8, 2), "classes")
    before = bits(model)
    with pytest.raises(ValueError, match=rf"Model.train: {name} must be .* for Optimizer_LBFGS"):
        train(model, X, y, **REFUSED[name])
    assert bits(model) == before
    assert model.history is None or len(model.history) == 0


def test_layers_that_draw_random_numbers_are_refused():
    X, y = data(5, 2, 60, "classes")
    for layer in (nnx.Layer_Dropout(0.1), nnx.Layer_GaussianNoise(0.1)):
        model = build((5, 8, 2), "classes")
        model.layers.insert(1, layer)
        model.finalize()
        with pytest.raises(ValueError, match="must not draw random numbers for Optimizer_LBFGS"):
            train(model, X, y)


def test_bfloat16_is_refused():
    X, y = data(5, 2, 60, "classes", np.dtype("float32"))
    with pytest.raises(ValueError, match="precision must not be 'bfloat16' for Optimizer_LBFGS"):
        train(build((5, 2), "classes", dtype=np.dtype("float32")), X, y, precision="bfloat16")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"memory": 0}, "memory must be"),
        ({"memory": 257}, "memory must be"),
        ({"max_evaluations": 0}, "max_evaluations must be"),
        ({"gradient_tolerance": -1.0}, "gradient_tolerance must be"),
        ({"loss_tolerance": np.nan}, "loss_tolerance must be"),
        ({"search_steps": 1.5}, "search_steps must be"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises((TypeError, ValueError), match=f"Optimizer_LBFGS: {message}"):
        nnx.Optimizer_LBFGS(**settings)


def test_a_step_for_a_layer_is_refused():
    for name, arguments in (("pre_update_params", ()), ("update_params", (nnx.Layer_Dense(1, 1),))):
        with pytest.raises(RuntimeError, match=rf"Optimizer_LBFGS\.{name}: .* Call Model.train"):
            getattr(nnx.Optimizer_LBFGS(), name)(*arguments)


def test_it_is_saved_with_a_model(tmp_path: Path):
    X, y = data(5, 2, 60, "classes")
    model = build((5, 8, 2), "classes", memory=4, gradient_tolerance=1e-3)
    train(model, X, y, 5)
    model.save(tmp_path / "model")
    loaded = nnx.Model.load(tmp_path / "model")
    assert repr(loaded.optimizer) == repr(model.optimizer) == "Optimizer_LBFGS(memory=4, gradient_tolerance=0.001)"
    assert (loaded.optimizer.iterations, loaded.optimizer.evaluations) == (5, model.optimizer.evaluations)
    assert train(loaded, X, y, 5).loss.tobytes() == train(model, X, y, 5).loss.tobytes()


def test_a_damaged_memory_is_refused(tmp_path: Path):
    X, y = data(5, 2, 60, "classes")
    path = tmp_path / "run"
    for at, value in ((lbfgs.NEXT, 10), (lbfgs.N_PAIRS, np.nan), (lbfgs.END, 9), (lbfgs.N_PAIRS, 1.5)):
        train(build((5, 8, 2), "classes"), X, y, 5, checkpoint=path)
        rewrite(path, None, lambda tensors, at=at, value=value: tensors["run.lbfgs.numbers"].__setitem__(at, value))
        with pytest.raises(nnx.ModelFileError, match="the memory of its Optimizer_LBFGS"):
            train(build((5, 8, 2), "classes"), X, y, 9, resume=path)
    train(build((5, 8, 2), "classes"), X, y, 5, checkpoint=path)
    with pytest.raises(nnx.ModelFileError, match="another model: its optimizer"):
        train(build((5, 8, 2), "classes", memory=4), X, y, 9, resume=path)
    rewrite(path, None, lambda tensors: tensors.pop("run.lbfgs.vectors"))
    with pytest.raises(nnx.ModelFileError, match="the memory of its Optimizer_LBFGS"):
        train(build((5, 8, 2), "classes"), X, y, 9, resume=path)


def test_explain_and_the_program_know_it(backend):
    model = build((5, 8, 2), "classes")
    assert ("trains layer by layer" if backend == "numpy" else "trains as a plan") in model.explain()
    assert "dense_backward_weights, lbfgs_collect" in str(program.lower(model))
    model.set(loss=Walled())
    assert "trains layer by layer" in model.explain()
