"""Chapter 5: how wrong probabilities are."""

import numpy as np
import nnfs
from nnx import Activation_ReLU, Activation_Softmax, Layer_Dense, Loss_CategoricalCrossentropy, spiral_data

nnfs.init()

loss_function = Loss_CategoricalCrossentropy()
probabilities = np.array([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.1, 0.1, 0.8]])
labels = np.array([0, 1, 1])
print("loss of each sample:", loss_function.forward(probabilities, labels).round(2))
mean = loss_function.calculate(probabilities, labels)
print("their mean:", mean.round(2))

one_hot = np.eye(3)[labels]
print("one-hot labels give the same:", loss_function.calculate(probabilities, one_hot) == mean)

X, y = spiral_data(samples=100, classes=3)
layers = [Layer_Dense(2, 3), Activation_ReLU(), Layer_Dense(3, 3), Activation_Softmax()]
values = X
for layer in layers:
    layer.forward(values)
    values = layer.output
loss = loss_function.calculate(values, y)
accuracy = np.mean(np.argmax(values, axis=1) == y)
print(f"an untrained network: loss {loss:.3f}, accuracy {accuracy:.2f}")

assert abs(loss - np.log(3)) < 1e-3
assert 0.2 < accuracy < 0.5
