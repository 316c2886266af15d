"""Which of a test's cases run, by their names and parameters alone: every process and every run chooses the same."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import pytest


def fewest(cases: Sequence[Any], test: str, few: pytest.Mark | None) -> list[Any]:
    """Return so many of a test's cases that each value of each parameter occurs.

    A mark `few` says of which parameters only; without names, a single case is enough.
    """
    seen: set[tuple[str, Any]] = set()
    kept = set()
    for i in sorted(range(len(cases)), key=lambda i: zlib.crc32(f"{test}[{cases[i].id}]".encode())):
        case = cases[i]
        values = {(name, repr(case.params[name])) for name in few.args} if few else set(case.indices.items())
        if not values <= seen or not kept:
            kept.add(i)
            seen |= values
    return [cases[i] for i in sorted(kept)]


def on_two(cases: Sequence[Any], backends: Sequence[str], test: str, few: pytest.Mark | None) -> list[Any]:
    """Return a test's cases on the first backend, and few on others: of each case on one that its name draws."""
    others = [case for case in cases if case.params["backend"] == drawn(backends[1:], case)]
    ids = {case.id for case in fewest(others, test, few)}
    return [case for case in cases if case.params["backend"] == backends[0] or case.id in ids]


def drawn(backends: Sequence[str], case: Any) -> str:
    """Return one of the backends for a case, whose name begins with the one that it runs on."""
    name = case.id.removeprefix(case.params["backend"])  # another parameter may be called like a backend: it stays
    return backends[zlib.crc32(name.encode()) % len(backends)]
