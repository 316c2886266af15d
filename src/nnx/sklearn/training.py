"""How an estimator is trained: its data, its network and optimizer, and what `Model.train` is called with."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from nnx import optimizers
from nnx._base.config import FLOAT32, FLOAT64, float_dtype
from nnx._base.typing import Array, FloatDType
from nnx.engine.calling import checked as checked_callbacks
from nnx.engine.history import History
from nnx.errors import DivergenceError
from nnx.layers import Layer_Dense, walk
from nnx.lbfgs import Optimizer_LBFGS
from nnx.many import Run, train_many
from nnx.model import Model
from nnx.sklearn import choices
from nnx.sklearn.networks import End, build
from nnx.sklearn.stopping import Watch

#: Samples of a step, if there are as many, with ``batch_size="auto"``.
AUTO_BATCH = 200

#: Samples times columns up to which "auto" computes in float64: an epoch of so few takes a tenth of a millisecond.
FEW_NUMBERS = 10_000

#: The schedules that are scikit-learn's: rates that change from epoch to epoch.
OF_EPOCHS = ("constant", "invscaling", "adaptive")

#: What is learnt of a network: all other fitted attributes are of the data, and those of an ensemble's members too.
OF_NETWORK = (
    *("model_", "estimators_", "history_", "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_"),
    *("validation_scores_", "best_validation_score_", "_no_improvement_count"),
)

OPTIMIZER_SETTINGS = ("momentum", "nesterovs_momentum", "beta_1", "beta_2", "epsilon")


class Samples(NamedTuple):
    """Checked samples.

    Attributes
    ----------
    X : array (n, n_features)
        In the network's dtype.
    targets : array
        As the loss takes them.
    compared : array
        As scores compare them: class numbers (n,), zeros and ones (n, labels), or numbers (n, outputs).
    weights : float64 array (n,) or None
    """

    X: Array
    targets: Array
    compared: Array
    weights: Array | None

    def rows(self, which: Array) -> Samples:
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[which]
        return Samples(self.X[which], self.targets[which], self.compared[which], weights)


class Orders:
    """The order of the samples in each epoch, as scikit-learn draws it: that of the epoch before, put in a new order.

    Of an ensemble with bagging, ``rows`` are those that this network was given.
    """

    def __init__(self, random_state: np.random.RandomState | None, rows: Array | None) -> None:
        self._random_state, self._rows = random_state, rows
        self._order: Array | None = None

    def __call__(self, epoch: int, n_samples: int) -> Array:
        """Return the order of the next epoch."""
        if self._order is None:
            self._order = np.arange(n_samples)
        if self._random_state is not None:
            self._order = self._order[self._random_state.permutation(n_samples)]
        return self._order if self._rows is None else self._rows[self._order]


class Training:
    """One training of one estimator.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Whose attributes are set; it stands for one network.
    samples : Samples
    held_out : Samples, optional
        What the user has given to be watched.
    first : bool
        Whether to begin with a new network.
    incremental : bool
        Whether it is one epoch of `partial_fit`.
    """

    def __init__(
        self, estimator: Any, samples: Samples, held_out: Samples | None, first: bool, incremental: bool
    ) -> None:
        self.estimator, self.incremental = estimator, incremental
        self.where = type(estimator).__name__
        random_state = check_random_state(estimator.random_state)
        end = estimator._end_of_network(samples.targets, samples.X.dtype) if first else estimator._end
        width = samples.X.shape[1]
        self.model: Model = build(estimator, width, end, samples.X.dtype, random_state) if first else estimator.model_
        optimizer = self._new_optimizer() if first or not incremental else None
        ends_early = bool(estimator.early_stopping) and not choices.is_lbfgs(estimator.solver)
        if ends_early and held_out is None:
            samples, held_out = self._split(samples, random_state)
        self.n_samples = len(samples.X)
        self.batch_size = self._batch_size()
        if first:  # from here on the estimator changes
            self._begin(end, ends_early)
        for layer in dense_layers(self.model):  # of a network that goes on, too
            layer.weight_regularizer_l2 = estimator.alpha / 2
        if optimizer is not None:
            for layer in walk(self.model.layers):
                optimizers.forget_states(layer)
            self.model.set(optimizer=optimizer)
        self._set_schedule()
        self.watch = self._watch(samples, held_out, ends_early)
        self.run = self._run(samples, held_out, random_state)
        estimator.n_iter_ = 0

    # What stands before the first step

    def _new_optimizer(self) -> Any:
        """Return an optimizer that knows nothing of an earlier training."""
        estimator = self.estimator
        if isinstance(estimator.solver, str) and estimator.solver == "lbfgs":
            return Optimizer_LBFGS(max_evaluations=estimator.max_fun, gradient_tolerance=estimator.tol)
        settings = {name: getattr(estimator, name) for name in OPTIMIZER_SETTINGS}
        return choices.optimizer(self.where, estimator.solver, estimator.learning_rate_init, settings)

    def _begin(self, end: End, ends_early: bool) -> None:
        """Let the estimator have the new network, and forget what was recorded of another one."""
        estimator = self.estimator
        for name in OF_NETWORK:
            vars(estimator).pop(name, None)
        estimator.model_, estimator._end = self.model, end
        estimator.n_outputs_, estimator.out_activation_ = end.n_outputs, end.activation
        estimator.n_layers_ = len(dense_layers(self.model)) + 1
        estimator.t_ = estimator._no_improvement_count = 0
        estimator.loss_curve_ = []
        estimator.best_loss_ = None if ends_early else math.inf
        estimator.validation_scores_ = [] if ends_early else None
        estimator.best_validation_score_ = -math.inf if ends_early else None

    def _split(self, samples: Samples, random_state: np.random.RandomState) -> tuple[Samples, Samples]:
        """Hold out the rows that scikit-learn holds out."""
        kept, held_out = train_test_split(
            np.arange(len(samples.X)),
            random_state=random_state,
            test_size=self.estimator.validation_fraction,
            stratify=self.estimator._stratum(samples.compared),
        )
        if len(held_out) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        parts = samples.rows(kept), samples.rows(held_out)
        if any(part.weights is not None and not part.weights.any() for part in parts):
            raise ValueError(
                "Sample weights must contain at least one non-zero number among the rows that are trained on, and "
                "among those that are held out."
            )
        return parts

    def _batch_size(self) -> int | None:
        chosen, n = self.estimator.batch_size, self.n_samples
        if choices.is_lbfgs(self.estimator.solver):
            return None
        if isinstance(chosen, str):
            return min(AUTO_BATCH, n)
        if chosen > n:
            warnings.warn(
                f"{self.where}: batch_size={chosen} is more than there are samples, so each step takes all {n}.",
                stacklevel=7,  # the line that calls fit
            )
        return min(int(chosen), n)

    def _set_schedule(self) -> None:
        """Let a schedule of nnx run over all steps of the training."""
        chosen = self.estimator.learning_rate
        if choices.is_lbfgs(self.estimator.solver) or (isinstance(chosen, str) and chosen in OF_EPOCHS):
            return
        n_steps = self.estimator.max_iter * -(-self.n_samples // (self.batch_size or self.n_samples))
        schedule = choices.SCHEDULES[chosen](n_steps) if isinstance(chosen, str) else copy.deepcopy(chosen)
        self.model.optimizer.schedule = schedule

    def _watch(self, samples: Samples, held_out: Samples | None, ends_early: bool) -> Watch:
        estimator = self.estimator
        score = None if held_out is None else scorer(estimator, held_out)
        restores = ends_early if estimator.restore_best is None else bool(estimator.restore_best)
        if score is not None and estimator.validation_scores_ is None:
            estimator.validation_scores_ = []
        if score is not None and estimator.best_validation_score_ is None:
            estimator.best_validation_score_ = -math.inf
        if not ends_early and estimator.best_loss_ is None:
            estimator.best_loss_ = math.inf
        return Watch(estimator, self._losses_of(samples), score, ends_early, restores, self.n_samples)

    def _losses_of(self, samples: Samples) -> Callable[[History, int], list[float]]:
        """Return the function that computes the losses which scikit-learn reports for the last epochs of a history.

        There, the loss of a step counts by the number of its rows, also where these have weights.
        """
        shares, constant = self.estimator._end.shares, self.estimator._constant(samples)
        size = self.batch_size or self.n_samples
        rows = np.diff([*range(0, self.n_samples, size), self.n_samples]) / self.n_samples

        def losses(history: History, n_epochs: int) -> list[float]:
            _, data_losses, penalties, *_ = history.latest_steps(n_epochs * len(rows))
            of_steps = (data_losses / shares + penalties).reshape(n_epochs, len(rows))
            return (of_steps @ rows + constant).tolist()

        return losses

    def _run(self, samples: Samples, held_out: Samples | None, random_state: np.random.RandomState) -> Run:
        """Return the call of `Model.train`."""
        estimator, weights = self.estimator, samples.weights
        callbacks = checked_callbacks(self.where, estimator.callbacks or [])
        keywords: dict[str, Any] = {
            "epochs": 1 if self.incremental else estimator.max_iter,
            "batch_size": self.batch_size,
            "penalty_per_sample": True,
            "callbacks": [*([self.watch] if self.watch.is_needed else []), *callbacks],
            "print_every": None,
            "check_finite": False,
        }
        rows = random_state.randint(self.n_samples, size=self.n_samples) if estimator.bagging else None
        if self.batch_size is None:
            if rows is not None:  # of a full batch: each row as often as it was drawn
                weights = (1.0 if weights is None else weights) * np.bincount(rows, minlength=self.n_samples)
        elif estimator.shuffle or rows is not None:
            keywords["shuffle"] = Orders(random_state if estimator.shuffle else None, rows)
        if weights is not None:
            keywords["sample_weight"] = weights
        if held_out is not None and callbacks:  # which may look at the figures of a validation
            own = () if held_out.weights is None else (held_out.weights,)
            keywords["validation_data"] = (held_out.X, held_out.targets, *own)
        return Run(self.model, samples.X, samples.targets, **keywords)

    # What comes after the last one

    def finish(self) -> None:
        """Put the best parameters back; warn if the training has not converged."""
        estimator = self.estimator
        self.watch.finish(self.model)
        estimator.history_ = self.model.history
        if self.incremental:
            return
        if choices.is_lbfgs(estimator.solver):
            message = self.model.optimizer.message
            if not message.startswith("converged"):
                self._warn(f"{message}. Raise max_iter, max_fun or tol, or scale the data")
        elif not self.watch.stopped and estimator.n_iter_ == estimator.max_iter:
            self._warn("the training has not converged yet. Raise max_iter or tol")

    def _warn(self, what: str) -> None:
        warnings.warn(
            f"{self.where}: after {self.estimator.n_iter_} iterations, {what}.", ConvergenceWarning, stacklevel=7
        )


def run(trainings: Sequence[Training], threads: int, progress: bool) -> None:
    """Do trainings, several at the same time; one that Ctrl-C ends leaves an estimator that predicts."""
    try:
        if len(trainings) == 1:
            only = trainings[0].run
            only.model.train(only.X, only.y, **{**only.keywords, "threads": threads, "progress": progress})
        else:
            train_many([each.run for each in trainings], threads=threads, progress=progress)
    except DivergenceError as error:
        raise ValueError(
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
            f"preprocessed. ({error})"
        ) from error
    except KeyboardInterrupt:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    for each in trainings:
        each.finish()


def scorer(estimator: Any, held_out: Samples) -> Callable[[Model], float]:
    """Return what scores a model on held-out rows as ``estimator.score`` would."""

    def score(model: Model) -> float:
        outputs = estimator._linked(model.predict(held_out.X))
        return float(estimator._score_of(outputs, held_out.compared, held_out.weights))

    return score


def chosen_dtype(estimator: Any, X: Any, incremental: bool) -> FloatDType:
    """Return the dtype in which an estimator is to compute, given the first samples.

    "auto" is float32, which halves the time; but float64 where there is little to save, and where every digit counts.
    Of those that come in parts, the first says nothing of their number.
    """
    if not isinstance(estimator.dtype, str) or estimator.dtype != "auto":
        return float_dtype(type(estimator).__name__, estimator.dtype)
    if choices.is_lbfgs(estimator.solver):
        return FLOAT64
    is_small = not incremental and X.shape[0] * X.shape[1] <= FEW_NUMBERS
    return FLOAT64 if is_small and X.dtype != FLOAT32 else FLOAT32


def dense_layers(model: Model) -> list[Layer_Dense]:
    """Return the dense layers of an estimator's network."""
    return [layer for layer in model.layers if isinstance(layer, Layer_Dense)]
