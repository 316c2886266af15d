"""Errors are those of scikit-learn, and leave a fitted estimator unchanged."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn import neural_network as theirs
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from nnx.sklearn import MLPClassifier, MLPRegressor

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])

pytestmark = [pytest.mark.one_backend, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]

KINDS = (MLPClassifier, MLPRegressor)


def samples(n=30, seed=0):
    X = np.random.RandomState(seed).standard_normal((n, 4))
    return X, (X[:, 0] > 0).astype(int)


def small(kind, **parameters):
    return kind(**{"hidden_layer_sizes": (3,), "max_iter": 2, "random_state": 0, **parameters})


def error_of(estimator, call):
    """Return the exception of a call on an estimator."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - it is compared with another one
        call(estimator)
    return caught.value


def changed(array, value, place=(3, 1)):
    """Return a copy with another value in one place."""
    array = array.astype(object if isinstance(value, str) else float)
    array[place if array.ndim == 2 else place[0]] = value
    return array


X, Y = samples()
WRONG_DATA = {
    "NaN in X": (changed(X, np.nan), Y),
    "infinity in X": (changed(X, np.inf), Y),
    "text in X": (changed(X, "red"), Y),
    "complex X": (X * 1j, Y),
    "X of one dimension": (X[:, 0], Y),
    "X of three dimensions": (X[None], Y),
    "no samples": (X[:0], Y[:0]),
    "no columns": (X[:, :0], Y),
    "NaN in y": (X, changed(Y, np.nan)),
    "infinity in y": (X, changed(Y, np.inf)),
    "y too short": (X, Y[:-1]),
    "no y": (X, None),
    "y of three dimensions": (X, Y[:, None, None]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", WRONG_DATA)
def test_wrong_samples_or_targets_are_refused_in_scikit_learns_words(kind, case):
    bad_X, bad_y = WRONG_DATA[case]
    pair = small(kind, dtype="float64"), small(getattr(theirs, kind.__name__))
    found, expected = (error_of(each, lambda estimator: estimator.fit(bad_X, bad_y)) for each in pair)
    assert type(found) is type(expected)
    assert str(found) == str(expected)


WRONG_SAMPLES = {
    "fewer columns": X[:, :2],
    "more columns": np.hstack([X, X]),
    "NaN": changed(X, np.nan),
    "infinity": changed(X, -np.inf),
    "a single row": X[0],
}


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
@pytest.mark.parametrize("case", WRONG_SAMPLES)
def test_wrong_samples_are_refused_in_predictions_too(method, case):
    bad = WRONG_SAMPLES[case]
    arguments = (bad, Y) if method == "score" else (bad,)
    fitted = small(MLPClassifier, dtype="float64").fit(X, Y), small(theirs.MLPClassifier).fit(X, Y)
    found, expected = (error_of(each, lambda estimator: getattr(estimator, method)(*arguments)) for each in fitted)
    assert type(found) is type(expected)
    assert str(found) == str(expected)


def test_texts_are_no_samples():
    with pytest.raises(ValueError, match="could not convert string to float"):
        small(MLPClassifier).fit(X, Y).predict(np.full(X.shape, "red"))


def test_what_float32_cannot_hold_is_refused():
    huge = changed(X, 1e200)
    with pytest.raises(ValueError, match=r"infinity or a value too large for dtype\('float32'\)"):
        small(MLPClassifier, dtype="float32").fit(huge, Y)
    fitted = small(MLPClassifier, dtype="float32").fit(X, Y)
    with pytest.raises(ValueError, match=r"infinity or a value too large for dtype\('float32'\)"):
        fitted.predict(huge)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(29), "sample_weight.shape == .*expected"),
        (np.ones((30, 2)), "Sample weights must be 1D array or scalar"),
        (changed(np.ones(30), -1.0), "Negative values in data passed to `sample_weight`"),
        (changed(np.ones(30), np.nan), "Input sample_weight contains NaN"),
        (changed(np.ones(30), np.inf), "Input sample_weight contains infinity"),
        (np.zeros(30), "Sample weights must contain at least one non-zero number"),
    ],
    ids=["short", "two-dimensional", "negative", "NaN", "infinite", "all zero"],
)
def test_wrong_weights_are_refused(kind, weights, message):
    with pytest.raises(ValueError, match=message):
        small(kind).fit(X, Y, sample_weight=weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "score"])
def test_an_estimator_that_is_not_fitted_says_so(kind, method):
    if not hasattr(kind, method):
        return
    arguments = (X, Y) if method == "score" else (X,)
    with pytest.raises(NotFittedError, match=f"This {kind.__name__} instance is not fitted yet. Call 'fit'"):
        getattr(kind(), method)(*arguments)


def test_targets_of_another_kind_are_refused_by_a_classifier():
    with pytest.raises(ValueError, match="Unknown label type"):
        small(MLPClassifier).fit(X, X[:, 0])


