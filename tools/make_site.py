"""Make the documentation site. `make docs` runs it in a separate environment.

python tools/make_site.py [--no-doctests] [--links]

First, it lays out all pages in build/docs/pages: those in docs/, those at the repository's root, and files that pages
link to. Then Sphinx makes build/site from them; each warning is an error. Last, the script follows every link within
the site, and runs every example in pages and docstrings. With --links, it also follows links to other sites, which
needs a network.
"""

from __future__ import annotations

import argparse
import doctest
import html
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BUILD = ROOT / "build" / "docs"
PAGES = BUILD / "pages"
SITE = ROOT / "build" / "site"

#: Pages of the repository that are pages of the site, by their path there.
PROJECT = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
}
#: Pages that the site has in another form.
IN_PLACE_OF = {"README.md": "index.md", "examples/README.md": "gallery/index.rst", "examples": "gallery/index.rst"}
#: Names of languages for files on the site, by file extension.
LANGUAGES = {".py": "python", ".pyx": "cython", ".pxd": "cython", ".pxi": "cython", ".h": "c", ".c": "c", ".sh": "bash"}

#: How a script is run, in its docstring.
COMMAND = re.compile(rb"^(python (?:-m pip .*)?examples/.*|python -m pip .* examples/.*)$", re.MULTILINE)

LINK = re.compile(r"(\]\()<?([^)\s>]+)>?(\))")


# Pages


def put(target: Path, content: bytes) -> None:
    """Write a file, unless it is there already: Sphinx reads newer files again."""
    if not target.is_file() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def with_others(text: str, source: Path) -> str:
    """Return a page whose table of contents names, in place of ``*``, all other pages of its folder.

    A table that would be empty is removed, with its heading.
    """
    named = set(re.findall(r"^[\w-]+$", text, re.MULTILINE)) | {source.stem}
    others = sorted(path.stem for path in source.parent.glob("*.md") if path.stem not in named)
    text = re.sub(r"^\*$\n", "".join(f"{name}\n" for name in others), text, flags=re.MULTILINE)
    return re.sub(r"(^#+ [^\n]*\n\n)?^```\{toctree\}\n(:[^\n]*\n)*\n*```\n", "", text, flags=re.MULTILINE)


class Layout:
    """Pages by their path in the repository, and the data for their links."""

    def __init__(self) -> None:
        self.made: set[Path] = set()

    def write(self, place: str, content: bytes) -> None:
        """Put a file among the pages."""
        put(PAGES / place, content)
        self.made.add(PAGES / place)

    def page(self, source: Path, place: str) -> None:
        """Add a Markdown page, with its links changed to the site's paths."""
        lines = []
        fence = None
        for line in source.read_text(encoding="utf-8").splitlines():
            mark = re.match(r"\s*(`{3,}|:{3,}|~{3,})", line)
            if mark and mark[1][0] != ":":
                fence = None if fence and mark[1].startswith(fence) else fence or mark[1]
            if fence is None:
                line = LINK.sub(lambda link: link[1] + self.target(source, place, link[2]) + link[3], line)
            lines.append(line)
        self.write(place, with_others("\n".join(lines) + "\n", source).encode())

    def target(self, source: Path, place: str, link: str) -> str:
        """Return the site's form of a link on a page."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or not parts.path or "{" in link:
            return link
        found = Path(os.path.normpath(source.parent / unquote(parts.path)))
        if found.is_relative_to(BUILD.parent):
            return link
        if not found.exists():
            if source.is_relative_to(DOCS):
                return link  # a generated page, or a mistake that Sphinx finds
            raise SystemExit(f"{source.relative_to(ROOT)}: {link} is not there.")
        goal = self.place_of(found)
        anchor = f"#{parts.fragment}" if parts.fragment and goal.endswith(".md") and goal != "index.md" else ""
        return Path(os.path.relpath(goal, Path(place).parent)).as_posix() + anchor

    def place_of(self, found: Path) -> str:
        """Return the path of a repository's file on the site. Add files that pages show."""
        name = found.relative_to(ROOT).as_posix()
        if found.is_relative_to(DOCS) and found.suffix not in LANGUAGES:
            return found.relative_to(DOCS).as_posix()
        if name in PROJECT or name in IN_PLACE_OF:
            return PROJECT.get(name) or IN_PLACE_OF[name]
        if found.parent == ROOT / "examples" and found.suffix == ".py":
            return f"gallery/{found.stem}.rst"
        if found.suffix in (".png", ".svg", ".jpg"):
            self.write(f"pictures/{name}", found.read_bytes())
            return f"pictures/{name}"
        return self.shown(found, name)

    def shown(self, found: Path, name: str) -> str:
        """Make a page that shows a file, or lists a folder, of the repository."""
        place = f"files/{name}.md"
        if found.is_dir():
            inside = sorted(f"- `{each.name}`" for each in found.iterdir() if not each.name.startswith((".", "__")))
            text = "\n".join(inside)
        else:
            language = LANGUAGES.get(found.suffix, "text")
            text = f"``````{language}\n{found.read_text(encoding='utf-8')}\n``````"
        self.write(place, f"---\norphan: true\n---\n\n# {name}\n\n{text}\n".encode())
        return place


