"""`train_many(..., together=True)`: models of one shape, one in each lane of a vector, agree with models alone."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import pytest
from plans import Net, bits, build, data_for, left_behind

import nnx
from nnx import _kernels
from nnx.engine import together

FIGURES = ("loss", "data_loss", "regularization_loss", "accuracy", "learning_rate")
FIGURES += tuple(f"step_{name}" for name in FIGURES)

#: Networks, with all kinds of losses and of last layers.
NETS = {
    "softmax": Net("4-7,relu,7-3,softmax"),
    "deep": Net("3-5,relu,5-6,relu,6-4,relu,4-2,softmax"),
    "shallow": Net("5-3,softmax"),
    "sigmoid": Net("4-6,relu,6-2,sigmoid", "binary", "cells"),
    "squared": Net("4-6,relu,6-1,linear", "squared", "near"),
    "last": Net("3-6,6-5,relu,5-3,relu", "squared", "near"),
    "outputs": Net("4-6,relu,6-3,linear", "absolute", "near"),
}
OPTIMIZERS = {
    "SGD": lambda i: nnx.Optimizer_SGD(0.05 + 0.01 * i, decay=1e-2),
    "Nesterov": lambda i: nnx.Optimizer_SGD(0.05, momentum=0.1 * (i + 1) % 1, nesterov=True),
    "AdamW": lambda i: nnx.Optimizer_AdamW(0.002, average=0.9 - 0.1 * (i % 5)),
    "AMSGrad": lambda i: nnx.Optimizer_AMSGrad(0.01, clip_value=0.1),
    "Lion": lambda i: nnx.Optimizer_Lion(0.001, decay=1e-3),
}


def make(net, number, optimizer="AdamW", dtype="float32", activation=None, **layer):
    """Return a network with weights, rate and data that depend on the number."""
    np.random.seed(number)
    model = build(net, dtype=dtype)
    for i, each in enumerate(model.layers):
        if isinstance(each, nnx.Layer_Dense):
            each.weights += np.random.normal(0, 0.3, each.weights.shape).astype(dtype)
            vars(each).update(layer)
        elif activation is not None and isinstance(each, nnx.Activation_ReLU):
            model.layers[i] = activation()
    model.set(optimizer=OPTIMIZERS[optimizer](number))
    model.finalize()
    return model


def run_of(net, number, model, own_data=True, n=23, **keywords):
    X, y = data_for(net, n, seed=number) if own_data else data_for(net, n)
    return nnx.Run(model, X, y, **keywords)


def trained(net, numbers, at_once=True, threads=1, own_data=True, keywords=None, **model):
    """Return models after their training, and their histories."""
    models = [make(net, number, **model) for number in numbers]
    keywords = {"epochs": 4, "batch_size": 9, "shuffle": True, **(keywords or {})}
    runs = [
        run_of(net, number, model, own_data, **{"seed": number if keywords["shuffle"] else None, **keywords})
        for number, model in zip(numbers, models, strict=True)
    ]
    return models, nnx.train_many(runs, threads=threads, together=at_once)


def arrays_of(model):
    """Return a model's parameters and their states in the optimizer."""
    return {
        f"{number}.{name}": value
        for number, layer in enumerate(model.trainable_layers)
        for name, value in vars(layer).items()
        if isinstance(value, np.ndarray) and name.startswith(("weight", "bias"))
    }


def assert_alike(models, others, tolerance):
    for model, other in zip(models, others, strict=True):
        mine, its = arrays_of(model), arrays_of(other)
        assert mine.keys() == its.keys()
        for name, value in mine.items():
            np.testing.assert_allclose(value, its[name], rtol=tolerance, atol=tolerance, err_msg=name)
        assert model.optimizer.iterations == other.optimizer.iterations
        assert model.optimizer.current_learning_rate == other.optimizer.current_learning_rate


LIMITS = {name: getattr(together, name) for name in ("MIN_SHARE", "MIN_STEPS", "MAX_WEIGHTS")}


@pytest.fixture(autouse=True)
def _without_limits(monkeypatch):
    """Let models train together even if that does not pay."""
    monkeypatch.setattr(together, "MIN_SHARE", 0)
    monkeypatch.setattr(together, "MIN_STEPS", 0)
    monkeypatch.setattr(together, "MAX_WEIGHTS", 1 << 20)


