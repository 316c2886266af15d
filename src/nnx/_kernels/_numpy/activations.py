"""Activations: a pair of functions for each, entered into a table under the activation's name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.quiet import quiet


class Activation(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    forward : callable
        Called with inputs, output, and the settings one by one.
    backward : callable
        Called with the array that backward starts from, dvalues, dinputs, and the settings.
    reads : "inputs" or "output"
        What backward starts from.
    """

    forward: Callable[..., None]
    backward: Callable[..., None]
    reads: str


ACTIVATIONS: dict[str, Activation] = {}


def activation_forward(name: str, inputs: Array, output: Array, settings: tuple[float, ...] = ()) -> None:
    """``output := the activation of inputs``; any shape, softmax (n, m)."""
    ACTIVATIONS[name].forward(inputs, output, *settings)


def activation_backward(
    name: str, source: Array, dvalues: Array, dinputs: Array, settings: tuple[float, ...] = ()
) -> None:
    """``dinputs := dvalues × the activation's slope``; ``source`` is the array that the table names in ``reads``."""
    ACTIVATIONS[name].backward(source, dvalues, dinputs, *settings)


def add(name: str, forward: Callable[..., None], backward: Callable[..., None], reads: str) -> None:
    """Enter an activation with its own loops."""
    ACTIVATIONS[name] = Activation(quiet(forward), quiet(backward), reads)


def add_formula(name: str, value: Callable[..., Array], slope: Callable[..., Array], reads: str) -> None:
    """Enter an activation by its formulas: the value from the inputs, the slope from the array that ``reads`` names.

    Both are called with an array and the settings, and return an array.
    """

    def forward(inputs: Array, output: Array, *settings: float) -> None:
        np.copyto(output, value(inputs, *settings))

    def backward(source: Array, dvalues: Array, dinputs: Array, *settings: float) -> None:
        np.multiply(dvalues, slope(source, *settings), out=dinputs)

    add(name, forward, backward, reads)


# Rectified linear unit


def relu_forward(inputs: Array, output: Array) -> None:
    """``output := max(0, inputs)``; NaN stays NaN."""
    np.maximum(inputs, 0, out=output)


def relu_backward(output: Array, dvalues: Array, dinputs: Array) -> None:
    """``dinputs := dvalues`` where not output <= 0, else 0.

    It uses AND of the bits, four times as fast as a masked assignment. A product with 0 would turn infinity into NaN.
    """
    bits = np.dtype(f"u{output.itemsize}")
    passing = (output <= 0).astype(bits)
    passing -= 1
    np.bitwise_and(dvalues.view(bits), passing, out=dinputs.view(bits))


add("relu", relu_forward, relu_backward, "output")


# Sigmoid


def sigmoid_forward(inputs: Array, output: Array) -> None:
    """``output := 1 / (1 + exp(−inputs))``, written with exp(−|x|), which cannot overflow."""
    decay = np.exp(-np.absolute(inputs))
    np.divide(np.where(inputs < 0, decay, 1), 1 + decay, out=output)


def sigmoid_backward(output: Array, dvalues: Array, dinputs: Array) -> None:
    """``dinputs := dvalues·(1 − output)·output``."""
    slope = 1 - output
    slope *= output
    np.multiply(slope, dvalues, out=dinputs)


add("sigmoid", sigmoid_forward, sigmoid_backward, "output")


# Hyperbolic tangent


def tanh_value(inputs: Array) -> Array:
    """tanh(x)."""
    return np.tanh(inputs)


def tanh_slope(output: Array) -> Array:
    """(1 − y)·(1 + y)."""
    return (1 - output) * (1 + output)


add_formula("tanh", tanh_value, tanh_slope, "output")


# Leaky rectified linear unit


def leaky_relu_value(inputs: Array, slope: float) -> Array:
    """x, and slope·x below 0."""
    return np.where(inputs <= 0, slope * inputs, inputs)


def leaky_relu_slope(output: Array, slope: float) -> Array:
    """1, and ``slope`` where y <= 0. ``slope`` is not negative, so y has the sign of x."""
    return np.where(output <= 0, output.dtype.type(slope), output.dtype.type(1))


add_formula("leaky_relu", leaky_relu_value, leaky_relu_slope, "output")


# Exponential linear unit


def elu_value(inputs: Array, alpha: float) -> Array:
    """x, and alpha·(exp(x) − 1) where not x > 0."""
    return np.where(inputs > 0, inputs, alpha * np.expm1(inputs))


