"""PyTorch, eager, with everything in bfloat16: weights, gradients, and Adam's averages too.

A learning rate of 0.001 is less than half of what separates a weight near 1 from the next bfloat16, so that small
updates are lost: this is what it costs to move half the bytes, not a way to the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import peer_torch
import torch
from workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Candidate, Workload

VERSION = peer_torch.VERSION


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the ways to train: with one thread too."""
    if workload.kind != "train" or workload.precision != "bfloat16":
        return {}
    return {f"threads: {threads}": partial(Pure, workload, threads) for threads in {1, cores}}


class Pure(peer_torch.Training):
    """A unit is an epoch."""

    def __init__(self, workload: Workload, threads: int) -> None:
        super().__init__(workload, threads)
        self.net = self.net.bfloat16()
        self.arrays = self.parameters = list(self.net.parameters())
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=LEARNING_RATE, betas=(BETA_1, BETA_2), eps=EPSILON, fused=True
        )
        self.batches = [(X.bfloat16(), y) for X, y in self.batches]
