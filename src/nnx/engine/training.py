"""Training and evaluation: as a plan if the model has one, else in segments, else layer by layer.

`Model` calls it and documents the arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nnx._base import precision, printing
from nnx._base.interrupt import Interrupt
from nnx._base.network import Network
from nnx.engine import divergence, layerwise, minimizing, plan, segments
from nnx.engine.job import AddUp, Data, Job


def train(job: Job, report: printing.Printer) -> None:
    """Train for some epochs. Record and report each step and epoch, and call the callbacks."""
    callbacks = job.callbacks

    def validate(interrupt: Interrupt, add_up: AddUp | None = None) -> None:
        if job.held_out is not None:
            found = evaluate(job.model, job.held_out, job.batch_size, job.threads, interrupt, add_up)
            job.history.add_validation(**found)
            if not report.is_silent:
                report.line(printing.validation_line(**found))

    def call() -> None:
        if callbacks is not None:
            callbacks.end_epoch(job)
            minimizing.check_kind(job)
            if job.ranks is not None:
                job.ranks.agree_on_callbacks(job)
            tell(callbacks.stopped)

    def tell(stopped: str | None) -> None:
        if stopped is not None:
            report.notice(f"stopped after epoch {job.epochs}: {stopped}")

    def end_epoch(interrupt: Interrupt, add_up: AddUp | None = None) -> None:
        validate(interrupt, add_up)
        call()

    def keep(done: int, sums: Callable[[], tuple[float, ...]], now: bool = False, checked: bool = False) -> None:
        keeper = job.keeper
        if keeper is not None and not keeper.has(done) and (now or keeper.is_due(done, job.n_batches)):
            if job.stops and not checked:
                divergence.check_parameters(job.model, done, job.n_batches)
            keeper.write(job, done, sums())

    try:
        if callbacks is not None:
            callbacks.begin(job)
            minimizing.check_kind(job)
            if job.ranks is not None:
                job.ranks.agree_on_callbacks(job)
        tell(job.stopped if callbacks is None else callbacks.stopped)  # at once, or before it continued
        if job.lacks_validation():
            with Interrupt() as interrupt:
                validate(interrupt)
        if job.lacks_call():
            with Interrupt():
                call()
        if job.memory is not None:
            minimizing.train(job, report, end_epoch, keep)
        elif job.stream is not None:
            from nnx.engine import streaming

            streaming.train(job, report, end_epoch, keep)
        elif not plan.train(job, report, end_epoch, keep) and (
            job.ranks is not None or not segments.train(job, report, end_epoch, keep)
        ):
            layerwise.train(job, report, end_epoch, keep)
        if callbacks is not None:
            with Interrupt():  # parameters are restored as a whole
                callbacks.end()
    finally:
        if callbacks is not None:
            callbacks.close()


def explain(model: Network, bfloat16: bool) -> str:
    """Return text: how a model trains and what prevents a plan, or which assigned setting is wrong."""
    try:
        otherwise = "" if minimizing.is_minimized(model) else segments.explain(model, bfloat16)
        return plan.explain(model, bfloat16, otherwise)
    except (TypeError, ValueError) as error:
        return f"It does not train: {error}"


def evaluate(
    model: Network,
    data: Data,
    batch_size: int | None,
    threads: int,
    interrupt: Interrupt | None = None,
    add_up: AddUp | None = None,
) -> dict[str, float]:
    """Return loss and accuracy over the data. No parameter changes.

    A plan that has prepared the data passes ``add_up``. It adds up losses and hits in the model's loss and accuracy,
    and returns whether it could.
    """
    with precision.of_products(None):  # as in `Model.predict`
        if not (add_up or partial(plan.evaluate, model, data, batch_size, threads))(interrupt):
            layerwise.evaluate(model, data, batch_size, interrupt, segments.forward)
    return {
        "loss": float(model.loss.calculate_accumulated()),
        "accuracy": float(model.accuracy.calculate_accumulated()),
    }
