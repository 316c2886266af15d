"""JAX: epochs in one jitted call that is given its state's memory (donated), float32 products in full precision.

What makes it fast on a processor, each of it tried beside its opposite:

- Epochs are a ``fori_loop`` around a ``scan`` over the batches, so that dispatch is paid once a block.
- Parameters and Adam's state are one vector each ("vector") in small networks, many ("arrays") in large ones.
- With samples along the last axis ("columns") XLA's loops run along the batch, which more than repays itself where a
  layer is narrow; with samples in rows the rest is faster.
- Targets are one-hot beforehand; unrolling the scan, hand-written gradients, other formulas of softmax, and XLA's other
  flags made no difference.
- On one core, Eigen's products without their pool of threads ("alone"), by an option of the compiler.
- GELU's gradient is written by hand, so that erf is computed once: with `jax.nn.gelu` a step of 32-64-32-2 takes 6 %
  longer, one of 784-128-128-10 2 %. SiLU by tanh or by exp is slower than `jax.nn.silu`; its gradient by hand gained
  1 %. Clipping, weight decay and schedule cost 1 µs in all.
- Dropout: ``jax_threefry_partitionable=False`` halves the work of the default generator; ``unsafe_rbg``, made for
  accelerators, is slower here, and so are masks of 16 bits.
- A call for each step: ``jax_cpu_enable_async_dispatch=False`` saves the way to another thread, and each array less
  that is handed over 2 µs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from workloads import (
    BETA_1,
    BETA_2,
    DELTA,
    EPSILON,
    LEARNING_RATE,
    NORM_EPSILON,
    NORM_MOMENTUM,
    Candidate,
    Workload,
    held_out,
    initial_parameters,
    initial_statistics,
    numbers_and_rows,
    one_hot,
    samples,
)

VERSION = jax.__version__

SQRT_HALF = np.sqrt(0.5, dtype=np.float32)

for option in ("jax_threefry_partitionable", "jax_cpu_enable_async_dispatch"):
    with contextlib.suppress(AttributeError):  # not in every version
        jax.config.update(option, False)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Return x Φ(x), Φ being the normal distribution."""
    return gelu_forward(x)[0]


def gelu_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Return it, and what backward needs."""
    distribution = 0.5 + 0.5 * jax.lax.erf(x * SQRT_HALF)
    return x * distribution, (x, distribution)


def gelu_backward(kept: tuple[jax.Array, jax.Array], dvalues: jax.Array) -> tuple[jax.Array]:
    """Return the gradient, in which Φ is not computed again."""
    x, distribution = kept
    return (dvalues * (distribution + x * jnp.exp(-0.5 * x * x) * (SQRT_HALF / np.sqrt(np.pi, dtype=np.float32))),)


gelu.defvjp(gelu_forward, gelu_backward)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a b, of factors rounded to bfloat16, summed in float32."""
    return jnp.dot(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=jnp.float32)


@jax.custom_vjp
def rounded_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a b as `product` does, with gradients whose factors are rounded too."""
    return product(a, b)


def rounded_product_forward(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Return it, and the rounded factors."""
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return product(a, b), (a, b)


