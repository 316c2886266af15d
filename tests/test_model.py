"""Model: building, training, evaluating, predicting, and what it prints."""

from __future__ import annotations

import copy
import pickle
import re
import sys
import warnings

import numpy as np
import pytest
from networks import binary, classifier, mixed_spiral, parameters_of, regression

import nnx


@pytest.fixture
def data():
    return mixed_spiral(samples=50, classes=3)


def one_weight_model(weight=2.0, rate=0.25, decay=0.0, **regularizers):
    """y = w·x, with figures that are easy to compute by hand."""
    model = nnx.Model()
    model.add(nnx.Layer_Dense(1, 1, **regularizers))
    model.add(nnx.Activation_Linear())
    model.set(
        loss=nnx.Loss_MeanSquaredError(),
        optimizer=nnx.Optimizer_SGD(rate, decay=decay),
        accuracy=nnx.Accuracy_Regression(),
    )
    model.finalize()
    model.layers[0].weights[:] = weight
    return model


# Building


def test_finalize_links_the_layers_as_the_book_does():
    model = classifier()
    first, last = model.layers[0], model.layers[-1]
    assert isinstance(model.input_layer, nnx.Layer_Input)
    assert first.prev is model.input_layer
    assert first.next is model.layers[1]
    assert last.prev is model.layers[-2]
    assert last.next is model.loss
    assert model.output_layer_activation is last
    assert model.trainable_layers == [model.layers[0], model.layers[2]]
    assert model.loss.trainable_layers is model.trainable_layers
    assert isinstance(model.softmax_classifier_output, nnx.Activation_Softmax_Loss_CategoricalCrossentropy)


def test_set_keeps_what_is_none_and_works_after_finalize(data):
    model = classifier()
    loss, accuracy = model.loss, model.accuracy
    optimizer = nnx.Optimizer_SGD(0.1)
    model.set(optimizer=optimizer)
    assert (model.loss, model.accuracy, model.optimizer) == (loss, accuracy, optimizer)
    replacement = nnx.Loss_CategoricalCrossentropy()
    model.set(loss=replacement)
    assert model.layers[-1].next is replacement
    assert replacement.trainable_layers is model.trainable_layers
    model.train(*data, print_every=None)
    assert optimizer.iterations == 1


# Losses that take probabilities


def network(*layers, loss=None, model=None):
    """Return a model of these layers, not finalized."""
    model = model or nnx.Model()
    for layer in layers:
        model.add(layer)
    model.set(loss=loss, optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Categorical())
    return model


CATEGORICAL, BINARY = nnx.Loss_CategoricalCrossentropy, nnx.Loss_BinaryCrossentropy
MISFITS = {
    "nothing, categorical": (CATEGORICAL, (), "Layer_Dense(64, 3)", "Activation_Softmax", ""),
    "nothing, binary": (BINARY, (), "Layer_Dense(64, 3)", "Activation_Sigmoid", ""),
    "linear": (CATEGORICAL, (nnx.Activation_Linear,), "Activation_Linear()", "Activation_Softmax", ""),
    "ReLU": (BINARY, (nnx.Activation_ReLU,), "Activation_ReLU()", "Activation_Sigmoid", ""),
    "sigmoid, categorical": (
        *(CATEGORICAL, (nnx.Activation_Sigmoid,), "Activation_Sigmoid()", "Activation_Softmax"),
        ", or set the loss to Loss_BinaryCrossentropy()",
    ),
    "softmax, binary": (
        *(BINARY, (nnx.Activation_Softmax,), "Activation_Softmax()", "Activation_Sigmoid"),
        ", or set the loss to Loss_CategoricalCrossentropy()",
    ),
    "softmax, then dropout": (
        *(CATEGORICAL, (nnx.Activation_Softmax, lambda: nnx.Layer_Dropout(0.1))),
        *("Layer_Dropout(0.1)", "Activation_Softmax", ""),
    ),
}


