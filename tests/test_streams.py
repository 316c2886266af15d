"""Training from blocks: the same steps as in memory, from any source, and no thread remains."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from networks import classifier, parameters_of, regression

import nnx
from nnx._base import memory
from nnx.data import streams
from nnx.engine import plan, streaming

ROWS = 203


@pytest.fixture
def data(rng):
    X = rng.normal(size=(ROWS, 2)).astype(np.float32)
    return X, (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 0] > 1)


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Relu(nnx.Activation_ReLU):
    """A custom layer, so that there is no plan."""

    def forward(self, inputs, training):
        super().forward(inputs, training)

    def get_config(self):
        return {}


def model_of(kind="plan"):
    np.random.seed(0)
    model = classifier(dropout=0.1, weight_regularizer_l2=1e-3)
    if kind == "layers":
        model.layers[1] = Relu()
        model.finalize()
    return model


def trained(model, *source, epochs=2, batch_size=20, print_every=None, **keywords):
    model.train(*source, epochs=epochs, batch_size=batch_size, print_every=print_every, **keywords)
    return model


def assert_same(model, other):
    for values, expected in zip(parameters_of(model), parameters_of(other), strict=True):
        np.testing.assert_array_equal(values, expected)
    ours, theirs = model.history.to_dict(), other.history.to_dict()
    for name, figures in theirs.items():
        np.testing.assert_array_equal(ours[name], figures, err_msg=name)
    assert model.optimizer.iterations == other.optimizer.iterations
    assert model.loss.accumulated_sum == other.loss.accumulated_sum


def pairs(X, y, rows=37):
    return [(X[start : start + rows], y[start : start + rows]) for start in range(0, len(X), rows)]


def sources(X, y):
    """Return the same rows in each form of source."""
    return {
        "slices": nnx.Blocks(X, y, block_rows=30, window_rows=50),
        "one window": nnx.Blocks(X, y),
        "list": pairs(X, y),
        "function": lambda: iter(pairs(X, y)),
        "window of a batch": nnx.Blocks.from_iterable(pairs(X, y), n_rows=len(X), window_rows=1),
        "single rows": nnx.Blocks.from_iterable(pairs(X, y, 1), window_rows=40),
    }


@pytest.mark.parametrize("kind", ["plan", "layers"])
@pytest.mark.parametrize("name", sources(np.zeros((1, 2)), np.zeros(1)))
def test_without_shuffling_the_bits_are_those_of_training_in_memory(data, name, kind, planned, backend):
    keywords = {"validation_data": (data[0][:50], data[1][:50]), "penalty_per_sample": True}
    expected = trained(model_of(kind), *data, **keywords)
    assert_same(trained(model_of(kind), sources(*data)[name], **keywords), expected)
    assert all(answer is (kind == "plan" and backend != "numpy") for answer in planned)


def test_an_iterator_is_read_once(data):
    expected = trained(model_of(), *data, epochs=1)
    assert_same(trained(model_of(), iter(pairs(*data)), epochs=1), expected)
    blocks = nnx.Blocks.from_iterable(iter(pairs(*data)))
    assert (blocks.n_rows, blocks.can_be_read_again) == (None, False)
    model = model_of()
    with pytest.raises(ValueError, match="epochs must be 1 for blocks that can be read only once, got 2"):
        trained(model, blocks)
    with pytest.raises(ValueError, match="checkpoint must be None for blocks that can be read only once"):
        trained(model, blocks, epochs=1, checkpoint="unused.nnx")
    assert model.optimizer.iterations == 0
    assert_same(trained(model, blocks, epochs=1), expected)
    with pytest.raises(ValueError, match="the iterator has been read to its end"):
        trained(model, blocks, epochs=1)


@pytest.mark.parametrize("source", ["weights", "class weights"])
def test_weights(data, source):
    X, y = data
    weights = np.linspace(0, 2, ROWS)
    given = {"weights": {"sample_weight": weights}, "class weights": {"class_weight": {1: 3.0}}}[source]
    expected = trained(model_of(), X, y, **given)
    if source == "weights":
        found = trained(model_of(), nnx.Blocks(X, y, weights, block_rows=30, window_rows=40))
        triples = [(*pair, weights[37 * n :][:37]) for n, pair in enumerate(pairs(X, y))]
        assert_same(trained(model_of(), triples), expected)
    else:
        found = trained(model_of(), nnx.Blocks(X, y, block_rows=30, window_rows=40), **given)
    assert_same(found, expected)


def test_targets_and_samples_are_cast_as_in_memory(data):
    X, y = (data[0] * 50).astype(np.int8), data[1].astype(np.uint8)
    one_hot = np.eye(3)[y]
    assert_same(trained(model_of(), nnx.Blocks(X, y, window_rows=60)), trained(model_of(), X, y))
    assert_same(trained(model_of(), nnx.Blocks(X, one_hot, window_rows=60)), trained(model_of(), X, one_hot))
    target = data[0][:, 0] ** 2
    models = []
    for given in ((X, target), (nnx.Blocks(X, target.tolist(), window_rows=60), None)):
        np.random.seed(0)
        models.append(trained(regression(), *given))
    assert_same(models[1], models[0])
    assert models[0].accuracy.precision == models[1].accuracy.precision


@pytest.mark.one_backend
def test_the_deviation_of_many_targets_is_that_of_all(data, monkeypatch):
    target = (data[0][:, 0] * 1e3 + 5e4).astype(np.float64)
    monkeypatch.setattr(streams, "SMALL_TARGETS", 200)
    found = nnx.Blocks(data[0], target).targets()
    assert found.shape == (2,)
    assert np.std(found) == pytest.approx(np.std(target), rel=1e-12)


# Order


def rows_of(model_kind="plan", **keywords):
    """Return the rows of each epoch in their order, from the columns of X."""
    seen = []

    class Watching(nnx.Activation_ReLU):
        def forward(self, inputs, training):
            seen.append(inputs[:, 0].astype(int))
            super().forward(inputs, training)

    model = nnx.Model()
    model.add(Watching())
    model.add(nnx.Layer_Dense(2, 1))
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(1e-9), accuracy=nnx.Accuracy_Regression())
    model.finalize()
    X = np.stack([np.arange(ROWS), np.zeros(ROWS)], 1)
    source = nnx.Blocks(X, np.arange(ROWS), block_rows=10, window_rows=40)
    if model_kind == "iterable":
        source = nnx.Blocks.from_iterable(pairs(X, np.arange(ROWS), 10), window_rows=40)
    model.train(source, print_every=None, batch_size=20, **keywords)
    order = np.concatenate(seen)
    return order[len(order) % ROWS :].reshape(-1, ROWS)  # the first row is run once, for the output's width


@pytest.mark.one_backend
def test_shuffling_is_of_blocks_and_within_windows():
    first, second = rows_of(epochs=2, shuffle=True, seed=3)
    for order in (first, second):
        np.testing.assert_array_equal(np.sort(order), np.arange(ROWS))
    assert (first != second).any()
    np.testing.assert_array_equal(rows_of(epochs=2, shuffle=True, seed=3), [first, second])
    assert (rows_of(epochs=1, shuffle=True, seed=4)[0] != first).any()
    blocks = np.unique(first[:40] // 10, return_counts=True)
    assert blocks[1].tolist() == [10] * 4
    assert blocks[0].tolist() != [0, 1, 2, 3]
    assert (np.diff(first[:40]) != 1).sum() > 20
    within = rows_of("iterable", epochs=1, shuffle=True, seed=3)[0]
    for start in range(0, ROWS, 40):
        np.testing.assert_array_equal(np.sort(within[start : start + 40]), np.arange(start, min(start + 40, ROWS)))


# Checkpoints, Ctrl-C, errors


class StopError(Exception):
    pass


@pytest.fixture
def single_steps(monkeypatch):
    monkeypatch.setattr(plan.Run, "_how_many", lambda run, in_epoch: 1)


@pytest.mark.parametrize("kind", ["plan", "layers"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_run_goes_on_from_any_step(data, kind, shuffle, tmp_path, monkeypatch, single_steps):
    from nnx.engine import checkpoints

    path = tmp_path / "run.nnx"
    keywords = {"shuffle": shuffle, "seed": 3, "validation_data": data}
    expected = trained(model_of(kind), nnx.Blocks(*data, block_rows=30, window_rows=60), **keywords)
    write = checkpoints.Keeper.write
    for stop in (1, 3, 4, 11, 16):

        def stopping(keeper, job, done, sums, stop=stop):
            write(keeper, job, done, sums)
            if done == stop:
                raise StopError

        blocks = nnx.Blocks(*data, block_rows=30, window_rows=60)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.Keeper, "write", stopping)
            with pytest.raises(StopError):
                trained(model_of(kind), blocks, checkpoint=path, checkpoint_every="0s", **keywords)
        blocks = nnx.Blocks(*data, block_rows=30, window_rows=60)
        assert_same(trained(model_of(kind), blocks, resume=path, **keywords), expected)
    with pytest.raises(ValueError, match="blocks must be that of"):
        trained(model_of(kind), nnx.Blocks(*data, block_rows=20, window_rows=60), resume=path, **keywords)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to this process")
@pytest.mark.parametrize("slow", ["source", "model"])
def test_ctrl_c_stops_between_steps_and_the_run_goes_on(data, slow, tmp_path, single_steps):
    path, X, y = tmp_path / "run.nnx", *data
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press():
        os.kill(os.getpid(), signal.SIGINT)

    def blocks():
        for number, pair in enumerate(pairs(X, y)):
            if slow == "source" and number == 4 and presses:
                presses.pop()
                threading.Timer(0.1, press).start()
                time.sleep(0.3)
            yield pair

    class Pressing(Relu):
        def forward(self, inputs, training):
            super().forward(inputs, training)
            if training and model.optimizer.iterations == 2 and presses:
                presses.pop()
                press()

    model, presses = model_of("layers"), [True]
    if slow == "model":
        model.layers[1] = Pressing()
        model.finalize()
    source = nnx.Blocks.from_iterable(blocks, n_rows=ROWS, window_rows=60)
    try:
        with pytest.raises(KeyboardInterrupt):
            trained(model, source, checkpoint=path)
    finally:
        signal.signal(signal.SIGINT, kept)
    done = model.optimizer.iterations
    assert done == len(model.history) == 3 if slow == "model" else 0 < done < 11
    other = model_of("layers")
    if slow == "model":
        other.layers[1] = type("Pressing", (Relu,), {})()
        other.finalize()
    trained(other, source, resume=path)
    assert_same(other, trained(model_of("layers"), X, y))


def test_what_is_wrong_in_a_block_ends_the_training_after_the_steps_before(data):
    X, y = data
    X_bad, y_bad = X.copy(), y.copy()
    X_bad[130, 1], y_bad[150] = np.nan, 3

    def fails():
        yield X[:80], y[:80]
        raise OSError("the disk has gone")

    cases = [
        (nnx.Blocks(X_bad, y, block_rows=20, window_rows=20), r"X\[120:140\] \(block 6\) must hold finite .* row 10"),
        (nnx.Blocks(X, y_bad, block_rows=20, window_rows=20), r"y\[140:160\] \(block 7\) must hold class numbers"),
        ([*pairs(X[:80], y[:80]), (X[:9, :1], y[:9])], r"X\[0:9\] of block 3 must have shape \(n, 2\), got \(9, 1\)"),
        ([*pairs(X[:80], y[:80]), (X[:9], y[:8])], "y of block 3 must have one row per sample"),
        ([*pairs(X[:80], y[:80]), X[:9]], r"block 3 must be a pair \(X, y\)"),
        (fails, "the disk has gone"),
    ]
    for source, message in cases:
        model = model_of()
        if not isinstance(source, nnx.Blocks):
            source = nnx.Blocks.from_iterable(source, n_rows=ROWS, window_rows=20)
        with pytest.raises((ValueError, TypeError, OSError), match=message):
            trained(model, source)
        assert 3 <= len(model.history) == model.optimizer.iterations < 11
        expected = trained(model_of(), X[: 20 * len(model.history)], y[: 20 * len(model.history)], epochs=1)
        np.testing.assert_array_equal(parameters_of(model)[0], parameters_of(expected)[0])


class Flat(nnx.Activation_Linear):
    """A custom first layer, which takes samples of any shape unchanged."""

    def forward(self, inputs, training):
        super().forward(inputs.reshape(len(inputs), -1).astype(np.float32), training)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("later", "found"),
    [
        (np.zeros((9, 1, 2), np.int32), r"\(1, 2\) and int32"),
        (np.zeros((9, 2, 1), np.float64), r"\(2, 1\) and float64"),
    ],
    ids=["shape", "dtype"],
)
def test_later_rows_fit_below_the_first_ones(data, later, found):
    X, y = data
    model = nnx.Model()
    for layer in (Flat(), nnx.Layer_Dense(2, 3), nnx.Activation_Softmax()):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    source = nnx.Blocks.from_iterable(
        [(X[:80, :, None].astype(np.int32), y[:80]), (later, y[:9])], n_rows=ROWS, window_rows=20
    )
    with pytest.raises(
        ValueError, match=rf"block 1 must have rows of shape \(2, 1\) .* as the first ones, got {found}"
    ):
        trained(model, source)


def test_a_number_that_is_not_finite_is_found_in_its_step(data):
    X = data[0].copy()
    X[130] = np.inf
    for source in ((X, data[1]), (nnx.Blocks(X, data[1], window_rows=40), None)):
        model = model_of()
        with pytest.raises(nnx.DivergenceError, match=r"in epoch 1, step 6: the samples hold .* after 6 whole steps"):
            trained(model, *source, check_finite=False)
        assert len(model.history) == 6


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"batch_size": None}, "batch_size must be given"),
        ({"validation_split": 0.1}, "validation_split must be None"),
        ({"shuffle": lambda epoch, n: np.arange(n)}, "shuffle must be True or False"),
        ({"class_weight": "balanced"}, "class_weight must be numbers by class"),
        ({"y": [0]}, "y must not be given"),
    ],
)
def test_what_needs_all_rows_is_refused(data, keywords, message):
    model = model_of()
    with pytest.raises((TypeError, ValueError), match=f"Model.train: {message}"):
        model.train(nnx.Blocks(*data), **{"batch_size": 20, "print_every": None, **keywords})
    assert model.optimizer.iterations == 0


@pytest.mark.one_backend
def test_other_arguments_are_refused(data):
    X, y = data
    model = model_of()
    for wrong in (X, 3, "X.csv"):
        with pytest.raises(TypeError, match=r"Model\.train: y must be given"):
            trained(model, wrong)
    with pytest.raises(ValueError, match="models or processes train together"):
        nnx.train_many([nnx.Run(model, nnx.Blocks(X, y), None, batch_size=20)])
    model.set(optimizer=nnx.Optimizer_LBFGS())
    with pytest.raises(ValueError, match="X must be in memory for Optimizer_LBFGS"):
        trained(model, nnx.Blocks(X, y))
    for arguments in ((X, y[:5]), (X[:0], y[:0]), (X, y, [1.0])):
        with pytest.raises(ValueError, match=r"^Blocks: (X|y|sample_weight) must have"):
            nnx.Blocks(*arguments)
    for name in ("block_rows", "window_rows"):
        with pytest.raises(ValueError, match=f"^Blocks: {name} must be a whole number"):
            nnx.Blocks(X, y, **{name: 0})
    for rows, found in ((ROWS - 1, "more"), (ROWS + 1, ROWS)):
        with pytest.raises(ValueError, match=f"must have {rows} rows in each epoch, got {found} in epoch 1"):
            trained(model_of(), nnx.Blocks.from_iterable(pairs(X, y), n_rows=rows))


# What is printed, callbacks, sources


@pytest.mark.parametrize("kind", ["plan", "layers"])
def test_printed_lines_are_those_of_training_in_memory(data, kind, capsys):
    for source in (nnx.Blocks(*data, window_rows=40), iter(pairs(*data))):
        epochs = 2 if isinstance(source, nnx.Blocks) else 1
        trained(model_of(kind), *data, epochs=epochs, print_every=3)
        expected = capsys.readouterr().out
        trained(model_of(kind), source, epochs=epochs, print_every=3)
        assert capsys.readouterr().out == expected


def test_callbacks_are_called_after_each_epoch(data):
    calls = []

    def note(run):
        calls.append((run.epoch, len(run.history)))
        if run.epoch == 2:
            run.stop("enough")

    model = trained(model_of(), nnx.Blocks(*data, window_rows=40), epochs=5, callbacks=[note])
    assert calls == [(1, 11), (2, 22)]
    assert_same(model, trained(model_of(), *data, epochs=2))
    kept = [value for layer in (model.input_layer, *model.layers) for value in (getattr(layer, "inputs", None),)]
    assert all(value is None or value.base is None or len(value.base) < 40 for value in kept)


@pytest.mark.one_backend
def test_maps_of_files_are_read_in_blocks_once_they_are_large(data, tmp_path, monkeypatch, capsys):
    path = tmp_path / "X.npy"
    np.save(path, data[0])
    X = np.load(path, mmap_mode="r")
    used = []
    train = streaming.train
    monkeypatch.setattr(streaming, "train", lambda *arguments: (used.append(True), train(*arguments)))
    expected = trained(model_of(), *data)
    assert_same(trained(model_of(), X, data[1]), expected)
    assert not used
    monkeypatch.setattr(memory, "allowed", lambda: 3000)
    assert_same(trained(model_of(), X, data[1], print_every=100), expected)
    assert capsys.readouterr().out.startswith(
        "X is read block by block: it has 0 MB, and half of the memory is less.\n"
    )
    assert used
    trained(model_of(), X, data[1], batch_size=None)  # one step needs all rows
    assert len(used) == 1


class Chunked:
    """An array like those of libraries that keep data elsewhere."""

    def __init__(self, array, chunks=(32, 2)):
        self._array, self.chunks = array, chunks
        self.shape, self.dtype = array.shape, array.dtype
        self.read = 0

    def __getitem__(self, rows):
        found = self._array[rows]
        self.read = max(self.read, len(found))
        return found

    def __array__(self, dtype=None, copy=None):
        return np.array(self._array, dtype)


@pytest.mark.one_backend
def test_arrays_in_chunks_are_read_in_whole_chunks(data, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 300)
    X = Chunked(data[0])
    assert_same(trained(model_of(), X, data[1]), trained(model_of(), *data))
    assert X.read == 64
    trained(model_of(), X, data[1], batch_size=None)


@pytest.mark.one_backend
def test_h5py(data, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        X, y = (file.create_dataset(name, data=array) for name, array in zip("Xy", data, strict=True))
        assert_same(trained(model_of(), X, y), trained(model_of(), *data))


@pytest.mark.one_backend
def test_parquet_files(data, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    X, y = data
    for number, rows in enumerate((slice(0, 90), slice(90, None))):
        table = pa.table({"a": X[rows, 0], "class": y[rows], "b": X[rows, 1]})
        parquet.write_table(table, tmp_path / f"{number}.parquet", row_group_size=40)
    blocks = nnx.Blocks.from_parquet(tmp_path, "class", window_rows=60)
    assert repr(blocks) == "Blocks(rows=203, blocks=6)"
    assert_same(trained(model_of(), blocks), trained(model_of(), X, y))
    shuffled = trained(model_of(), blocks, shuffle=True, seed=1)
    assert len(shuffled.history) == 22
    two = nnx.Blocks.from_parquet([tmp_path / "0.parquet"], ["a", "b"], ["class"])
    assert next(two.pieces(None, 0)).y.shape == (40, 2)
    parquet.write_table(pa.table({"a": [1.0, None], "class": [0, 1], "b": [1, 2]}), tmp_path / "gap.parquet")
    with pytest.raises(ValueError, match=r"X\[0:2\] of row group 0 of .*gap.parquet' must hold finite"):
        trained(model_of(), nnx.Blocks.from_parquet(tmp_path / "gap.parquet", "class"))


@pytest.mark.one_backend
def test_parquet_files_that_do_not_serve(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"a": ["x"], "y": [0]}), path)
    (tmp_path / "no.parquet").write_bytes(b"PAR1" * 10)
    for arguments, message in (
        ((path, "y"), "column 'a' .* must hold numbers, got string"),
        ((path, "z", ["y"]), "must have one column 'z'"),
        ((path, "y", []), "must have a column beside the target"),
        ((tmp_path / "no.parquet", "y"), "cannot be read as a Parquet file"),
    ):
        with pytest.raises(nnx.DataFileError, match=message):
            nnx.Blocks.from_parquet(*arguments)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        nnx.Blocks.from_parquet(tmp_path / "none.parquet", "y")


@pytest.mark.one_backend
def test_memory_that_is_allowed(monkeypatch, tmp_path):
    whole = memory.allowed()
    assert 1 << 26 < whole < 1 << 50
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (str(limit), "/nowhere"))
    for text, expected in (("max\n", whole), (f"{1 << 20}\n", 1 << 20)):
        limit.write_text(text)
        assert memory.allowed() <= expected
