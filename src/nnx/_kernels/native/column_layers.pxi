# The binding layer of normalization, factors for each column, embeddings, encodings, waves and noise.


cdef inline cnp.ndarray line_of(str where, str name, object given, int number, Py_ssize_t columns):
    """Return an array with a number for each column, to read."""
    return matrix(where, name, given, number, 1, columns)


cdef inline cnp.ndarray target(str where, str name, object given, int number, Py_ssize_t rows, Py_ssize_t columns):
    """Return an array to write into."""
    cdef cnp.ndarray result = matrix(where, name, given, number, rows, columns)
    check_writable(where, name, given)
    return result


def batch_norm_statistics(inputs, mean, variance):
    cdef str where = "batch_norm_statistics"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray m = target(where, "mean", mean, number, 1, n)
    cdef cnp.ndarray v = target(where, "variance", variance, number, 1, n)
    cdef uint64_t mode
    distinct(where, "mean", mean, "variance", variance)
    x = apart(apart(x, m), v)
    with nogil:
        mode = enter_kernels()
        kernels.batch_norm_statistics(data(x), data(m), data(v), rows, n, 0, n)
        leave_kernels(mode)
    give_back(mean, m)
    give_back(variance, v)


def batch_norm_forward(inputs, mean, variance, weights, biases, double epsilon, output):
    cdef str where = "batch_norm_forward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray m = line_of(where, "mean", mean, number, n)
    cdef cnp.ndarray v = line_of(where, "variance", variance, number, n)
    cdef cnp.ndarray w = line_of(where, "weights", weights, number, n)
    cdef cnp.ndarray b = line_of(where, "biases", biases, number, n)
    cdef cnp.ndarray result = target(where, "output", output, number, rows, n)
    cdef cnp.ndarray scales = empty_like(w)
    cdef uint64_t mode
    x = same_or_apart(x, result)
    m, b = apart(m, result), apart(b, result)
    with nogil:
        mode = enter_kernels()
        kernels.batch_norm_scales(data(v), data(w), epsilon, data(scales), n, 0, n)
        kernels.batch_norm_forward(data(x), data(m), data(scales), data(b), data(result), rows, n, False)
        leave_kernels(mode)
    give_back(output, result)


def batch_norm_backward_weights(inputs, dvalues, mean, variance, double epsilon, dweights, dbiases):
    cdef str where = "batch_norm_backward_weights"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, rows, n)
    cdef cnp.ndarray m = line_of(where, "mean", mean, number, n)
    cdef cnp.ndarray v = line_of(where, "variance", variance, number, n)
    cdef cnp.ndarray dw = target(where, "dweights", dweights, number, 1, n)
    cdef cnp.ndarray db = target(where, "dbiases", dbiases, number, 1, n)
    cdef uint64_t mode
    distinct(where, "dweights", dweights, "dbiases", dbiases)
    x, d = apart(apart(x, dw), db), apart(apart(d, dw), db)
    m, v = apart(apart(m, dw), db), apart(apart(v, dw), db)
    with nogil:
        mode = enter_kernels()
        kernels.batch_norm_backward_weights(
            data(x), data(d), data(m), data(v), epsilon, data(dw), data(db), rows, n, 0, n
        )
        leave_kernels(mode)
    give_back(dweights, dw)
    give_back(dbiases, db)


def batch_norm_backward_inputs(inputs, dvalues, mean, variance, weights, dweights, dbiases, double epsilon, dinputs):
    cdef str where = "batch_norm_backward_inputs"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, rows, n)
    cdef cnp.ndarray m = line_of(where, "mean", mean, number, n)
    cdef cnp.ndarray v = line_of(where, "variance", variance, number, n)
    cdef cnp.ndarray w = line_of(where, "weights", weights, number, n)
    cdef cnp.ndarray dw = line_of(where, "dweights", dweights, number, n)
    cdef cnp.ndarray db = line_of(where, "dbiases", dbiases, number, n)
    cdef cnp.ndarray result = target(where, "dinputs", dinputs, number, rows, n)
    cdef cnp.ndarray scales = empty_like(w), of_deviation = empty_like(w), of_all = empty_like(w)
    cdef uint64_t mode
    x, d = same_or_apart(x, result), same_or_apart(d, result)
    m = apart(m, result)
    with nogil:
        mode = enter_kernels()
        kernels.batch_norm_scales(data(v), data(w), epsilon, data(scales), n, 0, n)
        kernels.batch_norm_shares(
            data(v), data(scales), data(dw), data(db), epsilon, data(of_deviation), data(of_all), rows, n, 0, n
        )
        kernels.batch_norm_backward_inputs(
            data(x), data(d), data(m), data(scales), data(of_deviation), data(of_all), data(result), rows, n
        )
        leave_kernels(mode)
    give_back(dinputs, result)


