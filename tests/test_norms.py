"""Layers that normalize or scale columns: values, gradients, running statistics, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from differences import assert_gradient

import nnx

EPSILON = 1e-5


def made(kind, columns, rng, **settings):
    """Return a layer whose parameters differ from column to column."""
    layer = kind(columns, **settings)
    layer.weights[:] = rng.uniform(0.5, 1.5, (1, columns)) * np.where(np.arange(columns) % 3 == 2, -1, 1)
    if hasattr(layer, "biases"):
        layer.biases[:] = rng.standard_normal((1, columns))
    return layer


NORMS = [nnx.Layer_BatchNorm, nnx.Layer_LayerNorm]
KINDS = [*NORMS, nnx.Layer_Scale]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
each_norm = pytest.mark.parametrize("kind", NORMS, ids=lambda kind: kind.__name__)


def expected_output(layer, X, training=True):
    """Return a layer's output, by its formula in double."""
    X, weights = X.astype(np.float64), layer.weights.astype(np.float64)
    if isinstance(layer, nnx.Layer_Scale):
        return X * weights
    by_row = isinstance(layer, nnx.Layer_LayerNorm)
    if by_row or training:
        axis = 1 if by_row else 0
        mean, variance = X.mean(axis, keepdims=True), X.var(axis, keepdims=True)
    else:
        mean, variance = layer.running_mean.astype(np.float64), layer.running_variance.astype(np.float64)
    return (X - mean) / np.sqrt(variance + layer.epsilon) * weights + layer.biases


# Values


@each_kind
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 1), (50, 17), (300, 33), (33, 300)])
def test_values_are_the_formulas(dtype, rng, kind, shape):
    layer = made(kind, shape[1], rng)
    if kind is nnx.Layer_BatchNorm:
        layer.running_mean[:] = rng.standard_normal((1, shape[1]))
        layer.running_variance[:] = rng.uniform(0.1, 3, (1, shape[1]))
    X = (3 * rng.standard_normal(shape) + 20).astype(dtype)
    relative = 1e-4 if dtype == np.float32 else 1e-11  # the mean is far from 0
    for training in (False, True):
        expected = expected_output(layer, X, training)
        layer.forward(X, training)
        assert layer.output.dtype == dtype
        np.testing.assert_allclose(layer.output, expected, rtol=relative, atol=relative)
        assert layer.inputs is X


def test_known_answers():
    layer = nnx.Layer_BatchNorm(2, momentum=0.75, epsilon=1.0, dtype="float64")
    layer.set_parameters([[2.0, 1.0]], [[10.0, 20.0]])
    X = np.array([[1.0, 5.0], [1.0, 5.0], [5.0, 5.0], [5.0, 5.0]], np.float64)
    layer.forward(X, training=True)  # mean 3 and 5, variance 4 and 0
    root = np.sqrt(5.0)
    np.testing.assert_allclose(layer.output[[0, 2]], [[10 - 4 / root, 20], [10 + 4 / root, 20]], rtol=1e-14)
    np.testing.assert_array_equal(layer.batch_mean, [[3, 5]])
    np.testing.assert_array_equal(layer.batch_variance, [[4, 0]])
    np.testing.assert_allclose(layer.running_mean, [[0.75, 1.25]], rtol=1e-15)
    np.testing.assert_allclose(layer.running_variance, [[0.75 + 0.25 * 16 / 3, 0.75]], rtol=1e-15)
    layer.forward([[3.75, 0.0]], training=False)
    expected = [[10 + 2 * 3 / np.sqrt(1.75 + 4 / 3), 20 - 1.25 / np.sqrt(1.75)]]
    np.testing.assert_allclose(layer.output, expected, rtol=1e-14)

    norm = nnx.Layer_LayerNorm(4, epsilon=3.0, dtype="float64")
    norm.set_parameters([[1.0, 1.0, 1.0, 2.0]], [[0.0, 0.0, 0.0, 0.5]])
    norm.forward([[1, 1, 3, 3], [7, 7, 7, 7]])  # variances 1 and 0
    np.testing.assert_allclose(norm.output, [[-0.5, -0.5, 0.5, 1.5], [0, 0, 0, 0.5]], rtol=1e-15)

    scale = nnx.Layer_Scale(2, 0.25)
    scale.forward([[4, 8], [-4, 0]])
    scale.backward([[1, 2], [3, 4]])
    np.testing.assert_array_equal(scale.output, [[1, 2], [-1, 0]])
    np.testing.assert_array_equal(scale.dweights, [[-8, 16]])
    np.testing.assert_array_equal(scale.dinputs, [[0.25, 0.5], [0.75, 1]])


