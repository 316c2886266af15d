"""A core's float32 peak: independent multiply-adds that never leave the registers, compiled when they are needed.

As a peer it takes, for a step, the time in which the step's matrix products could be done at that rate.
"""

from __future__ import annotations

import ctypes
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping

import numpy as np
from workloads import Candidate, Workload

#: Twelve chains: a multiply-add takes four cycles, two can begin in each, and eight chains would leave no slack.
SOURCE = """
#if defined(__AVX512F__)
enum { WIDTH = 16 };
#elif defined(__AVX__)
enum { WIDTH = 8 };
#else
enum { WIDTH = 4 };
#endif
typedef float vec __attribute__((vector_size(4 * WIDTH)));

long operations_a_turn(void) { return 12L * WIDTH * 2; }

float turns(long n, float factor, float term) {
    vec a = {0}, b = {0}, c[12];
    a += factor, b += term;
    for (int i = 0; i < 12; i++) c[i] = b * (float)i;
    for (; n > 0; n--) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) c[i] = c[i] * a + b;
    }
    for (int i = 1; i < 12; i++) c[0] += c[i];
    return c[0][0];
}
"""


def build() -> ctypes.CDLL:
    """Compile the loop and load it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise ImportError("there is no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        source, library = pathlib.Path(folder, "peak.c"), pathlib.Path(folder, "peak.so")
        source.write_text(SOURCE)
        flags = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True, capture_output=True)
        loaded = ctypes.CDLL(str(library))
    loaded.operations_a_turn.restype = ctypes.c_long
    loaded.turns.restype = ctypes.c_float
    loaded.turns.argtypes = (ctypes.c_long, ctypes.c_float, ctypes.c_float)
    return loaded


LIBRARY = build()
VERSION = "compiled"


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the loop, for one core."""
    return {"": lambda: Peak(workload)} if workload.kind == "train" and cores == 1 else {}


class Peak:
    """A unit is a step's worth of multiply-adds."""

    steps = 1

    def __init__(self, workload: Workload) -> None:
        self.turns = round(workload.product_operations / LIBRARY.operations_a_turn())

    def reset(self) -> None:
        pass

    def run(self, units: int) -> None:
        LIBRARY.turns(units * self.turns, 0.5, 1.0)

    def results(self) -> list[np.ndarray]:
        return []
