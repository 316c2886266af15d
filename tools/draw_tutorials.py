"""Run the tutorials: write what their code prints into the pages, and what it draws into docs/pictures/tutorials.

python -m pip install '.[plot,images,sklearn]' pandas && python tools/draw_tutorials.py [--check] [PAGE ...]

PAGE is a name such as first-network. Without names, the script runs all pages. With --check, it does not change the
pages, and says where they differ. Blocks that need Fashion-MNIST run where NNX_DATA_HOME has it.
"""

import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

import matplotlib
from pictures import keep_small
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
import pages  # noqa: E402

PICTURES = ROOT / "docs" / "pictures" / "tutorials"


def with_output(page: str, block: pages.Block, printed: str) -> str:
    """Return a page that shows the output of each block right after it."""
    fenced = f"```text\n{printed.rstrip()}\n```"
    before = f"```python\n{block.code}```"
    assert page.count(before) == 1, before
    if block.shown is None:
        return page.replace(before, f"{before}\n\n{fenced}")
    return page.replace(f"{before}\n\n```text\n{block.shown}```", f"{before}\n\n{fenced}")


def main(check: bool, names: list[str]) -> None:
    """Run the pages with these names."""
    matplotlib.use("Agg")
    warnings.simplefilter("error")
    data = Path(os.environ.get("NNX_DATA_HOME", "/nowhere"), "fashion-mnist").exists()
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.md")):
        if path.stem == "index" or (names and path.stem not in names):
            continue
        page = text = path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            Path("rents.csv").write_bytes((ROOT / "examples" / "rents.csv").read_bytes())
            for block, printed in pages.run(page, path.name, data=data):
                if not pages.same(block.shown or "", printed):
                    print(f"{path.name}:{block.line}: prints\n{printed}")
                    text = with_output(text, block, printed)
            for name in [] if check else re.findall(r"\]\(\.\./pictures/tutorials/(.+?)\)", page):
                with Image.open(name) as picture:
                    keep_small(picture, PICTURES / name, Page=path.name)
            os.chdir(ROOT)
        if not check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    chosen = [word for word in sys.argv[1:] if word != "--check"]
    main("--check" in sys.argv, chosen)
