"""What is measured: networks, data, initial weights, and the loss by which peers are compared before they are timed.

All of it is a function of the names below, so that every process makes the same for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

#: For each part that has any: weights and biases; of the embedding its table alone.
Parameters = list[tuple[np.ndarray, ...]]

LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7
#: Where Huber's loss turns from squares to a straight line.
DELTA = 1.0
#: Of batch normalization: what keeps the division finite, and how much of the running figures a step keeps.
NORM_EPSILON, NORM_MOMENTUM = 1e-5, 0.9


@dataclass(frozen=True)
class Workload:
    """A row of the tables.

    Attributes
    ----------
    kind : str
        ``train`` (epochs), ``run`` (epochs until a loss on held-out samples no longer falls), ``call`` (a training call
        for each step), ``print`` (a line for each step) or ``predict``.
    widths : tuple of int
        Of the first dense layer's inputs and of each dense layer.
    loss : str
        ``softmax`` (and cross-entropy), ``sigmoid`` (and cross-entropy), ``squares`` (their mean) or ``huber`` (mean,
        with `DELTA`).
    dropout : float
        The rate. With 0 there is none.
    dropouts : int
        After how many activations, counted from the first one.
    l2 : float
        On weights and biases of the first dense layer.
    seconds : float
        What a block of steps shall take; longer where an epoch is long.
    checks : tuple of int
        Numbers of steps after which the peers' losses are compared.
    tolerances : tuple of float
        How far losses may be apart, as a part of what training has changed them by; one for each check, or none.
    epochs : int
        Of a long run, of which the last epochs are compared with the first; 0 for blocks of steps.
    activation : str
        Between dense layers: ``relu``, ``tanh``, ``gelu`` (by erf) or ``silu``.
    weight_decay : float
        AdamW's, on weights alone. With 0 the optimizer is Adam.
    schedule_steps : int
        Steps in which the learning rate falls along half a cosine to 0, where it stays. With 0 it is constant.
    clip_norm : float
        The most that the norm of all gradients together may be; longer ones are scaled down to it. With 0 none are.
    one_core : bool
        Whether it is left out on more cores than one.
    precision : str
        ``float32``, or ``bfloat16``: what matrix products may round their factors to. Sums, weights and Adam's state
        are float32 in both.
    batch_norm : bool
        Whether batch normalization stands between each dense layer and its activation.
    categories : tuple of int
        How many there are in each of the last columns of X, which hold whole numbers. Each is replaced by as many
        numbers as `category_width` says, a row of a table that is trained.
    held_out : int
        Of a run: samples on which the loss is computed after each epoch.
    patience : int
        Of a run: after so many epochs without a lower loss it stops, and goes back to the weights of the lowest.
    noise : float
        How large the errors of targets are where these are a curved function of X.
    """

    name: str
    kind: str
    widths: tuple[int, ...]
    batch: int
    samples: int = 0
    loss: str = "softmax"
    dropout: float = 0.0
    l2: float = 0.0
    seconds: float = 0.05
    checks: tuple[int, ...] = (8, 24)
    tolerances: tuple[float, ...] = ()
    epochs: int = 0
    activation: str = "relu"
    weight_decay: float = 0.0
    schedule_steps: int = 0
    clip_norm: float = 0.0
    one_core: bool = False
    precision: str = "float32"
    dropouts: int = 1
    batch_norm: bool = False
    categories: tuple[int, ...] = ()
    category_width: int = 0
    held_out: int = 0
    patience: int = 0
    noise: float = 0.3

    @property
    def n_numbers(self) -> int:
        """The columns of X that hold numbers."""
        return self.widths[0] - len(self.categories) * self.category_width

    @property
    def network(self) -> str:
        """The widths as people write them."""
        return "-".join(map(str, self.widths))

    @property
    def title(self) -> str:
        """What a row of docs/reference/speed.md calls it."""
        columns = f"{self.n_numbers} numbers, {len(self.categories)} categories, "
        what = f"{self.base}, a whole run" if self.kind == "run" else self.base
        parts = [f"{what}: {columns if self.categories else ''}{self.network}, batch {self.batch}"]
        parts += ["batch norm"] * self.batch_norm
        parts += ["AdamW"] * (self.weight_decay > 0)
        parts += ["clipped norm"] * (self.clip_norm > 0)
        parts += ["cosine schedule"] * (self.schedule_steps > 0)
        return ", ".join(parts)

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return max(1, self.samples // self.batch)

    @property
    def product_operations(self) -> float:
        """The floating-point operations of a training step's matrix products: nobody needs the gradient of X."""
        sizes = [n_in * n_out for n_in, n_out in zip(self.widths, self.widths[1:], strict=False)]
        return 2.0 * self.batch * (2 * sum(sizes) + sum(sizes[0 if self.categories else 1 :]))

    @property
    def n_parameters(self) -> int:
        """The number of weights and biases."""
        return sum(array.size for arrays in initial_parameters(self) for array in arrays)

    @property
    def parts(self) -> list[str]:
        """What the network is made of, from the first part to the last: the names are used by all peers."""
        n_hidden = len(self.widths) - 2
        found = ["embedding"] * bool(self.categories)
        for i in range(n_hidden):
            found += ["dense", *["norm"] * self.batch_norm, "activation"]
            found += ["dropout"] * (self.dropout > 0 and i < self.dropouts)
        return [*found, "dense"]

    @property
    def base(self) -> str:
        """The name without the precision: what the command line calls it."""
        return self.name.removesuffix(f" {self.precision}")

    def in_bfloat16(self) -> Workload:
        """Return the same with products of bfloat16."""
        return replace(self, name=f"{self.name} bfloat16", precision="bfloat16")

    def without_dropout(self) -> Workload:
        """Return the same without what is drawn, so that losses can be compared."""
        return replace(self, dropout=0.0)


