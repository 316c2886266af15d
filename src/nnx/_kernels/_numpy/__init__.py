"""The kernels in NumPy. They define each numeric operation, and are the backend without compiled kernels.

Their compiled twins are in `native/`. `_native.pyx` checks the arguments of those.

A kernel reads its inputs and writes its outputs, which its caller has allocated. Both are C-ordered and of one dtype,
float32 or float64. Labels and classes are ``intp``, and a kernel's docstring names other exceptions. The order of
arguments is: inputs, outputs, hyperparameters. Outputs overlap nothing, unless the docstring says so. Activations,
losses and optimizer rules are called by name.

Kernels check nothing, because the classes that call them do. They never warn, whatever ``np.errstate`` says: NaN and
infinity pass through. They never call ``np.dot``, ``np.zeros`` or ``np.eye``, which ``nnfs.init()`` replaces.

Shapes: n samples, k inputs, m neurons (or outputs, or classes).
"""

from nnx._kernels._numpy.activations import (
    ACTIVATIONS,
    activation_backward,
    activation_forward,
    prelu_backward_inputs,
    prelu_backward_weights,
    prelu_forward,
)
from nnx._kernels._numpy.calls import CALLS as CALLS
from nnx._kernels._numpy.calls import call_activation_backward as call_activation_backward
from nnx._kernels._numpy.calls import call_activation_forward as call_activation_forward
from nnx._kernels._numpy.calls import call_dense_backward as call_dense_backward
from nnx._kernels._numpy.calls import call_dense_forward as call_dense_forward
from nnx._kernels._numpy.calls import call_optimizer_update as call_optimizer_update
from nnx._kernels._numpy.calls import call_softmax_crossentropy as call_softmax_crossentropy
from nnx._kernels._numpy.calls import call_softmax_crossentropy_backward as call_softmax_crossentropy_backward
from nnx._kernels._numpy.counts import argmax, bad_label, equal_count, near_count
from nnx._kernels._numpy.embedding import (
    embedding_backward_inputs,
    embedding_backward_weights,
    embedding_forward,
    embedding_misfit,
)
from nnx._kernels._numpy.encodings import (
    combinations_backward,
    combinations_forward,
    piecewise_linear_backward,
    piecewise_linear_forward,
    thermometer_backward,
    thermometer_forward,
)
from nnx._kernels._numpy.layers import (
    dense_backward_biases,
    dense_backward_inputs,
    dense_backward_weights,
    dense_forward,
    dense_relu_forward,
    dropout_apply,
    dropout_mask,
    gaussian_noise,
    regularization_loss,
    round_bfloat16,
)
from nnx._kernels._numpy.losses import LOSSES, loss_backward, loss_forward, pair_backward, softmax_crossentropy, total
from nnx._kernels._numpy.norms import (
    batch_norm_backward_inputs,
    batch_norm_backward_weights,
    batch_norm_forward,
    batch_norm_statistics,
    layer_norm_backward_inputs,
    layer_norm_backward_weights,
    layer_norm_forward,
    scale_backward_inputs,
    scale_backward_weights,
    scale_forward,
)
from nnx._kernels._numpy.optimizers import RULES, average_update, clip_gradients, optimizer_update, scale_gradients
from nnx._kernels._numpy.periodic import periodic_backward_inputs, periodic_backward_weights, periodic_forward
from nnx._kernels._numpy.splines import spline_backward_inputs, spline_backward_weights, spline_forward, spline_places

#: The kernels, which every backend must have.
__all__ = [
    "activation_backward",
    "activation_forward",
    "argmax",
    "average_update",
    "bad_label",
    "batch_norm_backward_inputs",
    "batch_norm_backward_weights",
    "batch_norm_forward",
    "batch_norm_statistics",
    "clip_gradients",
    "combinations_backward",
    "combinations_forward",
    "dense_backward_biases",
    "dense_backward_inputs",
    "dense_backward_weights",
    "dense_forward",
    "dense_relu_forward",
    "dropout_apply",
    "dropout_mask",
    "embedding_backward_inputs",
    "embedding_backward_weights",
    "embedding_forward",
    "embedding_misfit",
    "equal_count",
    "gaussian_noise",
    "layer_norm_backward_inputs",
    "layer_norm_backward_weights",
    "layer_norm_forward",
    "loss_backward",
    "loss_forward",
    "near_count",
    "optimizer_update",
    "pair_backward",
    "periodic_backward_inputs",
    "periodic_backward_weights",
    "periodic_forward",
    "piecewise_linear_backward",
    "piecewise_linear_forward",
    "prelu_backward_inputs",
    "prelu_backward_weights",
    "prelu_forward",
    "regularization_loss",
    "round_bfloat16",
    "scale_backward_inputs",
    "scale_backward_weights",
    "scale_forward",
    "scale_gradients",
    "softmax_crossentropy",
    "spline_backward_inputs",
    "spline_backward_weights",
    "spline_forward",
    "spline_places",
    "thermometer_backward",
    "thermometer_forward",
    "total",
]


def matrix_units() -> tuple[bool, str, bool]:
    """Return whether matrix units do bfloat16 products, their name or the reason, and if the system refuses them."""
    return False, "the backend numpy has no matrix units", False


def _formulas() -> dict[str, dict[str, dict[str, object]]]:
    """Return the rows of the tables, by kind and name. For tests."""
    return {
        "activation": {name: {"reads": row.reads} for name, row in ACTIVATIONS.items()},
        "loss": {name: {"pair": row.pair} for name, row in LOSSES.items()},
        "optimizer": {name: {"states": row.n_states} for name, row in RULES.items()},
    }
