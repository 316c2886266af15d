# Prediction with parameters that never change. They are copied and packed once, so no call has to look at a model.


cdef struct Callee:
    # The interface for code without Python: a predictor as in `nnx_predict.h`, and the data for it.
    nnx_predictor head
    const Kernels *kernels
    const Net *net
    const int32_t *flags  # of categories, as in `Chain`; or NULL
    const int32_t *counts


cdef class Predictor(Chain):
    """A chain with its own parameters.

    Parameters
    ----------
    dtype : float32 or float64
    stages : tuple of (kind, values, n_in, n_out)
        The values are weights and biases, or weights alone. More values follow for some stages: epsilon for a layer
        norm; running mean, running variance and epsilon for a batch norm; an int32 array with the place of each column
        for an embedding; columns, first places, edges and degree for a spline; the columns for waves. Encodings have
        columns, offsets and edges. Activations have their settings.
    backends : module
        The module that holds the backend in use.
    bfloat16 : bool
        Whether dense stages round their inputs. Their weights are already rounded. For float32 only.
    categories : int32 array (n_in,), optional
        As for `Inference`.
    """

    cdef char *memory
    cdef list encodings  # the arrays that hold columns and edges
    cdef list layouts  # arrays with the columns and their edges
    cdef Callee callee

    def __cinit__(self, dtype, tuple stages not None, backends not None, bint bfloat16=False, categories=None):
        cdef tuple values = self.describe("Predictor", dtype, stages, backends, bfloat16)
        cdef int s
        self.take_categories(categories)
        self.encodings = []
        if bfloat16 and self.number != cnp.NPY_FLOAT:
            raise TypeError(f"Predictor: dtype must be float32 for products in bfloat16, got {self.dtype}.")
        self.layouts = []
        for s in range(self.n_stages):
            _measure(&self.stages[s], values[s], self.number)
        self.memory = <char *> allocate(self._lay_out(NULL))
        self._lay_out(self.memory)
        for s in range(self.n_stages):
            self._fill(&self.stages[s], values[s])
            if self.folded[s] is not None:
                self._fold(&self.stages[s], self.folded[s])
        self._describe_callee()

    def __dealloc__(self):
        if self.memory is not NULL:
            give(self.memory)

    cdef void _describe_callee(self) noexcept:
        cdef nnx_predictor *head = &self.callee.head
        head.size, head.number_size = sizeof(nnx_predictor), self.size
        head.n_inputs, head.n_outputs = self.net.n_in, self.net.n_out
        head.new_scratch, head.free_scratch, head.predict_rows = new_scratch, release, predict_rows
        self.callee.kernels, self.callee.net = self.kernels, &self.net
        self.callee.flags = <const int32_t *> data_or_null(self.flags)
        self.callee.counts = <const int32_t *> data_or_null(self.counts)

    def capsule(self):
        """Return a capsule with the interface for code without Python. It keeps this predictor alive."""
        capsule = PyCapsule_New(&self.callee, NNX_PREDICTOR, let_go)
        PyCapsule_SetContext(capsule, <void *> self)
        Py_INCREF(self)
        return capsule

    cdef Py_ssize_t _lay_out(self, char *memory):
        """Set the address of each parameter. Return the number of bytes."""
        cdef Py_ssize_t at = 0, size = self.dtype.itemsize, packed
        cdef Stage *stage
        cdef int s
        for s in range(self.n_stages):
            stage = &self.stages[s]
            if self.net.units is not NULL and stage.kind == DENSE:
                stage.blocks.units = self.net.units
                stage.blocks.weights = <uint16_t *> within(memory, &at, blocks_space(stage.n_in, stage.n_out))
                stage.biases.values = within(memory, &at, stage.biases.size * size)
                stage.fed = s > 0 and self.stages[s - 1].kind == DENSE
                if stage.fed:
                    self.stages[s - 1].feeds = True
                continue
            stage.weights.values = within(memory, &at, stage.weights.size * size)
            stage.biases.values = within(memory, &at, stage.biases.size * size)
            if stage.kind == BATCH_NORM:
                stage.norm.lines = within(memory, &at, NORM_LINES * norm_line(stage.n_out) * size)
            if stage.kind == EMBEDDING:
                stage.embedded.places.first = <const int32_t *> within(memory, &at, 2 * stage.n_in * sizeof(int32_t))
            if stage.kind == SPLINE:
                stage.spline.sums = within(
                    memory, &at, (stage.spline.n_rows + stage.spline.n_columns) * stage.n_out * size
                )
            if self.folded[s] is not None:
                stage.affine = within(memory, &at, affine_size(stage.n_out) * size)
            packed = self.kernels.packed_space(1, stage.n_in, stage.n_out) if stage.kind == DENSE else 0
            stage.packed = within(memory, &at, packed) if packed else NULL
        return at

    cdef int _fill(self, Stage *stage, object values) except -1:
        """Copy a stage's parameters, and pack its weights if products take them packed; or take its settings."""
        cdef cnp.ndarray source
        cdef void *own
        cdef Py_ssize_t n_columns
        cdef bint fits
        if stage.kind == DENSE:
            weights, biases = values
            self._copy(&stage.biases, "biases", biases, 1, stage.n_out)
            if self.net.units is not NULL:
                source = matrix("Predictor", "weights", weights, self.number, stage.n_in, stage.n_out)
                stage.weights.values = data(source)
                self.kernels.pack_rows_of_weights(stage, 0, stage.n_in)
                stage.weights.values = NULL
                return 0
            self._copy(&stage.weights, "weights", weights, stage.n_in, stage.n_out)
            self.kernels.pack_rows_of_weights(stage, 0, stage.n_in)
        elif stage.kind == PRELU or stage.kind == SCALE:
            (weights,) = values
            self._copy(&stage.weights, "weights", weights, 1, stage.weights.size)
        elif stage.kind == LAYER_NORM:
            weights, biases, stage.norm.epsilon = values
            self._copy(&stage.weights, "weights", weights, 1, stage.n_out)
            self._copy(&stage.biases, "biases", biases, 1, stage.n_out)
        elif stage.kind == BATCH_NORM:
            self._fill_norm(stage, values)
        elif stage.kind == EMBEDDING:
            weights, places = values
            self._copy(&stage.weights, "weights", weights, stage.embedded.n_rows, stage.embedded.width)
            own = <void *> stage.embedded.places.first
            source = vector("Predictor", "places", places, cnp.NPY_INT32, stage.n_in)
            source = sorted_places(source, &stage.embedded.places)
            memcpy(own, data(source), 2 * stage.n_in * sizeof(int32_t))
            stage.embedded.places.first = <const int32_t *> own
            stage.embedded.places.columns = stage.embedded.places.first + stage.n_in
            if not fits_places(stage, stage.n_in):  # another thread has changed them since they were measured
                raise ValueError("Predictor: places must be those of the columns of the inputs.")
        elif is_of_members(stage):
            n_columns = stage.members * (stage.n_in if stage.kind == MEMBER_DENSE else 1)
            self._copy(&stage.weights, "weights", values[0], n_columns, stage.n_out)
            if has_biases(stage):
                self._copy(&stage.biases, "biases", values[1], stage.members, stage.n_out)
        elif stage.kind == PERIODIC:
            weights, columns = values
            source = matrix("Predictor", "weights", weights, self.number, ANY, ANY)
            if cnp.PyArray_SIZE(source) != stage.weights.size:  # another thread has changed them
                raise ValueError("Predictor: weights must be those of the columns of the outputs.")
            memcpy(stage.weights.values, data(source), cnp.PyArray_NBYTES(source))
            source = take_waves("Predictor", columns, source, stage.n_in, stage.n_out, &stage.periodic)
            if source is None:
                raise ValueError("Predictor: weights must be those of the columns of the outputs.")
            self.encodings.append(source)
        elif is_encoding(stage):
            self.encodings.extend(take_encoded(
                "Predictor", values, self.number, stage.kind, stage.n_in, &stage.encoded
            ))
            if encoded_columns(&stage.encoded, stage.kind, stage.n_in) != stage.n_out:
                raise ValueError("Predictor: edges must be those of the columns of the outputs.")
        elif stage.kind == SPLINE:
            weights, biases, *layout = values
            self._copy(&stage.weights, "weights", weights, stage.n_in + stage.spline.n_rows, stage.n_out)
            self._copy(&stage.biases, "biases", biases, 1, stage.n_out)
            n_columns = stage.spline.n_columns
            take_edges("Predictor", &stage.spline, stage.n_in, tuple(layout), self.number, self.layouts)
            fits = stage.weights.size == (stage.n_in + stage.spline.n_rows) * stage.n_out
            if not fits or stage.spline.n_columns != n_columns:
                raise ValueError("Predictor: edges must be those of the weights.")  # changed by another thread
            fill_sums(self.kernels, stage, self.size)
        elif stage.kind == ACTIVATION and stage.activation.n_settings:
            take_settings(stage.settings, values, stage.activation.n_settings)
        return 0

    cdef tuple _norm_arrays(self, Stage *stage, object values):
        """Return weights, biases, running mean and variance of a batch norm, checked. Take its epsilon."""
        cdef list found = []
        *arrays, stage.norm.epsilon = values
        for name, array in zip(("weights", "biases", "running_mean", "running_variance"), arrays, strict=True):
            found.append(matrix("Predictor", name, array, self.number, 1, stage.n_out))
        return tuple(found)

    cdef int _fill_norm(self, Stage *stage, object values) except -1:
        """Copy a batch norm that stands alone, and prepare it."""
        cdef cnp.ndarray weights, biases, mean, variance
        weights, biases, mean, variance = self._norm_arrays(stage, values)
        memcpy(stage.weights.values, data(weights), cnp.PyArray_NBYTES(weights))
        memcpy(stage.biases.values, data(biases), cnp.PyArray_NBYTES(biases))
        stage.norm.running_mean, stage.norm.running_variance = data(mean), data(variance)
        fill_norm(self.kernels, stage, self.dtype.itemsize)
        stage.norm.running_mean = stage.norm.running_variance = NULL
        return 0

    cdef int _fold(self, Stage *stage, object values) except -1:
        """Take a batch norm that a dense stage's product applies."""
        cdef Stage norm
        cdef cnp.ndarray weights, biases, mean, variance
        memset(&norm, 0, sizeof(Stage))
        norm.n_out = stage.n_out
        weights, biases, mean, variance = self._norm_arrays(&norm, values)
        norm.weights.values, norm.biases.values = data(weights), data(biases)
        norm.norm.running_mean, norm.norm.running_variance = data(mean), data(variance)
        fold(self.kernels, stage, &norm, <void *> stage.affine)
        return 0

    cdef int _copy(
        self, Parameter *parameter, str name, object given, Py_ssize_t rows, Py_ssize_t columns
    ) except -1:
        cdef cnp.ndarray values = matrix("Predictor", name, given, self.number, rows, columns)
        memcpy(parameter.values, data(values), cnp.PyArray_NBYTES(values))
        return 0

    def holds(self):
        """Return whether the backend in use is the one that this was made for."""
        return self._suits_backend()

    cdef object run(self, X, out, object threads):
        """Return the chain's outputs for X, in ``out`` or in a new array.

        Return None if Python code has to compute them: kernels cannot use X or ``out`` without a copy, or other kernels
        are in use.
        """
        cdef cnp.ndarray samples, output
        cdef cnp.npy_intp shape[2]
        if not self._takes(X) or not self._suits_backend() or self._has_misfit(X):
            return None
        samples = X
        if out is None:
            shape[0], shape[1] = cnp.PyArray_DIM(samples, 0), self.net.n_out
            output = cnp.PyArray_EMPTY(2, shape, self.number, 0)
        elif (
            is_ready(out, <void *> self.dtype, True)
            and has_size(out, cnp.PyArray_DIM(samples, 0), self.net.n_out)
        ):
            output = out
            samples = apart(samples, output)
        else:
            return None
        self._run(&self.net, samples, output, None, threads)
        return output

    def predict(self, X, out=None, threads=1):
        """`run`, for Python code."""
        return self.run(X, out, threads)


