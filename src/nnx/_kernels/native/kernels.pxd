"""The interface of compiled kernels and binding layer: one table of addresses for each variant and float
type, and one for products in blocks.

Numbers are passed as ``void *`` here, because the binding layer serves both float types. Each kernel describes them.
"""

from libc.stdint cimport int32_t, uint16_t, uint64_t

ctypedef void (*map_one_t)(const void *, void *, Py_ssize_t) noexcept nogil
ctypedef void (*map_two_t)(const void *, const void *, void *, Py_ssize_t) noexcept nogil

ctypedef void (*dense_forward_t)(
    const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, bint,
    const void *, void *
) noexcept nogil
ctypedef void (*dense_backward_weights_t)(
    const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double, double, void *
) noexcept nogil
ctypedef void (*dense_backward_biases_t)(
    const void *, const void *, void *, Py_ssize_t, Py_ssize_t, double, double
) noexcept nogil
ctypedef void (*dense_backward_inputs_t)(
    const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, void *
) noexcept nogil
ctypedef double (*regularization_loss_t)(const void *, Py_ssize_t, double, double) noexcept nogil
ctypedef Py_ssize_t (*not_finite_t)(const void *, Py_ssize_t) noexcept nogil
ctypedef double (*total_t)(const void *, Py_ssize_t) noexcept nogil
ctypedef void (*dropout_mask_t)(
    void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double, uint64_t, uint64_t
) noexcept nogil
ctypedef Py_ssize_t (*softmax_crossentropy_t)(
    const void *, const int32_t *, void *, void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    double, double, double *, void *
) noexcept nogil
ctypedef void (*argmax_t)(const void *, Py_ssize_t *, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef Py_ssize_t (*near_count_t)(const void *, const void *, Py_ssize_t, double) noexcept nogil
ctypedef void (*prelu_forward_t)(
    const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*prelu_backward_inputs_t)(
    const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*prelu_backward_weights_t)(
    const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*scale_t)(const void *, void *, Py_ssize_t, double) noexcept nogil
ctypedef void (*batch_norm_statistics_t)(
    const void *, void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*batch_norm_scales_t)(
    const void *, const void *, double, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*batch_norm_forward_t)(
    const void *, const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, bint
) noexcept nogil
ctypedef void (*batch_norm_backward_weights_t)(
    const void *, const void *, const void *, const void *, double, void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    Py_ssize_t
) noexcept nogil
ctypedef void (*batch_norm_shares_t)(
    const void *, const void *, const void *, const void *, double, void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    Py_ssize_t
) noexcept nogil
ctypedef void (*batch_norm_backward_inputs_t)(
    const void *, const void *, const void *, const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*layer_norm_forward_t)(
    const void *, const void *, const void *, double, void *, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*layer_norm_backward_inputs_t)(
    const void *, const void *, const void *, double, void *, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*layer_norm_backward_weights_t)(
    const void *, const void *, double, void *, void *, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*columns_t)(const void *, const void *, void *, Py_ssize_t, Py_ssize_t) noexcept nogil
cdef struct Places:
    # The columns of categories, and where their rows of the weights begin.
    const int32_t *first  # (n_in,): the first row of the weights for a column of categories; below 0 for numbers
    const int32_t *columns  # (n_in,): the columns of numbers, then those of categories
    Py_ssize_t n_numbers

ctypedef Py_ssize_t (*embedding_misfit_t)(
    const void *, const int32_t *, const int32_t *, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*embedding_forward_t)(
    const void *, const Places *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*embedding_backward_weights_t)(
    const void *, const void *, const Places *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*embedding_backward_inputs_t)(
    const void *, const Places *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
cdef struct Encoded:
    # The columns with encodings, and their edges. For combinations, the columns of each, and their factors.
    const int32_t *columns  # (n_columns,); for combinations (offsets[n_columns],)
    const int32_t *offsets  # (n_columns + 1,): where the edges of each begin, and where the last ones end
    const void *edges  # (offsets[n_columns],)
    Py_ssize_t n_columns

ctypedef void (*encoding_forward_t)(
    const void *, const Encoded *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*encoding_backward_t)(
    const void *, const void *, const Encoded *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
cdef struct Spline:
    # The columns with edges, and the buffers of a layer with such columns.
    const int32_t *columns  # (n_columns,)
    const int32_t *first  # (n_columns + 1,): where the weights of each begin, after the dense ones
    const void *edges  # for each column as many as it has weights, and one more for degree 1
    Py_ssize_t n_columns
    Py_ssize_t n_rows  # of those weights
    int degree
    void *sums  # (n_rows + n_columns, n_out): sums of each column's first weights
    int32_t *bins  # (batch, n_columns): where the numbers lie among the edges; NULL if that is not kept
    void *parts  # (batch, n_columns): how far along their bin
    void *dweights  # (n_in + n_rows, n_out)
    void *buckets  # (n_rows + n_columns, n_out)

ctypedef void (*spline_places_t)(
    const void *, const Spline *, int32_t *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*spline_sums_t)(
    const void *, const Spline *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*spline_add_t)(
    const void *, const Spline *, const void *, const int32_t *, const void *, void *, Py_ssize_t, Py_ssize_t,
    Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*spline_gradients_t)(
    const Spline *, const int32_t *, const void *, const void *, void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    Py_ssize_t
) noexcept nogil
ctypedef void (*spline_slopes_t)(
    const Spline *, const int32_t *, const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t,
    Py_ssize_t
) noexcept nogil
cdef enum:
    MAX_SUMS = 32  # of a column's waves, added up on the stack; `MAX_WIDTH` in nnx.periodic

cdef struct Periodic:
    # The columns with waves, and the numbers of waves.
    const int32_t *columns  # (n_columns,)
    Py_ssize_t n_columns
    Py_ssize_t n_frequencies
    Py_ssize_t width  # sums of a column
    Py_ssize_t size  # weights of a column

ctypedef void (*periodic_forward_t)(
    const void *, const Periodic *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*periodic_backward_t)(
    const void *, const void *, const Periodic *, const void *, void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    Py_ssize_t, Py_ssize_t
) noexcept nogil
ctypedef void (*gaussian_noise_t)(
    void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double, uint64_t, uint64_t
) noexcept nogil
ctypedef void (*fold_norm_t)(
    const void *, const void *, const void *, const void *, double, void *, Py_ssize_t
) noexcept nogil

# Formulas: one table each for activations, losses and rules, with a row for each of them

cdef enum:
    MOST_LANES = 16  # of a vector
    MAX_ACTIVATIONS = 32
    MAX_LOSSES = 32
    MAX_RULES = 32
    MAX_SETTINGS = 6  # the most settings of a formula
    MAX_STATES = 3  # the most states of a parameter
    MAX_CONSTANTS = 10  # of a rule, for a step

cdef enum Pass:
    FORWARD, FORWARD_AND_SLOPE, BACKWARD

cdef enum:  # traits of an activation
    FROM_INPUTS = 1  # backward starts from the inputs, and FORWARD_AND_SLOPE writes the slope over them
    WHOLE_ROWS = 2  # it needs whole rows, and scratch (columns, MOST_LANES)
    FUSES_WITH_DENSE = 4  # it is the ReLU, which a product applies to its results
    IDENTITY = 8

ctypedef void (*activation_t)(
    Pass, void *, const void *, void *, Py_ssize_t, Py_ssize_t, const double *, void *
) noexcept nogil

cdef struct Activation:
    const char *name
    activation_t run
    int traits
    int n_settings

cdef enum LossPart:
    SAMPLE_LOSSES, GRADIENT, PAIR_GRADIENT  # the last is by the inputs of the paired activation

cdef enum:  # traits of a loss
    BY_LABELS = 1  # targets are class numbers, int32, else numbers like the predictions
    NEEDS_PAIR = 2  # it takes the output of its pair
    FUSED_WITH_PAIR = 4  # `softmax_crossentropy` does both in one pass

ctypedef void (*loss_t)(
    LossPart, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const double *, const void *
) noexcept nogil

cdef struct Loss:
    const char *name
    const char *pair  # the activation by whose inputs it can also return the gradient; "" for none
    loss_t run
    int traits
    int n_settings

cdef struct Lines:
    # Which of a parameter's values: lines, their columns, and the distances between lines.
    Py_ssize_t rows
    Py_ssize_t columns
    Py_ssize_t line  # in the parameter, and in its states
    Py_ssize_t gradient_line  # in their gradients

cdef inline Lines one_line(Py_ssize_t n) noexcept nogil:
    cdef Lines lines
    lines.rows, lines.columns, lines.line, lines.gradient_line = 1, n, n, n
    return lines

ctypedef void (*prepare_t)(void *, double, double, const double *) noexcept nogil
ctypedef void (*apply_t)(void *, const void *, void **, const Lines *, const void *) noexcept nogil

cdef struct Rule:
    const char *name
    int n_states
    int n_settings
    prepare_t prepare  # constants of a step
    apply_t apply

ctypedef void (*update_t)(
    const Rule *, void *, const void *, void **, Py_ssize_t, double, double, const double *
) noexcept nogil

# What a plan runs


cdef extern from "threads.h" nogil:
    const bint THREADS_MEET
    ctypedef struct Meeting:
        pass
    void meet(Meeting *meeting, int threads)
    void open_gate(Meeting *meeting, long long how)
    int come_to_gate(Meeting *meeting, long long run, int most)
    void expect_at_gate(Meeting *meeting, long long run)
    int count_at_gate(Meeting *meeting)
    int close_gate(Meeting *meeting)
    bint wait_at_gate(Meeting *meeting, long long wait)
    bint pass_line(int *line, int side, int turns)
    bint claim(int *flag)
    void unclaim(int *flag)
    char *take_out(char **place)
    bint put_in(char **place, char *value)
    long long next_number(long long *next)

cdef enum Kind:
    DENSE, ACTIVATION, DROPOUT, PRELU, BATCH_NORM, LAYER_NORM, SCALE, EMBEDDING, SPLINE, NOISE, PIECEWISE_LINEAR
    THERMOMETER, COMBINATIONS, PERIODIC
    MEMBERS, MEMBER_SCALE, MEMBER_DENSE
    FORK, JOIN  # where the layers of a residual begin, and where its input is added to their output

cdef struct Parameter:
    # Weights or biases, in the layer's own arrays.
    void *values
    Py_ssize_t size  # number of values; 0 if a stage has no such parameter
    void *states[MAX_STATES]  # the states of the rule
    void *averages  # NULL if the optimizer keeps none
    void *gradients  # out; NULL if they are not needed
    double l1
    double l2
    Py_ssize_t line  # columns of the values
    void *rounded  # the values in bfloat16, as float32; NULL without rounding
    void *collected  # where gradients wait for their common norm; NULL without one
    double *squares  # the sum of their squares for each row

cdef enum:
    BLOCK = 32  # rows and columns of a block (matrix_units.h)
    BLOCK_SIZE = BLOCK * BLOCK
    GROUP = 8  # blocks of rows whose sums stay in L1
    DEPTH = 8  # blocks of a factor that stay in L1 while the blocks beside them are multiplied
    BLOCK_COLUMNS = 1024  # columns of the weights whose gradients are computed, or updated, at a time

cdef inline Py_ssize_t blocks_in(Py_ssize_t n) noexcept nogil:
    """Return how many adjacent blocks cover n numbers."""
    return (n + BLOCK - 1) // BLOCK

cdef inline Py_ssize_t blocks_space(Py_ssize_t rows, Py_ssize_t columns) noexcept nogil:
    """Return the bytes of a matrix in blocks."""
    return blocks_in(rows) * blocks_in(columns) * BLOCK_SIZE * <Py_ssize_t> sizeof(uint16_t)

cdef inline Py_ssize_t panel_columns(Py_ssize_t n_out) noexcept nogil:
    """Return the number of columns of the weights whose gradients are computed, or updated, at a time."""
    return min(<Py_ssize_t> BLOCK_COLUMNS, blocks_in(n_out) * BLOCK)

cdef inline Py_ssize_t block_gradient_space(Py_ssize_t n_out) noexcept nogil:
    """Return the bytes of scratch that a thread needs for gradients of a dense stage in blocks."""
    cdef Py_ssize_t numbers = 2 * BLOCK * panel_columns(n_out) + blocks_in(n_out) * BLOCK
    return numbers * <Py_ssize_t> sizeof(float) + DEPTH * BLOCK_SIZE * <Py_ssize_t> sizeof(uint16_t)

cdef struct Units  # below

cdef struct Blocks:
    # A dense stage's matrices in bfloat16 for matrix units, block by block (matrix_units.h). Lines, and pairs of a
    # transpose, are stored by rows of blocks. Pairs are stored by columns of blocks. So the blocks that a product
    # multiplies follow each other.
    const Units *units  # what multiplies them; NULL if the stage's products are not done in blocks
    Py_ssize_t rows  # of the batch, in blocks
    uint16_t *inputs  # lines
    uint16_t *weights  # pairs
    uint16_t *turned_weights  # pairs of the transpose: for the gradient of the inputs
    uint16_t *dvalues  # lines: for the gradient of the inputs
    uint16_t *paired_dvalues  # pairs: for the gradient of the weights

cdef enum:  # the lines of a batch norm, each with a number for each column
    MEAN, VARIANCE  # of the batch or, for prediction, the running ones
    SCALES  # weights divided by the deviation
    OF_DEVIATION, OF_ALL  # what gradients lose because a row moves mean and variance
    OF_WEIGHTS, OF_BIASES  # the gradients of weights and biases
    NORM_LINES

cdef struct Norm:
    # The data of a batch norm beside weights and biases, and a layer norm's epsilon.
    double epsilon
    double keep  # the fraction of the running statistics that a step keeps
    void *running_mean
    void *running_variance
    void *lines  # (NORM_LINES, norm_line)

cdef inline Py_ssize_t norm_line(Py_ssize_t columns) noexcept nogil:
    """Return the distance between a batch norm's lines, in numbers."""
    return (columns + MOST_LANES - 1) // MOST_LANES * MOST_LANES

cdef inline Py_ssize_t affine_size(Py_ssize_t columns) noexcept nogil:
    """Return the size of a folded batch norm in numbers: it fills whole panels of the widest product."""
    return 2 * (columns // (8 * MOST_LANES) + 1) * 8 * MOST_LANES

cdef struct Embedded:
    # The columns that an embedding replaces, and their weights.
    Places places
    Py_ssize_t n_rows  # of the weights
    Py_ssize_t width
    void *dweights  # (n_rows, width)

cdef struct Stage:
    # A layer or activation, for a whole batch. A dense stage may also do the ReLU after it.
    Kind kind
    Py_ssize_t n_in
    Py_ssize_t n_out
    Py_ssize_t members  # rows of the output for each sample; batch and rows of arrays are counted in samples
    const Activation *activation  # an activation's row of the table
    double settings[MAX_SETTINGS]
    bint keeps_slope  # forward writes the slope over its inputs, which nothing else needs
    bint relu
    bint trained
    Parameter weights
    Parameter biases
    double keep  # of a dropout; of noise, the standard deviation
    uint64_t seed
    uint64_t forwards
    void *mask  # (batch, n_out): dropout's, or noise
    Norm norm
    Embedded embedded
    Encoded encoded
    Spline spline
    Periodic periodic
    void *wave_gradients  # of the weights of a periodic stage
    int partner  # how many stages after a fork its join comes, or before a join its fork
    int level  # of a fork: how many forks are open before it
    const void *affine  # a batch norm that a dense stage's product applies: LANES scales, then their shifts, and so on
    const void *inputs  # (batch, n_in); NULL: rows of X
    void *output  # (batch, n_out)
    void *dvalues  # (batch, n_out)
    void *dinputs  # (batch, n_in); NULL if it is not needed
    Py_ssize_t unwanted  # how many of its first columns are not needed, because an embedding passes them on
    void *tiles  # packed inputs for the gradient of the weights; NULL if that is computed in one piece
    void *panels  # packed dvalues
    void *packed  # packed weights, for the forward product; NULL if they are read unpacked
    Blocks blocks  # if its products are done on matrix units
    bint feeds  # the next stage is dense and takes the output in blocks; nothing else needs the output
    bint fed  # the stage before feeds this one
    void *rounded_inputs  # (batch, n_in), in bfloat16, as float32; NULL without rounding
    void *rounded_dvalues  # (batch, n_out), likewise
    bint in_groups  # its gradients are computed group by group (partial_gradients.pxi)
    Py_ssize_t partial  # where they begin among the gradients of a group

cdef struct Figures:
    # Where a run records its steps and epochs: rows are `size` doubles apart, in the order of `History`.
    double *steps  # (5, steps_size): loss, data loss, penalty, accuracy, rate
    Py_ssize_t steps_size
    double *epochs  # (5, epochs_size)
    Py_ssize_t epochs_size

cdef struct Progress:
    # What all threads read. The first thread writes the part that changes from step to step, between the two barriers,
    # on separate cache lines.
    int n_threads
    Meeting *meeting
    Figures figures
    Py_ssize_t *hits  # of each thread, 64 bytes apart
    double penalty_scale  # the factor of penalties in this step; it changes only with `penalty_per_sample`
    char apart[64]
    double loss_sum  # of the epoch so far
    double loss_count  # the number of samples, or the sum of their weights
    double hits_sum
    double hits_count
    double penalty_sum  # of the epoch's steps so far, each times its rows
    bint is_apart  # the latest sums of all ranks have not arrived
    double squares  # of these, if their norm is limited
    double batch_loss  # of the last batch
    double batch_hits

cdef enum:
    MAX_MEMBERS = 1024  # `MAX_MEMBERS` in nnx.member_layers
    MEMBER_ROWS = 64  # rows of a member that are copied at a time

cdef inline bint is_of_members(const Stage *stage) noexcept nogil:
    """Return whether a stage has parameters for each member."""
    return stage.kind == MEMBERS or stage.kind == MEMBER_SCALE or stage.kind == MEMBER_DENSE

cdef inline Py_ssize_t members_before(const Stage *stage) noexcept nogil:
    """Return the number of rows of a stage's inputs per sample."""
    return 1 if stage.kind == MEMBERS else stage.members

cdef inline Py_ssize_t member_space(const Stage *stage, Py_ssize_t samples) noexcept nogil:
    """Return the scratch, in numbers, of a stage with parameters for each member, for a batch or for forward."""
    cdef Py_ssize_t copied = max(samples, <Py_ssize_t> MEMBER_ROWS) * (stage.n_in + stage.n_out)
    if stage.kind == MEMBER_DENSE:
        return copied + (stage.members * (stage.n_in + 1) * stage.n_out if samples else 0)
    return 2 * stage.members * stage.n_in

cdef inline bint has_parameters(const Stage *stage) noexcept nogil:
    """Return whether a stage has weights."""
    return (
        stage.kind == DENSE or stage.kind == PRELU or stage.kind == BATCH_NORM or stage.kind == LAYER_NORM
        or stage.kind == SCALE or stage.kind == EMBEDDING or stage.kind == SPLINE or stage.kind == PERIODIC
        or is_of_members(stage)
    )

cdef inline bint wants_gradients(const Stage *stage) noexcept nogil:
    """Return whether a stage has parameters of which anybody needs the gradients."""
    return has_parameters(stage) and (stage.trained or stage.weights.gradients is not NULL)

cdef inline bint is_encoding(const Stage *stage) noexcept nogil:
    """Return whether a stage has only edges or factors, and returns more columns than it takes."""
    return stage.kind == PIECEWISE_LINEAR or stage.kind == THERMOMETER or stage.kind == COMBINATIONS

cdef inline bint has_biases(const Stage *stage) noexcept nogil:
    """Return whether a stage's parameters are weights and biases."""
    return (
        stage.kind == DENSE or stage.kind == BATCH_NORM or stage.kind == LAYER_NORM or stage.kind == SPLINE
        or stage.kind == MEMBER_SCALE or stage.kind == MEMBER_DENSE
    )

ctypedef bint (*exchange_t)(void *plan) noexcept nogil

cdef struct Net:
    # A program bound to arrays: everything that a run reads and writes.
    int n_stages
    Stage *stages
    int n_levels  # levels of nested residuals
    int n_batch_norms
    Py_ssize_t members  # rows of the output for each sample
    bint apart  # predictions are each member's outputs, not their mean
    bint batched_lanes  # `lanes_step` does the whole step
    bint bfloat16  # dense stages round the factors of their products
    const Units *units  # matrix units, or plain C in their place, multiply them; NULL: vector units
    bint records  # figures are recorded
    bint stops  # the run stops before a step's update if its loss is not finite
    bint penalty_per_sample  # a step's penalties are divided by the weight of its rows
    bint minimizes  # an L-BFGS search asks for gradients, some of them at points that it leaves again
    Py_ssize_t batch  # the most samples of a step on this rank
    Py_ssize_t group_rows  # rows of a group, for partial gradients; 0 without them
    Py_ssize_t group_step  # the most rows of a group that go forward and back together
    Py_ssize_t group_size  # the size of a group's gradients, in numbers
    void *partials  # (GROUPS, group_size)
    Py_ssize_t n_samples
    Py_ssize_t n_in
    Py_ssize_t n_out
    const void *X  # (n_samples, n_in)
    const Py_ssize_t *order  # (epochs, n_samples): the order of samples; or NULL
    const Loss *loss
    double loss_settings[MAX_SETTINGS]
    const void *loss_own  # (n_out + MOST_LANES,): each column's own number for the loss, then the first again; or NULL
    bint combined  # the loss's gradient is taken together with that of the last activation
    bint fused  # activation and loss themselves are computed together
    const int32_t *labels  # (n_samples,), for a loss of class numbers
    const void *targets  # (n_samples, n_out), for the others
    const double *wanted  # (n_samples, n_wanted): the targets of the accuracy; NULL: the labels
    Py_ssize_t n_wanted
    const double *weights  # (n_samples,): the weight of each sample; NULL: all are equal
    bint threshold  # predictions are whether an output is above `cut`
    double cut
    bint exponential  # predictions are the exponentials of outputs
    Py_ssize_t every, begin  # every `every`-th column, from `begin` on, is a prediction; without `classes`
    bint classes  # predictions are the first of the largest columns
    double precision  # how near a prediction must come; below 0: it must be equal
    const Rule *rule
    double settings[2][MAX_SETTINGS]  # for weights, and for biases
    bint alike  # whether both are the same
    double clip_value  # gradients are clipped to plus and minus this; 0: no limit
    double clip_norm  # the largest norm of all gradients together; 0: any
    double average  # the largest decay factor of the average; 0: no average
    uint64_t iterations  # steps done before this run
    Py_ssize_t step_of_epoch  # the step of its epoch in which the run begins
    uint64_t first_forwards  # training forwards before this run, since the stages were bound
    int rank  # the number of this process among those that share out each batch's rows
    int n_ranks  # the number of ranks; 0: this is the only process
    Py_ssize_t step_rows  # the most rows of a step on all ranks together
    void *sums  # (n_sums,): all collected gradients, one after the other; then the batch's loss, and its hits
    Py_ssize_t n_sums
    exchange_t exchange  # adds `sums` up over all ranks; returns whether it did
    void *exchanged_by  # its argument
    void *gathered  # (batch, n_in), for samples in an order
    int32_t *batch_labels
    void *batch_targets
    double *batch_wanted
    double *batch_weights
    double *row_hits  # (batch,): the hits in each row, times its weight; used only with weights
    void *sample_losses  # (batch,), times the weights
    void *lanes_space
    char *scratch  # private_size bytes for each thread
    Py_ssize_t scratch_size  # bytes of it for kernels; the rest is for `forward`
    Py_ssize_t private_size
    Progress *progress

cdef enum:
    SUMMED = 4096  # numbers of a vector whose products form one sum
    MOST_PAIRS = 256  # the most pairs of differences that a search keeps
    SEARCH_WORK = 3  # a search's own vectors: direction, and the point and gradient on trial

cdef enum:  # the numbers that a search keeps beside vectors, as in `engine/lbfgs.py`
    SEARCH_LOSS, SEARCH_DATA_LOSS, SEARCH_PENALTY, SEARCH_ACCURACY
    SEARCH_SCALE, SEARCH_PAIRS, SEARCH_NEXT
    SEARCH_ITERATIONS, SEARCH_EVALUATIONS, SEARCH_STARTED, SEARCH_END, SEARCH_STEP
    SEARCH_NUMBERS

cdef inline Py_ssize_t search_pieces(Py_ssize_t size) noexcept nogil:
    """Return the number of partial sums of a product of vectors."""
    return (size + SUMMED - 1) // SUMMED

cdef struct Search:
    # L-BFGS: what an iteration keeps of earlier ones, and the limits that end it.
    Py_ssize_t size  # of all trained parameters
    Py_ssize_t memory  # the most pairs
    void *vectors  # (2 + 2*memory, size): point, gradient, differences of points, of gradients
    double *numbers  # the state, then each pair's curvature
    void *work  # (SEARCH_WORK, size)
    double *sums  # (2, search_pieces(size))
    double gradient_tolerance
    double loss_tolerance
    Py_ssize_t max_evaluations
    Py_ssize_t search_steps
    double penalty  # at the point on trial; the first thread writes it

cdef enum Part:  # of a step
    GO_FORWARD, GO_BACK, GO_GRADIENTS, GO_UPDATE  # gradients of parameters only, if no stage is trained

cdef enum:
    MOST_OUTPUTS = 64  # of models that train together

cdef struct Group:
    # Models of one shape that train together, one in each lane.
    int n  # how many
    int lanes
    const Net *nets[MOST_LANES]  # the places after the last model repeat the first one
    bint alike  # whether they have the same samples
    void *space
    int diverged  # out: the first whose loss is not finite; or -1

ctypedef Py_ssize_t (*train_together_t)(Group *, Py_ssize_t) noexcept nogil
ctypedef Py_ssize_t (*train_t)(const Net *, Py_ssize_t, Py_ssize_t, int) noexcept nogil
ctypedef Py_ssize_t (*minimize_t)(const Net *, Search *, Py_ssize_t, int) noexcept nogil
ctypedef Py_ssize_t (*judge_t)(const Net *, Py_ssize_t, Py_ssize_t, char *) noexcept nogil
ctypedef void (*add_judged_t)(const Net *, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*part_t)(Part, const Net *, Py_ssize_t, double) noexcept nogil
ctypedef void (*predict_t)(const Net *, const void *, void *, Py_ssize_t, char *) noexcept nogil
ctypedef Py_ssize_t (*space_t)(Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef bint (*fits_t)(const Net *) noexcept nogil
ctypedef Py_ssize_t (*lanes_space_t)(const Net *, Py_ssize_t, int) noexcept nogil
ctypedef Py_ssize_t (*turns_t)(Py_ssize_t, void *) noexcept nogil
ctypedef Py_ssize_t (*lay_out_t)(Net *, Py_ssize_t) noexcept nogil
ctypedef Py_ssize_t (*net_space_t)(const Net *) noexcept nogil
ctypedef void (*pack_rows_t)(const Stage *, Py_ssize_t, Py_ssize_t) noexcept nogil

ctypedef void (*vector_function_t)(int, const void *, void *, Py_ssize_t) noexcept nogil

cdef enum:  # the vector functions that tests can call one by one
    EXP, EXP_NEAR, LOG, EXPM1, LOG1P, SOFTPLUS, TANH, ERF, NORMAL_CDF, NORMAL_PDF
    COSINE_OF_TURNS, SINE_OF_TURNS

cdef enum Way:  # the purpose of a product in blocks
    OUTPUT  # left · right
    DINPUTS  # left · rightᵀ
    DWEIGHTS  # leftᵀ · right

ctypedef void (*block_product_t)(
    Way, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, char *
) noexcept nogil

ctypedef void (*turn_t)() noexcept nogil
ctypedef void (*keep_rows_t)(const Stage *, const void *, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*convert_weights_t)(const Stage *, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*forward_blocks_t)(
    const Stage *, const Stage *, void *, Py_ssize_t, Py_ssize_t, void *
) noexcept nogil
ctypedef void (*backward_blocks_t)(
    const Stage *, const Stage *, void *, const void *, Py_ssize_t, Py_ssize_t, void *
) noexcept nogil
ctypedef void (*train_lines_t)(
    const Net *, Parameter *, Py_ssize_t, void *, const Lines *, bint, const void *
) noexcept nogil
ctypedef void (*train_blocks_t)(
    const Net *, Stage *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, const void *, void *, train_lines_t
) noexcept nogil

cdef enum:
    N_LAYOUTS = 11

cdef struct Units:
    # What multiplies float32 matrices in bfloat16, block by block: matrix units, or plain C in their place.
    Py_ssize_t layouts[N_LAYOUTS]  # first of all: what `fill_layouts` writes
    bint are_real  # whether they are matrix units
    turn_t begin  # before a thread's first product
    turn_t end  # after its last one
    keep_rows_t keep_inputs
    keep_rows_t keep_dvalues
    convert_weights_t convert_weights
    forward_blocks_t forward
    backward_blocks_t backward
    train_blocks_t train
    block_product_t product

cdef inline void fill_layouts(Py_ssize_t *layouts) noexcept nogil:
    """Write the sizes of all structs that binding layer and kernels share: they differ between two builds."""
    layouts[0], layouts[1], layouts[2] = sizeof(Kernels), sizeof(Net), sizeof(Stage)
    layouts[3], layouts[4] = sizeof(Progress), sizeof(Meeting)
    layouts[5], layouts[6], layouts[7] = sizeof(Activation), sizeof(Loss), sizeof(Rule)
    layouts[8], layouts[9], layouts[10] = sizeof(Search), sizeof(Group), sizeof(Units)

cdef struct Kernels:
    Py_ssize_t layouts[N_LAYOUTS]  # first: what `fill_layouts` writes
    Py_ssize_t product_scratch  # bytes
    dense_forward_t dense_forward
    dense_backward_weights_t dense_backward_weights
    dense_backward_biases_t dense_backward_biases
    dense_backward_inputs_t dense_backward_inputs
    regularization_loss_t regularization_loss
    total_t total
    not_finite_t not_finite
    dropout_mask_t dropout_mask
    map_one_t round_bfloat16  # float32 only
    map_two_t multiply
    vector_function_t vector_function
    const Activation *activations
    int n_activations
    prelu_forward_t prelu_forward
    prelu_backward_inputs_t prelu_backward_inputs
    prelu_backward_weights_t prelu_backward_weights
    batch_norm_statistics_t batch_norm_statistics
    batch_norm_scales_t batch_norm_scales
    batch_norm_forward_t batch_norm_forward
    batch_norm_backward_weights_t batch_norm_backward_weights
    batch_norm_shares_t batch_norm_shares
    batch_norm_backward_inputs_t batch_norm_backward_inputs
    fold_norm_t fold_norm
    layer_norm_forward_t layer_norm_forward
    layer_norm_backward_inputs_t layer_norm_backward_inputs
    layer_norm_backward_weights_t layer_norm_backward_weights
    columns_t multiply_columns
    columns_t scale_backward_weights
    embedding_misfit_t embedding_misfit
    embedding_forward_t embedding_forward
    embedding_backward_weights_t embedding_backward_weights
    embedding_backward_inputs_t embedding_backward_inputs
    encoding_forward_t piecewise_linear_forward
    encoding_backward_t piecewise_linear_backward
    encoding_forward_t thermometer_forward
    encoding_backward_t thermometer_backward
    encoding_forward_t combinations_forward
    encoding_backward_t combinations_backward
    spline_places_t spline_places
    spline_sums_t spline_sums
    spline_add_t spline_add
    spline_gradients_t spline_gradients
    spline_slopes_t spline_slopes
    periodic_forward_t periodic_forward
    periodic_backward_t periodic_backward
    gaussian_noise_t gaussian_noise
    const Loss *losses
    int n_losses
    const Rule *rules
    int n_rules
    softmax_crossentropy_t softmax_crossentropy
    argmax_t argmax
    near_count_t near_count
    update_t update_by_rule
    scale_t clip_gradients
    scale_t scale_gradients
    scale_t average_update
    space_t tiles_space
    space_t panels_space
    space_t packed_space
    pack_rows_t pack_rows_of_weights
    space_t gradient_space
    net_space_t forward_space
    train_t train
    part_t do_part
    judge_t judge
    add_judged_t add_judged
    predict_t predict
    fits_t fits_lanes
    lanes_space_t lanes_space
    lay_out_t lay_out_partials
    turns_t multiply_adds
    minimize_t minimize
    int lanes  # of a vector
    net_space_t together_space
    train_together_t train_together
