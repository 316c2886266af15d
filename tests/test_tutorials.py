"""The tutorials, run as a reader runs them: their code works, prints what they show, and their commands exist."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pages
import pytest

from nnx import cli

pytestmark = pytest.mark.one_backend

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "tutorials"
TUTORIALS = sorted(path for path in FOLDER.glob("*.md") if path.stem != "index")
#: Packages that a page needs beyond what nnx itself needs, and how one sees that.
EXTRAS = {"matplotlib": r"\bplot\b", "pandas": r"\bpandas\b", "PIL": r"\bPIL\b", "sklearn": r"\bsklearn\b"}


def texts(paths):
    return [path.read_text(encoding="utf-8") for path in paths]


@pytest.mark.few
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorials_code_prints_what_the_page_shows(path, tmp_path, monkeypatch):
    page = path.read_text(encoding="utf-8")
    for name, sign in EXTRAS.items():
        if any(re.search(sign, block.code) for block in pages.blocks(page) if block.kind == "python"):
            pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    (tmp_path / "rents.csv").write_bytes((ROOT / "examples" / "rents.csv").read_bytes())
    data = Path(os.environ.get("NNX_DATA_HOME", "/nowhere"), "fashion-mnist").exists()
    n_shown = 0
    for block, printed in pages.run(page, path.name, data=data):
        shown = block.shown or ""
        assert pages.same(shown, printed), f"{path.name}:{block.line} shows\n{shown}\nbut the code prints\n{printed}"
        n_shown += bool(shown)
    assert n_shown >= 3


def commands():
    """Return the ``nnx`` commands that the tutorials show, with the page of each."""
    found = []
    for path, page in zip(TUTORIALS, texts(TUTORIALS), strict=True):
        for block in pages.blocks(page):
            if block.kind == "sh":
                lines = (line for line in block.code.splitlines() if line.startswith("nnx "))
                found += [(path.stem, line) for line in lines]
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_of_a_tutorial_is_known(page, line):
    chosen, rest = cli._parser().parse_known_args(shlex.split(line.partition(" > ")[0], comments=True)[1:])
    assert chosen.run is not None
    assert not [word for word in rest if word.startswith("-")]


def test_the_index_names_every_tutorial():
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    for path in TUTORIALS:
        assert f"]({path.name})" in index
        assert re.search(rf"^{path.stem}$", index, re.MULTILINE), path.stem


def test_the_pictures_are_there_and_small():
    folder = ROOT / "docs" / "pictures" / "tutorials"
    named = {name for page in texts(TUTORIALS) for name in re.findall(r"\]\(\.\./pictures/tutorials/(.+?)\)", page)}
    assert {path.name for path in folder.iterdir()} == named
    assert all(path.stat().st_size < 60_000 for path in folder.iterdir())


@pytest.mark.parametrize(
    ("shown", "printed", "answer"),
    [
        ("accuracy 0.95\n", "accuracy 0.94\n", True),
        ("accuracy 0.95\n", "accuracy 0.85\n", False),
        ("class 3\n", "class 2\n", False),
        ("1,000 rows\n", "1,010 rows\n", True),
        ("1,000 rows\n", "1,200 rows\n", False),
        ("[0.10 0.20]\n", "[0.11  0.19]\n", True),
        ("one line\n", "one line\ntwo lines\n", False),
        ("took ... s\n", "took 0.123 s\n", True),
        ("took ... s\n", "needed 0.123 s\n", False),
        ("", "something\n", False),
    ],
)
def test_outputs_are_compared_roughly(shown, printed, answer):
    assert pages.same(shown, printed) is answer