cdef void let_go(object capsule) noexcept:
    """Drop the reference that a capsule holds."""
    Py_DECREF(<object> PyCapsule_GetContext(capsule))


cdef void *new_scratch(const nnx_predictor *p) noexcept nogil:
    """Return memory for `predict_rows`."""
    return aligned((<const Callee *> p).net.private_size)


cdef int predict_rows(
    const nnx_predictor *p, const void *rows, void *outputs, Py_ssize_t n, void *scratch
) noexcept nogil:
    """Write a predictor's outputs for n rows. Return 1 if they hold numbers that are not categories, else 0."""
    cdef const Callee *callee = <const Callee *> p
    cdef uint64_t mode = enter_kernels()
    cdef bint misfit = callee.counts is not NULL and callee.kernels.embedding_misfit(
        rows, callee.flags, callee.counts, n, p.n_inputs
    ) >= 0
    if not misfit:
        callee.kernels.predict(callee.net, rows, outputs, n, <char *> scratch)
    leave_kernels(mode)
    return misfit


cdef class DirectCall:
    """The twin of the class in `_arrays.py`. Its call runs no Python code in between."""

    cdef public Predictor _native
    cdef public object threads

    def __call__(self, X, out=None):
        cdef Predictor native = self._native
        found = None if native is None else native.run(X, out, self.threads)
        return self._predict(X, out) if found is None else found