@pytest.mark.parametrize(("loss", "ends", "got", "needed", "other"), MISFITS.values(), ids=MISFITS)
def test_a_loss_of_probabilities_is_refused_behind_what_gives_none(loss, ends, got, needed, other):
    sentence = (
        f"the last layer must be {needed} for {loss.__name__}, got {got}. Add {needed}() as the last layer{other}."
    )

    def refuses(method, call):
        with pytest.raises(ValueError, match=f"^{re.escape(f'{method}: {sentence}')}$"):
            call()

    def layers():
        return nnx.Layer_Dense(64, 3), *(end() for end in ends)

    refuses("Model.finalize", network(*layers(), loss=loss()).finalize)
    model = network(*layers(), loss=nnx.Loss_MeanSquaredError())
    model.finalize()
    before = model.loss
    refuses("Model.set", lambda: model.set(loss=loss(), optimizer=nnx.Optimizer_Adam()))
    assert (model.loss, type(model.optimizer)) == (before, nnx.Optimizer_SGD)
    model.loss = loss()
    refuses("Model.train", lambda: model.train(np.ones((3, 64)), [0, 1, 2]))
    refuses("Model.evaluate", lambda: model.evaluate(np.ones((3, 64)), [0, 1, 2]))
    model.add(nnx.Activation_Softmax() if loss is CATEGORICAL else nnx.Activation_Sigmoid())
    model.finalize()


def test_what_is_of_ones_own_may_come_before_any_loss():
    class Own_Activation:
        def forward(self, inputs, training):
            self.output = np.full_like(inputs, 0.3)

        def backward(self, dvalues):
            self.dinputs = dvalues

    class Own_Sigmoid(nnx.Activation_Sigmoid):
        pass

    class Own_Dense(nnx.Layer_Dense):
        pass

    class Own_Loss(nnx.Loss_CategoricalCrossentropy):
        def forward(self, y_pred, y_true):
            return super().forward(np.full_like(y_pred, 0.3), y_true)

    replaced = nnx.Activation_Linear()
    replaced.forward = Own_Activation.forward.__get__(replaced)
    for last in (Own_Activation(), Own_Sigmoid(), Own_Dense(3, 3), replaced):
        model = network(nnx.Layer_Dense(2, 3), last, loss=nnx.Loss_CategoricalCrossentropy())
        model.finalize()
        model.set(loss=nnx.Loss_CategoricalCrossentropy())
        model.train(np.ones((3, 2)), [0, 1, 2], print_every=None)
    model = network(nnx.Layer_Dense(2, 3), loss=Own_Loss())
    model.finalize()
    model.train(np.ones((3, 2)), [0, 1, 2], print_every=None)


def test_finalize_and_predict_need_neither_loss_nor_optimizer_nor_accuracy():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    model.finalize()
    assert model.predict(np.ones((4, 2))).shape == (4, 3)
    with pytest.raises(RuntimeError, match=r"Model\.train: no loss is set\. Call model\.set\(loss=\.\.\.\) first\."):
        model.train([[1, 1]], [1])
    model.set(loss=nnx.Loss_MeanSquaredError())
    with pytest.raises(RuntimeError, match=r"Model\.train: no optimizer is set"):
        model.train([[1, 1]], [1])
    with pytest.raises(RuntimeError, match=r"Model\.evaluate: no accuracy is set"):
        model.evaluate([[1, 1]], [1])


def test_evaluate_and_predict_need_no_optimizer(data):
    model = classifier()
    model.optimizer = None
    assert set(model.evaluate(*data, silent=True)) == {"loss", "accuracy"}


def test_finalize_leaves_parameters_alone_when_called_again(data):
    model = classifier()
    model.train(*data, print_every=None)
    before = parameters_of(model)
    model.finalize()
    assert parameters_of(model) == before


def test_models_can_share_layers_without_disturbing_each_other(data):
    whole = classifier()
    expected = whole.predict(data[0])
    part = nnx.Model()
    for layer in whole.layers[:2]:
        part.add(layer)
    part.finalize()
    part.predict(np.zeros((3, 2)))
    np.testing.assert_array_equal(whole.predict(data[0]), expected)


# Training


def test_training_without_dropout_leaves_the_global_generator_where_the_reference_leaves_it(data):
    """Only the weights of the dense layers are drawn. Training, evaluating and predicting draw nothing."""
    np.random.seed(3)
    model = classifier()
    model.train(*data, epochs=3, batch_size=16, print_every=None, validation_data=data)
    model.evaluate(*data, silent=True)
    model.predict(data[0])
    after = np.random.get_state()
    np.random.seed(3)
    np.random.randn(2, 16)
    np.random.randn(16, 3)
    expected = np.random.get_state()
    np.testing.assert_array_equal(after[1], expected[1])
    assert after[2:] == expected[2:]


