"""Accuracies: `Accuracy`, the base class, `Accuracy_Categorical`, `Accuracy_Regression`."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from nnx import _kernels
from nnx._base import check
from nnx._base.describe import Described
from nnx._base.typing import Array, ArrayLike
from nnx._base.vocabulary import built_in
from nnx._base.weights import checked_weights, weighted

__all__ = [
    "Accuracy",
    "Accuracy_Categorical",
    "Accuracy_Regression",
]


class Accuracy(Described):
    """Base class of all accuracies. Derive custom ones from it.

    A subclass defines ``compare(predictions, y)``, which returns an array of booleans: True for a correct prediction.
    It may return numbers too, which are averaged. It need not call this class's constructor.

    Attributes
    ----------
    accumulated_sum, accumulated_count : float, int
        Correct predictions and comparisons since ``new_pass``. If samples have weights, each comparison has the weight
        of its sample, and both are floats.
    """

    accumulated_sum: float = 0.0
    accumulated_count: float = 0

    def init(self, y: ArrayLike, reinit: bool = False) -> None:
        """Prepare the comparison from the training targets. The base class needs nothing."""

    def compare(self, predictions: Any, y: Any) -> Array:
        """Return where ``predictions`` hit ``y``."""
        raise NotImplementedError(f"{type(self).__name__} does not define compare(predictions, y).")

    def calculate(self, predictions: Any, y: Any, *, sample_weight: ArrayLike | None = None) -> float:
        """Return the fraction of a batch's predictions that are correct, and add them to the pass.

        Parameters
        ----------
        predictions, y : arrays
            As `compare` takes them.
        sample_weight : array (n,), optional
            The weight w of each sample, at least 0. The fraction is Σ w·correct / Σ w. If all weights are 0, it is 0.
        """
        comparisons = np.asarray(self.compare(predictions, y))
        if comparisons.size == 0:
            raise ValueError(f"{type(self).__name__}.calculate: predictions must have at least one row, got none.")
        count: float = comparisons.size
        if sample_weight is not None:
            where = f"{type(self).__name__}.calculate"
            n_rows = len(comparisons) if comparisons.ndim else 0
            weights = checked_weights(where, "sample_weight", sample_weight, n_rows)
            count = float(np.add.reduce(weights)) * (comparisons.size // n_rows)
            comparisons = weighted(comparisons.astype(np.float64), weights)
        if comparisons.dtype == np.bool_:
            hits = float(np.count_nonzero(comparisons))
        else:
            hits = float(np.add.reduce(comparisons, axis=None, dtype=np.float64))
        self.accumulated_sum += hits
        self.accumulated_count += count
        return hits / count if count else 0.0

    def calculate_accumulated(self) -> float:
        """Return the fraction of correct predictions since ``new_pass``."""
        if self.accumulated_count == 0:
            raise RuntimeError(
                f"{type(self).__name__}.calculate_accumulated: there is nothing to average yet. Call calculate first."
            )
        return self.accumulated_sum / self.accumulated_count

    def new_pass(self) -> None:
        """Forget the comparisons counted so far."""
        self.accumulated_sum = 0.0
        self.accumulated_count = 0


@built_in("accuracy")
class Accuracy_Categorical(Accuracy):
    """The fraction of samples whose class is correct or, if ``binary``, the fraction of correct outputs.

    Parameters
    ----------
    binary : bool
        True for the 0-or-1 predictions of sigmoid outputs, which are compared one by one.

    Notes
    -----
    Chapters 5, 16 and 18 of the book.

    Examples
    --------
    >>> from nnx import Accuracy_Categorical
    >>> float(Accuracy_Categorical().calculate([0, 1, 1], [0, 1, 2])) == 2 / 3
    True
    """

    #: What it judges.
    _predicts: ClassVar[str] = "classes"

    _arguments: ClassVar[tuple[str, ...]] = ("binary",)

    binary: bool = False

    def __init__(self, *, binary: bool = False) -> None:
        self.binary = check.flag("Accuracy_Categorical", "binary", binary)

    def compare(self, predictions: ArrayLike, y: ArrayLike) -> Array:
        """Return where predictions equal targets.

        Parameters
        ----------
        predictions : array (n,)
            Class numbers. Scores, shape (n, classes), count as the class of their maximum. With ``binary``, an array of
            any shape.
        y : array (n,), (n, 1) or one-hot (n, classes)
            With ``binary``, an array of the predictions' shape; (n,) stands for (n, 1).
        """
        where = "Accuracy_Categorical.compare"
        predictions = check.plain(where, "predictions", predictions)
        y = check.plain(where, "y", y)
        if not self.binary:
            if y.ndim == 2 and y.shape[1] > 1:
                y = check.one_hot(f"{where} (pass binary=True to compare elements)", "y", y)
            predictions, y = _classes(where, "predictions", predictions), _classes(where, "y", y)
        return np.asarray(predictions == check.shaped(where, "y", y, predictions.shape))


def _classes(where: str, name: str, values: Array) -> Array:
    """Return class numbers, shape (n,), from class numbers, from a column of them, or from rows of scores."""
    if values.ndim != 2:
        return values
    if values.shape[1] == 0:
        raise ValueError(f"{where}: {name} must have at least one column, got shape {values.shape}.")
    return values[:, 0] if values.shape[1] == 1 else np.argmax(values, axis=1)


@built_in("accuracy")
class Accuracy_Regression(Accuracy):
    """The fraction of predictions that differ from their target by less than ``precision``.

    Attributes
    ----------
    precision : float or None
        A 250th of the standard deviation of the targets; None before the first ``init``, which `Model.train` calls.

    Notes
    -----
    Chapter 17 of the book. Each output counts, so the result is from 0 to 1 for several outputs, too.
    """

    #: What it judges.
    _predicts: ClassVar[str] = "numbers"

    precision: float | None = None

    def init(self, y: ArrayLike, reinit: bool = False) -> None:
        """Set ``precision`` from the training targets. If it is set already, only ``reinit`` changes it."""
        if self.precision is None or reinit:
            precision = _precision(check.plain("Accuracy_Regression.init", "y", y))
            # Targets with a NaN, which train accepts on request, give no precision.
            self.precision = precision if math.isfinite(precision) else None

    def calculate(self, predictions: Any, y: Any, *, sample_weight: ArrayLike | None = None) -> float:
        """Return the fraction of a batch's predictions that are correct, and add them to the pass.

        Parameters
        ----------
        predictions, y : arrays
            As `compare` takes them.
        sample_weight : array (n,), optional
            The weight of each sample, as in `Accuracy.calculate`.
        """
        precision = self.precision
        counts = sample_weight is None and type(self).compare is COMPARE and "compare" not in vars(self)
        fit = counts and _kernels.readable(predictions, None, None) and _kernels.alike(y, predictions)
        if not fit or predictions.size == 0 or type(precision) is not float:
            return super().calculate(predictions, y, sample_weight=sample_weight)
        hits = float(_kernels.backend.near_count(predictions, y, precision))
        self.accumulated_sum += hits
        self.accumulated_count += predictions.size
        return hits / predictions.size  # type: ignore[no-any-return]

    def compare(self, predictions: ArrayLike, y: ArrayLike) -> Array:
        """Return where ``|predictions − y| < precision``; y of shape (n,) stands for (n, 1).

        Before ``init``, the precision comes from this ``y``.
        """
        where = "Accuracy_Regression.compare"
        predictions = check.plain(where, "predictions", predictions)
        y = check.plain(where, "y", y)
        precision = _precision(y) if self.precision is None else self.precision
        y = check.shaped(where, "y", y, predictions.shape)
        return np.asarray(np.absolute(predictions - y.astype(np.float64, copy=False)) < precision)


#: Kernels count in place of this method. If a class has another one, that one is called.
COMPARE = Accuracy_Regression.compare


def _precision(y: Array) -> float:
    return float(np.std(y, dtype=np.float64)) / 250
