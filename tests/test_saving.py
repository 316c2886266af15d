"""Saving with other threads, little memory, odd paths, large models, arrays that share memory, and after a fork."""

from __future__ import annotations

import copy
import os
import pickle
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from networks import classifier, parameters_of

import nnx
from nnx import model as model_module
from nnx._base import files
from nnx.data.columns import Ignored, Number, Text
from nnx.files import model_files, safetensors

pytestmark = pytest.mark.one_backend


@pytest.fixture
def data():
    return nnx.spiral_data(samples=40, classes=3)


# Other threads, and memory that ends


def trained_elsewhere(model, use):
    """Call ``use`` in this thread while another one trains the model, step by step in Python. Return its error."""
    begun, over = threading.Event(), threading.Event()

    class Accuracy_Waiting(nnx.Accuracy_Categorical):
        def calculate(self, predictions, y):
            begun.set()
            over.wait(60)
            return super().calculate(predictions, y)

    model.set(accuracy=Accuracy_Waiting())
    trainer = threading.Thread(target=lambda: model.train(np.ones((3, 2)), [0, 1, 2], print_every=None))
    trainer.start()
    try:
        assert begun.wait(60)
        use()
    except RuntimeError as error:
        return str(error)
    finally:
        over.set()
        trainer.join()
    return ""


@pytest.mark.parametrize("method", ["save", "save_parameters"])
def test_a_model_that_another_thread_trains_is_not_saved(tmp_path, method):
    model = classifier()
    model.save_parameters(tmp_path / "file")
    old = (tmp_path / "file").read_bytes()
    sentence = trained_elsewhere(model, lambda: getattr(model, method)(tmp_path / "file"))
    assert sentence == (
        f"Model.{method}: the model must not be saved while another thread trains it, because its arrays "
        f"change during a step. Wait until training ends, or let it write a file between two steps: train(..., "
        f"checkpoint=path)."
    )
    assert (tmp_path / "file").read_bytes() == old
    model.set(accuracy=nnx.Accuracy_Categorical())
    getattr(model, method)(tmp_path / "file")


def test_files_that_are_written_while_plans_train_are_right(tmp_path, compiled):
    """Compiled steps continue while this thread writes."""
    model = classifier()
    X, y = nnx.spiral_data(samples=100, classes=3)
    begun, over = threading.Event(), threading.Event()

    def train():
        while not over.is_set():
            model.train(X, y, epochs=1000, print_every=None)
            begun.set()

    trainer = threading.Thread(target=train)
    trainer.start()
    assert begun.wait(60)
    refused = 0
    for _ in range(300):
        try:
            model.save(tmp_path / "model")
        except RuntimeError:
            refused += 1
        if (tmp_path / "model").exists():
            nnx.Model.load(tmp_path / "model")
    over.set()
    trainer.join()
    assert refused > 0
    model.save(tmp_path / "model")


def test_the_thread_that_trains_a_model_may_save_it(tmp_path):
    class Accuracy_Saving(nnx.Accuracy_Categorical):
        def get_config(self):
            return {}

        def calculate(self, predictions, y):
            model.save(tmp_path / "model")
            return super().calculate(predictions, y)

    model = classifier()
    model.set(accuracy=Accuracy_Saving())
    model.train(np.ones((3, 2)), [0, 1, 2], print_every=None)
    nnx.Model.load(tmp_path / "model", {"Accuracy_Saving": Accuracy_Saving})


