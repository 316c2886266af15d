"""The choice of a test's cases. It depends only on their names and parameters, so every process chooses the same."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import pytest


def fewest(cases: Sequence[Any], test: str, few: pytest.Mark | None) -> list[Any]:
    """Return as many of a test's cases as it takes for each value of each parameter to occur.

    A mark `few` names the parameters for which this holds. Without names, a single case is enough.
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
    """Return a test's cases on the first backend, and a few on others. A case's name draws its backend."""
    others = [case for case in cases if case.params["backend"] == drawn(backends[1:], case)]
    ids = {case.id for case in fewest(others, test, few)}
    return [case for case in cases if case.params["backend"] == backends[0] or case.id in ids]


def drawn(backends: Sequence[str], case: Any) -> str:
    """Return one of the backends for a case, whose name begins with the one that it runs on."""
    name = case.id.removeprefix(case.params["backend"])  # another parameter may have a backend's name: it stays
    return backends[zlib.crc32(name.encode()) % len(backends)]
