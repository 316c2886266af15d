"""Chapters 19 to 22: pictures, batches, evaluation, and three ways to keep what was learnt."""

import os
import tempfile

import numpy as np
import nnfs
from nnx import (
    Accuracy_Categorical,
    Activation_ReLU,
    Activation_Softmax,
    Layer_Dense,
    Loss_CategoricalCrossentropy,
    Model,
    Optimizer_Adam,
)

nnfs.init()

# Ten kinds of noisy pictures of 8 x 8 pixels, in the place of Fashion-MNIST.
kinds = np.random.randint(0, 256, (10, 8, 8))
y = np.arange(2000) % 10
images = np.clip(kinds[y] + np.random.randn(2000, 8, 8) * 60, 0, 255).astype(np.uint8)
order = np.random.permutation(len(y))
images, y = images[order], y[order]

X = (images.reshape(len(images), -1).astype(np.float32) - 127.5) / 127.5
X, X_test, y, y_test = X[:1600], X[1600:], y[:1600], y[1600:]
print("images", X.shape, "from", X.min(), "to", X.max())
os.chdir(tempfile.mkdtemp())


def build():
    model = Model()
    model.add(Layer_Dense(X.shape[1], 128))
    model.add(Activation_ReLU())
    model.add(Layer_Dense(128, 128))
    model.add(Activation_ReLU())
    model.add(Layer_Dense(128, 10))
    model.add(Activation_Softmax())
    model.set(loss=Loss_CategoricalCrossentropy(), accuracy=Accuracy_Categorical())
    return model


model = build()
model.set(optimizer=Optimizer_Adam(decay=1e-3))
model.finalize()
model.train(X, y, validation_data=(X_test, y_test), epochs=5, batch_size=128, print_every=None)
figures = model.evaluate(X_test, y_test)
print(f"accuracy on test images: {figures['accuracy']:.2f}")

# Three ways to keep what was learnt.
parameters = model.get_parameters()
model.save_parameters("images.parms")
model.save("images.model")

first = build()
first.finalize()
first.set_parameters(parameters)
second = build()
second.finalize()
second.load_parameters("images.parms")
third = Model.load("images.model")
for name, copy in {"set_parameters": first, "load_parameters": second, "load": third}.items():
    print(f"{name}: the same loss, {copy.evaluate(X_test, y_test)['loss'] == figures['loss']}")

confidences = third.predict(X_test[:5])
predictions = third.output_layer_activation.predictions(confidences)
print("predicted:", predictions, "true:", y_test[:5])

assert figures["accuracy"] > 0.9
assert confidences.shape == (5, 10)
