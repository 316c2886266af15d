# Softmax, and softmax with categorical cross-entropy. Both need whole rows. The lanes lie along the batch: a vector
# holds one column of LANES rows. So three classes keep as many lanes busy as a thousand. Labels are class numbers that
# the caller has checked and copied.


cdef enum:
    LEAST_TURNED = 5  # columns from which on transposing squares is faster than gathering numbers one by one


cdef inline vec clipped(vec p, vec lowest) noexcept nogil:
    """p kept within [lowest, 1 − lowest], and below 1; NaN for NaN."""
    cdef vec below_one = v_all(<real_t> (1 - (FLT_EPSILON if sizeof(real_t) == 4 else DBL_EPSILON) / 2))
    return v_min(v_min(v_sub(v_all(1), lowest), below_one), v_max(lowest, p))


cdef void turn_rows(
    const real_t *rows,  # (LANES, columns) in, `row` apart
    Py_ssize_t row,
    Py_ssize_t columns,
    real_t *lines,  # (columns, LANES) out
) noexcept nogil:
    """Transpose a block of rows, square by square in registers."""
    cdef vec square[MOST_LANES]
    cdef const real_t *end = rows + (LANES - 1) * row + columns
    cdef const real_t *source
    cdef Py_ssize_t j = 0
    cdef int l, wide
    while j < columns:
        wide = <int> min(<Py_ssize_t> LANES, columns - j)
        for l in range(LANES):
            source = rows + l * row + j
            square[l] = v_load(source) if source + LANES <= end else v_load_part(source, wide)
        v_transpose(square)
        for l in range(wide):
            v_store(lines + (j + l) * LANES, square[l])
        j += LANES


cdef void turn_lines(
    const real_t *lines,  # (columns, LANES) in
    Py_ssize_t columns,
    real_t *rows,  # (LANES, columns) out
) noexcept nogil:
    """Transpose a block of columns back to rows.

    Whole vectors are stored, from the last columns to the first, so that later ones overwrite the surplus.
    """
    cdef vec square[MOST_LANES]
    cdef real_t *end = rows + LANES * columns
    cdef real_t *target
    cdef Py_ssize_t j = (columns - 1) // LANES * LANES
    cdef int l, wide
    while j >= 0:
        wide = <int> min(<Py_ssize_t> LANES, columns - j)
        for l in range(LANES):
            square[l] = v_load(lines + (j + l) * LANES) if l < wide else v_all(0)
        v_transpose(square)
        for l in range(LANES):
            target = rows + l * columns + j
            if target + LANES <= end:
                v_store(target, square[l])
            else:
                v_store_part(target, square[l], wide)
        j -= LANES


cdef inline vec exponentials(
    const real_t *inputs,  # (count, columns) in: element (i, j) at i*row + j*column
    real_t *lines,  # (columns, LANES) out: exp(x − max of the row)
    Py_ssize_t columns,
    Py_ssize_t row,
    Py_ssize_t column,
    int count,
) noexcept nogil:
    """Return the sum over the columns of ``exp(inputs − max of the row)``, and write its terms to `lines`."""
    cdef Py_ssize_t j
    if column == 1 and count == LANES and columns >= LEAST_TURNED:
        turn_rows(inputs, row, columns, lines)
    else:
        for j in range(columns):
            v_store(lines + j * LANES, v_gather(inputs + j * column, row, count))
    return exponentials_of_lines(lines, columns, LANES)


cdef inline vec exponentials_of_lines(
    real_t *lines,  # (columns, LANES) in and out: exp(x − max of the row); `line` apart
    Py_ssize_t columns,
    Py_ssize_t line,
) noexcept nogil:
    """Return the sum over the columns of the results."""
    cdef vec x, largest = v_load(lines), sums = v_all(0)
    cdef Py_ssize_t j
    for j in range(1, columns):
        largest = v_max(largest, v_load(lines + j * line))
    for j in range(columns):
        x = v_exp(v_sub(v_load(lines + j * line), largest))
        v_store(lines + j * line, x)
        sums = v_add(sums, x)
    return sums


cdef void softmax_of_lines(
    real_t *lines,  # (columns, LANES) in and out, `line` apart
    Py_ssize_t columns,
    Py_ssize_t line,
) noexcept nogil:
    """``lines := softmax(lines)``, with the bits of `softmax_forward`."""
    cdef vec sums = exponentials_of_lines(lines, columns, line)
    cdef Py_ssize_t j
    for j in range(columns):
        v_store(lines + j * line, v_div(v_load(lines + j * line), sums))


