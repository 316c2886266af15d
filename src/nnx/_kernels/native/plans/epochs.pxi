# Whole epochs in one compiled call, if only built-in rules follow the run. After each epoch, the held-out rows are
# evaluated, and `EarlyStopping` compares a figure, keeps the best parameters and may end the run.

cdef struct Best:
    # A parameter, and the copy of it after the best epoch.
    char *values
    char *kept
    Py_ssize_t size  # in bytes


cdef class Epochs:
    """Epochs of a plan that is prepared for them, with validation and early stopping.

    Parameters
    ----------
    plan : Plan
    evaluation : Evaluation, optional
        Evaluates the held-out rows.
    stopping : tuple, optional
        For `EarlyStopping`: the index of the monitored figure, counted through the figures of an epoch and of its
        validation; whether larger is better; min_delta and patience; the best figure, its epoch, the number of epochs
        since then.
    pairs : list of (array, array)
        Each parameter, and the array that keeps its best values.

    Attributes
    ----------
    done : int
        Epochs that were compared.
    validations : float64 array (n, 2)
        Loss and accuracy of the held-out rows after each epoch.
    sums : tuple
        The sums of the last validation, as `Evaluation.sums` returns them; None without.
    best, best_epoch, wait
        The present values of those in ``stopping``.
    has_improved, has_stopped : bool
    """

    cdef Plan plan
    cdef Evaluation evaluation
    cdef bint watches, larger
    cdef int figure
    cdef double min_delta
    cdef long long patience, before
    cdef readonly double best
    cdef readonly long long best_epoch, wait
    cdef readonly bint has_improved, has_stopped
    cdef readonly Py_ssize_t done
    cdef readonly cnp.ndarray validations
    cdef readonly tuple sums
    cdef Best *bests
    cdef Py_ssize_t n_bests
    cdef list held

    def __cinit__(self, Plan plan not None, Evaluation evaluation, tuple stopping, list pairs not None):
        cdef cnp.ndarray array, kept
        cdef Py_ssize_t i
        self.plan, self.evaluation, self.watches = plan, evaluation, stopping is not None
        if self.watches:
            self.figure, self.larger, self.min_delta, self.patience, self.best, self.best_epoch, self.wait = stopping
            if not 0 <= self.figure < N_FIGURES + (2 if evaluation is not None else 0):
                raise ValueError("Epochs: stopping must look at a figure that there is.")
        self.held, self.n_bests = list(pairs), len(pairs)
        self.bests = <Best *> PyMem_RawCalloc(self.n_bests + 1, sizeof(Best))
        if self.bests is NULL:
            raise MemoryError
        for i in range(self.n_bests):
            array, kept = self.held[i]
            if not (
                cnp.PyArray_ISCARRAY_RO(array) and cnp.PyArray_ISCARRAY(kept) and array.dtype == kept.dtype
                and cnp.PyArray_NBYTES(array) == cnp.PyArray_NBYTES(kept) and not array.dtype.hasobject
            ):
                raise ValueError("Epochs: pairs must be arrays alike.")
            self.bests[i].values, self.bests[i].kept = <char *> data(array), <char *> data(kept)
            self.bests[i].size = cnp.PyArray_NBYTES(array)

    def __dealloc__(self):
        PyMem_RawFree(self.bests)

    def run(self, Py_ssize_t n_epochs, long long before):
        """Do up to ``n_epochs`` epochs, which the plan is prepared for. Its `steps_done` says how many steps were done.

        Returns whether it could do them: it cannot if Python code has to evaluate the model.
        """
        cdef Plan plan = self.plan
        cdef Evaluation evaluation = self.evaluation
        cdef Judged judged = None
        cdef char *place = NULL
        cdef cnp.npy_intp shape[2]
        cdef double *found
        cdef uint64_t mode
        if not plan.is_prepared or not plan.keeps or plan.lean.step_of_epoch:
            raise RuntimeError("Epochs.run: the plan must be prepared for whole epochs, and to keep parameters.")
        if not 0 < n_epochs <= plan.progress.figures.epochs_size:
            raise ValueError("Epochs.run: n_epochs must be what the plan is prepared for.")
        shape[0], shape[1] = n_epochs, 2
        self.validations = cnp.PyArray_ZEROS(2, shape, cnp.NPY_DOUBLE, 0)
        found = <double *> data(self.validations)
        self.sums, self.done, self.before = None, 0, before
        self.has_improved = self.has_stopped = False
        if evaluation is not None:
            judged = evaluation.judging(0, evaluation.n_batches())
            if judged is None:
                return False
            place = evaluation.chain._take_place()
        with nogil:
            mode = enter_kernels()
            plan.steps_done = self._go(judged, place, found, n_epochs)
            leave_kernels(mode)
        if evaluation is not None:
            evaluation.chain._give_place(place)
            if self.done:
                self.sums = sums_of(&judged.net)
        return True

    cdef Py_ssize_t _go(self, Judged judged, char *place, double *found, Py_ssize_t n_epochs) noexcept nogil:
        """Do epochs until one stops the run, or a step's loss is not finite. Return the steps done."""
        cdef const Net *net = &self.plan.lean
        cdef Kernels *kernels = self.plan.kernels
        cdef const double *figures = net.progress.figures.epochs
        cdef Py_ssize_t size = net.progress.figures.epochs_size
        cdef Py_ssize_t n_batches = (net.n_samples + net.batch - 1) // net.batch
        cdef Py_ssize_t e, first, last, done
        for e in range(n_epochs):
            first, last = e * n_batches, (e + 1) * n_batches - 1
            done = kernels.train(net, first, last, 0) if first < last else first
            if done == last:
                self.plan._keep()
                done = kernels.train(net, last, last + 1, 0)
            if done <= last:
                return done
            if judged is not None:
                self._evaluate(judged, place, found + 2 * e)
            self.done = e + 1
            if self.watches and self.figure < N_FIGURES:
                self._compare(figures[self.figure * size + e])
            elif self.watches:
                self._compare(found[2 * e + self.figure - N_FIGURES])
            if self.has_stopped:
                break
        return self.done * n_batches

    cdef void _evaluate(self, Judged judged, char *place, double *found) noexcept nogil:
        """Compute loss and accuracy of the held-out rows."""
        cdef const Progress *progress = &judged.progress
        judged.again(place)
        found[0], found[1] = progress.loss_sum / progress.loss_count, progress.hits_sum / progress.hits_count

    cdef void _compare(self, double figure) noexcept nogil:
        """Do the work of `EarlyStopping.on_epoch_end`."""
        cdef bint is_better
        cdef Py_ssize_t i
        if self.larger:
            is_better = figure > self.best + self.min_delta
        else:
            is_better = figure < self.best - self.min_delta
        if figure == figure and (self.best != self.best or is_better):
            self.best, self.best_epoch, self.wait = figure, self.before + self.done, 0
            self.has_improved = True
            for i in range(self.n_bests):
                memcpy(self.bests[i].kept, self.bests[i].values, self.bests[i].size)
        else:
            self.wait += 1
            self.has_stopped = self.wait >= self.patience
