# Dropout's mask: Philox4x32-7 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), many counters at
# a time.

cdef enum:
    COUNTERS = 64  # the four arrays of words, 2 KB, stay in L1


cdef void philox4x32_7(
    uint64_t x[4][COUNTERS],  # in and out: counters, then words, in the lower halves
    uint64_t key,
) noexcept nogil:
    """Seven rounds: each multiplies two words, and exchanges halves of the products under the key."""
    cdef words block[4]
    cdef uint32_t key0, key1
    cdef int i = 0, r, w
    while i < COUNTERS:
        key0, key1 = <uint32_t> key, <uint32_t> (key >> 32)
        for w in range(4):
            block[w] = load_words(&x[w][i])
        for r in range(7):
            philox_round(block, key0, key1)
            key0 += <uint32_t> 0x9E3779B9
            key1 += <uint32_t> 0xBB67AE85
        for w in range(4):
            store_words(&x[w][i], block[w])
        i += WORD_LANES


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

    The cells of columns 4b to 4b+3 in row i take the four words for the counter (b, i, forwards mod 2³², forwards div
    2³²) under the key ``seed``: a cell is kept if its word is below ``keep``·2³², rounded.
    """
    cdef uint64_t x[4][COUNTERS]
    cdef uint64_t threshold = <uint64_t> rint(keep * 4294967296.0)
    cdef uint32_t limit = <uint32_t> (threshold - 1)  # kept up to here: 2³² itself has 33 bits
    cdef real_t scale = <real_t> (1 / keep)
    cdef Py_ssize_t blocks = (columns + 3) // 4
    cdef Py_ssize_t n = rows * blocks
    cdef Py_ssize_t row = first, block = 0, start = 0
    cdef int i, r, run
    if threshold == 0:
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
        if columns % 4 == 0 and start + COUNTERS <= n:
            for i in range(COUNTERS):
                mask[4 * i] = scale if <uint32_t> x[0][i] <= limit else 0
                mask[4 * i + 1] = scale if <uint32_t> x[1][i] <= limit else 0
                mask[4 * i + 2] = scale if <uint32_t> x[2][i] <= limit else 0
                mask[4 * i + 3] = scale if <uint32_t> x[3][i] <= limit else 0
            mask += 4 * COUNTERS
        else:
            mask = ragged_mask(x, mask, scale, limit, start, min(<Py_ssize_t> COUNTERS, n - start), columns)
        start += COUNTERS


cdef real_t *ragged_mask(
    uint64_t x[4][COUNTERS], real_t *mask, real_t scale, uint32_t limit, Py_ssize_t start, Py_ssize_t count,
    Py_ssize_t columns,
) noexcept nogil:
    """Write the cells of some blocks, of which a row's last may have fewer than four; return where the next ones go."""
    cdef Py_ssize_t blocks = (columns + 3) // 4
    cdef Py_ssize_t i, cells
    cdef int w
    for i in range(count):
        cells = min(<Py_ssize_t> 4, columns - 4 * ((start + i) % blocks))
        for w in range(cells):
            mask[w] = scale if <uint32_t> x[w][i] <= limit else 0
        mask += cells
    return mask
