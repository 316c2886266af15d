# Prediction and evaluation: a chain of stages that is made once for a model and bound at each call.

cdef enum:
    MOST_STAGES = 64
    MOST_PLACES = 8  # pieces of memory that are kept for simultaneous calls
    SHORT = 50_000  # the most operations of a call that keeps the GIL: a microsecond or two
    PIECE = 192  # rows that a thread takes, and casts, at a time: no more than `forward` takes at once

#: Operations of a call from which on a second thread pays: starting one costs a tenth of a millisecond.
cdef Py_ssize_t least_shared = 50_000_000


def _share_from(Py_ssize_t operations):
    """Let threads share calls from this number of operations on. Return the old number: for tests on small networks."""
    global least_shared
    before, least_shared = least_shared, operations
    return before


cdef inline Py_ssize_t outputs_of(const Net *net) noexcept nogil:
    """Return the number of predicted numbers per sample."""
    return net.n_out * (net.members if net.apart else 1)


cdef class Chain:
    """A model's stages without training, with memory for several simultaneous calls."""

    cdef Kernels *kernels
    cdef readonly object dtype
    cdef int number
    cdef object backends, backend
    cdef Stage *stages
    cdef int n_stages
    cdef Net net
    cdef Py_ssize_t operations  # for each row
    cdef Py_ssize_t size  # of a number, in bytes
    cdef char *places[MOST_PLACES]
    cdef list folded  # for each stage, the batch norm that its product applies; or None
    cdef cnp.ndarray counts  # how many categories each column of X has, 0 for one of numbers; or None
    cdef cnp.ndarray flags  # below 0 for a numeric column

    cdef tuple describe(self, str where, object dtype, tuple stages, object backends, bint bfloat16):
        """Take stages, each (kind, owner, n_in, n_out), except those that only copy. Return the owners."""
        cdef Py_ssize_t need = 0, i, rows, n_in, n_out
        cdef int n = 0
        cdef Stage *stage
        cdef Stage *before
        cdef list owners = [], members
        self.folded = []
        self.dtype = np.dtype(dtype)
        self.number, self.size = self.dtype.num, self.dtype.itemsize
        if self.number != cnp.NPY_FLOAT and self.number != cnp.NPY_DOUBLE:
            raise TypeError(f"{where}: dtype must be float32 or float64, got {dtype!r}.")
        self.kernels = kernels_in_use(self.number)
        self.backends, self.backend = backends, backends.backend
        check_chain(stages, NULL, False)
        self.stages = <Stage *> PyMem_RawCalloc(len(stages) + 1, sizeof(Stage))
        if self.stages is NULL:
            raise MemoryError
        members = members_of_stages(stages)
        for i in range(len(stages)):
            kind, owner, n_in, n_out = stages[i]
            rows = members[i]
            self.operations += rows * (n_in * n_out if kind in PRODUCTS else 8 * n_out)
            stage = &self.stages[n]
            memset(stage, 0, sizeof(Stage))
            describe_stage(stage, self.kernels, kind, n_in, n_out)
            stage.members = rows
            if stage.kind == DROPOUT or stage.kind == NOISE or has_trait(stage, IDENTITY):
                continue
            before = &self.stages[n - 1] if n > 0 and not self.stages[n - 1].relu else NULL
            if before is not NULL and has_trait(stage, FUSES_WITH_DENSE):
                if before.kind == DENSE or before.kind == BATCH_NORM:
                    before.relu = True
                    continue
            if before is not NULL and stage.kind == BATCH_NORM and before.kind == DENSE and not bfloat16:
                if self.folded[n - 1] is None:
                    self.folded[n - 1] = owner
                    continue
            owners.append(owner)
            self.folded.append(None)
            need = max(need, self.kernels.gradient_space(1, 1, stage.n_out))
            if is_of_members(stage):
                need = max(need, member_space(stage, 0) * self.size)
            n += 1
        self.n_stages = n
        self.net.stages, self.net.n_stages = self.stages, n
        pair_forks(&self.net)
        self.net.members = members[len(members) - 1]
        self.net.bfloat16 = bfloat16
        self.net.units = units_of_plans() if bfloat16 and self.number == cnp.NPY_FLOAT else NULL
        self.net.n_in, self.net.n_out = self.stages[0].n_in, self.stages[n - 1].n_out
        self.net.scratch_size = (self.kernels.product_scratch + need + ALIGNMENT) // ALIGNMENT * ALIGNMENT
        self.net.private_size = self.net.scratch_size + self.kernels.forward_space(&self.net)
        return tuple(owners)

    def __dealloc__(self):
        cdef char *place
        PyMem_RawFree(self.stages)
        for place in self.places:
            if place is not NULL:
                give(place)

    cdef char *_take_place(self) except NULL:
        cdef int i
        cdef char *place
        for i in range(MOST_PLACES):
            place = take_out(&self.places[i])
            if place is not NULL:
                return place
        return <char *> allocate(self.net.private_size)

    cdef void _give_place(self, char *place) noexcept:
        cdef int i
        for i in range(MOST_PLACES):
            if put_in(&self.places[i], place):
                return
        give(place)

    cdef inline bint _suits_backend(self) except -1:
        """Return whether the kernels in use are the ones that this was made with."""
        return (
            self.backends.backend is self.backend
            and self.kernels == tables[0 if self.number == cnp.NPY_FLOAT else 1]
        )

    cdef inline bint _takes(self, X) except -1:
        """Return whether X is an array of samples that compiled code can read without a copy, of either float type."""
        return (
            is_ready(X, NULL if self.counts is None else <void *> self.dtype, False)
            and cnp.PyArray_NDIM(X) == 2 and cnp.PyArray_DIM(X, 1) == self.net.n_in
        )

    cdef int take_categories(self, object counts) except -1:
        """Take the number of categories of each column of X, 0 for a numeric one; or None."""
        if counts is not None:
            self.counts = cnp.PyArray_NewCopy(
                vector("Chain", "categories", counts, cnp.NPY_INT32, self.net.n_in), cnp.NPY_CORDER
            )
            self.flags = self.counts - np.int32(1)
        return 0

    cdef inline bint _has_misfit(self, cnp.ndarray samples) except -1:
        """Return whether a column of categories holds a number that is not a category."""
        return self.counts is not None and self.kernels.embedding_misfit(
            data(samples), <const int32_t *> data(self.flags), <const int32_t *> data(self.counts),
            cnp.PyArray_DIM(samples, 0), self.net.n_in,
        ) >= 0

    cdef int _run(
        self, const Net *net, cnp.ndarray samples, cnp.ndarray output, list held, object threads
    ) except -1:
        """Write the outputs of the stages of `net` for samples. Long calls run without the GIL, on several threads."""
        cdef Py_ssize_t n = cnp.PyArray_DIM(samples, 0)
        cdef char *place
        cdef char *room
        if n * self.operations >= least_shared and pieces_of(n) > 1:
            threads = get_num_threads() if threads is None else threads
            if threads > 1:
                share(rows_of(self, net, samples, output, held), min(threads, pieces_of(n)))
                return 0
        room = self._take_room(samples)
        place = self._take_place()
        if n * self.operations <= SHORT:
            self._compute(net, data(samples), data(output), n, place, room)
        else:
            with nogil:
                self._compute(net, data(samples), data(output), n, place, room)
        self._give_place(place)
        if room is not NULL:
            give(room)
        return 0

    cdef char *_take_room(self, cnp.ndarray samples) except? NULL:
        """Return memory for casting a piece of samples, or NULL if they need no cast."""
        if cnp.PyArray_TYPE(samples) == self.number:
            return NULL
        return <char *> take(min(cnp.PyArray_DIM(samples, 0), <Py_ssize_t> PIECE) * self.net.n_in * self.size + 1)

    cdef void _compute(
        self, const Net *net, const void *samples, void *output, Py_ssize_t n, char *place, void *room
    ) noexcept nogil:
        """Write the outputs of the stages of `net` for n samples. Those of the other float type are cast in `room`."""
        cdef uint64_t mode
        cdef Py_ssize_t first = 0, rows = n
        cdef const void *inputs = samples
        while first < n:
            if room is not NULL:
                rows = min(n - first, <Py_ssize_t> PIECE)
                cast_rows(samples, room, first * net.n_in, rows * net.n_in, self.number)
                inputs = room
            mode = enter_kernels()
            self.kernels.predict(net, inputs, <char *> output + first * outputs_of(net) * self.size, rows, place)
            leave_kernels(mode)
            first += rows


