"""Checkpoints of a run: when one is due, what it holds, and whether a run can continue from it.

A checkpoint is a model file with three more things: the progress of the run, its records, and fingerprints of the data.
`nnx.files.model_files` defines the layout of the file.
"""

from __future__ import annotations

import math
import os
import re
import time
import warnings
import zlib
from typing import Any

import numpy as np

from nnx import _kernels
from nnx._base import check, files
from nnx._base.random import MAX_SEED
from nnx._base.typing import Array, Path
from nnx.engine import calling, lbfgs
from nnx.engine.history import EPOCH, STEP
from nnx.engine.job import Job
from nnx.files import descriptions, model_files

#: Seconds, as ``checkpoint_every`` of `Model.train` takes them.
SECONDS = re.compile(r"(\d+(?:\.\d+)?) ?s")
#: The steps between two checkpoints if the clock decides: no limit.
UNLIMITED = 1 << 62


def fingerprint(values: Array) -> dict[str, Any]:
    """Return shape, dtype and CRC-32 of an array's numbers."""
    parts = [values]
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:  # long doubles have padding bytes without a meaning
        with np.errstate(all="ignore"):
            parts = [values.astype(np.float64)]
            parts.append((values - parts[0]).astype(np.float64))
    crc = 0
    for part in parts:
        part = np.ascontiguousarray(part, part.dtype.newbyteorder("<"))
        crc = zlib.crc32(part.reshape(-1).view(np.uint8).data, crc)
    return {"shape": list(values.shape), "dtype": values.dtype.name, "crc32": crc}


def fingerprints(job: Job) -> dict[str, dict[str, Any]]:
    """Return the fingerprints of a run's data, by name: samples as the network gets them, the rest as given."""
    arrays = {"X": job.data.X, "y": job.data.y_accuracy, "sample_weight times class_weight": job.data.weights}
    if job.held_out is not None:
        arrays |= {"validation_data[0]": job.held_out.X, "validation_data[1]": job.held_out.y_accuracy}
        arrays |= {"validation_data[2]": job.held_out.weights}
    return job.marks | {name: fingerprint(array) for name, array in arrays.items() if array is not None}


def seed_of_split(where: str, path: Path) -> int | None:
    """Return the seed that drew the held-out rows of the run in a checkpoint; None if the file has none."""
    known = model_files.run_of(where, check.path(where, "resume", path)).get("validation_split")
    seed = known[1] if type(known) is list and len(known) == 2 else None
    return seed if type(seed) is int and 0 <= seed <= MAX_SEED else None


def prepare(
    where: str, job: Job, checkpoint: Path | None, every: int | str, steps: bool, resume: Path | None
) -> Resumed | None:
    """Let a job write checkpoints, and continue from one, as the arguments say. Return the latter, if any."""
    interval(where, every)
    if checkpoint is not None:
        job.keeper = Keeper(where, checkpoint, every, steps, job)
        if job.callbacks is not None:
            job.callbacks.keep_off(os.fspath(checkpoint))
    if resume is None:
        return None
    resumed = Resumed(where, resume, job)
    job.done, job.sums = resumed.done, resumed.sums
    if resumed.stopped is not None:
        job.epochs, job.stopped = job.done // job.n_batches, resumed.stopped
    if resumed.learning_rate is not None:
        job.learning_rate = resumed.learning_rate
    return resumed


