"""The common part of all layers with parameters: checks at each use, access, and replacement.

A class names its parameters and their shapes. An optimizer trains them in place, and may keep averages of them.
Predictions then use the averages.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from nnx._base import check, config
from nnx._base.describe import Described
from nnx._base.typing import Array, ArrayLike, DTypeLike, FloatDType

#: The attributes that hold parameters.
PARAMETER_ARRAYS = ("weights", "biases")

#: The attributes in which an optimizer with ``average`` keeps averages of weights and biases.
AVERAGED = ("weight_averages", "bias_averages")


class Parameterized(Described):
    """A layer with parameters: the common part of layers with and without biases."""

    #: The attributes that hold the parameters.
    _parameters: ClassVar[tuple[str, ...]]

    dtype: DTypeLike = None
    weights: Array
    dweights: Array

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments that make a layer like this one (with its first parameters)."""
        return {**super().get_config(), "dtype": self._float_dtype().name}

    def get_parameters(self) -> tuple[Array, ...]:
        """Return the live parameters, not their averages. Later training changes the returned arrays."""
        return self._checked_parameters(f"{type(self).__name__}.get_parameters")

    def _shapes(self, where: str) -> tuple[tuple[int, int], ...]:
        """Return the shapes that the parameters must have, from checked sizes."""
        raise NotImplementedError

    def _replace(self, *given: ArrayLike) -> None:
        """Take parameters, and drop the averages of the old ones."""
        fitting = self._cast(f"{type(self).__name__}.set_parameters", *given)
        for name, values in zip(self._parameters, fitting, strict=True):
            setattr(self, name, values)
        for name in AVERAGED:
            vars(self).pop(name, None)

    def _checked_parameters(self, where: str, writing: bool = True) -> tuple[Array, ...]:
        """Return the parameters, checked for kernels: users may have assigned anything.

        It refuses read-only arrays if ``writing``.
        """
        given = [check.stored(where, self, name, "set_parameters") for name in self._parameters]
        fitting = self._cast(where, *given, writing=writing)
        for name, values, before in zip(self._parameters, fitting, given, strict=True):
            if values is not before and not check.is_read_only(before):  # a copy would let it be trained
                setattr(self, name, values)
        return fitting

    def _parameters_in_use(self, where: str) -> tuple[Array, ...]:
        """Return the parameters for predictions: averages if there are any, else the parameters."""
        own, found = vars(self), list(self._checked_parameters(where, writing=False))
        for i, name in enumerate(AVERAGED[: len(found)]):
            if own.get(name) is not None:
                found[i] = check.bound(where, self, name, found[i].shape, found[i].dtype, writing=False)
        return tuple(found)

    def _parameters_for(self, where: str, training: bool) -> tuple[Array, ...]:
        """Return the parameters for a forward: the trained ones if ``training``, else those for predictions."""
        return self._checked_parameters(where) if training else self._parameters_in_use(where)

    def _cast(self, where: str, *given: ArrayLike, writing: bool = True) -> tuple[Array, ...]:
        """Return arrays that may become the parameters, cast if needed."""
        dtype = self._float_dtype()
        wanted = zip(self._parameters, given, self._shapes(where), strict=True)
        return tuple([check.updatable(where, name, values, shape, dtype, writing) for name, values, shape in wanted])

    def _float_dtype(self) -> FloatDType:
        dtype = self.dtype
        if dtype is config.FLOAT32 or dtype is config.FLOAT64:
            return dtype
        return config.float_dtype(type(self).__name__, dtype)


class WithWeights(Parameterized):
    """A layer with weights only."""

    _parameters = ("weights",)

    def set_parameters(self, weights: ArrayLike) -> None:
        """Take ``weights`` without a copy, unless their dtype or layout needs a cast.

        It drops averages of the old ones.

        Parameters
        ----------
        weights : array of the shape of the old ones

        Raises
        ------
        TypeError, ValueError
            For an array of another shape, for a read-only one, and for one that does not hold real numbers. Nothing has
            changed then.
        """
        self._replace(weights)


class WithBiases(Parameterized):
    """A layer with weights and biases."""

    _parameters = ("weights", "biases")

    biases: Array
    dbiases: Array

    def set_parameters(self, weights: ArrayLike, biases: ArrayLike) -> None:
        """Take ``weights`` and ``biases`` without copies, unless their dtype or layout needs a cast.

        It drops averages of the old ones.

        Parameters
        ----------
        weights, biases : arrays of the shapes of the old ones

        Raises
        ------
        TypeError, ValueError
            For arrays of another shape, for read-only ones, and for ones that do not hold real numbers. Nothing has
            changed then.
        """
        self._replace(weights, biases)


def filled(columns: int, dtype: FloatDType, value: float) -> Array:
    """Return a new array (1, columns) of one number."""
    return np.full((1, columns), value, dtype)
