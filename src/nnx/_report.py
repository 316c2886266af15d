"""What `Model.train` and `Model.evaluate` show: the book's lines, and the progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from nnx._typing import Array


def step_line(step: int, data_loss: float, regularization_loss: float, accuracy: float, rate: float) -> str:
    """Return the line of one step."""
    return f"step: {step}, {_figures(data_loss, regularization_loss, accuracy, rate)}"


def epoch_line(data_loss: float, regularization_loss: float, accuracy: float, rate: float) -> str:
    """Return the line of one epoch's training figures."""
    return f"training, {_figures(data_loss, regularization_loss, accuracy, rate)}"


def validation_line(loss: float, accuracy: float) -> str:
    """Return the line of an evaluation."""
    return f"validation, acc: {accuracy:.3f}, loss: {loss:.3f}"


def _figures(data_loss: float, regularization_loss: float, accuracy: float, rate: float) -> str:
    return (
        f"acc: {accuracy:.3f}, loss: {data_loss + regularization_loss:.3f} "
        f"(data_loss: {data_loss:.3f}, reg_loss: {regularization_loss:.3f}), lr: {rate}"
    )


def _rows(figures: Array, rate: Any) -> list[list[Any]]:
    """Return the figures of each step or epoch without the whole loss; with another rate if one is given."""
    rows: list[list[Any]] = figures[1:].T.tolist()
    if rate is not None:
        for row in rows:
            row[3] = rate
    return rows


class Report:
    """Prints lines to stdout and, if wanted, moves a tqdm bar on stderr, which lines then pass above.

    Parameters
    ----------
    print_every : int or None
        Which steps get a line; None prints nothing at all.
    progress : bool
        Show the bar, if there is a stderr.
    n_steps, done : int
        Steps of the whole run, and how many of them were done before.
    """

    def __init__(self, print_every: int | None, progress: bool, n_steps: int, done: int = 0) -> None:
        self.print_every = print_every
        self._bar: Any = None
        if progress and sys.stderr is not None:  # a program without a console has none
            from tqdm import tqdm

            class Bar(tqdm):  # type: ignore[type-arg]
                monitor_interval = 0  # tqdm's own thread would outlive the training and make a fork unsafe

            self._bar = Bar(total=n_steps, initial=done, unit="step", dynamic_ncols=True)

    def line(self, text: str) -> None:
        """Print a line, unless nothing is to be printed."""
        if self.print_every is None:
            return
        if self._bar is None or sys.stdout is None:
            print(text)
        else:
            self._bar.write(text)

    @property
    def is_silent(self) -> bool:
        """Whether nothing is shown at all."""
        return self.print_every is None and self._bar is None

    def wants(self, step: int, last: bool) -> bool:
        """Return whether this step of an epoch gets a line."""
        return self.print_every is not None and (last or step % self.print_every == 0)

    def run(self, epoch: int, step: int, n_batches: int, steps: Array, epochs: Array, rate: Any = None) -> None:
        """Report a run of steps at once.

        Parameters
        ----------
        epoch, step : int
            Where the run begins, both counted from 0; the step within the epoch.
        n_batches : int
            Steps of an epoch.
        steps, epochs : float64 arrays (5, n) and (5, m)
            Figures of the steps, and of the epochs that end among them.
        rate : number, optional
            The learning rate as it is to be printed, where it is the same for all.
        """
        if self.print_every is not None:
            lines = list(self._lines(epoch, step, n_batches, _rows(steps, rate), _rows(epochs, rate)))
            if lines:
                self.line("\n".join(lines))
        if self._bar is not None:
            data_loss, penalty, accuracy, rate = steps[1:, -1].tolist()
            self.advance(data_loss, penalty, accuracy, rate, steps.shape[1])

    def _lines(
        self, epoch: int, step: int, n_batches: int, steps: list[list[float]], epochs: list[list[float]]
    ) -> Iterator[str]:
        ends = iter(epochs)
        for figures in steps:
            if step == 0:
                yield f"epoch: {epoch + 1}"
            last = step == n_batches - 1
            if self.wants(step, last):
                yield step_line(step, *figures)
            step += 1
            if last:
                yield epoch_line(*next(ends))
                epoch, step = epoch + 1, 0

    def advance(self, data_loss: float, regularization_loss: float, accuracy: float, rate: float, n: int = 1) -> None:
        """Move the bar by ``n`` steps, of whose last these are the figures."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {data_loss + regularization_loss:.3f}, acc {accuracy:.3f}", refresh=False)
            self._bar.update(n)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
