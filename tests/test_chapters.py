"""Scripts in the style of each chapter of the book: they run on nnx as they stand, with and without ``nnfs.init()``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parent / "chapters").glob("*.py"))


@pytest.mark.parametrize("nnfs", [True, False], ids=["nnfs", "plain"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_chapters_script_runs(script, nnfs, tmp_path):
    text = script.read_text()
    assert text.count("nnfs.init()") == 1
    if not nnfs:
        text = text.replace("import nnfs\n", "").replace("nnfs.init()", "np.random.seed(0)")
    copy = tmp_path / script.name
    copy.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(copy)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
