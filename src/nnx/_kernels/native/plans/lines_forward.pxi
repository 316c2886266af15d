# Prediction of narrow networks, with the lanes along the batch in every layer. A block of rows is transposed to lines,
# one per column. It goes through all stages while it is in L1, and the result is transposed back. So a layer of four
# outputs keeps all lanes busy. All sums run in the order of `dense_forward`, so the bits are the same.


cdef enum:
    BLOCK_VECTORS = TALL_VECTORS  # vectors of rows that go through together: the width of a tile
    MIN_ROWS_IN_LINES = 4
    MAX_LINE_WIDTH = 4  # the most columns of a stage, in vectors: with more, tiles of rows are full anyway
    MAX_LINE_BYTES = 1 << 15  # of weights: each block reads them, so they must stay in L1
    MAX_DOTS = 4  # sums of a row in a `dots_tile`: four with 32 registers, as there are two vectors, and parts of them


cdef bint fits_lines(const Net *net, int n_stages) noexcept nogil:
    """Return whether rows should go through the first ``n_stages`` stages as lines."""
    cdef const Stage *stage
    cdef Py_ssize_t numbers = 0, columns = net.n_in, biases = 0, sides = 2 * MAX_LINE_WIDTH * LANES
    cdef Py_ssize_t line = BLOCK_VECTORS * LANES * <Py_ssize_t> sizeof(real_t)
    cdef int s
    if net.bfloat16 or n_stages == 0:
        return False
    for s in range(n_stages):
        stage = &net.stages[s]
        columns = max(columns, stage.n_out)
        if stage.kind == DENSE and stage.affine is NULL:
            numbers += stage.n_in * stage.n_out
            biases += stage.n_out
        elif stage.kind != ACTIVATION or not works_on_lines(stage):
            return False
    if (biases + sides) * line > PRODUCT_SCRATCH:  # with very many layers
        return False
    return columns <= MAX_LINE_WIDTH * LANES and numbers * <Py_ssize_t> sizeof(real_t) <= MAX_LINE_BYTES


cdef inline bint is_softmax(const Stage *stage) noexcept nogil:
    return stage.activation.run == <activation_t> softmax


cdef inline bint works_on_lines(const Stage *stage) noexcept nogil:
    """Return whether an activation is elementwise, or softmax."""
    return not stage.activation.traits & WHOLE_ROWS or is_softmax(stage)


cdef void forward_in_lines(
    const Net *net,  # none of its arrays is written
    const real_t *X,  # (rows, n_in) in
    real_t *output,  # (rows, n_out) out
    Py_ssize_t rows,
    int n_stages,
    real_t *scratch,  # of kernels: biases of all stages in lines, then two arrays of lines
) noexcept nogil:
    """Run the network, a block of rows at a time."""
    cdef Py_ssize_t top = 0, high
    cdef const Stage *stage
    cdef real_t *start
    cdef real_t *sides[2]
    cdef int s, side
    sides[0] = spread_biases(net, n_stages, scratch)
    sides[1] = sides[0] + MAX_LINE_WIDTH * LANES * BLOCK_VECTORS * LANES
    while top < rows:
        high = min(<Py_ssize_t> (BLOCK_VECTORS * LANES), rows - top)
        turn_to_lines(X + top * net.n_in, net.n_in, high, sides[0])
        start, side = scratch, 0
        for s in range(n_stages):
            stage = &net.stages[s]
            if stage.kind == DENSE:
                dense_of_lines(stage, sides[side], start, sides[1 - side])
                start += stage.n_out * BLOCK_VECTORS * LANES
                side = 1 - side
            else:
                activate_lines(stage, sides[side])
        turn_from_lines(sides[side], stage.n_out, high, output + top * stage.n_out)
        top += high


cdef real_t *spread_biases(const Net *net, int n_stages, real_t *lines) noexcept nogil:
    """Write each bias of the dense stages to a whole line. Return the address after them."""
    cdef const Stage *stage
    cdef const real_t *biases
    cdef Py_ssize_t j
    cdef int s, v
    for s in range(n_stages):
        stage = &net.stages[s]
        if stage.kind == DENSE:
            biases = <const real_t *> stage.biases.values
            for j in range(stage.n_out):
                for v in range(BLOCK_VECTORS):
                    v_store(lines + v * LANES, v_all(biases[j]))
                lines += BLOCK_VECTORS * LANES
    return lines


