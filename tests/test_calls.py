"""Training by hand, one call per layer: a compiled call does the same as the method's Python code, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx import _kernels
from nnx._kernels import _numpy

pytestmark = pytest.mark.usefixtures("compiled")

ACTIVATIONS = [nnx.Activation_ReLU, nnx.Activation_Tanh, nnx.Activation_LeakyReLU, nnx.Activation_GELU]
OPTIMIZERS = {
    "SGD": lambda: nnx.Optimizer_SGD(0.5, decay=1e-2),
    "momentum": lambda: nnx.Optimizer_SGD(0.5, momentum=0.9),
    "Adam": lambda: nnx.Optimizer_Adam(0.05, decay=1e-3),
    "AdamW": lambda: nnx.Optimizer_AdamW(0.05),
    "clipped": lambda: nnx.Optimizer_Adam(0.05, clip_norm=0.1),
    "averaged": lambda: nnx.Optimizer_Adam(0.05, average=0.9),
}


class Loop:
    """The book's loop over a classifier of three classes."""

    def __init__(self, activation, optimizer, dtype, **penalties):
        np.random.seed(0)
        self.layers = [
            nnx.Layer_Dense(2, 16, dtype=dtype, **penalties),
            activation(),
            nnx.Layer_Dense(16, 3, dtype=dtype, **penalties),
        ]
        self.loss, self.optimizer = nnx.Activation_Softmax_Loss_CategoricalCrossentropy(), optimizer()

    def step(self, X, y):
        first, activation, second = self.layers
        first.forward(X)
        activation.forward(first.output)
        second.forward(activation.output)
        self.value = self.loss.forward(second.output, y)
        self.loss.backward(self.loss.output, y)
        second.backward(self.loss.dinputs)
        activation.backward(second.dinputs)
        first.backward(activation.dinputs)
        self.optimizer.pre_update_params()
        self.optimizer.update_params(first)
        self.optimizer.update_params(second)
        self.optimizer.post_update_params()

    def left_behind(self):
        parts = [*self.layers, self.loss, self.loss.activation]
        found = [(name, value.tobytes()) for part in parts for name, value in vars(part).items() if _is_array(value)]
        return found, self.value.tobytes(), type(self.value), vars(self.optimizer), self.loss.loss.accumulated_sum


def _is_array(value):
    return isinstance(value, np.ndarray)


@pytest.fixture
def long_way(monkeypatch):
    """Return a function that runs another one without the compiled calls."""

    def run(function, *arguments):
        with monkeypatch.context() as patch:
            for name in _numpy.CALLS:
                patch.setattr(_kernels.backend, name, getattr(_numpy, name))
            return function(*arguments)

    return run


def data(n=20, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 2)).astype(dtype), rng.integers(0, 3, n)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("penalty", [0, 0.01])
def test_a_loop_by_hand_leaves_what_the_long_way_leaves(activation, optimizer, dtype, penalty, long_way):
    twins = [
        Loop(activation, optimizer, dtype, weight_regularizer_l1=penalty, bias_regularizer_l2=penalty) for _ in range(2)
    ]
    for seed in range(4):
        X, y = data(20 + seed, dtype, seed)
        twins[0].step(X, y)
        long_way(twins[1].step, X, y)
        assert twins[0].left_behind() == twins[1].left_behind()


def test_every_usual_call_of_a_loop_is_a_compiled_one(monkeypatch):
    loop, counts = Loop(nnx.Activation_ReLU, OPTIMIZERS["Adam"], "float32"), dict.fromkeys(_numpy.CALLS, 0)

    def counted(name):
        function = getattr(_kernels.backend, name)

        def call(*arguments):
            done = function(*arguments)
            counts[name] += done is not None and done is not False
            return done

        return call

    X, y = data(dtype="float32")
    loop.step(X, y)  # the first makes the optimizer's state
    for name in _numpy.CALLS:
        monkeypatch.setattr(_kernels.backend, name, counted(name))
    loop.step(X, y)
    assert counts == {name: 1 if "activation" in name or "softmax" in name else 2 for name in _numpy.CALLS}


