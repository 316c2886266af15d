"""Each built-in loss, found in the vocabulary: its definition, gradients, both ways of running, settings, files.

A loss that has no entry in `CASES` fails the first test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from differences import assert_gradient
from plans import Book, assert_alike, bits, left_behind
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import nnx
from nnx import _kernels, losses
from nnx._base.vocabulary import BUILT_IN
from nnx.cli import main
from nnx.engine import plan
from nnx.files import safetensors as tensor_files
from nnx.plot.parts import outputs_and_classes, single_output


def clip(loss, p):
    return np.clip(p, loss.clip, 1 - loss.clip)


def categorical(loss, p, y):
    s, m = loss.label_smoothing, p.shape[1]
    target = (1 - s) * (y[:, None] == np.arange(m)) + s / m
    return -np.sum(target * np.log(clip(loss, p)), axis=1)


def binary(loss, p, y):
    y = (1 - loss.label_smoothing) * y + loss.label_smoothing / 2
    p = clip(loss, p)
    return loss.factor * np.mean(-(loss.pos_weight * y * np.log(p) + (1 - y) * np.log(1 - p)), axis=1)


def huber(loss, p, y):
    d = np.abs(p - y)
    return np.mean(np.where(d <= loss.delta, d**2 / 2, loss.delta * (d - loss.delta / 2)), axis=1)


def pinball(loss, p, y):
    q = np.array(loss.quantiles * (p.shape[1] // len(loss.quantiles)))
    d = np.repeat(y, len(loss.quantiles), axis=1) - p
    return np.mean(np.maximum(q * d, (q - 1) * d), axis=1)


def poisson(loss, p, y):
    return loss.factor * np.mean(np.exp(p) - y * p if loss.log_input else p - y * np.log(p + 1e-8), axis=1)


def classes(rng, n, m):
    return rng.integers(0, m, n)


def normal(rng, n, m):
    return rng.standard_normal((n, m))


def probable(rng, n, m):
    return rng.uniform(0.05, 0.95, (n, m))


class Case(NamedTuple):
    """A loss: its definition in float64, and the data for its tests.

    Attributes
    ----------
    definition : callable
        Given the loss, predictions (n, m) and targets, float64; returns the losses of the samples.
    targets, predictions : callable
        Given a generator, n and m.
    settings : list of dict
        Arguments to try; those after the first are also assigned, one after the other, to one loss.
    bad_settings, bad_targets : lists of (argument or targets, part of the error)
        The targets are for predictions of shape (2, 1), of (2, 2) for classes, and of (2, quantiles).
    multiple : int
        Of outputs for each target.
    last : class
        A last layer whose outputs suit all the settings, if the loss needs no other.
    """

    definition: Callable[..., Any]
    targets: Callable[..., Any] = normal
    predictions: Callable[..., Any] = normal
    settings: tuple[dict[str, Any], ...] = ({},)
    bad_settings: tuple[tuple[dict[str, Any], str], ...] = ()
    bad_targets: tuple[tuple[Any, str], ...] = ()
    multiple: int = 1
    last: Any = nnx.Activation_Linear


SMOOTHING = (
    ({"label_smoothing": 1.0}, "label_smoothing must be a number from 0 up to, but not including, 1, got 1.0."),
    ({"label_smoothing": -0.1}, "label_smoothing must be a number from 0 up to, but not including, 1, got -0.1."),
    ({"label_smoothing": "a"}, "label_smoothing must be a number, got 'a'."),
)
RANGE = "must be a number from 1e-30 to 1e+30, got "
FACTOR = (
    ({"factor": 0}, f"factor {RANGE}0."),
    ({"factor": -1.0}, f"factor {RANGE}-1.0."),
    ({"factor": float("nan")}, f"factor {RANGE}nan."),
    ({"factor": 1e39}, f"factor {RANGE}1e+39."),
    ({"factor": "a"}, "factor must be a number, got 'a'."),
)
CLIP = (
    ({"clip": 0}, "clip must be a number from 1e-30 to 0.1, got 0."),
    ({"clip": 0.2}, "clip must be a number from 1e-30 to 0.1, got 0.2."),
    ({"clip": float("nan")}, "clip must be a number from 1e-30 to 0.1, got nan."),
    ({"clip": "a"}, "clip must be a number, got 'a'."),
)
CASES = {
    nnx.Loss_CategoricalCrossentropy: Case(
        categorical,
        classes,
        probable,
        ({}, {"label_smoothing": 0.1}, {"label_smoothing": 0.7, "clip": 1e-4}),
        (*SMOOTHING, *CLIP),
        (([0, 2], "y_true must hold class numbers from 0 to 1, got 2 at position 1."),),
    ),
    nnx.Loss_BinaryCrossentropy: Case(
        binary,
        lambda rng, n, m: rng.integers(0, 2, (n, m)).astype(float),
        probable,
        (
            {},
            {"label_smoothing": 0.1},
            {"pos_weight": 3.0},
            {"label_smoothing": 0.2, "pos_weight": 0.25, "factor": 3.0, "clip": 1e-4},
        ),
        (
            *SMOOTHING,
            *FACTOR,
            *CLIP,
            ({"pos_weight": 0}, f"pos_weight {RANGE}0."),
            ({"pos_weight": -1.0}, f"pos_weight {RANGE}-1.0."),
            ({"pos_weight": 1e39}, f"pos_weight {RANGE}1e+39."),
            ({"pos_weight": [1.0, 0.0]}, f"pos_weight[1] {RANGE}0.0."),
            ({"pos_weight": []}, "pos_weight must hold at least one number, got none."),
            ({"pos_weight": "a"}, "pos_weight must be a number, got 'a'."),
            ({"pos_weight": np.array(2.0)}, "pos_weight must be a number"),
        ),
        (([0, 1.5], "y_true must hold numbers from 0 to 1, got 1.5 in row 1, column 0."),),
    ),
    nnx.Loss_MeanSquaredError: Case(
        lambda loss, p, y: loss.factor * np.mean((y - p) ** 2, axis=1),
        settings=({}, {"factor": 0.5}),
        bad_settings=FACTOR,
    ),
    nnx.Loss_MeanAbsoluteError: Case(lambda loss, p, y: np.mean(np.abs(y - p), axis=1)),
    nnx.Loss_Huber: Case(
        huber,
        settings=({}, {"delta": 0.3}, {"delta": 2.5}),
        bad_settings=(
            ({"delta": 0}, f"delta {RANGE}0."),
            ({"delta": -1.0}, f"delta {RANGE}-1.0."),
            ({"delta": float("nan")}, f"delta {RANGE}nan."),
            ({"delta": "a"}, "delta must be a number, got 'a'."),
        ),
    ),
    nnx.Loss_LogCosh: Case(lambda loss, p, y: np.mean(np.log(np.cosh(p - y)), axis=1)),
    nnx.Loss_Pinball: Case(
        pinball,
        settings=({}, {"quantiles": (0.8, 0.01, 0.5)}, {"quantiles": (0.25, 0.3, 0.99)}),
        bad_settings=(
            ({"quantiles": ()}, "quantiles must hold at least one number, got none."),
            ({"quantiles": 0.5}, "quantiles must be a sequence of numbers, got 0.5."),
            ({"quantiles": "ab"}, "quantiles must be a sequence of numbers, got 'ab'."),
            ({"quantiles": (0.5, 1.0)}, "quantiles[1] must be above 0 and below 1, got 1.0."),
            ({"quantiles": (0.0,)}, "quantiles[0] must be above 0 and below 1, got 0.0."),
            ({"quantiles": (0.5, "a")}, "quantiles[1] must be a number, got 'a'."),
            ({"quantiles": [[0.5, 0.6]]}, "quantiles[0] must be a number, got [0.5, 0.6]."),
        ),
        bad_targets=(
            ([[1.0, 2.0], [1.0, 2.0]], "y_true must have shape (2, 1), a column for each target, or (2, 3), one for "),
            ([1.0, 2.0, 3.0], "y_true must have shape (2, 1), a column for each target, or (2, 3), one for "),
        ),
        multiple=3,
    ),
    nnx.Loss_Poisson: Case(
        poisson,
        lambda rng, n, m: rng.poisson(2.0, (n, m)).astype(float),
        probable,
        ({}, {"log_input": False}, {"log_input": True, "factor": 0.3}),
        (({"log_input": 1}, "log_input must be True or False, got 1."), *FACTOR),
        (([0.0, -1.0], "y_true must hold numbers of at least 0, got -1.0 in row 1, column 0."),),
        last=nnx.Activation_Sigmoid,
    ),
    nnx.Loss_Hinge: Case(
        lambda loss, p, y: np.mean(np.maximum(0, loss.margin - y * p), axis=1),
        lambda rng, n, m: 2.0 * rng.integers(0, 2, (n, m)) - 1,
        normal,
        ({}, {"margin": 0.3}, {"margin": 2.0}),
        (({"margin": 0}, f"margin {RANGE}0."), ({"margin": "a"}, "margin must be a number, got 'a'.")),
        (
            ([1.0, 0.5], "y_true must hold -1 and 1, or 0 and 1, got 0.5 in row 1, column 0."),
            ([float("nan"), 1], "y_true must hold -1 and 1, or 0 and 1, got nan in row 0, column 0."),
            ([0, -1], "y_true must hold -1 and 1, or 0 and 1, not all three, got -1.0 in row 1, column 0."),
        ),
    ),
}
KINDS = BUILT_IN["loss"]
WITH_CLIP = [kind for kind in KINDS if "clip" in kind._arguments]
#: Settings that older files lack, with a value other than theirs.
ADDED = [
    (kind, name, value)
    for name, value in (("factor", 0.5), ("clip", 1e-15))
    for kind in KINDS
    if name in kind._arguments
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
each_setting = pytest.mark.parametrize(
    ("kind", "settings"),
    [pytest.param(kind, each, id=f"{kind.__name__}-{each}") for kind, case in CASES.items() for each in case.settings],
)


def test_each_loss_has_a_case():
    assert set(CASES) == set(KINDS)


def test_each_loss_is_public():
    assert {kind.__name__ for kind in KINDS} < set(losses.__all__)


def drawn(kind, n, m, seed=0, dtype="float64"):
    """Return predictions (n, m) and targets; m is a multiple of the outputs for each target."""
    rng, case = np.random.default_rng(seed), CASES[kind]
    targets = case.targets(rng, n, m // case.multiple)
    return case.predictions(rng, n, m).astype(dtype), targets if targets.dtype.kind == "i" else targets.astype(dtype)


def widths(kind):
    """Return numbers of outputs: one, several, more than the lanes of a vector, each a valid multiple."""
    least = 2 if CASES[kind].targets is classes else 1
    return [CASES[kind].multiple * max(least, width) for width in (1, 3, 7, 37)]


# Arithmetic


@each_setting
@pytest.mark.parametrize("n", [1, 5, 67])
def test_loss_is_its_definition(dtype, kind, settings, n):
    loss = kind(**settings)
    for m in widths(kind):
        p, y = drawn(kind, n, m, dtype=dtype)
        found = loss.forward(p, y)
        expected = CASES[kind].definition(loss, p.astype(float), y.astype(float))
        assert (found.shape, found.dtype) == ((n,), dtype)
        # p and y themselves are rounded before they are subtracted: errors are relative to them.
        np.testing.assert_allclose(found, expected, rtol=40 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


@each_setting
@pytest.mark.usefixtures("float64")
def test_gradient_matches_central_differences(kind, settings):
    loss = kind(**settings)
    for m in widths(kind):
        p, y = drawn(kind, 5, m, seed=m)
        loss.backward(p, y)
        assert_gradient(loss.dinputs, lambda p=p, y=y: float(np.mean(loss.forward(p, y))), p)


PAIRED = [
    pytest.param(kind, each, id=f"{kind.__name__}-{each}")
    for kind, case in CASES.items()
    for each in case.settings
    if kind._pair is not None
]


@pytest.mark.parametrize(("kind", "settings"), PAIRED)
@pytest.mark.usefixtures("float64")
def test_gradient_through_the_pairs_activation_matches_central_differences(kind, settings):
    loss, activation = kind(**settings), kind._pair()
    for m in widths(kind):
        x = np.random.default_rng(m).normal(size=(5, m))
        _, y = drawn(kind, 5, m, seed=m)

        def mean(x=x, y=y):
            activation.forward(x)
            return float(np.mean(loss.forward(activation.output, y)))

        mean()
        assert_gradient(loss._pair_gradient("test", activation.output, y), mean, x)


@pytest.mark.parametrize(("kind", "settings"), PAIRED)
def test_no_logit_is_too_large(dtype, kind, settings):
    loss, activation = kind(**settings), kind._pair()
    m = 3
    x = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4], [88, -88, 104]], dtype)
    _, y = drawn(kind, len(x), m, dtype=dtype)
    activation.forward(x)
    p = activation.output.astype(float)
    assert np.isfinite(loss.forward(activation.output, y)).all()
    found = loss._pair_gradient("test", activation.output, y)
    s = loss.label_smoothing
    if kind is nnx.Loss_CategoricalCrossentropy:
        expected = (p - ((1 - s) * (y[:, None] == np.arange(m)) + s / m)) / len(x)
    else:
        t = (1 - s) * y.astype(float) + s / 2
        expected = loss.factor * ((1 - t) * p - loss.pos_weight * t * (1 - p)) / p.size
    np.testing.assert_allclose(found, expected, rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps / 4)
    loss.backward(activation.output, y)
    activation.backward(loss.dinputs)
    assert np.isfinite(activation.dinputs).all()


@pytest.mark.parametrize("kind", WITH_CLIP, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("near", [0.1, 1e-7, 1e-15, 2.220446049250313e-16, 1e-30])
def test_clip_says_how_near_to_0_and_1_the_logarithm_comes(dtype, kind, near):
    loss, one, least = kind(clip=near), dtype.type(1), dtype.type(near)
    p = np.array([0, least / 3, least, 0.3, one - least / 3, 1], dtype)
    bounded = np.clip(p, least, min(one - least, one - np.finfo(dtype).epsneg)).astype(float)
    for y, kept in ((1, bounded), (0, 1 - bounded)):
        if kind is nnx.Loss_CategoricalCrossentropy:
            kept = bounded
            found = loss.forward(np.stack([p, one - p], axis=1), np.zeros(len(p), np.intp))
        else:
            found = loss.forward(p[:, None], np.full(len(p), y, dtype))
            loss.backward(p[:, None], np.full(len(p), y, dtype))
            expected = (1 - 2 * y) / kept[:, None] / len(p)
            np.testing.assert_allclose(loss.dinputs, expected, rtol=8 * np.finfo(dtype).eps)
        np.testing.assert_allclose(found, -np.log(kept), rtol=8 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


@pytest.mark.parametrize("layers", ["2-64,64-m", "2-9,9-m"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", WITH_CLIP, ids=lambda kind: kind.__name__)
def test_clip_holds_in_training_and_evaluation(dtype, planned, backend, kind, smoothing, layers):
    """With most probabilities beyond the clip."""
    for m in outputs(kind):
        X, y = data_for(kind, 53, m, dtype=dtype)
        for near in (0.05, 1e-3):
            for each in (nnx.Model(), Book()):
                model = network(kind, {"label_smoothing": smoothing, "clip": near}, layers, m, dtype, each)
                model.layers[-2].weights *= 30
                p = model.predict(X).astype(float)
                expected = CASES[kind].definition(model.loss, p, y.astype(float)).mean()
                assert ((p < 0.05) | (p > 0.95)).mean() > 0.5
                assert model.evaluate(X, y, silent=True)["loss"] == pytest.approx(expected, rel=1e-3)
                assert model.train(X, y, print_every=None).loss[0] == pytest.approx(expected, rel=1e-3)
    assert planned == [backend != "numpy", False] * 4


def test_the_fused_class_takes_the_losss_clip(dtype):
    fused = nnx.Activation_Softmax_Loss_CategoricalCrossentropy()
    fused.loss.clip = 0.05
    found = fused.forward(np.array([[0, 50], [50, 0]], dtype), [0, 0])
    assert float(found) == pytest.approx(-(np.log(0.05) + np.log(0.95)) / 2, rel=1e-5)


def test_a_heavy_weight_leaves_the_slope_of_a_sure_prediction_its_digits(dtype):
    loss = nnx.Loss_BinaryCrossentropy(pos_weight=1000.0)
    p = 1 - 2 * np.finfo(dtype).eps
    found = loss._pair_gradient("test", np.array([[p]], dtype), [1])
    np.testing.assert_allclose(found, [[-1000 * 2 * np.finfo(dtype).eps]], rtol=4 * np.finfo(dtype).eps)


@each_setting
def test_backends_agree(dtype, kind, settings):
    loss, native, reference = kind(**settings), _kernels.backend, _kernels.load("numpy")
    eps = np.finfo(dtype).eps
    for m in widths(kind):
        p, y = drawn(kind, 19, m, dtype=dtype)
        y = loss._targets("test", "y", y, p.shape, dtype)
        given = loss._settings("test", m)
        sides = []
        for backend in (native, reference):
            sample_losses, gradient, paired = np.empty(19, dtype), np.empty_like(p), np.zeros_like(p)
            backend.loss_forward(loss._kernel, p, y, sample_losses, *given)
            backend.loss_backward(loss._kernel, p, y, gradient, *given)
            if loss._pair is not None:
                backend.pair_backward(loss._kernel, p, y, paired, *given)
            sides.append((sample_losses, gradient, paired))
        for found, expected in zip(*sides, strict=True):
            np.testing.assert_allclose(found, expected, rtol=16 * eps, atol=8 * eps * np.abs(expected).max())


@each_setting
def test_what_is_not_finite_passes_through_without_warnings(dtype, kind, settings):
    loss = kind(**settings)
    m = CASES[kind].multiple * 2
    _, y = drawn(kind, 3, m, dtype=dtype)
    p = np.full((3, m), 0.5, dtype)
    p[0], p[1] = np.nan, np.inf
    found = loss.forward(p, y)
    loss.backward(p, y)
    assert np.isnan(found[0])
    assert np.isnan(loss.dinputs[0]).any()
    assert np.isfinite(found[2])
    assert np.isfinite(loss.dinputs[2]).all()
    assert loss.dinputs[1].dtype == dtype


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_slopes_at_kinks(dtype, value):
    at = np.array([[value]], dtype)
    for loss in (nnx.Loss_Pinball((0.3,)), nnx.Loss_MeanAbsoluteError(), nnx.Loss_Huber(), nnx.Loss_LogCosh()):
        loss.backward(at, at)
        assert loss.dinputs == 0
        assert loss.forward(at, at) == 0
    hinge = nnx.Loss_Hinge(margin=2.0)
    for sign in (-1, 1):
        hinge.backward(np.array([[2.0 * sign]], dtype), [sign])
        assert hinge.dinputs == 0


def test_log_cosh_of_small_and_of_large_errors_keeps_its_digits(dtype):
    errors = np.array([1e-6, 1e-4, 1e-2, 0.4999, 0.5, 20.0, 1e4, 1e15])
    found = nnx.Loss_LogCosh().forward(errors.astype(dtype)[:, None], np.zeros(len(errors)))
    d = errors.astype(dtype).astype(float)
    with np.errstate(over="ignore"):
        expected = np.where(d < 300, np.log(np.cosh(d)), d - np.log(2))
        expected = np.where(d < 0.1, d**2 / 2 - d**4 / 12 + d**6 / 45, expected)
    np.testing.assert_allclose(found, expected, rtol=max(1e-12, 8 * np.finfo(dtype).eps))


# Settings and targets


@each_kind
def test_bad_settings_are_refused_in_constructor_and_when_used(kind):
    p, y = drawn(kind, 2, CASES[kind].multiple * 2)
    for settings, problem in CASES[kind].bad_settings:
        with pytest.raises((ValueError, TypeError), match=f"^{kind.__name__}: {re.escape(problem)}"):
            kind(**settings)
        loss = kind()
        vars(loss).update(settings)
        for method in (loss.forward, loss.backward):
            with pytest.raises((ValueError, TypeError), match=rf"^{kind.__name__}\.\w+: {re.escape(problem)}"):
                method(p, y)
    assert bool(CASES[kind].bad_settings) == bool(kind._arguments)


@each_kind
def test_bad_targets_are_refused_before_anything_changes(kind):
    m = 2 if CASES[kind].targets is classes else CASES[kind].multiple
    for y, problem in CASES[kind].bad_targets:
        with pytest.raises((ValueError, TypeError), match=rf"^{kind.__name__}\.forward: {re.escape(problem)}"):
            kind().forward(np.full((2, m), 0.5), y)
        model = network(kind, {}, "2-4,4-m", m)
        weights = model.layers[0].weights.copy()
        problem = problem.replace("y_true", "y", 1)
        if len(y) == 2 and not np.isnan(y).any():
            with pytest.raises((ValueError, TypeError), match=rf"^Model\.train: {re.escape(problem)}"):
                model.train(np.ones((2, 2)), y, print_every=None)
            assert (model.layers[0].weights == weights).all()


def test_each_output_may_have_a_weight_of_its_own(dtype):
    p, y = drawn(nnx.Loss_BinaryCrossentropy, 19, 3, dtype=dtype)
    weights = [0.5, 2.0, 7.0]
    loss = nnx.Loss_BinaryCrossentropy(pos_weight=weights)
    expected = binary(loss, p.astype(float), y.astype(float))
    np.testing.assert_allclose(loss.forward(p, y), expected, rtol=40 * np.finfo(dtype).eps)
    loss.backward(p, y)
    for column, weight in enumerate(weights):
        alone = nnx.Loss_BinaryCrossentropy(pos_weight=weight)
        alone.backward(p[:, [column]], y[:, column])
        np.testing.assert_allclose(loss.dinputs[:, column] * 3, alone.dinputs[:, 0], rtol=8 * np.finfo(dtype).eps)
    with pytest.raises(ValueError, match=r"forward: pos_weight must hold one number for each of 2 outputs, got 3\.$"):
        loss.forward(p[:, :2], y[:, :2])


def test_outputs_that_are_no_multiple_of_the_quantiles_are_refused():
    with pytest.raises(
        ValueError, match=r"^Loss_Pinball\.forward: the number of outputs must be a multiple of 3, the "
    ):
        nnx.Loss_Pinball().forward(np.ones((2, 4)), np.ones((2, 1)))
    model = network(nnx.Loss_Pinball, {}, "2-4,4-m", 4)
    with pytest.raises(ValueError, match=r"^Model\.train: the number of outputs must be a multiple of 3, .*, got 4\.$"):
        model.train(np.ones((2, 2)), [1.0, 2.0], print_every=None)


def test_zeros_and_ones_are_the_signs_of_the_hinge_loss(dtype):
    p, y = drawn(nnx.Loss_Hinge, 19, 3, dtype=dtype)
    loss = nnx.Loss_Hinge()
    assert loss.forward(p, y).tobytes() == loss.forward(p, (y + 1) / 2).tobytes()
    assert loss.forward(p, y).tobytes() == loss.forward(p, y > 0).tobytes()


@each_setting
def test_repr_and_config_make_the_same_loss_again(kind, settings):
    loss = kind(**settings)
    assert vars(eval(repr(loss), vars(nnx.losses))) == vars(loss)
    assert vars(kind(**json.loads(json.dumps(loss.get_config())))) == vars(loss)


# Models


def network(kind, settings, layers, m, dtype="float64", model=None, accuracy=None, last=None):
    """Return a model of the layers "2-4,4-m", with ReLU between them and the loss's activation after them."""
    model = nnx.Model() if model is None else model
    rng = np.random.default_rng(1)
    for place, word in enumerate(layers.replace("m", str(m)).split(",")):
        if place:
            model.add(nnx.Activation_ReLU())
        n_in, n_out = map(int, word.split("-"))
        layer = nnx.Layer_Dense(n_in, n_out, dtype=dtype)
        layer.weights[:] = rng.normal(size=(n_in, n_out)) / np.sqrt(n_in)
        layer.biases[:] = 0.1 * rng.normal(size=(1, n_out))
        model.add(layer)
    model.add((kind._pair or last or CASES[kind].last)())
    if accuracy is None:
        binary = CASES[kind].targets is not classes
        accuracy = nnx.Accuracy_Categorical(binary=binary) if kind._predicts == "classes" else nnx.Accuracy_Regression()
    model.set(loss=kind(**settings), optimizer=nnx.Optimizer_Adam(0.01), accuracy=accuracy)
    model.finalize()
    return model


