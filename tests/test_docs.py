"""The site's pages: the reference names everything that is public, and every page is in a table of contents."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import nnx

pytestmark = pytest.mark.one_backend

DOCS = Path(__file__).parents[1] / "docs"
MODULES = ("nnx", "nnx.plot", "nnx.sklearn", "nnx.tabular", "nnx.serve")


def referenced() -> list[str]:
    """Return the full names that the reference's pages list."""
    found = []
    for page in sorted((DOCS / "reference" / "api").glob("*.rst")):
        module = ""
        for line in page.read_text(encoding="utf-8").splitlines():
            chosen = re.fullmatch(r"\.\. currentmodule:: (\S+)", line)
            module = chosen[1] if chosen else module
            named = re.fullmatch(r"   ([A-Za-z_][\w.]*)", line)
            if named:
                found.append(f"{module}.{named[1]}")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference_once(name):
    if name in ("nnx.sklearn", "nnx.serve"):
        pytest.importorskip({"nnx.sklearn": "sklearn", "nnx.serve": "starlette"}[name])
        if name == "nnx.serve":
            pytest.importorskip("uvicorn")
    public = {f"{name}.{each}" for each in importlib.import_module(name).__all__} - {"nnx.__version__", "nnx.plot"}
    listed = [each for each in referenced() if each.rpartition(".")[0] == name]
    assert set(listed) == public
    assert len(listed) == len(public)


def test_every_name_in_the_reference_has_a_docstring():
    for name in referenced():
        module, _, last = name.rpartition(".")
        if module.startswith(("nnx.sklearn", "nnx.serve")):
            continue  # their extras may not be installed
        thing = getattr(importlib.import_module(module), last)
        assert not callable(thing) or (thing.__doc__ or "").strip(), name


def test_every_page_of_the_reference_is_in_its_table_of_contents():
    index = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "reference" / "api").glob("*.rst"):
        assert f"\napi/{page.stem}\n" in index


def test_the_first_page_s_lines_run_and_learn(tmp_path, monkeypatch, capsys):
    page = (DOCS / "index.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code.replace("epochs=100", "epochs=30"), "index.md", "exec"), names)
    assert names["model"].score(*nnx.spiral_data(samples=100, classes=3)) > 0.6
    assert "epoch: 30" in capsys.readouterr().out


def test_extras_are_written_one_way_where_users_read_of_them():
    paths = [*DOCS.glob("tutorials/*.md"), *DOCS.glob("guide/*.md"), *DOCS.parent.glob("examples/*")]
    paths += Path(nnx.__file__).parent.rglob("*.py")
    texts = [path.read_text(encoding="utf-8") for path in paths if path.suffix in (".md", ".py")]
    commands = [each for text in texts for each in re.findall(r"\S* ?\S* ?pip install '(?:\.|nnx)[^']*'", text)]
    of_source = "python -m pip install '.[plot,onnx]'"  # the guide to installing says it once
    assert len(commands) > 20
    assert [each.lstrip("`") for each in commands].count(of_source) == 1
    for each in commands:
        assert of_source in each or re.search(r"python -m pip install 'nnx-core\[[a-z,]+\]'$", each), each


def test_no_page_has_the_marks_of_a_merge():
    for page in [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]:  # a formatter may have escaped or spaced them
        marks = re.findall(r"^(?:# )?(?:\\?<){7}.*|^(?:> ?){7}.*", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert not marks, f"{page}: {marks}"
