"""Schedules in use: each step's rate in both ways of running, its record, and schedules in files."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from plans import Book, Net, bits, build, data_for, left_behind, train
from test_checkpoints import killed_after, without_generator
from test_storage import rewrite

import nnx
from nnx import _kernels
from nnx._base.vocabulary import BUILT_IN
from nnx.engine import plan

NET = Net("17-33,relu,dropout,33-5,softmax")
STEPS = 12
ARGUMENTS = {"epochs": 4, "batch_size": 20}  # three steps each
SCHEDULES = [
    nnx.Schedule_Step(2, factor=0.5),
    nnx.Schedule_Step(milestones=[3, 4, 9], factor=0.1),
    nnx.Schedule_Exponential(0.9),
    nnx.Schedule_Polynomial(10, power=2.0, final=0.1),
    nnx.Schedule_Cosine(8, cycles=2),
    nnx.Schedule_OneCycle(STEPS),
    nnx.Schedule_WarmUp(4, nnx.Schedule_Cosine(8)),
]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
each_kind = pytest.mark.parametrize("kind", [nnx.Model, Book])
each_decay = pytest.mark.parametrize("decay", [0.0, 0.25])


def alternating(step):
    return 0.25 + step % 3


def name_of(schedule):
    return getattr(schedule, "__name__", repr(schedule))


def made(schedule, kind=nnx.Model, decay=0.0, dtype="float64"):
    model = build(NET, "SGD", kind, dtype)
    model.set(optimizer=nnx.Optimizer_Adam(0.02, decay, schedule=schedule))
    return model


def expected_rates(schedule, decay, first=0, n=STEPS):
    """Return each step's rate: decay and schedule multiply."""
    return [0.02 * (1.0 / (1.0 + decay * step)) * float(schedule(step)) for step in range(first, first + n)]


def test_every_built_in_schedule_is_tried_here():
    assert {type(schedule) for schedule in SCHEDULES} == set(BUILT_IN["schedule"])


# The rates


@pytest.mark.parametrize("schedule", [*SCHEDULES, alternating], ids=name_of)
@each_kind
@each_decay
def test_each_step_has_the_rate_of_the_schedule_and_the_history_holds_it(schedule, kind, decay, planned):
    X, y = data_for(NET, 50)
    model = made(schedule, kind, decay)
    history = model.train(X, y, print_every=None, **ARGUMENTS)
    rates = expected_rates(schedule, decay)
    assert history.step_learning_rate.tolist() == rates
    assert history.learning_rate.tolist() == rates[2::3]
    assert model.optimizer.current_learning_rate == rates[-1]
    assert type(model.optimizer.current_learning_rate) is float
    assert model.optimizer.learning_rate == 0.02
    assert planned == [kind is nnx.Model and hasattr(_kernels.backend, "Plan")]
    history = model.train(X, y, print_every=None, batch_size=20)  # continues where the first call ended
    assert history.step_learning_rate.tolist() == expected_rates(schedule, decay, STEPS, 3)