cdef void softmax_forward(
    const real_t *inputs,  # (rows, columns) in
    real_t *output,  # (rows, columns) out; may be inputs
    Py_ssize_t rows,
    Py_ssize_t columns,
    real_t *lines,  # scratch (columns, LANES)
) noexcept nogil:
    """``output_ij := exp(x_ij − max_i) / Σ_j exp(x_ij − max_i)``."""
    cdef Py_ssize_t j, i = 0
    cdef int count
    cdef vec sums
    while i < rows:
        count = <int> min(<Py_ssize_t> LANES, rows - i)
        sums = exponentials(inputs + i * columns, lines, columns, columns, 1, count)
        for j in range(columns):
            v_store(lines + j * LANES, v_div(v_load(lines + j * LANES), sums))
        if count == LANES and columns >= LEAST_TURNED:
            turn_lines(lines, columns, output + i * columns)
        else:
            for j in range(columns):
                v_scatter(output + i * columns + j, columns, v_load(lines + j * LANES), count)
        i += LANES


cdef void softmax_backward(
    const real_t *output,  # (rows, columns) in
    const real_t *dvalues,  # (rows, columns) in
    real_t *dinputs,  # (rows, columns) out; may be either
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``dinputs_ij := p_ij·(d_ij − Σ_j p_ij·d_ij)``."""
    cdef Py_ssize_t j, at, i = 0
    cdef int count
    cdef vec sums
    while i < rows:
        count = <int> min(<Py_ssize_t> LANES, rows - i)
        at = i * columns
        sums = v_all(0)
        for j in range(columns):
            sums = v_madd(
                v_gather(output + at + j, columns, count), v_gather(dvalues + at + j, columns, count), sums
            )
        for j in range(columns):
            v_scatter(
                dinputs + at + j,
                columns,
                v_mul(
                    v_gather(output + at + j, columns, count),
                    v_sub(v_gather(dvalues + at + j, columns, count), sums),
                ),
                count,
            )
        i += LANES


cdef Py_ssize_t softmax_crossentropy(
    const real_t *inputs,  # (rows, columns) in
    const int32_t *labels,  # (rows,) in
    real_t *output,  # (rows, columns) out; may be inputs
    real_t *dinputs,  # (rows, columns) out; or NULL
    real_t *sample_losses,  # (rows,) out: −log(clip(p_i,label_i))
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t row,  # element (i, j) of all three is at i*row + j*column
    Py_ssize_t column,
    Py_ssize_t n,  # rows of the whole batch
    double smoothing,  # of labels: each of m classes has the target s/m, the label 1 − s more
    double clip,  # how near probabilities may come to 0 and 1 in the logarithm
    double *row_hits,  # (rows,) out: 1 for a hit, else 0; or NULL
    real_t *lines,  # scratch (columns, LANES)
) noexcept nogil:
    """``output := softmax(inputs); dinputs := (output − targets) / n``; return the number of hits.

    A row is a hit if the first of its largest probabilities is the label's.
    """
    cdef vec p, sums, largest, best, chosen, wanted, scale = v_all(<real_t> (1.0 / n))
    cdef vec one = v_all(1), zero = v_all(0), right_ones = v_all(0)
    cdef vec off = v_all(<real_t> (smoothing / columns)), on = v_all(<real_t> (1 - smoothing + smoothing / columns))
    cdef vec logs, lowest = v_all(<real_t> clip)
    cdef mask right
    cdef real_t numbers[MOST_LANES]
    cdef Py_ssize_t j, at, hits = 0, i = 0
    cdef int count, l
    while i < rows:
        count = <int> min(<Py_ssize_t> LANES, rows - i)
        at = i * row
        sums = exponentials(inputs + at, lines, columns, row, column, count)
        wanted, chosen, largest = v_of_ints(labels + i, count), one, zero
        for j in range(columns):
            p = v_div(v_load(lines + j * LANES), sums)
            v_store(lines + j * LANES, p)
            v_scatter(output + at + j * column, row, p, count)
            right = v_equal(wanted, v_all(<real_t> j))
            chosen = v_select(right, p, chosen)
            if dinputs is not NULL:
                v_scatter(dinputs + at + j * column, row, v_mul(v_sub(p, v_select(right, on, off)), scale), count)
            largest = v_max(p, largest)
        best = zero
        for j in range(columns - 1, -1, -1):
            best = v_select(v_at_most(largest, v_load(lines + j * LANES)), v_all(<real_t> j), best)
        best = v_select(v_equal(best, wanted), one, zero)
        right_ones = v_add(right_ones, best)
        if row_hits is not NULL:
            v_store(numbers, best)
            for l in range(count):
                row_hits[i + l] = numbers[l]
        logs = v_log(clipped(chosen, lowest))
        if smoothing:
            logs = v_mul(v_all(<real_t> (1 - smoothing)), logs)
            for j in range(columns):
                logs = v_add(logs, v_mul(off, v_log(clipped(v_load(lines + j * LANES), lowest))))
        v_store_part(sample_losses + i, v_sub(zero, logs), count)
        i += LANES
    v_store(numbers, right_ones)
    for l in range(LANES):
        hits += <Py_ssize_t> numbers[l]
    return hits
