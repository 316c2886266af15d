"""PyTorch, eager: `torch.nn`, and Adam in its fused form, which is the fastest of the three that PyTorch has.

- With oneDNN and without: its calls of GELU cost more than they bring at small sizes, a quarter of a step of
  32-64-32-2.
- AdamW, clipping and a schedule: parameters and their gradients are views of one vector each, weights first. Then the
  norm is one product, and AdamW has two tensors (biases do not decay). Rates come from a list. A step of 13-64-64-1
  takes 350 µs; with ``clip_grad_norm_`` (``foreach``) and six tensors it takes 480 µs.
- Categories: one table, whose rows are numbered through all columns, so that a step looks up once.
- Batch normalization does not count its batches, which nobody asks for.
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
    NORM_EPSILON,
    NORM_MOMENTUM,
    Candidate,
    EarlyStopping,
    Workload,
    held_out,
    initial_results,
    learning_rate,
    numbers_and_rows,
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
    if workload.kind == "run":
        return {"": lambda: EarlyStopping(workload, Training(workload, cores))}
    if workload.kind not in ("train", "call"):
        return {}
    for threads in {1, cores}:
        if workload.precision == "bfloat16":
            ways[f"threads: {threads}, autocast"] = partial(Autocast, workload, threads)
        ways[f"threads: {threads}"] = partial(Training, workload, threads)
        ways[f"threads: {threads}, without oneDNN"] = partial(WithoutOneDNN, workload, threads)
    return ways


Inputs = Any  # a tensor; with categories a pair, numbers and rows of the table


def inputs(workload: Workload, X: np.ndarray) -> Inputs:
    """Return X as the network takes it."""
    if workload.categories:
        return tuple(torch.from_numpy(array) for array in numbers_and_rows(workload, X))
    return torch.from_numpy(X)


def batches(workload: Workload) -> list[tuple[Inputs, torch.Tensor]]:
    """Return an epoch's batches: views, made once."""
    X, y = samples(workload)
    given, targets = inputs(workload, X), torch.from_numpy(y).split(workload.batch)
    if workload.categories:
        found = zip(*(tensor.split(workload.batch) for tensor in given), strict=True)
        return list(zip(found, targets, strict=True))
    return list(zip(given.split(workload.batch), targets, strict=True))


class Columns(torch.nn.Module):
    """Numbers, and behind them what stands in the table's rows."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.empty(sum(workload.categories), workload.category_width))

    def forward(self, inputs: Inputs) -> torch.Tensor:
        numbers, rows = inputs
        return torch.cat((numbers, functional.embedding(rows, self.weight).flatten(1)), 1)


def network(workload: Workload) -> torch.nn.Sequential:
    """Return the network, with whatever weights PyTorch draws."""
    layers: list[torch.nn.Module] = []
    sizes = zip(workload.widths, workload.widths[1:], strict=False)
    for part in workload.parts:
        if part == "embedding":
            layers.append(Columns(workload))
        elif part == "dense":
            n_in, n_out = next(sizes)
            layers.append(torch.nn.Linear(n_in, n_out))
        elif part == "norm":
            norm = torch.nn.BatchNorm1d(n_out, eps=NORM_EPSILON, momentum=1 - NORM_MOMENTUM)
            norm.num_batches_tracked = None
            layers.append(norm)
        elif part == "activation":
            layers.append(ACTIVATIONS[workload.activation]())
        elif part == "dropout":
            layers.append(torch.nn.Dropout(workload.dropout))
    return torch.nn.Sequential(*layers)


class Training:
    """A unit is an epoch."""

    def __init__(self, workload: Workload, threads: int) -> None:
        self.steps, self.threads = workload.steps, threads
        self.l2, self.criterion = workload.l2, LOSSES[workload.loss]
        self.batches = batches(workload)
        self.net = network(workload)
        self.parameters = list(self.net.parameters())
        self.arrays = [*self.parameters, *self.net.buffers()]
        # PyTorch has the weights of dense layers the other way round.
        turned = [isinstance(layer, torch.nn.Linear) for layer in self.net for _ in layer.parameters()]
        self.turned = turned + [False] * (len(self.arrays) - len(turned))
        self.initial = [
            torch.from_numpy(array.T.copy() if turned else array)
            for array, turned in zip(initial_results(workload), self.turned, strict=True)
        ]
        if workload.held_out:
            X, y = held_out(workload)
            self.held_out = inputs(workload, X), torch.from_numpy(y)
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
            for tensor, values in zip(self.arrays, self.initial, strict=True):
                tensor.copy_(values)
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
        arrays = [tensor.detach().float().numpy() for tensor in self.arrays]
        return [(array.T if turned else array).copy() for array, turned in zip(arrays, self.turned, strict=True)]

    def held_out_loss(self) -> float:
        self.net.eval()
        with torch.inference_mode():
            loss = self.loss(*self.held_out).item()
        self.net.train()
        return loss

    def keep(self) -> None:
        self.kept = [tensor.detach().clone() for tensor in self.arrays]

    def restore(self) -> None:
        with torch.no_grad():
            for tensor, kept in zip(self.arrays, self.kept, strict=True):
                tensor.copy_(kept)

    def _join(self) -> list[dict[str, Any]]:
        """Move parameters and gradients into a vector each; return their halves, weights and biases, as groups."""
        names = [name for name, _ in self.net.named_parameters()]
        pairs = list(zip(names, self.parameters, strict=True))
        weights = [parameter for name, parameter in pairs if name.endswith("weight")]
        ordered = weights + [parameter for name, parameter in pairs if name.endswith("bias")]
        sizes = [parameter.numel() for parameter in ordered]
        values = torch.cat([parameter.detach().ravel() for parameter in ordered])
        self.gradients = torch.zeros_like(values)
        for parameter, value, gradient in zip(ordered, values.split(sizes), self.gradients.split(sizes), strict=True):
            parameter.data, parameter.grad = value.view_as(parameter), gradient.view_as(parameter)
        n_weights = sum(sizes[: len(weights)])
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
