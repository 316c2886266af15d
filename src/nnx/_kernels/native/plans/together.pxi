# Models that train together: each lane of a vector is a separate model, all of one shape. Every weight, gradient and
# state of the optimizer is a vector with a number of each model, and so is every input. Numbers of different models are
# never combined, so a model's bits do not depend on the others. It pays for tiny networks: LANES times their memory
# must stay in the caches.

cdef real_t ZEROS[MOST_LANES]  # the start of sums

cdef enum:
    GROUP_ROWS = 16  # the most rows of a batch that go forward and back together
    GROUP_BYTES = 1 << 17  # the approximate bytes of their outputs and gradients: they stay in L2
    GROUP_HEIGHT = 4  # of a tile of vectors
    GROUP_WIDTH = 4  # with 32 registers: 16 sums, and the factors


cdef struct LaneProduct:
    # result[i, j] := max(floor, start[i, j] + Σ_k left[i, k]·right[k, j]), all of vectors, with the given distances in
    # numbers.
    const real_t *left
    Py_ssize_t left_row, left_step
    const real_t *right
    Py_ssize_t right_column, right_step
    Py_ssize_t rows, depth, columns
    const real_t *start  # may be the result
    Py_ssize_t start_row, start_column
    real_t *result
    Py_ssize_t row, column
    real_t floor  # 0 for a ReLU, else −∞
    const real_t *gate  # like the result: where it is 0, the result is 0; or NULL


cdef inline void tile_together(
    const int height,  # these are constants at every call
    const int width,
    const LaneProduct *p,
    Py_ssize_t i,
    Py_ssize_t j,
) noexcept nogil:
    """Compute the part of a product that begins at row i and column j."""
    cdef vec sums[GROUP_HEIGHT * GROUP_WIDTH]
    cdef vec line[GROUP_WIDTH]
    cdef vec x
    cdef const real_t *left = p.left + i * p.left_row
    cdef const real_t *right = p.right + j * p.right_column
    cdef real_t *result = p.result + i * p.row + j * p.column
    cdef Py_ssize_t left_row = p.left_row, right_column = p.right_column
    cdef Py_ssize_t left_step = p.left_step, right_step = p.right_step, k
    cdef int h, w
    cdef const real_t *start = p.start + i * p.start_row + j * p.start_column
    cdef const real_t *gate = p.gate + i * p.row + j * p.column
    for h in range(height):
        for w in range(width):
            sums[h * width + w] = v_load(start + h * p.start_row + w * p.start_column)
    for k in range(p.depth):
        for w in range(width):
            line[w] = v_load(right + w * right_column)
        for h in range(height):
            x = v_load(left + h * left_row)
            for w in range(width):
                sums[h * width + w] = v_madd(x, line[w], sums[h * width + w])
        left += left_step
        right += right_step
    x = v_all(p.floor)
    for h in range(height):
        for w in range(width):
            sums[h * width + w] = v_max(x, sums[h * width + w])
    if p.gate is NULL:
        for h in range(height):
            for w in range(width):
                v_store(result + h * p.row + w * p.column, sums[h * width + w])
        return
    for h in range(height):
        for w in range(width):
            x = v_load(gate + h * p.row + w * p.column)
            v_store(result + h * p.row + w * p.column, v_where_not_zero(x, sums[h * width + w]))


cdef inline void columns_together(const int height, const LaneProduct *p, Py_ssize_t i) noexcept nogil:
    """Compute some rows of a product, from row i on."""
    cdef Py_ssize_t j = 0, left
    while j < p.columns:
        left = p.columns - j
        if left >= 4 and TILE_ROWS == 8:
            tile_together(height, 4, p, i, j)
            j += 4
        elif left >= 3 and TILE_ROWS >= 6:  # 16 registers
            tile_together(height, 3, p, i, j)
            j += 3
        elif left >= 2:
            tile_together(height, 2, p, i, j)
            j += 2
        else:
            tile_together(height, 1, p, i, j)
            j += 1


