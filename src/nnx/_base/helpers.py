"""Threads for one call: they share its work with the caller's thread, and end before it returns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def share(work: Callable[[], object], n_threads: int) -> None:
    """Run ``work`` in several threads at a time, also the caller's. Return when it has returned in each.

    Each call of ``work`` must take remaining work until none is left: the system may refuse some of the threads.
    """
    helpers: list[threading.Thread] = []
    try:
        start(helpers, n_threads - 1, work)
        work()
    finally:
        join(helpers)


def start(helpers: list[threading.Thread], n: int, work: Callable[..., object], *arguments: Any) -> None:
    """Start up to ``n`` threads, as many as the system allows, and add them to ``helpers``."""
    for number in range(1, n + 1):
        helper = threading.Thread(target=work, args=arguments, name=f"nnx-{number}")
        helpers.append(helper)  # first: an exception may come after its start
        try:
            helper.start()
        except RuntimeError:
            helpers.pop()
            break


def join(helpers: list[threading.Thread]) -> None:
    """Wait for threads to end, whatever is raised meanwhile: they use memory that the caller may free afterwards."""
    for number, helper in enumerate(helpers):
        try:
            if helper.is_alive():  # else it has ended, or its start was interrupted and it will find no work
                helper.join()
        except BaseException:
            join(helpers[number:])
            raise
