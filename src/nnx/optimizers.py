"""Optimizers: `Optimizer_SGD`, `Optimizer_Adagrad`, `Optimizer_RMSprop`, `Optimizer_Adam`.

An optimizer holds its rate and its count of steps; what it learns about a parameter (momentums, cache) it keeps on
the layer, as ordinary attributes. It works on any layer that has ``weights`` and ``dweights`` and, where there are
biases, ``biases`` and ``dbiases``. Each class adds its constructor and its `_rule`: which kernel, with what.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar, TypeAlias

import numpy as np

from nnx import _kernels
from nnx._base import check as _check
from nnx._base.describe import Described
from nnx._base.interrupt import at_once
from nnx._base.typing import Array
from nnx.layers import Layer_Dense

State: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]

#: Names of the state that a rule keeps for weights and for biases.
NOTHING: State = ((), ())
MOMENTUMS: State = (("weight_momentums",), ("bias_momentums",))
CACHE: State = (("weight_cache",), ("bias_cache",))
MOMENTUMS_AND_CACHE: State = (("weight_momentums", "weight_cache"), ("bias_momentums", "bias_cache"))


GRADIENTS = (("dweights",), ("dbiases",))


#: A step's kernel, which is called with parameter, gradient, state, rate, settings; names of the state; settings.
Rule: TypeAlias = tuple[str, State, tuple[float, ...]]


#: The methods that `is_built_in` asks for.
UPDATING = ("update_params", "post_update_params")


class _Optimizer(Described):
    """The optimizers' common part: rate, decay, the count of steps, and the walk over a layer's parameters."""

    learning_rate: float
    current_learning_rate: float
    decay: float = 0.0
    iterations: int = 0

    def _configure(self, learning_rate: float, decay: float, **settings: float) -> None:
        where = type(self).__name__
        self.learning_rate = _check.number(where, "learning_rate", learning_rate, 0)
        self.decay = _check.number(where, "decay", decay, 0)
        self.iterations = 0
        for name, value in settings.items():
            setattr(self, name, _check.number(where, name, value))
        self._rule(where)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "learning_rate":  # takes effect at the next step; without decay nothing else would see to that
            object.__setattr__(self, "current_learning_rate", value)

    def __getattr__(self, name: str) -> Any:
        # Reached only while it is unset: a subclass need not call this constructor.
        if name == "current_learning_rate":
            return self.learning_rate
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def pre_update_params(self) -> None:
        """Set ``current_learning_rate`` for this step; without decay it is left alone."""
        where = f"{type(self).__name__}.pre_update_params"
        decay = _check.number(where, "decay", self.decay, 0)
        if decay:
            iterations = _check.whole(where, "iterations", self.iterations, 0, _check.MAX_COUNT)
            rate = _check.number(where, "learning_rate", self.learning_rate, 0)
            self.current_learning_rate = rate * (1.0 / (1.0 + decay * iterations))

    def update_params(self, layer: Any) -> None:
        """Update the layer's parameters in place by ``dweights`` and ``dbiases``.

        Raises
        ------
        RuntimeError
            If the layer has no parameters or no gradients yet.
        TypeError, ValueError
            If parameters, gradients, state or settings are not what they must be; no parameter has changed then.
        """
        at_once(self._updates([layer]))

    def _updates(self, layers: Iterable[Any]) -> list[partial[Any]]:
        """Return the calls that update the parameters of layers, for `at_once`; all that they need is checked."""
        where = type(self).__name__ + ".update_params"
        rate = float(self._checked_rate(where))
        kernel, state, settings = self._rule(where)
        update = getattr(_kernels.backend, kernel)
        calls = []
        for layer in layers:
            parameters = _parameters(where, layer)
            n = len(parameters)
            gradients = [_gradient(where, layer, GRADIENTS[i], parameters[i]) for i in range(n)]
            states = [_state(where, layer, state[i], parameters[i]) for i in range(n)]
            calls += [partial(update, parameters[i], *gradients[i], *states[i], rate, *settings) for i in range(n)]
        return calls

    def post_update_params(self) -> None:
        """Count the step."""
        self.iterations = self.iterations + 1

    def _steps(self, layers: Iterable[Any]) -> list[partial[Any]]:
        """Return the calls that do what `update_params`, for some layers, and `post_update_params` do."""
        return [*self._updates(layers), partial(object.__setattr__, self, "iterations", self.iterations + 1)]

    def _checked_rate(self, where: str) -> Any:
        """Return the rate in use, a finite number from 0 up; an error names the attribute that was assigned."""
        rate = self.current_learning_rate
        return _check.number(where, "learning_rate" if rate is self.learning_rate else "current_learning_rate", rate, 0)

    def _rule(self, where: str) -> Rule:
        """Return the rule of the step that is due, its settings checked."""
        raise NotImplementedError(f"{where}: {type(self).__name__} does not define update_params(layer).")


def is_built_in(optimizer: Any) -> bool:
    """Return whether an optimizer updates and counts as the built-in ones do, whatever else it does."""
    kind: Any = type(optimizer)
    return (
        isinstance(optimizer, _Optimizer)
        and kind.update_params is _Optimizer.update_params
        and kind.post_update_params is _Optimizer.post_update_params
        and kind.__setattr__ is _Optimizer.__setattr__
        and vars(optimizer).keys().isdisjoint(UPDATING)
    )


def _parameters(where: str, layer: Any) -> tuple[Array, ...]:
    """Return a layer's weights and, if it has any, biases."""
    if isinstance(layer, Layer_Dense):
        return layer.get_parameters()
    names = ("weights",) if getattr(layer, "biases", None) is None else ("weights", "biases")
    return tuple(_check.bound(where, layer, name) for name in names)


