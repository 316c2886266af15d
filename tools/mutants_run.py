"""Seeds faults into src/nnx, one at a time, and counts how many of them the tests find: make mutants.

The tests that run a mutant's line judge it. Tests of the nearest test files come first. They run in a process forked
from one that has imported the heavy libraries, so a mutant takes a second or two. The runners of Cosmic Ray and mutmut
would need the whole suite for each mutant, or all mutants in one tree. docs/internals/mutation.md has the method and
the score.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from mutants_faults import SOURCE, mutate, sample

ROOT = SOURCE.parent
BUILD = ROOT / "build" / "mutants"
TREE, LOG, LIST, RESULTS = BUILD / "src", BUILD / "log.txt", BUILD / "tests.txt", BUILD / "results.json"
EQUIVALENT = ROOT / "tools" / "mutants_equivalent.json"  # faults that change no behaviour, and why
OPTIONS = ["-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:benchmark", "-p", "mutants_reach"]
HEAVY = ["numpy", "scipy.special", "sklearn.base", "sklearn.pipeline", "pandas", "matplotlib.figure"]
#: Test files that compute with NumPy's kernels what others compute with the compiled ones.
KERNELS = {
    *["activations", "backends", "each_loss", "embedding", "encodings", "gradients", "kernels", "known_answers"],
    *[
        "losses",
        "lbfgs",
        "member_layers",
        "noise",
        "norms",
        "numbers",
        "optimizers",
        "periodic",
        "precision",
        "splines",
    ],
}
BATCHES = [(40, 5.0), (200, 20.0)]  # tests, and seconds of processor time, at most
SECONDS_APART = 0.5  # of a test that starts a process
BESIDES = {"trust", "examples", "chapters"}  # files of tests whose processes run whole programs


def fork(arguments: list[str], limit: float, **settings: str) -> int | None:
    """Run pytest in a fork of this process, which has not imported nnx. Return its code, or None after the limit."""
    if not (child := os.fork()):
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        paths = [str(TREE), str(ROOT / "tools")]
        os.environ.update(settings, PYTHONPATH=os.pathsep.join(paths), NNX_MUTANTS_TREE=paths[0])
        sys.path[:0] = paths
        if "NNX_MUTANTS_REACH" not in settings:  # the run with coverage leaves compiled tests
            os.environ["PYTHONDONTWRITEBYTECODE"], sys.dont_write_bytecode = "1", True
        output = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(ROOT)
        os._exit(pytest.main([*OPTIONS, *arguments]))
    end, ended = time.monotonic() + limit, (0, 0)
    try:
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > end:
                return None
            time.sleep(0.02)
        return os.waitstatus_to_exitcode(ended[1])
    finally:
        if not ended[0]:  # after the limit, or Ctrl-C, which does not reach a separate session
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)


def file_of(test: str) -> str:
    """Return the file of a test's id."""
    return test.split("::")[0]


class Reach:
    """Which tests run which lines on a backend, from a run of each file with coverage, or from an earlier one."""

    def __init__(self, backend: str, names: Iterable[str]) -> None:
        self.backend = backend
        self.seconds, self._lines, self._apart = {}, defaultdict(lambda: defaultdict(set)), []
        chosen = ROOT / "tests" / "conftest.py", ROOT / "tests" / "cases.py"  # these choose the cases
        newest = max(path.stat().st_mtime for path in (*SOURCE.rglob("*.py"), *chosen))
        for name in names:
            tests, path = ROOT / "tests" / f"test_{name}.py", BUILD / f"reach-{backend}-{name}.json"
            if not path.exists() or path.stat().st_mtime < max(newest, tests.stat().st_mtime):
                path.unlink(missing_ok=True)
                settings = {"NNX_MUTANTS_REACH": str(path), "NNX_BACKEND": backend}
                print(backend, tests.name, fork([f"tests/{tests.name}"], 1800, **settings), flush=True)
            if path.exists():
                self._add(json.loads(path.read_text()))
        self._sizes = Counter(map(file_of, self.seconds))

    def _add(self, part: dict) -> None:
        self.seconds |= dict(part["tests"])
        self._apart += part["apart"]
        for file, by_line in part["lines"].items():
            for line, tests in by_line.items():
                self._lines[file][int(line)] |= {part["tests"][index][0] for index in tests}

    def tests(self, file: str, line: int) -> tuple[bool, list[str]]:
        """Return whether tests run the statement at a line, and these tests, with those of the nearest files first.

        If a line runs at import, or never, the tests of the smallest function, class or file around it judge it.
        """
        tree = ast.parse((SOURCE / file).read_text())
        around = [
            node for node in ast.walk(tree) if isinstance(node, ast.stmt) and node.lineno <= line <= node.end_lineno
        ]
        around.sort(key=lambda node: node.end_lineno - node.lineno)
        spans = [range(node.lineno, node.end_lineno + 1) for node in around]
        if around and (body := getattr(around[0], "body", None)):
            spans.insert(0, range(line, max(line + 1, body[0].lineno)))
        within = (self._within(file, span) for span in [*spans, range(1, 10**6)])
        place, tests = next(((place, found) for place, found in enumerate(within) if found), (-1, set()))
        share = {name: count / self._sizes[name] for name, count in Counter(map(file_of, tests)).items()}
        near = {name: -each - (Path(file).stem.strip("_") in name) for name, each in share.items()}
        cases, case = Counter(), {}
        for test in sorted(tests, key=lambda test: (self.seconds[test], test)):
            case[test] = cases[test.split("[")[0]]
            cases[test.split("[")[0]] += 1
        apart = [] if place == 0 else self._apart_for(file)
        return place == 0, apart + sorted(tests, key=lambda t: (near[file_of(t)], file_of(t), case[t], self.seconds[t]))

    def _within(self, file: str, span: range) -> set[str]:
        return set().union(*(found for line, found in self._lines[file].items() if line in span))

    def _apart_for(self, file: str) -> list[str]:
        """Return tests that start a process, of files that are named after a module or its folder."""
        names = {*Path(file).with_suffix("").parts} - {"nnx"}
        return [test for test in self._apart if any(name in file_of(test) for name in names)]


