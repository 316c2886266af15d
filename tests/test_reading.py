"""Reading CSV files: with every reader, the table is that of Python's csv module."""

from __future__ import annotations

import csv
import io
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnx
from nnx.data import csv_files, gathering
from nnx.data.cells import Cells
from nnx.data.notation import Notation, is_gap, number
from nnx.data.sources import Source
from nnx.data.table_files import read_sheet

pytestmark = pytest.mark.one_backend

READERS = {"plain": False, "pyarrow": True}


@pytest.fixture(params=READERS)
def reader(request, monkeypatch):
    """Read everything with one reader, in blocks and columns so small that every code path runs."""
    if READERS[request.param]:
        pytest.importorskip("pyarrow")
    limit(monkeypatch, READERS[request.param])


def limit(monkeypatch, fast: bool, block: int = 64, few: int = 3, many: int = 6) -> None:
    """Read small files like large ones."""
    monkeypatch.setattr(csv_files, "LEAST_FAST", 0 if fast else math.inf)
    monkeypatch.setattr(csv_files, "BLOCK", block)
    monkeypatch.setattr(csv_files, "BATCH", 12)
    monkeypatch.setattr(csv_files, "LEAST_BATCH", 1)
    monkeypatch.setattr(gathering, "FEW", few)
    monkeypatch.setattr(gathering, "MANY", many)


def rows_of(text: str, delimiter: str) -> tuple[list[list[str]], list[int]]:
    """Return the rows of a text and their lines as `csv` returns them, without blank ones."""
    rows, lines = [], []
    skip = text.startswith("sep=")
    text = text.split("\n", 1)[1] if skip else text
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    for cells in reader:
        row = [cell.strip() for cell in cells]
        if row and row != [""]:
            rows.append(row)
            lines.append(reader.line_num + skip)
    return rows, lines


def check(text: str, header: bool | None = None) -> None:
    """Check a sheet against `csv`, cell by cell, with all facts about its columns."""
    content = text.encode()
    layout = csv_files.layout_of(Source("x", io.BytesIO(content)), header)
    try:
        rows, lines = rows_of(text, layout.delimiter)
    except csv.Error as error:
        with pytest.raises(nnx.DataFileError, match=re.escape(str(error))):
            read_sheet("x", io.BytesIO(content), header)
        return
    del rows[: layout.header], lines[: layout.header]
    odd = [line for row, line in zip(rows, lines, strict=True) if len(row) != layout.width]
    if odd or not rows:
        place = rf", line {odd[0]}," if odd else " has no rows"
        with pytest.raises(nnx.DataFileError, match=place):
            read_sheet("x", io.BytesIO(content), header)
        return
    if len(set(layout.names)) < layout.width:
        return
    sheet = read_sheet("x", io.BytesIO(content), header)
    assert (sheet.n_rows, [*sheet.lines]) == (len(rows), lines)
    for place, column in enumerate(zip(*rows, strict=True)):
        check_cells(sheet.columns[place], column)


def check_cells(cells: Cells, expected: tuple[str, ...]) -> None:
    plain = [number(cell) for cell in expected]
    gaps = [*map(is_gap, expected)]
    np.testing.assert_array_equal(cells.gaps, gaps)
    np.testing.assert_array_equal(cells.numbers(), [math.nan if value is None else value for value in plain])
    assert cells.only_numbers == all(gap or value is not None for value, gap in zip(plain, gaps, strict=True))
    assert (len(cells), cells.n_gaps) == (len(expected), sum(gaps))
    assert [*cells] == [*expected]
    assert [cells[row] for row in range(len(cells))] == [*expected]
    assert [*cells.distinct] == [*dict.fromkeys(expected)]
    assert [cells.distinct[code] for code in cells.codes] == [*expected]
    assert cells.counts.tolist() == [expected.count(cell) for cell in cells.distinct]
    assert cells.first_rows.tolist() == [expected.index(cell) for cell in cells.distinct]
    german = Notation(",", ".", "€")
    written = [german.number(cell) for cell in expected]
    np.testing.assert_array_equal(cells.numbers(german), [math.nan if value is None else value for value in written])
    rows = np.arange(len(expected))[::2]
    some = cells.take(rows)
    assert [*some] == [*expected[::2]]
    assert [some.distinct[code] for code in some.codes] == [*expected[::2]]
    np.testing.assert_array_equal(some.numbers(), cells.numbers()[::2])


NUMBERS = [
    *map(str, range(9)),
    "-1.5",
    "+2",
    "1e5",
    ".5",
    "5.",
    "1E-3",
    "007",
    "-0",
    "1.0",
    "12345678901234567",
    "1e99",
]
STRANGE = [
    "inf",
    "-inf",
    "nan",
    "NaN",
    "+nan",
    "1e101",
    "1e999",
    "1_000",
    "１２",
    "−5",
    "0x10",
    "infinity",
    "nan(1)",
    "1d5",
]
GAPS = ["", "?", "NA", "n/a", "NULL", "Nan", "-", "--", "."]
TEXTS = ["a", "b b", " a", "a ", "\ta", "\u00a0a", "x" * 70, "ä", "日本", "€5", "1.234,50", "$1", "12%", "\x1f7", "a_b"]
QUOTED = ['"a"', '"a,b"', '"say ""hi"""', '""', '"a\nb"', '"a\r\nb"', '"a\n\nb"', '" 5 "', '"7"']
ODD = ['a"b', '5"', '"a"b', ' "a"', '"', '"a" ', "\0", "a\rb", "\x1a", "\u2028", "\x85", "\x0c"]

