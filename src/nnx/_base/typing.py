"""Names for the types in signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from typing import TypeAlias

    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]
    ArrayLike: TypeAlias = npt.ArrayLike
    DTypeLike: TypeAlias = npt.DTypeLike | None
    FloatDType: TypeAlias = "np.dtype[np.float32] | np.dtype[np.float64]"
    Path: TypeAlias = str | os.PathLike[str]
    Parameters: TypeAlias = list[tuple[Array, ...]]
else:
    Array = ArrayLike = DTypeLike = FloatDType = Path = Parameters = Any
