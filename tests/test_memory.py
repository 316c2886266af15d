"""Memory and the binding layer of the compiled kernels: no kernel reads or writes beside an array, arrays of any layout
are read rightly, all others refused before anything has changed, and threads do not get into each other's way.

As a script, with a backend's name, this file runs that backend's kernels on arrays beside unreadable memory, and is
killed if one of them steps over. The test does so in a process of its own, and says at which kernel.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kernel_calls import EVERY_CALL, ONLY_FLOAT32, UPDATES, function_of, kernel, numbers_for, parameters

from nnx import _kernels

pytestmark = pytest.mark.every_backend

#: Each kernel: the shapes of its arrays, which of them it writes, and its numbers.
CALLS = [
    *[(name, (*read, *out), range(len(read), len(read + out)), numbers) for name, read, out, numbers in EVERY_CALL],
    *[(name, ("nm",) * (2 + state), (0, *range(2, 2 + state)), numbers) for name, state, numbers in UPDATES],
    ("dropout_mask", ("nm",), (0,), (0.6, 2**63 + 1, 7)),
    ("gaussian_noise", ("nm",), (0,), (0.6, 2**63 + 1, 7)),
    ("average_update", ("nm", "nm"), (0,), (0.9,)),
]
SIZES = (7, 5, 4)
ANY_SHAPE = ("total", "regularization_loss")


def calls_for(dtype):
    """Return the calls of the kernels that there are for a dtype."""
    return [call for call in CALLS if dtype == "float32" or call[0] not in ONLY_FLOAT32]


each_call = pytest.mark.parametrize(("name", "kinds", "written", "numbers"), CALLS, ids=[call[0] for call in CALLS])


@pytest.fixture
def binding(backend):
    if backend == "numpy":
        pytest.skip("NumPy's kernels take what they get")
    return _kernels.backend


def axes(kind):
    """Return a letter for each dimension: n samples, k inputs, m outputs, or 1."""
    return "n" if kind in ("labels", "classes") else kind


def arrays(kinds, dtype, sizes=SIZES):
    """Return arguments: numbers that may be probabilities, or class numbers."""
    rng = np.random.default_rng(0)
    lengths = {"1": 1, **dict(zip("nkm", sizes, strict=True))}
    made = [rng.uniform(0.05, 0.95, [lengths[axis] for axis in axes(kind)]).astype(dtype) for kind in kinds]
    for i, kind in enumerate(kinds):
        if kind in ("labels", "classes"):
            made[i] = (made[i] * min(lengths["m"], 4)).astype(np.intp)
    return made


def copies(given):
    return [array.copy() for array in given]


def perform(kernels, name, given, numbers):
    """Call a kernel, with one number for each column where columns have their own."""
    first = given[0] if isinstance(given[0], np.ndarray) and given[0].ndim else np.zeros((1, 4))
    return kernel(kernels, name)(*given, *numbers_for(numbers, first))


def run(kernels, name, given, numbers):
    """Return what a kernel returns and the bits in its arrays afterwards."""
    return perform(kernels, name, given, numbers), [array.tobytes() for array in given]


# Beside unreadable memory

GUARDED_SIZES = [
    (1, 1, 1), (3, 5, 2), (7, 17, 3), (33, 9, 4), (16, 16, 16), (5, 64, 10), (64, 3, 17), (130, 33, 15), (9, 31, 33),
    (9, 2, 16), (3, 3, 80), (7, 32, 1), (6, 80, 4), (4, 257, 31), (600, 20, 7), (5, 13, 520), (5, 4, 520),
    (7, 1030, 18), (1030, 7, 18), (17, 6, 1030), (6, 1030, 5),
]  # fmt: skip
FILLED = 0xA5


class Region:
    """Pages between two unreadable ones."""

    def __init__(self, size):
        page = mmap.PAGESIZE
        self.size = -(-size // page) * page
        self.memory = mmap.mmap(-1, self.size + 2 * page)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for guard in (address, address + page + self.size):
            if protect(guard, page, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes = np.frombuffer(self.memory, np.uint8, self.size, page)

    def place(self, array, at_end):
        """Return a copy of an array that ends, or starts, at the unreadable page."""
        self.bytes[:] = FILLED
        copy = self.part(array, at_end).view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def part(self, array, at_end):
        return self.bytes[self.size - array.nbytes :] if at_end else self.bytes[: array.nbytes]

    def rest(self, array, at_end):
        return self.bytes[: self.size - array.nbytes] if at_end else self.bytes[array.nbytes :]


def run_beside_unreadable_memory(backend):
    kernels = _kernels.load(backend)
    regions = [Region(1030 * 18 * 8) for _ in range(max(len(kinds) for _, kinds, _, _ in CALLS))]
    for dtype in ("float32", "float64"):
        for name, kinds, _, numbers in calls_for(dtype):
            for sizes in GUARDED_SIZES:
                plain = arrays(kinds, dtype, sizes)
                expected = run(kernels, name, copies(plain), numbers)
                for at_end in (True, False):
                    print(f"{name} {dtype} {sizes} {'before' if at_end else 'behind'} the page", flush=True)
                    given = [region.place(array, at_end) for region, array in zip(regions, plain, strict=False)]
                    assert run(kernels, name, given, numbers) == expected, "other results than elsewhere"
                    for region, array in zip(regions, given, strict=False):
                        assert (region.rest(array, at_end) == FILLED).all(), "written beside an array"


@pytest.mark.skipif(os.name != "posix", reason="needs mprotect")
def test_kernels_stay_within_their_arrays(binding, backend):
    done = subprocess.run([sys.executable, __file__, backend], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"at {lines[-1] if lines else 'the start'}: {done.returncode}\n{done.stderr}"
    assert len(lines) == (len(calls_for("float32")) + len(calls_for("float64"))) * len(GUARDED_SIZES) * 2


# Correct reading and writing at any position


def strided(array):
    every_second = (slice(None, None, 2),) * array.ndim
    wide = np.zeros([2 * size for size in array.shape], array.dtype)
    wide[every_second] = array
    return wide[every_second]


def within_lines(array):
    wide = np.zeros((*array.shape[:-1], array.shape[-1] + 3), array.dtype)
    wide[..., 1:-2] = array
    return wide[..., 1:-2]


def backwards(array):
    return np.flip(np.flip(array).copy())


def unaligned(array):
    copy = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def swapped(array):
    return array.astype(array.dtype.newbyteorder())


def read_only(array):
    array.setflags(write=False)
    return array


@each_call
def test_arrays_of_any_layout_give_the_same_results(binding, dtype, name, kinds, written, numbers):
    places = range(len(kinds))
    for sizes in [SIZES, (1, 1, 1), (6, 1, 3), (3, 17, 1)]:
        plain = arrays(kinds, dtype, sizes)
        returned, expected = run(binding, name, copies(plain), numbers)
        for layout in (np.asfortranarray, strided, within_lines, backwards, unaligned, swapped, read_only):
            for chosen in [{place} for place in places] + [set(places)]:
                chosen -= set(written) if layout is read_only else set()
                given = [layout(array) if i in chosen else array for i, array in enumerate(copies(plain))]
                assert perform(binding, name, given, numbers) == returned
                after = [array.astype(made.dtype).tobytes() for array, made in zip(given, plain, strict=True)]
                assert after == expected, (layout, chosen, sizes)


@pytest.mark.parametrize("character", [c for c in "ilq" if np.dtype(c) == np.intp])
def test_class_numbers_of_any_type_that_equals_intp_are_read_and_written(character):
    labels, classes = np.array([0, 2, 1]).astype(character), np.full(3, 7).astype(character)
    one_hot = np.eye(3, dtype="float32")[labels]
    _kernels.backend.argmax(one_hot, classes)
    assert _kernels.backend.equal_count(classes, labels) == 3
    assert _kernels.backend.bad_label(labels, 2) == 1
    dinputs = np.ones_like(one_hot)
    _kernels.backend.pair_backward("categorical_crossentropy", one_hot, labels, dinputs, (0.0, 1e-7))
    np.testing.assert_array_equal(dinputs, 0)


def overlapping(given, first, second, shift):
    """Return arguments of which two share memory: the second begins some bytes after the first."""
    given = copies(given)
    low, high = given[first], given[second]
    memory = np.zeros(2 * (low.nbytes + high.nbytes + abs(shift)), np.uint8)
    for place, array, start in ((second, high, max(0, shift)), (first, low, max(0, -shift))):
        given[place] = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        given[place][...] = array
    return given


@each_call
def test_an_input_that_overlaps_an_output_counts_as_it_was_before(binding, dtype, name, kinds, written, numbers):
    plain = arrays(kinds, dtype)
    for output in written:
        for place in set(range(len(kinds))) - set(written):
            cases = [overlapping(plain, place, output, shift) for shift in (0, 8, -8, 16, 40, -40)]
            if plain[place].shape == plain[output].shape and plain[place].dtype == plain[output].dtype:
                cases += [copies(plain) for _ in range(2)]
                cases[-1][place], cases[-2][place] = cases[-1][output], np.flip(cases[-2][output])
            for given in cases:
                returned, expected = run(binding, name, copies(given), numbers)
                assert perform(binding, name, given, numbers) == returned
                assert [given[i].tobytes() for i in written] == [expected[i] for i in written], (place, output)


@each_call
def test_outputs_that_overlap_each_other_are_refused(binding, dtype, name, kinds, written, numbers):
    for first in written:
        for second in set(written) - {first}:
            cases = [overlapping(arrays(kinds, dtype), first, second, shift) for shift in (0, 8, -40)]
            cases.append(arrays(kinds, dtype))
            cases[-1][second] = np.flip(cases[-1][first])
            for given in cases:
                if np.shares_memory(given[first], given[second]):  # a line for each column may be shorter than a shift
                    assert_refuses(binding, name, given, numbers, ValueError, "must not share memory")


# What is refused


def assert_refuses(binding, name, given, numbers, error, *words):
    """Check that a call fails with the kernel's name and these words, and that no argument has changed."""
    kept = [array.tobytes() for array in given if isinstance(array, np.ndarray)]
    with pytest.raises(error) as caught:
        perform(binding, name, given, numbers)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{function_of(name)}: ")
    assert all(word in str(caught.value) for word in words), (words, str(caught.value))
    assert kept == [array.tobytes() for array in given if isinstance(array, np.ndarray)]


