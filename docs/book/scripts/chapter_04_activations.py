"""Chapter 4: what ReLU and softmax do to numbers."""

import numpy as np
import nnfs
from nnx import Activation_ReLU, Activation_Softmax, Layer_Dense, spiral_data

nnfs.init()

relu = Activation_ReLU()
relu.forward(np.array([[-2.0, -0.5, 0.0, 0.5, 2.0]]))
print("ReLU:", relu.output)

softmax = Activation_Softmax()
softmax.forward(np.array([[1.0, 2.0, 3.0], [1001.0, 1002.0, 1003.0]]))
print("softmax:")
print(softmax.output.round(2))

X, y = spiral_data(samples=100, classes=3)
dense1 = Layer_Dense(2, 3)
dense2 = Layer_Dense(3, 3)
dense1.forward(X)
relu.forward(dense1.output)
dense2.forward(relu.output)
softmax.forward(dense2.output)
print("an untrained network, first and last point:")
print(softmax.output[[0, -1]].round(3))

assert (relu.output >= 0).all()
assert np.allclose(softmax.output.sum(axis=1), 1)
