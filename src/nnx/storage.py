"""Model and parameter files: safetensors, with one JSON text in the metadata that describes the model.

The format is laid down in docs/model-files.md. Reading executes nothing: classes come from a closed set, or from what
the caller hands over.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from nnx import _check, _random
from nnx._typing import Array, Path
from nnx.accuracy import Accuracy_Categorical, Accuracy_Regression
from nnx.activations import Activation_Linear, Activation_ReLU, Activation_Sigmoid, Activation_Softmax
from nnx.errors import ModelFileError
from nnx.layers import Layer_Dense, Layer_Dropout
from nnx.losses import (
    Loss_BinaryCrossentropy,
    Loss_CategoricalCrossentropy,
    Loss_MeanAbsoluteError,
    Loss_MeanSquaredError,
)
from nnx.optimizers import Optimizer_Adagrad, Optimizer_Adam, Optimizer_RMSprop, Optimizer_SGD

if TYPE_CHECKING:
    from nnx.model import Model

AnyModel = TypeVar("AnyModel", bound="Model")

VERSION = 1
MODEL, PARAMETERS = "nnx model", "nnx parameters"

#: The keys of each kind of description.
KEYS = {
    MODEL: {"format", "version", "model", "layers", "trainable", "loss", "optimizer", "accuracy", "shared"},
    PARAMETERS: {"format", "version", "trainable", "shared"},
}

#: What a file may name, by role.
BUILTIN: dict[str, tuple[type, ...]] = {
    "layer": (
        Layer_Dense,
        Layer_Dropout,
        Activation_ReLU,
        Activation_Softmax,
        Activation_Sigmoid,
        Activation_Linear,
    ),
    "loss": (
        Loss_CategoricalCrossentropy,
        Loss_BinaryCrossentropy,
        Loss_MeanSquaredError,
        Loss_MeanAbsoluteError,
    ),
    "optimizer": (Optimizer_SGD, Optimizer_Adagrad, Optimizer_RMSprop, Optimizer_Adam),
    "accuracy": (Accuracy_Categorical, Accuracy_Regression),
}


def _count(where: str, name: str, value: Any) -> None:
    _check.whole(where, name, value, 0, _check.MAX_COUNT)


def _seed(where: str, name: str, value: Any) -> None:
    if value is not None:
        _check.whole(where, name, value, 0, _random.MAX_SEED)


def _keep(where: str, name: str, value: Any) -> None:
    _check.number(where, name, value, math.ulp(0.0), 1)


def _size(where: str, name: str, value: Any) -> None:
    if value is not None:
        _check.number(where, name, value, 0)


#: Numbers beside the configuration that training goes on from, by class, and the check of each.
STATE: dict[type, dict[str, Callable[[str, str, Any], None]]] = {
    Layer_Dropout: {"rate": _keep, "seed": _seed, "training_forwards": _count},
    Accuracy_Regression: {"precision": _size},
    **{kind: {"iterations": _count, "current_learning_rate": _size} for kind in BUILTIN["optimizer"]},
}

#: A layer's arrays: parameters, and what optimizers keep about them.
PARAMETER_ARRAYS = ("weights", "biases")
ARRAYS = (*PARAMETER_ARRAYS, "weight_momentums", "bias_momentums", "weight_cache", "bias_cache")

#: The dtypes of arrays, by the format's names and by NumPy's.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BOOL": "bool"} | {
    f"{letter}{bits}": f"{word}{bits}" for letter, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
}

#: The format's own limit for the JSON header.
MAX_HEADER = 100_000_000


# Writing


def save_model(model: Model, path: Path) -> None:
    """Write everything that predicting and going on with the training need."""
    where = "Model.save"
    description: dict[str, Any] = {
        "format": MODEL,
        "version": VERSION,
        "model": type(model).__name__,
        "layers": [_describe(where, "layer", layer) for layer in model.layers],
        "trainable": _positions(where, model),
    }
    for role in ("loss", "optimizer", "accuracy"):
        thing = getattr(model, role)
        description[role] = None if thing is None else _describe(where, role, thing)
    arrays = [_arrays(where, number, layer, ARRAYS) for number, layer in enumerate(model.layers)]
    _write(where, path, description, arrays)


def save_parameters(model: Model, path: Path) -> None:
    """Write weights and biases of the trainable layers."""
    where = "Model.save_parameters"
    positions = _positions(where, model)
    arrays = [_arrays(where, number, model.layers[number], PARAMETER_ARRAYS) for number in positions]
    _write(where, path, {"format": PARAMETERS, "version": VERSION, "trainable": positions}, arrays)


def _arrays(where: str, number: int, layer: Any, names: tuple[str, ...]) -> dict[str, Array]:
    """Return a layer's arrays under their names in the file."""
    if isinstance(layer, Layer_Dense):
        layer.get_parameters()
    found = {name: getattr(layer, name, None) for name in names}
    arrays = {name: array for name, array in found.items() if isinstance(array, np.ndarray)}
    for name, array in arrays.items():
        if array.dtype.newbyteorder("=").name not in DTYPES.values():
            raise TypeError(f"{where}: {name} of layer {number} must be an array of real numbers, got {array.dtype}.")
    return {f"layers.{number}.{name}": array for name, array in arrays.items()}


