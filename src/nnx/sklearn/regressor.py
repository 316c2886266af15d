"""`MLPRegressor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.special import xlogy
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metaestimators import available_if

from nnx._base.typing import Array, ArrayLike, DTypeLike, FloatDType
from nnx.losses import Loss_MeanSquaredError, Loss_Pinball, Loss_Poisson
from nnx.sklearn import choices
from nnx.sklearn.base import DTYPES, BaseMLP, plain_targets
from nnx.sklearn.files import in_files
from nnx.sklearn.networks import End
from nnx.sklearn.training import Samples
from nnx.sklearn.versions import validated


@in_files
class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]
    """A multi-layer perceptron that predicts numbers: scikit-learn's, trained by nnx.

    All parameters of ``sklearn.neural_network.MLPRegressor`` are here under their names, and mean the same. With the
    same ``random_state`` it begins with the same weights and goes through the samples in the same orders. The others
    are those of `MLPClassifier`, which explains them.

    Parameters
    ----------
    loss : str or loss
        "squared_error", half the mean square; "poisson", half the deviance, for targets of at least 0; or a loss of nnx
        by name or as an object: "huber", "meanabsoluteerror", ``nnx.Loss_Pinball(0.9)``, ...
    hidden_layer_sizes, activation, ...
        As in `MLPClassifier`.

    Attributes
    ----------
    model_ : nnx.Model
        The network; with ``loss="poisson"`` it predicts the logarithm of what the estimator predicts.
    validation_scores_, best_validation_score_ : list of float, float
        R² of the held-out rows after each epoch, if there are any; else None.
    estimators_, coefs_, intercepts_, ...
        As in `MLPClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from nnx.sklearn import MLPRegressor
    >>> X, y = make_regression(n_samples=100, n_features=5, random_state=0)
    >>> mlp = MLPRegressor(hidden_layer_sizes=(16,), solver="lbfgs", max_iter=1000, random_state=0).fit(X, y)
    >>> mlp.score(X, y) > 0.99
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMLP._parameter_constraints,
        "loss": [
            StrOptions({"squared_error", "poisson", *choices.LOSSES}),
            HasMethods(["calculate", "forward", "backward"]),
        ],
    }

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: float | Sequence[float] = 0.0,
        norm: str | None = None,
        initializer: Any = None,
        callbacks: Sequence[Any] | None = None,
        restore_best: bool | None = None,
        n_jobs: int | None = None,
        dtype: DTypeLike = "auto",
        progress: bool = False,
        n_members: int = 1,
        bagging: bool = False,
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dropout = dropout
        self.norm = norm
        self.initializer = initializer
        self.callbacks = callbacks
        self.restore_best = restore_best
        self.n_jobs = n_jobs
        self.dtype = dtype
        self.progress = progress
        self.n_members = n_members
        self.bagging = bagging

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, eval_set: Any = None) -> MLPRegressor:
        """Train on samples and the numbers to predict.

        Parameters
        ----------
        X : array, sparse matrix or data frame (n, n_features)
            A sparse matrix becomes a dense array.
        y : array (n,) or (n, n_outputs)
        sample_weight : array (n,), optional
            The weight of each sample, 0 or more.
        eval_set : pair or triple, optional
            Held-out ``(X, y)`` or ``(X, y, sample_weight)``: scored after each epoch, and used in place of
            ``validation_fraction`` where ``early_stopping`` or ``restore_best`` asks for scores.

        Returns
        -------
        The estimator itself.
        """
        self._fit(X, y, sample_weight, eval_set, incremental=False)
        return self

    @available_if(lambda self: self._has_partial_fit())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> MLPRegressor:
        """Train for one pass over some samples. The arguments are those of `fit`."""
        self._fit(X, y, sample_weight, None, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return a number for each sample, (n,), or several, (n, n_outputs)."""
        outputs = self._outputs(X)
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs

    # Parts

    def _checked(self, X: Any, y: Any, first: bool, incremental: bool) -> tuple[Any, Array]:
        options: dict[str, Any] = {"multi_output": True, "y_numeric": True, "dtype": DTYPES, "reset": first}
        X, y = validated(self, X, y, accept_sparse=["csr", "csc"], **options)
        y = plain_targets(y)
        if y.dtype.kind not in "biuf":
            raise TypeError(f"{type(self).__name__}: y must hold real numbers, got dtype {y.dtype}.")
        y = y[:, np.newaxis] if y.ndim == 1 else y
        if self._is_poisson() and (y < 0).any():
            raise ValueError(f"Some value(s) of y are out of the valid range of the loss {self.loss!r}: below 0.")
        return X, np.ascontiguousarray(y)

    def _checked_held_out(self, X: Any, y: Any) -> tuple[Any, Array]:
        return self._checked(X, y, False, False)

    def _targets(self, compared: Array) -> Array:
        return compared

    def _end_of_network(self, targets: Array, dtype: FloatDType) -> End:
        n_outputs = targets.shape[1]
        if isinstance(self.loss, str) and self.loss == "squared_error":
            # The gradient of scikit-learn is that of half the sum over outputs; what it reports, half their mean.
            return End(Loss_MeanSquaredError(factor=n_outputs / 2), "identity", n_outputs, float(n_outputs))
        if isinstance(self.loss, str) and self.loss == "poisson":
            return End(Loss_Poisson(factor=float(n_outputs)), "exp", n_outputs)
        loss = choices.loss(type(self).__name__, self.loss)
        self._refuse_misfit(loss)
        is_of_logarithms = isinstance(loss, Loss_Poisson) and loss.log_input
        return End(loss, "exp" if is_of_logarithms else "identity", n_outputs)

    def _refuse_misfit(self, loss: Any) -> None:
        """Refuse losses of nnx that are of something else than one number for each output."""
        where = type(self).__name__
        if getattr(loss, "_predicts", "numbers") != "numbers":
            of_numbers = ", ".join(name for name, kind in choices.LOSSES.items() if kind._predicts == "numbers")
            raise ValueError(f"{where}: loss must be one of numbers ({of_numbers}), got {loss!r}.")
        if isinstance(loss, Loss_Pinball) and len(loss.quantiles) > 1:
            raise ValueError(f"{where}: loss must have one quantile, got {loss!r}. Write nnx.Loss_Pinball([0.9]).")

    def _is_poisson(self) -> bool:
        return isinstance(self.loss, Loss_Poisson) or (isinstance(self.loss, str) and self.loss == "poisson")

    def _constant(self, samples: Samples) -> float:
        """Return the mean of y·log(y) − y: with it, the loss of perfect predictions is 0, as scikit-learn's."""
        if not isinstance(self.loss, str) or self.loss != "poisson":
            return 0.0
        y = np.asarray(samples.targets, np.float64)
        return float(np.average(xlogy(y, y) - y, weights=samples.weights, axis=0).sum())

    def _score_of(self, outputs: Array, compared: Array, weights: Array | None) -> float:
        """Return R², the mean over outputs."""
        if not np.isfinite(outputs).all():
            return np.nan
        from sklearn.metrics import r2_score

        return float(r2_score(compared, outputs, sample_weight=weights))
