"""The examples and the README's commands and code, run as a reader runs them."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_backend

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGE = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")


def run(script, cwd, *arguments):
    # Deprecations are let through: matplotlib has its own, with some versions of its dependencies.
    warnings = ("-W", "error", "-W", "ignore::DeprecationWarning")
    return subprocess.run(
        [sys.executable, *warnings, str(script), *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def data_home(request):
    """Skip examples that need data which would have to be downloaded."""
    home = os.environ.get("NNX_DATA_HOME")
    if home is None or not Path(home, "fashion-mnist").exists():
        reason = "there is no fashion-mnist in NNX_DATA_HOME"
        (pytest.fail if request.config.getoption("--require-data") else pytest.skip)(reason)


@pytest.mark.few  # each is a process of a second; make check also runs them with more epochs
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_draws_the_picture_that_the_page_shows(example, tmp_path, request):
    if "load_fashion_mnist" in example.read_text(encoding="utf-8"):
        request.getfixturevalue("data_home")
    for name in re.findall(
        r"^(?:from|import) (dask|mpi4py|optuna|sklearn)\b", example.read_text(encoding="utf-8"), re.MULTILINE
    ):
        pytest.importorskip(name)
    if "mpi4py" in example.read_text(encoding="utf-8"):
        try:
            from mpi4py import MPI  # noqa: F401
        except RuntimeError:
            pytest.skip("there is no MPI")
    done = run(example, tmp_path, "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout
    drawn = [path.name for path in tmp_path.glob("*.png")]
    assert drawn == ([f"{example.stem}.png"] if "savefig" in example.read_text(encoding="utf-8") else [])
    for name in drawn:
        assert f"](pictures/{name})" in PAGE
        assert (ROOT / "examples" / "pictures" / name).read_bytes().startswith(b"\x89PNG")
    assert f"({example.name})" in PAGE


def test_the_pictures_are_small_and_no_others_are_kept():
    pictures = sorted((ROOT / "examples" / "pictures").iterdir())
    assert [path.stem for path in pictures] == [
        path.stem for path in EXAMPLES if "savefig" in path.read_text(encoding="utf-8")
    ]
    assert all(path.stat().st_size < 100_000 for path in pictures)


def test_the_invented_rents_are_what_their_script_writes(tmp_path):
    rents = (ROOT / "examples" / "rents.csv").read_bytes()
    script = tmp_path / "tools" / "make_rents.py"
    script.parent.mkdir()
    (tmp_path / "examples").mkdir()
    script.write_bytes((ROOT / "tools" / "make_rents.py").read_bytes())
    assert run(script, tmp_path).returncode == 0
    assert (tmp_path / "examples" / "rents.csv").read_bytes() == rents


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
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in (
        "python -m pip install . && nnx train spiral",
        "python -m pip install '.[test]' && python -m pytest -n auto",
    ):
        assert f"\n{command}\n" in README
        assert f'\nbash -c "{command}"\n' in ci


def test_the_reference_names_every_class():
    import nnx

    names = "vocabulary.md", "beyond-the-book.md"
    pages = "".join((ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") for name in names)
    for name in nnx.__all__:
        if isinstance(getattr(nnx, name), type):
            assert f"`{name}`" in pages, name


def test_the_page_for_users_of_scikit_learn_is_true():
    pytest.importorskip("sklearn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = doctest.testfile(str(ROOT / "docs" / "guide" / "sklearn.md"), module_relative=False)
    assert done.attempted > 25
    assert done.failed == 0


def test_the_page_about_more_data_than_memory_is_true():
    done = doctest.testfile(str(ROOT / "docs" / "guide" / "streams.md"), module_relative=False)
    assert done.attempted > 10
    assert done.failed == 0


def test_the_page_about_many_models_is_true():
    done = doctest.testfile(str(ROOT / "docs" / "guide" / "many-models.md"), module_relative=False)
    assert done.attempted > 5
    assert done.failed == 0


def test_the_page_about_own_parts_is_true():
    done = doctest.testfile(str(ROOT / "docs" / "guide" / "own-parts.md"), module_relative=False)
    assert done.attempted > 15
    assert done.failed == 0


def test_the_page_about_onnx_is_true(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    done = doctest.testfile(str(ROOT / "docs" / "guide" / "onnx.md"), module_relative=False)
    assert done.attempted > 15
    assert done.failed == 0


def test_the_page_about_pytorch_is_true():
    done = doctest.testfile(str(ROOT / "docs" / "guide" / "pytorch.md"), module_relative=False)
    assert done.attempted > 8
    assert done.failed == 0
