"""Pictures: what they show, and where. A person must judge how they look."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest
from networks import binary, classifier, regression

import nnx
from nnx.scoring.importance import Importance

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

pytestmark = pytest.mark.one_backend


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
    with pytest.raises(ValueError, match=r"plot\.decision_regions: y must have one class number per point"):
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
        ValueError, match=r"model must predict one class number per point, got predictions of shape \(2,\)"
    ):
        nnx.plot.decision_regions(model, np.ones((2, 2)), [0, 1])
    nnx.plot.decision_regions(classifier(), np.zeros((1, 2)), [0])


def texts(ax):
    return [text.get_text() for text in ax.texts]


def own_axes():
    return plt.figure().add_subplot()


def ticks(axis):
    axis.axes.figure.draw_without_rendering()
    low, high = sorted(axis.get_view_interval())
    return [t.get_text() for t, at in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True) if low <= at <= high]


def history_of(*, loss=(), validation_loss=(), accuracy=None, validation_accuracy=None, is_regression=False):
    """Return a history with these figures of epochs."""
    history = nnx.History(is_regression)
    for value, hits in zip(loss, accuracy or [0.5] * len(loss), strict=True):
        history.add_epoch(value, 0.0, hits, 0.1)
    for value, hits in zip(validation_loss, validation_accuracy or [0.5] * len(validation_loss), strict=True):
        history.add_validation(value, hits)
    return history


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_history_plot_draws_loss_and_accuracy_in_two_panels():
    model = classifier(weight_regularizer_l2=0.01)
    X, y = nnx.spiral_data(10, 3)
    history = model.train(X, y, epochs=4, print_every=None, validation_data=(X, y))
    ax = history.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation", "best epoch"]
    loss, accuracy = ax.figure.axes
    assert loss is ax
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss", "accuracy")
    assert accuracy.get_xlabel().startswith("epoch")
    # Without the penalty, because the validation loss has none.
    np.testing.assert_array_equal(
        lines(loss)["training"].get_xydata(), np.column_stack([range(1, 5), history.data_loss])
    )
    np.testing.assert_array_equal(lines(loss)["validation"].get_ydata(), history.validation_loss)
    np.testing.assert_array_equal(lines(accuracy)["training"].get_ydata(), history.accuracy)
    np.testing.assert_array_equal(lines(accuracy)["validation"].get_ydata(), history.validation_accuracy)
    assert loss.get_position().y0 > accuracy.get_position().y1
    alone = nnx.plot.history(history, own_axes(), accuracy=False, held_out="test")
    assert [text.get_text() for text in alone.get_legend().get_texts()][:2] == ["training", "test"]
    assert len(alone.figure.axes) == 1


def test_the_training_is_thin_and_on_top_of_the_thick_line_of_the_validation():
    found = lines(history_of(loss=[3, 2, 1], validation_loss=[3, 2, 1]).plot())
    training, validation = found["training"], found["validation"]
    assert 2 * training.get_linewidth() <= validation.get_linewidth()
    assert training.get_zorder() > validation.get_zorder()
    assert training.get_color() != validation.get_color()


def test_the_best_epoch_is_that_of_the_lowest_validation_loss():
    history = history_of(
        loss=[4, 3, 2, 1], validation_loss=[3, np.nan, 1.25, 2], validation_accuracy=[0.5, 0.6, 0.75, 0.9]
    )
    ax = history.plot()
    loss, accuracy = ax.figure.axes
    assert lines(loss)["best epoch"].get_xydata().tolist() == [[3, 1.25]]
    assert lines(accuracy)["best epoch"].get_xydata().tolist() == [[3, 0.75]]
    for panel in (loss, accuracy):
        assert any(list(line.get_xdata()) == [3, 3] for line in panel.lines)  # the vertical line
    assert accuracy.get_xlabel() == "epoch\nbest epoch 3: validation loss 1.250, accuracy 0.750"
    without = history_of(loss=[2, 1]).plot()
    assert list(lines(without)) == ["training"]
    assert without.figure.axes[1].get_xlabel() == "epoch"
    single = history_of(loss=[2], validation_loss=[1]).plot()
    assert "best epoch" not in lines(single)
    assert lines(single)["training"].get_marker() == "o"


def test_the_scale_of_a_loss_is_logarithmic_where_it_spans_decades():
    assert history_of(loss=[1.0, 0.2, 0.05]).plot().get_yscale() == "linear"
    assert history_of(loss=[1.0, 0.2, 0.05]).plot().get_ylim()[0] == 0
    ax = history_of(loss=[100.0, 1.0, 1e-3], validation_loss=[100.0, 1.0, 1e-5]).plot()
    assert ax.get_yscale() == "log"
    assert set(ticks(ax.yaxis)) >= {"100", "1", "0.01", "0.0001"}
    assert ax.figure.axes[1].get_yscale() == "linear"
    for odd in ([1.0, 0.0, 0.001], [1.0, -2.0, 0.001], [np.nan, np.nan], [np.inf, 1.0]):
        history_of(loss=odd, validation_loss=odd).plot().figure.draw_without_rendering()


def test_the_scale_of_an_accuracy_is_the_range_that_it_runs_through():
    def limits(*accuracy):
        return history_of(loss=[1.0] * len(accuracy), accuracy=list(accuracy)).plot().figure.axes[1].get_ylim()

    low, high = limits(0.8, 0.9)
    assert 0.7 < low < 0.8 < 0.9 < high < 1
    assert limits(0, 1)[0] == 0
    assert 1 < limits(0, 1)[1] < 1.01  # the line at 1 is whole
    assert np.ptp(limits(0.5, 0.5001)) >= 0.1
    assert limits(-1, 3)[0] < -1  # a custom accuracy
    assert limits(-1, 3)[1] > 3
    assert limits(np.nan, 0.5)[1] > 0.5


def test_the_accuracy_of_a_regression_is_drawn_only_if_asked_for():
    X = np.ones((4, 2))
    history = regression().train(X, X.sum(axis=1), epochs=2, print_every=None)
    assert history.is_regression
    assert len(history.plot().figure.axes) == 1
    assert len(history.plot(accuracy=True).figure.axes) == 2
    model = regression()
    for _ in range(3):  # the fast path for repeated calls makes histories too
        assert model.train(X, X.sum(axis=1), print_every=None).is_regression
    assert not classifier().train(X, [0, 1, 2, 0], epochs=2, print_every=None).is_regression


def test_two_panels_share_the_place_of_given_axes():
    history = history_of(loss=[2, 1], validation_loss=[2, 1])
    figure, (left, right) = plt.subplots(1, 2)
    before = right.get_position()
    assert history.plot(right) is right
    below = figure.axes[2]
    figure.draw_without_rendering()
    assert right.get_position().x0 == below.get_position().x0 == before.x0
    assert below.get_position().y0 == pytest.approx(before.y0)
    assert right.get_position().y1 == pytest.approx(before.y1)
    assert left.get_position().height == pytest.approx(before.height)
    by_hand = plt.figure().add_axes((0.2, 0.2, 0.5, 0.5))
    history.plot(by_hand)
    assert by_hand.get_position().y1 == pytest.approx(0.7)
    assert by_hand.figure.axes[1].get_position().y0 == pytest.approx(0.2)


def test_numbers_at_axes_are_written_as_on_the_terminal():
    ax = history_of(loss=[3.0] * 20_000, validation_loss=[2.0] * 20_000).plot()
    assert "15,000" in ticks(ax.figure.axes[1].xaxis)
    written = nnx.plot.parts.plain_numbers
    assert written([0, 0.25, 0.5]) == ["0.00", "0.25", "0.50"]
    assert written([-1, 0, 1]) == ["-1", "0", "1"]
    assert written([0.1 * n for n in (-1, 0, 1, 3)]) == ["-0.1", "0.0", "0.1", "0.3"]
    assert written([2500.5, 2501]) == ["2,500.5", "2,501.0"]
    assert written([0, 1e-8]) == ["0", "1e-08"]
    assert written([0, 1e16]) == ["0", "1e+16"]


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
    cells = ["2\n1.000", "0", "0", "0", "1\n0.500", "1\n0.500", "1\n1.000", "0", "0"]
    assert texts(ax) == cells  # row by row: the true classes
    np.testing.assert_array_equal(ax.images[0].get_array(), [[1, 0, 0], [0, 0.5, 0.5], [1, 0, 0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["class 0", "class 1", "class 2"]
    assert ax.get_title() == "accuracy 0.600 on 5 samples"
    model.table = nnx.Table([nnx.data.columns.Number("x"), nnx.data.columns.Text("y", ("a", "b", "c"))], "y")
    ax = nnx.plot.confusion_matrix(model, predicted, [0, 0, 1, 1, 2])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    ax = nnx.plot.confusion_matrix(model, predicted, [0, 0, 1, 1, 2], classes=["u", "v", "w"])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["u", "v", "w"]


class Told(nnx.Model):
    """Predicts what it is given."""

    def predict(self, X, *, batch_size=None):
        return np.asarray(X, float)


def told(n_classes):
    model = Told()
    model.add(nnx.Layer_Dense(n_classes, n_classes))
    model.add(nnx.Activation_Softmax())
    model.finalize()
    return model


def matrix(names):
    n = len(names)
    return nnx.plot.confusion_matrix(told(n), np.eye(n), np.arange(n), classes=names)


def names_at(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_classes_are_drawn_in_natural_order_unless_somebody_chose_another():
    names = sorted(map(str, range(1, 13)))
    assert names[:3] == ["1", "10", "11"]
    ax = matrix(names)
    assert names_at(ax.xaxis) == names_at(ax.yaxis) == [str(number) for number in range(1, 13)]
    np.testing.assert_array_equal(ax.images[0].get_array(), np.eye(12))
    wrong = nnx.plot.confusion_matrix(told(3), np.eye(3)[[1, 1, 1]], [0, 1, 1], classes=["a1", "a10", "a2"])
    assert names_at(wrong.yaxis) == ["a1", "a2", "a10"]  # rows and columns move with the names
    assert texts(wrong) == ["0", "0", "1\n1.000", "0", "0", "0", "0", "0", "2\n1.000"]
    assert names_at(matrix(["low", "medium", "high"]).yaxis) == ["low", "medium", "high"]
    assert names_at(matrix(["9" * 5000, "a"]).yaxis)[1] == "a"


@pytest.mark.few
@pytest.mark.parametrize("n_classes", [2, 10, 30])
def test_a_confusion_matrix_has_room_for_long_names(n_classes):
    ax = matrix([f"a long name of a class, number {number}" for number in range(n_classes)])
    figure = ax.figure
    figure.draw_without_rendering()
    inside = figure.bbox.padded(1)
    (bar,) = ax.child_axes
    labels = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label, ax.title, bar.yaxis.label]
    for label in labels:
        box = label.get_window_extent()
        assert inside.x0 <= box.x0 < box.x1 <= inside.x1, label.get_text()
        assert inside.y0 <= box.y0 < box.y1 <= inside.y1, label.get_text()
    assert all(label.get_rotation() > 0 for label in ax.get_xticklabels())
    cell = ax.get_window_extent().width / n_classes
    assert all(text.get_window_extent().width < cell for text in ax.texts)
    places = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(places))


def test_the_colour_bar_is_as_high_as_the_matrix():
    alone = matrix(["a", "b"])
    figure, axes = plt.subplots(1, 2, figsize=(12, 3), layout="constrained")
    beside = nnx.plot.confusion_matrix(told(2), np.eye(2), [0, 1], axes[0])
    for ax in (alone, beside):
        ax.figure.draw_without_rendering()
        (bar,) = ax.child_axes
        own, its = ax.get_window_extent(), bar.get_window_extent()
        assert (its.y0, its.y1) == pytest.approx((own.y0, own.y1))
        assert its.x0 > own.x1
    assert beside.get_window_extent().height < 0.9 * figure.bbox.height


def test_short_names_are_not_turned_and_many_classes_have_no_zeros():
    assert all(label.get_rotation() == 0 for label in matrix(["a", "b", "c"]).get_xticklabels())
    ax = matrix([f"n{number}" for number in range(30)])
    assert texts(ax) == ["1"] * 30
    assert texts(matrix([f"n{number}" for number in range(60)])) == []


def test_names_shrink_with_the_number_of_classes_and_cells_keep_room():
    sizes, shown = [], []
    for n_classes in (12, 13, 41, 80, 81):
        names = [f"c{number}" for number in range(n_classes)]
        assert min(nnx.plot.matrix_size(names)) > (0.36 if n_classes <= 40 else 0.13) * n_classes
        labels = matrix(names).get_xticklabels()
        sizes.append(labels[0].get_fontsize())
        shown.append([label.get_text() for label in labels] == names)
    assert sizes[:4] == [10, 8, 6, 6]
    assert shown == [True] * 4 + [False]


def test_confusion_matrix_takes_sigmoid_models_and_says_what_it_cannot_draw():
    X = np.ones((4, 2))
    assert len(nnx.plot.confusion_matrix(binary(), X, [0, 1, 1, 0]).texts) == 4
    with pytest.raises(
        ValueError, match=r"plot\.confusion_matrix: y must have one class number per point, shape \(4,\)"
    ):
        nnx.plot.confusion_matrix(classifier(), X, [0, 1])
    with pytest.raises(ValueError, match=r"plot\.confusion_matrix: model must predict one class number per point"):
        nnx.plot.confusion_matrix(regression(2), X, [0, 1, 1, 0])


def test_confusion_matrix_refuses_predictions_that_are_no_class_numbers():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(1, 1))
    model.layers[0].weights[:] = 1
    model.finalize()
    for X in ([[-1], [1]], [[0.5], [1]], [[5000], [1]], [[np.nan], [1]]):
        with pytest.raises(ValueError, match=r"model must predict one class number per point, got other numbers\."):
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
            [nnx.data.columns.Number(name) for name in ("width", "height")]
            + [nnx.data.columns.Text("kind", ("u", "v", "w"))],
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
    table = nnx.Table(
        [nnx.data.columns.Number("area", 70.0, 20.0), nnx.data.columns.Number("rent", 100.0, 10.0)], "rent"
    )
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
    table = nnx.Table([nnx.data.columns.Number("x"), nnx.data.columns.Number("rent", 100.0, 10.0)], "rent")
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
    assert ax.get_facecolor()[3] == 0  # where there is no neuron, there is nothing
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


# Mistakes


def image_model(n_classes=3):
    model = told(n_classes)
    model.images = nnx.Images(1, n_classes, ["cat", "dog", "cow"][:n_classes], mean=0, scale=1)
    return model


def test_mistakes_are_the_surest_wrong_answers_with_both_names():
    sure = [[0.9, 0.1, 0], [0.2, 0.8, 0], [0.05, 0.95, 0], [0, 0.3, 0.7], [0, 1, 0]]
    figure = nnx.plot.mistakes(image_model(), sure, [0, 0, 2, 1, 1])
    assert [ax.get_title() for ax in figure.axes] == ["cow", "cat", "dog"]  # by probability: 0.95, 0.8, 0.7
    assert [ax.get_xlabel() for ax in figure.axes] == ["dog 0.950", "dog 0.800", "cow 0.700"]
    assert figure.get_suptitle() == "all of 3 mistakes among 5 images: true class above, predicted class below"
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), np.rint([[0.05, 0.95, 0]]))
    few = nnx.plot.mistakes(image_model(), sure, [0, 0, 2, 1, 1], most=1)
    assert [ax.get_title() for ax in few.axes] == ["cow"]
    assert few.get_suptitle().startswith("the surest 1 of 3 mistakes among 5 images")


def test_without_mistakes_the_figure_says_so():
    figure = nnx.plot.mistakes(image_model(), np.eye(3), [0, 1, 2])
    assert (figure.axes, figure.get_suptitle()) == ([], "no mistakes among 3 images")


def test_mistakes_of_models_that_know_no_images_are_squares():
    figure = nnx.plot.mistakes(told(4), np.eye(4), [1, 1, 2, 3])
    assert figure.axes[0].images[0].get_array().shape == (2, 2)
    assert figure.axes[0].get_title() == "class 1"
    figure = nnx.plot.mistakes(told(4), np.eye(4), [1, 1, 2, 3], shape=(4, 1), classes=list("abcd"))
    assert figure.axes[0].images[0].get_array().shape == (4, 1)
    with pytest.raises(ValueError, match=r"plot\.mistakes: shape must be \(height, width\) of images of 3 pixels"):
        nnx.plot.mistakes(told(3), np.eye(3), [1, 1, 2])
    with pytest.raises(ValueError, match=r"plot\.mistakes: most must be a whole number of at least 1, got 0"):
        nnx.plot.mistakes(told(4), np.eye(4), [1, 1, 2, 3], most=0)


PICTURES = {
    "plot.mistakes": lambda: nnx.plot.mistakes(image_model(), np.eye(3), [0, 1, 1]),
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


# Several trainings


def test_histories_draws_two_lines_for_each_training_and_names_each_kind_once():
    each = [history_of(loss=[3, 2, 1], validation_loss=[4, 3, 3]), history_of(loss=[5, 1], validation_loss=[4, 2])]
    ax = nnx.plot.histories(each, held_out="test")
    assert [line.get_ydata().tolist() for line in ax.lines] == [[3, 2, 1], [4, 3, 3], [5, 1], [4, 2]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "test"]
    own = own_axes()
    assert nnx.plot.histories([history_of(loss=[1])], own) is own
    assert [text.get_text() for text in own.get_legend().get_texts()] == ["training"]
    with pytest.raises(ValueError, match=r"plot\.histories: each must hold at least one history"):
        nnx.plot.histories([])


# Calibration, importance


def sure_of(p, width):
    """Return a model of some classes, and the inputs for which it predicts these probabilities."""
    model = nnx.Model()
    model.add(nnx.Layer_Dense(width, width, dtype="float64"))
    model.add(nnx.Activation_Softmax())
    model.finalize()
    model.set_parameters([(np.identity(width), np.zeros((1, width)))])
    return model, np.log(p)


def test_calibration_draws_the_curve_of_the_second_of_two_classes_beside_the_diagonal():
    p = np.repeat([0.2, 0.8], 10)
    y = np.array([1, 1, *[0] * 8, *[1] * 5, *[0] * 5])
    model, X = sure_of(np.column_stack([1 - p, p]), 2)
    ax = nnx.plot.calibration(model, X, y, n_bins=4)
    curve = ax.containers[-1].lines[0]
    np.testing.assert_allclose(curve.get_xydata(), [[0.2, 0.2], [0.8, 0.5]], atol=1e-6)
    assert [bar.get_height() for bar in ax.patches] == [0.5, 0, 0, 0.5]
    assert (ax.get_xlabel(), ax.get_title()) == ("probability of class 1", "calibration error 0.150 on 20 samples")
    low, high = ax.containers[-1].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.0567, 0.5098), abs=1e-3)  # Wilson's interval of 2 in 10


def test_calibration_of_several_classes_is_that_of_the_predicted_one():
    model, X = sure_of(np.array([[0.7, 0.2, 0.1], [0.1, 0.7, 0.2]]), 3)
    own = own_axes()
    assert nnx.plot.calibration(model, X, [0, 0], own) is own
    np.testing.assert_allclose(own.containers[-1].lines[0].get_xydata(), [[0.7, 0.5]], atol=1e-6)
    assert own.get_xlabel() == "probability of the predicted class"


def test_calibration_refuses_outputs_that_are_no_probabilities():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 2))
    model.set(accuracy=nnx.Accuracy_Categorical(), loss=nnx.Loss_Hinge())
    model.finalize()
    with pytest.raises(ValueError, match=r"plot\.calibration: model must "):
        nnx.plot.calibration(model, np.ones((3, 2)), [0, 1, 1])


def test_importance_draws_the_most_important_columns_on_top():
    drops = np.array([[0.1, 0.2], [0.4, 0.6], [0.0, -0.1]])
    found = Importance(("a", "b $x$", "c"), drops, "accuracy", 0.9, 1234)
    ax = nnx.plot.importance(found)
    assert [label.get_text() for label in ax.get_yticklabels()] == [r"b \$x\$", "a", "c"]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [0.5, 0.15, -0.05])
    assert ax.yaxis.get_inverted()
    assert ax.get_xlabel() == "drop of accuracy when the column is shuffled"
    assert ax.get_title() == "accuracy 0.900 on 1,234 rows"
    own = own_axes()
    assert nnx.plot.importance(found, own, n_columns=1) is own
    assert len(own.patches) == 1
    assert own.get_title().endswith("; 2 columns more are not drawn")
