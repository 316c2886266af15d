"""The default recipe for tables: from samples to an `nnx.Ensemble`, by settings that suit most tables.

`nnx train --effort` and the estimators for tables call `fit`. Experiments chose what it does: docs/internals/recipe.md.
"""

from nnx.tabular.fitting import Fitted, fit
from nnx.tabular.recipe import EFFORTS, PREPARATION

__all__ = ["EFFORTS", "PREPARATION", "Fitted", "fit"]
