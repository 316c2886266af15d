"""nnx on its NumPy kernels beside the book's way in NumPy: python benchmarks/bench_numpy_backend.py

Both sides of a row start from the same weights and data and are checked to give the same results, then run in
alternating blocks on one pinned core; a row's ratio is the book's time over nnx's, so above 1 nnx is ahead.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["NNX_BACKEND"] = "numpy"

import argparse
import itertools
import platform
import statistics
from collections.abc import Callable

import numpy as np
import reference
from timing import processor, seconds

import nnx

Step = Callable[[], None]
Check = Callable[[], None]


def network(sizes: list[int], n_samples: int) -> tuple[Step, Step, Check]:
    """Return a step of each side's manual loop: forward, loss, backward, Adam; and the check that both learn alike."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_samples, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], n_samples)
    sides = []
    for dense, relu, loss, adam in (
        (nnx.Layer_Dense, nnx.Activation_ReLU, nnx.Activation_Softmax_Loss_CategoricalCrossentropy, nnx.Optimizer_Adam),
        (reference.Dense, reference.ReLU, reference.SoftmaxCrossentropy, reference.Adam),
    ):
        np.random.seed(0)
        layers = [dense(a, b) for a, b in itertools.pairwise(sizes)]
        sides.append((layers, [relu() for _ in layers[:-1]], loss(), adam(learning_rate=0.001, decay=1e-4)))

    def step(layers, activations, loss, adam):
        values = X
        for layer, activation in zip(layers, activations, strict=False):
            layer.forward(values)
            activation.forward(layer.output)
            values = activation.output
        layers[-1].forward(values)
        loss.forward(layers[-1].output, y)
        np.mean(np.argmax(loss.output, axis=1) == y)
        loss.backward(loss.output, y)
        layers[-1].backward(loss.dinputs)
        for layer, activation in zip(reversed(layers[:-1]), reversed(activations), strict=True):
            activation.backward(layers[layers.index(layer) + 1].dinputs)
            layer.backward(activation.dinputs)
        adam.pre_update_params()
        for layer in layers:
            adam.update_params(layer)
        adam.post_update_params()

    def check():
        for ours, theirs in zip(sides[0][0], sides[1][0], strict=True):
            np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-3, atol=1e-5)

    return lambda: step(*sides[0]), lambda: step(*sides[1]), check


def adam(n_inputs: int, n_neurons: int) -> tuple[Step, Step, Check]:
    """Return an Adam update of each side, and the check that parameters stay alike."""
    sides = []
    for layer_class, adam_class in ((nnx.Layer_Dense, nnx.Optimizer_Adam), (reference.Dense, reference.Adam)):
        np.random.seed(0)
        layer = layer_class(n_inputs, n_neurons)
        rng = np.random.default_rng(0)
        layer.dweights = rng.standard_normal(layer.weights.shape).astype(np.float32)
        layer.dbiases = rng.standard_normal(layer.biases.shape).astype(np.float32)
        sides.append((layer, adam_class()))

    def step(layer, optimizer):
        optimizer.pre_update_params()
        optimizer.update_params(layer)
        optimizer.post_update_params()

    def check():
        np.testing.assert_allclose(sides[0][0].weights, sides[1][0].weights, rtol=1e-4, atol=1e-6)

    return lambda: step(*sides[0]), lambda: step(*sides[1]), check


def dropout(rows: int, columns: int) -> tuple[Step, Step, Check]:
    """Return forward and backward of each side, and the check that both keep the same part of cells."""
    X = np.ones((rows, columns), np.float32)
    ours, theirs = nnx.Layer_Dropout(0.1, seed=0), reference.Dropout(0.1)

    def step(layer):
        layer.forward(X)
        layer.backward(X)

    def check():
        for layer in (ours, theirs):
            np.testing.assert_allclose(np.mean(layer.binary_mask), 1, atol=0.05)
            np.testing.assert_array_equal(layer.output, layer.dinputs)

    return lambda: step(ours), lambda: step(theirs), check


ROWS: dict[str, Callable[[], tuple[Step, Step, Check]]] = {
    "manual loop, 2-64-3, 300 rows": lambda: network([2, 64, 3], 300),
    "step, 784-128-128-10, 128 rows": lambda: network([784, 128, 128, 10], 128),
    "Adam, 2x64": lambda: adam(2, 64),
    "Adam, 784x128": lambda: adam(784, 128),
    "Adam, 1,000,000 parameters": lambda: adam(1000, 1000),
    "dropout, 300x64": lambda: dropout(300, 64),
    "dropout, 3000x512": lambda: dropout(3000, 512),
}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25, help="blocks of each side in turn")
    rounds = parser.parse_args().rounds
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"{processor()}, one core; Python {platform.python_version()}, NumPy {np.__version__}, nnx {nnx.__version__}")
    print(f"{rounds} alternating blocks of about 40 ms a side; microseconds a step\n")
    print(
        f"{'':<32} {'book: min':>10} {'median':>9} {'nnx: min':>10} {'median':>9} "
        f"{'ratio of medians':>17} {'minima':>7}"
    )
    for title, make in ROWS.items():
        ours, theirs, check = make()
        for _ in range(20):
            ours()
            theirs()
        check()
        n = max(1, int(0.04 / max(seconds(ours, 3), seconds(theirs, 3))))
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(rounds):
            for side in (0, 1) if turn % 2 else (1, 0):
                times[side].append(seconds((ours, theirs)[side], n) * 1e6)
        (best, middle), (best_theirs, middle_theirs) = ((min(t), statistics.median(t)) for t in times)
        print(
            f"{title:<32} {best_theirs:>10.1f} {middle_theirs:>9.1f} {best:>10.1f} {middle:>9.1f} "
            f"{middle_theirs / middle:>17.2f} {best_theirs / best:>7.2f}"
        )


if __name__ == "__main__":
    main()
