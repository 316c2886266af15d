"""What `nnx bench` and benchmarks/bench_kernels.py time: kernels, at the shapes at which networks call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnx._base.typing import Array, FloatDType
from nnx._base.vocabulary import BUILT_IN
from nnx.activations import Activation, Activation_Linear, Activation_Softmax
from nnx.losses import Loss_CategoricalCrossentropy
from nnx.optimizers import Optimizer_Adam, Optimizer_SGD

#: Samples, inputs and neurons of dense layers: the spiral's two, two of an image classifier, a wide one.
DENSE = ((300, 2, 64), (300, 64, 3), (128, 784, 128), (128, 128, 128), (256, 1024, 1024))

#: Units in the last place of the largest result by which two backends may differ; sums of 1,024 products do by 11.
TOLERANCE = 32


class Source:
    """Makes the arrays of one call, the same at every call."""

    def __init__(self, dtype: FloatDType) -> None:
        self._dtype = dtype
        self._rng = np.random.default_rng(0)

    def normal(self, *shape: int) -> Array:
        """Return normally distributed numbers."""
        return self._rng.standard_normal(shape, self._dtype)

    def squares(self, *shape: int) -> Array:
        """Return numbers of at least 0."""
        return np.square(self.normal(*shape))

    def probabilities(self, *shape: int) -> Array:
        """Return numbers between 0 and 1, clear of both."""
        return self._rng.uniform(0.05, 0.95, shape).astype(self._dtype)

    def bits(self, *shape: int) -> Array:
        """Return zeros and ones."""
        return self._rng.integers(0, 2, shape).astype(self._dtype)

    def labels(self, n: int, n_classes: int) -> Array:
        """Return class numbers."""
        return self._rng.integers(0, n_classes, n, np.intp)

    def blank(self, *shape: int) -> Array:
        """Return an array to write into; NaN, so that a cell that a kernel forgets is seen."""
        return np.full(shape, np.nan, self._dtype)


@dataclass(frozen=True)
class Case:
    """A kernel at a shape; ``outputs`` are the positions of the arguments that it writes.

    A kernel that is called by name has that name as its first argument, and ``function`` says which function that is:
    of the kernel ``relu_forward``, ``activation_forward``.
    """

    kernel: str
    shape: str
    make: Callable[[Source], tuple[Any, ...]]
    outputs: tuple[int, ...] = ()
    function: str = ""

    def __str__(self) -> str:
        return f"{self.kernel} {self.shape}"

    def arguments(self, dtype: FloatDType) -> tuple[Any, ...]:
        """Return fresh arguments, always with the same numbers."""
        return self.make(Source(dtype))

    def results(self, backend: Any, dtype: FloatDType) -> list[Array]:
        """Return all that a backend's kernel makes of fresh arguments: what it returns, what it writes."""
        arguments = self.arguments(dtype)
        returned = getattr(backend, self.function or self.kernel)(*arguments)
        written = [array for i in self.outputs for array in _arrays(arguments[i])]
        return written if returned is None else [np.asarray(returned), *written]

    def check(self, backend: Any, specification: Any, dtype: FloatDType) -> None:
        """Raise AssertionError, with the case in its first line, unless both give the same results but for rounding.

        A sum of products may come out near 0 with the rounding errors of its large terms, hence a tolerance in
        proportion to the largest result too: TOLERANCE units in the last place.
        """
        unit = float(np.finfo(dtype).eps)
        for actual, expected in zip(self.results(backend, dtype), self.results(specification, dtype), strict=True):
            slack = TOLERANCE * unit * float(np.max(np.absolute(expected)))
            try:
                np.testing.assert_allclose(actual, expected, rtol=64 * unit, atol=slack, equal_nan=False)
            except AssertionError as error:
                raise AssertionError(f"{self}\n{error}") from None


def _arrays(argument: Any) -> tuple[Array, ...]:
    """Return the arrays of an argument, which is one or several."""
    return argument if isinstance(argument, tuple) else (argument,)


def _dense(n: int, k: int, m: int) -> Iterator[Case]:
    shape = f"{n}x{k}->{m}"
    yield Case("dense_forward", shape, lambda a: (a.normal(n, k), a.normal(k, m), a.normal(1, m), a.blank(n, m)), (3,))
    yield Case(
        "dense_relu_forward", shape, lambda a: (a.normal(n, k), a.normal(k, m), a.normal(1, m), a.blank(n, m)), (3,)
    )
    yield Case(
        "dense_backward_weights",
        shape,
        lambda a: (a.normal(n, k), a.normal(n, m), a.normal(k, m), a.blank(k, m), 0.0, 0.0),
        (3,),
    )
    yield Case("dense_backward_inputs", shape, lambda a: (a.normal(n, m), a.normal(k, m), a.blank(n, k)), (2,))
    yield Case(
        "dense_backward_biases", shape, lambda a: (a.normal(n, m), a.normal(1, m), a.blank(1, m), 0.0, 0.0), (2,)
    )


def _activations(n: int, m: int) -> Iterator[Case]:
    """Yield both directions of every activation, with the settings of an object made without arguments."""
    for kind in BUILT_IN["layer"]:
        if issubclass(kind, Activation) and kind is not Activation_Linear:  # which computes nothing
            yield from _activation(kind(), n, m)


