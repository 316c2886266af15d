"""Training and evaluation: as a plan where there is one for the model, else in segments, else layer by layer.

`Model` calls it and documents the arguments.
"""

from __future__ import annotations

from collections.abc import Callable

from nnx._base import precision, printing
from nnx._base.interrupt import Interrupt
from nnx._base.network import Network
from nnx.engine import divergence, layerwise, plan, segments
from nnx.engine.job import Data, Job


def train(job: Job, report: printing.Printer) -> None:
    """Train for some epochs; record and report each step and epoch."""

    def validate(interrupt: Interrupt) -> None:
        assert job.held_out is not None
        found = evaluate(job.model, job.held_out, job.batch_size, interrupt)
        job.history.add_validation(**found)
        report.line(printing.validation_line(**found))

    def keep(done: int, sums: Callable[[], tuple[float, ...]], now: bool = False) -> None:
        keeper = job.keeper
        if keeper is not None and (now or keeper.is_due(done, job.n_batches)):
            if job.stops:
                divergence.check_parameters(job.model, done, job.n_batches)
            keeper.write(job, done, sums())

    for train in (plan.train, segments.train):
        if train(job, report, validate, keep):
            return
    layerwise.train(job, report, validate, keep)


def explain(model: Network, bfloat16: bool) -> str:
    """Return how a model trains, and what prevents a plan."""
    return plan.explain(model, bfloat16, segments.explain(model, bfloat16))


def evaluate(
    model: Network, data: Data, batch_size: int | None, interrupt: Interrupt | None = None
) -> dict[str, float]:
    """Return loss and accuracy over the data; no parameter changes."""
    with precision.of_products(None):  # as in `Model.predict`
        if not plan.evaluate(model, data, batch_size, interrupt):
            layerwise.evaluate(model, data, batch_size, interrupt, segments.forward)
    return {
        "loss": float(model.loss.calculate_accumulated()),
        "accuracy": float(model.accuracy.calculate_accumulated()),
    }
