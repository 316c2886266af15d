"""Errors that a caller would want to catch by name."""


class ModelFileError(ValueError):
    """A model or parameter file is none of nnx's, damaged, tampered with, or for another model."""


class DivergenceError(FloatingPointError):
    """Training has come to numbers that are not finite."""


class DataFileError(ValueError):
    """A data file is damaged, or does not hold what it must."""


class RankError(RuntimeError):
    """Another of the processes that train a model together has ended the training of all."""
