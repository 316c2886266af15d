"""Training on `Blocks`: a thread reads windows of rows ahead, and each window trains as a plan, or in the other ways.

A window holds several whole batches. Its steps are those of a run that continues within an epoch. In memory, its rows
come after one batch that is already done, and the epoch's sums go from window to window. So steps, figures and counts
are the same as for the same rows in memory.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from nnx._base import memory, printing, random
from nnx._base.interrupt import Interrupt
from nnx._base.network import Network
from nnx._base.text import abridged
from nnx._base.typing import Array
from nnx.data.streams import Blocks, is_sliced
from nnx.engine import layerwise, plan, segments
from nnx.engine.classes import weighed_by_class
from nnx.engine.data_checks import BlockChecks, check_backward, checked_data, weighing
from nnx.engine.job import Data, EndEpoch, Job, Keep
from nnx.layers import walk
from nnx.lbfgs import Optimizer_LBFGS

#: The approximate bytes of a window, if the user does not give its rows. The bytes of a row in a run beside X and y:
#: labels, targets of the accuracy, orders.
WINDOW_BYTES, BESIDE = 1 << 24, 40
#: The approximate bytes of samples that are cast and checked at a time.
CAST_BYTES = 1 << 20
#: The windows in memory: one trains, and one is read.
WINDOWS = 2
#: The fraction of memory from which on a ``numpy.memmap`` is read block by block by default.
LARGE = 0.5
#: The rows of a source of unknown length. No run has as many.
UNKNOWN = 1 << 50
#: The seconds between two checks for Ctrl-C while the run waits for rows.
LOOK_SECONDS = 0.05


# The arguments of `Model.train`


def stream_of(where: str, model: Network, X: Any, y: Any, sample_weight: Any, batch_size: int | None) -> Stream | None:
    """Return the stream that reads samples block by block; None for samples that are, or belong, in memory."""
    blocks = _blocks_of(where, model, X, y, sample_weight, batch_size)
    if blocks is None:
        return None
    stream = Stream(where, model, blocks, batch_size)
    if isinstance(X, np.memmap):
        stream.notice = f"X is read block by block: it has {X.nbytes / 1e6:,.0f} MB, and half of the memory is less."
    return stream


def _blocks_of(where: str, model: Network, X: Any, y: Any, sample_weight: Any, batch_size: int | None) -> Blocks | None:
    if isinstance(X, Blocks):
        _refuse_beside(where, y, sample_weight)
        return X
    if y is None:
        if hasattr(X, "shape") or not (callable(X) or hasattr(X, "__iter__")) or isinstance(X, str | bytes):
            raise TypeError(
                f"{where}: y must be given, because X is not a source of blocks (X, y): it is {abridged(X)}."
            )
        _refuse_beside(where, y, sample_weight)
        return Blocks.from_iterable(X)
    if batch_size is not None and (is_sliced(X) or _is_large_map(model, X)):
        return Blocks(X, y, sample_weight)
    if isinstance(X, Iterator) or (callable(X) and not hasattr(X, "shape")):
        _refuse_beside(where, y, sample_weight)
    return None


def _refuse_beside(where: str, y: Any, sample_weight: Any) -> None:
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise TypeError(f"{where}: {name} must not be given if X yields blocks, which hold it themselves.")


def _is_large_map(model: Network, X: Any) -> bool:
    """Return whether an array in a file, cast for the network, would take too much memory."""
    if not isinstance(X, np.memmap):
        return False
    widest = max(X.dtype.itemsize, 4)
    return bool(X.size * widest > LARGE * memory.allowed())


class Stream:
    """Blocks that a model trains on, completely checked.

    Attributes
    ----------
    first : Data
        The first rows, with the same checks as all others.
    n_rows : int
        `UNKNOWN` for one epoch of an iterator of unknown length.
    """

    def __init__(self, where: str, model: Network, blocks: Blocks, batch_size: int | None) -> None:
        if batch_size is None:
            raise ValueError(f"{where}: batch_size must be given where X is read block by block, got None.")
        self._where, self._model, self._blocks, self.batch = where, model, blocks, batch_size
        #: The text that is printed before the training, if the user did not ask for blocks.
        self.notice = ""

    def check_arguments(
        self, order: random.Order, check_finite: bool, class_weight: Any, validation_split: Any, is_alone: bool
    ) -> None:
        """Refuse arguments that need all rows at once, and set up the checks of rows from the first ones.

        ``is_alone`` says that the model does not train together with others.
        """
        where, model = self._where, self._model
        given = {
            "shuffle": ("True or False", order.asks, "a function"),
            "validation_split": ("None", validation_split is not None, abridged(validation_split)),
            "class_weight": ("numbers by class", isinstance(class_weight, str), abridged(class_weight)),
        }
        for name, (expected, is_wrong, value) in given.items():
            if is_wrong:
                raise ValueError(f"{where}: {name} must be {expected} where X is read block by block, got {value}.")
        if isinstance(model.optimizer, Optimizer_LBFGS):
            raise ValueError(f"{where}: X must be in memory for Optimizer_LBFGS, whose steps take all rows.")
        if not is_alone:
            raise ValueError(
                f"{where}: X must be an array where models or processes train together, got {self._blocks!r}."
            )
        self._class_weight = class_weight
        piece = self._blocks.first()
        names = (piece.name("X"), piece.name("y"), piece.name("sample_weight"))
        first = checked_data(model, where, names, piece.X, piece.y, check_finite, piece.weights)
        self._checks = BlockChecks(model, where, first, check_finite)
        self._columns = [first.X, first.y, first.y_accuracy]
        self._is_weighted = first.weights is not None
        self.first = self._weighed(first)
        row_bytes = sum(_row_bytes(array) for array in {id(each): each for each in self._columns}.values())
        self.window_rows = self._blocks.window_rows(self.batch, row_bytes + BESIDE, WINDOW_BYTES)
        self.rows_at_a_time = max(1, CAST_BYTES // _row_bytes(first.X))

    def begin(self, job: Job, goes_on: bool) -> None:
        """Tell a job the numbers of rows and steps. ``goes_on`` says that it writes or reads checkpoints."""
        if (job.epochs > 1 or goes_on) and not self._blocks.can_be_read_again:
            name, value = ("checkpoint", "one") if job.epochs == 1 else ("epochs", job.epochs)
            needed = "1" if name == "epochs" else "None"
            raise ValueError(
                f"{self._where}: {name} must be {needed} for blocks that can be read only once, got {value}. Give a "
                "function that returns a new iterator."
            )
        if job.epochs > 1 or goes_on:
            self._blocks.count()
        self.n_rows = self._blocks.n_rows or UNKNOWN
        job.stream, job.n_rows, job.n_batches = self, self.n_rows, -(-self.n_rows // self.batch)
        job.marks = {"blocks": self._blocks.fingerprint(self.window_rows)}

    def targets(self) -> Array:
        """Return the targets that prepare the accuracy: all, an object with their deviation, or the first ones.

        It is the last of these if targets cannot be read alone.
        """
        found = self._blocks.targets()
        return self.first.y_accuracy if found is None else found

    def _weighed(self, data: Data) -> Data:
        if self._class_weight is not None:
            data = weighed_by_class(self._where, self._model, data, self._class_weight)
        if data.weights is not None:
            check_backward(self._model, self._where)
            weighing(self._model, self._where, "", data._replace(weights=np.ones(len(data.X))))
        return data

    # In the reading thread

    def new_buffer(self) -> Buffer:
        """Return memory for a window, after one batch."""
        n = self.batch + min(self.window_rows, self.n_rows)
        made: dict[int, Array] = {}
        for each in self._columns:
            if id(each) not in made:
                made[id(each)] = np.zeros((n, *each.shape[1:]), each.dtype)
        X, y, y_accuracy = (made[id(each)] for each in self._columns)
        return Buffer(X, y, y_accuracy, np.ones(n) if self._is_weighted else None)

    def pieces(self, order: Array | None, skip: int) -> Iterator[Data]:
        """Yield checked rows, a few at a time."""
        for piece in self._blocks.pieces(order, skip):
            n = len(piece.X)
            if n and piece.weights is None is self._is_weighted:
                raise ValueError(
                    f"{self._where}: all blocks must have weights, or none, got {piece.name('X')} without."
                )
            for start in range(0, n, self.rows_at_a_time):
                yield self._checks.data(piece.rows(start, min(start + self.rows_at_a_time, n)))

    def block_order(self, order: random.Order, epoch: int) -> Array | None:
        """Return the order of the blocks in an epoch; None for their own order."""
        sizes = self._blocks.sizes
        return None if sizes is None or not order.shuffles else order.of_blocks(epoch, len(sizes))

    def weighed(self, data: Data) -> Data:
        """Return a window's data with the weights of its classes."""
        return data if self._class_weight is None else self._weighed(data)


