# A step a call, as control and reinforcement learning train: the last call of `train` again, with other samples.
#
# What Python code does around a small step takes several times as long as the step. A repeat compares all that
# the last call depended on with what it was, decides nothing again, and lets the step write into the arrays that the
# last call published, if nobody else has got hold of them. Where anything differs it does nothing, and the general path
# is taken. The GIL is kept: from the last comparison to the last attribute that is set, no other Python code runs.

from libc.math cimport INFINITY

cdef object MOST_ITERATIONS = (1 << 63) - 1
cdef tuple RUNNING = ("iterations", "current_learning_rate")  # what an optimizer changes itself


cdef class Repeat:
    """A call of `Model.train` that was one step of all samples, on one thread and silent; ready to be made again.

    Parameters
    ----------
    plan : Plan
        That has done the call.
    program : Program
    input_layer : Layer_Input
    published : list of (dict, str, value)
        Every attribute that the call has set, but for those that are the samples: whose, its name, its value.
    history : class
        Of which each call returns an object.
    backends : module
        Which holds the backend in use.
    diverged : callable
        Raises the error that is due when parameters of a model are no longer finite.
    """

    cdef tuple options  # what the call was given beside X and y: the same objects are as good as they were then
    cdef Plan plan
    cdef tuple layers, trained, rule, dropouts, loss_settings
    cdef tuple attributes  # (owner, name, value): what must be as it was
    cdef tuple owners, names, values, shapes  # of what is published
    cdef list addresses, counts
    cdef Stage *places  # where each stage of the step stores what it computes, in those arrays
    cdef Py_ssize_t batch
    cdef object rate, next_iterations  # of the step that is ready
    cdef object loss, optimizer, accuracy, input_layer, history, backends, backend, diverged
    cdef bint check_finite, is_regression

    def __cinit__(self, Plan plan not None, program, input_layer, list published not None, history, backends, diverged):
        cdef list kept = []
        self.plan, self.layers, self.trained = plan, program.layers, program.trained
        self.loss, self.optimizer, self.accuracy = program.loss, program.optimizer, program.accuracy
        self.input_layer, self.history = input_layer, history
        self.backends, self.backend, self.diverged = backends, backends.backend, diverged
        self.rule = tuple(self.optimizer._rule("Model.train"))
        self.dropouts = tuple([stage.owner for stage in program.stages if stage.kind == "dropout"])
        self.is_regression = hasattr(self.accuracy, "precision")
        for name, value in self.optimizer.__dict__.items():
            if name not in RUNNING:
                kept.append((self.optimizer, name, value))
        self.loss_settings = self.loss._settings("Model.train", self.plan.lean.n_out)
        for name in self.loss._arguments:
            kept.append((self.loss, name, getattr(self.loss, name)))
        name = "precision" if self.is_regression else "binary"
        kept.append((self.accuracy, name, getattr(self.accuracy, name)))
        self.attributes = tuple(kept)
        self.owners = tuple([own for own, _, _ in published])
        self.names = tuple([name for _, name, _ in published])
        self.values = tuple([value for _, _, value in published])
        self.shapes = tuple([value.shape if type(value) is cnp.ndarray else None for value in self.values])
        self.addresses = [<size_t> data(value) if type(value) is cnp.ndarray else 0 for value in self.values]
        # Each use of an array is an attribute and a place in `values`; one more is the name under which it is counted.
        uses = collections.Counter(map(id, self.values))
        self.counts = [2 * uses[id(value)] + 1 for value in self.values]
        self._take_places()

    def __dealloc__(self):
        PyMem_RawFree(self.places)

    cdef int _take_places(self) except -1:
        """Take the plan's places for what its last step has stored; refuse arrays that are not all those."""
        cdef Plan plan = self.plan
        cdef Stage *stage
        cdef Py_ssize_t rows = plan.lean.batch
        cdef bint fits = len(self.layers) == plan.n_full and len(self.trained) == plan.n_full
        cdef int s
        self.batch = rows
        self.places = <Stage *> PyMem_RawCalloc(plan.n_full, sizeof(Stage))
        if self.places is NULL:
            raise MemoryError
        sizes = {(<size_t> data(value), value.nbytes) for value in self.values if type(value) is cnp.ndarray}
        for s in range(plan.n_full):
            stage = &self.places[s]
            stage[0] = plan.stored.stages[s]
            needed = [(<size_t> stage.output, rows * stage.n_out), (<size_t> stage.dinputs, rows * stage.n_in)]
            if s + 1 < plan.n_full or not plan.lean.combined:
                needed.append((<size_t> stage.dvalues, rows * stage.n_out))
            if stage.kind == DROPOUT:
                needed.append((<size_t> stage.mask, rows * stage.n_out))
            if has_parameters(stage):
                needed.append((<size_t> stage.weights.gradients, stage.weights.size))
            if stage.kind == DENSE:
                needed.append((<size_t> stage.biases.gradients, stage.biases.size))
            for address, size in needed:
                fits = fits and (address, size * plan.itemsize) in sizes
        if not fits or rows == 0 or self.places[0].kind != DENSE:
            raise ValueError("Repeat: published must hold all arrays that the plan's last step has stored into.")
        return 0

    def remember(self, tuple options not None, bint check_finite):
        """Take what the call was given beside X and y, once it has ended well."""
        self.options, self.check_finite = options, check_finite

    def step(self, model, X, y, tuple options not None):
        """Do the call again and return its history; None, with nothing done, if it is another call.

        Parameters
        ----------
        model : Model
        X, y : anything
        options : tuple
            The other arguments.
        """
        cdef dict own = model.__dict__
        token = object()  # of the one thread that may train the model
        if own.setdefault("_training", token) is not token:
            return None
        try:
            if not self._is_same_call(X, options) or not self._holds(model):
                return None
            history = self._make_ready(model, X, y)
            if history is None or not self._run(X):
                return None
            own["history"] = history
            if self.plan.lean.stops and not self.plan.is_finite():
                self.diverged(model, 1, 1)
            return history
        finally:
            self.plan.release()
            own.pop("_training", None)

    cdef object _make_ready(self, object model, object X, object y):
        """Return a history for the figures of the step that `_run` is ready to do, or None; nothing has changed."""
        cdef object iterations = self.optimizer.iterations
        try:
            self.rate = self.optimizer.current_learning_rate
            if type(self.rate) is not float or not 0 <= <double> self.rate < INFINITY or type(iterations) is not int:
                return None
            if not 0 <= iterations < MOST_ITERATIONS or not self._bind(X, y):
                return None
            if self.optimizer.schedule is not None:
                self.rate = self.optimizer._rates("Model.train", iterations, 1)
            elif self.optimizer.decay:
                self.rate = self.optimizer.learning_rate * (1.0 / (1.0 + self.optimizer.decay * iterations))
            self.next_iterations = iterations + 1
            history = self.history()
            stops, per_sample = self.plan.lean.stops, self.plan.lean.penalty_per_sample
            history.add(
                *self.plan.prepare(self.batch, 1, True, 0, self.rate, None, iterations, 0, 1, stops, False, per_sample)
            )
            self.loss.remember_trainable_layers(model.trainable_layers)
            return history if self._owns_what_it_published() else None
        except Exception:
            return None  # the general path finds out what is wrong, and says so

    cdef bint _run(self, object X) except -1:
        """Do the step, and set what it leaves behind beside the published arrays; false if it made no update."""
        cdef Plan plan = self.plan
        cdef Stage *stages = plan.stored.stages
        cdef const Stage *place = self.places
        cdef dict own
        cdef int s
        for s in range(plan.n_full):
            stages[s].inputs, stages[s].output, stages[s].mask = place.inputs, place.output, place.mask
            stages[s].dvalues, stages[s].dinputs = place.dvalues, place.dinputs
            stages[s].weights.gradients, stages[s].biases.gradients = place.weights.gradients, place.biases.gradients
            place += 1
        if plan._work(0) < 1:
            return False
        plan.forget_averages()
        own = PyObject_GenericGetDict(self.optimizer, NULL)  # its __setattr__ is Python code, which may be interrupted
        own["iterations"] = self.next_iterations
        own["current_learning_rate"] = self.rate
        for layer in self.dropouts:
            layer.training_forwards += 1
        (<dict> self.layers[0].__dict__)["inputs"] = X
        (<dict> self.input_layer.__dict__)["output"] = X
        self.loss.accumulated_sum = plan.progress.loss_sum
        self.loss.accumulated_count = <Py_ssize_t> plan.progress.loss_count  # a repeat has no weights
        self.accuracy.accumulated_sum = plan.progress.hits_sum
        self.accuracy.accumulated_count = <Py_ssize_t> plan.progress.hits_count
        return True

    cdef bint _is_same_call(self, object X, tuple options) except -1:
        """Return whether these are the arguments of the last call, and samples as many as then."""
        cdef Py_ssize_t i
        if self.options is None or len(options) != len(self.options):
            return False
        for i in range(len(options)):
            if options[i] is not self.options[i]:
                return False
        return (
            is_ready(X, <void *> self.plan.dtype, False) and cnp.PyArray_NDIM(X) == 2
            and cnp.PyArray_DIM(X, 0) == self.batch and cnp.PyArray_DIM(X, 1) == self.plan.lean.n_in
        )

    cdef bint _holds(self, object model) except -1:
        """Return whether model, backend, optimizer and accuracy are as they were."""
        cdef tuple kept
        if self.backends.backend is not self.backend:
            return False
        for kept in self.attributes:
            if getattr(kept[0], kept[1], None) is not kept[2]:
                return False
        return self.plan.holds(model)

    cdef bint _bind(self, object X, object y) except -1:
        """Bind parameters, samples and targets; false if these are not such as can be taken as they are."""
        cdef Plan plan = self.plan
        cdef Py_ssize_t n_out = plan.lean.n_out
        cdef double precision = -1
        cdef object wanted = None
        if plan.lean.loss.traits & BY_LABELS:
            if type(y) is not cnp.ndarray or not cnp.PyArray_ISINTEGER(y) or cnp.PyArray_NDIM(y) != 1:
                return False
            y = cnp.PyArray_FROMANY(y, cnp.NPY_INTP, 1, 1, cnp.NPY_ARRAY_CARRAY_RO)
        else:
            if not is_ready(y, <void *> plan.dtype, False):
                return False
            if cnp.PyArray_NDIM(y) == 1 and n_out == 1:
                y = y.reshape(-1, 1)
            if not has_size(y, self.batch, n_out) or (self.check_finite and not known_finite(y)):
                return False
        if self.check_finite and not known_finite(X):
            return False
        if self.is_regression:
            precision = self.accuracy.precision
            wanted = cnp.PyArray_FROMANY(
                y, cnp.NPY_DOUBLE, 2, 2, cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_ENSURECOPY
            )
        return (
            plan.bind(self.layers, self.trained, self.rule, "Model.train", _no_state)
            and plan.bind_data(X, y, self.loss_settings, wanted, False, not self.is_regression, precision)
        )

    cdef bint _owns_what_it_published(self) except -1:
        """Return whether all attributes are as the last call set them, and nobody else refers to their arrays."""
        cdef PyObject *value
        cdef Py_ssize_t i
        if not COUNTS_REFERENCES:
            return False
        for i in range(len(self.values)):
            found = item(<dict> self.owners[i], self.names[i])
            value = <PyObject *> self.values[i]
            if <PyObject *> found is not value:
                return False
            if self.shapes[i] is None:
                continue
            if Py_REFCNT(value) != <Py_ssize_t> self.counts[i]:
                return False
            if not is_ready(found, <void *> self.plan.dtype, True) or not has_shape(found, self.shapes[i]):
                return False
            if <size_t> data(found) != <size_t> self.addresses[i]:
                return False
        return True


def _no_state(where, owner, names, values):
    """Refuse to begin an optimizer's state anew: that is for the general path."""
    raise LookupError(names)
