"""What a model is in a file: descriptions of its objects, and its arrays. The file itself is `nnx.files.safetensors`'s.

The format is laid down in docs/internals/model-files.md. Reading executes nothing: classes come from a closed set,
or from what the caller hands over.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from nnx._base import check, files
from nnx._base.network import AnyNetwork, Network
from nnx._base.parameters import AVERAGED, PARAMETER_ARRAYS
from nnx._base.typing import Array, Path
from nnx._base.vocabulary import BUILT_IN, kinds_of
from nnx._base.widths import widths_of
from nnx.data.images import Images
from nnx.data.tables import Table
from nnx.errors import ModelFileError
from nnx.files import descriptions, packing, safetensors
from nnx.layers import Layer_BatchNorm, Layer_Residual, walk
from nnx.losses import answers
from nnx.norms import STATISTICS
from nnx.optimizers import AVERAGES, state_names

#: The version that is written, and those that are read.
VERSION = 3
VERSIONS = (2, 3)
MODEL, PARAMETERS, CHECKPOINT, ESTIMATOR = "nnx model", "nnx parameters", "nnx checkpoint", "nnx estimator"
PREDICTOR, ENSEMBLE = "nnx predictor", "nnx ensemble"

#: The keys of each kind of description.
KEYS = {
    MODEL: {"format", "version", "model", "layers", "trainable", "loss", "optimizer", "accuracy"},
    PARAMETERS: {"format", "version", "trainable"},
    ESTIMATOR: {"format", "version", "class", "parameters", "objects", "fitted", "members"},
    PREDICTOR: {"format", "version", "precision", "categories", "parts"},
    ENSEMBLE: {"format", "version", "counts", "members"},
}
KEYS[CHECKPOINT] = KEYS[MODEL] | {"run"}

#: What leads from raw data to inputs, by the attribute of the model, which is the key in its description too.
PREPROCESSORS: dict[str, type[Table] | type[Images]] = {"table": Table, "images": Images}
OPTIONAL_KEYS = {kind: set(PREPROCESSORS) for kind in (MODEL, CHECKPOINT, ENSEMBLE)}

#: What reads a file, by its kind, if not what was called.
READERS = {
    MODEL: "holds a model. Call nnx.Model.load(path)",
    CHECKPOINT: "holds a model and how far its training has come. Call nnx.Model.load(path)",
    PARAMETERS: "holds parameters alone. Build the model and call model.load_parameters(path)",
    ESTIMATOR: "holds an estimator. Call nnx.sklearn.load(path)",
    PREDICTOR: "holds a predictor. Call nnx.Predictor.load(path)",
    ENSEMBLE: "holds an ensemble. Call nnx.Ensemble.load(path)",
}

#: What the names of a checkpoint's arrays begin with that belong to no layer; a preprocessor's begin with its key.
RUN_ARRAYS = "run."

#: A layer's arrays: parameters, and what optimizers keep about them.
KINDS: tuple[Any, ...] = tuple(BUILT_IN["optimizer"])
STATES = state_names((*dict.fromkeys(name for kind in KINDS for name in kind._states), AVERAGES))
ARRAYS = (*PARAMETER_ARRAYS, *STATES[0], *STATES[1])
#: What layers have at most; batch normalization has figures that no optimizer trains.
EVERY_ARRAY = (*ARRAYS, *STATISTICS)
#: The built-in layers that have arrays.
WITH_PARAMETERS: tuple[Any, ...] = tuple(kind for kind in BUILT_IN["layer"] if hasattr(kind, "_parameters"))

# Writing


def save_model(model: Network, path: Path) -> None:
    """Write everything that predicting and going on with the training need."""
    where = "Model.save"
    path = check.path(where, "path", path)
    description, arrays = contents(where, model)
    safetensors.write(where, path, {"format": MODEL, **description}, arrays)


def save_checkpoint(
    where: str, path: Path, model: Network, run: dict[str, Any], run_arrays: Mapping[str, Array]
) -> None:
    """Write a model with how far its training has come."""
    safetensors.write(where, path, *_checkpoint(where, model, run, run_arrays))


def run_of(where: str, path: str) -> dict[str, Any]:
    """Return what a checkpoint says of its run, as it was given to `save_checkpoint`; nothing of it is checked."""
    file = opened(where, path)
    run: dict[str, Any] = file.take(dict, "run") if file.kind == CHECKPOINT else {}
    return run


def check_checkpoint(where: str, model: Network, run: dict[str, Any]) -> None:
    """Refuse a model of which no checkpoint could be written."""
    safetensors.check(where, *_checkpoint(where, model, run, {}))


def _checkpoint(
    where: str, model: Network, run: dict[str, Any], run_arrays: Mapping[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    description, arrays = contents(where, model)
    arrays |= {f"{RUN_ARRAYS}{name}": array for name, array in run_arrays.items()}
    return {"format": CHECKPOINT, **description, "run": run}, arrays


def save_parameters(model: Network, path: Path) -> None:
    """Write weights and biases of the trainable layers, or their averages where there are any."""
    where = "Model.save_parameters"
    path = check.path(where, "path", path)
    layers = list(walk(model.layers))
    positions = _positions(where, layers, model)
    used = {
        f"layers.{number}.{name}": (number, average if _has_array(layers[number], average) else name)
        for number in positions
        for name, average in zip(PARAMETER_ARRAYS, AVERAGED, strict=True)
    }
    for number in positions:
        if isinstance(layers[number], Layer_BatchNorm):
            used |= {f"layers.{number}.{name}": (number, name) for name in STATISTICS}
    check_apart(
        where,
        {
            full_name: getattr(layers[number], name)
            for full_name, (number, name) in used.items()
            if _has_array(layers[number], name)
        },
    )
    arrays: dict[str, Array] = {}
    for full_name, (number, name) in used.items():
        found = _arrays(where, number, layers[number], (name,))
        arrays |= dict(zip([full_name], found.values(), strict=False))  # none where a layer has no biases
    safetensors.write(where, path, {"format": PARAMETERS, "version": VERSION, "trainable": positions}, arrays)


def _has_array(layer: Any, name: str) -> bool:
    return isinstance(getattr(layer, name, None), np.ndarray)


def contents(where: str, model: Network) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the description of a model, and its arrays by name; refuse what could not be read again."""
    description = describe(where, model)
    layers = list(walk(model.layers))
    check_apart(where, _as_assigned(layers))
    arrays: dict[str, Array] = {}
    for number, layer in enumerate(layers):
        arrays |= arrays_of(where, number, layer)
    described, beside = preprocessor_of(where, model)
    return {**description, **described}, {**arrays, **beside}


