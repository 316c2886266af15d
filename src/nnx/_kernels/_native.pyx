"""The binding layer of the compiled kernels: it checks every argument at every call and runs kernels without the GIL.

Whatever Python passes, no kernel reads or writes outside an array. Arrays that are not contiguous, not aligned or of
the other byte order are copied, and results are copied back. Arrays of another shape or type, and read-only outputs,
are refused before anything has changed. An input that overlaps an output is copied, unless both are the same array and
the kernel works element by element. Outputs that overlap each other are refused.

The function of the same name in `_numpy` says what each function computes.
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_GetPointer, PyCapsule_New, PyCapsule_SetContext
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from nnx._kernels.native.kernels cimport *
from nnx.predict cimport NNX_PREDICTOR, nnx_predictor

import importlib
import operator

import numpy as np

from nnx._base.config import get_num_threads
from nnx._base.helpers import share

cnp.import_array()

cdef enum:
    ANY = -1  # stands for any size
    ALIGNMENT = 64

#: The tables of the variant in use, for float32 and float64.
cdef Kernels *tables[2]
#: The matrix units' table, if the variant in use has one; and that of plain C, while a test wants it.
cdef const Units *units = NULL
cdef const Units *plain_units = NULL


cdef extern from "processor.h" nogil:
    bint has_matrix_units()
    bint processor_offers(const char *variant)
    bint ask_for_matrix_units()

cdef extern from "float_mode.h" nogil:
    uint64_t enter_kernels()
    void leave_kernels(uint64_t before)


def offers(str variant not None):
    """Return whether this processor can run a variant."""
    return bool(processor_offers(variant.encode("ascii", "replace")))


def use(str variant not None):
    """Use the kernels of a variant (``"avx2"``) from now on."""
    cdef void *floats
    cdef void *doubles
    cdef void *blocks = NULL
    global units
    if not offers(variant):
        raise ImportError(f"This processor lacks the instructions of the variant {variant!r}.")
    vectors = variant
    if variant == "amx":
        vectors, blocks = "avx512", table_of("units_amx")
        if not (<const Units *> blocks).are_real:  # a compiler without the instructions has compiled plain C
            blocks = NULL
    floats, doubles = table_of(f"{vectors}_float32"), table_of(f"{vectors}_float64")
    tables[0], tables[1], units = <Kernels *> floats, <Kernels *> doubles, <const Units *> blocks


cdef void *table_of(str name) except NULL:
    """Return the table of a module of compiled kernels; its layouts come first."""
    cdef Py_ssize_t layouts[N_LAYOUTS]
    cdef void *table
    module = importlib.import_module(f"nnx._kernels.native.{name}")
    table = PyCapsule_GetPointer(module.table, "nnx._kernels")
    fill_layouts(layouts)
    if memcmp(table, layouts, sizeof(layouts)) != 0:
        raise ImportError(f"{module.__name__} is of another build than {__name__}. Install nnx again.")
    return table


cdef enum:
    NOT_ASKED = -1

cdef int granted = NOT_ASKED  # whether the system lets this process use matrix units


def matrix_units():
    """Return whether matrix units do bfloat16 products, their name or the reason, and whether the system refuses them.

    The first call asks the system for them. A process that never calls this does not pay for their registers.
    """
    global granted
    if not has_matrix_units():
        return False, "no matrix units were found", False
    if units is NULL:
        return False, "the kernels in use are not those for matrix units", False
    if granted == NOT_ASKED:
        granted = ask_for_matrix_units()
    if not granted:
        return False, "the system refuses this process the matrix units", True
    return True, "AMX", False


def _use_plain_units(bint wanted):
    """Let plain C replace matrix units in plans that are made from now on: for tests on any processor."""
    global plain_units
    plain_units = <const Units *> table_of("units_plain") if wanted else NULL


cdef const Units *units_of_plans() except? NULL:
    """Return what does products of a new plan in bfloat16 in blocks; NULL if vector units do them."""
    if matrix_units()[0]:
        return units
    return plain_units if units is NULL else NULL


include "native/argument_checks.pxi"
include "native/tables.pxi"


# The functions of `_arrays.py`, compiled


cdef inline bint is_ready(object value, void *dtype, bint writing) noexcept:
    """Return whether a value is an array of a dtype, or float32 or float64, that kernels can use without a copy."""
    if type(value) is not cnp.ndarray:
        return False
    if not (cnp.PyArray_ISCARRAY(value) if writing else cnp.PyArray_ISCARRAY_RO(value)):
        return False
    if dtype is NULL:
        return cnp.PyArray_TYPE(value) == cnp.NPY_FLOAT or cnp.PyArray_TYPE(value) == cnp.NPY_DOUBLE
    # An unpickled array has its own dtype object.
    return <void *> cnp.PyArray_DESCR(value) == dtype or cnp.PyArray_TYPE(value) == (<cnp.dtype> dtype).type_num


cdef bint has_shape(cnp.ndarray array, tuple shape) except -1:
    cdef int i
    if cnp.PyArray_NDIM(array) != len(shape):
        return False
    for i in range(cnp.PyArray_NDIM(array)):
        if shape[i] is None:
            if i > 0 and cnp.PyArray_DIM(array, i) == 0:
                return False
        elif cnp.PyArray_DIM(array, i) != shape[i]:
            return False
    return True


def readable(value, shape, dtype):
    if not is_ready(value, NULL if dtype is None else <void *> dtype, False):
        return False
    if shape is None:
        return cnp.PyArray_NDIM(value) > 0
    return has_shape(value, shape)


def writable(value, tuple shape not None, dtype not None):
    return is_ready(value, <void *> dtype, True) and has_shape(value, shape)


cpdef bint alike(value, cnp.ndarray other, bint writing=False) except -1:
    if other is None:
        raise TypeError("alike: other must be an array, got None.")
    if not is_ready(value, <void *> cnp.PyArray_DESCR(other), writing):
        return False
    return cnp.PyArray_SAMESHAPE(value, other)


def attributes(owner, tuple names not None, cnp.ndarray other not None, bint writing):
    cdef list found = []
    for name in names:
        array = getattr(owner, name, None)
        if not alike(array, other, writing):
            return None
        found.append(array)
    return found


def are_zero(owners, tuple names not None):
    for owner in owners:
        for name in names:
            value = getattr(owner, name, 0)
            if type(value) is not int and type(value) is not float or value:
                return False
    return True


def known_finite(value):
    cdef Kernels *kernels
    cdef cnp.ndarray array
    cdef Py_ssize_t position, n
    cdef uint64_t mode
    if not is_ready(value, NULL, False):
        return False
    array = value
    kernels = tables[0 if cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT else 1]
    if kernels is NULL:  # the backend is another one
        return False
    n = cnp.PyArray_SIZE(array)
    with nogil:
        mode = enter_kernels()
        position = kernels.not_finite(data(array), n)
        leave_kernels(mode)
    return position < 0


# The measurements of `nnx info --measure`


def _multiply_adds(dtype, Py_ssize_t turns):
    """Do multiply-adds that never leave the registers. Return the number of operations."""
    cdef Kernels *kernels = kernels_in_use(np.dtype(dtype).num)
    cdef double result[MOST_LANES]
    cdef Py_ssize_t operations
    cdef uint64_t mode
    with nogil:
        mode = enter_kernels()
        operations = kernels.multiply_adds(turns, result)
        leave_kernels(mode)
    return operations


def _pass_line(cnp.ndarray line not None, int side, int turns):
    """Pass a cache line to and fro with another thread: one thread is side 0, the other side 1.

    Returns whether the other thread was there all the time.

    Parameters
    ----------
    line : int32 array (16,)
        Zeros.
    """
    cdef bint passed
    if not cnp.PyArray_ISCARRAY(line) or cnp.PyArray_TYPE(line) != cnp.NPY_INT32 or cnp.PyArray_SIZE(line) < 16:
        raise ValueError("_pass_line: line must be a writable int32 array of shape (16,).")
    with nogil:
        passed = pass_line(<int *> data(line), side, turns)
    return passed


def empty_like(cnp.ndarray other not None):
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(other), cnp.PyArray_DIMS(other), cnp.PyArray_TYPE(other), 0)


def empty(Py_ssize_t rows, Py_ssize_t columns, cnp.dtype dtype not None):
    cdef cnp.npy_intp shape[2]
    shape[0], shape[1] = rows, columns
    return cnp.PyArray_EMPTY(2, shape, dtype.num, 0)


# Layer_Dense


cdef dense(str where, object inputs, object weights, object biases, object output, bint relu):
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray w = matrix(where, "weights", weights, number, n_in, ANY)
    cdef Py_ssize_t n_out = cnp.PyArray_DIM(w, 1)
    cdef cnp.ndarray b = matrix(where, "biases", biases, number, 1, n_out)
    cdef cnp.ndarray result = matrix(where, "output", output, number, rows, n_out)
    cdef void *scratch
    cdef uint64_t mode
    check_writable(where, "output", output)
    x, w, b = apart(x, result), apart(w, result), apart(b, result)
    scratch = take(kernels.product_scratch)
    with nogil:
        mode = enter_kernels()
        kernels.dense_forward(data(x), data(w), data(b), data(result), rows, n_in, n_out, NULL, relu, NULL, scratch)
        leave_kernels(mode)
    give(scratch)
    give_back(output, result)


def dense_forward(inputs, weights, biases, output):
    dense("dense_forward", inputs, weights, biases, output, False)


def dense_relu_forward(inputs, weights, biases, output):
    dense("dense_relu_forward", inputs, weights, biases, output, True)


def dense_backward_weights(inputs, dvalues, weights, dweights, double l1, double l2):
    cdef str where = "dense_backward_weights"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, rows, ANY)
    cdef Py_ssize_t n_out = cnp.PyArray_DIM(d, 1)
    cdef cnp.ndarray w = matrix(where, "weights", weights, number, n_in, n_out)
    cdef cnp.ndarray result = matrix(where, "dweights", dweights, number, n_in, n_out)
    cdef void *scratch
    cdef uint64_t mode
    check_writable(where, "dweights", dweights)
    x, d, w = apart(x, result), apart(d, result), apart(w, result)
    scratch = take(kernels.product_scratch)
    with nogil:
        mode = enter_kernels()
        kernels.dense_backward_weights(
            data(x), data(d), data(w), data(result), rows, n_in, n_out, l1, l2, scratch
        )
        leave_kernels(mode)
    give(scratch)
    give_back(dweights, result)


def dense_backward_biases(dvalues, biases, dbiases, double l1, double l2):
    cdef str where = "dense_backward_biases"
    cdef Kernels *kernels = kernels_for(where, "dvalues", dvalues)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(d, 0), n_out = cnp.PyArray_DIM(d, 1)
    cdef cnp.ndarray b = matrix(where, "biases", biases, number, 1, n_out)
    cdef cnp.ndarray result = matrix(where, "dbiases", dbiases, number, 1, n_out)
    cdef uint64_t mode
    check_writable(where, "dbiases", dbiases)
    d, b = apart(d, result), apart(b, result)
    with nogil:
        mode = enter_kernels()
        kernels.dense_backward_biases(data(d), data(b), data(result), rows, n_out, l1, l2)
        leave_kernels(mode)
    give_back(dbiases, result)


def dense_backward_inputs(dvalues, weights, dinputs):
    cdef str where = "dense_backward_inputs"
    cdef Kernels *kernels = kernels_for(where, "dvalues", dvalues)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(d, 0), n_out = cnp.PyArray_DIM(d, 1)
    cdef cnp.ndarray w = matrix(where, "weights", weights, number, ANY, n_out)
    cdef Py_ssize_t n_in = cnp.PyArray_DIM(w, 0)
    cdef cnp.ndarray result = matrix(where, "dinputs", dinputs, number, rows, n_in)
    cdef void *scratch
    cdef uint64_t mode
    check_writable(where, "dinputs", dinputs)
    d, w = apart(d, result), apart(w, result)
    scratch = take(kernels.product_scratch)
    with nogil:
        mode = enter_kernels()
        kernels.dense_backward_inputs(data(d), data(w), data(result), rows, n_in, n_out, 0, NULL, scratch)
        leave_kernels(mode)
    give(scratch)
    give_back(dinputs, result)


def round_bfloat16(values, result):
    cdef str where = "round_bfloat16"
    cdef Kernels *kernels = kernels_in_use(cnp.NPY_FLOAT)
    if not has_type(values, cnp.NPY_FLOAT):
        refused(where, "values", values, cnp.NPY_FLOAT, ())
    cdef cnp.ndarray x = plain(values)
    cdef cnp.ndarray out = like(where, "result", result, cnp.NPY_FLOAT, x)
    cdef uint64_t mode
    check_writable(where, "result", result)
    x = same_or_apart(x, out)
    with nogil:
        mode = enter_kernels()
        kernels.round_bfloat16(data(x), data(out), cnp.PyArray_SIZE(x))
        leave_kernels(mode)
    give_back(result, out)


def regularization_loss(values, double l1, double l2):
    cdef str where = "regularization_loss"
    cdef Kernels *kernels = kernels_for(where, "values", values)
    cdef cnp.ndarray v = plain(values)
    cdef double loss
    cdef uint64_t mode
    with nogil:
        mode = enter_kernels()
        loss = kernels.regularization_loss(data(v), cnp.PyArray_SIZE(v), l1, l2)
        leave_kernels(mode)
    return loss


# Layer_Dropout


def dropout_mask(mask, double keep, seed, forwards):
    cdef str where = "dropout_mask"
    cdef Kernels *kernels = kernels_for(where, "mask", mask)
    cdef cnp.ndarray result = matrix(where, "mask", mask, type_of(kernels), ANY, ANY)
    cdef uint64_t key = operator.index(seed), count = operator.index(forwards)
    cdef uint64_t mode
    check_writable(where, "mask", mask)
    if not 0 < keep <= 1:
        raise ValueError(f"{where}: keep must be a number above 0, up to 1, got {keep!r}.")
    with nogil:
        mode = enter_kernels()
        kernels.dropout_mask(
            data(result), 0, cnp.PyArray_DIM(result, 0), cnp.PyArray_DIM(result, 1), keep, key, count
        )
        leave_kernels(mode)
    give_back(mask, result)


def dropout_apply(values, mask, output):
    cdef Kernels *kernels = kernels_for("dropout_apply", "values", values)
    number_by_number("dropout_apply", kernels.multiply, kernels, "values", values, "mask", mask, "output", output)


# Element by element


cdef number_by_number(
    str where, map_two_t kernel, Kernels *kernels, str name_x, object given_x, str name_y, object given_y,
    str name_result, object given_result,
):
    """Run a kernel that computes one number from two."""
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = plain(given_x)
    cdef cnp.ndarray y = like(where, name_y, given_y, number, x)
    cdef cnp.ndarray result = like(where, name_result, given_result, number, x)
    cdef uint64_t mode
    check_writable(where, name_result, given_result)
    x, y = same_or_apart(x, result), same_or_apart(y, result)
    with nogil:
        mode = enter_kernels()
        kernel(data(x), data(y), data(result), cnp.PyArray_SIZE(x))
        leave_kernels(mode)
    give_back(given_result, result)


_VECTOR_FUNCTIONS = {
    "exp": EXP, "exp_near": EXP_NEAR, "log": LOG, "expm1": EXPM1, "log1p": LOG1P, "softplus": SOFTPLUS, "tanh": TANH,
    "erf": ERF, "normal_cdf": NORMAL_CDF, "normal_pdf": NORMAL_PDF, "cosine_of_turns": COSINE_OF_TURNS,
    "sine_of_turns": SINE_OF_TURNS,
}


def _vector_function(name, values, output):
    """A function of each number, as the other kernels inline it: for tests."""
    cdef Kernels *kernels = kernels_for("_vector_function", "values", values)
    cdef int which = _VECTOR_FUNCTIONS[name]
    cdef cnp.ndarray x = plain(values)
    cdef cnp.ndarray result = like("_vector_function", "output", output, type_of(kernels), x)
    cdef uint64_t mode
    check_writable("_vector_function", "output", output)
    x = same_or_apart(x, result)
    with nogil:
        mode = enter_kernels()
        kernels.vector_function(which, data(x), data(result), cnp.PyArray_SIZE(x))
        leave_kernels(mode)
    give_back(output, result)


_WAYS = {"output": OUTPUT, "dinputs": DINPUTS, "dweights": DWEIGHTS}


def _block_product(name, left, right, result):
    """A product in bfloat16 as plans do it in blocks, on matrix units or in the plain C that replaces them: for tests.

    ``result := left · right`` for an output, ``left · rightᵀ`` for dinputs, ``leftᵀ · right`` for dweights.
    """
    cdef str where = "_block_product"
    cdef const Units *multiplier
    cdef Way way = _WAYS[name]
    cdef cnp.ndarray x = matrix(where, "left", left, cnp.NPY_FLOAT, ANY, ANY)
    cdef int across = 0 if way == DWEIGHTS else 1
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 1 - across), depth = cnp.PyArray_DIM(x, across), columns
    cdef cnp.ndarray y, out
    cdef void *scratch
    cdef uint64_t mode
    if way == DINPUTS:
        y = matrix(where, "right", right, cnp.NPY_FLOAT, ANY, depth)
        columns = cnp.PyArray_DIM(y, 0)
    else:
        y = matrix(where, "right", right, cnp.NPY_FLOAT, depth, ANY)
        columns = cnp.PyArray_DIM(y, 1)
    out = matrix(where, "result", result, cnp.NPY_FLOAT, rows, columns)
    check_writable(where, "result", result)
    if depth == 0:
        raise ValueError(f"{where}: left and right must have a dimension of at least 1 in common, got 0.")
    if units is not NULL and not matrix_units()[0]:
        raise RuntimeError(f"{where}: {matrix_units()[1]}.")
    multiplier = units if units is not NULL else <const Units *> table_of("units_plain")
    x, y = apart(x, out), apart(y, out)
    scratch = take(2 * blocks_space(rows, depth) + blocks_space(depth, columns) + GROUP * BLOCK_SIZE * sizeof(float))
    with nogil:
        mode = enter_kernels()
        multiplier.product(way, data(x), data(y), data(out), rows, depth, columns, <char *> scratch)
        leave_kernels(mode)
    give(scratch)
    give_back(result, out)


# Activations


cdef activate(str where, Pass which, str name, str name_x, object given_x, object given_d, str name_result,
              object given_result, object given_settings):
    """Run an activation by its name."""
    cdef Kernels *kernels = kernels_for(where, name_x, given_x)
    cdef const Activation *activation = activation_of(kernels, name)
    cdef int number = type_of(kernels)
    cdef bint by_rows = activation.traits & WHOLE_ROWS
    cdef cnp.ndarray x = classes_of(where, name_x, given_x, number) if by_rows else plain(given_x)
    cdef cnp.ndarray d = like(where, "dvalues", given_d, number, x) if which == BACKWARD else x
    cdef cnp.ndarray result = like(where, name_result, given_result, number, x)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0) if by_rows else cnp.PyArray_SIZE(x)
    cdef Py_ssize_t columns = cnp.PyArray_DIM(x, 1) if by_rows else 1
    cdef double settings[MAX_SETTINGS]
    cdef void *scratch = NULL
    cdef uint64_t mode
    take_settings(settings, given_settings, activation.n_settings)
    check_writable(where, name_result, given_result)
    x, d = same_or_apart(x, result), same_or_apart(d, result)
    if by_rows:
        scratch = take(columns * ALIGNMENT)
    with nogil:
        mode = enter_kernels()
        activation.run(which, data(x), data(d), data(result), rows, columns, settings, scratch)
        leave_kernels(mode)
    if by_rows:
        give(scratch)
    give_back(given_result, result)


def activation_forward(str name not None, inputs, output, settings=()):
    activate("activation_forward", FORWARD, name, "inputs", inputs, None, "output", output, settings)


def activation_backward(str name not None, source, dvalues, dinputs, settings=()):
    activate("activation_backward", BACKWARD, name, "source", source, dvalues, "dinputs", dinputs, settings)


cdef cnp.ndarray slopes(str where, str name, object given, int number, cnp.ndarray x):
    """Return an array (1, k) of a PReLU's slopes. k is 1 or the size of the last axis of x."""
    cdef cnp.ndarray found = matrix(where, name, given, number, 1, ANY)
    cdef Py_ssize_t count = cnp.PyArray_DIM(found, 1)
    cdef int axes = cnp.PyArray_NDIM(x)
    if count != 1 and (axes == 0 or count != cnp.PyArray_DIM(x, axes - 1)):
        refused(where, name, given, number, (1, cnp.PyArray_DIM(x, axes - 1) if axes else 1))
    return found


