"""The estimators for tables: scikit-learn's checks, frames as they are, probabilities, quantiles, files."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

import nnx

pytest.importorskip("sklearn")
pd = pytest.importorskip("pandas")

from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from nnx.files import safetensors
from nnx.sklearn import TabularClassifier, TabularRegressor, load
from nnx.tabular import recipe

# On the NumPy backend they take minutes, and BLAS rounds a row otherwise in another batch, which some checks refuse.
pytestmark = [
    pytest.mark.one_backend,
    pytest.mark.usefixtures("compiled"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def short_trainings(monkeypatch):
    """Let the recipe train for fewer steps: most tests are about other things."""
    monkeypatch.setattr(recipe, "NUMBER_STEPS", 1000)
    monkeypatch.setattr(recipe, "CLASS_STEPS", 500)


KINDS = (TabularClassifier, TabularRegressor)
ESTIMATORS = [kind("fast") for kind in KINDS]
#: Checks that scikit-learn makes only of its own estimators, or only since 1.6.
UNLISTED = ("check_param_validation", "check_n_features_in_after_fitting", "check_dataframe_column_names_consistency")


CHECKS = parametrize_with_checks(ESTIMATORS).mark


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), list(CHECKS.args[1]), ids=CHECKS.kwargs["ids"])
def test_a_check_of_scikit_learn_passes(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("name", UNLISTED)
def test_a_check_that_third_parties_are_spared_passes(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)


# Frames


N = 300


def frame(n=N, seed=0):
    """Return numbers with gaps, categories, texts, dates and truths, and a target that needs most of them."""
    rng = np.random.default_rng(seed)
    days = rng.integers(0, 1000, n)
    data = pd.DataFrame(
        {
            "size": rng.normal(size=n),
            "kind": pd.Categorical(rng.choice(["a", "b", "c"], n)),
            "town": rng.choice(["Graz", "Linz"], n),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D"),
            "count": pd.array(rng.integers(0, 5, n), dtype="Int64"),
            "new": rng.random(n) > 0.5,
        }
    )
    y = data["size"].to_numpy() + 2.0 * (data["town"] == "Graz").to_numpy() + days / 300
    for place, name in enumerate(("size", "kind", "count", "day")):
        data.loc[place :: 20 + place, name] = None
    return data, y


def test_a_frame_with_categories_gaps_dates_and_truths_is_learnt_as_it_is():
    X, y = frame()
    regressor = TabularRegressor("fast", random_state=0).fit(X[:240], y[:240])
    assert regressor.score(X[240:], y[240:]) > 0.7
    assert regressor.feature_names_in_.tolist() == list(X.columns)
    assert regressor.n_features_in_ == 6


def test_polars_and_pandas_frames_make_the_same_networks():
    pl = pytest.importorskip("polars")
    X, y = frame()
    one = TabularRegressor("fast", random_state=0).fit(X, y)
    other = TabularRegressor("fast", random_state=0).fit(pl.from_pandas(X), y)
    np.testing.assert_array_equal(one.predict(X[:20]), other.predict(pl.from_pandas(X[:20])))


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT])
def test_texts_as_classes_must_not_be_missing(missing):
    classifier = TabularClassifier()
    given = np.array(["b", "a", "b"], object)
    assert classifier._learnt_targets(given).tolist() == [1, 0, 1]
    assert classifier.classes_.tolist() == ["a", "b"]
    given[1] = missing
    with pytest.raises(ValueError, match=r"^Input y contains NaN\.$"):
        classifier._learnt_targets(given)


def test_a_text_that_no_training_row_had_is_a_missing_value():
    X, y = frame()
    regressor = TabularRegressor("fast", random_state=0).fit(X, y)
    unknown = X[:3].assign(town="Wien", kind=pd.Categorical(["z"] * 3))
    assert np.isfinite(regressor.predict(unknown)).all()


def test_a_column_of_gaps_and_one_of_a_single_number_disturb_nothing():
    X, y = frame()
    X = X.assign(empty=np.nan, none=None, constant=7.0)
    regressor = TabularRegressor("fast", random_state=0).fit(X[:240], y[:240])
    assert regressor.score(X[240:], y[240:]) > 0.7


def test_a_column_that_is_called_like_the_target_is_a_column():
    X, y = frame()
    X = X.rename(columns={"size": "target"})
    assert TabularRegressor("fast", random_state=0).fit(X[:240], y[:240]).score(X[240:], y[240:]) > 0.7


@pytest.mark.parametrize(("change", "says"), [
    (lambda X: pd.concat([X, X[["size"]]], axis=1), "different names"),
    (lambda X: X[:0], "0 sample"),
    (lambda X: X[[]], "0 feature"),
])  # fmt: skip
def test_a_frame_that_is_none_is_refused_in_a_sentence(change, says):
    X, y = frame(20)
    X = change(X)
    with pytest.raises(ValueError, match=says):
        TabularRegressor("fast").fit(X, y[: len(X)])


# Small and odd tables


def test_all_targets_alike_are_predicted():
    X, _ = frame(30)
    regressor = TabularRegressor("fast").fit(X, np.full(30, 2.5))
    assert regressor.ensemble_ is None
    assert regressor.predict(X).tolist() == [2.5] * 30
    classifier = TabularClassifier("fast").fit(X, ["only"] * 30)
    assert classifier.predict(X).tolist() == ["only"] * 30
    assert classifier.predict_proba(X).tolist() == [[1.0]] * 30


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_a_few_rows_make_a_model(n):
    X, y = frame(n)
    assert np.isfinite(TabularRegressor("fast", random_state=0).fit(X, y).predict(X)).all()
    probabilities = TabularClassifier("fast", random_state=0).fit(X, np.arange(n) % 2).predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_a_class_of_two_rows_is_kept():
    X, y = frame()
    labels = np.where(y > 2, "much", "little").astype(object)
    labels[:2] = "rare"
    classifier = TabularClassifier("fast", random_state=0).fit(X, labels)
    assert classifier.classes_.tolist() == ["little", "much", "rare"]
    assert classifier.predict_proba(X).shape == (N, 3)


def test_the_order_of_few_rows_does_not_matter():
    X, y = frame(60)
    order = np.random.default_rng(1).permutation(60)
    one = TabularRegressor("fast", random_state=0).fit(X, y)
    other = TabularRegressor("fast", random_state=0).fit(X.iloc[order], y[order])
    np.testing.assert_array_equal(one.predict(X), other.predict(X))


def test_rows_of_weight_0_are_as_left_out():
    X, y = frame()
    weights = (np.arange(N) % 3 > 0).astype(float)
    one = TabularRegressor("fast", random_state=0).fit(X, y, sample_weight=weights)
    other = TabularRegressor("fast", random_state=0).fit(X[weights > 0], y[weights > 0])
    np.testing.assert_array_equal(one.predict(X[weights > 0]), other.predict(X[weights > 0]))


def test_a_class_of_which_all_rows_have_the_weight_0_is_never_likely():
    X, y = frame()
    labels = np.digitize(y, [1, 3])
    classifier = TabularClassifier("fast", random_state=0).fit(X, labels, sample_weight=labels != 1)
    assert classifier.classes_.tolist() == [0, 1, 2]
    probabilities = classifier.predict_proba(X)
    assert (probabilities[:, 1] == 0).all()
    assert classifier.score(X[labels != 1], labels[labels != 1]) > 0.9
    assert np.isneginf(classifier.predict_log_proba(X)[:, 1]).all()


def test_a_fit_that_fails_changes_nothing():
    X, y = frame()
    regressor = TabularRegressor("fast", random_state=0)
    with pytest.raises(nnx.DataFileError, match="no column"):
        regressor.fit(X.assign(**dict.fromkeys(X.columns, 1.0)), y)
    with pytest.raises(NotFittedError):
        regressor.predict(X)
    before = regressor.fit(X, y).predict(X)
    with pytest.raises(ValueError, match="NaN"):
        regressor.fit(X[["size"]], np.where(y > 1, np.nan, y))
    np.testing.assert_array_equal(regressor.predict(X), before)


# Classes and probabilities

LABELS = (["NA", "-", "ja"], ["10", "9", "1.0"], [10, 9, 2], [0.0, -1.0, 2.0], [" a", "a", ""])


@pytest.mark.parametrize("labels", LABELS)
def test_classes_of_any_name_come_back_in_the_order_of_scikit_learn(labels):
    X, y = frame()
    chosen = np.array(labels)[np.digitize(y, [1, 3])]
    classifier = TabularClassifier("fast", random_state=0).fit(X, chosen)
    assert classifier.classes_.tolist() == np.unique(chosen).tolist()
    assert classifier.score(X, chosen) > 0.7
    best = classifier.predict_proba(X).argmax(axis=1)
    assert classifier.classes_[best].tolist() == classifier.predict(X).tolist()


def test_a_temperature_makes_probabilities_no_worse_and_changes_no_prediction():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0)
    plain = TabularClassifier("fast", calibrate=False, random_state=0).fit(X_train, y_train)
    calibrated = TabularClassifier("fast", random_state=0).fit(X_train, y_train)
    assert plain.temperature_ == 1
    assert calibrated.temperature_ > 0
    np.testing.assert_array_equal(plain.predict(X_test), calibrated.predict(X_test))
    losses = [log_loss(y_test, each.predict_proba(X_test)) for each in (plain, calibrated)]
    assert losses[1] < losses[0] * 1.1


# Quantiles


def wavy(n, seed):
    """Return a column, and numbers whose spread grows with it."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(0, 1, (n, 2))
    return X, np.sin(6 * X[:, 0]) + rng.normal(size=n) * (0.1 + X[:, 1])


