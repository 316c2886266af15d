"""nnx on its compiled kernels beside NumPy and the book's way: python benchmarks/bench_native_backend.py

Products run beside ``np.matmul(..., out=)`` with NumPy's own BLAS on one thread, other kernels beside nnx's NumPy
backend, whole steps beside `reference.py`, the book's way. Both sides of a row are checked to compute the same,
then run in alternating blocks on one pinned core; a ratio above 1 means that nnx is ahead. NNX_BACKEND chooses the
variant. Each group of rows has a process of its own, as what was allocated before changes what allocating costs.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import math
import multiprocessing
import platform
import statistics
from collections.abc import Callable, Iterator

import numpy as np
import reference
from timing import processor, seconds

import nnx
from nnx import _kernels
from nnx._kernels import _numpy

Step = Callable[[], object]
#: A title, a step of nnx, one of the other side, their results, and the floating-point operations of a step (or 0).
Row = tuple[str, Step, Step, Callable[[], tuple[object, object]], float]

PRODUCTS = ((128, 784, 128), (128, 128, 128), (256, 1024, 1024))


def products(dtype: str) -> Iterator[Row]:
    """Yield the forward product and the two of backward, beside ``np.matmul``."""
    rng = np.random.default_rng(0)
    for n, k, m in PRODUCTS:
        X, W, D = (rng.standard_normal(shape).astype(dtype) for shape in ((n, k), (k, m), (n, m)))
        biases = np.zeros((1, m), dtype)
        for title, ours, theirs, shape in (
            ("X·W", lambda to, X=X, W=W, b=biases: _kernels.backend.dense_forward(X, W, b, to), (X, W), (n, m)),
            (
                "Xᵀ·D",
                lambda to, X=X, W=W, D=D: _kernels.backend.dense_backward_weights(X, D, W, to, 0.0, 0.0),
                (X.T, D),
                (k, m),
            ),
            ("D·Wᵀ", lambda to, W=W, D=D: _kernels.backend.dense_backward_inputs(D, W, to), (D, W.T), (n, k)),
        ):
            a, b = np.empty(shape, dtype), np.empty(shape, dtype)
            yield (
                f"product {n}x{k}x{m}, {title}",
                lambda ours=ours, a=a: ours(a),
                lambda pair=theirs, b=b: np.matmul(*pair, out=b),
                lambda a=a, b=b: (a, b),
                2.0 * n * k * m,
            )


def kernels(dtype: str) -> Iterator[Row]:
    """Yield single kernels beside those of the NumPy backend."""
    rng = np.random.default_rng(0)
    for n, k, m in ((300, 2, 64), (300, 64, 3)):
        X, W, b = (rng.standard_normal(shape).astype(dtype) for shape in ((n, k), (k, m), (1, m)))
        yield pair(f"dense + bias + ReLU, {n}x{k}->{m}", "dense_relu_forward", (X, W, b), (np.empty((n, m), dtype),))
    for n, m in ((300, 3), (128, 10)):
        X = rng.standard_normal((n, m)).astype(dtype)
        outputs = (np.empty_like(X), np.empty_like(X))
        yield pair(
            f"softmax, loss, hits, gradient, {n}x{m}", "softmax_crossentropy", (X, rng.integers(0, m, n)), outputs
        )
    values, gradients = (rng.standard_normal(1_000_000).astype(dtype) for _ in range(2))
    state = (values, np.zeros_like(values), np.zeros_like(values))
    sides = []
    for module in (_kernels.backend, _numpy):
        w, m, c = (array.copy() for array in state)
        sides.append(
            (
                w,
                lambda module=module, w=w, m=m, c=c: module.optimizer_update(
                    "adam", w, gradients, (m, c), 1e-3, 9, (1e-7, 0.9, 0.999)
                ),
            )
        )
    yield "Adam, 1,000,000; NumPy in place", sides[0][1], sides[1][1], lambda: (sides[0][0], sides[1][0]), 0


def pair(title: str, kernel: str, inputs: tuple[object, ...], outputs: tuple[np.ndarray, ...]) -> Row:
    """Return a row of one kernel on both backends."""
    copies = [tuple(array.copy() for array in outputs) for _ in range(2)]
    ours = lambda: getattr(_kernels.backend, kernel)(*inputs, *copies[0])  # noqa: E731
    theirs = lambda: getattr(_numpy, kernel)(*inputs, *copies[1])  # noqa: E731
    return title, ours, theirs, lambda: (copies[0], copies[1]), 0


def manual_loop(dtype: str) -> Iterator[Row]:
    """Yield the book's loop over the spiral, a call a layer."""
    X, y = spiral(dtype)
    sides = [spiral_network(module, dtype) for module in (nnx, reference)]
    yield (
        "manual loop, 2-64-3, 300 rows",
        lambda: manual_step(*sides[0], X, y),
        lambda: manual_step(*sides[1], X, y),
        lambda: (sides[0][0][2].weights, sides[1][0][2].weights),
        0,
    )


