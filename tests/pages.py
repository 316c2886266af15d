"""Pages with code: their blocks, the output of running them, and the comparison with the output on the page."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

#: A line before a block whose data must be downloaded first.
NEEDS_DATA = "<!-- needs data -->"
FENCE = re.compile(rf"(?P<data>{NEEDS_DATA}\n\n)?^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


class Block(NamedTuple):
    """A block of a page, and the text that the page shows right after it, if any."""

    kind: str
    code: str
    shown: str | None
    needs_data: bool
    line: int


def blocks(page: str) -> list[Block]:
    """Return a page's blocks in their order. Blocks of text that show an output belong to the block before."""
    found = list(FENCE.finditer(page))
    result = []
    for match, following in zip(found, [*found[1:], None], strict=True):
        if match["kind"] == "text":
            continue
        shown = None
        if following and following["kind"] == "text" and not page[match.end() : following.start()].strip():
            shown = following["body"]
        line = page.count("\n", 0, match.start("body"))
        result.append(Block(match["kind"], match["body"], shown, match["data"] is not None, line))
    return result


def run(page: str, name: str, *, data: bool) -> Iterator[tuple[Block, str]]:
    """Run a page's Python blocks in one namespace, one after the other. Yield each with its output."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.kind == "python" and (data or not block.needs_data):
            printed = io.StringIO()
            code = compile("\n" * block.line + block.code, name, "exec")  # so that a traceback names the page's line
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
            yield block, printed.getvalue()


def same(shown: str, printed: str) -> bool:
    """Return whether a page shows what was printed.

    Words and small whole numbers must be the same. Decimals may differ by 1 in their last place or by 5 percent, whole
    numbers from 100 on by 5 percent, as rounding differs among processors. ``...`` stands for anything within a line.
    """
    left, right = shown.rstrip().splitlines(), printed.rstrip().splitlines()
    return len(left) == len(right) and all(map(_same_line, left, right))


def _same_line(shown: str, printed: str) -> bool:
    words = [r"\s*".join(map(re.escape, NUMBER.sub(" # ", part).split())) for part in shown.split("...")]
    found = re.fullmatch(r"\s*" + r"\s*.*?\s*".join(words) + r"\s*", NUMBER.sub(" # ", printed))
    if found is None:
        return False
    if "..." in shown:
        return True
    return all(map(_same_number, NUMBER.findall(shown), NUMBER.findall(printed)))


def _same_number(shown: str, printed: str) -> bool:
    left, right = (float(text.replace(",", "")) for text in (shown, printed))
    if "." not in shown and "e" not in shown and abs(left) < 100:
        return left == right
    places = len(shown.partition(".")[2].partition("e")[0])
    return abs(left - right) <= max(1.1 * 10.0**-places if places else 0.0, 0.05 * abs(left))