def preprocessor_of(where: str, model: Network) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the description of a model's table or images under its key, and its arrays; nothing if it has none."""
    description: dict[str, Any] = {}
    arrays: dict[str, Array] = {}
    for key in PREPROCESSORS:
        preprocessor = getattr(model, key)
        if preprocessor is not None:
            misfit = _misfit(model, key, preprocessor)
            if misfit:
                raise ValueError(f"{where}: {misfit}.")
            description[key], beside = packed(where, key, preprocessor)
            arrays |= {f"{key}.{name}": array for name, array in beside.items()}
    return description, arrays


def describe(where: str, model: Network) -> dict[str, Any]:
    """Return the description of a model, without its arrays and preprocessors."""
    description: dict[str, Any] = {
        "version": VERSION,
        "model": type(model).__name__,
        "layers": [descriptions.describe(where, "layer", layer) for layer in model.layers],
        "trainable": _positions(where, list(walk(model.layers)), model),
    }
    for role in ("loss", "optimizer", "accuracy"):
        thing = getattr(model, role)
        description[role] = None if thing is None else descriptions.describe(where, role, thing)
    return description


def packed(where: str, key: str, preprocessor: Table | Images) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the description of a preprocessor, its columns as arrays; refuse one that is too large for a file."""
    described = preprocessor.to_dict()
    if "columns" not in described:
        return described, {}
    try:
        columns, arrays = packing.packed(described["columns"])
    except ValueError as error:
        raise ValueError(
            f"{where}: {key} {error}. Leave columns out: drop=[...] in Python, --drop on the command line."
        ) from None
    return {**described, "columns": columns}, arrays


def arrays_of(where: str, number: int, layer: Any) -> dict[str, Array]:
    """Return all that a file keeps of a layer's arrays, under their names in it."""
    return _arrays(where, number, layer, _names_of(layer))