@pytest.mark.parametrize("method", ["save", "save_parameters"])
def test_arrays_that_change_while_they_are_written_leave_the_old_file(tmp_path, monkeypatch, method):
    """As by a thread that trains the layers by hand, unknown to the model."""
    model = classifier()
    getattr(model, method)(tmp_path / "file")
    old = (tmp_path / "file").read_bytes()
    replacing = files.replacing

    def change_then_replace(*arguments):
        model.layers[2].weights += 1
        return replacing(*arguments)

    monkeypatch.setattr(files, "replacing", change_then_replace)
    with pytest.raises(
        RuntimeError, match=rf"^Model\.{method}: layers\.2\.weights must not change while it is written"
    ):
        getattr(model, method)(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == old
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.long("writes a network of 100 MB")
@pytest.mark.few
@pytest.mark.parametrize("extra", [0, 8, 90, 130, 190])
def test_memory_that_ends_while_a_file_is_written_is_an_error_or_enough(tmp_path, extra):
    """The address space may grow by this much while a network of 100 MB writes a file and a checkpoint."""
    pytest.importorskip("resource")
    script = (
        "import resource, sys, numpy as np, nnx\n"
        "model = nnx.Model()\n"
        "model.add(nnx.Layer_Dense(5000, 5000))\n"
        "model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(), "
        "accuracy=nnx.Accuracy_Regression())\n"
        "model.finalize()\n"
        "model.layers[0].biases += 3\n"
        "from nnx.files import model_files\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (int(sys.argv[2]) << 20), resource.RLIM_INFINITY))\n"
        "found = []\n"
        "path = sys.argv[1]\n"
        "for write in (lambda: model.save(path), lambda: model_files.save_checkpoint('x', path, model, {}, {})):\n"
        "    try:\n"
        "        write()\n"
        "        found.append('written')\n"
        "    except MemoryError:\n"
        "        found.append('MemoryError')\n"
        "print(*found)\n"
    )
    path = tmp_path / "model"
    path.write_text("old")
    command = [sys.executable, "-c", script, str(path), str(extra)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["model"]
    if extra >= 8:
        assert done.stdout == "written written\n"
    if "written" in done.stdout:
        assert (nnx.Model.load(path).layers[0].biases == 3).all()
    else:
        assert path.read_text() == "old"


def test_writing_takes_little_memory(tmp_path):
    import tracemalloc

    model = nnx.Model()
    model.add(nnx.Layer_Dense(2000, 1500))
    model.finalize()
    tracemalloc.start()
    try:
        model.save(tmp_path / "large")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 << 20


# Places


@pytest.mark.parametrize("method", ["save", "save_parameters", "load", "load_parameters", "checkpoint", "resume"])
@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        (
            b"x",
            TypeError,
            r"must be the name of a file or folder, got b'x'\. Write it as text: os\.fsdecode\(\.\.\.\)\.",
        ),
        (1, TypeError, r"must be the name of a file or folder, got 1\."),
        (None, TypeError, r"must be the name of a file or folder, got None\."),
        ("a\0b", ValueError, r"must be a name without null characters, got 'a\\x00b'\."),
    ],
)
def test_what_names_no_file_is_refused_in_one_sentence(tmp_path, monkeypatch, method, path, error, sentence):
    if path is None and method in ("checkpoint", "resume"):
        return  # none is wanted
    monkeypatch.chdir(tmp_path)
    model = classifier()
    name = method if method in ("checkpoint", "resume") else "path"
    where = "train" if name == method else method
    arguments = ((np.ones((3, 2)), [0, 1, 2]), {name: path}) if name == method else ((path,), {})
    with pytest.raises(error, match=rf"^Model\.{where}: {name} {sentence}$"):
        getattr(model, where)(*arguments[0], **arguments[1])
    assert os.listdir(tmp_path) == []
    assert model.history is None


# Large models


def table_of(n_columns):
    genes = [Number(f"gene {i}", 0.1 * i - 1, 1 + i / 7, i % 5) for i in range(n_columns)]
    return nnx.Table([Ignored("id"), *genes, Text("tumour", ("no", "yes"))], "tumour")


def model_with(table, width=4):
    model = nnx.Model()
    layers = (
        nnx.Layer_Dense(table.n_inputs, width),
        nnx.Activation_ReLU(),
        nnx.Layer_Dense(width, table.n_outputs),
        nnx.Activation_Softmax(),
    )
    for layer in layers:
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(),
        accuracy=nnx.Accuracy_Categorical(),
        table=table,
    )
    model.finalize()
    return model


