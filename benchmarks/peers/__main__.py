"""nnx beside other libraries, on equal terms: python benchmarks/peers

Each library has a process of its own for each number of cores, pinned, with as many threads as cores, and is used in
the fastest way that is known to us; where there are several, each is tried and the fastest kept. All begin with the
same weights and data, and their losses are compared before anything is timed. Then they run blocks of about 50 ms in
rotating order, one at a time. Needs ``pip install '.[peers]'``; a library that is missing is left out.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from typing import Any

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))  # timing.py

import machine
import memory
import report
import rounds
from peers import NO_RIVALS, PEERS, candidates
from workloads import WORKLOADS

#: Rounds of a long run, at most: the fastest counts.
LONG_ROUNDS = 3


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rivals = [name for name in PEERS if name not in NO_RIVALS]
    listed = lambda text: text.split(",")  # noqa: E731
    names = [*dict.fromkeys(workload.base for workload in WORKLOADS.values()), "memory"]
    parser.add_argument("--workloads", type=listed, help=f"some of: {', '.join(names)}")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of matrix products; default: float32"
    )
    parser.add_argument(
        "--kinds", type=listed, help="workloads of some of the kinds train, run, predict, call, print, memory"
    )
    parser.add_argument("--peers", type=listed, default=rivals, help=f"some of: {', '.join(rivals)}")
    parser.add_argument("--cores", type=listed, default=["1", "2"], help="numbers of cores, by default 1,2")
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write everything there, after each row")
    parser.add_argument(
        "--report", type=pathlib.Path, metavar="FILE.json", help="print a file's tables, measure nothing"
    )
    parser.add_argument("--table", type=pathlib.Path, metavar="FILE.json", help="print a file's tables for speed.md")
    chosen = parser.parse_args()
    for name in chosen.peers:
        if name not in rivals:
            parser.error(f"--peers: {name} is none of {', '.join(rivals)}")
    for name in chosen.workloads or ():
        if name not in names:
            parser.error(f"--workloads: {name} is none of {', '.join(names)}")
    if chosen.rounds < 1 or not all(n.isdecimal() and int(n) > 0 for n in chosen.cores):
        parser.error("--rounds and --cores must be whole numbers from 1 up")
    return chosen


def wanted(options: argparse.Namespace, name: str, kind: str) -> bool:
    """Return whether a row is to be measured."""
    return (options.workloads is None or name in options.workloads) and (options.kinds is None or kind in options.kinds)


def say(line: str) -> None:
    """Tell on stderr how far it is."""
    print(line, file=sys.stderr, flush=True)


def start(names: list[tuple[str, int]], found: dict[str, Any]) -> dict[tuple[str, int], rounds.Worker]:
    """Start the peers' processes; note those that are missing."""
    workers = {}
    for name, cores in names:
        if name in found["missing"]:
            continue
        try:
            settings = {} if name in NO_RIVALS else machine.ALLOCATOR
            workers[name, cores] = rounds.Worker(PEERS[name].module, machine.processors(cores), settings)
            found["versions"][name] = workers[name, cores].version
        except rounds.PeerError as error:
            found["missing"][name] = str(error)
            say(f"left out: {name}: {error}")
    return workers


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all rows, and return what goes into the JSON file."""
    usable = [int(n) for n in options.cores if int(n) <= len(machine.USABLE)]
    if len(usable) < len(options.cores):
        say(f"this process may use {len(machine.USABLE)} of the processors: more cores are left out")
    rows = [
        workload
        for workload in WORKLOADS.values()
        if workload.precision == options.precision and wanted(options, workload.base, workload.kind)
    ]
    on_more = {workload.name: workload.kind == "train" and not workload.one_core for workload in rows}
    plan = [(workload, cores) for workload in rows for cores in (usable if on_more[workload.name] else [1])]
    plan.sort(key=lambda row: row[1])
    found: dict[str, Any] = {
        "machine": machine.description(),
        "command": sys.argv[1:],
        "cores": sorted({cores for _, cores in plan}),
        "versions": {},
        "missing": {},
        "results": [],
        "long_runs": [],
        "failed": {},
        "memory": None,
    }
    chosen = [*options.peers, *NO_RIVALS[1:]]
    everyone = dict.fromkeys(name for workload, cores in plan for name in candidates(workload, cores, chosen))
    workers = start(list(everyone), found)
    try:
        if "nnx" in found["missing"]:
            sys.exit(f"nnx: {found['missing']['nnx']}")
        for workload, cores in plan:
            begun = time.perf_counter()
            here = {name: workers[name] for name in candidates(workload, cores, chosen) if name in workers}
            row = f"{workload.name}, {cores} {'core' if cores == 1 else 'cores'}"
            try:
                if workload.kind == "train" and workload.epochs:
                    n_rounds = min(options.rounds, LONG_ROUNDS)
                    found["long_runs"].append(rounds.measure_long_run(workload, here, ("nnx", cores), n_rounds))
                else:
                    found["results"].append(rounds.measure(workload, here, ("nnx", cores), options.rounds))
                say(f"{row}: {time.perf_counter() - begun:.0f} s")
            except rounds.PeerError as error:  # nothing to compare; the other rows may go better
                found["failed"][row] = str(error)
                say(f"{row}: {error}")
            write(options, found)
    finally:
        for worker in workers.values():
            worker.close()
    if options.precision == "float32" and wanted(options, "memory", "memory"):
        found["memory"] = memory.extra_megabytes()
        write(options, found)
    return found


def write(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write the JSON file, if one is wanted."""
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def main() -> None:
    """Measure and print the tables, or print those of a file. The status is 1 if losses disagree or nnx fails."""
    options = arguments()
    if options.table:
        print(report.markdown(json.loads(options.table.read_text())))
    elif options.report:
        print(report.text(json.loads(options.report.read_text())))
    else:
        found = measure(options)
        print(report.text(found))
        rows = found["results"] + found["long_runs"]
        wrong = any("disagrees" in problem for row in rows for problem in row["problems"].values())
        sys.exit(wrong or bool(found["failed"]))


if __name__ == "__main__":
    main()
