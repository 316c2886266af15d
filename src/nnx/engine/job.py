"""The work of a call of `Model.train`, as data: `Data`, `Job`, and the types that every way of running takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from nnx._base.interrupt import Interrupt
from nnx._base.network import Network
from nnx._base.random import Order
from nnx._base.typing import Array
from nnx.engine.history import History
from nnx.optimizers import Rule

if TYPE_CHECKING:
    from nnx.engine.lbfgs import Memory

Value = TypeVar("Value")


class Data(NamedTuple):
    """Samples and targets, checked and cast once. A batch of them is a `Data`, too."""

    X: Array
    #: The loss's targets: cast for a built-in loss, as the caller gave them for others.
    y: Array
    #: The accuracy's targets: as the caller gave them, except that −1 and 1 become 0 and 1.
    y_accuracy: Array
    #: The weight of each sample, float64 (n,); None if all are equal.
    weights: Array | None = None

    def n_batches(self, batch_size: int | None) -> int:
        """Return the number of steps of an epoch."""
        return 1 if batch_size is None else -(-len(self.X) // batch_size)

    def batches(self, batch_size: int | None, order: Array | None = None, first: int = 0) -> Iterator[Data]:
        """Yield the batches from ``first`` on, in ``order`` if it is given. The last batch may be smaller."""
        size = batch_size or len(self.X)
        for start in range(first * size, len(self.X), size):
            rows = slice(start, start + size) if order is None else order[start : start + size]
            yield self.rows(rows)

    def rows(self, which: slice | Array) -> Data:
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[which]
        y = self.y[which]
        return Data(self.X[which], y, y if self.y_accuracy is self.y else self.y_accuracy[which], weights)

    def for_members(self, n_members: int) -> Data:
        """Return data with a target for each row of each member. The samples do not change."""
        if n_members == 1:
            return self
        y = np.repeat(self.y, n_members, axis=0)
        y_accuracy = y if self.y_accuracy is self.y else np.repeat(self.y_accuracy, n_members, axis=0)
        weights = None if self.weights is None else np.repeat(self.weights, n_members)
        return Data(self.X, y, y_accuracy, weights)

    @property
    def weighing(self) -> dict[str, Array]:
        """The keyword that passes weights to losses and accuracies; empty if there are none."""
        return {} if self.weights is None else {"sample_weight": self.weights}


class Split(NamedTuple):
    """How held-out rows are drawn from the data."""

    #: Their fraction of all rows.
    share: float
    seed: int


class CheckpointWriter(Protocol):
    """Writes a run's checkpoints: `nnx.engine.checkpoints.Keeper`."""

    def steps_left(self, done: int, n_batches: int) -> int:
        """Return the number of steps until a checkpoint is due."""

    def is_due(self, done: int, n_batches: int) -> bool:
        """Return whether a checkpoint is due after ``done`` steps."""

    def has(self, done: int) -> bool:
        """Return whether the latest checkpoint was written after ``done`` steps."""

    def write(self, job: Job, done: int, sums: tuple[float, ...]) -> None:
        """Write a checkpoint."""


class Callbacks(Protocol):
    """The callbacks of a run, and the epochs for which they were called: `nnx.engine.calling.Called`."""

    #: The number of epochs after which they have been called.
    called: int
    #: Why one of them stopped the run; None if none did.
    stopped: str | None

    def begin(self, job: Job) -> None:
        """Call them before the first step."""

    def end_epoch(self, job: Job) -> None:
        """Call them after an epoch. End the job there if one of them asks for it."""

    def only_stopping(self) -> Any:
        """Return the only callback, if it is an unchanged `EarlyStopping`; else None."""

    def have_been_called(self, job: Job, n_epochs: int, stopped: bool) -> None:
        """Note the epochs for which compiled code did their work. The last epoch may have stopped the run."""

    def end(self) -> None:
        """Call them after the run."""

    def close(self) -> None:
        """Let them close their files, whatever has happened."""

    def stop(self, job: Job, reason: str) -> None:
        """End the job after this epoch, because a callback of another process asked for it."""

    def take_rank(self, rank: int) -> None:
        """Tell the callbacks the number of this process, if there are several."""

    def names(self) -> list[str]:
        """Return the names of their classes."""

    def state(self) -> tuple[list[dict[str, Any]], dict[str, Array]]:
        """Return their state for a checkpoint: descriptions, and arrays by name."""

    def check_state(self, described: Any, arrays: Mapping[str, Array], path: str) -> None:
        """Refuse the state of other callbacks in a checkpoint. Remember the state of these."""

    def resume(self, called: int, stopped: str | None) -> None:
        """Continue a run in which they have been called for some epochs."""

    def restore(self) -> None:
        """Give them that state."""

    def keep_off(self, checkpoint: str) -> None:
        """Refuse a callback whose file is the run's checkpoint."""


class Part(NamedTuple):
    """A rank's rows of a batch."""

    #: Their index in the batch. A rank without rows of its own has one row that does not count.
    first: int
    end: int
    counts: bool


