"""Models as C files beside those of emlearn and m2cgen, on the same networks: python benchmarks/c_source.py

Bytes are those of code, constants and variables that a program gets, without the C library: the difference of two
shared libraries, with and without the model, compiled for size and without what is not called. Microseconds are those
of one row in the fastest of interleaved rounds on one pinned core, compiled for this processor; ratios are medians.
All answers are compared first. Needs gcc and size, and the packages scikit-learn, emlearn and m2cgen; the last one has
no networks and is compared on a single dense layer, the scores of a logistic regression. ``--arm`` counts bytes on a
Cortex-M4 with arm-none-eabi-gcc instead, and times nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator

import emlearn
import m2cgen
import numpy as np
from machine import pin, processors
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from timing import processor

import nnx

NETS = [(8, 4), (8, 16, 4), (64, 100, 50, 10), (784, 128, 128, 10)]
HERE = ["gcc", "-std=gnu99", "-w"]
ARM = ["arm-none-eabi-gcc", "-std=gnu99", "-w", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"]
#: Numbers that a round of calls takes, about.
ROUND = 3e7
ROUNDS = 15


def trained(sizes: tuple[int, ...]) -> MLPClassifier | LogisticRegression:
    """Return scikit-learn's model of these widths, a bit trained on random rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, sizes[0])).astype(np.float32)
    y = X[:, : sizes[-1]].argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if len(sizes) == 2:
            return LogisticRegression().fit(X, y)
        return MLPClassifier(sizes[1:-1], max_iter=20, random_state=0).fit(X, y)


def as_nnx(peer: MLPClassifier | LogisticRegression) -> nnx.Model:
    """Return the same model in nnx."""
    many = isinstance(peer, MLPClassifier)
    weights = peer.coefs_ if many else [peer.coef_.T]
    biases = peer.intercepts_ if many else [peer.intercept_]
    model = nnx.Model()
    for number, own in enumerate(weights):
        model.add(nnx.Layer_Dense(*own.shape))
        last = nnx.Activation_Softmax() if many else nnx.Activation_Linear()
        model.add(nnx.Activation_ReLU() if number + 1 < len(weights) else last)
    model.finalize()
    model.set_parameters([(w, b.reshape(1, -1)) for w, b in zip(weights, biases, strict=True)])
    return model


# Each writes model.c with the function `call`, and returns what the compiler needs beside it.


def by_nnx(folder: pathlib.Path, peer: object, int8: bool) -> list[str]:
    as_nnx(peer).export_c(folder / "net.c", int8=int8)
    call = "void call(const float *x, float *y) { net_predict(x, y); }"
    (folder / "model.c").write_text(f'#include "net.c"\n{call}\n')
    return []


def by_emlearn(folder: pathlib.Path, peer: MLPClassifier) -> list[str]:
    here = os.getcwd()
    os.chdir(folder)  # emlearn compiles a copy of its own, into the working folder
    try:
        emlearn.convert(peer, method="inline").save(file="net.h", name="net")
    finally:
        os.chdir(here)
    n_in, n_out = peer.coefs_[0].shape[0], peer.n_outputs_
    call = f"void call(const float *x, float *y) {{ eml_net_predict_proba(&net, x, {n_in}, y, {n_out}); }}"
    (folder / "model.c").write_text(f'#include "net.h"\n{call}\n')
    return [f"-I{emlearn.includedir}"]


def by_m2cgen(folder: pathlib.Path, peer: LogisticRegression) -> list[str]:
    n_out, n_in = peer.coef_.shape
    call = (
        f"void call(const float *x, float *y) {{ double a[{n_in}], b[{n_out}]; for (int i = 0; i < {n_in}; i++) a[i] "
        f"= x[i]; score(a, b); for (int i = 0; i < {n_out}; i++) y[i] = b[i]; }}"
    )
    (folder / "model.c").write_text(f"{m2cgen.export_to_c(peer)}\n{call}\n")
    return []


def sides(sizes: tuple[int, ...]) -> dict[str, Callable[..., list[str]]]:
    """Return who can write a model of these widths."""
    found: dict[str, Callable[..., list[str]]] = {
        "nnx": lambda folder, peer: by_nnx(folder, peer, False),
        "nnx, int8": lambda folder, peer: by_nnx(folder, peer, True),
    }
    return found | ({"m2cgen": by_m2cgen} if len(sizes) == 2 else {"emlearn": by_emlearn})


