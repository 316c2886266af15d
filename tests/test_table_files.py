"""Files of tables in any encoding and format, and the errors for files that are not tables."""

from __future__ import annotations

import contextlib
import io
import os
import threading

import numpy as np
import pytest

import nnx
from nnx.data import csv_files, sources, table_files
from nnx.data.records import sheet_of
from nnx.data.table_files import read_sheet

pytestmark = pytest.mark.one_backend

ROWS = "x,Größe,y\n" + "".join(f"{row},Straße {row % 3},{row % 2}\n" for row in range(40))


@pytest.fixture(params=["plain", "pyarrow"])
def reader(request, monkeypatch):
    """Read by one reader, in small blocks."""
    if request.param == "pyarrow":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr(csv_files, "LEAST_FAST", 0 if request.param == "pyarrow" else float("inf"))
    monkeypatch.setattr(csv_files, "BLOCK", 64)


def loaded(file, **options):
    X, y, *_, table = nnx.load_csv(file, "y", test_size=0, **options)
    return X, y, table.input_names


ENCODINGS = {
    "utf-8": [None, "utf-8", "UTF8", "utf-8-sig"],
    "utf-8-sig": [None, "utf-8"],
    "latin-1": ["latin-1", "cp1252"],
    "utf-16": [None, "utf-16"],
    "utf-16-le": ["utf-16-le"],
    "utf-32": ["utf-32"],
    "cp437": ["cp437"],
}


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("written", ENCODINGS)
def test_text_is_read_in_its_encoding(tmp_path, written):
    path = tmp_path / "table.csv"
    path.write_bytes(ROWS.encode(written))
    X, y, names = loaded(io.StringIO(ROWS))
    assert names == ["x", "Größe=Straße 0", "Größe=Straße 1", "Größe=Straße 2"]
    for encoding in ENCODINGS[written]:
        for file in (path, io.BytesIO(path.read_bytes())):
            found = loaded(file, encoding=encoding)
            np.testing.assert_array_equal(found[0], X)
            np.testing.assert_array_equal(found[1], y)
            assert found[2] == names


