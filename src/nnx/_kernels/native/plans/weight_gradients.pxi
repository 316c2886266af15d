# The gradient of the weights, and their update, some row panels at a time. A row panel has as many rows of the weights
# as a tile is high. Both factors are packed: each thread has packed its own rows of the batch. A panel of dvalues stays
# in the L1 cache while it is multiplied with these row panels. Their inputs stay in L2 until they have been multiplied
# with all panels. Then the optimizer updates these rows.

cdef enum:
    ROW_PANELS = 8  # the most row panels at a time
    ROW_PANEL_BYTES = 3 << 15  # the most bytes of their gradients at a time: they stay in L2, with their inputs
    ROW_PANEL_COLUMNS = 1024  # columns of them at a time: the update reads whole pages
    PACKED_ROWS = 32  # rows that are packed at a time
    SUMMED_PANELS = 4  # panels summed side by side, because a sum waits for the one before
    LEAST_AHEAD = 1 << 19  # weights: with more, tiles prefetch for the update; with fewer, its data is near enough
    L1_BYTES = 1 << 15  # the most bytes of a batch's inputs and gradients together that are read unpacked
    ROW_PANEL_DEPTH = 256  # rows of the batch at a time: a panel of them, and a tile of the inputs, stay in L1


cdef inline Py_ssize_t batch_of(const Net *net, const Stage *stage) noexcept nogil:
    """Return the most rows of a stage's output in a batch."""
    return net.batch * stage.members


# What a dense stage multiplies, which is rounded first where it shall compute in bfloat16 and there are no matrix units


cdef inline const real_t *factors_of(const Stage *stage) noexcept nogil:
    """Return the weights as a dense stage multiplies them."""
    return <const real_t *> (stage.weights.values if stage.weights.rounded is NULL else stage.weights.rounded)


cdef inline const real_t *dvalues_of(const Stage *stage) noexcept nogil:
    """Return a dense stage's dvalues for a whole batch, as it multiplies them."""
    return <const real_t *> (stage.dvalues if stage.rounded_dvalues is NULL else stage.rounded_dvalues)


