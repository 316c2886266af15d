"""Callbacks: objects that `Model.train` calls at the end of each epoch. They may end the training.

`nnx.engine.calling` calls them and keeps their state in checkpoints.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

import numpy as np

from nnx import layers
from nnx._base import check, files
from nnx._base.describe import Described
from nnx._base.network import Network
from nnx._base.parameters import PARAMETER_ARRAYS
from nnx._base.printing import figure_text
from nnx._base.text import abridged
from nnx._base.typing import Array, Path
from nnx.engine.history import EPOCH, TRAINING, VALIDATION

if TYPE_CHECKING:
    from nnx.engine.history import History

__all__ = ["CSVLog", "Callback", "EarlyStopping", "ReduceRateOnPlateau", "SaveBest", "TensorBoardLog"]

#: Whether a larger or a smaller figure is better. "auto" is "max" for accuracies and "min" for all other figures.
MODES = ("auto", "min", "max")


class TrainingRun:
    """The state of the training, which each callback gets. It is one object for the whole call of `Model.train`.

    Attributes
    ----------
    model : Model
        Its parameters after the epoch's last step. A callback may change them, in place or by assignment.
    history : History
        The metrics of all epochs so far.
    epoch : int
        The number of the epoch that has just ended, counted from 1; 0 before the first.
    epochs : int
        How many epochs the training has.
    validated : bool
        Whether the run has validation data.
    resumed : bool
        Whether the run continues from a checkpoint.
    stopped : str or None
        Why `stop` was called.
    rank : int
        The number of this process if several processes train the model together with ``comm`` of `Model.train`, else 0.
        Write files on rank 0 only, and do everything else on all ranks.
    """

    def __init__(self, model: Any, history: History, epochs: int, validated: bool) -> None:
        self.model, self.history, self.epochs, self.validated = model, history, epochs, validated
        self.epoch = 0
        self.resumed = False
        self.stopped: str | None = None
        self.rank = 0
        self._figures: dict[str, float] | None = None

    @property
    def figures(self) -> dict[str, float]:
        """The epoch's figures under `History`'s names: ``loss``, ``accuracy``, ``validation_loss``, ...

        It has validation figures only if there is validation data. Before the first epoch it is empty.
        """
        if self._figures is None:
            self._figures = self.history.latest(self.validated) if self.epoch else {}
        return self._figures

    def stop(self, reason: str = "a callback has stopped it") -> None:
        """End the training after this epoch, as if it had been the last one.

        Parameters
        ----------
        reason : str
            Printed at the end of the training, unless ``print_every`` is None.
        """
        self.stopped = check.text("TrainingRun.stop", "reason", reason)


class Callback(Described):
    """Base class of callbacks: override its methods, and pass an object to ``Model.train(callbacks=[...])``.

    `Model.train` calls all methods in its own thread, between two steps, with a `TrainingRun`. An exception in a
    method ends the training and reaches the caller. The model is then as it was after the epoch.

    A callback whose state belongs in checkpoints defines two more methods. ``get_state()`` returns the state as a dict
    whose values are numbers, texts, None or arrays. ``set_state(state)`` restores it, before ``on_train_begin``, when a
    run continues from a checkpoint.

    Examples
    --------
    >>> import nnx
    >>> class Goal(nnx.Callback):
    ...     def on_epoch_end(self, run):
    ...         if run.figures["loss"] < 0.01:
    ...             run.stop("the loss is below 0.01")
    >>> model = nnx.Model()
    >>> model.add(nnx.Layer_Dense(1, 1))
    >>> model.set(
    ...     loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(0.5), accuracy=nnx.Accuracy_Regression()
    ... )
    >>> model.finalize()
    >>> history = model.train([[0.0], [1.0]], [0.0, 2.0], epochs=500, print_every=None, callbacks=[Goal()])
    >>> len(history.loss) < 500
    True
    """

    def on_train_begin(self, run: TrainingRun) -> None:
        """Called before the first step, after all checks. ``run.epoch`` is above 0 if the run was resumed."""

    def on_epoch_end(self, run: TrainingRun) -> None:
        """Called after each epoch and its validation."""

    def on_train_end(self, run: TrainingRun) -> None:
        """Called after the last step of a run that ended or was stopped, but not after an error."""

    def close(self) -> None:
        """Close files. Called last, also after errors and Ctrl-C."""

    def _check(self, where: str, model: Network, validated: bool) -> None:
        """Refuse a run that this callback cannot serve. Nothing has changed yet."""

    def _check_state(self, state: dict[str, Any], model: Network) -> None:
        """Refuse an invalid state from a checkpoint with ValueError, TypeError or KeyError. Nothing has changed yet."""

    def _compared(self) -> dict[str, Any]:
        """Return the settings that must be the same when a run continues."""
        return {name: value for name, value in self.get_config().items() if name not in ("path", "folder")}


class Monitor(Callback):
    """Base class of callbacks that watch one metric and compare it with the best epoch so far.

    Attributes
    ----------
    best : float
        The best figure so far, NaN if there is none.
    best_epoch : int
        Its epoch, counted from 1; 0 if there is none.
    wait : int
        Epochs since then, or since the rate was reduced.
    """

    monitor: str = "validation_loss"
    min_delta: float = 0.0
    mode: str = "auto"
    patience: int = 0
    best: float = math.nan
    best_epoch: int = 0
    wait: int = 0

    def _configure(self, monitor: str, mode: str, min_delta: float = 0.0, patience: int = 1) -> None:
        where = type(self).__name__
        self.monitor = check.one_of(where, "monitor", monitor, EPOCH)
        self.mode = check.one_of(where, "mode", mode, MODES)
        self.min_delta = check.number(where, "min_delta", min_delta, 0)
        self.patience = check.whole(where, "patience", patience, 1, check.MAX_COUNT)

    def _check(self, where: str, model: Network, validated: bool) -> None:
        if self.monitor in VALIDATION and not validated:
            raise ValueError(
                f"{where}: validation_data or validation_split must be given for {type(self).__name__}, which monitors "
                f"{self.monitor!r}. Or monitor another metric: {type(self).__name__}(monitor='loss')."
            )

    def on_train_begin(self, run: TrainingRun) -> None:
        """Start anew, unless the run continues from a checkpoint."""
        if not run.resumed:
            self.best, self.best_epoch, self.wait = math.nan, 0, 0

    @property
    def _larger(self) -> bool:
        """Whether a larger figure is better."""
        return self.mode == "max" or (self.mode == "auto" and self.monitor.endswith("accuracy"))

    def _improves(self, run: TrainingRun) -> bool:
        """Take the epoch's figure. Return whether it is better than all before, by more than ``min_delta``."""
        value = run.figures[self.monitor]
        larger = self._larger
        if math.isnan(value) or (
            not math.isnan(self.best)
            and not (value > self.best + self.min_delta if larger else value < self.best - self.min_delta)
        ):
            self.wait += 1
            return False
        self.best, self.best_epoch, self.wait = value, run.epoch, 0
        return True

    def get_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": np.array([self.best], np.float64), "best_epoch": self.best_epoch, "wait": self.wait}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self.best, self.best_epoch, self.wait = float(state["best"][0]), state["best_epoch"], state["wait"]

    def _check_state(self, state: dict[str, Any], model: Network) -> None:
        if set(state) != {"best", "best_epoch", "wait"}:
            raise KeyError("best, best_epoch and wait must be there, and nothing else")
        _array("best", state["best"], np.zeros(1, np.float64))
        for name in ("best_epoch", "wait"):
            check.whole("", name, state[name], 0, check.MAX_COUNT)


