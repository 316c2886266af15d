"""``nnx predict``."""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from typing import Any

import numpy as np

import nnx
from nnx import _files
from nnx.cli import figures
from nnx.cli.arguments import Parser, check_outputs, load_with_table
from nnx.columns import Number


def add(commands: Any) -> None:
    """Add the command to the parser."""
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
    parser.set_defaults(run=_run, parser=parser)


def _run(chosen: argparse.Namespace) -> int:
    model, table = load_with_table(chosen.parser, chosen.model)
    if chosen.output is not None:
        check_outputs(chosen.parser, [chosen.output], [chosen.model, chosen.data])
    with chosen.parser.refusing():
        X = table.read_inputs(chosen.data)
        answer = _answer(model, table, model.predict(X, batch_size=figures.BATCH))
    if chosen.output is None:
        if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
            sys.stdout.reconfigure(encoding="utf-8")  # as in a file, whatever the shell's code page
        print(answer, end="")
    else:
        with _files.replacing("argument -o/--output", chosen.output) as file:
            file.write(answer.encode())
    return 0


def _answer(model: nnx.Model, table: nnx.Table, outputs: Any) -> str:
    """Return the predictions as CSV."""
    decoded = table.decode(outputs).tolist()
    header = [table.target.name]
    if isinstance(table.target, Number):
        decimals = 5 - math.floor(math.log10(table.target.scale))  # six digits of a standard deviation
        rows = [[f"{value:.{max(0, decimals)}f}"] for value in decoded]
    elif isinstance(model.output_layer_activation, nnx.Activation_Softmax | nnx.Activation_Sigmoid):
        sure = np.maximum(outputs.max(axis=1), 1 - outputs[:, 0] if outputs.shape[1] == 1 else 0)
        header.append("probability")
        rows = [[name, f"{p:.4f}"] for name, p in zip(decoded, sure, strict=True)]
    else:
        rows = [[name] for name in decoded]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if table.header:
        writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
