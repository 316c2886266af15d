"""What a training run recorded: `History`."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from nnx._typing import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EPOCH = (
    "loss",
    "data_loss",
    "regularization_loss",
    "accuracy",
    "learning_rate",
    "validation_loss",
    "validation_accuracy",
)
STEP = ("step_loss", "step_data_loss", "step_regularization_loss", "step_accuracy", "step_learning_rate")


class History:
    """Figures of one `Model.train` call, epoch by epoch and step by step, as far as it came.

    Attributes
    ----------
    loss, data_loss, regularization_loss, accuracy : float64 arrays, one value an epoch
        Of the training data: means over the epoch's samples, and the penalty after the epoch.
    learning_rate : float64 array, one value an epoch
        Of the epoch's last step.
    validation_loss, validation_accuracy : float64 arrays, one value an epoch
        Empty without validation data.
    step_loss, step_data_loss, step_regularization_loss, step_accuracy, step_learning_rate : float64 arrays
        One value a step; the penalty is taken before the step's update.
    is_regression : bool
        Whether the accuracy counts predictions near a target, as that of a regression does; `plot` leaves it out then.

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
        self._figures: dict[str, array[float]] = {}
        #: Figures of many steps at a time, which wait until somebody asks for a column.
        self._waiting: list[tuple[Array, Array]] = []

    @property
    def _columns(self) -> dict[str, array[float]]:
        if not self._figures:
            self._figures = {name: array("d") for name in EPOCH + STEP}
        waiting, self._waiting = self._waiting, []
        for steps, epochs in waiting:
            for names, figures in ((STEP, steps), (EPOCH, epochs)):
                for name, row in zip(names, figures):  # noqa: B905 - the validation columns are filled on their own
                    self._figures[name].frombytes(row.tobytes())
        return self._figures

    def __getattr__(self, name: str) -> Array:
        if name in EPOCH or name in STEP:  # no other: copy and pickle ask before _figures exists
            return np.array(self._columns[name])
        raise AttributeError(f"'History' object has no attribute {name!r}")

    def add(self, steps: Array, epochs: Array) -> None:
        """Record some steps and the epochs that end among them.

        Parameters
        ----------
        steps, epochs : float64 arrays (5, n) and (5, m)
            Rows: loss, data loss, penalty, accuracy, learning rate.
        """
        self._waiting.append((steps, epochs))

    def add_step(self, data_loss: float, regularization_loss: float, accuracy: float, learning_rate: float) -> None:
        """Record a step."""
        self._add(STEP, (data_loss + regularization_loss, data_loss, regularization_loss, accuracy, learning_rate))

    def add_epoch(self, data_loss: float, regularization_loss: float, accuracy: float, learning_rate: float) -> None:
        """Record an epoch's training figures."""
        self._add(EPOCH, (data_loss + regularization_loss, data_loss, regularization_loss, accuracy, learning_rate))

    def add_validation(self, loss: float, accuracy: float) -> None:
        """Record an epoch's validation figures."""
        self._add(EPOCH[5:], (loss, accuracy))

    def _add(self, names: tuple[str, ...], values: tuple[float, ...]) -> None:
        for name, value in zip(names, values):  # noqa: B905 - the validation columns are filled on their own
            self._columns[name].append(value)

    def restore(self, columns: Mapping[str, Array]) -> None:
        """Begin with the figures of an interrupted run: float64 arrays (n,) under the attributes' names."""
        for name, column in columns.items():
            self._columns[name] = array("d", column.tobytes())

    def to_dict(self) -> dict[str, list[float]]:
        """Return all figures as lists of floats, ready for JSON."""
        return {name: column.tolist() for name, column in self._columns.items()}

    def plot(self, ax: Axes | None = None, *, accuracy: bool | None = None) -> Axes:
        """Draw the loss and, below it, the accuracy, of training and validation, epoch by epoch.

        The scale of the loss is logarithmic where it spans more than a decade and a half. A line marks the epoch with
        the lowest validation loss.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Where to draw: two panels share its place. A new figure without it.
        accuracy : bool, optional
            Whether to draw the accuracy. Without it, that of a classifier is drawn, and that of a regression is not.

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
        return len(self._columns["step_loss"])

    def __repr__(self) -> str:
        return f"History(epochs={len(self._columns['loss'])}, steps={len(self)})"