def layer_norm_forward(inputs, weights, biases, double epsilon, output):
    cdef str where = "layer_norm_forward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray w = line_of(where, "weights", weights, number, n)
    cdef cnp.ndarray b = line_of(where, "biases", biases, number, n)
    cdef cnp.ndarray result = target(where, "output", output, number, rows, n)
    cdef uint64_t mode
    x, w, b = same_or_apart(x, result), apart(w, result), apart(b, result)
    with nogil:
        mode = enter_kernels()
        kernels.layer_norm_forward(data(x), data(w), data(b), epsilon, data(result), rows, n)
        leave_kernels(mode)
    give_back(output, result)


def layer_norm_backward_weights(inputs, dvalues, double epsilon, dweights, dbiases):
    cdef str where = "layer_norm_backward_weights"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, rows, n)
    cdef cnp.ndarray dw = target(where, "dweights", dweights, number, 1, n)
    cdef cnp.ndarray db = target(where, "dbiases", dbiases, number, 1, n)
    cdef uint64_t mode
    distinct(where, "dweights", dweights, "dbiases", dbiases)
    x, d = apart(apart(x, dw), db), apart(apart(d, dw), db)
    with nogil:
        mode = enter_kernels()
        kernels.layer_norm_backward_weights(data(x), data(d), epsilon, data(dw), data(db), rows, n)
        leave_kernels(mode)
    give_back(dweights, dw)
    give_back(dbiases, db)


def layer_norm_backward_inputs(inputs, dvalues, weights, double epsilon, dinputs):
    cdef str where = "layer_norm_backward_inputs"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, rows, n)
    cdef cnp.ndarray w = line_of(where, "weights", weights, number, n)
    cdef cnp.ndarray result = target(where, "dinputs", dinputs, number, rows, n)
    cdef uint64_t mode
    x, d, w = apart(x, result), same_or_apart(d, result), apart(w, result)
    with nogil:
        mode = enter_kernels()
        kernels.layer_norm_backward_inputs(data(x), data(d), data(w), epsilon, data(result), rows, n)
        leave_kernels(mode)
    give_back(dinputs, result)


cdef multiplied(str where, str name_values, object values, object weights, str name_result, object given):
    """Multiply each column by its weight."""
    cdef Kernels *kernels = kernels_for(where, name_values, values)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, name_values, values, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray w = line_of(where, "weights", weights, number, n)
    cdef cnp.ndarray result = target(where, name_result, given, number, rows, n)
    cdef uint64_t mode
    x, w = same_or_apart(x, result), apart(w, result)
    with nogil:
        mode = enter_kernels()
        kernels.multiply_columns(data(x), data(w), data(result), rows, n)
        leave_kernels(mode)
    give_back(given, result)


def scale_forward(inputs, weights, output):
    multiplied("scale_forward", "inputs", inputs, weights, "output", output)


def scale_backward_inputs(dvalues, weights, dinputs):
    multiplied("scale_backward_inputs", "dvalues", dvalues, weights, "dinputs", dinputs)


def scale_backward_weights(inputs, dvalues, dweights):
    cdef str where = "scale_backward_weights"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n = cnp.PyArray_DIM(x, 1)
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, rows, n)
    cdef cnp.ndarray result = target(where, "dweights", dweights, number, 1, n)
    cdef uint64_t mode
    x, d = apart(x, result), apart(d, result)
    with nogil:
        mode = enter_kernels()
        kernels.scale_backward_weights(data(x), data(d), data(result), rows, n)
        leave_kernels(mode)
    give_back(dweights, result)


