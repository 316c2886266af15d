"""What columns become, as a caller chooses it: the keywords that `load_csv` and `Table.learn` share."""

from __future__ import annotations

from dataclasses import dataclass

from nnx._base import check
from nnx._base.text import abridged
from nnx.data.scaling import SCALINGS, STANDARD

#: What ``dates`` may say of columns whose days and months can be told apart in two ways.
DAY_FIRST, MONTH_FIRST = "day first", "month first"


@dataclass(frozen=True)
class Preparation:
    """What columns become.

    Parameters
    ----------
    scaling : "standard", "robust" or "normal"
        How numbers are scaled, by what the training rows hold. Standard: less the mean, divided by the standard
        deviation. Robust: x less the median, divided by the interquartile range, then x / √(1 + (x/3)²), which nothing
        far out leaves ±3 by. Normal: by at most 1,000 quantiles to the place that the number has in a standard normal
        distribution. The target is always standardized.
    indicators : bool
        Whether a column of numbers or dates with gaps in the training rows gets one more input, which is 1 at gaps.
    rare : int
        Categories of fewer training rows than this are pooled into one. Where there is such a pool, texts that are
        unknown later belong to it.
    one_hot : int, optional
        Columns of more categories than this one, the pool among them, become one input: the number of the category,
        from 1 on, and 0 for a gap (``Table.embedded``). There may be up to 50,000 of them then. Without it, there is an
        input for each category, and at most 256.
    dates : bool, "day first" or "month first"
        Whether columns of dates become parts of dates. A text says how to read 01/02/2020 where all dates of a column
        can be read in both ways. Without it, they are read as other columns of the table, else with the month first,
        unless the day would be the first in all of them otherwise.
    lenient : bool
        Whether columns that are no use are left out (``Table.left_out``): those that are empty or hold only one value
        in the training rows, and texts too many to be categories. Texts among numbers or dates are missing values
        then, or categories if a column of numbers holds few different values. Otherwise such columns are errors,
        and those of one value stay.
    """

    scaling: str = STANDARD
    indicators: bool = False
    rare: int = 0
    one_hot: int | None = None
    dates: bool | str = True
    lenient: bool = False

    def checked(self, where: str) -> Preparation:
        """Return itself; refuse what the keywords of a function cannot be."""
        check.one_of(where, "scaling", self.scaling, SCALINGS)
        check.flag(where, "indicators", self.indicators)
        check.whole(where, "rare", self.rare, 0)
        if self.one_hot is not None:
            check.whole(where, "one_hot", self.one_hot, 0)
        if not isinstance(self.dates, bool) and self.dates not in (DAY_FIRST, MONTH_FIRST):
            raise ValueError(
                f"{where}: dates must be True, False, {DAY_FIRST!r} or {MONTH_FIRST!r}, got {abridged(self.dates)}."
            )
        check.flag(where, "lenient", self.lenient)
        return self