@each_call
def test_what_is_no_array_of_the_right_type_is_refused(binding, dtype, name, kinds, written, numbers):
    other = np.dtype("float32" if dtype == np.float64 else "float64")
    for place, argument in enumerate(parameters(name)[: len(kinds)]):
        given = arrays(kinds, dtype)
        right = given[place]
        argument = (
            "labels" if kinds[place] == "labels" and argument == "targets" and "categorical" in name else argument
        )
        for wrong in (None, right.tolist(), "text", 1.5, right.ravel()[0], memoryview(right)):
            if wrong is None and (name, argument) == ("softmax_crossentropy", "dinputs"):
                continue  # no gradient is wanted
            given[place] = wrong
            assert_refuses(binding, name, given, numbers, TypeError, f" {argument} must be ")
        for wrong in ("int32", "float16", "complex64", "complex128", "object", "bool", "uint64", "S8", "M8[s]"):
            given[place] = right.astype("i8").astype(wrong)
            assert_refuses(binding, name, given, numbers, TypeError, f" {argument} must be ", str(given[place].dtype))
        given[place] = right.astype(other)
        if right.dtype != dtype or place > 0 or name in ONLY_FLOAT32:
            assert_refuses(
                binding, name, given, numbers, TypeError, f" {argument} must be of dtype {right.dtype}, got {other}"
            )
        elif sum(array.dtype == dtype for array in given):  # the first array says what the others must be
            assert_refuses(binding, name, given, numbers, TypeError, f" must be of dtype {other}, got {dtype}")


