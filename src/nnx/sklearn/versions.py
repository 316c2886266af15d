"""What scikit-learn's versions name differently, from 1.5 on."""

from __future__ import annotations

from typing import Any

from sklearn.utils import validation

#: Whether estimators say what they can do by ``__sklearn_tags__``; until 1.5 it is ``_more_tags``.
HAS_TAGS = hasattr(validation, "validate_data")


def validated(estimator: Any, X: Any, y: Any = "no_validation", *, allows_nan: bool = False, **options: Any) -> Any:
    """Return checked samples, and targets where they are given; remember or compare the columns' number and names."""
    if allows_nan:
        options["ensure_all_finite" if HAS_TAGS else "force_all_finite"] = "allow-nan"
    if HAS_TAGS:
        return validation.validate_data(estimator, X, y, **options)
    return estimator._validate_data(X, y, **options)


def remembered(estimator: Any, X: Any, reset: bool) -> None:
    """Remember the number and the names of a frame's columns, or compare them, and look at nothing else."""
    if HAS_TAGS:
        validation.validate_data(estimator, X, skip_check_array=True, reset=reset)
    else:
        estimator._validate_data(X, cast_to_ndarray=False, reset=reset)


def checked_weights(sample_weight: Any, X: Any) -> Any:
    """Return weights of the samples as a float64 array (n,), none of them below 0."""
    options: dict[str, Any] = {"dtype": "float64"}
    options["ensure_non_negative" if HAS_TAGS else "only_non_negative"] = True
    weights = validation._check_sample_weight(sample_weight, X, **options)
    if not weights.any():
        raise ValueError("Sample weights must contain at least one non-zero number.")
    return weights
