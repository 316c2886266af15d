"""Results on real data: the figures that the documents promise.

The files are looked for below ``NNX_DATA_HOME``, in fashion-mnist, adult and california. Without them, these tests are
skipped, or fail with ``--require-data``. The other tests make small files that take the same code paths.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pytest

import nnx
from nnx.cli import main
from nnx.data import fashion_mnist

pytestmark = pytest.mark.one_backend


def real(request, *names: str) -> list[str]:
    """Return the paths of files below ``NNX_DATA_HOME``."""
    home = os.environ.get("NNX_DATA_HOME")
    reason = "NNX_DATA_HOME is not set"
    if home:
        paths = [Path(home, name) for name in names]
        missing = [path for path in paths if not path.exists()]
        if not missing:
            return [str(path) for path in paths]
        reason = f"there is no {missing[0]}"
    if request.config.getoption("--require-data"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def fashion(request):
    return real(request, *(f"fashion-mnist/{name}" for name in fashion_mnist.FASHION_MNIST_FILES))


@pytest.fixture
def adult(request):
    return real(request, "adult/adult.data", "adult/adult.test")


@pytest.fixture
def california(request):
    return real(request, "california/housing.csv")[0]


def figure(out: str, part: str, name: str) -> float:
    return float(re.search(rf"^{part} +{name} ([\d.]+)", out, re.MULTILINE)[1])


def test_fashion_mnists_files_are_the_official_ones_and_hold_what_they_should(fashion):
    for path, md5 in zip(fashion, fashion_mnist.FASHION_MNIST_FILES.values(), strict=True):
        assert hashlib.md5(Path(path).read_bytes()).hexdigest() == md5
    X, y, X_test, y_test = nnx.load_fashion_mnist(download=True)  # there is nothing to fetch
    assert (X.shape, X_test.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert np.bincount(y).tolist() == [6000] * 10
    assert np.bincount(y_test).tolist() == [1000] * 10
    assert y[0] == 9  # an ankle boot comes first


@pytest.mark.long("trains on 60,000 images")
def test_train_fashion_mnist_reaches_0_87(fashion, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "fashion-mnist"]) == 0
    out = capsys.readouterr().out
    assert "Training 784-128-128-10 for 10 epochs (adam, rate 0.001, decay 0.001, batch 128)." in out
    assert figure(out, "test", "accuracy") >= 0.87
    assert main(["evaluate", "fashion-mnist.safetensors", "fashion-mnist"]) == 0
    assert f"accuracy {figure(out, 'test', 'accuracy'):.3f}" in capsys.readouterr().out


@pytest.mark.long("learns 32,000 rows")
def test_adult_reaches_0_865_and_is_predicted_by_name(compiled, adult, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training, test = adult
    assert main(["train", training, "--target", "-1", "--test", test]) == 0
    out = capsys.readouterr().out
    assert "32,561 samples to train on, 16,281 to test" in out
    assert figure(out, "test", "accuracy") >= 0.865
    rows = [line for line in Path(test).read_text().splitlines() if line.strip()]
    Path("raw.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows) + "\n")
    assert main(["predict", "adult.safetensors", "raw.csv"]) == 0
    names = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()]
    hits = [row.rpartition(",")[2].strip(" .") == name for row, name in zip(rows, names, strict=True)]
    assert set(names) == {"<=50K", ">50K"}
    assert round(np.mean(hits), 3) == figure(out, "test", "accuracy")


@pytest.mark.long("learns 16,000 rows by the recipe")
def test_california_reaches_0_83_and_is_predicted_in_dollars(compiled, california, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", california, "--target", "median_house_value"]) == 0
    out = capsys.readouterr().out
    assert "16,512 samples to train on, 4,128 to test; the target 'median_house_value' is a number." in out
    assert "Missing values filled: 207 in 'total_bedrooms'." in out
    assert figure(out, "test", "R²") >= 0.83
    assert main(["predict", "housing.safetensors", california]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "median_house_value"
    columns = [line.split(",") for line in Path(california).read_text().splitlines()]
    place = columns[0].index("median_house_value")
    true = np.array([float(row[place]) for row in columns[1:]])
    assert 1 - np.mean((true - np.array(lines, float)) ** 2) / np.var(true) > 0.72
