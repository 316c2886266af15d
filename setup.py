"""The place of the extension modules and their compiler flags; all that does not compile is in pyproject.toml."""

from setuptools import setup

setup()
