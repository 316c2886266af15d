"""``python -m nnx`` is the command ``nnx``."""

from nnx.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
