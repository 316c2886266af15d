# The update loops of the optimizers: each a formula that changes a vector of values and of state, and one loop for all.

ctypedef void (*rule)(vec *value, vec gradient, vec *momentum, vec *cache, const vec *constants) noexcept nogil


cdef inline void update(
    rule formula,
    real_t *values,  # (n,) in and out
    const real_t *gradients,  # (n,) in
    real_t *momentums,  # (n,) in and out; NULL if the rule has none
    real_t *cache,  # (n,) in and out; NULL if the rule has none
    const vec *constants,
    Py_ssize_t n,
) noexcept nogil:
    """Apply ``formula`` everywhere; the end of the arrays goes through it in padded vectors."""
    cdef vec value, momentum = v_all(0), stored = v_all(0)
    cdef Py_ssize_t i = 0, whole = n - n % LANES
    cdef int rest = <int> (n % LANES)
    while i < whole:
        value = v_load(values + i)
        if momentums is not NULL:
            momentum = v_load(momentums + i)
        if cache is not NULL:
            stored = v_load(cache + i)
        formula(&value, v_load(gradients + i), &momentum, &stored, constants)
        if momentums is not NULL:
            v_store(momentums + i, momentum)
        if cache is not NULL:
            v_store(cache + i, stored)
        v_store(values + i, value)
        i += LANES
    if rest:
        value = v_load_part(values + i, rest)
        if momentums is not NULL:
            momentum = v_load_part(momentums + i, rest)
        if cache is not NULL:
            stored = v_load_part(cache + i, rest)
        formula(&value, v_load_part(gradients + i, rest), &momentum, &stored, constants)
        if momentums is not NULL:
            v_store_part(momentums + i, momentum, rest)
        if cache is not NULL:
            v_store_part(cache + i, stored, rest)
        v_store_part(values + i, value, rest)


cdef inline void sgd_rule(vec *value, vec g, vec *momentum, vec *cache, const vec *constants) noexcept nogil:
    value[0] = v_sub(value[0], v_mul(constants[0], g))


cdef inline void sgd_momentum_rule(vec *value, vec g, vec *momentum, vec *cache, const vec *constants) noexcept nogil:
    momentum[0] = v_sub(v_mul(constants[1], momentum[0]), v_mul(constants[0], g))
    value[0] = v_add(value[0], momentum[0])


cdef inline void adagrad_rule(vec *value, vec g, vec *momentum, vec *cache, const vec *constants) noexcept nogil:
    cache[0] = v_madd(g, g, cache[0])
    value[0] = v_sub(value[0], v_div(v_mul(constants[0], g), v_add(v_sqrt(cache[0]), constants[1])))


cdef inline void rmsprop_rule(vec *value, vec g, vec *momentum, vec *cache, const vec *constants) noexcept nogil:
    cache[0] = v_madd(constants[2], cache[0], v_mul(constants[3], v_mul(g, g)))
    value[0] = v_sub(value[0], v_div(v_mul(constants[0], g), v_add(v_sqrt(cache[0]), constants[1])))


cdef inline void adam_rule(vec *value, vec g, vec *momentum, vec *cache, const vec *constants) noexcept nogil:
    # Both corrections are in the constants: √(c/b) + ε = (√c + ε·√b) / √b.
    momentum[0] = v_madd(constants[2], momentum[0], v_mul(constants[3], g))
    cache[0] = v_madd(constants[4], cache[0], v_mul(constants[5], v_mul(g, g)))
    value[0] = v_sub(value[0], v_mul(constants[0], v_div(momentum[0], v_add(v_sqrt(cache[0]), constants[1]))))


# Constants of the rules, which a run of the plan computes once a step


cdef inline void sgd_constants(vec *constants, double rate, double momentum) noexcept nogil:
    constants[0], constants[1] = v_all(<real_t> rate), v_all(<real_t> momentum)


cdef inline void root_constants(vec *constants, double rate, double epsilon, double rho) noexcept nogil:
    constants[0], constants[1] = v_all(<real_t> rate), v_all(<real_t> epsilon)
    constants[2], constants[3] = v_all(<real_t> rho), v_all(<real_t> (1 - rho))


cdef inline void adam_constants(
    vec *constants, double rate, double epsilon, double beta_1, double beta_2, double step
) noexcept nogil:
    cdef double root = sqrt(1 - pow(beta_2, step))
    constants[0] = v_all(<real_t> (rate * root / (1 - pow(beta_1, step))))
    constants[1] = v_all(<real_t> (epsilon * root))
    constants[2], constants[3] = v_all(<real_t> beta_1), v_all(<real_t> (1 - beta_1))
    constants[4], constants[5] = v_all(<real_t> beta_2), v_all(<real_t> (1 - beta_2))


# The loops


cdef void sgd_update(real_t *values, const real_t *gradients, Py_ssize_t n, double rate) noexcept nogil:
    """``values −= rate·gradients``; (n,) in and out, (n,) in."""
    cdef vec constants[2]
    sgd_constants(constants, rate, 0)
    update(sgd_rule, values, gradients, NULL, NULL, constants, n)


cdef void sgd_momentum_update(
    real_t *values, const real_t *gradients, real_t *momentums, Py_ssize_t n, double rate, double momentum
) noexcept nogil:
    """``momentums := momentum·momentums − rate·gradients; values += momentums``; (n,)."""
    cdef vec constants[2]
    sgd_constants(constants, rate, momentum)
    update(sgd_momentum_rule, values, gradients, momentums, NULL, constants, n)


cdef void adagrad_update(
    real_t *values, const real_t *gradients, real_t *cache, Py_ssize_t n, double rate, double epsilon
) noexcept nogil:
    """``cache += gradients²; values −= rate·gradients / (√cache + epsilon)``; (n,)."""
    cdef vec constants[4]
    root_constants(constants, rate, epsilon, 0)
    update(adagrad_rule, values, gradients, NULL, cache, constants, n)


cdef void rmsprop_update(
    real_t *values, const real_t *gradients, real_t *cache, Py_ssize_t n, double rate, double epsilon, double rho
) noexcept nogil:
    """``cache := rho·cache + (1 − rho)·gradients²; values −= rate·gradients / (√cache + epsilon)``; (n,)."""
    cdef vec constants[4]
    root_constants(constants, rate, epsilon, rho)
    update(rmsprop_rule, values, gradients, NULL, cache, constants, n)


cdef void adam_update(
    real_t *values, const real_t *gradients, real_t *momentums, real_t *cache, Py_ssize_t n,
    double rate, double epsilon, double beta_1, double beta_2, double step,
) noexcept nogil:
    """Adam (Kingma and Ba, 2015), for the step that is counted from 1; (n,).

    ``momentums := beta_1·momentums + (1 − beta_1)·gradients; cache := beta_2·cache + (1 − beta_2)·gradients²;
    values −= rate·(momentums / (1 − beta_1^step)) / (√(cache / (1 − beta_2^step)) + epsilon)``.
    """
    cdef vec constants[6]
    adam_constants(constants, rate, epsilon, beta_1, beta_2, step)
    update(adam_rule, values, gradients, momentums, cache, constants, n)
