"""What a predictor is in a file: its parts, as kernels take them. docs/internals/model-files.md lays the format down.

`nnx.predictor` calls this; a part is a tuple of kind, values, n_in and n_out. Reading runs no code from the file, and
checks everything in it.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from nnx._base import check
from nnx._base.typing import Array, Path
from nnx._base.vocabulary import kinds_of
from nnx.activations import Activation
from nnx.encodings import Layer_Combinations, Layer_PiecewiseLinear, Layer_Thermometer
from nnx.files import safetensors
from nnx.files.model_files import CHECKPOINT, MODEL, PREDICTOR, READERS, VERSION, Part, opened
from nnx.member_layers import MAX_MEMBERS
from nnx.periodic import Layer_Periodic

#: The layers that have edges, by the kinds of their parts.
ENCODINGS = {kind._kernel: kind for kind in (Layer_PiecewiseLinear, Layer_Thermometer)}
COMBINATIONS = Layer_Combinations._kernel
#: The arrays of each kind of part that has any. In a part's values, numbers follow them.
ARRAYS = {
    "dense": ("weights", "biases"),
    "prelu": ("weights",),
    "scale": ("weights",),
    "batch_norm": ("weights", "biases", "mean", "variance"),
    "layer_norm": ("weights", "biases"),
    "embedding": ("weights", "places"),
    "spline": ("weights", "biases", "columns", "first", "edges"),
    "periodic": ("weights", "columns"),
    "members": ("weights",),
    "member_scale": ("weights", "biases"),
    "member_dense": ("weights", "biases"),
    **dict.fromkeys(ENCODINGS, ("columns", "offsets", "edges")),
    COMBINATIONS: ("columns", "offsets", "factors"),
}
#: Those of members.
OF_MEMBERS = ("members", "member_scale", "member_dense")
#: Which arrays are of whole numbers.
WHOLE = ("places", "columns", "offsets", "first")
#: How many numbers each kind of part has; between a fork and its join are the layers of a residual.
NUMBERS = dict.fromkeys(ARRAYS, 0) | {"batch_norm": 1, "layer_norm": 1, "spline": 1, "fork": 0, "join": 0}
NUMBERS |= {kind._kernel: len(kind()._settings()) for kind in kinds_of("layer") if issubclass(kind, Activation)}
KEYS = {"kind", "numbers", "n_in", "n_out"}
#: Up to here a whole number is a float, too; one of 350 digits is none.
MAX_WHOLE = 1 << 53


def save(where: str, path: Path, parts: Any, precision: str, categories: tuple[int, ...] | None) -> None:
    """Write a predictor's parts."""
    path = check.path(where, "path", path)
    described: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for number, (kind, values, n_in, n_out) in enumerate(parts):
        names = ARRAYS.get(kind, ())
        arrays |= {f"parts.{number}.{name}": value for name, value in zip(names, values, strict=False)}
        described.append({"kind": kind, "numbers": list(values[len(names) :]), "n_in": n_in, "n_out": n_out})
    description = {
        "format": PREDICTOR,
        "version": VERSION,
        "precision": precision,
        "categories": None if categories is None else list(categories),
        "parts": described,
    }
    safetensors.write(where, path, description, arrays)


def load(where: str, path: Path) -> tuple[tuple[Any, ...], str, tuple[int, ...] | None]:
    """Return parts, precision and numbers of categories of what `save` wrote.

    Raises
    ------
    ModelFileError
        If the file is none of ours, holds something else, or is damaged.
    """
    file = opened(where, check.path(where, "path", path))
    if file.kind != PREDICTOR:
        file.refuse(READERS[file.kind] + (".predictor()" if file.kind in (MODEL, CHECKPOINT) else ""))
    precision = file.take(str, "precision")
    if precision not in ("float32", "float64", "bfloat16"):
        file.refuse(f"is damaged: its precision is {precision!r}")
    dtype = np.dtype("float64" if precision == "float64" else "float32")
    described = file.take(list, "parts")
    parts = tuple(_part(file, number, each, dtype) for number, each in enumerate(described))
    if len(file.arrays) != sum(len(ARRAYS.get(kind, ())) for kind, _, _, _ in parts):
        file.refuse("is damaged: it holds arrays of no part")
    _check_chain(file, parts)
    return parts, precision, _categories(file, parts)


