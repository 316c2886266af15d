"""The command ``nnx``: train and info.

Exit codes: 0 done; 1 the file system or the environment refused; 2 wrong arguments; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np

import nnx
from nnx import _files, _kernels

if TYPE_CHECKING:
    from nnx import Model
    from nnx._typing import Array


class Parser(argparse.ArgumentParser):
    """Answers wrong arguments with one sentence on stderr and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Leave with the sentence."""
        self.exit(2, f"{self.prog}: {message[:1].lower()}{message[1:].rstrip('.')}. Try: {self.prog} --help\n")


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

    train = commands.add_parser(
        "train",
        help="train a model, save it and draw what it does",
        description="Train a model on a data set, save it and, if matplotlib is installed, draw what it does.",
        epilog="example: nnx train spiral --epochs 100 --output my-spiral.safetensors",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    train.add_argument("data", nargs="?", default="spiral", metavar="DATA", help="the data set: spiral")
    train.add_argument("--samples", type=_whole(1), default=1000, metavar="N", help="training points of each class")
    train.add_argument("--epochs", type=_whole(1), default=150, metavar="N", help="how often to go through them")
    train.add_argument("--seed", type=_whole(0, 2**32 - 1), default=0, metavar="N", help="of data, weights and order")
    train.add_argument("-o", "--output", default="spiral.safetensors", metavar="FILE", help="where to save the model")
    train.set_defaults(run=_train, parser=train)

    info = commands.add_parser(
        "info",
        help="versions, and which kernels are in use",
        description="Print versions, and which kernels are in use and why.",
        epilog="example: nnx info",
        allow_abbrev=False,
    )
    info.set_defaults(run=_info)
    return parser


class _whole:
    """Converts an argument to a whole number within limits."""

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, high

    def __call__(self, text: str) -> int:
        limits = f"of at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"
        try:
            value = int(text)
        except ValueError:
            value = self.low - 1
        if value < self.low or (self.high is not None and value > self.high):
            raise argparse.ArgumentTypeError(f"must be a whole number {limits}, got {text!r}")
        return value


# nnx train


def _train(chosen: argparse.Namespace) -> int:
    if chosen.data != "spiral":
        chosen.parser.error(f"argument DATA: must be spiral, got {chosen.data!r}")
    picture = os.path.splitext(chosen.output)[0] + ".png"
    if picture == chosen.output:
        chosen.parser.error(f"argument -o/--output: must not end in .png, as the picture does, got {chosen.output!r}")
    try:
        for path in (chosen.output, picture):
            _files.writable("argument -o/--output", path)
    except OSError as refusal:
        chosen.parser.error(str(refusal))
    np.random.seed(chosen.seed)
    X, y = nnx.spiral_data(chosen.samples, 3)
    held_out = nnx.spiral_data(max(1, chosen.samples // 5), 3)
    model = _spiral_model()
    print(f"Training 2-64-64-3 on {len(X):,} points of a spiral with 3 arms, for {chosen.epochs} epochs.")
    stopped = False
    try:
        model.train(
            X, y, epochs=chosen.epochs, batch_size=100, print_every=None, progress=True, shuffle=True, seed=chosen.seed
        )
    except KeyboardInterrupt:
        stopped = True
        steps = 0 if model.history is None else len(model.history)
        print(f"Stopped after {steps:,} steps; the model so far is kept.")
    try:
        for name, data in (("training", (X, y)), ("validation", held_out)):
            figures = model.evaluate(*data, silent=True)
            print(f"{name:<10}  accuracy {figures['accuracy']:.3f}, loss {figures['loss']:.3f}")
        model.save(chosen.output)
        print(f"Model saved to {os.path.abspath(chosen.output)}")
        _draw(model, *held_out, picture)
    except OSError as error:
        print(f"nnx train: {error}", file=sys.stderr)
        return 1
    return 130 if stopped else 0


def _spiral_model() -> Model:
    model = nnx.Model()
    model.add(nnx.Layer_Dense(2, 64))
    model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dense(64, 64))
    model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dense(64, 3))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(learning_rate=0.02, decay=1e-3),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    return model


def _draw(model: Model, X: Array, y: Array, picture: str) -> None:
    """Draw the decision regions into a file, if matplotlib is there."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("For a picture of it: python -m pip install 'nnx-core[plot]'")
        return
    from nnx import plot

    plt.switch_backend("Agg")
    figure, ax = plt.subplots(figsize=(7, 5.5), layout="constrained")
    plot.decision_regions(model, X, y, ax)
    figure.suptitle("nnx train spiral: decision regions and validation points")
    figure.savefig(picture, dpi=120)
    plt.close(figure)
    print(f"Picture saved to {os.path.abspath(picture)}")


# nnx info


def _info(chosen: argparse.Namespace) -> int:
    import platform
    from importlib.metadata import version

    print(f"nnx          {nnx.__version__}")
    print(f"Python       {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("numpy", "safetensors", "tqdm"):
        print(f"{package:<12} {version(package)}")
    print(f"backend      {_kernels.name}: {_kernels.reason}")
    print(f"built        {', '.join(_kernels.built)}")
    return 0
