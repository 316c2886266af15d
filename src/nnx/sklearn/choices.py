"""What parameters name: activations, losses, optimizers, schedules and norms of nnx, by name or as objects."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import StrOptions

from nnx import activations, layers, optimizers
from nnx._base.parameters import Parameterized
from nnx._base.text import abridged, near
from nnx._base.vocabulary import by_name
from nnx.lbfgs import Optimizer_LBFGS
from nnx.schedules import OVER_STEPS

#: scikit-learn's names of activations, and nnx's.
ACTIVATIONS: dict[str, Any] = {
    "identity": activations.Activation_Linear,
    "logistic": activations.Activation_Sigmoid,
    **{name: kind for name, kind in by_name("layer", "Activation_").items() if name != "softmax"},
}
LOSSES = by_name("loss", "Loss_")
#: Optimizers by name; "adam" and "sgd" are made as scikit-learn makes them.
OPTIMIZERS = by_name("optimizer", "Optimizer_")
SCHEDULES = OVER_STEPS
NORMS = {"batch": layers.Layer_BatchNorm, "layer": layers.Layer_LayerNorm}


class Estimator(BaseEstimator):  # type: ignore[misc]
    """An estimator that refuses a misspelt name with the one that it is nearest to."""

    def _validate_params(self) -> None:
        try:
            super()._validate_params()
        except ValueError as error:
            said = str(error)
            name = next((each for each in self._parameter_constraints if said.startswith(f"The {each!r} ")), None)
            kinds = self._parameter_constraints.get(name, [])
            options = [option for kind in kinds if isinstance(kind, StrOptions) for option in kind.options]
            raise type(error)(f"{said}{near(sorted(options), getattr(self, name or '', None))}") from None


def per_layer(where: str, name: str, value: Any, n_layers: int) -> list[Any]:
    """Return a parameter that may be given once, or once for each hidden layer, as a list of one each."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return [value] * n_layers
    if len(value) != n_layers:
        raise ValueError(
            f"{where}: {name} must be one for all hidden layers, or one for each of the {n_layers}, got {len(value)}."
        )
    return list(value)


def activation(where: str, chosen: Any, n_neurons: int, dtype: Any) -> Any:
    """Return a new activation layer; an object is copied, so that each layer has its own."""
    if not isinstance(chosen, str):
        layer = _copied(where, "activation", chosen, ("forward", "backward"))
        return _as_dtype(layer, dtype) if isinstance(layer, Parameterized) else layer
    kind = _named(where, "activation", chosen, ACTIVATIONS)
    return kind(n_neurons, dtype=dtype) if hasattr(kind, "_parameters") else kind()


def _as_dtype(layer: Any, dtype: str) -> Any:
    """Return a layer with its parameters in the network's dtype."""
    layer.dtype = dtype
    for name in layer._parameters:
        setattr(layer, name, np.array(getattr(layer, name), dtype))
    return layer


def loss(where: str, chosen: Any) -> Any:
    """Return a loss of nnx; an object is copied."""
    if not isinstance(chosen, str):
        return _copied(where, "loss", chosen, ("calculate", "forward", "backward"))
    return _named(where, "loss", chosen, LOSSES)()


def _named(where: str, name: str, chosen: str, choices: dict[str, Any]) -> Any:
    found = choices.get(chosen.lower().replace("_", ""))
    if found is None:
        raise ValueError(
            f"{where}: {name} must be an object or one of {', '.join(sorted(choices))}, got {abridged(chosen)}."
            f"{near(choices, chosen)}"
        )
    return found


def _copied(where: str, name: str, chosen: Any, methods: tuple[str, ...]) -> Any:
    """Return a copy of an object that has these methods."""
    if isinstance(chosen, type):
        raise ValueError(f"{where}: {name} must be a name or an object, got the class {chosen.__name__}. Call it.")
    missing = [method for method in methods if not callable(getattr(chosen, method, None))]
    if missing:
        raise ValueError(
            f"{where}: {name} must be a name or an object with {', '.join(methods)}, got {abridged(chosen)}."
        )
    return copy.deepcopy(chosen)


def is_lbfgs(solver: Any) -> bool:
    """Return whether a solver, by name or as an object, takes all samples at once."""
    return isinstance(solver, Optimizer_LBFGS) or (isinstance(solver, str) and solver == "lbfgs")


def optimizer(where: str, chosen: Any, rate: float, settings: dict[str, Any]) -> Any:
    """Return an optimizer by name, with the settings that its class takes as Adam does; an object is copied."""
    if not isinstance(chosen, str):
        return _copied(where, "solver", chosen, ("update_params",))
    if chosen == "sgd":
        momentum = settings["momentum"]
        return optimizers.Optimizer_SGD(
            rate, momentum=momentum, nesterov=bool(settings["nesterovs_momentum"] and momentum)
        )
    moments = {name: settings[name] for name in ("beta_1", "beta_2", "epsilon")}
    if chosen == "adam":
        return optimizers.Optimizer_Adam(rate, **moments, epsilon_hat=True)
    kind = _named(where, "solver", chosen, OPTIMIZERS)
    takes = moments if issubclass(kind, optimizers._MadeOfAdam) else {}
    return kind(rate, **takes)