cdef int _measure(Stage *stage, object values, int number) except -1:
    """Write the sizes of a stage's parameters. A PReLU has one slope, or one for each column."""
    if stage.kind == DENSE:
        stage.weights.size, stage.biases.size = stage.n_in * stage.n_out, stage.n_out
    elif stage.kind == PRELU:
        (weights,) = values
        stage.weights.size = 1 if np.size(weights) == 1 else stage.n_out
    elif stage.kind == EMBEDDING:
        weights, places = values
        stage.embedded.n_rows, stage.embedded.width = np.shape(weights)
        stage.weights.size = stage.embedded.n_rows * stage.embedded.width
        held = sorted_places(vector("Predictor", "places", places, cnp.NPY_INT32, stage.n_in), &stage.embedded.places)
        if not fits_places(stage, stage.n_in):
            raise ValueError("Predictor: places must be those of the columns of the inputs.")
    elif stage.kind == SPLINE:
        _, _, *layout = values
        take_edges("Predictor", &stage.spline, stage.n_in, tuple(layout), number, [])
        stage.weights.size, stage.biases.size = (stage.n_in + stage.spline.n_rows) * stage.n_out, stage.n_out
    elif stage.kind == PERIODIC:
        weights, _ = values
        stage.weights.size = np.size(weights)
    elif is_of_members(stage):
        stage.weights.size = stage.members * stage.n_out * (stage.n_in if stage.kind == MEMBER_DENSE else 1)
        stage.biases.size = stage.members * stage.n_out if has_biases(stage) else 0
    elif has_parameters(stage):
        stage.weights.size, stage.biases.size = stage.n_out, stage.n_out if has_biases(stage) else 0
    return 0