def test_training_equals_the_manual_loop(data):
    X, y = data
    np.random.seed(1)
    model = classifier(weight_regularizer_l2=5e-4)
    model.train(X, y, epochs=20, print_every=None)
    np.random.seed(1)
    dense1, relu, dense2 = (
        nnx.Layer_Dense(2, 16, weight_regularizer_l2=5e-4),
        nnx.Activation_ReLU(),
        nnx.Layer_Dense(16, 3),
    )
    combined = nnx.Activation_Softmax_Loss_CategoricalCrossentropy()
    adam = nnx.Optimizer_Adam(learning_rate=0.05, decay=1e-3)
    for _ in range(20):
        dense1.forward(X)
        relu.forward(dense1.output)
        dense2.forward(relu.output)
        combined.forward(dense2.output, y)
        combined.backward(combined.output, y)
        dense2.backward(combined.dinputs)
        relu.backward(dense2.dinputs)
        dense1.backward(relu.dinputs)
        adam.pre_update_params()
        adam.update_params(dense1)
        adam.update_params(dense2)
        adam.post_update_params()
    np.testing.assert_allclose(model.layers[0].weights, dense1.weights, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model.layers[2].weights, dense2.weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: nnx.Optimizer_SGD(0.5, decay=1e-2, momentum=0.9),
        lambda: nnx.Optimizer_Adagrad(0.1),
        lambda: nnx.Optimizer_RMSprop(0.01, decay=1e-2),
        lambda: nnx.Optimizer_Adam(0.01, decay=1e-2),
    ],
)
def test_seven_epochs_are_seven_times_one_epoch(data, optimizer):
    models = []
    for _ in range(2):
        np.random.seed(2)
        model = classifier(dropout=0.2, weight_regularizer_l1=1e-4, bias_regularizer_l2=1e-4)
        model.set(optimizer=optimizer())
        models.append(model)
    models[0].train(*data, epochs=7, batch_size=32, print_every=None)
    for _ in range(7):
        models[1].train(*data, batch_size=32, print_every=None)
    assert parameters_of(models[0]) == parameters_of(models[1])


def test_neither_printing_nor_the_bar_nor_validation_changes_the_weights(data, capsys):
    found = set()
    for arguments in (
        {"print_every": None},
        {"print_every": 1},
        {"print_every": 7},
        {"print_every": 1, "progress": True},
        {"print_every": None, "validation_data": data},
    ):
        np.random.seed(2)
        model = classifier(dropout=0.2)
        model.train(*data, epochs=3, batch_size=32, **arguments)
        found.add(parameters_of(model))
    assert len(found) == 1


def test_the_last_batch_is_ragged_and_trained_on():
    seen = []

    class Own_Loss(nnx.Loss_MeanSquaredError):
        def backward(self, dvalues, y_true):
            seen.append(len(dvalues))
            super().backward(dvalues, y_true)

    model = regression()
    model.set(loss=Own_Loss())
    model.train(np.ones((10, 2)), np.ones(10), batch_size=4, print_every=None)
    assert seen == [4, 4, 2]


def test_rows_are_not_shuffled_unless_asked():
    seen = []

    class Layer_Spy(nnx.Activation_Linear):
        def forward(self, inputs, training):
            if training:
                seen.append(inputs[:, 0].tolist())
            super().forward(inputs, training)

    def run(**arguments):
        seen.clear()
        model = nnx.Model()
        model.add(Layer_Spy())
        model.add(nnx.Layer_Dense(1, 1))
        model.set(
            loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(0.0), accuracy=nnx.Accuracy_Regression()
        )
        model.finalize()
        model.train(np.arange(6.0)[:, None], np.arange(6.0), epochs=2, batch_size=4, print_every=None, **arguments)
        return [row for batch in seen for row in batch]

    assert run() == [0, 1, 2, 3, 4, 5] * 2
    shuffled = run(shuffle=True, seed=4)
    assert sorted(shuffled[:6]) == sorted(shuffled[6:]) == [0, 1, 2, 3, 4, 5]
    assert shuffled[:6] != shuffled[6:]
    assert run(shuffle=True, seed=4) == shuffled
    assert run(shuffle=True, seed=5) != shuffled
    np.random.seed(8)
    drawn = run(shuffle=True)
    np.random.seed(8)
    assert run(shuffle=True) == drawn
    assert run(shuffle=True) != drawn


def test_shuffling_keeps_samples_and_targets_together():
    model = classifier()
    X, y = nnx.vertical_data(50, 3)
    history = model.train(X, y, epochs=50, batch_size=32, shuffle=True, seed=0, print_every=None)
    assert history.accuracy[-1] > 0.9