cdef void multiply_together(const LaneProduct *p) noexcept nogil:
    """Compute a product, tile by tile, so that each loaded vector serves several rows or columns."""
    cdef Py_ssize_t i = 0
    while i + 4 <= p.rows:
        columns_together(4, p, i)
        i += 4
    while i + 2 <= p.rows:
        columns_together(2, p, i)
        i += 2
    if i < p.rows:
        columns_together(1, p, i)


# Memory


cdef inline Py_ssize_t line_of(Py_ssize_t columns) noexcept nogil:
    """Return the distance between rows, in vectors: an odd number.

    Rows a power of two apart would evict each other from L1. The gaps between rows are 0 at first.
    """
    return columns | 1


cdef struct Grouped:
    # A group's arrays. All except the labels and `hits` hold vectors. Rows are `line_of` vectors apart.
    Py_ssize_t block  # rows that go forward and back together
    Py_ssize_t n_weights, n_biases  # of all stages, in vectors
    real_t *values  # (n_weights + n_biases,): all weights, then all biases
    real_t *gradients
    real_t *states[MAX_STATES + 1]  # the rule's states, then the averages
    real_t *x  # (block, n_in)
    real_t *outputs  # of all stages, (block, n_out) each; the last ones (n_out, block)
    real_t *d[2]  # gradients in the same form, in turn
    real_t *targets  # (n_out, block)
    real_t *sample_losses  # (n_out, block)
    real_t *lines  # scratch (n_out,)
    double *hits  # (block, LANES)
    int32_t *labels  # (block, LANES)
    char *end


cdef Grouped grouped_arrays(const Net *net, char *space) noexcept nogil:
    """Return the addresses of the arrays of a group of networks of one shape."""
    cdef Grouped own
    cdef Py_ssize_t wide = 1, widths = 0, at
    cdef int s, k
    own.n_weights = own.n_biases = 0
    for s in range(net.n_stages):
        if net.stages[s].kind == DENSE:
            own.n_weights += net.stages[s].n_in * net.stages[s].n_out
            own.n_biases += net.stages[s].n_out
        wide = max(wide, line_of(net.stages[s].n_out))
        widths += line_of(net.stages[s].n_out)
    own.block = GROUP_BYTES // ((line_of(net.n_in) + widths + 2 * wide) * LANES * <Py_ssize_t> sizeof(real_t)) // 4 * 4
    own.block = max(<Py_ssize_t> 4, min(<Py_ssize_t> GROUP_ROWS, min(own.block, net.batch)))
    at = (own.n_weights + own.n_biases) * LANES
    own.values = <real_t *> space
    own.gradients = own.values + at
    own.states[0] = own.gradients + at
    for k in range(MAX_STATES):
        own.states[k + 1] = own.states[k] + at
    own.x = own.states[MAX_STATES] + at
    own.outputs = own.x + own.block * line_of(net.n_in) * LANES
    own.d[0] = own.outputs + own.block * widths * LANES
    own.d[1] = own.d[0] + own.block * wide * LANES
    own.targets = own.d[1] + own.block * wide * LANES
    own.sample_losses = own.targets + own.block * net.n_out * LANES
    own.lines = own.sample_losses + own.block * net.n_out * LANES
    own.hits = <double *> (own.lines + net.n_out * LANES)
    own.labels = <int32_t *> (own.hits + own.block * LANES)
    own.end = <char *> (own.labels + own.block * LANES)
    return own


cdef Py_ssize_t together_space(const Net *net) noexcept nogil:
    """Return the bytes of the arrays of a group."""
    return grouped_arrays(net, NULL).end - <char *> NULL


cdef inline void *array_of(const Parameter *parameter, int which) noexcept nogil:
    """Return a parameter's values, the rule's states, or the averages, which come last."""
    if which == 0:
        return parameter.values
    return parameter.states[which - 1] if which <= MAX_STATES else parameter.averages


