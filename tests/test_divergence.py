"""Training stops before a NaN or an infinity reaches the parameters, and says where it appeared."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from plans import NETS, Book, Net, bits, build, data_for, train

import nnx

CLASSIFIER = Net("2-64,relu,dropout,64-3,softmax")
DEEP = Net("17-33,relu,33-33,relu,33-2,linear", "squared", "near")

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")


def diverging(net, kind=nnx.Model, dtype="float32", rate=1e30):
    model = build(net, "SGD", kind, dtype)
    model.set(optimizer=nnx.Optimizer_SGD(rate))
    return model


def sentence_of(model, X, y, **arguments):
    """Expect a training to diverge. Return its message."""
    np.random.seed(3)
    with pytest.raises(nnx.DivergenceError) as raised:
        model.train(X, y, **{"print_every": None, **arguments})
    return str(raised.value)


def state_of(model):
    arrays = [array.tobytes() for pair in model.get_parameters() for array in pair]
    forwards = [layer.training_forwards for layer in model.layers if isinstance(layer, nnx.Layer_Dropout)]
    return (
        arrays,
        forwards,
        model.optimizer.iterations,
        bits({k: np.array(v) for k, v in model.history.to_dict().items()}),
    )


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_samples_are_named(kind):
    X, y = data_for(CLASSIFIER, 50)
    X[31] = np.inf
    model = diverging(CLASSIFIER, kind, rate=0.1)
    before = state_of_parameters(model)
    found = sentence_of(model, X, y, batch_size=10, epochs=2, check_finite=False)
    assert found == (
        "Model.train: training diverged in epoch 1, step 3: the samples hold a value that is not finite. "
        "The model is as it was after 3 whole steps. "
        "Try a smaller learning rate, or pass on_nonfinite='ignore' to continue anyway."
    )
    assert len(model.history) == model.optimizer.iterations == 3
    assert state_of_parameters(model) != before
    twin = diverging(CLASSIFIER, kind, rate=0.1)
    np.random.seed(3)
    twin.train(X[:30], y[:30], batch_size=10, print_every=None)
    assert state_of_parameters(twin) == state_of_parameters(model)
    assert twin.layers[2].training_forwards == model.layers[2].training_forwards == 3


def state_of_parameters(model):
    return [array.tobytes() for pair in model.get_parameters() for array in pair]


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_outputs_are_named(kind):
    """Weights that are finite, and whose products are not."""
    X, y = data_for(DEEP, 50)
    model = diverging(DEEP, kind, rate=0.0)
    model.layers[2].weights[:] = 3e38
    found = sentence_of(model, np.abs(X), y, batch_size=10)
    assert "epoch 1, step 0: the output of layer 2, Layer_Dense(33, 33), got the first value" in found
    assert "as after 0 whole steps" in found


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_a_loss_that_overflows_is_named(kind):
    X, y = data_for(DEEP, 50)
    model = diverging(DEEP, kind, rate=0.0)
    y[37] = 1e30
    found = sentence_of(model, X, y, batch_size=10, epochs=3)
    assert (
        "epoch 1, step 3: the loss is the first value that is not finite. The model is as it was after 3 whole" in found
    )


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_weights_are_named_with_the_step_whose_update_made_them(kind):
    X, y = data_for(DEEP, 50)
    model = diverging(DEEP, kind, rate=1e38)
    found = sentence_of(model, X, 1e5 * y, batch_size=10, epochs=3)
    assert "by epoch 1, step 0: the weights of layer 0, Layer_Dense(17, 33), got the first value" in found
    assert "as after 1 whole step." in found
    assert model.optimizer.iterations == 1


@pytest.mark.parametrize("kind", [nnx.Model, Book])
@pytest.mark.parametrize("net", [CLASSIFIER, DEEP, Net("3-200,relu,200-4,softmax")], ids=str)
def test_the_last_update_is_looked_at_too(net, kind):
    X, y = data_for(net, 20)
    model = diverging(net, kind, rate=1e38)
    for layer in model.trainable_layers:
        layer.weights *= 1e3
    found = sentence_of(model, 100 * X, y, epochs=1)
    assert "by epoch 1, step 0: the weights of layer" in found
    assert "as after 1 whole step." in found
    assert len(model.history) == model.optimizer.iterations == 1


@pytest.mark.parametrize("net", NETS, ids=str)
def test_both_paths_say_the_same_and_leave_the_same(net):
    """Any network with a rate that is far too high: the parameters are finite when it stops."""
    X, y = data_for(net, 41)
    found = []
    for kind in (nnx.Model, Book):
        model = diverging(net, kind, "float64", rate=1e100)
        np.random.seed(3)
        try:
            model.train(X, y, epochs=4, batch_size=16, print_every=None)
            found.append(None)
        except nnx.DivergenceError as error:
            found.append(str(error).partition("layer")[0])
        state = state_of(model)
        assert model.optimizer.iterations == len(model.history)
        found.append((state[1], state[2]))
    if net.loss == "binary":  # sums of infinities of both signs: whether they are NaN depends on their order
        assert (found[0] is None) == (found[2] is None)
    else:
        assert found[:2] == found[2:]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [None, 200])
def test_threads_stop_at_the_same_step(threads, batch_size):
    net = Net("64-256,relu,dropout,256-256,relu,256-10,softmax")
    X, y = data_for(net, 500)
    left = []
    for n in (1, threads):
        model = build(net, "Adam", dtype="float32")
        model.set(optimizer=nnx.Optimizer_Adam(1e37))
        sentence = sentence_of(model, X, y, epochs=60, batch_size=batch_size, threads=n)
        left.append((sentence, state_of(model)))
    assert left[0] == left[1]


@pytest.mark.parametrize("every", [1, None])
def test_what_is_printed_ends_at_the_last_whole_step(capsys, every):
    X, y = data_for(DEEP, 50)
    y[37] = 1e30
    sentence_of(diverging(DEEP, rate=0.0), X, y, batch_size=10, epochs=3, print_every=every)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == (
        ["epoch: 1", "step: 0", "step: 1", "step: 2"] if every else []
    )


def test_a_repeated_step_stops_too(compiled):
    """A repeated call, with samples that make the loss or the update overflow."""
    X, y = data_for(CLASSIFIER, 20)
    X = X.astype("f4")
    for rate, scale in ((0.01, 1.2e38), (1e38, 1e5)):
        model = build(CLASSIFIER, "SGD", dtype="float32")
        model.set(optimizer=nnx.Optimizer_SGD(0.01))
        for _ in range(3):
            model.train(X, y, print_every=None)
        twin = copy.deepcopy(model)
        model.optimizer.current_learning_rate = twin.optimizer.current_learning_rate = rate
        forwards = model.layers[2].training_forwards
        sentences = [sentence_of(each, (scale * X).astype("f4"), y) for each in (model, twin)]
        assert sentences[0] == sentences[1]
        assert state_of(model) == state_of(twin)
        assert model.layers[2].training_forwards - forwards == (rate > 1)


def test_ignoring_goes_on():
    X, y = data_for(DEEP, 50)
    for kind in (nnx.Model, Book):
        model = diverging(DEEP, kind)
        model.train(X, y, epochs=5, batch_size=10, print_every=None, on_nonfinite="ignore")
        assert model.optimizer.iterations == 25
        assert not np.isfinite(model.history.loss[-1])


@pytest.mark.parametrize("value", ["stop", None, True, 1, ["raise"]])
def test_other_words_are_refused(value):
    model = diverging(DEEP)
    with pytest.raises((TypeError, ValueError), match=r"^Model\.train: on_nonfinite must be 'raise' or 'ignore'"):
        model.train(*data_for(DEEP, 5), on_nonfinite=value)
    assert model.history is None


def test_the_checkpoint_before_is_kept(tmp_path):
    X, y = data_for(DEEP, 50)
    y[37] = 1e30
    for kind in (nnx.Model, Book):
        model = diverging(DEEP, kind, rate=0.0)
        train(model, X[:30], y[:30], batch_size=10, epochs=2, checkpoint=tmp_path / "c")
        kept = (tmp_path / "c").read_bytes()
        sentence_of(model, X, y, batch_size=10, epochs=2, checkpoint=tmp_path / "c", checkpoint_every=1)
        assert (tmp_path / "c").read_bytes() == kept


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_an_update_that_overflows_does_not_reach_the_checkpoint(tmp_path, kind):
    """The loss is finite, the step is whole, and its weights are not."""
    X, y = np.ones((4, 1)), np.zeros(4)

    def linear(rate):
        model = kind()
        model.add(nnx.Layer_Dense(1, 1))
        model.set(
            loss=nnx.Loss_MeanAbsoluteError(), optimizer=nnx.Optimizer_SGD(rate), accuracy=nnx.Accuracy_Regression()
        )
        model.finalize()
        model.layers[0].weights[:] = 1
        return model

    linear(0.1).train(X, y, print_every=None, checkpoint=tmp_path / "c")
    kept = (tmp_path / "c").read_bytes()
    for epochs in (1, 3):
        sentence = sentence_of(linear(1e39), X, y, epochs=epochs, checkpoint=tmp_path / "c", checkpoint_every=1)
        assert "by epoch 1, step 0: the weights of layer 0" in sentence
        assert (tmp_path / "c").read_bytes() == kept


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_parameters_that_were_not_finite_before_are_not_blamed_on_a_step(kind):
    X, y = data_for(CLASSIFIER, 20)
    model = diverging(CLASSIFIER, kind, rate=0.1)
    model.layers[0].biases[0, 0] = -np.inf  # a neuron that is silent: the loss is finite
    assert "training diverged before the first step: the biases of layer 0" in sentence_of(model, X, y, epochs=7)
    model = diverging(CLASSIFIER, kind, rate=0.1)
    model.layers[0].biases[0, 0] = -np.inf
    model.trainable_layers = model.trainable_layers[1:]  # frozen, which is the user's choice
    model.train(X, y, epochs=7, print_every=None)
    assert len(model.history) == 7


@pytest.mark.parametrize("kind", [nnx.Model, Book])
def test_the_sums_are_those_of_the_whole_steps(kind):
    X, y = data_for(DEEP, 50)
    y[37] = 1e30
    model = diverging(DEEP, kind, rate=0.0)
    sentence_of(model, X, y, batch_size=10, epochs=3)
    assert model.loss.accumulated_count == 30
    assert np.isfinite(model.loss.accumulated_sum)
