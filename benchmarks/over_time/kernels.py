"""Every kernel of the best backend, at the shapes of ``nnx bench``."""

from __future__ import annotations

import time

import numpy as np

from nnx import _kernels
from nnx.cli.cases import CASES


class Kernels:
    """A call of each kernel, on arrays that stay the same."""

    params = ([str(case) for case in CASES], ["float32", "float64"])
    param_names = ("kernel", "dtype")
    timer = time.process_time

    def setup(self, name: str, dtype: str) -> None:
        case = next(case for case in CASES if str(case) == name)
        backend = _kernels.load(_kernels.name)
        self.call = getattr(backend, getattr(case, "function", "") or case.kernel)
        self.arguments = case.arguments(np.dtype(dtype))

    def time_call(self, name: str, dtype: str) -> None:
        self.call(*self.arguments)
