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
    "nnx": Peer("peer_nnx", "nnx", ("train", "run", "predict", "call", "print")),
    "jax": Peer("peer_jax", "JAX", ("train", "run", "call")),
    "torch": Peer("peer_torch", "PyTorch", ("train", "run", "call", "predict")),
    "torch_compile": Peer("peer_torch_compile", "PyTorch, compiled", ("train", "run", "predict")),
    "torch_pure": Peer("peer_torch_pure", "PyTorch, all in bfloat16", ("train",)),
    "sklearn": Peer("peer_sklearn", "scikit-learn", ("train",)),
    "thinc": Peer("peer_thinc", "thinc", ("train",)),
    "reference": Peer("peer_reference", "the book's way", ("train", "run")),
    "onnxruntime": Peer("peer_onnxruntime", "ONNX Runtime", ("predict",)),
    "nnx_float32": Peer("peer_nnx_float32", "nnx, float32", ("train", "predict")),
    "nnx_printing": Peer("peer_nnx_printing", "nnx, printing", ("print",)),
    "peak": Peer("peak", "peak", ("train",)),
}

#: Not libraries: nnx itself, and the processor.
NO_RIVALS = ("nnx", "nnx_float32", "nnx_printing", "peak")
#: Those that run in bfloat16 only, or beside it.
BESIDE_BFLOAT16 = ("torch_pure", "nnx_float32")
#: Workloads whose products are large enough for the peak to be within reach.
LARGE = ("fashion", "wide", "middle", "narrow middle")


def candidates(workload: Workload, cores: int, chosen: list[str]) -> list[tuple[str, int]]:
    """Return who runs, and on how many cores; nnx comes first, and on two cores it runs beside itself on one."""
    rounded = workload.precision == "bfloat16"
    left_out = {"peak"} if cores > 1 or (workload.name not in LARGE and not rounded) else set()
    if not rounded:
        left_out.update(BESIDE_BFLOAT16, {"torch", "torch_compile"} if workload.kind == "predict" else ())
    names = [name for name in chosen if workload.kind in PEERS[name].kinds and name not in left_out]
    beside = [("nnx", 1)] if cores > 1 else []
    return [("nnx", cores), *beside, *((name, cores) for name in names if name != "nnx")]
