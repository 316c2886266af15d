"""The extension modules, their compiler flags, and an sdist that is the same wherever it is made.

All that needs no code is in pyproject.toml. NNX_DISABLE_EXTENSIONS=1 builds no extension modules, and nnx computes with
NumPy. It also does so where no compiler works, unless NNX_REQUIRE_EXTENSIONS=1 makes that an error. NNX_VARIANTS="avx2
avx512" builds these variants alone; amx comes with avx512.
"""

import copy
import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

THIS = Path(__file__).absolute()
BINDING = "nnx._kernels._native"
KERNELS = "nnx._kernels.native"  # a folder without __init__.py: no tool that imports all modules of a package finds the
# variants in it, whose import a processor without their instructions could not survive
DISABLED = bool(os.environ.get("NNX_DISABLE_EXTENSIONS"))
REQUIRED = bool(os.environ.get("NNX_REQUIRE_EXTENSIONS"))
WANTED = os.environ.get("NNX_VARIANTS", "").split()  # of the variants, these alone; by default all

#: What GCC and Clang are told beside a variant's own flags. With -ffast-math the whole process would flush subnormals.
#: With -ffp-contract=fast the compiler would choose which products and sums become one instruction, and choose
#: differently in other code around the same inlined formula: its bits would differ. The kernels call multiply-adds by
#: name (`v_madd`).
#: An -O or -g in CFLAGS is the user's word.
GIVEN = os.environ.get("CFLAGS", "").split()
FLAGS = [flag for flag in ("-O3", "-g0") if not any(given.startswith(flag[:2]) for given in GIVEN)]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"]
FLAGS += ["-Wno-psabi", "-Wno-maybe-uninitialized"]  # about vectors in arguments, and arrays that loops fill
# Nothing unwinds C frames here, and nobody links to the modules: tables and names for that are a tenth of the wheel.
# The user's -g keeps both. sysconfig knows what is built for; `sys.platform` and `platform` tell of the machine that
# compiles.
STRIPPED = sysconfig.get_platform().startswith("linux") and "-g0" in FLAGS
FLAGS += ["-fno-asynchronous-unwind-tables"] if STRIPPED else []
LINK_FLAGS = ["-Wl,-s"] if STRIPPED else []
#: Of the kernels. Loops begin at lines of the cache: elsewhere any change of other code made a product a fifth slower,
#: or faster. What the kernels call inline is inlined: only then is a tile's size a constant, and are its sums in
#: registers.
KERNEL_FLAGS = ["-falign-functions=64", "-falign-loops=64", "-DCYTHON_INLINE=inline __attribute__((always_inline))"]
#: The binding layer has no loops that matter. This makes it a fifth smaller and no call slower; -Os made calls a fifth
#: slower.
BINDING_FLAGS = ["-O2"] if "-O3" in FLAGS else []
BINDING_FLAGS += ["-fno-inline-functions", "-fno-tree-vectorize"]
BINDING_FLAGS += ["-fno-align-jumps", "-fno-align-labels", "-fno-align-loops"]

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]

#: The variants for x86-64, with what the compiler may use in each; processor.h asks the processor for the same.
X86_VARIANTS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": AVX512,
}
#: What multiplies in bfloat16 by blocks, apart from the variants: matrix units, for use with avx512, and what stands in
#: for them in tests.
X86_UNITS = {"plain": [], "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]}
#: WebAssembly has one variant: whatever runs Pyodide has vectors of 16 bytes.
WASM = sysconfig.get_platform().endswith("wasm32")
WASM_VARIANTS = {"baseline": ["-msimd128"]}

DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,
    "boundscheck": False,
    "cdivision": True,
    "freethreading_compatible": True,
    "initializedcheck": False,
    "wraparound": False,
}

KEPT_BUILDS = 4  # of each module: by other compilers and Pythons, with other flags