@pytest.mark.long("learns 30,000 columns")
def test_a_table_of_30_000_columns_is_trained_saved_loaded_and_predicts(tmp_path):
    n = 30_000
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(12, n)).round(3)
    rows = [",".join(["id", *(f"gene {i}" for i in range(n)), "tumour"])]
    rows += [f"{row}," + ",".join(map(str, cells[row])) + "," + ("no", "yes")[row % 2] for row in range(12)]
    (tmp_path / "genes.csv").write_text("\n".join(rows) + "\n")
    X, y, _, _, table = nnx.load_csv(tmp_path / "genes.csv", "tumour", test_size=0, drop=["id"], task="classification")
    assert table.n_inputs == n
    model = model_with(table)
    model.train(X, y, epochs=3, print_every=None, checkpoint=tmp_path / "run")
    model.save(tmp_path / "model")
    for path in ("model", "run"):
        twin = nnx.Model.load(tmp_path / path)
        assert twin.table.to_dict() == table.to_dict()
        inputs = twin.table.read_inputs(tmp_path / "genes.csv")
        assert twin.table.decode(twin.predict(inputs)).tolist() == table.decode(model.predict(inputs)).tolist()
    resumed = model_with(table)
    resumed.train(X, y, epochs=3, print_every=None, resume=tmp_path / "run")
    assert parameters_of(resumed) == parameters_of(model)


def test_a_table_with_long_texts_can_be_saved(tmp_path):
    texts = tuple(f"{number} " + "ü" * 20_000 for number in range(150))
    table = nnx.Table([Text("abstract", texts), Text("kind", ("a", "b"))], "kind")
    model_with(table).save(tmp_path / "model")
    assert nnx.Model.load(tmp_path / "model").table.columns == table.columns


@pytest.mark.few
@pytest.mark.parametrize(
    ("columns", "sentence"),
    [  # functions: made when pytest looks for tests, they would take a second of each of its processes
        (
            lambda: [Number(f"{i}") for i in range(100_000)],
            "have at most 100,000 columns and categories together, got 100,001",
        ),
        (
            lambda: [Text(f"{i}", tuple(f"{k}" for k in range(256))) for i in range(400)],
            "have at most 100,000 columns and categories together, got 102,80",
        ),
        (
            lambda: [Text("x", ("a" * 9_000_000,))],
            "have names and categories of at most 8,388,608 bytes together, got 9,000,",
        ),
    ],
)
def test_a_table_that_no_file_could_hold_is_refused_before_the_training(columns, sentence):
    table = nnx.Table([*columns(), Number("y")], "y")
    model = nnx.Model()
    with pytest.raises(ValueError, match=rf"^Model\.set: table must {sentence}.*Leave columns out: drop="):
        model.set(table=table)
    assert model.table is None


@pytest.mark.long("makes ten thousand layers, the most that a file holds")
def test_ten_thousand_layers_with_adams_state_can_be_saved_and_more_are_refused_before_training(tmp_path):
    layer = nnx.Layer_Dense(1, 1)
    model = nnx.Model()
    model.layers = [copy.deepcopy(layer) for _ in range(model_module.MAX_LAYERS)]
    model.set(optimizer=nnx.Optimizer_Adam())
    model.finalize()
    for number, layer in enumerate(model.layers):
        layer.weights[:] = number
        for name in ("weight_momentums", "weight_cache", "bias_momentums", "bias_cache"):
            setattr(layer, name, np.full((1, 1), number, np.float32))
    model.save(tmp_path / "model")
    model.save_parameters(tmp_path / "parameters")
    twin = nnx.Model.load(tmp_path / "model")
    assert len(twin.layers) == 10_000
    assert all(layer.weights == layer.bias_cache == number for number, layer in enumerate(twin.layers))
    twin.load_parameters(tmp_path / "parameters")
    model.layers = [*model.layers, nnx.Layer_Dense(1, 1)]
    with pytest.raises(ValueError, match=r"^Model\.finalize: layers must be at most 10,000, got 10,001\."):
        model.finalize()


def test_a_layer_that_stands_twice_is_refused(tmp_path):
    model = nnx.Model()
    relu = nnx.Activation_ReLU()
    model.layers = [nnx.Layer_Dense(2, 3), relu, nnx.Layer_Dense(3, 3), relu]
    with pytest.raises(
        ValueError,
        match=r"^Model\.finalize: layers must be different objects, got Activation_ReLU\(\) as layers 1 and 3",
    ):
        model.finalize()
    model = classifier()
    model.trainable_layers = [*model.trainable_layers, model.layers[0]]
    for method in (model.save, model.save_parameters):
        with pytest.raises(
            ValueError, match=r"^Model\.save.*: trainable_layers must hold each layer once, got Layer_D"
        ):
            method(tmp_path / "model")
    assert os.listdir(tmp_path) == []


