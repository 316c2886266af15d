"""The estimators with scikit-learn's other parts: pipelines, searches, metadata, data frames, scores."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

import joblib
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_iris, make_multilabel_classification, make_regression
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - makes the next import work
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from nnx import _kernels
from nnx.sklearn import MLPClassifier, MLPRegressor

VERSION = tuple(int(part) for part in sklearn.__version__.split(".")[:2])

pytestmark = [pytest.mark.one_backend, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    order = np.random.RandomState(0).permutation(len(X))
    return X[order], y[order]


def classifier(**parameters):
    settings = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "max_iter": 100, "random_state": 0}
    return MLPClassifier(**{**settings, **parameters})


def regressor(**parameters):
    settings = {"hidden_layer_sizes": (16,), "learning_rate_init": 0.02, "max_iter": 150, "random_state": 0}
    return MLPRegressor(**{**settings, **parameters})


# What they are


def test_nnx_itself_does_not_import_scikit_learn():
    code = "import sys, nnx; assert not {'sklearn', 'scipy', 'joblib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_scikit_learn_the_import_says_what_to_install():
    code = "import sys; sys.modules['sklearn'] = None; import nnx.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ImportError: nnx.sklearn needs scikit-learn 1.5 or newer" in done.stderr
    assert "pip install 'nnx-core[sklearn]'" in done.stderr


def test_they_are_a_classifier_and_a_regressor():
    assert is_classifier(MLPClassifier())
    assert not is_regressor(MLPClassifier())
    assert is_regressor(MLPRegressor())
    assert not is_classifier(MLPRegressor())


def test_tags_are_scikit_learns():
    from sklearn import neural_network as theirs

    for kind in (MLPClassifier, MLPRegressor):
        our, their = kind(), getattr(theirs, kind.__name__)()
        if VERSION >= (1, 6):
            from sklearn.utils import get_tags

            assert get_tags(our) == get_tags(their)
        else:
            assert our._get_tags() == their._get_tags()


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_clone_and_parameters(kind):
    estimator = kind((5, 4), alpha=0.5, dropout=[0.1, 0.0], solver="sgd")
    copied = clone(estimator)
    assert type(copied) is kind
    assert copied is not estimator
    assert copied.get_params() == estimator.get_params()
    assert copied.set_params(alpha=2.0) is copied
    assert (copied.alpha, estimator.alpha) == (2.0, 0.5)
    with pytest.raises(ValueError, match="Invalid parameter 'layers'"):
        copied.set_params(layers=3)


def test_repr_shows_what_is_not_the_default_and_html_the_rest():
    estimator = MLPClassifier((5,), dropout=0.2)
    assert repr(estimator) == "MLPClassifier(dropout=0.2, hidden_layer_sizes=(5,))"
    page = make_pipeline(StandardScaler(), estimator)._repr_html_()
    assert "MLPClassifier" in page
    assert "dropout" in page


# Data


def frames_of(library):
    """Return a library of data frames whose columns' names scikit-learn itself finds."""
    frames = pytest.importorskip(library)
    if not hasattr(StandardScaler().fit(frames.DataFrame({"a": [1.0, 2.0]})), "feature_names_in_"):
        pytest.skip(f"scikit-learn {sklearn.__version__} finds no names in frames of {library} {frames.__version__}")
    return frames


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_go_in_and_their_names_are_checked(library, iris):
    frames = frames_of(library)
    X, y = iris
    names = ["a", "b", "c", "d"]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    estimator = classifier(max_iter=5).fit(frame, frames.Series(y))
    assert list(estimator.feature_names_in_) == names
    np.testing.assert_array_equal(estimator.predict(frame), estimator.fit(frame, y).predict(frame))
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        estimator.predict(frame[names[::-1]])
    with pytest.warns(UserWarning, match="X does not have valid feature names, but MLPClassifier was fitted with"):
        plain = estimator.predict(X)
    np.testing.assert_array_equal(plain, estimator.predict(frame))
    assert not hasattr(estimator.fit(X, y), "feature_names_in_")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_transformer_before_it_may_hand_on_data_frames(library, iris):
    frames = frames_of(library)
    X, y = iris
    frame = frames.DataFrame(dict(zip("abcd", X.T, strict=True)))
    pipeline = make_pipeline(StandardScaler(), classifier()).set_output(transform=library)
    pipeline.fit(frame, y)
    assert list(pipeline[-1].feature_names_in_) == list("abcd")
    predicted = pipeline.predict(frame)
    assert isinstance(predicted, np.ndarray)  # as of every classifier: set_output is about transformers
    np.testing.assert_array_equal(predicted, make_pipeline(StandardScaler(), classifier()).fit(X, y).predict(X))


