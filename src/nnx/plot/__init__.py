"""Pictures, with matplotlib (the extra ``nnx-core[plot]``), which is imported at the first one."""

from nnx.plot.classes import calibration, confusion_matrix, decision_regions, matrix_size
from nnx.plot.columns import importance
from nnx.plot.curves import histories, history
from nnx.plot.images import mistakes, weights
from nnx.plot.regression import fitted_curve, predictions

__all__ = [
    "calibration",
    "confusion_matrix",
    "decision_regions",
    "fitted_curve",
    "histories",
    "history",
    "importance",
    "matrix_size",
    "mistakes",
    "predictions",
    "weights",
]
