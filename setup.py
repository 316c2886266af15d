"""The extension modules and their compiler flags; all that does not compile is in pyproject.toml.

NNX_DISABLE_EXTENSIONS=1 builds none, and nnx computes with NumPy; so it does where no compiler works, unless
NNX_REQUIRE_EXTENSIONS=1 makes that an error.
"""

import os
import platform
import sysconfig
import threading

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

BINDING = "nnx._kernels._native"
KERNELS = "nnx._kernels.native"  # a folder without __init__.py: no tool that imports all modules of a package finds the
# variants in it, whose import a processor without their instructions could not survive
DISABLED = bool(os.environ.get("NNX_DISABLE_EXTENSIONS"))
REQUIRED = bool(os.environ.get("NNX_REQUIRE_EXTENSIONS"))

#: What GCC and Clang are told beside a variant's own flags. With -ffast-math the whole process would flush subnormals.
#: With -ffp-contract=fast the compiler would choose which products and sums become one instruction, and choose
#: differently in other code around the same inlined formula: its bits would differ. The kernels call multiply-adds by
#: name (`v_madd`).
#: An -O or -g in CFLAGS is the user's word.
FLAGS = [flag for flag in ("-O3", "-g0") if flag[:2] not in os.environ.get("CFLAGS", "")]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fvisibility=hidden"]
# Loops begin at lines of the cache: elsewhere any change of other code made a product a fifth slower, or faster.
FLAGS += ["-falign-functions=64", "-falign-loops=64"]
FLAGS += ["-Wno-psabi", "-Wno-maybe-uninitialized"]  # about vectors in arguments, and arrays that loops fill
#: What the kernels call inline is inlined: only then is a tile's size a constant, and are its sums in registers.
INLINE = "-DCYTHON_INLINE=inline __attribute__((always_inline))"

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]

#: The variants for x86-64, with what the compiler may use in each; processor.h asks the processor for the same.
X86_VARIANTS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": AVX512,
    "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
}
#: WebAssembly has one variant: whatever runs Pyodide has vectors of 16 bytes. sysconfig knows what is built for;
#: `platform` tells of the machine that compiles.
WASM = sysconfig.get_platform().endswith("wasm32")
WASM_VARIANTS = {"baseline": ["-msimd128"]}
FLOAT32_ONLY = ("amx",)  # matrix units multiply nothing wider: for float64, the best of the others serves

DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,
    "boundscheck": False,
    "cdivision": True,
    "freethreading_compatible": True,
    "initializedcheck": False,
    "wraparound": False,
}


class build_extensions(build_ext):
    """Translate and compile, on all cores; the kernels' one source becomes many modules, each with its folder for C."""

    translating = threading.Lock()  # Cython's compiler is not made for threads

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extension(self, extension: Extension) -> None:
        import numpy
        from Cython.Build import cythonize

        with self.translating:
            (translated,) = cythonize(
                [extension],
                build_dir=os.path.join(self.build_temp, extension.name),
                compiler_directives=DIRECTIVES,
                include_path=["src"],
                force=True,
            )
        extension.sources = translated.sources
        extension.include_dirs += [numpy.get_include(), "src/nnx/_kernels/native", "src/nnx/include"]
        if self.compiler.compiler_type != "msvc":
            inline = [INLINE] if extension.name != BINDING else []
            extension.extra_compile_args = FLAGS + inline + extension.extra_compile_args
        super().build_extension(extension)


def extensions() -> list[Extension]:
    """Return the binding layer, and a module for each variant and float type."""
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
    x86 = platform.machine().lower() in ("x86_64", "amd64") and os.name == "posix"
    variants = WASM_VARIANTS if WASM else X86_VARIANTS if x86 else {"baseline": []}
    for variant, flags in variants.items():
        for dtype in ("float32",) if variant in FLOAT32_ONLY else ("float32", "float64"):
            found.append(
                Extension(
                    f"{KERNELS}.{variant}_{dtype}",
                    ["src/nnx/_kernels/native/kernels.pyx"],
                    define_macros=[("NNX_DOUBLE", "1")] * (dtype == "float64"),
                    extra_compile_args=flags,
                    optional=not REQUIRED,
                )
            )
    return found


if DISABLED and REQUIRED:
    raise SystemExit("NNX_DISABLE_EXTENSIONS and NNX_REQUIRE_EXTENSIONS are both set. Unset one of them.")
setup(ext_modules=extensions(), cmdclass={"build_ext": build_extensions})