def run(backend: str, tests: list[str], limit: float) -> tuple[str, str]:
    """Run tests until one fails. Return the outcome, and the failed test or the last line."""
    LIST.write_text("\n".join(tests))
    settings = {"NNX_MUTANTS_TESTS": str(LIST), "NNX_BACKEND": backend}
    code = fork(["-x", *dict.fromkeys(map(file_of, tests))], limit, **settings)
    if code is None or code in (0, 5):
        return "timeout" if code is None else "survived", ""
    text = LOG.read_text(errors="replace")
    if code == 4 and "while loading conftest" not in text:
        raise RuntimeError(f"pytest does not start: {text}")
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    return "killed", (failed or text.strip().splitlines()[-1:] or [""])[0]


def judge(mutant: dict, reaches: list[Reach]) -> dict:
    """Run the tests on a mutant in the copied tree. Return the mutant with its outcome."""
    target, source = TREE / mutant["file"], (SOURCE / mutant["file"]).read_text()
    for compiled in target.parent.glob(f"__pycache__/{target.stem}.*"):
        compiled.unlink()
    target.write_text(mutate(source, mutant["operator"], mutant["occurrence"]))
    start, outcome, by, is_reached = time.monotonic(), "survived", "", False
    try:
        for reach in reaches:
            reached, tests = reach.tests(mutant["file"], mutant["line"])
            is_reached |= reached
            for batch, seconds in batches(tests, reach):
                if outcome == "survived":
                    outcome, by = run(reach.backend, batch, 60 + 20 * seconds)
    finally:
        target.write_text(source)
    return mutant | {"outcome": outcome, "reached": is_reached, "by": by, "seconds": round(time.monotonic() - start, 1)}


def batches(tests: list[str], reach: Reach) -> Iterator[tuple[list[str], float]]:
    """Yield the tests that judge a mutant, in batches, each with its time limit in seconds."""
    tests = tests[::-1]
    for most, longest in BATCHES:
        batch, seconds = [], 0.0
        while tests and len(batch) < most and seconds < longest:
            batch.append(tests.pop())
            seconds += reach.seconds.get(batch[-1], SECONDS_APART)
        if batch:
            yield batch, seconds


def copy_tree() -> None:
    """Copy the sources, and the compiled kernels of the installed nnx."""
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(SOURCE, TREE, ignore=shutil.ignore_patterns("*.so"))
    installed = Path(importlib.util.find_spec("nnx").origin).parent
    for kernels in installed.rglob("*.so"):
        shutil.copy2(kernels, TREE / "nnx" / kernels.relative_to(installed))


def key(mutant: dict) -> str:
    """Return the identity of a mutant, which does not depend on its line number."""
    return json.dumps([mutant["file"], mutant["diff"]])


def table(results: list[dict]) -> str:
    """Return the outcomes by folder, in Markdown."""
    reasons = {key(each) for each in json.loads(EQUIVALENT.read_text())}
    rows = defaultdict(Counter)
    for each in results:
        folder = "/".join(each["file"].split("/")[:-1])
        outcome = "equivalent" if each["outcome"] == "survived" and key(each) in reasons else each["outcome"]
        for row in (folder, "all"):
            rows[row][outcome] += 1
    names = ["killed", "timeout", "equivalent", "survived"]
    lines = ["| folder | mutants | " + " | ".join(names) + " | score |", "| -- |" + " --: |" * 6]
    for row, counts in sorted(rows.items(), key=lambda item: (item[0] == "all", item[0])):
        found = counts["killed"] + counts["timeout"]
        score = f"{100 * found / max(1, found + counts['survived']):.0f} %"
        cells = [counts.total(), *(counts[name] for name in names), score]
        lines.append(f"| {row} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Draw faults, judge each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=500, metavar="N", help="about so many mutants (default: 500)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed draws others (default: 0)")
    parser.add_argument("--only", default="nnx", metavar="PREFIX", help="of the files, such as nnx/data")
    parser.add_argument("--keep", action="store_true", help="what an earlier run killed is not judged again")
    chosen = parser.parse_args()
    os.nice(10)
    copy_tree()
    for name in HEAVY:
        importlib.import_module(name)
    names = [path.stem.removeprefix("test_") for path in sorted((ROOT / "tests").glob("test_*.py"))]
    native = Reach("native", [name for name in names if name not in BESIDES])
    numpy = Reach("numpy", [name for name in names if name in KERNELS])
    known = json.loads(RESULTS.read_text()) if chosen.keep and RESULTS.exists() else []
    killed = {key(each): each for each in known if each["outcome"] != "survived"}
    results = []
    for mutant in sample(chosen.sample, chosen.seed, chosen.only):
        reaches = [numpy, native] if "/_numpy/" in mutant["file"] else [native]
        results.append(killed.get(key(mutant)) or judge(mutant, reaches))
        RESULTS.write_text(json.dumps(results, indent=1))
        last = results[-1]
        print(
            len(results),
            last["outcome"],
            f"{last['file']}:{last['line']}",
            last["seconds"],
            "s",
            last["by"],
            flush=True,
        )
        if last["outcome"] == "survived":
            print("   ", "\n    ".join(last["diff"]), "" if last["reached"] else "(no test runs it in this process)")
    print(table(results))


if __name__ == "__main__":
    main()
