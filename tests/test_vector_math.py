"""The functions that compiled kernels compute themselves, from e^x to the normal distribution, beside exact values."""

from __future__ import annotations

import numpy as np
import pytest

from nnx import _kernels

pytestmark = pytest.mark.every_backend

# Beyond these limits a function is a constant or x itself, to the last bit.
RANGES = {"expm1": (-40, 720), "log1p": (-1, 50), "softplus": (-750, 50), "tanh": (-25, 25), "erf": (-7, 7)}
ODD = ["tanh", "erf"]
EVERY_FUNCTION = ["exp", "log", *RANGES, "normal_cdf", "normal_pdf", "cosine_of_turns", "sine_of_turns"]


@pytest.fixture
def compiled(backend):
    if backend == "numpy":
        pytest.skip("a promise of the compiled kernels alone")
    return _kernels.backend


@pytest.fixture
def wider(dtype):
    """A float type in which exact values can be computed: its rounding errors are some thousandths of dtype's."""
    found = np.float64 if dtype == np.float32 else np.longdouble
    if np.finfo(found).nmant < np.finfo(dtype).nmant + 11:
        pytest.skip("no wider type to compare with")
    return found


def compute(compiled, name, values):
    output = np.full_like(values, -7)
    compiled._vector_function(name, values, output)
    return output


def erf(x):
    """2/√π·x·e^(−x²)·Σ (2x²)^n / (1·3···(2n + 1)), whose terms are all positive (Abramowitz and Stegun, 7.1.6)."""
    x = np.clip(x, -7, 7)
    term = 2 / np.sqrt(np.arccos(x.dtype.type(-1))) * x * np.exp(-x * x)
    total = term.copy()
    for n in range(1, 200):
        term = term * (2 * x * x / (2 * n + 1))
        total += term
    return total


EXACT = {
    "exp": np.exp,
    "log": np.log,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "tanh": np.tanh,
    "erf": erf,
    "normal_cdf": lambda x: (1 + erf(x / np.sqrt(x.dtype.type(2)))) / 2,
    "normal_pdf": lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.arccos(x.dtype.type(-1))),
}


def ulps(found, exact):
    """Return errors in units of the last place of found's dtype."""
    return np.abs(found - exact) / np.spacing(np.abs(exact.astype(found.dtype)))


@pytest.mark.parametrize("name", ["exp", "log"])
def test_exponential_and_logarithm_are_within_two_ulp_of_any_number(compiled, dtype, wider, rng, name):
    info = np.finfo(dtype)
    bits = np.dtype(f"u{dtype.itemsize}")
    ends = np.log(np.array([info.smallest_subnormal, info.max], np.longdouble)).astype(np.float64)
    values = np.concatenate([
        rng.integers(0, np.iinfo(bits).max, 300_000, bits, endpoint=True).view(dtype),
        rng.uniform(ends[0] - 2, ends[1] + 2, 300_000).astype(dtype),
        rng.uniform(-1, 4, 300_000).astype(dtype),
        1 + rng.standard_normal(100_000).astype(dtype) * info.eps * 1000,
    ])  # fmt: skip
    output = compute(compiled, name, values)
    values[np.abs(values) < info.tiny] = 0  # what subnormal numbers count as
    with np.errstate(all="ignore"):
        exact = EXACT[name](values.astype(wider))
        rounded = exact.astype(dtype)
        usual = np.isfinite(rounded) & (np.abs(rounded) >= info.tiny)
        assert ulps(output[usual], exact[usual]).max() <= 2
        small = np.isfinite(rounded) & ~usual  # subnormal results, which are flushed, and log 1
        np.testing.assert_array_equal(output[small], 0)
        np.testing.assert_array_equal(output[~np.isfinite(rounded)], rounded[~np.isfinite(rounded)])
    assert usual.sum() > 300_000
    assert name == "log" or small.sum() > 1000