def test_columns_of_texts_and_numbers(iris):
    pandas = pytest.importorskip("pandas")
    X, y = iris
    colours = np.array(["red", "green", "blue"])[y]
    frame = pandas.DataFrame({"width": X[:, 0], "length": X[:, 1], "colour": colours})
    columns = ColumnTransformer([("n", StandardScaler(), ["width", "length"]), ("t", OneHotEncoder(), ["colour"])])
    pipeline = make_pipeline(columns, classifier()).fit(frame, y)
    assert pipeline.score(frame, y) == 1.0


def test_classes_may_be_texts_booleans_or_objects(iris):
    X, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    expected = classifier().fit(X, y)
    for classes in (names, names.astype(object), list(names)):
        estimator = classifier().fit(X, classes)
        assert list(estimator.classes_) == ["setosa", "versicolor", "virginica"]
        np.testing.assert_array_equal(estimator.predict(X), np.asarray(estimator.classes_)[expected.predict(X)])
    estimator = classifier().fit(X, y == 0)
    assert estimator.predict(X).dtype == bool
    assert estimator.predict_proba(X).shape == (150, 2)


def test_several_labels_at_once():
    X, y = make_multilabel_classification(200, 6, n_classes=4, random_state=0)
    X = StandardScaler().fit_transform(X)
    estimator = classifier(max_iter=150).fit(X, y)
    probabilities = estimator.predict_proba(X)
    assert probabilities.shape == (200, 4)
    np.testing.assert_array_equal(estimator.predict(X), probabilities > 0.5)
    assert estimator.score(X, y) > 0.5  # all four right
    others = MultiOutputClassifier(classifier(max_iter=20)).fit(X, y)
    assert others.predict(X).shape == (200, 4)


def test_several_outputs_at_once():
    X, y = make_regression(200, 5, n_targets=3, random_state=0)
    estimator = make_pipeline(StandardScaler(), TransformedTargetRegressor(regressor(), transformer=StandardScaler()))
    assert estimator.fit(X, y).score(X, y) > 0.9
    assert estimator.predict(X).shape == (200, 3)


# Searches and scores


def test_scores_of_folds(iris):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), classifier())
    assert cross_val_score(pipeline, X, y, cv=3).min() > 0.85
    assert cross_val_predict(pipeline, X, y, cv=3, method="predict_proba").shape == (150, 3)
    sizes, scores, _ = learning_curve(pipeline, X, y, cv=3, train_sizes=[0.5, 1.0])
    assert list(sizes) == [50, 100]
    assert scores.shape == (2, 3)


def same_search(X, y, backend_of_joblib):
    """Check that a search by two workers of joblib finds the same as one worker."""
    grid = {"alpha": [1e-4, 30.0], "hidden_layer_sizes": [(4,), (8,)]}
    estimator = classifier(max_iter=20)
    alone = GridSearchCV(estimator, grid, cv=3, n_jobs=1).fit(X, y)
    with joblib.parallel_config(backend_of_joblib, n_jobs=2):
        found = GridSearchCV(estimator, grid, cv=3).fit(X, y)
    for name in ("mean_test_score", "rank_test_score"):
        np.testing.assert_array_equal(found.cv_results_[name], alone.cv_results_[name])
    assert found.best_params_ == alone.best_params_
    np.testing.assert_array_equal(found.predict_proba(X), alone.predict_proba(X))


