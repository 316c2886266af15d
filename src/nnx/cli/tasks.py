"""What ``nnx train`` can be asked for: data sets, and the settings that suit each."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import nnx
import nnx.tabular
from nnx import plot
from nnx._base import memory
from nnx._base.text import near
from nnx.cli.arguments import column, columns, flat, options_of
from nnx.cli.images import notes
from nnx.cli.pictures import Draw
from nnx.data import large_files
from nnx.data.columns import Column, Date, Number, Text
from nnx.data.notation import PLAIN
from nnx.data.sheet import Sheet, count, listed, shown
from nnx.data.table_files import is_binary, read_sheet
from nnx.engine.classes import held_out_rows
from nnx.engine.job import Split

if TYPE_CHECKING:
    from nnx import Images, Table
    from nnx._base.typing import Array

#: The activation of the last layer says what kind of task it is.
SOFTMAX, SIGMOID, LINEAR = "softmax", "sigmoid", "linear"


@dataclass(frozen=True)
class Settings:
    """How to train; the command line may replace each of them."""

    layers: tuple[int, ...] = (64, 64)
    epochs: int = 20
    batch: int = 64
    optimizer: str = "adam"
    rate: float = 0.003
    decay: float = 1e-3
    l2: float = 0.0
    dropout: float = 0.0
    precision: str | None = None
    activation: str = "relu"
    loss: str | None = None
    schedule: str | None = None
    patience: int | None = None


@dataclass(frozen=True)
class Task:
    """Data to train and to judge a model on, and what to do with it."""

    source: str
    X: Array
    y: Array
    X_test: Array
    y_test: Array
    table: Table | Images
    output: str
    settings: Settings
    picture: Draw
    remarks: tuple[str, ...] = ()
    #: Rows that are neither trained on nor tested on, but tell when to stop.
    validation: tuple[Array, Array] | None = None
    #: All rows to train on, where they are too many for memory: X and y are some of them then.
    blocks: Any = None

    @property
    def n_rows(self) -> int:
        """How many rows there are to train on."""
        return len(self.X) if self.blocks is None else int(self.blocks.n_rows)

    @property
    def training_data(self) -> tuple[Any, Any]:
        """What `Model.train` gets."""
        return (self.X, self.y) if self.blocks is None else (self.blocks, None)

    @property
    def held_out(self) -> tuple[Array, Array] | None:
        """The test part, if there is one."""
        return (self.X_test, self.y_test) if len(self.X_test) else None


#: The part of the rows to train on that is held out to tell when to stop.
VALIDATION_PART = 0.1


def load(chosen: argparse.Namespace) -> Task:
    """Return the task that the command line asks for."""
    return TASKS.get(chosen.data, _image_folder if os.path.isdir(chosen.data) else _table)(chosen)


def hold_out(task: Task, seed: int) -> Task:
    """Hold some of the rows, as `Model.train` draws them, out of training; those of the test part choose nothing."""
    n = len(task.X)
    if n < 2:
        raise ValueError(f"argument --patience: must leave rows to train on, and there is {count(n, 'row')}")
    classes = None if task.output == LINEAR else np.reshape(task.y, n)
    held_out = held_out_rows(Split(max(VALIDATION_PART, 1 / n), seed), classes, n)
    remark = f"Held out of training: {count(int(held_out.sum()), 'sample')}. Their loss decides when to stop."
    return replace(
        task,
        X=task.X[~held_out],
        y=task.y[~held_out],
        validation=(task.X[held_out], task.y[held_out]),
        remarks=(*task.remarks, remark),
    )


def no_data(name: str) -> str:
    """Return what is said of data that are not there."""
    known = ", ".join(TASKS)
    return f"argument DATA: must be {known}, a table's file or a folder, and there is no {name!r}.{near(TASKS, name)}"


# The book's data sets

SPIRAL = Settings(epochs=150, batch=100, rate=0.02)


def _spiral(chosen: argparse.Namespace) -> Task:
    return _arms("spiral", chosen, 3, SOFTMAX, SPIRAL)


def _binary(chosen: argparse.Namespace) -> Task:
    return _arms("binary", chosen, 2, SIGMOID, replace(SPIRAL, l2=1e-5))


def _arms(source: str, chosen: argparse.Namespace, n_arms: int, output: str, settings: Settings) -> Task:
    X, y = nnx.spiral_data(chosen.samples or 1000, n_arms)
    held_out = nnx.spiral_data(max(1, (chosen.samples or 1000) // 5), n_arms)
    classes = tuple(f"arm {number}" for number in range(1, n_arms + 1))
    columns: list[Column] = [Number("x"), Number("y"), Text("arm", classes)]
    return Task(source, X, y, *held_out, nnx.Table(columns, "arm"), output, settings, plot.decision_regions)


def _sine(chosen: argparse.Namespace) -> Task:
    X, y = nnx.sine_data(chosen.samples or 1000)
    X_test = X[:-1] + np.diff(X, axis=0) / 2  # between the points that it is trained on
    table = nnx.Table([Number("x"), Number("sine")], "sine")
    settings = Settings(epochs=300, batch=50, rate=0.005)
    return Task("sine", X, y, X_test, np.sin(2 * np.pi * X_test), table, LINEAR, settings, plot.fitted_curve)


# Images

#: Small sets of images are gone through more often, in small batches, until there have been this many steps.
STEPS_OF_SMALL_FOLDERS, SMALL_FOLDER, MAX_EPOCHS = 500, 2000, 60


def _fashion_mnist(chosen: argparse.Namespace) -> Task:
    X, y, X_test, y_test = nnx.load_fashion_mnist(chosen.folder, download=bool(chosen.download))
    images = nnx.Images(X.shape[1], X.shape[2], nnx.FASHION_MNIST_CLASSES)
    settings = Settings(layers=(128, 128), epochs=10, batch=128, rate=0.001)
    inputs = (images.inputs(X), y, images.inputs(X_test), y_test)
    return Task("fashion-mnist", *inputs, images, SOFTMAX, settings, plot.confusion_matrix)


def _image_folder(chosen: argparse.Namespace) -> Task:
    with notes():
        X, y, X_test, y_test, images = nnx.load_images(
            chosen.data,
            test_size=0 if chosen.test is not None else chosen.test_size,
            seed=chosen.split_seed or 0,
            size=chosen.size,
            colour=False if chosen.grey else None,
        )
        if chosen.test is not None:
            X_test, y_test = images.read_samples(chosen.test)
    is_small = len(X) < SMALL_FOLDER
    batch = chosen.batch or (32 if is_small else 128)
    epochs = min(MAX_EPOCHS, max(10, -(-STEPS_OF_SMALL_FOLDERS // -(-len(X) // batch))))
    settings = Settings(layers=(128, 128), epochs=epochs, batch=batch, rate=0.001, l2=1e-3 if is_small else 1e-4)
    source = os.path.basename(os.path.abspath(chosen.data)).encode(errors="replace").decode()
    return Task(source, X, y, X_test, y_test, images, SOFTMAX, settings, plot.confusion_matrix)


# Tables

#: A small table is gone through more often, until there have been this many steps.
STEPS_OF_SMALL_TABLES = 2000


def _table(chosen: argparse.Namespace) -> Task:
    if is_large(chosen):
        return _large_table(chosen)
    sheet: Any = read("load_csv", chosen)
    X, y, X_test, y_test, table = nnx.load_csv(
        sheet,
        test_size=0 if chosen.test is not None else 0.2 if chosen.test_size is None else chosen.test_size,
        seed=chosen.split_seed or 0,
        **_columns(chosen, sheet.names),
    )
    return _table_task(chosen, X, y, X_test, y_test, table)


#: The part of memory that reading a table may take, and how much it takes at most, in sizes of the file.
MEMORY, TAKEN = 0.5, 3


def is_large(chosen: argparse.Namespace) -> bool:
    """Return whether a table's file is to be read block by block, as reading it at once would take too much memory."""
    if chosen.data in TASKS or not os.path.isfile(chosen.data) or is_binary(chosen.data):
        return False
    return os.path.getsize(chosen.data) * TAKEN > _limit(chosen)