cdef inline Py_ssize_t last_axis(cnp.ndarray x) noexcept:
    """Return the size of the last axis, or 1 if there is none or it is empty."""
    return max(1, cnp.PyArray_DIM(x, cnp.PyArray_NDIM(x) - 1)) if cnp.PyArray_NDIM(x) else 1


def prelu_forward(inputs, weights, output):
    cdef str where = "prelu_forward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = plain(inputs)
    cdef cnp.ndarray w = slopes(where, "weights", weights, number, x)
    cdef cnp.ndarray result = like(where, "output", output, number, x)
    cdef Py_ssize_t n_weights = cnp.PyArray_DIM(w, 1), columns = last_axis(x), rows = cnp.PyArray_SIZE(x) // columns
    cdef uint64_t mode
    check_writable(where, "output", output)
    x, w = same_or_apart(x, result), apart(w, result)
    with nogil:
        mode = enter_kernels()
        kernels.prelu_forward(data(x), data(w), data(result), rows, columns, n_weights)
        leave_kernels(mode)
    give_back(output, result)


def prelu_backward_inputs(inputs, dvalues, weights, dinputs):
    cdef str where = "prelu_backward_inputs"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = plain(inputs)
    cdef cnp.ndarray d = like(where, "dvalues", dvalues, number, x)
    cdef cnp.ndarray w = slopes(where, "weights", weights, number, x)
    cdef cnp.ndarray result = like(where, "dinputs", dinputs, number, x)
    cdef Py_ssize_t n_weights = cnp.PyArray_DIM(w, 1), columns = last_axis(x), rows = cnp.PyArray_SIZE(x) // columns
    cdef uint64_t mode
    check_writable(where, "dinputs", dinputs)
    x, d, w = same_or_apart(x, result), same_or_apart(d, result), apart(w, result)
    with nogil:
        mode = enter_kernels()
        kernels.prelu_backward_inputs(data(x), data(d), data(w), data(result), rows, columns, n_weights)
        leave_kernels(mode)
    give_back(dinputs, result)