def test_after_train_the_attributes_of_the_last_batch_are_there(data):
    model = classifier(dropout=0.3)
    model.train(*data, epochs=2, batch_size=40, print_every=None)
    for layer in model.layers:
        assert len(layer.output) == len(layer.dinputs) == 150 % 40
    assert model.layers[0].dweights.shape == (2, 16)
    assert model.layers[2].binary_mask.shape == (30, 16)
    assert model.layers[0].weight_momentums.shape == (2, 16)
    assert model.optimizer.iterations == 8
    assert model.optimizer.current_learning_rate == 0.05 * (1.0 / (1.0 + 1e-3 * 7))


def test_a_layer_taken_out_of_trainable_layers_keeps_its_parameters(data):
    model = classifier()
    frozen = model.trainable_layers.pop(0)
    kept = frozen.weights.copy()
    trained = model.layers[2].weights.copy()
    model.train(*data, epochs=3, print_every=None)
    np.testing.assert_array_equal(frozen.weights, kept)
    assert not np.array_equal(model.layers[2].weights, trained)


def test_inputs_of_other_dtypes_are_taken(dtype):
    for kind in ("f2", "f4", "f8", ">f8", "i8", "u1", "?"):
        model = classifier()
        model.train(np.identity(2).astype(kind), [0, 1], print_every=None)
        assert model.predict(np.identity(2).astype(kind)).dtype == dtype


def test_lists_and_data_frames_are_taken():
    class Frame:
        """Looks like a data frame to NumPy."""

        def __array__(self, dtype=None, copy=None):
            return np.array([[1.0, 2.0], [3.0, 4.0]])

    for X in ([[1, 2], [3, 4]], Frame()):
        model = classifier()
        model.train(X, [0, 1], print_every=None)
        assert model.predict(X).shape == (2, 3)


# Rows sorted by class

SORTED = np.repeat([2, 0, 1], 50)
FORMS = {
    "class numbers": lambda y: y,
    "list": lambda y: y.tolist(),
    "column": lambda y: y[:, None].astype("u1"),
    "one-hot": lambda y: np.eye(3)[y],
}


def warnings_of(model, y, **arguments):
    """Return the warnings of a training, and check that it trained."""
    before = model.optimizer.iterations
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        model.train(np.random.randn(len(y), 2), y, print_every=None, **arguments)
    assert model.optimizer.iterations > before
    assert all(warning.category is UserWarning and warning.filename == __file__ for warning in found)
    return [str(warning.message) for warning in found]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_sorted_by_class_in_batches_without_shuffling_give_one_warning_with_the_fix(form):
    assert warnings_of(classifier(), form(SORTED), batch_size=64, epochs=3) == [
        "Model.train: the rows are sorted by class, so batches of 64 differ in their classes, and each step unlearns "
        "what those before it have learnt. Pass shuffle=True."
    ]


def test_two_classes_as_a_sigmoid_takes_them_and_losses_of_ones_own_are_classes_too():
    class Own_Loss(nnx.Loss_CategoricalCrossentropy):
        pass

    y = np.repeat([1.0, 0.0], 30)
    assert len(warnings_of(binary(), y, batch_size=20)) == len(warnings_of(binary(), y[:, None], batch_size=20)) == 1
    model = classifier()
    model.set(loss=Own_Loss())
    assert len(warnings_of(model, SORTED, batch_size=20)) == 1
    model = classifier()
    model.set(loss=nnx.Loss_MeanSquaredError())
    assert len(warnings_of(model, np.eye(3)[SORTED], batch_size=20)) == 1


@pytest.mark.parametrize(
    ("y", "arguments"),
    [
        (SORTED, {}),
        (SORTED, {"batch_size": 150}),
        (SORTED, {"batch_size": 1000}),
        (SORTED, {"batch_size": 20, "shuffle": True}),
        (np.random.default_rng(0).permutation(SORTED), {"batch_size": 20}),
        (np.arange(150) % 3, {"batch_size": 20}),
        (np.tile(SORTED, 2), {"batch_size": 20}),
        (np.zeros(150, int), {"batch_size": 20}),
        (np.array([0, 1, 2]), {"batch_size": 1}),
        (np.array([0, 0, 1, 1]), {"batch_size": 2}),
        (np.array([0] * 149 + [1]), {"batch_size": 20}),
    ],
    ids=[
        *("all at once", "as large as the data", "larger", "shuffled", "mixed", "in turn", "sorted twice", "one class"),
        *("a row a class", "by chance", "one exception"),
    ],
)
def test_other_rows_give_no_warning(y, arguments):
    assert warnings_of(classifier(), y, **arguments) == []


