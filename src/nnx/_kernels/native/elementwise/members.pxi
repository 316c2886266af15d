# Layers of an ensemble within one network: each sample has a row for each member, one after the other. If samples are
# not repeated, a sample's rows form one line of members·columns numbers, as do the members' parameters.


cdef inline void multiply_line(
    const real_t *inputs, const real_t *weights, const real_t *biases, real_t *output, Py_ssize_t n
) noexcept nogil:
    """``output := inputs·weights + biases``; (n,), biases may be NULL, output may be inputs."""
    cdef Py_ssize_t j = 0
    cdef int rest
    while j + LANES <= n:
        v_store(output + j, v_madd(
            v_load(inputs + j), v_load(weights + j), v_load(biases + j) if biases is not NULL else v_all(0)
        ))
        j += LANES
    rest = <int> (n - j)
    if rest:
        v_store_part(output + j, v_madd(
            v_load_part(inputs + j, rest), v_load_part(weights + j, rest),
            v_load_part(biases + j, rest) if biases is not NULL else v_all(0),
        ), rest)


cdef void members_forward(
    const real_t *inputs,  # (samples, columns) in if they are repeated, else (samples, members, columns)
    const real_t *weights,  # (members, columns) in
    const real_t *biases,  # (members, columns) in; or NULL
    real_t *output,  # (samples, members, columns) out; may be inputs that are not repeated
    Py_ssize_t samples,
    Py_ssize_t members,
    Py_ssize_t columns,
    bint repeats,
) noexcept nogil:
    """``output := inputs·weights + biases`` for each member of each sample."""
    cdef Py_ssize_t line = columns if repeats else members * columns, i, at
    for i in range(samples):
        at = 0
        while at < members * columns:
            multiply_line(inputs, weights + at, biases + at if biases is not NULL else NULL, output + at, line)
            at += line
        inputs += line
        output += members * columns


cdef void members_backward_inputs(
    const real_t *dvalues,  # (samples, members, columns) in
    const real_t *weights,  # (members, columns) in
    real_t *dinputs,  # (samples, columns) out
    Py_ssize_t samples,
    Py_ssize_t members,
    Py_ssize_t columns,
) noexcept nogil:
    """``dinputs := Σ over members of dvalues·weights``."""
    cdef Py_ssize_t i, j, m, count
    cdef vec sums
    for i in range(samples):
        j = 0
        while j < columns:
            count, sums = columns - j, v_all(0)
            for m in range(members):
                sums = v_madd(
                    load_columns(dvalues + m * columns + j, count), load_columns(weights + m * columns + j, count), sums
                )
            store_columns(dinputs + j, sums, count)
            j += LANES
        dvalues += members * columns
        dinputs += columns


cdef enum:
    SAMPLES_BESIDE = 4  # whose products are added up before they go to a sum in memory


cdef inline void add_products(
    const real_t *inputs,  # (count, n) in, `of_inputs` apart
    Py_ssize_t of_inputs,
    const real_t *dvalues,  # (count, n) in, `of_dvalues` apart
    Py_ssize_t of_dvalues,
    real_t *dweights,  # (n,) in and out
    real_t *dbiases,  # (n,) in and out; or NULL
    Py_ssize_t n,
    Py_ssize_t count,
) noexcept nogil:
    """``dweights += Σ dvalues·inputs, dbiases += Σ dvalues``."""
    cdef Py_ssize_t j = 0, i, left
    cdef vec products, sums, d
    while j < n:
        left, products, sums = n - j, v_all(0), v_all(0)
        for i in range(count):
            d = load_columns(dvalues + i * of_dvalues + j, left)
            products = v_madd(d, load_columns(inputs + i * of_inputs + j, left), products)
            sums = v_add(sums, d)
        store_columns(dweights + j, v_add(load_columns(dweights + j, left), products), left)
        if dbiases is not NULL:
            store_columns(dbiases + j, v_add(load_columns(dbiases + j, left), sums), left)
        j += LANES


cdef void members_backward_weights(
    const real_t *inputs,  # as in `members_forward`
    const real_t *dvalues,  # (samples, members, columns) in
    real_t *dweights,  # (members, columns) out, of some members
    real_t *dbiases,  # likewise; or NULL
    Py_ssize_t samples,
    Py_ssize_t members,
    Py_ssize_t columns,
    bint repeats,
    Py_ssize_t first,  # the first of the members whose gradients are computed
    Py_ssize_t end,
) noexcept nogil:
    """``dweights := Σ over samples of dvalues·inputs, dbiases := Σ over samples of dvalues``."""
    cdef Py_ssize_t begin = first * columns, stop = end * columns
    memset(dweights + begin, 0, (stop - begin) * sizeof(real_t))
    if dbiases is not NULL:
        memset(dbiases + begin, 0, (stop - begin) * sizeof(real_t))
    add_products_of_members(inputs, dvalues, dweights, dbiases, samples, members, columns, repeats, first, end)