def data_for(kind, n, m, seed=0, dtype="float64", n_inputs=2):
    _, y = drawn(kind, n, m, seed, dtype)
    return np.random.default_rng(seed + 1).normal(size=(n, n_inputs)).astype(dtype), y


def outputs(kind):
    """Return one output, if one is allowed, and several."""
    least = 2 if CASES[kind].targets is classes else 1
    return [CASES[kind].multiple * least, CASES[kind].multiple * 2]


def trained(model, X, y, **arguments):
    np.random.seed(3)
    model.train(X, y, **{"print_every": None, **arguments})
    return left_behind(model)


@pytest.mark.parametrize("layers", ["2-64,64-m", "2-9,9-5,5-m", "2-40,40-40,40-m"])
@each_setting
def test_plan_and_layer_by_layer_agree(dtype, planned, backend, kind, settings, layers):
    for m in outputs(kind):
        X, y = data_for(kind, 53, m, dtype=dtype)
        found, expected = (
            (
                trained(model, X, y, epochs=3, batch_size=20, shuffle=True, seed=1),
                model.evaluate(X, y, batch_size=15, silent=True),
            )
            for model in (network(kind, settings, layers, m, dtype, each) for each in (nnx.Model(), Book()))
        )
        tolerance = 1e-9 if dtype == np.float64 else 2e-3
        assert_alike(found[0], expected[0], tolerance)
        assert found[1]["loss"] == pytest.approx(expected[1]["loss"], rel=tolerance)
        assert found[1]["accuracy"] == pytest.approx(expected[1]["accuracy"], abs=0.05 if tolerance > 1e-6 else 1e-12)
    assert planned == [backend != "numpy", False] * 2


