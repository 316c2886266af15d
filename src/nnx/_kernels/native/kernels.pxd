"""What the compiled kernels and their door agree on: one table of addresses for each variant and float type.

Numbers are passed as ``void *`` here, because the door serves both float types; they are described at each kernel.
"""

from libc.stdint cimport int32_t, uint64_t

ctypedef void (*map_one_t)(const void *, void *, Py_ssize_t) noexcept nogil
ctypedef void (*map_two_t)(const void *, const void *, void *, Py_ssize_t) noexcept nogil
ctypedef void (*rows_two_t)(const void *, const void *, void *, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*labels_t)(const void *, const int32_t *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil

ctypedef void (*dense_forward_t)(
    const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, bint, void *
) noexcept nogil
ctypedef void (*dense_backward_weights_t)(
    const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double, double, void *
) noexcept nogil
ctypedef void (*dense_backward_biases_t)(
    const void *, const void *, void *, Py_ssize_t, Py_ssize_t, double, double
) noexcept nogil
ctypedef void (*dense_backward_inputs_t)(
    const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, void *
) noexcept nogil
ctypedef double (*regularization_loss_t)(const void *, Py_ssize_t, double, double) noexcept nogil
ctypedef Py_ssize_t (*not_finite_t)(const void *, Py_ssize_t) noexcept nogil
ctypedef double (*total_t)(const void *, Py_ssize_t) noexcept nogil
ctypedef void (*dropout_mask_t)(
    void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double, uint64_t, uint64_t
) noexcept nogil
ctypedef void (*softmax_forward_t)(const void *, void *, Py_ssize_t, Py_ssize_t, void *) noexcept nogil
ctypedef Py_ssize_t (*softmax_crossentropy_t)(
    const void *, const int32_t *, void *, void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
    void *
) noexcept nogil
ctypedef void (*argmax_t)(const void *, Py_ssize_t *, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef Py_ssize_t (*near_count_t)(const void *, const void *, Py_ssize_t, double) noexcept nogil
ctypedef void (*sgd_update_t)(void *, const void *, Py_ssize_t, double) noexcept nogil
ctypedef void (*sgd_momentum_update_t)(void *, const void *, void *, Py_ssize_t, double, double) noexcept nogil
ctypedef void (*adagrad_update_t)(void *, const void *, void *, Py_ssize_t, double, double) noexcept nogil
ctypedef void (*rmsprop_update_t)(void *, const void *, void *, Py_ssize_t, double, double, double) noexcept nogil
ctypedef void (*adam_update_t)(
    void *, const void *, void *, void *, Py_ssize_t, double, double, double, double, double
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
    bint claim(int *flag)
    void unclaim(int *flag)
    char *take_out(char **place)
    bint put_in(char **place, char *value)

cdef enum:
    MOST_STATES = 2
    MOST_SETTINGS = 3

cdef enum Kind:
    DENSE, RELU, SIGMOID, SOFTMAX, LINEAR, DROPOUT

cdef enum Loss:
    CATEGORICAL, BINARY, SQUARED_ERROR, ABSOLUTE_ERROR

cdef enum Rule:
    SGD, SGD_MOMENTUM, ADAGRAD, RMSPROP, ADAM

cdef struct Parameter:
    # Weights or biases, in the layer's own arrays.
    void *values
    void *momentums  # NULL if the rule has none
    void *cache  # likewise
    void *gradients  # out; NULL if nobody wants to see them
    double l1
    double l2

cdef struct Stage:
    # A layer or activation, for a whole batch. A dense stage may do the ReLU behind it as well.
    Kind kind
    Py_ssize_t n_in
    Py_ssize_t n_out
    bint relu
    bint trained
    Parameter weights
    Parameter biases
    double keep
    uint64_t seed
    uint64_t forwards
    void *mask  # (batch, n_out)
    const void *inputs  # (batch, n_in); NULL: rows of X
    void *output  # (batch, n_out)
    void *dvalues  # (batch, n_out)
    void *dinputs  # (batch, n_in); NULL if nobody wants it
    void *tiles  # packed inputs for the gradient of the weights; NULL if that is computed in one piece
    void *panels  # packed dvalues
    void *packed  # packed weights, for the forward product; NULL if they are read as they lie

cdef struct Figures:
    # Where a run records its steps and epochs: `size` doubles apart, in the order of `History`.
    double *steps  # (5, steps_size): loss, data loss, penalty, accuracy, rate
    Py_ssize_t steps_size
    double *epochs  # (5, epochs_size)
    Py_ssize_t epochs_size

cdef struct Progress:
    # What all threads read, and what changes from step to step: that the first of them writes, between the two places
    # where all meet, on cache lines of its own.
    int n_threads
    Meeting *meeting
    Figures figures
    Py_ssize_t *hits  # of each thread, 64 bytes apart
    char apart[64]
    double loss_sum  # of the epoch so far
    Py_ssize_t loss_count
    double hits_sum
    Py_ssize_t hits_count
    double batch_loss  # of the last batch
    double batch_hits

cdef struct Net:
    # A program bound to arrays: all that a run reads and writes.
    int n_stages
    Stage *stages
    bint slim  # `slim_step` does it all
    bint records  # figures are recorded
    bint stops  # before a step's update, if its loss is not finite
    Py_ssize_t batch  # rows of a step, at most
    Py_ssize_t n_samples
    Py_ssize_t n_in
    Py_ssize_t n_out
    const void *X  # (n_samples, n_in)
    const Py_ssize_t *order  # (epochs, n_samples): which sample comes when; or NULL
    Loss loss
    bint combined  # the loss's gradient is taken together with that of the last activation
    const int32_t *labels  # (n_samples,), for the categorical loss
    const void *targets  # (n_samples, n_out), for the others
    const double *wanted  # (n_samples, n_wanted): what the accuracy compares with; NULL: the labels
    Py_ssize_t n_wanted
    bint threshold  # predictions are whether an output is above 1/2
    bint classes  # predictions are the first largest column
    double precision  # how near a prediction must come; below 0: it must be equal
    Rule rule
    double settings[MOST_SETTINGS]
    uint64_t iterations  # steps done before this run
    Py_ssize_t step_of_epoch  # in which the run begins
    uint64_t first_forwards  # training forwards before this run, since the stages were bound
    void *gathered  # (batch, n_in), for samples in an order
    int32_t *batch_labels
    void *batch_targets
    double *batch_wanted
    void *sample_losses  # (batch,)
    void *slim_space
    char *scratch  # private_size bytes for each thread
    Py_ssize_t scratch_size  # of which these are for kernels, and what is left for `forward`
    Py_ssize_t private_size
    Progress *progress

ctypedef Py_ssize_t (*train_t)(const Net *, Py_ssize_t, Py_ssize_t, int) noexcept nogil
ctypedef void (*run_t)(const Net *, Py_ssize_t, Py_ssize_t, int) noexcept nogil
ctypedef void (*predict_t)(const Net *, const void *, void *, Py_ssize_t, char *) noexcept nogil
ctypedef Py_ssize_t (*space_t)(Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef bint (*fits_t)(const Net *) noexcept nogil
ctypedef Py_ssize_t (*slim_space_t)(const Net *, Py_ssize_t) noexcept nogil
ctypedef Py_ssize_t (*net_space_t)(const Net *) noexcept nogil

ctypedef void (*vector_function_t)(int, const void *, void *, Py_ssize_t) noexcept nogil

cdef enum:  # the functions of vectors that tests can call one by one
    EXP, LOG, EXPM1, LOG1P, SOFTPLUS, TANH, ERF, NORMAL_CDF, NORMAL_PDF

cdef enum:
    N_LAYOUTS = 5

cdef inline void fill_layouts(Py_ssize_t *layouts) noexcept nogil:
    """Write the sizes of all structs that the binding layer and the kernels share: modules of two builds differ."""
    layouts[0], layouts[1], layouts[2] = sizeof(Kernels), sizeof(Net), sizeof(Stage)
    layouts[3], layouts[4] = sizeof(Progress), sizeof(Meeting)

cdef struct Kernels:
    Py_ssize_t layouts[N_LAYOUTS]  # first of all: what `fill_layouts` writes
    Py_ssize_t product_scratch  # bytes
    dense_forward_t dense_forward
    dense_backward_weights_t dense_backward_weights
    dense_backward_biases_t dense_backward_biases
    dense_backward_inputs_t dense_backward_inputs
    regularization_loss_t regularization_loss
    total_t total
    not_finite_t not_finite
    dropout_mask_t dropout_mask
    map_two_t dropout_apply
    vector_function_t vector_function
    map_one_t relu_forward
    map_two_t relu_backward
    map_one_t sigmoid_forward
    map_two_t sigmoid_backward
    softmax_forward_t softmax_forward
    rows_two_t softmax_backward
    map_one_t linear_backward
    softmax_crossentropy_t softmax_crossentropy
    labels_t categorical_crossentropy_forward
    labels_t categorical_crossentropy_backward
    labels_t softmax_crossentropy_backward
    rows_two_t binary_crossentropy_forward
    map_two_t binary_crossentropy_backward
    map_two_t sigmoid_binary_crossentropy_backward
    rows_two_t mean_squared_error_forward
    map_two_t mean_squared_error_backward
    rows_two_t mean_absolute_error_forward
    map_two_t mean_absolute_error_backward
    argmax_t argmax
    near_count_t near_count
    sgd_update_t sgd_update
    sgd_momentum_update_t sgd_momentum_update
    adagrad_update_t adagrad_update
    rmsprop_update_t rmsprop_update
    adam_update_t adam_update
    space_t tiles_space
    space_t panels_space
    space_t packed_space
    space_t gradient_space
    net_space_t forward_space
    train_t train
    run_t evaluate
    predict_t predict
    fits_t fits_slim
    slim_space_t slim_space