def test_numbers_in_order_and_several_answers_a_row_are_no_classes():
    assert warnings_of(regression(), np.repeat([1.0, 2.0], 50), batch_size=20) == []
    cells = np.repeat([[0, 1, 1], [1, 0, 1]], 50, axis=0)
    assert warnings_of(binary(n_outputs=3), cells, batch_size=20) == []


def test_a_warning_that_is_made_an_error_comes_before_anything_changes():
    model = classifier()
    before = parameters_of(model)
    with pytest.raises(UserWarning, match=r"Pass shuffle=True\.$"):  # pytest makes all warnings errors
        model.train(np.ones((150, 2)), SORTED, batch_size=64)
    assert (parameters_of(model), model.history) == (before, None)
    model.train(np.ones((150, 2)), SORTED, batch_size=64, shuffle=True, print_every=None)


def test_a_run_that_is_resumed_is_not_warned_of_again(tmp_path):
    model, again = classifier(), classifier()
    X = np.ones((150, 2))
    with pytest.warns(UserWarning, match="sorted by class"):
        model.train(X, SORTED, batch_size=64, print_every=None, checkpoint=tmp_path / "run")
    again.train(X, SORTED, batch_size=64, print_every=None, epochs=2, resume=tmp_path / "run")


def test_arguments_are_not_changed(data):
    X, y = (array.copy() for array in data)
    X.flags.writeable = y.flags.writeable = False
    classifier().train(X, y, epochs=2, batch_size=16, shuffle=True, print_every=None, validation_data=(X, y))


def test_a_model_that_is_being_trained_cannot_be_trained():
    class Own_Layer(nnx.Activation_Linear):
        def forward(self, inputs, training):
            super().forward(inputs, training)
            if training:
                model.train(np.ones((2, 2)), [0, 1])

    model = nnx.Model()
    model.add(Own_Layer())
    model.add(nnx.Layer_Dense(2, 3))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    with pytest.raises(RuntimeError, match=r"Model\.train: this model is being trained already\."):
        model.train(np.ones((2, 2)), [0, 1], print_every=None)
    model.layers[0].forward = lambda inputs, training: nnx.Activation_Linear.forward(model.layers[0], inputs)
    model.train(np.ones((2, 2)), [0, 1], print_every=None)


# What it prints


def test_train_prints_exactly_what_the_book_prints(capsys):
    model = one_weight_model(weight=2.0, rate=0.25, decay=1.0, weight_regularizer_l2=0.5)
    model.train([[1.0], [1.0]], [0.0, 4.0], batch_size=1, validation_data=([[1.0]], [1.0]))
    # Step 0: (2 − 0)² = 4, penalty 0.5·2² = 2, gradients of w 4 + 2 and of b 4; rate 0.25: w = 0.5, b = −1.
    # Step 1: (−0.5 − 4)² = 20.25, penalty 0.125, gradients of w −9 + 0.5 and of b −9; rate 0.125: w = 1.5625, b = 0.125
    # Epoch: mean 12.125, penalty 0.5·1.5625² = 1.2207. Validation: (1.6875 − 1)² = 0.4727.
    assert capsys.readouterr().out == (
        "epoch: 1\n"
        "step: 0, acc: 0.000, loss: 6.000 (data_loss: 4.000, reg_loss: 2.000), lr: 0.25\n"
        "step: 1, acc: 0.000, loss: 20.375 (data_loss: 20.250, reg_loss: 0.125), lr: 0.125\n"
        "training, acc: 0.000, loss: 13.346 (data_loss: 12.125, reg_loss: 1.221), lr: 0.125\n"
        "validation, acc: 0.000, loss: 0.473\n"
    )


@pytest.mark.parametrize(
    ("print_every", "batch_size", "steps"),
    [(1, None, [0]), (1, 5, [0, 1, 2, 3]), (3, 2, [0, 3, 6, 9]), (4, 2, [0, 4, 8, 9]), (100, 7, [0, 2])],
)
def test_steps_that_print_every_divides_and_the_last_are_printed(capsys, print_every, batch_size, steps):
    classifier().train(np.ones((20, 2)), np.zeros(20, int), epochs=2, batch_size=batch_size, print_every=print_every)
    lines = capsys.readouterr().out.splitlines()
    found = [int(re.match(r"step: (\d+), ", line)[1]) for line in lines if line.startswith("step")]
    assert found == steps * 2
    assert [line for line in lines if line.startswith("epoch")] == ["epoch: 1", "epoch: 2"]
    assert sum(line.startswith("training, acc: ") for line in lines) == 2
    loss = r"(\d+\.\d{3}|0\.000\d+|\d(\.\d)?e-\d+)"  # numbers that three decimals would show as 0.000 have other digits
    form = rf"step: \d+, acc: \d\.\d{{3}}, loss: {loss} \(data_loss: {loss}, reg_loss: 0\.000\), lr: [\d.]+"
    assert all(re.fullmatch(form, line) for line in lines if line.startswith("step"))