@pytest.fixture
def limits(monkeypatch):
    """Let models train together only if that pays."""
    for name, value in LIMITS.items():
        monkeypatch.setattr(together, name, value)


@pytest.fixture
def grouped(monkeypatch):
    """Return a list that gets how many steps each group has done."""
    found = []
    train = together._go

    def recording(runs, interrupt):
        try:
            return train(runs, interrupt)
        finally:
            found.append((len(runs), runs[0].done))

    monkeypatch.setattr(together, "_go", recording)
    return found


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("net", NETS)
def test_models_agree_with_models_alone(net, optimizer, dtype, grouped):
    chosen = {"optimizer": optimizer, "dtype": dtype}
    if optimizer == "SGD":
        chosen["weight_regularizer_l2"], chosen["bias_regularizer_l1"] = 0.01, 0.001
    for keywords, own_data in (({}, True), ({"batch_size": None, "shuffle": False}, False)):
        models, histories = trained(NETS[net], range(5), own_data=own_data, keywords=keywords, **chosen)
        assert sum(steps for _, steps in grouped) > 0
        others, its = trained(NETS[net], range(5), False, own_data=own_data, keywords=keywords, **chosen)
        assert_alike(models, others, 2e-5 if dtype == "float32" else 1e-12)
        for history, other in zip(histories, its, strict=True):
            for name in FIGURES:
                found, expected = getattr(history, name), getattr(other, name)
                np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=name)
            np.testing.assert_array_equal(history.learning_rate, other.learning_rate)
        grouped.clear()


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "activation",
    [nnx.Activation_GELU, nnx.Activation_Tanh, nnx.Activation_Softplus, nnx.Activation_ELU, nnx.Activation_SiLU],
)
def test_every_kind_of_activation_agrees(activation, grouped):
    net = NETS["deep"]
    models, _ = trained(net, range(4), dtype="float64", activation=activation)
    others, _ = trained(net, range(4), False, dtype="float64", activation=activation)
    assert sum(n for n, _ in grouped) == 4
    assert_alike(models, others, 1e-12)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "loss", [lambda: nnx.Loss_Pinball([0.1, 0.5, 0.9]), nnx.Loss_Huber, lambda: nnx.Loss_Poisson(log_input=True)]
)
def test_losses_of_all_kinds_agree(loss, grouped):
    def models_of(at_once):
        models = [make(NETS["outputs"], number, dtype="float64") for number in range(4)]
        for model in models:
            model.set(loss=loss())
        X, y = data_for(NETS["outputs"], 20)
        y = np.abs(y) if y.shape[1] == 3 and not isinstance(models[0].loss, nnx.Loss_Pinball) else y[:, :1]
        nnx.train_many([nnx.Run(model, X, y, epochs=5) for model in models], together=at_once)
        return models

    assert_alike(models_of(True), models_of(False), 1e-12)
    assert grouped


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_bits_depend_neither_on_the_others_nor_on_threads(optimizer, grouped):
    """For any number of models, and any position of a model among them."""
    net = NETS["softmax"]
    expected = [bits(arrays_of(model)) for model in trained(net, range(40), optimizer=optimizer)[0]]
    for numbers, threads in ((range(40), 3), ((5, 3, 30), 1), ((30, 5, 17, 3, 39, 0), 2), (range(39, 4, -1), 2)):
        models, _ = trained(net, numbers, threads=threads, optimizer=optimizer)
        assert [bits(arrays_of(model)) for model in models] == [expected[number] for number in numbers]
    assert len(grouped) > 5


@pytest.mark.usefixtures("compiled")
def test_training_goes_on_from_what_the_optimizer_has_kept():
    net, X, y = NETS["softmax"], *data_for(NETS["softmax"], 23)

    def on(models):
        for model in models:
            model.train(X, y, epochs=3, print_every=None)
        return models

    first, second = [], []
    for models, at_once in ((first, True), (second, False)):
        models += on(trained(net, range(4), at_once, dtype="float64")[0])
    assert_alike(first, second, 1e-12)
    assert left_behind(first[0]).keys() == left_behind(second[0]).keys()


