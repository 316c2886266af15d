"""The README's tables: their figures equal those of the pages that they come from, column by column."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_backend

ROOT = Path(__file__).parents[1]
#: Shorter names of columns and rows in the README than on the page.
SHORT = {"NumPy": "NumPy reference", "seconds to learn California, one core": "seconds to learn California"}


def tables(page: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Return a page's tables by the title of their first column: rows by their first cell, cells by their column."""
    found = {}
    for table in re.findall(r"(?:^\|.*\|\n)+", page.read_text(encoding="utf-8"), re.MULTILINE):
        titles, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        found[titles[0]] = {row[0]: dict(zip(titles[1:], row[1:], strict=True)) for row in rows}
    return found


def test_the_readmes_speeds_are_those_of_the_reference():
    short = tables(ROOT / "README.md")["a training step, one core"]
    long = tables(ROOT / "docs" / "reference" / "speed.md")["a training step, one core"]
    assert len(short) == 5
    for name, cells in short.items():
        assert cells == {column: long[name][SHORT.get(column, column)] for column in cells}


def test_the_readmes_scores_are_those_of_the_reference():
    short = tables(ROOT / "README.md")[""]
    (long,) = (rows for rows in tables(ROOT / "docs" / "reference" / "accuracy.md").values() if "California" in rows)
    assert len(short) == 4
    for name, cells in short.items():
        row = long[SHORT.get(name, name.partition(",")[0])]
        assert cells == {column: row[column] for column in cells}


def test_the_readme_fits_on_a_screen_before_it_links_on():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
