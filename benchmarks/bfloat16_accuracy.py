"""What bfloat16 products cost in accuracy: real data, float32 beside bfloat16, with the same seeds.

    python benchmarks/bfloat16_accuracy.py --adult adult.data adult.test --california housing.csv

trains the networks of ``nnx train`` in both precisions, from the same weights, in the same order of samples, and prints
a Markdown table of what they reach on data that they have not seen. Scores are computed in float32 for both. Fashion-
MNIST is found as `nnx.load_fashion_mnist` finds it; the tables are those of accuracy.md, left out unless named.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import nnx
from nnx._base import precision

PRECISIONS = ("float32", "bfloat16")

#: Samples and targets to train on, and to test on.
Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Experiment:
    """A data set, and how ``nnx train`` trains on it.

    Attributes
    ----------
    load : callable
        Returns the data of a seed: where there is no test set, the seed chooses the fifth that is kept for testing.
    n_outputs : int
        Classes; 1 for a regression.
    """

    title: str
    load: Callable[[int], Data]
    n_outputs: int
    layers: tuple[int, ...] = (64, 64)
    epochs: int = 20
    batch: int = 64
    rate: float = 0.003
    l2: float = 1e-4

    @property
    def measure(self) -> str:
        """What `Model.score` returns."""
        return "R²" if self.n_outputs == 1 else "accuracy"

    def score(self, seed: int, products: str) -> float:
        """Train, and return the score on the test data."""
        X, y, X_test, y_test = self.load(seed)
        model = self._model(seed, X.shape[1])
        model.train(
            X,
            y,
            epochs=self.epochs,
            batch_size=self.batch,
            print_every=None,
            shuffle=True,
            seed=seed,
            precision=products,
        )
        return model.score(X_test, y_test)

    def _model(self, seed: int, n_inputs: int) -> nnx.Model:
        np.random.seed(seed)
        model = nnx.Model()
        for n_neurons in self.layers:
            model.add(
                nnx.Layer_Dense(n_inputs, n_neurons, weight_regularizer_l2=self.l2, weight_initializer="he_normal")
            )
            model.add(nnx.Activation_ReLU())
            n_inputs = n_neurons
        model.add(nnx.Layer_Dense(n_inputs, self.n_outputs))
        optimizer = nnx.Optimizer_Adam(learning_rate=self.rate, decay=1e-3)
        if self.n_outputs == 1:
            model.add(nnx.Activation_Linear())
            model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=optimizer, accuracy=nnx.Accuracy_Regression())
        else:
            model.add(nnx.Activation_Softmax())
            model.set(loss=nnx.Loss_CategoricalCrossentropy(), optimizer=optimizer, accuracy=nnx.Accuracy_Categorical())
        model.finalize()
        return model


@functools.cache
def fashion_mnist(folder: str | None) -> Data:
    """Return the images as inputs between -1 and 1, in rows."""
    X, y, X_test, y_test = nnx.load_fashion_mnist(folder)
    images = nnx.Images(X.shape[1], X.shape[2], nnx.FASHION_MNIST_CLASSES)
    return images.inputs(X), y, images.inputs(X_test), y_test


@functools.cache
def adult(train: str, test: str) -> Data:
    """Return the census, whose test set is a file of its own."""
    X, y, _, _, table = nnx.load_csv(train, -1, test_size=0)
    return X, y, *table.read_samples(test)


def california(path: str, seed: int) -> Data:
    """Return the houses, split by the seed."""
    X, y, X_test, y_test, _ = nnx.load_csv(path, "median_house_value", seed=seed)
    return X, y, X_test, y_test


def experiments(options: argparse.Namespace) -> Iterator[Experiment]:
    """Yield what the command line asks for."""
    if not options.no_fashion_mnist:
        yield Experiment(
            "Fashion-MNIST",
            lambda _: fashion_mnist(options.fashion_mnist),
            10,
            layers=(128, 128),
            epochs=10,
            batch=128,
            rate=0.001,
            l2=0.0,
        )
    if options.adult:
        yield Experiment("Adult", lambda _: adult(*options.adult), 2)
    if options.california:
        yield Experiment("California housing", lambda seed: california(options.california, seed), 1)


def row(experiment: Experiment, n_seeds: int) -> str:
    """Return a line of the table."""
    means, cells = [], []
    for products in PRECISIONS:
        scores = []
        for seed in range(n_seeds):
            scores.append(experiment.score(seed, products))
            print(f"{experiment.title}, {products}, seed {seed}: {scores[-1]:.4f}", file=sys.stderr, flush=True)
        means.append(statistics.mean(scores))
        cells.append(f"{means[-1]:.4f} ± {statistics.stdev(scores):.4f}")
    cells.append(f"{means[1] - means[0]:+.4f}")
    return f"| {experiment.title} | {experiment.measure} | {' | '.join(cells)} |"


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion-mnist", metavar="FOLDER", help="where its four files are")
    parser.add_argument("--no-fashion-mnist", action="store_true", help="leave it out")
    parser.add_argument("--adult", nargs=2, metavar=("adult.data", "adult.test"))
    parser.add_argument("--california", metavar="housing.csv")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="from 0 on; at least 2 (default: 5)")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be a whole number from 2 up")
    return options


def main() -> None:
    """Train everything and print the table."""
    options = arguments()
    print(f"| test data | score | {' | '.join(PRECISIONS)} | difference |\n|---|---|---:|---:|---:|")
    for experiment in experiments(options):
        print(row(experiment, options.seeds), flush=True)
    print(
        f"\nMean ± standard deviation over {options.seeds} seeds. "
        f"nnx {nnx.__version__} ({nnx._kernels.name}); bfloat16 {precision.how_bfloat16_runs()}."
    )


if __name__ == "__main__":
    main()
