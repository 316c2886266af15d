"""The models that a recipe's networks are: layers and optimizers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnx import activations
from nnx._base.typing import Array
from nnx.accuracy import Accuracy_Categorical, Accuracy_Regression
from nnx.layers import Layer_Combinations, Layer_Dense, Layer_Dropout, Layer_Embedding, Layer_Spline
from nnx.losses import Loss_CategoricalCrossentropy, Loss_MeanSquaredError
from nnx.model import Model
from nnx.optimizers import Optimizer_AdamW
from nnx.schedules import Schedule_Cosine
from nnx.tabular.edges import class_targets, quantile_edges, tree_edges
from nnx.tabular.pairs import Pair, telling_pairs
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
        self._edges: dict[tuple[str, int, int], tuple[list[int], list[list[float]]]] = {}
        self._pairs: list[Pair] | None = None  # looked for when they are first wanted

    def model(self, network: Network, n_steps: int, seed: np.random.SeedSequence) -> Model:
        """Return a model with new weights, ready to be trained for so many steps."""
        model = Model()
        before = np.random.get_state(legacy=False)
        np.random.seed(seed.generate_state(4))
        try:
            self._add_layers(model, network, seed.spawn(1)[0])
        finally:
            np.random.set_state(before)
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
        return model

    def _add_layers(self, model: Model, network: Network, seed: np.random.SeedSequence) -> None:
        """Add all layers but a softmax."""
        width, places = self._add_embedding(model)
        pairs = self.pairs(network.pairs)
        if pairs:
            sums, factors = _combinations(pairs)
            model.add(Layer_Combinations(width, [[places[column] for column in both] for both in sums], factors))
            places |= {self._shape.n_inputs + number: width + number for number in range(len(sums))}
            width += len(sums)
        inputs, edges = self._edges_of(network, pairs)
        initializer = "lecun_normal" if network.activation == "SELU" else "he_normal"
        n_outputs = self._shape.n_classes or 1
        draws = seed.generate_state(len(network.hidden) + 1, np.uint64).tolist()
        for number, n_neurons in enumerate((*network.hidden, n_outputs)):
            if number == 0 and inputs:
                columns, degree = [places[column] for column in inputs], int(network.encoding == "quantiles")
                model.add(Layer_Spline(width, n_neurons, columns, edges, degree, weight_initializer=initializer))
            else:
                model.add(Layer_Dense(width, n_neurons, weight_initializer=initializer))
            width = n_neurons
            if number < len(network.hidden):
                model.add(getattr(activations, f"Activation_{network.activation}")())
                if network.dropout:
                    model.add(Layer_Dropout(network.dropout, seed=draws[number]))

    def _add_embedding(self, model: Model) -> tuple[int, dict[int, int]]:
        """Add a layer for inputs that are categories; return how many columns follow, and where each input is then."""
        width = self._shape.n_inputs
        if not self._embedded:
            return width, {number: number for number in range(width)}
        columns = [column for column, _ in self._embedded]
        counts = [max(1, count) for _, count in self._embedded]
        each = min(MAX_WIDTH, max(2, round(max(counts) ** 0.5)))
        model.add(Layer_Embedding(width, columns, counts, each))
        left = [number for number in range(width) if number not in set(columns)]
        return len(left) + len(columns) * each, {number: place for place, number in enumerate(left)}

    def pairs(self, n_pairs: int) -> list[Pair]:
        """Return the pairs of inputs that tell most together, so many at most."""
        if not n_pairs:
            return []
        if self._pairs is None:
            self._pairs = telling_pairs(self._X, self._targets, self._numeric)
        return self._pairs[:n_pairs]

    def _edges_of(self, network: Network, pairs: list[Pair]) -> tuple[list[int], list[list[float]]]:
        """Return the inputs that a network encodes, those of pairs behind all others, and the edges of each."""
        key = network.encoding, network.bins, len(pairs)
        if network.encoding == "none":
            return [], []
        if key not in self._edges:
            columns = [(number, self._X[:, number]) for number in self._numeric]
            for number, (both, factors) in enumerate(zip(*_combinations(pairs), strict=True), self._shape.n_inputs):
                columns.append((number, self._X[:, both] @ np.array(factors, self._X.dtype)))
            inputs, edges = [], []
            for number, column in columns:
                found = self._found(network, column)
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


def _combinations(pairs: list[Pair]) -> tuple[list[list[int]], list[list[float]]]:
    """Return columns and factors of the sum and the difference of each pair."""
    columns = [list(pair.columns) for pair in pairs for _ in (1, -1)]
    return columns, [[pair.factors[0], sign * pair.factors[1]] for pair in pairs for sign in (1, -1)]
