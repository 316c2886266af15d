"""The output of `Model.train` and `Model.evaluate`: the book's lines, the progress bar, and the format of figures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

from nnx._base.typing import Array

#: Steps of an epoch of unknown length.
UNKNOWN_STEPS = 1 << 40
#: A run that would print more lines than this prints only some of its steps and epochs.
MAX_LINES = 300


# The format of figures


def figure_text(value: float) -> str:
    """Return a loss or a score: three decimals, or two digits if those would show nothing: 4.2e-05, -3.1e+05."""
    size = abs(value)
    return f"{value:.3f}" if 0.0005 <= size < 1000 or size == 0 else f"{value:.2g}"


def amount_text(value: float) -> str:
    """Return an amount in whatever unit, as a person would write it: 35,912 or 0.01234."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def _loss(value: float) -> str:
    """Return a loss as the book prints it, but a small one with useful digits."""
    return f"{value:.3f}" if value >= 0.0005 or value == 0 else f"{value:.2g}"


def step_line(step: int, data_loss: float, regularization_loss: float, accuracy: float, rate: float) -> str:
    """Return the line of one step."""
    return f"step: {step}, {_figures(data_loss, regularization_loss, accuracy, rate)}"


def epoch_line(data_loss: float, regularization_loss: float, accuracy: float, rate: float) -> str:
    """Return the line of one epoch's training figures."""
    return f"training, {_figures(data_loss, regularization_loss, accuracy, rate)}"


def validation_line(loss: float, accuracy: float) -> str:
    """Return the line of an evaluation."""
    return f"validation, acc: {accuracy:.3f}, loss: {_loss(loss)}"


def _figures(data_loss: float, regularization_loss: float, accuracy: float, rate: float) -> str:
    loss = data = _loss(data_loss)
    penalty = "0.000"
    if regularization_loss:  # formatting is most of what a line costs
        loss, penalty = _loss(data_loss + regularization_loss), _loss(regularization_loss)
    return f"acc: {accuracy:.3f}, loss: {loss} (data_loss: {data}, reg_loss: {penalty}), lr: {rate}"


# Which lines are printed


