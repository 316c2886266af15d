"""Numbers as people write them: 1,234.50 or 1.234,50, $5, 5 EUR, 12 %; and the one notation of a whole column."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from itertools import islice, product
from typing import TypeAlias

import numpy as np

from nnx._base.typing import Array

#: Text of a file, or a value of a Python object.
Cell: TypeAlias = str | int | float

#: Values that are missing, in any case of letters.
GAPS = frozenset({"", "?", "-", "--", ".", "na", "n/a", "#n/a", "nan", "null"})
#: The marks of missing values in all cases of letters.
SPELLED = frozenset("".join(each) for gap in GAPS for each in product(*((c.lower(), c.upper()) for c in gap)))
#: Numbers up to this size have squares and sums that doubles can hold.
LARGEST = 1e100

#: Of so many different values of a column it is tried how they are written.
MOST_TRIED = 5_000

PERCENT = "%"
MINUS = "\u2212"
#: Unicode's currency symbols, with up to three letters before them as in US$; ISO 4217's codes; other usual ones.
SYMBOLS = (
    r"[A-Za-z]{0,3}[$\u00a2-\u00a5\u058f\u060b\u09f2\u09f3\u0af1\u0bf9\u0e3f\u17db\u20a0-\u20c0"
    r"\ufdfc\ufe69\uff04\uffe0\uffe1\uffe5\uffe6]"
)
CODES = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
    "CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD "
    "HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD "
    "MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN "
    "PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY "
    "TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWL"
)
LOCAL = ("kr", "kr.", "zł", "Kč", "Ft", "Fr.", "SFr.", "Rs", "Rs.", "lei", "руб", "руб.")
_UNIT = "|".join([SYMBOLS, *CODES.split(), *map(re.escape, LOCAL)])
WRITTEN = re.compile(
    rf"(?P<sign>[+-]?) ?(?P<before>{_UNIT})? ?(?P<inner>[+-]?)(?P<digits>[0-9.,][0-9., ']*?) ?(?P<after>{_UNIT}|%)?"
)
#: Blanks and apostrophes between thousands come in several characters.
ALIKE = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2019": "'", MINUS: "-"})

DECIMALS = (".", ",")
SEPARATORS = ("", ",", ".", " ", "'")


def is_gap(cell: Cell) -> bool:
    """Return whether a value is missing."""
    return cell.lower() in GAPS if isinstance(cell, str) else cell != cell


def number(cell: Cell) -> float | None:
    """Return the number that a cell is as programs write it; None if it is none, or a size beyond use."""
    try:
        value = float(cell.replace(MINUS, "-") if isinstance(cell, str) else cell)
    except (ValueError, OverflowError):
        return None
    return value if abs(value) <= LARGEST and not (isinstance(cell, str) and "_" in cell) else None


def exact(cell: Cell) -> Decimal | None:
    """Return the exact number that a cell is, by which 1 is 1.0, and two ids of 17 digits are not the same."""
    if number(cell) is None:
        return None
    try:
        return Decimal(str(cell).replace(MINUS, "-"))
    except InvalidOperation:
        return None


@dataclass(frozen=True)
class Notation:
    """How a column writes its numbers."""

    decimal: str = "."
    thousands: str = ""
    unit: str = ""

    def number(self, cell: Cell) -> float | None:
        """Return a cell's number, None if it is none in this notation; a currency may be left out, a percent not."""
        if self == PLAIN or not isinstance(cell, str):
            return number(cell)
        parts = split(cell)
        if parts is None or (parts[1] != self.unit and (parts[1] or self.unit == PERCENT)):
            return None
        return self.value(parts[0])

    def value(self, digits: str) -> float | None:
        """Return the number of a cell without its unit."""
        if not _pattern(self.decimal, self.thousands).fullmatch(digits):
            return None
        return number(digits.replace(self.thousands, "").replace(self.decimal, "."))

    def example(self) -> str:
        """Return a number in this notation."""
        digits = f"1{self.thousands}234{self.decimal}50"
        if self.unit == PERCENT:
            return f"12{self.decimal}5%"
        return f"{self.unit}{' ' if self.unit[-1:].isalpha() else ''}{digits}"


PLAIN = Notation()
MARKS = [(decimal, mark) for decimal, mark in product(DECIMALS, SEPARATORS) if decimal != mark]


