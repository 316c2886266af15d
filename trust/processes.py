"""Many processes and threads at once: forks, spawned children, and eight models in eight threads."""

from __future__ import annotations

import multiprocessing
import threading
import time
from typing import Any

import numpy as np

import nnx
from nnx.engine import plan

#: What is tried in turn: the second is done by matrix units, where there are any.
PRECISIONS = (None, "bfloat16")
#: How long a child may take before it counts as hanging.
PATIENCE = 60


def model_of(seed: int, wide: bool = False) -> nnx.Model:
    """Return a network, the same at every call; a wide one is worth a second thread."""
    np.random.seed(seed)
    width, hidden = (64, 256) if wide else (2, 64)
    model = nnx.Model()
    for layer in (
        *(nnx.Layer_Dense(width, hidden), nnx.Activation_ReLU(), nnx.Layer_Dropout(0.1, seed=seed)),
        *(nnx.Layer_Dense(hidden, 3), nnx.Activation_Softmax()),
    ):
        model.add(layer)
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Categorical()
    )
    model.finalize()
    return model


def data_of(wide: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and classes."""
    rng = np.random.RandomState(0)
    n, width = (1000, 64) if wide else (300, 2)
    return rng.randn(n, width).astype(np.float32), rng.randint(0, 3, n)


def trained(model: nnx.Model, wide: bool = False, epochs: int = 20, precision: str | None = None) -> bytes:
    """Train and predict; return the bytes of both."""
    X, y = data_of(wide)
    arguments: dict[str, Any] = {"epochs": epochs, "precision": precision}
    model.train(X, y, batch_size=250, shuffle=True, seed=1, print_every=None, threads=2, **arguments)
    return b"".join(a.tobytes() for pair in model.get_parameters() for a in pair) + model.predict(X).tobytes()


def child(connection: Any, seed: int) -> None:
    """Train and predict in a child; send the bytes."""
    connection.send_bytes(of_a_child(seed))


def of_a_child(seed: int) -> bytes:
    """Return what a child sends."""
    wide = [trained(model_of(seed, wide=True), True, 3, precision) for precision in PRECISIONS]
    return b"".join([trained(model_of(seed)), *wide])


def children(method: str, cases: int, while_training: bool = False) -> tuple[int, list[str]]:
    """Start children after this process has trained on threads, or while it trains; return cases and failures."""
    expected = of_a_child(1)
    over = threading.Event()
    model = model_of(2, wide=True)

    def train_on() -> None:
        # Nothing here may use NumPy's global generator, whose lock a child that is forked meanwhile would find closed.
        while not over.is_set():
            for precision in PRECISIONS:
                trained(model, True, 3, precision)

    trainer = threading.Thread(target=train_on)
    if while_training:
        trainer.start()
    try:
        failures = [problem for _ in range(cases) if (problem := one_child(method, expected))]
    finally:
        over.set()
        if while_training:
            trainer.join()
    return cases, failures


def one_child(method: str, expected: bytes) -> str | None:
    """Start a child; return what is wrong with what it sent."""
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(False)
    process = context.Process(target=child, args=(theirs, 1))
    process.start()
    theirs.close()
    try:
        if not ours.poll(PATIENCE):
            return f"a child by {method} hangs"
        return None if ours.recv_bytes() == expected else f"a child by {method} has other bytes"
    except EOFError:
        return f"a child by {method} has died"
    finally:
        process.kill()
        process.join()
        ours.close()


def eight_threads(cases: int) -> tuple[int, list[str]]:
    """Train eight models in eight threads at once, and compare with one after another."""
    seeds = range(8)

    def train(model: nnx.Model, seed: int) -> bytes:
        return trained(model, seed % 2 == 0, 4, PRECISIONS[seed // 2 % 2])

    expected = [train(model_of(seed, seed % 2 == 0), seed) for seed in seeds]
    failures = []
    for _ in range(cases):
        found: list[bytes | None] = [None] * 8
        models = [model_of(seed, seed % 2 == 0) for seed in seeds]

        def run(seed: int, models: list[nnx.Model] = models, found: list[bytes | None] = found) -> None:
            found[seed] = train(models[seed], seed)

        threads = [threading.Thread(target=run, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if found != expected:
            failures.append("models that train at once have other bytes than one after another")
    return cases, failures


def one_model_predicts(cases: int) -> tuple[int, list[str]]:
    """Let eight threads predict with one model at once."""
    model, (X, _) = model_of(1, wide=True), data_of(wide=True)
    expected = [model.predict(X[i:]).tobytes() for i in range(8)]
    failures = []
    for _ in range(cases):
        wrong: list[int] = []

        def run(i: int, wrong: list[int] = wrong) -> None:
            if any(model.predict(X[i:]).tobytes() != expected[i] for _ in range(20)):
                wrong.append(i)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if wrong:
            failures.append(f"threads {wrong} have got other predictions than alone")
    return cases, failures


def heartbeat(cases: int) -> tuple[int, list[str]]:
    """Let a thread tick every millisecond while another is within compiled calls of some 50 ms each."""
    failures = []
    run_threads = plan.run_threads
    for _ in range(cases):
        ticks, over = [0], threading.Event()
        calls: list[tuple[float, int]] = []

        def tick(ticks: list[int] = ticks, over: threading.Event = over) -> None:
            while not over.is_set():
                ticks[0] += 1
                time.sleep(0.001)

        def counting(native: Any, n: int, ticks: list[int] = ticks, calls: list[tuple[float, int]] = calls) -> int:
            before, began = ticks[0], time.perf_counter()
            done = run_threads(native, n)
            calls.append((time.perf_counter() - began, ticks[0] - before))
            return done

        heart = threading.Thread(target=tick)
        heart.start()
        plan.run_threads = counting
        try:
            model, (X, y) = model_of(1), data_of()
            model.train(X, y, epochs=10_000, print_every=None)
        finally:
            plan.run_threads = run_threads
            over.set()
            heart.join()
        seconds, beats = max(calls, default=(0.0, 3))  # NumPy's kernels have no plans
        if beats < 3:
            failures.append(f"{beats} ticks during a call of {seconds:.3f} s")
    return cases, failures
