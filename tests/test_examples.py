"""The examples and the README's commands and code, run as a reader runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def run(script, cwd, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", str(script), *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(example, tmp_path):
    done = run(example, tmp_path, "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert example.name in (ROOT / "examples" / "README.md").read_text()


def test_the_readmes_python_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 15
    script = tmp_path / "readme.py"
    script.write_text(code)
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^validation, acc: 0\.[89]", done.stdout, re.MULTILINE)


def test_ci_runs_the_readmes_commands():
    ci = (ROOT / ".ci" / "run").read_text()
    for command in (
        "python -m pip install . && nnx train spiral",
        "python -m pip install '.[test]' && python -m pytest",
    ):
        assert f"\n{command}\n" in README
        assert f'\nbash -c "{command}"\n' in ci


def test_the_readmes_table_names_every_class():
    import nnx

    for name in nnx.__all__:
        if isinstance(getattr(nnx, name), type):
            assert f"`{name}`" in README, name