def test_quantiles_are_above_as_many_targets_as_they_say_and_widen_with_the_spread():
    X, y = wavy(1500, 0)
    regressor = TabularRegressor("fast", quantiles=[0.1, 0.5, 0.9], random_state=0).fit(X, y)
    X_test, y_test = wavy(4000, 1)
    found = regressor.predict_quantiles(X_test)
    assert found.shape == (4000, 3)
    assert found.dtype == np.float64
    assert (np.diff(found, axis=1) >= 0).all()
    np.testing.assert_allclose((y_test[:, np.newaxis] <= found).mean(axis=0), [0.1, 0.5, 0.9], atol=0.06)
    width = found[:, 2] - found[:, 0]
    assert np.corrcoef(width, X_test[:, 1])[0, 1] > 0.7
    assert width[X_test[:, 1] > 0.8].mean() > 2 * width[X_test[:, 1] < 0.2].mean()


def test_quantiles_change_no_prediction_and_come_back_from_files(tmp_path):
    X, y = wavy(300, 0)
    plain = TabularRegressor("fast", random_state=0).fit(X, y)
    regressor = TabularRegressor("fast", quantiles=(0.2, 0.8), random_state=0).fit(X, y)
    np.testing.assert_array_equal(plain.predict(X), regressor.predict(X))
    regressor.save(tmp_path / "file")
    np.testing.assert_array_equal(load(tmp_path / "file").predict_quantiles(X), regressor.predict_quantiles(X))
    with pytest.raises(AttributeError, match="predict_quantiles"):
        plain.predict_quantiles(X)


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_quantiles_of_a_few_rows_are_numbers(n):
    X, y = wavy(n, 0)
    found = TabularRegressor("fast", quantiles=[0.1, 0.9], random_state=0).fit(X, y).predict_quantiles(X)
    assert found.shape == (n, 2)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("quantiles", [[], [0.5, 0.1], [0.0, 0.5], [0.5, 1.0], [0.5, 0.5], [np.nan], [[0.5]], ["a"]])
