"""The data functions draw the book's points, from the global generator and in the book's order."""

from __future__ import annotations

import nnfs.datasets
import numpy as np
import pytest

import nnx

pytestmark = pytest.mark.one_backend

PAIRS = [
    (nnx.spiral_data, nnfs.datasets.spiral_data, {"samples": 100, "classes": 3}),
    (nnx.spiral_data, nnfs.datasets.spiral_data, {"samples": 7, "classes": 5}),
    (nnx.vertical_data, nnfs.datasets.vertical_data, {"samples": 100, "classes": 3}),
    (nnx.sine_data, nnfs.datasets.sine_data, {}),
    (nnx.sine_data, nnfs.datasets.sine_data, {"samples": 30}),
]


@pytest.mark.parametrize(("ours", "theirs", "arguments"), PAIRS)
def test_points_are_those_of_the_books_package_and_so_is_the_generator_afterwards(ours, theirs, arguments):
    np.random.seed(4)
    X, y = ours(**arguments)
    after = np.random.rand()
    np.random.seed(4)
    expected_X, expected_y = theirs(**arguments)
    np.testing.assert_array_equal(X, expected_X)
    np.testing.assert_array_equal(y, expected_y)
    assert X.dtype == expected_X.dtype
    assert y.dtype == expected_y.dtype
    assert after == np.random.rand()


def test_positional_arguments_are_samples_then_classes():
    assert nnx.spiral_data(10, 4)[0].shape == (40, 2)
    assert nnx.vertical_data(10, 4)[1].tolist() == [c for c in range(4) for _ in range(10)]
    assert nnx.sine_data(5)[1].shape == (5, 1)
