"""The precision in which dense layers multiply: their own dtype or, on request, bfloat16.

`Model.train(precision="bfloat16")` requests it. A plan is made for a precision; on the book path, layers read it here.
"""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from typing import Any

from nnx import _kernels
from nnx._base import check
from nnx._base.config import FLOAT32, get_default_dtype
from nnx._base.typing import FloatDType

_rounds: ContextVar[bool] = ContextVar("nnx.rounds", default=False)
_has_warned = False


def checked_precision(where: str, precision: Any, dtype: FloatDType | None) -> str | None:
    """Return "bfloat16" if it is requested for a float32 model, None for a model's own dtype. Refuse anything else.

    A model without any parameters has no dtype, and counts as one of the default dtype.
    """
    if precision is None:
        return None
    dtype = get_default_dtype() if dtype is None else dtype
    own = dtype.name
    if dtype != FLOAT32 and isinstance(precision, str) and precision == "bfloat16":
        raise ValueError(
            f"{where}: precision must be {own!r}, the model's dtype, got 'bfloat16'. Make the layers with "
            "dtype='float32' for that."
        )
    allowed = (own, "bfloat16") if dtype == FLOAT32 else (own,)
    chosen: str = check.one_of(where, "precision", precision, allowed)
    return None if chosen == own else chosen


class of_products:
    """Let dense layers multiply in this precision within the block, in this thread. See `checked_precision`."""

    __slots__ = ("_before", "_rounds")

    def __init__(self, precision: str | None) -> None:
        self._rounds = precision == "bfloat16"

    def __enter__(self) -> None:
        self._before = _rounds.set(self._rounds)

    def __exit__(self, *error: object) -> None:
        _rounds.reset(self._before)


def rounds() -> bool:
    """Return whether dense layers round the factors of their products to bfloat16."""
    return _rounds.get()


def how_bfloat16_runs() -> str:
    """Return how plans multiply in bfloat16 on this machine: "on matrix units (AMX)"."""
    available, clause, _ = _kernels.backend.matrix_units()
    return f"on matrix units ({clause})" if available else f"by conversion, no faster than float32: {clause}"


def warn_of_refused_units(where: str) -> None:
    """Warn, once in a process, that the processor has matrix units which the system does not let it use."""
    global _has_warned
    _, clause, refused = _kernels.backend.matrix_units()
    if refused and not _has_warned:
        warnings.warn(f"{where}: bfloat16 products run by conversion, no faster than float32: {clause}.", stacklevel=4)
        _has_warned = True
