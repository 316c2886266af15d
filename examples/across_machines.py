"""Workers of joblib, Dask or Ray
==============================

Members of an ensemble and folds of a cross-validation, trained by workers of joblib, Dask or Ray.

python -m pip install 'nnx-core[sklearn]' && python examples/across_machines.py [EPOCHS] [loky | dask | ray]

For dask: python -m pip install 'dask[distributed]'; for ray: python -m pip install ray. All run on this machine here.
For others, name their scheduler where a comment says so.
"""

import contextlib
import sys
import warnings
from collections.abc import Iterator

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, train_test_split

import nnx
from nnx.sklearn import MLPClassifier

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
BACKEND = sys.argv[2] if len(sys.argv) > 2 else "loky"


@contextlib.contextmanager
def workers(backend: str) -> Iterator[None]:
    """Let joblib use two workers of this machine."""
    with contextlib.ExitStack() as stack:
        if backend == "dask":
            from dask.distributed import Client, LocalCluster

            # Other machines: Client("tcp://scheduler:8786").
            cluster = stack.enter_context(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None))
            stack.enter_context(Client(cluster))
        elif backend == "ray":
            import ray
            from ray.util.joblib import register_ray

            # Other machines: ray.init(address="auto") on a node of the cluster.
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
            stack.callback(ray.shutdown)
            register_ray()
        stack.enter_context(joblib.parallel_config(backend, n_jobs=2))
        yield


def member(number: int, X: np.ndarray, y: np.ndarray) -> nnx.Model:
    """Return a member of an ensemble, trained; it depends on its number alone."""
    np.random.seed(number)
    model = nnx.Model()
    model.add(nnx.Layer_Dense(64, 32))
    model.add(nnx.Activation_ReLU())
    model.add(nnx.Layer_Dense(32, 10))
    model.add(nnx.Activation_Softmax())
    model.set(
        loss=nnx.Loss_CategoricalCrossentropy(),
        optimizer=nnx.Optimizer_Adam(0.005),
        accuracy=nnx.Accuracy_Categorical(),
    )
    model.finalize()
    model.train(X, y, epochs=EPOCHS, batch_size=64, shuffle=True, seed=number, print_every=None, threads=1)
    return model


def fold(X: np.ndarray, y: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> float:
    """Return an estimator's accuracy on held-out rows. `cross_val_score` would send the workers the same."""
    estimator = MLPClassifier((32,), max_iter=EPOCHS, n_jobs=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs are enough here
        estimator.fit(X[training], y[training])
    return estimator.score(X[held_out], y[held_out])


def main() -> None:
    """Train, and print what has been found."""
    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.3, random_state=0)
    with workers(BACKEND):
        members = joblib.Parallel()(joblib.delayed(member)(number, X_train, y_train) for number in range(4))
        splits = KFold(4, shuffle=True, random_state=0).split(X_train)
        folds = joblib.Parallel()(joblib.delayed(fold)(X_train, y_train, *rows) for rows in splits)
    ensemble = nnx.Ensemble(members)
    one = members[0].score(X_test, y_test)
    print(f"{BACKEND}: one member {one:.3f}, an ensemble of {len(ensemble)} {ensemble.score(X_test, y_test):.3f}")
    print(f"{BACKEND}: the folds {', '.join(f'{score:.3f}' for score in folds)}")


if __name__ == "__main__":
    main()
