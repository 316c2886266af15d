"""The kernels of dense layers, dropout and noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nnx._base.typing import Array
from nnx._kernels._numpy.activations import relu_forward
from nnx._kernels._numpy.quiet import quiet

#: A part of the key of Layer_GaussianNoise, so that equal seeds of dropout and noise give independent words.
NOISE_KEY = 0x9E3779B97F4A7C15

#: Words of a dropout mask drawn at a time: eight arrays of 64-bit numbers that stay in a core's L2 cache.
MASK_BLOCK = 32768

#: The distance, in blocks of columns, to the words for the lower halves of a dropout mask's numbers.
LOWER_BLOCKS = 2**31


# Layer_Dense


@quiet
def dense_forward(inputs: Array, weights: Array, biases: Array, output: Array) -> None:
    """``output := inputs · weights + biases``; (n, k), (k, m), (1, m) in, (n, m) out."""
    np.matmul(inputs, weights, out=output)
    output += biases


def dense_relu_forward(inputs: Array, weights: Array, biases: Array, output: Array) -> None:
    """``output := max(0, inputs · weights + biases)``; (n, k), (k, m), (1, m) in, (n, m) out."""
    dense_forward(inputs, weights, biases, output)
    relu_forward(output, output)


@quiet
def dense_backward_weights(
    inputs: Array, dvalues: Array, weights: Array, dweights: Array, l1: float, l2: float
) -> None:
    """``dweights := inputsᵀ · dvalues + l1·sign(weights) + 2·l2·weights``; (n, k), (n, m), (k, m) in, (k, m) out."""
    np.matmul(inputs.T, dvalues, out=dweights)
    _add_regularization(weights, dweights, l1, l2)


@quiet
def dense_backward_biases(dvalues: Array, biases: Array, dbiases: Array, l1: float, l2: float) -> None:
    """``dbiases := Σ over samples of dvalues + l1·sign(biases) + 2·l2·biases``; (n, m), (1, m) in, (1, m) out."""
    # Row after row, except for a single column. add.reduce does the same, but is slower for few columns. The order
    # matters: the spiral's published figures come from it. A product with ones, in BLAS's order, differs from them at
    # epoch 20.
    np.einsum("ij->j", dvalues, out=dbiases[0])
    _add_regularization(biases, dbiases, l1, l2)


@quiet
def dense_backward_inputs(dvalues: Array, weights: Array, dinputs: Array) -> None:
    """``dinputs := dvalues · weightsᵀ``; (n, m), (k, m) in, (n, k) out."""
    np.matmul(dvalues, weights.T, out=dinputs)


@quiet
def round_bfloat16(values: Array, result: Array) -> None:
    """``result :=`` the nearest bfloat16, ties to even; any shape, both float32; ``result`` may be ``values``.

    A bfloat16 is a float32 whose fraction has seven bits. Numbers beyond the largest of them become infinite; NaN
    stays NaN, with its sign and the upper bits of its fraction.
    """
    bits = values.view(np.uint32)
    kept = bits >> np.uint32(16)
    rounded = bits + (np.uint32(0x7FFF) + (kept & np.uint32(1)))  # it carries into the exponent where it must
    quiet_nan = bits | np.uint32(0x00400000)
    np.bitwise_and(np.where(np.isnan(values), quiet_nan, rounded), np.uint32(0xFFFF0000), out=result.view(np.uint32))


def _add_regularization(values: Array, gradients: Array, l1: float, l2: float) -> None:
    """Add the gradient of ``l1·Σ|v| + l2·Σv²``; the sign is −1 where v < 0, else +1."""
    if l1:
        gradients += l1
        np.subtract(gradients, 2 * l1, out=gradients, where=values < 0)
    if l2:
        gradients += (2 * l2) * values


@quiet
def regularization_loss(values: Array, l1: float, l2: float) -> float:
    """Return ``l1·Σ|v| + l2·Σv²``, summed in double."""
    loss = 0.0
    if l1:
        loss += l1 * float(np.add.reduce(np.absolute(values), axis=None, dtype=np.float64))
    if l2:
        loss += l2 * float(np.add.reduce(np.square(values, dtype=np.float64), axis=None))
    return loss


# Layer_Dropout


def dropout_mask(mask: Array, keep: float, seed: int, forwards: int) -> None:
    """Fill ``mask`` (n, m) with ``1/keep`` with probability ``keep``, else 0.

    Each element has a number of 32 bits, and is kept if the number is below ``keep``·2³², rounded. The upper halves of
    the numbers in columns 8b to 8b+7 of row i are the eight halves (lower, upper, lower ...) of the four words of
    Philox4x32-7 for the counter (b, i, forwards mod 2³², forwards div 2³²) under the key ``seed`` (64 bits). The lower
    halves are those for (b + 2³¹, i, ...). So an element depends only on its position and these numbers, and only one
    of 65,536 elements needs its lower half.
    """
    upper, lower = divmod(round(keep * 2**32), 2**16)
    scale = mask.dtype.type(1 / keep)
    for start, rows, words in _words_of(mask, 8, seed, forwards):
        halves = _halves(words).reshape(len(rows), -1)[:, : rows.shape[1]]
        np.multiply(halves < upper, scale, out=rows)
        if not lower:
            continue
        # In one dimension, because np.nonzero of a matrix takes as long as drawing the words.
        at, columns = np.divmod(np.flatnonzero(halves == upper), rows.shape[1])
        blocks = columns.astype(np.uint64) // 8 + LOWER_BLOCKS  # unsigned: 32-bit systems index with 32 bits
        others = _words(blocks, start + at, seed, forwards)
        decisive = _halves(others).reshape(len(at), 8)[np.arange(len(at)), columns % 8]
        rows[at, columns] = np.where(decisive < lower, scale, 0)


def _halves(words: tuple[Array, Array, Array, Array]) -> Array:
    """Return the halves of each four words, (..., 8)."""
    drawn = np.empty((*words[0].shape, 4), "<u4")
    for lane, word in enumerate(words):
        drawn[..., lane] = word
    return drawn.view("<u2")


def _words_of(
    cells: Array, width: int, seed: int, forwards: int
) -> Iterator[tuple[int, Array, tuple[Array, Array, Array, Array]]]:
    """Yield some rows of ``cells`` at a time: the first one's number, the rows, the words of each ``width`` columns."""
    n_rows, columns = cells.shape
    blocks = np.arange((columns + width - 1) // width)[None, :]
    step = max(1, MASK_BLOCK * width // (4 * max(1, columns)))
    for start in range(0, n_rows, step):
        rows = cells[start : start + step]
        numbers = np.arange(start, start + len(rows))[:, None]
        yield start, rows, _words(blocks, numbers, seed, forwards)


def _words(blocks: Array, rows: Array, seed: int, forwards: int) -> tuple[Array, Array, Array, Array]:
    """Return the words of these blocks of columns in these rows. The two broadcast against each other."""
    blocks, rows = blocks.astype(np.uint64), rows.astype(np.uint64)
    return _philox4x32_7(blocks, rows, forwards & 0xFFFFFFFF, forwards >> 32, seed)


def _philox4x32_7(c0: Array, c1: Array, c2: int, c3: int, key: int) -> tuple[Array, Array, Array, Array]:
    """Return the four words of Philox4x32-7 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Words are 32 bits wide in 64-bit arrays. Counters broadcast against each other, so values that depend only on the
    row or only on the column stay small arrays in the first rounds.
    """
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1, x2, x3 = c0, c1, np.full((1, 1), c2, np.uint64), np.full((1, 1), c3, np.uint64)
    for r in range(7):
        key0 = np.uint64((key + r * 0x9E3779B9) & 0xFFFFFFFF)
        key1 = np.uint64(((key >> 32) + r * 0xBB67AE85) & 0xFFFFFFFF)
        product0, product1 = x0 * np.uint64(0xD2511F53), x2 * np.uint64(0xCD9E8D57)
        x0, x1 = (product1 >> half) ^ (x1 ^ key0), product1 & low
        x2, x3 = (product0 >> half) ^ (x3 ^ key1), product0 & low
    return x0, x1, x2, x3


@quiet
def dropout_apply(values: Array, mask: Array, output: Array) -> None:
    """``output := values × mask``, element by element; for forward and backward."""
    np.multiply(values, mask, out=output)


# Layer_GaussianNoise


@quiet
def gaussian_noise(noise: Array, deviation: float, seed: int, forwards: int) -> None:
    """Fill ``noise`` (n, m) with normal numbers of mean 0 and this standard deviation.

    The elements of columns 4b to 4b+3 in row i take the four words of Philox4x32-7 for the counter (b, i, forwards mod
    2³², forwards div 2³²) under the key ``seed`` XOR `NOISE_KEY`. A pair of them, (u, v), gives two elements (Box and
    Muller, "A note on the generation of random normal deviates", 1958): r·cos θ and r·sin θ with r = sqrt(−2·ln(((u >>
    8) + 1)/2²⁴)) and θ = 2π·(v >> 8)/2²⁴, computed in double.
    """
    for _, rows, words in _words_of(noise, 4, seed ^ NOISE_KEY, forwards):
        normal = np.empty((*words[0].shape, 4))
        for lane in (0, 2):
            u, v = (words[lane + i] >> np.uint64(8) for i in (0, 1))
            radius = np.sqrt(-2 * np.log((u + np.uint64(1)) * 2.0**-24))
            angle = v * (2 * math.pi / 2**24)
            normal[:, :, lane], normal[:, :, lane + 1] = radius * np.cos(angle), radius * np.sin(angle)
        np.multiply(normal.reshape(len(rows), -1)[:, : rows.shape[1]], deviation, out=rows, casting="same_kind")