@cache
def _pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    mark = re.escape(decimal)
    groups = rf"|[1-9]\d{{0,2}}(?:{re.escape(thousands)}\d{{3}})+" if thousands else ""
    return re.compile(rf"-?(?:(?:\d+{groups})(?:{mark}\d*)?|{mark}\d+)", re.ASCII)


def split(cell: str) -> tuple[str, str] | None:
    """Return a cell's digits, with their sign and the marks between them, and its unit; None if it is no number."""
    found = WRITTEN.fullmatch(cell.translate(ALIKE))
    if found is None or (found["sign"] and found["inner"]) or (found["before"] and found["after"]):
        return None
    sign = "-" if "-" in (found["sign"], found["inner"]) else ""
    return sign + found["digits"], found["before"] or found["after"] or ""


def is_unit(text: str) -> bool:
    """Return whether a text is a currency, a percent sign, or nothing."""
    return text in ("", PERCENT) or re.fullmatch(_UNIT, text) is not None


def looks_like_number(cell: Cell) -> bool:
    """Return whether a cell is a number in any notation."""
    if number(cell) is not None:
        return True
    parts = split(cell) if isinstance(cell, str) else None
    return parts is not None and any(_pattern(*marks).fullmatch(parts[0]) for marks in MARKS)


@dataclass(frozen=True)
class Candidates:
    """The notations that read all of a column, simplest first."""

    notations: tuple[Notation, ...]

    @property
    def ambiguous(self) -> bool:
        """Whether its decimal mark may be a full stop as well as a comma, also because there is none."""
        return len({notation.decimal for notation in self.notations}) > 1

    def choose(self, decimal: str) -> Notation:
        """Return the simplest notation, of those with a decimal mark if there are such."""
        return next((each for each in self.notations if each.decimal == decimal), self.notations[0])


def candidates(cells: Iterable[str]) -> Candidates:
    """Return the notations that read every one of a column's different texts."""
    parts = [split(cell) for cell in cells]
    known = [each for each in parts if each is not None]
    units = {unit for _, unit in known}
    if len(known) < len(parts) or len(units - {""}) > 1 or units > {PERCENT}:
        return Candidates(())
    unit, all_digits = max(units, default=""), {digits for digits, _ in known}
    marks = [each for each in MARKS if all(map(_pattern(*each).fullmatch, all_digits))]
    return Candidates(tuple(Notation(*each, unit) for each in marks))


def most_common(cells: Mapping[str, int], decimal: str) -> Notation:
    """Return the notation that reads most of a column's values, which are given with how often each stands in it."""
    sample = {cell: cells[cell] for cell in islice(cells, 0, None, -(-len(cells) // MOST_TRIED) or 1)}
    units: Counter[str] = Counter()
    for cell, times in sample.items():
        units[(split(cell) or ("", ""))[1]] += times
    options = [PLAIN, *(Notation(*marks, unit) for unit, _ in units.most_common(3) for marks in MARKS)]
    return max(options, key=lambda each: (_n_read(each, sample), each.decimal == decimal))


def _n_read(notation: Notation, cells: Mapping[str, int]) -> int:
    return sum(times for cell, times in cells.items() if notation.number(cell) is not None)


# Whole columns, as programs write them


def numbers_of(cells: Sequence[str]) -> Array | None:
    """Return the numbers of cells as programs write them, NaN for missing values; None if there is something else."""
    values = _floats(cells)
    if values is None:
        cells = ["nan" if cell in SPELLED else cell for cell in cells]
        values = _floats(cells)
    if values is None:
        return _one_by_one(cells)
    unusual = np.flatnonzero(~(np.abs(values) <= LARGEST)).tolist()
    return values if all(is_gap(cells[row].strip()) for row in unusual) else None


def _floats(cells: Sequence[str]) -> Array | None:
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    return None if "_" in "".join(cells) else values  # Python's own notation, in no other's files


def _one_by_one(cells: Sequence[str]) -> Array | None:
    found: dict[str, float] = {}
    for cell in dict.fromkeys(cells):
        text = cell.strip()
        value = math.nan if is_gap(text) else number(text)
        if value is None:
            return None
        found[cell] = value
    return np.array([found[cell] for cell in cells], np.float64)
