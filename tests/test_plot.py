"""Pictures: what is drawn where; how they look is for a person to judge."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from networks import binary, classifier, regression

import nnx

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_decision_regions_draws_regions_points_and_a_legend():
    X, y = nnx.vertical_data(20, 3)
    ax = nnx.plot.decision_regions(classifier(), X, y)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["class 0", "class 1", "class 2"]
    assert sum(len(points.get_offsets()) for points in ax.collections if points.get_label().startswith("class")) == 60
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    left, right = ax.get_xlim()
    assert left < X[:, 0].min()
    assert right > X[:, 0].max()


def test_decision_regions_draws_into_given_axes_and_takes_sigmoid_models():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 1))
    model.add(nnx.Activation_Sigmoid())
    model.finalize()
    own = plt.subplots()[1]
    assert nnx.plot.decision_regions(model, [[0.0, 0.0], [1.0, 1.0]], [[0], [1]], own) is own


def test_decision_regions_says_what_it_cannot_draw():
    with pytest.raises(ValueError, match=r"plot\.decision_regions: X must have shape \(n, 2\), got \(4, 3\)\."):
        nnx.plot.decision_regions(classifier(), np.ones((4, 3)), [0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"plot\.decision_regions: y must have one class number a point"):
        nnx.plot.decision_regions(classifier(), np.ones((4, 2)), [0, 1])
    for y in ([0.5, 1, 0, 1], [-1, 0, 1, 0]):
        with pytest.raises(ValueError, match=r"plot\.decision_regions: y must have class numbers from 0 to 999"):
            nnx.plot.decision_regions(classifier(), np.ones((4, 2)), y)


def test_points_must_be_finite_and_at_least_one():
    for X in (np.zeros((0, 2)), [[np.nan, 0.0]], [[np.inf, 0.0]], [[1e300, 0.0]]):
        with pytest.raises(ValueError, match=r"plot\.decision_regions: X must have at least one row, of finite"):
            nnx.plot.decision_regions(classifier(), X, np.zeros(len(X), int))
    with pytest.raises(ValueError, match=r"plot\.fitted_curve: X must have at least one row, of finite"):
        nnx.plot.fitted_curve(line_model(), np.zeros((0, 1)), [])


def test_decision_regions_needs_one_class_number_a_point():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 2))
    model.finalize()
    with pytest.raises(
        ValueError, match=r"model must predict one class number a point, got predictions of shape \(2,\)"
    ):
        nnx.plot.decision_regions(model, np.ones((2, 2)), [0, 1])
    nnx.plot.decision_regions(classifier(), np.zeros((1, 2)), [0])


def texts(ax):
    return [text.get_text() for text in ax.texts]


def own_axes():
    return plt.figure().add_subplot()


def test_history_plot_draws_both_figures_of_both_parts():
    model = classifier()
    X, y = nnx.spiral_data(10, 3)
    history = model.train(X, y, epochs=4, print_every=None, validation_data=(X, y))
    ax = history.plot()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["training loss", "validation loss", "training accuracy", "validation accuracy"]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.column_stack([range(1, 5), history.loss]))
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), history.validation_loss)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    own = own_axes()
    assert history.plot(own) is own
    alone = nnx.plot.history(history, own_axes(), accuracy=False, held_out="test")
    assert [text.get_text() for text in alone.get_legend().get_texts()] == ["training loss", "test loss"]
    assert len(alone.figure.axes) == 1


def test_confusion_matrix_counts_each_pair_of_classes():
    class Fixed(nnx.Model):
        def predict(self, X, *, batch_size=None):
            return np.eye(3)[np.asarray(X)[:, 0].astype(int)]

    model = Fixed()
    model.add(nnx.Layer_Dense(1, 3))
    model.add(nnx.Activation_Softmax())
    model.finalize()
    predicted = [[0], [0], [1], [2], [0]]
    own = own_axes()
    ax = nnx.plot.confusion_matrix(model, predicted, [0, 0, 1, 1, 2], own)
    assert ax is own
    assert texts(ax) == ["2", "0", "0", "0", "1", "1", "1", "0", "0"]  # row by row: the true classes
    np.testing.assert_array_equal(ax.images[0].get_array(), [[1, 0, 0], [0, 0.5, 0.5], [1, 0, 0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["class 0", "class 1", "class 2"]
    assert ax.get_title() == "accuracy 0.600 on 5 samples"
    model.table = nnx.Table([nnx.columns.Number("x"), nnx.columns.Text("y", ("a", "b", "c"))], "y")
    ax = nnx.plot.confusion_matrix(model, predicted, [0, 0, 1, 1, 2])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    ax = nnx.plot.confusion_matrix(model, predicted, [0, 0, 1, 1, 2], classes=["u", "v", "w"])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["u", "v", "w"]


def test_confusion_matrix_takes_sigmoid_models_and_says_what_it_cannot_draw():
    X = np.ones((4, 2))
    assert len(nnx.plot.confusion_matrix(binary(), X, [0, 1, 1, 0]).texts) == 4
    with pytest.raises(ValueError, match=r"plot\.confusion_matrix: y must have one class number a point, shape \(4,\)"):
        nnx.plot.confusion_matrix(classifier(), X, [0, 1])
    with pytest.raises(ValueError, match=r"plot\.confusion_matrix: model must predict one class number a point"):
        nnx.plot.confusion_matrix(regression(2), X, [0, 1, 1, 0])


def test_confusion_matrix_refuses_predictions_that_are_no_class_numbers():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(1, 1))
    model.layers[0].weights[:] = 1
    model.finalize()
    for X in ([[-1], [1]], [[0.5], [1]], [[5000], [1]], [[np.nan], [1]]):
        with pytest.raises(ValueError, match=r"model must predict one class number a point, got other numbers\."):
            nnx.plot.confusion_matrix(model, X, [0, 1])
    with pytest.raises(ValueError, match=r"y must have class numbers from 0 to 999, got others"):
        nnx.plot.confusion_matrix(model, [[0], [1]], [0, 10**6])
    names = np.array(["$a", "b"])
    ax = nnx.plot.confusion_matrix(model, [[0], [1]], [0, 1], classes=names)
    assert [label.get_text() for label in ax.get_xticklabels()] == [r"\$a", "b"]


def test_a_table_names_the_axes_and_classes_of_decision_regions():
    model = classifier()
    model.set(
        table=nnx.Table(
            [nnx.columns.Number(name) for name in ("width", "height")] + [nnx.columns.Text("kind", ("u", "v", "w"))],
            "kind",
        )
    )
    ax = nnx.plot.decision_regions(model, [[0, 0], [1, 1]], [0, 1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("width", "height")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["u", "v", "w"]


def line_model(table=None):
    """Return a model that computes 2x + 1."""
    model = nnx.Model()
    model.add(nnx.Layer_Dense(1, 1))
    model.layers[0].weights[:], model.layers[0].biases[:] = 2, 1
    model.set(table=table)
    model.finalize()
    return model


def test_fitted_curve_draws_the_models_line_through_the_points():
    own = own_axes()
    ax = nnx.plot.fitted_curve(line_model(), [[0.0], [1.0], [4.0]], [1, 2, 3], own)
    assert ax is own
    x, y = ax.lines[0].get_xdata().ravel(), ax.lines[0].get_ydata().ravel()
    assert (x[0], x[-1]) == (0, 4)
    np.testing.assert_allclose(y, 2 * x + 1, rtol=1e-6)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), [[0, 1], [1, 2], [4, 3]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["data", "model"]
    table = nnx.Table([nnx.columns.Number("area", 70.0, 20.0), nnx.columns.Number("rent", 100.0, 10.0)], "rent")
    ax = nnx.plot.fitted_curve(line_model(table), [[-1.0], [1.0]], [-1, 3])
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[50, 90], [90, 130]])
    np.testing.assert_allclose(ax.lines[0].get_xydata()[[0, -1]], [[50, 90], [90, 130]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("area", "rent")
    with pytest.raises(ValueError, match=r"plot\.fitted_curve: X must have shape \(n, 1\), got \(1, 2\)"):
        nnx.plot.fitted_curve(line_model(), [[1, 2]], [1])
    with pytest.raises(ValueError, match=r"plot\.fitted_curve: y must have the shape of the predictions"):
        nnx.plot.fitted_curve(line_model(), [[1], [2]], [1])


def test_predictions_are_drawn_in_the_targets_units():
    X, y = [[0.0], [1.0], [2.0]], [1, 4, 4.5]
    ax = nnx.plot.predictions(line_model(), X, y)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[1, 1], [4, 3], [4.5, 5]])
    table = nnx.Table([nnx.columns.Number("x"), nnx.columns.Number("rent", 100.0, 10.0)], "rent")
    own = own_axes()
    ax = nnx.plot.predictions(line_model(table), X, y, own)
    assert ax is own
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[110, 110], [140, 130], [145, 150]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true rent", "predicted rent")
    with pytest.raises(ValueError, match=r"plot\.predictions: model must give one output for each row of X"):
        nnx.plot.predictions(regression(2), np.ones((3, 2)), y)


def test_weights_are_drawn_as_one_image_a_neuron_on_one_scale():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(4, 3))
    model.finalize()
    weights = model.layers[0].weights
    own = own_axes()
    ax = nnx.plot.weights(model, own)
    assert ax is own
    mosaic = ax.images[0].get_array()
    assert mosaic.shape == (5, 5)
    np.testing.assert_array_equal(mosaic[:2, :2], weights[:, 0].reshape(2, 2))
    np.testing.assert_array_equal(mosaic[:2, 3:], weights[:, 1].reshape(2, 2))
    np.testing.assert_array_equal(mosaic[3:, :2], weights[:, 2].reshape(2, 2))
    assert np.ma.getmaskarray(mosaic)[3:, 3:].all()
    low, high = ax.images[0].get_clim()
    assert high == -low == pytest.approx(np.percentile(np.abs(weights), 99))
    assert nnx.plot.weights(model, shape=(1, 4)).images[0].get_array().shape == (5, 4)
    for shape in ((3, 2), (-2, -2), 4, (2.0, 2.0), (4,), "ab"):
        with pytest.raises(
            ValueError, match=r"plot\.weights: shape must be \(height, width\) of images of 4 pixels, got "
        ):
            nnx.plot.weights(model, shape=shape)
    with pytest.raises(ValueError, match=r"plot\.weights: model must have a layer with weights, got none\."):
        nnx.plot.weights(nnx.Model())


PICTURES = {
    "History.plot": lambda: nnx.History().plot(),
    "plot.decision_regions": lambda: nnx.plot.decision_regions(classifier(), np.ones((2, 2)), [0, 1]),
    "plot.confusion_matrix": lambda: nnx.plot.confusion_matrix(classifier(), np.ones((2, 2)), [0, 1]),
    "plot.fitted_curve": lambda: nnx.plot.fitted_curve(line_model(), [[1], [2]], [0, 1]),
    "plot.predictions": lambda: nnx.plot.predictions(line_model(), [[1], [2]], [0, 1]),
    "plot.weights": lambda: nnx.plot.weights(line_model()),
}


@pytest.mark.parametrize("name", PICTURES)
def test_without_matplotlib_each_says_what_to_install(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=rf"^{name}: matplotlib is not installed. .*'nnx-core\[plot\]'$"):
        PICTURES[name]()
