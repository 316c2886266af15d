# Batch normalization, layer normalization, and a learnt factor for each column.

cdef enum:
    SUMS_BESIDE = 4  # separate sums of every fourth row: a sum waits for the one before
    SUMMED_ROWS = 512  # rows that are summed up before the next ones: rounding does not grow with the batch
    NORM_ROWS = 16  # rows whose columns are done vector by vector: they stay in L1

cdef enum:  # the term of the sum for each number
    VALUES  # x
    SQUARES  # (x − middle)²
    PRODUCTS  # d·(x − middle)

# Most columns lie in whole vectors. Loops over rows are compiled separately for these, with LANES as the constant
# number of columns. A test of this number in each row took longer than the sums.


cdef inline vec load_columns(const real_t *source, Py_ssize_t count) noexcept nogil:
    """Load a vector, or the rest of a line."""
    return v_load(source) if count >= LANES else v_load_part(source, <int> count)


cdef inline void store_columns(real_t *target, vec x, Py_ssize_t count) noexcept nogil:
    if count >= LANES:
        v_store(target, x)
    else:
        v_store_part(target, x, <int> count)


cdef inline vec with_term(
    const int what, vec total, const real_t *x, const real_t *d, vec middle, Py_ssize_t count
) noexcept nogil:
    """Return a sum with one more term."""
    cdef vec apart
    if what == VALUES:
        return v_add(total, load_columns(x, count))
    apart = v_sub(load_columns(x, count), middle)
    return v_madd(apart if what == SQUARES else load_columns(d, count), apart, total)


cdef inline vec column_sums_of(
    const int what,  # a constant at every call
    const real_t *x,  # (rows, count) in, rows `line` apart
    const real_t *d,  # (rows, count) in, likewise; for PRODUCTS
    vec middle,
    Py_ssize_t rows,
    Py_ssize_t line,
    Py_ssize_t count,  # columns; at most LANES of them are summed
) noexcept nogil:
    """`column_sums`, compiled for whole vectors and for the rest."""
    cdef vec result = v_all(0)
    cdef vec sums[SUMS_BESIDE]
    cdef Py_ssize_t i = 0, end
    cdef int l
    while i < rows:
        end = min(rows, i + SUMMED_ROWS)
        for l in range(SUMS_BESIDE):
            sums[l] = v_all(0)
        while i + SUMS_BESIDE <= end:
            for l in range(SUMS_BESIDE):
                sums[l] = with_term(what, sums[l], x + (i + l) * line, d + (i + l) * line, middle, count)
            i += SUMS_BESIDE
        while i < end:
            sums[0] = with_term(what, sums[0], x + i * line, d + i * line, middle, count)
            i += 1
        result = v_add(result, v_add(v_add(sums[0], sums[1]), v_add(sums[2], sums[3])))
    return result


cdef inline vec column_sums(
    const int what, const real_t *x, const real_t *d, vec middle, Py_ssize_t rows, Py_ssize_t line, Py_ssize_t count
) noexcept nogil:
    """Sum over rows, for a vector of columns."""
    if count >= LANES:
        return column_sums_of(what, x, d, middle, rows, line, LANES)
    return column_sums_of(what, x, d, middle, rows, line, count)


# Batch normalization


cdef void batch_norm_statistics(
    const real_t *inputs,  # (rows, columns) in
    real_t *mean,  # (columns,) out
    real_t *variance,  # (columns,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t first,  # the first of the columns to do, a multiple of LANES
    Py_ssize_t end,  # after the last of them
) noexcept nogil:
    """Mean and mean squared deviation of some columns; 0 for no rows."""
    cdef vec n = v_all(<real_t> max(<Py_ssize_t> 1, rows))
    cdef vec middle
    cdef Py_ssize_t j = first
    while j < end:
        middle = v_div(column_sums(VALUES, inputs + j, inputs, n, rows, columns, columns - j), n)
        store_columns(mean + j, middle, columns - j)
        store_columns(
            variance + j, v_div(column_sums(SQUARES, inputs + j, inputs, middle, rows, columns, columns - j), n),
            columns - j,
        )
        j += LANES


cdef inline vec inverse_deviation(const real_t *variance, double epsilon, Py_ssize_t count) noexcept nogil:
    """Return ``1/sqrt(variance + epsilon)`` for a vector of columns."""
    return v_div(v_all(1), v_sqrt(v_add(load_columns(variance, count), v_all(<real_t> epsilon))))


