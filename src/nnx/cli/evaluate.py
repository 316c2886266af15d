"""``nnx evaluate``."""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np

import nnx
from nnx.cli import figures, images, tasks
from nnx.cli.arguments import UNKNOWN, Parser, Whole, load_with_preprocessor, standard_output
from nnx.data.sheet import count
from nnx.data.table_files import read_sheet


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: Parser = commands.add_parser(
        "evaluate",
        help="score a model on data with known targets",
        description="Score a model on the rows of a table with known targets, on a folder of images with a folder "
        "for each class, or on the test part of spiral, binary, sine or fashion-mnist. The scores are compared with a "
        "baseline, which always predicts the largest class, or the mean. A warning on stderr says if the model is no "
        "better; the exit code is 0 then too.",
        epilog="example: nnx evaluate houses.safetensors more-houses.csv",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="what nnx train saved")
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a table: FILE.csv (or .tsv, .parquet, .feather), FOLDER/ of images, spiral, binary, sine, fashion-mnist",
    )
    parser.add_argument("--folder", metavar="FOLDER", help="folder of the files of fashion-mnist")
    parser.add_argument(
        "--seed", type=Whole(0, 2**32 - 1), metavar="N", help="seed of the points of spiral and binary (default: 0)"
    )
    parser.add_argument("--unknown", choices=("error", "missing"), help=UNKNOWN.format("DATA"))
    parser.add_argument(
        "--encoding", metavar="NAME", help="text encoding of FILE.csv, such as latin-1 or cp1252 (default: UTF-8)"
    )
    images.add_mistakes_option(parser.add_argument)
    parser.set_defaults(run=_run, parser=parser, samples=None, download=False)


def _run(chosen: argparse.Namespace) -> int:
    parser: Parser = chosen.parser
    standard_output()
    model, preprocessor = load_with_preprocessor(parser, chosen.model)
    if chosen.data not in tasks.TASKS and not os.path.exists(chosen.data):
        parser.error(tasks.no_data(chosen.data))
    for name in ("unknown", "encoding"):
        if getattr(chosen, name) is not None and (chosen.data in tasks.TASKS or os.path.isdir(chosen.data)):
            parser.error(f"argument --{name}: is for FILE.csv only, got it with {chosen.data!r}")
    for name, sources in (("folder", ("fashion-mnist",)), ("seed", ("spiral", "binary"))):
        if getattr(chosen, name) is not None and chosen.data not in sources:
            parser.error(f"argument --{name}: is for {' and '.join(sources)} only, got it with {chosen.data!r}")
    table = images.reader(preprocessor, chosen.data)
    if chosen.mistakes is not None and model.images is None:
        parser.error(f"argument --mistakes: is for models of images only, and {chosen.model!r} is a table's model")
    images.check_mistakes_option(parser, chosen.mistakes, [chosen.model, chosen.data])
    np.random.seed(chosen.seed or 0)
    remarks: list[str] = []
    with parser.refusing(chosen.command):
        if chosen.data in tasks.TASKS:
            task = tasks.load(chosen)
            if not images.are_alike(task.table, table):
                parser.refuse(f"argument MODEL: must have been trained on {chosen.data}, got {chosen.model!r}")
            X, y = task.X_test, task.y_test
        elif isinstance(table, nnx.Images):
            with images.notes():
                X, y = table.read_samples(chosen.data)
        else:
            sheet = read_sheet("nnx.evaluate", chosen.data, table.header, chosen.encoding)
            X, y = table.read_samples(sheet, unknown=chosen.unknown or "error")
            remarks = tasks.reading_remarks(sheet, table)
        report = figures.report(model, X, y)
    lines = [*remarks, f"{count(len(X), 'sample')}: {report.line}", *figures.details(report)]
    print("\n".join(lines), flush=True)
    figures.warn(parser.prog, report, "these data", "Are they like the data that it was trained on?")
    if chosen.mistakes is not None:
        images.draw_mistakes(model, X, y, chosen.mistakes)
    return 0
