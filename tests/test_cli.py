"""The command line: what it prints, saves and refuses."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import commands
import numpy as np
import pytest
from files import idx
from PIL import Image

import nnx
from nnx import _kernels
from nnx.cli import main, tasks

pytestmark = pytest.mark.one_backend


def run(*arguments, cwd=None, **environment):
    """Run the command, in a separate process if its environment is different."""
    if not environment:
        return commands.nnx(*arguments, cwd=cwd)
    return subprocess.run(
        [sys.executable, "-m", "nnx", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


QUICK = ("--epochs", "2", "--layers", "8")


@pytest.fixture
def flats(tmp_path, rng):
    """Return the path of a table: what a flat costs, with a text column and a gap."""
    area = rng.integers(30, 120, 200)
    town = rng.choice(["Graz", "Linz", "Wien"], 200)
    rent = area * 10 + 300.0 * (town == "Wien") + rng.normal(0, 20, 200).round(1)
    rows = [f"{a},{t},{r:.1f}" for a, t, r in zip(area, town, rent, strict=True)]
    rows[3] = rows[3].replace(rows[3].split(",")[0], "", 1)
    path = tmp_path / "flats.csv"
    path.write_text("\n".join(["area,town,rent", *rows]) + "\n")
    return path


@pytest.fixture
def fashion(tmp_path, rng):
    """Return a data folder with a tiny Fashion-MNIST: each class is a bright row of pixels."""
    folder = tmp_path / "data" / "fashion-mnist"
    folder.mkdir(parents=True)
    for part, n_images in (("train", 200), ("t10k", 50)):
        labels = np.arange(n_images) % 10
        pictures = rng.integers(0, 30, (n_images, 28, 28), np.uint8)
        pictures[np.arange(n_images), labels * 2] = 255
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder.parent


# nnx train


def test_train_spiral_trains_saves_and_draws(tmp_path):
    done = run("train", "spiral", "--epochs", "30", "--samples", "300", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "spiral: 900 samples to train on, 180 to test; the target 'arm' is 3 classes."
    assert lines[1] == "Training 2-64-64-3 for 30 epochs (adam, rate 0.02, decay 0.001, batch 100)."
    assert lines[2].startswith("training  accuracy 0.")
    assert lines[3].startswith("test      accuracy 0.")
    assert float(lines[3].split()[2]) > 0.7
    assert lines[-2] == f"Model saved to {tmp_path / 'spiral.safetensors'}"
    assert lines[-1] == f"Picture saved to {tmp_path / 'spiral.png'}"
    assert "loss" in done.stderr
    assert "270/270" in done.stderr
    assert (tmp_path / "spiral.png").read_bytes().startswith(b"\x89PNG")
    model = nnx.Model.load(tmp_path / "spiral.safetensors")
    assert model.predict(np.ones((1, 2))).shape == (1, 3)
    assert sorted(os.listdir(tmp_path)) == ["spiral.png", "spiral.safetensors"]


def test_train_without_a_data_set_is_train_spiral_and_repeats_itself(tmp_path):
    first = run("train", "--epochs", "2", "--samples", "20", "-o", "a.model", cwd=tmp_path)
    second = run("train", "spiral", "--epochs", "2", "--samples", "20", "--output", "b.model", cwd=tmp_path)
    assert first.returncode == second.returncode == 0
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()
    assert (tmp_path / "a.png").exists()
    third = run("train", "--epochs", "2", "--samples", "20", "--seed", "1", "-o", "c.model", cwd=tmp_path)
    assert third.returncode == 0
    assert (tmp_path / "c.model").read_bytes() != (tmp_path / "a.model").read_bytes()


@pytest.mark.parametrize(
    ("data", "figure", "at_least", "layers"),
    [("binary", "accuracy", 0.8, [(2, 64), (64, 64), (64, 1)]), ("sine", "R²", 0.95, [(1, 64), (64, 64), (64, 1)])],
)
def test_the_books_other_data_sets_are_learnt(tmp_path, data, figure, at_least, layers):
    done = run("train", data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.search(rf"^test      {figure} ([\d.]+)", done.stdout, re.MULTILINE)
    assert float(found[1]) > at_least
    model = nnx.Model.load(tmp_path / f"{data}.safetensors")
    assert [layer.weights.shape for layer in model.trainable_layers] == layers
    assert (tmp_path / f"{data}.png").exists()
    evaluated = run("evaluate", f"{data}.safetensors", data, cwd=tmp_path)
    line = next(line for line in done.stdout.splitlines() if line.startswith("test "))
    assert evaluated.stdout.splitlines()[0].partition(": ")[2] == line.removeprefix("test      ")


@pytest.mark.long("starts several processes that train on images")
def test_train_fashion_mnist_from_its_folder_or_the_data_folder(tmp_path, fashion):
    done = run("train", "fashion-mnist", "--epochs", "20", "--layers", "16", cwd=tmp_path, NNX_DATA_HOME=str(fashion))
    assert done.returncode == 0, done.stderr
    assert "Training 784-16-10 for 20 epochs (adam, rate 0.001, decay 0.001, batch 128)." in done.stdout
    assert float(re.search(r"^test      accuracy ([\d.]+)", done.stdout, re.MULTILINE)[1]) > 0.9
    model = nnx.Model.load(tmp_path / "fashion-mnist.safetensors")
    row = np.zeros(784, int)
    row[56 * 1 : 56 * 1 + 28] = 255
    assert model.images.classes == nnx.FASHION_MNIST_CLASSES
    assert (model.images.shape, model.images.mean, model.images.scale) == ((28, 28), 127.5, 127.5)
    Image.fromarray(row.reshape(28, 28).astype(np.uint8)).save(tmp_path / "one.png")
    assert run("predict", "fashion-mnist.safetensors", "one.png", cwd=tmp_path).stdout.startswith(
        "file,class,probability\none.png,Trouser,"
    )
    header = ",".join(f"pixel{number}" for number in range(1, 785))
    (tmp_path / "one.csv").write_text(f"{header}\n{','.join(map(str, row))}\n")
    predicted = run("predict", "fashion-mnist.safetensors", "one.csv", cwd=tmp_path)
    assert predicted.stdout.startswith("label,probability\nTrouser,"), predicted.stderr
    again = run(
        "evaluate", "fashion-mnist.safetensors", "fashion-mnist", "--folder", fashion / "fashion-mnist", cwd=tmp_path
    )
    assert again.stdout.startswith("50 samples: accuracy "), again.stderr


def test_train_a_table_of_numbers_then_predict_from_a_raw_file(tmp_path, flats):
    done = run("train", "flats.csv", "--target", "rent", "--layers", "64,64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "flats.csv: 160 samples to train on, 40 to test; the target 'rent' is a number."
    assert lines[1] == "Missing values filled: 1 in 'area'."
    assert lines[2].startswith("Training 4-64-64-1 for 667 epochs (")
    form = (
        r"test      R² ([\d.]+) \(baseline 0\), mean absolute error ([\d.]+) \(([\d.]+)\), RMSE ([\d.]+) \(([\d.]+)\)$"
    )
    r_squared, error, guessed, rmse, guessed_rmse = map(float, re.match(form, lines[4]).groups())
    assert r_squared > 0.95
    assert 10 < error < rmse < 60 < 200 < guessed < guessed_rmse
    assert lines[5] == "baseline  always predicting the mean; its scores are in parentheses"
    (tmp_path / "new.csv").write_text("town,area\nWien,50\nGraz,50\n")
    predicted = run("predict", "flats.safetensors", "new.csv", cwd=tmp_path)
    header, wien, graz = predicted.stdout.splitlines()
    assert header == "rent"
    assert abs(float(wien) - 800) < 60
    assert abs(float(graz) - 500) < 60
    to_file = run("predict", "flats.safetensors", "new.csv", "-o", "out.csv", cwd=tmp_path)
    assert (to_file.returncode, to_file.stdout) == (0, "")
    assert to_file.stderr == "2 rows predicted from 'new.csv' to 'out.csv'.\n"
    assert (tmp_path / "out.csv").read_text() == predicted.stdout
    evaluated = run("evaluate", "flats.safetensors", "flats.csv", cwd=tmp_path)
    assert re.match(r"200 samples: R² 0\.9\d+ \(baseline 0\), mean absolute error ", evaluated.stdout)


def test_train_a_table_of_classes_without_a_header_and_with_a_test_file(tmp_path, rng):
    def rows(n, full_stop=""):
        x = rng.normal(size=n)
        return "".join(f"{value:.3f},{'high' if value > 0 else 'low'}{full_stop}\n" for value in x)

    (tmp_path / "train.data").write_text(rows(300))
    (tmp_path / "other.test").write_text(rows(100, "."))
    done = run("train", "train.data", "--target", "2", "--test", "other.test", "--layers", "none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train.data: 300 samples to train on, 100 to test; the target 'column 2' is 2 classes." in done.stdout
    assert "Training 1-2 for " in done.stdout
    assert float(re.search(r"^test      accuracy ([\d.]+)", done.stdout, re.MULTILINE)[1]) > 0.95
    (tmp_path / "new.csv").write_text("3\n-3\n")
    lines = run("predict", "train.safetensors", "new.csv", cwd=tmp_path).stdout.splitlines()
    assert "The first row is data, so columns are numbered. If it holds names, add --header." in done.stdout
    assert [line.split(",")[0] for line in lines] == ["high", "low"]  # no header, as the training table had none
    assert all(float(line.split(",")[1]) > 0.9 for line in lines)


def test_predictions_of_two_classes_by_one_output_carry_their_probability(tmp_path):
    run("train", "binary", "--epochs", "30", cwd=tmp_path)
    (tmp_path / "new.csv").write_text("x,y\n0.5,0.5\n-0.5,-0.5\n0.1,0.4\n")
    lines = run("predict", "binary.safetensors", "new.csv", cwd=tmp_path).stdout.splitlines()
    model = nnx.Model.load(tmp_path / "binary.safetensors")
    outputs = model.predict([[0.5, 0.5], [-0.5, -0.5], [0.1, 0.4]])[:, 0]
    expected = [f"arm {2 if p > 0.5 else 1},{max(p, 1 - p):.4f}" for p in outputs]
    assert lines == ["arm,probability", *expected]


def test_options_replace_the_settings(tmp_path, flats):
    options = ["--layers", "8,4", "--epochs", "3", "--batch", "50", "--optimizer", "sgd", "--rate", "0.1"]
    options += ["--decay", "0.01", "--l2", "0.001", "--dropout", "0.25", "--test-size", "0.5", "--text", "area"]
    options += ["--drop", "town", "--seed", "5", "-o", "m.model"]
    done = run("train", "flats.csv", "--target", "-1", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "100 samples to train on, 100 to test" in done.stdout
    model = nnx.Model.load(tmp_path / "m.model")
    assert repr(model.optimizer) == "Optimizer_SGD(learning_rate=0.1, decay=0.01)"
    assert model.optimizer.iterations == 6
    assert all(name.startswith("area=") for name in model.table.input_names)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Layer_Dense", "Activation_ReLU", "Layer_Dropout"] * 2 + ["Layer_Dense", "Activation_Linear"]
    assert model.layers[0].weight_regularizer_l2 == 0.001
    assert model.layers[2].rate == 0.75
    assert model.layers[2].seed != model.layers[5].seed


def test_every_built_in_optimizer_can_be_chosen(tmp_path):
    assert "{" + ",".join(sorted(name.removeprefix("Optimizer_").lower() for name in nnx.optimizers.__all__)) + "}" in (
        "".join(run("train", "--help", cwd=tmp_path).stdout.split())
    )
    done = run("train", "sine", "--epochs", "1", "--optimizer", "adamw", "-o", "m.model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert type(nnx.Model.load(tmp_path / "m.model").optimizer) is nnx.Optimizer_AdamW


def test_without_rows_to_test_on_the_figures_are_those_of_the_training(tmp_path, flats):
    done = run("train", "flats.csv", "--target", "rent", "--test-size", "0", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "200 samples to train on, 0 to test" in done.stdout
    assert "\ntest " not in done.stdout
    assert (tmp_path / "flats.png").exists()


def test_a_diverged_training_saves_nothing(tmp_path, flats):
    done = run("train", "flats.csv", "--target", "rent", "--optimizer", "sgd", "--rate", "1e9", *QUICK, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("nnx train: training diverged in epoch 1, step ")
    assert last.endswith(" is not finite. No model is saved. Try a smaller --rate or --l2.")
    assert "Warning" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["flats.csv"]


def test_train_without_matplotlib_says_what_to_install(tmp_path):
    inside = tmp_path / "matplotlib"
    inside.mkdir()
    (inside / "__init__.py").write_text("raise ImportError('not here')")
    done = run("train", "--epochs", "1", "--samples", "20", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.splitlines()[-1] == "To draw pictures, install matplotlib: python -m pip install 'nnx-core[plot]'"
    )


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_keeps_the_model_so_far(tmp_path):
    arguments = [sys.executable, "-m", "nnx", "train", "--epochs", "1000000"]
    process = subprocess.Popen(
        arguments,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # it is ignored in background jobs
    )
    assert process.stdout.readline().startswith("spiral: 3,000 samples")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "steps. The model is saved as it is now." in out
    assert "test      accuracy" in out
    assert "Traceback" not in err
    assert nnx.Model.load(tmp_path / "spiral.safetensors").optimizer.iterations > 0


# Images


@pytest.fixture
def shapes(tmp_path, rng):
    """Return a folder of images of two classes, 8 by 6 pixels: an upright bar, or a level one."""
    folder = tmp_path / "my shapes"
    for number in range(40):
        pixels = rng.integers(0, 60, (8, 6), np.uint8)
        name, place = ("level bar", (number % 8, slice(None))) if number % 2 else ("upright", (slice(None), number % 6))
        pixels[place] = 255
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_a_folder_of_images_is_trained_on_predicted_and_judged(tmp_path, shapes):
    done = run("train", "my shapes/", "--epochs", "80", "--mistakes", "m.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "my shapes: 32 images of 8 × 6 pixels, grey, to train on, 8 to test; 2 classes."
    assert lines[1].startswith(
        "Training 48-128-128-2 for 80 epochs (adam, rate 0.001, decay 0.001, batch 32, l2 0.001)"
    )
    assert lines[-2] == f"Picture saved to {tmp_path / 'my shapes.png'}"
    assert re.fullmatch(r"No mistakes among 8 images, so m\.png is not written\.|Mistakes saved to .*m\.png", lines[-1])
    model = nnx.Model.load(tmp_path / "my shapes.safetensors")
    assert model.images.classes == ("level bar", "upright")
    predicted = run("predict", "my shapes.safetensors", "my shapes/upright/10.png", "my shapes/level bar", cwd=tmp_path)
    rows = predicted.stdout.splitlines()
    assert rows[0] == "file,class,probability"
    assert rows[1].startswith("my shapes/upright/10.png,upright,")
    assert rows[2].startswith("my shapes/level bar/1.png,level bar,")
    assert rows[3].startswith("my shapes/level bar/3.png,")
    assert len(rows) == 22
    assert (predicted.returncode, predicted.stderr) == (0, "21 images predicted to standard output.\n")
    each = run("predict", "my shapes.safetensors", "--probabilities", "-o", "p.csv", "my shapes", cwd=tmp_path)
    assert each.stderr == "40 images predicted to 'p.csv'.\n"
    header, first = (tmp_path / "p.csv").read_text().splitlines()[:2]
    assert header == "file,class,probability of level bar,probability of upright"
    assert sum(map(float, first.split(",")[2:])) == pytest.approx(1, abs=1e-5)
    to_file = run("predict", "my shapes.safetensors", "my shapes/", "-o", "out.csv", cwd=tmp_path)
    assert (to_file.stdout, to_file.stderr) == ("", "40 images predicted to 'out.csv'.\n")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 41
    judged = run("evaluate", "my shapes.safetensors", "my shapes", cwd=tmp_path)
    assert float(re.match(r"40 samples: accuracy ([\d.]+)", judged.stdout)[1]) > 0.9
    info = run("info", "my shapes.safetensors", cwd=tmp_path).stdout
    assert "8 × 6 pixels, grey, input = (value - 127.5) / 127.5" in info
    assert "2 classes: level bar, upright" in info
    assert "pixel1" not in info


def test_images_of_another_size_are_resized_with_a_note(tmp_path, shapes):
    assert run("train", "my shapes", *QUICK, "--size", "4x3", cwd=tmp_path).stderr.count("Note: ") == 0
    Image.new("L", (60, 80), 255).save(tmp_path / "large.png")
    done = run("predict", "my shapes.safetensors", "large.png", cwd=tmp_path)
    assert done.stderr.splitlines() == [
        "Note: 1 of 1 images resized to 4 × 3 pixels, the first one from 80 × 60: 'large.png'.",
        "1 image predicted to standard output.",
    ]
    assert done.stdout.startswith("file,class,probability\nlarge.png,")
    Image.new("RGB", (60, 80), (9, 99, 9)).save(shapes / "upright" / "large.png")
    done = run("train", "my shapes", *QUICK, cwd=tmp_path)
    assert "Note: the images have 2 different sizes and are resized to 32 × 32 pixels. To choose another size: " in (
        done.stderr
    )
    assert "images of 32 × 32 pixels, colour, to train on" in done.stdout
    assert (
        "images of 32 × 32 pixels, grey, to train on"
        in run("train", "my shapes", *QUICK, "--grey", cwd=tmp_path).stdout
    )


def test_images_of_a_folder_are_tested_on_another_one(tmp_path, shapes):
    more = tmp_path / "more" / "upright"
    more.mkdir(parents=True)
    for number in range(3):
        Image.new("L", (6, 8), 0).save(more / f"{number}.png")
    done = run("train", "my shapes", *QUICK, "--test", "more", "-o", "m", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "40 images of 8 × 6 pixels, grey, to train on, 3 to test" in done.stdout
    assert run("evaluate", "m", "more", cwd=tmp_path).stdout.startswith("3 samples: accuracy ")
    more.rename(tmp_path / "more" / "other")
    done = run("evaluate", "m", "more", cwd=tmp_path)
    assert done.returncode == 2
    assert "holds the class 'other', which is not one of the 2 known classes: level bar, upright" in done.stderr


@pytest.mark.long("trains several times on images")
def test_figures_of_a_folder_of_images_have_its_class_names_and_other_splits_other_figures(tmp_path, shapes):
    done = run("train", "my shapes", *QUICK, "--repeat", "2", cwd=tmp_path)
    assert re.search(r"^ +level bar +\d", done.stdout, re.MULTILINE), done.stdout
    assert "2 runs, test data: mean ± standard deviation" in done.stdout
    first, second = (
        run("train", "my shapes", *QUICK, "--split-seed", seed, "-o", f"m{seed}", cwd=tmp_path) for seed in "12"
    )
    assert first.returncode == second.returncode == 0
    assert (tmp_path / "m1").read_bytes() != (tmp_path / "m2").read_bytes()


def test_mistakes_are_drawn_or_there_are_none(tmp_path, shapes):
    model = nnx.Model()
    model.add(nnx.Layer_Dense(48, 2))
    model.layers[0].weights[:] = 0
    model.layers[0].biases[:] = [[0, 1]]
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        accuracy=nnx.Accuracy_Categorical(),
        images=nnx.Images(8, 6, ["level bar", "upright"]),
    )
    model.finalize()
    model.save(tmp_path / "always upright")
    done = run("evaluate", "always upright", "my shapes", "--mistakes", "m.png", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == f"Mistakes saved to {tmp_path / 'm.png'}", done.stderr
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    for path in (shapes / "level bar").iterdir():
        path.unlink()
    done = run("evaluate", "always upright", "my shapes", "--mistakes", "none.png", cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "No mistakes among 20 images, so none.png is not written."
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("content", "reason"), [(b"no image", "is not an image"), (None, "cannot be read (image file is truncated")]
)
def test_an_odd_image_among_many_is_named(tmp_path, shapes, content, reason):
    (tmp_path / "whole.model").touch()
    path = shapes / "upright" / "10.png"
    path.write_bytes(path.read_bytes()[:70] if content is None else content)
    done = run("train", "my shapes", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"nnx train: 'my shapes/upright/10.png' {reason}")
    assert done.stderr.count("\n") == 1


def test_images_without_pillow_say_what_to_install(tmp_path, shapes):
    inside = tmp_path / "PIL"
    inside.mkdir()
    (inside / "__init__.py").write_text("raise ImportError('not here')")
    done = run("train", "my shapes", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "illow is not installed. Install it with: python -m pip install 'nnx-core[images]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_model_that_knows_fashion_mnist_as_a_table_is_still_judged(tmp_path, fashion):
    pixels = [nnx.data.columns.Number(f"pixel{number}", 127.5, 127.5) for number in range(1, 785)]
    model = nnx.Model()
    model.add(nnx.Layer_Dense(784, 10))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        accuracy=nnx.Accuracy_Categorical(),
        table=nnx.Table([nnx.data.columns.Text("label", nnx.FASHION_MNIST_CLASSES), *pixels], "label"),
    )
    model.finalize()
    model.save(tmp_path / "old.model")
    done = run("evaluate", "old.model", "fashion-mnist", "--folder", fashion / "fashion-mnist", cwd=tmp_path)
    assert done.stdout.startswith("50 samples: accuracy "), done.stderr


# Mistakes are answered in one sentence

WRONG = {
    "unknown command": (
        ["fly"],
        "nnx: argument COMMAND: must be one of 'train', 'predict', 'evaluate', 'serve', 'info', ",
    ),
    "unknown data": (
        ["train", "cats"],
        "argument DATA: must be spiral, binary, sine, fashion-mnist, a table's file or a folder, and there is "
        "no 'cats'",
    ),
    "unknown option": (["train", "--speed", "9"], "nnx train: unrecognized arguments: --speed"),
    "an option misspelt": (
        ["train", "spiral", "--epoch=2"],
        "nnx train: unrecognized arguments: --epoch=2. Did you mean '--epochs'? Try: nnx train --help",
    ),
    "the test file is the data": (
        ["train", "flats.csv", "--target", "rent", "--test", "./flats.csv"],
        "argument --test: must be other data than 'flats.csv', which the model is trained on, got './flats.csv'",
    ),
    "text and drop": (
        ["train", "flats.csv", "--target", "rent", "--text", "area", "--drop", "area"],
        "nnx train: drop must not hold a column that text holds, got 'area'",
    ),
    "text and drop without a target": (
        ["train", "flats.csv", "--text", "area", "--drop", "area"],
        "nnx train: drop must not hold a column that text holds, got 'area'",
    ),
    "epochs 0": (
        ["train", "--epochs", "0"],
        "nnx train: argument --epochs: must be a whole number of at least 1, got '0'",
    ),
    "epochs text": (["train", "--epochs", "ten"], "must be a whole number of at least 1, got 'ten'"),
    "samples": (
        ["train", "--samples", "-5"],
        "argument --samples: must be a whole number from 2 to 10000000, got '-5'",
    ),
    "seed": (
        ["train", "--seed", "4294967296"],
        "--seed: must be a whole number from 0 to 4294967295, got '4294967296'",
    ),
    "no value": (["train", "--epochs"], "argument --epochs: expected one argument"),
    "layers": (["train", "--layers", "64,x"], "argument --layers: must be whole numbers from 1 to 16384 with commas"),
    "rate": (["train", "--rate", "0"], "argument --rate: must be a number above 0, got '0'"),
    "rate nan": (["train", "--rate", "nan"], "argument --rate: must be a number above 0, got 'nan'"),
    "rate inf": (["train", "--rate", "inf"], "argument --rate: must be a number above 0, got 'inf'"),
    "dropout": (["train", "--dropout", "1"], "argument --dropout: must be a number of at least 0 and below 1, got '1'"),
    "optimizer": (["train", "--optimizer", "adamax"], ", 'sgd', got 'adamax'. Did you mean 'adam'? Try"),
    "no folder": (["train", "-o", "nowhere/m"], "-o/--output: path must be in an existing folder, got 'nowhere/m'"),
    "a folder": (["train", "-o", "."], "path must name a file, got '.'"),
    "a picture": (
        ["train", "-o", "spiral.png"],
        "argument -o/--output: must not end in .png, as the picture's file does, got",
    ),
    "no file": (["train", "-o", "nosuch/"], "path must name a file, got 'nosuch/'"),
    "a picture in capitals": (["train", "-o", "m.PNG"], "argument -o/--output: must not end in .png"),
    "column 0": (
        ["train", "flats.csv", "--target", "0"],
        "argument --target: must be a column's name or its number from 1 to 3, or from -1 to -3 as counted from the",
    ),
    "column 9 to drop": (
        ["train", "flats.csv", "--target", "rent", "--drop", "9"],
        "argument --drop: must be a column's name or its number from 1 to 3",
    ),
    "a seed for a table": (
        ["evaluate", "flats.model", "flats.csv", "--seed", "1"],
        "argument --seed: is for spiral and binary only, got it with 'flats.csv'",
    ),
    "a table's option for a folder": (
        ["train", ".", "--target", "a"],
        "argument --target: is for FILE.csv only, got it with '.'",
    ),
    "a folder without folders": (["train", "."], "'.' must hold a folder for each class"),
    "an image size": (["train", ".", "--size", "0"], "--size: must be pixels from 1 to 4096, as 32 or HEIGHTxWIDTH"),
    "an image size of three": (["train", ".", "--size", "3x4x5"], "--size: must be pixels from 1 to 4096"),
    "mistakes of points": (
        ["train", "spiral", "--mistakes", "m.png"],
        "argument --mistakes: is for fashion-mnist and FOLDER/ only, got it with 'spiral'",
    ),
    "mistakes without an ending": (["train", ".", "--mistakes", "m"], "--mistakes: must end in .png, got 'm'"),
    "mistakes over the picture": (
        ["train", ".", "-o", "m", "--mistakes", "m.png"],
        "argument --mistakes: must not be where model or picture go, got 'm.png'",
    ),
    "mistakes of a table": (
        ["evaluate", "flats.model", "flats.csv", "--mistakes", "m.png"],
        "argument --mistakes: is for models of images only, and 'flats.model' is a table's model",
    ),
    "two tables": (
        ["predict", "flats.model", "flats.csv", "broken.csv"],
        "argument DATA: must be one CSV file, got 2 files",
    ),
    "no target": (
        ["train", "flats.csv"],
        "argument --target: must name the column to predict. 'flats.csv' has area, town, rent",
    ),
    "another target": (
        ["train", "flats.csv", "--target", "price"],
        "nnx train: 'flats.csv' has no column 'price' for target. Its columns are area, town, rent",
    ),
    "a column that is not there": (
        ["train", "flats.csv", "--target", "rent", "--drop", "id"],
        "'flats.csv' has no column 'id' for drop",
    ),
    "output is input": (
        ["train", "flats.csv", "--target", "rent", "-o", "./flats.csv"],
        "argument -o/--output: must not replace 'flats.csv', which is read, got './flats.csv'",
    ),
    "a table's option": (
        ["train", "spiral", "--target", "rent"],
        "argument --target: is for FILE.csv only, got it with 'spiral'",
    ),
    "a spiral's option": (
        ["train", "flats.csv", "--target", "rent", "--samples", "5"],
        "argument --samples: is for spiral and binary and sine only, got it with 'flats.csv'",
    ),
    "both test options": (
        ["train", "flats.csv", "--target", "rent", "--test", "flats.csv", "--test-size", "0.1"],
        "argument --test-size: not allowed with argument --test",
    ),
    "a text among numbers": (
        ["train", "broken.csv", "--target", "rent"],
        "nnx train: 'broken.csv', line 3, holds 'many' in column 'area', whose other cells are numbers",
    ),
    "no test file": (["train", "flats.csv", "--target", "rent", "--test", "no.csv"], "there is no file 'no.csv'"),
    "no images": (
        ["train", "fashion-mnist", "--folder", "nowhere"],
        "nnx train: 'train-images-idx3-ubyte.gz' is not in ",
    ),
    "no model": (["predict", "none.model", "flats.csv"], "nnx predict: 'none.model': No such file or directory"),
    "no model file": (["predict", "flats.csv", "flats.csv"], "nnx predict: 'flats.csv' is not a safetensors file"),
    "no rows": (["predict", "flats.model", "none.csv"], "nnx predict: there is no file 'none.csv'"),
    "a missing column": (
        ["predict", "flats.model", "narrow.csv"],
        "nnx predict: 'narrow.csv' has no column 'area'. Its columns are town, rent",
    ),
    "an unknown category": (
        ["predict", "flats.model", "abroad.csv"],
        "'abroad.csv', line 2, holds 'Bern' in column 'town', which is not one of the 3 known values: Graz, Linz, Wien",
    ),
    "no number": (
        ["predict", "flats.model", "broken.csv", "-o", "out.csv"],
        "nnx predict: 'broken.csv', line 3, holds 'many' in column 'area', which must hold numbers",
    ),
    "predictions over the rows": (
        ["predict", "flats.model", "flats.csv", "-o", "flats.csv"],
        "argument -o/--output: must not replace 'flats.csv', which is read",
    ),
    "predictions over the model": (
        ["predict", "flats.model", "flats.csv", "-o", "flats.model"],
        "argument -o/--output: must not replace 'flats.model', which is read",
    ),
    "a model without a table": (
        ["predict", "bare.model", "flats.csv"],
        "argument MODEL: must hold the columns of a table, or the size of images, and 'bare.model' holds neither",
    ),
    "another data set": (
        ["evaluate", "flats.model", "spiral"],
        "nnx evaluate: argument MODEL: must have been trained on spiral, got 'flats.model'",
    ),
    "no targets": (["evaluate", "flats.model", "untold.csv"], "nnx evaluate: 'untold.csv' has no column 'rent'"),
    "info extra": (["info", "now", "here"], "unrecognized arguments: here"),
    "info on no model": (["info", "flats.csv"], "nnx info: 'flats.csv' is not a safetensors file"),
}


@pytest.fixture
def files(tmp_path, flats):
    """Write the tables and models for the mistakes into the folder."""
    (tmp_path / "broken.csv").write_text("area,town,rent\n50,Graz,500\nmany,Linz,600\n60,Linz,600\n")
    (tmp_path / "narrow.csv").write_text("town,rent\nGraz,500\n")
    (tmp_path / "abroad.csv").write_text("area,town\n50,Bern\n")
    (tmp_path / "untold.csv").write_text("area,town\n50,Graz\n")
    table = nnx.load_csv(flats, "rent")[4]
    model = nnx.Model()
    model.add(nnx.Layer_Dense(table.n_inputs, 1))
    model.finalize()
    model.save(tmp_path / "bare.model")
    model.set(table=table)
    model.set(loss=nnx.Loss_MeanSquaredError(), optimizer=nnx.Optimizer_Adam(), accuracy=nnx.Accuracy_Regression())
    model.save(tmp_path / "flats.model")
    return tmp_path


def test_wrong_arguments_get_one_sentence_exit_code_2_and_leave_no_trace(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    for case, (arguments, sentence) in WRONG.items():
        with pytest.raises(SystemExit) as left:
            main(arguments)
        out, err = capsys.readouterr()
        assert left.value.code == 2, case
        assert out == "", case
        assert sentence in err, (case, err)
        assert err.count("\n") == 1, case
        assert {path.name: path.read_bytes() for path in files.iterdir()} == before, case


#: Mistakes about files, or with a command as the answer. The help text would not help here.
ABOUT_FILES = (
    *("a folder without folders", "another target", "a column that is not there", "a text among numbers"),
    *("no test file", "no images", "no model", "no model file", "no rows", "a missing column", "an unknown category"),
    *("text and drop", "text and drop without a target", "no target", "no number", "a model without a table"),
    *("another data set", "no targets", "info on no model"),
)


def test_help_on_arguments_is_offered_for_wrong_arguments_and_not_for_files(files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    assert set(ABOUT_FILES) < set(WRONG)
    for case, (arguments, _) in WRONG.items():
        with pytest.raises(SystemExit):
            main(arguments)
        told = capsys.readouterr().err
        assert told.endswith("--help\n") == (case not in ABOUT_FILES), f"{case}: {told}"


def test_a_mistake_ends_the_process_with_exit_code_2(tmp_path):
    done = run("train", "--epochs", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_full_disk_while_predicting_leaves_nothing(files, capsys, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(files)
    monkeypatch.setattr(os, "fsync", fail)
    before = sorted(os.listdir())
    assert main(["predict", "flats.model", "flats.csv", "-o", "out.csv"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("failing", ["model", "picture"])
def test_a_full_disk_while_training_is_one_sentence_and_leaves_nothing_half(files, capsys, monkeypatch, failing):
    calls = []

    def fail(descriptor):
        calls.append(descriptor)
        if len(calls) == {"model": 1, "picture": 3}[failing]:  # the model, its folder, the picture
            raise OSError(28, "No space left on device")

    monkeypatch.chdir(files)
    monkeypatch.setattr(os, "fsync", fail)
    before = set(os.listdir())
    assert main(["train", "flats.csv", "--target", "rent", *QUICK]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("nnx train: ")
    assert set(os.listdir()) - before == ({"flats.safetensors"} if failing == "picture" else set())


def test_too_little_memory_is_one_sentence(files, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.chdir(files)
    monkeypatch.setattr(nnx.Model, "predict", fail)
    assert main(["predict", "flats.model", "flats.csv"]) == 1
    assert capsys.readouterr().err == "nnx predict: there is not enough memory for this.\n"


def test_a_network_that_is_down_is_one_sentence_and_exit_code_1(files, capsys, monkeypatch):
    monkeypatch.setattr(nnx.data.fashion_mnist, "FASHION_MNIST_ADDRESS", "http://127.0.0.1:9/")
    assert main(["train", "fashion-mnist", "--download", "--folder", str(files / "new"), "-o", str(files / "m")]) == 1
    assert re.match(
        r"nnx train: '.*' could not be fetched from http://127.0.0.1:9/.* \(.*\)\.\n$", capsys.readouterr().err
    )


@pytest.mark.skipif(os.name != "posix", reason="uses a shell pipe")
def test_a_model_is_saved_though_nobody_reads_the_figures(tmp_path):
    command = f"{sys.executable} -m nnx train --epochs 2 --samples 20 2>/dev/null | head -1"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=buffered, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("spiral: 60 samples")
    assert nnx.Model.load(tmp_path / "spiral.safetensors").optimizer.iterations == 2


def test_ctrl_c_before_the_first_step_keeps_the_older_model(files, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.chdir(files)
    monkeypatch.setattr(nnx.Model, "train", interrupted)
    before = (files / "flats.model").read_bytes()
    assert main(["train", "flats.csv", "--target", "rent", "-o", "flats.model", *QUICK]) == 130
    assert capsys.readouterr().err == "Stopped before the first step. No model is saved.\n"
    assert (files / "flats.model").read_bytes() == before


def test_predictions_have_as_many_digits_as_the_target_needs(tmp_path):
    rows = "".join(f"{i},{1_700_000_000 + 10 * i}\n" for i in range(300))
    (tmp_path / "times.csv").write_text("x,time\n" + rows)
    run("train", "times.csv", "--target", "time", "--layers", "64,64", cwd=tmp_path)
    predicted = run("predict", "times.safetensors", "times.csv", cwd=tmp_path).stdout.split()[1:]
    assert all(re.fullmatch(r"\d+\.\d{3}", value) for value in predicted)
    errors = [float(value) - (1_700_000_000 + 10 * i) for i, value in enumerate(predicted)]
    assert max(map(abs, errors)) < 100
    (tmp_path / "small.csv").write_text("x,y\n" + "".join(f"{i},{i * 1e-9}\n" for i in range(300)))
    run("train", "small.csv", "--target", "y", *QUICK, cwd=tmp_path)
    predicted = run("predict", "small.safetensors", "small.csv", cwd=tmp_path).stdout.split()[1:]
    assert all(re.fullmatch(r"-?0\.\d{13}", value) for value in predicted)


@pytest.mark.long("starts several processes: pipes are between them")
def test_predictions_in_a_pipe_are_utf_8_as_in_a_file(tmp_path, rng):
    rows = [f"{value:.3f},{'東京' if value > 0 else '大阪'}" for value in rng.normal(size=50)]
    (tmp_path / "towns.csv").write_text("\n".join(["x,town", *rows]) + "\n", encoding="utf-8")
    run("train", "towns.csv", "--target", "town", *QUICK, cwd=tmp_path, PYTHONIOENCODING="utf-8")
    command = [sys.executable, "-m", "nnx", "predict", "towns.safetensors", "towns.csv"]
    piped = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, capture_output=True, timeout=60
    ).stdout
    subprocess.run([*command, "-o", "out.csv"], cwd=tmp_path, check=True, timeout=60)
    assert piped.decode("utf-8").split(",")[1].startswith("probability\n")
    assert piped.replace(b"\r\n", b"\n") == (tmp_path / "out.csv").read_bytes()


def test_rows_without_an_answer_are_refused(files):
    model = nnx.Model.load(files / "flats.model")
    model.layers[0].weights[:] = 3e38
    model.save(files / "huge.model")
    done = run("predict", "huge.model", "flats.csv", cwd=files)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(r"nnx predict: outputs must be finite numbers, got \[-?inf\] in row \d+\.$", done.stderr)


def test_a_test_part_of_one_value_has_no_r_squared(tmp_path, flats):
    (tmp_path / "one.csv").write_text("area,town,rent\n50,Graz,500\n")
    done = run("train", "flats.csv", "--target", "rent", "--test", "one.csv", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\ntest      R² undefined (all targets are the same), mean absolute error " in done.stdout


@pytest.mark.few
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["info"], ["predict", "flats.model", "flats.csv"]])
def test_output_that_cannot_be_written_is_one_sentence(files, arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nnx", *arguments],
            cwd=files,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == f"nnx {arguments[0]}: [Errno 28] No space left on device\n"


@pytest.mark.long("starts three processes that train and draw")
@pytest.mark.skipif(os.name != "posix", reason="Windows has other limits for names")
def test_long_and_odd_file_names_work_and_too_long_ones_are_refused_before_training(tmp_path, flats):
    long = "m" * 250
    done = run("train", "flats.csv", "--target", "rent", "-o", long, *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {long, f"{long}.png"} <= set(os.listdir(tmp_path))
    done = run("train", "flats.csv", "--target", "rent", "-o", "m" * 256, *QUICK, cwd=tmp_path)
    assert done.returncode == 2
    assert "path must name a possible file" in done.stderr
    odd = os.fsdecode(b"caf\xe9.csv")
    os.rename(flats, tmp_path / odd)
    done = subprocess.run(
        [sys.executable, "-m", "nnx", "train", odd, "--target", "rent", *QUICK],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_picture_has_the_models_name(tmp_path):
    for output, picture in (
        ("run.1", "run.1.png"),
        ("run.2", "run.2.png"),
        ("a.b.model", "a.b.png"),
        ("bare", "bare.png"),
    ):
        done = run("train", "--epochs", "1", "--samples", "20", "-o", output, cwd=tmp_path)
        assert done.stdout.splitlines()[-1] == f"Picture saved to {tmp_path / picture}"


@pytest.mark.long("starts a process that trains and draws")
def test_letters_that_the_terminal_lacks_stop_nothing(tmp_path):
    done = run("train", "sine", "--epochs", "1", "--samples", "50", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\ntest      R\\xb2 " in done.stdout
    assert (tmp_path / "sine.png").exists()


@pytest.mark.long("starts two processes that train and draw")
def test_any_text_may_name_columns_and_classes(tmp_path, rng):
    names = ["$0 - $10", "$10-$20", "中文", "a\\b_c^d{"]
    rows = [f"{value:.3f},{names[int(value)]}" for value in rng.uniform(0, 4, 80)]
    (tmp_path / "odd.csv").write_text("\n".join(["cost_$_per_$ 元,class ${", *rows]) + "\n", encoding="utf-8")
    done = run("train", "odd.csv", "--target", "class ${", *QUICK, cwd=tmp_path, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert (tmp_path / "odd.png").exists()
    rows = [f"{value:.3f},{2 * value:.3f}" for value in rng.uniform(0, 4, 80)]
    (tmp_path / "cost$$.csv").write_text("\n".join(["cost_$_per_$,class ${x$", *rows]) + "\n")
    done = run("train", "cost$$.csv", "--target", "2", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_columns_may_be_numbered_on_the_command_line(tmp_path, flats):
    for options in (["--target", "3", "--drop", "1"], ["--target", "-1", "--drop", "-3"]):
        done = run("train", "flats.csv", *options, *QUICK, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        table = nnx.Model.load(tmp_path / "flats.safetensors").table
        assert table.target.name == "rent"
        assert table.input_names == ["town=Graz", "town=Linz", "town=Wien"]
    (tmp_path / "years.csv").write_text("2,1\n" + "".join(f"{i},{i}.5\n" for i in range(30)))
    assert run("train", "years.csv", "--target", "2", "--header", *QUICK, cwd=tmp_path).returncode == 0
    assert nnx.Model.load(tmp_path / "years.safetensors").table.input_names == ["1"]  # a name comes before a number


def test_a_model_that_ends_in_no_probability_predicts_without_one(files):
    table = nnx.Table([nnx.data.columns.Number("x"), nnx.data.columns.Text("y", ("a", "b"))], "y")
    model = nnx.Model()
    model.add(nnx.Layer_Dense(1, 2))
    model.layers[0].weights[:] = [[1, -1]]
    model.set(loss=nnx.Loss_MeanSquaredError(), accuracy=nnx.Accuracy_Categorical(), table=table)
    model.finalize()
    model.save(files / "scores.model")
    (files / "x.csv").write_text("x,y\n3,a\n-3,b\n")
    assert run("predict", "scores.model", "x.csv", cwd=files).stdout == "y\na\nb\n"
    judged = run("evaluate", "scores.model", "x.csv", cwd=files)
    assert judged.stdout.startswith(
        "2 samples: accuracy 1.000 (baseline 0.500), balanced accuracy 1.000 (0.500), AUC 1.000 (0.500)\n"
    )


# nnx info


def test_info_shows_what_is_in_a_model_file(files):
    done = run("info", "flats.model", cwd=files)
    assert done.returncode == 0, done.stderr
    assert "Layer_Dense(4, 1)" in done.stdout
    assert "loss       Loss_MeanSquaredError()" in done.stdout
    assert "  'town': 3 categories (Graz, Linz, Wien)," in done.stdout


def test_info_names_versions_backend_and_reason(backend):
    done = run("info", NNX_BACKEND=backend)
    assert done.returncode == 0
    for line in (f"nnx          {nnx.__version__}", f"numpy        {np.__version__}"):
        assert line in done.stdout
    assert f"backend      {backend}: NNX_BACKEND={backend} asks for it\n" in done.stdout
    assert f"built        {', '.join(_kernels.built)}\n" in done.stdout
    assert f"backend      {_kernels.usable[0]}: " in run("info", NNX_BACKEND="").stdout


def test_info_measures_what_the_machine_can_do(backend):
    done = run("info", "--measure")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = dict(re.findall(r"^(peak|cache line|memory) +(.*)$", done.stdout, re.M))
    number = r"\d+(\.\d)?"
    assert re.fullmatch(f"{number} GB/s copied by one core", found["memory"])
    if backend == "numpy":
        assert found["peak"] == "not measured: numpy has no compiled kernels"
        assert found["cache line"] == "not measured: it needs compiled kernels, and two processors"
    else:
        assert re.fullmatch(f"{number} GFLOP/s in float32, {number} GFLOP/s in float64, one core", found["peak"])
        assert re.fullmatch(f"({number}( to {number})? ns there and back .*|not measured: .*)", found["cache line"])


def test_a_line_that_nobody_passes_back_is_not_waited_for_long(backend):
    if backend == "numpy":
        pytest.skip("measured by compiled kernels only")
    assert not _kernels.backend._pass_line(np.zeros(16, np.int32), 0, 2)
    for wrong in (np.zeros(16), np.zeros(15, np.int32), np.zeros(32, np.int32)[::2]):
        with pytest.raises(ValueError, match=r"^_pass_line: line must be"):
            _kernels.backend._pass_line(wrong, 0, 2)


@pytest.mark.parametrize("wrong", ["cuda", "native-sse9", "NUMPY"])
def test_a_backend_that_does_not_exist_is_refused(wrong):
    done = run("info", NNX_BACKEND=wrong)
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("ImportError: NNX_BACKEND must be one of: numpy, native, ")
    assert f"got {wrong!r}." in done.stderr


@pytest.mark.parametrize("command", [[], ["train"], ["predict"], ["evaluate"], ["info"]])
def test_help_shows_an_example(command):
    done = run(*command, "--help")
    assert done.returncode == 0
    assert "example: nnx " in done.stdout


def test_no_command_shows_the_help_and_version_the_version():
    assert run().stdout.startswith("usage: nnx")
    assert run("--version").stdout == f"nnx {nnx.__version__}\n"


@pytest.mark.long("starts several processes: pipes are between them")
@pytest.mark.skipif(os.name != "posix", reason="uses a shell pipe")
def test_a_reader_that_leaves_early_gets_no_traceback():
    command = f"for i in 1 2 3 4 5; do {sys.executable} -m nnx info | head -0; done"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_names_in_capitals_stay_as_they_are_in_messages():
    done = run("train", "spiral", "--epochs", "1", NNX_NUM_THREADS="0")
    assert done.returncode == 2
    assert "NNX_NUM_THREADS must be a whole number from 1 to 256, got '0'" in done.stderr


# Early stopping, and other parts of the vocabulary


def test_patience_stops_on_samples_held_out_of_training(tmp_path, capsys):
    model, out, err = trained(tmp_path, capsys, "sine", "--samples", "100", "--epochs", "400", "--patience", "3")
    assert "sine: 90 samples to train on, 99 to test" in out
    assert "Held out of training: 10 samples. Their loss decides when to stop." in out
    assert re.search(r"stopped after epoch \d+: validation_loss has not improved since epoch \d+", err)
    assert model.optimizer.iterations < 400 * 2


def test_of_each_class_the_same_share_is_held_out(tmp_path):
    X = np.arange(60.0)[:, None]
    y = np.repeat([0, 1, 2], [30, 20, 10])
    task = tasks.Task("test", X, y, X[:0], y[:0], None, tasks.SOFTMAX, tasks.Settings(), None)
    split = tasks.hold_out(task, 3)
    assert np.bincount(split.validation[1]).tolist() == [3, 2, 1]
    assert sorted([*split.X[:, 0], *split.validation[0][:, 0]]) == X[:, 0].tolist()
    numbers = tasks.hold_out(replace(task, y=X, output=tasks.LINEAR), 3)
    assert [len(numbers.X), len(numbers.validation[1])] == [54, 6]
    few = tasks.hold_out(replace(task, X=X[:2], y=y[:2]), 3)
    assert [len(few.X), len(few.validation[1])] == [1, 1]


def test_the_vocabularys_names_can_be_chosen(tmp_path, capsys):
    arguments = ("--activation", "leakyrelu", "--loss", "huber", "--schedule", "cosine", "--batch", "30")
    model, out, _ = trained(tmp_path, capsys, "sine", "--samples", "60", "--epochs", "3", *arguments)
    assert "decay 0, batch 30, leakyrelu, loss huber, schedule cosine)" in out
    assert repr(model.layers[1]) == "Activation_LeakyReLU()"
    assert repr(model.loss) == "Loss_Huber()"
    assert repr(model.optimizer.schedule) == "Schedule_Cosine(6)"
    assert model.optimizer.decay == 0


@pytest.mark.few
@pytest.mark.parametrize("schedule", ["cosine", "exponential", "onecycle", "polynomial", "step", "warmup"])
def test_every_schedule_trains_even_a_run_of_one_step(schedule, tmp_path, capsys):
    model, _, _ = trained(tmp_path, capsys, "sine", "--samples", "9", "--epochs", "1", "--schedule", schedule)
    assert model.optimizer.iterations == 1
    assert model.optimizer.schedule is not None


@pytest.mark.few
@pytest.mark.parametrize(("loss", "data"), [("hinge", "binary"), ("pinball", "sine"), ("logcosh", "sine")])
def test_losses_that_suit_the_task_train(loss, data, tmp_path, capsys):
    model, _, _ = trained(tmp_path, capsys, data, "--samples", "30", "--epochs", "2", "--loss", loss)
    assert type(model.loss).__name__.lower() == f"loss_{loss}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["spiral", "--loss", "huber"], "argument --loss: must be categoricalcrossentropy to predict several classes"),
        (
            ["binary", "--loss", "poisson"],
            "argument --loss: must be binarycrossentropy or hinge to predict two classes",
        ),
        (["sine", "--loss", "poisson"], "to predict a standardized number, got 'poisson'"),
        (["sine", "--loss", "l2"], "argument --loss: must be one of 'binarycrossentropy', 'categoricalcrossentropy', "),
        (["sine", "--activation", "re"], "argument --activation: must be one of 'elu', 'gelu', "),
        (["sine", "--schedule", "cos"], "argument --schedule: must be one of 'cosine', 'exponential', "),
        (["sine", "--patience", "0"], "argument --patience: must be a whole number of at least 1, got '0'"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_those_that_do(arguments, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        nnx.cli.main(["train", *arguments])
    assert error.value.code == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def trained(tmp_path, capsys, *arguments):
    """Return the model that a command trains and saves, and what it prints."""
    path = tmp_path / "model.safetensors"
    assert nnx.cli.main(["train", *arguments, "--output", str(path)]) == 0
    return nnx.Model.load(path), *capsys.readouterr()