# Embeddings


cdef cnp.ndarray sorted_places(cnp.ndarray given, Places *places):
    """Describe an int32 array of places. Return the private copy that the description refers to.

    In the copy, the numeric columns follow the places, then the columns of categories.
    """
    cdef Py_ssize_t j, n_in = cnp.PyArray_SIZE(given), n = 0, n_categories = 0
    cdef cnp.npy_intp size = 2 * n_in
    cdef cnp.ndarray own = cnp.PyArray_EMPTY(1, &size, cnp.NPY_INT32, 0)
    cdef int32_t *first = <int32_t *> data(own)
    cdef int32_t *columns = first + n_in
    memcpy(first, data(given), n_in * sizeof(int32_t))
    for j in range(n_in):
        if first[j] < 0:
            columns[n] = <int32_t> j
            n += 1
    for j in range(n_in):
        if first[j] >= 0:
            columns[n + n_categories] = <int32_t> j
            n_categories += 1
    places.first, places.columns, places.n_numbers = first, columns, n
    return own


cdef cnp.ndarray checked_places(str where, object given, Py_ssize_t n_in, Py_ssize_t n_rows, Places *places):
    """Return the result of `sorted_places`, after a check that the places fit the weights."""
    cdef cnp.ndarray own = sorted_places(vector(where, "places", given, cnp.NPY_INT32, n_in), places)
    cdef Py_ssize_t j
    for j in range(n_in):
        if places.first[j] >= n_rows:
            raise ValueError(f"{where}: places must be below the {n_rows} rows of weights, got {places.first[j]}.")
    return own


cdef inline Py_ssize_t embedded_columns(const Places *places, Py_ssize_t n_in, Py_ssize_t width) noexcept:
    """Return the number of columns of an embedding's output."""
    return places.n_numbers + (n_in - places.n_numbers) * width


def embedding_misfit(inputs, places, counts):
    cdef str where = "embedding_misfit"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, type_of(kernels), ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1), found
    cdef cnp.ndarray place = vector(where, "places", places, cnp.NPY_INT32, n_in)
    cdef cnp.ndarray count = vector(where, "counts", counts, cnp.NPY_INT32, n_in)
    with nogil:
        found = kernels.embedding_misfit(
            data(x), <const int32_t *> data(place), <const int32_t *> data(count), rows, n_in
        )
    return found


def embedding_forward(inputs, places, weights, output):
    cdef str where = "embedding_forward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1), n_out
    cdef cnp.ndarray w = matrix(where, "weights", weights, number, ANY, ANY)
    cdef Py_ssize_t n_rows = cnp.PyArray_DIM(w, 0), width = cnp.PyArray_DIM(w, 1)
    cdef Places sorted_by_kind
    cdef cnp.ndarray held = checked_places(where, places, n_in, n_rows, &sorted_by_kind)
    cdef cnp.ndarray result
    n_out = embedded_columns(&sorted_by_kind, n_in, width)
    result = target(where, "output", output, number, rows, n_out)
    x, w = apart(x, result), apart(w, result)
    with nogil:
        kernels.embedding_forward(
            data(x), &sorted_by_kind, data(w), data(result), rows, n_in, n_out, n_rows, width
        )
    give_back(output, result)


def embedding_backward_weights(inputs, dvalues, places, dweights):
    cdef str where = "embedding_backward_weights"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1), n_out
    cdef cnp.ndarray result = target(where, "dweights", dweights, number, ANY, ANY)
    cdef Py_ssize_t n_rows = cnp.PyArray_DIM(result, 0), width = cnp.PyArray_DIM(result, 1)
    cdef Places sorted_by_kind
    cdef cnp.ndarray held = checked_places(where, places, n_in, n_rows, &sorted_by_kind)
    cdef cnp.ndarray d
    cdef uint64_t mode
    n_out = embedded_columns(&sorted_by_kind, n_in, width)
    d = apart(matrix(where, "dvalues", dvalues, number, rows, n_out), result)
    x = apart(x, result)
    with nogil:
        mode = enter_kernels()
        kernels.embedding_backward_weights(
            data(x), data(d), &sorted_by_kind, data(result), rows, n_in, n_out, n_rows, width
        )
        leave_kernels(mode)
    give_back(dweights, result)


