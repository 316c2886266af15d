"""nnx in float32, where nnx itself is asked to multiply in bfloat16: what that brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import peer_nnx
from workloads import Candidate, Workload

VERSION = peer_nnx.VERSION


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the ways to do it: there is one."""
    return peer_nnx.variants(replace(workload, precision="float32"), cores)
