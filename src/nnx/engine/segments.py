"""Segments: in a model with custom parts, the built-in layers before and after them run compiled.

A step does the same as on the book path (`layerwise.py`), in the same order: forward, loss, accuracy, backward,
updates. But adjacent built-in layers take one compiled call for each of these, instead of one per layer. `training.py`
asks this module after `plan.py`.

A segment runs on one thread. Changes that the user's code makes between calls count at the next call. Each call binds
the parameters anew. If layers or methods of the model have changed, it is cut anew, or continues on the book path.
"""

from __future__ import annotations

import operator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from nnx import _kernels, optimizers
from nnx._base import check, precision, printing
from nnx._base.network import Network
from nnx._base.typing import Array
from nnx._base.vocabulary import is_built_in
from nnx._base.weights import penalty_scale
from nnx.engine import layerwise, plan, program
from nnx.engine.job import EndEpoch, Job, Keep
from nnx.layers import walk
from nnx.member_layers import mean_of_members
from nnx.optimizers import Optimizer, updates_as_built_in
from nnx.residual import members_of

#: The attributes that an optimizer changes itself.
RUNNING = ("iterations", "current_learning_rate")
FORWARD, BACKWARD = "Layer_Dense.forward", "Layer_Dense.backward"


def train(job: Job, report: printing.Printer, end_epoch: EndEpoch, keep: Keep) -> bool:
    """Train for some epochs. If no layer of the model can run compiled, do nothing and return False."""
    try:
        way = Segmented(job)
    except program.Obstacle:
        return False
    try:
        layerwise.train(job, report, end_epoch, keep, way)
    finally:
        way.release()
    return True


def forward(model: Network, X: Array) -> Any:
    """Return a model's outputs for samples. Built-in layers that follow each other run compiled.

    With members, return their mean.
    """
    n_members = members_of(model.layers)
    if n_members > 1:
        return mean_of_members(np.asarray(model.forward(X, training=False)), n_members)
    try:
        pieces = _cut(model, None)
    except program.Obstacle:
        return model.forward(X, training=False)
    model.input_layer.forward(X, False)
    output = model.input_layer.output
    for piece in pieces:
        output = piece.predict(model, output)
    return output


class Methods:
    """A piece that runs by its layers' own methods."""

    def __init__(self, piece: program.Piece) -> None:
        self.layers = piece.layers

    def forward(self, inputs: Any, training: bool = True) -> Any:
        """Return the output."""
        for layer in self.layers:
            layer.forward(inputs, training)
            inputs = layer.output
        return inputs

    def predict(self, model: Network, inputs: Any) -> Any:
        """Return the output without training."""
        return self.forward(inputs, False)

    def backward(self, dvalues: Any, is_combined: bool) -> Any:
        """Return the gradient by the inputs. If ``is_combined``, ``dvalues`` is the one by the last layer's inputs."""
        for layer in reversed(self.layers[:-1] if is_combined else self.layers):
            layer.backward(dvalues)
            dvalues = layer.dinputs
        return dvalues


