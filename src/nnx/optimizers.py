"""The optimizers. Their definitions are in `_kernels/_numpy/optimizers.py`, their vector code in
`_kernels/native/elementwise/optimizers.pxi`.

An optimizer holds its rate and its count of steps. What it learns about a parameter, such as momentums and cache, it
keeps in ordinary attributes of the layer. It works on any layer that has ``weights`` and ``dweights`` and, where there
are biases, ``biases`` and ``dbiases``. Each class adds its constructor, the names of what it keeps, and its settings.
Clipping, averaging and schedules are the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from nnx import _kernels, schedules
from nnx._base import check
from nnx._base.describe import Described
from nnx._base.interrupt import at_once
from nnx._base.parameters import AVERAGED, Parameterized
from nnx._base.text import abridged
from nnx._base.typing import Array
from nnx._base.vocabulary import BUILT_IN, built_in
from nnx.schedules import AnySchedule

__all__ = [
    "Optimizer_AMSGrad",
    "Optimizer_Adagrad",
    "Optimizer_Adam",
    "Optimizer_AdamW",
    "Optimizer_Lion",
    "Optimizer_NAdam",
    "Optimizer_RMSprop",
    "Optimizer_SGD",
]

GRADIENTS = (("dweights",), ("dbiases",))

#: The arguments that all optimizers have in common, after their own.
COMMON = ("schedule", "clip_norm", "clip_value", "average")

#: The name of the state that is a moving average of the parameter.
AVERAGES = "averages"

#: The methods that `updates_as_built_in` asks for.
UPDATING = ("update_params", "post_update_params")


#: A kernel's name, the names of what it keeps of a parameter, and its settings for weights and for biases.
Formula: TypeAlias = tuple[str, tuple[str, ...], tuple[float, ...], tuple[float, ...]]


class Rule(NamedTuple):
    """What an optimizer does in a step, as the kernels take it.

    Attributes
    ----------
    kernel : str
    states : pair of tuples of str
        The attributes of a layer in which it keeps what it learns about weights, and about biases.
    settings, bias_settings : tuple of float
        For weights, and for biases.
    clip_norm, clip_value, average : float
        0 if not set.
    """

    kernel: str
    states: tuple[tuple[str, ...], tuple[str, ...]]
    settings: tuple[float, ...]
    bias_settings: tuple[float, ...]
    clip_norm: float
    clip_value: float
    average: float


@lru_cache
def state_names(names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a layer's attributes that hold these states: of its weights, and of its biases."""
    return tuple(f"weight_{name}" for name in names), tuple(f"bias_{name}" for name in names)


