# The gradient of the weights, and their update, row panel by row panel: a row panel is as many rows of the weights as a
# tile is high. Both factors come packed, each thread having packed its own rows of the batch. So the thread that owns a
# row panel computes it from beginning to end while it is in the L1 cache, and applies the optimizer to it there.

cdef enum:
    ROW_PANEL_COLUMNS = 256  # of a row panel at a time: its gradients stay in L1, the panels for it in L2
    PACKED_ROWS = 32  # rows that are packed at a time
    SUMMED_PANELS = 4  # side by side, for a sum waits for the one before
    L1_BYTES = 1 << 15  # of a batch's inputs and gradients together: up to here they are read as they lie
    ROW_PANEL_DEPTH = 256  # rows of the batch at a time: one panel of them, and a tile of the inputs, stay in L1


cdef inline bint wants_gradients(const Stage *stage) noexcept nogil:
    """Return whether a stage has parameters of which anybody needs the gradients."""
    return has_parameters(stage) and (stage.trained or stage.weights.gradients is not NULL)


# What a dense stage multiplies, which is rounded first where it shall compute in bfloat16 and there are no matrix units


cdef inline const real_t *factors_of(const Stage *stage) noexcept nogil:
    """Return the weights as a dense stage multiplies them."""
    return <const real_t *> (stage.weights.values if stage.weights.rounded is NULL else stage.weights.rounded)


cdef inline const real_t *dvalues_of(const Stage *stage) noexcept nogil:
    """Return what comes back to a dense stage, a whole batch, as it multiplies it."""
    return <const real_t *> (stage.dvalues if stage.rounded_dvalues is NULL else stage.rounded_dvalues)


