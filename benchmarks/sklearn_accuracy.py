"""What nnx's estimators score beside scikit-learn's: python benchmarks/sklearn_accuracy.py [--seeds 10]

Both are fitted with their defaults, scikit-learn in float64 and nnx in float32, to the same number of epochs, and
scored on a quarter of the rows that a seed has put aside. Printed are mean and standard deviation over the seeds, and
whether nnx's mean is within one standard deviation of scikit-learn's, or above it.
"""

from __future__ import annotations

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import statistics
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any

import sklearn
from sklearn import neural_network as theirs
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn_data import NEEDS_FILES, is_there, load

import nnx
from nnx import _kernels
from nnx import sklearn as ours


@dataclass(frozen=True)
class Experiment:
    """A data set and what differs from the defaults."""

    title: str
    data: str
    epochs: int
    kind: str = "MLPClassifier"
    settings: dict[str, Any] = field(default_factory=dict)

    def score(self, library: Any, seed: int) -> float:
        """Fit with a seed, and return the score on the rows put aside: accuracy, or R² of a regression."""
        X, X_test, y, y_test = train_test_split(*load(self.data), random_state=seed)
        estimator = getattr(library, self.kind)(max_iter=self.epochs, random_state=seed, **self.settings)
        return float(estimator.fit(X, y).score(X_test, y_test))


EXPERIMENTS = [
    Experiment("digits", "digits", 100),
    Experiment("digits, sgd", "digits", 100, settings={"solver": "sgd"}),
    Experiment("digits, lbfgs", "digits", 100, settings={"solver": "lbfgs"}),
    Experiment("digits, early stopping", "digits", 100, settings={"early_stopping": True}),
    Experiment("breast cancer", "breast_cancer", 100),
    Experiment("breast cancer, lbfgs", "breast_cancer", 100, settings={"solver": "lbfgs"}),
    Experiment("synthetic", "synthetic", 20),
    Experiment("Adult", "adult", 5),
    Experiment("California", "california", 20, "MLPRegressor"),
]


def row(experiment: Experiment, seeds: int) -> str:
    """Return a line of the table."""
    scores = []
    for name, library in (("scikit-learn", theirs), ("nnx", ours)):
        scores.append([experiment.score(library, seed) for seed in range(seeds)])
        print(f"{experiment.title}, {name}: {[round(score, 4) for score in scores[-1]]}", file=sys.stderr, flush=True)
    means, deviations = [[function(each) for each in scores] for function in (statistics.mean, statistics.stdev)]
    cells = [f"{mean:.4f} ± {deviation:.4f}" for mean, deviation in zip(means, deviations, strict=True)]
    within = "yes" if means[1] >= means[0] - deviations[0] else "no"
    return f"| {experiment.title} | {experiment.epochs} | {' | '.join(cells)} | {means[1] - means[0]:+.4f} | {within} |"


def main() -> None:
    """Fit everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="from 0 on; at least 2 (default: 10)")
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[""], help="those whose titles have one of these")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be a whole number from 2 up")
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("| data | epochs | scikit-learn | nnx | difference | within one deviation |\n|---|---:|---:|---:|---:|---|")
    for experiment in EXPERIMENTS:
        if any(word in experiment.title for word in options.only):
            if is_there(experiment.data):
                print(row(experiment, options.seeds), flush=True)
            else:
                print(f"{experiment.title}: no {NEEDS_FILES[experiment.data]} below NNX_DATA_HOME", file=sys.stderr)
    print(
        f"\nAccuracy, or R² of California, on a quarter of the rows; mean ± standard deviation over {options.seeds} "
        f"seeds. scikit-learn {sklearn.__version__}, nnx {nnx.__version__} ({_kernels.name})."
    )


if __name__ == "__main__":
    main()
