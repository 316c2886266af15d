"""Lists of records, such as the columns of a table, as arrays: many of them in few bytes and little memory.

A record is a dict with a ``kind``; those of one kind that have the same fields are a group. A field of numbers becomes
an array; texts become one array of UTF-8, and one of their lengths; lists of texts get a third one, of how many texts
are in each, and so do lists of numbers. What is something else stays in the layout, which is JSON.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from nnx._base.typing import Array

if TYPE_CHECKING:
    from typing import TypeAlias

    #: A kind, and the names of the fields beside it.
    Group: TypeAlias = tuple[str, tuple[str, ...]]

#: Limits of what is read: records and texts, fields of all records together, numbers in lists, and bytes of all texts.
MAX_TEXTS = 100_000
MAX_NUMBERS = 600_000
MAX_FIELDS = 10 * MAX_TEXTS
MAX_BYTES = 8 << 20

#: The name of the array that says of which group each record is: no group's field is called that.
ORDER = "order"
#: Types of a field whose values one array holds, by the type of a value.
SIMPLE: dict[type, tuple[str, type]] = {
    float: ("number", np.float64),
    int: ("integer", np.int64),
    bool: ("flag", np.bool_),
}
DTYPES = dict(SIMPLE.values())
TEXT, TEXTS, NUMBERS = "text", "texts", "numbers"


def packed(records: Any) -> tuple[Any, dict[str, Array]]:
    """Return records as their layout and arrays; what are no such records comes back as it is, without arrays.

    Raises
    ------
    ValueError
        If there are more of them, or of texts, than `unpacked` reads. The message is a sentence that lacks its subject.
    """
    groups = _groups(records)
    if not groups:
        return records, {}
    labels = _labels(groups)
    order = {group: number for number, group in enumerate(sorted(groups, key=labels.__getitem__))}
    arrays: dict[str, Array] = {ORDER: np.array([order[_group(record)] for record in records], np.uint8)}
    layout: dict[str, Any] = {}
    for group, label in labels.items():
        kind, fields = group
        types = {}
        for field in fields:
            types[field], found = _packed_values([_plain(record[field]) for record in groups[group]])
            arrays |= {f"{label}.{field}{ending}": array for ending, array in found.items()}
        layout[label] = {"kind": kind, "fields": types}
    excess = _excess(layout, arrays)
    if excess:
        raise ValueError(excess)
    return layout, arrays


def _group(record: dict[str, Any]) -> Group:
    return record["kind"], tuple(sorted(record.keys() - {"kind"}))


def _groups(records: Any) -> dict[Group, list[dict[str, Any]]]:
    """Return records by kind and fields; nothing if some are no records, or if a byte cannot number the groups."""
    groups: dict[Group, list[dict[str, Any]]] = {}
    if not isinstance(records, list):
        return {}
    for record in records:
        kind = record.get("kind") if isinstance(record, dict) else None
        if not isinstance(kind, str) or not all(str(name).isidentifier() for name in (kind, *record)):
            return {}
        groups.setdefault(_group(record), []).append(record)
    return groups if len(groups) < 256 else {}


def _labels(groups: Iterable[Group]) -> dict[Group, str]:
    """Return a name for each group: that of its kind, with a number after the kind's first."""
    labels: dict[Group, str] = {}
    for group in groups:
        same = sum(kind == group[0] for kind, _ in labels)
        labels[group] = f"{group[0]}.{same + 1}" if same else group[0]
    return labels


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
            return TEXTS, {**_packed_texts(list(itertools.chain(*values))), ".counts": _counts(values)}
        if kind is list and all(type(each) is float for numbers in values for each in numbers):
            return NUMBERS, {"": np.array([*itertools.chain(*values)], np.float64), ".counts": _counts(values)}
    except (OverflowError, UnicodeEncodeError):  # beyond 64 bits, or half a character
        pass
    return values, {}


def _counts(lists: list[list[Any]]) -> Array:
    return np.array([len(each) for each in lists], np.int64)


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
    for group in layout.values():
        if not isinstance(group, dict) or set(group) != {"kind", "fields"} or type(group["fields"]) is not dict:
            raise ValueError("its columns are not described")
    excess = _excess(layout, arrays)
    if excess:
        raise ValueError(f"it {excess}")
    rest = dict(arrays)
    labels = sorted(layout)
    order = _take(rest, ORDER, np.uint8)
    counts = np.bincount(order, minlength=len(labels)).tolist()
    if len(counts) > len(labels):
        raise ValueError("a column has an unknown kind")
    records = [_records(label, layout[label], count, rest) for label, count in zip(labels, counts, strict=True)]
    if rest:
        raise ValueError("it has arrays that belong to no column")
    return [next(records[number]) for number in order.tolist()]


def _records(label: str, group: dict[str, Any], count: int, rest: dict[str, Array]) -> Iterator[dict[str, Any]]:
    """Return the records of a group one after the other; take their arrays out of ``rest``."""
    kind, names = group["kind"], list(group["fields"])
    columns = [_values(field, f"{label}.{name}", count, rest) for name, field in group["fields"].items()]
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
    if field in (TEXTS, NUMBERS):
        counts = _take(rest, f"{name}.counts", np.int64, count).tolist()
        if min(counts, default=0) < 0:
            raise ValueError(f"a list of its {name} has a negative length")
        total = sum(counts)
        values = _texts(name, total, rest) if field == TEXTS else iter(_take(rest, name, np.float64, total).tolist())
        return (list(itertools.islice(values, many)) for many in counts)
    raise ValueError(f"its {name} have an unknown type or the wrong number of values")


def _texts(name: str, count: int, rest: dict[str, Array]) -> Iterator[str]:
    content = _take(rest, name, np.uint8).tobytes()
    lengths = _take(rest, f"{name}.lengths", np.int64, count).tolist()
    if min(lengths, default=0) < 0 or sum(lengths) != len(content):
        raise ValueError(f"the texts of its {name} do not have the lengths that the file gives")
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
    listed = [arrays.get(name.removesuffix(".counts")) for name in arrays if name.endswith(".counts")]
    n_numbers = sum(array.size for array in listed if array is not None and array.dtype == np.float64)
    most_fields = max((len(group["fields"]) for group in layout.values()), default=0)
    if max(n_records, n_texts) > MAX_TEXTS or n_records * most_fields > MAX_FIELDS:
        return f"must have at most {MAX_TEXTS:,} columns and categories together, got {max(n_records, n_texts):,}"
    if n_bytes > MAX_BYTES:
        return f"must have names and categories of at most {MAX_BYTES:,} bytes together, got {n_bytes:,}"
    if n_numbers > MAX_NUMBERS:
        return f"must have at most {MAX_NUMBERS:,} quantiles of all columns together, got {n_numbers:,}"
    return ""
