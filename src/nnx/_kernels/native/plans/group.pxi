# Groups: plans of models of one shape that train together in one compiled call (`plans/together.pxi`). Each plan has
# been bound and prepared for the same steps, as it would be alone. The results of the steps are in the plans' own
# arrays.


cdef bint is_pointwise(const Net *net) noexcept:
    """Return whether a network has only dense layers, elementwise activations, and a loss of single outputs.

    Softmax with cross-entropy may come at the end.
    """
    cdef const Stage *stage
    cdef int s
    if net.n_out > MOST_OUTPUTS or net.loss is NULL or (net.loss.traits & BY_LABELS and not net.fused):
        return False
    for s in range(net.n_stages):
        stage = &net.stages[s]
        if stage.kind == DENSE:
            continue
        if s == 0 or stage.kind != ACTIVATION or net.stages[s - 1].kind != DENSE or net.stages[s - 1].relu:
            return False
        if stage.activation.traits & WHOLE_ROWS and not (net.fused and s == net.n_stages - 1):
            return False
    return not net.combined or not has_trait(&net.stages[net.n_stages - 1], FROM_INPUTS)


cdef bint fits_group(const Net *net) noexcept:
    """Return whether a bound network can train in a group."""
    cdef int s
    if net.bfloat16 or net.weights is not NULL or net.clip_norm or net.penalty_per_sample:
        return False
    for s in range(net.n_stages):
        if net.stages[s].kind == DENSE and not net.stages[s].trained:
            return False
    return is_pointwise(net) and (net.fused or net.wanted is not NULL)


cdef bint are_alike(const Net *net, const Net *other, Py_ssize_t itemsize) noexcept:
    """Return whether two networks do the same, except for parameters, samples, rates and the rule's settings."""
    cdef const Stage *stage
    cdef const Stage *its
    cdef int s
    if net.n_stages != other.n_stages or net.loss != other.loss or net.rule != other.rule:
        return False
    for s in range(net.n_stages):
        stage, its = &net.stages[s], &other.stages[s]
        if stage.kind != its.kind or stage.n_in != its.n_in or stage.n_out != its.n_out or stage.relu != its.relu:
            return False
        if stage.kind == ACTIVATION and (
            stage.activation != its.activation or memcmp(stage.settings, its.settings, sizeof(stage.settings)) != 0
        ):
            return False
    if memcmp(net.loss_settings, other.loss_settings, sizeof(net.loss_settings)) != 0:
        return False
    if (net.loss_own is NULL) != (other.loss_own is NULL) or (net.order is NULL) != (other.order is NULL):
        return False
    if net.loss_own is not NULL and memcmp(net.loss_own, other.loss_own, net.n_out * itemsize) != 0:
        return False
    return (
        net.batch == other.batch and net.n_samples == other.n_samples and net.step_of_epoch == other.step_of_epoch
        and net.stops == other.stops and net.combined == other.combined and net.alike == other.alike
        and net.clip_value == other.clip_value and (net.average != 0) == (other.average != 0)
        and net.n_wanted == other.n_wanted and (net.wanted is NULL) == (other.wanted is NULL)
    )


cdef class Together:
    """Plans of models of one shape.

    Parameters
    ----------
    plans : list of Plan
        At most as many as `lanes` returns for their dtype.

    Attributes
    ----------
    diverged : int
        The first model whose loss was not finite in the latest run; -1 if all were finite.
    """

    cdef list plans
    cdef Group group
    cdef char *memory
    cdef Py_ssize_t size

    def __cinit__(self, list plans not None):
        cdef Plan plan
        if not plans or len(plans) > lanes_for((<Plan?> plans[0]).number):
            raise ValueError("Together: plans must be at least one, and no more than there are lanes.")
        if len({id(plan) for plan in plans}) < len(plans):
            raise ValueError("Together: plans must not be there twice.")
        self.plans, self.group.n, self.group.diverged = list(plans), <int> len(plans), -1

    def __dealloc__(self):
        if self.memory is not NULL:
            give(self.memory)

    @property
    def diverged(self):
        return self.group.diverged

    def run(self, Py_ssize_t n_steps):
        """Do the steps that all plans are prepared for. Return False if they do not fit together.

        The plans' `steps_done` says how many were done: fewer if a model's loss was not finite.
        """
        cdef Plan plan, first = self.plans[0]
        cdef Group *group = &self.group
        cdef uint64_t mode
        cdef Py_ssize_t done, space
        cdef int l
        if group.n > first.kernels.lanes:
            raise ValueError("Together.run: plans must be no more than there are lanes.")
        group.alike = True
        for l in range(MOST_LANES):
            plan = self.plans[l if l < group.n else 0]
            group.nets[l] = &plan.lean
            if not plan.is_prepared or plan.stores or plan.kernels != first.kernels:
                raise RuntimeError("Together.run: all plans must be prepared for steps that store nothing.")
            if n_steps < 1 or n_steps != plan.progress.figures.steps_size or plan.lean.n_samples < 1:
                raise ValueError("Together.run: n_steps must be what the plans are prepared for.")
            if not are_alike(&first.lean, &plan.lean, first.itemsize):
                return False
            group.alike = group.alike and plan.lean.X == first.lean.X
        if not fits_group(&first.lean):
            return False
        for l in range(group.n):
            if not fits_group(group.nets[l]):
                return False
        space = first.kernels.together_space(&first.lean)
        if self.size < space:
            if self.memory is not NULL:
                give(self.memory)
                self.memory, self.size = NULL, 0
            self.memory = <char *> allocate(space)
            self.size = space
        group.space, group.lanes = self.memory, first.kernels.lanes
        with nogil:
            mode = enter_kernels()
            done = first.kernels.train_together(group, n_steps)
            leave_kernels(mode)
        for plan in self.plans:
            plan.steps_done = done
        return True


cdef int lanes_for(int number) except -1:
    return kernels_in_use(number).lanes


def lanes(dtype):
    """Return the most models of a dtype that train together."""
    return lanes_for(np.dtype(dtype).num)


def fits_together(Plan plan not None):
    """Return whether a plan's network can train together with others."""
    return is_pointwise(&plan.lean)