@pytest.mark.parametrize("schedule", [*SCHEDULES, alternating], ids=name_of)
@each_decay
def test_parameters_are_those_of_rates_set_by_hand(schedule, decay):
    X, y = data_for(NET, 20)
    scheduled, by_hand = made(schedule, decay=decay), made(None)
    train(scheduled, X, y, epochs=STEPS)
    for rate in expected_rates(schedule, decay):
        by_hand.optimizer.learning_rate = rate
        train(by_hand, X, y)
    for a, b in zip(scheduled.get_parameters(), by_hand.get_parameters(), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


def test_a_layer_that_is_trained_by_hand_gets_the_same_rates():
    schedule = nnx.Schedule_Cosine(8)
    optimizer = nnx.Optimizer_SGD(0.5, 0.25, schedule=schedule)
    dense = nnx.Layer_Dense(2, 3, dtype="float64")
    dense.weights[:] = expected = 1.0
    dense.dweights, dense.dbiases = np.ones((2, 3)), np.ones((1, 3))
    for step in range(10):
        optimizer.pre_update_params()
        optimizer.update_params(dense)
        optimizer.post_update_params()
        rate = 0.5 * (1 / (1 + 0.25 * step)) * schedule(step)
        expected -= rate
        assert optimizer.current_learning_rate == rate
    np.testing.assert_allclose(dense.weights, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("schedule", [*SCHEDULES, alternating], ids=name_of)
@pytest.mark.usefixtures("compiled")
def test_bits_do_not_depend_on_threads_nor_on_calls(schedule, monkeypatch):
    for name, value in (("LEAST_STEP", 0), ("LEAST_CALL", 0), ("LEAST_ROWS", 1)):
        monkeypatch.setattr(plan, name, value)
    X, y = data_for(NET, 50)
    expected = bits(train(made(schedule), X, y, threads=1, **ARGUMENTS))
    assert bits(train(made(schedule), X, y, threads=2, **ARGUMENTS)) == expected
    for n in (1, 2):
        monkeypatch.setattr(plan.Run, "_how_many", lambda self, in_epoch, n=n: min(n, self.n_steps - self.done))
        assert bits(train(made(schedule), X, y, **ARGUMENTS)) == expected


@pytest.mark.parametrize("schedule", [*SCHEDULES, alternating], ids=name_of)
@pytest.mark.usefixtures("compiled")
def test_a_call_that_is_the_last_one_again_has_the_next_rate(schedule):
    twins = [made(schedule, decay=0.25) for _ in range(2)]
    again, rates = [], []
    for seed in range(STEPS):
        X, y = data_for(NET, 20, seed)
        twins[1]._again = None
        again.append(twins[0]._again is not None)
        left = [bits(train(model, X, y)) for model in twins]
        assert left[0] == left[1]
        rates.append(twins[0].history.step_learning_rate[0])
        assert twins[0].optimizer.current_learning_rate == rates[-1]
    assert rates == expected_rates(schedule, 0.25)
    assert again == [False] + (STEPS - 1) * [_kernels.backend.counts_references]


@each_kind
def test_a_schedule_may_be_assigned_and_taken_away(kind):
    X, y = data_for(NET, 20)
    model = made(None, kind)
    found = []
    for schedule in (None, alternating, nnx.Schedule_Exponential(0.5), None):
        model.optimizer.schedule = schedule
        if schedule is None:
            model.optimizer.learning_rate = 0.02
        found += model.train(X, y, print_every=None, epochs=2).step_learning_rate.tolist()
    assert found == [0.02, 0.02, 0.02 * 2.25, 0.02 * 0.25, 0.02 * 0.5**4, 0.02 * 0.5**5, 0.02, 0.02]


@each_kind
@each_schedule
def test_without_its_schedule_an_optimizer_is_back_at_its_learning_rate(schedule, kind):
    X, y = data_for(NET, 20)
    model = made(schedule, kind)
    train(model, X, y, epochs=STEPS)
    model.optimizer.schedule = None
    assert model.optimizer.current_learning_rate == model.optimizer.learning_rate == 0.02
    assert model.train(X, y, print_every=None, epochs=2).step_learning_rate.tolist() == [0.02, 0.02]


def test_a_current_rate_set_by_hand_survives_that_no_schedule_is_assigned():
    optimizer = nnx.Optimizer_Adam(0.02)
    optimizer.current_learning_rate = 0.01
    optimizer.schedule = None
    assert optimizer.current_learning_rate == 0.01


@pytest.mark.parametrize("kind", BUILT_IN["optimizer"])
def test_a_schedule_in_place_of_the_rate_is_refused_with_the_way_to_pass_it(kind):
    message = (
        rf"^{kind.__name__}: learning_rate must be a number, got Schedule_Cosine\(8\)\. Pass it as schedule=\.\.\."
    )
    with pytest.raises(TypeError, match=message):
        kind(nnx.Schedule_Cosine(8))


@each_kind
@pytest.mark.parametrize(("result", "error"), [(math.nan, ValueError), (-1.0, ValueError), (None, TypeError)])
def test_what_a_function_must_not_return_is_said_and_the_model_is_as_after_whole_steps(kind, result, error):
    X, y = data_for(NET, 50)
    model, twin = made(lambda step: result if step == 4 else 1.0, kind), made(None, kind)
    with pytest.raises(error, match=r"schedule\(4\) must be a "):
        train(model, X, y, epochs=8)
    done = model.optimizer.iterations
    assert len(model.history.step_loss) == done <= 4
    if done:  # a plan asks for the rates of many steps at a time
        train(twin, X, y, epochs=done)
    np.testing.assert_array_equal(model.layers[0].weights, twin.layers[0].weights)


@each_kind
@pytest.mark.parametrize("schedule", [5, "cosine", nnx.Schedule_Cosine])
def test_what_is_no_schedule_is_refused(schedule, kind):
    with pytest.raises((TypeError, ValueError), match=r"^Optimizer_Adam: schedule must be "):
        nnx.Optimizer_Adam(schedule=schedule)
    model = made(None, kind)
    model.optimizer.schedule = schedule
    before = [weights.copy() for weights, _ in model.get_parameters()]
    where = (
        "Model.train" if kind is nnx.Model and hasattr(_kernels.backend, "Plan") else "Optimizer_Adam.pre_update_params"
    )
    with pytest.raises((TypeError, ValueError), match=rf"^{where}: schedule must be "):
        train(model, *data_for(NET, 20))
    for (weights, _), old in zip(model.get_parameters(), before, strict=True):
        np.testing.assert_array_equal(weights, old)


# Files and copies


@each_schedule
@each_kind
@pytest.mark.parametrize("step", [1, 4, 6, 11])
def test_a_run_that_is_resumed_in_the_middle_of_a_schedule_ends_in_the_same_bytes(schedule, kind, step, tmp_path):
    X, y = data_for(NET, 50)
    arguments = {**ARGUMENTS, "shuffle": True, "seed": 3}
    expected = without_generator(train(made(schedule, kind, 0.25), X, y, **arguments))
    with killed_after(step):
        train(made(schedule, kind, 0.25), X, y, checkpoint=tmp_path / "c", **arguments)
    resumed = made(copy.deepcopy(schedule), kind, 0.25)
    assert without_generator(train(resumed, X, y, resume=tmp_path / "c", **arguments)) == expected
    assert resumed.history.step_learning_rate.tolist() == expected_rates(schedule, 0.25)


def test_a_checkpoint_of_another_schedule_is_refused(tmp_path):
    X, y = data_for(NET, 50)
    train(made(nnx.Schedule_Cosine(8)), X, y, checkpoint=tmp_path / "c", **ARGUMENTS)
    message = (
        r"is a checkpoint of another model: its optimizer is Optimizer_Adam\(schedule=Schedule_Cosine\(steps=8, "
        r".* here Optimizer_Adam\(schedule=Schedule_Cosine\(steps=9, "
    )
    with pytest.raises(nnx.ModelFileError, match=message):
        train(made(nnx.Schedule_Cosine(9)), X, y, resume=tmp_path / "c", **ARGUMENTS)


@each_schedule
@pytest.mark.parametrize("kind", BUILT_IN["optimizer"])
def test_every_optimizer_is_saved_with_every_schedule_and_goes_on_to_the_bit(schedule, kind, tmp_path):
    X, y = data_for(NET, 50)
    model = build(NET, "SGD")
    model.set(optimizer=kind(0.02, 0.25, schedule=schedule))
    train(model, X, y, epochs=2, batch_size=20)
    model.save(tmp_path / "model")
    loaded = nnx.Model.load(tmp_path / "model")
    assert repr(loaded.optimizer) == repr(model.optimizer) == repr(kind(0.02, 0.25, schedule=schedule))
    assert f"schedule={schedule!r}" in repr(loaded.optimizer)
    assert loaded.optimizer.current_learning_rate == model.optimizer.current_learning_rate
    left = [without_schedule(train(each, X, y, **ARGUMENTS)) for each in (loaded, model)]
    assert left[0] == left[1]


def without_schedule(left):
    return bits({name: value for name, value in left.items() if not name.endswith("schedule")})


@each_kind
def test_a_function_trains_and_is_refused_by_files_before_the_first_step(kind, tmp_path):
    X, y = data_for(NET, 50)
    model = made(alternating, kind)
    train(model, X, y, **ARGUMENTS)
    before = bits(left_behind(model))
    sentence = r"^Optimizer_Adam\.get_config: schedule must be a built-in schedule, which a file can hold, got <func"
    with pytest.raises(TypeError, match=sentence):
        model.save(tmp_path / "model")
    with pytest.raises(TypeError, match=sentence):
        train(model, X, y, checkpoint=tmp_path / "c", **ARGUMENTS)
    assert {name: value for name, value in bits(left_behind(model)).items() if "precision" not in name} == before
    assert not list(tmp_path.iterdir())
    model.save_parameters(tmp_path / "p")
    assert "schedule=<function alternating" in repr(model.optimizer)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda described: described.update({"class": "Schedule_Nothing"}),
        lambda described: described.update({"class": "Model"}),
        lambda described: described.pop("config"),
        lambda described: described.update(more=1),
        lambda described: described["config"].update(steps=-1),
        lambda described: described["config"].update(steps="x"),
        lambda described: described["config"].update(more=1),
        lambda described: described["config"].pop("steps"),
        lambda described: described["config"].update(schedule={"class": "Schedule_WarmUp", "config": {}}),
        lambda described: described["config"].update(schedule="abs"),
    ],
)
def test_a_damaged_schedule_is_refused_by_a_sentence(spoil, tmp_path):
    model = made(nnx.Schedule_WarmUp(4, nnx.Schedule_Cosine(8)))
    model.save(tmp_path / "model")
    rewrite(tmp_path / "model", lambda description: spoil(description["optimizer"]["config"]["schedule"]))
    with pytest.raises(
        nnx.ModelFileError,
        match=r"^Model\.load: '.*' is damaged \((Optimizer_Adam: schedule|Schedule_WarmUp: \w+) must .*\)\.$",
    ):
        nnx.Model.load(tmp_path / "model")


