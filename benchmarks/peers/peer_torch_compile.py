"""PyTorch with `torch.compile`, in two ways.

- "loss": forward and loss compiled, and with them the backward pass; Adam eager and fused. With the default mode, and
  with ``max-autotune-no-cudagraphs``.
- "steps": several whole steps in one graph, gradient and Adam included, on one vector of parameters, behind a C++
  wrapper: what is left of Python is shared by the steps. Ahead in small networks by far; there one thread is faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import peer_torch
import torch
import torch._inductor
from torch.nn import functional
from workloads import (
    BETA_1,
    BETA_2,
    EPSILON,
    LEARNING_RATE,
    NORM_EPSILON,
    NORM_MOMENTUM,
    Candidate,
    EarlyStopping,
    Workload,
    flat_results,
    held_out,
    initial_parameters,
    initial_statistics,
)

VERSION = peer_torch.VERSION

torch._dynamo.config.recompile_limit = 1000  # each workload is another version of the same functions

Options = dict[str, Any]
MAX_AUTOTUNE: Options = torch._inductor.list_mode_options("max-autotune-no-cudagraphs")

#: Steps in one graph: twice as many gain a tenth in the smallest networks, and take twice as long to compile.
STEPS_A_GRAPH = 8

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "gelu": functional.gelu, "silu": functional.silu}


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the ways to train."""
    if workload.kind == "predict" and workload.precision == "bfloat16":
        return {
            f"{name}, frozen": partial(Frozen, make, workload, cores) for name, make in peer_torch.PREDICTIONS.items()
        }
    if workload.kind == "run":
        return {
            "loss": lambda: EarlyStopping(workload, Loss(workload, cores, {})),
            "steps": lambda: EarlyStopping(workload, Steps(workload, cores)),
        }
    if workload.kind != "train":
        return {}
    ways: dict[str, Callable[[], Candidate]] = {
        "loss": partial(Loss, workload, cores, {}),
        "loss, max-autotune": partial(Loss, workload, cores, MAX_AUTOTUNE),
    }
    for threads in {1, cores}:
        ways[f"steps, threads: {threads}"] = partial(Steps, workload, threads)
    if workload.precision == "bfloat16":
        ways["loss, autocast"] = partial(LossByAutocast, workload, cores, {})
        ways["loss, autocast, max-autotune"] = partial(LossByAutocast, workload, cores, MAX_AUTOTUNE)
        for threads in {1, cores}:
            ways[f"steps, bfloat16, threads: {threads}"] = partial(StepsInBfloat16, workload, threads)
    return ways


class Loss(peer_torch.Training):
    """A unit is an epoch."""

    def __init__(self, workload: Workload, threads: int, options: Options) -> None:
        super().__init__(workload, threads)
        self.loss = torch.compile(super().loss, dynamic=False, options={**options, "cpp.threads": threads})


class LossByAutocast(peer_torch.Autocast):
    """A unit is an epoch."""

    def __init__(self, workload: Workload, threads: int, options: Options) -> None:
        super().__init__(workload, threads)
        self.loss = torch.compile(super().loss, dynamic=False, options={**options, "cpp.threads": threads})


def joined(arrays: list[np.ndarray]) -> torch.Tensor:
    """Return one vector of them all."""
    return torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *(array.ravel() for array in arrays)]))


