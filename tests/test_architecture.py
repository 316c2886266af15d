"""The architecture: which module imports which, the cost of an import, and true examples in docstrings and docs."""

from __future__ import annotations

import ast
import doctest
import graphlib
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Container
from pathlib import Path

import pytest

import nnx

pytestmark = pytest.mark.one_backend

SOURCE = Path(nnx.__file__).parent

#: From the bottom up: a module imports only from the rows above its own, also inside functions and for annotations.
#: "__init__" is the package itself, with all public names.
FLOORS = [
    {
        "errors",
        "_base.typing",
        "_base.text",
        "_base.helpers",
        "_base.interrupt",
        "_base.memory",
        "_base.trainers",
        "_base.vocabulary",
        "_base.widths",
    },
    {"_base.config", "_base.files", "_base.network", "_base.printing"},
    {"_kernels._arrays", "_kernels._numpy.quiet"},
    {
        f"_kernels._numpy.{name}"
        for name in (
            *("activations", "calls", "counts", "embedding", "encodings", "norms", "optimizers", "periodic", "splines"),
        )
    },
    {"_kernels._numpy.layers", "_kernels._numpy.losses"},
    {"_kernels._numpy"},
    {"_kernels", "_base.describe"},
    {"_base.check"},
    {"_base.parameters", "_base.precision", "_base.random", "_base.weights"},
    {"accuracy", "activations", "schedules", "initializers"},
    {"embedding", "noise", "norms"},
    {"encodings", "member_layers", "periodic", "splines"},
    {"residual"},
    {"layers"},
    {"losses", "optimizers"},
    {"lbfgs"},
    {"data.notation", "data.datasets", "data.download", "data.image_files"},
    {"data.answers", "data.cells", "data.fashion_mnist", "data.scaling", "data.streams"},
    {"data.dates", "data.objects", "data.sheet", "data.gathering", "data.sources", "data.csv_blocks"},
    {"data.arrow_csv"},
    {"data.csv_files", "data.arrow_tables"},
    {"data.table_files", "data.frames"},
    {"data.records", "data.problems"},
    {"data.columns", "data.preparation"},
    {"data.roles", "data.summaries", "data.surveys"},
    {"data.learning", "data.images"},
    {"data.tables", "data.image_folders"},
    {"data.large_files"},
    {"files.packing", "files.safetensors", "files.descriptions", "files.onnx_graph"},
    {"files.foreign_layers", "files.onnx_formulas", "files.onnx_layers", "files.torch_files"},
    {"files.model_files", "files.torch_weights", "files.onnx_import", "files.onnx_tables"},
    {"files.ensembles", "files.predictors", "files.onnx_export"},
    {"files.c_text"},
    {"files.c_layers", "files.c_tables"},
    {"files.c_network"},
    {"files.c_source"},
    {"scoring.metrics"},
    {"plot.parts"},
    {"plot.classes", "plot.curves", "plot.columns", "plot.images", "plot.regression"},
    {"plot"},
    {"engine.history", "engine.lbfgs", "engine.program"},
    {"callbacks", "engine.job"},
    {"engine.calling", "engine.classes", "engine.divergence"},
    {"engine.checkpoints"},
    {"engine.layerwise", "engine.plan"},
    {"engine.data_checks", "engine.minimizing", "engine.segments", "engine.together"},
    {"engine.streaming"},
    {"engine.training"},
    {"engine.ranks"},
    {"scoring.reports"},
    {"scoring.answers", "scoring.evaluation", "scoring.importance"},
    {"predictor"},
    {"model"},
    {"foreign", "many"},
    {"members"},
    {"ensemble"},
    {"tabular.choosing", "tabular.edges", "tabular.pairs", "tabular.recipe"},
    {"tabular.networks"},
    {"tabular.fitting"},
    {"tabular"},
    {"__init__"},
    {"serve.errors", "serve.metrics"},
    {"serve.rows"},
    {"serve.service"},
    {"serve.batching", "serve.openapi"},
    {"serve.app", "serve.server"},
    {"serve"},
    {"cli.arguments", "cli.cases", "cli.pictures"},
    {"cli.images"},
    {"cli.tasks"},
    {"cli.figures", "cli.measuring", "cli.networks"},
    {"cli.jobs", "cli.report"},
    {"cli.train", "cli.predict", "cli.evaluate", "cli.serve", "cli.info", "cli.export", "cli.bench"},
    {"cli"},
    {"__main__"},
    {"sklearn.versions", "sklearn.choices", "sklearn.threads"},
    {"sklearn.networks", "sklearn.stopping", "sklearn.frames", "sklearn.quantiles"},
    {"sklearn.training"},
    {"sklearn.files"},
    {"sklearn.base", "sklearn.tabular_files"},
    {"sklearn.classifier", "sklearn.regressor", "sklearn.tabular"},
    {"sklearn"},
]


