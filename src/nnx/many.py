"""`train_many`: several models at once, one thread each. Compiled calls run without the GIL, so small models scale."""

from __future__ import annotations

import contextvars
import inspect
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nnx._base import check, printing, random
from nnx._base.config import checked_threads, get_num_threads
from nnx._base.helpers import join
from nnx._base.interrupt import Interrupt, stopped_by
from nnx._base.text import abridged, near
from nnx._base.typing import ArrayLike
from nnx.callbacks import Callback
from nnx.engine import training
from nnx.engine.history import History
from nnx.engine.job import Job
from nnx.engine.plan import STORED
from nnx.engine.together import Shape, groups_of, shape_of
from nnx.engine.together import train as train_together
from nnx.files.model_files import bounds
from nnx.layers import walk
from nnx.model import Model

#: The longest time between Ctrl-C and the message to the runs.
SECONDS = 0.05
#: Attributes of layers that training replaces by new arrays, and never writes into.
SET_ANEW = (*STORED, "batch_mean", "batch_variance")

#: Keywords of `Model.train`, with their defaults.
KEYWORDS = {
    name: parameter.default
    for name, parameter in inspect.signature(Model.train).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name != "comm"
}


class Run:
    """The arguments of a call of `Model.train`, for `train_many`.

    Parameters
    ----------
    model : Model
    X, y : arrays
    **keywords
        Those of `Model.train`. ``threads`` is 1 and ``print_every`` None unless given. Lines and bars of several runs
        would mix: ``print_every`` must be None, and ``progress`` False.

    Raises
    ------
    TypeError, ValueError
        If ``model`` is not a `Model`, or a keyword is not one of `Model.train`. `train_many` checks everything else.
    """

    def __init__(self, model: Model, X: ArrayLike, y: ArrayLike, **keywords: Any) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"Run: model must be a Model, got {abridged(model)}.")
        if keywords.get("comm") is not None:
            raise ValueError("Run: comm must be None: models that train at once do not wait for other processes.")
        keywords.pop("comm", None)
        for name in keywords:
            if name not in KEYWORDS:
                raise TypeError(f"Run: Model.train has no keyword {name!r}.{near(KEYWORDS, name)}")
        for name, silent in (("print_every", None), ("progress", False)):
            if keywords.get(name, silent) is not silent:
                raise ValueError(
                    f"Run: {name} must be {silent}, got {abridged(keywords[name])}: lines and bars of several runs "
                    "would mix."
                )
        self.model, self.X, self.y = model, X, y
        self.keywords = {"threads": 1, "print_every": None, **keywords}

    def __repr__(self) -> str:
        given = "".join(f", {name}={abridged(value)}" for name, value in self.keywords.items())
        return f"Run({type(self.model).__name__}(...), X, y{given})"

    def _check(self) -> None:
        """Check it as `Model.train` would, and draw the seeds that it would draw."""
        self.model._train(self.X, self.y, self._options(), starts=False)

    def _train(self, do_steps: Callable[[Job, printing.Printer], None] | None = None) -> History:
        """Train, and return the history. Warnings were given before. ``do_steps`` is that of `Model._train`."""
        if type(self.model).train is not Model.train:
            return self.model.train(self.X, self.y, **self.keywords)
        return self.model._train(self.X, self.y, self._options(), warns=False, do_steps=do_steps)

    def _shape(self) -> Shape | None:
        """Return what runs that train together have in common; None for a run that trains alone."""
        if type(self.model).train is not Model.train:
            return None
        return shape_of(self.model, self.X, self.keywords, KEYWORDS)

    def _options(self) -> tuple[Any, ...]:
        return tuple({**KEYWORDS, **self.keywords}.values())


