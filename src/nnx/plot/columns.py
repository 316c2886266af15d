"""A picture of how much each column matters to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from nnx._base import check
from nnx._base.typing import Array
from nnx.plot.parts import COLOURS, literal, new_figure, number_axes, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches of a bar, and of what is around the bars.
BAR, AROUND = 0.28, 1.2


class Ranked(Protocol):
    """What is drawn of an `Importance`, whose module is above this one."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names."""

    @property
    def means(self) -> Array:
        """The mean drop of the score by column."""

    @property
    def deviations(self) -> Array:
        """The drops' standard deviations."""

    @property
    def order(self) -> Array:
        """The columns' positions, the most important one first."""

    @property
    def figure(self) -> str:
        """What the score is."""

    @property
    def score(self) -> float:
        """The score with all columns as they are."""

    @property
    def n_rows(self) -> int:
        """The number of rows."""


def importance(found: Ranked, ax: Axes | None = None, *, n_columns: int = 20) -> Axes:
    """Draw how far a model's score falls when a column is shuffled: one bar per column, the most important one on top.

    Parameters
    ----------
    found : Importance
        What `nnx.permutation_importance` returned. Thin lines are the standard deviations of its repeats.
    ax : matplotlib axes, optional
        Where to draw; if None, a new figure that is high enough.
    n_columns : int
        The most columns to draw.

    Returns
    -------
    The matplotlib axes.
    """
    where = "plot.importance"
    n_columns = check.whole(where, "n_columns", n_columns, 1)
    order = found.order[:n_columns]
    if ax is None:
        ax = new_figure(where, 7, importance_height(len(order))).add_subplot()
    names = [literal(shortened(found.columns[position])) for position in order]
    places = range(len(order))
    errors = {"elinewidth": 1, "ecolor": "0.3"}
    ax.barh(places, found.means[order], xerr=found.deviations[order], height=0.7, color=COLOURS[0], error_kw=errors)
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    number_axes(ax.xaxis)
    ax.set_xlabel(f"drop of {found.figure} when the column is shuffled")
    more = len(found.columns) - len(order)
    title = f"{found.figure} {found.score:.3f} on {found.n_rows:,} rows"
    ax.set_title(f"{title}; {more:,} columns more are not drawn" if more > 0 else title, fontsize="medium")
    return ax


def importance_height(n_columns: int) -> float:
    """Return the height in inches that a picture of so many columns needs."""
    return BAR * min(n_columns, 20) + AROUND
