"""What runs cases by number in a process of its own: any of them may crash it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

#: How many cases a process tries between two signs of life.
STEP = 250


class Examiner(Protocol):
    """Makes cases by seed and number, and judges them."""

    found: Counter[str]

    def __init__(self, seed: int, folder: Path) -> None: ...

    def judge(self, number: int) -> str | None:
        """Try a case; return what is wrong with what came of it."""
        ...


def run(examiner: type[Examiner]) -> int:
    """Try the cases that the command line asks for; print signs of life and, as JSON, what was found."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        judge = examiner(chosen.seed, Path(folder))
        failures = []
        for number in range(chosen.first, chosen.first + chosen.cases):
            if number % STEP == 0:
                print(json.dumps({"at": number}), flush=True)
            problem = judge.judge(number)
            if problem:
                failures.append([number, problem])
    print(json.dumps({"tried": chosen.cases, **judge.found, "failures": failures}))
    return 1 if failures else 0


def in_a_process(script: str, cases: int, seed: int, first: int = 0) -> dict[str, Any]:
    """Run a script of this folder; return what it found, a crash being a failure of the case that it was at."""
    command = [sys.executable, "-X", "faulthandler", str(Path(__file__).with_name(script))]
    command += ["--cases", str(cases), "--first", str(first), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if lines and "tried" in lines[-1]:
        return lines[-1]
    at = lines[-1]["at"] if lines else first
    problem = f"the process ended with {done.returncode} between {at} and {at + STEP}: {done.stderr[-500:]}"
    return {"tried": at - first, "failures": [[at, problem]]}
