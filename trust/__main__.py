"""Tries what nnx promises, and prints how often and with how many failures.

    python trust                       # all of it: some ten minutes on two cores
    python trust --share 0.1           # a tenth of the cases
    python trust --only files arrays --share 10 --seed 7
    python trust --forever --only files arrays
    python trust --write docs/internals/reliability.md

What goes wrong is printed with what makes it happen again.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import interruptions
import numpy as np
import processes
import services
from worker import in_a_process

import nnx
from nnx import _kernels

BEGIN, END = "<!-- trust: begin -->", "<!-- trust: end -->"


class Promise(NamedTuple):
    """What is promised, how many cases are tried in full, and what tries some of them."""

    name: str
    sentence: str
    cases: int
    attempt: Callable[[int, int], tuple[int, list[str]]]


def by_script(script: str) -> Callable[[int, int], tuple[int, list[str]]]:
    """Return what runs the cases of a script, in two processes side by side."""

    def attempt(cases: int, seed: int) -> tuple[int, list[str]]:
        halves = [(cases - cases // 2, 0), (cases // 2, cases - cases // 2)]
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda half: in_a_process(script, half[0], seed, half[1]), halves))
        command = f"python trust/{script} --seed {seed} --cases 1 --first"
        failures = [f"{problem} ({command} {number})" for each in found for number, problem in each["failures"]]
        return sum(each["tried"] for each in found), failures

    return attempt


def by_children(method: str, while_training: bool = False) -> Callable[[int, int], tuple[int, list[str]]]:
    """Return what starts children by a method."""
    return lambda cases, seed: processes.children(method, cases, while_training)


PROMISES = (
    Promise(
        "files",
        "A changed model file, parameter file or checkpoint gives the right model or `ModelFileError`, within 64 MB "
        "and a second",
        100_000,
        by_script("mutants.py"),
    ),
    Promise(
        "arrays",
        "Any array, and any attribute, gives the result of a plain array or a sentence, with nothing changed",
        10_000,
        by_script("arrays.py"),
    ),
    Promise(
        "requests",
        "`nnx serve` answers a malformed request with 400 to 431 and a sentence, never with 500, and goes on",
        10_000,
        by_script("malformed.py"),
    ),
    Promise(
        "stop",
        "SIGTERM under load stops `nnx serve` with exit code 0; every accepted request is answered",
        50,
        lambda cases, seed: services.stopped(cases),
    ),
    *(
        Promise(
            method, f"Children by {method} train and predict after their parent has trained", 50, by_children(method)
        )
        for method in ("fork", "forkserver", "spawn")
    ),
    *(
        Promise(f"{method}-meanwhile", f"Children by {method} do so while it trains", 50, by_children(method, True))
        for method in ("fork", "forkserver", "spawn")
    ),
    Promise(
        "threads",
        "Eight models that train in eight threads have the bytes of one after another",
        50,
        lambda cases, seed: processes.eight_threads(cases),
    ),
    Promise(
        "predictions",
        "Eight threads that predict with one model get what each gets alone",
        50,
        lambda cases, seed: processes.one_model_predicts(cases),
    ),
    Promise("heartbeat", "Other threads run during training", 50, lambda cases, seed: processes.heartbeat(cases)),
    Promise(
        "interrupt",
        "SIGINT stops between two steps: model, history and checkpoint agree, and a resumed run has the same bytes",
        100,
        interruptions.signalled,
    ),
    Promise(
        "terminate",
        "SIGTERM stops `nnx train` likewise; `--resume` saves the bytes of an uninterrupted run",
        50,
        interruptions.terminated,
    ),
    Promise(
        "kill",
        "After `kill -9` the checkpoint is readable, and a resumed run has the bytes of an uninterrupted one",
        100,
        interruptions.killed,
    ),
)


def machine() -> str:
    """Return what it was tried on."""
    model = next((line.partition(":")[2].strip() for line in cpu_lines() if line.startswith("model name")), "?")
    return (
        f"{datetime.date.today()}; {model}, {os.cpu_count()} processors; {platform.platform(terse=True)}; "
        f"Python {platform.python_version()}, NumPy {np.__version__}, nnx {nnx.__version__} on {_kernels.name}"
    )


def cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def table(rows: list[tuple[Promise, int, int, float]]) -> str:
    """Return the table of what was tried."""
    lines = ["| promise | tried | failures | seconds |", "|---|---:|---:|---:|"]
    lines += [f"| {each.sentence} | {tried:,} | {failed:,} | {took:.0f} |" for each, tried, failed, took in rows]
    return "\n".join([*lines, "", f"{machine()}."])


def attempt(chosen: argparse.Namespace, seed: int) -> list[tuple[Promise, int, int, float]]:
    """Try the promises that were chosen; return a row for each."""
    rows = []
    for promise in PROMISES:
        if chosen.only and promise.name not in chosen.only:
            continue
        began = time.monotonic()
        tried, failures = promise.attempt(max(1, round(promise.cases * chosen.share)), seed)
        took = time.monotonic() - began
        rows.append((promise, tried, len(failures), took))
        print(f"{promise.name:20} {tried:9,} tried  {len(failures):5,} failures  {took:6.1f} s", flush=True)
        for failure in failures[:20]:
            print(f"    {failure}", flush=True)
    return rows


def main() -> int:
    """Try the promises; return 1 if one was broken."""
    names = [promise.name for promise in PROMISES]
    parser = argparse.ArgumentParser(prog="trust", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="part of the cases (default: 1)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of what is drawn (default: 1)")
    parser.add_argument("--forever", action="store_true", help="go on with other seeds until something breaks")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks in a file")
    chosen = parser.parse_args()
    rows = attempt(chosen, chosen.seed)
    seed = chosen.seed
    while chosen.forever and not any(failed for _, _, failed, _ in rows):
        seed += 1
        print(f"seed {seed}", flush=True)
        rows = attempt(chosen, seed)
    found = table(rows)
    print(f"\n{found}")
    if chosen.write is not None:
        before, _, rest = chosen.write.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        chosen.write.write_text(f"{before}{BEGIN}\n{found}\n{END}{after}")
    return 1 if any(failed for _, _, failed, _ in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
