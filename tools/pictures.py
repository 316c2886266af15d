"""Writes pictures of the repository: small, with a palette."""

from pathlib import Path

from PIL import Image, PngImagePlugin

WIDTH, COLOURS = 1040, 256


def keep_small(picture: Image.Image, path: Path, **texts: str) -> None:
    """Write a picture of at most WIDTH columns and COLOURS colours, with texts in its file, and print its size."""
    small = picture.convert("RGB")
    small.thumbnail((WIDTH, 2 * WIDTH))
    # A palette that covers all shades: one of the most frequent would leave bands in colour bars.
    few = small.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    information = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        information.add_text(name, text)
    few.save(path, optimize=True, pnginfo=information)
    print(f"{path.name}: {path.stat().st_size:,} bytes")
