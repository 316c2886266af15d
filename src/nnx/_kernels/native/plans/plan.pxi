# The binding of plans. It reads what a program needs from the layers, checks it, reserves memory, and runs the threads.
#
# A plan is made for one program. Each call reads and checks again everything that Python code could have changed. The
# plan holds references to all bound arrays until the call ends, and labels are private copies. So another thread can
# rebind and write what it likes: no kernel reads or writes outside an array.

from cpython.ref cimport PyObject

cdef extern from *:
    """
    /* Whether an object's reference count shows all users. Without a GIL it does not: each thread counts separately. */
    #ifdef Py_GIL_DISABLED
    #define COUNTS_REFERENCES 0
    #else
    #define COUNTS_REFERENCES 1
    #endif
    """
    const bint COUNTS_REFERENCES

#: Without it, published arrays are never used again, and there is no fast path for a repeated call of `train`.
counts_references = bool(COUNTS_REFERENCES)

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        unsigned int tp_version_tag
    PyObject *PyList_GET_ITEM(list items, Py_ssize_t i)
    bint PyDict_Next(dict own, Py_ssize_t *at, PyObject **name, PyObject **value)
    PyObject *_PyType_Lookup(type kind, object name)
    Py_ssize_t Py_REFCNT(PyObject *thing)
    dict PyObject_GenericGetDict(object owner, void *context)

#: The number of figures of a step or an epoch: loss, data loss, penalty, accuracy, rate.
cdef enum:
    N_FIGURES = 5
    MOST_KEPT = 1 << 22  # bytes of memory that a plan keeps between calls
    MOST_PACKED = 1 << 19  # the most weights that are also kept packed: copying more takes longer than it saves


cdef inline object item(dict own, str name):
    """`dict.get` with an owned reference from the start: Cython's version holds a borrowed one for a moment."""
    try:
        return own[name]
    except KeyError:
        return None


cdef bint untouched(object model, tuple guards) except -1:
    """Return whether a model is unchanged since a program was made from it: whether the guards hold.

    Its parts must be the same objects of the same classes. None may have an attribute with the name of a method. The
    classes' methods must be the original ones.

    Parameters
    ----------
    model : Model
    guards : Guards
        What must not have changed: `nnx.engine.program.Guards`.
    """
    cdef PyObject *found
    if not are_parts_untouched(model, guards):
        return False
    for kind, name, function in <tuple> guards[7]:
        found = _PyType_Lookup(kind, name)
        if found != (NULL if function is None else <PyObject *> function):
            return False
    return True


cdef bint are_parts_untouched(object model, tuple guards) except -1:
    """Do the checks of `untouched`, except that of the classes' methods."""
    cdef tuple names, attributes, lists, owners, kinds, shadows
    cdef Py_ssize_t i
    cdef dict own
    kind, names, attributes, lists, owners, kinds, shadows, _ = guards
    if type(model) is not kind or not len(owners) == len(kinds) == len(shadows):
        return False
    own = PyObject_GenericGetDict(model, NULL)
    for name in names:
        if name in own:
            return False
    for name, value in attributes:
        if getattr(model, name, None) is not value:
            return False
    for name, values in lists:
        if not same_objects(getattr(model, name, None), values):
            return False
    for i in range(len(owners)):
        owner = owners[i]
        if type(owner) is not kinds[i]:
            return False
        own = PyObject_GenericGetDict(owner, NULL)
        for name in <tuple> shadows[i]:
            if name in own:
                return False
    return True


cdef list versions_of(tuple guards):
    """Return the classes whose methods `untouched` checks, each with its version.

    Any change of a class alters its version. The version is 0 if a class has changed, or if no name has been looked up
    in it since.
    """
    kinds = dict.fromkeys([each[0] for each in guards[7]])
    return [(kind, (<PyTypeObject *> <PyObject *> kind).tp_version_tag) for kind in kinds]


cdef int describe_stage(Stage *stage, const Kernels *kernels, str kind, Py_ssize_t n_in, Py_ssize_t n_out) except -1:
    """Write the kind of a stage: one of `KINDS`, or the name of an activation."""
    stage.n_in, stage.n_out, stage.activation = n_in, n_out, NULL
    number = KINDS.get(kind)
    if number is None:
        stage.kind, stage.activation = ACTIVATION, activation_of(kernels, kind)
    else:
        stage.kind = number
    return 0


cdef int pair_forks(Net *net) except -1:
    """Link forks and joins, and count how many are open at a time. Count batch norms."""
    cdef list open_forks = []
    cdef Stage *stage
    cdef int s, fork
    net.n_levels = net.n_batch_norms = 0
    for s in range(net.n_stages):
        stage = &net.stages[s]
        net.n_batch_norms += stage.kind == BATCH_NORM
        if stage.kind == FORK:
            stage.level = <int> len(open_forks)
            open_forks.append(s)
            net.n_levels = max(net.n_levels, <int> len(open_forks))
        elif stage.kind == JOIN:
            if not open_forks or net.stages[<int> open_forks[len(open_forks) - 1]].n_out != stage.n_out:
                raise ValueError("Plan: a join must follow the fork that it belongs to, of the same width.")
            fork = open_forks.pop()
            stage.partner = net.stages[fork].partner = s - fork
            stage.level = net.stages[fork].level
    if open_forks:
        raise ValueError("Plan: each fork must have a join.")
    return 0


cdef list members_of_stages(tuple stages):
    """Return the number of rows of each stage's output per sample. Refuse members that do not fit each other.

    Stages are (kind, layer, ...), or (kind, values, ...) in a predictor: there, the last values have a row for each
    member.
    """
    cdef Py_ssize_t members = 1, own, s
    cdef int levels = 0
    cdef bint begun = False, begins
    cdef list found = []
    cdef tuple stage
    cdef str kind
    for s in range(len(stages)):
        stage = tuple(stages[s])
        kind = stage[0]
        if kind == "fork":
            levels += 1
        elif kind == "join":
            levels -= 1
        elif kind in OF_MEMBERS:
            values = stage[1]
            own = len(values[len(values) - 1]) if type(values) is tuple else values.n_members
            begins = kind == "members"
            if not 1 <= own <= MAX_MEMBERS or begins == begun or (begun and own != members) or (begins and levels):
                raise ValueError("Plan: members must begin once, outside of forks, and be as many everywhere.")
            begun, members = True, own
        found.append(members)
    return found


#: The kinds of stages by name, except activations.
cdef dict KINDS = {
    "dense": DENSE, "dropout": DROPOUT, "prelu": PRELU, "batch_norm": BATCH_NORM, "layer_norm": LAYER_NORM,
    "scale": SCALE, "embedding": EMBEDDING, "spline": SPLINE, "gaussian_noise": NOISE, "fork": FORK, "join": JOIN,
    "piecewise_linear": PIECEWISE_LINEAR, "thermometer": THERMOMETER, "combinations": COMBINATIONS,
    "periodic": PERIODIC, "members": MEMBERS, "member_scale": MEMBER_SCALE, "member_dense": MEMBER_DENSE,
}
#: The kinds whose parameters are one number for each column.
cdef tuple COLUMNWISE = ("batch_norm", "layer_norm", "scale")
#: The kinds that multiply matrices.
cdef tuple PRODUCTS = ("dense", "member_dense")
cdef tuple OF_MEMBERS = ("members", "member_scale", "member_dense")
cdef tuple ENCODINGS = ("piecewise_linear", "thermometer", "combinations")
#: The kinds that return other columns than they take.
cdef tuple WIDENING = ("dense", "embedding", "spline", "periodic", "member_dense", *ENCODINGS)
cdef tuple WITH_DTYPE = ("prelu", "members", "member_scale", *COLUMNWISE, *WIDENING)


cdef inline bint has_trait(const Stage *stage, int trait) noexcept:
    """Return whether a stage is an activation with a trait."""
    return stage.kind == ACTIVATION and stage.activation.traits & trait != 0


cdef int check_chain(tuple stages, const Loss *loss, bint combined) except -1:
    """Refuse stages that do not fit each other, because kernels rely on their widths.

    At least one must be dense, so that some stages remain without those that only copy.
    """
    cdef Py_ssize_t before = -1, n_in, n_out
    cdef bint fits = "dense" in [stage[0] for stage in stages]
    for kind, _, n_in, n_out in stages:
        fits = fits and n_in > 0 and n_out > 0 and before in (-1, n_in)
        fits = fits and (kind in WIDENING or n_in == n_out)
        before = n_out
    if fits and combined:
        fits = loss is not NULL and stages[len(stages) - 1][0].encode() == loss.pair and len(stages) > 1
    if not fits:
        raise ValueError("Plan: stages must take the outputs of those before them, and one must be dense.")
    return 0


cdef tuple owners_with_dtype(tuple stages):
    """Return the layers with parameters, and so with a dtype, among the owners of stages."""
    return tuple([owner for kind, owner, _, _ in stages if kind in WITH_DTYPE])


cdef bint of_dtype(tuple owners, object dtype) except -1:
    """Return whether all layers with parameters have a dtype."""
    for owner in owners:
        found = item(PyObject_GenericGetDict(owner, NULL), "dtype")
        if found is not dtype and not (isinstance(found, (np.dtype, str, type)) and found == dtype):
            return False
    return True


#: The attributes in which a layer has the averages of its weights and biases.
cdef tuple AVERAGED = ("weight_averages", "bias_averages")


cdef inline object in_use(dict own, str averages, str values):
    """Return a layer's averages of a parameter, which predictions use if there are any, or else the parameter."""
    cdef object found = item(own, averages) if averages in own else None
    return item(own, values) if found is None else found


