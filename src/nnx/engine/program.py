"""Programs: the operations of one step of a model, as data that can be printed. Not every model has one.

Only models of unchanged built-in classes have a program. Models with a subclass, a replaced method or a custom layer
run layer by layer (`layerwise.py`), which calls each object's methods. So nnx never bypasses a user's code.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from nnx._base import config
from nnx._base.network import Network
from nnx._base.typing import FloatDType
from nnx._base.vocabulary import BUILT_IN, is_built_in, kinds_of
from nnx._base.widths import widths_of
from nnx.accuracy import Accuracy_Categorical, Accuracy_Regression
from nnx.layers import (
    Layer_Combinations,
    Layer_Dense,
    Layer_Embedding,
    Layer_Input,
    Layer_Members,
    Layer_PiecewiseLinear,
    Layer_Residual,
    Layer_Thermometer,
    walk,
)
from nnx.losses import Activation_Softmax_Loss_CategoricalCrossentropy, Answers, answers
from nnx.norms import STATISTICS
from nnx.residual import check_members

#: The methods that a program replaces. If a user replaces one, or adds one, there is no program, and it is called.
MODEL_METHODS = ("forward", "backward")
LAYER_METHODS = ("forward", "backward", "predictions", "get_parameters")
LOSS_METHODS = (
    "forward",
    "backward",
    "calculate",
    "calculate_accumulated",
    "new_pass",
    "regularization_loss",
    "remember_trainable_layers",
)
OPTIMIZER_METHODS = ("pre_update_params", "update_params", "post_update_params")
ACCURACY_METHODS = ("init", "compare", "calculate", "calculate_accumulated", "new_pass")
#: The names of the parameters of stages with parameters, by kind.
PARAMETERS: dict[str, tuple[str, ...]] = {
    kind._kernel: kind._parameters for kind in BUILT_IN["layer"] if hasattr(kind, "_parameters")
}
#: The kinds of stages whose layers have a dtype: those with parameters, edges or factors.
WITH_DTYPE = {
    *PARAMETERS,
    *(kind._kernel for kind in (Layer_Combinations, Layer_PiecewiseLinear, Layer_Thermometer)),
}
#: The attributes in which random stages keep their random numbers, by kind.
RANDOM = {"dropout": "binary_mask", "gaussian_noise": "noise"}
#: The kinds of stages that multiply matrices.
PRODUCTS = ("dense", "member_dense")
CLASSIFIER = Activation_Softmax_Loss_CategoricalCrossentropy

#: The methods of the built-in classes when nnx is imported; None for a method that a class does not have.
METHODS: dict[tuple[type, str], Callable[..., Any] | None] = {
    (kind, name): getattr(kind, name, None)
    for kinds, names in (
        ((Layer_Input, *BUILT_IN["layer"]), LAYER_METHODS),
        (BUILT_IN["loss"], LOSS_METHODS),
        (kinds_of("optimizer"), OPTIMIZER_METHODS),
        (BUILT_IN["accuracy"], ACCURACY_METHODS),
        ((CLASSIFIER,), ("backward",)),
    )
    for kind in kinds
    for name in names
}


def stand_for(kind: type, names: tuple[str, ...]) -> None:
    """Register a class that is defined later: a program may replace its methods."""
    METHODS.update({(kind, name): getattr(kind, name) for name in names})
    _methods_by_kind.cache_clear()


class Obstacle(Exception):  # noqa: N818 - it is an answer, not an error
    """Why a model does not compile: one message."""


class Stage(NamedTuple):
    """A layer, in the order of the model. A residual has two, "fork" and "join", around the stages of its layers."""

    kind: str
    owner: Any
    n_in: int
    n_out: int


class Slot(NamedTuple):
    """An array: the object and the attribute, its shape for n rows, and its purpose."""

    name: str
    shape: tuple[int | str, ...]
    role: str


class Op(NamedTuple):
    """A kernel, and the slots that it reads and writes."""

    kernel: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


class Guards(NamedTuple):
    """What must be unchanged whenever a program is used (see `Plan.holds` of the compiled kernels)."""

    #: The model's class, and the names that its own attributes must not have. There is no reference to the model
    #: itself: it would keep the model, and the memory of its plans, from being freed.
    model: type
    names: tuple[str, ...]
    #: Attributes of the model, and their values.
    attributes: tuple[tuple[str, Any], ...]
    #: Lists of the model, and their elements.
    lists: tuple[tuple[str, tuple[Any, ...]], ...]
    #: Objects, their classes, and the names that their own attributes must not have.
    owners: tuple[Any, ...]
    kinds: tuple[type, ...]
    shadows: tuple[tuple[str, ...], ...]
    #: Methods of those classes, by name.
    methods: tuple[tuple[type, str, Callable[..., Any] | None], ...]


class Program:
    """The operations of one training step of a model. It holds no arrays.

    Attributes
    ----------
    stages : tuple of Stage
    dtype : dtype
    loss, optimizer, accuracy
        The model's, at the time.
    layers : tuple
        The model's.
    classifier : Activation_Softmax_Loss_CategoricalCrossentropy or None
        The model's ``softmax_classifier_output``.
    trained : tuple of bool
        For each stage, whether its parameters are updated.
    combined : bool
        Whether the loss's gradient is taken together with that of the last activation.
    guards : Guards
    """

    def __init__(self, model: Network) -> None:
        self.stages = stages(model)
        self.dtype = dtype_of(self.stages)
        self.loss, self.optimizer, self.accuracy = model.loss, model.optimizer, model.accuracy
        self.layers = tuple(model.layers)
        #: The owner of each stage.
        self.owners = tuple(stage.owner for stage in self.stages)
        self.trained = _trained(self.stages, tuple(model.trainable_layers))
        self.classifier = model.softmax_classifier_output
        self.combined = is_combined(self.stages, self.loss)
        if self.combined and self.stages[-1].kind == "softmax" and self.classifier is None:
            self.combined = False  # as on the book path; `finalize` makes one
        parts: list[tuple[Any, tuple[str, ...]]] = [(self.loss, LOSS_METHODS), (self.optimizer, OPTIMIZER_METHODS)]
        parts.append((self.accuracy, ACCURACY_METHODS))
        if self.classifier is not None:
            parts.append((self.classifier, ("backward",)))
        names = ("loss", "optimizer", "accuracy", "softmax_classifier_output")
        self.guards = guards(model, names, ("layers", "trainable_layers"), parts)
        #: For each stage, the number of rows of its output per sample.
        self.members = rows_of_a_sample(self.stages)
        #: The approximate number of operations for each sample of a batch.
        self.operations = sum(
            rows * (10 * s.n_out + (6 * s.n_in * s.n_out if s.kind in PRODUCTS else 0))
            for rows, s in zip(self.members, self.stages, strict=True)
        )
        splines = [s for s in self.stages if s.kind == "spline"]
        self.operations += 6 * sum((s.n_in + 2 * len(s.owner.columns)) * s.n_out for s in splines)

    def ops(self) -> Iterator[tuple[str, Op]]:
        """Yield each kernel of a step, after the name of its phase."""
        names = list(self.names())
        kinds = [stage.kind for stage in self.stages]
        made = [f"{name}.{'inputs' if kind == 'fork' else 'output'}" for name, kind in zip(names, kinds, strict=True)]
        taken = ["X", *made[:-1]]
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True)):
            reads = (taken[i], *[f"{name}.{parameter}" for parameter in PARAMETERS.get(kind, ())])
            if kind == "join":
                reads = (taken[i], f"{name}.inputs")
            drawn = [f"{name}.{RANDOM[kind]}"] if kind in RANDOM else []
            yield "forward", Op(f"{kind}_forward", reads, (made[i], *drawn))
        gradient = f"{names[-1]}.dinputs" if self.combined else "loss.dinputs"
        yield "loss", Op(self.loss._kernel, (made[-1], "y"), ("loss", "hits", gradient))
        lowest = self.trained.index(True) if True in self.trained else len(names)
        gradients = {len(names) - 1 - self.combined: gradient}  # of the output of each stage
        for i in range(len(names) - 1 - self.combined, lowest, -1):
            name, kind = names[i], kinds[i]
            reads = (gradients[i], f"{name}.weights") if kind in PARAMETERS else (gradients[i], made[i])
            if kind == "fork":
                reads = (gradients[i], f"{name}.dvalues")
            part = "_inputs" if kind in PARAMETERS else ""
            gradients[i - 1] = f"{name}.{'dvalues' if kind == 'join' else 'dinputs'}"
            yield "backward", Op(f"{kind}_backward{part}", reads, (gradients[i - 1],))
        rule = self.optimizer._rule()
        update = f"{rule.kernel}_update" if not is_built_in("minimizer", self.optimizer) else "lbfgs_collect"
        for i, kind in enumerate(kinds):
            parameters = zip(PARAMETERS[kind], rule.states, strict=False) if self.trained[i] else ()
            for parameter, state in parameters:
                own = tuple(f"{names[i]}.{attribute}" for attribute in (parameter, *state))
                reads = (taken[i], gradients[i]) if parameter == "weights" else (gradients[i],)
                yield "update", Op(f"{kind}_backward_{parameter}, {update}", (*reads, *own), own)

    def slots(self) -> list[Slot]:
        """Return every array of a step."""
        found = [Slot("X", ("n", self.stages[0].n_in), "input"), Slot("y", ("n", "..."), "target")]
        states = self.optimizer._rule().states
        for name, stage, trained, members in zip(self.names(), self.stages, self.trained, self.members, strict=True):
            rows = "n" if members == 1 else f"{members}n"
            for parameter, state in zip(PARAMETERS.get(stage.kind, ()), states, strict=False):
                shape: tuple[int, ...] = np.shape(getattr(stage.owner, parameter))
                found.append(Slot(f"{name}.{parameter}", shape, "parameter" if trained else "frozen parameter"))
                found += [Slot(f"{name}.{attribute}", shape, "state") for attribute in state if trained]
            if stage.kind == "batch_norm":
                found += [Slot(f"{name}.{figure}", (1, stage.n_out), "running figure") for figure in STATISTICS]
            kept = "inputs" if stage.kind == "fork" else "output"
            found.append(Slot(f"{name}.{kept}", (rows, stage.n_out), "activation"))
            if stage.kind in RANDOM:
                found.append(Slot(f"{name}.{RANDOM[stage.kind]}", (rows, stage.n_out), "mask"))
        return found

    def names(self) -> Iterator[str]:
        """Yield a name for each stage. Both stages of a residual have the same name."""
        return (name for name, _, _ in _in_turn(self.layers))

    def __str__(self) -> str:
        lines = [f"Program of {len(self.stages)} stages, {self.dtype}"]
        slots = [(slot.name, f"({', '.join(map(str, slot.shape))})", slot.role) for slot in self.slots()]
        wide = [max(len(row[i]) for row in slots) for i in range(2)]
        lines += ["slots", *[f"  {name:<{wide[0]}}  {shape:<{wide[1]}}  {role}" for name, shape, role in slots]]
        phase = ""
        for name, op in self.ops():
            if name != phase:
                lines.append(name + (self._limits() if name == "update" else ""))
                phase = name
            lines.append(f"  {op.kernel}: {', '.join(op.reads)} -> {', '.join(op.writes)}")
        return "\n".join(lines)

    def _limits(self) -> str:
        """Return text about the clipping of gradients. It comes before the update, when all gradients are known."""
        limits = {name: getattr(self.optimizer, name, None) for name in ("clip_norm", "clip_value")}
        return "".join(f", {name}={limit!r}" for name, limit in limits.items() if limit is not None)


def lower(model: Network) -> Program:
    """Return the program of a finalized model.

    Raises
    ------
    Obstacle
        If anything in it is not exactly built in.
    """
    if (type(model), "forward") not in METHODS:
        raise Obstacle(f"the model has a custom class, {type(model).__name__}")
    for what, thing in (("loss", model.loss), ("optimizer", model.optimizer), ("accuracy", model.accuracy)):
        if not is_built_in(what, thing):
            raise Obstacle(f"the {what}, {thing!r}, is not built in")
    if model.softmax_classifier_output is not None and type(model.softmax_classifier_output) is not CLASSIFIER:
        raise Obstacle(f"softmax_classifier_output, {model.softmax_classifier_output!r}, is not built in")
    program = Program(model)
    check(model, program.guards, program.layers)
    _check_apart(program)
    return program


def check(model: Any, guards: Guards, layers: tuple[Any, ...]) -> None:
    """Raise `Obstacle` if an object or a class has a method that is not the built-in one."""
    for name in guards.names:
        if name in vars(model):
            raise Obstacle(f"{type(model).__name__} has a custom method {name}")
    for owner, names in zip(guards.owners, guards.shadows, strict=True):
        for name in names:
            if name in vars(owner):
                raise Obstacle(f"{_whose(owner, layers)} has a custom method {name}")
    for kind, name, function in guards.methods:
        if getattr(kind, name, None) is not function:
            raise Obstacle(f"the class {kind.__name__} has another method {name} than at its definition")


def _check_apart(program: Program) -> None:
    """Raise `Obstacle` if two arrays that a step writes share memory."""
    states = program.optimizer._rule().states
    arrays = [
        (f"{place}.{name}", vars(stage.owner).get(name))
        for place, stage in zip(program.names(), program.stages, strict=True)
        for name in _written(stage.kind, states)
    ]
    _refuse_shared(arrays)


def _refuse_shared(arrays: list[tuple[str, Any]]) -> None:
    """Raise `Obstacle` if two of these objects are arrays that share memory."""
    found = [(name, array) for name, array in arrays if isinstance(array, np.ndarray)]
    if all(array.base is None for _, array in found) and len({id(array) for _, array in found}) == len(found):
        return  # each owns its memory, so no pairs are compared, which would be half of the time of `lower`
    for i, (name, array) in enumerate(found):
        for other, its_array in found[:i]:
            if np.may_share_memory(array, its_array):
                raise Obstacle(f"{other} and {name} share memory")


def _written(kind: str, states: tuple[tuple[str, ...], tuple[str, ...]]) -> Iterator[str]:
    """Yield the attributes of a layer whose arrays a step changes in place."""
    for parameter, state in zip(PARAMETERS.get(kind, ()), states, strict=False):
        yield from (parameter, *state)
    if kind == "batch_norm":
        yield from STATISTICS


class Chain(NamedTuple):
    """The stages of a model that run without training."""

    dtype: FloatDType
    stages: tuple[Stage, ...]
    guards: Guards


def lower_forward(model: Network) -> Chain:
    """Return the stages of a finalized model that run without training. Raise `Obstacle` as `lower` does."""
    if (type(model), "forward") not in METHODS:
        raise Obstacle(f"the model has a custom class, {type(model).__name__}")
    found = stages(model)
    own = guards(model, (), ("layers",), [], ("forward", "get_parameters"))
    check(model, own, tuple(model.layers))
    return Chain(dtype_of(found), found, own)


class Piece(NamedTuple):
    """Layers that follow each other in a model: some that run compiled, or one that runs by its own methods."""

    #: The index of the first one among the model's layers.
    first: int
    layers: tuple[Any, ...]
    #: None if it runs by its own methods.
    stages: tuple[Stage, ...] | None


class Cut(NamedTuple):
    """A model in pieces."""

    pieces: tuple[Piece, ...]
    guards: Guards


def cut(model: Network) -> Cut:
    """Return a finalized model in pieces. Pieces of built-in layers are as long as possible.

    Raises
    ------
    Obstacle
        If no piece can run compiled, or the model does not run its layers as a built-in one does.
    """
    if (type(model), "forward") not in METHODS:
        raise Obstacle(f"the model has a custom class, {type(model).__name__}")
    layers = tuple(model.layers)
    if any(isinstance(layer, Layer_Members) for layer in layers):
        raise Obstacle("layers of members have more rows than there are samples")
    if len({id(layer) for layer in layers}) < len(layers):
        raise Obstacle("a layer occurs twice")
    pieces: list[Piece] = []
    plain = [_is_plain(layer, layers[:number]) for number, layer in enumerate(layers)]
    for is_plain, run in itertools.groupby(range(len(layers)), plain.__getitem__):
        pieces += _pieces(list(run), layers, is_plain)
    compiled = [layer for piece in pieces if piece.stages for layer in walk(piece.layers)]
    if not compiled:
        raise Obstacle("there is no dense layer among its built-in layers")
    _refuse_shared(
        [
            (f"{place}.{name}", value)
            for place, kind, layer in _in_turn(layers)
            for name, value in getattr(layer, "__dict__", {}).items()
            if kind != "join" and name.startswith(("weight", "bias", "running"))
        ]
    )
    owners: list[tuple[Any, tuple[str, ...]]] = [(layer, LAYER_METHODS) for layer in compiled]
    own = Guards(type(model), MODEL_METHODS, (), (("layers", layers),), *_methods_of(type(model), owners))
    check(model, own, layers)
    return Cut(tuple(pieces), own)


def _pieces(numbers: list[int], layers: tuple[Any, ...], is_plain: bool) -> list[Piece]:
    """Return layers that follow each other as one piece if they can be stages, else each as a separate piece."""
    run = Piece(numbers[0], tuple(layers[number] for number in numbers), None)
    if is_plain:
        try:
            found = stages(run)
            dtype_of(found)
            return [run._replace(stages=found)]
        except Obstacle:
            pass
    return [Piece(number, (layers[number],), None) for number in numbers]


def _is_plain(layer: Any, before: tuple[Any, ...] = ()) -> bool:
    """Return whether a layer, and those in it, are of built-in classes with unchanged methods.

    An embedding after other layers does not count: its categories are not checked when a step begins.
    """
    if not is_built_in("layer", layer):
        return False
    if type(layer) is Layer_Embedding and not all(type(each) is Layer_Embedding for each in before):
        return False
    if type(layer) is Layer_Residual and not all(map(_is_plain, layer.layers)):
        return False
    kind = type(layer)
    return vars(layer).keys().isdisjoint(LAYER_METHODS) and all(
        getattr(kind, name, None) is METHODS[kind, name] for name in LAYER_METHODS
    )


class Layered(Protocol):
    """A model, or a piece of one."""

    @property
    def layers(self) -> Any:
        """The layers, in their order."""


def stages(model: Layered) -> tuple[Stage, ...]:
    """Return a model's layers with their widths. Raise `Obstacle` if one is not built in."""
    found: list[Stage] = []
    try:
        check_members("a model", model.layers)
    except ValueError:
        raise Obstacle("layers of members do not fit each other") from None
    first = next((layer for layer in walk(model.layers) if type(layer) is Layer_Dense), None)
    if first is None:
        raise Obstacle("there is no dense layer")
    width = _width_at_first(model.layers, first)
    for _, kind, layer in _in_turn(model.layers):
        if kind is None:
            raise Obstacle(f"{_whose(layer, model.layers)} is not built in")
        taken, given = (None, None) if kind in ("fork", "join") else _widths(model.layers, kind, layer)
        if taken is not None and taken != width:
            raise Obstacle(f"{_whose(layer, model.layers)} does not take the {width} outputs before it")
        if kind == "prelu" and np.shape(vars(layer).get("weights")) not in ((1, 1), (1, width)):
            raise Obstacle(f"{_whose(layer, model.layers)} does not have a slope for each of its {width} inputs")
        if kind == "join" and width != next(s.n_in for s in found if s.owner is layer):
            raise Obstacle(f"{_whose(layer, model.layers)} does not give as many columns as it takes")
        n_out = width if given is None else given
        found.append(Stage(kind, layer, width, n_out))
        width = n_out
    return tuple(found)


