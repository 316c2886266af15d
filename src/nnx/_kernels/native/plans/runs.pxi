# Whole runs: the loop over the steps, their records, evaluation and prediction.

cdef extern from "math.h":
    bint isfinite(double x) nogil


cdef double penalty_of(const Net *net) noexcept nogil:
    """Return the penalty on all trained weights and biases."""
    cdef double penalty = 0, own
    cdef const Stage *stage
    cdef int s
    for s in range(net.n_stages):
        stage = &net.stages[s]
        if has_parameters(stage) and stage.trained:
            own = regularization_loss(
                <const real_t *> stage.weights.values, stage.weights.size, stage.weights.l1, stage.weights.l2
            )
            own += regularization_loss(
                <const real_t *> stage.biases.values, stage.biases.size, stage.biases.l1, stage.biases.l2
            )
            penalty += own
    return penalty


cdef inline void record(
    double *figures, Py_ssize_t size, Py_ssize_t at, double loss, double penalty, double accuracy
) noexcept nogil:
    """Write all figures except the rate."""
    figures[at] = loss + penalty
    figures[size + at] = loss
    figures[2 * size + at] = penalty
    figures[3 * size + at] = accuracy


cdef inline double cells_of(const Net *net, double rows) noexcept nogil:
    """Return the accuracy's number of comparisons for a number of rows, or for their weight."""
    return rows if net.wanted is NULL or net.classes else rows * <double> net.n_wanted


cdef double hits_of(const Net *net, Py_ssize_t first, Py_ssize_t rows) noexcept nogil:
    """Return the hits of a batch. Its rows begin at ``first`` among the rows that are evaluated together."""
    cdef double hits = 0
    cdef int t
    if net.weights is not NULL:  # sums of fractions depend on their order, which must not depend on threads
        return sum_in_four(net.row_hits + first, NULL, rows)
    for t in range(net.progress.n_threads):
        hits += <double> net.progress.hits[t * 8]
    return hits


cdef void add_up(const Net *net, double weight, double loss, double hits) noexcept nogil:
    """Add a batch's summed loss and hits to the epoch's."""
    net.progress.batch_loss, net.progress.batch_hits = loss, hits
    net.progress.loss_sum += loss
    net.progress.loss_count += weight
    net.progress.hits_sum += hits
    net.progress.hits_count += cells_of(net, weight)


cdef void record_step(
    const Net *net, const Batch *batch, bint begins_epoch, Py_ssize_t step, double loss, double hits, double penalty
) noexcept nogil:
    """Add a step's loss and hits to its epoch's, and record it. Its rate is already there: all threads read it."""
    cdef double members = <double> net.members
    if begins_epoch:
        net.progress.loss_sum, net.progress.loss_count = 0, 0
        net.progress.hits_sum, net.progress.hits_count = 0, 0
        net.progress.penalty_sum = 0
    add_up(net, batch.weight * members, loss, hits)
    net.progress.penalty_sum += penalty * <double> batch.all_rows
    record(
        net.progress.figures.steps, net.progress.figures.steps_size, step,
        <double> (<real_t> mean_of(net.progress.batch_loss, batch.weight * members)), penalty,
        mean_of(net.progress.batch_hits, cells_of(net, batch.weight * members)),
    )


cdef void record_epoch(const Net *net, Py_ssize_t epoch, double penalty, double rate) noexcept nogil:
    """Record an epoch. ``penalty`` is the one after it."""
    cdef double *figures = net.progress.figures.epochs
    cdef Py_ssize_t size = net.progress.figures.epochs_size
    if net.penalty_per_sample:  # batches differ, so it is the mean over the epoch's samples
        penalty = net.progress.penalty_sum / <double> net.n_samples
    record(
        figures, size, epoch, mean_of(net.progress.loss_sum, net.progress.loss_count), penalty,
        mean_of(net.progress.hits_sum, net.progress.hits_count),
    )
    figures[4 * size + epoch] = rate


cdef void add_up_ranks(const Net *net, const Batch *batch, double loss, double hits) noexcept nogil:
    """Add up gradients, loss and hits of all ranks. The ranks wait for each other."""
    cdef real_t *sums = <real_t *> net.sums
    if batch.counts:
        sums[net.n_sums - 2], sums[net.n_sums - 1] = <real_t> loss, <real_t> hits
    else:
        memset(sums, 0, net.n_sums * sizeof(real_t))
    net.progress.is_apart = not net.exchange(net.exchanged_by)
    if isfinite(net.clip_norm):
        net.progress.squares = squares_of_all(net)


