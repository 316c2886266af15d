"""The protocol: a process for each peer and number of cores, blocks in rotating order, one at a time, in calm rounds.

Before and after each round the driver runs a fixed chain of multiply-adds on the same processors. A round beside which
that took 3 % longer or shorter than in the median is dropped, and another is run: somebody else was at work. Whose turn
it is not is stopped: threads of OpenMP and BLAS libraries spin for some time after their work.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import machine
import numpy as np
from workloads import Workload, initial_results, loss

FOLDER = pathlib.Path(__file__).resolve().parent

#: How far the calibration may be from its median over the whole run.
CALM = 0.03
#: Rounds in all, for each that is wanted.
MOST = 3
#: Before calibrations: processes that were told to stop have done so.
PAUSE = 0.01
#: How far losses may be apart, as a part of what training has changed them by; outputs of predictions, as they are.
LOSS_TOLERANCE, DROPOUT_TOLERANCE, OUTPUT_TOLERANCE = 0.02, 0.1, 1e-5
#: Where a peer's weights are bfloat16, so that small updates are lost; and for outputs, which rounding moves by 0.003.
PURE_TOLERANCE, BFLOAT16_OUTPUT_TOLERANCE = 0.1, 0.01

Name = tuple[str, int]  # a peer and its number of cores
Block = dict[str, Any]  # the microseconds of a step, and how many of them there were


class PeerError(Exception):
    """A peer could not do what it was told, or is not there."""


class Worker:
    """The driver's end of a peer's process."""

    def __init__(self, module: str, processors: Sequence[int], environment: dict[str, str]) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / "worker.py"), module, ",".join(map(str, processors))],
            env=machine.environment(len(processors)) | environment,
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
        with contextlib.suppress(BrokenPipeError):  # it has ended; the reply that is missing says so
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
        return self._reply()

    def take_turn(self, do: str) -> dict[str, Any]:
        """Have something timed, and stop the process again: its threads would go on spinning for a while."""
        self.process.send_signal(signal.SIGCONT)
        try:
            return self.ask(do)
        finally:
            self.process.send_signal(signal.SIGSTOP)

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


#: By processor: all calibrations so far. A busy quarter of an hour must not pass for the usual.
history: dict[int, list[float]] = {}


def calibrate(processors: Sequence[int]) -> list[float]:
    """Return how long a fixed chain of multiply-adds takes on each processor; stay on all of them."""
    times = []
    for processor in processors:
        machine.pin([processor])
        start = time.perf_counter()
        x = 1.0
        for _ in range(800_000):
            x = x * 0.999 + 0.5
        times.append(time.perf_counter() - start)
        history.setdefault(processor, []).append(times[-1])
    machine.pin(list(processors))
    return times


def calm(processors: Sequence[int], calibrations: list[list[float]]) -> list[bool]:
    """Return which rounds count: those before and after which all processors were as fast as in their median."""
    medians = [statistics.median(history[processor]) for processor in processors]
    usual = [
        all(abs(time / median - 1) <= CALM for time, median in zip(times, medians, strict=True))
        for times in calibrations
    ]
    return [before and after for before, after in itertools.pairwise(usual)]


def prepare(workload: Workload, workers: dict[Name, Worker]) -> tuple[dict[Name, dict[str, Any]], dict[Name, str]]:
    """Have the workload built and warmed up; return what those that can do it say, and what is wrong with others."""
    prepared: dict[Name, dict[str, Any]] = {}
    problems: dict[Name, str] = {}
    for name, worker in workers.items():
        try:
            reply = worker.ask("prepare", name=workload.name)
        except PeerError as error:
            problems[name] = str(error)
            continue
        if "way" in reply:
            prepared[name] = reply
        elif reply["failures"]:  # without any, the library lacks a part of the workload
            problems[name] = "; ".join(f"{way} {error}".strip() for way, error in reply["failures"].items())
    return prepared, problems


def compare(workload: Workload, workers: dict[Name, Worker], ours: Name) -> tuple[dict[Name, Any], dict[Name, str]]:
    """Compare what all of them compute with nnx; return their losses, and what is wrong with whom."""
    modes = (False, True) if workload.dropout else (False,)
    losses: dict[Name, Any] = {}
    problems: dict[Name, str] = {}
    expected = [workers[ours].ask("check", dropout=mode) for mode in modes]
    for name, worker in workers.items():
        if name[0] == "peak":
            continue
        try:
            replies = [worker.ask("check", dropout=mode) for mode in modes]
        except PeerError as error:
            problems[name] = str(error)
            continue
        if workload.kind == "predict":
            problem = outputs_apart(workload, replies[0]["output"], expected[0]["output"])
        else:
            losses[name] = [reply["losses"] for reply in replies]
            found = (
                losses_apart(workload, reply["losses"], nnx["losses"], loss_tolerance(name[0], mode))
                for mode, reply, nnx in zip(modes, replies, expected, strict=True)
            )
            problem = "; ".join(filter(None, found))
        if problem:
            problems[name] = problem
    return losses, problems


def loss_tolerance(peer: str, dropout: bool) -> float:
    """Return how far a peer's losses may be from nnx's."""
    return PURE_TOLERANCE if peer == "torch_pure" else DROPOUT_TOLERANCE if dropout else LOSS_TOLERANCE


def outputs_apart(workload: Workload, theirs: list[list[float]], ours: list[list[float]]) -> str:
    """Return how predictions disagree, if they do."""
    apart = float(np.abs(np.subtract(theirs, ours)).max())
    allowed = BFLOAT16_OUTPUT_TOLERANCE if workload.precision == "bfloat16" else OUTPUT_TOLERANCE
    return "" if apart <= allowed else f"disagrees: outputs are apart by {apart:.2g}"


def losses_apart(workload: Workload, theirs: list[float], ours: list[float], tolerance: float) -> str:
    """Return how losses disagree, if they do, by more than a part of what training has changed them by."""
    start = loss(workload, initial_results(workload))
    tolerances = workload.tolerances or [tolerance] * len(workload.checks)
    for n, a, b, allowed in zip(workload.checks, theirs, ours, tolerances, strict=True):
        if not abs(a - b) <= allowed * abs(b - start):
            return f"disagrees: loss {a:.6f}, not {b:.6f}, after {n} steps from {start:.6f}"
    return ""


@contextlib.contextmanager
def stopped(workers: Iterable[Worker]) -> Iterator[None]:
    """Keep all processes stopped but for the one whose turn it is."""
    workers = list(workers)
    for worker in workers:
        worker.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            worker.process.send_signal(signal.SIGCONT)


def take_turns(workers: dict[Name, Worker], n_rounds: int) -> tuple[dict[Name, list[Block]], list[bool], list[Any]]:
    """Return the blocks of each worker, one a round; which rounds count; and the calibrations around them."""
    order = list(workers)
    processors = machine.processors(max(cores for _, cores in order))
    blocks: dict[Name, list[Block]] = {name: [] for name in order}
    kept: list[bool] = []
    with stopped(workers.values()):
        calibrations = [calibrate(processors)]
        while sum(kept) < n_rounds and len(kept) < MOST * n_rounds:
            turn = len(kept) % len(order)
            for name in order[turn:] + order[:turn]:
                blocks[name].append(workers[name].take_turn("block"))
            time.sleep(PAUSE)
            calibrations.append(calibrate(processors))
            kept = calm(processors, calibrations)
    if not any(kept):
        raise PeerError(f"none of {len(kept)} rounds was calm: somebody else is at work on these processors")
    return blocks, kept, calibrations


def measure(workload: Workload, workers: dict[Name, Worker], ours: Name, n_rounds: int) -> dict[str, Any]:
    """Prepare, compare and time a workload on all workers; return what is in the JSON file for it.

    Raises
    ------
    PeerError
        If nnx cannot do it, if a peer that could do it fails while it is timed, or if no round was calm.
    """
    prepared, losses, problems = prepare_and_compare(workload, workers, ours)
    able = {name: workers[name] for name in losses}
    stolen = machine.stolen()
    blocks, kept, calibrations = take_turns(able, n_rounds)
    for name in prepared:
        workers[name].ask("forget")
    return {
        "workload": workload.name,
        "cores": ours[1],
        "kept": kept,
        "calibrations": calibrations,
        "stolen_ticks": None if stolen is None else (machine.stolen() or stolen) - stolen,
        "problems": {label(name): problem for name, problem in problems.items()},
        "peers": {
            label(name): {
                **prepared[name],
                "losses": losses[name],
                "times": [block["time"] for block in blocks[name]],
                "steps": [block["steps"] for block in blocks[name]],
            }
            for name in able
        },
    }


def measure_long_run(workload: Workload, workers: dict[Name, Worker], ours: Name, n_rounds: int) -> dict[str, Any]:
    """Have each worker train for long, some times, in turn; return how long a step took at first and in the end."""
    prepared, losses, problems = prepare_and_compare(workload, workers, ours)
    ages: dict[Name, list[dict[str, Any]]] = {name: [] for name in losses}
    with stopped(workers[name] for name in losses):
        for _ in range(n_rounds):
            for name in ages:
                ages[name].append(workers[name].take_turn("age"))
    for name in prepared:
        workers[name].ask("forget")
    return {
        "workload": workload.name,
        "cores": ours[1],
        "problems": {label(name): problem for name, problem in problems.items()},
        "peers": {
            label(name): {
                "way": prepared[name]["way"],
                "first": min(age["first"] for age in found),
                "last": min(age["last"] for age in found),
            }
            for name, found in ages.items()
        },
    }


def prepare_and_compare(
    workload: Workload, workers: dict[Name, Worker], ours: Name
) -> tuple[dict[Name, dict[str, Any]], dict[Name, Any], dict[Name, str]]:
    """Return what those say that can do the workload, the losses of those of them that agree, and what is wrong.

    Raises
    ------
    PeerError
        If nnx cannot do it.
    """
    prepared, problems = prepare(workload, workers)
    if ours not in prepared:
        raise PeerError(problems.get(ours, "nnx is not there"))
    losses, disagreeing = compare(workload, {name: workers[name] for name in prepared}, ours)
    for name, reply in prepared.items():
        if reply["epochs"] != prepared[ours]["epochs"]:
            disagreeing[name] = f"disagrees: stopped after {reply['epochs']} epochs, not {prepared[ours]['epochs']}"
    problems.update(disagreeing)
    return prepared, {name: losses.get(name) for name in prepared if name not in disagreeing}, problems


def label(name: Name) -> str:
    """Return how a peer on its cores is called in the JSON file."""
    return f"{name[0]}@{name[1]}"
