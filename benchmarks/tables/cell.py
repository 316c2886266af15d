"""One cell of the table, in a process of its own: python cell.py SET PEER SEED SECONDS prints what it found as JSON.

Imports and the reading of files are not timed. ``fit`` is, from frame to model; the test rows are looked at once.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
import time
import warnings
from typing import Any

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))  # machine.py, timing.py

import machine
import sets
import timing
from peers import PEERS, frames
from sklearn.metrics import accuracy_score, log_loss, r2_score


def measure(name: str, peer: str, seed: int) -> dict[str, Any]:
    """Fit a method on a data set, and return its scores and seconds."""
    rows = sets.split(name, seed)
    estimator, keywords = PEERS[peer].make(rows.kind, seed, rows.X_train)
    X_train, X_test = frames(peer, rows.X_train, rows.X_test)
    cpu, wall = time.process_time(), time.perf_counter()
    estimator.fit(X_train, rows.y_train, **keywords)
    found: dict[str, Any] = {
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - wall,
    }
    cpu = time.process_time()
    predicted = estimator.predict(X_test).ravel()
    found["predict_cpu_seconds"] = time.process_time() - cpu
    if rows.kind == "regression":
        return found | {"score": float(r2_score(rows.y_test, predicted))}
    probabilities = estimator.predict_proba(X_test)
    found["log_loss"] = float(log_loss(rows.y_test, probabilities))
    return found | {"score": float(accuracy_score(rows.y_test, predicted))}


def limit(seconds: int) -> None:
    """Have the system end this process (by SIGXCPU) when it has computed for so long, where it can do that."""
    with contextlib.suppress(ImportError):  # Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))


def main() -> None:
    """Measure, with all that libraries print sent to stderr."""
    name, peer, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    limit(int(sys.argv[4]))
    machine.pin(machine.processors(1))
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        found = measure(name, peer, seed)
    found |= {"set": name, "peer": peer, "seed": seed, "version": PEERS[peer].version, "processor": timing.processor()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
