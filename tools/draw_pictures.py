"""Run the examples, and keep their pictures, in a small size, in examples/pictures.

python -m pip install '.[plot,images]' && python tools/draw_pictures.py [EXAMPLE ...]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from pictures import keep_small
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"

chosen = sys.argv[1:] or sorted(path.stem for path in EXAMPLES.glob("*.py"))
for name in chosen:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], cwd=folder, check=True)
        for path in Path(folder).glob("*.png"):
            with Image.open(path) as picture:
                keep_small(picture, EXAMPLES / "pictures" / path.name)