cdef void move_parameters(const Group *group, const Grouped *own, bint back) noexcept nogil:
    """Copy the models' parameters and their states into the lanes, or back."""
    cdef const Net *net
    cdef const Parameter *parameter
    cdef real_t *lanes
    cdef real_t *values
    cdef Py_ssize_t first, i
    cdef Py_ssize_t at[2]
    cdef int which, s, p, l
    for which in range(MAX_STATES + 2):
        lanes = own.values if which == 0 else own.states[which - 1]
        for l in range(group.n if back else group.lanes):
            net = group.nets[l]
            at[0], at[1] = 0, own.n_weights
            for s in range(net.n_stages):
                if net.stages[s].kind != DENSE:
                    continue
                for p in range(2):
                    parameter = &net.stages[s].biases if p else &net.stages[s].weights
                    values = <real_t *> array_of(parameter, which)
                    first = at[p]
                    at[p] += parameter.size
                    if values is NULL or (0 < which <= MAX_STATES and which > net.rule.n_states):
                        continue
                    for i in range(parameter.size):
                        if back:
                            values[i] = lanes[(first + i) * LANES + l]
                        else:
                            lanes[(first + i) * LANES + l] = values[i]


# A step


cdef struct LaneRows:
    # Some rows of a batch. Each model has its own.
    Py_ssize_t start  # the first one's index in the epoch
    Py_ssize_t epoch
    Py_ssize_t rows
    Py_ssize_t batch  # rows of the batch


cdef inline Py_ssize_t sample_of(const Net *net, const LaneRows *rows, Py_ssize_t i) noexcept nogil:
    """Return the number of the sample in row i of a block."""
    if net.order is NULL:
        return rows.start + i
    return net.order[rows.epoch * net.n_samples + rows.start + i]


cdef void take_samples(const Group *group, const Grouped *own, const LaneRows *rows) noexcept nogil:
    """Copy some rows of samples and targets into the lanes."""
    cdef const Net *net = group.nets[0]
    cdef const real_t *X[MOST_LANES]
    cdef Py_ssize_t n_in = net.n_in, n_out = net.n_out, i, k, sample
    cdef real_t *x = own.x
    cdef int l, lanes = group.lanes  # not a constant, or compilers would unroll everything
    for i in range(rows.rows):
        if group.alike and net.order is NULL:
            X[0] = <const real_t *> net.X + (rows.start + i) * n_in
            for k in range(n_in):
                v_store(x + k * LANES, v_all(X[0][k]))
        else:
            for l in range(lanes):
                X[l] = <const real_t *> group.nets[l].X + sample_of(group.nets[l], rows, i) * n_in
            for k in range(n_in):
                for l in range(lanes):
                    x[k * LANES + l] = X[l][k]
        x += line_of(n_in) * LANES
        for l in range(lanes):
            sample = sample_of(group.nets[l], rows, i)
            if net.labels is not NULL:
                own.labels[i * LANES + l] = group.nets[l].labels[sample]
            else:
                for k in range(n_out):
                    own.targets[(k * rows.rows + i) * LANES + l] = (<const real_t *> group.nets[l].targets)[
                        sample * n_out + k
                    ]


cdef inline bint is_last(const Net *net, int s) noexcept nogil:
    """Return whether a stage's output is the input of the loss, or of the last activation."""
    return s == net.n_stages - 1 or (s == net.n_stages - 2 and net.stages[s + 1].kind == ACTIVATION)


cdef inline bint is_in_place(const Net *net, int s) noexcept nogil:
    """Return whether a stage writes its output over its input."""
    return net.stages[s].kind == ACTIVATION and not net.stages[s].activation.traits & FROM_INPUTS