cdef inline bint fit(object weights, object biases, object dtype, Py_ssize_t n_in, Py_ssize_t n_out, bint writing):
    """Return whether these can be a dense layer's weights and biases."""
    return (
        is_ready(weights, <void *> dtype, writing) and is_ready(biases, <void *> dtype, writing)
        and has_size(weights, n_in, n_out) and has_size(biases, 1, n_out)
    )


#: The attributes of stages with a number for each column: parameters, and a batch norm's running statistics.
cdef tuple LINES = ("weights", "biases", "running_mean", "running_variance")


cdef inline object lines_as_they_are(const Stage *stage, object owner, object dtype, bint training):
    """Return those arrays as a tuple if kernels can take them without a copy, else None."""
    cdef dict own = PyObject_GenericGetDict(owner, NULL)
    cdef list found = []
    cdef Py_ssize_t i, n = 4 if stage.kind == BATCH_NORM else 1 + has_biases(stage)
    for i in range(n):
        array = item(own, LINES[i])
        if i < 2 and not training and <object> AVERAGED[i] in own:
            array = in_use(own, AVERAGED[i], LINES[i])
        if not is_ready(array, <void *> dtype, training) or not has_size(array, 1, stage.n_out):
            return None
        found.append(array)
    return tuple(found)


cdef bint column_parameters(Stage *stage, object owner, object dtype, str where, bint training, list held) except -1:
    """Take the weights, and biases, of a stage with one for each column. False if they do not fit.

    Without ``where``, messages begin with the layer's ``forward``.
    """
    cdef tuple found = lines_as_they_are(stage, owner, dtype, training)
    if found is None:
        # Another dtype or layout: the cast array becomes the attribute, or an error says what is wrong.
        where = where or f"{type(owner).__name__}.forward"
        owner._checked_parameters(where) if training else owner._parameters_in_use(where)
        if stage.kind == BATCH_NORM:
            owner._statistics(where, training)
        found = lines_as_they_are(stage, owner, dtype, training)
        if found is None:
            return False
    held.extend(found)
    stage.weights.values, stage.weights.size = data(found[0]), stage.n_out
    if has_biases(stage):
        stage.biases.values, stage.biases.size = data(found[1]), stage.n_out
        take_norm_settings(stage, owner, where)
    if stage.kind == BATCH_NORM:
        stage.norm.running_mean, stage.norm.running_variance = data(found[2]), data(found[3])
    return True


cdef int take_norm_settings(Stage *stage, object owner, str where) except -1:
    """Take epsilon, and a batch norm's momentum."""
    cdef dict own = PyObject_GenericGetDict(owner, NULL)
    cdef object epsilon = item(own, "epsilon"), momentum = item(own, "momentum")
    if stage.kind == BATCH_NORM:
        if type(epsilon) is float and type(momentum) is float and 0 < <double> epsilon < 1:
            if 0 <= <double> momentum <= 1:
                stage.norm.keep, stage.norm.epsilon = momentum, epsilon
                return 0
        stage.norm.keep, stage.norm.epsilon = owner._settings(where or "Layer_BatchNorm.forward")
    else:
        (stage.norm.epsilon,) = owner._settings(where or "Layer_LayerNorm.forward")
    return 0


cdef bint embedding_weights(Stage *stage, object owner, object dtype, str where, bint training, list held) except -1:
    """Take the weights of an embedding, and its columns of categories. False if they do not fit the stage."""
    (w,) = owner._checked_parameters(where) if training else owner._parameters_in_use(where)
    cdef cnp.ndarray places
    given = owner._layout(where).places
    if not is_ready(w, <void *> dtype, training) or cnp.PyArray_NDIM(w) != 2:
        return False
    stage.embedded.n_rows, stage.embedded.width = cnp.PyArray_DIM(w, 0), cnp.PyArray_DIM(w, 1)
    if not has_type(given, cnp.NPY_INT32) or cnp.PyArray_NDIM(given) != 1 or not cnp.PyArray_ISCARRAY_RO(given):
        return False
    places = sorted_places(given, &stage.embedded.places)
    if not fits_places(stage, cnp.PyArray_SIZE(given)):
        return False
    stage.weights.values, stage.weights.size = data(w), cnp.PyArray_SIZE(w)
    held.append(w)
    held.append(places)
    return True


cdef bint fits_places(const Stage *stage, Py_ssize_t n_in) noexcept:
    """Return whether the places of an embedding's categories are rows of its weights, and fit the stage."""
    cdef Py_ssize_t j
    for j in range(n_in):
        if stage.embedded.places.first[j] >= stage.embedded.n_rows:
            return False
    return (
        n_in == stage.n_in
        and embedded_columns(&stage.embedded.places, n_in, stage.embedded.width) == stage.n_out
    )


cdef bint encoding_edges(Stage *stage, object owner, object dtype, list held) except -1:
    """Take the edges or factors of an encoding. False if they do not fit the stage."""
    cdef str where = f"{type(owner).__name__}.forward"
    cdef tuple given = tuple(owner._layout(where))
    if not has_type(given[2], dtype.num):
        return False
    held.extend(take_encoded(where, given, dtype.num, stage.kind, stage.n_in, &stage.encoded))
    return encoded_columns(&stage.encoded, stage.kind, stage.n_in) == stage.n_out


cdef bint spline_parameters(Stage *stage, object owner, object dtype, str where, bint training, list held) except -1:
    """Take weights, biases and edges of a stage that has these. False if they do not fit the stage."""
    cdef Spline spline = stage.spline
    w, b = owner._checked_parameters(where) if training else owner._parameters_in_use(where)
    layout = owner._layout(where)
    if not is_ready(w, <void *> dtype, training) or not is_ready(b, <void *> dtype, training):
        return False
    held.append(w)
    held.append(b)
    take_edges(where, &spline, stage.n_in, tuple(layout), dtype.num, held)
    if not has_size(w, stage.n_in + spline.n_rows, stage.n_out) or not has_size(b, 1, stage.n_out):
        return False
    if stage.spline.n_columns not in (0, spline.n_columns):
        return False  # the memory was laid out for other edges
    stage.spline = spline
    stage.weights.values, stage.weights.size = data(w), cnp.PyArray_SIZE(w)
    stage.biases.values, stage.biases.size = data(b), stage.n_out
    return True


cdef int take_edges(
    str where, Spline *spline, Py_ssize_t n_in, tuple layout, int number, list held
) except -1:
    """Take columns, first places, edges and degree as private copies, after a check of every number."""
    cdef cnp.ndarray columns = cnp.PyArray_NewCopy(
        vector(where, "columns", layout[0], cnp.NPY_INT32, ANY), cnp.NPY_CORDER
    )
    cdef Py_ssize_t n = cnp.PyArray_SIZE(columns), j
    cdef cnp.ndarray first = cnp.PyArray_NewCopy(
        vector(where, "first", layout[1], cnp.NPY_INT32, n + 1), cnp.NPY_CORDER
    )
    cdef cnp.ndarray edges = cnp.PyArray_NewCopy(vector(where, "edges", layout[2], number, ANY), cnp.NPY_CORDER)
    cdef bint fits
    spline.columns, spline.first = <const int32_t *> data(columns), <const int32_t *> data(first)
    spline.edges, spline.n_columns, spline.degree = data(edges), n, int(layout[3])
    fits = spline.degree in (0, 1) and spline.first[0] == 0
    for j in range(n):
        fits = fits and 0 <= spline.columns[j] < n_in and spline.first[j] < spline.first[j + 1]
    spline.n_rows = spline.first[n]
    if not fits or cnp.PyArray_SIZE(edges) != spline.n_rows + n * spline.degree:
        raise ValueError(f"{where}: columns, first and edges must belong to each other.")
    held.extend((columns, first, edges))
    return 0


cdef bint periodic_weights(Stage *stage, object owner, object dtype, str where, bint training, list held) except -1:
    """Take the weights of waves, and the columns that have waves. False if they do not fit the stage."""
    cdef cnp.ndarray columns
    (w,) = owner._checked_parameters(where) if training else owner._parameters_in_use(where)
    if not is_ready(w, <void *> dtype, training):
        return False
    columns = take_waves(where, owner._places, w, stage.n_in, stage.n_out, &stage.periodic)
    if columns is None:
        return False
    stage.weights.values, stage.weights.size = data(w), cnp.PyArray_SIZE(w)
    held.append(w)
    held.append(columns)
    return True


cdef bint member_parameters(Stage *stage, object owner, object dtype, str where, bint training, list held) except -1:
    """Take the parameters of members. False if they do not fit the stage."""
    cdef tuple found = tuple(owner._checked_parameters(where) if training else owner._parameters_in_use(where))
    cdef bint fits = len(found) == 1 + has_biases(stage)
    for array in found:
        fits = fits and is_ready(array, <void *> dtype, training)
    if stage.kind == MEMBER_DENSE:
        fits = fits and has_size(found[0], stage.members * stage.n_in, stage.n_out)
    else:
        fits = fits and has_size(found[0], stage.members, stage.n_out)
    if not fits or (has_biases(stage) and not has_size(found[1], stage.members, stage.n_out)):
        return False
    stage.weights.values, stage.weights.size = data(found[0]), cnp.PyArray_SIZE(found[0])
    if has_biases(stage):
        stage.biases.values, stage.biases.size = data(found[1]), cnp.PyArray_SIZE(found[1])
    held.extend(found)
    return True


cdef object prelu_weights(object owner, object dtype, Py_ssize_t columns, str where, bint training):
    """Return a PReLU's slopes, one or one for each column, writable if ``training``. None if they do not fit."""
    (w,) = owner._checked_parameters(where) if training else owner._parameters_in_use(where)
    if not is_ready(w, <void *> dtype, training) or not (has_size(w, 1, 1) or has_size(w, 1, columns)):
        return None
    return w


