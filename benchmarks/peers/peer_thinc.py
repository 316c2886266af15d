"""thinc on its operations for NumPy, with the products of BLIS or of NumPy.

Only the gradients of the losses are computed, as its training loop needs no more. It clips by array
and lets biases decay too: workloads that want that otherwise are left out.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from thinc.api import Adam, Dropout, Gelu, Linear, Model, NumpyOps, Relu, Softmax, Swish, chain, set_current_ops
from workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Candidate, Workload, initial_parameters, one_hot, samples

VERSION = importlib.metadata.version("thinc")


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the ways to train."""
    if workload.kind != "train" or workload.weight_decay or workload.schedule_steps or workload.clip_norm:
        return {}
    return {"BLIS": partial(Training, workload, True), "NumPy": partial(Training, workload, False)}


def tanh_forward(model: Model, inputs: np.ndarray, is_train: bool) -> tuple[np.ndarray, Callable[..., np.ndarray]]:
    """Return tanh and its backward pass: thinc has no layer for it."""
    output = np.tanh(inputs)

    def backward(dvalues: np.ndarray) -> np.ndarray:
        gradient = output * output
        np.subtract(1, gradient, out=gradient)
        gradient *= dvalues
        return gradient

    return output, backward


#: By activation: a dense layer with it.
LAYERS = {"relu": Relu, "tanh": Linear, "gelu": Gelu, "silu": Swish}


class Training:
    """A unit is an epoch."""

    def __init__(self, workload: Workload, blis: bool) -> None:
        self.workload, self.steps = workload, workload.steps
        self.initial = initial_parameters(workload)
        self.ops = NumpyOps(use_blis=blis)
        set_current_ops(self.ops)
        X, y = samples(workload)
        self.targets = one_hot(y, workload.widths[-1]) if workload.loss == "softmax" else y
        starts = range(0, workload.samples, workload.batch)
        self.batches = [(X[i : i + workload.batch], self.targets[i : i + workload.batch]) for i in starts]
        sizes = list(zip(workload.widths, workload.widths[1:], strict=False))
        hidden = LAYERS[workload.activation]
        self.dense: list[Model] = [hidden(n_out, n_in) for n_in, n_out in sizes[:-1]]
        # Softmax takes the gradient of what goes into it; the sigmoid is below, so that its gradient can be exact too.
        last = Softmax if workload.loss == "softmax" else Linear
        self.dense.append(last(sizes[-1][1], sizes[-1][0]))
        layers = list(self.dense)
        if workload.activation == "tanh":
            layers = [part for layer in self.dense[:-1] for part in (layer, Model("tanh", tanh_forward))]
            layers.append(self.dense[-1])
        if workload.dropout:
            layers.insert(2 if workload.activation == "tanh" else 1, Dropout(workload.dropout))
        self.model = chain(*layers).initialize()
        self.reset()

    def reset(self) -> None:
        for layer, (weights, biases) in zip(self.dense, self.initial, strict=True):
            layer.set_param("W", weights.T.copy())  # Adam works in place
            layer.set_param("b", biases.copy())
        self.optimizer = Adam(
            LEARNING_RATE, beta1=BETA_1, beta2=BETA_2, eps=EPSILON, L2=0.0, grad_clip=0.0, use_averages=False
        )

    def run(self, units: int) -> None:
        model, l2 = self.model, self.workload.l2
        for _ in range(units):
            for X, targets in self.batches:
                output, backprop = model.begin_update(X)
                backprop(self._gradient(output, targets))
                if l2:
                    first = self.dense[0]
                    for name in ("W", "b"):
                        first.inc_grad(name, 2 * l2 * first.get_param(name))
                model.finish_update(self.optimizer)

    def results(self) -> list[np.ndarray]:
        pairs = ((layer.get_param("W").T, layer.get_param("b")) for layer in self.dense)
        return [np.array(array) for pair in pairs for array in pair]

    def _gradient(self, output: np.ndarray, targets: np.ndarray) -> np.ndarray:
        if self.workload.loss == "sigmoid":
            output = self.ops.sigmoid(output)
        factor = np.float32((2 if self.workload.loss == "squares" else 1) / len(targets))
        return (output - targets) * factor
