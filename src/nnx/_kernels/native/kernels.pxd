"""What the compiled kernels and their door agree on: one table of addresses for each variant and float type.

Numbers are passed as ``void *`` here, because the door serves both float types; they are described at each kernel.
"""

from libc.stdint cimport int32_t, uint64_t

ctypedef void (*map_one_t)(const void *, void *, Py_ssize_t) noexcept nogil
ctypedef void (*map_two_t)(const void *, const void *, void *, Py_ssize_t) noexcept nogil
ctypedef void (*rows_two_t)(const void *, const void *, void *, Py_ssize_t, Py_ssize_t) noexcept nogil
ctypedef void (*labels_t)(const void *, const int32_t *, void *, Py_ssize_t, Py_ssize_t) noexcept nogil

ctypedef void (*dense_forward_t)(
    const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, bint, void *
) noexcept nogil
ctypedef void (*dense_backward_weights_t)(
    const void *, const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, double, double, void *
) noexcept nogil
ctypedef void (*dense_backward_biases_t)(
    const void *, const void *, void *, Py_ssize_t, Py_ssize_t, double, double
) noexcept nogil
ctypedef void (*dense_backward_inputs_t)(
    const void *, const void *, void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, void *
) noexcept nogil
ctypedef double (*regularization_loss_t)(const void *, Py_ssize_t, double, double) noexcept nogil
ctypedef double (*total_t)(const void *, Py_ssize_t) noexcept nogil
ctypedef void (*dropout_mask_t)(void *, Py_ssize_t, Py_ssize_t, double, uint64_t, uint64_t) noexcept nogil
ctypedef void (*softmax_forward_t)(const void *, void *, Py_ssize_t, Py_ssize_t, void *) noexcept nogil
ctypedef Py_ssize_t (*softmax_crossentropy_t)(
    const void *, const int32_t *, void *, void *, double *, Py_ssize_t, Py_ssize_t, void *
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

cdef struct Kernels:
    Py_ssize_t product_scratch  # bytes
    dense_forward_t dense_forward
    dense_backward_weights_t dense_backward_weights
    dense_backward_biases_t dense_backward_biases
    dense_backward_inputs_t dense_backward_inputs
    regularization_loss_t regularization_loss
    total_t total
    dropout_mask_t dropout_mask
    map_two_t dropout_apply
    map_one_t exponential
    map_one_t logarithm
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
