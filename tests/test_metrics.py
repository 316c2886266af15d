"""Metrics on plain arrays: known answers, properties, and what is undefined."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nnx.scoring import metrics

pytestmark = pytest.mark.one_backend


def auc_by_pairs(true, scores):
    """The definition: the fraction of pairs of a positive and a negative sample in the right order. Ties count half."""
    positive, negative = scores[true == 1], scores[true == 0]
    return np.mean([1.0 if p > q else 0.5 if p == q else 0.0 for p, q in itertools.product(positive, negative)])


@pytest.fixture
def counts():
    # Class 0 is found two of three times, class 1 one of one time, class 2 never. Class 3 has no samples.
    return metrics.count(np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 3]), 4)


def test_accuracy_is_the_share_of_correct_predictions(counts):
    assert metrics.accuracy(counts) == 0.6


def test_recall_is_undefined_for_a_class_without_samples(counts):
    np.testing.assert_allclose(metrics.recall(counts), [2 / 3, 1, 0, np.nan])


def test_precision_is_undefined_for_a_class_that_is_never_predicted(counts):
    np.testing.assert_allclose(metrics.precision(counts), [1, 0.5, np.nan, 0])


def test_balanced_accuracy_is_the_mean_recall_of_classes_that_have_samples(counts):
    assert metrics.balanced_accuracy(counts) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_always_one_class_has_a_balanced_accuracy_of_one_over_the_number_of_classes(rng):
    true = rng.permutation(np.repeat([0, 1, 2], [90, 9, 1]))
    assert metrics.balanced_accuracy(metrics.count(true, np.zeros(100, np.intp), 3)) == pytest.approx(1 / 3)


def test_f1_is_the_harmonic_mean_of_recall_and_precision(counts):
    np.testing.assert_allclose(metrics.f1(counts), [4 / 5, 2 / 3, 0, 0])
    assert np.isnan(metrics.f1(metrics.count(np.array([0]), np.array([0]), 2))[1])


def test_a_reliability_curve_has_means_of_bins_and_gaps_where_there_are_no_samples():
    curve = metrics.reliability(np.array([0, 1, 1]), np.array([0.1, 0.25, 1.0]), n_bins=4)
    assert curve.weight.tolist() == [2, 0, 0, 1]  # 0.25 lies between two bins, and belongs to the lower one
    np.testing.assert_allclose(curve.predicted, [0.175, np.nan, np.nan, 1])
    np.testing.assert_allclose(curve.observed, [0.5, np.nan, np.nan, 1])
    assert metrics.calibration_error(curve) == pytest.approx((2 * 0.325 + 0) / 3)


def test_probabilities_that_come_true_as_often_as_they_say_have_no_calibration_error():
    p = np.repeat([0.25, 0.75], 4)
    true = np.array([1, 0, 0, 0, 1, 1, 1, 0])
    assert metrics.calibration_error(metrics.reliability(true, p)) == 0
    assert metrics.calibration_error(metrics.reliability(1 - true, p)) == 0.5


@pytest.mark.parametrize("weighted", [False, True])
def test_figures_of_classes_and_numbers_are_those_of_scikit_learn(rng, weighted):
    theirs = pytest.importorskip("sklearn.metrics")
    n = 500
    true, predicted = rng.integers(0, 4, n), rng.integers(0, 4, n)
    weights = rng.uniform(0.1, 3, n) if weighted else None
    found = metrics.f1(metrics.count(true, predicted, 4, weights))
    expected = theirs.f1_score(true, predicted, average=None, sample_weight=weights)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    y, guess = rng.normal(size=(n, 1)), rng.normal(size=(n, 1))
    assert metrics.mean_absolute_error(y, guess, weights)[0] == pytest.approx(
        theirs.mean_absolute_error(y, guess, sample_weight=weights), rel=1e-12
    )


@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_a_reliability_curve_is_that_of_scikit_learn(rng, n_bins):
    calibration = pytest.importorskip("sklearn.calibration")
    p = np.concatenate([rng.uniform(size=300), np.linspace(0, 1, n_bins + 1)])  # some at the ends of bins
    true = (rng.uniform(size=len(p)) < p**2).astype(int)
    curve = metrics.reliability(true, p, n_bins)
    observed, predicted = calibration.calibration_curve(true, p, n_bins=n_bins)
    np.testing.assert_allclose(curve.observed[curve.weight > 0], observed, rtol=1e-12)
    np.testing.assert_allclose(curve.predicted[curve.weight > 0], predicted, rtol=1e-12)
    share = curve.weight[curve.weight > 0] / len(p)
    assert metrics.calibration_error(curve) == pytest.approx(share @ np.abs(observed - predicted), rel=1e-12)


def test_log_loss_is_the_mean_negative_logarithm():
    assert metrics.log_loss(np.array([0.5, 0.25])) == pytest.approx(1.5 * np.log(2))


def test_log_loss_of_a_sure_mistake_is_finite_as_that_of_the_losses():
    assert metrics.log_loss(np.array([0.0])) == pytest.approx(-np.log(1e-7))
    assert metrics.log_loss(np.array([1.0])) == pytest.approx(1e-7)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auc_counts_pairs_in_order_and_ties_as_half(rng, levels):
    true, scores = rng.integers(0, 2, 80), rng.integers(0, levels, 80) / levels
    assert metrics.roc_auc(true, scores) == pytest.approx(auc_by_pairs(true, scores), abs=1e-12)


def test_auc_does_not_depend_on_the_scale_of_scores_nor_on_which_class_is_positive(rng):
    true, scores = rng.integers(0, 2, 60), rng.normal(size=60)
    area = metrics.roc_auc(true, scores)
    assert metrics.roc_auc(true, np.exp(3 * scores)) == area
    assert metrics.roc_auc(1 - true, -scores) == pytest.approx(area)
    assert metrics.roc_auc(true, -scores) == pytest.approx(1 - area)
    assert metrics.roc_auc(true, np.zeros(60)) == 0.5
    assert metrics.roc_auc(true, true) == 1


@pytest.mark.parametrize("value", [0, 1])
def test_auc_of_one_class_only_is_undefined(value):
    assert np.isnan(metrics.roc_auc(np.full(5, value), np.arange(5)))


def test_r_squared_is_1_for_perfect_predictions_0_for_the_mean_and_below_for_worse():
    true = np.array([[1.0], [2.0], [3.0]])
    assert metrics.r_squared(true, true) == [1]
    assert metrics.r_squared(true, np.full((3, 1), 2.0)) == [0]
    assert metrics.r_squared(true, -true) == [1 - (4 + 16 + 36) / 2]


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-200, 1e9])
def test_r_squared_of_targets_that_are_all_the_same_is_undefined(constant):
    true = np.full((7, 1), constant)
    assert np.isnan(metrics.r_squared(true, true + 1)).all()


def test_errors_are_those_of_each_output():
    true, predicted = np.zeros((2, 2)), np.array([[3.0, 1.0], [-4.0, 1.0]])
    assert metrics.mean_absolute_error(true, predicted).tolist() == [3.5, 1]
    np.testing.assert_allclose(metrics.root_mean_squared_error(true, predicted), [12.5**0.5, 1])


def test_float32_is_summed_in_double():
    true = np.full((10**6, 1), 16777216.0, np.float32)
    true[0] = 0
    predicted = np.full((10**6, 1), 16777217.0)
    assert metrics.mean_absolute_error(true, predicted) == pytest.approx((10**6 - 1 + 16777217) / 10**6, rel=1e-12)


def test_weights_are_samples_that_are_there_more_than_once(rng):
    n, weights = 40, np.resize([1.0, 2.0, 3.0], 40)
    again = np.repeat(np.arange(n), weights.astype(int))
    true, predicted = rng.integers(0, 3, n), rng.integers(0, 3, n)
    for found, expected in zip(
        metrics.count(true, predicted, 3, weights), metrics.count(true[again], predicted[again], 3), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    hits, sure = rng.integers(0, 2, n), rng.uniform(size=n)
    curves = metrics.reliability(hits, sure, 5, weights), metrics.reliability(hits[again], sure[again], 5)
    np.testing.assert_allclose(*curves)
    p, zero_or_one, scores = rng.uniform(size=(n, 2)), rng.integers(0, 2, n), rng.integers(0, 6, n)
    assert metrics.log_loss(p[:, 0], weights) == pytest.approx(metrics.log_loss(p[again, 0]))
    assert metrics.log_loss(p, weights) == pytest.approx(metrics.log_loss(p[again]))
    found = metrics.roc_auc(zero_or_one, scores, weights)
    assert found == pytest.approx(metrics.roc_auc(zero_or_one[again], scores[again]))
    y, guess = rng.normal(size=(n, 2)), rng.normal(size=(n, 2))
    for metric in (metrics.r_squared, metrics.mean_absolute_error, metrics.root_mean_squared_error):
        np.testing.assert_allclose(metric(y, guess, weights), metric(y[again], guess[again]), rtol=1e-12)


@pytest.mark.parametrize("value", [0, 1])
def test_weighted_auc_of_one_class_only_is_undefined(value):
    assert np.isnan(metrics.roc_auc(np.full(3, value), np.arange(3), np.ones(3)))
