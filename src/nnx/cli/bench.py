"""``nnx bench``: the compiled kernels beside those in NumPy, on this machine.

NumPy's BLAS reads how many threads it may have when it is loaded, too late for a command that has imported NumPy. So
the command starts itself once more, in an environment that gives BLAS one thread, and passes on what is printed there.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import nnx
from nnx import _kernels
from nnx._base import config
from nnx._base.interrupt import Interrupt
from nnx.cli.arguments import Number, Parser
from nnx.cli.cases import CASES, Case

if TYPE_CHECKING:
    from nnx._base.typing import FloatDType

#: Seconds that one side runs before it is the other's turn: long beside the clock's resolution, short beside the
#: seconds over which a processor's speed drifts.
BLOCK = 0.004

#: Turns of both sides that a row has at least time for; blocks become shorter for them.
TURNS = 10


#: Columns of the table: a terminal's, and of the pipe through which `nnx bench` gets it.
WIDTH = 79


class Row(NamedTuple):
    """What was measured of a case: microseconds a call, and NumPy's time over the compiled kernel's."""

    kernel: str
    shape: str
    compiled_min_us: float
    compiled_median_us: float
    numpy_min_us: float
    numpy_median_us: float
    ratio_min: float
    ratio_median: float


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: Parser = commands.add_parser(
        "bench",
        help="time the compiled kernels on this machine",
        description="Time the compiled kernels and the NumPy kernels in turn, on one processor, with one thread of "
        "BLAS. Before each timing, both must give the same results.",
        epilog="example: nnx bench --dtype float64",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="dtype of the arrays (default: float32)"
    )
    parser.add_argument(
        "--seconds",
        type=Number(0, above=True),
        default=20.0,
        metavar="S",
        help="time for all kernels together (default: 20)",
    )
    parser.set_defaults(run=_run, parser=parser)


def _run(chosen: argparse.Namespace) -> int:
    compiled = next((name for name in (_kernels.name, *_kernels.usable) if name in _kernels.usable[:-1]), None)
    if compiled is None:
        return _fail(chosen, _nothing_compiled())
    if not config.single_threaded():
        return _run_single_threaded(chosen)
    dtype = config.float_dtype("nnx bench", chosen.dtype)
    rows = measure(_kernels.load(compiled), _kernels.load("numpy"), dtype, chosen.seconds)
    try:
        with _one_processor() as pinned:
            show = _show_json if chosen.json else _show_table
            show(_description(compiled, chosen.dtype, pinned), rows)
    except AssertionError as error:
        case = str(error).partition("\n")[0]
        return _fail(chosen, f"{case}: {compiled} and numpy give different results.")
    return 0


def _fail(chosen: argparse.Namespace, sentence: str) -> int:
    print(f"{chosen.parser.prog}: {sentence}", file=sys.stderr)
    return 1


def _nothing_compiled() -> str:
    if _kernels.built == ("numpy",):
        return "the compiled kernels are not built, so there is nothing to compare with NumPy."
    return "this processor can run none of the compiled kernels, so there is nothing to compare with NumPy."


# The process that measures


def _run_single_threaded(chosen: argparse.Namespace) -> int:
    """Run the command in a process whose BLAS has one thread, and print what it prints, line by line.

    Ctrl-C goes to both processes. That one does not see it, as it would answer with a traceback while it still imports;
    it is ended from here, whatever the reason for leaving, and ends by itself if this one is killed.
    """
    import subprocess

    # The same nnx, wherever this one was found; `-m nnx` would look in the current folder first.
    script = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from nnx.cli import bench, main; bench.end_with_parent(); sys.exit(main(sys.argv[1:]))"
    )
    options = ["--dtype", chosen.dtype, "--seconds", repr(chosen.seconds), *(["--json"] if chosen.json else [])]
    with contextlib.ExitStack() as leaving:
        with Interrupt(), _deaf_to_ctrl_c():
            child = leaving.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script, "bench", *options],
                    env=config.single_threaded_environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # Windows: no Ctrl-C there
                )
            )
            leaving.callback(child.kill)
        for line in child.stdout or ():
            print(line, end="", flush=True)
        code = child.wait()
    return code if code in (0, 1) else _fail(chosen, f"the measuring process ended with code {code}.")


def end_with_parent() -> None:
    """Let this process end when the one that has started it does, however it ends.

    The other end of stdin is there, and closes with it; nothing is ever written.
    """
    import threading

    def wait() -> None:
        os.read(0, 1)  # not sys.stdin, whose lock Python wants back when it exits
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let processes that are started meanwhile never see Ctrl-C: they inherit that it is blocked."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _one_processor() -> Iterator[bool]:
    """Keep to one processor, where the system can; say whether it does."""
    before: set[int] = set()
    with contextlib.suppress(AttributeError, OSError):  # no such function; not allowed
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        before = allowed
    try:
        yield bool(before)
    finally:
        if before:
            os.sched_setaffinity(0, before)


# Measuring


def measure(compiled: Any, numpy: Any, dtype: FloatDType, seconds: float) -> Iterator[Row]:
    """Check and time all cases, one after the other, in about so many seconds.

    Raises AssertionError at a case whose results differ.
    """
    end = time.perf_counter() + seconds
    for done, case in enumerate(CASES):
        start = time.perf_counter()
        case.check(compiled, numpy, dtype)
        share = max(0.0, end - start) / (len(CASES) - done)
        yield _measure(case, compiled, numpy, dtype, start + share, min(BLOCK, share / (2 * TURNS)))


def _measure(case: Case, compiled: Any, numpy: Any, dtype: FloatDType, end: float, block: float) -> Row:
    """Time both sides in alternating blocks until ``end``, at least one block of each.

    Both work on the same arrays, so that neither has those that lie better in memory.
    """
    arguments = case.arguments(dtype)
    sides = [getattr(backend, case.function or case.kernel) for backend in (compiled, numpy)]
    calls = [_calls_for(kernel, arguments, max(block, 1e-5)) for kernel in sides]
    times: tuple[list[float], list[float]] = ([], [])
    for turn in itertools.count():
        for side in (0, 1) if turn % 2 else (1, 0):
            times[side].append(1e6 * _time(sides[side], arguments, calls[side]) / calls[side])
        if time.perf_counter() >= end:
            break
    (best, middle), (numpy_best, numpy_middle) = ((min(t), float(np.median(t))) for t in times)
    return Row(
        case.kernel, case.shape, best, middle, numpy_best, numpy_middle, numpy_best / best, numpy_middle / middle
    )


def _calls_for(kernel: Callable[..., object], arguments: tuple[Any, ...], seconds: float) -> int:
    """Return how many calls take so long; finding out is the warm-up."""
    kernel(*arguments)
    calls = 1
    while (taken := _time(kernel, arguments, calls)) < seconds:
        calls *= 2
    return max(1, round(calls * seconds / taken))


def _time(kernel: Callable[..., object], arguments: tuple[Any, ...], calls: int) -> float:
    """Return the seconds that so many calls take."""
    turns = itertools.repeat(None, calls)
    start = time.perf_counter()
    for _ in turns:
        kernel(*arguments)
    return time.perf_counter() - start


# Showing


def _description(compiled: str, dtype: str, pinned: bool) -> dict[str, Any]:
    """Return what the figures depend on."""
    import platform

    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "nnx": nnx.__version__,
        "blas": _blas(),
        "blas_threads": 1,
        "pinned": pinned,
        "backend": compiled,
        "dtype": dtype,
    }


def _processor() -> str:
    """Return the processor's name, as well as the system tells it."""
    import platform

    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _blas() -> str:
    """Return the name and version of the library that multiplies NumPy's matrices."""
    try:
        library: Any = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{library['name']} {library['version']}"
    except (KeyError, TypeError):  # NumPy 1 in some builds
        return "unknown"


