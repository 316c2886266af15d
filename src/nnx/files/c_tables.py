"""What comes before and after a network in C: rows of a table as inputs, outputs as names of classes or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnx.data import dates
from nnx.data.columns import Date, Number, Text
from nnx.data.scaling import NORMAL, ROBUST, normal_scores
from nnx.files.c_text import Unit, comment, string
from nnx.losses import Answers

STANDARD_C = """
/* A number of a row, scaled; 0 for a missing one. */
static float @standard(double value, double mean, double scale)
{
    return value != value ? 0 : (float)((value - mean) / scale);
}
"""

ROBUST_C = """
/* A number of a row, scaled, nearly x where that is small and never beyond 3; 0 for a missing one. */
static float @robust(double value, double median, double scale)
{
    const double x = fmax(-1e150, fmin(1e150, (value - median) / scale));
    return value != value ? 0 : (float)(x / hypot(1, x / 3));
}
"""

NORMAL_C = """
/* A number of a row, by a line through n points; 0 for a missing one. */
static float @normal(double value, const double *numbers, const double *scores, int n)
{
    if (value != value) return 0;
    if (value <= numbers[0]) return (float)scores[0];
    if (value >= numbers[n - 1]) return (float)scores[n - 1];
    int low = 0, high = n - 1;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (numbers[middle] <= value) low = middle; else high = middle;
    }
    const double slope = (scores[high] - scores[low]) / (numbers[high] - numbers[low]);
    return (float)(slope * (value - numbers[low]) + scores[low]);
}
"""

#: Parts in the order of `nnx.data.dates.PARTS`.
DATE_C = """
/* How many days after 1970-01-01 a year begins. */
static int32_t @new_year(int32_t year)
{
    const int32_t before = year - 1;
    return 365 * before + before / 4 - before / 100 + before / 400 - 719162;
}

/* A part of a date: days since 1970 with their fraction, year, month, weekday from 0 on Monday, sine and cosine of the
 * day's place in its year, hour with its fraction; NAN outside of the years 1 to 9999. */