def _positions(where: str, model: Model) -> list[int]:
    """Return where in ``layers`` each of the trainable layers is."""
    place = {id(layer): number for number, layer in enumerate(model.layers)}
    strangers = [layer for layer in model.trainable_layers if id(layer) not in place]
    if strangers:
        raise ValueError(f"{where}: trainable_layers must be among the model's layers, got {strangers[0]!r}.")
    return [place[id(layer)] for layer in model.trainable_layers]


def _describe(where: str, role: str, thing: Any) -> dict[str, Any]:
    """Return class, configuration and state of a layer, loss, optimizer or accuracy, such as `load_model` accepts."""
    kind = type(thing)
    custom = kind not in BUILTIN[role]
    if custom:
        definer = next((each for each in kind.__mro__ if "get_config" in vars(each)), None)
        if definer is None or definer.__module__.startswith("nnx."):
            raise TypeError(
                f"{where}: {role} must be built in or have a get_config() of its own that returns its constructor's "
                f"arguments, got {kind.__name__}. Without one, save_parameters() still works."
            )
    config = thing.get_config()
    if not custom:
        _make(kind, config)
    state = {name: getattr(thing, name) for name in _state_of(thing)}
    for name, value in state.items():
        _state_of(thing)[name](where, name, value)
    return {"class": kind.__name__, "custom": custom, "config": config, "state": state}


def _make(kind: type, config: dict[str, Any]) -> Any:
    """Return an object of a built-in class, checked by its own constructor; a dense layer without parameters.

    A dense layer's constructor would draw random weights, and allocate whatever size a file claims.
    """
    thing: Any = object.__new__(kind)
    (thing._configure if kind is Layer_Dense else thing.__init__)(**config)
    return thing


def _state_of(thing: Any) -> dict[str, Callable[[str, str, Any], None]]:
    """Return the names and checks of what an object of a built-in class, or of a class derived from one, has learnt."""
    return next((state for kind, state in STATE.items() if isinstance(thing, kind)), {})


def _write(where: str, path: Path, description: dict[str, Any], by_layer: list[dict[str, Array]]) -> None:
    """Write a file whole or not at all; an array that stands in two places is written once."""
    from safetensors.numpy import save

    arrays = {name: array for layer in by_layer for name, array in layer.items()}
    first: dict[int, str] = {}
    description["shared"] = {
        name: first[id(array)] for name, array in arrays.items() if first.setdefault(id(array), name) != name
    }
    try:
        text = json.dumps(description, allow_nan=False, default=_plain_number)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{where}: get_config() must return finite numbers and text only, got this: {error}.") from None
    tensors = {name: np.ascontiguousarray(a) for name, a in arrays.items() if name not in description["shared"]}
    _replace(where, path, save(tensors, metadata={"nnx": text}))


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r}")


