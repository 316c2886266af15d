"""``precision="bfloat16"``: what is rounded, what is not, and that it is never the default."""

from __future__ import annotations

import re
import threading
import warnings

import numpy as np
import pytest
from plans import Book, Net, bits, build, data_for, left_behind, train

import nnx
from nnx import _kernels
from nnx._base import precision
from nnx.cli import main
from nnx.engine import checkpoints

NET = Net("5-40,relu,dropout,40-3,softmax")
KINDS = pytest.mark.parametrize("kind", [nnx.Model, Book])

# Rounding

LARGEST = 255 * 2.0**120  # of bfloat16


def rounded(values):
    """Return the nearest bfloat16 of each number, in float64 arithmetic: not by bits, as kernels do."""
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


# A dense layer

STRENGTHS = {
    "weight_regularizer_l1": 0.1,
    "weight_regularizer_l2": 0.2,
    "bias_regularizer_l1": 0.3,
    "bias_regularizer_l2": 0.4,
}


def dense_layer(rng, k, m):
    layer = nnx.Layer_Dense(k, m, **STRENGTHS, dtype="float32")
    layer.weights[:], layer.biases[:] = rng.standard_normal((k, m)), rng.standard_normal((1, m))
    return layer


def assert_near(found, expected, terms):
    """Compare with float64 products of the same factors, with float32's tolerance for a sum of this many terms."""
    assert found.dtype == np.float32
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale * terms**0.5)


@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 1), (7, 5, 3), (64, 17, 33), (5, 300, 2), (40, 64, 128)])
def test_a_dense_layer_rounds_what_it_multiplies_and_nothing_else(rng, n, k, m):
    layer = dense_layer(rng, k, m)
    X, dvalues = (rng.standard_normal(shape).astype(np.float32) for shape in ((n, k), (n, m)))
    own = {"X": X, "dvalues": dvalues, "weights": layer.weights, "biases": layer.biases}
    kept = {name: array.copy() for name, array in own.items()}
    with precision.of_products("bfloat16"):
        layer.forward(X)
        layer.backward(dvalues)
    W, b = layer.weights.astype(np.float64), layer.biases.astype(np.float64)
    x, w, d = rounded(X), rounded(W), rounded(dvalues)
    assert_near(layer.output, x @ w + b, k)
    assert_near(layer.dweights, x.T @ d + 0.1 * np.where(W < 0, -1, 1) + 0.4 * W, n)
    assert_near(layer.dbiases, d.sum(axis=0, keepdims=True) + 0.3 * np.where(b < 0, -1, 1) + 0.8 * b, n)
    assert_near(layer.dinputs, d @ w.T, m)
    assert layer.inputs is X
    for name, array in own.items():
        np.testing.assert_array_equal(array, kept[name])
    layer.forward(X)
    layer.backward(dvalues)
    assert_near(layer.output, X.astype(np.float64) @ W + b, k)
    assert_near(layer.dinputs, dvalues.astype(np.float64) @ W.T, m)


def test_averages_are_rounded_where_they_are_used(rng):
    layer = dense_layer(rng, 6, 4)
    layer.weight_averages, layer.bias_averages = layer.weights / 3, layer.biases / 3
    X = rng.standard_normal((5, 6)).astype(np.float32)
    with precision.of_products("bfloat16"):
        layer.forward(X, training=False)
    assert_near(layer.output, rounded(X) @ rounded(layer.weight_averages) + layer.bias_averages, 6)


def test_a_layer_of_float64_refuses_products_in_bfloat16():
    layer = nnx.Layer_Dense(3, 2, dtype="float64")
    sentence = r"^Layer_Dense\.forward: dtype must be float32 for products in bfloat16, got float64\.$"
    with precision.of_products("bfloat16"), pytest.raises(ValueError, match=sentence):
        layer.forward(np.ones((1, 3)))


def test_what_one_thread_asks_for_is_not_what_another_gets():
    found = []
    with precision.of_products("bfloat16"):
        thread = threading.Thread(target=lambda: found.append(precision.rounds()))
        thread.start()
        thread.join()
        with precision.of_products(None):
            found.append(precision.rounds())
        found.append(precision.rounds())
    assert [*found, precision.rounds()] == [False, False, True, False]


