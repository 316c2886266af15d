"""For the tests of plans: networks written as text, data that fits them, and all state after a training.

As a script, with a backend's name, this file trains and uses networks on arrays beside unreadable memory. The process
dies if a step reads or writes outside its arrays. A test runs it in a separate process, and says at which network it
died. With "bfloat16" as well, dense layers multiply in that precision, on matrix units or in the plain C that replaces
them.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

import nnx
from nnx import _kernels
from nnx.layers import walk
from nnx.norms import STATISTICS


class Book(nnx.Model):
    """A model of a subclass has no plan: it takes the book path."""


LOSSES = {
    "categorical": nnx.Loss_CategoricalCrossentropy,
    "binary": nnx.Loss_BinaryCrossentropy,
    "squared": nnx.Loss_MeanSquaredError,
    "absolute": nnx.Loss_MeanAbsoluteError,
}
ACCURACIES = {
    "classes": nnx.Accuracy_Categorical,
    "cells": lambda: nnx.Accuracy_Categorical(binary=True),
    "near": nnx.Accuracy_Regression,
}
OPTIMIZERS = {
    "SGD": lambda: nnx.Optimizer_SGD(0.1, decay=1e-2),
    "momentum": lambda: nnx.Optimizer_SGD(0.05, momentum=0.8),
    "Adagrad": lambda: nnx.Optimizer_Adagrad(0.05, decay=1e-3),
    "RMSprop": lambda: nnx.Optimizer_RMSprop(0.01),
    "Adam": lambda: nnx.Optimizer_Adam(0.01, decay=1e-3),
}
ACTIVATIONS = {
    "relu": nnx.Activation_ReLU,
    "sigmoid": nnx.Activation_Sigmoid,
    "softmax": nnx.Activation_Softmax,
    "linear": nnx.Activation_Linear,
}


def splined(width: int, degree: int, dtype: Any) -> nnx.Layer_Spline:
    """Return a layer with edges in its first column and in its last one, the same at every call."""
    columns = sorted({0, width - 1})
    edges = [[-0.75, -0.25, 0.25, 1.0], [0.0, 0.5]][: len(columns)]
    layer = nnx.Layer_Spline(width, width, columns, edges, degree, dtype=dtype, weight_initializer="zeros")
    layer.weights[:] = np.random.default_rng(7).normal(size=layer.weights.shape) / np.sqrt(width)
    return layer


#: Layers without a width in the text: they have the width of the layer before them.
COLUMNWISE = {
    "batch": lambda width, dtype: nnx.Layer_BatchNorm(width, momentum=0.8, dtype=dtype),
    "layer": lambda width, dtype: nnx.Layer_LayerNorm(width, dtype=dtype),
    "scale": lambda width, dtype: nnx.Layer_Scale(width, scale=1.5, dtype=dtype),
    "spline": lambda width, dtype: splined(width, 1, dtype),
    "steps": lambda width, dtype: splined(width, 0, dtype),
    "dropout": lambda _, __: nnx.Layer_Dropout(0.3, seed=5),
    "noise": lambda _, __: nnx.Layer_GaussianNoise(0.1, seed=5),
}
ENCODINGS = {
    "pieces": nnx.Layer_PiecewiseLinear,
    "thermometer": nnx.Layer_Thermometer,
    "waves": nnx.Layer_Periodic,
    "combinations": nnx.Layer_Combinations,
}
MEMBERED = {"members": nnx.Layer_Members, "scales": nnx.Layer_MemberScale}
PENALTIES = {
    "weight_regularizer_l1": 1e-3,
    "weight_regularizer_l2": 2e-3,
    "bias_regularizer_l1": 3e-3,
    "bias_regularizer_l2": 4e-3,
}


class Net(NamedTuple):
    """A network as text: ``2-64,relu,dropout,64-3,softmax``, a key of `LOSSES` and one of `ACCURACIES`.

    What is between ``(`` and ``)`` is within a residual. ``3-9 pieces``, ``3-9 thermometer`` and ``3-9 waves`` encode
    every other of three columns by six numbers together; ``3-9 combinations`` adds six sums. Behind ``members 4``,
    ``scales 4`` and ``9-2 each 4`` have numbers of four members each.
    """

    layers: str
    loss: str = "categorical"
    accuracy: str = "classes"

    def __str__(self) -> str:
        return ":".join(self)

    @property
    def widths(self) -> list[int]:
        """The numbers in the text: inputs of the first layer with any ... outputs of the last."""
        sizes = [word.split()[0] for word in self.layers.split(",") if "-" in word]
        return [int(number) for word in sizes for number in word.split("-")]


def build(
    net: Net, optimizer: str = "Adam", kind: type[nnx.Model] = nnx.Model, dtype: Any = "float64", **dense: float
) -> nnx.Model:
    """Return a finalized model whose weights are the same at every call, and large enough to matter."""
    model = kind()
    for layer in _layers(net, dtype, dense):
        model.add(layer)
    model.set(loss=LOSSES[net.loss](), optimizer=OPTIMIZERS[optimizer](), accuracy=ACCURACIES[net.accuracy]())
    model.finalize()
    return model


def _layers(net: Net, dtype: Any, dense: dict[str, float]) -> list[Any]:
    rng = np.random.default_rng(0)
    width = net.widths[0]
    rows: list[list[Any]] = [[]]  # of the model, then of each open residual
    for word in net.layers.split(","):
        if word == "(":
            rows.append([])
        elif word == ")":
            rows[-2].append(nnx.Layer_Residual(rows.pop()))
        elif word.endswith(tuple(ENCODINGS)):
            sizes, name = word.split()
            n_inputs, width = map(int, sizes.split("-"))
            rows[-1].append(_encoding(ENCODINGS[name], n_inputs, width, dtype, rng))
        elif word.split()[0] in MEMBERED or " each " in word:
            rows[-1].append(_of_members(word, width, dtype, rng))
            width = getattr(rows[-1][-1], "n_neurons", width)
        elif "-" in word:
            n_inputs, width = map(int, word.split("-"))
            layer = nnx.Layer_Dense(n_inputs, width, dtype=dtype, **dense)
            layer.weights[:] = rng.normal(size=(n_inputs, width)) / np.sqrt(n_inputs)
            layer.biases[:] = 0.1 * rng.normal(size=(1, width))
            rows[-1].append(layer)
        else:
            rows[-1].append(COLUMNWISE[word](width, dtype) if word in COLUMNWISE else ACTIVATIONS[word]())
    return rows[0]


def _of_members(word: str, width: int, dtype: Any, rng: np.random.Generator) -> Any:
    """Return a layer of an ensemble within the network, whose members differ."""
    name, k = word.split()[0], int(word.split()[-1])
    if name in MEMBERED:
        layer = MEMBERED[name](width, k, dtype=dtype)
        layer.weights[:] = rng.normal(size=layer.weights.shape)
    else:
        n_inputs, n_neurons = map(int, name.split("-"))
        layer = nnx.Layer_MemberDense(n_inputs, n_neurons, k, dtype=dtype)
        layer.weights[:] = rng.normal(size=layer.weights.shape) / np.sqrt(n_inputs)
    if name != "members":
        layer.biases[:] = 0.1 * rng.normal(size=layer.biases.shape)
    return layer


def _encoding(kind: Any, n_inputs: int, width: int, dtype: Any, rng: np.random.Generator) -> Any:
    """Return an encoding with this number of output columns. The encoded columns have different numbers of edges."""
    columns = range(0, n_inputs, 2)
    if kind is nnx.Layer_Periodic:
        layer = kind(n_inputs, columns, 5, (width - n_inputs) // len(columns), dtype=dtype)
        layer.weights[:] = 0.5 * rng.normal(size=layer.weights.shape)
        return layer
    if kind is nnx.Layer_Combinations:
        each = [[*range(number % n_inputs, n_inputs, 2)] for number in range(width - n_inputs)]
        return kind(n_inputs, each, [rng.normal(size=len(own)) for own in each], dtype=dtype)
    counts = [len(part) for part in np.array_split(np.arange(width - n_inputs), len(columns))]
    more = kind is nnx.Layer_PiecewiseLinear
    return kind(n_inputs, columns, [np.linspace(-1.5, 1.7, count + more) for count in counts], dtype=dtype)


def data_for(net: Net, n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and targets that the network's loss and accuracy take."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, net.widths[0]))
    n_outputs = net.widths[-1]
    classes = rng.integers(0, n_outputs, n)
    if net.loss == "categorical":
        return X, classes
    if net.accuracy == "classes" and n_outputs > 1:
        return X, (classes[:, None] == np.arange(n_outputs)).astype(float)
    if net.loss == "binary" or net.accuracy == "cells":
        return X, rng.integers(0, 2, (n, n_outputs))
    return X, rng.normal(size=(n, n_outputs))


def train(model: nnx.Model, X: Any, y: Any, **arguments: Any) -> dict[str, Any]:
    """Seed NumPy's global generator and train silently. Return all state after that."""
    np.random.seed(3)
    model.train(X, y, **{"print_every": None, **arguments})
    return left_behind(model)


