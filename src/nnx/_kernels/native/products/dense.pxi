# The dense layer's kernels: the choice of the product for a shape, and the sums over rows.
#
# The order of sums depends only on n_in and n_out, so a row gives the same bits in any batch.


cdef inline Py_ssize_t packed_stride(Py_ssize_t n_in) noexcept nogil:
    """Return the size of a panel of packed weights in numbers: one line more than it holds."""
    return (n_in + 1) * TALL_VECTORS * LANES


cdef void dense_forward(
    const real_t *inputs,  # (rows, n_in) in
    const real_t *weights,  # (n_in, n_out) in
    const real_t *biases,  # (n_out,) in
    real_t *output,  # (rows, n_out) out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
    const real_t *packed,  # weights in panels, packed_stride apart; or NULL
    bint relu,
    const real_t *affine,  # a batch norm after it, as `fold_norm` writes it; or NULL
    real_t *scratch,  # PRODUCT_SCRATCH bytes
) noexcept nogil:
    """``output := inputs · weights + biases``, normalized if `affine`, then max(0, output) if ``relu``."""
    cdef bint beside = affine is not NULL and (has_small_depth(n_out, n_in) or has_few_columns(n_out))
    if beside:  # these products cannot apply it
        dense_forward(inputs, weights, biases, output, rows, n_in, n_out, packed, False, NULL, scratch)
        apply_affine(affine, output, rows, n_out, relu)
    elif has_dots(n_out, n_in):
        few_columns_product(
            inputs, weights, 1, n_out, biases, output, rows, n_out, n_in, 0 if relu else -INFINITY, scratch
        )
    elif has_small_depth(n_out, n_in):
        small_depth_product(inputs, weights, biases, output, rows, n_out, n_in, relu, NULL)
    elif has_few_columns(n_out) and 0 < n_in < LANES and n_out > 0 and rows >= MIN_ROWS_IN_LINES:
        dense_by_lines(inputs, weights, biases, output, rows, n_in, n_out, relu, scratch)
    elif has_few_columns(n_out):
        product(
            weights, 1, n_out, inputs, 1, n_in, NULL, biases, output, 1, n_out, n_out, rows, n_in, NULL,
            0, relu, NULL, NULL, scratch,
        )
    else:
        product(
            inputs, n_in, 1, weights, n_out, 1, biases, NULL, output, n_out, 1, rows, n_out, n_in, packed,
            packed_stride(n_in), relu, NULL, affine, scratch,
        )


cdef void dense_backward_weights(
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    const real_t *weights,  # (n_in, n_out) in
    real_t *dweights,  # (n_in, n_out) out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
    double l1,
    double l2,
    real_t *scratch,  # PRODUCT_SCRATCH bytes
) noexcept nogil:
    """``dweights := inputsᵀ · dvalues + l1·sign(weights) + 2·l2·weights``."""
    if has_few_columns(n_out) and n_out < n_in:
        product(
            dvalues, 1, n_out, inputs, n_in, 1, NULL, NULL, dweights, 1, n_out, n_out, n_in, rows, NULL,
            0, False, NULL, NULL, scratch,
        )
    else:
        product(
            inputs, 1, n_in, dvalues, n_out, 1, NULL, NULL, dweights, n_out, 1, n_in, n_out, rows, NULL,
            0, False, NULL, NULL, scratch,
        )
    add_regularization(weights, dweights, n_in * n_out, l1, l2)


