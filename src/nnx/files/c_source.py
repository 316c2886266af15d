"""A model as one C file. `nnx.model` and `nnx.ensemble` call this; docs/guide/c-source.md says what it promises."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from nnx._base import check
from nnx._base.files import replacing
from nnx._base.network import Network
from nnx._base.text import abridged
from nnx._base.typing import Path
from nnx.data.images import Images
from nnx.data.tables import Table
from nnx.files import c_tables
from nnx.files.c_network import as_float32, function_of, single_networks
from nnx.files.c_text import Unit, block, comment, identifier
from nnx.files.model_files import preprocessor_of
from nnx.losses import AS_THEY_ARE, Answers, answers

MAIN = """
#ifdef MAIN

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* Reads the next number of a row into *value, NAN for nothing or "nan"; returns what ends it: a comma, a newline, EOF;
 * -2 for what is no number. */
static int @cell(double *value)
{
    char text[64], *end;
    int n = 0, letter = getchar();
    for (; letter != ',' && letter != '\\n' && letter != EOF; letter = getchar())
        if (!isspace(letter)) {
            if (n == (int)sizeof text - 1) return -2;
            text[n++] = (char)letter;
        }
    text[n] = 0;
    *value = n ? strtod(text, &end) : NAN;
    return n && *end ? -2 : letter;
}

int main(void)
{
    static @ROW_t row[@N_ROW];
    static float @DECLARED;
    for (long line = 1;; line++) {
        int n = 0, end;
        double value = NAN;
        do {
            end = @cell(&value);
            if (end == EOF && n == 0 && value != value) return 0;
            if (n == @N_ROW) end = -2;
            if (end != -2) row[n++] = @CAST;
        } while (end == ',');
@BLANK        if (n < @N_ROW || (end != '\\n' && end != EOF)) {
            fprintf(stderr, "line %ld must hold @N_ROW numbers with commas between them\\n", line);
            return 1;
        }
@BODY
    }
}

