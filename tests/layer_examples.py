"""An example of each layer that needs arguments, for five columns."""

from __future__ import annotations

import numpy as np

import nnx

EDGES = [[-1.0, 0.0, 1.5], [-2.0, 0.25]]

#: An example of each layer that needs arguments, for five columns.
LAYERS = {
    "Layer_Dense": lambda: nnx.Layer_Dense(5, 4, weight_initializer="he_normal", bias_initializer=0.5),
    "Layer_BatchNorm": lambda: batch_norm(),
    "Layer_LayerNorm": lambda: nnx.Layer_LayerNorm(5),
    "Layer_Scale": lambda: nnx.Layer_Scale(5, 0.3),
    "Layer_Embedding": lambda: nnx.Layer_Embedding(5, [1, 3], [4, 3], 2, weight_initializer="he_normal"),
    "Layer_PiecewiseLinear": lambda: nnx.Layer_PiecewiseLinear(5, [1, 4], EDGES),
    "Layer_Thermometer": lambda: nnx.Layer_Thermometer(5, [1, 4], EDGES),
    "Layer_Spline": lambda: nnx.Layer_Spline(5, 3, [1, 4], EDGES, weight_initializer="he_normal"),
    "Layer_Periodic": lambda: nnx.Layer_Periodic(5, [0, 2], frequencies=3, width=2, scale=1.0),
    "Layer_Dropout": lambda: nnx.Layer_Dropout(0.5),
    "Layer_GaussianNoise": lambda: nnx.Layer_GaussianNoise(0.5),
    "Layer_Residual": lambda: nnx.Layer_Residual([nnx.Layer_Dense(5, 5), nnx.Layer_Residual([nnx.Activation_Tanh()])]),
    "Activation_PReLU": lambda: nnx.Activation_PReLU(5, slope=0.1),
}


def batch_norm():
    layer = nnx.Layer_BatchNorm(5)
    for name in ("weights", "biases", "running_mean", "running_variance"):
        setattr(layer, name, np.random.uniform(0.5, 1.5, (1, 5)).astype(layer.dtype))
    return layer