def prelu_backward_weights(inputs, dvalues, dweights):
    cdef str where = "prelu_backward_weights"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = plain(inputs)
    cdef cnp.ndarray d = like(where, "dvalues", dvalues, number, x)
    cdef cnp.ndarray result = slopes(where, "dweights", dweights, number, x)
    cdef Py_ssize_t n_weights = cnp.PyArray_DIM(result, 1), columns = last_axis(x)
    cdef Py_ssize_t rows = cnp.PyArray_SIZE(x) // columns
    cdef uint64_t mode
    check_writable(where, "dweights", dweights)
    x, d = apart(x, result), apart(d, result)
    with nogil:
        mode = enter_kernels()
        kernels.prelu_backward_weights(data(x), data(d), data(result), rows, columns, n_weights)
        leave_kernels(mode)
    give_back(dweights, result)


# Losses


def total(values):
    cdef Kernels *kernels = kernels_for("total", "values", values)
    cdef cnp.ndarray v = plain(values)
    cdef double result
    cdef uint64_t mode
    with nogil:
        mode = enter_kernels()
        result = kernels.total(data(v), cnp.PyArray_SIZE(v))
        leave_kernels(mode)
    return result


cdef judge(str where, LossPart part, str name, object y_pred, object targets, str name_result, object given_result,
           object given_settings, object own):
    """Run a loss by its name."""
    cdef Kernels *kernels = kernels_for(where, "y_pred", y_pred)
    cdef const Loss *loss = loss_of(kernels, name)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray p = classes_of(where, "y_pred", y_pred, number)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(p, 0), columns = cnp.PyArray_DIM(p, 1)
    cdef cnp.ndarray y = None, result
    cdef double settings[MAX_SETTINGS]
    cdef int32_t *labels = NULL
    cdef cnp.ndarray numbers = take_own_numbers(where, own, number, columns)
    cdef const void *against
    cdef uint64_t mode
    take_settings(settings, given_settings, loss.n_settings)
    if part == PAIR_GRADIENT and not loss.pair[0]:
        raise ValueError(f"{where}: name must be a loss that pairs with an activation, got {name!r}.")
    if part == SAMPLE_LOSSES:
        result = vector(where, name_result, given_result, number, rows)
    else:
        result = like(where, name_result, given_result, number, p)
    check_writable(where, name_result, given_result)
    if not loss.traits & BY_LABELS:
        y = like(where, "targets", targets, number, p)
        y = apart(y, result) if part == SAMPLE_LOSSES else same_or_apart(y, result)
        p = apart(p, result) if part == SAMPLE_LOSSES else same_or_apart(p, result)
        against = data(y)
    else:
        p = apart(p, result)
        labels = take_labels(where, targets, rows, columns)
        against = labels
    with nogil:
        mode = enter_kernels()
        loss.run(part, data(p), against, data(result), rows, columns, rows, settings, data_or_null(numbers))
        leave_kernels(mode)
    if labels is not NULL:
        give(labels)
    give_back(given_result, result)


