"""Two classes, one output
=======================

Two arms of a spiral told apart by a single output, the probability of the second (chapter 16 of the book).

python examples/binary_classification.py [EPOCHS]
"""

import sys

import numpy as np

from nnx import (
    Accuracy_Categorical,
    Activation_ReLU,
    Activation_Sigmoid,
    Layer_Dense,
    Loss_BinaryCrossentropy,
    Model,
    Optimizer_Adam,
    plot,
    spiral_data,
)

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 100

# %%
# Labels are 0 and 1.
np.random.seed(0)
X, y = spiral_data(samples=500, classes=2)
X_test, y_test = spiral_data(samples=200, classes=2)

# %%
# One output behind a sigmoid is the probability of class 1. Small L2 penalties keep the weights small.
model = Model()
model.add(Layer_Dense(2, 64, weight_regularizer_l2=1e-5, bias_regularizer_l2=1e-5))
model.add(Activation_ReLU())
model.add(Layer_Dense(64, 64, weight_regularizer_l2=1e-5, bias_regularizer_l2=1e-5))
model.add(Activation_ReLU())
model.add(Layer_Dense(64, 1))
model.add(Activation_Sigmoid())
model.set(
    loss=Loss_BinaryCrossentropy(),
    optimizer=Optimizer_Adam(learning_rate=0.02, decay=1e-3),
    accuracy=Accuracy_Categorical(binary=True),
)
model.finalize()

# %%
# A test point is put in class 1 if its probability is above 1/2.
model.train(X, y, epochs=EPOCHS, batch_size=100, shuffle=True, seed=0, print_every=None, progress=True)
model.evaluate(X_test, y_test)
print(f"first test point: class {y_test[0]}, probability of class 1: {model.predict(X_test[:1])[0, 0]:.3f}")

# %%
# The regions are drawn over points that the model has not seen.
ax = plot.decision_regions(model, X_test, y_test)
ax.figure.savefig("binary_classification.png", dpi=80)
