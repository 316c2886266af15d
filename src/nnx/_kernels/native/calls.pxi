# Whole calls of methods of layers, losses and optimizers: checks, new arrays, kernels and attributes in one go.
#
# A hand-written training loop makes a dozen such calls per step. In a small network, their Python code takes longer
# than the kernels. Each function here does its call in the usual case: plain arrays of the right type and shape. In any
# other case it does nothing, and the method continues as on any backend: it casts, or raises an error. After the first
# array is checked, no Python code runs before the kernels.

cdef object FLOAT32 = np.dtype(np.float32)
cdef object FLOAT64 = np.dtype(np.float64)


cdef inline Kernels *kernels_of(cnp.ndarray array) except NULL:
    return kernels_in_use(cnp.PyArray_TYPE(array))


cdef inline bint is_matrix(object value, cnp.ndarray other, Py_ssize_t rows, Py_ssize_t columns) noexcept:
    """Return whether kernels can read a value as a matrix of another array's type, with at least one column."""
    return (
        is_ready(value, <void *> cnp.PyArray_DESCR(other), False) and cnp.PyArray_NDIM(value) == 2
        and (rows == ANY or cnp.PyArray_DIM(value, 0) == rows)
        and (cnp.PyArray_DIM(value, 1) == columns if columns != ANY else cnp.PyArray_DIM(value, 1) > 0)
    )


def dense_parameters(layer):
    cdef dict own = PyObject_GenericGetDict(layer, NULL)
    cdef object n_in = layer.n_inputs, n_out = layer.n_neurons, dtype = layer.dtype
    if type(n_in) is not int or type(n_out) is not int or (dtype is not FLOAT32 and dtype is not FLOAT64):
        return None
    weights, biases = item(own, "weights"), item(own, "biases")
    try:
        return (weights, biases) if fit(weights, biases, dtype, n_in, n_out, True) else None
    except OverflowError:  # no array has this number of rows
        return None


def call_dense_forward(layer, inputs):
    cdef object found = dense_parameters(layer)
    cdef cnp.ndarray x, weights, biases, output
    cdef Kernels *kernels
    cdef Py_ssize_t rows, n_in, n_out
    cdef void *scratch
    cdef uint64_t mode
    if found is None:
        return False
    weights, biases = found
    n_in, n_out = cnp.PyArray_DIM(weights, 0), cnp.PyArray_DIM(weights, 1)
    if not is_matrix(inputs, weights, ANY, n_in):
        return False
    x, kernels = inputs, kernels_of(weights)
    rows = cnp.PyArray_DIM(x, 0)
    output = empty(rows, n_out, weights.dtype)
    scratch = take(kernels.product_scratch)
    with nogil:
        mode = enter_kernels()
        kernels.dense_forward(
            data(x), data(weights), data(biases), data(output), rows, n_in, n_out, NULL, False, NULL, scratch
        )
        leave_kernels(mode)
    give(scratch)
    layer.inputs = inputs
    layer.output = output
    return True


cdef tuple STRENGTHS = (
    "weight_regularizer_l1", "weight_regularizer_l2", "bias_regularizer_l1", "bias_regularizer_l2"
)


cdef bint read_strengths(object layer, double scale, double *strengths) except -1:
    """Read the coefficients of a layer's penalties, times a number. False if one is not a plain number ≥ 0."""
    cdef int i
    for i in range(4):
        given = getattr(layer, STRENGTHS[i])
        if type(given) is float and 0 <= <double> given < INFINITY:
            strengths[i] = <double> given * scale
        elif type(given) is int and not given:
            strengths[i] = 0
        else:
            return False
    return True


