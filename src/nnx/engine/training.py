"""The book path: a model's training and evaluation, one layer call after the other.

`Model` calls it and documents the arguments.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nnx._base import check, printing
from nnx._base.interrupt import Interrupt, at_once
from nnx._base.random import Order
from nnx._base.typing import Array, ArrayLike, FloatDType
from nnx.accuracy import Accuracy_Categorical
from nnx.engine import divergence, plan
from nnx.layers import Layer_Dense
from nnx.losses import KernelLoss, Loss, Loss_BinaryCrossentropy, Loss_CategoricalCrossentropy
from nnx.optimizers import is_built_in

if TYPE_CHECKING:
    from nnx.engine.checkpoints import Keeper
    from nnx.engine.history import History
    from nnx.engine.program import Program
    from nnx.model import Model


#: Rows that stand class by class are taken for sorted if chance gives such an order less often than this.
UNLIKELY = 1e-3


class Data(NamedTuple):
    """Samples and targets, checked and cast once; a batch of them is one of these too."""

    X: Array
    #: What the loss gets: cast for a built-in loss, as the caller gave it for others.
    y: Array
    #: What the accuracy gets: as the caller gave it.
    y_accuracy: Array

    def n_batches(self, batch_size: int | None) -> int:
        """Return how many steps an epoch has."""
        return 1 if batch_size is None else -(-len(self.X) // batch_size)

    def batches(self, batch_size: int | None, order: Array | None = None, first: int = 0) -> Iterator[Data]:
        """Yield the batches from ``first`` on, in ``order`` if one is given; the last may be smaller."""
        size = batch_size or len(self.X)
        for start in range(first * size, len(self.X), size):
            rows = slice(start, start + size) if order is None else order[start : start + size]
            yield Data(self.X[rows], self.y[rows], self.y_accuracy[rows])


@dataclass
class Job:
    """What a call of `Model.train` has to do, all of it checked.

    Attributes
    ----------
    stops : bool
        Whether a loss, or a parameter, that is not finite ends it.
    keeper : Keeper or None
        Writes checkpoints.
    done : int
        How many steps an interrupted run has done that this one goes on with.
    sums : tuple of four numbers
        Of that run's last epoch: losses, how many, hits, how many.
    """

    model: Model
    data: Data
    held_out: Data | None
    epochs: int
    batch_size: int | None
    order: Order
    threads: int
    stops: bool
    history: History
    keeper: Keeper | None = None
    done: int = 0
    sums: tuple[float, int, float, int] = (0.0, 0, 0.0, 0)

    @property
    def n_batches(self) -> int:
        """Steps of an epoch."""
        return self.data.n_batches(self.batch_size)

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.n_batches

    @property
    def rows(self) -> int:
        """Samples of a step, but for the last of an epoch."""
        return min(self.batch_size or len(self.data.X), len(self.data.X))

    def validate(self, report: printing.Printer, interrupt: Interrupt) -> None:
        """Evaluate the model on the held-out data; record and report what is found."""
        assert self.held_out is not None
        found = evaluate(self.model, self.held_out, self.batch_size, interrupt)
        self.history.add_validation(**found)
        report.line(printing.validation_line(**found))

    def keep(self, done: int, sums: Callable[[], tuple[float, ...]], now: bool = False) -> None:
        """Write a checkpoint after ``done`` steps, if one is due or wanted now; never of a diverged model."""
        keeper = self.keeper
        if keeper is not None and (now or keeper.is_due(done, self.n_batches)):
            if self.stops:
                divergence.check_parameters(self.model, done, self.n_batches)
            keeper.write(self, done, sums())

    def lacks_validation(self) -> bool:
        """Return whether the interrupted run was stopped while it evaluated the model after an epoch."""
        n_epochs, rest = divmod(self.done, self.n_batches)
        return self.held_out is not None and rest == 0 and len(self.history.validation_loss) < n_epochs


# Checks, all before anything changes


def checked_samples(model: Model, where: str, name: str, X: ArrayLike) -> Array:
    """Return ``X`` as the first layer takes it; a first layer, or a model, of one's own gets it uncast."""
    return _samples(model, where, name, X, plan.known(model))


def _samples(model: Model, where: str, name: str, X: ArrayLike, known: Program | None) -> Array:
    """Do what `checked_samples` does; what is known of the model need not be asked again."""
    if known is not None and known.stages[0].kind == "dense":
        return check.rows(where, name, X, known.stages[0].n_in, known.dtype)
    first = model.layers[0]
    if keeps(model, "forward", "nnx.model"):
        if keeps(first, "forward", "nnx.layers") and isinstance(first, Layer_Dense):
            weights, _ = first.get_parameters()
            return check.rows(where, name, X, len(weights), weights.dtype)
        if type(first).__module__.startswith("nnx."):
            return check.samples(where, name, X, _dtype(model))
    X = check.plain(where, name, X)
    if X.ndim == 0:
        raise ValueError(f"{where}: {name} must have one row a sample, got a single number.")
    return X