def _gradient(where: str, layer: Any, names: tuple[str], values: Array) -> list[Array]:
    """Return the gradient of a layer's parameter, shaped like that."""
    found = _kernels.attributes(layer, names, values, False)
    if found is not None:
        return found
    return [_check.like(where, name, _check.stored(where, layer, name, "backward"), values) for name in names]


def _state(where: str, layer: Any, names: tuple[str, ...], values: Array) -> list[Array]:
    """Return the state that a layer keeps of one parameter.

    If any of it is missing, all of it begins anew, as in the book: Adam does not go on from the momentums of SGD.
    """
    found = _kernels.attributes(layer, names, values, True)
    if found is not None:
        return found
    if any(getattr(layer, name, None) is None for name in names):
        for name in names:
            setattr(layer, name, np.zeros(values.shape, values.dtype))
    return [_check.bound(where, layer, name, values.shape, values.dtype) for name in names]


class Optimizer_SGD(_Optimizer):
    """Stochastic gradient descent, with momentum if wanted.

    Without momentum w ← w − rate·g; with momentum m ← momentum·m − rate·g, w ← w + m.

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. It may be assigned at any time, and takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    momentum : float
        From 0 up to, but not including, 1.

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay it may be assigned too, and holds until ``learning_rate`` is assigned.
    iterations : int
        Steps done.

    Notes
    -----
    Chapter 10 of the book. State on the layer: ``weight_momentums``, ``bias_momentums``.
    """

    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "momentum")

    learning_rate: float = 1.0
    momentum: float = 0.0

    def __init__(self, learning_rate: float = 1.0, decay: float = 0.0, momentum: float = 0.0) -> None:
        self._configure(learning_rate, decay, momentum=momentum)

    def _rule(self, where: str) -> Rule:
        momentum = float(_check.fraction(where, "momentum", self.momentum))
        return ("sgd_momentum_update", MOMENTUMS, (momentum,)) if momentum else ("sgd_update", NOTHING, ())


