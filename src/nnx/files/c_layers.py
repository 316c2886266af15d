"""Layers in C: for each kind of part of a predictor the function that computes it, and the call of that function.

Functions take the numbers of one sample, ``x``, and write ``y``. Where both have as many columns, ``y`` may be ``x``.
Sums run in the order of the compiled kernels of wide layers: from the bias on, one input after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nnx._base.typing import Array
from nnx.files.c_text import Unit, number

#: How a part is computed: called with the file, the part's values, its sizes, and what it reads and writes in C.
Translation = Callable[[Unit, tuple[Any, ...], tuple[int, int], str, str], str]

#: The largest sum of a product in 8 bits.
MAX_SUM = (1 << 31) - 1

# Functions. An @ stands for the file's name.

MADD = """
/* a * b + c, rounded once where the processor can do that as fast. */
#ifdef FP_FAST_FMAF
#define @MADD(a, b, c) fmaf(a, b, c)
#else
#define @MADD(a, b, c) ((a) * (b) + (c))
#endif
"""

DENSE = """
/* y := x * w + b */
static void @dense(const float *restrict x, const float *restrict w, const float *restrict b,
                   int n_in, int n_out, float *restrict y)
{
    for (int j = 0; j < n_out; j++) y[j] = b[j];
    for (int i = 0; i < n_in; i++, w += n_out) {
        const float a = x[i];
        if (a != 0) /* half of them are 0 behind a ReLU */
            for (int j = 0; j < n_out; j++) y[j] = @MADD(a, w[j], y[j]);
    }
}
"""

DENSE_INT8 = """
/* y := x * w + b. A column of w is whole numbers w times its scale s. So is x, of the row's own scale: whole numbers up
 * to top, which is such that no sum overflows. */
