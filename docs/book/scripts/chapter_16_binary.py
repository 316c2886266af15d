"""Chapter 16: two classes and one output."""

import numpy as np
import nnfs
from nnx import (
    Activation_ReLU,
    Activation_Sigmoid,
    Layer_Dense,
    Loss_BinaryCrossentropy,
    Optimizer_Adam,
    spiral_data,
)

nnfs.init()

X, y = spiral_data(samples=100, classes=2)
X_test, y_test = spiral_data(samples=100, classes=2)
y, y_test = y.reshape(-1, 1), y_test.reshape(-1, 1)  # one output, so one column
layers = [
    Layer_Dense(2, 64, weight_regularizer_l2=5e-4, bias_regularizer_l2=5e-4),
    Activation_ReLU(),
    Layer_Dense(64, 1),
    Activation_Sigmoid(),
]
loss_function = Loss_BinaryCrossentropy()
optimizer = Optimizer_Adam(learning_rate=0.01, decay=5e-7)


def forward(points):
    values = points
    for layer in layers:
        layer.forward(values)
        values = layer.output
    return values


for epoch in range(1501):
    output = forward(X)
    data_loss = loss_function.calculate(output, y)
    penalty = loss_function.regularization_loss(layers[0]) + loss_function.regularization_loss(layers[2])
    if epoch % 500 == 0:
        accuracy = np.mean((output > 0.5) == y)
        print(f"epoch {epoch}: accuracy {accuracy:.1f}, data loss {data_loss:.1f}, penalty {penalty:.1f}")

    loss_function.backward(output, y)
    gradient = loss_function.dinputs
    for layer in reversed(layers):
        layer.backward(gradient)
        gradient = layer.dinputs
    optimizer.pre_update_params()
    optimizer.update_params(layers[0])
    optimizer.update_params(layers[2])
    optimizer.post_update_params()

test_output = forward(X_test)
predictions = layers[3].predictions(test_output)  # 1 where the output is above 0.5
print(f"accuracy on new points: {np.mean(predictions == y_test):.1f}")
assert accuracy > 0.8
