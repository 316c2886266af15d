"""Layers: `Layer_Input`, `Layer_Dense`, `Layer_Dropout`.

A layer owns its arrays as ordinary attributes. It calls kernels for all arithmetic and knows nothing of models.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from nnx import _kernels, initializers
from nnx._base import check, config, precision, random
from nnx._base.describe import Described
from nnx._base.typing import Array, ArrayLike, DTypeLike, FloatDType
from nnx._base.vocabulary import built_in
from nnx.initializers import Initializer

__all__ = [
    "Layer_Dense",
    "Layer_Dropout",
    "Layer_Input",
]

STRENGTHS = ("weight_regularizer_l1", "weight_regularizer_l2", "bias_regularizer_l1", "bias_regularizer_l2")
INITIALIZERS = ("weight_initializer", "bias_initializer")

#: The attributes in which an optimizer with ``average`` keeps averages of weights and biases.
AVERAGED = ("weight_averages", "bias_averages")


class Layer_Input(Described):
    """The start of a model: its output is the input itself.

    Attributes
    ----------
    output : array
        What was given to ``forward``, not copied.
    """

    output: Array

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to ``inputs``."""
        self.output = inputs  # type: ignore[assignment]


@built_in("layer")
class Layer_Dense(Described):
    """A fully connected layer: ``output = inputs · weights + biases``.

    Unless asked otherwise, initial weights are ``0.01 * np.random.randn(n_inputs, n_neurons)`` from NumPy's global
    generator, biases are 0.

    Parameters
    ----------
    n_inputs, n_neurons : int
        Columns of the inputs and of the output.
    weight_regularizer_l1, weight_regularizer_l2, bias_regularizer_l1, bias_regularizer_l2 : float
        Strengths λ1, λ2 of the penalty λ1·Σ|w| + λ2·Σw² on the weights and on the biases.
    dtype : "float32" or "float64", optional
        The dtype of parameters and results; `nnx.get_default_dtype` if None.
    weight_initializer, bias_initializer : str, number or function, optional
        What weights and biases are at first: one of the names of `nnx.initializers`, a number that all of them are, or
        a function that is called with their shape, (n_inputs, n_neurons) or (1, n_neurons), and returns such an array.

    Attributes
    ----------
    weight_initializer, bias_initializer : str, number or None
        As given. A function has done its work in the constructor and is not kept: it is None here and in model files.
        The constructor takes None for the default.
    weights, biases : arrays (n_inputs, n_neurons) and (1, n_neurons)
        Trained in place. An array assigned here is cast at its next use if its dtype or layout is another.
    weight_averages, bias_averages : arrays of the shapes of weights and biases
        While an optimizer with ``average`` trains the layer, and after that: what ``forward`` uses if not ``training``.
        `set_parameters` drops them, and so does the first step of an optimizer without ``average``. Delete them if you
        assign weights or biases yourself.
    inputs, output : arrays (n, n_inputs) and (n, n_neurons)
        After ``forward``.
    dweights, dbiases, dinputs : arrays of the shapes of weights, biases and inputs
        After ``backward``: gradients of the loss, the penalty's included.

    Raises
    ------
    TypeError, ValueError
        For sizes below 1, negative strengths, other dtypes, unknown initializers, and functions that return no array
        of finite numbers of the right shape.

    Notes
    -----
    Chapters 3 (forward), 9 (backward) and 14 (regularization) of the book. The derivative of |w| at 0 is +1.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Layer_Dense
    >>> dense = Layer_Dense(2, 3)
    >>> dense.weights = np.ones((2, 3))
    >>> dense.forward([[1, 2], [3, 4]])
    >>> dense.output
    array([[3., 3., 3.],
           [7., 7., 7.]], dtype=float32)
    """

    _arguments: ClassVar[tuple[str, ...]] = ("n_inputs", "n_neurons", *STRENGTHS, "dtype", *INITIALIZERS)
    _parameters: ClassVar[tuple[str, ...]] = ("weights", "biases")

    _kernel: ClassVar[str] = "dense"

    n_inputs: int | None = None
    n_neurons: int | None = None
    weight_regularizer_l1: float = 0
    weight_regularizer_l2: float = 0
    bias_regularizer_l1: float = 0
    bias_regularizer_l2: float = 0
    dtype: DTypeLike = None
    weight_initializer: str | float | None = "book"
    bias_initializer: str | float | None = "zeros"
    weights: Array
    biases: Array
    inputs: Array
    output: Array
    dweights: Array
    dbiases: Array
    dinputs: Array

    def __init__(
        self,
        n_inputs: int,
        n_neurons: int,
        weight_regularizer_l1: float = 0,
        weight_regularizer_l2: float = 0,
        bias_regularizer_l1: float = 0,
        bias_regularizer_l2: float = 0,
        dtype: DTypeLike = None,
        weight_initializer: Initializer = "book",
        bias_initializer: Initializer = "zeros",
    ) -> None:
        self._configure(
            n_inputs,
            n_neurons,
            weight_regularizer_l1,
            weight_regularizer_l2,
            bias_regularizer_l1,
            bias_regularizer_l2,
            dtype,
            weight_initializer,
            bias_initializer,
        )
        self.weights, self.biases = initializers.parameters(
            "Layer_Dense", n_inputs, n_neurons, self.dtype, weight_initializer, bias_initializer
        )

    def _configure(
        self,
        n_inputs: int,
        n_neurons: int,
        weight_regularizer_l1: float,
        weight_regularizer_l2: float,
        bias_regularizer_l1: float,
        bias_regularizer_l2: float,
        dtype: DTypeLike,
        weight_initializer: Initializer = "book",
        bias_initializer: Initializer = "zeros",
    ) -> None:
        """Set all but the parameters: a model file brings its own, and loading one draws no random number."""
        self.n_inputs = check.whole("Layer_Dense", "n_inputs", n_inputs)
        self.n_neurons = check.whole("Layer_Dense", "n_neurons", n_neurons)
        self.weight_regularizer_l1 = check.number("Layer_Dense", "weight_regularizer_l1", weight_regularizer_l1, 0)
        self.weight_regularizer_l2 = check.number("Layer_Dense", "weight_regularizer_l2", weight_regularizer_l2, 0)
        self.bias_regularizer_l1 = check.number("Layer_Dense", "bias_regularizer_l1", bias_regularizer_l1, 0)
        self.bias_regularizer_l2 = check.number("Layer_Dense", "bias_regularizer_l2", bias_regularizer_l2, 0)
        self.dtype = config.float_dtype("Layer_Dense", dtype)
        self.weight_initializer = initializers.kept("Layer_Dense", "weight_initializer", weight_initializer)
        self.bias_initializer = initializers.kept("Layer_Dense", "bias_initializer", bias_initializer)

    def _strengths(self, where: str) -> tuple[float, ...]:
        """Return the regularizers' strengths, which may have been assigned, checked."""
        given = (
            self.weight_regularizer_l1,
            self.weight_regularizer_l2,
            self.bias_regularizer_l1,
            self.bias_regularizer_l2,
        )
        if not all(type(strength) in (int, float) and strength == 0 for strength in given):
            return tuple([float(check.number(where, *pair, 0)) for pair in zip(STRENGTHS, given, strict=True)])
        return (0.0, 0.0, 0.0, 0.0)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments that make a layer like this one (with other weights)."""
        return {**super().get_config(), "dtype": self._float_dtype().name}

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to ``inputs · weights + biases``.

        Parameters
        ----------
        inputs : array (n, n_inputs)
            Kept as ``inputs`` for ``backward``.
        training : bool
            If not, ``weight_averages`` and ``bias_averages`` take the place of weights and biases where there are any.
        """
        where = "Layer_Dense.forward"
        weights, biases = self._checked_parameters(where) if training else self._parameters_in_use(where)
        inputs = check.rows(where, "inputs", inputs, len(weights), weights.dtype)
        output = _kernels.empty(len(inputs), weights.shape[1], weights.dtype)
        x, w = _factors(where, inputs, weights)
        _kernels.backend.dense_forward(x, w, biases, output)
        self.inputs = inputs
        self.output = output

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dweights``, ``dbiases`` and ``dinputs`` from the gradient of the loss by ``output``.

        That is the gradient of a ``forward`` in training: averages have no part in it.

        Parameters
        ----------
        dvalues : array (n, n_neurons)
        """
        where = "Layer_Dense.backward"
        weights, biases = self._checked_parameters(where)
        n_inputs, n_neurons = weights.shape
        inputs = check.rows(where, "inputs", check.stored(where, self, "inputs"), n_inputs, weights.dtype)
        dvalues = check.rows(where, "dvalues", dvalues, n_neurons, weights.dtype, len(inputs))
        weight_l1, weight_l2, bias_l1, bias_l2 = self._strengths(where)
        dweights, dbiases, dinputs = map(_kernels.empty_like, (weights, biases, inputs))
        x, d, w = _factors(where, inputs, dvalues, weights)
        _kernels.backend.dense_backward_weights(x, d, weights, dweights, weight_l1, weight_l2)
        _kernels.backend.dense_backward_biases(d, biases, dbiases, bias_l1, bias_l2)
        _kernels.backend.dense_backward_inputs(d, w, dinputs)
        self.dweights, self.dbiases, self.dinputs = dweights, dbiases, dinputs

    def get_parameters(self) -> tuple[Array, Array]:
        """Return the live weights and biases, not their averages: what is trained later changes them too."""
        return self._checked_parameters("Layer_Dense.get_parameters")

    def set_parameters(self, weights: ArrayLike, biases: ArrayLike) -> None:
        """Take ``weights`` and ``biases``, not copies of them (unless their dtype or layout makes a cast necessary).

        Averages of the old ones are dropped.

        Raises
        ------
        TypeError, ValueError
            For arrays of another shape, read-only ones, and ones that do not hold real numbers; nothing is set then.
        """
        self.weights, self.biases = self._cast("Layer_Dense.set_parameters", weights, biases)
        for name in AVERAGED:
            self.__dict__.pop(name, None)

    def _checked_parameters(self, where: str, writing: bool = True) -> tuple[Array, Array]:
        """Return weights and biases as kernels need them; what users assigned may be anything.

        Read-only arrays are refused, unless nobody is going to be ``writing``.
        """
        own, n_inputs, n_neurons, dtype = self.__dict__, self.n_inputs, self.n_neurons, self.dtype
        if type(n_inputs) is type(n_neurons) is int and (dtype is config.FLOAT32 or dtype is config.FLOAT64):
            w, b = own.get("weights"), own.get("biases")
            if _kernels.writable(w, (n_inputs, n_neurons), dtype) and _kernels.writable(b, (1, n_neurons), dtype):
                return w, b  # type: ignore[return-value]
        weights = check.stored(where, self, "weights", "set_parameters")
        biases = check.stored(where, self, "biases", "set_parameters")
        fitting = self._cast(where, weights, biases, writing=writing)
        if fitting[0] is not weights or fitting[1] is not biases:
            if not check.is_read_only(weights):  # a copy in its place would let it be trained
                self.weights = fitting[0]
            if not check.is_read_only(biases):
                self.biases = fitting[1]
        return fitting

    def _parameters_in_use(self, where: str) -> tuple[Array, Array]:
        """Return what predictions are computed with: averages where there are any, else weights and biases."""
        own, found = self.__dict__, list(self._checked_parameters(where, writing=False))
        for i, name in enumerate(AVERAGED):
            if own.get(name) is not None:
                found[i] = check.bound(where, self, name, found[i].shape, found[i].dtype, writing=False)
        return found[0], found[1]

    def _cast(self, where: str, weights: ArrayLike, biases: ArrayLike, *, writing: bool = True) -> tuple[Array, Array]:
        dtype = self._float_dtype()
        shape = None
        if self.n_inputs is not None and self.n_neurons is not None:
            shape = (check.whole(where, "n_inputs", self.n_inputs), check.whole(where, "n_neurons", self.n_neurons))
        w = check.updatable(where, "weights", weights, shape, dtype, writing)
        if w.ndim != 2:
            raise ValueError(f"{where}: weights must have shape (n_inputs, n_neurons), got {w.shape}.")
        return w, check.updatable(where, "biases", biases, (1, w.shape[1]), dtype, writing)

    def _float_dtype(self) -> FloatDType:
        dtype = self.dtype
        if dtype is config.FLOAT32 or dtype is config.FLOAT64:
            return dtype
        return config.float_dtype(type(self).__name__, dtype)


def _factors(where: str, *arrays: Array) -> tuple[Array, ...]:
    """Return what products are computed of: the arrays as they are or, in bfloat16, rounded copies."""
    if not precision.rounds():
        return arrays
    if arrays[0].dtype != config.FLOAT32:
        raise ValueError(f"{where}: dtype must be float32 for products in bfloat16, got {arrays[0].dtype}.")
    rounded = tuple([_kernels.empty_like(array) for array in arrays])
    for array, copy in zip(arrays, rounded, strict=True):
        _kernels.backend.round_bfloat16(array, copy)
    return rounded


@built_in("layer")
class Layer_Dropout(Described):
    """Inverted dropout: in training each cell is kept with probability 1 − rate and then divided by that.

    Parameters
    ----------
    rate : float
        The part to drop, from 0 up to, but not including, 1.
    seed : int, optional
        Seed of this layer's masks, 64 bits. Without one, NumPy's global generator gives one at the first training
        forward.

    Attributes
    ----------
    rate : float
        The part to *keep*, 1 − rate, as in the book.
    seed : int or None
        The seed in use.
    training_forwards : int
        How often ``forward`` has run in training; with the seed it determines the next mask.
    inputs, output : arrays
        After ``forward``.
    binary_mask : array of the inputs' shape
        After a training ``forward``: 1/rate where a cell was kept, else 0.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Chapter 15 of the book. A mask depends only on the seed, the number of the forward and the cell's place
    (Philox4x32-7), so it is the same on every backend and for every number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Layer_Dropout
    >>> dropout = Layer_Dropout(0.5, seed=1)
    >>> dropout.forward(np.ones((2, 8)), training=True)
    >>> sorted(set(dropout.output.ravel().tolist()))
    [0.0, 2.0]
    >>> dropout.forward(np.ones((2, 8)), training=False)
    >>> bool((dropout.output == 1).all())
    True
    """

    _arguments: ClassVar[tuple[str, ...]] = ("rate", "seed")

    _kernel: ClassVar[str] = "dropout"

    rate: float
    seed: int | None = None
    training_forwards: int = 0
    inputs: Array
    output: Array
    binary_mask: Array
    dinputs: Array
    _given_rate: float | None = None
    _given_seed: int | None = None
    _passed_through: bool = False

    def __init__(self, rate: float, seed: int | None = None) -> None:
        self._given_rate = check.fraction("Layer_Dropout", "rate", rate)
        self.rate = 1 - self._given_rate
        if seed is not None:
            self._given_seed = self.seed = check.whole("Layer_Dropout", "seed", seed, 0, random.MAX_SEED)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments: ``rate`` is the part to drop, ``seed`` None if it was drawn."""
        given = self._given_rate
        rate = given if given is not None and 1 - given == self.rate else 1 - self.rate
        return {"rate": rate, "seed": self._given_seed}

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to the masked inputs or, if not ``training``, to a copy of them.

        Parameters
        ----------
        inputs : array (n, ...)
        training : bool
        """
        where = "Layer_Dropout.forward"
        inputs = check.samples(where, "inputs", inputs)
        keep, seed, forwards = self._settings(where)
        self.inputs = inputs
        self._passed_through = not training
        if not training:
            self.output = inputs.copy()
            return
        if seed is None:
            seed = self.seed = random.draw_seed()
        mask = _kernels.empty_like(inputs)
        rows = mask.reshape(len(mask), math.prod(mask.shape[1:]))
        _kernels.backend.dropout_mask(rows, keep, seed, forwards)
        output = _kernels.empty_like(inputs)
        _kernels.backend.dropout_apply(inputs, mask, output)
        self.training_forwards = forwards + 1
        self.binary_mask = mask
        self.output = output

    def _settings(self, where: str) -> tuple[float, int | None, int]:
        """Return the part to keep, the seed and the number of the next mask, checked: anything may be assigned."""
        keep = float(check.number(where, "rate (the part to keep)", self.rate, 0, 1))
        if keep == 0:
            raise ValueError(f"{where}: rate (the part to keep) must be above 0, got {self.rate!r}.")
        forwards = check.whole(where, "training_forwards", self.training_forwards, 0, check.MAX_COUNT)
        seed = None if self.seed is None else check.whole(where, "seed", self.seed, 0, random.MAX_SEED)
        return keep, seed, forwards

    def _next_mask(self, where: str) -> tuple[float, int, int]:
        """Return what the masks of the training forwards that come next are made of."""
        keep, seed, forwards = self._settings(where)
        if seed is None:
            seed = self.seed = random.draw_seed()
        return keep, seed, forwards

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs`` to the gradients of the cells that were kept, divided as they were.

        Parameters
        ----------
        dvalues : array of the inputs' shape
        """
        where = "Layer_Dropout.backward"
        if self._passed_through:
            self.dinputs = check.like(where, "dvalues", dvalues, self.inputs).copy()
            return
        mask = check.samples(where, "binary_mask", check.stored(where, self, "binary_mask"))
        dvalues = check.like(where, "dvalues", dvalues, mask)
        dinputs = _kernels.empty_like(mask)
        _kernels.backend.dropout_apply(dvalues, mask, dinputs)
        self.dinputs = dinputs
