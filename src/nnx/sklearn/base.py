"""What classifier and regressor share: parameters, fitting, ensembles, and what they say of what they have learnt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
from sklearn.base import clone
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted

from nnx._base.text import abridged
from nnx._base.typing import Array, FloatDType
from nnx.sklearn import choices, training
from nnx.sklearn.networks import MAX_LAYER_SEED, End
from nnx.sklearn.threads import n_threads
from nnx.sklearn.training import OF_NETWORK, Samples, Training, chosen_dtype, dense_layers
from nnx.sklearn.versions import HAS_TAGS, checked_weights, validated

#: What samples are checked as: others are turned into the first.
DTYPES = (np.float64, np.float32)


class BaseMLP(choices.Estimator):
    """The common part of `MLPClassifier` and `MLPRegressor`."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [str, list, tuple, HasMethods(["forward", "backward"])],
        "solver": [StrOptions({"lbfgs", *choices.OPTIMIZERS}), HasMethods("update_params")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({*training.OF_EPOCHS, *choices.SCHEDULES}), callable],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {math.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
        "initializer": [None, str, Real, callable],
        "norm": [None, StrOptions(set(choices.NORMS))],
        "callbacks": [None, list, tuple],
        "restore_best": [None, "boolean"],
        "n_jobs": [None, Integral],
        "dtype": [StrOptions({"auto", "float32", "float64"}), type, np.dtype],
        "progress": ["boolean"],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "bagging": ["boolean"],
    }

    # What differs between the two

    _dtype: FloatDType

    def _checked(self, X: Any, y: Any, first: bool, incremental: bool) -> tuple[Any, Array]:
        """Return checked samples and encoded targets, as scores compare them; learn columns and classes if first."""
        raise NotImplementedError

    def _checked_held_out(self, X: Any, y: Any) -> tuple[Any, Array]:
        """Return the same of held-out rows, from which nothing is learnt."""
        raise NotImplementedError

    def _targets(self, compared: Array) -> Array:
        """Return encoded targets as the loss takes them."""
        raise NotImplementedError

    def _end_of_network(self, targets: Array, dtype: FloatDType) -> End:
        """Return what is at the end of a network for these targets."""
        raise NotImplementedError

    def _score_of(self, outputs: Array, compared: Array, weights: Array | None) -> float:
        """Return the accuracy, or R², of outputs."""
        raise NotImplementedError

    def _class_weights(self, compared: Array, incremental: bool) -> Array | None:
        """Return how much each sample counts for its class."""
        return None

    def _constant(self, samples: Samples) -> float:
        """Return what scikit-learn adds to the loss, whatever the outputs are."""
        return 0.0

    def _stratum(self, compared: Array) -> Array | None:
        """Return of what held-out rows shall have the same parts as all rows."""
        return None

    # Fitting

    def _fit(self, X: Any, y: Any, sample_weight: Any, eval_set: Any, incremental: bool) -> None:
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        threads = self._n_threads()
        before = dict(vars(self))
        trainings: list[Training] = []
        try:
            trainings += self._trainings(X, y, sample_weight, eval_set, incremental)
            training.run(trainings, threads, bool(self.progress))
        except BaseException:
            if not any(each.estimator.n_iter_ for each in trainings):  # nothing has been learnt: all is as it was
                self.__dict__.clear()
                self.__dict__.update(before)
            raise
        finally:
            if "estimators_" in vars(self):
                self._summarize(self.estimators_)

    def _trainings(self, X: Any, y: Any, sample_weight: Any, eval_set: Any, incremental: bool) -> list[Training]:
        """Return the training of each network, after all checks of what was given."""
        first = self._n_networks() != self.n_members or (not self.warm_start and not incremental)
        X, compared = self._checked(X, y, first, incremental)
        dtype = chosen_dtype(self, X, incremental) if first else self._dtype
        X = dense_rows(X, dtype)
        weights = None if sample_weight is None else checked_weights(sample_weight, X)
        of_classes = self._class_weights(compared, incremental)
        if of_classes is not None:
            weights = checked_weights(of_classes if weights is None else weights * of_classes, X)
        samples = Samples(X, self._targets(compared), compared, weights)
        held_out = None if eval_set is None else self._checked_eval_set(eval_set, dtype)
        members = [self] if self.n_members == 1 else self._members(first)
        trainings = []
        for member in members:  # no comprehension: up to Python 3.11 it is a frame, which warnings would count
            trainings.append(Training(member, samples, held_out, first, incremental))
        for estimator in (self, *members):
            estimator._dtype = dtype
        if self.n_members > 1 and first:
            for name in OF_NETWORK:
                self.__dict__.pop(name, None)
            self.estimators_ = members
            self._summarize(members)
        return trainings

    def _n_networks(self) -> int:
        """Return how many networks there are to go on with."""
        return len(self.estimators_) if "estimators_" in vars(self) else int("model_" in vars(self))

    def _members(self, first: bool) -> list[Any]:
        """Return the estimators of an ensemble: each becomes what it would alone, with its ``random_state``."""
        if first:
            seeds = check_random_state(self.random_state).randint(MAX_LAYER_SEED, size=self.n_members).tolist()
            members = [clone(self) for _ in seeds]
        else:
            members = self.estimators_
            seeds = [member.random_state for member in members]
        own = self.get_params(deep=False)
        of_data = {name: value for name, value in vars(self).items() if name not in own and name not in OF_NETWORK}
        for member, seed in zip(members, seeds, strict=True):
            alone = {"n_members": 1, "verbose": False, "random_state": seed}
            # Parameters may have changed since; objects are copied, as no two threads may use the same callback.
            member.__dict__.update({**vars(clone(self)), **alone, **of_data})
        return members

    def _summarize(self, members: list[Any]) -> None:
        """Say of an ensemble what can be said of it as of one network."""
        for name in ("n_layers_", "n_outputs_", "out_activation_"):
            setattr(self, name, getattr(members[0], name))
        self.n_iter_ = max(member.n_iter_ for member in members)
        losses = [member.loss_ for member in members if "loss_" in vars(member)]
        if losses:  # of those that have ended an epoch before Ctrl-C
            self.loss_ = sum(losses) / len(losses)

    def _checked_eval_set(self, eval_set: Any, dtype: FloatDType) -> Samples:
        """Return the held-out rows that the user gives."""
        if not isinstance(eval_set, tuple | list) or len(eval_set) not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: eval_set must be a pair (X, y), or (X, y, sample_weight), got "
                f"{abridged(eval_set)}."
            )
        X, compared = self._checked_held_out(eval_set[0], eval_set[1])
        X = dense_rows(X, dtype)
        weights = checked_weights(eval_set[2], X) if len(eval_set) == 3 and eval_set[2] is not None else None
        return Samples(X, self._targets(compared), compared, weights)

    def _n_threads(self) -> int:
        """Return how many threads to use."""
        return n_threads(type(self).__name__, self.n_jobs)

    def _has_partial_fit(self) -> bool:
        if choices.is_lbfgs(self.solver):
            raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
        return True

    # Predicting

    def _outputs(self, X: Any) -> Array:
        """Return what the network makes of samples: the mean of an ensemble's."""
        own = vars(self)
        if "n_layers_" not in own:
            check_is_fitted(self)  # which takes longer than to predict a row
        samples = self._samples(X)
        members = own.get("estimators_")
        if members is None:
            return self._linked(self.model_.predict(samples))
        mean: Array = np.mean([self._linked(member.model_.predict(samples)) for member in members], axis=0)
        return mean

    def _linked(self, outputs: Array) -> Array:
        """Return outputs as ``out_activation_`` says; a loss of counts takes their logarithms."""
        return np.exp(outputs) if self.out_activation_ == "exp" else outputs

    def _samples(self, X: Any) -> Array:
        """Return samples as the network takes them; plain arrays need few checks, so that a single row is fast."""
        if type(X) is np.ndarray and X.ndim == 2 and X.shape[1] == self.n_features_in_ and X.dtype.kind == "f":
            with np.errstate(all="ignore"):
                samples = X.astype(self._dtype, copy=False)
                if X.size and math.isfinite(samples.sum()) and not hasattr(self, "feature_names_in_"):
                    return samples
        return dense_rows(validated(self, X, accept_sparse=["csr", "csc"], dtype=DTYPES, reset=False), self._dtype)

    # What it has learnt

    @property
    def coefs_(self) -> list[Array]:
        """The weights of each dense layer, (n_inputs, n_neurons): the model's own arrays."""
        return Arrays((layer.weights for layer in self._dense_layers("coefs_")), self._set_coefs)

    @coefs_.setter
    def coefs_(self, arrays: Any) -> None:
        self._set_coefs(arrays)

    def _set_coefs(self, arrays: Any) -> None:
        """Put in other weights: copies, so that the caller's arrays stay the caller's."""
        layers, arrays = self._dense_layers("coefs_"), _as_many("coefs_", arrays, self.coefs_)
        for layer, weights in zip(layers, arrays, strict=True):
            layer.set_parameters(weights, layer.biases)

    @property
    def intercepts_(self) -> list[Array]:
        """The biases of each dense layer, (n_neurons,): views of the model's own arrays."""
        return Arrays((layer.biases[0] for layer in self._dense_layers("intercepts_")), self._set_intercepts)

    @intercepts_.setter
    def intercepts_(self, arrays: Any) -> None:
        self._set_intercepts(arrays)

    def _set_intercepts(self, arrays: Any) -> None:
        """Put in other biases."""
        layers, arrays = self._dense_layers("intercepts_"), _as_many("intercepts_", arrays, self.intercepts_)
        for layer, biases in zip(layers, arrays, strict=True):
            layer.set_parameters(layer.weights, biases.reshape(1, -1))

    def _dense_layers(self, name: str) -> list[Any]:
        if "estimators_" in vars(self):
            raise AttributeError(f"An ensemble has no {name}. See those of its estimators_.")
        if "model_" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r} before it is fitted.")
        return dense_layers(self.model_)

    def save(self, path: Any) -> None:
        """Write parameters and networks to a safetensors file, atomically, which `nnx.sklearn.load` reads.

        Unlike a pickle's, nothing of the file is executed when it is loaded.
        """
        from nnx.sklearn import files

        files.save(self, path)

    if HAS_TAGS:

        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            tags.input_tags.sparse = True
            return tags


