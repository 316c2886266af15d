"""Blocks of CSV text, and where rows end in them if quotes stand where the format has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nnx._base.typing import Array

QUOTE, NEWLINE, RETURN = b'"\n\r'
#: Bytes of a blank line, with its end.
BLANK = 2


def whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks that end where lines end, but for the last."""
    rest: list[bytes] = []
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, block[:end]])
            rest = []
        rest.append(block[end:])
    last = b"".join(rest)
    if last:
        yield last


def after_lines(block: bytes, n_lines: int) -> int | None:
    """Return where the bytes after some lines begin; None if it is not certain what a line is, or they are too few."""
    end = 0
    for _ in range(n_lines):
        end = block.find(b"\n", end) + 1
        if not end:
            return None
    return None if _has_lone_return(block[:end]) else end


@dataclass(frozen=True)
class RowEnds:
    """Where the rows of a block end.

    Attributes
    ----------
    of_rows : integer array (rows,)
        The places of the bytes that end them.
    lines : integer array (rows,)
        The lines, counted from 1, that they end in.
    """

    of_rows: Array
    lines: Array

    @property
    def n_lines(self) -> int:
        """How many lines the rows have."""
        return int(self.lines[-1]) if len(self.lines) else 0


def row_ends(block: bytes, delimiter: str) -> RowEnds | None:
    """Return where rows end in a block that begins with one; None if its quotes may mean more than one thing.

    Quotes are certain if each one that opens stands at the beginning of a cell, each one that closes at its end, and
    two stand for one within. They are counted from the block's beginning.
    """
    text = np.frombuffer(block, np.uint8)
    newlines = np.flatnonzero(text == NEWLINE)
    if b'"' not in block:
        return RowEnds(newlines, np.arange(1, len(newlines) + 1))
    quotes = np.flatnonzero(text == QUOTE)
    outside = np.searchsorted(quotes, newlines) % 2 == 0
    found = RowEnds(newlines[outside], np.flatnonzero(outside) + 1)
    used = quotes[: np.searchsorted(quotes, found.of_rows[-1])] if len(found.of_rows) else quotes[:0]
    before, after = text[used[0::2] - 1], text[used[1::2] + 1]  # a row's end stands after the last
    before[used[0::2] == 0] = NEWLINE
    opens = np.isin(before, [ord(delimiter), NEWLINE, QUOTE])
    closes = np.isin(after, [ord(delimiter), NEWLINE, RETURN, QUOTE])
    return found if opens.all() and closes.all() else None


def is_certain(block: bytes, ends: RowEnds, longest: int) -> bool:
    """Return whether every reader takes the same lines for rows: none is blank, odd or longer than so many bytes."""
    lengths = np.diff(ends.of_rows, prepend=-1)
    return bool(
        lengths.min() > BLANK and lengths.max() <= longest and b"\0" not in block and not _has_lone_return(block)
    )


def _has_lone_return(block: bytes) -> bool:
    return b"\r" in block and block.count(b"\r") != block.count(b"\r\n")
