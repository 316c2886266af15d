"""The models that a recipe's networks are: encodings, dense layers, optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnx import activations
from nnx._base.typing import Array
from nnx.accuracy import Accuracy_Categorical, Accuracy_Regression
from nnx.layers import Layer_Dense, Layer_Dropout, Layer_Embedding, Layer_PiecewiseLinear, Layer_Thermometer
from nnx.losses import Loss_CategoricalCrossentropy, Loss_MeanSquaredError
from nnx.model import Model
from nnx.optimizers import Optimizer_AdamW
from nnx.schedules import Schedule_Cosine
from nnx.tabular.edges import class_targets, quantile_edges, tree_edges
from nnx.tabular.recipe import Network, Shape

#: Rows that edges are found from, at most, evenly spaced: more hardly move them.
EDGE_ROWS = 100_000
#: Rows of a tree's leaf, at least, and at most.
LEAF_ROWS = 2, 16
#: Numbers that stand for a category, at most.
MAX_WIDTH = 16


class Builder:
    """Makes models for one table's samples.

    Parameters
    ----------
    X, y : arrays (rows, n_inputs), (rows,) or (rows, 1)
        Class numbers, or targets.
    numeric : sequence of int
        Inputs that hold numbers.
    embedded : sequence of (int, int)
        Inputs that hold the number of a category, with how many there are.
    shape : Shape
    """

    def __init__(
        self, X: Array, y: Array, numeric: Sequence[int], embedded: Sequence[tuple[int, int]], shape: Shape
    ) -> None:
        rows = slice(None, None, -(-len(X) // EDGE_ROWS))
        self._X, self._shape, self._numeric, self._embedded = X[rows], shape, list(numeric), list(embedded)
        chosen = y[rows].reshape(-1)
        self._targets = class_targets(chosen) if shape.n_classes else chosen.astype(np.float64)[:, None]
        self._leaf_rows = max(LEAF_ROWS[0], min(LEAF_ROWS[1], shape.n_rows // 100))
        self._edges: dict[tuple[str, int], tuple[list[int], list[list[float]]]] = {}

    def model(self, network: Network, n_steps: int, seed: np.random.SeedSequence) -> Model:
        """Return a model with new weights, ready to be trained for so many steps."""
        model = Model()
        before = np.random.get_state(legacy=False)
        np.random.seed(seed.generate_state(4))
        try:
            width = self._add_first(model, network)
            draws = seed.spawn(1)[0].generate_state(len(network.hidden), np.uint64).tolist()
            initializer = "lecun_normal" if network.activation == "SELU" else "he_normal"
            for n_neurons, dropout_seed in zip(network.hidden, draws, strict=True):
                model.add(Layer_Dense(width, n_neurons, weight_initializer=initializer))
                model.add(getattr(activations, f"Activation_{network.activation}")())
                if network.dropout:
                    model.add(Layer_Dropout(network.dropout, seed=dropout_seed))
                width = n_neurons
            model.add(Layer_Dense(width, self._shape.n_classes or 1, weight_initializer=initializer))
        finally:
            np.random.set_state(before)
        self._set(model, network, n_steps)
        return model

    def _set(self, model: Model, network: Network, n_steps: int) -> None:
        optimizer = Optimizer_AdamW(
            network.rate,
            beta_2=network.beta_2,
            weight_decay=network.weight_decay,
            schedule=Schedule_Cosine(max(1, n_steps)),
        )
        if self._shape.n_classes:
            model.add(activations.Activation_Softmax())
            model.set(loss=Loss_CategoricalCrossentropy(), optimizer=optimizer, accuracy=Accuracy_Categorical())
        else:
            model.set(loss=Loss_MeanSquaredError(), optimizer=optimizer, accuracy=Accuracy_Regression())
        model.finalize()

    def _add_first(self, model: Model, network: Network) -> int:
        """Add the layers in front of the dense ones; return how many columns they give."""
        width, places = self._shape.n_inputs, {number: number for number in range(self._shape.n_inputs)}
        if self._embedded:
            columns = [column for column, _ in self._embedded]
            counts = [max(1, count) for _, count in self._embedded]
            each = min(MAX_WIDTH, max(2, round(max(counts) ** 0.5)))
            model.add(Layer_Embedding(width, columns, counts, each))
            left = [number for number in range(width) if number not in set(columns)]
            places, width = {number: place for place, number in enumerate(left)}, len(left) + len(columns) * each
        inputs, edges = self._edges_of(network)
        if inputs:
            layer = Layer_PiecewiseLinear if network.encoding == "quantiles" else Layer_Thermometer
            model.add(layer(width, [places[number] for number in inputs], edges))
            width += sum(map(len, edges)) - (len(edges) if network.encoding == "quantiles" else 0)
        return width

    def _edges_of(self, network: Network) -> tuple[list[int], list[list[float]]]:
        """Return the inputs that a network encodes, and the edges of each."""
        key = network.encoding, network.bins
        if network.encoding == "none":
            return [], []
        if key not in self._edges:
            inputs, edges = [], []
            for number in self._numeric:
                found = self._found(network, self._X[:, number])
                if len(found):
                    inputs.append(number)
                    edges.append(found.tolist())
            self._edges[key] = inputs, edges
        return self._edges[key]

    def _found(self, network: Network, column: Array) -> Array:
        if network.encoding == "tree":
            return tree_edges(column, self._targets, network.bins, self._leaf_rows)
        edges = quantile_edges(column, network.bins)
        return edges if len(edges) > 2 else edges[:0]  # with two, the encoding would be the number again
