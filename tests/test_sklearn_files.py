"""Estimators in files: what comes back, what continues as before, and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx.files import safetensors as tensor_files

pytest.importorskip("sklearn")
pytestmark = [pytest.mark.one_backend, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]

from sklearn.base import clone

from nnx.sklearn import MLPClassifier, MLPRegressor, load

TRUST = Path(__file__).parents[1] / "trust"
N = 60
X = np.random.RandomState(7).uniform(-1.0, 1.0, (N, 3))
KINDS = np.digitize(X[:, 0] + X[:, 1], [-0.4, 0.4])
NUMBERS = np.exp(X[:, :2] @ np.array([[1.0, 0.5], [-0.5, 1.0]]))
SMALL = {"hidden_layer_sizes": (5, 4), "max_iter": 4, "batch_size": 16}

#: Estimators that differ in what a file must hold, and their targets.
CASES = {
    "two classes": (lambda: MLPClassifier(random_state=1, **SMALL), KINDS > 0),
    "texts": (lambda: MLPClassifier(random_state=1, early_stopping=True, **SMALL), np.array(["a", "Göß", "x"])[KINDS]),
    "objects": (
        lambda: MLPClassifier(
            random_state=np.random.RandomState(3),
            activation=[nnx.Activation_PReLU(5, 0.2, dtype="float64"), nnx.Activation_LeakyReLU(0.1)],
            loss=nnx.Loss_CategoricalCrossentropy(label_smoothing=0.1),
            solver=nnx.Optimizer_AdamW(0.01, average=0.9),
            learning_rate=nnx.Schedule_WarmUp(3, nnx.Schedule_Cosine(50)),
            class_weight={0: 1.0, 2: 0.5},
            dtype=np.float64,
            **SMALL,
        ),
        KINDS,
    ),
    "labels": (lambda: MLPClassifier(random_state=1, solver="sgd", learning_rate="invscaling", **SMALL), KINDS),
    "numbers": (
        lambda: MLPRegressor(random_state=1, norm="batch", dropout=[0.2, 0.0], dtype="float32", **SMALL),
        NUMBERS,
    ),
    "counts": (lambda: MLPRegressor(loss="poisson", n_iter_no_change=np.inf, random_state=1, **SMALL), NUMBERS[:, 0]),
    "several": (lambda: MLPClassifier(random_state=1, n_members=3, bagging=True, **SMALL), KINDS.astype(np.float32)),
}
CASES["labels"] = (CASES["labels"][0], np.stack([KINDS > 0, KINDS > 1], axis=1).astype(np.int64))


def fitted(name):
    """Return an estimator after its first training, and its targets."""
    make, y = CASES[name]
    return make().fit(X, y), y


def outputs(estimator):
    """Return the bytes of an estimator's predictions."""
    how = estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.predict
    return how(X).tobytes() + np.asarray(estimator.predict(X)).tobytes()


def attributes(estimator):
    """Return what was learnt, except networks, which outputs test, and state that no file keeps."""
    aside = {"model_", "estimators_", "history_", "_end", *estimator.get_params(deep=False)}
    return {name: value for name, value in vars(estimator).items() if name not in aside}


def settings(estimator):
    """Return the parameters, with objects as their representations. A file keeps the name of a dtype."""
    shown = estimator.get_params(deep=False)
    shown["dtype"] = getattr(shown["dtype"], "__name__", shown["dtype"])
    return {name: str(value).partition(" at 0x")[0] for name, value in shown.items()}


def go_on(estimator, X, y):
    """Train some more. With early stopping, which has no single epochs, call `fit` again."""
    if estimator.early_stopping:
        return estimator.set_params(warm_start=True).fit(X, y)
    return estimator.partial_fit(X, y)


def assert_same(ours, theirs):
    assert type(ours) is type(theirs)
    members = [vars(each).get("estimators_", []) for each in (ours, theirs)]
    for pair in [(ours, theirs), *zip(*members, strict=True)]:
        assert settings(pair[0]) == settings(pair[1])
        mine, other = map(attributes, pair)
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            np.testing.assert_array_equal(value, other[name], name, strict=isinstance(value, np.ndarray))
    assert outputs(ours) == outputs(theirs)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mlp.safetensors"


