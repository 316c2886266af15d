"""Permutation importance of columns, not of inputs: what it finds, draws and refuses."""

from __future__ import annotations

import numpy as np
import pytest

import nnx
from nnx.data.columns import Ignored, Number, Text
from nnx.scoring.importance import Importance

pytestmark = pytest.mark.one_backend


@pytest.fixture
def towns(rng):
    """Return a model that answers the town's number plus a tenth of the age, and rows that it predicts exactly."""
    columns = [Number("noise"), Ignored("name"), Text("town", ("a", "b", "c")), Number("age"), Number("y")]
    table = nnx.Table(columns, "y")
    model = nnx.Model()
    model.add(nnx.Layer_Dense(5, 1, dtype="float64"))
    model.set(table=table)
    model.finalize()
    weights = np.array([[0.0], [0.0], [1.0], [2.0], [0.1]])
    model.set_parameters([(weights, np.zeros((1, 1)))])
    X = np.zeros((400, 5))
    X[:, [0, 4]] = rng.normal(size=(400, 2))
    X[np.arange(400), 1 + rng.integers(0, 3, 400)] = 1
    return model, X, X @ weights


def test_columns_are_those_of_the_table_and_not_the_inputs(towns):
    found = nnx.permutation_importance(*towns)
    assert found.columns == ("noise", "town", "age")
    assert found.drops.shape == (3, 5)
    assert (found.figure, found.score, found.n_rows) == ("R²", 1.0, 400)
    assert found.means[0] == 0
    assert found.means[1] > 1 > 0.1 > found.means[2] > 0
    assert [found.columns[position] for position in found.order] == ["town", "age", "noise"]


def test_all_inputs_of_a_column_are_shuffled_together(towns):
    model, X, y = towns
    seen = []

    class Looking:
        table = model.table

        def report(self, inputs, targets, batch_size=None):
            seen.append(np.array(inputs))
            return model.report(inputs, targets, batch_size=batch_size)

    nnx.permutation_importance(Looking(), X, y, n_repeats=2)
    assert len(seen) == 1 + 3 * 2
    for number, part in enumerate([slice(0, 1), slice(1, 4), slice(4, 5)]):
        for shuffled in seen[1 + 2 * number : 3 + 2 * number]:
            others = np.delete(np.arange(5), np.arange(5)[part])
            np.testing.assert_array_equal(shuffled[:, others], X[:, others])
            assert (shuffled[:, part] != X[:, part]).any()
            assert sorted(map(tuple, shuffled[:, part])) == sorted(map(tuple, X[:, part]))


def test_importance_is_that_of_scikit_learn(towns):
    inspection = pytest.importorskip("sklearn.inspection")
    from sklearn.base import BaseEstimator, RegressorMixin

    model, X, y = towns

    class Estimator(RegressorMixin, BaseEstimator):
        def fit(self, X, y):
            return self

        def predict(self, X):
            towns = np.eye(3)[X[:, 1].astype(int)]
            return model.predict(np.column_stack([X[:, 0], towns, X[:, 2]]))[:, 0]

    columns = np.column_stack([X[:, 0], X[:, 1:4].argmax(axis=1), X[:, 4]])
    expected = inspection.permutation_importance(Estimator(), columns, y[:, 0], n_repeats=40, random_state=1)
    found = nnx.permutation_importance(model, X, y, n_repeats=40)
    near = 4 * expected.importances_std.max() / 40**0.5
    np.testing.assert_allclose(found.means, expected.importances_mean, atol=near)
    assert found.deviations[1] == pytest.approx(expected.importances_std[1], rel=0.5)


def test_the_seed_decides_and_rows_are_bounded(towns):
    model, X, y = towns
    found = [nnx.permutation_importance(model, X, y, max_rows=50, seed=seed) for seed in (0, 0, 1)]
    assert found[0].n_rows == 50
    np.testing.assert_array_equal(found[0].drops, found[1].drops)
    assert (found[0].drops[1] != found[2].drops[1]).any()


def test_classes_are_judged_by_accuracy_and_inputs_without_a_table_are_numbered(rng):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 2))
    model.add(nnx.Activation_Softmax())
    model.finalize()
    model.set_parameters([([[-9.0, 9.0], [0.0, 0.0]], [[0.0, 0.0]])])
    X = rng.normal(size=(300, 2)).astype(np.float32)
    before = X.copy()
    found = nnx.permutation_importance(model, X, (X[:, 0] > 0).astype(int), n_repeats=1)
    assert (found.columns, found.figure, found.score) == (("input 0", "input 1"), "accuracy", 1.0)
    assert 0.4 < found.means[0] < 0.6
    assert found.means[1] == 0
    assert found.deviations.tolist() == [0, 0]
    np.testing.assert_array_equal(X, before)


def test_it_prints_itself_and_no_more_than_20_columns(towns):
    lines = str(nnx.permutation_importance(*towns)).splitlines()
    assert lines[0].split() == ["column", "drop", "of", "R²", "±"]
    assert [line.split()[0] for line in lines[1:]] == ["town", "age", "noise"]
    many = Importance(tuple("abcdefghijklmnopqrstuvw"), np.ones((23, 1)), "R²", 1.0, 9)
    assert str(many).splitlines()[-1] == "and 3 more columns"


@pytest.mark.parametrize(
    ("X", "y", "options", "says"),
    [
        (np.zeros((1, 5)), np.zeros((1, 1)), {}, "X must have shape (n, inputs) with two rows or more"),
        (np.zeros((3, 5)), np.zeros((2, 1)), {}, "and y as many rows, got (3, 5) and (2, 1)"),
        (np.zeros((3, 5)), np.zeros((3, 1)), {}, "the score must be defined for these rows, got R² undefined"),
        (np.zeros((3, 5)), np.arange(3), {"n_repeats": 0}, "n_repeats must be"),
        (np.zeros((3, 5)), np.arange(3), {"max_rows": 1}, "max_rows must be"),
        (np.zeros((3, 5)), np.arange(3), {"seed": -1}, "seed must be"),
    ],
)
def test_what_cannot_be_judged_is_refused(towns, X, y, options, says):
    with pytest.raises(ValueError, match=r"^permutation_importance: ") as refused:
        nnx.permutation_importance(towns[0], X, y, **options)
    assert says in str(refused.value)
