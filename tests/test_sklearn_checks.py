"""scikit-learn's own checks of estimators. None may fail."""

from __future__ import annotations

import os
from functools import partial

import pytest

pytest.importorskip("sklearn")

from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from nnx import _kernels
from nnx.sklearn import MLPClassifier, MLPRegressor

SOLVERS = ("adam", "sgd", "lbfgs")
ESTIMATORS = [kind(solver=solver) for kind in (MLPClassifier, MLPRegressor) for solver in SOLVERS]

#: Checks that scikit-learn makes only of its own estimators, or only since 1.6.
UNLISTED = ("check_param_validation", "check_n_features_in_after_fitting", "check_dataframe_column_names_consistency")

pytestmark = pytest.mark.filterwarnings("ignore")  # checks train for a few epochs, and warn of omissions


def checks_of(estimators):
    """Return all of scikit-learn's pairs of estimator and check, and the function that names them."""
    mark = parametrize_with_checks(estimators).mark
    return list(mark.args[1]), mark.kwargs["ids"]


CHECKS, NAMES = checks_of(ESTIMATORS)


def on(backends, cases):
    """Return all cases on the first backend, and those of one solver on others: they take the longest."""
    first, *others = backends
    pairs = [(first, *case) for case in cases]
    return pairs + [(other, *case) for other in others for case in cases if case[0].solver == "adam"]


#: The backend that this machine or NNX_BACKEND chooses, and the definition. Other variants would show nothing new.
BACKENDS = [_kernels.name] if os.environ.get("NNX_BACKEND") else list(dict.fromkeys([_kernels.name, "numpy"]))


@pytest.mark.few("check")  # with one of the solvers
@pytest.mark.parametrize(("backend", "estimator", "check"), on(BACKENDS, CHECKS), ids=NAMES, indirect=["backend"])
def test_a_check_of_scikit_learn_passes(estimator, check):
    check(estimator)


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("name", UNLISTED)
def test_a_check_that_third_parties_are_spared_passes(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)


@pytest.mark.parametrize("backend", BACKENDS[:1], indirect=True)
def test_there_are_as_many_checks_as_for_scikit_learns_own():
    from sklearn.neural_network import MLPClassifier as TheirClassifier
    from sklearn.neural_network import MLPRegressor as TheirRegressor

    theirs = [kind(solver=solver) for kind in (TheirClassifier, TheirRegressor) for solver in SOLVERS]
    ours, others = names_of(CHECKS), names_of(checks_of(theirs)[0])
    assert len(ours) > 250
    assert set(others) <= set(ours)
    assert len(ours) >= len(others)


def names_of(cases):
    """Return the name of each check, which may be a function or made of one."""
    found = [(case.values if hasattr(case, "values") else case)[1] for case in cases]
    return [(check.func if isinstance(check, partial) else check).__name__ for check in found]