cdef void activate_lines(
    const Stage *stage,
    real_t *lines,  # (n_out, BLOCK_VECTORS*LANES) in and out
) noexcept nogil:
    cdef int v
    if is_softmax(stage):
        for v in range(BLOCK_VECTORS):
            softmax_of_lines(lines + v * LANES, stage.n_out, BLOCK_VECTORS * LANES)
    else:
        stage.activation.run(FORWARD, lines, NULL, lines, BLOCK_VECTORS * LANES, stage.n_out, stage.settings, NULL)


cdef void dense_of_lines(
    const Stage *stage,
    const real_t *inputs,  # (n_in, BLOCK_VECTORS*LANES) in
    const real_t *start,  # (n_out, BLOCK_VECTORS*LANES) in: the biases
    real_t *output,  # (n_out, BLOCK_VECTORS*LANES) out
) noexcept nogil:
    """``output := weightsᵀ · inputs + biases``, then max(0, output) if the stage does the ReLU."""
    # The only product of rows that turns −0 into 0.
    cdef bint relu_apart = (
        stage.relu and has_small_depth(stage.n_out, stage.n_in) and not has_dots(stage.n_out, stage.n_in)
    )
    multiply_lines(
        inputs, <const real_t *> stage.weights.values, start, output, stage.n_in, stage.n_out,
        stage.relu and not relu_apart,
    )
    if relu_apart:
        relu(FORWARD, output, NULL, output, stage.n_out, BLOCK_VECTORS * LANES, NO_SETTINGS, NULL)


cdef void multiply_lines(
    const real_t *inputs,  # (n_in, BLOCK_VECTORS*LANES) in
    const real_t *weights,  # (n_in, n_out) in
    const real_t *start,  # (n_out, BLOCK_VECTORS*LANES) in
    real_t *output,  # (n_out, BLOCK_VECTORS*LANES) out
    Py_ssize_t n_in,
    Py_ssize_t n_out,
    bint relu,
) noexcept nogil:
    """``output := weightsᵀ · inputs + start``, then max(0, output) if ``relu``."""
    cdef Py_ssize_t j = 0, line = BLOCK_VECTORS * LANES
    cdef bint along_lanes = has_dots(n_out, n_in)
    cdef Tiles t
    cdef int height
    t.least = 0 if relu else -INFINITY
    t.b, t.b_depth, t.depth, t.start_row, t.c_row = inputs, line, n_in, line, line
    t.a_row, t.a_depth, t.finish, t.n_ahead, t.count, t.lanes = 1, n_out, NULL, 0, 1, LANES
    while j < n_out:
        t.a, t.start, t.c = weights + j, start + j * line, output + j * line
        if along_lanes:
            height = TILE_ROWS // 2 if j + TILE_ROWS // 2 <= n_out else 1
            dots_tiles(height, &t)
        else:
            height = tile_height(n_out - j)
            t.count, t.a_next = equal_tiles(n_out - j), height
            compute_tiles(height, BLOCK_VECTORS, &t)
        j += height * t.count