static double @date(double days, int part)
{
    static const int8_t lengths[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (!(days >= -719162 && days < 2932897)) return NAN;
    const int32_t day = (int32_t)floor(days);
    int32_t year = 1970 + day / 366, month = 0, left;
    while (@new_year(year) > day) year--;
    while (@new_year(year + 1) <= day) year++;
    const int32_t in_year = day - @new_year(year), length = @new_year(year + 1) - @new_year(year);
    for (left = in_year; month < 11 && left >= lengths[month] + (month == 1 && length == 366); month++)
        left -= lengths[month] + (month == 1 && length == 366);
    const double angle = 6.283185307179586 * in_year / length;
    switch (part) {
    case 0: return days;
    case 1: return year;
    case 2: return month + 1;
    case 3: return (day + 719169) % 7;
    case 4: return sin(angle);
    case 5: return cos(angle);
    default: return 24 * (days - day);
    }
}
"""

ONE_HOT_C = """
/* A category of a row: 1 in its place among n, 0 in all others; 0 in all for one that there is not. */
static void @one_hot(double value, int n, float *inputs)
{
    for (int i = 0; i < n; i++) inputs[i] = value == i;
}
"""

CODE_C = """
/* A category of a row: its number from 1 to n; 0 for one that there is not. */
static float @code(double value, int n)
{
    return value >= 0 && value < n && value == floor(value) ? (float)(value + 1) : 0;
}
"""

NAME_C = """
{head}
{{
    int best = 0;
    for (int i = 0; i < {n_outputs}; i++) {{
        if (!(outputs[i] - outputs[i] == 0)) return 0; /* not finite */
        if (outputs[i] > outputs[best]) best = i;
    }}
    return @classes[best];
}}
"""

NAME_OF_TWO_C = """
{head}
{{
    if (!(outputs[0] - outputs[0] == 0)) return 0; /* not finite */
    return @classes[outputs[0] > {limit}];
}}
"""


class Row:
    """How a table's row becomes inputs: what the row holds, for a comment, and statements."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.statements: list[str] = []
        self.n_inputs = 0


def prepared(unit: Unit, columns: Sequence[Number | Text | Date]) -> Row:
    """Return how a table's columns become inputs."""
    row = Row()
    for column in columns:
        if isinstance(column, Number):
            _number(unit, row, column)
        elif isinstance(column, Text):
            _text(unit, row, column)
        else:
            _date(unit, row, column)
    return row


def _number(unit: Unit, row: Row, column: Number) -> None:
    value, given = _cell(row, f"{comment(column.name)}: a number"), row.n_inputs
    if column.scaling == NORMAL:
        scores = normal_scores(column.quantiles)
        arrays = unit.array("double", scores.numbers, "numbers"), unit.array("double", scores.scores, "normal")
        call = f"{unit.function('normal', NORMAL_C)}({value}, {', '.join(arrays)}, {len(scores.numbers)})"
    else:
        robust = column.scaling == ROBUST
        function = unit.function("robust", ROBUST_C) if robust else unit.function("standard", STANDARD_C)
        call = f"{function}({value}, {column.mean!r}, {column.scale!r})"
    row.statements.append(f"inputs[{given}] = {call}; /* {comment(column.name)} */")
    if column.indicator:
        row.statements.append(f"inputs[{given + 1}] = {value} != {value};")
    row.n_inputs += column.width


def _text(unit: Unit, row: Row, column: Text) -> None:
    value = _cell(row, f"{comment(column.name)}: the number of its category")
    row.cells += [f"    {number} {comment(string(category))}" for number, category in enumerate(column.categories)]
    n = len(column.categories)
    if column.pooled:
        row.cells.append(f"    {n} any other text")
        n += 1
    if column.as_code:
        call = f"inputs[{row.n_inputs}] = {unit.function('code', CODE_C)}({value}, {n});"
    else:
        call = f"{unit.function('one_hot', ONE_HOT_C)}({value}, {n}, inputs + {row.n_inputs});"
    row.statements.append(f"{call} /* {comment(column.name)} */")
    row.n_inputs += column.width


def _date(unit: Unit, row: Row, column: Date) -> None:
    value = _cell(row, f"{comment(column.name)}: a date, in days since 1970-01-01 with their fraction, of 0001 to 9999")
    standard, part_of = unit.function("standard", STANDARD_C), unit.function("date", DATE_C)
    for part, mean, scale in zip(column.parts, column.means, column.scales, strict=True):
        call = f"{standard}({part_of}({value}, {dates.PARTS.index(part)}), {mean!r}, {scale!r})"
        row.statements.append(f"inputs[{row.n_inputs}] = {call}; /* {comment(column.name)}: {part} */")
        row.n_inputs += 1
    if column.indicator:
        row.statements.append(f"inputs[{row.n_inputs}] = {part_of}({value}, 0) != {part_of}({value}, 0);")
        row.n_inputs += 1


def _cell(row: Row, text: str) -> str:
    place = sum(not cell.startswith(" ") for cell in row.cells)
    row.cells.append(f"row[{place}] {text}")
    return f"row[{place}]"


def class_name(unit: Unit, classes: Sequence[str], n_outputs: int, said: Answers, head: str) -> str:
    """Return the definitions of the names of classes, and of the function that returns that of outputs."""
    names = "".join(f"    {string(name)},\n" for name in classes)
    unit.n_bytes += sum(len(name.encode("utf-8", "surrogatepass")) + 1 for name in classes)
    constants = f"static const char *const {unit.name}_classes[{len(classes)}] = {{\n{names}}};\n"
    if n_outputs == 1:
        return constants + unit.named(NAME_OF_TWO_C.format(head=head, limit="0" if said.signs else "0.5f"))
    return constants + unit.named(NAME_C.format(head=head, n_outputs=n_outputs))


def number_of(target: Any, said: Answers, head: str) -> str:
    """Return the definition of the function that returns what outputs say as a number in the target's units."""
    chosen = f"(double)outputs[{said.begin}]"
    value = f"exp({chosen})" if said.exponential else chosen
    return f"{head}\n{{\n    return {value} * {target.scale!r} + {target.mean!r};\n}}"