def train_many(
    runs: Sequence[Run], *, threads: int | None = None, progress: bool = False, together: bool = False
) -> list[History]:
    """Train several models at the same time, one thread each. Return their histories in the order of the runs.

    Unless ``together``, each model gets the same bytes as from calls of `Model.train` one after the other. For this,
    missing seeds are drawn from NumPy's global generator before the first run starts, in the order of the runs. Custom
    parts and functions must not draw from that generator while the models train, and must share nothing that they
    change.

    All runs are checked before the first one starts. Ctrl-C stops all of them between two steps. Models are then as
    they were after their last whole step, last checkpoints are written, and runs that have not started never start. The
    KeyboardInterrupt reaches the caller. An error in one run stops the others in the same way.

    Parameters
    ----------
    runs : sequence of Run
    threads : int, optional
        The most models that train at once. If None, the number given to `nnx.set_num_threads`.
    progress : bool
        Whether to show a bar on stderr that counts the epochs of all runs.
    together : bool
        Whether small models of one shape train together, one in each lane of a vector, where that is faster. Their
        results then differ in the last digits from those of a model that trains alone. See docs/guide/many-models.md.

    Returns
    -------
    list of History

    Raises
    ------
    TypeError, ValueError
        If an argument is not valid. If two runs share a model or a part that training changes: a layer, an optimizer, a
        callback or memory of arrays. If two runs write the same file. Nothing has changed then.
    Exception
        What `Model.train` raises. A note says which run it was. If several runs fail, the first error is raised.

    Examples
    --------
    >>> import numpy as np, nnx
    >>> def classifier(n_hidden):
    ...     model = nnx.Model()
    ...     model.add(nnx.Layer_Dense(2, n_hidden))
    ...     model.add(nnx.Activation_ReLU())
    ...     model.add(nnx.Layer_Dense(n_hidden, 2))
    ...     model.add(nnx.Activation_Softmax())
    ...     model.set(
    ...         loss=nnx.Loss_CategoricalCrossentropy(),
    ...         optimizer=nnx.Optimizer_Adam(0.01),
    ...         accuracy=nnx.Accuracy_Categorical(),
    ...     )
    ...     model.finalize()
    ...     return model
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = (X[:, 0] * X[:, 1] > 0).astype(np.intp)
    >>> models = [classifier(n) for n in (4, 8, 16)]
    >>> histories = nnx.train_many([nnx.Run(model, X, y, epochs=20, shuffle=True) for model in models])
    >>> [len(history.loss) for history in histories]
    [20, 20, 20]
    """
    where = "train_many"
    if not isinstance(runs, Sequence) or not all(isinstance(run, Run) for run in runs):
        raise TypeError(f"{where}: runs must be a sequence of Run objects, got {abridged(runs)}.")
    n_threads = get_num_threads() if threads is None else checked_threads(where, "threads", threads)
    check.flag(where, "progress", progress)
    check.flag(where, "together", together)
    _refuse_shared(where, runs)
    seeds, shapes, before = [], [], np.random.get_state(legacy=False)
    for number, run in enumerate(runs):
        with random.recorded() as drawn:
            try:
                run._check()
                shapes.append(run._shape() if together else None)
            except Exception as error:
                np.random.set_state(before)
                _name(error, number)
                raise
        seeds.append(drawn)
    groups = groups_of(shapes)
    pool = _Pool(runs, seeds, groups)
    bar = printing.progress_bar(sum(pool.epochs), 0, "epoch") if progress else None
    try:
        pool.run(min(n_threads, len(groups)), bar)
    finally:
        if bar is not None:
            bar.close()
    return pool.histories


class _Pool:
    """The runs and their progress. Each thread takes the next run that no other thread has taken."""

    def __init__(self, runs: Sequence[Run], seeds: list[list[int]], groups: list[list[int]]) -> None:
        self.runs, self.seeds = runs, seeds
        self.histories: list[Any] = [None] * len(runs)
        self.epochs: list[int] = [run.keywords.get("epochs", KEYWORDS["epochs"]) for run in runs]
        self._before = [run.model.history for run in runs]
        self.errors: list[tuple[int, BaseException]] = []
        self.stop = threading.Event()
        self._left = deque(groups)

    def run(self, n_threads: int, bar: Any) -> None:
        """Do all runs on this number of threads, or on as many as the system allows."""
        threads: list[threading.Thread] = []
        with Interrupt() as interrupt:
            try:
                for number in range(n_threads):
                    if not self._start(threads, number):
                        break
                for thread in threads:
                    while thread.is_alive():
                        thread.join(SECONDS)
                        interrupt.check()
                        self._show(bar)
            except BaseException:
                self.stop.set()
                raise
            finally:
                join(threads)
        self._work()  # the rest, if threads could not start or died before they began to work
        self._show(bar)
        if self.errors:
            number, error = self.errors[0]
            _name(error, number)
            raise error

    def _show(self, bar: Any) -> None:
        if bar is not None:
            bar.update(sum(map(self._epochs_done, range(len(self.runs)))) - bar.n)

    def _epochs_done(self, number: int) -> int:
        """Return how many epochs a run has done. A run that has ended counts as complete, even if it stopped early."""
        if self.histories[number] is not None:
            return self.epochs[number]
        history = self.runs[number].model.history
        return 0 if history is None or history is self._before[number] else min(history.n_epochs, self.epochs[number])

    def _start(self, threads: list[threading.Thread], number: int) -> bool:
        """Start a thread with the caller's context, such as NumPy's error state. Return whether it started."""
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._work,), name=f"nnx-run-{number}")
        threads.append(thread)  # first: an exception may come after its start
        try:
            thread.start()
        except RuntimeError:
            threads.pop()
            return False
        return True

    def _work(self) -> None:
        """Do one run after the other, until none is left or all must stop."""
        while not self.stop.is_set():
            try:
                numbers = self._left.popleft()
            except IndexError:
                return
            with stopped_by(self.stop):
                if len(numbers) == 1:
                    self._do(numbers[0])
                else:
                    self._do_together(numbers, [])

    def _do(self, number: int, do_steps: Callable[[Job, printing.Printer], None] | None = None) -> None:
        try:
            with random.given(self.seeds[number]):
                self.histories[number] = self.runs[number]._train(do_steps)
        except BaseException as error:
            self._failed(number, error)

    def _failed(self, number: int, error: BaseException) -> None:
        """Stop all runs after an error in one of them, unless that run was itself stopped."""
        if not (isinstance(error, KeyboardInterrupt) and self.stop.is_set()):
            self.errors.append((number, error))
            self.stop.set()

    def _do_together(self, numbers: list[int], jobs: list[Job]) -> None:
        """Do runs of one shape: begin each within the one before it, train all, then let each finish."""
        number = numbers[len(jobs)]

        def do_steps(job: Job, report: printing.Printer) -> None:
            job.order.take_seed()  # now: the runs nested in this one bring their own seeds
            jobs.append(job)
            self._share_samples(numbers, jobs)
            if len(jobs) < len(numbers):
                self._do_together(numbers, jobs)
            else:
                failed = train_together(jobs)
                if failed is not None:
                    self._failed(numbers[failed[0]], failed[1])
            if self.stop.is_set():
                raise KeyboardInterrupt
            training.train(job, report)

        self._do(number, do_steps)

    def _share_samples(self, numbers: list[int], jobs: list[Job]) -> None:
        """Let runs with the same array of samples use one copy of it."""
        first, last = jobs[0].data, jobs[-1].data
        if self.runs[numbers[0]].X is self.runs[numbers[len(jobs) - 1]].X and first.X.dtype == last.X.dtype:
            jobs[-1].data = last._replace(X=first.X)


