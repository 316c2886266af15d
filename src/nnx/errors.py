"""Errors that a caller would want to catch by name."""


class ModelFileError(ValueError):
    """A model or parameter file is none of nnx's, damaged, tampered with, or for another model."""
