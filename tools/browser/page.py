"""Puts the page, and everything that it loads, into build/demo: python tools/browser/page.py [WHEEL].

WHEEL is nnx's wheel for Pyodide. The default is the newest in build/pyodide, where wheel.py writes it. If there is
none, the script packs nnx without compiled kernels, and the page computes with NumPy.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import runtime

PLACE = runtime.ROOT / "build" / "demo"


def main(arguments: list[str]) -> None:
    """Make the folder anew, and print what a visitor loads."""
    *files, numpy = runtime.fetch()
    shutil.rmtree(PLACE, ignore_errors=True)
    shutil.copytree(runtime.ROOT / "web", PLACE, ignore=shutil.ignore_patterns("*.test.mjs", "__pycache__"))
    (PLACE / "pyodide").mkdir()
    for path in [*files, numpy]:
        shutil.copyfile(path, PLACE / "pyodide" / path.name)
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(arguments[0]) if arguments else newest_wheel() or wheel_without_kernels(Path(folder))
        compiled = PLACE / "pyodide" / wheel.name
        compiler = Path(__file__).with_name("compile.mjs")
        subprocess.run(["node", compiler, runtime.PLACE, numpy, wheel, PLACE / "spiral.py", compiled], check=True)
    names = {"numpy": f"pyodide/{numpy.name}", "nnx": f"pyodide/{compiled.name}"}
    (PLACE / "manifest.json").write_text(json.dumps(names, indent=4) + "\n")
    report()


def newest_wheel() -> Path | None:
    """Return the latest wheel for the runtime's ABI."""
    abi = runtime.lock()["info"]["abi_version"]
    wheels = (runtime.ROOT / "build" / "pyodide").glob(f"nnx_core-*_{abi}_wasm32.whl")
    return max(wheels, key=lambda path: path.stat().st_mtime, default=None)


def wheel_without_kernels(folder: Path) -> Path:
    """Pack nnx as pure Python."""
    print("There is no wheel in build/pyodide (tools/browser/wheel.py makes one): the page will compute with NumPy.")
    environment = {**os.environ, "NNX_DISABLE_EXTENSIONS": "1"}
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", f"--wheel-dir={folder}", str(runtime.ROOT)]
    subprocess.run(pip, env=environment, check=True)
    return next(folder.glob("*.whl"))


def report() -> None:
    """Print the size of each file, on disk and as servers send it."""
    print(f"{'bytes':>12}{'gzip':>12}  build/demo")
    total = packed = 0
    for path in sorted(path for path in PLACE.rglob("*") if path.is_file()):
        content = path.read_bytes()
        small = min(len(gzip.compress(content, 9)), len(content))
        total, packed = total + len(content), packed + small
        print(f"{len(content):>12,}{small:>12,}  {path.relative_to(PLACE)}")
    print(f"{total:>12,}{packed:>12,}  all")


if __name__ == "__main__":
    main(sys.argv[1:])
