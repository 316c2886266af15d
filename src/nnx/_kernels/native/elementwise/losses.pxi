# Losses: formulas on vectors. Each has a line that enters it into the table, which all other code reads.
#
# A loss that is a mean over a row's elements is one formula. It returns the loss and its slope by the prediction, which
# share the costly part. If a loss has a factor, the loops multiply by it: once per sample, and within the scale of the
# gradient. Categorical cross-entropy, whose targets are class numbers, has its own loops. Labels are class numbers that
# the caller has checked and copied.

ctypedef vec (*loss_formula)(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil

cdef Loss losses[MAX_LOSSES]
cdef int n_losses = 0


cdef const Loss *add_loss(
    const char *name,
    const char *pair,  # the activation by whose inputs it can also return the gradient; "" for none
    loss_t run, int traits, int n_settings,
) except NULL:
    """Enter a loss into the table. Return its row."""
    global n_losses
    cdef Loss *row = &losses[n_losses]
    if n_losses == MAX_LOSSES or n_settings > MAX_SETTINGS:
        raise ImportError("The table of losses is full: MAX_LOSSES or MAX_SETTINGS is too small.")
    row.name, row.pair, row.run, row.traits, row.n_settings = name, pair, run, traits, n_settings
    n_losses += 1
    return row


# The loops


cdef inline vec own_numbers(
    const real_t *pattern,  # (columns + LANES,) in: each column's own number, and the first ones again; or NULL
    Py_ssize_t *column,  # in and out: that of the first element
    Py_ssize_t columns,
) noexcept nogil:
    """Return the columns' own numbers for the next vector of elements, or 1 if they have none."""
    cdef Py_ssize_t at = column[0]
    if pattern is NULL:
        return v_all(1)
    column[0] = (at + LANES) % columns
    return v_load(pattern + at)


cdef inline void losses_by_elements(
    loss_formula formula,
    const real_t *pattern,  # as in `own_numbers`
    const real_t *y_pred,  # (rows, columns) in
    const real_t *y_true,  # (rows, columns) in
    real_t *sample_losses,  # (rows,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    const double *settings,
    double factor,
) noexcept nogil:
    """``sample_losses_i := factor · mean over the columns of formula(y_pred, y_true)``, summed in double."""
    cdef real_t elements[64 * MOST_LANES]
    cdef vec everywhere[MAX_SETTINGS]
    cdef vec slope, own
    cdef Py_ssize_t size = rows * columns, start = 0, in_row = 0, row = 0, column = 0, count, block, i
    cdef int part
    cdef double loss = 0, scale = factor / columns
    load_settings(everywhere, settings)
    while start < size:
        count = min(<Py_ssize_t> (64 * MOST_LANES), size - start)
        for block in range((count + LANES - 1) // LANES):
            i = block * LANES
            part = <int> min(<Py_ssize_t> LANES, count - i)
            own = own_numbers(pattern, &column, columns)
            v_store(
                elements + i,
                formula(
                    v_load_part(y_pred + start + i, part), v_load_part(y_true + start + i, part), &slope, own,
                    everywhere,
                ),
            )
        for i in range(count):
            loss += elements[i]
            in_row += 1
            if in_row == columns:
                sample_losses[row] = <real_t> (scale * loss)
                loss, in_row, row = 0, 0, row + 1
        start += count


cdef inline void gradient_by_elements(
    loss_formula formula,
    const real_t *pattern,  # as in `own_numbers`
    const real_t *y_pred,  # (rows, columns) in
    const real_t *y_true,  # (rows, columns) in
    real_t *dinputs,  # (rows, columns) out; may be either
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n,  # rows of the whole batch
    const double *settings,
    double factor,
) noexcept nogil:
    """``dinputs := factor · slope of formula(y_pred, y_true) / (n·columns)``."""
    cdef vec everywhere[MAX_SETTINGS]
    cdef vec slope, own, scale = v_all(<real_t> (factor / (n * columns)))
    cdef Py_ssize_t size = rows * columns, column = 0, block, i, whole = size - size % LANES
    cdef int rest = <int> (size % LANES)
    load_settings(everywhere, settings)
    for block in range(whole // LANES):
        i = block * LANES
        own = own_numbers(pattern, &column, columns)
        formula(v_load(y_pred + i), v_load(y_true + i), &slope, own, everywhere)
        v_store(dinputs + i, v_mul(slope, scale))
    if rest:
        own = own_numbers(pattern, &column, columns)
        formula(v_load_part(y_pred + whole, rest), v_load_part(y_true + whole, rest), &slope, own, everywhere)
        v_store_part(dinputs + whole, v_mul(slope, scale), rest)


cdef inline void by_elements(
    loss_formula formula,
    loss_formula from_logits,  # its slope is by the inputs of the paired activation
    const bint has_own,  # a constant at every call: whether columns may have their own numbers
    LossPart part, const real_t *y_pred, const real_t *y_true, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
    double factor,  # of loss and gradient
) noexcept nogil:
    """Compute the losses of rows, or the gradient; result (rows,) or (rows, columns)."""
    if has_own and own is not NULL:
        if part == SAMPLE_LOSSES:
            losses_by_elements(formula, own, y_pred, y_true, result, rows, columns, settings, factor)
        elif part == GRADIENT:
            gradient_by_elements(formula, own, y_pred, y_true, result, rows, columns, n, settings, factor)
        else:
            gradient_by_elements(from_logits, own, y_pred, y_true, result, rows, columns, n, settings, factor)
    elif part == SAMPLE_LOSSES:
        losses_by_elements(formula, NULL, y_pred, y_true, result, rows, columns, settings, factor)
    elif part == GRADIENT:
        gradient_by_elements(formula, NULL, y_pred, y_true, result, rows, columns, n, settings, factor)
    else:
        gradient_by_elements(from_logits, NULL, y_pred, y_true, result, rows, columns, n, settings, factor)


# Squared error: (p − y)². Settings: a factor.


cdef inline vec squared_error_of(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    cdef vec d = v_sub(p, y)
    slope[0] = v_add(d, d)
    return v_mul(d, d)


cdef void mean_squared_error(
    LossPart part, const real_t *y_pred, const real_t *y_true, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
) noexcept nogil:
    by_elements(
        squared_error_of, squared_error_of, False, part, y_pred, y_true, result, rows, columns, n, settings, own,
        settings[0],
    )


add_loss("mean_squared_error", "", <loss_t> mean_squared_error, 0, 1)


# Absolute error: |p − y|, whose slope at p = y is 0


cdef inline vec sign_of(vec d) noexcept nogil:
    """−1, 0 or 1; NaN for NaN."""
    return v_select(v_greater(d, v_all(0)), v_all(1), v_select(v_greater(v_all(0), d), v_all(-1), d))


cdef inline vec absolute_error_of(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    cdef vec d = v_sub(p, y)
    slope[0] = sign_of(d)
    return v_abs(d)


cdef void mean_absolute_error(
    LossPart part, const real_t *y_pred, const real_t *y_true, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
) noexcept nogil:
    by_elements(
        absolute_error_of, absolute_error_of, False, part, y_pred, y_true, result, rows, columns, n, settings, own, 1
    )


add_loss("mean_absolute_error", "", <loss_t> mean_absolute_error, 0, 0)


# Huber's loss: c·(d − c/2), where d = p − y, and c, which is the slope, is d kept within [−δ, δ]. Settings: δ.


cdef inline vec huber_of(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    cdef vec d = v_sub(p, y)
    cdef vec c = v_min(settings[0], v_max(v_sub(v_all(0), settings[0]), d))
    slope[0] = c
    return v_mul(c, v_sub(d, v_mul(v_all(<real_t> 0.5), c)))


cdef void huber(
    LossPart part, const real_t *y_pred, const real_t *y_true, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
) noexcept nogil:
    by_elements(huber_of, huber_of, False, part, y_pred, y_true, result, rows, columns, n, settings, own, 1)


add_loss("huber", "", <loss_t> huber, 0, 1)


# Log-cosh. With e = expm1(−2·|d|) and d = p − y, the slope tanh d is ±e/(2 + e), and the loss is |d| + log1p(e/2). Near
# 0 that cancels, so the loss is −log1p(−tanh² d)/2 there.


cdef inline vec log_cosh_of(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    cdef vec d = v_sub(p, y), size = v_abs(d), half = v_all(<real_t> 0.5)
    cdef vec e = v_expm1(v_mul(v_all(-2), size))
    cdef vec t = v_div(e, v_add(v_all(2), e))
    cdef mask near = v_greater(half, size)
    cdef vec log = v_log1p(v_select(near, v_sub(v_all(0), v_mul(t, t)), v_mul(half, e)))
    slope[0] = v_select(v_greater(d, v_all(0)), v_sub(v_all(0), t), t)
    return v_select(near, v_mul(v_sub(v_all(0), half), log), v_add(size, log))


cdef void log_cosh(
    LossPart part, const real_t *y_pred, const real_t *y_true, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
) noexcept nogil:
    by_elements(log_cosh_of, log_cosh_of, False, part, y_pred, y_true, result, rows, columns, n, settings, own, 1)


add_loss("log_cosh", "", <loss_t> log_cosh, 0, 0)


# Pinball loss of d = y − p: q·d above 0, (q − 1)·d below. At 0 the slope is 0. Own numbers: each column's quantile q.


cdef inline vec pinball_of(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    cdef vec d = v_sub(y, p), zero = v_all(0), rest = v_sub(own, v_all(1))
    cdef mask above = v_greater(d, zero)
    slope[0] = v_select(above, v_sub(zero, own), v_select(v_greater(zero, d), v_sub(zero, rest), d))
    return v_mul(v_select(above, own, rest), d)


cdef void pinball(
    LossPart part, const real_t *y_pred, const real_t *y_true, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
) noexcept nogil:
    by_elements(pinball_of, pinball_of, True, part, y_pred, y_true, result, rows, columns, n, settings, own, 1)


add_loss("pinball", "", <loss_t> pinball, 0, 0)


# Poisson's negative log-likelihood: exp(p) − y·p, or p − y·log(p + ε) for outputs that are not logarithms. Settings:
# whether outputs are logarithms, and a factor.


cdef inline vec poisson_of_logs(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    cdef vec rate = v_exp(p)
    slope[0] = v_sub(rate, y)
    return v_sub(rate, v_mul(y, p))


cdef inline vec poisson_of_rates(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    cdef vec above = v_add(p, v_all(<real_t> 1e-8))
    slope[0] = v_sub(v_all(1), v_div(y, above))
    return v_sub(p, v_mul(y, v_log(above)))


cdef void poisson(
    LossPart part, const real_t *y_pred, const real_t *y_true, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
) noexcept nogil:
    if settings[0]:
        by_elements(
            poisson_of_logs, poisson_of_logs, False, part, y_pred, y_true, result, rows, columns, n, settings, own,
            settings[1],
        )
    else:
        by_elements(
            poisson_of_rates, poisson_of_rates, False, part, y_pred, y_true, result, rows, columns, n, settings, own,
            settings[1],
        )


add_loss("poisson", "", <loss_t> poisson, 0, 2)


# Hinge loss: max(0, m − y·p), whose slope is 0 from the margin m on. Targets are −1 and 1.


cdef inline vec hinge_of(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    cdef vec room = v_sub(settings[0], v_mul(y, p)), zero = v_all(0)
    # A NaN is not "0 or less", so it passes through.
    slope[0] = v_select(v_greater(room, zero), v_sub(zero, y), v_select(v_at_most(room, zero), zero, room))
    return v_max(zero, room)


cdef void hinge(
    LossPart part, const real_t *y_pred, const real_t *y_true, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
) noexcept nogil:
    by_elements(hinge_of, hinge_of, False, part, y_pred, y_true, result, rows, columns, n, settings, own, 1)


add_loss("hinge", "", <loss_t> hinge, 0, 1)


# Binary cross-entropy: −(w·y·log p + (1 − y)·log(1 − p)), p clipped. Settings: label smoothing s, which turns y into (1
# − s)·y + s/2; how near p comes to 0 and 1; a factor. Own numbers: the weight w of positive targets.


cdef inline vec smoothed(vec y, vec smoothing) noexcept nogil:
    return v_madd(v_sub(v_all(1), smoothing), y, v_mul(v_all(<real_t> 0.5), smoothing))


cdef inline vec binary_crossentropy_of(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    cdef vec c = clipped(p, settings[1]), one = v_all(1), target = smoothed(y, settings[0])
    cdef vec weighted = v_mul(own, target), other = v_sub(one, target), rest = v_sub(one, c)
    slope[0] = v_sub(v_div(other, rest), v_div(weighted, c))
    return v_sub(v_all(0), v_madd(weighted, v_log(c), v_mul(other, v_log(rest))))


cdef inline vec binary_crossentropy_of_sigmoid(vec p, vec y, vec *slope, vec own, const vec *settings) noexcept nogil:
    """The slope by the logit: (1 − y)·p − w·y·(1 − p), which is p − y without a weight.

    No term is larger than the sum. So a large weight does not cost the small slope of a sure prediction its digits.
    """
    cdef vec one = v_all(1), target = smoothed(y, settings[0])
    slope[0] = v_sub(v_mul(v_sub(one, target), p), v_mul(v_mul(own, target), v_sub(one, p)))
    return p


cdef void binary_crossentropy(
    LossPart part, const real_t *y_pred, const real_t *y_true, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
) noexcept nogil:
    by_elements(
        binary_crossentropy_of, binary_crossentropy_of_sigmoid, True, part, y_pred, y_true, result, rows, columns, n,
        settings, own, settings[2],
    )


add_loss("binary_crossentropy", "sigmoid", <loss_t> binary_crossentropy, NEEDS_PAIR, 3)


# Categorical cross-entropy: −log p of the label, p clipped. Settings: label smoothing s: the target of each of m
# classes is s/m, and the label has 1 − s more; how near p comes to 0 and 1.


cdef void categorical_losses(
    const real_t *y_pred,  # (rows, columns) in
    const int32_t *labels,  # (rows,) in
    real_t *sample_losses,  # (rows,) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    double smoothing,
    double clip,
) noexcept nogil:
    """``sample_losses_i := −(1 − s)·log(clip(p_i,label_i)) − s/m·Σ_j log(clip(p_ij))``."""
    cdef real_t chosen[MOST_LANES]
    cdef vec sums, terms, lowest = v_all(<real_t> clip)
    cdef Py_ssize_t i = 0, j
    cdef int count, l
    for l in range(LANES):
        chosen[l] = 1
    while i < rows:
        count = <int> min(<Py_ssize_t> LANES, rows - i)
        for l in range(count):
            chosen[l] = y_pred[(i + l) * columns + labels[i + l]]
        sums = v_sub(v_all(0), v_log(clipped(v_load(chosen), lowest)))
        if smoothing:
            sums = v_mul(v_all(<real_t> (1 - smoothing)), sums)
            for j in range(columns):
                terms = v_log(clipped(v_gather(y_pred + i * columns + j, columns, count), lowest))
                sums = v_sub(sums, v_mul(v_all(<real_t> (smoothing / columns)), terms))
        v_store_part(sample_losses + i, sums, count)
        i += LANES


cdef void categorical_gradient(
    const real_t *y_pred,  # (rows, columns) in
    const int32_t *labels,  # (rows,) in
    real_t *dinputs,  # (rows, columns) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n,  # rows of the whole batch
    double smoothing,
) noexcept nogil:
    """``dinputs_ij := −target_ij / (p_ij·n)``; a p of 0 counts as the smallest normal number."""
    cdef real_t smallest = <real_t> (FLT_MIN if sizeof(real_t) == 4 else DBL_MIN)
    cdef real_t p, off = <real_t> (smoothing / columns), on = <real_t> (1 - smoothing + smoothing / columns)
    cdef Py_ssize_t i, j
    memset(dinputs, 0, rows * columns * sizeof(real_t))
    for i in range(rows):
        if smoothing:
            for j in range(columns):
                p = y_pred[i * columns + j]
                dinputs[i * columns + j] = -off / (smallest if p < smallest else p) / <real_t> n
        p = y_pred[i * columns + labels[i]]
        dinputs[i * columns + labels[i]] = -on / (smallest if p < smallest else p) / <real_t> n


cdef void categorical_gradient_of_softmax(
    const real_t *output,  # (rows, columns) in
    const int32_t *labels,  # (rows,) in
    real_t *dinputs,  # (rows, columns) out
    Py_ssize_t rows,
    Py_ssize_t columns,
    Py_ssize_t n,  # rows of the whole batch
    double smoothing,
) noexcept nogil:
    """``dinputs := (output − targets) / n``."""
    cdef real_t scale = <real_t> (1.0 / n)
    cdef real_t off = <real_t> (smoothing / columns), on = <real_t> (1 - smoothing + smoothing / columns)
    cdef Py_ssize_t i, at
    for i in range(rows * columns):
        dinputs[i] = (output[i] - off) * scale
    for i in range(rows):
        at = i * columns + labels[i]
        dinputs[at] = (output[at] - on) * scale


cdef void categorical_crossentropy(
    LossPart part, const real_t *y_pred, const int32_t *labels, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    Py_ssize_t n, const double *settings, const real_t *own,
) noexcept nogil:
    if part == SAMPLE_LOSSES:
        categorical_losses(y_pred, labels, result, rows, columns, settings[0], settings[1])
    elif part == GRADIENT:
        categorical_gradient(y_pred, labels, result, rows, columns, n, settings[0])
    else:
        categorical_gradient_of_softmax(y_pred, labels, result, rows, columns, n, settings[0])


# `softmax_crossentropy` does both in one pass.
add_loss(
    "categorical_crossentropy", "softmax", <loss_t> categorical_crossentropy,
    NEEDS_PAIR | BY_LABELS | FUSED_WITH_PAIR, 2,
)