def modules() -> dict[str, Path]:
    """Return the files by module, without packages whose ``__init__`` holds only a docstring."""
    paths = [path for path in SOURCE.rglob("*.py") if len(ast.parse(path.read_text(encoding="utf-8")).body) > 1]
    names = (".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths)
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imports_of(path: Path, known: Container[str]) -> set[str]:
    """Return the modules of nnx that a file imports anywhere; ``from nnx.data import tables`` is nnx.data.tables."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written with the whole name"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each.removeprefix("nnx.") in known else str(node.module) for each in inside}
    ours = {name.removeprefix("nnx.") for name in found if name.startswith("nnx.")}
    return ours | {"__init__" for name in found if name == "nnx"}


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Return the imports of each module. `_kernels` imports its own compiled part, which is not a Python file."""
    known = modules()
    return {name: imports_of(path, known) - {name} for name, path in known.items()}


def test_imports_point_downwards_only(imports):
    floor = {module: height for height, row in enumerate(FLOORS) for module in row}
    assert sorted(imports) == sorted(module for row in FLOORS for module in row)
    for name, found in imports.items():
        for imported in found:
            assert floor[imported] < floor[name], f"{name} imports {imported}"


def test_no_modules_import_each_other_in_a_circle(imports):
    graphlib.TopologicalSorter(imports).prepare()


def test_an_import_is_found_wherever_it_stands(tmp_path):
    lines = (
        "import nnx, numpy",
        "import nnx.model",
        "from nnx import Table, plot",
        "from nnx.data import sheet as s",
        "if TYPE_CHECKING:",
        "    from nnx.data.tables import load_csv",
        "def late():",
        "    from nnx.files import safetensors",
    )
    path = tmp_path / "module.py"
    path.write_text("\n".join(lines))
    expected = {"__init__", "model", "plot", "data.sheet", "data.tables", "files.safetensors"}
    assert imports_of(path, modules()) == expected


def test_the_architecture_page_lists_every_file_in_its_order():
    page = (Path(__file__).parents[1] / "docs" / "internals" / "architecture.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    listed = [name.replace("/", ".").removesuffix(".py") for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)]
    names = [name.removesuffix(".__init__") for name in listed]
    assert sorted(names) == sorted(module for row in FLOORS for module in row)
    floor = {module: height for height, row in enumerate(FLOORS) for module in row}
    heights = [floor[name] for name in names]
    assert heights == sorted(heights)


def test_the_architecture_page_lists_every_source_of_the_compiled_kernels():
    page = (Path(__file__).parents[1] / "docs" / "internals" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"`(_kernels/[\w/]+\.(?:pyx|pxi|pxd|h))`", page)
    source = Path(__file__).parents[1] / "src" / "nnx"  # what is installed does not have them
    there = [path for kind in ("pyx", "pxi", "pxd", "h") for path in (source / "_kernels").rglob(f"*.{kind}")]
    assert sorted(listed) == sorted(path.relative_to(source).as_posix() for path in there)


def test_links_between_the_documents_lead_somewhere():
    root = Path(__file__).parents[1]
    for page in [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("examples/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_only_the_chooser_imports_a_backend(imports):
    outside = {name: found for name, found in imports.items() if not name.startswith("_kernels._numpy")}
    users = [name for name, found in outside.items() if any(each.startswith("_kernels._numpy") for each in found)]
    assert users == ["_kernels"]


def test_environment_variables_are_read_in_one_place():
    for name, path in modules().items():
        if name != "_base.config":
            assert "os.environ" not in path.read_text(encoding="utf-8"), name


def test_numpy_kernels_do_not_use_what_nnfs_replaces():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (SOURCE / "_kernels" / "_numpy").glob("*.py")]
    used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
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


#: Modules that take long to load and that only some calls need. `secrets` would bring `hmac`, `hashlib` and `random`
#: along.
LOADED_LATER = {
    *("argparse", "csv", "datetime", "hashlib", "hmac", "inspect", "json", "logging", "multiprocessing", "random"),
    *("secrets", "signal", "socket", "subprocess", "tempfile", "typing", "zipfile", "numpy.ma", "numpy.random"),
    *("matplotlib", "onnx", "pandas", "platformdirs", "polars", "pyarrow", "sklearn", "starlette", "tqdm"),
    *("nnx.cli", "nnx.data", "nnx.ensemble", "nnx.files", "nnx.many", "nnx.plot", "nnx.scoring", "nnx.serve"),
    *("nnx.sklearn", "nnx.tabular"),
}


def test_import_leaves_for_later_what_only_some_calls_need():
    script = "import sys, numpy\nbefore = set(sys.modules)\nimport nnx\nprint(*set(sys.modules) - before)"
    assert not LOADED_LATER & set(in_process(script).split())


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
    of_extras = {
        "nnx.data.arrow": ("pyarrow",),
        "nnx.serve": ("httptools", "orjson", "prometheus_client", "starlette", "uvicorn"),
        "nnx.sklearn": ("sklearn",),
    }
    for needed in (each for start, libraries in of_extras.items() if name.startswith(start) for each in libraries):
        pytest.importorskip(needed)
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_examples_on_the_page_of_layers_are_true():
    page = (Path(__file__).parents[1] / "docs" / "reference" / "layers.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 10
    found = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "layers.md", "layers.md", 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(found).failed == 0


def test_the_page_of_layers_names_all_of_them():
    page = (Path(__file__).parents[1] / "docs" / "reference" / "layers.md").read_text(encoding="utf-8")
    for name in nnx.layers.__all__:
        assert f"| `{name}` |" in page, name