# What comes back


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_estimator_goes_on_as_if_never_saved(path, name):
    estimator, y = fitted(name)
    estimator.save(path)
    twin = load(path)
    assert_same(estimator, twin)
    twin.save(path.with_name("again"))
    assert path.read_bytes() == path.with_name("again").read_bytes()
    for each in (estimator, twin):
        go_on(each, X[:40], y[:40])
    assert_same(estimator, twin)
    for each in (estimator, twin):
        each.set_params(warm_start=True, max_iter=3).fit(X, y)
    assert_same(estimator, twin)


def test_lbfgs_comes_back(path):
    estimator = MLPRegressor(hidden_layer_sizes=(3,), solver="lbfgs", max_iter=5, random_state=1).fit(X, NUMBERS)
    estimator.save(path)
    twin = load(path)
    assert_same(estimator, twin)
    for each in (estimator, twin):
        each.set_params(warm_start=True).fit(X, NUMBERS)
    assert_same(estimator, twin)


def test_names_of_columns_come_back(path):
    estimator, _ = fitted("two classes")
    estimator.feature_names_in_ = np.array(["a", "b", "größer"], object)
    estimator.save(path)
    twin = load(path)
    assert twin.feature_names_in_.tolist() == ["a", "b", "größer"]
    assert twin.feature_names_in_.dtype == object


@pytest.mark.parametrize(
    "classes", [[-3, 5, 2**40], [False, True], [1.0, 2.0], ["no", "yes"], np.array(["no", "yes"], object)], ids=str
)
def test_classes_of_any_kind_come_back(path, classes):
    classes = np.asarray(classes)
    estimator = MLPClassifier((3,), max_iter=2, random_state=1).fit(X, classes[KINDS % len(classes)])
    estimator.classes_ = classes
    estimator.save(path)
    twin = load(path)
    np.testing.assert_array_equal(twin.classes_, classes, strict=True)
    assert twin.predict(X).tolist() == estimator.predict(X).tolist()


def test_parameters_come_back_and_callbacks_do_not(path):
    slope = nnx.Activation_LeakyReLU(0.3)
    given = {
        "hidden_layer_sizes": np.array([4, 4]),
        "activation": (slope, slope),
        "alpha": np.float32(0.1),
        "n_iter_no_change": np.inf,
        "class_weight": {"a": 1, np.int64(3): 2.5, None: np.inf, True: 1.0},
        "initializer": "he_normal",
        "dtype": np.dtype("float32"),
        "callbacks": [print],
    }
    MLPClassifier(**given).save(path)  # it is not fitted
    twin = load(path)
    assert not [name for name in vars(twin) if name.endswith("_")]
    assert twin.get_params() == {
        **MLPClassifier().get_params(),
        "hidden_layer_sizes": [4, 4],
        "activation": twin.activation,
        "alpha": float(np.float32(0.1)),
        "n_iter_no_change": np.inf,
        "class_weight": {"a": 1, 3: 2.5, None: np.inf, True: 1.0},
        "initializer": "he_normal",
        "dtype": "float32",
    }
    assert type(twin.activation) is tuple
    assert twin.activation[0] is twin.activation[1]
    assert twin.activation[0].slope == 0.3


def test_a_random_state_goes_on_where_it_was(path):
    state = np.random.RandomState(5)
    state.normal()  # one of two, the other waits
    MLPRegressor(random_state=state).save(path)
    twin = load(path).random_state
    assert twin.normal(size=700).tolist() == state.normal(size=700).tolist()


class Loss_Own(nnx.Loss_MeanSquaredError):
    def __init__(self, part=1.0):
        super().__init__()
        self.part = part

    def get_config(self):
        return {"part": self.part}


