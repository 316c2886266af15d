"""The binding layer of plans refuses calls out of order and wrong arguments before it touches any memory."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import nnx
from nnx import _kernels, optimizers
from nnx.engine import program

pytestmark = pytest.mark.filterwarnings("error")


#: The settings of a loss, and no numbers of its columns.
LOSS = ((0.0, 1e-7), None)


@pytest.fixture
def binding(compiled):
    return _kernels.backend


def lowered() -> program.Program:
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(3, 7), nnx.Activation_ReLU(), nnx.Layer_Dense(7, 2), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    return program.lower(model)


def made(binding, found: program.Program):
    return binding.Plan(found.dtype, found.stages, "categorical_crossentropy", True, found.guards)


def bind(plan, found: program.Program) -> bool:
    rule = found.optimizer._rule("test")
    return plan.bind(found.layers, found.trained, rule, "test", optimizers._state)


X, Y = np.zeros((6, 3), np.float32), np.zeros(6, np.intp)
ONE_STEP = (6, 1, False, 0, 0.1, None, 0, 0, 1, True)


def test_a_plan_is_bound_before_it_is_run(binding):
    found = lowered()
    plan = made(binding, found)
    with pytest.raises(RuntimeError, match="no data"):
        plan.prepare(*ONE_STEP)
    with pytest.raises(RuntimeError, match="no run is prepared"):
        plan.lead()
    plan.work(plan.run)  # does nothing, as there is no run
    with pytest.raises(ValueError, match="must be parameters"):
        plan.bind_data(X, Y, LOSS, None, False, True, -1.0)
    assert bind(plan, found)
    with pytest.raises(RuntimeError, match="no data"):
        plan.prepare(*ONE_STEP)
    assert plan.bind_data(X, Y, LOSS, None, False, True, -1.0)
    plan.prepare(*ONE_STEP)
    plan.release()
    with pytest.raises(RuntimeError, match="no run is prepared"):
        plan.lead()
    plan.work(plan.run)  # does nothing, as there is no run


def test_a_last_step_needs_room_for_what_it_stores(binding):
    found = lowered()
    plan = made(binding, found)
    bind(plan, found)
    plan.bind_data(X, Y, LOSS, None, False, True, -1.0)
    plan.prepare(6, 1, True, *ONE_STEP[3:])
    with pytest.raises(RuntimeError, match="no room"):
        plan.lead()
    for rows, inputs in ((7, X), (0, X[:0]), (6, X[:5]), (6, X.astype(np.float64))):
        with pytest.raises((TypeError, ValueError), match="must"):
            plan.room(rows, inputs, [])


@pytest.mark.parametrize(
    "change",
    [{0: 0}, {1: 0}, {1: -3}, {3: 7}, {3: 1}, {8: 0}, {5: np.zeros((1, 5), np.intp)}, {5: np.full((1, 6), 6)},
     {5: np.full((1, 6), -1)}],
    ids=str,
)  # fmt: skip
def test_a_run_of_impossible_size_is_refused(binding, change):
    found = lowered()
    plan = made(binding, found)
    bind(plan, found)
    plan.bind_data(X, Y, LOSS, None, False, True, -1.0)
    arguments = [change.get(i, value) for i, value in enumerate(ONE_STEP)]
    with pytest.raises(ValueError, match="must"):
        plan.prepare(*arguments)
    with pytest.raises(RuntimeError, match="no run is prepared"):
        plan.lead()


@pytest.mark.parametrize("n", [1, 3])
def test_threads_beyond_those_that_there_is_memory_for_are_sent_away(binding, n):
    found = lowered()
    plan = made(binding, found)
    bind(plan, found)
    plan.bind_data(X, Y, LOSS, None, False, True, -1.0)
    plan.prepare(*ONE_STEP[:8], n, True)
    threads = [threading.Thread(target=plan.work, args=(plan.run,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while sum(thread.is_alive() for thread in threads) > n - 1 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert plan.waiting() == sum(thread.is_alive() for thread in threads) == n - 1
    assert (plan.steps_done, plan.lead(), plan.steps_done) == (0, 1, 1)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def prepared(binding):
    found = lowered()
    plan = made(binding, found)
    bind(plan, found)
    plan.bind_data(X, Y, LOSS, None, False, True, -1.0)
    plan.prepare(*ONE_STEP[:8], 3, True)
    return plan


def started(plan, run):
    thread = threading.Thread(target=plan.work, args=(run,), daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("end", ["lead", "dismiss", "release", "prepare"])
def test_threads_that_come_too_late_are_sent_away(binding, end):
    plan = prepared(binding)
    run = plan.run
    getattr(plan, end)(*((*ONE_STEP[:8], 3, True) if end == "prepare" else ()))
    late = started(plan, run)
    late.join(30)
    assert not late.is_alive()
    assert plan.waiting() == 0


@pytest.mark.parametrize("end", ["dismiss", "release"])
def test_threads_that_still_wait_when_a_run_is_given_up_take_no_part_in_the_next(binding, end):
    plan = prepared(binding)
    waiting = started(plan, plan.run)
    while plan.waiting() < 1:
        time.sleep(0)
    getattr(plan, end)()
    if end == "dismiss":
        plan.prepare(*ONE_STEP[:8], 3, True)
    waiting.join(30)
    assert not waiting.is_alive()
    assert plan.waiting() == 0


@pytest.mark.parametrize(
    "samples",
    [
        (X[:0], Y[:0]),
        (X, Y[:5]),
        (X[:, :2], Y),
        (X, Y + 2),
        (X, Y - 1),
        (X.astype(np.float64), Y),
        (None, Y),
        (X, None),
    ],
    ids=["none", "short", "narrow", "large label", "negative label", "float64", "no X", "no y"],
)
def test_data_that_do_not_fit_are_refused(binding, samples):
    found = lowered()
    plan = made(binding, found)
    bind(plan, found)
    with pytest.raises((TypeError, ValueError), match="must"):
        plan.bind_data(*samples, LOSS, None, False, True, -1.0)


@pytest.mark.parametrize(
    "loss", [(), ((0.0, 1e-7),), ((0.0, 1e-7), None, None), ((0.0,), None), ((0.0, 1e-7), np.ones(3))], ids=str
)
def test_settings_of_a_loss_that_do_not_fit_are_refused(binding, loss):
    found = lowered()
    plan = made(binding, found)
    bind(plan, found)
    with pytest.raises(ValueError, match=r"unpack|must"):
        plan.bind_data(X, Y, loss, None, False, True, -1.0)
    with pytest.raises(ValueError, match=r"unpack|must"):
        inferred(binding, found, ("categorical_crossentropy", *loss))


WANTED = {
    "no axis": np.array(1.0),
    "no column": np.zeros((6, 0)),
    "three columns": np.zeros((6, 3)),
    "short": np.zeros(5),
    "float32": np.zeros(6, np.float32),
    "a list": [0.0] * 6,
}


@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
def test_what_an_accuracy_cannot_compare_with_is_refused(binding, wanted):
    found = lowered()
    plan = made(binding, found)
    bind(plan, found)
    with pytest.raises((TypeError, ValueError), match="wanted must"):
        plan.bind_data(X, Y, LOSS, wanted, False, True, -1.0)
    with pytest.raises((TypeError, ValueError), match="wanted must"):
        inferred(binding, found, ("categorical_crossentropy", *LOSS), wanted)


def inferred(binding, found: program.Program, loss: tuple, wanted: object = None):
    """Return the results of an evaluation of all samples at once."""
    model = nnx.Model()
    for layer in found.layers:
        model.add(layer)
    model.finalize()
    inference = binding.Inference(found.dtype, found.stages, program.lower_forward(model).guards, _kernels)
    return inference.evaluation(X, Y, loss, wanted, False, True, -1.0, 6, True).sums(0, 1)


def test_epochs_are_those_of_a_plan_that_is_prepared_for_them(binding):
    found = lowered()
    plan = made(binding, found)
    bind(plan, found)
    plan.bind_data(X, Y, LOSS, None, False, True, -1.0)
    epochs = binding.Epochs(plan, None, None, [])
    with pytest.raises(RuntimeError, match="prepared for whole epochs"):
        epochs.run(1, 0)
    plan.prepare(6, 2, False, 0, 0.1, None, 0, 0, 1, True)  # which keeps nothing
    with pytest.raises(RuntimeError, match="prepared for whole epochs"):
        epochs.run(1, 0)
    plan.prepare(6, 2, False, 0, 0.1, None, 0, 0, 1, True, True)
    with pytest.raises(ValueError, match="n_epochs must"):
        epochs.run(3, 0)
    assert epochs.run(2, 0)
    assert epochs.done == 2


@pytest.mark.parametrize("figure", [-1, 5, 7])
def test_epochs_look_at_a_figure_that_there_is(binding, figure):
    with pytest.raises(ValueError, match="a figure that there is"):
        binding.Epochs(made(binding, lowered()), None, (figure, False, 0.0, 3, 0.0, 0, 0), [])


@pytest.mark.parametrize(
    "kept", [np.zeros(5), np.zeros(6, np.float32), np.zeros((6, 2))[:, 0]], ids=["5", "float32", "lines"]
)
def test_parameters_are_kept_in_arrays_alike(binding, kept):
    with pytest.raises(ValueError, match="arrays alike"):
        binding.Epochs(made(binding, lowered()), None, None, [(np.zeros(6), kept)])


@pytest.mark.parametrize(("owners", "trained"), [(0, 4), (3, 4), (4, 0), (4, 3), (5, 5)])
def test_each_stage_is_bound_to_a_layer_of_its_own(binding, owners, trained):
    found = lowered()
    plan = made(binding, found)
    rule = found.optimizer._rule("test")
    with pytest.raises(ValueError, match="one for each stage"):
        plan.bind((found.layers * 2)[:owners], (found.trained * 2)[:trained], rule, "test", optimizers._state)


STATES = {
    "none": lambda names, values: [],
    "one too many": lambda names, values: [np.zeros_like(values) for _ in (*names, "")],
    "other shapes": lambda names, values: [np.zeros((1, 1), values.dtype) for _ in names],
    "another dtype": lambda names, values: [np.zeros_like(values, np.float64) for _ in names],
    "no arrays": lambda names, values: [None for _ in names],
}


@pytest.mark.parametrize("made_of", STATES.values(), ids=STATES)
def test_states_that_are_not_like_their_parameter_are_refused(binding, made_of):
    found = lowered()
    plan = made(binding, found)
    rule = nnx.Optimizer_Adam()._rule("test")

    def layer_state(where, owner, names, values):
        return made_of(names, values)

    with pytest.raises(ValueError, match="layer_state must"):
        plan.bind(found.layers, found.trained, rule, "test", layer_state)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_rule_has_states_of_weights_and_of_biases(binding, count):
    found = lowered()
    plan = made(binding, found)
    rule = nnx.Optimizer_Adam()._rule("test")
    with pytest.raises(ValueError, match="unpack"):
        plan.bind(
            found.layers, found.trained, rule._replace(states=(rule.states * 2)[:count]), "test", optimizers._state
        )


@pytest.mark.parametrize("sizes", [(), ((3, 7), (7, 7), (6, 2)), ((3, 0),), ((3, -7),), ((3, 7), (7, 8))], ids=str)
def test_stages_that_do_not_fit_each_other_are_refused(binding, sizes):
    kinds = ("dense", "relu", "dense")
    stages = tuple((kind, None, *size) for kind, size in zip(kinds, sizes, strict=False))
    with pytest.raises(ValueError, match="must take"):
        binding.Plan("float32", stages, "mean_squared_error", False, ())
    with pytest.raises(ValueError, match="must take"):
        binding.Inference("float32", stages, (), _kernels)


@pytest.mark.parametrize("kinds", [("linear",), ("linear", "softmax"), ("dropout", "softmax"), ("prelu",)], ids=str)
def test_one_stage_is_dense(binding, kinds):
    stages = tuple((kind, None, 3, 3) for kind in kinds)
    with pytest.raises(ValueError, match="one must be dense"):
        binding.Plan("float32", stages, "categorical_crossentropy", kinds[-1] == "softmax", ())
    with pytest.raises(ValueError, match="one must be dense"):
        binding.Inference("float32", stages, (), _kernels)


def test_a_loss_is_combined_with_its_own_activation_only(binding):
    stages = (("dense", None, 3, 2), ("relu", None, 2, 2))
    for loss in ("categorical_crossentropy", "binary_crossentropy", "mean_squared_error"):
        with pytest.raises(ValueError, match="must take"):
            binding.Plan("float32", stages, loss, True, ())


def test_a_repeat_needs_every_array_that_the_last_step_has_stored_into(binding):
    found = lowered()
    plan = made(binding, found)

    def repeat(published):
        return binding.Repeat(plan, found, 100, nnx.Layer_Dense(1, 1), published, dict, _kernels, print)

    with pytest.raises(ValueError, match="must hold all arrays"):
        repeat([])
    assert bind(plan, found)
    assert plan.bind_data(X, Y, LOSS, None, False, True, -1.0)
    plan.prepare(6, 1, True, 0, 0.1, None, 0, 0, 1, True)
    published = [
        (vars(layer), name, value)
        for layer, values in zip(found.layers, plan.room(6, X, []), strict=True)
        for name, value in values.items()
        if name not in ("inputs", "dvalues")
    ]
    plan.lead()
    plan.release()
    with pytest.raises(ValueError, match="options must be"):
        repeat(published).remember((), True)
    for left_out in range(len(published)):
        with pytest.raises(ValueError, match="must hold all arrays"):
            repeat(published[:left_out] + published[left_out + 1 :])
    with pytest.raises(ValueError, match="must hold all arrays"):
        repeat([(owner, name, value[:1]) for owner, name, value in published])


@pytest.mark.parametrize("name", ["Pieces", "Rows", "Judged"])
def test_work_that_nobody_has_described_is_not_done(binding, name):
    with pytest.raises(TypeError, match=f"{name}: this is made by"):
        getattr(binding, name)()()


def test_an_evaluation_of_nothing_is_refused(binding):
    for use in (lambda empty: empty.sums(0, 0), lambda empty: empty.normalizes):
        with pytest.raises(TypeError, match=r"made by `Inference\.evaluation`"):
            use(binding.Evaluation())


def test_what_a_step_has_stored_is_listed_for_each_stage(binding):
    found = lowered()
    plan = made(binding, found)
    for room, owners in (([{}], found.owners), ([{}] * len(found.owners), found.owners[:1])):
        with pytest.raises(ValueError, match="room and owners must be one for each stage"):
            plan.stored_in(room, owners)
    with pytest.raises(TypeError):
        plan.stored_in([None] * len(found.owners), found.owners)
    room = [{"output": number, "dvalues": None} for number, _ in enumerate(found.owners)]
    listed = plan.stored_in(room, found.owners)
    assert [(name, value) for _, name, value in listed] == [("output", number) for number, _ in enumerate(room)]
    assert all(own is vars(owner) for (own, _, _), owner in zip(listed, found.owners, strict=True))