def test_an_epoch_needs_the_classes_first_and_no_others_later():
    our, their = small(MLPClassifier), small(theirs.MLPClassifier)
    steps = (
        lambda each: each.partial_fit(X, Y),
        lambda each: each.partial_fit(X, Y + 5, classes=[0, 1]),
        lambda each: each.partial_fit(X, Y, classes=[0, 1]).partial_fit(X, Y, classes=[0, 1, 2]),
        lambda each: each.partial_fit(X, np.where(Y, 7, 0)),
        lambda each: each.partial_fit(X[:, :3], Y),
    )
    for step in steps:
        found, expected = error_of(our, step), error_of(their, step)
        assert type(found) is type(expected)
        assert str(found) == str(expected)


def test_warm_start_wants_the_same_classes_and_columns():
    for call in (lambda each: each.fit(X, np.arange(30) % 3), lambda each: each.fit(X[:, :3], Y)):
        fitted = [small(kind, warm_start=True).fit(X, Y) for kind in (MLPClassifier, theirs.MLPClassifier)]
        found, expected = (error_of(each, call) for each in fitted)
        assert type(found) is type(expected)
        assert str(found) == str(expected)


def test_an_epoch_of_an_estimator_that_stops_early_is_refused():
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        small(MLPClassifier, early_stopping=True).partial_fit(X, Y, classes=[0, 1])


