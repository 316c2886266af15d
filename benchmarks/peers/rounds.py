"""The protocol: a process for each peer and number of cores, blocks in rotating order, one at a time, in calm rounds.

Before each round the driver runs a fixed chain of multiply-adds on the same processors. A round before which that took
3 % longer or shorter than usual is dropped, and another is run: somebody else was at work, or the clock moved.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import machine
import numpy as np
from workloads import Workload, initial_parameters, loss

FOLDER = pathlib.Path(__file__).resolve().parent

#: How far the calibration may be from its median.
CALM = 0.03
#: Rounds in all, for each that is wanted.
MOST = 3
#: Between blocks: threads that have just worked go on spinning for a few milliseconds.
PAUSE = 0.01
#: How far losses may be apart, as a part of what training has changed them by; outputs of predictions, as they are.
LOSS_TOLERANCE, DROPOUT_TOLERANCE, OUTPUT_TOLERANCE = 0.02, 0.1, 1e-5

Name = tuple[str, int]  # a peer and its number of cores


class PeerError(Exception):
    """A peer could not do what it was told, or is not there."""


class Worker:
    """The driver's end of a peer's process."""

    def __init__(self, module: str, processors: Sequence[int]) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / "worker.py"), module, ",".join(map(str, processors))],
            env=machine.environment(len(processors)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        try:
            self.version = self._reply()["version"]
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have it done, and return the reply."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._reply()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            last = self.errors.read()[-500:].decode(errors="replace")
            raise PeerError(f"its process has ended: {last.strip()}")
        reply = json.loads(line)
        for problem in ("missing", "error"):
            if problem in reply:
                raise PeerError(reply[problem])
        return reply


def calibrate(processors: Sequence[int]) -> list[float]:
    """Return how long a fixed chain of multiply-adds takes on each processor; stay on all of them."""
    times = []
    for processor in processors:
        machine.pin([processor])
        start = time.perf_counter()
        x = 1.0
        for _ in range(400_000):
            x = x * 0.999 + 0.5
        times.append(time.perf_counter() - start)
    machine.pin(list(processors))
    return times


def calm(calibrations: list[list[float]]) -> list[bool]:
    """Return which rounds count: those before which each processor was as fast as in the median."""
    medians = [statistics.median(times) for times in zip(*calibrations, strict=True)]
    return [
        all(abs(time / median - 1) <= CALM for time, median in zip(times, medians, strict=True))
        for times in calibrations
    ]


def compare(workload: Workload, workers: dict[Name, Worker], ours: Name) -> tuple[dict[Name, Any], dict[Name, str]]:
    """Compare what all of them compute with nnx; return that, and what is wrong with whom."""
    modes = (False, True) if workload.dropout else (False,)
    start = 0.0
    if workload.kind != "predict":
        start = loss(workload, [array for pair in initial_parameters(workload) for array in pair])
    found: dict[Name, Any] = {}
    wrong: dict[Name, str] = {}
    for name in (ours, *(name for name in workers if name != ours)):
        if name[0] == "peak":
            continue
        try:
            replies = [workers[name].ask("check", dropout=mode) for mode in modes]
        except PeerError as error:
            wrong[name] = str(error)
            continue
        if "output" in replies[0]:
            output = np.array(replies[0]["output"])
            found[name] = output
            apart = float(np.abs(output - found[ours]).max())
            if not apart <= OUTPUT_TOLERANCE:
                wrong[name] = f"disagrees: outputs are apart by {apart:.2g}"
            continue
        found[name] = [reply["losses"] for reply in replies]
        for mode, theirs, expected in zip(modes, found[name], found[ours], strict=True):
            tolerance = DROPOUT_TOLERANCE if mode else LOSS_TOLERANCE
            for n, a, b in zip(workload.checks, theirs, expected, strict=True):
                if not abs(a - b) <= tolerance * abs(b - start):
                    wrong.setdefault(name, f"disagrees: loss {a:.6f}, not {b:.6f}, after {n} steps from {start:.6f}")
    return {name: value for name, value in found.items() if isinstance(value, list)}, wrong


def measure(workload: Workload, workers: dict[Name, Worker], ours: Name, n_rounds: int) -> dict[str, Any]:
    """Prepare, compare and time a workload on all workers; return what is in the JSON file for it."""
    ready: dict[Name, Worker] = {}
    prepared: dict[Name, dict[str, Any]] = {}
    problems: dict[Name, str] = {}
    for name, worker in workers.items():
        try:
            reply = worker.ask("prepare", name=workload.name)
        except PeerError as error:
            problems[name] = str(error)
            continue
        if "way" in reply:
            ready[name], prepared[name] = worker, reply
        elif reply["failures"]:
            problems[name] = "; ".join(f"{way}: {error}" for way, error in reply["failures"].items())
    if ours not in ready:
        raise PeerError(f"{workload.name}: {problems.get(ours, 'nnx cannot do it')}")
    checks, wrong = compare(workload, ready, ours)
    problems.update(wrong)
    order = [name for name in ready if name not in wrong]
    processors = machine.processors(max(cores for _, cores in order))
    calibrations: list[list[float]] = []
    times: dict[Name, list[float]] = {name: [] for name in order}
    stolen = machine.stolen()
    while len(calibrations) < MOST * n_rounds and (not calibrations or sum(calm(calibrations)) < n_rounds):
        calibrations.append(calibrate(processors))
        turn = len(calibrations) % len(order)
        for name in order[turn:] + order[:turn]:
            time.sleep(PAUSE)
            times[name].append(ready[name].ask("block")["time"])
    for worker in ready.values():
        worker.ask("forget")
    kept = calm(calibrations)
    return {
        "workload": workload.name,
        "cores": ours[1],
        "kept": kept,
        "calibrations": calibrations,
        "stolen_ticks": None if stolen is None else (machine.stolen() or stolen) - stolen,
        "problems": {label(name): problem for name, problem in problems.items()},
        "peers": {label(name): {**prepared[name], "losses": checks.get(name), "times": times[name]} for name in order},
    }


def label(name: Name) -> str:
    """Return how a peer on its cores is called in the JSON file."""
    return f"{name[0]}@{name[1]}"
