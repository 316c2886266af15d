# Partial gradients. If a batch has many more numbers than the weights, moving gradients between threads is cheaper than
# moving rows. So the batch is cut into groups of rows. The thread that takes a group forward and back also computes the
# group's part of the gradients, while the rows are in its caches. The parts are added up in a fixed tree: pairs, pairs
# of pairs. Groups depend only on shapes, so bits do not depend on the number of threads. A thread adds up at once the
# subtrees that it has whole.

cdef enum:
    GROUPS = 8  # the most groups of rows in a batch
    FEWEST_IN_GROUP = 112  # rows: with fewer, adding up costs more than 2 % of a step on one thread
    PARTIAL_BYTES = 1 << 15  # the most bytes of a stage's gradients: they stay in L1 and L2 beside the rows
    MEMBERS_BYTES = 1 << 17  # the same after members: a batch's rows would be read again from L3


cdef inline Py_ssize_t partial_line(const Stage *stage) noexcept nogil:
    """Return the distance between the rows of a stage's partial gradients."""
    return padded_columns(stage.n_out) if has_row_panels(stage.n_in, stage.n_out) else stage.n_out


cdef inline Py_ssize_t partial_weights(const Stage *stage) noexcept nogil:
    """Return the size of the partial gradients of a stage's weights in numbers. Those of its biases follow."""
    if is_of_members(stage):
        return (stage.weights.size + MOST_LANES - 1) // MOST_LANES * MOST_LANES
    return (stage.n_in * partial_line(stage) + MOST_LANES - 1) // MOST_LANES * MOST_LANES


cdef inline Py_ssize_t partial_biases(const Stage *stage) noexcept nogil:
    cdef Py_ssize_t line = TALL_VECTORS * MOST_LANES
    if is_of_members(stage):
        return (stage.biases.size + MOST_LANES - 1) // MOST_LANES * MOST_LANES
    return (stage.n_out + line - 1) // line * line


