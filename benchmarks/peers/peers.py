"""Who is measured at what."""

from __future__ import annotations

from dataclasses import dataclass

from workloads import Workload


@dataclass(frozen=True)
class Peer:
    """A module of this folder, what people call it, and the kinds of workloads at which it runs."""

    module: str
    title: str
    kinds: tuple[str, ...]


PEERS = {
    "nnx": Peer("peer_nnx", "nnx", ("train", "predict", "call", "print")),
    "jax": Peer("peer_jax", "JAX", ("train", "call")),
    "torch": Peer("peer_torch", "PyTorch", ("train", "call")),
    "torch_compile": Peer("peer_torch_compile", "PyTorch, compiled", ("train",)),
    "sklearn": Peer("peer_sklearn", "scikit-learn", ("train",)),
    "thinc": Peer("peer_thinc", "thinc", ("train",)),
    "reference": Peer("peer_reference", "the book's way", ("train",)),
    "onnxruntime": Peer("peer_onnxruntime", "ONNX Runtime", ("predict",)),
    "nnx_printing": Peer("peer_nnx_printing", "nnx, printing", ("print",)),
    "peak": Peer("peak", "peak", ("train",)),
}

#: Not libraries: nnx itself, and the processor.
NO_RIVALS = ("nnx", "nnx_printing", "peak")
#: Workloads whose products are large enough for the peak to be within reach.
LARGE = ("fashion", "wide")


def candidates(workload: Workload, cores: int, chosen: list[str]) -> list[tuple[str, int]]:
    """Return who runs, and on how many cores; nnx comes first, and on two cores it runs beside itself on one."""
    names = [
        name
        for name in chosen
        if workload.kind in PEERS[name].kinds and (name != "peak" or (cores == 1 and workload.name in LARGE))
    ]
    beside = [("nnx", 1)] if cores > 1 else []
    return [("nnx", cores), *beside, *((name, cores) for name in names if name != "nnx")]