def _activation(activation: Any, n: int, m: int) -> Iterator[Case]:
    name, settings, shape = activation._kernel, activation._settings(), f"{n}x{m}"
    from_output = activation._backward_from == "output"  # which is one of all that there are
    yield Case(
        f"{name}_forward",
        shape,
        lambda a: (name, a.normal(n, m), a.blank(n, m), settings),
        (2,),
        "activation_forward",
    )
    yield Case(
        f"{name}_backward",
        shape,
        lambda a: (
            name,
            a.probabilities(n, m) if from_output else a.normal(n, m),
            a.normal(n, m),
            a.blank(n, m),
            settings,
        ),
        (3,),
        "activation_backward",
    )


def _prelu(n: int, m: int) -> Iterator[Case]:
    shape = f"{n}x{m}"
    for k in (1, m):  # one slope for all, or one a column

        def numbers(a: Source, k: int = k) -> tuple[Array, Array, Array]:
            return a.normal(n, m), a.normal(n, m), a.probabilities(1, k)

        def forward(a: Source, numbers: Any = numbers) -> tuple[Array, ...]:
            inputs, _, weights = numbers(a)
            return inputs, weights, a.blank(n, m)

        def weights(a: Source, numbers: Any = numbers, k: int = k) -> tuple[Array, ...]:
            return (*numbers(a)[:2], a.blank(1, k))

        def inputs(a: Source, numbers: Any = numbers) -> tuple[Array, ...]:
            return (*numbers(a), a.blank(n, m))

        name = "prelu" if k > 1 else "prelu-1"
        yield Case(f"{name}_forward", shape, forward, (2,), "prelu_forward")
        yield Case(f"{name}_backward_weights", shape, weights, (2,), "prelu_backward_weights")
        yield Case(f"{name}_backward_inputs", shape, inputs, (3,), "prelu_backward_inputs")


def _softmax_crossentropy(n: int, m: int) -> Case:
    return Case(
        "softmax_crossentropy",
        f"{n}x{m}",
        lambda a: (a.normal(n, m), a.labels(n, m), a.blank(n, m), a.blank(n, m)),
        (2, 3),
    )


def _losses(n: int, m: int) -> Iterator[Case]:
    """Yield losses and gradients of every loss, with the settings of an object made without arguments."""
    for kind in BUILT_IN["loss"]:
        yield from _loss(kind(), n, m)


def _loss(loss: Any, n: int, m: int) -> Iterator[Case]:
    name, settings, shape = loss._kernel, loss._settings("nnx bench", m), f"{n}x{m}"

    def numbers(a: Source) -> tuple[Any, ...]:
        if isinstance(loss, Loss_CategoricalCrossentropy):
            return name, a.probabilities(n, m), a.labels(n, m)
        if loss._needs_pair:
            return name, a.probabilities(n, m), a.bits(n, m)
        return name, a.normal(n, m), a.squares(n, m)

    yield Case(f"{name}_forward", shape, lambda a: (*numbers(a), a.blank(n), *settings), (3,), "loss_forward")
    yield Case(f"{name}_backward", shape, lambda a: (*numbers(a), a.blank(n, m), *settings), (3,), "loss_backward")
    if loss._pair is not None:
        pair = f"{loss._pair._kernel}_{name.removesuffix('_crossentropy')}_backward"
        yield Case(pair, shape, lambda a: (*numbers(a), a.blank(n, m), *settings), (3,), "pair_backward")


def _dropout(n: int, m: int) -> Iterator[Case]:
    shape = f"{n}x{m}"
    yield Case("dropout_mask", shape, lambda a: (a.blank(n, m), 0.9, 0x9E3779B97F4A7C15, 3), (0,))
    yield Case("dropout_apply", shape, lambda a: (a.normal(n, m), a.bits(n, m), a.blank(n, m)), (2,))


def _update(optimizer: Any, n: int, m: int) -> Case:
    """Return an optimizer's update of a parameter in its tenth step; it may be repeated, and no value runs away."""
    name, names, settings, _ = optimizer._formula("nnx bench")

    def make(a: Source) -> tuple[Any, ...]:
        states = tuple(a.squares(n, m) for _ in names)
        return name, a.normal(n, m), a.normal(n, m), states, 0.001, 10.0, settings

    return Case(f"{name}_update", f"{n}x{m}", make, (1, 3), "optimizer_update")


def _cases() -> Iterator[Case]:
    for n, k, m in DENSE:
        yield from _dense(n, k, m)
    yield from _activation(Activation_Softmax(), 300, 3)
    yield _softmax_crossentropy(300, 3)
    yield _softmax_crossentropy(128, 10)
    yield from _activations(128, 128)
    yield from _prelu(128, 128)
    yield from _losses(1000, 3)
    yield from _dropout(300, 64)
    yield from _dropout(3000, 512)
    yield Case("regularization_loss", "784x128", lambda a: (a.normal(784, 128), 5e-4, 5e-4))
    for n, m in ((2, 64), (1000, 1000)):
        yield _update(Optimizer_Adam(), n, m)
    for kind in BUILT_IN["optimizer"]:
        yield _update(kind(), 784, 128)
    for nesterov in (False, True):
        yield _update(Optimizer_SGD(momentum=0.9, nesterov=nesterov), 784, 128)
    yield Case("argmax", "300x3", lambda a: (a.normal(300, 3), np.full(300, -1, np.intp)), (1,))


CASES = tuple(_cases())
