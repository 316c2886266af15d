"""A few of the cases of trust/, whose command tries them by the ten thousand; and what reading a file may do."""

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
from nnx import _files

TRUST = Path(__file__).parents[1] / "trust"


def run(script: str, *arguments: str) -> dict:
    command = [sys.executable, str(TRUST / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


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


def test_the_command_prints_a_table_and_keeps_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- trust: begin -->\nold\n<!-- trust: end -->\nafter\n")
    command = [sys.executable, str(TRUST), "--share", "0.02", "--only", "arrays", "kill", "--write", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = page.read_text().splitlines()
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


HOSTILE_HEADERS = {
    "two names": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
    b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "huge shape": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"F32","shape":[4611686018427387904,4],'
    b'"data_offsets":[0,4]}}',
    "shape that overflows": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"F32","shape":[4294967296,4294967296,0],'
    b'"data_offsets":[0,0]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "shape that is no place's": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
    "large shape": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}',
    "negative offset": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}',
    "place beyond the end": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
    "a hole": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
    b'"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}',
    "an overlap": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},'
    b'"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}',
    "fractional size": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}',
    "true for one": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
    "unknown dtype": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":"C64","shape":[1],"data_offsets":[0,4]}}',
    "dtype that is a list": b'{"__metadata__":{"nnx":"{}"},"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}}',
    "deep": b'{"__metadata__":{"nnx":"{}"},"a":' + b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1",
    "a number of many digits": b'{"a":' + b"9" * 100_000 + b"}",
    "infinite": b'{"a":1e999}',
    "not a number": b'{"a":NaN}',
    "other letters": '{"a":"\u00e9"}'.encode("utf-16-le"),
    "no letters": b'{"a":"\xff\xfe"}',
    "many values": b'{"a":[' + b"0," * 1_000_000 + b"0]}",
    "many strings": b'{"a":["' + b'"' * 2_000_000 + b'"]}',
    "numbers of many digits": b'{"a":[' + b",".join([b"9" * 399] * 20_000) + b"]}",
    "many backslashes": b'{"a":"' + b"\\\\" * 2_000_000 + b'"}',
}


#: What is found out first, where several things are wrong.
REASONS = {
    **dict.fromkeys(("two names", "infinite", "not a number", "no letters", "other letters"), "cannot be read"),
    **dict.fromkeys(
        ("huge shape", "shape that is no place's", "large shape", "negative offset"),
        "(size of its|possible shape or) place",
    ),
    **dict.fromkeys(("fractional size", "true for one"), "no possible shape or place"),
    **dict.fromkeys(("unknown dtype", "dtype that is a list"), "it holds arrays of"),
    **dict.fromkeys(("a hole", "an overlap"), "does not lie where the array before it ends"),
    "place beyond the end": "does not have the size of its place",
    "shape that overflows": "it holds an array of shape",
    **dict.fromkeys(("many backslashes", "numbers of many digits"), "none that nnx wrote"),
}
TOO_MUCH = "too long, or too deep"


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_hostile_headers_are_refused_in_little_memory(tmp_path, name):
    import tracemalloc

    header = HOSTILE_HEADERS[name]
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    tracemalloc.start()
    try:
        with pytest.raises(nnx.ModelFileError, match=REASONS.get(name, TOO_MUCH)):
            nnx.Model.load(tmp_path / "file")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < len(header) + (32 << 20)


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
    description["crc32"] = _files._checksum(description, arrays)
    save_file(arrays, tmp_path / "model", {"nnx": json.dumps(description)})
    with pytest.raises(nnx.ModelFileError, match="cannot be the same array as"):
        nnx.Model.load(tmp_path / "model")


def test_text_from_a_file_does_not_reach_the_terminal_as_it_is(tmp_path):
    description = {"format": "nnx model\x1b[31m\nall fine", "version": 2, "shared": {}}
    description["crc32"] = _files._checksum(description, {})
    save_file({}, tmp_path / "file", {"nnx": json.dumps(description)})
    with pytest.raises(nnx.ModelFileError) as raised:
        nnx.Model.load(tmp_path / "file")
    assert str(raised.value).isprintable()


def test_other_errors_pass_through(tmp_path, monkeypatch):
    """What is no fault of the file is not called one."""
    classifier().save(tmp_path / "model")
    for error in (MemoryError, KeyboardInterrupt, AttributeError, ZeroDivisionError):
        with monkeypatch.context() as patch:

            def fail(*arguments, error=error, **options):
                raise error

            patch.setattr(_files.json, "loads", fail)
            with pytest.raises(error):
                nnx.Model.load(tmp_path / "model")


def test_reading_opens_one_file_and_imports_and_executes_nothing(tmp_path):
    """An audit hook hears of everything that the interpreter does with files, modules, code and processes."""
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
