"""``precision="bfloat16"``: what is rounded, what is not, and that nobody gets it without asking."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import _kernels

# Rounding

LARGEST = 255 * 2.0**120  # of bfloat16


def rounded(values):
    """Return the nearest bfloat16 of each number, in float64 arithmetic: another way than the kernels' bits."""
    with np.errstate(invalid="ignore"):
        values = np.asarray(values, np.float64)
        _, exponents = np.frexp(values)
        unit = np.ldexp(1.0, np.maximum(exponents, -125) - 8)
        nearest = np.rint(values / unit) * unit
    return np.where(np.abs(nearest) > LARGEST, np.copysign(np.inf, values), nearest)


def round_bfloat16(values):
    result = np.empty_like(values)
    _kernels.backend.round_bfloat16(values, result)
    return result


def test_numbers_of_every_sign_and_exponent_are_rounded_to_nearest_and_ties_to_even():
    upper = np.arange(1 << 16, dtype=np.uint32)[:, None] << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (upper | lower).view(np.float32)
    result = round_bfloat16(values)
    np.testing.assert_array_equal(result, rounded(values).astype(np.float32))
    np.testing.assert_array_equal(np.signbit(result), np.signbit(values))
    assert not (result.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1 + 2**-8, 1),  # ties
        (1 + 3 * 2**-8, 1 + 2**-6),
        (-1 - 2**-8, -1),
        (1 + 2**-8 + 2**-23, 1 + 2**-7),
        (0.1, 0.10009765625),
        (LARGEST, LARGEST),
        (np.finfo(np.float32).max, np.inf),
        (-np.inf, -np.inf),
        (2.0**-149, 0),
        (2.0**-133, 2.0**-133),
    ],
)
def test_known_numbers_are_rounded_as_by_hand(value, expected):
    np.testing.assert_array_equal(round_bfloat16(np.full(3, value, np.float32)), np.full(3, expected, np.float32))


def test_every_nan_stays_one():
    bits = np.array([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF, 0xFFFF8000], np.uint32)
    result = round_bfloat16(np.tile(bits.view(np.float32), 7))
    assert np.isnan(result).all()
    assert not (result.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("n", [0, 1, 7, 16, 17, 1000])
def test_an_array_of_any_length_may_be_rounded_in_place(rng, n):
    values = rng.standard_normal(n).astype(np.float32)
    expected = round_bfloat16(values)
    _kernels.backend.round_bfloat16(values, values)
    np.testing.assert_array_equal(values, expected)


def test_the_compiled_kernel_rounds_float32_only(compiled):
    with pytest.raises(TypeError, match="round_bfloat16: values must be of dtype float32, got float64"):
        _kernels.backend.round_bfloat16(np.ones(3), np.ones(3))