def rows_of_a_sample(found: tuple[Stage, ...]) -> tuple[int, ...]:
    """Return the number of rows of each stage's output per sample."""
    own = (stage.owner.n_members if stage.kind == "members" else 1 for stage in found)
    return tuple(itertools.accumulate(own, operator.mul))


def _in_turn(layers: Iterable[Any], before: str = "") -> Iterator[tuple[str, str | None, Any]]:
    """Yield a name, a kind and a layer for each stage. The kind is None if a layer is not built in."""
    for number, layer in enumerate(layers):
        name = f"{before}layers[{number}]"
        if type(layer) is Layer_Residual:
            yield name, "fork", layer
            yield from _in_turn(layer.layers, f"{name}.")
            yield name, "join", layer
        else:
            yield name, layer._kernel if is_built_in("layer", layer) else None, layer


def _widths(layers: list[Any], kind: str, layer: Any) -> tuple[int | None, int | None]:
    """Return how many columns a built-in layer takes and returns; None for any number."""
    if kind == "dense":
        return _shape(layers, layer)
    if kind == "prelu":
        return None, None
    found = widths_of(layer)
    return (None, None) if found is None else found


def _width_at_first(layers: list[Any], first: Layer_Dense) -> int:
    """Return how many columns a model takes if this is its first dense layer."""
    for _, kind, layer in _in_turn(layers):
        if kind is not None and kind not in ("fork", "join"):
            taken = _widths(layers, kind, layer)[0]
            if taken is not None:
                return taken
    return _shape(layers, first)[0]