def test_the_learning_rate_is_printed_in_full(capsys, data):
    model = classifier()
    model.set(optimizer=nnx.Optimizer_Adam(learning_rate=0.05, decay=5e-7))
    model.train(*data, epochs=2)
    assert "lr: 0.0499999750000125\n" in capsys.readouterr().out


def test_print_every_none_silences_everything(capfd, data):
    classifier().train(*data, epochs=3, batch_size=10, print_every=None, validation_data=data)
    assert capfd.readouterr() == ("", "")


def test_progress_shows_a_bar_with_loss_accuracy_and_time_on_stderr(capsys, data):
    classifier().train(*data, epochs=3, batch_size=50, progress=True)
    out, err = capsys.readouterr()
    assert out.count("epoch: ") == 3
    assert out.count("step: ") == 9
    assert "9/9" in err
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, .*step/s, loss \d\.\d{3}, acc \d\.\d{3}\]", err)
    classifier().train(*data, print_every=None, progress=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("missing", ["stderr", "stdout"])
@pytest.mark.parametrize("print_every", [None, 1])
def test_a_program_without_a_console_can_ask_for_progress(monkeypatch, data, missing, print_every):
    model = classifier()
    with monkeypatch.context() as patched:
        patched.setattr(sys, missing, None)  # as under pythonw
        model.train(*data, epochs=2, print_every=print_every, progress=True, validation_data=data)
    assert model.optimizer.iterations == 2


def test_progress_leaves_no_thread_running(data):
    import threading

    before = threading.enumerate()
    classifier().train(*data, print_every=None, progress=True)
    assert threading.enumerate() == before


def test_evaluate_prints_the_books_line_unless_silent(capsys):
    model = one_weight_model()
    figures = model.evaluate([[1.0], [2.0]], [2.0, 2.0])
    assert figures == {"loss": 2.0, "accuracy": 0.5} or figures == {"loss": 2.0, "accuracy": 0.0}
    assert capsys.readouterr().out == f"validation, acc: {figures['accuracy']:.3f}, loss: 2.000\n"
    model.evaluate([[1.0]], [1.0], silent=True)
    assert capsys.readouterr().out == ""


def test_evaluate_leaves_penalties_out_and_weighs_batches_by_samples(capsys):
    model = one_weight_model(weight_regularizer_l2=1.0)
    X, y = np.arange(5.0)[:, None], np.zeros(5)
    whole = model.evaluate(X, y, silent=True)
    assert whole["loss"] == pytest.approx((4 + 16 + 36 + 64) / 5)
    assert model.evaluate(X, y, batch_size=2, silent=True)["loss"] == pytest.approx(whole["loss"])


def test_evaluate_and_predict_change_no_parameter(data):
    model = classifier(dropout=0.5)
    before = parameters_of(model)
    model.evaluate(*data, silent=True)
    model.predict(data[0])
    assert parameters_of(model) == before
    assert model.layers[2].training_forwards == 0


# Predicting


def test_predict_does_not_depend_on_the_batch_size(data):
    model = classifier(dropout=0.5)
    whole = model.predict(data[0])
    for batch_size in (1, 7, 150, 1000):
        np.testing.assert_allclose(model.predict(data[0], batch_size=batch_size), whole, rtol=1e-5)


def test_predict_returns_a_fresh_array():
    model = nnx.Model()
    model.add(nnx.Activation_Linear())
    model.finalize()
    X = np.ones((2, 2), np.float32)
    found = model.predict(X)
    assert not np.shares_memory(found, X)
    assert not np.shares_memory(found, model.layers[0].output)


def test_predict_of_no_rows_has_no_rows():
    assert classifier().predict(np.empty((0, 2))).shape == (0, 3)


# Parameters


def test_model_parameters_are_live_and_can_be_shared(data):
    first, second = classifier(), classifier()
    second.set_parameters(first.get_parameters())
    first.train(*data, epochs=2, print_every=None)
    np.testing.assert_array_equal(first.predict(data[0]), second.predict(data[0]))
    assert second.layers[0].weights is first.layers[0].weights


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p[:1],
        lambda p: [*p, p[0]],
        lambda p: [p[0], (p[1][0],)],
        lambda p: [p[0], (p[1][0].T, p[1][1])],
        lambda p: [p[0], (p[1][0], p[1][1] + 1j)],
    ],
)
def test_parameters_that_do_not_fit_change_no_layer(spoil):
    model = classifier()
    before = parameters_of(model)
    other = [(w + 1, b + 1) for w, b in model.get_parameters()]
    with pytest.raises((ValueError, TypeError), match=r"Model\.set_parameters: "):
        model.set_parameters(spoil(other))
    assert parameters_of(model) == before


