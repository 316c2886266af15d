"""Predictors: they have the bits of `predict`, also after the model changes. Also in bfloat16."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import tracemalloc

import numpy as np
import pytest
from networks import classifier, parameters_of
from plans import Book

import nnx
from nnx import _kernels
from nnx._base import helpers
from nnx.files import safetensors
from nnx.layers import AVERAGED

#: Networks as text: widths of dense layers, and activations between them.
NETS = [
    "2-64 ReLU 64-3 Softmax",
    "1-64 ReLU 64-64 ReLU 64-1",
    "784-128 ReLU 128-128 ReLU 128-10 Softmax",
    "17-33 GELU 33-129 Tanh 129-5 Sigmoid",
    "ReLU 5-70 ReLU ReLU 70-70 Linear",
    "70-300 PReLU 300-80 PReLU(80) 80-40",
    "33-90 LeakyReLU Dropout 90-64 ELU Dropout 64-16 Softplus",
    "Dropout 4-32 Linear ReLU 32-7 Softmax ReLU",
    "1100-65",
    "3-1",
    # Narrow ones: from four rows on, they run through all layers as lines.
    "8-16 ReLU 16-4 Softmax",
    "17-29 Tanh 29-11 Softmax",
    "2-32 ReLU 32-8 ELU 8-3",
    "Sigmoid 36-42 ReLU 42-2 Softmax",
]
ROWS = [1, 2, 3, 4, 9, 33, 200, 431]
each_net = pytest.mark.parametrize("net", NETS)


def layer_of(word, dtype, rng):
    if "-" in word:
        n_inputs, n_neurons = map(int, word.split("-"))
        layer = nnx.Layer_Dense(n_inputs, n_neurons, dtype=dtype, weight_initializer="he_normal")
        layer.biases[:] = rng.normal(size=(1, n_neurons))
        return layer
    if word.startswith("PReLU"):
        layer = nnx.Activation_PReLU(int(word[6:-1] or 1) if "(" in word else 1, dtype=dtype)
        layer.weights[:] = rng.normal(size=layer.weights.shape)
        return layer
    return nnx.Layer_Dropout(0.3, seed=5) if word == "Dropout" else getattr(nnx, f"Activation_{word}")()


def made(net, dtype="float32"):
    model, rng = nnx.Model(), np.random.default_rng(0)
    for word in net.split():
        model.add(layer_of(word, dtype, rng))
    model.finalize()
    return model


def samples(model, n, dtype="float32"):
    width = next(layer.n_inputs for layer in model.layers if isinstance(layer, nnx.Layer_Dense))
    return np.random.default_rng(n).normal(size=(n, width)).astype(dtype)


def trained(average=None, epochs=3):
    model = classifier()
    model.set(optimizer=nnx.Optimizer_Adam(0.05, average=average))
    X, y = nnx.spiral_data(40, 3)
    model.train(X, y, epochs=epochs, print_every=None)
    return model, X, y


# The bits of predict


@each_net
def test_a_predictor_has_the_bits_of_predict(net, dtype):
    model = made(net, dtype)
    predictor = model.predictor()
    for n in (*ROWS, 0):
        X = samples(model, n, dtype)
        found, expected = predictor(X), model.predict(X)
        assert (found.dtype, found.shape) == (dtype, expected.shape)
        assert found.tobytes() == expected.tobytes(), n


@each_net
@pytest.mark.usefixtures("compiled")
def test_a_row_has_the_same_bits_alone_and_in_any_batch(net):
    model = made(net)
    X = samples(model, 450)
    for precision in (None, "bfloat16"):
        predictor = model.predictor(precision)
        together = predictor(X)
        for size in (1, 3, 8, 200):
            parts = [predictor(X[i : i + size]) for i in range(0, len(X), size)]
            np.testing.assert_array_equal(np.concatenate(parts), together)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("sizes", [(17, 3), (5, 3), (4, 4), (4, 5), (2, 3), (3, 3), (33, 5)])
@pytest.mark.parametrize("last", [nnx.Activation_Linear, nnx.Activation_ReLU])
def test_zeros_have_the_same_sign_alone_and_in_any_batch(sizes, last, dtype):
    """Products that underflow, added to a bias of −0, are −0 or 0, because zeros of other lanes may be added."""
    tiny = 1e-30 if dtype == np.float32 else 1e-200
    model = nnx.Model()
    model.add(nnx.Layer_Dense(*sizes))
    model.add(last())
    model.finalize()
    model.set_parameters([(np.full(sizes, -tiny), np.full((1, sizes[1]), -0.0))])
    X = np.full((37, sizes[0]), tiny, dtype)
    together = model.predictor()(X)
    for size in (1, 3):
        parts = [model.predictor()(X[i : i + size]) for i in range(0, len(X), size)]
        assert np.concatenate(parts).tobytes() == together.tobytes()


@pytest.mark.long("makes 4,500 layers")
def test_very_many_narrow_layers_do_not_go_through_as_lines():
    """Their biases, one line each, would not fit the kernels' memory."""
    model = nnx.Model()
    for _ in range(4500):
        model.add(nnx.Layer_Dense(1, 1))
    model.finalize()
    model.set_parameters([([[1.0]], [[0.5]])] * 4500)
    X = np.arange(40, dtype=np.float32).reshape(-1, 1)
    np.testing.assert_array_equal(model.predictor()(X), X + np.float32(2250))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_go_the_way_they_go_in_predict(value):
    model = made(NETS[0])
    X = samples(model, 5)
    X[2, 1] = value
    np.testing.assert_array_equal(model.predictor()(X), model.predict(X))


