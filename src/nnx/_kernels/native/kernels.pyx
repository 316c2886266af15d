"""The compiled kernels of one variant and one float type: this file is compiled once for each, with other flags.

It holds no Python function. The binding layer (`_native.pyx`) takes the table of addresses and checks what it passes.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.float cimport DBL_EPSILON, DBL_MIN, FLT_EPSILON, FLT_MIN
from libc.math cimport INFINITY, exp, fabs, pow, rint, sqrt
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset

from nnx._kernels.native.kernels cimport *
from nnx._kernels.native.simd cimport *

cdef double NO_SETTINGS[MAX_SETTINGS]  # zeros, for formulas without settings
cdef Kernels addresses

include "elementwise/loops.pxi"
include "elementwise/rounding.pxi"
include "elementwise/softmax.pxi"
include "elementwise/activations.pxi"
include "elementwise/prelu.pxi"
include "elementwise/losses.pxi"
include "elementwise/optimizers.pxi"
include "elementwise/dropout.pxi"
include "elementwise/noise.pxi"
include "elementwise/norms.pxi"
include "elementwise/embedding.pxi"
include "elementwise/encodings.pxi"
include "elementwise/splines.pxi"
include "elementwise/periodic.pxi"
include "elementwise/members.pxi"
include "elementwise/counts.pxi"
include "products/tiles.pxi"
include "products/few_columns.pxi"
include "products/dense.pxi"
include "products/peak.pxi"
include "plans/weight_gradients.pxi"
include "plans/lines_forward.pxi"
include "plans/steps.pxi"
include "plans/partial_gradients.pxi"
include "plans/clipping.pxi"
include "plans/batched_lanes.pxi"
include "plans/runs.pxi"
include "plans/lbfgs.pxi"
include "plans/together.pxi"


cdef inline vec normal_cdf(vec x) noexcept nogil:
    cdef vec cdf, pdf
    v_normal(x, &cdf, &pdf)
    return cdf


cdef inline vec normal_pdf(vec x) noexcept nogil:
    cdef vec cdf, pdf
    v_normal(x, &cdf, &pdf)
    return pdf


cdef inline void map_parts(formula_of_one formula, const real_t *x, real_t *result, Py_ssize_t n) noexcept nogil:
    """`map_one` with the formula in one place: half as much code. It is slower, but only tests use it."""
    cdef Py_ssize_t i = 0
    cdef int count
    while i < n:
        count = <int> min(<Py_ssize_t> LANES, n - i)
        v_store_part(result + i, formula(v_load_part(x + i, count)), count)
        i += LANES


cdef void vector_function(int which, const real_t *x, real_t *result, Py_ssize_t n) noexcept nogil:
    """``result := f(x)``, one of the functions of simd.h; (n,) in, (n,) out, which may be x. For tests."""
    if which == EXP:
        map_parts(v_exp, x, result, n)
    elif which == EXP_NEAR:
        map_parts(v_exp_near, x, result, n)
    elif which == LOG:
        map_parts(v_log, x, result, n)
    elif which == EXPM1:
        map_parts(v_expm1, x, result, n)
    elif which == LOG1P:
        map_parts(v_log1p, x, result, n)
    elif which == SOFTPLUS:
        map_parts(v_softplus, x, result, n)
    elif which == TANH:
        map_parts(v_tanh, x, result, n)
    elif which == ERF:
        map_parts(v_erf, x, result, n)
    elif which == COSINE_OF_TURNS:
        map_parts(v_cosine_of_turns, x, result, n)
    elif which == SINE_OF_TURNS:
        map_parts(v_sine_of_turns, x, result, n)
    elif which == NORMAL_CDF:
        map_parts(normal_cdf, x, result, n)
    elif which == NORMAL_PDF:
        map_parts(normal_pdf, x, result, n)


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
addresses.round_bfloat16 = <map_one_t> round_bfloat16
addresses.multiply = <map_two_t> multiply
addresses.vector_function = <vector_function_t> vector_function
addresses.activations, addresses.n_activations = activations, n_activations
addresses.prelu_forward = <prelu_forward_t> prelu_forward
addresses.prelu_backward_inputs = <prelu_backward_inputs_t> prelu_backward_inputs
addresses.prelu_backward_weights = <prelu_backward_weights_t> prelu_backward_weights
addresses.batch_norm_statistics = <batch_norm_statistics_t> batch_norm_statistics
addresses.batch_norm_scales = <batch_norm_scales_t> batch_norm_scales
addresses.batch_norm_forward = <batch_norm_forward_t> batch_norm_forward
addresses.batch_norm_backward_weights = <batch_norm_backward_weights_t> batch_norm_backward_weights
addresses.batch_norm_shares = <batch_norm_shares_t> batch_norm_shares
addresses.batch_norm_backward_inputs = <batch_norm_backward_inputs_t> batch_norm_backward_inputs
addresses.fold_norm = <fold_norm_t> fold_norm
addresses.layer_norm_forward = <layer_norm_forward_t> layer_norm_forward
addresses.layer_norm_backward_inputs = <layer_norm_backward_inputs_t> layer_norm_backward_inputs
addresses.layer_norm_backward_weights = <layer_norm_backward_weights_t> layer_norm_backward_weights
addresses.multiply_columns = <columns_t> multiply_columns
addresses.scale_backward_weights = <columns_t> scale_backward_weights
addresses.embedding_misfit = <embedding_misfit_t> embedding_misfit
addresses.embedding_forward = <embedding_forward_t> embedding_forward
addresses.embedding_backward_weights = <embedding_backward_weights_t> embedding_backward_weights
addresses.embedding_backward_inputs = <embedding_backward_inputs_t> embedding_backward_inputs
addresses.piecewise_linear_forward = <encoding_forward_t> piecewise_linear_forward
addresses.piecewise_linear_backward = <encoding_backward_t> piecewise_linear_backward
addresses.thermometer_forward = <encoding_forward_t> thermometer_forward
addresses.thermometer_backward = <encoding_backward_t> thermometer_backward
addresses.combinations_forward = <encoding_forward_t> combinations_forward
addresses.combinations_backward = <encoding_backward_t> combinations_backward
addresses.spline_places = <spline_places_t> spline_places
addresses.spline_sums = <spline_sums_t> spline_sums
addresses.spline_add = <spline_add_t> spline_add
addresses.spline_gradients = <spline_gradients_t> spline_gradients
addresses.spline_slopes = <spline_slopes_t> spline_slopes
addresses.periodic_forward = <periodic_forward_t> periodic_forward
addresses.periodic_backward = <periodic_backward_t> periodic_backward
addresses.gaussian_noise = <gaussian_noise_t> gaussian_noise
addresses.losses, addresses.n_losses = losses, n_losses
addresses.rules, addresses.n_rules = rules, n_rules
addresses.softmax_crossentropy = <softmax_crossentropy_t> softmax_crossentropy
addresses.argmax = <argmax_t> argmax
addresses.near_count = <near_count_t> near_count
addresses.update_by_rule = <update_t> update_by_rule
addresses.clip_gradients = <scale_t> clip_gradients
addresses.scale_gradients = <scale_t> scale_gradients
addresses.average_update = <scale_t> average_update
addresses.tiles_space = <space_t> tiles_space
addresses.panels_space = <space_t> panels_space
addresses.packed_space = <space_t> packed_space
addresses.pack_rows_of_weights = <pack_rows_t> pack_rows_of_weights
addresses.gradient_space = <space_t> gradient_space
addresses.forward_space = <net_space_t> forward_space
addresses.train = <train_t> train
addresses.do_part = <part_t> do_part
addresses.judge = <judge_t> judge
addresses.add_judged = <add_judged_t> add_judged
addresses.predict = <predict_t> predict
addresses.fits_lanes = <fits_t> fits_lanes
addresses.lanes_space = <lanes_space_t> lanes_space
addresses.multiply_adds = <turns_t> multiply_adds
addresses.lay_out_partials = <lay_out_t> lay_out_partials
addresses.minimize = <minimize_t> minimize
addresses.lanes = LANES
addresses.together_space = <net_space_t> together_space
addresses.train_together = <train_together_t> train_together

table = PyCapsule_New(&addresses, "nnx._kernels", NULL)
