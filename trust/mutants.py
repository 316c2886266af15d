"""Files from strangers: valid files, changed in every way that comes to mind, and what becomes of reading them.

As a script it reads mutants in a process of its own, which may use 64 MB more than before and a second for each:

    python trust/mutants.py --cases 1000 --seed 1

It prints what it has done as JSON. A mutant's number and the seed make it again: ``--first N --cases 1``.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from worker import Examiner, run

import nnx
from nnx.data.columns import Date, Ignored, Number, Text
from nnx.files import model_files, safetensors

try:
    from nnx import sklearn as estimators
except ImportError:  # scikit-learn is not installed
    estimators = None  # type: ignore[assignment]

MORE_MEMORY = 64 << 20
SECONDS = 1.0

#: What stands in place of something sensible.
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 16, 255, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30),
    *(0.0, -0.0, 0.5, -1.5, 1e-320, 1e308, 10**400, float("nan"), float("inf"), float("-inf")),
    *("", "x", "\x00", "\ud800", "Layer_Dense", "Model", "__class__", "../../etc/passwd", "x" * 10_000, "F32", "BF16"),
    *([], {}, [[]], [0], [-1], [2**62, 2**62], [1, 2, 3, 4], {"": 0}, {"class": "Model"}, {"__metadata__": {}}),
)

# The valid files

TABLE = nnx.Table(
    [
        *(Number("a", 1.5, 2.0, 3), Ignored("id"), Text("b", ("Göß",), 1), Text("c", ("no", "yes"))),
        *(Number("d", scaling="normal", quantiles=(-1.0, 0.5, 0.5), indicator=True), Number("e", scaling="robust")),
        *(Text("f", ("u", "v"), pooled=True, as_code=True), Date("g", ("days", "sine"), (9.5, 0.0), (2.0, 1.0), 1)),
    ],
    "c",
)


def model_of(kind: str) -> nnx.Model:
    """Return one of a few small models, the same at every call, trained a little."""
    np.random.seed(1)
    X = np.random.randn(24, TABLE.n_inputs if kind == "table" else 2)
    model = nnx.Model()
    layers, loss, accuracy, y = {
        "classes": (
            (
                *(nnx.Layer_Dense(2, 3), nnx.Activation_ReLU(), nnx.Layer_Dropout(0.1), nnx.Layer_Dense(3, 2)),
                nnx.Activation_Softmax(),
            ),
            nnx.Loss_CategoricalCrossentropy(),
            nnx.Accuracy_Categorical(),
            np.arange(24) % 2,
        ),
        "numbers": (
            (
                *(nnx.Layer_Dense(2, 4, weight_regularizer_l2=0.1, dtype="float64"), nnx.Activation_Sigmoid()),
                *(nnx.Layer_Dense(4, 1, dtype="float64"), nnx.Activation_Linear()),
            ),
            nnx.Loss_MeanSquaredError(),
            nnx.Accuracy_Regression(),
            X.sum(axis=1),
        ),
        "settings": (  # of a layer, an activation, a loss, an optimizer; parameters without biases; averages
            (
                *(nnx.Layer_Dense(2, 3, weight_initializer="he_normal"), nnx.Activation_PReLU(3)),
                *(nnx.Layer_Dense(3, 1), nnx.Activation_LeakyReLU(0.2)),
            ),
            nnx.Loss_Huber(delta=0.5),
            nnx.Accuracy_Regression(),
            X.sum(axis=1),
        ),
        "layers": (  # of all kinds: figures that nothing trains, counts, layers within layers
            (
                *(nnx.Layer_Embedding(2, [1], 3, 2), nnx.Layer_BatchNorm(3), nnx.Layer_GaussianNoise(0.1)),
                *(nnx.Layer_PiecewiseLinear(3, [1], [[0, 1, 2]]), nnx.Layer_Thermometer(5, [0], [[0]])),
                *(nnx.Layer_Combinations(6, [[0, 5]], [[1, -0.5]]), nnx.Layer_Periodic(7, [0], 2, 1)),
                nnx.Layer_Residual([nnx.Layer_LayerNorm(8), nnx.Layer_Residual([nnx.Layer_BatchNorm(8)])]),
                *(nnx.Layer_Scale(8, 0.5), nnx.Layer_Members(8, 3), nnx.Layer_Dense(8, 4), nnx.Layer_MemberScale(4, 3)),
                *(nnx.Layer_MemberDense(4, 2, 3), nnx.Activation_Softmax()),
            ),
            nnx.Loss_CategoricalCrossentropy(),
            nnx.Accuracy_Categorical(),
            np.arange(24) % 2,
        ),
        "table": (
            (nnx.Layer_Dense(TABLE.n_inputs, 2), nnx.Activation_Softmax()),
            nnx.Loss_CategoricalCrossentropy(),
            nnx.Accuracy_Categorical(),
            np.arange(24) % 2,
        ),
    }[kind]
    if kind == "layers":
        X[:, 1] = np.arange(24) % 3
    for layer in layers:
        model.add(layer)
    optimizers = {
        "classes": lambda: nnx.Optimizer_Adam(decay=0.01),
        "settings": lambda: nnx.Optimizer_AdamW(
            schedule=nnx.Schedule_WarmUp(3, nnx.Schedule_Cosine(20)), clip_norm=1.0, average=0.9
        ),
    }
    make = optimizers.get(kind, lambda: nnx.Optimizer_SGD(0.1, momentum=0.5))
    model.set(loss=loss, optimizer=make(), accuracy=accuracy)
    if kind == "table":
        model.set(table=TABLE)
    if kind == "classes":
        model.set(images=nnx.Images(1, 2, ("a", "b")))
    model.finalize()
    model.train(X, y, epochs=2, print_every=None)
    return model


CLASSES = (np.ones((6, 2)), np.array([0, 1, 0, 1, 0, 1]))
NUMBERS = (np.ones((6, 2)), np.arange(6.0))
OF_TABLE = (np.ones((6, TABLE.n_inputs)), CLASSES[1])
DATA = {"classes": CLASSES, "numbers": NUMBERS, "settings": NUMBERS, "layers": CLASSES, "table": OF_TABLE}
ROUND = {"epochs": 2, "batch_size": 4, "shuffle": True, "seed": 1, "print_every": None}


def estimator_of(kind: str) -> Any:
    """Return one of a few small estimators, the same at every call, trained a little."""
    X = np.random.RandomState(1).uniform(-1.0, 1.0, (24, 2))
    if kind.startswith("tabular"):
        return tabular_estimator_of(kind, X)
    settings: dict[str, Any] = {"hidden_layer_sizes": (3,), "max_iter": 2, "random_state": np.random.RandomState(2)}
    if kind == "regressor":
        objects: dict[str, Any] = {"solver": nnx.Optimizer_AdamW(0.1), "learning_rate": nnx.Schedule_WarmUp(3)}
        return estimators.MLPRegressor(norm="batch", dropout=[0.1], **objects, **settings).fit(X, X @ X.T[:, :2])
    activation = [nnx.Activation_PReLU(3, dtype="float64")]
    estimator = estimators.MLPClassifier(activation=activation, class_weight={"a": 2.0}, n_members=2, **settings)
    return estimator.fit(X, np.array(["a", "b", "c"])[np.arange(24) % 3])


END = {"tabular classifier": nnx.Activation_Softmax, "tabular regressor": nnx.Activation_Linear}


def tabular_estimator_of(kind: str, X: Any) -> Any:
    """Return an estimator for tables, whose networks are tiny ones in place of its own."""
    if kind == "tabular regressor":
        estimator = estimators.TabularRegressor("fast", quantiles=[0.1, 0.9], random_state=2).fit(X, X[:, 0])
    else:
        estimator = estimators.TabularClassifier("fast", random_state=2).fit(X, np.array(["a", "b"])[np.arange(24) % 2])
    table = estimator.ensemble_.table
    for name in ("ensemble_", "quantile_ensemble_"):
        found = getattr(estimator, name)
        if found is not None:
            tiny = nnx.Model()
            for layer in (nnx.Layer_Dense(table.n_inputs, found.output_width()), END[kind]()):
                tiny.add(layer)
            tiny.set(loss=found.loss, optimizer=nnx.Optimizer_SGD(0.1), accuracy=found.accuracy)
            tiny.finalize()
            setattr(estimator, name, nnx.Ensemble([tiny]))
    estimator.ensemble_.set(table=table)
    return estimator


def ensemble_of(kind: str) -> nnx.Ensemble:
    """Return an ensemble of two such models, the same at every call."""
    models = [model_of(kind), model_of(kind)]
    ensemble = nnx.Ensemble(models)
    ensemble.counts = (2, 1)
    return ensemble


class Original:
    """A valid file, and how it is read."""

    def __init__(self, kind: str, what: str, folder: Path) -> None:
        self.kind, self.what = kind, what
        path = folder / "original"
        if what in ("estimator", "ensemble"):
            (estimator_of if what == "estimator" else ensemble_of)(kind).save(path)
            self.content = path.read_bytes()
            self.header, self.payload = parts(self.content)
            self.result = everything(self.read(path))
            return
        model = model_of(kind)
        if what == "model":
            model.save(path)
        elif what == "parameters":
            model.save_parameters(path)
        else:
            model.train(*DATA[kind], **{**ROUND, "epochs": 1}, checkpoint=path)
        self.content = path.read_bytes()
        self.reader = model_of(kind)
        self.unchanged = everything(self.reader)
        self.header, self.payload = parts(self.content)
        self.result = everything(self.read(path))

    def read(self, path: Path) -> Any:
        """Read a file in place of this one and return the model, estimator or ensemble that results."""
        if self.what == "estimator":
            return estimators.load(path)
        if self.what == "ensemble":
            return nnx.Ensemble.load(path)
        if self.what == "model":
            return nnx.Model.load(path)
        self.reader = model_of(self.kind)
        if self.what == "parameters":
            self.reader.load_parameters(path)
        else:
            self.reader.train(*DATA[self.kind], **ROUND, resume=path)
        return self.reader


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return a file's header and its payload."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def everything(model: Any) -> Any:
    """Return what a file of the model, estimator or ensemble would hold."""
    if not isinstance(model, nnx.Model):
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / "file")
            return (Path(folder) / "file").read_bytes()
    description, arrays = model_files.contents("trust", model)
    return json.dumps(description), {name: a.tobytes() for name, a in arrays.items()}


# Mutations of bytes


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_in_header(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    end = min(len(content), 8 + int.from_bytes(content[:8], "little"))
    changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    at = rng.randrange(len(changed))
    new = rng.randbytes(rng.choice((1, 2, 8, 64)))
    changed[at : at + len(new)] = new
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def leave_out(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.choice((1, 2, 4, 8, 100)) :]


def put_in(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice((b"\0", b"{", b"[", b'"', b",", b" ", rng.randbytes(8))) + content[at:]


def repeat_a_piece(content: bytes, rng: random.Random) -> bytes:
    first, last = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:last] + content[first:last] + content[last:]


def other_length(content: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    new = rng.choice(
        (0, 1, 2, max(0, length - 1), length + 1, abs(length - 8), len(content), 2**31, 2**63, 2**64 - 1, 10**8)
    )
    return min(new, 2**64 - 1).to_bytes(8, "little") + content[8:]


def other_word(content: bytes, rng: random.Random) -> bytes:
    """Replace a number or a word of the header by something else."""
    length = int.from_bytes(content[:8], "little")
    words = content[8 : 8 + length].decode("latin-1")
    marks = [i for i, letter in enumerate(words) if letter.isalnum()]
    first = last = rng.choice(marks or [0])
    while last < len(words) and words[last].isalnum():
        last += 1
    new = rng.choice(("-1", "0", "1e999", "NaN", "Infinity", "9" * 30, "9" * 5000, "null", "true", '"', "[" * 60, "{}"))
    header = (words[:first] + new + words[last:]).encode("latin-1")
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def deep(content: bytes, rng: random.Random) -> bytes:
    """Nest brackets, as a value, as the whole header, or within the description."""
    length = int.from_bytes(content[:8], "little")
    depth = rng.choice((10, 33, 100, 1000, 100_000))
    nest = rng.choice((b"[", b'{"a":')) * depth
    header = content[8 : 8 + length]
    header = rng.choice((nest, b'{"x":' + nest, b'{"x":' + nest + b"1" + b"]" * depth + b"," + header[1:]))
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def wide(content: bytes, rng: random.Random) -> bytes:
    """Make a header of very many values."""
    length = int.from_bytes(content[:8], "little")
    many = b",".join([rng.choice((b"0", b"[]", b"{}", b'""', b"0.1"))] * rng.choice((10_000, 99_000, 1_000_000)))
    header = b'{"x":[' + many + b"]," + content[9 : 8 + length]
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip, flip, flip_in_header, flip_in_header, overwrite, cut, leave_out, put_in, repeat_a_piece, other_length),
    *(other_word, other_word),
)
#: A thousandth of the cases each: they take long to write.
LARGE = (deep, wide)

# Mutations of what a file says, with a checksum that is right


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container within a value with each of its keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from places(inner)


def tamper(value: Any, rng: random.Random) -> None:
    """Change something somewhere within a value."""
    found = list(places(value))
    if not found:
        return
    container, key = rng.choice(found)
    other, place = rng.choice(found)
    new = copy.deepcopy(rng.choice((rng.choice(HOSTILE), rng.choice(HOSTILE), other[place])))
    change = rng.randrange(4)
    if change == 0:
        del container[key]
    elif change == 1 and isinstance(container, list):
        container.insert(key, new)
    elif change == 1:
        container[rng.choice(("extra", "class", "weights", "__init__"))] = new
    else:
        container[key] = new


def tampered(original: Original, rng: random.Random) -> bytes:
    """Return a file whose description or arrays are changed, with the checksum that is right for it."""
    header = json.loads(json.dumps(original.header))
    description = json.loads(header.pop("__metadata__")["nnx"])
    if rng.random() < 0.75:
        for _ in range(rng.choice((1, 1, 2, 3))):
            tamper(description, rng)
    if rng.random() < 0.4:
        tamper(header, rng)
    payload = original.payload
    if rng.random() < 0.1:
        payload = rng.choice((payload + bytes(8), payload[:-8], b"", rng.randbytes(len(payload))))
    if rng.random() < 0.2:  # such as lengths of texts, and numbers that are not finite
        payload = rng.choice((flip, overwrite))(payload, rng) if payload else payload
    if isinstance(description, dict):
        description.pop("crc32", None)
        description["crc32"] = checksum(description, header, payload)
    return written(description, header, payload)


def checksum(description: dict[str, Any], header: dict[str, Any], payload: bytes) -> int:
    """Return the checksum of a file, as far as its arrays can be read."""
    arrays = {}
    for name, entry in header.items():
        try:
            first, last = entry["data_offsets"]
            dtype = np.dtype(safetensors.DTYPES[entry["dtype"]]).newbyteorder("<")
            arrays[name] = np.frombuffer(payload[first:last], dtype).reshape(entry["shape"])
        except (AttributeError, KeyError, MemoryError, OverflowError, TypeError, ValueError):
            return 0
    return safetensors._checksum(json.loads(json.dumps(description)), arrays)


def written(description: Any, header: dict[str, Any], payload: bytes) -> bytes:
    """Return the file of these parts."""
    header = {"__metadata__": {"nnx": json.dumps(description)}, **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + payload


# Reading


@contextmanager
def memory(more: int) -> Iterator[None]:
    """Let the process have so many bytes more than it has, and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class Mutants(Examiner):
    """Makes mutants by number, reads them, and judges."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.path = seed, folder / "mutant"
        kinds = [(kind, what) for kind in DATA for what in ("model", "parameters", "checkpoint", "ensemble")]
        if estimators is not None:
            kinds += [(kind, "estimator") for kind in ("classifier", "regressor", *END)]
        self.originals = [Original(*each, folder) for each in kinds]
        self.found: Counter[str] = Counter()

    def mutant(self, number: int) -> tuple[Original, bytes, bool]:
        """Return a mutant: of which file, its bytes, and whether its checksum was made right."""
        rng = random.Random(f"{self.seed} {number}")
        original = rng.choice(self.originals)
        if rng.random() < 0.002:
            return original, rng.choice(LARGE)(original.content, rng), False
        if rng.random() < 0.5:
            return original, tampered(original, rng), True
        content = original.content
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            content = rng.choice(BYTES)(content, rng) if len(content) > 16 else content
        return original, content, False

    def judge(self, number: int) -> str | None:
        """Read a mutant; return what is wrong with what came of it."""
        original, content, signed = self.mutant(number)
        self.path.write_bytes(content)
        began = time.process_time()
        try:
            with memory(MORE_MEMORY + len(content)):
                model = original.read(self.path)
        except nnx.ModelFileError as error:
            self.found["refused"] += 1
            beginning = {"estimator": "nnx.sklearn.load: ", "ensemble": "Ensemble.load: "}.get(original.what, "Model.")
            problem = None if str(error).startswith(beginning) else f"a strange sentence: {error}"
            if original.what in ("parameters", "checkpoint") and everything(original.reader) != original.unchanged:
                problem = "a refused file has changed the model"
        except ValueError as error:  # a sound checkpoint of another run
            self.found["refused"] += 1
            fits = original.what == "checkpoint" and signed and str(error).startswith("Model.train: ")
            problem = None if fits else f"{type(error).__name__}: {error}"
        except nnx.DivergenceError as error:  # of a sound checkpoint with other numbers
            self.found["accepted"] += 1
            problem = None if original.what == "checkpoint" and signed else str(error)
        except BaseException as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            self.found["accepted"] += 1
            try:
                problem = self._check(original, model, signed)
            except Exception as error:
                problem = f"accepted, and then {type(error).__name__}: {error}"
        seconds = time.process_time() - began
        return problem or (f"it took {seconds:.1f} s" if seconds > SECONDS else None)

    def _check(self, original: Original, model: Any, signed: bool) -> str | None:
        """Judge a model that was accepted: without a new checksum it must be the original's."""
        if not signed and everything(model) != original.result:
            return "another model than the original was accepted"
        is_fitted = original.what != "estimator" or hasattr(model, "n_features_in_")
        with np.errstate(all="ignore"):
            width = TABLE.n_inputs if original.kind == "table" else 2
            try:
                output = model.predict(np.ones((3, width))) if is_fitted else np.ones(3)
            except ValueError:  # of a table that takes other columns, or numbers elsewhere
                if original.kind not in END:
                    raise
                output = np.ones(3)
        model.save(self.path)
        own = original.what in ("estimator", "ensemble")
        twin = original.read(self.path) if own else nnx.Model.load(self.path)
        if everything(twin) != everything(model):
            return "what was accepted is not what is saved again"
        return None if output.shape[0] == 3 else f"an output of shape {output.shape}"


if __name__ == "__main__":
    sys.exit(run(Mutants))
