# Activations: formulas on vectors. Each has a line that enters it into the table, which all other code reads.
#
# There are two kinds. If backward starts from the output, an activation has a value and a gradient. If it starts from
# the inputs, one formula returns both value and slope, because they share the costly part. A training step computes
# both in its forward pass, and keeps the slope in place of the inputs.

ctypedef vec (*value_formula)(vec x, const vec *settings) noexcept nogil
ctypedef vec (*gradient_formula)(vec output, vec d, const vec *settings) noexcept nogil
ctypedef vec (*slope_formula)(vec x, vec *slope, const vec *settings) noexcept nogil

cdef Activation activations[MAX_ACTIVATIONS]
cdef int n_activations = 0


cdef const Activation *add_activation(const char *name, activation_t run, int traits, int n_settings) except NULL:
    """Enter an activation into the table. Return its row."""
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


# Hyperbolic tangent


cdef inline vec tanh_value(vec x, const vec *settings) noexcept nogil:
    return v_tanh(x)


cdef inline vec tanh_gradient(vec output, vec d, const vec *settings) noexcept nogil:
    """(1 − y²)·d as two factors: where |y| is near 1, the difference 1 − |y| is exact, but y² would be rounded."""
    return v_mul(v_mul(v_sub(v_all(1), output), v_add(v_all(1), output)), d)


