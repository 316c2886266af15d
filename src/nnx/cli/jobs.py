"""What `nnx train` trains: one network, or those of the recipe; once, for each fold, or again with other seeds."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import nnx
import nnx.tabular
from nnx.cli import figures, networks, tasks
from nnx.cli.arguments import sentence
from nnx.data.sheet import count
from nnx.files.model_files import packed

if TYPE_CHECKING:
    from nnx.scoring.reports import Report


class Network(NamedTuple):
    """One network with its first weights, and how it is trained."""

    model: nnx.Model
    settings: tasks.Settings


class Job(NamedTuple):
    """What is to be trained on data: one network, or for a table as many as the effort asks for."""

    task: tasks.Task
    what: Network | str

    def described(self) -> str:
        """Return what is going to be done, in a sentence."""
        if isinstance(self.what, Network):
            return networks.described(self.task, self.what.settings)
        n_inputs = self.task.table.n_inputs
        return f"Training networks on {count(n_inputs, 'input')}, with effort {self.what!r}."


class Outcome(NamedTuple):
    """What has been trained: a model, None if there is none; the exit code; what is to be told of it."""

    model: Any
    code: int
    lines: list[str]


def jobs(chosen: argparse.Namespace) -> tuple[Job, Iterator[Job] | None]:
    """Return what is to be trained, and what is for a cross-validation, if that is asked for."""
    if chosen.folds is None:
        return _prepared(chosen, tasks.load(chosen)), None
    task, folds = tasks.cross_validation(chosen)
    return _prepared(chosen, task), (_prepared(chosen, each) for each in folds)


def _prepared(chosen: argparse.Namespace, task: tasks.Task) -> Job:
    """Return what is to be trained on a task's data."""
    if chosen.effort is not None:
        packed("Table", "table", task.table)  # one that is too large for a file is refused before the training
        return Job(task, chosen.effort)
    np.random.seed(chosen.seed)
    if chosen.patience is not None:
        task = tasks.hold_out(task, chosen.split_seed or 0)
    settings = replace(task.settings, **_given(chosen))
    if settings.schedule is not None and chosen.decay is None:
        settings = replace(settings, decay=0.0)
    suitable = networks.SUITABLE[task.output]
    if settings.loss not in (None, *suitable):
        what = {tasks.SOFTMAX: "several classes", tasks.SIGMOID: "two classes", tasks.LINEAR: "a standardized number"}
        raise ValueError(
            f"argument --loss: must be {' or '.join(suitable)} to predict {what[task.output]}, got {settings.loss!r}"
        )
    return Job(task, Network(networks.build(task, settings, chosen.seed), settings))


def train(job: Job, chosen: argparse.Namespace) -> Outcome:
    """Train with a progress bar; what ends it early is the outcome's exit code."""
    if not isinstance(job.what, Network):
        return _train_by_effort(job.task, job.what, chosen)
    model, settings = job.what
    code = networks.train(model, job.task, settings, chosen)
    has_begun = model.history is not None and len(model.history) > 0
    return Outcome(model if has_begun else None, code, [])


def _train_by_effort(task: tasks.Task, effort: str, chosen: argparse.Namespace) -> Outcome:
    table = task.table
    assert not isinstance(table, nnx.Images)
    with networks.terminating() as code, chosen.parser.refusing(chosen.command):
        try:
            fitted = nnx.tabular.fit(table, task.X, task.y, effort=effort, seed=chosen.seed, progress=True)
        except KeyboardInterrupt:
            return Outcome(None, code(), [])
    return Outcome(fitted.ensemble, 0, fitted.lines)


def diverged(error: nnx.DivergenceError) -> str:
    """Return what there is to say of a training that came to numbers that are not finite."""
    return sentence(error).partition(". ")[0]


def cross_validated(chosen: argparse.Namespace, folds: Iterator[Job]) -> tuple[list[Report], int]:
    """Train on all folds but one, for each of them, and print what that has come to; return it, and the exit code."""
    reports: list[Report] = []
    for model, task in _trained_folds(chosen, folds):
        if model is None:
            print("Stopped within the cross-validation; nothing is saved.", file=sys.stderr)
            return [], task
        reports.append(figures.report(model, task.X_test, task.y_test))
        print(f"fold {len(reports)} of {chosen.folds}: {reports[-1].line}", flush=True)
    print("\n".join(figures.spread(reports, "folds, rows not trained on")), flush=True)
    return reports, 0


def _trained_folds(chosen: argparse.Namespace, folds: Iterator[Job]) -> Iterator[tuple[Any, Any]]:
    """Yield the model and the task of each fold; None and the exit code if the training was stopped."""
    if chosen.effort is not None:
        for job in folds:
            outcome = train(job, chosen)
            yield outcome.model, outcome.code if outcome.model is None else job.task
        return
    with chosen.parser.refusing(chosen.command):
        jobs = [(job.task, *job.what) for job in folds if isinstance(job.what, Network)]
    with networks.terminating() as code:
        try:
            networks.train_folds(jobs, chosen.seed)
        except KeyboardInterrupt:
            yield None, code()
            return
    yield from ((model, task) for task, model, _ in jobs)


def repeat(chosen: argparse.Namespace, first: Report, part: str) -> int:
    """Train again with the seeds that follow, and print what all runs have come to; return the exit code."""
    reports, code = [first], 0
    for number in range(1, chosen.repeat):
        seeds = {name: ((getattr(chosen, name) or 0) + number) % 2**32 for name in ("seed", "split_seed")}
        again = argparse.Namespace(**{**vars(chosen), **seeds})
        with chosen.parser.refusing():
            np.random.seed(again.seed)  # of the points of spiral, too
            job = _prepared(again, tasks.load(again))
        name = f"run {number + 1} of {chosen.repeat}"
        try:
            outcome = train(job, again)
        except nnx.DivergenceError as error:
            print(f"{name}: {diverged(error)}")
            code = 1
            continue
        if outcome.code:
            print(f"{name}: stopped")
            code = outcome.code
            break
        reports.append(figures.judge(outcome.model, job.task).main)
        print(f"{name}: {reports[-1].line}", flush=True)
    print("\n".join(figures.spread(reports, f"runs, {part} data")))
    print("The saved model is that of the first run.")
    return code


def _given(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the command line replaces."""
    values = {field.name: getattr(chosen, field.name) for field in fields(tasks.Settings)}
    return {name: value for name, value in values.items() if value is not None}