class Optimizer(Described):
    """The optimizers' common part: rate, decay, the count of steps, and the walk over a layer's parameters."""

    #: The states that the optimizer may keep. The layer's attributes have "weight_" or "bias_" in front of these names.
    _states: ClassVar[tuple[str, ...]] = ()

    learning_rate: float
    current_learning_rate: float
    decay: float = 0.0
    iterations: int = 0
    schedule: AnySchedule | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    average: float | None = None

    def _configure(
        self,
        learning_rate: float,
        decay: float,
        schedule: AnySchedule | None,
        clip_norm: float | None,
        clip_value: float | None,
        average: float | None,
        **settings: float,
    ) -> None:
        where = type(self).__name__
        if callable(learning_rate):
            raise TypeError(
                f"{where}: learning_rate must be a number, got {abridged(learning_rate)}. Pass it as schedule=..."
            )
        self.learning_rate = check.number(where, "learning_rate", learning_rate, 0)
        self.decay = check.number(where, "decay", decay, 0)
        self.iterations = 0
        self.schedule = schedules.checked(where, "schedule", schedule)
        self.clip_norm, self.clip_value, self.average = clip_norm, clip_value, average
        for name, value in settings.items():
            setattr(self, name, value if isinstance(value, bool) else check.number(where, name, value))
        self._rule(where)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON. A schedule in them becomes its description."""
        config = super().get_config()
        config["schedule"] = schedules.described(f"{type(self).__name__}.get_config", self.schedule)
        return config

    def _shown(self) -> dict[str, Any]:
        return super().get_config()

    def __setattr__(self, name: str, value: Any) -> None:
        ends_schedule = name == "schedule" and value is None and self.schedule is not None
        object.__setattr__(self, name, value)
        if name == "learning_rate":  # takes effect at the next step; without decay nothing else would see to that
            object.__setattr__(self, "current_learning_rate", value)
        elif ends_schedule:  # else its last factor, often 0, would stay
            object.__setattr__(self, "current_learning_rate", self.learning_rate)

    def __getattr__(self, name: str) -> Any:
        # Reached only while it is unset: a subclass need not call this constructor.
        if name == "current_learning_rate":
            return self.learning_rate
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def pre_update_params(self) -> None:
        """Set ``current_learning_rate`` for this step. Without decay and schedule, it stays as it is."""
        decay, rate, iterations = self.decay, self.learning_rate, self.iterations
        are_plain = type(iterations) is int and 0 <= iterations <= check.MAX_COUNT
        if are_plain and self.schedule is None and _is_plain(decay) and _is_plain(rate):  # as `_rates`, without checks
            if decay:
                self.current_learning_rate = rate * (1.0 / (1.0 + decay * iterations))
            return
        where = f"{type(self).__name__}.pre_update_params"
        if check.number(where, "decay", self.decay, 0) or self.schedule is not None:
            iterations = check.whole(where, "iterations", self.iterations, 0, check.MAX_COUNT)
            self.current_learning_rate = self._rates(where, iterations, 1)

    def _rates(self, where: str, iterations: int, n: int) -> Any:
        """Return the rates of n steps that come after ``iterations`` others: an array (n,), or one number for all."""
        decay = check.number(where, "decay", self.decay, 0)
        if not decay and self.schedule is None:
            return self._checked_rate(where)
        rates: Any = check.number(where, "learning_rate", self.learning_rate, 0)
        if decay:
            count: Any = iterations
            if n > 1:
                count = np.arange(iterations, iterations + n, dtype=np.float64)
            rates = rates * (1.0 / (1.0 + decay * count))
        if self.schedule is not None:
            schedule = schedules.checked(where, "schedule", self.schedule)  # anything may have been assigned
            assert schedule is not None
            rates = rates * schedules.factors(where, schedule, iterations, n)
            return float(rates[0]) if n == 1 else rates
        return rates

    def update_params(self, layer: Any) -> None:
        """Update the layer's parameters in place by ``dweights`` and ``dbiases``.

        Here ``clip_norm`` limits the norm of this layer's gradients. In `Model.train` it limits the norm of the
        gradients of all layers together.

        Parameters
        ----------
        layer : layer with ``weights`` and ``dweights``
            What the rule remembers from step to step, such as momentums, is kept in the layer's attributes.

        Raises
        ------
        RuntimeError
            If the layer has no parameters or no gradients yet.
        TypeError, ValueError
            If parameters, gradients, state or settings are not valid. No parameter has changed then.
        """
        where = type(self).__name__ + ".update_params"
        rate = self.current_learning_rate
        if not _is_plain(rate):
            rate = float(self._checked_rate(where))
        rule = self._rule(where)
        step = check.whole(where, "iterations", self.iterations, 0, check.MAX_COUNT) + 1
        if not _kernels.backend.call_optimizer_update(layer, _parameters(where, layer), rule, rate, step):
            at_once(self._updates([layer]))

    def _updates(self, layers: Iterable[Any]) -> list[partial[Any]]:
        """Check everything, and return the calls that update the parameters of layers, for `at_once`."""
        where = type(self).__name__ + ".update_params"
        rate = float(self._checked_rate(where))
        rule = self._rule(where)
        step = check.whole(where, "iterations", self.iterations, 0, check.MAX_COUNT) + 1
        found = []
        forgotten: list[partial[Any]] = []
        for layer in layers:
            if not rule.average:
                forgotten += forgetting_averages(layer)
            for i, values in enumerate(_parameters(where, layer)):
                gradients = _gradient(where, layer, GRADIENTS[i], values)
                states = _state(where, layer, rule.states[i], values)
                found.append((values, gradients, states, rule.bias_settings if i else rule.settings))
        clipped = _clipped([gradients for _, gradients, _, _ in found], rule)
        n_states = len(rule.states[0]) - bool(rule.average)
        calls: list[partial[Any]] = []
        for (values, _, states, settings), gradients in zip(found, clipped, strict=True):
            kept = tuple(states[:n_states])
            update = _kernels.backend.optimizer_update
            calls.append(partial(update, rule.kernel, values, gradients, kept, rate, step, settings))
            if rule.average:
                keep = min(rule.average, step / (9 + step))
                calls.append(partial(_kernels.backend.average_update, states[-1], values, keep))
        return calls + forgotten

    def post_update_params(self) -> None:
        """Count the step."""
        self.iterations = self.iterations + 1

    def _steps(self, layers: Iterable[Any]) -> list[partial[Any]]:
        """Return the calls that do what `update_params`, for some layers, and `post_update_params` do."""
        return [*self._updates(layers), partial(object.__setattr__, self, "iterations", self.iterations + 1)]

    def _checked_rate(self, where: str) -> Any:
        """Return the rate in use, a finite number from 0 up; an error names the attribute that was assigned."""
        rate = self.current_learning_rate
        return check.number(where, "learning_rate" if rate is self.learning_rate else "current_learning_rate", rate, 0)

    def _rule(self, where: str | None = None) -> Rule:
        """Return the rule of the step that is due, its settings checked."""
        key = type(self), type(self)._formula
        rule: Rule | None = _kernels.recalled(_rules.get(key), self)
        if rule is None:
            rule = self._made_rule(where)
            names = tuple([name for name in self._arguments if name not in ("learning_rate", "decay", "schedule")])
            values = tuple([getattr(self, name) for name in names])
            if type(self).__module__ == __name__ and {*map(type, values)} <= {bool, float, int, type(None)}:
                _rules[key] = names, values, rule
        return rule

    def _made_rule(self, where: str | None) -> Rule:
        where = where or f"{type(self).__name__}.update_params"
        kernel, states, settings, bias_settings = self._formula(where)
        norm, value = _limit(where, "clip_norm", self.clip_norm), _limit(where, "clip_value", self.clip_value)
        average = 0.0 if self.average is None else float(check.fraction(where, "average", self.average))
        if norm and value:
            raise ValueError(f"{where}: clip_norm and clip_value must not be given together.")
        if average:
            states = (*states, AVERAGES)
        return Rule(kernel, state_names(states), settings, bias_settings, norm, value, average)

    def _formula(self, where: str) -> Formula:
        """Return the kernel's name, the names of its states, and its settings for weights and for biases, checked."""
        raise NotImplementedError(f"{type(self).__name__} does not define update_params(layer).")