def test_classes_of_ones_own_come_back_through_custom_objects(path):
    estimator = MLPRegressor(Loss_Own(2.0), (3,), max_iter=2, random_state=1).fit(X, NUMBERS)
    estimator.save(path)
    with pytest.raises(nnx.ModelFileError, match="the custom class 'Loss_Own'"):
        load(path)
    twin = load(path, {"Loss_Own": Loss_Own})
    assert twin.loss.part == 2.0
    assert outputs(twin) == outputs(estimator)


def test_loading_draws_no_random_number(path):
    estimator, _ = fitted("several")
    estimator.save(path)
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    load(path)
    assert np.random.rand() == expected


@pytest.mark.parametrize("name", CASES)
def test_pickles_and_copies_go_on_too(tmp_path, name):
    import joblib

    estimator, y = fitted(name)
    joblib.dump(estimator, tmp_path / "file")
    twins = [pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator), joblib.load(tmp_path / "file")]
    go_on(estimator, X, y)
    for twin in twins:
        assert_same(estimator, go_on(twin, X, y))
    if not isinstance(estimator.random_state, np.random.RandomState):
        assert outputs(clone(estimator).fit(X, y)) == outputs(fitted(name)[0])


# What is not written


def test_what_no_file_can_hold_is_refused_by_name(path):
    class Bare:
        def forward(self, inputs, training): ...
        def backward(self, dvalues): ...

    class Own(MLPRegressor):
        pass

    refused = [
        (MLPRegressor(initializer=lambda shape: np.ones(shape)), "initializer must consist of text and numbers,"),
        (MLPRegressor(learning_rate=lambda step: 1.0), "learning_rate must consist of .*objects of nnx"),
        (MLPRegressor(activation=Bare()), "get_config"),
        (MLPRegressor(activation=["relu", [Bare()]]), "get_config"),
        (MLPRegressor(random_state=np.random.RandomState(np.random.PCG64(1))), "must draw from MT19937"),
        (MLPClassifier(class_weight={0: 2**70}), "whole number from"),
        (MLPClassifier(class_weight={0: {1: {2: {3: {4: {5: 6}}}}}}), "class_weight must consist of"),
        (Own(), "a custom class"),
    ]
    for estimator, sentence in refused:
        with pytest.raises((TypeError, ValueError), match=f"^{type(estimator).__name__}.save: .*{sentence}"):
            estimator.save(path)
    with pytest.raises(ValueError, match="alpha"):
        MLPClassifier(alpha=-1.0).save(path)
    assert not path.exists()


def test_an_estimator_that_is_not_as_fit_leaves_it_is_refused(path):
    def without(name):
        return lambda estimator: vars(estimator).pop(name)

    def other(name, value):
        return lambda estimator: setattr(estimator, name, value)

    spoilt = [
        (without("loss_curve_"), "loss_curve_"),
        (other("t_", -1), "t_ must be a whole number"),
        (other("loss_", None), "loss_ must consist of numbers"),
        (other("loss_curve_", [1.0, "x"]), "loss_curve_ must consist of numbers"),
        (other("n_outputs_", 3), "n_outputs_ must be 1"),
        (other("out_activation_", "relu"), "out_activation_ must be"),
        (other("out_activation_", "softmax"), "end with one and Activation_Softmax"),
        (other("classes_", np.array([1, 0])), "ascending"),
        (other("classes_", np.array([0, 1, 2])), "must hold 2 classes"),
        (other("classes_", np.array([0, 1j])), "numbers or texts"),
        (other("feature_names_in_", np.array(["a"], object)), "must hold 3 names"),
        (lambda estimator: setattr(estimator.model_, "optimizer", None), "no optimizer is set"),
        (lambda estimator: estimator.model_.layers.pop(), "layers have changed"),
    ]
    for spoil, sentence in spoilt:
        estimator, _ = fitted("two classes")
        spoil(estimator)
        with pytest.raises((RuntimeError, TypeError, ValueError), match=f"^MLPClassifier.save: .*{sentence}"):
            estimator.save(path)
    members, _ = fitted("several")
    memory = np.zeros((4, 5), members.estimators_[0].coefs_[0].dtype)
    for number in (0, 1):
        members.estimators_[number].model_.layers[0].weights = memory[number : number + 3]
    with pytest.raises(ValueError, match="must not share memory"):
        members.save(path)
    assert not path.exists()