def test_a_column_far_from_zero_keeps_its_variance(dtype):
    X = (1000 + np.arange(8.0)[:, None] * [1, 2]).astype(dtype)
    layer = nnx.Layer_BatchNorm(2)
    layer.forward(X)
    np.testing.assert_allclose(layer.batch_variance, [[5.25, 21.0]], rtol=1e-6)
    norm = nnx.Layer_LayerNorm(8)
    norm.forward(X[:, :1].T.copy())
    np.testing.assert_allclose(norm.output, layer.output[:, :1].T, rtol=1e-4, atol=1e-6)


@each_norm
def test_what_holds_one_number_only_becomes_the_offset(dtype, kind):
    layer = kind(3)
    layer.biases[:] = [[1, 2, 3]]
    layer.forward(np.full((4, 3), 7, dtype))
    np.testing.assert_array_equal(layer.output, np.tile([[1, 2, 3]], (4, 1)))
    layer.backward(np.ones((4, 3), dtype))
    assert np.isfinite(layer.dinputs).all()


@each_kind
def test_no_rows_give_no_rows(dtype, kind):
    layer = kind(3)
    for training in (True, False):
        layer.forward(np.empty((0, 3), dtype), training)
        layer.backward(np.empty((0, 3), dtype))
        assert layer.output.shape == layer.dinputs.shape == (0, 3)
        np.testing.assert_array_equal(layer.dweights, [[0, 0, 0]])
    if kind is nnx.Layer_BatchNorm:
        np.testing.assert_array_equal(layer.running_mean, [[0, 0, 0]])
        np.testing.assert_array_equal(layer.running_variance, [[1, 1, 1]])


# Gradients


@pytest.mark.usefixtures("float64")
@each_kind
@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (30, 1), (3, 20)])
def test_gradients_match_central_differences(rng, kind, shape):
    layer = made(kind, shape[1], rng)
    X, direction = rng.standard_normal((2, *shape))

    def objective():
        layer.forward(X)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    found = {name: getattr(layer, name) for name in ("dweights", "dbiases", "dinputs") if hasattr(layer, name)}
    assert_gradient(found["dweights"], objective, layer.weights)
    if "dbiases" in found:
        assert_gradient(found["dbiases"], objective, layer.biases)
    if shape != (30, 1) or kind is not nnx.Layer_LayerNorm:  # one column always gives 0
        assert_gradient(found["dinputs"], objective, X)