cdef Py_ssize_t train(const Net *net, Py_ssize_t first_step, Py_ssize_t end_step, int thread) noexcept nogil:
    """Do some steps of a run, as one of its threads. Return the step before which it ended."""
    cdef Py_ssize_t end
    if net.units is not NULL:
        net.units.begin()
        end = do_steps(net, first_step, end_step, thread)
        net.units.end()
        return end
    return do_steps(net, first_step, end_step, thread)


cdef inline Py_ssize_t do_steps(const Net *net, Py_ssize_t first_step, Py_ssize_t end_step, int thread) noexcept nogil:
    """Do some steps of a run, as one of its threads. Return the step before which it ended.

    The rates are in the last row of the steps' figures.
    """
    cdef char *scratch = net.scratch + thread * net.private_size
    cdef const double *rates = net.progress.figures.steps + 4 * net.progress.figures.steps_size
    cdef const real_t *sums = NULL  # of all ranks: the batch's loss, and its hits
    cdef Py_ssize_t step_rows = rows_of_step(net), n_batches = (net.n_samples + step_rows - 1) // step_rows
    cdef Py_ssize_t in_epoch = (net.step_of_epoch + first_step) % n_batches
    cdef Py_ssize_t epoch = (net.step_of_epoch + first_step) // n_batches
    cdef Py_ssize_t step
    cdef double loss, hits = 0, scale = 1, penalty = 0
    cdef bint known = False
    # A step that stores what batched lanes do not keep is done again for its update.
    cdef bint shared = net.exchange is not NULL and net.records
    cdef vec constants[ALL_CONSTANTS]
    cdef Batch batch
    if shared:
        sums = <const real_t *> net.sums + net.n_sums - 2
    pack_weights(net, thread)
    meet(net.progress.meeting, net.progress.n_threads)
    for step in range(first_step, end_step):
        batch.start = in_epoch * step_rows
        batch.rows = min(step_rows, net.n_samples - batch.start)
        batch.order = NULL
        if net.order is not NULL:
            batch.order = net.order + epoch * net.n_samples + batch.start
        batch.copied = batch.order is not NULL or net.members > 1
        batch.forwards = net.first_forwards + <uint64_t> step
        rule_constants(net, rates[step], net.iterations + <uint64_t> step + 1, constants)
        if thread == 0 and not known:
            penalty = penalty_of(net)
        batch.weight = weight_of(net, &batch)
        take_own_rows(net, &batch)
        if net.penalty_per_sample:
            scale = mean_of(1, batch.weight)
        if thread == 0 and (net.penalty_per_sample or net.n_ranks):  # the others read it in the second phase
            net.progress.penalty_scale = scale * <double> batch.rows / <double> batch.all_rows
        batch.again = step > first_step and n_batches == 1 and net.order is NULL
        if net.batched_lanes:
            lanes_first_phase(net, &batch, thread, scratch)
        else:
            first_phase(net, &batch, thread, scratch)
        meet(net.progress.meeting, net.progress.n_threads)
        # Each thread adds up the losses, so all decide alike. The first one has to do it anyway.
        loss = total(<const real_t *> net.sample_losses, batch.rows * net.members)
        if net.stops and net.exchange is NULL and not isfinite(loss):
            return step
        if thread == 0 and net.records:
            hits = hits_of(net, 0, batch.rows * net.members)
            if not shared:
                record_step(net, &batch, in_epoch == 0, step, loss, hits, scale * penalty)
        if net.batched_lanes:
            lanes_second_phase(net, &batch, constants, thread, scratch)
        else:
            second_phase(net, &batch, constants, thread, scratch)
        if net.clip_norm:
            meet(net.progress.meeting, net.progress.n_threads)
            if shared:
                if thread == 0:
                    add_up_ranks(net, &batch, loss, hits)
                meet(net.progress.meeting, net.progress.n_threads)
                if net.progress.is_apart or (net.stops and not isfinite(sums[0])):
                    return step
                if thread == 0:
                    record_step(net, &batch, in_epoch == 0, step, sums[0], sums[1], scale * penalty)
            third_phase(net, constants, thread)
        meet(net.progress.meeting, net.progress.n_threads)
        in_epoch += 1
        known = in_epoch == n_batches
        if known:
            if thread == 0 and net.records:
                penalty = penalty_of(net)
                record_epoch(net, epoch, penalty, rates[step])
            in_epoch = 0
            epoch += 1
    return end_step


cdef void do_part(Part part, const Net *net, Py_ssize_t rows, double rate) noexcept nogil:
    """Do one part of a step for the rows of X, on one thread: for a segment, whose loss is computed elsewhere.

    The gradient of the output is in the last stage's `dvalues`, or in `dinputs` if the loss's gradient is by these.
    """
    if net.units is not NULL:
        net.units.begin()
        do_part_of_step(part, net, rows, rate)
        net.units.end()
    else:
        do_part_of_step(part, net, rows, rate)