# History and description


def test_history_holds_every_step_and_epoch(data):
    model = classifier(weight_regularizer_l2=1e-3)
    history = model.train(*data, epochs=4, batch_size=64, print_every=None, validation_data=data)
    assert history is model.history
    assert repr(history) == "History(epochs=4, steps=12)"
    for name in ("loss", "accuracy", "learning_rate", "validation_loss", "validation_accuracy"):
        assert getattr(history, name).shape == (4,)
        assert getattr(history, name).dtype == np.float64
    assert history.step_loss.shape == history.step_accuracy.shape == (12,)
    np.testing.assert_allclose(history.step_loss, history.step_data_loss + history.step_regularization_loss, rtol=1e-6)
    weights = np.array([64, 64, 22]) / 150
    np.testing.assert_allclose(history.data_loss, history.step_data_loss.reshape(4, 3) @ weights, rtol=1e-6)
    np.testing.assert_allclose(history.accuracy, history.step_accuracy.reshape(4, 3) @ weights)
    assert history.validation_loss[-1] == model.evaluate(*data, batch_size=64, silent=True)["loss"]
    figures = history.to_dict()
    assert figures["loss"] == history.loss.tolist()
    assert len(figures) == 12
    assert copy.deepcopy(history).to_dict() == pickle.loads(pickle.dumps(history)).to_dict() == figures
    with pytest.raises(AttributeError, match="no attribute 'losses'"):
        history.losses  # noqa: B018


def test_history_without_validation_has_none(data):
    history = classifier().train(*data, print_every=None)
    assert history.validation_loss.size == history.validation_accuracy.size == 0


def test_history_plot_draws_into_given_axes(data):
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    history = classifier().train(*data, epochs=3, print_every=None, validation_data=data)
    own = plt.subplots()[1]
    assert history.plot(own) is own
    assert [ax.get_ylabel() for ax in own.figure.axes] == ["loss", "accuracy"]
    plt.close("all")


def test_history_plot_without_matplotlib_says_what_to_install(data, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    history = classifier().train(*data, print_every=None)
    with pytest.raises(ImportError, match=r"matplotlib is not installed\. Install it with: .*nnx-core\[plot\]"):
        history.plot()


def test_summary_prints_layers_shapes_parameters_and_bytes(capsys):
    classifier(dropout=0.1).summary()
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    table = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert table[0] == ["layer", "output", "parameters", "bytes"]
    assert table[1] == ["Layer_Dense(2, 16)", "(n, 16)", "48", "192"]
    assert table[3] == ["Layer_Dropout(0.1, seed=5)", "(n, 16)", "0", "0"]
    assert table[-1] == ["total", "99", "396"]


def test_repr_shows_the_whole_model():
    assert repr(nnx.Model()) == "Model()"
    assert repr(binary()) == (
        "Model(\n  Layer_Dense(2, 8),\n  Activation_ReLU(),\n  Layer_Dense(8, 1),\n  Activation_Sigmoid(),\n"
        "  loss=Loss_BinaryCrossentropy(),\n  optimizer=Optimizer_Adam(learning_rate=0.01),\n"
        "  accuracy=Accuracy_Categorical(binary=True),\n)"
    )


def test_models_survive_deepcopy_and_pickle(data):
    model = classifier(dropout=0.2)
    model.train(*data, epochs=2, print_every=None)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.predict(data[0]), model.predict(data[0]))
        twin.train(*data, print_every=None)
        assert parameters_of(twin) != parameters_of(model)


def test_float64_models_compute_in_float64(data):
    model = classifier(dtype="float64")
    model.train(*data, print_every=None)
    assert model.predict(data[0]).dtype == np.float64
    assert model.layers[0].weight_cache.dtype == np.float64


