"""How much memory `Model.train` takes beside what it is given: 60,000 x 784 numbers in float32.

Run in a process of its own, ``python memory.py``, it prints megabytes.
"""

from __future__ import annotations

import pathlib
import resource
import subprocess
import sys


def extra_megabytes() -> float:
    """Return what a new process finds."""
    found = subprocess.run([sys.executable, str(pathlib.Path(__file__).resolve())], capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(found.stderr[-500:])
    return float(found.stdout)


def peak_bytes() -> int:
    """Return the most memory that this process has had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Train for an epoch and print by how much the peak has risen."""
    import numpy as np

    import nnx

    rng = np.random.default_rng(0)
    X = np.empty((60_000, 784), np.float32)
    rng.standard_normal(dtype=np.float32, out=X)  # in place: the peak before training is what training is given
    y = rng.integers(0, 10, len(X))
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(784, 128), nnx.Activation_ReLU(), nnx.Layer_Dense(128, 128), nnx.Activation_ReLU()):
        model.add(layer)
    model.add(nnx.Layer_Dense(128, 10))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    before = peak_bytes()
    model.train(X, y, epochs=1, batch_size=128, print_every=None)
    print((peak_bytes() - before) / 1e6)


if __name__ == "__main__":
    main()