@pytest.mark.few
@pytest.mark.parametrize("layers", ["2-64,64-m", "2-9,9-m"])
@each_setting
def test_bits_do_not_depend_on_the_number_of_threads(compiled, monkeypatch, kind, settings, layers):
    for name in ("LEAST_STEP", "LEAST_CALL"):
        monkeypatch.setattr(plan, name, 0)
    monkeypatch.setattr(plan, "LEAST_ROWS", 1)
    for m in outputs(kind):
        X, y = data_for(kind, 150, m, dtype="float32")
        found = [
            bits(trained(network(kind, settings, layers, m, "float32"), X, y, epochs=2, batch_size=67, threads=threads))
            for threads in (1, 3)
        ]
        assert found[0] == found[1]


@pytest.mark.parametrize("layers", ["2-64,64-m", "2-9,9-m"])
@each_kind
def test_settings_assigned_between_two_trainings_take_effect(kind, layers):
    """Also for a repeated call of one step, which compares settings and does not read them."""
    for m in outputs(kind):
        X, y = data_for(kind, 20, m)
        model, twin = (network(kind, {}, layers, m, model=each) for each in (nnx.Model(), Book()))
        for settings in (*CASES[kind].settings, {}):
            for each in (model, twin):
                vars(each.loss).update(settings)
            for _ in range(3):
                assert_alike(trained(model, X, y), trained(twin, X, y), 1e-9)