cdef void batch_norm_scales(
    const real_t *variance,  # (columns,) in
    const real_t *weights,  # (columns,) in
    double epsilon,
    real_t *scales,  # (columns,) out
    Py_ssize_t columns,
    Py_ssize_t first,  # as in `batch_norm_statistics`
    Py_ssize_t end,
) noexcept nogil:
    """``scales := weights/sqrt(variance + epsilon)``, the factors of deviations from the mean."""
    cdef Py_ssize_t j = first
    while j < end:
        store_columns(
            scales + j,
            v_mul(load_columns(weights + j, columns - j), inverse_deviation(variance + j, epsilon, columns - j)),
            columns - j,
        )
        j += LANES


cdef void batch_norm_forward(
    const real_t *inputs,  # (rows, columns) in
    const real_t *mean,  # (columns,) in
    const real_t *scales,  # (columns,) in
    const real_t *biases,  # (columns,) in
    real_t *output,  # (rows, columns) out; may be inputs
    Py_ssize_t rows,
    Py_ssize_t columns,
    bint relu,
) noexcept nogil:
    """``output := (inputs − mean)·scales + biases``, then max(0, output) if ``relu``."""
    cdef vec least = v_all(0 if relu else -INFINITY)
    cdef Py_ssize_t i = 0, j, at, high
    while i < rows:
        high = min(<Py_ssize_t> NORM_ROWS, rows - i)
        j = 0
        while j < columns:
            at = i * columns + j
            if j + LANES <= columns:
                normalize_columns(
                    inputs + at, mean + j, scales + j, biases + j, output + at, high, columns, least, LANES
                )
            else:
                normalize_columns(
                    inputs + at, mean + j, scales + j, biases + j, output + at, high, columns, least, columns - j
                )
            j += LANES
        i += high


cdef inline void normalize_columns(
    const real_t *inputs, const real_t *mean, const real_t *scales, const real_t *biases, real_t *output,
    Py_ssize_t rows, Py_ssize_t line, vec least, Py_ssize_t count,
) noexcept nogil:
    """`batch_norm_forward`, for a vector of columns, whose parameters stay in registers."""
    cdef vec middle = load_columns(mean, count), scale = load_columns(scales, count)
    cdef vec bias = load_columns(biases, count)
    cdef Py_ssize_t i
    for i in range(rows):
        store_columns(
            output + i * line,
            v_max(least, v_madd(v_sub(load_columns(inputs + i * line, count), middle), scale, bias)), count,
        )


cdef void batch_norm_backward_weights(
    const real_t *inputs,  # (rows, columns) in
    const real_t *dvalues,  # (rows, columns) in
    const real_t *mean,  # (columns,) in
    const real_t *variance,  # (columns,) in
    double epsilon,
    real_t *dweights,  # (columns,) out
    real_t *dbiases,  # (columns,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t first,  # as in `batch_norm_statistics`
    Py_ssize_t end,
) noexcept nogil:
    """``dweights := Σ over rows of dvalues·(inputs − mean)/sqrt(variance + epsilon); dbiases := Σ dvalues``."""
    cdef Py_ssize_t j = first, count
    cdef vec products, sums, middle
    while j < end:
        count = columns - j
        middle = load_columns(mean + j, count)
        if count >= LANES:
            products = gradient_sums(inputs + j, dvalues + j, middle, rows, columns, LANES, &sums)
        else:
            products = gradient_sums(inputs + j, dvalues + j, middle, rows, columns, count, &sums)
        store_columns(dbiases + j, sums, count)
        store_columns(dweights + j, v_mul(products, inverse_deviation(variance + j, epsilon, count)), count)
        j += LANES