def model_train(dtype: str) -> Iterator[Row]:
    """Yield ``Model.train`` on the spiral beside the book's."""
    X, y = spiral(dtype)
    (layers, _, rule), theirs = spiral_network(nnx, dtype), reference.Model(*spiral_network(reference, dtype))
    model = nnx.Model()
    for layer in (*layers, nnx.Activation_Softmax()):
        model.add(layer)
    model.set(loss=nnx.Loss_CategoricalCrossentropy(), optimizer=rule, accuracy=nnx.Accuracy_Categorical())
    model.finalize()
    yield (
        "Model.train, spiral, 10 epochs",
        lambda: model.train(X, y, epochs=10, print_every=None),
        lambda: theirs.train(X, y, 10),
        lambda: (layers[2].weights, theirs.layers[2].weights),
        0,
    )


def adam(dtype: str) -> Iterator[Row]:
    """Yield an optimizer's step on a layer with a million weights."""
    sides = []
    for dense, optimizer in ((nnx.Layer_Dense, nnx.Optimizer_Adam), (reference.Dense, reference.Adam)):
        np.random.seed(0)
        layer, rule = dense(1000, 1000, dtype=dtype), optimizer()
        rng = np.random.default_rng(0)
        layer.dweights = rng.standard_normal((1000, 1000)).astype(dtype)
        layer.dbiases = rng.standard_normal((1, 1000)).astype(dtype)
        sides.append((layer, rule))
    yield (
        "Adam, 1,000,000; book",
        lambda: sides[0][1].update_params(sides[0][0]),
        lambda: sides[1][1].update_params(sides[1][0]),
        lambda: (sides[0][0].weights, sides[1][0].weights),
        0,
    )


def dropout(dtype: str) -> Iterator[Row]:
    """Yield forward and backward of a dropout layer; both sides' masks keep the same part."""
    X = np.ones((3000, 512), dtype)
    ours, theirs = nnx.Layer_Dropout(0.1, seed=0), reference.Dropout(0.1)

    def step(layer):
        layer.forward(X)
        layer.backward(X)

    yield (
        "dropout, forward + backward, 3000x512",
        lambda: step(ours),
        lambda: step(theirs),
        lambda: (np.round(ours.dinputs.mean(), 1), np.round(theirs.dinputs.mean(), 1)),
        0,
    )


