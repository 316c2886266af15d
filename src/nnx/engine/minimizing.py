"""Training with `Optimizer_LBFGS`, whose iterations need the loss as a function of all parameters.

`training.py` asks this module first. One loop serves both ways: compiled, with many iterations in a call
(`plans/lbfgs.pxi`), and layer by layer, with the definition in NumPy (`lbfgs.py`).
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from nnx import _kernels, optimizers
from nnx._base import check, precision, printing
from nnx._base.interrupt import Interrupt, at_once
from nnx._base.network import Network
from nnx._base.text import abridged
from nnx._base.typing import Array
from nnx._base.weights import penalties_times, scale_per_sample
from nnx.engine import divergence, layerwise, lbfgs, plan, program
from nnx.engine.job import EndEpoch, Job, Keep
from nnx.engine.lbfgs import Memory
from nnx.layers import Layer_BatchNorm, Layer_Dropout, Layer_GaussianNoise, walk
from nnx.lbfgs import Optimizer_LBFGS
from nnx.residual import members_of

#: Why a search ended, by `Memory.numbers[END]`.
MESSAGES = {
    lbfgs.FLAT: "converged: no element of the gradient is above gradient_tolerance",
    lbfgs.SLOW: "converged: the loss has fallen by no more than loss_tolerance",
    lbfgs.EVALUATED: "not converged: max_evaluations is reached",
    lbfgs.FAILED: "not converged: the line search has found no lower loss",
    lbfgs.NOT_FINITE: "not converged: the loss is not finite where the search begins",
}


def is_minimized(model: Network) -> bool:
    """Return whether this module trains the model."""
    return isinstance(model.optimizer, Optimizer_LBFGS)


def check_kind(job: Job) -> None:
    """Refuse an optimizer of the other kind that a callback has set: the run cannot continue with it."""
    if is_minimized(job.model) is (job.memory is None):
        must = "not become" if job.memory is None else "stay"
        raise ValueError(
            f"Model.train: the optimizer must {must} an Optimizer_LBFGS during a run, got "
            f"{type(job.model.optimizer).__name__}. Call train once with each."
        )


def check_arguments(
    where: str, model: Network, n_samples: int, batch_size: int | None, shuffles: bool, precision: str | None
) -> None:
    """Refuse arguments that need several batches, or a loss that depends on more than parameters."""
    name = type(model.optimizer).__name__
    model.optimizer._limits(where)
    check.whole(where, "iterations", model.optimizer.iterations, 0, check.MAX_COUNT)
    if batch_size is not None and batch_size < n_samples:
        raise ValueError(
            f"{where}: batch_size must be None for {name}, or no smaller than the {n_samples} samples, got "
            f"{batch_size}. Leave it out."
        )
    if shuffles:
        raise ValueError(f"{where}: shuffle must be False for {name}, which takes all samples at once. Leave it out.")
    if precision == "bfloat16":
        raise ValueError(f"{where}: precision must not be 'bfloat16' for {name}: its line search would see noise.")
    for layer in walk(model.layers):
        if isinstance(layer, Layer_Dropout | Layer_GaussianNoise):
            raise ValueError(
                f"{where}: the layers must not draw random numbers for {name}, got {abridged(layer)}. Leave it out, or "
                "choose another optimizer."
            )
    if len({id(layer) for layer in model.trainable_layers}) < len(model.trainable_layers):
        raise ValueError(f"{where}: trainable_layers must hold each layer once for {name}.")
    if not sum(values.size for values in _parameters(model)):
        raise ValueError(f"{where}: there must be parameters to train for {name}, got none.")


def new_memory(model: Network) -> Memory:
    """Return the memory of a search that has not started."""
    memory, _ = model.optimizer._limits("Model.train")
    values = _parameters(model)
    return Memory(sum(each.size for each in values), memory, np.result_type(*values))


def _parameters(model: Network) -> list[Array]:
    """Return all trained arrays, in their order within the vector of parameters."""
    return [values for layer in model.trainable_layers for values in optimizers._parameters("Model.train", layer)]


def train(job: Job, report: printing.Printer, end_epoch: EndEpoch, keep: Keep) -> None:
    """Iterate until the search ends. Record and report each iteration as a step and an epoch."""
    assert job.memory is not None
    if job.memory.vectors.shape != new_memory(job.model).vectors.shape:  # callbacks may have frozen a layer
        _begin_anew(job)
    job.model.optimizer.message = ""
    with Interrupt() as interrupt:
        if job.stops:
            divergence.check_parameters(job.model, job.done, 1)
        while not _go_on(job, job.memory, report, end_epoch, keep, interrupt):
            _begin_anew(job)
        if job.stops and not job.is_kept(job.done):
            divergence.check_parameters(job.model, job.done, 1)
        _conclude(job, job.memory, report)


def _begin_anew(job: Job) -> None:
    """Forget the loss, which may have changed, and allocate the memory for the arrays that are trained now."""
    assert job.memory is not None
    check_arguments("Model.train", job.model, len(job.data.X), None, False, job.precision)
    job.model.loss.remember_trainable_layers(job.model.trainable_layers)
    evaluations = job.memory.numbers[lbfgs.EVALUATIONS]
    job.memory = new_memory(job.model)
    job.memory.numbers[lbfgs.EVALUATIONS] = evaluations


def _go_on(
    job: Job, memory: Memory, report: printing.Printer, end_epoch: EndEpoch, keep: Keep, interrupt: Interrupt
) -> bool:
    """Do the iterations of a job. Return False if a callback changed what they are bound to."""
    way = _way(job, memory)
    seconds = 0.0
    try:
        while job.done < job.n_steps and not memory.numbers[lbfgs.END]:
            before = job.done
            n = _how_many(job, way, seconds)
            began = time.perf_counter()
            figures = way.iterate(n)
            n_done = figures.shape[1]
            seconds = (time.perf_counter() - began) / max(1, n_done)
            if not report.is_silent and n_done:
                report.run(before, 0, 1, figures, figures)
            if memory.numbers[lbfgs.END] == lbfgs.NOT_FINITE and job.stops:
                way.release()
                job.model.forward(job.data.X, training=True)
                divergence.refuse_step(job.model, job.data, job.done, 1)
            ends = memory.numbers[lbfgs.END] or job.done == job.n_steps
            if ends:
                way.publish()
            if job.looks_up and n_done:
                end_epoch(interrupt)
                if job.done == job.n_steps and not ends:  # it was stopped just now
                    way.publish()
            keep(job.done, way.sums)
            interrupt.check()
            goes_on = job.done < job.n_steps and not memory.numbers[lbfgs.END]
            if job.callbacks is not None and goes_on and way.has_changed():
                return False
        keep(job.done, way.sums, now=True)
    except KeyboardInterrupt:
        if interrupt.stopped:
            keep(job.done, way.sums, now=True)
        raise
    finally:
        way.release()
    return True


def _conclude(job: Job, memory: Memory, report: printing.Printer) -> None:
    """Set the message that says why the search ended."""
    optimizer, end = job.model.optimizer, int(memory.numbers[lbfgs.END])
    if end:
        optimizer.message = MESSAGES[end]
        job.epochs = job.done
        report.notice(f"stopped after epoch {job.done}: {optimizer.message}")
    elif job.callbacks is not None and job.callbacks.stopped is not None:
        optimizer.message = f"stopped: {job.callbacks.stopped}"
    else:
        optimizer.message = "not converged: all epochs are done"


def _how_many(job: Job, way: Layered, seconds: float) -> int:
    """Return the most iterations that the next call does."""
    if job.looks_up or not way.is_compiled:
        return 1
    n = int(plan.CALL_SECONDS / seconds) if seconds else int(4e8 / (way.operations + 1e5))
    n = min(job.n_steps - job.done, plan.MOST_STEPS, max(1, n))
    return n if job.keeper is None else min(n, job.keeper.steps_left(job.done, 1))


def _way(job: Job, memory: Memory) -> Layered:
    """Return the object that does the iterations, compiled or layer by layer."""
    if hasattr(_kernels.backend, "Minimization"):
        with suppress(program.Obstacle):
            return Compiled(job, memory)
    return Layered(job, memory)


class Layered:
    """Iterations with the layers' own methods: the objective of `lbfgs.iterate`."""

    is_compiled = False
    operations = 0

    def __init__(self, job: Job, memory: Memory) -> None:
        self.job, self.model, self.memory = job, job.model, memory
        self.limits = self.model.optimizer._limits("Model.train")[1]
        self.norms = [layer for layer in walk(self.model.layers) if isinstance(layer, Layer_BatchNorm)]
        self.penalty_scale = scale_per_sample(len(job.data.X), job.data.weights) if job.penalty_per_sample else 1.0
        self.settings = _settings(self.model)
        self.compared = job.data.for_members(members_of(job.model.layers))
        self.has_moved = False  # whether running statistics belong to a point that may be dropped
        job.history.fold()

    # For `lbfgs.iterate`

    def place(self, point: Array) -> None:
        """Set the parameters."""
        at = 0
        for values in _parameters(self.model):
            values[...] = point[at : at + values.size].reshape(values.shape)
            at += values.size

    def evaluate(self) -> lbfgs.Value:
        """Return loss and gradient at the current parameters."""
        model, data = self.model, self.compared
        self._undo()
        with precision.of_products(None):
            output = model.forward(data.X, training=True)
        self.has_moved = True
        model.loss.new_pass()
        model.accuracy.new_pass()
        model.loss.calculate(output, data.y, **data.weighing)
        loss, penalty = map(float, model.loss.calculate_accumulated(include_regularization=True))
        penalty *= self.penalty_scale
        if not math.isfinite(loss + penalty):
            return lbfgs.Value(loss, penalty, math.nan, None)
        predictions = layerwise._predictions(model, output)
        accuracy = float(model.accuracy.calculate(predictions, data.y_accuracy, **data.weighing))
        with precision.of_products(None), penalties_times(self.penalty_scale):
            model.backward(output, data.y, **data.weighing)
        return lbfgs.Value(loss, penalty, accuracy, self._gradient())

    def accept(self) -> None:
        """Make batch norms keep the running statistics of this point."""
        self.has_moved = False

    def _gradient(self) -> Array:
        """Return the gradients of all parameters as one vector."""
        where = "Model.train"
        found = [
            optimizers._gradient(where, layer, optimizers.GRADIENTS[i], values).reshape(-1)
            for layer in self.model.trainable_layers
            for i, values in enumerate(optimizers._parameters(where, layer))
        ]
        return np.concatenate(found).astype(self.memory.vectors.dtype, copy=False)

    def _undo(self) -> None:
        if self.has_moved:
            for layer in self.norms:
                layer._undo_forward()
        self.has_moved = False

    # For `train`

    def iterate(self, n: int) -> Array:
        """Do an iteration. Return its figures, (5, 1), or (5, 0) if it found nothing."""
        memory, numbers = self.memory, self.memory.numbers
        point = np.concatenate([values.reshape(-1) for values in _parameters(self.model)])
        with np.errstate(all="ignore"):  # the search may try points far away
            lbfgs.start(memory, self.limits, self, point.astype(memory.vectors.dtype, copy=False))
            found = not numbers[lbfgs.END] and lbfgs.iterate(memory, self.limits, self)
        self._undo()
        names = [lbfgs.LOSS, lbfgs.DATA_LOSS, lbfgs.PENALTY, lbfgs.ACCURACY, lbfgs.STEP]
        figures = numbers[names][:, None] if found else np.empty((5, 0))
        _record(self.job, self.memory, figures)
        return figures

    def sums(self) -> tuple[float, ...]:
        """Return the sums of losses and hits at the latest point, and their counts."""
        return layerwise._sums(self.job)

    def publish(self) -> None:
        """Set the layers' attributes to their values at the point where the search ended."""
        self.evaluate()
        self._undo()

    def has_changed(self) -> bool:
        """Return whether a callback has changed more than parameters. Each iteration compares those itself."""
        return _settings(self.model) != self.settings

    def release(self) -> None:
        """Release all arrays."""