class Buffer(NamedTuple):
    """Memory for a window's rows, after those of one batch."""

    X: Array
    y: Array
    y_accuracy: Array
    weights: Array | None

    def write(self, at: int, data: Data) -> None:
        """Copy rows to this index."""
        rows = slice(at, at + len(data.X))
        self.X[rows], self.y[rows] = data.X, data.y
        if self.y_accuracy is not self.y:
            self.y_accuracy[rows] = data.y_accuracy
        if self.weights is not None and data.weights is not None:
            self.weights[rows] = data.weights

    def data(self, start: int, stop: int) -> Data:
        """Return some of its rows."""
        return Data(*self).rows(slice(start, stop))

    def repeat_batch(self, batch: int, n: int) -> None:
        """Fill the batch before the window with rows of the window, so that no row is invalid."""
        for array in {id(each): each for each in self if each is not None}.values():
            array[:batch] = array[batch + np.arange(batch) % n]


class Window(NamedTuple):
    """Rows that were read, and their position."""

    epoch: int  # from 0
    first_row: int  # of the epoch
    n: int
    is_last: bool  # of the epoch
    buffer: Buffer
    order: Array | None


def _row_bytes(array: Array) -> int:
    return max(1, array[:1].nbytes)


class Reader:
    """A thread that reads windows ahead, from one step of a run until its end."""

    def __init__(self, stream: Stream, job: Job) -> None:
        self._stream, self._order, self._epochs = stream, job.order, job.epochs
        self._epoch, first = divmod(job.done, job.n_batches)
        self._first_row = first * stream.batch // stream.window_rows * stream.window_rows
        self._free: queue.SimpleQueue[Buffer | None] = queue.SimpleQueue()
        self._read: queue.SimpleQueue[Window | BaseException] = queue.SimpleQueue()
        self._n_buffers = 0
        self._stops = False
        self._thread = threading.Thread(target=self._work, name="nnx-reader", daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stops = True
        self._free.put(None)
        self._thread.join()

    def next(self, interrupt: Interrupt) -> Window:
        """Return the next window, or raise the reader's error. Ctrl-C takes effect meanwhile."""
        while True:
            try:
                found = self._read.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                interrupt.check()
                continue
            if isinstance(found, BaseException):
                raise found
            return found

    def give_back(self, window: Window) -> None:
        """Release a window's memory for another window."""
        self._free.put(window.buffer)

    # In the thread

    def _work(self) -> None:
        try:
            for epoch in range(self._epoch, self._epochs):
                for window in self._windows(epoch):
                    self._read.put(window)
                self._first_row = 0
        except _StoppedError:
            pass
        except BaseException as error:
            self._read.put(error)

    def _take(self) -> Buffer:
        if self._n_buffers < WINDOWS:
            self._n_buffers += 1
            return self._stream.new_buffer()
        buffer = self._free.get()
        if buffer is None or self._stops:
            raise _StoppedError
        return buffer

    def _windows(self, epoch: int) -> Iterator[Window]:
        """Yield an epoch's windows. All but the last are full."""
        stream = self._stream
        done, at = self._first_row, 0  # rows of the epoch before this window, and in it
        buffer: Buffer | None = None
        for piece in stream.pieces(stream.block_order(self._order, epoch + 1), done):
            start = 0
            while start < len(piece.X):
                if self._stops:
                    raise _StoppedError
                if buffer is not None and at == stream.window_rows:
                    yield self._window(epoch, done, at, False, buffer)
                    done, at, buffer = done + at, 0, None
                if done + at >= stream.n_rows:
                    self._refuse(epoch, "more")
                buffer = buffer or self._take()
                n = min(len(piece.X) - start, stream.window_rows - at, stream.n_rows - done - at)
                buffer.write(stream.batch + at, piece.rows(slice(start, start + n)))
                at, start = at + n, start + n
                if at == stream.window_rows and done + at < stream.n_rows < UNKNOWN:  # no need to look further
                    yield self._window(epoch, done, at, False, buffer)
                    done, at, buffer = done + at, 0, None
        if stream.n_rows < UNKNOWN and done + at < stream.n_rows:
            self._refuse(epoch, str(done + at))
        if buffer is None:
            raise ValueError(f"{stream._where}: there must be at least one row, got none.")
        yield self._window(epoch, done, at, True, buffer)

    def _refuse(self, epoch: int, found: str) -> None:
        raise ValueError(
            f"Model.train: the blocks must have {self._stream.n_rows} rows in each epoch, got {found} in epoch "
            f"{epoch + 1}."
        )

    def _window(self, epoch: int, done: int, n: int, is_last: bool, buffer: Buffer) -> Window:
        stream, order = self._stream, None
        if self._order.shuffles:
            drawn = self._order.within_window(epoch + 1, done // stream.window_rows, n)
            order = np.concatenate([np.arange(stream.batch), drawn + stream.batch])
        buffer.repeat_batch(stream.batch, n)
        return Window(epoch, done, n, is_last, buffer, order)


class _StoppedError(Exception):
    """The run has ended, so the reader stops."""


# A window as a separate job


class WindowJob(Job):
    """The steps of one window, as a run of one epoch that may have begun before it.

    Its step numbers count from the batch before the window, if there is one.
    """

    def __init__(self, job: Job, window: Window, done: int) -> None:
        stream: Stream = job.stream
        first_step = window.first_row // stream.batch
        goes_on = first_step > 0
        start = 0 if goes_on else stream.batch
        data = stream.weighed(window.buffer.data(start, stream.batch + window.n))
        order = WindowOrder(None if window.order is None else window.order[start:] - start)
        history: Any = WindowHistory(job, self)
        super().__init__(job.model, data, None, 1, stream.batch, order, job.threads, job.stops, job.precision, history)
        self.epoch, self.is_last = window.epoch, window.is_last
        self.n_rows = window.first_row + window.n  # of the epoch, so far
        #: Steps of the epoch before the window's first one, and of the run.
        self.before = first_step - goes_on
        self.run_before = window.epoch * job.n_batches + self.before
        self.n_batches_of_run = job.n_batches
        self.done = done - self.run_before
        self.sums, self.penalty_sum = job.sums, job.sums[4]
        self.penalty_per_sample = job.penalty_per_sample
        self.ends_run = window.is_last and window.epoch == job.epochs - 1

    def counted(self, done: int) -> tuple[int, int]:
        """Return a step's number in the run, and the number of steps of its epochs."""
        return self.run_before + done, self.n_batches_of_run

    def is_kept(self, done: int) -> bool:
        """Return whether parameters need no check after these steps: other steps follow, or it was done."""
        return not self.ends_run


class WindowOrder(random.Order):
    """The given order of a window's rows."""

    def __init__(self, order: Array | None) -> None:
        super().__init__("Model.train", order is not None, None)
        self._given = order

    def take_seed(self) -> None:
        """Do nothing: the run has a seed."""

    def draw_some(self, epoch: int, n_epochs: int, n_samples: int) -> Array:
        """Return the order, as a row."""
        assert self._given is not None
        return self._given[np.newaxis]


class WindowHistory:
    """Records a window's steps in the history of the run, and the epoch if it ends with the window."""

    def __init__(self, job: Job, window: WindowJob) -> None:
        self._history, self._window = job.history, window
        self.is_regression = job.history.is_regression
        #: Figures of the epoch that has ended.
        self.ends: Array = np.empty((5, 0))
        #: Whether the next line belongs to an epoch that has not ended yet.
        self.is_within = False

    def adding(self, steps: Array, ends: Array) -> Any:
        """Return the call that adds figures of a compiled call."""
        if not self._window.is_last:
            ends = ends[:, :0]
        elif ends.shape[1] and self._window.penalty_per_sample:
            penalty = self._window.model._plan[1].sums()[4] / self._window.n_rows
            ends = np.array([ends[1] + penalty, ends[1], [penalty], ends[3], ends[4]])
        self.ends = ends
        return self._history.adding(steps, ends)

    def adding_step(self, *figures: float) -> Any:
        """Return the call that adds a step."""
        return self._history.adding_step(*figures)

    def add_epoch(self, *figures: float) -> None:
        """Record an epoch, if it has ended."""
        self.is_within = not self._window.is_last
        if self._window.is_last:
            self._history.add_epoch(*figures)

    def lacks_epoch(self, n_batches: int) -> bool:
        """Return whether the last step ended an epoch that is not recorded."""
        window = self._window
        n_steps = window.counted(window.n_batches)[0]
        return window.is_last and len(self._history) == n_steps and self._history.n_epochs <= window.epoch

    def fold(self) -> None:
        """Prepare the history for single steps."""
        self._history.fold()


class WindowReport:
    """Prints a window's steps as steps of the run."""

    def __init__(self, report: printing.Printer, window: WindowJob, history: Any) -> None:
        self._report, self._window, self._history = report, window, history
        self.is_silent = report.is_silent
        self.wants, self.advance = report.wants, report.advance

    def begin(self, epoch: int) -> None:
        """Begin the epoch."""
        self._report.begin(self._window.epoch)

    def line(self, text: str) -> None:
        """Print a line, unless it belongs to an epoch that has not ended."""
        if not self._history.is_within:
            self._report.line(text)
        self._history.is_within = False

    def run(self, epoch: int, step: int, n_batches: int, steps: Array, ends: Array, rate: Any = None) -> None:
        """Report the steps of a compiled call."""
        window = self._window
        self._report.run(window.epoch, window.before + step, window.n_batches_of_run, steps, self._history.ends, rate)


# The run


def train(job: Job, report: printing.Printer, end_epoch: EndEpoch, keep: Keep) -> None:
    """Train for some epochs, window after window."""
    job.order.take_seed()  # before dropout takes any, as without blocks
    done = job.done
    if job.stream.notice:
        report.notice(job.stream.notice)
    if done < job.n_steps:
        try:
            with Reader(job.stream, job) as reader, Interrupt() as interrupt:
                done = _train_on_windows(reader, job, report, end_epoch, keep, interrupt)
        finally:
            _detach(job.model)
            job.model._again = None
    keep(done, lambda: job.sums, now=True, checked=True)


def _train_on_windows(
    reader: Reader, job: Job, report: printing.Printer, end_epoch: EndEpoch, keep: Keep, interrupt: Interrupt
) -> int:
    """Do all steps. Return the number of steps done."""
    done = job.done
    try:
        while done < job.n_steps:
            window = reader.next(interrupt)
            done = _train_on(window, job, report, keep, done, interrupt)
            reader.give_back(window)
            if window.is_last:
                end_epoch(interrupt)
            keep(done, lambda: job.sums)
            interrupt.check()
    except KeyboardInterrupt:
        if interrupt.stopped and len(job.history) == done:  # else the window has kept it
            keep(done, lambda: job.sums, now=True)
        raise
    return done


def _train_on(window: Window, job: Job, report: printing.Printer, keep: Keep, done: int, interrupt: Interrupt) -> int:
    """Do a window's steps after ``done`` steps of the run. Return the number of steps of the run done."""
    if window.is_last and job.n_rows >= UNKNOWN:
        job.n_rows = window.first_row + window.n
        job.n_batches = -(-job.n_rows // job.stream.batch)
        report.learn_steps(job.n_batches)
    part = WindowJob(job, window, done)
    end = part.run_before + part.n_batches

    def keep_part(done: int, sums: Callable[[], Any], now: bool = False, checked: bool = False) -> None:
        """Do the work between two steps. After the window's last step, the caller does it."""
        at = part.run_before + done
        if at == end:
            job.sums = sums()
            return
        keep(at, sums)
        try:
            interrupt.check()
        except KeyboardInterrupt:
            keep(at, sums, now=True)
            raise

    def end_part(interrupt: Interrupt, add_up: Any = None) -> None:
        """Do nothing: the run itself deals with the end of an epoch."""

    shown: Any = WindowReport(report, part, part.history)
    if not plan.train(part, shown, end_part, keep_part) and not segments.train(part, shown, end_part, keep_part):
        layerwise.train(part, shown, end_part, keep_part)
    return end


def _detach(model: Network) -> None:
    """Copy the arrays that layers keep of the last batch, if they lie in a window's memory."""
    copies: dict[int, Array] = {}
    for layer in (model.input_layer, *walk(model.layers)):
        own = getattr(layer, "__dict__", {})
        for name in ("inputs", "output"):
            value = own.get(name)
            if type(value) is np.ndarray and value.base is not None:
                own[name] = copies.setdefault(id(value), value.copy())
