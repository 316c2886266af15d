"""Initial weights and biases of a dense layer, by name: ``Layer_Dense(2, 3, weight_initializer="he_normal")``.

As in the book, every number comes from NumPy's global generator, so ``np.random.seed`` makes a script repeat itself.
Numbers are drawn in double precision and then cast to the layer's dtype. Weights are drawn before biases.

fan_in is ``n_inputs``, fan_out ``n_neurons``, for the weights and for the biases of a layer.

==============================  ==================================================================================
name                            what is drawn
==============================  ==================================================================================
book                            0.01 · N(0, 1); biases are 0
lecun_normal, lecun_uniform     variance 1 / fan_in
glorot_normal, glorot_uniform   variance 2 / (fan_in + fan_out)
he_normal, he_uniform           variance 2 / fan_in
orthogonal                      matrices with orthonormal rows or columns, whichever are fewer, all equally likely
zeros, ones                     nothing: all are 0, or 1
==============================  ==================================================================================

Sources: LeCun, Bottou, Orr and Müller, "Efficient BackProp", 1998; Glorot and Bengio, "Understanding the difficulty of
training deep feedforward neural networks", 2010; He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015; Saxe,
McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks", 2014.

A uniform distribution of variance v reaches from −√(3v) to √(3v). The normal distributions are not truncated. Those of
Keras are truncated at two standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from nnx._base import check
from nnx._base.text import abridged, near
from nnx._base.typing import Array, ArrayLike, DTypeLike

#: A name, one number for all parameters, or a function of the shape. None stands for the default.
Initializer: TypeAlias = str | float | Callable[[tuple[int, int]], ArrayLike] | None

#: Variances by the beginning of the name.
VARIANCES: dict[str, Callable[[int, int], float]] = {
    "lecun": lambda fan_in, fan_out: 1 / fan_in,
    "glorot": lambda fan_in, fan_out: 2 / (fan_in + fan_out),
    "he": lambda fan_in, fan_out: 2 / fan_in,
}

NAMES = (
    "book",
    *(f"{kind}_{distribution}" for kind in VARIANCES for distribution in ("normal", "uniform")),
    "orthogonal",
    "zeros",
    "ones",
)


def kept(where: str, name: str, initializer: Any) -> str | float | None:
    """Return an initializer as a layer keeps it: a name or a number; None for a function.

    Raises
    ------
    TypeError, ValueError
        For anything else.
    """
    if initializer is None or isinstance(initializer, str):
        if initializer is None or initializer in NAMES:
            return initializer
        names = ", ".join(map(repr, NAMES))
        raise ValueError(
            f"{where}: {name} must be one of {names}, got {abridged(initializer)}.{near(NAMES, initializer)}"
        )
    if callable(initializer):
        return None
    try:
        return check.number(where, name, initializer)  # type: ignore[no-any-return]
    except TypeError:
        raise TypeError(
            f"{where}: {name} must be a name, a number or a function, got {abridged(initializer)}."
        ) from None


def parameters(
    where: str,
    n_inputs: int,
    n_neurons: int,
    dtype: DTypeLike,
    weight_initializer: Any,
    bias_initializer: Any,
    generator: Any = None,
) -> tuple[Array, Array]:
    """Return initial weights (n_inputs, n_neurons) and biases (1, n_neurons) by initializers that `kept` knows.

    Names draw from the ``generator``, a RandomState; by default from NumPy's global one.
    """
    fans = int(n_inputs), int(n_neurons)
    if bias_initializer is None or bias_initializer == "book":
        bias_initializer = "zeros"
    return (
        initial_weights(where, fans, dtype, weight_initializer, generator),
        _initial(where, "bias_initializer", bias_initializer, (1, fans[1]), fans, dtype, generator),
    )


def initial_weights(
    where: str, shape: tuple[int, int], dtype: DTypeLike, initializer: Any, generator: Any = None
) -> Array:
    """Return initial weights by an initializer that `kept` knows: fan_in is the number of rows, fan_out of columns."""
    initializer = "book" if initializer is None else initializer
    return _initial(where, "weight_initializer", initializer, shape, shape, dtype, generator)


def _initial(
    where: str,
    name: str,
    initializer: Any,
    shape: tuple[int, int],
    fans: tuple[int, int],
    dtype: DTypeLike,
    generator: Any,
) -> Array:
    """Return a new C-ordered array of the shape and dtype."""
    if isinstance(initializer, str):
        source = np.random if generator is None else generator  # looked up here: NumPy loads it at its first use
        return np.array(_drawn(initializer, shape, fans, source), dtype, order="C")
    if callable(initializer):
        values = check.plain(where, f"what {name} returns", initializer(shape))
        if values.shape != shape:
            raise ValueError(f"{where}: {name} must return an array of shape {shape}, got {values.shape}.")
    else:
        values = np.full(shape, float(initializer), np.float64)
    with np.errstate(over="ignore"):
        result = np.array(values, dtype, order="C")
    finite = np.isfinite(result)
    if not finite.all():
        gives = "return" if callable(initializer) else "be"
        kind = "finite numbers" if callable(initializer) else "a finite number"
        got = values[~finite][0]
        raise ValueError(f"{where}: {name} must {gives} {kind} of {result.dtype}, got {got}.")
    return result


def _drawn(name: str, shape: tuple[int, int], fans: tuple[int, int], generator: Any) -> Array:
    """Return what a name stands for, drawn in double precision."""
    if name == "book":
        drawn: Array = 0.01 * generator.randn(*shape)
        return drawn
    if name == "orthogonal":
        return _orthogonal(*shape, generator)
    if name in ("zeros", "ones"):
        return np.full(shape, float(name == "ones"), np.float64)
    kind, _, distribution = name.partition("_")
    variance = VARIANCES[kind](*fans)
    if distribution == "normal":
        drawn = generator.randn(*shape) * math.sqrt(variance)
    else:
        bound = math.sqrt(3 * variance)
        drawn = generator.uniform(-bound, bound, shape)
    return drawn


def _orthogonal(rows: int, columns: int, generator: Any) -> Array:
    """Return a matrix with orthonormal columns or, if there are fewer rows, orthonormal rows.

    It is Q of the QR decomposition of normal numbers, with signs that make the diagonal of R positive. Without these
    signs, the matrices are not equally likely (Mezzadri, "How to generate random matrices from the classical compact
    groups", 2007).
    """
    normal = np.asarray(generator.randn(max(rows, columns), min(rows, columns)), np.float64)
    q, r = np.linalg.qr(normal)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return q if rows >= columns else q.T
