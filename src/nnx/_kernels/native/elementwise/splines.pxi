# A dense layer that also sees functions of single columns: sums of weights up to the position of a number among the
# column's edges. These sums are kept. So a row reads two lines of weights for each column, not one for each function.


cdef enum:
    PLACED_VECTORS = 4  # vectors of rows that are placed together: their sums do not wait for each other
    PLACED_ROWS = PLACED_VECTORS * MOST_LANES  # at most
    PLACED_COLUMNS = 16  # columns at a time, if the places are not kept


cdef inline void edges_below(const real_t *edges, Py_ssize_t n, const real_t *x, real_t *below) noexcept nogil:
    """Count how many of n edges are below each number. It compares a vector of numbers with one edge at a time.

    Binary search takes fewer steps, but each step waits for a number whose address the step before has found. With 97
    edges, 256 rows of 8 columns take 21 µs by binary search, 60 µs by gathers for 16 rows at a time, and 5 µs this way
    (AVX-512).
    """
    cdef vec values[PLACED_VECTORS]
    cdef vec found[PLACED_VECTORS]
    cdef vec edge, one = v_all(1), zero = v_all(0)
    cdef Py_ssize_t k
    cdef int i
    for i in range(PLACED_VECTORS):
        values[i], found[i] = v_load(x + i * LANES), zero
    for k in range(n):
        edge = v_all(edges[k])
        for i in range(PLACED_VECTORS):
            found[i] = v_add(found[i], v_select(v_greater(values[i], edge), one, zero))
    for i in range(PLACED_VECTORS):
        v_store(below + i * LANES, found[i])


cdef void spline_places(
    const real_t *inputs,  # (rows, n_in) in
    const Spline *spline,
    int32_t *bins,  # (rows, `apart`) out
    real_t *parts,  # (rows, `apart`) out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t from_column,  # counted among the columns with edges
    Py_ssize_t to_column,
    Py_ssize_t apart,
) noexcept nogil:
    """Find where the numbers of some columns lie among the edges: the bin, and the position within it."""
    cdef real_t below[PLACED_ROWS]
    cdef real_t x[PLACED_ROWS]
    cdef Py_ssize_t i = 0, j, r, n, most = PLACED_VECTORS * LANES
    cdef const real_t *edges
    while i < rows:
        n = min(rows - i, most)
        for j in range(from_column, to_column):
            for r in range(most):
                x[r] = inputs[(i + min(r, n - 1)) * n_in + spline.columns[j]]
            edges = <const real_t *> spline.edges + spline.first[j] + j * spline.degree
            edges_below(edges, spline.first[j + 1] - spline.first[j] + spline.degree, x, below)
            place_between(
                spline, edges, j, x, below, bins + i * apart + j - from_column, parts + i * apart + j - from_column, n,
                apart,
            )
        i += n


cdef inline void place_between(
    const Spline *spline,
    const real_t *edges,  # the column's edges
    Py_ssize_t j,  # which column
    const real_t *x,  # (n,) in
    const real_t *numbers_below,  # (n,) in: how many edges are below each
    int32_t *bins,  # (n,) out, `apart` from each other
    real_t *parts,  # (n,) out, `apart` from each other
    Py_ssize_t n,
    Py_ssize_t apart,
) noexcept nogil:
    """Turn the count of edges below a number into its bin and its position within the bin."""
    cdef Py_ssize_t r
    cdef int32_t below, k, last = spline.first[j + 1] - spline.first[j]
    cdef real_t part
    for r in range(n):
        below = <int32_t> numbers_below[r]
        if spline.degree == 0:
            bins[r * apart], parts[r * apart] = below, 0
            continue
        k = below - 1 + (below == 0) - (below > last)
        part = (x[r] - edges[k]) / (edges[k + 1] - edges[k])
        part = part if part < 1 else 1  # also for 0 / 0, if the span is flushed to 0
        bins[r * apart], parts[r * apart] = k, part if below > 0 else 0


