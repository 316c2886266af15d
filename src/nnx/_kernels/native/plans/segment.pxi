# A segment: built-in layers that follow each other in a model that also has custom parts. It does a step in parts:
# forward, backward, update. Between these parts, the user's code runs.
#
# That code may change anything that it can reach. So each part binds the parameters anew and checks the inputs again,
# and returns new arrays. No kernel reads or writes an array that could have been freed since.


cdef enum Reached:  # the progress of a segment in a step
    NOWHERE, WENT_FORWARD, WENT_BACK, HAS_GRADIENTS


cdef class Segment(Plan):
    """Some of a model's stages, for one part of a step after the other, on one thread.

    The parameters of the constructor are `Plan`'s; `loss` is None and `combined` False.

    Notes
    -----
    The last step of a call of `train` runs in arrays that become attributes of the layers. Other steps run in the
    segment's own memory. Both do the same arithmetic.
    """

    cdef cnp.ndarray inputs, output  # of the current step
    cdef Py_ssize_t rows
    cdef int net  # the index in `nets` of the one in which it runs
    cdef list found  # the future attributes of the layers; None if there are none
    cdef double rate
    cdef Reached reached
    cdef bint is_ready  # for `update`
    cdef bint goes_back  # `update` takes the gradient back
    cdef readonly bint is_combined  # the gradient of the output was by the inputs of the last stage

    def forward(self, tuple owners not None, inputs, Py_ssize_t batch, bint wanted, bint limits_norm, bint stores,
                str where):
        """Take some rows forward. Return the output, a new array, or None if the layers have changed.

        Layers of dropout and noise count the forward.

        Parameters
        ----------
        owners : tuple of layers
            One a stage.
        inputs : array (n, n_in)
        batch : int
            The most rows of a step. Bits depend on it.
        wanted : bool
            Whether `backward` will have to return the gradient of the inputs. Weights are then packed for that, too.
        limits_norm : bool
            Whether `update` will limit the norm of the gradients.
        stores : bool
            Whether to keep the layers' attributes, for `publish`.
        where : str
            How errors begin.
        """
        cdef cnp.ndarray samples = matrix("Segment.forward", "inputs", inputs, self.number, ANY, self.lean.n_in)
        cdef cnp.ndarray array
        cdef cnp.npy_intp shape[2]
        cdef int s
        self.drop()
        self.rows = cnp.PyArray_DIM(samples, 0)
        if self.rows == 0:
            raise ValueError("Segment.forward: inputs must have at least one row, got none.")
        if not of_dtype(self.with_dtype, self.dtype) or not self._bind_values(owners, True, where) or not self._apart():
            return None
        for array in self.held:
            if overlap(array, samples):
                samples = cnp.PyArray_NewCopy(samples, cnp.NPY_CORDER)
                break
        if (self.lean.clip_norm != 0) != limits_norm:
            self.lean.clip_norm, self.rule = limits_norm, None
        self.inputs = samples
        self._take_inputs()
        self._reserve(max(batch, self.rows), 1, False)
        self.progress.n_threads = 1
        self.lean.batch = self.stored.batch = self.reserved_batch
        self.net = stores
        self._aim(wanted)
        if wanted:
            self.lean.stages[0].dinputs = self.lean.stages[0].dvalues  # until there is an array for it
        if stores:
            self._lend()
            self.found = self._make_room(self.rows, samples, [])
        shape[0], shape[1] = self.rows, self.lean.n_out
        self.output = cnp.PyArray_EMPTY(2, shape, self.number, 0)
        self._do(GO_FORWARD)
        memcpy(data(self.output), self._last().output, cnp.PyArray_NBYTES(self.output))
        for s in range(self.n_full):
            if self.stored.stages[s].kind == DROPOUT or self.stored.stages[s].kind == NOISE:
                owners[s].training_forwards = self.stored.stages[s].forwards + 1
        self.reached = WENT_FORWARD
        return self.output

    def backward(self, tuple owners not None, tuple trained not None, dvalues, bint combined, bint wanted, str where):
        """Take the gradient back. Return that of the inputs, a new array, or None if it is not wanted.

        Parameters
        ----------
        owners : tuple of layers
        trained : tuple of bool
            For each layer, whether the gradients of its parameters will be needed.
        dvalues : array (n, n_out)
            The gradient by the output.
        combined : bool
            Whether it is by the inputs of the last stage, an activation.
        wanted : bool
            Whether to return anything.
        where : str
        """
        cdef cnp.ndarray gradients
        self._require(WENT_FORWARD, "backward", "forward")
        self._bind_again(owners, trained, where)
        gradients = self._take_dvalues(dvalues, combined, wanted)
        self._do(GO_BACK)
        self.reached = WENT_BACK
        return gradients

    def make_gradients(self, tuple owners not None, tuple trained not None, str where not None):
        """Give layers the gradients of their parameters in new arrays, and update nothing; ``trained`` as before."""
        cdef list found
        self._require(WENT_BACK, "make_gradients", "backward")
        if len(trained) != self.n_full:
            raise ValueError("Segment.make_gradients: trained must be one for each stage.")
        self._bind_again(owners, (False,) * self.n_full, where)
        self._take_inputs()
        found = self.found
        if found is None:
            found = self._gradient_arrays(trained)
        self._aim_parameters(found)
        self._do(GO_GRADIENTS)
        self.reached = HAS_GRADIENTS
        for owner, own in zip(owners, found):
            for name in ("dweights", "dbiases"):
                if name in <dict> own:
                    PyObject_GenericGetDict(owner, NULL)[name] = (<dict> own)[name]

    def make_ready(self, tuple owners not None, tuple trained not None, dvalues, bint combined, rule not None,
                   double rate, iterations, layer_state, str where not None):
        """Prepare `update`. Return False if the update has to be done elsewhere.

        Parameters
        ----------
        owners : tuple of layers
        trained : tuple of bool
            As for `backward`.
        dvalues, combined
            The arguments of `backward`, if `update` shall do that as well; else None.
        rule : Rule
        rate : float
        iterations : int
            Updates done before.
        layer_state : callable
            As for `Plan.bind`.
        where : str
        """
        cdef uint64_t steps = iterations
        self.goes_back = dvalues is not None
        if self.goes_back:
            self._require(WENT_FORWARD, "make_ready", "forward")
        else:
            self._require(WENT_BACK, "make_ready", "backward")
        self.is_ready = False
        if self.rule is None or rule != self.rule:
            self.rule = None
            self.states = self._take_rule(rule)
            self.rule = rule
        if self.reserved_norm != (self.lean.clip_norm != 0):
            return False
        self.held = []
        self.has_parameters = self._bind_stages(owners, trained, self.states, where, layer_state)
        if not self.has_parameters or not self._apart():
            return False
        if self.found is not None:
            self._aim_parameters(self.found)
        if self.goes_back:
            self._take_dvalues(dvalues, combined, False)
        else:
            self._take_inputs()
        self.lean.iterations = self.stored.iterations = steps
        self.rate, self.is_ready = rate, True
        return True

    def update(self):
        """Compute the gradients of the trained parameters, and update them, in one call that cannot fail."""
        cdef bint has_room = self.memory is not NULL and self.reserved_norm == (self.lean.clip_norm != 0)
        if self.is_ready and self.has_parameters and has_room:
            self.is_ready, self.reached = False, HAS_GRADIENTS
            if self.goes_back:
                self._do(GO_BACK)
            self._do(GO_UPDATE)
            self.forget_averages()

    def scale_penalties(self, double scale):
        """Multiply the gradients of penalties by this number, from the current step on."""
        self.progress.penalty_scale = scale

    def publish(self, tuple owners not None):
        """Set the layers' attributes after a step that stores them, except the arrays that the step returned.

        Those are the output, and dinputs of the last layer if the gradient of the output was by these.
        """
        cdef dict own
        cdef int s, last = self.n_full - 1
        if self.found is None or self.reached < WENT_BACK or len(owners) != self.n_full:
            return
        for s in range(self.n_full):
            own = PyObject_GenericGetDict(owners[s], NULL)
            for name, value in (<dict> self.found[s]).items():
                if name == "dvalues" or s == last and (name == "output" or name == "dinputs" and self.is_combined):
                    continue
                own[name] = value
            if self.stored.stages[s].kind == BATCH_NORM:
                own.update(self.batch_figures(s))

    def drop(self):
        """Forget the current step, and release its arrays."""
        self.reached = NOWHERE
        self.is_ready = self.is_combined = self.has_parameters = False
        self.inputs = self.output = self.found = None
        self.held = []

    cdef Stage *_last_of(self, Net *net) noexcept:
        return &net.stages[net.n_stages - 1]

    cdef Stage *_last(self) noexcept:
        """Return the last stage of the net in which the step runs."""
        return self._last_of(self.nets[self.net])

    cdef int _require(self, Reached reached, str method, str before) except -1:
        """Refuse a part of a step that is out of order, or that has no memory any more."""
        cdef bint has_room = self.memory is not NULL and self.rows <= min(self.reserved_batch, self.lean.batch)
        if self.reached != reached or not has_room:
            raise RuntimeError(f"Segment.{method}: call {before} first.")
        return 0

    cdef int _do(self, Part part) except -1:
        cdef uint64_t mode
        with nogil:
            mode = enter_kernels()
            self.kernels.do_part(part, self.nets[self.net], self.rows, self.rate)
            leave_kernels(mode)
        return 0

    cdef bint _bind_values(self, tuple owners, bint trained, str where) except -1:
        """Read the addresses of the parameters, without states."""
        self.held = []
        return self._bind_stages(owners, (trained,) * self.n_full, ((), ()), where, None)

    cdef int _bind_again(self, tuple owners, tuple trained, str where) except -1:
        """Read the current addresses of the parameters. Refuse them if their shapes differ from those in `forward`."""
        self.held = []
        if not self._bind_stages(owners, trained, ((), ()), where, None):
            raise RuntimeError(f"{where}: somebody has given a layer parameters of another shape during a step.")
        if self.found is not None:
            self._aim_parameters(self.found)
        return 0

    cdef int _take_inputs(self) except -1:
        """Read the current address of the inputs: the user's arrays may have other memory now."""
        cdef cnp.ndarray samples = matrix(
            "Segment", "inputs", self.inputs, self.number, self.rows, self.lean.n_in
        )
        cdef Stage *stage = self.stored.stages
        self.inputs = samples
        self.lean.X = self.stored.X = data(samples)
        self.lean.n_samples = self.stored.n_samples = self.rows
        while has_trait(stage, IDENTITY) or stage.kind == FORK:  # in a stored step these pass on the array itself
            stage.output = data(samples)
            stage += 1
            stage.inputs = data(samples)
        return 0

    cdef cnp.ndarray _take_dvalues(self, object dvalues, bint combined, bint wanted):
        """Prepare to take a gradient back. Return the array for the inputs' gradient, None if it is not wanted."""
        cdef cnp.ndarray gradients = None, given
        cdef cnp.npy_intp shape[2]
        cdef Net *net = self.nets[self.net]
        cdef Stage *last = self._last()
        if combined and (self._last_of(&self.stored).kind != ACTIVATION or last.kind != ACTIVATION):
            raise ValueError("Segment.backward: the last stage must be an activation for a combined gradient.")
        given = matrix("Segment.backward", "dvalues", dvalues, self.number, self.rows, self.lean.n_out)
        self._take_inputs()
        net.combined = self.is_combined = combined
        if self.net == 0:
            self._aim(wanted)
        if self.found is not None:
            gradients = (<dict> self.found[0])["dinputs"]
        elif wanted:
            shape[0], shape[1] = self.rows, self.lean.n_in
            gradients = cnp.PyArray_EMPTY(2, shape, self.number, 0)
            self.lean.stages[0].dinputs = data(gradients)
        memcpy(last.dinputs if combined else last.dvalues, data(given), cnp.PyArray_NBYTES(given))
        return gradients if wanted else None

    cdef void _aim(self, bint wanted) noexcept:
        """Let gradients go back to the inputs, or to the lowest trained stage."""
        cdef int s
        self._aim_gradients()
        if wanted:
            for s in range(1, self.lean.n_stages):
                self.lean.stages[s].dinputs, self.lean.stages[s].unwanted = self.lean.stages[s - 1].dvalues, 0

    cdef list _gradient_arrays(self, tuple wanted):
        """Make arrays for gradients of parameters: a dictionary for each stage, empty if none are wanted."""
        cdef list found = []
        cdef dict own
        cdef Stage *stage
        cdef int s
        self.old = []
        for s in range(self.n_full):
            stage = &self.stored.stages[s]
            own = {}
            if wanted[s] and has_parameters(stage):
                own["dweights"] = self._array(stage.weights.size // stage.weights.line, stage.weights.line)
            if wanted[s] and has_biases(stage):
                own["dbiases"] = self._array(stage.biases.size // stage.biases.line, stage.biases.line)
            found.append(own)
        return found

    cdef int _aim_parameters(self, list found) except -1:
        """Write gradients of parameters to these arrays from now on."""
        cdef Stage *stage
        cdef dict own
        cdef int s
        for s in range(self.n_full):
            own = found[s]
            if not has_parameters(&self.stored.stages[s]):
                continue
            stage = &self.stored.stages[s] if self.net else &self.lean.stages[self.place[s]]
            if "dweights" in own:
                stage.weights.gradients = data(own["dweights"])
            if "dbiases" in own:
                stage.biases.gradients = data(own["dbiases"])
        return 0