def _arrays(where: str, number: int, layer: Any, names: tuple[str, ...]) -> dict[str, Array]:
    """Return a layer's arrays under their names in the file."""
    if isinstance(layer, WITH_PARAMETERS):
        layer.get_parameters()
    if isinstance(layer, Layer_BatchNorm):
        _check_statistics(where, layer)
    _check_shapes(where, layer)
    found = {name: getattr(layer, name, None) for name in names}
    arrays = {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
    for name, array in arrays.items():
        if array.dtype.name not in safetensors.NAMES:
            raise TypeError(f"{where}: {name} of layer {number} must be an array of real numbers, got {array.dtype}.")
    return {f"layers.{number}.{name}": array for name, array in arrays.items()}


def _names_of(layer: Any) -> tuple[str, ...]:
    """Return the names of the arrays that a file keeps of a layer, if it has them."""
    return EVERY_ARRAY if isinstance(layer, Layer_BatchNorm) else ARRAYS


def _arrays_of(kind: type) -> tuple[str, ...]:
    """Return the names of the arrays that an object of a built-in class may have."""
    names: tuple[str, ...] = getattr(kind, "_parameters", ())
    return (*names, *itertools.chain(*STATES[: len(names)]), *(STATISTICS if kind is Layer_BatchNorm else ()))


def _check_statistics(where: str, layer: Layer_BatchNorm) -> None:
    """Refuse running statistics that are none: a variance is finite, and at least 0."""
    _, variance = layer._statistics(where)
    good = np.isfinite(variance) & (variance >= 0)
    if not good.all():
        raise ValueError(
            f"{where}: running_variance must hold finite numbers of at least 0, got {variance[~good][0]} for {layer!r}."
        )


def _check_shapes(where: str, layer: Any) -> None:
    """Refuse what an optimizer keeps about a parameter if it is not shaped like that."""
    for parameter, states in zip(PARAMETER_ARRAYS, STATES, strict=True):
        for name in states:
            state, shape = getattr(layer, name, None), np.shape(getattr(layer, parameter, ()))
            if isinstance(state, np.ndarray) and state.shape != shape:
                raise ValueError(f"{where}: {name} must have shape {shape}, got {state.shape}.")


def _as_assigned(layers: list[Any]) -> dict[str, Array]:
    """Return layers' arrays by name, before those of another layout are copied: a transposed view, for instance."""
    found = {
        f"layers.{i}.{name}": getattr(each, name, None) for i, each in enumerate(layers) for name in _names_of(each)
    }
    return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}


def check_apart(where: str, arrays: Mapping[str, Array]) -> None:
    """Refuse arrays that share memory in a way that a file would lose, after which they would be trained apart."""
    first: dict[Any, str] = {}
    for name, array in arrays.items():
        original = first.setdefault(safetensors.memory_of(array), name)
        if original.rpartition(".")[2] != name.rpartition(".")[2]:
            _refuse_shared(where, name, original)
    different = {name: arrays[name] for name in first.values() if arrays[name].size}
    near: list[tuple[int, str]] = []  # where arrays end that begin before this one
    for begin, end, name in sorted((*bounds(array), name) for name, array in different.items()):
        near = [each for each in near if each[0] > begin]
        for _, other in near:
            if np.may_share_memory(different[name], different[other], max_work=10_000):  # type: ignore[arg-type]
                _refuse_shared(where, *sorted((name, other), reverse=True))
        near.append((end, name))


def bounds(array: Array) -> tuple[int, int]:
    """Return the addresses of an array's first byte, and of the byte behind its last."""
    address = array.__array_interface__["data"][0]
    reach = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    return address + sum(min(0, each) for each in reach), address + sum(max(0, each) for each in reach) + array.itemsize


def _refuse_shared(where: str, name: str, other: str) -> NoReturn:
    parts = [f"{attribute} of layer {number}" for *_, number, attribute in (each.split(".") for each in (name, other))]
    raise ValueError(
        f"{where}: {parts[0]} must not share memory with {parts[1]} as a view, which a file cannot store. Give "
        f"both layers the same array, or copies."
    )