@each_call
def test_arrays_of_another_shape_are_refused(binding, dtype, name, kinds, written, numbers):
    for place, kind in enumerate(kinds):
        given = arrays(kinds, dtype)
        right = given[place]
        wrong = []
        if name not in ANY_SHAPE:
            wrong += [right[None], right[..., None], right.ravel()[:1].reshape(())]
            wrong += [right.ravel()] if right.ndim == 2 else []
        for axis, letter in enumerate(axes(kind)):
            if letter == "1" or sum(letter in axes(one) for one in kinds) > 1:
                wrong += [np.concatenate([right, right.take([0], axis)], axis), np.delete(right, 0, axis)]
        for given[place] in wrong:
            assert_refuses(binding, name, given, numbers, ValueError, " must have ", "shape (", ", got (")


@each_call
def test_read_only_outputs_are_refused(binding, dtype, name, kinds, written, numbers):
    for place in written:
        for layout in (np.asarray, strided, swapped):
            given = arrays(kinds, dtype)
            given[place] = read_only(layout(given[place]))
            assert_refuses(
                binding, name, given, numbers, ValueError, f" {parameters(name)[place]} must be ", "read-only"
            )


LABELLED = [call for call in CALLS if "labels" in call[1] and call[0] not in ("bad_label", "equal_count")]