class Compiled(Methods):
    """A piece that runs compiled: a segment."""

    def __init__(self, piece: program.Piece, guards: program.Guards, bfloat16: bool) -> None:
        super().__init__(piece)
        stages = piece.stages
        assert stages is not None
        self.is_first = piece.first == 0
        self.dtype = program.dtype_of(stages)
        self.n_in, self.n_out = stages[0].n_in, stages[-1].n_out
        self.native = _kernels.backend.Segment(  # type: ignore[attr-defined]
            self.dtype, stages, None, False, guards, bfloat16
        )
        self.updating = partial(self.native.update)
        #: The owner of each stage.
        self.owners = tuple(stage.owner for stage in stages)
        #: Which stages are trained.
        self.trained: tuple[bool, ...] = ()
        #: The inputs of the latest forward, and whether it ran compiled.
        self.inputs: Any = None
        self.ran = False
        #: The compiled object that predicts, made at its first use.
        self.inference: Any = None
        self.chain = (self.dtype, stages, guards, _kernels)
        #: The gradient of the output, if the update still has to take it back, and whether it is by the inputs of the
        #: last layer.
        self.dvalues: Any = None
        self.is_combined = False

    def predict(self, model: Network, inputs: Any) -> Any:
        """Return the output without training."""
        inputs = check.rows(FORWARD, "inputs", inputs, self.n_in, self.dtype)
        if self.inference is None and len(self.owners) <= plan.MOST_STAGES:
            self.inference = _kernels.backend.Inference(*self.chain)  # type: ignore[attr-defined]
        output = None if self.inference is None else self.inference.predict(model, inputs)
        if output is None:
            return self.forward(inputs, False)
        vars(self.layers[-1])["output"] = output
        return output

    def forward_compiled(self, inputs: Any, rows: int, limits_norm: bool, stores: bool) -> Any:
        """Return the output. ``rows`` is the most rows of a step. Layers that have changed run by their methods."""
        self.inputs = inputs = check.rows(FORWARD, "inputs", inputs, self.n_in, self.dtype)
        self.dvalues = output = None
        if len(inputs):
            output = self.native.forward(self.owners, inputs, rows, not self.is_first, limits_norm, stores, FORWARD)
        self.ran = output is not None
        if not self.ran:
            return self.forward(inputs)
        vars(self.layers[-1])["output"] = output
        return output

    def backward_compiled(self, dvalues: Any, is_combined: bool, updates: bool) -> Any:
        """Return the gradient by the inputs. A model's first segment that ``updates`` does this at the update."""
        if not self.ran:
            return self.backward(dvalues, is_combined)
        dvalues = check.rows(BACKWARD, "dvalues", dvalues, self.n_out, self.dtype, len(self.inputs))
        if updates and self.is_first:
            self.dvalues, self.is_combined = dvalues, is_combined
            return None
        trained = self.trained if updates else (True,) * len(self.owners)
        dinputs = self.native.backward(self.owners, trained, dvalues, is_combined, not self.is_first, BACKWARD)
        if dinputs is not None:
            vars(self.layers[0])["dinputs"] = dinputs
        return dinputs

    def make_gradients(self) -> None:
        """Give all layers the gradients of their parameters, if they ran compiled."""
        if not self.ran:
            return
        self.native.make_gradients(self.owners, (True,) * len(self.owners), BACKWARD)
        self.native.publish(self.owners)

    def make_ready(self, rule: optimizers.Rule, rate: float, iterations: int, where: str) -> bool:
        """Prepare ``native.update()``. If it cannot run, give trained layers their gradients."""
        arguments = (rule, rate, iterations, optimizers._state, where)
        if self.native.make_ready(self.owners, self.trained, self.dvalues, self.is_combined, *arguments):
            return True
        if self.dvalues is not None:
            self.native.backward(self.owners, self.trained, self.dvalues, self.is_combined, False, BACKWARD)
        self.native.make_gradients(self.owners, self.trained, BACKWARD)
        return False

    def trained_layers(self) -> list[Any]:
        """Return the trained layers."""
        return [layer for layer, trained in zip(self.owners, self.trained, strict=True) if trained]

    def set_outputs(self) -> None:
        """Repeat the forward, by the layers' methods."""
        if self.ran:
            for layer in walk(self.layers):
                if hasattr(layer, "training_forwards"):
                    layer.training_forwards -= 1
            with np.errstate(all="ignore"):
                self.forward(self.inputs)


