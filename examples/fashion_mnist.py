"""Fashion-MNIST: ten kinds of clothes, and the model saved, loaded and asked about one image (chapters 19 to 22).

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
    Layer_Dense,
    Loss_CategoricalCrossentropy,
    Model,
    Optimizer_Adam,
    load_fashion_mnist,
    plot,
)

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 10

X, y, X_test, y_test = load_fashion_mnist(download=True)  # 30 MB, once
X, X_test = ((part.reshape(len(part), -1).astype(np.float32) - 127.5) / 127.5 for part in (X, X_test))

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
)
model.finalize()
model.train(X, y, epochs=EPOCHS, batch_size=128, shuffle=True, seed=0, print_every=None, progress=True)
model.evaluate(X_test, y_test)
model.save("fashion_mnist.safetensors")

model = Model.load("fashion_mnist.safetensors")
confidences = model.predict(X_test[:1])
(prediction,) = model.output_layer_activation.predictions(confidences)
names = FASHION_MNIST_CLASSES
print(f"first test image: {names[y_test[0]]!r}, predicted {names[prediction]!r}, confidence {confidences.max():.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6), layout="constrained")
plot.confusion_matrix(model, X_test, y_test, left, classes=names)
plot.weights(model, right)
figure.savefig("fashion_mnist.png", dpi=80)