def test_lbfgs_has_no_partial_fit():
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    assert hasattr(MLPClassifier(), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit"):
        MLPRegressor(solver="lbfgs").partial_fit(X, Y)


def test_too_few_rows_to_hold_some_out_are_refused():
    with pytest.raises(ValueError, match=r"validation set is too small|test_size|n_samples"):
        small(MLPRegressor, early_stopping=True, validation_fraction=0.1).fit(X[:5], X[:5, 0])


WRONG_PARAMETERS = {
    "hidden_layer_sizes": 0,
    "activation": "step",
    "solver": "newton",
    "alpha": -1e-9,
    "batch_size": 0,
    "learning_rate": "fast",
    "learning_rate_init": 0.0,
    "power_t": -0.5,
    "max_iter": 0,
    "shuffle": "yes",
    "random_state": "seed",
    "tol": -1.0,
    "verbose": "loud",
    "warm_start": 2,
    "momentum": 1.5,
    "nesterovs_momentum": None,
    "early_stopping": "no",
    "validation_fraction": 1.0,
    "beta_1": 1.0,
    "beta_2": -0.1,
    "epsilon": 0.0,
    "n_iter_no_change": 0.5,
    "max_fun": 0,
    "dropout": 1.0,
    "norm": "group",
    "n_members": 0,
    "bagging": "yes",
    "dtype": "float16",
    "initializer": "ones-and-twos",
    "loss": "hinges",
    "callbacks": "stop",
    "n_jobs": 1.5,
    "progress": "bar",
    "restore_best": "yes",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WRONG_PARAMETERS)
def test_a_wrong_parameter_is_refused_by_its_name_before_training(kind, name):
    estimator = small(kind).fit(X, Y)
    before = pickle.dumps(estimator.coefs_)
    estimator.set_params(**{name: WRONG_PARAMETERS[name]})
    error = error_of(estimator, lambda each: each.fit(X, Y))
    assert isinstance(error, ValueError)
    assert name in str(error)
    assert pickle.dumps(estimator.coefs_) == before


@pytest.mark.parametrize("name", ["alpha", "solver", "max_iter", "momentum", "n_members", "dtype"])
def test_scikit_learn_says_what_a_parameter_must_be(name):
    estimator = small(MLPClassifier).set_params(**{name: WRONG_PARAMETERS[name]})
    for call in (lambda each: each.fit(X, Y), lambda each: each.partial_fit(X, Y, classes=[0, 1])):
        if name == "solver" or hasattr(estimator, "partial_fit"):
            with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of MLPClassifier must be"):
                call(estimator)


@pytest.mark.parametrize("sizes", [(3, 0), (3, -1), [[3, 2]], ("three",), (2.5,)])
def test_wrong_sizes_of_layers_are_refused(sizes):
    with pytest.raises((ValueError, TypeError), match="hidden_layer_sizes"):
        MLPClassifier(sizes).fit(X, Y)


def test_a_refused_fit_leaves_a_fitted_estimator_as_it_was():
    estimator = small(MLPClassifier).fit(X, Y)
    expected = estimator.predict_proba(X)
    before = sorted(vars(estimator))
    wrong_calls = (
        (changed(X, np.nan), Y),
        (X, Y[:-1]),
        (X[:, :0], Y),
        (X[:, :2], np.arange(30) % 3, np.ones(29)),
        (X[:, :2], Y + 5, None, (X, Y)),
        (X[:, :2], Y, np.full(30, 1e-300)),
    )
    for wrong in wrong_calls:
        with pytest.raises(ValueError):  # noqa: PT011 - its words are another test's
            estimator.fit(*wrong)
        np.testing.assert_array_equal(estimator.predict_proba(X), expected)
        assert sorted(vars(estimator)) == before
    with pytest.raises(TypeError, match=r"MLPClassifier: callbacks\[1\] must be a Callback or a function"):
        estimator.set_params(callbacks=[print, 3]).fit(X[:, :2], Y)
    np.testing.assert_array_equal(estimator.predict_proba(X), expected)


def test_a_refused_fit_leaves_an_ensemble_as_it_was():
    estimator = small(MLPClassifier, n_members=2).fit(X, Y)
    expected = estimator.predict_proba(X)
    with pytest.raises(ValueError, match="random numbers"):
        estimator.set_params(solver="lbfgs", dropout=0.5, n_members=3).fit(X[:, :2], Y)
    np.testing.assert_array_equal(estimator.predict_proba(X), expected)


def test_a_column_of_targets_is_taken_with_a_warning():
    for kind in KINDS:
        with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
            found = small(kind).fit(X, Y[:, None])
        np.testing.assert_array_equal(found.predict(X), small(kind).fit(X, Y).predict(X))


def test_a_single_class_is_predicted():
    for loss in ("log_loss", "hinge", "categoricalcrossentropy"):
        for solver in ("adam", "lbfgs"):
            found = small(MLPClassifier, loss=loss, solver=solver).fit(X, np.full(30, "yes"))
            assert found.predict(X).tolist() == ["yes"] * 30
            assert found.score(X, np.full(30, "yes")) == 1
    np.testing.assert_array_equal(small(MLPClassifier).fit(X, Y * 0).predict_proba(X), np.ones((30, 1)))
    begun = small(MLPClassifier).partial_fit(X, Y * 0, classes=[0])
    np.testing.assert_array_equal(begun.predict(X), Y * 0)


def test_a_fold_of_one_class_fails_no_search():
    from sklearn.model_selection import learning_curve
    from sklearn.multioutput import MultiOutputClassifier

    for kind in (MLPClassifier, theirs.MLPClassifier):
        assert np.isfinite(learning_curve(small(kind), X, np.sort(Y), cv=3)[2]).all()
        assert MultiOutputClassifier(small(kind)).fit(X, np.c_[Y, Y * 0]).predict(X)[:, 1].tolist() == [0] * 30


def test_a_training_that_diverges_says_so_as_scikit_learn_does():
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        small(MLPRegressor, solver="sgd", learning_rate_init=1e9, max_iter=20).fit(X * 1e6, X[:, 0] * 1e6)


@pytest.mark.parametrize(
    "eval_set", [X, (X,), (X, Y, None, None), "data", (X[:, :2], Y), (X, Y[:-1]), (X, Y + 5), (changed(X, np.nan), Y)]
)
def test_a_wrong_eval_set_is_refused(eval_set):
    with pytest.raises((ValueError, TypeError)):
        small(MLPClassifier).fit(X, Y, eval_set=eval_set)


def stop(run):
    """Fail in the second epoch."""
    if run.epoch == 2:
        raise RuntimeError("enough")


@pytest.mark.parametrize(("n_members", "solver"), [(1, "adam"), (3, "adam"), (1, "lbfgs")])
def test_after_an_error_of_a_callback_there_is_what_was_learnt_until_then(n_members, solver):
    estimator = small(MLPClassifier, n_members=n_members, solver=solver, callbacks=[stop], max_iter=5)
    with pytest.raises(RuntimeError, match="enough"):
        estimator.fit(X, Y)
    assert estimator.n_iter_ == 2
    assert estimator.predict(X).shape == (30,)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_an_ensemble_that_ctrl_c_ends_predicts(early_stopping):
    def interrupt(run):
        if run.epoch == 3:
            raise KeyboardInterrupt

    estimator = small(MLPClassifier, n_members=4, n_jobs=1, callbacks=[interrupt], early_stopping=early_stopping)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        estimator.set_params(max_iter=50).fit(X, Y)
    assert estimator.n_iter_ == 3
    assert np.isfinite(estimator.loss_)
    assert min(member.n_iter_ for member in estimator.estimators_) == 0
    assert estimator.predict_proba(X).shape == (30, 2)


def test_targets_that_are_no_numbers_are_refused_by_a_regressor():
    for y in (np.full(30, "1.5"), np.full(30, "2020-01-01", "M8[D]")):
        with pytest.raises(TypeError, match="MLPRegressor: y must hold real numbers, got dtype"):
            small(MLPRegressor).fit(X, y)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_weight_do_not_decide_when_to_stop(kind):
    weights = np.zeros(30)
    weights[0] = 1
    with pytest.raises(ValueError, match="at least one non-zero number"):
        small(kind, early_stopping=True).fit(X, Y, sample_weight=weights)


def test_wrong_weights_of_classes_are_refused():
    for weight in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="class_weight must hold finite numbers of at least 0"):
            small(MLPClassifier, class_weight={0: weight}).fit(X, Y)
    with pytest.raises(ValueError, match="at least one non-zero number"):
        small(MLPClassifier, class_weight={0: 0, 1: 0}).fit(X, Y)


def test_warnings_name_the_line_that_calls_fit():
    for kind in KINDS:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            small(kind, batch_size=100).fit(X, Y)
        assert [warning.filename for warning in caught] == [__file__] * 2