def test_tables_read_later_are_in_an_encoding_too(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(ROWS.encode("latin-1"))
    table = nnx.Table.learn(path, "y", encoding="latin-1")
    X, _ = table.read_samples(path, encoding="latin-1")
    np.testing.assert_array_equal(table.read_inputs(path, encoding="latin-1"), X)
    assert [column.name for column in table.columns] == ["x", "Größe", "y"]


WRONG_ENCODINGS = [
    ("latin-1", None, r"table\.csv' is not text in UTF-8\. Name its encoding, such as encoding='latin-1' \(--encoding"),
    ("latin-1", "utf-8", r"is not text in UTF-8\. Name its encoding"),
    ("latin-1", "ascii", r"is not text in ascii\. Name another encoding"),
    ("utf-8", "utf-16", r"is not text in utf-16\. Name another"),
]


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(("written", "encoding", "sentence"), WRONG_ENCODINGS)
def test_a_wrong_encoding_is_told_wherever_the_text_shows_it(tmp_path, written, encoding, sentence):
    path = tmp_path / "table.csv"
    for text in (ROWS, "x,y\n" + "1,2\n" * 200 + "ä,3\n"):
        path.write_bytes(text.encode(written))
        with pytest.raises(nnx.DataFileError, match=sentence):
            nnx.load_csv(path, "y", encoding=encoding)


@pytest.mark.parametrize("encoding", ["latin-0", "hex", "", "x" * 5000, "utf-8\0"])
def test_what_is_no_encoding_is_refused(encoding):
    with pytest.raises(ValueError, match=r"^load_csv: encoding must be") as error:
        nnx.load_csv(io.BytesIO(b"x,y\n1,2\n"), "y", encoding=encoding)
    assert len(str(error.value)) < 300
    with pytest.raises(TypeError, match=r"^load_csv: encoding must be"):
        nnx.load_csv(io.BytesIO(b"x,y\n1,2\n"), "y", encoding=3)


# Files that are not tables, or that vanish


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n \n\r\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"x,y\n", "has no rows below its header"),
        (b"x,y\n\n\n", "has no rows below its header"),
        (b"x,y\n1,2,3\n", "line 2, has 3 cells, and the first row has 2"),
        (b"x,y\n" + b"1,2\n" * 50 + b'"3,4\n5,6\n', "cannot be read as CSV after line 51"),
        (b"x,y\n1," + b"2" * 200_000 + b"\n", "cannot be read as CSV after line 1 .field larger than"),
        (b'sep="\nx,y\n1,2\n', "names '\"' as what separates cells, which cannot"),
        (b"PK\x03\x04\x14\0", r"is an Excel workbook or a zip archive\. Save its table as CSV\."),
        (b"\x1f\x8b\x08\0", r"is compressed with gzip\. Unpack it first\."),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is not text in UTF-8"),
        (b"x,x\n1,2\n3,4\n", "has two columns 'x'"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(content, sentence):
    with pytest.raises(nnx.DataFileError, match=sentence):
        nnx.load_csv(io.BytesIO(content), "y")


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder, not a CSV file"):
        nnx.load_csv(tmp_path, "y")


def test_a_pipe_is_read_once(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes")
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(ROWS,))
    writer.start()
    sheet = read_sheet("x", path)
    writer.join()
    assert sheet.n_rows == 40


@pytest.mark.usefixtures("reader")
def test_a_file_that_changes_is_not_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr("nnx.data.gathering.FEW", 3)
    path = tmp_path / "table.csv"
    path.write_text("x,y\n" + "".join(f"{row / 7:.3f},{row}\n" for row in range(40)))
    sheet = read_sheet("x", path)
    assert sheet.columns[0][5] == "0.714"
    sheet = read_sheet("x", path)
    path.write_text("x,y\n1,2\n")
    np.testing.assert_array_equal(sheet.numbers(1), np.arange(40))
    with pytest.raises(nnx.DataFileError, match="has changed while it was read"):
        sheet.columns[0][5]


@pytest.mark.usefixtures("reader")
def test_a_bar_shows_how_much_of_a_large_file_is_read(tmp_path, monkeypatch, capfd):
    path = tmp_path / "table.csv"
    path.write_text(ROWS)
    nnx.load_csv(path, "y", progress=True)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(sources, "LEAST_SHOWN", 0)
    nnx.load_csv(path, "y", progress=True)
    assert "100%" in capfd.readouterr().err
    nnx.load_csv(path, "y")
    assert capfd.readouterr().err == ""
    with pytest.raises(TypeError, match="load_csv: progress must be"):
        nnx.load_csv(path, "y", progress=1)


# Other formats

COLUMNS = {
    "number": [1.5, None, 2.5, float("nan"), 5.0, 6.0],
    "whole": [1, 2, None, 4, 5, 6],
    "flag": [True, None, False, True, True, False],
    "text": [" a", "b", None, "a", "NA", "c"],
    "day": np.array(["2024-01-05", "NaT", *["2024-02-01"] * 4], "M8[D]"),
    "time": np.array(["2024-01-05T12:30:00", "NaT", *["2024-02-01"] * 4], "M8[us]"),
    "span": np.array([3, "NaT", 5, 6, 7, 90], "m8[s]"),
}
CELLS = {
    "number": [1.5, None, 2.5, None, 5, 6],
    "whole": [1, 2, None, 4, 5, 6],
    "flag": ["True", None, "False", "True", "True", "False"],
    "text": ["a", "b", None, "a", None, "c"],
    "day": ["2024-01-05", None, *["2024-02-01"] * 4],
    "time": ["2024-01-05T12:30:00", None, *["2024-02-01T00:00:00"] * 4],
    "span": [3, None, 5, 6, 7, 90],
}


def frame_of_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    frame["whole"] = pandas.array(COLUMNS["whole"], dtype="Int64")
    frame["text"] = frame["text"].astype("category")
    frame["flag"] = pandas.array(COLUMNS["flag"], dtype="boolean")
    frame["day"] = pandas.to_datetime(frame["day"])
    frame["time"] = pandas.to_datetime(frame["time"]).dt.tz_localize("UTC").dt.tz_convert("Europe/Vienna")
    return frame


def frame_of_arrow_columns():
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    table = table_of_pyarrow()
    return pandas.DataFrame({name: pandas.array(table[name], dtype=pandas.ArrowDtype(table[name].type))
                             for name in table.column_names}) if arrow else None  # fmt: skip


def frame_of_polars():
    return pytest.importorskip("polars").DataFrame({**COLUMNS, "span": COLUMNS["span"].astype("m8[us]")})


def table_of_pyarrow():
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table(COLUMNS)
    text = arrow.chunked_array([arrow.array(COLUMNS["text"][:2]), arrow.array(COLUMNS["text"][2:])])
    return table.set_column(3, "text", text.dictionary_encode())


def parquet_file():
    table, file = table_of_pyarrow(), io.BytesIO()
    pytest.importorskip("pyarrow.parquet").write_table(table, file)
    return io.BytesIO(file.getvalue())


def feather_file():
    table, file = table_of_pyarrow(), io.BytesIO()
    pytest.importorskip("pyarrow.feather").write_feather(table, file)
    return io.BytesIO(file.getvalue())


SOURCES = [
    frame_of_pandas,
    frame_of_arrow_columns,
    frame_of_polars,
    table_of_pyarrow,
    parquet_file,
    feather_file,
    lambda: COLUMNS,
]


@pytest.mark.parametrize("source", SOURCES)
def test_columns_are_what_their_source_says(source):
    sheet = sheet_of("x", source(), None)
    assert sheet.names == [*CELLS]
    for name, cells in zip(sheet.names, sheet.columns, strict=True):
        gaps = [cell is None for cell in CELLS[name]]
        assert cells.gaps.tolist() == gaps, name
        assert [None if gap else cell for cell, gap in zip(cells, gaps, strict=True)] == CELLS[name]
        assert cells.only_numbers == (name in ("number", "whole", "span"))
        is_date = name in ("day", "time")
        assert (cells.dates is not None) == is_date
        assert repr([cells.distinct[code] for code in cells.codes]) == repr([*cells])  # a NaN is not equal to itself
        rows = cells.take(np.array([5, 0]))
        assert [*rows] == [CELLS[name][5], CELLS[name][0]]


def test_files_of_other_formats_are_trained_on_by_name(tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow import csv, feather, parquet

    text = "x,a.b,y\n" + "".join(f"{row / 7},t{row % 3},{row % 2}\n" for row in range(60))
    expected = nnx.load_csv(io.StringIO(text), "y")
    table = csv.read_csv(io.BytesIO(text.encode()))
    parquet.write_table(table, tmp_path / "t.parquet")
    feather.write_feather(table, str(tmp_path / "t.feather"))
    for name in ("t.parquet", "t.feather"):
        found = nnx.load_csv(tmp_path / name, "y")
        for one, other in zip(found[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(one, other)
        assert [column.name for column in found[4].columns] == ["x", "a.b", "y"]


@pytest.mark.parametrize("name", ["t.parquet", "t.feather"])
def test_broken_files_of_other_formats_are_refused(tmp_path, name):
    pytest.importorskip("pyarrow")
    file = parquet_file() if name == "t.parquet" else feather_file()
    whole = file.getvalue()
    path = tmp_path / name
    random = np.random.default_rng(0)
    broken = [b"", b"PK", b"x,y\n1,2\n", whole[:-1], whole[: len(whole) // 2], whole[:8]]
    for _ in range(60):
        changed = bytearray(whole)
        for place in random.integers(4, len(whole), 8):
            changed[place] = random.integers(256)
        broken.append(bytes(changed))
    for content in broken:
        path.write_bytes(content)
        with contextlib.suppress(nnx.DataFileError):
            read_sheet("x", path)
    for content in broken[:6]:
        path.write_bytes(content)
        with pytest.raises(nnx.DataFileError, match=r"is not a (Parquet|Feather) file|cannot be read as a"):
            read_sheet("x", path)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files.importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(
        ImportError, match=r"load_csv: pyarrow is not installed, and '.*t\.parquet' is a Parquet file\."
    ):
        nnx.load_csv(path, "y")