class EarlyStopping(Monitor):
    """Stop the training when a metric has not improved for some epochs, and restore the best parameters.

    Parameters
    ----------
    monitor : str
        The metric to watch, by its name in `History`.
    patience : int
        How many epochs in a row may pass without an improvement.
    min_delta : float
        The smallest change that counts as an improvement.
    restore_best : bool
        Whether to restore, at the end of the training, the parameters after the best epoch: all weights, biases,
        averages and running statistics of layers, in place. The optimizer's state does not change. After an interrupted
        run nothing is restored, so that the run can be resumed.
    mode : "auto", "min" or "max"
        Whether smaller or larger is better. With "auto", larger is better for an accuracy, and smaller for anything
        else. NaN is never better.

    Attributes
    ----------
    best : float
        The best value, NaN if there is none.
    best_epoch : int
        Its epoch, counted from 1; 0 if there is none.
    wait : int
        Epochs since then.

    Notes
    -----
    Prechelt, "Early stopping: but when?", 1998. It is ``EarlyStopping`` of Keras with ``restore_best_weights=True``. By
    default, Keras leaves the last weights in place.

    Examples
    --------
    >>> import nnx
    >>> X, y = nnx.spiral_data(samples=20, classes=3)
    >>> model = nnx.Model()
    >>> for layer in (nnx.Layer_Dense(2, 64), nnx.Activation_ReLU(), nnx.Layer_Dense(64, 3), nnx.Activation_Softmax()):
    ...     model.add(layer)
    >>> model.set(
    ...     loss=nnx.Loss_CategoricalCrossentropy(),
    ...     optimizer=nnx.Optimizer_Adam(0.5),
    ...     accuracy=nnx.Accuracy_Categorical(),
    ... )
    >>> model.finalize()
    >>> stopping = nnx.EarlyStopping(patience=5)
    >>> history = model.train(
    ...     X, y, epochs=1000, validation_data=nnx.spiral_data(20, 3), callbacks=[stopping], print_every=None
    ... )
    >>> len(history.loss) == stopping.best_epoch + 5
    True
    """

    _arguments: ClassVar[tuple[str, ...]] = ("monitor", "patience", "min_delta", "restore_best", "mode")

    def __init__(
        self,
        monitor: str = "validation_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: str = "auto",
    ) -> None:
        self._configure(monitor, mode, min_delta, patience)
        self.restore_best = check.flag("EarlyStopping", "restore_best", restore_best)
        self._kept: dict[str, Array] = {}

    def on_train_begin(self, run: TrainingRun) -> None:
        """Start anew, unless the run continues from a checkpoint."""
        super().on_train_begin(run)
        if not run.resumed:
            self._kept = {}

    def on_epoch_end(self, run: TrainingRun) -> None:
        """Keep the parameters if the epoch is the best so far, else count it."""
        if self._improves(run):
            if self.restore_best:
                self._keep(run.model)
        elif self.wait >= self.patience:
            run.stop(self._reason())

    def _reason(self) -> str:
        if not self.best_epoch:
            return f"{self.monitor} has been NaN for {self.wait} epochs"
        since = f"{self.monitor} has not improved since epoch {self.best_epoch} ({figure_text(self.best)})"
        return f"{since}, and its parameters are restored" if self.restore_best else since

    def _keep(self, model: Network) -> None:
        arrays = learnt(model)
        for name, array in arrays.items():
            kept = self._kept.get(name)
            if kept is None or kept.shape != array.shape or kept.dtype != array.dtype:
                self._kept[name] = array.copy()
            else:
                np.copyto(kept, array)
        for name in self._kept.keys() - arrays.keys():
            del self._kept[name]

    # For compiled code that does the work of `on_epoch_end` for several epochs

    def as_compared(self) -> tuple[Any, ...]:
        """Return the monitored figure's index, whether larger is better, and the settings and state of comparisons."""
        return (
            EPOCH.index(self.monitor),
            self._larger,
            self.min_delta,
            self.patience,
            self.best,
            self.best_epoch,
            self.wait,
        )

    def place_for(self, name: str, array: Array) -> Array:
        """Return the array that keeps the best values of a parameter. If none fits, make a new one."""
        kept = self._kept.get(name)
        fits = kept is not None and kept.shape == array.shape and kept.dtype == array.dtype and kept.flags.carray
        return kept if kept is not None and fits else np.empty_like(array, order="C")

    def take(self, best: float, best_epoch: int, wait: int) -> None:
        """Take over the state that compiled code has reached."""
        self.best, self.best_epoch, self.wait = best, best_epoch, wait

    def keep(self, kept: dict[str, Array]) -> None:
        """Take these parameters as those of the best epoch."""
        self._kept = kept

    def on_train_end(self, run: TrainingRun) -> None:
        """Put the parameters of the best epoch back."""
        arrays = learnt(run.model)
        pairs = [(name, arrays[name], kept) for name, kept in self._kept.items() if name in arrays]
        for name, array, kept in pairs:
            if array.shape != kept.shape or not array.flags.writeable:
                raise ValueError(
                    f"EarlyStopping: {name} must be a writable array of shape {kept.shape} to restore the best "
                    f"parameters, but it was replaced during training."
                )
        for _, array, kept in pairs:
            np.copyto(array, kept)

    def get_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the best epoch's parameters too."""
        return {**super().get_state(), **self._kept}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        super().set_state(state)
        self._kept = {name: array for name, array in state.items() if name.startswith("layers.")}

    def _check_state(self, state: dict[str, Any], model: Network) -> None:
        arrays = learnt(model)
        kept = {name: array for name, array in state.items() if name.startswith("layers.")}
        super()._check_state({name: value for name, value in state.items() if name not in kept}, model)
        for name, array in kept.items():
            number, _, attribute = name.removeprefix("layers.").partition(".")
            if attribute in layers.AVERAGED:  # which the model may have only later
                attribute = PARAMETER_ARRAYS[layers.AVERAGED.index(attribute)]
            _array(name, array, arrays[f"layers.{number}.{attribute}"])
        parameters = {name for name in arrays if not name.endswith(layers.AVERAGED)}
        if bool(kept) != bool(state["best_epoch"] and self.restore_best) or (kept and not parameters <= kept.keys()):
            raise ValueError("some of the best parameters are missing")