class Optimizer_Adagrad(_Optimizer):
    """Adagrad: c ← c + g², w ← w − rate·g / (√c + epsilon).

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. It may be assigned at any time, and takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    epsilon : float
        Keeps the division finite.

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay it may be assigned too, and holds until ``learning_rate`` is assigned.
    iterations : int
        Steps done.

    Notes
    -----
    Chapter 10 of the book. State on the layer: ``weight_cache``, ``bias_cache``.
    """

    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "epsilon")

    learning_rate: float = 1.0
    epsilon: float = 1e-7

    def __init__(self, learning_rate: float = 1.0, decay: float = 0.0, epsilon: float = 1e-7) -> None:
        self._configure(learning_rate, decay, epsilon=epsilon)

    def _rule(self, where: str) -> Rule:
        return ("adagrad_update", CACHE, (float(_check.number(where, "epsilon", self.epsilon, 0)),))


class Optimizer_RMSprop(_Optimizer):
    """RMSprop: c ← rho·c + (1 − rho)·g², w ← w − rate·g / (√c + epsilon).

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. It may be assigned at any time, and takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    epsilon : float
        Keeps the division finite.
    rho : float
        How much of the cache is kept, from 0 up to, but not including, 1.

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay it may be assigned too, and holds until ``learning_rate`` is assigned.
    iterations : int
        Steps done.

    Notes
    -----
    Chapter 10 of the book. State on the layer: ``weight_cache``, ``bias_cache``.
    """

    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "epsilon", "rho")

    learning_rate: float = 0.001
    epsilon: float = 1e-7
    rho: float = 0.9

    def __init__(
        self, learning_rate: float = 0.001, decay: float = 0.0, epsilon: float = 1e-7, rho: float = 0.9
    ) -> None:
        self._configure(learning_rate, decay, epsilon=epsilon, rho=rho)

    def _rule(self, where: str) -> Rule:
        epsilon = float(_check.number(where, "epsilon", self.epsilon, 0))
        return ("rmsprop_update", CACHE, (epsilon, float(_check.fraction(where, "rho", self.rho))))


class Optimizer_Adam(_Optimizer):
    """Adam: m ← β₁·m + (1 − β₁)·g, c ← β₂·c + (1 − β₂)·g², w ← w − rate·m̂ / (√ĉ + epsilon).

    m̂ and ĉ are m and c divided by 1 − βᵗ, where t counts the steps from 1.

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. It may be assigned at any time, and takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    epsilon : float
        Keeps the division finite.
    beta_1, beta_2 : float
        How much of momentums and cache is kept, from 0 up to, but not including, 1.

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay it may be assigned too, and holds until ``learning_rate`` is assigned.
    iterations : int
        Steps done.

    Notes
    -----
    Chapter 10 of the book; Kingma and Ba, "Adam: a method for stochastic optimization", 2015. State on the layer:
    ``weight_momentums``, ``bias_momentums``, ``weight_cache``, ``bias_cache``.

    Examples
    --------
    >>> from nnx import Layer_Dense, Optimizer_Adam
    >>> adam = Optimizer_Adam(learning_rate=0.05, decay=5e-7)
    >>> dense = Layer_Dense(2, 3)
    >>> dense.forward([[1.0, 2.0]])
    >>> dense.backward([[0.1, 0.0, -0.1]])
    >>> adam.pre_update_params()
    >>> adam.update_params(dense)
    >>> adam.post_update_params()
    >>> dense.biases.round(4)
    array([[-0.05,  0.  ,  0.05]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "epsilon", "beta_1", "beta_2")

    learning_rate: float = 0.001
    epsilon: float = 1e-7
    beta_1: float = 0.9
    beta_2: float = 0.999

    def __init__(
        self,
        learning_rate: float = 0.001,
        decay: float = 0.0,
        epsilon: float = 1e-7,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
    ) -> None:
        self._configure(learning_rate, decay, epsilon=epsilon, beta_1=beta_1, beta_2=beta_2)

    def _rule(self, where: str) -> Rule:
        epsilon = float(_check.number(where, "epsilon", self.epsilon, 0))
        beta_1 = float(_check.fraction(where, "beta_1", self.beta_1))
        beta_2 = float(_check.fraction(where, "beta_2", self.beta_2))
        step = _check.whole(where, "iterations", self.iterations, 0, _check.MAX_COUNT) + 1
        return ("adam_update", MOMENTUMS_AND_CACHE, (epsilon, beta_1, beta_2, step))
