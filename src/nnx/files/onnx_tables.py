"""The preparation of a table, or of images, as ONNX operators, and the answers in the target's own terms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnx.data.columns import Date, Number, Text
from nnx.data.dates import EPOCH, MICROSECONDS_OF_A_DAY, WAVES
from nnx.data.images import Images
from nnx.data.notation import SPELLED, exact
from nnx.data.scaling import BOUND, NORMAL, ROBUST, normal_scores
from nnx.data.tables import Table
from nnx.files.onnx_graph import ML, Graph
from nnx.files.onnx_layers import cosine
from nnx.losses import Answers

#: Tables are prepared in double, as `Table.read_inputs` does it.
DOUBLE = np.float64
#: Days from the first of March of the year 0, with which cycles of 400 years begin, to 1970-01-01.
MARCH = EPOCH + 305

#: A part of the network's inputs: the value (n, columns), and which inputs its columns are.
Prepared = tuple[str, list[int]]


def input_names(preprocessor: Table | Images | None) -> list[str]:
    """Return the names of the graph's inputs."""
    if preprocessor is None:
        return ["inputs"]
    if isinstance(preprocessor, Images):
        return ["pixels"]
    return [column.name or "(no name)" for column in preprocessor.inputs]


def prepared(graph: Graph, preprocessor: Table | Images | None, n_inputs: int) -> str:
    """Declare the graph's inputs, and return what the network takes, (n, n_inputs)."""
    if preprocessor is None:
        return graph.input("inputs", graph.dtype, ("batch", n_inputs), "what the network takes")
    graph.scope = "preparation"
    if isinstance(preprocessor, Images):
        return _pixels(graph, preprocessor)
    return _columns(graph, preprocessor)


def _pixels(graph: Graph, images: Images) -> str:
    names = "height, width, 3 of red, green, blue" if images.colour else "height, width"
    pixels = graph.input("pixels", np.uint8, ("batch", *images.shape), f"values from 0 to 255: {names}")
    rows = graph.add("Reshape", graph.cast(pixels, graph.dtype), graph.whole([0, images.n_inputs], "shape"))
    rows = graph.add("Sub", rows, graph.number(images.mean))
    return graph.add("Div", rows, graph.number(images.scale))


def _columns(graph: Graph, table: Table) -> str:
    """Return all columns' inputs: those of one kind are made together."""
    numbers: dict[str, list[tuple[str, int, Number]]] = {}
    days: list[tuple[str, int, Date]] = []
    parts: list[Prepared] = []
    starts = [each.start for each in table.slices.values()]
    for name, start, column in zip(input_names(table), starts, table.inputs, strict=True):
        graph.input(name, str if isinstance(column, Text) else DOUBLE, ("batch", 1), explained(column))
        if isinstance(column, Text):
            parts.append((_category(graph, name, column), [*range(start, start + column.width)]))
        elif isinstance(column, Date):
            days.append((name, start, column))
        else:
            numbers.setdefault(column.scaling, []).append((name, start, column))
    for scaling, group in numbers.items():
        parts += _numbers(graph, scaling, group)
    if days:
        parts += _dates(graph, days)
    return _assembled(graph, parts)


def _assembled(graph: Graph, parts: list[Prepared]) -> str:
    """Return the parts side by side, in the order of the network's inputs."""
    found = _side_by_side(graph, [value for value, _ in parts])
    order = [place for _, places in parts for place in places]
    return found if order == sorted(order) else graph.columns(found, np.argsort(order))


