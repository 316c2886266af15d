"""Chooses the backend, once, when nnx is imported.

``backend`` is the module whose functions layers, losses and optimizers call, always as
``_kernels.backend.dense_forward(...)``: the name is looked up at the call, so that a test can put
another backend in its place. `nnx._kernels._numpy` is the specification of what each kernel does.
"""

from __future__ import annotations

from nnx import _config
from nnx._kernels import _numpy as backend

__all__ = ["backend", "built", "name", "reason"]

#: The backends that this installation has, best first.
built = ("numpy",)


def choose(requested: str | None) -> tuple[str, str]:
    """Return the backend's name for what ``NNX_BACKEND`` asks for, and why it is that one."""
    if requested is None:
        return "numpy", "the compiled kernels are not built"
    if requested == "numpy":
        return "numpy", "NNX_BACKEND=numpy asks for it"
    if requested.partition("-")[0] == "native":
        raise ImportError(
            f"NNX_BACKEND={requested}, but the compiled kernels are not built. Set NNX_BACKEND=numpy, or unset it."
        )
    raise ImportError(f"NNX_BACKEND must be one of: {', '.join(built)}; got {requested!r}.")


name, reason = choose(_config.requested_backend())
