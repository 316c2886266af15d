"""``nnx predict`` and ``nnx evaluate``: a saved model on a table's rows."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from typing import Any

import numpy as np

import nnx
from nnx import _files
from nnx.cli import figures, tasks
from nnx.cli.arguments import Parser, Whole, check_outputs, sentence


def add(commands: Any) -> None:
    """Add both commands to the parser."""
    parser: Parser = commands.add_parser(
        "predict",
        help="predict the target of each row of a CSV file",
        description="Predict the target of each row of a CSV file with the columns that the model was trained on. "
        "The answer is a table too: of class names, each with the probability that the model gives it, or of numbers; "
        "it has a header if the training table had one.",
        epilog="example: nnx predict houses.safetensors new-houses.csv -o prices.csv",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="what nnx train saved")
    parser.add_argument("data", metavar="FILE.csv", help="the rows; a column of targets is passed over")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write the predictions (default: the screen)")
    parser.set_defaults(run=_predict, parser=parser)

    parser = commands.add_parser(
        "evaluate",
        help="judge a model on data with known targets",
        description="Judge a model on the rows of a CSV file with known targets, or on the test part of spiral, "
        "binary, sine or fashion-mnist.",
        epilog="example: nnx evaluate houses.safetensors more-houses.csv",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="what nnx train saved")
    parser.add_argument("data", metavar="DATA", help="FILE.csv, spiral, binary, sine or fashion-mnist")
    parser.add_argument("--folder", metavar="FOLDER", help="where the files of fashion-mnist are")
    parser.add_argument("--seed", type=Whole(0, 2**32 - 1), default=0, metavar="N", help="of spiral's points")
    parser.set_defaults(run=_evaluate, parser=parser, samples=None, download=False)


def _load(parser: Parser, path: str) -> tuple[nnx.Model, nnx.Table]:
    with parser.refusing():
        model = nnx.Model.load(path)
    if model.table is None:
        parser.error(f"argument MODEL: must know the columns of a table, and {path!r} was saved without one")
    return model, model.table


# nnx predict


def _predict(chosen: argparse.Namespace) -> int:
    model, table = _load(chosen.parser, chosen.model)
    if chosen.output is not None:
        check_outputs(chosen.parser, [chosen.output], [chosen.model, chosen.data])
    with chosen.parser.refusing():
        X = table.read_inputs(chosen.data)
    answer = _answer(table, model.predict(X, batch_size=figures.BATCH))
    if chosen.output is None:
        sys.stdout.write(answer)
        return 0
    try:
        with _files.replacing("argument -o/--output", chosen.output) as file:
            file.write(answer.encode())
    except OSError as error:
        print(f"nnx predict: {sentence(error)}", file=sys.stderr)
        return 1
    return 0


def _answer(table: nnx.Table, outputs: Any) -> str:
    """Return the predictions as CSV."""
    decoded = table.decode(outputs).tolist()
    if table.classes is None:
        header, rows = [table.target.name], [[f"{value:.7g}"] for value in decoded]
    else:
        sure = np.maximum(outputs.max(axis=1), 1 - outputs[:, 0] if outputs.shape[1] == 1 else 0)
        header = [table.target.name, "probability"]
        rows = [[name, f"{p:.4f}"] for name, p in zip(decoded, sure, strict=True)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if table.header:
        writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


# nnx evaluate


def _evaluate(chosen: argparse.Namespace) -> int:
    parser: Parser = chosen.parser
    model, table = _load(parser, chosen.model)
    if model.loss is None or model.accuracy is None:
        parser.error(f"argument MODEL: must have a loss and an accuracy, and {chosen.model!r} was saved without one")
    np.random.seed(chosen.seed)
    with parser.refusing():
        if chosen.data in tasks.TASKS:
            task = tasks.load(chosen)
            if task.table.to_dict() != table.to_dict():
                parser.error(f"argument MODEL: must have been trained on {chosen.data}, got {chosen.model!r}")
            X, y = task.X_test, task.y_test
        else:
            X, y = table.read_samples(chosen.data)
    print(f"{len(X):,} samples: {figures.judge(model, table, X, y)}")
    return 0