class Arrays(list[Array]):
    """The arrays of a model's layers; one that is put in a place of the list is put into the model."""

    def __init__(self, arrays: Iterable[Array], put: Callable[[Any], None]) -> None:
        super().__init__(arrays)
        self._put = put

    def __setitem__(self, place: Any, value: Any) -> None:
        changed = list(self)
        changed[place] = value
        self._put(changed)
        super().__setitem__(place, value)

    def __reduce__(self) -> Any:
        return list, (list(self),)


def _as_many(name: str, arrays: Any, present: list[Array]) -> list[Array]:
    """Return copies of arrays, which must have the shapes of those that are there."""
    copies = [np.array(each) for each in arrays]
    if [each.shape for each in copies] != [each.shape for each in present]:
        raise ValueError(
            f"{name} must hold arrays of the shapes {[each.shape for each in present]}, got "
            f"{[each.shape for each in copies]}."
        )
    return copies


def plain_targets(y: Any) -> Array:
    """Return targets as an array (n,) or (n, several); a sparse matrix is filled up."""
    if scipy.sparse.issparse(y):
        y = y.toarray()
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def dense_rows(X: Any, dtype: FloatDType) -> Array:
    """Return checked samples as a C-ordered array of the dtype: a sparse matrix is filled up, as kernels need it."""
    filled = X.toarray() if scipy.sparse.issparse(X) else X
    if filled.dtype == dtype:
        return np.ascontiguousarray(filled)
    with np.errstate(over="ignore"):
        samples = np.ascontiguousarray(filled, dtype)
    if not np.isfinite(samples).all():
        raise ValueError(
            f"Input X contains infinity or a value too large for {dtype!r}. Scale the data, or write dtype='float64'."
        )
    return samples
