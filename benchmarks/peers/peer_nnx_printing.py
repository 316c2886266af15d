"""nnx with what `Model.train` prints by default: a line for each step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import peer_nnx
from workloads import Candidate, Workload

from nnx._base import printing

VERSION = peer_nnx.VERSION

# A run as long as a block prints only some of its steps by itself.
printing.MAX_LINES = sys.maxsize


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the way to print."""
    return {"": lambda: Printing(workload, cores)} if workload.kind == "print" else {}


class Printing(peer_nnx.Training):
    """Each step's line goes to a file."""

    print_every = 1
