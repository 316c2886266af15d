"""From a model and data to the figures by which people judge it, each beside a baseline: `Model.score`, `Model.report`.

The baseline is the best answer that needs no inputs: always the largest class, or always the mean. Class and mean are
those of the data at hand, not of the training data. So a report needs no other data, and R² of the baseline is 0.
"""

from __future__ import annotations

import math

import numpy as np

from nnx._base import check
from nnx._base.network import Network
from nnx._base.typing import Array, ArrayLike
from nnx._base.weights import checked_weights
from nnx.accuracy import Accuracy_Categorical
from nnx.data.columns import Number
from nnx.data.sheet import shown
from nnx.engine.data_checks import checked_samples
from nnx.losses import Answers, answers
from nnx.scoring import metrics
from nnx.scoring.reports import ClassificationReport, RegressionReport, Report


def report(
    model: Network,
    where: str,
    X: ArrayLike,
    y: ArrayLike,
    batch_size: int | None,
    sample_weight: ArrayLike | None = None,
) -> Report:
    """Return a model's report; `Model.report` says what it takes and refuses."""
    samples = checked_samples(model, where, "X", X)
    if len(samples) == 0:
        raise ValueError(f"{where}: X must have at least one row, got none.")
    given = check.plain(where, "y", y)
    if given.ndim == 0 or len(given) != len(samples):
        raise ValueError(
            f"{where}: y must have one row for each of the {len(samples)} rows of X, got shape {given.shape}."
        )
    weights = None
    if sample_weight is not None:
        weights = checked_weights(where, "sample_weight", sample_weight, len(samples))
        counts = weights > 0
        if not counts.any():
            raise ValueError(f"{where}: sample_weight must leave at least one sample, got 0 for all {len(samples)}.")
        samples, given, weights = samples[counts], given[counts], weights[counts]
    _check_finite(where, "X", samples)
    outputs = np.asarray(model.predict(samples, batch_size=batch_size))
    outputs = outputs.reshape(-1, 1) if outputs.ndim == 1 else outputs
    if outputs.ndim != 2 or len(outputs) != len(samples):
        raise ValueError(f"{where}: the model's outputs must have shape (n, outputs), got {outputs.shape}.")
    _check_finite(where, "the model's outputs", outputs)
    _check_finite(where, "y", given)
    if not _predicts_classes(model, where):
        numbers = _answers(model, "numbers")
        given = numbers.targets(given, outputs.shape[1])
        return _regression(model, where, numbers.of(outputs.astype(np.float64), False), given, weights)
    if _answers(model, "classes").signs and given.dtype.kind in "iuf" and (np.absolute(given) == 1).all():
        given = (given > 0).astype(np.intp)
    if outputs.shape[1] > 1 and _judged_by_value(model):
        return _several_binary(model, where, outputs, given, weights)
    return _classification(model, where, outputs, given, weights)


def classes(model: Network, where: str, X: ArrayLike, batch_size: int | None) -> Array:
    """Return what classes a model predicts; `Model.predict_classes` says what it takes and refuses."""
    samples = checked_samples(model, where, "X", X)
    if not _predicts_classes(model, where):
        raise TypeError(f"{where}: the model must predict classes, and it predicts numbers. Call predict.")
    outputs = np.asarray(model.predict(samples, batch_size=batch_size))
    predictions = getattr(model.output_layer_activation, "predictions", None)
    made = np.asarray(outputs if predictions is None else predictions(outputs))
    if predictions is None and made.ndim == 1:  # a custom layer has a single output
        made = made.reshape(-1, 1)
    made = np.asarray(_answers(model, "classes").of(made, _judged_by_value(model)))
    if made.dtype.kind == "f" and made.ndim == 2:  # scores
        made = np.argmax(made, axis=1) if made.shape[1] > 1 and not _judged_by_value(model) else made > _cut(model)
    return np.asarray(made.astype(np.intp))


def _answers(model: Network, predicts: str) -> Answers:
    """Return what of the outputs is compared with targets."""
    return answers(model.loss, model.output_layer_activation, predicts)


def _check_finite(where: str, name: str, values: Array) -> None:
    good = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"{where}: {name} must be finite numbers, got {values[row].tolist()} in row {row}.")


