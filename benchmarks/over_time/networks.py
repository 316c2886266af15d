"""Five networks, from 2-64-3 to 784-1024-1024-10: epochs of training, calls of predict, and a predictor's."""

from __future__ import annotations

import itertools
import time

import numpy as np

import nnx

#: Widths, samples, batch size, epochs of one measurement, rate of dropout, L2 of the first layer.
NETWORKS = {
    "spiral 2-64-3": ((2, 64, 3), 300, 300, 1000, 0.0, 0.0),
    "tabular 32-64-32-2": ((32, 64, 32, 2), 3200, 32, 20, 0.0, 0.0),
    "regularized 2-512-3": ((2, 512, 3), 3000, 3000, 20, 0.1, 5e-4),
    "fashion 784-128-128-10": ((784, 128, 128, 10), 2560, 128, 4, 0.0, 0.0),
    "wide 784-1024-1024-10": ((784, 1024, 1024, 10), 1024, 256, 2, 0.0, 0.0),
}


def network(widths: tuple[int, ...], dropout: float, l2: float) -> nnx.Model:
    """Return a classifier with ReLU, ready to train with Adam."""
    np.random.seed(0)
    model = nnx.Model()
    for i, (n_inputs, n_neurons) in enumerate(itertools.pairwise(widths)):
        regularized = {"weight_regularizer_l2": l2, "bias_regularizer_l2": l2} if i == 0 and l2 else {}
        model.add(nnx.Layer_Dense(n_inputs, n_neurons, **regularized))
        if i < len(widths) - 2:
            model.add(nnx.Activation_ReLU())
            if dropout and i == 0:
                model.add(nnx.Layer_Dropout(dropout))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(learning_rate=1e-3),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


class Networks:
    """A run of several epochs, and predictions of one row and of a batch."""

    params = (list(NETWORKS),)
    param_names = ("network",)
    timer = time.process_time

    def setup(self, name: str) -> None:
        widths, n_samples, self.batch_size, self.epochs, dropout, l2 = NETWORKS[name]
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((n_samples, widths[0]), np.float32)
        self.y = rng.integers(0, widths[-1], n_samples)
        self.model = network(widths, dropout, l2)
        self.time_train(name)  # the plan is made, and memory is warm
        self.row, self.rows = self.X[:1].copy(), self.X[: self.batch_size].copy()
        self.predictor = self.model.predictor()

    def time_train(self, name: str) -> None:
        self.model.train(self.X, self.y, epochs=self.epochs, batch_size=self.batch_size, print_every=None, threads=1)

    def time_predict_one_row(self, name: str) -> None:
        self.model.predict(self.row)

    def time_predict_a_batch(self, name: str) -> None:
        self.model.predict(self.rows, threads=1)

    def time_predictor_one_row(self, name: str) -> None:
        self.predictor(self.row)
