import numpy as np
import nnfs
from nnx import Layer_Dense, spiral_data

nnfs.init()

X, y = spiral_data(samples=100, classes=3)
dense1 = Layer_Dense(2, 3)
dense1.forward(X)
print(dense1.output[:5])

assert dense1.output.shape == (300, 3)
assert (dense1.output[0] == 0).all()