def lay_out() -> None:
    """Lay out all pages, and remove old pages of an earlier run."""
    layout = Layout()
    for source in sorted(DOCS.rglob("*")):
        place = source.relative_to(DOCS).as_posix()
        if source.is_dir() or place.startswith("_") or source.suffix in (*LANGUAGES, ".pyc"):
            continue
        if source.suffix == ".md":
            layout.page(source, place)
        else:
            layout.write(place, source.read_bytes())
    for name, place in PROJECT.items():
        if (ROOT / name).is_file():
            layout.page(ROOT / name, place)
    for source in (ROOT / "src/nnx/include/nnx_predict.h", ROOT / "src/nnx/predict.pxd"):
        layout.write(f"files/{source.name}", source.read_bytes())
    examples = BUILD / "examples"
    for source in sorted((ROOT / "examples").iterdir()):
        if source.suffix in (".py", ".csv"):
            put(examples / source.name, re.sub(COMMAND, rb".. code-block:: sh\n\n    \1", source.read_bytes(), count=1))
    put(examples / "GALLERY_HEADER.rst", (DOCS / "_templates" / "gallery.rst").read_bytes())
    run(sys.executable, str(ROOT / "tools" / "draw_landing.py"), str(PAGES / "pictures" / "landing"))
    kept = ("gallery", "pictures/landing", "reference/api/names", "sg_execution_times")
    for path in PAGES.rglob("*"):
        place = path.relative_to(PAGES).as_posix()
        if path.is_file() and path not in layout.made and not place.startswith(kept):
            path.unlink()


# Links within the site


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links and anchors."""
        for name, value in attrs:
            if value and name in ("id", "name"):
                self.anchors.add(value)
            elif value and (name == "src" or (name == "href" and tag != "base")):
                self.links.append(value)


def dead_links() -> Iterator[str]:
    """Yield a line for each dead link within the site."""
    made = [path for path in SITE.rglob("*.html") if path.relative_to(SITE).parts[0] not in ("_static", "demo")]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in made}
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            goal = path if not parts.path else Path(os.path.normpath(path.parent / unquote(parts.path)))
            if path.name == "404.html" and parts.path.startswith("/"):
                continue
            if goal.is_dir():
                goal /= "index.html"
            missing = not goal.exists()
            if missing or (goal in pages and unquote(parts.fragment) not in pages[goal].anchors):
                yield f"{path.relative_to(SITE)}: {link}"


# Examples


#: Runs the examples of one page as a separate program. Fences become empty lines, which end expected output.
RUN_PAGE = """
import doctest, re, sys, warnings
warnings.simplefilter("ignore")
text = re.sub(r"^ *```.*$", "", open(sys.argv[1], encoding="utf-8").read(), flags=re.MULTILINE)
test = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, sys.argv[1], sys.argv[1], 0)
sys.exit(doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed > 0)
"""


def failures_of_pages() -> Iterator[str]:
    """Run the pages' examples, each page in an empty folder. Yield the names of pages that fail."""
    for page in sorted(DOCS.rglob("*.md")):
        if ">>> " in page.read_text(encoding="utf-8"):
            with tempfile.TemporaryDirectory() as folder:
                done = subprocess.run([sys.executable, "-c", RUN_PAGE, str(page)], cwd=folder)
            if done.returncode:
                yield str(page.relative_to(ROOT))


def failures_of_docstrings() -> Iterator[str]:
    """Run the docstrings' examples. Yield the names of modules where one fails."""
    import nnx

    for module in pkgutil.walk_packages(nnx.__path__, "nnx."):
        if module.name.endswith("__main__"):
            continue
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            before = os.getcwd()
            os.chdir(folder)
            try:
                tested = doctest.testmod(importlib.import_module(module.name), optionflags=doctest.NORMALIZE_WHITESPACE)
            except ImportError:  # of an extra that is not installed, or kernels for other processors
                continue
            finally:
                os.chdir(before)
        if tested.failed:
            yield module.name


# All of it


def run(*command: str) -> None:
    """Run a command that must not fail."""
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"This failed: {' '.join(command)}")


def sphinx(builder: str, folder: Path, *tags: str) -> None:
    """Run a Sphinx builder on all pages. Each warning is an error."""
    run(
        *(sys.executable, "-m", "sphinx", "--builder", builder, "--conf-dir", str(DOCS)),
        *("--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "--fresh-env"),
        *("--doctree-dir", str(BUILD / "doctrees"), *(f"--tag={tag}" for tag in tags)),
        *(str(PAGES), str(folder)),
    )


def lead_home(page: Path, address: str) -> None:
    """Make the links of the page for missing pages start at the site's address: servers show it at any path."""
    if address:
        base = f'<head>\n    <base href="{html.escape(address, quote=True)}">'
        page.write_text(page.read_text(encoding="utf-8").replace("<head>", base, 1), encoding="utf-8")


def refuse(what: str, lines: Iterator[str]) -> None:
    """If there are any lines, show them and stop."""
    found = list(lines)
    if found:
        raise SystemExit("\n".join([what, *found]))


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description="Make the documentation site in build/site.")
    parser.add_argument("--no-doctests", action="store_true", help="leave the examples in pages and docstrings out")
    parser.add_argument("--links", action="store_true", help="only follow the links to other sites")
    chosen = parser.parse_args()
    lay_out()
    if chosen.links:
        sphinx("linkcheck", BUILD / "links")
        return
    shutil.rmtree(SITE, ignore_errors=True)  # removes old pages
    demo = ROOT / "build" / "demo"
    has_demo = (demo / "index.html").is_file()
    sphinx("html", SITE, *["demo"] * has_demo)
    lead_home(SITE / "404.html", os.environ.get("NNX_SITE", ""))
    if has_demo:
        shutil.copytree(demo, SITE / "demo", dirs_exist_ok=True)
    (SITE / ".nojekyll").touch()  # else GitHub Pages leaves out folders such as _static
    refuse("Links to nothing:", dead_links())
    if not chosen.no_doctests:
        refuse("Examples fail on:", failures_of_pages())
        refuse("Examples fail in:", failures_of_docstrings())
    print(f"The site is in {SITE.relative_to(ROOT)}: open {SITE / 'index.html'}")


if __name__ == "__main__":
    main()