#endif
"""


def write(
    where: str,
    path: Path,
    members: Sequence[Sequence[Any]],
    weights: Sequence[float],
    model: Network | None,
    int8: bool,
    name: str | None,
) -> None:
    """Write a C file that predicts what a model does, or the weighted mean of several.

    Parameters
    ----------
    path : path-like
        It is replaced as a whole or not at all.
    members : sequences of parts
        Of each predictor: tuples of kind, values, n_in and n_out.
    weights : sequence of float
        How much each counts; the sum is 1.
    model : Model or None
        What tells what outputs mean, by its table or images, its loss and its last layer.
    int8 : bool
        Whether weights are kept in 8 bits.
    name : str or None
        What all names in the file begin with; without it, the file's name.
    """
    path = check.path(where, "path", path)
    check.flag(where, "int8", int8)
    preprocessor, said = None, AS_THEY_ARE
    if model is not None and model.preprocessor is not None:
        preprocessor_of(where, model)  # refuses one that does not fit
        preprocessor = model.preprocessor
        predicts = "numbers" if preprocessor.classes is None else "classes"
        said = answers(model.loss, model.output_layer_activation, predicts)
    text = source(where, members, weights, preprocessor, said, int8, _checked_name(where, path, name))
    with replacing(where, path) as file:
        file.write(text.encode("ascii"))


def _checked_name(where: str, path: str, name: str | None) -> str:
    if name is None:
        stem = os.path.basename(path).partition(".")[0]
        name = re.sub("[^A-Za-z0-9_]", "_", stem).strip("_")[:31] or "model"
        return name if identifier(name) else f"model_{name}"[:31]
    if not identifier(name):
        raise ValueError(
            f"{where}: name must be a valid C name of up to 31 letters, digits and underscores, got {abridged(name)}."
        )
    return name


def source(
    where: str,
    members: Sequence[Sequence[Any]],
    weights: Sequence[float],
    preprocessor: Table | Images | None,
    said: Answers,
    int8: bool,
    name: str,
) -> str:
    """Return the text of a file; the arguments are those of `write`, checked, and what ``said`` the outputs say."""
    unit = Unit(name, int8)
    apart = [single_networks(parts) for parts in members]
    weights = [weight / len(own) for weight, own in zip(weights, apart, strict=True) for _ in own]
    networks = [as_float32(where, parts) for own in apart for parts in own]
    n_inputs, n_outputs = networks[0][0][2], networks[0][-1][3]
    table = preprocessor if isinstance(preprocessor, Table) else None
    heads = {"predict": f"void {name}_predict(const float *inputs, float *outputs)"}
    functions, n_stack = _predicting(unit, networks, weights, n_outputs, heads["predict"])
    row = None
    if table is not None:
        row = c_tables.prepared(unit, table.inputs)
        heads["prepare"] = f"void {name}_prepare(const double *row, float *inputs)"
        functions.append(_body(heads["prepare"], row.statements))
    answer = _answer(unit, preprocessor, said, n_outputs, heads)
    functions += [answer] if answer else []
    about = _about(unit, networks, preprocessor, row, heads, n_stack)
    parts = [
        block(about),
        "#include <math.h>\n#include <stddef.h>\n#include <stdint.h>",
        "\n".join(f"{head};" for head in heads.values()),
        *unit.constants,
        *unit.functions.values(),
        *functions,
        _main(unit, row, n_inputs, n_outputs, preprocessor),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _body(head: str, statements: Sequence[str]) -> str:
    return f"{head}\n{{\n" + "".join(f"    {line}\n" for line in statements) + "}"


def _predicting(
    unit: Unit, networks: Sequence[Any], weights: Sequence[float], n_outputs: int, head: str
) -> tuple[list[str], int]:
    """Return the functions that lead from inputs to outputs, and the bytes of numbers that they have on the stack."""
    if len(networks) == 1:
        function, n_stack = function_of(unit, networks[0], head)
        return [function], n_stack
    functions, stacks, calls = [], [], []
    for number, (parts, weight) in enumerate(zip(networks, weights, strict=True)):
        own = f"{unit.name}_member_{number}"
        function, n_stack = function_of(unit, parts, f"static void {own}(const float *inputs, float *outputs)")
        functions.append(function)
        stacks.append(n_stack)
        calls += [
            f"{own}(inputs, outputs);",
            f"for (int i = 0; i < {n_outputs}; i++) total[i] += {float(weight)!r} * (double)outputs[i];",
        ]
    calls.insert(0, f"double total[{n_outputs}] = {{0}};")
    calls.append(f"for (int i = 0; i < {n_outputs}; i++) outputs[i] = (float)total[i];")
    return [*functions, _body(head, calls)], max(stacks) + 8 * n_outputs


def _answer(
    unit: Unit, preprocessor: Table | Images | None, said: Answers, n_outputs: int, heads: dict[str, str]
) -> str:
    """Return the definition of the function that says what outputs mean, "" if nothing is known of that."""
    if preprocessor is None:
        return ""
    if preprocessor.classes is None:
        heads["answer"] = f"double {unit.name}_answer(const float *outputs)"
        return c_tables.number_of(preprocessor.target, said, heads["answer"])
    heads["answer"] = f"const char *{unit.name}_answer(const float *outputs)"
    return c_tables.class_name(unit, preprocessor.classes, n_outputs, said, heads["answer"])


def _about(
    unit: Unit,
    networks: Sequence[Any],
    preprocessor: Table | Images | None,
    row: c_tables.Row | None,
    heads: dict[str, str],
    n_stack: int,
) -> list[str]:
    """Return the lines of the comment at the file's head."""
    n_inputs, n_outputs = networks[0][0][2], networks[0][-1][3]
    mean_of = f"the mean of {len(networks)} networks, " if len(networks) > 1 else ""
    found = [
        f"{unit.name}: {mean_of}{_count(n_inputs, 'input')}, {_count(n_outputs, 'output')}. Written by nnx.",
        "",
    ]
    found += [f"    {line}" for line in dict.fromkeys(map(_layers, networks))]
    found += [
        "",
        "C99 with math.h, nothing else. Compile this file with your program, and declare there:",
        "",
        *[f"    {head};" for head in heads.values()],
        "",
        f"Memory: {unit.n_bytes:,} bytes of constants; on the stack {n_stack:,} of numbers between layers, and some",
        "200 for calls. Nothing is allocated, and nothing is kept: any number of threads may call these functions.",
        "inputs and outputs must not overlap. Outputs that depend on an input that is NAN are NAN.",
    ]
    if unit.int8:
        found += ["", "Weights are whole numbers of 8 bits, each column with a scale of its own."]
    if isinstance(preprocessor, Images):
        colours = "red, green and blue of each pixel" if preprocessor.colour else "the grey of each pixel"
        found += [
            "",
            f"inputs are (value - {preprocessor.mean!r}) / {preprocessor.scale!r} of {colours}, from 0 to 255, of an",
            f"image of {preprocessor.height} rows of {preprocessor.width}, row after row.",
        ]
    if row is not None:
        found += [
            "",
            "prepare makes inputs of a row of the table, which has NAN for what is missing:",
            "",
        ]
        found += [f"    {cell}" for cell in row.cells]
        if any(cell.startswith(" ") for cell in row.cells):
            found += ["", "Any other number in place of a category is taken for a missing one."]
    if preprocessor is not None:
        is_number = isinstance(preprocessor, Table) and preprocessor.classes is None
        target = preprocessor.target.name if isinstance(preprocessor, Table) else "the class"
        of_class = "the number" if is_number else "the name of the class, or 0 if outputs are not finite"
        found += ["", f"answer returns what outputs say of {comment(target)}: {of_class}."]
    reads = "rows as prepare takes them" if row is not None else "rows of inputs"
    found += [
        "",
        f"Compiled with -DMAIN and linked with -lm, it is a program that reads {reads} from standard input,",
        f"one in a line with commas between numbers, and writes outputs{' and answer' if preprocessor else ''}.",
    ]
    return found


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def _layers(parts: Sequence[Any]) -> str:
    """Return a network's layers in one line."""
    words = []
    for kind, _, n_in, n_out in parts:
        words.append({"fork": "(", "join": ")"}.get(kind, f"{kind} {n_in}-{n_out}" if n_in != n_out else kind))
        if kind == "dense" and n_in == n_out:
            words[-1] = f"dense {n_in}-{n_out}"
    return ", ".join(words).replace("(, ", "x + (").replace(", )", ")")


