"""`MLPClassifier`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils import compute_class_weight, compute_sample_weight
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    check_classification_targets,
    type_of_target,
    unique_labels,
)

from nnx._base.typing import Array, ArrayLike, DTypeLike, FloatDType
from nnx.losses import Loss_BinaryCrossentropy, Loss_CategoricalCrossentropy, Loss_Hinge
from nnx.sklearn import choices
from nnx.sklearn.base import DTYPES, BaseMLP, plain_targets
from nnx.sklearn.files import in_files
from nnx.sklearn.networks import End
from nnx.sklearn.versions import HAS_TAGS, validated


@in_files
class MLPClassifier(ClassifierMixin, BaseMLP):  # type: ignore[misc]
    """A multi-layer perceptron classifier, like scikit-learn's, trained by nnx.

    It has all parameters of ``sklearn.neural_network.MLPClassifier``, with the same names and meanings. With the same
    ``random_state`` it starts from the same weights and goes through the samples in the same orders.

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int
        Neurons of each hidden layer.
    activation : str, object, or a list of them, one for each hidden layer
        "relu", "logistic", "tanh", "identity"; any other of nnx by name, such as "gelu" or "leakyrelu"; or an object.
    solver : str or optimizer
        "adam", "sgd" and "lbfgs" are scikit-learn's; others of nnx by name, such as "adamw" or "lion"; or an object,
        whose own settings count then, the rate included. Each training uses a copy.
    alpha : float
        Coefficient of the L2 penalty alpha/2·Σw², which is divided by the number of samples of a step, or by the sum of
        their weights.
    batch_size : int or "auto"
        Samples per step; "auto": 200, or all if there are fewer. "lbfgs" always uses all.
    learning_rate : str or schedule
        "constant"; for "sgd" also "invscaling" and "adaptive", as in scikit-learn; a schedule of nnx by name ("cosine",
        "onecycle", "warmup", ...), stretched over ``max_iter``; or an object or function of the step.
    learning_rate_init : float
        The rate of the first step; with "onecycle" and "warmup" the highest one.
    power_t : float
        The exponent of "invscaling".
    max_iter : int
        The most epochs, or iterations of "lbfgs".
    shuffle : bool
        Whether each epoch has the samples in another order.
    random_state : int, RandomState or None
        Seed of the initial weights, the held-out rows, the orders of samples and the dropout masks.
    tol : float
        The smallest change that counts as an improvement; for "lbfgs", the largest gradient at which it has converged.
    verbose : bool
        Print a line for each epoch.
    warm_start : bool
        Whether `fit` continues with the existing network. Its layers and dtype then stay as they are, even if the
        parameters have changed. With another ``n_members``, `fit` starts from scratch.
    momentum, nesterovs_momentum : float, bool
        Of "sgd".
    early_stopping : bool
        Whether held-out rows decide when to stop, and the best epoch's network is kept. It has no effect on "lbfgs",
        which uses all rows and stops by itself, as in scikit-learn.
    validation_fraction : float
        The fraction of the rows to hold out for this.
    beta_1, beta_2, epsilon : float
        Of "adam", and of those of nnx that are made of it.
    n_iter_no_change : int
        Training ends after this number of epochs without an improvement.
    max_fun : int
        How often "lbfgs" may compute loss and gradient.
    loss : str or loss
        "log_loss", or a loss of nnx by name or as an object: ``nnx.Loss_CategoricalCrossentropy(label_smoothing=0.1)``,
        "hinge", ... Losses of numbers compare probabilities with zeros and ones. "binarycrossentropy" has one sigmoid
        for each of three or more classes; `predict_proba` divides by their sum.
    dropout : float or list of float
        The fraction of each hidden layer's outputs that dropout sets to 0 in training.
    norm : None, "batch" or "layer"
        The normalization after each hidden dense layer: `nnx.Layer_BatchNorm` or `nnx.Layer_LayerNorm`.
    initializer : str, float, function or None
        Initializer of the weights, as in `nnx.Layer_Dense`; biases are then 0. None: scikit-learn's for both.
    class_weight : dict, "balanced" or None
        The weight of each class, as elsewhere in scikit-learn.
    callbacks : list or None
        Callbacks of nnx, and functions of a run, called after each epoch. Each member of an ensemble has copies.
    restore_best : bool or None
        Whether the best epoch's network is kept: by the score of held-out rows, if there are any, or else by the loss.
        It does not end the training: that is ``early_stopping``. None: with ``early_stopping``.
    n_jobs : int or None
        Number of threads; results are the same for any number, bit for bit. None: as many as `nnx.get_num_threads`
        says, or one in a thread of joblib's; -1: all cores.
    dtype : "auto", "float32" or "float64"
        The dtype of the computation. "auto" is float32, which halves the time. It is float64 for "lbfgs", and in `fit`
        if X is not float32 and has at most 10,000 numbers, samples times columns.
    progress : bool
        Show a progress bar.
    n_members : int
        If above 1: train this number of networks with different seeds at the same time, and average their
        probabilities.
    bagging : bool
        Whether each network is trained on rows drawn from all with replacement.

    Attributes
    ----------
    model_ : nnx.Model
        The network; an ensemble has ``estimators_`` instead.
    estimators_ : list of MLPClassifier
        The members of an ensemble.
    classes_ : array
    coefs_, intercepts_ : list of arrays
        Weights (n_inputs, n_neurons) and biases (n_neurons,) of the dense layers: the model's own.
    loss_, best_loss_, loss_curve_ : float, float, list of float
        Of the last epoch, the best one, and all.
    validation_scores_, best_validation_score_ : list of float, float
        Accuracy on the held-out rows after each epoch, if there are any; else None.
    history_ : nnx.History
    n_iter_, t_ : int
        Epochs of the last `fit`, and samples seen.
    n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from nnx.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> mlp = MLPClassifier(hidden_layer_sizes=(16,), solver="lbfgs", max_iter=1000, random_state=0).fit(X, y)
    >>> mlp.score(X, y) > 0.95
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions({"log_loss", *choices.LOSSES}), HasMethods(["calculate", "forward", "backward"])],
        "class_weight": [None, dict, list, StrOptions({"balanced"})],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        loss: Any = "log_loss",
        dropout: float | Sequence[float] = 0.0,
        norm: str | None = None,
        initializer: Any = None,
        class_weight: Any = None,
        callbacks: Sequence[Any] | None = None,
        restore_best: bool | None = None,
        n_jobs: int | None = None,
        dtype: DTypeLike = "auto",
        progress: bool = False,
        n_members: int = 1,
        bagging: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.loss = loss
        self.dropout = dropout
        self.norm = norm
        self.initializer = initializer
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.restore_best = restore_best
        self.n_jobs = n_jobs
        self.dtype = dtype
        self.progress = progress
        self.n_members = n_members
        self.bagging = bagging

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None, eval_set: Any = None) -> MLPClassifier:
        """Train on samples and their classes.

        Parameters
        ----------
        X : array, sparse matrix or data frame (n, n_features)
            A sparse matrix becomes a dense array.
        y : array (n,) or (n, n_labels)
            Classes of any kind that can be sorted; zeros and ones in columns, if a sample may have several labels.
        sample_weight : array (n,), optional
            The weight of each sample, 0 or more.
        eval_set : pair or triple, optional
            Held-out ``(X, y)`` or ``(X, y, sample_weight)``: scored after each epoch, and used in place of
            ``validation_fraction`` where ``early_stopping`` or ``restore_best`` asks for scores.

        Returns
        -------
        The estimator itself.
        """
        self._fit(X, y, sample_weight, eval_set, incremental=False)
        return self

    @available_if(lambda self: self._has_partial_fit())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> MLPClassifier:
        """Train for one pass over some samples.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : array, optional
            All classes. The first call needs them.

        Returns
        -------
        The estimator itself.
        """
        if _check_partial_fit_first_call(self, classes):
            self._kind = "multilabel" if type_of_target(y).startswith("multilabel") else "classes"
        self._fit(X, y, sample_weight, None, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return the class of each sample, (n,), or zeros and ones, (n, n_labels)."""
        chosen = self._chosen(self._outputs(X))
        if self._kind == "multilabel":
            return chosen
        classes: Array = self.classes_[chosen]
        return classes

    @available_if(lambda self: self._has_probabilities())
    def predict_proba(self, X: Any) -> Array:
        """Return how likely each class is, (n, n_classes), in the order of ``classes_``."""
        outputs = self._outputs(X)
        if len(self.classes_) == 1 and self._kind == "classes":
            return np.ones_like(outputs)
        if self.out_activation_ == "logistic":  # rounding must not make anything certain: its logarithm is finite
            figures = np.finfo(outputs.dtype)
            outputs = np.clip(outputs, figures.tiny, 1 - figures.epsneg)
            if self._kind == "classes" and outputs.shape[1] > 1:  # one sigmoid a class: nothing makes their sum 1
                outputs /= outputs.sum(axis=1, keepdims=True)
        return outputs if outputs.shape[1] > 1 else np.concatenate([1 - outputs, outputs], axis=1)

    @available_if(lambda self: self._has_probabilities())
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of what `predict_proba` returns."""
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return np.log(probabilities, out=probabilities)

    def _has_probabilities(self) -> bool:
        if self.loss == "hinge" or isinstance(self.loss, Loss_Hinge):
            raise AttributeError(
                "predict_proba is not available with loss='hinge', whose outputs are no probabilities."
            )
        return True

    # Parts

    def _checked(self, X: Any, y: Any, first: bool, incremental: bool) -> tuple[Any, Array]:
        X, y = validated(self, X, y, accept_sparse=["csr", "csc"], multi_output=True, dtype=DTYPES, reset=first)
        y = plain_targets(y)
        if not incremental and first:
            self._learn_classes(y)
        else:
            self._compare_classes(y, incremental)
        return X, self._encoded(y)

    def _checked_held_out(self, X: Any, y: Any) -> tuple[Any, Array]:
        X, y = validated(self, X, y, accept_sparse=["csr", "csc"], multi_output=True, dtype=DTYPES, reset=False)
        y = plain_targets(y)
        self._compare_classes(y, incremental=True)
        return X, self._encoded(y)

    def _learn_classes(self, y: Array) -> None:
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError("Multioutput target data is not supported with label binarization")
        classes = unique_labels(y)
        self._kind = "multilabel" if kind == "multilabel-indicator" else "classes"
        self.classes_ = classes

    def _compare_classes(self, y: Array, incremental: bool) -> None:
        """Refuse classes that are not those of the network."""
        check_classification_targets(y)
        classes = unique_labels(y)
        if not incremental:
            if set(classes.tolist()) != set(self.classes_.tolist()):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _encoded(self, y: Array) -> Array:
        """Return class numbers (n,), or zeros and ones (n, n_labels)."""
        if self._kind == "multilabel":
            return np.asarray(y, np.int64)
        return np.searchsorted(self.classes_, y)

    def _targets(self, compared: Array) -> Array:
        if self._kind == "multilabel":
            return compared
        if self._n_outputs() == 1:
            return compared[:, np.newaxis]
        if self._takes_numbers():
            return compared
        return np.eye(len(self.classes_), dtype=np.int64)[compared]

    def _loss(self, dtype: FloatDType) -> Any:
        """Return the loss of nnx; for log_loss one that clips as scikit-learn does."""
        clip = float(np.finfo(dtype).eps)
        if not isinstance(self.loss, str) or self.loss != "log_loss":
            return choices.loss(type(self).__name__, self.loss)
        if self._n_outputs() == 1:
            return Loss_BinaryCrossentropy(clip=clip)
        if self._kind == "multilabel":
            return Loss_BinaryCrossentropy(factor=float(len(self.classes_)), clip=clip)
        return Loss_CategoricalCrossentropy(clip=clip)

    def _takes_numbers(self) -> bool:
        """Return whether the loss takes class numbers, with a softmax before it."""
        if isinstance(self.loss, str):
            return self.loss in ("log_loss", "categoricalcrossentropy")
        return isinstance(self.loss, Loss_CategoricalCrossentropy)

    def _n_outputs(self) -> int:
        if self._kind == "multilabel":
            return len(self.classes_)
        is_default = isinstance(self.loss, str) and self.loss == "log_loss"
        return 1 if len(self.classes_) <= 2 and (is_default or not self._takes_numbers()) else len(self.classes_)

    def _end_of_network(self, targets: Array, dtype: FloatDType) -> End:
        loss, n_outputs = self._loss(dtype), self._n_outputs()
        if self._kind == "multilabel" and isinstance(loss, Loss_CategoricalCrossentropy):
            raise ValueError(
                f"{type(self).__name__}: loss must be one of several labels, such as 'log_loss', got {loss!r}, which "
                "is one of a single class for each sample."
            )
        if isinstance(loss, Loss_Hinge):
            return End(loss, "identity", n_outputs)
        is_single = n_outputs == 1 and not isinstance(loss, Loss_CategoricalCrossentropy)
        if is_single or self._kind == "multilabel" or isinstance(loss, Loss_BinaryCrossentropy):
            return End(loss, "logistic", n_outputs)
        return End(loss, "softmax", n_outputs)

    def _class_weights(self, compared: Array, incremental: bool) -> Array | None:
        if self.class_weight is None:
            return None
        if incremental and isinstance(self.class_weight, str):
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit. In order to use 'balanced' weights, use "
                "compute_class_weight('balanced', classes=classes, y=y) and pass the result as a dict."
            )
        if self._kind == "multilabel":
            weights = compute_sample_weight(self.class_weight, compared)
        else:  # of all classes, as rows of a later call may lack some
            of_classes = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[compared])
            weights = of_classes[compared]
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(
                f"{type(self).__name__}: class_weight must hold finite numbers of at least 0, got {self.class_weight}."
            )
        return np.asarray(weights, np.float64)

    def _stratum(self, compared: Array) -> Array | None:
        """Return the classes where there are two: scikit-learn's held-out rows of more are not stratified."""
        return compared if self._n_outputs() == 1 else None

    def _chosen(self, outputs: Array) -> Array:
        """Return class numbers (n,), or zeros and ones (n, n_labels), for outputs."""
        border = 0.0 if self.out_activation_ == "identity" else 0.5
        if self._kind == "multilabel":
            return (outputs > border).astype(np.int64)
        if len(self.classes_) == 2 and outputs.shape[1] == 1:
            return (outputs[:, 0] > border).astype(np.intp)
        return outputs.argmax(axis=1)

    def _score_of(self, outputs: Array, compared: Array, weights: Array | None) -> float:
        if not np.isfinite(outputs).all():
            return np.nan
        hits = self._chosen(outputs) == compared
        return float(np.average(hits if hits.ndim == 1 else hits.all(axis=1), weights=weights))

    if HAS_TAGS:

        def __sklearn_tags__(self) -> Any:
            tags = super().__sklearn_tags__()
            tags.classifier_tags.multi_label = True
            return tags

    else:

        def _more_tags(self) -> dict[str, Any]:
            return {"multilabel": True}
