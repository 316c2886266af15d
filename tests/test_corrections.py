"""Where the book's library is wrong and nnx is right: a test for each row of differences-from-the-book.md."""

from __future__ import annotations

import numpy as np
import pytest
from differences import assert_gradient
from networks import binary, classifier, parameters_of, regression

import nnx


def test_mean_absolute_error_descends(float64, rng):
    loss = nnx.Loss_MeanAbsoluteError()
    predictions, y = rng.standard_normal((5, 2)), rng.standard_normal((5, 2))
    loss.backward(predictions, y)
    assert_gradient(loss.dinputs, lambda: float(loss.calculate(predictions, y)), predictions)
    assert loss.calculate(predictions - 0.1 * loss.dinputs, y) < loss.calculate(predictions, y)


def test_targets_without_a_second_axis_do_not_broadcast():
    y = np.arange(4.0)
    for loss in (nnx.Loss_MeanSquaredError(), nnx.Loss_MeanAbsoluteError()):
        assert loss.calculate(y.reshape(-1, 1), y) == 0
        loss.backward(y.reshape(-1, 1), y)
        assert loss.dinputs.shape == (4, 1)
    with pytest.raises(ValueError, match=r"y_true must have the shape of the predictions, \(4, 1\), got \(3,\)\."):
        nnx.Loss_MeanSquaredError().calculate(y.reshape(-1, 1), y[:3])
    with pytest.raises(ValueError, match=r"\(4, 2\), got \(4,\)\."):
        nnx.Loss_MeanSquaredError().calculate(np.ones((4, 2)), y)
    sigmoid = np.full((4, 1), 0.5)
    assert nnx.Loss_BinaryCrossentropy().calculate(sigmoid, [0, 1, 1, 0]) == pytest.approx(np.log(2))


def test_targets_without_a_second_axis_do_not_broadcast_in_accuracies():
    accuracy = nnx.Accuracy_Regression()
    y = np.arange(4.0)
    accuracy.init(y)
    assert accuracy.calculate(y.reshape(-1, 1), y) == 1
    assert accuracy.accumulated_count == 4
    assert nnx.Accuracy_Categorical(binary=True).calculate(np.array([[0], [1]]), np.array([0, 1])) == 1
    with pytest.raises(ValueError, match=r"the shape of the predictions, \(2, 1\), got \(3,\)\."):
        nnx.Accuracy_Categorical(binary=True).calculate(np.array([[0], [1]]), np.array([0, 1, 1]))


def test_accuracy_of_several_outputs_counts_cells():
    accuracy = nnx.Accuracy_Categorical(binary=True)
    accuracy.calculate(np.array([[1, 0, 1], [0, 0, 0]]), np.array([[1, 0, 0], [0, 0, 0]]))
    assert accuracy.calculate_accumulated() == pytest.approx(5 / 6)
    model = binary(n_outputs=3)
    history = model.train(np.ones((8, 2)), np.ones((8, 3)), epochs=50, print_every=None)
    assert 0 <= history.accuracy.min() <= history.accuracy.max() <= 1


def test_a_wrong_label_at_a_large_logit_still_has_a_gradient():
    model = binary()
    model.set_parameters([(np.zeros((2, 8)), np.zeros((1, 8))), (np.zeros((8, 1)), np.array([[40.0]]))])
    output = model.forward(np.ones((4, 2), np.float32), training=True)
    assert output.max() == 1
    model.backward(output, np.zeros((4, 1)))
    np.testing.assert_array_equal(model.layers[-1].dinputs, np.full((4, 1), 0.25))
    np.testing.assert_allclose(model.layers[2].dbiases, 1)


def test_combined_gradients_are_for_exact_types_only():
    class Own_Softmax(nnx.Activation_Softmax):
        def backward(self, dvalues):
            super().backward(dvalues)
            self.dinputs = np.full_like(self.dinputs, 7)

    class Own_Loss(nnx.Loss_CategoricalCrossentropy):
        def backward(self, dvalues, y_true):
            super().backward(dvalues, y_true)
            self.dinputs = np.full_like(self.dinputs, 3)

    for last, loss, expected in (
        (Own_Softmax(), nnx.Loss_CategoricalCrossentropy(), 7),
        (nnx.Activation_Softmax(), nnx.Loss_CategoricalCrossentropy(), None),
    ):
        model = nnx.Model()
        model.add(nnx.Layer_Dense(2, 3))
        model.add(last)
        model.set(loss=loss)
        model.finalize()
        assert (model.softmax_classifier_output is None) == (expected is not None)
        output = model.forward(np.ones((2, 2)), training=True)
        model.backward(output, np.array([0, 1]))
        if expected is not None:
            np.testing.assert_array_equal(model.layers[-1].dinputs, np.full((2, 3), expected))
    model.set(loss=Own_Loss())
    assert model.softmax_classifier_output is None
    model.set(loss=nnx.Loss_CategoricalCrossentropy())
    assert model.softmax_classifier_output is not None
    model.layers[-1].backward = lambda dvalues: None
    model.finalize()
    assert model.softmax_classifier_output is None


def test_precision_is_set_at_the_first_train_and_evaluate_can_come_first(tmp_path):
    model = regression()
    X, y = np.ones((20, 2)), np.linspace(-1, 1, 20)
    figures = model.evaluate(X, y, silent=True)
    assert 0 <= figures["accuracy"] <= 1
    assert model.accuracy.precision is None
    model.train(X, y, print_every=None)
    assert model.accuracy.precision == pytest.approx(np.std(y) / 250)
    model.train(X, 10 * y, print_every=None)
    assert model.accuracy.precision == pytest.approx(np.std(y) / 250)
    model.save(tmp_path / "m")
    assert nnx.Model.load(tmp_path / "m").accuracy.precision == model.accuracy.precision