def test_settings_of_activations_are_taken_over():
    model = nnx.Model()
    parts = (nnx.Layer_Dense(3, 8), nnx.Activation_LeakyReLU(0.4), nnx.Layer_Dense(8, 2), nnx.Activation_ELU(0.3))
    for layer in parts:
        model.add(layer)
    model.finalize()
    X = 50 * samples(model, 20)
    predictor, expected = model.predictor(), model.predict(X)
    parts[1].slope, parts[3].alpha = 0.1, 1.0
    assert model.predict(X).tobytes() != expected.tobytes()
    assert predictor(X).tobytes() == expected.tobytes()


def test_a_model_of_very_many_layers_has_a_predictor():
    model = made(" ".join(["4-4 ReLU"] * 80))
    X = samples(model, 40)
    assert model.predictor()(X).tobytes() == model.predict(X).tobytes()


@pytest.mark.parametrize("average", [None, 0.9])
def test_averages_are_used_where_predict_uses_them(average):
    model, X, _ = trained(average)
    predictor, expected = model.predictor(), model.predict(X)
    assert predictor(X).tobytes() == expected.tobytes()
    for layer in model.trainable_layers:
        for name in AVERAGED:
            vars(layer).pop(name, None)
    assert (model.predict(X).tobytes() != expected.tobytes()) == (average is not None)
    assert predictor(X).tobytes() == expected.tobytes()


def test_weights_that_were_assigned_as_anything_are_cast_as_predict_casts_them():
    model = made("3-40 ReLU 40-70")
    dense = model.layers[2]
    dense.weights = np.asfortranarray(dense.weights.astype(">f8"))
    assert model.predictor()(samples(model, 9)).tobytes() == model.predict(samples(model, 9)).tobytes()
    dense.weights = dense.weights[:, 1:]
    with pytest.raises(ValueError, match=r"^Model.predictor: weights must have shape \(40, 70\), got \(40, 69\)"):
        model.predictor()


# Frozen


