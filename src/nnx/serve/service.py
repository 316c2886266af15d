"""What a model file answers: from the rows of requests to answers in bytes. It knows nothing of HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from nnx._base import check, config
from nnx._base.typing import Array, Path
from nnx.data.columns import Number, Text
from nnx.data.images import Images
from nnx.data.tables import Table
from nnx.ensemble import Ensemble, load_any
from nnx.errors import ModelFileError
from nnx.files import model_files
from nnx.model import Model
from nnx.predictor import Predictor
from nnx.scoring.answers import answer_columns, as_csv, decimals, decoded, gives_probabilities, probabilities
from nnx.serve.errors import RequestError, request_error
from nnx.serve.rows import NumberRows, Rows, TableRows

#: Multiply-adds, and cells of a table, that one core does in a second at least.
PRODUCTS, CELLS = 5e9, 5e5


class Asked(NamedTuple):
    """A request's rows, and whether the answer shall be CSV; else it is JSON."""

    rows: Rows
    as_csv: bool


class Service:
    """A model that answers the rows of requests.

    Parameters
    ----------
    path : path-like
        What `nnx train`, `Model.save`, `Ensemble.save` or `Predictor.save` wrote. Nothing in it is executed.
    threads : int
        The most threads for a prediction of many rows.
    unknown : "error" or "missing"
        How to treat a text that the training table lacks: as an error, or as a missing value.

    Attributes
    ----------
    name : str
        Of the file, without its folder.
    preprocessor : Table, Images or None
        The table or images that turn raw rows into inputs.
    classes : tuple of str, or None
    n_inputs, n_outputs : int
        Of the network.

    Raises
    ------
    FileNotFoundError, ModelFileError
        If there is no such file, or it is none of these.
    """

    def __init__(self, path: Path, *, threads: int = 1, unknown: str = "error") -> None:
        where = "Service"
        self.threads = config.checked_threads(where, "threads", threads)
        check.one_of(where, "unknown", unknown, ("error", "missing"))
        path = check.path(where, "path", path)
        self.name, self.unknown = os.path.basename(path), unknown
        self.model: Model | Ensemble | None = None
        predictors = self._predictors(where, path)
        self._predict: Callable[[Array], Array] = predictors[0]
        if isinstance(self.model, Ensemble):
            self._predict = _mean(predictors, self.model.weights)
        first = predictors[0]
        self.n_inputs, self.n_outputs = first.n_inputs, first.n_outputs
        parts = [value for each in predictors for part in each._parts for value in part.values]
        n_products = sum(value.size for value in parts if isinstance(value, np.ndarray) and value.ndim == 2)
        self.seconds_per_row = n_products / PRODUCTS
        self.preprocessor: Table | Images | None = None if self.model is None else self.model.preprocessor
        self._table: Table | None = None
        self.reader: TableRows | NumberRows
        if isinstance(self.preprocessor, Table):
            self.reader, self._table = TableRows(self.preprocessor, unknown), self.preprocessor
            self.seconds_per_row += len(self.preprocessor.inputs) / CELLS
        else:
            self.reader = NumberRows(self.n_inputs, first.dtype, self.preprocessor)
            if self.preprocessor is not None:
                self._table = Table([Number("pixels"), Text("class", self.preprocessor.classes)], "class")
        self.classes = None if self._table is None else self._table.classes
        self.gives_probabilities = self.classes is not None and gives_probabilities(self.model)
        zeros = np.zeros((1, self.n_inputs), first.dtype)
        self.answer([Asked(Rows(1, X=zeros), False)])  # the first call is slower than others

    def _predictors(self, where: str, path: str) -> list[Predictor]:
        """Return what predicts: the file's predictor, or one of each network; set ``model``."""
        try:
            is_predictor = model_files.opened(where, path).kind == model_files.PREDICTOR
        except ModelFileError:
            is_predictor = False  # `load_any` says what is wrong
        if is_predictor:
            return [Predictor.load(path, threads=self.threads)]
        self.model = load_any(path)
        networks = self.model.models if isinstance(self.model, Ensemble) else (self.model,)
        return [network.predictor(threads=self.threads) for network in networks]

    def answer(self, several: Sequence[Asked]) -> list[bytes | RequestError]:
        """Return the answer to each of some requests, predicted together; none depends on the others.

        An error of one of them is that one's answer.
        """
        try:
            X = self.reader.inputs([each.rows for each in several])
            outputs = self._predict(X)
            if not np.isfinite(outputs).all():
                row = int(np.argmin(np.isfinite(outputs).all(axis=1)))
                raise RequestError(422, f"the network's outputs must be finite numbers, and are not in row {row}.")
        except (TypeError, ValueError) as error:
            if len(several) == 1:
                return [request_error(error)]
            return [answer for each in several for answer in self.answer([each])]
        return self._said(several, outputs)

    def _said(self, several: Sequence[Asked], outputs: Array) -> list[bytes | RequestError]:
        columns = self._columns(outputs)
        answers: list[bytes | RequestError] = []
        start = 0
        for asked in several:
            rows = slice(start, start + asked.rows.n_rows)
            start = rows.stop
            if asked.as_csv:
                answers.append(self._csv(outputs[rows]))
            else:
                part = {name: values[rows] for name, values in columns.items()}
                answers.append(orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY))
        return answers

    def _columns(self, outputs: Array) -> dict[str, Any]:
        """Return what an answer in JSON holds, of all rows."""
        if self._table is None:
            return {"predictions": np.ascontiguousarray(outputs)}
        said = decoded(self.model, self._table, outputs)
        if isinstance(self._table.target, Number):
            return {"predictions": np.round(said, decimals(self._table.target))}
        found: dict[str, Any] = {"predictions": said.tolist()}
        if self.gives_probabilities:
            classes = self.classes or ()
            rows = ([float(f"{p:.6g}") for p in row] for row in probabilities(outputs).tolist())
            found["probabilities"] = [dict(zip(classes, row, strict=True)) for row in rows]
        return found

    def _csv(self, outputs: Array) -> bytes:
        if self._table is not None:
            header = self.preprocessor.header if isinstance(self.preprocessor, Table) else True
            return as_csv(answer_columns(self.model, self._table, outputs, {}, each_class=False), header).encode()
        names = [f"output {i + 1}" for i in range(outputs.shape[1])]
        columns: dict[str, Sequence[str]] = {
            name: [*map(str, each)] for name, each in zip(names, outputs.T, strict=True)
        }
        return as_csv(columns, header=True).encode()


def _mean(predictors: Sequence[Predictor], weights: Array) -> Callable[[Array], Array]:
    """Return the weighted mean of members' outputs as a function of samples, with the bits of `Ensemble.predict`."""

    def mean(X: Array) -> Array:
        found = [predictor(X) for predictor in predictors]
        total = np.zeros(found[0].shape, np.float64)
        for weight, own in zip(weights, found, strict=True):
            total += weight * own
        return total.astype(found[0].dtype)

    return mean
