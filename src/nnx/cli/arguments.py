"""What all commands share: a parser that answers in one sentence, converters of arguments, checks of paths."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import nnx
from nnx import _files, checkpoints

#: Neurons of a layer; more would be a slip of the finger, answered by an exhausted memory.
MAX_NEURONS = 16384


class Parser(argparse.ArgumentParser):
    """Answers wrong arguments with one sentence on stderr and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Leave with the sentence."""
        first = message[:1] if message[1:2].isupper() else message[:1].lower()  # names in capitals stay as they are
        self.exit(2, f"{self.prog}: {first}{message[1:].rstrip('.')}. Try: {self.prog} --help\n")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Answer errors about files and values that were named on the command line as wrong arguments."""
        try:
            yield
        except ConnectionError:  # nobody's mistake: `main` answers it
            raise
        except (OSError, TypeError, ValueError) as error:
            self.error(sentence(error))


def sentence(error: BaseException) -> str:
    """Return what an error says, without the name of the function that says it."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename!r}: {error.strerror}"
    return re.sub(r"^[A-Za-z_.]+: ", "", str(error))


# Converters


class Whole:
    """Converts an argument to a whole number within limits."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, high

    def __call__(self, text: str) -> int:
        """Return the number, or refuse the text."""
        limits = f"of at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"
        try:
            value = int(text)
        except ValueError:
            value = self.low - 1
        if value < self.low or (self.high is not None and value > self.high):
            raise argparse.ArgumentTypeError(f"must be a whole number {limits}, got {text!r}")
        return value


class Number:
    """Converts an argument to a finite number of at least, or above, ``low`` and below ``high``."""

    def __init__(self, low: float, high: float = math.inf, *, above: bool = False) -> None:
        self.low, self.high, self.above = low, high, above

    def __call__(self, text: str) -> float:
        """Return the number, or refuse the text."""
        limits = f"above {self.low:g}" if self.above else f"of at least {self.low:g}"
        limits += "" if math.isinf(self.high) else f" and below {self.high:g}"
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not self.low <= value < self.high or (self.above and value == self.low):
            raise argparse.ArgumentTypeError(f"must be a number {limits}, got {text!r}")
        return value


def layers(text: str) -> tuple[int, ...]:
    """Convert "64,64" to the numbers of neurons of the hidden layers, "none" to none of them."""
    if text == "none":
        return ()
    try:
        return tuple(Whole(1, MAX_NEURONS)(part) for part in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers from 1 to {MAX_NEURONS} with commas between them, such as 64,64, or none, "
            f"got {text!r}"
        ) from None


def interval(text: str) -> int | str:
    """Convert how often a checkpoint is written: epochs, as a number, or seconds, as text like "30s"."""
    every: int | str = int(text) if text.isdecimal() else text
    try:
        checkpoints.interval("", every)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of epochs, or seconds such as 30s, got {text!r}") from None
    return every


# Files


def check_outputs(parser: Parser, paths: Sequence[str], inputs: Sequence[str], option: str = "-o/--output") -> None:
    """Refuse places that cannot be written to, and outputs that would replace an input."""
    with parser.refusing():
        for path in paths:
            _files.writable(f"argument {option}", path)
            for read in inputs:
                if os.path.exists(path) and os.path.exists(read) and os.path.samefile(path, read):
                    parser.error(f"argument {option}: must not replace {read!r}, which is read, got {path!r}")


def load_with_table(parser: Parser, path: str) -> tuple[nnx.Model, nnx.Table]:
    """Return the model of a file, which must know the columns of a table."""
    with parser.refusing():
        model = nnx.Model.load(path)
    if model.table is None:
        parser.error(f"argument MODEL: must know the columns of a table, and {path!r} was saved without one")
    return model, model.table
