# Normally distributed noise, by Box and Muller ("A note on the generation of random normal deviates", 1958): two words
# give a radius and an angle, and these give two numbers.

cdef enum:
    TERMS = 8  # of the series of sine and cosine, up to an eighth of a turn


cdef double SINE[TERMS]  # coefficients of x, x³, x⁵, …
cdef double COSINE[TERMS + 1]  # of 1, x², x⁴, …


cdef void fill_series() noexcept:
    cdef double factorial = 1
    cdef int k
    COSINE[0] = 1
    for k in range(TERMS):
        SINE[k] = (-1 if k % 2 else 1) / (factorial * (2 * k + 1))
        factorial *= (2 * k + 1) * (2 * k + 2)
        COSINE[k + 1] = (1 if k % 2 else -1) / factorial


fill_series()


cdef inline void sine_and_cosine(vec x, vec *sine, vec *cosine) noexcept nogil:
    """Sine and cosine of an angle between −π/4 and π/4."""
    cdef vec square = v_mul(x, x)
    cdef int k
    sine[0], cosine[0] = v_all(<real_t> SINE[TERMS - 1]), v_all(<real_t> COSINE[TERMS])
    for k in range(TERMS - 2, -1, -1):
        sine[0] = v_madd(sine[0], square, v_all(<real_t> SINE[k]))
    sine[0] = v_mul(sine[0], x)
    for k in range(TERMS - 1, -1, -1):
        cosine[0] = v_madd(cosine[0], square, v_all(<real_t> COSINE[k]))


cdef void normal_pairs(
    const uint64_t *first,  # (COUNTERS,) in: words, in the lower halves
    const uint64_t *second,
    double deviation,
    real_t *with_cosine,  # (COUNTERS,) out
    real_t *with_sine,  # (COUNTERS,) out
) noexcept nogil:
    """Make two normal numbers from each pair of words."""
    cdef real_t turns[COUNTERS]
    cdef int quarters[COUNTERS]
    cdef vec radius, sine, cosine
    cdef real_t a, b
    cdef int i, word
    for i in range(COUNTERS):
        with_cosine[i] = <real_t> (<int> (<uint32_t> first[i] >> 8) + 1) * <real_t> (1.0 / 16777216)
        # The angle's nearest quarter turn, and the rest of the angle: all exact.
        word = <int> (<uint32_t> second[i] >> 8)
        quarters[i] = (word + 2097152) >> 22
        turns[i] = <real_t> (word - (quarters[i] << 22)) * <real_t> (6.283185307179586 / 16777216)
    i = 0
    while i < COUNTERS:
        radius = v_sqrt(v_mul(v_log(v_load(with_cosine + i)), v_all(-2)))
        radius = v_mul(radius, v_all(<real_t> deviation))
        sine_and_cosine(v_load(turns + i), &sine, &cosine)
        v_store(with_cosine + i, v_mul(radius, cosine))
        v_store(with_sine + i, v_mul(radius, sine))
        i += LANES
    for i in range(COUNTERS):
        a, b = with_cosine[i], with_sine[i]
        if quarters[i] & 1:
            a, b = -b, a
        if quarters[i] & 2:
            a, b = -a, -b
        with_cosine[i], with_sine[i] = a, b


cdef void gaussian_noise(
    real_t *noise,  # (rows, columns) out
    Py_ssize_t first,  # the first row's number
    Py_ssize_t rows,
    Py_ssize_t columns,
    double deviation,
    uint64_t seed,
    uint64_t forwards,
) noexcept nogil:
    """Fill an array with normal numbers of mean 0.

    Counters are like those of `dropout_mask`, but under another key, so a dropout layer with the same seed has other
    words. The elements of columns 4b to 4b+3 use the pairs of a counter's first two and last two words.
    """
    cdef uint64_t x[4][COUNTERS]
    cdef real_t cells[4][COUNTERS]
    cdef Py_ssize_t blocks = (columns + 3) // 4
    cdef Py_ssize_t n = rows * blocks, start = 0, row, block, at
    cdef int i, w
    while start < n:
        for i in range(COUNTERS):
            row, block = (start + i) // blocks, (start + i) % blocks
            x[0][i], x[1][i], x[2][i], x[3][i] = block, first + row, forwards, forwards >> 32
        philox4x32_7(x, seed ^ <uint64_t> 0x9E3779B97F4A7C15)
        normal_pairs(x[0], x[1], deviation, cells[0], cells[1])
        normal_pairs(x[2], x[3], deviation, cells[2], cells[3])
        for i in range(<int> min(<Py_ssize_t> COUNTERS, n - start)):
            row, block = (start + i) // blocks, (start + i) % blocks
            at = row * columns + 4 * block
            for w in range(<int> min(<Py_ssize_t> 4, columns - 4 * block)):
                noise[at + w] = cells[w][i]
        start += COUNTERS
