"""Seconds and memory from a table's file to the arrays to train on, with each reader of CSV files and each format.

    python benchmarks/tables_reading.py [--rows 1000000] [--folder FOLDER]

The table has 20 columns: 15 of random numbers with a few gaps, two of whole numbers, two of texts (10 and 25 different
ones) and a target. Each row is one process. Memory is the most that the process took beyond what it had after the
imports, as a multiple of the CSV file's size (on Linux only). All ways must give the same arrays, bit for bit.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("csv", "pyarrow", "parquet", "feather", "pandas", "polars")
NAMES = [f"x{number}" for number in range(1, 16)] + ["age", "count", "town", "kind", "target"]
BLOCK = 20_000


def write(path: Path, n_rows: int) -> None:
    """Write the table, some rows at a time, as its texts take much memory."""
    random = np.random.default_rng(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write(",".join(NAMES) + "\n")
        for start in range(0, n_rows, BLOCK):
            n = min(BLOCK, n_rows - start)
            numbers = random.normal(size=(n, 15))
            columns = [np.char.mod("%.6f", column) for column in numbers.T]
            for column in columns:
                column[random.random(n) < 0.002] = ""
            columns += [random.integers(18, 90, n).astype(str), random.integers(0, 1_000_000, n).astype(str)]
            columns += [np.char.add("town ", random.integers(0, 10, n).astype(str))]
            columns += [np.char.add("kind-", random.integers(0, 25, n).astype(str))]
            columns += [np.char.mod("%.5f", numbers[:, 0] * 2 + numbers[:, 1] + random.normal(size=n))]
            file.writelines(",".join(row) + "\n" for row in zip(*columns, strict=True))


def convert(path: Path) -> None:
    """Write the same table in the other formats."""
    from pyarrow import csv, feather, parquet

    table = csv.read_csv(path)
    parquet.write_table(table, path.with_suffix(".parquet"))
    feather.write_feather(table, str(path.with_suffix(".feather")))


def way(name: str, path: Path) -> Callable[[], Any]:
    """Return a function that reads the table, after it has imported what it needs."""
    import nnx
    from nnx.data import csv_files

    if name in ("pandas", "polars"):
        library = __import__(name)
        return lambda: samples_of_frame(library.read_csv(path))
    if name == "csv":
        csv_files.LEAST_FAST = sys.maxsize
    else:
        from nnx.data import arrow_csv, arrow_tables  # noqa: F401
    suffix = "" if name in ("csv", "pyarrow") else f".{name}"
    file = path.with_suffix(suffix) if suffix else path
    return lambda: nnx.load_csv(file, "target")[:4]


def samples_of_frame(frame: Any) -> tuple[Any, ...]:
    """Return what `load_csv` does of a data frame."""
    import nnx

    order = np.random.RandomState(0).permutation(len(frame))
    n_test = round(len(frame) * 0.2)
    table = nnx.Table.learn(frame, "target", training_rows=order[n_test:])
    X, y = table.read_samples(frame)
    return X[order[n_test:]], y[order[n_test:]], X[order[:n_test]], y[order[:n_test]]


def most_memory() -> int:
    """Return the most bytes that this process has had; Linux counts them from its start on only here."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def measure(name: str, path: Path) -> None:
    """Print the seconds and bytes of one way, and a digest of its arrays."""
    read = way(name, path)
    before = most_memory()
    start, start_cpu = time.perf_counter(), time.process_time()
    found = read()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    grown = most_memory() - before
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in found)).hexdigest()
    print(seconds, cpu, grown, digest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    path = chosen.folder / f"nnx-table-{chosen.rows}.csv"
    if chosen.way:
        return measure(chosen.way, path)
    if not path.exists():
        write(path, chosen.rows)
        convert(path)
    size = path.stat().st_size
    print(f"{chosen.rows:,} rows of {len(NAMES)} columns, {size / 1e6:.0f} MB, {os.cpu_count()} cores\n")
    print("| read by | seconds | CPU seconds | MB | times the CSV file |\n|---|---|---|---|---|")
    digests = set()
    for name in WAYS:
        command = [sys.executable, __file__, "--way", name, "--rows", str(chosen.rows), "--folder", str(chosen.folder)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        seconds, cpu, grown = map(float, answer[:3])
        digests.add(answer[3])
        print(f"| {name} | {seconds:.1f} | {cpu:.1f} | {grown / 1e6:.0f} | {grown / size:.1f} |", flush=True)
    assert len(digests) == 1, "the ways give different arrays"
    return None


if __name__ == "__main__":
    main()