def _name(error: BaseException, number: int) -> None:
    """Add a note that says which run an error comes from, if Python can (3.11)."""
    if hasattr(error, "add_note"):
        error.add_note(f"This was runs[{number}] of train_many.")


# What runs must not share


def _refuse_shared(where: str, runs: Sequence[Run]) -> None:
    """Refuse runs that change or write something that another run also has."""
    owners: dict[Any, int] = {}
    for number, run in enumerate(runs):
        for key, name in _changed_by(run):
            other = owners.setdefault(key, number)
            if other != number:
                raise ValueError(f"{where}: runs[{number}] must not have {name} in common with runs[{other}].")
    for number, run in enumerate(runs):
        for path in _paths(run.keywords.get("resume")):
            if owners.get(path, number) != number:
                raise ValueError(
                    f"{where}: runs[{number}] must not resume {path!r}, which runs[{owners[path]}] writes."
                )
    _refuse_overlap(where, runs)


def _changed_by(run: Run) -> Iterator[tuple[Any, str]]:
    """Yield keys and names of what a run changes: objects, functions that give orders, and files."""
    model, callbacks = run.model, run.keywords.get("callbacks")
    others = [getattr(model, name, None) for name in ("loss", "optimizer", "accuracy", "softmax_classifier_output")]
    objects = [model, *walk(model.layers), *others]
    listed = callbacks if isinstance(callbacks, list | tuple) else []
    objects += [each for each in listed if isinstance(each, Callback)]
    yield from ((id(each), f"its {type(each).__name__}") for each in objects if each is not None)
    if callable(order := run.keywords.get("shuffle")):
        yield id(getattr(order, "__self__", None) or order), "the function that gives the order"  # or its object
    written = [getattr(each, name, None) for each in listed for name in ("path", "folder")]
    yield from ((path, f"the file {path!r}") for path in _paths(run.keywords.get("checkpoint"), *written))


def _paths(*files: Any) -> set[str]:
    return {os.path.realpath(os.fsdecode(each)) for each in files if isinstance(each, str | os.PathLike)}


def _refuse_overlap(where: str, runs: Sequence[Run]) -> None:
    """Refuse arrays that one run writes and another run has."""
    spans = sorted(span for number, run in enumerate(runs) for span in _spans(number, run))
    open_spans: list[tuple[int, int, int, bool]] = []
    for start, end, number, is_written in spans:
        open_spans = [each for each in open_spans if each[1] > start]
        for _, _, other, is_written_too in open_spans:
            if number != other and (is_written or is_written_too):
                first, second = sorted((number, other))
                raise ValueError(
                    f"{where}: runs[{second}] must not share memory with runs[{first}] that one of them changes, as "
                    "parameters do. Give each its own copy."
                )
        open_spans.append((start, end, number, is_written))


def _spans(number: int, run: Run) -> Iterator[tuple[int, int, int, bool]]:
    """Yield where arrays of a run lie: first byte, byte after the last, the run, and whether training writes there."""
    for layer in walk(run.model.layers):
        for name, value in vars(layer).items() if hasattr(layer, "__dict__") else ():
            if name not in SET_ANEW and isinstance(value, np.ndarray) and value.flags.writeable and value.size:
                yield (*bounds(value), number, True)
    validation = run.keywords.get("validation_data")
    read = [run.X, run.y, run.keywords.get("sample_weight")]
    read += list(validation) if isinstance(validation, list | tuple) else []
    for value in read:
        if isinstance(value, np.ndarray) and value.size:
            yield (*bounds(value), number, False)
