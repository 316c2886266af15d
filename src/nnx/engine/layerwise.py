"""The book path: trains and evaluates a model layer by layer, as the book does.

`segments.py` runs the same steps with another `Way` through the layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from nnx._base import precision, printing, random
from nnx._base.interrupt import Interrupt, at_once
from nnx._base.network import Network
from nnx._base.typing import Array
from nnx._base.weights import penalties_times, scale_per_sample
from nnx.engine import divergence, program
from nnx.engine.job import Data, EndEpoch, Job, Keep
from nnx.errors import RankError
from nnx.losses import AS_THEY_ARE, Loss
from nnx.optimizers import forgetting_averages, updates_as_built_in
from nnx.residual import members_of


class Figures(NamedTuple):
    """The recorded and printed figures of a step or an epoch."""

    data_loss: float
    regularization_loss: float
    accuracy: float
    learning_rate: float


class Way:
    """How a step runs a model's layers: here by calling the methods of each layer."""

    #: Whether it is already known that the optimizer updates as the built-in ones do.
    updates_compiled = False

    def __init__(self, model: Network) -> None:
        self.model = model

    def forward(self, X: Array, keeps: bool) -> Any:
        """Return the model's output for a batch. If ``keeps``, layers must have all attributes after this step."""
        return self.model.forward(X, training=True)

    def set_outputs(self) -> None:
        """Give layers the ``output`` of the latest forward, if they do not have it yet."""

    def backward(self, output: Any, y: Any, **weighing: Array) -> None:
        """Compute all gradients that the updates need."""
        self.model.backward(output, y, **weighing)

    def updates(self) -> list[partial[Any]]:
        """Return the calls that update the parameters, and count the step, as a built-in optimizer does."""
        steps: list[partial[Any]] = self.model.optimizer._steps(self.model.trainable_layers)
        return steps


def train(job: Job, report: printing.Printer, end_epoch: EndEpoch, keep: Keep, way: Way | None = None) -> None:
    """Train for some epochs. Record and report each step and epoch."""
    done, model, between = job.done, job.model, True
    way = way or Way(model)
    job.history.fold()

    def sums() -> tuple[float, ...]:
        return _sums(job)

    with Interrupt() as interrupt:
        try:
            if job.stops:
                divergence.check_parameters(model, *job.counted(done))
            while done < job.n_steps:
                epoch, first = divmod(done, job.n_batches)
                order = job.order.draw(epoch + 1, len(job.data.X))  # before sums: it may use the model
                if first == 0:
                    report.begin(epoch)
                    _new_pass(model)
                    job.penalty_sum = 0.0
                for batch in job.data.batches(job.batch_size, order, first):
                    if job.ranks is not None:
                        job.ranks.agree(None)
                        between = False
                    ends = (done + 1) % job.n_batches == 0
                    _do_step(job, way, report, batch, done)
                    done, between = done + 1, True
                    if ends:
                        report.line(printing.epoch_line(*_record_epoch(job)))
                        end_epoch(interrupt)
                    keep(done, sums)
                    interrupt.check()
            if job.stops and not job.is_kept(done):
                divergence.check_parameters(model, *job.counted(done))
            keep(done, sums, now=True, checked=True)
        except (KeyboardInterrupt, RankError) as error:
            if interrupt.stopped or (between and isinstance(error, RankError)):
                keep(done, sums, now=True)
            raise
        finally:
            if job.history.lacks_epoch(job.n_batches):  # an exception came just before
                _record_epoch(job)


def _is_kept(job: Job, done: int) -> bool:
    """Return whether layers keep their results in this step: if it is, or may be, the last step of a run."""
    return done == job.n_steps or (job.callbacks is not None and done % job.n_batches == 0)


def _do_step(job: Job, way: Way, report: printing.Printer, batch: Data, done: int) -> None:
    figures = _step(job, way, batch, done)
    number, n_batches = job.counted(done)
    step = number % n_batches
    if report.wants(step):
        report.line(printing.step_line(step, *figures))
    report.advance(*figures)


def _record_epoch(job: Job) -> Figures:
    model = job.model
    data_loss, penalty = model.loss.calculate_accumulated(include_regularization=True)
    if job.penalty_per_sample:
        penalty = job.penalty_sum / job.n_rows
    totals = Figures(data_loss, penalty, model.accuracy.calculate_accumulated(), _rate(model))
    job.history.add_epoch(*totals)
    return totals


