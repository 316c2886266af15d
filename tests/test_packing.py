"""Lists of records as arrays: the same records come back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from nnx.files import packing

pytestmark = pytest.mark.one_backend

VALUES = {
    "numbers": strategies.floats(allow_nan=False),
    "counts": strategies.integers(-(2**63), 2**63 - 1),
    "flags": strategies.booleans(),
    "texts": strategies.text(max_size=5),
    "lists": strategies.lists(strategies.text(max_size=3), max_size=4),
    "series": strategies.lists(strategies.floats(allow_nan=False), max_size=4),
    "others": strategies.none() | strategies.integers() | strategies.text(max_size=2),
}


@strategies.composite
def record(draw):
    """Draw a record of one of two kinds that may lack some of the fields."""
    fields = draw(strategies.sets(strategies.sampled_from(sorted(VALUES))))
    return {"kind": draw(strategies.sampled_from(("a", "b"))), **{name: draw(VALUES[name]) for name in sorted(fields)}}


@settings(max_examples=200, deadline=None)
@given(strategies.lists(record(), max_size=12))
def test_records_come_back(records):
    layout, arrays = packing.packed(records)
    layout = json.loads(json.dumps(layout))
    found = packing.unpacked(layout, arrays)
    assert found == records
    assert [[type(value) for value in each.values()] for each in found] == [
        [type(each[name]) for name in found_each] for each, found_each in zip(records, found, strict=True)
    ]


def test_fields_that_most_records_lack_do_not_put_all_of_them_into_the_layout():
    records = [{"kind": "number", "name": f"{i}", "mean": 0.5} for i in range(50_000)]
    records[7]["unit"] = "€"
    layout, arrays = packing.packed(records)
    assert layout == {
        "number": {"kind": "number", "fields": {"mean": "number", "name": "text"}},
        "number.2": {"kind": "number", "fields": {"mean": "number", "name": "text", "unit": "text"}},
    }
    assert packing.unpacked(layout, arrays) == records


@pytest.mark.parametrize("other", [3, None, [], [3], [{}], [{"kind": 1}], [{"kind": "a b"}], [{"kind": "a", "b.c": 1}]])
def test_what_are_no_records_comes_back_as_it_is(other):
    assert packing.packed(other) == (other, {})
    assert packing.unpacked(other, {}) == other
    with pytest.raises(ValueError, match="it has arrays that belong to no column"):
        packing.unpacked(other, {"order": np.zeros(1, np.uint8)})


def test_numpy_scalars_become_numbers():
    layout, arrays = packing.packed([{"kind": "a", "n": np.int32(3), "x": np.float32(0.5)}])
    assert packing.unpacked(layout, arrays) == [{"kind": "a", "n": 3, "x": 0.5}]
    assert sorted(arrays) == ["a.n", "a.x", "order"]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.x", None),
        ("a.x", np.zeros(2, np.float64)),
        ("a.x", np.zeros(3, np.float32)),
        ("a.x", np.zeros((3, 1), np.float64)),
        ("a.x.counts", None),
        ("a.x.counts", np.array([4, -1])),
        ("a.x.counts", np.array([3])),
        ("a.x.counts", np.array([1.0, 2.0])),
    ],
)
def test_lists_of_numbers_that_do_not_fit_are_refused(name, array):
    layout, arrays = packing.packed([{"kind": "a", "x": [1.0, 2.0]}, {"kind": "a", "x": [3.0]}])
    assert layout == {"a": {"kind": "a", "fields": {"x": "numbers"}}}
    del arrays[name]
    with pytest.raises(ValueError, match=r"its array|negative length|have the lengths"):
        packing.unpacked(layout, arrays if array is None else {**arrays, name: array})


def test_lists_of_numbers_have_a_limit(monkeypatch):
    monkeypatch.setattr(packing, "MAX_NUMBERS", 5)
    records = [{"kind": "a", "x": [1.0, 2.0, 3.0]}] * 2
    with pytest.raises(ValueError, match="must have at most 5 quantiles of all columns together, got 6"):
        packing.packed(records)
    assert packing.packed(records[:1])[1]["a.x"].tolist() == [1, 2, 3]
