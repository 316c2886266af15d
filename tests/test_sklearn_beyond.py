"""Features of the estimators beyond scikit-learn's: parts of nnx, held-out rows, ensembles, threads."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn import neural_network
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_sample_weight

import nnx
from nnx.sklearn import MLPClassifier, MLPRegressor

pytestmark = [pytest.mark.one_backend, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]


def classes(n=120, n_classes=3):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((n, 4))
    return X, np.digitize(X[:, 0] + X[:, 1] ** 2, np.linspace(-0.5, 2, n_classes - 1) if n_classes > 2 else [0.5])


def numbers(n=120):
    X, _ = classes(n)
    return X, np.sin(X[:, 0]) + X[:, 1]


def classifier(**parameters):
    return MLPClassifier(
        **{"hidden_layer_sizes": (16, 8), "max_iter": 60, "learning_rate_init": 0.01, "random_state": 0, **parameters}
    )


def regressor(**parameters):
    return MLPRegressor(
        **{"hidden_layer_sizes": (16, 8), "max_iter": 60, "learning_rate_init": 0.01, "random_state": 0, **parameters}
    )


def kinds(estimator):
    """Return the layers of a fitted network."""
    return [type(layer).__name__ for layer in estimator.model_.layers]


# Parts of nnx


def test_a_network_has_the_layers_that_parameters_ask_for():
    X, y = classes()
    fitted = classifier(activation=["gelu", nnx.Activation_LeakyReLU(0.1)], dropout=[0.25, 0], norm="batch").fit(X, y)
    assert kinds(fitted) == [
        *("Layer_Dense", "Layer_BatchNorm", "Activation_GELU", "Layer_Dropout"),
        *("Layer_Dense", "Layer_BatchNorm", "Activation_LeakyReLU"),
        *("Layer_Dense", "Activation_Softmax"),
    ]
    assert fitted.model_.layers[6].slope == 0.1
    assert fitted.score(X, y) > 0.6


def test_dropout_leaves_first_weights_and_orders_as_they_are():
    X, y = classes()
    plain, dropped = (classifier(dropout=rate, max_iter=1, learning_rate_init=1e-12).fit(X, y) for rate in (0.0, 0.5))
    np.testing.assert_allclose(dropped.coefs_[0], plain.coefs_[0], atol=1e-9)
    assert dropped.loss_ != plain.loss_
    np.testing.assert_allclose(dropped.predict_proba(X), plain.predict_proba(X), atol=1e-9)


@pytest.mark.parametrize("solver", ["adamw", "lion", "rmsprop", "nadam", nnx.Optimizer_SGD(0.05, momentum=0.9)])
def test_other_optimizers_learn(solver):
    X, y = classes()
    fitted = classifier(solver=solver, learning_rate_init=0.003).fit(X, y)
    assert fitted.score(X, y) > 0.6
    name = solver if isinstance(solver, str) else "sgd"
    assert type(fitted.model_.optimizer).__name__.lower() == f"optimizer_{name}"
    assert fitted.model_.optimizer is not solver


def test_a_schedule_runs_over_all_epochs():
    X, y = classes()
    fitted = classifier(learning_rate="cosine", batch_size=40, max_iter=20, tol=0, n_iter_no_change=99).fit(X, y)
    rates = fitted.history_.learning_rate
    assert rates[0] == pytest.approx(0.01, rel=0.1)
    assert rates[-1] < 0.0005
    assert fitted.model_.optimizer.schedule.steps == 20 * 3


@pytest.mark.parametrize("loss", ["huber", "logcosh", "meanabsoluteerror", nnx.Loss_Huber(0.5)])
def test_other_losses_of_numbers_learn(loss):
    X, y = numbers()
    assert regressor(loss=loss, max_iter=150).fit(X, y).score(X, y) > 0.8


def test_a_quantile_can_be_predicted():
    X, y = numbers(400)
    fitted = regressor(loss=nnx.Loss_Pinball([0.9]), max_iter=100).fit(X, y)
    assert 0.8 < np.mean(y <= fitted.predict(X)) < 0.98


def test_other_losses_of_classes_learn():
    X, y = classes()
    smooth = classifier(loss=nnx.Loss_CategoricalCrossentropy(label_smoothing=0.2), max_iter=200).fit(X, y)
    sharp = classifier(max_iter=200).fit(X, y)
    assert smooth.predict_proba(X).max(axis=1).mean() < sharp.predict_proba(X).max(axis=1).mean()
    hinge = classifier(loss="hinge").fit(X, y == 1)
    assert hinge.score(X, y == 1) > 0.7
    assert not hasattr(hinge, "predict_proba")


def test_initial_weights_by_name_are_those_of_a_layer():
    X, y = classes()
    fitted = classifier(initializer="he_normal", max_iter=1, learning_rate_init=1e-12).fit(X, y)
    assert fitted.coefs_[0].std() == pytest.approx(np.sqrt(2 / 4), rel=0.3)
    np.testing.assert_allclose(fitted.intercepts_[0], 0, atol=1e-9)


def test_weights_of_classes_are_weights_of_their_samples():
    X, y = classes()
    y[:20] = 0
    weights = np.linspace(0.5, 1.5, len(X))
    balanced = classifier(class_weight="balanced").fit(X, y, sample_weight=weights)
    own = classifier().fit(X, y, sample_weight=weights * compute_sample_weight("balanced", y))
    np.testing.assert_array_equal(balanced.predict_proba(X), own.predict_proba(X))
    with pytest.raises(ValueError, match="class_weight 'balanced' is not supported for partial_fit"):
        classifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])


@pytest.mark.parametrize("loss", ["huber", "meansquarederror", "hinge", "binarycrossentropy"])
def test_losses_of_numbers_and_cells_learn_three_classes(loss):
    X, y = classes()
    fitted = classifier(loss=loss, max_iter=150).fit(X, y)
    assert fitted.score(X, y) > 0.8
    if loss != "hinge":
        np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(fitted.classes_[fitted.predict_proba(X).argmax(axis=1)], fitted.predict(X))


def test_the_hinge_loss_learns_several_labels():
    X, _ = classes()
    y = (X[:, :2] > 0).astype(int)
    assert classifier(loss="hinge", max_iter=150).fit(X, y).score(X, y) > 0.8


def test_losses_that_do_not_fit_are_refused():
    X, y = classes()
    for loss in ("hinge", "categoricalcrossentropy", nnx.Loss_BinaryCrossentropy()):
        with pytest.raises(ValueError, match=r"MLPRegressor: loss must be one of numbers \(.*huber"):
            regressor(loss=loss).fit(X, y)
    with pytest.raises(ValueError, match=r"MLPRegressor: loss must have one quantile, got Loss_Pinball"):
        regressor(loss="pinball").fit(X, y)
    with pytest.raises(ValueError, match="MLPClassifier: loss must be one of several labels"):
        classifier(loss="categoricalcrossentropy").fit(X, np.eye(3, dtype=int)[y])


def test_lbfgs_may_be_an_object_with_settings_of_its_own():
    X, y = numbers(400)
    named = regressor(solver="lbfgs", max_iter=20).fit(X, y)
    settings = {"max_evaluations": named.max_fun, "gradient_tolerance": named.tol}
    given = regressor(solver=nnx.Optimizer_LBFGS(**settings), max_iter=20).fit(X, y)
    np.testing.assert_array_equal(given.predict(X), named.predict(X))
    assert given.loss_curve_ == named.loss_curve_
    assert not hasattr(given, "partial_fit")


def test_weights_may_name_some_classes_and_rows_lack_them():
    X, y = classes()
    found = classifier(class_weight={1: 3.0}).partial_fit(X, y, classes=[0, 1, 2]).partial_fit(X[y == 0], y[y == 0])
    own = classifier().partial_fit(X, y, classes=[0, 1, 2], sample_weight=np.where(y == 1, 3.0, 1.0))
    own.partial_fit(X[y == 0], y[y == 0])
    np.testing.assert_array_equal(found.predict_proba(X), own.predict_proba(X))


# Held-out rows, callbacks


def test_held_out_rows_are_scored_after_each_epoch():
    X, y = classes()
    fitted = classifier(max_iter=5, warm_start=True).fit(X[:80], y[:80], eval_set=(X[80:], y[80:]))
    assert len(fitted.validation_scores_) == fitted.n_iter_ == 5
    assert fitted.validation_scores_[-1] == accuracy_score(y[80:], fitted.predict(X[80:]))


def test_the_best_epoch_is_put_back():
    X, y = classes()
    held_out = {"eval_set": (X[80:], y[80:])}
    kept = classifier(restore_best=True, learning_rate_init=0.1).fit(X[:80], y[:80], **held_out)
    assert kept.score(X[80:], y[80:]) == kept.best_validation_score_ == max(kept.validation_scores_)
    plain = classifier(learning_rate_init=0.1).fit(X[:80], y[:80], **held_out)
    assert plain.loss_curve_ == kept.loss_curve_  # the kept parameters do not decide when to stop
    assert plain.best_validation_score_ == kept.best_validation_score_
    assert plain.best_loss_ == kept.best_loss_ == min(plain.loss_curve_)
    stopped = classifier(early_stopping=True, restore_best=False, learning_rate_init=0.1).fit(
        X[:80], y[:80], **held_out
    )
    assert stopped.score(X[80:], y[80:]) == stopped.validation_scores_[-1]


def test_functions_and_callbacks_see_a_run_and_may_end_it():
    X, y = classes()
    seen = []

    def look(run):
        seen.append((run.epoch, run.figures["validation_accuracy"]))
        if run.epoch == 3:
            run.stop("seen enough")

    fitted = classifier(callbacks=[look]).fit(X[:80], y[:80], eval_set=(X[80:], y[80:]))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert fitted.n_iter_ == 3
    np.testing.assert_allclose([score for _, score in seen], fitted.validation_scores_)


def test_a_bar_is_shown(capsys):
    X, y = classes()
    classifier(max_iter=3, progress=True).fit(X, y)
    assert "3/3" in capsys.readouterr().err
    classifier(max_iter=3, verbose=True).fit(X, y)
    assert capsys.readouterr().out.startswith("Iteration 1, loss = ")


# Ensembles and threads


@pytest.mark.parametrize("bagging", [False, True])
def test_members_of_an_ensemble_are_what_they_would_be_alone(bagging):
    X, y = classes()
    ensemble = classifier(n_members=3, n_jobs=2, bagging=bagging, max_iter=10).fit(X, y)
    alone = [clone(member).fit(X, y) for member in ensemble.estimators_]
    for member, estimator in zip(ensemble.estimators_, alone, strict=True):
        assert member.n_members == 1
        np.testing.assert_array_equal(member.predict_proba(X), estimator.predict_proba(X))
    np.testing.assert_allclose(
        ensemble.predict_proba(X), np.mean([each.predict_proba(X) for each in alone], axis=0), rtol=1e-6
    )
    assert len({estimator.loss_ for estimator in alone}) == 3
    assert ensemble.loss_ == pytest.approx(np.mean([estimator.loss_ for estimator in alone]))
    with pytest.raises(AttributeError, match="estimators_"):
        ensemble.coefs_  # noqa: B018 - it is the property that raises


def test_an_ensemble_of_regressors_predicts_the_mean_and_goes_on():
    X, y = numbers()
    ensemble = regressor(n_members=3, max_iter=10, warm_start=True).fit(X, y)
    np.testing.assert_allclose(
        ensemble.predict(X), np.mean([member.predict(X) for member in ensemble.estimators_], axis=0), rtol=1e-6
    )
    before = ensemble.loss_
    assert ensemble.fit(X, y).loss_ < before
    assert ensemble.partial_fit(X, y).n_iter_ == 1


def test_members_have_callbacks_of_their_own_and_the_parameters_of_now():
    X, y = classes()
    stopping = {"callbacks": [nnx.EarlyStopping(monitor="loss", patience=2)], "learning_rate_init": 0.3}
    ensemble = classifier(n_members=3, **stopping).fit(X, y)
    for member in ensemble.estimators_:
        alone = classifier(random_state=member.random_state, **stopping).fit(X, y)
        assert member.n_iter_ == alone.n_iter_ < 60
    ensemble.set_params(callbacks=None, warm_start=True, max_iter=4, alpha=50.0).fit(X, y)
    assert [member.n_iter_ for member in ensemble.estimators_] == [4, 4, 4]
    assert ensemble.loss_ > 1

    class Narrow(MLPClassifier):
        def __init__(self, *, n_members=2):
            super().__init__((4,), max_iter=2, n_members=n_members)

    assert Narrow().fit(X, y).predict(X).shape == y.shape


def test_any_number_of_threads_gives_the_same_bits():
    X, y = classes(1500)
    wide = {"hidden_layer_sizes": (256,), "max_iter": 2}
    one, two, all_cores = (classifier(**wide, n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2, -1))
    for other in (two, all_cores):
        np.testing.assert_array_equal(other.coefs_[0], one.coefs_[0])
    with pytest.raises(ValueError, match="n_jobs must not be 0"):
        classifier(n_jobs=0).fit(X, y)


def test_a_worker_of_joblib_uses_one_thread(monkeypatch):
    import joblib

    found = []
    train = nnx.Model.train

    def recorded(self, *arguments, **keywords):
        found.append((threading.current_thread() is threading.main_thread(), keywords["threads"]))
        return train(self, *arguments, **keywords)

    monkeypatch.setattr(nnx.Model, "train", recorded)
    monkeypatch.setattr("nnx.sklearn.threads.get_num_threads", lambda: 2)
    X, y = classes()
    classifier(max_iter=1).fit(X, y)
    with joblib.parallel_config("threading"):
        joblib.Parallel(n_jobs=2)(joblib.delayed(classifier(max_iter=1).fit)(X, y) for _ in range(2))
    assert found == [(True, 2), (False, 1), (False, 1)]


# Numbers


def test_auto_is_float64_where_there_is_little_to_save():
    few, many = classes(), classes(3000)
    assert classifier(max_iter=1).fit(*few).coefs_[0].dtype == np.float64
    assert classifier(max_iter=1).fit(few[0].astype(np.float32), few[1]).coefs_[0].dtype == np.float32
    fitted = classifier(max_iter=1).fit(*many)
    assert fitted.coefs_[0].dtype == fitted.predict_proba(many[0]).dtype == np.float32
    assert classifier(max_iter=1, solver="lbfgs").fit(*many).coefs_[0].dtype == np.float64
    assert classifier().partial_fit(*few, classes=[0, 1, 2]).coefs_[0].dtype == np.float32


def test_coefficients_are_the_models_own_arrays():
    X, y = numbers()
    fitted = regressor(max_iter=2).fit(X, y)
    fitted.coefs_[-1][...] = 0
    fitted.intercepts_[-1][...] = 2.5
    np.testing.assert_array_equal(fitted.predict(X), 2.5)
    other = regressor(max_iter=2, random_state=1).fit(X, y)
    other.coefs_, other.intercepts_ = fitted.coefs_, fitted.intercepts_
    np.testing.assert_array_equal(other.predict(X), 2.5)


def test_an_array_that_is_put_into_their_list_is_put_into_the_model():
    X, y = numbers()
    fitted = regressor(max_iter=2).fit(X, y)
    fitted.coefs_[-1] = np.zeros((8, 1))
    fitted.intercepts_[-1] = np.array([2.5])
    np.testing.assert_array_equal(fitted.predict(X), 2.5)
    assert type(pickle.loads(pickle.dumps(fitted.coefs_))) is list
    for arrays in ([np.zeros((4, 16))], [np.zeros((4, 16)), np.zeros((16, 8)), np.zeros((8, 2))]):
        with pytest.raises(ValueError, match=r"coefs_ must hold arrays of the shapes \[\(4, 16\)"):
            fitted.coefs_ = arrays
    assert fitted.coefs_[0].any()


def test_probabilities_of_labels_are_never_certain():
    X, _ = classes()
    y = (X[:, :2] > 0).astype(int)
    fitted = classifier(solver="lbfgs", max_iter=500, alpha=0).fit(X, y)
    probabilities = fitted.predict_proba(X * 1e6)
    assert 0 < probabilities.min() < 1e-300
    assert 1 - 1e-15 < probabilities.max() < 1
    assert np.isfinite(fitted.predict_log_proba(X * 1e6)).all()


# A parameter that changes between two calls, as in scikit-learn


@pytest.mark.parametrize("way", ["partial_fit", "warm_start"])
def test_a_penalty_that_is_changed_counts_from_then_on(way):
    X, y = numbers()
    losses = []
    for kind in (MLPRegressor, neural_network.MLPRegressor):
        estimator = kind(hidden_layer_sizes=(5,), max_iter=2, warm_start=True, random_state=0)
        estimator.fit(X, y).set_params(alpha=50.0)
        (estimator.partial_fit if way == "partial_fit" else estimator.fit)(X, y)
        losses.append(estimator.loss_curve_)
    np.testing.assert_allclose(*losses, rtol=1e-6)  # with nnfs.init(), scikit-learn sums its penalty in float32
    assert losses[0][-1] > 2 * losses[0][0]


def test_lbfgs_takes_all_rows_with_early_stopping_too():
    X, y = numbers()
    settings = {"hidden_layer_sizes": (5,), "solver": "lbfgs", "max_iter": 5, "random_state": 0}
    alone = MLPRegressor(**settings).fit(X, y)
    stops = MLPRegressor(**settings, early_stopping=True).fit(X, y)
    np.testing.assert_array_equal(stops.predict(X), alone.predict(X))
    assert stops.validation_scores_ is None
    theirs = neural_network.MLPRegressor(**settings, early_stopping=True).fit(X, y)
    assert stops.loss_ == pytest.approx(theirs.loss_, rel=1e-6)