class OwnTraining(nnx.Model):
    """A model that trains in its own way."""

    def train(self, *arguments, **keywords):
        return super().train(*arguments, **keywords)


def freeze(model):
    del model.trainable_layers[0]


@pytest.mark.parametrize(
    ("text", "change", "keywords"),
    [
        ("4-7,relu,dropout,7-3,softmax", None, {}),
        ("4-7,relu,7-3,softmax", freeze, {}),
        ("4-7,relu,7-3,softmax", lambda model: vars(model.optimizer).update(clip_norm=0.1), {}),
        ("4-7,relu,7-3,softmax", lambda model: setattr(model, "__class__", OwnTraining), {}),
        ("4-7,relu,7-3,softmax", None, {"callbacks": lambda: [nnx.EarlyStopping(monitor="loss")]}),
        ("4-7,relu,7-3,softmax", None, {"validation_split": lambda: 0.3}),
        ("4-7,relu,7-3,softmax", None, {"penalty_per_sample": lambda: True}),
        ("4-7,relu,7-3,softmax", None, {"sample_weight": lambda: np.linspace(1, 2, 23)}),
        ("4-7,relu,7-3,softmax", None, {"shuffle": lambda: lambda epoch, n: np.arange(n), "seed": lambda: None}),
    ],
)
def test_what_cannot_train_together_trains_as_alone(text, change, keywords, grouped):
    """Layers, settings and keywords of other kinds: the same bits."""
    net, found = Net(text), []
    for at_once in (True, False):
        models = [make(net, number) for number in range(4)]
        for model in models:
            if change is not None:
                change(model)
        own = {"epochs": 3, "shuffle": True, "seed": 1}
        runs = [run_of(net, 0, m, **{**own, **{name: give() for name, give in keywords.items()}}) for m in models]
        nnx.train_many(runs, together=at_once)
        found.append([bits(arrays_of(model)) for model in models])
    assert found[0] == found[1]
    assert grouped == []


@pytest.mark.usefixtures("compiled", "limits")
def test_models_train_together_where_it_pays(monkeypatch):
    """A run is left alone if its model is too large or it has too few steps, or if too few have its shape."""
    monkeypatch.setattr(together, "MIN_STEPS", 10)
    lanes = _kernels.backend.lanes("float32")

    def shape(text, **keywords):
        net = Net(text)
        run = run_of(net, 0, make(net, 0), **{"epochs": 10, **keywords})
        return run._shape()

    small = shape("4-16,relu,16-3,softmax")
    assert small is not None
    assert shape("4-16,relu,16-3,softmax") == small != shape("4-15,relu,15-3,softmax")
    assert shape("4-16,relu,16-3,softmax", epochs=9) is None
    assert shape("4-70,relu,70-70,relu,70-3,softmax") is None
    assert shape("4-16,relu,16-3,softmax", n=65) is None  # alone, it has batched-lane kernels
    assert shape("5-16,relu,16-3,softmax", n=65) is not None
    shapes = [small] * (lanes + 1) + [None]
    assert together.groups_of(shapes) == [list(range(lanes)), [lanes], [lanes + 1]]


def test_numpy_computes_the_models_one_after_the_other(backend):
    if backend != "numpy":
        pytest.skip("this is about the NumPy backend")
    found = [[bits(arrays_of(m)) for m in trained(NETS["softmax"], range(4), at_once)[0]] for at_once in (True, False)]
    assert found[0] == found[1]


def test_seeds_that_nobody_gave_are_those_of_models_alone():
    for at_once in (True, False):
        np.random.seed(7)
        models = [make(NETS["softmax"], number, dtype="float64") for number in range(4)]
        np.random.seed(8)
        nnx.train_many(
            [run_of(NETS["softmax"], 0, m, epochs=3, batch_size=9, shuffle=True) for m in models], together=at_once
        )
        if at_once:
            others = models
    assert_alike(models, others, 1e-12)


# Errors and interruptions