cdef void group_forward(const Net *net, const Grouped *own, Py_ssize_t rows) noexcept nogil:
    """Take a block of rows forward, without a softmax at the end."""
    cdef const Stage *stage
    cdef const real_t *weights = own.values
    cdef const real_t *biases = own.values + own.n_weights * LANES
    cdef real_t *inputs = own.x
    cdef real_t *output = own.outputs
    cdef LaneProduct p
    cdef int s
    p.gate, p.start_row, p.start_column, p.left_step, p.right_column = NULL, 0, LANES, LANES, LANES
    for s in range(net.n_stages - (1 if net.fused else 0)):
        stage = &net.stages[s]
        if stage.kind == DENSE:
            p.left, p.left_row = inputs, line_of(stage.n_in) * LANES
            p.right, p.right_step, p.start = weights, stage.n_out * LANES, biases
            p.rows, p.depth, p.columns = rows, stage.n_in, stage.n_out
            p.floor = <real_t> (0 if stage.relu else -INFINITY)
            p.result, p.row, p.column = output, line_of(stage.n_out) * LANES, LANES
            if is_last(net, s):
                p.row, p.column = LANES, rows * LANES
            multiply_together(&p)
            weights += stage.n_in * stage.n_out * LANES
            biases += stage.n_out * LANES
        elif is_in_place(net, s):
            stage.activation.run(
                FORWARD, inputs, NULL, inputs, rows, line_of(stage.n_out) * LANES, stage.settings, NULL
            )
            continue
        else:
            stage.activation.run(
                FORWARD_AND_SLOPE, inputs, NULL, output, rows, line_of(stage.n_out) * LANES, stage.settings, NULL
            )
        inputs = output
        output += own.block * line_of(stage.n_out) * LANES


cdef void group_loss_part(
    LossPart part, const Net *net, const Grouped *own, const real_t *output, real_t *result, const LaneRows *rows
) noexcept nogil:
    """Compute the losses of all outputs, each output as a row, or their gradient."""
    cdef Py_ssize_t n = rows.rows * LANES, j
    cdef real_t numbers[2 * MOST_LANES]
    cdef int l
    if net.loss_own is NULL:
        net.loss.run(
            part, output, own.targets, result, n * net.n_out, 1, rows.batch * net.n_out, net.loss_settings, NULL
        )
        return
    for j in range(net.n_out):  # each column has its own number
        for l in range(2 * MOST_LANES):
            numbers[l] = (<const real_t *> net.loss_own)[j]
        net.loss.run(
            part, output + j * n, own.targets + j * n, result + j * n, n, 1, rows.batch * net.n_out,
            net.loss_settings, numbers,
        )


cdef void count_group_hits(
    const Group *group, const real_t *output, const LaneRows *rows, double *hits
) noexcept nogil:
    """Add the hits of a block's rows to each model's. Each model has its own targets."""
    cdef const Net *net
    cdef real_t row[MOST_OUTPUTS]
    cdef Py_ssize_t i, j
    cdef int l
    for l in range(group.n):
        net = group.nets[l]
        for i in range(rows.rows):
            for j in range(net.n_out):
                row[j] = output[(j * rows.rows + i) * LANES + l]
            hits[l] += <double> count_hits(net, row, net.wanted + sample_of(net, rows, i) * net.n_wanted, 1)


cdef void group_judge(
    const Group *group, const Grouped *own, const LaneRows *rows, real_t *output, double *losses, double *hits
) noexcept nogil:
    """Compute a block's losses and hits, add them to each model's, and compute the gradient."""
    cdef const Net *net = group.nets[0]
    cdef Py_ssize_t n = rows.rows * LANES, i
    cdef int l
    if net.fused:
        softmax_crossentropy(
            output, own.labels, output, own.d[0], own.sample_losses, n, net.n_out, 1, n, rows.batch,
            net.loss_settings[0], net.loss_settings[1], own.hits, own.lines,
        )
    else:
        group_loss_part(SAMPLE_LOSSES, net, own, output, own.sample_losses, rows)
        group_loss_part(PAIR_GRADIENT if net.combined else GRADIENT, net, own, output, own.d[0], rows)
    for i in range(rows.rows * (1 if net.fused else net.n_out)):
        v_add_to(losses, v_load(own.sample_losses + i * LANES))
    if net.wanted is not NULL:
        count_group_hits(group, output, rows, hits)
    else:
        for i in range(rows.rows):
            for l in range(LANES):
                hits[l] += own.hits[i * LANES + l]


cdef void sum_group_biases(
    const real_t *d, Py_ssize_t row, Py_ssize_t column, Py_ssize_t rows, Py_ssize_t columns, bint adds, real_t *result
) noexcept nogil:
    """``result_j := Σ_i d_ij``, or ``+=`` if ``adds``."""
    cdef Py_ssize_t i, j
    cdef vec sums
    for j in range(columns):
        sums = v_load(result + j * LANES) if adds else v_all(0)
        for i in range(rows):
            sums = v_add(sums, v_load(d + i * row + j * column))
        v_store(result + j * LANES, sums)