class ReduceRateOnPlateau(Monitor):
    """Reduce the learning rate when a metric has not improved for some epochs.

    It multiplies the optimizer's ``learning_rate`` by ``factor``. Learning-rate decay and schedules are factors of
    ``learning_rate`` too, so they continue from the smaller rate.

    Parameters
    ----------
    monitor : str
        The metric to watch, by its name in `History`.
    factor : float
        The factor by which the rate is multiplied, above 0 and below 1.
    patience : int
        How many epochs in a row may pass without an improvement.
    min_delta : float
        The smallest change that counts as an improvement.
    min_rate : float
        The smallest ``learning_rate``.
    mode : "auto", "min" or "max"
        Whether smaller or larger is better. With "auto", larger is better for an accuracy, and smaller for anything
        else. NaN is never better.

    Attributes
    ----------
    best, best_epoch, wait
        As in `EarlyStopping`. ``wait`` returns to 0 when the rate is reduced.

    Notes
    -----
    It is ReduceLROnPlateau of Keras, without a cooldown. PyTorch's class waits one epoch longer.

    Examples
    --------
    >>> from nnx import ReduceRateOnPlateau
    >>> ReduceRateOnPlateau(monitor="loss", factor=0.5, patience=3)
    ReduceRateOnPlateau(monitor='loss', factor=0.5, patience=3)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("monitor", "factor", "patience", "min_delta", "min_rate", "mode")

    def __init__(
        self,
        monitor: str = "validation_loss",
        factor: float = 0.1,
        patience: int = 5,
        min_delta: float = 0.0,
        min_rate: float = 0.0,
        mode: str = "auto",
    ) -> None:
        self._configure(monitor, mode, min_delta, patience)
        self.factor = check.number("ReduceRateOnPlateau", "factor", factor)
        if not 0 < self.factor < 1:
            raise ValueError(f"ReduceRateOnPlateau: factor must be above 0 and below 1, got {factor!r}.")
        self.min_rate = check.number("ReduceRateOnPlateau", "min_rate", min_rate, 0)

    def _check(self, where: str, model: Network, validated: bool) -> None:
        super()._check(where, model, validated)
        if not hasattr(model.optimizer, "learning_rate"):
            raise TypeError(
                f"{where}: optimizer must have a learning_rate for ReduceRateOnPlateau, got "
                f"{abridged(model.optimizer)}."
            )

    def on_epoch_end(self, run: TrainingRun) -> None:
        """Reduce the rate if it is time to."""
        if self._improves(run) or self.wait < self.patience:
            return
        self.wait = 0
        optimizer = run.model.optimizer
        rate = optimizer.learning_rate
        if not getattr(optimizer, "decay", 0) and getattr(optimizer, "schedule", None) is None:
            rate = getattr(optimizer, "current_learning_rate", rate)  # which may have been assigned
        if rate > self.min_rate:
            optimizer.learning_rate = max(rate * self.factor, self.min_rate)


class SaveBest(Monitor):
    """Save the model whenever a metric is better than in all epochs before.

    Parameters
    ----------
    path : str or path
        The file, as in `Model.save`. It is replaced as a whole.
    monitor : str
        The metric to watch, by its name in `History`.
    mode : "auto", "min" or "max"
        Whether smaller or larger is better. With "auto", larger is better for an accuracy, and smaller for anything
        else. NaN is never better.

    Attributes
    ----------
    best, best_epoch
        As those of `EarlyStopping`.

    Examples
    --------
    >>> from nnx import SaveBest
    >>> SaveBest("best.safetensors", monitor="validation_accuracy")
    SaveBest('best.safetensors', monitor='validation_accuracy')
    """

    _arguments: ClassVar[tuple[str, ...]] = ("path", "monitor", "mode")

    def __init__(self, path: Path, monitor: str = "validation_loss", mode: str = "auto") -> None:
        self._configure(monitor, mode)
        self.path = check.path("SaveBest", "path", path)
        self._target = self.path

    def _check(self, where: str, model: Network, validated: bool) -> None:
        super()._check(where, model, validated)
        files.writable("SaveBest", self.path)
        from nnx.files import model_files

        model_files.describe("SaveBest", model)  # refuses what no file could hold

    def on_train_begin(self, run: TrainingRun) -> None:
        """Start anew, unless the run continues from a checkpoint."""
        super().on_train_begin(run)
        self._target = os.path.abspath(self.path)  # the run may change the current folder

    def on_epoch_end(self, run: TrainingRun) -> None:
        """Save the model if the epoch was the best one."""
        if self._improves(run) and run.rank == 0:
            run.model.save(self._target)


class CSVLog(Callback):
    """Write the metrics of each epoch to a CSV file, one line per epoch.

    Parameters
    ----------
    path : str or path
        The file. An existing one is replaced. A run that continues from a checkpoint writes the lines of its earlier
        epochs again, so the file always holds each epoch once.

    Examples
    --------
    >>> from nnx import CSVLog
    >>> CSVLog("run.csv")
    CSVLog('run.csv')
    """

    _arguments: ClassVar[tuple[str, ...]] = ("path",)
    _file: TextIO | None = None

    def __init__(self, path: Path) -> None:
        self.path = check.path("CSVLog", "path", path)

    def _check(self, where: str, model: Network, validated: bool) -> None:
        files.writable("CSVLog", self.path)

    def on_train_begin(self, run: TrainingRun) -> None:
        """Write the names of the figures, and those of earlier epochs."""
        if run.rank:
            return
        names = EPOCH if run.validated else TRAINING
        self._file = open(self.path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 - `close` closes it
        self._file.write(f"epoch,{','.join(names)}\n")
        columns = [getattr(run.history, name)[: run.epoch].tolist() for name in names]
        self._file.writelines(map(_line, range(1, run.epoch + 1), zip(*columns, strict=True)))
        self._file.flush()

    def on_epoch_end(self, run: TrainingRun) -> None:
        """Write the epoch's line."""
        if self._file is not None:
            self._file.write(_line(run.epoch, tuple(run.figures.values())))
            self._file.flush()  # readers find all epochs

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_file"}