def elu_slope(output: Array, alpha: float) -> Array:
    """1, and y + alpha, which is alpha·exp(x), where not y > 0."""
    return np.where(output > 0, output.dtype.type(1), output + alpha)


add_formula("elu", elu_value, elu_slope, "output")


# Scaled exponential linear unit

SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


def selu_value(inputs: Array) -> Array:
    """scale·x, and scale·alpha·(exp(x) − 1) where not x > 0."""
    return np.where(inputs > 0, SELU_SCALE * inputs, SELU_SCALE * SELU_ALPHA * np.expm1(inputs))


def selu_slope(output: Array) -> Array:
    """scale, and y + scale·alpha where not y > 0."""
    return np.where(output > 0, output.dtype.type(SELU_SCALE), output + SELU_SCALE * SELU_ALPHA)


add_formula("selu", selu_value, selu_slope, "output")


# Gaussian error linear unit


def normal_cdf(inputs: Array) -> Array:
    """The probability of a normal number below x, erfc(−x/√2) / 2. It loops over numbers, because NumPy has no erf."""
    numbers = inputs.astype(np.float64).ravel() * -math.sqrt(0.5)
    return np.array([0.5 * math.erfc(x) for x in numbers.tolist()], inputs.dtype).reshape(inputs.shape)


def within(inputs: Array, reach: float) -> Array:
    """Keep x within plus or minus ``reach``. Beyond, a gate is 0 or 1 with slope 0, and infinity · 0 would be NaN."""
    return np.clip(inputs, -reach, reach)


def logistic(inputs: Array) -> Array:
    """1 / (1 + exp(−x)), written with exp(−|x|)."""
    decay = np.exp(-np.absolute(inputs))
    return np.where(inputs < 0, decay, 1) / (1 + decay)


def gelu_argument(inputs: Array) -> Array:
    """2·sqrt(2/π)·(x + 0.044715·x³). Its sigmoid is (1 + tanh of its half) / 2."""
    return 2 * math.sqrt(2 / math.pi) * (inputs + 0.044715 * inputs * inputs * inputs)


def gelu_value(inputs: Array, approximate: float) -> Array:
    """x·P. P is the probability of a normal number below x, or sigmoid(``gelu_argument(x)``) instead."""
    near = within(inputs, 22 if approximate else 38)
    return np.maximum(near, inputs) * (logistic(gelu_argument(near)) if approximate else normal_cdf(near))


def gelu_slope(inputs: Array, approximate: float) -> Array:
    """P + x·P'."""
    near = within(inputs, 22 if approximate else 38)
    if not approximate:
        return normal_cdf(near) + near * np.exp(-0.5 * near * near) * (1 / math.sqrt(2 * math.pi))
    argument = gelu_argument(near)
    rate = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * near * near)
    gate = logistic(argument)
    return gate + near * rate * (gate * logistic(-argument))


add_formula("gelu", gelu_value, gelu_slope, "inputs")


# Sigmoid linear unit


def silu_value(inputs: Array) -> Array:
    """x·sigmoid(x)."""
    near = within(inputs, 746)
    return np.maximum(near, inputs) * logistic(near)


def silu_slope(inputs: Array) -> Array:
    """s·(1 + x·(1 − s)) with s = sigmoid(x), written as a sum."""
    near = within(inputs, 746)
    gate = logistic(near)
    return gate + near * (gate * logistic(-near))


add_formula("silu", silu_value, silu_slope, "inputs")


# Mish


def mish_parts(inputs: Array) -> tuple[Array, Array]:
    """Return tanh(log(1 + exp(x))), and its slope.

    With t = exp(−|x|) these are n / (n + m) and 4·q·(1 + t) / (n + m)²: for x < 0, n = t·(t + 2), m = 2, q = t; else
    n = 1 + 2t, m = 2t², q = t².
    """
    t = np.exp(-np.absolute(inputs))
    negative = inputs < 0
    n = 2 * t + np.where(negative, t * t, 1)
    both = n + np.where(negative, 2, 2 * t * t)
    return n / both, 4 * np.where(negative, t, t * t) * (1 + t) / both / both


def mish_value(inputs: Array) -> Array:
    """x·tanh(log(1 + exp(x)))."""
    near = within(inputs, 746)
    return np.maximum(near, inputs) * mish_parts(near)[0]


def mish_slope(inputs: Array) -> Array:
    """tanh(...) + x·(its slope)."""
    near = within(inputs, 746)
    value, rate = mish_parts(near)
    return value + near * rate


