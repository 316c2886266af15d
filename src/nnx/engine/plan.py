"""Plans: compiled runs of programs. A plan is bound to arrays, and does many steps in one call, on one or more threads.

`training.py` asks this module first. If there is no plan, it takes another way (`segments.py`, `layerwise.py`). Results
do not depend on the number of threads or on the number of steps per call, bit for bit.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from nnx import _kernels, optimizers
from nnx._base import check, precision, printing
from nnx._base.helpers import join, start
from nnx._base.interrupt import Interrupt
from nnx._base.network import Network
from nnx._base.typing import Array
from nnx.accuracy import Accuracy_Categorical, Accuracy_Regression
from nnx.embedding import columns_of_categories
from nnx.engine import divergence, program
from nnx.engine.history import History
from nnx.engine.job import Data, EndEpoch, Job, Keep
from nnx.errors import RankError

if TYPE_CHECKING:
    from nnx.callbacks import EarlyStopping

#: The approximate time of a compiled call. Between calls, Ctrl-C takes effect and figures are shown.
CALL_SECONDS = 0.05
#: The longest time that a call waits for threads that it has started.
START_SECONDS = 0.02
#: The most steps of one call.
MOST_STEPS = 1 << 14
#: The most sample numbers that are put in order for one call.
MOST_IN_ORDER = 1 << 21
#: The operations of a step, and of a call, from which on a second thread may pay. Two barriers cost two microseconds,
#: and starting a thread costs a hundred. 0 uses all allowed threads for steps of any size.
LEAST_STEP = 2_000_000
LEAST_CALL = 50_000_000
#: The cost of threads, in operations: a number that one thread writes and another reads, and a thread at the barriers.
MOVED_NUMBER = 125
AT_MEETINGS = 16_000
#: The least expected speed-up of a step. The formula is often wrong by a tenth.
LEAST_GAIN = 1.1
#: The inputs or outputs of a layer whose arrays are too narrow to matter. The rows of a batch from which on other
#: layers exchange gradients, not rows (`partial_gradients.pxi`). The most weights of such a layer.
NARROW, GROUPED_ROWS, GROUPED_WEIGHTS = 4, 896, 1 << 13
#: The most layers of a model that predicts as a plan.
MOST_STAGES = 64
#: The attributes that layers get from a last step. The bytes from which on their memory is used again.
STORED = ("inputs", "output", "dinputs", "dweights", "dbiases", "binary_mask", "noise")
#: A model with one of these stages has no fast path for repeated single steps.
UNREPEATED = (
    *("batch_norm", "layer_norm", "scale", "embedding", "spline", "gaussian_noise", "fork", "join"),
    *("piecewise_linear", "thermometer", "combinations", "periodic", "members", "member_scale", "member_dense"),
)
WORTH_KEEPING = 1 << 17
#: The fewest rows of a batch that a thread takes.
LEAST_ROWS = 16


class Accurate:
    """The comparison of the accuracy, as the kernels take it.

    Attributes
    ----------
    wanted : float64 array (n,) or (n, m), or None
        The targets. None if they are the loss's own class numbers.
    threshold, classes : bool
        Whether predictions are outputs above a half, or the column of the largest output.
    precision : float
        How near a prediction must come. −1 means that it must be equal.
    answers : tuple
        The distance between columns that are predictions, and the first of them; the limit above which an output is 1,
        not 0; whether outputs are logarithms.
    """

    def __init__(self, accuracy: Any, loss: Any, stages: tuple[program.Stage, ...], combined: bool, data: Data) -> None:
        if data.X.ndim != 2 or data.X.shape[1] != stages[0].n_in:
            raise program.Obstacle(f"the samples do not have {stages[0].n_in} columns")
        n_out, predicts = stages[-1].n_out, getattr(stages[-1].owner, "_predicts", "")
        self.threshold = predicts == "binary"
        self.classes = predicts == "classes"
        self.precision = -1.0
        self.wanted: Array | None = None
        made = program.answers_to(accuracy, loss, stages[-1].owner)
        self.answers = (made.every, made.begin, 0.0 if made.signs else 0.5, made.exponential)
        shape: tuple[int, ...] = (len(data.X),) if self.classes else (len(data.X), n_out // made.every)
        where = f"{type(accuracy).__name__}.compare"
        if self.classes and combined and type(accuracy) is Accuracy_Categorical and not accuracy.binary:
            return
        y = check.plain(where, "y", data.y_accuracy)
        if type(accuracy) is Accuracy_Regression:
            precision = accuracy.precision
            if precision is None:
                raise program.Obstacle("the accuracy has no precision yet")
            self.precision = float(check.number(where, "precision", precision, 0))
        elif not accuracy.binary:
            if y.ndim == 2 and y.shape[1] > 1:
                y = check.one_hot(f"{where} (pass binary=True to compare elements)", "y", y)
            if y.ndim == 2:
                y = y[:, 0]
            self.classes = self.classes or n_out > 1
            shape = (len(data.X),) if self.classes else (len(data.X), 1)
        if made.signs:
            self.threshold = bool(accuracy.binary) or n_out == 1
        self.wanted = np.array(check.shaped(where, "y", y, shape), np.float64, order="C")

    def compares_with_targets(self, loss: Any) -> bool:
        """Return whether outputs are compared with the loss's own targets or class numbers, unchanged."""
        if self.wanted is None:
            return True
        plain = self.precision >= 0 and not self.threshold and not self.classes
        return plain and loss._predicts == "numbers" and loss._compares_as_given


