"""Permutation importance: how much worse a model predicts when the values of one column are shuffled among the rows.

A column of a table may be several inputs of the network, such as one for each category; they are shuffled together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from nnx._base import check
from nnx._base.printing import figure_text
from nnx._base.typing import Array, ArrayLike
from nnx.scoring.reports import MAX_SHOWN, Report, aligned, one_line

#: Rows at a time: enough to keep NumPy busy, few enough to fit into a cache.
BATCH = 1024


class Judged(Protocol):
    """What can be judged: a `Model`, or whatever else has a report and perhaps a table."""

    @property
    def table(self) -> Any:
        """The table that makes inputs of columns; None if there is none."""

    def report(self, X: ArrayLike, y: ArrayLike, *, batch_size: int | None = None) -> Report:
        """Return the figures of the predictions of y from X."""


@dataclass(frozen=True, eq=False, repr=False)
class Importance:
    """How much of a model's score each column carries. It prints itself, the most important columns first.

    Attributes
    ----------
    columns : tuple of str
        Names of the columns of the model's table, in its order, or "input 0", "input 1", ... without one.
    drops : float64 array (columns, n_repeats)
        How far the score falls when the column is shuffled. It is near 0, or below it, for a column that the model does
        not use.
    figure : str
        What the score is: "accuracy" or "R²".
    score : float
        The score of these rows before any column is shuffled.
    n_rows : int
        The number of rows.
    """

    columns: tuple[str, ...]
    drops: Array
    figure: str
    score: float
    n_rows: int

    @property
    def means(self) -> Array:
        """The mean drop of each column, float64 (columns,)."""
        return np.asarray(self.drops.mean(axis=1))

    @property
    def deviations(self) -> Array:
        """The standard deviation of each column's drops, float64 (columns,); 0 for a single one."""
        n_repeats = self.drops.shape[1]
        return np.asarray(self.drops.std(axis=1, ddof=1 if n_repeats > 1 else 0))

    @property
    def order(self) -> Array:
        """The columns' positions, the most important one first; equal ones in the table's order."""
        return np.argsort(-self.means, kind="stable")

    def __str__(self) -> str:
        n_repeats = self.drops.shape[1]
        rows = [("column", f"drop of {self.figure}", "±" if n_repeats > 1 else "")]
        for position in self.order[:MAX_SHOWN]:
            deviation = figure_text(float(self.deviations[position])) if n_repeats > 1 else ""
            rows.append((one_line(self.columns[position]), figure_text(float(self.means[position])), deviation))
        more = len(self.columns) - MAX_SHOWN
        return "\n".join([*aligned(rows), *([f"and {more:,} more columns"] if more > 0 else [])])

    def __repr__(self) -> str:
        return str(self)


def permutation_importance(
    model: Judged, X: ArrayLike, y: ArrayLike, *, n_repeats: int = 5, max_rows: int = 2000, seed: int = 0
) -> Importance:
    """Return how much each column of a table matters to a model: how far the score falls when the column is shuffled.

    It shows what this model uses, not what is true of the data. If two columns hold the same information, a model may
    use either, and both can look unimportant. Use rows that the model was not trained on.

    Parameters
    ----------
    model : Model
        Finalized; anything else with ``report`` and ``table`` will do. With a table, all inputs that one of its columns
        becomes are shuffled together; without, each input is a column.
    X : array (n, n_inputs)
    y : array
        As of `Model.report`.
    n_repeats : int
        How often each column is shuffled.
    max_rows : int
        If X has more rows, this number of rows is drawn from it.
    seed : int
        Seed of that choice, and of the shuffling.

    Returns
    -------
    Importance
        Of `nnx.scoring.importance`.

    Raises
    ------
    ValueError
        If X and y do not fit each other or the model, if X has fewer than two rows, or if the score is not defined, as
        R² of targets that are all the same.

    Notes
    -----
    Breiman (2001), "Random forests", section 10; drops of the score, as in scikit-learn's
    ``inspection.permutation_importance``.

    Examples
    --------
    >>> import numpy as np, nnx
    >>> model = nnx.Model()
    >>> model.add(nnx.Layer_Dense(2, 1))
    >>> model.set(accuracy=nnx.Accuracy_Regression())
    >>> model.finalize()
    >>> model.set_parameters([([[1.0], [0.0]], [[0.0]])])  # the output is the first input
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> found = nnx.permutation_importance(model, X, X[:, :1])
    >>> found.columns, (found.means > 0).tolist()
    (('input 0', 'input 1'), [True, False])
    """
    where = "permutation_importance"
    n_repeats = check.whole(where, "n_repeats", n_repeats, 1)
    max_rows = check.whole(where, "max_rows", max_rows, 2)
    random = np.random.RandomState(check.whole(where, "seed", seed, 0, 2**32 - 1))
    inputs, targets = np.asarray(X), np.asarray(y)
    if inputs.ndim != 2 or len(inputs) < 2 or targets.shape[:1] != inputs.shape[:1]:
        raise ValueError(
            f"{where}: X must have shape (n, inputs) with two rows or more, and y as many rows, got {inputs.shape} and "
            f"{targets.shape}."
        )
    if len(inputs) > max_rows:
        drawn = np.sort(random.permutation(len(inputs))[:max_rows])
        inputs, targets = inputs[drawn], targets[drawn]
    figure = model.report(inputs, targets, batch_size=BATCH).figures[0]
    if np.isnan(figure.value):
        raise ValueError(f"{where}: the score must be defined for these rows, got {figure.name} undefined.")
    columns = _columns(model, inputs.shape[1])
    drops = np.zeros((len(columns), n_repeats), np.float64)
    shuffled = inputs.copy()
    for column, (_, part) in enumerate(columns):
        for repeat in range(n_repeats):
            shuffled[:, part] = inputs[random.permutation(len(inputs)), part]
            drops[column, repeat] = figure.value - model.report(shuffled, targets, batch_size=BATCH).score
        shuffled[:, part] = inputs[:, part]
    return Importance(tuple(name for name, _ in columns), drops, figure.name, figure.value, len(inputs))


def _columns(model: Judged, n_inputs: int) -> list[tuple[str, slice]]:
    """Return the columns' names, and which inputs each of them is."""
    if model.table is None:
        return [(f"input {number}", slice(number, number + 1)) for number in range(n_inputs)]
    return list(model.table.slices.items())