cdef void group_backward(
    const Net *net, const Grouped *own, Py_ssize_t rows, real_t *output, bint adds
) noexcept nogil:
    """Take a block's gradient back, and compute that of the parameters. If ``adds``, it is added to the old one."""
    cdef const Stage *stage
    cdef const real_t *inputs
    cdef Py_ssize_t weights = own.n_weights * LANES, biases = (own.n_weights + own.n_biases) * LANES
    cdef Py_ssize_t row, column
    cdef real_t *d = own.d[0]
    cdef real_t *other = own.d[1]
    cdef LaneProduct p
    cdef int s, before
    p.floor = <real_t> -INFINITY
    if net.stages[net.n_stages - 1].relu:
        relu_backward(output, d, d, rows * net.n_out * LANES)
    for s in range(net.n_stages - (2 if net.combined else 1), -1, -1):
        stage = &net.stages[s]
        # The inputs of an activation that reads them, now slopes, lie before its own output.
        if stage.kind == ACTIVATION and is_in_place(net, s):
            stage.activation.run(BACKWARD, output, d, d, rows, line_of(stage.n_out) * LANES, stage.settings, NULL)
            continue
        inputs = own.x if s == 0 else output - own.block * line_of(stage.n_in) * LANES
        if stage.kind == ACTIVATION:
            output = <real_t *> inputs
            multiply(d, output, d, rows * line_of(stage.n_out) * LANES)
            continue
        row, column = line_of(stage.n_out) * LANES, LANES
        if is_last(net, s):
            row, column = LANES, rows * LANES
        weights -= stage.n_in * stage.n_out * LANES
        biases -= stage.n_out * LANES
        sum_group_biases(d, row, column, rows, stage.n_out, adds, own.gradients + biases)
        p.left, p.left_row, p.left_step = inputs, LANES, line_of(stage.n_in) * LANES
        p.right, p.right_column, p.right_step = d, column, row
        p.rows, p.depth, p.columns = stage.n_in, rows, stage.n_out
        p.result, p.row, p.column = own.gradients + weights, stage.n_out * LANES, LANES
        p.start, p.start_row, p.start_column = ZEROS, 0, 0
        if adds:
            p.start, p.start_row, p.start_column = p.result, p.row, p.column
        p.gate = NULL
        multiply_together(&p)
        if s == 0:
            return
        p.left, p.left_row, p.left_step = d, row, column
        p.right, p.right_column, p.right_step = own.values + weights, stage.n_out * LANES, LANES
        p.rows, p.depth, p.columns = rows, stage.n_out, stage.n_in
        p.result, p.row, p.column = other, line_of(stage.n_in) * LANES, LANES
        p.start, p.start_row, p.start_column = ZEROS, 0, 0
        p.gate = inputs if net.stages[s - 1].relu else NULL
        multiply_together(&p)
        d, other = other, d
        output = <real_t *> inputs


# Penalties and update


cdef vec strengths_of(const Group *group, int s, bint of_biases, bint squared) noexcept nogil:
    """Return the models' own coefficients of a penalty."""
    cdef real_t lanes[MOST_LANES]
    cdef const Parameter *parameter
    cdef int l
    for l in range(LANES):
        parameter = &group.nets[l].stages[s].biases if of_biases else &group.nets[l].stages[s].weights
        lanes[l] = <real_t> (2 * parameter.l2 if squared else parameter.l1)
    return v_load(lanes)


