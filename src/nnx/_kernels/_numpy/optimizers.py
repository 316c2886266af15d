"""The optimizers' rules: a function for each, entered into a table under the rule's name.

Values and states are updated in place; any shape, all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.quiet import quiet


class Rule(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    update : callable
        Called with values, gradients, a tuple of states, the rate, the step counted from 1, and the settings.
    n_states : int
        Arrays that the rule keeps of a parameter.
    """

    update: Callable[..., None]
    n_states: int


RULES: dict[str, Rule] = {}


def optimizer_update(
    name: str,
    values: Array,
    gradients: Array,
    states: tuple[Array, ...],
    rate: float,
    step: float,
    settings: tuple[float, ...],
) -> None:
    """Do one step, which is counted from 1, of the rule ``name`` on one parameter and what is kept of it."""
    RULES[name].update(values, gradients, states, rate, step, *settings)


def add(name: str, update: Callable[..., None], n_states: int) -> None:
    """Enter a rule."""
    RULES[name] = Rule(quiet(update), n_states)


def sgd(values: Array, gradients: Array, states: tuple[()], rate: float, step: float) -> None:
    """``values −= rate·gradients``."""
    values -= rate * gradients


add("sgd", sgd, 0)


def sgd_momentum(
    values: Array, gradients: Array, states: tuple[Array], rate: float, step: float, momentum: float
) -> None:
    """``momentums := momentum·momentums − rate·gradients; values += momentums``."""
    (momentums,) = states
    momentums *= momentum
    momentums -= rate * gradients
    values += momentums


add("sgd_momentum", sgd_momentum, 1)


def adagrad(values: Array, gradients: Array, states: tuple[Array], rate: float, step: float, epsilon: float) -> None:
    """``cache += gradients²; values −= rate·gradients / (√cache + epsilon)``."""
    (cache,) = states
    cache += np.square(gradients)
    values -= rate * gradients / (np.sqrt(cache) + epsilon)


add("adagrad", adagrad, 1)


def rmsprop(
    values: Array, gradients: Array, states: tuple[Array], rate: float, step: float, epsilon: float, rho: float
) -> None:
    """``cache := rho·cache + (1 − rho)·gradients²; values −= rate·gradients / (√cache + epsilon)``."""
    (cache,) = states
    cache *= rho
    cache += (1 - rho) * np.square(gradients)
    values -= rate * gradients / (np.sqrt(cache) + epsilon)


add("rmsprop", rmsprop, 1)


def adam(
    values: Array,
    gradients: Array,
    states: tuple[Array, Array],
    rate: float,
    step: float,
    epsilon: float,
    beta_1: float,
    beta_2: float,
) -> None:
    """Adam (Kingma and Ba, 2015).

    ``momentums := beta_1·momentums + (1 − beta_1)·gradients; cache := beta_2·cache + (1 − beta_2)·gradients²;
    values −= rate·(momentums / (1 − beta_1^step)) / (√(cache / (1 − beta_2^step)) + epsilon)``.
    """
    momentums, cache = states
    momentums *= beta_1
    momentums += (1 - beta_1) * gradients
    cache *= beta_2
    cache += (1 - beta_2) * np.square(gradients)
    # Both corrections moved out of the arrays: √(c/b) + ε = (√c + ε·√b) / √b.
    root = (1 - beta_2**step) ** 0.5
    scale = np.sqrt(cache)
    scale += epsilon * root
    np.divide(momentums, scale, out=scale)
    scale *= rate * root / (1 - beta_1**step)
    values -= scale


add("adam", adam, 2)


# Around every rule: gradients clipped before it, an average of the values after it


@quiet
def clip_gradients(gradients: Array, clipped: Array, limit: float) -> None:
    """``clipped := gradients`` kept within [−limit, limit]; any shape, clipped may be gradients."""
    np.minimum(np.maximum(gradients, -limit), limit, out=clipped)


@quiet
def scale_gradients(gradients: Array, scaled: Array, factor: float) -> None:
    """``scaled := factor·gradients``; any shape, scaled may be gradients."""
    np.multiply(gradients, gradients.dtype.type(factor), out=scaled)


@quiet
def average_update(averages: Array, values: Array, keep: float) -> None:
    """``averages := keep·averages + (1 − keep)·values``."""
    averages -= values
    averages *= averages.dtype.type(keep)
    averages += values
