"""A spiral
========

A spiral with three arms, with `Model`: built, trained, judged on new points, saved and loaded.

python examples/spiral_model.py [EPOCHS]
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from nnx import (
    Accuracy_Categorical,
    Activation_ReLU,
    Activation_Softmax,
    Layer_Dense,
    Loss_CategoricalCrossentropy,
    Model,
    Optimizer_Adam,
    plot,
    spiral_data,
)

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 100

# %%
# Two sets of points from the same spiral: one to train on, one to judge by.
np.random.seed(0)
X, y = spiral_data(samples=1000, classes=3)
X_val, y_val = spiral_data(samples=200, classes=3)

# %%
# A model is a list of layers, with a loss, an optimizer and an accuracy.
model = Model()
model.add(Layer_Dense(2, 64))
model.add(Activation_ReLU())
model.add(Layer_Dense(64, 64))
model.add(Activation_ReLU())
model.add(Layer_Dense(64, 3))
model.add(Activation_Softmax())
model.set(
    loss=Loss_CategoricalCrossentropy(),
    optimizer=Optimizer_Adam(learning_rate=0.02, decay=1e-3),
    accuracy=Accuracy_Categorical(),
)
model.finalize()
model.summary()

# %%
# ``train`` returns the figures of all epochs. ``evaluate`` judges the model on points that it was not trained on.
history = model.train(
    X,
    y,
    epochs=EPOCHS,
    batch_size=100,
    validation_data=(X_val, y_val),
    shuffle=True,
    seed=0,
    print_every=None,
    progress=True,
)
model.evaluate(X_val, y_val)

# %%
# A saved model predicts the same as before.
model.save("spiral_model.safetensors")
confidences = Model.load("spiral_model.safetensors").predict(X_val[:3])
print(confidences.round(3), model.output_layer_activation.predictions(confidences))

# %%
# Colours show which class is predicted where, and how confident the model is.
figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
plot.decision_regions(model, X_val, y_val, left)
history.plot(right)
figure.savefig("spiral_model.png", dpi=80)