def left_behind(model: nnx.Model) -> dict[str, Any]:
    """Return every number and array that a training sets, by name: on layers, loss, optimizer, accuracy and history."""
    owners = {f"layers[{i}]": layer for i, layer in enumerate(walk(model.layers))}
    owners |= {name: getattr(model, name) for name in ("loss", "optimizer", "accuracy", "input_layer")}
    if model.softmax_classifier_output is not None:
        owners["softmax_classifier_output"] = model.softmax_classifier_output
    found = {
        f"{name}.{attribute}": value
        for name, owner in owners.items()
        for attribute, value in vars(owner).items()
        if attribute != "_before" and (value is None or isinstance(value, np.ndarray | float | int))
    }
    if model.history is not None:
        found |= {f"history.{name}": np.array(column) for name, column in model.history.to_dict().items()}
    _, numbers, place, *normal = np.random.get_state()
    return {**found, "generator": numbers, "generator's place": (place, *normal)}


def assert_alike(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Compare the state after two trainings, each array within ``tolerance`` of its largest number."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert type(found[name]) is type(value), name
        if not isinstance(value, np.ndarray | float):
            assert found[name] == value, name
            continue
        a, b = np.asarray(found[name]), np.asarray(value)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        largest = np.abs(b[np.isfinite(b)]).max(initial=0)
        # In float32, a few predictions may fall on the other side of the limit for a hit.
        within = 0.1 if "accuracy" in name and tolerance > 1e-6 else tolerance
        np.testing.assert_allclose(a, b, rtol=0, atol=within * largest, err_msg=name)


def bits(left: dict[str, Any]) -> dict[str, Any]:
    """Return the state after a training in a form in which only equal bits are equal."""
    return {name: value.tobytes() if isinstance(value, np.ndarray) else repr(value) for name, value in left.items()}


#: Few inputs, few outputs, few or many neurons between them.
SKINNY = [
    Net("1-1", "squared", "near"),
    Net("1-5,relu,5-1,linear", "squared", "near"),
    Net("1-64,relu,64-64,relu,64-1,linear", "squared", "near"),
    Net("2-64,relu,64-3,softmax"),
    Net("2-64,relu,dropout,64-3,softmax"),
    Net("2-64,relu,64-1,sigmoid", "binary", "cells"),
    Net("2-1,relu,1-2,softmax"),
    Net("3-200,relu,200-4,softmax"),
    Net("3-200,sigmoid,dropout,200-3,sigmoid", "binary", "cells"),
    Net("4-5,relu,dropout,5-4,sigmoid,dropout,4-2", "absolute", "near"),
    Net("4-3,softmax"),
]
#: Shapes that are not multiples of a tile or a vector. One has more columns than row panels take at a time, and more
#: row panels than are computed at a time.
WIDE = [
    Net("17-33,relu,33-5,softmax"),
    Net("17-33,relu,dropout,33-5,softmax"),
    Net("40-70,relu,70-24,relu,24-9,sigmoid", "binary", "cells"),
    Net("7-130,sigmoid,130-300,softmax"),
    Net("24-300,relu,300-31,linear", "squared", "near"),
    Net("64-64,relu,64-64,relu,64-16,softmax"),
    Net("70-1030,relu,1030-20,softmax"),
]
#: Networks that are rare, but possible.
ODD = [
    Net("relu,3-5,relu,5-2,softmax"),
    Net("sigmoid,3-20,relu,20-2,softmax"),
    Net("softmax,6-5,relu,5-3,softmax"),
    Net("linear,3-4,linear", "squared", "near"),
    Net("dropout,3-5,relu,5-2,softmax"),
    Net("dropout,dropout,20-40,dropout,40-2,softmax"),
    Net("3-5,linear,5-4,sigmoid,linear,4-2,softmax"),
    Net("3-8,relu,relu,8-2,softmax"),
    Net("3-8,relu,sigmoid,8-2,softmax"),
    Net("20-40,relu,linear,relu,40-2,softmax"),
    Net("3-7,7-4,softmax"),
    Net("20-33,33-18,18-4,softmax"),
    Net("9-40,relu,40-1,linear", "squared", "near"),
    Net("12-56,relu,56-9,softmax"),
    Net("3-6,softmax,6-3,softmax"),
    Net("3-6,relu,6-3,softmax,softmax"),
    Net("3-6,relu,6-3,dropout,softmax"),
    Net("3-6,relu,6-3,softmax", "squared"),
    Net("3-6,relu,6-3,softmax", "absolute"),
    Net("3-6,relu,6-3,softmax,dropout", "squared"),
    Net("3-6,relu,6-3,sigmoid,dropout", "absolute", "cells"),
    Net("3-6,relu,6-3,sigmoid", "binary", "near"),
    Net("3-6,relu,6-3,softmax", "categorical", "near"),
    Net("3-6,relu,6-3,softmax", "categorical", "cells"),
    Net("3-6,relu,6-3,relu", "squared", "near"),
    Net("3-6,relu,6-3,dropout", "absolute", "near"),
    Net("3-6,relu,6-3,sigmoid", "binary", "classes"),
    Net("3-6,relu,6-3,sigmoid", "squared", "near"),
    Net("3-6,relu,6-1,sigmoid", "binary", "near"),
    Net("3-6,relu,6-3,linear", "squared", "cells"),
    Net("3-6,relu,6-3,linear", "squared", "classes"),
    Net("3-6,relu,6-1,linear", "squared", "cells"),
    Net("3-6,relu,6-1,softmax"),
]
#: With layers that normalize, that scale, that add noise or their inputs.
NORMED = [
    Net("3-8,relu,batch,8-2,softmax"),
    Net("batch,17-33,relu,batch,dropout,33-1", "squared", "near"),
    Net("13-64,relu,batch,64-40,sigmoid,batch,40-5,softmax"),
    Net("noise,5-20,layer,relu,20-18,layer,18-3,sigmoid", "binary", "cells"),
    Net("scale,20-33,scale,relu,noise,33-4,batch,softmax"),
    Net("7-130,relu,layer,130-3,batch,linear", "absolute", "near"),
    Net("6-24,relu,(,24-40,relu,batch,40-24,),relu,24-3,softmax"),
    Net("(,9-9,relu,(,layer,9-5,sigmoid,5-9,),scale,),(,9-9,),9-1", "absolute", "near"),
    Net("4-6,relu,(,relu,),(,dropout,noise,),6-2,(,sigmoid,),softmax"),
    Net("spline,9-33,relu,steps,dropout,33-1", "squared", "near"),
    Net("steps,17-20,sigmoid,spline,(,spline,layer,),20-3,softmax"),
    Net("1-66,spline,relu,66-4,spline,sigmoid", "binary", "cells"),
]
#: With encodings of numbers, which return more columns than they take.
ENCODED = [
    Net("3-24 pieces,24-20,relu,20-2,softmax"),
    Net("scale,5-70 pieces,70-33,relu,dropout,33-4,softmax"),
    Net("batch,4-9 thermometer,9-1", "squared", "near"),
    Net("7-40,relu,40-161 pieces,dropout,161-3,softmax"),
    Net("6-8,sigmoid,(,8-20 thermometer,20-8,),relu,8-37 pieces,batch,37-3,linear,3-2,softmax"),
    Net("1-4,4-9 pieces", "squared", "near"),
    Net("5-14 waves,14-33,relu,33-4,softmax"),
    Net("scale,4-44 waves,44-44,sigmoid,44-1", "squared", "near"),
    Net("6-20,relu,dropout,20-30 waves,batch,30-47 pieces,47-3,sigmoid", "binary", "cells"),
    Net("3-6,(,6-9 waves,9-6,),6-9 waves,9-2,softmax"),
    Net("4-7 combinations,7-33,relu,33-3,softmax"),
    Net("scale,5-9 combinations,9-34 pieces,34-2", "squared", "near"),
    Net("6-8,sigmoid,(,8-20 combinations,20-8,),8-9 combinations,dropout,9-3,softmax"),
]
#: Ensembles within a network.
ENSEMBLES = [
    Net("members 3,5-7,scales 3,relu,7-9,relu,9-2 each 3,softmax"),
    Net("4-20,relu,members 16,scales 16,20-33,dropout,relu,batch,33-1 each 16", "squared", "near"),
    Net("spline,members 5,6-24,(,scales 5,sigmoid,24-24,layer,),24-18 each 5,relu,18-3,sigmoid", "binary", "cells"),
    Net("3-9 pieces,members 1,9-9,scales 1,9-2 each 1,softmax"),
]
NETS = [*SKINNY, *WIDE, *ODD, *NORMED, *ENCODED, *ENSEMBLES]


def drawn(seed: int) -> tuple[Net, int, int | None]:
    """Return a random network, a number of samples and a batch size."""
    rng = np.random.default_rng(seed)
    words, width = [], int(rng.choice([1, 2, 3, 4, 7, 16, 33]))
    kinds = [*ACTIVATIONS, "dropout", "relu,batch", "sigmoid,(,layer,)", "scale", "spline"]
    words += rng.choice(kinds, rng.integers(0, 2)).tolist()
    for _ in range(rng.integers(1, 4)):
        following = int(rng.choice([1, 2, 3, 4, 5, 8, 17, 33, 64, 129]))
        words += [f"{width}-{following}", *rng.choice(kinds, rng.integers(0, 3)).tolist()]
        width = following
    loss = str(rng.choice(list(LOSSES)))
    words += {"categorical": ["softmax"], "binary": ["sigmoid"]}.get(loss, [])
    cells = loss != "categorical" and words[-1] != "softmax"
    net = Net(",".join(words), loss, "cells" if cells else "classes")
    n = int(rng.choice([1, 2, 15, 50, 130, 300]))
    return net, n, (None, 16, 33, 257)[rng.integers(4)]


def run_beside_unreadable_memory(backend: str, precision: str | None = None) -> None:
    """Train, evaluate and predict with every user's array right before, or after, an unreadable page."""
    from test_memory import Region

    _kernels.backend = _kernels.load(backend)
    if precision:
        _kernels.backend._use_plain_units(True)
    for number, net in enumerate(NETS):
        optimizer = list(OPTIMIZERS)[number % 5]
        for dtype in ("float32",) if precision else ("float32", "float64"):
            X, y = data_for(net, 41)
            X, y = X.astype(dtype), y.astype(np.intp if net.loss == "categorical" else dtype)
            arguments = {"epochs": 2, "batch_size": 16, "shuffle": number % 2 == 0, "precision": precision}
            model = build(net, optimizer, dtype=dtype, **PENALTIES)
            expected = bits(train(model, X, y, **arguments)), model.predict(X).tobytes(), figures(model, X, y)
            for at_end in (True, False):
                print(f"{net} {optimizer} {dtype} {'before' if at_end else 'behind'} the page", flush=True)

                def place(array: np.ndarray, at_end: bool = at_end) -> np.ndarray:
                    return Region(array.nbytes).place(array, at_end)

                model = build(net, optimizer, dtype=dtype, **PENALTIES)
                states = model.optimizer._rule("train").states
                for layer in model.trainable_layers:
                    for name in STATISTICS if isinstance(layer, nnx.Layer_BatchNorm) else ():
                        setattr(layer, name, place(getattr(layer, name)))
                    for name, of in zip(layer._parameters, states, strict=False):
                        values = getattr(layer, name)
                        setattr(layer, name, place(values))
                        for state in of:
                            setattr(layer, state, place(np.zeros(values.shape, dtype)))
                X_there, y_there = place(X), place(y)
                found = bits(train(model, X_there, y_there, **arguments))
                assert found == expected[0], "other results than elsewhere"
                assert model.predict(X_there).tobytes() == expected[1]
                out = place(np.zeros((len(X), net.widths[-1]), dtype))
                assert model.predictor()(X_there, out).tobytes() == expected[1]
                if dtype == "float32":
                    model.predictor("bfloat16")(X_there, out)
                assert figures(model, X_there, y_there) == expected[2]


def figures(model: nnx.Model, X: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the results of an evaluation."""
    return model.evaluate(X, y, batch_size=16, silent=True)


if __name__ == "__main__":
    run_beside_unreadable_memory(*sys.argv[1:])