def _sums(job: Job) -> tuple[float, ...]:
    """Return the values of `Job.sums`; 0 if a custom object does not keep them."""
    judges = (job.model.loss, job.model.accuracy)
    found = [getattr(each, f"accumulated_{name}", 0) for each in judges for name in ("sum", "count")]
    return (*found, job.penalty_sum)


def evaluate(
    model: Network,
    data: Data,
    batch_size: int | None,
    interrupt: Interrupt | None,
    forward: Callable[[Network, Array], Any],
) -> None:
    """Add up losses and hits of all batches in the model's loss and accuracy. ``forward`` returns a batch's outputs."""
    _new_pass(model)
    for batch in data.batches(batch_size):
        output = forward(model, batch.X)
        model.loss.calculate(output, batch.y, **batch.weighing)
        model.accuracy.calculate(_predictions(model, output), batch.y_accuracy, **batch.weighing)
        if interrupt is not None:
            interrupt.check()


def _step(job: Job, way: Way, batch: Data, done: int) -> Figures:
    """Do a step and record it. Return its figures."""
    model, ranks, own, first = job.model, job.ranks, batch, 0
    if ranks is not None:
        part = ranks.part(len(batch.X))
        own, first = batch.rows(slice(part.first, part.end)), part.first
    loss = model.loss
    compared = own.for_members(members_of(model.layers))
    weighing = compared.weighing
    before = getattr(loss, "accumulated_sum", 0.0), getattr(loss, "accumulated_count", 0)
    # not around losses and accuracies, because they may use other models
    with precision.of_products(job.precision), random.rows_before(first):
        output = way.forward(own.X, _is_kept(job, done + 1))
    judge = partial(model.loss.calculate, output, compared.y, include_regularization=True, **weighing)
    (data_loss, penalty), share = (judge(), 1.0) if ranks is None else ranks.judged(part, model.loss, judge)
    if job.stops and not math.isfinite(data_loss):
        if isinstance(model.loss, Loss):
            model.loss.accumulated_sum, model.loss.accumulated_count = before
        with precision.of_products(job.precision):
            if ranks is None:
                way.set_outputs()
            else:  # the value may be in another rank's rows
                divergence.undo_forward(model)
                model.forward(batch.X, training=True)
        divergence.refuse_step(model, batch, *job.counted(done))
    judge = partial(model.accuracy.calculate, _predictions(model, output), compared.y_accuracy, **weighing)
    accuracy = judge() if ranks is None else ranks.judged(part, model.accuracy, judge)[0]
    sums: list[partial[Any]] = []
    with precision.of_products(job.precision):
        if job.penalty_per_sample:
            scale = scale_per_sample(len(batch.X), batch.weights)
            penalty = float(penalty) * scale
            sums = [partial(setattr, job, "penalty_sum", job.penalty_sum + len(batch.X) * penalty)]
            with penalties_times(scale):
                way.backward(output, compared.y, **weighing)
        else:
            way.backward(output, compared.y, **weighing)
    if ranks is not None:
        ranks.add_up_gradients(part, model, share)
    optimizer = model.optimizer
    optimizer.pre_update_params()
    updates: list[partial[Any]] = []
    if way.updates_compiled or updates_as_built_in(optimizer):
        updates = way.updates()
    else:
        for layer in model.trainable_layers:
            optimizer.update_params(layer)
            if getattr(optimizer, "average", None) is None:
                updates += forgetting_averages(layer)
        optimizer.post_update_params()
    figures = Figures(float(data_loss), float(penalty), float(accuracy), _rate(model))
    at_once([*updates, *sums, job.history.adding_step(*figures)])  # at once, so that all are of one step
    return figures


def _new_pass(model: Network) -> None:
    model.loss.new_pass()
    model.accuracy.new_pass()


def _predictions(model: Network, output: Any) -> Any:
    """Return the predictions of last layer and loss. If the layer has no ``predictions``, return the output."""
    last = model.output_layer_activation
    predictions = getattr(last, "predictions", None)
    made = output if predictions is None else predictions(output)
    said = program.answers_to(model.accuracy, model.loss, last)
    return made if said == AS_THEY_ARE else said.of(made, getattr(model.accuracy, "binary", False))


def _rate(model: Network) -> float:
    """Return the optimizer's rate unchanged, because it is printed in full. A custom optimizer may have none."""
    rate: float = getattr(model.optimizer, "current_learning_rate", math.nan)
    return rate