cdef inline bint takes_partials(const Net *net, const Stage *stage) noexcept nogil:
    """Return whether a stage's gradients are computed group by group, because two threads then move fewer numbers."""
    cdef Py_ssize_t n_in = stage.n_in, n_out = stage.n_out
    if is_of_members(stage):
        return stage.kind != MEMBER_DENSE or n_out == 1
    return (
        stage.kind == DENSE and n_out <= ROW_PANEL_COLUMNS
        and n_in * n_out * <Py_ssize_t> sizeof(real_t) <= (MEMBERS_BYTES if stage.members > 1 else PARTIAL_BYTES)
        and n_in * n_out < batch_of(net, stage) * (n_out + n_in // 2)
        and (packs_batch(net, stage) or not has_row_panels(n_in, n_out))
    )


cdef Py_ssize_t lay_out_partials(Net *net, Py_ssize_t batch) noexcept nogil:
    """Decide which stages have partial gradients, and where. Return the bytes of all groups."""
    cdef Py_ssize_t at = 0, rows = (batch + GROUPS - 1) // GROUPS, unit = row_unit(net)
    # Segments, which have no loss, and batch norms do not take each row through the whole step at once.
    cdef bint fits = net.loss is not NULL and not net.n_batch_norms and net.units is NULL
    cdef Stage *stage
    cdef int s
    net.batch = batch
    for s in range(net.n_stages):
        stage = &net.stages[s]
        stage.partial = at
        stage.in_groups = fits and rows * stage.members >= FEWEST_IN_GROUP and takes_partials(net, stage)
        if stage.in_groups:
            at += partial_weights(stage) + partial_biases(stage)
    net.group_rows, net.group_size = (rows + unit - 1) // unit * unit if at else 0, at
    net.group_step = rows_at_a_time(net)
    return GROUPS * at * <Py_ssize_t> sizeof(real_t)


cdef inline real_t *partial_of(const Net *net, const Stage *stage, Py_ssize_t group) noexcept nogil:
    return <real_t *> net.partials + group * net.group_size + stage.partial


cdef void add_gradients(
    const Net *net, const Batch *batch, Py_ssize_t group, Py_ssize_t home, Py_ssize_t first, Py_ssize_t rows,
    bint begins, char *scratch
) noexcept nogil:
    """Add the contribution of some rows to their group's gradients. `begins` says that they are the group's first.

    Packed rows are stored from row `home` on, the same for all groups of a thread, so they stay in L2.
    """
    cdef const Stage *stage
    cdef const real_t *inputs
    cdef const real_t *dvalues
    cdef Py_ssize_t at, n
    cdef int s
    for s in range(net.n_stages):
        stage = &net.stages[s]
        if not stage.in_groups or not wants_gradients(stage):
            continue
        at, n = first * stage.members, rows * stage.members
        inputs = rows_of_X(net, batch, first)
        if s > 0:
            inputs = <const real_t *> stage.inputs + first * members_before(stage) * stage.n_in
        if stage.rounded_inputs is not NULL:
            inputs = <const real_t *> stage.rounded_inputs + at * stage.n_in
        dvalues = dvalues_of(stage) + at * stage.n_out
        if is_of_members(stage):
            add_member_gradients(stage, partial_of(net, stage, group), inputs, dvalues, rows, begins)
        elif stage.tiles is not NULL:
            pack_stage(stage, inputs, dvalues, home * stage.members, n, batch_of(net, stage))
            add_row_panels(net, stage, partial_of(net, stage, group), home * stage.members, n, begins)
        else:
            add_small_gradients(stage, partial_of(net, stage, group), inputs, dvalues, n, begins, scratch)


cdef void add_row_panels(
    const Net *net, const Stage *stage, real_t *partial, Py_ssize_t home, Py_ssize_t rows, bint begins
) noexcept nogil:
    """``partial += inputsᵀ · dvalues, Σ over rows of dvalues``, from packed rows."""
    cdef Py_ssize_t line = TALL_VECTORS * LANES, panel = panel_stride(batch_of(net, stage)), k = 0, at, deep
    cdef const real_t *b
    cdef bint first
    cdef Factors f
    f.a, f.a_column, f.a_depth = <const real_t *> stage.tiles, tile_stride(batch_of(net, stage)), 0
    f.b_depth, f.n_ahead = line, 0
    while k < rows:
        deep, first = min(<Py_ssize_t> ROW_PANEL_DEPTH, rows - k), begins and k == 0
        b = <const real_t *> stage.panels + (home + k) * line
        sum_panels(b, panel, deep, stage.n_out, first, partial + partial_weights(stage))
        at = 0
        while at < stage.n_out:
            gradient_tiles(
                &f, stage.n_in, 0, stage.n_in, b, min(line, stage.n_out - at), home + k, deep, first, partial + at,
                partial_line(stage), 0, 0,
            )
            b += panel
            at += line
        k += deep


cdef void add_small_gradients(
    const Stage *stage, real_t *partial, const real_t *inputs, const real_t *dvalues, Py_ssize_t rows, bint begins,
    char *scratch
) noexcept nogil:
    """The same for weights that do not fill tiles."""
    cdef Py_ssize_t n_in = stage.n_in, n_out = stage.n_out, size = partial_weights(stage)
    cdef real_t *weights = partial if begins else <real_t *> (scratch + PRODUCT_SCRATCH)
    cdef real_t *biases = partial + size if begins else weights + n_in * n_out
    if has_small_depth(n_out, n_in):
        small_depth_gradients(inputs, dvalues, weights, biases, rows, n_in, n_out)
    else:
        dense_backward_weights(inputs, dvalues, NULL, weights, rows, n_in, n_out, 0, 0, <real_t *> scratch)
        dense_backward_biases(dvalues, NULL, biases, rows, n_out, 0, 0)
    if not begins:
        add(partial, weights, partial, n_in * n_out)
        add(partial + size, biases, partial + size, n_out)


cdef void add_member_gradients(
    const Stage *stage, real_t *partial, const real_t *inputs, const real_t *dvalues, Py_ssize_t samples, bint begins
) noexcept nogil:
    """The same for stages with parameters of members."""
    cdef real_t *biases = partial + partial_weights(stage) if has_biases(stage) else NULL
    if begins:
        memset(partial, 0, (partial_weights(stage) + partial_biases(stage)) * sizeof(real_t))
    if stage.kind == MEMBER_DENSE:
        add_outer_products(inputs, dvalues, partial, biases, samples, stage.members, stage.n_in)
    else:
        add_products_of_members(
            inputs, dvalues, partial, biases, samples, stage.members, stage.n_out, stage.kind == MEMBERS, 0,
            stage.members,
        )


# The tree


cdef inline Py_ssize_t groups_of(const Net *net, Py_ssize_t rows) noexcept nogil:
    """Return the number of groups of rows."""
    return (rows + net.group_rows - 1) // net.group_rows


cdef void join_whole_trees(const Net *net, Py_ssize_t from_group, Py_ssize_t group) noexcept nogil:
    """Add up all pairs that end with a group and that a thread has computed whole, given its first group."""
    cdef Py_ssize_t step = 1
    cdef const Stage *stage
    cdef int s
    while (group + 1) % (2 * step) == 0 and group + 1 - 2 * step >= from_group:
        for s in range(net.n_stages):
            stage = &net.stages[s]
            if stage.in_groups and wants_gradients(stage):
                join_pair(net, stage, group + 1 - 2 * step, step, 0, partial_weights(stage) + partial_biases(stage))
        step *= 2


cdef inline void join_pair(
    const Net *net, const Stage *stage, Py_ssize_t group, Py_ssize_t step, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Add the gradients of the group `step` later to some of a group's gradients. `first` is at a whole vector."""
    cdef real_t *sums = partial_of(net, stage, group)
    cdef const real_t *others = partial_of(net, stage, group + step)
    while first < end:
        v_store(sums + first, v_add(v_load(sums + first), v_load(others + first)))
        first += LANES


cdef void join_others(
    const Net *net, const Batch *batch, const Stage *stage, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Add up the pairs that no thread had whole, for some gradients. The first group then has the batch's sums."""
    cdef Py_ssize_t groups = groups_of(net, batch.rows), each = share_of(net, batch.rows) // net.group_rows
    cdef Py_ssize_t step = 1, group
    while step < groups:
        group = 0
        while group + step < groups:
            if group + 2 * step > groups or group // each != (group + 2 * step - 1) // each:
                join_pair(net, stage, group, step, first, end)
            group += 2 * step
        step *= 2


cdef void train_by_groups(
    const Net *net, const Batch *batch, int s, const vec *constants, int thread
) noexcept nogil:
    """Add up the partial gradients of a dense stage's weights and biases that this thread owns, and update these."""
    cdef Stage *stage = &net.stages[s]
    cdef Py_ssize_t n_out = stage.n_out, wide = partial_line(stage), size = partial_weights(stage), i = 0, end
    cdef real_t *gradients = partial_of(net, stage, 0)
    cdef bint mine = thread == s % net.progress.n_threads
    cdef Lines lines
    if stage.tiles is not NULL:
        i, end = first_row_of(net, stage, thread), first_row_of(net, stage, thread + 1)
        join_others(net, batch, stage, i * wide, end * wide)
        while i < end:
            lines.rows, lines.columns, lines.line, lines.gradient_line = tile_height(stage.n_in - i), n_out, n_out, wide
            train_lines(net, &stage.weights, i * n_out, gradients + i * wide, &lines, stage.trained, constants)
            if stage.packed is not NULL and stage.trained and not net.clip_norm:
                pack_row_panel(stage, i, lines.rows, 0, n_out)
            i += lines.rows
    elif mine:
        join_others(net, batch, stage, 0, size)
        train_values(net, &stage.weights, 0, gradients, stage.weights.size, stage.trained, constants)
    if mine and has_biases(stage):
        join_others(net, batch, stage, size, size + partial_biases(stage))
        train_values(
            net, &stage.biases, 0, gradients + size, stage.biases.size, stage.trained, constants + biases_at(net)
        )