def _misfit(model: Network, key: str, preprocessor: Table | Images) -> str:
    """Return what is wrong with one of other columns than the network takes or gives; nothing if it fits."""
    n_inputs, n_outputs = _input_width(model), model.output_width()
    if n_inputs not in (None, preprocessor.n_inputs):
        return f"{key} must give the {n_inputs} inputs of the network, got {preprocessor.n_inputs}"
    every = answers(model.loss, model.layers[-1] if model.layers else None, "numbers").every
    if preprocessor.classes is None and n_outputs is not None and n_outputs % every == 0:
        n_outputs //= every  # several answer for one target
    if n_outputs is not None and not preprocessor.fits(n_outputs):
        return f"{key} must have the {n_outputs} outputs of the network, got {preprocessor.n_outputs}"
    if any(getattr(model, other) is not None for other in PREPROCESSORS if other != key):
        return "model must have a table or images, got both"
    return ""


def _input_width(model: Network) -> int | None:
    """Return how many columns the network takes; None if only running it would tell."""
    for layer in model.layers:
        widths = widths_of(layer)
        if widths is None:
            return None
        if widths[0] is not None:
            return widths[0]
    return None


def _positions(where: str, layers: list[Any], model: Network) -> list[int]:
    """Return where in ``layers``, all of the model's, each of the trainable ones is."""
    place = {id(layer): number for number, layer in enumerate(layers)}
    strangers = [layer for layer in model.trainable_layers if id(layer) not in place]
    if strangers:
        raise ValueError(f"{where}: trainable_layers must be among the model's layers, got {strangers[0]!r}.")
    for layer in model.trainable_layers:
        if not isinstance(layer.weights, np.ndarray):
            raise TypeError(f"{where}: weights must be an array, got those of {layer!r}.")
    _refuse_twice(where, "layers", layers)
    _refuse_twice(where, "trainable_layers", model.trainable_layers)
    return [place[id(layer)] for layer in model.trainable_layers]


def _refuse_twice(where: str, name: str, layers: Iterable[Any]) -> None:
    seen: set[int] = set()
    for layer in layers:
        if id(layer) in seen:
            raise ValueError(f"{where}: {name} must hold each layer once, got {layer!r} twice.")
        seen.add(id(layer))


# Reading


def load_model(
    kind: type[AnyNetwork],
    path: Path,
    custom_objects: Mapping[str, type],
    restore: Callable[[AnyNetwork, list[Any], dict[str, Any], list[int]], str],
) -> AnyNetwork:
    """Return the model that `save_model` wrote, an object of the class ``kind``.

    ``restore`` gives a new one its layers, its other parts by role, and the positions of the trainable layers. It
    returns why nnx no longer trains such a model, nothing if it does; ValueError says that there can be no such model.
    """
    return loaded_model(opened("Model.load", check.path("Model.load", "path", path)), kind, custom_objects, restore)


def loaded_model(
    file: Part,
    kind: type[AnyNetwork],
    custom_objects: Mapping[str, type],
    restore: Callable[[AnyNetwork, list[Any], dict[str, Any], list[int]], str],
) -> AnyNetwork:
    """Return the model that a whole file holds, as `load_model` does."""
    if file.kind not in (MODEL, CHECKPOINT):
        file.refuse(READERS[file.kind])
    return model_in(file, kind, custom_objects, restore)


def model_in(
    file: Part,
    kind: type[AnyNetwork],
    custom_objects: Mapping[str, type],
    restore: Callable[[AnyNetwork, list[Any], dict[str, Any], list[int]], str],
) -> AnyNetwork:
    """Return the model that a part of a file describes, as `load_model` does."""
    if file.take(str, "model") != kind.__name__:
        file.refuse(f"holds a {file.description['model']}. Call {file.description['model']}.load(path)")
    layers = [file.build("layer", each, custom_objects) for each in file.take(list, "layers")]
    del file.description["layers"]  # of many layers it is large
    file.fill(list(walk(layers)))
    model = kind()
    described = {role: file.description[role] for role in ("loss", "optimizer", "accuracy")}
    parts = {role: None if each is None else file.build(role, each, custom_objects) for role, each in described.items()}
    trainable = file.trainable()
    try:
        misfit = restore(model, layers, parts, trainable)
    except ValueError as error:
        file.refuse(f"describes no possible model ({error})")
    if misfit:
        file.refuse(
            f"holds a model that nnx no longer trains: {misfit}. Build a model with the right last layer, and call "
            "its load_parameters(path)"
        )
    vars(model).update(preprocessor_in(file, model))
    return model


