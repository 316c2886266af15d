"""The figures that tell how good a model is, as `nnx train` and `nnx evaluate` print them."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nnx._base.printing import figure_text
from nnx.data.tables import Table
from nnx.scoring.importance import BATCH, Importance, permutation_importance
from nnx.scoring.reports import Figure, Report, one_line

if TYPE_CHECKING:
    from nnx import Ensemble, Model
    from nnx._base.typing import Array
    from nnx.cli.tasks import Task


def report(model: Model | Ensemble, X: Array, y: Array) -> Report:
    """Return the figures of a model's predictions of ``y`` from ``X``."""
    return model.report(X, y, batch_size=BATCH)


def details(report: Report) -> list[str]:
    """Return the lines below that of a report: what the baseline is, and the figures of each class."""
    further = ", ".join(f"{each.name} {each.text(each.value)}" for each in report.further)
    return [
        f"baseline  {report.baseline_answer}; its scores are in parentheses",
        *([f"further   {further}"] if further else []),
        *(f"  {line}" for line in report.table),
    ]


def warn(program: str, report: Report, data: str, advice: str) -> None:
    """Say on stderr that a model is worse than guessing, or no better, if that is so."""
    if report.verdict:
        score = report.figures[0]
        print(
            f"{program}: WARNING: this model is {report.verdict} {report.baseline_answer}: {score.name} "
            f"{score.text(score.value)} on {data}, the baseline has {score.baseline_text}. {advice}",
            file=sys.stderr,
        )


class Judgement(NamedTuple):
    """What a training has come to."""

    training: Report
    test: Report | None

    @property
    def main(self) -> Report:
        """The report that counts: that of the test data, if there are any."""
        return self.test or self.training

    @property
    def part(self) -> str:
        """Which data that report is of."""
        return "test" if self.test else "training"

    def lines(self) -> list[str]:
        """Return what is printed."""
        lines = [f"training  {self.training.line}"]
        if self.test:
            lines.append(f"test      {self.test.line}")
        return lines + details(self.main)

    def warn(self, one_network: bool = True) -> None:
        """Say on stderr that the model is no better than guessing, if that is so, and what to try."""
        if not one_network:
            advice = "The columns may have nothing to do with the target. Try more rows, or other columns."
        elif self.training.verdict:
            advice = "Try a smaller --rate, or more --epochs."
        else:
            advice = "It is better on the training data. Try more rows, fewer --epochs, a larger --l2, or --dropout."
        warn("nnx train", self.main, f"the {self.part} data", advice)


def judge(model: Model, task: Task) -> Judgement:
    """Return the figures of a model on the data that it was trained on, and on the test data."""
    test = report(model, *task.held_out) if task.held_out else None
    return Judgement(report(model, task.X, task.y), test)


#: More columns than this are not ranked: it would take longer than the training.
MAX_RANKED = 300
#: How often a column is shuffled; rows of all columns, and of one, that are predicted at a time.
REPEATS, ROWS_OF_ALL, MIN_ROWS, MAX_ROWS = 5, 60_000, 200, 2000
#: How many columns are named.
MAX_NAMED = 5


def importance(model: Model, task: Task) -> Importance | None:
    """Return how much each column of a table matters on the test rows; None where that says nothing."""
    if not isinstance(task.table, Table) or task.held_out is None or not 2 <= len(task.table.inputs) <= MAX_RANKED:
        return None
    rows = min(MAX_ROWS, max(MIN_ROWS, ROWS_OF_ALL // len(task.table.inputs)))
    try:
        return permutation_importance(model, *task.held_out, n_repeats=REPEATS, max_rows=rows)
    except ValueError:  # a single row, or one that has no score
        return None


#: What a figure falls by at least, to be worth a word.
LEAST_FALL = 1e-9


def importance_lines(found: Importance | None) -> list[str]:
    """Return which columns matter most, as a line; none if there is nothing to say."""
    if found is None:
        return []
    named = [
        f"{one_line(found.columns[position])} {figure_text(float(found.means[position]))}"
        for position in found.order[:MAX_NAMED]
        if found.means[position] > LEAST_FALL
    ]
    if not named:
        return [f"columns   {found.figure} falls for none of them when its values are shuffled"]
    which = f"the {MAX_NAMED} most important" if len(found.order) > MAX_NAMED else "by importance"
    return [f"columns   {which}, and how far {found.figure} falls when each is shuffled: {', '.join(named)}"]


def spread(reports: Sequence[Report], of: str) -> list[str]:
    """Return mean, standard deviation and range of the main figures of several trainings, as lines."""
    lines = [f"{len(reports)} {of}: mean ± standard deviation (lowest to highest)"]
    for number, figure in enumerate(reports[0].figures):
        lines.append(_spread_line(figure.name, figure, [each.figures[number].value for each in reports]))
        if figure.is_amount or (number == 0 and figure.baseline):
            lines.append(_spread_line("  baseline", figure, [each.figures[number].baseline for each in reports]))
    return lines


def _spread_line(name: str, figure: Figure, values: list[float]) -> str:
    defined = [value for value in values if not math.isnan(value)]
    if not defined:
        return f"{name:<20}undefined"
    deviation = statistics.stdev(defined) if len(defined) > 1 else 0.0
    mean, low, high = statistics.fmean(defined), min(defined), max(defined)
    return f"{name:<20}{figure.text(mean)} ± {figure.text(deviation)}  ({figure.text(low)} to {figure.text(high)})"


def warn_of_folds(reports: Sequence[Report]) -> None:
    """Say on stderr that models of a cross-validation are no better than the baseline, if they are not."""
    told = told_of_folds(reports)
    if told:
        print(f"nnx train: WARNING: {told}", file=sys.stderr)


def told_of_folds(reports: Sequence[Report]) -> str:
    """Return what there is to say of models that are on average no better than the baseline; nothing if they are."""
    scores = [each.figures[0] for each in reports]
    mean, base = (statistics.fmean(getattr(each, name) for each in scores) for name in ("value", "baseline"))
    if mean > base:
        return ""
    word = "worse" if mean < base else "no better"
    own, other, name = scores[0].text(mean), scores[0].text(base), scores[0].name
    return (
        f"such models are {word} than {reports[0].baseline_answer}: mean {name} {own} over the folds, the baseline has "
        f"{other}. The columns may have nothing to do with the target. Try more rows, or other columns."
    )
