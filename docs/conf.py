"""How Sphinx makes the site. `make docs` runs it through tools/make_site.py, which first lays all pages out."""

from __future__ import annotations

import builtins
import importlib.util
import os
import re
import sys
import warnings
from pathlib import Path

import matplotlib
from pygments.lexers import TextLexer
from sphinx.application import Sphinx
from sphinx_gallery.sorting import FunctionSortKey

import nnx

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(DOCS / "_extensions"))
matplotlib.use("agg")
os.environ["TQDM_DISABLE"] = "1"  # progress bars fill pages with lines

project = "nnx"
author = "The nnx maintainers"
copyright = author
version = release = nnx.__version__

extensions = [
    "commands",
    "names",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["examples/*", "**/README.txt"]
templates_path = [str(DOCS / "_templates")]  # autosummary looks below the pages else
nitpicky = True
highlight_language = "default"  # Python where it is, else plain text

# Markdown

myst_enable_extensions = ["colon_fence", "deflist", "html_image"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache"]  # the gallery's settings hold functions

# Docstrings

default_role = "py:obj"  # names in backticks
autosummary_generate = True
autosummary_generate_overwrite = True
autodoc_typehints = "none"  # the sections Parameters and Returns say types in words
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
add_module_names = False
maximum_signature_line_length = 92
numpydoc_show_class_members = False  # members are documented on the class's page
numpydoc_class_members_toctree = False
python_display_short_literal_types = True
viewcode_line_numbers = True

# Examples


def runs(path: Path) -> bool:
    """Return whether an example's packages and data are here."""
    text = path.read_text(encoding="utf-8")
    packages = set(re.findall(r"^\s*(?:from|import) (dask|mpi4py|optuna|sklearn)\b", text, re.MULTILINE))
    if path.stem in ("across_machines", "dask_search", "mpi_training"):
        return False  # they start processes of their own
    if "load_fashion_mnist" in text and not Path(os.environ.get("NNX_DATA_HOME", ""), "fashion-mnist").is_dir():
        return False
    return all(importlib.util.find_spec(name) for name in packages)


def name_file(settings: dict[str, object], path: str) -> None:
    """Let an example know where it is, as it does when it is run as a script."""
    builtins.__file__ = str(ROOT / "build" / "docs" / "examples" / Path(path).name)  # type: ignore[attr-defined]


def listed(name: str) -> int:
    """Return where examples/README.md lists an example."""
    return EXAMPLE_PAGE.find(f"({Path(name).name})")


EXAMPLE_PAGE = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "build" / "docs" / "examples").glob("*.py"))
sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "build" / "docs" / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": "/(" + "|".join(path.stem for path in EXAMPLES if runs(path)) + r")\.py$",
    "within_subsection_order": FunctionSortKey(listed),
    "default_thumb_file": str(ROOT / "build" / "docs" / "pages" / "pictures" / "landing" / "mark.png"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "capture_repr": (),
    "reset_modules": (name_file, "matplotlib"),
    "min_reported_time": 1,
    "show_memory": False,
    "show_signature": False,
    "copyfile_regex": r".*\.csv$",
    "image_srcset": ["2x"],
    "thumbnail_size": (400, 280),
    "doc_module": ("nnx",),
    "reference_url": {"nnx": None},
    "backreferences_dir": None,
    "write_computation_times": False,
}
warnings.filterwarnings("ignore", category=DeprecationWarning, module="matplotlib")

# The site

html_theme = "pydata_sphinx_theme"
html_title = "nnx"
html_static_path = ["_static"]
html_css_files = ["nnx.css"]
html_favicon = "_static/mark.svg"
html_copy_source = False
html_show_sourcelink = False
html_extra_path: list[str] = []
REPOSITORY = os.environ.get("NNX_REPOSITORY", "")
html_baseurl = os.environ.get("NNX_SITE", "")
html_theme_options = {
    "logo": {"image_light": "_static/mark.svg", "image_dark": "_static/mark.svg", "text": "nnx"},
    "navbar_align": "left",
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "icon_links": [{"name": "Source", "url": REPOSITORY, "icon": "fa-brands fa-git-alt"}] if REPOSITORY else [],
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_center": [],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "back_to_top_button": False,
}
html_sidebars = {"index": [], "gallery/index": [], "404": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def setup(app: Sphinx) -> None:
    """Show code in languages that Pygments does not know as plain text."""
    app.add_lexer("csv", TextLexer)


# Links to other sites, for `make linkcheck`

linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_anchors = False  # pages that are drawn by scripts have none
