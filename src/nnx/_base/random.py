"""Random numbers beside initial weights and data: missing seeds, and the order of samples."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from nnx import _kernels
from nnx._base import check
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike

MAX_SEED = 2**64 - 1

#: A user's order: a function of the epoch, counted from 1, and the number of samples.
Sampler = Callable[[int, int], ArrayLike]

#: The epoch and the orders, before any were requested.
NO_ORDERS = 0, np.empty((0, 0), np.intp)

_of_thread = threading.local()


def draw_seed() -> int:
    """Return 64 bits from NumPy's global generator, so that a seeded script repeats itself."""
    given: deque[int] | None = getattr(_of_thread, "given", None)
    if given:
        return given.popleft()
    low, high = np.random.randint(0, 2**32, 2, np.uint64).tolist()
    seed = int(high << 32 | low)
    drawn: list[int] | None = getattr(_of_thread, "drawn", None)
    if drawn is not None:
        drawn.append(seed)
    return seed


def draw_seeds(n: int) -> None:
    """Draw some seeds, for `recorded`."""
    for _ in range(n):
        draw_seed()


@contextmanager
def recorded() -> Iterator[list[int]]:
    """Give a list of the seeds that this thread draws within the block."""
    drawn: list[int] = []
    _of_thread.drawn = drawn
    try:
        yield drawn
    finally:
        del _of_thread.drawn


@contextmanager
def given(seeds: Iterable[int]) -> Iterator[None]:
    """Give this thread these seeds, in their order, instead of those that it would draw within the block."""
    before = getattr(_of_thread, "given", None)
    _of_thread.given = deque(seeds)
    try:
        yield
    finally:
        _of_thread.given = before


def split_stream(seed: int) -> np.random.RandomState:
    """Return the generator that draws held-out rows. It differs from those of all epochs, which are counted from 1."""
    return np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, 0, 0])


@contextmanager
def rows_before(n: int) -> Iterator[None]:
    """Let layers draw random numbers within the block as if ``n`` rows of another process came before theirs."""
    _of_thread.rows_before = n
    try:
        yield
    finally:
        _of_thread.rows_before = 0


def drawn_behind(draw: Callable[[Array], None], like: Array) -> Array:
    """Return a new matrix of rows. ``draw`` fills all rows, and those of other processes are cut off."""
    before: int = getattr(_of_thread, "rows_before", 0)
    if not before:
        cells: Array = _kernels.empty_like(like)
        draw(cells)
        return cells
    cells = np.empty((before + len(like), *like.shape[1:]), like.dtype)
    draw(cells)
    mine: Array = _kernels.empty_like(like)
    mine[...] = cells[before:]
    return mine


