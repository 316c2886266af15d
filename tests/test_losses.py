"""Losses: values, passes, penalties; optimizers' rules beside their arithmetic, which test_kernels.py checks."""

from __future__ import annotations

import numpy as np
import pytest

import nnx

LOSSES = [
    nnx.Loss_CategoricalCrossentropy,
    nnx.Loss_BinaryCrossentropy,
    nnx.Loss_MeanSquaredError,
    nnx.Loss_MeanAbsoluteError,
]


def batch(loss, n=6, dtype=np.float32):
    rng = np.random.default_rng(n)
    predictions = rng.uniform(0.1, 0.9, (n, 3)).astype(dtype)
    y = rng.integers(0, 3, n) if loss is nnx.Loss_CategoricalCrossentropy else rng.integers(0, 2, (n, 3))
    return predictions, y


@pytest.mark.parametrize("loss", LOSSES)
def test_calculate_returns_a_scalar_of_the_models_dtype(dtype, loss):
    function = loss()
    found = function.calculate(*batch(loss, dtype=dtype))
    assert isinstance(found, dtype.type)
    data_loss, penalty = function.calculate(*batch(loss, dtype=dtype), include_regularization=True)
    assert data_loss == found
    assert penalty == 0


def test_combined_forward_returns_a_scalar_of_the_models_dtype(dtype):
    combined = nnx.Activation_Softmax_Loss_CategoricalCrossentropy()
    assert isinstance(combined.forward(np.ones((2, 3), dtype), [0, 1]), dtype.type)


def test_mean_loss_is_summed_in_double():
    predictions = np.full((1 << 20, 1), 0.1, np.float32)
    found = nnx.Loss_MeanAbsoluteError().calculate(predictions, np.zeros((1 << 20, 1)))
    assert found == np.float32(0.1)


@pytest.mark.parametrize("loss", LOSSES)
def test_accumulated_loss_weighs_batches_by_samples(loss):
    function = loss()
    function.new_pass()
    parts = [batch(loss, n) for n in (2, 5, 9)]
    for part in parts:
        function.calculate(*part)
    whole = np.concatenate([function.forward(*part) for part in parts])
    assert function.accumulated_count == 16
    assert function.calculate_accumulated() == pytest.approx(whole.mean(dtype=float))
    function.new_pass()
    assert function.accumulated_count == 0


def test_calculate_accumulated_before_anything_was_calculated_says_so():
    with pytest.raises(RuntimeError, match="nothing to average yet"):
        nnx.Loss_MeanSquaredError().calculate_accumulated()
    with pytest.raises(RuntimeError, match="nothing to average yet"):
        nnx.Accuracy_Categorical().calculate_accumulated()


def penalized_layer():
    dense = nnx.Layer_Dense(2, 2, 0.1, 0.2, 0.3, 0.4)
    dense.weights = np.array([[1.0, -2.0], [3.0, -4.0]])
    dense.biases = np.array([[0.5, -0.5]])
    return dense, 0.1 * 10 + 0.2 * 30 + 0.3 * 1 + 0.4 * 0.5


def test_regularization_loss_of_one_layer_and_of_all():
    dense, expected = penalized_layer()
    loss = nnx.Loss_MeanSquaredError()
    assert loss.regularization_loss(dense) == pytest.approx(expected)
    assert loss.regularization_loss(nnx.Layer_Dense(2, 2)) == 0
    assert loss.regularization_loss() == 0
    loss.remember_trainable_layers([dense, penalized_layer()[0]])
    assert loss.regularization_loss() == pytest.approx(2 * expected)
    _, penalty = loss.calculate(np.ones((1, 1)), np.ones((1, 1)), include_regularization=True)
    assert penalty == pytest.approx(2 * expected)


def test_cross_entropies_clip_probabilities_before_the_logarithm(dtype):
    limit = -np.log(1e-7)
    sure = np.array([[1.0, 0.0]], dtype)
    assert nnx.Loss_CategoricalCrossentropy().calculate(sure, [1]) == pytest.approx(limit, rel=1e-5)
    assert nnx.Loss_CategoricalCrossentropy().calculate(sure, [0]) == pytest.approx(1e-7, rel=0.3)
    assert nnx.Loss_BinaryCrossentropy().calculate(sure, [[0, 1]]) == pytest.approx(limit, rel=2e-2)


