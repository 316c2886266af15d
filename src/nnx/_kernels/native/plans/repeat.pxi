# One step per call, as in control and reinforcement learning: the last call of `train` again, with other samples.
#
# The Python code around a small step takes several times as long as the step. A repeat checks that everything the last
# call depended on is unchanged. It makes no decision again, and the step writes into the arrays that the last call
# published. If something else refers to one of these arrays, or the number of rows differs, it makes a new one. If
# anything else differs, it does nothing, and the general path runs. It keeps the GIL: from the last comparison to the
# last attribute that it sets, no other Python code runs.

from libc.math cimport INFINITY

cdef object MOST_ITERATIONS = (1 << 63) - 1
cdef tuple RUNNING = ("iterations", "current_learning_rate")  # what an optimizer changes itself
cdef tuple READ = ("learning_rate", *RUNNING)  # what a repeat reads at each call

cdef double LEAST_WEIGHT = 1e-30, LARGEST_WEIGHT = 1e30  # limits of a sample's weight other than 0: `nnx._base.weights`

cdef enum:
    BATCH = -1  # stands for the rows of the batch
    BATCH_SIZE = 1  # the index among the options, in the order of `Model.train`
    SAMPLE_WEIGHT = 14
    CLASS_WEIGHT = 15


cdef struct Slot:
    # The field of a plan's stage that holds the address of an array that the step stores into.
    Py_ssize_t offset
    Py_ssize_t array


cdef struct Published:
    # An array that the last call published.
    Py_ssize_t rows  # or BATCH
    Py_ssize_t columns
    Py_ssize_t uses  # as attributes
    void *values  # their address when it was published
    bint is_new  # this call made it, or an attribute does not hold it yet


