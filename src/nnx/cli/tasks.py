"""What ``nnx train`` can be asked for: data sets, and the settings that suit each."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

import nnx
from nnx import plot
from nnx.cli.pictures import Draw
from nnx.columns import Column, Number, Text

if TYPE_CHECKING:
    from nnx import Table
    from nnx._typing import Array

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


@dataclass(frozen=True)
class Task:
    """Data to train and to judge a model on, and what to do with it."""

    source: str
    X: Array
    y: Array
    X_test: Array
    y_test: Array
    table: Table
    output: str
    settings: Settings
    picture: Draw

    @property
    def held_out(self) -> tuple[Array, Array] | None:
        """The test part, if there is one."""
        return (self.X_test, self.y_test) if len(self.X_test) else None


def load(chosen: argparse.Namespace) -> Task:
    """Return the task that the command line asks for."""
    return TASKS.get(chosen.data, _table)(chosen)


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


def _fashion_mnist(chosen: argparse.Namespace) -> Task:
    X, y, X_test, y_test = nnx.load_fashion_mnist(chosen.folder, download=bool(chosen.download))
    pixels: list[Column] = [Number(f"pixel{number}", 127.5, 127.5) for number in range(1, X[0].size + 1)]
    table = nnx.Table([Text("label", nnx.FASHION_MNIST_CLASSES), *pixels], "label")
    X, X_test = ((part.reshape(len(part), -1).astype(np.float32) - 127.5) / 127.5 for part in (X, X_test))
    settings = Settings(layers=(128, 128), epochs=10, batch=128, rate=0.001)
    return Task("fashion-mnist", X, y, X_test, y_test, table, SOFTMAX, settings, plot.confusion_matrix)


# Tables

#: A small table is gone through more often, until there have been this many steps.
STEPS_OF_SMALL_TABLES = 2000
WHOLE = re.compile(r"-?\d+")


def _table(chosen: argparse.Namespace) -> Task:
    text, drop = chosen.text or [], chosen.drop or []
    by_number = any(map(WHOLE.fullmatch, [chosen.target, *text, *drop]))
    names = nnx.tables.column_names(chosen.data, chosen.header) if by_number else []
    X, y, X_test, y_test, table = nnx.load_csv(
        chosen.data,
        _column("target", chosen.target, names),
        test_size=0 if chosen.test is not None else 0.2 if chosen.test_size is None else chosen.test_size,
        seed=chosen.split_seed or 0,
        header=chosen.header,
        task=chosen.task,
        text=[_column("text", each, names) for each in text],
        drop=[_column("drop", each, names) for each in drop],
        gaps=chosen.gaps or "fill",
    )
    if chosen.test is not None:
        X_test, y_test = table.read_samples(chosen.test)
    batch = chosen.batch or Settings.batch
    epochs = max(Settings.epochs, -(-STEPS_OF_SMALL_TABLES // -(-len(X) // batch)))
    classified = table.classes is not None
    return Task(
        os.path.basename(chosen.data).encode(errors="replace").decode(),
        *(X, y, X_test, y_test, table),
        SOFTMAX if classified else LINEAR,
        Settings(epochs=epochs, l2=1e-4),
        plot.confusion_matrix if classified else plot.predictions,
    )


def _column(option: str, given: str, names: list[str]) -> str | int:
    """Return a column's name, or its position as Python counts; on the command line, the first is 1 and the last -1.

    The file's ``names`` need be known only if a number is ``given``, which may be a name too.
    """
    if given in names or not WHOLE.fullmatch(given):
        return given
    position = int(given)
    if not 1 <= abs(position) <= len(names):
        raise ValueError(
            f"argument --{option}: must be a column's name or its number from 1 to {len(names)}, or from -1 to "
            f"-{len(names)} as counted from the last, got {given!r}."
        )
    return position - 1 if position > 0 else position


TASKS = {"spiral": _spiral, "binary": _binary, "sine": _sine, "fashion-mnist": _fashion_mnist}