def test_binary_backward_clips_predictions_as_its_forward_does():
    loss = nnx.Loss_BinaryCrossentropy()
    loss.backward(np.array([[0.0], [1.0]]), np.array([[1], [0]]))
    np.testing.assert_allclose(loss.dinputs, [[-0.5e7], [0.5e7]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint32", "int64", ">i4"])
def test_labels_may_be_of_any_integer_dtype(kind):
    loss = nnx.Loss_CategoricalCrossentropy()
    p = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    assert loss.calculate(p, np.array([0, 2], kind)) == pytest.approx(-np.log([0.5, 0.8]).mean())


@pytest.mark.parametrize("kind", ["int64", "float32", "bool"])
def test_one_hot_rows_give_what_class_numbers_give(kind):
    p, y = batch(nnx.Loss_CategoricalCrossentropy)
    one_hot = np.identity(3)[y].astype(kind)
    first, second = nnx.Loss_CategoricalCrossentropy(), nnx.Loss_CategoricalCrossentropy()
    np.testing.assert_array_equal(first.forward(p, y), second.forward(p, one_hot))
    first.backward(p, y)
    second.backward(p, one_hot)
    np.testing.assert_array_equal(first.dinputs, second.dinputs)
    combined = nnx.Activation_Softmax_Loss_CategoricalCrossentropy()
    combined.backward(p, one_hot)
    np.testing.assert_allclose(combined.dinputs, (p - one_hot) / len(p), rtol=1e-6)


def test_combined_gradient_is_the_two_step_gradient(float64, rng):
    X, y = rng.standard_normal((5, 4)), rng.integers(0, 4, 5)
    softmax, loss = nnx.Activation_Softmax(), nnx.Loss_CategoricalCrossentropy()
    softmax.forward(X)
    loss.backward(softmax.output, y)
    softmax.backward(loss.dinputs)
    combined = nnx.Activation_Softmax_Loss_CategoricalCrossentropy()
    combined.backward(softmax.output, y)
    np.testing.assert_allclose(combined.dinputs, softmax.dinputs, atol=1e-15)


def test_losses_do_not_change_their_arguments():
    for loss in LOSSES:
        predictions, y = batch(loss)
        kept = predictions.copy(), y.copy()
        function = loss()
        function.calculate(predictions, y)
        function.backward(predictions, y)
        np.testing.assert_array_equal(predictions, kept[0])
        np.testing.assert_array_equal(y, kept[1])


# Accuracies


def test_categorical_accuracy_counts_right_classes():
    accuracy = nnx.Accuracy_Categorical()
    assert accuracy.calculate(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75
    assert accuracy.calculate(np.array([0, 1]), np.array([[1, 0], [1, 0]])) == 0.5
    assert accuracy.calculate_accumulated() == pytest.approx(4 / 6)
    accuracy.new_pass()
    assert accuracy.accumulated_count == 0


def test_categorical_accuracy_takes_scores_as_their_best_class():
    assert nnx.Accuracy_Categorical().calculate([[0.1, 2.0], [0.3, 0.2]], [1, 1]) == 0.5


def test_regression_accuracy_counts_what_lies_within_a_250th_of_the_deviation():
    accuracy = nnx.Accuracy_Regression()
    y = np.array([[0.0], [1.0], [2.0], [3.0]])
    accuracy.init(y)
    assert accuracy.precision == pytest.approx(np.std(y) / 250)
    near = accuracy.precision * np.array([[0.9], [-0.9], [1.1], [0.0]])
    assert accuracy.calculate(y + near, y) == 0.75
    accuracy.init(10 * y)
    assert accuracy.precision == pytest.approx(np.std(y) / 250)
    accuracy.init(10 * y, reinit=True)
    assert accuracy.precision == pytest.approx(np.std(10 * y) / 250)


def test_categorical_backward_is_finite_where_the_right_class_has_probability_0(dtype):
    loss = nnx.Loss_CategoricalCrossentropy()
    with np.errstate(all="raise"):
        loss.backward(np.array([[0.0, 1.0]], dtype), [0])
    assert np.isfinite(loss.dinputs).all()
    assert loss.dinputs[0, 0] < -1e30


def test_categorical_accuracy_refuses_rows_with_several_labels():
    with pytest.raises(
        ValueError, match=r"pass binary=True to compare elements\): y must hold one-hot rows .* in row 0\."
    ):
        nnx.Accuracy_Categorical().calculate([[1, 1, 0], [0, 0, 1]], [[1, 0, 1], [0, 0, 1]])
    with pytest.raises(ValueError, match="one-hot rows"):
        nnx.Accuracy_Categorical().calculate([0, 1], [[0, 0, 0], [0, 1, 0]])
