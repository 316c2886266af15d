"""`TabularClassifier` and `TabularRegressor`: the default recipe for tables, on data frames as they are."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, NamedTuple

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, _fit_context
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_is_fitted

from nnx import tabular
from nnx._base.text import abridged
from nnx._base.typing import Array, ArrayLike
from nnx.data.notation import exact, is_gap
from nnx.data.tables import Table
from nnx.sklearn.choices import Estimator
from nnx.sklearn.files import in_files
from nnx.sklearn.frames import columns_of, in_order, merged, n_rows
from nnx.sklearn.quantiles import quantile_ensemble
from nnx.sklearn.tabular_files import TabularReader, save
from nnx.sklearn.threads import n_threads
from nnx.sklearn.versions import HAS_TAGS, checked_weights

#: Probabilities do not become 0, so that their logarithms are finite.
LEAST = float(np.finfo(np.float64).eps)


class Rows(NamedTuple):
    """What networks are trained on: inputs (n, inputs), targets as a table gives them, and weights (n,) if any."""

    X: Array
    y: Array
    weights: Array | None


class BaseTabular(Estimator):
    """The common part of `TabularClassifier` and `TabularRegressor`."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "effort": [StrOptions({"fast", "default", "best"})],
        "random_state": ["random_state"],
        "n_jobs": [None, Integral],
        "progress": ["boolean"],
    }

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        before = dict(vars(self))
        try:
            self._learn(X, y, sample_weight)
        except BaseException:  # nothing has been learnt: all is as it was
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _learn(self, X: Any, y: Any, sample_weight: Any) -> None:
        where = type(self).__name__
        threads = n_threads(where, self.n_jobs)
        if y is None:
            raise ValueError(f"This {where} estimator requires y to be passed, but the target y is None.")
        columns = columns_of(self, X, first=True)
        y = self._learnt_targets(column_or_1d(y, warn=True))
        check_consistent_length(next(iter(columns.values())), y)
        weights = None if sample_weight is None else checked_weights(sample_weight, np.empty((n_rows(columns), 1)))
        columns, y, weights = merged(columns, y, weights)
        self._columns = list(columns)
        self._learn_prior(y, weights)
        self.ensemble_: Any = None
        self.quantile_ensemble_: Any = None
        self.lines_, self.temperature_ = list[str](), 1.0
        if not (y == y[0]).all():
            self._train(columns, y, weights, threads)

    def _train(self, columns: dict[str, Any], y: Array, weights: Array | None, threads: int) -> None:
        """Learn the table's columns, and have the recipe train an ensemble."""
        target = "target"
        while target in columns:
            target += "_"
        rows = {**columns, target: self._named(y)}
        table = Table.learn(rows, target, task=self._task, lenient=True, **tabular.PREPARATION)
        inputs, targets = table.read_samples(rows)
        seed = self._seed()
        fitted = tabular.fit(
            table,
            inputs,
            targets,
            effort=self.effort,
            seed=seed,
            threads=threads,
            sample_weight=weights,
            progress=bool(self.progress),
        )
        self.ensemble_, self.lines_ = fitted.ensemble, list(fitted.lines)
        self._take_table()
        self._finish(fitted, Rows(inputs, targets, weights), seed, threads)

    def _seed(self) -> int:
        """Return the number that a random state is, or one that it draws."""
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _outputs(self, X: Any) -> Array:
        """Return what the networks make of samples, float64 (n, outputs); the prior if there was nothing to learn."""
        check_is_fitted(self)
        columns = columns_of(self, X, first=False)
        if self.ensemble_ is None:
            return np.repeat(self._prior[np.newaxis], n_rows(columns), axis=0)
        return np.asarray(self._predicted(self.ensemble_, columns), np.float64)

    def _predicted(self, ensemble: Any, columns: dict[str, Any]) -> Array:
        """Return the mean outputs of an ensemble; a text that is no known category is a missing value."""
        inputs = self.ensemble_.table.read_inputs(columns, unknown="missing")
        outputs: Array = ensemble.predict(inputs, threads=n_threads(type(self).__name__, self.n_jobs))
        return outputs

    # What differs between the two

    _task: ClassVar[str]

    def _learnt_targets(self, y: Array) -> Array:
        """Return checked targets: class numbers (n,), or numbers (n,) in float64."""
        raise NotImplementedError

    def _learn_prior(self, y: Array, weights: Array | None) -> None:
        """Remember what to predict where nothing can be learnt."""
        raise NotImplementedError

    def _named(self, y: Array) -> Any:
        """Return targets as a table is to hold them."""
        raise NotImplementedError

    def _finish(self, fitted: Any, rows: Rows, seed: int, threads: int) -> None:
        """Take over what else was found, or find it now."""

    def _take_table(self) -> None:
        """Learn from the ensemble's table what leads from its outputs to answers."""

    def _check_target(self, where: str, table: Table) -> None:
        """Refuse a table that predicts something else."""
        raise NotImplementedError

    def save(self, path: Any) -> None:
        """Write parameters and networks to a safetensors file, atomically, which `nnx.sklearn.load` reads.

        Unlike a pickle's, nothing of the file is executed when it is loaded.
        """
        save(self, path)

    _reader = TabularReader

    if HAS_TAGS:

        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            tags.input_tags.allow_nan = True
            return tags

    else:

        def _more_tags(self) -> dict[str, Any]:
            return {"allow_nan": True}


