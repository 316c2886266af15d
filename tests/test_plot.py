"""Pictures: what is drawn where; how they look is for a person to judge."""

from __future__ import annotations

import numpy as np
import pytest
from networks import classifier

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


def test_decision_regions_needs_one_class_number_a_point():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 2))
    model.finalize()
    with pytest.raises(
        ValueError, match=r"model must predict one class number a point, got predictions of shape \(2,\)"
    ):
        nnx.plot.decision_regions(model, np.ones((2, 2)), [0, 1])
    nnx.plot.decision_regions(classifier(), np.zeros((1, 2)), [0])