def test_a_last_layer_without_predictions_gives_its_output_as_prediction():
    class Layer_Shift:
        def forward(self, inputs, training):
            self.output = inputs + 1

        def backward(self, dvalues):
            self.dinputs = dvalues.copy()

    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 1))
    model.add(Layer_Shift())
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    history = model.train(np.ones((4, 2)), np.array([1.0, 1, 1, 3]), epochs=2, print_every=None)
    assert len(history.accuracy) == 2


def test_integer_labels_in_a_column_are_labels():
    y = np.array([0, 1, 2, 1])
    X = np.random.randn(4, 2)
    assert nnx.Accuracy_Categorical().calculate(y, y.reshape(-1, 1)) == 1
    first, second = classifier(), classifier()
    second.set_parameters([(w.copy(), b.copy()) for w, b in first.get_parameters()])
    one = first.train(X, y, epochs=5, print_every=None)
    two = second.train(X, y.reshape(-1, 1), epochs=5, print_every=None)
    np.testing.assert_array_equal(one.accuracy, two.accuracy)
    assert parameters_of(first) == parameters_of(second)


@pytest.mark.parametrize(("label", "shown"), [(-1, "-1"), (3, "3"), (10**12, "1000000000000")])
def test_a_label_that_is_no_class_is_refused_with_its_position(label, shown):
    model = classifier()
    y = np.zeros(500, np.int64)
    y[381] = label
    before = parameters_of(model)
    with pytest.raises(
        ValueError, match=rf"Model\.train: y must hold class numbers from 0 to 2, got {shown} at position 381\."
    ):
        model.train(np.ones((500, 2)), y, batch_size=10)
    assert parameters_of(model) == before
    for use in (nnx.Loss_CategoricalCrossentropy().forward, nnx.Loss_CategoricalCrossentropy().backward):
        with pytest.raises(ValueError, match="at position 381"):
            use(np.ones((500, 3)), y)
    with pytest.raises(ValueError, match="at position 381"):
        nnx.Activation_Softmax_Loss_CategoricalCrossentropy().backward(np.ones((500, 3)), y)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_row(bad, capsys):
    model = classifier()
    X = np.ones((100, 2))
    X[17, 1] = bad
    before = parameters_of(model)
    with pytest.raises(ValueError, match=rf"Model\.train: X must hold finite numbers, got {bad} in row 17, column 1\."):
        model.train(X, np.zeros(100, int))
    assert parameters_of(model) == before
    assert capsys.readouterr().out == ""
    targets = np.ones(100)
    targets[3] = bad
    with pytest.raises(ValueError, match=rf"Model\.train: y must hold finite numbers, got {bad} in row 3\."):
        regression().train(np.ones((100, 2)), targets)
    model.train(X, np.zeros(100, int), check_finite=False, on_nonfinite="ignore", print_every=None)


def test_a_number_that_float32_cannot_hold_is_refused_too():
    with pytest.raises(ValueError, match="X must hold finite numbers, got inf in row 1"):
        classifier().train(np.array([[1.0, 1.0], [1e300, 1.0]]), [0, 1])


def test_a_model_of_one_layer_can_be_finalized_and_trained():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 1))
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(0.1), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    history = model.train(np.identity(2), [1.0, 2.0], epochs=200, print_every=None)
    assert history.loss[-1] < 1e-3


def test_calculate_works_before_new_pass():
    loss = nnx.Loss_MeanSquaredError()
    assert loss.calculate(np.array([[1.0]]), np.array([[3.0]])) == 4
    assert loss.accumulated_count == 1
    assert nnx.Accuracy_Categorical().calculate([1], [1]) == 1


def test_sigmoid_of_large_numbers_is_right_without_a_warning(dtype):
    sigmoid = nnx.Activation_Sigmoid()
    with np.errstate(all="raise"):
        sigmoid.forward(np.array([[-1000.0, -50.0, 0.0, 1000.0]], dtype))
    np.testing.assert_allclose(sigmoid.output, [[0, np.exp(-50.0), 0.5, 1]], rtol=1e-5)


def test_softmax_backward_is_the_jacobian_product(float64, rng):
    softmax = nnx.Activation_Softmax()
    softmax.forward(rng.standard_normal((4, 5)))
    d = rng.standard_normal((4, 5))
    softmax.backward(d)
    for p, dvalues, dinputs in zip(softmax.output, d, softmax.dinputs, strict=True):
        np.testing.assert_allclose(dinputs, (np.diag(p) - np.outer(p, p)) @ dvalues, atol=1e-14)


def test_opening_a_file_runs_no_code(tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "trap.model").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(nnx.ModelFileError, match="is a pickle"):
        nnx.Model.load(tmp_path / "trap.model")
    assert not (tmp_path / "sprung").exists()


def test_train_returns_a_history_and_evaluate_a_dict(capsys):
    model = classifier()
    X, y = nnx.spiral_data(20, 3)
    assert isinstance(model.train(X, y), nnx.History)
    figures = model.evaluate(X, y)
    assert set(figures) == {"loss", "accuracy"}
    assert all(type(value) is float for value in figures.values())


def test_precision_of_half_precision_targets_and_of_targets_with_nan():
    accuracy = nnx.Accuracy_Regression()
    y = (np.linspace(-1, 1, 50) * 1000).astype(np.float16)
    accuracy.init(y)
    assert accuracy.precision == pytest.approx(np.std(y.astype(float)) / 250)
    model = regression()
    targets = np.linspace(0, 1, 10)
    targets[3] = np.nan
    model.train(np.ones((10, 2)), targets, check_finite=False, on_nonfinite="ignore", print_every=None)
    assert model.accuracy.precision is None
