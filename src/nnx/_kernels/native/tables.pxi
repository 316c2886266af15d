# The rows of the tables of formulas, by name, and the arguments of formulas beside arrays.

from libc.string cimport strcmp

cdef tuple AS_THEY_ARE = (1, 0, 0.5, False)  # all outputs, and a threshold of 1/2


cdef const Activation *activation_of(const Kernels *kernels, str name) except NULL:
    """Return an activation's row."""
    cdef bytes wanted = name.encode()
    cdef int i
    for i in range(kernels.n_activations):
        if strcmp(kernels.activations[i].name, wanted) == 0:
            return &kernels.activations[i]
    raise ValueError(f"There is no activation {name!r}.")


cdef const Loss *loss_of(const Kernels *kernels, str name) except NULL:
    """Return a loss's row."""
    cdef bytes wanted = name.encode()
    cdef int i
    for i in range(kernels.n_losses):
        if strcmp(kernels.losses[i].name, wanted) == 0:
            return &kernels.losses[i]
    raise ValueError(f"There is no loss {name!r}.")


cdef const Rule *rule_of(const Kernels *kernels, str name) except NULL:
    """Return the row of an optimizer's rule."""
    cdef bytes wanted = name.encode()
    cdef int i
    for i in range(kernels.n_rules):
        if strcmp(kernels.rules[i].name, wanted) == 0:
            return &kernels.rules[i]
    raise ValueError(f"There is no rule {name!r}.")


cdef int take_settings(double *settings, object given, int count) except -1:
    """Copy a formula's settings. Those that it does not have are 0."""
    cdef int i
    if len(given) != count:
        raise ValueError(f"settings must be {count}, got {len(given)}.")
    for i in range(MAX_SETTINGS):
        settings[i] = 0
    for i in range(count):
        settings[i] = given[i]
    return 0


cdef inline int take_activation_settings(Stage *stage, object owner) except -1:
    """Read an activation's settings from its object, if it has any."""
    if stage.kind == ACTIVATION and stage.activation.n_settings:
        take_settings(stage.settings, owner._settings(), stage.activation.n_settings)
    return 0


cdef int take_answers(Net *net, tuple answers) except -1:
    """Take the description of compared outputs: distance of columns, first column; threshold; whether exponentials."""
    cdef Py_ssize_t every, begin
    every, begin, net.cut, net.exponential = answers
    if not 0 <= begin < every or net.n_out % every or net.n_wanted * every > net.n_out:
        raise ValueError("answers must be columns of the output, as many as are wanted.")
    net.every, net.begin = every, begin
    return 0


cdef cnp.ndarray take_own_numbers(str where, object given, int number, Py_ssize_t columns):
    """Return a copy of the columns' own numbers, followed by the first ones again; None for None.

    Kernels load whole vectors of them, from any column on.
    """
    cdef cnp.ndarray numbers, copy
    cdef cnp.npy_intp i, n = columns + MOST_LANES
    cdef uint64_t mode
    if given is None:
        return None
    numbers = vector(where, "own", given, cnp.NPY_DOUBLE, columns)
    copy = cnp.PyArray_EMPTY(1, &n, number, 0)
    mode = enter_kernels()  # which rounds to nearest
    for i in range(n):
        if number == cnp.NPY_FLOAT:
            (<float *> data(copy))[i] = <float> (<const double *> data(numbers))[i % columns]
        else:
            (<double *> data(copy))[i] = (<const double *> data(numbers))[i % columns]
    leave_kernels(mode)
    return copy


cdef cnp.ndarray take_compared(str where, object wanted, Py_ssize_t n, Py_ssize_t n_out):
    """Return the targets of an accuracy: float64 (n,) or (n, m), m from 1 to n_out; None for None."""
    cdef cnp.ndarray compared
    if wanted is None:
        return None
    if not has_type(wanted, cnp.NPY_DOUBLE) or cnp.PyArray_NDIM(wanted) == 0 or cnp.PyArray_DIM(wanted, 0) != n:
        refused(where, "wanted", wanted, cnp.NPY_DOUBLE, (n,))
    compared = plain(wanted)
    if not n <= cnp.PyArray_SIZE(compared) <= n * n_out:
        raise ValueError(f"{where}: wanted must have from 1 to {n_out} columns, got shape {wanted.shape}.")
    return compared


cdef cnp.ndarray take_weights(str where, object weights, Py_ssize_t n):
    """Return the weights of samples: float64 (n,); None for None."""
    return vector(where, "weights", weights, cnp.NPY_DOUBLE, n) if weights is not None else None


def _formulas():
    """Return the rows of the tables by kind and name: traits, and numbers of settings and states. For tests."""
    cdef const Kernels *kernels = kernels_in_use(cnp.NPY_FLOAT)
    cdef dict found = {"activation": {}, "loss": {}, "optimizer": {}}
    cdef int i
    for i in range(kernels.n_activations):
        activation = kernels.activations[i]
        found["activation"][activation.name.decode()] = {
            "reads": "inputs" if activation.traits & FROM_INPUTS else "output", "settings": activation.n_settings,
        }
    for i in range(kernels.n_losses):
        loss = kernels.losses[i]
        found["loss"][loss.name.decode()] = {"pair": loss.pair.decode(), "settings": loss.n_settings}
    for i in range(kernels.n_rules):
        rule = kernels.rules[i]
        found["optimizer"][rule.name.decode()] = {"states": rule.n_states, "settings": rule.n_settings}
    return found
