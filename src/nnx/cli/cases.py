"""What `nnx bench` and benchmarks/bench_kernels.py time: kernels, at the shapes at which networks call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnx._base.typing import Array, FloatDType

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
    """A kernel at a shape; ``outputs`` are the positions of the arguments that it writes."""

    kernel: str
    shape: str
    make: Callable[[Source], tuple[Any, ...]]
    outputs: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.kernel} {self.shape}"

    def arguments(self, dtype: FloatDType) -> tuple[Any, ...]:
        """Return fresh arguments, always with the same numbers."""
        return self.make(Source(dtype))

    def results(self, backend: Any, dtype: FloatDType) -> list[Array]:
        """Return all that a backend's kernel makes of fresh arguments: what it returns, what it writes."""
        arguments = self.arguments(dtype)
        returned = getattr(backend, self.kernel)(*arguments)
        written = [arguments[i] for i in self.outputs]
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


def _softmax(n: int, m: int) -> Iterator[Case]:
    shape = f"{n}x{m}"
    yield Case("softmax_forward", shape, lambda a: (a.normal(n, m), a.blank(n, m)), (1,))
    yield Case(
        "softmax_crossentropy",
        shape,
        lambda a: (a.normal(n, m), a.labels(n, m), a.blank(n, m), a.blank(n, m)),
        (2, 3),
    )


def _activations(n: int, m: int) -> Iterator[Case]:
    shape = f"{n}x{m}"
    yield Case("relu_forward", shape, lambda a: (a.normal(n, m), a.blank(n, m)), (1,))
    yield Case("relu_backward", shape, lambda a: (a.normal(n, m), a.normal(n, m), a.blank(n, m)), (2,))
    yield Case("sigmoid_forward", shape, lambda a: (a.normal(n, m), a.blank(n, m)), (1,))
    yield Case("sigmoid_backward", shape, lambda a: (a.probabilities(n, m), a.normal(n, m), a.blank(n, m)), (2,))


def _losses(n: int, m: int) -> Iterator[Case]:
    shape = f"{n}x{m}"
    for name in ("mean_squared_error", "mean_absolute_error"):
        yield Case(f"{name}_forward", shape, lambda a: (a.normal(n, m), a.normal(n, m), a.blank(n)), (2,))
        yield Case(f"{name}_backward", shape, lambda a: (a.normal(n, m), a.normal(n, m), a.blank(n, m)), (2,))
    name = "binary_crossentropy"
    yield Case(f"{name}_forward", shape, lambda a: (a.probabilities(n, m), a.bits(n, m), a.blank(n)), (2,))
    yield Case(f"{name}_backward", shape, lambda a: (a.probabilities(n, m), a.bits(n, m), a.blank(n, m)), (2,))


def _dropout(n: int, m: int) -> Iterator[Case]:
    shape = f"{n}x{m}"
    yield Case("dropout_mask", shape, lambda a: (a.blank(n, m), 0.9, 0x9E3779B97F4A7C15, 3), (0,))
    yield Case("dropout_apply", shape, lambda a: (a.normal(n, m), a.bits(n, m), a.blank(n, m)), (2,))


def _update(kernel: str, n: int, m: int, *hyperparameters: float, states: int = 0) -> Case:
    """Return an optimizer's update, with as many arrays of state; it may be repeated, and no value runs away."""
    return Case(
        kernel,
        f"{n}x{m}",
        lambda a: (a.normal(n, m), a.normal(n, m), *[a.squares(n, m) for _ in range(states)], *hyperparameters),
        (0, *range(2, 2 + states)),
    )


def _cases() -> Iterator[Case]:
    for n, k, m in DENSE:
        yield from _dense(n, k, m)
    yield from _softmax(300, 3)
    yield from _softmax(128, 10)
    yield from _activations(128, 128)
    yield from _losses(1000, 1)
    yield from _dropout(300, 64)
    yield from _dropout(3000, 512)
    yield Case("regularization_loss", "784x128", lambda a: (a.normal(784, 128), 5e-4, 5e-4))
    for n, m in ((2, 64), (784, 128), (1000, 1000)):
        yield _update("adam_update", n, m, 0.001, 1e-7, 0.9, 0.999, 10, states=2)
    yield _update("sgd_update", 784, 128, 0.001)
    yield _update("sgd_momentum_update", 784, 128, 0.001, 0.9, states=1)
    yield _update("adagrad_update", 784, 128, 0.001, 1e-7, states=1)
    yield _update("rmsprop_update", 784, 128, 0.001, 1e-7, 0.9, states=1)
    yield Case("argmax", "300x3", lambda a: (a.normal(300, 3), np.full(300, -1, np.intp)), (1,))


CASES = tuple(_cases())
