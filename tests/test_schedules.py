"""Learning-rate schedules: the factor of each step, by formulas written out; arrays of steps; descriptions."""

from __future__ import annotations

import copy
import json
import math
import pickle

import numpy as np
import pytest

import nnx
from nnx import schedules

pytestmark = pytest.mark.one_backend

STEPS = np.arange(400)


def half_wave(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


def one_cycle(step: int, total: int, warm_up: float, initial: float, final: float) -> float:
    """The two phases of PyTorch's OneCycleLR: the first ends at step warm_up·total − 1, the other at total − 1."""
    top, end = warm_up * total - 1, total - 1
    if step <= top:
        return half_wave(initial, 1, step / top)
    return half_wave(1, final, (min(step, end) - top) / (end - top))


def recursive_step(step: int) -> float:
    """The rate falls to three tenths at each 30th step, as StepLR computes it from one step to the next."""
    factor = 1.0
    for each in range(1, step + 1):
        factor *= 0.3 if each % 30 == 0 else 1
    return factor


CASES = {
    "step": (nnx.Schedule_Step(30, 0.3), recursive_step),
    "milestones": (
        nnx.Schedule_Step(milestones=[3, 50, 50, 51], factor=0.3),
        lambda t: math.prod(0.3 for milestone in (3, 50, 50, 51) if milestone <= t),
    ),
    "exponential": (nnx.Schedule_Exponential(0.97), lambda t: math.prod([0.97] * t)),
    "exponential every": (nnx.Schedule_Exponential(0.5, every=100), lambda t: math.exp(math.log(0.5) * t / 100)),
    "line": (nnx.Schedule_Polynomial(150), lambda t: max(0, (150 - t) / 150)),
    "line to": (nnx.Schedule_Polynomial(150, final=0.1), lambda t: max(0.1, 1 - 0.9 * t / 150)),
    "polynomial": (nnx.Schedule_Polynomial(150, 2.5, 0.1), lambda t: 0.1 + 0.9 * max(0, 1 - t / 150) ** 2.5),
    "cosine": (nnx.Schedule_Cosine(150), lambda t: half_wave(1, 0, min(t, 150) / 150)),
    "cosine to": (nnx.Schedule_Cosine(150, 0.1), lambda t: half_wave(1, 0.1, min(t, 150) / 150)),
    "restarts": (
        nnx.Schedule_Cosine(150, 0.1, cycles=3),
        lambda t: half_wave(1, 0.1, t % 50 / 50) if t < 150 else 0.1,
    ),
    "one cycle": (nnx.Schedule_OneCycle(300), lambda t: one_cycle(t, 300, 0.3, 1 / 25, 1 / 25 / 1e4)),
    "one cycle of": (nnx.Schedule_OneCycle(77, 0.123, 0.5, 0.25), lambda t: one_cycle(t, 77, 0.123, 0.5, 0.25)),
    "one cycle down": (nnx.Schedule_OneCycle(10, 0.0), lambda t: one_cycle(t, 10, 0.0, 1 / 25, 1 / 25 / 1e4)),
    "warm-up": (nnx.Schedule_WarmUp(40, initial=0.25), lambda t: 0.25 + 0.75 * min(t, 40) / 40),
    "warm-up, cosine": (
        nnx.Schedule_WarmUp(40, nnx.Schedule_Cosine(150)),
        lambda t: t / 40 if t < 40 else half_wave(1, 0, min(t - 40, 150) / 150),
    ),
    "warm-up, one cycle": (
        nnx.Schedule_WarmUp(40, nnx.Schedule_OneCycle(100, initial=0.5), 0.5),
        lambda t: (0.5 + 0.5 * t / 40) * 0.5 if t < 40 else one_cycle(t - 40, 100, 0.3, 0.5, 4e-6),
    ),
    "warm-up, function": (
        nnx.Schedule_WarmUp(40, lambda step: 1 / (1 + step)),
        lambda t: t / 40 if t < 40 else 1 / (t - 39),
    ),
}
DESCRIBED = [schedule for name, (schedule, _) in CASES.items() if "function" not in name]


@pytest.mark.parametrize("name", CASES)
def test_factors_are_those_of_the_formula(name):
    schedule, formula = CASES[name]
    np.testing.assert_allclose(schedule(STEPS), [formula(step) for step in STEPS.tolist()], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", CASES)
def test_a_step_has_the_same_factor_alone_and_in_any_array(name):
    schedule, _ = CASES[name]
    alone = [schedule(step) for step in STEPS.tolist()]
    assert all(type(factor) is float for factor in alone)
    for steps in (STEPS, STEPS.astype(np.float64), STEPS.astype(np.uint16), STEPS[::-1][::-1], STEPS.reshape(4, 100)):
        found = schedule(steps)
        assert found.dtype == np.float64
        assert found.shape == steps.shape
        assert found.ravel().tolist() == alone
    assert schedule(STEPS[::3]).tolist() == alone[::3]
    assert [schedule(step) for step in STEPS[:5]] == alone[:5]  # NumPy's integers
    assert schedule(np.asarray(7)).tolist() == alone[7]
    for first, n in ((0, 400), (0, 1), (17, 1), (123, 250), (400, 0)):
        found = schedules.factors("here", schedule, first, n)
        assert found.dtype == np.float64
        assert found.shape == (n,)
        assert found.tolist() == alone[first : first + n]


@pytest.mark.parametrize("name", CASES)
def test_factors_begin_and_end_exactly(name):
    schedule, formula = CASES[name]
    assert schedule(0) == formula(0)
    ends = {
        nnx.Schedule_Polynomial: lambda: (schedule.steps, schedule.final),
        nnx.Schedule_Cosine: lambda: (schedule.steps, schedule.final),
        nnx.Schedule_OneCycle: lambda: (schedule.steps - 1, schedule.final),
    }
    if type(schedule) in ends:
        step, final = ends[type(schedule)]()
        assert schedule(step - 1) > final
        assert {schedule(step), schedule(step + 1), schedule(10 * step), schedule(2**63)} == {final}


def test_a_cosine_with_restarts_returns_to_one_at_each():
    assert nnx.Schedule_Cosine(150, 0.1, cycles=3)(np.array([0, 50, 100])).tolist() == [1.0, 1.0, 1.0]


def test_the_other_schedule_begins_where_the_warm_up_ends():
    other = nnx.Schedule_Cosine(150, 0.1)
    schedule = nnx.Schedule_WarmUp(40, other)
    assert schedule(STEPS + 40).tolist() == other(STEPS).tolist()
    assert schedule(39) == 39 / 40


def test_a_one_cycle_of_one_step_has_its_last_factor():
    assert nnx.Schedule_OneCycle(1)(0) == 4e-6


def test_a_rate_may_grow_until_no_float_holds_it():
    schedule = nnx.Schedule_Exponential(10.0)
    assert schedules.factors("here", schedule, 0, 309)[-1] == pytest.approx(1e308)
    assert schedule(309) == math.inf
    with pytest.raises(ValueError, match=r"^here: schedule\(309\) must be a finite number of at least 0, got inf\.$"):
        schedules.factors("here", schedule, 300, 20)


# Functions and custom schedules


class Schedule_Own(nnx.Schedule):
    def __call__(self, step):
        return 1 / (1 + step)


@pytest.mark.parametrize("schedule", [Schedule_Own(), lambda step: np.float32(1) / (1 + step), lambda step: 1])
def test_a_function_of_the_step_is_asked_once_for_each(schedule):
    asked = []

    def function(step):
        asked.append(step)
        return schedule(step)

    assert schedules.factors("here", function, 2, 3).tolist() == [float(schedule(step)) for step in (2, 3, 4)]
    assert asked == [2, 3, 4]
    assert all(type(step) is int for step in asked)


def test_a_class_derived_from_a_built_in_one_is_asked_itself():
    class Schedule_Doubled(nnx.Schedule_Polynomial):
        def __call__(self, step):
            return 2 * super().__call__(step)

    assert schedules.factors("here", Schedule_Doubled(4), 0, 3).tolist() == [2.0, 1.5, 1.0]
    assert nnx.Schedule_WarmUp(1, Schedule_Doubled(4))(2) == 1.5


@pytest.mark.parametrize(
    ("result", "error", "got"),
    [
        (math.nan, ValueError, "a finite number of at least 0, got nan"),
        (math.inf, ValueError, "a finite number of at least 0, got inf"),
        (-0.5, ValueError, "a finite number of at least 0, got -0.5"),
        (None, TypeError, "a number, got None"),
        ("1", TypeError, "a number, got '1'"),
        (True, TypeError, "a number, got True"),
        (np.ones(2), TypeError, "a number, got a ndarray of shape (2,)"),
    ],
)
def test_what_a_function_must_not_return(result, error, got):
    def function(step):
        return result if step == 3 else 1.0

    for schedule, step in ((function, 3), (nnx.Schedule_WarmUp(2, function), 5)):
        with pytest.raises(error) as caught:
            schedules.factors("Optimizer_SGD", schedule, 0, 10)
        where = "Optimizer_SGD" if step == 3 else "Schedule_WarmUp"
        assert str(caught.value) == f"{where}: schedule(3) must be {got}."


def test_a_schedule_that_defines_nothing_says_so():
    class Schedule_Nothing(nnx.Schedule):
        pass

    with pytest.raises(NotImplementedError, match=r"Schedule_Nothing does not define __call__\(step\)"):
        Schedule_Nothing()(0)


# Arguments


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nnx.Schedule_Step(), ValueError, "Schedule_Step: every or milestones must be given, got neither."),
        (
            lambda: nnx.Schedule_Step(3, milestones=[3]),
            ValueError,
            "Schedule_Step: every or milestones must be given, got both.",
        ),
        (lambda: nnx.Schedule_Step(0), ValueError, "Schedule_Step: every must be a whole number from 1 to"),
        (lambda: nnx.Schedule_Step(1.5), TypeError, "Schedule_Step: every must be a whole number, got 1.5."),
        (lambda: nnx.Schedule_Step(3, -1), ValueError, "Schedule_Step: factor must be a finite number of at least 0"),
        (
            lambda: nnx.Schedule_Step(milestones=[3, 2]),
            ValueError,
            "Schedule_Step: milestones must be in ascending order, got [3, 2].",
        ),
        (
            lambda: nnx.Schedule_Step(milestones=3),
            TypeError,
            "Schedule_Step: milestones must be a list of steps, got 3.",
        ),
        (lambda: nnx.Schedule_Step(milestones=[-1]), ValueError, "Schedule_Step: milestones[0] must be a whole number"),
        (
            lambda: nnx.Schedule_Exponential(math.nan),
            ValueError,
            "Schedule_Exponential: factor must be a finite number",
        ),
        (lambda: nnx.Schedule_Exponential(0.5, 0), ValueError, "Schedule_Exponential: every must be a whole number"),
        (lambda: nnx.Schedule_Polynomial(0), ValueError, "Schedule_Polynomial: steps must be a whole number"),
        (lambda: nnx.Schedule_Polynomial(3, -1), ValueError, "Schedule_Polynomial: power must be a finite number"),
        (
            lambda: nnx.Schedule_Polynomial(3, 1, "a"),
            TypeError,
            "Schedule_Polynomial: final must be a number, got 'a'.",
        ),
        (lambda: nnx.Schedule_Cosine(True), TypeError, "Schedule_Cosine: steps must be a whole number, got True."),
        (lambda: nnx.Schedule_Cosine(2**63), ValueError, "Schedule_Cosine: steps must be a whole number from 1 to"),
        (lambda: nnx.Schedule_Cosine(3, -0.1), ValueError, "Schedule_Cosine: final must be a finite number"),
        (
            lambda: nnx.Schedule_Cosine(3, cycles=4),
            ValueError,
            "Schedule_Cosine: cycles must be at most steps (3), got 4.",
        ),
        (lambda: nnx.Schedule_OneCycle(3, 1), ValueError, "Schedule_OneCycle: warm_up must be a number from 0 up to"),
        (
            lambda: nnx.Schedule_OneCycle(3, initial=-1),
            ValueError,
            "Schedule_OneCycle: initial must be a finite number",
        ),
        (lambda: nnx.Schedule_OneCycle(3, final=-1), ValueError, "Schedule_OneCycle: final must be a finite number"),
        (lambda: nnx.Schedule_WarmUp(0), ValueError, "Schedule_WarmUp: steps must be a whole number"),
        (lambda: nnx.Schedule_WarmUp(3, initial=-1), ValueError, "Schedule_WarmUp: initial must be a finite number"),
        (
            lambda: nnx.Schedule_WarmUp(3, 0.5),
            TypeError,
            "Schedule_WarmUp: schedule must be a schedule or a function of the step, got 0.5.",
        ),
        (
            lambda: nnx.Schedule_WarmUp(3, nnx.Schedule_Cosine),
            TypeError,
            "Schedule_WarmUp: schedule must be an object, got a class. Write Schedule_Cosine(...).",
        ),
    ],
)
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_settings_may_be_assigned_and_are_checked_at_the_next_call():
    schedule = nnx.Schedule_Polynomial(4)
    schedule.steps = 2
    assert schedule(1) == 0.5
    schedule.steps = 0
    with pytest.raises(ValueError, match=r"^Schedule_Polynomial: steps must be a whole number from 1 to \d+, got 0\.$"):
        schedule(1)
    with pytest.raises(ValueError, match="Schedule_Polynomial: steps"):
        schedules.factors("here", schedule, 0, 2)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (-1, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (None, TypeError),
        (np.array([0, -1]), ValueError),
        (np.array([0, math.nan]), ValueError),
        (np.array([0, math.inf]), ValueError),
        (np.array(["a"]), TypeError),
    ],
)
def test_bad_steps_are_refused(step, error):
    with pytest.raises(error, match=r"^Schedule_Cosine: step must "):
        nnx.Schedule_Cosine(3)(step)