def checked_data(
    model: Model, where: str, names: tuple[str, str], X: ArrayLike, y: ArrayLike, check_finite: bool
) -> Data:
    """Return samples and targets after every check there is."""
    known = plan.known(model)
    samples = _samples(model, where, names[0], X, known)
    if len(samples) == 0:
        raise ValueError(f"{where}: {names[0]} must have at least one row, got none.")
    given = check.plain(where, names[1], y)
    if given.ndim == 0 or len(given) != len(samples):
        raise ValueError(
            f"{where}: {names[1]} must have one row for each of the {len(samples)} rows of {names[0]}, "
            f"got shape {given.shape}."
        )
    if check_finite:
        check.finite(where, names[0], samples)
        check.finite(where, names[1], given)
    targets = given
    if known is not None:
        shape = (len(given), known.stages[-1].n_out)
        targets = known.loss._targets(where, names[1], given, shape, known.dtype)
    elif isinstance(model.loss, KernelLoss) and keeps(model.loss, "forward", "nnx.losses"):
        shape = (len(given), _output_width(model, samples))
        targets = model.loss._targets(where, names[1], given, shape, _dtype(model) or given.dtype)
    if check_finite and targets is not given:
        check.finite(where, names[1], targets)  # what float32 cannot hold has become infinite
    builtin = type(model.loss).__module__ == "nnx.losses"
    return Data(samples, targets if builtin else given, given)


def checked_validation(model: Model, where: str, validation_data: Any) -> Data:
    """Return the validation pair as `checked_data` does."""
    try:
        X_val, y_val = validation_data
    except (TypeError, ValueError):
        raise ValueError(f"{where}: validation_data must be a pair (X_val, y_val).") from None
    return checked_data(model, where, ("validation_data[0]", "validation_data[1]"), X_val, y_val, check_finite=False)


def warn_of_sorted_rows(where: str, model: Model, data: Data, batch_size: int | None) -> None:
    """Warn if the rows are sorted by class and a step sees some of them only, in the order given."""
    classes = None if data.n_batches(batch_size) == 1 else _classes_of_rows(model, data)
    sizes = [] if classes is None else _sizes_in_turn(classes)
    if len(sizes) > 1 and _chance(sizes) < UNLIKELY:
        warnings.warn(
            f"{where}: the rows are sorted by class, so batches of {batch_size} differ in their classes, and each step "
            "unlearns what those before it have learnt. Pass shuffle=True.",
            stacklevel=3,
        )


def _classes_of_rows(model: Model, data: Data) -> Array | None:
    """Return the class of each row, as a number; None if the model does not learn one class a row."""
    if type(model.loss) is Loss_CategoricalCrossentropy:
        return data.y
    losses = Loss_CategoricalCrossentropy | Loss_BinaryCrossentropy
    if not isinstance(model.loss, losses) and not isinstance(model.accuracy, Accuracy_Categorical):
        return None
    y = data.y_accuracy
    if y.ndim == 1 or y.shape[1:] == (1,):
        return y.reshape(-1)
    one_hot = y.ndim == 2 and (np.count_nonzero(y, axis=1) == 1).all()
    return np.asarray(np.argmax(y, axis=1)) if one_hot else None


def _sizes_in_turn(classes: Array) -> list[int]:
    """Return how many rows each class has if all of a class stand together; else nothing."""
    starts = np.flatnonzero(classes[1:] != classes[:-1]) + 1
    starts = np.concatenate([[0], starts])
    for some in (starts[:1000], starts):  # in mixed rows a class comes again soon
        if len(np.unique(classes[some])) < len(some):
            return []
    return [int(size) for size in np.diff(starts, append=len(classes))]


def _chance(sizes: list[int]) -> float:
    """Return how likely rows in random order are to stand class by class, given the classes' sizes."""
    orders = math.lgamma(len(sizes) + 1) + sum(math.lgamma(size + 1) for size in sizes)
    return math.exp(orders - math.lgamma(sum(sizes) + 1))


def keeps(thing: object, method: str, module: str) -> bool:
    """Return whether a method of ``thing`` is the one that ``module`` defines, overridden by nobody."""
    return getattr(getattr(type(thing), method, None), "__module__", "") == module and method not in vars(thing)


def _output_width(model: Model, samples: Array) -> int:
    """Return how many columns the output has; where no layer tells, one sample is run through."""
    width = model.output_width()
    if width is None:
        shape = np.shape(model.forward(samples[:1], training=False))
        width = shape[1] if len(shape) == 2 else 1
    return width


def _dtype(model: Model) -> FloatDType | None:
    """Return the dtype of the model's dense layers; None if it has none."""
    return next((layer._float_dtype() for layer in model.layers if isinstance(layer, Layer_Dense)), None)


# Steps


def train(job: Job, report: printing.Printer) -> None:
    """Train for some epochs; record and report each step and epoch."""
    if not plan.train(job, report):
        _train_by_the_book(job, report)