def test_what_are_no_quantiles_is_refused(quantiles):
    with pytest.raises(ValueError, match="quantiles must be"):
        TabularRegressor("fast", quantiles=quantiles).fit([[1.0], [2.0]], [1.0, 2.0])


# scikit-learn's other parts, copies and files


def test_the_seed_decides_and_threads_do_not():
    X, y = frame()
    one, same, other = (TabularRegressor("fast", random_state=seed, n_jobs=n) for seed, n in ((0, 1), (0, 2), (1, 1)))
    predictions = [each.fit(X, y).predict(X) for each in (one, same, other)]
    np.testing.assert_array_equal(predictions[0], predictions[1])
    assert (predictions[0] != predictions[2]).any()


def test_cross_validation_takes_it():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    assert cross_val_score(TabularRegressor("fast", random_state=0), X, y, cv=2).min() > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_by_pickle_predicts_the_same(kind):
    X, y = frame()
    estimator = kind("fast", random_state=0).fit(X, y > 2)
    twin = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(estimator.predict(X), twin.predict(X))
    assert clone(twin).get_params() == estimator.get_params()


@pytest.mark.parametrize("labels", [None, [3, 4], ["yes", "no"], np.array(["yes", "no"], object), [True, False]])
def test_a_loaded_estimator_predicts_the_same_bytes(labels, tmp_path):
    X, y = frame()
    if labels is None:
        estimator = TabularRegressor("fast", random_state=0).fit(X, y)
    else:
        estimator = TabularClassifier("fast", random_state=0).fit(X, np.asarray(labels)[(y > 2).astype(int)])
    estimator.save(tmp_path / "one")
    twin = load(tmp_path / "one")
    how = "predict" if labels is None else "predict_proba"
    assert getattr(twin, how)(X).tobytes() == getattr(estimator, how)(X).tobytes()
    assert twin.get_params() == estimator.get_params()
    assert twin.feature_names_in_.tolist() == estimator.feature_names_in_.tolist()
    assert twin.lines_ == estimator.lines_
    twin.save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_estimators_that_are_not_fitted_and_those_of_one_target(kind, tmp_path):
    estimator = kind("best", random_state=3)
    estimator.save(tmp_path / "file")
    assert load(tmp_path / "file").get_params() == estimator.get_params()
    estimator.set_params(effort="fast").fit([[1.0], [2.0]], [1, 1])
    estimator.save(tmp_path / "file")
    assert load(tmp_path / "file").predict([[5.0]]).tolist() == [1]


