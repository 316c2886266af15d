# Kernels that treat each number alone, whatever the shape: activations, dropout's application, gradients of losses.
# Then sums over all of them. Each is a formula of vectors; the loops are written once.

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


# Activations


cdef inline vec relu_of(vec x) noexcept nogil:
    """max(0, x), NaN for NaN."""
    return v_select(v_at_most(x, v_all(0)), v_all(0), x)


cdef inline vec relu_gradient(vec x, vec d, vec unused) noexcept nogil:
    return v_select(v_at_most(x, v_all(0)), v_all(0), d)


cdef inline vec sigmoid_of(vec x) noexcept nogil:
    """1 / (1 + exp(−x)), with exp(−|x|), which cannot overflow."""
    cdef vec decay = v_exp(v_sub(v_all(0), v_abs(x)))
    return v_div(v_select(v_greater(v_all(0), x), decay, v_all(1)), v_add(v_all(1), decay))


cdef inline vec sigmoid_gradient(vec output, vec d, vec unused) noexcept nogil:
    return v_mul(v_mul(v_sub(v_all(1), output), output), d)


cdef inline vec product_of(vec x, vec y, vec unused) noexcept nogil:
    return v_mul(x, y)


cdef void relu_forward(const real_t *inputs, real_t *output, Py_ssize_t n) noexcept nogil:
    """``output := max(0, inputs)``; (n,) in, (n,) out, which may be inputs."""
    map_one(relu_of, inputs, output, n)


cdef void relu_backward(const real_t *inputs, const real_t *dvalues, real_t *dinputs, Py_ssize_t n) noexcept nogil:
    """``dinputs := dvalues`` where not inputs <= 0, else 0; (n,), dinputs may be either."""
    map_two(relu_gradient, inputs, dvalues, 0, dinputs, n)


cdef void sigmoid_forward(const real_t *inputs, real_t *output, Py_ssize_t n) noexcept nogil:
    """``output := 1 / (1 + exp(−inputs))``; (n,) in, (n,) out, which may be inputs."""
    map_one(sigmoid_of, inputs, output, n)


cdef void sigmoid_backward(const real_t *output, const real_t *dvalues, real_t *dinputs, Py_ssize_t n) noexcept nogil:
    """``dinputs := dvalues·(1 − output)·output``; (n,), dinputs may be either."""
    map_two(sigmoid_gradient, output, dvalues, 0, dinputs, n)


cdef void linear_backward(const real_t *dvalues, real_t *dinputs, Py_ssize_t n) noexcept nogil:
    """``dinputs := dvalues``; (n,), which may be the same."""
    memmove(dinputs, dvalues, n * sizeof(real_t))


cdef void dropout_apply(const real_t *values, const real_t *kept, real_t *output, Py_ssize_t n) noexcept nogil:
    """``output := values × mask``; (n,), output may be either."""
    map_two(product_of, values, kept, 0, output, n)


# Gradients of losses


cdef inline vec clipped(vec p) noexcept nogil:
    """p kept within [1e-7, 1 − 1e-7], NaN for NaN."""
    return v_min(v_all(<real_t> (1 - 1e-7)), v_max(v_all(<real_t> 1e-7), p))


cdef inline vec binary_crossentropy_gradient(vec p, vec y, vec size) noexcept nogil:
    cdef vec c = clipped(p)
    cdef vec one = v_all(1)
    return v_div(v_sub(v_div(v_sub(one, y), v_sub(one, c)), v_div(y, c)), size)


cdef inline vec difference_gradient(vec p, vec y, vec scale) noexcept nogil:
    return v_mul(v_sub(p, y), scale)


cdef inline vec sign_gradient(vec p, vec y, vec scale) noexcept nogil:
    cdef vec d = v_sub(p, y)
    cdef vec zero = v_all(0)
    return v_select(v_greater(d, zero), scale, v_select(v_greater(zero, d), v_sub(zero, scale), d))


cdef void binary_crossentropy_backward(
    const real_t *y_pred, const real_t *y_true, real_t *dinputs, Py_ssize_t n
) noexcept nogil:
    """``dinputs := −(y/p − (1 − y)/(1 − p)) / n``, p clipped; (n,) for n cells in all."""
    map_two(binary_crossentropy_gradient, y_pred, y_true, <real_t> n, dinputs, n)


cdef void sigmoid_binary_crossentropy_backward(
    const real_t *output, const real_t *y_true, real_t *dinputs, Py_ssize_t n
) noexcept nogil:
    """``dinputs := (output − y) / n``; (n,) for n cells in all."""
    map_two(difference_gradient, output, y_true, <real_t> (1.0 / n), dinputs, n)


cdef void mean_squared_error_backward(
    const real_t *y_pred, const real_t *y_true, real_t *dinputs, Py_ssize_t n
) noexcept nogil:
    """``dinputs := 2·(p − y) / n``; (n,) for n cells in all."""
    map_two(difference_gradient, y_pred, y_true, <real_t> (2.0 / n), dinputs, n)


cdef void mean_absolute_error_backward(
    const real_t *y_pred, const real_t *y_true, real_t *dinputs, Py_ssize_t n
) noexcept nogil:
    """``dinputs := sign(p − y) / n``; (n,) for n cells in all."""
    map_two(sign_gradient, y_pred, y_true, <real_t> (1.0 / n), dinputs, n)


# Sums


cdef enum:
    PLAIN, ABSOLUTE, SQUARED  # what of each number is summed
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
        # x − x is 0 for all that is finite, else NaN.
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
