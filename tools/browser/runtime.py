"""Fetches the page's runtime into build/pyodide: Pyodide from npm, and NumPy compiled for it.

NumPy's wheel comes from Pyodide's distribution, or from a folder named in ``NNX_DEMO_WHEELS``. In both cases, it must
have the checksum in Pyodide's lock file.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

#: Pyodide's version. The first number is Python's, 3.14. Another version needs another NumPy, which its lock file
#: names.
VERSION = "314.0.3"
#: The files of the runtime that a page loads.
FILES = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "pyodide" / VERSION
DISTRIBUTION = f"https://cdn.jsdelivr.net/pyodide/v{VERSION}/full/"


def fetch() -> list[Path]:
    """Return the paths of the runtime's files and of NumPy's wheel, fetched if they are not there yet."""
    return [*_runtime(), _numpy()]


def lock() -> dict[str, Any]:
    """Return the contents of Pyodide's lock file."""
    _runtime()
    found: dict[str, Any] = json.loads((PLACE / "pyodide-lock.json").read_text())
    return found


def _runtime() -> list[Path]:
    paths = [PLACE / name for name in FILES]
    if not all(path.exists() for path in paths):
        PLACE.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"pyodide@{VERSION}"], cwd=PLACE, check=True, capture_output=True, text=True
        )
        archive = PLACE / packed.stdout.split()[-1]
        with tarfile.open(archive) as files:
            for path in paths:
                content = files.extractfile(f"package/{path.name}")
                assert content is not None
                path.write_bytes(content.read())
        archive.unlink()
    return paths


def _numpy() -> Path:
    entry = lock()["packages"]["numpy"]
    path = PLACE / str(entry["file_name"])
    if path.exists() and _has_sum(path.read_bytes(), entry):
        return path
    for folder in os.environ.get("NNX_DEMO_WHEELS", "").split(os.pathsep):
        given = Path(folder) / path.name
        if folder and given.exists():
            content = given.read_bytes()
            break
    else:
        try:
            with urllib.request.urlopen(DISTRIBUTION + path.name, timeout=60) as answer:
                content = answer.read()
        except (urllib.error.URLError, OSError) as error:
            sys.exit(
                f"{DISTRIBUTION}{path.name} cannot be fetched ({error}). Put a copy into a folder and name the folder "
                "in NNX_DEMO_WHEELS."
            )
    if not _has_sum(content, entry):
        sys.exit(f"{path.name} is not the file that Pyodide {VERSION} names: its SHA-256 differs.")
    path.write_bytes(content)
    return path


def _has_sum(content: bytes, entry: dict[str, str]) -> bool:
    return hashlib.sha256(content).hexdigest() == entry["sha256"]


if __name__ == "__main__":
    for path in fetch():
        print(path.relative_to(ROOT), path.stat().st_size)