#: For each class and its `_formula`: the names and values of the latest settings, and the rule made from them.
_rules: dict[tuple[type, Any], tuple[tuple[str, ...], tuple[Any, ...], Rule]] = {}


def _is_plain(number: Any) -> bool:
    """Return whether this is a finite float from 0 up, which needs no closer look."""
    return type(number) is float and 0 <= number < math.inf


def _limit(where: str, name: str, limit: Any) -> float:
    """Return a limit of gradients, a number above 0; 0 for None, which is no limit."""
    if limit is None:
        return 0.0
    number = float(check.number(where, name, limit))
    if number <= 0:
        raise ValueError(f"{where}: {name} must be above 0, got {abridged(limit)}.")
    return number


def updates_as_built_in(optimizer: Any) -> bool:
    """Return whether an optimizer updates parameters and counts steps as the built-in ones do."""
    kind: Any = type(optimizer)
    return (
        isinstance(optimizer, Optimizer)
        and kind.update_params is Optimizer.update_params
        and kind.post_update_params is Optimizer.post_update_params
        and kind.__setattr__ is Optimizer.__setattr__
        and vars(optimizer).keys().isdisjoint(UPDATING)
    )


def forgetting_averages(layer: Any) -> list[partial[Any]]:
    """Return the calls that drop a layer's averages: an optimizer that keeps none would leave old ones behind."""
    own = getattr(layer, "__dict__", {})
    return [partial(own.pop, name, None) for name in AVERAGED if name in own]


def _clipped(gradients: list[Array], rule: Rule) -> list[Array]:
    """Return gradients, or copies that are clipped as the rule says."""
    if rule.clip_value:
        found = [_kernels.empty_like(each) for each in gradients]
        for each, clipped in zip(gradients, found, strict=True):
            _kernels.backend.clip_gradients(each, clipped, rule.clip_value)
        return found
    if rule.clip_norm:
        norm = math.sqrt(sum(_kernels.backend.regularization_loss(each, 0.0, 1.0) for each in gradients))
        factor = rule.clip_norm / (norm + 1e-6)
        if factor > 1:
            return gradients
        found = [_kernels.empty_like(each) for each in gradients]
        for each, scaled in zip(gradients, found, strict=True):
            _kernels.backend.scale_gradients(each, scaled, factor)
        return found
    return gradients


def _parameters(where: str, layer: Any) -> tuple[Array, ...]:
    """Return a layer's weights and, if it has any, biases."""
    if isinstance(layer, Parameterized):
        return layer.get_parameters()
    names = ("weights",) if getattr(layer, "biases", None) is None else ("weights", "biases")
    return tuple(check.bound(where, layer, name) for name in names)


