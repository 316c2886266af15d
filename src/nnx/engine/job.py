"""What a call of `Model.train` has to do, as data: `Data`, `Job`, and the types of what a way of running is handed."""

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
    """Samples and targets, checked and cast once; a batch of them is one of these too."""

    X: Array
    #: What the loss gets: cast for a built-in loss, as the caller gave it for others.
    y: Array
    #: What the accuracy gets: as the caller gave it, but for signs, which are 0 and 1.
    y_accuracy: Array
    #: How much each sample counts, float64 (n,); None if all count alike.
    weights: Array | None = None

    def n_batches(self, batch_size: int | None) -> int:
        """Return how many steps an epoch has."""
        return 1 if batch_size is None else -(-len(self.X) // batch_size)

    def batches(self, batch_size: int | None, order: Array | None = None, first: int = 0) -> Iterator[Data]:
        """Yield the batches from ``first`` on, in ``order`` if one is given; the last may be smaller."""
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
        """Return what so many members of each sample are compared with, row by row; the samples stay as they are."""
        if n_members == 1:
            return self
        y = np.repeat(self.y, n_members, axis=0)
        y_accuracy = y if self.y_accuracy is self.y else np.repeat(self.y_accuracy, n_members, axis=0)
        weights = None if self.weights is None else np.repeat(self.weights, n_members)
        return Data(self.X, y, y_accuracy, weights)

    @property
    def weighing(self) -> dict[str, Array]:
        """The keyword by which losses and accuracies are told of weights; nothing where there are none."""
        return {} if self.weights is None else {"sample_weight": self.weights}


class Split(NamedTuple):
    """How held-out rows are drawn from the data."""

    #: Their part of all rows.
    share: float
    seed: int


class CheckpointWriter(Protocol):
    """Writes a run's checkpoints: `nnx.engine.checkpoints.Keeper`."""

    def steps_left(self, done: int, n_batches: int) -> int:
        """Return how many steps there are until a checkpoint is due."""

    def is_due(self, done: int, n_batches: int) -> bool:
        """Return whether a checkpoint is to be written after so many steps."""

    def has(self, done: int) -> bool:
        """Return whether the checkpoint that was written last is that of so many steps."""

    def write(self, job: Job, done: int, sums: tuple[float, ...]) -> None:
        """Write a checkpoint."""


class Callbacks(Protocol):
    """The callbacks of a run, and how far they have been called: `nnx.engine.calling.Called`."""

    #: After how many epochs they have been called.
    called: int
    #: Why one of them has stopped the run; None if none has.
    stopped: str | None

    def begin(self, job: Job) -> None:
        """Call them before the first step."""

    def end_epoch(self, job: Job) -> None:
        """Call them after an epoch; end the job there if one of them says so."""

    def only_stopping(self) -> Any:
        """Return the only callback, if it is an `EarlyStopping` as it is built in."""

    def have_been_called(self, job: Job, n_epochs: int, stopped: bool) -> None:
        """Take over what compiled code did in its place: so many epochs, the last of which may have stopped the run."""

    def end(self) -> None:
        """Call them after the run."""

    def close(self) -> None:
        """Let them let go of files, whatever has come between."""

    def stop(self, job: Job, reason: str) -> None:
        """End the job after this epoch, as a callback of another process has said."""

    def take_rank(self, rank: int) -> None:
        """Let callbacks know which of several processes this is."""

    def names(self) -> list[str]:
        """Return the names of their classes."""

    def state(self) -> tuple[list[dict[str, Any]], dict[str, Array]]:
        """Return what a checkpoint holds of them: descriptions, and arrays by name."""

    def check_state(self, described: Any, arrays: Mapping[str, Array], path: str) -> None:
        """Refuse what a checkpoint holds of others; remember what it holds of these."""

    def resume(self, called: int, stopped: str | None) -> None:
        """Go on after they have been called for some epochs."""

    def restore(self) -> None:
        """Give them that state."""

    def keep_off(self, checkpoint: str) -> None:
        """Refuse a file of theirs that is the run's checkpoint."""


class Part(NamedTuple):
    """A rank's rows of a batch."""

    #: Where they are in it; a rank that is left without any has one that does not count.
    first: int
    end: int
    counts: bool


class Ranks(Protocol):
    """The processes that train a model together, as one of them sees them: `nnx.engine.ranks.Ranks`."""

    rank: int
    size: int

    def agree(self, value: Value) -> list[Value]:
        """Return what each rank says here."""

    def first_says(self, value: Any) -> Any:
        """Return what rank 0 says here."""

    def collecting(self, rule: Rule) -> Rule:
        """Return an optimizer's rule by which all gradients are collected before any update."""

    def add_up(self, sums: Array) -> None:
        """Add up an array over all ranks, in place."""

    def part(self, n: int) -> Part:
        """Return which rows of a batch of ``n`` are this rank's."""

    def rows_of_step(self, n: int) -> int:
        """Return how many rows of a batch of ``n`` a rank has, at most."""

    def agree_on_callbacks(self, job: Job) -> None:
        """End the job for all ranks if a callback of one has ended it."""

    def judged(self, part: Part, judge: Any, calculate: Callable[[], Any]) -> tuple[Any, float]:
        """Return what a loss or an accuracy makes of the whole batch, and this rank's share of the batch's weight."""

    def add_up_gradients(self, part: Part, model: Network, share: float) -> None:
        """Give all trained layers the gradients of the whole batch."""


class Job:
    """What a call of `Model.train` has to do, all of it checked.

    Attributes
    ----------
    stops : bool
        Whether a loss, or a parameter, that is not finite ends it.
    precision : str or None
        "bfloat16" if dense layers round what they multiply to that.
    n_batches : int
        Steps of an epoch.
    epochs : int
        How many there are to be; as many as there have been, once a callback has stopped the run.
    keeper : CheckpointWriter or None
        Writes checkpoints.
    callbacks : Callbacks or None
        Called at the end of each epoch.
    learning_rate : number or None
        The optimizer's when the run began, before any callback has changed it; None if it has none.
    done : int
        How many steps an interrupted run has done that this one goes on with.
    sums : tuple of five numbers
        Of that run's last epoch: losses, how many, hits, how many (with weights, how much weight); and the penalties of
        the steps, each times its rows.
    split : Split or None
        How the held-out rows were drawn, if they were.
    stopped : str or None
        Why a callback had stopped that run.
    penalty_per_sample : bool
        Whether a step's penalties are divided by the number of its samples, or by the sum of their weights.
    penalty_sum : float
        The last of those sums, where the run goes layer by layer.
    memory : Memory or None
        What `Optimizer_LBFGS` knows of earlier iterations.
    n_rows : int
        Samples of an epoch.
    stream : nnx.engine.streaming.Stream or None
        Where samples come from that are read block by block; ``data`` are the first of them then.
    marks : dict
        What a checkpoint says of the data beside fingerprints of the arrays.
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
        """Samples of a step, but for the last of an epoch."""
        return min(self.batch_size or self.n_rows, self.n_rows)

    def counted(self, done: int) -> tuple[int, int]:
        """Return the number of a step as messages count it, and how many of them an epoch has."""
        return done, self.n_batches

    @property
    def looks_up(self) -> bool:
        """Whether anything is to be done at the end of an epoch beside recording it."""
        return self.held_out is not None or self.callbacks is not None

    def lacks_validation(self) -> bool:
        """Return whether the interrupted run was stopped while it evaluated the model after an epoch."""
        n_epochs, rest = divmod(self.done, self.n_batches)
        return self.held_out is not None and rest == 0 and len(self.history.validation_loss) < n_epochs

    def lacks_call(self) -> bool:
        """Return whether it was stopped after an epoch for which its callbacks had not been called."""
        n_epochs, rest = divmod(self.done, self.n_batches)
        return self.callbacks is not None and rest == 0 and self.callbacks.called < n_epochs

    def is_kept(self, done: int) -> bool:
        """Return whether a checkpoint of so many steps has been written, and the model looked at before."""
        return self.keeper is not None and self.keeper.has(done)


#: Adds up the held-out rows' losses and hits in the model's loss and accuracy; returns whether it has.
AddUp = Callable[[Interrupt | None], bool]


class EndEpoch(Protocol):
    """What does all that is due after an epoch, in every way of running: validates, and calls the callbacks.

    It may end the job there, by its number of epochs.
    """

    def __call__(self, interrupt: Interrupt, add_up: AddUp | None = None) -> None:
        """Do it. A caller that has the held-out rows ready gives ``add_up``, which saves preparing them."""


class Keep(Protocol):
    """What writes the checkpoints of a run while it goes on."""

    def __call__(
        self, done: int, sums: Callable[[], tuple[float, ...]], now: bool = False, checked: bool = False
    ) -> None:
        """Write a checkpoint after ``done`` steps, if one is due or wanted now; never of a diverged model.

        ``checked`` says that its parameters have been looked at.
        """
