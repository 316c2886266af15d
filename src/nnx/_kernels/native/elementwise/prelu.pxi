# The ReLU with a learnt slope below 0: one slope for all columns, or one for each.


cdef inline vec prelu_of(vec x, vec d, vec weight) noexcept nogil:
    """d where x > 0, else weight·d. With x as d it is the value, with dvalues the gradient by x."""
    return v_select(v_greater(x, v_all(0)), d, v_mul(weight, d))


cdef void prelu_apply(
    const real_t *x,  # (rows, columns) in
    const real_t *d,  # (rows, columns) in: x itself, or dvalues
    const real_t *weights,  # (n_weights,) in
    real_t *result,  # (rows, columns) out; may be x or d
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n_weights,  # 1 or columns; 0 if there are no numbers
) noexcept nogil:
    """``result := d`` where x > 0, else ``weights · d``."""
    cdef vec one = v_all(weights[0] if n_weights == 1 else 0)
    cdef Py_ssize_t i, j, at = 0
    cdef int count
    if n_weights == 1:
        rows, columns = 1, rows * columns
    for i in range(rows):
        j = 0
        while j + LANES <= columns:
            v_store(
                result + at + j,
                prelu_of(v_load(x + at + j), v_load(d + at + j), one if n_weights == 1 else v_load(weights + j)),
            )
            j += LANES
        if j < columns:
            count = <int> (columns - j)
            v_store_part(
                result + at + j,
                prelu_of(
                    v_load_part(x + at + j, count), v_load_part(d + at + j, count),
                    one if n_weights == 1 else v_load_part(weights + j, count),
                ), count,
            )
        at += columns


cdef void prelu_forward(
    const real_t *inputs,  # (rows, columns) in
    const real_t *weights,  # (n_weights,) in
    real_t *output,  # (rows, columns) out; may be inputs
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n_weights,
) noexcept nogil:
    """``output := inputs``, or ``weights · inputs`` where not inputs > 0."""
    prelu_apply(inputs, inputs, weights, output, rows, columns, n_weights)


cdef void prelu_backward_inputs(
    const real_t *inputs,  # (rows, columns) in
    const real_t *dvalues,  # (rows, columns) in
    const real_t *weights,  # (n_weights,) in
    real_t *dinputs,  # (rows, columns) out; may be inputs or dvalues
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n_weights,
) noexcept nogil:
    """``dinputs := dvalues``, or ``weights · dvalues`` where not inputs > 0."""
    prelu_apply(inputs, dvalues, weights, dinputs, rows, columns, n_weights)


cdef inline void add_products_below(double *sums, const real_t *x, const real_t *d, int count) noexcept nogil:
    """``sums += x·d`` where not x > 0; lane by lane, in double."""
    cdef vec below = v_load_part(x, count)
    below = v_select(v_greater(below, v_all(0)), v_all(0), v_mul(below, v_load_part(d, count)))
    v_add_to(sums, below)


cdef void prelu_backward_weights(
    const real_t *inputs,  # (rows, columns) in
    const real_t *dvalues,  # (rows, columns) in
    real_t *dweights,  # (n_weights,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n_weights,  # 1 or columns; 0 if there are no numbers
) noexcept nogil:
    """``dweights := Σ dvalues · inputs`` where not inputs > 0, for each slope, row after row, in double."""
    cdef double sums[MOST_LANES]
    cdef double whole = 0
    cdef Py_ssize_t i, j = 0, n = rows * columns
    cdef int l, count
    if n_weights != 1:
        while j < n_weights:
            count = <int> min(<Py_ssize_t> LANES, n_weights - j)
            for l in range(LANES):
                sums[l] = 0
            for i in range(rows):
                add_products_below(sums, inputs + i * columns + j, dvalues + i * columns + j, count)
            for l in range(count):
                dweights[j + l] = <real_t> sums[l]
            j += LANES
        return
    for l in range(LANES):
        sums[l] = 0
    while j < n:
        add_products_below(sums, inputs + j, dvalues + j, <int> min(<Py_ssize_t> LANES, n - j))
        j += LANES
    for l in range(LANES):
        whole += sums[l]
    dweights[0] = <real_t> whole
