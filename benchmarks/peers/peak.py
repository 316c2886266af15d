"""A core's peaks: what a step could take if nothing but the processor's own limits held it up. Compiled when needed.

- float32: the step's matrix products as independent multiply-adds that never leave the registers.
- bfloat16: the step's matrix products as products of tiles that never leave their registers, and after them what Adam's
  update must move: parameters and both averages, read and written where a network of that size lies in the caches or
  in memory. Where the processor has no tiles, the products are those of float32. Who overlaps both could be faster.
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

void update(long n, float *restrict weights, float *restrict momentums, float *restrict caches) {
    for (long i = 0; i < n; i++) weights[i] += 1, momentums[i] += 1, caches[i] += 1;
}

#if defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };

/* Operations of four products of 16 x 32 by 32 x 16: two tiles by two, as in a matrix product. */
long operations_of_tiles(void) {
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA)) return 0;
    return 4L * 16 * 16 * 32 * 2;
}

/* Palette 1; from byte 16 on the bytes in a row of each tile, from byte 48 on its rows. */
static const unsigned char shape[64] = {
    1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64, [48 ... 55] = 16
};

void tiles(long n) {
    _tile_loadconfig(shape);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
    for (; n > 0; n--) {
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}
#else
long operations_of_tiles(void) { return 0; }
void tiles(long n) { (void)n; }
#endif
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
    loaded.operations_of_tiles.restype = ctypes.c_long
    loaded.tiles.argtypes = (ctypes.c_long,)
    loaded.update.argtypes = (ctypes.c_long, *[ctypes.c_void_p] * 3)
    loaded.update.restype = loaded.tiles.restype = None
    return loaded


LIBRARY = build()
VERSION = "compiled"
#: Of a turn; 0 where there are no tiles, or the system grants none.
TILES = LIBRARY.operations_of_tiles()


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the loops, for one core."""
    if workload.kind != "train" or cores > 1:
        return {}
    if workload.precision == "float32":
        return {"": lambda: Peak(workload)}
    return {"tiles" if TILES else "float32": lambda: Roofline(workload)}


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


class Roofline(Peak):
    """A unit is a step's worth of products in bfloat16, and of Adam's traffic."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.tile_turns = round(workload.product_operations / TILES) if TILES else 0
        self.arrays = np.zeros((3, workload.n_parameters), np.float32)

    def run(self, units: int) -> None:
        pointers = [array.ctypes.data for array in self.arrays]
        for _ in range(units):
            if self.tile_turns:
                LIBRARY.tiles(self.tile_turns)
            else:
                super().run(1)
            LIBRARY.update(self.arrays.shape[1], *pointers)
