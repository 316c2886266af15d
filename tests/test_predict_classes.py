"""`Model.predict_classes`: outputs as class numbers, or as zeros and ones."""

from __future__ import annotations

import numpy as np
import pytest
from networks import binary, classifier, regression
from plans import Net, build, data_for

import nnx

X = np.random.default_rng(0).normal(size=(50, 2))


def test_softmax_outputs_give_class_numbers():
    model = classifier()
    found = model.predict_classes(X)
    assert (found.shape, found.dtype) == ((50,), np.dtype(np.intp))
    np.testing.assert_array_equal(found, np.argmax(model.predict(X), axis=1))
    np.testing.assert_array_equal(model.predict_classes(X, batch_size=7), found)
    assert len(set(found)) > 1
    assert model.predict_classes(X[:0]).shape == (0,)


@pytest.mark.parametrize("m", [1, 3])
def test_sigmoid_outputs_give_zeros_and_ones(m):
    model = binary(m)
    found = model.predict_classes(X)
    assert (found.shape, found.dtype) == ((50, m), np.dtype(np.intp))
    np.testing.assert_array_equal(found, model.predict(X) > 0.5)
    assert set(found.ravel()) == {0, 1}


@pytest.mark.parametrize(
    ("m", "judges_cells", "expected"),
    [
        (1, True, lambda p: p > 0),
        (1, False, lambda p: p > 0),
        (3, True, lambda p: p > 0),
        (3, False, lambda p: np.argmax(p, axis=1)),
    ],
)
def test_behind_a_hinge_loss_signs_count(m, judges_cells, expected):
    model = regression(m)
    model.set(loss=nnx.Loss_Hinge(), accuracy=nnx.Accuracy_Categorical(binary=judges_cells))
    np.testing.assert_array_equal(model.predict_classes(X), expected(model.predict(X)))


@pytest.mark.parametrize(
    "net", [Net("3-6,relu,6-3,linear", "squared", "classes"), Net("3-6,relu,6-1,linear", "squared", "cells")], ids=str
)
def test_linear_outputs_of_a_classifier(net):
    model = build(net)
    samples, _ = data_for(net, 20)
    p = model.predict(samples)
    expected = np.argmax(p, axis=1) if p.shape[1] > 1 else p > 0.5
    np.testing.assert_array_equal(model.predict_classes(samples), expected)


def test_a_last_layer_of_ones_own_may_give_one_number_a_sample():
    class First:
        def forward(self, inputs, training):
            self.output = inputs[:, 0]

        def backward(self, dvalues):
            raise NotImplementedError

    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    model.add(First())
    model.set(accuracy=nnx.Accuracy_Categorical(binary=True))
    model.finalize()
    model.set_parameters([(np.full((2, 3), 0.5), np.full((1, 3), 0.5))])
    outputs = model.predict(X)
    assert outputs.shape == (50,)
    found = model.predict_classes(X)
    assert found.tolist() == (outputs > 0.5).astype(int).reshape(-1, 1).tolist()
    assert set(found.ravel()) == {0, 1}


def test_a_last_layer_of_ones_own_has_the_first_say():
    class Activation_Reversed(nnx.Activation_Softmax):
        def predictions(self, outputs):
            return np.argmin(outputs, axis=1)

    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    model.add(Activation_Reversed())
    model.set(accuracy=nnx.Accuracy_Categorical())
    model.finalize()
    np.testing.assert_array_equal(model.predict_classes(X), np.argmin(model.predict(X), axis=1))


def test_neither_loss_nor_accuracy_is_needed():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    with pytest.raises(RuntimeError, match=r"^Model.predict_classes: the model is not finalized"):
        model.predict_classes(X)
    model.add(nnx.Activation_Softmax())
    model.finalize()
    np.testing.assert_array_equal(model.predict_classes(X), np.argmax(model.predict(X), axis=1))


def test_a_model_that_predicts_numbers_is_refused():
    with pytest.raises(TypeError, match=r"^Model.predict_classes: the model must predict classes, and it predicts num"):
        regression().predict_classes(X)
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 3))
    model.finalize()
    with pytest.raises(TypeError, match=r"^Model.predict_classes: accuracy must tell whether the model predicts clas"):
        model.predict_classes(X)
    with pytest.raises(ValueError, match=r"^Model.predict_classes: X must have shape \(n, 2\), got \(2, 3\)"):
        classifier().predict_classes(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^Model.predict_classes: batch_size must be"):
        classifier().predict_classes(X, batch_size=0)
