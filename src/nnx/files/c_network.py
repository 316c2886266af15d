"""A network as one C function: in which order parts are called, and where the numbers between them lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnx.files import c_layers
from nnx.files.c_text import Unit

#: A part of a predictor: kind, values, columns that it takes and gives.
Part = tuple[str, tuple[Any, ...], int, int]


@dataclass
class Step:
    """A part, what it reads and what it writes: numbers of `Flow.values`."""

    part: Part
    source: int
    target: int
    #: Of a join, what is added.
    other: int = -1


@dataclass
class Flow:
    """All numbers of one sample on their way: the inputs are value 0, the outputs the last one."""

    steps: list[Step] = field(default_factory=list)
    #: How many numbers a value has at most.
    sizes: list[int] = field(default_factory=list)
    #: Where each begins in memory; the first and the last are the caller's.
    places: list[int] = field(default_factory=list)
    #: How many numbers of memory are needed.
    n_memory: int = 0


def flow_of(parts: Sequence[Part]) -> Flow:
    """Return which part reads and writes what. Where a part keeps the columns, it works in place if it can."""
    flow = Flow(sizes=[parts[0][2]])
    current, open_forks = 0, list[int]()
    for part in parts:
        kind, _, _, n_out = part
        if kind == "fork":
            open_forks.append(current)
            continue
        if kind == "linear":
            continue
        other = open_forks.pop() if kind == "join" else -1
        source, in_place = current, kind not in c_layers.WIDENING and current not in (0, other, *open_forks)
        if not in_place:
            current = len(flow.sizes)
            flow.sizes.append(n_out)
        flow.steps.append(Step(part, source, current, other))
    if current == 0:  # nothing computes: the outputs are a copy
        flow.sizes.append(flow.sizes[0])
        flow.steps.append(Step(("linear", (), flow.sizes[0], flow.sizes[0]), 0, 1))
    _place(flow)
    return flow


def _place(flow: Flow) -> None:
    """Give each value but the caller's the first place that no other has that is needed at the same time."""
    outputs = flow.steps[-1].target
    first = {value: number for number, step in reversed(list(enumerate(flow.steps))) for value in [step.target]}
    last = {value: number for number, step in enumerate(flow.steps) for value in (step.source, step.target, step.other)}
    flow.places = [0] * len(flow.sizes)
    taken: list[int] = []
    for value in range(1, len(flow.sizes)):
        if value == outputs:
            continue
        at = 0
        for other in sorted((each for each in taken if last[each] >= first[value]), key=flow.places.__getitem__):
            if at + flow.sizes[value] <= flow.places[other]:
                break
            at = max(at, flow.places[other] + flow.sizes[other])
        flow.places[value] = at
        flow.n_memory = max(flow.n_memory, at + flow.sizes[value])
        taken.append(value)


def as_float32(where: str, parts: Sequence[Any]) -> list[Part]:
    """Return parts whose arrays of numbers are float32; refuse what C has no constant for."""
    found: list[Part] = []
    for kind, values, n_in, n_out in parts:
        if kind not in c_layers.KINDS:
            raise ValueError(f"{where}: layers must have a translation to C, got a {kind!r}.")
        with np.errstate(over="ignore"):
            cast = tuple(
                value.astype(np.float32) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value
                for value in values
            )
        try:
            for value in (*cast, *(np.float32(value) for value in values if isinstance(value, float))):
                if not isinstance(value, np.ndarray) or value.dtype.kind == "f":
                    c_layers.finite(np.asarray(value, np.float32))
        except ValueError as error:
            raise ValueError(f"{where}: {error}, got others in a {kind}.") from None
        found.append((kind, cast, n_in, n_out))
    return found


def single_networks(parts: Sequence[Part]) -> list[list[Part]]:
    """Return the networks whose mean a network with members is: one for each. They share the arrays that members share.

    Their factors are a `scale`, factors and summands a `batch_norm` of mean 0 and variance 1.
    """
    n_members = max((len(values[0]) for kind, values, _, _ in parts if kind == "members"), default=1)
    return [[_of_member(part, member) for part in parts] for member in range(n_members)]


def _of_member(part: Part, member: int) -> Part:
    kind, values, n_in, n_out = part
    if kind == "members":
        return "scale", (values[0][member : member + 1],), n_in, n_out
    own = slice(member, member + 1)
    if kind == "member_scale":
        weights, biases = values
        return (
            "batch_norm",
            (weights[own], biases[own], np.zeros_like(biases[own]), np.ones_like(biases[own]), 0.0),
            n_in,
            n_out,
        )
    if kind == "member_dense":
        weights, biases = values
        return "dense", (weights[member * n_in : (member + 1) * n_in], biases[own]), n_in, n_out
    return part


def function_of(unit: Unit, parts: Sequence[Part], head: str) -> tuple[str, int]:
    """Return the definition of a network's function, and how many bytes of numbers it has on the stack.

    ``head`` is the function's declaration, whose arguments are ``inputs`` and ``outputs``.
    """
    flow = flow_of(parts)
    outputs = flow.steps[-1].target

    def place(value: int) -> str:
        if value in (0, outputs):
            return "outputs" if value else "inputs"
        return f"memory + {flow.places[value]}" if flow.places[value] else "memory"

    calls = []
    for step in flow.steps:
        kind, values, n_in, n_out = step.part
        source, target = place(step.source), place(step.target)
        if kind == "join":
            calls.append(c_layers.add(unit, n_out, source, place(step.other), target))
        else:
            calls.append(c_layers.call_of(unit, kind, values, (n_in, n_out), source, target))
    declared = [f"float memory[{flow.n_memory}];"] if flow.n_memory else []
    whole = max((step.part[2] for step in flow.steps if step.part[0] in ("dense", "spline")), default=0)
    if unit.int8 and whole:
        declared.append(f"int16_t whole[{whole}];")
    body = "\n".join(f"    {line}" for line in (*declared, *calls))
    n_stack = 4 * flow.n_memory + 2 * whole * unit.int8
    return f"{head}\n{{\n{body}\n}}", n_stack
