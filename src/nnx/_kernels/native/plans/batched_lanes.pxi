# Batched lanes: networks with few inputs and few outputs, and one hidden layer with ReLU and perhaps dropout. There the
# lanes lie along the batch, so that two inputs and three outputs keep all lanes busy: arrays are (features, rows). In
# the first phase, each thread takes its rows through both layers and the loss, in registers but for what the hidden
# layer puts out. In the second, each takes its hidden units through all rows, whose gradients' sums stay in registers
# as well.

cdef enum:
    MAX_ENDS = 4  # inputs and outputs, at most
    BATCHED_VECTORS = 4  # rows come in multiples of so many vectors
    BATCHED_TERMS = 40  # of a lane's sum, before it is added to others: float32 sums of few terms are nearer to exact
    BATCHED_VALUES = 1 << 16  # hidden values that lie together, about: they stay in L2, and on pages that are known
    BATCHED_DRAWN = 32  # units that dropout is drawn for at a time: what is drawn stays in L1
    WORD_VECTORS = 2  # of a vector's lanes, at most


cdef struct Lanes:
    # Where such a network's arrays are, for a batch.
    Py_ssize_t rows  # of the batch, filled up to whole blocks
    Py_ssize_t block  # rows whose hidden values lie together
    Py_ssize_t line  # how far apart units are there
    Py_ssize_t units
    Py_ssize_t padded  # units, filled up to whole vectors
    real_t *x  # (n_in, rows)
    real_t *z  # (n_out, rows): what comes out
    real_t *d  # (n_out, rows): its gradient
    real_t *h  # (blocks of rows, units, line): what the hidden layer puts out
    real_t *sums  # (n_in + 1 + n_out, padded, LANES)


cdef bint fits_lanes(const Net *net) noexcept nogil:
    """Return whether a network is such a one."""
    cdef const Stage *stages = net.stages
    cdef int n = net.n_stages
    cdef int second = 2 if n > 1 and stages[1].kind == DROPOUT else 1
    if n <= second or stages[0].kind != DENSE or not stages[0].relu or stages[second].kind != DENSE:
        return False
    if stages[second].relu or not (stages[0].trained and stages[second].trained):
        return False
    if net.n_in > MAX_ENDS or net.n_out > MAX_ENDS:
        return False
    if net.clip_norm:
        return False
    if net.fused:
        return n == second + 2 and net.n_out > 1 and net.wanted is NULL
    if net.n_out > 1 or net.loss.traits & BY_LABELS:
        return False
    return n == second + (2 if net.combined else 1)


