"""``nnx train``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

import nnx
import nnx.tabular
from nnx.cli import figures, images, jobs, networks, pictures, report, tasks
from nnx.cli.arguments import (
    UNKNOWN,
    Number,
    Parser,
    Whole,
    add_columns,
    check_outputs,
    columns,
    flat,
    interval,
    layers,
    swallowed,
    way_out,
)
from nnx.data.sheet import count, listed, shown
from nnx.data.table_files import names_of_file
from nnx.schedules import OVER_STEPS
from nnx.tabular.recipe import EFFORTS

if TYPE_CHECKING:
    from nnx.scoring.importance import Importance
    from nnx.scoring.reports import Report

#: More would take more time than anybody means to spend.
MAX_RUNS = 1000
TABLE_OPTIONS = ("target", "task", "text", "drop", "gaps", "decimal", "unknown", "header", "encoding", "memory")
#: Options that describe one network, or its training.
NETWORK_OPTIONS = (*(field.name for field in fields(tasks.Settings)), "checkpoint", "checkpoint_every", "resume")
#: Options that say something to some data sets only.
ONLY_FOR = {
    **dict.fromkeys((*TABLE_OPTIONS, "folds", "effort"), ("FILE.csv",)),
    **dict.fromkeys(("test", "test_size", "split_seed"), ("FILE.csv", "FOLDER/")),
    **dict.fromkeys(("size", "grey"), ("FOLDER/",)),
    **dict.fromkeys(("folder", "download"), ("fashion-mnist",)),
    "mistakes": ("fashion-mnist", "FOLDER/"),
    "samples": ("spiral", "binary", "sine"),
}


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: Parser = commands.add_parser(
        "train",
        help="train a model, save it and draw its results",
        description="Train a model, save it and, if matplotlib is installed, draw its results.\n"
        "Each data set has default settings that suit it. Each option replaces one.\n\n"
        "The scores are compared with a baseline, which always predicts the largest\n"
        "class, or the mean. A warning on stderr says if the model is no better. Such a\n"
        "model is saved too, and the exit code is 0.",
        epilog="example: nnx train spiral --epochs 100 --output my-spiral.safetensors\n"
        "example: nnx train houses.csv --target price --layers 128,64\n"
        "example: nnx train photos/ --size 32 --mistakes mistakes.png\n"
        "example: nnx train fashion-mnist --download",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option(
        "data",
        nargs="?",
        metavar="DATA",
        help="spiral (the default), binary (a spiral of two arms), sine, fashion-mnist, a table: FILE.csv (or .tsv, "
        ".parquet, .feather), or images: FOLDER/ with a folder for each class",
    )
    option(
        "--effort",
        choices=EFFORTS,
        help="for a table: how many networks to try; with 16,000 rows, fast takes about a second, default some "
        "seconds, best a minute or more (default: default)",
    )
    option(
        "--seed",
        type=Whole(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="seed of the initial weights, of the order of samples, and of the points of spiral and "
        "binary "
        "(default: 0)",
    )
    option(
        "--repeat",
        type=Whole(1, MAX_RUNS),
        default=1,
        metavar="N",
        help="train N times, each time with the next --seed and --split-seed, and print mean and spread of the "
        "scores; the model of the first run is saved (default: 1)",
    )
    option(
        "--folds",
        type=Whole(2, MAX_RUNS),
        metavar="N",
        help="cross-validate: divide the rows into N folds, test on each fold a model that is trained on the others, "
        "and print mean and spread of the scores; the saved model is trained on all rows",
    )
    option("-o", "--output", metavar="FILE", help="where to save the model (default: named after the data)")
    option("--report", metavar="FILE.html", help="write a page with the data, the training, scores and pictures")
    images.add_mistakes_option(option)
    _add_network_options(
        parser.add_argument_group(
            "for one network",
            "These options describe one network. With any of them, nnx trains one\n"
            "network on a table too, instead of those that --effort tries.",
        )
    )
    _add_table_options(parser.add_argument_group("for tables (FILE.csv); --test... and --split-seed for images too"))
    fashion = parser.add_argument_group("for fashion-mnist").add_argument
    fashion(
        "--folder", metavar="FOLDER", help="folder of its four files (default: in NNX_DATA_HOME or your cache folder)"
    )
    fashion("--download", action="store_true", default=None, help="download the files that are missing there (30 MB)")
    images.add_options(parser.add_argument_group("for images (FOLDER/)").add_argument)
    points = parser.add_argument_group("for spiral, binary and sine").add_argument
    points(
        "--samples",
        type=Whole(2, 10_000_000),
        metavar="N",
        help="training points, of each arm for spiral and binary (default: 1000)",
    )
    parser.set_defaults(run=run, parser=parser)


def _add_network_options(group: Any) -> None:
    option = group.add_argument
    option("--layers", type=layers, metavar="N,N", help="neurons of each hidden layer, such as 64,64; or none")
    option("--epochs", type=Whole(1), metavar="N", help="passes through the training data")
    option("--batch", type=Whole(1), metavar="N", help="samples per step")
    option("--optimizer", choices=sorted(networks.OPTIMIZERS), help="(default: adam)")
    option(
        "--activation",
        choices=sorted(networks.ACTIVATIONS),
        metavar="NAME",
        help=f"activation of the hidden layers: {', '.join(sorted(networks.ACTIVATIONS))} (default: relu)",
    )
    option(
        "--loss",
        choices=sorted(networks.LOSSES),
        metavar="NAME",
        help=f"to predict numbers: {', '.join(networks.SUITABLE[tasks.LINEAR])}; for binary: "
        f"{', '.join(networks.SUITABLE[tasks.SIGMOID])} (default: the first of each)",
    )
    option("--rate", type=Number(0, above=True), metavar="X", help="initial learning rate")
    option("--decay", type=Number(0), metavar="X", help="at step t the learning rate is rate / (1 + decay * t)")
    option(
        "--schedule",
        choices=sorted(OVER_STEPS),
        metavar="NAME",
        help="learning rate schedule over the whole training, in place of --decay: cosine, exponential (falls to a "
        "hundredth), onecycle, polynomial (a straight line to 0), step (divided by ten after half and after three "
        "quarters of the steps), or warmup (rises for a tenth of the steps, then cosine)",
    )
    option(
        "--patience",
        type=Whole(1),
        metavar="N",
        help="early stopping: hold a tenth of the samples out of training, stop when their loss has not improved for N "
        "epochs, and keep the model of the best epoch",
    )
    option("--l2", type=Number(0), metavar="X", help="L2 regularization of the hidden layers' weights")
    option(
        "--dropout", type=Number(0, 1), metavar="X", help="fraction of each hidden layer's outputs set to 0 in a step"
    )
    option(
        "--precision",
        choices=("float32", "bfloat16"),
        help="precision in which dense layers multiply; bfloat16 rounds to about three digits and is faster on "
        "processors with matrix units; nnx info says whether yours has them (default: float32)",
    )
    option("--checkpoint", metavar="FILE", help="save the state of the training to FILE at regular intervals")
    option(
        "--checkpoint-every",
        type=interval,
        metavar="N",
        help="epochs between two checkpoints, or seconds such as 30s (default: 60s)",
    )
    option("--resume", metavar="FILE", help="continue from a checkpoint with the same options, and keep writing to it")


def _add_table_options(group: Any) -> None:
    option = group.add_argument
    option("--target", metavar="NAME", help="column to predict: its name or its number, -1 for the last")
    option(
        "--test",
        metavar="FILE",
        help="test on the rows of this file, or the images of FOLDER/, instead of a part of DATA",
    )
    option(
        "--test-size", type=Number(0, 1), metavar="X", help="fraction of the rows or images to test on (default: 0.2)"
    )
    option(
        "--split-seed",
        type=Whole(0, 2**32 - 1),
        metavar="N",
        help="seed that chooses the rows or images to test on, and the order of the others (default: 0)",
    )
    option(
        "--task",
        choices=("classification", "regression"),
        help="what to predict, classes or a number (default: detected from the target's values)",
    )
    add_columns(option, "--text", "columns to take as categories")
    add_columns(option, "--drop", "columns to leave out")
    option(
        "--gaps", choices=("fill", "refuse"), help="fill missing values in FILE.csv, or refuse the file (default: fill)"
    )
    help_decimal = "decimal mark, . or , for columns that can be read in two ways, such as 1,234"
    option(
        "--encoding",
        metavar="NAME",
        help="text encoding of FILE.csv and --test, such as latin-1 or cp1252 (default: UTF-8)",
    )
    option("--decimal", choices=(".", ","), metavar="MARK", help=help_decimal)
    option("--unknown", choices=("error", "missing"), help=UNKNOWN.format("--test"))
    option(
        "--memory",
        type=Number(0, 1, above=True),
        metavar="X",
        help="fraction of this machine's memory that reading FILE.csv may take; a larger file is read block by block "
        "into a temporary file, and one network is trained (default: 0.5)",
    )
    option(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first row holds the columns' names (default: detected)",
    )


def run(chosen: argparse.Namespace) -> int:
    """Train, save, judge and draw; before it cross-validate, or after it train with other seeds, if that is asked."""
    if chosen.data is None:
        chosen.data = (swallowed([chosen.text, chosen.drop], 1, tasks.TASKS) or ["spiral"])[0]
    output, picture = _checked_outputs(chosen)
    with chosen.parser.refusing(chosen.command):
        np.random.seed(chosen.seed)  # of the points of spiral, too
        job, folds = jobs.jobs(chosen)
    print("\n".join(_announcement(job, chosen.folds)), flush=True)
    of_folds: list[Report] = []
    began = time.perf_counter()
    try:
        if folds is not None:
            of_folds, code = jobs.cross_validated(chosen, folds)
            if code:
                return code
            began = time.perf_counter()
        outcome = jobs.train(job, chosen)
    except nnx.DivergenceError as error:
        print(f"nnx train: {jobs.diverged(error)}. No model is saved. Try a smaller --rate or --l2.", file=sys.stderr)
        return 1
    model, code = outcome.model, outcome.code
    if model is None:
        early = "Stopped before the end" if chosen.effort else "Stopped before the first step"
        print(f"{early}. No model is saved.", file=sys.stderr)
        return code
    seconds = time.perf_counter() - began
    model.save(output)  # first of all: what follows can be had again
    if code:
        print(f"Stopped after {count(len(model.history), 'step')}. The model is saved as it is now.")
        checkpoint = chosen.checkpoint or chosen.resume
        if checkpoint is not None and os.path.exists(checkpoint):
            print(f"To continue, repeat the command with --resume {checkpoint}")
    task = job.task
    with chosen.parser.refusing():
        judgement = figures.judge(model, task)
        importance = None if chosen.data in tasks.TASKS else figures.importance(model, task)
    print("\n".join([*outcome.lines, *judgement.lines(), *figures.importance_lines(importance)]))
    all_rows = ", trained on the rows of all folds" if chosen.folds else ""
    print(f"Model saved to {os.path.abspath(output)}{all_rows}", flush=True)
    _draw(model, task, picture, importance)
    if chosen.report is not None:
        told = [job.described(), *outcome.lines]
        story = report.Story(task, model, judgement, told, seconds, chosen.command, of_folds, importance)
        report.write(chosen.report, story)
        print(f"Report saved to {os.path.abspath(chosen.report)}")
    if chosen.mistakes is not None:
        images.draw_mistakes(model, *(task.held_out or (task.X, task.y)), chosen.mistakes)
    if chosen.repeat > 1 and not code:
        code = jobs.repeat(chosen, judgement.main, judgement.part)
    if of_folds:
        figures.warn_of_folds(of_folds)
    else:
        judgement.warn(chosen.effort is None)
    return code


# Options


def _checked_outputs(chosen: argparse.Namespace) -> tuple[str, str]:
    """Return where model and picture go, after all checks of options and paths."""
    parser: Parser = chosen.parser
    _check_options(chosen)
    output = chosen.output
    if output is None:
        output = f"{os.path.splitext(os.path.basename(os.path.abspath(chosen.data)))[0]}.safetensors"
    if output.lower().endswith(".png"):
        parser.error(f"argument -o/--output: must not end in .png, as the picture's file does, got {output!r}")
    picture = _picture_beside(output)
    inputs = [path for path in (chosen.data, chosen.test) if path is not None]
    check_outputs(parser, (output, picture), inputs)
    _check_checkpoint(chosen, (output, picture), inputs)
    images.check_mistakes_option(parser, chosen.mistakes, inputs, (output, picture))
    _check_report(chosen, (output, picture), inputs)
    return output, picture


def _picture_beside(output: str) -> str:
    """Return where the picture goes: "m.png" for "m.safetensors", "m.1.png" for "m.1"."""
    stem, suffix = os.path.splitext(output)
    return f"{stem if suffix[1:].isalpha() else output}.png"


def _check_checkpoint(chosen: argparse.Namespace, outputs: tuple[str, ...], inputs: list[str]) -> None:
    """Refuse a checkpoint that cannot be written or read, or that would be another file too."""
    for option in ("checkpoint", "resume"):
        if chosen.repeat > 1 and getattr(chosen, option) is not None:
            chosen.parser.error(f"argument --repeat: not allowed with argument --{option}, which is for a single run")
    if chosen.resume is not None and chosen.checkpoint is not None:
        chosen.parser.error(
            "argument --resume: not allowed with argument --checkpoint, because it keeps writing to its own file"
        )
    if chosen.checkpoint_every is not None and chosen.checkpoint is None and chosen.resume is None:
        chosen.parser.error("argument --checkpoint-every: is for --checkpoint and --resume only")
    for option in ("--checkpoint", "--resume"):
        path = getattr(chosen, option[2:])
        if path is not None:
            check_outputs(chosen.parser, (path,), inputs, option)
            if os.path.realpath(path) in map(os.path.realpath, outputs):
                chosen.parser.error(f"argument {option}: must not be where model or picture go, got {path!r}")
    if chosen.resume is not None and not os.path.exists(chosen.resume):
        chosen.parser.error(f"argument --resume: must be a checkpoint, and there is no file {chosen.resume!r}")


def _check_report(chosen: argparse.Namespace, outputs: tuple[str, ...], inputs: list[str]) -> None:
    """Refuse a place for the page that cannot be written to, or would be another file too."""
    if chosen.report is None:
        return
    if not chosen.report.lower().endswith((".html", ".htm")):
        chosen.parser.error(f"argument --report: must end in .html, got {chosen.report!r}")
    check_outputs(chosen.parser, [chosen.report], inputs, "--report")
    if os.path.realpath(chosen.report) in map(os.path.realpath, outputs):
        chosen.parser.error(f"argument --report: must not be where model or picture go, got {chosen.report!r}")


def _check_options(chosen: argparse.Namespace) -> None:
    """Refuse options that would do nothing, and a table without a target."""
    kind = chosen.data if chosen.data in tasks.TASKS else "FOLDER/" if os.path.isdir(chosen.data) else "FILE.csv"
    if kind == "FILE.csv" and not os.path.exists(chosen.data):
        chosen.parser.error(tasks.no_data(chosen.data))
    for name, kinds in ONLY_FOR.items():
        if getattr(chosen, name) is not None and kind not in kinds:
            option = f"--{name.replace('_', '-')}"
            chosen.parser.error(f"argument {option}: is for {' and '.join(kinds)} only, got it with {chosen.data!r}")
    if kind == "FILE.csv" and chosen.target is None:
        _refuse_without_target(chosen)
    if kind == "FILE.csv":
        chosen.effort = _effort(chosen)
    if chosen.unknown is not None and chosen.test is None:
        chosen.parser.error("argument --unknown: is for --test only")
    for name in ("repeat", "checkpoint", "resume", "test_size"):
        if chosen.folds is not None and getattr(chosen, name) not in (None, 1):
            chosen.parser.error(
                f"argument --folds: not allowed with argument --{name.replace('_', '-')}, which is for a single "
                f"division into rows to train on and to test"
            )
    if chosen.test is not None and chosen.test_size is not None:
        chosen.parser.error("argument --test-size: not allowed with argument --test")
    if chosen.test is not None and os.path.exists(chosen.test) and os.path.samefile(chosen.test, chosen.data):
        chosen.parser.error(
            f"argument --test: must be other data than {chosen.data!r}, which the model is trained on, "
            f"got {chosen.test!r}"
        )


def _effort(chosen: argparse.Namespace) -> str | None:
    """Return how much is tried for a table; None where options describe one network."""
    of_network = [name for name in NETWORK_OPTIONS if getattr(chosen, name) is not None]
    if of_network and chosen.effort is not None:
        option = of_network[0].replace("_", "-")
        chosen.parser.error(f"argument --effort: not allowed with argument --{option}, which is for one network")
    if tasks.is_large(chosen):
        _refuse_for_large_files(chosen)
        return None
    return None if of_network else chosen.effort or "default"


def _refuse_for_large_files(chosen: argparse.Namespace) -> None:
    """Refuse options that need all rows of a table in memory."""
    for name in ("effort", "folds", "patience"):
        if getattr(chosen, name) is not None:
            chosen.parser.error(
                f"argument --{name}: is not for a file that is read block by block because it is larger than --memory "
                f"allows"
            )


def _refuse_without_target(chosen: argparse.Namespace) -> None:
    """Say which columns there are to predict, and at once what else is in the way."""
    with chosen.parser.refusing():
        text, drop = flat(chosen.text), flat(chosen.drop)
        if tasks.is_large(chosen):
            names = names_of_file("load_csv", chosen.data, chosen.header, chosen.encoding)
            chosen.parser.error(
                f"argument --target: must name the column to predict. {chosen.data!r} has {listed(names)}."
            )
        sheet: Any = tasks.read("load_csv", chosen)
        names = sheet.names
        as_text, dropped = columns("text", text, names), columns("drop", drop, names)
        problems = nnx.data.tables.problems_without_target(sheet, chosen.header, as_text, dropped, chosen.decimal)
    left = {names[each] if isinstance(each, int) else each for each in dropped}
    left |= {each.column for each in problems.found}
    usable = [name for name in names if name not in left] or names
    message = f"argument --target: must name the column to predict. {chosen.data!r} has {listed(names)}."
    if problems.found:
        message += f"\n{problems.told()}{'' if len(problems.found) > 1 else chr(10)}"
    command = (*chosen.command, "--target", usable[-1])
    advice = way_out(command, problems.found).strip() or f"Try: {shlex.join(('nnx', *command))}"
    chosen.parser.exit(2, f"{chosen.parser.prog}: {message}{'' if problems.found else ' '}{advice}\n")


def _announcement(job: jobs.Job, n_folds: int | None) -> list[str]:
    """Return what is going to be done."""
    task, table = job.task, job.task.table
    if isinstance(table, nnx.Images):
        first = images.announcement(table, task.source, len(task.X), len(task.X_test))
        return [first, *task.remarks, job.described()]
    target = f"{table.n_outputs} classes" if table.classes else "a number"
    parts = f"{count(task.n_rows, 'sample')} to train on, {len(task.X_test):,} to test"
    if n_folds:
        parts = f"{count(len(task.X), 'sample')} in {n_folds} folds"
    lines = [f"{task.source}: {parts}; the target {shown(table.target.name)} is {target}."]
    if not table.header:
        lines.append("The first row is data, so columns are numbered. If it holds names, add --header.")
    lines += task.remarks
    return [*lines, job.described()]


def _draw(model: Any, task: tasks.Task, path: str, importance: Importance | None) -> None:
    X, y = task.held_out or (task.X, task.y)
    part = "test" if task.held_out else "training"
    if pictures.draw(model, X, y, task.picture, f"{task.source}: {part} data", path, importance):
        print(f"Picture saved to {os.path.abspath(path)}")
    else:
        print(pictures.HINT)
