"""A peer's process: it stays on its processors, imports its library, and does what it is told, line by line.

Started by `rounds.Worker` only: ``python worker.py MODULE PROCESSOR,...``. Commands and replies are JSON, one a line.
Standard output is a file: what a library prints goes there.
"""

from __future__ import annotations

import os
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))  # timing.py and reference.py

import machine

PROCESSORS = [int(number) for number in sys.argv[2].split(",")]
machine.pin(PROCESSORS)  # before a library can count the processors

import gc
import importlib
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from workloads import WORKLOADS, Candidate, Workload, loss

#: Blocks of each way of a peer to do the same, in turn, by which the fastest is found.
TRIALS = 3

#: Of a long run, how many epochs at its beginning and at its end are timed; the fastest of each count.
TIMED_EPOCHS = 5

Ways = Mapping[str, Callable[[], Candidate]]


class Desk:
    """The commands. One workload at a time is on the desk."""

    workload: Workload
    candidate: Candidate
    way: str
    units: int

    def __init__(self, module: Any) -> None:
        self.build = lambda workload: module.variants(workload, len(PROCESSORS))

    def prepare(self, name: str) -> dict[str, Any]:
        """Build the workload in every way that the peer knows, let them take turns, and keep the fastest."""
        self.workload = WORKLOADS[name]
        ready: dict[str, tuple[Candidate, int]] = {}
        failures: dict[str, str] = {}
        for way, make in self.build(self.workload).items():
            try:
                candidate = make()
                ready[way] = candidate, units_a_block(candidate, self.workload.seconds)
            except Exception as error:  # of somebody else's library; the other ways may work
                failures[way] = f"{type(error).__name__}: {error}"[:500]
        if not ready:
            return {"failures": failures}
        blocks = [{way: block(*pair) * 1e6 for way, pair in ready.items()} for _ in range(TRIALS)]
        trials = {way: min(times[way] for times in blocks) for way in ready}
        self.way = min(trials, key=trials.__getitem__)
        self.candidate, self.units = ready[self.way]
        epochs = getattr(self.candidate, "epochs", 0)  # of a run
        return {"way": self.way, "trials": trials, "failures": failures, "epochs": epochs}

    def check(self, dropout: bool) -> dict[str, Any]:
        """Return the losses after the workload's numbers of steps, or the output; without dropout, if told so."""
        workload, candidate = self.workload, self.candidate
        if workload.kind == "predict":
            return {"output": np.asarray(candidate.results()[0]).tolist()}
        if workload.dropout and not dropout:
            ways = self.build(workload.without_dropout())
            candidate = ways.get(self.way, next(iter(ways.values())))()  # a way may be one of drawing only
        losses = []
        for steps in workload.checks:
            candidate.reset()
            candidate.run(steps // candidate.steps)
            losses.append(loss(workload, candidate.results()))
        return {"losses": losses}

    def block(self) -> dict[str, Any]:
        """Return the microseconds of a step, over a block of so many steps."""
        while True:
            taken = block(self.candidate, self.units)
            steps = self.units * self.candidate.steps
            if taken * steps >= self.workload.seconds / 2:
                return {"time": taken * 1e6, "steps": steps}
            self.units = max(self.units + 1, round(self.workload.seconds / taken / self.candidate.steps))

    def age(self) -> dict[str, Any]:
        """Return the microseconds of a step at the beginning and at the end of a long run."""
        candidate, workload = self.candidate, self.workload
        units = max(1, workload.steps // candidate.steps)  # an epoch
        block(candidate, units)  # warms up
        candidate.reset()
        first = min(timed(candidate, units) for _ in range(TIMED_EPOCHS))
        candidate.run(units * (workload.epochs - 2 * TIMED_EPOCHS))
        last = min(timed(candidate, units) for _ in range(TIMED_EPOCHS))
        return {"first": first * 1e6, "last": last * 1e6}

    def forget(self) -> dict[str, Any]:
        """Free what the workload took."""
        del self.candidate
        gc.collect()
        return {}


def block(candidate: Candidate, units: int) -> float:
    """Return the seconds of a step. Every block does the same: it begins with the initial weights."""
    candidate.reset()
    sys.stdout.flush()
    os.lseek(1, 0, os.SEEK_SET)  # what was printed so far is nobody's to read
    os.ftruncate(1, 0)
    gc.collect()
    return timed(candidate, units)


def timed(candidate: Candidate, units: int) -> float:
    """Return the seconds of a step, over so many units from where the candidate stands."""
    start = time.perf_counter()
    candidate.run(units)
    return (time.perf_counter() - start) / (units * candidate.steps)


def units_a_block(candidate: Candidate, seconds: float) -> int:
    """Return how many units take about so long; what compiles at its first calls has done so then."""
    candidate.run(1)
    candidate.run(1)
    units = 1
    while (taken := block(candidate, units) * units * candidate.steps) < seconds / 2:
        units *= 2
    return max(1, round(units * seconds / taken))


def main() -> None:
    """Serve the commands until there are no more."""
    commands, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile() as printed, open(os.devnull) as nothing:
        os.dup2(printed.fileno(), 1)
        os.dup2(nothing.fileno(), 0)

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    try:
        module = importlib.import_module(sys.argv[1])
    except ImportError as error:
        reply({"missing": str(error)})
        return
    reply({"version": module.VERSION})
    desk = Desk(module)
    for line in commands:
        command = json.loads(line)
        try:
            reply(getattr(desk, command.pop("do"))(**command))
        except Exception as error:  # the driver goes on with the other peers, and says so
            reply({"error": f"{type(error).__name__}: {error}"[:500], "traceback": traceback.format_exc()})


if __name__ == "__main__":
    main()