def _main(
    unit: Unit, row: c_tables.Row | None, n_inputs: int, n_outputs: int, preprocessor: Table | Images | None
) -> str:
    """Return the program that the file is with -DMAIN."""
    given = "inputs" if row is not None else "row"
    calls = ["@prepare(row, inputs);"] if row is not None else []
    calls += [
        f"@predict({given}, outputs);",
        f'for (n = 0; n < {n_outputs}; n++) printf(n ? ",%.9g" : "%.9g", (double)outputs[n]);',
    ]
    if isinstance(preprocessor, Table) and preprocessor.classes is None:
        calls.append('printf(",%.17g", @answer(outputs));')
    elif preprocessor is not None:
        calls += ["const char *answer = @answer(outputs);", 'printf(",%s", answer ? answer : "");']
    calls.append("putchar('\\n');")
    n_row = n_inputs if row is None else sum(not cell.startswith(" ") for cell in row.cells)
    declared = f"outputs[{n_outputs}]" if row is None else f"inputs[{n_inputs}], outputs[{n_outputs}]"
    blank = "        if (n == 1 && end == '\\n' && value != value) continue; /* a blank line */\n" if n_row > 1 else ""
    text = (
        MAIN.replace("@BLANK", blank)
        .replace("@ROW_t", "float" if row is None else "double")
        .replace("@N_ROW", str(n_row))
    )
    text = text.replace("@DECLARED", declared).replace("@CAST", "(float)value" if row is None else "value")
    return unit.named(text.replace("@BODY", "\n".join(f"        {call}" for call in calls)))
