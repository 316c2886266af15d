# Prediction and evaluation: a chain of stages that is made once for a model, and bound at each call.

cdef enum:
    MOST_STAGES = 64
    MOST_PLACES = 8  # pieces of memory that are kept for calls at the same time


cdef class Chain:
    """What a model's layers compute without training, with memory for several calls at a time."""

    cdef Kernels *kernels
    cdef readonly object dtype
    cdef int number
    cdef object backends, backend
    cdef Stage *stages
    cdef int n_stages
    cdef Net net
    cdef char *places[MOST_PLACES]
    cdef list folded  # of each stage, whose batch norm its product applies; or None
    cdef cnp.ndarray counts  # how many categories each column of X has, 0 for one of numbers; or None
    cdef cnp.ndarray flags  # below 0 for a column of numbers

    cdef tuple describe(self, str where, object dtype, tuple stages, object backends, bint bfloat16):
        """Take stages, (kind, owner, n_in, n_out) each, without those that only copy; return the owners of the rest."""
        cdef Py_ssize_t need = 0
        cdef int n = 0
        cdef Stage *stage
        cdef Stage *before
        cdef list owners = []
        self.folded = []
        self.dtype = np.dtype(dtype)
        self.number = self.dtype.num
        if self.number != cnp.NPY_FLOAT and self.number != cnp.NPY_DOUBLE:
            raise TypeError(f"{where}: dtype must be float32 or float64, got {dtype!r}.")
        self.kernels = tables[0 if self.number == cnp.NPY_FLOAT else 1]
        self.backends, self.backend = backends, backends.backend
        check_chain(stages, NULL, False)
        self.stages = <Stage *> PyMem_RawCalloc(len(stages) + 1, sizeof(Stage))
        if self.stages is NULL:
            raise MemoryError
        for kind, owner, n_in, n_out in stages:
            stage = &self.stages[n]
            memset(stage, 0, sizeof(Stage))
            describe_stage(stage, self.kernels, kind, n_in, n_out)
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
            n += 1
        self.n_stages = n
        self.net.stages, self.net.n_stages = self.stages, n
        pair_forks(&self.net)
        self.net.bfloat16 = bfloat16
        self.net.units = bfloat16 and self.number == cnp.NPY_FLOAT and has_units()
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
        """Return whether the kernels in use are those that this was made with."""
        return (
            self.backends.backend is self.backend
            and self.kernels == tables[0 if self.number == cnp.NPY_FLOAT else 1]
        )

    cdef inline bint _takes(self, X) except -1:
        """Return whether X is an array of samples that kernels can read as it stands."""
        return (
            is_ready(X, <void *> self.dtype, False) and cnp.PyArray_NDIM(X) == 2
            and cnp.PyArray_DIM(X, 1) == self.net.n_in
        )

    cdef int take_categories(self, object counts) except -1:
        """Take how many categories each column of X has, 0 for one of numbers; or None."""
        if counts is not None:
            self.counts = vector("Chain", "categories", counts, cnp.NPY_INT32, self.net.n_in).copy()
            self.flags = self.counts - np.int32(1)
        return 0

    cdef inline bint _has_misfit(self, cnp.ndarray samples) except -1:
        """Return whether a column of categories holds another number."""
        return self.counts is not None and self.kernels.embedding_misfit(
            data(samples), <const int32_t *> data(self.flags), <const int32_t *> data(self.counts),
            cnp.PyArray_DIM(samples, 0), self.net.n_in,
        ) >= 0

    cdef int _run(self, const Net *net, cnp.ndarray samples, cnp.ndarray output) except -1:
        """Write what the stages of `net` make of samples."""
        cdef Py_ssize_t n = cnp.PyArray_DIM(samples, 0)
        cdef char *place = self._take_place()
        cdef uint64_t mode
        with nogil:
            mode = enter_kernels()
            self.kernels.predict(net, data(samples), data(output), n, place)
            leave_kernels(mode)
        self._give_place(place)
        return 0


cdef void fill_norm(Kernels *kernels, Stage *stage, Py_ssize_t size) noexcept:
    """Prepare a batch norm for prediction: with the running figures, in the lines that it has been given."""
    cdef char *lines = <char *> stage.norm.lines
    cdef Py_ssize_t line = norm_line(stage.n_out) * size
    cdef uint64_t mode = enter_kernels()
    memcpy(lines + MEAN * line, stage.norm.running_mean, stage.n_out * size)
    kernels.batch_norm_scales(
        stage.norm.running_variance, stage.weights.values, stage.norm.epsilon, lines + SCALES * line, stage.n_out, 0,
        stage.n_out,
    )
    leave_kernels(mode)