cdef void hyperbolic_tangent(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_output(tanh_value, tanh_gradient, which, x, d, result, rows * columns, settings)


add_activation("tanh", <activation_t> hyperbolic_tangent, 0, 0)


# Leaky rectified linear unit: x, or slope·x below 0. Settings: slope, not negative, so that the output has x's sign


cdef inline vec leaky_relu_value(vec x, const vec *settings) noexcept nogil:
    return v_select(v_at_most(x, v_all(0)), v_mul(settings[0], x), x)


cdef inline vec leaky_relu_gradient(vec output, vec d, const vec *settings) noexcept nogil:
    return v_select(v_at_most(output, v_all(0)), v_mul(settings[0], d), d)


cdef void leaky_relu(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_output(leaky_relu_value, leaky_relu_gradient, which, x, d, result, rows * columns, settings)


add_activation("leaky_relu", <activation_t> leaky_relu, 0, 1)


# Exponential linear unit: x, or alpha·(exp(x) − 1) below 0, with the slope output + alpha. Settings: alpha, not
# negative


cdef inline vec elu_value(vec x, const vec *settings) noexcept nogil:
    return v_select(v_greater(x, v_all(0)), x, v_mul(settings[0], v_expm1(x)))


cdef inline vec elu_gradient(vec output, vec d, const vec *settings) noexcept nogil:
    return v_select(v_greater(output, v_all(0)), d, v_mul(v_add(output, settings[0]), d))


cdef void elu(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_output(elu_value, elu_gradient, which, x, d, result, rows * columns, settings)


add_activation("elu", <activation_t> elu, 0, 1)


# Scaled exponential linear unit: the same, times a scale. Both numbers are those that keep mean 0 and variance 1

cdef double SELU_SCALE = 1.0507009873554804934193349852946
cdef double SELU_ALPHA = 1.6732632423543772848170429916717


cdef inline vec selu_value(vec x, const vec *settings) noexcept nogil:
    cdef vec above = v_mul(v_all(<real_t> SELU_SCALE), x)
    return v_select(v_greater(x, v_all(0)), above, v_mul(v_all(<real_t> (SELU_SCALE * SELU_ALPHA)), v_expm1(x)))


cdef inline vec selu_gradient(vec output, vec d, const vec *settings) noexcept nogil:
    cdef vec below = v_add(output, v_all(<real_t> (SELU_SCALE * SELU_ALPHA)))
    return v_mul(v_select(v_greater(output, v_all(0)), v_all(<real_t> SELU_SCALE), below), d)


cdef void selu(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_output(selu_value, selu_gradient, which, x, d, result, rows * columns, settings)


add_activation("selu", <activation_t> selu, 0, 0)


# Activations x·g(x), where g rises from 0 to 1. Their slope is g + x·g'. Where g' is 0 or nearly 0, the limit of the
# reach replaces x, because infinity times 0 would be NaN. At −inf the value is that at the limit: 0 or −1e-36.


cdef inline vec within(vec x, real_t low, real_t high) noexcept nogil:
    """x kept within [low, high]; NaN stays NaN."""
    return v_min(v_all(high), v_max(v_all(low), x))


cdef inline vec gated(
    vec x,
    vec near,  # x within reach
    vec z,  # g = sigmoid(z), z within EXP_REACH
    vec rate,  # the slope of z
    vec *slope,
) noexcept nogil:
    """x·s, s = sigmoid(z), and its slope s + x·rate·s·(1 − s), of one exponential and one division.

    It uses exp(−z) for both signs of z. That is a third faster than exp(−|z|), which needs a choice of s or 1 − s.
    """
    cdef vec decay = v_exp_near(v_sub(v_all(0), z))
    cdef vec s = v_div(v_all(1), v_add(v_all(1), decay))
    slope[0] = v_madd(v_mul(near, rate), v_mul(s, v_mul(decay, s)), s)
    return v_mul(v_max(near, x), s)


# Gaussian error linear unit: x·P(X < x) for a normal X. Settings: whether to approximate P by a tanh, as a sigmoid

cdef double ROOT_OF_8_BY_PI = 1.5957691216057307117597842397375  # 2·sqrt(2/π)
cdef double GELU_CUBE = 0.044715


cdef inline vec gelu_formula(vec x, vec *slope, const vec *settings) noexcept nogil:
    cdef vec near = within(x, -38, 38)  # there the density is 0, also in double
    cdef vec cdf, pdf
    v_normal(near, &cdf, &pdf)
    slope[0] = v_madd(near, pdf, cdf)
    return v_mul(v_max(near, x), cdf)


cdef inline vec gelu_by_tanh_formula(vec x, vec *slope, const vec *settings) noexcept nogil:
    """x·(1 + tanh(u))/2 = x·sigmoid(2u), u = sqrt(2/π)·(x + 0.044715·x³)."""
    cdef real_t reach = 9.7 if sizeof(real_t) == 4 else 20.9  # there 2u is 81, 685
    cdef vec near = within(x, -reach, reach)
    cdef vec square = v_mul(near, near)
    cdef vec twice = v_all(<real_t> ROOT_OF_8_BY_PI)
    cdef vec part = v_madd(square, v_all(<real_t> (ROOT_OF_8_BY_PI * GELU_CUBE)), twice)
    cdef vec rate = v_madd(square, v_all(<real_t> (3 * ROOT_OF_8_BY_PI * GELU_CUBE)), twice)
    return gated(x, near, v_mul(near, part), rate, slope)


cdef void gelu(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    if settings[0]:
        by_inputs(gelu_by_tanh_formula, which, x, d, result, rows * columns, settings)
    else:
        by_inputs(gelu_formula, which, x, d, result, rows * columns, settings)


add_activation("gelu", <activation_t> gelu, FROM_INPUTS, 1)


# Sigmoid linear unit: x·sigmoid(x)


cdef inline vec silu_formula(vec x, vec *slope, const vec *settings) noexcept nogil:
    cdef vec near = within(x, -EXP_REACH, EXP_REACH)
    return gated(x, near, near, v_all(1), slope)


cdef void silu(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_inputs(silu_formula, which, x, d, result, rows * columns, settings)


add_activation("silu", <activation_t> silu, FROM_INPUTS, 0)


# Mish: x·tanh(log(1 + exp(x)))


cdef inline vec mish_formula(vec x, vec *slope, const vec *settings) noexcept nogil:
    """With e = exp(x) and w = e·(e + 2), the tanh is w / (w + 2), and its slope 4·e·(e + 1) / (w + 2)²."""
    cdef real_t one_from = 20 if sizeof(real_t) == 4 else 40  # the tanh is 1
    cdef vec near = within(x, -EXP_REACH, one_from)
    cdef vec e = v_exp_near(near)
    cdef vec w = v_mul(e, v_add(e, v_all(2)))
    cdef vec part = v_div(v_all(1), v_add(w, v_all(2)))
    cdef vec tanh = v_mul(w, part)
    cdef vec four = v_mul(v_mul(v_all(4), e), v_add(e, v_all(1)))
    slope[0] = v_madd(v_mul(near, part), v_mul(four, part), tanh)
    return v_mul(v_max(near, x), tanh)


cdef void mish(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_inputs(mish_formula, which, x, d, result, rows * columns, settings)


add_activation("mish", <activation_t> mish, FROM_INPUTS, 0)


# Hard sigmoid: x/6 + 1/2 between −3 and 3, 0 below, 1 above


cdef inline vec ramp(vec x) noexcept nogil:
    """min(6, max(0, x + 3)), NaN for NaN."""
    return v_min(v_all(6), v_max(v_all(0), v_add(x, v_all(3))))


cdef inline vec hard_sigmoid_value(vec x, const vec *settings) noexcept nogil:
    return v_mul(ramp(x), v_all(<real_t> (1.0 / 6)))


cdef inline vec hard_sigmoid_gradient(vec output, vec d, const vec *settings) noexcept nogil:
    cdef vec below = v_select(v_greater(v_all(1), output), v_mul(d, v_all(<real_t> (1.0 / 6))), v_all(0))
    return v_select(v_greater(output, v_all(0)), below, v_all(0))


cdef void hard_sigmoid(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_output(hard_sigmoid_value, hard_sigmoid_gradient, which, x, d, result, rows * columns, settings)


add_activation("hard_sigmoid", <activation_t> hard_sigmoid, 0, 0)


# Hard swish: x times the hard sigmoid of x


cdef inline vec hard_swish_formula(vec x, vec *slope, const vec *settings) noexcept nogil:
    cdef mask below = v_at_most(x, v_all(-3))  # there a product could be infinity times 0
    cdef vec inside = v_madd(x, v_all(<real_t> (1.0 / 3)), v_all(<real_t> 0.5))
    slope[0] = v_select(v_greater(v_all(3), x), v_select(below, v_all(0), inside), v_all(1))
    return v_select(below, v_all(0), v_mul(x, v_mul(ramp(x), v_all(<real_t> (1.0 / 6)))))


cdef void hard_swish(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_inputs(hard_swish_formula, which, x, d, result, rows * columns, settings)


add_activation("hard_swish", <activation_t> hard_swish, FROM_INPUTS, 0)


# Softplus: log(1 + exp(x)), as max(0, x) + log(1 + exp(−|x|)), which cannot overflow; its slope is the sigmoid


cdef inline vec softplus_formula(vec x, vec *slope, const vec *settings) noexcept nogil:
    cdef vec decay = v_exp(v_sub(v_all(0), v_abs(x)))
    slope[0] = v_div(v_select(v_greater(v_all(0), x), decay, v_all(1)), v_add(v_all(1), decay))
    return v_add(relu_of(x), v_log1p(decay))


cdef void softplus(
    Pass which, real_t *x, const real_t *d, real_t *result, Py_ssize_t rows, Py_ssize_t columns,
    const double *settings, real_t *scratch,
) noexcept nogil:
    by_inputs(softplus_formula, which, x, d, result, rows * columns, settings)


add_activation("softplus", <activation_t> softplus, FROM_INPUTS, 0)


# Softmax, which needs whole rows (softmax.pxi)


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