cdef Lanes lanes_arrays(const Net *net, Py_ssize_t batch, real_t *space) noexcept nogil:
    """Return where the arrays are."""
    cdef Lanes own
    cdef Py_ssize_t block = BATCHED_VECTORS * LANES
    own.rows = (batch + block - 1) // block * block
    own.units = net.stages[0].n_out
    own.block = max(block, min(<Py_ssize_t> BATCHED_TERMS * LANES, BATCHED_VALUES // own.units) // block * block)
    own.line = own.block + 16  # lines a power of two apart would displace each other
    own.padded = (own.units + LANES - 1) // LANES * LANES
    own.x = space
    own.z = own.x + net.n_in * own.rows
    own.d = own.z + net.n_out * own.rows
    own.sums = own.d + net.n_out * own.rows
    own.h = own.sums + (net.n_in + 1 + net.n_out) * own.padded * LANES
    return own


cdef Py_ssize_t lanes_space(const Net *net, Py_ssize_t batch) noexcept nogil:
    """Return how many bytes the arrays of such a network take."""
    cdef Lanes own = lanes_arrays(net, batch, NULL)
    cdef Py_ssize_t blocks = (own.rows + own.block - 1) // own.block
    return (<char *> (own.h + blocks * own.units * own.line)) - <char *> NULL


# Dropout, for LANES rows and four units at a time: the first two rounds of Philox depend on the row or the unit alone


cdef struct Lottery:
    # What the masks of some rows are drawn with.
    words high[BATCHED_VECTORS * WORD_VECTORS]  # for each row, halves of its own product in the second round
    words low[BATCHED_VECTORS * WORD_VECTORS]
    uint32_t keys[2]
    uint32_t forwards[2]
    uint32_t limit
    real_t scale


cdef void begin_lottery(
    Lottery *lottery, double keep, uint64_t seed, uint64_t forwards, Py_ssize_t first, int vectors
) noexcept nogil:
    """Make ready to draw for vectors of rows that begin with `first`."""
    cdef uint64_t high[2 * BATCHED_VECTORS * MOST_LANES]
    cdef uint64_t low[2 * BATCHED_VECTORS * MOST_LANES]
    cdef uint64_t product
    cdef uint32_t word
    cdef int i, lane, at, parts = LANES // WORD_LANES
    lottery.keys[0], lottery.keys[1] = <uint32_t> seed, <uint32_t> (seed >> 32)
    lottery.forwards[0], lottery.forwards[1] = <uint32_t> forwards, <uint32_t> (forwards >> 32)
    lottery.limit = <uint32_t> (<uint64_t> rint(keep * 4294967296.0) - 1)
    lottery.scale = <real_t> (1 / keep) if rint(keep * 4294967296.0) > 0 else 0  # nothing is kept
    product = <uint64_t> lottery.forwards[0] * <uint64_t> 0xCD9E8D57
    for i in range(vectors * LANES):
        word = <uint32_t> (product >> 32) ^ <uint32_t> (first + i) ^ lottery.keys[0]
        # Of two vectors of words for a vector of rows, the first has the even rows.
        lane = i % LANES
        at = (i - lane) + lane % parts * WORD_LANES + lane // parts
        low[at] = <uint64_t> word * <uint64_t> 0xD2511F53
        high[at] = low[at] >> 32
    for i in range(vectors * parts):
        lottery.high[i] = load_words(high + i * WORD_LANES)
        lottery.low[i] = load_words(low + i * WORD_LANES)


cdef inline void draw(
    const Lottery *lottery,
    const int vectors,  # a constant at every call
    uint32_t block,  # four units
    vec *kept,  # (4, vectors) out: 1/keep, or 0
) noexcept nogil:
    """Draw whether each cell of four units is kept, as `dropout_mask` does.

    What depends on the block alone is computed in single words: all of the first round, half of the second and third.
    """
    cdef words x[4]
    cdef words drawn[4 * WORD_VECTORS]
    cdef uint32_t key0 = lottery.keys[0] + <uint32_t> 0x9E3779B9, key1 = lottery.keys[1] + <uint32_t> 0xBB67AE85
    cdef uint64_t first = <uint64_t> lottery.forwards[0] * <uint64_t> 0xCD9E8D57
    cdef uint64_t own = <uint64_t> block * <uint64_t> 0xD2511F53
    cdef uint32_t word = <uint32_t> (own >> 32) ^ lottery.forwards[1] ^ lottery.keys[1]
    cdef uint64_t second = <uint64_t> word * <uint64_t> 0xCD9E8D57
    cdef uint32_t start2 = <uint32_t> own ^ key1
    cdef uint32_t start0 = <uint32_t> (second >> 32) ^ <uint32_t> first ^ key0
    cdef uint64_t third = <uint64_t> start0 * <uint64_t> 0xD2511F53
    cdef uint32_t k0, k1, next0, next2
    cdef int parts = LANES // WORD_LANES
    cdef int v, part, w, r
    key0 += <uint32_t> 0x9E3779B9
    key1 += <uint32_t> 0xBB67AE85
    next0, next2 = <uint32_t> second ^ key0, <uint32_t> (third >> 32) ^ key1
    for v in range(vectors):
        for part in range(parts):
            x[1] = multiply_words(xor_words(lottery.high[v * parts + part], start2), <uint32_t> 0xCD9E8D57)
            x[0] = xor_words(high_words(x[1]), next0)
            x[2] = xor_words(lottery.low[v * parts + part], next2)
            x[3] = all_words(<uint32_t> third)
            k0, k1 = key0, key1
            for r in range(4):
                k0 += <uint32_t> 0x9E3779B9
                k1 += <uint32_t> 0xBB67AE85
                philox_round(x, k0, k1)
            for w in range(4):
                drawn[w * parts + part] = x[w]
        for w in range(4):
            kept[w * vectors + v] = v_kept(drawn + w * parts, lottery.limit, lottery.scale)


cdef void draw_units(
    const Lottery *lottery, int vectors, uint32_t first, Py_ssize_t blocks, vec *kept
) noexcept nogil:
    """`draw` for some blocks of units, apart from the loop that needs all registers; two vectors of rows."""
    cdef Py_ssize_t b
    for b in range(blocks):
        draw(lottery, 2, first + <uint32_t> b, kept + b * 8)


# Forward


cdef inline real_t *hidden_at(const Lanes *own, Py_ssize_t i, Py_ssize_t j) noexcept nogil:
    """Return where row i of hidden unit j is."""
    return own.h + (i // own.block * own.units + j) * own.line + i % own.block


cdef inline void lanes_units(
    const int n_in,  # these are constants at every call
    const int n_out,
    const int vectors,
    const bint drops,
    const Net *net, const Lanes *own, const Lottery *lottery, Py_ssize_t i,
) noexcept nogil:
    """Take some rows, from i on, through both layers."""
    cdef const real_t *w1 = <const real_t *> net.stages[0].weights.values
    cdef const real_t *b1 = <const real_t *> net.stages[0].biases.values
    cdef const Stage *second = &net.stages[2 if drops else 1]
    cdef const real_t *w2 = <const real_t *> second.weights.values
    cdef const real_t *b2 = <const real_t *> second.biases.values
    cdef real_t *h = hidden_at(own, i, 0)
    cdef vec x[MAX_ENDS * BATCHED_VECTORS]
    cdef vec z[MAX_ENDS * BATCHED_VECTORS]
    cdef vec kept[BATCHED_DRAWN * BATCHED_VECTORS]
    cdef vec unit, zero = v_all(0)
    cdef Py_ssize_t j, top = 0, end, units = own.units
    cdef int v, q
    for v in range(vectors):
        for q in range(n_in):
            x[q * vectors + v] = v_load(own.x + q * own.rows + i + v * LANES)
        for q in range(n_out):
            z[q * vectors + v] = v_all(b2[q])
    while top < units:
        end = min(units, top + BATCHED_DRAWN) if drops else units
        if drops:
            draw_units(lottery, vectors, <uint32_t> (top // 4), (end - top + 3) // 4, kept)
        for j in range(top, end):
            for v in range(vectors):
                unit = v_all(b1[j])
                for q in range(n_in):
                    unit = v_madd(x[q * vectors + v], v_all(w1[q * units + j]), unit)
                unit = v_max(zero, unit)
                if drops:
                    unit = v_mul(unit, kept[(j - top) * vectors + v])
                v_store(h + v * LANES, unit)
                for q in range(n_out):
                    z[q * vectors + v] = v_madd(unit, v_all(w2[j * n_out + q]), z[q * vectors + v])
            h += own.line
        top = end
    for v in range(vectors):
        for q in range(n_out):
            v_store(own.z + q * own.rows + i + v * LANES, z[q * vectors + v])


cdef inline void lanes_forward(
    const int n_in, const int n_out, const int vectors, const bint drops, const Net *net, const Lanes *own,
    uint64_t forwards, Py_ssize_t first, Py_ssize_t end,
) noexcept nogil:
    """Take rows from `first` to `end`, whole blocks, through both layers."""
    cdef Lottery lottery
    cdef Py_ssize_t i = first
    while i < end:
        if drops:
            begin_lottery(
                &lottery, net.stages[1].keep, net.stages[1].seed, net.stages[1].forwards + forwards, i, vectors
            )
        lanes_units(n_in, n_out, vectors, drops, net, own, &lottery, i)
        i += vectors * LANES


cdef inline void lanes_forward_into(
    const int n_in, const int n_out, const Net *net, const Lanes *own, uint64_t forwards, Py_ssize_t first,
    Py_ssize_t end,
) noexcept nogil:
    """`lanes_forward` with as many vectors as registers can hold, with and without dropout."""
    if net.stages[1].kind == DROPOUT:
        lanes_forward(n_in, n_out, 2, True, net, own, forwards, first, end)
    elif n_out == 1 and n_in <= 2:
        lanes_forward(n_in, n_out, 4, False, net, own, forwards, first, end)
    else:
        lanes_forward(n_in, n_out, 2, False, net, own, forwards, first, end)


cdef inline void lanes_forward_from(
    const int n_in, const Net *net, const Lanes *own, uint64_t forwards, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """`lanes_forward`, compiled for each number of outputs."""
    if net.n_out == 1:
        lanes_forward_into(n_in, 1, net, own, forwards, first, end)
    elif net.n_out == 2:
        lanes_forward_into(n_in, 2, net, own, forwards, first, end)
    elif net.n_out == 3:
        lanes_forward_into(n_in, 3, net, own, forwards, first, end)
    else:
        lanes_forward_into(n_in, 4, net, own, forwards, first, end)


cdef void lanes_forward_of(
    const Net *net, const Lanes *own, uint64_t forwards, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """`lanes_forward`, compiled for each number of inputs."""
    if net.n_in == 1:
        lanes_forward_from(1, net, own, forwards, first, end)
    elif net.n_in == 2:
        lanes_forward_from(2, net, own, forwards, first, end)
    elif net.n_in == 3:
        lanes_forward_from(3, net, own, forwards, first, end)
    else:
        lanes_forward_from(4, net, own, forwards, first, end)


cdef Py_ssize_t lanes_judge(
    const Net *net, const Batch *batch, const Lanes *own, Py_ssize_t first, Py_ssize_t rows, char *scratch
) noexcept nogil:
    """Compute the losses of some rows and their gradient; return the hits."""
    cdef const Stage *last = &net.stages[net.n_stages - 1]
    cdef const void *targets = rows_of_targets(net, batch, first)
    cdef real_t *z = own.z + first
    cdef real_t *sample_losses = <real_t *> net.sample_losses + first
    cdef Py_ssize_t hits = 0
    if net.fused:
        hits = softmax_crossentropy(
            z, <const int32_t *> targets, z, own.d + first, sample_losses, rows, net.n_out, 1, own.rows, batch.rows,
            net.loss_settings[0], net.loss_settings[1], row_hits_of(net, first), <real_t *> (scratch + PRODUCT_SCRATCH),
        )
    else:
        if net.combined:
            last.activation.run(FORWARD, z, NULL, z, rows, 1, last.settings, NULL)
        compute_loss(SAMPLE_LOSSES, net, z, targets, sample_losses, rows, batch.rows)
        compute_loss(PAIR_GRADIENT if net.combined else GRADIENT, net, z, targets, own.d + first, rows, batch.rows)
    if net.wanted is not NULL:  # then there is one output, and rows lie as they do elsewhere
        hits = hits_of_rows(net, batch, z, first, rows)
    if net.weights is not NULL:
        weigh_rows(net, batch, first, rows, own.d + first, 1, own.rows)
    return hits


cdef void lanes_first_phase(const Net *net, const Batch *batch, int thread, char *scratch) noexcept nogil:
    """Take a thread's rows of a batch through the network and the loss."""
    cdef Lanes own = lanes_arrays(net, net.batch, <real_t *> net.lanes_space)
    cdef Py_ssize_t block = BATCHED_VECTORS * LANES, blocks = (batch.rows + block - 1) // block
    cdef Py_ssize_t first = blocks * thread // net.progress.n_threads * block
    cdef Py_ssize_t end = blocks * (thread + 1) // net.progress.n_threads * block
    cdef Py_ssize_t rows = min(end, batch.rows) - first
    cdef Py_ssize_t i, q
    cdef const real_t *X
    net.progress.hits[thread * 8] = 0
    if rows <= 0:
        return
    if batch.order is not NULL:
        gather(net, batch, first, rows)
    if not batch.again:
        X = rows_of_X(net, batch, first)
        for q in range(net.n_in):
            for i in range(rows):
                own.x[q * own.rows + first + i] = X[i * net.n_in + q]
            for i in range(first + rows, end):
                own.x[q * own.rows + i] = 0
    lanes_forward_of(net, &own, batch.forwards, first, end)
    net.progress.hits[thread * 8] = lanes_judge(net, batch, &own, first, rows, scratch)
    # Rows that only fill up the last vectors have no part in any sum.
    for q in range(net.n_out):
        for i in range(first + rows, end):
            own.d[q * own.rows + i] = 0


# Gradients and update


cdef inline void add_to(real_t *sums, vec x, bint begins) noexcept nogil:
    """``sums := x`` to begin with, then ``sums += x``."""
    v_store(sums, x if begins else v_add(v_load(sums), x))


cdef inline void lanes_gradients(
    const int n_in,  # these are constants at every call
    const int n_out,
    const int count,
    const Net *net, const Lanes *own,
    real_t scale,  # of what dropout has kept
    Py_ssize_t j,
    Py_ssize_t first,
    Py_ssize_t end,
) noexcept nogil:
    """Add the gradients of `count` units' weights and biases over some rows to their sums."""
    cdef const Stage *second = &net.stages[2 if net.stages[1].kind == DROPOUT else 1]
    cdef const real_t *w2 = <const real_t *> second.weights.values + j * n_out
    cdef const real_t *h = hidden_at(own, first, j)
    cdef Py_ssize_t kind = own.padded * LANES, i
    cdef real_t *sums = own.sums + j * LANES
    cdef vec of_w1[2 * MAX_ENDS]
    cdef vec of_w2[2 * MAX_ENDS]
    cdef vec back[2 * MAX_ENDS]
    cdef vec of_bias[2]
    cdef vec unit[2]
    cdef vec gradient[2]
    cdef vec shared
    cdef int q, u
    for u in range(count):
        for q in range(n_in):
            of_w1[q * count + u] = v_all(0)
        of_bias[u] = v_all(0)
        for q in range(n_out):
            of_w2[q * count + u] = v_all(0)
            back[q * count + u] = v_all(w2[u * n_out + q] * scale)
    i = first
    while i < end:
        shared = v_load(own.d + i)
        for u in range(count):
            unit[u] = v_load(h + u * own.line + i - first)
            gradient[u] = v_mul(shared, back[u])
            of_w2[u] = v_madd(unit[u], shared, of_w2[u])
        for q in range(1, n_out):
            shared = v_load(own.d + q * own.rows + i)
            for u in range(count):
                gradient[u] = v_madd(shared, back[q * count + u], gradient[u])
                of_w2[q * count + u] = v_madd(unit[u], shared, of_w2[q * count + u])
        for u in range(count):
            gradient[u] = v_where_not_zero(unit[u], gradient[u])
            of_bias[u] = v_add(of_bias[u], gradient[u])
        for q in range(n_in):
            shared = v_load(own.x + q * own.rows + i)
            for u in range(count):
                of_w1[q * count + u] = v_madd(gradient[u], shared, of_w1[q * count + u])
        i += LANES
    for u in range(count):
        for q in range(n_in):
            add_to(sums + q * kind + u * LANES, of_w1[q * count + u], first == 0)
        add_to(sums + n_in * kind + u * LANES, of_bias[u], first == 0)
        for q in range(n_out):
            add_to(sums + (n_in + 1 + q) * kind + u * LANES, of_w2[q * count + u], first == 0)


cdef inline void lanes_backward(
    const int n_in, const int n_out, const Net *net, const Lanes *own, Py_ssize_t first, Py_ssize_t end,
    Py_ssize_t rows,
) noexcept nogil:
    """Sum up the gradients of units from `first` to `end` over all rows."""
    cdef real_t scale = <real_t> (1 / net.stages[1].keep) if net.stages[1].kind == DROPOUT else 1
    cdef Py_ssize_t top = 0, j
    while top < rows:
        j = first
        # Two at a time where all their sums fit into registers: 0.6 of 5.5 µs with one output, 1.4 µs lost with three.
        while n_in + n_out <= 3 and j + 2 <= end:
            lanes_gradients(n_in, n_out, 2, net, own, scale, j, top, min(rows, top + own.block))
            j += 2
        while j < end:
            lanes_gradients(n_in, n_out, 1, net, own, scale, j, top, min(rows, top + own.block))
            j += 1
        top += own.block


cdef inline void lanes_backward_from(
    const int n_in, const Net *net, const Lanes *own, Py_ssize_t first, Py_ssize_t end, Py_ssize_t rows
) noexcept nogil:
    """`lanes_backward`, compiled for each number of outputs."""
    if net.n_out == 1:
        lanes_backward(n_in, 1, net, own, first, end, rows)
    elif net.n_out == 2:
        lanes_backward(n_in, 2, net, own, first, end, rows)
    elif net.n_out == 3:
        lanes_backward(n_in, 3, net, own, first, end, rows)
    else:
        lanes_backward(n_in, 4, net, own, first, end, rows)


cdef void lanes_backward_of(
    const Net *net, const Lanes *own, Py_ssize_t first, Py_ssize_t end, Py_ssize_t rows
) noexcept nogil:
    """`lanes_backward`, compiled for each number of inputs."""
    if net.n_in == 1:
        lanes_backward_from(1, net, own, first, end, rows)
    elif net.n_in == 2:
        lanes_backward_from(2, net, own, first, end, rows)
    elif net.n_in == 3:
        lanes_backward_from(3, net, own, first, end, rows)
    else:
        lanes_backward_from(4, net, own, first, end, rows)


cdef inline vec sums_of_lanes(const real_t *vectors) noexcept nogil:
    """Return the sum over the lanes of each of LANES vectors."""
    cdef vec square[MOST_LANES]
    cdef vec result
    cdef int l
    for l in range(LANES):
        square[l] = v_load(vectors + l * LANES)
    v_transpose(square)
    result = square[0]
    for l in range(1, LANES):
        result = v_add(result, square[l])
    return result


cdef void lanes_second_phase(
    const Net *net, const Batch *batch, const vec *constants, int thread, char *scratch
) noexcept nogil:
    """Compute the gradients of a thread's hidden units over all rows, and update their weights and biases."""
    cdef Lanes own = lanes_arrays(net, net.batch, <real_t *> net.lanes_space)
    cdef Py_ssize_t block = BATCHED_VECTORS * LANES, rows = (batch.rows + block - 1) // block * block
    cdef Py_ssize_t vectors = own.padded // LANES, n_in = net.n_in, n_out = net.n_out
    cdef Py_ssize_t first = vectors * thread // net.progress.n_threads * LANES
    cdef Py_ssize_t end = min(vectors * (thread + 1) // net.progress.n_threads * LANES, own.units)
    cdef Stage *hidden = &net.stages[0]
    cdef Stage *last = &net.stages[2 if net.stages[1].kind == DROPOUT else 1]
    cdef real_t *gradients = <real_t *> (scratch + PRODUCT_SCRATCH)
    cdef Py_ssize_t kind, j
    if first < end:
        lanes_backward_of(net, &own, first, end, rows)
        for kind in range(n_in + 1 + n_out):
            j = first
            while j < end:
                if kind <= n_in:
                    v_store(gradients + j - first, sums_of_lanes(own.sums + (kind * own.padded + j) * LANES))
                else:
                    v_scatter(
                        gradients + (j - first) * n_out + kind - n_in - 1, n_out,
                        sums_of_lanes(own.sums + (kind * own.padded + j) * LANES), LANES,
                    )
                j += LANES
            if kind < n_in:
                train_values(net, &hidden.weights, kind * own.units + first, gradients, end - first, True, constants)
            elif kind == n_in:
                train_values(net, &hidden.biases, first, gradients, end - first, True, constants + biases_at(net))
        train_values(net, &last.weights, first * n_out, gradients, (end - first) * n_out, True, constants)
    if thread == 0:
        for kind in range(n_out):
            # In double: a sum in another order than row after row would move the spiral's published figures.
            gradients[kind] = <real_t> total(own.d + kind * own.rows, rows)
        train_values(net, &last.biases, 0, gradients, n_out, True, constants + biases_at(net))
