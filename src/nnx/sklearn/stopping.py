"""When the training of an estimator stops, and what is recorded until then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnx.callbacks import Callback, TrainingRun, learnt
from nnx.engine.history import History
from nnx.sklearn import choices

#: By what an adaptive rate is divided when nothing has improved, and below what it is not.
ADAPTIVE_PART, LEAST_RATE = 5.0, 1e-6


class Watch(Callback):
    """Records losses and scores under scikit-learn's names, and stops when they do not improve any more.

    Parameters
    ----------
    estimator : estimator
        Whose attributes are set: ``loss_curve_``, ``n_iter_``, ``t_``, ...
    losses_of : function
        Returns the losses that scikit-learn reports for the last epochs of a `History`, given their number.
    score : function, optional
        Returns the score of a model on held-out rows.
    decides : bool
        Whether scores decide when to stop, in place of losses.
    restores : bool
        Whether to put the best epoch's parameters back in the end: that of the best score, if there are scores.
    n_samples : int
        Rows that are trained on.
    """

    def __init__(
        self,
        estimator: Any,
        losses_of: Callable[[History, int], list[float]],
        score: Callable[[Any], float] | None,
        decides: bool,
        restores: bool,
        n_samples: int,
    ) -> None:
        self.estimator, self.losses_of, self.score = estimator, losses_of, score
        self.decides, self.restores, self.n_samples = decides, restores, n_samples
        self.adapts = estimator.solver == "sgd" and estimator.learning_rate == "adaptive"
        self.decays = estimator.solver == "sgd" and estimator.learning_rate == "invscaling"
        self.stops = not choices.is_lbfgs(estimator.solver)
        self.stopped = False
        self._best: dict[str, Any] = {}

    @property
    def is_needed(self) -> bool:
        """Whether each epoch must be seen when it ends; else losses can be taken from the history in the end."""
        looked_at = self.estimator.verbose or self.estimator.callbacks
        return self.stops or self.score is not None or self.restores or bool(looked_at)

    def on_epoch_end(self, run: TrainingRun) -> None:
        """Take the epoch's figures; change the rate, or stop the run, when it is time."""
        estimator = self.estimator
        self._record(run.epoch, *self.losses_of(run.history, 1))
        if estimator.verbose:
            print(f"Iteration {run.epoch}, loss = {estimator.loss_:.8f}")
        if self.score is not None:
            estimator.validation_scores_.append(self.score(run.model))
            if estimator.verbose:
                print(f"Validation score: {estimator.validation_scores_[-1]:f}")
        self._compare(run.model)
        if self.decays:
            run.model.optimizer.learning_rate = estimator.learning_rate_init / (estimator.t_ + 1) ** estimator.power_t
        if self.stops and estimator._no_improvement_count > estimator.n_iter_no_change:
            self._end(run)

    def _record(self, epoch: int, loss: float) -> None:
        estimator = self.estimator
        estimator.n_iter_ = epoch
        estimator.t_ += self.n_samples
        estimator.loss_ = loss
        estimator.loss_curve_.append(loss)

    def _compare(self, model: Any) -> None:
        """Count epochs that are no better than the best by ``tol``; keep the best one's parameters."""
        estimator = self.estimator
        if self.decides:
            falls_short = estimator.validation_scores_[-1] < estimator.best_validation_score_ + estimator.tol
        else:
            falls_short = estimator.loss_ > estimator.best_loss_ - estimator.tol
        estimator._no_improvement_count = estimator._no_improvement_count + 1 if falls_short else 0
        is_best = False
        if not self.decides and estimator.loss_ < estimator.best_loss_:
            estimator.best_loss_ = estimator.loss_
            is_best = self.score is None
        if self.score is not None and estimator.validation_scores_[-1] > estimator.best_validation_score_:
            estimator.best_validation_score_ = estimator.validation_scores_[-1]
            is_best = True
        if is_best and self.restores:
            self._best = {name: array.copy() for name, array in learnt(model).items()}

    def _end(self, run: TrainingRun) -> None:
        estimator, optimizer = self.estimator, run.model.optimizer
        what = "the validation score" if self.decides else "the training loss"
        reason = f"{what} has not improved by more than tol={estimator.tol} for {estimator.n_iter_no_change} epochs"
        if self.adapts and optimizer.learning_rate > LEAST_RATE:
            optimizer.learning_rate /= ADAPTIVE_PART
            estimator._no_improvement_count = 0
            if estimator.verbose:
                print(f"{reason.capitalize()}. The learning rate is {optimizer.learning_rate:f} now.")
            return
        self.stopped = True
        if estimator.verbose:
            print(f"{reason.capitalize()}. Stopping.")
        run.stop(reason)

    def finish(self, model: Any) -> None:
        """Record what nobody has seen when it happened; put the best epoch's parameters back, if that is wanted."""
        if not self.is_needed:
            for epoch, loss in enumerate(self.losses_of(model.history, len(model.history)), 1):
                self._record(epoch, loss)
                self._compare(model)
        arrays = learnt(model)
        for name, best in self._best.items():
            np.copyto(arrays[name], best)