cdef void dense_by_lines(
    const real_t *inputs,  # (rows, n_in) in, n_in below LANES
    const real_t *weights,  # (n_in, n_out) in
    const real_t *biases,  # (n_out,) in
    real_t *output,  # (rows, n_out) out, n_out of few columns
    Py_ssize_t rows,
    Py_ssize_t n_in,
    Py_ssize_t n_out,
    bint relu,
    real_t *scratch,  # (2*n_out + n_in, BLOCK_VECTORS*LANES)
) noexcept nogil:
    """``output := inputs · weights + biases``, then max(0, output) if ``relu``: a single layer as lines."""
    cdef Py_ssize_t line = BLOCK_VECTORS * LANES, top = 0, high, j
    cdef real_t *results = scratch + n_out * line
    cdef real_t *lines = results + n_out * line
    for j in range(n_out * line):
        scratch[j] = biases[j // line]
    while top < rows:
        high = min(line, rows - top)
        turn_to_lines(inputs + top * n_in, n_in, high, lines)
        multiply_lines(lines, weights, scratch, results, n_in, n_out, relu)
        turn_from_lines(results, n_out, high, output + top * n_out)
        top += high


cdef inline void dots_tile(
    const int rows,  # a constant at every call
    const Tiles *t,
) noexcept nogil:
    """A tile whose sums run in the order of `few_columns_product`: a sum for each lane, then the sum of these."""
    cdef vec sums[MAX_DOTS * BLOCK_VECTORS]
    cdef vec parts[MAX_DOTS * BLOCK_VECTORS]
    cdef Py_ssize_t k, first, whole = t.depth - t.depth % LANES, before = LANES - t.depth % LANES
    cdef int i, n = rows * BLOCK_VECTORS
    for i in range(n):
        sums[i] = v_load(t.start + i // BLOCK_VECTORS * t.start_row + i % BLOCK_VECTORS * LANES)
    for first in range(min(whole, <Py_ssize_t> LANES)):
        for i in range(n):
            parts[i] = v_all(0)
        k = first
        while k < whole:
            add_terms(rows, t, k, parts)
            k += LANES
        if whole < t.depth and first >= before:  # the rest of a row lies in the last lanes
            add_terms(rows, t, whole + first - before, parts)
        elif whole < t.depth:  # the other lanes hold zeros, which turn −0 into 0
            for i in range(n):
                parts[i] = v_add(parts[i], v_all(0))
        for i in range(n):
            sums[i] = v_add(sums[i], parts[i])
    for i in range(n):
        v_store(t.c + i // BLOCK_VECTORS * t.c_row + i % BLOCK_VECTORS * LANES, v_max(v_all(t.least), sums[i]))


cdef inline void add_terms(const int rows, const Tiles *t, Py_ssize_t k, vec *sums) noexcept nogil:
    """Add the products with number k to a tile's sums."""
    cdef vec x
    cdef int i, v
    for i in range(rows):
        x = v_all(t.a[k * t.a_depth + i])
        for v in range(BLOCK_VECTORS):
            sums[i * BLOCK_VECTORS + v] = v_madd(
                x, v_load(t.b + k * t.b_depth + v * LANES), sums[i * BLOCK_VECTORS + v]
            )


cdef void dots_tiles(int rows, const Tiles *t) noexcept nogil:
    """`dots_tile`, with as many rows as registers allow, or with one."""
    if rows == TILE_ROWS // 2:
        dots_tile(TILE_ROWS // 2, t)
    else:
        dots_tile(1, t)


# From rows to lines, and back


cdef enum:
    MAX_PAIRED = 8  # the most columns for which pairs of vectors are interleaved: a power of two


cdef inline bint pairs_up(Py_ssize_t columns, Py_ssize_t rows) noexcept nogil:
    """Return whether a block of rows is transposed by interleaving its vectors."""
    return rows == LANES and 0 < columns <= MAX_PAIRED and columns & (columns - 1) == 0


cdef void turn_to_lines(
    const real_t *rows,  # (n, columns) in
    Py_ssize_t columns,
    Py_ssize_t n,
    real_t *lines,  # (columns, BLOCK_VECTORS*LANES) out
) noexcept nogil:
    """Transpose a block of rows. Lanes after the last row hold anything."""
    cdef Py_ssize_t high
    while n > 0:
        high = min(n, <Py_ssize_t> LANES)
        if pairs_up(columns, high):
            part_lines(rows, columns, lines, BLOCK_VECTORS * LANES)
        else:
            turn_squares(rows, columns, <int> high, lines, BLOCK_VECTORS * LANES)
        rows += high * columns
        lines += LANES
        n -= high


cdef void turn_squares(
    const real_t *rows,  # (n, columns) in
    Py_ssize_t columns,
    int n,  # up to LANES
    real_t *lines,  # (columns, LANES) out, `line` apart
    Py_ssize_t line,
) noexcept nogil:
    """Transpose rows, square by square in registers. With branches, GCC would duplicate the code of the squares."""
    cdef vec square[MOST_LANES]
    cdef Py_ssize_t j = 0
    cdef int l, wide
    while j < columns:
        wide = <int> min(<Py_ssize_t> LANES, columns - j)
        for l in range(LANES):
            square[l] = v_load_part(rows + min(l, n - 1) * columns + j, wide)
        v_transpose(square)
        for l in range(wide):
            v_store(lines + (j + l) * line, square[l])
        j += LANES


cdef inline void part_columns(const int columns, const real_t *rows, real_t *lines, Py_ssize_t line) noexcept nogil:
    """`part_lines` with the number of columns as a constant at every call."""
    cdef vec x[MAX_PAIRED]
    cdef vec y[MAX_PAIRED]
    cdef int i, step = 1
    for i in range(columns):
        x[i] = v_load(rows + i * LANES)
    while step < columns:
        for i in range(columns // 2):
            v_part(x[2 * i], x[2 * i + 1], &y[i], &y[i + columns // 2])
        for i in range(columns):
            x[i] = y[i]
        step *= 2
    for i in range(columns):
        v_store(lines + i * line, x[i])


cdef void part_lines(
    const real_t *rows,  # (LANES, columns) in
    Py_ssize_t columns,  # 1, 2, 4 or 8
    real_t *lines,  # (columns, LANES) out, `line` apart
    Py_ssize_t line,
) noexcept nogil:
    """Transpose rows by separating even and odd numbers, until each vector holds one column."""
    if columns == 8:
        part_columns(8, rows, lines, line)
    elif columns == 4:
        part_columns(4, rows, lines, line)
    elif columns == 2:
        part_columns(2, rows, lines, line)
    else:
        part_columns(1, rows, lines, line)


cdef void turn_from_lines(
    const real_t *lines,  # (columns, BLOCK_VECTORS*LANES) in
    Py_ssize_t columns,
    Py_ssize_t n,
    real_t *rows,  # (n, columns) out
) noexcept nogil:
    """Transpose a block of lines back to rows."""
    cdef Py_ssize_t high
    while n > 0:
        high = min(n, <Py_ssize_t> LANES)
        if pairs_up(columns, high):
            interleave_lines(lines, BLOCK_VECTORS * LANES, columns, rows)
        else:
            turn_squares_back(lines, BLOCK_VECTORS * LANES, columns, <int> high, rows)
        rows += high * columns
        lines += LANES
        n -= high


cdef void turn_squares_back(
    const real_t *lines,  # (columns, LANES) in, `line` apart
    Py_ssize_t line,
    Py_ssize_t columns,
    int n,  # up to LANES
    real_t *rows,  # (n, columns) out
) noexcept nogil:
    """Transpose lines, square by square in registers.

    Whole vectors are stored, from the last columns to the first, so that later ones overwrite the surplus.
    """
    cdef vec square[MOST_LANES]
    cdef real_t *end = rows + n * columns
    cdef real_t *target
    cdef Py_ssize_t j = (columns - 1) // LANES * LANES
    cdef int l, wide
    while j >= 0:
        wide = <int> min(<Py_ssize_t> LANES, columns - j)
        for l in range(LANES):
            square[l] = v_load(lines + (j + min(l, wide - 1)) * line)
        v_transpose(square)
        for l in range(n):
            target = rows + l * columns + j
            if target + LANES <= end:
                v_store(target, square[l])
            else:
                v_store_part(target, square[l], wide)
        j -= LANES


cdef inline void interleave_columns(
    const int columns, const real_t *lines, Py_ssize_t line, real_t *rows
) noexcept nogil:
    """`interleave_lines` with the number of columns as a constant at every call."""
    cdef vec x[MAX_PAIRED]
    cdef vec y[MAX_PAIRED]
    cdef int i, step = 1
    for i in range(columns):
        x[i] = v_load(lines + i * line)
    while step < columns:
        for i in range(columns // 2):
            v_interleave(x[i], x[i + columns // 2], &y[2 * i], &y[2 * i + 1])
        for i in range(columns):
            x[i] = y[i]
        step *= 2
    for i in range(columns):
        v_store(rows + i * LANES, x[i])


cdef void interleave_lines(
    const real_t *lines,  # (columns, LANES) in, `line` apart
    Py_ssize_t line,
    Py_ssize_t columns,  # 1, 2, 4 or 8
    real_t *rows,  # (LANES, columns) out
) noexcept nogil:
    """Transpose lines back to rows: the inverse of `part_lines`."""
    if columns == 8:
        interleave_columns(8, lines, line, rows)
    elif columns == 4:
        interleave_columns(4, lines, line, rows)
    elif columns == 2:
        interleave_columns(2, lines, line, rows)
    else:
        interleave_columns(1, lines, line, rows)