def test_exponential_and_logarithm_at_the_ends(compiled, dtype):
    inf, nan, info = np.inf, np.nan, np.finfo(dtype)
    past = dtype.type(710 if dtype == np.float64 else 89)
    values = np.array([[inf, past, info.max, -inf, -info.max, -10 * past, nan, 0, -0.0]], dtype)
    np.testing.assert_array_equal(compute(compiled, "exp", values), [[inf, inf, inf, 0, 0, 0, nan, 1, 1]])
    values = np.array([[0, -0.0, -1, -info.tiny, -inf, inf, nan, 1]], dtype)
    np.testing.assert_array_equal(compute(compiled, "log", values), [[-inf, -inf, nan, nan, nan, inf, nan, 0]])
    values = np.array([info.tiny, info.max], dtype)
    assert ulps(compute(compiled, "log", values), np.log(values.astype(np.longdouble))).max() < 2
    values = np.array([info.smallest_subnormal, info.tiny / 2], dtype)  # counts as 0
    np.testing.assert_array_equal(compute(compiled, "log", values), [-inf, -inf])


def spread(rng, dtype, lowest, highest):
    """Return numbers of all magnitudes within limits: evenly, by exponent, and where a formula changes to another."""
    info = np.finfo(dtype)
    size = 4_000 if dtype == np.float64 else 60_000
    exponents = rng.uniform(info.minexp, np.log2(max(-lowest, highest)), size)
    signs = rng.choice([-1.0, 1.0], size)
    edges = np.array([0.5, 0.5625, 0.9, 1, np.log(2) / 2, np.sqrt(0.5) - 1, np.sqrt(2) - 1, 1.5 * np.log(2)])
    numbers = np.concatenate([
        rng.uniform(lowest, highest, size),
        rng.uniform(max(lowest, -2), 2, size),
        signs * 2.0**exponents,
        (edges * (1 + 1e-2 * rng.standard_normal((size // 8, len(edges))))).ravel() * rng.choice([-1, 1], size),
    ]).astype(dtype)  # fmt: skip
    return numbers[(numbers > lowest) & (numbers < highest) & (np.abs(numbers) >= info.tiny)]


@pytest.mark.parametrize("name", RANGES)
def test_functions_are_within_two_ulp(compiled, dtype, wider, rng, name):
    info = np.finfo(dtype)
    values = spread(rng, dtype, *RANGES[name])
    found = compute(compiled, name, values)
    with np.errstate(over="ignore", under="ignore"):
        exact = EXACT[name](values.astype(wider))
        rounded = exact.astype(dtype)
    usual = np.isfinite(rounded) & (np.abs(rounded) >= info.tiny)
    assert ulps(found[usual], exact[usual]).max() <= (2.1 if name == "softplus" else 2)
    np.testing.assert_array_equal(found[~np.isfinite(rounded)], rounded[~np.isfinite(rounded)])
    np.testing.assert_array_less(np.abs(found[np.abs(rounded) < info.tiny]), 1.01 * info.tiny)
    assert usual.sum() > 0.5 * len(values)


def test_the_normal_distribution_is_right_to_an_ulp_of_one(compiled, dtype, wider, rng):
    values = spread(rng, dtype, -40, 40)
    exact = values.astype(wider)
    with np.errstate(under="ignore"):
        errors = np.abs(compute(compiled, "normal_cdf", values) - EXACT["normal_cdf"](exact))
        density = np.abs(compute(compiled, "normal_pdf", values) - EXACT["normal_pdf"](exact))
    eps = np.finfo(dtype).eps
    assert errors.max() <= 0.8 * eps
    assert density.max() <= 0.5 * eps
    assert errors[values < -3].max() <= 0.15 * eps  # 1 − (1 − p) would err by up to eps / 4


def test_probabilities_of_the_normal_distribution_are_neither_negative_nor_above_one(compiled, dtype):
    values = np.linspace(-50, 50, 200_001, dtype=dtype)
    found = compute(compiled, "normal_cdf", values)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[values < -39] == 0).all()
    assert (found[values > 9] == 1).all()
    assert found[100_000] == 0.5


@pytest.mark.parametrize("name", ["cosine", "sine"])
def test_waves_are_right_to_two_ulp_of_one(compiled, dtype, wider, rng, name):
    turns = np.concatenate([rng.uniform(-1, 1, 60_000), rng.uniform(-1000, 1000, 60_000), np.arange(-20, 20) / 8])
    turns = turns.astype(dtype)
    exact = turns.astype(wider)
    angles = 2 * np.arccos(wider(-1)) * (exact - np.rint(exact))
    found = compute(compiled, f"{name}_of_turns", turns)
    assert np.abs(found - (np.cos(angles) if name == "cosine" else np.sin(angles))).max() <= 2 * np.finfo(dtype).eps
    assert np.abs(compute(compiled, f"{name}_of_turns", np.array([1e30, -1e30], dtype))).max() <= 1
    assert np.isnan(compute(compiled, f"{name}_of_turns", np.array([np.inf, -np.inf, np.nan], dtype))).all()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("expm1", [0, -np.inf, -1e30, np.inf, 1e30, np.nan], [0, -1, -1, np.inf, np.inf, np.nan]),
        ("log1p", [0, -1, -2, -np.inf, np.inf, np.nan], [0, -np.inf, np.nan, np.nan, np.inf, np.nan]),
        ("softplus", [-np.inf, -1e30, np.inf, 1e30, np.nan], [0, 0, np.inf, 1e30, np.nan]),
        ("tanh", [0, np.inf, 1e30, 25, np.nan], [0, 1, 1, 1, np.nan]),
        ("erf", [0, np.inf, 1e30, 6, np.nan], [0, 1, 1, 1, np.nan]),
        ("normal_cdf", [0, -0.0, -np.inf, -1e30, np.inf, 1e30, np.nan], [0.5, 0.5, 0, 0, 1, 1, np.nan]),
        ("normal_pdf", [-np.inf, -1e30, np.inf, 1e30, np.nan], [0, 0, 0, 0, np.nan]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_functions_at_the_ends(compiled, dtype, name, values, expected):
    np.testing.assert_array_equal(compute(compiled, name, np.array(values, dtype)), np.array(expected, dtype))


def test_log1p_of_the_largest_numbers_is_their_logarithm(compiled, dtype):
    values = np.finfo(dtype).max * np.array([1, 0.9, 0.75, 0.7, 0.5, 0.3, 0.25], dtype)
    assert ulps(compute(compiled, "log1p", values), np.log(values.astype(np.longdouble))).max() <= 2


@pytest.mark.parametrize("name", ODD)
def test_odd_functions_are_odd_to_the_last_bit(compiled, dtype, rng, name):
    values = np.concatenate([[0, np.inf], np.abs(spread(rng, dtype, -25, 25))]).astype(dtype)
    positive, negative = compute(compiled, name, values), compute(compiled, name, -values)
    assert not np.signbit(positive).any()
    assert np.signbit(negative).all()
    np.testing.assert_array_equal(positive, -negative)


@pytest.mark.parametrize("name", EVERY_FUNCTION)
def test_a_number_has_the_same_result_wherever_it_lies(compiled, dtype, rng, name):
    values = rng.normal(0, 3, 71).astype(dtype)
    values[::17] = np.inf, -np.inf, np.nan, 0, 1e-30
    together = compute(compiled, name, values)
    for start in range(0, 71, 5):
        for stop in range(start + 1, 72):
            np.testing.assert_array_equal(compute(compiled, name, values[start:stop]), together[start:stop])


def test_exp_near_has_the_bits_of_exp_where_it_may_be_used(compiled, rng, dtype):
    reach = 87 if dtype == np.float32 else 708
    values = np.concatenate([rng.uniform(-reach, reach, 10_000), [-reach, reach, 0, np.nan]]).astype(dtype)
    found, expected = (compute(compiled, name, values) for name in ("exp_near", "exp"))
    np.testing.assert_array_equal(found, expected)