def embedding_backward_inputs(dvalues, places, Py_ssize_t width, dinputs):
    cdef str where = "embedding_backward_inputs"
    cdef Kernels *kernels = kernels_for(where, "dvalues", dvalues)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray result = target(where, "dinputs", dinputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(result, 0), n_in = cnp.PyArray_DIM(result, 1), n_out
    cdef Places sorted_by_kind
    cdef cnp.ndarray held = sorted_places(vector(where, "places", places, cnp.NPY_INT32, n_in), &sorted_by_kind)
    cdef cnp.ndarray d
    if width < 0 or width > (1 << 31):
        raise ValueError(f"{where}: width must be a number of columns, got {width}.")
    n_out = embedded_columns(&sorted_by_kind, n_in, width)
    d = apart(matrix(where, "dvalues", dvalues, number, rows, n_out), result)
    with nogil:
        kernels.embedding_backward_inputs(data(d), &sorted_by_kind, data(result), rows, n_in, n_out)
    give_back(dinputs, result)


# Encodings


cdef tuple take_encoded(str where, tuple given, int number, Kind kind, Py_ssize_t n_in, Encoded *encoded):
    """Describe columns, offsets and edges or factors. Return the private copies that the description refers to."""
    columns, offsets, edges = given
    cdef cnp.ndarray which = cnp.PyArray_NewCopy(vector(where, "columns", columns, cnp.NPY_INT32, ANY), cnp.NPY_CORDER)
    cdef cnp.ndarray begins = cnp.PyArray_NewCopy(
        vector(where, "offsets", offsets, cnp.NPY_INT32, ANY), cnp.NPY_CORDER
    )
    cdef cnp.ndarray own = cnp.PyArray_NewCopy(vector(where, "edges", edges, number, ANY), cnp.NPY_CORDER)
    cdef Py_ssize_t n_columns = cnp.PyArray_SIZE(which), n_edges = cnp.PyArray_SIZE(own), c
    cdef Py_ssize_t n = cnp.PyArray_SIZE(begins) - 1
    cdef const int32_t *column = <const int32_t *> data(which)
    cdef const int32_t *offset = <const int32_t *> data(begins)
    # In a piecewise encoding, two adjacent edges make a piece, so a column needs two edges. A factor has its own
    # column.
    cdef bint fits = n_columns == (n_edges if kind == COMBINATIONS else n)
    fits = fits and n >= 0 and offset[0] == 0 and offset[n] == n_edges
    for c in range(n if fits else 0):
        fits = fits and offset[c + 1] > <Py_ssize_t> offset[c] + (kind == PIECEWISE_LINEAR)
    if not fits:
        raise ValueError(f"{where}: offsets must be those of the edges of {n_columns} columns.")
    for c in range(n_columns):
        if not 0 <= column[c] < n_in:
            raise ValueError(f"{where}: columns must be from 0 to {n_in - 1}, got {column[c]}.")
    encoded.columns, encoded.offsets, encoded.edges, encoded.n_columns = column, offset, data(own), n
    return which, begins, own


cdef inline Py_ssize_t encoded_columns(const Encoded *encoded, Kind kind, Py_ssize_t n_in) noexcept:
    """Return the number of columns of the inputs and their encodings."""
    if kind == COMBINATIONS:
        return n_in + encoded.n_columns
    return n_in + encoded.offsets[encoded.n_columns] - (encoded.n_columns if kind == PIECEWISE_LINEAR else 0)


cdef int encode(
    str where, Kind kind, encoding_forward_t forward, Kernels *kernels, tuple layout, object inputs, object output
) except -1:
    """Write inputs and their encodings."""
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1), n_out
    cdef Encoded encoded
    cdef tuple held = take_encoded(where, layout, number, kind, n_in, &encoded)
    cdef cnp.ndarray result
    cdef uint64_t mode
    n_out = encoded_columns(&encoded, kind, n_in)
    result = target(where, "output", output, number, rows, n_out)
    x = apart(x, result)
    with nogil:
        mode = enter_kernels()
        forward(data(x), &encoded, data(result), rows, n_in, n_out)
        leave_kernels(mode)
    return give_back(output, result)


