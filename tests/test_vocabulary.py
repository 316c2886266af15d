"""The page of the vocabulary: it names everything built in, with its present settings, and draws it."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from PIL import Image

import nnx
from nnx._base.vocabulary import BUILT_IN
from nnx.initializers import NAMES
from nnx.optimizers import COMMON

pytestmark = pytest.mark.one_backend

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "reference" / "vocabulary.md").read_text(encoding="utf-8")

#: The cells of each row, by the names in its first cell.
ROWS = {
    name: row
    for row in PAGE.splitlines()
    if row.startswith("| ")
    for name in re.findall(r"`([^`]+)`", row.split("|")[1])
}
CLASSES = [kind for kinds in BUILT_IN.values() for kind in kinds]

#: Settings of all optimizers, which have a separate table.
OF_ALL_OPTIMIZERS = {"decay", *COMMON}

PICTURES = {
    "activations": [kind for kind in BUILT_IN["layer"] if kind.__name__.startswith("Activation_")],
    "losses": BUILT_IN["loss"],
    "schedules": BUILT_IN["schedule"],
}


def settings_of(row: str) -> dict[str, object]:
    """Return the settings that a row names, with their defaults, or ``inspect.Parameter.empty`` without one."""
    found = re.findall(r"`([a-z_0-9]+)(?:=([^`]+))?`", row.split("|")[-3])
    return {name: ast.literal_eval(value) if value else inspect.Parameter.empty for name, value in found}


def test_settings_are_read_from_a_row():
    row = '| `Some` | ab, `x` | `slope=0.01`, `count`, `name="he"` | Linear, `other=1` |'
    assert settings_of(row) == {"slope": 0.01, "count": inspect.Parameter.empty, "name": "he"}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_built_in_class_has_a_row_with_its_settings(kind):
    arguments = dict(inspect.signature(kind).parameters)
    if kind in BUILT_IN["optimizer"]:
        arguments = {name: each for name, each in arguments.items() if name not in OF_ALL_OPTIMIZERS}
    row = ROWS[kind.__name__]
    if kind in BUILT_IN["accuracy"]:
        row += " |"  # they have no twin elsewhere, and no cell for it
    assert settings_of(row) == {name: each.default for name, each in arguments.items()}


def test_what_all_optimizers_share_is_in_a_table():
    for kind in BUILT_IN["optimizer"]:
        for name in OF_ALL_OPTIMIZERS:
            assert f"{name}={inspect.signature(kind).parameters[name].default}" in ROWS


def test_every_initializer_has_a_row():
    assert {name.strip('"') for name in ROWS if name.startswith('"')} == set(NAMES)


def test_every_public_class_of_the_vocabulary_is_on_the_page_and_no_other():
    beginnings = ("Layer", "Activation", "Loss", "Accuracy", "Optimizer", "Schedule")
    public = {name for name in nnx.__all__ if name.split("_")[0] in beginnings} - {"Accuracy", "Loss"}  # bases only
    named = re.findall(rf"`((?:{'|'.join(beginnings)})(?:_\w+)?)`", PAGE)
    assert set(named) == public


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_every_class(name):
    assert f"](../pictures/{name}.png)" in PAGE
    with Image.open(DOCS / "pictures" / f"{name}.png") as picture:
        assert picture.text["Shows"].split() == [kind.__name__ for kind in PICTURES[name]]  # run tools/draw_curves.py


def test_pictures_are_small():
    assert sum(path.stat().st_size for path in (DOCS / "pictures").iterdir()) < 300_000