@each_kind
def test_repeated_calls_leave_what_other_calls_leave(compiled, kind):
    for m in outputs(kind):
        models = [network(kind, {}, "2-9,9-m", m) for _ in range(2)]
        for seed in range(4):
            X, y = data_for(kind, 20, m, seed)
            models[1]._again = None
            found, expected = (bits(trained(model, X, y)) for model in models)
            assert found == expected


@each_setting
def test_a_saved_model_keeps_its_settings(tmp_path, kind, settings):
    model = network(kind, settings, "2-4,4-m", outputs(kind)[1])
    model.save(tmp_path / "model")
    loaded = nnx.Model.load(tmp_path / "model")
    assert type(loaded.loss) is kind
    assert loaded.loss.get_config() == model.loss.get_config()
    X, y = data_for(kind, 9, outputs(kind)[1])
    assert loaded.evaluate(X, y, silent=True) == model.evaluate(X, y, silent=True)


@each_kind
def test_a_damaged_setting_in_a_file_is_refused(tmp_path, kind):
    path = tmp_path / "model"
    network(kind, {}, "2-4,4-m", outputs(kind)[1]).save(path)
    tensors = load_file(path)
    for settings, _ in CASES[kind].bad_settings:
        if any(isinstance(value, np.ndarray) or value != value for value in settings.values()):
            continue  # JSON cannot hold it
        with safe_open(path, "numpy") as file:
            description = json.loads(file.metadata()["nnx"])
        description.pop("crc32")
        description["loss"]["config"].update(settings)
        description["crc32"] = tensor_files._checksum(json.loads(json.dumps(description)), tensors)
        damaged = tmp_path / "damaged"
        save_file(tensors, damaged, {"nnx": json.dumps(description)})
        with pytest.raises(nnx.ModelFileError, match=next(iter(settings))):
            nnx.Model.load(damaged)


