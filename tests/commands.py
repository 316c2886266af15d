"""The command `nnx` within a test's own process, without the start of Python and nnx."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from nnx.cli import main


def nnx(*arguments: str | Path, cwd: Path | None = None) -> SimpleNamespace:
    """Return what the command prints and its exit code, as `subprocess.run` does."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before = os.getcwd()
    os.chdir(cwd or before)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch("sys.argv", ["nnx"]):
            code = main([os.fspath(each) for each in arguments])
    except SystemExit as left:
        code = left.code
    finally:
        os.chdir(before)
    printed = [stream.buffer.getvalue().decode().replace("\r\n", "\n") for stream in (out, err)]
    return SimpleNamespace(returncode=code, stdout=printed[0], stderr=printed[1])
