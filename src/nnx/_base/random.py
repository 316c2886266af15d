"""Random numbers beside initial weights and data: seeds that nobody gave, and the order of samples."""

from __future__ import annotations

import numpy as np

from nnx._base import check
from nnx._base.typing import Array

MAX_SEED = 2**64 - 1


def draw_seed() -> int:
    """Return 64 bits from NumPy's global generator, so that a seeded script repeats itself."""
    low, high = np.random.randint(0, 2**32, 2, np.uint64).tolist()
    return int(high << 32 | low)


def split_stream(seed: int) -> np.random.RandomState:
    """Return the generator that draws held-out rows: apart from those of all epochs, which are counted from 1."""
    return np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, 0, 0])


class Order:
    """The order of the samples in each epoch, a function of the seed and the epoch's number alone.

    NumPy's legacy generator draws it, whose numbers are frozen for all versions.
    """

    def __init__(self, where: str, shuffle: bool, seed: int | None) -> None:
        self.shuffles = check.flag(where, "shuffle", shuffle)
        self._seed = None if seed is None else check.whole(where, "seed", seed, 0, MAX_SEED)

    @property
    def seed(self) -> int | None:
        """The seed in use; None before one was needed."""
        return self._seed

    def resume(self, seed: int | None) -> None:
        """Take the seed of an interrupted run."""
        self._seed = seed

    def draw(self, epoch: int, n_samples: int) -> Array | None:
        """Return the order of an epoch; None for the order as given."""
        if not self.shuffles:
            return None
        if self._seed is None:
            self._seed = draw_seed()
        return np.random.RandomState([self._seed & 0xFFFFFFFF, self._seed >> 32, epoch]).permutation(n_samples)
