"""The optimizers' rules: a function for each, entered into a table under the rule's name.

Values and states are updated in place. They may have any shape, and have the same one.
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
        The number of arrays that the rule keeps for a parameter.
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
    """Do one step of the rule ``name`` on one parameter and its states. Steps are counted from 1."""
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


def sgd_nesterov(
    values: Array, gradients: Array, states: tuple[Array], rate: float, step: float, momentum: float
) -> None:
    """``momentums := momentum·momentums − rate·gradients; values += momentum·momentums − rate·gradients``."""
    (momentums,) = states
    change = rate * gradients
    momentums *= momentum
    momentums -= change
    values += momentum * momentums - change


add("sgd_nesterov", sgd_nesterov, 1)


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
    epsilon_hat: float = 0.0,
) -> None:
    """Adam (Kingma and Ba, 2015).

    ``momentums := beta_1·momentums + (1 − beta_1)·gradients; cache := beta_2·cache + (1 − beta_2)·gradients²;
    values −= rate·(momentums / (1 − beta_1^step)) / (√(cache / (1 − beta_2^step)) + epsilon)``; where ``epsilon_hat``
    is not 0, ``values −= rate·√(1 − beta_2^step) / (1 − beta_1^step)·momentums / (√cache + epsilon)``.
    """
    momentums, cache = states
    _follow(momentums, cache, gradients, beta_1, beta_2)
    # Both corrections are moved out of the arrays: √(c/b) + ε = (√c + ε·√b) / √b.
    root = (1 - beta_2**step) ** 0.5
    scale = np.sqrt(cache)
    scale += epsilon if epsilon_hat else epsilon * root
    np.divide(momentums, scale, out=scale)
    scale *= rate * root / (1 - beta_1**step)
    values -= scale


def _follow(momentums: Array, cache: Array, gradients: Array, beta_1: float, beta_2: float) -> None:
    """Update Adam's averages of gradients and of their squares."""
    momentums *= beta_1
    momentums += (1 - beta_1) * gradients
    cache *= beta_2
    cache += (1 - beta_2) * np.square(gradients)


add("adam", adam, 2)


def adamw(
    values: Array,
    gradients: Array,
    states: tuple[Array, Array],
    rate: float,
    step: float,
    epsilon: float,
    beta_1: float,
    beta_2: float,
    weight_decay: float,
) -> None:
    """AdamW (Loshchilov and Hutter, 2019): ``values −= rate·weight_decay·values``, then as Adam."""
    values -= (rate * weight_decay) * values
    adam(values, gradients, states, rate, step, epsilon, beta_1, beta_2)


add("adamw", adamw, 2)


def nadam(
    values: Array,
    gradients: Array,
    states: tuple[Array, Array],
    rate: float,
    step: float,
    epsilon: float,
    beta_1: float,
    beta_2: float,
) -> None:
    """NAdam (Dozat, 2016) with one beta_1 for all steps.

    ``momentums`` and ``cache`` as Adam's; ``values −= rate·(beta_1·momentums / (1 − beta_1^(step+1)) +
    (1 − beta_1)·gradients / (1 − beta_1^step)) / (√(cache / (1 − beta_2^step)) + epsilon)``.
    """
    momentums, cache = states
    _follow(momentums, cache, gradients, beta_1, beta_2)
    root = (1 - beta_2**step) ** 0.5
    ahead = (rate * root * beta_1 / (1 - beta_1 ** (step + 1))) * momentums
    ahead += (rate * root * (1 - beta_1) / (1 - beta_1**step)) * gradients
    scale = np.sqrt(cache)
    scale += epsilon * root
    values -= np.divide(ahead, scale, out=scale)


add("nadam", nadam, 2)


def amsgrad(
    values: Array,
    gradients: Array,
    states: tuple[Array, Array, Array],
    rate: float,
    step: float,
    epsilon: float,
    beta_1: float,
    beta_2: float,
) -> None:
    """AMSGrad (Reddi, Kale and Kumar, 2018).

    ``momentums`` and ``cache`` as Adam's; ``largest := max(largest, cache);
    values −= rate·(momentums / (1 − beta_1^step)) / (√(largest / (1 − beta_2^step)) + epsilon)``.
    """
    momentums, cache, largest = states
    _follow(momentums, cache, gradients, beta_1, beta_2)
    np.maximum(largest, cache, out=largest)
    root = (1 - beta_2**step) ** 0.5
    scale = np.sqrt(largest)
    scale += epsilon * root
    np.divide(momentums, scale, out=scale)
    scale *= rate * root / (1 - beta_1**step)
    values -= scale


add("amsgrad", amsgrad, 3)


def lion(
    values: Array,
    gradients: Array,
    states: tuple[Array],
    rate: float,
    step: float,
    beta_1: float,
    beta_2: float,
    weight_decay: float,
) -> None:
    """Lion (Chen et al., 2023); the sign of 0 is 0.

    ``values −= rate·weight_decay·values + rate·sign(beta_1·momentums + (1 − beta_1)·gradients);
    momentums := beta_2·momentums + (1 − beta_2)·gradients``.
    """
    (momentums,) = states
    ahead = beta_1 * momentums
    ahead += (1 - beta_1) * gradients
    values -= (rate * weight_decay) * values
    values -= rate * np.sign(ahead)
    momentums *= beta_2
    momentums += (1 - beta_2) * gradients


add("lion", lion, 1)


# Around every rule: clipping of gradients before it, an average of the values after it


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