def bytes_of(folder: pathlib.Path, options: list[str], arm: bool) -> int:
    """Return how many bytes the model adds to a program."""
    empty = "void call(const float *x, float *y) { (void)x; (void)y; }\n"
    (folder / "empty.c").write_text(empty)
    sizes = []
    for name in ("model", "empty"):
        command = [*(ARM if arm else HERE), *options, "-Os", "-ffunction-sections", "-fdata-sections", f"{name}.c"]
        link = ["-nostartfiles", "-Wl,--gc-sections", "-Wl,-e,call", "-Wl,--unresolved-symbols=ignore-all", "-nostdlib"]
        command += link if arm else ["-shared", "-fPIC", "-fvisibility=hidden", "-Wl,--gc-sections,-u,call", "-lm"]
        if not arm:
            source = (folder / f"{name}.c").read_text()
            visible = '__attribute__((visibility("default"))) void call('
            (folder / f"{name}.c").write_text(source.replace("void call(", visible, 1))
        subprocess.run([*command, "-o", name], cwd=folder, check=True)
        told = subprocess.run(["size", "-A", name], cwd=folder, check=True, capture_output=True, text=True).stdout
        kept = re.compile(r"^\.(text|rodata\S*|data\S*|bss|eh_frame)\s+(\d+)", re.MULTILINE)
        sizes.append(sum(int(size) for _, size in kept.findall(told)))
    return sizes[0] - sizes[1]


def caller(folder: pathlib.Path, options: list[str], rows: np.ndarray, outputs: np.ndarray) -> Callable[[], None]:
    """Return a function that calls the model for each row."""
    loop = (
        f"void loop(const float *x, float *y, int n) {{ for (int i = 0; i < n; i++) call(x + i * {rows.shape[1]}, "
        f"y + i * {outputs.shape[1]}); }}"
    )
    (folder / "loop.c").write_text(f'#include "model.c"\n{loop}\n')
    command = [*HERE, *options, "-O3", "-march=native", "-shared", "-fPIC", "loop.c", "-o", "loop.so", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    function = ctypes.CDLL(str(folder / "loop.so")).loop
    addresses = ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(outputs.ctypes.data)
    return lambda: function(*addresses, len(rows))


def table(arm: bool) -> Iterator[str]:
    """Yield the lines of the table."""
    yield f"{'network':<18} {'written by':<10} {'bytes':>9}" + ("" if arm else f" {'µs':>8} {'to nnx':>7}")
    for sizes in NETS:
        peer = trained(sizes)
        n_numbers = sum(a * b for a, b in itertools.pairwise(sizes))
        n_rows = max(20, min(20_000, int(ROUND / 3 / n_numbers)))
        rows = np.random.default_rng(1).normal(size=(n_rows, sizes[0])).astype(np.float32)
        answer = peer.decision_function if len(sizes) == 2 else peer.predict_proba
        expected = answer(rows.astype(np.float64))
        outputs = np.empty((n_rows, sizes[-1]), np.float32)  # all sides write there
        found, calls, times = {}, {}, {}
        with tempfile.TemporaryDirectory() as scratch:
            for name, write in sides(sizes).items():
                folder = pathlib.Path(scratch) / name.replace(", ", "-")
                folder.mkdir()
                options = write(folder, peer)
                if not arm:
                    outputs.fill(np.nan)
                    calls[name], times[name] = caller(folder, options, rows, outputs), []
                    calls[name]()
                    np.testing.assert_allclose(
                        outputs, expected, atol=(0.02 if "int8" in name else 2e-4) * abs(expected).max()
                    )
                found[name] = bytes_of(folder, options, arm)
            for _ in range(0 if arm else ROUNDS):
                for name, call in calls.items():
                    start = time.perf_counter()
                    call()
                    times[name].append((time.perf_counter() - start) / n_rows * 1e6)
        for name, size in found.items():
            line = f"{'-'.join(map(str, sizes)):<18} {name:<10} {size:>9,}"
            if not arm:
                ratio = statistics.median(b / a for a, b in zip(times["nnx"], times[name], strict=True))
                line += f" {min(times[name]):>8.3f} {ratio:>7.2f}"
            yield line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arm", action="store_true", help="count bytes on a Cortex-M4")
    chosen = parser.parse_args()
    pin(processors(1))
    print(f"{processor()}, emlearn {emlearn.__version__}, scikit-learn's networks")
    for line in table(chosen.arm):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
