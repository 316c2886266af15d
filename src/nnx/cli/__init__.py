"""The command ``nnx``: train, predict, evaluate and info.

Exit codes: 0 done; 1 the file system or the environment refused; 2 wrong arguments; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import nnx
from nnx.cli import info, predict, train
from nnx.cli.arguments import Parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.run is None:
        parser.print_help()
        return 0
    try:
        code: int = chosen.run(chosen)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has left; nothing more can be said on stdout, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


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
    for command in (train, predict, info):
        command.add(commands)
    return parser