static void @dense(const float *restrict x, const int8_t *restrict w, const float *restrict s, const float *restrict b,
                   int n_in, int n_out, int16_t top, int16_t *restrict whole, float *restrict y)
{
    float largest = 0, odd = 0;
    for (int i = 0; i < n_in; i++) {
        if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
        odd += x[i] - x[i]; /* NaN for NaN and infinity, else 0 */
    }
    const float step = largest / top, per_step = step > 1e-37f ? 1 / step : 0;
    for (int i = 0; i < n_in; i++) whole[i] = odd == 0 ? (int16_t)lrintf(x[i] * per_step) : 0;
    for (int j = 0; j < n_out; j++, w += n_in) {
        int32_t sum = 0;
        for (int i = 0; i < n_in; i++) sum += (int32_t)whole[i] * w[i];
        y[j] = @MADD((float)sum, step * s[j], b[j]) + odd;
    }
}
"""

CURVES = """
/* y := y + for some columns of x a curve, given by its values v at edges: lines between them or, without, steps. */
static void @curves(const float *restrict x, const int32_t *restrict columns, const int32_t *restrict first,
                    const float *restrict edges, const @curve_t *restrict v, @SCALES_int n, int lines, int n_out,
                    float *restrict y)
{
    for (int c = 0; c < n; c++) {
        const float a = x[columns[c]], *e = edges + first[c] + (lines ? c : 0);
        const int n_edges = (int)(first[c + 1] - first[c]) + lines;
        int low = 0, high = n_edges;
        while (low < high) { /* how many edges are below a */
            const int middle = (low + high) / 2;
            if (e[middle] < a) low = middle + 1; else high = middle;
        }
        float part = 0;
        int k = low;
        if (lines && low) {
            k = low < n_edges ? low - 1 : n_edges - 2;
            part = (a - e[k]) / (e[k + 1] - e[k]);
            if (!(part < 1)) part = 1;
        }
        const @curve_t *at = v + (size_t)(first[c] + c + k) * (size_t)n_out, *next = lines ? at + n_out : at;
        for (int j = 0; j < n_out; j++) y[j] += @CURVE;
    }
}
"""

BATCH_NORM = """
/* y := (x - mean) * factors + b */
static void @batch_norm(const float *x, const float *mean, const float *factors, const float *b, int n, float *y)
{
    for (int i = 0; i < n; i++) y[i] = @MADD(x[i] - mean[i], factors[i], b[i]);
}
"""

LAYER_NORM = """
/* y := (x - mean(x)) / sqrt(variance(x) + epsilon) * w + b */
static void @layer_norm(const float *x, const float *w, const float *b, double epsilon, int n, float *y)
{
    double mean = 0, variance = 0;
    for (int i = 0; i < n; i++) mean += (double)x[i];
    mean /= n;
    for (int i = 0; i < n; i++) variance += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double deviation = sqrt(variance / n + epsilon);
    for (int i = 0; i < n; i++) y[i] = @MADD((float)(((double)x[i] - mean) / deviation), w[i], b[i]);
}
"""

EMBEDDING = """
/* y := the numbers among x, then for each of its categories that one's vector; NaN for a category that there is not. */
static void @embedding(const float *restrict x, const int32_t *restrict first, const int32_t *restrict counts,
                       const float *restrict vectors, int n, int width, float *restrict y)
{
    for (int i = 0; i < n; i++)
        if (first[i] < 0) *y++ = x[i];
    for (int i = 0; i < n; i++) {
        if (first[i] < 0) continue;
        const int known = x[i] >= 0 && x[i] < (float)counts[i] && x[i] == floorf(x[i]);
        const float *vector = vectors + (size_t)(first[i] + (known ? (int32_t)x[i] : 0)) * (size_t)width;
        for (int j = 0; j < width; j++) *y++ = known ? vector[j] : NAN;
    }
}
"""

PIECEWISE_LINEAR = """
/* y := x, then for some columns how far they are on their way from one edge to the next */
static void @piecewise_linear(const float *restrict x, const int32_t *restrict columns, const int32_t *restrict offsets,
                              const float *restrict e, int n, int n_columns, float *restrict y)
{
    for (int i = 0; i < n; i++) *y++ = x[i];
    for (int c = 0; c < n_columns; c++)
        for (int32_t k = offsets[c]; k + 1 < offsets[c + 1]; k++) {
            const float part = (x[columns[c]] - e[k]) / (e[k + 1] - e[k]);
            *y++ = part < 0 ? 0 : part > 1 ? 1 : part;
        }
}
"""

THERMOMETER = """
/* y := x, then for some columns which of their edges they are above */
static void @thermometer(const float *restrict x, const int32_t *restrict columns, const int32_t *restrict offsets,
                         const float *restrict e, int n, int n_columns, float *restrict y)
{
    for (int i = 0; i < n; i++) *y++ = x[i];
    for (int c = 0; c < n_columns; c++)
        for (int32_t k = offsets[c]; k < offsets[c + 1]; k++) *y++ = x[columns[c]] > e[k];
}
"""

COMBINATIONS = """
/* y := x, then sums of some of its columns, each times its factor f */
static void @combinations(const float *restrict x, const int32_t *restrict columns, const int32_t *restrict offsets,
                          const float *restrict f, int n, int n_sums, float *restrict y)
{
    for (int i = 0; i < n; i++) *y++ = x[i];
    for (int c = 0; c < n_sums; c++) {
        float sum = 0;
        for (int32_t k = offsets[c]; k < offsets[c + 1]; k++) sum += x[columns[k]] * f[k];
        *y++ = sum;
    }
}
"""

PERIODIC = """
/* y := x, then for some columns sums of waves; w has a column's frequencies, phases, factors, and what is added */
static void @periodic(const float *restrict x, const int32_t *restrict columns, const float *restrict w, int n,
                      int n_columns, int n_waves, int width, float *restrict y)
{
    for (int i = 0; i < n; i++) *y++ = x[i];
    for (int c = 0; c < n_columns; c++, y += width) {
        const float *factor = w + 2 * n_waves, *added = factor + n_waves * width;
        for (int j = 0; j < width; j++) y[j] = 0;
        for (int f = 0; f < n_waves; f++) {
            const float turns = fmaf(w[f], x[columns[c]], w[n_waves + f] * 0.15915494f); /* exactly, as turns are cut */
            const float wave = cosf(6.2831853f * (turns - rintf(turns)));
            for (int j = 0; j < width; j++) y[j] = @MADD(*factor++, wave, y[j]);
        }
        for (int j = 0; j < width; j++) y[j] += added[j];
        w = added + width;
    }
}
"""

SOFTMAX = """
/* y := exp(x) / sum of exp(x) */
static void @softmax(const float *x, float *y, int n)
{
    float top = x[0], sum = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > top) top = x[i];
    for (int i = 0; i < n; i++) sum += y[i] = expf(x[i] - top);
    for (int i = 0; i < n; i++) y[i] /= sum;
}
"""

BY_COLUMN = """
/* y := {comment} */
static void @{name}(const float *x, const float *w, float *y, int n)
{{
    for (int i = 0; i < n; i++) y[i] = {formula};
}}
"""

ADD = BY_COLUMN.format(name="add", comment="x + w", formula="x[i] + w[i]")

ACTIVATION = """
/* y := {comment} */
static void @{name}(const float *x, float *y, int n{settings})
{{
    for (int i = 0; i < n; i++) {{
        const float a = x[i];
        {formula}
    }}
}}
"""

#: Activations by the name of their kernel: formula, its settings, statements that set y[i] from a. NaN stays NaN. What
#: is far out is computed at a number within reach, where infinity times 0 would be NaN.
FORMULAS: dict[str, tuple[str, str, str]] = {
    "linear": ("x", "", "y[i] = a;"),
    "relu": ("max(0, x)", "", "y[i] = a <= 0 ? 0 : a;"),
    "leaky_relu": ("x, below 0 slope * x", "float slope", "y[i] = a <= 0 ? slope * a : a;"),
    "elu": ("x, below 0 alpha * (exp(x) - 1)", "float alpha", "y[i] = a > 0 ? a : alpha * expm1f(a);"),
    "selu": (
        "scale * x, below 0 scale * alpha * (exp(x) - 1)",
        "",
        "y[i] = a > 0 ? 1.0507010f * a : 1.7580993f * expm1f(a);",
    ),
    "gelu": (
        "x * (probability of a normal number below x)",
        "",
        "const double near = a < -38 ? -38 : (double)a;\n"
        "        y[i] = (float)(near * 0.5 * erfc(near * -0.70710678118654752));",
    ),
    "gelu_by_tanh": (
        "x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2",
        "",
        "const float near = a < -9.7f ? -9.7f : a > 9.7f ? 9.7f : a;\n"
        "        const float z = near * @MADD(near * near, 0.071354814f, 1.5957691f);\n"
        "        y[i] = (a > near ? a : near) / (1 + expf(-z));",
    ),
    "silu": (
        "x / (1 + exp(-x))",
        "",
        "const float near = a < -87 ? -87 : a;\n        y[i] = near / (1 + expf(-near));",
    ),
    "mish": (
        "x * tanh(log(1 + exp(x)))",
        "",
        "const float near = a < -87 ? -87 : a, e = expf(a > 20 ? 20 : near), w = e * (e + 2);\n"
        "        y[i] = near * (w / (w + 2));",
    ),
    "hard_sigmoid": (
        "min(6, max(0, x + 3)) / 6",
        "",
        "y[i] = (a < -3 ? 0 : a > 3 ? 6 : a + 3) * 0.16666667f;",
    ),
    "hard_swish": (
        "x * min(6, max(0, x + 3)) / 6",
        "",
        "y[i] = a <= -3 ? 0 : a * ((a > 3 ? 6 : a + 3) * 0.16666667f);",
    ),
    "softplus": ("log(1 + exp(x))", "", "y[i] = (a > 0 ? a : 0) + log1pf(expf(-fabsf(a)));"),
    "tanh": ("tanh(x)", "", "y[i] = tanhf(a);"),
    "sigmoid": (
        "1 / (1 + exp(-x))",
        "",
        "const float decay = expf(-fabsf(a));\n        y[i] = (a < 0 ? decay : 1) / (1 + decay);",
    ),
}


def _madd(unit: Unit) -> None:
    unit.function("MADD", MADD)


def _dense(unit: Unit, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
    weights, biases = values[:2]
    n_in, n_out = sizes
    _madd(unit)
    b = unit.array("float", biases, "biases")
    if not unit.int8:
        w = unit.array("float", weights, "weights")
        return f"{unit.function('dense', DENSE)}({x}, {w}, {b}, {n_in}, {n_out}, {y});"
    whole, scales = quantized(weights)
    w, s = unit.array("int8_t", np.ascontiguousarray(whole.T), "weights"), unit.array("float", scales, "scales")
    top = min(32767, MAX_SUM // (127 * n_in))
    return f"{unit.function('dense', DENSE_INT8)}({x}, {w}, {s}, {b}, {n_in}, {n_out}, {top}, whole, {y});"


def quantized(weights: Array) -> tuple[Array, Array]:
    """Return a matrix as whole numbers from -127 to 127, int8, and the float32 scale of each of its columns."""
    scales = (np.abs(weights).max(axis=0, initial=0) / 127).astype(np.float32)
    scales[scales < np.finfo(np.float32).tiny] = 0
    divisors = np.where(scales > 0, scales, np.float32(1))
    whole = np.clip(np.rint(weights / divisors), -127, 127)
    whole[:, scales == 0] = 0
    return whole.astype(np.int8), scales


def _spline(unit: Unit, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
    weights, biases, columns, first, edges, degree = values
    n_in, n_out = sizes
    sums = []  # a curve's values at its edges, from 0 on: the weights are how much it rises in each piece
    for start, end in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        own = weights[n_in + start : n_in + end]
        sums.append(np.concatenate([np.zeros_like(own[:1]), np.cumsum(own, axis=0, dtype=own.dtype)]))
    curves = np.concatenate(sums)
    kind, scales, value, own_scales = "float", "", "at[j] + part * ((float)next[j] - at[j])", ""
    if unit.int8:
        curves, factors = quantized(curves)
        kind, scales = "int8_t", "const float *restrict s, "
        value, own_scales = f"s[j] * ({value})", f"{unit.array('float', factors, 'scales')}, "
    source = CURVES.replace("@SCALES_", scales).replace("@curve_t", kind).replace("@CURVE", value)
    arrays = [
        unit.array("int32_t", columns, "columns"),
        unit.array("int32_t", first, "first"),
        unit.array("float", edges, "edges"),
        unit.array(kind, curves, "curves"),
    ]
    dense = _dense(unit, (weights[:n_in], biases), sizes, x, y)
    call = unit.function("curves", source)
    numbers = f"{own_scales}{len(columns)}, {int(degree)}, {n_out}"
    return f"{dense}\n    {call}({x}, {', '.join(arrays)}, {numbers}, {y});"


def _prelu(unit: Unit, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
    (slopes,) = values
    if slopes.size == 1:
        return activation(unit, "leaky_relu", (float(slopes.reshape(-1)[0]),), sizes[0], x, y)
    source = BY_COLUMN.format(name="prelu", comment="x, below 0 w * x", formula="x[i] <= 0 ? w[i] * x[i] : x[i]")
    return f"{unit.function('prelu', source)}({x}, {unit.array('float', slopes, 'slopes')}, {y}, {sizes[0]});"


def _scale(unit: Unit, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
    source = BY_COLUMN.format(name="scale", comment="x * w", formula="x[i] * w[i]")
    return f"{unit.function('scale', source)}({x}, {unit.array('float', values[0], 'factors')}, {y}, {sizes[0]});"


def _batch_norm(unit: Unit, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
    weights, biases, mean, variance, epsilon = values
    factors = (weights / np.sqrt(variance + np.float64(epsilon))).astype(np.float32)
    _madd(unit)
    arrays = [
        unit.array("float", array, label)
        for label, array in (("mean", mean), ("factors", finite(factors)), ("biases", biases))
    ]
    return f"{unit.function('batch_norm', BATCH_NORM)}({x}, {', '.join(arrays)}, {sizes[0]}, {y});"


def _layer_norm(unit: Unit, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
    weights, biases, epsilon = values
    _madd(unit)
    arrays = f"{unit.array('float', weights, 'weights')}, {unit.array('float', biases, 'biases')}"
    return f"{unit.function('layer_norm', LAYER_NORM)}({x}, {arrays}, {float(epsilon)!r}, {sizes[0]}, {y});"


def _embedding(unit: Unit, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
    vectors, places = values
    counts = np.zeros_like(places)
    categories = np.flatnonzero(places >= 0)
    counts[categories] = np.diff([*places[categories], len(vectors)])
    arrays = [
        unit.array("int32_t", places, "first"),
        unit.array("int32_t", counts, "counts"),
        unit.array("float", vectors, "vectors"),
    ]
    call = unit.function("embedding", EMBEDDING)
    return f"{call}({x}, {', '.join(arrays)}, {sizes[0]}, {vectors.shape[1]}, {y});"


def _encoding(name: str, source: str) -> Translation:
    def translate(unit: Unit, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
        columns, offsets, edges = values
        arrays = [
            unit.array("int32_t", columns, "columns"),
            unit.array("int32_t", offsets, "offsets"),
            unit.array("float", edges, "edges"),
        ]
        return f"{unit.function(name, source)}({x}, {', '.join(arrays)}, {sizes[0]}, {len(offsets) - 1}, {y});"

    return translate


def _periodic(unit: Unit, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
    weights, columns = values
    n_in, n_out = sizes
    width = (n_out - n_in) // len(columns)
    n_waves = (weights.shape[1] - width) // (2 + width)
    _madd(unit)
    arrays = f"{unit.array('int32_t', columns, 'columns')}, {unit.array('float', weights, 'waves')}"
    call = unit.function("periodic", PERIODIC)
    return f"{call}({x}, {arrays}, {n_in}, {len(columns)}, {n_waves}, {width}, {y});"


def activation(unit: Unit, kind: str, settings: tuple[float, ...], n: int, x: str, y: str) -> str:
    """Return the call of an activation."""
    if kind == "gelu":
        kind, settings = ("gelu_by_tanh" if settings[0] else "gelu"), ()
    if kind == "softmax":
        return f"{unit.function('softmax', SOFTMAX)}({x}, {y}, {n});"
    text, names, formula = FORMULAS[kind]
    if "@MADD" in formula:
        _madd(unit)
    declared = f", {names}" if names else ""
    call = unit.function(kind, ACTIVATION.format(name=kind, comment=text, settings=declared, formula=formula))
    return f"{call}({', '.join([x, y, str(n), *map(number, settings)])});"


def add(unit: Unit, n: int, x: str, other: str, y: str) -> str:
    """Return the call that adds two samples' numbers."""
    return f"{unit.function('add', ADD)}({x}, {other}, {y}, {n});"


