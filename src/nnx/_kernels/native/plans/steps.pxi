# Steps of a plan: batch after batch through all stages, with any number of threads. A step has two phases. In the
# first, each thread takes its rows of the batch forward, through the loss and back. In the second, each computes the
# gradients of the weights that it owns over the whole batch, and updates them. So one thread sums each number, in an
# order that does not depend on the number of threads. Narrow layers of large batches work differently: see
# partial_gradients.pxi.

cdef enum:
    ROW_UNIT = 16  # rows that go forward and back together are a multiple of it
    SHARED_UNIT = 4  # rows of each thread but the last are a multiple of it: of 100, two threads take 52 and 48
    TILE_BYTES = 1 << 18  # bytes of values and gradients of rows that go forward and back together: they stay in L2
    FEWEST_ROWS = 256  # but not fewer rows: each such tile of rows packs the weights anew, from memory
    FEWEST_ROWS_IN_BLOCKS = GROUP * BLOCK


cdef inline bint has_blocks(const Stage *stage) noexcept nogil:
    """Return whether a stage's products are done in blocks."""
    return sizeof(real_t) == sizeof(float) and stage.blocks.units is not NULL


cdef inline Py_ssize_t row_unit(const Net *net) noexcept nogil:
    """Return of what the number of samples that go together is a multiple."""
    cdef Py_ssize_t unit = BLOCK if net.units is not NULL else ROW_UNIT
    return 1 if net.members % unit == 0 and net.units is NULL else unit