def test_an_estimator_that_another_thread_trains_is_refused(path):
    heard = []

    def save(run):
        with ThreadPoolExecutor(1) as pool:
            heard.append(pool.submit(estimator.save, path).exception())

    estimator = MLPRegressor(hidden_layer_sizes=(3,), max_iter=1, random_state=1, callbacks=[save])
    estimator.fit(X, NUMBERS)
    assert "MLPRegressor.save: the estimator must not be saved" in str(heard[0])
    assert not path.exists()
    estimator.save(path)


# Foreign and damaged files


def test_files_of_other_kinds_name_what_reads_them(path, tmp_path):
    estimator, _ = fitted("two classes")
    estimator.save(path)
    with pytest.raises(nnx.ModelFileError, match=r"holds an estimator. Call nnx.sklearn.load\(path\)"):
        nnx.Model.load(path)
    with pytest.raises(nnx.ModelFileError, match=r"holds an estimator. Call nnx.sklearn.load\(path\), and"):
        estimator.model_.load_parameters(path)
    with pytest.raises(nnx.ModelFileError, match="is not a checkpoint"):
        estimator.model_.train(X, KINDS > 0, epochs=9, resume=path)
    estimator.model_.save(path)
    with pytest.raises(nnx.ModelFileError, match=r"holds a model. Call nnx.Model.load\(path\)"):
        load(path)
    estimator.model_.save_parameters(path)
    with pytest.raises(nnx.ModelFileError, match="holds parameters alone"):
        load(path)
    (tmp_path / "pickle").write_bytes(pickle.dumps(estimator))
    with pytest.raises(nnx.ModelFileError, match="is a pickle"):
        load(tmp_path / "pickle")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


def test_nnx_info_says_what_reads_an_estimator(path, capsys):
    from nnx.cli import main

    fitted("two classes")[0].save(path)
    with pytest.raises(SystemExit):
        main(["info", str(path)])
    assert "Call nnx.sklearn.load(path)" in capsys.readouterr().err


