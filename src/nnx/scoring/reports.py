"""Reports: the usual metrics of a model, as attributes and as text.

`nnx.scoring.evaluation` computes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from nnx._base.printing import amount_text, figure_text
from nnx._base.typing import Array
from nnx.data.sheet import shown

#: A report prints the figures of each class, or of each output, if there are no more than this.
MAX_SHOWN = 20


class Figure(NamedTuple):
    """A figure, what it is without a model, and how both are written."""

    name: str
    value: float
    baseline: float
    is_amount: bool = False
    #: Why it is NaN, if it is.
    undefined: str = ""

    def text(self, value: float) -> str:
        """Return a value of this figure as people write it."""
        if math.isnan(value):
            return "undefined"
        return amount_text(value) if self.is_amount else figure_text(value)

    @property
    def baseline_text(self) -> str:
        """The baseline as people write it; R² of the mean is 0, and not rounded to it."""
        return self.text(self.baseline) if self.baseline else "0"


class Report:
    """Base class of both reports. ``print`` shows it, and its attributes hold the metrics.

    A metric that the data leave undefined is NaN as an attribute, and None in `to_dict`.
    """

    n_samples: int
    #: What the baseline answers: "always predicting 'cat'".
    baseline_answer: str

    @property
    def figures(self) -> list[Figure]:
        """The main metrics; the first is the score."""
        raise NotImplementedError

    @property
    def further(self) -> list[Figure]:
        """Figures that `line` leaves out; they have no baseline."""
        return []

    @property
    def table(self) -> list[str]:
        """The figures of each class, or output, as lines; empty if there are more than 20."""
        raise NotImplementedError

    @property
    def score(self) -> float:
        """Accuracy, or R²."""
        return self.figures[0].value

    @property
    def verdict(self) -> str:
        """What the score is beside the baseline: "worse than", "no better than", or "" for better."""
        score, baseline = self.figures[0].value, self.figures[0].baseline
        if score < baseline:
            return "worse than"
        return "no better than" if score == baseline < 1 else ""

    @property
    def line(self) -> str:
        """The main figures on one line; brackets hold the baseline's."""
        parts = []
        for number, figure in enumerate(self.figures):
            baseline = figure.baseline_text
            if math.isnan(figure.value):
                parts.append(f"{figure.name} undefined ({figure.undefined})")
                continue
            parts.append(f"{figure.name} {figure.text(figure.value)}")
            if number == 0:
                parts[0] += f" ({f'{self.verdict} the ' if self.verdict else ''}baseline {baseline})"
            else:
                parts[-1] += f" ({baseline})"
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as ints, floats, texts and lists of them."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}  # type: ignore[arg-type]

    def __str__(self) -> str:
        rows = []
        for number, figure in enumerate(self.figures):
            remark = f"baseline {figure.baseline_text}"
            if number == 0:
                remark = f"{f'{self.verdict} the ' if self.verdict else ''}{remark} ({self.baseline_answer})"
            if math.isnan(figure.value):
                remark = figure.undefined
            rows.append((figure.name, figure.text(figure.value), remark))
        rows += [(each.name, each.text(each.value), "") for each in self.further]
        rows.append(("samples", f"{self.n_samples:,}", ""))
        return "\n".join([*aligned(rows, remarks=True), "", *self.table]).rstrip()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, eq=False, repr=False)
class ClassificationReport(Report):
    """How well a model tells classes apart.

    Several sigmoid outputs are judged value by value: then ``classes`` are the outputs, and recall, precision and
    counts are those of the value 1.

    Attributes
    ----------
    n_samples : int
        Those of weight 0 are not counted.
    accuracy : float
        The share of correct predictions; also called ``score``.
    baseline : float
        The accuracy of always predicting the largest class of these data; with several sigmoid outputs, of always
        predicting the more frequent value of each.
    baseline_answer : str
        What that is: ``"always predicting 'cat'"``.
    balanced_accuracy : float
        The mean recall of the classes that have samples; with several sigmoid outputs, of both values of each.
    baseline_balanced_accuracy : float
    log_loss : float
        The mean of −log(probability of the true class), clipped to [1e-7, 1 − 1e-7], as losses do by default; NaN if
        the outputs are no probabilities.
    baseline_log_loss : float
        Of always predicting the classes' shares in these data.
    auc : float
        The area under the ROC curve, for two classes; with several sigmoid outputs, their mean. NaN for more classes,
        and if only one class has samples.
    mean_f1 : float
        The mean of ``f1`` over the classes that have samples or predictions.
    calibration_error : float
        How far probabilities are from how often they come true, on average, in 15 bins of equal width: those of the
        second of two classes, those of the predicted one of more classes; with several sigmoid outputs, their mean.
        NaN if the outputs are no probabilities.
    classes : tuple of str
        Their names, or numbers.
    recall, precision : float64 arrays (k,)
        The share of each class's samples that was found, and of its predictions that is correct. NaN for a class
        without samples, or without predictions.
    f1 : float64 array (k,)
        Their harmonic mean; NaN for a class with neither samples nor predictions.
    class_counts : intp array (k,)
        Samples of each class; where samples have weights, the sum of these, float64.
    """

    n_samples: int
    accuracy: float
    baseline: float
    baseline_answer: str
    balanced_accuracy: float
    baseline_balanced_accuracy: float
    log_loss: float
    baseline_log_loss: float
    auc: float
    mean_f1: float
    calibration_error: float
    classes: tuple[str, ...]
    recall: Array
    precision: Array
    f1: Array
    class_counts: Array

    @property
    def figures(self) -> list[Figure]:
        """Accuracy, balanced accuracy, log loss if outputs are probabilities, AUC for two classes."""
        found = [
            Figure("accuracy", self.accuracy, self.baseline),
            Figure("balanced accuracy", self.balanced_accuracy, self.baseline_balanced_accuracy),
        ]
        if not math.isnan(self.log_loss):
            found.append(Figure("log loss", self.log_loss, self.baseline_log_loss))
        if len(self.classes) == 2 or not math.isnan(self.auc):
            found.append(Figure("AUC", self.auc, 0.5, undefined="only one class has samples"))
        return found

    @property
    def further(self) -> list[Figure]:
        """The mean F1, and the calibration error if outputs are probabilities."""
        found = [Figure("mean F1", self.mean_f1, 0.0)]
        if not math.isnan(self.calibration_error):
            found.append(Figure("calibration error", self.calibration_error, 0.0))
        return found

    @property
    def table(self) -> list[str]:
        """Recall, precision, F1 and samples of each class as lines; empty if there are more than 20 classes."""
        if len(self.classes) > MAX_SHOWN:
            return []
        each = zip(self.classes, self.recall, self.precision, self.f1, self.class_counts, strict=True)
        rows = [(one_line(name), share_text(r), share_text(p), share_text(f), _count(n)) for name, r, p, f, n in each]
        return list(aligned([("class", "recall", "precision", "F1", "samples"), *rows]))