cdef void add_group_penalties(const Group *group, const Grouped *own) noexcept nogil:
    """Add the gradients of penalties to the gradients."""
    cdef const Net *net = group.nets[0]
    cdef vec l1, l2, value, gradient
    cdef Py_ssize_t i, size
    cdef Py_ssize_t at[2]
    cdef int s, p
    at[0], at[1] = 0, own.n_weights * LANES
    for s in range(net.n_stages):
        if net.stages[s].kind != DENSE:
            continue
        for p in range(2):
            l1, l2 = strengths_of(group, s, p, False), strengths_of(group, s, p, True)
            size = net.stages[s].n_out * (1 if p else net.stages[s].n_in)
            for i in range(size):
                value, gradient = v_load(own.values + at[p]), v_load(own.gradients + at[p])
                v_store(own.gradients + at[p], add_multiple(value, add_sign(value, gradient, l1), l2))
                at[p] += LANES


cdef void group_penalties(const Group *group, const Grouped *own, double *penalties) noexcept nogil:
    """Compute each model's penalty."""
    cdef const Net *net = group.nets[0]
    cdef const Parameter *parameter
    cdef double absolute[MOST_LANES]
    cdef double squares[MOST_LANES]
    cdef Py_ssize_t i, size
    cdef Py_ssize_t at[2]
    cdef int s, p, l
    at[0], at[1] = 0, own.n_weights * LANES
    for l in range(LANES):
        penalties[l] = 0
    for s in range(net.n_stages):
        if net.stages[s].kind != DENSE:
            continue
        for p in range(2):
            for l in range(LANES):
                absolute[l] = squares[l] = 0
            size = net.stages[s].n_out * (1 if p else net.stages[s].n_in)
            for i in range(size):
                v_add_to(absolute, v_abs(v_load(own.values + at[p])))
                v_add_square_to(squares, v_load(own.values + at[p]))
                at[p] += LANES
            for l in range(LANES):
                parameter = &group.nets[l].stages[s].biases if p else &group.nets[l].stages[s].weights
                if parameter.l1:
                    penalties[l] += parameter.l1 * absolute[l]
                if parameter.l2:
                    penalties[l] += parameter.l2 * squares[l]


cdef bint has_penalties(const Group *group) noexcept nogil:
    cdef const Stage *stage
    cdef int l, s
    for l in range(group.n):
        for s in range(group.nets[l].n_stages):
            stage = &group.nets[l].stages[s]
            if stage.kind == DENSE and (
                stage.weights.l1 or stage.weights.l2 or stage.biases.l1 or stage.biases.l2
            ):
                return True
    return False


cdef inline double rate_of(const Net *net, Py_ssize_t step) noexcept nogil:
    return net.progress.figures.steps[4 * net.progress.figures.steps_size + step]


cdef bint has_same_constants(const Net *net, const Net *other, Py_ssize_t step) noexcept nogil:
    """Return whether two models' rules have the same constants in a step."""
    return (
        rate_of(net, step) == rate_of(other, step) and net.iterations == other.iterations
        and net.average == other.average and memcmp(net.settings, other.settings, sizeof(net.settings)) == 0
    )


cdef void group_constants(const Group *group, Py_ssize_t step, vec *constants) noexcept nogil:
    """Compute the constants of the models' rules for a step. Each lane has its model's own."""
    cdef const Net *net
    cdef vec own[ALL_CONSTANTS]
    cdef real_t lanes[ALL_CONSTANTS * MOST_LANES]
    cdef real_t everywhere[MOST_LANES]
    cdef bint differ = False
    cdef int l, k, n = biases_at(group.nets[0]) + MAX_CONSTANTS + 1
    memset(own, 0, sizeof(own))
    for l in range(group.lanes):
        net = group.nets[l]
        if l == 0 or not has_same_constants(net, group.nets[l - 1], step):
            rule_constants(net, rate_of(net, step), net.iterations + <uint64_t> step + 1, own)
            differ = differ or l > 0
        if l == 0:
            for k in range(n):
                constants[k] = own[k]
        if differ or l == 0:
            for k in range(n):
                v_store(everywhere, own[k])
                lanes[k * LANES + l] = everywhere[0]
        else:
            for k in range(n):
                lanes[k * LANES + l] = lanes[k * LANES]
    if differ:
        for k in range(n):
            constants[k] = v_load(lanes + k * LANES)


