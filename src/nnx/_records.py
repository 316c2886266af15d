"""Lists of records, such as the columns of a table, as arrays: many of them in few bytes and little memory.

A record is a dict with a ``kind``, and the same fields as all records of its kind. A field of numbers becomes an array,
texts become one array of UTF-8 with their lengths, lists of texts also get an array of how many there are in each. What
is something else stays in the layout, which is JSON.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from nnx._typing import Array

#: Limits of what is read: records and texts, fields of all records together, and bytes of all texts.
MAX_TEXTS = 100_000
MAX_FIELDS = 8 * MAX_TEXTS
MAX_BYTES = 8 << 20

#: Which record is of which kind: the name of an array, as no kind's field is called.
ORDER = "order"
#: Types of a field whose values one array holds, by the type of a value.
SIMPLE: dict[type, tuple[str, type]] = {
    float: ("number", np.float64),
    int: ("integer", np.int64),
    bool: ("flag", np.bool_),
}
DTYPES = dict(SIMPLE.values())
TEXT, TEXTS = "text", "texts"


def packed(records: Any) -> tuple[Any, dict[str, Array]]:
    """Return records as their layout and arrays; what are no such records comes back as it is, without arrays.

    Raises
    ------
    ValueError
        If there are more of them, or of texts, than `unpacked` reads. The message is a sentence that lacks its subject.
    """
    kinds = _by_kind(records)
    if not kinds:
        return records, {}
    names = sorted(kinds)
    place = {kind: number for number, kind in enumerate(names)}
    arrays: dict[str, Array] = {ORDER: np.array([place[record["kind"]] for record in records], np.uint8)}
    layout: dict[str, Any] = {}
    for kind in names:
        fields = kinds[kind][0].keys() - {"kind"}
        layout[kind] = {}
        for field in sorted(fields):
            values = [_plain(record[field]) for record in kinds[kind]]
            layout[kind][field], found = _packed_values(values)
            arrays |= {f"{kind}.{field}{ending}": array for ending, array in found.items()}
    excess = _excess(layout, arrays)
    if excess:
        raise ValueError(excess)
    return layout, arrays


def _by_kind(records: Any) -> dict[str, list[dict[str, Any]]]:
    """Return records by their kind; nothing if some are no records, or have other fields than those of their kind."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    if not isinstance(records, list):
        return {}
    for record in records:
        kind = record.get("kind") if isinstance(record, dict) else None
        if not isinstance(kind, str) or not kind.isidentifier() or kind == ORDER:
            return {}
        same = kinds.setdefault(kind, [])
        same.append(record)
        if record.keys() != same[0].keys() or not all(str(field).isidentifier() for field in record):
            return {}
    return kinds if len(kinds) < 256 else {}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _packed_values(values: list[Any]) -> tuple[Any, dict[str, Array]]:
    """Return the type of a field, and its arrays by the ending of their names; of other values, these themselves."""
    types = set(map(type, values))
    kind = types.pop() if len(types) == 1 else None
    try:
        if kind in SIMPLE:
            name, dtype = SIMPLE[kind]
            return name, {"": np.array(values, dtype)}
        if kind is str:
            return TEXT, _packed_texts(values)
        if kind is list and all(type(text) is str for texts in values for text in texts):
            counts = np.array([len(texts) for texts in values], np.int64)
            return TEXTS, {**_packed_texts(list(itertools.chain(*values))), ".counts": counts}
    except (OverflowError, UnicodeEncodeError):  # beyond 64 bits, or half a character
        pass
    return values, {}


def _packed_texts(texts: list[str]) -> dict[str, Array]:
    encoded = [text.encode() for text in texts]
    lengths = np.array([len(each) for each in encoded], np.int64)
    return {"": np.frombuffer(b"".join(encoded), np.uint8), ".lengths": lengths}


