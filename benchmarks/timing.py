"""What the benchmarks share: the time of a block of steps, and the processor's name."""

from __future__ import annotations

import pathlib
import platform
import time
from collections.abc import Callable


def seconds(step: Callable[[], object], n: int) -> float:
    """Return the time of a step, over a block of ``n``."""
    start = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - start) / n


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
