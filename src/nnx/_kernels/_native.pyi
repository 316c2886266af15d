"""The compiled kernels and array checks have the names and signatures of their definitions in Python."""

from nnx._kernels._arrays import *
from nnx._kernels._numpy import *

def offers(variant: str) -> bool: ...
def use(variant: str) -> None: ...
