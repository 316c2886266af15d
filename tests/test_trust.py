"""A few of the cases of trust/, whose command tries tens of thousands. Also what reading a file may do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
from networks import classifier
from safetensors.numpy import load_file, save_file

import nnx
from nnx.files import safetensors as tensor_files

pytestmark = pytest.mark.one_backend

TRUST = Path(__file__).parents[1] / "trust"


def run(script: str, *arguments: str) -> dict:
    command = [sys.executable, str(TRUST / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long("starts a process that reads hundreds of files")
def test_mutants_of_files_are_refused_or_right():
    pytest.importorskip("resource")  # which limits the memory
    found = run("mutants.py", "--cases", "400", "--seed", "3")
    assert found["failures"] == []
    assert found["tried"] == 400 == found["refused"] + found["accepted"]
    assert found["accepted"] > 10


def test_arrays_in_disguise_are_refused_or_right():
    found = run("arrays.py", "--cases", "400", "--seed", "3")
    assert found["failures"] == []
    assert found["tried"] == 400
    assert min(found["refused"], found["accepted"]) > 100


@pytest.mark.long("tries promises of each kind")
def test_the_command_prints_a_table_and_keeps_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- trust: begin -->\nold\n<!-- trust: end -->\nafter\n")
    command = [sys.executable, str(TRUST), "--share", "0.02", "--only", "arrays", "kill", "--write", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = page.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == (
        "before",
        "<!-- trust: begin -->",
        "<!-- trust: end -->",
        "after",
    )
    assert sum(line.endswith(" | 0 |") or "| 200 | 0 |" in line or "| 2 | 0 |" in line for line in lines) == 2
    assert "old" not in lines


# Reading a file


@pytest.fixture
def small(tmp_path):
    """Return a small model's file."""
    model = nnx.Model()
    model.add(nnx.Layer_Dense(1, 1))
    model.finalize()
    model.save(tmp_path / "small")
    return tmp_path / "small"


def test_every_beginning_of_a_file_is_refused(small):
    whole = small.read_bytes()
    for length in range(len(whole)):
        small.write_bytes(whole[:length])
        with pytest.raises(nnx.ModelFileError):
            nnx.Model.load(small)


@pytest.mark.long("reads a file once for each of its bits")
def test_every_flipped_bit_is_refused_or_changes_nothing(small):
    whole = small.read_bytes()
    weights = nnx.Model.load(small).layers[0].weights
    accepted = 0
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        small.write_bytes(changed)
        try:
            model = nnx.Model.load(small)
        except nnx.ModelFileError:
            continue
        accepted += 1
        np.testing.assert_array_equal(model.layers[0].weights, weights)
    assert accepted < 32  # such as letters of a name that stand for the same in JSON


def header_of(*entries: str) -> bytes:
    """Return a header of an empty description and entries as given."""
    return ('{"__metadata__":{"nnx":"{}"}' + "".join(f",{entry}" for entry in entries) + "}").encode()


def entry(name='"a"', dtype='"F32"', shape="[1]", ends="[0,4]") -> str:
    """Return what a header says of an array."""
    return f'{name}:{{"dtype":{dtype},"shape":{shape},"data_offsets":{ends}}}'


FORM, PLACE, SIDE = (
    "its header cannot be read from character",
    "size of its place",
    "does not lie where the array before",
)
WRITTEN, OTHERS, LARGE = "holds characters that nnx does not write", "holds no model of nnx", "more than 65,000 arrays"
POSSIBLE = "possible shape or place"

