"""``nnx export``: a model in the format of another program."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import nnx
from nnx.cli.arguments import Parser, check_outputs
from nnx.ensemble import load_any
from nnx.files.model_files import PREDICTOR, opened


class Format(NamedTuple):
    """What a file of some suffix holds.

    Attributes
    ----------
    what : str
        For people.
    method : str
        Which method of the model writes it, given the path and the options by name.
    options : tuple of str
        Options of the command that this method takes: their ``dest``, which is the method's keyword too. An option that
        is not given is None and not handed on.
    """

    what: str
    method: str
    options: tuple[str, ...] = ()


#: The formats by the suffix of the file that is to be written.
FORMATS = {
    ".onnx": Format("ONNX", "export_onnx"),
    ".c": Format("C source", "export_c", ("int8", "name")),
    ".safetensors": Format("a PyTorch state dict", "export_torch"),
}


def add(commands: Any) -> None:
    """Add the command to the parser."""
    suffixes = ", ".join(f"{suffix} for {each.what}" for suffix, each in FORMATS.items())
    parser: Parser = commands.add_parser(
        "export",
        help="write a model in another format: ONNX, C, PyTorch",
        description="Write a model in another format. If it was trained on a table, the file also prepares the table's "
        f"columns where the format can. The suffix of OUT chooses the format: {suffixes}.",
        epilog="example: nnx export houses.safetensors houses.onnx",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="what nnx train saved, or a predictor's file")
    parser.add_argument("output", metavar="OUT", help="file to write")
    for add_option in OPTIONS:
        add_option(parser)
    parser.set_defaults(run=_run, parser=parser)


def _add_c_options(parser: Parser) -> None:
    """Add the options of C source."""
    group = parser.add_argument_group("C source")
    group.add_argument(
        "--int8",
        action="store_true",
        default=None,
        help="store weights in 8 bits, a quarter of the memory; answers change a little",
    )
    group.add_argument("--name", help="prefix of the names in the file (default: the name of OUT)")


#: Functions that add the options of one format to the parser, with the default None.
OPTIONS: list[Callable[[Parser], None]] = [_add_c_options]


def _run(chosen: argparse.Namespace) -> int:
    parser: Parser = chosen.parser
    suffix = os.path.splitext(chosen.output)[1].lower()
    if suffix not in FORMATS:
        parser.error(f"argument OUT: must end in one of {', '.join(FORMATS)}, got {chosen.output!r}")
    wanted = FORMATS[suffix]
    others = {name for each in FORMATS.values() for name in each.options} - set(wanted.options)
    for name in sorted(others):
        if getattr(chosen, name) is not None:
            parser.error(
                f"argument --{name.replace('_', '-')}: is not for {wanted.what}, got it with {chosen.output!r}"
            )
    check_outputs(parser, [chosen.output], [chosen.model], "OUT")
    with parser.refusing_model(chosen.model):
        model = _load(chosen.model)
    with parser.refusing():
        method = getattr(model, wanted.method, None)
        if method is None:
            parser.refuse(f"argument MODEL: {type(model).__name__} cannot be written as {wanted.what}")
        options = {name: getattr(chosen, name) for name in wanted.options if getattr(chosen, name) is not None}
        method(chosen.output, **options)
    print(f"{chosen.output}: {wanted.what}, {os.path.getsize(chosen.output):,} bytes")
    return 0


def _load(path: str) -> nnx.Model | nnx.Ensemble | nnx.Predictor:
    """Return the model, ensemble or predictor of a file."""
    if opened("nnx.export", path).kind == PREDICTOR:
        return nnx.Predictor.load(path)
    return load_any(path)
