# Products whose result has few columns, or whose sums have few terms. Tiles would be half empty, or too short.


# Results with few columns


cdef enum:
    DOT_ROWS = 4  # with three columns, twelve sums at a time
    DOT_COLUMNS = 3
    FEW_ROWS = 8  # rows for which transposing the factor would cost more than the product


cdef inline void dots(
    const int rows,  # a constant at every call
    const int columns,  # likewise
    const real_t *a,  # (rows, depth) in, rows depth apart
    const real_t *b,  # (columns, depth) in, rows b_row apart, padded with zeros to whole vectors
    Py_ssize_t b_row,
    Py_ssize_t depth,
    mask tail,  # the lanes of a row's last LANES numbers that are not in a whole vector before
    vec *sums,  # (columns, LANES) out: for each column a square, of which the first `rows` rows are written
) noexcept nogil:
    """Sums of products of each row with each column, with a separate sum in every lane."""
    cdef vec parts[DOT_ROWS * DOT_COLUMNS]
    cdef vec line[DOT_ROWS]
    cdef vec x
    cdef Py_ssize_t k = 0, whole = depth - depth % LANES
    cdef int i, j
    for i in range(rows * columns):
        parts[i] = v_all(0)
    while k < whole:
        for i in range(rows):
            line[i] = v_load(a + i * depth + k)
        for j in range(columns):
            x = v_load(b + j * b_row + k)
            for i in range(rows):
                parts[j * rows + i] = v_madd(line[i], x, parts[j * rows + i])
        k += LANES
    if whole < depth:
        for i in range(rows):
            line[i] = v_select(tail, v_load(a + i * depth + depth - LANES), v_all(0))
        for j in range(columns):
            x = v_load(b + j * b_row + k)
            for i in range(rows):
                parts[j * rows + i] = v_madd(line[i], x, parts[j * rows + i])
    for j in range(columns):
        for i in range(rows):
            sums[j * MOST_LANES + i] = parts[j * rows + i]