def _gradient(where: str, layer: Any, names: tuple[str], values: Array) -> Array:
    """Return the gradient of a layer's parameter, shaped like that."""
    found = _kernels.attributes(layer, names, values, False)
    if found is not None:
        return found[0]
    (name,) = names
    return check.like(where, name, check.stored(where, layer, name, "backward"), values)


def forget_states(layer: Any) -> None:
    """Remove all states that optimizers keep on a layer, except averages, so that the next optimizer starts anew."""
    for kind in BUILT_IN["optimizer"]:
        for names in state_names(kind._states):
            for name in names:
                vars(layer).pop(name, None)


def _state(where: str, layer: Any, names: tuple[str, ...], values: Array) -> list[Array]:
    """Return the state that a layer keeps of one parameter.

    If any state is missing, all of them start at zero, as in the book: Adam does not go on from the momentums of SGD.
    Averages are separate: if there are none, they start with the parameter's values.
    """
    found = _kernels.attributes(layer, names, values, True)
    if found is not None:
        return found
    learnt = [name for name in names if not name.endswith(AVERAGES)]
    if any(getattr(layer, name, None) is None for name in learnt):
        for name in learnt:
            setattr(layer, name, np.zeros(values.shape, values.dtype))
    for name in names:
        if name not in learnt and getattr(layer, name, None) is None:
            setattr(layer, name, values.copy())
    return [check.bound(where, layer, name, values.shape, values.dtype) for name in names]


