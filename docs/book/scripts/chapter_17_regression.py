"""Chapter 17: numbers in place of classes."""

import numpy as np
import nnfs
from nnx import Activation_Linear, Activation_ReLU, Layer_Dense, Loss_MeanSquaredError, Optimizer_Adam, sine_data

nnfs.init()

X, y = sine_data()
dense1, dense2, dense3 = Layer_Dense(1, 64), Layer_Dense(64, 64), Layer_Dense(64, 1)
layers = [dense1, Activation_ReLU(), dense2, Activation_ReLU(), dense3, Activation_Linear()]
loss_function = Loss_MeanSquaredError()
optimizer = Optimizer_Adam(learning_rate=0.005, decay=1e-3)
precision = np.std(y) / 250

for dense in (dense1, dense2, dense3):
    dense.weights *= 10  # initial weights of size 0.01 are too small for three layers

for epoch in range(801):
    values = X
    for layer in layers:
        layer.forward(values)
        values = layer.output
    loss = loss_function.calculate(values, y)
    if epoch in (0, 100, 200, 400, 800):
        print(f"epoch {epoch}: loss {loss:.2f}, largest error {np.abs(values - y).max():.1f}")

    loss_function.backward(values, y)
    gradient = loss_function.dinputs
    for layer in reversed(layers):
        layer.backward(gradient)
        gradient = layer.dinputs
    optimizer.pre_update_params()
    for dense in (dense1, dense2, dense3):
        optimizer.update_params(dense)
    optimizer.post_update_params()

accuracy = np.mean(np.abs(values - y) < precision)  # an output counts as right if it is nearer than this
print(f"precision {precision:.4f}; some outputs are right, some are not: {0 < accuracy < 1}")
assert loss < 0.01