class Ranks(Protocol):
    """The processes that train a model together, seen from one of them: `nnx.engine.ranks.Ranks`."""

    rank: int
    size: int

    def agree(self, value: Value) -> list[Value]:
        """Return the values that all ranks pass here."""

    def first_says(self, value: Any) -> Any:
        """Return the value that rank 0 passes here."""

    def collecting(self, rule: Rule) -> Rule:
        """Return an optimizer's rule that collects all gradients before any update."""

    def add_up(self, sums: Array) -> None:
        """Add up an array over all ranks, in place."""

    def part(self, n: int) -> Part:
        """Return this rank's rows of a batch of ``n``."""

    def rows_of_step(self, n: int) -> int:
        """Return the most rows of a batch of ``n`` that a rank has."""

    def agree_on_callbacks(self, job: Job) -> None:
        """End the job on all ranks if a callback of one rank ended it."""

    def judged(self, part: Part, judge: Any, calculate: Callable[[], Any]) -> tuple[Any, float]:
        """Return a loss or an accuracy over the whole batch, and this rank's share of the batch's weight."""

    def add_up_gradients(self, part: Part, model: Network, share: float) -> None:
        """Give all trained layers the gradients of the whole batch."""


class Job:
    """The work of a call of `Model.train`, completely checked.

    Attributes
    ----------
    stops : bool
        Whether a loss or a parameter that is not finite ends the run.
    precision : str or None
        "bfloat16" if dense layers round the factors of their products to bfloat16.
    n_batches : int
        Steps of an epoch.
    epochs : int
        The number of epochs to do. After a callback has stopped the run, the number of epochs done.
    keeper : CheckpointWriter or None
        Writes checkpoints.
    callbacks : Callbacks or None
        Called at the end of each epoch.
    learning_rate : number or None
        The optimizer's rate at the start of the run, before any callback changed it; None if it has none.
    done : int
        The number of steps done by the interrupted run that this run continues.
    sums : tuple of five numbers
        Sums of that run's last epoch: losses, their count, hits, their count, and the penalties of the steps, each
        times its rows. With weights, the counts are sums of weights.
    split : Split or None
        How the held-out rows were drawn, if there are any.
    stopped : str or None
        Why a callback stopped that run.
    penalty_per_sample : bool
        Whether a step's penalties are divided by the number of its samples, or by the sum of their weights.
    penalty_sum : float
        The last of those sums, if the run trains layer by layer.
    memory : Memory or None
        The memory of `Optimizer_LBFGS`: what it keeps of earlier iterations.
    n_rows : int
        Samples of an epoch.
    stream : nnx.engine.streaming.Stream or None
        The source of samples that are read block by block. ``data`` then holds the first of them.
    marks : dict
        The facts about the data in a checkpoint, beside fingerprints of the arrays.
    ranks : Ranks or None
        The other processes that train the model together with this one.
    """

    def __init__(
        self,
        model: Network,
        data: Data,
        held_out: Data | None,
        epochs: int,
        batch_size: int | None,
        order: Order,
        threads: int,
        stops: bool,
        precision: str | None,
        history: History,
    ) -> None:
        self.model, self.data, self.held_out = model, data, held_out
        self.epochs, self.batch_size, self.order, self.threads = epochs, batch_size, order, threads
        self.stops, self.precision, self.history = stops, precision, history
        self.n_batches = data.n_batches(batch_size)
        self.keeper: CheckpointWriter | None = None
        self.callbacks: Callbacks | None = None
        self.learning_rate: Any = getattr(model.optimizer, "learning_rate", None)
        self.done = 0
        self.sums: tuple[float, float, float, float, float] = (0.0, 0, 0.0, 0, 0.0)
        self.split: Split | None = None
        self.stopped: str | None = None
        self.penalty_per_sample = False
        self.penalty_sum = 0.0
        self.memory: Memory | None = None
        self.n_rows = len(data.X)
        self.stream: Any = None
        self.marks: dict[str, dict[str, Any]] = {}
        self.ranks: Ranks | None = None

    @property
    def n_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.n_batches

    @property
    def rows(self) -> int:
        """Samples of a step. The last step of an epoch may have fewer."""
        return min(self.batch_size or self.n_rows, self.n_rows)

    def counted(self, done: int) -> tuple[int, int]:
        """Return the number of a step as messages count it, and the number of steps of an epoch."""
        return done, self.n_batches

    @property
    def looks_up(self) -> bool:
        """Whether the end of an epoch needs more work than recording it."""
        return self.held_out is not None or self.callbacks is not None

    def lacks_validation(self) -> bool:
        """Return whether the interrupted run stopped while it evaluated the model after an epoch."""
        n_epochs, rest = divmod(self.done, self.n_batches)
        return self.held_out is not None and rest == 0 and len(self.history.validation_loss) < n_epochs

    def lacks_call(self) -> bool:
        """Return whether it stopped after an epoch, before it called the callbacks for that epoch."""
        n_epochs, rest = divmod(self.done, self.n_batches)
        return self.callbacks is not None and rest == 0 and self.callbacks.called < n_epochs

    def is_kept(self, done: int) -> bool:
        """Return whether a checkpoint after ``done`` steps was written, and the model checked before."""
        return self.keeper is not None and self.keeper.has(done)


#: Adds up the held-out rows' losses and hits in the model's loss and accuracy. Returns whether it could.
AddUp = Callable[[Interrupt | None], bool]


class EndEpoch(Protocol):
    """Does the work after an epoch, in every way of running: validates, and calls the callbacks.

    It may end the job there, by setting the job's number of epochs.
    """

    def __call__(self, interrupt: Interrupt, add_up: AddUp | None = None) -> None:
        """Do it. A caller that has prepared the held-out rows passes ``add_up``, which saves doing it again."""


class Keep(Protocol):
    """Writes the checkpoints of a run during the run."""

    def __call__(
        self, done: int, sums: Callable[[], tuple[float, ...]], now: bool = False, checked: bool = False
    ) -> None:
        """Write a checkpoint after ``done`` steps, if it is due or wanted now. Never write a diverged model.

        ``checked`` says that the parameters have been checked already.
        """
