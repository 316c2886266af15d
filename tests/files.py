"""Data files that several tests need."""

from __future__ import annotations

import numpy as np


def idx(values: np.ndarray) -> bytes:
    """Return the IDX file of an array of bytes."""
    shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.astype(np.uint8).tobytes()
