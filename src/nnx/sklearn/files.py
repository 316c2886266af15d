"""What an estimator is in a file: its parameters, what it has learnt of the data, and its networks as model files.

The format is laid down in docs/internals/model-files.md. Reading executes nothing, as with models: a file names
what is in a closed set, or what the caller hands over.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

import numpy as np
from sklearn.base import ClassifierMixin

from nnx import schedules
from nnx._base import check, trainers
from nnx._base.text import abridged
from nnx._base.typing import Array, Path
from nnx.files import descriptions, model_files, safetensors
from nnx.layers import Layer_Dense, walk
from nnx.model import Model
from nnx.sklearn.networks import OUTPUTS, End
from nnx.sklearn.training import dense_layers

#: The classes that a file may name: each enters itself.
ESTIMATORS: dict[str, Any] = {}

#: What the objects are that parameters may hold; other parameters hold none.
ROLES = {"activation": "layer", "loss": "loss", "solver": "optimizer", "learning_rate": "schedule"}

#: Parameters that no file keeps: a loaded estimator has their defaults.
DROPPED = {"callbacks"}

#: How deep lists and dicts may be within a parameter.
MAX_DEPTH = 4

#: What is kept of a training beside the network: numbers, and lists of numbers, which are arrays in a file.
COUNTS = ("n_iter_", "t_", "_no_improvement_count")
FIGURES = ("loss_", "best_loss_", "best_validation_score_")
CURVES = ("loss_curve_", "validation_scores_")

#: What may be None: no figure has been taken.
NOT_ALWAYS = {"best_loss_", "best_validation_score_", "validation_scores_"}

#: The words that `numpy.random.RandomState` draws from.
N_WORDS = 624

Kind = TypeVar("Kind", bound=type)


def in_files(kind: Kind) -> Kind:
    """Enter a class among those that files may name."""
    ESTIMATORS[kind.__name__] = kind
    return kind


def defaults(kind: type) -> dict[str, Any]:
    """Return the parameters that a file keeps, as the constructor has them."""
    found = inspect.signature(kind).parameters
    return {name: each.default for name, each in found.items() if name not in DROPPED}


# Writing


def save(estimator: Any, path: Path) -> None:
    """Write parameters, what was learnt of the data, and the networks with their optimizers' state.

    Raises
    ------
    TypeError
        For an object of a class derived from an estimator's, and for parameters that no file can hold: functions, and
        objects of custom classes without ``get_config``.
    ValueError
        For an estimator that could not be loaded again, such as one whose last `fit` has failed.
    RuntimeError
        While another thread trains it.
    """
    where = f"{type(estimator).__name__}.save"
    path = check.path(where, "path", path)
    refuse_derived(where, estimator, "model_")
    estimator._validate_params()
    own = vars(estimator)
    members = own.get("estimators_", [estimator] if "model_" in own else [])
    for member in members:
        _check_fitted(where, member)
        trainers.refuse_others(f"{where}: the estimator must not be saved", member.model_)
    writer = Writer(where)
    parameters = writer.parameters(estimator)
    description = {
        "format": model_files.ESTIMATOR,
        "version": model_files.VERSION,
        "class": type(estimator).__name__,
        "parameters": without(parameters, writer.encoded(defaults(type(estimator)))),
        "fitted": {"ensemble": "estimators_" in own, **writer.of_data(members[0])} if members else None,
        "members": [writer.member(number, member, parameters) for number, member in enumerate(members)],
        "objects": writer.objects,
    }
    arrays = {**writer.arrays, **writer.arrays_of_objects()}
    model_files.check_apart(where, {name: each for name, each in arrays.items() if ".layers." in name})
    safetensors.write(where, path, description, arrays)


def refuse_derived(where: str, estimator: Any, instead: str) -> None:
    """Refuse objects of classes that are not those that files may name."""
    if ESTIMATORS.get(type(estimator).__name__) is not type(estimator):
        raise TypeError(
            f"{where}: the estimator must be {' or '.join(sorted(ESTIMATORS))} itself, got an object of a custom "
            f"class. Save its {instead}."
        )


def without(parameters: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return encoded parameters that differ from known ones; as in JSON, 1 is neither True nor 1.0."""
    return {name: value for name, value in parameters.items() if json.dumps(value) != json.dumps(known[name])}