def explain(model: Network, bfloat16: bool, otherwise: str) -> str:
    """Return text: whether a model trains as a plan, which object prevents it, and how bfloat16 products run.

    ``otherwise`` says how it trains without a plan. If it is "", the model trains layer by layer.
    """
    by_layers = "It trains layer by layer"
    if bfloat16:
        by_layers += (
            ", with bfloat16 products by conversion, no faster than float32: only compiled layers use matrix units"
        )
    if not _has_plans():
        return f"No plan: the backend {_kernels.name} has none. {by_layers}."
    try:
        program.lower(model)
    except program.Obstacle as obstacle:
        return f"No plan: {obstacle}. {otherwise or by_layers}."
    products = f", with bfloat16 products {precision.how_bfloat16_runs()}" if bfloat16 else ""
    return f"It trains as a plan, many steps in one compiled call, on {_kernels.name}{products}."


def _has_plans() -> bool:
    return hasattr(_kernels.backend, "Plan")


# Training


def train(job: Job, report: printing.Printer, end_epoch: EndEpoch, keep: Keep) -> bool:
    """Train for some epochs. Return False if the model has no plan, or no plan any more after ``job.done`` steps."""
    if not _has_plans():
        return False
    with Interrupt() as interrupt:
        while True:
            try:
                run = Run(job)
            except program.Obstacle:
                return False
            if _finish(run, report, end_epoch, keep, interrupt):
                break
            job.done, job.sums = run.done, run.sums
    if report.is_silent and job.callbacks is None and job.ranks is None:
        job.model._again = run.repeat()
    return True


def _finish(run: Run, report: printing.Printer, end_epoch: EndEpoch, keep: Keep, interrupt: Interrupt) -> bool:
    """Do the steps of a run. Return False if a callback changed what it is bound to: another run must continue."""
    job = run.job
    try:
        run.check_parameters()
        while run.done < job.n_steps:
            if job.order.asks and run.must_bind_anew():
                return False
            if not (report.is_silent and run.do_epochs()):
                run.go_on(report)
                if run.looks_up and run.done % run.n_batches == 0:
                    end_epoch(interrupt, run.add_up)
            if run.looks_up and run.done == job.n_steps:  # it may have been stopped just now
                run.publish_last()
            keep(run.done, run.native.sums)
            interrupt.check()
            if job.callbacks is not None and run.done < job.n_steps and run.has_changed():
                return False
        if not job.is_kept(run.done):
            run.check_parameters()
        keep(run.done, run.native.sums, now=True, checked=True)
    except (KeyboardInterrupt, RankError) as error:
        if interrupt.stopped or isinstance(error, RankError):
            keep(run.done, run.native.sums, now=True)
        raise
    finally:
        run.settle()
    return True


