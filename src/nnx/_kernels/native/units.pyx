"""Products of float32 matrices in bfloat16, block by block.

This file is compiled once for matrix units, and once as the plain C that stands in for them in tests. It holds no
Python function. The kernels in use call it by its table of addresses, which the binding layer (`_native.pyx`) gives
their plans.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.math cimport INFINITY
from libc.stdint cimport uint16_t
from libc.string cimport memset

from nnx._kernels.native.kernels cimport *
from nnx._kernels.native.simd cimport *

cdef Units addresses

include "products/blocks.pxi"
include "plans/block_gradients.pxi"


cdef void begin() noexcept nogil:
    units_begin()


cdef void end() noexcept nogil:
    units_end()


cdef void block_product(
    Way way,
    const real_t *left,  # (rows, depth) or, for DWEIGHTS, (depth, rows) in
    const real_t *right,  # (depth, columns) or, for DINPUTS, (columns, depth) in
    real_t *result,  # (rows, columns) out
    Py_ssize_t rows,
    Py_ssize_t depth,
    Py_ssize_t columns,
    char *scratch,  # for both factors in blocks, then GROUP times (BLOCK, BLOCK) numbers, then the left factor again
) noexcept nogil:
    """``result := left · right``, in bfloat16, from blocks in the orders that a plan uses. For tests."""
    cdef uint16_t *left_blocks = <uint16_t *> scratch
    cdef uint16_t *right_blocks = <uint16_t *> (scratch + blocks_space(rows, depth))
    cdef real_t *sums = <real_t *> (scratch + blocks_space(rows, depth) + blocks_space(depth, columns))
    cdef uint16_t *lines = <uint16_t *> (sums + GROUP * BLOCK_SIZE)
    cdef BlockProduct product
    cdef Py_ssize_t i, k
    if way == DWEIGHTS:
        convert(left, 0, depth, rows, blocks_in(depth), lines, NULL, NULL)
        for i in range(blocks_in(rows)):
            for k in range(blocks_in(depth)):
                transpose_lines(block_of(lines, blocks_in(rows), k, i), block_of(left_blocks, blocks_in(depth), i, k))
    else:
        convert(left, 0, rows, depth, 0, left_blocks, NULL, NULL)
    if way == DINPUTS:
        convert(right, 0, columns, depth, 0, NULL, NULL, right_blocks)
    else:
        convert(right, 0, depth, columns, blocks_in(depth), NULL, right_blocks, NULL)
    product.stage, product.next, product.result, product.gate = NULL, NULL, result, NULL
    product.first, product.rows, product.columns, product.pieces = 0, rows, columns, 2
    units_begin()
    multiply_blocks(DINPUTS, &product, left_blocks, right_blocks, blocks_in(depth), sums)  # which adds no biases
    units_end()


if SIDE_OF_BLOCKS != BLOCK:
    raise ImportError("BLOCK must be the same in kernels.pxd and in matrix_units.h.")

fill_layouts(addresses.layouts)
addresses.are_real = HAS_MATRIX_UNITS
addresses.begin, addresses.end = begin, end
addresses.keep_inputs = <keep_rows_t> keep_inputs
addresses.keep_dvalues = <keep_rows_t> keep_dvalues
addresses.convert_weights = <convert_weights_t> convert_weights
addresses.forward = <forward_blocks_t> forward_blocks
addresses.backward = <backward_blocks_t> backward_blocks
addresses.train = <train_blocks_t> train_blocks
addresses.product = <block_product_t> block_product

table = PyCapsule_New(&addresses, "nnx._kernels", NULL)