def _show_json(description: dict[str, Any], rows: Iterable[Row]) -> None:
    """Print one JSON document: the description, ``rows`` with the fields of `Row`, geometric means of the ratios."""
    import json

    measured = list(rows)
    by_min, by_median = _geometric_means(measured)
    document = {
        **description,
        "rows": [row._asdict() for row in measured],
        "geometric_mean_ratio_min": by_min,
        "geometric_mean_ratio_median": by_median,
    }
    print(json.dumps(document, indent=2))


def _show_table(description: dict[str, Any], rows: Iterable[Row]) -> None:
    """Print a table, each row when it has been measured."""
    about = description
    head = [
        f"nnx {about['nnx']}, Python {about['python']}, NumPy {about['numpy']}, {about['machine']}",
        f"processor  {about['processor']}{', pinned to one' if about['pinned'] else ''}",
        f"BLAS       {about['blas']}, 1 thread",
        f"backend    {about['backend']}, {about['dtype']}",
        "Microseconds per call, in alternating blocks. A ratio above 1: the compiled kernel is faster.",
    ]
    for line in head:
        print(textwrap.fill(line, WIDTH, subsequent_indent=" " * 11 if "  " in line else ""))
    print(f"\n{'':<43}{'numpy':>10}{' ' + about['backend']:>16}{'ratio':>10}")
    print(f"{'kernel':<28} {'shape':<14}{'min':>6}{'median':>7}{'min':>6}{'median':>7}{'min':>5}{'med.':>5}")
    measured = []
    for row in rows:
        measured.append(row)
        figures = (row.numpy_min_us, row.numpy_median_us, row.compiled_min_us, row.compiled_median_us)
        cells = (f"{_short(value):>{width}}" for value, width in zip(figures, (6, 7, 6, 7), strict=True))
        ratios = f"{_short(row.ratio_min):>5}{_short(row.ratio_median):>5}"
        print(f"{row.kernel:<28} {row.shape:<14}{''.join(cells)}{ratios}", flush=True)
    by_min, by_median = _geometric_means(measured)
    print(f"{'geometric mean':<69}{_short(by_min):>5}{_short(by_median):>5}")


def _short(value: float) -> str:
    """Return a positive number with three digits, in four characters or five: 0.12, 1.23, 12.3, 123, 1234, 1.2e5."""
    if value >= 99999.5:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _geometric_means(rows: list[Row]) -> tuple[float, float]:
    """Return the geometric means of the ratios of minima and of medians."""
    return (
        math.exp(math.fsum(math.log(row.ratio_min) for row in rows) / len(rows)),
        math.exp(math.fsum(math.log(row.ratio_median) for row in rows) / len(rows)),
    )
