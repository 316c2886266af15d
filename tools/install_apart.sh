#!/usr/bin/env bash
# Install nnx, compiled as CC, CFLAGS and the like say, into a folder of its own, for PYTHONPATH: install_apart.sh PYTHON FOLDER [SDIST].
# That Python has what builds need, and what nnx needs.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
folder=$2
sources=${3:-$folder.tree}

rm -rf "$folder" "$folder.tree"
if (($# == 2)); then # a copy: compilers leave objects behind, which another build would take for its own
    mkdir "$sources"
    tar c --exclude='*.so' --exclude=__pycache__ setup.py pyproject.toml MANIFEST.in README.md LICENSE src | tar x -C "$sources"
fi
"$python" -m pip install -q --no-deps --no-build-isolation --target "$folder" "$sources"
