"""Chooses the backend once, when nnx is imported.

``backend`` is the module whose functions layers, losses and optimizers call, always as
``_kernels.backend.dense_forward(...)``: each call looks the name up, so that a test can set another backend.
`nnx._kernels._numpy` is the specification of each kernel. `nnx._kernels._native` is the binding layer of the compiled
kernels, which exist once for each instruction set.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from nnx._base import config
from nnx._base.text import near

__all__ = [
    "DirectCall",
    "alike",
    "are_zero",
    "attributes",
    "backend",
    "built",
    "dense_parameters",
    "empty",
    "empty_like",
    "known_finite",
    "load",
    "name",
    "readable",
    "reason",
    "recalled",
    "usable",
    "writable",
]

#: The variants that the native backend may be compiled for, best first, and the modules that each needs.
VARIANTS = {
    "amx": ("units_amx", "avx512_float32", "avx512_float64"),
    "avx512": ("avx512_float32", "avx512_float64"),
    "avx2": ("avx2_float32", "avx2_float64"),
    "baseline": ("baseline_float32", "baseline_float64"),
}


def _binding() -> Any:
    """Return the binding layer of the compiled kernels, or None if it is not built. A broken one raises an error."""
    if find_spec("nnx._kernels._native") is None:
        return None
    from nnx._kernels import _native

    return _native


def _is_built(module: str) -> bool:
    return find_spec(f"nnx._kernels.native.{module}") is not None


def _find() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the backends of this installation, and those that this processor can run, best first."""
    binding = _binding()
    variants = [v for v, modules in VARIANTS.items() if binding is not None and all(map(_is_built, modules))]
    return (
        (*[f"native-{v}" for v in variants], "numpy"),
        (*[f"native-{v}" for v in variants if binding.offers(v)], "numpy"),
    )


built, usable = _find()


def load(name: str) -> Any:
    """Return the module of a usable backend, ready for calls."""
    if name == "numpy":
        from nnx._kernels import _numpy  # a dozen modules, which nobody waits for where the kernels are compiled

        return _numpy
    binding = _binding()
    binding.use(name.removeprefix("native-"))
    return binding


def choose(requested: str | None) -> tuple[str, str]:
    """Return the name of the backend that ``NNX_BACKEND`` asks for, and the reason of the choice."""
    if requested is None:
        if built == ("numpy",):
            return "numpy", "the compiled kernels are not built"
        return usable[0], "the best that is built and that this processor runs"
    allowed = ("numpy", "native", *[f"native-{v}" for v in VARIANTS])
    if requested not in allowed:
        raise ImportError(
            f"NNX_BACKEND must be one of: {', '.join(allowed)}; got {requested!r}.{near(allowed, requested)}"
        )
    if requested == "native":
        if usable != ("numpy",):
            return usable[0], "NNX_BACKEND=native asks for the best of the compiled kernels"
    elif requested in usable:
        return requested, f"NNX_BACKEND={requested} asks for it"
    elif requested in built:
        raise ImportError(
            f"NNX_BACKEND={requested}, but this processor lacks its instructions. It can run: {', '.join(usable)}."
        )
    what = "the compiled kernels are" if built == ("numpy",) else f"{requested} is"
    raise ImportError(
        f"NNX_BACKEND={requested}, but {what} not built. Install nnx where a C compiler works, or unset NNX_BACKEND."
    )


name, reason = choose(config.requested_backend())

if TYPE_CHECKING:
    from nnx._kernels import _numpy as backend
    from nnx._kernels._arrays import (
        DirectCall,
        alike,
        are_zero,
        attributes,
        dense_parameters,
        empty,
        empty_like,
        known_finite,
        readable,
        recalled,
        writable,
    )
else:
    backend = load(name)
    arrays = _binding()
    if arrays is None:
        from nnx._kernels import _arrays as arrays
    DirectCall = arrays.DirectCall
    alike, attributes = arrays.alike, arrays.attributes
    empty, empty_like = arrays.empty, arrays.empty_like
    are_zero, known_finite = arrays.are_zero, arrays.known_finite
    readable, writable = arrays.readable, arrays.writable
    dense_parameters, recalled = arrays.dense_parameters, arrays.recalled
