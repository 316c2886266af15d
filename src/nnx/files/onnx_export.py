"""A model, an ensemble or a predictor as an ONNX file. `nnx.model` and others call this."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from nnx._base import check, files
from nnx._base.network import Network
from nnx._base.typing import Array, FloatDType, Path
from nnx.activations import Activation_Sigmoid, Activation_Softmax
from nnx.data.images import Images
from nnx.data.tables import Table
from nnx.files import onnx_layers, onnx_tables
from nnx.files.model_files import preprocessor_of
from nnx.files.onnx_graph import Graph, onnx_package
from nnx.losses import AS_THEY_ARE, Answers, answers


def export(
    where: str,
    path: Path,
    members: Sequence[Sequence[Any]],
    dtype: FloatDType,
    *,
    weights: Array | None = None,
    preprocessor: Table | Images | None = None,
    how: Answers = AS_THEY_ARE,
    probable: bool = False,
) -> None:
    """Write a graph to a file.

    Parameters
    ----------
    where : str
        Who is called, for messages.
    path : str or path
        It is replaced as a whole or not at all.
    members : sequence of sequences of parts
        The networks: a part is a tuple of kind, values, n_in and n_out (`nnx.predictor`).
    dtype : dtype
        Of all of them.
    weights : float64 array (members,), optional
        What each counts in the mean of their outputs, which is summed in double. None for a single network.
    preprocessor : Table, Images or None
        What leads from raw data to inputs and from outputs to answers.
    how : Answers
        What of the outputs is the answer.
    probable : bool
        Whether outputs are probabilities of classes.
    """
    path = check.path(where, "path", path)
    files.writable(where, path)
    onnx = onnx_package(where)
    names = onnx_tables.input_names(preprocessor)
    graph = Graph(onnx, dtype, names)
    n_inputs, n_outputs = members[0][0][2], members[0][-1][3]
    inputs = onnx_tables.prepared(graph, preprocessor, n_inputs)
    if weights is None:
        outputs = onnx_layers.network(graph, where, inputs, members[0], "")
    else:
        outputs = _mean(graph, where, inputs, members, weights)
    onnx_tables.answered(graph, preprocessor, outputs, n_outputs, how, probable)
    model = graph.model(where, "nnx", _about(preprocessor), _version(), _metadata(preprocessor, names))
    content = model.SerializeToString()
    with files.replacing(where, path) as file:
        file.write(content)


def answering(where: str, model: Network) -> dict[str, Any]:
    """Return what `export` must know of a model beside its parts; refuse a table that does not fit it."""
    preprocessor_of(where, model)
    last = model.output_layer_activation
    predicts = "numbers" if model.preprocessor is not None and model.preprocessor.classes is None else "classes"
    return {
        "preprocessor": model.preprocessor,
        "how": answers(model.loss, last, predicts),
        "probable": isinstance(last, Activation_Softmax | Activation_Sigmoid),
    }


def _mean(graph: Graph, where: str, inputs: str, members: Sequence[Sequence[Any]], weights: Array) -> str:
    """Return the weighted mean of networks' outputs, summed in double."""
    total = ""
    for number, (parts, weight) in enumerate(zip(members, weights.tolist(), strict=True)):
        own = onnx_layers.network(graph, where, inputs, parts, f"members.{number}.")
        graph.scope = f"members.{number}"
        weighed = graph.add("Mul", graph.cast(own, np.float64), graph.number(weight, np.float64))
        total = graph.add("Add", total, weighed) if total else weighed
    graph.scope = "mean"
    return graph.cast(total, graph.dtype)


def _version() -> str:
    try:
        return version("nnx-core")
    except PackageNotFoundError:  # run from its sources
        return ""


def _about(preprocessor: Table | Images | None) -> str:
    if isinstance(preprocessor, Images):
        return "A network of nnx. It takes pixels and returns names of classes."
    if preprocessor is None:
        return "A network of nnx. It takes the network's inputs and returns its outputs."
    return (
        "A network of nnx with the preparation of its table. There is an input (batch, 1) for each column of the "
        "table: numbers with NaN for a missing value, categories as texts with '' for one, dates as days since "
        "1970-01-01 with the time of day as a fraction. An unknown text is a missing value, or one of the rare ones if "
        "these are pooled."
    )


def _metadata(preprocessor: Table | Images | None, names: Sequence[str]) -> dict[str, str]:
    """Return what the file says of its inputs and answers beside the graph."""
    found: dict[str, Any] = {}
    if isinstance(preprocessor, Table):
        columns = zip(names, preprocessor.inputs, strict=True)
        found["columns"] = [
            {"name": name, "kind": column.kind, "holds": onnx_tables.explained(column)} for name, column in columns
        ]
        found["target"] = preprocessor.target.name
    if preprocessor is not None and preprocessor.classes is not None:
        found["classes"] = list(preprocessor.classes)
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}