def piecewise_linear_forward(inputs, columns, offsets, edges, output):
    cdef str where = "piecewise_linear_forward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef tuple layout = (columns, offsets, edges)
    encode(where, PIECEWISE_LINEAR, kernels.piecewise_linear_forward, kernels, layout, inputs, output)


def thermometer_forward(inputs, columns, offsets, edges, output):
    cdef str where = "thermometer_forward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    encode(where, THERMOMETER, kernels.thermometer_forward, kernels, (columns, offsets, edges), inputs, output)


def combinations_forward(inputs, columns, offsets, factors, output):
    cdef str where = "combinations_forward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    encode(where, COMBINATIONS, kernels.combinations_forward, kernels, (columns, offsets, factors), inputs, output)


cdef int decode(
    str where, Kind kind, encoding_backward_t backward, Kernels *kernels, tuple layout, object inputs, object dvalues,
    object dinputs
) except -1:
    """Write the gradients of inputs. ``inputs`` may be None if the encoding does not read them."""
    cdef int number = type_of(kernels)
    cdef cnp.ndarray result = target(where, "dinputs", dinputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(result, 0), n_in = cnp.PyArray_DIM(result, 1), n_out
    cdef Encoded encoded
    cdef tuple held = take_encoded(where, layout, number, kind, n_in, &encoded)
    cdef cnp.ndarray x = None, d
    cdef uint64_t mode
    n_out = encoded_columns(&encoded, kind, n_in)
    d = apart(matrix(where, "dvalues", dvalues, number, rows, n_out), result)
    if inputs is not None:
        x = apart(matrix(where, "inputs", inputs, number, rows, n_in), result)
    cdef const void *numbers = NULL if x is None else data(x)
    with nogil:
        mode = enter_kernels()
        backward(numbers, data(d), &encoded, data(result), rows, n_in, n_out)
        leave_kernels(mode)
    return give_back(dinputs, result)


def piecewise_linear_backward(inputs, dvalues, columns, offsets, edges, dinputs):
    cdef str where = "piecewise_linear_backward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef tuple layout = (columns, offsets, edges)
    decode(where, PIECEWISE_LINEAR, kernels.piecewise_linear_backward, kernels, layout, inputs, dvalues, dinputs)


def combinations_backward(dvalues, columns, offsets, factors, dinputs):
    cdef str where = "combinations_backward"
    cdef Kernels *kernels = kernels_for(where, "dvalues", dvalues)
    cdef tuple layout = (columns, offsets, factors)
    decode(where, COMBINATIONS, kernels.combinations_backward, kernels, layout, None, dvalues, dinputs)


def thermometer_backward(dvalues, dinputs):
    cdef str where = "thermometer_backward"
    cdef Kernels *kernels = kernels_for(where, "dvalues", dvalues)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray result = target(where, "dinputs", dinputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(result, 0), n_in = cnp.PyArray_DIM(result, 1)
    cdef cnp.ndarray d = apart(matrix(where, "dvalues", dvalues, number, rows, ANY), result)
    cdef Py_ssize_t n_out = cnp.PyArray_DIM(d, 1)
    if n_out < n_in:
        raise ValueError(f"{where}: dvalues must have at least {n_in} columns, got {n_out}.")
    with nogil:
        kernels.thermometer_backward(NULL, data(d), NULL, data(result), rows, n_in, n_out)
    give_back(dinputs, result)


# Columns with edges


cdef Py_ssize_t checked_bins(
    str where, object bins, object parts, object first, int degree, int number, Py_ssize_t rows, Spline *spline,
    list held,
) except -1:
    """Describe where numbers lie among edges, with private copies in ``held``. Return the number of pieces.

    No kernel reads outside the weights: each bin belongs to its column or, for degree 0, comes right after its bins.
    """
    cdef cnp.ndarray own_first = cnp.PyArray_NewCopy(
        vector(where, "first", first, cnp.NPY_INT32, ANY), cnp.NPY_CORDER
    )
    cdef Py_ssize_t n = cnp.PyArray_SIZE(own_first) - 1, i, j
    cdef cnp.ndarray own_bins, own_parts
    cdef const int32_t *found
    cdef bint fits
    if n < 0:
        raise ValueError(f"{where}: first must have one number at least, got none.")
    own_bins = cnp.PyArray_NewCopy(matrix(where, "bins", bins, cnp.NPY_INT32, rows, n), cnp.NPY_CORDER)
    own_parts = matrix(where, "parts", parts, number, cnp.PyArray_DIM(own_bins, 0), n)
    spline.first, spline.n_columns = <const int32_t *> data(own_first), n
    spline.bins, spline.parts, spline.degree = <int32_t *> data(own_bins), data(own_parts), degree
    fits = spline.first[0] == 0 and degree in (0, 1)
    for j in range(n):
        fits = fits and spline.first[j] < spline.first[j + 1]
    if not fits:
        raise ValueError(f"{where}: first must begin with 0 and rise, and degree be 0 or 1, got {first} and {degree}.")
    found = spline.bins
    for i in range(cnp.PyArray_DIM(own_bins, 0)):
        for j in range(n):
            if not 0 <= found[i * n + j] <= spline.first[j + 1] - spline.first[j] - degree:
                raise ValueError(f"{where}: bins must be those of their columns, got {found[i * n + j]}.")
    spline.n_rows = spline.first[n]
    held.extend((own_first, own_bins, own_parts))
    return spline.n_rows


def spline_places(inputs, columns, first, edges, int degree, bins, parts):
    cdef str where = "spline_places"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1)
    cdef Spline spline
    cdef list held = []
    cdef cnp.ndarray places, result
    cdef uint64_t mode
    take_edges(where, &spline, n_in, (columns, first, edges, degree), number, held)
    places = target(where, "bins", bins, cnp.NPY_INT32, rows, spline.n_columns)
    result = target(where, "parts", parts, number, rows, spline.n_columns)
    distinct(where, "bins", places, "parts", result)
    x = apart(apart(x, result), places)
    with nogil:
        mode = enter_kernels()
        kernels.spline_places(
            data(x), &spline, <int32_t *> data(places), data(result), rows, n_in, 0, spline.n_columns, spline.n_columns
        )
        leave_kernels(mode)
    give_back(bins, places)
    give_back(parts, result)


def spline_forward(inputs, bins, parts, first, int degree, weights, biases, output):
    cdef str where = "spline_forward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1), n_out, size
    cdef Spline spline
    cdef list held = []
    cdef cnp.ndarray w, b, result
    cdef char *behind
    cdef void *scratch
    cdef uint64_t mode
    checked_bins(where, bins, parts, first, degree, number, rows, &spline, held)
    w = matrix(where, "weights", weights, number, n_in + spline.n_rows, ANY)
    n_out = cnp.PyArray_DIM(w, 1)
    b = line_of(where, "biases", biases, number, n_out)
    result = target(where, "output", output, number, rows, n_out)
    x, w, b = apart(x, result), apart(w, result), apart(b, result)
    size = cnp.PyArray_ITEMSIZE(x)
    behind = <char *> data(w) + n_in * n_out * size
    scratch = take(kernels.product_scratch)
    try:
        spline.sums = take((spline.n_rows + spline.n_columns) * n_out * size + 1)
    except BaseException:
        give(scratch)
        raise
    with nogil:
        mode = enter_kernels()
        kernels.dense_forward(data(x), data(w), data(b), data(result), rows, n_in, n_out, NULL, False, NULL, scratch)
        kernels.spline_sums(behind, &spline, spline.sums, n_out, 0, spline.n_columns)
        kernels.spline_add(
            behind, &spline, spline.sums, spline.bins, spline.parts, data(result), rows, n_out, 0, spline.n_columns,
            spline.n_columns,
        )
        leave_kernels(mode)
    give(spline.sums)
    give(scratch)
    give_back(output, result)


def spline_backward_weights(inputs, bins, parts, dvalues, first, int degree, dweights):
    cdef str where = "spline_backward_weights"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1), n_out, size
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, rows, ANY)
    cdef Spline spline
    cdef list held = []
    cdef cnp.ndarray result
    cdef void *scratch
    cdef uint64_t mode
    n_out, size = cnp.PyArray_DIM(d, 1), cnp.PyArray_ITEMSIZE(x)
    checked_bins(where, bins, parts, first, degree, number, rows, &spline, held)
    result = target(where, "dweights", dweights, number, n_in + spline.n_rows, n_out)
    x, d = apart(x, result), apart(d, result)
    scratch = take(kernels.product_scratch)
    try:
        spline.buckets = take((spline.n_rows + spline.n_columns) * n_out * size + 1)
    except BaseException:
        give(scratch)
        raise
    with nogil:
        mode = enter_kernels()
        kernels.dense_backward_weights(data(x), data(d), NULL, data(result), rows, n_in, n_out, 0, 0, scratch)
        kernels.spline_gradients(
            &spline, spline.bins, spline.parts, data(d), <char *> data(result) + n_in * n_out * size, spline.buckets,
            rows, n_out, 0, spline.n_columns,
        )
        leave_kernels(mode)
    give(spline.buckets)
    give(scratch)
    give_back(dweights, result)


