"""The default recipe for tables: `nnx.tabular.fit`, and its parts."""

import itertools

import numpy as np
import pytest

import nnx
from nnx.tabular import choosing, edges, fit
from nnx.tabular.pairs import telling_pairs
from nnx.tabular.recipe import EFFORTS, LARGE, Shape, plan

# On the NumPy backend they take minutes; the tests of `nnx train --effort` run the recipe there.
pytestmark = [pytest.mark.one_backend, pytest.mark.usefixtures("compiled")]


def numbers(n_rows=300, n_columns=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_columns)).astype(np.float32)
    y = np.sin(2 * X[:, :1]) + X[:, 1:2] * (X[:, 2:3] > 0)
    return X, ((y - y.mean()) / y.std()).astype(np.float32)


def classes(n_rows=300, n_columns=4, seed=0):
    X, y = numbers(n_rows, n_columns, seed)
    return X, (y.reshape(-1) > 0).astype(np.intp)


# Edges


def best_split(column, targets, min_rows):
    """Return the threshold with the smallest squared error, found by trying all of them."""
    found = []
    values = np.unique(column)
    for low, high in itertools.pairwise(values):
        left = column <= low
        if min(left.sum(), (~left).sum()) >= min_rows:
            error = sum(((part - part.mean(axis=0)) ** 2).sum() for part in (targets[left], targets[~left]))
            found.append((error, (low + high) / 2))
    return min(found)[1]


@pytest.mark.parametrize("n_targets", [1, 3])
def test_a_tree_splits_first_where_the_error_becomes_smallest(n_targets):
    rng = np.random.default_rng(0)
    column = rng.integers(0, 40, 200).astype(np.float32)
    targets = rng.normal(size=(200, n_targets)) + (column[:, None] > 17)
    assert edges.tree_edges(column, targets, 2, 10) == pytest.approx([best_split(column, targets, 10)])


def test_a_tree_grows_as_that_of_scikit_learn():
    tree = pytest.importorskip("sklearn.tree")
    rng = np.random.default_rng(1)
    column = rng.normal(size=1500).astype(np.float32)
    targets = np.sin(3 * column.astype(np.float64))[:, None] + 0.3 * rng.normal(size=(1500, 1))
    peer = tree.DecisionTreeRegressor(max_leaf_nodes=24, min_samples_leaf=16).fit(column[:, None], targets)
    expected = np.sort(peer.tree_.threshold[peer.tree_.feature >= 0])
    np.testing.assert_allclose(edges.tree_edges(column, targets, 24, 16), expected, atol=1e-6)


def test_each_edge_of_a_tree_lies_between_two_numbers_of_the_column():
    one = np.float32(1)
    column = np.repeat([one, np.nextafter(one, np.float32(2))], 20)  # no other float32 lies between the two
    (edge,) = edges.tree_edges(column, (np.arange(40) >= 20).astype(np.float64)[:, None], 8, 4)
    assert (column > edge).tolist() == [False] * 20 + [True] * 20


@pytest.mark.parametrize("column", [np.ones(50, np.float32), np.arange(3, dtype=np.float32)])
def test_a_tree_that_cannot_split_has_no_edges(column):
    assert len(edges.tree_edges(column, np.arange(len(column), dtype=np.float64)[:, None], 8, 16)) == 0


def test_quantiles_have_equally_many_rows_between_them():
    column = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    found = edges.quantile_edges(column, 10)
    assert len(found) == 11
    assert np.histogram(column, found)[0].tolist() == [100] * 10
    assert len(edges.quantile_edges(np.ones(9, np.float32), 4)) == 0


# Choosing


def test_pairs_that_tell_more_together_are_found_first(rng):
    X = rng.normal(size=(6000, 5)).astype(np.float32)
    X[:, 3] *= 100
    y = np.sin(3 * (X[:, 1] - X[:, 3] / 100)) + X[:, 0] * X[:, 2] / 2 + X[:, 4] ** 2
    found = telling_pairs(X, y[:, None] + rng.normal(size=(6000, 1)) / 5, [0, 1, 2, 3])
    assert [pair.columns for pair in found] == [(1, 3), (0, 2)]
    np.testing.assert_allclose(found[0].factors, [1, 1 / 100], rtol=0.05)


