"""Classes of your own
===================

A layer, a loss and an optimizer of one's own, among built-in ones: a sine through points of which some are wrong.

python examples/own_classes.py [EPOCHS]
"""

import sys

import numpy as np

from nnx import Accuracy_Regression, Layer_Dense, Loss, Model, plot, sine_data

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 600


# %%
# A layer needs ``forward`` and ``backward``. ``get_config`` returns its settings, so that a model with it can be
# saved.
class Activation_Tanh:
    """y = tanh x; its derivative is 1 - y²."""

    def forward(self, inputs, training=True):
        self.output = np.tanh(inputs)

    def backward(self, dvalues):
        self.dinputs = dvalues * (1 - self.output**2)

    def get_config(self):  # lets a model with this layer be saved
        return {}


# %%
# A loss returns one number for each sample. Its ``backward`` sets the gradient of their mean.
class Loss_Huber(Loss):
    """Half the square of small errors, the size of large ones: wrong points pull with a limited force."""

    def __init__(self, delta=0.2):
        self.delta = delta

    def forward(self, y_pred, y_true):
        error = np.abs(y_pred - y_true)
        near = np.minimum(error, self.delta)
        return np.mean(near * (error - near / 2), axis=-1)

    def backward(self, dvalues, y_true):
        self.dinputs = np.clip(dvalues - y_true, -self.delta, self.delta) / dvalues.size

    def get_config(self):
        return {"delta": self.delta}


# %%
# An optimizer changes a layer's parameters in place, and counts its steps.
class Optimizer_Lion:
    """Steps of one size, in the direction of the momentum's sign (Chen et al. 2023)."""

    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.99):
        self.learning_rate, self.beta_1, self.beta_2 = learning_rate, beta_1, beta_2
        self.iterations = 0

    def pre_update_params(self):
        self.current_learning_rate = self.learning_rate / (1 + 1e-3 * self.iterations)

    def update_params(self, layer):
        for name, momentum in (("weights", "weight_momentums"), ("biases", "bias_momentums")):
            values, gradient = getattr(layer, name), getattr(layer, f"d{name}")
            past = getattr(layer, momentum, np.zeros_like(values))
            values -= self.current_learning_rate * np.sign(self.beta_1 * past + (1 - self.beta_1) * gradient)
            setattr(layer, momentum, self.beta_2 * past + (1 - self.beta_2) * gradient)

    def post_update_params(self):
        self.iterations += 1

    def get_config(self):
        return {"learning_rate": self.learning_rate, "beta_1": self.beta_1, "beta_2": self.beta_2}


# %%
# All three work together with built-in parts.
np.random.seed(0)
X, y = sine_data(400)
y[::10] += np.random.choice([-1.5, 1.5], (40, 1))  # every tenth point is wrong

model = Model()
model.add(Layer_Dense(1, 32))
model.add(Activation_Tanh())
model.add(Layer_Dense(32, 1))
model.set(loss=Loss_Huber(), optimizer=Optimizer_Lion(0.005), accuracy=Accuracy_Regression())
model.finalize()
model.layers[0].weights *= 500  # so that the tanhs bend within the points' range

model.train(X, y, epochs=EPOCHS, batch_size=40, shuffle=True, seed=0, print_every=None, progress=True)
print(f"average distance from the true sine: {np.abs(model.predict(X) - np.sin(2 * np.pi * X)).mean():.3f}")

# %%
# ``Model.load`` is told which classes a file may use.
model.save("own_classes.safetensors")
own = {"Activation_Tanh": Activation_Tanh, "Loss_Huber": Loss_Huber, "Optimizer_Lion": Optimizer_Lion}
print(Model.load("own_classes.safetensors", custom_objects=own))

# %%
# The curve follows the sine, not the wrong points.
ax = plot.fitted_curve(model, X, y)
ax.figure.savefig("own_classes.png", dpi=80)