def call_dense_backward(layer, dvalues, double scale):
    cdef double strengths[4]
    cdef bint has_plain_strengths = read_strengths(layer, scale, strengths)
    cdef object found = dense_parameters(layer), inputs
    cdef cnp.ndarray x, d, weights, biases, dweights, dbiases, dinputs
    cdef Kernels *kernels
    cdef Py_ssize_t rows, n_in, n_out
    cdef void *scratch
    cdef uint64_t mode
    if found is None or not has_plain_strengths:
        return False
    weights, biases = found
    inputs = item(PyObject_GenericGetDict(layer, NULL), "inputs")
    n_in, n_out = cnp.PyArray_DIM(weights, 0), cnp.PyArray_DIM(weights, 1)
    if not is_matrix(inputs, weights, ANY, n_in):
        return False
    x, kernels = inputs, kernels_of(weights)
    rows = cnp.PyArray_DIM(x, 0)
    if not is_matrix(dvalues, weights, rows, n_out):
        return False
    d = dvalues
    dweights, dbiases, dinputs = empty_like(weights), empty_like(biases), empty_like(x)
    scratch = take(kernels.product_scratch)
    with nogil:
        mode = enter_kernels()
        kernels.dense_backward_weights(
            data(x), data(d), data(weights), data(dweights), rows, n_in, n_out, strengths[0], strengths[1],
            scratch,
        )
        kernels.dense_backward_biases(data(d), data(biases), data(dbiases), rows, n_out, strengths[2], strengths[3])
        kernels.dense_backward_inputs(data(d), data(weights), data(dinputs), rows, n_in, n_out, 0, NULL, scratch)
        leave_kernels(mode)
    give(scratch)
    layer.dweights = dweights
    layer.dbiases = dbiases
    layer.dinputs = dinputs
    return True


cdef cnp.ndarray activated(Pass which, str name, object values, object dvalues, tuple settings):
    """Return the result of an activation's kernel for values, and dvalues in backward; None if they are unusual."""
    cdef Kernels *kernels
    cdef const Activation *activation
    cdef cnp.ndarray x, d, result
    cdef double numbers[MAX_SETTINGS]
    cdef Py_ssize_t rows, columns = 1
    cdef bint by_rows
    cdef void *scratch = NULL
    cdef uint64_t mode
    if not is_ready(values, NULL, False) or cnp.PyArray_NDIM(values) == 0:
        return None
    if which == BACKWARD and not alike(dvalues, values):
        return None
    x, d = values, dvalues if which == BACKWARD else values
    kernels = kernels_of(x)
    activation = activation_of(kernels, name)
    by_rows = activation.traits & WHOLE_ROWS
    if by_rows and not is_matrix(values, values, ANY, ANY):
        return None
    take_settings(numbers, settings, activation.n_settings)
    rows = cnp.PyArray_SIZE(x)
    if by_rows:
        rows, columns = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
        scratch = take(columns * ALIGNMENT)
    result = empty_like(x)
    with nogil:
        mode = enter_kernels()
        activation.run(which, data(x), data(d), data(result), rows, columns, numbers, scratch)
        leave_kernels(mode)
    if by_rows:
        give(scratch)
    return result


def call_activation_forward(layer, str name not None, inputs, tuple settings not None):
    cdef cnp.ndarray output = activated(FORWARD, name, inputs, None, settings)
    if output is None:
        return False
    layer.inputs = inputs
    layer.output = output
    return True


def call_activation_backward(layer, str name not None, source, dvalues, tuple settings not None):
    cdef cnp.ndarray dinputs = activated(BACKWARD, name, source, dvalues, settings)
    if dinputs is None:
        return False
    layer.dinputs = dinputs
    return True


cdef int32_t *usual_labels(object given, Py_ssize_t rows, Py_ssize_t n_classes) except? NULL:
    """Return a private copy of class numbers, checked; NULL if they are not intp, (rows,), and classes."""
    if not is_ready(given, <void *> INTP, False) or cnp.PyArray_NDIM(given) != 1:
        return NULL
    if cnp.PyArray_DIM(given, 0) != rows or bad_label(given, n_classes) >= 0:
        return NULL
    try:
        return take_labels("labels", given, rows, n_classes)
    except ValueError:  # another thread has changed them since
        return NULL


cdef object INTP = np.dtype(np.intp)


