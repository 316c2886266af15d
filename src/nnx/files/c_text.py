"""C source as text: numbers, arrays, strings and comments, and what one file of it collects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from nnx._base.typing import Array

#: Letters of a line of numbers, about.
WIDTH = 100
#: C's types of the arrays that there may be, and the bytes that a number of each takes.
TYPES = {"float": 4, "double": 8, "int8_t": 1, "int32_t": 4}
#: Numbers nearer to 0 are 0, as they are for compiled kernels, and no compiler warns of them.
LEAST = float(np.finfo(np.float32).tiny)


class Unit:
    """One C file in the making: its functions and constants, each of them once.

    Parameters
    ----------
    name : str
        What all its names begin with.
    int8 : bool
        Whether weights are kept in 8 bits.
    """

    def __init__(self, name: str, int8: bool) -> None:
        self.name, self.int8 = name, int8
        #: The definitions of functions that networks call, by name.
        self.functions: dict[str, str] = {}
        self.constants: list[str] = []
        #: How many bytes the constants take.
        self.n_bytes = 0
        self._known: dict[tuple[str, bytes], str] = {}

    def named(self, text: str) -> str:
        """Return text with this file's name in place of each ``@``."""
        return text.replace("@", f"{self.name}_")

    def function(self, name: str, source: str) -> str:
        """Return the name here of a function, which is defined from now on."""
        self.functions.setdefault(name, self.named(source.strip("\n")))
        return self.named(f"@{name}")

    def array(self, kind: str, values: Array, label: str) -> str:
        """Return the name here of a constant array; equal ones are kept once."""
        flat = np.ascontiguousarray(values).reshape(-1)
        key = kind, flat.tobytes()
        if key not in self._known:
            self._known[key] = self.named(f"@{label}_{len(self._known)}")
            numbers = integers(flat) if kind.startswith("int") else floats(flat, kind == "double")
            self.constants.append(f"static const {kind} {self._known[key]}[{flat.size}] = {{\n{lines(numbers)}}};")
            self.n_bytes += flat.size * TYPES[kind]
        return self._known[key]


def floats(values: Array, double: bool = False) -> list[str]:
    """Return numbers as C has them, in the fewest digits that give their bits."""
    kept = values if double else np.where(np.abs(values) < LEAST, np.copysign(values.dtype.type(0), values), values)
    return [text if double else f"{text}f" for text in kept.astype("U").tolist()]


def integers(values: Array) -> list[str]:
    """Return whole numbers as C has them."""
    return list(map(str, values.tolist()))


def number(value: float) -> str:
    """Return a setting as a number of C's type float."""
    return floats(np.array([value], np.float32))[0]


def lines(numbers: Sequence[str]) -> str:
    """Return numbers with commas, in lines of some width."""
    each = max(1, WIDTH // (2 + max(map(len, numbers))))
    rows = (numbers[start : start + each] for start in range(0, len(numbers), each))
    return "".join(f"    {', '.join(row)},\n" for row in rows)


def comment(text: str) -> str:
    """Return text that comes from outside as it may stand in a comment: one line of plain letters that ends none."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text).encode("ascii", "backslashreplace")
    return re.sub(r"(?<=[*/])(?=[*/])", " ", plain.decode()).replace("??", "? ?").rstrip("\\")


def string(text: str) -> str:
    """Return a text as C has it, in UTF-8; what is not plain is an octal escape."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "surrogatepass")
    )
    return f'"{plain}"'


def block(paragraphs: Iterable[str]) -> str:
    """Return lines as one comment."""
    inner = "\n".join(f" * {line}".rstrip() for line in paragraphs)
    return f"/*{inner[2:]}\n */"


def identifier(text: Any) -> bool:
    """Return whether C can call something so."""
    return isinstance(text, str) and re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,30}", text) is not None