TRAINING = (
    Workload("spiral", "train", (2, 64, 3), 300, 300),
    Workload("binary", "train", (2, 64, 1), 200, 200, loss="sigmoid"),
    Workload("sine", "train", (1, 64, 64, 1), 1000, 1000, loss="squares"),
    Workload("tabular", "train", (32, 64, 32, 2), 32, 2048, checks=(64, 128)),
    Workload("regularized", "train", (2, 512, 3), 3000, 3000, dropout=0.1, l2=5e-4, seconds=0.1),
    # Several epochs a block: a training run is more than one, and what a call costs beside its steps is shared by them.
    Workload("fashion", "train", (784, 128, 128, 10), 128, 9984, seconds=0.25, checks=(78,)),
    Workload("wide", "train", (784, 1024, 1024, 10), 256, 1024, seconds=0.25, checks=(4, 8)),
    Workload("middle", "train", (100, 300, 200, 20), 100, 2000, seconds=0.25, checks=(20, 60)),
    # Small networks of no special shape: few rows, and widths that fill no vectors.
    Workload("small", "train", (12, 64, 32, 4), 64, 2048, checks=(32, 64)),
    Workload("ragged", "train", (9, 40, 1), 80, 1600, loss="squares", checks=(20, 60)),
    Workload("narrow middle", "train", (64, 256, 192, 16), 100, 2000, seconds=0.1, checks=(20, 60)),
    *(
        Workload(name, "train", (32, 64, 32, 2), 32, 2048, checks=(64, 128), activation=name, one_core=True)
        for name in ("tanh", "gelu", "silu")
    ),
    Workload(
        "fashion gelu",
        "train",
        (784, 128, 128, 10),
        128,
        9984,
        seconds=0.25,
        checks=(78,),
        activation="gelu",
        one_core=True,
    ),
    # The schedule is about as long as a block of the fastest peer. The first check notices a missing weight decay or
    # clipping (5e-5, 7e-3), the second one a missing schedule (0.05).
    Workload(
        "huber",
        "train",
        (13, 64, 64, 1),
        64,
        2048,
        loss="huber",
        checks=(64, 4096),
        tolerances=(2e-5, 0.02),
        weight_decay=0.01,
        schedule_steps=4096,
        clip_norm=1.0,
        one_core=True,
    ),
    # The first check notices a missing weight decay, clipping or schedule (3e-4, 2e-3, 6e-5).
    Workload(
        "norm",
        "train",
        (13, 64, 64, 1),
        64,
        2048,
        loss="huber",
        checks=(64, 4096),
        tolerances=(5e-5, 0.02),
        weight_decay=0.01,
        schedule_steps=4096,
        clip_norm=1.0,
        one_core=True,
        batch_norm=True,
    ),
    Workload(
        "norm dropout",
        "train",
        (784, 128, 128, 10),
        128,
        9984,
        dropout=0.2,
        dropouts=2,
        seconds=0.25,
        checks=(78,),
        one_core=True,
        batch_norm=True,
    ),
    Workload(
        "categories",
        "train",
        (44, 64, 64, 1),
        256,
        8192,
        loss="squares",
        checks=(32, 128),
        one_core=True,
        categories=(10, 50, 200, 1000),
        category_width=8,
    ),
)
PREDICTION = tuple(
    Workload(f"{'-'.join(map(str, widths))} x{batch}", "predict", widths, batch, batch)
    for widths in ((784, 128, 128, 10), (32, 64, 64, 8), (8, 16, 4))
    for batch in (1, 32, 1024)
)
#: Products large enough for matrix units, with factors of bfloat16.
BFLOAT16_TRAINING = tuple(w.in_bfloat16() for w in TRAINING if w.name in ("fashion", "wide", "middle"))
BFLOAT16_PREDICTION = (
    Workload("784-1024-1024-10 x256", "predict", (784, 1024, 1024, 10), 256, 256, seconds=0.25).in_bfloat16(),
)
#: Neurons die, and a penalty takes their weights down to subnormal numbers, with which many processors are slow.
LONG_RUN = Workload("long run", "train", (30, 64, 64, 2), 64, 6400, l2=1e-3, checks=(100,), epochs=100)
#: 20,000 rows, of which about a tenth is held out, and no batch is smaller than the others. With so much noise all
#: peers stop after 8 epochs: the lowest held-out loss is apart from the others by five times what rounding changes.
EARLY_STOPPING = Workload(
    "early stopping",
    "run",
    (13, 64, 64, 1),
    64,
    17_920,
    loss="huber",
    checks=(1,),
    epochs=20,
    weight_decay=0.01,
    schedule_steps=20 * 280,
    clip_norm=1.0,
    one_core=True,
    batch_norm=True,
    held_out=2080,
    patience=5,
    noise=4.0,
)
SINGLE_STEP = Workload("single step", "call", (32, 64, 32, 2), 32, 32)
PRINTING = Workload("printing", "print", (2, 64, 3), 300, 300)

