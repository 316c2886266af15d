"""The book's loop by hand
=======================

The book's loop by hand: every layer called forward and backward, three arms of a spiral told apart.

python examples/spiral_manual_loop.py [EPOCHS]
"""

import sys

import numpy as np

from nnx import (
    Activation_ReLU,
    Activation_Softmax_Loss_CategoricalCrossentropy,
    Layer_Dense,
    Optimizer_Adam,
    spiral_data,
)

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000

# %%
# Two dense layers, with a ReLU between them. The last activation and the loss are one object.
np.random.seed(0)
X, y = spiral_data(samples=100, classes=3)

dense1 = Layer_Dense(2, 64)
activation1 = Activation_ReLU()
dense2 = Layer_Dense(64, 3)
loss_activation = Activation_Softmax_Loss_CategoricalCrossentropy()
optimizer = Optimizer_Adam(learning_rate=0.05, decay=5e-7)

# %%
# Each round goes forward, then back, then takes a step. ``Model`` does the same with one call of ``train``.
for epoch in range(EPOCHS + 1):
    dense1.forward(X)
    activation1.forward(dense1.output)
    dense2.forward(activation1.output)
    loss = loss_activation.forward(dense2.output, y)

    if epoch % 1000 == 0 or epoch == EPOCHS:
        accuracy = np.mean(np.argmax(loss_activation.output, axis=1) == y)
        print(f"epoch: {epoch}, acc: {accuracy:.3f}, loss: {loss:.3f}, lr: {optimizer.current_learning_rate}")

    loss_activation.backward(loss_activation.output, y)
    dense2.backward(loss_activation.dinputs)
    activation1.backward(dense2.dinputs)
    dense1.backward(activation1.dinputs)

    optimizer.pre_update_params()
    optimizer.update_params(dense1)
    optimizer.update_params(dense2)
    optimizer.post_update_params()
