# Softmax, losses and counts of hits: kernels that look at rows. The lanes lie along the batch: LANES rows at a time, a
# vector holding one column of them, so that three classes keep as many lanes busy as a thousand. Labels are class
# numbers that the caller has checked and copied.


cdef enum:
    LEAST_TURNED = 5  # columns from which on to turn squares round is faster than to gather numbers one by one


cdef void turn_rows(
    const real_t *rows,  # (LANES, columns) in, `row` apart
    Py_ssize_t row,
    Py_ssize_t columns,
    real_t *lines,  # (columns, LANES) out
) noexcept nogil:
    """Turn a block of rows round, by squares in registers."""
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
    """Turn a block of columns back to rows.

    Whole vectors are stored, from the last columns to the first, so that what they hold too much is written over.
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
    """Return the sum over the columns of ``exp(inputs − max of the row)``, which goes to `lines`."""
    cdef vec x, largest, sums = v_all(0)
    cdef Py_ssize_t j
    if column == 1 and count == LANES and columns >= LEAST_TURNED:
        turn_rows(inputs, row, columns, lines)
    else:
        for j in range(columns):
            v_store(lines + j * LANES, v_gather(inputs + j * column, row, count))
    largest = v_load(lines)
    for j in range(1, columns):
        largest = v_max(largest, v_load(lines + j * LANES))
    for j in range(columns):
        x = v_exp(v_sub(v_load(lines + j * LANES), largest))
        v_store(lines + j * LANES, x)
        sums = v_add(sums, x)
    return sums


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
    Py_ssize_t n,  # rows of the batch that these are of
    real_t *lines,  # scratch (columns, LANES)
) noexcept nogil:
    """``output := softmax(inputs); dinputs := (output − onehot(labels)) / n``; return the number of hits.

    A row is a hit if the first of its largest probabilities is the label's.
    """
    cdef vec p, sums, largest, best, chosen, wanted, scale = v_all(<real_t> (1.0 / n))
    cdef vec one = v_all(1), zero = v_all(0), right_ones = v_all(0)
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
                v_scatter(dinputs + at + j * column, row, v_mul(v_sub(p, v_select(right, one, zero)), scale), count)
            largest = v_max(p, largest)
        best = zero
        for j in range(columns - 1, -1, -1):
            best = v_select(v_at_most(largest, v_load(lines + j * LANES)), v_all(<real_t> j), best)
        right_ones = v_add(right_ones, v_select(v_equal(best, wanted), one, zero))
        v_store_part(sample_losses + i, v_sub(zero, v_log(clipped(chosen))), count)
        i += LANES
    v_store(numbers, right_ones)
    for l in range(LANES):
        hits += <Py_ssize_t> numbers[l]
    return hits


cdef void categorical_crossentropy_forward(
    const real_t *y_pred,  # (rows, columns) in
    const int32_t *labels,  # (rows,) in
    real_t *sample_losses,  # (rows,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n,  # unused: for the sake of one type
) noexcept nogil:
    """``sample_losses_i := −log(clip(p_i,label_i))``."""
    cdef real_t chosen[MOST_LANES]
    cdef Py_ssize_t i = 0
    cdef int count, l
    for l in range(LANES):
        chosen[l] = 1
    while i < rows:
        count = <int> min(<Py_ssize_t> LANES, rows - i)
        for l in range(count):
            chosen[l] = y_pred[(i + l) * columns + labels[i + l]]
        v_store_part(sample_losses + i, v_sub(v_all(0), v_log(clipped(v_load(chosen)))), count)
        i += LANES


cdef void categorical_crossentropy_backward(
    const real_t *y_pred,  # (rows, columns) in
    const int32_t *labels,  # (rows,) in
    real_t *dinputs,  # (rows, columns) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n,  # rows of the batch that these are of
) noexcept nogil:
    """``dinputs_ij := −1 / (p_ij·n)`` where j is the label of i, else 0; a p of 0 counts as the smallest normal."""
    cdef real_t smallest = <real_t> (FLT_MIN if sizeof(real_t) == 4 else DBL_MIN)
    cdef real_t p
    cdef Py_ssize_t i
    memset(dinputs, 0, rows * columns * sizeof(real_t))
    for i in range(rows):
        p = y_pred[i * columns + labels[i]]
        dinputs[i * columns + labels[i]] = -1 / (smallest if p < smallest else p) / <real_t> n


cdef void softmax_crossentropy_backward(
    const real_t *output,  # (rows, columns) in
    const int32_t *labels,  # (rows,) in
    real_t *dinputs,  # (rows, columns) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n,  # rows of the batch that these are of
) noexcept nogil:
    """``dinputs := (output − onehot(labels)) / n``."""
    cdef real_t scale = <real_t> (1.0 / n)
    cdef Py_ssize_t i, at
    map_two(multiple_of, output, output, scale, dinputs, rows * columns)
    for i in range(rows):
        at = i * columns + labels[i]
        dinputs[at] = (output[at] - 1) * scale


cdef inline vec multiple_of(vec x, vec unused, vec scale) noexcept nogil:
    return v_mul(x, scale)


# Losses that are means over a row's cells


cdef inline vec binary_crossentropy_of(vec p, vec y, vec unused) noexcept nogil:
    cdef vec c = clipped(p)
    cdef vec one = v_all(1)
    return v_sub(v_all(0), v_madd(y, v_log(c), v_mul(v_sub(one, y), v_log(v_sub(one, c)))))


cdef inline vec square_of_difference(vec p, vec y, vec unused) noexcept nogil:
    cdef vec d = v_sub(y, p)
    return v_mul(d, d)


cdef inline vec absolute_difference(vec p, vec y, vec unused) noexcept nogil:
    return v_abs(v_sub(y, p))


cdef inline void mean_of_rows(
    formula_of_two formula,
    const real_t *y_pred,  # (rows, columns) in
    const real_t *y_true,  # (rows, columns) in
    real_t *sample_losses,  # (rows,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``sample_losses_i := mean over the columns of formula(y_pred, y_true)``, summed in double."""
    cdef real_t cells[64 * MOST_LANES]
    cdef Py_ssize_t size = rows * columns
    cdef Py_ssize_t start = 0, column = 0, row = 0, count, i
    cdef double loss = 0
    while start < size:
        count = min(<Py_ssize_t> (64 * MOST_LANES), size - start)
        map_two(formula, y_pred + start, y_true + start, 0, cells, count)
        for i in range(count):
            loss += cells[i]
            column += 1
            if column == columns:
                sample_losses[row] = <real_t> (loss / columns)
                loss, column, row = 0, 0, row + 1
        start += count