@in_files
class TabularClassifier(ClassifierMixin, BaseTabular):  # type: ignore[misc]
    """A classifier for tables: nnx's default recipe prepares the columns, and trains and chooses networks.

    Samples may be a data frame of pandas or polars, with numbers, texts, categories, dates and missing values. `fit`
    learns how to prepare each column, so you need not scale, fill or encode anything.

    Parameters
    ----------
    effort : "fast", "default" or "best"
        How many networks to try. With 16,000 rows on one core: about a second, some seconds, a minute or more.
    calibrate : bool
        Whether to calibrate the probabilities on held-out rows, by temperature scaling. This changes no prediction.
    random_state : int, RandomState or None
    n_jobs : int or None
        Number of threads; results are the same for any number, bit for bit. None: as many as `nnx.get_num_threads`
        says, or one in a thread of joblib's; -1: all cores.
    progress : bool
        Show a progress bar.

    Attributes
    ----------
    ensemble_ : nnx.Ensemble
        The networks, with their table; None if there was only one class.
    lines_ : list of str
        Which networks were tried, and their scores.
    temperature_ : float
        The temperature by which logarithms of probabilities are divided; 1 without ``calibrate``.
    classes_ : array
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", 2017. A text that was in no training
    row is a missing value. In a table of up to 200 rows, equal rows become one row with a larger weight, so that no
    row is trained on and held out at once.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from nnx.sklearn import TabularClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = TabularClassifier("fast", random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseTabular._parameter_constraints,
        "calibrate": ["boolean"],
    }
    _task = "classification"

    def __init__(
        self,
        effort: str = "default",
        *,
        calibrate: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        progress: bool = False,
    ) -> None:
        self.effort = effort
        self.calibrate = calibrate
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.progress = progress

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> TabularClassifier:
        """Train on samples and their classes.

        Parameters
        ----------
        X : data frame or array (n, n_features)
            A frame of any columns, or an array of numbers, where NaN is a missing value.
        y : array (n,)
            Classes of any kind that can be sorted.
        sample_weight : array (n,), optional
            The weight of each sample, 0 or more.

        Returns
        -------
        The estimator itself.
        """
        self._fit(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> Array:
        """Return the class of each sample, (n,)."""
        chosen = self.predict_proba(X).argmax(axis=1)
        classes: Array = self.classes_[chosen]
        return classes

    def predict_proba(self, X: Any) -> Array:
        """Return how likely each class is, float64 (n, n_classes), in the order of ``classes_``."""
        outputs = self._outputs(X)
        if outputs.shape[1] == 1 and len(self.classes_) == 2:
            outputs = np.concatenate([1 - outputs, outputs], axis=1)
        if self.ensemble_ is not None:
            outputs = in_order(tempered(outputs, self.temperature_), self._order, len(self.classes_))
        return outputs

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of what `predict_proba` returns."""
        with np.errstate(divide="ignore"):  # a class whose rows all had the weight 0
            return np.log(self.predict_proba(X))

    def _learnt_targets(self, y: Array) -> Array:
        if y.dtype.kind == "O" and any(_is_missing(value) for value in y.tolist()):
            raise ValueError("Input y contains NaN.")  # in scikit-learn's words
        check_classification_targets(y)
        self._kind = "classes"
        self.classes_, numbers = np.unique(y, return_inverse=True)
        return numbers.ravel()

    def _learn_prior(self, y: Array, weights: Array | None) -> None:
        counts = np.bincount(y, weights, len(self.classes_))
        self._prior = counts / counts.sum()

    def _named(self, y: Array) -> Any:
        names = class_names(self.classes_.tolist())
        return [names[number] for number in y.tolist()]

    def _finish(self, fitted: Any, rows: Rows, seed: int, threads: int) -> None:
        self.temperature_ = float(fitted.temperature) if self.calibrate else 1.0

    def _take_table(self) -> None:
        if self.ensemble_ is not None:
            names = class_names(self.classes_.tolist())
            self._order = [names.index(name) for name in self.ensemble_.table.classes]

    def _check_target(self, where: str, table: Table) -> None:
        names = class_names(self.classes_.tolist())
        if table.classes is None or not set(table.classes) <= set(names):
            raise ValueError(f"{where}: the classes of ensemble_ must be among {names}, got {table.classes}.")


