"""`fit`: from a table's samples to an ensemble that the recipe chose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx._base import check, config, random
from nnx._base.typing import Array, ArrayLike
from nnx.callbacks import EarlyStopping
from nnx.ensemble import Ensemble
from nnx.many import Run, train_many
from nnx.members import seeds_of
from nnx.model import Model
from nnx.tabular import choosing
from nnx.tabular.networks import Builder
from nnx.tabular.recipe import EFFORTS, Network, Plan, Shape, plan

if TYPE_CHECKING:
    from nnx.data.tables import Table

#: Fewer rows are all trained on, and none is held out.
MIN_ROWS = 10
#: A training ends when for this part of its epochs none was better.
PATIENCE = 0.34

#: Networks of a kind that have the same held-out rows, at most.
SAME_ROWS = 3

Validation = tuple[ArrayLike, ArrayLike] | tuple[ArrayLike, ArrayLike, ArrayLike]


@dataclass
class Fitted:
    """What `fit` found.

    Attributes
    ----------
    ensemble : Ensemble
        With the table, if there was one.
    lines : list of str
        Which networks were tried, and their scores on held-out rows.
    validation_scores : dict of float
        Accuracy, or R², on held-out rows: of each kind of network by its name, and of all together, "ensemble".
        Empty if there were too few rows to hold any out.
    temperature : float
        By how much to divide the logarithms of probabilities, so that they say how often a class is right: `calibrated`
        does so. 1 for numbers.
    held_out : list of int arrays
        For each member the rows of ``X`` that it was not trained on; empty arrays if none were held out of ``X``.
    """

    ensemble: Ensemble
    lines: list[str] = field(default_factory=list)
    validation_scores: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    held_out: list[Array] = field(default_factory=list)

    def calibrated(self, probabilities: ArrayLike) -> Array:
        """Return probabilities (rows, classes), such as ``ensemble.predict`` gives, at this temperature."""
        logits = np.log(np.maximum(np.asarray(probabilities, np.float64), choosing.CLIP))
        return choosing.softened(logits, self.temperature)


def fit(
    table: Table | None,
    X: ArrayLike,
    y: ArrayLike,
    *,
    effort: str = "default",
    seed: int = 0,
    threads: int | None = None,
    validation: Validation | None = None,
    sample_weight: ArrayLike | None = None,
    progress: bool = False,
    task: str | None = None,
) -> Fitted:
    """Train networks for a table, and return the ensemble of those that are best together on held-out rows.

    The same arguments give the same ensemble, to the bit, for any number of threads.

    Parameters
    ----------
    table : Table or None
        It says which inputs hold numbers and which categories, and how many classes there are. If None, all inputs are
        numbers.
    X : array (rows, n_inputs)
        As `Table.read_inputs` gives them.
    y : array (rows,) of class numbers, or (rows, 1) of standardized numbers
    effort : "fast", "default" or "best"
        How many networks to try: about one, four and sixty seconds for 16,000 rows of 8 columns on one core.
    seed : int
        Of initial weights, held-out rows, orders and dropout.
    threads : int, optional
        The most networks that train at once; if None, the number given to `nnx.set_num_threads`.
    validation : (X, y) or (X, y, weights), optional
        Rows that decide when each network stops, and its weight. If None, rows of ``X`` are held out.
    sample_weight : array (rows,), optional
        The weight of each row.
    progress : bool
        Show a bar on stderr, with the time left.
    task : "classification" or "regression", optional
        If None, the table decides, or y: whole numbers in one dimension are classes.

    Returns
    -------
    Fitted

    Raises
    ------
    TypeError, ValueError
        If an argument is not valid.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx.tabular import fit
    >>> X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    >>> y = (X[:, 0] * X[:, 1] > 0).astype(np.intp)
    >>> fitted = fit(None, X, y, effort="fast")
    >>> fitted.ensemble.predict(X).shape
    (200, 2)
    """
    where = "tabular.fit"
    check.one_of(where, "effort", effort, EFFORTS)
    seed = check.whole(where, "seed", seed, 0, random.MAX_SEED)
    samples = _samples(where, table, X, y, sample_weight, task)
    held_out = None if validation is None else _held_out(where, table, validation, samples)
    return _Fitting(table, samples, held_out, effort, seed).run(threads, check.flag(where, "progress", progress))


@dataclass(frozen=True)
class Samples:
    """Rows as models take them."""

    X: Array
    #: Class numbers (rows,), or numbers (rows, 1).
    y: Array
    weights: Array | None
    n_classes: int

    def of(self, rows: Array) -> Samples:
        """Return some of the rows."""
        return Samples(
            np.ascontiguousarray(self.X[rows]),
            np.ascontiguousarray(self.y[rows]),
            None if self.weights is None else np.ascontiguousarray(self.weights[rows]),
            self.n_classes,
        )

    @property
    def validation_data(self) -> Any:
        """The rows as `Model.train` takes held-out ones."""
        return (self.X, self.y) if self.weights is None else (self.X, self.y, self.weights)


def _samples(
    where: str, table: Table | None, X: ArrayLike, y: ArrayLike, weights: ArrayLike | None, task: str | None
) -> Samples:
    dtype = config.get_default_dtype()
    inputs = check.plain(where, "X", X)
    if inputs.ndim != 2 or 0 in inputs.shape:
        raise ValueError(f"{where}: X must have shape (rows, inputs), none of them 0, got {inputs.shape}.")
    if table is not None and inputs.shape[1] != table.n_inputs:
        raise ValueError(f"{where}: X must have shape (n, {table.n_inputs}), got {inputs.shape}.")
    inputs = np.ascontiguousarray(inputs, dtype)
    if not np.isfinite(inputs).all():
        raise ValueError(f"{where}: X must hold finite numbers.")
    targets = check.plain(where, "y", y)
    if targets.ndim not in (1, 2) or len(targets) != len(inputs) or targets.size != len(inputs):
        raise ValueError(f"{where}: y must have one value for each of {len(inputs)} rows, got shape {targets.shape}.")
    if task is not None:
        check.one_of(where, "task", task, ("classification", "regression"))
    is_classes = targets.dtype.kind in "iu" if task is None else task == "classification"
    if table is not None:
        is_classes = table.classes is not None
    own = None if weights is None else _weights(where, weights, len(inputs))
    if not is_classes:
        numbers = np.ascontiguousarray(targets.reshape(-1, 1), dtype)
        if not np.isfinite(numbers).all():
            raise ValueError(f"{where}: y must hold finite numbers.")
        return Samples(inputs, numbers, own, 0)
    classes = targets.reshape(-1)
    if (classes % 1 != 0).any() or (classes < 0).any() or classes.max() >= 1 << 20:
        raise ValueError(f"{where}: y must hold class numbers from 0 on, got {classes.min()} to {classes.max()}.")
    n_classes = max(2, int(classes.max()) + 1, 0 if table is None else table.n_outputs)
    return Samples(inputs, classes.astype(np.intp), own, n_classes)


def _weights(where: str, weights: ArrayLike, n_rows: int) -> Array:
    found = check.plain(where, "sample_weight", weights).astype(np.float64)
    if found.shape != (n_rows,) or not (found >= 0).all() or not np.isfinite(found).all() or not found.any():
        raise ValueError(
            f"{where}: sample_weight must hold a number of at least 0 for each of {n_rows} rows, and not 0 alone."
        )
    return found


def _held_out(where: str, table: Table | None, validation: Any, samples: Samples) -> Samples:
    if not isinstance(validation, tuple) or len(validation) not in (2, 3):
        raise TypeError(f"{where}: validation must be a pair of arrays, X and y, or three with the rows' weights.")
    task = "classification" if samples.n_classes else "regression"
    found = _samples(where, table, validation[0], validation[1], validation[2] if len(validation) == 3 else None, task)
    if found.X.shape[1] != samples.X.shape[1] or found.n_classes > samples.n_classes > 0:
        raise ValueError(f"{where}: validation must have the columns of X, and no other classes than y.")
    return Samples(found.X, found.y, found.weights, samples.n_classes)


#: The rows that a network trains on, and those held out.
Part = tuple[Samples, Samples | None]


class _Fitting:
    """One call of `fit`."""

    def __init__(
        self, table: Table | None, samples: Samples, validation: Samples | None, effort: str, seed: int
    ) -> None:
        n_rows, n_inputs = samples.X.shape
        numeric = range(n_inputs) if table is None else table.numeric
        embedded = () if table is None else table.embedded
        self.table, self.samples, self.validation = table, samples, validation
        self.effort, self.seed = effort, seed
        self.shape = Shape(n_rows, n_inputs, len(numeric), samples.n_classes)
        self.plan: Plan = plan(self.shape, effort)
        self.builder = Builder(samples.X, samples.y, numeric, embedded, self.shape)
        self.held_out: list[Array] = []  # rows, by part
        self.parts = self._parts()

    def _parts(self) -> list[Part]:
        """Return the rows to train on and those held out, for each fold."""
        samples, n_rows = self.samples, len(self.samples.X)
        if self.validation is not None:
            return [(samples, self.validation)] * min(self.plan.n_used, SAME_ROWS)
        if n_rows < MIN_ROWS:
            return [(samples, None)] * self.plan.n_used
        own = choosing.folds(samples.y if samples.n_classes else None, n_rows, self.plan.n_folds, self.seed)
        parts: list[Part] = []
        for number in range(self.plan.n_used):
            self.held_out.append(np.flatnonzero(own == number))
            parts.append((samples.of(own != number), samples.of(own == number)))
        return parts

    def run(self, threads: int | None, progress: bool) -> Fitted:
        """Train all networks, and choose."""
        trained = self._train(threads, progress)
        if self.parts[0][1] is None:
            models = [model for models in trained for model in models]
            return Fitted(self._ensemble(models), [self._tried()], held_out=[np.empty(0, np.intp)] * len(models))
        predictions, y, weights = self._predictions(trained)
        counts = choosing.draw(predictions, y, weights)
        if not any(counts):
            raise ValueError("tabular.fit: all networks diverged on these samples.")
        chosen = [(model, count) for models, count in zip(trained, counts, strict=True) if count for model in models]
        ensemble = self._ensemble([model for model, _ in chosen])
        ensemble.counts = tuple(count for _, count in chosen)
        mean = np.average(predictions, axis=0, weights=counts)
        names = [network.name for network in self.plan.networks]
        scores = {name: _score(each, y, weights) for name, each in zip(names, predictions, strict=True)}
        scores["ensemble"] = _score(mean, y, weights)
        heat = choosing.temperature(mean, y, weights) if self.shape.n_classes else 1.0
        held_out = [
            rows for count in counts if count for rows in self.held_out or [np.empty(0, np.intp)] * len(self.parts)
        ]
        return Fitted(ensemble, self._lines(scores, counts, len(y)), scores, heat, held_out)

    def _ensemble(self, models: list[Model]) -> Ensemble:
        ensemble = Ensemble(models)
        if self.table is not None:
            ensemble.set(table=self.table)
        return ensemble

    def _train(self, threads: int | None, progress: bool) -> list[list[Model]]:
        """Return the trained models: for each kind of network one a fold."""
        runs: list[Run] = []
        trained: list[list[Model]] = []
        for number, network in enumerate(self.plan.networks):
            epochs = self.plan.epochs(network, self.shape)
            trained.append([])
            for fold, (samples, held_out) in enumerate(self.parts):
                source = seeds_of(self.seed, number * 1000 + fold, 7)
                model = self._model(network, samples, epochs, source)
                trained[-1].append(model)
                runs.append(self._run(model, samples, held_out if network.keeps_best else None, epochs, source))
        train_many(runs, threads=threads, progress=progress)
        return trained

    def _model(self, network: Network, samples: Samples, epochs: int, source: np.random.SeedSequence) -> Model:
        n_steps = epochs * -(-len(samples.X) // self.plan.batch_size)
        return self.builder.model(network, n_steps, source)

    def _run(
        self, model: Model, samples: Samples, held_out: Samples | None, epochs: int, source: np.random.SeedSequence
    ) -> Run:
        keywords: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": self.plan.batch_size,
            "shuffle": True,
            "seed": int(source.generate_state(1, np.uint64)[0]),
            "check_finite": False,
            "on_nonfinite": "ignore",
            "sample_weight": samples.weights,
        }
        if held_out is not None:
            keywords["validation_data"] = held_out.validation_data
            keywords["callbacks"] = [EarlyStopping(patience=max(5, round(PATIENCE * epochs)))]
        return Run(model, samples.X, samples.y, **keywords)

    def _predictions(self, trained: list[list[Model]]) -> tuple[list[Array], Array, Array | None]:
        """Return what each kind of network says of the held-out rows, their targets and their weights."""
        outs = [held_out for _, held_out in self.parts if held_out is not None]
        if self.validation is not None:  # the same rows in all parts
            own = [np.mean([model.predict(outs[0].X) for model in models], axis=0) for models in trained]
            return own, outs[0].y, outs[0].weights
        predictions = [
            np.concatenate([model.predict(out.X) for model, out in zip(models, outs, strict=True)])
            for models in trained
        ]
        weights = [out.weights for out in outs if out.weights is not None]
        return predictions, np.concatenate([out.y for out in outs]), np.concatenate(weights) if weights else None

    def _tried(self) -> str:
        n_kinds, n_each = len(self.plan.networks), len(self.parts)
        kinds = "1 kind" if n_kinds == 1 else f"{n_kinds} kinds"
        return f"Effort {self.effort}: {n_kinds * n_each} networks of {kinds}."

    def _lines(self, scores: dict[str, float], counts: list[int], n_rows: int) -> list[str]:
        figure = "accuracy" if self.shape.n_classes else "R²"
        together = f"{scores['ensemble']:.3f} together" + (", chosen by log loss" if self.shape.n_classes else "")
        lines = [f"{self._tried()[:-1]}; {figure} on {n_rows:,} held-out rows: {together}."]
        shares = np.array(counts) / sum(counts)
        for network, share in zip(self.plan.networks, shares.tolist(), strict=True):
            kept = f"weight {share:.0%}" if share else "left out"
            lines.append(f"  {network.name}: {scores[network.name]:.3f}, {kept}")
        for pair in self.builder.pairs(max(network.pairs for network in self.plan.networks)):
            lines.append(f"  Columns combined: {' and '.join(map(self._name_of, pair.columns))}")
        return lines

    def _name_of(self, column: int) -> str:
        return f"input {column}" if self.table is None else self.table.input_names[column]


def _score(predicted: Array, y: Array, weights: Array | None) -> float:
    """Return accuracy, or R²; 0 where the targets do not vary."""
    if y.ndim == 1:
        return float(np.average(predicted.argmax(axis=1) == y, weights=weights))
    mean = np.average(y, axis=0, weights=weights)
    spread = float(np.average(np.square(y - mean).mean(axis=1), weights=weights))
    return 1 - choosing.mean_loss(predicted, y, weights) / spread if spread else 0.0