class Layout:
    """Where arrays are in a vector."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.shapes, self.sizes = [array.shape for array in arrays], [array.size for array in arrays]

    def views(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """Return the arrays."""
        return [part.view(shape) for part, shape in zip(vector.split(self.sizes), self.shapes, strict=True)]


Figures = tuple[torch.Tensor, torch.Tensor]  # mean and variance


def updated(running: Figures, batch: Figures, n: int) -> Figures:
    """Return running figures after a batch of ``n`` samples, whose variance is biased."""
    mean, variance = (
        NORM_MOMENTUM * old + (1 - NORM_MOMENTUM) * new
        for old, new in zip(running, (batch[0], batch[1] * (n / (n - 1))), strict=True)
    )
    return mean.detach(), variance.detach()


class Steps:
    """A unit is an epoch, or as many as fill a graph."""

    def __init__(self, workload: Workload, threads: int) -> None:
        self.workload, self.threads = workload, threads
        batches = peer_torch.batches(workload)
        if len(batches) == 1:
            batches = batches * STEPS_A_GRAPH
        self.steps = len(batches)
        n = max(n for n in range(1, STEPS_A_GRAPH + 1) if self.steps % n == 0)
        self.groups = [tuple(zip(*batches[i : i + n], strict=True)) for i in range(0, self.steps, n)]
        parameters, statistics = initial_parameters(workload), initial_statistics(workload)
        decays = [
            np.full_like(array, 0.0 if i else workload.weight_decay)
            for arrays in parameters
            for i, array in enumerate(arrays)
        ]
        self.decays = joined(decays)
        self.learnt, self.running = Layout(flat_results(parameters, [])), Layout(flat_results([], statistics))
        self.initial = joined(flat_results(parameters, [])), joined(flat_results([], statistics))
        zeros = [torch.zeros_like(self.initial[0]) for _ in range(3)]
        self.state = (*zeros, torch.zeros(()), torch.zeros_like(self.initial[1]))
        options = {"cpp_wrapper": True, "cpp.threads": threads}
        self.compiled = torch.compile(self._steps, dynamic=False, options=options)
        if workload.held_out:
            X, y = held_out(workload)
            self.held_out = peer_torch.inputs(workload, X), torch.from_numpy(y)
            self.evaluate = torch.compile(self._held_out_loss, dynamic=False, options=options)
        self.reset()

    def reset(self) -> None:
        torch.set_num_threads(self.threads)
        for tensor in self.state:
            tensor.zero_()
        self.state[0].copy_(self.initial[0])
        self.state[-1].copy_(self.initial[1])

    def run(self, units: int) -> None:
        with torch.no_grad():
            for _ in range(units):
                for X, y in self.groups:
                    self.compiled(self.state, X, y)

    def results(self) -> list[np.ndarray]:
        arrays = self.learnt.views(self.state[0]) + self.running.views(self.state[-1])
        return [array.numpy().copy() for array in arrays]

    def held_out_loss(self) -> float:
        with torch.no_grad():
            return self.evaluate(self.state).item()

    def keep(self) -> None:
        self.kept = self.state[0].clone(), self.state[-1].clone()

    def restore(self) -> None:
        self.state[0].copy_(self.kept[0])
        self.state[-1].copy_(self.kept[1])

    def _held_out_loss(self, state: Any) -> torch.Tensor:
        return self._loss(state[0], state[-1], *self.held_out, training=False)[0]

    def _steps(self, state: Any, X: Any, y: Any) -> torch.Tensor:
        """Run a group of steps and return their losses."""
        workload = self.workload
        parameters, momentums, caches, count, statistics = state
        losses = []
        for batch in zip(X, y, strict=True):
            find = torch.func.grad_and_value(self._loss, has_aux=True)
            gradients, (loss, statistics) = find(parameters, statistics, *batch)
            losses.append(loss)
            rate: Any = LEARNING_RATE
            if workload.clip_norm:
                gradients = gradients * (workload.clip_norm / gradients.square().sum().sqrt()).clamp(max=1)
            if workload.schedule_steps:
                angle = count.clamp(max=workload.schedule_steps) * (math.pi / workload.schedule_steps)
                rate = LEARNING_RATE / 2 * (1 + angle.cos())
            if workload.weight_decay:
                parameters = parameters * (1 - rate * self.decays)
            count = count + 1
            momentums = BETA_1 * momentums + (1 - BETA_1) * gradients
            caches = BETA_2 * caches + (1 - BETA_2) * gradients * gradients
            divisor = (caches / (1 - BETA_2**count)).sqrt() + EPSILON
            parameters = parameters - rate * (momentums / (1 - BETA_1**count)) / divisor
        for old, new in zip(state, (parameters, momentums, caches, count, statistics), strict=True):
            old.copy_(new)
        return torch.stack(losses)

    def _loss(
        self, vector: torch.Tensor, statistics: torch.Tensor, values: Any, y: torch.Tensor, training: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss, and what the running figures are after it."""
        workload = self.workload
        arrays = self.learnt.views(vector)
        learnt, running = iter(arrays), iter(self.running.views(statistics))
        found: list[torch.Tensor] = []
        for part in workload.parts:
            if part == "embedding":
                numbers, rows = values
                values = torch.cat((numbers, functional.embedding(rows, next(learnt)).flatten(1)), 1)
            elif part == "dense":
                values = self._dense(values, next(learnt), next(learnt))
            elif part == "norm":
                figures = next(running), next(running)
                if training:
                    mean = values.mean(0)
                    batch = mean, values.square().mean(0) - mean.square()
                    found += updated(figures, batch, len(values))
                    figures = batch
                scale = next(learnt) / (figures[1] + NORM_EPSILON).sqrt()
                values = values * scale + (next(learnt) - figures[0] * scale)
            elif part == "activation":
                values = ACTIVATIONS[workload.activation](values)
            elif part == "dropout":
                values = functional.dropout(values, workload.dropout, training)
        loss = peer_torch.LOSSES[workload.loss](values, y)
        if workload.l2:
            loss = loss + workload.l2 * (arrays[0].square().sum() + arrays[1].square().sum())
        return loss, torch.cat(found) if found else statistics

    def _dense(self, values: torch.Tensor, weights: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
        return torch.addmm(biases, values, weights)


class StepsInBfloat16(Steps):
    """A unit is an epoch, or as many as fill a graph. Parameters and Adam in float32."""

    def _dense(self, values: torch.Tensor, weights: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
        return (values.bfloat16() @ weights.bfloat16()).float() + biases


class Frozen:
    """A unit is a call, of a graph whose weights are constants that oneDNN may lay out as it likes."""

    steps = 1

    def __init__(self, make: Callable[[Workload, int], Any], workload: Workload, threads: int) -> None:
        self.candidate = make(workload, threads)
        options = {"freezing": True, "cpp.threads": threads}
        self.candidate.predict = torch.compile(self.candidate.predict, dynamic=False, options=options)
        self.reset, self.run, self.results = self.candidate.reset, self.candidate.run, self.candidate.results
