"""`nnx train --report`: one page that holds everything, runs no code, and shows texts literally."""

from __future__ import annotations

import base64
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx.cli import main

pytestmark = pytest.mark.one_backend

QUICK = ("--epochs", "3", "--layers", "8", "--report", "page.html")
VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "<script>alert('x')</script>"


class Page(HTMLParser):
    """The tags of a page, its text, and what they load."""

    def __init__(self, path="page.html"):
        super().__init__()
        self.source = Path(path).read_text(encoding="utf-8")
        self.open, self.tags, self.texts, self.loads, self.alts = [], [], [], [], []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        self.alts += [value for name, value in attributes if name == "alt"]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, rng):
    """Work in a folder with a table of two classes and one of numbers, whose names are hostile."""
    monkeypatch.chdir(tmp_path)
    x = rng.normal(size=(120, 2))
    kind = np.where(x[:, 0] > 0, HOSTILE, "a & b")
    rows = [f'{a:.4f},{b:.4f},"{k}"' for (a, b), k in zip(x, kind, strict=True)]
    Path("pets.csv").write_text("\n".join([f'"{HOSTILE}","</style><b>",pet', *rows]) + "\n")
    rows = [f"{a:.4f},{b:.4f},{5 * a + 20:.4f}" for a, b in x]
    Path("prices.csv").write_text("\n".join(["a,b,price", *rows]) + "\n")


def train(capsys, *arguments, code=0):
    assert main(["train", *arguments]) == code
    return capsys.readouterr().out


def test_a_page_holds_everything_and_loads_and_runs_nothing(capsys):
    pytest.importorskip("matplotlib")
    out = train(capsys, "pets.csv", "--target", "pet", *QUICK)
    assert f"Report saved to {Path('page.html').resolve()}\n" in out
    page = Page()
    assert not {"script", "link", "iframe", "object", "embed", "form", "a"} & set(page.tags)
    assert len(page.loads) == 4
    for load in page.loads:
        kind, _, data = load.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    assert page.alts == ["Confusion matrix", "Calibration", "Importance of columns", "Training"]
    assert 'name="viewport"' in page.source
    assert "default-src &#x27;none&#x27;" in page.source
    assert not re.search(r"url\(|@import|https?:", page.source)


def test_all_texts_are_escaped(capsys):
    train(capsys, "pets.csv", "--target", "pet", *QUICK, "--split-seed", "1")
    page = Page()
    assert "<script" not in page.source.lower()
    assert page.source.count("</style>") == 1
    assert page.text.count(HOSTILE) >= 2  # a column, and a class
    assert "a & b" in page.text
    assert "nnx train pets.csv --target pet --epochs 3 --layers 8 --report page.html --split-seed 1" in page.text


def test_the_figures_are_those_of_the_terminal_beside_the_baseline(capsys):
    train(capsys, "pets.csv", "--target", "pet", *QUICK)
    model = nnx.Model.load("pets.safetensors")
    X, y, X_test, y_test, _ = nnx.load_csv("pets.csv", "pet")
    training, test = model.report(X, y), model.report(X_test, y_test)
    rows = re.findall(r"<tr>(.*?)</tr>", Page().source)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    figures = ("accuracy", "balanced_accuracy", "log_loss", "auc", "mean_f1", "calibration_error")
    for name, row in zip(figures, cells[1:], strict=False):
        assert row[1:3] == [f"{getattr(each, name):.3f}" for each in (training, test)]
    assert cells[1] == ["accuracy", *cells[1][1:3], f"{test.baseline:.3f}"]
    of_class = cells[8]
    assert of_class[1:] == [f"{each[0]:.3f}" for each in (test.recall, test.precision, test.f1)] + [
        f"{test.class_counts[0]:,}"
    ]
    assert f"{test.accuracy:.3f}" in Page().text


def test_a_regression_has_its_data_training_and_machine(capsys):
    out = train(capsys, "prices.csv", "--target", "price", *QUICK)
    page = Page()
    for line in (
        "96 rows to train on, 24 to test on.",
        "To predict: 'price', a number.",
        "Training 2-8-1 for 63 epochs" if "for 63" in out else "Training 2-8-1 for 3 epochs",
        f"nnx {nnx.__version__}, kernels {nnx._kernels.name}",
        f"numpy {np.__version__}",
    ):
        assert line in page.text
    assert "mean absolute error" in page.text
    assert "number, mean" in page.text


def test_the_page_of_a_cross_validation_shows_the_mean_of_the_folds(capsys):
    out = train(capsys, "prices.csv", "--target", "price", "--folds", "3", *QUICK)
    mean = re.search(r"^R² +(\S+) ±", out, re.MULTILINE)[1]
    page = Page()
    assert re.search(rf'class="score"><b>{re.escape(mean)}</b>', page.source)
    assert "mean R² of 3 folds" in page.text
    for score in re.findall(r"^fold \d of 3: R² (\S+) \(", out, re.MULTILINE):
        assert f'<td class="number">{score}</td>' in page.source


@pytest.mark.long("learns a table of many columns")
def test_many_columns_are_not_all_named(capsys, rng):
    cells = [[*map(str, each), str(i % 2)] for i, each in enumerate(rng.normal(size=(60, 130)).round(3))]
    rows = [",".join(each) for each in cells]
    Path("wide.csv").write_text("\n".join([",".join([*(f"c{i}" for i in range(130)), "y"]), *rows]) + "\n")
    train(capsys, "wide.csv", "--target", "y", *QUICK)
    text = Page().text
    assert "c99" in text
    assert "c100" not in text.replace("shuffled", "")
    assert "and 30 more columns." in text


@pytest.mark.long("trains on several kinds of data")
def test_other_data_have_pages_too(capsys):
    train(capsys, "spiral", "--samples", "30", *QUICK)
    assert "'arm'" in Page().text
    train(capsys, "sine", "--samples", "30", *QUICK)
    assert "'sine'" in Page().text


def test_a_model_no_better_than_the_baseline_is_called_that(capsys):
    train(capsys, "prices.csv", "--target", "price", "--epochs", "1", "--rate", "10", *QUICK[-2:])
    assert "This model is worse than always predicting the mean." in Page().text


def test_without_matplotlib_the_page_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    train(capsys, "prices.csv", "--target", "price", *QUICK)
    page = Page()
    assert page.loads == []
    assert "python -m pip install 'nnx-core[plot]'" in page.text


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("page.txt", "argument --report: must end in .html, got 'page.txt'"),
        ("nowhere/page.html", "argument --report: "),
        ("model.html", "argument --report: must not be where model or picture go"),
    ],
)
def test_places_that_cannot_be_are_refused_before_training(capsys, path, says):
    with pytest.raises(SystemExit) as left:
        main(["train", "prices.csv", "--target", "price", "--report", path, "-o", "model.html"])
    assert left.value.code == 2
    assert says in capsys.readouterr().err
    assert not Path("model.html").exists()