@pytest.mark.parametrize("call", LABELLED, ids=[call[0] for call in LABELLED])
def test_labels_out_of_range_are_refused(binding, dtype, call):
    name, kinds, _, numbers = call
    for bad in (-1, 4, 2**31, 2**32, 2**32 + 1, -(2**63), 2**63 - 1):
        for position in range(SIZES[0]):
            given = arrays(kinds, dtype)
            given[1][position:] = bad
            words = f" labels must hold class numbers from 0 to 3, got {bad} at position {position}."
            assert_refuses(binding, name, given, numbers, ValueError, words)


@each_call
def test_numbers_of_another_type_are_refused(binding, dtype, name, kinds, written, numbers):
    for place, right in enumerate(numbers):
        if not isinstance(right, float | int):  # settings, and numbers of columns
            continue
        whole = parameters(name)[len(kinds) + place] in ("seed", "forwards", "n_classes")
        for wrong in (None, "0.5", [0.5], 1j, np.ones(2), *([right + 0.5] if whole else [])):
            given = arrays(kinds, dtype)
            kept = copies(given)
            with pytest.raises(TypeError):
                perform(binding, name, given, (*numbers[:place], wrong, *numbers[place + 1 :]))
            np.testing.assert_equal(given, kept)


def test_dropout_masks_of_impossible_numbers_are_refused(binding, dtype):
    mask = np.full((3, 3), 7, dtype)
    for keep in (0, -0.0, -0.5, 1.5, np.nextafter(1, 2), np.nan, np.inf):
        assert_refuses(
            binding, "dropout_mask", [mask], (keep, 1, 1), ValueError, " keep must be ", f"got {float(keep)}"
        )
    for seed, forwards in ((-1, 0), (2**64, 0), (0, -1), (0, 2**64)):
        with pytest.raises((OverflowError, ValueError)):
            binding.dropout_mask(mask, 0.5, seed, forwards)
    assert (mask == 7).all()


NEEDS_COLUMNS = ("argmax", "softmax_crossentropy", "softmax_forward", "softmax_backward")


@each_call
def test_no_rows_are_computed_and_no_columns_are_computed_or_refused(binding, dtype, name, kinds, written, numbers):
    for n, k, m in [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 4), (0, 3, 0), (3, 0, 0), (0, 0, 0)]:
        given = arrays(kinds, dtype, (n, k, m))
        loss = function_of(name) in ("loss_forward", "loss_backward", "pair_backward")
        if m == 0 and (name in NEEDS_COLUMNS or loss):
            assert_refuses(binding, name, given, numbers, ValueError, "got ")
            continue
        returned = perform(binding, name, given, numbers)
        if name == "bad_label":
            assert returned == -1
        elif all(array.size == 0 for array in given):
            assert returned in (None, 0, (0, 0))
        if k == 0 and name in ("dense_forward", "dense_relu_forward"):
            np.testing.assert_array_equal(given[-1], np.broadcast_to(given[2], (n, m)))
        if m == 0 and name == "dense_backward_inputs":
            np.testing.assert_array_equal(given[-1], np.zeros((n, k)))
        if n == 0 and name in ("dense_backward_weights", "dense_backward_biases"):
            np.testing.assert_allclose(given[-1], 0.1 + 0.2 * given[-2], rtol=1e-6)


# Threads


def test_threads_get_the_bits_that_they_would_get_alone(dtype):
    tasks = [
        (name, arrays(kinds, dtype, sizes), numbers)
        for name, kinds, _, numbers in calls_for(dtype)
        for sizes in ((64, 40, 33), (3, 300, 64), (200, 64, 10))
    ]

    def run_all():
        return [run(_kernels.backend, name, copies(given), numbers) for name, given, numbers in tasks]

    alone = run_all()
    barrier = threading.Barrier(8)

    def perform_at_once(_):
        barrier.wait()
        return all(run_all() == alone for _ in range(4))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(perform_at_once, range(8)))


if __name__ == "__main__":
    run_beside_unreadable_memory(sys.argv[1])