cdef class Repeat:
    """A call of `Model.train` that was one silent step of all samples on one thread, ready to be repeated.

    Parameters
    ----------
    plan : Plan
        The plan that did the call.
    program : Program
    most_rows : int
        The most rows of a step on one thread, in one compiled call.
    input_layer : Layer_Input
    published : list of (dict, str, value)
        Every attribute that the call set, except the samples: object, name and value.
    history : class
        The class of the result of a call.
    backends : module
        Which holds the backend in use.
    diverged : callable
        Raises the error for parameters of a model that are no longer finite.
    """

    cdef tuple options  # the arguments beside X and y: the same objects are still valid
    cdef Plan plan
    cdef Py_ssize_t most_rows
    cdef tuple layers, trained, rule, dropouts, loss_settings
    cdef tuple attributes  # (owner, name, value): what must be unchanged
    cdef tuple owners, names, values  # of published attributes; an array is given by its index
    cdef list arrays
    cdef Published *published
    cdef Slot *slots
    cdef int n_slots
    cdef object rate, next_iterations  # of the step that is ready
    cdef object loss, optimizer, accuracy, input_layer, history, backends, backend, diverged
    cdef bint check_finite, is_regression

    def __cinit__(
        self, Plan plan not None, program, Py_ssize_t most_rows, input_layer, list published not None, history,
        backends, diverged,
    ):
        cdef list kept = []
        self.plan, self.layers, self.trained = plan, program.layers, program.trained
        self.most_rows = most_rows
        self.loss, self.optimizer, self.accuracy = program.loss, program.optimizer, program.accuracy
        self.input_layer, self.history = input_layer, history
        self.backends, self.backend, self.diverged = backends, backends.backend, diverged
        self.rule = tuple(self.optimizer._rule("Model.train"))
        self.dropouts = tuple([stage.owner for stage in program.stages if stage.kind == "dropout"])
        self.is_regression = hasattr(self.accuracy, "precision")
        for name, value in self.optimizer.__dict__.items():
            if name not in READ:
                kept.append((self.optimizer, name, value))
        self.loss_settings = self.loss._settings("Model.train", self.plan.lean.n_out)
        for name in self.loss._arguments:
            kept.append((self.loss, name, getattr(self.loss, name)))
        name = "precision" if self.is_regression else "binary"
        kept.append((self.accuracy, name, getattr(self.accuracy, name)))
        self.attributes = tuple(kept)
        self._take_arrays(published)
        self._take_slots()

    def __dealloc__(self):
        PyMem_RawFree(self.published)
        PyMem_RawFree(self.slots)

    cdef int _take_arrays(self, list published) except -1:
        """Take the published attributes: the arrays once each, and their owners."""
        cdef dict numbers = {}
        cdef list values = []
        self.arrays = []
        self.published = <Published *> PyMem_RawCalloc(len(published) + 1, sizeof(Published))
        if self.published is NULL:
            raise MemoryError
        for _, _, value in published:
            if type(value) is not cnp.ndarray or cnp.PyArray_NDIM(value) != 2:
                values.append((-1, value))
                continue
            number = numbers.setdefault(id(value), len(self.arrays))
            if number == len(self.arrays):
                self.arrays.append(value)
            values.append((number, None))
            self.published[<Py_ssize_t> number].values = data(value)
            self.published[<Py_ssize_t> number].rows = cnp.PyArray_DIM(value, 0)
            self.published[<Py_ssize_t> number].columns = cnp.PyArray_DIM(value, 1)
            self.published[<Py_ssize_t> number].uses += 1
        self.owners = tuple([own for own, _, _ in published])
        self.names = tuple([name for _, name, _ in published])
        self.values = tuple(values)
        return 0

    cdef int _take_slots(self) except -1:
        """Find the field of each array's address. Refuse arrays that are not all that the last step stored."""
        cdef Plan plan = self.plan
        cdef Stage *stage
        cdef Py_ssize_t rows = plan.lean.batch
        cdef bint fits = len(self.layers) == plan.n_full and len(self.trained) == plan.n_full
        cdef int s
        fits = fits and rows > 0 and plan.stored.stages[0].kind == DENSE
        self.slots = <Slot *> PyMem_RawCalloc(7 * plan.n_full, sizeof(Slot))
        if self.slots is NULL:
            raise MemoryError
        for s in range(plan.n_full if fits else 0):
            stage = &plan.stored.stages[s]
            fits = fits and self._take_slot(<void **> &stage.output, rows * stage.n_out, True)
            fits = fits and self._take_slot(<void **> &stage.dinputs, rows * stage.n_in, True)
            if s > 0:
                fits = fits and self._take_slot(<void **> &stage.inputs, rows * stage.n_in, True)
            if s + 1 < plan.n_full or not plan.lean.combined:
                fits = fits and self._take_slot(<void **> &stage.dvalues, rows * stage.n_out, True)
            if stage.kind == DROPOUT:
                fits = fits and self._take_slot(<void **> &stage.mask, rows * stage.n_out, True)
            if has_parameters(stage):
                fits = fits and self._take_slot(<void **> &stage.weights.gradients, stage.weights.size, False)
            if stage.kind == DENSE:
                fits = fits and self._take_slot(<void **> &stage.biases.gradients, stage.biases.size, False)
        if not fits:
            raise ValueError("Repeat: published must hold all arrays that the plan's last step has stored into.")
        return 0

    cdef bint _take_slot(self, void **place, Py_ssize_t size, bint by_rows) except -1:
        """Remember the array of a field of a stage. False if there is none."""
        cdef Py_ssize_t i
        for i in range(len(self.arrays)):
            if self.published[i].values == place[0] and cnp.PyArray_SIZE(self.arrays[i]) == size:
                if by_rows:
                    self.published[i].rows = BATCH
                self.slots[self.n_slots].offset = <char *> place - <char *> self.plan.stored.stages
                self.slots[self.n_slots].array = i
                self.n_slots += 1
                return True
        return False

    def remember(self, tuple options not None, bint check_finite):
        """Take the arguments of the call beside X and y, after it has ended well."""
        if len(options) <= CLASS_WEIGHT:
            raise ValueError("Repeat.remember: options must be those of `Model.train`.")
        if options[CLASS_WEIGHT] is not None:  # it may be a dict, which may change
            return
        if options[BATCH_SIZE] is not None:
            self.most_rows = min(self.most_rows, <Py_ssize_t> options[BATCH_SIZE])
        self.options, self.check_finite = options, check_finite

    def step(self, model, X, y, tuple options not None):
        """Repeat the call and return its history. If it is another call, do nothing and return None.

        Parameters
        ----------
        model : Model
        X, y : anything
        options : tuple
            The other arguments.
        """
        cdef dict own = model.__dict__
        token = object()  # of the only thread that may train the model
        if own.setdefault("_training", token) is not token:
            return None
        try:
            if not self._is_same_call(options) or not self._holds(model):
                return None
            samples = self._samples(X)
            history = None if samples is None else self._make_ready(model, samples, y, options[SAMPLE_WEIGHT])
            if history is None or not self._run(samples):
                return None
            own["history"] = history
            if self.plan.lean.stops and not self.plan.is_finite():
                self.diverged(model, 1, 1)
            return history
        finally:
            self.plan.release()
            own.pop("_training", None)

    cdef object _make_ready(self, object model, cnp.ndarray X, object y, object weights):
        """Return a history for the figures of the step that `_run` is ready to do, or None. Nothing has changed."""
        cdef object iterations = self.optimizer.iterations
        cdef Py_ssize_t rows = cnp.PyArray_DIM(X, 0)
        try:
            self.rate = self.optimizer.current_learning_rate
            if type(self.rate) is not float or not 0 <= <double> self.rate < INFINITY or type(iterations) is not int:
                return None
            if not 0 <= iterations < MOST_ITERATIONS or not self._bind(X, y, weights):
                return None
            if self.optimizer.schedule is not None or self.optimizer.decay:
                self.rate = self.optimizer._rates("Model.train", iterations, 1)
            self.next_iterations = iterations + 1
            history = self.history()
            stops, per_sample = self.plan.lean.stops, self.plan.lean.penalty_per_sample
            history.add(
                *self.plan.prepare(rows, 1, True, 0, self.rate, None, iterations, 0, 1, stops, False, per_sample)
            )
            self.loss.remember_trainable_layers(model.trainable_layers)
            return history if self._make_room(rows) else None
        except Exception:
            return None  # the general path finds the error, and raises it

    cdef bint _run(self, cnp.ndarray X) except -1:
        """Do the step, and set the attributes that it leaves. False if it made no update."""
        cdef Plan plan = self.plan
        cdef Py_ssize_t i
        cdef dict own
        for i in range(self.n_slots):
            (<void **> (<char *> plan.stored.stages + self.slots[i].offset))[0] = data(self.arrays[self.slots[i].array])
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
        self._publish()
        loss_sum, loss_count, hits_sum, hits_count = sums_of(&plan.lean)
        self.loss.accumulated_sum, self.loss.accumulated_count = loss_sum, loss_count
        self.accuracy.accumulated_sum, self.accuracy.accumulated_count = hits_sum, hits_count
        return True

    cdef int _publish(self) except -1:
        """Set the attributes that do not hold yet what this call stored."""
        cdef Py_ssize_t i, number
        cdef tuple each
        for i in range(len(self.values)):
            each = self.values[i]
            number = each[0]
            if number < 0:
                (<dict> self.owners[i])[self.names[i]] = each[1]
            elif self.published[number].is_new:
                (<dict> self.owners[i])[self.names[i]] = self.arrays[number]
        return 0

    cdef bint _is_same_call(self, tuple options) except -1:
        """Return whether the arguments are those of the last call. Only the values of weights of samples may differ."""
        cdef Py_ssize_t i
        if self.options is None or len(options) != len(self.options):
            return False
        for i in range(len(options)):
            if options[i] is not self.options[i]:
                if i != SAMPLE_WEIGHT or options[i] is None or self.options[i] is None:
                    return False
        return True

    cdef cnp.ndarray _samples(self, object X):
        """Return the samples as the plan takes them, also in the other float type; None for anything else."""
        cdef cnp.ndarray samples = floats(X, self.plan.number)
        if samples is None or cnp.PyArray_NDIM(samples) != 2 or cnp.PyArray_DIM(samples, 1) != self.plan.lean.n_in:
            return None
        return samples if 1 <= cnp.PyArray_DIM(samples, 0) <= self.most_rows else None

    cdef bint _holds(self, object model) except -1:
        """Return whether model, backend, optimizer and accuracy are unchanged."""
        cdef tuple kept
        if self.backends.backend is not self.backend:
            return False
        for kept in self.attributes:
            if getattr(kept[0], kept[1], None) is not kept[2]:
                return False
        return self.plan.holds(model)

    cdef bint _bind(self, cnp.ndarray X, object y, object weights) except -1:
        """Bind parameters, samples, targets and weights. False if one cannot be used without a copy."""
        cdef Plan plan = self.plan
        cdef Py_ssize_t rows = cnp.PyArray_DIM(X, 0), n_out = plan.lean.n_out
        cdef double precision = -1
        cdef object wanted = None, weighing = None
        if plan.lean.loss.traits & BY_LABELS:
            if type(y) is not cnp.ndarray or not cnp.PyArray_ISINTEGER(y) or cnp.PyArray_NDIM(y) != 1:
                return False
            y = cnp.PyArray_FROMANY(y, cnp.NPY_INTP, 1, 1, cnp.NPY_ARRAY_CARRAY_RO)
        else:
            if not is_ready(y, NULL, False):
                return False
            if cnp.PyArray_NDIM(y) == 1 and n_out == 1:
                y = y.reshape(-1, 1)
            if self.is_regression:
                precision = self.accuracy.precision
                wanted = cnp.PyArray_FROMANY(
                    y, cnp.NPY_DOUBLE, 2, 2, cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_ENSURECOPY
                )
            y = floats(y, plan.number)
            if not has_size(y, rows, n_out) or (self.check_finite and not known_finite(y)):
                return False
        if self.check_finite and not known_finite(X):
            return False
        if weights is not None:
            weighing = weights_of_samples(weights, rows)
            if weighing is None:
                return False
        return (
            plan.bind(self.layers, self.trained, self.rule, "Model.train", _no_state)
            and plan.bind_data(
                X, y, self.loss_settings, wanted, False, not self.is_regression, precision, AS_THEY_ARE, weighing
            )
        )

    cdef bint _make_room(self, Py_ssize_t rows) except -1:
        """Make sure of arrays for all that the step stores: those of the last call, if nothing else refers to them."""
        cdef Published *each
        cdef PyObject *array
        cdef Py_ssize_t i, number
        cdef cnp.npy_intp shape[2]
        if not COUNTS_REFERENCES:
            return False
        for i in range(len(self.arrays)):
            self.published[i].is_new = False
        for i in range(len(self.values)):
            number = (<tuple> self.values[i])[0]
            if number >= 0 and item(<dict> self.owners[i], self.names[i]) is not self.arrays[number]:
                self.published[number].is_new = True
        for i in range(len(self.arrays)):
            each, array = &self.published[i], PyList_GET_ITEM(self.arrays, i)
            shape[0], shape[1] = rows if each.rows == BATCH else each.rows, each.columns
            # Beside the attributes, `arrays` refers to it.
            if (
                each.is_new or Py_REFCNT(array) != each.uses + 1 or not is_ready(<object> array, NULL, True)
                or not has_size(<cnp.ndarray> array, shape[0], shape[1])
            ):
                self.arrays[i] = cnp.PyArray_EMPTY(2, shape, self.plan.number, 0)
                each.is_new = True
        return True