WORKLOADS = {
    workload.name: workload
    for workload in (
        *TRAINING,
        *BFLOAT16_TRAINING,
        *PREDICTION,
        *BFLOAT16_PREDICTION,
        EARLY_STOPPING,
        LONG_RUN,
        SINGLE_STEP,
        PRINTING,
    )
}


class Candidate(Protocol):
    """A library at a workload, in one of the ways to use it. A unit is as much as its `run` can do at least."""

    steps: int  # of a unit; 1 where a unit is a call or a run

    def reset(self) -> None:
        """Go back to the initial weights, with an optimizer that has seen nothing."""

    def run(self, units: int) -> None:
        """Work, and return when the work is done."""

    def results(self) -> list[np.ndarray]:
        """Return what `flat_results` returns of the initial parameters; the output, where it predicts."""


class Training(Protocol):
    """A candidate that an `EarlyStopping` can drive."""

    def reset(self) -> None:
        """As a candidate's."""

    def run(self, units: int) -> None:
        """As a candidate's, of which a unit is an epoch."""

    def results(self) -> list[np.ndarray]:
        """As a candidate's."""

    def held_out_loss(self) -> float:
        """Return the loss on the held-out samples."""

    def keep(self) -> None:
        """Remember parameters and running figures."""

    def restore(self) -> None:
        """Go back to what was remembered last."""