class Run:
    """One call of `Model.train`: its plan and its progress."""

    def __init__(self, job: Job) -> None:
        self.job, self.model, self.data, self.held_out, self.order = job, job.model, job.data, job.held_out, job.order
        model, data, order = job.model, job.data, job.order
        self.program, self.native = planned(model, job.precision == "bfloat16")
        self.n_samples = len(data.X)
        self.batch, self.n_batches, self.n_steps = job.rows, job.n_batches, job.n_steps
        self.done = self.begun = job.done
        self.looks_up = job.looks_up
        self.published: list[tuple[dict[str, Any], str, Any]] = []  # left by the last step: object, attribute, value
        self.seconds = 0.0  # of a step, as measured last
        self.epoch_seconds = 0.0  # of an epoch and the work after it, if a call does several
        self.evaluation: Evaluation | None = None
        self.figures: tuple[Array, Array] | None = None  # of a compiled call that is not recorded yet
        self.unconcluded: Epochs | None = None  # of a compiled call whose validations are not recorded yet
        stages = self.program.stages
        self.dropouts = tuple(stage.owner for stage in stages if stage.kind in program.RANDOM)
        #: This process's rows of a batch.
        self.rows = self.batch if job.ranks is None else job.ranks.rows_of_step(self.batch)
        self.operations = self.rows * self.program.operations
        accurate = Accurate(self.program.accuracy, self.program.loss, stages, self.program.combined, data)
        self.judges_simply = accurate.compares_with_targets(self.program.loss)
        where = "Model.train"
        optimizer = self.program.optimizer
        rule = optimizer._rule()
        if job.ranks is not None:
            rule = job.ranks.collecting(rule)
        self.iterations = check.whole(where, "iterations", optimizer.iterations, 0, check.MAX_COUNT) - self.done
        if order.shuffles:
            order.take_seed()  # before dropout takes any, as the book path does
        self.decay = check.number(where, "decay", optimizer.decay, 0)
        self.changes_rate = optimizer.schedule is not None or bool(self.decay)
        self.first_rate = check.number(where, "learning_rate", optimizer.learning_rate, 0) if self.changes_rate else 0.0
        self.rate = optimizer.current_learning_rate if self.changes_rate else optimizer._checked_rate(where)
        loss_settings = self.program.loss._settings(where, stages[-1].n_out)
        try:
            if not self.native.bind(self.program.owners, self.program.trained, rule, where, optimizers._state):
                model._plan = None
                raise program.Obstacle("arrays share memory, or have changed")
            bound = self.native.bind_data(
                data.X,
                data.y,
                loss_settings,
                accurate.wanted,
                accurate.threshold,
                accurate.classes,
                accurate.precision,
                accurate.answers,
                data.weights,
            )
            if not bound:
                raise program.Obstacle("the samples share memory with a parameter")
            if job.ranks is not None:
                self.native.exchange_with(job.ranks.rank, job.ranks.size, job.ranks.add_up)
            self.native.resume(*job.sums)
        except BaseException:
            self.native.release()
            raise
        if job.callbacks is not None or order.asks:
            self._remember()

    # Several epochs in one compiled call

    def do_epochs(self) -> bool:
        """Do several epochs and the work after each, as `go_on` would. Return whether it did.

        It declines if Python code has to run after an epoch. It leaves the run's last epoch to `go_on`, which stores
        the layers' attributes.
        """
        n = self._how_many_epochs()
        epochs = self._epochs() if n > 1 else None
        if epochs is None:
            return False
        called = self.done // self.n_batches
        self.figures, _ = self._prepare(self.done, n * self.n_batches, 0, False, keeps=True)
        began = time.perf_counter()
        self.unconcluded = epochs
        if not epochs.native.run(n, called):
            self.figures = self.unconcluded = None
            return False
        self.epoch_seconds = (time.perf_counter() - began) / max(1, epochs.native.done)
        steps, _ = self.record()
        self._conclude()
        if not epochs.native.has_stopped and steps.shape[1] < n * self.n_batches:
            self.diverge()
        return True

    def _conclude(self) -> None:
        """Record, once, the results of several epochs in one compiled call."""
        epochs, self.unconcluded = self.unconcluded, None
        if epochs is not None:
            epochs.conclude(self)

    def _how_many_epochs(self) -> int:
        """Return how many whole epochs the next call may do. Fewer than 2 are not worth a separate call."""
        job, n_batches = self.job, self.n_batches
        if not self.looks_up or self.done % n_batches or self.order.asks or job.keeper is not None or job.ranks:
            return 0
        n = int(CALL_SECONDS / self.epoch_seconds) if self.epoch_seconds else 2
        n = min(n, (self.n_steps - self.done) // n_batches - 1, MOST_STEPS // n_batches)
        if self.order.shuffles:
            n = min(n, max(1, MOST_IN_ORDER // self.n_samples))
        return n if n < 2 or threads_that_pay(self.program, self.batch, n * n_batches, self.job.threads) == 1 else 0

    def _epochs(self) -> Epochs | None:
        """Return the object for compiled validation and early stopping; None if Python code has to do them."""
        called = self.job.callbacks
        stopping = None if called is None else called.only_stopping()
        if called is not None and stopping is None:
            return None
        if self.held_out is not None and not self._can_evaluate():
            return None
        return Epochs.of(self, stopping)

    def _can_evaluate(self) -> bool:
        """Return whether the held-out rows can be evaluated in the same compiled call."""
        data = self.held_out
        assert data is not None
        found = self._evaluation_of(data)
        return (
            found is not None
            and found.step >= found.n_batches
            and not found.native.normalizes
            and (data.weights is None or bool(data.weights.any()))
        )

    # One compiled call

    def go_on(self, report: printing.Printer) -> None:
        """Do as many steps as fit into a compiled call. Record and report them."""
        epoch, in_epoch = divmod(self.done, self.n_batches)
        ranks = self.job.ranks
        n = self._how_many(in_epoch) if ranks is None else ranks.first_says(self._how_many(in_epoch))
        last = self.done + n == self.n_steps
        self.figures, threads = self._prepare(self.done, n, in_epoch, last)
        if ranks is not None:
            ranks.agree(None)
        began = time.perf_counter()
        run_threads(self.native, threads)
        self.seconds = (time.perf_counter() - began) / n
        steps, ends = self.record()
        if steps.size and not report.is_silent:
            report.run(epoch, in_epoch, self.n_batches, steps, ends, None if self.changes_rate else self.rate)
        if steps.shape[1] < n:
            self.diverge()
        if last:
            self._publish()

    def record(self) -> tuple[Array, Array]:
        """Record the steps of the latest compiled call. Return their figures, and the figures of epochs.

        Counts and history change together. If an exception comes before that, `settle` calls this again.
        """
        assert self.figures is not None
        steps, ends = self.figures
        whole = self.native.steps_done
        done = self.done + whole
        if whole < steps.shape[1]:
            steps, ends = steps[:, :whole], ends[:, : done // self.n_batches - self.done // self.n_batches]
        self.native.record(
            vars(self),
            vars(self.program.optimizer),
            self.dropouts,
            self.job.history.adding(steps, ends),
            done,
            self.iterations + done,
            float(steps[4, -1]) if self.changes_rate and whole else None,
        )
        return steps, ends

    def check_parameters(self) -> None:
        """Refuse parameters that are not finite."""
        if self.job.stops and not self.native.is_finite():
            divergence.refuse_parameters(self.model, *self.job.counted(self.done))

    def diverge(self) -> NoReturn:
        """Repeat the forward of the step that found a value that is not finite, and say where it is."""
        epoch, step = divmod(self.done, self.n_batches)
        order = self.order.draw(epoch + 1, self.n_samples)
        batch = next(self.data.batches(self.job.batch_size, order, step))
        with np.errstate(all="ignore"), precision.of_products(self.job.precision):
            self.model.forward(batch.X, training=True)
        divergence.refuse_step(self.model, batch, *self.job.counted(self.done))

    # Steps that a group does (`together.py`)

    def steps_at_once(self) -> int:
        """Return how many steps the next call does, without the run's last one."""
        return min(self._how_many(self.done % self.n_batches), self.n_steps - 1 - self.done)

    def begin(self, n: int) -> None:
        """Prepare a number of steps, which `record` records."""
        self.figures, _ = self._prepare(self.done, n, self.done % self.n_batches, False)

    def _how_many(self, in_epoch: int) -> int:
        """Return how many steps the next call does."""
        left = self.n_steps - self.done
        if left == 1 or (self.looks_up and in_epoch == self.n_batches - 1):
            return 1
        n = int(CALL_SECONDS / self.seconds) if self.seconds else int(4e8 / (self.operations + 1e5))
        n = min(left, MOST_STEPS, max(1, n))
        if self.job.keeper is not None:
            n = min(n, self.job.keeper.steps_left(self.done, self.n_batches))
        if self.looks_up or self.order.asks:
            n = min(n, self.n_batches - in_epoch)
        elif self.order.shuffles:
            n = min(n, max(1, MOST_IN_ORDER // self.n_samples) * self.n_batches - in_epoch)
        return n

    def _prepare(
        self, done: int, n: int, in_epoch: int, last: bool, keeps: bool = False
    ) -> tuple[tuple[Array, Array], int]:
        """Prepare ``n`` steps after ``done`` ones. Return the array for their figures, and the number of threads."""
        orders = None
        if self.order.shuffles:
            n_epochs = (in_epoch + n - 1) // self.n_batches + 1
            orders = self.order.draw_some(done // self.n_batches + 1, n_epochs, self.n_samples)
        threads = threads_that_pay(self.program, self.rows, n, self.job.threads)
        figures: tuple[Array, Array] = self.native.prepare(
            self.batch,
            n,
            last,
            in_epoch,
            self._rates(done, n),
            orders,
            self.iterations + done,
            done - self.begun,
            threads,
            self.job.stops,
            keeps or (self.job.callbacks is not None and in_epoch + n == self.n_batches),
            self.job.penalty_per_sample,
        )
        if last:
            self._make_room(orders, in_epoch, n)
        return figures, threads

    def _rates(self, done: int, n: int) -> Any:
        """Return the learning rate of each step, as `pre_update_params` computes it."""
        if not self.changes_rate:
            return self.rate
        if n == 1 and self.program.optimizer.schedule is None:  # as `_rates` does; its checks cost more than the rest
            return self.first_rate * (1.0 / (1.0 + self.decay * (self.iterations + done)))
        return self.program.optimizer._rates("Model.train", self.iterations + done, n)

    # What the last step leaves behind

    def _make_room(self, orders: Array | None, in_epoch: int, n: int) -> None:
        """Allocate the arrays that store the last batch's values."""
        start, end = (self.n_batches - 1) * self.batch, self.n_samples
        if self.job.ranks is not None:
            mine = self.job.ranks.part(end - start)
            start, end = start + mine.first, start + mine.end
        if orders is None:
            self.inputs = self.data.X[start:end]
        else:
            self.inputs = self.data.X[orders[-1, start:end]]
        self.room = self.native.room(len(self.inputs), self.inputs, self._unneeded())

    def _unneeded(self) -> list[Array]:
        """Return large arrays that an earlier run stored for this model and that have no other reference."""
        width = max(stage.n_out for stage in self.program.stages)
        if len(self.inputs) * self.program.members[-1] * width * self.program.dtype.itemsize < WORTH_KEEPING:
            return []
        parts = [
            *self.program.owners,
            self.program.loss,
            *([self.program.classifier] if self.program.classifier else []),
        ]
        found = [v for part in parts for name, v in vars(part).items() if name in STORED and type(v) is np.ndarray]
        unneeded: list[Array] = self.native.unshared(found)
        return unneeded

    def _publish(self) -> None:
        """Set the attributes that layers and loss have after the last step of the book path."""
        self.model.input_layer.output = self.inputs
        left = stored(self.program, self.native, self.room)
        for owner, name, value in left:
            owner[name] = value
        self.published = left

    def publish_last(self) -> None:
        """Repeat the last step, unchanged, to set the attributes that it leaves. Nothing else changes.

        A callback stopped the run after this step, so the step did not know that it was the last. Storing these
        attributes at the end of every epoch would cost more than the epochs of a small network.
        """
        if self.published:
            return
        sums = self.native.sums()
        try:
            self.native.step_back()
            _, threads = self._prepare(self.done - 1, 1, self.n_batches - 1, True)
            if self.job.ranks is not None:
                self.job.ranks.agree(None)
            run_threads(self.native, threads)
        finally:
            self.native.return_to()
            self.native.resume(*sums)
        self._publish()

    def add_up(self, interrupt: Interrupt | None) -> bool:
        """Add up losses and hits of the held-out rows. Return False if Python code has to do it."""
        assert self.held_out is not None
        found = self._evaluation_of(self.held_out)
        return found is not None and found.add_up(interrupt)

    def _evaluation_of(self, data: Data) -> Evaluation | None:
        """Return the object that evaluates the model on the held-out rows, made once; None without a plan."""
        if self.evaluation is None:
            try:
                self.evaluation = Evaluation(self.model, data, self.job.batch_size, self.job.threads)
            except program.Obstacle:
                return None
        return self.evaluation

    # Changes by callbacks

    @property
    def sums(self) -> tuple[float, int, float, int, float]:
        """The epoch's sums: losses, their count, hits, their count, penalties."""
        sums: tuple[float, int, float, int, float] = self.native.sums()
        return sums

    def _remember(self) -> None:
        """Remember everything that was read from the model's objects, for `has_changed`."""
        counting = (self.program.optimizer, *self.dropouts)
        watch(self.native, self.program, counting, [])

    def has_changed(self) -> bool:
        """Return whether an object, an array or a setting was replaced since this run was bound.

        New values within arrays do not matter: each compiled call reads them anew.
        """
        changed: bool = self.native.has_changed(self.model)
        return changed

    def must_bind_anew(self) -> bool:
        """Get the order of the next epoch from the user's function. Return whether that code changed what is bound."""
        self.order.draw(self.done // self.n_batches + 1, self.n_samples)
        return self.has_changed()

    def repeat(self) -> Any:
        """Return an object that repeats this call as a single compiled one, if it is one small step; else None."""
        program = self.program
        if (
            self.n_steps > 1
            or self.done == self.begun
            or self.order.shuffles
            or self.held_out is not None
            or self.operations >= LEAST_STEP
            or not _kernels.backend.counts_references  # type: ignore[attr-defined]
        ):
            return None
        if program.stages[0].kind != "dense" or not self.judges_simply:
            return None
        if any(stage.kind in UNREPEATED for stage in program.stages):
            return None
        inputs = self.inputs
        published = [each for each in self.published if each[2] is not inputs]
        history = functools.partial(History, self.job.history.is_regression)
        most_rows = (LEAST_STEP - 1) // program.operations
        refuse = divergence.refuse_parameters
        return _kernels.backend.Repeat(  # type: ignore[attr-defined]
            self.native, program, most_rows, self.model.input_layer, published, history, _kernels, refuse
        )

    def settle(self) -> None:
        """Write counts, history and sums of the last whole step back, and release the arrays."""
        if self.figures is not None:
            self.record()
        self._conclude()
        if self.held_out is None and self.done > self.begun:
            loss, accuracy = self.program.loss, self.program.accuracy
            (loss.accumulated_sum, loss.accumulated_count, accuracy.accumulated_sum, accuracy.accumulated_count) = (
                self.sums[:4]
            )
        self.native.release()


class Epochs:
    """Validation and early stopping, for a plan that does several epochs in one compiled call."""

    def __init__(self, native: Any, stopping: EarlyStopping | None, kept: dict[str, Array]) -> None:
        self.native, self.stopping, self.kept = native, stopping, kept

    @classmethod
    def of(cls, run: Run, stopping: EarlyStopping | None) -> Epochs | None:
        """Return it for a run; None if compiled code cannot copy the parameters."""
        evaluation = None if run.evaluation is None else run.evaluation.native
        if stopping is None:
            return cls(_kernels.backend.Epochs(run.native, evaluation, None, []), None, {})  # type: ignore[attr-defined]
        from nnx.callbacks import learnt

        arrays = learnt(run.model) if stopping.restore_best else {}
        if not all(array.flags.carray for array in arrays.values()):
            return None
        kept = {name: stopping.place_for(name, array) for name, array in arrays.items()}
        native = _kernels.backend.Epochs(  # type: ignore[attr-defined]
            run.native, evaluation, stopping.as_compared(), [(arrays[name], kept[name]) for name in arrays]
        )
        return cls(native, stopping, kept)

    def conclude(self, run: Run) -> None:
        """Record each epoch's validation, and give the callbacks the state that calls would have led to."""
        native, job = self.native, run.job
        if run.evaluation is not None and native.done:
            run.evaluation.enter(native.sums)
            job.history.add_validations(native.validations[: native.done])
        if self.stopping is not None:
            self.stopping.take(native.best, native.best_epoch, native.wait)
            if native.has_improved:
                self.stopping.keep(self.kept)
        if job.callbacks is not None and native.done:
            job.callbacks.have_been_called(job, native.done, native.has_stopped)


def stored(made: program.Program, native: Any, room: Any) -> list[tuple[dict[str, Any], str, Any]]:
    """Return the attributes that the last step of a plan stored in its ``room``: object, name and value."""
    found: list[tuple[dict[str, Any], str, Any]] = native.stored_in(room, made.owners)
    if not made.combined:
        found.append((vars(made.loss), "dinputs", room[-1]["dvalues"]))
    elif made.classifier is not None:
        found.append((vars(made.classifier), "dinputs", room[-1]["dinputs"]))
    return found


def watch(native: Any, made: program.Program, counting: tuple[Any, ...], settings: list[tuple[Any, str, Any]]) -> None:
    """Let a plan remember what was read from a model's objects.

    This includes the counts of steps, and further ``settings``: object, name and value.
    """
    loss, accuracy = made.loss, made.accuracy
    settings += [(loss, name, getattr(loss, name)) for name in loss._arguments]
    settings += [(accuracy, name, getattr(accuracy, name, None)) for name in ("precision", "binary")]
    owners = {id(layer): layer for layer in made.owners}.values()
    fixed = [vars(layer) for layer in owners if not any(layer is each for each in counting)]
    native.watch(fixed, [*map(vars, counting)], tuple(settings))


def planned(model: Network, bfloat16: bool) -> tuple[program.Program, Any]:
    """Return a model's program and its plan: the previous ones, if nothing has changed since."""
    kept: tuple[program.Program, Any] | None = model._plan
    if kept is not None and _still_holds(model, kept[1]) and kept[1].bfloat16 is bfloat16:
        return kept
    lowered = program.lower(model)
    native = _kernels.backend.Plan(  # type: ignore[attr-defined]
        lowered.dtype, lowered.stages, lowered.loss._kernel, lowered.combined, lowered.guards, bfloat16
    )
    model._plan = (lowered, native)
    return lowered, native


def known(model: Network) -> program.Program | None:
    """Return the program that a model had the last time, if nothing has changed since."""
    kept: tuple[program.Program, Any] | None = model._plan
    return kept[0] if kept is not None and _has_plans() and _still_holds(model, kept[1]) else None


def _still_holds(model: Network, native: Any) -> bool:
    backend: Any = _kernels.backend
    return type(native) is backend.Plan and native.holds(model)


def threads_that_pay(made: program.Program, rows: int, n_steps: int, most: int) -> int:
    """Return the number of threads for the fastest steps. Each thread does its share, and reads what the others wrote.

    docs/internals/plan.md, "What a second thread costs", has the formula, and measured times beside it.
    """
    operations = rows * made.operations
    if most == 1 or operations < LEAST_STEP or operations * n_steps < LEAST_CALL:
        return 1
    most = max(1, min(most, rows * made.members[-1] // LEAST_ROWS))
    if not LEAST_STEP or most == 1:
        return most
    fixed, shared = _moved(made, rows)

    def cost(threads: int) -> float:
        moved = (threads - 1) / threads * (fixed + shared / threads)
        return operations / threads + MOVED_NUMBER * moved + AT_MEETINGS * threads

    best = min(range(2, most + 1), key=cost)
    return best if cost(best) * LEAST_GAIN <= operations else 1


def _moved(made: program.Program, rows: int) -> tuple[int, int]:
    """Return how many numbers of a step a thread reads from all threads, and how many it shares with them.

    These are weights, for the output and for the gradient of the inputs; all columns of the gradient of the output; and
    those columns of the inputs that belong to the weights that it updates.
    """
    fixed = shared = 0
    stages = zip(made.stages, made.members, strict=True)
    dense = [(rows * members, stage.n_in, stage.n_out) for stage, members in stages if stage.kind == "dense"]
    for number, (own_rows, n_in, n_out) in enumerate(dense):
        if min(n_in, n_out) <= NARROW:
            continue
        fixed += n_in * n_out * (1 + (number > 0))
        if own_rows > GROUPED_ROWS and n_in * n_out <= GROUPED_WEIGHTS:
            fixed += n_in * n_out
        else:
            fixed += own_rows * n_out
            shared += own_rows * n_in
    return fixed, shared


def run_threads(native: Any, n_threads: int) -> int:
    """Run a plan's threads, the caller's first, until all are done. Return the number of steps done.

    If the system does not start a thread, or it fails before compiled code, the others do its work. The result is the
    same, bit for bit.
    """
    if n_threads == 1:
        alone: int = native.lead()
        return alone
    helpers: list[threading.Thread] = []
    try:
        start(helpers, n_threads - 1, native.work, native.run)
        _await(native, helpers)
        done: int = native.lead()
    except BaseException:
        native.dismiss()
        raise
    finally:
        join(helpers)
    return done


def _await(native: Any, helpers: list[threading.Thread]) -> None:
    """Wait a moment until the threads reach compiled code. Some may fail before, or be delayed."""
    end = time.monotonic() + START_SECONDS
    while native.waiting() < sum(helper.is_alive() for helper in helpers) and time.monotonic() < end:
        time.sleep(0)


# Prediction and evaluation


def predict(model: Network, X: Array, threads: int | None, apart: bool = False) -> Array | None:
    """Return the outputs for checked samples; None if there is no plan for the model.

    If ``apart``, return the outputs of each member, (n, members · outputs), instead of the mean.
    """
    inference = _inference(model)
    if inference is None:
        return None
    output: Array | None = inference.predict(model, X, threads, apart)
    if output is None:
        model._inference = None
    return output


class Evaluation:
    """Samples on which a model is evaluated any number of times, checked and cast once.

    Raises
    ------
    Obstacle
        If there is no plan for the model.
    """

    def __init__(self, model: Network, data: Data, batch_size: int | None, threads: int) -> None:
        inference = _inference(model)
        if inference is None:
            raise program.Obstacle("there is no plan")
        self.loss, self.accuracy, self.threads = model.loss, model.accuracy, threads
        program.check_judges(model)
        stages = program.stages(model)
        members = program.rows_of_a_sample(stages)
        combined = program.is_combined(stages, self.loss) and members[-1] == 1  # means are of the last layer's outputs
        settings = self.loss._settings("Model.evaluate", stages[-1].n_out)
        accurate = Accurate(self.accuracy, self.loss, stages, combined, data)
        batch = min(batch_size or len(data.X), len(data.X))
        self.n_batches = data.n_batches(batch_size)
        #: Batches of a compiled call. Between calls, Ctrl-C takes effect.
        self.step = max(1, int(1e9 / (batch * members[-1] * sum(stage.n_in * stage.n_out for stage in stages))))
        self.native = inference.evaluation(
            data.X,
            data.y,
            (self.loss._kernel, *settings),
            accurate.wanted,
            accurate.threshold,
            accurate.classes,
            accurate.precision,
            batch,
            combined,
            accurate.answers,
            data.weights,
        )

    def add_up(self, interrupt: Interrupt | None) -> bool:
        """Add up losses and hits of all batches in the model's loss and accuracy. Return False if Python code has to.

        Only the model's parameters may have changed since this object was made.
        """
        sums = [0.0, 0, 0.0, 0]
        for first in range(0, self.n_batches, self.step):
            found = self.native.sums(first, min(first + self.step, self.n_batches), self.threads)
            if found is None:
                return False
            sums = [a + b for a, b in zip(sums, found, strict=True)]
            if interrupt is not None:
                interrupt.check()
        self.enter(sums)
        return True

    def enter(self, sums: Sequence[float]) -> None:
        """Set the sums of the model's loss and accuracy to these."""
        loss, accuracy = self.loss, self.accuracy
        loss.accumulated_sum, loss.accumulated_count, accuracy.accumulated_sum, accuracy.accumulated_count = sums


def evaluate(model: Network, data: Data, batch_size: int | None, threads: int, interrupt: Interrupt | None) -> bool:
    """Add up losses and hits of all batches in the model's loss and accuracy. Return False if there is no plan."""
    try:
        return Evaluation(model, data, batch_size, threads).add_up(interrupt)
    except program.Obstacle:
        return False


def _inference(model: Network) -> Any:
    """Return the compiled object that computes a model's outputs; None if there is none."""
    if not _has_plans():
        return None
    kept = model._inference
    if kept is not None and kept.holds(model):
        return kept
    try:
        chain = program.lower_forward(model)
        if len(chain.stages) > MOST_STAGES:
            raise program.Obstacle(f"there are more than {MOST_STAGES} layers")
    except program.Obstacle:
        model._inference = None
        return None
    categories = columns_of_categories(model.layers)
    model._inference = _kernels.backend.Inference(  # type: ignore[attr-defined]
        chain.dtype, chain.stages, chain.guards, _kernels, None if categories is None else categories[1]
    )
    return model._inference