add_formula("mish", mish_value, mish_slope, "inputs")


# Hard sigmoid and hard swish


def hard_sigmoid_value(inputs: Array) -> Array:
    """x/6 + 1/2 between −3 and 3, 0 below, 1 above."""
    return np.clip(inputs + 3, 0, 6) * (1 / 6)


def hard_sigmoid_slope(output: Array) -> Array:
    """1/6 where 0 < y < 1, else 0."""
    one = output.dtype.type(1 / 6)
    return np.where((output > 0) & (output < 1), one, output.dtype.type(0))


add_formula("hard_sigmoid", hard_sigmoid_value, hard_sigmoid_slope, "output")


def hard_swish_value(inputs: Array) -> Array:
    """x·(x/6 + 1/2) between −3 and 3, 0 below, x above."""
    return np.where(inputs <= -3, inputs.dtype.type(0), inputs * hard_sigmoid_value(inputs))


def hard_swish_slope(inputs: Array) -> Array:
    """x/3 + 1/2 between −3 and 3, 0 below, 1 above."""
    inside = np.where(inputs <= -3, inputs.dtype.type(0), inputs * (1 / 3) + 0.5)
    return np.where(inputs < 3, inside, inputs.dtype.type(1))


add_formula("hard_swish", hard_swish_value, hard_swish_slope, "inputs")


# Softplus


def softplus_value(inputs: Array) -> Array:
    """log(1 + exp(x)), written with exp(−|x|), which cannot overflow."""
    return np.maximum(inputs, 0) + np.log1p(np.exp(-np.absolute(inputs)))


add_formula("softplus", softplus_value, logistic, "inputs")


# Softmax


def softmax_forward(inputs: Array, output: Array) -> None:
    """``output_ij := exp(x_ij − max_i) / Σ_j exp(x_ij − max_i)``; (n, m)."""
    # Samples along the fast axis: with 3 classes 3 times as fast, with 100 a fifth slower.
    columns = inputs.T.copy()
    columns -= np.maximum.reduce(columns, axis=0)
    np.exp(columns, out=columns)
    np.divide(columns, np.add.reduce(columns, axis=0), out=output.T)


def softmax_backward(output: Array, dvalues: Array, dinputs: Array) -> None:
    """``dinputs_ij := p_ij·(d_ij − Σ_j p_ij·d_ij)``: the product with each row's Jacobian, in closed form."""
    products = output * dvalues
    np.subtract(products, output * np.add.reduce(products, axis=1, keepdims=True), out=dinputs)


add("softmax", softmax_forward, softmax_backward, "output")


# The identity


def linear_forward(inputs: Array, output: Array) -> None:
    """``output := inputs``."""
    np.copyto(output, inputs)


def linear_backward(output: Array, dvalues: Array, dinputs: Array) -> None:
    """``dinputs := dvalues``."""
    np.copyto(dinputs, dvalues)


add("linear", linear_forward, linear_backward, "output")


# The ReLU with a learnt slope below 0: one slope for all columns, or one for each. It has its own kernels, because it
# has parameters.


@quiet
def prelu_forward(inputs: Array, weights: Array, output: Array) -> None:
    """``output := inputs``, or ``weights · inputs`` where not inputs > 0; (n, ...), (1, 1) or (1, m) in, (n, ...) out.

    ``output`` may be ``inputs``.
    """
    np.copyto(output, np.where(inputs > 0, inputs, weights.reshape(-1) * inputs))


@quiet
def prelu_backward_inputs(inputs: Array, dvalues: Array, weights: Array, dinputs: Array) -> None:
    """``dinputs := dvalues``, or ``weights · dvalues`` where not inputs > 0; it may be ``inputs`` or ``dvalues``."""
    np.copyto(dinputs, np.where(inputs > 0, dvalues, weights.reshape(-1) * dvalues))


@quiet
def prelu_backward_weights(inputs: Array, dvalues: Array, dweights: Array) -> None:
    """``dweights := Σ dvalues · inputs`` where not inputs > 0, over all numbers or over rows; summed in double."""
    below = np.where(inputs > 0, inputs.dtype.type(0), inputs * dvalues)
    columns = below.reshape(-1, dweights.size) if dweights.size > 1 else below.reshape(-1, 1)
    np.copyto(dweights[0], np.add.reduce(columns, axis=0, dtype=np.float64), casting="same_kind")
