"""Training that is interrupted at random moments: by Ctrl-C, by a request to terminate, by kill -9."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import PRECISIONS, data_of, model_of

import nnx

RUN: dict[str, Any] = {"epochs": 1500, "batch_size": 100, "shuffle": True, "seed": 4, "print_every": None}


def bytes_of(model: nnx.Model) -> bytes:
    """Return all parameters, state and figures of a model."""
    names = ("weights", "biases", "weight_momentums", "weight_cache", "bias_momentums", "bias_cache")
    arrays = [getattr(layer, name).tobytes() for layer in model.trainable_layers for name in names]
    forwards = [layer.training_forwards for layer in model.layers if isinstance(layer, nnx.Layer_Dropout)]
    figures = [] if model.history is None else [np.array(c).tobytes() for c in model.history.to_dict().values()]
    return b"".join(arrays + figures) + repr((forwards, model.optimizer.iterations)).encode()


def signalled(cases: int, seed: int) -> tuple[int, list[str]]:
    """Send SIGINT to processes that train, and let each judge what it is left with."""
    rng = random.Random(seed)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.ckpt"
        for number in range(cases):
            path.unlink(missing_ok=True)
            every = rng.choice((1, 7, "0.01s", "60s"))
            run = {**RUN, "precision": PRECISIONS[number % 2]}
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os._exit(interrupted(run, path, every, writing))
            os.close(writing)
            os.read(reading, 1)
            os.close(reading)
            time.sleep(rng.uniform(0, 0.25))
            os.kill(child, signal.SIGINT)
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            if code not in (0, 10):  # 10: the signal came after the last step
                failures.append(f"signal {number}: {PROBLEMS.get(code, f'the process ended with {code}')}")
    return cases, failures


PROBLEMS = {
    3: "steps, figures and counts do not agree",
    4: "the model is not as after its last whole step",
    5: "the checkpoint is not of the last step",
    6: "no KeyboardInterrupt has reached the caller, and the training is not complete",
}


def interrupted(run: dict[str, Any], path: Path, every: int | str, ready: int) -> int:
    """Train until a signal comes; return 0 if the model is then as it should be, or the number of a problem."""
    model, (X, y) = model_of(3), data_of()
    try:
        os.write(ready, b"!")
        model.train(X, y, **run, checkpoint=path, checkpoint_every=every)
    except KeyboardInterrupt:
        pass
    else:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1)
        return 10 if model.optimizer.iterations == 4500 else 6
    if model.history is None:  # before the first step
        return 0
    done = model.optimizer.iterations
    if not len(model.history) == done == model.layers[2].training_forwards:
        return 3
    if path.exists():
        resumed = nnx.Model.load(path)
        if resumed.optimizer.iterations != done:
            return 5
    twin = model_of(3)
    whole, rest = divmod(done, 3)
    if whole:
        twin.train(X, y, **{**run, "epochs": whole})
    if rest == 0 and whole and bytes_of(twin) != bytes_of(model):
        return 4
    if path.exists() and done:
        twin = model_of(3)
        twin.train(X, y, **{**run, "epochs": whole + 1}, resume=path)
        model = model_of(3)
        model.train(X, y, **{**run, "epochs": whole + 1})
        if bytes_of(twin) != bytes_of(model):
            return 4
    return 0


def terminated(cases: int, seed: int) -> tuple[int, list[str]]:
    """Send SIGTERM to the command line, then go on from its checkpoint."""
    rng = random.Random(seed)
    failures = []
    command = [sys.executable, "-m", "nnx", "train", "spiral", "--samples", "100", "--epochs", "400", "--batch", "60"]
    command += ["--dropout", "0.1"]
    with tempfile.TemporaryDirectory() as folder:

        def run(*options: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [*command, *options], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )

        precisions = [["--precision", precision] if precision else [] for precision in PRECISIONS]
        expected = []
        for precision in precisions:
            run("-o", "whole.model", *precision).communicate()
            expected.append(Path(folder, "whole.model").read_bytes())
        for number in range(cases):
            for name in ("run.ckpt", "run.model"):
                Path(folder, name).unlink(missing_ok=True)
            precision = precisions[number % 2]
            process = run("-o", "run.model", "--checkpoint", "run.ckpt", "--checkpoint-every", "1", *precision)
            while process.poll() is None and not Path(folder, "run.ckpt").exists():
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGTERM)
            process.communicate()
            if process.returncode not in (0, 143):
                failures.append(f"request {number}: the command ended with {process.returncode}")
                continue
            nnx.Model.load(Path(folder, "run.model"))
            run("-o", "run.model", "--resume", "run.ckpt", *precision).communicate()
            if Path(folder, "run.model").read_bytes() != expected[number % 2]:
                failures.append(f"request {number}: the resumed command has saved other bytes")
    return cases, failures


def killed(cases: int, seed: int) -> tuple[int, list[str]]:
    """Kill processes that write checkpoints in a loop, then go on from what is there."""
    rng = random.Random(seed)
    failures = []
    X, y = data_of()
    runs = [{**RUN, "epochs": 200, "precision": precision} for precision in PRECISIONS]
    expected = []
    for run in runs:
        uninterrupted = model_of(3)
        uninterrupted.train(X, y, **run)
        expected.append(bytes_of(uninterrupted))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.ckpt"
        for number in range(cases):
            run = runs[number % 2]
            path.unlink(missing_ok=True)
            for _ in range(rng.choice((1, 1, 2, 3))):  # killed again after it has been resumed
                child = os.fork()
                if child == 0:
                    model = model_of(3)
                    resume = path if path.exists() else None
                    model.train(X, y, **run, checkpoint=path, checkpoint_every=1, resume=resume)
                    os._exit(0)
                time.sleep(rng.uniform(0, 0.2))
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            try:
                model = model_of(3)
                model.train(X, y, **run, checkpoint=path, resume=path if path.exists() else None)
            except Exception as error:
                failures.append(f"kill {number}: {type(error).__name__}: {error}")
                continue
            if bytes_of(model) != expected[number % 2]:
                failures.append(f"kill {number}: the resumed run has other bytes")
            if os.listdir(folder) != ["run.ckpt"]:
                failures.append(f"kill {number}: it has left {os.listdir(folder)} behind")
    return cases, failures
