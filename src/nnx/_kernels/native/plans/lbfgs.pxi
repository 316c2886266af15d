# L-BFGS: many iterations in one call, each a direction and a line search along it. `engine/lbfgs.py` defines the
# computation, and names the sources. Names are the same here.
#
# The gradient is that of a step whose second phase collects gradients (`clipping.pxi`) and which makes no update. All
# threads take the same decisions from the same sums. Vectors are cut into pieces with one owner each, whose sums are
# added up in their order. So bits do not depend on the number of threads.

cdef enum:
    ABREAST = 16  # separate sums in a piece
    SUMS = 4  # vectors of these sums

cdef enum:
    GOES_ON, FLAT, SLOW, EVALUATED, FAILED, NOT_FINITE

cdef double DECREASE = 1e-3, FLATNESS = 0.9, NARROW = 0.1
cdef double GROW_LEAST = 1.1, GROW_MOST = 4, LONGEST = 1e10, SHORTEN = 0.1


# The line search


cdef struct End:
    double step
    double loss
    double slope

cdef struct Line:
    double step  # the step to try next, or the step where it ended
    double longest
    double loss, slope  # at the start
    End best, other
    bint has_bracket, first_stage
    double width, width_before
    double least, most


cdef void begin_line(Line *line, double loss, double slope, double step) noexcept nogil:
    line.step, line.longest, line.loss, line.slope = step, LONGEST, loss, slope
    line.best.step, line.best.loss, line.best.slope = 0, loss, slope
    line.other = line.best
    line.has_bracket, line.first_stage = False, True
    line.width, line.width_before = LONGEST, 2 * LONGEST
    line.least, line.most = 0, step + GROW_MOST * step


cdef void shorten(Line *line) noexcept nogil:
    """Choose a shorter step, because the loss was not finite. Longer steps are not tried any more."""
    line.longest = line.step
    line.most = min(line.most, line.step)
    line.step = line.best.step + SHORTEN * (line.step - line.best.step)


cdef double cubic_step(const End *base, const End *other, double *root) noexcept nogil:
    """Return where the cubic through both ends is lowest, as a fraction of the way from base, and its signed root."""
    cdef double theta = 3 * (base.loss - other.loss) / (other.step - base.step) + base.slope + other.slope
    cdef double largest = max(fabs(theta), max(fabs(base.slope), fabs(other.slope)))
    cdef double part = theta / largest, below
    root[0] = largest * sqrt(max(<double> 0, part * part - base.slope / largest * (other.slope / largest)))
    if other.step < base.step:
        root[0] = -root[0]
    below = (root[0] - base.slope) + root[0] + other.slope
    return ((root[0] - base.slope) + theta) / below if below else 0


cdef double secant_step(const End *base, const End *other) noexcept nogil:
    """Return the step at which the slope would be 0 if it were linear."""
    return base.step + base.slope / (base.slope - other.slope) * (other.step - base.step)


cdef double step_beyond(const Line *line, const End *tried) noexcept nogil:
    """Return the next step if the loss falls less steeply: the minimum lies beyond, perhaps far away."""
    cdef double root, cubic, secant, limit, step
    cdef double part = cubic_step(tried, &line.best, &root)
    if part < 0 and root != 0:
        cubic = tried.step + part * (line.best.step - tried.step)
    else:
        cubic = line.most if tried.step > line.best.step else line.least
    secant = secant_step(tried, &line.best)
    if not line.has_bracket:
        step = cubic if fabs(cubic - tried.step) > fabs(secant - tried.step) else secant
        return min(max(step, line.least), line.most)
    limit = tried.step + 0.66 * (line.other.step - tried.step)
    step = cubic if fabs(cubic - tried.step) < fabs(secant - tried.step) else secant
    return min(limit, step) if tried.step > line.best.step else max(limit, step)