def preprocessor_in(file: Part, model: Network) -> dict[str, Table | Images]:
    """Return a model's table or images that a file holds, by its key; nothing if there is none."""
    found = {key: _preprocessor(file, key, model) for key in PREPROCESSORS if key in file.description}
    if len(found) > 1:
        file.refuse("is damaged: its images cannot be used (model must have a table or images, got both)")
    return found


def _preprocessor(file: Part, key: str, model: Network) -> Table | Images:
    """Return a preprocessor that a file holds."""
    described, arrays = file.description[key], file.beside(f"{key}.")
    try:
        if isinstance(described, dict) and "columns" in described:
            described = {**described, "columns": packing.unpacked(described["columns"], arrays)}
        elif arrays:
            raise ValueError("it has arrays that belong to no column")
        preprocessor = PREPROCESSORS[key].from_dict(described)
        misfit = _misfit(model, key, preprocessor)
    except (TypeError, ValueError) as error:
        misfit = str(error)
    if misfit:
        file.refuse(f"is damaged: its {key} cannot be used ({misfit})")
    return preprocessor


class Checkpoint:
    """What `save_checkpoint` wrote of a model's training, checked against the model; nothing of it is in use yet.

    Attributes
    ----------
    run : dict
        As it was given to `save_checkpoint`.
    run_arrays : dict of arrays
        Likewise.
    iterations : int
        How many steps the optimizer has made; None if it does not count them.
    """

    def __init__(self, where: str, path: str, model: Network) -> None:
        file = self._file = opened(where, path)
        if file.kind != CHECKPOINT:
            file.refuse("is not a checkpoint. Model.train(checkpoint=path) writes one")
        if file.take(str, "model") != type(model).__name__:
            file.refuse(f"is a checkpoint of a {file.description['model']}, not of a {type(model).__name__}")
        self.run = file.take(dict, "run")
        self.run_arrays = file.beside(RUN_ARRAYS)
        self._began = self.run.get("learning_rate")  # which callbacks may have changed since
        if "learning_rate" in self.run and type(self._began) not in (int, float):
            file.refuse("is damaged: its learning_rate is not valid")
        self._compare(describe(where, model))
        roles = {"loss": model.loss, "optimizer": model.optimizer, "accuracy": model.accuracy}
        own_layers = list(walk(model.layers))
        classes = {type(thing).__name__: type(thing) for thing in (*own_layers, *roles.values())}
        layers = list(walk(file.build("layer", each, classes) for each in file.take(list, "layers")))
        file.fill(layers)
        others = {role: file.build(role, file.description[role], classes) for role in roles}
        if len(layers) != len(own_layers):  # residuals of a custom class may hold what they like
            file.refuse(f"is a checkpoint of a model with {len(layers)} layers; this one has {len(own_layers)}")
        self._pairs = list(zip(own_layers, layers, strict=True))
        self._pairs += [(own, others[role]) for role, own in roles.items()]
        counts = "iterations" in descriptions.state_of(others["optimizer"])
        self.iterations = others["optimizer"].iterations if counts else None
        self._compare_shapes()

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error that says what is wrong with the file."""
        self._file.refuse(reason)

    def _compare(self, own: dict[str, Any]) -> None:
        """Refuse a checkpoint of other objects, or of such that were made with other arguments."""
        found = self._file.description
        n_layers = len(self._file.take(list, "layers"))
        if n_layers != len(own["layers"]):
            self.refuse(f"is a checkpoint of a model with {n_layers} layers; this one has {len(own['layers'])}")
        parts = [(f"layer {i}", *pair) for i, pair in enumerate(zip(found["layers"], own["layers"], strict=True))]
        parts += [(role, found[role], own[role]) for role in ("loss", "optimizer", "accuracy")]
        for name, theirs, ours in parts:
            if _made_like(theirs) != _made_like(ours):
                if name == "optimizer" and self._began is not None and self._began_like(theirs) == _made_like(ours):
                    continue
                self.refuse(
                    f"is a checkpoint of another model: its {name} is {_told(theirs, ours)}, here {_told(ours, theirs)}"
                )
        if found["trainable"] != own["trainable"]:
            self.refuse("is a checkpoint of a model with other trainable layers")

    def _began_like(self, optimizer: Any) -> Any:
        """Return what describes how an optimizer was made, with the rate that it had when the run began."""
        config = optimizer.get("config") if isinstance(optimizer, dict) else None
        if not isinstance(config, dict) or "learning_rate" not in config:
            return None
        return _made_like({**optimizer, "config": {**config, "learning_rate": self._began}})

    def _compare_shapes(self) -> None:
        """Refuse parameters of other shapes than the model's, which custom layers do not tell of."""
        for number, (own, found) in enumerate(self._pairs):
            for name in PARAMETER_ARRAYS:
                shapes = [np.shape(getattr(each, name, ())) for each in (own, found)]
                if shapes[0] != shapes[1]:
                    self.refuse(f"is a checkpoint of another model: its layer {number} has {name} of {shapes[1]}")

    def restore(self) -> None:
        """Give the model all parameters, state and counts."""
        for own, found in self._pairs:
            for name in _names_of(own):
                if hasattr(found, name):
                    setattr(own, name, getattr(found, name))
                elif name in vars(own):
                    delattr(own, name)
            if self._began is not None and hasattr(found, "learning_rate"):
                own.learning_rate = found.learning_rate  # before its state, the rate in use
            for name in descriptions.state_of(own):
                setattr(own, name, getattr(found, name))