@pytest.mark.parametrize("rows", [511, 514, 1100])
def test_gradients_of_batch_norms_of_many_rows_are_the_formulas(dtype, rng, rows):
    layer = made(nnx.Layer_BatchNorm, 33, rng)
    X, dvalues = (rng.standard_normal((rows, 33)).astype(dtype) for _ in range(2))
    layer.forward(X, True)
    layer.backward(dvalues)
    d, z = dvalues.astype(float), (X - X.mean(0, float)) / np.sqrt(X.var(0, float) + layer.epsilon)
    weights, tolerance = layer.weights.astype(float), 2e-4 if dtype == np.float32 else 1e-10
    dinputs = weights * (d - d.mean(0) - z * (d * z).mean(0)) / np.sqrt(X.var(0, float) + layer.epsilon)
    for found, expected in ((layer.dweights, (d * z).sum(0)), (layer.dbiases, d.sum(0)), (layer.dinputs, dinputs)):
        np.testing.assert_allclose(np.squeeze(found), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("float64")
def test_gradients_after_another_forward_are_those_of_the_running_figures(rng):
    layer = made(nnx.Layer_BatchNorm, 4, rng)
    layer.forward(rng.standard_normal((50, 4)) * 2 + 1)
    X, direction = rng.standard_normal((2, 6, 4))

    def objective():
        layer.forward(X, training=False)
        return float(np.sum(layer.output * direction))

    objective()
    layer.backward(direction)
    dweights, dbiases, dinputs = layer.dweights, layer.dbiases, layer.dinputs
    assert_gradient(dinputs, objective, X)
    assert_gradient(dweights, objective, layer.weights)
    assert_gradient(dbiases, objective, layer.biases)
    np.testing.assert_allclose(
        dinputs, direction * layer.weights / np.sqrt(layer.running_variance + EPSILON), rtol=1e-12
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_model_of_norms_has_the_gradient_of_its_loss(rng, n):
    model = nnx.Model()
    for layer in (
        *(made(nnx.Layer_BatchNorm, 3, rng), nnx.Layer_Dense(3, 5, weight_initializer="he_normal")),
        *(made(nnx.Layer_LayerNorm, 5, rng), nnx.Activation_Tanh(), made(nnx.Layer_Scale, 5, rng)),
        *(nnx.Layer_Dense(5, 3, weight_initializer="he_normal"), nnx.Activation_Softmax()),
    ):
        model.add(layer)
    model.set(loss=nnx.Loss_CategoricalCrossentropy())
    model.finalize()
    X, y = rng.standard_normal((n, 3)), rng.integers(0, 3, n)

    def objective():
        return float(model.loss.calculate(model.forward(X, training=True), y))

    model.backward(model.forward(X, training=True), y)
    found = [
        (getattr(layer, f"d{name}"), getattr(layer, name))
        for layer in model.trainable_layers
        for name in layer._parameters
    ]
    for given, values in found:
        if n > 1 or values is not model.layers[0].weights:  # one row is its own mean, so 0 up to rounding
            assert_gradient(given, objective, values)


# The running statistics


def test_running_figures_follow_the_batches(dtype, rng):
    layer = nnx.Layer_BatchNorm(3, momentum=0.8)
    mean, variance = np.array([[0.0] * 3], np.float64), np.array([[1.0] * 3], np.float64)
    held = layer.running_mean, layer.running_variance
    for n in (2, 5, 64, 1, 7):
        X = (rng.standard_normal((n, 3)) * [1, 2, 3] + [4, 5, 6]).astype(dtype)
        layer.forward(X, training=True)
        if n > 1:
            exact = X.astype(np.float64)
            mean = 0.8 * mean + 0.2 * exact.mean(0)
            variance = 0.8 * variance + 0.2 * exact.var(0, ddof=1)
        tolerance = 1e-5 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(layer.running_mean, mean, rtol=tolerance)
        np.testing.assert_allclose(layer.running_variance, variance, rtol=tolerance)
    assert (layer.running_mean, layer.running_variance) == held, "they are changed in place"


def test_only_training_changes_the_running_figures(rng):
    layer = nnx.Layer_BatchNorm(2)
    layer.forward(rng.standard_normal((9, 2)), training=False)
    assert not hasattr(layer, "batch_mean")
    np.testing.assert_array_equal(layer.running_mean, [[0, 0]])
    np.testing.assert_array_equal(layer.running_variance, [[1, 1]])


@pytest.mark.parametrize("momentum", [0, 1, 0.5])
def test_momentum_is_the_part_that_is_kept(momentum):
    layer = nnx.Layer_BatchNorm(1, momentum=momentum, dtype="float64")
    layer.forward([[1.0], [3.0]])
    np.testing.assert_allclose(layer.running_mean, [[2 * (1 - momentum)]])
    np.testing.assert_allclose(layer.running_variance, [[momentum + 2 * (1 - momentum)]])


def test_one_row_leaves_the_running_figures_alone():
    layer = nnx.Layer_BatchNorm(2)
    layer.biases[:] = [[3, 4]]
    layer.forward([[5, 6]], training=True)
    np.testing.assert_array_equal(layer.output, [[3, 4]])
    np.testing.assert_array_equal(layer.batch_mean, [[5, 6]])
    np.testing.assert_array_equal(layer.batch_variance, [[0, 0]])
    np.testing.assert_array_equal(layer.running_mean, [[0, 0]])
    np.testing.assert_array_equal(layer.running_variance, [[1, 1]])
    layer.backward([[1, 1]])
    np.testing.assert_array_equal(layer.dinputs, [[0, 0]])
    np.testing.assert_array_equal(layer.dbiases, [[1, 1]])


def test_forwards_overwrite_nothing_that_a_caller_holds(rng):
    layer = nnx.Layer_BatchNorm(2)
    kept = []
    for _ in range(2):
        layer.forward(rng.standard_normal((4, 2)))
        layer.backward(np.ones((4, 2)))
        kept += [layer.output, layer.batch_mean, layer.batch_variance, layer.dinputs, layer.dweights, layer.dbiases]
    assert all(not np.shares_memory(a, b) for i, a in enumerate(kept) for b in kept[:i])


# Parameters and averages


@each_kind
def test_averages_are_what_predictions_use(rng, kind):
    layer = made(kind, 3, rng, dtype="float64")
    X = rng.standard_normal((5, 3))
    layer.forward(X, training=False)
    before = layer.output
    layer.weight_averages = np.full((1, 3), 2.0)
    layer.forward(X, training=False)
    offset = layer.biases if hasattr(layer, "biases") else 0
    np.testing.assert_allclose(layer.output, (before - offset) * 2 / layer.weights + offset)
    layer.forward(X, training=True)
    np.testing.assert_allclose(layer.output, expected_output(layer, X), rtol=1e-12, atol=1e-12)
    layer.set_parameters(*layer.get_parameters())
    assert not hasattr(layer, "weight_averages")


@each_kind
@pytest.mark.parametrize("make", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "AMSGrad", "Lion"])
def test_every_optimizer_updates_them(rng, kind, make):
    layer = made(kind, 3, rng)
    before = [array.copy() for array in layer.get_parameters()]
    optimizer = getattr(nnx, f"Optimizer_{make}")(0.1, clip_norm=1.0, average=0.9)
    for _ in range(2):
        layer.forward(rng.standard_normal((6, 3)))
        layer.backward(rng.standard_normal((6, 3)))
        optimizer.pre_update_params()
        optimizer.update_params(layer)
        optimizer.post_update_params()
    for old, new in zip(before, layer.get_parameters(), strict=True):
        assert (old != new).any()
    assert layer.weight_averages.shape == (1, 3)
    assert hasattr(layer, "bias_averages") == (kind is not nnx.Layer_Scale)


@each_kind
def test_what_is_assigned_is_cast_or_refused(kind):
    layer = kind(3)
    layer.weights = [[1, 2, 3]]
    layer.forward(np.ones((2, 3)))
    assert layer.weights.dtype == np.float32
    layer.weights = np.ones((1, 4))
    with pytest.raises(ValueError, match=rf"^{kind.__name__}.forward: weights must have shape \(1, 3\), got \(1, 4\)"):
        layer.forward(np.ones((2, 3)))
    with pytest.raises(ValueError, match=rf"^{kind.__name__}.set_parameters: weights must have shape"):
        layer.set_parameters(*[np.ones((3, 3))] * len(layer._parameters))


# Bad input


@each_kind
def test_arguments_that_are_none_are_refused(kind):
    name = kind.__name__
    for wrong, error in ((0, ValueError), (-3, ValueError), (2.5, TypeError), ("3", TypeError), (True, TypeError)):
        with pytest.raises(error, match=rf"^{name}: n_inputs must be a whole number"):
            kind(wrong)
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: dtype must be"):
        kind(3, dtype="float16")


@each_norm
@pytest.mark.parametrize("epsilon", [0, -1e-5, np.nan, np.inf])
def test_an_epsilon_that_is_not_above_zero_is_refused(kind, epsilon):
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: epsilon must be "):
        kind(3, epsilon=epsilon)
    layer = kind(3)
    layer.epsilon = epsilon
    with pytest.raises(ValueError, match=rf"^{kind.__name__}.forward: epsilon must be "):
        layer.forward(np.ones((2, 3)))


@pytest.mark.parametrize("momentum", [-0.1, 1.1, np.nan])
def test_a_momentum_beyond_zero_and_one_is_refused(momentum):
    with pytest.raises(ValueError, match=r"^Layer_BatchNorm: momentum must be a number from 0 to 1"):
        nnx.Layer_BatchNorm(3, momentum=momentum)
    layer = nnx.Layer_BatchNorm(3)
    layer.momentum = momentum
    with pytest.raises(ValueError, match=r"^Layer_BatchNorm.forward: momentum must be a number from 0 to 1"):
        layer.forward(np.ones((2, 3)))


def test_a_scale_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"^Layer_Scale: scale must be a finite number, got nan"):
        nnx.Layer_Scale(3, scale=np.nan)