CHANGES = {
    "lists": lambda loop, X, y: (X.tolist(), y.tolist()),
    "other floats": lambda loop, X, y: (X.astype("f4"), y.astype("u1")),
    "columns first": lambda loop, X, y: (np.asfortranarray(X), y),
    "one-hot": lambda loop, X, y: (X, np.eye(3)[y]),
    "no rows but one": lambda loop, X, y: (X[:1], y[:1]),
    "weights of another dtype": lambda loop, X, y: (
        setattr(loop.layers[0], "weights", np.ones((2, 16), "f4")), (X, y)
    )[1],
    "epsilon": lambda loop, X, y: (setattr(loop.optimizer, "epsilon", 0.5), (X, y))[1],
    "whole epsilon": lambda loop, X, y: (setattr(loop.optimizer, "epsilon", 1), (X, y))[1],
    "rate": lambda loop, X, y: (setattr(loop.optimizer, "learning_rate", 1), (X, y))[1],
    "decay": lambda loop, X, y: (setattr(loop.optimizer, "decay", 1), (X, y))[1],
    "schedule": lambda loop, X, y: (setattr(loop.optimizer, "schedule", lambda step: 0.5), (X, y))[1],
    "penalty": lambda loop, X, y: (setattr(loop.layers[0], "weight_regularizer_l2", 1), (X, y))[1],
    "state": lambda loop, X, y: (loop.layers[2].__dict__.pop("bias_cache"), (X, y))[1],
    "state that is a parameter": lambda loop, X, y: (
        setattr(loop.layers[2], "weight_averages", loop.layers[2].weights.copy()), (X, y)
    )[1],
    "label smoothing": lambda loop, X, y: (setattr(loop.loss.loss, "label_smoothing", 0.1), (X, y))[1],
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_unusual_is_taken_as_on_the_long_way(change, long_way):
    twins = [Loop(nnx.Activation_ReLU, OPTIMIZERS["Adam"], "float64") for _ in range(2)]
    for seed in range(4):
        X, y = data(seed=seed)
        arguments = [change(loop, X, y) if seed == 2 else (X, y) for loop in twins]
        twins[0].step(*arguments[0])
        long_way(twins[1].step, *arguments[1])
        (*found, first, sums), (*expected, second, others) = (loop.left_behind() for loop in twins)
        assert (found, sums) == (expected, others)
        assert {**first, "schedule": 0} == {**second, "schedule": 0}


def test_a_rule_is_made_anew_when_a_setting_changes_and_refused_then():
    optimizers = [nnx.Optimizer_Adam(epsilon=1.0), nnx.Optimizer_Adam(epsilon=2.0)]
    for _ in range(2):
        assert [optimizer._rule().settings[0] for optimizer in optimizers] == [1.0, 2.0]
    optimizers[1].epsilon = True
    with pytest.raises(TypeError, match=r"Optimizer_Adam\.update_params: epsilon must be a number, got True"):
        optimizers[1]._rule()


def test_a_rule_is_made_anew_when_its_formula_is_replaced(monkeypatch):
    optimizer, seen, formula = nnx.Optimizer_Adam(), [], nnx.Optimizer_Adam._formula
    optimizer._rule()
    monkeypatch.setattr(nnx.Optimizer_Adam, "_formula", lambda *of: (seen.append(of), formula(*of))[1])
    assert optimizer._rule().kernel == "adam"
    assert seen


def test_a_state_that_overlaps_its_parameter_is_refused():
    loop = Loop(nnx.Activation_ReLU, OPTIMIZERS["Adam"], "float64")
    for _ in range(2):
        loop.step(*data())
    loop.layers[0].weight_cache = loop.layers[0].weights
    with pytest.raises(ValueError, match="must not share memory"):
        loop.step(*data())


def test_methods_and_properties_of_subclasses_count():
    class Noting(nnx.Layer_Dense):
        noted = ()

        @property
        def output(self):
            return self.__dict__["output"]

        @output.setter
        def output(self, value):
            self.noted = (*self.noted, value)
            self.__dict__["output"] = value

        def get_parameters(self):
            self.noted = (*self.noted, "asked")
            return super().get_parameters()

    layer = Noting(2, 3)
    layer.forward(np.ones((4, 2), "f4"))
    layer.backward(np.ones((4, 3), "f4"))
    nnx.Optimizer_SGD().update_params(layer)
    assert layer.noted[0] is layer.output
    assert "asked" in layer.noted[1:]
