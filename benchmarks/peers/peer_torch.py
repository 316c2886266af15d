"""PyTorch, eager: `torch.nn`, and Adam in its fused form, which is the fastest of the three that PyTorch has.

- GELU without oneDNN, whose calls cost more than they bring at these sizes: a quarter of a step of 32-64-32-2.
- AdamW, clipping and a schedule: parameters and their gradients are views of one vector each, weights first. Then the
  norm is one product, and AdamW has two tensors (biases do not decay). Rates come from a list. A step of 13-64-64-1
  takes 350 µs; with ``clip_grad_norm_`` (``foreach``) and six tensors it takes 480 µs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from workloads import (
    BETA_1,
    BETA_2,
    DELTA,
    EPSILON,
    LEARNING_RATE,
    Candidate,
    Workload,
    initial_parameters,
    learning_rate,
    samples,
)

VERSION = torch.__version__

LOSSES = {
    "softmax": functional.cross_entropy,
    "sigmoid": functional.binary_cross_entropy_with_logits,
    "squares": functional.mse_loss,
    "huber": partial(functional.huber_loss, delta=DELTA),
}
ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "gelu": torch.nn.GELU, "silu": torch.nn.SiLU}


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the ways to train: with one thread too, which suits the smallest networks better than two."""
    ways: dict[str, Callable[[], Candidate]] = {}
    if workload.kind == "predict" and workload.precision == "bfloat16":
        return {name: partial(make, workload, cores) for name, make in PREDICTIONS.items()}
    if workload.kind not in ("train", "call"):
        return {}
    for threads in {1, cores}:
        if workload.precision == "bfloat16":
            ways[f"threads: {threads}, autocast"] = partial(Autocast, workload, threads)
        ways[f"threads: {threads}"] = partial(Training, workload, threads)
        if workload.activation == "gelu":
            ways[f"threads: {threads}, without oneDNN"] = partial(WithoutOneDNN, workload, threads)
    return ways


def batches(workload: Workload) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return an epoch's batches: views, made once."""
    tensors = [torch.from_numpy(array).split(workload.batch) for array in samples(workload)]
    return list(zip(*tensors, strict=True))


