"""The output of `Model.train`: long runs print fewer lines, small losses keep useful digits. Also the progress bar."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from networks import classifier, regression

import nnx
from nnx._base import printing
from nnx._base.printing import Lines, amount_text, figure_text

pytestmark = pytest.mark.one_backend


class Eager(nnx.Model):
    """Trains layer by layer, like every model with a custom part."""

    def forward(self, X, training):
        return super().forward(X, training)


def eager(model):
    model.__class__ = Eager
    return model


def blocks(out):
    """Return the lines of each epoch by its number, and the lines before the first."""
    head, *rest = re.split(r"^epoch: (\d+)\n", out, flags=re.MULTILINE)
    return head.splitlines(), {
        int(number): text.splitlines() for number, text in zip(rest[::2], rest[1::2], strict=True)
    }


both_ways = pytest.mark.parametrize("way", [lambda model: model, eager], ids=["plan", "layer by layer"])


@both_ways
def test_the_chapter_on_regression_prints_some_hundred_lines(capsys, way):
    X, y = nnx.sine_data(20)
    history = way(regression()).train(X.repeat(2, axis=1), y, epochs=2000, print_every=100)
    out = capsys.readouterr().out
    assert out.count("\n") <= 310
    head, printed = blocks(out)
    assert head == ["Printing one epoch in 20; the history has all figures."]
    assert list(printed) == [1, *range(20, 2001, 20)]
    assert {len(lines) for lines in printed.values()} == {2}
    loss = history.loss[39]
    assert f"loss: {printing._loss(loss)} " in printed[40][1]
    assert len(history.loss) == 2000


@both_ways
@pytest.mark.parametrize("validated", [False, True])
def test_the_steps_of_an_epoch_thin_out_before_epochs_do(capsys, way, validated):
    X, y = np.ones((200, 2)), np.zeros(200, int)
    held_out = (X[:5], y[:5]) if validated else None
    way(classifier()).train(X, y, epochs=10, batch_size=1, validation_data=held_out)
    head, printed = blocks(capsys.readouterr().out)
    assert head == ["Printing one step in 10; the history has all figures."]
    assert list(printed) == list(range(1, 11))
    for lines in printed.values():
        steps = [int(line.split()[1].rstrip(",")) for line in lines if line.startswith("step")]
        assert steps == [*range(0, 200, 10), 199]
        assert [line.split(",")[0] for line in lines[len(steps) :]] == ["training", "validation"][: 1 + validated]


@both_ways
def test_then_epochs_thin_out_with_their_validation(capsys, way):
    X, y = np.ones((6, 2)), np.zeros(6, int)
    way(classifier()).train(X, y, epochs=500, batch_size=2, validation_data=(X, y))
    head, printed = blocks(capsys.readouterr().out)
    assert head == ["Printing one epoch in 10 and one step in 5; the history has all figures."]
    assert list(printed) == [1, *range(10, 501, 10)]
    assert all([line.split(",")[0] for line in lines][-2:] == ["training", "validation"] for lines in printed.values())


@both_ways
def test_300_lines_are_printed_and_more_are_not(capsys, way):
    X, y = np.ones((6, 2)), np.zeros(6, int)
    way(classifier()).train(X, y, epochs=100)
    out = capsys.readouterr().out
    assert out.startswith("epoch: 1\n")
    assert out.count("\n") == 300
    way(classifier()).train(X, y, epochs=101)
    head, printed = blocks(capsys.readouterr().out)
    assert head == ["Printing one epoch in 2; the history has all figures."]
    assert list(printed) == [1, *range(2, 101, 2), 101]


def test_what_the_book_prints_of_fashion_mnist_is_printed_whole():
    lines = Lines.chosen(100, n_epochs=10, n_batches=469, validated=True)
    assert (lines.every_step, lines.every_epoch, lines.notice(100)) == (100, 1, "")


@pytest.mark.parametrize("print_every", [1, 7, 100, 10**9])
def test_every_run_prints_at_most_some_hundred_lines(print_every):
    for n_epochs, n_batches, validated in itertools.product(
        (1, 2, 10, 99, 301, 10_000, 10**7), (1, 2, 3, 10, 469, 10**6), (False, True)
    ):
        lines = Lines.chosen(print_every, n_epochs, n_batches, validated)
        n_blocks = min(n_epochs, n_epochs // lines.every_epoch + 2)
        assert n_blocks * (lines.n_steps + 2 + validated) <= 320
        assert lines.every_step % print_every == 0
        if n_batches < 1000:
            assert lines.n_steps == sum(map(lines.has_step, range(n_batches)))
        thinned = lines.every_step > print_every or lines.every_epoch > 1
        assert bool(lines.notice(print_every)) == thinned
        if thinned:
            whole = lines._replace(every_step=print_every, every_epoch=1)
            assert n_epochs * (whole.n_steps + 2 + validated) > 300


@both_ways
def test_a_resumed_run_prints_the_rest_of_a_thinned_one(capsys, way, tmp_path):
    X, y = np.ones((6, 2)), np.zeros(6, int)

    def seeded():
        np.random.seed(0)
        return way(classifier())

    seeded().train(X, y, epochs=400, batch_size=3)
    whole = capsys.readouterr().out
    seeded().train(X, y, epochs=203, batch_size=3, print_every=None, checkpoint=tmp_path / "c")
    seeded().train(X, y, epochs=400, batch_size=3, resume=tmp_path / "c")
    rest = capsys.readouterr().out
    assert rest.startswith("epoch: 2")
    assert whole.endswith(rest)


# Digits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (4.2e-5, "4.2e-05"),
        (0.00042, "0.00042"),
        (0.0005, "0.001"),
        (0.05, "0.050"),
        (12.3456, "12.346"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (1e-300, "1e-300"),
    ],
)
def test_a_loss_has_three_decimals_or_digits_that_say_something(value, text):
    assert printing._loss(value) == text
    assert f"loss: {text} " in printing.step_line(0, value, 0.0, 0.5, 0.1)
    assert printing.validation_line(value, 0.5).endswith(f"loss: {text}")


def test_large_losses_are_printed_as_the_book_does():
    assert "loss: 123456.750 (data_loss: 123456.500, reg_loss: 0.250)" in printing.epoch_line(123456.5, 0.25, 0.5, 1)


def test_scores_and_amounts_are_written_as_people_write_them():
    assert [figure_text(x) for x in (-2.4e6, -999.5, -2e-4, 0.5)] == ["-2.4e+06", "-999.500", "-0.0002", "0.500"]
    assert [amount_text(x) for x in (35912.4, 1e16, 0.01234, 0)] == ["35,912", "1e+16", "0.01234", "0"]


# The bar


@both_ways
def test_the_bar_of_a_regression_shows_the_loss_only(capsys, way):
    way(regression()).train(np.ones((8, 2)), np.arange(8.0), epochs=3, print_every=None, progress=True)
    err = capsys.readouterr().err
    assert re.search(r"3/3 .*, loss \d+\.\d{3}\]", err)
    assert "acc" not in err


@both_ways
def test_the_bar_of_a_classification_shows_the_accuracy_too(capsys, way):
    way(classifier()).train(np.ones((8, 2)), np.zeros(8, int), epochs=3, print_every=None, progress=True)
    assert re.search(r"3/3 .*, loss \d\.\d{3}, acc \d\.\d{3}\]", capsys.readouterr().err)