# Arrays that share memory


def three_layers(data_type="float32"):
    model = nnx.Model()
    for layer in (*(nnx.Layer_Dense(2, 2, dtype=data_type) for _ in range(2)), nnx.Layer_Dense(2, 3, dtype=data_type)):
        model.add(layer)
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_SGD(0.1), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    return model


def test_weights_that_are_a_view_of_others_stay_tied_in_a_file(tmp_path, data):
    def tied():
        np.random.seed(3)
        model = three_layers()
        model.layers[1].weights = model.layers[0].weights[:]
        return model

    whole = tied()
    whole.train(*data, epochs=4, print_every=None)
    part = tied()
    part.train(*data, epochs=2, print_every=None, checkpoint=tmp_path / "run")
    part.save(tmp_path / "model")
    twin = nnx.Model.load(tmp_path / "model")
    assert twin.layers[1].weights is twin.layers[0].weights
    twin.train(*data, epochs=2, print_every=None)
    resumed = tied()
    resumed.train(*data, epochs=4, print_every=None, resume=tmp_path / "run")
    assert parameters_of(twin) == parameters_of(resumed) == parameters_of(whole)


SHARING = {
    "a part of others": (
        lambda a, b: vars(b).update(biases=a.weights[:1]),
        "biases of layer 1 must not share memory with weights of layer 0",
    ),
    "weights and momentums": (
        lambda a, b: vars(b).update(weight_momentums=b.weights),
        "weight_momentums of layer 1 must not share memory with weights of layer 1",
    ),
}


@pytest.mark.parametrize("case", SHARING)
def test_arrays_whose_tie_a_file_would_lose_are_refused(tmp_path, data, case):
    spoil, parts = SHARING[case]
    model = three_layers()
    spoil(*model.layers[:2])
    rest = r" as a view, which a file cannot store\. Give both layers the same array, or copies\.$"
    with pytest.raises(ValueError, match=rf"^Model\.save: {parts}{rest}"):
        model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=rf"^Model\.train: {parts}{rest}"):
        model.train(*data, print_every=None, checkpoint=tmp_path / "run")
    assert os.listdir(tmp_path) == []
    assert model.history is None


def test_only_arrays_that_have_numbers_in_common_share_memory():
    X = np.arange(12.0).reshape(3, 4)
    apart = [X[:, ::2], X[:, 1::2], X[:0]]
    model_files.check_apart("test", {f"layers.{i}.weights": array for i, array in enumerate(apart)})
    for each in (X[:, 1:3], X.T, X[::-1, ::2], X[:, :1]):
        with pytest.raises(ValueError, match=r"^test: weights of layer [123] must not share memory with weights of "):
            model_files.check_apart("test", {f"layers.{i}.weights": array for i, array in enumerate([*apart, each])})


def test_parts_of_one_vector_that_do_not_overlap_can_be_saved(tmp_path):
    model = three_layers()
    vector = np.arange(40, dtype=np.float32)
    model.layers[0].weights, model.layers[1].weights = vector[:4].reshape(2, 2), vector[4:8].reshape(2, 2)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(nnx.Model.load(tmp_path / "model").layers[1].weights, [[4, 5], [6, 7]])


# Copies


def test_a_model_in_training_can_be_copied_and_not_copied_deeply():
    model = classifier()
    copies = []
    assert trained_elsewhere(model, lambda: copies.append(copy.copy(model))) == ""
    assert copies[0].layers is model.layers
    copies[0].train(np.ones((3, 2)), [0, 1, 2], print_every=None)
    for make in (copy.deepcopy, pickle.dumps):
        model = classifier()
        sentence = trained_elsewhere(model, lambda make=make, model=model: make(model))
        assert sentence.startswith("Model: the model must not be copied deeply or pickled while another thread trains")