def test_nothing_that_happens_to_the_model_changes_a_predictor():
    model, X, y = trained()
    predictor = model.predictor()
    expected = model.predict(X).tobytes()
    model.train(X, y, epochs=3, print_every=None)
    assert predictor(X).tobytes() == expected
    model.layers[0].weights[:] = 7
    assert predictor(X).tobytes() == expected
    model.set_parameters([(np.ones((2, 16)), np.ones((1, 16))), (np.ones((16, 3)), np.ones((1, 3)))])
    model.layers[1].forward = lambda inputs, training: None
    assert predictor(X).tobytes() == expected
    del model
    gc.collect()
    assert predictor(X).tobytes() == expected


def test_using_a_predictor_changes_nothing_about_the_model():
    model, X, _ = trained()
    before = [dict(vars(layer)) for layer in model.layers], parameters_of(model)
    model.predictor()(X)
    for layer, own in zip(model.layers, before[0], strict=True):
        assert vars(layer).keys() == own.keys()
        assert all(vars(layer)[name] is own[name] for name in own)
    assert parameters_of(model) == before[1]


def test_a_predictor_cannot_be_changed_or_made_by_hand():
    predictor = made(NETS[0]).predictor()
    for name in ("dtype", "n_inputs", "_parts", "anything"):
        with pytest.raises(AttributeError, match=f"^Predictor: '{name}' cannot be changed"):
            setattr(predictor, name, 1)
        with pytest.raises(AttributeError, match=f"^Predictor: '{name}' cannot be changed"):
            delattr(predictor, name)
    for arguments in ((), (made(NETS[0]),)):
        with pytest.raises(TypeError, match=r"Call model\.predictor\(\)"):
            nnx.Predictor(*arguments)


def test_what_a_predictor_says_of_itself():
    model = made("784-128 ReLU Dropout 128-10 Softmax", "float64")
    predictor = model.predictor()
    assert (predictor.n_inputs, predictor.n_outputs) == (784, 10)
    assert (predictor.dtype, predictor.precision) == (np.dtype("float64"), "float64")
    assert repr(predictor) == "<Predictor 784-128, relu, 128-10, softmax, float64>"
    predictor = made("3-4 LeakyReLU 4-4 PReLU(4)").predictor("bfloat16")
    assert repr(predictor) == "<Predictor 3-4, leaky_relu[0.01], 4-4, prelu, float32, products in bfloat16>"
    assert (predictor.dtype, predictor.precision) == (np.dtype("float32"), "bfloat16")


# Arguments


def test_the_other_float_type_is_cast_as_numpy_casts_it(dtype):
    model = made(NETS[0], dtype)
    other = "float64" if dtype == "float32" else "float32"
    predictor = model.predictor()
    for n in (1, 191, 192, 193, 500):
        X = samples(model, n, other)
        assert predictor(X).tobytes() == predictor(X.astype(dtype)).tobytes(), n
        out = np.empty((n, 3), dtype)
        assert predictor(X, out=out) is out
        assert out.tobytes() == model.predict(X).tobytes()
    model, X = every_part()
    assert model.predictor()(X.astype(float)).tobytes() == model.predictor()(X).tobytes()
    X[3, 1] = 4
    with pytest.raises(ValueError, match=r"^Predictor: X must .*4"):
        model.predictor()(X.astype(float))


def test_samples_of_every_form_give_the_same_bits():
    model = made("5-40 ReLU 40-3")
    X = samples(model, 30)
    predictor = model.predictor()
    expected = predictor(X).tobytes()
    wide = np.zeros((30, 7), np.float32)
    wide[:, 1:-1] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    for given in (X.tolist(), X.astype(float), np.asfortranarray(X), X.astype(">f4"), wide[:, 1:-1], read_only):
        assert predictor(given).tobytes() == expected


@pytest.mark.parametrize("X", [[1, 2], [[1, 2, 3]], 1, [[[1, 2]]], [["a", "b"]], [[1], [1, 2]], None])
def test_wrong_samples_are_refused_with_the_sentence_of_predict(X):
    model = made(NETS[0])
    with pytest.raises((TypeError, ValueError)) as expected:
        model.predict(X)
    with pytest.raises(type(expected.value)) as found:
        model.predictor()(X)
    assert str(found.value) == str(expected.value).replace("Model.predict:", "Predictor:")


