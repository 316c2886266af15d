"""A search on Dask's workers
==========================

A search by scikit-learn whose trainings are done by Dask's workers, here threads of this machine.

python -m pip install 'nnx-core[sklearn]' 'dask[distributed]' && python examples/dask_search.py [EPOCHS]
"""

import sys
import warnings

import joblib
from dask.distributed import Client, LocalCluster
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, ParameterGrid, train_test_split

from nnx.sklearn import MLPClassifier

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 40


def main() -> None:
    """Search, and print what has been found."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
    grid = {"alpha": [1e-4, 1e-1, 1.0], "dropout": [0.0, 0.2], "learning_rate_init": [1e-3, 1e-2]}
    # n_jobs=1: a training has one thread, and the workers do several trainings at once.
    search = GridSearchCV(MLPClassifier((64,), max_iter=EPOCHS, random_state=0, n_jobs=1), grid, cv=3)

    # Threads suffice: a training holds no lock of Python's. For other machines: Client("tcp://scheduler:8786").
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        print(f"{sum(client.nthreads().values())} threads do {3 * len(ParameterGrid(grid))} trainings")
        with joblib.parallel_config("dask"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            search.fit(X_train, y_train)

    print(f"the best of the folds: {search.best_score_:.3f} with {search.best_params_}")
    print(f"on the test rows: {search.score(X_test, y_test):.3f}")


if __name__ == "__main__":
    main()