def spiral(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the book's 300 points."""
    np.random.seed(0)
    X, y = nnx.spiral_data(100, 3)
    return X.astype(dtype), y.astype(np.intp)


def spiral_network(module, dtype):
    """Return layers, loss and optimizer of 2-64-3, with the same weights for both modules."""
    np.random.seed(0)
    if module is nnx:
        dense, relu, loss, rule = (
            nnx.Layer_Dense,
            nnx.Activation_ReLU,
            nnx.Activation_Softmax_Loss_CategoricalCrossentropy,
            nnx.Optimizer_Adam,
        )
    else:
        dense, relu, loss, rule = reference.Dense, reference.ReLU, reference.SoftmaxCrossentropy, reference.Adam
    layers = [dense(2, 64, dtype=dtype), relu(), dense(64, 3, dtype=dtype)]
    return layers, loss(), rule(learning_rate=0.05, decay=5e-7)


def manual_step(layers, loss, rule, X, y) -> None:
    """Run the book's loop once: forward, loss, backward, Adam, a call a layer."""
    dense1, relu, dense2 = layers
    dense1.forward(X)
    relu.forward(dense1.output)
    dense2.forward(relu.output)
    loss.forward(dense2.output, y)
    loss.backward(loss.output, y)
    dense2.backward(loss.dinputs)
    relu.backward(dense2.dinputs)
    dense1.backward(relu.dinputs)
    rule.pre_update_params()
    rule.update_params(dense1)
    rule.update_params(dense2)
    rule.post_update_params()


def check(results: tuple[object, object], dtype: str) -> None:
    """Compare both sides' results."""
    tolerance = 1e-3 if dtype == "float32" else 1e-9
    for ours, theirs in zip(*((r if isinstance(r, tuple) else (r,)) for r in results), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * max(1e-3, np.abs(theirs).max()))


def measure(row: Row, dtype: str, rounds: int) -> tuple[list[float], list[float]]:
    """Return the microseconds of each block of both sides, in turn; the first steps are compared and warm up."""
    _, ours, theirs, results, _ = row
    ours()
    theirs()
    check(results(), dtype)  # at once: training amplifies rounding
    n = [max(1, int(0.02 / max(seconds(step, 2), 1e-7))) for step in (ours, theirs)]
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 else (1, 0):
            times[side].append(seconds((ours, theirs)[side], n[side]) * 1e6)
    return times


GROUPS = (products, kernels, adam, dropout, manual_loop, model_train)


def run(group: str, dtype: str, rounds: int) -> None:
    """Measure a group's rows, print them and put them on the list."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for row in globals()[group](dtype):
        ours, theirs = measure(row, dtype, rounds)
        minima, medians = min(theirs) / min(ours), statistics.median(theirs) / statistics.median(ours)
        rate = row[4] / min(ours) / 1e3
        print(
            f"{row[0]:<38} {min(ours):>9.2f} {statistics.median(ours):>9.2f} {min(theirs):>10.2f} "
            f"{statistics.median(theirs):>9.2f} {minima:>13.2f} {medians:>8.2f}"
            + (f"  {rate:.1f} GFLOP/s" if rate else ""),
            flush=True,
        )
        found.setdefault(row[0], []).append((minima, medians, rate))


def run_in_child(group: str, dtype: str, rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """Do `run` and return the list."""
    run(group, dtype, rounds)
    return found


#: For each row and dtype: the ratios of minima and of medians, and GFLOP/s.
found: dict[str, list[tuple[float, float, float]]] = {}


def main() -> None:
    """Measure and print the table, float64 after float32."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="blocks of each side in turn")
    rounds = parser.parse_args().rounds
    print(f"{processor()}, one core; Python {platform.python_version()}, NumPy {np.__version__}, nnx {nnx.__version__}")
    print(f"{_kernels.name}; {rounds} alternating blocks of about 20 ms a side; microseconds a step\n")
    print(
        f"{'':<38} {'nnx: min':>9} {'median':>9} {'other: min':>10} {'median':>9} {'ratio: minima':>13} {'medians':>8}"
    )
    for dtype in ("float32", "float64"):
        print(dtype, flush=True)
        for group in GROUPS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                for title, values in pool.apply(run_in_child, (group.__name__, dtype, rounds)).items():
                    found.setdefault(title, []).extend(values)
    several = [values for title, values in found.items() if title.startswith("product")]
    for i, dtype in enumerate(("float32", "float64")):
        means = [math.exp(statistics.fmean(math.log(values[i][j]) for values in several)) for j in (0, 1)]
        print(f"products, geometric mean, {dtype}: {means[0]:.3f} of minima, {means[1]:.3f} of medians")
    print("\nfloat64 beside float32: GFLOP/s of products, ratios of the others")
    for title, (single, double) in found.items():
        print(f"{title:<38} {double[2] / single[2] if single[2] else double[0] / single[0]:>6.2f}")


if __name__ == "__main__":
    main()
