"""The quick run leaves out combinations, never a value; each backend gets its share of the rest."""

from __future__ import annotations

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
from cases import drawn, fewest, on_two

pytestmark = pytest.mark.one_backend


def case(**indices):
    name = "-".join(f"{key}{index}" for key, index in indices.items())
    return SimpleNamespace(id=name, indices=indices, params=indices)


@pytest.fixture
def cases():
    """Combine 16 activations, 8 shapes and 2 dtypes."""
    return [case(activation=i, shape=k, dtype=j) for i, k, j in itertools.product(range(16), range(8), range(2))]


def test_each_value_of_each_parameter_occurs_in_a_tenth_of_the_combinations(cases):
    kept = fewest(cases, "test_x", None)
    for name, count in (("activation", 16), ("shape", 8), ("dtype", 2)):
        assert {each.params[name] for each in kept} == set(range(count))
    assert 16 <= len(kept) <= len(cases) / 10


def test_the_choice_depends_on_names_and_not_on_the_order(cases):
    assert {each.id for each in fewest(cases[::-1], "test_x", None)} == {
        each.id for each in fewest(cases, "test_x", None)
    }
    assert fewest(cases, "test_y", None) != fewest(cases, "test_x", None)


def test_the_order_of_the_cases_stays(cases):
    kept = fewest(cases, "test_x", None)
    assert kept == sorted(kept, key=cases.index)


def test_a_list_of_combinations_runs_whole():
    cases = [case(name=i, value=i) for i in range(30)]
    assert fewest(cases, "test_x", None) == cases


def test_few_leaves_one_case_or_one_for_each_value_of_what_it_names(cases):
    assert len(fewest(cases, "test_x", pytest.mark.few.mark)) == 1
    kept = fewest(cases, "test_x", pytest.mark.few("shape").mark)
    assert sorted(each.params["shape"] for each in kept) == list(range(8))


def test_a_test_without_parameters_has_its_one_case():
    assert fewest([], "test_x", None) == []
    alone = case()
    assert fewest([alone], "test_x", None) == [alone]


def test_other_backends_are_drawn_by_the_name_of_the_case_and_get_equal_shares():
    names = ("native-avx2", "native-baseline", "numpy")
    cases = [SimpleNamespace(id=f"{name}-{i}", params={"backend": name}) for i in range(300) for name in names]
    chosen = [[drawn(names, each) for each in cases[i : i + 3]] for i in range(0, 900, 3)]
    assert all(len(set(each)) == 1 for each in chosen)
    assert min(Counter(each[0] for each in chosen).values()) > 70


def test_a_parameter_that_is_called_like_a_backend_changes_nothing():
    names = ("native-avx2", "native-baseline", "numpy")
    for i in range(50):
        cases = [SimpleNamespace(id=f"{name}-{i}-numpy", params={"backend": name}) for name in names]
        assert len({drawn(names, each) for each in cases}) == 1


def test_all_cases_run_on_the_first_backend_and_few_on_others(cases):
    names = ("native-avx512", "native-avx2", "numpy")
    everywhere = [
        SimpleNamespace(
            id=f"{name}-{each.id}", params={"backend": name, **each.params}, indices={"backend": i, **each.indices}
        )
        for i, name in enumerate(names)
        for each in cases
    ]
    found = on_two(everywhere, names, "test_x", None)
    count = Counter(each.params["backend"] for each in found)
    assert count["native-avx512"] == len(cases)
    assert count["native-avx2"] > 2
    assert count["numpy"] > 2
    assert count["native-avx2"] + count["numpy"] < len(cases) / 5
    for name in ("activation", "shape", "dtype"):
        others = {each.params[name] for each in found if each.params["backend"] != "native-avx512"}
        assert others == {each.params[name] for each in cases}