def _limit(chosen: argparse.Namespace) -> float:
    return float((chosen.memory or MEMORY) * memory.allowed())


def _large_table(chosen: argparse.Namespace) -> Task:
    """Return the task of a table of which only some rows are in memory."""
    test_size = 0.0 if chosen.test is not None else 0.2 if chosen.test_size is None else chosen.test_size
    file = large_files.LargeFile("load_csv", chosen.data, chosen.header, chosen.encoding, int(_limit(chosen)))
    table = file.learn(_columns(chosen, file.names), test_size, chosen.split_seed or 0)
    rows = file.encode(table)
    task = _table_task(chosen, rows.X, rows.y, rows.X_test, rows.y_test, table, n_rows=rows.blocks.n_rows)
    size = os.path.getsize(chosen.data) / 1e6
    remarks = (
        f"The file has {size:,.1f} MB. Reading it at once needs more than --memory allows, so it is read block by "
        f"block. What the columns are is seen from {count(file.n_learnt, 'row')}, training scores are of "
        f"{len(rows.X):,} rows, and a temporary file of {rows.n_bytes / 1e6:,.1f} MB holds all rows.",
        *task.remarks,
    )
    return replace(task, remarks=remarks, blocks=rows.blocks)


#: A file of so many bytes is read with a bar: a smaller one takes less than half a second.
LARGE_FILE = 5_000_000


def read(where: str, chosen: argparse.Namespace) -> Sheet:
    """Return the cells of the table that the command line names."""
    is_large = os.path.isfile(chosen.data) and os.path.getsize(chosen.data) >= LARGE_FILE
    return read_sheet(where, chosen.data, chosen.header, chosen.encoding, progress=is_large)


