# Columns of numbers, and their encodings after all columns: where between given edges a number lies.


cdef inline vec part_of_way(vec x, vec low, vec high) noexcept nogil:
    """(x − low) / (high − low), kept within 0 and 1. For a NaN, minimum and maximum return their second argument."""
    return v_max(v_all(0), v_min(v_all(1), v_div(v_sub(x, low), v_sub(high, low))))


cdef void piecewise_linear_forward(
    const real_t *inputs,  # (rows, n_in) in
    const Encoded *encoded,
    real_t *output,  # (rows, n_out) out: the inputs, then an encoding for two edges in a row of a column
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Pass numbers on, and append how far each has come from one edge to the next.

    A column's last vector may reach into the next column's encodings, which are written later.
    """
    cdef const int32_t *offsets = encoded.offsets
    cdef const real_t *low
    cdef real_t *parts
    cdef Py_ssize_t i, c, k, count, left
    cdef int rest
    cdef vec x
    for i in range(rows):
        copy_numbers(inputs, output, n_in)
        parts = output + n_in
        left = n_out - n_in
        for c in range(encoded.n_columns):
            x = v_all(inputs[encoded.columns[c]])
            low = <const real_t *> encoded.edges + offsets[c]
            count = offsets[c + 1] - offsets[c] - 1
            k = 0
            while k < count and k + LANES <= left:
                v_store(parts + k, part_of_way(x, v_load(low + k), v_load(low + k + 1)))
                k += LANES
            if k < count:
                rest = <int> (left - k)
                v_store_part(
                    parts + k, part_of_way(x, v_load_part(low + k, rest), v_load_part(low + k + 1, rest)), rest
                )
            parts += count
            left -= count
        inputs += n_in
        output += n_out


cdef inline Py_ssize_t edges_up_to(real_t x, const real_t *edges, Py_ssize_t n) noexcept nogil:
    """Return how many of some increasing edges, at least one, are not larger than x; 0 if x is NaN."""
    cdef Py_ssize_t at = 0, half
    while n > 1:
        half = n // 2
        at += half if edges[at + half - 1] <= x else 0
        n -= half
    return at + (edges[at] <= x)


cdef void piecewise_linear_backward(
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    const Encoded *encoded,
    real_t *dinputs,  # (rows, n_in) out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Write the gradients of numbers, with the gradient of the encoding that is neither 0 nor 1."""
    cdef const int32_t *offsets = encoded.offsets
    cdef const real_t *edges
    cdef Py_ssize_t i, c, k, n, j
    for i in range(rows):
        copy_numbers(dvalues, dinputs, n_in)
        for c in range(encoded.n_columns):
            edges = <const real_t *> encoded.edges + offsets[c]
            n = offsets[c + 1] - offsets[c]
            j = encoded.columns[c]
            k = edges_up_to(inputs[j], edges, n)
            if 0 < k < n:
                dinputs[j] += dvalues[n_in + offsets[c] - c + k - 1] / (edges[k] - edges[k - 1])
        inputs += n_in
        dvalues += n_out
        dinputs += n_in


cdef void thermometer_forward(
    const real_t *inputs,  # (rows, n_in) in
    const Encoded *encoded,
    real_t *output,  # (rows, n_out) out: the inputs, then an encoding for each edge of a column
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Pass numbers on, and append which edges each is above. Vectors reach on as in `piecewise_linear_forward`."""
    cdef const int32_t *offsets = encoded.offsets
    cdef const real_t *edges
    cdef real_t *parts
    cdef Py_ssize_t i, c, k, count, left
    cdef int rest
    cdef vec x, zero = v_all(0), one = v_all(1)
    for i in range(rows):
        copy_numbers(inputs, output, n_in)
        parts = output + n_in
        left = n_out - n_in
        for c in range(encoded.n_columns):
            x = v_all(inputs[encoded.columns[c]])
            edges = <const real_t *> encoded.edges + offsets[c]
            count = offsets[c + 1] - offsets[c]
            k = 0
            while k < count and k + LANES <= left:
                v_store(parts + k, v_select(v_greater(x, v_load(edges + k)), one, zero))
                k += LANES
            if k < count:
                rest = <int> (left - k)
                v_store_part(parts + k, v_select(v_greater(x, v_load_part(edges + k, rest)), one, zero), rest)
            parts += count
            left -= count
        inputs += n_in
        output += n_out


cdef void thermometer_backward(
    const real_t *inputs,  # not read: the call is the same as of `piecewise_linear_backward`
    const real_t *dvalues,  # (rows, n_out) in
    const Encoded *encoded,
    real_t *dinputs,  # (rows, n_in) out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Write the gradients of numbers. The encodings have no slope."""
    cdef Py_ssize_t i
    for i in range(rows):
        copy_numbers(dvalues + i * n_out, dinputs + i * n_in, n_in)


cdef void combinations_forward(
    const real_t *inputs,  # (rows, n_in) in
    const Encoded *encoded,  # the columns of each combination, and their factors
    real_t *output,  # (rows, n_out) out: the inputs, then the combinations
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Pass numbers on, and append sums of some of them, each times its factor."""
    cdef const real_t *factors = <const real_t *> encoded.edges
    cdef Py_ssize_t i, c, k
    cdef real_t total
    for i in range(rows):
        copy_numbers(inputs, output, n_in)
        for c in range(encoded.n_columns):
            total = 0
            for k in range(encoded.offsets[c], encoded.offsets[c + 1]):
                total += inputs[encoded.columns[k]] * factors[k]
            output[n_in + c] = total
        inputs += n_in
        output += n_out


cdef void combinations_backward(
    const real_t *inputs,  # not read
    const real_t *dvalues,  # (rows, n_out) in
    const Encoded *encoded,
    real_t *dinputs,  # (rows, n_in) out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Write the gradients of numbers, and add to each the gradients of its combinations, times its factors."""
    cdef const real_t *factors = <const real_t *> encoded.edges
    cdef Py_ssize_t i, c, k
    for i in range(rows):
        copy_numbers(dvalues, dinputs, n_in)
        for c in range(encoded.n_columns):
            for k in range(encoded.offsets[c], encoded.offsets[c + 1]):
                dinputs[encoded.columns[k]] += dvalues[n_in + c] * factors[k]
        dvalues += n_out
        dinputs += n_in
