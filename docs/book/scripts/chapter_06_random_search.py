"""Chapter 6: weights changed at random, and kept where that helps."""

import numpy as np
import nnfs
from nnx import Activation_ReLU, Activation_Softmax, Layer_Dense, Loss_CategoricalCrossentropy, vertical_data

nnfs.init()

X, y = vertical_data(samples=100, classes=3)
dense1, relu, dense2, softmax = Layer_Dense(2, 3), Activation_ReLU(), Layer_Dense(3, 3), Activation_Softmax()
loss_function = Loss_CategoricalCrossentropy()
lowest, n_better = np.inf, 0

for trial in range(3000):
    before = [(dense.weights.copy(), dense.biases.copy()) for dense in (dense1, dense2)]
    dense1.weights += 0.05 * np.random.randn(2, 3)
    dense1.biases += 0.05 * np.random.randn(1, 3)
    dense2.weights = dense2.weights + 0.05 * np.random.randn(3, 3)
    dense2.biases = dense2.biases + 0.05 * np.random.randn(1, 3)

    dense1.forward(X)
    relu.forward(dense1.output)
    dense2.forward(relu.output)
    softmax.forward(dense2.output)
    loss = loss_function.calculate(softmax.output, y)
    if loss < lowest:
        lowest, n_better = loss, n_better + 1
        accuracy = np.mean(np.argmax(softmax.output, axis=1) == y)
    else:  # go back
        (dense1.weights, dense1.biases), (dense2.weights, dense2.biases) = before
    if trial in (0, 99, 999, 2999):
        print(f"after {trial + 1} trials: loss {lowest:.1f}, accuracy {accuracy:.1f}")

print("fewer than 1 trial in 5 was better:", n_better < 600)
assert lowest < 0.6
assert dense1.weights.dtype == np.float32
