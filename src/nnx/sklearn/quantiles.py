"""Quantiles of a regression's target: the members of an ensemble with another last layer, trained a little more."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from nnx._base.typing import Array
from nnx.accuracy import Accuracy_Regression
from nnx.callbacks import EarlyStopping
from nnx.ensemble import Ensemble
from nnx.layers import Layer_Dense
from nnx.losses import Loss_Pinball
from nnx.many import Run, train_many
from nnx.model import Model
from nnx.optimizers import Optimizer_Adam
from nnx.schedules import Schedule_Cosine

#: Rows of a step, and how many steps a member takes at most; it goes through the rows so often.
BATCH, STEPS, EPOCHS = 128, 2500, (10, 100)
#: A member stops when its held-out rows have not become better for this part of its epochs.
PATIENCE = 0.15
RATE = 3e-3


def quantile_ensemble(
    ensemble: Ensemble,
    held_out: Sequence[Array],
    X: Array,
    y: Array,
    weights: Array | None,
    quantiles: Sequence[float],
    *,
    seed: int,
    threads: int,
    progress: bool,
) -> Ensemble:
    """Return an ensemble whose outputs are quantiles of the target, (n, quantiles).

    Each member begins with the hidden layers of the ensemble's, and with its prediction plus the quantiles of what that
    lacks on held-out rows; then all of it is trained with the pinball loss. In the end, each quantile is moved so that
    of the held-out rows as many are below it as its name says.

    Parameters
    ----------
    ensemble : Ensemble
        Of members that end in a `Layer_Dense` of one output and no more than an identity behind it.
    held_out : list of int arrays
        For each member the rows that it was not trained on; if there are none at all, all rows take their place.
    X, y : arrays (n, inputs), (n, 1)
    weights : array (n,), optional
    quantiles : list of float
        Rising, each above 0 and below 1.
    seed, threads, progress
        As of `nnx.train_many` and its runs.

    Notes
    -----
    The loss: Koenker and Bassett, "Regression quantiles", 1978. Moving quantiles on held-out rows: Romano, Patterson
    and Candès, "Conformalized quantile regression", 2019.
    """
    judges = [np.asarray(rows, np.intp) for rows in held_out]
    if not any(len(rows) for rows in judges):
        judges = [np.arange(len(X))] * len(ensemble)
    levels = np.array(quantiles, np.float64)
    offsets = _lacking(ensemble, judges, X, y, weights, levels)
    models = [_with_quantiles(model, offsets, quantiles) for model in ensemble.models]
    runs = [
        _run(model, X, y, weights, rows, len(held_out[number]) > 0, seed + number)
        for number, (model, rows) in enumerate(zip(models, judges, strict=True))
    ]
    train_many(runs, threads=threads, progress=progress)
    for number, (model, rows) in enumerate(zip(ensemble.models, judges, strict=True)):
        if not np.isfinite(models[number].predict(X[rows])).all():  # it diverged: it stays as it began
            models[number] = _with_quantiles(model, offsets, quantiles)
    found = Ensemble(models)
    found.counts = ensemble.counts
    moved = _lacking(found, judges, X, y, weights, levels)
    for model in models:
        _last_dense(model)[1].biases[0] += moved
    return found


def _lacking(
    ensemble: Ensemble, judges: Sequence[Array], X: Array, y: Array, weights: Array | None, levels: Array
) -> Array:
    """Return the quantiles of what targets are above the outputs for them, float64 (levels,), on held-out rows.

    A row's outputs are the mean of the members that were not trained on it.
    """
    totals, counts = np.zeros((len(X), ensemble.output_width() or 1), np.float64), np.zeros(len(X), np.intp)
    for model, count, rows in zip(ensemble.models, ensemble.counts, judges, strict=True):
        if len(rows):
            totals[rows] += count * model.predict(X[rows]).astype(np.float64)
            counts[rows] += count
    judged = np.flatnonzero(counts)
    above = y[judged].astype(np.float64) - totals[judged] / counts[judged, np.newaxis]
    of = None if weights is None else weights[judged]
    columns = np.broadcast_to(above, (len(judged), len(levels))).T
    found = [weighted_quantile(each, of, level) for each, level in zip(columns, levels.tolist(), strict=True)]
    return np.array(found, np.float64)


def weighted_quantile(values: Array, weights: Array | None, level: float) -> float:
    """Return the smallest value that at least this part of all weights does not exceed."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(np.ones(len(values)) if weights is None else weights[order])
    place = int(np.searchsorted(sums, level * sums[-1] * (1 - 1e-12), side="left"))
    return float(values[order][min(place, len(values) - 1)])


def _last_dense(model: Model) -> tuple[int, Layer_Dense]:
    """Return a model's last dense layer, and its place."""
    place = max(i for i, layer in enumerate(model.layers) if isinstance(layer, Layer_Dense))
    return place, model.layers[place]


def _with_quantiles(model: Model, offsets: Array, quantiles: Sequence[float]) -> Model:
    """Return a copy that gives the model's output plus each offset."""
    place, last = _last_dense(model)
    weights, biases = last.get_parameters()
    wide = Layer_Dense(weights.shape[0], len(offsets), dtype=weights.dtype)
    wide.set_parameters(np.repeat(weights, len(offsets), axis=1), biases + offsets.astype(weights.dtype).reshape(1, -1))
    layers = copy.deepcopy(model.layers)
    made = Model()
    for layer in (*layers[:place], wide, *layers[place + 1 :]):
        made.add(layer)
    made.set(loss=Loss_Pinball(quantiles), optimizer=Optimizer_Adam(RATE), accuracy=Accuracy_Regression())
    made.finalize()
    return made


def _run(model: Model, X: Array, y: Array, weights: Array | None, rows: Array, apart: bool, seed: int) -> Run:
    """Return a member's training on all rows but those held out, if they are ``apart`` from the others."""
    kept = np.delete(np.arange(len(X)), rows) if apart else rows
    a_epoch = -(-len(kept) // BATCH)
    epochs = int(np.clip(STEPS // a_epoch, *EPOCHS))
    model.optimizer.schedule = Schedule_Cosine(epochs * a_epoch)
    held_out = (X[rows], y[rows]) if weights is None else (X[rows], y[rows], weights[rows])
    return Run(
        model,
        X[kept],
        y[kept],
        epochs=epochs,
        batch_size=BATCH,
        shuffle=True,
        seed=seed % 2**32,
        check_finite=False,
        on_nonfinite="ignore",
        validation_data=held_out,
        callbacks=[EarlyStopping(patience=max(5, round(PATIENCE * epochs)))],
        sample_weight=None if weights is None else weights[kept],
    )
