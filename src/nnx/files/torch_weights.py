"""PyTorch's state dicts and nnx's layers: which names and shapes belong to which layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from nnx._base import check
from nnx._base.text import abridged, natural_key
from nnx._base.typing import Array, FloatDType
from nnx._base.vocabulary import by_name
from nnx.activations import Activation_PReLU, ActivationBase
from nnx.files import foreign_layers
from nnx.layers import (
    Layer_BatchNorm,
    Layer_Dense,
    Layer_Dropout,
    Layer_Embedding,
    Layer_GaussianNoise,
    Layer_Input,
    Layer_LayerNorm,
    Layer_Residual,
)

#: PyTorch's name for the number of batches that a batch norm has seen; nnx does not count them.
COUNTER = "num_batches_tracked"
#: The kinds of modules by the parameters that they have; with the number of dimensions of the first.
KINDS = {
    frozenset({"weight", "bias"}): {2: "dense", 1: "layer_norm"},
    frozenset({"weight"}): {2: "dense", 1: "prelu"},
    frozenset({"weight", "bias", "running_mean", "running_var"}): {1: "batch_norm"},
    frozenset({"running_mean", "running_var"}): {1: "batch_norm"},
}


USUAL = {"weight", "bias", "running_mean", "running_var", COUNTER}
#: Modules within modules, at most.
MAX_DEPTH = 20


class Module(NamedTuple):
    """A part of PyTorch's model: a module with parameters, a residual with parts inside, or a place without any."""

    name: str
    kind: str
    arrays: dict[str, Array]
    inside: tuple[Module, ...] = ()


# From a state dict


def layers_of(
    where: str,
    state: Mapping[str, Any],
    activations: Any,
    embeddings: Mapping[str, int],
    residuals: Sequence[str],
    epsilon: float,
    ordered: bool,
) -> list[Any]:
    """Return the layers that have the arrays of a state dict.

    ``ordered`` says that names stand in the order of the modules. Names that are numbers have an order of their own.
    """
    arrays = _checked(where, state)
    unknown = [name for name in (*embeddings, *residuals) if not any(key.startswith(f"{name}.") for key in arrays)]
    if unknown:
        raise ValueError(f"{where}: state must have keys that begin with {unknown[0]!r}, got {_listed(arrays)}.")
    modules = _modules(where, arrays, "", residuals, embeddings, ordered)
    try:
        slots = _Slots(where, modules, activations)
    except ValueError:
        _made(where, arrays, embeddings, epsilon, modules, None)  # a key that does not fit is said first
        raise
    return _made(where, arrays, embeddings, epsilon, modules, slots) + slots.last()


def _made(
    where: str,
    arrays: Mapping[str, Array],
    embeddings: Mapping[str, int],
    epsilon: float,
    modules: Sequence[Module],
    slots: _Slots | None,
) -> list[Any]:
    """Return the layers of modules."""
    maker = _Maker(where, arrays, embeddings, epsilon)
    return maker.first(modules) + maker.layers(modules, slots)


