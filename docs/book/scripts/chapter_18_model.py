"""Chapter 18: three kinds of networks as `Model`."""

import numpy as np
import nnfs
from nnx import (
    Accuracy_Categorical,
    Accuracy_Regression,
    Activation_Linear,
    Activation_ReLU,
    Activation_Sigmoid,
    Activation_Softmax,
    Layer_Dense,
    Layer_Dropout,
    Loss_BinaryCrossentropy,
    Loss_CategoricalCrossentropy,
    Loss_MeanSquaredError,
    Model,
    Optimizer_Adam,
    sine_data,
    spiral_data,
)

nnfs.init()


def finished(layers, **parts):
    """Return a model of these layers, with its loss, optimizer and accuracy."""
    model = Model()
    for layer in layers:
        model.add(layer)
    model.set(**parts)
    model.finalize()
    return model


print("Three classes:")
X, y = spiral_data(samples=1000, classes=3)
X_test, y_test = spiral_data(samples=100, classes=3)
model = finished(
    [
        Layer_Dense(2, 512, weight_regularizer_l2=5e-4, bias_regularizer_l2=5e-4),
        Activation_ReLU(),
        Layer_Dropout(0.1),
        Layer_Dense(512, 3),
        Activation_Softmax(),
    ],
    loss=Loss_CategoricalCrossentropy(),
    optimizer=Optimizer_Adam(learning_rate=0.05, decay=5e-5),
    accuracy=Accuracy_Categorical(),
)
model.train(X, y, validation_data=(X_test, y_test), epochs=2, print_every=100)
history = model.train(X, y, epochs=98, print_every=None)
print(f"100 epochs: accuracy {history.accuracy[-1]:.1f}")
assert history.accuracy[-1] > 0.6

print("Two classes, one output:")
X, y = spiral_data(samples=100, classes=2)
model = finished(
    [Layer_Dense(2, 64), Activation_ReLU(), Layer_Dense(64, 1), Activation_Sigmoid()],
    loss=Loss_BinaryCrossentropy(),
    optimizer=Optimizer_Adam(learning_rate=0.02),
    accuracy=Accuracy_Categorical(binary=True),
)
history = model.train(X, y.reshape(-1, 1), epochs=500, print_every=None)
print(f"500 epochs: accuracy {history.accuracy[-1]:.1f}")
assert history.accuracy[-1] > 0.8

print("Numbers:")
X, y = sine_data()
model = finished(
    [
        Layer_Dense(1, 64),
        Activation_ReLU(),
        Layer_Dense(64, 64),
        Activation_ReLU(),
        Layer_Dense(64, 1),
        Activation_Linear(),
    ],
    loss=Loss_MeanSquaredError(),
    optimizer=Optimizer_Adam(learning_rate=0.005, decay=1e-3),
    accuracy=Accuracy_Regression(),
)
history = model.train(X, y, epochs=300, print_every=None)
print(f"loss below a third of the first: {history.loss[-1] < history.loss[0] / 3}")
assert model.history is history
assert history.loss[-1] < history.loss[0] / 3