def parts(content):
    """Return description, header of the arrays and their bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    return json.loads(header.pop("__metadata__")["nnx"]), header, content[end:]


def written(description, header, payload):
    """Return the file of these parts, with the correct checksum."""
    description.pop("crc32", None)
    arrays = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        arrays[name] = np.frombuffer(payload[first:last], tensor_files.LITTLE_ENDIAN[entry["dtype"]])
        arrays[name] = arrays[name].reshape(entry["shape"])
    description["crc32"] = tensor_files._checksum(json.loads(json.dumps(description)), arrays)
    text = json.dumps({"__metadata__": {"nnx": json.dumps(description)}, **header}, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + payload


WORDS = {"words": [1] * 624, "position": 0, "normal": None}


def parameter(name, value):
    return lambda d: d["parameters"].update({name: value})


TAMPERED = {
    "another class": (lambda d: d.update({"class": "SVC"}), "no estimator of nnx"),
    "a class that is none": (lambda d: d.update({"class": "os.system"}), "no estimator of nnx"),
    "an unknown key": (lambda d: d.update(extra=1), "has the keys"),
    "no members": (lambda d: d.update(members=[]), "cannot have 0 networks"),
    "one member for two": (lambda d: d["fitted"].update(ensemble=False), "cannot have 2 networks"),
    "a member less": (lambda d: d["members"].pop(), "belong to nothing"),
    "not fitted": (lambda d: d.update(fitted=None), "not fitted"),
    "fitted is a list": (lambda d: d.update(fitted=[]), "lacks a part with"),
    "ensemble is 1": (lambda d: d["fitted"].update(ensemble=1), "neither an ensemble nor"),
    "kind": (lambda d: d["fitted"].update(kind="trees"), "_kind must be"),
    "classes are a dict": (lambda d: d["fitted"].update(classes={}), "classes are not described"),
    "classes are numbers": (lambda d: d["fitted"].update(classes=["O", [1, 2, 3]]), "not a list of texts"),
    "classes have another dtype": (lambda d: d["fitted"].update(classes=["V", ["a"]]), "classes are not described"),
    "classes too few": (lambda d: d["fitted"].update(classes=["U", ["a", "b"]]), "must hold 3 classes"),
    "classes twice": (lambda d: d["fitted"].update(classes=["U", ["a", "a", "b"]]), "ascending"),
    "classes are nowhere": (lambda d: d["fitted"].update(classes=None), "classes_ must be an array"),
    "classes end in null": (lambda d: d["fitted"].update(classes=["U", ["a", "b", "c\0"]]), "null characters"),
    "names too few": (lambda d: d["fitted"].update(feature_names=["a"]), "must hold 3 names"),
    "names are numbers": (lambda d: d["fitted"].update(feature_names=[1, 2, 3]), "must be text"),
    "an unknown parameter": (parameter("gamma", 1), "its parameters are not the estimator's"),
    "callbacks": (parameter("callbacks", None), "its parameters are not the estimator's"),
    "a parameter out of range": (parameter("alpha", -1.0), "'alpha' parameter"),
    "a parameter of another kind": (parameter("max_iter", "many"), "'max_iter' parameter"),
    "a huge number": (parameter("max_iter", 10**30), "must be a whole number"),
    "a float that is none": (parameter("alpha", {"float": "1"}), "no value that nnx writes"),
    "a nested key": (parameter("class_weight", {"dict": [[[1], 2]]}), "no value that nnx writes"),
    "an unknown word": (parameter("alpha", {"call": "os.system"}), "no value that nnx writes"),
    "words under another key": (parameter("random_state", {"tuple": WORDS}), "no value that nnx writes"),
    "words under a key before it": (parameter("random_state", {"float": WORDS}), "no value that nnx writes"),
    "an object that is not there": (parameter("activation", {"object": 9}), "no value that nnx writes"),
    "an object that is -1": (parameter("activation", {"object": -1}), "no value that nnx writes"),
    "an object of another role": (parameter("loss", {"object": 0}), "no value that nnx writes"),
    "a random state for a rate": (parameter("alpha", {"random_state": WORDS}), "'alpha' parameter"),
    "few words": (parameter("random_state", {"random_state": {**WORDS, "words": [1]}}), "must have 624 words"),
    "no words": (parameter("random_state", {"random_state": {**WORDS, "words": [0] * 624}}), "not all of them 0"),
    "wide words": (parameter("random_state", {"random_state": {**WORDS, "words": [2**32] * 624}}), "from 0 to"),
    "beyond the words": (parameter("random_state", {"random_state": {**WORDS, "position": 625}}), "position of random"),
    "no normal": (parameter("random_state", {"random_state": {**WORDS, "normal": "x"}}), "normal number"),
    "objects are described": (lambda d: d["objects"].append(3), "an object is not described"),
    "an object of no role": (lambda d: d["objects"].append(["module", "os"]), "an object is not described"),
    "a schedule that is none": (lambda d: d["objects"].append(["schedule", "x"]), "schedule must be"),
    "a foreign layer": (lambda d: d["objects"][0][1].update({"class": "eval"}), "no layer of nnx"),
    "a huge layer": (lambda d: d["objects"][0][1]["config"].update(n_inputs=10**12), "weights must have shape"),
    "a count": (lambda d: d["members"][0]["figures"].update(t_=10**30), "whole number"),
    "a figure": (lambda d: d["members"][0]["figures"].update(loss_="x"), "loss_ must consist"),
    "a figure less": (lambda d: d["members"][0]["figures"].pop("loss_"), "lacks a part with"),
    "an output": (lambda d: d["members"][0]["end"].update(activation="identity"), "end with one and"),
    "an unknown output": (lambda d: d["members"][0]["end"].update(activation=[]), "out_activation_ must be"),
    "shares": (lambda d: d["members"][0]["end"].update(shares=0), "shares must be above 0"),
    "a member in a member": (lambda d: d["members"][0].update(network=copy.deepcopy(d)), "has the keys|no model"),
    "a network that is a list": (lambda d: d["members"][0].update(network=[]), "not described"),
    "a network without optimizer": (lambda d: d["members"][0]["network"].update(optimizer=None), "no optimizer is set"),
    "a huge network": (lambda d: d["members"][0]["network"]["layers"][0]["config"].update(n_inputs=10**9), "shape"),
    "a foreign loss": (lambda d: d["members"][0]["network"]["loss"].update({"class": "print"}), "no loss of nnx"),
    "a network of other outputs": (lambda d: d["members"][0]["network"]["layers"].pop(), "no longer trains"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return the bytes of an ensemble of two, with an object that has arrays."""
    slopes = nnx.Activation_PReLU(4, dtype="float64")
    estimator = MLPClassifier((4,), slopes, n_members=2, max_iter=2, random_state=1, dtype="float64")
    path = tmp_path_factory.mktemp("estimators") / "original"
    estimator.fit(X, np.array(["a", "b", "c"])[KINDS]).save(path)
    return path.read_bytes()