def _side_by_side(graph: Graph, values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else graph.add("Concat", *values, axis=1)


def explained(column: Number | Text | Date) -> str:
    """Return what an input for a column must hold."""
    if isinstance(column, Text):
        return "category, as text; '' for a missing value"
    if isinstance(column, Date):
        return "date and time: days since 1970-01-01, with the time of day as a fraction; NaN for a missing value"
    return f"number{f' in {column.unit}' if column.unit else ''}; NaN for a missing value"


# Numbers


def _numbers(graph: Graph, scaling: str, group: list[tuple[str, int, Number]]) -> list[Prepared]:
    """Return the scaled numbers of columns with one kind of scaling, and the indicators of those that have one."""
    raw = _side_by_side(graph, [name for name, _, _ in group])
    missing = graph.add("IsNaN", raw)
    columns = [column for _, _, column in group]
    if scaling == NORMAL:
        scaled = _side_by_side(graph, [_scores(graph, name, column) for name, _, column in group])
    else:
        scaled = _standardized(graph, raw, [each.mean for each in columns], [each.scale for each in columns])
    if scaling == ROBUST:
        scaled = _smoothly_clipped(graph, scaled)
    parts = [(_filled(graph, scaled, missing), [start for _, start, _ in group])]
    indicated = [number for number, column in enumerate(columns) if column.indicator]
    return parts + _indicators(graph, missing, indicated, [group[number][1] + 1 for number in indicated])


def _standardized(graph: Graph, values: str, means: Sequence[float], scales: Sequence[float]) -> str:
    values = graph.add("Sub", values, graph.constant(np.array(means), "means", DOUBLE))
    return graph.add("Div", values, graph.constant(np.array(scales), "scales", DOUBLE))


def _filled(graph: Graph, values: str, missing: str) -> str:
    """Return numbers of the network's dtype, 0 for missing values."""
    return graph.cast(graph.add("Where", missing, graph.number(0, DOUBLE), values), graph.dtype)


def _indicators(graph: Graph, missing: str, columns: list[int], places: list[int]) -> list[Prepared]:
    return [(graph.cast(graph.columns(missing, columns), graph.dtype), places)] if columns else []


def _smoothly_clipped(graph: Graph, values: str) -> str:
    """Return x / √(1 + (x/3)²)."""
    values = graph.add("Clip", values, graph.number(-1e150, DOUBLE), graph.number(1e150, DOUBLE))
    part = graph.add("Div", values, graph.number(BOUND, DOUBLE))
    square = graph.add("Add", graph.add("Mul", part, part), graph.number(1, DOUBLE))
    return graph.add("Div", values, graph.add("Sqrt", square))


def _scores(graph: Graph, name: str, column: Number) -> str:
    """Return a column's places in a normal distribution: on a line between the two quantiles around a number."""
    line = normal_scores(column.quantiles)
    knots, scores = line.numbers, line.scores
    if len(knots) == 1:
        return graph.add("Add", graph.add("Mul", name, graph.number(0, DOUBLE)), graph.number(scores[0], DOUBLE))
    kept = graph.add("Clip", name, graph.number(knots[0], DOUBLE), graph.number(knots[-1], DOUBLE))
    above = graph.add("GreaterOrEqual", kept, graph.constant(knots[1:-1], "quantiles", DOUBLE))
    place = graph.add("ReduceSum", graph.cast(above, np.int64), graph.whole([1], "axes"), keepdims=1)
    slopes = (scores[1:] - scores[:-1]) / (knots[1:] - knots[:-1])
    low, slope, score = (
        graph.add("Gather", graph.constant(each, each_name, DOUBLE), place, axis=0)
        for each_name, each in (("low", knots[:-1]), ("slopes", slopes), ("scores", scores[:-1]))
    )
    return graph.add("Add", graph.add("Mul", graph.add("Sub", kept, low), slope), score)


# Categories


def _category(graph: Graph, name: str, column: Text) -> str:
    """Return a column's categories one-hot, or as numbers from 1 on; unknown texts are missing, or in the pool."""
    n = len(column.categories)
    codes = _spellings(column.categories)
    if column.pooled:  # else whatever is unknown is missing
        codes = {**{gap: -1 for gap in sorted(SPELLED) if gap not in codes}, **codes}
    code = graph.add(
        "LabelEncoder",
        name,
        domain=ML,
        keys_strings=[text.encode("utf-8", "surrogatepass") for text in codes],
        values_int64s=[*codes.values()],
        default_int64=n if column.pooled else -1,
    )
    if column.as_code:
        return graph.cast(graph.add("Add", code, graph.whole(1, "one")), graph.dtype)
    return graph.cast(graph.add("Equal", code, graph.whole(np.arange(column.width), "codes")), graph.dtype)


def _spellings(categories: Sequence[str]) -> dict[str, int]:
    """Return the code of each category by its text; of numbers, also as programs write them: 1 is 1.0."""
    codes = {text: code for code, text in enumerate(categories)}
    values = [exact(text) for text in categories]
    if None not in values:
        for code, value in enumerate(values):
            number = float(value)  # type: ignore[arg-type]
            if number.is_integer() and abs(number) < 1e15:
                codes.setdefault(f"{number:.0f}", code)
            codes.setdefault(repr(number), code)
    return codes


# Dates


def _dates(graph: Graph, group: list[tuple[str, int, Date]]) -> list[Prepared]:
    """Return the scaled parts of dates, and the indicators of the columns that have one."""
    raw = _side_by_side(graph, [name for name, _, _ in group])
    missing = graph.add("IsNaN", raw)
    parts: list[Prepared] = []
    wanted = [
        (part, number, start + place, column.means[place], column.scales[place])
        for number, (_, start, column) in enumerate(group)
        for place, part in enumerate(column.parts)
    ]
    if wanted:
        found = _parts_of_dates(graph, raw, {part for part, *_ in wanted})
        kinds = [*found]
        every = _side_by_side(graph, [found[kind] for kind in kinds])
        chosen = graph.columns(every, [kinds.index(part) * len(group) + number for part, number, *_ in wanted])
        scaled = _standardized(graph, chosen, [each[3] for each in wanted], [each[4] for each in wanted])
        gaps = graph.columns(missing, [number for _, number, *_ in wanted])
        parts.append((_filled(graph, scaled, gaps), [each[2] for each in wanted]))
    indicated = [number for number, (_, _, column) in enumerate(group) if column.indicator]
    places = [group[number][1] + len(group[number][2].parts) for number in indicated]
    return parts + _indicators(graph, missing, indicated, places)


class _Calendar:
    """Arithmetic with whole numbers in double, as divisions with a remainder."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def number(self, value: float) -> str:
        return self.graph.number(value, DOUBLE)

    def plus(self, a: str, b: str | float) -> str:
        return self.graph.add("Add", a, b if isinstance(b, str) else self.number(b))

    def minus(self, a: str, b: str) -> str:
        return self.graph.add("Sub", a, b)

    def times(self, a: str, b: str | float) -> str:
        return self.graph.add("Mul", a, b if isinstance(b, str) else self.number(b))

    def over(self, a: str, b: float) -> str:
        """Return the quotient, rounded down."""
        return self.graph.add("Floor", self.graph.add("Div", a, self.number(b)))

    def first_day(self, year: str) -> str:
        """Return the days from 1970 to a year's first day."""
        before = self.plus(year, -1)
        leap = self.plus(self.minus(self.over(before, 4), self.over(before, 100)), self.over(before, 400))
        return self.plus(self.plus(self.times(before, 365), leap), 1 - EPOCH)


def _parts_of_dates(graph: Graph, days: str, wanted: set[str]) -> dict[str, str]:
    """Return the wanted parts of days since 1970: `nnx.data.dates.parts_of` in the proleptic Gregorian calendar.

    Years are counted from March on, so that a leap day is a year's last, in cycles of 400 years.
    """
    c = _Calendar(graph)
    moment = graph.add("Round", c.times(days, MICROSECONDS_OF_A_DAY))  # a table knows no less than microseconds
    day = c.over(moment, MICROSECONDS_OF_A_DAY)
    within = c.minus(moment, c.times(day, MICROSECONDS_OF_A_DAY))
    within = graph.add("Div", within, c.number(MICROSECONDS_OF_A_DAY))
    found = {"days": c.plus(day, within), "hour": c.times(within, 24)}
    if "weekday" in wanted:
        shifted = c.plus(day, 3)
        found["weekday"] = c.minus(shifted, c.times(c.over(shifted, 7), 7))
    if wanted & {"year", "month", *WAVES}:
        since = c.plus(day, MARCH)
        cycle = c.over(since, 146_097)
        of_cycle = c.minus(since, c.times(cycle, 146_097))
        leaps = c.minus(
            c.plus(c.minus(of_cycle, c.over(of_cycle, 1460)), c.over(of_cycle, 36_524)), c.over(of_cycle, 146_096)
        )
        year = c.over(leaps, 365)
        days_before = c.minus(c.plus(c.times(year, 365), c.over(year, 4)), c.over(year, 100))
        month = c.over(c.plus(c.times(c.minus(of_cycle, days_before), 5), 2), 153)  # from 0, March, to 11, February
        late = graph.cast(graph.add("GreaterOrEqual", month, c.number(10)), DOUBLE)
        found["month"] = c.minus(c.plus(month, 3), c.times(late, 12))
        found["year"] = c.plus(c.plus(c.times(cycle, 400), year), late)
    if wanted & set(WAVES):
        first = c.first_day(found["year"])
        length = c.minus(c.first_day(c.plus(found["year"], 1)), first)
        angle = graph.add("Div", c.times(c.minus(day, first), 2 * math.pi), length)
        found |= {"sine": graph.add("Sin", angle), "cosine": cosine(graph, angle, DOUBLE)}
    return {part: value for part, value in found.items() if part in wanted}


# Answers


def answered(
    graph: Graph, preprocessor: Table | Images | None, outputs: str, n_outputs: int, answers: Answers, probable: bool
) -> None:
    """Declare the graph's outputs: what the model answers in the target's terms, and what `predict` returns."""
    graph.scope = "answer"
    if preprocessor is None:
        graph.output(outputs, "outputs", graph.dtype, ("batch", n_outputs), "what predict returns")
        return
    if preprocessor.classes is not None:
        _classes(graph, outputs, n_outputs, preprocessor.classes, answers, probable)
        return
    target: Any = preprocessor.target
    chosen = graph.columns(outputs, [answers.begin]) if answers.every > 1 else outputs
    numbers = graph.cast(chosen, DOUBLE)
    if answers.exponential:
        numbers = graph.add("Exp", numbers)
    numbers = graph.add("Mul", numbers, graph.number(target.scale, DOUBLE))
    numbers = graph.add("Add", numbers, graph.number(target.mean, DOUBLE))
    numbers = graph.add("Reshape", numbers, graph.whole([-1], "shape"))
    graph.output(numbers, "prediction", DOUBLE, ("batch",), f"{target.name}, in its own units")
    graph.output(outputs, "outputs", graph.dtype, ("batch", n_outputs), "what predict returns")


def _classes(
    graph: Graph, outputs: str, n_outputs: int, classes: Sequence[str], answers: Answers, probable: bool
) -> None:
    """Declare the names of classes, and their probabilities if outputs are such."""
    if n_outputs == 1:
        limit = graph.number(0 if answers.signs else 0.5)
        number = graph.add("Reshape", graph.cast(graph.add("Greater", outputs, limit), np.int64), graph.whole([-1]))
    else:
        number = graph.add("ArgMax", outputs, axis=1, keepdims=0)
    names = graph.constant(np.array(classes, object), "classes")
    label = graph.add("Gather", names, number, axis=0)
    graph.output(label, "label", str, ("batch",), "the class that is predicted")
    graph.scope = "answer"
    if probable:
        if n_outputs == 1:
            outputs = graph.add("Concat", graph.add("Sub", graph.number(1), outputs), outputs, axis=1)
        graph.output(outputs, "probabilities", graph.dtype, ("batch", len(classes)), "of each class, in their order")
    else:
        graph.output(outputs, "outputs", graph.dtype, ("batch", n_outputs), "what predict returns")