cdef void cast_rows(const void *values, void *result, Py_ssize_t first, Py_ssize_t n, int number) noexcept nogil:
    """``result := values[first : first + n]``, from the other float type to this one."""
    cdef Py_ssize_t i
    if number == cnp.NPY_FLOAT:
        for i in range(n):
            (<float *> result)[i] = <float> (<const double *> values)[first + i]
    else:
        for i in range(n):
            (<double *> result)[i] = (<const float *> values)[first + i]


# Threads


cdef inline Py_ssize_t pieces_of(Py_ssize_t n) noexcept nogil:
    """Return the number of pieces that rows are cut into."""
    return (n + PIECE - 1) // PIECE


cdef class Pieces:
    """The work of one call, shared by threads: each does the next remaining piece.

    It owns the memory that it reads and writes, so a thread that comes too late does no harm.
    """

    cdef Chain chain
    cdef list held  # arrays whose memory the stages use
    cdef Net net
    cdef Stage stages[MOST_STAGES]
    cdef long long next_piece
    cdef Py_ssize_t n_pieces

    cdef int _own(self, Chain chain, const Net *net, list held) except -1:
        """Take over a chain's stages. A predictor's stages do not change, a model's are copied."""
        cdef int s
        self.chain, self.held, self.net = chain, held, net[0]
        if net.stages != chain.stages:
            for s in range(net.n_stages):
                self.stages[s] = net.stages[s]
            self.net.stages = self.stages
        return 0

    cdef char *_take_room(self) except? NULL:
        return NULL

    cdef void _do(self, Py_ssize_t piece, char *place, char *room) noexcept nogil:
        pass

    def __call__(self):
        """Do pieces until none is left."""
        cdef char *room
        cdef char *place
        cdef Py_ssize_t piece
        if self.chain is None:
            raise TypeError(f"{type(self).__name__}: this is made by other methods only.")
        room = self._take_room()
        place = self.chain._take_place()
        with nogil:
            piece = next_number(&self.next_piece)
            while piece < self.n_pieces:
                self._do(piece, place, room)
                piece = next_number(&self.next_piece)
        self.chain._give_place(place)
        if room is not NULL:
            give(room)


