"""Compiles nnx's wheel for Pyodide with the Emscripten on the PATH: python tools/browser/wheel.py.

It needs Pyodide's version of CPython with its headers (Debian: python3-dev), and in it setuptools, Cython and Pyodide's
version of NumPy. ``pyodide build`` makes the same wheel if it can download Pyodide's build environment. This script
needs less: the runtime, which says how CPython was compiled, and NumPy's wheel, for its headers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import runtime

PLACE = runtime.PLACE / "headers"
#: Emscripten's options for exceptions, the same as for Pyodide's own modules.
EXCEPTIONS = "-fwasm-exceptions -sSUPPORT_LONGJMP=wasm"


def main(folder: Path) -> None:
    """Build the wheel into ``folder``."""
    info = runtime.lock()["info"]
    wanted = ".".join(info["python"].split(".")[:2])
    if wanted != f"{sys.version_info[0]}.{sys.version_info[1]}":
        here = sys.version.split()[0]
        sys.exit(f"Pyodide {runtime.VERSION} is Python {wanted}, this is {here}. Run it with Python {wanted}.")
    if shutil.which("emcc") is None:
        sys.exit("There is no emcc on the PATH. Install Emscripten (Debian: emscripten).")
    numpy_there = runtime.lock()["packages"]["numpy"]["version"]
    if version("numpy").split(".")[:2] != numpy_there.split(".")[:2]:
        sys.exit(f"Pyodide {runtime.VERSION} has NumPy {numpy_there}, this is {version('numpy')}. Install the same.")
    variables = python_headers()
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "CC": "emcc",
        "LDSHARED": f"emcc -O2 -sSIDE_MODULE=1 -sWASM_BIGINT {EXCEPTIONS}",
        "CFLAGS": f"-fPIC {EXCEPTIONS} -I{PLACE / 'python'} -I{numpy_headers()}",
        "NNX_REQUIRE_EXTENSIONS": "1",
        "_PYTHON_HOST_PLATFORM": f"pyemscripten_{info['abi_version']}_wasm32",
        "_PYTHON_SYSCONFIGDATA_NAME": variables.stem,
        "_PYTHON_SYSCONFIGDATA_PATH": str(variables.parent),
    }
    # Only the build backend: in an interpreter that takes itself for Emscripten's, an installer finds no wheels.
    build = f"from setuptools.build_meta import build_wheel; print(build_wheel({str(folder.resolve())!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=runtime.ROOT, env=environment, check=True)


def python_headers() -> Path:
    """Copy this CPython's headers, with a pyconfig.h for Pyodide. Return the file with the variables of its build."""
    with zipfile.ZipFile(runtime.PLACE / "python_stdlib.zip") as library:
        (name,) = [name for name in library.namelist() if name.startswith("_sysconfigdata")]
        variables = Path(library.extract(name, PLACE))
    values: dict[str, dict[str, object]] = {}
    exec(variables.read_text(), values)
    include = PLACE / "python"
    shutil.copytree(sysconfig.get_path("include"), include, dirs_exist_ok=True)
    # No file of the runtime says which of the variables are macros. This CPython's own pyconfig.h names them all.
    macros = re.findall(r"^(?:# *define|/\* #undef) (\w+)", Path(own_pyconfig()).read_text(), re.MULTILINE)
    known = {name: values["build_time_vars"].get(name) for name in sorted(set(macros))}
    lines = [f"#define {name} {value}\n" for name, value in known.items() if value not in (None, 0, "")]
    (include / "pyconfig.h").write_text("#ifndef Py_PYCONFIG_H\n#define Py_PYCONFIG_H\n" + "".join(lines) + "#endif\n")
    return variables


def own_pyconfig() -> str:
    """Return the path of this CPython's pyconfig.h. On Debian, it is in a folder named after the machine."""
    plain = sysconfig.get_config_h_filename()
    machine = Path(plain).parents[1] / str(sysconfig.get_config_var("MULTIARCH")) / Path(plain).parent.name
    return str(machine / "pyconfig.h") if (machine / "pyconfig.h").exists() else plain


def numpy_headers() -> Path:
    """Unpack the headers of Pyodide's NumPy, which define the sizes of its numbers."""
    (wheel,) = [path for path in runtime.fetch() if path.name.startswith("numpy-")]
    with zipfile.ZipFile(wheel) as files:
        files.extractall(PLACE, [name for name in files.namelist() if "/_core/include/" in name])
    return PLACE / "numpy" / "_core" / "include"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else runtime.ROOT / "build" / "pyodide")