def call_softmax_crossentropy(inputs, labels, double smoothing, double clip):
    cdef cnp.ndarray x, output, losses
    cdef Kernels *kernels
    cdef Py_ssize_t rows, columns
    cdef int32_t *classes
    cdef double loss
    cdef void *scratch
    cdef uint64_t mode
    if not is_ready(inputs, NULL, False) or not is_matrix(inputs, inputs, ANY, ANY):
        return None
    x, kernels = inputs, kernels_of(inputs)
    rows, columns = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    classes = usual_labels(labels, rows, columns) if rows else NULL
    if classes is NULL:
        return None
    output = empty_like(x)
    losses = cnp.PyArray_EMPTY(1, cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    scratch = take(columns * ALIGNMENT)
    with nogil:
        mode = enter_kernels()
        kernels.softmax_crossentropy(
            data(x), classes, data(output), NULL, data(losses), rows, columns, columns, 1, rows, smoothing, clip,
            NULL, scratch,
        )
        loss = kernels.total(data(losses), rows)
        leave_kernels(mode)
    give(scratch)
    give(classes)
    return output, loss


def call_softmax_crossentropy_backward(probabilities, labels, smoothing, clip):
    cdef cnp.ndarray p, dinputs
    cdef const Loss *loss
    cdef Py_ssize_t rows, columns
    cdef int32_t *classes
    cdef double settings[MAX_SETTINGS]
    cdef uint64_t mode
    if not is_ready(probabilities, NULL, False) or not is_matrix(probabilities, probabilities, ANY, ANY):
        return None
    if type(smoothing) is not float or not 0 <= <double> smoothing < 1:
        return None
    if type(clip) is not float or not 1e-30 <= <double> clip <= 0.1:
        return None
    p = probabilities
    loss = loss_of(kernels_of(p), "categorical_crossentropy")
    take_settings(settings, (smoothing, clip), loss.n_settings)
    rows, columns = cnp.PyArray_DIM(p, 0), cnp.PyArray_DIM(p, 1)
    classes = usual_labels(labels, rows, columns) if rows else NULL
    if classes is NULL:
        return None
    dinputs = empty_like(p)
    with nogil:
        mode = enter_kernels()
        loss.run(PAIR_GRADIENT, data(p), classes, data(dinputs), rows, columns, rows, settings, NULL)
        leave_kernels(mode)
    give(classes)
    return dinputs


cdef struct Update:
    # What a rule changes: a parameter, and its states in the optimizer.
    const Rule *rule
    void *values
    void *gradients
    void *states[MAX_STATES]
    Py_ssize_t size
    double settings[MAX_SETTINGS]


cdef bint take_update(
    Update *update, dict own, str gradients, object values, str kernel, tuple states, tuple settings, list held
) except -1:
    """Read and hold the arrays of a rule for a parameter. False if kernels cannot use one without a copy."""
    cdef Py_ssize_t first = len(held), i, k
    if not is_ready(values, NULL, True):
        return False
    held.append(values)
    for i in range(len(states) + 1):
        is_state = i < len(states)
        found = item(own, states[i] if is_state else gradients)
        if not alike(found, values, is_state):
            return False
        for k in range(first, len(held)):
            if overlap(held[k], found):
                return False
        held.append(found)
    update.rule = rule_of(kernels_of(values), kernel)
    if update.rule.n_states != len(states):
        return False
    take_settings(update.settings, settings, update.rule.n_settings)
    update.values, update.gradients, update.size = data(values), data(found), cnp.PyArray_SIZE(values)
    for i in range(<Py_ssize_t> len(states)):
        update.states[i] = data(held[first + 1 + i])
    return True


def call_optimizer_update(layer, parameters, rule, double rate, double step):
    cdef Update updates[2]
    cdef Update *update
    cdef list held = []
    cdef str kernel
    cdef tuple states, weight_states, bias_states, settings, bias_settings
    cdef Kernels *kernels
    cdef dict own
    cdef uint64_t mode
    cdef tuple given
    cdef int i, n
    kernel, states, settings, bias_settings, clip_norm, clip_value, average = rule
    weight_states, bias_states = states
    attributes_of_layer = getattr(layer, "__dict__", None)
    if clip_norm or clip_value or average or type(attributes_of_layer) is not dict or type(parameters) is not tuple:
        return False
    own, given, n = attributes_of_layer, parameters, <int> len(parameters)
    if n > 2:
        return False
    if AVERAGED[0] in own or AVERAGED[1] in own:
        return False
    if n > 0 and not take_update(&updates[0], own, "dweights", given[0], kernel, weight_states, settings, held):
        return False
    if n > 1 and not take_update(&updates[1], own, "dbiases", given[1], kernel, bias_states, bias_settings, held):
        return False
    for i in range(n):
        update, kernels = &updates[i], kernels_of(given[i])
        with nogil:
            mode = enter_kernels()
            kernels.update_by_rule(
                update.rule, update.values, update.gradients, update.states, update.size, rate, step, update.settings
            )
            leave_kernels(mode)
    return True


def recalled(tuple kept, owner):
    cdef tuple names, values
    cdef Py_ssize_t i
    if kept is None:
        return None
    names, values, result = kept
    for i in range(min(len(names), len(values))):
        if getattr(owner, names[i], None) is not values[i]:
            return None
    return result
