"""Learning-rate schedules: by which factor an optimizer's ``learning_rate`` is multiplied at each step.

A schedule is a function of the step alone, counted from 0, so a run can begin at any step. The built-in classes also
take arrays of steps. They compute each step by itself, with Python's own arithmetic. NumPy may round a number in an
array differently from the same number alone, and one processor differently from another. NumPy would be slower for one
step, and not much faster for thousands (0.2 µs a step).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias, overload

import numpy as np

from nnx._base import check
from nnx._base.describe import Described
from nnx._base.text import abridged
from nnx._base.typing import Array
from nnx._base.vocabulary import BUILT_IN, built_in, is_built_in

__all__ = [
    "Schedule",
    "Schedule_Cosine",
    "Schedule_Exponential",
    "Schedule_OneCycle",
    "Schedule_Polynomial",
    "Schedule_Step",
    "Schedule_WarmUp",
]

#: A schedule, or any other function of the step that returns a finite number of at least 0.
AnySchedule: TypeAlias = Callable[[int], float]

#: A schedule whose settings are checked: it gives infinity or NaN where a float cannot hold the factor.
Factor: TypeAlias = Callable[[float], float]

#: How many schedules may be nested, each as the ``schedule`` of another.
MAX_NESTED = 8

#: The keys of a schedule's description.
KEYS = {"class", "config"}


class Schedule(Described):
    """Base of the schedules, and of custom ones: define ``__call__(step)``.

    ``schedule(step)`` is the factor of a step, counted from 0: a finite number of at least 0. An optimizer's rate is
    ``learning_rate * schedule(step)``. A custom schedule is called with one step after the other. It must not depend on
    anything but the step. Model files hold only built-in schedules.

    Examples
    --------
    >>> from nnx import Schedule
    >>> class Schedule_Sqrt(Schedule):
    ...     def __call__(self, step):
    ...         return (1 + step) ** -0.5
    >>> Schedule_Sqrt()(3)
    0.5
    """

    def __call__(self, step: int) -> float:
        """Return the factor of a step."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(step).")


class FormulaSchedule(Schedule):
    """The common part of the built-in schedules: calls check the settings, and take a step or an array of steps."""

    @overload
    def __call__(self, step: int) -> float: ...

    @overload
    def __call__(self, step: Array) -> Array: ...

    def __call__(self, step: Any) -> Any:
        """Return the factor of a step, or an array of the factors of an array of steps.

        Parameters
        ----------
        step : number of at least 0, or array of such
            Counted from 0.
        """
        where = type(self).__name__
        if not isinstance(step, np.ndarray | list | tuple):
            return self._function(where)(float(check.number(where, "step", step, 0)))
        steps = check.plain(where, "step", step).astype(np.float64)
        good = (steps >= 0) & (steps < math.inf)
        if not np.all(good):
            raise ValueError(f"{where}: step must hold finite numbers of at least 0, got {steps[~good].flat[0]}.")
        found = map(self._function(where), steps.ravel().tolist())
        return np.fromiter(found, np.float64, steps.size).reshape(steps.shape)

    def _check_settings(self, where: str) -> None:
        """Refuse invalid settings: users may have assigned anything."""

    def _function(self, where: str) -> Factor:
        """Return the schedule as a function of one step, its settings checked."""
        raise NotImplementedError