def _shape(layers: list[Any], layer: Layer_Dense) -> tuple[int, int]:
    """Return the shape of a dense layer's weights."""
    weights: Any = vars(layer).get("weights")
    shape = np.shape(weights)
    if len(shape) != 2 or 0 in shape:
        raise Obstacle(f"{_whose(layer, layers)} has no matrix for weights")
    return shape[0], shape[1]


def dtype_of(stages: tuple[Stage, ...]) -> FloatDType:
    """Return the common dtype of the layers with parameters, edges or factors."""
    found = {stage.owner._float_dtype() for stage in stages if stage.kind in WITH_DTYPE}
    if len(found) > 1:
        raise Obstacle("the layers with parameters or edges have two dtypes")
    (dtype,) = found
    return config.FLOAT32 if dtype == config.FLOAT32 else config.FLOAT64


def is_combined(stages: tuple[Stage, ...], loss: Any) -> bool:
    """Return whether last activation and loss have one gradient, as in `Model.backward`."""
    return is_built_in("loss", loss) and loss._pair is not None and type(stages[-1].owner) is loss._pair


def answers_to(accuracy: Any, loss: Any, last: Any) -> Answers:
    """Return which part of the outputs an accuracy gets. A custom one gets them unchanged."""
    known = isinstance(accuracy, Accuracy_Categorical | Accuracy_Regression)
    return answers(loss, last, accuracy._predicts if known else "")