cdef inline bint has_row_panels(Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return whether the weights are large enough for tiles to be full."""
    return n_in >= TILE_ROWS and n_out >= TALL_VECTORS * LANES


cdef inline Py_ssize_t tile_stride(Py_ssize_t batch) noexcept nogil:
    """Return how many numbers a packed input has room for: an odd number, or tiles would displace each other."""
    return batch | 1


cdef inline Py_ssize_t panel_stride(Py_ssize_t batch) noexcept nogil:
    """Return how many numbers a panel has room for; one line more than it has, for the same reason."""
    return (batch + 1) * TALL_VECTORS * LANES


cdef Py_ssize_t tiles_space(Py_ssize_t batch, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return how many bytes a stage's packed inputs take; 0 if it has no row panels."""
    if not has_row_panels(n_in, n_out):
        return 0
    return (n_in * tile_stride(batch) + MOST_LANES) * <Py_ssize_t> sizeof(real_t)


cdef Py_ssize_t panels_space(Py_ssize_t batch, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return how many bytes a stage's packed gradients take; 0 if it has no row panels."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES
    if not has_row_panels(n_in, n_out):
        return 0
    return (n_out + line - 1) // line * panel_stride(batch) * <Py_ssize_t> sizeof(real_t)


cdef Py_ssize_t packed_space(Py_ssize_t batch, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return how many bytes a stage's packed weights take; 0 if they are read as they lie."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES
    if not has_row_panels(n_in, n_out) or n_in * n_out <= LEAST_PACKED:
        return 0
    return (n_out + line - 1) // line * packed_stride(n_in) * <Py_ssize_t> sizeof(real_t)


cdef Py_ssize_t gradient_space(Py_ssize_t batch, Py_ssize_t n_in, Py_ssize_t n_out) noexcept nogil:
    """Return how many bytes of scratch a thread needs for gradients of a dense stage, or of softmax's lines."""
    cdef Py_ssize_t row_panel = TILE_ROWS * ROW_PANEL_COLUMNS + n_out + TALL_VECTORS * LANES
    cdef Py_ssize_t piece = 0 if has_row_panels(n_in, n_out) else (n_in + 1) * n_out
    return max(n_out * MOST_LANES, max(row_panel, piece)) * <Py_ssize_t> sizeof(real_t)


cdef void pack_tiles(
    const real_t *lines,  # (rows, n) in
    Py_ssize_t first,  # which rows of the batch these are
    Py_ssize_t rows,
    Py_ssize_t n,
    real_t *tiles,  # out: tile after tile, each (batch, height), a column of it for each row
    Py_ssize_t stride,
) noexcept nogil:
    """Copy rows so that the numbers that a tile of the gradient takes from each lie together.

    A few rows at a time: those of a whole batch would be on more pages than the processor remembers.
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
            # In whole vectors, over whose last lanes the next row is written; behind the last row they would be another
            # thread's.
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
    """Copy a tile's part of some rows, and what lies behind it."""
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
    Py_ssize_t first,  # which rows of the batch these are
    Py_ssize_t rows,
    Py_ssize_t batch,
) noexcept nogil:
    """Pack some rows of what a stage's row panels are computed from."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES
    cdef real_t *panels = <real_t *> stage.panels + first * line
    pack_tiles(inputs, first, rows, stage.n_in, <real_t *> stage.tiles, tile_stride(batch))
    pack_lines(dvalues, stage.n_out, rows, stage.n_out, TALL_VECTORS, panels, panel_stride(batch))


cdef void pack_row_panel(const Stage *stage, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Pack some rows of the weights for the forward product."""
    cdef const real_t *weights = factors_of(stage) + first * stage.n_out
    cdef real_t *panels = <real_t *> stage.packed + first * TALL_VECTORS * LANES
    pack_lines(weights, stage.n_out, rows, stage.n_out, TALL_VECTORS, panels, packed_stride(stage.n_in))


cdef inline bint packs_batch(const Net *net, const Stage *stage) noexcept nogil:
    """Return whether a stage's inputs and gradients are packed: not where both are in L1 as they are."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES, size = net.batch * (stage.n_in + stage.n_out)
    return size * <Py_ssize_t> sizeof(real_t) > L1_BYTES or stage.n_out % line != 0


cdef inline void tile_line(
    const int height,  # a constant at every call
    Py_ssize_t count,
    const real_t *a,  # (depth, height) in, rows a_depth apart
    Py_ssize_t a_depth,
    const real_t *b,  # in: panels b_next apart, each (depth, line), rows b_depth apart
    Py_ssize_t b_next,
    Py_ssize_t b_depth,
    Py_ssize_t depth,
    bint first,  # whether sums start from 0, or from c
    real_t *c,  # (height, count*line) out
    const real_t *values,  # what is needed next, rows value_row apart
    Py_ssize_t value_row,
) noexcept nogil:
    """`count` tiles beside each other."""
    cdef real_t zeros[TALL_VECTORS * MOST_LANES]
    cdef Py_ssize_t t, line = TALL_VECTORS * LANES, c_row = count * line
    cdef int l
    for l in range(TALL_VECTORS * LANES):
        zeros[l] = 0
    for t in range(count):
        for l in range(height):
            fetch_ahead(values + l * value_row + t * line)
        if first:
            tile(height, TALL_VECTORS, a, 1, a_depth, b, b_depth, depth, zeros, 0, c, c_row, -INFINITY, NULL)
        else:
            tile(height, TALL_VECTORS, a, 1, a_depth, b, b_depth, depth, c, c_row, c, c_row, -INFINITY, NULL)
        b += b_next
        c += line


cdef void tile_line_of(
    int height, Py_ssize_t count, const real_t *a, Py_ssize_t a_depth, const real_t *b, Py_ssize_t b_next,
    Py_ssize_t b_depth, Py_ssize_t depth, bint first, real_t *c, const real_t *values, Py_ssize_t value_row,
) noexcept nogil:
    """`tile_line`, compiled for each height that a row panel can have."""
    if height == TILE_ROWS:
        tile_line(TILE_ROWS, count, a, a_depth, b, b_next, b_depth, depth, first, c, values, value_row)
    elif height == 7 < TILE_ROWS:
        tile_line(7, count, a, a_depth, b, b_next, b_depth, depth, first, c, values, value_row)
    elif height == 6 < TILE_ROWS:
        tile_line(6, count, a, a_depth, b, b_next, b_depth, depth, first, c, values, value_row)
    elif height == 5 < TILE_ROWS:
        tile_line(5, count, a, a_depth, b, b_next, b_depth, depth, first, c, values, value_row)
    elif height == 4 < TILE_ROWS:
        tile_line(4, count, a, a_depth, b, b_next, b_depth, depth, first, c, values, value_row)
    elif height == 3:
        tile_line(3, count, a, a_depth, b, b_next, b_depth, depth, first, c, values, value_row)
    else:
        tile_line(2, count, a, a_depth, b, b_next, b_depth, depth, first, c, values, value_row)


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
    """``sums += Σ over rows of panels``, row after row: the row panel that needs them next finds them in L1 or L2."""
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


cdef void train_row_panel(
    const Net *net,
    Stage *stage,
    const real_t *inputs,  # (rows, n_in) in
    Py_ssize_t i,  # the row panel's first row
    int height,
    Py_ssize_t rows,  # of the batch
    const vec *constants,  # of the optimizer's rule
    real_t *gradients,  # scratch (TILE_ROWS, ROW_PANEL_COLUMNS)
    real_t *sums,  # (n_out,) out: Σ over rows of dvalues, which lie in the panels; or NULL
) noexcept nogil:
    """``dweights := inputsᵀ · dvalues + penalty's``, and the weights' update, for one row panel."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES, n_out = stage.n_out
    cdef Py_ssize_t next_panel = panel_stride(net.batch), a_depth = height, b_depth = line
    cdef const real_t *a = <const real_t *> stage.tiles + i * tile_stride(net.batch)
    cdef const real_t *b = <const real_t *> stage.panels
    cdef const real_t *values = <const real_t *> stage.weights.values
    cdef Py_ssize_t j = 0, k, wide, deep
    cdef Lines lines
    if not packs_batch(net, stage):
        a, a_depth = inputs + i, stage.n_in
        b, b_depth, next_panel = dvalues_of(stage), n_out, line
    while j < n_out:
        wide = min(<Py_ssize_t> ROW_PANEL_COLUMNS, n_out - j)
        k = 0
        while k < rows:
            deep = min(<Py_ssize_t> ROW_PANEL_DEPTH, rows - k)
            if sums is not NULL:
                sum_panels(b + j // line * next_panel + k * line, next_panel, deep, wide, k == 0, sums + j)
            tile_line_of(
                height, (wide + line - 1) // line, a + k * a_depth, a_depth, b + j // line * next_panel + k * b_depth,
                next_panel, b_depth, deep, k == 0, gradients, values + i * n_out + j, n_out,
            )
            k += deep
        lines.rows, lines.columns, lines.line = height, wide, n_out
        lines.gradient_line = (wide + line - 1) // line * line
        train_lines(net, &stage.weights, i * n_out + j, gradients, &lines, stage.trained, constants)
        j += wide
    if stage.packed is not NULL and stage.trained and not net.clip_norm:
        pack_row_panel(stage, i, height)


cdef void train_values(
    const Net *net,
    Parameter *parameter,
    Py_ssize_t at,  # the first of the values
    real_t *gradients,  # (n,) in: without the penalty's; and out
    Py_ssize_t n,
    bint trained,
    const vec *constants,  # of the optimizer's rule, for such parameters
) noexcept nogil:
    """`train_lines`, of values that follow each other."""
    cdef Lines lines = one_line(n)
    train_lines(net, parameter, at, gradients, &lines, trained, constants)


cdef void train_lines(
    const Net *net,
    Parameter *parameter,
    Py_ssize_t at,  # the first of the values
    real_t *gradients,  # `lines` in: without the penalty's; and out
    const Lines *lines,
    bint trained,
    const vec *constants,  # of the optimizer's rule, for such parameters
) noexcept nogil:
    """Complete some values' gradients, store them if that is wanted, and update the values."""
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
    """Apply the optimizer's rule to some values, and let follow what is kept of the new ones."""
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
