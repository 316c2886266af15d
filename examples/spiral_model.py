"""The same spiral with `Model`: built, trained, judged on new points, saved and loaded.

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

np.random.seed(0)
X, y = spiral_data(samples=1000, classes=3)
X_val, y_val = spiral_data(samples=200, classes=3)

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

model.save("spiral_model.safetensors")
confidences = Model.load("spiral_model.safetensors").predict(X_val[:3])
print(confidences.round(3), model.output_layer_activation.predictions(confidences))

figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
plot.decision_regions(model, X_val, y_val, left)
history.plot(right)
figure.savefig("spiral_model.png", dpi=80)
