"""Batches formed from concurrent requests.

Requests that arrive while a prediction runs wait for it and go into the next one together; nothing waits for a batch to
become larger. Short predictions run on the event loop, since a thread would cost more than they do; long ones run in a
thread of their own, one at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from nnx.serve.errors import RequestError
from nnx.serve.service import Asked

Answers = list[bytes | RequestError]

#: Seconds of work from which on it leaves the event loop: others wait so long at most.
LONG = 0.002
#: Rows of one batch, at most; a larger request is a batch of its own.
MAX_ROWS = 16384


class Batcher:
    """Collects requests and answers them together.

    Parameters
    ----------
    answer : function
        Returns the answers to a list of requests.
    seconds_per_row : float
        What a row costs, about.
    pool : ThreadPoolExecutor
        Where long batches run.
    count : function
        Is told the number of requests and of rows of each batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Asked]], Answers],
        seconds_per_row: float,
        pool: ThreadPoolExecutor,
        count: Callable[[int, int], None],
    ) -> None:
        self._answer, self._seconds_per_row, self._pool, self._count = answer, seconds_per_row, pool, count
        self._waiting: deque[tuple[Asked, asyncio.Future[bytes | RequestError]]] = deque()
        self._runs = False

    def submit(self, asked: Asked) -> asyncio.Future[bytes | RequestError]:
        """Return what will be the answer to a request."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes | RequestError] = loop.create_future()
        self._waiting.append((asked, future))
        if not self._runs:
            self._runs = True
            loop.call_soon(self._next)  # requests that were read in the same turn of the loop come along
        return future

    def _next(self) -> None:
        """Answer what waits, as far as it fits a batch."""
        requests: list[Asked] = []
        futures: list[asyncio.Future[bytes | RequestError]] = []
        n_rows = 0
        while self._waiting and (not requests or n_rows + self._waiting[0][0].rows.n_rows <= MAX_ROWS):
            asked, future = self._waiting.popleft()
            requests.append(asked)
            futures.append(future)
            n_rows += asked.rows.n_rows
        self._count(len(requests), n_rows)
        if n_rows * self._seconds_per_row > LONG:
            running = asyncio.get_running_loop().run_in_executor(self._pool, self._answer, requests)
            running.add_done_callback(partial(self._settle_later, futures))
            return
        try:
            self._settle(futures, self._answer(requests), None)
        except Exception as error:
            self._settle(futures, [], error)

    def _settle_later(
        self, futures: Sequence[asyncio.Future[bytes | RequestError]], done: asyncio.Future[Answers]
    ) -> None:
        error = done.exception()
        self._settle(futures, [] if error else done.result(), error)

    def _settle(
        self, futures: Sequence[asyncio.Future[bytes | RequestError]], answers: Answers, error: BaseException | None
    ) -> None:
        """Hand the answers out, and go on with what has come meanwhile."""
        for number, future in enumerate(futures):
            if future.done():  # cancelled
                continue
            if error is None:
                future.set_result(answers[number])
            else:
                future.set_exception(error)
        self._runs = bool(self._waiting)
        if self._runs:
            asyncio.get_running_loop().call_soon(self._next)
