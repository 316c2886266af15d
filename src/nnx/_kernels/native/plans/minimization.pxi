# The binding of a search for the minimum of a model's loss: a plan whose steps are iterations of L-BFGS (`lbfgs.pxi`).


cdef class Minimization(Plan):
    """A plan for `Optimizer_LBFGS`. The parameters of the constructor are `Plan`'s.

    It is bound like a plan, with a rule that limits the norm of gradients. With such a rule, a step collects gradients,
    and has the memory for them.
    """

    cdef Search search
    cdef char *search_memory
    cdef Py_ssize_t n_iterations
    cdef long long searching  # the run that `iterate` has prepared

    def __dealloc__(self):
        if self.search_memory is not NULL:
            give(self.search_memory)

    def search_for(self, vectors not None, numbers not None, limits not None):
        """Take the state of a search, which its iterations change.

        Return False if it does not fit the bound parameters.

        Parameters
        ----------
        vectors, numbers : array (2 + 2*memory, n), float64 array (n_numbers + memory,)
            The arrays of `nnx.engine.lbfgs.Memory`.
        limits : Limits
        """
        cdef Search *search = &self.search
        cdef Py_ssize_t at = 0, size = self._trained_size()
        cdef Py_ssize_t rows, memory
        cdef cnp.ndarray array
        if not self.has_data or not self.lean.clip_norm:
            raise RuntimeError("Minimization.search_for: there are no data. Call bind and bind_data first.")
        search.vectors = search.numbers = NULL
        if not is_ready(vectors, <void *> self.dtype, True) or cnp.PyArray_NDIM(vectors) != 2:
            return False
        rows, memory = cnp.PyArray_DIM(vectors, 0), (cnp.PyArray_DIM(vectors, 0) - 2) // 2
        if size < 1 or cnp.PyArray_DIM(vectors, 1) != size or not 1 <= memory <= MOST_PAIRS or rows != 2 + 2 * memory:
            return False
        if not is_ready(numbers, NULL, True) or not has_type(numbers, cnp.NPY_DOUBLE) or cnp.PyArray_NDIM(numbers) != 1:
            return False
        if cnp.PyArray_SIZE(numbers) != SEARCH_NUMBERS + memory:
            return False
        for array in self.held:
            if array is not None and (overlap(array, vectors) or overlap(array, numbers)):
                return False
        search.max_evaluations, search.gradient_tolerance, search.loss_tolerance, search.search_steps = limits
        search.size, search.memory = size, memory
        if self.search_memory is not NULL:
            give(self.search_memory)
            self.search_memory = NULL
        self._lay_out_search(NULL, &at)
        self.search_memory = <char *> allocate(at)
        at = 0
        self._lay_out_search(self.search_memory, &at)
        self.held += [vectors, numbers]
        search.vectors, search.numbers = data(vectors), <double *> data(numbers)
        return True

    def release(self):
        """Release all arrays, with those of the search."""
        self.search.vectors = self.search.numbers = NULL
        Plan.release(self)

    cdef void _lay_out_search(self, char *memory, Py_ssize_t *at) noexcept:
        self.search.work = within(memory, at, SEARCH_WORK * self.search.size * self.itemsize)
        self.search.sums = <double *> within(memory, at, 2 * search_pieces(self.search.size) * sizeof(double))

    cdef Py_ssize_t _trained_size(self) noexcept:
        cdef Py_ssize_t size = 0
        cdef const Stage *stage
        cdef int s
        for s in range(self.lean.n_stages):
            stage = &self.lean.stages[s]
            if has_parameters(stage) and stage.trained:
                size += stage.weights.size + stage.biases.size
        return size

    def iterate(self, Py_ssize_t n_iterations, int n_threads, double penalty_scale=1):
        """Prepare some iterations. Return the arrays for their figures.

        Penalties are multiplied by ``penalty_scale``. Without iterations, the model is evaluated once, for the layers'
        attributes, with `room` and `publish`.
        """
        cdef const double *numbers = self.search.numbers
        cdef Py_ssize_t i
        if self.search.vectors is NULL or n_iterations < 0:
            raise RuntimeError("Minimization.iterate: there is no search. Call search_for first.")
        # They count pairs, and hold the index of the next one.
        if not 0 <= numbers[SEARCH_PAIRS] <= self.search.memory or not 0 <= numbers[SEARCH_NEXT] < self.search.memory:
            raise ValueError("Minimization.iterate: numbers must be those of a search.")
        self.n_iterations = n_iterations
        figures = self.prepare(
            self.lean.n_samples, max(n_iterations, <Py_ssize_t> 1), n_iterations == 0, 0, 0.0, None, 0, 0, n_threads,
            False,
        )
        self.progress.penalty_scale = penalty_scale
        self.searching = self.run
        for i in range(2):
            self.nets[i].minimizes = True
        return figures

    cdef Py_ssize_t _work(self, int thread) noexcept nogil:
        """Do the iterations as one of the threads. Return the number done: 0 for a run that `prepare` began."""
        cdef uint64_t mode = enter_kernels()
        cdef Net *net = &self.stored if self.stores else &self.lean
        cdef Py_ssize_t done = 0
        if self.searching == self.run:
            done = self.kernels.minimize(net, &self.search, self.n_iterations, thread)
        leave_kernels(mode)
        return done