cdef inline vec gradient_sums(
    const real_t *inputs, const real_t *dvalues, vec middle, Py_ssize_t rows, Py_ssize_t line, Py_ssize_t count,
    vec *sums,  # out: those of dvalues
) noexcept nogil:
    """Both sums of `batch_norm_backward_weights`, for a vector of columns, in one pass and `column_sums`' order."""
    cdef vec products = v_all(0), d
    cdef vec of_values[SUMS_BESIDE]
    cdef vec of_products[SUMS_BESIDE]
    cdef Py_ssize_t i = 0, end
    cdef int l
    sums[0] = v_all(0)
    while i < rows:
        end = min(rows, i + SUMMED_ROWS)
        for l in range(SUMS_BESIDE):
            of_values[l] = of_products[l] = v_all(0)
        while i + SUMS_BESIDE <= end:
            for l in range(SUMS_BESIDE):
                d = load_columns(dvalues + (i + l) * line, count)
                of_values[l] = v_add(of_values[l], d)
                of_products[l] = v_madd(d, v_sub(load_columns(inputs + (i + l) * line, count), middle), of_products[l])
            i += SUMS_BESIDE
        while i < end:
            d = load_columns(dvalues + i * line, count)
            of_values[0] = v_add(of_values[0], d)
            of_products[0] = v_madd(d, v_sub(load_columns(inputs + i * line, count), middle), of_products[0])
            i += 1
        sums[0] = v_add(
            sums[0], v_add(v_add(of_values[0], of_values[1]), v_add(of_values[2], of_values[3]))
        )
        products = v_add(
            products, v_add(v_add(of_products[0], of_products[1]), v_add(of_products[2], of_products[3]))
        )
    return products


cdef void batch_norm_shares(
    const real_t *variance,  # (columns,) in
    const real_t *scales,  # (columns,) in
    const real_t *dweights,  # (columns,) in
    const real_t *dbiases,  # (columns,) in
    double epsilon,
    real_t *of_deviation,  # (columns,) out
    real_t *of_all,  # (columns,) out
    Py_ssize_t rows,  # of the batch
    Py_ssize_t columns,
    Py_ssize_t first,  # as in `batch_norm_statistics`
    Py_ssize_t end,
) noexcept nogil:
    """What gradients lose because a row moves mean and variance: a factor of its deviation, and a constant."""
    cdef vec n = v_all(<real_t> max(<Py_ssize_t> 1, rows))
    cdef vec scale
    cdef Py_ssize_t j = first, count
    while j < end:
        count = columns - j
        scale = v_div(load_columns(scales + j, count), n)
        store_columns(
            of_deviation + j,
            v_mul(
                v_mul(scale, load_columns(dweights + j, count)), inverse_deviation(variance + j, epsilon, count)
            ), count,
        )
        store_columns(of_all + j, v_mul(scale, load_columns(dbiases + j, count)), count)
        j += LANES