@pytest.mark.parametrize("n_columns", [1, 2, 60])
def test_columns_that_tell_nothing_together_are_no_pairs(rng, n_columns):
    X = rng.normal(size=(3000, n_columns))
    X[:, 0] = np.round(X[:, 0])
    assert telling_pairs(X, np.exp(X[:, :1]) + X[:, -1:] + rng.normal(size=(3000, 1)), range(n_columns)) == []
    assert telling_pairs(np.ones((50, n_columns)), rng.normal(size=(50, 2)), range(n_columns)) == []


def test_a_pair_makes_large_tables_easier(rng):
    X = rng.uniform(-1, 1, size=(6000, 2)).astype(np.float32)
    y = np.sign(np.sin(9 * (X[:, :1] + X[:, 1:])))
    fitted = fit(None, X[:LARGE], y[:LARGE], effort="fast")
    assert "  Columns combined: input 0 and input 1" in fitted.lines
    assert fitted.ensemble.score(X[LARGE:], y[LARGE:]) > 0.9


def test_folds_share_out_each_class():
    y = np.repeat([0, 1, 2], [50, 21, 2])
    found = choosing.folds(y, len(y), 5, 3)
    for number in range(3):
        counts = np.bincount(found[y == number], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_what_is_drawn_is_better_than_each_alone():
    y = np.linspace(-1, 1, 50)[:, None]
    above, below, far = y + 1, y - 1, y + 5
    assert choosing.draw([above, far, below], y, None)[:2] == [1, 0]
    assert choosing.draw([np.full_like(y, np.nan), y], y, None) == [0, 1]
    assert choosing.draw([np.full_like(y, np.nan)], y, None) == [0]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_temperature_finds_by_how_much_logits_were_multiplied(factor):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    y = (choosing.softened(logits, 1.0).cumsum(axis=1) < rng.random((20_000, 1))).sum(axis=1)
    assert choosing.temperature(choosing.softened(logits * factor, 1.0), y, None) == pytest.approx(factor, rel=0.05)


# The plan


@pytest.mark.parametrize("n_classes", [0, 2, 30])
@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("n_rows", [10, 200, 3000, 20_000, 2_000_000])
def test_a_plan_is_within_its_bounds(n_rows, effort, n_classes):
    shape = Shape(n_rows, 12, 10, n_classes)
    found = plan(shape, effort)
    assert 1 <= found.n_used <= found.n_folds
    for network in found.networks:
        assert 1 <= found.epochs(network, shape) <= 600
        assert network.bins * shape.n_numeric <= 6000


def test_wide_tables_get_fewer_epochs():
    narrow, wide = Shape(2000, 20, 20, 0), Shape(2000, 2000, 2000, 0)
    for effort in ("fast", "default"):
        few, many = plan(wide, effort), plan(narrow, effort)
        assert max(few.epochs(each, wide) for each in few.networks) < min(
            many.epochs(each, narrow) for each in many.networks
        )


# The whole


@pytest.mark.parametrize("make", [numbers, classes])
def test_fit_learns_what_it_has_not_seen(make):
    X, y = make(800)
    X_new, y_new = make(400, seed=1)
    fitted = fit(None, X, y, effort="fast")
    assert fitted.ensemble.score(X_new, y_new) > 0.85
    assert fitted.validation_scores["ensemble"] > 0.85
    assert "held-out rows" in fitted.lines[0]
    assert len(fitted.lines) == len(fitted.validation_scores)


def outputs(X, y, **keywords):
    return fit(None, X, y, effort="fast", **keywords).ensemble.predict(X).tobytes()


def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads():
    X, y = classes(60)
    first = outputs(X, y, seed=5, threads=1)
    np.random.seed(99)
    state = np.random.get_state()[1].tobytes()
    assert outputs(X, y, seed=5, threads=3) == first
    assert np.random.get_state()[1].tobytes() == state
    assert outputs(X, y, seed=6) != first


def test_an_ensemble_from_fit_survives_its_file(tmp_path):
    data = {"size": list(range(60)), "town": ["Graz", "Linz", "Wels"] * 20, "rent": [3 * i % 17 for i in range(60)]}
    table = nnx.Table.learn(data, "rent", task="regression")
    X, y = table.read_samples(data)
    fitted = fit(table, X, y, effort="fast")
    fitted.ensemble.save(tmp_path / "rent.safetensors")
    loaded = nnx.Ensemble.load(tmp_path / "rent.safetensors")
    assert loaded.table.input_names == table.input_names
    assert loaded.counts == fitted.ensemble.counts
    np.testing.assert_array_equal(loaded.predict(X), fitted.ensemble.predict(X))


def test_many_categories_are_learnt_as_vectors():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 1000, 2000)
    data = {"place": [f"p{code}" for code in codes], "size": rng.normal(size=2000).tolist()}
    data["price"] = (codes % 2 + 0.1 * rng.normal(size=2000)).tolist()
    table = nnx.Table.learn(data, "price", task="regression", text=["place"], one_hot=50)
    assert table.embedded
    X, y = table.read_samples(data)
    fitted = fit(table, X, y, effort="fast")
    assert any(isinstance(layer, nnx.Layer_Embedding) for layer in fitted.ensemble.layers)
    assert fitted.ensemble.score(X, y) > 0.5


