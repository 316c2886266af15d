# Batched lanes: for networks with few inputs and few outputs, and one hidden layer with ReLU and perhaps dropout. The
# lanes lie along the batch, so that two inputs and three outputs keep all lanes busy. Arrays are (features, rows). In
# the first phase, each thread takes some blocks of rows, one after the other, through both layers and the loss and
# back. Everything stays in registers, except the output of the hidden layer, which stays in L2. Each block has its own
# gradients for each hidden unit. In the second phase, each thread adds up the gradients of its hidden units, block
# after block, and updates the units. Blocks, and therefore bits, depend only on shapes.

cdef enum:
    MAX_ENDS = 4  # the most inputs or outputs
    BATCHED_VECTORS = 4  # every block of rows but the last is a multiple of this number of vectors
    BATCHED_TERMS = 40  # terms of a lane's sum before it is added to others: float32 sums of few terms are more exact
    BATCHED_BYTES = 1 << 18  # approximate bytes of adjacent hidden values: they stay in L2, and their pages in the TLB
    BATCHED_DRAWN = 32  # units that dropout is drawn for at a time: the draws stay in L1
    WORD_VECTORS = 2  # the most vectors of words for the lanes of a vector
    DROPPED_VECTORS = 2  # vectors of rows that go forward together if there is dropout


cdef struct FirstRounds:
    # The part of Philox's first three rounds that depends only on the number of eight units.
    uint64_t before_second
    uint64_t word0
    uint64_t word2
    uint64_t word3


cdef struct Lanes:
    # The arrays of such a network, for a batch. Each thread has its own copies of the last ones.
    Py_ssize_t rows  # of the batch, padded
    Py_ssize_t block  # rows that go forward and back together
    Py_ssize_t blocks
    Py_ssize_t line  # the distance between features within a block
    Py_ssize_t units
    Py_ssize_t padded  # units, padded to whole vectors
    real_t *x  # (n_in, rows)
    real_t *sums  # (blocks, n_in + 1 + n_out, padded), in whole lines: gradients of each block
    double *bias_sums  # (blocks, n_out)
    real_t *z  # (n_out, line): the output
    real_t *d  # (n_out, line): its gradient
    real_t *h  # (units, line): the output of the hidden layer, before dropout multiplies it
    real_t *scaled  # (units, n_out): the last layer's weights times dropout's factor
    const real_t *w  # the same, or the weights themselves
    FirstRounds *first_rounds  # (blocks_of(units),)
    Py_ssize_t before  # rows of the batch on the ranks before this one
    char *end


cdef bint fits_lanes(const Net *net) noexcept nogil:
    """Return whether a network can run in batched lanes."""
    cdef const Stage *stages = net.stages
    cdef int n = net.n_stages
    cdef int second = 2 if n > 1 and stages[1].kind == DROPOUT else 1
    if n <= second or stages[0].kind != DENSE or not stages[0].relu or stages[second].kind != DENSE:
        return False
    if stages[second].relu or not (stages[0].trained and stages[second].trained):
        return False
    if net.n_in > MAX_ENDS or net.n_out > MAX_ENDS:
        return False
    if net.clip_norm and net.exchange is NULL:
        return False
    if net.fused:
        return n == second + 2 and net.n_out > 1 and net.wanted is NULL
    if net.n_out > 1 or net.loss.traits & BY_LABELS:
        return False
    return n == second + (2 if net.combined else 1)


cdef inline bint drops_of(const Net *net) noexcept nogil:
    return net.stages[1].kind == DROPOUT


cdef inline const Stage *last_of(const Net *net) noexcept nogil:
    """Return the dense stage after the hidden layer."""
    return &net.stages[2 if drops_of(net) else 1]


cdef inline real_t scale_of(const Net *net) noexcept nogil:
    """Return the factor of dropout for the elements that it keeps."""
    if not drops_of(net):
        return 1
    return <real_t> (1 / net.stages[1].keep) if limit_of(net.stages[1].keep).any else 0