@pytest.mark.parametrize(("kind", "name", "other"), ADDED)
def test_a_file_holds_a_setting_that_was_added_only_where_it_is_another(tmp_path, kind, name, other):
    """Files from before these settings load, and older versions read today's files."""
    usual = getattr(kind(), name)
    for value in (usual, other):
        network(kind, {name: value}, "2-4,4-m", outputs(kind)[1]).save(tmp_path / "model")
        with safe_open(tmp_path / "model", "numpy") as file:
            described = json.loads(file.metadata()["nnx"])["loss"]["config"]
        assert described.get(name, "none") == ("none" if value == usual else value)
        assert getattr(nnx.Model.load(tmp_path / "model").loss, name) == value


@each_kind
def test_only_a_loss_that_takes_probabilities_restricts_the_last_layer(kind):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 6))
    model.add(nnx.Activation_ReLU())
    model.set(loss=kind(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Categorical())
    if kind._needs_pair:
        with pytest.raises(ValueError, match=rf"last layer must be {kind._pair.__name__} for {kind.__name__}"):
            model.finalize()
    else:
        model.finalize()


# Outputs in the targets' own terms


class Judged(NamedTuple):
    """A loss, a number of outputs and an accuracy; the answers for given outputs; the targets to compare with."""

    loss: Any
    m: int
    accuracy: Any
    answers: Callable[[Any], Any]
    compared: Callable[[Any], Any] = np.asarray


def signs(values):
    return (np.asarray(values) > 0) * 1


JUDGED = {
    "hinge, one output": Judged(nnx.Loss_Hinge(), 1, nnx.Accuracy_Categorical(binary=True), signs, signs),
    "hinge, one output, as classes": Judged(nnx.Loss_Hinge(), 1, nnx.Accuracy_Categorical(), signs, signs),
    "hinge, several": Judged(nnx.Loss_Hinge(), 3, nnx.Accuracy_Categorical(binary=True), signs, signs),
    "pinball": Judged(nnx.Loss_Pinball((0.9, 0.4, 0.6)), 3, nnx.Accuracy_Regression(), lambda p: p[:, [1]]),
    "pinball, two targets": Judged(nnx.Loss_Pinball(), 6, nnx.Accuracy_Regression(), lambda p: p[:, 1::3]),
    "poisson": Judged(nnx.Loss_Poisson(), 2, nnx.Accuracy_Regression(), np.exp),
    "poisson of rates": Judged(nnx.Loss_Poisson(log_input=False), 2, nnx.Accuracy_Regression(), np.asarray),
}


@pytest.mark.parametrize("judged", JUDGED.values(), ids=JUDGED.keys())
@pytest.mark.parametrize("layers", ["2-64,64-m", "2-9,9-m"])
def test_accuracy_and_report_compare_what_outputs_say(dtype, judged, layers):
    loss, kind = judged.loss, type(judged.loss)
    figures = []
    for each in (nnx.Model(), Book()):
        last = nnx.Activation_ReLU if loss.get_config().get("log_input") is False else nnx.Activation_Linear
        model = network(kind, loss.get_config(), layers, judged.m, dtype, each, judged.accuracy, last)
        X, y = data_for(kind, 40, judged.m, dtype=dtype)
        if kind is not nnx.Loss_Hinge:
            judged.accuracy.precision = 0.8
        said, true = judged.answers(model.predict(X).astype(float)), judged.compared(y)
        hits = said == true if kind is nnx.Loss_Hinge else np.abs(said - true) < 0.8
        assert 0.1 < hits.mean() < 0.9
        assert model.evaluate(X, y, batch_size=7, silent=True)["accuracy"] == pytest.approx(hits.mean())
        report = model.report(X, y)
        if kind is nnx.Loss_Hinge:
            assert report.score == pytest.approx(hits.mean())
            assert np.isnan(report.log_loss)
            assert model.report(X, (y + 1) / 2).to_dict() == report.to_dict()
        else:
            assert report.mean_absolute_error == pytest.approx(np.abs(said - true).mean())
        history = model.train(X, y, print_every=None)
        assert history.accuracy[0] == pytest.approx(hits.mean())
        figures.append(history.accuracy[0])
    assert figures[0] == figures[1]


def test_hinge_with_a_column_for_each_class_is_judged_by_the_largest(dtype):
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(40, 2)).astype(dtype), rng.integers(0, 3, 40)
    for given in (np.eye(3)[labels], 2 * np.eye(3)[labels] - 1):
        for each in (nnx.Model(), Book()):
            model = network(nnx.Loss_Hinge, {}, "2-9,9-m", 3, dtype, each, nnx.Accuracy_Categorical())
            hits = np.argmax(model.predict(X), axis=1) == labels
            assert model.evaluate(X, given, silent=True)["accuracy"] == pytest.approx(hits.mean())
            assert model.score(X, given) == pytest.approx(hits.mean())


