"""Ctrl-C during training: the step under way is finished, what was done is kept, the caller gets KeyboardInterrupt."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from networks import classifier, mixed_spiral, parameters_of

import nnx

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to this process")


@pytest.fixture(autouse=True)
def pythons_own_reaction():
    """What a program has when it starts; one that was started in the background has Ctrl-C ignored instead."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


class Impatient_Adam(nnx.Optimizer_Adam):
    """Presses Ctrl-C after the first of two layers has been updated, in the step that is given."""

    step = 0

    def update_params(self, layer):
        super().update_params(layer)
        if self.iterations == self.step and not self.pressed:
            self.pressed = True
            press_ctrl_c()

    pressed = False


def interrupted(step, **arguments):
    np.random.seed(0)
    X, y = mixed_spiral(20, 3)
    model = classifier(dropout=0.1)
    model.set(optimizer=Impatient_Adam(0.05))
    model.optimizer.step = step
    with pytest.raises(KeyboardInterrupt):
        model.train(X, y, epochs=10, batch_size=20, print_every=None, **arguments)
    return model, X, y


def test_the_step_under_way_is_finished():
    model, X, y = interrupted(4)
    assert model.optimizer.iterations == 5
    np.random.seed(0)
    mixed_spiral(20, 3)
    twin = classifier(dropout=0.1)
    twin.set(optimizer=Impatient_Adam(0.05))  # so that both take the book path
    twin.optimizer.pressed = True
    twin.train(X[:20], y[:20], print_every=None)
    for part in (slice(20, 40), slice(40, 60), slice(0, 20), slice(20, 40)):
        twin.train(X[part], y[part], print_every=None)
    assert parameters_of(model) == parameters_of(twin)


def test_the_history_holds_what_was_done_and_training_can_go_on():
    model, X, y = interrupted(4)
    assert repr(model.history) == "History(epochs=1, steps=5)"
    model.train(X, y, print_every=None)
    assert model.optimizer.iterations == 6


def test_validation_after_an_interrupted_epoch_does_not_swallow_it():
    model, _, _ = interrupted(2, validation_data=(np.ones((3, 2)), [0, 1, 2]))
    assert model.optimizer.iterations == 3


def test_the_handler_of_the_program_is_back_afterwards():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    interrupted(1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    classifier().train(np.ones((3, 2)), [0, 1, 2], print_every=None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_programs_own_is_left_in_place(monkeypatch):
    seen = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        model = classifier()
        model.set(optimizer=Impatient_Adam(0.05))
        model.train(np.ones((3, 2)), [0, 1, 2], epochs=3, print_every=None)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen == [signal.SIGINT]
    assert model.optimizer.iterations == 3


def test_a_second_ctrl_c_does_not_wait():
    class Hanging(nnx.Activation_ReLU):
        def forward(self, inputs, training):
            press_ctrl_c()
            press_ctrl_c()
            pytest.fail("the second Ctrl-C waited")

    model = nnx.Model()
    model.add(Hanging())
    model.add(nnx.Layer_Dense(2, 3))
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    with pytest.raises(KeyboardInterrupt):
        model.train(np.ones((2, 2)), np.ones((2, 3)), print_every=None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_works_in_a_thread():
    model = classifier()
    worker = threading.Thread(target=lambda: model.train(np.ones((3, 2)), [0, 1, 2], print_every=None))
    worker.start()
    worker.join()
    assert model.optimizer.iterations == 1