@built_in("optimizer")
class Optimizer_SGD(Optimizer):
    """Stochastic gradient descent, with optional momentum.

    Without momentum w ← w − rate·g; with momentum m ← momentum·m − rate·g, w ← w + m; with Nesterov's momentum
    the same m, w ← w + momentum·m − rate·g.

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. You may assign it at any time; it takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    momentum : float
        At least 0 and below 1.
    nesterov : bool
        Whether to use Nesterov's momentum, for which ``momentum`` must be above 0.
    schedule : Schedule or function, optional
        The factor of the rate at each step: see `nnx.schedules`.
    clip_norm : float, optional
        The largest norm of the gradients of all layers together; larger gradients are scaled down to it.
    clip_value : float, optional
        Gradients are clipped to plus and minus this value. It cannot be combined with ``clip_norm``.
    average : float, optional
        Decay factor, below 1, of an exponential moving average of weights and biases. `evaluate`, `predict` and saved
        models use the averages. At step t, counted from 1, the factor is min(average, t / (t + 9)).

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay and schedule you may assign it too; it holds until you assign ``learning_rate``.
        If you remove a schedule by assigning None, it is ``learning_rate`` again.
    iterations : int
        Number of steps done.

    Notes
    -----
    Chapter 10 of the book. Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in
    deep learning", 2013. At a constant rate, the steps are those of PyTorch's SGD, with and without ``nesterov``.
    PyTorch's momentums do not contain the rate. If the rate changes, PyTorch counts old gradients at the new rate; nnx
    counts each gradient at the rate of its own step. State on the layer: ``weight_momentums``, ``bias_momentums``.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Layer_Dense, Optimizer_SGD
    >>> dense, sgd = Layer_Dense(1, 1), Optimizer_SGD(0.1, momentum=0.5, nesterov=True)
    >>> dense.weights[:], dense.dweights, dense.dbiases = 1, np.ones((1, 1)), np.zeros((1, 1))
    >>> sgd.update_params(dense)  # m = −0.1, w = 1 − 0.05 − 0.1
    >>> dense.weights
    array([[0.85]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "momentum", "nesterov", *COMMON)
    _states = ("momentums",)

    learning_rate: float = 1.0
    momentum: float = 0.0
    nesterov: bool = False

    def __init__(
        self,
        learning_rate: float = 1.0,
        decay: float = 0.0,
        momentum: float = 0.0,
        nesterov: bool = False,
        schedule: AnySchedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: float | None = None,
    ) -> None:
        own = {"momentum": momentum, "nesterov": nesterov}
        self._configure(learning_rate, decay, schedule, clip_norm, clip_value, average, **own)

    def _formula(self, where: str) -> Formula:
        settings = (float(check.fraction(where, "momentum", self.momentum)),)
        nesterov = check.flag(where, "nesterov", self.nesterov)
        if not settings[0]:
            if nesterov:
                raise ValueError(f"{where}: momentum must be above 0 with nesterov, got {self.momentum!r}.")
            return "sgd", (), (), ()
        return "sgd_nesterov" if nesterov else "sgd_momentum", ("momentums",), settings, settings


@built_in("optimizer")
class Optimizer_Adagrad(Optimizer):
    """Adagrad: c ← c + g², w ← w − rate·g / (√c + epsilon).

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. You may assign it at any time; it takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    epsilon : float
        Keeps the division finite.
    schedule : Schedule or function, optional
        The factor of the rate at each step: see `nnx.schedules`.
    clip_norm : float, optional
        The largest norm of the gradients of all layers together; larger gradients are scaled down to it.
    clip_value : float, optional
        Gradients are clipped to plus and minus this value. It cannot be combined with ``clip_norm``.
    average : float, optional
        Decay factor, below 1, of an exponential moving average of weights and biases. `evaluate`, `predict` and saved
        models use the averages. At step t, counted from 1, the factor is min(average, t / (t + 9)).

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay and schedule you may assign it too; it holds until you assign ``learning_rate``.
        If you remove a schedule by assigning None, it is ``learning_rate`` again.
    iterations : int
        Number of steps done.

    Notes
    -----
    Chapter 10 of the book. State on the layer: ``weight_cache``, ``bias_cache``.
    """

    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "epsilon", *COMMON)
    _states = ("cache",)

    learning_rate: float = 1.0
    epsilon: float = 1e-7

    def __init__(
        self,
        learning_rate: float = 1.0,
        decay: float = 0.0,
        epsilon: float = 1e-7,
        schedule: AnySchedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: float | None = None,
    ) -> None:
        self._configure(learning_rate, decay, schedule, clip_norm, clip_value, average, epsilon=epsilon)

    def _formula(self, where: str) -> Formula:
        settings = (float(check.number(where, "epsilon", self.epsilon, 0)),)
        return "adagrad", ("cache",), settings, settings


@built_in("optimizer")
class Optimizer_RMSprop(Optimizer):
    """RMSprop: c ← rho·c + (1 − rho)·g², w ← w − rate·g / (√c + epsilon).

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. You may assign it at any time; it takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    epsilon : float
        Keeps the division finite.
    rho : float
        The fraction of the cache that a step keeps: at least 0 and below 1.
    schedule : Schedule or function, optional
        The factor of the rate at each step: see `nnx.schedules`.
    clip_norm : float, optional
        The largest norm of the gradients of all layers together; larger gradients are scaled down to it.
    clip_value : float, optional
        Gradients are clipped to plus and minus this value. It cannot be combined with ``clip_norm``.
    average : float, optional
        Decay factor, below 1, of an exponential moving average of weights and biases. `evaluate`, `predict` and saved
        models use the averages. At step t, counted from 1, the factor is min(average, t / (t + 9)).

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay and schedule you may assign it too; it holds until you assign ``learning_rate``.
        If you remove a schedule by assigning None, it is ``learning_rate`` again.
    iterations : int
        Number of steps done.

    Notes
    -----
    Chapter 10 of the book. State on the layer: ``weight_cache``, ``bias_cache``.
    """

    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "epsilon", "rho", *COMMON)
    _states = ("cache",)

    learning_rate: float = 0.001
    epsilon: float = 1e-7
    rho: float = 0.9

    def __init__(
        self,
        learning_rate: float = 0.001,
        decay: float = 0.0,
        epsilon: float = 1e-7,
        rho: float = 0.9,
        schedule: AnySchedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: float | None = None,
    ) -> None:
        self._configure(learning_rate, decay, schedule, clip_norm, clip_value, average, epsilon=epsilon, rho=rho)

    def _formula(self, where: str) -> Formula:
        epsilon = float(check.number(where, "epsilon", self.epsilon, 0))
        settings = (epsilon, float(check.fraction(where, "rho", self.rho)))
        return "rmsprop", ("cache",), settings, settings


class _MadeOfAdam(Optimizer):
    """What Adam and those made of it have in common: the constructor, momentums and cache, the settings."""

    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "epsilon", "beta_1", "beta_2", *COMMON)
    _states: ClassVar[tuple[str, ...]] = ("momentums", "cache")

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
        schedule: AnySchedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: float | None = None,
    ) -> None:
        own = {"epsilon": epsilon, "beta_1": beta_1, "beta_2": beta_2}
        self._configure(learning_rate, decay, schedule, clip_norm, clip_value, average, **own)

    def _settings(self, where: str) -> tuple[float, ...]:
        """Return epsilon and both betas, checked."""
        epsilon = float(check.number(where, "epsilon", self.epsilon, 0))
        beta_1 = float(check.fraction(where, "beta_1", self.beta_1))
        return epsilon, beta_1, float(check.fraction(where, "beta_2", self.beta_2))


@built_in("optimizer")
class Optimizer_Adam(_MadeOfAdam):
    """Adam: m ← β₁·m + (1 − β₁)·g, c ← β₂·c + (1 − β₂)·g², w ← w − rate·m̂ / (√ĉ + epsilon).

    m̂ and ĉ are m and c divided by 1 − βᵗ, where t counts the steps from 1.

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. You may assign it at any time; it takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    epsilon : float
        Keeps the division finite.
    beta_1, beta_2 : float
        The fraction of momentums and cache that a step keeps: at least 0 and below 1.
    epsilon_hat : bool
        Whether epsilon is added to √c instead of √ĉ: w ← w − rate·√(1 − β₂ᵗ)/(1 − β₁ᵗ)·m / (√c + epsilon). This is the
        paper's second form, in which epsilon is called ε̂. scikit-learn and TensorFlow compute it.
    schedule : Schedule or function, optional
        The factor of the rate at each step: see `nnx.schedules`.
    clip_norm : float, optional
        The largest norm of the gradients of all layers together; larger gradients are scaled down to it.
    clip_value : float, optional
        Gradients are clipped to plus and minus this value. It cannot be combined with ``clip_norm``.
    average : float, optional
        Decay factor, below 1, of an exponential moving average of weights and biases. `evaluate`, `predict` and saved
        models use the averages. At step t, counted from 1, the factor is min(average, t / (t + 9)).

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay and schedule you may assign it too; it holds until you assign ``learning_rate``.
        If you remove a schedule by assigning None, it is ``learning_rate`` again.
    iterations : int
        Number of steps done.

    Notes
    -----
    Chapter 10 of the book. Kingma and Ba, "Adam: a method for stochastic optimization", 2015. State on the layer:
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

    _arguments: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "decay",
        "epsilon",
        "beta_1",
        "beta_2",
        "epsilon_hat",
        *COMMON,
    )

    epsilon_hat: bool = False

    def __init__(
        self,
        learning_rate: float = 0.001,
        decay: float = 0.0,
        epsilon: float = 1e-7,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon_hat: bool = False,
        schedule: AnySchedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: float | None = None,
    ) -> None:
        own = {"epsilon": epsilon, "beta_1": beta_1, "beta_2": beta_2, "epsilon_hat": epsilon_hat}
        self._configure(learning_rate, decay, schedule, clip_norm, clip_value, average, **own)

    def _formula(self, where: str) -> Formula:
        epsilon_hat = float(check.flag(where, "epsilon_hat", self.epsilon_hat))
        settings = (*self._settings(where), epsilon_hat)
        return "adam", self._states, settings, settings


