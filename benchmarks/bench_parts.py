"""What some parts cost, nnx beside nnx: python benchmarks/bench_parts.py

- A loss of one's own beside the built-in one that computes the same, in a training step.
- A callback that does nothing beside none, in an epoch.
- A network with batch normalization beside one of the same widths without, in a prediction: the second one's weights
  and biases are such that it predicts the same.

Both sides of a row are checked to compute the same, then run in alternating blocks on one pinned core. A ratio above 1
means that the first side takes longer. NNX_BACKEND chooses the variant.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import itertools
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from timing import processor, seconds

import nnx
from nnx import _kernels

#: What a block takes, about.
BLOCK_SECONDS = 0.03
#: Of a batch, and of all samples to train on.
N_BATCH, N_SAMPLES = 32, 2048
#: In one call of `Model.train`: what the call itself costs is shared by them.
EPOCHS = 40


@dataclass
class Row:
    """Two sides that compute the same.

    Attributes
    ----------
    unit : str
        What microseconds are given of.
    units : int
        How many of them a call of a side has.
    sides : pair of callables
        Each returns what it has computed.
    tolerance : float
        How far results may be apart.
    """

    title: str
    unit: str
    units: int
    sides: tuple[Callable[[], object], Callable[[], object]]
    tolerance: float


class Loss_Own(nnx.Loss):
    """The mean squared error, as a user would write it."""

    def forward(self, y_pred, y_true):
        return np.mean((y_pred - y_true) ** 2, axis=-1)

    def backward(self, dvalues, y_true):
        self.dinputs = 2 * (dvalues - y_true) / dvalues.size


class Nothing(nnx.Callback):
    """A callback that is called, and does nothing."""

    def on_epoch_end(self, run):
        pass


def network(loss: nnx.Loss) -> nnx.Model:
    """Return 32-64-32-2 with Adam, always with the same weights."""
    np.random.seed(0)
    model = nnx.Model()
    for n_in, n_out in ((32, 64), (64, 32)):
        model.add(nnx.Layer_Dense(n_in, n_out, weight_initializer="he_normal"))
        model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dense(32, 2))
    model.add(nnx.Activation_Linear())
    model.set(loss=loss, optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    return model


def training(loss: nnx.Loss, n: int, callbacks: list[nnx.Callback] | None = None) -> Callable[[], object]:
    """Return a call that trains on ``n`` samples for some epochs; it returns the last epoch's loss."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 32)).astype(np.float32)
    y = np.sin(X @ rng.standard_normal((32, 2))).astype(np.float32)
    model = network(loss)
    options = {} if callbacks is None else {"callbacks": callbacks}

    def train() -> object:
        history = model.train(X, y, epochs=EPOCHS, batch_size=N_BATCH, print_every=None, threads=1, **options)
        return history.loss[-1]

    return train