cdef void fold(Kernels *kernels, Stage *stage, const Stage *norm, void *affine) noexcept:
    """Let a dense stage's product apply a batch norm with the running figures."""
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
        What `Program.stages` holds.
    guards : Guards
        What `untouched` looks at, at each call.
    backends : module
        Which holds the backend in use.
    categories : int32 array (n_in,), optional
        How many categories each column of the samples has; 0 for a column of numbers.
    """

    cdef tuple stages_as_given, owners, guards, with_dtype
    cdef list layouts  # of each embedding, what it had made of its settings when `categories` were taken

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
        """Return whether the model is still what this was made for."""
        return self._suits_backend() and untouched(model, self.guards) and of_dtype(self.with_dtype, self.dtype)

    cdef bint _bind(self, Stage *stages, list held) except -1:
        """Read the addresses of weights and biases, or of their averages; false if they are not what they were."""
        cdef int s
        cdef dict own
        for s in range(self.n_stages):
            stages[s] = self.stages[s]
            if not has_parameters(&stages[s]):
                if stages[s].kind == ACTIVATION:
                    take_activation_settings(&stages[s], self.owners[s])
                continue
            if stages[s].kind == EMBEDDING:
                if not embedding_weights(
                    &stages[s], self.owners[s], self.dtype, "Layer_Embedding.forward", False, held
                ) or self.counts is not None and self.owners[s]._known is not self.layouts[s]:
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
                # Another dtype or layout, which becomes the attribute, or a sentence about what is wrong.
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
        """Compute what deviations from the running mean are multiplied by."""
        cdef cnp.npy_intp n = NORM_LINES * norm_line(stage.n_out)
        cdef cnp.ndarray lines = cnp.PyArray_EMPTY(1, &n, self.number, 0)
        stage.norm.lines = data(lines)
        held.append(lines)
        fill_norm(self.kernels, stage, self.dtype.itemsize)
        return 0

    cdef bint _bind_folded(self, Stage *stage, object owner, list held) except -1:
        """Bind a batch norm that a dense stage's product applies; false if it is not what it was."""
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

    def predict(self, model, X):
        """Return what the model makes of X, a new array; None if this cannot say, and Python code has to."""
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
        net.stages = stages
        shape[0], shape[1] = cnp.PyArray_DIM(X, 0), self.net.n_out
        output = cnp.PyArray_EMPTY(2, shape, self.number, 0)
        self._run(&net, X, output)
        return output

    def evaluation(
        self, X, y, tuple loss not None, wanted, bint threshold, bint classes, double precision, Py_ssize_t batch,
        bint combined, tuple answers=AS_THEY_ARE, weights=None,
    ):
        """Return what evaluates the model on samples, any number of times; None if Python code has to do it.

        X (n, n_in); y (n,) class numbers or (n, n_out) targets; loss: its kernel's name, its settings, and numbers of
        its columns or None; wanted and what follows as in `Plan.bind_data`.
        """
        cdef Evaluation made = Evaluation.__new__(Evaluation)
        cdef Net *net = &made.net
        cdef cnp.ndarray samples, targets = None, compared, own, weighing
        cdef cnp.npy_intp shape[2]
        cdef Py_ssize_t n
        made.chain, net[0] = self, self.net
        name, settings, numbers = loss
        net.loss, net.combined = loss_of(self.kernels, name), combined
        take_settings(net.loss_settings, settings, net.loss.n_settings)
        own = take_own_numbers("Inference", numbers, self.number, self.net.n_out)
        net.fused = combined and net.loss.traits & FUSED_WITH_PAIR
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
        shape[0], shape[1] = batches_at_a_time(batch) * batch, self.net.n_out
        made.output = cnp.PyArray_EMPTY(2, shape, self.number, 0)
        made.sample_losses = cnp.PyArray_EMPTY(1, shape, self.number, 0)
        made.row_hits = cnp.PyArray_EMPTY(1, shape, cnp.NPY_DOUBLE, 0)
        made.samples, made.held = samples, [own, compared, weighing, targets]
        net.batch, net.n_samples, net.X, net.order = batch, n, data(samples), NULL
        net.targets, net.wanted = data_or_null(targets), <const double *> data_or_null(compared)
        net.weights, net.loss_own = <const double *> data_or_null(weighing), data_or_null(own)
        net.threshold, net.classes, net.precision = threshold, classes, precision
        net.sample_losses, net.row_hits = data(made.sample_losses), <double *> data(made.row_hits)
        return made


cdef class Evaluation:
    """Samples that have been checked and cast, and the chain that is evaluated on them: `Inference.evaluation`."""

    cdef Inference chain
    cdef Net net
    cdef int32_t *labels
    cdef cnp.ndarray samples, output, sample_losses, row_hits
    cdef list held

    def __dealloc__(self):
        if self.labels is not NULL:
            give(self.labels)

    cdef bint bind(self, Net *net, Stage *stages, Progress *progress, Py_ssize_t *hits, list held) except -1:
        """Make ready for a call of `evaluate`, but for the place that it works in; false if Python code has to do it.

        The parameters are read anew. Whether the model is still what the chain was made for, the caller knows.
        """
        if self.chain._has_misfit(self.samples) or not self.chain._bind(stages, held):
            return False
        memset(progress, 0, sizeof(Progress))
        progress.hits, progress.n_threads = hits, 1
        net[0] = self.net
        net.stages, net.progress = stages, progress
        stages[self.chain.n_stages - 1].output = data(self.output)
        return True

    def sums(self, Py_ssize_t first, Py_ssize_t end):
        """Return sums of losses and hits over some batches, and of how many; None if Python code has to do it."""
        cdef Stage stages[MOST_STAGES]
        cdef Progress progress
        cdef Net net
        cdef Py_ssize_t hits[8]
        cdef list held = []
        cdef uint64_t mode
        if not 0 <= first <= end <= (self.net.n_samples + self.net.batch - 1) // self.net.batch:
            raise ValueError("Evaluation.sums: batches must be those of X.")
        if not self.bind(&net, stages, &progress, hits, held):
            return None
        net.scratch = self.chain._take_place()
        with nogil:
            mode = enter_kernels()
            self.chain.kernels.evaluate(&net, first, end)
            leave_kernels(mode)
        self.chain._give_place(net.scratch)
        return sums_of(&net)

    @property
    def normalizes(self):
        """Whether there are batch norms, whose factors are computed when the parameters are read."""
        return self.net.n_batch_norms > 0 or any([owner is not None for owner in self.chain.folded])
