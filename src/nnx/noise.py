"""Layers that are random in training: `Layer_Dropout` and `Layer_GaussianNoise`.

Their random numbers depend only on the layer's seed, the number of the training forward and the position in the array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from nnx import _kernels
from nnx._base import check, random
from nnx._base.describe import Described
from nnx._base.typing import Array, ArrayLike
from nnx._base.vocabulary import built_in

__all__ = ["Layer_Dropout", "Layer_GaussianNoise"]


class _Random(Described):
    """The common part: a seed and a count of the training forwards. They determine the next random numbers."""

    seed: int | None = None
    training_forwards: int = 0
    inputs: Array
    output: Array
    dinputs: Array
    _given_seed: int | None = None

    def _take_seed(self, seed: int | None) -> None:
        if seed is not None:
            self._given_seed = self.seed = check.whole(type(self).__name__, "seed", seed, 0, random.MAX_SEED)

    def _amount(self, where: str) -> float:
        """Return the setting that the kernel gets before seed and count, checked."""
        raise NotImplementedError

    def _settings(self, where: str) -> tuple[float, int | None, int]:
        """Return that setting, the seed and the number of the next draw, checked: users may have assigned anything."""
        amount = self._amount(where)
        forwards = check.whole(where, "training_forwards", self.training_forwards, 0, check.MAX_COUNT)
        seed = None if self.seed is None else check.whole(where, "seed", self.seed, 0, random.MAX_SEED)
        return amount, seed, forwards

    def _next_mask(self, where: str) -> tuple[float, int, int]:
        """Return the settings for the draws of the next training forwards. Draw the seed if there is none."""
        amount, seed, forwards = self._settings(where)
        if seed is None:
            seed = self.seed = random.draw_seed()
        return amount, seed, forwards

    def _undo_forward(self) -> None:
        """Let the next training forward draw the same numbers as the latest one."""
        self.training_forwards = self.training_forwards - 1


def missing_seeds(layers: Iterable[Any]) -> int:
    """Return how many seeds these layers will draw at their first training forward."""
    return sum(isinstance(layer, _Random) and layer.seed is None for layer in layers)


def _rows_of(cells: Array) -> Array:
    """Return an array (n, ...) as a matrix over the same memory."""
    return cells.reshape(len(cells), math.prod(cells.shape[1:]))


@built_in("layer")
class Layer_Dropout(_Random):
    """Inverted dropout: in training, each input is kept with probability 1 − rate and divided by that probability.

    Parameters
    ----------
    rate : float
        The fraction to drop, at least 0 and below 1.
    seed : int, optional
        Seed of this layer's masks, 64 bits. Without one, NumPy's global generator gives one at the first training
        forward.

    Attributes
    ----------
    rate : float
        The fraction to *keep*, 1 − rate, as in the book.
    seed : int or None
        The seed in use.
    training_forwards : int
        How often ``forward`` has run in training. This count and the seed determine the next mask.
    inputs, output : arrays
        After ``forward``.
    binary_mask : array of the inputs' shape
        After a training ``forward``: 1/rate where an input was kept, else 0.
    dinputs : array
        After ``backward``.

    Notes
    -----
    Chapter 15 of the book. A mask depends only on the seed, the number of the forward and the element's position
    (Philox4x32-7), so it is the same on every backend and for every number of threads. The probability is exact to
    2⁻³³: an input is kept if its random number of 32 bits is below that fraction of 2³², rounded.

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
    binary_mask: Array
    _given_rate: float | None = None
    _passed_through: bool = False

    def __init__(self, rate: float, seed: int | None = None) -> None:
        self._given_rate = check.fraction("Layer_Dropout", "rate", rate)
        self.rate = 1 - self._given_rate
        self._take_seed(seed)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments: ``rate`` is the fraction to drop, ``seed`` is None if it was drawn."""
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
        draw = _kernels.backend.dropout_mask
        mask = random.drawn_behind(lambda cells: draw(_rows_of(cells), keep, seed, forwards), inputs)
        output = _kernels.empty_like(inputs)
        _kernels.backend.dropout_apply(inputs, mask, output)
        self.training_forwards = forwards + 1
        self.binary_mask = mask
        self.output = output

    def _amount(self, where: str) -> float:
        keep = float(check.number(where, "rate (the part to keep)", self.rate, 0, 1))
        if keep == 0:
            raise ValueError(f"{where}: rate (the part to keep) must be above 0, got {self.rate!r}.")
        return keep

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs`` to the gradients of the inputs that were kept, divided by the same probability.

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


@built_in("layer")
class Layer_GaussianNoise(_Random):
    """In training, ``output = inputs + noise``, with normal noise of mean 0. Otherwise, the output is the inputs.

    Parameters
    ----------
    stddev : float
        The standard deviation of the noise, at least 0, in the units of the inputs.
    seed : int, optional
        Seed of this layer's noise, 64 bits. Without one, NumPy's global generator gives one at the first training
        forward.

    Attributes
    ----------
    stddev : float
        As given. You may assign another number.
    seed : int or None
        The seed in use.
    training_forwards : int
        How often ``forward`` has run in training. This count and the seed determine the next noise.
    inputs, output : arrays
        After ``forward``.
    noise : array of the inputs' shape
        After a training ``forward``.
    dinputs : array
        After ``backward``.

    Raises
    ------
    TypeError, ValueError
        For a standard deviation that is not a finite number of at least 0, and a seed that does not fit 64 bits.

    Notes
    -----
    An element's noise depends only on the seed, the number of the forward and the element's position (Philox4x32-7, and
    the method of Box and Muller). It is therefore the same, up to rounding, on every backend and for every number of
    threads. It is independent of the mask of a `Layer_Dropout` with the same seed. Noise is at most 5.8 standard
    deviations. It is ``GaussianNoise`` of Keras.

    Examples
    --------
    >>> import numpy as np
    >>> from nnx import Layer_GaussianNoise
    >>> layer = Layer_GaussianNoise(0.1, seed=1)
    >>> layer.forward(np.ones((1000, 10)), training=True)
    >>> bool(0.09 < layer.output.std() < 0.11)
    True
    >>> layer.forward(np.ones((1000, 10)), training=False)
    >>> bool((layer.output == 1).all())
    True
    """

    _arguments: ClassVar[tuple[str, ...]] = ("stddev", "seed")

    _kernel: ClassVar[str] = "gaussian_noise"

    stddev: float
    noise: Array

    def __init__(self, stddev: float, seed: int | None = None) -> None:
        self.stddev = check.number("Layer_GaussianNoise", "stddev", stddev, 0)
        self._take_seed(seed)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments: ``seed`` is None if it was drawn."""
        return {**super().get_config(), "seed": self._given_seed}

    def forward(self, inputs: ArrayLike, training: bool = True) -> None:
        """Set ``output`` to the inputs with noise or, if not ``training``, to a copy of them.

        Parameters
        ----------
        inputs : array (n, ...)
        training : bool
        """
        where = "Layer_GaussianNoise.forward"
        inputs = check.samples(where, "inputs", inputs)
        deviation, seed, forwards = self._settings(where)
        self.inputs = inputs
        if not training:
            self.output = inputs.copy()
            return
        if seed is None:
            seed = self.seed = random.draw_seed()
        draw = _kernels.backend.gaussian_noise
        noise = random.drawn_behind(lambda cells: draw(_rows_of(cells), deviation, seed, forwards), inputs)
        with np.errstate(all="ignore"):
            output = np.add(inputs, noise)
        self.training_forwards = forwards + 1
        self.noise = noise
        self.output = output

    def _amount(self, where: str) -> float:
        return float(check.number(where, "stddev", self.stddev, 0))

    def backward(self, dvalues: ArrayLike) -> None:
        """Set ``dinputs`` to a copy of ``dvalues``: the noise does not depend on the inputs.

        Parameters
        ----------
        dvalues : array of the inputs' shape
        """
        where = "Layer_GaussianNoise.backward"
        inputs = check.samples(where, "inputs", check.stored(where, self, "inputs"))
        self.dinputs = check.like(where, "dvalues", dvalues, inputs).copy()
