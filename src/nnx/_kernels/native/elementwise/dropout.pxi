# Dropout's mask: Philox4x32-7 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), many counters at a
# time. An element's number has 32 bits, but the upper 16 decide alone for all but one of 65,536 elements. Only there
# are the lower bits drawn. So a block of four words serves eight elements, and masks take half the time.

cdef enum:
    COUNTERS = 64  # the four arrays of words, 2 KB, stay in L1
    STREAMS = 2  # vectors of counters in the rounds side by side, because each waits for its products
    MASK_CELLS = 8  # elements that a block of words serves


cdef void philox4x32_7(
    uint64_t x[4][COUNTERS],  # in and out: counters, then words, in the lower halves
    uint64_t key,
) noexcept nogil:
    """Seven rounds. Each multiplies two words, and exchanges halves of the products under the key."""
    cdef words block[4 * STREAMS]
    cdef words key0[7]
    cdef words key1[7]
    cdef int i = 0, r, s, w
    for r in range(7):
        key0[r] = all_words(<uint32_t> key + <uint32_t> r * <uint32_t> 0x9E3779B9)
        key1[r] = all_words(<uint32_t> (key >> 32) + <uint32_t> r * <uint32_t> 0xBB67AE85)
    while i < COUNTERS:
        for s in range(STREAMS):
            for w in range(4):
                block[4 * s + w] = load_words(&x[w][i + s * WORD_LANES])
        for r in range(7):
            for s in range(STREAMS):
                philox_round(block + 4 * s, key0[r], key1[r])
        for s in range(STREAMS):
            for w in range(4):
                store_words(&x[w][i + s * WORD_LANES], block[4 * s + w])
        i += STREAMS * WORD_LANES


cdef void philox_block(
    uint32_t x[4],  # in and out: a counter, then its words
    uint64_t key,
) noexcept nogil:
    """`philox4x32_7` for a single counter."""
    cdef uint32_t key0 = <uint32_t> key, key1 = <uint32_t> (key >> 32)
    cdef uint64_t a, b
    cdef int r
    for r in range(7):
        a, b = <uint64_t> x[0] * <uint64_t> 0xD2511F53, <uint64_t> x[2] * <uint64_t> 0xCD9E8D57
        x[0], x[1] = <uint32_t> (b >> 32) ^ x[1] ^ key0, <uint32_t> b
        x[2], x[3] = <uint32_t> (a >> 32) ^ x[3] ^ key1, <uint32_t> a
        key0 += <uint32_t> 0x9E3779B9
        key1 += <uint32_t> 0xBB67AE85


