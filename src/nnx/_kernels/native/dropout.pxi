# Dropout's mask: Philox4x32-7 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), so many counters at a
# time that every compiler makes vectors of the loops.

cdef enum:
    COUNTERS = 64  # arrays of 64 words: the four of them and their products stay in level 1


cdef void philox4x32_7(
    uint32_t *x0, uint32_t *x1, uint32_t *x2, uint32_t *x3,  # (COUNTERS,) in and out: counters, then words
    uint64_t key,
) noexcept nogil:
    """Seven rounds: each multiplies two words, and exchanges halves of the products under the key."""
    cdef uint32_t key0 = <uint32_t> key, key1 = <uint32_t> (key >> 32)
    cdef uint64_t product0, product1
    cdef int i, r
    for r in range(7):
        for i in range(COUNTERS):
            product0 = <uint64_t> x0[i] * <uint64_t> 0xD2511F53
            product1 = <uint64_t> x2[i] * <uint64_t> 0xCD9E8D57
            x0[i] = <uint32_t> (product1 >> 32) ^ x1[i] ^ key0
            x1[i] = <uint32_t> product1
            x2[i] = <uint32_t> (product0 >> 32) ^ x3[i] ^ key1
            x3[i] = <uint32_t> product0
        key0 += <uint32_t> 0x9E3779B9
        key1 += <uint32_t> 0xBB67AE85


cdef void dropout_mask(
    real_t *mask,  # (rows, columns) out
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
    cdef uint32_t words[4][COUNTERS]
    cdef uint64_t threshold = <uint64_t> rint(keep * 4294967296.0)
    cdef uint32_t limit = <uint32_t> (threshold - 1)  # kept up to here: 2³² itself has 33 bits
    cdef real_t scale = <real_t> (1 / keep)
    cdef Py_ssize_t blocks = (columns + 3) // 4
    cdef Py_ssize_t n = rows * blocks
    cdef Py_ssize_t row = 0, block = 0, start = 0
    cdef int i
    if threshold == 0:
        memset(mask, 0, rows * columns * sizeof(real_t))
        return
    while start < n:
        for i in range(COUNTERS):
            words[0][i], words[1][i] = <uint32_t> block, <uint32_t> row
            words[2][i], words[3][i] = <uint32_t> forwards, <uint32_t> (forwards >> 32)
            block += 1
            if block == blocks:
                block, row = 0, row + 1
        philox4x32_7(words[0], words[1], words[2], words[3], seed)
        if columns % 4 == 0 and start + COUNTERS <= n:
            for i in range(COUNTERS):
                mask[4 * i] = scale if words[0][i] <= limit else 0
                mask[4 * i + 1] = scale if words[1][i] <= limit else 0
                mask[4 * i + 2] = scale if words[2][i] <= limit else 0
                mask[4 * i + 3] = scale if words[3][i] <= limit else 0
            mask += 4 * COUNTERS
        else:
            mask = ragged_mask(words, mask, scale, limit, start, min(<Py_ssize_t> COUNTERS, n - start), columns)
        start += COUNTERS


cdef real_t *ragged_mask(
    uint32_t words[4][COUNTERS], real_t *mask, real_t scale, uint32_t limit, Py_ssize_t start, Py_ssize_t count,
    Py_ssize_t columns,
) noexcept nogil:
    """Write the cells of some blocks, of which a row's last may have fewer than four; return where the next ones go."""
    cdef Py_ssize_t blocks = (columns + 3) // 4
    cdef Py_ssize_t i, cells
    cdef int w
    for i in range(count):
        cells = min(<Py_ssize_t> 4, columns - 4 * ((start + i) % blocks))
        for w in range(cells):
            mask[w] = scale if words[w][i] <= limit else 0
        mask += cells
    return mask
