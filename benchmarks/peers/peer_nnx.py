"""nnx: `Model.train`, `Model.predict` and a `Predictor`; where products are bfloat16, `precision=`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from workloads import (
    BETA_1,
    BETA_2,
    DELTA,
    EPSILON,
    LEARNING_RATE,
    NORM_EPSILON,
    NORM_MOMENTUM,
    Candidate,
    Workload,
    held_out,
    initial_results,
    samples,
)

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
    """Return the ways to do it: predictions have two, in bfloat16 one."""
    if workload.kind == "predict":
        ways = {"predictor": lambda: Predicting(workload, frozen=True, threads=cores)}
        return ways if workload.precision != "float32" else {"predict": lambda: Predicting(workload), **ways}
    kind = {"run": Run}.get(workload.kind, Training)
    return {"": lambda: kind(workload, cores)}


def network(workload: Workload) -> nnx.Model:
    """Return the model, with the initial weights."""
    model = nnx.Model()
    sizes, l2 = zip(workload.widths, workload.widths[1:], strict=False), workload.l2
    for i, part in enumerate(workload.parts):
        if part == "embedding":
            n_columns = workload.n_numbers + len(workload.categories)
            columns = tuple(range(workload.n_numbers, n_columns))
            model.add(nnx.Layer_Embedding(n_columns, columns, workload.categories, workload.category_width))
        elif part == "dense":
            n_in, n_out = next(sizes)
            model.add(nnx.Layer_Dense(n_in, n_out, weight_regularizer_l2=l2, bias_regularizer_l2=l2))
            l2 = 0.0  # for the first one alone
        elif part == "norm":
            model.add(nnx.Layer_BatchNorm(n_out, momentum=NORM_MOMENTUM, epsilon=NORM_EPSILON))
        elif part == "activation":
            model.add(getattr(nnx, ACTIVATIONS[workload.activation])())
        elif part == "dropout":
            model.add(nnx.Layer_Dropout(workload.dropout, seed=i))
    last, loss, accuracy = ENDINGS[workload.loss]
    model.add(last())
    model.set(loss=loss(), optimizer=optimizer(workload), accuracy=accuracy())
    model.finalize()
    for array, values in zip(arrays(model), initial_results(workload), strict=True):
        array.flat = values.ravel()
    return model


def arrays(model: nnx.Model) -> list[np.ndarray]:
    """Return the live arrays: weights and biases of all layers, then running means and variances."""
    found = []
    for names in (("weights", "biases"), ("running_mean", "running_variance")):
        present = (getattr(layer, name, None) for layer in model.layers for name in names)
        found += [array for array in present if array is not None]
    return found


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
        self.workload, self.steps = workload, workload.steps
        self.X, self.y = samples(workload)
        self.model = network(workload)
        self.initial = [array.copy() for array in arrays(self.model)]
        self.shapes = [array.shape for array in initial_results(workload)]
        self.options = {"batch_size": None if workload.steps == 1 else workload.batch, "print_every": self.print_every}
        if "threads" in inspect.signature(nnx.Model.train).parameters:
            self.options["threads"] = cores  # at most so many, as the other libraries are told
        if workload.precision != "float32":
            self.options["precision"] = workload.precision
        self.a_call_each = workload.kind == "call"

    def reset(self) -> None:
        self.model.optimizer.iterations = 0
        for array, values in zip(arrays(self.model), self.initial, strict=True):
            array[...] = values
        for layer in self.model.trainable_layers:
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
        pairs = zip(arrays(self.model), self.shapes, strict=True)
        return [array.reshape(shape).copy() for array, shape in pairs]


class Run(Training):
    """A unit is a run, as a user writes it."""

    def __init__(self, workload: Workload, cores: int) -> None:
        super().__init__(workload, cores)
        self.steps = 1
        self.options["validation_data"] = held_out(workload)

    def run(self, units: int) -> None:
        for _ in range(units):
            self.reset()
            stopping = nnx.EarlyStopping(monitor="validation_loss", patience=self.workload.patience, restore_best=True)
            history = self.model.train(
                self.X, self.y, epochs=self.workload.epochs, callbacks=[stopping], **self.options
            )
            self.epochs = len(history.loss)


class Predicting:
    """Calls of `predict`, or of a `Predictor`; both return a new array each."""

    steps = 1

    def __init__(self, workload: Workload, frozen: bool = False, threads: int = 1) -> None:
        self.X, _ = samples(workload)
        model = network(workload)
        options: dict[str, Any] = {}
        if "threads" in inspect.signature(nnx.Model.predictor).parameters:
            options["threads"] = threads
        self.predict = model.predictor(workload.precision, **options) if frozen else model.predict

    def reset(self) -> None:
        pass

    def run(self, units: int) -> None:
        predict, X = self.predict, self.X
        for _ in range(units):
            predict(X)

    def results(self) -> list[np.ndarray]:
        return [self.predict(self.X)]