def table_of(tmp_path, targets):
    path = tmp_path / "data.csv"
    path.write_text("x,target\n" + "".join(f"{x},{y}\n" for x, y in enumerate(targets)))
    table = nnx.load_csv(path, target="target", test_size=0)[-1]
    return *table.read_samples(path), table


def predicted(tmp_path, capsys, model, table):
    """Return what `nnx predict` answers for the table's own file."""
    model.table = table
    model.save(tmp_path / "model")
    assert main(["predict", str(tmp_path / "model"), str(tmp_path / "data.csv"), "-o", "-"]) == 0
    return capsys.readouterr().out.split()[1:]


def test_the_command_predict_names_the_class_of_the_hinge_losss_sign(tmp_path, capsys):
    X, y, table = table_of(tmp_path, ["no", "yes"] * 10)
    model = network(nnx.Loss_Hinge, {}, "1-m", 1, "float32")
    model.set_parameters([(np.full((1, 1), 0.1), np.full((1, 1), 0.05))])
    outputs = model.predict(X)
    assert (np.abs(outputs) < 0.5).all()
    assert predicted(tmp_path, capsys, model, table) == ["yes" if x > 0 else "no" for x in outputs[:, 0]]
    assert model.report(X, y).accuracy == ((outputs[:, 0] > 0) == y.reshape(-1)).mean()


