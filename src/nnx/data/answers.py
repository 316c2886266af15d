"""From a network's outputs to names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.typing import Array


def chosen_categories(where: str, categories: Sequence[str], outputs: Any) -> Array:
    """Return the category of the largest output of each row; of two, one output may be the second's probability.

    Parameters
    ----------
    outputs : array (n, categories), of two also (n, 1)

    Returns
    -------
    array (n,) of str objects
    """
    values = check.matrix(where, "outputs", outputs)
    check_answers(where, values)
    if values.shape[1] != len(categories) and not (values.shape[1] == 1 and len(categories) == 2):
        raise ValueError(f"{where}: outputs must have shape (n, {len(categories)}), got {values.shape}.")
    numbers = np.argmax(values, axis=1) if values.shape[1] > 1 else (values[:, 0] > 0.5).astype(np.intp)
    names: Array = np.array(categories, dtype=object)  # one text may be long, and the others need not be
    return np.asarray(names[numbers])


def check_answers(where: str, outputs: Array) -> None:
    """Refuse outputs that are not finite."""
    good = np.isfinite(outputs).all(axis=1)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"{where}: outputs must be finite numbers, got {outputs[row].tolist()} in row {row}.")
