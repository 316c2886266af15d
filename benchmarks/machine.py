"""Processors: which there are, how a process stays on some of them, and what the figures were measured on."""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import shutil
import subprocess

import timing

#: Where the pools of the libraries' threads take their number from, when they are imported.
POOLS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NNX_NUM_THREADS",
    "NPROC",  # XLA
)

#: For the rivals: with glibc's own settings, large temporaries of NumPy and PyTorch go back to the system and are taken
#: from it anew each time, up to a quarter of a step. nnx runs with the settings that everybody has.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(1 << 26),
}

#: Those that this process may use, asked before it is pinned to some of them.
USABLE = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def processors(cores: int) -> list[int]:
    """Return as many processors as there shall be cores, from the last on: the first one often has the interrupts.

    Raises
    ------
    ValueError
        If this process may not use so many.
    """
    if len(USABLE) < cores:
        raise ValueError(f"{cores} cores: this process may use {len(USABLE)}")
    return USABLE[::-1][:cores]


def pin(chosen: list[int]) -> None:
    """Keep this process on the chosen processors, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, chosen)


def environment(cores: int) -> dict[str, str]:
    """Return the environment of a process all of whose pools shall have so many threads."""
    return {
        **os.environ,
        **dict.fromkeys(POOLS, str(cores)),
        "JAX_PLATFORMS": "cpu",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of compiling processes beside the measurement
    }


def stolen() -> int | None:
    """Return the ticks that other guests of the host took from all processors so far, where the system counts them."""
    try:
        return int(pathlib.Path("/proc/stat").read_text().split(maxsplit=9)[8])
    except (OSError, ValueError, IndexError):
        return None


def description() -> dict[str, object]:
    """Return what the figures were measured on."""
    from nnx.cli import measuring  # here: the peers' processes, which import this module, must do without nnx

    compiler = shutil.which("cc")
    version = ""
    if compiler:
        found = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
        version = (found.stdout.splitlines() or [""])[0]
    return {
        "processor": timing.processor(),
        "processors": os.cpu_count(),
        "system": platform.platform(),
        "compiler": version,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "pinned": hasattr(os, "sched_setaffinity"),
        "cache_line": measuring.transfer_in_words(measuring.line_transfers()),
    }