@pytest.mark.usefixtures("compiled")
def test_a_model_that_diverges_stops_the_others():
    net = NETS["squared"]
    models = [make(net, number, "SGD") for number in range(4)]
    models[2].optimizer.learning_rate = 1e30
    with pytest.raises(nnx.DivergenceError, match=r"^Model\.train: training diverged .* whole step") as caught:
        nnx.train_many([run_of(net, 0, model, epochs=50, batch_size=8) for model in models], together=True)
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == ["This was runs[2] of train_many."]
    assert "got the first value that is not finite" in str(caught.value)  # that model's own
    steps = {model.optimizer.iterations for model in models}
    assert len(steps) == 1
    assert [len(model.history.step_loss) for model in models] == list(steps) * 4
    assert all(np.isfinite(model.layers[0].weights).all() for model in models[:2])
    models[0].train(*data_for(net, 20), print_every=None)  # nothing is left of it


@pytest.mark.parametrize(("name", "value"), [("beta_1", 5.0), ("iterations", -3)])
def test_an_error_names_its_run_and_leaves_the_global_generator(name, value, backend):
    models = [make(NETS["softmax"], number) for number in range(4)]
    vars(models[1].optimizer)[name] = value
    before = np.random.get_state(legacy=False)["state"]
    with pytest.raises((TypeError, ValueError)) as caught:
        nnx.train_many([run_of(NETS["softmax"], 0, m, epochs=3, shuffle=True) for m in models], together=True)
    if sys.version_info >= (3, 11):
        assert caught.value.__notes__ == ["This was runs[1] of train_many."]
    if name == "beta_1" and backend != "numpy":  # found before the first run starts
        after = np.random.get_state(legacy=False)["state"]
        assert after["pos"] == before["pos"]
        np.testing.assert_array_equal(after["key"], before["key"])


@pytest.mark.usefixtures("compiled")
def test_a_model_that_diverges_leaves_the_others_their_bits_if_it_may():
    net, keywords = NETS["squared"], {"on_nonfinite": "ignore", "shuffle": False, "seed": None}
    expected = [bits(arrays_of(model)) for model in trained(net, (0, 1, 3), keywords=keywords)[0]]
    models = [make(net, number) for number in range(4)]
    models[2].layers[0].weights[0, 0] = np.inf
    runs = [run_of(net, i, m, epochs=4, batch_size=9, on_nonfinite="ignore") for i, m in enumerate(models)]
    nnx.train_many(runs, together=True)
    assert [bits(arrays_of(model)) for number, model in enumerate(models) if number != 2] == expected
    assert np.isnan(models[2].layers[0].weights).any()


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to this process")
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_stops_all_models_after_whole_steps(threads, monkeypatch):
    net = NETS["softmax"]
    record, pressed = together.plan.Run.record, []

    def press(run):
        if run.done > 100 and not pressed:
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)
        return record(run)

    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    models = [make(net, number) for number in range(min(6, _kernels.backend.lanes("float32")))]
    runs = [run_of(net, 0, model, epochs=10**6, batch_size=8) for model in models]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(together.plan.Run, "record", press)
            with pytest.raises(KeyboardInterrupt):
                nnx.train_many(runs, threads=threads, together=True)
    finally:
        signal.signal(signal.SIGINT, kept)
    done = [model.optimizer.iterations for model in models]
    assert len(set(done)) == 1
    assert 100 < done[0] < 10**6
    for number, model in enumerate(models):
        assert len(model.history.step_loss) == done[number]
        assert np.isfinite(model.layers[0].weights).all()
        model.train(*data_for(net, 20), print_every=None)


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match=r"^train_many: together must be True or False, got 1\."):
        nnx.train_many([], together=1)


@pytest.mark.usefixtures("compiled")
def test_no_call_of_the_compiled_group_crashes():
    backend = _kernels.backend
    with pytest.raises(ValueError, match="at least one"):
        backend.Together([])
    for wrong in (None, [None], [5]):
        with pytest.raises((TypeError, ValueError)):
            backend.Together(wrong)
    plans = []
    for number in range(20):
        model = make(NETS["softmax"], number)
        model.train(*data_for(NETS["softmax"], 20), print_every=None)
        plans.append(model._plan[1])
    with pytest.raises(ValueError, match="no more than there are lanes"):
        backend.Together(plans)
    with pytest.raises(ValueError, match="twice"):
        backend.Together([plans[0], plans[0]])
    with pytest.raises(RuntimeError, match="must be prepared"):
        backend.Together(plans[:2]).run(5)
