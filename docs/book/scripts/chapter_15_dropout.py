"""Chapter 15: neurons that are left out while a network learns."""

import numpy as np
import nnfs
from nnx import (
    Activation_ReLU,
    Activation_Softmax_Loss_CategoricalCrossentropy,
    Layer_Dense,
    Layer_Dropout,
    Optimizer_Adam,
    spiral_data,
)

nnfs.init()

dropout = Layer_Dropout(0.4)
dropout.forward(np.ones((1, 10000)))
print(f"left out: {np.mean(dropout.output == 0):.1f}, the others are {dropout.output.max():.2f}")
print(f"the mean stays near 1: {dropout.output.mean():.1f}")
dropout.forward(np.ones((1, 10000)), training=False)
print("outside of training, nothing changes:", (dropout.output == 1).all())

X, y = spiral_data(samples=200, classes=3)
dense1 = Layer_Dense(2, 64, weight_regularizer_l2=5e-4, bias_regularizer_l2=5e-4)
relu = Activation_ReLU()
dropout1 = Layer_Dropout(0.1)
dense2 = Layer_Dense(64, 3)
loss_activation = Activation_Softmax_Loss_CategoricalCrossentropy()
optimizer = Optimizer_Adam(learning_rate=0.05, decay=5e-5)


def forward(training):
    dense1.forward(X)
    relu.forward(dense1.output)
    dropout1.forward(relu.output, training)
    dense2.forward(dropout1.output)
    return loss_activation.forward(dense2.output, y)


for epoch in range(801):
    forward(training=True)
    loss_activation.backward(loss_activation.output, y)
    dense2.backward(loss_activation.dinputs)
    dropout1.backward(dense2.dinputs)
    relu.backward(dropout1.dinputs)
    dense1.backward(relu.dinputs)
    optimizer.pre_update_params()
    optimizer.update_params(dense1)
    optimizer.update_params(dense2)
    optimizer.post_update_params()

assert set(np.unique(dropout1.binary_mask)) == {np.float32(0), np.float32(1 / 0.9)}
with_dropout, without = forward(training=True), forward(training=False)
accuracy = np.mean(np.argmax(loss_activation.output, axis=1) == y)
print("the loss is smaller with all neurons:", without < with_dropout)
print(f"accuracy with all neurons: {accuracy:.1f}")
assert accuracy > 0.7