def _made_like(described: Any) -> Any:
    """Return what the description of an object says about its class and its constructor's arguments, as in a file."""
    if not isinstance(described, dict):
        return None
    name, custom, config = (described.get(key) for key in ("class", "custom", "config"))
    if _is_residual(described):
        return [name, custom, {"layers": [_made_like(each) for each in described["config"]["layers"]]}]
    if isinstance(name, str) and not custom and isinstance(config, dict):
        config = descriptions.completed(name, config)
    return json.loads(json.dumps([name, custom, config], default=safetensors.plain_number))


def _is_residual(described: Any) -> bool:
    """Return whether something describes a built-in layer that holds layers."""
    if not isinstance(described, dict) or described.get("class") != Layer_Residual.__name__ or described.get("custom"):
        return False
    config = described.get("config")
    return isinstance(config, dict) and config.keys() == {"layers"} and isinstance(config["layers"], list)


def _count(described: list[Any]) -> int:
    """Return how many layers are described, those in residuals counted."""
    inside = (_count(each["config"]["layers"]) for each in described if _is_residual(each))
    return len(described) + sum(inside)


def _told(described: Any, other: Any) -> str:
    """Return an object's description as a call of its constructor; without what the other of its class has as well."""
    if _is_residual(described):
        return f"{Layer_Residual.__name__}([{', '.join(_told(each, None) for each in described['config']['layers'])}])"
    name, _, config = _made_like(described) or ("nothing", False, {})
    arguments = config if isinstance(config, dict) else {}
    other_name, _, others = _made_like(other) or ("nothing", False, {})
    if name == other_name and isinstance(others, dict):
        arguments = {key: value for key, value in arguments.items() if key not in others or value != others[key]}
    shown = (f"{key}={_told(value, None) if _is_described(value) else repr(value)}" for key, value in arguments.items())
    return f"{name}({', '.join(shown)})"


def _is_described(value: Any) -> bool:
    """Return whether an argument is the description of an object, as a schedule is."""
    return isinstance(value, dict) and value.keys() == {"class", "config"}


