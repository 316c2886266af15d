"""What an estimator for tables is in a file: its parameters, what was learnt of the data, and its ensembles.

The format is laid down in docs/internals/model-files.md. Reading executes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin

from nnx._base import check
from nnx._base.typing import Array, Path
from nnx._base.widths import widths_of
from nnx.data.tables import Table
from nnx.ensemble import Ensemble
from nnx.files import ensembles, model_files, safetensors
from nnx.model import Model
from nnx.sklearn.files import Reader, Writer, check_classes, defaults, refuse_derived, without

#: What is kept of a `fit` beside the ensembles, and is neither names nor classes.
FIGURES = ("_columns", "_prior", "lines_", "temperature_")
#: The attributes that hold ensembles; None is not kept.
ENSEMBLES = ("ensemble_", "quantile_ensemble_")


def save(estimator: Any, path: Path) -> None:
    """Write parameters, what was learnt of the data, and the ensembles.

    Raises
    ------
    TypeError
        For an object of a class derived from an estimator's.
    ValueError
        For an estimator that could not be loaded again, such as one whose last `fit` has failed.
    """
    where = f"{type(estimator).__name__}.save"
    path = check.path(where, "path", path)
    refuse_derived(where, estimator, "ensemble_")
    estimator._validate_params()
    own, writer = vars(estimator), Writer(where)
    description: dict[str, Any] = {
        "format": model_files.ESTIMATOR,
        "version": model_files.VERSION,
        "class": type(estimator).__name__,
        "parameters": without(writer.parameters(estimator), writer.encoded(defaults(type(estimator)))),
        "fitted": None,
        "members": [],
        "objects": [],
    }
    if "_columns" in own:
        check_fitted(where, estimator)
        there = [name for name in ENSEMBLES if own.get(name) is not None]
        figures = writer.encoded({name: own[name] for name in FIGURES})
        description["fitted"] = {"ensembles": there, **figures, **writer.of_data(estimator)}
        for number, name in enumerate(there):
            described, arrays = ensembles.contents_of(where, own[name].models, own[name].counts)
            description["members"].append(described)
            writer.arrays |= {f"members.{number}.{key}": array for key, array in arrays.items()}
    safetensors.write(where, path, description, writer.arrays)


def check_fitted(where: str, estimator: Any) -> None:
    """Refuse an estimator that is not as `fit` leaves it."""
    own = vars(estimator)
    missing = sorted({"n_features_in_", *FIGURES, *ENSEMBLES} - own.keys())
    if missing:
        raise ValueError(
            f"{where}: the estimator must be completely fitted, but it lacks {missing[0]}. Call fit again."
        )
    columns, names = own["_columns"], own.get("feature_names_in_")
    if not isinstance(columns, list) or len(columns) != own["n_features_in_"]:
        raise ValueError(f"{where}: there must be {own['n_features_in_']} columns, got {columns}.")
    for name in columns if names is None else (*columns, *names):
        check.text(where, "each column", name)
    if names is not None and list(names) != columns:
        raise ValueError(f"{where}: feature_names_in_ must be the columns, got {list(names)}.")
    for line in own["lines_"]:
        check.text(where, "each of lines_", line)
    check.number(where, "temperature_", own["temperature_"], np.finfo(np.float64).tiny)
    n_outputs = len(own["classes_"]) if isinstance(estimator, ClassifierMixin) else 1
    prior = check.array(where, "prior", own["_prior"], np.dtype(np.float64))
    if prior.shape != (n_outputs,):
        raise ValueError(f"{where}: the prior must have shape ({n_outputs},), got {prior.shape}.")
    if isinstance(estimator, ClassifierMixin):
        check_classes(where, own["_kind"], own["classes_"], n_outputs)
    if own["ensemble_"] is not None:
        _check_ensemble(where, estimator, own["ensemble_"])
    if own["quantile_ensemble_"] is not None:
        _check_quantiles(where, estimator, own["quantile_ensemble_"])


def _check_ensemble(where: str, estimator: Any, ensemble: Any) -> None:
    """Refuse an ensemble of which an estimator says something else."""
    table = ensemble.table if isinstance(ensemble, Ensemble) else None
    if not isinstance(table, Table):
        raise ValueError(f"{where}: ensemble_ must be an Ensemble with a table.")
    strangers = {column.name for column in table.inputs} - set(estimator._columns)
    if strangers:
        raise ValueError(f"{where}: ensemble_ must take the columns of fit, got {sorted(strangers)[0]!r}.")
    estimator._check_target(where, table)


def _check_quantiles(where: str, estimator: Any, ensemble: Any) -> None:
    """Refuse an ensemble that does not give an estimator's quantiles for the inputs of its other one."""
    quantiles = getattr(estimator, "quantiles", None)
    if quantiles is None or estimator.ensemble_ is None or not isinstance(ensemble, Ensemble):
        raise ValueError(f"{where}: quantile_ensemble_ must be an Ensemble beside ensemble_, with quantiles=[...].")
    n_inputs = estimator.ensemble_.table.n_inputs
    taken = {_input_width(model) for model in ensemble.models}
    if ensemble.output_width() != len(quantiles) or not taken <= {None, n_inputs}:
        raise ValueError(
            f"{where}: quantile_ensemble_ must take what ensemble_ does, and give {len(quantiles)} numbers."
        )