cdef cnp.ndarray floats(object value, int number):
    """Return an array of float32 or float64 in one of these types, uncopied if it has it; None for anything else."""
    cdef cnp.ndarray copy
    cdef Py_ssize_t i
    if not is_ready(value, NULL, False):
        return None
    if cnp.PyArray_TYPE(value) == number:
        return value
    copy = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(value), cnp.PyArray_DIMS(value), number, 0)
    for i in range(cnp.PyArray_SIZE(value)):
        if number == cnp.NPY_FLOAT:
            (<float *> data(copy))[i] = <float> (<const double *> data(value))[i]
        else:
            (<double *> data(copy))[i] = (<const float *> data(value))[i]
    return copy


cdef cnp.ndarray weights_of_samples(object given, Py_ssize_t rows):
    """Return a copy of the samples' weights, float64 (rows,); None if they are not valid, or all 0."""
    cdef cnp.ndarray weights
    cdef const double *weight
    cdef bint leaves = False
    cdef Py_ssize_t i
    if not is_ready(given, NULL, False) or cnp.PyArray_NDIM(given) != 1 or cnp.PyArray_DIM(given, 0) != rows:
        return None
    weights = cnp.PyArray_FROMANY(given, cnp.NPY_DOUBLE, 1, 1, cnp.NPY_ARRAY_CARRAY_RO | cnp.NPY_ARRAY_ENSURECOPY)
    weight = <const double *> data(weights)
    for i in range(rows):
        if weight[i] != 0 and not LEAST_WEIGHT <= weight[i] <= LARGEST_WEIGHT:
            return None
        leaves = leaves or weight[i] != 0
    return weights if leaves else None


def _no_state(where, owner, names, values):
    """Refuse to start an optimizer's state anew: the general path does that."""
    raise LookupError(names)