def _predicts_classes(model: Network, where: str) -> bool:
    """Return whether a model predicts classes, or numbers."""
    if model.preprocessor is not None:
        return model.preprocessor.classes is not None
    for part in (model.accuracy, model.loss, model.output_layer_activation):
        predicts = getattr(part, "_predicts", "")
        if predicts:
            return bool(predicts != "numbers")
    raise TypeError(
        f"{where}: accuracy must tell whether the model predicts classes or numbers, got {model.accuracy!r}. Call "
        "model.set(accuracy=Accuracy_Categorical()) or model.set(accuracy=Accuracy_Regression())."
    )


def _judged_by_value(model: Network) -> bool:
    """Return whether each of several outputs answers a question of its own with 0 or 1."""
    if model.preprocessor is not None:
        return False
    if isinstance(model.accuracy, Accuracy_Categorical):
        return model.accuracy.binary
    return getattr(model.output_layer_activation, "_predicts", "") == "binary"


def _has_probabilities(model: Network) -> bool:
    last = getattr(model.output_layer_activation, "_predicts", "")
    return last in ("classes", "binary") or getattr(model.loss, "_needs_pair", False)


def _classification(
    model: Network, where: str, outputs: Array, y: Array, weights: Array | None
) -> ClassificationReport:
    """Judge class scores, one column a class, or a single column: the score of the second of two classes."""
    single = outputs.shape[1] == 1
    n_classes = 2 if single else outputs.shape[1]
    true = _zeros_and_ones(where, y, outputs.shape)[:, 0] if single else _labels(where, "y", y, outputs.shape)
    predicted = _predicted(model, where, outputs, n_classes)
    counts = metrics.count(true, predicted, n_classes, weights)
    scores, probable = outputs.astype(np.float64), _has_probabilities(model)
    if single:
        scores = np.hstack([1 - scores, scores])
    names = None if model.preprocessor is None else model.preprocessor.classes
    classes = tuple(map(str, range(n_classes))) if names is None or len(names) != n_classes else names
    second = scores[:, 1] if single or probable else scores[:, 1] - scores[:, 0]
    shares = counts.samples / counts.samples.sum()
    return ClassificationReport(
        n_samples=len(true),
        accuracy=metrics.accuracy(counts),
        baseline=float(shares.max()),
        baseline_answer=f"always predicting {shown(classes[int(np.argmax(shares))])}",
        balanced_accuracy=metrics.balanced_accuracy(counts),
        baseline_balanced_accuracy=1 / int(np.count_nonzero(counts.samples)),
        log_loss=metrics.log_loss(scores[np.arange(len(true)), true], weights) if probable else math.nan,
        baseline_log_loss=metrics.log_loss(shares[true], weights),
        auc=metrics.roc_auc(true, second, weights) if n_classes == 2 else math.nan,
        mean_f1=_mean_of_defined(metrics.f1(counts)),
        calibration_error=metrics.calibration_error(_reliability(true, predicted, scores, weights))
        if probable
        else math.nan,
        classes=classes,
        recall=metrics.recall(counts),
        precision=metrics.precision(counts),
        f1=metrics.f1(counts),
        class_counts=counts.samples,
    )


def _reliability(true: Array, predicted: Array, scores: Array, weights: Array | None) -> metrics.Reliability:
    """Return the reliability curve of the second of two classes, or of the predicted one of more."""
    if scores.shape[1] == 2:
        return metrics.reliability(true, scores[:, 1], weights=weights)
    sure = scores[np.arange(len(true)), predicted]
    return metrics.reliability((true == predicted).astype(np.float64), sure, weights=weights)


def _labels(where: str, name: str, values: Array, shape: tuple[int, ...]) -> Array:
    """Return class numbers, also those that come as floats: the accuracy takes them too."""
    if values.dtype.kind == "f" and values.shape in (shape[:1], (shape[0], 1)) and bool(np.all(values % 1 == 0)):
        values = values.astype(np.intp)
    return check.labels(where, name, values, *shape)


def _predicted(model: Network, where: str, outputs: Array, n_classes: int) -> Array:
    """Return the class numbers that the last layer's ``predictions`` make of the outputs."""
    predictions = getattr(model.output_layer_activation, "predictions", None)
    predicted = np.asarray(outputs if predictions is None else predictions(outputs))
    if predicted.ndim == 2:
        predicted = predicted[:, 0] if predicted.shape[1] == 1 else np.argmax(predicted, axis=1)
    if outputs.shape[1] == 1:
        return (predicted > _cut(model)).astype(np.intp)
    return _labels(where, "the model's predictions", predicted, (len(outputs), n_classes))