cdef void spline_sums(
    const real_t *weights,  # (n_rows, n_out) in: the rows after the dense ones
    const Spline *spline,
    real_t *sums,  # (n_rows + n_columns, n_out) out
    Py_ssize_t n_out,
    Py_ssize_t from_column,
    Py_ssize_t to_column,
) noexcept nogil:
    """``sums``: for each column 0, its first weights, the sum of its first two, and so on."""
    cdef Py_ssize_t j, row, at
    for j in range(from_column, to_column):
        at = (spline.first[j] + j) * n_out
        memset(sums + at, 0, n_out * sizeof(real_t))
        for row in range(spline.first[j], spline.first[j + 1]):
            add(sums + at, weights + row * n_out, sums + at + n_out, n_out)
            at += n_out


cdef inline void add_lines(
    const int n,  # vectors of a line
    const real_t *weights,
    const Spline *spline,
    const real_t *sums,
    const int32_t *bins,
    const real_t *parts,
    real_t *output,  # (n, LANES) in and out
    Py_ssize_t n_out,
    Py_ssize_t from_column,
    Py_ssize_t to_column,
) noexcept nogil:
    """Add the columns of one row to some vectors of its output."""
    cdef vec found[4]
    cdef vec part
    cdef const real_t *line
    cdef Py_ssize_t j
    cdef int l
    for l in range(n):
        found[l] = v_load(output + l * LANES)
    for j in range(to_column - from_column):
        line = sums + (spline.first[from_column + j] + from_column + j + bins[j]) * n_out
        for l in range(n):
            found[l] = v_add(found[l], v_load(line + l * LANES))
        if spline.degree:
            part = v_all(parts[j])
            line = weights + (spline.first[from_column + j] + bins[j]) * n_out
            for l in range(n):
                found[l] = v_madd(part, v_load(line + l * LANES), found[l])
    for l in range(n):
        v_store(output + l * LANES, found[l])


cdef inline void add_rest_of_lines(
    const real_t *weights,
    const Spline *spline,
    const real_t *sums,
    const int32_t *bins,
    const real_t *parts,
    real_t *output,  # (count,) in and out
    Py_ssize_t n_out,
    Py_ssize_t from_column,
    Py_ssize_t to_column,
    int count,  # below LANES
) noexcept nogil:
    """`add_lines`, for the last numbers of a row."""
    cdef vec found = v_load_part(output, count)
    cdef Py_ssize_t j, row
    for j in range(to_column - from_column):
        row = spline.first[from_column + j] + bins[j]
        found = v_add(found, v_load_part(sums + (row + from_column + j) * n_out, count))
        if spline.degree:
            found = v_madd(v_all(parts[j]), v_load_part(weights + row * n_out, count), found)
    v_store_part(output, found, count)


cdef void spline_add(
    const real_t *weights,  # (n_rows, n_out) in: the rows after the dense ones
    const Spline *spline,
    const real_t *sums,  # (n_rows + n_columns, n_out) in
    const int32_t *bins,  # (rows, `apart`) in
    const real_t *parts,  # (rows, `apart`) in
    real_t *output,  # (rows, n_out) in and out
    Py_ssize_t rows,
    Py_ssize_t n_out,
    Py_ssize_t from_column,
    Py_ssize_t to_column,
    Py_ssize_t apart,
) noexcept nogil:
    """Add the functions of some columns to the output."""
    cdef Py_ssize_t i, at
    for i in range(rows):
        at = 0
        while at + 4 * LANES <= n_out:
            add_lines(
                4, weights + at, spline, sums + at, bins, parts, output + at, n_out, from_column, to_column
            )
            at += 4 * LANES
        while at + LANES <= n_out:
            add_lines(
                1, weights + at, spline, sums + at, bins, parts, output + at, n_out, from_column, to_column
            )
            at += LANES
        if at < n_out:
            add_rest_of_lines(
                weights + at, spline, sums + at, bins, parts, output + at, n_out, from_column, to_column,
                <int> (n_out - at),
            )
        bins += apart
        parts += apart
        output += n_out