@each_kind
def test_other_shapes_are_refused_before_anything_changes(kind):
    name, layer = kind.__name__, kind(3)
    with pytest.raises(RuntimeError, match=rf"^{name}.backward: {name} has no inputs yet. Call forward first"):
        layer.backward(np.ones((2, 3)))
    for wrong in (np.ones((2, 4)), np.ones(3), np.ones((2, 3, 1))):
        with pytest.raises(ValueError, match=rf"^{name}.forward: inputs must have shape \(n, 3\)"):
            layer.forward(wrong)
    assert not hasattr(layer, "output")
    layer.forward(np.ones((2, 3)))
    with pytest.raises(ValueError, match=rf"^{name}.backward: dvalues must have shape \(2, 3\), got \(3, 3\)"):
        layer.backward(np.ones((3, 3)))
    assert not hasattr(layer, "dinputs")


@pytest.mark.parametrize("name", ["running_mean", "running_variance"])
def test_running_figures_that_are_none_are_refused(name):
    layer = nnx.Layer_BatchNorm(3)
    setattr(layer, name, np.ones((1, 4)))
    with pytest.raises(ValueError, match=rf"^Layer_BatchNorm.forward: {name} must have shape \(1, 3\), got \(1, 4\)"):
        layer.forward(np.ones((2, 3)))
    setattr(layer, name, np.broadcast_to(np.float32(1), (1, 3)))
    with pytest.raises(ValueError, match=rf"^Layer_BatchNorm.forward: {name} must be a writable array"):
        layer.forward(np.ones((2, 3)))
    setattr(layer, name, [[1, 1, 1]])
    layer.forward(np.ones((2, 3)))
    assert getattr(layer, name).dtype == np.float32


def test_nothing_warns_on_numbers_that_overflow(dtype):
    largest = np.finfo(dtype).max
    X = np.array([[largest, np.nan, np.inf], [-largest, 1, 2], [1, 2, 3]], dtype)
    for kind in KINDS:
        layer = kind(3)
        layer.forward(X)
        layer.backward(X)
        layer.forward(X, training=False)
        layer.backward(X)


def test_running_statistics_that_nothing_writes_may_be_read_only(backend):
    X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    layer = nnx.Layer_BatchNorm(3)
    layer.running_mean.flags.writeable = layer.running_variance.flags.writeable = False
    layer.forward(X, training=False)
    layer.backward(X)
    np.testing.assert_allclose(layer.dinputs, X / np.sqrt(1 + layer.epsilon), rtol=1e-6)
    with pytest.raises(ValueError, match="running_mean must"):
        layer.forward(X, training=True)
