"""Arrays from anywhere: what layers, losses, optimizers and models make of everything that NumPy can hold.

As a script it tries cases in a process of its own; a case's number and the seed make it again:

    python trust/arrays.py --cases 1000 --seed 1
"""

from __future__ import annotations

import array
import copy
import random
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from worker import Examiner, run

import nnx
from nnx._base.vocabulary import BUILT_IN

SENTENCE = re.compile(r"[A-Z]\w*(\.\w+)?( \([^)]*\))?: .+[.)]", re.DOTALL)
N, WIDTH, CLASSES = 6, 3, 2

# The same numbers in another guise

DTYPES = (
    *("f2", "f4", "f8", "g", "?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"),
    *(">f2", ">f4", ">f8", ">i2", ">i4", ">i8", ">u2", ">u4", ">u8", "c8", "c16", "O", "S4", "U4", "M8[s]", "m8[s]"),
    "V8",
)


class Plain(np.ndarray):
    """A subclass, such as users and libraries make them."""


class Arraylike:
    """An object that NumPy can read, and that is none of its own."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self.values, dtype)

    def __len__(self) -> int:
        return len(self.values)


def strided(a: np.ndarray, rng: random.Random) -> np.ndarray:
    """Return a view that is equal, with other strides."""
    room = np.zeros([2 * size + 1 for size in a.shape], a.dtype)
    view = room[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def backwards(a: np.ndarray, rng: random.Random) -> np.ndarray:
    return np.ascontiguousarray(a[::-1])[::-1] if a.ndim else a


def transposed(a: np.ndarray, rng: random.Random) -> np.ndarray:
    return np.asfortranarray(a)


def read_only(a: np.ndarray, rng: random.Random) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a: np.ndarray, rng: random.Random) -> np.ndarray:
    room = np.zeros(a.nbytes + 1, np.uint8)[1:]
    view = room.view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def mapped(a: np.ndarray, rng: random.Random) -> np.ndarray:
    if a.size == 0 or a.dtype.hasobject:
        return a
    with tempfile.TemporaryFile() as file:
        file.write(a.tobytes())
        file.flush()
        return np.memmap(file, a.dtype, "r+", 0, a.shape)


def broadcast(a: np.ndarray, rng: random.Random) -> np.ndarray:
    return np.broadcast_to(a[:1], a.shape) if a.ndim and len(a) else a


def masked(a: np.ndarray, rng: random.Random) -> np.ndarray:
    hidden = np.zeros(a.shape, bool)
    if a.size and rng.random() < 0.5:
        hidden.flat[rng.randrange(a.size)] = True
    return np.ma.masked_array(a, hidden)


def framed(a: np.ndarray, rng: random.Random) -> Any:
    import pandas

    if a.ndim == 1:
        return pandas.Series(a, index=range(5, 5 + len(a)))
    return pandas.DataFrame(a) if a.ndim == 2 else a


GUISES: tuple[Callable[[np.ndarray, random.Random], Any], ...] = (
    *(strided, backwards, transposed, read_only, unaligned, mapped, broadcast, masked, framed),
    lambda a, rng: a,
    lambda a, rng: a.tolist(),
    lambda a, rng: tuple(a.tolist()) if a.ndim else a,
    lambda a, rng: list(a) if a.ndim else a,
    lambda a, rng: a.view(Plain),
    lambda a, rng: np.asmatrix(a) if a.ndim == 2 else a,
    lambda a, rng: Arraylike(a),
    lambda a, rng: memoryview(a) if a.dtype.kind in "fiu" and a.dtype.isnative and a.dtype.char != "e" else a,
    lambda a, rng: array.array("d", a.tolist()) if a.ndim == 1 and a.dtype.kind in "fiu" else a,
    lambda a, rng: a.astype(object),
)

# Other numbers, and other shapes


def spoil(a: np.ndarray, rng: random.Random) -> Any:
    """Return an array, or no array at all, that is not what it should be."""
    change = rng.randrange(14)
    if change < 3:
        a = a.astype(rng.choice(("f8", a.dtype)))
        if a.size:
            values = (np.nan, np.inf, -np.inf, 1e300, -1, 0.5, 7, 2**31, 2**40, -(2**40), 1e-320)
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                a.flat[rng.randrange(a.size)] = np.float64(rng.choice(values)).astype(a.dtype)
        return a
    if change == 3:
        return a[: rng.randrange(len(a) + 1)] if a.ndim else a
    if change == 4:
        return np.concatenate([a, a]) if a.ndim else a
    if change == 5:
        return a[..., None]
    if change == 6:
        return a.reshape(-1)
    if change == 7:
        return a[None]
    if change == 8:
        return a[..., :0] if a.ndim else a
    if change == 9:
        return np.zeros(rng.choice(((), (0,), (0, WIDTH), (N, 0), (1, 1, 1, 1), (N, WIDTH + 1))), a.dtype)
    if change == 10:
        return np.broadcast_to(a.reshape(-1)[:1], (N, *rng.choice(((), (1,), (WIDTH,), (CLASSES,))))) if a.size else a
    return rng.choice(
        (None, 0, 1.5, True, "text", b"bytes", [], [[]], [[1, 2], [3]], {}, {"a": 1}, object(), range(N), float)
    )


def presented(a: np.ndarray, rng: random.Random) -> tuple[Any, bool]:
    """Return something in place of an array, and whether it has to be accepted."""
    if rng.random() < 0.4:
        return spoil(a, rng), False
    dtype = np.dtype(rng.choice(DTYPES))
    must = dtype.kind in "biuf" and a.dtype.kind == "f"
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            a = a.astype(dtype)
        guise = rng.choice(GUISES)
        found = guise(a, rng)
    except (BufferError, IndexError, NotImplementedError, TypeError, ValueError):
        return a, False
    kinds = np.asarray(found).dtype.kind if not isinstance(found, np.ma.MaskedArray) else "?"
    return found, must and kinds in "biuf" and guise is not masked


# What they are given to


class Target(NamedTuple):
    """Something that takes arrays: an object, made anew each time, a call on it, and the arrays it should get."""

    name: str
    make: Callable[[], Any]
    call: Callable[..., Any]
    arguments: dict[str, np.ndarray]


def numbers(*shape: int) -> np.ndarray:
    """Return numbers that even float16 holds, the same at every call."""
    return np.random.RandomState(sum(shape)).randint(-16, 17, shape) / 8.0


LABELS = np.arange(N) % CLASSES
ONE_HOT = np.eye(CLASSES)[LABELS]
PROBABILITIES = np.tile([0.25, 0.75], (N, 1))


def classifier(dtype: str = "float32") -> nnx.Model:
    layers = (nnx.Layer_Dense(WIDTH, 5, dtype=dtype), nnx.Activation_ReLU(), nnx.Layer_Dropout(0.1, seed=1))
    return finished((*layers, nnx.Layer_Dense(5, CLASSES, dtype=dtype), nnx.Activation_Softmax()), "categorical")


def cells() -> nnx.Model:
    return finished((nnx.Layer_Dense(WIDTH, 2, weight_regularizer_l2=0.1), nnx.Activation_Sigmoid()), "binary")


def regression() -> nnx.Model:
    layers = (nnx.Layer_Dense(WIDTH, 17, dtype="float64"), nnx.Activation_Sigmoid())
    return finished((*layers, nnx.Layer_Dense(17, 2, dtype="float64"), nnx.Activation_Linear()), "squared")


def finished(layers: tuple[Any, ...], loss: str) -> nnx.Model:
    model = nnx.Model()
    for layer in layers:
        if hasattr(layer, "weights"):
            layer.weights[...] = numbers(*layer.weights.shape)
        model.add(layer)
    parts = {
        "categorical": (nnx.Loss_CategoricalCrossentropy(), nnx.Optimizer_Adam(), nnx.Accuracy_Categorical()),
        "binary": (nnx.Loss_BinaryCrossentropy(), nnx.Optimizer_RMSprop(), nnx.Accuracy_Categorical(binary=True)),
        "squared": (nnx.Loss_MeanSquaredError(), nnx.Optimizer_SGD(momentum=0.5), nnx.Accuracy_Regression()),
    }[loss]
    model.set(loss=parts[0], optimizer=parts[1], accuracy=parts[2])
    model.finalize()
    model.train(numbers(4, WIDTH), {"categorical": [0, 1, 0, 1]}.get(loss, np.zeros((4, 2))), print_every=None)
    return model


def train(model: nnx.Model, X: Any, y: Any) -> Any:
    return model.train(X, y, epochs=2, batch_size=4, print_every=None, threads=1).to_dict()


def of_models() -> list[Target]:
    X = numbers(N, WIDTH)
    found = []
    for make, targets in ((classifier, (LABELS, ONE_HOT)), (cells, (ONE_HOT,)), (regression, (numbers(N, 2),))):
        for y in targets:
            found.append(Target("Model.train", make, train, {"X": X, "y": y}))
            found.append(
                Target("Model.evaluate", make, lambda m, X, y: m.evaluate(X, y, silent=True), {"X": X, "y": y})
            )
        found.append(Target("Model.predict", make, lambda m, X: m.predict(X), {"X": X}))
        found.append(
            Target(
                "Model.set_parameters",
                make,
                lambda m, w, b: m.layers[0].set_parameters(w, b),
                dict(zip("wb", map(np.float64, make().layers[0].get_parameters()), strict=True)),
            )
        )
    return found


def there_and_back(layer: Any, inputs: Any, dvalues: Any) -> Any:
    layer.forward(inputs, training=True)
    layer.backward(dvalues)
    return layer.output, layer.dinputs


def of_layers() -> list[Target]:
    X, D = numbers(N, WIDTH), numbers(N, WIDTH + 1)[:, :WIDTH]
    makers = (
        *(kind for kind in BUILT_IN["layer"] if hasattr(kind, "_backward_from")),  # the activations
        nnx.Activation_PReLU,
        lambda: nnx.Layer_Dropout(0.25, seed=3),
        lambda: nnx.Layer_GaussianNoise(0.25, seed=3),
        lambda: nnx.Layer_BatchNorm(WIDTH, momentum=1),  # which forward and backward leave as it is
        *(partial(kind, WIDTH) for kind in (nnx.Layer_LayerNorm, nnx.Layer_Scale)),
        lambda: nnx.Layer_Residual([nnx.Layer_Scale(WIDTH)]),
        lambda: classifier().layers[0],
        lambda: regression().layers[0],
    )
    found = []
    for make in makers:
        width = getattr(make(), "n_neurons", WIDTH)
        dvalues = D if width == WIDTH else numbers(N, width)
        found.append(Target("a layer", make, there_and_back, {"inputs": X, "dvalues": dvalues}))
    return found


def of_losses() -> list[Target]:
    def both(loss: Any, output: Any, y: Any) -> Any:
        found = loss.calculate(output, y)
        loss.backward(output, y)
        return found, loss.dinputs

    found = [
        Target("a loss", nnx.Loss_CategoricalCrossentropy, both, {"output": PROBABILITIES, "y": y})
        for y in (LABELS, ONE_HOT)
    ]
    others = [kind for kind in BUILT_IN["loss"] if kind not in (nnx.Loss_CategoricalCrossentropy, nnx.Loss_Pinball)]
    for make in (*others, lambda: nnx.Loss_Pinball([0.2, 0.8])):
        found.append(Target("a loss", make, both, {"output": PROBABILITIES, "y": ONE_HOT}))
    for make, output, y in (
        (nnx.Accuracy_Categorical, LABELS, LABELS),
        (nnx.Accuracy_Categorical, PROBABILITIES, ONE_HOT),
        (nnx.Accuracy_Regression, PROBABILITIES, ONE_HOT),
    ):
        found.append(
            Target("an accuracy", make, lambda a, output, y: a.calculate(output, y), {"output": output, "y": y})
        )
    return found


#: Attributes that users assign, by the model's layer that has them.
TAMPERED = (
    *((0, name) for name in ("weights", "biases", "weight_momentums", "bias_momentums", "weight_cache", "bias_cache")),
    *(
        (0, name)
        for name in ("inputs", "dweights", "dbiases", "n_inputs", "n_neurons", "dtype", "weight_regularizer_l2")
    ),
    *((2, name) for name in ("rate", "seed", "training_forwards", "binary_mask", "inputs")),
    *((None, name) for name in ("learning_rate", "decay", "iterations", "current_learning_rate", "beta_1", "epsilon")),
)


def of_attributes(rng: random.Random) -> Target:
    """Return a model one of whose attributes is what it is given."""
    number, name = rng.choice(TAMPERED)

    def owner_of(model: nnx.Model) -> Any:
        return model.optimizer if number is None else model.layers[number]

    def use(model: nnx.Model, value: Any) -> Any:
        setattr(owner_of(model), name, value)
        X = numbers(N, WIDTH).astype("f4")
        found = rng_call(model, X)
        return None if found is None else np.asarray(found).shape

    calls = (
        lambda model, X: model.predict(X),
        lambda model, X: train(model, X, LABELS)["loss"],
        lambda model, X: model.layers[0].forward(X),
        lambda model, X: model.optimizer.update_params(model.layers[0]),
        lambda model, X: model.evaluate(X, LABELS, silent=True)["loss"],
        lambda model, X: model.loss.regularization_loss(),
    )
    rng_call = rng.choice(calls)
    value = getattr(owner_of(classifier()), name, 0.5)
    return Target(
        f"the attribute {name}", classifier, use, {"value": np.asarray(value if np.ndim(value) else 0.5, float)}
    )


# Trying


def state(thing: Any) -> dict[str, bytes]:
    """Return every number and array that an object, and what it consists of, has."""
    things = {"": thing}
    if isinstance(thing, nnx.Model):
        things = {f"layers[{i}].": layer for i, layer in enumerate(thing.layers)}
        things |= {f"{name}.": getattr(thing, name) for name in ("loss", "optimizer", "accuracy")}
    return {
        f"{prefix}{name}": value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
        for prefix, owner in things.items()
        for name, value in vars(owner).items()
        if isinstance(value, np.ndarray | int | float | None | str) and name not in PASSING
    }


#: What a forward that was refused half-way may leave: a layer keeps what its last forward got and gave.
PASSING = ("inputs", "output", "dinputs", "_passed_through", "accumulated_sum", "accumulated_count", "binary_mask")


class Arrays(Examiner):
    """Gives arrays in disguise to everything that takes arrays."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.targets = [*of_models(), *of_layers(), *of_losses()]
        self.found: Counter[str] = Counter()

    def judge(self, number: int) -> str | None:
        """Try a case; return what is wrong with what came of it."""
        rng = random.Random(f"{self.seed} {number}")
        tampers = rng.random() < 0.25
        target = of_attributes(rng) if tampers else rng.choice(self.targets)
        name = rng.choice(list(target.arguments))
        given, must = presented(target.arguments[name], rng)
        where = f"{target.name}, {name} = {type(given).__name__} {getattr(given, 'dtype', '')}"
        thing = target.make()
        before = state(thing)
        try:
            result = self._call(target, thing, {**target.arguments, name: given})
        except (TypeError, ValueError, RuntimeError) as error:
            self.found["refused"] += 1
            if not SENTENCE.fullmatch(str(error)):
                return f"{where}: {type(error).__name__}: {error}"
            if must and not tampers and "read-only" not in str(error):  # what is to be trained in place
                return f"{where}: refused: {error}"
            changed = [] if tampers else [key for key, value in state(thing).items() if before.get(key, value) != value]
            return f"{where}: refused, but {changed} changed" if changed else None
        except BaseException as error:
            return f"{where}: {type(error).__name__}: {error}"
        self.found["accepted"] += 1
        if tampers:
            return None
        try:
            plain = np.array(given, order="C")
            plain = plain.astype(plain.dtype.newbyteorder("="))
            if not isinstance(given, np.ndarray) and plain.dtype.kind == "f" and target.name.startswith("a"):
                plain = plain.astype("f4")  # what is no array becomes one of the default dtype
            twin = target.make()
            expected = self._call(target, twin, {**target.arguments, name: plain})
        except Exception as error:
            return f"{where}: accepted, but a plain copy is refused: {error}"
        if repr(flat(result)) != repr(flat(expected)) or state(twin) != state(thing):
            return f"{where}: another result than with a plain copy"
        return None

    def _call(self, target: Target, thing: Any, arguments: dict[str, Any]) -> Any:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return target.call(thing, *arguments.values())
            except nnx.DivergenceError:
                return "diverged"


def flat(value: Any) -> Any:
    """Return a result as something whose text tells all bits."""
    if isinstance(value, np.ndarray | np.generic):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, tuple | list):
        return [flat(each) for each in value]
    if isinstance(value, dict):
        return {key: flat(each) for key, each in value.items()}
    return copy.copy(value)


if __name__ == "__main__":
    sys.exit(run(Arrays))
