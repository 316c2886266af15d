"""Chapter 10: the same network, trained by five optimizers."""

import numpy as np
import nnfs
from nnx import (
    Activation_ReLU,
    Activation_Softmax_Loss_CategoricalCrossentropy,
    Layer_Dense,
    Optimizer_Adagrad,
    Optimizer_Adam,
    Optimizer_RMSprop,
    Optimizer_SGD,
    spiral_data,
)

nnfs.init()

X, y = spiral_data(samples=100, classes=3)


def accuracy_and_loss(optimizer, epochs):
    """Train a new network on all points at once, epochs times."""
    dense1, relu, dense2 = Layer_Dense(2, 64), Activation_ReLU(), Layer_Dense(64, 3)
    loss_activation = Activation_Softmax_Loss_CategoricalCrossentropy()
    for epoch in range(epochs):
        dense1.forward(X)
        relu.forward(dense1.output)
        dense2.forward(relu.output)
        loss = loss_activation.forward(dense2.output, y)

        loss_activation.backward(loss_activation.output, y)
        dense2.backward(loss_activation.dinputs)
        relu.backward(dense2.dinputs)
        dense1.backward(relu.dinputs)

        optimizer.pre_update_params()
        optimizer.update_params(dense1)
        optimizer.update_params(dense2)
        optimizer.post_update_params()
    return np.mean(np.argmax(loss_activation.output, axis=1) == y), loss


for name, optimizer in {
    "SGD": Optimizer_SGD(),
    "SGD, momentum": Optimizer_SGD(learning_rate=0.2, decay=1e-4, momentum=0.9),
    "Adagrad": Optimizer_Adagrad(learning_rate=0.2, decay=1e-4),
    "RMSprop": Optimizer_RMSprop(learning_rate=0.01, decay=1e-3, rho=0.99),
    "Adam": Optimizer_Adam(learning_rate=0.05, decay=5e-7),
}.items():
    accuracy, loss = accuracy_and_loss(optimizer, 1501)
    print(f"{name}: accuracy {accuracy:.1f}, loss {loss:.1f}, rate {optimizer.current_learning_rate:.3f}")
    assert loss < 1.09, name

assert accuracy > 0.8
