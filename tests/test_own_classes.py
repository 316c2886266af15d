"""Custom layers, losses, optimizers and accuracies, mixed with built-in ones."""

from __future__ import annotations

import numpy as np
import pytest

import nnx

X, Y = nnx.vertical_data(30, 3)


class Layer_Scale:
    """A layer from scratch, as the book's readers write one: no base class, no super()."""

    def __init__(self, n_columns):
        self.weights = np.ones((1, n_columns))
        self.biases = np.zeros((1, n_columns))

    def forward(self, inputs, training):
        self.inputs = inputs
        self.output = inputs * self.weights + self.biases

    def backward(self, dvalues):
        self.dweights = (dvalues * self.inputs).sum(axis=0, keepdims=True)
        self.dbiases = dvalues.sum(axis=0, keepdims=True)
        self.dinputs = dvalues * self.weights

    def get_parameters(self):
        return self.weights, self.biases

    def set_parameters(self, weights, biases):
        self.weights, self.biases = weights, biases


class Loss_Cubic(nnx.Loss):
    def forward(self, y_pred, y_true):
        return np.mean(np.abs(y_pred - y_true) ** 3, axis=-1)

    def backward(self, dvalues, y_true):
        difference = dvalues - y_true
        self.dinputs = 3 * difference * np.abs(difference) / dvalues.size


class Optimizer_Sign:
    """An optimizer from scratch."""

    def __init__(self, learning_rate):
        self.learning_rate = self.current_learning_rate = learning_rate
        self.iterations = 0

    def pre_update_params(self):
        self.current_learning_rate = self.learning_rate / (1 + self.iterations)

    def update_params(self, layer):
        layer.weights -= self.current_learning_rate * np.sign(layer.dweights)
        layer.biases += -self.current_learning_rate * np.sign(layer.dbiases)

    def post_update_params(self):
        self.iterations += 1


class Accuracy_TopTwo(nnx.Accuracy):
    def compare(self, predictions, y):
        return np.isin(predictions, [0, 1]) | (predictions == y)