def _cut(model: Network) -> float:
    """Return above what an output says 1, not 0."""
    return 0.0 if _answers(model, "classes").signs else 0.5


def _zeros_and_ones(where: str, y: Array, shape: tuple[int, ...]) -> Array:
    values = check.shaped(where, "y", y, shape)
    good = (values == 0) | (values == 1)
    if not good.all():
        row, column = (int(i) for i in np.argwhere(~good)[0])
        raise ValueError(f"{where}: y must hold 0 or 1, got {values[row, column]} in row {row}, column {column}.")
    return values.astype(np.intp)


def _several_binary(
    model: Network, where: str, outputs: Array, y: Array, weights: Array | None
) -> ClassificationReport:
    """Judge several sigmoid outputs, each value by itself."""
    true, scores = _zeros_and_ones(where, y, outputs.shape), outputs.astype(np.float64)
    pairs = list(zip(true.T, scores.T, strict=True))
    counts = [metrics.count(t, (s > _cut(model)).astype(np.intp), 2, weights) for t, s in pairs]
    probable = not _answers(model, "classes").signs
    shares = np.average(true, axis=0, weights=weights)
    f1 = np.array([metrics.f1(each)[1] for each in counts])
    return ClassificationReport(
        n_samples=len(true),
        accuracy=float(np.mean([metrics.accuracy(each) for each in counts])),
        baseline=float(np.maximum(shares, 1 - shares).mean()),
        baseline_answer="always predicting the more frequent value of each output",
        balanced_accuracy=float(np.mean([metrics.balanced_accuracy(each) for each in counts])),
        baseline_balanced_accuracy=float(np.mean([1 / np.count_nonzero(each.samples) for each in counts])),
        log_loss=metrics.log_loss(np.where(true == 1, scores, 1 - scores), weights) if probable else math.nan,
        baseline_log_loss=metrics.log_loss(np.where(true == 1, shares, 1 - shares), weights),
        auc=_mean_of_defined(np.array([metrics.roc_auc(t, s, weights) for t, s in pairs])),
        mean_f1=_mean_of_defined(f1),
        calibration_error=float(
            np.mean([metrics.calibration_error(metrics.reliability(t, s, weights=weights)) for t, s in pairs])
        )
        if probable
        else math.nan,
        classes=tuple(f"output {number}" for number in range(outputs.shape[1])),
        recall=np.array([metrics.recall(each)[1] for each in counts]),
        precision=np.array([metrics.precision(each)[1] for each in counts]),
        f1=f1,
        class_counts=np.array([each.samples[1] for each in counts]),
    )


def _regression(model: Network, where: str, outputs: Array, y: Array, weights: Array | None) -> RegressionReport:
    """Judge numbers, in the target's own units where the model's table knows them."""
    true = check.targets(where, "y", y, outputs.shape, np.dtype(np.float64))
    if model.table is not None and isinstance(column := model.table.target, Number) and outputs.shape[1] == 1:
        true, outputs = (values * column.scale + column.mean for values in (true, outputs))
    mean = np.broadcast_to(np.average(true, axis=0, weights=weights), true.shape)
    r_squared = metrics.r_squared(true, outputs, weights)
    error, without = (metrics.mean_absolute_error(true, each, weights) for each in (outputs, mean))
    rmse, rmse_without = (metrics.root_mean_squared_error(true, each, weights) for each in (outputs, mean))
    return RegressionReport(
        n_samples=len(true),
        r_squared=_mean_of_defined(r_squared),
        mean_absolute_error=float(error.mean()),
        root_mean_squared_error=float(rmse.mean()),
        baseline=0.0,
        baseline_answer="always predicting the mean",
        baseline_mean_absolute_error=float(without.mean()),
        baseline_root_mean_squared_error=float(rmse_without.mean()),
        r_squared_by_output=r_squared,
        mean_absolute_error_by_output=error,
        root_mean_squared_error_by_output=rmse,
    )


def _mean_of_defined(values: Array) -> float:
    """Return the mean of the numbers among values that may be NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
