"""What reading samples block by block costs: memory under a limit, and time beside training in memory.

    python benchmarks/streams.py

writes a file of samples (``--gigabytes``, in ``--folder``) and prints two Markdown tables. The first is of a process
whose memory for data (RLIMIT_DATA, Linux only) is limited to what it has after its imports, 64 MB, and a block; the
file is ten times as large as these, so training fails if it takes more. The second is of a file that fits into memory
and is in the page cache: seconds of the same steps from arrays and from `nnx.Blocks`, in turns. Both ways have the same
steps, and without shuffling the same bits, which is checked first.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from timing import processor

import nnx

MEGABYTE = 1 << 20
#: What training may take beyond a block.
BEYOND = 64 * MEGABYTE
#: Sizes of networks, and rows of a batch.
NETWORKS = (((784, 128, 128, 10), 128), ((100, 300, 200, 20), 100), ((32, 64, 32, 2), 32))
LIMITED = (784, 128, 128, 10), 128


def new_model(sizes: tuple[int, ...]) -> nnx.Model:
    """Return a classifier, the same each time."""
    np.random.seed(0)
    model = nnx.Model()
    for number, pair in enumerate(itertools.pairwise(sizes)):
        if number:
            model.add(nnx.Activation_ReLU())
        model.add(nnx.Layer_Dense(*pair, weight_initializer="he_normal"))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(0.001),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


def write(path: str, rows: int, columns: int) -> None:
    """Write samples, float32 (rows, columns), without having them in memory."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, columns))
    generator = np.random.default_rng(0)
    for start in range(0, rows, 1 << 14):
        part = array[start : start + (1 << 14)]
        part[...] = generator.standard_normal(part.shape, np.float32)
    array.flush()


def labels(X: np.ndarray, classes: int) -> np.ndarray:
    """Return a class for each row, by its first columns."""
    return np.digitize(X[:, 0] + X[:, 1], np.linspace(-2, 2, classes - 1))


# Memory


def used(name: str) -> int:
    """Return what the kernel says of this process's memory, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name + ":"))


def run_limited(path: str) -> None:
    """Train on the file with little memory, and print what that took; runs in a process of its own."""
    import resource

    sizes, batch = LIMITED
    X = np.load(path, mmap_mode="r")
    y = labels(X, sizes[-1]).astype(np.int32)
    blocks = nnx.Blocks(X, y)
    assert blocks.sizes is not None
    block = int(blocks.sizes[0]) * X[:1].nbytes
    new_model(sizes).train(X[: batch * 2], y[: batch * 2], batch_size=batch, print_every=None)  # what is made once
    before, limit = used("RssAnon"), used("VmData") + BEYOND + block
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.005):
            peak[0] = max(peak[0], used("RssAnon"))

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.perf_counter()
    history = new_model(sizes).train(blocks, epochs=1, batch_size=batch, shuffle=True, seed=1, print_every=None)
    seconds = time.perf_counter() - began
    ended.set()
    watching.join()
    try:
        np.empty(limit, np.uint8)
        held = "not held"
    except MemoryError:
        held = "held"
    print(
        f"| {X.nbytes / MEGABYTE:,.0f} | {(BEYOND + block) / MEGABYTE:.2f} ({held}) | "
        f"{(peak[0] - before) / MEGABYTE:.1f} | {block / MEGABYTE:.2f} | {seconds:.1f} | {history.accuracy[-1]:.3f} |"
    )


def memory(folder: str, gigabytes: float) -> None:
    """Print the table of the process with little memory."""
    path = os.path.join(folder, "nnx-streams-large.npy")
    columns = LIMITED[0][0]
    write(path, int(gigabytes * (1 << 30)) // (4 * columns), columns)
    print("| file, MB | may be used beyond before, MB | used at most | a block | seconds | accuracy |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    try:
        subprocess.run([sys.executable, __file__, "--limited", path], check=True)
    finally:
        os.remove(path)


# Time


def same_bits(a: nnx.Model, b: nnx.Model) -> bool:
    """Return whether two models have the same parameters, to the bit."""
    pairs = zip(a.get_parameters(), b.get_parameters(), strict=True)
    return all(np.array_equal(x, y) for one, other in pairs for x, y in zip(one, other, strict=True))


def speed(folder: str, megabytes: int, epochs: int, rounds: int, threads: int) -> None:
    """Print the table of seconds beside training in memory."""
    print(
        "\n| network | shuffle | in memory, s | blocks, s | speed | its thread alone |\n|---|---|---:|---:|---:|---:|"
    )
    for sizes, batch in NETWORKS:
        path = os.path.join(folder, "nnx-streams.npy")
        write(path, megabytes * MEGABYTE // (4 * sizes[0]), sizes[0])
        X, file = np.load(path), np.load(path, mmap_mode="r")
        y = labels(X, sizes[-1])
        settings = {"epochs": epochs, "batch_size": batch, "print_every": None, "seed": 1, "threads": threads}
        sources = {"memory": (X, y), "blocks": (nnx.Blocks(file, y), None)}
        models = [new_model(sizes) for _ in sources]
        for model, source in zip(models, sources.values(), strict=True):
            model.train(*source, **{**settings, "epochs": 1})
        assert same_bits(*models), "training from blocks is not training in memory"
        for shuffle in (False, True):
            walls: dict[str, list[float]] = {name: [] for name in sources}
            own: dict[str, list[float]] = {name: [] for name in sources}
            for _ in range(rounds):
                for name, source in sources.items():
                    model = new_model(sizes)
                    began, began_own = time.perf_counter(), time.thread_time()
                    model.train(*source, shuffle=shuffle, **settings)
                    walls[name].append(time.perf_counter() - began)
                    own[name].append(time.thread_time() - began_own)
            ratio = statistics.median(a / b for a, b in zip(walls["memory"], walls["blocks"], strict=True))
            ratio_own = statistics.median(a / b for a, b in zip(own["memory"], own["blocks"], strict=True))
            print(
                f"| {'-'.join(map(str, sizes))}, {batch} rows | {'yes' if shuffle else 'no'} | "
                f"{statistics.median(walls['memory']):.2f} | {statistics.median(walls['blocks']):.2f} | {ratio:.2f} | "
                f"{ratio_own:.2f} |",
                flush=True,
            )
        os.remove(path)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where files are written, and removed")
    parser.add_argument("--gigabytes", type=float, default=0.7, help="of the file that is larger than the memory")
    parser.add_argument("--megabytes", type=int, default=256, help="of the file that is read again and again")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="that train; another one reads")
    parser.add_argument("--limited", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.limited:
        run_limited(chosen.limited)
        return
    print(f"nnx {nnx.__version__} on {processor()}, {os.cpu_count()} cores, {chosen.threads} of them training\n")
    if sys.platform == "linux":
        memory(chosen.folder, chosen.gigabytes)
    speed(chosen.folder, chosen.megabytes, chosen.epochs, chosen.rounds, chosen.threads)


if __name__ == "__main__":
    main()