cdef void choose_step(Line *line, const End *tried) noexcept nogil:
    """Choose the next step by interpolation, and update the bracket: the four cases of the paper."""
    cdef bint turned = (tried.slope < 0) != (line.best.slope < 0) and tried.slope != 0
    cdef double root, cubic, other, chord
    if tried.loss > line.best.loss:
        cubic = line.best.step + cubic_step(&line.best, tried, &root) * (tried.step - line.best.step)
        chord = (line.best.loss - tried.loss) / (tried.step - line.best.step)
        other = line.best.step + line.best.slope / (chord + line.best.slope) / 2 * (tried.step - line.best.step)
        line.step = cubic
        if not fabs(cubic - line.best.step) < fabs(other - line.best.step):
            line.step = cubic + (other - cubic) / 2
        line.has_bracket = True
    elif turned:
        cubic = tried.step + cubic_step(tried, &line.best, &root) * (line.best.step - tried.step)
        other = secant_step(tried, &line.best)
        line.step = cubic if fabs(cubic - tried.step) > fabs(other - tried.step) else other
        line.has_bracket = True
    elif fabs(tried.slope) < fabs(line.best.slope):
        line.step = step_beyond(line, tried)
    elif line.has_bracket:
        line.step = tried.step + cubic_step(tried, &line.other, &root) * (line.other.step - tried.step)
    else:
        line.step = line.most if tried.step > line.best.step else line.least
    if tried.loss > line.best.loss:
        line.other = tried[0]
    else:
        if turned:
            line.other = line.best
        line.best = tried[0]


cdef inline bint is_narrow(const Line *line) noexcept nogil:
    return line.most - line.least <= NARROW * line.most


cdef bint ends(const Line *line, double loss, double slope, double target) noexcept nogil:
    """Return whether a search ends at its step."""
    cdef double enough = DECREASE * line.slope
    if line.has_bracket and (line.step <= line.least or line.step >= line.most or is_narrow(line)):
        return True
    if line.step == line.longest and loss <= target and slope <= enough:
        return True
    if line.step == 0 and (loss > target or slope >= enough):
        return True
    return loss <= target and fabs(slope) <= -FLATNESS * line.slope


cdef inline void tilt(End *end, double slope) noexcept nogil:
    end.loss += end.step * slope
    end.slope += slope


cdef bint take_trial(Line *line, double loss, double slope) noexcept nogil:
    """Take loss and slope at the step. Return True if the search ends there; otherwise choose the next step."""
    cdef double step = line.step, enough = DECREASE * line.slope, target = line.loss + step * enough
    cdef double best, other
    cdef End tried
    tried.step, tried.loss, tried.slope = step, loss, slope
    if line.first_stage and loss <= target and slope >= 0:
        line.first_stage = False
    if ends(line, loss, slope, target):
        return True
    if line.first_stage and target < loss <= line.best.loss:
        # On the function minus the required decrease.
        tilt(&tried, -enough)
        tilt(&line.best, -enough)
        tilt(&line.other, -enough)
        choose_step(line, &tried)
        tilt(&line.best, enough)
        tilt(&line.other, enough)
    else:
        choose_step(line, &tried)
    best, other = line.best.step, line.other.step
    if line.has_bracket:
        if fabs(other - best) >= 0.66 * line.width_before:
            line.step = best + (other - best) / 2
        line.width_before, line.width = line.width, fabs(other - best)
        line.least, line.most = min(best, other), max(best, other)
    else:
        line.least = line.step + GROW_LEAST * (line.step - best)
        line.most = line.step + GROW_MOST * (line.step - best)
    line.step = min(max(line.step, <double> 0), line.longest)
    if line.has_bracket and (line.step <= line.least or line.step >= line.most or is_narrow(line)):
        line.step = best
    return False


# Vectors. Each thread owns some pieces of them


cdef struct Share:
    # A thread's data in a search.
    const Net *net
    Search *search
    int thread
    int turn  # which of two rows of sums comes next: other threads may still read the one before
    Py_ssize_t first, end  # the numbers of the vectors that it owns


cdef inline real_t *vector(const Search *search, Py_ssize_t row) noexcept nogil:
    return <real_t *> search.vectors + row * search.size


cdef inline real_t *work(const Search *search, Py_ssize_t row) noexcept nogil:
    return <real_t *> search.work + row * search.size

cdef enum:  # the rows of `vectors` before the pairs, and of `work`
    AT_POINT, AT_GRADIENT, AT_PAIRS
    AHEAD = 0, TRIAL, TRIAL_GRADIENT


cdef inline double *sums_of_turn(Share *share) noexcept nogil:
    return share.search.sums + share.turn * search_pieces(share.search.size)


cdef double all_sums(Share *share, bint largest) noexcept nogil:
    """Wait until all threads have written their sums. Return the total of all pieces' sums, or the largest."""
    cdef const double *sums = sums_of_turn(share)
    cdef double total_sum = 0
    cdef Py_ssize_t i
    meet(share.net.progress.meeting, share.net.progress.n_threads)
    for i in range(search_pieces(share.search.size)):
        if not largest:
            total_sum += sums[i]
        elif not sums[i] <= total_sum:
            total_sum = sums[i]
    share.turn = 1 - share.turn
    return total_sum