@pytest.mark.parametrize("n_rows", [1, 2, 5, 12])
@pytest.mark.parametrize("make", [numbers, classes])
def test_very_few_rows_are_enough(make, n_rows):
    X, y = make()
    fitted = fit(None, X[:n_rows], y[:n_rows], effort="fast")
    assert np.isfinite(fitted.ensemble.predict(X)).all()


def test_a_class_of_two_rows_and_constant_columns():
    X, y = classes(100)
    X[:, 1] = 3
    y[:2] = 2
    fitted = fit(None, X, y, effort="fast")
    assert fitted.ensemble.predict(X).shape == (100, 3)
    assert np.isfinite(fitted.calibrated(fitted.ensemble.predict(X))).all()


def test_a_constant_target():
    X, _ = numbers(100)
    fitted = fit(None, X, np.zeros((100, 1), np.float32), effort="fast")
    assert np.abs(fitted.ensemble.predict(X)).max() < 0.5


@pytest.mark.long("learns very many columns")
def test_many_more_columns_than_rows():
    X = np.random.default_rng(0).normal(size=(100, 5000)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.intp)
    assert fit(None, X, y, effort="fast").ensemble.predict(X).shape == (100, 2)


def test_float64_is_kept():
    X, y = numbers(60)
    nnx.set_default_dtype("float64")
    try:
        assert fit(None, X, y, effort="fast").ensemble.predict(X).dtype == np.float64
    finally:
        nnx.set_default_dtype("float32")


def test_given_rows_decide_when_to_stop():
    X, y = classes(200)
    fitted = fit(None, X, y, effort="fast", validation=classes(70, seed=1))
    assert "70 held-out rows" in fitted.lines[0]


def test_rows_without_weight_do_not_count():
    X, y = classes(400)
    wrong = y.copy()
    wrong[::2] = 1 - wrong[::2]
    weights = np.tile([0.0, 1.0], 200)
    assert fit(None, X, wrong, effort="fast", sample_weight=weights).ensemble.score(X, y) > 0.85


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"effort": "huge"}, "effort must be"),
        ({"X": np.zeros((3, 0))}, "X must have shape"),
        ({"X": np.full((20, 2), np.nan)}, "X must hold finite numbers"),
        ({"y": np.zeros((19, 1))}, "y must have one value for each of 20 rows"),
        ({"y": np.full(20, -1)}, "y must hold class numbers"),
        ({"y": np.full((20, 1), np.inf)}, "y must hold finite numbers"),
        ({"sample_weight": np.zeros(20)}, "sample_weight must hold"),
        ({"task": "both"}, "task must be"),
        ({"seed": -1}, "seed must be"),
        ({"validation": (np.zeros((5, 3)), np.zeros((5, 1)))}, "validation must have the columns"),
    ],
)
def test_what_cannot_be_is_refused(keywords, message):
    given = {"X": np.zeros((20, 2)), "y": np.zeros((20, 1)), **keywords}
    with pytest.raises(ValueError, match=rf"tabular\.fit: {message}"):
        fit(None, given.pop("X"), given.pop("y"), **given)
