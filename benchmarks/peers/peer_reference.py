"""The book's way in NumPy: `reference.py` beside this folder, with the parts of the book that only this needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import reference
from scipy.special import erf
from workloads import (
    BETA_1,
    BETA_2,
    DELTA,
    EPSILON,
    LEARNING_RATE,
    NORM_EPSILON,
    NORM_MOMENTUM,
    Candidate,
    EarlyStopping,
    Workload,
    held_out,
    initial_parameters,
    initial_results,
    initial_statistics,
    learning_rate,
    numbers_and_rows,
    samples,
)

VERSION = f"NumPy {np.__version__}"


def variants(workload: Workload, cores: int) -> Mapping[str, Callable[[], Candidate]]:
    """Return the way to train."""
    if workload.kind == "run":
        return {"": lambda: EarlyStopping(workload, Training(workload))}
    return {"": lambda: Training(workload)} if workload.kind == "train" else {}


class RegularizedDense(reference.Dense):
    """The book's dense layer with L2 on weights and biases."""

    weight_regularizer_l2 = bias_regularizer_l2 = 0.0

    def backward(self, dvalues):
        super().backward(dvalues)
        if self.weight_regularizer_l2 > 0:
            self.dweights += 2 * self.weight_regularizer_l2 * self.weights
        if self.bias_regularizer_l2 > 0:
            self.dbiases += 2 * self.bias_regularizer_l2 * self.biases


class BatchNorm:
    """Batch normalization (Ioffe and Szegedy, 2015), written as the book writes its layers."""

    weight_regularizer_l2 = bias_regularizer_l2 = 0.0

    def forward(self, inputs):
        self.mean = np.mean(inputs, axis=0, keepdims=True)
        self.variance = np.var(inputs, axis=0, keepdims=True)
        unbiased = self.variance * (len(inputs) / (len(inputs) - 1))
        self.running_mean = NORM_MOMENTUM * self.running_mean + (1 - NORM_MOMENTUM) * self.mean
        self.running_variance = NORM_MOMENTUM * self.running_variance + (1 - NORM_MOMENTUM) * unbiased
        self.normalized = (inputs - self.mean) / np.sqrt(self.variance + NORM_EPSILON)
        self.output = self.normalized * self.weights + self.biases

    def predict(self, inputs):
        normalized = (inputs - self.running_mean) / np.sqrt(self.running_variance + NORM_EPSILON)
        self.output = normalized * self.weights + self.biases

    def backward(self, dvalues):
        samples = len(dvalues)
        self.dweights = np.sum(dvalues * self.normalized, axis=0, keepdims=True)
        self.dbiases = np.sum(dvalues, axis=0, keepdims=True)
        rest = dvalues - (self.dbiases + self.normalized * self.dweights) / samples
        self.dinputs = rest * self.weights / np.sqrt(self.variance + NORM_EPSILON)


class Embedding:
    """Numbers as they are, and behind them what stands in the table's rows."""

    weight_regularizer_l2 = bias_regularizer_l2 = 0.0
    biases = dbiases = np.zeros((1, 0), np.float32)

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def forward(self, inputs):
        numbers, self.rows = numbers_and_rows(self.workload, inputs)
        self.n_numbers = numbers.shape[1]
        self.output = np.column_stack((numbers, self.weights[self.rows].reshape(len(inputs), -1)))

    def backward(self, dvalues):
        self.dweights = np.zeros_like(self.weights)
        width = self.weights.shape[1]
        np.add.at(self.dweights, self.rows, dvalues[:, self.n_numbers :].reshape(*self.rows.shape, width))
        self.dinputs = None


class Tanh:
    """Written as the book writes its sigmoid."""

    def forward(self, inputs):
        self.output = np.tanh(inputs)

    def backward(self, dvalues):
        self.dinputs = dvalues * (1 - self.output**2)


class GELU:
    """x Φ(x), Φ being the normal distribution (Hendrycks and Gimpel, 2016)."""

    def forward(self, inputs):
        self.inputs = inputs
        self.distribution = 0.5 * (1 + erf(inputs / math.sqrt(2)))
        self.output = inputs * self.distribution

    def backward(self, dvalues):
        density = np.exp(-0.5 * self.inputs**2) / math.sqrt(2 * math.pi)
        self.dinputs = dvalues * (self.distribution + self.inputs * density)


