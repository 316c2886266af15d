"""What is measured: networks, data, initial weights, and the loss by which peers are compared before they are timed.

All of it is a function of the names below, so that every process makes the same for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

Parameters = list[tuple[np.ndarray, np.ndarray]]

LEARNING_RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7
#: Where Huber's loss turns from squares to a straight line.
DELTA = 1.0


@dataclass(frozen=True)
class Workload:
    """A row of the tables.

    Attributes
    ----------
    kind : str
        ``train`` (epochs), ``call`` (a training call for each step), ``print`` (a line for each step) or ``predict``.
    widths : tuple of int
        Of the inputs and of each dense layer.
    loss : str
        ``softmax`` (and cross-entropy), ``sigmoid`` (and cross-entropy), ``squares`` (their mean) or ``huber`` (mean,
        with `DELTA`).
    dropout, l2 : float
        After the activation of the first layer; on its weights and biases.
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

    @property
    def network(self) -> str:
        """The widths as people write them."""
        return "-".join(map(str, self.widths))

    @property
    def title(self) -> str:
        """What a row of the README calls it."""
        parts = [f"{self.base}: {self.network}, batch {self.batch}"]
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
        """The floating-point operations of a training step's matrix products: nobody needs the input's gradient."""
        sizes = [n_in * n_out for n_in, n_out in zip(self.widths, self.widths[1:], strict=False)]
        return 2.0 * self.batch * (2 * sum(sizes) + sum(sizes[1:]))

    @property
    def n_parameters(self) -> int:
        """The number of weights and biases."""
        return sum((n_in + 1) * n_out for n_in, n_out in zip(self.widths, self.widths[1:], strict=False))

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
SINGLE_STEP = Workload("single step", "call", (32, 64, 32, 2), 32, 32)
PRINTING = Workload("printing", "print", (2, 64, 3), 300, 300)

WORKLOADS = {
    workload.name: workload
    for workload in (
        *TRAINING,
        *BFLOAT16_TRAINING,
        *PREDICTION,
        *BFLOAT16_PREDICTION,
        LONG_RUN,
        SINGLE_STEP,
        PRINTING,
    )
}


class Candidate(Protocol):
    """A library at a workload, in one of the ways to use it. A unit is as much as its `run` can do at least."""

    steps: int  # of a unit

    def reset(self) -> None:
        """Go back to the initial weights, with an optimizer that has seen nothing."""

    def run(self, units: int) -> None:
        """Work, and return when the work is done."""

    def results(self) -> list[np.ndarray]:
        """Return weights (n_in, n_out) and biases (n_out,) in turn; the output, where it predicts."""


def samples(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return X in float32, and y: class numbers, or float32 of shape (n, 1)."""
    rng = np.random.default_rng(1)
    n, n_inputs, n_outputs = workload.samples, workload.widths[0], workload.widths[-1]
    if n_inputs == 1:
        X = np.linspace(0, 1, n)[:, None]
        return X.astype(np.float32), np.sin(2 * np.pi * X).astype(np.float32)
    if n_inputs == 2:  # the book's spiral; two arms serve the binary task
        n_arms = max(2, n_outputs)
        y = np.repeat(np.arange(n_arms), n // n_arms)
        radius = np.tile(np.linspace(0, 1, n // n_arms), n_arms)
        angle = 4 * (y + radius) + 0.2 * rng.standard_normal(n)
        X = np.stack((radius * np.sin(2.5 * angle), radius * np.cos(2.5 * angle)), 1)
    elif workload.loss == "huber":  # a curved function, and noise with outliers
        X = rng.standard_normal((n, n_inputs))
        waves = np.sin(X @ rng.standard_normal((n_inputs, n_outputs)))
        y = X @ rng.standard_normal((n_inputs, n_outputs)) + 2 * waves + 0.3 * rng.standard_t(2, (n, n_outputs))
        return X.astype(np.float32), y.astype(np.float32)
    else:  # a teacher's answers, a tenth of them wrong: learnable, and the gradients do not vanish
        X = rng.uniform(-1, 1, (n, n_inputs))
        y = (X @ rng.standard_normal((n_inputs, n_outputs))).argmax(1)
        y = np.where(rng.random(n) < 0.1, rng.integers(0, n_outputs, n), y)
    if workload.loss == "sigmoid":
        return X.astype(np.float32), y[:, None].astype(np.float32)
    return X.astype(np.float32), y.astype(np.int64)


def initial_parameters(workload: Workload) -> Parameters:
    """Return the weights that all begin with; the biases are not zero, so that no mistake there can hide."""
    rng = np.random.default_rng(2)
    pairs = zip(workload.widths, workload.widths[1:], strict=False)
    return [
        (
            (rng.standard_normal((n_in, n_out)) * np.sqrt(2 / n_in)).astype(np.float32),
            (0.1 * rng.standard_normal(n_out)).astype(np.float32),
        )
        for n_in, n_out in pairs
    ]


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


def loss(workload: Workload, parameters: Sequence[np.ndarray]) -> float:
    """Return loss and penalty on all samples, in double precision: the same judge for all peers."""
    X, y = samples(workload)
    pairs = list(zip(parameters[::2], parameters[1::2], strict=True))
    values = X.astype(np.float64)
    for i, (weights, biases) in enumerate(pairs):
        values = values @ weights.astype(np.float64) + biases
        if i < len(pairs) - 1:
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
    first = [array.astype(np.float64) for array in pairs[0]]
    return float(losses.mean() + workload.l2 * sum((array**2).sum() for array in first))