def _train_by_the_book(job: Job, report: printing.Printer) -> None:
    done, model = job.done, job.model

    def sums() -> tuple[float, ...]:
        return _sums(model)

    with Interrupt() as interrupt:
        try:
            if job.stops:
                divergence.check_parameters(model, done, job.n_batches)
            if job.lacks_validation():
                job.validate(report, interrupt)
            while done < job.n_steps:
                epoch, first = divmod(done, job.n_batches)
                if first == 0:
                    report.begin(epoch)
                    _new_pass(model)
                for batch in job.data.batches(job.batch_size, job.order.draw(epoch + 1, len(job.data.X)), first):
                    ends = (done + 1) % job.n_batches == 0
                    _do_step(job, report, batch, done)
                    done += 1
                    if ends:
                        _end_epoch(job, report, interrupt)
                    job.keep(done, sums)
                    interrupt.check()
            if job.stops:
                divergence.check_parameters(model, done, job.n_batches)
            job.keep(done, sums, now=True)
        except KeyboardInterrupt:
            if interrupt.stopped:
                job.keep(done, sums, now=True)
            raise
        finally:
            if job.history.lacks_epoch(job.n_batches):  # an exception came just then
                _record_epoch(job)


def _do_step(job: Job, report: printing.Printer, batch: Data, done: int) -> None:
    figures = _step(job, batch, done)
    step = done % job.n_batches
    if report.wants(step):
        report.line(printing.step_line(step, *figures))
    report.advance(*figures)


def _end_epoch(job: Job, report: printing.Printer, interrupt: Interrupt) -> None:
    report.line(printing.epoch_line(*_record_epoch(job)))
    if job.held_out is not None:
        job.validate(report, interrupt)


def _record_epoch(job: Job) -> Figures:
    model = job.model
    data_loss, penalty = model.loss.calculate_accumulated(include_regularization=True)
    totals = Figures(data_loss, penalty, model.accuracy.calculate_accumulated(), _rate(model))
    job.history.add_epoch(*totals)
    return totals


def _sums(model: Model) -> tuple[float, ...]:
    """Return the sums of losses and hits, and how many of each; 0 where an object of one's own keeps none."""
    judges = (model.loss, model.accuracy)
    return tuple(getattr(each, f"accumulated_{name}", 0) for each in judges for name in ("sum", "count"))


def evaluate(model: Model, data: Data, batch_size: int | None, interrupt: Interrupt | None = None) -> dict[str, float]:
    """Return loss and accuracy over the data; no parameter changes."""
    if plan.evaluate(model, data, batch_size, interrupt):
        return _accumulated(model)
    _new_pass(model)
    for batch in data.batches(batch_size):
        output = model.forward(batch.X, training=False)
        model.loss.calculate(output, batch.y)
        model.accuracy.calculate(_predictions(model, output), batch.y_accuracy)
        if interrupt is not None:
            interrupt.check()
    return _accumulated(model)


def _accumulated(model: Model) -> dict[str, float]:
    return {
        "loss": float(model.loss.calculate_accumulated()),
        "accuracy": float(model.accuracy.calculate_accumulated()),
    }


class Figures(NamedTuple):
    """What is recorded and printed of a step or an epoch."""

    data_loss: float
    regularization_loss: float
    accuracy: float
    learning_rate: float


def _step(job: Job, batch: Data, done: int) -> Figures:
    """Do a step and record it; return its figures."""
    model = job.model
    before = _sums(model)
    output = model.forward(batch.X, training=True)
    data_loss, penalty = model.loss.calculate(output, batch.y, include_regularization=True)
    if job.stops and not math.isfinite(data_loss):
        if isinstance(model.loss, Loss):
            model.loss.accumulated_sum, model.loss.accumulated_count = before[0], int(before[1])
        divergence.refuse_step(model, batch, done, job.n_batches)
    accuracy = model.accuracy.calculate(_predictions(model, output), batch.y_accuracy)
    model.backward(output, batch.y)
    optimizer = model.optimizer
    optimizer.pre_update_params()
    updates: list[partial[Any]] = []
    if is_built_in(optimizer):
        updates = optimizer._steps(model.trainable_layers)
    else:
        for layer in model.trainable_layers:
            optimizer.update_params(layer)
        optimizer.post_update_params()
    figures = Figures(float(data_loss), float(penalty), float(accuracy), _rate(model))
    at_once([*updates, job.history.adding_step(*figures)])  # parameters, count and history are of one step
    return figures


def _new_pass(model: Model) -> None:
    model.loss.new_pass()
    model.accuracy.new_pass()


def _predictions(model: Model, output: Any) -> Any:
    """Return what the last layer makes of its output; a layer without ``predictions`` leaves it as it is."""
    predictions = getattr(model.output_layer_activation, "predictions", None)
    return output if predictions is None else predictions(output)


def _rate(model: Model) -> float:
    """Return the optimizer's rate, as it is (it is printed in full); an optimizer of one's own may have none."""
    rate: float = getattr(model.optimizer, "current_learning_rate", math.nan)
    return rate
