# Gradients with a limit for their common norm. A step's second phase collects them all, with the sums of their squares.
# Then every thread adds up these sums in the same order, and updates the parameters that it owns. A sum belongs to rows
# of a parameter that have one owner, so it does not depend on the number of threads.


cdef void collect(
    Parameter *parameter, Py_ssize_t at, const real_t *gradients, const Lines *lines
) noexcept nogil:
    """Keep some gradients, from index `at` on. Add the sum of their squares to the sum of the row that they begin in.

    Sums are in double, because gradients that need clipping may be huge. One sum covers several rows. Which rows these
    are does not depend on the number of threads.
    """
    cdef Py_ssize_t row = at // parameter.line, r, j
    cdef double sums[MOST_LANES]
    cdef double squares
    cdef real_t *kept = <real_t *> parameter.collected + at
    cdef vec x
    cdef int l, n = LANES // 2
    for l in range(LANES):
        sums[l] = 0
    for r in range(lines.rows):
        j = 0
        while j + LANES <= lines.columns:
            x = v_load(gradients + j)
            v_store(kept + j, x)
            v_add_square_to(sums, x)
            j += LANES
        if j < lines.columns:
            x = load_columns(gradients + j, lines.columns - j)
            store_columns(kept + j, x, lines.columns - j)
            v_add_square_to(sums, x)
        gradients += lines.gradient_line
        kept += lines.line
        if r > 0 and at % parameter.line == 0:
            parameter.squares[row + r] = 0
    while n > 0:
        for l in range(n):
            sums[l] += sums[l + n]
        n //= 2
    squares = sums[0]
    parameter.squares[row] = squares + (parameter.squares[row] if at % parameter.line else 0)


cdef inline double squares_of(const Parameter *parameter, Py_ssize_t rows) noexcept nogil:
    cdef double squares = 0
    cdef Py_ssize_t row
    for row in range(rows):
        squares += parameter.squares[row]
    return squares


cdef double squares_of_values(const real_t *values, Py_ssize_t n) noexcept nogil:
    """Return the sum of the squares of gradients that were added up over all ranks."""
    cdef double sums[4]
    cdef Py_ssize_t i = 0, l
    sums[0] = sums[1] = sums[2] = sums[3] = 0
    while i + 4 <= n:
        for l in range(4):
            sums[l] += <double> values[i + l] * <double> values[i + l]
        i += 4
    for i in range(i, n):
        sums[0] += <double> values[i] * <double> values[i]
    return (sums[0] + sums[1]) + (sums[2] + sums[3])


cdef double squares_of_all(const Net *net) noexcept nogil:
    """Return the sum of the squares of all gradients."""
    cdef double squares = 0
    cdef const Stage *stage
    cdef int s
    for s in range(net.n_stages):
        stage = &net.stages[s]
        if not has_parameters(stage) or not stage.trained:
            continue
        if net.exchange is NULL:
            squares += squares_of(&stage.weights, stage.n_in if is_shared(stage) else 1)
            squares += squares_of(&stage.biases, 1 if stage.biases.size else 0)
        else:
            squares += squares_of_values(<const real_t *> stage.weights.collected, stage.weights.size)
            squares += squares_of_values(<const real_t *> stage.biases.collected, stage.biases.size)
    return squares


cdef double factor_of_norm(const Net *net) noexcept nogil:
    """Return the factor of all gradients that makes their norm at most the limit, as PyTorch computes it."""
    cdef double squares, factor
    if not isfinite(net.clip_norm):
        return 1
    # With several ranks, one thread has summed up the gradients that all threads now scale.
    squares = squares_of_all(net) if net.exchange is NULL else net.progress.squares
    factor = net.clip_norm / (sqrt(squares) + 1e-6)
    return 1 if factor > 1 else factor


cdef void update_collected(
    const Net *net, Parameter *parameter, Py_ssize_t at, Py_ssize_t n, double factor, const vec *constants
) noexcept nogil:
    """Update some values by their collected gradients."""
    cdef real_t *gradients = <real_t *> parameter.collected + at
    cdef Lines lines = one_line(n)
    if factor != 1:
        scale_gradients(gradients, gradients, n, factor)
    update_lines(net, parameter, at, gradients, &lines, constants)


cdef void third_phase(const Net *net, const vec *constants, int thread) noexcept nogil:
    """Update the parameters that a thread owns by the collected gradients."""
    cdef double factor = factor_of_norm(net)
    cdef Py_ssize_t first, rows
    cdef Stage *stage
    cdef int s
    for s in range(net.n_stages):
        stage = &net.stages[s]
        if not has_parameters(stage) or not stage.trained:
            continue
        if is_shared(stage):
            first = first_row_of(net, stage, thread)
            rows = first_row_of(net, stage, thread + 1) - first
            update_collected(
                net, &stage.weights, first * stage.n_out, rows * stage.n_out, factor, constants
            )
            pack_rows_of_weights(stage, first, rows)
        elif thread == s % net.progress.n_threads:
            update_collected(net, &stage.weights, 0, stage.weights.size, factor, constants)
            if stage.kind == SPLINE:
                add_up_weights(stage, 0, stage.spline.n_columns)
        if stage.biases.size and thread == (s + 1) % net.progress.n_threads:
            update_collected(net, &stage.biases, 0, stage.biases.size, factor, constants + biases_at(net))