cdef inline bint has_row_panels(Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return whether the weights are large enough to fill tiles."""
    return n_in >= TILE_ROWS and n_out >= TALL_VECTORS * LANES


cdef inline Py_ssize_t tile_stride(Py_ssize_t batch) noexcept nogil:
    """Return the distance of packed inputs, in numbers: an odd number, or tiles would evict each other."""
    return batch | 1


cdef inline Py_ssize_t panel_stride(Py_ssize_t batch) noexcept nogil:
    """Return the size of a panel in numbers: one line more than it holds, for the same reason."""
    return (batch + 1) * TALL_VECTORS * LANES


cdef Py_ssize_t tiles_space(Py_ssize_t batch, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return the bytes of a stage's packed inputs; 0 if it has no row panels."""
    if not has_row_panels(n_in, n_out):
        return 0
    return (n_in * tile_stride(batch) + MOST_LANES) * <Py_ssize_t> sizeof(real_t)


cdef Py_ssize_t panels_space(Py_ssize_t batch, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return the bytes of a stage's packed gradients; 0 if it has no row panels."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES
    if not has_row_panels(n_in, n_out):
        return 0
    return (n_out + line - 1) // line * panel_stride(batch) * <Py_ssize_t> sizeof(real_t)


cdef Py_ssize_t packed_space(Py_ssize_t batch, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return the bytes of a stage's packed weights; 0 if they are read unpacked."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES
    if not has_row_panels(n_in, n_out) or n_in * n_out <= LEAST_PACKED:
        return 0
    return (n_out + line - 1) // line * packed_stride(n_in) * <Py_ssize_t> sizeof(real_t)


cdef inline Py_ssize_t padded_columns(Py_ssize_t columns) noexcept nogil:
    """Return the length of a line of gradients: whole vectors."""
    return (columns + LANES - 1) // LANES * LANES


cdef Py_ssize_t row_panels_at_a_time(Py_ssize_t n_out) noexcept nogil:
    """Return the number of row panels that are computed together."""
    cdef Py_ssize_t columns = padded_columns(min(<Py_ssize_t> ROW_PANEL_COLUMNS, n_out))
    cdef Py_ssize_t one = TILE_ROWS * columns * <Py_ssize_t> sizeof(real_t)
    return max(<Py_ssize_t> 1, min(<Py_ssize_t> ROW_PANELS, ROW_PANEL_BYTES // one))


cdef Py_ssize_t row_panels_space(Py_ssize_t n_out) noexcept nogil:
    """Return the size of their gradients in numbers."""
    return row_panels_at_a_time(n_out) * TILE_ROWS * padded_columns(min(<Py_ssize_t> ROW_PANEL_COLUMNS, n_out))


cdef Py_ssize_t gradient_space(Py_ssize_t batch, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return the bytes of scratch that a thread needs for gradients of a dense stage, or for softmax's lines."""
    cdef Py_ssize_t space = (n_in + 1) * n_out
    if has_row_panels(n_in, n_out):
        space = row_panels_space(n_out) + n_out + TALL_VECTORS * LANES
    return max(n_out * MOST_LANES, space) * <Py_ssize_t> sizeof(real_t)


cdef void pack_tiles(
    const real_t *lines,  # (rows, n) in
    Py_ssize_t first,  # the index of the first of these rows in the batch
    Py_ssize_t rows,
    Py_ssize_t n,
    real_t *tiles,  # out: tile after tile, each (batch, height), a column of it for each row
    Py_ssize_t stride,
) noexcept nogil:
    """Copy rows so that the numbers that a tile of the gradient takes from each row are adjacent.

    It copies a few rows at a time, because a whole batch would be on more pages than the processor remembers.
    """
    cdef Py_ssize_t i, top = 0, high, whole
    cdef real_t *tile
    cdef int height
    while top < rows:
        high = min(<Py_ssize_t> PACKED_ROWS, rows - top)
        i = 0
        while i < n:
            height = tile_height(n - i)
            tile = tiles + i * stride + (first + top) * height
            # In whole vectors, whose surplus lanes the next row overwrites. After the last row, they would belong to
            # another thread.
            whole = high if top + high < rows else high - 1
            if height <= LANES and i + LANES <= n:
                pack_tile(1, lines + i, whole, n, height, tile)
            elif LANES < height <= 2 * LANES and i + 2 * LANES <= n:
                pack_tile(2, lines + i, whole, n, height, tile)
            else:
                whole = 0
            pack_tile_exactly(lines + whole * n + i, high - whole, n, height, tile + whole * height)
            i += height
        lines += high * n
        top += high


cdef inline void pack_tile(
    const int vectors,  # a constant at every call
    const real_t *lines, Py_ssize_t rows, Py_ssize_t n, int height, real_t *tile,
) noexcept nogil:
    """Copy a tile's part of some rows, and the numbers after it up to whole vectors."""
    cdef Py_ssize_t k
    cdef int v
    for k in range(rows):
        for v in range(vectors):
            v_store(tile + v * LANES, v_load(lines + v * LANES))
        tile += height
        lines += n


cdef inline void pack_tile_exactly(
    const real_t *lines, Py_ssize_t rows, Py_ssize_t n, int height, real_t *tile
) noexcept nogil:
    """Copy a tile's part of some rows, and nothing else."""
    cdef Py_ssize_t k
    cdef int l
    for k in range(rows):
        for l in range(height):
            tile[l] = lines[l]
        tile += height
        lines += n


cdef void pack_stage(
    const Stage *stage,
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    Py_ssize_t first,  # the index of the first of these rows in the batch
    Py_ssize_t rows,
    Py_ssize_t batch,
) noexcept nogil:
    """Pack some rows of the factors of a stage's row panels."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES
    cdef real_t *panels = <real_t *> stage.panels + first * line
    pack_tiles(inputs, first, rows, stage.n_in, <real_t *> stage.tiles, tile_stride(batch))
    pack_lines(dvalues, stage.n_out, rows, stage.n_out, TALL_VECTORS, panels, panel_stride(batch))


cdef void pack_row_panel(
    const Stage *stage,
    Py_ssize_t first,
    Py_ssize_t rows,
    Py_ssize_t column,  # the first column of a panel
    Py_ssize_t columns,
) noexcept nogil:
    """Pack some rows of the weights for the forward product."""
    cdef const real_t *weights = factors_of(stage) + first * stage.n_out + column
    cdef Py_ssize_t line = TALL_VECTORS * LANES, panel = packed_stride(stage.n_in)
    cdef real_t *panels = <real_t *> stage.packed + column // line * panel + first * line
    pack_lines(weights, stage.n_out, rows, columns, TALL_VECTORS, panels, panel)


cdef inline bint packs_batch(const Net *net, const Stage *stage) noexcept nogil:
    """Return whether a stage's inputs and gradients are packed. They are not if both fit L1."""
    cdef Py_ssize_t line = LANES, size = batch_of(net, stage) * (stage.n_in + stage.n_out)
    return size * <Py_ssize_t> sizeof(real_t) > L1_BYTES or not (MASKED_ENDS or stage.n_out % line == 0)


cdef inline void sum_panels_beside(
    const int count,  # a constant at every call
    const real_t *panels,  # in: `panel` apart, each (rows, TALL_VECTORS*LANES)
    Py_ssize_t panel,
    Py_ssize_t rows,
    bint first,  # whether sums start from 0
    real_t *sums,  # (count*TALL_VECTORS*LANES,) in and out
) noexcept nogil:
    cdef vec parts[SUMMED_PANELS * TALL_VECTORS]
    cdef Py_ssize_t k
    cdef int v
    for v in range(count * TALL_VECTORS):
        parts[v] = v_all(0) if first else v_load(sums + v * LANES)
    for k in range(rows):
        for v in range(count * TALL_VECTORS):
            parts[v] = v_add(
                parts[v],
                v_load(panels + v // TALL_VECTORS * panel + k * TALL_VECTORS * LANES + v % TALL_VECTORS * LANES),
            )
    for v in range(count * TALL_VECTORS):
        v_store(sums + v * LANES, parts[v])


cdef void sum_panels(
    const real_t *panels,  # in: `panel` apart, each (rows, TALL_VECTORS*LANES)
    Py_ssize_t panel,
    Py_ssize_t rows,
    Py_ssize_t columns,
    bint first,  # whether sums start from 0
    real_t *sums,  # (columns,) in and out, up to whole panels
) noexcept nogil:
    """``sums += Σ over rows of panels``, row after row. The next row panel then finds the panels in L1 or L2."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES, j = 0
    while j < columns:
        if j + SUMMED_PANELS * line <= columns:
            sum_panels_beside(SUMMED_PANELS, panels, panel, rows, first, sums + j)
            panels += SUMMED_PANELS * panel
            j += SUMMED_PANELS * line
        else:
            sum_panels_beside(1, panels, panel, rows, first, sums + j)
            panels += panel
            j += line


cdef struct Factors:
    # The factors of row panels. Element (i, k) of the inputs is at a + i*a_column + k*a_depth, and in a tile at i +
    # k*a_depth. If a_depth is 0, the tile's height replaces it.
    const real_t *a
    Py_ssize_t a_column
    Py_ssize_t a_depth
    const real_t *b  # panels of dvalues
    Py_ssize_t b_panel
    Py_ssize_t b_depth
    const char *ahead[MOST_AHEAD]  # the arrays that the update reads: the weights and their states
    int n_ahead


cdef inline Factors factors_of_gradient(const Net *net, const Stage *stage, const real_t *inputs) noexcept nogil:
    """Return both factors, packed or in place."""
    cdef Factors f
    cdef Py_ssize_t line = TALL_VECTORS * LANES
    cdef int k
    if packs_batch(net, stage):
        f.a, f.a_column, f.a_depth = <const real_t *> stage.tiles, tile_stride(batch_of(net, stage)), 0
        f.b, f.b_panel, f.b_depth = <const real_t *> stage.panels, panel_stride(batch_of(net, stage)), line
    else:
        f.a, f.a_column, f.a_depth = inputs, 1, stage.n_in
        f.b, f.b_panel, f.b_depth = dvalues_of(stage), line, stage.n_out
    f.n_ahead = 0
    if stage.trained and not net.clip_norm and stage.weights.size > LEAST_AHEAD:
        f.ahead[0], f.n_ahead = <const char *> stage.weights.values, 1 + net.rule.n_states
        for k in range(net.rule.n_states):
            f.ahead[k + 1] = <const char *> stage.weights.states[k]
    return f


cdef void gradient_tiles(
    const Factors *f,
    Py_ssize_t n_in,
    Py_ssize_t i,  # the first of the row panels' rows
    Py_ssize_t high,  # their number
    const real_t *b,  # a panel
    Py_ssize_t wide,  # the number of its columns in use
    Py_ssize_t k,  # the first of the sums' terms
    Py_ssize_t deep,  # their number
    bint first,  # whether sums start from 0, or from the gradients
    real_t *gradients,  # (high, wide) in and out
    Py_ssize_t line,  # the distance between those lines
    Py_ssize_t value,  # the index of the weight of the first of them
    Py_ssize_t value_line,
) noexcept nogil:
    """Compute the tiles, below each other, of a panel and some row panels."""
    cdef real_t zeros[TALL_VECTORS * MOST_LANES]
    cdef Tiles t
    cdef Py_ssize_t end = i + high
    cdef int height, lane, n
    for lane in range(TALL_VECTORS * LANES):
        zeros[lane] = 0
    t.a_row, t.b, t.b_depth, t.depth, t.c, t.c_row = 1, b, f.b_depth, deep, gradients, line
    t.least, t.finish, t.lanes = -INFINITY, NULL, LANES
    if f.a_depth and wide < TALL_VECTORS * LANES:  # data that is not packed ends here
        if wide > LANES:
            gradient_tiles(f, n_in, i, high, b, LANES, k, deep, first, gradients, line, value, value_line)
            t.b, t.c = b + LANES, gradients + LANES
            wide -= LANES
        t.lanes = <int> wide
    while i < end:
        height = tile_height(n_in - i)
        t.count = min(equal_tiles(n_in - i), (end - i) // height)
        t.a_depth = f.a_depth if f.a_depth else height
        t.a, t.a_next = f.a + i * f.a_column + k * t.a_depth, height * f.a_column
        t.start, t.start_row = t.c, line
        if first:
            t.start, t.start_row = zeros, 0
        t.n_ahead = f.n_ahead if first else 0
        for n in range(t.n_ahead):
            t.ahead[n] = f.ahead[n] + value * <Py_ssize_t> sizeof(real_t)
        t.ahead_lines, t.ahead_row = height, value_line * <Py_ssize_t> sizeof(real_t)
        compute_tiles(height, TALL_VECTORS if wide > LANES else HALF_VECTORS, &t)
        i += t.count * height
        t.c += t.count * height * line
        value += t.count * height * value_line


cdef inline Py_ssize_t rows_of_panels(Py_ssize_t n_in, Py_ssize_t i, Py_ssize_t end, Py_ssize_t count) noexcept nogil:
    """Return the number of rows of the next row panels before ``end``."""
    cdef Py_ssize_t rows = 0
    while count and i + rows < end:
        rows += tile_height(n_in - i - rows)
        count -= 1
    return rows


cdef void train_row_panels(
    const Net *net,
    Stage *stage,
    const real_t *inputs,  # (rows, n_in) in
    Py_ssize_t i,  # the first of the row panels' rows
    Py_ssize_t end,
    Py_ssize_t rows,  # of the batch
    const vec *constants,  # of the optimizer's rule
    real_t *gradients,  # scratch, `row_panels_space` numbers
    real_t *sums,  # (n_out,) out: Σ over rows of dvalues, from packed panels; or NULL
) noexcept nogil:
    """``dweights := inputsᵀ · dvalues + penalty's``, and the weights' update, for adjacent row panels."""
    cdef Py_ssize_t n_out = stage.n_out, at_a_time = row_panels_at_a_time(n_out), high, at, j, wide
    cdef real_t *own  # gradients of the rows that are completed together
    cdef Factors f = factors_of_gradient(net, stage, inputs)
    cdef Lines lines
    while i < end:
        high = rows_of_panels(stage.n_in, i, end, at_a_time)
        j = 0
        while j < n_out:
            wide = min(<Py_ssize_t> ROW_PANEL_COLUMNS, n_out - j)
            lines.rows, lines.columns, lines.line, lines.gradient_line = high, wide, n_out, padded_columns(wide)
            row_panel_gradients(&f, stage.n_in, i, high, j, wide, n_out, rows, gradients, sums)
            at = 0
            while at < high:
                if net.clip_norm:  # one by one: the rows of a sum of squares must not depend on the threads
                    lines.rows = tile_height(stage.n_in - i - at)
                own = gradients + at * lines.gradient_line
                train_lines(net, &stage.weights, (i + at) * n_out + j, own, &lines, stage.trained, constants)
                at += lines.rows
            if stage.packed is not NULL and stage.trained and not net.clip_norm:
                pack_row_panel(stage, i, high, j, wide)
            j += wide
        sums = NULL
        i += high


cdef void row_panel_gradients(
    const Factors *f,
    Py_ssize_t n_in,
    Py_ssize_t i,  # the first of the row panels' rows
    Py_ssize_t high,
    Py_ssize_t j,  # the first of the columns
    Py_ssize_t wide,
    Py_ssize_t n_out,
    Py_ssize_t rows,  # of the batch
    real_t *gradients,  # (high, padded_columns(wide)) out
    real_t *sums,  # (n_out,) out, or NULL, as of `train_row_panels`
) noexcept nogil:
    """Compute some columns of some row panels: panel by panel, each for all row panels."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES, k = 0, deep, at
    cdef const real_t *b
    while k < rows:
        deep = min(<Py_ssize_t> ROW_PANEL_DEPTH, rows - k)
        b = f.b + j // line * f.b_panel + k * f.b_depth
        if sums is not NULL:
            sum_panels(b, f.b_panel, deep, wide, k == 0, sums + j)
        at = 0
        while at < wide:
            gradient_tiles(
                f, n_in, i, high, b, min(line, wide - at), k, deep, k == 0, gradients + at, padded_columns(wide),
                i * n_out + j + at, n_out,
            )
            b += f.b_panel
            at += line
        k += deep


cdef void train_values(
    const Net *net,
    Parameter *parameter,
    Py_ssize_t at,  # the first of the values
    real_t *gradients,  # (n,) in: without the penalty's gradient; and out
    Py_ssize_t n,
    bint trained,
    const vec *constants,  # of the optimizer's rule, for such parameters
) noexcept nogil:
    """`train_lines`, for adjacent values."""
    cdef Lines lines = one_line(n)
    train_lines(net, parameter, at, gradients, &lines, trained, constants)


cdef inline void collect_unsquared(real_t *target, const real_t *values, const Lines *lines) noexcept nogil:
    cdef Py_ssize_t row
    for row in range(lines.rows):
        memcpy(target + row * lines.line, values + row * lines.gradient_line, lines.columns * sizeof(real_t))


cdef void train_lines(
    const Net *net,
    Parameter *parameter,
    Py_ssize_t at,  # the first of the values
    real_t *gradients,  # `lines` in: without the penalty's gradient; and out
    const Lines *lines,
    bint trained,
    const vec *constants,  # of the optimizer's rule, for such parameters
) noexcept nogil:
    """Complete some values' gradients, store them if wanted, and update the values."""
    cdef Py_ssize_t row, i = at, n = lines.columns
    cdef real_t *own = gradients
    cdef double scale = net.progress.penalty_scale
    if parameter.l1 or parameter.l2 or parameter.gradients is not NULL:
        for row in range(lines.rows):
            if parameter.l1 or parameter.l2:
                add_regularization(<real_t *> parameter.values + i, own, n, scale * parameter.l1, scale * parameter.l2)
            if parameter.gradients is not NULL:
                memcpy(<real_t *> parameter.gradients + i, own, n * sizeof(real_t))
            i += lines.line
            own += lines.gradient_line
    if trained and net.clip_norm:
        if net.exchange is not NULL or net.minimizes:  # squares are not needed
            collect_unsquared(<real_t *> parameter.collected + at, gradients, lines)
        else:
            collect(parameter, at, gradients, lines)
    elif trained:
        update_lines(net, parameter, at, gradients, lines, constants)


cdef inline void update_lines(
    const Net *net,
    Parameter *parameter,
    Py_ssize_t at,  # the first of the values
    real_t *gradients,  # `lines` in and out
    const Lines *lines,
    const vec *constants,
) noexcept nogil:
    """Apply the optimizer's rule to some values, then update their rounded copies and their averages."""
    cdef real_t *values = <real_t *> parameter.values + at
    cdef void *states[MAX_STATES]
    cdef Py_ssize_t row, i
    cdef int k
    for k in range(MAX_STATES):
        states[k] = <real_t *> parameter.states[k] + at
    if net.clip_value:
        for row in range(lines.rows):
            i = row * lines.gradient_line
            clip_gradients(gradients + i, gradients + i, lines.columns, net.clip_value)
    net.rule.apply(values, gradients, states, lines, constants)
    if parameter.rounded is NULL and parameter.averages is NULL:
        return
    for row in range(lines.rows):
        i = row * lines.line
        if parameter.rounded is not NULL:
            round_bfloat16(values + i, <real_t *> parameter.rounded + at + i, lines.columns)
        if parameter.averages is not NULL:
            average_by(constants + AVERAGE, <real_t *> parameter.averages + at + i, values + i, lines.columns)