cdef inline uint32_t half_of(const uint32_t *x, Py_ssize_t half) noexcept nogil:
    """Return a half of one of the words. Halves are counted from the lower half of the first word."""
    return x[half // 2] >> <uint32_t> (16 * (half % 2)) & <uint32_t> 0xFFFF


cdef struct Limit:
    # An element is kept if its number is at most this. An excluded bound could be 2³², which has 33 bits.
    bint any  # False if no element is kept
    uint32_t upper
    uint32_t lower


cdef inline Limit limit_of(double keep) noexcept nogil:
    """Return the largest number of kept elements, for the fraction ``keep`` of them, rounded to 1/2³²."""
    cdef uint64_t threshold = <uint64_t> rint(keep * 4294967296.0)
    cdef uint32_t last = <uint32_t> (threshold - 1)
    cdef Limit limit
    limit.any, limit.upper, limit.lower = threshold > 0, last >> 16, last & <uint32_t> 0xFFFF
    return limit


cdef bint is_kept_by_lower(
    const Limit *limit, Py_ssize_t block, Py_ssize_t row, int cell, uint64_t seed, uint64_t forwards
) noexcept nogil:
    """Return whether an element is kept if its upper half equals the limit's."""
    cdef uint32_t x[4]
    x[0], x[1] = <uint32_t> block + <uint32_t> 0x80000000, <uint32_t> row
    x[2], x[3] = <uint32_t> forwards, <uint32_t> (forwards >> 32)
    philox_block(x, seed)
    return half_of(x, cell) <= limit.lower


cdef void dropout_mask(
    real_t *mask,  # (rows, columns) out
    Py_ssize_t first,  # the first row's number
    Py_ssize_t rows,
    Py_ssize_t columns,
    double keep,
    uint64_t seed,
    uint64_t forwards,
) noexcept nogil:
    """Fill the mask with ``1/keep`` with probability ``keep``, else 0.

    The elements of columns 8b to 8b+7 in row i have numbers of 32 bits. Their upper halves are the eight halves of the
    four words for the counter (b, i, forwards mod 2³², forwards div 2³²) under the key ``seed``. Their lower halves are
    those for (b + 2³¹, …). An element is kept if its number is below ``keep``·2³², rounded.
    """
    cdef uint64_t x[4][COUNTERS]
    cdef uint32_t drawn[4 * COUNTERS]
    cdef real_t cells[MASK_CELLS * COUNTERS]
    cdef Limit limit = limit_of(keep)
    cdef real_t scale = <real_t> (1 / keep)
    cdef Py_ssize_t blocks = (columns + MASK_CELLS - 1) // MASK_CELLS
    cdef Py_ssize_t n = rows * blocks
    cdef Py_ssize_t row = first, block = 0, start = 0, count, at, k
    cdef real_t *target
    cdef int i, r, run
    cdef bint whole
    if not limit.any:
        memset(mask, 0, rows * columns * sizeof(real_t))
        return
    while start < n:
        i = 0
        while i < COUNTERS:
            run = <int> min(<Py_ssize_t> (COUNTERS - i), blocks - block)
            for r in range(i, i + run):
                x[0][r], x[1][r], x[2][r], x[3][r] = block + (r - i), row, forwards, forwards >> 32
            i += run
            block += run
            if block == blocks:
                block, row = 0, row + 1
        philox4x32_7(x, seed)
        for i in range(COUNTERS):
            drawn[4 * i], drawn[4 * i + 1] = <uint32_t> x[0][i], <uint32_t> x[1][i]
            drawn[4 * i + 2], drawn[4 * i + 3] = <uint32_t> x[2][i], <uint32_t> x[3][i]
        whole = columns % MASK_CELLS == 0 and start + COUNTERS <= n
        target = mask if whole else cells
        if kept_by_upper(drawn, limit.upper, scale, target):
            for k in range(MASK_CELLS * COUNTERS):
                if half_of(drawn, k) == limit.upper:
                    at = start + k // MASK_CELLS
                    target[k] = scale if is_kept_by_lower(
                        &limit, at % blocks, first + at // blocks, k % MASK_CELLS, seed, forwards
                    ) else 0
        count = min(<Py_ssize_t> COUNTERS, n - start)
        mask = mask + MASK_CELLS * COUNTERS if whole else ragged_cells(cells, mask, start, count, columns)
        start += COUNTERS


cdef bint kept_by_upper(
    const uint32_t *drawn,  # (COUNTERS, 4) in
    uint32_t limit,
    real_t scale,
    real_t *cells,  # (COUNTERS, MASK_CELLS) out
) noexcept nogil:
    """Write ``scale`` where half a word is below the limit, else 0. Return whether one equals the limit."""
    cdef uint32_t upper, lower, ties = 0
    cdef int k
    for k in range(4 * COUNTERS):
        lower, upper = drawn[k] & <uint32_t> 0xFFFF, drawn[k] >> 16
        cells[2 * k] = scale if lower < limit else 0
        cells[2 * k + 1] = scale if upper < limit else 0
        ties |= <uint32_t> (lower == limit) | <uint32_t> (upper == limit)
    return ties


cdef real_t *ragged_cells(
    const real_t *cells, real_t *mask, Py_ssize_t start, Py_ssize_t count, Py_ssize_t columns
) noexcept nogil:
    """Copy the elements of some blocks; the last block of a row may be shorter. Return where the next ones go."""
    cdef Py_ssize_t blocks = (columns + MASK_CELLS - 1) // MASK_CELLS
    cdef Py_ssize_t i, n
    for i in range(count):
        n = min(<Py_ssize_t> MASK_CELLS, columns - MASK_CELLS * ((start + i) % blocks))
        memcpy(mask, cells + MASK_CELLS * i, n * sizeof(real_t))
        mask += n
    return mask
