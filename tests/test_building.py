"""Building: the files that a compiled module depends on, and an sdist with the same bytes wherever it is made."""

from __future__ import annotations

import hashlib
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = {".pyx", ".pxd", ".pxi", ".h"}

setuptools = pytest.importorskip("setuptools", minversion="77")
pytestmark = pytest.mark.one_backend


@pytest.fixture
def build(monkeypatch):
    """Return what setup.py defines, in its folder."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    monkeypatch.chdir(ROOT)
    return runpy.run_path("setup.py")


def test_a_module_depends_on_every_file_that_it_includes(build):
    binding = set(build["sources_of"]("src/nnx/_kernels/_native.pyx"))
    kernels = set(build["sources_of"]("src/nnx/_kernels/native/kernels.pyx"))
    units = set(build["sources_of"]("src/nnx/_kernels/native/units.pyx"))
    native = "src/nnx/_kernels/native"
    assert {f"{native}/argument_checks.pxi", f"{native}/kernels.pxd", f"{native}/plans/repeat.pxi"} <= binding
    assert {f"{native}/kernels.pxd", f"{native}/simd.h", f"{native}/products/tiles.pxi"} <= kernels
    assert f"{native}/matrix_units.h" in units - kernels
    assert f"{native}/products/tiles.pxi" not in binding | units
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "src").rglob("*") if path.suffix in SUFFIXES}
    assert written == binding | kernels | units


@pytest.fixture
def builder(build, tmp_path, monkeypatch):
    """Return a function that builds an extension module in an empty project, and the names of those it compiled."""
    pytest.importorskip("Cython")
    monkeypatch.chdir(tmp_path)
    Path("part.pxi").write_text("ANSWER = 42\n")
    Path("answers.pyx").write_text('include "part.pxi"\n')
    compiled = []

    def compile_nothing(self, extension):
        compiled.append(extension.extra_compile_args[-1])
        target = Path(self.get_ext_fullpath(extension.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Path("part.pxi").read_text() + compiled[-1])
        run.meanwhile()

    monkeypatch.setattr(build["build_extensions"], "compile", compile_nothing)

    def run(flag="-O1"):
        del compiled[:]
        extension = setuptools.Extension("answers", ["answers.pyx"], extra_compile_args=[flag])
        distribution = setuptools.Distribution({"name": "answers", "ext_modules": [extension]})
        command = build["build_extensions"](distribution)
        command.build_lib = "lib"
        command.ensure_finalized()
        command.run()
        (built,) = Path("lib").iterdir()
        return list(compiled), built.read_text()

    run.meanwhile = lambda: None
    return run


def test_only_what_has_changed_is_compiled_again(builder):
    assert builder() == (["-O1"], "ANSWER = 42\n-O1")
    assert builder() == ([], "ANSWER = 42\n-O1")
    shutil.rmtree("lib")
    assert builder() == ([], "ANSWER = 42\n-O1")
    assert sorted(path.name for path in Path("build").iterdir()) == ["kernels"]


def test_another_flag_compiles_again_and_the_first_result_is_kept(builder):
    builder("-O1")
    assert builder("-O2")[0] == ["-O2"]
    assert builder("-O1")[0] == []


def test_an_included_file_that_has_changed_is_compiled_even_if_it_looks_older(builder):
    builder()
    Path("part.pxi").write_text("ANSWER = 43\n")
    os.utime("part.pxi", (0, 0))
    assert builder() == (["-O1"], "ANSWER = 43\n-O1")


def test_a_build_with_other_flags_at_the_same_time_is_not_mistaken_for_this_one(builder):
    def other():
        builder.meanwhile = lambda: None
        assert builder("-O2") == (["-O2"], "ANSWER = 42\n-O2")

    builder.meanwhile = other
    assert builder("-O1")[1] == "ANSWER = 42\n-O1"
    assert builder("-O2") == ([], "ANSWER = 42\n-O2")
    assert builder("-O1") == ([], "ANSWER = 42\n-O1")


def test_a_module_that_is_not_compiled_any_more_is_not_found_as_it_was(builder):
    builder()
    Path("part.pxi").write_text("ANSWER = ")

    def fail():
        raise setuptools.errors.CompileError("no")

    builder.meanwhile = fail
    with pytest.raises(setuptools.errors.CompileError):
        builder()
    assert not list(Path("lib").iterdir())
    assert sorted(path.name for path in Path("build").iterdir()) == ["kernels"]


@pytest.mark.parametrize("name", ["CFLAGS", "MACOSX_DEPLOYMENT_TARGET", "CL"])
def test_another_compiler_compiles_again(name, builder, monkeypatch):
    builder()
    monkeypatch.setenv(name, "-DNNX_PLAIN")
    assert builder()[0] == ["-O1"]


@pytest.mark.parametrize(
    ("platform", "given", "stripped"),
    [
        ("linux-x86_64", "-DNAME -fno-plt-guard", True),
        ("linux-x86_64", "-O2 -g1", False),
        ("macosx-11.0-arm64", "", False),
        ("pyemscripten_2026_0_wasm32", "", False),
    ],
)
def test_what_is_built_for_decides_whether_modules_are_stripped(platform, given, stripped, monkeypatch):
    monkeypatch.setenv("CFLAGS", given)
    monkeypatch.setattr("sysconfig.get_platform", lambda: platform)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    assert runpy.run_path(str(ROOT / "setup.py"))["LINK_FLAGS"] == ["-Wl,-s"] * stripped


def test_for_webassembly_no_module_gets_flags_of_x86(monkeypatch):
    monkeypatch.setattr("sysconfig.get_platform", lambda: "pyemscripten_2026_0_wasm32")
    for name in ("NNX_DISABLE_EXTENSIONS", "NNX_VARIANTS"):
        monkeypatch.delenv(name, raising=False)
    built = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: built.update(given))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    flags = {module.name.rpartition(".")[2]: module.extra_compile_args for module in built["ext_modules"]}
    wide = ["-msimd128"]
    assert flags == {"_native": [], "baseline_float32": wide, "baseline_float64": wide, "units_plain": wide}


def project(folder: Path) -> Path:
    """Make a small project with nnx's setup.py in a folder; return the folder of its package."""
    package = folder / "src" / "nnx"
    package.mkdir(parents=True)
    for name in ("b", "a", "__init__"):
        (package / f"{name}.py").write_text(f"NAME = {name!r}\n")
    shutil.copyfile(ROOT / "setup.py", folder / "setup.py")
    (folder / "pyproject.toml").write_text('[project]\nname = "nnx-core"\nversion = "1.0"\n')
    return package