def loss_forward(str name not None, y_pred, targets, sample_losses, settings=(), own=None):
    judge("loss_forward", SAMPLE_LOSSES, name, y_pred, targets, "sample_losses", sample_losses, settings, own)


def loss_backward(str name not None, y_pred, targets, dinputs, settings=(), own=None):
    judge("loss_backward", GRADIENT, name, y_pred, targets, "dinputs", dinputs, settings, own)


def pair_backward(str name not None, y_pred, targets, dinputs, settings=(), own=None):
    judge("pair_backward", PAIR_GRADIENT, name, y_pred, targets, "dinputs", dinputs, settings, own)


def softmax_crossentropy(inputs, labels, output, dinputs, double smoothing=0.0, double clip=1e-7):
    cdef str where = "softmax_crossentropy"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = classes_of(where, "inputs", inputs, number)
    cdef cnp.ndarray probabilities = like(where, "output", output, number, x)
    cdef cnp.ndarray losses, gradients = None
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), columns = cnp.PyArray_DIM(x, 1)
    cdef Py_ssize_t hits
    cdef double loss
    cdef void *into = NULL
    cdef int32_t *numbers
    cdef void *scratch
    cdef uint64_t mode
    check_writable(where, "output", output)
    x = same_or_apart(x, probabilities)
    if dinputs is not None:
        gradients = like(where, "dinputs", dinputs, number, x)
        check_writable(where, "dinputs", dinputs)
        distinct(where, "output", output, "dinputs", dinputs)
        x = apart(x, gradients)
        into = data(gradients)
    losses = cnp.PyArray_EMPTY(1, cnp.PyArray_DIMS(x), number, 0)
    numbers = take_labels(where, labels, rows, columns)
    scratch = take(columns * ALIGNMENT)
    with nogil:
        mode = enter_kernels()
        hits = kernels.softmax_crossentropy(
            data(x), numbers, data(probabilities), into, data(losses), rows, columns, columns, 1, rows, smoothing,
            clip, NULL, scratch,
        )
        loss = kernels.total(data(losses), rows)
        leave_kernels(mode)
    give(scratch)
    give(numbers)
    give_back(output, probabilities)
    if dinputs is not None:
        give_back(dinputs, gradients)
    return loss, hits