class TensorBoardLog(Callback):
    """Write the metrics of each epoch for TensorBoard, under their names in `History`.

    It needs the package tensorboard, but not TensorFlow: ``python -m pip install 'nnx-core[tensorboard]'``. View them
    with ``tensorboard --logdir FOLDER``.

    Parameters
    ----------
    folder : str or path
        The folder, which is created if it does not exist. Each call of `train` adds a file. When a run continues from a
        checkpoint, TensorBoard ignores later epochs in older files.

    Examples
    --------
    >>> from nnx import TensorBoardLog
    >>> TensorBoardLog("runs/first")
    TensorBoardLog('runs/first')
    """

    _arguments: ClassVar[tuple[str, ...]] = ("folder",)
    _writer: Any = None

    def __init__(self, folder: Path) -> None:
        self.folder = check.path("TensorBoardLog", "folder", folder)

    def _check(self, where: str, model: Network, validated: bool) -> None:
        try:
            import tensorboard.summary.writer.event_file_writer  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"{where}: TensorBoardLog needs the package tensorboard ({error}). Install it: "
                "python -m pip install 'nnx-core[tensorboard]'"
            ) from error
        if os.path.exists(self.folder) and not os.path.isdir(self.folder):
            raise NotADirectoryError(f"TensorBoardLog: folder must be a folder, got the file {self.folder!r}.")

    def on_train_begin(self, run: TrainingRun) -> None:
        """Start a file, and write from which epoch on it is valid."""
        if run.rank:
            return
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(self.folder)
        if run.resumed:
            begins = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=_now(), step=run.epoch + 1, session_log=begins))

    def on_epoch_end(self, run: TrainingRun) -> None:
        """Write the epoch's figures."""
        if self._writer is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in run.figures.items()]
        self._writer.add_event(Event(wall_time=_now(), step=run.epoch, summary=Summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_writer"}


# Parts


def learnt(model: Network) -> dict[str, Array]:
    """Return, by name, the arrays of a model's layers that predictions depend on. Writing to them changes the model."""
    return {
        f"layers.{number}.{name}": getattr(layer, name)
        for number, layer in enumerate(layers.walk(model.layers))
        for name in (*PARAMETER_ARRAYS, *layers.AVERAGED, *getattr(layer, "_running", ()))
        if isinstance(getattr(layer, name, None), np.ndarray)
    }


def _array(name: str, value: Any, like: Array) -> None:
    """Refuse anything but an array of this shape and dtype."""
    if not isinstance(value, np.ndarray) or value.shape != like.shape or value.dtype != like.dtype:
        raise ValueError(f"{name} must be an array of shape {like.shape}")


def _line(epoch: int, values: tuple[float, ...]) -> str:
    return f"{epoch},{','.join(map(repr, values))}\n"


def _now() -> float:
    import time

    return time.time()