@built_in("optimizer")
class Optimizer_AdamW(_MadeOfAdam):
    """AdamW, Adam with decoupled weight decay: w ← w − rate·weight_decay·w, then as `Optimizer_Adam`.

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. You may assign it at any time; it takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    epsilon : float
        Keeps the division finite.
    beta_1, beta_2 : float
        The fraction of momentums and cache that a step keeps: at least 0 and below 1.
    weight_decay : float
        Each step subtracts rate·weight_decay·w from the weights w, whatever their gradients are. Biases do not decay.
        PyTorch's AdamW decays all parameters that it is given, biases too.
    schedule : Schedule or function, optional
        The factor of the rate at each step: see `nnx.schedules`.
    clip_norm : float, optional
        The largest norm of the gradients of all layers together; larger gradients are scaled down to it.
    clip_value : float, optional
        Gradients are clipped to plus and minus this value. It cannot be combined with ``clip_norm``.
    average : float, optional
        Decay factor, below 1, of an exponential moving average of weights and biases. `evaluate`, `predict` and saved
        models use the averages. At step t, counted from 1, the factor is min(average, t / (t + 9)).

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay and schedule you may assign it too; it holds until you assign ``learning_rate``.
        If you remove a schedule by assigning None, it is ``learning_rate`` again.
    iterations : int
        Number of steps done.

    Notes
    -----
    Loshchilov and Hutter, "Decoupled weight decay regularization", 2019. The rate stands in place of their schedule
    multiplier, as in PyTorch. State on the layer: ``weight_momentums``, ``bias_momentums``, ``weight_cache``,
    ``bias_cache``.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Layer_Dense, Optimizer_AdamW
    >>> dense, optimizer = Layer_Dense(1, 1), Optimizer_AdamW(0.1, weight_decay=0.5)
    >>> dense.weights[:], dense.dweights, dense.dbiases = 1, np.ones((1, 1)), np.zeros((1, 1))
    >>> optimizer.update_params(dense)  # 1 − 0.1·0.5·1, then Adam's first step, 0.1
    >>> dense.weights.round(4)
    array([[0.85]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "decay",
        "epsilon",
        "beta_1",
        "beta_2",
        "weight_decay",
        *COMMON,
    )

    weight_decay: float = 0.01

    def __init__(
        self,
        learning_rate: float = 0.001,
        decay: float = 0.0,
        epsilon: float = 1e-7,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        weight_decay: float = 0.01,
        schedule: AnySchedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: float | None = None,
    ) -> None:
        own = {"epsilon": epsilon, "beta_1": beta_1, "beta_2": beta_2, "weight_decay": weight_decay}
        self._configure(learning_rate, decay, schedule, clip_norm, clip_value, average, **own)

    def _formula(self, where: str) -> Formula:
        settings = self._settings(where)
        weight_decay = float(check.number(where, "weight_decay", self.weight_decay, 0))
        return "adamw", self._states, (*settings, weight_decay), (*settings, 0.0)


@built_in("optimizer")
class Optimizer_NAdam(_MadeOfAdam):
    """NAdam, Adam with Nesterov's momentum: w ← w − rate·m̄ / (√ĉ + epsilon), m and c as in `Optimizer_Adam`.

    m̄ = β₁·m / (1 − β₁ᵗ⁺¹) + (1 − β₁)·g / (1 − β₁ᵗ) and ĉ = c / (1 − β₂ᵗ), where t counts the steps from 1.

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. You may assign it at any time; it takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    epsilon : float
        Keeps the division finite.
    beta_1, beta_2 : float
        The fraction of momentums and cache that a step keeps: at least 0 and below 1.
    schedule : Schedule or function, optional
        The factor of the rate at each step: see `nnx.schedules`.
    clip_norm : float, optional
        The largest norm of the gradients of all layers together; larger gradients are scaled down to it.
    clip_value : float, optional
        Gradients are clipped to plus and minus this value. It cannot be combined with ``clip_norm``.
    average : float, optional
        Decay factor, below 1, of an exponential moving average of weights and biases. `evaluate`, `predict` and saved
        models use the averages. At step t, counted from 1, the factor is min(average, t / (t + 9)).

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay and schedule you may assign it too; it holds until you assign ``learning_rate``.
        If you remove a schedule by assigning None, it is ``learning_rate`` again.
    iterations : int
        Number of steps done.

    Notes
    -----
    Dozat, "Incorporating Nesterov momentum into Adam", 2016, with one β₁ for all steps. In PyTorch's NAdam, β₁ starts
    at half its value and grows. A very large ``momentum_decay``, such as 1e9, ends this growth at once. PyTorch's steps
    are then the same. State on the layer: ``weight_momentums``, ``bias_momentums``, ``weight_cache``, ``bias_cache``.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Layer_Dense, Optimizer_NAdam
    >>> dense, optimizer = Layer_Dense(1, 1), Optimizer_NAdam(0.1)
    >>> dense.weights[:], dense.dweights, dense.dbiases = 1, np.ones((1, 1)), np.zeros((1, 1))
    >>> optimizer.update_params(dense)  # m̄ = 0.9·0.1 / (1 − 0.81) + 0.1 / 0.1, ĉ = 1
    >>> dense.weights.round(4)
    array([[0.8526]], dtype=float32)
    """

    def _formula(self, where: str) -> Formula:
        settings = self._settings(where)
        return "nadam", self._states, settings, settings


@built_in("optimizer")
class Optimizer_AMSGrad(_MadeOfAdam):
    """AMSGrad, Adam whose cache never shrinks: l ← max(l, c), w ← w − rate·m̂ / (√l̂ + epsilon).

    m and c are those of `Optimizer_Adam`; m̂ = m / (1 − β₁ᵗ) and l̂ = l / (1 − β₂ᵗ), where t counts the steps from 1.

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. You may assign it at any time; it takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    epsilon : float
        Keeps the division finite.
    beta_1, beta_2 : float
        The fraction of momentums and cache that a step keeps: at least 0 and below 1.
    schedule : Schedule or function, optional
        The factor of the rate at each step: see `nnx.schedules`.
    clip_norm : float, optional
        The largest norm of the gradients of all layers together; larger gradients are scaled down to it.
    clip_value : float, optional
        Gradients are clipped to plus and minus this value. It cannot be combined with ``clip_norm``.
    average : float, optional
        Decay factor, below 1, of an exponential moving average of weights and biases. `evaluate`, `predict` and saved
        models use the averages. At step t, counted from 1, the factor is min(average, t / (t + 9)).

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay and schedule you may assign it too; it holds until you assign ``learning_rate``.
        If you remove a schedule by assigning None, it is ``learning_rate`` again.
    iterations : int
        Number of steps done.

    Notes
    -----
    Reddi, Kale and Kumar, "On the convergence of Adam and beyond", 2018. The corrections by 1 − βᵗ are those of
    PyTorch's Adam with ``amsgrad=True``: the largest of the uncorrected caches is corrected. State on the layer:
    ``weight_momentums``, ``bias_momentums``, ``weight_cache``, ``bias_cache``, ``weight_largest_cache``,
    ``bias_largest_cache``.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Layer_Dense, Optimizer_AMSGrad
    >>> dense, optimizer = Layer_Dense(1, 1), Optimizer_AMSGrad(0.1)
    >>> dense.weights[:], dense.dweights, dense.dbiases = 1, np.ones((1, 1)), np.zeros((1, 1))
    >>> optimizer.update_params(dense)  # the first step is Adam's
    >>> dense.weights.round(4)
    array([[0.9]], dtype=float32)
    """

    _states = ("momentums", "cache", "largest_cache")

    def _formula(self, where: str) -> Formula:
        settings = self._settings(where)
        return "amsgrad", self._states, settings, settings


@built_in("optimizer")
class Optimizer_Lion(Optimizer):
    """Lion: w ← w − rate·weight_decay·w − rate·sign(β₁·m + (1 − β₁)·g), then m ← β₂·m + (1 − β₂)·g.

    The sign of 0 is 0.

    Parameters
    ----------
    learning_rate : float
        The rate of the first step. You may assign it at any time; it takes effect at the next step.
    decay : float
        The rate of step t, counted from 0, is learning_rate / (1 + decay·t).
    beta_1 : float
        The share of the momentums in the direction of a step: at least 0 and below 1.
    beta_2 : float
        The fraction of the momentums that a step keeps: at least 0 and below 1.
    weight_decay : float
        Each step subtracts rate·weight_decay·w from the weights w, whatever their gradients are. Biases do not decay.
        The code of Chen et al. decays all parameters that it is given, biases too.
    schedule : Schedule or function, optional
        The factor of the rate at each step: see `nnx.schedules`.
    clip_norm : float, optional
        The largest norm of the gradients of all layers together; larger gradients are scaled down to it.
    clip_value : float, optional
        Gradients are clipped to plus and minus this value. It cannot be combined with ``clip_norm``.
    average : float, optional
        Decay factor, below 1, of an exponential moving average of weights and biases. `evaluate`, `predict` and saved
        models use the averages. At step t, counted from 1, the factor is min(average, t / (t + 9)).

    Attributes
    ----------
    current_learning_rate : float
        The rate in use. Without decay and schedule you may assign it too; it holds until you assign ``learning_rate``.
        If you remove a schedule by assigning None, it is ``learning_rate`` again.
    iterations : int
        Number of steps done.

    Notes
    -----
    Chen et al., "Symbolic discovery of optimization algorithms", 2023. Every weight moves by the whole rate. The rate
    must therefore be smaller than Adam's, according to the paper by 3 to 10 times, and ``weight_decay`` larger by the
    same factor. State on the layer: ``weight_momentums``, ``bias_momentums``.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Layer_Dense, Optimizer_Lion
    >>> dense, optimizer = Layer_Dense(1, 1), Optimizer_Lion(0.1, weight_decay=0.5)
    >>> dense.weights[:], dense.dweights, dense.dbiases = 1, np.ones((1, 1)), np.zeros((1, 1))
    >>> optimizer.update_params(dense)  # 1 − 0.1·0.5·1 − 0.1
    >>> dense.weights.round(4)
    array([[0.85]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("learning_rate", "decay", "beta_1", "beta_2", "weight_decay", *COMMON)
    _states = ("momentums",)

    learning_rate: float = 0.0001
    beta_1: float = 0.9
    beta_2: float = 0.99
    weight_decay: float = 0.0

    def __init__(
        self,
        learning_rate: float = 0.0001,
        decay: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        weight_decay: float = 0.0,
        schedule: AnySchedule | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        average: float | None = None,
    ) -> None:
        own = {"beta_1": beta_1, "beta_2": beta_2, "weight_decay": weight_decay}
        self._configure(learning_rate, decay, schedule, clip_norm, clip_value, average, **own)

    def _formula(self, where: str) -> Formula:
        betas = tuple(float(check.fraction(where, name, getattr(self, name))) for name in ("beta_1", "beta_2"))
        weight_decay = float(check.number(where, "weight_decay", self.weight_decay, 0))
        return "lion", self._states, (*betas, weight_decay), (*betas, 0.0)
