"""``nnx evaluate``."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from nnx._sheet import count, read_csv
from nnx.cli import figures, tasks
from nnx.cli.arguments import Parser, Whole, load_with_table, standard_output


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: Parser = commands.add_parser(
        "evaluate",
        help="judge a model on data with known targets",
        description="Judge a model on the rows of a CSV file with known targets, or on the test part of spiral, "
        "binary, sine or fashion-mnist. Beside the score stands the baseline: always the largest class, or the mean. A "
        "model that is no better is called that on stderr; the exit code is 0 all the same.",
        epilog="example: nnx evaluate houses.safetensors more-houses.csv",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="what nnx train saved")
    parser.add_argument("data", metavar="DATA", help="FILE.csv, spiral, binary, sine or fashion-mnist")
    parser.add_argument("--folder", metavar="FOLDER", help="where the files of fashion-mnist are")
    parser.add_argument("--seed", type=Whole(0, 2**32 - 1), metavar="N", help="of spiral's points (default: 0)")
    parser.add_argument(
        "--unknown", choices=("error", "missing"), help="what a text is that the training table lacks (default: error)"
    )
    parser.set_defaults(run=_run, parser=parser, samples=None, download=False)


def _run(chosen: argparse.Namespace) -> int:
    parser: Parser = chosen.parser
    standard_output()
    model, table = load_with_table(parser, chosen.model)
    if chosen.unknown is not None and chosen.data in tasks.TASKS:
        parser.error(f"argument --unknown: is for FILE.csv only, got it with {chosen.data!r}")
    for name, sources in (("folder", ("fashion-mnist",)), ("seed", ("spiral", "binary"))):
        if getattr(chosen, name) is not None and chosen.data not in sources:
            parser.error(f"argument --{name}: is for {' and '.join(sources)} only, got it with {chosen.data!r}")
    np.random.seed(chosen.seed or 0)
    remarks: list[str] = []
    with parser.refusing(chosen.command):
        if chosen.data in tasks.TASKS:
            task = tasks.load(chosen)
            if task.table.to_dict() != table.to_dict():
                parser.refuse(f"argument MODEL: must have been trained on {chosen.data}, got {chosen.model!r}")
            X, y = task.X_test, task.y_test
        else:
            sheet = read_csv("nnx.evaluate", chosen.data, table.header)
            X, y = table.read_samples(sheet, unknown=chosen.unknown or "error")
            remarks = tasks.reading_remarks(sheet, table)
        report = figures.report(model, X, y)
    lines = [*remarks, f"{count(len(X), 'sample')}: {report.line}", *figures.details(report)]
    print("\n".join(lines), flush=True)
    figures.warn(parser.prog, report, "these data", "Are they like those that it was trained on?")
    return 0