# Accuracy


def argmax(values, classes):
    cdef str where = "argmax"
    cdef Kernels *kernels = kernels_for(where, "values", values)
    cdef cnp.ndarray v = classes_of(where, "values", values, type_of(kernels))
    cdef cnp.ndarray result = vector(where, "classes", classes, cnp.NPY_INTP, cnp.PyArray_DIM(v, 0))
    cdef uint64_t mode
    check_writable(where, "classes", classes)
    v = apart(v, result)
    with nogil:
        mode = enter_kernels()
        kernels.argmax(data(v), <Py_ssize_t *> data(result), cnp.PyArray_DIM(v, 0), cnp.PyArray_DIM(v, 1))
        leave_kernels(mode)
    give_back(classes, result)


def equal_count(predictions, targets):
    cdef str where = "equal_count"
    cdef cnp.ndarray p, t
    cdef const Py_ssize_t *a
    cdef const Py_ssize_t *b
    cdef Py_ssize_t i, hits = 0
    if not has_type(predictions, cnp.NPY_INTP):
        refused(where, "predictions", predictions, cnp.NPY_INTP, (ANY,))
    p = plain(predictions)
    t = like(where, "targets", targets, cnp.NPY_INTP, p)
    a, b = <const Py_ssize_t *> data(p), <const Py_ssize_t *> data(t)
    for i in range(cnp.PyArray_SIZE(p)):
        hits += a[i] == b[i]
    return hits


