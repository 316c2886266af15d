"""A search with Optuna
====================

Optuna looks for good settings; a callback ends trials that fall behind.

python -m pip install 'nnx-core[sklearn]' optuna && python examples/optuna_search.py [TRIALS]
"""

import sys
import warnings

import optuna
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from nnx.sklearn import MLPClassifier

TRIALS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
EPOCHS = 30

X, y = load_digits(return_X_y=True)
X_rest, X_test, y_rest, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
X_train, X_held_out, y_train, y_held_out = train_test_split(X_rest, y_rest, random_state=0)


def suggested(trial: optuna.Trial) -> dict:
    """Return the settings of a trial."""
    return {
        "hidden_layer_sizes": (trial.suggest_int("neurons", 16, 128, log=True),) * trial.suggest_int("layers", 1, 2),
        "activation": trial.suggest_categorical("activation", ["relu", "tanh", "gelu"]),
        "learning_rate": trial.suggest_categorical("learning_rate", ["constant", "cosine", "onecycle"]),
        "learning_rate_init": trial.suggest_float("learning_rate_init", 1e-4, 3e-2, log=True),
        "alpha": trial.suggest_float("alpha", 1e-6, 10, log=True),
        "dropout": trial.suggest_float("dropout", 0, 0.5),
    }


def objective(trial: optuna.Trial) -> float:
    """Train once, and return the best accuracy on the held-out rows."""

    def report(run):
        trial.report(run.figures["validation_accuracy"], run.epoch)
        if trial.should_prune():
            run.stop("other trials did better by now")

    # tol=0: the optimizer's own way of stopping must not come between.
    estimator = MLPClassifier(
        **suggested(trial), max_iter=EPOCHS, n_iter_no_change=EPOCHS, tol=0, random_state=0, callbacks=[report]
    )
    estimator.fit(X_train, y_train, eval_set=(X_held_out, y_held_out))
    if estimator.n_iter_ < EPOCHS:
        raise optuna.TrialPruned
    return max(estimator.validation_scores_)


warnings.simplefilter("ignore", ConvergenceWarning)  # all trials are to train for as many epochs
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    direction="maximize", sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.MedianPruner(5, 5)
)
study.optimize(objective, n_trials=TRIALS)

ended = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in study.trials)
print(f"{TRIALS} trials, of which {ended} ended early; the best reaches {study.best_value:.3f} on the held-out rows:")
for name, value in study.best_params.items():
    print(f"  {name} = {value:.3g}" if isinstance(value, float) else f"  {name} = {value}")
best = MLPClassifier(**suggested(optuna.trial.FixedTrial(study.best_params)), max_iter=EPOCHS, random_state=0)
print(f"on the test rows: {best.fit(X_rest, y_rest).score(X_test, y_test):.3f}")