cdef class Rows(Pieces):
    """Predictions of many rows."""

    cdef cnp.ndarray samples, output

    cdef char *_take_room(self) except? NULL:
        return self.chain._take_room(self.samples)

    cdef void _do(self, Py_ssize_t piece, char *place, char *room) noexcept nogil:
        cdef Py_ssize_t first = piece * PIECE
        cdef Py_ssize_t rows = min(cnp.PyArray_DIM(self.samples, 0) - first, <Py_ssize_t> PIECE)
        self.chain._compute(
            &self.net, cnp.PyArray_BYTES(self.samples) + first * cnp.PyArray_STRIDE(self.samples, 0),
            cnp.PyArray_BYTES(self.output) + first * cnp.PyArray_STRIDE(self.output, 0), rows, place, room,
        )


cdef Rows rows_of(Chain chain, const Net *net, cnp.ndarray samples, cnp.ndarray output, list held):
    """Return the work of predicting many rows."""
    cdef Rows rows = Rows.__new__(Rows)
    rows._own(chain, net, held)
    rows.samples, rows.output = samples, output
    rows.n_pieces = pieces_of(cnp.PyArray_DIM(samples, 0))
    return rows


cdef class Judged(Pieces):
    """Losses and hits of the rows of some batches. A piece may span several small batches."""

    cdef Progress progress
    cdef Py_ssize_t counted  # the hits of a batch
    cdef Py_ssize_t first_batch, end_batch, first, end  # the batches, and their rows
    cdef cnp.ndarray hits  # of each piece

    cdef int of(self, Chain chain, const Net *net, list held, Py_ssize_t first_batch, Py_ssize_t end_batch) except -1:
        """Take some batches."""
        cdef cnp.npy_intp n
        self._own(chain, net, held)
        self.net.progress = &self.progress
        self.progress.hits, self.progress.n_threads = &self.counted, 1
        self.first_batch, self.end_batch = first_batch, end_batch
        self.first, self.end = first_batch * net.batch, min(end_batch * net.batch, net.n_samples)
        n = self.n_pieces = pieces_of(self.end - self.first)
        self.hits = cnp.PyArray_ZEROS(1, &n, cnp.NPY_INTP, 0)
        return 0

    cdef void _do(self, Py_ssize_t piece, char *place, char *room) noexcept nogil:
        cdef Py_ssize_t first = self.first + piece * PIECE, rows = min(self.end - first, <Py_ssize_t> PIECE)
        cdef uint64_t mode = enter_kernels()
        (<Py_ssize_t *> data(self.hits))[piece] = self.chain.kernels.judge(&self.net, first, rows, place)
        leave_kernels(mode)

    cdef void again(self, char *place) noexcept nogil:
        """Do all pieces again in this thread, and add up their results. Weights may have changed."""
        cdef Py_ssize_t piece
        cdef int s
        for s in range(self.net.n_stages):
            if self.net.stages[s].kind == SPLINE:
                fill_sums(self.chain.kernels, &self.net.stages[s], self.chain.size)
        self.progress.loss_sum = self.progress.loss_count = 0
        self.progress.hits_sum = self.progress.hits_count = 0
        for piece in range(self.n_pieces):
            self._do(piece, place, NULL)
        self._add_up()

    cdef void _add_up(self) noexcept nogil:
        """Add up the results of all pieces, batch by batch."""
        cdef const Py_ssize_t *found = <const Py_ssize_t *> data(self.hits)
        cdef uint64_t mode = enter_kernels()
        cdef Py_ssize_t b, p, hits = 0
        for p in range(self.n_pieces):
            hits += found[p]
        for b in range(self.first_batch, self.end_batch):
            self.chain.kernels.add_judged(&self.net, b, hits)
            hits = 0  # they have been added
        leave_kernels(mode)