def unpacked(layout: Any, arrays: dict[str, Array]) -> Any:
    """Return the records that `packed` has made layout and arrays of; a ValueError says what is wrong with others."""
    if not isinstance(layout, dict):
        if arrays:
            raise ValueError("it has arrays that belong to no column")
        return layout
    if not all(isinstance(fields, dict) for fields in layout.values()):
        raise ValueError("its columns have no fields")
    excess = _excess(layout, arrays)
    if excess:
        raise ValueError(f"it {excess}")
    rest = dict(arrays)
    kinds = sorted(layout)
    order = _take(rest, ORDER, np.uint8)
    n_records = np.bincount(order, minlength=len(kinds)).tolist()
    if len(n_records) > len(kinds):
        raise ValueError("a column is of no known kind")
    records = [_records_of(kind, layout[kind], count, rest) for kind, count in zip(kinds, n_records, strict=True)]
    if rest:
        raise ValueError("it has arrays that belong to no column")
    return [next(records[number]) for number in order.tolist()]


def _records_of(kind: str, layout: dict[str, Any], count: int, rest: dict[str, Array]) -> Iterator[dict[str, Any]]:
    """Return the records of a kind one after the other; take their arrays out of ``rest``."""
    columns = [_values(field, f"{kind}.{name}", count, rest) for name, field in layout.items()]
    names = list(layout)
    rows: Iterator[tuple[Any, ...]] = zip(*columns, strict=True) if columns else itertools.repeat((), count)
    return ({"kind": kind, **dict(zip(names, row, strict=True))} for row in rows)


def _values(field: Any, name: str, count: int, rest: dict[str, Array]) -> Iterator[Any]:
    """Return a field's values, so many of them."""
    if isinstance(field, list) and len(field) == count:
        return iter(field)
    if isinstance(field, str) and field in DTYPES:
        return iter(_take(rest, name, DTYPES[field], count).tolist())
    if field == TEXT:
        return _texts(name, count, rest)
    if field == TEXTS:
        counts = _take(rest, f"{name}.counts", np.int64, count).tolist()
        if min(counts, default=0) < 0:
            raise ValueError(f"a list of its {name} has less than no texts")
        texts = _texts(name, sum(counts), rest)
        return (list(itertools.islice(texts, many)) for many in counts)
    raise ValueError(f"its {name} are of no known type, or not as many as they must be")


def _texts(name: str, count: int, rest: dict[str, Array]) -> Iterator[str]:
    content = _take(rest, name, np.uint8).tobytes()
    lengths = _take(rest, f"{name}.lengths", np.int64, count).tolist()
    if min(lengths, default=0) < 0 or sum(lengths) != len(content):
        raise ValueError(f"the texts of its {name} do not have the lengths that they are said to have")
    ends = list(itertools.accumulate(lengths))
    return (content[end - length : end].decode() for end, length in zip(ends, lengths, strict=True))


def _take(rest: dict[str, Array], name: str, dtype: type, size: int | None = None) -> Array:
    array = rest.pop(name, None)
    if array is None or array.dtype != dtype or array.ndim != 1 or size not in (None, array.size):
        raise ValueError(f"its array {name!r} is missing, or of another dtype or shape")
    return array


def _excess(layout: dict[str, Any], arrays: dict[str, Array]) -> str:
    """Return what there is more of than can be read in little memory and time; nothing if there is not."""
    n_records = sum(array.size for name, array in arrays.items() if name == ORDER)
    n_texts = sum(array.size for name, array in arrays.items() if name.endswith(".lengths"))
    n_bytes = sum(array.size for array in arrays.values() if array.dtype == np.uint8)
    most_fields = max((len(fields) for fields in layout.values()), default=0)
    if max(n_records, n_texts) > MAX_TEXTS or n_records * most_fields > MAX_FIELDS:
        return f"must have at most {MAX_TEXTS:,} columns and categories together, got {max(n_records, n_texts):,}"
    if n_bytes > MAX_BYTES:
        return f"must have names and categories of at most {MAX_BYTES:,} bytes together, got {n_bytes:,}"
    return ""
