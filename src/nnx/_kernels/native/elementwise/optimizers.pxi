# The optimizers' rules. Each has a formula, which changes a vector of values and of their states; the constants of a
# step; and a line that enters it into the table, which all other code reads.

ctypedef void (*rule_formula)(vec *value, vec gradient, vec *states, const vec *constants) noexcept nogil

cdef Rule rules[MAX_RULES]
cdef int n_rules = 0


cdef const Rule *add_rule(
    const char *name, int n_states, int n_settings, prepare_t prepare, apply_t apply
) except NULL:
    """Enter a rule into the table. Return its row."""
    global n_rules
    cdef Rule *row = &rules[n_rules]
    if n_rules == MAX_RULES or n_states > MAX_STATES or n_settings > MAX_SETTINGS:
        raise ImportError("The table of rules is full: MAX_RULES, MAX_STATES or MAX_SETTINGS is too small.")
    row.name, row.n_states, row.n_settings, row.prepare, row.apply = name, n_states, n_settings, prepare, apply
    n_rules += 1
    return row


cdef inline void update(
    rule_formula formula,
    const int n_states,  # a constant at every call
    real_t *values,  # `lines` in and out
    const real_t *gradients,  # `lines` in
    real_t **states,  # n_states arrays like the values, in and out
    const Lines *lines,
    const vec *constants,
) noexcept nogil:
    """Apply ``formula`` everywhere. The end of each line goes through it in a padded vector.

    Addresses and constants are copied, because compilers would load them again after each store, which might have
    changed them. Constants are copied within the loop over lines, where GCC drops the unused ones. Before the loop, it
    makes one slow copy of all, a sixth of the time for 400 numbers. States are written one by one. In a loop over them,
    GCC keeps them in memory, which costs 4 % of a small network's step.
    """
    cdef vec fixed[MAX_CONSTANTS]
    cdef real_t *first = states[0] if n_states > 0 else NULL
    cdef real_t *second = states[1] if n_states > 1 else NULL
    cdef real_t *third = states[2] if n_states > 2 else NULL
    cdef Py_ssize_t row, i, n = lines.columns, whole = n - n % LANES, line = lines.line
    cdef Py_ssize_t gradient_line = lines.gradient_line
    cdef int k, rest = <int> (n % LANES)
    for row in range(lines.rows):
        for k in range(MAX_CONSTANTS):
            fixed[k] = constants[k]
        i = 0
        while i < whole:
            update_vector(formula, n_states, values + i, gradients + i, first + i, second + i, third + i, LANES, fixed)
            i += LANES
        if rest:
            update_vector(formula, n_states, values + i, gradients + i, first + i, second + i, third + i, rest, fixed)
        values += line
        gradients += gradient_line
        first += line
        second += line
        third += line


cdef inline void update_vector(
    rule_formula formula, const int n_states, real_t *values, const real_t *gradients, real_t *first, real_t *second,
    real_t *third, int count, const vec *constants,
) noexcept nogil:
    """Apply ``formula`` to ``count`` numbers, at most a vector of them."""
    cdef vec value = v_load_part(values, count)
    cdef vec kept[MAX_STATES]
    if n_states > 0:
        kept[0] = v_load_part(first, count)
    if n_states > 1:
        kept[1] = v_load_part(second, count)
    if n_states > 2:
        kept[2] = v_load_part(third, count)
    formula(&value, v_load_part(gradients, count), kept, constants)
    if n_states > 0:
        v_store_part(first, kept[0], count)
    if n_states > 1:
        v_store_part(second, kept[1], count)
    if n_states > 2:
        v_store_part(third, kept[2], count)
    v_store_part(values, value, count)


cdef void update_by_rule(
    const Rule *rule,
    real_t *values,  # (n,) in and out
    const real_t *gradients,  # (n,) in
    real_t **states,  # (n,) each, in and out
    Py_ssize_t n,
    double rate,
    double step,  # counted from 1
    const double *settings,
) noexcept nogil:
    """One step of a rule on one parameter."""
    cdef vec constants[MAX_CONSTANTS]
    cdef Lines lines = one_line(n)
    rule.prepare(constants, rate, step, settings)
    rule.apply(values, gradients, <void **> states, &lines, constants)