cdef void fill_norm(Kernels *kernels, Stage *stage, Py_ssize_t size) noexcept:
    """Prepare a batch norm for prediction: with the running statistics, in the lines that it was given."""
    cdef char *lines = <char *> stage.norm.lines
    cdef Py_ssize_t line = norm_line(stage.n_out) * size
    cdef uint64_t mode = enter_kernels()
    memcpy(lines + MEAN * line, stage.norm.running_mean, stage.n_out * size)
    kernels.batch_norm_scales(
        stage.norm.running_variance, stage.weights.values, stage.norm.epsilon, lines + SCALES * line, stage.n_out, 0,
        stage.n_out,
    )
    leave_kernels(mode)


cdef void fill_sums(Kernels *kernels, Stage *stage, Py_ssize_t size) noexcept nogil:
    """Prepare a stage with edges for prediction."""
    cdef uint64_t mode = enter_kernels()
    kernels.spline_sums(
        <char *> stage.weights.values + stage.n_in * stage.n_out * size, &stage.spline, stage.spline.sums, stage.n_out,
        0, stage.spline.n_columns,
    )
    leave_kernels(mode)


cdef void fold(Kernels *kernels, Stage *stage, const Stage *norm, void *affine) noexcept:
    """Let a dense stage's product apply a batch norm with the running statistics."""
    cdef uint64_t mode = enter_kernels()
    kernels.fold_norm(
        norm.norm.running_mean, norm.norm.running_variance, norm.weights.values, norm.biases.values,
        norm.norm.epsilon, affine, norm.n_out,
    )
    leave_kernels(mode)
    stage.affine = affine


