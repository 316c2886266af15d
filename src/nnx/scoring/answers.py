"""What a model's outputs say, in the terms of the table or the images that it was trained on."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx._base.typing import Array
from nnx.activations import Activation_Sigmoid, Activation_Softmax
from nnx.data.columns import Number
from nnx.data.tables import Table
from nnx.losses import answers


def gives_probabilities(model: Any) -> bool:
    """Return whether a model gives probabilities of classes."""
    return isinstance(model.output_layer_activation, Activation_Softmax | Activation_Sigmoid)


def decoded(model: Any, table: Table, outputs: Array) -> Array:
    """Return the names of classes, or the numbers in the target's own units, that outputs (n, n_outputs) say."""
    predicts = "numbers" if isinstance(table.target, Number) else "classes"
    said = answers(model.loss, model.output_layer_activation, predicts).of(outputs, False)
    return table.decode(said)


def probabilities(outputs: Array) -> Array:
    """Return the probability of each class, (n, classes), from outputs of which one may stand for two classes."""
    return np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs


def decimals(target: Number) -> int:
    """Return how many decimals show six digits of the target's standard deviation; none below 0."""
    return max(0, 5 - math.floor(math.log10(target.scale)))


def answer_columns(
    model: Any, table: Table, outputs: Array, kept: dict[str, Sequence[str]], each_class: bool
) -> dict[str, Sequence[str]]:
    """Return an answer's columns as texts: those that are ``kept``, the predictions, and for classes probabilities.

    That is the probability of the predicted class, or with ``each_class`` a column for every class. A prediction whose
    name a kept column has gets "predicted" before it.
    """
    found = dict(kept)

    def put(name: str, values: Sequence[str]) -> None:
        while name in found:
            name = f"predicted {name}"
        found[name] = values

    said = decoded(model, table, outputs).tolist()
    if isinstance(table.target, Number):
        digits = decimals(table.target)
        put(table.target.name, [f"{value:.{digits}f}" for value in said])
        return found
    put(table.target.name, said)
    if gives_probabilities(model):
        p = probabilities(outputs)
        if each_class:
            for number, name in enumerate(table.classes or ()):
                put(f"probability of {name}", [f"{value:.6g}" for value in p[:, number].tolist()])
        else:
            put("probability", [f"{value:.4f}" for value in p.max(axis=1).tolist()])
    return found


def as_csv(answer: dict[str, Sequence[str]], header: bool) -> str:
    """Return an answer as the text of a CSV file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(answer)
    writer.writerows(zip(*answer.values(), strict=True))
    return text.getvalue()
