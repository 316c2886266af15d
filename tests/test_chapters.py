"""Scripts in the style of each chapter of the book: they run on nnx unchanged, with and without ``nnfs.init()``.

The book's pages in docs/book show parts of them, and what they print.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pages
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "book"
SCRIPTS = sorted((FOLDER / "scripts").glob("*.py"))
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("chapter-*.md"))}


def page_of(script):
    """Return the page of a script: chapter-03 of chapter_03_layers.py."""
    (number,) = re.findall(r"^chapter_(\d\d(?:_to_\d\d)?)_", script.stem)
    return PAGES["chapter-" + number.replace("_", "-")]


def shows(shown, printed):
    """Return whether lines occur among the printed ones, in the same order."""
    lines, wanted = printed.splitlines(), len(shown.splitlines())
    return any(pages.same(shown, "\n".join(lines[start : start + wanted])) for start in range(len(lines)))


@pytest.mark.few
@pytest.mark.parametrize("nnfs", [True, False], ids=["nnfs", "plain"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_chapters_script_runs_and_prints_what_its_page_shows(script, nnfs, tmp_path):
    text = script.read_text(encoding="utf-8")
    assert text.count("nnfs.init()") == 1
    if not nnfs:
        text = text.replace("import nnfs\n", "").replace("nnfs.init()", "np.random.seed(0)")
    copy = tmp_path / script.name
    copy.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(copy)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if nnfs:
        outputs = re.findall(r"^```text\n(.*?)^```$", page_of(script), re.MULTILINE | re.DOTALL)
        assert outputs
        for shown in outputs:
            assert shows(shown, done.stdout), f"the page shows\n{shown}\nbut the script prints\n{done.stdout}"


@pytest.mark.one_backend
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_chapters_page_shows_lines_of_its_script(script):
    page, text = page_of(script), script.read_text(encoding="utf-8")
    assert f"(scripts/{script.name})" in page
    parts = [block.code for block in pages.blocks(page) if block.kind == "python"]
    assert parts
    for part in parts:
        assert part in text


@pytest.mark.one_backend
def test_every_chapters_page_has_a_script_and_is_in_the_index():
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert len(PAGES) == len(SCRIPTS) == len({page_of(script) for script in SCRIPTS})
    for name in PAGES:
        assert f"]({name}.md)" in index
        assert re.search(rf"^{name}$", index, re.MULTILINE), name
