"""Figures that are known from elsewhere: the book's, and published ones."""

from __future__ import annotations

import numpy as np
import pytest

import nnx

pytestmark = pytest.mark.every_backend


@pytest.fixture
def nnfs_points(monkeypatch):
    """The seed and the float32 draws of ``nnfs.init()``, for this test alone."""
    randn, zeros = np.random.randn, np.zeros
    monkeypatch.setattr(np.random, "randn", lambda *shape: randn(*shape).astype(np.float32))
    monkeypatch.setattr(np, "zeros", lambda shape, dtype=np.float32: zeros(shape, dtype))
    np.random.seed(0)
    return nnx.spiral_data(samples=100, classes=3)


def test_first_dense_layer_gives_the_books_numbers(nnfs_points):
    X, _ = nnfs_points
    dense = nnx.Layer_Dense(2, 3)
    dense.forward(X)
    expected = [
        [0, 0, 0],
        [-1.0475188e-04, 1.1395361e-04, -4.7983500e-05],
        [-2.7414842e-04, 3.1729150e-04, -8.6921798e-05],
    ]
    np.testing.assert_allclose(dense.output[:3], expected, rtol=2e-6)


def test_first_backward_pass_gives_the_books_numbers(nnfs_points):
    X, y = nnfs_points
    dense1, relu, dense2 = nnx.Layer_Dense(2, 3), nnx.Activation_ReLU(), nnx.Layer_Dense(3, 3)
    combined = nnx.Activation_Softmax_Loss_CategoricalCrossentropy()
    dense1.forward(X)
    relu.forward(dense1.output)
    dense2.forward(relu.output)
    loss = combined.forward(dense2.output, y)
    combined.backward(combined.output, y)
    dense2.backward(combined.dinputs)
    relu.backward(dense2.dinputs)
    dense1.backward(relu.dinputs)
    assert loss == pytest.approx(1.0986104, abs=2e-7)
    assert np.mean(np.argmax(combined.output, axis=1) == y) == pytest.approx(0.34)
    np.testing.assert_allclose(
        dense1.dweights,
        [[1.5766357e-04, 7.8368583e-05, 4.7324400e-05], [1.8161038e-04, 1.1045573e-05, -3.3096312e-05]],
        rtol=1e-3,
    )
    np.testing.assert_allclose(dense2.dbiases, [[-1.0729185e-05, -9.4610732e-06, 2.0027859e-05]], rtol=2e-2)


def spiral_run(X, y, dtype: str, epochs: int) -> nnx.History:
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 64, dtype=dtype))
    model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dense(64, 3, dtype=dtype))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(learning_rate=0.05, decay=5e-7),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model.train(X, y, epochs=epochs, print_every=None)


def test_spiral_with_adam_in_float32_follows_the_book(nnfs_points):
    history = spiral_run(*nnfs_points, "float32", 10_000)
    epochs = [0, 1, 5, 10, 20]
    np.testing.assert_allclose(history.step_accuracy[epochs], [0.360, 0.330, 0.410, 0.413, 0.480], atol=5e-4)
    np.testing.assert_allclose(history.step_loss[epochs], [1.099, 1.096, 1.080, 1.069, 1.041], atol=5e-4)
    assert history.step_accuracy[300] >= 0.80
    best = 9000 + int(np.argmax(history.step_accuracy[9000:]))
    assert history.step_accuracy[best] >= 0.94
    assert history.step_loss[9000:].min() <= 0.12


def test_spiral_with_adam_in_float64_holds_three_decimals_longer(request):
    if request.config.getoption("--nnfs-init"):
        pytest.skip("nnfs.init() rounds the points and weights to float32")
    history = spiral_run(*nnx.spiral_data(samples=100, classes=3), "float64", 301)
    epochs = [50, 100, 200, 300]
    np.testing.assert_allclose(history.step_accuracy[epochs], [0.647, 0.717, 0.793, 0.857], atol=5.1e-4)
    np.testing.assert_allclose(history.step_loss[epochs], [0.871, 0.675, 0.525, 0.431], atol=5.1e-4)


def test_probabilities_and_loss_of_the_books_three_samples():
    softmax = nnx.Activation_Softmax()
    softmax.forward(np.array([[1.0, 2.0, 3.0]], np.float64))
    np.testing.assert_allclose(softmax.output, [[0.09003057, 0.24472847, 0.66524096]], rtol=1e-7)
    loss = nnx.Loss_CategoricalCrossentropy().calculate(
        np.array([[0.7, 0.1, 0.2], [0.1, 0.5, 0.4], [0.02, 0.9, 0.08]]), np.array([0, 1, 1])
    )
    assert loss == pytest.approx(-np.log([0.7, 0.5, 0.9]).mean())


PHILOX4X32_7 = [
    ((0, 0, 0, 0), (0, 0), (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0x4DFCCABA, 0x190A87F0, 0xC47362BA, 0xB6B5242A),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), PHILOX4X32_7)
def test_philox_gives_the_published_vectors(counter, key, words):
    from nnx._kernels._numpy import layers

    first, second = (np.array([[c]], np.uint64) for c in counter[:2])
    found = layers._philox4x32_7(first, second, counter[2], counter[3], key[1] << 32 | key[0])
    assert tuple(int(word[0, 0]) for word in found) == words
