"""Training by several processes, the ranks of an MPI communicator. Each takes its rows of every batch.

One Allreduce per step adds up the gradients of all ranks, and all ranks make the same update. Each exchange also says
whether a rank has failed, so that no rank waits for another in vain. `Model.train` calls `train`.
docs/guide/machines.md says what it promises.
"""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx import optimizers
from nnx._base import printing
from nnx._base.network import Network
from nnx._base.text import abridged
from nnx._base.typing import Array
from nnx._base.vocabulary import is_built_in
from nnx.accuracy import Accuracy
from nnx.engine import checkpoints, minimizing, training
from nnx.engine.history import History
from nnx.engine.job import Data, Job, Part, Value
from nnx.errors import RankError
from nnx.files.model_files import ARRAYS
from nnx.layers import Layer_BatchNorm, Layer_Members, walk
from nnx.losses import Loss

if TYPE_CHECKING:
    from mpi4py import MPI

#: The arguments of `Model.train` that all ranks but the first replace, by index: print_every, progress, checkpoint and
#: checkpoint_every.
QUIET = {2: None, 4: False, 10: None, 11: "60s"}
#: What ranks must share beside parameters: numbers that a layer or the optimizer changes in training.
COUNTS = ("seed", "training_forwards", "iterations", "learning_rate", "current_learning_rate")
#: The approximate number of bytes of each array that ranks compare.
COMPARED = 1 << 20


def train(model: Network, call: Callable[..., History], options: tuple[Any, ...], comm: Any) -> History:
    """Train a model together with the other ranks of a communicator. All ranks make the same call.

    ``call`` is the model's ``_train`` with the samples, but without its ``options``.
    """
    ranks = Ranks("Model.train", comm)
    if ranks.size == 1:
        ranks.comm.Free()
        return call(options)
    try:
        ranks.share_generator()
        history = call(ranks.own(options), do_steps=ranks.do_steps)
        ranks.end(model)
        return history
    except RankError:
        raise
    except BaseException as error:
        ranks.tell(error)
        raise
    finally:
        ranks.comm.Free()