def spline_backward_inputs(bins, parts, dvalues, columns, first, edges, int degree, weights, dinputs):
    cdef str where = "spline_backward_inputs"
    cdef Kernels *kernels = kernels_for(where, "dvalues", dvalues)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(d, 0), n_out = cnp.PyArray_DIM(d, 1), n_in, size
    cdef cnp.ndarray result = target(where, "dinputs", dinputs, number, rows, ANY)
    cdef Spline spline, layout
    cdef list held = []
    cdef cnp.ndarray w
    cdef void *scratch
    cdef uint64_t mode
    n_in, size = cnp.PyArray_DIM(result, 1), cnp.PyArray_ITEMSIZE(result)
    take_edges(where, &layout, n_in, (columns, first, edges, degree), number, held)
    # From the private copy of `first`: another thread may have changed the original since.
    checked_bins(where, bins, parts, held[1], degree, number, rows, &spline, held)
    w = matrix(where, "weights", weights, number, n_in + spline.n_rows, n_out)
    d, w = apart(d, result), apart(w, result)
    scratch = take(kernels.product_scratch)
    with nogil:
        mode = enter_kernels()
        kernels.dense_backward_inputs(data(d), data(w), data(result), rows, n_in, n_out, 0, NULL, scratch)
        kernels.spline_slopes(
            &layout, spline.bins, spline.parts, data(d), <char *> data(w) + n_in * n_out * size, data(result), rows,
            n_in, n_out,
        )
        leave_kernels(mode)
    give(scratch)
    give_back(dinputs, result)


