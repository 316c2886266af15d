"""Layer_GaussianNoise: its numbers, that they are reproducible, and that they are independent of dropout's."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nnx
from nnx import _kernels
from nnx._kernels._numpy.layers import NOISE_KEY, _philox4x32_7


def noise_of(shape, deviation=1.0, seed=1, forwards=0, dtype=np.float64):
    noise = np.empty(shape, dtype)
    _kernels.backend.gaussian_noise(noise, deviation, seed, forwards)
    return noise


# The numbers


@pytest.mark.parametrize(("seed", "forwards"), [(0, 0), (2**64 - 1, 3), (5, 2**40 + 7)])
def test_numbers_are_the_definition(dtype, seed, forwards):
    noise = noise_of((9, 11), 2.5, seed, forwards, dtype)
    for row in range(9):
        for column in range(11):
            counter = [np.array([[number]], np.uint64) for number in (column // 4, row)]
            words = _philox4x32_7(*counter, forwards & 0xFFFFFFFF, forwards >> 32, seed ^ NOISE_KEY)
            u, v = (int(word[0, 0]) >> 8 for word in words[column % 4 // 2 * 2 :][:2])
            radius, angle = math.sqrt(-2 * math.log((u + 1) / 2**24)), 2 * math.pi * v / 2**24
            expected = 2.5 * radius * (math.sin(angle) if column % 2 else math.cos(angle))
            assert noise[row, column] == pytest.approx(expected, rel=1e-5, abs=5e-6 if dtype == np.float32 else 1e-6)


def test_its_moments_are_those_of_normal_numbers(dtype):
    values = noise_of((1000, 1000), dtype=dtype).astype(np.float64)
    assert abs(values.mean()) < 5e-3
    assert abs(values.std() - 1) < 5e-3
    assert abs((values**3).mean()) < 2e-2
    assert abs((values**4).mean() - 3) < 5e-2
    for bound, expected in ((1, 0.682689), (2, 0.954500), (3, 0.997300)):
        assert abs((np.abs(values) < bound).mean() - expected) < 2e-3
    assert np.isfinite(values).all()
    assert np.abs(values).max() < 5.8


def test_cells_have_nothing_in_common():
    values = noise_of((2000, 8))
    both = np.concatenate([values, noise_of((2000, 8), forwards=1), noise_of((2000, 8), seed=2)], axis=1)
    found = np.corrcoef(both.T) - np.identity(24)
    assert np.abs(found).max() < 0.1
    assert np.abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("seed", [0, 1, 2**63 + 5])
def test_equal_seeds_of_dropout_give_other_words(seed):
    """If the words were the same, dropout would keep an element when the noise of its partner is large, or small."""
    shape = (2000, 16)
    noise, mask = noise_of(shape, seed=seed), np.empty(shape, np.float64)
    _kernels.backend.dropout_mask(mask, 0.5, seed, 0)
    for values in (noise, np.abs(noise)):
        for shift in range(4):
            found = np.corrcoef(values.ravel(), np.roll(mask, shift, axis=1).ravel())[0, 1]
            assert abs(found) < 0.03, shift


def test_a_cell_depends_on_its_place_alone(dtype):
    whole = noise_of((40, 21), dtype=dtype)
    for rows, columns in ((1, 1), (7, 21), (40, 3), (33, 16), (0, 5)):
        np.testing.assert_array_equal(noise_of((rows, columns), dtype=dtype), whole[:rows, :columns])


def test_deviations_scale(dtype):
    one = noise_of((20, 7), 1.0, dtype=dtype)
    np.testing.assert_allclose(noise_of((20, 7), 3.0, dtype=dtype), 3 * one, rtol=1e-5)
    np.testing.assert_array_equal(noise_of((20, 7), 0.0, dtype=dtype), np.full((20, 7), 0.0))


# The layer


def test_only_training_adds_noise(dtype, rng):
    X = rng.standard_normal((30, 5)).astype(dtype)
    layer = nnx.Layer_GaussianNoise(0.5, seed=7)
    layer.forward(X, training=False)
    np.testing.assert_array_equal(layer.output, X)
    assert not np.shares_memory(layer.output, X)
    assert layer.training_forwards == 0
    layer.forward(X, training=True)
    np.testing.assert_array_equal(layer.noise, noise_of(X.shape, 0.5, 7, 0, dtype))
    np.testing.assert_array_equal(layer.output, X + layer.noise)
    assert layer.output.dtype == layer.noise.dtype == dtype
    assert (layer.training_forwards, layer.inputs is X) == (1, True)
    layer.backward(2 * X)
    np.testing.assert_array_equal(layer.dinputs, 2 * X)


def test_each_training_forward_has_noise_of_its_own(dtype):
    layer, twin = (nnx.Layer_GaussianNoise(1.0, seed=3) for _ in range(2))
    X = np.ones((8, 8), dtype)
    outputs = []
    for _ in range(3):
        layer.forward(X)
        outputs.append(layer.output)
        twin.forward(X, training=False)
        twin.forward(X)
        np.testing.assert_array_equal(twin.output, layer.output)
    assert not np.array_equal(outputs[0], outputs[1])
    twin.training_forwards = 0
    twin.forward(X)
    np.testing.assert_array_equal(twin.output, outputs[0])


def test_inputs_of_any_shape_have_noise():
    layer = nnx.Layer_GaussianNoise(1.0, seed=3)
    for shape in ((5,), (2, 3, 4), (0, 3), (3, 0)):
        layer.forward(np.ones(shape, np.float32))
        assert layer.output.shape == layer.noise.shape == shape
    layer.forward(np.ones((2, 3, 4), np.float32))
    expected = noise_of((2, 12), seed=3, forwards=4, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(layer.noise, expected)


def test_a_seed_that_nobody_gave_comes_from_numpys_generator():
    np.random.seed(5)
    low, high = np.random.randint(0, 2**32, 2, np.uint64).tolist()
    np.random.seed(5)
    layer = nnx.Layer_GaussianNoise(0.1)
    assert layer.seed is None
    layer.forward(np.ones((2, 2)), training=False)
    assert layer.seed is None
    layer.forward(np.ones((2, 2)))
    assert layer.seed == high << 32 | low
    assert layer.get_config() == {"stddev": 0.1, "seed": None}


def test_a_training_is_repeated_by_its_seed(rng):
    X, y = rng.standard_normal((40, 3)), rng.integers(0, 2, 40)
    found = []
    for seed in (1, 1, 2):
        np.random.seed(0)
        model = nnx.Model()
        for layer in (nnx.Layer_GaussianNoise(0.5, seed=seed), nnx.Layer_Dense(3, 2), nnx.Activation_Softmax()):
            model.add(layer)
        model.set(
            loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Categorical()
        )
        model.finalize()
        model.train(X, y, epochs=3, batch_size=16, print_every=None)
        assert model.layers[0].training_forwards == 9
        found.append(model.layers[1].weights.tobytes())
    assert found[0] == found[1] != found[2]


# Bad input


@pytest.mark.parametrize("stddev", [-0.1, np.nan, np.inf])
def test_a_deviation_that_is_none_is_refused(stddev):
    with pytest.raises(ValueError, match=r"^Layer_GaussianNoise: stddev must be a finite number of at least 0"):
        nnx.Layer_GaussianNoise(stddev)
    layer = nnx.Layer_GaussianNoise(0.1)
    layer.stddev = stddev
    with pytest.raises(ValueError, match=r"^Layer_GaussianNoise.forward: stddev must be a finite number of at least 0"):
        layer.forward(np.ones((2, 2)))


def test_other_arguments_are_refused():
    with pytest.raises(TypeError, match=r"^Layer_GaussianNoise: stddev must be a number, got 'x'"):
        nnx.Layer_GaussianNoise("x")
    with pytest.raises(ValueError, match=r"^Layer_GaussianNoise: seed must be a whole number from 0 to"):
        nnx.Layer_GaussianNoise(0.1, seed=2**64)
    layer = nnx.Layer_GaussianNoise(0.1, seed=1)
    with pytest.raises(RuntimeError, match=r"^Layer_GaussianNoise.backward: Layer_GaussianNoise has no inputs yet"):
        layer.backward(np.ones((2, 2)))
    layer.forward(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"^Layer_GaussianNoise.backward: dvalues must have shape \(2, 2\)"):
        layer.backward(np.ones((2, 3)))
    layer.training_forwards = -1
    with pytest.raises(ValueError, match=r"^Layer_GaussianNoise.forward: training_forwards must be a whole number"):
        layer.forward(np.ones((2, 2)))


def test_a_deviation_beyond_float32_does_not_warn():
    layer = nnx.Layer_GaussianNoise(1e300, seed=1)
    layer.forward(np.ones((3, 4), np.float32))
    assert np.isinf(layer.output).any()