def test_outputs_are_written_where_the_caller_wants_them(dtype):
    model = made("5-40 ReLU 40-3", dtype)
    X = samples(model, 30, dtype)
    predictor = model.predictor()
    expected = model.predict(X).tobytes()
    out = np.full((30, 3), np.nan, dtype)
    for given in (X, X.tolist()):
        out[:] = np.nan
        assert predictor(given, out=out) is out
        assert out.tobytes() == expected
    room = np.full((32, 3), 8, dtype)
    part = room[1:-1]
    assert predictor(X, out=part) is part
    assert part.tobytes() == expected
    assert (room[[0, -1]] == 8).all()


def test_outputs_may_lie_where_the_samples_are():
    model = made("3-40 ReLU 40-3")
    X = samples(model, 600)
    expected = model.predict(X).tobytes()
    predictor = model.predictor()
    room = np.zeros((601, 3), np.float32)
    room[1:] = X
    assert predictor(room[1:], out=room[:-1]).tobytes() == expected
    assert predictor(X, out=X).tobytes() == expected


def test_an_out_of_a_subclass_is_returned_as_it_is(tmp_path):
    model = made("3-40 ReLU 40-3")
    X = samples(model, 7)
    out = np.memmap(tmp_path / "outputs", np.float32, "w+", shape=(7, 3))
    assert model.predictor()(X, out) is out
    assert out.tobytes() == model.predict(X).tobytes()


def test_a_wrong_out_is_refused_and_not_written():
    predictor, X = made("3-4").predictor(), np.ones((5, 3), np.float32)
    read_only = np.zeros((5, 4), np.float32)
    read_only.flags.writeable = False
    wrong = [
        ([[0.0] * 4] * 5, TypeError, "out must be an array, got list"),
        (
            np.zeros((5, 4), np.float64),
            ValueError,
            r"out must be of dtype float32 and shape \(5, 4\), got float64 and \(5, 4\)",
        ),
        (np.zeros((4, 4), np.float32), ValueError, r"shape \(5, 4\), got float32 and \(4, 4\)"),
        (np.zeros(20, np.float32), ValueError, r"shape \(5, 4\), got float32 and \(20,\)"),
        (read_only, ValueError, "out must be a writable array in C order, got one that is read-only"),
        (np.zeros((4, 5), np.float32).T, ValueError, "out must be a writable array in C order, got one in another"),
        (np.zeros((5, 4), ">f4"), ValueError, "out must be of dtype float32"),
    ]
    for out, kind, sentence in wrong:
        with pytest.raises(kind, match=sentence):
            predictor(X, out=out)
        assert not np.any(out)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: vars(model.layers[1]).update(forward=print), "has a custom method forward"),
        (lambda model: model.layers.__setitem__(1, Own()), "is not built in"),
    ],
)
def test_a_model_with_parts_of_its_own_is_refused(change, sentence):
    model = classifier()
    change(model)
    model.finalize()
    with pytest.raises(ValueError, match=f"^Model.predictor: .* only built-in parts, but .*{sentence}"):
        model.predictor()


class Own(nnx.Activation_ReLU):
    pass


def test_models_of_a_class_of_their_own_and_unfinished_ones_are_refused():
    with pytest.raises(RuntimeError, match=r"^Model.predictor: the model is not finalized"):
        nnx.Model().predictor()
    model = Book()
    model.add(nnx.Layer_Dense(1, 1))
    model.finalize()
    with pytest.raises(ValueError, match="the model has a custom class, Book"):
        model.predictor()