def load_parameters(model: Network, path: Path) -> None:
    """Set a model's parameters from what `save_parameters` or `save_model` wrote: to averages where there are any."""
    file = opened("Model.load_parameters", check.path("Model.load_parameters", "path", path))
    if file.kind == ESTIMATOR:
        file.refuse(f"{READERS[ESTIMATOR]}, and use its model_")
    if file.kind == ENSEMBLE:
        file.refuse(f"{READERS[ENSEMBLE]}, and use one of its models")
    if file.kind == PREDICTOR:
        file.refuse(READERS[PREDICTOR])
    positions = file.trainable()
    groups = [[f"layers.{number}.{name}" for name in PARAMETER_ARRAYS] for number in positions]
    known = {f"layers.{number}.{name}" for number in positions for name in (*PARAMETER_ARRAYS, *STATISTICS)}
    if file.kind != PARAMETERS:
        n_layers = _count(file.take(list, "layers"))
        known |= {f"layers.{number}.{name}" for number in range(n_layers) for name in EVERY_ARRAY}
    arrays = dict(file.layer_arrays(known))
    for names in groups:
        for name, average in zip(names, AVERAGED, strict=True):
            averages = arrays.get(f"{name.rpartition('.')[0]}.{average}")
            if averages is not None:
                arrays[name] = averages
    values = [tuple(arrays[name] for name in names if name in arrays) for names in groups]
    try:
        figures = _figures_of(file.where, model, positions, arrays)
        model.set_parameters(values)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{file.where}: {file.path!r} does not fit this model. {error}") from error
    for layer, own in figures:
        vars(layer).update(own)


def _figures_of(
    where: str, model: Network, positions: list[int], arrays: Mapping[str, Array]
) -> list[tuple[Layer_BatchNorm, dict[str, Array]]]:
    """Return the running statistics that a file holds for layers of a model, checked."""
    found = []
    for number, layer in zip(positions, model.trainable_layers, strict=False):
        own = {name: arrays[f"layers.{number}.{name}"] for name in STATISTICS if f"layers.{number}.{name}" in arrays}
        if isinstance(layer, Layer_BatchNorm):
            if len(own) < len(STATISTICS):
                raise ValueError(f"{where}: running statistics must be given for {layer!r}, got none.")
            tried = copy.copy(layer)
            vars(tried).update(own)
            _check_statistics(where, tried)
            found.append((layer, {name: getattr(tried, name) for name in STATISTICS}))
        elif own:
            raise ValueError(f"{where}: running statistics must belong to a Layer_BatchNorm, got some for {layer!r}.")
    return found


def opened(where: str, path: str) -> Part:
    """Return the whole of a file, which has the keys that its kind must have."""
    file = Part(where, path, *safetensors.read(where, path))
    file.check_keys()
    return file


