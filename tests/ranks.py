"""The cases that tests of several processes run under mpiexec, by name. Rank 0 prints the result."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings

import numpy as np
from mpi4py import MPI

import nnx
from nnx.engine import plan
from nnx.engine.ranks import Ranks

COMM = MPI.COMM_WORLD


class OwnReLU(nnx.Activation_ReLU):
    """A custom part: its model trains layer by layer."""


def build(dtype="float64", activation=nnx.Activation_ReLU, optimizer=None, noise=False):
    """Return a network with every kind of layer that depends on a row's index in its batch."""
    np.random.seed(1)
    model = nnx.Model()
    model.add(nnx.Layer_Dense(12, 33, weight_regularizer_l2=1e-2, dtype=dtype))
    model.add(activation())
    model.add(nnx.Layer_Dropout(0.2))
    if noise:
        model.add(nnx.Layer_GaussianNoise(0.1))
    model.add(nnx.Layer_Dense(33, 17, bias_regularizer_l1=1e-3, dtype=dtype))
    model.add(nnx.Layer_LayerNorm(17, dtype=dtype))
    model.add(nnx.Activation_Tanh())
    return finished(model, nnx.Layer_Dense(17, 5, dtype=dtype), optimizer)


def lanes(dtype="float64"):
    """Return a network with batched-lane kernels, and dropout."""
    np.random.seed(1)
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 50, weight_regularizer_l2=1e-3, dtype=dtype))
    model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dropout(0.2))
    return finished(model, nnx.Layer_Dense(50, 3, dtype=dtype), None)


def finished(model, last, optimizer):
    model.add(last)
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=optimizer or nnx.Optimizer_Adam(0.01, decay=1e-3),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


def data(n=301, columns=12, classes=5):
    """Return samples; with batches of 50, an epoch's last batch has one row."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, columns))
    return X, (X @ rng.normal(size=(columns, classes))).argmax(1)


WEIGHTS = np.random.default_rng(1).uniform(0.1, 2, 301)

#: Calls of `train`: a network, and arguments.
CALLS = {
    "a plan": (build, {}),
    "float32": (lambda: build("float32"), {}),
    "noise": (lambda: build(noise=True), {}),
    "clipped by norm": (lambda: build(optimizer=nnx.Optimizer_Adam(0.01, clip_norm=0.5)), {}),
    "clipped by value": (lambda: build(optimizer=nnx.Optimizer_Adam(0.01, clip_value=0.01)), {}),
    "averaged": (lambda: build(optimizer=nnx.Optimizer_SGD(0.1, momentum=0.9, average=0.99)), {}),
    "weights": (build, {"sample_weight": WEIGHTS, "class_weight": "balanced"}),
    "penalty per sample": (build, {"penalty_per_sample": True, "sample_weight": WEIGHTS}),
    "validated": (build, {"validation_split": 0.2, "callbacks": 1}),
    "lanes": (lanes, {"batch_size": 150}),
    "an order of one's own": (build, {"shuffle": lambda epoch, n: np.random.permutation(n)}),
    "layer by layer": (lambda: build(activation=OwnReLU, noise=True), {}),
    "layer by layer, weights": (lambda: build(activation=OwnReLU), {"sample_weight": WEIGHTS, "callbacks": 1}),
    "layer by layer, penalty per sample": (lambda: build(activation=OwnReLU), {"penalty_per_sample": True}),
}


def trained(make, arguments, comm, threads=1):
    """Return a model after three epochs. It uses all allowed threads, even for small steps."""
    model = make()
    np.random.seed(9)
    if comm is not None and comm.rank:  # only rank 0's parameters and random numbers count
        np.random.seed(1000 + comm.rank)
        for layer in model.trainable_layers:
            layer.weights *= 2
    arguments = {"batch_size": 50, "shuffle": True, **arguments}
    if arguments.get("callbacks"):
        arguments["callbacks"] = [nnx.EarlyStopping(monitor="loss", patience=2, restore_best=True)]
    columns = model.layers[0].weights.shape[0]
    X, y = data(columns=columns, classes=3 if columns == 2 else 5)
    model.train(X, y, epochs=3, print_every=None, comm=comm, threads=threads, **arguments)
    return model


def numbers(model):
    figures = [np.asarray(each, np.float64) for each in model.history.to_dict().values() if not isinstance(each, bool)]
    states = [
        getattr(layer, name, None) for layer in model.trainable_layers for name in ("weight_cache", "weight_averages")
    ]
    parameters = [array for group in model.get_parameters() for array in group]
    return parameters + [state for state in states if state is not None], figures


def parity(threads, *names):
    """Compare each call's result with that of one process, and with its own repetition on some threads."""
    plan.LEAST_STEP = plan.LEAST_CALL = 0
    plan.LEAST_ROWS = 1
    found = {}
    for name in names or CALLS:
        make, arguments = CALLS[name]
        alone, first, second = (
            trained(make, arguments, *ranks) for ranks in ((None, 1), (COMM, 1), (COMM, int(threads)))
        )
        (one, figures), (several, theirs), (repeated, _) = map(numbers, (alone, first, second))
        found[name] = {
            "parameters": max(float(np.abs(a - b).max()) for a, b in zip(one, several, strict=True)),
            "figures": max(float(np.abs(a - b).max(initial=0)) for a, b in zip(figures, theirs, strict=True)),
            "repeats": all(np.array_equal(a, b) for a, b in zip(several, repeated, strict=True)),
            "same on all ranks": len(set(COMM.allgather(b"".join(each.tobytes() for each in several)))) == 1,
        }
    return found


