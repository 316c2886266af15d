"""Fashion-MNIST
=============

Fashion-MNIST: ten kinds of clothes, and the model saved, loaded and asked about one image (chapters 19 to 22).

The model's file keeps how pixels are scaled and what the classes are called: `nnx predict` takes images from there.

python examples/fashion_mnist.py [EPOCHS]
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

from nnx import (
    FASHION_MNIST_CLASSES,
    Accuracy_Categorical,
    Activation_ReLU,
    Activation_Softmax,
    Images,
    Layer_Dense,
    Loss_CategoricalCrossentropy,
    Model,
    Optimizer_Adam,
    load_fashion_mnist,
    plot,
)

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 10

# %%
# 60,000 images of 28 × 28 pixels to train on, 10,000 to test on. ``Images`` says how pixels become inputs.
X, y, X_test, y_test = load_fashion_mnist(download=True)  # 30 MB, once
images = Images(28, 28, FASHION_MNIST_CLASSES)
X, X_test = images.inputs(X), images.inputs(X_test)  # (value - 127.5) / 127.5

# %%
# The book's network of chapter 19.
np.random.seed(0)
model = Model()
model.add(Layer_Dense(784, 128))
model.add(Activation_ReLU())
model.add(Layer_Dense(128, 128))
model.add(Activation_ReLU())
model.add(Layer_Dense(128, 10))
model.add(Activation_Softmax())
model.set(
    loss=Loss_CategoricalCrossentropy(),
    optimizer=Optimizer_Adam(decay=1e-3),
    accuracy=Accuracy_Categorical(),
    images=images,
)
model.finalize()
model.train(X, y, epochs=EPOCHS, batch_size=128, shuffle=True, seed=0, print_every=None, progress=True)
model.evaluate(X_test, y_test)
model.save("fashion_mnist.safetensors")

# %%
# The file holds all that it takes to name what is on an image.
model = Model.load("fashion_mnist.safetensors")
confidences = model.predict(X_test[:1])
(prediction,) = model.images.decode(confidences)
name = FASHION_MNIST_CLASSES[y_test[0]]
print(f"first test image: {name!r}, predicted {prediction!r}, confidence {confidences.max():.3f}")

# %%
# Rows of the matrix are the true classes, columns the predicted ones. Beside it: what the first neurons look for.
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6), width_ratios=(5, 3), layout="constrained")
plot.confusion_matrix(model, X_test, y_test, left)
plot.weights(model, right)
figure.savefig("fashion_mnist.png", dpi=80)