class Keeper:
    """Writes a run's checkpoints.

    Parameters
    ----------
    where : str
        The method that the user called, for messages.
    path : str or path
    every : int or str
        How often: a number of epochs, or seconds, as in "30s".
    steps : bool
        Whether checkpoints keep the metrics of all steps.
    job : Job
        The run.
    """

    def __init__(self, where: str, path: Path, every: int | str, steps: bool, job: Job) -> None:
        self._where, self._given = where, check.path(where, "checkpoint", path)
        self._epochs, self._seconds = interval(where, every)
        files.writable(where, self._given, "checkpoint")
        self._path = os.path.abspath(self._given)  # the run may change the current folder
        self._last = time.monotonic()
        self._written = -1
        self._columns = EPOCH + STEP if steps else EPOCH
        self._data = fingerprints(job)
        model_files.check_checkpoint(where, job.model, self._run(job, 0)[0])

    def steps_left(self, done: int, n_batches: int) -> int:
        """Return the number of steps until a checkpoint is due; a large number if the clock decides."""
        if not self._epochs:
            return UNLIMITED
        between = self._epochs * n_batches
        return between - done % between

    def is_due(self, done: int, n_batches: int) -> bool:
        """Return whether a checkpoint is due after ``done`` steps."""
        if self._epochs:
            return done % (self._epochs * n_batches) == 0
        return time.monotonic() - self._last >= self._seconds

    def has(self, done: int) -> bool:
        """Return whether the latest checkpoint was written after ``done`` steps."""
        return done == self._written

    def write(self, job: Job, done: int, sums: tuple[float, ...]) -> None:
        """Write a checkpoint, unless there is already one of this step.

        Raises
        ------
        OSError
            If that fails. The model and the previous checkpoint do not change.
        """
        if done == self._written:
            return
        if self._written < 0:
            files.remove_leftovers(self._path)
        run, arrays = self._run(job, done)
        arrays |= {name: getattr(job.history, name) for name in self._columns}
        arrays["sums"] = np.array(sums if job.penalty_per_sample else sums[:4], np.float64)
        if job.memory is not None:
            arrays |= {"lbfgs.vectors": job.memory.vectors, "lbfgs.numbers": job.memory.numbers}
        try:
            model_files.save_checkpoint(self._where, self._path, job.model, run, arrays)
        except OSError as error:
            raise OSError(
                f"{self._where}: checkpoint could not be written to {self._given!r}: {error.strerror or error}. "
                f"The model is as it was after {done} steps. An earlier checkpoint has not changed."
            ) from error
        self._written, self._last = done, time.monotonic()

    def _run(self, job: Job, done: int) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return a checkpoint's description of the run after ``done`` steps, and the arrays of its callbacks."""
        run: dict[str, Any] = {
            "done": done,
            "rows": job.rows,
            "shuffle": job.order.kind,
            "seed": job.order.seed,
            "backend": _computes_on(job),
            "data": self._data,
            **({} if job.precision is None else {"precision": job.precision}),
            **({"penalty_per_sample": True} if job.penalty_per_sample else {}),
            **({} if job.split is None else {"validation_split": list(job.split)}),
        }
        if not _equal(getattr(job.model.optimizer, "learning_rate", None), job.learning_rate):
            run["learning_rate"] = job.learning_rate
        if job.callbacks is None:
            return run, {}
        described, arrays = job.callbacks.state()
        run |= {"called": job.callbacks.called, "callbacks": described}
        if job.callbacks.stopped is not None:
            run["stopped"] = job.callbacks.stopped
        return run, arrays


def _equal(rate: Any, other: Any) -> bool:
    """Return whether two learning rates are the same. Only numbers can be compared."""
    return rate is other or not isinstance(rate, int | float) or not isinstance(other, int | float) or rate == other


def interval(where: str, every: Any) -> tuple[int, float]:
    """Return the epochs and the seconds between two checkpoints. One of the two is 0."""
    if isinstance(every, str):
        found = SECONDS.fullmatch(every.strip())
        if found is None:
            raise ValueError(
                f"{where}: checkpoint_every must be a number of epochs, or seconds such as '30s', got {every!r}."
            )
        return 0, float(found[1])
    return check.whole(where, "checkpoint_every", every), 0.0