def test_schedules_keep_their_own_list_of_milestones():
    milestones = [1, 2]
    schedule = nnx.Schedule_Step(milestones=milestones)
    milestones.clear()
    assert schedule.milestones == [1, 2]


# Descriptions


@pytest.mark.parametrize("schedule", DESCRIBED, ids=repr)
def test_a_description_makes_the_same_schedule(schedule):
    description = json.loads(json.dumps(schedules.described("here", schedule)))
    twins = [
        schedules.from_description("here", "schedule", description),
        schedules.checked("here", "schedule", description),
        type(schedule)(**schedule.get_config()),
        eval(repr(schedule), vars(nnx)),
        copy.deepcopy(schedule),
        pickle.loads(pickle.dumps(schedule)),
    ]
    for twin in twins:
        assert type(twin) is type(schedule)
        assert repr(twin) == repr(schedule)
        assert twin.get_config() == schedule.get_config()
        assert twin(STEPS).tolist() == schedule(STEPS).tolist()


def test_numpy_scalars_are_described_as_pythons_numbers():
    schedule = nnx.Schedule_Step(milestones=np.array([1, 2]), factor=np.float32(0.5))
    assert json.dumps(schedule.get_config()) == '{"every": null, "factor": 0.5, "milestones": [1, 2]}'