cdef void binary_crossentropy_forward(
    const real_t *y_pred, const real_t *y_true, real_t *sample_losses, Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """``sample_losses_i := mean over outputs of −(y·log p + (1 − y)·log(1 − p))``, p clipped; (rows, columns) in."""
    mean_of_rows(binary_crossentropy_of, y_pred, y_true, sample_losses, rows, columns)


cdef void mean_squared_error_forward(
    const real_t *y_pred, const real_t *y_true, real_t *sample_losses, Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """``sample_losses_i := mean over outputs of (y − p)²``; (rows, columns) in, (rows,) out."""
    mean_of_rows(square_of_difference, y_pred, y_true, sample_losses, rows, columns)


cdef void mean_absolute_error_forward(
    const real_t *y_pred, const real_t *y_true, real_t *sample_losses, Py_ssize_t rows, Py_ssize_t columns
) noexcept nogil:
    """``sample_losses_i := mean over outputs of |y − p|``; (rows, columns) in, (rows,) out."""
    mean_of_rows(absolute_difference, y_pred, y_true, sample_losses, rows, columns)


# Counts


cdef void argmax(
    const real_t *values,  # (rows, columns) in
    Py_ssize_t *classes,  # (rows,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``classes_i :=`` the column of the first of row i's largest values; a NaN counts as larger than any number."""
    cdef Py_ssize_t i, j, best
    cdef const real_t *row = values
    for i in range(rows):
        best = 0
        for j in range(1, columns):
            # Not "at most": true for a NaN at j; a NaN that is already the best stays.
            if not row[j] <= row[best] and row[best] == row[best]:
                best = j
        classes[i] = best
        row += columns


cdef Py_ssize_t near_count(const real_t *y_pred, const real_t *y_true, Py_ssize_t n, double precision) noexcept nogil:
    """Return how many of ``|y_pred − y_true|``, in double, are below ``precision``; (n,) in."""
    cdef Py_ssize_t i, hits = 0
    for i in range(n):
        hits += fabs(<double> y_pred[i] - <double> y_true[i]) < precision
    return hits
