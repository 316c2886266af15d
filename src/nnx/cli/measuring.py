"""What `nnx info --measure` measures: a core's peak, and what it costs to share work between cores."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time

import numpy as np

from nnx import _kernels

#: Seconds in which a core's peak is looked for, and how many times: the best counts, for others disturb.
SECONDS, TIMES = 0.01, 5
#: How often a line goes to and fro between two threads, and how many pairs of processors are tried, at most.
TURNS, MOST_PAIRS = 500, 16
#: Bytes that are copied to see how fast memory is: more than most processors' caches hold.
COPIED = 1 << 26


def lines() -> list[str]:
    """Return all that is measured, as lines of text. It takes half a second or so."""
    return [f"peak         {_peaks_in_words()}", f"cache line   {transfer_in_words(line_transfers())}", _memory()]


def peak(dtype: str) -> float:
    """Return a core's peak in GFLOP/s: of multiply-adds on registers alone."""
    multiply_adds = _kernels.backend._multiply_adds  # type: ignore[attr-defined]
    turns, best = 1000, 0.0
    while _timed(multiply_adds, dtype, turns)[1] < SECONDS / 4:
        turns *= 4
    for _ in range(TIMES):
        operations, seconds = _timed(multiply_adds, dtype, turns)
        best = max(best, operations / seconds / 1e9)
    return best


def _timed(multiply_adds: object, dtype: str, turns: int) -> tuple[int, float]:
    began = time.perf_counter()
    operations: int = multiply_adds(dtype, turns)  # type: ignore[operator]
    return operations, time.perf_counter() - began


def _peaks_in_words() -> str:
    if not hasattr(_kernels.backend, "_multiply_adds"):
        return f"not measured: {_kernels.name} has no compiled kernels"
    return ", ".join(f"{peak(dtype):.1f} GFLOP/s in {dtype}" for dtype in ("float32", "float64")) + ", one core"


def line_transfers() -> list[float]:
    """Return how many nanoseconds a cache line takes there and back, for pairs of the processors that may be used.

    The pairs are the first processor with each of the others, or two that the system chooses where a thread cannot
    choose its own. The list is empty if there is only one processor, or if the kernels are not compiled.
    """
    if not hasattr(_kernels.backend, "_pass_line"):
        return []
    if not hasattr(os, "sched_setaffinity"):
        return [found for found in [_line_transfer(None, None)] if found is not None and (os.cpu_count() or 1) > 1]
    first, *others = sorted(os.sched_getaffinity(0))
    found = [_line_transfer(first, other) for other in _spread(others)]
    return [each for each in found if each is not None]


def _spread(others: list[int]) -> list[int]:
    """Return processors from all over the machine, if there are very many."""
    return others[:: len(others) // MOST_PAIRS + 1]


def _line_transfer(one: int | None, other: int | None) -> float | None:
    """Return the nanoseconds between two processors; None if one of them was busy with something else."""
    times: list[float] = []
    memory = np.zeros(32, np.int32)
    start = -memory.ctypes.data % 64 // 4  # where a cache line begins
    line = memory[start : start + 16]

    def run(side: int, processor: int | None) -> None:
        if processor is not None:
            os.sched_setaffinity(0, {processor})  # this thread alone
        with contextlib.suppress(threading.BrokenBarrierError):  # the other has given up
            for _ in range(TIMES):
                meeting.wait(1)
                line[0] = 0
                meeting.wait(1)
                began = time.perf_counter()
                if not _kernels.backend._pass_line(line, side, TURNS):  # type: ignore[attr-defined]
                    return
                times.append((time.perf_counter() - began) / TURNS * 1e9)

    meeting = threading.Barrier(2)
    threads = [threading.Thread(target=run, args=pair) for pair in enumerate((one, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return min(times, default=None)


def transfer_in_words(found: list[float]) -> str:
    """Return these times in words."""
    if not found:
        return "not measured: it needs compiled kernels, and two processors"
    low, high = min(found), max(found)
    how_long = f"{low:.0f} ns" if high < 1.1 * low else f"{low:.0f} to {high:.0f} ns"
    return f"{how_long} there and back between two processors"


def _memory() -> str:
    """Return how fast a core copies what no cache holds."""
    source, target = np.zeros(COPIED, np.uint8), np.empty(COPIED, np.uint8)
    seconds = []
    for _ in itertools.repeat(None, 4):  # the first one finds no pages
        began = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - began)
    return f"memory       {COPIED / min(seconds) / 1e9:.1f} GB/s copied by one core"