def test_a_copy_does_not_mind_attributes_that_another_thread_adds():
    model = classifier()

    over = threading.Event()

    def grow():
        number = 0
        while not over.is_set():
            number += 1
            setattr(model, f"attribute{number}", number)
            if number % 100 == 0:
                for each in range(number - 99, number + 1):
                    delattr(model, f"attribute{each}")

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        for _ in range(3000):
            copy.copy(model)
    finally:
        over.set()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_is_forked_during_a_training_can_train_and_save_the_model(tmp_path):
    model = classifier()
    codes = []

    def fork():
        child = os.fork()
        if child == 0:
            code = 1
            try:
                model.set(accuracy=nnx.Accuracy_Categorical())
                model.train(np.ones((3, 2)), [0, 1, 2], print_every=None)
                model.save(tmp_path / "model")
                copy.deepcopy(model)
                code = 0
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    assert trained_elsewhere(model, fork) == ""
    assert codes == [0]
    nnx.Model.load(tmp_path / "model")


def test_the_command_refuses_a_table_that_is_too_large_before_the_training(tmp_path, monkeypatch, capsys):
    from nnx.cli import main
    from nnx.files import packing

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packing, "MAX_TEXTS", 3)
    (tmp_path / "wide.csv").write_text("a,b,c,d\n" + "1,2,3,4\n2,3,4,5.5\n" * 10)
    with pytest.raises(SystemExit) as left:
        main(["train", "wide.csv", "--target", "d"])
    assert left.value.code == 2
    assert re.match(
        r"nnx train: table must have at most 3 columns and categories together, got \d+\. Leave columns out: "
        r"drop=\[\.\.\.\] in Python, --drop on the command line\.",
        capsys.readouterr().err,
    )
    assert os.listdir(tmp_path) == ["wide.csv"]


def test_a_transposed_view_as_weights_is_refused_by_both_ways_of_saving(tmp_path):
    model = nnx.Model()
    first, second = nnx.Layer_Dense(3, 3), nnx.Layer_Dense(3, 3)
    for layer in (first, second):
        model.add(layer)
    second.weights = first.weights.T
    model.finalize()
    for save in (model.save, model.save_parameters):
        with pytest.raises(ValueError, match=r"weights of layer 1 must not share memory with weights of layer 0"):
            save(tmp_path / "tied")


def test_parameters_of_no_layer_and_one_array_for_two_purposes_are_refused(tmp_path):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(1, 3))
    model.finalize()
    path = str(tmp_path / "crafted")
    values = np.ones((1, 3), np.float32)
    description = {"format": "nnx parameters", "version": 3, "trainable": [0]}
    for arrays, says in (
        ({"layers.0.weights": values, "layers.0.biases": values}, "cannot be the same array as"),
        ({"layers.0.weights": values, "layers.0.biases": 2 * values, "evil.name": 3 * values}, "belongs to no layer"),
    ):
        safetensors.write("test", path, description, arrays)
        with pytest.raises(nnx.ModelFileError, match=says):
            model.load_parameters(path)


def test_a_copy_of_a_model_follows_a_subclass_that_is_copied_its_own_way():
    class Named(nnx.Model):
        def __new__(cls, name):
            return super().__new__(cls)

        def __init__(self, name):
            self.name = name

        def __getnewargs__(self):
            return (self.name,)

    class Packed(nnx.Model):
        def __getstate__(self):
            return ("packed", self.layers)

        def __setstate__(self, state):
            self.layers = state[1]

    named, packed = Named("a"), Packed()
    packed.add(nnx.Layer_Dense(1, 1))
    assert copy.copy(named).name == "a"
    assert copy.copy(packed).layers is packed.layers


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_forked_while_the_main_thread_trains_answers_ctrl_c(backend):
    script = (
        "import os, signal, sys, threading, time\n"
        "import numpy as np, nnx\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from nnx._base.interrupt import Interrupt\n"
        "code = []\n"
        "def fork():\n"
        "    time.sleep(0.2)\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os._exit(0 if signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "                 and not Interrupt.entered else 1)\n"
        "    code.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "    Interrupt.entered[-1]._put_off(2, None)\n"
        "model = nnx.Model()\n"
        "model.add(nnx.Layer_Dense(2, 2))\n"
        "model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_SGD(1e-6),\n"
        "          accuracy=nnx.Accuracy_Regression())\n"
        "model.finalize()\n"
        "forker = threading.Thread(target=fork)\n"
        "forker.start()\n"
        "try:\n"
        "    model.train(np.ones((4, 2)), np.ones((4, 2)), epochs=10**9, print_every=None)\n"
        "except KeyboardInterrupt:\n"
        "    forker.join()\n"
        "    sys.exit(code[0])\n"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60).returncode == 0
