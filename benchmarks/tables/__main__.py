"""nnx on tables beside other methods, on equal terms: python benchmarks/tables --results tables.jsonl

Each cell, a method on a data set with a seed, is a process of its own on one core with one thread, and has a time
limit. The seed splits the rows and seeds the method. A cell that is in the results is not measured again, so that a run
can be ended and go on. Needs ``pip install '.[tables-peers]'`` and, for most data sets, their files below
``NNX_DATA_HOME``; a library or a file that is missing is named and left out. Choices are made on rows held out of the
training rows, by the methods themselves: the test rows are looked at once, for the table.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))  # machine.py, timing.py

import machine
import report
import sets
from peers import PEERS

FOLDER = pathlib.Path(__file__).resolve().parent
#: How many times as long as it may compute a cell may last: others may be at work on the machine.
PATIENCE = 10


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listed = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--sets", type=listed, default=list(sets.SETS), help=f"some of: {', '.join(sets.SETS)}")
    parser.add_argument("--peers", type=listed, default=list(PEERS), help=f"some of: {', '.join(PEERS)}")
    parser.add_argument("--seeds", type=listed, default=["0", "1", "2"], help="by default 0,1,2")
    parser.add_argument("--limit", type=float, default=60, help="minutes that a cell may compute; default: 60")
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        nargs="+",
        default=[pathlib.Path("tables.jsonl")],
        metavar="FILE",
        help="cells, one a line of JSON; new ones are appended to the first file; default: tables.jsonl",
    )
    parser.add_argument(
        "--again", action="store_true", help="measure the cells again: of several, the table shows the last"
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write means, ranks and all cells there")
    parser.add_argument("--table", action="store_true", help="print the table in Markdown, measure nothing")
    chosen = parser.parse_args()
    for option, given, known in (("sets", chosen.sets, sets.SETS), ("peers", chosen.peers, PEERS)):
        for name in given:
            if name not in known:
                parser.error(f"--{option}: {name} is none of {', '.join(known)}")
    if not all(seed.isdecimal() for seed in chosen.seeds):
        parser.error("--seeds must be whole numbers from 0 up")
    return chosen


def say(line: str) -> None:
    """Tell on stderr how far it is."""
    print(line, file=sys.stderr, flush=True)


def installed(names: list[str]) -> list[str]:
    """Return those methods whose library is there; name the others."""
    there = []
    for name in names:
        try:
            say(f"{PEERS[name].title}: {PEERS[name].distribution} {PEERS[name].version}")
            there.append(name)
        except ImportError:
            say(f"left out: {name}: {PEERS[name].distribution} is not installed")
    return there


def with_files(names: list[str]) -> list[str]:
    """Return those data sets whose files are there; name the others."""
    for name in names:
        if not sets.is_there(name):
            say(f"left out: {name}: there is no {sets.file(sets.SETS[name][1])}")
    return [name for name in names if sets.is_there(name)]


def measure(name: str, peer: str, seed: str, minutes: float) -> dict[str, Any]:
    """Have a process measure a cell, and return what it found, or why it found nothing."""
    seconds = max(1, round(60 * minutes))
    command = [sys.executable, str(FOLDER / "cell.py"), name, peer, seed, str(seconds)]
    cell: dict[str, Any] = {"set": name, "peer": peer, "seed": int(seed), "version": PEERS[peer].version}
    too_long = cell | {"failed": f"not done after {minutes:g} minutes"}
    try:
        done = subprocess.run(
            command,
            env=machine.environment(1),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE * seconds,
        )
    except subprocess.TimeoutExpired:
        return too_long
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        return too_long
    if done.returncode:
        return cell | {"failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_all(options: argparse.Namespace) -> None:
    """Measure the cells that are not there yet; all methods with one seed come before the next seed."""
    done = {} if options.again else report.read(options.results)
    names, rows = installed(options.peers), with_files(options.sets)
    for seed in options.seeds:
        for peer in names:
            for name in rows:
                if (name, peer, int(seed)) in done:
                    continue
                cell = measure(name, peer, seed, options.limit)
                with options.results[0].open("a") as file:
                    file.write(json.dumps(cell) + "\n")
                figures = cell.get("failed") or f"{cell['score']:.4f}, {cell['cpu_seconds']:.1f} s"
                say(f"{name}, {PEERS[peer].title}, seed {seed}: {figures}")


def main() -> None:
    """Measure, and print the table; the status is 1 if a cell of nnx failed."""
    options = arguments()
    if not options.table:
        say(f"{machine.timing.processor()}; load {os.getloadavg()[0]:.2f}: it should be near 0")
        measure_all(options)
    cells = report.chosen(report.read(options.results), options.sets, options.peers, options.seeds)
    if options.json:
        options.json.write_text(json.dumps(report.summary(cells), indent=1) + "\n")
    print(report.markdown(cells))
    sys.exit(any("failed" in cell and cell["peer"].startswith("nnx") for cell in cells.values()))


if __name__ == "__main__":
    main()