class SiLU:
    """x σ(x), σ being the logistic function (Elfwing, Uchibe and Doya, 2017)."""

    def forward(self, inputs):
        self.sigmoid = 1 / (1 + np.exp(-inputs))
        self.output = inputs * self.sigmoid

    def backward(self, dvalues):
        self.dinputs = dvalues * (self.sigmoid + self.output * (1 - self.sigmoid))


ACTIVATIONS = {"relu": reference.ReLU, "tanh": Tanh, "gelu": GELU, "silu": SiLU}


class SoftmaxCrossentropy(reference.SoftmaxCrossentropy):
    """Softmax and its loss in one, as the book joins them."""

    def losses(self, output, y_true):
        clipped = np.clip(output, 1e-7, 1 - 1e-7)
        return -np.log(clipped[range(len(output)), y_true])

    def hits(self, output, y_true):
        return np.argmax(output, axis=1) == y_true


class SigmoidCrossentropy:
    """The book's sigmoid, and its binary cross-entropy."""

    def activate(self, inputs):
        self.output = 1 / (1 + np.exp(-inputs))

    def losses(self, output, y_true):
        clipped = np.clip(output, 1e-7, 1 - 1e-7)
        return np.mean(-(y_true * np.log(clipped) + (1 - y_true) * np.log(1 - clipped)), axis=-1)

    def hits(self, output, y_true):
        return (output > 0.5) * 1 == y_true

    def backward(self, dvalues, y_true):
        samples, outputs = dvalues.shape
        clipped = np.clip(dvalues, 1e-7, 1 - 1e-7)
        gradient = -(y_true / clipped - (1 - y_true) / (1 - clipped)) / outputs
        self.dinputs = gradient / samples * (1 - self.output) * self.output


class SquaredError:
    """The book's linear output, and its mean squared error."""

    def activate(self, inputs):
        self.output = inputs

    def losses(self, output, y_true):
        return np.mean((y_true - output) ** 2, axis=-1)

    def hits(self, output, y_true):
        return np.absolute(output - y_true) < np.std(y_true) / 250

    def backward(self, dvalues, y_true):
        samples, outputs = dvalues.shape
        self.dinputs = -2 * (y_true - dvalues) / outputs / samples


class HuberLoss:
    """The book's linear output, and Huber's loss."""

    activate, hits = SquaredError.activate, SquaredError.hits

    def losses(self, output, y_true):
        apart = np.abs(output - y_true)
        return np.mean(np.where(apart <= DELTA, 0.5 * apart**2, DELTA * (apart - 0.5 * DELTA)), axis=-1)

    def backward(self, dvalues, y_true):
        samples, outputs = dvalues.shape
        self.dinputs = np.clip(dvalues - y_true, -DELTA, DELTA) / outputs / samples


LOSSES = {"softmax": SoftmaxCrossentropy, "sigmoid": SigmoidCrossentropy, "squares": SquaredError, "huber": HuberLoss}