# Waves


cdef cnp.ndarray take_waves(
    str where, object given, cnp.ndarray weights, Py_ssize_t n_in, Py_ssize_t n_out, Periodic *periodic
):
    """Describe columns with waves. Return the private copy that the description refers to.

    None if the weights do not fit the columns of the waves, of the inputs and of the output.
    """
    cdef cnp.ndarray which = cnp.PyArray_NewCopy(vector(where, "columns", given, cnp.NPY_INT32, ANY), cnp.NPY_CORDER)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(which), c, width, rest
    cdef const int32_t *column = <const int32_t *> data(which)
    for c in range(n):
        if not 0 <= column[c] < n_in:
            raise ValueError(f"{where}: columns must be from 0 to {n_in - 1}, got {column[c]}.")
    if n == 0 or cnp.PyArray_NDIM(weights) != 2 or cnp.PyArray_DIM(weights, 0) != n or (n_out - n_in) % n:
        return None
    width = (n_out - n_in) // n
    rest = cnp.PyArray_DIM(weights, 1) - width
    if not 1 <= width <= MAX_SUMS or rest <= 0 or rest % (2 + width):
        return None
    periodic.columns, periodic.n_columns, periodic.size = column, n, cnp.PyArray_DIM(weights, 1)
    periodic.n_frequencies, periodic.width = rest // (2 + width), width
    return which