def _part(file: Part, number: int, described: Any, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Return a part, each array of it of the dtype and shape that its kind has."""
    if not isinstance(described, dict) or described.keys() != KEYS:
        file.refuse(f"is damaged: its part {number} has not the keys {sorted(KEYS)}")
    kind, numbers, n_in, n_out = (described[key] for key in ("kind", "numbers", "n_in", "n_out"))
    if not isinstance(kind, str) or kind not in NUMBERS:
        file.refuse(f"is damaged: its part {number} is of no known kind")
    if not isinstance(numbers, list) or len(numbers) != NUMBERS[kind] or not all(map(_is_number, numbers)):
        file.refuse(f"is damaged: its part {number} must have finite numbers, {NUMBERS[kind]} of them")
    if any(type(n) is not int or not 0 < n < 1 << 31 for n in (n_in, n_out)):
        file.refuse(f"is damaged: its part {number} has no numbers of columns")
    arrays: dict[str, Array] = {}
    for name in ARRAYS.get(kind, ()):
        array = file.arrays.get(f"parts.{number}.{name}")
        wanted = np.dtype(np.int32) if name in WHOLE else dtype
        if array is None or array.dtype != wanted or not _fits(kind, name, array, n_in, n_out):
            file.refuse(f"is damaged: the {name} of its part {number} are not those of a {kind}, {n_in} to {n_out}")
        arrays[name] = array
    if kind == "embedding" and not _fits_places(n_out, **arrays):
        file.refuse(f"is damaged: the places of its part {number} are not those of its columns")
    if kind == "periodic" and not _fits_waves(n_in, n_out, **arrays):
        file.refuse(f"is damaged: the weights of its part {number} are not those of its columns")
    if kind in ENCODINGS and not _fits_edges(kind, n_in, n_out, **arrays):
        file.refuse(f"is damaged: the edges of its part {number} are not those of its columns")
    if kind == COMBINATIONS and not _fits_factors(n_in, n_out, **arrays):
        file.refuse(f"is damaged: the factors of its part {number} are not those of its columns")
    if kind == "spline" and not _fits_pieces(n_in, n_out, numbers[0], **arrays):
        file.refuse(f"is damaged: the edges of its part {number} are not those of its columns")
    return kind, (*arrays.values(), *map(float, numbers)), n_in, n_out


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) <= MAX_WHOLE
    return type(value) is float and math.isfinite(value)


def _fits(kind: str, name: str, array: Array, n_in: int, n_out: int) -> bool:
    """Return whether an array has the shape that a kind of part has."""
    if kind == "embedding":
        return array.shape == (n_in,) if name == "places" else array.ndim == 2 and 0 not in array.shape
    if kind in (*ENCODINGS, COMBINATIONS) or name == "columns":
        return array.ndim == 1
    if kind == "periodic":
        return array.ndim == 2
    if kind in OF_MEMBERS:
        rows = n_in if kind == "member_dense" and name == "weights" else 1
        return array.ndim == 2 and array.shape[1] == n_out and len(array) % rows == 0
    if kind == "dense" and name == "weights":
        return array.shape == (n_in, n_out)
    if kind == "spline" and name != "biases":
        return array.ndim == (2 if name == "weights" else 1)
    return array.shape == (1, n_out) or (kind == "prelu" and array.shape == (1, 1))


def _fits_places(n_out: int, weights: Array, places: Array) -> bool:
    """Return whether an embedding's places are rows of its weights, in order, and as many as make its columns."""
    starts = places[places >= 0].tolist()
    in_order = all(one < next_one for one, next_one in itertools.pairwise((*starts, len(weights))))
    return starts[:1] == [0] and in_order and len(places) + len(starts) * (weights.shape[1] - 1) == n_out


def _fits_edges(kind: str, n_in: int, n_out: int, columns: Array, offsets: Array, edges: Array) -> bool:
    """Return whether a layer could be made with these columns and edges, and would have these arrays."""
    if len(offsets) != len(columns) + 1 or offsets[-1] != len(edges) or not (np.diff(offsets) > 0).all():
        return False
    own = [edges[first:end].tolist() for first, end in itertools.pairwise(offsets.tolist())]
    try:
        layer = ENCODINGS[kind](n_in, columns.tolist(), own, edges.dtype)
    except ValueError:
        return False
    layout = layer._layout("Predictor.load")
    return layer._widths() == (n_in, n_out) and all(map(np.array_equal, layout, (columns, offsets, edges)))


def _fits_factors(n_in: int, n_out: int, columns: Array, offsets: Array, factors: Array) -> bool:
    """Return whether a layer could be made with these combinations, and would have these arrays."""
    bounds = offsets.tolist()
    if bounds[:1] != [0] or bounds[-1] != len(columns) or not (np.diff(offsets) > 0).all():
        return False
    places, own = (
        [array[first:end].tolist() for first, end in itertools.pairwise(bounds)] for array in (columns, factors)
    )
    try:
        layer = Layer_Combinations(n_in, places, own, factors.dtype)
    except ValueError:
        return False
    layout = layer._layout("Predictor.load")
    return layer._widths() == (n_in, n_out) and all(map(np.array_equal, layout, (columns, offsets, factors)))


def _fits_pieces(
    n_in: int, n_out: int, degree: float, weights: Array, biases: Array, columns: Array, first: Array, edges: Array
) -> bool:
    """Return whether a spline's columns are there, in order, and have as many edges and weights as they must."""
    places, starts = columns.tolist(), first.tolist()
    in_order = all(one < other for one, other in itertools.pairwise((-1, *places, n_in)))
    rise = all(one < other for one, other in itertools.pairwise(starts))
    if degree not in (0, 1) or not places or not in_order or len(starts) != len(places) + 1 or starts[0] or not rise:
        return False
    fit = len(edges) == starts[-1] + degree * len(places) and weights.shape == (n_in + starts[-1], n_out)
    if not fit or not np.isfinite(edges).all():
        return False
    falls = np.flatnonzero(edges[1:] < edges[:-1]) + 1  # equal ones may have been rounded to that
    return bool(np.isin(falls, first + int(degree) * np.arange(len(first))).all())


def _fits_waves(n_in: int, n_out: int, weights: Array, columns: Array) -> bool:
    """Return whether a layer could be made with these columns, and have weights of this shape."""
    width = (n_out - n_in) // max(1, len(columns))
    layer: Layer_Periodic = object.__new__(Layer_Periodic)
    try:
        layer._configure(n_in, columns.tolist(), (weights.shape[1] - width) // (2 + width), width, 0, weights.dtype)
    except (ValueError, ZeroDivisionError):
        return False
    return layer._widths() == (n_in, n_out) and layer._shapes("Predictor.load") == (weights.shape,)


def _check_chain(file: Part, parts: tuple[Any, ...]) -> None:
    """Refuse parts that do not follow each other."""
    open_forks = []
    for kind, _, n_in, n_out in parts:
        widens = kind in ("dense", "embedding", "spline", "periodic", "member_dense", COMBINATIONS, *ENCODINGS)
        if n_in != n_out and not widens:
            file.refuse(f"is damaged: a {kind} turns {n_in} columns into {n_out}")
        if kind == "fork":
            open_forks.append(n_out)
        elif kind == "join" and (not open_forks or open_forks.pop() != n_out):
            file.refuse("is damaged: a residual ends that has not begun, or with other columns")
    follow = all(before[3] == after[2] for before, after in itertools.pairwise(parts))
    if open_forks or not follow or all(kind != "dense" for kind, _, _, _ in parts):
        file.refuse("is damaged: its parts do not follow each other, or none of them is dense")
    _check_members(file, parts)


def _check_members(file: Part, parts: tuple[Any, ...]) -> None:
    """Refuse parts of members that do not begin once, outside of residuals, or are of another number than begin."""
    begun = levels = 0
    for kind, values, n_in, _ in parts:
        levels += (kind == "fork") - (kind == "join")
        if kind not in OF_MEMBERS:
            continue
        counts = {len(array) for array in values}
        if kind == "member_dense":
            counts = {len(values[0]) // n_in, len(values[1])}
        if kind == "members":
            fits = not begun and not levels and counts <= set(range(1, MAX_MEMBERS + 1))
            begun = len(values[0])
        else:
            fits = counts == {begun}
        if not fits:
            file.refuse("is damaged: its members do not begin once, or are not as many everywhere")


def _categories(file: Part, parts: tuple[Any, ...]) -> tuple[int, ...] | None:
    """Return how many categories each column of the inputs has: those that the embeddings have rows for."""
    if file.description["categories"] is None and all(kind != "embedding" for kind, _, _, _ in parts):
        return None
    described = file.take(list, "categories")
    counts = [0] * parts[0][2]
    origins = list(range(len(counts)))  # of the columns of numbers that come next: where in the inputs they are
    for number, (kind, values, _, _) in enumerate(parts):
        if kind != "embedding":
            continue
        weights, places = values
        columns = np.flatnonzero(places >= 0).tolist()
        if any(each[0] != "embedding" for each in parts[:number]) or columns[-1] >= len(origins):
            file.refuse(f"is damaged: its part {number} does not take categories from the inputs")
        for column, n in zip(columns, np.diff([*places[columns], len(weights)]).tolist(), strict=True):
            counts[origins[column]] = n
        origins = [origin for column, origin in enumerate(origins) if column not in columns]
    if not any(counts) or described != counts or any(type(n) is not int for n in described):
        file.refuse("is damaged: its categories are not those of its columns")
    return tuple(counts)