def own_loss() -> Iterator[Row]:
    """Yield a step with a loss of one's own."""
    sides = training(Loss_Own(), N_SAMPLES), training(nnx.Loss_MeanSquaredError(), N_SAMPLES)
    yield Row("own loss beside built-in, 32-64-32-2 x32", "step", EPOCHS * N_SAMPLES // N_BATCH, sides, 1e-4)


def callback() -> Iterator[Row]:
    """Yield epochs with a callback: of one step, and of many."""
    for n in (N_BATCH, N_SAMPLES):
        sides = training(nnx.Loss_MeanSquaredError(), n, [Nothing()]), training(nnx.Loss_MeanSquaredError(), n)
        steps = n // N_BATCH
        title = f"callback beside none, {steps} step{'s' * (steps > 1)} an epoch"
        yield Row(title, "epoch", EPOCHS, sides, 0.0)


def prediction() -> Iterator[Row]:
    """Yield predictions with batch normalization."""
    for widths in ((32, 64, 32, 2), (784, 128, 128, 10)):
        models = with_and_without(widths)
        for n in (1, 256):
            X = np.random.default_rng(0).standard_normal((n, widths[0])).astype(np.float32)
            for title, functions in (
                ("predict", [model.predict for model in models]),
                ("predictor", [model.predictor() for model in models]),
            ):
                first, second = (lambda function=function, X=X: function(X) for function in functions)
                what = f"batch norm, {title}, {'-'.join(map(str, widths))} x{n}"
                yield Row(what, "call", 1, (first, second), 1e-5)


def with_and_without(widths: tuple[int, ...]) -> tuple[nnx.Model, nnx.Model]:
    """Return a network with batch normalization behind all dense layers but the last, and one without like it."""
    rng = np.random.default_rng(0)
    models = nnx.Model(), nnx.Model()
    for n_in, n_out in itertools.pairwise(widths[:-1]):
        normalized, plain = nnx.Layer_Dense(n_in, n_out), nnx.Layer_Dense(n_in, n_out)
        norm = nnx.Layer_BatchNorm(n_out)
        normalized.weights[...] = rng.standard_normal((n_in, n_out)) / np.sqrt(n_in)
        for array in (normalized.biases, norm.biases, norm.running_mean):
            array[...] = rng.standard_normal((1, n_out))
        for array in (norm.weights, norm.running_variance):
            array[...] = rng.uniform(0.5, 1.5, (1, n_out))
        scale = norm.weights / np.sqrt(norm.running_variance + norm.epsilon)
        plain.weights[...] = normalized.weights * scale
        plain.biases[...] = (normalized.biases - norm.running_mean) * scale + norm.biases
        for model, layers in zip(models, ((normalized, norm), (plain,)), strict=True):
            for layer in (*layers, nnx.Activation_ReLU()):
                model.add(layer)
    last = rng.standard_normal(widths[-2:]) / np.sqrt(widths[-2])
    for model in models:
        dense = nnx.Layer_Dense(*widths[-2:])
        dense.weights[...] = last
        model.add(dense)
        model.add(nnx.Activation_Softmax())
        model.finalize()
    return models


def check(row: Row) -> None:
    """Compare both sides' results, which warms them up."""
    for _ in range(2):
        first, second = (np.asarray(side()) for side in row.sides)
        np.testing.assert_allclose(first, second, rtol=row.tolerance, atol=row.tolerance, err_msg=row.title)


def measure(row: Row, rounds: int) -> tuple[list[float], list[float]]:
    """Return the microseconds of a unit, a block each, of both sides in turn."""
    n = [max(1, int(BLOCK_SECONDS / seconds(side, 2))) for side in row.sides]
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 else (1, 0):
            times[side].append(seconds(row.sides[side], n[side]) / row.units * 1e6)
    return times


GROUPS = {"loss": own_loss, "callback": callback, "prediction": prediction}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21, help="blocks of each side in turn")
    parser.add_argument("--only", choices=GROUPS, help="one group of rows")
    chosen = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{processor()}, one core; Python {platform.python_version()}, NumPy {np.__version__}, nnx {nnx.__version__}")
    print(f"{_kernels.name}; {chosen.rounds} alternating blocks of about {BLOCK_SECONDS * 1e3:.0f} ms a side\n")
    print(f"{'microseconds, median (minimum)':<44} {'of a':<6} {'first':>17} {'second':>17} {'ratio':>13} {'apart':>7}")
    for name, rows in GROUPS.items():
        if chosen.only in (None, name):
            for row in rows():
                check(row)
                print(line(row, measure(row, chosen.rounds)), flush=True)


def line(row: Row, times: tuple[list[float], list[float]]) -> str:
    """Return a line of the table: the ratio of medians (of minima), and how many microseconds the medians are apart."""
    medians, minima = [statistics.median(side) for side in times], [min(side) for side in times]
    cells = [f"{median:.2f} ({least:.2f})" for median, least in zip(medians, minima, strict=True)]
    ratio = f"{medians[0] / medians[1]:.2f} ({minima[0] / minima[1]:.2f})"
    return f"{row.title:<44} {row.unit:<6} {cells[0]:>17} {cells[1]:>17} {ratio:>13} {medians[0] - medians[1]:>7.2f}"


if __name__ == "__main__":
    main()