CELLS = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(NUMBERS + GAPS), st.sampled_from(TEXTS), st.sampled_from(QUOTED)
)


BLOCKS = st.sampled_from([16, 64, 4096])


@st.composite
def tables(draw, cells=CELLS):
    """Return the text of a table."""
    width = draw(st.integers(1, 4))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    delimiter = draw(st.sampled_from(",;\t|"))
    columns = [
        draw(st.lists(draw(st.sampled_from([st.sampled_from(NUMBERS), st.sampled_from(NUMBERS + GAPS), cells]))
                      , min_size=n, max_size=n))
        for n in [draw(st.integers(1, 25))]
        for _ in range(width)
    ]  # fmt: skip
    rows = [delimiter.join(f"n{place}" for place in range(width))] * draw(st.booleans())
    rows += [delimiter.join(row) for row in zip(*columns, strict=True)]
    return end.join(rows) + end * draw(st.integers(0, 2))


@pytest.mark.few
@settings(max_examples=60, deadline=None)
@given(tables(st.one_of(CELLS, st.sampled_from(STRANGE + ODD))), st.sampled_from([None, True, False]), BLOCKS)
@pytest.mark.parametrize("fast", READERS.values(), ids=READERS)
def test_tables_are_those_of_the_csv_module(fast, text, header, block):
    if fast:
        pytest.importorskip("pyarrow")
    with pytest.MonkeyPatch.context() as patch:
        limit(patch, fast, block)
        try:
            layout = csv_files.layout_of(Source("x", io.BytesIO(text.encode())), header)
        except nnx.DataFileError:
            return
        if layout.width > 1:  # in a single column, blank lines are gaps
            check(text, header)


def column_with(cell: str, n_rows: int = 40) -> str:
    """Return a table with an odd cell late in a column of numbers, and in one of texts."""
    rows = [f"{row / 8},{row % 3},t{row},{row}" for row in range(n_rows)]
    rows[n_rows - 9] = f"{cell},1,{cell},2"
    return "\n".join(["x,few,text,y", *rows, ""])


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    "cell", [*NUMBERS, *STRANGE, *GAPS, *TEXTS, *QUOTED, *ODD, "a,b", "1\n2", "\n", " ", "x" * 200_000]
)
def test_a_cell_means_the_same_wherever_it_stands(cell):
    check(column_with(cell))


LINES = {
    "blank lines": "x,y\n1,2\n\n3,4\n\n\n5,6\n",
    "blanks alone": "x,y\n1,2\n  \n3,4\n",
    "blank lines before": "\n\nx,y\n1,2\n3,4\n",
    "blank lines before numbers": "\n \n1,2\n3,4\n5,6\n",
    "blank lines of Windows": "x,y\r\n1,2\r\n\r\n3,4\r\n\r\n",
    "lines of old machines": "x,y\r1,2\r3,4\r5,6\r",
    "both kinds of lines": "x,y\r\n1,2\n3,4\r\n5,6\n",
    "no end": "x,y\n1,2\n3,4",
    "a header of two lines": 'x,"y\nz"\n1,2\n3,4\n5,6\n',
    "a stated delimiter": "sep=;\nx;y\n1,5;2\n3,5;4\n",
    "a stated delimiter and lines of Windows": "sep=|\r\nx|y\r\n1|2\r\n3|4\r\n",
    "a stated delimiter that is unusual": "sep=x\naxb\n1x2\n3x4\n",
    "a stated delimiter beyond ASCII": "sep=é\naéb\n1é2\n3é4\n",
    "blanks after commas": 'x, y\n"1", "2"\n3, 4\n5, " 6"\n',
    "an unclosed quote": 'x,y\n1,2\n3,"4\n5,6\n7,8\n',
    "cells too many": "x,y\n1,2\n3,4,5\n6,7\n8\n",
    "cells too few at the end": "x,y\n1,2\n3,4\n5",
    "empty quotes": 'x,y\n"",2\n"",""\n,\n,\n',
    "only gaps": "x,y\n,\n,\n,\n",
}


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("case", LINES)
@pytest.mark.parametrize("n_rows", [0, 60])
def test_lines_are_those_of_the_csv_module(case, n_rows):
    text = LINES[case]
    end = re.search(r"\r?\n|\r", text)[0]
    delimiter = csv_files.delimiter_of(text)
    check(text)
    check(text + "".join(f"{row}{delimiter}{row}{end}" for row in range(n_rows)))


def test_pyarrow_reads_all_of_a_plain_file(monkeypatch):
    pytest.importorskip("pyarrow")
    limit(monkeypatch, fast=True)
    monkeypatch.setattr(csv_files._Rows, "_add", None)
    text = "x,y,z\n" + "".join(f'{row},"a, ""b""\nc",{row % 2}\r\n' for row in range(50))
    assert read_sheet("x", io.BytesIO(text.encode())).columns[1][49] == 'a, "b"\nc'