class EarlyStopping:
    """A unit is a run, driven from Python."""

    steps = 1

    def __init__(self, workload: Workload, training: Training) -> None:
        self.workload, self.training = workload, training
        self.reset, self.results = training.reset, training.results

    def run(self, units: int) -> None:
        for _ in range(units):
            self._run()

    def _run(self) -> None:
        training = self.training
        training.reset()
        self.epochs = waited = 0
        lowest = math.inf
        while self.epochs < self.workload.epochs and waited < self.workload.patience:
            training.run(1)
            self.epochs += 1
            loss = training.held_out_loss()
            if loss < lowest:
                lowest, waited = loss, 0
                training.keep()
            else:
                waited += 1
        training.restore()


def samples(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return X in float32, and y: class numbers, or float32 of shape (n, 1)."""
    X, y = all_samples(workload)
    return X[: workload.samples], y[: workload.samples]


def held_out(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return X and y of the samples that nobody trains on."""
    X, y = all_samples(workload)
    return X[workload.samples :], y[workload.samples :]


def all_samples(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return X and y of both."""
    rng = np.random.default_rng(1)
    n, n_inputs, n_outputs = workload.samples + workload.held_out, workload.widths[0], workload.widths[-1]
    if workload.categories:  # a curved function of the numbers, shifted by an amount of each category
        numbers = rng.standard_normal((n, workload.n_numbers))
        codes = [rng.integers(0, count, n) for count in workload.categories]
        shifts = sum(rng.standard_normal(count)[code] for count, code in zip(workload.categories, codes, strict=True))
        y = np.sin(numbers @ rng.standard_normal(workload.n_numbers)) + shifts + 0.3 * rng.standard_normal(n)
        return np.column_stack((numbers, *codes)).astype(np.float32), y[:, None].astype(np.float32)
    if n_inputs == 1:
        X = np.linspace(0, 1, n)[:, None]
        return X.astype(np.float32), np.sin(2 * np.pi * X).astype(np.float32)
    if n_inputs == 2:  # the book's spiral; two arms serve the binary task
        n_arms = max(2, n_outputs)
        y = np.repeat(np.arange(n_arms), n // n_arms)
        radius = np.tile(np.linspace(0, 1, n // n_arms), n_arms)
        angle = 4 * (y + radius) + 0.2 * rng.standard_normal(n)
        X = np.stack((radius * np.sin(2.5 * angle), radius * np.cos(2.5 * angle)), 1)
    elif workload.loss in ("huber", "squares"):  # a curved function, and noise with outliers
        X = rng.standard_normal((n, n_inputs))
        waves = np.sin(X @ rng.standard_normal((n_inputs, n_outputs)))
        y = X @ rng.standard_normal((n_inputs, n_outputs)) + 2 * waves
        y += workload.noise * rng.standard_t(2, (n, n_outputs))
        return X.astype(np.float32), y.astype(np.float32)
    else:  # a teacher's answers, a tenth of them wrong: learnable, and the gradients do not vanish
        X = rng.uniform(-1, 1, (n, n_inputs))
        y = (X @ rng.standard_normal((n_inputs, n_outputs))).argmax(1)
        y = np.where(rng.random(n) < 0.1, rng.integers(0, n_outputs, n), y)
    if workload.loss == "sigmoid":
        return X.astype(np.float32), y[:, None].astype(np.float32)
    return X.astype(np.float32), y.astype(np.int64)


def initial_parameters(workload: Workload) -> Parameters:
    """Return what all begin with; biases are not 0, nor normalized weights 1, so that no mistake there can hide."""
    rng = np.random.default_rng(2)
    pairs = zip(workload.widths, workload.widths[1:], strict=False)
    found: Parameters = []
    for part in workload.parts:
        if part == "embedding":
            found.append((rng.standard_normal((sum(workload.categories), workload.category_width)),))
        elif part == "dense":
            n_in, n_out = next(pairs)
            weights = rng.standard_normal((n_in, n_out)) * np.sqrt(2 / n_in)
            found.append((weights, 0.1 * rng.standard_normal(n_out)))
        elif part == "norm":
            found.append((1 + 0.1 * rng.standard_normal(n_out), 0.1 * rng.standard_normal(n_out)))
    return [tuple(array.astype(np.float32) for array in arrays) for arrays in found]


def initial_statistics(workload: Workload) -> Parameters:
    """Return what running means and variances begin with: those of each batch normalization."""
    widths = workload.widths[1:-1] if workload.batch_norm else ()
    return [(np.zeros(width, np.float32), np.ones(width, np.float32)) for width in widths]


def flat_results(parameters: Parameters, statistics: Parameters) -> list[np.ndarray]:
    """Return all arrays in turn: parameters, then running means and variances."""
    return [array for arrays in (*parameters, *statistics) for array in arrays]


def initial_results(workload: Workload) -> list[np.ndarray]:
    """Return what a candidate's `results` are at first."""
    return flat_results(initial_parameters(workload), initial_statistics(workload))


def numbers_and_rows(workload: Workload, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of numbers, and for each category the row of the embedding's table, in int32."""
    offsets = np.cumsum((0, *workload.categories[:-1]))
    numbers, codes = X[:, : workload.n_numbers], X[:, workload.n_numbers :]
    return np.ascontiguousarray(numbers), (codes + offsets).astype(np.int32)


def one_hot(y: np.ndarray, n: int) -> np.ndarray:
    """Return the rows of the identity that class numbers stand for."""
    return np.eye(n, dtype=np.float32)[y]


def learning_rate(workload: Workload, step: int) -> float:
    """Return the learning rate of a step; the first one is step 0 (Loshchilov and Hutter, 2017, equation 5)."""
    if not workload.schedule_steps:
        return LEARNING_RATE
    return LEARNING_RATE * (1 + math.cos(math.pi * min(step / workload.schedule_steps, 1.0))) / 2


ERF = np.vectorize(math.erf, otypes=[np.float64])

#: By name: what stands between dense layers, in double precision.
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "gelu": lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def loss(workload: Workload, results: Sequence[np.ndarray]) -> float:
    """Return loss and penalty in double precision: the same judge for all peers.

    On all samples, or on those held out; batch normalization uses its running figures.
    """
    X, y = held_out(workload) if workload.held_out else samples(workload)
    exact = [array.astype(np.float64) for array in results]
    n = sum(len(arrays) for arrays in initial_parameters(workload))
    learnt, statistics = iter(exact[:n]), iter(exact[n:])
    values = X.astype(np.float64)
    for part in workload.parts:
        if part == "embedding":
            numbers, rows = numbers_and_rows(workload, X)
            values = np.column_stack((numbers, next(learnt)[rows].reshape(len(X), -1)))
        elif part == "dense":
            values = values @ next(learnt) + next(learnt)
        elif part == "norm":
            values = (values - next(statistics)) / np.sqrt(next(statistics) + NORM_EPSILON)
            values = values * next(learnt) + next(learnt)
        elif part == "activation":
            values = ACTIVATIONS[workload.activation](values)
    if workload.loss == "softmax":
        values -= values.max(1, keepdims=True)
        losses = np.log(np.exp(values).sum(1)) - values[np.arange(len(y)), y]
    elif workload.loss == "sigmoid":
        losses = np.logaddexp(0, values) - values * y
    elif workload.loss == "huber":
        apart = np.abs(values - y)
        losses = np.where(apart <= DELTA, apart**2 / 2, DELTA * (apart - DELTA / 2))
    else:
        losses = (values - y) ** 2
    return float(losses.mean() + workload.l2 * sum((array**2).sum() for array in exact[:2]))
