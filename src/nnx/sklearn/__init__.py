"""scikit-learn's multi-layer perceptrons on nnx: ``from nnx.sklearn import MLPClassifier, MLPRegressor``.

They have every parameter and attribute of those in ``sklearn.neural_network``, and more; `docs/guide/sklearn.md`
compares them. `import nnx` does not import this package, which needs scikit-learn 1.5 or newer.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as _error:
    raise ImportError(
        "nnx.sklearn needs scikit-learn 1.5 or newer, which is not installed. Install it with: "
        "python -m pip install 'nnx-core[sklearn]'"
    ) from _error

from nnx.sklearn.classifier import MLPClassifier
from nnx.sklearn.files import load
from nnx.sklearn.regressor import MLPRegressor
from nnx.sklearn.tabular import TabularClassifier, TabularRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "TabularClassifier", "TabularRegressor", "load"]
