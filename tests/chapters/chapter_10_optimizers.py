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
for optimizer in (
    Optimizer_SGD(),
    Optimizer_SGD(decay=1e-3, momentum=0.9),
    Optimizer_Adagrad(decay=1e-4),
    Optimizer_RMSprop(learning_rate=0.02, decay=1e-5, rho=0.999),
    Optimizer_Adam(learning_rate=0.05, decay=5e-7),
):
    dense1 = Layer_Dense(2, 64)
    activation1 = Activation_ReLU()
    dense2 = Layer_Dense(64, 3)
    loss_activation = Activation_Softmax_Loss_CategoricalCrossentropy()
    for epoch in range(601):
        dense1.forward(X)
        activation1.forward(dense1.output)
        dense2.forward(activation1.output)
        loss = loss_activation.forward(dense2.output, y)
        predictions = np.argmax(loss_activation.output, axis=1)
        accuracy = np.mean(predictions == y)
        if not epoch % 100:
            print(f"epoch: {epoch}, acc: {accuracy:.3f}, loss: {loss:.3f}, lr: {optimizer.current_learning_rate}")
        loss_activation.backward(loss_activation.output, y)
        dense2.backward(loss_activation.dinputs)
        activation1.backward(dense2.dinputs)
        dense1.backward(activation1.dinputs)
        optimizer.pre_update_params()
        optimizer.update_params(dense1)
        optimizer.update_params(dense2)
        optimizer.post_update_params()
    assert loss < 1.09, optimizer

assert accuracy > 0.75

X_test, y_test = spiral_data(samples=100, classes=3)
dense1.forward(X_test)
activation1.forward(dense1.output)
dense2.forward(activation1.output)
loss = loss_activation.forward(dense2.output, y_test)
print(f"validation, acc: {np.mean(np.argmax(loss_activation.output, axis=1) == y_test):.3f}, loss: {loss:.3f}")