def run_setup(folder: Path, command: str) -> None:
    """Run a command of setup.py, without extension modules."""
    environment = {**os.environ, "NNX_DISABLE_EXTENSIONS": "1", "SOURCE_DATE_EPOCH": "1700000000"}
    environment.pop("NNX_REQUIRE_EXTENSIONS", None)
    words = [sys.executable, "setup.py", "-q", command]
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)


def test_a_build_has_nothing_of_a_file_that_has_gone(tmp_path):
    package = project(tmp_path)
    run_setup(tmp_path, "build")
    (package / "b.py").unlink()
    (package / "c.py").write_text("NAME = 'c'\n")
    library = tmp_path / "build" / "lib" / "nnx"
    (library / "_kernels").mkdir()
    (library / "_kernels" / "gone.cpython-311-x86_64-linux-gnu.so").write_bytes(
        b"a module that this build does not have"
    )
    run_setup(tmp_path, "build")
    built = [path for path in library.rglob("*") if path.is_file()]
    assert sorted(path.name for path in built) == ["__init__.py", "a.py", "c.py"]


def sdist(folder: Path, umask: int) -> bytes:
    """Return the sdist of a small project, made in a folder by somebody with this umask."""
    before = os.umask(umask)
    try:
        project(folder)
        (folder / "run.sh").write_text("true\n")
        (folder / "run.sh").chmod(0o777 & ~umask)
        (folder / "MANIFEST.in").write_text("include run.sh\n")
        run_setup(folder, "sdist")
    finally:
        os.umask(before)
    (made,) = (folder / "dist").iterdir()
    return made.read_bytes()


def test_the_sdist_is_the_same_in_another_folder_with_another_umask(tmp_path):
    first, second = sdist(tmp_path / "first", 0o022), sdist(tmp_path / "another folder", 0o077)
    assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()
    (tmp_path / "made.tar.gz").write_bytes(first)
    with tarfile.open(tmp_path / "made.tar.gz") as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert list(members) == sorted(members)
    assert {"PKG-INFO", "src/nnx/a.py"} <= set(members)
    assert {member.mtime for member in members.values()} == {1700000000}
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}
    assert members["run.sh"].mode == 0o755
    assert members["src/nnx/a.py"].mode == 0o644


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("gcc"), reason="tools/sanitize.sh is for GCC on Linux")
def test_kernels_with_sanitizers_are_built_anew_for_other_variants(tmp_path):
    python = tmp_path / "python"  # takes notes in place of building and testing
    python.write_text(f'#!/bin/sh\nif [ "$2" = pip ]; then echo "built $NNX_VARIANTS"; fi >> "{tmp_path}/notes"\n')
    python.chmod(0o755)

    def notes(variants):
        environment = {
            **os.environ,
            "SANITIZE_DIR": str(tmp_path),
            "TEST_PYTHON": str(python),
            "NNX_VARIANTS": variants,
        }
        subprocess.run(["bash", ROOT / "tools" / "sanitize.sh"], env=environment, check=True, timeout=60)
        return (tmp_path / "notes").read_text().splitlines()

    assert notes("baseline") == notes("baseline") == ["built baseline"]
    assert notes("baseline avx2") == notes("baseline avx2") == ["built baseline", "built baseline avx2"]
    assert notes("")[2:] == notes("")[2:] == ["built "]  # all of them
    (tmp_path / "ready").write_text("")  # of a build that did not say
    assert notes("")[3:] == ["built "]