@in_files
class TabularRegressor(RegressorMixin, BaseTabular):  # type: ignore[misc]
    """A regressor for tables: nnx's default recipe prepares the columns, and trains and chooses networks.

    Samples may be a data frame of pandas or polars, with numbers, texts, categories, dates and missing values. `fit`
    learns how to prepare each column, so you need not scale, fill or encode anything, the target included.

    Parameters
    ----------
    effort : "fast", "default" or "best"
        How many networks to try. With 16,000 rows on one core: about a second, some seconds, a minute or more.
    quantiles : list of float, optional
        Quantiles to learn too, for `predict_quantiles`: increasing numbers above 0 and below 1.
    random_state, n_jobs, progress
        Those of `TabularClassifier`.

    Attributes
    ----------
    ensemble_, lines_, n_features_in_, feature_names_in_
        Those of `TabularClassifier`; ``ensemble_`` is None if all targets were the same.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from nnx.sklearn import TabularRegressor
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> regressor = TabularRegressor("fast", random_state=0).fit(X, y)
    >>> regressor.score(X, y) > 0.4
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseTabular._parameter_constraints,
        "quantiles": [None, "array-like"],
    }
    _task = "regression"

    def __init__(
        self,
        effort: str = "default",
        *,
        quantiles: Any = None,
        random_state: Any = None,
        n_jobs: int | None = None,
        progress: bool = False,
    ) -> None:
        self.effort = effort
        self.quantiles = quantiles
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.progress = progress

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> TabularRegressor:
        """Train on samples and the numbers to predict.

        Parameters
        ----------
        X : data frame or array (n, n_features)
            A frame of any columns, or an array of numbers, where NaN is a missing value.
        y : array (n,)
        sample_weight : array (n,), optional
            The weight of each sample, 0 or more.

        Returns
        -------
        The estimator itself.
        """
        _check_quantiles(type(self).__name__, self.quantiles)
        self._fit(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> Array:
        """Return a number for each sample, float64 (n,), in the target's own units."""
        outputs = self._outputs(X)
        return outputs[:, 0] if self.ensemble_ is None else self.ensemble_.table.decode(outputs)

    @available_if(lambda self: self._has_quantiles())
    def predict_quantiles(self, X: Any) -> Array:
        """Return the quantiles of each sample, float64 (n, quantiles), in the target's own units, none below another.

        Of samples like those of `fit`, the part q has targets of at most the quantile q.
        """
        check_is_fitted(self)
        columns = columns_of(self, X, first=False)
        if self.quantile_ensemble_ is None:
            return np.full((n_rows(columns), len(self.quantiles)), self._prior[0])
        outputs = np.sort(self._predicted(self.quantile_ensemble_, columns), axis=1)
        return np.stack([self.ensemble_.table.decode(column) for column in outputs.T[:, :, np.newaxis]], axis=1)

    def _validate_params(self) -> None:
        super()._validate_params()
        _check_quantiles(type(self).__name__, self.quantiles)  # for scikit-learn, a text is array-like

    def _has_quantiles(self) -> bool:
        if self.quantiles is None:
            raise AttributeError("predict_quantiles is only available with quantiles=[...].")
        return True

    def _finish(self, fitted: Any, rows: Rows, seed: int, threads: int) -> None:
        if self.quantiles is not None:
            levels = [float(each) for each in self.quantiles]
            self.quantile_ensemble_ = quantile_ensemble(
                fitted.ensemble,
                fitted.held_out,
                *rows,
                levels,
                seed=seed,
                threads=threads,
                progress=bool(self.progress),
            )

    def _learnt_targets(self, y: Array) -> Array:
        if y.dtype.kind not in "biufO":
            raise TypeError(f"{type(self).__name__}: y must hold real numbers, got dtype {y.dtype}.")
        numbers = y.astype(np.float64)
        assert_all_finite(numbers, input_name="y")
        return numbers

    def _learn_prior(self, y: Array, weights: Array | None) -> None:
        self._prior = np.array([np.average(y, weights=weights)])

    def _named(self, y: Array) -> Any:
        return y

    def _check_target(self, where: str, table: Table) -> None:
        if table.classes is not None:
            raise ValueError(f"{where}: the target of ensemble_ must be numbers, got classes {table.classes}.")


def _check_quantiles(where: str, quantiles: Any) -> None:
    """Refuse what are no quantiles."""
    if quantiles is None:
        return
    values = np.asarray(quantiles)
    good = values.ndim == 1 and values.size and values.dtype.kind == "f" and (np.diff(values) > 0).all()
    if not good or not (values[0] > 0 and values[-1] < 1):
        raise ValueError(
            f"{where}: quantiles must be a list of increasing numbers above 0 and below 1, got {abridged(quantiles)}."
        )


def class_names(classes: list[Any]) -> list[str]:
    """Return names for classes as a table keeps them: their own, or numbers where some would not come back as such."""
    names = [str(each) for each in classes]
    values = {name if exact(name) is None else exact(name) for name in names}
    usable = len(values) == len(names) and all(name and name == name.strip() and not is_gap(name) for name in names)
    return names if usable else [str(number) for number in range(len(names))]


def tempered(probabilities: Array, temperature: float) -> Array:
    """Return softmax(log p / temperature): below 1 more certain, above 1 less. The sum of each row is 1."""
    logits = np.log(np.clip(probabilities, LEAST, None)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def _is_missing(value: Any) -> bool:
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )
