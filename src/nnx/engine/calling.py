"""`Called` calls a run's callbacks, and keeps their state in checkpoints."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnx._base import check, files
from nnx._base.text import abridged
from nnx._base.typing import Array
from nnx.callbacks import Callback, CSVLog, EarlyStopping, SaveBest, TrainingRun
from nnx.engine.history import EPOCH, TRAINING
from nnx.engine.job import Job

#: The methods of `EarlyStopping` that compiled code replaces, unless a user has changed them.
STOPPING = {name: inspect.getattr_static(EarlyStopping, name) for name in ("on_epoch_end", "_improves", "_keep")}


class DamagedError(Exception):
    """A checkpoint holds a state of callbacks that they cannot have written."""


class Called:
    """The callbacks of a run.

    Parameters
    ----------
    where : str
        The method that the user called, for messages.
    job : Job
        The run.
    callbacks : list
        The argument of `Model.train`: callbacks, and functions of a `TrainingRun`.

    Attributes
    ----------
    called : int
        The number of epochs after which they have been called.
    stopped : str or None
        Why one of them stopped the run.
    """

    def __init__(self, where: str, job: Job, callbacks: Any) -> None:
        self._where, self._model = where, job.model
        self.callbacks = checked(where, callbacks)
        validated = job.held_out is not None
        for each in self._objects():
            each._check(where, job.model, validated)
        self.called = 0
        self.stopped: str | None = None
        self._run = TrainingRun(job.model, job.history, job.epochs, validated)
        self._at_epoch_end: list[Callable[[TrainingRun], Any]] = [
            each.on_epoch_end if isinstance(each, Callback) else each for each in self.callbacks
        ]
        self._states: list[dict[str, Any]] = []

    def _objects(self) -> list[Callback]:
        return [each for each in self.callbacks if isinstance(each, Callback)]

    def _with_state(self) -> list[Any]:
        return [each for each in self._objects() if hasattr(each, "get_state") and hasattr(each, "set_state")]

    def keep_off(self, checkpoint: str) -> None:
        """Refuse a callback whose file is the run's checkpoint: each would replace the other."""
        for each in self._objects():
            if isinstance(each, SaveBest | CSVLog) and os.path.realpath(each.path) == os.path.realpath(checkpoint):
                raise ValueError(
                    f"{self._where}: checkpoint must be another file than that of {type(each).__name__}, got "
                    f"{checkpoint!r} for both."
                )

    # During the run

    def begin(self, job: Job) -> None:
        """Call them before the first step."""
        self._run.epoch = self.called
        for each in self._objects():
            each.on_train_begin(self._run)
        self._end_if_stopped(job)

    def end_epoch(self, job: Job) -> None:
        """Call them after an epoch. End the job there if one of them asks for it."""
        self.called += 1
        run = self._run
        run.epoch, run._figures = self.called, None
        for call in self._at_epoch_end:
            call(run)
        if run.stopped is not None:
            self._end_if_stopped(job)

    def only_stopping(self) -> EarlyStopping | None:
        """Return the only callback, if it is an unchanged `EarlyStopping`; else None."""
        only = self.callbacks[0] if len(self.callbacks) == 1 else None
        if type(only) is not EarlyStopping or not vars(only).keys().isdisjoint(STOPPING):
            return None
        if any(inspect.getattr_static(EarlyStopping, name) is not method for name, method in STOPPING.items()):
            return None
        floats, counts = (only.min_delta, only.best), (only.patience, only.best_epoch, only.wait)
        plain = all(type(value) in (int, float) for value in floats) and all(
            type(value) is int and abs(value) <= check.MAX_COUNT for value in counts
        )
        known = EPOCH if self._run.validated else TRAINING
        return only if plain and only.monitor in known else None

    def have_been_called(self, job: Job, n_epochs: int, stopped: bool) -> None:
        """Note the epochs for which compiled code did their work. The last epoch may have stopped the run."""
        self.called += n_epochs
        run = self._run
        run.epoch, run._figures = self.called, None
        if stopped:
            run.stop(self.callbacks[0]._reason())
            self._end_if_stopped(job)

    def stop(self, job: Job, reason: str) -> None:
        """End the job after this epoch, because a callback of another process asked for it."""
        self._run.stop(reason)
        self._end_if_stopped(job)

    def take_rank(self, rank: int) -> None:
        """Tell the callbacks the number of this process, if there are several."""
        self._run.rank = rank

    def names(self) -> list[str]:
        """Return the names of their classes."""
        return [type(each).__name__ for each in self.callbacks]

    def _end_if_stopped(self, job: Job) -> None:
        self.stopped = self._run.stopped
        if self.stopped is not None:
            job.epochs = self.called

    def end(self) -> None:
        """Call them after the run."""
        for each in self._objects():
            each.on_train_end(self._run)

    def close(self) -> None:
        """Let all of them close their files, even if one of them raises an error."""
        self._close(self._objects())

    def _close(self, callbacks: list[Callback]) -> None:
        for number, each in enumerate(callbacks):
            try:
                each.close()
            except BaseException:
                self._close(callbacks[number + 1 :])
                raise

    # In checkpoints

    def state(self) -> tuple[list[dict[str, Any]], dict[str, Array]]:
        """Return the state of those that have one, for a checkpoint: descriptions, and arrays by name."""
        described, arrays = [], {}
        for number, each in enumerate(self._with_state()):
            plain = {}
            for name, value in _checked_state(self._where, each).items():
                if isinstance(value, np.ndarray):
                    arrays[f"callbacks.{number}.{name}"] = value
                else:
                    plain[name] = value
            described.append({**_made_like(each), "state": plain})
        return described, arrays

    def check_state(self, described: Any, arrays: Mapping[str, Array], path: str) -> None:
        """Refuse the state of other callbacks in a checkpoint. Remember the state of these.

        Raises
        ------
        ValueError
            If other callbacks wrote it.
        DamagedError
            If no callback can have written it.
        """
        ours = [_made_like(each) for each in self._with_state()]
        compare(self._where, described, ours, path)
        for number, (each, found) in enumerate(zip(self._with_state(), described, strict=True)):
            beginning = f"callbacks.{number}."
            beside = {n.removeprefix(beginning): array for n, array in arrays.items() if n.startswith(beginning)}
            state = {**found["state"], **beside}
            try:
                if len(state) < len(found["state"]) + len(beside):
                    raise KeyError("a name occurs twice")
                each._check_state(state, self._model)
            except (IndexError, KeyError, TypeError, ValueError) as error:
                raise DamagedError(f"its state of {type(each).__name__} is none") from error
            self._states.append(state)

    def resume(self, called: int, stopped: str | None) -> None:
        """Continue a run in which they have been called for some epochs."""
        self.called, self.stopped = called, stopped
        self._run.resumed, self._run.epoch, self._run.stopped = True, called, stopped

    def restore(self) -> None:
        """Give them their state from the checkpoint."""
        for each, state in zip(self._with_state(), self._states, strict=True):
            each.set_state(state)


def compare(where: str, described: Any, ours: list[dict[str, Any]], path: str) -> None:
    """Refuse descriptions in a checkpoint that belong to other callbacks."""
    if not isinstance(described, list) or not all(
        isinstance(each, dict)
        and each.keys() == {"class", "settings", "state"}
        and isinstance(each["class"], str)
        and isinstance(each["settings"], dict)
        and isinstance(each["state"], dict)
        for each in described
    ):
        raise DamagedError("its callbacks are not described")
    theirs = [{"class": each["class"], "settings": each["settings"]} for each in described]
    if theirs != ours:
        raise ValueError(
            f"{where}: callbacks with a state must be those of {path!r}, {_told(theirs)}, got {_told(ours)}."
        )


def _made_like(callback: Any) -> dict[str, Any]:
    return {"class": type(callback).__name__, "settings": callback._compared()}


def _told(callbacks: list[dict[str, Any]]) -> str:
    """Return text that shows callbacks as calls of their constructors."""
    if not callbacks:
        return "none"
    calls = [
        f"{each['class']}({', '.join(f'{name}={value!r}' for name, value in each['settings'].items())})"
        for each in callbacks
    ]
    return files.printable(", ".join(calls), 300)


def checked(where: str, callbacks: Any) -> list[Any]:
    """Return a list of callbacks and functions, each once."""
    if not isinstance(callbacks, list | tuple):
        raise TypeError(f"{where}: callbacks must be a list, got {abridged(callbacks)}. Write callbacks=[...].")
    for number, each in enumerate(callbacks):
        if isinstance(each, type):
            raise TypeError(f"{where}: callbacks[{number}] must be an object, got a class. Write {each.__name__}(...).")
        if not isinstance(each, Callback) and not callable(each):
            raise TypeError(
                f"{where}: callbacks[{number}] must be a Callback or a function of the run, got {abridged(each)}."
            )
        if any(each is other for other in callbacks[:number] if isinstance(each, Callback)):
            raise ValueError(f"{where}: callbacks must hold each object once, got {abridged(each)} twice.")
    return list(callbacks)


def _checked_state(where: str, callback: Any) -> dict[str, Any]:
    """Return the state that a callback's ``get_state`` returns, checked: a file must be able to hold it."""
    state = callback.get_state()
    if isinstance(state, dict):
        state = {name: value.item() if isinstance(value, np.generic) else value for name, value in state.items()}
    if not isinstance(state, dict) or not all(isinstance(n, str) and _can_be_kept(v) for n, v in state.items()):
        raise TypeError(
            f"{where}: {type(callback).__name__}.get_state must return a dict of finite numbers, texts, None and "
            f"arrays of numbers by name, got {abridged(state)}."
        )
    return state


def _can_be_kept(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf" and value.dtype.itemsize <= 8
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)