def _replace(where: str, path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` atomically: a reader finds the old file or the whole new one, even after a crash."""
    given = os.fspath(path)
    target = os.path.realpath(given)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{where}: path must be in an existing folder, got {given!r}.")
    if not os.path.basename(given) or (os.path.exists(target) and not os.path.isfile(target)):
        raise IsADirectoryError(f"{where}: path must name a file, got {given!r}.")
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Reading


def load_model(kind: type[AnyModel], path: Path, custom_objects: Mapping[str, type]) -> AnyModel:
    """Return the model that `save_model` wrote, an object of the class ``kind``."""
    file = _File("Model.load", path)
    if file.kind != MODEL:
        file.refuse("holds parameters alone. Build the model and call model.load_parameters(path)")
    if file.take(str, "model") != kind.__name__:
        file.refuse(f"holds a {file.description['model']}. Call {file.description['model']}.load(path)")
    layers = [file.build("layer", each, custom_objects) for each in file.take(list, "layers")]
    file.fill(layers)
    model = kind()
    model.layers = layers
    for role in ("loss", "optimizer", "accuracy"):
        each = file.description[role]
        setattr(model, role, None if each is None else file.build(role, each, custom_objects))
    try:
        model.finalize()
    except ValueError as error:
        file.refuse(f"describes no possible model ({error})")
    model.trainable_layers = [layers[number] for number in file.trainable()]
    model._connect_loss()
    return model


def load_parameters(model: Model, path: Path) -> None:
    """Set a model's parameters from what `save_parameters` or `save_model` wrote."""
    file = _File("Model.load_parameters", path)
    groups = []
    for number in file.trainable():
        names = [f"layers.{number}.{name}" for name in PARAMETER_ARRAYS]
        groups.append(tuple(file.arrays[name] for name in names if name in file.arrays))
    try:
        model.set_parameters(groups)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{file.where}: {file.path!r} does not fit this model. {error}") from error


class _File:
    """A file's description and arrays, each part checked when it is taken."""

    def __init__(self, where: str, path: Path) -> None:
        self.where = where
        self.path = os.fspath(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            self._check_start(start, size)
            content = start + file.read()
        self.description = self._parse(content)
        self.kind = self.take(str, "format")
        version = self.take(int, "version")
        if self.kind not in KEYS or version != VERSION:
            self.refuse(f"is of format {self.kind!r}, version {version}; this nnx reads version {VERSION}")
        if set(self.description) != KEYS[self.kind]:
            self.refuse(f"is damaged: its description has the keys {sorted(self.description)}")
        self.arrays = self._tensors(content)

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error that says what is wrong with the file."""
        raise ModelFileError(f"{self.where}: {self.path!r} {reason}.")

    def _check_start(self, start: bytes, size: int) -> None:
        if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            self.refuse(
                "is a pickle, and opening a pickle runs code, so nnx does not. To move the parameters over, load the "
                "file once where it was written and call numpy.savez('parameters.npz', *[array for pair in parameters "
                "for array in pair]), with parameters = model.get_parameters() for a model; then, with nnx, arrays = "
                "list(numpy.load('parameters.npz').values()) and model.set_parameters(list(zip(arrays[::2], "
                "arrays[1::2])))"
            )
        if len(start) < 8 or not 2 <= int.from_bytes(start, "little") <= min(size - 8, MAX_HEADER):
            self.refuse("is no safetensors file, or is cut off")

    def _parse(self, content: bytes) -> dict[str, Any]:
        """Return the description from the header's metadata."""
        end = 8 + int.from_bytes(content[:8], "little")
        try:
            header = json.loads(content[8:end], parse_constant=_no_constant)
            text = header["__metadata__"]["nnx"]
            dtypes = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
        except (KeyError, TypeError):
            self.refuse("is a safetensors file, but none that nnx wrote")
        except (ValueError, RecursionError):
            self.refuse("is no safetensors file, or is damaged")
        try:
            description = json.loads(text, parse_constant=_no_constant)
        except (TypeError, ValueError, RecursionError):
            self.refuse("is damaged: its description cannot be read")
        if not isinstance(description, dict):
            self.refuse("is damaged: its description is none")
        if not dtypes <= set(DTYPES):
            self.refuse(f"is damaged: it holds arrays of {sorted(dtypes - set(DTYPES))[0]}")
        return description

    def _tensors(self, content: bytes) -> dict[str, Array]:
        """Return the arrays, each a writable copy but for those that share one."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = {name: np.array(value) for name, value in load(content).items()}
        except SafetensorError as error:
            self.refuse(f"is damaged ({error})")
        for name, original in self.take(dict, "shared").items():
            if name in arrays or not isinstance(original, str) or original not in arrays:
                self.refuse(f"is damaged: {name!r} cannot share {original!r}")
            arrays[name] = arrays[original]
        return arrays

    def take(self, kind: type, key: str) -> Any:
        """Return the description's value of ``key``, which must be of ``kind``."""
        value = self.description.get(key)
        if type(value) is not kind:
            self.refuse(f"is damaged: its description has no {key}")
        return value

    def trainable(self) -> list[int]:
        """Return the positions of the trainable layers, each once and each of a layer with weights."""
        positions: list[int] = self.take(list, "trainable")
        known = all(type(number) is int and f"layers.{number}.weights" in self.arrays for number in positions)
        if not known or len(set(positions)) != len(positions):
            self.refuse("is damaged: its list of trainable layers is none")
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
                    f"holds a {role} of your own class {name!r}. Pass custom_objects={{{name!r}: ...}} with that class"
                )
            try:
                thing = custom_objects[name](**config)
                _check.role(self.where, role, thing)
            except (TypeError, ValueError) as error:
                raise ModelFileError(f"{self.where}: {self.path!r} gives no {name}. {error}") from error
        else:
            thing = self._builtin(role, name, config)
        checks = _state_of(thing)
        if set(state) != set(checks):
            self.refuse(f"is damaged: {sorted(state)} is no state of {name}")
        for key, value in state.items():
            try:
                checks[key](self.where, key, value)
            except (TypeError, ValueError) as error:
                self.refuse(f"is damaged ({error})")
            setattr(thing, key, value)
        return thing

    def _builtin(self, role: str, name: str, config: dict[str, Any]) -> Any:
        kind = next((each for each in BUILTIN[role] if each.__name__ == name), None)
        if kind is None:
            self.refuse(f"names {name!r}, which is no {role} of nnx")
        if set(config) != set(kind._arguments):  # type: ignore[attr-defined]
            self.refuse(f"is damaged: {name} cannot be made from {sorted(config)}")
        try:
            return _make(kind, config)
        except (TypeError, ValueError) as error:
            self.refuse(f"is damaged ({error})")

    def fill(self, layers: list[Any]) -> None:
        """Give the layers their arrays: dense ones both parameters, of the right shapes; state shaped like those."""
        known = {f"layers.{number}.{name}": (layer, name) for number, layer in enumerate(layers) for name in ARRAYS}
        for full_name, array in self.arrays.items():
            if full_name not in known:
                self.refuse(f"is damaged: it holds {full_name!r}, which belongs to no layer")
            layer, name = known[full_name]
            if type(layer) in BUILTIN["layer"] and type(layer) is not Layer_Dense:
                self.refuse(f"is damaged: it holds {full_name!r}, but {layer!r} has no arrays")
            setattr(layer, name, array)
        for number, layer in enumerate(layers):
            if type(layer) is Layer_Dense:
                try:
                    layer.get_parameters()
                except (RuntimeError, TypeError, ValueError) as error:
                    self.refuse(f"is damaged ({error})")
            for parameter, prefix in (("weights", "weight"), ("biases", "bias")):
                for name in (f"{prefix}_momentums", f"{prefix}_cache"):
                    state = getattr(layer, name, None)
                    if isinstance(state, np.ndarray) and state.shape != np.shape(getattr(layer, parameter, ())):
                        self.refuse(f"is damaged: layers.{number}.{name} is not shaped like the {parameter}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number")
