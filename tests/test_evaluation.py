"""`Model.score` and `Model.report`: the right figures of each kind of model, and the baseline beside them."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

import nnx
from nnx.data.columns import Number, Text
from nnx.scoring import metrics


def passing(*layers, width=1, **settings):
    """Return a model whose outputs are its inputs, changed only by these layers."""
    model = nnx.Model()
    model.add(nnx.Layer_Dense(width, width, dtype="float64"))
    for layer in layers:
        model.add(layer)
    model.set(**settings)
    model.finalize()
    model.set_parameters([(np.identity(width), np.zeros((1, width)))])
    return model


def classifier(classes=3, **settings):
    return passing(nnx.Activation_Softmax(), width=classes, **settings)


def binary(**settings):
    return passing(nnx.Activation_Sigmoid(), **settings)


def regression(width=1, **settings):
    return passing(nnx.Activation_Linear(), width=width, **settings)


class Custom(nnx.Activation_Linear):
    """A last layer that every loss accepts."""


def overflowing():
    model = regression()
    model.set_parameters([([[1e100]], [[0.0]])])
    return model


def logits(predicted, classes=3, size=2.0):
    return size * np.identity(classes)[predicted]


# Classes


def test_a_classification_has_accuracy_baseline_recall_precision_and_log_loss():
    y = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    report = classifier().report(logits(predicted), y)
    assert report.n_samples == 8
    assert report.accuracy == report.score == 6 / 8
    assert (report.baseline, report.baseline_answer) == (0.5, "always predicting '0'")
    assert report.recall.tolist() == [3 / 4, 1 / 2, 1]
    assert report.precision.tolist() == [1, 1 / 2, 2 / 3]
    assert report.class_counts.tolist() == [4, 2, 2]
    assert report.balanced_accuracy == pytest.approx(3 / 4)
    assert report.baseline_balanced_accuracy == pytest.approx(1 / 3)
    p = np.exp(2) / (np.exp(2) + 2)
    assert report.log_loss == pytest.approx(-(6 * np.log(p) + 2 * np.log((1 - p) / 2)) / 8)
    assert report.baseline_log_loss == pytest.approx(-np.mean([4 * np.log(1 / 2), 4 * np.log(1 / 4)]) / 4)
    assert math.isnan(report.auc)


def test_score_and_log_loss_are_what_evaluate_finds(rng):
    X, y = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    settings = {"loss": nnx.Loss_CategoricalCrossentropy(), "accuracy": nnx.Accuracy_Categorical()}
    model = classifier(**settings)
    found = model.evaluate(X, y, silent=True)
    assert model.score(X, y) == found["accuracy"]
    assert model.report(X, y).log_loss == pytest.approx(found["loss"])
    assert type(model.score(X, y)) is float


@pytest.mark.parametrize("form", ["numbers", "column", "one-hot", "floats", "floats in a column", "list"])
def test_labels_come_in_every_form_that_training_takes(form, rng):
    y = rng.integers(0, 3, 20)
    forms = {"numbers": y, "column": y[:, None], "one-hot": np.identity(3)[y], "floats": y.astype(float), "list": [*y]}
    forms["floats in a column"] = forms["floats"][:, None]
    assert classifier().score(logits(y), forms[form]) == 1


def test_one_sigmoid_output_is_the_probability_of_the_second_class():
    X, y = np.array([[-2.0], [-1.0], [1.0], [0.5]]), [0, 1, 1, 1]
    for targets in (y, np.array(y)[:, None], np.array(y, float)):
        report = binary().report(X, targets)
        assert (report.accuracy, report.baseline, report.auc) == (0.75, 0.75, 1)
        assert report.recall.tolist() == [1, 2 / 3]
        p = 1 / (1 + np.exp(-X[:, 0]))
        assert report.log_loss == pytest.approx(-np.mean(np.log([1 - p[0], *p[1:]])))


def test_two_outputs_have_the_auc_of_one(rng):
    z, y = rng.normal(size=(40, 1)).round(1), rng.integers(0, 2, 40)
    assert classifier(2).report(np.hstack([0 * z, z]), y).auc == pytest.approx(binary().report(z, y).auc)


def test_several_sigmoid_outputs_are_judged_value_by_value():
    model = passing(nnx.Activation_Sigmoid(), width=2, accuracy=nnx.Accuracy_Categorical(binary=True))
    X = np.array([[3.0, -1.0], [2.0, -2.0], [-3.0, 1.0], [1.0, -1.0]])
    y = np.array([[1, 0], [1, 0], [0, 0], [0, 1]])
    report = model.report(X, y)
    assert report.accuracy == 5 / 8 == model.score(X, y)
    assert report.baseline == (2 / 4 + 3 / 4) / 2
    assert report.recall.tolist() == [1, 0]
    assert report.precision.tolist() == [2 / 3, 0]
    assert report.class_counts.tolist() == [2, 1]
    assert report.balanced_accuracy == pytest.approx(((1 + 1 / 2) / 2 + (0 + 2 / 3) / 2) / 2)
    assert report.auc == pytest.approx((1 + 1.5 / 3) / 2)
    model.set(loss=nnx.Loss_BinaryCrossentropy())
    assert report.log_loss == pytest.approx(model.evaluate(X, y, silent=True)["loss"])


def test_one_class_only_leaves_auc_undefined_and_says_so():
    report = binary().report([[1.0], [-1.0]], [1, 1])
    assert math.isnan(report.auc)
    assert "AUC undefined (only one class has samples)" in report.line
    assert "AUC                undefined  only one class has samples" in str(report)
    assert report.to_dict()["auc"] is None
    assert math.isnan(report.recall[0])


def test_outputs_that_are_no_probabilities_have_no_log_loss():
    model = regression(2, accuracy=nnx.Accuracy_Categorical(), loss=nnx.Loss_MeanSquaredError())
    report = model.report([[1.0, 2.0], [3.0, -1.0]], [1, 0])
    assert (report.accuracy, report.auc) == (1, 1)
    assert "log loss" not in str(report)


def test_a_model_no_better_than_its_baseline_is_called_that():
    y = [0, 0, 0, 1]
    assert classifier(2).report(logits([0, 0, 0, 1], 2), y).verdict == ""
    assert classifier(2).report(logits([0, 0, 0, 0], 2), y).verdict == "no better than"
    worse = classifier(2).report(logits([1, 1, 0, 0], 2), y)
    assert worse.verdict == "worse than"
    assert worse.line.startswith("accuracy 0.250 (worse than the baseline 0.750), ")
    assert "accuracy           0.250  worse than the baseline 0.750 (always predicting '0')" in str(worse)
    assert classifier(2).report(logits([0, 0], 2), [0, 0]).verdict == ""  # nothing can be better than 1


def test_few_classes_are_printed_one_by_one_and_many_are_not():
    for classes, lines in ((20, 20), (21, 0)):
        y = np.arange(classes)
        report = classifier(classes).report(logits(y, classes, 9.0), y)
        assert len(report.table) == (lines + 1 if lines else 0)
        assert ("recall" in str(report)) == (lines > 0)
        assert len(report.recall) == classes


def test_classes_have_the_names_of_the_table():
    table = nnx.Table([Number("x"), Text("pet", ("cat", "dog\nlong"))], "pet")
    report = classifier(2, table=table).report(logits([0, 1, 0], 2), [0, 1, 1])
    assert report.classes == ("cat", "dog\nlong")
    assert report.baseline_answer == "always predicting 'dog\\nlong'"
    assert [line.split()[0] for line in report.table] == ["class", "cat", "'dog\\nlong'"]


# Numbers


def test_a_regression_has_r_squared_and_errors_beside_those_of_the_mean():
    X, y = np.array([[1.0], [2.0], [3.0], [8.0]]), np.array([1.0, 3.0, 3.0, 7.0])
    report = regression().report(X, y)
    assert report.r_squared == report.score == pytest.approx(1 - 2 / 19)
    assert report.mean_absolute_error == 0.5
    assert report.root_mean_squared_error == pytest.approx(0.5**0.5)
    assert report.baseline_mean_absolute_error == pytest.approx(np.abs(y - y.mean()).mean())
    assert report.baseline_root_mean_squared_error == pytest.approx(y.std())
    assert report.verdict == ""
    assert regression().score(X, y[:, None]) == report.score


def test_figures_are_in_the_targets_units_where_a_table_knows_them():
    table = nnx.Table([Number("x"), Number("rent", mean=500, scale=100)], "rent")
    X, y = np.array([[1.0], [2.0], [3.0], [8.0]]), np.array([1.0, 3.0, 3.0, 7.0])
    plain, report = regression().report(X, y), regression(table=table).report(X, y)
    assert report.r_squared == pytest.approx(plain.r_squared)
    assert report.mean_absolute_error == pytest.approx(50)
    assert report.baseline_root_mean_squared_error == pytest.approx(100 * plain.baseline_root_mean_squared_error)


def test_few_outputs_are_printed_one_by_one_and_many_are_not(rng):
    for n_outputs, lines in ((1, 0), (2, 3), (20, 21), (21, 0)):
        X = rng.normal(size=(3, n_outputs))
        assert len(regression(n_outputs).report(X, X + 1).table) == lines


def test_several_outputs_are_averaged_and_shown_one_by_one():
    X, y = np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[1.0, 4.0], [2.0, 4.0]])
    report = regression(2).report(X, y)
    np.testing.assert_allclose(report.r_squared_by_output, [-1, np.nan])
    assert report.r_squared == -1  # of the output whose targets differ
    assert report.mean_absolute_error_by_output.tolist() == [0.5, 1]
    assert report.mean_absolute_error == 0.75
    assert report.table[1].split() == ["output", "0", "-1.000", "0.5", "0.7071"]
    assert report.table[2].split() == ["output", "1", "-", "1", "1"]


def test_r_squared_of_targets_that_are_all_the_same_is_undefined_and_says_so():
    report = regression().report([[1.0], [2.0]], [3.0, 3.0])
    assert math.isnan(report.score)
    assert report.line.startswith("R² undefined (all targets are the same), mean absolute error 1.5 (0), ")
    assert report.verdict == ""


def test_a_regression_worse_than_the_mean_is_called_that():
    report = regression().report([[-1e6], [1e6]], [1.0, -1.0])
    assert report.verdict == "worse than"
    assert "R² -1e+12 (worse than the baseline 0)" in report.line
    assert regression().report([[2.0], [2.0]], [1.0, 3.0]).verdict == "no better than"


# Which of both, and what is refused


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (classifier(), 1.0),
        (regression(3, accuracy=nnx.Accuracy_Categorical()), 1.0),
        (passing(Custom(), width=3, loss=nnx.Loss_CategoricalCrossentropy()), 1.0),
    ],
)
def test_accuracy_or_loss_or_last_layer_says_that_classes_are_predicted(model, expected):
    assert model.score(logits([0, 2, 1]), [0, 2, 1]) == expected


def test_a_regression_may_end_in_a_sigmoid():
    model = binary(accuracy=nnx.Accuracy_Regression())
    X = np.array([[-1.0], [0.0], [1.0]])
    assert model.score(X, 1 / (1 + np.exp(-X))) == pytest.approx(1)


def test_what_nothing_says_the_kind_of_is_refused():
    class Own:
        def forward(self, inputs, training=True):
            self.output = inputs

        def backward(self, dvalues):
            self.dinputs = dvalues

    model = passing(Own())
    with pytest.raises(TypeError, match=r"^Model\.report: accuracy must tell whether .* got None\. Call model\.set\("):
        model.report([[1.0]], [1.0])
    model.set(accuracy=nnx.Accuracy_Regression())
    assert model.score([[1.0], [2.0]], [1.0, 2.0]) == 1


@pytest.mark.parametrize(
    ("model", "X", "y", "says"),
    [
        (classifier(), np.ones((2, 3)), [0], r"y must have one row for each of the 2 rows of X, got shape \(1,\)\."),
        (classifier(), np.ones((2, 4)), [0, 1], r"X must have shape \(n, 3\), got \(2, 4\)\."),
        (classifier(), np.ones((0, 3)), [], r"X must have at least one row, got none\."),
        (classifier(), np.ones((2, 3)), [0, 3], r"y must hold class numbers from 0 to 2, got 3 at position 1\."),
        (classifier(), np.ones((2, 3)), [0, 0.5], r"y must hold class numbers of an integer dtype"),
        (classifier(), [[1, 2, np.nan]], [0], r"X must be finite numbers, got \[1.0, 2.0, nan\] in row 0\."),
        (binary(), [[1.0], [2.0]], [1, 2], r"y must hold 0 or 1, got 2 in row 1, column 0\."),
        (regression(), [[1.0], [np.inf]], [1, 2], r"X must be finite numbers, got \[inf\] in row 1\."),
        (
            overflowing(),
            [[1.0], [1e300]],
            [1, 2],
            r"the model's outputs must be finite numbers, got \[inf\] in row 1\.",
        ),
        (regression(), [[1.0], [2.0]], [1, np.nan], r"y must be finite numbers, got nan in row 1\."),
        (regression(), [[1.0], [2.0]], np.ones((2, 2)), r"y must have the shape of the predictions, \(2, 1\), got"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_does_not_fit_is_refused(model, X, y, says):
    with pytest.raises((ValueError, TypeError), match=rf"^Model\.report: {says}"):
        model.report(X, y)
    with pytest.raises((ValueError, TypeError), match=rf"^Model\.score: {says}"):
        model.score(X, y)


def test_a_model_that_is_not_finalized_is_refused():
    with pytest.raises(RuntimeError, match=r"^Model\.report: the model is not finalized\."):
        nnx.Model().report([[1.0]], [1.0])


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_change_nothing(rng, batch_size):
    X, y = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    model = classifier()
    assert model.report(X, y, batch_size=batch_size).accuracy == model.report(X, y).accuracy
    with pytest.raises(ValueError, match="batch_size"):
        model.score(X, y, batch_size=0)


def test_judging_changes_nothing(rng):
    X, y = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    model = classifier(loss=nnx.Loss_CategoricalCrossentropy(), accuracy=nnx.Accuracy_Categorical())
    model.evaluate(X, y, silent=True)
    before = (model.loss.accumulated_sum, model.accuracy.accumulated_count, X.tolist(), y.tolist())
    model.report(X[:9], y[:9])
    assert (model.loss.accumulated_sum, model.accuracy.accumulated_count, X.tolist(), y.tolist()) == before


def test_calibration_is_that_of_the_second_of_two_classes_and_of_the_predicted_one_of_more(rng):
    for n_classes in (2, 3):
        model = classifier(n_classes)
        X, y = rng.normal(size=(200, n_classes)), rng.integers(0, n_classes, 200)
        p = model.predict(X).astype(float)
        if n_classes == 2:
            curve = metrics.reliability(y, p[:, 1])
        else:
            curve = metrics.reliability(p.argmax(axis=1) == y, p.max(axis=1))
        assert model.report(X, y).calibration_error == metrics.calibration_error(curve)
    model = binary()
    X, y = rng.normal(size=(50, 1)), rng.integers(0, 2, (50, 1))
    curve = metrics.reliability(y[:, 0], model.predict(X)[:, 0].astype(float))
    assert model.report(X, y).calibration_error == metrics.calibration_error(curve)


def test_a_report_prints_itself_and_goes_into_json(rng):
    for report in (
        classifier().report(rng.normal(size=(9, 3)), rng.integers(0, 3, 9)),
        regression(2).report(rng.normal(size=(9, 2)), rng.normal(size=(9, 2))),
    ):
        assert repr(report) == str(report)
        assert max(map(len, str(report).splitlines())) < 90
        assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()


@pytest.mark.parametrize("kind", ["classes", "two", "cells", "single", "numbers"])
def test_weights_are_samples_that_are_there_more_than_once_or_not_at_all(kind, rng):
    m = {"classes": 3, "two": 2, "cells": 3, "single": 1, "numbers": 2}[kind]
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, m))
    if kind in ("classes", "two"):
        model.add(nnx.Activation_Softmax())
    elif kind != "numbers":
        model.add(nnx.Activation_Sigmoid())
    else:
        model.set(accuracy=nnx.Accuracy_Regression())
    model.finalize()
    model.set_parameters([(rng.normal(size=(2, m)), rng.normal(size=(1, m)))])
    X = rng.normal(size=(60, 2))
    y = rng.integers(0, m, 60) if kind in ("classes", "two") else rng.integers(0, 2, (60, m))
    weights = np.resize([0.0, 1.0, 2.0, 3.0], 60)
    again = np.repeat(np.arange(60), weights.astype(int))
    found = model.report(X, y, sample_weight=weights).to_dict()
    expected = model.report(X[again], y[again]).to_dict()
    assert found.pop("n_samples") == 45
    assert expected.pop("n_samples") == 90
    for name, value in expected.items():
        if value is None or isinstance(value, str) or name == "classes":
            assert found[name] == value
        else:
            assert found[name] == pytest.approx(value), name
    assert model.score(X, y, sample_weight=weights) == pytest.approx(model.score(X[again], y[again]))
    assert "samples" in str(model.report(X, y, sample_weight=weights / 7))


def test_wrong_weights_are_refused():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    model.add(nnx.Activation_Softmax())
    model.finalize()
    for use in ("score", "report"):
        for weights, sentence in (
            ([1.0], "have one number for each of 2 rows, got shape (1,)."),
            ([1.0, -1.0], "hold 0 or numbers from 1e-30 to 1e+30, got -1.0 in row 1."),
            ([0.0, 0.0], "leave at least one sample, got 0 for all 2."),
        ):
            with pytest.raises(ValueError, match=f"^{re.escape(f'Model.{use}: sample_weight must {sentence}')}$"):
                getattr(model, use)(np.ones((2, 2)), [0, 1], sample_weight=weights)