class AdamW(reference.Adam):
    """Adam, with weights that decay by themselves (Loshchilov and Hutter, 2019), along the workload's schedule."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(LEARNING_RATE, epsilon=EPSILON, beta_1=BETA_1, beta_2=BETA_2)
        self.workload = workload

    def pre_update_params(self):
        self.current_learning_rate = learning_rate(self.workload, self.iterations)

    def update_params(self, layer):
        layer.weights *= 1 - self.current_learning_rate * self.workload.weight_decay
        super().update_params(layer)


class Model(reference.Model):
    """The book's training loop in batches, with the penalty and the clipping; it prints nothing."""

    clip_norm = 0.0

    def train(self, X, y, epochs, batch_size):
        for _ in range(epochs):
            loss_sum = loss_count = hits_sum = hits_count = 0
            for step in range(len(X) // batch_size):
                batch_X = X[step * batch_size : (step + 1) * batch_size]
                batch_y = y[step * batch_size : (step + 1) * batch_size]
                values = batch_X
                for layer in self.layers:
                    layer.forward(values)
                    values = layer.output
                self.loss.activate(values)
                output = self.loss.output
                losses = self.loss.losses(output, batch_y)
                data_loss = np.mean(losses)
                loss_sum += np.sum(losses)
                loss_count += len(losses)
                penalty = self.regularization_loss()
                hits = self.loss.hits(output, batch_y)
                accuracy = np.mean(hits)
                hits_sum += np.sum(hits)
                hits_count += len(hits)
                self.loss.backward(output, batch_y)
                dvalues = self.loss.dinputs
                for layer in reversed(self.layers):
                    layer.backward(dvalues)
                    dvalues = layer.dinputs
                if self.clip_norm:
                    self.clip_gradients()
                self.optimizer.pre_update_params()
                for layer in self.trainable_layers:
                    self.optimizer.update_params(layer)
                self.optimizer.post_update_params()
                self.step_figures = data_loss + penalty, accuracy
            self.figures = loss_sum / loss_count, hits_sum / hits_count

    def clip_gradients(self):
        gradients = [array for layer in self.trainable_layers for array in (layer.dweights, layer.dbiases)]
        norm = math.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
        if norm > self.clip_norm:
            for gradient in gradients:
                gradient *= self.clip_norm / norm

    def regularization_loss(self):
        penalty = 0
        for layer in self.trainable_layers:
            if layer.weight_regularizer_l2 > 0:
                penalty += layer.weight_regularizer_l2 * np.sum(layer.weights * layer.weights)
            if layer.bias_regularizer_l2 > 0:
                penalty += layer.bias_regularizer_l2 * np.sum(layer.biases * layer.biases)
        return penalty


class Training:
    """A unit is an epoch."""

    def __init__(self, workload: Workload) -> None:
        self.workload, self.steps = workload, workload.steps
        (self.X, self.y), self.held_out = samples(workload), held_out(workload)
        self.reset()

    def reset(self) -> None:
        layers: list[object] = []
        parameters, figures = iter(initial_parameters(self.workload)), iter(initial_statistics(self.workload))
        l2 = self.workload.l2
        for part in self.workload.parts:
            if part == "embedding":
                layers.append(embedding := Embedding(self.workload))
                (embedding.weights,) = next(parameters)
            elif part == "dense":
                weights, biases = next(parameters)
                layers.append(dense := RegularizedDense(*weights.shape))
                dense.weights, dense.biases = weights, biases[None]
                dense.weight_regularizer_l2 = dense.bias_regularizer_l2 = l2
                l2 = 0.0  # for the first one alone
            elif part == "norm":
                layers.append(norm := BatchNorm())
                norm.weights, norm.biases = (array[None] for array in next(parameters))
                norm.running_mean, norm.running_variance = (array[None] for array in next(figures))
            elif part == "activation":
                layers.append(ACTIVATIONS[self.workload.activation]())
            elif part == "dropout":
                layers.append(reference.Dropout(self.workload.dropout))
        if self.workload.weight_decay or self.workload.schedule_steps:
            optimizer: reference.Adam = AdamW(self.workload)
        else:
            optimizer = reference.Adam(LEARNING_RATE, epsilon=EPSILON, beta_1=BETA_1, beta_2=BETA_2)
        self.model = Model(layers, LOSSES[self.workload.loss](), optimizer)
        self.model.clip_norm = self.workload.clip_norm

    def run(self, units: int) -> None:
        self.model.train(self.X, self.y, units, self.workload.batch)

    def results(self) -> list[np.ndarray]:
        shapes = (array.shape for array in initial_results(self.workload))
        return [array.reshape(shape).copy() for array, shape in zip(self._arrays(), shapes, strict=True)]

    def held_out_loss(self) -> float:
        values, y = self.held_out
        for layer in self.model.layers:
            (layer.predict if isinstance(layer, BatchNorm) else layer.forward)(values)
            values = layer.output
        self.model.loss.activate(values)
        return float(np.mean(self.model.loss.losses(self.model.loss.output, y)))

    def keep(self) -> None:
        self.kept = [array.copy() for array in self._arrays()]

    def restore(self) -> None:
        for array, kept in zip(self._arrays(), self.kept, strict=True):
            array[...] = kept

    def _arrays(self) -> list[np.ndarray]:
        """Return weights and biases, then running figures."""
        learnt = [array for layer in self.model.trainable_layers for array in (layer.weights, layer.biases)]
        norms = [layer for layer in self.model.layers if isinstance(layer, BatchNorm)]
        statistics = [array for norm in norms for array in (norm.running_mean, norm.running_variance)]
        return [array for array in (*learnt, *statistics) if array.size]
