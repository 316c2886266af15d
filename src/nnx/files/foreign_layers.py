"""Layers made of the arrays of other programs: nothing random is drawn, nothing is allocated but what arrays hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx._base.typing import Array, FloatDType
from nnx.files.descriptions import make
from nnx.layers import Layer_BatchNorm, Layer_Dense, Layer_Embedding, Layer_LayerNorm, Layer_Scale

#: Of a batch norm that only moves and scales: with the variance 1 − this, its denominator is 1 without any rounding.
TINY = 2.0**-17


def dense(weights: Array, biases: Array, dtype: FloatDType) -> Any:
    """Return a dense layer; weights (n_in, n_out), biases (n_out,)."""
    plain = dict.fromkeys((f"{part}_regularizer_{norm}" for part in ("weight", "bias") for norm in ("l1", "l2")), 0.0)
    sizes = {"n_inputs": weights.shape[0], "n_neurons": weights.shape[1]}
    layer = make(Layer_Dense, {**sizes, **plain, "dtype": dtype.name})
    return _with(layer, dtype, weights=weights, biases=biases.reshape(1, -1))


def batch_norm(
    weights: Array, biases: Array, mean: Array, variance: Array, epsilon: float, momentum: float, dtype: FloatDType
) -> Any:
    """Return a batch norm; all arrays are (n,)."""
    settings = {"n_inputs": weights.size, "momentum": momentum, "epsilon": epsilon, "dtype": dtype.name}
    arrays = {"weights": weights, "biases": biases, "running_mean": mean, "running_variance": variance}
    return _with(make(Layer_BatchNorm, settings), dtype, **{name: _row(array) for name, array in arrays.items()})


def layer_norm(weights: Array, biases: Array, epsilon: float, dtype: FloatDType) -> Any:
    """Return a layer norm; both arrays are (n,)."""
    layer = make(Layer_LayerNorm, {"n_inputs": weights.size, "epsilon": epsilon, "dtype": dtype.name})
    return _with(layer, dtype, weights=_row(weights), biases=_row(biases))


def affine(center: Array, scale: Array, shift: Array, dtype: FloatDType) -> Any:
    """Return a layer that makes (x − center) · scale + shift of each column; all are (n,)."""
    if not center.any() and not shift.any():
        layer = make(Layer_Scale, {"n_inputs": scale.size, "scale": 1.0, "dtype": dtype.name})
        return _with(layer, dtype, weights=_row(scale))
    return batch_norm(scale, shift, center, np.full(scale.shape, 1 - TINY, np.float64), TINY, 0.9, dtype)


def embedding(n_inputs: int, columns: Sequence[int], tables: Sequence[Array], dtype: FloatDType) -> Any:
    """Return an embedding of some columns; a table (categories, width) for each."""
    settings = {"n_inputs": n_inputs, "columns": list(columns), "categories": [len(table) for table in tables]}
    layer = make(Layer_Embedding, {**settings, "width": tables[0].shape[1], "dtype": dtype.name})
    return _with(layer, dtype, weights=np.concatenate(tables))


def _row(array: Array) -> Array:
    return array.reshape(1, -1)


def _with(layer: Any, dtype: FloatDType, **arrays: Array) -> Any:
    """Give a layer its arrays, copied."""
    for name, array in arrays.items():
        setattr(layer, name, np.array(array, dtype, order="C"))
    return layer
