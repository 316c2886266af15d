"""The command ``nnx``: train, predict, evaluate, serve, info, export and bench.

Exit codes: 0 done, also if the model turns out worse than guessing (stderr says so); 1 the disk, the network or the
memory refused, the training diverged (with --repeat: one of them), or there are no sound compiled
kernels to time; 2 wrong arguments or files; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence

import nnx
from nnx._base.text import near
from nnx.cli import bench, evaluate, export, info, predict, serve, train
from nnx.cli.arguments import Parser, sentence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a Windows shell's code page may lack a letter
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stderr is None:  # print would take None for standard output
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    parser = _parser()
    command = sys.argv[1:] if arguments is None else list(arguments)
    chosen, rest = parser.parse_known_args(command)
    if rest and (any(each.startswith("-") for each in rest) or not getattr(chosen, "takes_more_data", False)):
        _refuse_unknown(getattr(chosen, "parser", parser), rest)
    if rest:  # behind options: argparse takes what may be left out from the first place where it may stand
        chosen.data += rest
    chosen.command = command  # for messages that say what to type instead
    if chosen.run is None:
        parser.print_help()
        return 0
    try:
        code: int = chosen.run(chosen)
        print(end="", flush=True)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has left; nothing more can be said on stdout, at exit neither
        _silence_stdout()
        return 1
    except OSError as error:
        print(f"{chosen.parser.prog}: {sentence(error)}", file=sys.stderr)
        _silence_stdout()  # it may be what is full
        return 1
    except MemoryError:
        print(f"{chosen.parser.prog}: there is not enough memory for this.", file=sys.stderr)
        return 1
    return code


def _refuse_unknown(parser: Parser, rest: Sequence[str]) -> None:
    """Refuse arguments that there are not, with the option that one of them is nearest to."""
    known = [name for name in parser._option_string_actions if name.startswith("--")]
    parser.error(f"unrecognized arguments: {' '.join(rest)}.{near(known, *(each.partition('=')[0] for each in rest))}")


def _silence_stdout() -> None:
    """Let what is still to be written, also by Python at exit, go nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # under test, stdout is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> Parser:
    parser = Parser(
        prog="nnx",
        description="Train and run dense neural networks on a CPU.",
        epilog="example: nnx train spiral",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"nnx {nnx.__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (train, predict, evaluate, serve, info, export, bench):
        command.add(commands)
    return parser