cdef class Inference(Chain):
    """A model's chain, bound at each call.

    Parameters
    ----------
    dtype : float32 or float64
    stages : tuple of (kind, owner, n_in, n_out)
        The elements of `Program.stages`.
    guards : Guards
        What `untouched` checks at each call.
    backends : module
        The module that holds the backend in use.
    categories : int32 array (n_in,), optional
        The number of categories of each column of the samples, 0 for a numeric column.
    """

    cdef tuple stages_as_given, owners, guards, with_dtype
    cdef list layouts  # for each embedding, the layout from which `categories` were taken

    def __cinit__(
        self, dtype, tuple stages not None, guards not None, backends not None, categories=None,
    ):
        self.stages_as_given, self.guards, self.with_dtype = stages, tuple(guards), owners_with_dtype(stages)
        self.owners = self.describe("Inference", dtype, stages, backends, False)
        self.take_categories(categories)
        self.layouts = [getattr(owner, "_known", None) for owner in self.owners]
        if self.n_stages > MOST_STAGES:
            raise ValueError(f"Inference: stages must be at most {MOST_STAGES}.")

    def holds(self, model):
        """Return whether the model is unchanged since this was made."""
        return self._suits_backend() and untouched(model, self.guards) and of_dtype(self.with_dtype, self.dtype)

    cdef bint _bind(self, Stage *stages, list held) except -1:
        """Read the addresses of weights and biases, or of their averages. False if they no longer fit."""
        cdef int s
        cdef dict own
        for s in range(self.n_stages):
            stages[s] = self.stages[s]
            if not has_parameters(&stages[s]):
                if stages[s].kind == ACTIVATION:
                    take_activation_settings(&stages[s], self.owners[s])
                elif is_encoding(&stages[s]) and not encoding_edges(
                    &stages[s], self.owners[s], self.dtype, held
                ):
                    return False
                continue
            if stages[s].kind == EMBEDDING:
                if not embedding_weights(
                    &stages[s], self.owners[s], self.dtype, "Layer_Embedding.forward", False, held
                ) or self.counts is not None and self.owners[s]._known is not self.layouts[s]:
                    return False
                continue
            if stages[s].kind == SPLINE:
                if not spline_parameters(
                    &stages[s], self.owners[s], self.dtype, "Layer_Spline.forward", False, held
                ):
                    return False
                self._prepare_spline(&stages[s], held)
                continue
            if is_of_members(&stages[s]):
                where = f"{type(self.owners[s]).__name__}.forward"
                if not member_parameters(&stages[s], self.owners[s], self.dtype, where, False, held):
                    return False
                continue
            if stages[s].kind == PERIODIC:
                if not periodic_weights(
                    &stages[s], self.owners[s], self.dtype, "Layer_Periodic.forward", False, held
                ):
                    return False
                continue
            if stages[s].kind == PRELU:
                w = prelu_weights(self.owners[s], self.dtype, stages[s].n_out, "Activation_PReLU.forward", False)
                if w is None:
                    return False
                stages[s].weights.values, stages[s].weights.size = data(w), cnp.PyArray_SIZE(w)
                held.append(w)
                continue
            if stages[s].kind != DENSE:
                if not column_parameters(&stages[s], self.owners[s], self.dtype, None, False, held):
                    return False
                if stages[s].kind == BATCH_NORM:
                    self._prepare_norm(&stages[s], held)
                continue
            own = PyObject_GenericGetDict(self.owners[s], NULL)
            if "weight_averages" in own:
                w, b = in_use(own, "weight_averages", "weights"), in_use(own, "bias_averages", "biases")
            else:
                w, b = item(own, "weights"), item(own, "biases")
            if not fit(w, b, self.dtype, stages[s].n_in, stages[s].n_out, False):
                # Another dtype or layout: the cast array becomes the attribute, or an error says what is wrong.
                w, b = self.owners[s]._parameters_in_use("Layer_Dense.forward")
                if not fit(w, b, self.dtype, stages[s].n_in, stages[s].n_out, False):
                    return False
            stages[s].weights.values, stages[s].biases.values = data(w), data(b)
            held.append(w)
            held.append(b)
            if self.folded[s] is not None and not self._bind_folded(&stages[s], self.folded[s], held):
                return False
        return True

    cdef int _prepare_norm(self, Stage *stage, list held) except -1:
        """Compute the factors of deviations from the running mean."""
        cdef cnp.npy_intp n = NORM_LINES * norm_line(stage.n_out)
        cdef cnp.ndarray lines = cnp.PyArray_EMPTY(1, &n, self.number, 0)
        stage.norm.lines = data(lines)
        held.append(lines)
        fill_norm(self.kernels, stage, self.dtype.itemsize)
        return 0

    cdef int _prepare_spline(self, Stage *stage, list held) except -1:
        """Add up a stage's weights, in memory of this call."""
        cdef cnp.npy_intp n = (stage.spline.n_rows + stage.spline.n_columns) * stage.n_out
        cdef cnp.ndarray sums = cnp.PyArray_EMPTY(1, &n, self.number, 0)
        stage.spline.sums = data(sums)
        held.append(sums)
        fill_sums(self.kernels, stage, self.dtype.itemsize)
        return 0

    cdef bint _bind_folded(self, Stage *stage, object owner, list held) except -1:
        """Bind a batch norm that a dense stage's product applies. False if it no longer fits."""
        cdef Stage norm
        cdef cnp.npy_intp n = affine_size(stage.n_out)
        cdef cnp.ndarray affine
        memset(&norm, 0, sizeof(Stage))
        norm.kind, norm.n_in, norm.n_out = BATCH_NORM, stage.n_out, stage.n_out
        if not column_parameters(&norm, owner, self.dtype, None, False, held):
            return False
        affine = cnp.PyArray_EMPTY(1, &n, self.number, 0)
        held.append(affine)
        fold(self.kernels, stage, &norm, data(affine))
        return True

    def predict(self, model, X, threads=None, bint apart=False):
        """Return the model's outputs for X, a new array; None if Python code has to compute them.

        ``threads`` is the most threads; None stands for the number given to `nnx.set_num_threads`. With ``apart``,
        return the outputs of each member, (n, members, n_out), instead of their mean.
        """
        cdef Stage stages[MOST_STAGES]
        cdef Net net
        cdef cnp.ndarray output
        cdef cnp.npy_intp shape[2]
        cdef list held = []
        if not self._takes(X) or cnp.PyArray_DIM(X, 0) == 0:
            return None
        if not self.holds(model) or self._has_misfit(X) or not self._bind(stages, held):
            return None
        net = self.net
        net.stages, net.apart = stages, apart
        shape[0], shape[1] = cnp.PyArray_DIM(X, 0), outputs_of(&net)
        output = cnp.PyArray_EMPTY(2, shape, self.number, 0)
        self._run(&net, X, output, held, threads)
        return output

    def evaluation(
        self, X, y, tuple loss not None, wanted, bint threshold, bint classes, double precision, Py_ssize_t batch,
        bint combined, tuple answers=AS_THEY_ARE, weights=None,
    ):
        """Return an object that evaluates the model on samples any number of times; None if Python code has to do it.

        X (n, n_in); y (n,) class numbers or (n, n_out) targets; loss: its kernel's name, its settings, and its columns'
        own numbers or None; wanted and the rest as in `Plan.bind_data`.
        """
        cdef Evaluation made = Evaluation.__new__(Evaluation)
        cdef Net *net = &made.net
        cdef cnp.ndarray samples, targets = None, compared, own, weighing
        cdef cnp.npy_intp n
        made.chain, net[0] = self, self.net
        name, settings, numbers = loss
        net.loss, net.combined = loss_of(self.kernels, name), combined
        take_settings(net.loss_settings, settings, net.loss.n_settings)
        own = take_own_numbers("Inference", numbers, self.number, self.net.n_out)
        net.fused = combined and net.members == 1 and net.loss.traits & FUSED_WITH_PAIR
        samples = matrix("Inference", "X", X, self.number, ANY, self.net.n_in)
        n = cnp.PyArray_DIM(samples, 0)
        check_chain(self.stages_as_given, net.loss, combined)
        if n == 0 or batch < 1:
            raise ValueError("Inference.evaluation: there must be samples, and batches of them.")
        batch = min(batch, n)
        compared = take_compared("Inference", wanted, n, self.net.n_out)
        net.n_wanted = cnp.PyArray_SIZE(compared) // n if compared is not None else 0
        take_answers(net, answers)
        weighing = take_weights("Inference", weights, n)
        if not net.loss.traits & BY_LABELS:
            targets = matrix("Inference", "y", y, self.number, n, self.net.n_out)
        else:
            net.labels = made.labels = take_labels("Inference", y, n, self.net.n_out)
        made.sample_losses = cnp.PyArray_EMPTY(1, &n, self.number, 0)
        made.row_hits = cnp.PyArray_EMPTY(1, &n, cnp.NPY_DOUBLE, 0)
        made.samples, made.held = samples, [own, compared, weighing, targets]
        net.batch, net.n_samples, net.X, net.order = batch, n, data(samples), NULL
        net.targets, net.wanted = data_or_null(targets), <const double *> data_or_null(compared)
        net.weights, net.loss_own = <const double *> data_or_null(weighing), data_or_null(own)
        net.threshold, net.classes, net.precision = threshold, classes, precision
        net.sample_losses, net.row_hits = data(made.sample_losses), <double *> data(made.row_hits)
        return made