def near_count(y_pred, y_true, double precision):
    cdef Kernels *kernels = kernels_for("near_count", "y_pred", y_pred)
    cdef cnp.ndarray p = plain(y_pred)
    cdef cnp.ndarray y = like("near_count", "y_true", y_true, type_of(kernels), p)
    cdef Py_ssize_t hits
    cdef uint64_t mode
    with nogil:
        mode = enter_kernels()
        hits = kernels.near_count(data(p), data(y), cnp.PyArray_SIZE(p), precision)
        leave_kernels(mode)
    return hits


def bad_label(labels, Py_ssize_t n_classes):
    cdef cnp.ndarray numbers = vector("bad_label", "labels", labels, cnp.NPY_INTP, ANY)
    cdef const Py_ssize_t *label = <const Py_ssize_t *> data(numbers)
    cdef Py_ssize_t i
    for i in range(cnp.PyArray_SIZE(numbers)):
        if not 0 <= label[i] < n_classes:
            return i
    return -1


# Optimizers


cdef inline cnp.ndarray changed(str where, str name, object given, int number, object first):
    """Return an array to read and write, of the first one's shape."""
    cdef cnp.ndarray array = like(where, name, given, number, first)
    check_writable(where, name, given)
    return array


def optimizer_update(str name not None, values, gradients, tuple states not None, double rate, double step, settings):
    cdef str where = "optimizer_update"
    cdef Kernels *kernels = kernels_for(where, "values", values)
    cdef const Rule *rule = rule_of(kernels, name)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray v = changed(where, "values", values, number, values)
    cdef cnp.ndarray g = like(where, "gradients", gradients, number, values)
    cdef cnp.ndarray array
    cdef double numbers[MAX_SETTINGS]
    cdef void *kept_states[MAX_STATES]
    cdef list given = [values, *states], arrays = [v]
    cdef uint64_t mode
    cdef int i, k
    take_settings(numbers, settings, rule.n_settings)
    if len(states) != rule.n_states:
        raise ValueError(f"{where}: states must be {rule.n_states} arrays, got {len(states)}.")
    for i in range(rule.n_states):
        array = changed(where, "states", states[i], number, values)
        for k in range(i + 1):
            distinct(where, "values" if k == 0 else "states", given[k], "states", states[i])
        arrays.append(array)
        kept_states[i] = data(array)
    g = same_or_apart(g, v) if rule.n_states == 0 else apart(g, v)
    for i in range(rule.n_states):
        g = apart(g, arrays[i + 1])
    with nogil:
        mode = enter_kernels()
        kernels.update_by_rule(rule, data(v), data(g), kept_states, cnp.PyArray_SIZE(v), rate, step, numbers)
        leave_kernels(mode)
    for i in range(len(arrays)):
        give_back(given[i], arrays[i])


