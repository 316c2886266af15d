"""The built-in classes. Each class enters itself with one line, and all code that needs them asks here.

A custom class that is derived from a built-in one is not entered, so that its own methods are called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

#: The built-in classes by role, in the order in which they are defined.
BUILT_IN: dict[str, list[Any]] = {
    "layer": [],
    "loss": [],
    "optimizer": [],  # their steps are a rule for each parameter
    "minimizer": [],  # optimizers that see the whole loss as a function of all parameters
    "accuracy": [],
    "schedule": [],
}

Kind = TypeVar("Kind", bound=type)


def built_in(role: str) -> Callable[[Kind], Kind]:
    """Return a decorator that enters a class."""

    def enter(kind: Kind) -> Kind:
        BUILT_IN[role].append(kind)
        return kind

    return enter


def kinds_of(role: str) -> list[Any]:
    """Return the built-in classes for a role. A minimizer is a model's optimizer, too."""
    return BUILT_IN[role] + BUILT_IN["minimizer"] if role == "optimizer" else BUILT_IN[role]


def is_built_in(role: str, thing: object) -> bool:
    """Return whether an object is of a built-in class itself, not of one derived from it."""
    return type(thing) in kinds_of(role)


def by_name(role: str, prefix: str) -> dict[str, Any]:
    """Return the built-in classes by their names in options: ``Loss_LogCosh`` is "logcosh"."""
    return {
        kind.__name__.removeprefix(prefix).lower(): kind for kind in BUILT_IN[role] if kind.__name__.startswith(prefix)
    }