def test_a_model_that_another_thread_trains_is_refused():
    model = classifier()
    X, y = nnx.spiral_data(10, 3)
    going, stop = threading.Event(), threading.Event()

    class Slow(nnx.Accuracy_Categorical):
        def compare(self, predictions, y):
            going.set()
            stop.wait(20)
            return super().compare(predictions, y)

    model.set(accuracy=Slow())
    thread = threading.Thread(target=model.train, args=(X, y), kwargs={"print_every": None})
    thread.start()
    try:
        assert going.wait(20)
        with pytest.raises(RuntimeError, match="must not be frozen while another thread trains"):
            model.predictor()
    finally:
        stop.set()
        thread.join()
    model.predictor()


# Copies, threads, memory


@pytest.mark.parametrize("net", [NETS[2], NETS[5], NETS[6]])
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_pickles_predict_with_the_same_bits(net, precision):
    model = made(net)
    predictor, X = model.predictor(precision), samples(model, 40)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        twin = pickle.loads(pickle.dumps(predictor, protocol))
        assert twin(X).tobytes() == predictor(X).tobytes()
        assert repr(twin) == repr(predictor)
        assert (twin.n_inputs, twin.n_outputs, twin.dtype, twin.precision) == (
            predictor.n_inputs, predictor.n_outputs, predictor.dtype, predictor.precision,
        )  # fmt: skip


def test_a_copy_of_what_never_changes_is_itself():
    predictor = made(NETS[0]).predictor()
    assert copy.copy(predictor) is copy.deepcopy(predictor) is predictor
    assert copy.deepcopy({"model": predictor})["model"] is predictor


def test_threads_share_a_predictor():
    model = made(NETS[2])
    predictor = model.predictor()
    batches = [samples(model, n) for n in (1, 5, 64, 300)]
    expected = [predictor(X).tobytes() for X in batches]
    wrong: list[int] = []

    def work():
        for _ in range(15):
            wrong.extend(i for i, X in enumerate(batches) if predictor(X).tobytes() != expected[i])

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_predictor_follows_the_backend_in_force(backend, monkeypatch):
    model = made(NETS[2])
    predictor, X = model.predictor(), samples(model, 50)
    predictor(X)
    for name in _kernels.usable:
        monkeypatch.setattr(_kernels, "backend", _kernels.load(name))
        assert predictor(X).tobytes() == model.predict(X).tobytes(), name
        assert pickle.loads(pickle.dumps(predictor))(X).tobytes() == model.predict(X).tobytes(), name
    monkeypatch.setattr(_kernels, "backend", _kernels.load(backend))
    assert predictor(X).tobytes() == model.predict(X).tobytes()


@pytest.mark.one_backend
@pytest.mark.long("waits for memory to grow")
def test_predictors_leave_no_memory_behind():
    model = made(NETS[2])
    X = samples(model, 30)

    def use():
        for _ in range(10):
            model.predictor("bfloat16")(X)
            model.predictor()(X, out=np.empty((30, 10), np.float32))

    use()
    tracemalloc.start()
    try:
        use()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        use()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000  # the weights of one are 470,000 bytes


@pytest.mark.usefixtures("compiled")
def test_the_compiled_predictor_refuses_what_does_not_fit():
    kind = _kernels.backend.Predictor
    w, b = np.ones((3, 40), np.float32), np.ones((1, 40), np.float32)
    dense = ("dense", (w, b), 3, 40)
    good = kind("float32", (dense,), _kernels)
    assert good.predict(np.ones((2, 4), np.float32)) is None
    assert good.predict([[1, 2, 3]]) is None
    wrong = [
        ("float32", (("dense", (w, b), 3, 41),)),
        ("float32", (("dense", (w, b), 4, 40),)),
        ("float32", (("dense", (w.astype(float), b), 3, 40),)),
        ("float32", (("dense", (w,), 3, 40),)),
        ("float32", (("dense", (w, None), 3, 40),)),
        ("float32", (("dense", None, 3, 40),)),
        ("float32", (dense, ("prelu", (np.ones((1, 3), np.float32),), 40, 40))),
        ("float32", (dense, ("prelu", (), 40, 40))),
        ("float32", (dense, ("leaky_relu", (), 40, 40))),
        ("float32", (dense, ("nothing", (), 40, 40))),
        ("float32", (dense, ("relu", (), 41, 41))),
        ("float32", (("relu", (), 3, 3),)),
        ("float32", ()),
        ("float16", (dense,)),
        ("float64", (dense,)),
    ]
    for dtype, stages in wrong:
        with pytest.raises((TypeError, ValueError, IndexError)):
            kind(dtype, stages, _kernels)