class Resumed:
    """A checkpoint that a run can continue from. It has been compared with the run in every respect.

    Attributes
    ----------
    done : int
        The number of steps done.
    sums : tuple of five numbers
        The sums of the epoch so far, for `Job.sums`. The last is 0 if penalties are not per sample.
    stopped : str or None
        Why a callback stopped it.
    learning_rate : number or None
        The optimizer's rate at the start of the run, if it has changed since.
    """

    def __init__(self, where: str, path: Path, job: Job) -> None:
        self._path = check.path(where, "resume", path)
        self._checkpoint = model_files.Checkpoint(where, self._path, job.model)
        self._take(job)
        self._take_memory(job)
        self._take_callbacks(job)
        self._compare(where, job)
        loss_sum, loss_count, hits_sum, hits_count, penalty_sum = self._sums
        self.sums: tuple[float, float, float, float, float] = self._sums
        if job.data.weights is None:  # these are counts, although the file holds floats
            self.sums = (loss_sum, int(loss_count), hits_sum, int(hits_count), penalty_sum)
        self._compare_callbacks(where, job)

    def _take(self, job: Job) -> None:
        """Read the progress of the run. Refuse anything that no run can have written."""
        run, arrays = self._checkpoint.run, self._checkpoint.run_arrays
        try:
            iterations = self._checkpoint.iterations
            most = descriptions.MAX_STEPS if iterations is None else iterations
            self.done = check.whole("", "done", run["done"], 0, most)
            seed = run["seed"]
            self._seed = None if seed is None else check.whole("", "seed", seed, 0, MAX_SEED)
            if type(run["data"]) is not dict or type(run["backend"]) is not str:
                raise TypeError
            has_steps = any(name in arrays for name in STEP)
            columns = {name: arrays[name] for name in (EPOCH + STEP if has_steps else EPOCH)}
            sums = arrays["sums"].tolist() + ([] if run.get("penalty_per_sample") else [0.0])
            loss_sum, loss_count, hits_sum, hits_count, penalty_sum = map(float, sums)
            for count in (loss_count, hits_count):  # the sum of weights may exceed MAX_STEPS
                check.number("", "sums", count, 0, math.inf if job.data.weights is not None else descriptions.MAX_STEPS)
            self._sums = (loss_sum, loss_count, hits_sum, hits_count, penalty_sum)
        except (IndexError, KeyError, OverflowError, TypeError, ValueError):
            self._checkpoint.refuse("is damaged: it does not say how far the run has come")
        n_epochs = self.done // job.n_batches
        validated: tuple[int, ...] = (0,)
        if job.held_out is not None:  # the validation of an epoch may have been interrupted
            validated = (n_epochs, n_epochs - (self.done % job.n_batches == 0))
        sizes = {
            **dict.fromkeys(EPOCH[:5], (n_epochs,)),
            **dict.fromkeys(EPOCH[5:], validated),
            **dict.fromkeys(STEP, (self.done,)),
        }
        if any(column.dtype != np.float64 or column.ndim != 1 for column in columns.values()):
            self._checkpoint.refuse("is damaged: its history is not valid")
        self._columns = columns
        self._fits = all(len(column) in sizes[name] for name, column in columns.items())

    def _take_memory(self, job: Job) -> None:
        """Read the memory of an `Optimizer_LBFGS`. Refuse anything that it cannot have written."""
        if job.memory is None:
            return
        arrays = self._checkpoint.run_arrays
        ours = {"lbfgs.vectors": job.memory.vectors, "lbfgs.numbers": job.memory.numbers}
        self._memory = [(own, arrays[name]) for name, own in ours.items() if name in arrays]
        fits = len(self._memory) == 2 and all(a.shape == b.shape and a.dtype == b.dtype for a, b in self._memory)
        if not fits or not lbfgs.is_possible(self._memory[1][1]):
            self._checkpoint.refuse("is damaged: the memory of its Optimizer_LBFGS is not valid")

    def _take_callbacks(self, job: Job) -> None:
        """Read the state of the callbacks. Refuse anything that no run can have written."""
        run = self._checkpoint.run
        n_epochs, rest = divmod(self.done, job.n_batches)
        called, self.stopped = run.get("called", n_epochs), run.get("stopped")
        self.learning_rate = run.get("learning_rate")
        # The last epoch's validation, or callbacks, may have been interrupted.
        possible = (n_epochs,) if rest else (n_epochs, n_epochs - 1)
        is_text = self.stopped is None or (type(self.stopped) is str and rest == 0 and called == n_epochs)
        if type(called) is not int or called not in possible or called < 0 or not is_text:
            self._checkpoint.refuse("is damaged: it does not say how far the run has come")
        self._called = called

    def _compare(self, where: str, job: Job) -> None:
        """Refuse a run with other data, or of another kind."""
        run, path = self._checkpoint.run, self._path
        of = f"that of {path!r}"
        self._compare_split(where, job)
        theirs, ours = run["data"], fingerprints(job)
        for name in (*ours, *theirs):
            if theirs.get(name) != ours.get(name):
                raise ValueError(
                    f"{where}: {files.printable(name, 80)} must be {of}, {_told(theirs.get(name))}, "
                    f"got {_told(ours.get(name))}."
                )
        if run.get("rows") != job.rows:
            raise ValueError(f"{where}: batch_size must be {of}, {run.get('rows')}, got {job.rows}.")
        order, kind = run.get("shuffle"), job.order.kind
        if type(order) is not type(kind) or order != kind:
            raise ValueError(f"{where}: shuffle must be {of}, {files.printable(str(order), 80)}, got {kind}.")
        if run.get("precision") != job.precision:  # then one of them is bfloat16, for float32 models only
            before = files.printable(repr(run.get("precision") or "float32"), 80)
            raise ValueError(f"{where}: precision must be {of}, {before}, got {job.precision or 'float32'!r}.")
        if run.get("penalty_per_sample", False) is not job.penalty_per_sample:
            before = files.printable(repr(run.get("penalty_per_sample", False)), 80)
            raise ValueError(f"{where}: penalty_per_sample must be {of}, {before}, got {job.penalty_per_sample}.")
        if job.order.seed not in (None, self._seed):
            raise ValueError(f"{where}: seed must be {of}, {self._seed}, got {job.order.seed}.")
        if self.done > job.n_steps:
            raise ValueError(
                f"{where}: epochs must be at least the {self.done / job.n_batches:g} that {path!r} has done, got "
                f"{job.epochs}."
            )
        if not self._fits:
            self._checkpoint.refuse("is damaged: its history is not valid")
        now = _computes_on(job)
        if run.get("backend") != now:
            before = files.printable(run["backend"], 80)
            warnings.warn(
                f"{where}: {path!r} was written on {before}, and continues on {now}: the last digits will differ from "
                f"those of a run without interruption.",
                stacklevel=6,
            )

    def _compare_split(self, where: str, job: Job) -> None:
        """Refuse held-out rows that are drawn in another way: the data would differ for no visible reason."""
        theirs, ours = self._checkpoint.run.get("validation_split"), None if job.split is None else list(job.split)
        if theirs == ours:
            return
        name, number = ("seed", 1) if theirs and ours and theirs[:1] == ours[:1] else ("validation_split", 0)
        before, now = (repr(each[number]) if each else "None" for each in (theirs, ours))
        raise ValueError(f"{where}: {name} must be that of {self._path!r}, {files.printable(before, 80)}, got {now}.")

    def _compare_callbacks(self, where: str, job: Job) -> None:
        """Refuse a run whose callbacks with a state are different."""
        described = self._checkpoint.run.get("callbacks", [])
        try:
            if job.callbacks is None:
                calling.compare(where, described, [], self._path)
            else:
                job.callbacks.check_state(described, self._checkpoint.run_arrays, self._path)
        except calling.DamagedError as error:
            self._checkpoint.refuse(f"is damaged: {error}")

    def restore(self, job: Job) -> None:
        """Set callbacks, model, order and history to the state of the checkpoint."""
        if job.callbacks is not None:
            job.callbacks.resume(self._called, self.stopped)
            try:
                job.callbacks.restore()
            except (KeyError, TypeError, ValueError) as error:  # of a custom one
                self._checkpoint.refuse(f"holds a state that a callback does not accept ({error})")
        self._checkpoint.restore()
        job.order.resume(self._seed)
        if job.memory is not None:
            for own, theirs in self._memory:
                own[...] = theirs
        if STEP[0] not in self._columns:
            self._columns |= dict.fromkeys(STEP, np.full(self.done, np.nan))
        job.history.restore(self._columns)
        loss, accuracy = job.model.loss, job.model.accuracy
        (loss.accumulated_sum, loss.accumulated_count, accuracy.accumulated_sum, accuracy.accumulated_count) = (
            self.sums[:4]
        )
        job.penalty_sum = self.sums[4]


def _computes_on(job: Job) -> str:
    """Return what the bits of a run depend on: the backend, and whether it may use matrix units."""
    if job.precision != "bfloat16":
        return "native-avx512" if _kernels.name == "native-amx" else _kernels.name  # whose float32 kernels are the same
    _, _, refused = _kernels.backend.matrix_units()
    return f"{_kernels.name} without matrix units" if refused else _kernels.name


def _told(mark: dict[str, Any] | None) -> str:
    """Return a fingerprint as words."""
    if not isinstance(mark, dict):
        return "none"
    told = f"{mark.get('dtype')} of shape {mark.get('shape')} with CRC-32 {mark.get('crc32')}"
    return files.printable(told, 160)