def _checked(where: str, state: Mapping[str, Any]) -> dict[str, Array]:
    """Return a state dict's arrays; refuse what is none."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{where}: state must be a dict of arrays or the path of a file, got {abridged(state)}.")
    found = {}
    for key, value in state.items():
        if not isinstance(key, str):
            raise TypeError(f"{where}: state must have texts as keys, got {abridged(key)}.")
        if key.count(".") > MAX_DEPTH:
            raise ValueError(f"{where}: state must have modules at most {MAX_DEPTH} deep, got {abridged(key)}.")
        if hasattr(value, "detach"):  # a tensor
            value = value.detach().cpu()
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
            value = value.numpy()
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{where}: state[{key!r}] must be an array or a tensor, got {abridged(value)}.")
        if value.dtype.kind != "f" and key.rpartition(".")[2] != COUNTER:
            raise TypeError(f"{where}: state[{key!r}] must hold floating-point numbers, got {value.dtype}.")
        found[key] = np.asarray(value)
    if not found:
        raise ValueError(f"{where}: state must hold parameters, got none.")
    return found


def _listed(arrays: Mapping[str, Array]) -> str:
    return ", ".join(map(repr, [*arrays][:5])) + (", ..." if len(arrays) > 5 else "")


def _modules(
    where: str,
    arrays: Mapping[str, Array],
    name: str,
    residuals: Sequence[str],
    embedded: Collection[str],
    ordered: bool,
) -> list[Module]:
    """Return the parts within a module, in their order; of numbered ones, places without parameters too."""
    prefix = f"{name}." if name else ""
    children: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        first, _, rest = key.removeprefix(prefix).partition(".")
        if not rest:
            _misfit(where, key, array, "must belong to a module, such as '0.weight'")
        children.setdefault(first, {})[key] = array
    numbered = all(_is_place(child) for child in children)
    if numbered or not ordered:
        children = {child: children[child] for child in sorted(children, key=int if numbered else natural_key)}
    found: list[Module] = []
    place = 0
    for child, own in children.items():
        if numbered:
            if int(child) > place and (found or name in residuals):
                found.append(Module(f"{prefix}{place}", "gap", {}))
            place = int(child) + 1
        found += _module(where, f"{prefix}{child}", own, residuals, embedded, ordered)
    return found


def _is_place(name: str) -> bool:
    return name.isdecimal() and len(name) < 10


def _module(
    where: str,
    name: str,
    arrays: Mapping[str, Array],
    residuals: Sequence[str],
    embedded: Collection[str],
    ordered: bool,
) -> list[Module]:
    """Return a module with parameters of its own, or what is within one that has none."""
    if name in embedded:
        return []
    own = {key.removeprefix(f"{name}."): array for key, array in arrays.items()}
    if all("." in each for each in own):
        inside = _modules(where, arrays, name, residuals, embedded, ordered)
        return [Module(name, "residual", {}, tuple(inside))] if name in residuals else inside
    if frozenset(own) - {COUNTER} not in KINDS:
        odd = next((each for each in own if each not in USUAL), next(iter(own)))
        _misfit(where, f"{name}.{odd}", own[odd], "must belong to a Linear, BatchNorm1d, LayerNorm, PReLU or Embedding")
    own.pop(COUNTER, None)
    known = KINDS[frozenset(own)]
    first = "weight" if "weight" in own else "running_mean"
    kind = known.get(own[first].ndim)
    if kind is None:
        _misfit(where, f"{name}.{first}", own[first], f"must have {' or '.join(map(str, known))} dimensions")
    return [Module(name, kind, own)]


def _misfit(where: str, key: str, array: Array, must: str) -> NoReturn:
    raise ValueError(f"{where}: state[{key!r}] {must}, got an array of shape {array.shape}.")


class _Maker:
    """Makes layers of modules, and refuses the first key that does not fit what is before it."""

    def __init__(self, where: str, arrays: Mapping[str, Array], embeddings: Mapping[str, int], epsilon: float) -> None:
        self.where, self.arrays, self.embeddings, self.epsilon = where, arrays, embeddings, epsilon
        is_double = any(array.dtype.itemsize == 8 for array in arrays.values() if array.dtype.kind == "f")
        self.dtype: FloatDType = np.dtype(np.float64 if is_double else np.float32)
        self.width: int | None = None

    def layers(self, modules: Sequence[Module], slots: _Slots | None) -> list[Any]:
        """Return the layers of modules, with the activations that belong between them."""
        found: list[Any] = []
        for module in modules:
            if module.kind == "residual":
                width = self.width
                inside = self.layers(module.inside, slots)
                if width not in (None, self.width):
                    raise ValueError(
                        f"{self.where}: the residual {module.name!r} must give as many columns as it takes, {width}, "
                        f"got {self.width}."
                    )
                found.append(Layer_Residual(inside))
            elif module.kind != "gap":
                found.append(getattr(self, f"_{module.kind}")(module))
            found += [] if slots is None else slots.behind(module)
        return found

    def first(self, modules: Sequence[Module]) -> list[Any]:
        """Return the layers of columns that hold categories."""
        if not self.embeddings:
            return []
        where = self.where
        columns = {name: check.whole(where, f"embeddings[{name!r}]", at, 0) for name, at in self.embeddings.items()}
        if len(set(columns.values())) < len(columns):
            raise ValueError(f"{where}: embeddings must name different columns, got {dict(self.embeddings)}.")
        tables = {}
        for name in columns:
            keys = [key for key in self.arrays if key.startswith(f"{name}.")]
            for key in keys:
                if key != f"{name}.weight" or self.arrays[key].ndim != 2 or 0 in self.arrays[key].shape:
                    _misfit(where, key, self.arrays[key], "must be the matrix of an Embedding")
            tables[name] = self.arrays[keys[0]]
        n_inputs = self._n_inputs(tables, modules)
        layers, gone = [], list[int]()
        order = [*columns]
        together = len({table.shape[1] for table in tables.values()}) == 1 and order == sorted(
            order, key=columns.__getitem__
        )
        for names in [order] if together else [[name] for name in order]:
            places = [columns[name] - sum(other < columns[name] for other in gone) for name in names]
            layer = foreign_layers.embedding(n_inputs, places, [tables[name] for name in names], self.dtype)
            layers.append(layer)
            gone += [columns[name] for name in names]
            n_inputs += sum(tables[name].shape[1] - 1 for name in names)
        self.width = n_inputs
        return layers

    def _n_inputs(self, tables: Mapping[str, Array], modules: Sequence[Module]) -> int:
        """Return how many columns the network's inputs have: the first module behind the embeddings tells."""
        given = sum(table.shape[1] for table in tables.values())
        takers = [each for each in _in_turn(modules) if each.arrays and next(iter(each.arrays.values())).size > 1]
        taken = _taken(takers[0]) if takers else given
        found: int = taken - given + len(tables)
        if found <= max(self.embeddings.values()):
            raise ValueError(
                f"{self.where}: embeddings must name columns that exist: after them come {taken} numbers, which "
                f"leaves {max(0, found)} columns, got {dict(self.embeddings)}."
            )
        return found

    def _dense(self, module: Module) -> Any:
        weight = module.arrays["weight"]
        self._must_have(module, "weight", weight.shape[1])
        bias = module.arrays.get("bias", np.zeros(weight.shape[0], weight.dtype))
        if weight.shape[0] == 0:
            _misfit(self.where, f"{module.name}.weight", weight, "must have at least one row")
        self.width = weight.shape[0]
        if bias.shape != (self.width,):
            _misfit(self.where, f"{module.name}.bias", bias, f"must have shape ({self.width},)")
        return foreign_layers.dense(weight.T, bias, self.dtype)

    def _batch_norm(self, module: Module) -> Any:
        mean, variance = module.arrays["running_mean"], module.arrays["running_var"]
        ones, zeros = np.ones(mean.shape, mean.dtype), np.zeros(mean.shape, mean.dtype)
        weight, bias = module.arrays.get("weight", ones), module.arrays.get("bias", zeros)
        for name in module.arrays:
            self._must_be_row(module, name, mean.size)
        return foreign_layers.batch_norm(weight, bias, mean, variance, self.epsilon, 0.9, self.dtype)

    def _layer_norm(self, module: Module) -> Any:
        weight, bias = module.arrays["weight"], module.arrays["bias"]
        for name in module.arrays:
            self._must_be_row(module, name, weight.size)
        return foreign_layers.layer_norm(weight, bias, self.epsilon, self.dtype)

    def _prelu(self, module: Module) -> Any:
        slopes = module.arrays["weight"]
        if slopes.size != 1:
            self._must_be_row(module, "weight", slopes.size)
        layer = Activation_PReLU(max(1, slopes.size), dtype=self.dtype.name)
        layer.weights = np.array(slopes.reshape(1, -1), self.dtype)
        return layer

    def _must_be_row(self, module: Module, name: str, size: int) -> None:
        array = module.arrays[name]
        if array.shape != (size,) or size == 0:
            _misfit(self.where, f"{module.name}.{name}", array, f"must have shape ({size or 'n'},)")
        self._must_have(module, name, size)

    def _must_have(self, module: Module, name: str, width: int) -> None:
        if self.width not in (None, width) or width == 0:
            key = f"{module.name}.{name}"
            _misfit(self.where, key, module.arrays[name], f"must fit the {self.width} columns before it")
        self.width = width


