"""Chapter 14: a penalty on large weights, against learning by heart."""

import numpy as np
import nnfs
from nnx import (
    Activation_ReLU,
    Activation_Softmax_Loss_CategoricalCrossentropy,
    Layer_Dense,
    Optimizer_Adam,
    spiral_data,
)

nnfs.init()

X, y = spiral_data(samples=50, classes=3)
X_test, y_test = spiral_data(samples=200, classes=3)


def train(strength):
    """Return the data loss of training and test points, and the mean size of the weights."""
    np.random.seed(1)
    dense1 = Layer_Dense(2, 128, weight_regularizer_l2=strength, bias_regularizer_l2=strength)
    relu = Activation_ReLU()
    dense2 = Layer_Dense(128, 3, weight_regularizer_l2=strength, bias_regularizer_l2=strength)
    loss_activation = Activation_Softmax_Loss_CategoricalCrossentropy()
    optimizer = Optimizer_Adam(learning_rate=0.03)

    def data_loss(points, labels):
        dense1.forward(points)
        relu.forward(dense1.output)
        dense2.forward(relu.output)
        return loss_activation.forward(dense2.output, labels)

    for epoch in range(1500):
        loss = data_loss(X, y)
        penalty = sum(loss_activation.loss.regularization_loss(layer) for layer in (dense1, dense2))
        loss_activation.backward(loss_activation.output, y)
        dense2.backward(loss_activation.dinputs)
        relu.backward(dense2.dinputs)
        dense1.backward(relu.dinputs)
        optimizer.pre_update_params()
        optimizer.update_params(dense1)
        optimizer.update_params(dense2)
        optimizer.post_update_params()
    assert (penalty > 0) == (strength > 0)
    return loss, data_loss(X_test, y_test), np.abs(dense1.weights).mean()


without, with_l2 = train(0), train(2e-4)
for name, (loss, test_loss, size) in {"without L2": without, "with L2": with_l2}.items():
    print(f"{name}: training loss {loss:.1f}, mean weight {size:.1f}")
print("the test loss is smaller with L2:", with_l2[1] < without[1])
print("the training loss is smaller without:", without[0] < with_l2[0])

assert with_l2[1] < without[1]