def test_evaluate_before_train_takes_the_precision_from_all_of_y_val():
    model = one_weight_model(weight=1.0)
    X = np.concatenate([np.full(10, 0.001), np.linspace(-100, 100, 10)])[:, None]
    y = X + 0.01  # within a 250th of the deviation of all rows, but not of the first ten, which are equal
    assert model.evaluate(X, y, batch_size=10, silent=True)["accuracy"] == 1


def test_penalties_are_those_of_the_layers_that_are_trained(data):
    model = classifier(weight_regularizer_l2=1.0)
    model.trainable_layers = model.trainable_layers[1:]
    history = model.train(*data, print_every=None)
    assert history.regularization_loss[-1] == 0


def test_configurations_are_ready_for_json():
    import json

    for thing in (
        nnx.Layer_Dense(np.int64(2), 3, np.float32(0.5)),
        nnx.Layer_Dense(2, 3, weight_initializer=np.float32(0.5), bias_initializer=lambda shape: np.ones(shape)),
        nnx.Layer_Dropout(np.float32(0.5), seed=np.uint8(3)),
        nnx.Optimizer_SGD(np.float64(0.5), momentum=np.float32(0.5)),
        nnx.Accuracy_Categorical(binary=np.bool_(True)),
    ):
        json.dumps(thing.get_config())
        assert "np." not in repr(thing)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("averaged", [False, True])
def test_predictions_take_read_only_parameters_and_training_refuses_them(used, averaged):
    X = np.ones((3, 2), np.float32)
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(2, 4), nnx.Activation_PReLU(4), nnx.Layer_Dense(4, 3), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(0.1))
    model.set(accuracy=nnx.Accuracy_Categorical())
    model.finalize()
    expected = model.predict(X) if used else None
    names = ("weights", "biases", "weight_averages", "bias_averages")
    for layer in model.trainable_layers:
        if averaged:
            layer.weight_averages = layer.weights.copy()
            if hasattr(layer, "biases"):
                layer.bias_averages = layer.biases.copy()
        for name in names:
            if hasattr(layer, name):
                getattr(layer, name).flags.writeable = False
    before = [vars(layer).copy() for layer in model.trainable_layers]
    found = model.predict(X)
    assert expected is None or found.tobytes() == expected.tobytes()
    assert model.forward(X, training=False).tobytes() == found.tobytes() or not used
    model.evaluate(X, [0, 1, 2], silent=True)
    assert model.predictor()(X).tobytes() == found.tobytes()
    for layer, own in zip(model.trainable_layers, before, strict=True):
        assert all(vars(layer)[name] is own[name] for name in names if name in own)
    with pytest.raises(ValueError, match="weights must be a writable array, got a read-only one"):
        model.train(X, [0, 1, 2], print_every=None)


def test_read_only_parameters_of_another_dtype_are_not_replaced_by_copies():
    layer = nnx.Layer_Dense(2, 3)
    layer.weights = layer.weights.astype(np.float64)
    layer.weights.flags.writeable = False
    kept = layer.weights
    layer.forward(np.ones((1, 2)), training=False)
    assert layer.weights is kept
    with pytest.raises(ValueError, match="read-only"):
        layer.forward(np.ones((1, 2)), training=True)


@pytest.mark.parametrize(
    ("number", "name", "value"),
    [(0, "width", -1), (0, "columns", "x"), (0, "categories", [1, 2]), (1, "dtype", "int8")],
)
@pytest.mark.parametrize("own", [False, True])
def test_explain_says_so_of_a_layer_too(backend, number, name, value, own):
    class Layer_Same:
        def forward(self, inputs, training):
            self.output = inputs

        def backward(self, dvalues):
            self.dinputs = dvalues

    model = nnx.Model()
    for layer in (nnx.Layer_Embedding(4, [1], 5, 3), nnx.Layer_Dense(6, 3), *([Layer_Same()] if own else [])):
        model.add(layer)
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    setattr(model.layers[number], name, value)
    said = model.explain()
    assert said.startswith("No plan: the backend" if backend == "numpy" else "It does not train: Layer_")


def test_explain_says_that_a_setting_is_wrong(backend):
    model = classifier()
    model.optimizer.learning_rate = 0.1
    model.optimizer.clip_norm = -1
    said = model.explain()
    if backend == "numpy":
        assert said.startswith("No plan: the backend")
    else:
        assert said == "It does not train: Optimizer_Adam.update_params: clip_norm must be above 0, got -1."