cdef void group_update(const Net *net, const Grouped *own, const vec *constants) noexcept nogil:
    """Update all parameters and their states."""
    cdef Py_ssize_t n = own.n_weights + own.n_biases, at = 0, size, i
    cdef void *states[MAX_STATES]
    cdef const vec *of_rule = constants
    cdef Lines lines
    cdef vec value
    cdef int k
    if net.clip_value:
        clip_gradients(own.gradients, own.gradients, n * LANES, net.clip_value)
    while at < n:
        size = n if net.alike else own.n_weights if at == 0 else own.n_biases
        for k in range(MAX_STATES):
            states[k] = own.states[k] + at * LANES
        lines = one_line(size * LANES)
        net.rule.apply(own.values + at * LANES, own.gradients + at * LANES, states, &lines, of_rule)
        at += size
        of_rule = constants + biases_at(net)
    if net.average:
        for i in range(n):
            value = v_load(own.values + i * LANES)
            v_store(
                own.states[MAX_STATES] + i * LANES,
                average_of(v_load(own.states[MAX_STATES] + i * LANES), value, constants[AVERAGE]),
            )


cdef Py_ssize_t train_together(Group *group, Py_ssize_t n_steps) noexcept nogil:
    """Do some steps of all models of a group. Return the step before which a loss was not finite, if there is one."""
    cdef const Net *net = group.nets[0]
    cdef Grouped own = grouped_arrays(net, <char *> group.space)
    cdef Py_ssize_t n_batches = (net.n_samples + net.batch - 1) // net.batch, step, in_epoch = net.step_of_epoch
    cdef bint penalized = has_penalties(group), known = False
    cdef double penalties[MOST_LANES]
    cdef double losses[MOST_LANES]
    cdef double hits[MOST_LANES]
    cdef vec constants[ALL_CONSTANTS]
    cdef real_t *output = own.outputs
    cdef Batch batch
    cdef LaneRows rows
    cdef int s, l
    for s in range(net.n_stages - (2 if net.fused else 1)):
        if not is_in_place(net, s + 1):
            output += own.block * line_of(net.stages[s].n_out) * LANES
    memset(penalties, 0, sizeof(penalties))
    memset(own.outputs, 0, <char *> own.targets - <char *> own.outputs)
    move_parameters(group, &own, False)
    rows.epoch, group.diverged = 0, -1
    for step in range(n_steps):
        batch.start = in_epoch * net.batch
        batch.rows = batch.all_rows = min(net.batch, net.n_samples - batch.start)
        batch.order, batch.weight, batch.forwards, batch.again = NULL, <double> batch.rows, 0, False
        batch.copied = False
        if penalized and not known:
            group_penalties(group, &own, penalties)
        memset(losses, 0, sizeof(losses))
        memset(hits, 0, sizeof(hits))
        rows.start, rows.batch = batch.start, batch.rows
        while rows.start < batch.start + batch.rows:
            rows.rows = min(own.block, batch.start + batch.rows - rows.start)
            take_samples(group, &own, &rows)
            group_forward(net, &own, rows.rows)
            group_judge(group, &own, &rows, output, losses, hits)
            group_backward(net, &own, rows.rows, output, rows.start > batch.start)
            rows.start += rows.rows
        for l in range(group.n):
            if net.stops and not isfinite(losses[l]):
                group.diverged = l
                move_parameters(group, &own, True)
                return step
        in_epoch += 1
        for l in range(group.n):
            if not net.fused:
                losses[l] /= <double> net.n_out
            group.nets[l].progress.hits[0] = <Py_ssize_t> hits[l]
            record_step(
                group.nets[l], &batch, in_epoch == 1, step, losses[l], hits_of(group.nets[l], 0, batch.rows),
                penalties[l],
            )
        if penalized:
            add_group_penalties(group, &own)
        group_constants(group, step, constants)
        group_update(net, &own, constants)
        known = in_epoch == n_batches
        if known:
            if penalized:
                group_penalties(group, &own, penalties)
            for l in range(group.n):
                record_epoch(group.nets[l], rows.epoch, penalties[l], rate_of(group.nets[l], step))
            in_epoch = 0
            rows.epoch += 1
    move_parameters(group, &own, True)
    return n_steps