@dataclass(frozen=True, eq=False, repr=False)
class RegressionReport(Report):
    """How near a model's numbers come to the true ones: in the target's units if the model has a ``table``.

    Of several outputs, each figure is the mean; R² that of the outputs whose targets are not all the same.

    Attributes
    ----------
    n_samples : int
    r_squared : float
        1 − Σ(y − ŷ)² / Σ(y − ȳ)²; also called ``score``. NaN if all targets are the same.
    mean_absolute_error, root_mean_squared_error : float
    baseline : float
        R² of always predicting the mean of these targets: 0.
    baseline_answer : str
    baseline_mean_absolute_error, baseline_root_mean_squared_error : float
        Of always predicting the mean of these targets.
    r_squared_by_output, mean_absolute_error_by_output, root_mean_squared_error_by_output : float64 arrays (m,)
    """

    n_samples: int
    r_squared: float
    mean_absolute_error: float
    root_mean_squared_error: float
    baseline: float
    baseline_answer: str
    baseline_mean_absolute_error: float
    baseline_root_mean_squared_error: float
    r_squared_by_output: Array
    mean_absolute_error_by_output: Array
    root_mean_squared_error_by_output: Array

    @property
    def figures(self) -> list[Figure]:
        """R², mean absolute error, root of the mean squared error."""
        error, rmse = self.baseline_mean_absolute_error, self.baseline_root_mean_squared_error
        return [
            Figure("R²", self.r_squared, self.baseline, undefined="all targets are the same"),
            Figure("mean absolute error", self.mean_absolute_error, error, is_amount=True),
            Figure("RMSE", self.root_mean_squared_error, rmse, is_amount=True),
        ]

    @property
    def table(self) -> list[str]:
        """The figures of each output as lines; empty for a single output, and for more than 20."""
        if not 1 < len(self.r_squared_by_output) <= MAX_SHOWN:
            return []
        each = zip(
            self.r_squared_by_output,
            self.mean_absolute_error_by_output,
            self.root_mean_squared_error_by_output,
            strict=True,
        )
        rows = [
            (f"output {number}", share_text(r), amount_text(error), amount_text(rmse))
            for number, (r, error, rmse) in enumerate(each)
        ]
        return list(aligned([("output", "R²", "mean absolute error", "RMSE"), *rows]))


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: arrays and tuples as lists, NaN as None."""
    if isinstance(value, np.ndarray | tuple):
        return [_plain(each) for each in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and math.isnan(value) else value


def aligned(rows: Sequence[tuple[str, ...]], remarks: bool = False) -> Iterator[str]:
    """Yield rows of texts as aligned lines: the first column flush left, others flush right, remarks at the end."""
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if remarks:
        wide[-1] = 0
    for row in rows:
        figures = (f"{cell:>{width}}" for cell, width in zip(row[1:], wide[1:], strict=True))
        yield "  ".join([f"{row[0]:<{wide[0]}}", *figures]).rstrip()


def _count(n: Any) -> str:
    """Return a number of samples, or the sum of their weights."""
    return f"{n:,}" if isinstance(n, np.integer) else f"{n:,.6g}"


def share_text(value: float) -> str:
    """Return a recall or precision; a dash where there is nothing to have a share of."""
    return "-" if math.isnan(value) else figure_text(value)


def one_line(name: str) -> str:
    """Return a class's name on one line, and not too long."""
    return name if name.isprintable() and 0 < len(name) <= 40 else shown(name)