def test_the_command_predict_answers_with_the_quantile_nearest_to_the_median(tmp_path, capsys):
    X, _, table = table_of(tmp_path, [1.5, 2.5, 7.5, 3.5, 0.5])
    model = network(nnx.Loss_Pinball, {"quantiles": (0.9, 0.6)}, "1-m", 2, "float32")
    found = np.array(predicted(tmp_path, capsys, model, table), float)
    np.testing.assert_allclose(found, table.decode(model.predict(X)[:, [1]]), atol=1e-4)


def test_pictures_show_what_outputs_say(tmp_path):
    X, _ = data_for(nnx.Loss_Pinball, 20, 3, n_inputs=1)
    pinball = network(nnx.Loss_Pinball, {}, "1-9,9-m", 3)
    np.testing.assert_array_equal(single_output("test", pinball, X), pinball.predict(X)[:, [1]])
    hinge = network(nnx.Loss_Hinge, {}, "1-9,9-m", 1)
    output, classes = outputs_and_classes("test", hinge, X)
    np.testing.assert_array_equal(classes, (output[:, 0] > 0).astype(int))


def test_a_target_for_each_quantile_is_the_same_as_one_for_all():
    X, y = data_for(nnx.Loss_Pinball, 20, 6)
    for each in (nnx.Model(), Book()):
        model = network(nnx.Loss_Pinball, {}, "2-9,9-m", 6, model=each)
        repeated = np.repeat(y, 3, axis=1)
        assert model.evaluate(X, y, silent=True) == model.evaluate(X, repeated, silent=True)
        assert model.report(X, y).to_dict() == model.report(X, repeated).to_dict()