def _columns(chosen: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Return what the command line says of a table's columns, as arguments of `load_csv` and `Table.learn`.

    Networks of the recipe get columns as it wants them.
    """
    prepared = {} if chosen.effort is None else nnx.tabular.PREPARATION
    return {
        **prepared,
        "target": column("target", chosen.target, names),
        "task": chosen.task,
        "text": columns("text", flat(chosen.text), names),
        "drop": columns("drop", flat(chosen.drop), names),
        "gaps": chosen.gaps or "fill",
        "decimal": chosen.decimal,
    }


def _table_task(
    chosen: argparse.Namespace,
    X: Array,
    y: Array,
    X_test: Array,
    y_test: Array,
    table: Table,
    named: bool = True,
    n_rows: int | None = None,
) -> Task:
    """Return the task of a table's samples; with ``--test``, if it is ``named``, that file's are the test part."""
    remarks = _remarks(table)
    if chosen.test is not None and named:
        sheet = read_sheet("load_csv", chosen.test, table.header, chosen.encoding)
        X_test, y_test = table.read_samples(sheet, unknown=chosen.unknown or "error")
        remarks += reading_remarks(sheet, table, f" of {os.path.basename(chosen.test)}")
    batch = chosen.batch or Settings.batch
    epochs = max(Settings.epochs, -(-STEPS_OF_SMALL_TABLES // -(-(n_rows or len(X)) // batch)))
    classified = table.classes is not None
    return Task(
        os.path.basename(chosen.data).encode(errors="replace").decode(),
        *(X, y, X_test, y_test, table),
        SOFTMAX if classified else LINEAR,
        Settings(epochs=epochs, l2=1e-4),
        plot.confusion_matrix if classified else plot.predictions,
        tuple(remarks),
    )


def cross_validation(chosen: argparse.Namespace) -> tuple[Task, Iterator[Task]]:
    """Return the task of all rows of a table, and those of the folds: each with the rows of one of them for testing.

    What is learnt of the columns for a fold, such as means, is learnt from the other folds' rows.
    """
    sheet = read("Table.learn", chosen)
    arguments = _columns(chosen, sheet.names)
    table = nnx.Table.learn(sheet, **arguments)  # which leaves out rows without a target
    X, y = table.read_samples(sheet)
    if len(X) < chosen.folds:
        raise ValueError(f"argument --folds: must be at most {len(X):,}, the number of rows, got {chosen.folds}")
    fold_of = fold_of_rows(None if table.classes is None else y, len(X), chosen.folds, chosen.split_seed or 0)

    def folds() -> Iterator[Task]:
        for fold in range(chosen.folds):
            train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            own = nnx.Table.learn(sheet, training_rows=train, **arguments)
            X, y = own.read_samples(sheet)
            yield _table_task(chosen, X[train], y[train], X[test], y[test], own, named=False)

    order = np.random.RandomState(chosen.split_seed or 0).permutation(len(X))
    return _table_task(chosen, X[order], y[order], X[:0], y[:0], table), folds()


def fold_of_rows(classes: Array | None, n_rows: int, n_folds: int, seed: int) -> Array:
    """Return the number of the fold that each row is in, intp (n_rows,).

    Folds are of one size, within one row, and each has the same number of rows of each class, within one.
    """
    order = np.random.RandomState(seed).permutation(n_rows)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    found = np.empty(n_rows, np.intp)
    found[order] = np.arange(n_rows) % n_folds
    return found


def _remarks(table: Table) -> list[str]:
    """Return what a reader should know of how a table was read."""
    remarks = []
    if table.n_left_out:
        remarks.append(f"Left out: {count(table.n_left_out, 'row')} without a value in {shown(table.target.name)}.")
    gaps = [f"{each.gaps:,} in {shown(each.name)}" for each in table.inputs if each.gaps]
    if gaps:
        remarks.append(f"Missing values filled: {', '.join(gaps)}.")
    columns = [each for each in (*table.inputs, table.target) if isinstance(each, Number) and each.notation != PLAIN]
    if columns:
        written = listed([f"{shown(each.name)} (such as {each.notation.example()})" for each in columns])
        remarks.append(f"Read as numbers: {written}.")
    dates = [each for each in table.inputs if isinstance(each, Date)]
    if dates:
        remarks.append(f"Read as dates: {listed([f'{shown(each.name)} (such as {each.example})' for each in dates])}.")
    if table.row_numbers:
        names = listed([shown(name) for name in table.row_numbers])
        seems, it = ("seems", "it") if len(table.row_numbers) == 1 else ("seem", "them")
        drop = shlex.join(options_of("drop", table.row_numbers))
        remarks.append(f"{names} {seems} to number the rows. If so, drop {it}: {drop}")
    return remarks


def reading_remarks(sheet: Sheet, table: Table, of: str = "") -> list[str]:
    """Return what a reader should know of how a table was read that was not learnt from."""
    remarks = []
    if sheet.n_left_out:
        left_out = count(sheet.n_left_out, "row")
        remarks.append(f"Left out{of}: {left_out} without a value in {shown(table.target.name)}.")
    if sheet.n_unknown:
        remarks.append(f"Taken for missing values{of}: {count(sheet.n_unknown, 'unknown text')}.")
    return remarks


TASKS = {"spiral": _spiral, "binary": _binary, "sine": _sine, "fashion-mnist": _fashion_mnist}
