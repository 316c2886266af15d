"""What all other modules stand on: argument checks, settings, descriptions, files, random numbers, types."""
