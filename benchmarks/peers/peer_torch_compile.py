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
from workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Candidate, Workload, initial_parameters

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
        arrays = [array for pair in initial_parameters(workload) for array in pair]
        self.shapes, self.sizes = [array.shape for array in arrays], [array.size for array in arrays]
        self.initial = torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
        decays = [
            np.full(array.size, workload.weight_decay if array.ndim == 2 else 0.0, np.float32) for array in arrays
        ]
        self.decays = torch.from_numpy(np.concatenate(decays))
        self.state = (*(torch.zeros_like(self.initial) for _ in range(3)), torch.zeros(()))
        self.compiled = torch.compile(self._steps, dynamic=False, options={"cpp_wrapper": True, "cpp.threads": threads})
        self.reset()

    def reset(self) -> None:
        torch.set_num_threads(self.threads)
        self.state[0].copy_(self.initial)
        for tensor in self.state[1:]:
            tensor.zero_()

    def run(self, units: int) -> None:
        with torch.no_grad():
            for _ in range(units):
                for X, y in self.groups:
                    self.compiled(self.state, X, y)

    def results(self) -> list[np.ndarray]:
        return [array.numpy().copy() for array in self._views(self.state[0])]

    def _views(self, vector: torch.Tensor) -> list[torch.Tensor]:
        return [part.view(shape) for part, shape in zip(vector.split(self.sizes), self.shapes, strict=True)]

    def _steps(self, state: Any, X: Any, y: Any) -> torch.Tensor:
        """Run a group of steps and return their losses."""
        workload = self.workload
        parameters, momentums, caches, count = state
        losses = []
        for batch in zip(X, y, strict=True):
            gradients, loss = torch.func.grad_and_value(self._loss)(parameters, *batch)
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
        for old, new in zip(state, (parameters, momentums, caches, count), strict=True):
            old.copy_(new)
        return torch.stack(losses)

    def _loss(self, vector: torch.Tensor, values: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        arrays = self._views(vector)
        for i in range(0, len(arrays), 2):
            values = self._dense(values, arrays[i], arrays[i + 1])
            if i < len(arrays) - 2:
                values = ACTIVATIONS[self.workload.activation](values)
                if i == 0 and self.workload.dropout:
                    values = functional.dropout(values, self.workload.dropout)
        loss = peer_torch.LOSSES[self.workload.loss](values, y)
        if self.workload.l2:
            loss = loss + self.workload.l2 * (arrays[0].square().sum() + arrays[1].square().sum())
        return loss

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