# Threads


@pytest.fixture
def shared(monkeypatch, request):
    """Let threads share every call of more than one piece. Return how many took part in each."""
    if not hasattr(_kernels.backend, "_share_from"):
        pytest.skip("only the compiled backends share calls out")
    taken = []
    start = helpers.start
    monkeypatch.setattr(helpers, "start", lambda found, n, *work: taken.append(n + 1) or start(found, n, *work))
    before = _kernels.backend._share_from(1)
    yield taken
    _kernels.backend._share_from(before)


@pytest.mark.parametrize("net", [NETS[0], NETS[2], NETS[6]])
def test_bits_do_not_depend_on_the_number_of_threads(net, shared):
    model = made(net)
    X = samples(model, 1500)
    alone, many = model.predictor(), model.predictor(threads=3)
    expected = alone(X).tobytes()
    assert set(shared) <= {1}
    for found in (many(X), many(X.astype(float)), model.predict(X, threads=3), model.predict(X, threads=3)):
        assert found.tobytes() == expected
    assert shared.count(3) == 4
    assert (many.threads, pickle.loads(pickle.dumps(many)).threads) == (3, 3)


@pytest.mark.parametrize("batch_size", [None, 250, 7])
@pytest.mark.parametrize("weighed", [False, True])
def test_evaluate_has_the_same_figures_on_any_number_of_threads(batch_size, weighed, shared):
    model = classifier()
    X, y = nnx.spiral_data(300, 3)
    options = {"batch_size": batch_size, "silent": True}
    if weighed:
        options["sample_weight"] = np.linspace(0, 2, len(X))
    figures = [model.evaluate(X, y, threads=n, **options) for n in (1, 2, 5)]
    assert figures[0] == figures[1] == figures[2]
    assert {2, 5} <= set(shared)


