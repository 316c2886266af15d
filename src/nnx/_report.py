"""What `Model.train` and `Model.evaluate` show: the book's lines, and the progress bar."""

from __future__ import annotations

from typing import Any


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


class Report:
    """Prints lines to stdout and, if wanted, moves a tqdm bar on stderr, which lines then pass above.

    Parameters
    ----------
    print_every : int or None
        Which steps get a line; None prints nothing at all.
    progress : bool
        Show the bar.
    n_steps : int
        Steps of the whole run.
    """

    def __init__(self, print_every: int | None, progress: bool, n_steps: int) -> None:
        self.print_every = print_every
        self._bar: Any = None
        if progress:
            from tqdm import tqdm

            class Bar(tqdm):  # type: ignore[type-arg]
                monitor_interval = 0  # tqdm's own thread would outlive the training and make a fork unsafe

            self._bar = Bar(total=n_steps, unit="step", dynamic_ncols=True)

    def line(self, text: str) -> None:
        """Print a line, unless nothing is to be printed."""
        if self.print_every is None:
            return
        if self._bar is None:
            print(text)
        else:
            self._bar.write(text)

    def wants(self, step: int, last: bool) -> bool:
        """Return whether this step of an epoch gets a line."""
        return self.print_every is not None and (last or step % self.print_every == 0)

    def advance(self, data_loss: float, regularization_loss: float, accuracy: float, rate: float) -> None:
        """Move the bar by one step."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {data_loss + regularization_loss:.3f}, acc {accuracy:.3f}", refresh=False)
            self._bar.update()

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()
