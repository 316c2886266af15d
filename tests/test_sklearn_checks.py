"""scikit-learn's own checks of estimators: none of them is expected to fail."""

from __future__ import annotations

from functools import partial

import pytest

pytest.importorskip("sklearn")

from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from nnx import _kernels
from nnx.sklearn import MLPClassifier, MLPRegressor

SOLVERS = ("adam", "sgd", "lbfgs")
ESTIMATORS = [kind(solver=solver) for kind in (MLPClassifier, MLPRegressor) for solver in SOLVERS]

#: What scikit-learn checks of its own estimators only, or only since 1.6.
UNLISTED = ("check_param_validation", "check_n_features_in_after_fitting", "check_dataframe_column_names_consistency")

#: The compiled kernels that this machine would choose, and the definition: the other variants compute the same.
CHOSEN = sorted({_kernels.name, "numpy"})

pytestmark = [
    pytest.mark.parametrize("backend", CHOSEN, indirect=True),
    pytest.mark.filterwarnings("ignore"),  # the checks train for a few epochs, and warn of what they leave out
]

#: What each check is, as pytest names it, to count them.
checked = parametrize_with_checks(ESTIMATORS)


@checked
def test_a_check_of_scikit_learn_passes(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("name", UNLISTED)
def test_a_check_that_third_parties_are_spared_passes(estimator, name):
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)


def test_there_are_as_many_checks_as_for_scikit_learns_own():
    from sklearn.neural_network import MLPClassifier as TheirClassifier
    from sklearn.neural_network import MLPRegressor as TheirRegressor

    theirs = [kind(solver=solver) for kind in (TheirClassifier, TheirRegressor) for solver in SOLVERS]
    ours, others = names_of_checks(checked), names_of_checks(parametrize_with_checks(theirs))
    assert len(ours) > 250
    assert set(others) <= set(ours)
    assert len(ours) >= len(others)


def names_of_checks(mark):
    """Return the name of each check that a mark of `parametrize_with_checks` stands for."""
    found = [(case.values if hasattr(case, "values") else case)[1] for case in mark.args[1]]
    return [(check.func if isinstance(check, partial) else check).__name__ for check in found]
