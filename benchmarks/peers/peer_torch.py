"""PyTorch, eager: `torch.nn`, and Adam in its fused form, which is the fastest of the three that PyTorch has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain

import numpy as np
import torch
from torch.nn import functional
from workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Candidate, Workload, initial_parameters, samples

VERSION = torch.__version__

LOSSES = {
    "softmax": functional.cross_entropy,
    "sigmoid": functional.binary_cross_entropy_with_logits,
    "squares": functional.mse_loss,
}


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the ways to train: with one thread too, which suits the smallest networks better than two."""
    if workload.kind not in ("train", "call"):
        return {}
    return {f"threads: {threads}": partial(Training, workload, threads) for threads in {1, cores}}


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
                layers.append(torch.nn.ReLU())
                if i == 0 and workload.dropout:
                    layers.append(torch.nn.Dropout(workload.dropout))
        self.net = torch.nn.Sequential(*layers)
        self.parameters = list(self.net.parameters())
        self.optimizer = torch.optim.Adam(
            self.parameters, LEARNING_RATE, betas=(BETA_1, BETA_2), eps=EPSILON, fused=True
        )
        self.reset()

    def reset(self) -> None:
        torch.set_num_threads(self.threads)
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
        loss, optimizer = self.loss, self.optimizer
        for _ in range(units):
            for X, y in self.batches:
                optimizer.zero_grad(set_to_none=True)
                loss(X, y).backward()
                optimizer.step()

    def results(self) -> list[np.ndarray]:
        return [parameter.detach().numpy().T.copy() for parameter in self.parameters]
