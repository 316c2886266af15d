"""What all commands share: a parser with short error messages, converters of arguments, checks of paths."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import nnx
from nnx._base import files
from nnx._base.text import near
from nnx.data.problems import TARGET, Problem, TableError, arguments
from nnx.engine import checkpoints
from nnx.ensemble import load_any

#: Help of ``--unknown``, with the place of the words.
UNKNOWN = "for categories in {} that the training table lacks: error, or treat them as missing values (default: error)"

#: Neurons of a layer; more would be a slip of the finger, answered by an exhausted memory.
MAX_NEURONS = 16384


class Parser(argparse.ArgumentParser):
    """Answers wrong arguments, and files that are not valid, with one message and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Leave because of wrong arguments: say which, and where their help is."""
        self._leave(message, f" Try: {self.prog} --help")

    def refuse(self, message: str) -> NoReturn:
        """Leave because of what is in a file, or is not there: no help on arguments would help."""
        self._leave(message, "")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse what is none of an argument's choices; argparse's own message depends on Python's version."""
        if action.choices is not None and value not in action.choices:
            names = ", ".join(map(repr, action.choices))
            message = f"must be one of {names}, got {value!r}.{near(action.choices, value)}"
            raise argparse.ArgumentError(action, message)

    def _leave(self, message: str, advice: str) -> NoReturn:
        first = message[:1] if message[1:2].isupper() else message[:1].lower()  # names in capitals stay as they are
        end = "" if " Try: " in message or message.endswith("?") else "."  # a command to copy ends in no full stop
        self.exit(2, f"{self.prog}: {first}{message[1:].rstrip('.')}{end}{advice}\n")

    @contextmanager
    def refusing(self, command: Sequence[str] = ()) -> Iterator[None]:
        """Answer errors about files and values that were named on the command line.

        Of a table's problems, the answer ends with the ``command`` that gets round them.
        """
        try:
            yield
        except ConnectionError:  # nobody's mistake: `main` answers it
            raise
        except TableError as error:
            self.exit(2, f"{self.prog}: {error.told}{way_out(command, error.problems)}\n")
        except (ImportError, OSError, TypeError, ValueError) as error:  # an import: of an extra that is not installed
            message = sentence(error)
            (self.error if message.startswith("argument ") else self.refuse)(message)

    @contextmanager
    def refusing_model(self, path: str, advice: str = "MODEL is what nnx train saves") -> Iterator[None]:
        """Answer errors about a model's file; of a table in its place, the answer ends with ``advice``."""
        with self.refusing():
            try:
                yield
            except nnx.ModelFileError:
                if path.lower().endswith((".csv", ".tsv", ".parquet", ".feather")):
                    self.refuse(f"{path!r} is not a safetensors file, and seems to be a table. {advice}")
                raise


def sentence(error: BaseException) -> str:
    """Return what an error says, without the name of the function that says it."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename!r}: {error.strerror}"
    return re.sub(r"^[A-Za-z_.]+: ", "", str(error))


def way_out(command: Sequence[str], problems: Sequence[Problem]) -> str:
    """Return the command that gets round a table's problems, "" if none of them can be got round."""
    found = arguments(problems)
    choose_target = any(each.cure == TARGET for each in problems)
    if not found and not choose_target:
        return ""
    options: list[str] = []
    for name, value in found.items():
        options += options_of(name, value) if isinstance(value, list) else [f"--{name}", value]
    start = "" if len(problems) > 1 else " "
    if choose_target:
        return f"{start}Choose another --target{f', and add: {shlex.join(options)}' if options else '.'}"
    solved = all(each.cure in found for each in problems)
    return f"{start}{'Try' if solved else 'With the rest corrected, try'}: {shlex.join(['nnx', *command, *options])}"


def options_of(name: str, columns: Sequence[str]) -> list[str]:
    """Return the option that names columns: in one list, but for names with a comma, which stand alone."""
    plain = ",".join(column for column in columns if "," not in column)
    found = []
    for value in [plain] * bool(plain) + [column for column in columns if "," in column]:
        found += [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]
    return found


# Columns

WHOLE = re.compile(r"-?\d+")


def add_columns(option: Any, name: str, text: str) -> None:
    """Add an option that takes columns: with commas or blanks between them, or given again and again."""
    option(name, action="append", nargs="+", metavar="NAME", help=f"{text}: names or numbers, such as a,b,c")


def swallowed(lists: Sequence[list[list[str]] | None], n: int, known: Collection[str] = ()) -> list[str]:
    """Return what stood behind a list of columns, as in ``--drop a b FILE.csv``, and take it out of the list.

    That is ``n`` names of files, or others that are ``known``.
    """
    for given in lists:
        for names in given or ():
            if len(names) > n and all(name in known or os.path.isfile(name) for name in names[-n:]):
                found = names[-n:]
                del names[-n:]
                return found
    return []


def flat(given: Sequence[Sequence[str]] | None) -> list[str]:
    """Return what was given for an option of `add_columns`."""
    return [each for several in given or () for each in several]


def columns(option: str, given: Sequence[str], names: Sequence[str]) -> list[str | int]:
    """Return the columns that are meant; a whole value that is a name comes before a list of names."""
    found: list[str | int] = []
    known = set(names)
    for value in given:
        for part in [value] if value in known else (part.strip() for part in value.split(",")):
            words = part.split()
            several = part not in known and all(word in known or WHOLE.fullmatch(word) for word in words)
            found += [each if each in known else column(option, each, names) for each in (words if several else [part])]
    return found


def column(option: str, given: str, names: Sequence[str]) -> str | int:
    """Return a column's name, or its position as Python counts; on the command line, the first is 1 and the last -1.

    The file's ``names`` need be known only if a number is ``given``, which may be a name too.
    """
    if not WHOLE.fullmatch(given) or given in names:
        return given
    position = int(given)
    if not 1 <= abs(position) <= len(names):
        raise ValueError(
            f"argument --{option}: must be a column's name or its number from 1 to {len(names)}, or from -1 to "
            f"-{len(names)} as counted from the last, got {given!r}."
        )
    return position - 1 if position > 0 else position


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
            files.writable(f"argument {option}", path)
            for read in inputs:
                if os.path.exists(path) and os.path.exists(read) and os.path.samefile(path, read):
                    parser.error(f"argument {option}: must not replace {read!r}, which is read, got {path!r}")


def standard_output() -> Any:
    """Return where answers go; an OSError says that the shell has closed it."""
    if sys.stdout is None:
        raise OSError("standard output is closed.")
    return sys.stdout


def standard_input() -> Any:
    """Return where data come from; an OSError says that the shell has closed it."""
    if sys.stdin is None:
        raise OSError("standard input is closed.")
    return getattr(sys.stdin, "buffer", sys.stdin)


def load_with_preprocessor(parser: Parser, path: str) -> tuple[nnx.Model | nnx.Ensemble, nnx.Table | nnx.Images]:
    """Return the model of a file, which must know how raw files become its inputs."""
    with parser.refusing_model(path, "MODEL comes before DATA"):
        model = load_any(path)
    if model.preprocessor is None:
        parser.refuse(
            f"argument MODEL: must hold the columns of a table, or the size of images, and {path!r} holds neither"
        )
    return model, model.preprocessor