def test_no_schedule_is_described_as_none():
    assert schedules.described("here", None) is None
    assert schedules.checked("here", "schedule", None) is None


@pytest.mark.parametrize("schedule", [Schedule_Own(), abs, nnx.Schedule_WarmUp(2, abs)])
def test_what_a_file_cannot_hold_is_not_described(schedule):
    where = "Schedule_WarmUp.get_config" if isinstance(schedule, nnx.Schedule_WarmUp) else "Model.save"
    with pytest.raises(TypeError) as caught:
        schedules.described("Model.save", schedule)
    assert str(caught.value).startswith(f"{where}: schedule must be a built-in schedule, which a file can hold, got ")
    assert repr(schedule)


COSINE = {"class": "Schedule_Cosine", "config": {"steps": 3, "final": 0.0, "cycles": 1}}


def warm_ups(n: int, inner: object) -> dict:
    for _ in range(n):
        inner = {"class": "Schedule_WarmUp", "config": {"steps": 1, "schedule": inner, "initial": 0.0}}
    return inner


@pytest.mark.parametrize(
    ("description", "error", "message"),
    [
        ("Schedule_Cosine", TypeError, "here: schedule must be the description of a schedule, got 'Schedule_Cosine'."),
        ({}, ValueError, "here: schedule must be described by class and config, got {}."),
        ({**COSINE, "more": 1}, ValueError, "here: schedule must be described by class and config, got "),
        ({**COSINE, "class": ["Schedule_Cosine"]}, ValueError, "here: schedule must be described by class and config"),
        ({**COSINE, "config": [3]}, ValueError, "here: schedule must be described by class and config"),
        ({**COSINE, "class": "Schedule"}, ValueError, "here: schedule must be one of Schedule_Step, Schedule_Exp"),
        ({**COSINE, "class": "Model"}, ValueError, "here: schedule must be one of Schedule_Step, Schedule_Exponential"),
        (
            {**COSINE, "config": {"steps": 3}},
            ValueError,
            "here: schedule must be a Schedule_Cosine of steps, final, cycles, got steps.",
        ),
        (
            {**COSINE, "config": {"steps": 0, "final": 0.0, "cycles": 1}},
            ValueError,
            "Schedule_Cosine: steps must be a whole number",
        ),
        (warm_ups(2, {}), ValueError, "here: schedule must be described by class and config, got {}."),
        (warm_ups(2, 3), TypeError, "Schedule_WarmUp: schedule must be a schedule or a function of the step, got 3."),
        (
            warm_ups(8, COSINE),
            ValueError,
            "here: schedule must be at most 8 schedules, one within the other, got more.",
        ),
        (warm_ups(9000, None), ValueError, "here: schedule must be at most 8 schedules"),
    ],
)
def test_bad_descriptions_are_refused(description, error, message):
    with pytest.raises(error) as caught:
        schedules.from_description("here", "schedule", description)
    assert str(caught.value).startswith(message)


def test_schedules_are_nested_as_deeply_as_a_file_may_hold_and_no_deeper():
    schedule = nnx.Schedule_Cosine(3)
    for _ in range(schedules.MAX_NESTED - 1):
        schedule = nnx.Schedule_WarmUp(1, schedule)
    twin = schedules.from_description("here", "schedule", schedules.described("here", schedule))
    assert repr(twin) == repr(schedule)
    with pytest.raises(
        ValueError, match=r"^Schedule_WarmUp: schedule must be at most 8 schedules, one within the other"
    ):
        nnx.Schedule_WarmUp(1, schedule)
    schedule.schedule = schedule
    with pytest.raises(ValueError, match="at most 8 schedules"):
        schedule(0)