# SGD: w ← w − rate·g


cdef void sgd_constants(vec *constants, double rate, double step, const double *settings) noexcept nogil:
    constants[0] = v_all(<real_t> -rate)


cdef inline void sgd_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    value[0] = v_madd(constants[0], g, value[0])


cdef void sgd(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(sgd_rule, 0, values, gradients, states, lines, constants)


add_rule("sgd", 0, 0, <prepare_t> sgd_constants, <apply_t> sgd)


# SGD with momentum: m ← momentum·m − rate·g; w ← w + m. Settings: momentum.


cdef void sgd_momentum_constants(vec *constants, double rate, double step, const double *settings) noexcept nogil:
    constants[0], constants[1] = v_all(<real_t> -rate), v_all(<real_t> settings[0])


cdef inline void sgd_momentum_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    states[0] = v_madd(constants[0], g, v_mul(constants[1], states[0]))
    value[0] = v_add(value[0], states[0])


cdef void sgd_momentum(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(sgd_momentum_rule, 1, values, gradients, states, lines, constants)


add_rule("sgd_momentum", 1, 1, <prepare_t> sgd_momentum_constants, <apply_t> sgd_momentum)


# SGD with Nesterov's momentum: m ← momentum·m − rate·g; w ← w + momentum·m − rate·g. Settings: momentum.


cdef inline void sgd_nesterov_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    states[0] = v_madd(constants[0], g, v_mul(constants[1], states[0]))
    value[0] = v_add(value[0], v_madd(constants[1], states[0], v_mul(constants[0], g)))


cdef void sgd_nesterov(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(sgd_nesterov_rule, 1, values, gradients, states, lines, constants)


add_rule("sgd_nesterov", 1, 1, <prepare_t> sgd_momentum_constants, <apply_t> sgd_nesterov)


# Adagrad: c ← c + g²; w ← w − rate·g / (√c + epsilon). Settings: epsilon.


cdef void adagrad_constants(vec *constants, double rate, double step, const double *settings) noexcept nogil:
    constants[0], constants[1] = v_all(<real_t> rate), v_all(<real_t> settings[0])


cdef inline void adagrad_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    states[0] = v_madd(g, g, states[0])
    value[0] = v_sub(value[0], v_div(v_mul(constants[0], g), v_add(v_sqrt(states[0]), constants[1])))


cdef void adagrad(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(adagrad_rule, 1, values, gradients, states, lines, constants)


add_rule("adagrad", 1, 1, <prepare_t> adagrad_constants, <apply_t> adagrad)


# RMSprop: c ← rho·c + (1 − rho)·g²; w ← w − rate·g / (√c + epsilon). Settings: epsilon, rho.


cdef void rmsprop_constants(vec *constants, double rate, double step, const double *settings) noexcept nogil:
    constants[0], constants[1] = v_all(<real_t> rate), v_all(<real_t> settings[0])
    constants[2], constants[3] = v_all(<real_t> settings[1]), v_all(<real_t> (1 - settings[1]))


cdef inline void rmsprop_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    states[0] = v_madd(constants[2], states[0], v_mul(constants[3], v_mul(g, g)))
    value[0] = v_sub(value[0], v_div(v_mul(constants[0], g), v_add(v_sqrt(states[0]), constants[1])))


cdef void rmsprop(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(rmsprop_rule, 1, values, gradients, states, lines, constants)


add_rule("rmsprop", 1, 2, <prepare_t> rmsprop_constants, <apply_t> rmsprop)


# Adam (Kingma and Ba, 2015): m ← β₁·m + (1 − β₁)·g; c ← β₂·c + (1 − β₂)·g²; w ← w − rate·m̂ / (√ĉ + epsilon), where m̂
# = m / (1 − β₁ᵗ) and ĉ = c / (1 − β₂ᵗ) for step t. Settings: epsilon, β₁, β₂, and whether epsilon is the paper's ε̂.
# Both corrections are in the constants: √(c/b) + ε = (√c + ε·√b) / √b. In this form, ε̂ replaces ε·√b.


cdef void adam_constants(vec *constants, double rate, double step, const double *settings) noexcept nogil:
    cdef double epsilon = settings[0], beta_1 = settings[1], beta_2 = settings[2]
    cdef double root = sqrt(1 - pow(beta_2, step))
    constants[0] = v_all(<real_t> (-rate * root / (1 - pow(beta_1, step))))
    constants[1] = v_all(<real_t> (epsilon * root))
    constants[2], constants[3] = v_all(<real_t> beta_1), v_all(<real_t> (1 - beta_1))
    constants[4], constants[5] = v_all(<real_t> beta_2), v_all(<real_t> (1 - beta_2))


cdef void either_adam_constants(vec *constants, double rate, double step, const double *settings) noexcept nogil:
    adam_constants(constants, rate, step, settings)
    if settings[3]:
        constants[1] = v_all(<real_t> settings[0])


cdef inline void adam_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    states[0] = v_madd(constants[2], states[0], v_mul(constants[3], g))
    states[1] = v_madd(constants[4], states[1], v_mul(constants[5], v_mul(g, g)))
    value[0] = v_madd(constants[0], v_div(states[0], v_add(v_sqrt(states[1]), constants[1])), value[0])


cdef void adam(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(adam_rule, 2, values, gradients, states, lines, constants)


add_rule("adam", 2, 4, <prepare_t> either_adam_constants, <apply_t> adam)


# AdamW (Loshchilov and Hutter, 2019): w ← w − rate·weight_decay·w, then as Adam. Settings: epsilon, β₁, β₂,
# weight_decay. In float32, 1 − rate·weight_decay would keep only a few digits of rate·weight_decay. Subtracting it
# keeps all.


cdef void adamw_constants(vec *constants, double rate, double step, const double *settings) noexcept nogil:
    adam_constants(constants, rate, step, settings)
    constants[6] = v_all(<real_t> (-rate * settings[3]))


cdef inline void adamw_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    value[0] = v_madd(constants[6], value[0], value[0])
    adam_rule(value, g, states, constants)


cdef void adamw(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(adamw_rule, 2, values, gradients, states, lines, constants)


add_rule("adamw", 2, 4, <prepare_t> adamw_constants, <apply_t> adamw)


# NAdam (Dozat, 2016) with one β₁ for all steps: m and c as Adam's; w ← w − rate·m̄ / (√ĉ + epsilon), where
# m̄ = β₁·m / (1 − β₁ᵗ⁺¹) + (1 − β₁)·g / (1 − β₁ᵗ). Settings: epsilon, β₁, β₂.


cdef void nadam_constants(vec *constants, double rate, double step, const double *settings) noexcept nogil:
    cdef double beta_1 = settings[1], root = sqrt(1 - pow(settings[2], step))
    adam_constants(constants, rate, step, settings)
    constants[0] = v_all(<real_t> (-rate * root * beta_1 / (1 - pow(beta_1, step + 1))))
    constants[6] = v_all(<real_t> (-rate * root * (1 - beta_1) / (1 - pow(beta_1, step))))


cdef inline void nadam_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    cdef vec ahead
    states[0] = v_madd(constants[2], states[0], v_mul(constants[3], g))
    states[1] = v_madd(constants[4], states[1], v_mul(constants[5], v_mul(g, g)))
    ahead = v_madd(constants[0], states[0], v_mul(constants[6], g))
    value[0] = v_add(value[0], v_div(ahead, v_add(v_sqrt(states[1]), constants[1])))


cdef void nadam(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(nadam_rule, 2, values, gradients, states, lines, constants)


add_rule("nadam", 2, 3, <prepare_t> nadam_constants, <apply_t> nadam)


# AMSGrad (Reddi, Kale and Kumar, 2018): m and c as Adam's; l ← max(l, c); w ← w − rate·m̂ / (√l̂ + epsilon), where
# l̂ = l / (1 − β₂ᵗ). Settings: epsilon, β₁, β₂.


cdef inline void amsgrad_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    states[0] = v_madd(constants[2], states[0], v_mul(constants[3], g))
    states[1] = v_madd(constants[4], states[1], v_mul(constants[5], v_mul(g, g)))
    states[2] = v_max(states[2], states[1])  # NaN where the second is NaN
    value[0] = v_madd(constants[0], v_div(states[0], v_add(v_sqrt(states[2]), constants[1])), value[0])


cdef void amsgrad(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(amsgrad_rule, 3, values, gradients, states, lines, constants)


add_rule("amsgrad", 3, 3, <prepare_t> adam_constants, <apply_t> amsgrad)


# Lion (Chen et al., 2023): u = sign(β₁·m + (1 − β₁)·g); w ← w − rate·weight_decay·w − rate·u; m ← β₂·m + (1 − β₂)·g.
# Settings: β₁, β₂, weight_decay.


cdef void lion_constants(vec *constants, double rate, double step, const double *settings) noexcept nogil:
    constants[0], constants[1] = v_all(<real_t> -rate), v_all(<real_t> (-rate * settings[2]))
    constants[2], constants[3] = v_all(<real_t> settings[0]), v_all(<real_t> (1 - settings[0]))
    constants[4], constants[5] = v_all(<real_t> settings[1]), v_all(<real_t> (1 - settings[1]))


cdef inline void lion_rule(vec *value, vec g, vec *states, const vec *constants) noexcept nogil:
    # Products are rounded before they are added. So where they cancel, no rounding error gives the sum a sign.
    cdef vec ahead = v_add(v_mul(constants[2], states[0]), v_mul(constants[3], g))
    value[0] = v_madd(constants[1], value[0], value[0])
    value[0] = v_madd(constants[0], sign_of(ahead), value[0])
    states[0] = v_madd(constants[4], states[0], v_mul(constants[5], g))


cdef void lion(
    real_t *values, const real_t *gradients, real_t **states, const Lines *lines, const vec *constants
) noexcept nogil:
    update(lion_rule, 1, values, gradients, states, lines, constants)


add_rule("lion", 1, 3, <prepare_t> lion_constants, <apply_t> lion)


# Around every rule: clipping of gradients before it, an average of the values after it


cdef inline vec limited(vec g, vec unused, vec limit) noexcept nogil:
    """g kept within [−limit, limit]; NaN for NaN."""
    return v_min(limit, v_max(v_sub(v_all(0), limit), g))


cdef inline vec multiple_of(vec x, vec unused, vec factor) noexcept nogil:
    return v_mul(x, factor)


cdef inline vec average_of(vec average, vec value, vec keep) noexcept nogil:
    return v_madd(keep, v_sub(average, value), value)


cdef void clip_gradients(const real_t *gradients, real_t *result, Py_ssize_t n, double limit) noexcept nogil:
    """``result := gradients`` kept within [−limit, limit]; (n,), result may be gradients."""
    map_two(limited, gradients, gradients, <real_t> limit, result, n)


cdef void scale_gradients(const real_t *gradients, real_t *result, Py_ssize_t n, double factor) noexcept nogil:
    """``result := factor·gradients``; (n,), result may be gradients."""
    map_two(multiple_of, gradients, gradients, <real_t> factor, result, n)


cdef void average_by(const vec *keep, real_t *averages, const real_t *values, Py_ssize_t n) noexcept nogil:
    """``averages := keep·averages + (1 − keep)·values``; (n,) in and out, (n,) in."""
    cdef real_t numbers[MOST_LANES]
    v_store(numbers, keep[0])
    map_two(average_of, averages, values, numbers[0], averages, n)


cdef void average_update(real_t *averages, const real_t *values, Py_ssize_t n, double keep) noexcept nogil:
    """``averages := keep·averages + (1 − keep)·values``; (n,) in and out, (n,) in."""
    map_two(average_of, averages, values, <real_t> keep, averages, n)