def _settings(model: Network) -> list[tuple[int, str, Any]]:
    """Return what the loss and the search depend on, beside parameters, in built-in parts."""
    parts = [model.loss, model.optimizer, *walk(model.layers)]
    found = [
        (id(part), name, id(value) if isinstance(value, np.ndarray) else value)
        for part in parts
        for name in getattr(part, "_arguments", ())
        for value in [getattr(part, name, None)]
    ]
    return found + [(id(layer), "trained", True) for layer in model.trainable_layers]


def _record(job: Job, memory: Memory, figures: Array, *others: partial[Any]) -> None:
    """Record iterations everywhere at once, with all other changes, so that no signal comes between."""
    optimizer, n = job.model.optimizer, figures.shape[1]
    calls = [
        partial(setattr, optimizer, "evaluations", int(memory.numbers[lbfgs.EVALUATIONS])),
        partial(setattr, optimizer, "iterations", optimizer.iterations + n),
        partial(setattr, job, "done", job.done + n),
        *others,
    ]
    if n:
        calls.append(job.history.adding(figures, figures))
        for layer in job.model.trainable_layers:
            calls += optimizers.forgetting_averages(layer)
    at_once(calls)


class Compiled(Layered):
    """Many iterations in one compiled call.

    Raises
    ------
    Obstacle
        If anything in the model is not exactly built in.
    """

    is_compiled = True

    def __init__(self, job: Job, memory: Memory) -> None:
        super().__init__(job, memory)
        self.figures: Array | None = None  # of a compiled call that is not recorded yet
        self.program = made = program.lower(job.model)
        self.native = _kernels.backend.Minimization(  # type: ignore[attr-defined]
            made.dtype, made.stages, made.loss._kernel, made.combined, made.guards, False
        )
        data, where = job.data, "Model.train"
        accurate = plan.Accurate(made.accuracy, made.loss, made.stages, made.combined, data)
        compared = (accurate.wanted, accurate.threshold, accurate.classes, accurate.precision, accurate.answers)
        settings = made.loss._settings(where, made.stages[-1].n_out)
        if not self.native.bind(made.owners, made.trained, made.optimizer._rule(), where, optimizers._state):
            raise program.Obstacle("arrays share memory, or have changed")
        if not self.native.bind_data(data.X, data.y, settings, *compared, data.weights):
            raise program.Obstacle("the samples share memory with a parameter")
        if not self.native.search_for(self.memory.vectors, self.memory.numbers, self.limits):
            raise program.Obstacle("the parameters are not those of the search")
        if job.callbacks is not None:
            optimizer = made.optimizer
            plan.watch(
                self.native, made, (), [(optimizer, name, getattr(optimizer, name)) for name in optimizer._arguments]
            )

    def iterate(self, n: int) -> Array:
        """Do up to ``n`` iterations. Return their figures, (5, iterations)."""
        threads = plan.threads_that_pay(self.program, len(self.job.data.X), n, self.job.threads)
        self.figures, _ = self.native.iterate(n, threads, self.penalty_scale)
        plan.run_threads(self.native, threads)
        return self._settle()

    def _settle(self) -> Array:
        """Record the iterations of the latest compiled call. After an exception, `release` calls this."""
        assert self.figures is not None
        found: Array = self.figures[:, : self.native.steps_done]
        _record(self.job, self.memory, found, partial(setattr, self, "figures", None))
        return found

    def sums(self) -> tuple[float, ...]:
        """Return the sums of losses and hits at the latest point, and their counts."""
        found: tuple[float, ...] = self.native.sums()
        return found

    def publish(self) -> None:
        """Set the layers' attributes to their values at the point where the search ended."""
        X = self.job.data.X
        threads = plan.threads_that_pay(self.program, len(self.job.data.X), 1, self.job.threads)
        self.native.iterate(0, threads, self.penalty_scale)
        room = self.native.room(len(X), X, [])
        plan.run_threads(self.native, threads)
        self.model.input_layer.output = X
        for owner, name, value in plan.stored(self.program, self.native, room):
            owner[name] = value
        loss, accuracy = self.program.loss, self.program.accuracy
        sums = self.native.sums()[:4]
        loss.accumulated_sum, loss.accumulated_count, accuracy.accumulated_sum, accuracy.accumulated_count = sums

    def has_changed(self) -> bool:
        """Return whether an object, an array or a setting was replaced since it was bound."""
        changed: bool = self.native.has_changed(self.model)
        return changed

    def release(self) -> None:
        """Release all arrays."""
        if self.figures is not None:
            self._settle()
        self.native.release()
