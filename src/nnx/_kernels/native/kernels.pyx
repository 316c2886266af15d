"""The compiled kernels of one variant and one float type: this file is compiled once for each, with other flags.

It holds no Python function. The door (`_native.pyx`) takes the table of addresses and checks what it passes.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.float cimport DBL_MIN, FLT_MIN
from libc.math cimport INFINITY, fabs, pow, rint, sqrt
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from nnx._kernels.native.kernels cimport *
from nnx._kernels.native.simd cimport *

include "elementwise.pxi"
include "products.pxi"
include "narrow.pxi"
include "dense.pxi"
include "classes.pxi"
include "optimizers.pxi"
include "dropout.pxi"
include "strips.pxi"
include "steps.pxi"
include "slim.pxi"
include "runs.pxi"


cdef inline vec normal_cdf(vec x) noexcept nogil:
    cdef vec cdf, pdf
    v_normal(x, &cdf, &pdf)
    return cdf


cdef inline vec normal_pdf(vec x) noexcept nogil:
    cdef vec cdf, pdf
    v_normal(x, &cdf, &pdf)
    return pdf


cdef void vector_function(int which, const real_t *x, real_t *result, Py_ssize_t n) noexcept nogil:
    """``result := f(x)``, one of the functions of simd.h; (n,) in, (n,) out, which may be x. For tests."""
    if which == EXP:
        map_one(v_exp, x, result, n)
    elif which == LOG:
        map_one(v_log, x, result, n)
    elif which == EXPM1:
        map_one(v_expm1, x, result, n)
    elif which == LOG1P:
        map_one(v_log1p, x, result, n)
    elif which == SOFTPLUS:
        map_one(v_softplus, x, result, n)
    elif which == TANH:
        map_one(v_tanh, x, result, n)
    elif which == ERF:
        map_one(v_erf, x, result, n)
    elif which == NORMAL_CDF:
        map_one(normal_cdf, x, result, n)
    elif which == NORMAL_PDF:
        map_one(normal_pdf, x, result, n)


cdef Kernels addresses
fill_layouts(addresses.layouts)
addresses.product_scratch = PRODUCT_SCRATCH
addresses.dense_forward = <dense_forward_t> dense_forward
addresses.dense_backward_weights = <dense_backward_weights_t> dense_backward_weights
addresses.dense_backward_biases = <dense_backward_biases_t> dense_backward_biases
addresses.dense_backward_inputs = <dense_backward_inputs_t> dense_backward_inputs
addresses.regularization_loss = <regularization_loss_t> regularization_loss
addresses.total = <total_t> total
addresses.not_finite = <not_finite_t> not_finite
addresses.dropout_mask = <dropout_mask_t> dropout_mask
addresses.dropout_apply = <map_two_t> dropout_apply
addresses.vector_function = <vector_function_t> vector_function
addresses.relu_forward = <map_one_t> relu_forward
addresses.relu_backward = <map_two_t> relu_backward
addresses.sigmoid_forward = <map_one_t> sigmoid_forward
addresses.sigmoid_backward = <map_two_t> sigmoid_backward
addresses.softmax_forward = <softmax_forward_t> softmax_forward
addresses.softmax_backward = <rows_two_t> softmax_backward
addresses.linear_backward = <map_one_t> linear_backward
addresses.softmax_crossentropy = <softmax_crossentropy_t> softmax_crossentropy
addresses.categorical_crossentropy_forward = <labels_t> categorical_crossentropy_forward
addresses.categorical_crossentropy_backward = <labels_t> categorical_crossentropy_backward
addresses.softmax_crossentropy_backward = <labels_t> softmax_crossentropy_backward
addresses.binary_crossentropy_forward = <rows_two_t> binary_crossentropy_forward
addresses.binary_crossentropy_backward = <map_two_t> binary_crossentropy_backward
addresses.sigmoid_binary_crossentropy_backward = <map_two_t> sigmoid_binary_crossentropy_backward
addresses.mean_squared_error_forward = <rows_two_t> mean_squared_error_forward
addresses.mean_squared_error_backward = <map_two_t> mean_squared_error_backward
addresses.mean_absolute_error_forward = <rows_two_t> mean_absolute_error_forward
addresses.mean_absolute_error_backward = <map_two_t> mean_absolute_error_backward
addresses.argmax = <argmax_t> argmax
addresses.near_count = <near_count_t> near_count
addresses.sgd_update = <sgd_update_t> sgd_update
addresses.sgd_momentum_update = <sgd_momentum_update_t> sgd_momentum_update
addresses.adagrad_update = <adagrad_update_t> adagrad_update
addresses.rmsprop_update = <rmsprop_update_t> rmsprop_update
addresses.adam_update = <adam_update_t> adam_update
addresses.tiles_space = <space_t> tiles_space
addresses.panels_space = <space_t> panels_space
addresses.packed_space = <space_t> packed_space
addresses.gradient_space = <space_t> gradient_space
addresses.forward_space = <net_space_t> forward_space
addresses.train = <train_t> train
addresses.evaluate = <run_t> evaluate
addresses.predict = <predict_t> predict
addresses.fits_slim = <fits_t> fits_slim
addresses.slim_space = <slim_space_t> slim_space

table = PyCapsule_New(&addresses, "nnx._kernels", NULL)