class _Slots:
    """Where activations stand: at places without parameters among numbered modules, or behind each Linear."""

    def __init__(self, where: str, modules: Sequence[Module], activations: Any) -> None:
        places = _in_turn(modules)
        gaps = [module.name for module in places if module.kind == "gap"]
        if not gaps:
            gaps = _behind_dense(places)
        self._where, self._gaps = where, gaps
        self._chosen = self._assigned(activations)

    def _assigned(self, activations: Any) -> dict[str, Any]:
        """Return the layer for each place, and the one behind all of them under the name ""."""
        where, gaps = self._where, self._gaps
        if activations is None and gaps:
            raise ValueError(
                f"{where}: activations must be given, one for all or a list of {len(gaps)}: a state dict does not hold "
                "them. [None, ...] stands for none."
            )
        if activations is None or isinstance(activations, str) or not isinstance(activations, Sequence):
            return {gap: _activation(where, "activations", activations) for gap in gaps}
        if len(activations) not in (len(gaps), len(gaps) + 1):
            places = f": {', '.join(map(repr, gaps[:8]))}{', ...' if len(gaps) > 8 else ''}" if gaps else ""
            raise ValueError(
                f"{where}: activations must be {len(gaps)}, one for each place between the layers of state{places}, or "
                f"one more, which comes last, got {len(activations)}."
            )
        found = [_activation(where, f"activations[{i}]", each) for i, each in enumerate(activations)]
        return dict(zip([*gaps, ""], found, strict=False))

    def behind(self, module: Module) -> list[Any]:
        """Return the activation at a place, or behind a module, if there is one."""
        chosen = self._chosen.get(module.name)
        return [] if chosen is None else [copy.deepcopy(chosen)]

    def last(self) -> list[Any]:
        """Return the activation that comes last, if there is one."""
        chosen = self._chosen.get("")
        return [] if chosen is None else [copy.deepcopy(chosen)]


