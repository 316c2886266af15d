"""Chapter 3: a dense layer, and the same product by hand."""

import numpy as np
import nnfs
from nnx import Layer_Dense, spiral_data

nnfs.init()

X, y = spiral_data(samples=100, classes=3)
dense1 = Layer_Dense(2, 3)
dense1.forward(X)
print("inputs", X.shape, "weights", dense1.weights.shape, "biases", dense1.biases.shape)
print("output", dense1.output.shape)
print(dense1.output[:3])

by_hand = X @ dense1.weights + dense1.biases
print("the same by hand:", np.allclose(dense1.output, by_hand, atol=1e-6))

dense2 = Layer_Dense(3, 5)
dense2.forward(dense1.output)
print("output of the second layer", dense2.output.shape)

assert dense2.output.shape == (300, 5)
assert (dense1.output[0] == 0).all()