cdef void spline_add_at_once(
    const real_t *inputs,  # (rows, n_in) in
    const real_t *weights,  # (n_rows, n_out) in: the rows after the dense ones
    const Spline *spline,
    real_t *output,  # (rows, n_out) in and out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Add the functions of all columns to the output, if the places are not kept."""
    cdef int32_t bins[PLACED_ROWS * PLACED_COLUMNS]
    cdef real_t parts[PLACED_ROWS * PLACED_COLUMNS]
    cdef Py_ssize_t i = 0, j, n, end
    while i < rows:
        n = min(rows - i, <Py_ssize_t> PLACED_VECTORS * LANES)
        j = 0
        while j < spline.n_columns:
            end = min(j + PLACED_COLUMNS, spline.n_columns)
            spline_places(inputs + i * n_in, spline, bins, parts, n, n_in, j, end, PLACED_COLUMNS)
            spline_add(
                weights, spline, <const real_t *> spline.sums, bins, parts, output + i * n_out, n, n_out, j, end,
                PLACED_COLUMNS,
            )
            j = end
        i += n


cdef inline void add_scaled(const real_t *x, real_t factor, real_t *result, Py_ssize_t n) noexcept nogil:
    """``result += factor · x``; (n,)."""
    cdef vec everywhere = v_all(factor)
    cdef Py_ssize_t j = 0
    while j + LANES <= n:
        v_store(result + j, v_madd(everywhere, v_load(x + j), v_load(result + j)))
        j += LANES
    if j < n:
        v_store_part(
            result + j,
            v_madd(everywhere, v_load_part(x + j, <int> (n - j)), v_load_part(result + j, <int> (n - j))),
            <int> (n - j),
        )


cdef void spline_gradients(
    const Spline *spline,
    const int32_t *bins,  # (rows, n_columns) in
    const real_t *parts,  # (rows, n_columns) in
    const real_t *dvalues,  # (rows, n_out) in
    real_t *dweights,  # (n_rows, n_out) out, these columns' rows, after the dense ones
    real_t *buckets,  # scratch (n_rows + n_columns, n_out)
    Py_ssize_t rows,
    Py_ssize_t n_out,
    Py_ssize_t from_column,
    Py_ssize_t to_column,
) noexcept nogil:
    """Compute the gradients of some columns' weights: those of each bin in the order of samples, then their sums."""
    cdef Py_ssize_t i, j, m, n, first
    cdef const real_t *gradient
    cdef real_t *own
    cdef real_t *bucket
    for j in range(from_column, to_column):
        first, n = spline.first[j], spline.first[j + 1] - spline.first[j]
        own, bucket = dweights + first * n_out, buckets + (first + j) * n_out
        memset(own, 0, n * n_out * sizeof(real_t))
        memset(bucket, 0, (n + 1) * n_out * sizeof(real_t))
        gradient = dvalues
        for i in range(rows):
            m = bins[i * spline.n_columns + j] * n_out
            add(bucket + m, gradient, bucket + m, n_out)
            if spline.degree:
                add_scaled(gradient, parts[i * spline.n_columns + j], own + m, n_out)
            gradient += n_out
        m = n
        while m > 0:  # a bucket's number, then the sum with all above it
            m -= 1
            add(own + m * n_out, bucket + (m + 1) * n_out, own + m * n_out, n_out)
            add(bucket + m * n_out, bucket + (m + 1) * n_out, bucket + m * n_out, n_out)


cdef void spline_slopes(
    const Spline *spline,
    const int32_t *bins,  # (rows, n_columns) in
    const real_t *parts,  # (rows, n_columns) in
    const real_t *dvalues,  # (rows, n_out) in
    const real_t *weights,  # (n_rows, n_out) in: the rows after the dense ones
    real_t *dinputs,  # (rows, n_in) in and out
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
) noexcept nogil:
    """Add the gradient through the columns' functions to the gradient of the inputs. Steps have no slope."""
    cdef Py_ssize_t i, j, l, row
    cdef const real_t *edges
    cdef const real_t *line
    cdef real_t slope
    for j in range(spline.n_columns if spline.degree else 0):
        edges = <const real_t *> spline.edges + spline.first[j] + j
        for i in range(rows):
            if not 0 < parts[i * spline.n_columns + j] < 1:
                continue
            row = bins[i * spline.n_columns + j]
            line = weights + (spline.first[j] + row) * n_out
            slope = 0
            for l in range(n_out):
                slope += dvalues[i * n_out + l] * line[l]
            dinputs[i * n_in + spline.columns[j]] += slope / (edges[row + 1] - edges[row])