cdef void batch_norm_backward_inputs(
    const real_t *inputs,  # (rows, columns) in
    const real_t *dvalues,  # (rows, columns) in
    const real_t *mean,  # (columns,) in
    const real_t *scales,  # (columns,) in
    const real_t *of_deviation,  # (columns,) in: as `batch_norm_shares` gives them
    const real_t *of_all,  # (columns,) in
    real_t *dinputs,  # (rows, columns) out; may be inputs or dvalues
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``dinputs := dvalues·scales − (inputs − mean)·of_deviation − of_all``."""
    cdef Py_ssize_t i = 0, j, at, high
    while i < rows:
        high = min(<Py_ssize_t> NORM_ROWS, rows - i)
        j = 0
        while j < columns:
            at = i * columns + j
            if j + LANES <= columns:
                gradient_of_columns(
                    inputs + at, dvalues + at, mean + j, scales + j, of_deviation + j, of_all + j, dinputs + at, high,
                    columns, LANES,
                )
            else:
                gradient_of_columns(
                    inputs + at, dvalues + at, mean + j, scales + j, of_deviation + j, of_all + j, dinputs + at, high,
                    columns, columns - j,
                )
            j += LANES
        i += high


cdef inline void gradient_of_columns(
    const real_t *inputs, const real_t *dvalues, const real_t *mean, const real_t *scales, const real_t *of_deviation,
    const real_t *of_all, real_t *dinputs, Py_ssize_t rows, Py_ssize_t line, Py_ssize_t count,
) noexcept nogil:
    """`batch_norm_backward_inputs`, for a vector of columns."""
    cdef vec middle = load_columns(mean, count), scale = load_columns(scales, count), gradient
    cdef vec by_deviation = load_columns(of_deviation, count), by_all = load_columns(of_all, count)
    cdef Py_ssize_t i
    for i in range(rows):
        gradient = v_sub(v_mul(load_columns(dvalues + i * line, count), scale), by_all)
        gradient = v_madd(v_sub(middle, load_columns(inputs + i * line, count)), by_deviation, gradient)
        store_columns(dinputs + i * line, gradient, count)


cdef void fold_norm(
    const real_t *mean,  # (columns,) in
    const real_t *variance,  # (columns,) in
    const real_t *weights,  # (columns,) in
    const real_t *biases,  # (columns,) in
    double epsilon,
    real_t *affine,  # (affine_size(columns),) out
    Py_ssize_t columns,
) noexcept nogil:
    """Write factors and offsets for the results of a product, LANES of each in turn; 0 after the end."""
    cdef Py_ssize_t j = 0, count, end = affine_size(columns) // 2
    cdef vec scale, shift
    while j < end:
        count = columns - j
        scale, shift = v_all(0), v_all(0)
        if count > 0:
            scale = v_mul(load_columns(weights + j, count), inverse_deviation(variance + j, epsilon, count))
            shift = v_sub(load_columns(biases + j, count), v_mul(load_columns(mean + j, count), scale))
        v_store(affine + 2 * j, scale)
        v_store(affine + 2 * j + LANES, shift)
        j += LANES


cdef void apply_affine(
    const real_t *affine,  # as `fold_norm` writes it
    real_t *values,  # (rows, columns) in and out
    Py_ssize_t rows,
    Py_ssize_t columns,
    bint relu,
) noexcept nogil:
    """``values := values·scales + shifts``, then max(0, values) if ``relu``."""
    cdef vec least = v_all(0 if relu else -INFINITY)
    cdef vec x
    cdef Py_ssize_t i, j, count
    for i in range(rows):
        j = 0
        while j < columns:
            count = columns - j
            x = v_madd(load_columns(values + j, count), v_load(affine + 2 * j), v_load(affine + 2 * j + LANES))
            store_columns(values + j, v_max(least, x), count)
            j += LANES
        values += columns


cdef void move_average(real_t *average, const real_t *values, double keep, double factor, Py_ssize_t n) noexcept nogil:
    """``average := keep·average + (1 − keep)·factor·values``; (n,)."""
    cdef real_t kept = <real_t> keep, taken = <real_t> ((1 - keep) * factor)
    cdef Py_ssize_t j
    for j in range(n):
        average[j] = kept * average[j] + taken * values[j]


# Layer normalization


cdef inline real_t sum_of_lanes(vec x) noexcept nogil:
    """Return the sum of a vector's numbers: halves, then quarters, and so on."""
    cdef real_t lanes[MOST_LANES]
    cdef int l, n = LANES // 2
    v_store(lanes, x)
    while n > 0:
        for l in range(n):
            lanes[l] += lanes[l + n]
        n //= 2
    return lanes[0]


cdef struct Middle:
    # A row's mean, and 1 divided by its deviation.
    real_t mean
    real_t inverse


cdef inline vec masked(vec x, Py_ssize_t count) noexcept nogil:
    """Return a vector with zeros after the end of a line."""
    cdef real_t lanes[MOST_LANES]
    cdef int l
    if count >= LANES:
        return x
    v_store(lanes, x)
    for l in range(<int> count, LANES):
        lanes[l] = 0
    return v_load(lanes)


cdef inline Middle middle_of(const real_t *x, Py_ssize_t columns, double epsilon) noexcept nogil:
    """Return mean and inverse deviation of a row; x (columns,) in."""
    cdef Middle found
    cdef vec total = v_all(0)
    cdef vec apart
    cdef Py_ssize_t j = 0
    while j < columns:
        total = v_add(total, load_columns(x + j, columns - j))
        j += LANES
    found.mean = sum_of_lanes(total) / <real_t> columns
    total, j = v_all(0), 0
    while j < columns:
        apart = masked(v_sub(load_columns(x + j, columns - j), v_all(found.mean)), columns - j)
        total = v_madd(apart, apart, total)
        j += LANES
    found.inverse = <real_t> (1 / sqrt(<double> (sum_of_lanes(total) / <real_t> columns) + epsilon))
    return found


cdef void layer_norm_forward(
    const real_t *inputs,  # (rows, columns) in
    const real_t *weights,  # (columns,) in
    const real_t *biases,  # (columns,) in
    double epsilon,
    real_t *output,  # (rows, columns) out; may be inputs
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``output := (inputs − mean)/sqrt(variance + epsilon)·weights + biases``, with a row's own mean and variance."""
    cdef Middle middle
    cdef vec x
    cdef Py_ssize_t i, j, count
    for i in range(rows):
        middle = middle_of(inputs, columns, epsilon)
        j = 0
        while j < columns:
            count = columns - j
            x = v_mul(v_sub(load_columns(inputs + j, count), v_all(middle.mean)), v_all(middle.inverse))
            store_columns(
                output + j, v_madd(x, load_columns(weights + j, count), load_columns(biases + j, count)), count
            )
            j += LANES
        inputs += columns
        output += columns


cdef void layer_norm_backward_inputs(
    const real_t *inputs,  # (rows, columns) in
    const real_t *dvalues,  # (rows, columns) in
    const real_t *weights,  # (columns,) in
    double epsilon,
    real_t *dinputs,  # (rows, columns) out; may be dvalues
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``dinputs := (g − mean(g) − z·mean(g·z))/deviation``: g is dvalues·weights, z the normalized inputs."""
    cdef Middle middle
    cdef vec g, z, sums, products
    cdef real_t share, share_of_z
    cdef Py_ssize_t i, j, count
    for i in range(rows):
        middle = middle_of(inputs, columns, epsilon)
        sums, products, j = v_all(0), v_all(0), 0
        while j < columns:
            count = columns - j
            g = v_mul(load_columns(dvalues + j, count), load_columns(weights + j, count))
            z = v_mul(v_sub(load_columns(inputs + j, count), v_all(middle.mean)), v_all(middle.inverse))
            sums = v_add(sums, g)
            products = v_madd(g, z, products)  # after the end of a line g is 0
            j += LANES
        share, share_of_z = sum_of_lanes(sums) / <real_t> columns, sum_of_lanes(products) / <real_t> columns
        j = 0
        while j < columns:
            count = columns - j
            g = v_mul(load_columns(dvalues + j, count), load_columns(weights + j, count))
            z = v_mul(v_sub(load_columns(inputs + j, count), v_all(middle.mean)), v_all(middle.inverse))
            g = v_sub(v_sub(g, v_all(share)), v_mul(z, v_all(share_of_z)))
            store_columns(dinputs + j, v_mul(g, v_all(middle.inverse)), count)
            j += LANES
        inputs += columns
        dvalues += columns
        dinputs += columns


cdef void layer_norm_backward_weights(
    const real_t *inputs,  # (rows, columns) in
    const real_t *dvalues,  # (rows, columns) in
    double epsilon,
    real_t *dweights,  # (columns,) out
    real_t *dbiases,  # (columns,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``dweights := Σ over rows of dvalues·(inputs − mean)/deviation; dbiases := Σ dvalues``."""
    cdef Middle middle
    cdef vec d, z
    cdef Py_ssize_t i, j, count
    memset(dweights, 0, columns * sizeof(real_t))
    memset(dbiases, 0, columns * sizeof(real_t))
    for i in range(rows):
        middle = middle_of(inputs, columns, epsilon)
        j = 0
        while j < columns:
            count = columns - j
            d = load_columns(dvalues + j, count)
            z = v_mul(v_sub(load_columns(inputs + j, count), v_all(middle.mean)), v_all(middle.inverse))
            store_columns(dweights + j, v_madd(d, z, load_columns(dweights + j, count)), count)
            store_columns(dbiases + j, v_add(d, load_columns(dbiases + j, count)), count)
            j += LANES
        inputs += columns
        dvalues += columns


# A factor for each column


cdef void multiply_columns(
    const real_t *values,  # (rows, columns) in
    const real_t *factors,  # (columns,) in
    real_t *result,  # (rows, columns) out; may be values
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``result := values·factors``."""
    cdef Py_ssize_t i, j, count
    for i in range(rows):
        j = 0
        while j < columns:
            count = columns - j
            store_columns(result + j, v_mul(load_columns(values + j, count), load_columns(factors + j, count)), count)
            j += LANES
        values += columns
        result += columns


cdef void scale_backward_weights(
    const real_t *inputs,  # (rows, columns) in
    const real_t *dvalues,  # (rows, columns) in
    real_t *dweights,  # (columns,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``dweights := Σ over rows of dvalues·inputs``."""
    cdef Py_ssize_t j = 0
    while j < columns:
        store_columns(
            dweights + j,
            column_sums(PRODUCTS, inputs + j, dvalues + j, v_all(0), rows, columns, columns - j), columns - j,
        )
        j += LANES
