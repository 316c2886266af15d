# Loops over all elements of an array, written once. A formula is a function on vectors that is inlined into them. The
# end of an array goes through the same formula in a padded vector, so an element's bits do not depend on its position.

ctypedef vec (*formula_of_one)(vec) noexcept nogil
ctypedef vec (*formula_of_two)(vec, vec, vec) noexcept nogil


cdef inline void map_one(
    formula_of_one formula,
    const real_t *x,  # (n,) in
    real_t *result,  # (n,) out; may be x
    Py_ssize_t n,
) noexcept nogil:
    """``result := formula(x)``; the end of the array goes through the same formula in a padded vector."""
    cdef Py_ssize_t i, whole = n // LANES
    cdef int rest = <int> (n % LANES)
    for i in range(whole):
        v_store(result + i * LANES, formula(v_load(x + i * LANES)))
    if rest:
        i = whole * LANES
        v_store_part(result + i, formula(v_load_part(x + i, rest)), rest)


cdef inline void map_two(
    formula_of_two formula,
    const real_t *x,  # (n,) in
    const real_t *y,  # (n,) in
    real_t constant,
    real_t *result,  # (n,) out; may be x or y
    Py_ssize_t n,
) noexcept nogil:
    """``result := formula(x, y, constant)``."""
    cdef vec everywhere = v_all(constant)
    cdef Py_ssize_t i, whole = n // LANES
    cdef int rest = <int> (n % LANES)
    for i in range(whole):
        v_store(result + i * LANES, formula(v_load(x + i * LANES), v_load(y + i * LANES), everywhere))
    if rest:
        i = whole * LANES
        v_store_part(result + i, formula(v_load_part(x + i, rest), v_load_part(y + i, rest), everywhere), rest)


cdef inline vec product_of(vec x, vec y, vec unused) noexcept nogil:
    return v_mul(x, y)


cdef void multiply(const real_t *x, const real_t *y, real_t *result, Py_ssize_t n) noexcept nogil:
    """``result := x × y``; (n,), result may be either."""
    map_two(product_of, x, y, 0, result, n)


cdef inline vec sum_of_two(vec x, vec y, vec unused) noexcept nogil:
    return v_add(x, y)


cdef void add(const real_t *x, const real_t *y, real_t *result, Py_ssize_t n) noexcept nogil:
    """``result := x + y``; (n,), result may be either."""
    map_two(sum_of_two, x, y, 0, result, n)


cdef void copy(const real_t *x, real_t *result, Py_ssize_t n) noexcept nogil:
    """``result := x``; (n,), which may be the same."""
    if result != x:
        memmove(result, x, n * sizeof(real_t))


cdef inline void load_settings(vec *everywhere, const double *settings) noexcept nogil:
    """Put each of a formula's settings into all lanes of a vector. Settings that it does not use cost nothing."""
    cdef int k
    for k in range(MAX_SETTINGS):
        everywhere[k] = v_all(<real_t> settings[k])


# Sums


cdef enum:
    PLAIN, ABSOLUTE, SQUARED  # the term of the sum for each number
    SUM_BLOCK = 8192


cdef inline double sum_of(const int what, const real_t *values, Py_ssize_t n) noexcept nogil:
    """Return the sum in double, in blocks, so that its rounding does not grow with n; values (n,) in."""
    cdef double sums[MOST_LANES]
    cdef double block, result = 0
    cdef Py_ssize_t i, whole, start = 0
    cdef vec x
    cdef int l
    while start < n:
        whole = min(<Py_ssize_t> SUM_BLOCK, n - start)
        for l in range(LANES):
            sums[l] = 0
        i = 0
        while i < whole:
            x = v_load(values + start + i) if whole - i >= LANES else v_load_part(values + start + i, <int> (whole - i))
            if what == SQUARED:
                v_add_square_to(sums, x)
            else:
                v_add_to(sums, v_abs(x) if what == ABSOLUTE else x)
            i += LANES
        block = 0
        for l in range(LANES):
            block += sums[l]
        result += block
        start += whole
    return result


cdef double regularization_loss(const real_t *values, Py_ssize_t n, double l1, double l2) noexcept nogil:
    """Return ``l1·Σ|v| + l2·Σv²``, summed in double; values (n,) in."""
    cdef double loss = 0
    if l1:
        loss += l1 * sum_of(ABSOLUTE, values, n)
    if l2:
        loss += l2 * sum_of(SQUARED, values, n)
    return loss


cdef double total(const real_t *values, Py_ssize_t n) noexcept nogil:
    """Return ``Σ values``, summed in double; values (n,) in."""
    return sum_of(PLAIN, values, n)


cdef Py_ssize_t not_finite(const real_t *values, Py_ssize_t n) noexcept nogil:
    """Return the position of the first NaN or infinity, −1 if there is none; values (n,) in."""
    cdef Py_ssize_t start = 0, end, i
    cdef vec sums
    cdef real_t lanes[MOST_LANES]
    cdef real_t zero
    cdef int l
    while start < n:
        end = min(n, start + SUM_BLOCK)
        # x − x is 0 for finite numbers, else NaN.
        sums = v_all(0)
        i = start
        while i + LANES <= end:
            sums = v_add(sums, v_sub(v_load(values + i), v_load(values + i)))
            i += LANES
        v_store(lanes, sums)
        zero = 0
        for l in range(LANES):
            zero += lanes[l]
        for i in range(i, end):
            zero += values[i] - values[i]
        if zero != 0:
            for i in range(start, end):
                if values[i] - values[i] != 0:
                    return i
        start = end
    return -1
