"""The base of all other modules: argument checks, settings, descriptions, files, random numbers, types."""
