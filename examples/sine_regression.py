"""A curve
=======

One period of the sine, learnt from its points (chapter 17 of the book).

python examples/sine_regression.py [EPOCHS]
"""

import sys

import numpy as np

from nnx import (
    Accuracy_Regression,
    Activation_Linear,
    Activation_ReLU,
    Layer_Dense,
    Loss_MeanSquaredError,
    Model,
    Optimizer_Adam,
    plot,
    sine_data,
)

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 300

# %%
# One input, one output.
np.random.seed(0)
X, y = sine_data()

model = Model()
model.add(Layer_Dense(1, 64))
model.add(Activation_ReLU())
model.add(Layer_Dense(64, 64))
model.add(Activation_ReLU())
model.add(Layer_Dense(64, 1))
model.add(Activation_Linear())
model.set(
    loss=Loss_MeanSquaredError(),
    optimizer=Optimizer_Adam(learning_rate=0.005, decay=1e-3),
    accuracy=Accuracy_Regression(),
)
model.finalize()

# %%
# The hidden layers' weights are made larger before the training.

# Weights of 0.01 are too small for this curve: the second half often stays flat. He's scale is √(2 / inputs).
for layer in model.trainable_layers[:2]:
    layer.weights *= np.sqrt(2 / len(layer.weights)) / 0.01

model.train(X, y, epochs=EPOCHS, batch_size=50, shuffle=True, seed=0, print_every=None, progress=True)
model.evaluate(X, y)  # accuracy: the part of points that are hit within a 250th of the standard deviation

# %%
# The model's curve lies on the points.
ax = plot.fitted_curve(model, X, y)
ax.figure.savefig("sine_regression.png", dpi=80)