@pytest.mark.parametrize("schedule", ["x", 1, [], {}, True])
def test_what_describes_no_schedule_is_refused_by_a_sentence(schedule, tmp_path):
    model = made(nnx.Schedule_Cosine(8))
    model.save(tmp_path / "model")
    rewrite(tmp_path / "model", lambda description: description["optimizer"]["config"].update(schedule=schedule))
    with pytest.raises(nnx.ModelFileError, match=r"^Model\.load: '.*' is damaged \(.*schedule must be "):
        nnx.Model.load(tmp_path / "model")


def test_files_are_as_older_versions_wrote_them_where_nothing_new_is_used(tmp_path):
    for optimizer, known in (
        (nnx.Optimizer_SGD(0.1, momentum=0.5), {"learning_rate", "decay", "momentum"}),
        (nnx.Optimizer_Adam(0.1), {"learning_rate", "decay", "epsilon", "beta_1", "beta_2"}),
    ):
        model = made(None)
        model.set(optimizer=optimizer)
        model.save(tmp_path / "model")
        rewrite(tmp_path / "model", lambda description, known=known: check_keys(description, known))
        assert repr(nnx.Model.load(tmp_path / "model").optimizer) == repr(optimizer)


def check_keys(description, known):
    assert set(description["optimizer"]["config"]) == known


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@each_schedule
def test_copies_go_on_at_the_same_rates(duplicate, schedule):
    X, y = data_for(NET, 50)
    model = made(schedule)
    train(model, X, y, epochs=2, batch_size=20)
    twin = duplicate(model)
    left = [without_schedule(train(each, X, y, **ARGUMENTS)) for each in (twin, model)]
    assert left[0] == left[1]