def rounded_product_backward(kept: tuple[jax.Array, jax.Array], dvalues: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both gradients."""
    return product(dvalues, kept[1].T), product(transpose(kept[0]), dvalues)


def transpose(x: jax.Array) -> jax.Array:
    """Return the transpose, copied: XLA would fold it into the product and then multiply in float32, not in bfloat16.

    The condition holds always, which XLA does not know.
    """
    return jax.lax.cond(x[0, 0] < jnp.inf, jnp.transpose, lambda x: jnp.zeros(x.shape[::-1], x.dtype), x)


rounded_product.defvjp(rounded_product_forward, rounded_product_backward)

#: For XLA: no threads within a product.
ALONE = {"xla_cpu_multi_thread_eigen": False}

#: By name: how a dense layer multiplies.
PRODUCTS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {"float32": jnp.matmul, "bfloat16": rounded_product}

#: By name: what stands between dense layers.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": lambda x: jnp.maximum(x, 0),
    "tanh": jnp.tanh,
    "gelu": gelu,
    "silu": jax.nn.silu,
}


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the ways to train."""
    if workload.kind == "call":
        return {"": lambda: Calls(workload, False, True)}
    if workload.kind not in ("train", "run"):
        return {}
    make = Run if workload.kind == "run" else Training
    settings = {"": None, ", alone": ALONE} if cores == 1 else {"": None}
    ways: dict[str, Callable[[], Candidate]] = {}
    for columns in (False, True):
        for vector in (True, False):
            for precision in {"float32", workload.precision}:
                label = f"{'columns' if columns else 'rows'}, {'vector' if vector else 'arrays'}, {precision}"
                for more, compiler in settings.items():
                    ways[label + more] = partial(make, workload, columns, vector, None, precision, compiler)
    if workload.dropout:
        ways["columns, vector, unsafe_rbg"] = partial(Training, workload, True, True, "unsafe_rbg")
    return ways


class Training:
    """A unit is an epoch."""

    def __init__(
        self,
        workload: Workload,
        columns: bool,
        vector: bool,
        generator: str | None = None,
        precision: str = "float32",
        compiler: dict[str, bool] | None = None,
    ) -> None:
        self.steps = workload.steps
        self.workload, self.columns, self.generator = workload, columns, generator
        self.product = PRODUCTS[precision]
        learnt = initial_parameters(workload)
        decays = [
            tuple(np.full_like(array, 0.0 if i else workload.weight_decay) for i, array in enumerate(arrays))
            for arrays in learnt
        ]
        self.initial, self.restore = ravel_pytree(learnt) if vector else (learnt, lambda parameters: parameters)
        self.initial = jax.tree.map(np.asarray, self.initial)
        self.decays = np.asarray(ravel_pytree(decays)[0]) if vector else decays
        X, y = samples(workload)
        self.data = self._inputs(X, self.steps), self._targets(y, self.steps)
        self.compiler = compiler
        self.compiled = jax.jit(self._epochs, donate_argnums=0, compiler_options=compiler)
        self.reset()

    def reset(self) -> None:
        key = jax.random.key(0, impl=self.generator) if self.workload.dropout else None
        zeros = [jax.tree.map(jnp.zeros_like, self.initial) for _ in range(2)]
        learnt, running = jax.tree.map(jnp.array, (self.initial, initial_statistics(self.workload)))
        self.state = jax.block_until_ready((learnt, *zeros, jnp.float32(0), running, key))

    def run(self, units: int) -> None:
        self.state, losses = self.compiled(self.state, *self.data, units)
        jax.block_until_ready((self.state, losses))

    def results(self) -> list[np.ndarray]:
        return [np.asarray(array) for arrays in (*self.restore(self.state[0]), *self.state[4]) for array in arrays]

    def _inputs(self, X: np.ndarray, steps: int) -> Any:
        """Return X in so many batches; of categories, the rows of the table."""
        if not self.workload.categories:
            return self._batches(X, steps)
        numbers, rows = numbers_and_rows(self.workload, X)
        return self._batches(numbers, steps), jnp.asarray(rows.reshape(steps, -1, rows.shape[1]))

    def _targets(self, y: np.ndarray, steps: int) -> jax.Array:
        return self._batches(one_hot(y, self.workload.widths[-1]) if self.workload.loss == "softmax" else y, steps)

    def _batches(self, array: np.ndarray, steps: int) -> jax.Array:
        batches = array.reshape(steps, -1, array.shape[1])
        return jnp.asarray(np.ascontiguousarray(batches.swapaxes(1, 2)) if self.columns else batches)

    def _epochs(self, state: Any, X: jax.Array, targets: jax.Array, n: jax.Array) -> Any:
        """Return the state after ``n`` epochs, and the last one's losses."""
        start = (state, jnp.zeros(self.steps, jnp.float32))
        return jax.lax.fori_loop(0, n, lambda _, carry: jax.lax.scan(self._step, carry[0], (X, targets)), start)

    def _step(self, state: Any, batch: Any) -> Any:
        """Adam, as in the book, or AdamW, whose weights decay by themselves."""
        parameters, momentums, caches, count, statistics, key = state
        drawn: Any = ()
        if self.workload.dropout:
            key, *drawn = jax.random.split(key, 1 + self.workload.parts.count("dropout"))
        find = jax.value_and_grad(self._loss, has_aux=True)
        (loss, statistics), gradients = find(parameters, statistics, *batch, drawn)
        if self.workload.clip_norm:
            norm = jnp.sqrt(sum(jnp.vdot(array, array) for array in jax.tree.leaves(gradients)))
            scale = jnp.minimum(1, self.workload.clip_norm / norm)
            gradients = jax.tree.map(lambda g: g * scale, gradients)
        rate = LEARNING_RATE
        if self.workload.schedule_steps:
            rate *= 0.5 + 0.5 * jnp.cos(
                jnp.minimum(count, self.workload.schedule_steps) * (np.pi / self.workload.schedule_steps)
            )
        count = count + 1
        momentums = jax.tree.map(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, momentums, gradients)
        caches = jax.tree.map(lambda c, g: BETA_2 * c + (1 - BETA_2) * g * g, caches, gradients)
        corrections = 1 / (1 - BETA_1**count), 1 / (1 - BETA_2**count)

        def update(p: jax.Array, m: jax.Array, c: jax.Array, decay: Any) -> jax.Array:
            if self.workload.weight_decay:
                p = p * (1 - rate * decay)
            return p - rate * (m * corrections[0]) / (jnp.sqrt(c * corrections[1]) + EPSILON)

        parameters = jax.tree.map(update, parameters, momentums, caches, self.decays)
        return (parameters, momentums, caches, count, statistics, key), loss

    def _loss(
        self, parameters: Any, statistics: Any, values: Any, targets: jax.Array, drawn: Any, training: bool = True
    ) -> tuple[jax.Array, Any]:
        """Return the loss, and what the running figures are after it."""
        first, statistics = None, list(statistics)
        learnt, keys, n_norms = iter(self.restore(parameters)), iter(drawn), 0
        for part in self.workload.parts:
            if part == "embedding":
                values = self._embedded(*values, *next(learnt))
            elif part == "dense":
                weights, biases = next(learnt)
                first = first or (weights, biases)
                if self.columns:
                    values = self.product(weights.T, values) + biases[:, None]
                else:
                    values = self.product(values, weights) + biases
            elif part == "norm":
                figures = statistics[n_norms]
                if training:
                    figures = self._figures(values)
                    statistics[n_norms] = self._updated(statistics[n_norms], figures)
                values = self._normalized(values, *figures, *next(learnt))
                n_norms += 1
            elif part == "activation":
                values = ACTIVATIONS[self.workload.activation](values)
            elif part == "dropout" and training:
                kept = 1 - self.workload.dropout
                values = jnp.where(jax.random.bernoulli(next(keys), kept, values.shape), values / kept, 0)
        if self.workload.loss == "softmax":
            loss = -jnp.sum(targets * jax.nn.log_softmax(values, 0 if self.columns else 1)) / self.workload.batch
        elif self.workload.loss == "sigmoid":
            loss = jnp.mean(jnp.maximum(values, 0) - values * targets + jnp.log1p(jnp.exp(-jnp.abs(values))))
        elif self.workload.loss == "huber":
            apart = values - targets
            near = jnp.clip(apart, -DELTA, DELTA)
            loss = jnp.mean(near * (apart - 0.5 * near))
        else:
            loss = jnp.mean((values - targets) ** 2)
        if self.workload.l2:
            loss += self.workload.l2 * sum(jnp.sum(array**2) for array in first)
        return loss, statistics

    def _embedded(self, numbers: jax.Array, rows: jax.Array, table: jax.Array) -> jax.Array:
        """Return numbers, and behind them what stands in the table's rows."""
        found = table.at[rows].get(mode="promise_in_bounds").reshape(len(rows), -1)
        return jnp.concatenate((numbers, found.T)) if self.columns else jnp.concatenate((numbers, found), 1)

    def _figures(self, values: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return mean and variance of each neuron, in one pass."""
        axis = 1 if self.columns else 0
        mean = values.mean(axis)
        return mean, jnp.maximum((values * values).mean(axis) - mean * mean, 0)

    def _normalized(self, values: jax.Array, *figures: jax.Array) -> jax.Array:
        """Return values beyond the mean, by the standard deviation, scaled and shifted."""
        mean, variance, weights, biases = (each[:, None] for each in figures) if self.columns else figures
        scale = weights * jax.lax.rsqrt(variance + NORM_EPSILON)
        return values * scale + (biases - mean * scale)

    def _updated(self, running: Any, figures: Any) -> Any:
        """Return running figures after a batch, whose variance is biased."""
        mean, variance = figures
        n = self.workload.batch
        pairs = zip(running, (mean, variance * (n / (n - 1))), strict=True)
        return tuple(NORM_MOMENTUM * old + (1 - NORM_MOMENTUM) * new for old, new in pairs)


class Calls(Training):
    """A jitted call for each step; state and data stay with JAX."""

    def __init__(self, workload: Workload, columns: bool, vector: bool) -> None:
        super().__init__(workload, columns, vector)
        self.data = tuple(array[0] for array in self.data)
        self.compiled = jax.jit(lambda state, *batch: self._step(state, batch), donate_argnums=0)

    def run(self, units: int) -> None:
        compiled, state, data = self.compiled, self.state, self.data
        for _ in range(units):
            state, loss = compiled(state, *data)
        self.state = jax.block_until_ready((state, loss))[0]


class Run(Training):
    """A unit is a run: a jitted call, with the held-out loss and the decision to stop in it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        X, y = held_out(self.workload)
        self.steps = 1
        only = jax.tree.map(lambda batches: batches[0], (self._inputs(X, 1), self._targets(y, 1)))
        self.data = *self.data, *only
        self.compiled = jax.jit(self._run, donate_argnums=0, compiler_options=self.compiler)

    def run(self, units: int) -> None:
        for _ in range(units):
            self.reset()
            self.state, epochs = self.compiled(self.state, *self.data)
            self.epochs = int(epochs)

    def _run(self, state: Any, X: Any, targets: jax.Array, *held_out: Any) -> Any:
        """Return the state with the best epoch's parameters and running figures, and the number of epochs."""

        def goes_on(carry: Any) -> jax.Array:
            epochs, waited = carry[:2]
            return (epochs < self.workload.epochs) & (waited < self.workload.patience)

        def epoch(carry: Any) -> Any:
            epochs, waited, lowest, best, state = carry
            state, _ = jax.lax.scan(self._step, state, (X, targets))
            found = state[0], state[4]
            loss, _ = self._loss(*found, *held_out, (), training=False)
            better = loss < lowest
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), found, best)
            return epochs + 1, jnp.where(better, 0, waited + 1), jnp.minimum(loss, lowest), best, state

        start = jnp.int32(0), jnp.int32(0), jnp.float32(np.inf), (state[0], state[4]), state
        epochs, _, _, best, state = jax.lax.while_loop(goes_on, epoch, start)
        return (best[0], *state[1:4], best[1], *state[5:]), epochs