cdef class Evaluation:
    """Samples, checked and cast, and the chain that is evaluated on them: made by `Inference.evaluation`."""

    cdef Inference chain
    cdef Net net
    cdef int32_t *labels
    cdef cnp.ndarray samples, sample_losses, row_hits
    cdef list held

    def __dealloc__(self):
        if self.labels is not NULL:
            give(self.labels)

    cdef Py_ssize_t n_batches(self) except -1:
        if self.samples is None:
            raise TypeError("Evaluation: this is made by `Inference.evaluation` only.")
        return (self.net.n_samples + self.net.batch - 1) // self.net.batch

    cdef Judged judging(self, Py_ssize_t first, Py_ssize_t end):
        """Return the work of evaluating the model on some batches; None if Python code has to do it.

        It reads the parameters anew. The caller checks whether the model is unchanged since the chain was made.
        """
        cdef Stage stages[MOST_STAGES]
        cdef Net net = self.net
        cdef Judged judged = Judged.__new__(Judged)
        cdef list held = [self]
        if not 0 <= first <= end <= self.n_batches():
            raise ValueError("Evaluation.sums: batches must be those of X.")
        if self.chain._has_misfit(self.samples) or not self.chain._bind(stages, held):
            return None
        net.stages = stages
        judged.of(self.chain, &net, held, first, end)
        return judged

    def sums(self, Py_ssize_t first, Py_ssize_t end, int threads=1):
        """Return sums of losses and hits over some batches, and their counts; None if Python code has to do it."""
        cdef Judged judged = self.judging(first, end)
        cdef bint shared
        if judged is None:
            return None
        shared = (judged.end - judged.first) * self.chain.operations >= least_shared
        share(judged, min(threads, judged.n_pieces) if shared else 1)
        judged._add_up()
        return sums_of(&judged.net)

    @property
    def normalizes(self):
        """Whether there are batch norms, whose factors are computed with each reading of the parameters."""
        return self.n_batches() > 0 and (
            self.net.n_batch_norms > 0 or any([owner is not None for owner in self.chain.folded])
        )
