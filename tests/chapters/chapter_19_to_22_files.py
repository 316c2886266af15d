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


def build(optimizer=None):
    model = Model()
    model.add(Layer_Dense(X.shape[1], 128))
    model.add(Activation_ReLU())
    model.add(Layer_Dense(128, 128))
    model.add(Activation_ReLU())
    model.add(Layer_Dense(128, 10))
    model.add(Activation_Softmax())
    model.set(loss=Loss_CategoricalCrossentropy(), accuracy=Accuracy_Categorical())
    if optimizer is not None:
        model.set(optimizer=optimizer)
    model.finalize()
    return model


# Ten kinds of noisy 8x8 pictures, in the place of Fashion-MNIST.
kinds = np.random.randint(0, 256, (10, 8, 8))
y = np.arange(2000) % 10
images = np.clip(kinds[y] + np.random.randn(2000, 8, 8) * 60, 0, 255).astype(np.uint8)
keys = np.array(range(images.shape[0]))
np.random.shuffle(keys)
images, y = images[keys], y[keys]
X = (images.reshape(images.shape[0], -1).astype(np.float32) - 127.5) / 127.5
X, X_test, y, y_test = X[:1600], X[1600:], y[:1600], y[1600:]
os.chdir(tempfile.mkdtemp())

model = build(Optimizer_Adam(decay=1e-3))
model.train(X, y, validation_data=(X_test, y_test), epochs=5, batch_size=128, print_every=100)
model.evaluate(X_test, y_test)
model.evaluate(X, y)
parameters = model.get_parameters()
model.save_parameters("fashion_mnist.parms")
model.save("fashion_mnist.model")

model = build()
model.set_parameters(parameters)
model.evaluate(X_test, y_test)
model = build()
model.load_parameters("fashion_mnist.parms")
model.evaluate(X_test, y_test)

model = Model.load("fashion_mnist.model")
figures = model.evaluate(X_test, y_test)
confidences = model.predict(X_test[:5])
predictions = model.output_layer_activation.predictions(confidences)
print(predictions)
print(y_test[:5])
names = {number: str(number) for number in range(10)}
for prediction in predictions:
    print(names[prediction])

assert figures["accuracy"] > 0.9
assert confidences.shape == (5, 10)