cdef void add_products_of_members(
    const real_t *inputs,
    const real_t *dvalues,
    real_t *dweights,  # (members, columns) in and out, of some members
    real_t *dbiases,  # likewise; or NULL
    Py_ssize_t samples,
    Py_ssize_t members,
    Py_ssize_t columns,
    bint repeats,
    Py_ssize_t first,
    Py_ssize_t end,
) noexcept nogil:
    """``dweights += Σ over samples of dvalues·inputs, dbiases += Σ over samples of dvalues``; as above."""
    cdef Py_ssize_t line = columns if repeats else members * columns, i = 0, at, n, count
    cdef Py_ssize_t begin = first * columns, stop = end * columns
    while i < samples:
        count = min(<Py_ssize_t> SAMPLES_BESIDE, samples - i)
        at = begin
        while at < stop:
            n = columns if repeats else stop - begin
            add_products(
                inputs + (0 if repeats else at), line, dvalues + at, members * columns, dweights + at,
                dbiases + at if dbiases is not NULL else NULL, n, count,
            )
            at += n
        inputs += count * line
        dvalues += count * members * columns
        i += count


# A single output of each member: dot products instead of matrix products


cdef void member_dots(
    const real_t *inputs,  # (samples, members, n) in
    const real_t *weights,  # (members, n) in
    const real_t *biases,  # (members,) in
    real_t *output,  # (samples, members) out
    Py_ssize_t samples,
    Py_ssize_t members,
    Py_ssize_t n,
) noexcept nogil:
    """``output := Σ inputs·weights + biases`` for each member of each sample, a vector of members at a time."""
    cdef vec sums[MOST_LANES]
    cdef Py_ssize_t i, j, m
    cdef int l, count, rest
    for i in range(samples):
        m = 0
        while m < members:
            count = <int> min(<Py_ssize_t> LANES, members - m)
            for l in range(LANES):
                sums[l] = v_all(0)
            for l in range(count):
                j = 0
                while j + LANES <= n:
                    sums[l] = v_madd(v_load(inputs + j), v_load(weights + (m + l) * n + j), sums[l])
                    j += LANES
                rest = <int> (n - j)
                if rest:
                    sums[l] = v_madd(
                        v_load_part(inputs + j, rest), v_load_part(weights + (m + l) * n + j, rest), sums[l]
                    )
                inputs += n
            v_store_part(output + m, v_add(v_lane_sums(sums), v_load_part(biases + m, count)), count)
            m += LANES
        output += members


cdef void member_multiples(
    const real_t *dvalues,  # (samples, members) in
    const real_t *weights,  # (members, n) in
    real_t *dinputs,  # (samples, members, n) out
    Py_ssize_t samples,
    Py_ssize_t members,
    Py_ssize_t n,
) noexcept nogil:
    """``dinputs := dvalues·weights``."""
    cdef Py_ssize_t i, j, m
    cdef vec d
    for i in range(samples):
        for m in range(members):
            j, d = 0, v_all(dvalues[m])
            while j < n:
                store_columns(dinputs + j, v_mul(d, load_columns(weights + m * n + j, n - j)), n - j)
                j += LANES
            dinputs += n
        dvalues += members


cdef void add_outer_products(
    const real_t *inputs,  # (samples, members, n) in
    const real_t *dvalues,  # (samples, members) in
    real_t *dweights,  # (members, n) in and out
    real_t *dbiases,  # (members,) in and out
    Py_ssize_t samples,
    Py_ssize_t members,
    Py_ssize_t n,
) noexcept nogil:
    """``dweights += Σ over samples of dvalues·inputs, dbiases += Σ over samples of dvalues``."""
    cdef Py_ssize_t i, j, m
    cdef vec d
    for i in range(samples):
        for m in range(members):
            j, d = 0, v_all(dvalues[m])
            dbiases[m] += dvalues[m]
            while j < n:
                store_columns(
                    dweights + m * n + j,
                    v_madd(d, load_columns(inputs + j, n - j), load_columns(dweights + m * n + j, n - j)), n - j,
                )
                j += LANES
            inputs += n
        dvalues += members


cdef void mean_of_members(
    const real_t *values,  # (samples, members, columns) in
    real_t *result,  # (samples, columns) out
    Py_ssize_t samples,
    Py_ssize_t members,
    Py_ssize_t columns,
) noexcept nogil:
    """``result := the mean over members``, summed in double in their order."""
    cdef Py_ssize_t i, j, m
    cdef double sums
    for i in range(samples):
        for j in range(columns):
            sums = 0
            for m in range(members):
                sums += values[m * columns + j]
            result[j] = <real_t> (sums / <double> members)
        values += members * columns
        result += columns


cdef void copy_lines(
    const real_t *source, Py_ssize_t of_source, real_t *target, Py_ssize_t of_target, Py_ssize_t rows,
    Py_ssize_t columns,
) noexcept nogil:
    """``target := source``, both (rows, columns), with the given distances between rows."""
    cdef Py_ssize_t i
    for i in range(rows):
        memcpy(target, source, columns * sizeof(real_t))
        source += of_source
        target += of_target