#: How one source file names another: include "x.pxi", cdef extern from "x.h", #include "x.h", from nnx.x cimport y.
NAMED_FILE = re.compile(r'^\s*(?:include|cdef extern from|#\s*include)\s+"([^"]+)"', re.MULTILINE)
NAMED_MODULE = re.compile(r"^\s*(?:from|cimport)\s+(nnx[.\w]*)", re.MULTILINE)
FOLDERS = ("src/nnx/_kernels/native", "src/nnx/include")  # where the compiler looks for headers
#: What compilers and linkers read from the environment, beside the flags that setuptools hands them.
READ_BY_COMPILERS = ("CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "MACOSX_DEPLOYMENT_TARGET", "SDKROOT")
READ_BY_COMPILERS += ("INCLUDE", "LIB", "CL", "_CL_", "LINK", "_LINK_")  # MSVC's


def sources_of(path: str) -> list[str]:
    """Return a source file and all files of this project that it is compiled from, sorted."""
    found, waiting = set(), [Path(path)]
    while waiting:
        file = waiting.pop()
        if file.as_posix() in found:
            continue
        found.add(file.as_posix())
        text = file.read_text(encoding="utf-8")
        named = [folder / name for name in NAMED_FILE.findall(text) for folder in (file.parent, *map(Path, FOLDERS))]
        named += [Path("src", *name.split(".")).with_suffix(".pxd") for name in NAMED_MODULE.findall(text)]
        waiting += [Path(os.path.normpath(other)) for other in named if other.is_file()]
    return sorted(found)


def compiler_version(command: list[str]) -> str:
    """Return what a compiler says of its version; nothing if it does not answer."""
    try:
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout + said.stderr  # MSVC says it in the latter


def changed(path: Path) -> float:
    """Return when a file or folder was changed; 0 if another build has taken it away."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


class build_extensions(build_ext):
    """Translate and compile, on all cores, what was not compiled before.

    The kernels' one source becomes many modules, each with its own folder for C. Every module is kept in build/kernels/
    under a digest of all that it depends on, so that nothing is compiled twice: neither the time of files nor the
    folder of an isolated build decides.
    """

    translating = threading.Lock()  # Cython's compiler is not made for threads

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()
        self.kept = Path(self.get_finalized_command("build").build_base, "kernels")

    def build_extensions(self) -> None:
        for extension in self.extensions:
            if self.compiler.compiler_type != "msvc":
                own = BINDING_FLAGS if extension.name == BINDING else KERNEL_FLAGS
                extension.extra_compile_args = FLAGS + own + extension.extra_compile_args
                extension.extra_link_args = LINK_FLAGS + extension.extra_link_args
        compiler = getattr(self.compiler, "compiler_so", None)  # MSVC has neither
        linker = getattr(self.compiler, "linker_so", None)
        self.tools = [str(compiler), str(linker), compiler_version(compiler or ["cl"])]
        super().build_extensions()

    def build_extension(self, extension: Extension) -> None:
        target = Path(self.get_ext_fullpath(extension.name))
        target.unlink(missing_ok=True)  # what cannot be compiled any more shall not be found as it was
        target.parent.mkdir(parents=True, exist_ok=True)
        (source,) = extension.sources
        digest = self.digest(extension, source)
        kept = self.kept / f"{extension.name}-{digest}" / target.name
        if not self.force and kept.is_file():
            shutil.copyfile(kept, target)
            os.utime(kept.parent)
            print(f"{extension.name}: compiled before")
            return
        # In a folder of its own: another build of this tree at the same time would write the same files.
        self.kept.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f"{extension.name.rpartition('.')[2]}-", dir=self.kept.parent)
        alone = copy.copy(self)
        alone.build_temp = alone.build_lib = str(self.kept.with_name(os.path.basename(folder)))
        alone.inplace = False
        try:
            alone.compile(extension)
            compiled = alone.get_ext_fullpath(extension.name)
            shutil.copyfile(compiled, target)
            if self.digest(extension, source) == digest:  # else somebody wrote the sources meanwhile
                self.keep(compiled, kept)
        finally:
            if "-g0" in FLAGS and not self.debug:  # debuggers show what Cython has written
                shutil.rmtree(folder, ignore_errors=True)

    def keep(self, compiled: str, kept: Path) -> None:
        """Keep a module for the next time, and the last ones of those before."""
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(compiled, partial)
        partial.replace(kept)
        name = kept.parent.name.rpartition("-")[0]
        last = {folder: changed(folder) for folder in self.kept.glob(f"{name}-*")}
        for older in sorted(last, key=last.__getitem__)[:-KEPT_BUILDS]:
            shutil.rmtree(older, ignore_errors=True)

    def digest(self, extension: Extension, source: str) -> str:
        """Return a digest of all that decides what is in a module that is compiled from a source."""
        import Cython
        import numpy

        facts = [extension.name, extension.define_macros, extension.extra_compile_args, extension.extra_link_args]
        facts += [self.tools, sysconfig.get_config_var("EXT_SUFFIX"), sys.version, Cython.__version__]
        facts += [numpy.__version__, self.debug, self.plat_name, THIS.read_bytes()]
        facts += map(os.environ.get, READ_BY_COMPILERS)
        digest = hashlib.sha256(repr(facts).encode())
        for path in sources_of(source):
            digest.update(path.encode() + b"\0" + hashlib.sha256(Path(path).read_bytes()).digest())
        return digest.hexdigest()[:24]

    def compile(self, extension: Extension) -> None:
        """Translate and compile a module."""
        import numpy
        from Cython.Build import cythonize

        with self.translating:
            (translated,) = cythonize(
                [extension],
                build_dir=self.build_temp,
                compiler_directives=DIRECTIVES,
                include_path=["src"],
                force=True,
            )
        extension.sources = translated.sources
        extension.include_dirs += [numpy.get_include(), "src/nnx/_kernels/native", "src/nnx/include"]
        super().build_extension(extension)


class fresh_build_py(build_py):
    """The package without what an earlier build in this folder left of files that have gone since."""

    def run(self) -> None:
        for file in [] if self.editable_mode else Path(self.build_lib).rglob("*.*"):
            is_module = file.suffix in (".so", ".pyd")  # build_ext, which comes later, puts there all that it has
            if is_module or (file.suffix == ".py" and not Path("src", file.relative_to(self.build_lib)).is_file()):
                file.unlink(missing_ok=True)
        super().run()


class reproducible_sdist(sdist):
    """An sdist whose bytes depend on the files' contents alone, and on one time: that of the commit.

    SOURCE_DATE_EPOCH may say another time. In an unpacked sdist, which has no commits, it is the time of its files.
    """

    def run(self) -> None:
        egg_info = self.get_finalized_command("egg_info").egg_info
        Path(egg_info, "SOURCES.txt").unlink(missing_ok=True)  # else setuptools adds what an earlier build listed
        super().run()

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None) -> str:
        if format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        time = source_time()
        name = f"{base_name}.tar.gz"
        self.mkpath(os.path.dirname(name))
        with (
            open(name, "wb") as raw,
            gzip.GzipFile("", "wb", 9, raw, mtime=time) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in sorted(Path(base_dir).rglob("*"), key=lambda path: path.as_posix()):
                if path.is_file():  # folders come into being with their files
                    member = archive.gettarinfo(path, path.as_posix())
                    with path.open("rb") as content:
                        archive.addfile(normalized(member, time), content)
        return name


def source_time() -> int:
    """Return the time, in seconds since 1970, that stands for all files of an sdist."""
    if "SOURCE_DATE_EPOCH" in os.environ:
        return int(os.environ["SOURCE_DATE_EPOCH"])
    if os.path.exists(".git"):
        command = ["git", "log", "-1", "--format=%ct"]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return int(os.path.getmtime("PKG-INFO" if os.path.exists("PKG-INFO") else "setup.py"))


def normalized(member: tarfile.TarInfo, time: int) -> tarfile.TarInfo:
    """Return an archive's member without traces of who made it, and where."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    member.mtime = time
    return member


def extensions() -> list[Extension]:
    """Return the binding layer, a module for each variant and float type, and those for products in blocks."""
    if DISABLED:
        return []
    found = [
        Extension(
            BINDING,
            ["src/nnx/_kernels/_native.pyx"],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            optional=not REQUIRED,
        )
    ]
    x86 = not WASM and platform.machine().lower() in ("x86_64", "amd64") and os.name == "posix"
    variants = WASM_VARIANTS if WASM else X86_VARIANTS if x86 else {"baseline": []}
    unknown = set(WANTED) - {*X86_VARIANTS, *X86_UNITS}
    if unknown:
        allowed = ", ".join([*X86_VARIANTS, "amx"])
        raise SystemExit(f"NNX_VARIANTS must name some of: {allowed}; got {' '.join(sorted(unknown))!r}.")
    for variant, flags in variants.items():
        if not WANTED or variant in WANTED or (variant == "avx512" and "amx" in WANTED):
            found += [kernels(f"{variant}_{dtype}", "kernels", flags, dtype) for dtype in ("float32", "float64")]
    for kind, flags in (X86_UNITS if x86 else {"plain": variants["baseline"]}).items():
        if not WANTED or kind in (*WANTED, "plain"):
            found.append(kernels(f"units_{kind}", "units", flags))
    return found


def kernels(name: str, source: str, flags: list[str], dtype: str = "float32") -> Extension:
    """Return a module of compiled kernels."""
    return Extension(
        f"{KERNELS}.{name}",
        [f"src/nnx/_kernels/native/{source}.pyx"],
        define_macros=[("NNX_DOUBLE", "1")] * (dtype == "float64"),
        extra_compile_args=flags,
        optional=not REQUIRED,
    )


if DISABLED and REQUIRED:
    raise SystemExit("NNX_DISABLE_EXTENSIONS and NNX_REQUIRE_EXTENSIONS are both set. Unset one of them.")
setup(
    ext_modules=extensions(),
    cmdclass={"build_py": fresh_build_py, "build_ext": build_extensions, "sdist": reproducible_sdist},
)