def test_a_layer_that_makes_predictions_itself_has_the_first_say():
    X, y = data_for(nnx.Loss_Hinge, 40, 1)
    for each in (nnx.Model(), Book()):
        model = network(nnx.Loss_Hinge, {}, "2-9,9-m", 1, model=each)
        model.layers[-1] = nnx.Activation_Sigmoid()
        model.finalize()
        hits = (model.predict(X) > 0.5) == (y > 0)
        assert model.evaluate(X, (y + 1) / 2, silent=True)["accuracy"] == hits.mean()


def test_an_accuracy_of_ones_own_gets_outputs_and_targets_as_they_are():
    class Coverage(nnx.Accuracy):
        def compare(self, predictions, y):
            return (predictions[:, 0::3] < y) & (y < predictions[:, 2::3])

    X, y = data_for(nnx.Loss_Pinball, 40, 3)
    model = network(nnx.Loss_Pinball, {}, "2-9,9-m", 3, accuracy=Coverage())
    p = model.predict(X)
    expected = ((p[:, 0] < y[:, 0]) & (y[:, 0] < p[:, 2])).mean()
    assert model.evaluate(X, y, silent=True)["accuracy"] == pytest.approx(expected)


def test_quantiles_are_learnt():
    rng = np.random.default_rng(0)
    y = rng.exponential(size=2000)
    model = network(nnx.Loss_Pinball, {}, "1-m", 3)
    model.optimizer.learning_rate = 0.02
    model.train(np.zeros((2000, 1)), y, epochs=400, print_every=None)
    np.testing.assert_allclose(model.predict(np.zeros((1, 1)))[0], np.quantile(y, [0.1, 0.5, 0.9]), atol=0.05)
