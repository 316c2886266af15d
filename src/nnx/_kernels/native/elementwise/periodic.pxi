# Columns of numbers, and sums of trained waves of some of them after all columns. Many rows are computed at a time, one
# in each lane of a vector. Before that, columns are copied into lines.

cdef enum:
    WAVE_ROWS = 128  # rows that are computed together: a gradient adds up its lanes once for them


cdef void take_lines(
    const real_t *values,  # (rows, columns) in: from the first wanted column on
    Py_ssize_t columns,
    Py_ssize_t rows,
    Py_ssize_t n,
    real_t *lines,  # (n, WAVE_ROWS) out, with zeros after the rows
) noexcept nogil:
    """Copy some columns.

    Compilers do not vectorize a loop that prefetches. Gathers are not faster here, and their code is much longer.
    """
    cdef Py_ssize_t i, j
    memset(lines, 0, n * WAVE_ROWS * sizeof(real_t))
    for j in range(n):
        for i in range(rows):
            fetch_ahead(values + (i + 1) * columns + j)
            lines[j * WAVE_ROWS + i] = values[i * columns + j]


cdef inline vec turns_of(real_t frequency, real_t phase, vec x) noexcept nogil:
    """(2π·frequency·x + phase) / 2π."""
    return v_madd(v_all(frequency), x, v_all(phase * <real_t> 0.15915494309189535))


cdef inline vec product_of_lines(
    const real_t *factors,  # (n,) in
    const real_t *lines,  # (n, WAVE_ROWS) in: from the first wanted row on
    Py_ssize_t n,
) noexcept nogil:
    """Return Σ factors · lines for a vector's rows."""
    cdef vec total = v_mul(v_all(factors[0]), v_load(lines))
    cdef Py_ssize_t j
    for j in range(1, n):
        total = v_madd(v_all(factors[j]), v_load(lines + j * WAVE_ROWS), total)
    return total


cdef inline real_t total_of(real_t *lanes) noexcept nogil:
    """Return the sum of a vector's lanes. It overwrites them."""
    cdef Py_ssize_t l, n = LANES
    while n > 1:
        n //= 2
        for l in range(n):
            lanes[l] += lanes[l + n]
    return lanes[0]


cdef void periodic_forward(
    const real_t *inputs,  # (rows, n_in) in
    const Periodic *periodic,
    const real_t *weights,  # (n_columns, size) in
    real_t *output,  # (rows, n_out) out: the inputs, then `width` sums of each column's waves
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Pass numbers on, and append the sums of their waves."""
    cdef real_t x[WAVE_ROWS]
    cdef real_t sums[MAX_SUMS * WAVE_ROWS]
    cdef Py_ssize_t n = periodic.n_frequencies, width = periodic.width, high, i, c, f, j, l
    cdef const real_t *own
    cdef const real_t *factors
    cdef vec cosine
    while rows > 0:
        high = min(rows, <Py_ssize_t> WAVE_ROWS)
        for i in range(high):
            copy_numbers(inputs + i * n_in, output + i * n_out, n_in)
        for c in range(periodic.n_columns):
            own = weights + c * periodic.size
            take_lines(inputs + periodic.columns[c], n_in, high, 1, x)
            memset(sums, 0, width * WAVE_ROWS * sizeof(real_t))
            for f in range(n):
                factors = own + 2 * n + f * width
                l = 0
                while l < high:
                    cosine = v_cosine_of_turns(turns_of(own[f], own[n + f], v_load(x + l)))
                    for j in range(width):
                        v_store(
                            sums + j * WAVE_ROWS + l,
                            v_madd(v_all(factors[j]), cosine, v_load(sums + j * WAVE_ROWS + l)),
                        )
                    l += LANES
            factors = own + n * (2 + width)
            for i in range(high):
                for j in range(width):
                    output[i * n_out + n_in + c * width + j] = sums[j * WAVE_ROWS + i] + factors[j]
        inputs += high * n_in
        output += high * n_out
        rows -= high


cdef void periodic_backward(
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    const Periodic *periodic,
    const real_t *weights,  # (n_columns, size) in
    real_t *dweights,  # (n_columns, size) out, the rows from `first` to `end`; or NULL
    real_t *dinputs,  # (rows, n_in) out; or NULL
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
    Py_ssize_t first,
    Py_ssize_t end,
) noexcept nogil:
    """Add up the gradients of the weights of some columns, some rows after the others, or write those of the numbers.

    One function does both, because they share most of the code. It is called by address: compilers would make two
    copies.
    """
    cdef real_t x[WAVE_ROWS]
    cdef real_t by_inputs[WAVE_ROWS]
    cdef real_t gradients[MAX_SUMS * WAVE_ROWS]
    cdef real_t lanes[(2 + MAX_SUMS) * MOST_LANES]  # gradients of a frequency, its phase and its factors
    cdef Py_ssize_t n = periodic.n_frequencies, width = periodic.width, size = periodic.size, high, i, c, f, j, l, at
    cdef Py_ssize_t n_sums = 0 if dweights is NULL else width
    cdef const real_t *own
    cdef real_t *result
    cdef real_t total
    cdef vec turns, cosine, slope, by_frequency, by_phase
    if dweights is not NULL:
        memset(dweights + first * size, 0, (end - first) * size * sizeof(real_t))
    while rows > 0:
        high = min(rows, <Py_ssize_t> WAVE_ROWS)
        if dinputs is not NULL:
            for i in range(high):
                copy_numbers(dvalues + i * n_out, dinputs + i * n_in, n_in)
        for c in range(first, end):
            own, result = weights + c * size, dweights + c * size
            take_lines(inputs + periodic.columns[c], n_in, high, 1, x)
            take_lines(dvalues + n_in + c * width, n_out, high, width, gradients)
            memset(by_inputs, 0, sizeof(by_inputs))
            for f in range(n):
                at = 2 * n + f * width
                by_frequency = by_phase = v_all(0)
                memset(lanes, 0, (2 + width) * LANES * sizeof(real_t))
                l = 0
                while l < high:
                    turns = turns_of(own[f], own[n + f], v_load(x + l))
                    cosine = v_cosine_of_turns(turns)
                    slope = v_mul(v_sine_of_turns(turns), product_of_lines(own + at, gradients + l, width))
                    by_phase = v_add(by_phase, slope)
                    slope = v_mul(slope, v_all(<real_t> 6.283185307179586))
                    by_frequency = v_madd(slope, v_load(x + l), by_frequency)
                    v_store(by_inputs + l, v_madd(v_all(own[f]), slope, v_load(by_inputs + l)))
                    for j in range(n_sums):
                        v_store(
                            lanes + (2 + j) * LANES,
                            v_madd(cosine, v_load(gradients + j * WAVE_ROWS + l), v_load(lanes + (2 + j) * LANES)),
                        )
                    l += LANES
                if dweights is not NULL:
                    v_store(lanes, by_frequency)
                    v_store(lanes + LANES, by_phase)
                    for j in range(2 + width):
                        total = total_of(lanes + j * LANES)
                        if j < 2:
                            result[j * n + f] -= total
                        else:
                            result[at + j - 2] += total
            if dinputs is not NULL:
                for i in range(high):
                    fetch_ahead(dinputs + (i + 1) * n_in)
                    dinputs[i * n_in + periodic.columns[c]] -= by_inputs[i]
            else:
                for j in range(width):
                    total = 0
                    for i in range(high):
                        total += gradients[j * WAVE_ROWS + i]
                    result[n * (2 + width) + j] += total
        inputs += high * n_in
        dvalues += high * n_out
        if dinputs is not NULL:
            dinputs += high * n_in
        rows -= high