cdef inline double piece_product(const real_t *a, const real_t *b, Py_ssize_t n) noexcept nogil:
    """Return the dot product of two pieces, summed in double in several separate sums."""
    cdef vec parts[ABREAST]
    cdef double sums[ABREAST]
    cdef double product = 0
    cdef Py_ssize_t i = 0
    cdef int l
    for l in range(ABREAST):
        sums[l] = 0
    if sizeof(real_t) == 8:
        for l in range(SUMS):
            parts[l] = v_all(0)
        while i + SUMS * LANES <= n:
            for l in range(SUMS):
                parts[l] = v_madd(v_load(a + i + l * LANES), v_load(b + i + l * LANES), parts[l])
            i += SUMS * LANES
        for l in range(1, SUMS):
            parts[0] = v_add(parts[0], parts[l])
        v_add_to(sums, parts[0])
    while i + ABREAST <= n:
        for l in range(ABREAST):
            sums[l] += <double> a[i + l] * <double> b[i + l]
        i += ABREAST
    for l in range(<int> (n - i)):
        sums[l] += <double> a[i + l] * <double> b[i + l]
    for l in range(ABREAST):
        product += sums[l]
    return product


cdef double pass_over(
    Share *share,
    real_t *result,  # out, or NULL
    const real_t *base,  # may be `result`; NULL: zeros
    double factor,
    const real_t *by,  # may be `result`
    const real_t *a,  # may be `result`; NULL for no product
    const real_t *b,
) noexcept nogil:
    """``result := base + factor * by``, rounded once. Then return ``a · b``, piece by piece, while these are in L1.

    It is the only loop over vectors, to keep the modules small: GCC inlines smaller loops at every call.
    """
    cdef double *sums = sums_of_turn(share)
    cdef Py_ssize_t i = share.first, k, n
    while i < share.end:
        n = min(<Py_ssize_t> SUMMED, share.end - i)
        if result is not NULL and base is NULL:
            for k in range(i, i + n):
                result[k] = <real_t> (factor * <double> by[k])
        elif result is not NULL:
            for k in range(i, i + n):
                result[k] = <real_t> (<double> base[k] + factor * <double> by[k])
        if a is not NULL:
            sums[i // SUMMED] = piece_product(a + i, b + i, n)
        i += n
    return all_sums(share, False) if a is not NULL else 0


cdef inline double dot_of(Share *share, const real_t *a, const real_t *b) noexcept nogil:
    return pass_over(share, NULL, NULL, 0, NULL, a, b)


cdef double largest_of(Share *share, const real_t *a) noexcept nogil:
    """Return the largest absolute value of finite numbers."""
    cdef double *sums = sums_of_turn(share)
    cdef Py_ssize_t i = share.first, j
    cdef double found, size
    while i < share.end:
        found = 0
        for j in range(i, min(i + SUMMED, share.end)):
            size = fabs(<double> a[j])
            if not size <= found:
                found = size
        sums[i // SUMMED] = found
        i += SUMMED
    return all_sums(share, True)


cdef enum Exchange:
    PUT_VALUES, TAKE_VALUES, TAKE_GRADIENTS


cdef void exchange_parameter(
    Exchange way, const Parameter *parameter, real_t *flat, Py_ssize_t at, Py_ssize_t first, Py_ssize_t end
) noexcept nogil:
    """Copy the part of a parameter from ``first`` to ``end`` of a vector. The parameter begins at ``at``."""
    cdef Py_ssize_t begin = max(first, at), n = min(end, at + parameter.size) - begin
    cdef real_t *values = <real_t *> (parameter.collected if way == TAKE_GRADIENTS else parameter.values)
    if n <= 0:
        return
    if way == PUT_VALUES:
        memcpy(values + (begin - at), flat + begin, n * sizeof(real_t))
    else:
        memcpy(flat + begin, values + (begin - at), n * sizeof(real_t))


cdef void exchange(Exchange way, const Share *share, real_t *flat) noexcept nogil:
    """Copy a thread's part of a vector to the parameters, or from them, or from their gradients."""
    cdef const Net *net = share.net
    cdef const Stage *stage
    cdef Py_ssize_t at = 0
    cdef int s
    for s in range(net.n_stages):
        stage = &net.stages[s]
        if has_parameters(stage) and stage.trained:
            exchange_parameter(way, &stage.weights, flat, at, share.first, share.end)
            at += stage.weights.size
            exchange_parameter(way, &stage.biases, flat, at, share.first, share.end)
            at += stage.biases.size


# The iteration


cdef struct Value:
    double data_loss, penalty, accuracy
    double loss


cdef bint evaluate_search(Share *share, Value *value) noexcept nogil:
    """Compute loss and gradient at the current parameters. Return whether the loss is finite.

    Other threads must have written their parameters. The gradient is where the second phase collects it.
    """
    cdef const Net *net = share.net
    cdef char *scratch = net.scratch + share.thread * net.private_size
    cdef vec constants[ALL_CONSTANTS]  # unused: nothing is updated
    cdef double loss
    cdef Batch batch
    batch.start, batch.order, batch.rows, batch.forwards, batch.again = 0, NULL, net.n_samples, 0, False
    batch.copied = net.members > 1
    batch.weight = weight_of(net, &batch)
    take_own_rows(net, &batch)
    pack_weights(net, share.thread)
    meet(net.progress.meeting, net.progress.n_threads)
    if share.thread == 0:
        share.search.penalty = net.progress.penalty_scale * penalty_of(net)
    first_phase(net, &batch, share.thread, scratch)
    meet(net.progress.meeting, net.progress.n_threads)
    loss = total(<const real_t *> net.sample_losses, batch.rows * net.members)
    value.data_loss, value.penalty = mean_of(loss, batch.weight * <double> net.members), share.search.penalty
    value.loss = value.data_loss + value.penalty
    if share.thread == 0:
        net.progress.loss_sum, net.progress.loss_count = 0, 0
        net.progress.hits_sum, net.progress.hits_count = 0, 0
        add_up(net, batch.weight * <double> net.members, loss, hits_of(net, 0, batch.rows * net.members))
        value.accuracy = mean_of(net.progress.batch_hits, cells_of(net, batch.weight * <double> net.members))
    if not isfinite(value.loss):
        meet(net.progress.meeting, net.progress.n_threads)  # no thread continues while others read the losses
        return False
    second_phase(net, &batch, constants, share.thread, scratch)
    meet(net.progress.meeting, net.progress.n_threads)
    return True


cdef void note_value(double *numbers, const Value *value) noexcept nogil:
    numbers[SEARCH_LOSS], numbers[SEARCH_DATA_LOSS] = value.loss, value.data_loss
    numbers[SEARCH_PENALTY], numbers[SEARCH_ACCURACY] = value.penalty, value.accuracy


cdef void start_search(Share *share, double *numbers) noexcept nogil:
    """Start at the current parameters, unless an earlier iteration ended there."""
    cdef Search *search = share.search
    cdef Py_ssize_t i, size = (share.end - share.first) * <Py_ssize_t> sizeof(real_t)
    cdef double moved = 0
    cdef Value value
    exchange(TAKE_VALUES, share, work(search, TRIAL))
    if memcmp(work(search, TRIAL) + share.first, vector(search, AT_POINT) + share.first, size):
        moved = 1
    i = share.first
    while i < share.end:
        sums_of_turn(share)[i // SUMMED] = moved
        i += SUMMED
    moved = all_sums(share, True)
    if numbers[SEARCH_STARTED] and moved == 0:
        return
    for i in range(SEARCH_NUMBERS):
        if i != SEARCH_EVALUATIONS:
            numbers[i] = 0
    numbers[SEARCH_SCALE] = 1
    numbers[SEARCH_EVALUATIONS] += 1
    memcpy(vector(search, AT_POINT) + share.first, work(search, TRIAL) + share.first, size)
    if not evaluate_search(share, &value):
        note_value(numbers, &value)
        numbers[SEARCH_END] = NOT_FINITE
        return
    note_value(numbers, &value)
    numbers[SEARCH_STARTED] = 1
    exchange(TAKE_GRADIENTS, share, vector(search, AT_GRADIENT))
    if largest_of(share, vector(search, AT_GRADIENT)) <= search.gradient_tolerance:
        numbers[SEARCH_END] = FLAT


cdef double find_direction(Share *share, const double *numbers) noexcept nogil:
    """Write the direction, minus the gradient times the approximate inverse Hessian. Return the slope along it."""
    cdef Search *search = share.search
    cdef real_t *ahead = work(search, AHEAD)
    cdef const double *curvatures = search.numbers + SEARCH_NUMBERS
    cdef Py_ssize_t m = search.memory, n_pairs = <Py_ssize_t> numbers[SEARCH_PAIRS], k, pair, before, after
    cdef Py_ssize_t newest = <Py_ssize_t> numbers[SEARCH_NEXT] - 1 + m
    cdef double shares[MOST_PAIRS]
    cdef double product = 0
    pass_over(share, ahead, NULL, -1, vector(search, AT_GRADIENT), NULL, NULL)
    for k in range(n_pairs):
        pair, before = (newest - k) % m, (newest - k + 1) % m
        if k == 0:
            product = dot_of(share, vector(search, AT_PAIRS + pair), ahead)
        else:
            product = pass_over(
                share, ahead, ahead, -shares[before], vector(search, AT_PAIRS + m + before),
                vector(search, AT_PAIRS + pair), ahead,
            )
        shares[pair] = product / curvatures[pair]
    if n_pairs:
        pair = (newest - n_pairs + 1) % m
        pass_over(share, ahead, ahead, -shares[pair], vector(search, AT_PAIRS + m + pair), NULL, NULL)
        pass_over(share, ahead, NULL, numbers[SEARCH_SCALE], ahead, NULL, NULL)
    for k in range(n_pairs - 1, -1, -1):
        pair, after = (newest - k) % m, (newest - k + 1) % m
        if k == n_pairs - 1:
            product = dot_of(share, vector(search, AT_PAIRS + m + pair), ahead)
        shares[pair] -= product / curvatures[pair]
        if k:
            product = pass_over(
                share, ahead, ahead, shares[pair], vector(search, AT_PAIRS + pair),
                vector(search, AT_PAIRS + m + after), ahead,
            )
    if n_pairs == 0:
        return dot_of(share, vector(search, AT_GRADIENT), ahead)
    pair = newest % m
    return pass_over(
        share, ahead, ahead, shares[pair], vector(search, AT_PAIRS + pair), vector(search, AT_GRADIENT), ahead
    )


cdef bint search_line(
    Share *share, double *numbers, double slope, double step, Value *value, Line *line, double *last_slope
) noexcept nogil:
    """Search along the direction. Return whether it found a step."""
    cdef Search *search = share.search
    cdef real_t *trial = work(search, TRIAL)
    cdef Py_ssize_t k
    cdef bint finite
    if not slope < 0:
        return False
    begin_line(line, numbers[SEARCH_LOSS], slope, step)
    for k in range(search.search_steps):
        pass_over(share, trial, vector(search, AT_POINT), line.step, work(search, AHEAD), NULL, NULL)
        exchange(PUT_VALUES, share, trial)
        meet(share.net.progress.meeting, share.net.progress.n_threads)
        finite = evaluate_search(share, value)
        numbers[SEARCH_EVALUATIONS] += 1
        if finite:
            exchange(TAKE_GRADIENTS, share, work(search, TRIAL_GRADIENT))
            last_slope[0] = dot_of(share, work(search, TRIAL_GRADIENT), work(search, AHEAD))
            finite = isfinite(last_slope[0])
        if not finite:
            shorten(line)
        elif take_trial(line, value.loss, last_slope[0]):
            return True
    return False


cdef void keep_pair(Share *share, double *numbers, double step, double slope, double last_slope) noexcept nogil:
    """Keep the differences of points and gradients, unless rounding hides their curvature."""
    cdef Search *search = share.search
    cdef Py_ssize_t pair = <Py_ssize_t> numbers[SEARCH_NEXT]
    cdef double curvature = (last_slope - slope) * step, decrease = -slope * step
    cdef double epsilon = 2.220446049250313e-16 if sizeof(real_t) == 8 else 1.1920928955078125e-07
    cdef real_t *s = vector(search, AT_PAIRS + pair)
    cdef real_t *y = vector(search, AT_PAIRS + search.memory + pair)
    if not curvature > epsilon * decrease:
        return
    pass_over(share, s, NULL, step, work(search, AHEAD), NULL, NULL)
    numbers[SEARCH_SCALE] = curvature / pass_over(
        share, y, work(search, TRIAL_GRADIENT), -1, vector(search, AT_GRADIENT), y, y
    )
    if share.thread == 0:
        search.numbers[SEARCH_NUMBERS + pair] = curvature
    numbers[SEARCH_NEXT] = <double> ((pair + 1) % search.memory)
    numbers[SEARCH_PAIRS] = min(numbers[SEARCH_PAIRS] + 1, <double> search.memory)


cdef void accept_figures(const Share *share) noexcept nogil:
    """Update the running statistics of batch norms, once per iteration."""
    cdef const Stage *stage
    cdef int s
    for s in range(share.net.n_stages):
        stage = &share.net.stages[s]
        if stage.kind == BATCH_NORM and share.thread == s % share.net.progress.n_threads:
            move_running_figures(stage, share.net.n_samples * stage.members)


cdef bint iterate_search(Share *share, double *numbers) noexcept nogil:
    """Do an iteration. Return whether it found a better point, and note whether it is the last iteration."""
    cdef Search *search = share.search
    cdef Py_ssize_t size = (share.end - share.first) * <Py_ssize_t> sizeof(real_t)
    cdef double slope, last_slope = 0, step, before = numbers[SEARCH_LOSS]
    cdef Value value
    cdef Line line
    while True:
        slope = find_direction(share, numbers)
        step = 1
        if not numbers[SEARCH_ITERATIONS]:
            step = min(1 / sqrt(dot_of(share, work(search, AHEAD), work(search, AHEAD))), LONGEST)
        if search_line(share, numbers, slope, step, &value, &line, &last_slope):
            break
        exchange(PUT_VALUES, share, vector(search, AT_POINT))
        meet(share.net.progress.meeting, share.net.progress.n_threads)
        if not numbers[SEARCH_PAIRS]:
            numbers[SEARCH_END] = FAILED
            return False
        numbers[SEARCH_PAIRS], numbers[SEARCH_SCALE] = 0, 1
    accept_figures(share)
    keep_pair(share, numbers, line.step, slope, last_slope)
    memcpy(vector(search, AT_POINT) + share.first, work(search, TRIAL) + share.first, size)
    memcpy(vector(search, AT_GRADIENT) + share.first, work(search, TRIAL_GRADIENT) + share.first, size)
    note_value(numbers, &value)
    numbers[SEARCH_STEP] = line.step
    numbers[SEARCH_ITERATIONS] += 1
    if largest_of(share, vector(search, AT_GRADIENT)) <= search.gradient_tolerance:
        numbers[SEARCH_END] = FLAT
    elif before - value.loss <= search.loss_tolerance * max(max(fabs(before), fabs(value.loss)), <double> 1):
        numbers[SEARCH_END] = SLOW
    elif numbers[SEARCH_EVALUATIONS] > <double> search.max_evaluations:
        numbers[SEARCH_END] = EVALUATED
    return True


cdef void record_iteration(const Net *net, Py_ssize_t step, const double *numbers) noexcept nogil:
    """Record an iteration as a step and as an epoch. The length of its step takes the place of the rate."""
    cdef Figures *figures = &net.progress.figures
    record(
        figures.steps, figures.steps_size, step, numbers[SEARCH_DATA_LOSS], numbers[SEARCH_PENALTY],
        numbers[SEARCH_ACCURACY],
    )
    figures.steps[4 * figures.steps_size + step] = numbers[SEARCH_STEP]
    record(
        figures.epochs, figures.epochs_size, step, numbers[SEARCH_DATA_LOSS], numbers[SEARCH_PENALTY],
        numbers[SEARCH_ACCURACY],
    )
    figures.epochs[4 * figures.epochs_size + step] = numbers[SEARCH_STEP]


cdef Py_ssize_t minimize(const Net *net, Search *search, Py_ssize_t n_iterations, int thread) noexcept nogil:
    """Do some iterations, as one of the threads. Return how many were done before the search ended.

    If there are none to do, evaluate the model once, for the layers' attributes.
    """
    cdef Py_ssize_t n_pieces = search_pieces(search.size), step = 0
    cdef int n_threads = net.progress.n_threads
    cdef double numbers[SEARCH_NUMBERS]
    cdef Share share
    cdef Value value
    share.net, share.search, share.thread, share.turn = net, search, thread, 0
    share.first = min(n_pieces * thread // n_threads * SUMMED, search.size)
    share.end = min(n_pieces * (thread + 1) // n_threads * SUMMED, search.size)
    if n_iterations == 0:
        evaluate_search(&share, &value)
        return 0
    memcpy(numbers, search.numbers, sizeof(numbers))
    start_search(&share, numbers)
    while step < n_iterations and numbers[SEARCH_END] == GOES_ON and iterate_search(&share, numbers):
        if thread == 0:
            record_iteration(net, step, numbers)
        step += 1
    meet(net.progress.meeting, n_threads)
    if thread == 0:
        memcpy(search.numbers, numbers, sizeof(numbers))
    return step