def _input_width(model: Model) -> int | None:
    """Return how many columns a model's first layer with a preference takes; None if none has one."""
    found = (widths_of(layer) for layer in model.layers)
    return next((each[0] for each in found if each is not None and each[0] is not None), None)


class TabularReader(Reader):
    """Makes an estimator for tables of a file."""

    beside = ("members.0.table.", "members.1.table.")

    def _restore(self, estimator: Any, parameters: dict[str, Any], described: list[Any]) -> None:
        keys = {"ensembles", "feature_names", *FIGURES}
        if isinstance(estimator, ClassifierMixin):
            keys |= {"kind", "classes"}
        fitted = self.with_keys(self.file.description["fitted"], keys)
        own, there = vars(estimator), fitted["ensembles"]
        if not isinstance(there, list) or there not in ([], list(ENSEMBLES[:1]), list(ENSEMBLES)):
            self.file.refuse("is damaged: its ensembles are not named")
        if len(there) != len(described):
            self.file.refuse(f"is damaged: it names {len(there)} ensembles, and holds {len(described)}")
        own |= self.of_data(fitted) | {name: self.decoded("", fitted[name]) for name in FIGURES}
        if not isinstance(own["_prior"], list) or not isinstance(own["_columns"], list | tuple):
            self.file.refuse("is damaged: its columns are not described")
        if not isinstance(own["lines_"], list):
            self.file.refuse("is damaged: its lines are not a list")
        own["_prior"] = self.checked(_prior, own["_prior"])
        own |= {"n_features_in_": len(own["_columns"]), **dict.fromkeys(ENSEMBLES)}
        for number, (name, each) in enumerate(zip(there, described, strict=True)):
            own[name] = self._ensemble(number, each)
        self.checked(check_fitted, estimator)
        estimator._take_table()

    def _ensemble(self, number: int, described: Any) -> Ensemble:
        """Return an ensemble that is described as in a file of its own."""
        if not isinstance(described, dict):
            self.file.refuse("is damaged: an ensemble is not described")
        part = model_files.Part(self.file.where, self.file.path, described, self._arrays.pop(f"members.{number}", {}))
        part.check_keys()
        if part.kind != model_files.ENSEMBLE:
            self.file.refuse("is damaged: an ensemble is not valid")
        return Ensemble._of_file(part, self.custom_objects)


def _prior(where: str, values: Any) -> Array:
    return check.array(where, "prior", values, np.dtype(np.float64))
