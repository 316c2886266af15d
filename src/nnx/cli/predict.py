"""``nnx predict``."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import Any

import nnx
from nnx._base import files
from nnx.cli import images, tasks
from nnx.cli.arguments import (
    UNKNOWN,
    Parser,
    add_columns,
    check_outputs,
    columns,
    flat,
    load_with_preprocessor,
    standard_input,
    standard_output,
    swallowed,
)
from nnx.data.columns import as_text
from nnx.data.sheet import Sheet, count, shown
from nnx.data.table_files import read_sheet
from nnx.scoring.answers import answer_columns, as_csv, gives_probabilities
from nnx.scoring.importance import BATCH

#: Standard input or output.
STANDARD = "-"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: Parser = commands.add_parser(
        "predict",
        usage="nnx predict [options] MODEL DATA...",
        help="predict the target of each row of a table, or the class of each image",
        description="Predict the target of each row of a table, which must have the columns that\n"
        "the model was trained on. The answer is a CSV table: the class and its\n"
        "probability, or a number. It has a header if the training table had one.\n"
        "For images, each row has the file's name, the class and its probability.",
        epilog="example: nnx predict houses.safetensors new-houses.csv -o prices.csv\n"
        "example: nnx predict clothes.safetensors shirt.png more/ -o classes.csv\n"
        "example: generate | nnx predict churn.safetensors - --keep id --probabilities | sort",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("model", nargs="?", metavar="MODEL", help="what nnx train saved")
    option(
        "data",
        nargs="*",
        metavar="DATA",
        help="a table: FILE.csv (or .tsv, .parquet, .feather), - for standard input; a target column is ignored. "
        "Or images: files and folders",
    )
    option("-o", "--output", metavar="FILE", help="where to write the predictions, - for the screen (default)")
    option("--probabilities", action="store_true", help="write the probability of each class, one column per class")
    add_columns(option, "--keep", "columns of FILE.csv to write before the predictions")
    option("--unknown", choices=("error", "missing"), default="error", help=UNKNOWN.format("DATA"))
    option("--encoding", metavar="NAME", help="text encoding of FILE.csv, such as latin-1 or cp1252 (default: UTF-8)")
    parser.set_defaults(run=_run, parser=parser, takes_more_data=True)


def _run(chosen: argparse.Namespace) -> int:
    _find_files(chosen)
    model, preprocessor = load_with_preprocessor(chosen.parser, chosen.model)
    output = None if chosen.output == STANDARD else chosen.output
    if output is not None:
        inputs = [chosen.model] + [each for each in chosen.data if each != STANDARD]
        check_outputs(chosen.parser, [output], inputs)
    else:
        standard_output()  # if it is closed, that is said before any work
    if chosen.probabilities and not (preprocessor.classes and gives_probabilities(model)):
        chosen.parser.error(
            f"argument --probabilities: needs a model that predicts classes with probabilities, got {chosen.model!r}"
        )
    reader = images.reader(preprocessor, chosen.data[0])
    if chosen.data == [STANDARD]:
        chosen.data = [standard_input()]
    with chosen.parser.refusing(chosen.command):
        if isinstance(reader, nnx.Images):
            answer, done, remarks = _predicted_images(chosen, model, reader)
        else:
            answer, done, remarks = _predicted_rows(chosen, model, reader)
    _write(answer, output)
    where = "standard output" if output is None else repr(output)
    print(" ".join([f"{done} to {where}.", *remarks]), file=sys.stderr)
    return 0


def _predicted_rows(
    chosen: argparse.Namespace, model: nnx.Model | nnx.Ensemble, table: nnx.Table
) -> tuple[str, str, list[str]]:
    """Return the answer for the rows of a CSV file, what was done, and remarks about the file."""
    if len(chosen.data) > 1:
        chosen.parser.error(f"argument DATA: must be one CSV file, got {len(chosen.data)} files")
    sheet = read_sheet("nnx.predict", chosen.data[0], table.header, chosen.encoding)
    kept = _kept(sheet, chosen.keep)
    X = table.read_inputs(sheet, unknown=chosen.unknown)
    outputs = model.predict(X, batch_size=BATCH)
    answer = as_csv(answer_columns(model, table, outputs, kept, chosen.probabilities), table.header)
    done = f"{count(sheet.n_rows, 'row')} predicted from {sheet.source}"
    return answer, done, tasks.reading_remarks(sheet, table)


def _predicted_images(
    chosen: argparse.Namespace, model: nnx.Model | nnx.Ensemble, reader: nnx.Images
) -> tuple[str, str, list[str]]:
    """Return the answer for image files, what was done, and no remarks."""
    if chosen.keep:
        chosen.parser.error("argument --keep: is for FILE.csv only; images are answered with their file's name")
    if chosen.encoding is not None:
        chosen.parser.error("argument --encoding: is for FILE.csv only")
    paths = nnx.data.images.files(chosen.data)
    with images.notes():
        outputs = model.predict(reader.read_inputs(paths), batch_size=BATCH)
    answer = answer_columns(model, images.answers(reader), outputs, {"file": paths}, chosen.probabilities)
    return as_csv(answer, header=True), f"{count(len(paths), 'image')} predicted", []


def _find_files(chosen: argparse.Namespace) -> None:
    """Refuse a command without model or data, which may stand behind the list of columns to keep."""
    missing = [name for name in ("model", "data") if not getattr(chosen, name)]
    if missing:
        found = swallowed([chosen.keep], len(missing), {STANDARD})
        if not found:
            names = " and ".join({"model": "MODEL", "data": "DATA"}[name] for name in missing)
            chosen.parser.error(f"arguments are missing: {names}")
        chosen.data = [found.pop()]
        if found:
            chosen.model = found.pop()


def _kept(sheet: Sheet, given: Sequence[Sequence[str]] | None) -> dict[str, Sequence[str]]:
    """Return the columns of the input that are to stand before the predictions."""
    kept: dict[str, Sequence[str]] = {}
    for each in columns("keep", flat(given), sheet.names):
        name = sheet.name_of(each)
        if name is None:
            sheet.refuse_columns(f"no column {shown(str(each))} for keep", each)
        kept[name] = [as_text(cell) for cell in sheet.columns[sheet.places[name]]]
    return kept


def _write(answer: str, output: str | None) -> None:
    """Write all of the answer, or raise the OSError that says why not."""
    if output is not None:
        with files.replacing("argument -o/--output", output) as file:
            file.write(answer.encode())
        return
    stream = standard_output()
    if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
        stream.reconfigure(encoding="utf-8")  # as in a file, whatever the shell's code page
    print(answer, end="", file=stream, flush=True)