cdef void do_part_of_step(Part part, const Net *net, Py_ssize_t rows, double rate) noexcept nogil:
    cdef Py_ssize_t most = rows_at_a_time(net), first = 0, n
    cdef vec constants[ALL_CONSTANTS]
    cdef Batch batch
    cdef int begin
    batch.start, batch.order, batch.rows, batch.forwards, batch.again = 0, NULL, rows, 0, False
    batch.copied = False
    batch.before, batch.all_rows = 0, rows
    if part == GO_UPDATE:
        rule_constants(net, rate, net.iterations + 1, constants)
    if part == GO_UPDATE or part == GO_GRADIENTS:
        second_phase(net, &batch, constants, 0, net.scratch)
    if part == GO_UPDATE and net.clip_norm:
        third_phase(net, constants, 0)
    if part == GO_UPDATE or part == GO_GRADIENTS:
        return
    if part == GO_FORWARD:
        pack_weights(net, 0)  # the user's code between two steps may have changed them
        begin = forward_to_last_norm(net, &batch, 0, rows, 0, net.scratch) if net.n_batch_norms else 0
    else:
        begin = last_norm(net)
    while first < rows:
        n = min(most, rows - first)
        if part == GO_FORWARD:
            forward_rows(net, &batch, first, n, begin, net.n_stages, net.scratch)
        else:
            backward_rows(net, &batch, first, n, first_to_go_back(net), above_norm(net, begin), net.scratch)
        first += n
    if part == GO_BACK and net.n_batch_norms:
        backward_from_last_norm(net, &batch, begin, 0, rows, 0, net.scratch)


cdef Py_ssize_t judge(const Net *net, Py_ssize_t first, Py_ssize_t rows, char *scratch) noexcept nogil:
    """Run the network on some rows of the data, and compute their losses. Return the hits.

    There are no more rows than `forward` takes at once. A row's result does not depend on other rows or on its batch.
    No array of the model is written: outputs stay in the memory that `forward` uses for those of its stages.
    """
    cdef Py_ssize_t hits = 0
    cdef int n_stages = net.n_stages - (1 if net.fused else 0)
    cdef real_t *output = side_of(net, n_stages - 1, scratch)  # or after both, if there are means
    cdef real_t *sample_losses = <real_t *> net.sample_losses + first
    cdef const void *targets
    cdef Batch batch
    batch.order, batch.copied, batch.forwards, batch.again = NULL, False, 0, False
    batch.start, batch.rows, batch.weight = 0, net.n_samples, <double> net.n_samples
    batch.before, batch.all_rows = 0, net.n_samples
    targets = rows_of_targets(net, &batch, first)
    if net.members > 1:
        output = <real_t *> (scratch + net.private_size) - FEWEST_ROWS * net.n_out
    forward(net, rows_of_X(net, &batch, first), output, rows, n_stages, scratch)
    if net.fused:
        hits = softmax_crossentropy(
            output, <const int32_t *> targets, output, NULL, sample_losses, rows, net.n_out, net.n_out, 1, batch.rows,
            net.loss_settings[0], net.loss_settings[1], row_hits_of(net, first), <real_t *> (scratch + PRODUCT_SCRATCH),
        )
    else:
        compute_loss(SAMPLE_LOSSES, net, output, targets, sample_losses, rows, batch.rows)
    if net.wanted is not NULL:
        hits = hits_of_rows(net, &batch, output, first, rows)
    if net.weights is not NULL:
        weigh_rows(net, &batch, first, rows, NULL, 0, 0)
    return hits


cdef void add_judged(const Net *net, Py_ssize_t number, Py_ssize_t hits) noexcept nogil:
    """Add a batch to the sums after all its rows are evaluated. The hits are the counted ones."""
    cdef Batch batch
    cdef double loss
    batch.order, batch.copied, batch.start = NULL, False, number * net.batch
    batch.rows = min(net.batch, net.n_samples - batch.start)
    loss = total(<const real_t *> net.sample_losses + batch.start, batch.rows)
    net.progress.hits[0] = hits
    add_up(net, weight_of(net, &batch), loss, hits_of(net, batch.start, batch.rows))


cdef void predict(const Net *net, const real_t *X, real_t *output, Py_ssize_t rows, char *scratch) noexcept nogil:
    """``output := what the network makes of X``; (rows, n_in) in, (rows, n_out) out."""
    if net.units is not NULL:
        net.units.begin()
        forward(net, X, output, rows, net.n_stages, scratch)
        net.units.end()
    else:
        forward(net, X, output, rows, net.n_stages, scratch)