class Segmented(layerwise.Way):
    """Runs the steps of a model in pieces. Some pieces run compiled.

    Raises
    ------
    Obstacle
        If no piece does.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job.model)
        self.rows, self.bfloat16 = job.rows, job.precision == "bfloat16"
        #: None after the model has changed so that it takes the book path.
        self.pieces: list[Methods] | None = _cut(job.model, self.bfloat16)
        self.segments = _compiled(self.pieces)
        self.stores = False
        #: The elements of ``trainable_layers`` when segments last learnt which of their layers are trained.
        self.trainable: list[Any] | None = None
        self.rule: optimizers.Rule | None = None
        self.settings: list[Any] = []  # that it was made from
        self.outside: list[Any] = []  # layers that are in no segment
        self.all_once = False  # whether each of these layers occurs once

    def forward(self, X: Array, keeps: bool) -> Any:
        """Return the model's output for a batch."""
        model = self.model
        if self.pieces is not None and not self.segments[0].native.holds(model):
            self._cut_anew()
        if self.pieces is None:
            return super().forward(X, keeps)
        self.stores = keeps
        limits_norm = len(self.segments) == 1 and getattr(model.optimizer, "clip_norm", None) is not None
        model.input_layer.forward(X, True)
        output = model.input_layer.output
        for piece in self.pieces:
            if isinstance(piece, Compiled):
                output = piece.forward_compiled(output, self.rows, limits_norm, keeps)
            else:
                output = piece.forward(output)
        return output

    def set_outputs(self) -> None:
        """Give layers within segments the ``output`` of the latest forward."""
        for segment in self.segments:
            segment.set_outputs()

    def backward(self, output: Any, y: Any, **weighing: Array) -> None:
        """Take the gradient back. If updates are not compiled, also compute the gradients of parameters."""
        self.updates_compiled = False
        if self.pieces is None:
            super().backward(output, y, **weighing)
            return
        self.model._require("Model.backward", "loss")
        self._mark_trained()
        self.updates_compiled = self._may_update()
        scale = penalty_scale()
        for segment in self.segments:
            segment.native.scale_penalties(scale)
        dvalues, is_combined = self.model._loss_gradient(output, y, weighing.get("sample_weight"))
        for piece in reversed(self.pieces):
            if isinstance(piece, Compiled):
                dvalues = piece.backward_compiled(dvalues, is_combined, self.updates_compiled)
            else:
                dvalues = piece.backward(dvalues, is_combined)
            is_combined = False
        if not self.updates_compiled:
            for segment in self.segments:
                segment.make_gradients()

    def updates(self) -> list[partial[Any]]:
        """Return the calls that update the parameters, and count the step."""
        if self.pieces is None or not self.updates_compiled:
            return super().updates()
        optimizer = self.model.optimizer
        where = f"{type(optimizer).__name__}.update_params"
        rule = self._rule(optimizer, where)
        rate = float(optimizer._checked_rate(where))
        iterations = check.whole(where, "iterations", optimizer.iterations, 0, check.MAX_COUNT)
        calls: list[partial[Any]] = []
        others = self.outside
        for segment in self.segments:
            if segment.ran and segment.make_ready(rule, rate, iterations, where):
                calls.append(segment.updating)
            else:
                others = others + segment.trained_layers()
            if self.stores:
                calls.append(partial(segment.native.publish, segment.owners))
        if others:
            calls = optimizer._updates(others) + calls
        calls.append(partial(object.__setattr__, optimizer, "iterations", iterations + 1))
        return calls

    def release(self) -> None:
        """Release all arrays, and memory that is too much to keep."""
        for segment in self.segments:
            segment.inputs = segment.dvalues = None
            segment.native.drop()
            segment.native.release()

    def _cut_anew(self) -> None:
        self.release()
        self.trainable, before = None, [layer for piece in self.pieces or [] for layer in piece.layers]
        self.pieces = None
        if len(before) == len(self.model.layers) and all(map(operator.is_, before, self.model.layers)):
            with suppress(program.Obstacle):
                self.pieces = _cut(self.model, self.bfloat16)
        self.segments = _compiled(self.pieces or [])

    def _rule(self, optimizer: Any, where: str) -> optimizers.Rule:
        """Return an optimizer's rule. It is that of the last step, if all settings are the same objects as then."""
        own = vars(optimizer)
        settings = [optimizer, *[own[name] for name in own if name not in RUNNING]]
        known = self.settings
        if len(settings) == len(known) and all(map(operator.is_, settings, known)):
            assert self.rule is not None
            return self.rule
        rule: optimizers.Rule = optimizer._rule(where)
        if is_built_in("optimizer", optimizer):  # other classes may make it from anything
            self.rule, self.settings = rule, settings
        return rule

    def _mark_trained(self) -> None:
        """Tell segments which of their layers are trained."""
        trainable, known = self.model.trainable_layers, self.trainable
        if known is not None and len(known) == len(trainable) and all(map(operator.is_, known, trainable)):
            return
        self.trainable = list(trainable)
        found = set(map(id, trainable))
        for segment in self.segments:
            segment.trained = tuple([id(layer) in found for layer in segment.owners])
            found.difference_update(map(id, segment.owners))
        self.outside = [layer for layer in trainable if id(layer) in found]
        self.all_once = len(set(map(id, trainable))) == len(trainable)

    def _may_update(self) -> bool:
        """Return whether segments may update their parameters: no custom method has to be called for it."""
        optimizer = self.model.optimizer
        if not self.all_once or not updates_compiled(optimizer):
            return False
        if optimizer.clip_norm is None:
            return True
        first = self.segments[0]  # the norm is that of all gradients together
        return len(self.segments) == 1 and first.ran and not self.outside


