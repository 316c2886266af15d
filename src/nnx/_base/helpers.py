"""Threads that help the caller's with one call: started for it, and joined before it returns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def share(work: Callable[[], object], n_threads: int) -> None:
    """Let ``work`` run in several threads at a time, the caller's among them, until it has returned in each.

    It must do what is still left to do: threads that the system does not give are done without.
    """
    helpers: list[threading.Thread] = []
    try:
        start(helpers, n_threads - 1, work)
        work()
    finally:
        join(helpers)


def start(helpers: list[threading.Thread], n: int, work: Callable[..., object], *arguments: Any) -> None:
    """Start threads, as many as the system gives, and add them to ``helpers``."""
    for number in range(1, n + 1):
        helper = threading.Thread(target=work, args=arguments, name=f"nnx-{number}")
        helpers.append(helper)  # first: an exception may come when it has started
        try:
            helper.start()
        except RuntimeError:
            helpers.pop()
            break


def join(helpers: list[threading.Thread]) -> None:
    """Wait for threads, whatever is raised meanwhile: they use what the caller is about to let go of."""
    for number, helper in enumerate(helpers):
        try:
            if helper.is_alive():  # else it is over, or its start was interrupted, and it finds that it comes too late
                helper.join()
        except BaseException:
            join(helpers[number:])
            raise