#: Headers, and the first error that is found if there are several.
HOSTILE_HEADERS = {
    "two names": (header_of(entry(), entry()), "two arrays 'a'"),
    "a name that is none": (header_of(entry(name='"a\\"b"')), FORM),
    "huge shape": (header_of(entry(shape="[4611686018427387904,4]")), POSSIBLE),
    "shape that overflows": (
        header_of(entry(shape="[4294967296,4294967296,0]", ends="[0,0]"), entry('"b"')),
        "it holds an array of shape",
    ),
    "shape that is no place's": (header_of(entry(shape="[2]")), PLACE),
    "large shape": (header_of(entry(shape="[1000000000000]")), PLACE),
    "a size of many digits": (header_of(entry(shape=f"[{10**20}]")), FORM),
    "many sizes": (header_of(entry(shape=f"[{'1,' * 32}1]")), FORM),
    "negative offset": (header_of(entry(ends="[-4,0]")), FORM),
    "place beyond the end": (header_of(entry(shape="[2]", ends="[0,8]")), PLACE),
    "a hole": (header_of(entry('"a"', '"U8"', ends="[0,1]"), entry('"b"', '"U8"', ends="[3,4]")), SIDE),
    "an overlap": (
        header_of(entry('"a"', '"U8"', "[3]", "[0,3]"), entry('"b"', '"U8"', "[2]", "[2,4]")),
        SIDE,
    ),
    "fractional size": (header_of(entry(shape="[1.0]")), FORM),
    "true for one": (header_of(entry(shape="[true]")), FORM),
    "unknown dtype": (header_of(entry(dtype='"C64"')), "it holds arrays of C64"),
    "dtype that is a list": (header_of(entry(dtype='["F32"]')), FORM),
    "an entry more": (header_of(entry(), '"x":1'), FORM),
    "deep": (header_of('"a":' + "[" * 100_000), FORM),
    "letters after the end": (header_of(entry()) + b" x", FORM),
    "no description": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', OTHERS),
    "a description that does not end": (b'{"__metadata__":{"nnx":"{}', "its description cannot be read"),
    "two metadata": (b'{"__metadata__":{"nnx":"{}","x":"y"}}', OTHERS),
    "other letters": ('{"__metadata__":{"nnx":"\u00e9"}}'.encode(), WRITTEN),
    "no letters": (b'{"__metadata__":{"nnx":"\xff\xfe"}}', WRITTEN),
    "letters that take four bytes": (b'{"__metadata__":{"nnx":"' + b"a" * 4_000_000 + b'\\ud83d\\ude00"}}', WRITTEN),
    "many arrays": (header_of(*(entry(f'"a{i}"', shape="[0]", ends="[0,0]") for i in range(65_001))), LARGE),
    "many sizes in all": (
        header_of(*(entry(f'"a{i}"', shape=f"[{'0,' * 31}0]", ends="[0,0]") for i in range(20_000))),
        LARGE,
    ),
    "many backslashes": (b'{"__metadata__":{"nnx":"' + b"\\\\" * 4_000_000 + b'"}}', "its description cannot be read"),
}

MODEST, READ = "its description is too long, or too deep", "its description cannot be read"

#: The same for descriptions.
HOSTILE_DESCRIPTIONS = {
    "two names": ('{"a":1,"a":2}', READ),
    "deep": ('{"a":' + "[" * 100_000, MODEST),
    "deep objects": ('{"a":' * 100_000 + "1", MODEST),
    "a number of many digits": ('{"a":' + "9" * 100_000 + "}", MODEST),
    "infinite": ('{"a":1e999}', READ),
    "not a number": ('{"a":NaN}', READ),
    "many values": ('{"a":[' + "0," * 1_000_000 + "0]}", MODEST),
    "many strings": ('{"a":["' + '"' * 2_000_000 + '"]}', MODEST),
    "numbers of many digits": ('{"a":[' + ",".join(["9" * 399] * 20_000) + "]}", "its checksum"),
    "many backslashes": ('{"a":"' + "\\\\" * 2_000_000 + '"}', "its checksum"),
    "a long text": ('{"a":"' + "x" * 9_000_000 + '"}', MODEST),
    "a text of wide letters": ('{"a":"' + "x" * 7_000_000 + '\\ud83d\\ude00"}', "its checksum"),
    "a list": ("[1]", "its description is not valid"),
}


def most_memory(path, sentence) -> int:
    """Return the memory that refusing a file takes."""
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(nnx.ModelFileError, match=sentence):
            nnx.Model.load(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.few
@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_hostile_headers_are_refused_in_little_memory(tmp_path, name):
    header, sentence = HOSTILE_HEADERS[name]
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert most_memory(tmp_path / "file", sentence) < len(header) + (32 << 20)


@pytest.mark.parametrize("name", HOSTILE_DESCRIPTIONS)
def test_hostile_descriptions_are_refused_in_little_memory(tmp_path, name):
    description, sentence = HOSTILE_DESCRIPTIONS[name]
    header = json.dumps({"__metadata__": {"nnx": description}}, separators=(",", ":")).encode()
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header)
    assert most_memory(tmp_path / "file", sentence) < len(header) + (64 << 20)