@built_in("schedule")
class Schedule_Step(FormulaSchedule):
    """The factor drops at certain steps: it is factorᵏ after k drops.

    Parameters
    ----------
    every : int, optional
        The number of steps from one drop to the next.
    factor : float
        What each drop multiplies the rate by, at least 0.
    milestones : list of int, optional
        The steps at which the factor drops, in ascending order. Give either ``every`` or ``milestones``.

    Notes
    -----
    k is ⌊step / every⌋, or the number of milestones ≤ step. PyTorch calls these schedules StepLR and MultiStepLR.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Schedule_Step
    >>> Schedule_Step(2, factor=0.5)(np.arange(6))
    array([1.  , 1.  , 0.5 , 0.5 , 0.25, 0.25])
    >>> Schedule_Step(milestones=[1, 4], factor=0.5)(np.arange(6))
    array([1.  , 0.5 , 0.5 , 0.5 , 0.25, 0.25])
    """

    _arguments: ClassVar[tuple[str, ...]] = ("every", "factor", "milestones")

    def __init__(
        self, every: int | None = None, factor: float = 0.1, milestones: Sequence[int] | Array | None = None
    ) -> None:
        self.every = every
        self.factor = factor
        self.milestones = milestones
        self._check_settings("Schedule_Step")

    def _check_settings(self, where: str) -> None:
        if (self.every is None) == (self.milestones is None):
            got = "neither" if self.every is None else "both"
            raise ValueError(f"{where}: every or milestones must be given, got {got}.")
        self.factor = _amount(where, "factor", self.factor)
        if self.every is not None:
            self.every = _count(where, "every", self.every)
        else:
            self.milestones = _checked_milestones(where, self.milestones)

    def _function(self, where: str) -> Factor:
        self._check_settings(where)
        factor, every, milestones = float(self.factor), self.every, self.milestones
        if every is not None:
            return lambda step: _power(factor, step // every)
        return lambda step: _power(factor, bisect_right(milestones or [], step))


@built_in("schedule")
class Schedule_Exponential(FormulaSchedule):
    """The factor changes by the same ratio at each step: factor^(step / every).

    Parameters
    ----------
    factor : float
        After ``every`` steps, the rate has been multiplied by this number, at least 0. Above 1 the rate grows.
    every : int
        The number of steps that multiply the rate by ``factor``.

    Notes
    -----
    If ``every`` is 1, this is PyTorch's ExponentialLR.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Schedule_Exponential
    >>> Schedule_Exponential(0.5)(np.arange(4))
    array([1.   , 0.5  , 0.25 , 0.125])
    >>> Schedule_Exponential(0.5, every=1000)(2000)
    0.25
    """

    _arguments: ClassVar[tuple[str, ...]] = ("factor", "every")

    def __init__(self, factor: float, every: int = 1) -> None:
        self.factor = factor
        self.every = every
        self._check_settings("Schedule_Exponential")

    def _check_settings(self, where: str) -> None:
        self.factor = _amount(where, "factor", self.factor)
        self.every = _count(where, "every", self.every)

    def _function(self, where: str) -> Factor:
        self._check_settings(where)
        factor, every = float(self.factor), self.every
        return lambda step: _power(factor, step / every)


@built_in("schedule")
class Schedule_Polynomial(FormulaSchedule):
    """The factor falls from 1 to ``final``, on a straight line if ``power`` is 1, and stays there.

    Parameters
    ----------
    steps : int
        The step at which ``final`` is reached.
    power : float
        At least 0. The higher it is, the faster the factor falls at first.
    final : float
        The last factor, at least 0.

    Notes
    -----
    The factor is final + (1 − final)·(1 − step / steps)^power. With ``final`` 0 this is PyTorch's PolynomialLR, with
    ``power`` 1 its LinearLR.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Schedule_Polynomial
    >>> Schedule_Polynomial(4)(np.arange(6))
    array([1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ])
    """

    _arguments: ClassVar[tuple[str, ...]] = ("steps", "power", "final")

    def __init__(self, steps: int, power: float = 1.0, final: float = 0.0) -> None:
        self.steps = steps
        self.power = power
        self.final = final
        self._check_settings("Schedule_Polynomial")

    def _check_settings(self, where: str) -> None:
        self.steps = _count(where, "steps", self.steps)
        self.power = _amount(where, "power", self.power)
        self.final = _amount(where, "final", self.final)

    def _function(self, where: str) -> Factor:
        self._check_settings(where)
        steps, power, final = self.steps, float(self.power), float(self.final)
        return lambda step: final + (1.0 - final) * (1.0 - min(step / steps, 1.0)) ** power


@built_in("schedule")
class Schedule_Cosine(FormulaSchedule):
    """The factor falls from 1 to ``final`` as half a wave of the cosine, and stays there.

    Parameters
    ----------
    steps : int
        The step at which ``final`` is reached.
    final : float
        The last factor, at least 0.
    cycles : int
        How often the factor falls, each time over ``steps / cycles`` steps. Between two cycles it returns to 1.

    Notes
    -----
    With one cycle, the factor is final + (1 − final)·(1 + cos(π·step / steps)) / 2. Loshchilov and Hutter, "SGDR:
    stochastic gradient descent with warm restarts", 2017. PyTorch's CosineAnnealingLR has the same formula, but rises
    again after ``steps``.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Schedule_Cosine
    >>> Schedule_Cosine(4)(np.arange(6)).round(4)
    array([1.    , 0.8536, 0.5   , 0.1464, 0.    , 0.    ])
    >>> Schedule_Cosine(4, cycles=2)(np.arange(6)).round(4)
    array([1. , 0.5, 1. , 0.5, 0. , 0. ])
    """

    _arguments: ClassVar[tuple[str, ...]] = ("steps", "final", "cycles")

    def __init__(self, steps: int, final: float = 0.0, cycles: int = 1) -> None:
        self.steps = steps
        self.final = final
        self.cycles = cycles
        self._check_settings("Schedule_Cosine")

    def _check_settings(self, where: str) -> None:
        self.steps = _count(where, "steps", self.steps)
        self.final = _amount(where, "final", self.final)
        self.cycles = _count(where, "cycles", self.cycles)
        if self.cycles > self.steps:
            raise ValueError(f"{where}: cycles must be at most steps ({self.steps}), got {self.cycles}.")

    def _function(self, where: str) -> Factor:
        self._check_settings(where)
        steps, final, cycles = self.steps, float(self.final), self.cycles

        def factor(step: float) -> float:
            return _cosine(1.0, final, 1.0 if step >= steps else step * cycles / steps % 1.0)

        return factor


@built_in("schedule")
class Schedule_OneCycle(FormulaSchedule):
    """The factor rises from ``initial`` to 1, then falls to ``final``, each as half a wave of the cosine.

    The optimizer's ``learning_rate`` is the highest rate.

    Parameters
    ----------
    steps : int
        The number of steps of the whole cycle. The last one, ``steps - 1``, and all later steps have the factor
        ``final``.
    warm_up : float
        The fraction of the steps in which the factor rises: at least 0 and below 1.
    initial, final : float
        The first and the last factor, at least 0.

    Notes
    -----
    Smith and Topin, "Super-convergence", 2018. This is PyTorch's OneCycleLR. Its ``div_factor`` is 1 / initial, its
    ``final_div_factor`` initial / final. Step warm_up·steps − 1 has the highest rate.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Schedule_OneCycle
    >>> Schedule_OneCycle(10, initial=0.1, final=0.0)(np.arange(10)).round(3)
    array([0.1  , 0.55 , 1.   , 0.95 , 0.812, 0.611, 0.389, 0.188, 0.05 ,
           0.   ])
    """

    _arguments: ClassVar[tuple[str, ...]] = ("steps", "warm_up", "initial", "final")

    def __init__(self, steps: int, warm_up: float = 0.3, initial: float = 0.04, final: float = 4e-6) -> None:
        self.steps = steps
        self.warm_up = warm_up
        self.initial = initial
        self.final = final
        self._check_settings("Schedule_OneCycle")

    def _check_settings(self, where: str) -> None:
        self.steps = _count(where, "steps", self.steps)
        self.warm_up = check.fraction(where, "warm_up", self.warm_up)
        self.initial = _amount(where, "initial", self.initial)
        self.final = _amount(where, "final", self.final)

    def _function(self, where: str) -> Factor:
        self._check_settings(where)
        initial, final = float(self.initial), float(self.final)
        peak, end = self.warm_up * self.steps - 1.0, self.steps - 1.0

        def factor(step: float) -> float:
            if step < peak:  # never, if the peak is at step 0 or before
                return _cosine(initial, 1.0, step / peak)
            return _cosine(1.0, final, 1.0 if step >= end else (step - peak) / (end - peak))

        return factor


@built_in("schedule")
class Schedule_WarmUp(FormulaSchedule):
    """The factor rises on a straight line from ``initial``; after ``steps`` steps another schedule begins.

    Parameters
    ----------
    steps : int
        Over how many steps the factor rises.
    schedule : schedule or function of the step, optional
        What follows. Its step 0 is the end of the warm-up. Without it, the factor stays 1.
    initial : float
        The first factor, relative to the first factor of ``schedule``. At least 0.

    Notes
    -----
    The factor is (initial + (1 − initial)·step / steps)·schedule(0) during the warm-up, then schedule(step − steps). In
    PyTorch, this is LinearLR followed by the other schedule.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Schedule_Polynomial, Schedule_WarmUp
    >>> schedule = Schedule_WarmUp(4, Schedule_Polynomial(2))
    >>> schedule
    Schedule_WarmUp(4, schedule=Schedule_Polynomial(2))
    >>> schedule(np.arange(7))
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 0.5 , 0.  ])
    """

    _arguments: ClassVar[tuple[str, ...]] = ("steps", "schedule", "initial")

    schedule: AnySchedule | None

    def __init__(self, steps: int, schedule: Any = None, initial: float = 0.0) -> None:
        self.steps = steps
        self.schedule = schedule
        self.initial = initial
        self._check_settings("Schedule_WarmUp")

    def _check_settings(self, where: str) -> None:
        self.steps = _count(where, "steps", self.steps)
        self.schedule = checked(where, "schedule", self.schedule)
        self.initial = _amount(where, "initial", self.initial)
        inner, depth = self.schedule, 1
        while inner is not None and depth <= MAX_NESTED:
            inner, depth = inner.schedule if isinstance(inner, Schedule_WarmUp) else None, depth + 1
        _check_depth(where, "schedule", depth)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON. A schedule in them becomes its description."""
        config = super().get_config()
        return {**config, "schedule": described("Schedule_WarmUp.get_config", self.schedule)}

    def _shown(self) -> dict[str, Any]:
        return super().get_config()

    def _function(self, where: str) -> Factor:
        self._check_settings(where)
        steps, initial = self.steps, float(self.initial)
        following = (lambda step: 1.0) if self.schedule is None else _function_of(where, self.schedule)

        def factor(step: float) -> float:
            if step >= steps:
                return following(step - steps)
            return (initial + (1.0 - initial) * (step / steps)) * following(0.0)

        return factor


# For optimizers and files


def checked(where: str, name: str, schedule: Any) -> AnySchedule | None:
    """Return a function of the step or None unchanged, and make a schedule from a description.

    Raises
    ------
    TypeError, ValueError
        For everything else, and for a class in place of an object.
    """
    if isinstance(schedule, dict):
        return from_description(where, name, schedule)
    if isinstance(schedule, type):
        raise TypeError(f"{where}: {name} must be an object, got a class. Write {schedule.__name__}(...).")
    if schedule is not None and not callable(schedule):
        raise TypeError(f"{where}: {name} must be a schedule or a function of the step, got {abridged(schedule)}.")
    return schedule  # type: ignore[no-any-return]


def factors(where: str, schedule: AnySchedule, first_step: int, n: int) -> Array:
    """Return the factors of the ``n`` steps from ``first_step`` on, each the same as if it were asked for alone.

    Parameters
    ----------
    where : str
        How errors begin.
    schedule : schedule or function of the step
        Functions and custom schedules are called once a step, with an int.
    first_step, n : int
        At least 0.

    Returns
    -------
    array (n,), float64
        Finite numbers of at least 0.

    Raises
    ------
    TypeError, ValueError
        If the schedule returns anything else; the message names the step.
    """
    function = _function_of(where, schedule)
    found = np.fromiter(map(function, map(float, range(first_step, first_step + n))), np.float64, n)
    good = (found >= 0) & (found < math.inf)
    if not good.all():
        place = int(np.argmin(good))
        check.number(where, f"schedule({first_step + place})", float(found[place]), 0)
    return found


def described(where: str, schedule: AnySchedule | None, name: str = "schedule") -> dict[str, Any] | None:
    """Return class and configuration of a built-in schedule, ready for JSON; None for None.

    Raises
    ------
    TypeError
        For custom schedules and functions, which a file cannot hold.
    """
    if schedule is None:
        return None
    if not is_built_in("schedule", schedule):
        raise TypeError(
            f"{where}: {name} must be a built-in schedule, which a file can hold, got {abridged(schedule)}."
        )
    return {"class": type(schedule).__name__, "config": schedule.get_config()}  # type: ignore[attr-defined]


def from_description(where: str, name: str, description: Any) -> Schedule:
    """Return the schedule that `described` described, checked by its constructor.

    Raises
    ------
    TypeError, ValueError
        For what describes no built-in schedule.
    """
    inner, depth = description, 0
    while isinstance(inner, dict):
        depth += 1
        _check_depth(where, name, depth)
        config = inner.get("config")
        if set(inner) != KEYS or not isinstance(inner["class"], str) or not isinstance(config, dict):
            raise ValueError(f"{where}: {name} must be described by class and config, got {abridged(inner)}.")
        inner = config.get("schedule")
    if not depth:
        raise TypeError(f"{where}: {name} must be the description of a schedule, got {abridged(description)}.")
    kind = next((each for each in BUILT_IN["schedule"] if each.__name__ == description["class"]), None)
    if kind is None:
        names = ", ".join(each.__name__ for each in BUILT_IN["schedule"])
        raise ValueError(f"{where}: {name} must be one of {names}, got {abridged(description['class'])}.")
    if set(description["config"]) != set(kind._arguments):
        expected, given = (", ".join(map(str, each)) for each in (kind._arguments, description["config"]))
        raise ValueError(f"{where}: {name} must be a {kind.__name__} of {expected}, got {given or 'nothing'}.")
    schedule: Schedule = kind(**description["config"])
    return schedule


#: The schedules that an option can name. Each function takes the total number of steps.
OVER_STEPS: dict[str, Callable[[int], Schedule]] = {
    "cosine": Schedule_Cosine,
    "exponential": lambda steps: Schedule_Exponential(0.01 ** (1 / steps)),
    "onecycle": Schedule_OneCycle,
    "polynomial": Schedule_Polynomial,
    "step": lambda steps: Schedule_Step(milestones=[steps // 2, steps * 3 // 4]),
    "warmup": lambda steps: Schedule_WarmUp(-(-steps // 10), Schedule_Cosine(max(1, steps - -(-steps // 10)))),
}


# Parts


def _check_depth(where: str, name: str, depth: int) -> None:
    if depth > MAX_NESTED:
        raise ValueError(f"{where}: {name} must be at most {MAX_NESTED} schedules, one within the other, got more.")


def _function_of(where: str, schedule: Any) -> Factor:
    """Return any schedule as a function of one step. It checks what custom schedules and functions return."""
    if is_built_in("schedule", schedule):
        return schedule._function(type(schedule).__name__)  # type: ignore[no-any-return]

    def factor(step: float) -> float:
        given = int(step) if step.is_integer() else step
        return float(check.number(where, f"schedule({given})", schedule(given), 0))

    return factor


def _power(base: float, exponent: float) -> float:
    """Return base^exponent, infinity for what no float can hold."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf


def _cosine(first: float, last: float, part: float) -> float:
    """Return the value at ``part``, from 0 to 1, of half a cosine wave that leads from ``first`` to ``last``."""
    return last + (first - last) / 2.0 * (1.0 + math.cos(math.pi * part))


def _count(where: str, name: str, value: Any) -> int:
    """Return a number of steps or cycles, from 1 to what 64 bits hold."""
    return check.whole(where, name, value, 1, check.MAX_COUNT)


def _amount(where: str, name: str, value: Any) -> Any:
    """Return a factor or power, a finite number of at least 0."""
    return check.number(where, name, value, 0)


def _checked_milestones(where: str, milestones: Any) -> list[int]:
    """Return the steps of drops as a list of ints in ascending order."""
    if not isinstance(milestones, list | tuple | np.ndarray):
        raise TypeError(f"{where}: milestones must be a list of steps, got {abridged(milestones)}.")
    steps = [check.whole(where, f"milestones[{at}]", each, 0, check.MAX_COUNT) for at, each in enumerate(milestones)]
    if steps != sorted(steps):
        raise ValueError(f"{where}: milestones must be in ascending order, got {abridged(milestones)}.")
    return steps