def test_threads_that_the_system_refuses_are_done_without(shared, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    model = made(NETS[0])
    X = samples(model, 1500)
    expected = model.predictor()(X).tobytes()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert model.predictor(threads=4)(X).tobytes() == expected


def test_the_number_of_threads_is_checked():
    model = made(NETS[0])
    X = samples(model, 3)
    for call in (
        lambda n: model.predictor(threads=n),
        lambda n: model.predict(X, threads=n),
        lambda n: nnx.Predictor.load("nowhere", threads=n),
    ):
        with pytest.raises(ValueError, match=": threads must be a whole number from 1 to 256, got 0"):
            call(0)
        with pytest.raises(TypeError, match=r": threads must be a whole number, got 1\.5"):
            call(1.5)


# Files


def every_part():
    """Return a model with a part of every kind that a predictor may have."""
    model, rng = nnx.Model(), np.random.default_rng(0)
    for layer in (
        nnx.Layer_Embedding(3, (1,), (4,), 2),
        nnx.Layer_Dense(4, 5),
        nnx.Layer_BatchNorm(5),
        nnx.Activation_PReLU(5),
        nnx.Layer_Residual([nnx.Layer_Dense(5, 5), nnx.Layer_Scale(5), nnx.Activation_LeakyReLU(0.3)]),
        nnx.Layer_LayerNorm(5),
        nnx.Layer_Spline(5, 5, [1, 2], [[-0.5, 0, 0.5], [0, 1]]),
        nnx.Activation_Softmax(),
    ):
        model.add(layer)
    model.finalize()
    return model, np.stack([rng.normal(size=50), rng.integers(0, 4, 50), rng.normal(size=50)], 1).astype(np.float32)


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_a_file_holds_all_that_a_predictor_is(precision, tmp_path):
    cases = [(made(net), samples(made(net), 20)) for net in NETS]
    for model, X in [*cases, every_part()]:
        predictor = model.predictor(precision)
        predictor.save(tmp_path / "predictor.safetensors")
        loaded = nnx.Predictor.load(tmp_path / "predictor.safetensors", threads=2)
        assert (repr(loaded), loaded.precision, loaded.threads) == (repr(predictor), predictor.precision, 2)
        assert loaded(X).tobytes() == predictor(X).tobytes()


def test_files_of_others_are_refused_with_what_reads_them(tmp_path):
    model, path = made(NETS[0]), tmp_path / "file.safetensors"
    model.save(path)
    with pytest.raises(
        nnx.ModelFileError, match=r"^Predictor.load: .*holds a model. Call nnx.Model.load\(path\)\.predictor"
    ):
        nnx.Predictor.load(path)
    model.predictor().save(path)
    for call in (nnx.Model.load, model.load_parameters):
        with pytest.raises(nnx.ModelFileError, match=r"holds a predictor. Call nnx.Predictor.load\(path\)"):
            call(path)


def put_first(description, arrays, **part):
    """Insert a part without arrays before all others."""
    description["parts"].insert(0, part)
    later = {
        f"parts.{int(number) + 1}.{rest}": a for (_, number, rest), a in ((n.split("."), a) for n, a in arrays.items())
    }
    arrays.clear()
    arrays.update(later)


TAMPERED = {
    "no precision": lambda d, a: d.update(precision="float16"),
    "another precision": lambda d, a: d.update(precision="float64"),
    "no parts": lambda d, a: (d.update(parts=[]), a.clear()),
    "parts that are none": lambda d, a: d.update(parts=[1] * 9),
    "an unknown kind": lambda d, a: d["parts"][-1].update(kind="exec"),
    "a kind that is no text": lambda d, a: d["parts"][-1].update(kind=["dense"]),
    "another kind": lambda d, a: d["parts"][1].update(kind="scale"),
    "no numbers": lambda d, a: d["parts"][2].update(numbers=[]),
    "a number that no float can be": lambda d, a: d["parts"][2].update(numbers=[10**350]),
    "numbers that are none": lambda d, a: d["parts"][2].update(numbers=["1"]),
    "a width that is no number": lambda d, a: d["parts"][-1].update(n_in="5", n_out="5"),
    "a huge width": lambda d, a: d["parts"][-1].update(n_in=1 << 40, n_out=1 << 40),
    "a width that does not follow": lambda d, a: d["parts"][-1].update(n_in=7, n_out=7),
    "a softmax of two widths": lambda d, a: d["parts"][-1].update(n_out=7),
    "a join alone": lambda d, a: d["parts"][4].update(kind="join"),
    "a fork alone": lambda d, a: d["parts"][8].update(kind="fork"),
    "no categories": lambda d, a: d.update(categories=None),
    "too many categories": lambda d, a: d.update(categories=[0, 5, 0]),
    "negative categories": lambda d, a: d.update(categories=[5, 4, -5]),
    "categories of other columns": lambda d, a: d.update(categories=[4]),
    "a lost array": lambda d, a: a.pop("parts.1.biases"),
    "a stranger's array": lambda d, a: a.update({"parts.12.weights": np.zeros(3, np.float32)}),
    "an array of another shape": lambda d, a: a.update({"parts.1.biases": np.zeros((1, 6), np.float32)}),
    "an array of another dtype": lambda d, a: a.update({"parts.1.biases": np.zeros((1, 5), np.float64)}),
    "places beyond the table": lambda d, a: a.update({"parts.0.places": np.array([-1, 4, -1], np.int32)}),
    "places that leave the first row out": lambda d, a: a.update({"parts.0.places": np.array([-1, 3, -1], np.int32)}),
    "an embedding behind a layer": lambda d, a: put_first(d, a, kind="relu", numbers=[], n_in=3, n_out=3),
    "categories of another column": lambda d, a: d.update(categories=[4, 0, 0]),
    "places of more columns": lambda d, a: a.update({"parts.0.places": np.array([-1, 0, 1], np.int32)}),
    "columns that are not there": lambda d, a: a.update({"parts.10.columns": np.array([1, 5], np.int32)}),
    "columns out of order": lambda d, a: a.update({"parts.10.columns": np.array([2, 1], np.int32)}),
    "edges of more weights": lambda d, a: a.update({"parts.10.first": np.array([0, 2, 4], np.int32)}),
    "first places that fall": lambda d, a: a.update({"parts.10.first": np.array([0, 3, 3], np.int32)}),
    "lost edges": lambda d, a: a.update({"parts.10.edges": np.array([0, 1, 0, 1], np.float32)}),
    "edges that are no numbers": lambda d, a: a.update({"parts.10.edges": np.full(5, np.nan, np.float32)}),
    "edges that fall": lambda d, a: a.update({"parts.10.edges": np.array([0, 0.5, -0.5, 0, 1], np.float32)}),
    "another degree": lambda d, a: d["parts"][10].update(numbers=[0]),
    "a table of no rows": lambda d, a: a.update({"parts.0.weights": np.zeros((0, 2), np.float32)}),
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_file_is_refused_with_one_sentence(change, tmp_path):
    path = tmp_path / "predictor.safetensors"
    every_part()[0].predictor().save(path)
    description, arrays = safetensors.read("test", str(path))
    change(description, arrays)
    description.pop("crc32", None)
    safetensors.write("test", str(path), description, arrays)
    with pytest.raises(nnx.ModelFileError, match=r"^Predictor.load: .* is damaged: [^\n]*$"):
        nnx.Predictor.load(path)


# bfloat16


def rounded(values):
    result = np.empty_like(values)
    _kernels.backend.round_bfloat16(values, result)
    return result


def has_units():
    available, _, _ = _kernels.backend.matrix_units()
    return available


@each_net
def test_in_bfloat16_dense_layers_multiply_rounded_inputs_by_rounded_weights(net):
    model = made(net)
    predictor = model.predictor("bfloat16")
    for n in ROWS:
        X = samples(model, n)
        values = X
        for layer in model.layers:
            if isinstance(layer, nnx.Layer_Dense):
                output = np.empty((n, layer.n_neurons), np.float32)
                _kernels.backend.dense_forward(rounded(values), rounded(layer.weights), layer.biases, output)
            else:
                layer.forward(values, training=False)
                output = layer.output
            values = output
        kept = X.copy()
        if has_units():  # they add in another order
            np.testing.assert_allclose(predictor(X), values, rtol=2e-2, atol=2e-3, err_msg=str(n))
        else:
            assert predictor(X).tobytes() == values.tobytes(), n
        assert X.tobytes() == kept.tobytes()


def test_bfloat16_is_near_float32_and_differs():
    model = made(NETS[2])
    X = samples(model, 100)
    found, expected = model.predictor("bfloat16")(X), model.predict(X)
    assert found.tobytes() != expected.tobytes()
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_the_precision_is_what_the_model_has_or_bfloat16_for_float32():
    single, double = made(NETS[0]), made(NETS[0], "float64")
    assert single.predictor("float32").precision == single.predictor().precision == "float32"
    assert double.predictor("float64").precision == double.predictor().precision == "float64"
    wrong = [(single, given) for given in ("float64", "half", [1], np.ones(2))]
    for model, precision in [*wrong, (double, "bfloat16"), (double, 1)]:
        with pytest.raises(ValueError, match=r"^Model.predictor: precision must be 'float"):
            model.predictor(precision)