class Writer:
    """Collects what a file is to hold.

    Attributes
    ----------
    objects : list of [role, description]
        What parameters hold, each object once.
    arrays : dict of arrays
        By their names in the file; without those of the objects.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.objects: list[list[Any]] = []
        self.arrays: dict[str, Array] = {}
        self._known: list[Any] = []

    def parameters(self, estimator: Any) -> dict[str, Any]:
        """Return all parameters of an estimator, as JSON takes them."""
        return self.encoded({name: getattr(estimator, name) for name in defaults(type(estimator))})

    def encoded(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return parameters by name, as JSON takes them."""
        return {name: self._encoded(name, value, 0) for name, value in parameters.items()}

    def of_data(self, member: Any) -> dict[str, Any]:
        """Return what was learnt of the data."""
        own = vars(member)
        names = own.get("feature_names_in_")
        found: dict[str, Any] = {"feature_names": None if names is None else list(names)}
        if isinstance(member, ClassifierMixin):
            found |= {"kind": own["_kind"], "classes": self.classes(own["classes_"])}
        return found

    def member(self, number: int, member: Any, known: dict[str, Any]) -> dict[str, Any]:
        """Return what a network has learnt, and those of its parameters that are not the known ones."""
        own = vars(member)
        network, arrays = model_files.contents(self.where, member.model_)
        arrays |= {name: np.array(own[name], np.float64) for name in CURVES if own[name] is not None}
        self.arrays |= {f"members.{number}.{name}": array for name, array in arrays.items()}
        return {
            "parameters": without(self.parameters(member), known),
            "figures": self.encoded({name: own[name] for name in (*COUNTS, *FIGURES)}),
            "end": {"activation": member.out_activation_, "shares": member._end.shares},
            "network": {"format": model_files.MODEL, **network},
        }

    def arrays_of_objects(self) -> dict[str, Array]:
        """Return the arrays of layers that parameters hold."""
        pairs = zip(self._known, self.objects, strict=True)
        layers = walk([thing for thing, (role, _) in pairs if role == "layer"])
        found = [model_files.arrays_of(self.where, number, layer) for number, layer in enumerate(layers)]
        return {f"objects.{name}": array for arrays in found for name, array in arrays.items()}

    def classes(self, classes: Array) -> Any:
        """Return texts as a list, with the letter of their dtype; null for numbers, which are an array."""
        if classes.dtype.kind in "biuf":
            self.arrays["classes"] = classes
            return None
        return [classes.dtype.kind, classes.tolist()]

    def _encoded(self, name: str, value: Any, depth: int) -> Any:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic | float)):
            return np.dtype(value).name
        if isinstance(value, np.random.RandomState):
            return {"random_state": self._encoded_state(value)}
        if depth < MAX_DEPTH and isinstance(value, dict):
            pairs = [(self._scalar(name, key), self._encoded(name, each, depth + 1)) for key, each in value.items()]
            return {"dict": pairs}
        if depth < MAX_DEPTH and isinstance(value, list | tuple):
            values = [self._encoded(name, each, depth + 1) for each in value]
            return {"tuple": values} if isinstance(value, tuple) else values
        if value is None or isinstance(value, str | bool | np.bool_ | Real) or name not in ROLES:
            return self._scalar(name, value)
        return {"object": self._number_of(name, value)}

    def _scalar(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            return check.text(self.where, name, str(value))
        if isinstance(value, bool | np.bool_):
            return bool(value)
        if isinstance(value, Integral):
            return check.whole(self.where, name, value, -(2**63), 2**64 - 1)
        if isinstance(value, Real):
            number = float(value)
            return number if math.isfinite(number) else {"float": str(number)}
        raise self._no_value(name, value)

    def _encoded_state(self, state: np.random.RandomState) -> dict[str, Any]:
        found: Any = state.get_state(legacy=False)
        if found["bit_generator"] != "MT19937":
            raise TypeError(
                f"{self.where}: random_state must draw from MT19937, as numpy.random.RandomState(seed) does, got one "
                f"that draws from {found['bit_generator']}."
            )
        waiting = float(found["gauss"]) if found["has_gauss"] else None
        return {"words": found["state"]["key"].tolist(), "position": int(found["state"]["pos"]), "normal": waiting}

    def _number_of(self, name: str, thing: Any) -> int:
        """Return the number of an object among all: a new one if it has not been met before."""
        for number, each in enumerate(self._known):
            if each is thing:
                return number
        role = ROLES[name]
        if inspect.isroutine(thing) or isinstance(thing, type):
            raise self._no_value(name, thing)
        if role == "schedule":
            described: Any = schedules.described(self.where, thing, name)
        else:
            described = descriptions.describe(self.where, role, thing)
        self._known.append(thing)
        self.objects.append([role, described])
        return len(self._known) - 1

    def _no_value(self, name: str, value: Any) -> TypeError:
        objects = ", or objects of nnx" if name in ROLES else ""
        return TypeError(
            f"{self.where}: {name} must consist of text and numbers{objects}, which a file can hold, got "
            f"{abridged(value)}. Call set_params({name}=...) first."
        )


# What a file may hold


def _check_fitted(where: str, member: Any) -> None:
    """Refuse an estimator of one network that is not as `fit` leaves it."""
    own = vars(member)
    needed = {"model_", "_end", "_dtype", "out_activation_", "n_layers_", "n_outputs_", "n_features_in_"}
    missing = sorted({*needed, *COUNTS, *FIGURES, *CURVES} - own.keys())
    if missing:
        raise ValueError(
            f"{where}: the estimator must be completely fitted, but it lacks {missing[0]}. Call fit again."
        )
    for name in COUNTS:
        check.whole(where, name, own[name], 0, descriptions.MAX_STEPS)
    figures = [(name, [own[name]]) for name in FIGURES] + [(name, own[name]) for name in CURVES]
    for name, values in figures:
        if name in NOT_ALWAYS and values in (None, [None]):
            continue
        if not isinstance(values, list) or not all(isinstance(each, Real) for each in values):
            raise TypeError(f"{where}: {name} must consist of numbers, got {abridged(own[name])}.")
    _check_network(where, member)
    names = own.get("feature_names_in_")
    if names is not None:
        if len(names) != member.n_features_in_:
            raise ValueError(f"{where}: feature_names_in_ must hold {member.n_features_in_} names, got {len(names)}.")
        for name in names:
            check.text(where, "feature_names_in_", name)
    if isinstance(member, ClassifierMixin):
        kind, n_outputs = own.get("_kind"), member.n_outputs_
        check_classes(where, kind, own.get("classes_"), 2 if kind == "classes" and n_outputs == 1 else n_outputs)


def _check_network(where: str, member: Any) -> None:
    """Refuse a network of which an estimator says something else."""
    model, output = member.model_, member.out_activation_
    model._require(where, "loss", "optimizer", "accuracy")
    check.one_of(where, "out_activation_", output, tuple(OUTPUTS))
    kinds = [type(layer) for layer in model.layers]
    if kinds[0] is not Layer_Dense or kinds[-2:] != [Layer_Dense, OUTPUTS[output]]:
        raise ValueError(
            f"{where}: model_ must begin with a Layer_Dense and end with one and {OUTPUTS[output].__name__}, got "
            f"{', '.join(kind.__name__ for kind in (kinds[0], *kinds[-2:]))}."
        )
    dense = dense_layers(model)
    found = {
        "n_features_in_": dense[0].weights.shape[0],
        "n_outputs_": dense[-1].weights.shape[1],
        "n_layers_": len(dense) + 1,
        "_dtype": dense[0].weights.dtype,
    }
    for name, value in found.items():
        if getattr(member, name) != value:
            raise ValueError(f"{where}: {name} must be {value}, as model_ is, got {abridged(getattr(member, name))}.")
    if check.number(where, "shares", member._end.shares, 0) == 0:
        raise ValueError(f"{where}: shares must be above 0, got 0.")


def check_classes(where: str, kind: Any, classes: Any, expected: int) -> None:
    """Refuse classes that are not sorted, or not as many as expected."""
    check.one_of(where, "_kind", kind, ("classes", "multilabel"))
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or classes.dtype.kind not in "biufUO":
        raise TypeError(f"{where}: classes_ must be an array (n,) of numbers or texts, got {abridged(classes)}.")
    for each in classes if classes.dtype.kind in "UO" else ():
        check.text(where, "classes_", each)
    if not np.all(classes[1:] > classes[:-1]):
        raise ValueError(f"{where}: classes_ must be in ascending order, got {abridged(classes.tolist())}.")
    if len(classes) != expected:
        raise ValueError(f"{where}: classes_ must hold {expected} classes, as model_ does, got {len(classes)}.")


def _check_together(where: str, members: list[Any]) -> None:
    """Refuse networks that cannot be one ensemble."""
    for name in ("n_features_in_", "n_outputs_", "out_activation_", "_dtype"):
        values = [getattr(member, name) for member in members]
        if any(value != values[0] for value in values):
            raise ValueError(f"{where}: estimators_ must have the same {name}, got {abridged(values)}.")


# Reading


def load(path: Path, custom_objects: Mapping[str, type] | None = None) -> Any:
    """Return the estimator that its `save` wrote. Nothing in the file is executed.

    It predicts the same bytes, and a perceptron goes on with `partial_fit` or ``warm_start`` as the saved one would. It
    has neither ``callbacks`` nor ``history_``.

    Parameters
    ----------
    path : str or path
    custom_objects : dict, optional
        Your own classes by name, for an estimator with activations, losses or optimizers of such.

    Raises
    ------
    ModelFileError
        If the file is not from nnx, is damaged, or names a class that is neither built in nor in custom_objects.

    Examples
    --------
    >>> import os, tempfile
    >>> from nnx.sklearn import MLPRegressor, load
    >>> mlp = MLPRegressor(hidden_layer_sizes=(4,), solver="lbfgs", random_state=0).fit([[0.0], [1.0]], [0.0, 2.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mlp.save(os.path.join(folder, "mlp.safetensors"))
    ...     twin = load(os.path.join(folder, "mlp.safetensors"))
    >>> bool((twin.predict([[0.5]]) == mlp.predict([[0.5]])).all())
    True
    """
    where = "nnx.sklearn.load"
    file = model_files.opened(where, check.path(where, "path", path))
    if file.kind != model_files.ESTIMATOR:
        file.refuse(model_files.READERS[file.kind])
    kind = ESTIMATORS.get(file.take(str, "class"))
    if kind is None:
        file.refuse(f"names {file.description['class']!r}, which is no estimator of nnx")
    reader: type[Reader] = getattr(kind, "_reader", Reader)
    return reader(file, custom_objects or {}).estimator(kind)


class Reader:
    """Makes an estimator of a file, whose every part it checks."""

    #: What the names of arrays begin with that belong to no layer.
    beside: ClassVar[tuple[str, ...]] = ()

    def __init__(self, file: model_files.Part, custom_objects: Mapping[str, type]) -> None:
        self.file, self.custom_objects = file, custom_objects
        file.check_purposes(self.beside)
        self._arrays: dict[str, dict[str, Array]] = {}  # by the beginning of their names; of each by the rest
        for name, array in file.arrays.items():
            parts = name.split(".")
            n_first = 2 if parts[0] == "members" else 1
            self._arrays.setdefault(".".join(parts[:n_first]), {})[".".join(parts[n_first:])] = array
        self._objects = self._made_objects(file.take(list, "objects"))

    def estimator(self, kind: type) -> Any:
        """Return the estimator; refuse arrays that belong to nothing in it."""
        file = self.file
        parameters = self._parameters(file.description["parameters"], defaults(kind))
        estimator = self._made(kind, parameters)
        described = file.take(list, "members")
        if file.description["fitted"] is not None:
            self._restore(estimator, parameters, described)
        elif described:
            file.refuse("is damaged: it holds networks of an estimator that is not fitted")
        if self._arrays:
            file.refuse(f"is damaged: it holds arrays that belong to nothing, {next(iter(self._arrays))!r} among them")
        return estimator

    def _restore(self, estimator: Any, parameters: dict[str, Any], described: list[Any]) -> None:
        """Give an estimator all that was learnt."""
        keys = {"ensemble", "feature_names"}
        if isinstance(estimator, ClassifierMixin):
            keys |= {"kind", "classes"}
        fitted = self.with_keys(self.file.description["fitted"], keys)
        of_data = self.of_data(fitted)
        if fitted["ensemble"] is not True and fitted["ensemble"] is not False:
            self.file.refuse("is damaged: it is neither an ensemble nor one network")
        if not described or (len(described) > 1 and not fitted["ensemble"]):
            self.file.refuse(f"is damaged: its estimator cannot have {len(described)} networks")
        members = []
        for number, each in enumerate(described):
            found = self.with_keys(each, {"parameters", "figures", "end", "network"})
            own = self._parameters(found["parameters"], parameters)
            members.append(self._made(type(estimator), own) if fitted["ensemble"] else estimator)
            vars(members[-1]).update(of_data)
            self._restore_network(number, members[-1], found)
        if fitted["ensemble"]:
            self.checked(_check_together, members)
            own, first = vars(estimator), members[0]
            own.update(of_data, n_features_in_=first.n_features_in_, _dtype=first._dtype, estimators_=members)
            estimator._summarize(members)

    def _restore_network(self, number: int, member: Any, found: dict[str, Any]) -> None:
        """Give an estimator of one network that network, and the figures of its training."""
        file, own = self.file, vars(member)
        arrays = self._arrays.pop(f"members.{number}", {})
        figures = self.with_keys(found["figures"], {*COUNTS, *FIGURES})
        own |= {name: self.decoded("", value) for name, value in figures.items()}
        own |= {name: self._curve(arrays.pop(name, None)) for name in CURVES}
        if not isinstance(found["network"], dict):
            file.refuse("is damaged: a network is not described")
        part = model_files.Part(file.where, file.path, found["network"], arrays)
        part.check_keys()
        if part.kind != model_files.MODEL:
            file.refuse("is damaged: a network is not a model")
        model = own["model_"] = model_files.model_in(part, Model, self.custom_objects, Model._restore)
        dense = dense_layers(model)
        if not dense:
            file.refuse("is damaged: a network has no dense layer")
        own |= {"n_features_in_": dense[0].weights.shape[0], "n_outputs_": dense[-1].weights.shape[1]}
        own |= {"n_layers_": len(dense) + 1, "_dtype": dense[0].weights.dtype}
        end = self.with_keys(found["end"], {"activation", "shares"})
        own |= {"out_activation_": end["activation"]}
        own |= {"_end": End(model.loss, end["activation"], own["n_outputs_"], end["shares"])}
        self.checked(_check_fitted, member)

    def of_data(self, fitted: dict[str, Any]) -> dict[str, Any]:
        """Return the attributes that say what was learnt of the data, still to be compared with the network."""
        found: dict[str, Any] = {}
        names = fitted["feature_names"]
        if names is not None:
            if not isinstance(names, list):
                self.file.refuse("is damaged: its names of features are not a list")
            found["feature_names_in_"] = np.array(names, object)
        if "kind" in fitted:
            found |= {"_kind": fitted["kind"], "classes_": self._classes(fitted["classes"])}
        return found

    def _classes(self, described: Any) -> Any:
        if described is None:
            return self._arrays.pop("classes", {}).get("")
        if not isinstance(described, list) or len(described) != 2 or described[0] not in ("U", "O"):
            self.file.refuse("is damaged: its classes are not described")
        letter, texts = described
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            self.file.refuse("is damaged: its classes are not a list of texts")
        classes = np.array(texts, letter)
        if classes.tolist() != texts:
            self.file.refuse("is damaged: a class ends in null characters")
        return classes

    def _curve(self, array: Array | None) -> list[float] | None:
        if array is None:
            return None
        if array.ndim != 1 or array.dtype != np.float64:
            self.file.refuse(f"is damaged: a curve is {abridged(array)}")
        numbers: list[float] = array.tolist()
        return numbers

    # Parameters

    def _parameters(self, described: Any, known: dict[str, Any]) -> dict[str, Any]:
        """Return parameters by name: the known ones where nothing else is described."""
        if not isinstance(described, dict) or described.keys() - known.keys():
            self.file.refuse("is damaged: its parameters are not the estimator's")
        return {**known, **{name: self.decoded(name, value) for name, value in described.items()}}

    def _made(self, kind: type, parameters: dict[str, Any]) -> Any:
        """Return an estimator that is not fitted, whose parameters scikit-learn has checked."""
        estimator = kind(**parameters)
        self.checked(lambda where, each: each._validate_params(), estimator)
        return estimator

    def _made_objects(self, described: list[Any]) -> list[tuple[str, Any]]:
        """Return what parameters hold, each with its role."""
        file, found = self.file, []
        for each in described:
            if not isinstance(each, list) or len(each) != 2 or each[0] not in ROLES.values():
                file.refuse("is damaged: an object is not described")
            role, thing = each
            if role == "schedule":
                thing = self.checked(lambda where, value: schedules.from_description(where, "schedule", value), thing)
            else:
                thing = file.build(role, thing, self.custom_objects)
            found.append((role, thing))
        layers = list(walk([thing for role, thing in found if role == "layer"]))
        model_files.Part(file.where, file.path, {}, self._arrays.pop("objects", {})).fill(layers)
        return found

    def decoded(self, name: str, value: Any) -> Any:
        """Return what `Writer` has encoded."""
        if isinstance(value, list):
            return [self.decoded(name, each) for each in value]
        if not isinstance(value, dict):
            return value if type(value) is not int else self.checked(_check_64_bits, value)
        if len(value) != 1:
            self._refuse_value(name)
        ((key, inner),) = value.items()
        if key == "float" and inner in ("inf", "-inf", "nan"):
            return float(inner)
        if key == "tuple" and isinstance(inner, list):
            return tuple(self.decoded(name, each) for each in inner)
        if key == "dict" and isinstance(inner, list) and all(_is_pair(each) for each in inner):
            return {self.decoded(name, first): self.decoded(name, second) for first, second in inner}
        if key == "random_state":
            return self.checked(_random_state, self.with_keys(inner, {"words", "position", "normal"}))
        if key == "object" and type(inner) is int and 0 <= inner < len(self._objects):
            role, thing = self._objects[inner]
            if role == ROLES.get(name):
                return thing
        return self._refuse_value(name)

    def _refuse_value(self, name: str) -> Any:
        self.file.refuse(f"is damaged: {name or 'a figure'} is no value that nnx writes")

    # Checks

    def with_keys(self, found: Any, keys: set[str]) -> dict[str, Any]:
        """Return a part of the description, which must be an object of these keys."""
        if not isinstance(found, dict) or found.keys() != keys:
            self.file.refuse(f"is damaged: it lacks a part with {', '.join(sorted(keys))}")
        return found

    def checked(self, function: Any, value: Any) -> Any:
        """Return what a function returns; what it refuses is the file's fault."""
        try:
            return function(self.file.where, value)
        except (RuntimeError, TypeError, ValueError) as error:
            self.file.refuse(f"is damaged ({error})")


def _check_64_bits(where: str, value: Any) -> int:
    return check.whole(where, "a number", value, -(2**63), 2**64 - 1)


def _is_pair(value: Any) -> bool:
    """Return whether a key, which is text, number, truth or null, and a value are a pair in a dict."""
    return isinstance(value, list) and len(value) == 2 and not isinstance(value[0], list | dict)


def _random_state(where: str, found: dict[str, Any]) -> np.random.RandomState:
    """Return a random state; what NumPy does not check would make it read beyond its words, or draw for ever."""
    words, normal = found["words"], found["normal"]
    if not isinstance(words, list) or len(words) != N_WORDS or not any(words[1:]):
        raise ValueError(f"{where}: random_state must have {N_WORDS} words, not all of them 0.")
    numbers = [check.whole(where, "a word of random_state", word, 0, 2**32 - 1) for word in words]
    position = check.whole(where, "the position of random_state", found["position"], 0, N_WORDS)
    waiting = 0.0 if normal is None else float(check.number(where, "the normal number of random_state", normal))
    state = np.random.RandomState(0)
    state.set_state(("MT19937", np.array(numbers, np.uint32), position, int(normal is not None), waiting))
    return state
