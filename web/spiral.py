"""What the page trains: a network on a spiral, in slices of a few milliseconds. The worker calls `Lesson`.

All arithmetic is nnx's: `Model.train` makes the steps, `Model.predict` gives the decision regions.
"""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter

import numpy as np

import nnx

SIDE = 64  # of the grid of points whose classes are shown; the page draws it larger, smoothly
POINTS = 100  # of each class
REACH = 1.1  # the picture shows from -1.1 to 1.1; the arms end at a radius of 1


def spiral(classes: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of `nnx.spiral_data`, with another noise than its 0.2, and their classes."""
    generator = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), POINTS)
    radius = np.tile(np.linspace(0.0, 1.0, POINTS), classes)
    angle = 4 * (y + radius) + noise * generator.standard_normal(len(y))
    X = np.column_stack([radius * np.sin(2.5 * angle), radius * np.cos(2.5 * angle)])
    return X.astype(np.float32), y


class Lesson:
    """One network and its spiral.

    Parameters
    ----------
    classes, width, layers : int
        Arms of the spiral; neurons of a hidden layer; hidden layers.
    rate, noise : float
        Learning rate; standard deviation of the angles, in radians before the turn by 2.5.
    seed : int
        Of the points and of the first weights.
    """

    def __init__(self, classes: int, width: int, layers: int, rate: float, noise: float, seed: int) -> None:
        self.X, self.y = spiral(classes, noise, seed)
        self.new = spiral(classes, noise, seed + 1)
        np.random.seed(seed)  # the layers' weights are drawn from NumPy's global generator, as in the book
        model = self.model = nnx.Model()
        widths = [2, *[width] * layers]
        for n_inputs, n_neurons in pairwise(widths):
            model.add(nnx.Layer_Dense(n_inputs, n_neurons, weight_initializer="he_uniform"))
            model.add(nnx.Activation_ReLU())
        model.add(nnx.Layer_Dense(width, classes))
        model.add(nnx.Activation_Softmax())
        self.optimizer = nnx.Optimizer_Adam(learning_rate=rate)
        model.set(
            loss=nnx.Loss_CategoricalCrossentropy(), optimizer=self.optimizer, accuracy=nnx.Accuracy_Categorical()
        )
        model.finalize()
        across = np.linspace(-REACH, REACH, SIDE, dtype=np.float32)
        self.grid = np.column_stack([np.tile(across, SIDE), np.repeat(across[::-1], SIDE)])
        self.epochs = 1  # of the next call of train: as many as fit into half of a slice

    def set_rate(self, rate: float) -> None:
        """Go on with another learning rate."""
        self.optimizer.learning_rate = rate

    def train(self, milliseconds: float, most: int) -> tuple[list[float], list[float], float]:
        """Train for some milliseconds, at most so many steps; return each step's loss and accuracy, and the seconds."""
        losses: list[float] = []
        accuracies: list[float] = []
        begin = perf_counter()
        spent = 0.0
        while spent < milliseconds / 1000 and len(losses) < most:
            epochs = min(self.epochs, most - len(losses))
            history = self.model.train(self.X, self.y, epochs=epochs, print_every=None)
            losses += list(history.loss)
            accuracies += list(history.accuracy)
            spent, before = perf_counter() - begin, spent
            if spent - before < milliseconds / 2000:
                self.epochs = min(2 * self.epochs, 1000)
            elif spent - before > milliseconds / 1000:
                self.epochs = max(self.epochs // 2, 1)
        return losses, accuracies, spent

    def regions(self) -> np.ndarray:
        """Return the classes' probabilities at the grid's points, row by row from the top, in 255ths."""
        return np.round(255 * self.model.predict(self.grid)).astype(np.uint8)

    def accuracy_on_new_points(self) -> float:
        """Return the accuracy on another draw of the same spiral."""
        return self.model.evaluate(*self.new, silent=True)["accuracy"]


def lesson() -> None:
    """Do once all that the page does: what this imports, the page has compiled in advance."""
    short = Lesson(classes=3, width=4, layers=2, rate=0.01, noise=0.1, seed=0)
    short.train(milliseconds=1, most=2)
    short.regions()
    short.accuracy_on_new_points()
