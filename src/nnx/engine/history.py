"""`History`: the metrics that a training run recorded."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx._base.interrupt import at_once
from nnx._base.typing import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAINING = ("loss", "data_loss", "regularization_loss", "accuracy", "learning_rate")
VALIDATION = ("validation_loss", "validation_accuracy")
EPOCH = TRAINING + VALIDATION
STEP = ("step_loss", "step_data_loss", "step_regularization_loss", "step_accuracy", "step_learning_rate")


class History:
    """The metrics of one call of `Model.train`, by epoch and by step.

    Attributes
    ----------
    loss, data_loss, regularization_loss, accuracy : float64 arrays, one value per epoch
        Metrics of the training data: means over the epoch's samples, and the penalty after the epoch. With
        ``penalty_per_sample``, the penalty is the mean over the epoch's samples of the penalties in their steps.
    learning_rate : float64 array, one value per epoch
        Of the epoch's last step.
    validation_loss, validation_accuracy : float64 arrays, one value per epoch
        Empty without validation data.
    step_loss, step_data_loss, step_regularization_loss, step_accuracy, step_learning_rate : float64 arrays
        One value per step. The penalty is the one before the step's update. If a run continues from a checkpoint with
        ``checkpoint_steps=False``, the steps before the checkpoint have NaN.
    is_regression : bool
        Whether the accuracy counts predictions near a target, as for a regression. `plot` then leaves it out.

    Examples
    --------
    >>> import nnx
    >>> model = nnx.Model()
    >>> model.add(nnx.Layer_Dense(1, 1))
    >>> model.set(
    ...     loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(0.1), accuracy=nnx.Accuracy_Regression()
    ... )
    >>> model.finalize()
    >>> history = model.train([[0.0], [1.0]], [0.0, 2.0], epochs=20, print_every=None)
    >>> history
    History(epochs=20, steps=20)
    >>> bool(history.loss[-1] < history.loss[0])
    True
    """

    loss: Array
    data_loss: Array
    regularization_loss: Array
    accuracy: Array
    learning_rate: Array
    validation_loss: Array
    validation_accuracy: Array
    step_loss: Array
    step_data_loss: Array
    step_regularization_loss: Array
    step_accuracy: Array
    step_learning_rate: Array
    is_regression: bool = False

    def __init__(self, is_regression: bool = False) -> None:
        self.is_regression = is_regression
        #: Figures of steps, of epochs and of validations: for each row, the bytes of its float64 numbers. A reader in
        #: any thread or signal handler copies the list. A list grows by whole rows, also without a GIL. Python's arrays
        #: do not.
        self._rows: dict[tuple[str, ...], list[bytes]] = {}
        #: Later figures of steps and epochs, in the arrays that compiled calls wrote.
        self._later: list[tuple[Array, Array]] = []

    def __getattr__(self, name: str) -> Array:
        for names in (STEP, TRAINING, VALIDATION):
            if name in names:  # only these: copy and pickle ask before _rows exists
                column = names.index(name)
                rows = np.frombuffer(b"".join(self._rows_of(names)[:])).reshape(-1, len(names))
                later = [] if names is VALIDATION else [pair[names is TRAINING][column] for pair in self._later[:]]
                return np.concatenate([rows[:, column], *later])
        raise AttributeError(f"'History' object has no attribute {name!r}")

    def add(self, steps: Array, epochs: Array) -> None:
        """Record some steps and the epochs that end among them.

        Parameters
        ----------
        steps, epochs : float64 arrays (5, n) and (5, m)
            Rows: loss, data loss, penalty, accuracy, learning rate.
        """
        self._later.append((steps, epochs))

    def adding(self, steps: Array, epochs: Array) -> partial[Any]:
        """Return the call that does the work of `add`, for `nnx._base.interrupt.at_once`."""
        return partial(self._later.append, (steps, epochs))

    def adding_step(
        self, data_loss: float, regularization_loss: float, accuracy: float, learning_rate: float
    ) -> partial[Any]:
        """Return the call that records a step, for `nnx._base.interrupt.at_once`."""
        row = (data_loss + regularization_loss, data_loss, regularization_loss, accuracy, learning_rate)
        return partial(self._rows_of(STEP).append, array("d", row).tobytes())

    def add_epoch(self, data_loss: float, regularization_loss: float, accuracy: float, learning_rate: float) -> None:
        """Record an epoch's training figures."""
        row = (data_loss + regularization_loss, data_loss, regularization_loss, accuracy, learning_rate)
        self._rows_of(TRAINING).append(array("d", row).tobytes())

    def add_validation(self, loss: float, accuracy: float) -> None:
        """Record an epoch's validation figures."""
        self._rows_of(VALIDATION).append(array("d", (loss, accuracy)).tobytes())

    def add_validations(self, figures: Array) -> None:
        """Record the validation figures of several epochs, float64 (n, 2): loss and accuracy."""
        self._rows_of(VALIDATION).extend(_bytes_of_rows(figures))

    def _rows_of(self, names: tuple[str, ...]) -> list[bytes]:
        """Return the rows of these figures."""
        return self._rows.setdefault(names, [])

    def _count(self, names: tuple[str, ...]) -> int:
        """Return the number of steps or epochs."""
        later: int = sum(pair[names is TRAINING].shape[1] for pair in self._later[:])
        return len(self._rows_of(names)) + later

    def fold(self) -> None:
        """Append the figures in compiled calls' arrays to the rows, so that more rows can follow."""
        calls: list[partial[Any]] = []
        for names in (STEP, TRAINING):
            later = [pair[names is TRAINING] for pair in self._later]
            calls += [partial(self._rows_of(names).extend, _bytes_of_rows(columns.T)) for columns in later]
        if calls:
            at_once([*calls, partial(self._later.clear)])

    def latest(self, validated: bool) -> dict[str, float]:
        """Return the figures of the latest epoch by name, without reading the others.

        If ``validated``, they include those of the validation.
        """
        for _, epochs in reversed(self._later):
            if epochs.shape[1]:
                row = epochs[:, -1].tolist()
                break
        else:
            row = _last_of(self._rows_of(TRAINING))
        if not validated:
            return dict(zip(TRAINING, row, strict=False))
        return dict(zip(EPOCH, row + _last_of(self._rows_of(VALIDATION)), strict=False))

    def latest_steps(self, n: int) -> Array:
        """Return the figures of the last ``n`` steps, in rows as `add` takes them, without reading the others."""
        found: list[Array] = []
        for steps, _ in reversed(self._later):
            if n <= 0:
                break
            found.insert(0, steps[:, max(0, steps.shape[1] - n) :])
            n -= found[0].shape[1]
        if n > 0 or not found:
            rows = self._rows_of(STEP)[max(0, len(self._rows_of(STEP)) - n) :]
            found.insert(0, np.frombuffer(b"".join(rows)).reshape(-1, len(STEP)).T)
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    @property
    def n_epochs(self) -> int:
        """The number of recorded epochs. Another thread may read it during training."""
        return self._count(TRAINING)

    def lacks_epoch(self, n_batches: int) -> bool:
        """Return whether the latest recorded step ends an epoch of ``n_batches`` steps that is not recorded."""
        return len(self) // n_batches > self._count(TRAINING)

    def restore(self, columns: Mapping[str, Array]) -> None:
        """Start with the figures of an interrupted run: float64 arrays (n,) under the attributes' names.

        The figures are NaN for steps that it did not keep.
        """
        steps = np.stack([columns[name] for name in STEP], dtype=np.float64)
        self._later = [(steps, np.empty((len(TRAINING), 0)))]  # of which there may be millions
        for names in (TRAINING, VALIDATION):
            self._rows[names] = _bytes_of_rows(np.stack([columns[name] for name in names], 1, dtype=np.float64))

    def to_dict(self) -> dict[str, list[float]]:
        """Return all metrics as lists of floats, ready for JSON."""
        return {name: getattr(self, name).tolist() for name in EPOCH + STEP}

    def plot(self, ax: Axes | None = None, *, accuracy: bool | None = None) -> Axes:
        """Draw the loss and, below it, the accuracy, of training and validation, epoch by epoch.

        The scale of the loss is logarithmic where it spans more than a decade and a half. A line marks the epoch with
        the lowest validation loss.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw the two panels; a new figure if None.
        accuracy : bool, optional
            Whether to draw the accuracy. If None, it is drawn for a classifier and not for a regression.

        Returns
        -------
        The matplotlib axes of the loss.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        from nnx import plot

        return plot.history(self, ax, accuracy=accuracy)

    def __len__(self) -> int:
        """Return the number of steps."""
        return self._count(STEP)

    def __repr__(self) -> str:
        return f"History(epochs={self.n_epochs}, steps={len(self)})"


def _bytes_of_rows(rows: Array) -> list[bytes]:
    """Return the bytes of each row of a float64 array (n, m)."""
    together, size = rows.tobytes(), rows.itemsize * rows.shape[1]
    return [together[start : start + size] for start in range(0, len(together), size)]


def _last_of(rows: list[bytes]) -> list[float]:
    """Return the figures of the last row; none if there is no row."""
    return array("d", b"".join(rows[-1:])).tolist()