class Part:
    """A description and arrays from a file, each checked when it is taken."""

    def __init__(self, where: str, path: str, description: dict[str, Any], arrays: dict[str, Array]) -> None:
        self.where, self.path = where, path
        self.description, self.arrays = description, arrays

    @property
    def kind(self) -> Any:
        """What it is of: one of the kinds in `KEYS`, after `check_keys`."""
        return self.description.get("format")

    def check_keys(self) -> None:
        """Refuse a description of no known kind or version, or without the keys of its kind."""
        kind, version = self.take(str, "format"), self.take(int, "version")
        if kind not in KEYS or version not in VERSIONS:
            read = " and ".join(map(str, VERSIONS))
            self.refuse(f"is of format {kind!r}, version {version}; this nnx reads versions {read}")
        if set(self.description) - OPTIONAL_KEYS.get(kind, set()) != KEYS[kind]:
            self.refuse(f"is damaged: its description has the keys {sorted(self.description)}")

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error that says what is wrong with the file."""
        files.refuse(self.where, self.path, reason)

    def take(self, kind: type, key: str) -> Any:
        """Return the description's value of ``key``, which must be of ``kind``."""
        value = self.description.get(key)
        if type(value) is not kind:
            self.refuse(f"is damaged: its description has no {key}")
        return value

    def beside(self, beginning: str) -> dict[str, Array]:
        """Return the arrays whose names begin so, by the rest of their names."""
        return {
            name.removeprefix(beginning): array for name, array in self.arrays.items() if name.startswith(beginning)
        }

    def trainable(self) -> list[int]:
        """Return the positions of the trainable layers, each once and each of a layer with weights."""
        positions: list[int] = self.take(list, "trainable")
        known = all(type(number) is int and f"layers.{number}.weights" in self.arrays for number in positions)
        if not known or len(set(positions)) != len(positions):
            self.refuse("is damaged: its list of trainable layers is not valid")
        return positions

    def build(self, role: str, described: Any, custom_objects: Mapping[str, type]) -> Any:
        """Return the layer, loss, optimizer or accuracy that is described, without arrays."""
        if not isinstance(described, dict) or set(described) != {"class", "custom", "config", "state"}:
            self.refuse(f"is damaged: a {role} is not described")
        name, custom, config, state = (described[key] for key in ("class", "custom", "config", "state"))
        if not isinstance(name, str) or not isinstance(config, dict) or not isinstance(state, dict):
            self.refuse(f"is damaged: a {role} is not described")
        if custom:
            if name not in custom_objects:
                self.refuse(
                    f"holds a {role} of the custom class {name!r}. Pass custom_objects={{{name!r}: ...}} with that "
                    f"class"
                )
            try:
                thing = custom_objects[name](**config)
                check.role(self.where, role, thing)
            except (TypeError, ValueError) as error:
                raise ModelFileError(f"{self.where}: {self.path!r} gives no {name}. {error}") from error
        else:
            thing = self._builtin(role, name, config, custom_objects)
        checks = descriptions.state_of(thing)
        if set(state) != set(checks):
            self.refuse(f"is damaged: {sorted(state)} is no state of {name}")
        for key, value in state.items():
            try:
                checks[key](self.where, key, value)
            except (TypeError, ValueError) as error:
                self.refuse(f"is damaged ({error})")
            setattr(thing, key, value)
        return thing

    def _builtin(self, role: str, name: str, config: dict[str, Any], custom_objects: Mapping[str, type]) -> Any:
        kind = next((each for each in kinds_of(role) if each.__name__ == name), None)
        if kind is None:
            self.refuse(f"names {name!r}, which is no {role} of nnx")
        config = descriptions.completed(name, config)
        if set(config) != set(kind._arguments):
            self.refuse(f"is damaged: {name} cannot be made from {sorted(config)}")
        if kind is Layer_Residual:
            inner = config["layers"]
            if type(inner) is not list:
                self.refuse("is damaged: the layers of a Layer_Residual are not a list")
            config = {"layers": [self.build("layer", each, custom_objects) for each in inner]}
        try:
            return descriptions.make(kind, config)
        except (TypeError, ValueError) as error:
            self.refuse(f"is damaged ({error})")

    def check_purposes(self, beside: tuple[str, ...] = ()) -> None:
        """Refuse one array for two purposes: layers may share weights, but nothing is weights and momentums at once."""
        first: dict[int, str] = {}
        for name, array in self.arrays.items():
            if name.startswith(beside):
                continue
            original = first.setdefault(id(array), name)
            if original.rpartition(".")[2] != name.rpartition(".")[2]:
                self.refuse(f"is damaged: {name!r} cannot be the same array as {original!r}")

    def layer_arrays(self, known: Container[str]) -> Iterator[tuple[str, Array]]:
        """Yield the layers' arrays by name; refuse names that are not known, and one array for two purposes."""
        beside = (*(f"{key}." for key in PREPROCESSORS if key in self.description),)
        if self.kind == CHECKPOINT:
            beside += (RUN_ARRAYS,)
        self.check_purposes(beside)
        for full_name, array in self.arrays.items():
            if full_name.startswith(beside):
                continue
            if full_name not in known:
                self.refuse(f"is damaged: it holds {full_name!r}, which belongs to no layer")
            yield full_name, array

    def fill(self, layers: list[Any]) -> None:
        """Give layers, as `walk` yields them, their arrays: all parameters, of the right shapes; state shaped so."""
        known = {
            f"layers.{number}.{name}": (layer, name) for number, layer in enumerate(layers) for name in _names_of(layer)
        }
        for full_name, array in self.layer_arrays(known):
            layer, name = known[full_name]
            if type(layer) in BUILT_IN["layer"] and name not in _arrays_of(type(layer)):
                self.refuse(f"is damaged: it holds {full_name!r}, but {layer!r} has no {name}")
            setattr(layer, name, array)
        for layer in layers:
            if type(layer) in WITH_PARAMETERS:
                try:
                    layer.get_parameters()
                    if type(layer) is Layer_BatchNorm:
                        _check_statistics(self.where, layer)
                except (RuntimeError, TypeError, ValueError) as error:
                    self.refuse(f"is damaged ({error})")
            try:
                _check_shapes(self.where, layer)
            except ValueError as error:
                self.refuse(f"is damaged ({error})")