def test_a_search_by_threads_finds_what_one_finds(iris):
    same_search(*iris, "threading")


@pytest.mark.long("starts processes that import scikit-learn")
@pytest.mark.parametrize("backend", [_kernels.name], indirect=True)  # starting processes takes seconds
def test_a_search_by_processes_finds_what_one_finds(iris):
    same_search(*iris, "loky")


def test_a_search_that_halves(iris):
    X, y = iris
    search = HalvingGridSearchCV(
        classifier(), {"alpha": [1e-4, 1e-2, 100.0]}, resource="max_iter", min_resources=10, max_resources=90, cv=3
    )
    search.fit(X, y)
    assert search.best_params_["alpha"] < 100
    assert search.best_params_["max_iter"] == max(search.n_resources_) == 30  # three, then one
    assert search.score(X, y) > 0.8


def test_calibration_importance_and_dependence(iris):
    X, y = iris
    estimator = make_pipeline(StandardScaler(), classifier()).fit(X, y)
    calibrated = CalibratedClassifierCV(estimator, cv=3).fit(X, y)
    assert calibrated.score(X, y) > 0.9
    importance = permutation_importance(estimator, X, y, n_repeats=5, random_state=0).importances_mean
    assert importance[2:].min() > importance[:2].max()  # the petals tell the species of an iris
    assert partial_dependence(estimator, X, [2], grid_resolution=5)["average"].shape == (3, 5)


def test_ensembles_of_scikit_learn(iris):
    X, y = iris
    vote = VotingClassifier([(str(seed), classifier(random_state=seed)) for seed in range(3)], voting="soft")
    assert vote.fit(X, y).score(X, y) > 0.9
    assert BaggingClassifier(classifier(), 3, random_state=0).fit(X, y).score(X, y) > 0.8


# Metadata


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
def test_weights_find_their_way_to_the_estimator_that_asks_for_them(iris):
    X, y = iris
    weights = np.where(y == 2, 0.0, 1.0)
    asks = make_pipeline(
        StandardScaler().set_fit_request(sample_weight=False), classifier().set_fit_request(sample_weight=True)
    )
    asks.fit(X, y, sample_weight=weights)
    assert not (asks.predict(X) == 2).any()
    scaled = StandardScaler().fit_transform(X)
    expected = classifier().fit(scaled, y, sample_weight=weights)
    np.testing.assert_array_equal(asks.predict_proba(X), expected.predict_proba(scaled))
    declines = make_pipeline(
        StandardScaler().set_fit_request(sample_weight=True), classifier().set_fit_request(sample_weight=False)
    )
    assert (declines.fit(X, y, sample_weight=weights).predict(X) == 2).any()


@pytest.mark.usefixtures("routing")
def test_weights_find_their_way_through_folds_and_scores(iris):
    X, y = iris
    weights = np.where(y == 2, 0.0, 1.0)
    estimator = classifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    result = cross_validate(estimator, X, y, params={"sample_weight": weights}, cv=3, return_estimator=True)
    assert result["test_score"].min() == 1.0  # the third class counts nowhere
    assert not any((fitted.predict(X) == 2).any() for fitted in result["estimator"])


@pytest.mark.usefixtures("routing")
def test_weights_that_nobody_asked_for_are_an_error(iris):
    X, y = iris
    with pytest.raises(ValueError, match=r"sample_weight.*but are not explicitly set as requested or not requested"):
        cross_validate(classifier(), X, y, params={"sample_weight": np.ones(150)}, cv=3)


@pytest.mark.usefixtures("routing")
def test_held_out_rows_can_be_asked_for_too(iris):
    X, y = iris
    pipeline = make_pipeline(StandardScaler(), classifier().set_fit_request(eval_set=True))
    pipeline.fit(X[:100], y[:100], eval_set=(X[100:], y[100:]))
    assert len(pipeline[-1].validation_scores_) == pipeline[-1].n_iter_
