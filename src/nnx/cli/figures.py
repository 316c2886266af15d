"""The figures that tell how good a model is, as `nnx train` and `nnx evaluate` print them."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nnx.scoring.reports import Figure, Report

if TYPE_CHECKING:
    from nnx import Ensemble, Model
    from nnx._base.typing import Array
    from nnx.cli.tasks import Task

#: Rows at a time: enough to keep NumPy busy, few enough to fit into a cache.
BATCH = 1024


def report(model: Model | Ensemble, X: Array, y: Array) -> Report:
    """Return the figures of a model's predictions of ``y`` from ``X``."""
    return model.report(X, y, batch_size=BATCH)


def details(report: Report) -> list[str]:
    """Return the lines below that of a report: what the baseline is, and the figures of each class."""
    return [f"baseline  {report.baseline_answer} (figures in brackets)", *(f"  {line}" for line in report.table)]


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

    def warn(self) -> None:
        """Say on stderr that the model is no better than guessing, if that is so, and what to try."""
        if self.training.verdict:
            advice = "Try a smaller --rate, or more --epochs."
        else:
            advice = "It is better on the training data. Try more rows, fewer --epochs, a larger --l2, or --dropout."
        warn("nnx train", self.main, f"the {self.part} data", advice)


def judge(model: Model, task: Task) -> Judgement:
    """Return the figures of a model on the data that it was trained on, and on the test data."""
    test = report(model, *task.held_out) if task.held_out else None
    return Judgement(report(model, task.X, task.y), test)


def spread(reports: Sequence[Report], part: str) -> list[str]:
    """Return mean, standard deviation and range of the main figures of several runs, as lines."""
    lines = [f"{len(reports)} runs, {part} data: mean ± standard deviation (lowest to highest)"]
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
