"""``nnx info``."""

from __future__ import annotations

import argparse
from typing import Any

import nnx
from nnx import _kernels
from nnx._base import precision
from nnx.cli import measuring
from nnx.cli.arguments import Parser, standard_output
from nnx.ensemble import load_any

PACKAGES = ("numpy", "tqdm", "platformdirs")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser: Parser = commands.add_parser(
        "info",
        help="print versions and the kernels in use, or describe a model file",
        description="Print versions, and which kernels are in use and why. With MODEL, describe that file.",
        epilog="example: nnx info houses.safetensors",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("model", nargs="?", metavar="MODEL", help="what nnx train saved")
    what.add_argument(
        "--measure",
        action="store_true",
        help="measure this machine's limits: multiply-adds of a core, a cache line between cores, memory",
    )
    parser.set_defaults(run=_run, parser=parser)


def _run(chosen: argparse.Namespace) -> int:
    standard_output()
    if chosen.model is None:
        _show_versions()
        if chosen.measure:
            print("\n".join(measuring.lines()))
    else:
        with chosen.parser.refusing_model(chosen.model):
            model = load_any(chosen.model)
        _show_model(model)
    return 0


def _show_versions() -> None:
    import platform
    from importlib.metadata import version

    print(f"nnx          {nnx.__version__}")
    print(f"Python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        print(f"{package:<12} {version(package)}")
    print(f"backend      {_kernels.name}: {_kernels.reason}")
    print(f"built        {', '.join(_kernels.built)}")
    print(f"bfloat16     {precision.how_bfloat16_runs()}")


def _show_model(model: nnx.Model | nnx.Ensemble) -> None:
    model.summary()
    for name in ("loss", "optimizer", "accuracy"):
        thing = getattr(model, name)
        print(f"{name:<10} {'none' if thing is None else repr(thing)}")
    if model.preprocessor is not None:
        print(model.preprocessor)
