# Activations: formulas of vectors, each with the line that enters it into the table, from which all else learns of it.
#
# There are two kinds. Where backward starts from the output, an activation has a value and a gradient. Where it starts
# from the inputs, one formula gives both value and slope, which share what is costly: a training step computes both in
# its forward pass, and keeps the slope in place of the inputs.

ctypedef vec (*value_formula)(vec x, const vec *settings) noexcept nogil
ctypedef vec (*gradient_formula)(vec output, vec d, const vec *settings) noexcept nogil
ctypedef vec (*slope_formula)(vec x, vec *slope, const vec *settings) noexcept nogil

cdef Activation activations[MAX_ACTIVATIONS]
cdef int n_activations = 0


cdef const Activation *add_activation(const char *name, activation_t run, int traits, int n_settings) except NULL:
    """Enter an activation into the table; return its row."""
    global n_activations
    cdef Activation *row = &activations[n_activations]
    if n_activations == MAX_ACTIVATIONS or n_settings > MAX_SETTINGS:
        raise ImportError("The table of activations is full: MAX_ACTIVATIONS or MAX_SETTINGS is too small.")
    row.name, row.run, row.traits, row.n_settings = name, run, traits, n_settings
    n_activations += 1
    return row


# The loops of both kinds


cdef inline void by_output(
    value_formula value,
    gradient_formula gradient,
    Pass which,
    const real_t *x,  # (n,) in: the inputs; backward, the output
    const real_t *d,  # (n,) in: dvalues, backward only
    real_t *result,  # (n,) out: the output; backward, dinputs; may be x or d
    Py_ssize_t n,
    const double *settings,
) noexcept nogil:
    """Run an activation whose backward starts from the output."""
    cdef vec everywhere[MAX_SETTINGS]
    cdef Py_ssize_t i, block, whole = n - n % LANES
    cdef int rest = <int> (n % LANES)
    load_settings(everywhere, settings)
    if which == BACKWARD:
        for block in range(whole // LANES):
            i = block * LANES
            v_store(result + i, gradient(v_load(x + i), v_load(d + i), everywhere))
        if rest:
            v_store_part(
                result + whole,
                gradient(v_load_part(x + whole, rest), v_load_part(d + whole, rest), everywhere), rest,
            )
        return
    for block in range(whole // LANES):
        i = block * LANES
        v_store(result + i, value(v_load(x + i), everywhere))
    if rest:
        v_store_part(result + whole, value(v_load_part(x + whole, rest), everywhere), rest)


cdef inline void by_inputs(
    slope_formula formula,
    Pass which,
    real_t *x,  # (n,) in: the inputs; with FORWARD_AND_SLOPE out, the slopes
    const real_t *d,  # (n,) in: dvalues, backward only
    real_t *result,  # (n,) out: the output; backward, dinputs; may be x or d, but with FORWARD_AND_SLOPE not x
    Py_ssize_t n,
    const double *settings,
) noexcept nogil:
    """Run an activation whose backward starts from the inputs."""
    cdef vec everywhere[MAX_SETTINGS]
    cdef vec slope, value
    cdef Py_ssize_t i, block, whole = n - n % LANES
    cdef int rest = <int> (n % LANES)
    load_settings(everywhere, settings)
    if which == BACKWARD:
        for block in range(whole // LANES):
            i = block * LANES
            formula(v_load(x + i), &slope, everywhere)
            v_store(result + i, v_mul(v_load(d + i), slope))
        if rest:
            formula(v_load_part(x + whole, rest), &slope, everywhere)
            v_store_part(result + whole, v_mul(v_load_part(d + whole, rest), slope), rest)
    elif which == FORWARD_AND_SLOPE:
        for block in range(whole // LANES):
            i = block * LANES
            value = formula(v_load(x + i), &slope, everywhere)
            v_store(result + i, value)
            v_store(x + i, slope)
        if rest:
            value = formula(v_load_part(x + whole, rest), &slope, everywhere)
            v_store_part(result + whole, value, rest)
            v_store_part(x + whole, slope, rest)
    else:
        for block in range(whole // LANES):
            i = block * LANES
            v_store(result + i, formula(v_load(x + i), &slope, everywhere))
        if rest:
            v_store_part(result + whole, formula(v_load_part(x + whole, rest), &slope, everywhere), rest)


# Rectified linear unit: max(0, x)


cdef inline vec relu_of(vec x) noexcept nogil:
    """max(0, x), NaN for NaN."""
    return v_select(v_at_most(x, v_all(0)), v_all(0), x)


cdef inline vec relu_value(vec x, const vec *settings) noexcept nogil:
    return relu_of(x)


cdef inline vec relu_gradient(vec output, vec d, const vec *settings) noexcept nogil:
    return v_select(v_at_most(output, v_all(0)), v_all(0), d)


cdef void relu(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_output(relu_value, relu_gradient, which, x, d, result, rows * columns, settings)


add_activation("relu", <activation_t> relu, FUSES_WITH_DENSE, 0)


cdef void relu_backward(const real_t *output, const real_t *dvalues, real_t *dinputs, Py_ssize_t n) noexcept nogil:
    """``dinputs := dvalues`` where not output <= 0, else 0; (n,), dinputs may be either."""
    by_output(relu_value, relu_gradient, BACKWARD, output, dvalues, dinputs, n, NO_SETTINGS)


# Sigmoid: 1 / (1 + exp(−x)), with exp(−|x|), which cannot overflow


cdef inline vec sigmoid_value(vec x, const vec *settings) noexcept nogil:
    cdef vec decay = v_exp(v_sub(v_all(0), v_abs(x)))
    return v_div(v_select(v_greater(v_all(0), x), decay, v_all(1)), v_add(v_all(1), decay))


cdef inline vec sigmoid_gradient(vec output, vec d, const vec *settings) noexcept nogil:
    return v_mul(v_mul(v_sub(v_all(1), output), output), d)


cdef void sigmoid(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_output(sigmoid_value, sigmoid_gradient, which, x, d, result, rows * columns, settings)


add_activation("sigmoid", <activation_t> sigmoid, 0, 0)


# Softmax, which looks at whole rows (softmax.pxi)


cdef void softmax(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    if which == BACKWARD:
        softmax_backward(x, d, result, rows, columns)
    else:
        softmax_forward(x, result, rows, columns, scratch)


add_activation("softmax", <activation_t> softmax, WHOLE_ROWS, 0)


# The identity


cdef void linear(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    copy(d if which == BACKWARD else x, result, rows * columns)


add_activation("linear", <activation_t> linear, IDENTITY, 0)