class Ranks:
    """The processes that train together, seen from one of them.

    Parameters
    ----------
    where : str
        The method that the user called, for messages.
    comm : MPI.Intracomm
        Their communicator. They use a copy of it, so that other messages do not interfere.

    Attributes
    ----------
    rank, size : int
        The number of this process, and the number of processes.
    """

    def __init__(self, where: str, comm: Any) -> None:
        self._where = where
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise ImportError(
                f"{where}: comm needs the package mpi4py ({error}). Install it: python -m pip install 'nnx-core[mpi]'"
            ) from error
        if not isinstance(comm, MPI.Intracomm):
            raise TypeError(
                f"{where}: comm must be a communicator, such as mpi4py.MPI.COMM_WORLD, got {abridged(comm)}."
            )
        self._in_place = MPI.IN_PLACE
        self.comm: MPI.Intracomm = comm.Dup()
        self.rank, self.size = self.comm.rank, self.comm.size
        self._is_over = False  # no rank listens any more
        self._is_broken = False  # this rank has left an exchange half-way

    # Messages between ranks

    def agree(self, value: Value) -> list[Value]:
        """Return the values that all ranks pass here, in the order of ranks.

        Raises
        ------
        RankError
            If a rank has failed.
        """
        self._is_broken = True
        found: list[tuple[str | None, Value]] = self.comm.allgather((None, value))
        self._is_broken = False
        for rank, (reason, _) in enumerate(found):
            if reason is not None:
                self._is_over = True
                raise RankError(f"{self._where}: rank {rank} ended the training of all ranks: {reason}")
        return [each for _, each in found]

    def tell(self, error: BaseException) -> None:
        """Tell the others in their next exchange that this rank has failed, and why.

        If it has left an exchange half-way, no rank could receive that. Then it ends all processes.
        """
        if self._is_over:
            return
        self._is_over = True
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if self._is_broken:
            traceback.print_exception(error)
            print(f"{self._where}: rank {self.rank} ends all ranks: {reason}", file=sys.stderr, flush=True)
            self.comm.Abort(1)
        self.comm.allgather((reason, None))

    def add_up(self, sums: Array) -> None:
        """Add up an array over all ranks, in place."""
        self._is_broken = True
        self.comm.Allreduce(self._in_place, sums)
        self._is_broken = False

    def first_says(self, value: Any) -> Any:
        """Return the value that rank 0 passes here."""
        return self.agree(value)[0]

    # Before the first step

    def share_generator(self) -> None:
        """Set NumPy's global generator to the state of rank 0's, so that missing seeds are the same for all."""
        np.random.set_state(self.first_says(np.random.get_state() if self.rank == 0 else None))

    def own(self, options: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return this rank's arguments of `Model.train`: only the first rank prints and writes checkpoints."""
        if self.rank == 0:
            return options
        return tuple(QUIET.get(place, each) for place, each in enumerate(options))

    def do_steps(self, job: Job, report: printing.Printer) -> None:
        """Train together, after a check that all ranks are about to do the same."""
        self._refuse(job.model)
        self._compare(job)
        self._share(job.model)
        job.ranks = self
        if job.callbacks is not None:
            job.callbacks.take_rank(self.rank)
        job.order.ask_by(self._ask)
        training.train(job, report)

    def _refuse(self, model: Network) -> None:
        """Refuse what several processes cannot train."""
        where = self._where
        if minimizing.is_minimized(model):
            raise ValueError(f"{where}: comm must not be given for {type(model.optimizer).__name__}.")
        for layer in walk(model.layers):
            if isinstance(layer, Layer_BatchNorm):
                raise ValueError(
                    f"{where}: the layers must not use statistics of a whole batch with comm, because each rank has "
                    f"only some of its rows, got {layer!r}. Use a Layer_LayerNorm."
                )
            if isinstance(layer, Layer_Members):
                raise ValueError(f"{where}: the layers must have one row for each sample for comm, got {layer!r}.")
        for name, part, kind in (("loss", model.loss, Loss), ("accuracy", model.accuracy, Accuracy)):
            if not isinstance(part, kind):
                raise TypeError(f"{where}: {name} must be a {kind.__name__} for comm, got {abridged(part)}.")

    def _compare(self, job: Job) -> None:
        """Refuse, on all ranks, ranks that are not about to do the same."""
        found = self.agree(_described(job))
        for rank, theirs in enumerate(found[1:], 1):
            for name in found[0] | theirs:
                one, other = found[0].get(name), theirs.get(name)
                if one != other:
                    raise ValueError(
                        f"{self._where}: {name} must be the same on all ranks, got {one} on rank 0 and {other} on "
                        f"rank {rank}."
                    )

    def _share(self, model: Network) -> None:
        """Give all ranks the first rank's parameters, and the other state of its optimizer and layers."""
        numbers, arrays = self.first_says(_known(model) if self.rank == 0 else ({}, {}))
        if self.rank == 0:
            return
        parts = _parts(model)
        for name, value in numbers.items():
            number, _, attribute = name.partition(".")
            setattr(parts[int(number)], attribute, value)
        for name, array in arrays.items():
            number, _, attribute = name.partition(".")
            own = getattr(parts[int(number)], attribute, None)
            if isinstance(own, np.ndarray) and own.shape == array.shape and own.flags.writeable:
                own[...] = array
            else:
                setattr(parts[int(number)], attribute, array)

    def _ask(self, ask: Callable[[], Array]) -> Array:
        """Return an order that rank 0 gets from the user's function. It may draw from NumPy's global generator."""
        order = self.first_says(ask() if self.rank == 0 else None)
        self.share_generator()
        return np.asarray(order)

    # During the run

    def part(self, n: int) -> Part:
        """Return this rank's rows of a batch of ``n``."""
        first, end = n * self.rank // self.size, n * (self.rank + 1) // self.size
        return Part(first, max(end, first + 1), end > first)

    def rows_of_step(self, n: int) -> int:
        """Return the most rows of a batch of ``n`` that a rank has."""
        most: int = -(-n // self.size)
        return most

    def collecting(self, rule: optimizers.Rule) -> optimizers.Rule:
        """Return an optimizer's rule for a plan of one rank: it collects all gradients before any update."""
        return rule if rule.clip_norm else rule._replace(clip_norm=math.inf)

    def agree_on_callbacks(self, job: Job) -> None:
        """End the job on all ranks if a callback of one rank ended it. Refuse callbacks that disagree."""
        assert job.callbacks is not None
        rate = getattr(job.model.optimizer, "learning_rate", None)
        found = self.agree((job.callbacks.stopped, rate if isinstance(rate, int | float) else None))
        reasons = [reason for reason, _ in found if reason is not None]
        if reasons and job.callbacks.stopped is None:
            job.callbacks.stop(job, reasons[0])
        for rank, (_, other) in enumerate(found):
            if other != found[0][1]:
                raise ValueError(
                    f"{self._where}: callbacks must do the same on all ranks, got a learning_rate of {found[0][1]} on "
                    f"rank 0 and of {other} on rank {rank}."
                )

    def end(self, model: Network) -> None:
        """Wait until all ranks are done, and check that they have the same parameters."""
        values = [values for layer in model.trainable_layers for values in optimizers._parameters(self._where, layer)]
        with np.errstate(all="ignore"):
            found = self.agree([float(each.sum()).hex() for each in values])
        self._is_over = True
        if any(each != found[0] for each in found):
            raise RuntimeError(
                f"{self._where}: the ranks have different parameters. Something that they depend on, such as a "
                f"callback or a custom layer, does not do the same on all of them."
            )

    # Layer by layer

    def judged(self, part: Part, judge: Any, calculate: Callable[[], Any]) -> tuple[Any, float]:
        """Return a loss or an accuracy over the whole batch, and this rank's share of the batch's weight.

        ``calculate`` computes it over this rank's rows. A loss also returns its penalty, which is the same on all
        ranks.
        """
        before = judge.accumulated_sum, judge.accumulated_count
        judge.accumulated_sum, judge.accumulated_count = 0.0, 0
        result = calculate()
        own = judge.accumulated_sum, judge.accumulated_count
        found = self.agree((*(own if part.counts else (0.0, 0)), part.end - part.first if part.counts else 0))
        total, count, rows = (sum(each) for each in zip(*found, strict=True))
        judge.accumulated_sum, judge.accumulated_count = before[0] + total, before[1] + count
        mean = float(total / count) if count else 0.0
        _, own_count, own_rows = found[self.rank]
        share = float(own_count / count) if count else own_rows / rows
        return ((mean, result[1]) if isinstance(result, tuple) else mean), share

    def add_up_gradients(self, part: Part, model: Network, share: float) -> None:
        """Give all trained layers the gradients of the whole batch. This rank has computed its share of them."""
        where = self._where
        places = [
            (layer, i, optimizers._gradient(where, layer, optimizers.GRADIENTS[i], values))
            for layer in model.trainable_layers
            for i, values in enumerate(optimizers._parameters(where, layer))
        ]
        if not places:
            return
        vector = np.concatenate([gradient.reshape(-1) for _, _, gradient in places])
        with np.errstate(all="ignore"):
            vector *= vector.dtype.type(share)
        if not part.counts:  # 0 · infinity would not be 0
            vector[...] = 0
        self.agree(None)
        self.add_up(vector)
        at = 0
        for layer, i, gradient in places:
            setattr(layer, optimizers.GRADIENTS[i][0], vector[at : at + gradient.size].reshape(gradient.shape))
            at += gradient.size


def _described(job: Job) -> dict[str, Any]:
    """Return what all ranks must share, by name; arguments have their own names."""
    model = job.model
    parts = {"loss": model.loss, "optimizer": model.optimizer, "accuracy": model.accuracy}
    named = {f"layer {number}": layer for number, layer in enumerate(model.layers)} | parts
    return {
        "the backend": checkpoints._computes_on(job),
        **{name: repr(part) if _is_told(part) else type(part).__name__ for name, part in named.items()},
        "trainable_layers": [number for number, each in enumerate(walk(model.layers)) if _is_in(each, model)],
        **{name: _mark(array) for name, array in _arrays(job).items()},
        "epochs": job.epochs,
        "batch_size": job.batch_size,
        "shuffle": job.order.kind,
        "seed": job.order.seed,
        "on_nonfinite": "raise" if job.stops else "ignore",
        "precision": job.precision,
        "penalty_per_sample": job.penalty_per_sample,
        "resume": job.done,
        "callbacks": None if job.callbacks is None else job.callbacks.names(),
    }


def _is_told(part: Any) -> bool:
    """Return whether an object's representation tells all its arguments, and nothing about this process."""
    return any(is_built_in(role, part) for role in ("layer", "loss", "optimizer", "accuracy"))


def _is_in(layer: Any, model: Network) -> bool:
    return any(layer is each for each in model.trainable_layers)


def _arrays(job: Job) -> dict[str, Array | None]:
    """Return the arrays for training and validation, by the names of arguments."""
    held_out = job.held_out or Data(*[np.empty(0)] * 3)
    return {
        "X": job.data.X,
        "y": job.data.y_accuracy,
        "sample_weight times class_weight": job.data.weights,
        "validation_data[0]": held_out.X,
        "validation_data[1]": held_out.y_accuracy,
        "validation_data[2]": held_out.weights,
    }


def _mark(array: Array | None) -> str:
    """Return shape and dtype of an array, and a checksum. For a large array, it covers only some rows."""
    if array is None:
        return "none"
    rows = array[:: max(1, array.nbytes // COMPARED)]
    return checkpoints._told(checkpoints.fingerprint(rows) | {"shape": list(array.shape)})


def _parts(model: Network) -> list[Any]:
    return [model.optimizer, *walk(model.layers)]


def _known(model: Network) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the numbers and arrays that training starts from: of the optimizer (0), and of all layers (1, ...)."""
    numbers: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    for number, part in enumerate(_parts(model)):
        own = getattr(part, "__dict__", {})
        counts = {name: getattr(part, name) for name in COUNTS if hasattr(part, name)}
        plain = {name: count for name, count in counts.items() if isinstance(count, int | float | None)}
        numbers |= {f"{number}.{name}": count for name, count in plain.items()}
        arrays |= {f"{number}.{name}": own[name] for name in ARRAYS if isinstance(own.get(name), np.ndarray)}
    return numbers, arrays
