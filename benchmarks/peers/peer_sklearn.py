"""scikit-learn: `MLPClassifier` and `MLPRegressor`, float32 in and therefore float32 throughout.

All epochs of a block are one ``fit``, whose checks are then paid once. It has no dropout, one penalty for all layers,
and one logistic output for two classes: workloads that want any of that otherwise are left out. Its squared loss is
half the mean, which Adam does not notice. Of activations it has ReLU and tanh, and it has neither Huber's loss nor what
AdamW, schedules and clipping need.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from workloads import BETA_1, BETA_2, EPSILON, LEARNING_RATE, Candidate, Workload, initial_parameters, samples

VERSION = sklearn.__version__

warnings.filterwarnings("ignore", category=ConvergenceWarning)  # the epochs were as many as were asked for


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the way to train."""
    another_net = workload.loss == "softmax" and workload.widths[-1] == 2
    lacking = (
        workload.activation not in ("relu", "tanh")
        or workload.loss == "huber"
        or workload.weight_decay
        or workload.schedule_steps
        or workload.clip_norm
    )
    if workload.kind != "train" or workload.dropout or workload.l2 or another_net or lacking:
        return {}
    return {"": lambda: Training(workload)}


class Training:
    """A unit is an epoch."""

    def __init__(self, workload: Workload) -> None:
        self.steps = workload.steps
        self.X, y = samples(workload)
        self.y = y.ravel()
        self.initial = initial_parameters(workload)
        estimator = MLPRegressor if workload.loss == "squares" else MLPClassifier
        self.estimator = estimator(
            hidden_layer_sizes=workload.widths[1:-1],
            activation=workload.activation,
            solver="adam",
            alpha=0.0,
            batch_size=workload.batch,
            learning_rate_init=LEARNING_RATE,
            beta_1=BETA_1,
            beta_2=BETA_2,
            epsilon=EPSILON,
            shuffle=False,
            warm_start=True,
            tol=0.0,
            n_iter_no_change=10**9,
            max_iter=1,
        )
        self.estimator.fit(self.X, self.y)
        self.reset()

    def reset(self) -> None:
        self.estimator.coefs_ = [weights.copy() for weights, _ in self.initial]
        self.estimator.intercepts_ = [biases.copy() for _, biases in self.initial]

    def run(self, units: int) -> None:
        self.estimator.max_iter = units
        self.estimator.fit(self.X, self.y)

    def results(self) -> list[np.ndarray]:
        pairs = zip(self.estimator.coefs_, self.estimator.intercepts_, strict=True)
        return [array.copy() for pair in pairs for array in pair]
