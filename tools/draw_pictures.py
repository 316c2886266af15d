"""Run the examples and keep the pictures that they draw, small, in examples/pictures.

python -m pip install '.[plot,images]' && python tools/draw_pictures.py [EXAMPLE ...]
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
WIDTH, COLOURS = 1040, 256

chosen = sys.argv[1:] or sorted(path.stem for path in EXAMPLES.glob("*.py"))
for name in chosen:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], cwd=folder, check=True)
        for path in Path(folder).glob("*.png"):
            with Image.open(path) as picture:
                small = picture.convert("RGB")
                small.thumbnail((WIDTH, WIDTH))
                # A palette that covers all shades: one of the most frequent would leave bands in colour bars.
                few = small.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
                few.save(EXAMPLES / "pictures" / path.name, optimize=True)
            print(f"{path.name}: {(EXAMPLES / 'pictures' / path.name).stat().st_size:,} bytes")