cdef void few_columns_row(
    const real_t *a,  # (depth,) in
    const real_t *b,  # (depth, columns) in: the factor, not transposed
    const real_t *start,  # (columns,) in; or NULL
    real_t *c,  # (columns,) out
    Py_ssize_t columns,
    Py_ssize_t depth,
    real_t least,
) noexcept nogil:
    """One row of `few_columns_product`: the same sums in the same order, without transposing the factor.

    Loads may reach into the next line, whose columns are not stored. Only the last lines need care.
    """
    cdef vec parts[MOST_LANES]
    cdef vec result
    cdef Py_ssize_t k, j = 0, whole = depth - depth % LANES, safe
    cdef int l, wide, before = <int> (LANES - depth % LANES)
    while j < columns:
        wide = <int> min(<Py_ssize_t> LANES, columns - j)
        safe = max(0, depth - (j + LANES + columns - 1) // columns + 1)
        for l in range(LANES):
            parts[l] = v_all(0)
        k = 0
        while k + LANES <= min(whole, safe):
            for l in range(LANES):
                parts[l] = v_madd(v_all(a[k + l]), v_load(b + (k + l) * columns + j), parts[l])
            k += LANES
        while k < whole:
            for l in range(LANES):
                parts[l] = v_madd(v_all(a[k + l]), v_load_part(b + (k + l) * columns + j, wide), parts[l])
            k += LANES
        if whole < depth:
            for l in range(LANES):
                if l < before:
                    parts[l] = v_add(parts[l], v_all(0))
                else:
                    k = whole + l - before
                    parts[l] = v_madd(v_all(a[k]), v_load_part(b + k * columns + j, wide), parts[l])
        result = v_load_part(start + j, wide) if start is not NULL else v_all(0)
        for l in range(LANES):
            result = v_add(result, parts[l])
        v_store_part(c + j, v_max(v_all(least), result), wide)
        j += LANES


cdef void few_columns_product(
    const real_t *a,  # (rows, depth) in, depth at least LANES
    const real_t *b,  # (columns, depth) in: the transposed factor, element (j, k) at j*b_row + k*b_depth
    Py_ssize_t b_row,
    Py_ssize_t b_depth,
    const real_t *start,  # (columns,) in, added to each row; or NULL
    real_t *c,  # (rows, columns) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t depth,
    real_t least,
    real_t *scratch,  # (columns, depth + LANES) for b
) noexcept nogil:
    """``c := max(least, a · bᵀ + start)``, with the lanes along the depth: rows of A are read in place."""
    cdef vec sums[DOT_COLUMNS * MOST_LANES]
    cdef vec result
    cdef mask tail
    cdef real_t places[MOST_LANES]
    cdef Py_ssize_t line = (depth + LANES - 1) // LANES * LANES
    cdef Py_ssize_t i, j, k
    cdef int count, wide, l, done
    cdef const real_t *at
    if b_row == 1 and rows <= FEW_ROWS:
        for i in range(rows):
            few_columns_row(a + i * depth, b, start, c + i * columns, columns, depth, least)
        return
    for l in range(LANES):
        places[l] = 1 if l >= line - depth else 0
    tail = v_greater(v_load(places), v_all(0))
    for j in range(columns):
        for k in range(line):
            scratch[j * line + k] = b[j * b_row + k * b_depth] if k < depth - depth % LANES else 0
        for k in range(depth - depth % LANES, depth):
            scratch[j * line + line - depth + k] = b[j * b_row + k * b_depth]
    i = 0
    while i < rows:
        count = <int> min(<Py_ssize_t> LANES, rows - i)
        at = a + i * depth
        j = 0
        while j < columns:
            wide = <int> min(<Py_ssize_t> DOT_COLUMNS, columns - j)
            done = 0
            while done + DOT_ROWS <= count:
                dots_of(DOT_ROWS, wide, at + done * depth, scratch + j * line, line, depth, tail, sums + done)
                done += DOT_ROWS
            while done < count:
                dots_of(1, wide, at + done * depth, scratch + j * line, line, depth, tail, sums + done)
                done += 1
            for k in range(wide):
                for l in range(count, LANES):
                    sums[k * MOST_LANES + l] = v_all(0)
                v_transpose(sums + k * MOST_LANES)
                result = v_all(start[j + k] if start is not NULL else 0)
                for l in range(LANES):
                    result = v_add(result, sums[k * MOST_LANES + l])
                v_scatter(c + i * columns + j + k, columns, v_max(v_all(least), result), count)
            j += wide
        i += count


cdef inline void dots_of(
    const int rows, int columns, const real_t *a, const real_t *b, Py_ssize_t b_row, Py_ssize_t depth, mask tail,
    vec *sums,
) noexcept nogil:
    """`dots`, compiled for each number of columns."""
    if columns == 3:
        dots(rows, 3, a, b, b_row, depth, tail, sums)
    elif columns == 2:
        dots(rows, 2, a, b, b_row, depth, tail, sums)
    else:
        dots(rows, 1, a, b, b_row, depth, tail, sums)


cdef inline bint has_few_columns(Py_ssize_t columns) noexcept nogil:
    """Return whether a result has too few columns to fill half a tile."""
    return columns < TALL_VECTORS * LANES


cdef inline bint has_dots(Py_ssize_t columns, Py_ssize_t depth) noexcept nogil:
    """Return whether few columns are best computed along the depth: it fills a vector, and the factor fits scratch."""
    cdef Py_ssize_t room = PRODUCT_SCRATCH // <Py_ssize_t> sizeof(real_t)
    return has_few_columns(columns) and depth >= LANES and columns * (depth + LANES) <= room


# Products of small depth


cdef enum:
    SMALL_DEPTH = 4  # the largest depth
    SMALL_DEPTH_COLUMNS = 8192  # the factor, transposed, must fit into scratch


cdef inline void small_depth_lines(
    const int depth,  # a constant at every call
    const int vectors,  # likewise
    const bint relu,  # likewise
    const real_t *a,  # (rows, depth) in
    const real_t *b,  # (depth, vectors*LANES) in, rows `columns` apart
    const real_t *start,  # (vectors*LANES,) in
    real_t *c,  # (rows, vectors*LANES) out, rows `columns` apart
    Py_ssize_t rows,
    Py_ssize_t columns,
    const real_t *gate,  # like c, or NULL
) noexcept nogil:
    """``c := start + a · b``, then max(0, c) if ``relu``, then 0 where `gate` is."""
    cdef vec first[FLAT_VECTORS]
    cdef vec lines[SMALL_DEPTH * FLAT_VECTORS]
    cdef vec x[SMALL_DEPTH]
    cdef vec sums
    cdef Py_ssize_t i
    cdef int k, v
    for v in range(vectors):
        first[v] = v_load(start + v * LANES)
        for k in range(depth):
            lines[k * vectors + v] = v_load(b + k * columns + v * LANES)
    for i in range(rows):
        for k in range(depth):
            x[k] = v_all(a[i * depth + k])
        for v in range(vectors):
            sums = first[v]
            for k in range(depth):
                sums = v_madd(x[k], lines[k * vectors + v], sums)
            if relu:
                sums = relu_of(sums)
            if gate is not NULL:
                sums = v_where_not_zero(v_load(gate + i * columns + v * LANES), sums)
            v_store(c + i * columns + v * LANES, sums)


cdef inline void small_depth_of(
    const int depth, const bint relu, const real_t *a, const real_t *b, const real_t *start, real_t *c, Py_ssize_t rows,
    Py_ssize_t columns, const real_t *gate,
) noexcept nogil:
    """`small_depth_lines` from the first column to the last. The last vector overlaps the one before."""
    cdef Py_ssize_t j = 0
    while j + FLAT_VECTORS * LANES <= columns:
        small_depth_lines(
            depth, FLAT_VECTORS, relu, a, b + j, start + j, c + j, rows, columns,
            gate + j if gate is not NULL else NULL,
        )
        j += FLAT_VECTORS * LANES
    while j < columns:
        j = min(j, columns - LANES)
        small_depth_lines(
            depth, 1, relu, a, b + j, start + j, c + j, rows, columns, gate + j if gate is not NULL else NULL
        )
        j += LANES


cdef void small_depth_product(
    const real_t *a,  # (rows, depth) in
    const real_t *b,  # (depth, columns) in
    const real_t *start,  # (columns,) in, added to each row
    real_t *c,  # (rows, columns) out
    Py_ssize_t rows,
    Py_ssize_t columns,  # at least LANES
    Py_ssize_t depth,  # up to SMALL_DEPTH
    bint relu,
    const real_t *gate,  # (rows, columns) in, as of `product`; or NULL
) noexcept nogil:
    """``c := a · b + start``, then max(0, c) if ``relu``, then 0 where `gate` is.

    All columns of B in use stay in registers.
    """
    if relu:
        if depth == 1:
            small_depth_of(1, True, a, b, start, c, rows, columns, gate)
        elif depth == 2:
            small_depth_of(2, True, a, b, start, c, rows, columns, gate)
        elif depth == 3:
            small_depth_of(3, True, a, b, start, c, rows, columns, gate)
        else:
            small_depth_of(4, True, a, b, start, c, rows, columns, gate)
    elif depth == 1:
        small_depth_of(1, False, a, b, start, c, rows, columns, gate)
    elif depth == 2:
        small_depth_of(2, False, a, b, start, c, rows, columns, gate)
    elif depth == 3:
        small_depth_of(3, False, a, b, start, c, rows, columns, gate)
    else:
        small_depth_of(4, False, a, b, start, c, rows, columns, gate)


cdef inline bint has_small_depth(Py_ssize_t columns, Py_ssize_t depth) noexcept nogil:
    """Return whether `small_depth_product` computes a product, because tiles would not pay."""
    return 1 <= depth <= SMALL_DEPTH and LANES <= columns <= SMALL_DEPTH_COLUMNS


cdef inline void small_depth_sums(
    const int depth,  # a constant at every call
    const int vectors,  # likewise
    const real_t *a,  # (rows, depth) in
    const real_t *d,  # (rows, vectors*LANES) in, rows `columns` apart
    real_t *products,  # (depth, vectors*LANES) out, rows `columns` apart
    real_t *sums,  # (vectors*LANES,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``products := aᵀ · d; sums := Σ over rows of d``."""
    cdef vec parts[(SMALL_DEPTH + 1) * FLAT_VECTORS]
    cdef vec x
    cdef Py_ssize_t i
    cdef int k, v
    for v in range((depth + 1) * vectors):
        parts[v] = v_all(0)
    for i in range(rows):
        for v in range(vectors):
            x = v_load(d + i * columns + v * LANES)
            parts[depth * vectors + v] = v_add(parts[depth * vectors + v], x)
            for k in range(depth):
                parts[k * vectors + v] = v_madd(v_all(a[i * depth + k]), x, parts[k * vectors + v])
    for v in range(vectors):
        v_store(sums + v * LANES, parts[depth * vectors + v])
        for k in range(depth):
            v_store(products + k * columns + v * LANES, parts[k * vectors + v])


cdef inline void small_depth_sums_of(
    const int depth, const int vectors, const real_t *a, const real_t *d, real_t *products, real_t *sums,
    Py_ssize_t rows, Py_ssize_t columns,
) noexcept nogil:
    """`small_depth_sums` from the first column to the last. The last vector overlaps the one before."""
    cdef Py_ssize_t j = 0
    while j + vectors * LANES <= columns:
        small_depth_sums(depth, vectors, a, d + j, products + j, sums + j, rows, columns)
        j += vectors * LANES
    while j < columns:
        j = min(j, columns - LANES)
        small_depth_sums(depth, 1, a, d + j, products + j, sums + j, rows, columns)
        j += LANES


cdef void small_depth_gradients(
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    real_t *dweights,  # (n_in, n_out) out
    real_t *dbiases,  # (n_out,) out
    Py_ssize_t rows,
    Py_ssize_t n_in,  # up to SMALL_DEPTH
    Py_ssize_t n_out,  # at least LANES
) noexcept nogil:
    """``dweights := inputsᵀ · dvalues; dbiases := Σ over rows of dvalues``, in one pass over ``dvalues``."""
    if n_in == 1:
        small_depth_sums_of(1, FLAT_VECTORS, inputs, dvalues, dweights, dbiases, rows, n_out)
    elif n_in == 2:
        small_depth_sums_of(2, FLAT_VECTORS, inputs, dvalues, dweights, dbiases, rows, n_out)
    elif n_in == 3:
        small_depth_sums_of(3, TALL_VECTORS, inputs, dvalues, dweights, dbiases, rows, n_out)
    else:
        small_depth_sums_of(4, TALL_VECTORS, inputs, dvalues, dweights, dbiases, rows, n_out)
