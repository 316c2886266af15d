"""nnx: `Model.train` and `Model.predict`; where products are bfloat16, `precision=` and a `Predictor`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from workloads import BETA_1, BETA_2, DELTA, EPSILON, LEARNING_RATE, Candidate, Workload, initial_parameters, samples

import nnx
from nnx import _kernels

VERSION = f"{nnx.__version__} ({_kernels.name})"

#: By loss: the last layer, the loss, and the accuracy that `Model.train` computes along with it.
ENDINGS = {
    "softmax": (nnx.Activation_Softmax, nnx.Loss_CategoricalCrossentropy, nnx.Accuracy_Categorical),
    "sigmoid": (
        nnx.Activation_Sigmoid,
        nnx.Loss_BinaryCrossentropy,
        lambda: nnx.Accuracy_Categorical(binary=True),
    ),
    "squares": (nnx.Activation_Linear, nnx.Loss_MeanSquaredError, nnx.Accuracy_Regression),
    "huber": (nnx.Activation_Linear, lambda: nnx.Loss_Huber(delta=DELTA), nnx.Accuracy_Regression),
}
#: The names of the classes: an nnx without some of them runs the other workloads.
ACTIVATIONS = {
    "relu": "Activation_ReLU",
    "tanh": "Activation_Tanh",
    "gelu": "Activation_GELU",
    "silu": "Activation_SiLU",
}


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the ways to do it: there is one."""
    kind = Predicting if workload.kind == "predict" else Training
    return {"": lambda: kind(workload, cores)}


def network(workload: Workload) -> nnx.Model:
    """Return the model, with the initial weights."""
    model = nnx.Model()
    last, loss, accuracy = ENDINGS[workload.loss]
    for i, (n_in, n_out) in enumerate(zip(workload.widths, workload.widths[1:], strict=False)):
        l2 = workload.l2 if i == 0 else 0.0
        model.add(nnx.Layer_Dense(n_in, n_out, weight_regularizer_l2=l2, bias_regularizer_l2=l2))
        if i < len(workload.widths) - 2:
            model.add(getattr(nnx, ACTIVATIONS[workload.activation])())
            if i == 0 and workload.dropout:
                model.add(nnx.Layer_Dropout(workload.dropout, seed=0))
    model.add(last())
    model.set(loss=loss(), optimizer=optimizer(workload), accuracy=accuracy())
    model.finalize()
    model.set_parameters([(weights.copy(), biases[None].copy()) for weights, biases in initial_parameters(workload)])
    return model


def optimizer(workload: Workload) -> Any:
    """Return Adam, or AdamW; with schedule and clipping, where the workload has them."""
    options: dict[str, Any] = {
        "learning_rate": LEARNING_RATE,
        "epsilon": EPSILON,
        "beta_1": BETA_1,
        "beta_2": BETA_2,
    }
    if workload.clip_norm:
        options["clip_norm"] = workload.clip_norm
    if workload.schedule_steps:
        options["schedule"] = nnx.Schedule_Cosine(workload.schedule_steps)
    if workload.weight_decay:
        return nnx.Optimizer_AdamW(weight_decay=workload.weight_decay, **options)
    return nnx.Optimizer_Adam(**options)


class Training:
    """Epochs in one call; where the call itself is measured, a call for each."""

    print_every: int | None = None

    def __init__(self, workload: Workload, cores: int) -> None:
        self.steps = workload.steps
        self.X, self.y = samples(workload)
        self.model, self.initial = network(workload), initial_parameters(workload)
        self.options = {"batch_size": None if workload.steps == 1 else workload.batch, "print_every": self.print_every}
        if "threads" in inspect.signature(nnx.Model.train).parameters:
            self.options["threads"] = cores  # at most so many, as the other libraries are told
        if workload.precision != "float32":
            self.options["precision"] = workload.precision
        self.a_call_each = workload.kind == "call"

    def reset(self) -> None:
        self.model.optimizer.iterations = 0
        for layer, (weights, biases) in zip(self.model.trainable_layers, self.initial, strict=True):
            layer.weights[...], layer.biases[...] = weights, biases
            for name in ("weight_momentums", "weight_cache", "bias_momentums", "bias_cache"):
                if hasattr(layer, name):
                    getattr(layer, name)[...] = 0

    def run(self, units: int) -> None:
        if self.a_call_each:
            train, X, y = self.model.train, self.X, self.y
            for _ in range(units):
                train(X, y, print_every=None)
        else:
            self.model.train(self.X, self.y, epochs=units, **self.options)

    def results(self) -> list[np.ndarray]:
        pairs = self.model.get_parameters()
        return [array for weights, biases in pairs for array in (weights.copy(), biases.ravel().copy())]


class Predicting:
    """Calls of `predict`, which return a new array each."""

    steps = 1

    def __init__(self, workload: Workload, cores: int) -> None:
        self.X, _ = samples(workload)
        model = network(workload)
        rounded = workload.precision != "float32"
        self.predict = model.predictor(precision=workload.precision) if rounded else model.predict

    def reset(self) -> None:
        pass

    def run(self, units: int) -> None:
        predict, X = self.predict, self.X
        for _ in range(units):
            predict(X)

    def results(self) -> list[np.ndarray]:
        return [self.predict(self.X)]