cdef inline bint has_size(cnp.ndarray array, Py_ssize_t rows, Py_ssize_t columns) noexcept:
    return (
        cnp.PyArray_NDIM(array) == 2 and cnp.PyArray_DIM(array, 0) == rows and cnp.PyArray_DIM(array, 1) == columns
    )


cdef bint same_objects(object found, tuple kept) except -1:
    """Return whether a list holds these objects, one by one."""
    if type(found) is not list:
        return False
    with cython.critical_section(found):  # without the GIL, another thread might shorten it meanwhile
        return same_items(<list> found, kept)


cdef inline bint same_items(list found, tuple kept) noexcept:
    cdef Py_ssize_t i
    if len(found) != len(kept):
        return False
    for i in range(len(kept)):
        if <PyObject *> found[i] is not <PyObject *> kept[i]:
            return False
    return True


cdef inline void *within(char *memory, Py_ssize_t *at, Py_ssize_t size) noexcept:
    """Return the next address in a piece of memory. If the memory is NULL, only count."""
    cdef char *place = memory + at[0] if memory is not NULL else NULL
    at[0] += (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    return place


cdef void place_blocks(
    const Units *units, Stage *stage, char *memory, Py_ssize_t *at, Py_ssize_t batch
) noexcept:
    """Give a dense stage's matrices in blocks their places."""
    cdef Blocks *blocks = &stage.blocks
    cdef Py_ssize_t n_in = stage.n_in, n_out = stage.n_out
    blocks.units, blocks.rows = units, blocks_in(batch)
    blocks.inputs = <uint16_t *> within(memory, at, blocks_space(batch, n_in))
    blocks.weights = <uint16_t *> within(memory, at, blocks_space(n_in, n_out))
    blocks.turned_weights = <uint16_t *> within(memory, at, blocks_space(n_in, n_out))
    blocks.dvalues = <uint16_t *> within(memory, at, blocks_space(batch, n_out))
    blocks.paired_dvalues = <uint16_t *> within(memory, at, blocks_space(batch, n_out))


cdef inline bint gives_away(const Stage *stage) noexcept:
    """Return whether a stage does not need its own output in backward, so that the next may write there."""
    return not stage.relu and (
        stage.kind == DENSE or stage.kind == BATCH_NORM or stage.kind == LAYER_NORM or stage.kind == SCALE
        or stage.kind == SPLINE or is_of_members(stage)
    )


cdef tuple sums_of(const Net *net):
    """Return a pass's sums of losses and hits, and their counts or weights."""
    cdef Progress *progress = net.progress
    if net.weights is not NULL:
        return progress.loss_sum, progress.loss_count, progress.hits_sum, progress.hits_count
    return (
        progress.loss_sum, <Py_ssize_t> progress.loss_count, progress.hits_sum, <Py_ssize_t> progress.hits_count
    )


cdef list entries(dict own):
    """Return a dict's keys and values, one after the other."""
    cdef list found = []
    for name, value in own.items():
        found.append(name)
        found.append(value)
    return found


cdef bint is_as(dict own, list seen) except -1:
    """Return whether a dict holds the same objects that `entries` returned. It compares identity, never equality."""
    cdef PyObject *name
    cdef PyObject *value
    cdef Py_ssize_t at = 0, i = 0, n = len(seen)
    with cython.critical_section(own):
        if 2 * len(own) != n:
            return False
        while PyDict_Next(own, &at, &name, &value):
            if i + 2 > n or PyList_GET_ITEM(seen, i) is not name or PyList_GET_ITEM(seen, i + 1) is not value:
                return False
            i += 2
    return i == n


#: Attributes that count steps, or change with them.
cdef tuple COUNTS = ("iterations", "current_learning_rate", "training_forwards")


cdef struct Span:
    # An array that steps write, and the address for a copy of it.
    char *values
    Py_ssize_t size  # in bytes
    Py_ssize_t place
    bint is_parameter  # else it is an optimizer's state of a parameter


cdef bint exchange_of_plan(void *plan) noexcept nogil:
    """Add up the sums of a plan over all ranks."""
    with gil:
        return (<Plan> plan)._exchange()


cdef class Plan:
    """A program that is bound to arrays during a call, and the memory that its steps need.

    Parameters
    ----------
    dtype : float32 or float64
    stages : tuple of (kind, owner, n_in, n_out)
        The elements of `Program.stages`.
    loss : str or None
        The name of the loss's kernels; None for a `Segment`, which has no loss.
    combined : bool
        Whether loss and last activation have one gradient.
    guards : Guards
        What `holds` checks.
    bfloat16 : bool
        Whether dense stages round the factors of their products to bfloat16.
    """

    cdef Kernels *kernels
    cdef readonly object dtype
    cdef readonly bint bfloat16
    cdef int number
    cdef Py_ssize_t itemsize
    cdef tuple stages, guards, with_dtype
    cdef object rule, loss  # the latest ones taken
    cdef tuple states
    cdef Net lean, stored
    cdef Net *nets[2]  # both
    cdef Progress progress
    cdef int n_full
    cdef int *place  # of each of the program's stages among the lean ones
    cdef char *memory
    cdef Py_ssize_t memory_size
    cdef Py_ssize_t reserved_batch
    cdef int reserved_threads
    cdef bint reserved_order, reserved_norm
    cdef cnp.ndarray loss_own  # each column's own number for the loss
    cdef list held
    cdef list old
    cdef Py_ssize_t n_written  # how many of the held arrays a step may write
    cdef set parameters  # the indices of the parameters among them
    cdef Span *spans  # these arrays and their number; none before a run that keeps their values
    cdef int n_spans
    cdef char *before  # the parameters' values before the last step of a run
    cdef Py_ssize_t before_size
    cdef bint keeps, has_before, is_back
    cdef list watched, counted  # old attributes, and the indices of those that count steps
    cdef list addresses  # of the arrays bound then: (array, its address, its bytes)
    cdef tuple settings  # (owner, name, value): other attributes
    cdef list versions  # of the classes whose methods a program replaces
    cdef list strengths  # for each dense stage, the objects that they were read from
    cdef int32_t *labels
    cdef cnp.ndarray steps, epochs, order
    cdef Py_ssize_t lean_end  # the end of the steps that store nothing
    cdef bint has_parameters, has_data, is_prepared  # the calls since the last `release`
    cdef object adds_up  # adds up an array over all ranks, in place; None with one rank
    cdef object sums_array  # `sums`, as `adds_up` takes them
    cdef object failure  # the error that it raised in the latest run
    cdef bint stores
    cdef bint has_room  # for what the last step stores
    cdef readonly long long run  # the number of the run that was prepared last
    cdef readonly Py_ssize_t steps_done  # of it

    def __cinit__(
        self, dtype, tuple stages not None, str loss, bint combined, guards not None, bint bfloat16=False
    ):
        cdef Py_ssize_t s
        self.dtype = np.dtype(dtype)
        self.number = self.dtype.num
        self.itemsize = self.dtype.itemsize
        if self.number != cnp.NPY_FLOAT and self.number != cnp.NPY_DOUBLE:
            raise TypeError(f"Plan: dtype must be float32 or float64, got {dtype!r}.")
        self.kernels = kernels_in_use(self.number)
        if bfloat16 and self.number != cnp.NPY_FLOAT:
            raise TypeError(f"Plan: dtype must be float32 for bfloat16 products, got {self.dtype}.")
        self.bfloat16 = self.lean.bfloat16 = self.stored.bfloat16 = bfloat16
        self.lean.units = self.stored.units = units_of_plans() if bfloat16 else NULL
        if loss is not None:
            self.lean.loss = self.stored.loss = loss_of(self.kernels, loss)
        check_chain(stages, self.lean.loss, combined)
        members = members_of_stages(stages)
        # Plain tuples, because a loop over them takes half as long as over named ones.
        self.stages, self.guards, self.with_dtype = stages, tuple(guards), owners_with_dtype(stages)
        self.n_full = len(stages)
        self.lean.stages = <Stage *> PyMem_RawCalloc(self.n_full + 1, sizeof(Stage))
        self.stored.stages = <Stage *> PyMem_RawCalloc(self.n_full + 1, sizeof(Stage))
        self.place = <int *> PyMem_RawCalloc(self.n_full + 1, sizeof(int))
        if self.lean.stages is NULL or self.stored.stages is NULL or self.place is NULL:
            raise MemoryError
        for s in range(self.n_full):
            kind, _, n_in, n_out = stages[s]
            describe_stage(&self.stored.stages[s], self.kernels, kind, n_in, n_out)
            self.stored.stages[s].members = members[s]
        self.stored.n_stages = self.n_full
        self.lean.members = self.stored.members = members[self.n_full - 1]
        self.lean.combined = self.stored.combined = combined
        self.lean.fused = self.stored.fused = combined and self.lean.loss.traits & FUSED_WITH_PAIR
        self.lean.n_in = self.stored.n_in = self.stored.stages[0].n_in
        self.lean.n_out = self.stored.n_out = self.stored.stages[self.n_full - 1].n_out
        self.nets[0], self.nets[1] = &self.lean, &self.stored
        self.lean.progress = self.stored.progress = &self.progress
        self.progress.penalty_scale = 1
        self.progress.meeting = <Meeting *> allocate(sizeof(Meeting))
        memset(self.progress.meeting, 0, sizeof(Meeting))
        self.lean.records = True
        self._make_lean()
        pair_forks(&self.lean)
        pair_forks(&self.stored)
        self.held = []
        self.watched, self.counted, self.settings, self.versions = [], [], (), []
        self.addresses = []
        self.strengths = [None] * self.n_full

    def __dealloc__(self):
        PyMem_RawFree(self.lean.stages)
        PyMem_RawFree(self.stored.stages)
        PyMem_RawFree(self.place)
        if self.progress.meeting is not NULL:
            give(self.progress.meeting)
        self._free()
        self._free_before()
        if self.labels is not NULL:
            give(self.labels)

    cdef void _free(self) noexcept:
        if self.memory is not NULL:
            give(self.memory)
        self.memory = NULL
        self.reserved_batch = 0

    cdef void _free_before(self) noexcept:
        PyMem_RawFree(self.spans)
        self.spans = NULL
        if self.before is not NULL:
            give(self.before)
        self.before = NULL
        self.before_size = 0

    cdef void _make_lean(self) noexcept:
        """Leave out stages that only copy, and do a ReLU within the dense stage before it."""
        cdef Stage *stage
        cdef Stage *before
        cdef int s, n = 0
        for s in range(self.n_full):
            stage = &self.stored.stages[s]
            if has_trait(stage, IDENTITY):
                self.place[s] = n - 1
                continue
            before = &self.lean.stages[n - 1] if n > 0 else NULL
            if before is not NULL and not gives_away(before):
                before = NULL
            if (
                before is not NULL and has_trait(stage, FUSES_WITH_DENSE)
                and (before.kind == DENSE or before.kind == BATCH_NORM)
            ):
                before.relu = True
                self.place[s] = n - 1
                continue
            self.lean.stages[n] = stage[0]
            self.lean.stages[n].keeps_slope = before is not NULL and has_trait(stage, FROM_INPUTS)
            self.place[s] = n
            n += 1
        self.lean.n_stages = n

    # Memory

    cdef Py_ssize_t _lay_out(self, char *memory, Py_ssize_t batch, int n_threads, bint ordered):
        """Set the address of each array of the lean stages. Return the number of bytes."""
        cdef Net *net = &self.lean
        cdef Stage *stage
        cdef Stage *before
        cdef Stage *after
        cdef Py_ssize_t at = 0, size = self.itemsize, kernels_need = 0, all_rows = batch * net.members, rows
        cdef bint copied = ordered or net.members > 1
        cdef int s
        for s in range(net.n_stages):
            stage = &net.stages[s]
            kernels_need = max(kernels_need, self.kernels.gradient_space(batch, stage.n_in, stage.n_out))
            if net.units is not NULL and stage.kind == DENSE:
                kernels_need = max(kernels_need, block_gradient_space(stage.n_out))
            if is_of_members(stage):
                kernels_need = max(kernels_need, member_space(stage, batch) * size)
        if net.clip_norm:
            self._place_gradients(memory, &at)
        net.scratch_size = (self.kernels.product_scratch + kernels_need + ALIGNMENT) // ALIGNMENT * ALIGNMENT
        net.private_size = net.scratch_size + 2 * ALIGNMENT
        net.scratch = <char *> within(memory, &at, net.private_size * n_threads)
        self.progress.hits = <Py_ssize_t *> within(memory, &at, 64 * n_threads)
        net.sample_losses = within(memory, &at, all_rows * size)
        net.row_hits = <double *> within(memory, &at, all_rows * 8)
        net.batch_weights = <double *> within(memory, &at, all_rows * 8 if copied else 0)
        net.batch_labels = <int32_t *> within(memory, &at, all_rows * 4 if copied else 0)
        net.batch_targets = within(memory, &at, all_rows * net.n_out * size if copied else 0)
        net.batch_wanted = <double *> within(memory, &at, all_rows * net.n_out * 8 if copied else 0)
        net.gathered = within(memory, &at, batch * net.n_in * size if ordered else 0)
        net.lanes_space = within(
            memory, &at, self.kernels.lanes_space(net, batch, n_threads) if net.batched_lanes else 0
        )
        net.group_rows = 0
        if net.batched_lanes:
            for s in range(net.n_stages):
                net.stages[s].tiles = net.stages[s].panels = net.stages[s].packed = NULL
                net.stages[s].in_groups = False
            return at
        for s in range(net.n_stages):
            stage = &net.stages[s]
            before = &net.stages[s - 1] if s > 0 else NULL
            rows = batch * stage.members
            stage.inputs = before.output if before is not NULL else NULL
            stage.tiles = stage.panels = stage.packed = NULL
            # In place, if neither the stage before nor this one needs the inputs in backward.
            if s > 0 and (
                stage.kind == FORK
                or stage.kind == ACTIVATION and not has_trait(stage, FROM_INPUTS) and gives_away(before)
            ):
                stage.output = before.output
            else:
                stage.output = within(memory, &at, rows * stage.n_out * size)
            if stage.kind == DROPOUT or stage.kind == NOISE:
                stage.mask = within(memory, &at, rows * stage.n_out * size)
            if stage.kind == BATCH_NORM:
                stage.norm.lines = within(memory, &at, NORM_LINES * norm_line(stage.n_out) * size)
            if stage.kind == EMBEDDING:
                stage.embedded.dweights = within(memory, &at, stage.weights.size * size)
            if stage.kind == SPLINE:
                self._place_spline(stage, memory, &at, rows)
            if stage.kind == PERIODIC:
                stage.wave_gradients = within(memory, &at, stage.weights.size * size)
            if stage.kind == DENSE and net.units is not NULL:
                place_blocks(net.units, stage, memory, &at, rows)
                stage.fed = before is not NULL and before.kind == DENSE
                if stage.fed:
                    before.feeds = True
            elif stage.kind == DENSE:
                self._place_copies(stage, memory, &at, rows)
        # Gradients go back in place through all stages except three kinds. Stages with parameters need them for their
        # own gradients, forks need the gradients of their joins, and encodings have longer lines than their inputs.
        for s in range(net.n_stages - 1, -1, -1):
            stage = &net.stages[s]
            after = &net.stages[s + 1] if s + 1 < net.n_stages else NULL
            if after is NULL or has_parameters(after) or after.kind == JOIN or is_encoding(after):
                stage.dvalues = within(memory, &at, batch * stage.members * stage.n_out * size)
            else:
                stage.dvalues = net.stages[s + 1].dvalues
        net.partials = within(memory, &at, self.kernels.lay_out_partials(net, batch))
        return at

    cdef void _place_gradients(self, char *memory, Py_ssize_t *at) noexcept:
        """Set the addresses of collected gradients, one after the other, and of the sums of their squares."""
        cdef Py_ssize_t first = (at[0] + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        cdef Stage *stage
        cdef int s
        self.lean.sums = within(memory, at, 0)
        for s in range(self.lean.n_stages):
            stage = &self.lean.stages[s]
            if has_parameters(stage):
                stage.weights.collected = within(memory, at, stage.weights.size * self.itemsize)
            if has_biases(stage):
                stage.biases.collected = within(memory, at, stage.biases.size * self.itemsize)
        within(memory, at, 2 * self.itemsize)
        self.lean.n_sums = (at[0] - first) // self.itemsize
        for s in range(self.lean.n_stages):
            stage = &self.lean.stages[s]
            if has_parameters(stage):
                stage.weights.squares = <double *> within(
                    memory, at, (stage.n_in if stage.kind == DENSE else 1) * sizeof(double)
                )
            if has_biases(stage):
                stage.biases.squares = <double *> within(memory, at, sizeof(double))

    cdef void _place_spline(self, Stage *stage, char *memory, Py_ssize_t *at, Py_ssize_t batch) noexcept:
        """Set the addresses of the buffers of a stage with edges."""
        cdef Spline *spline = &stage.spline
        cdef Py_ssize_t sums = (spline.n_rows + spline.n_columns) * stage.n_out * self.itemsize
        spline.sums, spline.buckets = within(memory, at, sums), within(memory, at, sums)
        spline.dweights = within(memory, at, stage.weights.size * self.itemsize)
        spline.bins = <int32_t *> within(memory, at, batch * spline.n_columns * sizeof(int32_t))
        spline.parts = within(memory, at, batch * spline.n_columns * self.itemsize)

    cdef void _place_copies(self, Stage *stage, char *memory, Py_ssize_t *at, Py_ssize_t batch) noexcept:
        """Set the addresses of copies for vector units in a dense stage: rounded, and packed if that pays."""
        cdef Py_ssize_t n_in = stage.n_in, n_out = stage.n_out, size = self.itemsize
        if self.bfloat16:
            stage.rounded_inputs = within(memory, at, batch * n_in * size)
            stage.rounded_dvalues = within(memory, at, batch * n_out * size)
            stage.weights.rounded = within(memory, at, n_in * n_out * size)
        if self.kernels.tiles_space(batch, n_in, n_out):
            stage.tiles = within(memory, at, self.kernels.tiles_space(batch, n_in, n_out))
            stage.panels = within(memory, at, self.kernels.panels_space(batch, n_in, n_out))
        if n_in * n_out <= MOST_PACKED and self.kernels.packed_space(batch, n_in, n_out):
            stage.packed = within(memory, at, self.kernels.packed_space(batch, n_in, n_out))

    cdef int _reserve(self, Py_ssize_t batch, int n_threads, bint ordered) except -1:
        """Make sure that there is memory for batches of ``rows`` rows."""
        cdef Py_ssize_t size
        if (
            self.memory is not NULL and self.reserved_batch == batch and self.reserved_threads >= n_threads
            and self.reserved_order >= ordered and self.reserved_norm == (self.lean.clip_norm != 0)
        ):
            return 0
        size = self._lay_out(NULL, batch, n_threads, ordered)
        if self.memory is NULL or self.memory_size < size:  # changing batch sizes return to the largest one
            self._free()
            self.memory = <char *> allocate(size)
            self.memory_size = size
        self._lay_out(self.memory, batch, n_threads, ordered)
        if self.lean.clip_norm:  # gradients of untrained stages are sent, too
            memset(self.lean.sums, 0, self.lean.n_sums * self.itemsize)
        self.reserved_batch, self.reserved_threads, self.reserved_order = batch, n_threads, ordered
        self.reserved_norm = self.lean.clip_norm != 0
        return 0

    def holds(self, model):
        """Return whether the model and the variant in use are unchanged since this was made."""
        return (
            self.kernels == tables[0 if self.number == cnp.NPY_FLOAT else 1]
            and untouched(model, self.guards)
            and of_dtype(self.with_dtype, self.dtype)
        )

    # Binding

    def bind(self, tuple owners not None, tuple trained not None, rule not None, str where not None,
             layer_state not None):
        """Read the addresses of parameters and state, and the hyperparameters. Return False if the program has changed.

        Parameters
        ----------
        owners : tuple of layers
            One for each stage.
        trained : tuple of bool
            Whether each is trained.
        rule : Rule
            The optimizer's rule.
        layer_state : callable
            Returns the optimizer's state of a parameter on a layer. It makes the state if there is none.
        """
        self.release()
        if rule is not self.rule:  # calls of one step come with the same one
            self.rule = None
            self.states = self._take_rule(rule)
            self.rule = rule
        if not self._bind_stages(owners, trained, self.states, where, layer_state):
            return False
        self.n_written = len(self.held)
        self.has_parameters = self._apart()
        return self.has_parameters

    cdef bint _bind_stages(
        self, tuple owners, tuple trained, tuple states, str where, object layer_state
    ) except -1:
        """Read the addresses of parameters and states, and the stages' settings. False if they do not fit."""
        cdef Stage *stage
        cdef int s
        cdef bint trains
        cdef dict own
        if len(owners) != self.n_full or len(trained) != self.n_full:
            raise ValueError("Plan.bind: owners and trained must be one for each stage.")
        self.parameters = set()
        for s in range(self.n_full):
            owner = owners[s]
            stage = &self.stored.stages[s]
            trains = trained[s]
            if stage.kind == DENSE:
                own = owner.__dict__
                w, b = item(own, "weights"), item(own, "biases")
                if not fit(w, b, self.dtype, stage.n_in, stage.n_out, True):
                    # Another dtype or layout: the cast array becomes the attribute, or an error says what is wrong.
                    w, b = owner._checked_parameters(where)
                    if not fit(w, b, self.dtype, stage.n_in, stage.n_out, True):
                        return False
                self._take_strengths(s, owner, where)
                stage.trained = trains
                self._bind(&stage.weights, owner, w, trains, states[0], where, layer_state)
                self._bind(&stage.biases, owner, b, trains, states[1], where, layer_state)
            elif stage.kind == PRELU:
                w = prelu_weights(owner, self.dtype, stage.n_out, where, True)
                if w is None or stage.weights.size not in (0, cnp.PyArray_SIZE(w)):
                    return False
                stage.trained = trains
                self._bind(&stage.weights, owner, w, trains, states[0], where, layer_state)
            elif has_parameters(stage):
                if not self._bind_others(stage, owner, trains, states, where, layer_state):
                    return False
            elif is_encoding(stage):
                if not encoding_edges(stage, owner, self.dtype, self.held):
                    return False
            elif stage.kind == DROPOUT or stage.kind == NOISE:
                stage.keep, stage.seed, stage.forwards = owner._next_mask(f"{type(owner).__name__}.forward")
            elif stage.kind == ACTIVATION:
                take_activation_settings(stage, owner)
            self._pass_on(s)
        return True

    cdef bint _bind_others(
        self, Stage *stage, object owner, bint trains, tuple states, str where, object layer_state
    ) except -1:
        """Bind a stage with parameters that is neither dense nor a PReLU. False if it no longer fits."""
        cdef list found = []
        cdef Py_ssize_t size = stage.weights.size
        cdef int i
        if where.startswith("Layer_Dense."):  # a segment's, which has no better name
            where = type(owner).__name__ + where[11:]
        if stage.kind == EMBEDDING:
            if not embedding_weights(stage, owner, self.dtype, where, True, found):
                return False
        elif stage.kind == SPLINE:
            if not spline_parameters(stage, owner, self.dtype, where, True, found):
                return False
        elif stage.kind == PERIODIC:
            if not periodic_weights(stage, owner, self.dtype, where, True, found):
                return False
        elif is_of_members(stage):
            if not member_parameters(stage, owner, self.dtype, where, True, found):
                return False
        elif not column_parameters(stage, owner, self.dtype, where, True, found):
            return False
        if size not in (0, stage.weights.size):
            stage.weights.size = size  # the memory was laid out for that size
            return False
        stage.trained = trains
        self._bind(&stage.weights, owner, found[0], trains, states[0], where, layer_state)
        if has_biases(stage):
            self._bind(&stage.biases, owner, found[1], trains, states[1], where, layer_state)
        for i in range(1 + has_biases(stage), len(found)):
            self.held.append(found[i])
        return True

    cdef tuple _take_rule(self, rule):
        """Take the optimizer's rule and its hyperparameters. Return the names of the states of weights and biases."""
        cdef Net *net
        cdef int i
        name, states, settings, bias_settings, clip_norm, clip_value, average = rule
        of_weights, of_biases = states
        for i in range(2):
            net = self.nets[i]
            net.rule = rule_of(self.kernels, name)
            take_settings(net.settings[0], settings, net.rule.n_settings)
            take_settings(net.settings[1], bias_settings, net.rule.n_settings)
            net.alike = settings == bias_settings
            net.clip_norm, net.clip_value, net.average = clip_norm, clip_value, average
            if len(of_weights) != net.rule.n_states + (average != 0) or len(of_biases) != len(of_weights):
                raise ValueError(f"Plan.bind: states must be those of the rule {name}.")
        return states

    cdef void _aim_gradients(self) noexcept:
        """Let gradients go back to the lowest trained stage, and no further."""
        cdef Net *net = &self.lean
        cdef int s, lowest = 0
        while lowest < net.n_stages and not (has_parameters(&net.stages[lowest]) and net.stages[lowest].trained):
            lowest += 1
        for s in range(net.n_stages):
            net.stages[s].dinputs = net.stages[s - 1].dvalues if s > lowest else NULL
            net.stages[s].unwanted = 0
            if s == lowest + 1 and net.stages[lowest].kind == EMBEDDING:
                net.stages[s].unwanted = net.stages[lowest].embedded.places.n_numbers
            elif s == lowest + 1 and net.stages[lowest].kind == PERIODIC:
                net.stages[s].unwanted = net.stages[lowest].n_in
        if net.combined:
            net.stages[net.n_stages - 1].dinputs = net.stages[net.n_stages - 1].dvalues

    cdef int _bind(
        self, Parameter *parameter, object owner, cnp.ndarray values, bint trains, tuple names, str where,
        object layer_state,
    ) except -1:
        cdef list state
        cdef int i
        parameter.values, parameter.line = data(values), cnp.PyArray_DIM(values, 1)
        parameter.size = cnp.PyArray_SIZE(values)
        parameter.averages = parameter.gradients = NULL
        self.parameters.add(len(self.held))
        self.held.append(values)
        if not trains or not names:
            return 0
        state = attributes(owner, names, values, True)
        if state is None:
            state = layer_state(where, owner, names, values)
            if len(state) != len(names) or not all([alike(array, values, True) for array in state]):
                raise ValueError(f"{where}: layer_state must return arrays like the parameter, one for each name.")
        self.held.extend(state)
        for i in range(self.lean.rule.n_states):
            parameter.states[i] = data(state[i])
        if self.lean.average:
            parameter.averages = data(state[self.lean.rule.n_states])
        return 0

    cdef int _take_strengths(self, int s, object owner, str where) except -1:
        """Read a dense stage's penalties. If they are the same objects as the last time, the numbers are the same."""
        cdef Stage *stage = &self.stored.stages[s]
        cdef tuple given = (
            owner.weight_regularizer_l1, owner.weight_regularizer_l2,
            owner.bias_regularizer_l1, owner.bias_regularizer_l2,
        )
        cdef tuple known = self.strengths[s]
        if known is None or not (
            given[0] is known[0] and given[1] is known[1] and given[2] is known[2] and given[3] is known[3]
        ):
            stage.weights.l1, stage.weights.l2, stage.biases.l1, stage.biases.l2 = owner._strengths(where)
            self.strengths[s] = given
        return 0

    cdef void _pass_on(self, int s) noexcept:
        """Copy the bound data of a program's stage to its lean stage."""
        cdef Stage *stage = &self.stored.stages[s]
        cdef Stage *lean = &self.lean.stages[self.place[s]]
        cdef Stage before
        if has_trait(stage, IDENTITY) or lean.kind != stage.kind:
            return  # it is left out, or part of another one
        before = lean[0]
        lean.weights, lean.biases, lean.trained = stage.weights, stage.biases, stage.trained
        lean.weights.rounded = before.weights.rounded
        lean.weights.collected, lean.weights.squares = before.weights.collected, before.weights.squares
        lean.biases.collected, lean.biases.squares = before.biases.collected, before.biases.squares
        lean.keep, lean.seed, lean.forwards = stage.keep, stage.seed, stage.forwards
        lean.settings = stage.settings
        lean.norm, lean.embedded, lean.encoded = stage.norm, stage.embedded, stage.encoded
        lean.spline = stage.spline
        lean.spline.sums, lean.spline.buckets = before.spline.sums, before.spline.buckets
        lean.spline.bins, lean.spline.parts = before.spline.bins, before.spline.parts
        lean.spline.dweights = before.spline.dweights
        lean.periodic = stage.periodic
        lean.norm.lines, lean.embedded.dweights = before.norm.lines, before.embedded.dweights

    cdef bint _apart(self) except -1:
        """Return whether no two written arrays share memory."""
        cdef list arrays = self.held
        cdef Py_ssize_t i, j
        for i in range(len(arrays)):
            for j in range(i):
                if overlap(<cnp.ndarray> arrays[i], <cnp.ndarray> arrays[j]):
                    return False
        return True

    def bind_data(self, X, y, tuple loss not None, wanted, bint threshold, bint classes, double precision,
                  tuple answers=AS_THEY_ARE, weights=None):
        """Take the samples, the targets, and the accuracy's targets. Return False if one overlaps a written array.

        Parameters
        ----------
        X : array (n, n_in)
        y : array (n,) of class numbers, or (n, n_out)
        loss : pair
            The loss's settings, and a float64 array (n_out,) of its columns' own numbers, or None.
        wanted : float64 array (n,) or (n, m), or None for the class numbers
        threshold, classes : bool
            How outputs become predictions.
        precision : float
            How near a prediction must come. Below 0, it must be equal.
        answers : tuple
            The compared outputs: the distance of columns, the first column, the threshold, whether exponentials.
        weights : float64 array (n,), or None
            The weight of each sample.
        """
        cdef Net *net
        cdef Py_ssize_t n
        cdef cnp.ndarray samples = matrix("Plan", "X", X, self.number, ANY, self.lean.n_in)
        cdef cnp.ndarray targets = None
        cdef cnp.ndarray array, compared, weighing
        cdef int i
        n = cnp.PyArray_DIM(samples, 0)
        if n == 0 or not self.has_parameters or self.lean.loss is NULL:
            raise ValueError("Plan.bind_data: there must be parameters, samples and a loss.")
        self.has_data = self.is_prepared = False
        for array in self.held:
            if overlap(array, samples):
                return False
        if self.labels is not NULL:
            give(self.labels)
            self.labels = NULL
        if loss is not self.loss:
            self.loss = None
            self._take_loss(loss)
            self.loss = loss
        if self.lean.loss.traits & BY_LABELS:
            self.labels = take_labels("Plan", y, n, self.lean.n_out)
        else:
            targets = matrix("Plan", "y", y, self.number, n, self.lean.n_out)
            for array in self.held:
                if overlap(array, targets):
                    return False
        compared = take_compared("Plan", wanted, n, self.lean.n_out)
        weighing = take_weights("Plan", weights, n)
        self.held += [samples, targets, compared, weighing]
        for i in range(2):
            net = self.nets[i]
            net.X, net.n_samples = data(samples), n
            net.labels = self.labels
            net.targets, net.wanted = data_or_null(targets), <const double *> data_or_null(compared)
            net.n_wanted = cnp.PyArray_SIZE(compared) // n if compared is not None else 0
            net.weights = <const double *> data_or_null(weighing)
            net.threshold, net.classes, net.precision = threshold, classes, precision
            take_answers(net, answers)
        self.has_data = True
        return True

    cdef int _take_loss(self, tuple loss) except -1:
        """Take the loss's hyperparameters."""
        cdef int i
        settings, own = loss
        self.loss_own = take_own_numbers("Plan.bind_data", own, self.number, self.lean.n_out)
        for i in range(2):
            take_settings(self.nets[i].loss_settings, settings, self.lean.loss.n_settings)
            self.nets[i].loss_own = data_or_null(self.loss_own)
        return 0

    # Running

    def exchange_with(self, int rank, int n_ranks, adds_up not None):
        """Share each batch's rows with other processes, until `release`. Call it before `prepare`.

        Each process collects its gradients, and all make the same update by their sum. The rule must limit the norm of
        gradients.

        Parameters
        ----------
        rank, n_ranks : int
            The number of this process, from 0 on, and the number of processes.
        adds_up : callable
            Adds up an array of the plan's dtype over all ranks, in place. All ranks call it once per step.
        """
        cdef int i
        if not 0 <= rank < n_ranks or not self.lean.clip_norm or self.lean.n_batch_norms:
            raise ValueError("Plan.exchange_with: rank must be one of n_ranks, and gradients must be collected.")
        self.adds_up = adds_up
        for i in range(2):
            self.nets[i].rank, self.nets[i].n_ranks = rank, n_ranks
            self.nets[i].exchange, self.nets[i].exchanged_by = exchange_of_plan, <void *> self

    cdef bint _exchange(self) noexcept:
        """Add up the sums. Return whether that went well."""
        try:
            self.adds_up(self.sums_array)
            return True
        except BaseException as error:
            self.failure = error
            return False

    def prepare(
        self, Py_ssize_t batch, Py_ssize_t n_steps, bint stores, Py_ssize_t step_of_epoch, rates, order, iterations,
        Py_ssize_t forwards, int n_threads, bint stops, bint keeps=False, bint penalty_per_sample=False,
    ):
        """Prepare a run of some steps. Return the arrays for their figures.

        Parameters
        ----------
        batch : int
            Rows of a step, on all ranks together.
        n_steps : int
        stores : bool
            Whether the last step keeps its results, for `publish`.
        step_of_epoch : int
            The step of an epoch in which the run begins.
        rates : float64 array (n_steps,)
            The learning rate of each step.
        order : intp array (epochs, n_samples) or None
            The order of samples in each epoch of the run. Every number is checked.
        iterations, forwards : int
            Steps done before: in the optimizer's life, and since `bind`.
        n_threads : int
            The most threads.
        stops : bool
            Whether to stop before the update of a step whose loss is not finite.
        keeps : bool
            Whether to keep the parameters from before the last step, for `step_back`. It does not if that step stores.
        penalty_per_sample : bool
            Whether a step's penalties are divided by the number of its rows, or the sum of their weights.

        Returns
        -------
        pair of float64 arrays (5, n_steps) and (5, epochs)
        """
        cdef Py_ssize_t n_samples = self.lean.n_samples
        cdef Py_ssize_t n_batches, n_epochs, all_rows
        cdef cnp.npy_intp shape[2]
        cdef cnp.ndarray rows = None
        cdef Net *net
        cdef bint batched_lanes
        cdef int s
        if not self.has_data:
            raise RuntimeError("Plan.prepare: there are no data. Call bind and bind_data first.")
        self.is_prepared = False
        if batch < 1 or n_steps < 1 or n_threads < 1 or step_of_epoch < 0 or forwards < 0:
            raise ValueError("Plan.prepare: sizes must be positive.")
        batch = min(batch, n_samples)
        n_batches = (n_samples + batch - 1) // batch
        n_epochs = (step_of_epoch + n_steps) // n_batches
        if step_of_epoch >= n_batches:
            raise ValueError("Plan.prepare: step_of_epoch must be a step of an epoch.")
        if order is not None:
            rows = matrix("Plan.prepare", "order", order, cnp.NPY_INTP, ANY, n_samples)
            if cnp.PyArray_DIM(rows, 0) * n_batches < step_of_epoch + n_steps:
                raise ValueError("Plan.prepare: order must have a row for each epoch.")
            rows = checked_order(rows, n_samples)
        self.order, all_rows = rows, batch
        if self.lean.n_ranks:
            batch = (batch + self.lean.n_ranks - 1) // self.lean.n_ranks
        batched_lanes = self.kernels.fits_lanes(&self.lean) and not self.bfloat16
        if batched_lanes != self.lean.batched_lanes:
            self._free()
        self.lean.batched_lanes = batched_lanes
        self._reserve(batch, n_threads, order is not None)
        self._aim_gradients()
        shape[0], shape[1] = N_FIGURES, n_steps
        self.steps = cnp.PyArray_EMPTY(2, shape, cnp.NPY_DOUBLE, 0)
        if n_steps == 1 and type(rates) is float:  # NumPy takes half a microsecond for it
            (<double *> data(self.steps))[4] = rates
        else:
            self.steps[4] = rates
        shape[1] = n_epochs
        self.epochs = cnp.PyArray_EMPTY(2, shape, cnp.NPY_DOUBLE, 0)
        self.progress.figures.steps, self.progress.figures.steps_size = <double *> data(self.steps), n_steps
        self.progress.figures.epochs, self.progress.figures.epochs_size = <double *> data(self.epochs), n_epochs
        self.stores, self.lean_end, self.has_room = stores, n_steps - stores, False
        if stores:
            self._lend()
        self.keeps = keeps and not stores
        if self.keeps:
            self.has_before = False
            if self.spans is NULL:
                self._place_before()
        for s in range(2):
            net = self.nets[s]
            net.batch, net.step_of_epoch, net.iterations = batch, step_of_epoch, iterations
            net.step_rows, net.sums, net.n_sums = all_rows, self.lean.sums, self.lean.n_sums
            net.stops, net.penalty_per_sample = stops, penalty_per_sample
            net.order = <const Py_ssize_t *> data(rows) if rows is not None else NULL
        self.lean.first_forwards = self.stored.first_forwards = forwards
        self.progress.n_threads, self.progress.penalty_scale = 1, 1
        self.steps_done, self.failure = 0, None
        if self.lean.n_ranks:
            shape[0] = self.lean.n_sums
            self.sums_array = cnp.PyArray_SimpleNewFromData(1, shape, self.number, self.lean.sums)
        self.run += 1
        open_gate(self.progress.meeting, 2 * self.run)
        expect_at_gate(self.progress.meeting, self.run)
        self.is_prepared = True
        return self.steps, self.epochs

    cdef int _place_before(self) except -1:
        """Make sure that there is memory for a copy of everything that steps write: parameters and their states."""
        cdef Py_ssize_t at = 0
        cdef cnp.ndarray array
        cdef Span *span
        cdef int i
        self.n_spans = self.n_written
        self.spans = <Span *> PyMem_RawCalloc(self.n_spans + 1, sizeof(Span))
        if self.spans is NULL:
            raise MemoryError
        for i in range(self.n_spans):
            array, span = self.held[i], &self.spans[i]
            span.values, span.size, span.place = <char *> data(array), cnp.PyArray_NBYTES(array), at
            span.is_parameter = i in self.parameters
            within(NULL, &at, span.size)
        if self.before is NULL or self.before_size < at:
            if self.before is not NULL:
                give(self.before)
                self.before = NULL
            self.before = <char *> allocate(max(at, <Py_ssize_t> ALIGNMENT))
            self.before_size = at
        return 0

    cdef void _lend(self) noexcept:
        """Copy the shared data to the net that stores."""
        cdef Stage *stages = self.stored.stages
        cdef Stage *lean
        cdef int s
        self.stored.gathered, self.stored.batch_labels = self.lean.gathered, self.lean.batch_labels
        self.stored.batch_targets, self.stored.batch_wanted = self.lean.batch_targets, self.lean.batch_wanted
        self.stored.batch_weights, self.stored.row_hits = self.lean.batch_weights, self.lean.row_hits
        self.stored.sample_losses, self.stored.scratch = self.lean.sample_losses, self.lean.scratch
        self.stored.scratch_size, self.stored.private_size = self.lean.scratch_size, self.lean.private_size
        self.stored.group_rows, self.stored.group_size = self.lean.group_rows, self.lean.group_size
        self.stored.group_step, self.stored.partials = self.lean.group_step, self.lean.partials
        self.stored.records = not self.lean.batched_lanes
        for s in range(self.n_full):
            if has_parameters(&stages[s]):
                lean = &self.lean.stages[self.place[s]]
                stages[s].norm.lines, stages[s].embedded.dweights = lean.norm.lines, lean.embedded.dweights
                stages[s].spline = lean.spline
                stages[s].wave_gradients = lean.wave_gradients
                stages[s].tiles, stages[s].panels, stages[s].packed = lean.tiles, lean.panels, lean.packed
                stages[s].in_groups, stages[s].partial = lean.in_groups, lean.partial
                stages[s].blocks, stages[s].weights.rounded = lean.blocks, lean.weights.rounded
                stages[s].rounded_inputs, stages[s].rounded_dvalues = lean.rounded_inputs, lean.rounded_dvalues
                stages[s].weights.collected, stages[s].weights.squares = lean.weights.collected, lean.weights.squares
                stages[s].biases.collected, stages[s].biases.squares = lean.biases.collected, lean.biases.squares
                if self.lean.batched_lanes:
                    stages[s].trained = False

    def room(self, Py_ssize_t rows, inputs, list old not None):
        """Make the arrays that the last step of a run stores into. Return them for `publish`.

        Parameters
        ----------
        rows : int
            Rows of the run's last batch.
        inputs : array (rows, n_in)
            That batch.
        old : list of arrays
            Arrays that are not needed any more. They are used again if they fit, because new memory costs more than a
            step.

        Returns
        -------
        list of dict
            For each stage, the attributes of its layer.
        """
        if not self.is_prepared or not self.stores or not 1 <= rows <= self.lean.batch:
            raise ValueError("Plan.room: rows must be those of a run's last batch.")
        inputs = matrix("Plan.room", "inputs", inputs, self.number, rows, self.lean.n_in)
        return self._make_room(rows, inputs, old)

    cdef list _make_room(self, Py_ssize_t rows, cnp.ndarray inputs, list old):
        cdef Stage *stages = self.stored.stages
        cdef list found = []
        cdef dict own
        cdef cnp.ndarray output, dinputs, gradients = None
        cdef int s
        self.old = old
        for s in range(self.n_full):
            if has_trait(&stages[s], IDENTITY) or stages[s].kind == FORK:
                output = inputs
            else:
                output = self._array(rows * stages[s].members, stages[s].n_out)
            own = {"inputs": inputs, "output": output}
            stages[s].inputs, stages[s].output = data(inputs), data(output)
            if has_parameters(&stages[s]):
                own["dweights"] = self._array(stages[s].weights.size // stages[s].weights.line, stages[s].weights.line)
                stages[s].weights.gradients = data(own["dweights"])
            if has_biases(&stages[s]):
                own["dbiases"] = self._array(stages[s].biases.size // stages[s].biases.line, stages[s].biases.line)
                stages[s].biases.gradients = data(own["dbiases"])
            elif stages[s].kind == DROPOUT or stages[s].kind == NOISE:
                name = "binary_mask" if stages[s].kind == DROPOUT else "noise"
                own[name] = self._array(rows * stages[s].members, stages[s].n_out)
                if stages[s].kind == DROPOUT:
                    own["_passed_through"] = False
                stages[s].mask = data(own[name])
            found.append(own)
            inputs = output
        for s in range(self.n_full - 1, -1, -1):
            if s == self.n_full - 1:
                # The loss's own gradient. If it is combined with the last stage's, nothing writes here.
                gradients = self._array(rows * stages[s].members, stages[s].n_out)
            dinputs = self._array(rows * members_before(&stages[s]), stages[s].n_in)
            stages[s].dvalues, stages[s].dinputs = data(gradients), data(dinputs)
            (<dict> found[s])["dinputs"] = dinputs
            (<dict> found[s])["dvalues"] = gradients
            gradients = dinputs
        self.held.append([list(own.values()) for own in found])
        for s in range(self.n_full):  # a residual has two stages
            if stages[s].kind == FORK:
                del (<dict> found[s])["output"]
            elif stages[s].kind == JOIN:
                del (<dict> found[s])["inputs"], (<dict> found[s])["dinputs"]
        self.has_room = True
        self.old = None
        return found

    def stored_in(self, list room not None, tuple owners not None):
        """Return the attributes that layers get from a `room`: object, name and value.

        Parameters
        ----------
        room : list of dict
            The arrays that `room` made for the step.
        owners : tuple of layers
            One for each stage.
        """
        cdef list found = []
        cdef int s
        if len(room) != self.n_full or len(owners) != self.n_full:
            raise ValueError("Plan.stored_in: room and owners must be one for each stage.")
        for s in range(self.n_full):
            own = PyObject_GenericGetDict(owners[s], NULL)
            for name, value in (<dict?> room[s]).items():
                if name != "dvalues":
                    found.append((own, name, value))
            if self.stored.stages[s].kind == BATCH_NORM:
                found += [(own, name, value) for name, value in self.batch_figures(s).items()]
        return found

    def batch_figures(self, int s):
        """Return the attributes, by name, that the layer of the batch norm at stage ``s`` gets from the last batch."""
        cdef cnp.ndarray figures
        cdef cnp.npy_intp shape[2]
        cdef Py_ssize_t line
        cdef const Stage *stage
        cdef int i
        if not 0 <= s < self.n_full or self.stored.stages[s].kind != BATCH_NORM or self.memory is NULL:
            raise ValueError("Plan.batch_figures: s must be the stage of a batch norm that has run.")
        stage = &self.lean.stages[self.place[s]]
        line = norm_line(stage.n_out) * self.itemsize
        shape[0], shape[1] = 1, stage.n_out
        found = {"_by_batch": True}
        for i, name in enumerate(("batch_mean", "batch_variance")):
            figures = cnp.PyArray_EMPTY(2, shape, self.number, 0)
            memcpy(data(figures), <char *> stage.norm.lines + (MEAN + i) * line, stage.n_out * self.itemsize)
            found[name] = figures
        return found

    cdef cnp.ndarray _array(self, Py_ssize_t rows, Py_ssize_t columns):
        cdef cnp.npy_intp shape[2]
        cdef Py_ssize_t i
        for i in range(len(self.old)):
            array = self.old[i]
            if is_ready(array, <void *> self.dtype, True) and has_size(array, rows, columns):
                del self.old[i]
                return array
        shape[0], shape[1] = rows, columns
        return cnp.PyArray_EMPTY(2, shape, self.number, 0)

    @staticmethod
    def unshared(list arrays not None):
        """Return, once each, arrays that own their memory and have no reference except attributes, one for each place.

        If reference counts do not show all users, that cannot be known, and the result is empty.

        Parameters
        ----------
        arrays : list of arrays
            The values of some attributes.
        """
        cdef dict uses = {}
        cdef list found = []
        cdef PyObject *array
        cdef Py_ssize_t i
        if not COUNTS_REFERENCES:
            return found
        for i in range(len(arrays)):
            array = <PyObject *> arrays[i]
            uses[<size_t> array] = uses.get(<size_t> array, 0) + 1
        for i in range(len(arrays)):
            array = <PyObject *> arrays[i]
            # Each use is an attribute and an element of the list.
            if Py_REFCNT(array) == 2 * uses.pop(<size_t> array, 0) and type(arrays[i]) is cnp.ndarray:
                if cnp.PyArray_CHKFLAGS(arrays[i], cnp.NPY_ARRAY_OWNDATA):
                    found.append(arrays[i])
        return found

    def lead(self):
        """Run as the first thread, with those that wait in `work`. Return the steps done, which `steps_done` keeps.

        It does not wait: a thread that is not there by now does not come, or comes too late and leaves. Opening the
        latch and running are one call, so that no exception can come between: the other threads could not continue
        alone.
        """
        if not self.is_prepared:
            raise RuntimeError("Plan.lead: no run is prepared. Call prepare first.")
        if self.stores and not self.has_room:
            raise RuntimeError("Plan.lead: there is no room for what the last step stores. Call room first.")
        with nogil:
            self.progress.n_threads = 1 + close_gate(self.progress.meeting)
            open_gate(self.progress.meeting, 2 * self.run + 1)
            self.steps_done = self._work(0)
        if self.failure is not None:
            raise self.failure
        return self.steps_done

    def work(self, long long run):
        """Wait for `lead` or `dismiss`, then run as one of the threads after the first, if there is memory for it.

        A thread that comes after the end of the run with this number does nothing. The number is ``run`` after
        `prepare`.
        """
        cdef int thread = 0
        if self.is_prepared and run == self.run:
            thread = come_to_gate(self.progress.meeting, run, min(self.reserved_threads - 1, 65535))
        if thread > 0:
            with nogil:
                if wait_at_gate(self.progress.meeting, 2 * run):
                    self._work(thread)

    def waiting(self):
        """Return the number of threads that wait in `work`."""
        return count_at_gate(self.progress.meeting)

    def dismiss(self):
        """Release the threads that still wait in `work`, and those that will come."""
        close_gate(self.progress.meeting)
        open_gate(self.progress.meeting, -1)

    cdef Py_ssize_t _work(self, int thread) noexcept nogil:
        """Do the steps of a run as one of its threads. Return the number of steps done."""
        cdef uint64_t mode = enter_kernels()
        cdef Py_ssize_t done = 0, last = self.lean_end, first = last - 1 if self.keeps else last
        if first > 0:
            done = self.kernels.train(&self.lean, 0, first, thread)
        if done == first and first < last:
            if thread == 0:  # the others wait for it before they update anything
                self._keep()
            done = self.kernels.train(&self.lean, first, last, thread)
        if done == last and self.stores:
            done = self.kernels.train(&self.stored, last, last + 1, thread)
            if done > last and self.lean.batched_lanes:
                done = self.kernels.train(&self.lean, last, last + 1, thread)
        leave_kernels(mode)
        return done

    cdef void _keep(self) noexcept nogil:
        """Copy all parameters."""
        cdef const Span *span
        cdef int i
        for i in range(self.n_spans):
            span = &self.spans[i]
            if span.is_parameter:
                memcpy(self.before + span.place, span.values, span.size)
        self.has_before = True

    def step_back(self):
        """Restore the parameters from before the last step of a run that keeps them. `return_to` undoes it.

        In between, that step can be repeated for its stored results. Its gradients need only these parameters.
        """
        cdef const Span *span
        cdef char *kept
        cdef Py_ssize_t i, j
        if not self.has_parameters or not self.has_before:
            raise RuntimeError("Plan.step_back: nothing is kept. Let a run be prepared to keep it first.")
        self._require_in_place()
        self.has_before = False
        for i in range(self.n_spans):
            span = &self.spans[i]
            kept = self.before + span.place
            if span.is_parameter:
                for j in range(span.size):
                    kept[j], span.values[j] = span.values[j], kept[j]
            else:
                memcpy(kept, span.values, span.size)
        self.is_back = True

    def return_to(self):
        """Restore everything that steps write from before `step_back`, if that was called."""
        cdef const Span *span
        cdef int i
        if not self.has_parameters or not self.is_back:
            return
        for i in range(self.n_spans):
            span = &self.spans[i]
            memcpy(span.values, self.before + span.place, span.size)
        self.is_back = False

    def forget_averages(self):
        """Drop the averages of the trained layers, if the optimizer keeps none: old ones would stay behind."""
        cdef dict own
        cdef int s
        if self.lean.average or not self.has_parameters:
            return
        for s in range(self.n_full):
            if has_parameters(&self.stored.stages[s]) and self.lean.stages[self.place[s]].trained:
                own = PyObject_GenericGetDict((<tuple> self.stages[s])[1], NULL)
                for name in AVERAGED:
                    if name in own:
                        del own[name]

    def record(self, dict run not None, dict optimizer not None, tuple dropouts not None, add, done, iterations, rate):
        """Record the steps of a run everywhere at once: no signal and no other thread comes between.

        Parameters
        ----------
        run, optimizer : dict
            The attributes of the run and of the optimizer. The run's ``done`` and pending ``figures`` change.
        dropouts : tuple of layers
            The layers that count their forwards.
        add : callable, not written in Python
            Adds the figures to the history.
        done, iterations : int
            Steps of the run, and of the optimizer's life.
        rate : number or None
            The rate of the last step, if rates change.
        """
        cdef Py_ssize_t whole = self.steps_done
        optimizer["iterations"] = iterations
        if rate is not None:
            optimizer["current_learning_rate"] = rate
        if whole:
            self.forget_averages()
            add()
        for layer in dropouts:
            layer.training_forwards = layer.training_forwards + whole
        run["done"], run["figures"] = done, None
        self.count()

    def watch(self, list owned not None, list counting not None, tuple settings not None):
        """Remember what Python code may change between two runs, for `has_changed`.

        Parameters
        ----------
        owned, counting : list of dict
            Attributes of objects: those that no run changes, and those among which some count steps.
        settings : tuple of (owner, name, value)
            Other attributes.
        """
        cdef cnp.ndarray array
        self.addresses = []
        for array in self.held:
            if array is not None:
                self.addresses.append((array, <size_t> data(array), cnp.PyArray_NBYTES(array)))
        self.watched = [(own, entries(own)) for own in owned]
        self.settings = settings
        self.versions = versions_of(self.guards)
        self.counted = []
        for own in counting:
            seen = entries(own)
            self.watched.append((own, seen))
            self.counted += [(own, seen, i, seen[i]) for i in range(0, len(seen), 2) if seen[i] in COUNTS]

    cdef bint _is_in_place(self) except -1:
        """Return whether all bound arrays have the same memory as at `watch`: a resized array has freed its memory."""
        cdef tuple each
        cdef cnp.ndarray array
        for each in self.addresses:
            array = each[0]
            if <size_t> data(array) != <size_t> each[1] or cnp.PyArray_NBYTES(array) != <Py_ssize_t> each[2]:
                return False
        return True

    cdef int _require_in_place(self) except -1:
        if not self._is_in_place():
            raise RuntimeError(
                "Model.train: arrays must keep their memory while a model trains with them, got one that a callback "
                "has resized. Assign another array."
            )
        return 0

    cdef int count(self) except -1:
        """Remember anew the attributes that count steps."""
        cdef tuple each
        for each in self.counted:
            (<list> each[1])[<Py_ssize_t> each[2] + 1] = item(each[0], each[3])

    def has_changed(self, model):
        """Return whether any attribute given to `watch` is another object, or `holds` is no longer true.

        It is also true if a bound array has other memory.
        """
        cdef tuple kept
        if not self._is_in_place():
            return True
        for kept in self.watched:
            if not is_as(kept[0], kept[1]):
                return True
        for kept in self.settings:
            if getattr(kept[0], kept[1], None) is not kept[2]:
                return True
        for kept in self.versions:
            if (<PyTypeObject *> <PyObject *> kept[0]).tp_version_tag != <unsigned int> kept[1] or not kept[1]:
                return not self.holds(model)
        return not are_parts_untouched(model, self.guards)

    def sums(self):
        """Return the epoch's sums so far: losses, hits, their counts or weights, and penalties."""
        return (*sums_of(&self.lean), self.progress.penalty_sum)

    def is_finite(self):
        """Return whether all bound and trained parameters and all running statistics are finite."""
        cdef uint64_t mode
        cdef const Stage *stage
        cdef bint finite = True
        cdef int s
        self._require_in_place()
        mode = enter_kernels()
        for s in range(self.lean.n_stages):
            stage = &self.lean.stages[s]
            if finite and self.has_parameters and has_parameters(stage) and stage.trained:
                finite = (
                    self.kernels.not_finite(stage.weights.values, stage.weights.size) < 0
                    and self.kernels.not_finite(stage.biases.values, stage.biases.size) < 0
                )
            if finite and self.has_parameters and stage.kind == BATCH_NORM:
                finite = (
                    self.kernels.not_finite(stage.norm.running_mean, stage.n_out) < 0
                    and self.kernels.not_finite(stage.norm.running_variance, stage.n_out) < 0
                )
        leave_kernels(mode)
        return finite

    def resume(
        self, double loss_sum, double loss_count, double hits_sum, double hits_count, double penalty_sum
    ):
        """Continue with the sums of an epoch that began earlier, as `sums` returned them."""
        self.progress.loss_sum, self.progress.loss_count = loss_sum, loss_count
        self.progress.hits_sum, self.progress.hits_count = hits_sum, hits_count
        self.progress.penalty_sum = penalty_sum

    def release(self):
        """Release all arrays, and memory that is too much to keep."""
        cdef int i
        self.dismiss()
        self.has_parameters = self.has_data = self.is_prepared = False
        self.keeps = self.has_before = self.is_back = False
        self.watched, self.counted, self.settings, self.versions = [], [], (), []
        self.addresses, self.held = [], []
        self.steps = self.epochs = self.order = None
        self.adds_up = self.sums_array = None
        for i in range(2):
            self.nets[i].n_ranks, self.nets[i].exchange = 0, NULL
        PyMem_RawFree(self.spans)
        self.spans = NULL
        if self.before_size > MOST_KEPT:
            self._free_before()
        if self.memory_size > MOST_KEPT:
            self._free()


cdef cnp.ndarray checked_order(cnp.ndarray order, Py_ssize_t n_samples):
    """Return a private copy of an order, after a check of every number."""
    cdef cnp.ndarray copy = cnp.PyArray_NewCopy(order, cnp.NPY_CORDER)
    cdef const Py_ssize_t *numbers = <const Py_ssize_t *> data(copy)
    cdef Py_ssize_t i
    for i in range(cnp.PyArray_SIZE(copy)):
        if not 0 <= numbers[i] < n_samples:
            raise ValueError("Plan.prepare: order must hold numbers of samples.")
    return copy