def finite(values: Array) -> Array:
    """Return an array; a ValueError says that C has no such numbers."""
    if not np.isfinite(values).all():
        raise ValueError("parameters must be finite numbers in float32")
    return values


#: The parts that are no activations, by kind. What comes out of the first kinds cannot take the place of what went in.
WIDENING: dict[str, Translation] = {
    "dense": _dense,
    "spline": _spline,
    "embedding": _embedding,
    "piecewise_linear": _encoding("piecewise_linear", PIECEWISE_LINEAR),
    "thermometer": _encoding("thermometer", THERMOMETER),
    "combinations": _encoding("combinations", COMBINATIONS),
    "periodic": _periodic,
}
KEEPING: dict[str, Translation] = {
    "prelu": _prelu,
    "scale": _scale,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
}
#: All kinds that there is C for; those of members become others (`c_network.single_networks`).
KINDS = {*WIDENING, *KEEPING, *FORMULAS, "softmax", "fork", "join"} - {"gelu_by_tanh"}


def call_of(unit: Unit, kind: str, values: tuple[Any, ...], sizes: tuple[int, int], x: str, y: str) -> str:
    """Return the statements that compute a part, which is no fork and no join."""
    translate = WIDENING.get(kind) or KEEPING.get(kind)
    if translate is None:
        return activation(unit, kind, values, sizes[0], x, y)
    return translate(unit, values, sizes, x, y)