# Training


def by_hand(X, y, parameters, rate, steps, r):
    """Train dense, ReLU, dense, softmax with SGD in float32. ``r`` rounds the factors of products."""
    W1, b1, W2, b2 = (array.copy() for array in parameters)
    n = len(X)
    for _ in range(steps):
        hidden = np.maximum(r(X) @ r(W1) + b1, 0)
        outputs = r(hidden) @ r(W2) + b2
        p = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        d2 = p.copy()
        d2[np.arange(n), y] -= 1
        d2 /= n
        d1 = np.where(hidden > 0, r(d2) @ r(W2).T, 0).astype(np.float32)
        gradients = [r(X).T @ r(d1), r(d1).sum(axis=0)[None], r(hidden).T @ r(d2), r(d2).sum(axis=0)[None]]
        for array, gradient in zip((W1, b1, W2, b2), gradients, strict=True):
            array -= np.float32(rate) * gradient
    return W1, b1, W2, b2


@KINDS
def test_training_is_the_loop_that_one_would_write(kind):
    net = Net("5-40,relu,40-3,softmax")
    X, y = data_for(net, 60)
    X = X.astype(np.float32)
    model = build(net, kind=kind, dtype="float32")
    model.set(optimizer=nnx.Optimizer_SGD(0.5))
    start = [array.copy() for pair in model.get_parameters() for array in pair]
    model.train(X, y, epochs=4, print_every=None, precision="bfloat16")
    found = [array for pair in model.get_parameters() for array in pair]
    expected = by_hand(X, y, start, 0.5, 4, lambda values: rounded(values).astype(np.float32))
    unrounded = by_hand(X, y, start, 0.5, 4, np.asarray)
    for ours, theirs, other, before in zip(found, expected, unrounded, start, strict=True):
        moved = np.abs(theirs - before).max()
        assert np.abs(ours - theirs).max() < 5e-4 * moved
        assert np.abs(ours - other).max() > 1e-3 * moved
    np.testing.assert_array_equal(model.layers[0].inputs, X)


@KINDS
def test_nobody_gets_it_without_asking(kind):
    X, y = data_for(NET, 50)
    found = [
        bits(train(build(NET, kind=kind, dtype=dtype), X, y, epochs=2, batch_size=16, precision=chosen))
        for dtype, chosen in (
            ("float32", None),
            ("float32", "float32"),
            ("float32", "bfloat16"),
            ("float64", None),
            ("float64", "float64"),
        )
    ]
    assert found[0] == found[1] != found[2]
    assert found[3] == found[4]


@KINDS
def test_validation_evaluation_and_prediction_stay_float32(kind):
    X, y = data_for(NET, 50)
    model = build(NET, kind=kind, dtype="float32")
    model.train(X, y, epochs=2, print_every=None, validation_data=(X, y), precision="bfloat16")
    twin = build(NET, kind=kind, dtype="float32")
    twin.set_parameters(model.get_parameters())
    assert model.history.validation_loss[-1] == twin.evaluate(X, y, silent=True)["loss"]
    assert model.evaluate(X, y, silent=True) == twin.evaluate(X, y, silent=True)
    np.testing.assert_array_equal(model.predict(X), twin.predict(X))


class Distilling(nnx.Accuracy_Categorical):
    """Uses another model at each step, in every way."""

    def __init__(self, other):
        super().__init__()
        self.other, self.found = other, []

    def compare(self, predictions, y):
        X, targets = data_for(NET, 50)
        evaluated = self.other.evaluate(X, targets, silent=True)
        self.found = [evaluated, self.other.predict(X), self.other.forward(X, training=False)]
        return super().compare(predictions, y)