def _taken(module: Module) -> int:
    """Return how many columns a module takes."""
    array = module.arrays["weight"] if module.kind == "dense" else next(iter(module.arrays.values()))
    return int(array.shape[-1])


def _in_turn(modules: Sequence[Module]) -> list[Module]:
    """Return modules and those within them, in their order."""
    return [each for module in modules for each in (*_in_turn(module.inside), module)]


def _behind_dense(modules: Sequence[Module]) -> list[str]:
    """Return the modules that an activation follows: each Linear but the last, or the norm right behind it."""
    dense = [number for number, module in enumerate(modules) if module.kind == "dense"]
    found = []
    for number in dense[:-1]:
        follows = modules[number + 1].kind in ("batch_norm", "layer_norm")
        found.append(modules[number + 1 if follows else number].name)
    return found


def _activation(where: str, name: str, given: Any) -> Any:
    """Return the layer that is meant: an object as it is, a name, or None for nothing."""
    if given is None:
        return None
    if isinstance(given, str):
        known: dict[str, Callable[[], Any]] = by_name("layer", "Activation_")
        return known[check.one_of(where, name, given.lower(), tuple(sorted(known)))]()
    if isinstance(given, type) or not all(callable(getattr(given, method, None)) for method in ("forward", "backward")):
        hint = f". Write {given.__name__}()" if isinstance(given, type) else ""
        raise TypeError(f"{where}: {name} must be a name, a layer or None, got {abridged(given)}{hint}.")
    return given


# To a state dict


def state_of(where: str, layers: Sequence[Any], name: str = "") -> dict[str, Array]:
    """Return the arrays of layers under the names that they have in an nn.Sequential with a module for each layer."""
    found: dict[str, Array] = {}
    for number, layer in enumerate(layers):
        own = f"{name}{number}."
        if type(layer) is Layer_Residual:
            found |= state_of(where, layer.layers, own)
        else:
            found |= {f"{own}{key}": np.array(array, order="C") for key, array in _arrays(where, layer).items()}
    return found


def _arrays(where: str, layer: Any) -> dict[str, Array]:
    """Return a layer's arrays under PyTorch's names, without copying them."""
    kind = type(layer)
    parameters: Any = layer._parameters_in_use(where) if hasattr(layer, "_parameters_in_use") else ()
    if kind is Layer_Dense:
        return {"weight": parameters[0].T, "bias": parameters[1][0]}
    if kind is Activation_PReLU:
        return {"weight": parameters[0][0]}
    if kind in (Layer_BatchNorm, Layer_LayerNorm):
        found = {"weight": parameters[0][0], "bias": parameters[1][0]}
        if kind is Layer_BatchNorm:
            mean, variance = layer._statistics(where, writing=False)
            found |= {"running_mean": mean[0], "running_var": variance[0], COUNTER: np.array(0, np.int64)}
        return found
    if kind is Layer_Embedding:
        _, columns, counts, _ = layer._sizes(where)
        tables = np.split(parameters[0], np.cumsum(counts)[:-1])
        return {f"{number}.weight" if len(columns) > 1 else "weight": table for number, table in enumerate(tables)}
    if isinstance(layer, ActivationBase) or kind in (Layer_Dropout, Layer_GaussianNoise, Layer_Input):
        return {}
    raise ValueError(f"{where}: layers must have a counterpart in torch.nn, got {layer!r}.")