cdef cnp.ndarray checked_waves(
    str where, object given, cnp.ndarray weights, Py_ssize_t n_in, Py_ssize_t n_out, Periodic *periodic
):
    """Return the result of `take_waves`, or raise an error."""
    cdef cnp.ndarray which = take_waves(where, given, weights, n_in, n_out, periodic)
    if which is None:
        found = (<object> weights).shape
        raise ValueError(f"{where}: weights must be those of the columns with waves, got shape {found}.")
    return which


def periodic_forward(inputs, columns, weights, output):
    cdef str where = "periodic_forward"
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1), n_out
    cdef cnp.ndarray w = matrix(where, "weights", weights, number, ANY, ANY)
    cdef cnp.ndarray result = target(where, "output", output, number, rows, ANY)
    cdef Periodic periodic
    cdef uint64_t mode
    n_out = cnp.PyArray_DIM(result, 1)
    held = checked_waves(where, columns, w, n_in, n_out, &periodic)
    x, w = apart(x, result), apart(w, result)
    with nogil:
        mode = enter_kernels()
        kernels.periodic_forward(data(x), &periodic, data(w), data(result), rows, n_in, n_out)
        leave_kernels(mode)
    give_back(output, result)


cdef int take_waves_back(
    str where, bint by_weights, object inputs, object dvalues, object columns, object weights, object given
) except -1:
    """Write the gradient by weights, or by inputs."""
    cdef Kernels *kernels = kernels_for(where, "inputs", inputs)
    cdef int number = type_of(kernels)
    cdef cnp.ndarray x = matrix(where, "inputs", inputs, number, ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), n_in = cnp.PyArray_DIM(x, 1), n_out
    cdef cnp.ndarray d = matrix(where, "dvalues", dvalues, number, rows, ANY)
    cdef cnp.ndarray w = matrix(where, "weights", weights, number, ANY, ANY)
    cdef cnp.ndarray result
    cdef Periodic periodic
    cdef uint64_t mode
    n_out = cnp.PyArray_DIM(d, 1)
    held = checked_waves(where, columns, w, n_in, n_out, &periodic)
    if by_weights:
        result = target(where, "dweights", given, number, periodic.n_columns, periodic.size)
    else:
        result = target(where, "dinputs", given, number, rows, n_in)
    x, d, w = apart(x, result), apart(d, result), apart(w, result)
    with nogil:
        mode = enter_kernels()
        kernels.periodic_backward(
            data(x), data(d), &periodic, data(w), data(result) if by_weights else NULL,
            NULL if by_weights else data(result), rows, n_in, n_out, 0, periodic.n_columns,
        )
        leave_kernels(mode)
    return give_back(given, result)


def periodic_backward_weights(inputs, dvalues, columns, weights, dweights):
    take_waves_back("periodic_backward_weights", True, inputs, dvalues, columns, weights, dweights)


def periodic_backward_inputs(inputs, dvalues, columns, weights, dinputs):
    take_waves_back("periodic_backward_inputs", False, inputs, dvalues, columns, weights, dinputs)


# Noise


def gaussian_noise(noise, double deviation, seed, forwards):
    cdef str where = "gaussian_noise"
    cdef Kernels *kernels = kernels_for(where, "noise", noise)
    cdef cnp.ndarray result = matrix(where, "noise", noise, type_of(kernels), ANY, ANY)
    cdef Py_ssize_t rows = cnp.PyArray_DIM(result, 0), columns = cnp.PyArray_DIM(result, 1)
    cdef uint64_t key = operator.index(seed), count = operator.index(forwards)
    cdef uint64_t mode
    check_writable(where, "noise", noise)
    with nogil:
        mode = enter_kernels()
        kernels.gaussian_noise(data(result), 0, rows, columns, deviation, key, count)
        leave_kernels(mode)
    give_back(noise, result)