cdef with_number(str where, scale_t kernel, Kernels *kernels, str name_x, object given_x, str name_result,
                 object given_result, double factor):
    """Run a kernel that computes a number from a number and a constant."""
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = plain(given_x)
    cdef cnp.ndarray result = like(where, name_result, given_result, number, x)
    cdef uint64_t mode
    check_writable(where, name_result, given_result)
    x = same_or_apart(x, result)
    with nogil:
        mode = enter_kernels()
        kernel(data(x), data(result), cnp.PyArray_SIZE(x), factor)
        leave_kernels(mode)
    give_back(given_result, result)


def clip_gradients(gradients, clipped, double limit):
    cdef Kernels *kernels = kernels_for("clip_gradients", "gradients", gradients)
    with_number(
        "clip_gradients", kernels.clip_gradients, kernels, "gradients", gradients, "clipped", clipped, limit
    )


def scale_gradients(gradients, scaled, double factor):
    cdef Kernels *kernels = kernels_for("scale_gradients", "gradients", gradients)
    with_number(
        "scale_gradients", kernels.scale_gradients, kernels, "gradients", gradients, "scaled", scaled, factor
    )


def average_update(averages, values, double keep):
    cdef str where = "average_update"
    cdef Kernels *kernels = kernels_for(where, "averages", averages)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray a = changed(where, "averages", averages, number, averages)
    cdef cnp.ndarray v = apart(like(where, "values", values, number, averages), a)
    cdef uint64_t mode
    with nogil:
        mode = enter_kernels()
        kernels.average_update(data(a), data(v), cnp.PyArray_SIZE(a), keep)
        leave_kernels(mode)
    give_back(averages, a)


include "native/column_layers.pxi"


# Whole calls of methods, and whole runs


include "native/plans/orders.pxi"
include "native/plans/plan.pxi"
include "native/calls.pxi"
include "native/plans/segment.pxi"
include "native/plans/minimization.pxi"
include "native/plans/repeat.pxi"
include "native/plans/inference.pxi"
include "native/plans/epochs.pxi"
include "native/plans/group.pxi"
include "native/plans/predictor.pxi"
