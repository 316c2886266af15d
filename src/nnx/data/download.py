"""Files from the network, kept only if they are the very ones that were meant."""

from __future__ import annotations

import hashlib
import os

from nnx._base import files

BLOCK = 1 << 16
#: Seconds without a byte after which the other side counts as gone.
PATIENCE = 60


def fetch(where: str, address: str, path: str, md5: str) -> None:
    """Make ``path`` the file with that md5 sum, from ``address`` unless it is there already.

    Raises
    ------
    ConnectionError
        If it cannot be had, or is another file than was meant. What stood at ``path`` is kept then.
    """
    if _md5(path) == md5:
        return
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import urlopen

    from tqdm import tqdm

    os.makedirs(os.path.dirname(path), exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urlopen(address, timeout=PATIENCE) as answer, files.replacing(where, path) as file:
            size = answer.headers.get("Content-Length", "")
            total = int(size) if size.isdecimal() else None
            with tqdm(total=total, unit="B", unit_scale=True, desc=os.path.basename(path)) as bar:
                while block := answer.read(BLOCK):
                    file.write(block)
                    digest.update(block)
                    bar.update(len(block))
            if digest.hexdigest() != md5:
                raise OSError(f"its md5 sum is {digest.hexdigest()} in place of {md5}")
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is the answer, with an open connection
        reason = getattr(error, "reason", error)
        raise ConnectionError(f"{where}: {path!r} could not be fetched from {address} ({reason}).") from error


def _md5(path: str) -> str | None:
    """Return the md5 sum of a file; None if there is none."""
    if not os.path.isfile(path):
        return None
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
