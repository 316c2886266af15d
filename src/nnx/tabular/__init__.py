"""The default recipe for tables: from samples to an `nnx.Ensemble`, by settings that suit most tables.

`nnx train --effort` and the estimators for tables call `fit`. What it does was chosen by experiment (docs/tables.md).
"""

from nnx.tabular.fitting import Fitted, fit

__all__ = ["Fitted", "fit"]