def guards(
    model: Network,
    names: tuple[str, ...],
    lists: tuple[str, ...],
    parts: list[tuple[Any, tuple[str, ...]]],
    methods: tuple[str, ...] = LAYER_METHODS,
) -> Guards:
    """Return what must not change: a model's layers and ends, and other parts with their methods."""
    names = (*names, "input_layer", "output_layer_activation")
    if model.output_layer_activation is not model.layers[-1]:
        raise Obstacle("output_layer_activation is not the last layer")
    if type(model.input_layer) is not Layer_Input:
        raise Obstacle(f"input_layer, {model.input_layer!r}, is not built in")
    owners = [(model.input_layer, ("forward",)), *[(layer, methods) for layer in walk(model.layers)]]
    return Guards(
        type(model),
        MODEL_METHODS,
        tuple((name, getattr(model, name)) for name in names),
        tuple((name, tuple(getattr(model, name))) for name in lists),
        *_methods_of(type(model), owners + parts),
    )


def _methods_of(model: type, owners: list[tuple[Any, tuple[str, ...]]]) -> tuple[Any, Any, Any, Any]:
    """Return the last four fields of `Guards`."""
    kinds = tuple(type(owner) for owner, _ in owners)
    shadows = tuple(names for _, names in owners)
    return tuple(owner for owner, _ in owners), kinds, shadows, _methods_by_kind(model, kinds, shadows)


