# Columns of categories, each replaced by learnt numbers, beside numeric columns.


cdef inline Py_ssize_t category_of(real_t number, int32_t place, Py_ssize_t n_rows) noexcept nogil:
    """Return a category's row of the weights. Any number has a row, because another thread may change it."""
    cdef Py_ssize_t last = n_rows - 1 - place
    if not number >= 0:
        return place
    # `last` may round up. A number that reaches the rounded one returns `last` itself.
    return place + (last if number >= <real_t> last else <Py_ssize_t> number)


cdef Py_ssize_t embedding_misfit(
    const real_t *inputs,  # (rows, n_in) in
    const int32_t *places,  # (n_in,) in
    const int32_t *counts,  # (n_in,) in: how many categories a column has
    Py_ssize_t rows,
    Py_ssize_t n_in,
) noexcept nogil:
    """Return the index of the first number in a category column that is not a category of it; −1 if there is none."""
    cdef Py_ssize_t i, j
    cdef real_t number
    for j in range(n_in):
        if places[j] >= 0:
            break
    else:
        return -1
    for i in range(rows):
        for j in range(n_in):
            if places[j] < 0:
                continue
            number = inputs[i * n_in + j]
            if not 0 <= number < <real_t> counts[j] or number != <real_t> (<int32_t> number):
                return i * n_in + j
    return -1


cdef inline void copy_numbers(const real_t *source, real_t *target, Py_ssize_t n) noexcept nogil:
    """Copy a few numbers in whole vectors. The last vector may overlap the one before."""
    cdef Py_ssize_t j = 0
    if n < LANES:
        v_store_part(target, v_load_part(source, <int> n), <int> n)
        return
    while j + LANES <= n:
        v_store(target + j, v_load(source + j))
        j += LANES
    if j < n:
        v_store(target + n - LANES, v_load(source + n - LANES))


cdef void embedding_forward(
    const real_t *inputs,  # (rows, n_in) in
    const Places *places,
    const real_t *weights,  # (n_rows, width) in
    real_t *output,  # (rows, n_out) out: the numbers, then `width` columns for each category
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
    Py_ssize_t n_rows,
    Py_ssize_t width,
) noexcept nogil:
    """Replace each category by its row of the weights."""
    cdef Py_ssize_t i, k, n = places.n_numbers
    cdef const int32_t *columns = places.columns
    cdef bint together = n == 0 or columns[n - 1] == n - 1  # the numbers are the first columns
    cdef real_t *embedded
    for i in range(rows):
        if together:
            copy_numbers(inputs, output, n)
        else:
            for k in range(n):
                output[k] = inputs[columns[k]]
        embedded = output + n
        for k in range(n, n_in):
            copy_numbers(
                weights + category_of(inputs[columns[k]], places.first[columns[k]], n_rows) * width, embedded, width
            )
            embedded += width
        inputs += n_in
        output += n_out


cdef void embedding_backward_rows(
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    const Places *places,
    real_t *dweights,  # (n_rows, width) out, the rows from `first` to `end`
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
    Py_ssize_t n_rows,
    Py_ssize_t width,
    Py_ssize_t first,
    Py_ssize_t end,
) noexcept nogil:
    """Add up the gradients of some categories, each in the order of samples."""
    cdef Py_ssize_t i, j, k, row, n = places.n_numbers
    cdef const int32_t *columns = places.columns
    cdef const real_t *gradient
    cdef real_t *own
    memset(dweights + first * width, 0, (end - first) * width * sizeof(real_t))
    for i in range(rows):
        gradient = dvalues + n
        for k in range(n, n_in):
            row = category_of(inputs[columns[k]], places.first[columns[k]], n_rows)
            if first <= row < end:
                own = dweights + row * width
                j = 0
                while j + LANES <= width:
                    v_store(own + j, v_add(v_load(own + j), v_load(gradient + j)))
                    j += LANES
                if j < width:
                    store_columns(
                        own + j, v_add(load_columns(own + j, width - j), load_columns(gradient + j, width - j)),
                        width - j,
                    )
            gradient += width
        inputs += n_in
        dvalues += n_out


cdef void embedding_backward_weights(
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    const Places *places,
    real_t *dweights,  # (n_rows, width) out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
    Py_ssize_t n_rows,
    Py_ssize_t width,
) noexcept nogil:
    """Add up the gradients of each category, in the order of samples."""
    embedding_backward_rows(inputs, dvalues, places, dweights, rows, n_in, n_out, n_rows, width, 0, n_rows)


cdef void embedding_backward_inputs(
    const real_t *dvalues,  # (rows, n_out) in
    const Places *places,
    real_t *dinputs,  # (rows, n_in) out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Write the gradients of numeric columns, and 0 for columns of categories."""
    cdef Py_ssize_t i, k
    for i in range(rows):
        for k in range(n_in):
            dinputs[places.columns[k]] = dvalues[k] if k < places.n_numbers else 0
        dvalues += n_out
        dinputs += n_in
