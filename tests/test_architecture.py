"""The house: who imports whom, what an import costs and leaves behind, and that examples and docs are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnx

SOURCE = Path(nnx.__file__).parent

#: From the bottom up: a module may import from the rows above its own, and inside functions from nowhere else either.
FLOORS = [
    {"_typing", "_text", "errors"},
    {"_config", "_files", "_packing", "_trainers"},
    {"_kernels", "_kernels._arrays", "_kernels._numpy", "_describe", "_safetensors"},
    {"_check"},
    {"_notation"},
    {"_sheet", "_random", "activations", "accuracy", "datasets", "metrics", "schedules", "initializers"},
    {"_interrupt", "_report", "_download", "_image_files"},
    {"_records", "_problems", "reports"},
    {"layers", "fashion_mnist", "columns"},
    {"losses", "optimizers", "_learning"},
    {"tables", "images", "plot.parts"},
    {"image_folders", "plot.classes", "plot.curves", "plot.images", "plot.regression"},
    {"plot"},
    {"history", "program", "divergence", "_described"},
    {"plan"},
    {"training", "storage"},
    {"checkpoints", "evaluation"},
    {"model"},
    {"cli.arguments", "cli.figures", "cli.pictures"},
    {"cli.images"},
    {"cli.tasks", "cli.cases"},
    {"cli.train", "cli.predict", "cli.evaluate", "cli.info", "cli.bench"},
    {"cli"},
    {"__main__"},
]


def modules() -> dict[str, Path]:
    return {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}


def imports_of(path: Path) -> set[str]:
    """Return the nnx modules that a file imports while it runs; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("nnx.") for alias in node.names if alias.name.startswith("nnx.")}
            found |= {"" for alias in node.names if alias.name == "nnx"}
        if isinstance(node, ast.ImportFrom) and node.module == "nnx":
            found |= {
                ""
                for alias in node.names
                if not (SOURCE / f"{alias.name}.py").exists() and not (SOURCE / alias.name).is_dir()
            }
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nnx":
            prefix = node.module.removeprefix("nnx").removeprefix(".")
            found |= {f"{prefix}.{alias.name}".removeprefix(".") for alias in node.names} | {prefix or "."}
    return found & (set(modules()) | {"_kernels", ""})


def test_imports_point_downwards_only():
    floor = {module: height for height, row in enumerate(FLOORS) for module in row}
    listed = {name.removesuffix(".__init__") for name in modules()} - {"__init__"}
    assert listed == set(floor)
    for name, path in modules().items():
        if name == "__init__":
            continue
        own = name.removesuffix(".__init__")
        for imported in imports_of(path):
            # "" is the package itself, with all that its __init__ imports.
            if imported == "" and own.partition(".")[0] == "cli":
                continue
            assert imported != "", f"{own} imports the whole package"
            if imported.partition(".")[0] == own.partition(".")[0] == "_kernels":
                continue
            assert floor[imported] < floor[own], f"{own} imports {imported}"


def test_the_architecture_page_lists_every_file_in_its_order():
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    listed = [name.replace("/", ".").removesuffix(".py") for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)]
    names = [name.removesuffix(".__init__") for name in listed]
    assert sorted(names) == sorted(module for row in FLOORS for module in row)
    floor = {module: height for height, row in enumerate(FLOORS) for module in row}
    heights = [floor[name] for name in names if not name.startswith("_kernels")]
    assert heights == sorted(heights)


def test_the_architecture_page_lists_every_source_of_the_compiled_kernels():
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text()
    listed = re.findall(r"`(_kernels/[\w/]+\.(?:pyx|pxi|pxd|h))`", page)
    source = Path(__file__).parents[1] / "src" / "nnx"  # what is installed does not have them
    there = [path for kind in ("pyx", "pxi", "pxd", "h") for path in (source / "_kernels").rglob(f"*.{kind}")]
    assert sorted(listed) == sorted(path.relative_to(source).as_posix() for path in there)


def test_links_between_the_documents_lead_somewhere():
    root = Path(__file__).parents[1]
    for page in [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("examples/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_only_the_chooser_imports_a_backend():
    for name, path in modules().items():
        if not name.startswith("_kernels"):
            assert "_kernels._numpy" not in imports_of(path), name


def test_environment_variables_are_read_in_one_place():
    for name, path in modules().items():
        if name != "_config":
            assert "os.environ" not in path.read_text(), name


def test_numpy_kernels_do_not_use_what_nnfs_replaces():
    tree = ast.parse((SOURCE / "_kernels" / "_numpy.py").read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not used & {"dot", "zeros", "eye", "randn", "random"}


def in_process(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_import_brings_nothing_but_numpy_and_the_standard_library():
    script = (
        "import sys, numpy\nbefore = set(sys.modules)\nimport nnx\n"
        "before |= {name for name in sys.modules if 'cython' in name}  # what Cython adds to any process\n"
        "found = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(found - set(sys.stdlib_module_names) - {'numpy'}))"
    )
    assert in_process(script) == "['nnx']"
    heavy = "import sys, nnx; print({'tqdm', 'matplotlib', 'json', 'argparse'} & set(sys.modules))"
    assert in_process(heavy) == "set()"


def test_import_starts_no_thread_patches_nothing_and_keeps_subnormals():
    script = (
        "import threading, signal, warnings, numpy as np\n"
        "functions = dict(vars(np)), dict(vars(np.random))\n"
        "kept = signal.getsignal(signal.SIGINT), warnings.filters[:], np.geterr(), np.random.get_state()[1].tolist()\n"
        "import nnx\n"
        "assert threading.active_count() == 1\n"
        "for module, before in zip((np, np.random), functions):\n"
        "    assert all(getattr(module, name) is value for name, value in before.items())\n"
        "assert kept == (signal.getsignal(signal.SIGINT), warnings.filters[:], np.geterr(),\n"
        "                np.random.get_state()[1].tolist())\n"
        "assert np.float32(1e-45) * np.float32(1) != 0 and np.finfo(np.float32).smallest_subnormal != 0\n"
        "print('as before')"
    )
    assert in_process(script) == "as before"


def test_all_public_names_are_there_and_documented():
    for name in nnx.__all__:
        assert getattr(nnx, name, None) is not None
        if name != "__version__":
            assert getattr(nnx, name).__doc__, name


@pytest.mark.parametrize("name", sorted(m.name for m in pkgutil.walk_packages([str(SOURCE)], "nnx.")))
def test_docstring_examples_are_true(name):
    if name == "nnx.__main__":
        return
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