def build(*layers, loss=None, optimizer=None, accuracy=None):
    model = nnx.Model()
    for layer in layers:
        model.add(layer)
    model.set(
        loss=loss or nnx.Loss_CategoricalCrossentropy(),
        optimizer=optimizer or nnx.Optimizer_Adam(0.02),
        accuracy=accuracy or nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


def test_a_layer_of_ones_own_trains_among_built_in_ones():
    scale = Layer_Scale(16)
    model = build(
        nnx.Layer_Dense(2, 16), scale, nnx.Activation_ReLU(), nnx.Layer_Dense(16, 3), nnx.Activation_Softmax()
    )
    assert scale in model.trainable_layers
    history = model.train(X, Y, epochs=60, print_every=None)
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert not np.array_equal(scale.weights, np.ones((1, 16)))
    assert scale.weight_cache.shape == (1, 16)
    assert len(model.get_parameters()) == 3
    model.set_parameters(model.get_parameters())


def test_a_first_layer_of_ones_own_gets_the_samples_as_they_are():
    class Layer_Embedding:
        def __init__(self):
            self.table = np.random.randn(10, 4)

        def forward(self, inputs, training):
            self.output = self.table[inputs]

        def backward(self, dvalues):
            self.dinputs = None

    model = build(Layer_Embedding(), nnx.Layer_Dense(4, 3), nnx.Activation_Softmax())
    ids = np.arange(30) % 10
    history = model.train(ids, ids % 3, epochs=200, batch_size=16, print_every=None)
    assert history.accuracy[-1] == 1
    assert model.predict(ids).shape == (30, 3)


def test_a_loss_of_ones_own_trains():
    model = build(nnx.Layer_Dense(1, 1), loss=Loss_Cubic(), accuracy=nnx.Accuracy_Regression())
    x = np.linspace(-1, 1, 20)[:, None]
    history = model.train(x, 2 * x, epochs=300, print_every=None)
    assert history.loss[-1] < 0.01 * history.loss[0]


def test_a_loss_of_ones_own_gets_the_targets_as_they_are():
    seen = []

    class Loss_Spy(Loss_Cubic):
        def forward(self, y_pred, y_true):
            seen.append(y_true)
            return super().forward(y_pred, y_true.reshape(-1, 1))

        def backward(self, dvalues, y_true):
            super().backward(dvalues, y_true.reshape(-1, 1))

    model = build(nnx.Layer_Dense(1, 1), loss=Loss_Spy(), accuracy=nnx.Accuracy_Regression())
    model.train(np.ones((4, 1)), np.arange(4), print_every=None)
    assert seen[0].shape == (4,)
    assert seen[0].dtype.kind == "i"


def test_an_optimizer_of_ones_own_trains_and_its_rate_is_printed(capsys):
    model = build(nnx.Layer_Dense(2, 3), nnx.Activation_Softmax(), optimizer=Optimizer_Sign(0.1))
    history = model.train(X, Y, epochs=30)
    assert history.loss[-1] < history.loss[0]
    assert "lr: 0.05\n" in capsys.readouterr().out


def test_an_optimizer_without_a_rate_can_be_used(capsys):
    class Optimizer_Bare:
        def pre_update_params(self): ...

        def update_params(self, layer):
            layer.weights = layer.weights - 0.1 * layer.dweights

        def post_update_params(self): ...

    model = build(nnx.Layer_Dense(2, 3), nnx.Activation_Softmax(), optimizer=Optimizer_Bare())
    history = model.train(X, Y, epochs=30)
    assert history.loss[-1] < history.loss[0]
    assert "lr: nan\n" in capsys.readouterr().out


def test_an_accuracy_of_ones_own_is_used_and_gets_the_targets_as_they_are():
    one_hot = np.identity(3)[Y]
    seen = []

    class Accuracy_Spy(nnx.Accuracy):
        def compare(self, predictions, y):
            seen.append(y.shape)
            return predictions == y.argmax(axis=1)

    model = build(nnx.Layer_Dense(2, 3), nnx.Activation_Softmax(), accuracy=Accuracy_Spy())
    model.train(X, one_hot, print_every=None)
    assert seen == [(90, 3)]
    model.set(accuracy=Accuracy_TopTwo())
    assert 0 <= model.evaluate(X, Y, silent=True)["accuracy"] <= 1


def test_subclasses_need_not_call_the_constructor_of_any_built_in_class():
    def bare(name):
        return type(f"Own_{name}", (getattr(nnx, name),), {"__init__": lambda self: None})()

    for name in ("Activation_ReLU", "Activation_Sigmoid", "Activation_Softmax", "Activation_Linear"):
        activation = bare(name)
        activation.forward(X)
        activation.backward(X)
    bare("Layer_Input").forward(X)
    dropout = bare("Layer_Dropout")
    dropout.rate = 0.5
    dropout.forward(X)
    dropout.backward(X)
    dense = bare("Layer_Dense")
    dense.weights, dense.biases = np.ones((2, 3)), np.zeros((1, 3))
    dense.forward(X)
    dense.backward(np.ones((90, 3)))
    assert dense.output.dtype == nnx.get_default_dtype()
    for name in ("SGD", "Adagrad", "RMSprop", "Adam"):
        optimizer = bare(f"Optimizer_{name}")
        optimizer.learning_rate = 0.5
        assert optimizer.current_learning_rate == 0.5
        optimizer.pre_update_params()
        optimizer.update_params(dense)
        optimizer.post_update_params()
        assert optimizer.iterations == 1
    bare("Loss_CategoricalCrossentropy").calculate(np.full((90, 3), 0.3), Y)
    for name in ("Loss_BinaryCrossentropy", "Loss_MeanSquaredError", "Loss_MeanAbsoluteError"):
        bare(name).calculate(np.full((2, 1), 0.3), [0, 1])
    bare("Accuracy_Categorical").calculate(Y, Y)
    bare("Accuracy_Regression").calculate(X, X)
    combined = bare("Activation_Softmax_Loss_CategoricalCrossentropy")
    combined.forward(np.ones((90, 3)), Y)
    combined.backward(combined.output, Y)
    model = bare("Model")
    model.add(nnx.Layer_Dense(2, 3))
    model.finalize()
    assert model.predict(X).shape == (90, 3)
    assert model.layers is not bare("Model").layers


def test_a_dense_subclass_with_its_own_initial_weights_trains():
    class Layer_He(nnx.Layer_Dense):
        def __init__(self, n_inputs, n_neurons):
            self.weights = np.random.randn(n_inputs, n_neurons) * np.sqrt(2 / n_inputs)
            self.biases = np.zeros((1, n_neurons))

    model = build(Layer_He(2, 16), nnx.Activation_ReLU(), Layer_He(16, 3), nnx.Activation_Softmax())
    history = model.train(X, Y, epochs=60, print_every=None)
    assert history.loss[-1] < 0.5 * history.loss[0]
    assert model.layers[0].weights.dtype == np.float32


def test_overridden_methods_of_built_in_classes_are_called():
    calls = []

    class Own_ReLU(nnx.Activation_ReLU):
        def forward(self, inputs, training=True):
            calls.append("forward")
            super().forward(inputs, training)

        def backward(self, dvalues):
            calls.append("backward")
            super().backward(dvalues)

    class Own_Adam(nnx.Optimizer_Adam):
        def update_params(self, layer):
            calls.append("update")
            super().update_params(layer)

    model = build(
        nnx.Layer_Dense(2, 8), Own_ReLU(), nnx.Layer_Dense(8, 3), nnx.Activation_Softmax(), optimizer=Own_Adam()
    )
    model.train(X, Y, print_every=None)
    assert calls == ["forward", "backward", "update", "update"]


def test_base_classes_say_what_is_missing():
    class Loss_Empty(nnx.Loss):
        pass

    with pytest.raises(NotImplementedError, match=r"Loss_Empty does not define forward\(y_pred, y_true\)\."):
        Loss_Empty().calculate(X, X)

    class Accuracy_Empty(nnx.Accuracy):
        pass

    with pytest.raises(NotImplementedError, match=r"Accuracy_Empty does not define compare\(predictions, y\)\."):
        Accuracy_Empty().calculate(X, X)


def test_a_loss_that_gives_one_number_for_the_batch_is_refused():
    class Loss_Mean(nnx.Loss):
        def forward(self, y_pred, y_true):
            return np.mean((y_pred - y_true) ** 2)

    with pytest.raises(ValueError, match=r"Loss_Mean\.calculate: forward must return one loss per sample"):
        Loss_Mean().calculate(X, X)


def test_an_accuracy_that_compares_in_parts_is_averaged():
    class Accuracy_Part(nnx.Accuracy):
        def compare(self, predictions, y):
            return np.array([0.25, 0.5, 0.0, 0.25])

    accuracy = Accuracy_Part()
    assert accuracy.calculate(X, Y) == 0.25
    assert accuracy.calculate_accumulated() == 0.25


def test_a_penalty_counts_what_an_own_layer_has_and_what_was_assigned_as_cast():
    class Layer_Bare:
        weight_regularizer_l1 = 1.0
        bias_regularizer_l2 = 1.0
        weights = np.array([[1.0, -2.0]])

    assert nnx.Loss().regularization_loss(Layer_Bare()) == 3
    dense = nnx.Layer_Dense(2, 3, weight_regularizer_l1=1.0)
    dense.weights = np.full((2, 3), -128, np.int8)
    assert nnx.Loss().regularization_loss(dense) == 768


def test_a_model_that_overrides_forward_decides_what_it_takes():
    class Model_Flat(nnx.Model):
        def forward(self, X, training):
            return super().forward(np.asarray(X).reshape(len(X), -1) / 10, training)

    model = Model_Flat()
    model.add(nnx.Layer_Dense(4, 3))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    pictures = np.arange(24.0).reshape(6, 2, 2)
    model.train(pictures, [0, 1, 2, 0, 1, 2], print_every=None)
    assert model.predict(pictures).shape == (6, 3)


def test_a_loss_assigned_without_set_is_not_given_the_combined_gradient():
    model = build(nnx.Layer_Dense(2, 3), nnx.Activation_Softmax())
    called = []

    class Own_Loss(nnx.Loss_CategoricalCrossentropy):
        def backward(self, dvalues, y_true):
            called.append(True)
            super().backward(dvalues, y_true)

    model.loss = Own_Loss()
    model.train(X, Y, print_every=None)
    assert called == [True]


def test_a_failing_set_parameters_of_an_own_layer_changes_no_layer():
    class Layer_Picky(Layer_Scale):
        def set_parameters(self, weights, biases):
            if weights is not self.weights:
                raise ValueError("no")

    model = build(nnx.Layer_Dense(2, 3), Layer_Picky(3), nnx.Activation_Softmax())
    kept = model.layers[0].weights
    with pytest.raises(ValueError, match="no"):
        model.set_parameters([(np.ones((2, 3)), np.ones((1, 3))), (np.ones((1, 3)), np.ones((1, 3)))])
    assert model.layers[0].weights is kept


def test_a_copy_made_during_training_can_be_trained():
    import copy

    copies = []

    class Accuracy_Keeping(nnx.Accuracy_Categorical):
        def calculate(self, predictions, y):
            copies.append(copy.deepcopy(model))
            return super().calculate(predictions, y)

    model = build(nnx.Layer_Dense(2, 3), nnx.Activation_Softmax(), accuracy=Accuracy_Keeping())
    model.train(X, Y, print_every=None)
    copies[0].set(accuracy=nnx.Accuracy_Categorical())
    copies[0].train(X, Y, print_every=None)


def test_a_model_that_overrides_forward_decides_what_it_gives():
    class Model_Half(nnx.Model):
        def forward(self, X, training):
            return super().forward(X, training)[:, :1]

        def backward(self, output, y):
            self.loss.backward(output, y)
            self.layers[-1].backward(np.repeat(self.loss.dinputs, 2, axis=1))

    model = Model_Half()
    model.add(nnx.Layer_Dense(2, 2))
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(0.1), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    history = model.train(X, X[:, 0], epochs=20, print_every=None)
    assert history.loss[-1] < history.loss[0]


def test_a_subclass_of_a_loss_gets_the_targets_as_they_are():
    seen = []

    class Own_Loss(nnx.Loss_CategoricalCrossentropy):
        def backward(self, dvalues, y_true):
            seen.append(np.shape(y_true))
            super().backward(dvalues, y_true)

    model = build(nnx.Layer_Dense(2, 3), nnx.Activation_Softmax(), loss=Own_Loss())
    model.train(X, np.identity(3)[Y], print_every=None)
    assert seen == [(90, 3)]


def test_a_layer_from_code_without_a_module_is_one_like_any_other():
    names: dict[str, type] = {}
    code = """
class Twice:
    def forward(self, inputs, training):
        self.output = 2 * inputs

    def backward(self, dvalues):
        self.dinputs = 2 * dvalues
"""
    exec(code, names)
    assert names["Twice"].forward.__module__ is None
    model = build(names["Twice"](), nnx.Layer_Dense(2, 3), nnx.Activation_Softmax())
    assert model.predict(X).shape == (90, 3)
