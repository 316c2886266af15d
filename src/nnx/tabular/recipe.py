"""Which networks are trained for a table, and how: a function of its size, its task and the effort alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

Effort = Literal["fast", "default", "best"]
#: What an encoding of numbers is made of.
Encoding = Literal["none", "quantiles", "tree"]

EFFORTS = ("fast", "default", "best")

#: How a `Table` prepares columns for these networks: keywords of `Table.learn` and `load_csv`.
PREPARATION: dict[str, Any] = {"scaling": "robust", "indicators": True, "one_hot": 64}


@dataclass(frozen=True)
class Shape:
    """What of a table decides how it is learnt."""

    n_rows: int
    n_inputs: int
    n_numeric: int
    #: 0 for numbers.
    n_classes: int


@dataclass(frozen=True)
class Network:
    """A kind of network, and how it trains."""

    encoding: Encoding
    #: Parts of each column of numbers, at most.
    bins: int = 0
    hidden: tuple[int, ...] = (64, 64, 64)
    activation: str = "SELU"
    dropout: float = 0.05
    rate: float = 0.002
    weight_decay: float = 0.03
    beta_2: float = 0.95
    #: How many steps a training has, at most, as a multiple of the usual number.
    steps: float = 1.0
    #: Whether it ends with the weights of its best epoch, or with those of the last one.
    keeps_best: bool = True
    #: Of how many pairs of columns its encoding sees sum and difference, too, at most.
    pairs: int = 0

    @property
    def name(self) -> str:
        """What a reader sees of it."""
        encoded = {"none": "no encoding", "quantiles": f"{self.bins} quantiles", "tree": f"{self.bins} leaves"}
        return f"{encoded[self.encoding]}, {'-'.join(map(str, self.hidden))}, {self.activation}"

    def n_weights(self, shape: Shape) -> int:
        """Return by how many weights a row is multiplied; those of encodings, of which it meets few, do not count."""
        widths = (shape.n_inputs, *self.hidden, shape.n_classes or 1)
        return sum(before * after for before, after in itertools.pairwise(widths))


@dataclass(frozen=True)
class Plan:
    """The networks to train: each of ``networks`` once for each of the first ``n_used`` of ``n_folds`` folds."""

    networks: tuple[Network, ...]
    n_folds: int
    n_used: int
    batch_size: int
    #: Multiply-adds of one network's training, at most, unless it has the fewest epochs anyway.
    work: float

    def epochs(self, network: Network, shape: Shape) -> int:
        """Return how many epochs a network trains, at most."""
        rows = max(1, shape.n_rows * (self.n_folds - 1) // self.n_folds)
        steps = network.steps * (CLASS_STEPS if shape.n_classes else NUMBER_STEPS)
        wanted = round(steps / -(-rows // self.batch_size))
        affordable = int(self.work / (rows * network.n_weights(shape)))
        return max(MIN_EPOCHS, min(MAX_EPOCHS, wanted, affordable))


#: Steps of a training: numbers take longer to learn to the last digit than classes.
NUMBER_STEPS, CLASS_STEPS = 7500, 2500
MIN_EPOCHS, MAX_EPOCHS = 6, 300
#: Multiply-adds of all trainings together, about: a core does some 2e10 a second.
WORK = {"fast": 5e10, "default": 2e11, "best": 3e12}
#: From so many rows on, one part of them is held out for all networks; below, each row once.
LARGE = 5000
#: The batch's rows, for tables of at most so many rows.
BATCHES = ((2_000, 32), (6_000, 64), (20_000, 128), (100_000, 256), (400_000, 512))
#: Encodings of all columns together, at most, and rows a bin has, at least.
MAX_ENCODINGS, ROWS_A_BIN = 6000, 3

#: What is good for tables of many rows with a target of numbers, and with classes.
QUANTILES = Network("quantiles", 48, pairs=1)
STEPS = Network("tree", 16, (256,), "Mish", dropout=0.3, rate=0.003, beta_2=0.999, pairs=1)
#: Trained to the end: each errs more than at its best epoch, but the mean of several does not.
LONG = Network(
    "quantiles",
    96,
    (64, 64),
    "Mish",
    dropout=0.2,
    rate=0.003,
    weight_decay=0.0,
    beta_2=0.999,
    steps=1.25,
    keeps_best=False,
    pairs=1,
)
#: What is good for few rows: weights are kept small.
TREE = Network("tree", 64, (96, 96), "ReLU", weight_decay=1.0, pairs=1)
PLAIN = Network("none", 0, (128, 128, 128), "ReLU", dropout=0.2, rate=0.005, weight_decay=1.0)
SHRUNK = Network("quantiles", 48, (64, 64, 64), "ReLU", dropout=0.0, weight_decay=1.0)
SMALL = Network("tree", 32, (64, 64), "Mish", dropout=0.2, rate=0.003, weight_decay=0.0, beta_2=0.999, pairs=1)
TINY = Network("none", 0, (64, 64), "Mish", dropout=0.1, rate=0.003, weight_decay=0.3)
WIDE = Network("none", 0, (128, 128, 128))
#: Best effort: what differs from the first kind, and errs elsewhere.
OF_NUMBERS = (
    replace(QUANTILES, dropout=0.1, steps=1.65),
    replace(LONG, steps=3.3),
    replace(LONG, bins=128, activation="SiLU", steps=3.3, pairs=2),
    replace(QUANTILES, bins=96, dropout=0.1, steps=1.65, pairs=2),
    replace(QUANTILES, activation="Tanh", dropout=0.1, steps=1.65),
)
OF_CLASSES = (
    STEPS,
    replace(STEPS, bins=24, hidden=(128,), dropout=0.2, pairs=1),
    replace(STEPS, bins=12, hidden=(128,), dropout=0.2),
    Network("tree", 32, (64, 64), dropout=0.3, rate=0.003, weight_decay=1.0, pairs=1),
    SMALL,
    TREE,
    WIDE,
)
#: For few rows, those beside.
OF_FEW = (TREE, PLAIN, SHRUNK, SMALL, QUANTILES)


def plan(shape: Shape, effort: str) -> Plan:
    """Return what is trained for a table of this shape."""
    batch_size = next((size for rows, size in BATCHES if shape.n_rows <= rows), 1024)
    is_large = shape.n_rows >= LARGE
    networks = tuple(dict.fromkeys(_fitted(network, shape) for network in _networks(shape, effort, is_large)))
    n_folds, n_used = _folds(effort, is_large)
    return Plan(networks, n_folds, n_used, batch_size, WORK[effort] / (len(networks) * n_used))


def _folds(effort: str, is_large: bool) -> tuple[int, int]:
    """Return into how many parts the rows are divided, and how many of these are held out, one after the other."""
    if effort == "best":
        return (16, 8) if is_large else (8, 8)
    if effort == "default":
        return (16, 3) if is_large else (5, 5)
    return (16, 1) if is_large else (5, 3)


def _networks(shape: Shape, effort: str, is_large: bool) -> tuple[Network, ...]:
    """Return the kinds of networks, of which held-out rows choose."""
    if effort == "best":
        own = OF_CLASSES if shape.n_classes else OF_NUMBERS
        return own if is_large else (*OF_FEW, *own, TINY)
    if is_large:
        first, second = (STEPS, WIDE) if shape.n_classes else (QUANTILES, LONG)
        return (first, second) if effort == "default" else (first,)
    return OF_FEW if effort == "default" else (SMALL, TINY)


def _fitted(network: Network, shape: Shape) -> Network:
    """Return a network with no more bins than the table has use for."""
    if network.encoding == "none":
        return network
    if shape.n_rows < LARGE:
        network = replace(network, pairs=0)  # in few rows, chance makes pairs
    bins = min(network.bins, shape.n_rows // ROWS_A_BIN, MAX_ENCODINGS // max(1, shape.n_numeric))
    if bins < 4 or shape.n_numeric == 0:
        return replace(network, encoding="none", bins=0, pairs=0)
    return replace(network, bins=bins)