class Lines(NamedTuple):
    """The steps and epochs that get lines: the first, the last, and each whose number these divide.

    Steps are counted from 0 within an epoch, epochs from 1.
    """

    n_epochs: int
    n_batches: int
    every_step: int
    every_epoch: int

    @classmethod
    def chosen(cls, print_every: int, n_epochs: int, n_batches: int, validated: bool) -> Lines:
        """Return the lines of a run: all that ``print_every`` asks for, or those that fit into about `MAX_LINES`.

        First, fewer steps of an epoch get lines, then fewer epochs. The first and the last epoch are always printed.
        """
        if n_batches >= UNKNOWN_STEPS:
            return cls(n_epochs, n_batches, print_every, 1)
        others = 3 if validated else 2  # the epoch's number, its training figures, its validation figures
        lines = cls(n_epochs, n_batches, print_every, 1)
        for factor in _round_numbers():
            if n_epochs * (lines.n_steps + others) <= MAX_LINES or lines.every_step >= n_batches:
                break
            lines = lines._replace(every_step=print_every * factor)
        for factor in _round_numbers():
            if n_epochs // lines.every_epoch * (lines.n_steps + others) <= MAX_LINES or factor > n_epochs:
                break
            lines = lines._replace(every_epoch=factor)
        return lines

    @property
    def n_steps(self) -> int:
        """The number of steps of an epoch that get a line."""
        return -(-self.n_batches // self.every_step) + ((self.n_batches - 1) % self.every_step > 0)

    def has_epoch(self, epoch: int) -> bool:
        """Return whether an epoch, counted from 0, gets lines."""
        return (epoch + 1) % self.every_epoch == 0 or epoch in (0, self.n_epochs - 1)

    def has_step(self, step: int) -> bool:
        """Return whether a step, counted from 0 within its epoch, gets a line if its epoch does."""
        return step % self.every_step == 0 or step == self.n_batches - 1

    def notice(self, print_every: int) -> str:
        """Return the line that says what is not printed; empty if everything is printed."""
        parts = [f"one epoch in {self.every_epoch:,}"] if self.every_epoch > 1 else []
        if self.every_step > print_every:
            parts.append(f"one step in {self.every_step:,}")
        return f"Printing {' and '.join(parts)}; the history has all figures." if parts else ""


def _round_numbers() -> Iterator[int]:
    """Yield 1, 2, 5, 10, 20, 50 and so on."""
    return (digit * 10**power for power in count() for digit in (1, 2, 5))


def progress_bar(total: int | None, done: int, unit: str) -> Any:
    """Return a tqdm bar on stderr, or None if there is no stderr, as in a program without a console."""
    if sys.stderr is None:
        return None
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # tqdm's own thread would outlive the training and make a fork unsafe

    return Bar(total=total, initial=done, unit=unit, unit_scale=unit == "B", dynamic_ncols=True)


class Printer:
    """Prints lines to stdout and, if wanted, moves a tqdm bar on stderr. Lines then appear above the bar.

    Parameters
    ----------
    print_every : int or None
        The steps that get a line. None prints nothing at all.
    progress : bool
        Show the bar, if there is a stderr.
    n_epochs, n_batches : int
        Epochs of the whole run, and steps of an epoch; `UNKNOWN_STEPS` or more if unknown.
    done : int
        The number of steps done before.
    validated : bool
        Whether each epoch ends with a line of validation figures.
    shows_accuracy : bool
        Whether the bar shows the accuracy. That of a regression is 0.000 most of the time.
    """

    def __init__(
        self,
        print_every: int | None,
        progress: bool,
        n_epochs: int,
        n_batches: int,
        done: int = 0,
        *,
        validated: bool = False,
        shows_accuracy: bool = True,
    ) -> None:
        self._lines: Lines | None = None
        self._prints = False
        total = n_epochs * n_batches if n_batches < UNKNOWN_STEPS else None
        self._bar: Any = progress_bar(total, done, "step") if progress else None
        self._shows_accuracy = shows_accuracy
        if print_every is not None:
            self._lines = Lines.chosen(print_every, n_epochs, n_batches, validated)
            notice = self._lines.notice(print_every)
            if notice and done == 0:
                self._print(notice)
        self._enter(max(0, done - 1) // n_batches)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is shown at all."""
        return self._lines is None and self._bar is None

    def _enter(self, epoch: int) -> None:
        self._prints = self._lines is not None and self._lines.has_epoch(epoch)

    def _print(self, text: str) -> None:
        if self._bar is None or sys.stdout is None:
            print(text)
        else:
            self._bar.write(text)

    def learn_steps(self, n_batches: int) -> None:
        """Take the number of steps of an epoch, if it was unknown."""
        if self._lines is not None:
            self._lines = self._lines._replace(n_batches=n_batches)

    # Step by step

    def begin(self, epoch: int) -> None:
        """Begin an epoch, counted from 0. Print its number, if it gets lines."""
        self._enter(epoch)
        self.line(f"epoch: {epoch + 1}")

    def line(self, text: str) -> None:
        """Print a line of the current epoch, if that one gets lines."""
        if self._prints:
            self._print(text)

    def notice(self, text: str) -> None:
        """Print a line about the run itself, above the bar if nothing else is printed."""
        if self._lines is not None:
            self._print(text)
        elif self._bar is not None:
            self._bar.write(text, file=sys.stderr)

    def wants(self, step: int) -> bool:
        """Return whether this step of the current epoch, counted from 0, gets a line."""
        return self._prints and self._lines is not None and self._lines.has_step(step)

    def advance(self, data_loss: float, regularization_loss: float, accuracy: float, rate: float, n: int = 1) -> None:
        """Move the bar by ``n`` steps. The figures are those of the last step."""
        if self._bar is not None:
            shown = f"loss {figure_text(data_loss + regularization_loss)}"
            if self._shows_accuracy:
                shown += f", acc {accuracy:.3f}"
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(n)

    # Many steps at once

    def run(self, epoch: int, step: int, n_batches: int, steps: Array, epochs: Array, rate: Any = None) -> None:
        """Report a run of steps at once.

        Parameters
        ----------
        epoch, step : int
            Where the run begins: the epoch, and the step within it, both counted from 0.
        n_batches : int
            Steps of an epoch.
        steps, epochs : float64 arrays (5, n) and (5, m)
            Figures of the steps, and of the epochs that end among them.
        rate : number, optional
            The learning rate to print, if it is the same for all.
        """
        if self._lines is not None:
            lines = list(_lines_of_run(self._lines, epoch, step, _rows(steps, rate), _rows(epochs, rate)))
            if lines:
                self._print("\n".join(lines))
            self._enter(epoch + (step + steps.shape[1] - 1) // n_batches)
        if self._bar is not None:
            data_loss, penalty, accuracy, last_rate = steps[1:, -1].tolist()
            self.advance(data_loss, penalty, accuracy, last_rate, steps.shape[1])

    def __enter__(self) -> Printer:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _rows(figures: Array, rate: Any) -> list[list[Any]]:
    """Return the figures of each step or epoch without the total loss, and with ``rate`` if it is given."""
    rows: list[list[Any]] = figures[1:].T.tolist()
    if rate is not None:
        for row in rows:
            row[3] = rate
    return rows


def _lines_of_run(
    lines: Lines, epoch: int, step: int, steps: list[list[Any]], epochs: list[list[Any]]
) -> Iterator[str]:
    """Yield the lines of a run of steps that begins with this step of this epoch, both counted from 0."""
    start = -step  # where the epoch's first step is, or would be, among the steps
    for number in count(epoch):
        end = start + lines.n_batches
        if lines.has_epoch(number):
            if start >= 0:
                yield f"epoch: {number + 1}"
            for i in range(max(0, start), min(end, len(steps))):
                if lines.has_step(i - start):
                    yield step_line(i - start, *steps[i])
            if end <= len(steps):
                yield epoch_line(*epochs[number - epoch])
        start = end
        if start >= len(steps):
            return