class Asking(nnx.Activation_ReLU):
    """A layer that uses another model."""

    def __init__(self, other):
        self.other, self.found = other, []

    def forward(self, inputs, training=True):
        X, targets = data_for(NET, 50)
        self.found = [self.other.evaluate(X, targets, silent=True), self.other.predict(X)]
        super().forward(inputs, training)


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_models_multiply_in_their_dtype_while_one_trains(kind, dtype):
    X, y = data_for(NET, 50)
    other = build(NET, kind=kind, dtype=dtype)
    expected = [other.evaluate(X, y, silent=True), other.predict(X), other.forward(X, training=False)]
    model = build(NET, kind=Book, dtype="float32")
    model.set(accuracy=Distilling(other))
    train(model, X, y, precision="bfloat16")
    np.testing.assert_equal(model.accuracy.found, expected)
    model = nnx.Model()
    for layer in (nnx.Layer_Dense(5, 3, dtype="float32"), Asking(other), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    train(model, X, y, precision="bfloat16")
    np.testing.assert_equal(model.layers[1].found, expected[:2])


def parameters_after(model, start, X, y, chosen):
    """Return the parameters after a step of all samples from the same start."""
    model.set_parameters([tuple(array.copy() for array in pair) for pair in start])
    model.train(X, y, print_every=None, precision=chosen)
    return [array.tobytes() for pair in model.get_parameters() for array in pair]


@KINDS
def test_a_call_in_one_precision_may_follow_one_in_the_other(kind):
    net = Net("5-40,relu,40-3,softmax")
    X, y = data_for(net, 50)
    start = build(net, dtype="float32").get_parameters()
    alone = {}
    for chosen in (None, "bfloat16"):
        model = build(net, "SGD", kind, "float32")
        alone[chosen] = [parameters_after(model, start, X, y, chosen) for _ in range(7)]
    model = build(net, "SGD", kind, "float32")
    for number, chosen in enumerate((None, None, "bfloat16", "bfloat16", None, "bfloat16", None)):
        assert parameters_after(model, start, X, y, chosen) == alone[chosen][number]
    assert alone[None][0] != alone["bfloat16"][0]


@KINDS
def test_a_number_that_rounding_makes_infinite_ends_the_run(kind):
    X, y = data_for(NET, 50)
    X[5, 1] = np.finfo(np.float32).max
    model = build(NET, kind=kind, dtype="float32")
    model.layers[0].weights *= np.float32(1e-3)
    sentence = r"in epoch 1, step 0: the output of layer 0, .* got the first value that is not finite"
    with pytest.raises(nnx.DivergenceError, match=sentence):
        model.train(X, y, print_every=None, precision="bfloat16")
    assert not precision.rounds()
    model.forward(X.astype(np.float32), training=False)
    assert np.isfinite(model.layers[0].output).all()


@pytest.mark.parametrize(
    ("dtype", "given", "sentence"),
    [
        (
            "float64",
            "bfloat16",
            "precision must be 'float64', the model's dtype, got 'bfloat16'. Make the layers with dtype='float32' "
            "for that.",
        ),
        ("float64", "float32", "precision must be 'float64', got 'float32'."),
        ("float32", "float64", "precision must be 'float32' or 'bfloat16', got 'float64'."),
        ("float32", "BFLOAT16", "precision must be 'float32' or 'bfloat16', got 'BFLOAT16'. Did you mean 'bfloat16'?"),
        ("float32", "", "precision must be 'float32' or 'bfloat16', got ''."),
        ("float32", 16, "precision must be 'float32' or 'bfloat16', got 16."),
        ("float32", True, "precision must be 'float32' or 'bfloat16', got True."),
        ("float32", np.dtype("float32"), "precision must be 'float32' or 'bfloat16', got dtype('float32')."),
        ("float32", np.ones(2), "precision must be 'float32' or 'bfloat16', got a ndarray of shape (2,)."),
    ],
)
@KINDS
def test_another_precision_is_refused_before_anything_changes(kind, dtype, given, sentence):
    X, y = data_for(NET, 50)
    model = build(NET, kind=kind, dtype=dtype)
    train(model, X, y)
    before = bits(left_behind(model))
    with pytest.raises(ValueError, match=f"^{re.escape(f'Model.train: {sentence}')}$"):
        model.train(X, y, print_every=None, precision=given)
    with pytest.raises(ValueError, match=f"^{re.escape(f'Model.explain: {sentence}')}$"):
        model.explain(given)
    assert bits(left_behind(model)) == before


def test_a_model_without_parameters_counts_as_one_of_the_default_dtype(float64):
    model = nnx.Model()
    model.add(nnx.Activation_Sigmoid())
    accuracy = nnx.Accuracy_Categorical(binary=True)
    model.set(loss=nnx.Loss_BinaryCrossentropy(), optimizer=nnx.Optimizer_SGD(), accuracy=accuracy)
    model.finalize()
    model.train(np.ones((4, 1)), [0, 1, 0, 1], print_every=None, precision="float64")
    with pytest.raises(ValueError, match="precision must be 'float64', the model's dtype, got 'bfloat16'"):
        model.train(np.ones((4, 1)), [0, 1, 0, 1], print_every=None, precision="bfloat16")


# Matrix units


@pytest.fixture
def units(monkeypatch):
    """Return a function that sets what the backend reports about matrix units."""
    monkeypatch.setattr(precision, "_has_warned", False)

    def say(*found):
        monkeypatch.setattr(_kernels.backend, "matrix_units", lambda: found)

    return say


def test_every_backend_says_what_it_has_of_matrix_units(backend):
    available, clause, refused = _kernels.backend.matrix_units()
    assert type(available) is type(refused) is bool
    assert not (available and refused)
    assert clause
    assert clause[-1] != "."
    if backend == "numpy":
        assert (available, clause, refused) == (False, "the backend numpy has no matrix units", False)


def test_explain_says_how_bfloat16_runs(compiled, units):
    model, plan = build(NET, dtype="float32"), "It trains as a plan, many steps in one compiled call, on "
    units(True, "AMX", False)
    assert model.explain() == model.explain("float32") == f"{plan}{_kernels.name}."
    assert model.explain("bfloat16") == f"{plan}{_kernels.name}, with bfloat16 products on matrix units (AMX)."
    units(False, "no matrix units were found", False)
    assert model.explain(precision="bfloat16") == (
        f"{plan}{_kernels.name}, with bfloat16 products by conversion, no faster than float32: no matrix units "
        "were found."
    )


def test_explain_says_that_only_compiled_layers_use_matrix_units(units):
    units(True, "AMX", False)
    found = build(NET, kind=Book, dtype="float32").explain("bfloat16")
    assert found.startswith("No plan: ")
    assert found.endswith(
        " It trains layer by layer, with bfloat16 products by conversion, no faster than float32: only compiled "
        "layers use matrix units."
    )


def test_matrix_units_that_the_system_refuses_are_told_of_once(units):
    X, y = data_for(NET, 50)
    clause = "the system refused this process the processor's matrix units"
    units(False, clause, True)
    model = build(NET, dtype="float32")
    model.train(X, y, print_every=None)
    sentence = f"Model.train: bfloat16 products run by conversion, no faster than float32: {clause}."
    with pytest.warns(UserWarning, match=f"^{re.escape(sentence)}$") as caught:
        model.train(X, y, print_every=None, precision="bfloat16")
    assert [warning.filename for warning in caught] == [__file__]
    model.train(X, y, print_every=None, precision="bfloat16")  # in the tests, a warning is an error


@pytest.mark.parametrize("found", [(True, "AMX", False), (False, "no matrix units were found", False)])
def test_there_is_no_warning_where_nothing_is_refused(units, found):
    units(*found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(NET, dtype="float32").train(*data_for(NET, 50), print_every=None, precision="bfloat16")


# Checkpoints


@KINDS
def test_a_run_goes_on_in_its_precision_to_the_same_bytes(tmp_path, kind):
    X, y = data_for(NET, 50)
    arguments = {"batch_size": 14, "shuffle": True, "seed": 4, "precision": "bfloat16"}
    whole = bits(train(build(NET, kind=kind, dtype="float32"), X, y, epochs=3, **arguments))
    train(build(NET, kind=kind, dtype="float32"), X, y, epochs=1, checkpoint=tmp_path / "c", **arguments)
    found = bits(train(build(NET, kind=kind, dtype="float32"), X, y, epochs=3, resume=tmp_path / "c", **arguments))
    assert found == whole


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [(None, "bfloat16", "'float32', got 'bfloat16'"), ("bfloat16", None, "'bfloat16', got 'float32'")],
)
def test_a_run_in_another_precision_is_refused(tmp_path, first, then, told):
    X, y = data_for(NET, 50)
    train(build(NET, dtype="float32"), X, y, checkpoint=tmp_path / "c", precision=first)
    model = build(NET, dtype="float32")
    before = bits(left_behind(model))
    with pytest.raises(ValueError, match=rf"^Model\.train: precision must be that of '.*c', {told}\.$"):
        model.train(X, y, print_every=None, resume=tmp_path / "c", epochs=2, precision=then)
    assert bits(left_behind(model)) == before


def test_a_run_that_began_without_matrix_units_goes_on_with_them_with_a_warning(tmp_path, units):
    X, y = data_for(NET, 50)
    arguments = {"print_every": None, "precision": "bfloat16"}
    units(False, "the system refuses this process the matrix units", True)
    with pytest.warns(UserWarning, match="by conversion"):
        build(NET, dtype="float32").train(X, y, checkpoint=tmp_path / "c", **arguments)
    units(True, "AMX", False)
    sentence = f"was written on {_kernels.name} without matrix units, and continues on {_kernels.name}: the last digits"
    with pytest.warns(UserWarning, match=sentence):
        build(NET, dtype="float32").train(X, y, epochs=2, resume=tmp_path / "c", **arguments)


def test_checkpoints_in_float32_are_as_before(tmp_path, monkeypatch):
    X, y = data_for(NET, 50)
    runs = []
    describe = checkpoints.Keeper._run
    monkeypatch.setattr(checkpoints.Keeper, "_run", lambda *a: runs.append(describe(*a)) or runs[-1])
    for chosen in (None, "float32", "bfloat16"):
        runs.clear()
        train(build(NET, dtype="float32"), X, y, checkpoint=tmp_path / "c", precision=chosen)
        assert all(("precision" in run) == (chosen == "bfloat16") for run, _ in runs)
        assert runs[-1][0].get("precision") == (chosen if chosen == "bfloat16" else None)


# The command


@pytest.mark.long("trains several times")
def test_the_command_trains_in_bfloat16(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["train", "--epochs", "2", "--samples", "20", "--layers", "8"]
    for name, more in {"a": [], "b": ["--precision", "float32"], "c": ["--precision", "bfloat16"]}.items():
        assert main([*quick, "-o", f"{name}.model", *more]) == 0
        told = capsys.readouterr().out
        assert ("decay 0.001, batch 100, products in bfloat16)." in told) == (name == "c")
    contents = [(tmp_path / f"{name}.model").read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.long("trains several times")
def test_the_command_goes_on_in_the_same_precision_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["train", "--samples", "20", "--layers", "8", "--epochs"]
    assert main([*quick, "1", "--checkpoint", "c", "--precision", "bfloat16"]) == 0
    assert main([*quick, "2", "--resume", "c", "--precision", "bfloat16"]) == 0
    with pytest.raises(SystemExit):
        main([*quick, "2", "--resume", "c"])
    assert "precision must be that of 'c', 'bfloat16', got 'float32'" in capsys.readouterr().err


def test_the_command_refuses_another_precision(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--precision", "float16"])
    assert caught.value.code == 2
    assert (
        "argument --precision: must be one of 'float32', 'bfloat16', got 'float16'. Did you mean 'bfloat16'?"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ((True, "AMX", False), "bfloat16     on matrix units (AMX)\n"),
        (
            (False, "no matrix units were found", False),
            "bfloat16     by conversion, no faster than float32: no matrix units were found\n",
        ),
    ],
)
def test_info_says_how_bfloat16_runs(units, capsys, found, line):
    units(*found)
    assert main(["info"]) == 0
    assert line in capsys.readouterr().out