cdef void dense_backward_inputs(
    const real_t *dvalues,  # (rows, n_out) in
    const real_t *weights,  # (n_in, n_out) in
    real_t *dinputs,  # (rows, n_in) out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
    Py_ssize_t unwanted,  # number of first columns that may stay unwritten; 0 if there is a gate
    const real_t *gate,  # (rows, n_in) in: the output of the ReLU before, a mask of dinputs; or NULL
    real_t *scratch,  # PRODUCT_SCRATCH bytes
) noexcept nogil:
    """``dinputs := dvalues · weightsᵀ``, then 0 where `gate` is."""
    cdef Py_ssize_t i, k
    if unwanted and not (has_small_depth(n_in - unwanted, n_out) or has_few_columns(n_in - unwanted)):
        product(
            dvalues, n_out, 1, weights + unwanted * n_out, 1, n_out, NULL, NULL, dinputs + unwanted, n_in, 1, rows,
            n_in - unwanted, n_out, NULL, 0, False, NULL, NULL, scratch,
        )
    elif has_dots(n_in, n_out):
        few_columns_product(dvalues, weights, n_out, 1, NULL, dinputs, rows, n_in, n_out, -INFINITY, scratch)
        if gate is not NULL:
            relu_backward(gate, dinputs, dinputs, rows * n_in)
    elif has_small_depth(n_in, n_out):
        memset(scratch, 0, n_in * sizeof(real_t))
        for i in range(n_in):
            for k in range(n_out):
                scratch[(k + 1) * n_in + i] = weights[i * n_out + k]
        small_depth_product(dvalues, scratch + n_in, scratch, dinputs, rows, n_in, n_out, False, gate)
    elif has_few_columns(n_in):
        product(
            weights, n_out, 1, dvalues, 1, n_out, NULL, NULL, dinputs, 1, n_in, n_in, rows, n_out, NULL,
            0, False, gate, NULL, scratch,
        )
    else:
        product(
            dvalues, n_out, 1, weights, 1, n_out, NULL, NULL, dinputs, n_in, 1, rows, n_in, n_out, NULL,
            0, False, gate, NULL, scratch,
        )


cdef void dense_backward_biases(
    const real_t *dvalues,  # (rows, n_out) in
    const real_t *biases,  # (n_out,) in
    real_t *dbiases,  # (n_out,) out
    Py_ssize_t rows,
    Py_ssize_t n_out,
    double l1,
    double l2,
) noexcept nogil:
    """``dbiases := Σ over rows of dvalues + l1·sign(biases) + 2·l2·biases``.

    Row after row: NumPy adds in this order, and the book's published figures come from it.
    """
    cdef Py_ssize_t j = 0
    cdef int rest = <int> (n_out % LANES)
    while j + 8 * LANES <= n_out:
        sum_lines(8, dvalues + j, dbiases + j, rows, n_out)
        j += 8 * LANES
    while j + LANES <= n_out:
        sum_lines(1, dvalues + j, dbiases + j, rows, n_out)
        j += LANES
    if rest:
        sum_short_lines(dvalues + j, dbiases + j, rows, n_out, rest)
    add_regularization(biases, dbiases, n_out, l1, l2)


cdef inline void sum_lines(
    const int vectors,  # a constant at every call, so that sums live in registers
    const real_t *lines,  # (rows, vectors*LANES) in, rows `line` apart
    real_t *result,  # (vectors*LANES,) out
    Py_ssize_t rows,
    Py_ssize_t line,
) noexcept nogil:
    """``result := Σ over rows of lines``."""
    cdef vec sums[8]
    cdef Py_ssize_t i
    cdef int v
    for v in range(vectors):
        sums[v] = v_all(0)
    for i in range(rows):
        for v in range(vectors):
            sums[v] = v_add(sums[v], v_load(lines + i * line + v * LANES))
    for v in range(vectors):
        v_store(result + v * LANES, sums[v])


cdef inline void sum_short_lines(
    const real_t *lines, real_t *result, Py_ssize_t rows, Py_ssize_t line, int count
) noexcept nogil:
    """`sum_lines` of fewer than LANES columns.

    Loads may reach into the next line, whose sums are not stored. Only the last lines need care.
    """
    cdef vec sums = v_all(0)
    cdef Py_ssize_t i
    cdef Py_ssize_t safe = max(0, rows - (LANES - count + line - 1) // line)
    for i in range(safe):
        sums = v_add(sums, v_load(lines + i * line))
    for i in range(safe, rows):
        sums = v_add(sums, v_load_part(lines + i * line, count))
    v_store_part(result, sums, count)


cdef void add_regularization(
    const real_t *values,  # (n,) in
    real_t *gradients,  # (n,) in and out
    Py_ssize_t n,
    double l1,
    double l2,
) noexcept nogil:
    """``gradients += l1·sign(values) + 2·l2·values``; the sign is −1 where a value is below 0, else +1."""
    if l1:
        map_two(add_sign, values, gradients, <real_t> l1, gradients, n)
    if l2:
        map_two(add_multiple, values, gradients, <real_t> (2 * l2), gradients, n)


cdef inline vec add_sign(vec value, vec gradient, vec scale) noexcept nogil:
    return v_add(gradient, v_select(v_greater(v_all(0), value), v_sub(v_all(0), scale), scale))


cdef inline vec add_multiple(vec value, vec gradient, vec scale) noexcept nogil:
    return v_madd(scale, value, gradient)