cdef Py_ssize_t rows_at_a_time(const Net *net) noexcept nogil:
    """Return how many samples go forward and back together: of a network without members, each is a row."""
    cdef Py_ssize_t width = net.n_in, unit = row_unit(net), rows, s
    cdef Py_ssize_t fewest = FEWEST_ROWS_IN_BLOCKS if net.units is not NULL else FEWEST_ROWS
    for s in range(net.n_stages):
        width += 2 * net.stages[s].n_out * net.stages[s].members
    rows = TILE_BYTES // (width * <Py_ssize_t> sizeof(real_t))
    fewest = (fewest // net.members + unit - 1) // unit * unit
    return max(unit, max(fewest, rows // unit * unit))


cdef inline Py_ssize_t even_share(const Net *net, Py_ssize_t rows, Py_ssize_t most) noexcept nogil:
    """Return how many of some rows go together next, at most `most`, so that all shares are equal.

    Of 384 rows, 192 and 192, not 256 and 128: the smaller share, too, reads all weights from memory.
    """
    cdef Py_ssize_t unit = row_unit(net)
    cdef Py_ssize_t shares = (rows + most - 1) // most
    return min(rows, ((rows + shares - 1) // shares + unit - 1) // unit * unit)


cdef Py_ssize_t forward_space(const Net *net) noexcept nogil:
    """Return how many bytes `forward` needs after the scratch of kernels."""
    cdef Py_ssize_t space = (2 + net.n_levels) * rows_at_a_time(net) * widest(net) * <Py_ssize_t> sizeof(real_t)
    if net.members > 1:  # for means, which `judge` needs
        space += FEWEST_ROWS * net.n_out * <Py_ssize_t> sizeof(real_t)
    return space + (2 * blocks_space(rows_at_a_time(net), widest(net)) if net.units is not NULL else 0)


cdef Py_ssize_t widest(const Net *net) noexcept nogil:
    """Return the most numbers of a sample in the arrays of `forward`.

    X counts if it is rounded, or the input of a fork. In blocks, each member's numbers are padded.
    """
    cdef Py_ssize_t wide = net.n_in if net.bfloat16 or net.n_levels else 0, own
    cdef int s
    for s in range(net.n_stages):
        own = net.stages[s].n_out
        if net.units is not NULL and net.members > 1:
            own = blocks_in(own) * BLOCK
        wide = max(wide, own * net.stages[s].members)
    return wide


cdef const real_t *rounded_rows(
    const real_t *values,  # (rows, columns) in
    void *place,  # (batch, columns) out; or NULL
    Py_ssize_t first,  # the first row's index in the batch
    Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """Return some rows as a dense stage multiplies them: rounded, if there is memory for that."""
    cdef real_t *result = <real_t *> place + first * columns
    if place is NULL:
        return values
    round_bfloat16(values, result, rows * columns)
    return result


# Forward


cdef void forward_stage(
    const Stage *stage,
    const real_t *inputs,  # (rows, n_in) in
    real_t *output,  # (rows, n_out) out; may be inputs, except for a dense stage and encodings
    Py_ssize_t first,  # the first row's index in the batch
    Py_ssize_t before,  # rows of the batch on the ranks before this one, for dropout
    Py_ssize_t rows,
    uint64_t forwards,
    char *scratch,
) noexcept nogil:
    """Compute some rows of a stage's output."""
    cdef Py_ssize_t n = rows * stage.n_out
    cdef real_t *kept
    if has_blocks(stage):
        if not stage.fed:
            stage.blocks.units.keep_inputs(stage, inputs, first, rows)
        stage.blocks.units.forward(stage, stage + 1 if stage.feeds else NULL, output, first, rows, scratch)
    elif stage.kind == DENSE:
        dense_forward(
            rounded_rows(inputs, stage.rounded_inputs, first, rows, stage.n_in), factors_of(stage),
            <const real_t *> stage.biases.values, output, rows, stage.n_in, stage.n_out,
            <const real_t *> stage.packed, stage.relu, <const real_t *> stage.affine, <real_t *> scratch,
        )
    elif stage.kind == PRELU:
        prelu_forward(
            inputs, <const real_t *> stage.weights.values, output, rows, stage.n_out, stage.weights.size
        )
    elif stage.kind == ACTIVATION:
        stage.activation.run(
            FORWARD_AND_SLOPE if stage.keeps_slope else FORWARD, <void *> inputs, NULL, output, rows, stage.n_out,
            stage.settings, scratch + PRODUCT_SCRATCH,
        )
    elif stage.kind == DROPOUT:
        kept = <real_t *> stage.mask + first * stage.n_out
        dropout_mask(kept, before + first, rows, stage.n_out, stage.keep, stage.seed, stage.forwards + forwards)
        multiply(inputs, kept, output, n)
    elif stage.kind == NOISE:
        kept = <real_t *> stage.mask + first * stage.n_out
        gaussian_noise(kept, before + first, rows, stage.n_out, stage.keep, stage.seed, stage.forwards + forwards)
        add(inputs, kept, output, n)
    elif stage.kind == FORK:
        copy(inputs, output, n)
    elif stage.kind == JOIN:
        add(inputs, <const real_t *> (stage - stage.partner).output + first * stage.n_out, output, n)
    elif stage.kind == PIECEWISE_LINEAR:
        piecewise_linear_forward(inputs, &stage.encoded, output, rows, stage.n_in, stage.n_out)
    elif stage.kind == THERMOMETER:
        thermometer_forward(inputs, &stage.encoded, output, rows, stage.n_in, stage.n_out)
    elif stage.kind == COMBINATIONS:
        combinations_forward(inputs, &stage.encoded, output, rows, stage.n_in, stage.n_out)
    elif stage.kind == SPLINE:
        forward_spline(stage, inputs, output, first, rows, <real_t *> scratch)
    elif stage.kind == MEMBER_DENSE:
        forward_own(stage, inputs, output, rows // stage.members, <real_t *> scratch)
    else:
        forward_parameters(stage, inputs, output, rows)


cdef void forward_parameters(
    const Stage *stage,
    const real_t *inputs,  # (rows, n_in) in
    real_t *output,  # (rows, n_out) out; may be inputs, except for an embedding or waves
    Py_ssize_t rows,
) noexcept nogil:
    """Compute some rows of the output of a stage with parameters that is neither dense nor a PReLU."""
    cdef const real_t *weights = <const real_t *> stage.weights.values
    cdef const real_t *biases = <const real_t *> stage.biases.values
    if stage.kind == BATCH_NORM:
        batch_norm_forward(
            inputs, norm_of(stage, MEAN), norm_of(stage, SCALES), biases, output, rows, stage.n_out, stage.relu
        )
    elif stage.kind == LAYER_NORM:
        layer_norm_forward(inputs, weights, biases, stage.norm.epsilon, output, rows, stage.n_out)
    elif stage.kind == SCALE:
        multiply_columns(inputs, weights, output, rows, stage.n_out)
    elif is_of_members(stage):
        members_forward(
            inputs, weights, biases if has_biases(stage) else NULL, output, rows // stage.members, stage.members,
            stage.n_out, stage.kind == MEMBERS,
        )
    elif stage.kind == PERIODIC:
        periodic_forward(inputs, &stage.periodic, weights, output, rows, stage.n_in, stage.n_out)
    else:
        embedding_forward(
            inputs, &stage.embedded.places, weights, output, rows, stage.n_in, stage.n_out, stage.embedded.n_rows,
            stage.embedded.width,
        )


cdef void forward_spline(
    const Stage *stage,
    const real_t *inputs,  # (rows, n_in) in
    real_t *output,  # (rows, n_out) out
    Py_ssize_t first,  # the first row's index in the batch
    Py_ssize_t rows,
    real_t *scratch,
) noexcept nogil:
    """Compute some rows of the output of a stage with edges. In training, keep where their numbers lie."""
    cdef const Spline *spline = &stage.spline
    cdef const real_t *weights = <const real_t *> stage.weights.values
    cdef const real_t *behind = weights + stage.n_in * stage.n_out
    cdef Py_ssize_t at = first * spline.n_columns
    cdef real_t *parts = <real_t *> spline.parts + at
    dense_forward(
        inputs, weights, <const real_t *> stage.biases.values, output, rows, stage.n_in, stage.n_out, NULL, False,
        NULL, scratch,
    )
    if spline.bins is NULL:
        spline_add_at_once(inputs, behind, spline, output, rows, stage.n_in, stage.n_out)
        return
    spline_places(
        inputs, spline, spline.bins + at, parts, rows, stage.n_in, 0, spline.n_columns, spline.n_columns
    )
    spline_add(
        behind, spline, <const real_t *> spline.sums, spline.bins + at, parts, output, rows, stage.n_out, 0,
        spline.n_columns, spline.n_columns,
    )


cdef void forward_own(
    const Stage *stage,
    const real_t *inputs,  # (samples, members, n_in) in
    real_t *output,  # (samples, members, n_out) out
    Py_ssize_t samples,
    real_t *scratch,
) noexcept nogil:
    """Compute the output of a stage with weights for each member, member by member, from copies of its rows."""
    cdef Py_ssize_t n_in = stage.n_in, n_out = stage.n_out, k = stage.members, m, count
    cdef const real_t *weights = <const real_t *> stage.weights.values
    cdef const real_t *biases = <const real_t *> stage.biases.values
    cdef real_t *own = scratch + PRODUCT_SCRATCH // <Py_ssize_t> sizeof(real_t)
    cdef real_t *made = own + MEMBER_ROWS * n_in
    if n_out == 1:
        member_dots(inputs, weights, biases, output, samples, k, n_in)
        return
    while samples > 0:
        count = min(<Py_ssize_t> MEMBER_ROWS, samples)
        for m in range(k):
            copy_lines(inputs + m * n_in, k * n_in, own, n_in, count, n_in)
            addresses.dense_forward(
                own, weights + m * n_in * n_out, biases + m * n_out, made, count, n_in, n_out, NULL, False, NULL,
                scratch,
            )
            copy_lines(made, n_out, output + m * n_out, k * n_out, count, n_out)
        inputs += count * k * n_in
        output += count * k * n_out
        samples -= count


cdef inline real_t *norm_of(const Stage *stage, int line) noexcept nogil:
    """Return one of a batch norm's lines."""
    return <real_t *> stage.norm.lines + line * norm_line(stage.n_out)


cdef void forward(
    const Net *net,  # none of its arrays is written
    const real_t *X,  # (rows, n_in) in
    real_t *output,  # (rows, n_out) out, the mean of members; (rows, members, n_out) if they stay apart
    Py_ssize_t rows,
    int n_stages,  # the number of stages to run; all, if there are members
    char *scratch,  # kernels' scratch, then two arrays of rows_at_a_time rows
) noexcept nogil:
    """Run the network, some rows at a time, in separate memory."""
    cdef Py_ssize_t most = rows_at_a_time(net), wide = widest(net), top = 0, high, count
    cdef bint averages = net.members > 1 and not net.apart
    cdef Py_ssize_t outputs = net.stages[n_stages - 1].n_out * (1 if averages else net.members) if n_stages else 0
    cdef real_t *sides[2]
    cdef const Stage *stage
    cdef const real_t *inputs
    cdef real_t *target
    cdef real_t *forks  # the outputs of the open ones
    cdef Stage own[2]
    cdef int s
    if rows >= MIN_ROWS_IN_LINES and fits_lines(net, n_stages):
        forward_in_lines(net, X, output, rows, n_stages, <real_t *> scratch)
        return
    sides[0], sides[1] = side_of(net, 0, scratch), side_of(net, 1, scratch)
    forks = sides[1] + most * wide
    if net.units is not NULL:
        forks += 2 * blocks_space(most, wide) // <Py_ssize_t> sizeof(real_t)
    while top < rows:
        high = min(most, rows - top)
        inputs = X + top * net.n_in
        for s in range(n_stages):
            target = sides[s % 2] if averages or s + 1 < n_stages else output + top * outputs
            stage = &net.stages[s]
            count = high * stage.members
            if stage.kind == FORK:
                target = forks + stage.level * most * wide
            if net.bfloat16:
                take_rounded_inputs(net, s, sides, most, wide, own)
                stage = own
            if stage.kind == JOIN:
                add(inputs, forks + stage.level * most * wide, target, count * stage.n_out)
            else:
                forward_stage(stage, inputs, target, 0, 0, count, 0, scratch)
            inputs = target
        if averages:
            mean_of_members(inputs, output + top * outputs, high, net.members, outputs)
        top += high


cdef inline real_t *side_of(const Net *net, int s, char *scratch) noexcept nogil:
    """Return the address of a stage's output in `forward`: one of two arrays in turn."""
    return <real_t *> (scratch + net.scratch_size) + s % 2 * rows_at_a_time(net) * widest(net)


cdef void take_rounded_inputs(
    const Net *net, int s, real_t **sides, Py_ssize_t most, Py_ssize_t wide, Stage *own
) noexcept nogil:
    """Copy a stage, and the next if that takes its output in blocks, with addresses for their inputs in bfloat16.

    On matrix units, the address is one of two arrays of blocks after the other two. Elsewhere it is the array that the
    stage does not write to. Inputs are rounded in place, because nothing else reads them, and rows of X are copied
    there.
    """
    cdef uint16_t *blocks = <uint16_t *> (sides[1] + most * wide)
    cdef Py_ssize_t apart = blocks_space(most, wide) // <Py_ssize_t> sizeof(uint16_t)
    own[0] = net.stages[s]
    if net.units is not NULL:
        own[0].blocks.inputs = blocks + s % 2 * apart
    elif own[0].kind == DENSE:
        own[0].rounded_inputs = sides[(s + 1) % 2]
    if own[0].feeds:
        own[1] = net.stages[s + 1]
        own[1].blocks.inputs = blocks + (s + 1) % 2 * apart


# Loss and accuracy


cdef Py_ssize_t count_hits(
    const Net *net,
    const real_t *output,  # (rows, n_out) in
    const double *wanted,  # (rows, n_wanted) in
    Py_ssize_t rows,
) noexcept nogil:
    """Return the number of correct predictions."""
    cdef Py_ssize_t i, j, best, hits = 0, n = rows * net.n_wanted, every = net.every
    cdef double x
    if net.classes:
        for i in range(rows):
            best = 0
            for j in range(1, net.n_out):
                if net.threshold:
                    if output[j] > net.cut and not output[best] > net.cut:
                        best = j
                # As in argmax: a NaN counts as larger than any number. A NaN that is already the best stays.
                elif not output[j] <= output[best] and output[best] == output[best]:
                    best = j
            x = <double> best
            hits += fabs(x - wanted[i]) < net.precision if net.precision >= 0 else x == wanted[i]
            output += net.n_out
        return hits
    output += net.begin
    if net.threshold:
        for i in range(n):
            x = 1.0 if output[i * every] > net.cut else 0.0
            hits += fabs(x - wanted[i]) < net.precision if net.precision >= 0 else x == wanted[i]
    elif net.precision >= 0:
        for i in range(n):
            x = output[i * every]
            hits += fabs((exp(x) if net.exponential else x) - wanted[i]) < net.precision
    else:
        for i in range(n):
            hits += <double> output[i * every] == wanted[i]
    return hits


cdef struct Batch:
    # A batch's part of the data. If there is an order, its rows have been copied together.
    Py_ssize_t start  # the first sample, if there is no order
    const Py_ssize_t *order  # the numbers of the samples; or NULL
    bint copied  # targets have been copied together, for each member, and samples if there is an order
    Py_ssize_t rows  # samples
    double weight  # of all rows on all ranks together: their number, if they have no weights
    Py_ssize_t all_rows  # samples of all ranks
    Py_ssize_t before  # samples of the ranks before this one
    bint counts  # false if this rank has no rows, and takes one that does not count
    uint64_t forwards  # training forwards before it since the stages were bound
    bint again  # it is the batch of the step before, in the same order


cdef inline Py_ssize_t rows_of(const Stage *stage, const Batch *batch) noexcept nogil:
    """Return the number of rows of a stage's output in a batch."""
    return batch.rows * stage.members


cdef inline const real_t *rows_of_X(const Net *net, const Batch *batch, Py_ssize_t first) noexcept nogil:
    if batch.order is NULL:
        return <const real_t *> net.X + (batch.start + first) * net.n_in
    return <const real_t *> net.gathered + first * net.n_in


cdef inline const int32_t *rows_of_labels(const Net *net, const Batch *batch, Py_ssize_t first) noexcept nogil:
    return (net.labels + batch.start if not batch.copied else net.batch_labels) + first


cdef inline const void *rows_of_targets(const Net *net, const Batch *batch, Py_ssize_t first) noexcept nogil:
    """Return the loss's targets of some rows."""
    if net.loss.traits & BY_LABELS:
        return rows_of_labels(net, batch, first)
    if not batch.copied:
        return <const real_t *> net.targets + (batch.start + first) * net.n_out
    return <const real_t *> net.batch_targets + first * net.n_out


cdef inline const double *rows_of_wanted(const Net *net, const Batch *batch, Py_ssize_t first) noexcept nogil:
    return (
        net.wanted + batch.start * net.n_wanted if not batch.copied else net.batch_wanted
    ) + first * net.n_wanted


cdef inline const double *rows_of_weights(const Net *net, const Batch *batch, Py_ssize_t first) noexcept nogil:
    return (net.weights + batch.start if not batch.copied else net.batch_weights) + first


cdef double sum_in_four(const double *values, const Py_ssize_t *order, Py_ssize_t n) noexcept nogil:
    """Return the sum of n values, or of those in an order. It uses four sums: one would wait for each addition."""
    cdef double sums[4]
    cdef Py_ssize_t i = 0, l
    for l in range(4):
        sums[l] = 0
    while i + 4 <= n:
        for l in range(4):
            sums[l] += values[i + l if order is NULL else order[i + l]]
        i += 4
    for i in range(i, n):
        sums[0] += values[i if order is NULL else order[i]]
    return (sums[0] + sums[1]) + (sums[2] + sums[3])


cdef inline double weight_of(const Net *net, const Batch *batch) noexcept nogil:
    """Return the weight of all rows of a batch. Each thread adds it up before the rows are copied together."""
    if net.weights is NULL:
        return <double> batch.rows
    return sum_in_four(net.weights + (batch.start if batch.order is NULL else 0), batch.order, batch.rows)


cdef inline Py_ssize_t rows_of_step(const Net *net) noexcept nogil:
    """Return the most rows of a step on all ranks together."""
    return net.step_rows if net.n_ranks else net.batch


cdef void take_own_rows(const Net *net, Batch *batch) noexcept nogil:
    """Reduce a batch of known weight to this rank's rows. If there are too few, take one that does not count."""
    cdef Py_ssize_t end = batch.rows
    batch.all_rows, batch.before, batch.counts = batch.rows, 0, True
    if net.n_ranks:
        batch.before, end = end * net.rank // net.n_ranks, end * (net.rank + 1) // net.n_ranks
        batch.counts = end > batch.before
        batch.rows = end - batch.before if batch.counts else 1
        batch.start += batch.before
        if batch.order is not NULL:
            batch.order += batch.before


cdef inline double mean_of(double total, double weight) noexcept nogil:
    """Return a sum divided by the weight of its terms; 0 if the weight is 0."""
    return total / weight if weight else 0


cdef void gather(const Net *net, const Batch *batch, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Copy some of a batch's samples together, and the targets of each of their rows."""
    cdef Py_ssize_t i, m, sample, size = <Py_ssize_t> sizeof(real_t)
    for i in range(first, first + rows):
        sample = batch.start + i
        if batch.order is not NULL:
            sample = batch.order[i]
            memcpy(<real_t *> net.gathered + i * net.n_in, <const real_t *> net.X + sample * net.n_in, net.n_in * size)
        for m in range(net.members):
            gather_compared(net, sample, i * net.members + m)


cdef void gather_compared(const Net *net, Py_ssize_t sample, Py_ssize_t i) noexcept nogil:
    """Copy the targets of row i of the outputs."""
    cdef Py_ssize_t n = net.n_out, n_wanted = net.n_wanted
    if net.labels is not NULL:
        net.batch_labels[i] = net.labels[sample]
    if net.targets is not NULL:
        copy_lines(<const real_t *> net.targets + sample * n, 0, <real_t *> net.batch_targets + i * n, 0, 1, n)
    if net.wanted is not NULL:
        memcpy(net.batch_wanted + i * n_wanted, net.wanted + sample * n_wanted, n_wanted * sizeof(double))
    if net.weights is not NULL:
        net.batch_weights[i] = net.weights[sample]


# The first phase


cdef inline void compute_loss(
    LossPart part, const Net *net, const real_t *output, const void *targets, real_t *result, Py_ssize_t rows,
    Py_ssize_t n,  # rows of the batch
) noexcept nogil:
    """Compute the losses of some rows, or the gradient of the batch's mean loss by the output or by its inputs."""
    net.loss.run(part, output, targets, result, rows, net.n_out, n, net.loss_settings, net.loss_own)


cdef void weigh_rows(
    const Net *net,
    const Batch *batch,
    Py_ssize_t first,
    Py_ssize_t rows,
    real_t *gradient,  # (rows, n_out) in and out, of the mean loss; or NULL
    Py_ssize_t row,  # element (i, j) of it is at i*row + j*column, of which one is 1
    Py_ssize_t column,
) noexcept nogil:
    """``sample_losses_i := w_i·sample_losses_i; gradient_ij := gradient_ij·w_i·n / Σw; row_hits_i := w_i·row_hits_i``.

    A weight of 0 turns anything into 0, also infinity.
    """
    cdef const double *weights = rows_of_weights(net, batch, first)
    cdef real_t *sample_losses = <real_t *> net.sample_losses + first
    cdef double *row_hits = net.row_hits + first
    cdef double scale = mean_of(<double> batch.all_rows, batch.weight)
    cdef real_t factor
    cdef Py_ssize_t i, j
    for i in range(rows):
        row_hits[i] *= weights[i]
        sample_losses[i] = sample_losses[i] * <real_t> weights[i] if weights[i] else 0
    if gradient is NULL:
        return
    if row == 1:
        for j in range(net.n_out):
            for i in range(rows):
                factor = <real_t> (weights[i] * scale)
                gradient[j * column + i] = gradient[j * column + i] * factor if factor else 0
        return
    for i in range(rows):
        factor = <real_t> (weights[i] * scale)
        for j in range(net.n_out):
            gradient[i * row + j] = gradient[i * row + j] * factor if factor else 0


cdef Py_ssize_t hits_of_rows(
    const Net *net, const Batch *batch, const real_t *output, Py_ssize_t first, Py_ssize_t rows
) noexcept nogil:
    """Return the number of correct predictions of some rows. With weights, also note it row by row."""
    cdef const double *wanted = rows_of_wanted(net, batch, first)
    cdef Py_ssize_t i
    if net.weights is NULL:
        return count_hits(net, output, wanted, rows)
    for i in range(rows):
        net.row_hits[first + i] = <double> count_hits(net, output + i * net.n_out, wanted + i * net.n_wanted, 1)
    return 0


cdef inline double *row_hits_of(const Net *net, Py_ssize_t first) noexcept nogil:
    """Return the address for hits of each row; NULL if they are only counted."""
    return net.row_hits + first if net.weights is not NULL else NULL


cdef Py_ssize_t judge_rows(
    const Net *net, const Batch *batch, Py_ssize_t first, Py_ssize_t rows, char *scratch
) noexcept nogil:
    """Compute the losses of some rows of outputs, and the gradient that goes back from them. Return the hits."""
    cdef const Stage *last = &net.stages[net.n_stages - 1]
    cdef Py_ssize_t all_rows = batch.all_rows * net.members
    cdef Py_ssize_t at = first * net.n_out
    cdef real_t *output = <real_t *> last.output + at
    cdef const void *targets = rows_of_targets(net, batch, first)
    cdef real_t *sample_losses = <real_t *> net.sample_losses + first
    cdef real_t *gradient = <real_t *> (last.dinputs if net.combined else last.dvalues) + at
    cdef Py_ssize_t hits = 0
    if net.fused:
        hits = softmax_crossentropy(
            <const real_t *> last.inputs + at, <const int32_t *> targets, output, gradient, sample_losses, rows,
            net.n_out, net.n_out, 1, all_rows, net.loss_settings[0], net.loss_settings[1], row_hits_of(net, first),
            <real_t *> (scratch + PRODUCT_SCRATCH),
        )
    else:
        compute_loss(SAMPLE_LOSSES, net, output, targets, sample_losses, rows, all_rows)
        compute_loss(PAIR_GRADIENT if net.combined else GRADIENT, net, output, targets, gradient, rows, all_rows)
    if net.wanted is not NULL:
        hits = hits_of_rows(net, batch, output, first, rows)
    if net.weights is not NULL:
        weigh_rows(net, batch, first, rows, gradient, net.n_out, 1)
    return hits


cdef void backward_dense(
    const Net *net,
    const Stage *stage,
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    real_t *dinputs,  # (rows, n_in) out; or NULL
    Py_ssize_t first,  # the first row's index in the batch
    Py_ssize_t rows,
    const real_t *gate,  # (rows, n_in) in: the output of the ReLU before, a mask of dinputs; or NULL
    real_t *scratch,
) noexcept nogil:
    """Take some rows' gradient back through a dense stage, and keep the data for the gradients of its weights."""
    if has_blocks(stage):
        if not stage.feeds:
            stage.blocks.units.keep_dvalues(stage, dvalues, first, rows)
        if dinputs is not NULL:
            stage.blocks.units.backward(stage, stage - 1 if stage.fed else NULL, dinputs, gate, first, rows, scratch)
        return
    dvalues = rounded_rows(dvalues, stage.rounded_dvalues, first, rows, stage.n_out)
    if stage.rounded_inputs is not NULL:
        inputs = <const real_t *> stage.rounded_inputs + first * stage.n_in
    if stage.tiles is not NULL and packs_batch(net, stage) and wants_gradients(stage) and not stage.in_groups:
        pack_stage(stage, inputs, dvalues, first, rows, batch_of(net, stage))
    if dinputs is not NULL:
        dense_backward_inputs(
            dvalues, factors_of(stage), dinputs, rows, stage.n_in, stage.n_out, stage.unwanted, gate, scratch
        )


cdef void backward_rows(
    const Net *net, const Batch *batch, Py_ssize_t first, Py_ssize_t rows,
    int s,  # the first stage
    int lowest,  # the last one
    char *scratch,
) noexcept nogil:
    """Take some rows' gradient back through some stages, and pack the data for the gradients of the weights."""
    cdef const Stage *stage
    cdef const real_t *inputs
    cdef const real_t *output
    cdef real_t *dvalues
    cdef real_t *dinputs
    cdef Py_ssize_t n, at, count
    cdef bint gated = False  # the gradient has already gone through the ReLU of a dense stage
    while s >= lowest:
        stage = &net.stages[s]
        at, count = first * stage.members, rows * stage.members
        n = count * stage.n_out
        inputs = rows_of_X(net, batch, first)
        if s > 0:
            inputs = <const real_t *> stage.inputs + first * members_before(stage) * stage.n_in
        output = <const real_t *> stage.output + at * stage.n_out
        dvalues = <real_t *> stage.dvalues + at * stage.n_out
        dinputs = NULL
        if stage.dinputs is not NULL:
            dinputs = <real_t *> stage.dinputs + first * members_before(stage) * stage.n_in
        if stage.kind == DENSE:
            if stage.relu and not gated and not stage.feeds:
                relu_backward(output, dvalues, dvalues, n)
            gated = s > 0 and net.stages[s - 1].relu
            backward_dense(
                net, stage, inputs, dvalues, dinputs, at, count, inputs if gated else NULL, <real_t *> scratch
            )
        elif dinputs is not NULL:
            gated = False
            if stage.kind == DROPOUT:
                multiply(dvalues, <const real_t *> stage.mask + at * stage.n_out, dinputs, n)
            elif stage.kind == NOISE or stage.kind == JOIN:
                copy(dvalues, dinputs, n)
            elif stage.kind == FORK:
                add(dvalues, <const real_t *> (stage + stage.partner).dvalues + at * stage.n_out, dinputs, n)
            elif stage.kind == PIECEWISE_LINEAR:
                piecewise_linear_backward(inputs, dvalues, &stage.encoded, dinputs, count, stage.n_in, stage.n_out)
            elif stage.kind == THERMOMETER:
                thermometer_backward(inputs, dvalues, &stage.encoded, dinputs, count, stage.n_in, stage.n_out)
            elif stage.kind == COMBINATIONS:
                combinations_backward(inputs, dvalues, &stage.encoded, dinputs, count, stage.n_in, stage.n_out)
            elif stage.kind == SPLINE:
                backward_spline(stage, dvalues, dinputs, at, count, <real_t *> scratch)
            elif stage.kind == MEMBER_DENSE:
                backward_own(stage, dvalues, dinputs, rows, <real_t *> scratch)
            elif stage.kind != ACTIVATION:
                backward_parameters(stage, inputs, dvalues, dinputs, count)
            elif stage.keeps_slope:
                multiply(dvalues, inputs, dinputs, n)
            else:
                stage.activation.run(
                    BACKWARD, <void *> (inputs if stage.activation.traits & FROM_INPUTS else output), dvalues, dinputs,
                    count, stage.n_out, stage.settings, scratch + PRODUCT_SCRATCH,
                )
        if dinputs is NULL:
            return
        s -= 1
    if lowest > 0 and net.stages[lowest - 1].kind == BATCH_NORM and net.stages[lowest - 1].relu and not gated:
        # The sums over the batch that follow need gradients that have gone through the ReLU.
        stage = &net.stages[lowest - 1]
        at, n = first * stage.members * stage.n_out, rows * stage.members * stage.n_out
        dvalues = <real_t *> stage.dvalues + at
        relu_backward(<const real_t *> stage.output + at, dvalues, dvalues, n)


cdef void backward_parameters(
    const Stage *stage,
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    real_t *dinputs,  # (rows, n_in) out
    Py_ssize_t rows,
) noexcept nogil:
    """Take some rows' gradient back through a stage with parameters that is not dense."""
    cdef const real_t *weights = <const real_t *> stage.weights.values
    if stage.kind == PRELU:
        prelu_backward_inputs(inputs, dvalues, weights, dinputs, rows, stage.n_out, stage.weights.size)
    elif stage.kind == BATCH_NORM:
        batch_norm_backward_inputs(
            inputs, dvalues, norm_of(stage, MEAN), norm_of(stage, SCALES), norm_of(stage, OF_DEVIATION),
            norm_of(stage, OF_ALL), dinputs, rows, stage.n_out,
        )
    elif stage.kind == LAYER_NORM:
        layer_norm_backward_inputs(inputs, dvalues, weights, stage.norm.epsilon, dinputs, rows, stage.n_out)
    elif stage.kind == SCALE:
        multiply_columns(dvalues, weights, dinputs, rows, stage.n_out)
    elif stage.kind == MEMBERS:
        members_backward_inputs(dvalues, weights, dinputs, rows // stage.members, stage.members, stage.n_out)
    elif stage.kind == MEMBER_SCALE:
        members_forward(
            dvalues, weights, NULL, dinputs, rows // stage.members, stage.members, stage.n_out, False
        )
    elif stage.kind == PERIODIC:
        addresses.periodic_backward(
            inputs, dvalues, &stage.periodic, weights, NULL, dinputs, rows, stage.n_in, stage.n_out, 0,
            stage.periodic.n_columns,
        )
    else:
        embedding_backward_inputs(dvalues, &stage.embedded.places, dinputs, rows, stage.n_in, stage.n_out)


cdef void backward_spline(
    const Stage *stage,
    const real_t *dvalues,  # (rows, n_out) in
    real_t *dinputs,  # (rows, n_in) out
    Py_ssize_t first,  # the first row's index in the batch
    Py_ssize_t rows,
    real_t *scratch,
) noexcept nogil:
    """Take some rows' gradient back through a stage with edges."""
    cdef const Spline *spline = &stage.spline
    cdef const real_t *weights = <const real_t *> stage.weights.values
    cdef Py_ssize_t at = first * spline.n_columns
    dense_backward_inputs(dvalues, weights, dinputs, rows, stage.n_in, stage.n_out, 0, NULL, scratch)
    spline_slopes(
        spline, spline.bins + at, <const real_t *> spline.parts + at, dvalues, weights + stage.n_in * stage.n_out,
        dinputs, rows, stage.n_in, stage.n_out,
    )


cdef void backward_own(
    const Stage *stage,
    const real_t *dvalues,  # (samples, members, n_out) in
    real_t *dinputs,  # (samples, members, n_in) out
    Py_ssize_t samples,
    real_t *scratch,
) noexcept nogil:
    """Take the gradient back through a stage with weights for each member."""
    cdef Py_ssize_t n_in = stage.n_in, n_out = stage.n_out, k = stage.members, m, count
    cdef const real_t *weights = <const real_t *> stage.weights.values
    cdef real_t *made = scratch + PRODUCT_SCRATCH // <Py_ssize_t> sizeof(real_t)
    cdef real_t *own = made + MEMBER_ROWS * n_in
    if n_out == 1:
        member_multiples(dvalues, weights, dinputs, samples, k, n_in)
        return
    while samples > 0:
        count = min(<Py_ssize_t> MEMBER_ROWS, samples)
        for m in range(k):
            copy_lines(dvalues + m * n_out, k * n_out, own, n_out, count, n_out)
            addresses.dense_backward_inputs(own, weights + m * n_in * n_out, made, count, n_in, n_out, 0, NULL, scratch)
            copy_lines(made, n_in, dinputs + m * n_in, k * n_in, count, n_in)
        dvalues += count * k * n_out
        dinputs += count * k * n_in
        samples -= count


cdef inline int first_to_go_back(const Net *net) noexcept nogil:
    """Return the stage where backward begins: the last, or the one before if its gradient is the loss's own."""
    return net.n_stages - (2 if net.combined else 1)


cdef void forward_rows(
    const Net *net, const Batch *batch, Py_ssize_t first, Py_ssize_t rows, int s, int end, char *scratch
) noexcept nogil:
    """Take some rows forward through the stages from ``s`` on, before ``end``."""
    cdef Py_ssize_t at
    cdef const Stage *stage
    cdef const real_t *inputs
    for s in range(s, end):
        stage = &net.stages[s]
        inputs = rows_of_X(net, batch, first)
        if s > 0:
            inputs = <const real_t *> stage.inputs + first * members_before(stage) * stage.n_in
        at = first * stage.members
        forward_stage(
            stage, inputs, <real_t *> stage.output + at * stage.n_out, at, batch.before * stage.members,
            rows * stage.members, batch.forwards, scratch,
        )


cdef inline int last_norm(const Net *net) noexcept nogil:
    """Return the last batch norm's stage; 0 if there is none."""
    cdef int s
    for s in range(net.n_stages - 1, 0, -1):
        if net.stages[s].kind == BATCH_NORM:
            return s
    return 0


cdef inline int above_norm(const Net *net, int begin) noexcept nogil:
    """Return the stage to which rows go back at first: the one above the last batch norm, or the lowest."""
    return begin + (net.stages[begin].kind == BATCH_NORM)


cdef Py_ssize_t train_rows(
    const Net *net, const Batch *batch, Py_ssize_t first, Py_ssize_t end,
    int begin,  # the first stage: 0, or the last batch norm
    char *scratch,
) noexcept nogil:
    """Take some rows forward, through the loss and back, group by group. Return the hits."""
    cdef Py_ssize_t home = first, group = 0, group_end = end, hits = 0, rows
    # A step that stores has more stages. Which rows are added up at once must not depend on that.
    cdef Py_ssize_t most = net.group_step if net.group_rows else rows_at_a_time(net)
    while first < end:
        if net.group_rows:
            group = first // net.group_rows
            group_end = min(end, (group + 1) * net.group_rows)
        rows = even_share(net, group_end - first, most)
        if batch.copied and begin == 0:
            gather(net, batch, first, rows)
        forward_rows(net, batch, first, rows, begin, net.n_stages - (1 if net.fused else 0), scratch)
        hits += judge_rows(net, batch, first * net.members, rows * net.members, scratch)
        backward_rows(net, batch, first, rows, first_to_go_back(net), above_norm(net, begin), scratch)
        if net.group_rows:
            add_gradients(net, batch, group, home, first, rows, first % net.group_rows == 0, scratch)
            if first + rows == group_end:
                join_whole_trees(net, home // net.group_rows, group)
        first += rows
    return hits


cdef inline Py_ssize_t share_of(const Net *net, Py_ssize_t rows) noexcept nogil:
    """Return how many rows of a batch each thread takes, at most."""
    cdef Py_ssize_t least = net.group_rows if net.group_rows else BLOCK if net.units is not NULL else SHARED_UNIT
    cdef Py_ssize_t unit = net.progress.n_threads * least
    return (rows + unit - 1) // unit * least


cdef void first_phase(const Net *net, const Batch *batch, int thread, char *scratch) noexcept nogil:
    """Take a thread's rows of a batch forward and back."""
    cdef Py_ssize_t share = share_of(net, batch.rows)
    cdef Py_ssize_t first = min(thread * share, batch.rows), end = min(first + share, batch.rows)
    cdef int begin = 0
    if net.n_batch_norms:
        begin = forward_to_last_norm(net, batch, first, end, thread, scratch)
    net.progress.hits[thread * 8] = train_rows(net, batch, first, end, begin, scratch)
    if net.n_batch_norms:
        backward_from_last_norm(net, batch, begin, first, end, thread, scratch)


# Batch norms cut the first phase into parts. A row continues only when all rows have come this far, and the batch's
# mean and variance are known. In backward, it waits for the sums of all gradients. Each thread adds up some of the
# columns, over all rows in the same order.


cdef inline Py_ssize_t first_column_of(const Net *net, const Stage *stage, int thread) noexcept nogil:
    """Return the first of the columns that a thread adds up."""
    cdef Py_ssize_t vectors = (stage.n_out + LANES - 1) // LANES
    return min(vectors * thread // net.progress.n_threads * LANES, stage.n_out)


cdef inline const real_t *batch_inputs(const Net *net, const Batch *batch, int s) noexcept nogil:
    """Return a stage's inputs for the whole batch."""
    return <const real_t *> net.stages[s].inputs if s > 0 else rows_of_X(net, batch, 0)


cdef int forward_to_last_norm(
    const Net *net, const Batch *batch, Py_ssize_t first, Py_ssize_t end, int thread, char *scratch
) noexcept nogil:
    """Take a thread's rows to the last batch norm, and prepare it. Return its stage."""
    cdef Py_ssize_t most = rows_at_a_time(net), from_column, to_column, at, rows
    cdef const Stage *stage
    cdef int s, begin = 0
    for s in range(net.n_stages):
        stage = &net.stages[s]
        if stage.kind != BATCH_NORM:
            continue
        at = first
        while at < end:
            rows = min(most, end - at)
            if begin == 0 and batch.copied:
                gather(net, batch, at, rows)
            forward_rows(net, batch, at, rows, begin, s, scratch)
            at += rows
        meet(net.progress.meeting, net.progress.n_threads)
        from_column, to_column = first_column_of(net, stage, thread), first_column_of(net, stage, thread + 1)
        batch_norm_statistics(
            batch_inputs(net, batch, s), norm_of(stage, MEAN), norm_of(stage, VARIANCE), rows_of(stage, batch),
            stage.n_out, from_column, to_column,
        )
        batch_norm_scales(
            norm_of(stage, VARIANCE), <const real_t *> stage.weights.values, stage.norm.epsilon,
            norm_of(stage, SCALES), stage.n_out, from_column, to_column,
        )
        meet(net.progress.meeting, net.progress.n_threads)
        begin = s
    return begin


cdef void backward_from_last_norm(
    const Net *net, const Batch *batch, int s, Py_ssize_t first, Py_ssize_t end, int thread, char *scratch
) noexcept nogil:
    """Take a thread's rows back from the last batch norm, ``s``, as far as gradients are needed."""
    cdef Py_ssize_t most = rows_at_a_time(net), from_column, to_column, at, rows
    cdef const Stage *stage
    cdef int above = net.n_stages, lowest
    while is_reached(net, s, above):
        stage = &net.stages[s]
        meet(net.progress.meeting, net.progress.n_threads)
        from_column, to_column = first_column_of(net, stage, thread), first_column_of(net, stage, thread + 1)
        batch_norm_backward_weights(
            batch_inputs(net, batch, s), <const real_t *> stage.dvalues, norm_of(stage, MEAN),
            norm_of(stage, VARIANCE), stage.norm.epsilon, norm_of(stage, OF_WEIGHTS), norm_of(stage, OF_BIASES),
            rows_of(stage, batch), stage.n_out, from_column, to_column,
        )
        batch_norm_shares(
            norm_of(stage, VARIANCE), norm_of(stage, SCALES), norm_of(stage, OF_WEIGHTS), norm_of(stage, OF_BIASES),
            stage.norm.epsilon, norm_of(stage, OF_DEVIATION), norm_of(stage, OF_ALL), rows_of(stage, batch),
            stage.n_out, from_column, to_column,
        )
        if stage.dinputs is NULL:
            return
        meet(net.progress.meeting, net.progress.n_threads)
        lowest = s - 1
        while lowest >= 0 and net.stages[lowest].kind != BATCH_NORM:
            lowest -= 1
        at = first
        while at < end:
            rows = min(most, end - at)
            backward_rows(net, batch, at, rows, s, lowest + 1, scratch)
            at += rows
        above, s = s, lowest


cdef bint is_reached(const Net *net, int s, int above) noexcept nogil:
    """Return whether gradients reach a stage from the stages above it, up to ``above``."""
    cdef int t
    if s < 0:
        return False
    for t in range(s + 1, min(above + 1, net.n_stages)):
        if net.stages[t].dinputs is NULL:
            return False
    return True


cdef void move_running_figures(const Stage *stage, Py_ssize_t rows) noexcept nogil:
    """Update a batch norm's running mean and variance by the batch's. A single row has no variance."""
    cdef double keep = stage.norm.keep
    if rows > 1:
        move_average(<real_t *> stage.norm.running_mean, norm_of(stage, MEAN), keep, 1, stage.n_out)
        move_average(
            <real_t *> stage.norm.running_variance, norm_of(stage, VARIANCE), keep,
            <double> rows / <double> (rows - 1), stage.n_out,
        )


# The second phase


cdef enum:
    AVERAGE = MAX_CONSTANTS  # after the rule's constants: the decay factor of the averages
    ALL_CONSTANTS = 2 * (MAX_CONSTANTS + 1)  # for weights, and for biases


cdef inline int biases_at(const Net *net) noexcept nogil:
    """Return where the constants for biases begin. If the settings are equal, the weights' constants serve both."""
    return 0 if net.alike else MAX_CONSTANTS + 1


cdef void rule_constants(const Net *net, double rate, uint64_t step, vec *constants) noexcept nogil:
    """Compute the constants of the optimizer's rule for a step. Steps are counted from 1."""
    # At first, an average keeps less. Otherwise it would consist of the initial values for a long time.
    cdef real_t keep = <real_t> min(net.average, <double> step / (9 + <double> step))
    cdef int at = biases_at(net)
    net.rule.prepare(constants, rate, <double> step, net.settings[0])
    constants[AVERAGE] = v_all(keep)
    if at:
        net.rule.prepare(constants + at, rate, <double> step, net.settings[1])
        constants[at + AVERAGE] = v_all(keep)


cdef inline bint is_shared(const Stage *stage) noexcept nogil:
    """Return whether each thread owns some rows of the weights."""
    return stage.tiles is not NULL or has_blocks(stage)


cdef Py_ssize_t first_row_of(const Net *net, const Stage *stage, int thread) noexcept nogil:
    """Return the first row of the weights that a thread owns: the start of a row panel or of a row of blocks."""
    if has_blocks(stage):
        return min(blocks_in(stage.n_in) * thread // net.progress.n_threads * BLOCK, stage.n_in)
    return first_row_of_panels(net, stage, thread)


cdef inline Py_ssize_t first_row_of_panels(const Net *net, const Stage *stage, int thread) noexcept nogil:
    cdef Py_ssize_t n_row_panels = (stage.n_in + TILE_ROWS - 1) // TILE_ROWS
    cdef Py_ssize_t panel, i = 0
    for panel in range(n_row_panels * thread // net.progress.n_threads):
        i += tile_height(stage.n_in - i)
    return i


cdef void pack_weights(const Net *net, int thread) noexcept nogil:
    """Pack, round or convert the weights that a thread owns. After that, each update does it."""
    cdef const Stage *stage
    cdef Py_ssize_t first, end
    cdef int s
    for s in range(net.n_stages):
        stage = &net.stages[s]
        if stage.kind == SPLINE:
            add_up_weights(stage, first_spline_of(net, stage, thread), first_spline_of(net, stage, thread + 1))
        if stage.kind != DENSE:
            continue
        if is_shared(stage):
            first, end = first_row_of(net, stage, thread), first_row_of(net, stage, thread + 1)
        else:
            first, end = 0, stage.n_in if thread == s % net.progress.n_threads else 0
        pack_rows_of_weights(stage, first, end - first)


cdef void pack_rows_of_weights(const Stage *stage, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Do it with some rows: the whole row panels, or rows of blocks, that a thread owns, or all."""
    cdef Py_ssize_t at = first * stage.n_out, i, j
    if rows == 0:
        return
    if has_blocks(stage):
        for i in range(first // BLOCK, blocks_in(first + rows)):
            for j in range(blocks_in(stage.n_out)):
                stage.blocks.units.convert_weights(stage, i * BLOCK, j * BLOCK)
        return
    if stage.weights.rounded is not NULL:
        round_bfloat16(
            <const real_t *> stage.weights.values + at, <real_t *> stage.weights.rounded + at, rows * stage.n_out
        )
    if stage.packed is not NULL:
        pack_row_panel(stage, first, rows, 0, stage.n_out)


cdef void few_outputs_gradients(
    const real_t *inputs,  # (rows, n_in) in
    const real_t *dvalues,  # (rows, n_out) in
    real_t *dweights,  # (n_in, n_out) out
    Py_ssize_t rows,
    Py_ssize_t n_in,  # at least LANES
    Py_ssize_t n_out,  # up to SMALL_DEPTH
    real_t *turned,  # scratch (n_out + 1, n_in)
) noexcept nogil:
    """``dweights := inputsᵀ · dvalues``, by `small_depth_gradients` with its factors exchanged."""
    cdef Py_ssize_t i, j
    if n_out == 1:
        small_depth_gradients(dvalues, inputs, dweights, turned, rows, 1, n_in)
        return
    small_depth_gradients(dvalues, inputs, turned, turned + n_out * n_in, rows, n_out, n_in)
    for i in range(n_in):
        for j in range(n_out):
            dweights[i * n_out + j] = turned[j * n_in + i]


cdef void train_stage(
    const Net *net, const Batch *batch, int s, const vec *constants, int thread, char *scratch
) noexcept nogil:
    """Compute the gradients of a dense stage's weights and biases that this thread owns, and update these."""
    cdef Stage *stage = &net.stages[s]
    cdef Py_ssize_t n_in = stage.n_in, n_out = stage.n_out, rows = rows_of(stage, batch)
    cdef const real_t *inputs = rows_of_X(net, batch, 0) if s == 0 else <const real_t *> stage.inputs
    cdef const real_t *dvalues = dvalues_of(stage)
    cdef real_t *gradients = <real_t *> (scratch + PRODUCT_SCRATCH)
    cdef real_t *sums = gradients + row_panels_space(n_out)
    cdef bint in_panels = packs_batch(net, stage)
    cdef bint sums_biases  # the owner of the first row panel also adds up the gradients of the biases
    cdef Py_ssize_t i, end
    if has_blocks(stage):
        stage.blocks.units.train(
            net, stage, first_row_of(net, stage, thread), first_row_of(net, stage, thread + 1), rows, constants,
            constants + biases_at(net), gradients, <train_lines_t> train_lines,
        )
        return
    if stage.rounded_inputs is not NULL:
        inputs = <const real_t *> stage.rounded_inputs
    if stage.tiles is not NULL:
        i, end = first_row_of(net, stage, thread), first_row_of(net, stage, thread + 1)
        sums_biases = in_panels and i == 0 < end
        train_row_panels(
            net, stage, inputs, i, end, rows, constants, gradients, sums if sums_biases else NULL
        )
        if sums_biases:
            train_values(net, &stage.biases, 0, sums, n_out, stage.trained, constants + biases_at(net))
        if in_panels:
            return
    elif has_small_depth(n_out, n_in):
        if thread == s % net.progress.n_threads:
            small_depth_gradients(inputs, dvalues, gradients, gradients + n_in * n_out, rows, n_in, n_out)
            train_values(net, &stage.weights, 0, gradients, n_in * n_out, stage.trained, constants)
            train_values(
                net, &stage.biases, 0, gradients + n_in * n_out, n_out, stage.trained, constants + biases_at(net)
            )
        return
    elif thread == s % net.progress.n_threads:
        if has_small_depth(n_in, n_out):
            few_outputs_gradients(inputs, dvalues, gradients, rows, n_in, n_out, <real_t *> scratch)
        else:
            dense_backward_weights(
                inputs, dvalues, NULL, gradients, rows, n_in, n_out, 0, 0, <real_t *> scratch
            )
        train_values(net, &stage.weights, 0, gradients, n_in * n_out, stage.trained, constants)
    if thread == (s + 1) % net.progress.n_threads:
        dense_backward_biases(dvalues, NULL, gradients, rows, n_out, 0, 0)
        train_values(net, &stage.biases, 0, gradients, n_out, stage.trained, constants + biases_at(net))


cdef void train_others(
    const Net *net, const Batch *batch, int s, const vec *constants, char *scratch
) noexcept nogil:
    """Compute the gradients of the parameters of a stage that is not dense, and update these."""
    cdef Stage *stage = &net.stages[s]
    cdef const real_t *inputs = batch_inputs(net, batch, s)
    cdef const real_t *dvalues = <const real_t *> stage.dvalues
    cdef real_t *gradients = <real_t *> (scratch + PRODUCT_SCRATCH)
    cdef real_t *of_biases = gradients + stage.n_out
    if stage.kind == PRELU:
        prelu_backward_weights(inputs, dvalues, gradients, rows_of(stage, batch), stage.n_out, stage.weights.size)
    elif stage.kind == BATCH_NORM:
        gradients, of_biases = norm_of(stage, OF_WEIGHTS), norm_of(stage, OF_BIASES)
    elif stage.kind == LAYER_NORM:
        layer_norm_backward_weights(
            inputs, dvalues, stage.norm.epsilon, gradients, of_biases, rows_of(stage, batch), stage.n_out
        )
    elif stage.kind == SCALE:
        scale_backward_weights(inputs, dvalues, gradients, rows_of(stage, batch), stage.n_out)
    train_values(net, &stage.weights, 0, gradients, stage.weights.size, stage.trained, constants)
    if has_biases(stage):
        train_values(
            net, &stage.biases, 0, of_biases, stage.n_out, stage.trained, constants + biases_at(net)
        )


cdef Py_ssize_t first_spline_of(const Net *net, const Stage *stage, int thread) noexcept nogil:
    """Return the first of the columns with edges whose weights a thread owns."""
    cdef Py_ssize_t j = 0, before = stage.spline.n_rows * thread // net.progress.n_threads
    while j < stage.spline.n_columns and stage.spline.first[j] < before:
        j += 1
    return j


cdef void add_up_weights(const Stage *stage, Py_ssize_t from_column, Py_ssize_t to_column) noexcept nogil:
    """Keep the sums of some columns' weights. After that, each update does it."""
    spline_sums(
        <const real_t *> stage.weights.values + stage.n_in * stage.n_out, &stage.spline,
        <real_t *> stage.spline.sums, stage.n_out, from_column, to_column,
    )


cdef void train_spline(
    const Net *net, const Batch *batch, int s, const vec *constants, int thread, char *scratch
) noexcept nogil:
    """Compute the gradients of a thread's columns with edges, and update their weights.

    The first thread also has the dense ones. With `clip_norm`, one thread has them all, because it has the sum of
    their squares.
    """
    cdef Stage *stage = &net.stages[s]
    cdef const Spline *spline = &stage.spline
    cdef Py_ssize_t n_dense = stage.n_in * stage.n_out, begin, end, i = 0, j = spline.n_columns
    cdef const real_t *dvalues = <const real_t *> stage.dvalues
    cdef real_t *gradients = <real_t *> spline.dweights
    cdef bint is_first = thread == 0
    if net.clip_norm:
        is_first = thread == s % net.progress.n_threads
        j = j if is_first else 0
    else:
        i, j = first_spline_of(net, stage, thread), first_spline_of(net, stage, thread + 1)
    begin, end = n_dense + spline.first[i] * stage.n_out, n_dense + spline.first[j] * stage.n_out
    if is_first:
        begin = 0
        dense_backward_weights(
            batch_inputs(net, batch, s), dvalues, NULL, gradients, rows_of(stage, batch), stage.n_in, stage.n_out, 0, 0,
            <real_t *> scratch,
        )
    spline_gradients(
        spline, spline.bins, <const real_t *> spline.parts, dvalues, gradients + n_dense, <real_t *> spline.buckets,
        rows_of(stage, batch), stage.n_out, i, j,
    )
    if begin < end:
        train_values(net, &stage.weights, begin, gradients + begin, end - begin, stage.trained, constants)
        if not net.clip_norm:
            add_up_weights(stage, i, j)
    if thread == (s + 1) % net.progress.n_threads:
        gradients = <real_t *> (scratch + PRODUCT_SCRATCH)
        dense_backward_biases(dvalues, NULL, gradients, rows_of(stage, batch), stage.n_out, 0, 0)
        train_values(net, &stage.biases, 0, gradients, stage.n_out, stage.trained, constants + biases_at(net))


cdef void train_parts(
    const Net *net, const Batch *batch, int s, const vec *constants, int thread, char *scratch
) noexcept nogil:
    """Compute the gradients of a thread's part of a stage's parameters, and update these.

    Threads share the rows of an embedding, columns of waves, and members. Updates also change rows of an embedding that
    no sample names. With `clip_norm`, one thread has them all, because it has the sum of their squares.
    """
    cdef Stage *stage = &net.stages[s]
    cdef Py_ssize_t n = stage.members, first = 0, end, size, n_out = stage.n_out, rows = rows_of(stage, batch)
    cdef const real_t *inputs = batch_inputs(net, batch, s)
    cdef const real_t *dvalues = <const real_t *> stage.dvalues
    cdef real_t *gradients = <real_t *> (scratch + PRODUCT_SCRATCH)
    cdef real_t *of_biases = gradients + stage.weights.size
    if stage.kind == EMBEDDING:
        n, gradients = stage.embedded.n_rows, <real_t *> stage.embedded.dweights
    elif stage.kind == PERIODIC:
        n, gradients = stage.periodic.n_columns, <real_t *> stage.wave_gradients
    end, size = n, stage.weights.size // n
    if not net.clip_norm:
        first, end = n * thread // net.progress.n_threads, n * (thread + 1) // net.progress.n_threads
    elif thread != s % net.progress.n_threads:
        return
    if stage.kind == EMBEDDING:
        embedding_backward_rows(
            inputs, dvalues, &stage.embedded.places, gradients, rows, stage.n_in, n_out, n, size, first, end
        )
    elif stage.kind == PERIODIC:
        addresses.periodic_backward(
            inputs, dvalues, &stage.periodic, <const real_t *> stage.weights.values, gradients, NULL, rows, stage.n_in,
            n_out, first, end,
        )
    elif stage.kind == MEMBER_DENSE:
        own_gradients(stage, inputs, dvalues, gradients, of_biases, batch.rows, first, end, scratch)
    else:
        members_backward_weights(
            inputs, dvalues, gradients, of_biases if has_biases(stage) else NULL, batch.rows, n, n_out,
            stage.kind == MEMBERS, first, end,
        )
    train_values(
        net, &stage.weights, first * size, gradients + first * size, (end - first) * size, stage.trained, constants
    )
    if has_biases(stage):
        train_values(
            net, &stage.biases, first * n_out, of_biases + first * n_out, (end - first) * n_out, stage.trained,
            constants + biases_at(net),
        )


cdef void own_gradients(
    const Stage *stage,
    const real_t *inputs,  # (samples, members, n_in) in
    const real_t *dvalues,  # (samples, members, n_out) in
    real_t *dweights,  # (members, n_in, n_out) out, of some members
    real_t *dbiases,  # (members, n_out) out, of these
    Py_ssize_t samples,
    Py_ssize_t first,  # the first of the members
    Py_ssize_t end,
    char *scratch,
) noexcept nogil:
    """Compute the gradients of members' weights, from copies of a member's rows."""
    cdef Py_ssize_t n_in = stage.n_in, n_out = stage.n_out, k = stage.members, m
    cdef real_t *own = dbiases + k * n_out
    cdef real_t *given = own + samples * n_in
    cdef real_t *gradients
    for m in range(first, end):
        gradients = dweights + m * n_in * n_out
        copy_lines(inputs + m * n_in, k * n_in, own, n_in, samples, n_in)
        copy_lines(dvalues + m * n_out, k * n_out, given, n_out, samples, n_out)
        addresses.dense_backward_weights(own, given, NULL, gradients, samples, n_in, n_out, 0, 0, scratch)
        addresses.dense_backward_biases(given, NULL, dbiases + m * n_out, samples, n_out, 0, 0)


cdef void second_phase(
    const Net *net, const Batch *batch, const vec *constants, int thread, char *scratch
) noexcept nogil:
    """Compute the gradients of the weights that a thread owns, and update these."""
    cdef const Stage *stage
    cdef int s
    for s in range(net.n_stages):
        stage = &net.stages[s]
        if stage.kind == BATCH_NORM and not net.minimizes and thread == s % net.progress.n_threads:
            move_running_figures(stage, rows_of(stage, batch))
        if not wants_gradients(stage):
            continue
        if stage.in_groups:
            train_by_groups(net, batch, s, constants, thread)
        elif stage.kind == DENSE:
            train_stage(net, batch, s, constants, thread, scratch)
        elif stage.kind == SPLINE:
            train_spline(net, batch, s, constants, thread, scratch)
        elif stage.kind == EMBEDDING or stage.kind == PERIODIC or is_of_members(stage):
            train_parts(net, batch, s, constants, thread, scratch)
        elif thread == s % net.progress.n_threads:
            train_others(net, batch, s, constants, scratch)
