"""Functions for `Ensemble`: whether members fit together, their seeds, the rows that they share, and the selection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nnx._base import check, random
from nnx._base.text import abridged, near
from nnx._base.typing import Array, ArrayLike
from nnx._base.widths import widths_of
from nnx.engine.classes import checked_split, classes_of_rows, held_out_rows
from nnx.engine.data_checks import checked_data, checked_validation, dtype_of, weighing
from nnx.layers import walk
from nnx.many import KEYWORDS
from nnx.model import Model
from nnx.noise import missing_seeds

#: Keywords of `Model.train` that concern one model's file, or printed lines.
OF_ONE_MODEL = ("checkpoint", "checkpoint_every", "checkpoint_steps", "resume", "print_every")

# Which members fit together


def check_alike(where: str, models: Sequence[Model]) -> None:
    """Refuse models whose outputs have no common mean, or that take different samples."""
    for name, of in (
        ("number of inputs", _input_width),
        ("number of outputs", Model.output_width),
        ("dtype", dtype_of),
        ("class of last layer", lambda model: type(model.output_layer_activation).__name__),
        ("class of loss", lambda model: type(model.loss).__name__),
    ):
        expected = of(models[0])
        for number, model in enumerate(models):
            if of(model) != expected:
                raise ValueError(
                    f"{where}: models must have the same {name}, got {expected} of models[0] and {of(model)} of "
                    f"models[{number}]."
                )
    described = [None if model.preprocessor is None else model.preprocessor.to_dict() for model in _different(models)]
    if any(each != described[0] for each in described):
        raise ValueError(
            f"{where}: models must have the same table or images, or none. Call set(table=...) afterwards."
        )


def _different(models: Sequence[Model]) -> list[Model]:
    """Return one model for each distinct table or images object."""
    return list({id(model.preprocessor): model for model in models}.values())


def _input_width(model: Model) -> int | None:
    widths = widths_of(model.layers[0])
    return None if widths is None else widths[0]


def refuse_shared(where: str, models: Sequence[Model]) -> None:
    """Refuse members that share an object: one member would change it while the other trains."""
    owners: dict[int, int] = {}
    for number, model in enumerate(models):
        parts = [model, *walk(model.layers), model.loss, model.optimizer, model.accuracy]
        for part in parts:
            if part is not None and owners.setdefault(id(part), number) != number:
                raise ValueError(
                    f"{where}: models[{number}] must not have its {type(part).__name__} in common with "
                    f"models[{owners[id(part)]}]. Give each its own."
                )


def multiplied_by(model: Model) -> Iterator[Array]:
    """Yield the arrays that a member multiplies with."""
    for layer in walk(model.layers):
        weights = getattr(layer, "weights", None)
        if isinstance(weights, np.ndarray):
            yield weights


# Seeds


def base_seed(where: str, seed: int | None) -> int:
    """Return the seed that members' seeds come from. Draw it if none is given."""
    return random.draw_seed() if seed is None else check.whole(where, "seed", seed, 0, random.MAX_SEED)


def seeds_of(base: int, number: int, purpose: int) -> np.random.SeedSequence:
    """Return the seed of a member for a purpose. It depends only on these three arguments."""
    return np.random.SeedSequence([base & 0xFFFFFFFF, base >> 32, number, purpose])


def give_seeds(model: Model, source: np.random.SeedSequence) -> None:
    """Give seeds to layers that draw in training and have none."""
    layers = [layer for layer in walk(model.layers) if missing_seeds([layer])]
    for layer, seed in zip(layers, source.generate_state(len(layers), np.uint64).tolist(), strict=True):
        layer.seed = seed


# What `train` shares out


def check_keywords(where: str, keywords: Mapping[str, Any], own: Iterable[str]) -> None:
    """Refuse keywords that `Model.train` does not have, or that concern one model; ``own`` are the caller's own."""
    for name, value in keywords.items():
        if name not in KEYWORDS:
            allowed = {*own, *KEYWORDS} - {*OF_ONE_MODEL}
            raise TypeError(f"{where}: there is no keyword {name!r}.{near(sorted(allowed), name)}")
        if name in OF_ONE_MODEL and not (name == "print_every" and value is None):
            raise TypeError(f"{where}: {name} must not be given: it belongs to the training of a single model.")


def called(where: str, callbacks: Any, number: int) -> list[Any]:
    """Return the callbacks of a member."""
    if not callable(callbacks):
        raise TypeError(
            f"{where}: callbacks must be a function that returns the list of a member, given its number, got "
            f"{abridged(callbacks)}."
        )
    found = callbacks(number)
    if not isinstance(found, list | tuple):
        raise TypeError(f"{where}: callbacks({number}) must be a list, got {abridged(found)}.")
    return list(found)


def shared_rows(
    where: str,
    model: Model,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None,
    validation_data: Any,
    validation_split: float | None,
    check_finite: bool,
    seed: int,
) -> dict[str, Any]:
    """Return the rows for all members, as keywords of `Run`: checked and cast once, held-out ones apart."""
    model._require(where, "loss", "optimizer", "accuracy")
    data = checked_data(model, where, ("X", "y", "sample_weight"), X, y, check_finite, sample_weight)
    given = check.plain(where, "y", y)
    held_out: tuple[Array, ...] | None = None
    if validation_data is not None:
        if validation_split is not None:
            raise ValueError(f"{where}: validation_split must not be given together with validation_data.")
        try:
            parts = tuple(validation_data)
        except TypeError:
            parts = ()
        judged = checked_validation(model, where, parts)
        held_out = _without_none(judged.X, check.plain(where, "y", parts[1]), judged.weights)
    elif validation_split is not None:
        split = checked_split(where, validation_split, seed, len(data.X))
        is_held_out = held_out_rows(split, classes_of_rows(model, data), len(data.X))
        judged = weighing(model, where, "sample_weight of the held-out rows", data.rows(is_held_out))
        held_out = _without_none(judged.X, given[is_held_out], judged.weights)
        data, given = data.rows(~is_held_out), given[~is_held_out]
    found: dict[str, Any] = {"X": data.X, "y": given}
    if data.weights is not None:
        found["sample_weight"] = data.weights
    if held_out is not None:
        found["validation_data"] = held_out
    return found


def _without_none(*arrays: Array | None) -> tuple[Array, ...]:
    return tuple(array for array in arrays if array is not None)


# Selection


def selection(loss: Any, outputs: Array, y: Array, weights: Array | None, most: int) -> list[int]:
    """Draw the best next member ``most`` times. Return how often each member is drawn up to the best mean.

    Parameters
    ----------
    loss : Loss
    outputs : array (k, n, outputs)
    y : array
        As the loss takes it.
    weights : float64 array (n,), optional
    most : int

    Returns
    -------
    list of int
        All 0 if no member's outputs are finite.
    """
    candidates = [number for number, own in enumerate(outputs) if np.isfinite(own).all()]
    drawn: list[int] = []
    best, best_length = np.inf, 0
    total = np.zeros(outputs.shape[1:], np.float64)
    while candidates and len(drawn) < most:
        losses = []
        for number in candidates:
            mean = ((total + outputs[number]) / (len(drawn) + 1)).astype(outputs.dtype)
            each = np.asarray(loss.forward(mean, y), np.float64)
            losses.append(float(each.mean() if weights is None else np.average(each, weights=weights)))
        place = int(np.argmin(losses))
        drawn.append(candidates[place])
        total += outputs[candidates[place]]
        if losses[place] < best:
            best, best_length = losses[place], len(drawn)
    return [drawn[:best_length].count(number) for number in range(len(outputs))]