def said(train):
    """Return the error of a training on each rank; "" if it went well."""
    try:
        train()
        sentence = ""
    except (Exception, KeyboardInterrupt) as error:
        sentence = f"{type(error).__name__}: {error}"
    return COMM.allgather(sentence)


class Failing(nnx.Callback):
    """Does something in the second epoch, on one rank."""

    def __init__(self, what, rank=1):
        self.what, self.rank = what, rank

    def on_epoch_end(self, run):
        if run.epoch == 2 and COMM.rank == self.rank:
            self.what(run)


def fail(run):
    raise LookupError("no such thing")


def interrupt(run):
    os.kill(os.getpid(), signal.SIGINT)


def halve(run):
    run.model.optimizer.learning_rate /= 2


def call(model=None, X=None, **arguments):
    """Return a call of `train` for `said`."""
    samples, y = data()
    arguments = {
        "batch_size": 50,
        "shuffle": True,
        "seed": 3,
        "print_every": None,
        "epochs": 4,
        "comm": COMM,
        **arguments,
    }
    return lambda: (model or build()).train(samples if X is None else X, y, **arguments)


def with_batch_norm():
    model = nnx.Model()
    model.add(nnx.Layer_Dense(12, 5, dtype="float64"))
    return finished(model, nnx.Layer_BatchNorm(5, dtype="float64"), None)


def with_members():
    model = nnx.Model()
    model.add(nnx.Layer_Members(12, 2, dtype="float64"))
    return finished(model, nnx.Layer_Dense(12, 5, dtype="float64"), None)


def by_lbfgs():
    model = nnx.Model()
    return finished(model, nnx.Layer_Dense(12, 5, dtype="float64"), nnx.Optimizer_LBFGS())


def errors():
    """Return the messages of all ranks when one of them fails, or does something else."""
    other = data()[0] + COMM.rank
    found = {
        "other data": said(call(X=other)),
        "other epochs": said(call(epochs=4 + COMM.rank)),
        "other layers": said(call(build(activation=nnx.Activation_Tanh if COMM.rank else nnx.Activation_ReLU))),
        "a bad argument": said(call(epochs=1 - COMM.rank)),
        "bad for all": said(call(epochs=0)),
        "diverged": said(call(build(optimizer=nnx.Optimizer_SGD(1e200)))),
        "diverged layer by layer": said(call(build(activation=OwnReLU, optimizer=nnx.Optimizer_SGD(1e200)))),
        "a callback": said(call(callbacks=[Failing(fail)])),
        "a callback of rank 0": said(call(callbacks=[Failing(fail, 0)])),
        "a callback layer by layer": said(call(build(activation=OwnReLU), callbacks=[Failing(fail)])),
        "callbacks disagree": said(call(callbacks=[Failing(halve)])),
        "a batch norm": said(call(with_batch_norm())),
        "members": said(call(with_members())),
        "blocks": said(lambda: build().train(nnx.Blocks(*data()), batch_size=50, print_every=None, comm=COMM)),
        "L-BFGS": said(call(by_lbfgs(), batch_size=None, shuffle=False, seed=None)),
        "no communicator": said(call(comm="world")),
    }
    stopped = build()
    found["stopped by one"] = said(call(stopped, callbacks=[Failing(lambda run: run.stop("enough"))]))
    found["epochs then"] = COMM.allgather(len(stopped.history.loss))
    found["afterwards"] = said(call())
    return found


def interrupted(folder):
    """Interrupt rank 1, continue from the checkpoint of rank 0, and compare with an uninterrupted run."""
    paths = {"checkpoint": f"{folder}/run", "callbacks": [nnx.CSVLog(f"{folder}/log.csv"), Failing(interrupt)]}
    sentences = said(call(**paths))
    resumed, whole = build(), build()
    call(resumed, resume=f"{folder}/run")()
    call(whole)()
    same = all(np.array_equal(a, b) for a, b in zip(*[numbers(each)[0] for each in (resumed, whole)], strict=True))
    return {"said": sentences, "same": same, "files": sorted(os.listdir(folder))}


def exits(run):
    os._exit(3)


def break_off():
    """Let rank 1 leave the tenth sum."""
    add_up, n_sums = Ranks.add_up, 0

    def leave(ranks, sums):
        nonlocal n_sums
        n_sums += 1
        if n_sums == 10 and COMM.rank == 1:
            ranks._is_broken = True
            raise LookupError("no such sum")
        add_up(ranks, sums)

    Ranks.add_up = leave
    call()()


if __name__ == "__main__":
    warnings.simplefilter("error")
    case, *arguments = sys.argv[1:]
    if case == "exits":
        call(callbacks=[Failing(exits)])()
    elif case == "break_off":
        break_off()
    else:
        found = globals()[case](*arguments)
        if COMM.rank == 0:
            print(json.dumps(found))