def test_other_readers_name_the_one_that_reads_the_file(tmp_path):
    TabularRegressor().save(tmp_path / "file")
    for reader in (nnx.Model.load, nnx.Ensemble.load):
        with pytest.raises(nnx.ModelFileError, match=r"nnx\.sklearn\.load"):
            reader(tmp_path / "file")


DAMAGES = {
    "no lines": lambda described: described["fitted"].update(lines_=3),
    "a prior of texts": lambda described: described["fitted"].update(_prior=["a", "b"]),
    "a prior too long": lambda described: described["fitted"].update(_prior=[0.2, 0.3, 0.5]),
    "a column too few": lambda described: described["fitted"]["_columns"].pop(),
    "columns of numbers": lambda described: described["fitted"].update(_columns=[1, 2, 3, 4, 5, 6]),
    "a temperature of 0": lambda described: described["fitted"].update(temperature_=0.0),
    "a temperature of text": lambda described: described["fitted"].update(temperature_="1"),
    "other classes": lambda described: described["fitted"].update(classes=["U", ["a", "b"]]),
    "one class": lambda described: described["fitted"].update(classes=["U", ["no"]]),
    "ensembles without names": lambda described: described["fitted"].update(ensembles=[]),
    "ensembles of other names": lambda described: described["fitted"].update(ensembles=["save"]),
    "no ensemble": lambda described: described["members"].clear(),
    "an ensemble that is a number": lambda described: described.update(members=[1]),
    "an ensemble of nothing": lambda described: described["members"][0]["members"].clear(),
    "a count of 0": lambda described: described["members"][0].update(
        counts=[0] * len(described["members"][0]["counts"])
    ),
    "an unknown effort": lambda described: described.update(parameters={"effort": "none"}),
    "another class": lambda described: described.update({"class": "TabularRegressor"}),
    "a class of perceptrons": lambda described: described.update({"class": "MLPClassifier"}),
    "objects": lambda described: described.update(objects=[1]),
    "no table": lambda described: described["members"][0].pop("table"),
}


@pytest.mark.few
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_refused_in_a_sentence(name, tmp_path):
    X, y = frame()
    path = tmp_path / "file"
    TabularClassifier("fast", random_state=0).fit(X, np.array(["no", "yes"])[(y > 2).astype(int)]).save(path)
    description, arrays = contents(path)
    DAMAGES[name](description)
    safetensors.write("test", path, description, arrays)
    with pytest.raises(nnx.ModelFileError, match="file"):
        load(path)


@pytest.mark.parametrize("quantiles", ["\ud800", "ab", [0.9, 0.1], [0.0, 0.5], ["0.1"], 3])
def test_a_file_whose_quantiles_are_none_is_refused(quantiles, tmp_path):
    TabularRegressor(quantiles=[0.1, 0.9]).save(tmp_path / "file")
    description, arrays = contents(tmp_path / "file")
    description["parameters"]["quantiles"] = quantiles
    safetensors.write("test", str(tmp_path / "file"), description, arrays)
    with pytest.raises(nnx.ModelFileError, match="quantiles"):
        load(tmp_path / "file")


def contents(path):
    """Return the description and the arrays of a file."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    description = json.loads(header.pop("__metadata__")["nnx"])
    arrays = {}
    for name, entry in header.items():
        first, last = (end + each for each in entry["data_offsets"])
        values = np.frombuffer(content[first:last], safetensors.LITTLE_ENDIAN[entry["dtype"]])
        arrays[name] = values.reshape(entry["shape"])
    return {key: value for key, value in description.items() if key not in ("crc32", "shared")}, arrays


@pytest.mark.long("reads hundreds of files")
@pytest.mark.parametrize("kind", ["tabular classifier", "tabular regressor"])
def test_mutants_are_refused_or_come_back_from_another_file(kind, tmp_path, monkeypatch):
    pytest.importorskip("resource")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "trust"))
    import mutants

    path = tmp_path / "file"
    mutants.estimator_of(kind).save(path)

    class Original:
        header, payload = mutants.parts(path.read_bytes())

    accepted = 0
    for number in range(150):
        path.write_bytes(mutants.tampered(Original, random.Random(f"{kind} {number}")))
        try:
            estimator = load(path)
        except nnx.ModelFileError:
            continue
        accepted += 1
        content = mutants.everything(estimator)
        estimator.save(path)
        assert mutants.everything(load(path)) == content, number
    assert 3 < accepted < 75
