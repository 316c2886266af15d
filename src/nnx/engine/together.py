"""Models of one shape that train together, one in each lane of a vector: the choice of the models, and their steps.

`nnx.train_many` calls it. Each model has a plan, bound and prepared as it would be alone. A compiled call does the
steps of all of them. Each run's own plan does its last step, which stores the layers' attributes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnx import _kernels
from nnx._base.interrupt import Interrupt
from nnx._base.network import Network
from nnx.engine import plan, program
from nnx.engine.job import Job

#: What runs must share to train together.
Shape = tuple[Any, ...]
#: The keywords of `Model.train` that may be set. All others must have their defaults.
KEYWORDS = ("epochs", "batch_size", "print_every", "shuffle", "seed", "check_finite", "threads", "on_nonfinite")
#: The smallest fraction of the lanes that models must take. An empty lane costs as much as the others.
MIN_SHARE = 0.75
#: The most weights of a model. The most rows of a batch, for models that have batched-lane kernels when alone.
MAX_WEIGHTS, MAX_ROWS = 600, 64
#: The fewest steps of a run: its start and end take 0.15 ms more in a group than alone.
MIN_STEPS = 500


def shape_of(model: Network, X: Any, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Shape | None:
    """Return what a run must share with others to train together, checked; None for a run that trains alone.

    ``given`` and ``defaults`` are keywords of `Model.train`.
    """
    backend: Any = _kernels.backend
    options = {**defaults, **given}
    if not hasattr(backend, "Together") or callable(options["shuffle"]):
        return None
    if any(options[name] is not value for name, value in defaults.items() if name not in KEYWORDS):
        return None
    try:
        made, native = plan.planned(model, False)
    except program.Obstacle:
        return None
    rule = made.optimizer._rule()
    if not backend.fits_together(native) or rule.clip_norm:
        return None
    epochs, batch, rows = options["epochs"], options["batch_size"], np.shape(X)[0]
    if len(model.trainable_layers) < sum(map(_is_dense, made.stages)) or not _pays(made, epochs, batch or rows, rows):
        return None
    names = tuple(stage.kind if _is_dense(stage) else repr(stage.owner) for stage in made.stages)
    widths = tuple((stage.n_in, stage.n_out) for stage in made.stages)
    return (
        *(made.dtype, names, widths, repr(made.loss), repr(made.accuracy)),
        *(rule.kernel, rule.clip_value, bool(rule.average), rule.settings == rule.bias_settings),
        *(rows, epochs, batch, options["on_nonfinite"], bool(options["shuffle"])),
    )


def _is_dense(stage: program.Stage) -> bool:
    """Return whether a stage is a dense layer, not an activation."""
    return stage.kind == "dense"


def _pays(made: program.Program, epochs: int, batch: int, rows: int) -> bool:
    """Return whether such models train faster together, with one in each lane."""
    dense = [stage for stage in made.stages if _is_dense(stage)]
    if sum(stage.n_in * stage.n_out for stage in dense) > MAX_WEIGHTS or epochs * -(-rows // batch) < MIN_STEPS:
        return False
    is_batched = len(dense) == 2 and max(dense[0].n_in, dense[1].n_out) <= plan.NARROW
    return min(batch, rows) <= MAX_ROWS or not is_batched


def groups_of(shapes: Sequence[Shape | None]) -> list[list[int]]:
    """Return which runs train together, by their shapes: groups of as many as there are lanes, and single runs."""
    backend: Any = _kernels.backend
    found: dict[Any, list[int]] = {}
    for number, shape in enumerate(shapes):
        found.setdefault(number if shape is None else shape, []).append(number)
    groups: list[list[int]] = []
    for numbers in found.values():
        shape = shapes[numbers[0]]
        lanes = 1 if shape is None else backend.lanes(shape[0])
        for first in range(0, len(numbers), lanes):
            group = numbers[first : first + lanes]
            groups += [group] if len(group) >= MIN_SHARE * lanes else [[number] for number in group]
    return sorted(groups)


def train(jobs: Sequence[Job]) -> tuple[int, Exception] | None:
    """Do the steps of runs of one shape, except the last step of each. The jobs note the progress.

    If they do not fit together, it does nothing, and each can train alone. It returns which run failed, and the error.
    """
    runs: list[plan.Run] = []
    with Interrupt() as interrupt:
        try:
            for number, job in enumerate(jobs):
                try:
                    runs.append(plan.Run(job))
                except program.Obstacle:
                    return None
                except Exception as error:
                    return number, error
            return _go(runs, interrupt)
        finally:
            for run in runs:
                run.settle()
                run.job.done, run.job.sums = run.done, run.sums


def _go(runs: list[plan.Run], interrupt: Interrupt) -> tuple[int, Exception] | None:
    first, number = runs[0], 0
    native = _kernels.backend.Together([run.native for run in runs])  # type: ignore[attr-defined]
    try:
        for number, run in enumerate(runs):  # noqa: B007 - the error's
            run.check_parameters()
        while first.done < first.n_steps - 1:
            n = first.steps_at_once()
            for number, run in enumerate(runs):  # noqa: B007 - the error's
                run.begin(n)
            began = time.perf_counter()
            if not native.run(n):
                return None
            first.seconds = (time.perf_counter() - began) / n
            for run in runs:
                run.record()
            if native.diverged >= 0:
                number = native.diverged
                runs[number].diverge()
            interrupt.check()
    except Exception as error:
        return number, error
    return None