@functools.lru_cache(maxsize=64)
def _methods_by_kind(
    model: type, kinds: tuple[type, ...], names: tuple[tuple[str, ...], ...]
) -> tuple[tuple[type, str, Callable[..., Any] | None], ...]:
    """Return the entries of `METHODS` for a model's class, and for kinds of owners by their names."""
    wanted = {(kind, name) for kind, some in zip(kinds, names, strict=True) for name in some}
    wanted |= {(model, "forward"), (model, "backward")}
    return tuple((*key, function) for key, function in METHODS.items() if key in wanted)


def check_judges(model: Network) -> None:
    """Raise `Obstacle` unless a model's loss, its accuracy and its last layer's predictions are built in."""
    parts = [(model.loss, LOSS_METHODS), (model.accuracy, ACCURACY_METHODS), (model.layers[-1], LAYER_METHODS)]
    for what, part in (("loss", model.loss), ("accuracy", model.accuracy)):
        if not is_built_in(what, part):
            raise Obstacle(f"{part!r} is not built in")
    check(object, Guards(object, (), (), (), *_methods_of(object, parts)), ())


def _trained(stages: tuple[Stage, ...], trainable: tuple[Any, ...]) -> tuple[bool, ...]:
    """Return which stages are trained. A layer that was removed from ``trainable_layers`` is not."""
    owners = {id(stage.owner) for stage in stages if stage.kind in PARAMETERS}
    found = {id(layer) for layer in trainable}
    if len(found) < len(trainable):
        raise Obstacle("trainable_layers holds a layer twice")
    if not found <= owners:
        raise Obstacle("trainable_layers holds a layer that is not one of the model's layers with parameters")
    return tuple(id(stage.owner) in found for stage in stages)


def _whose(owner: Any, layers: Any) -> str:
    """Return a name for one of a model's objects."""
    for name, _, layer in _in_turn(layers):
        if layer is owner:
            return f"{name}, {owner!r},"
    return f"{type(owner).__name__}"