class Order:
    """The order of the samples in each epoch: it depends only on the seed and the epoch, or comes from the user.

    NumPy's legacy generator draws it: its numbers are frozen for all versions.

    Attributes
    ----------
    shuffles : bool
        Whether there is an order other than that of the data.
    asks : bool
        Whether a user's function returns it. It is called once per epoch, right before the epoch.
    """

    def __init__(self, where: str, shuffle: bool | Sampler, seed: int | None) -> None:
        self._where = where
        self._function: Sampler | None = None
        if callable(shuffle):
            self._function = shuffle
        elif not isinstance(shuffle, bool | np.bool_):
            raise TypeError(f"{where}: shuffle must be True, False or a function, got {abridged(shuffle)}.")
        self.asks = self._function is not None
        self.shuffles = self.asks or bool(shuffle)
        self._seed = None if seed is None else check.whole(where, "seed", seed, 0, MAX_SEED)
        self._ask_by: Callable[[Callable[[], Array]], Array] | None = None
        #: The first of the epochs whose orders were requested last, and these orders: an epoch may continue in another
        #: call.
        self._latest: tuple[int, Array] = NO_ORDERS

    @property
    def seed(self) -> int | None:
        """The seed in use; None before one was needed."""
        return self._seed

    @property
    def kind(self) -> bool | str:
        """Its description in a checkpoint."""
        return "a function" if self.asks else self.shuffles

    def ask_by(self, ask: Callable[[Callable[[], Array]], Array]) -> None:
        """Let ``ask`` get the order: from the call of the user's function, or from another process."""
        self._ask_by = ask

    def resume(self, seed: int | None) -> None:
        """Take the seed of an interrupted run."""
        self._seed = seed

    def take_seed(self) -> None:
        """Draw the seed, if it is needed and missing."""
        if self.shuffles and not self.asks and self._seed is None:
            self._seed = draw_seed()

    def of_blocks(self, epoch: int, n_blocks: int) -> Array:
        """Return the order of blocks in an epoch, for samples that are read block by block."""
        return self._stream(epoch, 0).permutation(n_blocks)

    def within_window(self, epoch: int, window: int, n_samples: int) -> Array:
        """Return the order of samples in one of the windows of such an epoch, counted from 0."""
        return self._stream(epoch, window + 1).permutation(n_samples)

    def _stream(self, epoch: int, number: int) -> np.random.RandomState:
        assert self._seed is not None
        return np.random.RandomState([self._seed & 0xFFFFFFFF, self._seed >> 32, epoch, number])

    def draw(self, epoch: int, n_samples: int) -> Array | None:
        """Return the order of an epoch, intp (n_samples,), not to be written to; None for the data's order."""
        if not self.shuffles:
            return None
        order: Array = self.draw_some(epoch, 1, n_samples)[0]
        return order

    def draw_some(self, epoch: int, n_epochs: int, n_samples: int) -> Array:
        """Return the orders of some epochs from this one on, intp (n_epochs, n_samples), not to be written to.

        If orders come from a function, ``n_epochs`` must be 1.
        """
        first, orders = self._latest
        if not first <= epoch <= epoch + n_epochs <= first + len(orders):
            if self._function is None:
                orders = self._drawn(epoch, n_epochs, n_samples)
            else:
                ask = partial(self._asked, epoch, n_samples)
                orders = (ask() if self._ask_by is None else self._ask_by(ask)).reshape(1, -1)
            self._latest = first, orders = epoch, orders
        return orders[epoch - first :][:n_epochs]

    def _drawn(self, epoch: int, n_epochs: int, n_samples: int) -> Array:
        self.take_seed()
        assert self._seed is not None
        compiled: Any = getattr(_kernels.backend, "draw_orders", None)
        if compiled is not None and n_samples < 2**32:
            return compiled(self._seed, epoch, n_epochs, n_samples)  # type: ignore[no-any-return]
        orders, generator = np.empty((n_epochs, n_samples), np.intp), np.random.RandomState(0)
        for e in range(n_epochs):  # the stream of a new generator, in a tenth of its time
            generator.seed([self._seed & 0xFFFFFFFF, self._seed >> 32, epoch + e])
            orders[e] = generator.permutation(n_samples)
        return orders

    def _asked(self, epoch: int, n_samples: int) -> Array:
        """Return a copy of the function's result, checked."""
        assert self._function is not None
        name = f"shuffle({epoch}, {n_samples})"
        order = check.plain(self._where, name, self._function(epoch, n_samples))
        if order.dtype.kind not in "iu":
            raise TypeError(f"{self._where}: {name} must be an array of integers, got dtype {order.dtype}.")
        if order.shape != (n_samples,):
            raise ValueError(f"{self._where}: {name} must have shape ({n_samples},), got {order.shape}.")
        if not 0 <= order.min() <= order.max() < n_samples:
            place = int(np.argmax((order < 0) | (order >= n_samples)))
            raise ValueError(
                f"{self._where}: {name} must be numbers of samples, from 0 to {n_samples - 1}, got {order[place]} at "
                f"position {place}."
            )
        return np.array(order, np.intp)
