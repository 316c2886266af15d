"""The book's way of writing a network in NumPy, written afresh: the yardstick of the benchmarks.

Each line does what the book's does, with the book's temporaries; argument checks, float32 and in-place updates are what
nnx adds. Nothing in nnx uses this file.
"""

from __future__ import annotations

import numpy as np


class Dense:
    def __init__(self, n_inputs, n_neurons, dtype=np.float32):
        self.weights = (0.01 * np.random.randn(n_inputs, n_neurons)).astype(dtype)
        self.biases = np.zeros((1, n_neurons), dtype)

    def forward(self, inputs):
        self.inputs = inputs
        self.output = np.dot(inputs, self.weights) + self.biases

    def backward(self, dvalues):
        self.dweights = np.dot(self.inputs.T, dvalues)
        self.dbiases = np.sum(dvalues, axis=0, keepdims=True)
        self.dinputs = np.dot(dvalues, self.weights.T)


class ReLU:
    def forward(self, inputs):
        self.inputs = inputs
        self.output = np.maximum(0, inputs)

    def backward(self, dvalues):
        self.dinputs = dvalues.copy()
        self.dinputs[self.inputs <= 0] = 0


class Dropout:
    def __init__(self, rate):
        self.rate = 1 - rate

    def forward(self, inputs):
        self.binary_mask = np.random.binomial(1, self.rate, size=inputs.shape) / self.rate
        self.output = inputs * self.binary_mask

    def backward(self, dvalues):
        self.dinputs = dvalues * self.binary_mask


class SoftmaxCrossentropy:
    def forward(self, inputs, y_true):
        self.activate(inputs)
        clipped = np.clip(self.output, 1e-7, 1 - 1e-7)
        confidences = clipped[range(len(inputs)), y_true]
        return np.mean(-np.log(confidences))

    def activate(self, inputs):
        exponentials = np.exp(inputs - np.max(inputs, axis=1, keepdims=True))
        self.output = exponentials / np.sum(exponentials, axis=1, keepdims=True)

    def backward(self, dvalues, y_true):
        samples = len(dvalues)
        self.dinputs = dvalues.copy()
        self.dinputs[range(samples), y_true] -= 1
        self.dinputs = self.dinputs / samples


class Adam:
    def __init__(self, learning_rate=0.001, decay=0.0, epsilon=1e-7, beta_1=0.9, beta_2=0.999):
        self.learning_rate = self.current_learning_rate = learning_rate
        self.decay, self.epsilon, self.beta_1, self.beta_2 = decay, epsilon, beta_1, beta_2
        self.iterations = 0

    def pre_update_params(self):
        if self.decay:
            self.current_learning_rate = self.learning_rate * (1.0 / (1.0 + self.decay * self.iterations))

    def update_params(self, layer):
        if not hasattr(layer, "weight_cache"):
            layer.weight_momentums = np.zeros_like(layer.weights)
            layer.weight_cache = np.zeros_like(layer.weights)
            layer.bias_momentums = np.zeros_like(layer.biases)
            layer.bias_cache = np.zeros_like(layer.biases)
        layer.weight_momentums = self.beta_1 * layer.weight_momentums + (1 - self.beta_1) * layer.dweights
        layer.bias_momentums = self.beta_1 * layer.bias_momentums + (1 - self.beta_1) * layer.dbiases
        weight_momentums = layer.weight_momentums / (1 - self.beta_1 ** (self.iterations + 1))
        bias_momentums = layer.bias_momentums / (1 - self.beta_1 ** (self.iterations + 1))
        layer.weight_cache = self.beta_2 * layer.weight_cache + (1 - self.beta_2) * layer.dweights**2
        layer.bias_cache = self.beta_2 * layer.bias_cache + (1 - self.beta_2) * layer.dbiases**2
        weight_cache = layer.weight_cache / (1 - self.beta_2 ** (self.iterations + 1))
        bias_cache = layer.bias_cache / (1 - self.beta_2 ** (self.iterations + 1))
        layer.weights += -self.current_learning_rate * weight_momentums / (np.sqrt(weight_cache) + self.epsilon)
        layer.biases += -self.current_learning_rate * bias_momentums / (np.sqrt(bias_cache) + self.epsilon)

    def post_update_params(self):
        self.iterations += 1


class Model:
    """The book's training loop over `Dense` and `ReLU`, with softmax and cross-entropy at the end, printing nothing."""

    def __init__(self, layers, loss, optimizer):
        self.layers, self.loss, self.optimizer = layers, loss, optimizer
        self.trainable_layers = [layer for layer in layers if hasattr(layer, "weights")]

    def train(self, X, y, epochs):
        for _ in range(epochs):
            loss_sum = loss_count = hits = hits_count = 0
            values = X
            for layer in self.layers:
                layer.forward(values)
                values = layer.output
            self.loss.activate(values)
            output = self.loss.output
            sample_losses = -np.log(np.clip(output, 1e-7, 1 - 1e-7)[range(len(output)), y])
            data_loss = np.mean(sample_losses)
            loss_sum += np.sum(sample_losses)
            loss_count += len(sample_losses)
            penalty = self.regularization_loss()
            comparisons = np.argmax(output, axis=1) == y
            accuracy = np.mean(comparisons)
            hits += np.sum(comparisons)
            hits_count += len(comparisons)
            self.loss.backward(output, y)
            dvalues = self.loss.dinputs
            for layer in reversed(self.layers):
                layer.backward(dvalues)
                dvalues = layer.dinputs
            self.optimizer.pre_update_params()
            for layer in self.trainable_layers:
                self.optimizer.update_params(layer)
            self.optimizer.post_update_params()
            self.figures = data_loss, penalty, accuracy, loss_sum / loss_count, hits / hits_count

    def regularization_loss(self):
        penalty = 0
        for layer in self.trainable_layers:
            for kind in ("weight", "bias"):
                for strength in ("l1", "l2"):
                    if getattr(layer, f"{kind}_regularizer_{strength}", 0) > 0:
                        raise NotImplementedError
        return penalty