@pytest.mark.long("files of 64 MB")
def test_the_largest_header_and_description_are_refused_in_64_mb(tmp_path):
    """The largest files of the two forms that take the most memory per byte."""
    pairs = ",".join(f'"{i:x}":0.5' for i in range(199_000))
    header = json.dumps({"__metadata__": {"nnx": "{" + pairs + "}"}}, separators=(",", ":")).encode()
    entries = "".join(f",{entry(f'{chr(34)}{i:x}{chr(34)}', shape='[0]', ends='[0,0]')}" for i in range(65_000))
    header = header[:-1] + entries.encode() + b"}"
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header)
    assert most_memory(tmp_path / "file", "its checksum") < len(header) + (64 << 20)


def test_truths_that_are_neither_are_refused(tmp_path):
    for values in (np.array([True, False]), np.array([1, 2], np.uint8).view(bool)):
        save_file({"layers.0.weights": values}, tmp_path / "file", {"nnx": "{}"})
        expected = "neither true nor false" if values.view(np.uint8)[1] == 2 else "its checksum"
        with pytest.raises(nnx.ModelFileError, match=expected):
            nnx.Model.load(tmp_path / "file")


def test_reading_takes_little_more_memory_than_the_file(tmp_path):
    import tracemalloc

    model = nnx.Model()
    model.add(nnx.Layer_Dense(2000, 1500))
    model.finalize()
    model.save(tmp_path / "large")
    tracemalloc.start()
    try:
        nnx.Model.load(tmp_path / "large")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < os.path.getsize(tmp_path / "large") + (2 << 20)


def test_an_array_cannot_be_weights_and_their_momentums_at_once(tmp_path):
    """Updating them would read and write the same memory."""
    model = classifier()
    model.train(np.ones((4, 2)), [0, 1, 2, 0], print_every=None)
    model.save(tmp_path / "model")
    with safetensors.safe_open(tmp_path / "model", "np") as file:
        description = json.loads(file.metadata()["nnx"])
    arrays = load_file(tmp_path / "model")
    del description["crc32"], arrays["layers.0.weight_momentums"]
    description["shared"] = {"layers.0.weight_momentums": "layers.0.weights"}
    description["crc32"] = tensor_files._checksum(description, arrays)
    save_file(arrays, tmp_path / "model", {"nnx": json.dumps(description)})
    with pytest.raises(nnx.ModelFileError, match="cannot be the same array as"):
        nnx.Model.load(tmp_path / "model")


def test_text_from_a_file_does_not_reach_the_terminal_as_it_is(tmp_path):
    description = {"format": "nnx model\x1b[31m\nall fine", "version": 2, "shared": {}}
    description["crc32"] = tensor_files._checksum(description, {})
    save_file({}, tmp_path / "file", {"nnx": json.dumps(description)})
    with pytest.raises(nnx.ModelFileError) as raised:
        nnx.Model.load(tmp_path / "file")
    assert str(raised.value).isprintable()


def test_other_errors_pass_through(tmp_path, monkeypatch):
    """An error that is not the file's fault does not blame the file."""
    classifier().save(tmp_path / "model")
    for error in (MemoryError, KeyboardInterrupt, AttributeError, ZeroDivisionError):
        with monkeypatch.context() as patch:

            def fail(*arguments, error=error, **options):
                raise error

            patch.setattr(tensor_files.json, "loads", fail)
            with pytest.raises(error):
                nnx.Model.load(tmp_path / "model")


def test_reading_opens_one_file_and_imports_and_executes_nothing(tmp_path):
    """An audit hook sees everything that the interpreter does with files, modules, code and processes."""
    classifier(dropout=0.1).save(tmp_path / "model")
    classifier().save_parameters(tmp_path / "parameters")
    script = (
        "import sys, nnx\n"
        "nnx.Model.load(sys.argv[1])\n"  # what is imported at the first call is nnx's own
        "heard = []\n"
        "sys.addaudithook(lambda event, arguments: heard.append((event, arguments)) if listening else None)\n"
        "listening = True\n"
        "model = nnx.Model.load(sys.argv[1])\n"
        "model.load_parameters(sys.argv[2])\n"
        "listening = False\n"
        "harmless = ('builtins.id', 'object.__getattr__', 'object.__setattr__', 'sys._getframe')\n"
        "print([(event, arguments[0]) for event, arguments in heard if event not in harmless])\n"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "model"), str(tmp_path / "parameters")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([("open", str(tmp_path / "model")), ("open", str(tmp_path / "parameters"))])
