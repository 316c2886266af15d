"""One step per call: a repeated call of `train` must leave the same bits as the general path."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
from plans import NETS, OPTIMIZERS, PENALTIES, Book, Net, bits, build, data_for, left_behind

import nnx

CLASSIFIER = Net("2-64,relu,dropout,64-3,softmax")
REGRESSION = Net("17-33,relu,33-2,linear", "squared", "near")

pytestmark = pytest.mark.usefixtures("compiled")


def batches(net, n=20, number=6, dtype="float64"):
    """Yield samples and targets of a dtype that need no cast."""
    for seed in range(number):
        X, y = data_for(net, n, seed)
        yield X.astype(dtype), y if y.dtype.kind == "i" and net.loss == "categorical" else y.astype(dtype)


def step(model, X, y, *, repeats, **options):
    """Train one step, on the general path if it must not repeat. Return the state after it."""
    if not repeats:
        model._again = None
    np.random.seed(3)
    model.train(X, y, print_every=None, **options)
    return bits(left_behind(model))


def is_repeated(model, X, y, **options):
    before = model._again
    model.train(X, y, print_every=None, **options)
    return before is not None and model._again is before


def in_turns(nets, others):
    """Return each network with two of the others, and the first with all, so that common parts are tested once."""
    pairs = [(net, others[(i + shift) % len(others)]) for i, net in enumerate(nets) for shift in (0, 1)]
    return pairs + [(nets[0], other) for other in others if (nets[0], other) not in pairs]


@pytest.mark.parametrize(("net", "optimizer"), in_turns(NETS, list(OPTIMIZERS)), ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_leave_what_the_long_way_leaves(net, optimizer, dtype):
    twins = [build(net, optimizer, dtype=dtype, **PENALTIES) for _ in range(2)]
    for X, y in batches(net, dtype=dtype):
        assert step(twins[0], X, y, repeats=True) == step(twins[1], X, y, repeats=False)


@pytest.mark.parametrize("net", [CLASSIFIER, REGRESSION], ids=str)
def test_the_same_call_is_repeated(net):
    model = build(net)
    repeats = [False] + 5 * [nnx._kernels.backend.counts_references]  # without a GIL, no call is
    assert [is_repeated(model, X, y) for X, y in batches(net)] == repeats
    assert [is_repeated(model, X, y, batch_size=20) for X, y in batches(net)] == repeats


def with_rows(X, y, number, model):
    n = (20, 7, 1, 33, 20, 64)[number]
    return np.resize(X, (n, X.shape[1])), np.resize(y, (n, *y.shape[1:])), {}


def with_rate(X, y, number, model):
    model.optimizer.learning_rate = 0.01 / (1 + number)
    return X, y, {}


def with_weights(X, y, number, model):
    weights = np.random.default_rng(number).random(len(X)) * (np.arange(len(X)) != number)
    return X, y, {"sample_weight": weights.astype("f4" if number % 2 else "f8")}


def with_other_floats(X, y, number, model):
    dtype = "f4" if number % 2 else "f8"
    return X.astype(dtype), y if y.dtype.kind == "i" else y.astype(dtype), {}


CHANGING = [with_rows, with_rate, with_weights, with_other_floats]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("net", "change"), in_turns([CLASSIFIER, REGRESSION, *NETS], CHANGING))
def test_what_changes_from_call_to_call_leaves_what_the_long_way_leaves(net, dtype, change):
    twins = [build(net, dtype=dtype) for _ in range(2)]
    repeats = []
    for number, (X, y) in enumerate(batches(net, dtype=dtype)):
        found = []
        for model in twins:
            a, b, options = change(X, y, number, model)
            before = model._again
            found.append(step(model, a, b, repeats=model is twins[0], **options))
            repeats.append(model is twins[1] or number == 0 or (before is not None and model._again is before))
        assert found[0] == found[1]
    if net in (CLASSIFIER, REGRESSION):
        assert all(repeats) or not nnx._kernels.backend.counts_references


def test_arrays_that_somebody_keeps_are_replaced_and_no_reason_for_the_long_way():
    model = build(REGRESSION)
    kept = []
    repeats = []
    for X, y in batches(REGRESSION):
        repeats.append(is_repeated(model, X, y))
        kept.append((model.layers[1].output, model.layers[1].output.copy()))
    assert repeats == [False] + 5 * [nnx._kernels.backend.counts_references]
    assert all((array == copy).all() for array, copy in kept)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-np.ones(20), "sample_weight must hold 0 or numbers from 1e-30 to 1e\\+30, got -1.0 in row 0"),
        (np.full(20, np.nan), "sample_weight must hold 0 or numbers from 1e-30 to 1e\\+30, got nan in row 0"),
        (np.zeros(20), "sample_weight must leave at least one sample, got 0 for all 20"),
        (np.ones(19), r"sample_weight must have one number for each of 20 rows, got shape \(19,\)"),
    ],
    ids=["negative", "NaN", "none", "too few"],
)
def test_weights_that_are_none_are_refused_by_a_call_that_is_the_last_one_again(weights, message):
    model = build(CLASSIFIER)
    X, y = data_for(CLASSIFIER, 20)
    for _ in range(3):
        model.train(X, y, print_every=None, sample_weight=np.ones(20))
    before = bits(left_behind(model))
    with pytest.raises(ValueError, match=message):
        model.train(X, y, print_every=None, sample_weight=weights)
    assert bits(left_behind(model)) == before


def test_a_batch_larger_than_batch_size_is_several_steps():
    model = build(CLASSIFIER)
    for n, steps in ((20, 1), (13, 1), (40, 2), (20, 1)):
        history = model.train(*data_for(CLASSIFIER, n), batch_size=20, print_every=None)
        assert len(history.step_loss) == steps


def test_each_call_returns_a_history_of_its_own():
    model = build(REGRESSION)
    found = [model.train(X, y, print_every=None) for X, y in batches(REGRESSION)]
    assert model.history is found[-1]
    assert len({float(history.loss[0]) for history in found}) == 6
    assert all(len(history) == 1 for history in found)


def own_forward(layer):
    forward = layer.forward
    layer.forward = lambda inputs, training=True: forward(inputs, training)


CHANGES = {
    "learning rate": lambda model: setattr(model.optimizer, "learning_rate", 0.5),
    "learning rate without decay": lambda model: (
        vars(model.optimizer).update(decay=0.0) or setattr(model.optimizer, "learning_rate", 0.5)
    ),
    "rate in use": lambda model: setattr(model.optimizer, "current_learning_rate", 0.5),
    "rate in use, a whole number": lambda model: setattr(model.optimizer, "current_learning_rate", 1),
    "decay": lambda model: setattr(model.optimizer, "decay", 0.5),
    "no decay": lambda model: setattr(model.optimizer, "decay", 0.0),
    "beta": lambda model: setattr(model.optimizer, "beta_1", 0.5),
    "epsilon": lambda model: setattr(model.optimizer, "epsilon", 0.5),
    "iterations": lambda model: setattr(model.optimizer, "iterations", 50),
    "iterations of NumPy": lambda model: setattr(model.optimizer, "iterations", np.int64(50)),
    "optimizer": lambda model: model.set(optimizer=nnx.Optimizer_SGD(0.1, momentum=0.5)),
    "accuracy": lambda model: model.set(accuracy=nnx.Accuracy_Categorical()),
    "loss": lambda model: model.set(loss=nnx.Loss_CategoricalCrossentropy()),
    "penalty": lambda model: setattr(model.layers[0], "weight_regularizer_l2", 0.5),
    "bias's penalty": lambda model: setattr(model.layers[3], "bias_regularizer_l1", 0.5),
    "weights": lambda model: setattr(model.layers[0], "weights", np.ones((2, 64))),
    "weights of another dtype": lambda model: setattr(model.layers[0], "weights", np.ones((2, 64), "f4")),
    "weights in place": lambda model: model.layers[3].weights.__imul__(0.5),
    "biases": lambda model: setattr(model.layers[3], "biases", np.ones((1, 3))),
    "state": lambda model: setattr(model.layers[3], "weight_cache", np.ones((64, 3))),
    "no state": lambda model: delattr(model.layers[3], "weight_momentums"),
    "seed": lambda model: setattr(model.layers[2], "seed", 7),
    "count of masks": lambda model: setattr(model.layers[2], "training_forwards", 70),
    "share that is kept": lambda model: setattr(model.layers[2], "rate", 0.9),
    "frozen layer": lambda model: model.trainable_layers.pop(0),
    "another layer": lambda model: (model.layers.__setitem__(1, nnx.Activation_Sigmoid()), model.finalize()),
    "method of its own": lambda model: own_forward(model.layers[1]),
    "published array": lambda model: setattr(model.layers[1], "output", np.ones(3)),
    "no published array": lambda model: delattr(model.layers[1], "output"),
    "shape of a published array": lambda model: model.layers[1].output.resize((64, 20), refcheck=False),
    "length of a published array": lambda model: model.layers[1].dinputs.resize((1, 64), refcheck=False),
    "memory of a published array": lambda model: (
        model.layers[1].dinputs.resize((2000, 64), refcheck=False),
        model.layers[1].dinputs.resize((20, 64), refcheck=False),
    ),
    "read-only published array": lambda model: model.layers[1].output.setflags(write=False),
    "published array as another's state": lambda model: setattr(
        model.layers[0], "weight_cache", np.absolute(model.layers[0].dweights)
    ),
    "forward by hand": lambda model: model.forward(np.ones((20, 2)), training=True),
    "evaluation": lambda model: model.evaluate(np.ones((5, 2)), np.zeros(5, int), silent=True),
    "training of many steps": lambda model: model.train(*data_for(CLASSIFIER, 50), batch_size=8, print_every=None),
    "training of another batch": lambda model: model.train(*data_for(CLASSIFIER, 50), print_every=None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_changed_between_two_calls_is_honoured(change):
    twins, book = [build(CLASSIFIER) for _ in range(2)], build(CLASSIFIER, kind=Book)
    for number, (X, y) in enumerate(batches(CLASSIFIER)):
        if number == 3:
            for model in (*twins, book):
                change(model)
        assert step(twins[0], X, y, repeats=True) == step(twins[1], X, y, repeats=False)
        step(book, X, y, repeats=False)
    for found, expected in zip(twins[0].get_parameters(), book.get_parameters(), strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_published_arrays_are_writable_and_the_loss_has_the_layers_as_after_any_training():
    model = build(CLASSIFIER)
    for X, y in batches(CLASSIFIER):
        model.train(X, y, print_every=None)
        model.layers[1].output.setflags(write=False)
        model.loss.trainable_layers = []
    model.train(X, y, print_every=None)
    assert model.layers[1].output.flags.writeable
    assert model.loss.trainable_layers is model.trainable_layers


def test_the_precision_is_honoured():
    twins = [build(REGRESSION) for _ in range(2)]
    for number, (X, y) in enumerate(batches(REGRESSION)):
        for model in twins:
            if number == 3:
                model.accuracy.precision = 1.5
        found = [step(model, X, y, repeats=model is twins[0]) for model in twins]
        assert found[0] == found[1]
    assert twins[0].history.accuracy[0] > 0.5


GIVEN = {
    "lists": lambda X, y: (X.tolist(), y.tolist()),
    "other dtype": lambda X, y: (X.astype("f4"), y.astype("u1")),
    "unsigned": lambda X, y: (X, y.astype("u8")),
    "booleans": lambda X, y: (X, y > 0),
    "one-hot": lambda X, y: (X, np.eye(3)[y]),
    "column": lambda X, y: (X, y[:, None]),
    "columns first": lambda X, y: (np.asfortranarray(X), y),
    "rows of more": lambda X, y: (np.repeat(X, 2, axis=0)[::2], np.repeat(y, 2)[::2]),
    "fewer": lambda X, y: (X[:7], y[:7]),
    "more": lambda X, y: (np.concatenate([X, X]), np.concatenate([y, y])),
    "read-only": lambda X, y: (np.broadcast_to(X, X.shape), np.broadcast_to(y, y.shape)),
    "other byte order": lambda X, y: (X.astype(">f8"), y.astype(">i8")),
    "subclass": lambda X, y: (np.ma.masked_array(X), y),
}


@pytest.mark.parametrize("form", GIVEN.values(), ids=GIVEN)
def test_samples_and_labels_of_every_form_are_taken_as_on_the_long_way(form):
    twins = [build(CLASSIFIER) for _ in range(2)]
    for number, (X, y) in enumerate(batches(CLASSIFIER)):
        X, y = (X, y) if number < 3 else form(X, y)
        assert step(twins[0], X, y, repeats=True) == step(twins[1], X, y, repeats=False)


@pytest.mark.parametrize(
    "form", [lambda y: y[:, 0], lambda y: y.astype("f4"), lambda y: y.tolist(), lambda y: np.asfortranarray(y)]
)
def test_targets_of_one_output_are_taken_as_on_the_long_way(form):
    net = Net("1-64,relu,64-1,linear", "absolute", "near")
    twins = [build(net) for _ in range(2)]
    for X, y in batches(net):
        assert step(twins[0], X, form(y), repeats=True) == step(twins[1], X, form(y), repeats=False)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({"print_every": 1}, 3),
        ({"epochs": 2}, 0),
        ({"batch_size": 7}, 0),
        ({"shuffle": True, "seed": 1}, 0),
        ({"shuffle": True}, 0),
        ({"validation_data": (np.ones((3, 2)), [0, 1, 2])}, 0),
        ({"threads": 2}, 0),
        ({"check_finite": False}, 0),
    ],
    ids=str,
)
def test_other_arguments_are_not_taken_for_the_same_call(capsys, options, lines):
    twins = [build(CLASSIFIER) for _ in range(2)]
    for number, (X, y) in enumerate(batches(CLASSIFIER)):
        for model in twins:
            if model is twins[1]:
                model._again = None
            np.random.seed(3)
            model.train(X, y, **{"print_every": None, **(options if number in (3, 4) else {})})
        assert bits(left_behind(twins[0])) == bits(left_behind(twins[1]))
    assert len(capsys.readouterr().out.splitlines()) == 4 * lines


def test_a_call_that_is_refused_says_what_the_long_way_says_and_changes_nothing():
    model = build(CLASSIFIER)
    X, y = data_for(CLASSIFIER, 20)
    for _ in range(3):
        model.train(X, y, print_every=None)
    before = bits(left_behind(model))
    bad, wrong = X.copy(), y.copy()
    bad[3, 1], wrong[4] = np.nan, 3
    for arguments, message in (
        ((bad, y), r"Model\.train: X must hold finite numbers, got nan in row 3, column 1"),
        ((X, wrong), r"Model\.train: y must hold class numbers from 0 to 2, got 3"),
        ((X, -y - 1), r"Model\.train: y must hold class numbers"),
        ((X, y[:-1]), r"Model\.train: y must have one row for each of the 20 rows of X"),
        ((X[:, :1], y), r"Model\.train: X must have shape \(n, 2\)"),
    ):
        for _ in range(2):
            model.train(X, y, print_every=None)
        before = bits(left_behind(model))
        with pytest.raises(ValueError, match=message):
            model.train(*arguments, print_every=None)
        assert bits(left_behind(model)) == before
        assert not model._training


def test_a_target_that_is_no_number_is_refused():
    model = build(REGRESSION)
    X, y = data_for(REGRESSION, 20)
    for _ in range(3):
        model.train(X, y, print_every=None)
    y[2, 1] = np.inf
    with pytest.raises(ValueError, match="y must hold finite numbers, got inf in row 2, column 1"):
        model.train(X, y, print_every=None)
    model.train(X, y, print_every=None, check_finite=False, on_nonfinite="ignore")
    found = is_repeated(model, X, y, check_finite=False, on_nonfinite="ignore")
    assert found == nnx._kernels.backend.counts_references


@pytest.mark.parametrize("name", ["inputs", "output", "dinputs", "dweights", "dbiases"])
def test_what_somebody_keeps_stays_as_it_is(name):
    model = build(REGRESSION)
    for X, y in batches(REGRESSION):
        model.train(X, y, print_every=None)
    kept = [vars(layer)[name][:1] for layer in model.layers if name in vars(layer)]
    copies = [array.copy() for array in kept]
    assert len(copies) > 1
    for X, y in batches(REGRESSION):
        model.train(X + 1, y, print_every=None)
    for array, expected in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_step_on_what_the_last_one_published_gets_it_as_it_was():
    net = Net("8-8,relu,8-8,linear", "squared", "near")
    twins = [build(net) for _ in range(2)]
    for X, y in batches(net):
        for model in twins:
            step(model, X, y, repeats=model is twins[0])
    for _ in range(3):
        found = [
            step(model, model.layers[1].output, model.layers[2].dinputs, repeats=model is twins[0]) for model in twins
        ]
        assert found[0] == found[1]


def test_a_model_that_is_being_trained_is_not_trained_beside_that():
    model = build(CLASSIFIER)
    X, y = data_for(CLASSIFIER, 20)
    for _ in range(3):
        model.train(X, y, print_every=None)
    model._training = True
    with pytest.raises(RuntimeError, match="is being trained already"):
        model.train(X, y, print_every=None)


def test_another_backend_is_honoured(monkeypatch):
    model = build(CLASSIFIER)
    X, y = data_for(CLASSIFIER, 20)
    for _ in range(3):
        model.train(X, y, print_every=None)
    monkeypatch.setattr(nnx._kernels, "backend", nnx._kernels.load("numpy"))
    assert not is_repeated(model, X, y)


def test_copies_and_models_that_share_layers_do_not_disturb_each_other():
    twins = [build(CLASSIFIER) for _ in range(2)]
    pairs = [(model, copy.copy(model), copy.deepcopy(model)) for model in twins]
    for X, y in batches(CLASSIFIER):
        for trio in zip(*pairs, strict=True):
            found = [step(model, X, y, repeats=repeats) for model, repeats in zip(trio, (True, False), strict=True)]
            assert found[0] == found[1]


def test_threads_train_a_model_each_as_one_after_the_other():
    def run(found, number):
        model = build(CLASSIFIER)
        for _ in range(20):
            for X, y in batches(CLASSIFIER):
                model.train(X + number, y, print_every=None)
        found[number] = bits(left_behind(model)) | {"generator": None, "generator's place": None}

    alone, together = {}, {}
    for number in range(4):
        run(alone, number)
    threads = [threading.Thread(target=run, args=(together, number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_threads_that_train_one_model_do_one_step_each_or_are_told_that_it_is_being_trained():
    model = build(CLASSIFIER)
    X, y = data_for(CLASSIFIER, 20)
    done, refused = [], []

    def run():
        for _ in range(200):
            try:
                model.train(X, y, print_every=None)
                done.append(1)
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model.optimizer.iterations == len(done) > 0
    assert all("is being trained already" in text for text in refused)
    assert not model._training