def refusal(path, content):
    path.write_bytes(content)
    with pytest.raises(nnx.ModelFileError) as raised:
        load(path)
    sentence = str(raised.value)
    assert sentence.startswith("nnx.sklearn.load: ")
    assert sentence.isprintable()
    return sentence


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_description_is_refused(path, original, case):
    description, header, payload = parts(original)
    change, expected = TAMPERED[case]
    change(description)
    sentence = refusal(path, written(description, header, payload))
    assert re.search(expected, sentence), sentence


def test_tampered_arrays_are_refused(path, original):
    description, header, payload = parts(original)
    path.write_bytes(written(description, header, payload))
    load(path)
    for name in ("members.0.layers.0.weights", "members.1.loss_curve_", "objects.layers.0.weights"):
        for new in ("stranger", "members.0.stranger", "members.7.loss_curve_", "objects.layers.1.weights", "classes"):
            renamed = {new if each == name else each: entry for each, entry in header.items()}
            assert "is damaged" in refusal(path, written(dict(description), renamed, payload))
    first = header["members.0.layers.0.weights"]
    flat = {**header, "members.0.layers.0.weights": {**first, "shape": first["shape"][::-1]}}
    assert "is damaged" in refusal(path, written(description, flat, payload))
    description["shared"] = {"members.1.layers.0.weight_cache": "members.0.layers.0.weights"}
    assert "cannot be the same array" in refusal(path, written(description, _less(header), payload))


def _less(header):
    """Return a header in which the last momentums have another name, so that their name is free."""
    return {name.replace("members.1.layers.0.weight_cache", "x.weights"): entry for name, entry in header.items()}


def test_files_cut_off_and_changed_bytes_are_refused(path, original):
    for end in range(0, len(original), 97):
        refusal(path, original[:end])
    for place in range(9, len(original), 53):
        refusal(path, original[:place] + bytes([original[place] ^ 4]) + original[place + 1 :])


@pytest.fixture(scope="module")
def mutants():
    pytest.importorskip("resource")
    sys.path.insert(0, str(TRUST))
    try:
        import mutants
    finally:
        sys.path.remove(str(TRUST))
    return mutants


@pytest.mark.long("reads hundreds of files")
def test_mutants_are_refused_or_right(path, original, mutants):
    """An accepted file with a correct checksum must predict, and survive saving and loading."""

    class Original:
        header, payload = mutants.parts(original)

    accepted = 0
    for number in range(300):
        rng = random.Random(f"estimators {number}")
        path.write_bytes(mutants.tampered(Original, rng))
        try:
            estimator = load(path)
        except nnx.ModelFileError:
            continue
        accepted += 1
        estimator.save(path)
        twin = load(path)
        if hasattr(estimator, "classes_"):
            with np.errstate(all="ignore"):
                assert twin.predict(X).tolist() == estimator.predict(X).tolist(), number
    assert 3 < accepted < 150