cdef inline Py_ssize_t filled_up(const Net *net, Py_ssize_t rows) noexcept nogil:
    """Return the padded number of rows: whole vectors, in multiples of those that go forward together."""
    cdef Py_ssize_t unit = (DROPPED_VECTORS if drops_of(net) else 1) * LANES
    return (rows + unit - 1) // unit * unit


cdef inline Py_ssize_t whole_lines(Py_ssize_t n) noexcept nogil:
    """Return a size rounded up to whole cache lines: a vector across two lines takes twice as long."""
    return (n + 15) // 16 * 16


cdef inline Py_ssize_t blocks_of(Py_ssize_t units) noexcept nogil:
    """Return the number of blocks of words that dropout draws for the units of a row."""
    return (units + MASK_CELLS - 1) // MASK_CELLS


cdef Lanes lanes_arrays(const Net *net, Py_ssize_t batch, char *space, int thread) noexcept nogil:
    """Return the addresses of the arrays."""
    cdef Lanes own
    cdef Py_ssize_t least = BATCHED_VECTORS * LANES, most, each
    cdef Py_ssize_t size = <Py_ssize_t> sizeof(real_t), bytes = BATCHED_BYTES
    own.units = net.stages[0].n_out
    own.padded = (own.units + LANES - 1) // LANES * LANES
    own.rows = filled_up(net, batch)
    most = <Py_ssize_t> BATCHED_TERMS * LANES
    if LANES * size == 64:  # L2 has a megabyte, and each block ends in sums over twice as many lanes: 7 % of a step
        bytes *= 2
    most = max(least, min(most, bytes // size // own.units) // least * least)
    own.blocks = (own.rows + most - 1) // most
    if own.blocks > 1:  # two threads have equal work
        own.blocks = (own.blocks + 1) // 2 * 2
    own.block = ((own.rows + own.blocks - 1) // own.blocks + least - 1) // least * least
    own.line = own.block + 16  # lines a power of two apart would evict each other
    own.x = <real_t *> space
    own.sums = own.x + whole_lines(net.n_in * own.rows)
    own.bias_sums = <double *> (own.sums + own.blocks * whole_lines((net.n_in + 1 + net.n_out) * own.padded))
    each = (2 * net.n_out + own.units) * own.line + whole_lines(own.units * net.n_out)
    each += whole_lines(blocks_of(own.units) * <Py_ssize_t> sizeof(FirstRounds) // size)
    own.z = <real_t *> (own.bias_sums + whole_lines(own.blocks * net.n_out)) + thread * each
    own.d = own.z + net.n_out * own.line
    own.h = own.d + net.n_out * own.line
    own.scaled = own.h + own.units * own.line
    own.w, own.before = NULL, 0
    own.first_rounds = <FirstRounds *> (own.scaled + whole_lines(own.units * net.n_out))
    own.end = <char *> (own.z + each)
    return own


cdef Py_ssize_t lanes_space(const Net *net, Py_ssize_t batch, int n_threads) noexcept nogil:
    """Return the bytes of the arrays of such a network."""
    return lanes_arrays(net, batch, NULL, n_threads - 1).end - <char *> NULL


# Dropout, for LANES rows and eight units at a time. Parts of Philox's first three rounds depend only on the row or the
# unit


cdef struct Lottery:
    # The data for drawing the masks of some rows.
    words high[DROPPED_VECTORS * WORD_VECTORS]  # for each row, halves of its product in the second round
    words low[DROPPED_VECTORS * WORD_VECTORS]
    words round_keys[8]  # of the last four rounds
    words below  # the limit, as `v_below` takes it
    uint64_t seed
    uint64_t forwards
    Py_ssize_t first
    Limit limit


cdef void begin_lottery(
    Lottery *lottery, double keep, uint64_t seed, uint64_t forwards, const Lanes *own
) noexcept nogil:
    """Prepare the draws."""
    cdef Py_ssize_t block
    cdef int r
    lottery.seed, lottery.forwards, lottery.limit = seed, forwards, limit_of(keep)
    lottery.below = below_limit(lottery.limit.upper)
    for r in range(4):
        lottery.round_keys[2 * r] = all_words(<uint32_t> seed + <uint32_t> (3 + r) * <uint32_t> 0x9E3779B9)
        lottery.round_keys[2 * r + 1] = all_words(
            <uint32_t> (seed >> 32) + <uint32_t> (3 + r) * <uint32_t> 0xBB67AE85
        )
    for block in range(blocks_of(own.units)):
        own.first_rounds[block] = first_rounds(<uint32_t> block, seed, forwards)


cdef FirstRounds first_rounds(uint32_t block, uint64_t seed, uint64_t forwards) noexcept nogil:
    """Compute what depends only on the block: all of the first round, half of the second and third."""
    cdef FirstRounds own
    cdef uint32_t key0 = <uint32_t> seed + <uint32_t> 0x9E3779B9
    cdef uint32_t key1 = <uint32_t> (seed >> 32) + <uint32_t> 0xBB67AE85
    cdef uint64_t first = (forwards & <uint64_t> 0xFFFFFFFF) * <uint64_t> 0xCD9E8D57
    cdef uint64_t of_block = <uint64_t> block * <uint64_t> 0xD2511F53
    cdef uint32_t word = <uint32_t> (of_block >> 32) ^ <uint32_t> (forwards >> 32) ^ <uint32_t> (seed >> 32)
    cdef uint64_t second = <uint64_t> word * <uint64_t> 0xCD9E8D57
    cdef uint32_t start0 = <uint32_t> (second >> 32) ^ <uint32_t> first ^ key0
    cdef uint64_t third = <uint64_t> start0 * <uint64_t> 0xD2511F53
    own.before_second = <uint32_t> of_block ^ key1
    own.word0 = <uint32_t> second ^ (key0 + <uint32_t> 0x9E3779B9)
    own.word2 = <uint32_t> (third >> 32) ^ (key1 + <uint32_t> 0xBB67AE85)
    own.word3 = <uint32_t> third
    return own


cdef void take_rows(Lottery *lottery, Py_ssize_t first) noexcept nogil:
    """Prepare the draws for two vectors of rows, from row `first` on."""
    cdef uint64_t high[DROPPED_VECTORS * MOST_LANES]
    cdef uint64_t low[DROPPED_VECTORS * MOST_LANES]
    cdef uint64_t product = (lottery.forwards & <uint64_t> 0xFFFFFFFF) * <uint64_t> 0xCD9E8D57
    cdef uint32_t word
    cdef int i, lane, at, parts = LANES // WORD_LANES
    lottery.first = first
    for i in range(DROPPED_VECTORS * LANES):
        word = <uint32_t> (product >> 32) ^ <uint32_t> (first + i) ^ <uint32_t> lottery.seed
        # Of two vectors of words for a vector of rows, the first has the even rows.
        lane = i % LANES
        at = (i - lane) + lane % parts * WORD_LANES + lane // parts
        low[at] = <uint64_t> word * <uint64_t> 0xD2511F53
        high[at] = low[at] >> 32
    for i in range(DROPPED_VECTORS * parts):
        lottery.high[i] = load_words(high + i * WORD_LANES)
        lottery.low[i] = load_words(low + i * WORD_LANES)


cdef inline void draw(
    const Lottery *lottery,
    uint32_t block,  # eight units
    const FirstRounds *of_block,
    lane_set *kept,  # (MASK_CELLS, DROPPED_VECTORS) out
) noexcept nogil:
    """Draw whether each element of eight units is kept, as `dropout_mask` does.

    The vectors do the other rounds side by side, because each waits for its products.
    """
    cdef words x[4 * DROPPED_VECTORS * WORD_VECTORS]
    cdef words drawn[WORD_VECTORS]
    cdef words below = lottery.below
    cdef tie_set ties = no_ties()
    cdef uint64_t before_second = of_block.before_second
    cdef uint64_t word0 = of_block.word0, word2 = of_block.word2, word3 = of_block.word3
    cdef int parts = LANES // WORD_LANES
    cdef int s, r, v, w, part
    for s in range(DROPPED_VECTORS * parts):
        x[4 * s + 1] = multiply_words(xor_words(lottery.high[s], before_second), <uint32_t> 0xCD9E8D57)
        x[4 * s] = xor_words(high_words(x[4 * s + 1]), word0)
        x[4 * s + 2] = xor_words(lottery.low[s], word2)
        x[4 * s + 3] = all_words(word3)
    for r in range(4):
        for s in range(DROPPED_VECTORS * parts):
            philox_round(x + 4 * s, lottery.round_keys[2 * r], lottery.round_keys[2 * r + 1])
    for v in range(DROPPED_VECTORS):
        for w in range(4):
            for part in range(parts):
                drawn[part] = x[4 * (v * parts + part) + w]
            v_below(
                drawn, below, kept + 2 * w * DROPPED_VECTORS + v, kept + (2 * w + 1) * DROPPED_VECTORS + v, &ties
            )
    if any_ties(ties):
        settle_ties(lottery, block, kept)


cdef void settle_ties(const Lottery *lottery, uint32_t block, lane_set *kept) noexcept nogil:
    """Decide ties, where an element's upper half equals the limit's: in about one of 500 calls of `draw`."""
    cdef uint32_t x[4]
    cdef int i, unit
    cdef bint stays
    for i in range(DROPPED_VECTORS * LANES):
        x[0], x[1] = block, <uint32_t> (lottery.first + i)
        x[2], x[3] = <uint32_t> lottery.forwards, <uint32_t> (lottery.forwards >> 32)
        philox_block(x, lottery.seed)
        for unit in range(MASK_CELLS):
            if half_of(x, unit) == lottery.limit.upper:
                stays = is_kept_by_lower(
                    &lottery.limit, block, lottery.first + i, unit, lottery.seed, lottery.forwards
                )
                put_lane(kept + unit * DROPPED_VECTORS + i // LANES, i % LANES, stays)


cdef void draw_units(
    const Lottery *lottery, const FirstRounds *of_blocks, Py_ssize_t first, Py_ssize_t end, lane_set *kept
) noexcept nogil:
    """`draw` for some blocks of units, outside the loop that needs all registers."""
    cdef Py_ssize_t b
    for b in range(first, end):
        draw(lottery, <uint32_t> b, of_blocks + b, kept + (b - first) * MASK_CELLS * DROPPED_VECTORS)


# Forward


cdef inline void lanes_units(
    const int n_in,  # these are constants at every call
    const int n_out,
    const int vectors,
    const bint drops,
    const Net *net, const Lanes *own, const Lottery *lottery, Py_ssize_t top, Py_ssize_t i,
) noexcept nogil:
    """Take some rows, from row i of the block that begins at ``top``, through both layers."""
    cdef const real_t *w1 = <const real_t *> net.stages[0].weights.values
    cdef const real_t *b1 = <const real_t *> net.stages[0].biases.values
    cdef const real_t *w2 = own.w
    cdef const real_t *b2 = <const real_t *> last_of(net).biases.values
    cdef real_t *h = own.h + i
    cdef vec x[MAX_ENDS * BATCHED_VECTORS]
    cdef vec z[MAX_ENDS * BATCHED_VECTORS]
    cdef lane_set kept[BATCHED_DRAWN * DROPPED_VECTORS]
    cdef vec unit[BATCHED_VECTORS]
    cdef vec weight, zero = v_all(0)
    cdef Py_ssize_t j, first = 0, end, units = own.units
    cdef int v, q
    for v in range(vectors):
        for q in range(n_in):
            x[q * vectors + v] = v_load(own.x + q * own.rows + top + i + v * LANES)
        for q in range(n_out):
            z[q * vectors + v] = v_all(b2[q])
    while first < units:
        end = min(units, first + BATCHED_DRAWN) if drops else units
        if drops:
            draw_units(lottery, own.first_rounds, first // MASK_CELLS, blocks_of(end), kept)
        for j in range(first, end):
            # Each weight is loaded once: after a store, the compiler would load it again.
            for v in range(vectors):
                unit[v] = v_all(b1[j])
            for q in range(n_in):
                weight = v_all(w1[q * units + j])
                for v in range(vectors):
                    unit[v] = v_madd(x[q * vectors + v], weight, unit[v])
            for v in range(vectors):
                unit[v] = v_max_in(kept[(j - first) * vectors + v], zero, unit[v]) if drops else v_max(zero, unit[v])
                v_store(h + v * LANES, unit[v])
            for q in range(n_out):
                weight = v_all(w2[j * n_out + q])
                for v in range(vectors):
                    z[q * vectors + v] = v_madd(unit[v], weight, z[q * vectors + v])
            h += own.line
        first = end
    for v in range(vectors):
        for q in range(n_out):
            v_store(own.z + q * own.line + i + v * LANES, z[q * vectors + v])


cdef inline void lanes_forward(
    const int n_in, const int n_out, const int vectors, const bint drops, const Net *net, const Lanes *own,
    uint64_t forwards, Py_ssize_t top, Py_ssize_t rows,
) noexcept nogil:
    """Take a block of rows, with its padding, through both layers."""
    cdef Lottery lottery
    cdef Py_ssize_t i = 0
    if drops:
        begin_lottery(&lottery, net.stages[1].keep, net.stages[1].seed, net.stages[1].forwards + forwards, own)
    while i + vectors * LANES <= rows:
        if drops:
            take_rows(&lottery, own.before + top + i)
        lanes_units(n_in, n_out, vectors, drops, net, own, &lottery, top, i)
        i += vectors * LANES
    if not drops:  # with dropout, `filled_up` has left no rest
        while i < rows:
            lanes_units(n_in, n_out, 1, False, net, own, &lottery, top, i)
            i += LANES


cdef inline void lanes_forward_into(
    const int n_in, const int n_out, const Net *net, const Lanes *own, uint64_t forwards, Py_ssize_t top,
    Py_ssize_t rows,
) noexcept nogil:
    """`lanes_forward` with as many vectors as registers can hold, with and without dropout."""
    if drops_of(net):
        lanes_forward(n_in, n_out, DROPPED_VECTORS, True, net, own, forwards, top, rows)
    elif n_out == 1 and n_in <= 2:
        lanes_forward(n_in, n_out, 4, False, net, own, forwards, top, rows)
    else:
        lanes_forward(n_in, n_out, 2, False, net, own, forwards, top, rows)


cdef inline void lanes_forward_from(
    const int n_in, const Net *net, const Lanes *own, uint64_t forwards, Py_ssize_t top, Py_ssize_t rows
) noexcept nogil:
    """`lanes_forward`, compiled for each number of outputs."""
    if net.n_out == 1:
        lanes_forward_into(n_in, 1, net, own, forwards, top, rows)
    elif net.n_out == 2:
        lanes_forward_into(n_in, 2, net, own, forwards, top, rows)
    elif net.n_out == 3:
        lanes_forward_into(n_in, 3, net, own, forwards, top, rows)
    else:
        lanes_forward_into(n_in, 4, net, own, forwards, top, rows)


cdef void lanes_forward_of(
    const Net *net, const Lanes *own, uint64_t forwards, Py_ssize_t top, Py_ssize_t rows
) noexcept nogil:
    """`lanes_forward`, compiled for each number of inputs."""
    if net.n_in == 1:
        lanes_forward_from(1, net, own, forwards, top, rows)
    elif net.n_in == 2:
        lanes_forward_from(2, net, own, forwards, top, rows)
    elif net.n_in == 3:
        lanes_forward_from(3, net, own, forwards, top, rows)
    else:
        lanes_forward_from(4, net, own, forwards, top, rows)


cdef Py_ssize_t lanes_judge(
    const Net *net, const Batch *batch, const Lanes *own, Py_ssize_t first, Py_ssize_t rows, char *scratch
) noexcept nogil:
    """Compute the losses of a block's rows, from `first` on, and their gradient. Return the hits."""
    cdef const Stage *last = &net.stages[net.n_stages - 1]
    cdef const void *targets = rows_of_targets(net, batch, first)
    cdef real_t *z = own.z
    cdef real_t *sample_losses = <real_t *> net.sample_losses + first
    cdef Py_ssize_t hits = 0
    if net.fused:
        hits = softmax_crossentropy(
            z, <const int32_t *> targets, z, own.d, sample_losses, rows, net.n_out, 1, own.line, batch.all_rows,
            net.loss_settings[0], net.loss_settings[1], row_hits_of(net, first), <real_t *> (scratch + PRODUCT_SCRATCH),
        )
    else:
        if net.combined:
            last.activation.run(FORWARD, z, NULL, z, rows, 1, last.settings, NULL)
        compute_loss(SAMPLE_LOSSES, net, z, targets, sample_losses, rows, batch.all_rows)
        compute_loss(PAIR_GRADIENT if net.combined else GRADIENT, net, z, targets, own.d, rows, batch.all_rows)
    if net.wanted is not NULL:  # then there is one output, and rows have their usual layout
        hits = hits_of_rows(net, batch, z, first, rows)
    if net.weights is not NULL:
        weigh_rows(net, batch, first, rows, own.d, 1, own.line)
    return hits


# Gradients and update


cdef inline void lanes_gradients(
    const int n_in,  # these are constants at every call
    const int n_out,
    const int count,
    const Lanes *own,
    Py_ssize_t j,
    Py_ssize_t top,
    Py_ssize_t rows,
    real_t *sums,  # (n_in + 1 + n_out, LANES, LANES) out, the first `count` lines of each
) noexcept nogil:
    """Sum up the gradients of `count` units' weights and biases over a block of rows, lane by lane."""
    cdef const real_t *w2 = own.w + j * n_out
    cdef const real_t *h = own.h + j * own.line
    cdef const real_t *x = own.x + top
    cdef Py_ssize_t kind = LANES * LANES, i = 0
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
            back[q * count + u] = v_all(w2[u * n_out + q])
    while i < rows:
        shared = v_load(own.d + i)
        for u in range(count):
            unit[u] = v_load(h + u * own.line + i)
            gradient[u] = v_mul(shared, back[u])
            of_w2[u] = v_madd(unit[u], shared, of_w2[u])
        for q in range(1, n_out):
            shared = v_load(own.d + q * own.line + i)
            for u in range(count):
                gradient[u] = v_madd(shared, back[q * count + u], gradient[u])
                of_w2[q * count + u] = v_madd(unit[u], shared, of_w2[q * count + u])
        for u in range(count):
            gradient[u] = v_where_not_zero(unit[u], gradient[u])
            of_bias[u] = v_add(of_bias[u], gradient[u])
        for q in range(n_in):
            shared = v_load(x + q * own.rows + i)
            for u in range(count):
                of_w1[q * count + u] = v_madd(gradient[u], shared, of_w1[q * count + u])
        i += LANES
    for u in range(count):
        for q in range(n_in):
            v_store(sums + q * kind + u * LANES, of_w1[q * count + u])
        v_store(sums + n_in * kind + u * LANES, of_bias[u])
        for q in range(n_out):
            v_store(sums + (n_in + 1 + q) * kind + u * LANES, of_w2[q * count + u])


cdef inline void lanes_backward(
    const int n_in, const int n_out, const Net *net, const Lanes *own, Py_ssize_t top, Py_ssize_t rows
) noexcept nogil:
    """Compute the gradients of all units over a block of rows. Numbers after the last unit have no meaning."""
    cdef real_t sums[(2 * MAX_ENDS + 1) * MOST_LANES * MOST_LANES]
    cdef real_t *result = own.sums + top // own.block * whole_lines((n_in + 1 + n_out) * own.padded)
    cdef vec scale = v_all(scale_of(net))
    cdef vec gradients
    cdef Py_ssize_t first = 0, j, end
    cdef int kind
    if own.units < own.padded:
        memset(sums, 0, sizeof(sums))
    while first < own.units:
        j, end = first, min(own.units, first + LANES)
        # Two units at a time if all their sums fit the registers. With one output, that saves 0.6 of 5.5 µs. With three
        # outputs, it costs 1.4 µs with 16 registers, and saves 0.6 of 7.6 µs with 32. Tiles have eight rows with 32
        # registers.
        while (n_in + n_out <= 3 or TILE_ROWS == 8) and j + 2 <= end:
            lanes_gradients(n_in, n_out, 2, own, j, top, rows, sums + (j - first) * LANES)
            j += 2
        while j < end:
            lanes_gradients(n_in, n_out, 1, own, j, top, rows, sums + (j - first) * LANES)
            j += 1
        for kind in range(n_in + 1 + n_out):
            gradients = sums_of_lanes(sums + kind * LANES * LANES)
            if kind > n_in:
                gradients = v_mul(gradients, scale)
            v_store(result + kind * own.padded + first, gradients)
        first += LANES


cdef inline void lanes_backward_from(
    const int n_in, const Net *net, const Lanes *own, Py_ssize_t top, Py_ssize_t rows
) noexcept nogil:
    """`lanes_backward`, compiled for each number of outputs."""
    if net.n_out == 1:
        lanes_backward(n_in, 1, net, own, top, rows)
    elif net.n_out == 2:
        lanes_backward(n_in, 2, net, own, top, rows)
    elif net.n_out == 3:
        lanes_backward(n_in, 3, net, own, top, rows)
    else:
        lanes_backward(n_in, 4, net, own, top, rows)


cdef void lanes_backward_of(const Net *net, const Lanes *own, Py_ssize_t top, Py_ssize_t rows) noexcept nogil:
    """`lanes_backward`, compiled for each number of inputs."""
    if net.n_in == 1:
        lanes_backward_from(1, net, own, top, rows)
    elif net.n_in == 2:
        lanes_backward_from(2, net, own, top, rows)
    elif net.n_in == 3:
        lanes_backward_from(3, net, own, top, rows)
    else:
        lanes_backward_from(4, net, own, top, rows)


cdef inline vec sums_of_lanes(const real_t *vectors) noexcept nogil:
    """Return the sum over the lanes of each of LANES vectors."""
    cdef vec square[MOST_LANES]
    cdef int l
    for l in range(LANES):
        square[l] = v_load(vectors + l * LANES)
    return v_lane_sums(square)


# The two phases


cdef void take_x(
    const Net *net, const Batch *batch, const Lanes *own, Py_ssize_t first, Py_ssize_t rows, Py_ssize_t filled
) noexcept nogil:
    """Transpose some rows of X. The padding is 0."""
    cdef const real_t *X = rows_of_X(net, batch, first)
    cdef Py_ssize_t i, q
    for q in range(net.n_in):
        for i in range(rows):
            own.x[q * own.rows + first + i] = X[i * net.n_in + q]
        for i in range(rows, filled):
            own.x[q * own.rows + first + i] = 0


cdef Py_ssize_t lanes_block(
    const Net *net, const Batch *batch, const Lanes *own, Py_ssize_t block, char *scratch
) noexcept nogil:
    """Take a block of rows forward, through the loss and back. Return the hits."""
    cdef Py_ssize_t first = block * own.block
    cdef Py_ssize_t rows = min(own.block, batch.rows - first), filled = filled_up(net, rows)
    cdef Py_ssize_t hits, i, q
    if batch.order is not NULL:
        gather(net, batch, first, rows)
    if not batch.again:
        take_x(net, batch, own, first, rows, filled)
    lanes_forward_of(net, own, batch.forwards, first, filled)
    hits = lanes_judge(net, batch, own, first, rows, scratch)
    for q in range(net.n_out):
        for i in range(rows, filled):  # these count in no sum
            own.d[q * own.line + i] = 0
        # In double: a sum in another order than row after row would change the spiral's published figures.
        own.bias_sums[block * net.n_out + q] = total(own.d + q * own.line, filled)
    lanes_backward_of(net, own, first, (rows + LANES - 1) // LANES * LANES)
    return hits


cdef void lanes_first_phase(const Net *net, const Batch *batch, int thread, char *scratch) noexcept nogil:
    """Take a thread's blocks of rows forward and back."""
    cdef Lanes own = lanes_arrays(net, net.batch, <char *> net.lanes_space, thread)
    cdef Py_ssize_t blocks = (batch.rows + own.block - 1) // own.block
    cdef Py_ssize_t block = blocks * thread // net.progress.n_threads
    cdef Py_ssize_t end = blocks * (thread + 1) // net.progress.n_threads, hits = 0
    cdef const real_t *weights = <const real_t *> last_of(net).weights.values
    cdef real_t scale = scale_of(net)
    cdef Py_ssize_t j
    own.before = batch.before
    if drops_of(net) and block < end:
        for j in range(own.units * net.n_out):
            own.scaled[j] = weights[j] * scale
        own.w = own.scaled
    else:
        own.w = weights
    while block < end:
        hits += lanes_block(net, batch, &own, block, scratch)
        block += 1
    net.progress.hits[thread * 8] = hits


cdef void lanes_second_phase(
    const Net *net, const Batch *batch, const vec *constants, int thread, char *scratch
) noexcept nogil:
    """Add up the gradients of a thread's hidden units, block after block, and update their weights and biases."""
    cdef Lanes own = lanes_arrays(net, net.batch, <char *> net.lanes_space, 0)
    cdef Py_ssize_t blocks = (batch.rows + own.block - 1) // own.block, b
    cdef Py_ssize_t vectors = own.padded // LANES, n_in = net.n_in, n_out = net.n_out
    cdef Py_ssize_t first = vectors * thread // net.progress.n_threads * LANES
    cdef Py_ssize_t end = min(vectors * (thread + 1) // net.progress.n_threads * LANES, own.units)
    cdef Py_ssize_t apart = whole_lines((n_in + 1 + n_out) * own.padded), kind, j
    cdef Stage *hidden = &net.stages[0]
    cdef Stage *last = <Stage *> last_of(net)
    cdef real_t *gradients = <real_t *> (scratch + PRODUCT_SCRATCH)
    cdef const real_t *sums
    cdef vec gradient
    cdef double of_bias
    for kind in range(n_in + 1 + n_out if first < end else 0):
        j = first
        while j < end:
            sums = own.sums + kind * own.padded + j
            gradient = v_load(sums)
            for b in range(1, blocks):
                gradient = v_add(gradient, v_load(sums + b * apart))
            if kind <= n_in:
                v_store(gradients + j - first, gradient)
            else:
                v_scatter(gradients + (j - first) * n_out + kind - n_in - 1, n_out, gradient, LANES)
            j += LANES
        if kind < n_in:
            train_values(net, &hidden.weights, kind * own.units + first, gradients, end - first, True, constants)
        elif kind == n_in:
            train_values(net, &hidden.biases, first, gradients, end - first, True, constants + biases_at(net))
    if first < end:
        train_values(net, &last.weights, first * n_out, gradients, (end - first) * n_out, True, constants)
    if thread == 0:
        for kind in range(n_out):
            of_bias = 0
            for b in range(blocks):
                of_bias += own.bias_sums[b * n_out + kind]
            gradients[kind] = <real_t> of_bias
        train_values(net, &last.biases, 0, gradients, n_out, True, constants + biases_at(net))
