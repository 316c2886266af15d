"""In float64, the same random_state makes the same networks as scikit-learn's, epoch by epoch."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn import neural_network as theirs
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning

from nnx import sklearn as ours

#: scikit-learn's estimators take sample_weight and the regressor a loss since 1.7.
VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
since_1_7 = pytest.mark.skipif(VERSION < (1, 7), reason="scikit-learn has it since 1.7")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N = 130


def made(name: str):
    """Return samples and targets as scikit-learn makes them."""
    if name == "labels":
        return make_multilabel_classification(N, 7, n_classes=4, random_state=0)
    if name in ("two", "three"):
        n_classes = {"two": 2, "three": 3}[name]
        return make_classification(N, 7, n_informative=5, n_classes=n_classes, flip_y=0.1, random_state=0)
    X, y = make_regression(N, 7, n_targets=3 if name == "outputs" else 1, noise=3, random_state=0)
    y = y / 50
    return X, np.random.RandomState(1).poisson(np.exp(np.clip(y, -2, 2))).astype(float) if name == "counts" else y


def data(name: str):
    """Return samples and targets by name, in float64 also where np.zeros is float32."""
    X, y = made(name)
    return X.astype(np.float64), y


def pair(name: str, **parameters):
    """Return our estimator for some data, and theirs."""
    kind = "MLPClassifier" if name in ("two", "three", "labels") else "MLPRegressor"
    both = {"hidden_layer_sizes": (11, 5), "max_iter": 10, "batch_size": 32, "random_state": 3, **parameters}
    return getattr(ours, kind)(**both, dtype="float64"), getattr(theirs, kind)(**both)


def assert_equal(our, their):
    """Compare all state after training."""
    for name in ("coefs_", "intercepts_"):
        for layer, (found, expected) in enumerate(zip(getattr(our, name), getattr(their, name), strict=True)):
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=f"{name}, layer {layer}")
    for name in ("loss_curve_", "validation_scores_", "loss_", "best_loss_", "best_validation_score_"):
        found, expected = getattr(our, name), getattr(their, name)
        if expected is None:
            assert found is None, name
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)
    for name in ("n_iter_", "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(our, name) == getattr(their, name), name


CASES = {
    "adam, two classes": ("two", {}),
    "adam, three classes": ("three", {}),
    "adam, labels": ("labels", {}),
    "adam, numbers": ("numbers", {}),
    "adam, outputs": ("outputs", {"alpha": 0.3}),
    "adam, one batch": ("three", {"batch_size": "auto", "learning_rate_init": 0.02}),
    "adam, settings": ("three", {"beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3, "alpha": 2.0}),
    "adam, early stopping, two classes": ("two", {"early_stopping": True, "max_iter": 25, "n_iter_no_change": 3}),
    "adam, early stopping, three classes": ("three", {"early_stopping": True, "learning_rate_init": 0.05}),
    "adam, early stopping, numbers": ("numbers", {"early_stopping": True, "validation_fraction": 0.3}),
    "adam, ends by tol": ("two", {"max_iter": 60, "tol": 0.02, "n_iter_no_change": 2}),
    "adam, in order": ("three", {"shuffle": False}),
    "adam, no hidden layer": ("three", {"hidden_layer_sizes": ()}),
    "adam, one number as sizes": ("two", {"hidden_layer_sizes": 6}),
    "tanh": ("three", {"activation": "tanh"}),
    "logistic": ("labels", {"activation": "logistic"}),
    "identity": ("numbers", {"activation": "identity"}),
    "sgd": ("three", {"solver": "sgd", "learning_rate_init": 0.05}),
    "sgd, classical momentum": ("two", {"solver": "sgd", "nesterovs_momentum": False, "learning_rate_init": 0.05}),
    "sgd, no momentum": ("outputs", {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.05}),
    "sgd, invscaling": ("three", {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.3}),
    "sgd, adaptive": (
        "two",
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.02, "n_iter_no_change": 1, "max_iter": 40},
    ),
    "sgd, adaptive to the end": (
        "numbers",
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1, "max_iter": 40},
    ),
    "sgd, adaptive by score": (
        "three",
        {"solver": "sgd", "learning_rate": "adaptive", "early_stopping": True, "n_iter_no_change": 2, "max_iter": 30},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_is_scikit_learns(case):
    name, parameters = CASES[case]
    X, y = data(name)
    our, their = pair(name, **parameters)
    assert_equal(our.fit(X, y), their.fit(X, y))
    np.testing.assert_allclose(our.predict(X), their.predict(X), rtol=1e-6, atol=1e-9)
    if hasattr(their, "predict_proba"):
        np.testing.assert_allclose(our.predict_proba(X), their.predict_proba(X), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(our.predict_log_proba(X), their.predict_log_proba(X), rtol=1e-6, atol=1e-9)
    assert our.score(X, y) == pytest.approx(their.score(X, y), rel=1e-6)


def test_sgd_adaptive_does_lower_its_rate():
    name, parameters = CASES["sgd, adaptive to the end"]
    our, _ = pair(name, **parameters)
    our.fit(*data(name))
    assert 1 < our.n_iter_ < parameters["max_iter"]
    assert our.model_.optimizer.learning_rate < 1e-6


WEIGHTED = {
    "adam": ("three", {"alpha": 1.0}),
    "labels": ("labels", {}),
    "outputs": ("outputs", {"alpha": 1.0}),
    "early stopping": ("two", {"early_stopping": True}),
    "sgd": ("numbers", {"solver": "sgd"}),
    "lbfgs": ("three", {"solver": "lbfgs", "alpha": 1.0}),
}


@since_1_7
@pytest.mark.parametrize("case", WEIGHTED)
def test_training_with_weights_is_scikit_learns(case):
    name, parameters = WEIGHTED[case]
    X, y = data(name)
    weights = np.random.RandomState(5).randint(0, 4, N) * 0.5
    our, their = pair(name, **parameters, batch_size=30)  # no batch has weight 0: scikit-learn divides by the sum
    our.fit(X, y, sample_weight=weights)
    their.fit(X, y, sample_weight=weights)
    if case == "lbfgs":
        assert our.loss_ == pytest.approx(their.loss_, rel=1e-6)
    else:
        assert_equal(our, their)


@since_1_7
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_training_on_counts_is_scikit_learns(solver):
    X, y = data("counts")
    our, their = pair("counts", solver=solver, loss="poisson")
    our.fit(X, y)
    their.fit(X, y)
    assert our.loss_ == pytest.approx(their.loss_, rel=1e-6)
    np.testing.assert_allclose(our.predict(X), their.predict(X), rtol=1e-4 if solver == "lbfgs" else 1e-6)
    if solver == "adam":
        assert_equal(our, their)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
@pytest.mark.parametrize("name", ["two", "three", "numbers"])
def test_lbfgs_takes_scikit_learns_steps(name, alpha):
    X, y = data(name)
    our, their = pair(name, solver="lbfgs", alpha=alpha)
    our.fit(X, y)
    their.fit(X, y)
    assert our.n_iter_ == their.n_iter_ == 10
    assert our.loss_ == pytest.approx(their.loss_, rel=1e-6)


@pytest.mark.few
@pytest.mark.parametrize("name", ["labels", "outputs"])
def test_lbfgs_ends_near_scikit_learns_loss(name):
    """With several outputs, scikit-learn's gradient is that of a sum, not of its loss. Its line search ends
    elsewhere."""
    X, y = data(name)
    our, their = pair(name, solver="lbfgs", max_iter=200, alpha=1.0, activation="tanh")
    our.fit(X, y)
    their.fit(X, y)
    assert our.loss_ == pytest.approx(their.loss_, rel=0.1)


@pytest.mark.parametrize(("name", "solver"), [("two", "adam"), ("numbers", "sgd")])
def test_warm_start_is_scikit_learns(name, solver):
    X, y = data(name)
    our, their = pair(name, solver=solver, warm_start=True, max_iter=4, learning_rate="invscaling", tol=0.1)
    for max_iter in (4, 3, 20):
        for estimator in (our, their):
            estimator.set_params(max_iter=max_iter).fit(X, y)
        assert_equal(our, their)


@pytest.mark.parametrize(
    ("name", "solver"), [("three", "adam"), ("three", "sgd"), ("outputs", "adam"), ("labels", "sgd")]
)
def test_partial_fit_is_scikit_learns(name, solver):
    X, y = data(name)
    our, their = pair(name, solver=solver, random_state=np.random.RandomState(0) if solver == "sgd" else 4)
    their.set_params(random_state=np.random.RandomState(0) if solver == "sgd" else 4)
    first = {"three": {"classes": np.unique(y)}, "labels": {"classes": np.arange(4)}}.get(name, {})
    for start, keywords in ((0, first), (40, {}), (0, {}), (90, {})):
        for estimator in (our, their):
            estimator.partial_fit(X[start : start + 40], y[start : start + 40], **keywords)
        assert_equal(our, their)


def test_a_shared_random_state_draws_what_scikit_learn_draws():
    X, y = data("two")
    our, their = pair("two")
    states = np.random.RandomState(9), np.random.RandomState(9)
    for estimator, state in zip((our, their), states, strict=True):
        estimator.set_params(random_state=state).fit(X, y)
    assert_equal(our, their)
    assert states[0].uniform() == states[1].uniform()


def test_sparse_samples_train_as_dense_ones_do():
    from scipy import sparse

    X, y = data("three")
    X = np.where(np.abs(X) < 1, 0, X)
    _, their = pair("three")
    their.fit(X, y)
    for form in (sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.coo_matrix):
        our, _ = pair("three")
        assert_equal(our.fit(form(X), y), their)
        np.testing.assert_allclose(our.predict_proba(form(X)), their.predict_proba(X), rtol=1e-6)


def test_float32_is_near():
    X, y = data("three")
    our, their = pair("three")
    our.set_params(dtype="auto").fit(X.astype("float32"), y)
    their.fit(X, y)
    assert our.coefs_[0].dtype == "float32"
    np.testing.assert_allclose(our.loss_curve_, their.loss_curve_, rtol=1e-4)


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_parameters_methods_and_attributes_are_scikit_learns_and_more(kind):
    our, their = getattr(ours, kind), getattr(theirs, kind)
    found, expected = (inspect.signature(each).parameters for each in (our, their))
    for name, parameter in expected.items():
        assert found[name].default == parameter.default, name
        assert found[name].kind == parameter.kind, name
    if VERSION >= (1, 7):  # before, the regressor had no loss, which comes first now
        positional = [
            [p.name for p in each.values() if p.kind is p.POSITIONAL_OR_KEYWORD] for each in (found, expected)
        ]
        assert positional[0] == positional[1]
    assert {name for name in dir(their) if not name.startswith("_")} <= set(dir(our))
    X, y = data("two" if kind == "MLPClassifier" else "numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = [each(max_iter=2, early_stopping=stops).fit(X, y) for each in (our, their) for stops in (False, True)]
    for our_one, their_one in zip(fitted[:2], fitted[2:], strict=True):
        learnt = [name for name in vars(their_one) if name.endswith("_") and not name.startswith("_")]
        assert len(learnt) > 10
        for name in learnt:
            assert hasattr(our_one, name), name
