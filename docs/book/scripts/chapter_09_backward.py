"""Chapter 9: gradients, and a slope that is measured."""

import numpy as np
import nnfs
from nnx import (
    Activation_ReLU,
    Activation_Softmax,
    Activation_Softmax_Loss_CategoricalCrossentropy,
    Layer_Dense,
    Loss_CategoricalCrossentropy,
)

nnfs.init()

X = np.array([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.1]])
y = np.array([0, 2, 1])
dense1 = Layer_Dense(2, 8, dtype="float64")
relu = Activation_ReLU()
dense2 = Layer_Dense(8, 3, dtype="float64")
loss_activation = Activation_Softmax_Loss_CategoricalCrossentropy()


def loss_of_all():
    dense1.forward(X)
    relu.forward(dense1.output)
    dense2.forward(relu.output)
    return loss_activation.forward(dense2.output, y)


loss_of_all()
loss_activation.backward(loss_activation.output, y)
dense2.backward(loss_activation.dinputs)
relu.backward(dense2.dinputs)
dense1.backward(relu.dinputs)
print("dweights has the shape of weights:", dense1.dweights.shape, dense1.weights.shape)

# The slope, measured: move one weight a little to both sides.
weight, step = (0, 1), 1e-6
dense1.weights[weight] += step
above = loss_of_all()
dense1.weights[weight] -= 2 * step
below = loss_of_all()
measured = (above - below) / (2 * step)
print("measured and computed slope agree:", np.isclose(measured, dense1.dweights[weight], rtol=1e-4, atol=1e-9))

# Softmax and loss in one, or one after the other: the same gradient.
outputs = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.25, 0.5, 0.25]])
loss_activation.backward(outputs, y)
softmax, loss = Activation_Softmax(), Loss_CategoricalCrossentropy()
softmax.output = outputs
loss.backward(outputs, y)
softmax.backward(loss.dinputs)
print("gradient of softmax and loss together:")
print(loss_activation.dinputs.round(3))
print("the same in two steps:", np.allclose(softmax.dinputs, loss_activation.dinputs))

assert np.isclose(measured, dense1.dweights[weight], rtol=1e-4, atol=1e-9)
assert np.allclose(softmax.dinputs, loss_activation.dinputs)
assert np.allclose(loss_activation.dinputs[0], [-0.4 / 3, 0.1, 0.1 / 3])