class Training:
    """A unit is an epoch."""

    def __init__(self, workload: Workload, threads: int) -> None:
        self.steps, self.threads = workload.steps, threads
        self.l2, self.criterion = workload.l2, LOSSES[workload.loss]
        self.batches = batches(workload)
        pairs = initial_parameters(workload)
        self.initial = [torch.from_numpy(array) for weights, biases in pairs for array in (weights.T.copy(), biases)]
        layers: list[torch.nn.Module] = []
        for i, (n_in, n_out) in enumerate(zip(workload.widths, workload.widths[1:], strict=False)):
            layers.append(torch.nn.Linear(n_in, n_out))
            if i < len(workload.widths) - 2:
                layers.append(ACTIVATIONS[workload.activation]())
                if i == 0 and workload.dropout:
                    layers.append(torch.nn.Dropout(workload.dropout))
        self.net = torch.nn.Sequential(*layers)
        self.parameters = list(self.net.parameters())
        options: dict[str, Any] = {"lr": LEARNING_RATE, "betas": (BETA_1, BETA_2), "eps": EPSILON, "fused": True}
        self.joined = bool(workload.weight_decay or workload.schedule_steps or workload.clip_norm)
        if self.joined:
            groups = self._join()
            for group, decay in zip(groups, (workload.weight_decay, 0.0), strict=True):
                group["weight_decay"] = decay
            self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, **options)
        else:
            self.optimizer = torch.optim.Adam(self.parameters, **options)
        self.clip_norm = workload.clip_norm or math.inf
        self.rates = [learning_rate(workload, step) for step in range(workload.schedule_steps + 1)]
        self.reset()

    def reset(self) -> None:
        torch.set_num_threads(self.threads)
        self.step = 0
        with torch.no_grad():
            for parameter, values in zip(self.parameters, self.initial, strict=True):
                parameter.copy_(values)
            for tensor in chain.from_iterable(state.values() for state in self.optimizer.state.values()):
                tensor.zero_()

    def loss(self, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return loss and penalty."""
        loss = self.criterion(self.net(X), y)
        if self.l2:
            first = self.net[0]
            loss = loss + self.l2 * (first.weight.square().sum() + first.bias.square().sum())
        return loss

    def run(self, units: int) -> None:
        if self.joined:
            self._run_joined(units)
            return
        loss, optimizer = self.loss, self.optimizer
        for _ in range(units):
            for X, y in self.batches:
                optimizer.zero_grad(set_to_none=True)
                loss(X, y).backward()
                optimizer.step()

    def results(self) -> list[np.ndarray]:
        return [parameter.detach().numpy().T.copy() for parameter in self.parameters]

    def _join(self) -> list[dict[str, Any]]:
        """Move parameters and gradients into a vector each; return their halves, weights and biases, as groups."""
        ordered = self.parameters[::2] + self.parameters[1::2]
        sizes = [parameter.numel() for parameter in ordered]
        values = torch.cat([parameter.detach().ravel() for parameter in ordered])
        self.gradients = torch.zeros_like(values)
        for parameter, value, gradient in zip(ordered, values.split(sizes), self.gradients.split(sizes), strict=True):
            parameter.data, parameter.grad = value.view_as(parameter), gradient.view_as(parameter)
        n_weights = sum(sizes[: len(sizes) // 2])
        halves = values[:n_weights], values[n_weights:]
        for half, gradient in zip(halves, (self.gradients[:n_weights], self.gradients[n_weights:]), strict=True):
            half.grad = gradient
        return [{"params": [half]} for half in halves]

    def _run_joined(self, units: int) -> None:
        """Run epochs with clipping, and a rate for each step."""
        loss, optimizer, gradients, rates, step = self.loss, self.optimizer, self.gradients, self.rates, self.step
        for _ in range(units):
            for X, y in self.batches:
                gradients.zero_()
                loss(X, y).backward()
                norm = math.sqrt(torch.dot(gradients, gradients).item())
                if norm > self.clip_norm:
                    gradients.mul_(self.clip_norm / norm)
                for group in optimizer.param_groups:
                    group["lr"] = rates[min(step, len(rates) - 1)]
                optimizer.step()
                step += 1
        self.step = step


class WithoutOneDNN(Training):
    """A unit is an epoch."""

    def run(self, units: int) -> None:
        with torch.backends.mkldnn.flags(enabled=False):
            super().run(units)


class Autocast(Training):
    """A unit is an epoch. Forward and backward passes in bfloat16; weights, gradients and Adam in float32."""

    def loss(self, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().loss(X, y)


class Predicting:
    """A unit is a call."""

    steps = 1

    def __init__(self, workload: Workload, threads: int) -> None:
        self.threads = threads
        self.net = Training(workload, threads).net.eval()
        self.X = torch.from_numpy(samples(workload)[0])

    def reset(self) -> None:
        torch.set_num_threads(self.threads)

    def predict(self) -> torch.Tensor:
        """Return the probabilities in float32."""
        return self.net(self.X).float().softmax(1)

    def run(self, units: int) -> None:
        predict = self.predict
        with torch.inference_mode():
            for _ in range(units):
                predict()

    def results(self) -> list[np.ndarray]:
        with torch.inference_mode():
            return [self.predict().numpy()]


class PredictingByAutocast(Predicting):
    """A unit is a call, with weights in float32. Inference mode would keep no copies of them in bfloat16 anyway."""

    def predict(self) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().predict()


class PredictingPure(Predicting):
    """A unit is a call, with weights in bfloat16."""

    def __init__(self, workload: Workload, threads: int) -> None:
        super().__init__(workload, threads)
        self.net = self.net.bfloat16()

    def predict(self) -> torch.Tensor:
        return self.net(self.X.bfloat16()).float().softmax(1)


#: The ways to predict in bfloat16, and the way without.
PREDICTIONS: dict[str, Callable[[Workload, int], Candidate]] = {
    "float32": Predicting,
    "autocast": PredictingByAutocast,
    "pure": PredictingPure,
}