def updates_compiled(optimizer: Any) -> bool:
    """Return whether segments can do an optimizer's updates: none of its methods was replaced."""
    return (
        updates_as_built_in(optimizer)
        and type(optimizer).pre_update_params is Optimizer.pre_update_params
        and "pre_update_params" not in vars(optimizer)
    )


def _cut(model: Network, bfloat16: bool | None) -> list[Methods]:
    """Return a model's pieces: the previous ones, if nothing has changed since. None stands for any products."""
    if not hasattr(_kernels.backend, "Segment"):
        raise program.Obstacle(f"the backend {_kernels.name} has no segments")
    kept: tuple[list[Methods], bool] | None = model._segments
    if kept is not None and bfloat16 in (None, kept[1]) and _still_holds(model, kept[0]):
        return kept[0]
    model._segments = None
    bfloat16 = bool(bfloat16)
    pieces, guards = program.cut(model)
    found: list[Methods] = []
    for piece in pieces:
        rounds = bfloat16 and piece.stages is not None and program.dtype_of(piece.stages) == np.float32
        is_compiled = piece.stages is not None and rounds is bfloat16
        found.append(Compiled(piece, guards, bfloat16) if is_compiled else Methods(piece))
    if not _compiled(found):
        raise program.Obstacle("products in bfloat16 are of float32 layers only")
    model._segments = (found, bfloat16)
    return found


def _still_holds(model: Network, pieces: list[Methods]) -> bool:
    backend: Any = _kernels.backend
    native = _compiled(pieces)[0].native
    return type(native) is getattr(backend, "Segment", None) and native.holds(model)


def _compiled(pieces: list[Methods]) -> list[Compiled]:
    return [piece for piece in pieces if isinstance(piece, Compiled)]


def explain(model: Network, bfloat16: bool) -> str:
    """Return text about the segments of a model, one sentence without its full stop; "" if there are none."""
    if not hasattr(_kernels.backend, "Segment"):
        return ""
    try:
        pieces, _ = program.cut(model)
    except program.Obstacle:
        return ""
    n_pieces = f"{len(pieces)} segment{'s' * (len(pieces) > 1)}"
    found = f"It trains in {n_pieces}: {', '.join(map(_named, pieces))}"
    if bfloat16:
        found += f", with bfloat16 products {precision.how_bfloat16_runs()}"
    parts = (("loss", model.loss), ("accuracy", model.accuracy), ("optimizer", model.optimizer))
    own = [f"the {what}, {part!r}, is custom" for what, part in parts if not is_built_in(what, part)]
    if is_built_in("optimizer", model.optimizer) and not _compiles_updates(model, pieces):
        own.append("the optimizer updates layer by layer, as clip_norm needs all gradients")
    return "; ".join([found, *own])


def _named(piece: program.Piece) -> str:
    """Return text that names these layers and says how they run."""
    last = piece.first + len(piece.layers) - 1
    numbers = f"layer {piece.first}" if last == piece.first else f"layers {piece.first} to {last}"
    return f"{numbers} compiled" if piece.stages else f"{numbers} ({type(piece.layers[0]).__name__}) by its own methods"


def _compiles_updates(model: Network, pieces: tuple[program.Piece, ...]) -> bool:
    """Return whether a built-in optimizer's updates are compiled. They are not if a norm needs other gradients, too."""
    if model.optimizer.clip_norm is None:
        return True
    compiled = [piece for piece in pieces if piece.stages]
    known = {id(layer) for layer in walk(compiled[0].layers)}
    return len(compiled) == 1 and all(id(layer) in known for layer in model.trainable_layers)
